/* memory_slab.c - free lists over a range of which only the touched part takes RAM. */
#include "engine/memory_slab.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "engine/big_memory.h"

enum { LINEAR_MAX = 512, STEPS = 8 };

/* The class for `bytes`, and in *size what its pieces have. */
static unsigned class_of(uint64_t bytes, uint64_t *size)
{
    KVS_ASSERT(bytes > 0);
    if (bytes <= LINEAR_MAX) {
        *size = align_up(bytes, SLAB_UNIT);
        return (unsigned)(*size / SLAB_UNIT) - 1;
    }
    unsigned log = 63u - (unsigned)__builtin_clzll(bytes - 1);
    uint64_t step = (1ull << log) / STEPS;
    *size = align_up(bytes, step);
    uint64_t nth = (*size - (1ull << log)) / step; /* 1..8 above the power of two */
    unsigned class = LINEAR_MAX / SLAB_UNIT + (log - 9) * STEPS + (unsigned)nth - 1;
    KVS_ASSERT(class < SLAB_CLASSES);
    return class;
}

enum kvs_err memory_slab_init(struct memory_slab *slab, uint64_t bytes_max)
{
    memset(slab, 0, sizeof *slab);
    slab->bytes_max = bytes_max;
    slab->range = big_memory_alloc(bytes_max);
    return slab->range == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void memory_slab_deinit(struct memory_slab *slab)
{
    big_memory_free(slab->range, slab->bytes_max);
    slab->range = NULL;
}

bool memory_slab_take(struct memory_slab *slab, uint64_t bytes, uint64_t *piece)
{
    uint64_t size;
    unsigned class = class_of(bytes, &size);
    if (slab->free[class] != 0) {
        *piece = slab->free[class] - 1;
        memcpy(&slab->free[class], memory_slab_at(slab, *piece), sizeof slab->free[class]);
        return true;
    }
    uint64_t used = atomic_load_explicit(&slab->bytes_used, memory_order_relaxed);
    if (slab->bytes_max - used < size)
        return false;
    *piece = used / SLAB_UNIT;
    atomic_store_explicit(&slab->bytes_used, used + size, memory_order_relaxed);
    return true;
}

void memory_slab_give(struct memory_slab *slab, uint64_t piece, uint64_t bytes)
{
    uint64_t size;
    unsigned class = class_of(bytes, &size);
    memcpy(memory_slab_at(slab, piece), &slab->free[class], sizeof slab->free[class]);
    slab->free[class] = piece + 1;
}
