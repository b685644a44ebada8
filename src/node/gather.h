/*
 * gather.h - commands with several keys: each key goes its own way (dispatch.h), one reply gathers the answers in
 * order.
 *
 * All keys are sent on their way before the next request of the connection is looked at, so that pipelined requests
 * keep their order. Thread of the shard that has the connection, inside an engine section.
 */
#ifndef KVS_NODE_GATHER_H
#define KVS_NODE_GATHER_H

#include "node/shard.h"
#include "node/text.h"

/* The largest reply to one command. */
#define GATHER_REPLY_BYTES_MAX (128ull << 20)

/* Carries out `action` (REMOVE or GET) on each key; the reply is how many were there. */
void gather_count(struct shard *shard, struct net_conn *conn, enum engine_action action, const struct slice *keys,
                  unsigned count);
/* The reply is an array of the keys' values. */
void gather_values(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count);

/*
 * Values for whoever makes something else of them than an array, in pieces, so that nobody else waits. What is embedded
 * in something larger is the gather's from gather_use until `release`, which is called once, whatever comes of it.
 */
struct gather_use {
    /* All are there, until the end; a key that was not is an empty value. */
    void (*begin)(struct gather_use *use, struct shard *shard, const struct slice *values);
    /* Does some of the work; true when `reply` is written. Not called if begin has written one. */
    bool (*work)(struct gather_use *use);
    void (*release)(struct gather_use *use, struct shard *shard);
    struct text reply;
};
#define GATHER_USE_KEYS_MAX 2u
void gather_use(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count,
                struct gather_use *use);

/* Once per turn of the shard's loop: goes on putting a large reply together. */
void gather_turn(struct shard *shard);
/* Frees what is under way, with no reply: after the connections have been freed. */
void gather_abandon(struct shard *shard);

/* For dispatch: an op with a gather has its answer. */
void gather_part_done(struct op *op);

#endif
