/*
 * index_internal.h - what an index is made of, for index.c, which explains it, and index_scan.c.
 */
#ifndef KVS_ENGINE_INDEX_INTERNAL_H
#define KVS_ENGINE_INDEX_INTERNAL_H

#include "engine/index.h"

#include "engine/page_pool.h"

#include <assert.h>
#include <stdatomic.h>

enum {
    BUCKET_BITS = 6,
    BUCKETS = 1 << BUCKET_BITS,
    SLOTS = 8,
    PAGE_SLOTS = BUCKETS * SLOTS,
    DISTANCE_MAX = 7,
    FINGERPRINT_BITS = 15,
    DEPTH_MAX = 27,
    SUCCESSOR_STEP = 64, /* entries of the directory that a split copies towards its doubling */
};
static_assert(PAGE_SLOTS * sizeof(uint64_t) == PAGE_BYTES, "a page is 64 cache lines");
static_assert(BUCKET_BITS + DEPTH_MAX + FINGERPRINT_BITS <= 48, "bits of the hash");

#define SLOT_REMOVED    1ull
#define CLASS_SHIFT     40
#define DISTANCE_SHIFT  44
#define UNSETTLED_SHIFT 47
#define PRINT_SHIFT     48
#define DISTANCE_MASK   (7ull << DISTANCE_SHIFT)
#define WINDOW_MASK     ((1u << FINGERPRINT_BITS) - 1)

#define DEPTH_MASK 63ull /* pages are aligned to 4 KiB: the low bits of a directory entry hold the page's depth */

struct directory {
    unsigned depth;
    struct epoch_entry retired;
    _Atomic uint64_t entries[];
};

struct index {
    _Atomic(struct directory *) directory;
    uint64_t shard_count;
    struct epoch_thread *thread;
    struct page_pool pool;
    struct directory *successor; /* of twice the size, not published yet; NULL: none */
    uint64_t successor_filled;   /* so many entries of the directory are in both of its halves */
    unsigned depth_min;          /* a page cannot be deeper than this plus FINGERPRINT_BITS */
    _Atomic uint64_t entries;
    _Atomic uint64_t directory_bytes;
    _Atomic uint64_t splits;
    _Atomic uint64_t directory_step_max;
};

typedef _Atomic uint64_t slot_t;

static inline unsigned slot_print(uint64_t slot)
{
    return (unsigned)(slot >> PRINT_SHIFT);
}

static inline unsigned slot_distance(uint64_t slot)
{
    return (unsigned)(slot >> DISTANCE_SHIFT) & DISTANCE_MAX;
}

/* Bits of the hash that a fingerprint still holds, 0..15. */
static inline unsigned print_bits(unsigned print)
{
    return 31u - (unsigned)__builtin_clz(print);
}

static inline struct index_entry slot_entry(uint64_t slot)
{
    return (struct index_entry){.address = slot & INDEX_ADDRESS_MASK,
                                .class = (unsigned)(slot >> CLASS_SHIFT) & INDEX_CLASS_MAX,
                                .unsettled = (slot >> UNSETTLED_SHIFT & 1) != 0};
}

static inline void *page_of(uint64_t directory_entry)
{
    return (void *)(uintptr_t)(directory_entry & ~DEPTH_MASK);
}

static inline unsigned depth_of(uint64_t directory_entry)
{
    return (unsigned)(directory_entry & DEPTH_MASK);
}

/* Bits 0..5 as they are; then, from bit 6 on, those below what tells the shard, the highest first. */
static inline uint64_t bits_of(const struct index *index, uint64_t hash)
{
    uint64_t mirrored = __builtin_bswap64(hash * index->shard_count);
    mirrored = (mirrored >> 4 & 0x0f0f0f0f0f0f0f0full) | (mirrored & 0x0f0f0f0f0f0f0f0full) << 4;
    mirrored = (mirrored >> 2 & 0x3333333333333333ull) | (mirrored & 0x3333333333333333ull) << 2;
    mirrored = (mirrored >> 1 & 0x5555555555555555ull) | (mirrored & 0x5555555555555555ull) << 1;
    return mirrored << BUCKET_BITS | (hash & (BUCKETS - 1));
}

static inline uint64_t directory_slot(const struct directory *directory, uint64_t bits)
{
    return (bits >> BUCKET_BITS) & ((1ull << directory->depth) - 1);
}

#endif
