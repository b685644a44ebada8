/*
 * op.h - a request that cannot be answered at once: pooled, with its own copy of key and value, able to travel.
 *
 * An op is taken from the pool of the shard that has the connection (its home), waits in the engine, travels to the
 * key's owner and back, and carries the finished reply in the end. It goes back to the pool at home.
 *
 * Bytes. Small keys, values and replies fit in the op itself. Larger ones take memory from a budget that all shards
 * share; beyond it op_reserve refuses, so that requests under way are bounded in number and in bytes. Large requests
 * and large replies are not copied: the op keeps the memory that they were received in, or read into from disk.
 *
 * Threading: a pool belongs to its shard's thread; an op to the thread of the shard it is at; the budget to everybody.
 */
#ifndef KVS_NODE_OP_H
#define KVS_NODE_OP_H

#include "base/large_memory.h"
#include "engine/engine.h"
#include "net/net.h"
#include "node/mailbox.h"
#include "node/reply.h"
#include "node/update_run.h"

#include <stdatomic.h>

struct client;
struct gather;
struct shard;

#define OP_ROOM_BYTES 320u

struct op_budget {
    _Atomic uint64_t used_bytes;
    uint64_t bytes_max;
};

struct op {
    struct mail mail; /* while it travels; while it waits for a gate; while it is free */
    struct engine_op engine;
    struct net_slot slot;  /* of the request; unused in a part of a gather */
    struct gather *gather; /* the command with several keys that this is a part of; NULL: a request by itself */
    struct shard *home;    /* has the connection */
    struct shard *at;      /* executes it */
    struct client *client; /* of the connection; home's */
    struct op_budget *budget;
    unsigned owner; /* shard of the key */
    bool sent;      /* counted in client->under_way[owner] */
    bool changes;   /* counted in home->changes_under_way */
    struct reply_format format;
    struct update_spec update; /* with a function: the request is an update, and engine.request its key and operand */
    struct slice operand;      /* … while the key is held */
    struct update_scratch scratch;
    enum kvs_err undecided;     /* why nothing could be decided while the key was held */
    bool found;                 /* the key was there */
    uint64_t gate;              /* of the reply */
    size_t reply_bytes;         /* at the start of `bytes`, once executed */
    const uint8_t *reply;       /* that start, or where else the reply lies */
    struct large_memory *large; /* what a large request, and then perhaps a large reply, lies in; NULL: neither is */
    uint8_t *bytes;             /* `room`, or from the budget */
    size_t capacity;
    uint8_t room[OP_ROOM_BYTES];
};

struct op_pool {
    struct mail *free;
    struct op_slab *slabs;
    struct shard *home;
    struct op_budget *budget;
    struct large_trash trash;
    unsigned used, made, max;
};

void op_pool_init(struct op_pool *pool, struct shard *home, struct op_budget *budget, unsigned max);
void op_pool_deinit(struct op_pool *pool);
/* How many more op_take would give (memory permitting). */
unsigned op_pool_left(const struct op_pool *pool);

/* NULL: as many as there may be are under way, or memory ran out. */
struct op *op_take(struct op_pool *pool);
void op_give(struct op_pool *pool, struct op *op);

/* Sets the request, with copies of its key and value; false when the budget is used up. */
bool op_copy_request(struct op *op, const struct engine_request *request);
/* The same without copies: key and value lie in `large`, which is the op's from now on. */
void op_keep_request(struct op *op, const struct engine_request *request, struct large_memory *large);
/* At home, when the request has been carried out: nothing of it is needed any more. */
void op_drop_request(struct op_pool *pool, struct op *op);
/* Makes op->bytes at least `bytes` long; what was in it is lost. */
bool op_reserve(struct op *op, size_t bytes);
/* Writes the reply to `result` into the op, or around the value in result->memory, which becomes the op's. The
 * request's bytes are gone after this. */
void op_write_reply(struct op *op, struct engine_result *result, const struct reply_origin *origin);

#endif
