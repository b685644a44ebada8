/*
 * large_memory.c - mmap, mremap and munmap.
 *
 *   ┌──────────────────────┬──────────────────────────┬──────┐
 *   │ struct, …, room      │ data                     │ room │   whole pages of 4 KiB
 *   └──────────────────────┴──────────────────────────┴──────┘
 *
 * A trash unmaps from the end, 2 MiB at a time at addresses that are multiples of it: so no huge page is ever split.
 */
#include "base/large_memory.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/tsan.h"

#include <string.h>
#include <sys/mman.h>

enum {
    PAGE_BYTES = 4096,
    PIECE_BYTES = 2 * 1024 * 1024, /* let go of at once */
};

static size_t mapped_for(size_t size)
{
    return PAGE_BYTES + align_up(size + LARGE_MEMORY_ROOM, PAGE_BYTES);
}

/* Takes the bytes from the pool's bound, and from what may come on top. */
static bool reserve(struct large_pool *pool, size_t bytes, uint64_t over)
{
    uint64_t used = atomic_fetch_add_explicit(&pool->used_bytes, bytes, memory_order_relaxed);
    bool fits = used == 0 || used + bytes <= pool->bytes_max || canary_on(CANARY_LARGE_UNBOUNDED);
    if (fits || used + bytes - pool->bytes_max <= over)
        return true;
    atomic_fetch_sub_explicit(&pool->used_bytes, bytes, memory_order_relaxed);
    return false;
}

static void unreserve(struct large_pool *pool, size_t bytes)
{
    uint64_t before = atomic_fetch_sub_explicit(&pool->used_bytes, bytes, memory_order_relaxed);
    KVS_ASSERT(before >= bytes);
}

static void set_up(struct large_memory *memory, struct large_pool *pool, size_t mapped_bytes, size_t size)
{
    memory->pool = pool;
    memory->mapped_bytes = mapped_bytes;
    memory->size = size;
    memory->data = (uint8_t *)memory + PAGE_BYTES;
}

static void *map(size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* ThreadSanitizer knows of mmap and munmap, not of mremap: what one thread has left and another gets looks shared. */
static void *remap(void *memory, size_t before, size_t after)
{
#ifdef KVS_UNDER_TSAN
    void *moved = map(after);
    if (moved != MAP_FAILED) {
        memcpy(moved, memory, before);
        munmap(memory, before);
    }
    return moved;
#else
    return mremap(memory, before, after, MREMAP_MAYMOVE);
#endif
}

struct large_memory *large_memory_take(struct large_pool *pool, size_t size, uint64_t over)
{
    size_t mapped_bytes = mapped_for(size);
    if (!reserve(pool, mapped_bytes, over))
        return NULL;
    void *mapped = map(mapped_bytes);
    if (mapped == MAP_FAILED) {
        unreserve(pool, mapped_bytes);
        return NULL;
    }
    (void)madvise(mapped, mapped_bytes, MADV_HUGEPAGE); /* only advice */
    struct large_memory *memory = mapped;
    list_init(&memory->link);
    set_up(memory, pool, mapped_bytes, size);
    return memory;
}

struct large_memory *large_memory_grow(struct large_memory *memory, size_t size, uint64_t over)
{
    struct large_pool *pool = memory->pool;
    size_t before = memory->mapped_bytes;
    size_t after = mapped_for(size);
    KVS_ASSERT(list_empty(&memory->link)); /* it may move */
    if (after <= before) {
        memory->size = size > memory->size ? size : memory->size;
        return memory;
    }
    if (!reserve(pool, after - before, over))
        return NULL;
    void *moved = remap(memory, before, after);
    if (moved == MAP_FAILED) {
        unreserve(pool, after - before);
        return NULL;
    }
    memory = moved;
    list_init(&memory->link);
    set_up(memory, pool, after, size);
    return memory;
}

void large_memory_move(struct large_memory *memory, struct large_pool *pool)
{
    (void)reserve(pool, memory->mapped_bytes, LARGE_MEMORY_ANY);
    unreserve(memory->pool, memory->mapped_bytes);
    memory->pool = pool;
}

void large_memory_give(struct large_memory *memory)
{
    if (memory == NULL)
        return;
    struct large_pool *pool = memory->pool;
    size_t bytes = memory->mapped_bytes;
    munmap(memory, bytes);
    unreserve(pool, bytes);
}

void large_trash_add(struct large_trash *trash, struct large_memory *memory)
{
    if (memory != NULL && memory->mapped_bytes > PIECE_BYTES)
        list_push_back(&trash->pieces, &memory->link);
    else
        large_memory_give(memory);
}

bool large_trash_turn(struct large_trash *trash)
{
    if (list_empty(&trash->pieces))
        return false;
    struct large_memory *memory = container_of(trash->pieces.next, struct large_memory, link);
    uint8_t *begin = (uint8_t *)memory;
    uint8_t *end = begin + memory->mapped_bytes;
    uint8_t *cut = (uint8_t *)align_down((uintptr_t)end - 1, PIECE_BYTES);
    if (cut <= begin) {
        list_remove(&memory->link);
        large_memory_give(memory);
    } else {
        memory->mapped_bytes = (size_t)(cut - begin);
        munmap(cut, (size_t)(end - cut));
        unreserve(memory->pool, (size_t)(end - cut));
    }
    return !list_empty(&trash->pieces);
}

void large_trash_empty(struct large_trash *trash)
{
    while (!list_empty(&trash->pieces))
        large_memory_give(container_of(list_pop_front(&trash->pieces), struct large_memory, link));
}
