/*
 * page_pool.c - a free list over big chunks. Failure: page_pool_get answers NULL and nothing has changed.
 */
#include "engine/page_pool.h"

#include "base/assert.h"
#include "engine/big_memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 2 * 1024 * 1024,
    STOCK_POOL_MIN = 32 * 1024 * 1024, /* of less memory none is set aside */
};

struct page_chunk {
    struct page_chunk *next;
    void *memory;
};

void page_pool_init(struct page_pool *pool, uint64_t bytes_max)
{
    memset(pool, 0, sizeof *pool);
    pool->bytes_max = bytes_max;
}

void page_pool_deinit(struct page_pool *pool)
{
    big_memory_free(atomic_load(&pool->stock), CHUNK_BYTES);
    atomic_store(&pool->stock, NULL);
    while (pool->chunks != NULL) {
        struct page_chunk *chunk = pool->chunks;
        pool->chunks = chunk->next;
        big_memory_free(chunk->memory, CHUNK_BYTES);
        free(chunk);
    }
}

bool page_pool_wants_stock(const struct page_pool *pool)
{
    return pool->bytes_max >= STOCK_POOL_MIN && page_pool_bytes(pool) + 2 * CHUNK_BYTES <= pool->bytes_max &&
           atomic_load_explicit(&pool->stock, memory_order_relaxed) == NULL;
}

void page_pool_stock(struct page_pool *pool)
{
    if (!page_pool_wants_stock(pool))
        return;
    void *memory = big_memory_alloc(CHUNK_BYTES);
    if (memory == NULL)
        return;
    big_memory_populate(memory, CHUNK_BYTES);
    atomic_store_explicit(&pool->stock, memory, memory_order_release);
}

static int chunk_add(struct page_pool *pool)
{
    struct page_chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return -1;
    void *memory = NULL;
    if (atomic_load_explicit(&pool->stock, memory_order_relaxed) != NULL)
        memory = atomic_exchange_explicit(&pool->stock, NULL, memory_order_acquire);
    if (memory == NULL)
        memory = big_memory_alloc(CHUNK_BYTES);
    if (memory == NULL) {
        free(chunk);
        return -1;
    }
    *chunk = (struct page_chunk){.next = pool->chunks, .memory = memory};
    pool->chunks = chunk;
    pool->unused = memory;
    pool->unused_end = pool->unused + CHUNK_BYTES;
    return 0;
}

void *page_pool_get(struct page_pool *pool)
{
    uint64_t used = page_pool_bytes(pool);
    if (used + PAGE_BYTES > pool->bytes_max)
        return NULL;
    void *page = pool->free;
    if (page != NULL) {
        memcpy(&pool->free, page, sizeof pool->free);
        memset(page, 0, PAGE_BYTES);
    } else {
        if (pool->unused == pool->unused_end && chunk_add(pool) != 0)
            return NULL;
        page = pool->unused;
        pool->unused += PAGE_BYTES;
    }
    atomic_store_explicit(&pool->bytes_used, used + PAGE_BYTES, memory_order_relaxed);
    return page;
}

void page_pool_put(struct page_pool *pool, void *page)
{
    uint64_t used = page_pool_bytes(pool);
    KVS_ASSERT(used >= PAGE_BYTES);
    KVS_ASSERT(((uintptr_t)page & (PAGE_BYTES - 1)) == 0);
    memcpy(page, &pool->free, sizeof pool->free);
    pool->free = page;
    atomic_store_explicit(&pool->bytes_used, used - PAGE_BYTES, memory_order_relaxed);
}
