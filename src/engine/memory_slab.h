/*
 * memory_slab.h - memory for records of the engine `memory`: one reserved range per shard, cut into pieces by size
 * class.
 *
 * Pieces are named by their offset in units of 16 bytes, so that an index entry can hold one. Classes are multiples of
 * 16 bytes up to 512, then eight to each doubling: at most an eighth is wasted. Freed pieces serve their own class
 * again. One thread takes and gives; any may read what is in a piece.
 */
#ifndef KVS_ENGINE_MEMORY_SLAB_H
#define KVS_ENGINE_MEMORY_SLAB_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SLAB_CLASSES = 256, SLAB_UNIT = 16 };

struct memory_slab {
    uint8_t *range;
    uint64_t bytes_max;
    _Atomic uint64_t bytes_used; /* ever cut from the range */
    uint64_t free[SLAB_CLASSES]; /* first free piece of each class, + 1; 0 = none */
};

enum kvs_err memory_slab_init(struct memory_slab *slab, uint64_t bytes_max);
void memory_slab_deinit(struct memory_slab *slab);

/* A piece of at least `bytes`; false when there is no memory for one. */
bool memory_slab_take(struct memory_slab *slab, uint64_t bytes, uint64_t *piece);
/* `bytes` as given to memory_slab_take. */
void memory_slab_give(struct memory_slab *slab, uint64_t piece, uint64_t bytes);

static inline void *memory_slab_at(const struct memory_slab *slab, uint64_t piece)
{
    return slab->range + piece * SLAB_UNIT;
}

#endif
