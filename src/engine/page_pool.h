/*
 * page_pool.h - 4 KiB pages for the index, cut from 2 MiB chunks that ask for huge pages.
 *
 * One thread takes and gives back; page_pool_bytes may be read from any. Chunks are returned to the system at deinit
 * only. Another thread may put a chunk in stock, so that the first does not wait for the system when it needs one.
 *
 * Pages may also be lent: they lie in a file, mapped copy-on-write, and are the pool's from the first moment on. Chunk
 * by chunk it takes them over into memory of its own, in place: addresses stay, and who reads meanwhile notices
 * nothing.
 */
#ifndef KVS_ENGINE_PAGE_POOL_H
#define KVS_ENGINE_PAGE_POOL_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096, PAGE_CHUNK_BYTES = 2 * 1024 * 1024 };

struct page_chunk;

struct page_pool {
    _Atomic uint64_t bytes_max;
    _Atomic uint64_t bytes_used; /* pages handed out */
    void *free;                  /* a list through the first word of each free page */
    struct page_chunk *chunks;
    struct page_chunk *lender; /* the next of them to be taken over … */
    _Atomic uint64_t lent;     /* … of so many */
    _Atomic(void *) stock;     /* a chunk that is backed by memory, or NULL */
    uint8_t *unused;           /* the latest chunk's pages that were never handed out */
    uint8_t *unused_end;
};

void page_pool_init(struct page_pool *pool, uint64_t bytes_max);
void page_pool_deinit(struct page_pool *pool);

/* From now on it may hand out so much; what it has handed out stays. Any thread. */
void page_pool_allow(struct page_pool *pool, uint64_t bytes_max);
/* It is about to come to that. Any thread. */
bool page_pool_is_tight(const struct page_pool *pool);

/* A zeroed page, aligned to its size; NULL when bytes_max are handed out or the system has no more. */
void *page_pool_get(struct page_pool *pool);
void page_pool_put(struct page_pool *pool, void *page);

/* Adds `pages` > 0 pages that are in use. They begin `memory`, which is big_memory_alloc's, of PAGE_CHUNK_BYTES for
 * each chunk that they begin, and zeroed behind them. For a pool that was just made. NO_MEMORY: nothing has changed. */
enum kvs_err page_pool_lend(struct page_pool *pool, void *memory, uint64_t pages);
/* Takes over one chunk, if there is one in stock to put it in: a copy of PAGE_CHUNK_BYTES. Who changes pages does not
 * do so meanwhile. */
void page_pool_take_over(struct page_pool *pool);

/* Nothing is in stock, and there may be need for it. Any thread. */
bool page_pool_wants_stock(const struct page_pool *pool);
/* Puts a chunk in stock. One thread, any. True: for page_pool_take_over, which should be called now. */
bool page_pool_stock(struct page_pool *pool);

static inline uint64_t page_pool_bytes(const struct page_pool *pool)
{
    return atomic_load_explicit(&pool->bytes_used, memory_order_relaxed);
}

#endif
