/*
 * expiry_pool.c - a free list per block, and blocks in three lists by how much of them is in use.
 *
 * A block is aligned to its size: a chunk's address tells its block. Chunks come from partly used blocks first, so that
 * the others become empty. Failure: expiry_pool_grow answers false and nothing has changed.
 */
#include "engine/expiry_pool.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>

struct block {
    struct list link;
    struct expiry_chunk *free; /* were in use once */
    uint32_t used;
    uint32_t fresh; /* the chunks from this one on never were */
};

static_assert(sizeof(struct block) <= EXPIRY_CHUNK_BYTES, "a block's head takes one chunk's place");

void expiry_pool_init(struct expiry_pool *pool)
{
    memset(pool, 0, sizeof *pool);
    list_init(&pool->empty);
    list_init(&pool->partial);
    list_init(&pool->full);
}

static void free_all(struct list *blocks)
{
    struct list *next;
    for (struct list *link = blocks->next; link != blocks; link = next) {
        next = link->next;
        free(container_of(link, struct block, link));
    }
}

void expiry_pool_deinit(struct expiry_pool *pool)
{
    free_all(&pool->empty);
    free_all(&pool->partial);
    free_all(&pool->full);
}

bool expiry_pool_grow(struct expiry_pool *pool)
{
    struct block *block = aligned_alloc(EXPIRY_BLOCK_BYTES, EXPIRY_BLOCK_BYTES);
    if (block == NULL)
        return false;
    memset(block, 0, sizeof *block);
    list_push_back(&pool->empty, &block->link);
    pool->blocks++;
    pool->blocks_empty++;
    return true;
}

void expiry_pool_trim(struct expiry_pool *pool, uint64_t chunks_min)
{
    if (pool->blocks_empty < 2 || expiry_pool_chunks(pool) < chunks_min + EXPIRY_BLOCK_CHUNKS)
        return;
    struct list *link = list_pop_front(&pool->empty);
    KVS_ASSERT(link != NULL);
    struct block *block = container_of(link, struct block, link);
    KVS_ASSERT(block->used == 0);
    pool->blocks--;
    pool->blocks_empty--;
    free(block);
}

static void move_to(struct list *blocks, struct block *block)
{
    list_remove(&block->link);
    list_push_back(blocks, &block->link);
}

struct expiry_chunk *expiry_pool_get(struct expiry_pool *pool)
{
    struct list *blocks = list_empty(&pool->partial) ? &pool->empty : &pool->partial;
    KVS_ASSERT(!list_empty(blocks));
    struct block *block = container_of(blocks->next, struct block, link);
    struct expiry_chunk *chunk = block->free;
    if (chunk != NULL) {
        block->free = chunk->next;
    } else {
        KVS_ASSERT(block->fresh < EXPIRY_BLOCK_CHUNKS);
        chunk = (struct expiry_chunk *)(void *)((char *)block + EXPIRY_CHUNK_BYTES) + block->fresh++;
    }
    if (block->used++ == 0) {
        move_to(&pool->partial, block);
        pool->blocks_empty--;
    }
    if (block->used == EXPIRY_BLOCK_CHUNKS)
        move_to(&pool->full, block);
    uint64_t used = atomic_load_explicit(&pool->chunks_used, memory_order_relaxed);
    atomic_store_explicit(&pool->chunks_used, used + 1, memory_order_relaxed);
    return chunk;
}

void expiry_pool_put(struct expiry_pool *pool, struct expiry_chunk *chunk)
{
    struct block *block = (struct block *)(void *)((char *)chunk - ((uintptr_t)chunk & (EXPIRY_BLOCK_BYTES - 1)));
    KVS_ASSERT(block->used > 0 && ((uintptr_t)chunk & (EXPIRY_CHUNK_BYTES - 1)) == 0);
    if (block->used == EXPIRY_BLOCK_CHUNKS)
        move_to(&pool->partial, block);
    chunk->next = block->free;
    block->free = chunk;
    if (--block->used == 0) {
        move_to(&pool->empty, block);
        pool->blocks_empty++;
    }
    uint64_t used = atomic_load_explicit(&pool->chunks_used, memory_order_relaxed);
    KVS_ASSERT(used > 0);
    atomic_store_explicit(&pool->chunks_used, used - 1, memory_order_relaxed);
}
