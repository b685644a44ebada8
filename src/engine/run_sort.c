/*
 * run_sort.c - radix sort from the most significant bits of the order, in place.
 *
 *   level 0   │ 0… │ 1… │ 2… │ … │        each level puts its entries into buckets by some bits of the order; then each
 *   level 1          │ 10… │ 11… │ … │    bucket is a level of its own, with the bits behind. One is open at a time.
 *
 * Happy path: hashes are spread evenly, so two levels of 8 bits and one of a few cut a million entries into buckets of
 * a handful, which an insertion sort finishes. A level takes as many bits as leave buckets of about 8 entries, 8 at
 * most: what it writes to stays in the cache. Bits that all entries share, those of the shard above all, are skipped.
 *
 * Worst case: many entries of one order, a key that is written over and over. No bits are left to part them; heapsort
 * takes them, whatever their order.
 */
#include "engine/run_sort.h"

#include "base/assert.h"

enum { DIGIT_BITS_MAX = 8, BUCKETS_MAX = 1 << DIGIT_BITS_MAX, INSERTION_MAX = 24, LEVELS_MAX = 32 };

enum { PREFETCH_ENTRIES = 3 }; /* 256 buckets at once are more streams than the processor follows by itself */

struct level {
    uint32_t next;  /* bucket to be sorted */
    uint32_t count; /* buckets */
    unsigned shift; /* bits of the order below this level's */
    uint32_t bounds[BUCKETS_MAX + 1];
};

static bool below(const struct run_entry *a, const struct run_entry *b)
{
    const unsigned __int128 a_key = run_entry_key(a), b_key = run_entry_key(b);
    if (a_key != b_key)
        return a_key < b_key;
    return a->lsn != b->lsn ? a->lsn < b->lsn : a->place < b->place;
}

static void insertion_sort(struct run_entry *entries, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if (!below(&entries[i], &entries[i - 1]))
            continue;
        const struct run_entry entry = entries[i];
        uint32_t at = i;
        for (; at > 0 && below(&entry, &entries[at - 1]); at--)
            entries[at] = entries[at - 1];
        entries[at] = entry;
    }
}

static void heap_sift(struct run_entry *entries, uint32_t at, uint32_t count)
{
    const struct run_entry entry = entries[at];
    for (uint64_t child; (child = 2 * (uint64_t)at + 1) < count; at = (uint32_t)child) {
        if (child + 1 < count && below(&entries[child], &entries[child + 1]))
            child++;
        if (!below(&entry, &entries[child]))
            break;
        entries[at] = entries[child];
    }
    entries[at] = entry;
}

static void heap_sort(struct run_entry *entries, uint32_t count)
{
    for (uint32_t i = count / 2; i-- > 0;)
        heap_sift(entries, i, count);
    for (uint32_t left = count; left-- > 1;) {
        const struct run_entry largest = entries[0];
        entries[0] = entries[left];
        entries[left] = largest;
        heap_sift(entries, 0, left);
    }
}

/* The bits in which the orders differ. */
static uint64_t differing_bits(const struct run_entry *entries, uint32_t count)
{
    uint64_t bits = 0;
    for (uint32_t i = 1; i < count; i++)
        bits |= entries[i].order ^ entries[0].order;
    return bits;
}

/* Moves every entry into its bucket, along the circles that wrong places form. */
static void scatter(struct run_entry *entries, uint32_t count, struct level *level)
{
    const uint32_t mask = level->count - 1;
    uint32_t heads[BUCKETS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++)
        heads[entries[i].order >> level->shift & mask]++;
    uint32_t at = 0;
    for (uint32_t i = 0; i < level->count; i++) {
        level->bounds[i] = at;
        at += heads[i];
        heads[i] = level->bounds[i];
    }
    level->bounds[level->count] = at;
    KVS_ASSERT(at == count);
    for (uint32_t bucket = 0; bucket < level->count; bucket++) {
        while (heads[bucket] < level->bounds[bucket + 1]) {
            struct run_entry entry = entries[heads[bucket]];
            uint32_t home;
            while ((home = (uint32_t)(entry.order >> level->shift) & mask) != bucket) {
                struct run_entry *place = &entries[heads[home]++];
                __builtin_prefetch(place + PREFETCH_ENTRIES, 1);
                const struct run_entry displaced = *place;
                *place = entry;
                entry = displaced;
            }
            entries[heads[bucket]++] = entry;
        }
    }
}

/* Sorts what is small or all alike; else opens a level for it. */
static bool level_open(struct run_entry *entries, uint32_t count, struct level *level)
{
    if (count <= INSERTION_MAX) {
        insertion_sort(entries, count);
        return false;
    }
    const uint64_t differing = differing_bits(entries, count);
    if (differing == 0) {
        heap_sort(entries, count);
        return false;
    }
    const unsigned top = 64u - (unsigned)__builtin_clzll(differing);
    unsigned digit_bits = 29u - (unsigned)__builtin_clz(count); /* log2(count) - 2 */
    digit_bits = digit_bits < DIGIT_BITS_MAX ? digit_bits : DIGIT_BITS_MAX;
    digit_bits = digit_bits < top ? digit_bits : top;
    level->shift = top - digit_bits;
    level->count = 1u << digit_bits;
    level->next = 0;
    scatter(entries, count, level);
    return true;
}

void run_sort(struct run_entry *entries, size_t count)
{
    KVS_ASSERT(count <= UINT32_MAX);
    struct level levels[LEVELS_MAX];
    struct run_entry *bases[LEVELS_MAX + 1] = {entries};
    unsigned depth = level_open(entries, (uint32_t)count, &levels[0]) ? 1 : 0;
    while (depth > 0) {
        struct level *level = &levels[depth - 1];
        if (level->next == level->count) {
            depth--;
            continue;
        }
        const uint32_t begin = level->bounds[level->next];
        const uint32_t end = level->bounds[++level->next];
        KVS_ASSERT(depth < LEVELS_MAX);
        bases[depth] = bases[depth - 1] + begin;
        if (end - begin > 1 && level_open(bases[depth], end - begin, &levels[depth]))
            depth++;
    }
}
