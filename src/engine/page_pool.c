/*
 * page_pool.c - a free list over big chunks. Failure: page_pool_get answers NULL and nothing has changed.
 */
#include "engine/page_pool.h"

#include "base/assert.h"
#include "engine/big_memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = PAGE_CHUNK_BYTES,
    TIGHT_SHARE = 16,                  /* less than one in so many is left */
    STOCK_POOL_MIN = 32 * 1024 * 1024, /* of less memory none is set aside */
};

struct page_chunk {
    struct page_chunk *next;
    void *memory;
};

void page_pool_init(struct page_pool *pool, uint64_t bytes_max)
{
    memset(pool, 0, sizeof *pool);
    page_pool_allow(pool, bytes_max);
}

static uint64_t allowed(const struct page_pool *pool)
{
    return atomic_load_explicit(&pool->bytes_max, memory_order_relaxed);
}

void page_pool_allow(struct page_pool *pool, uint64_t bytes_max)
{
    atomic_store_explicit(&pool->bytes_max, bytes_max, memory_order_relaxed);
}

bool page_pool_is_tight(const struct page_pool *pool)
{
    return page_pool_bytes(pool) + allowed(pool) / TIGHT_SHARE > allowed(pool);
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
    if (atomic_load_explicit(&pool->lent, memory_order_relaxed) > 0)
        return atomic_load_explicit(&pool->stock, memory_order_relaxed) == NULL;
    return allowed(pool) >= STOCK_POOL_MIN && page_pool_bytes(pool) + 2 * CHUNK_BYTES <= allowed(pool) &&
           atomic_load_explicit(&pool->stock, memory_order_relaxed) == NULL;
}

bool page_pool_stock(struct page_pool *pool)
{
    if (!page_pool_wants_stock(pool))
        return false;
    void *memory = big_memory_alloc(CHUNK_BYTES);
    if (memory == NULL)
        return false;
    big_memory_populate(memory, CHUNK_BYTES);
    atomic_store_explicit(&pool->stock, memory, memory_order_release);
    return atomic_load_explicit(&pool->lent, memory_order_relaxed) > 0;
}

enum kvs_err page_pool_lend(struct page_pool *pool, void *memory, uint64_t pages)
{
    KVS_ASSERT(pool->chunks == NULL && pages > 0);
    const uint64_t chunks = (pages * PAGE_BYTES + CHUNK_BYTES - 1) / CHUNK_BYTES;
    for (uint64_t i = 0; i < chunks; i++) {
        struct page_chunk *chunk = malloc(sizeof *chunk);
        if (chunk == NULL) {
            while ((chunk = pool->chunks) != NULL) {
                pool->chunks = chunk->next;
                free(chunk);
            }
            return KVS_ERR_NO_MEMORY;
        }
        *chunk = (struct page_chunk){.next = pool->chunks, .memory = (uint8_t *)memory + i * CHUNK_BYTES};
        pool->chunks = chunk;
    }
    pool->lender = pool->chunks;
    pool->unused = (uint8_t *)memory + pages * PAGE_BYTES;
    pool->unused_end = (uint8_t *)memory + chunks * CHUNK_BYTES;
    atomic_store_explicit(&pool->bytes_used, pages * PAGE_BYTES, memory_order_relaxed);
    atomic_store_explicit(&pool->lent, chunks, memory_order_relaxed);
    return KVS_ERR_OK;
}

void page_pool_take_over(struct page_pool *pool)
{
    const uint64_t lent = atomic_load_explicit(&pool->lent, memory_order_relaxed);
    if (lent == 0 || atomic_load_explicit(&pool->stock, memory_order_relaxed) == NULL)
        return;
    void *memory = atomic_exchange_explicit(&pool->stock, NULL, memory_order_acquire);
    memcpy(memory, pool->lender->memory, CHUNK_BYTES);
    if (!big_memory_replace(pool->lender->memory, memory, CHUNK_BYTES)) {
        big_memory_free(memory, CHUNK_BYTES);
        atomic_store_explicit(&pool->lent, 0, memory_order_relaxed); /* then the rest stays as it is */
        return;
    }
    pool->lender = pool->lender->next;
    atomic_store_explicit(&pool->lent, lent - 1, memory_order_relaxed);
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
    if (used + PAGE_BYTES > allowed(pool))
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
