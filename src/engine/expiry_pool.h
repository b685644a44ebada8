/*
 * expiry_pool.h - chunks of 21 items for the expiry queue, cut from 64 KiB blocks.
 *
 * A chunk is small because a queue has hundreds of buckets and each may hold a partly filled one. Blocks are taken from
 * the allocator ahead of need (expiry_pool_grow), so that expiry_pool_get never fails where an item must be moved and
 * has nowhere else to go; chunks that were never handed out take no RAM. Empty blocks go back to the allocator one by
 * one (expiry_pool_trim), so that no call pays for many.
 *
 * One thread; expiry_pool_bytes may be read from any. The pool owns its chunks and frees all of them at deinit.
 */
#ifndef KVS_ENGINE_EXPIRY_POOL_H
#define KVS_ENGINE_EXPIRY_POOL_H

#include "base/list.h"
#include "engine/expiry_queue.h"

#include <assert.h>
#include <stdatomic.h>

enum { EXPIRY_CHUNK_BYTES = 512, EXPIRY_CHUNK_ITEMS = 21, EXPIRY_BLOCK_BYTES = 64 * 1024 };
/* The first chunk's place is taken by the block's own head. */
enum { EXPIRY_BLOCK_CHUNKS = EXPIRY_BLOCK_BYTES / EXPIRY_CHUNK_BYTES - 1 };

struct expiry_chunk {
    struct expiry_chunk *next;
    struct expiry_item items[EXPIRY_CHUNK_ITEMS];
};

static_assert(sizeof(struct expiry_chunk) == EXPIRY_CHUNK_BYTES, "nothing of a chunk is wasted");

struct expiry_pool {
    struct list empty;   /* blocks of which no chunk is in use */
    struct list partial; /* some are */
    struct list full;    /* all are */
    uint64_t blocks;
    uint64_t blocks_empty;
    _Atomic uint64_t chunks_used;
};

void expiry_pool_init(struct expiry_pool *pool);
void expiry_pool_deinit(struct expiry_pool *pool);

/* One block more; false when the allocator has none. */
bool expiry_pool_grow(struct expiry_pool *pool);
/* Frees an empty block if there are at least two and the others have room for `chunks_min` in use and free. */
void expiry_pool_trim(struct expiry_pool *pool, uint64_t chunks_min);

/* Not initialised. The caller has seen to it that not all chunks are in use. */
struct expiry_chunk *expiry_pool_get(struct expiry_pool *pool);
void expiry_pool_put(struct expiry_pool *pool, struct expiry_chunk *chunk);

/* In use and free. */
static inline uint64_t expiry_pool_chunks(const struct expiry_pool *pool)
{
    return pool->blocks * EXPIRY_BLOCK_CHUNKS;
}

/* Of chunks in use. */
static inline uint64_t expiry_pool_bytes(const struct expiry_pool *pool)
{
    return atomic_load_explicit(&pool->chunks_used, memory_order_relaxed) * EXPIRY_CHUNK_BYTES;
}

#endif
