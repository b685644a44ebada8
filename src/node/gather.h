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

/* The largest reply to one command. */
#define GATHER_REPLY_BYTES_MAX (128ull << 20)

/* Carries out `action` (REMOVE or GET) on each key; the reply is how many were there. */
void gather_count(struct shard *shard, struct net_conn *conn, enum engine_action action, const struct slice *keys,
                  unsigned count);
/* The reply is an array of the keys' values. */
void gather_values(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count);

/* Once per turn of the shard's loop: goes on putting a large reply together. */
void gather_turn(struct shard *shard);
/* Frees what is under way, with no reply: after the connections have been freed. */
void gather_abandon(struct shard *shard);

/* For dispatch: an op with a gather has its answer. */
void gather_part_done(struct op *op);

#endif
