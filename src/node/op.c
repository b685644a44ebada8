/*
 * op.c - the pool of requests under way.
 *
 * Ops are made in slabs as they are needed, up to the pool's limit, and kept for the next time: after a while nothing
 * is allocated any more. Failure: no op or no bytes; the request is then answered with an error that says so.
 */
#include "node/op.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/limits.h"

#include <stdlib.h>

#define SLAB_OPS 32u

struct op_slab {
    struct op_slab *next;
    struct op ops[SLAB_OPS];
};

void op_pool_init(struct op_pool *pool, struct shard *home, struct op_budget *budget, unsigned max)
{
    KVS_ASSERT(max >= SLAB_OPS);
    *pool = (struct op_pool){.home = home, .budget = budget, .max = max - max % SLAB_OPS};
    large_trash_init(&pool->trash);
}

static void drop_bytes(struct op *op)
{
    if (op->bytes != op->room) {
        atomic_fetch_sub_explicit(&op->budget->used_bytes, op->capacity, memory_order_relaxed);
        free(op->bytes);
    }
    op->bytes = op->room;
    op->capacity = OP_ROOM_BYTES;
}

void op_pool_deinit(struct op_pool *pool)
{
    while (pool->slabs != NULL) {
        struct op_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        for (unsigned i = 0; i < SLAB_OPS; i++) {
            drop_bytes(&slab->ops[i]);
            if (slab->ops[i].update.run != NULL)
                update_scratch_deinit(&slab->ops[i].scratch, &pool->trash);
            large_memory_give(slab->ops[i].large);
        }
        free(slab);
    }
    pool->free = NULL;
    large_trash_empty(&pool->trash);
}

unsigned op_pool_left(const struct op_pool *pool)
{
    return pool->max - pool->used;
}

static bool add_slab(struct op_pool *pool)
{
    if (pool->made == pool->max)
        return false;
    size_t bytes = align_up(sizeof(struct op_slab), KVS_CACHE_LINE_BYTES);
    struct op_slab *slab = aligned_alloc(KVS_CACHE_LINE_BYTES, bytes);
    if (slab == NULL)
        return false;
    memset(slab, 0, bytes);
    slab->next = pool->slabs;
    pool->slabs = slab;
    pool->made += SLAB_OPS;
    for (unsigned i = SLAB_OPS; i-- > 0;) {
        struct op *op = &slab->ops[i];
        op->home = pool->home;
        op->budget = pool->budget;
        op->bytes = op->room;
        op->capacity = OP_ROOM_BYTES;
        op->mail.next = pool->free;
        op->mail.kind = MAIL_OP;
        pool->free = &op->mail;
    }
    return true;
}

struct op *op_take(struct op_pool *pool)
{
    if (pool->free == NULL && !add_slab(pool))
        return NULL;
    struct op *op = container_of(pool->free, struct op, mail);
    pool->free = op->mail.next;
    pool->used++;
    op->gather = NULL;
    op->at = pool->home;
    op->sent = false;
    op->gate = 0;
    op->reply_bytes = 0;
    op->reply = op->bytes;
    KVS_ASSERT(op->large == NULL && op->update.run == NULL);
    return op;
}

void op_give(struct op_pool *pool, struct op *op)
{
    KVS_ASSERT(op->home == pool->home && pool->used > 0);
    drop_bytes(op);
    if (op->update.run != NULL)
        update_scratch_deinit(&op->scratch, &pool->trash);
    op->update.run = NULL;
    large_trash_add(&pool->trash, op->large);
    op->large = NULL;
    op->mail.next = pool->free;
    pool->free = &op->mail;
    pool->used--;
}

bool op_reserve(struct op *op, size_t bytes)
{
    if (bytes <= op->capacity)
        return true;
    drop_bytes(op);
    if (bytes <= OP_ROOM_BYTES)
        return true;
    uint64_t used = atomic_fetch_add_explicit(&op->budget->used_bytes, bytes, memory_order_relaxed);
    bool full = used + bytes > op->budget->bytes_max && !canary_on(CANARY_OPS_UNBOUNDED);
    uint8_t *memory = full ? NULL : malloc(bytes);
    if (memory == NULL) {
        atomic_fetch_sub_explicit(&op->budget->used_bytes, bytes, memory_order_relaxed);
        return false;
    }
    op->bytes = memory;
    op->capacity = bytes;
    return true;
}

bool op_copy_request(struct op *op, const struct engine_request *request)
{
    size_t key_bytes = request->key.size, value_bytes = request->value.size;
    op->engine.request = *request;
    op->engine.result = (struct engine_result){0};
    if (!op_reserve(op, key_bytes + value_bytes))
        return false;
    if (key_bytes > 0)
        memcpy(op->bytes, request->key.data, key_bytes);
    if (value_bytes > 0)
        memcpy(op->bytes + key_bytes, request->value.data, value_bytes);
    op->engine.request.key.data = op->bytes;
    op->engine.request.value.data = op->bytes + key_bytes;
    return true;
}

void op_keep_request(struct op *op, const struct engine_request *request, struct large_memory *large)
{
    KVS_ASSERT(op->large == NULL);
    op->engine.request = *request;
    op->engine.result = (struct engine_result){0};
    op->large = large;
}

void op_drop_request(struct op_pool *pool, struct op *op)
{
    if (op->large == NULL || op->reply != op->bytes)
        return;
    large_trash_add(&pool->trash, op->large);
    op->large = NULL;
}

void op_write_reply(struct op *op, struct engine_result *result, const struct reply_origin *origin)
{
    if (result->memory != NULL) {
        KVS_ASSERT(op->large == NULL && result->error == KVS_ERR_OK);
        op->large = result->memory;
        result->memory = NULL;
        op->reply_bytes = reply_write_around(op->large->data, result->value.size, &op->format, &op->reply);
        return;
    }
    if (op_reserve(op, reply_bound(&op->format, result))) {
        op->reply = op->bytes;
        op->reply_bytes = reply_write(op->bytes, &op->format, result, origin);
        return;
    }
    /* op_reserve has fallen back to `room`, where a short text fits. */
    op->engine.result.error = KVS_ERR_AGAIN;
    op->reply = op->bytes;
    op->reply_bytes = reply_write_error(op->bytes, &op->format, KVS_ERR_AGAIN,
                                        "OOM kvs-node: the requests under way hold too much memory; try again");
}
