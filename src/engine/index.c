/*
 * index.c - extendible hashing over pages of buckets, one cache line each.
 *
 *   directory                page: 64 buckets            bucket: 8 slots of 8 bytes, one cache line
 *   ┌───────────────┐        ┌────┐                      ┌──────┬──────┬─ … ─┬──────┐
 *   │ page | depth  │───────►│ 0  │                      │ slot │ slot │     │ slot │
 *   │ page | depth  │──┐     │ …  │                      └──────┴──────┴─ … ─┴──────┘
 *   │      …        │  └───► │ 63 │
 *   └───────────────┘        └────┘
 *
 *   slot, bit  63       48   47        46      44   43   40   39      0
 *              fingerprint   unsettled distance     class     address        0 = empty, fingerprint 0 = removed
 *
 * Inside, hashes are turned round (bits_of): bits 0..5 stay, the highest that tell keys of one shard apart come next.
 *
 * Look-up: the bucket is bits 0..5 of the hash, the page stands in the directory at the next `depth` bits. An entry
 * lies in its home bucket or, when that was full, in one of the seven behind it (its distance). A walk ends at the
 * first bucket with an empty slot; 85 of 100 end in the first. No bucket before an entry's place has one, and the
 * places of an entry only rise, so a walk that finds an empty slot still empty after it has read the whole bucket has
 * missed nothing.
 *
 * Fingerprint: a 1 bit, then up to 15 bits of the hash from the page's depth upwards. Keys are not in RAM, so a split
 * must find the next bit of the hash in the slot: it takes it from the low end of the fingerprint, which becomes one
 * bit shorter. An entry that is written again gets its 15 bits back. After s splits an entry has 15 - s bits left, but
 * only 2^-s of all entries are that old, so every generation adds the same small share (bucket entries × 2^-15) to
 * false matches.
 *
 * Growth: an insert that finds its eight buckets full splits the page: both halves are built aside, published in the
 * directory, and the old page is retired by epoch. A page full of removed slots is rebuilt in the same way. A split of
 * a page as deep as the directory needs a directory of twice the size. That one, the successor, is filled a few entries
 * with each split long before; what splits change meanwhile is changed in both.
 *
 * Failure: out of pages (NO_MEMORY) or a split that separates nothing (NO_SPACE, equal hashes) leaves all as it was.
 */
#include "engine/index_internal.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/canary.h"
#include "engine/big_memory.h"

#include <stdatomic.h>
#include <stdlib.h>

/* A page, or what became of it, that waits for its last reader. */
struct retired_page {
    struct epoch_entry entry;
    struct index *index;
    void *page;
};

static inline bool print_matches(unsigned print, unsigned window)
{
    return print != 0 && ((print ^ window) & ((1u << print_bits(print)) - 1)) == 0;
}

/* True when two fingerprints may be of one key: they agree in the bits that both still hold. */
static inline bool prints_agree(unsigned a, unsigned b)
{
    if ((a & b) >> FINGERPRINT_BITS != 0) /* all of them, as most do */
        return a == b;
    unsigned a_bits = print_bits(a);
    unsigned b_bits = print_bits(b);
    return ((a ^ b) & ((1u << (a_bits < b_bits ? a_bits : b_bits)) - 1)) == 0;
}

static uint64_t slot_make(const struct index_entry *entry, unsigned print, unsigned distance)
{
    KVS_ASSERT(entry->address <= INDEX_ADDRESS_MASK && entry->class <= INDEX_CLASS_MAX);
    return (uint64_t)print << PRINT_SHIFT | (uint64_t)entry->unsettled << UNSETTLED_SHIFT |
           (uint64_t)distance << DISTANCE_SHIFT | (uint64_t)entry->class << CLASS_SHIFT | entry->address;
}

static inline unsigned window_at(uint64_t bits, unsigned depth)
{
    return (unsigned)(bits >> (BUCKET_BITS + depth)) & WINDOW_MASK;
}

static size_t directory_size(unsigned depth)
{
    return sizeof(struct directory) + (sizeof(uint64_t) << depth);
}

/* ---- look-up --------------------------------------------------------------------------------------------------- */

/* `bits`: what bits_of makes of a hash, here as in all that follows. */
static inline void find(const struct index *index, uint64_t bits, struct index_cursor *cursor)
{
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_acquire);
    uint64_t entry = atomic_load_explicit(&directory->entries[directory_slot(directory, bits)], memory_order_acquire);
    cursor->page = page_of(entry);
    cursor->window = window_at(bits, depth_of(entry));
    cursor->home = (uint8_t)(bits & (BUCKETS - 1));
    cursor->distance = 0;
    cursor->slot = 0;
    cursor->empty = NULL;
    cursor->current = NULL;
}

void index_find(const struct index *index, uint64_t hash, struct index_cursor *cursor)
{
    find(index, bits_of(index, hash), cursor);
}

bool index_next(struct index_cursor *cursor, struct index_entry *entry)
{
    for (; cursor->distance <= DISTANCE_MAX; cursor->distance++, cursor->slot = 0) {
        slot_t *bucket = &cursor->page[(size_t)((cursor->home + cursor->distance) & (BUCKETS - 1)) * SLOTS];
        while (cursor->slot < SLOTS) {
            slot_t *at = &bucket[cursor->slot++];
            uint64_t slot = atomic_load_explicit(at, memory_order_acquire);
            if (slot == 0) {
                cursor->empty = at;
                continue;
            }
            if (!print_matches(slot_print(slot), cursor->window) || slot_distance(slot) != cursor->distance)
                continue;
            cursor->current = at;
            *entry = slot_entry(slot);
            return true;
        }
        /* Looked at again: were it filled meanwhile, an entry that this walk has not met could have moved on. */
        if (cursor->empty != NULL && atomic_load_explicit(cursor->empty, memory_order_acquire) == 0)
            break;
        cursor->empty = NULL;
    }
    cursor->distance = DISTANCE_MAX + 1;
    cursor->current = NULL;
    return false;
}

void index_prefetch(const struct index *index, uint64_t hash)
{
    const uint64_t bits = bits_of(index, hash);
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_acquire);
    uint64_t entry = atomic_load_explicit(&directory->entries[directory_slot(directory, bits)], memory_order_relaxed);
    __builtin_prefetch((char *)page_of(entry) + (bits & (BUCKETS - 1)) * SLOTS * sizeof(uint64_t));
}

/* ---- change in place ------------------------------------------------------------------------------------------- */

static void count_entries(struct index *index, int64_t by)
{
    uint64_t now = atomic_load_explicit(&index->entries, memory_order_relaxed);
    atomic_store_explicit(&index->entries, now + (uint64_t)by, memory_order_relaxed);
}

void index_replace(struct index *index, struct index_cursor *cursor, const struct index_entry *entry)
{
    (void)index;
    KVS_ASSERT(cursor->current != NULL);
    uint64_t old = atomic_load_explicit(cursor->current, memory_order_relaxed);
    KVS_ASSERT(print_matches(slot_print(old), cursor->window));
    /* The key was just hashed, so the fingerprint can have all its bits again. */
    unsigned print = cursor->window | 1u << FINGERPRINT_BITS;
    atomic_store_explicit(cursor->current, slot_make(entry, print, slot_distance(old)), memory_order_release);
}

void index_remove(struct index *index, struct index_cursor *cursor)
{
    KVS_ASSERT(cursor->current != NULL);
    KVS_ASSERT(slot_print(atomic_load_explicit(cursor->current, memory_order_relaxed)) != 0);
    /* A walk may end here already if the bucket has an empty slot; else the slot must go on saying "walk further". */
    slot_t *bucket = (slot_t *)(void *)align_down((uintptr_t)cursor->current, SLOTS * sizeof(uint64_t));
    uint64_t left = SLOT_REMOVED;
    if (canary_on(CANARY_INDEX_HOLE))
        left = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (atomic_load_explicit(&bucket[i], memory_order_relaxed) == 0)
            left = 0;
    }
    atomic_store_explicit(cursor->current, left, memory_order_release);
    count_entries(index, -1);
}

/* The slot `ordinal` steps along the walk that begins in bucket `home`. */
static slot_t *walk_slot(slot_t *page, unsigned home, unsigned ordinal)
{
    return &page[((home + ordinal / SLOTS) & (BUCKETS - 1)) * SLOTS + ordinal % SLOTS];
}

/*
 * Puts a slot in front of all candidates with its fingerprint, in the first free place of the walk; the candidates
 * before that place each move to the place of the next. The last moves first, so that a reader, who walks the same way,
 * meets every one of them at its old place or at its new one. False when the walk has no free place.
 */
static bool page_insert(slot_t *page, unsigned home, unsigned print, const struct index_entry *entry)
{
    unsigned matches[(DISTANCE_MAX + 1) * SLOTS];
    unsigned match_count = 0;
    unsigned place = 0;
    for (; place < (DISTANCE_MAX + 1) * SLOTS; place++) {
        uint64_t slot = atomic_load_explicit(walk_slot(page, home, place), memory_order_relaxed);
        if (slot_print(slot) == 0)
            break;
        if (prints_agree(slot_print(slot), print) && slot_distance(slot) == place / SLOTS)
            matches[match_count++] = place;
    }
    if (place == (DISTANCE_MAX + 1) * SLOTS)
        return false;

    while (match_count > 0 && !canary_on(CANARY_INDEX_NEWEST_LAST)) {
        unsigned from = matches[--match_count];
        uint64_t moved = atomic_load_explicit(walk_slot(page, home, from), memory_order_relaxed);
        moved = (moved & ~DISTANCE_MASK) | (uint64_t)(place / SLOTS) << DISTANCE_SHIFT;
        atomic_store_explicit(walk_slot(page, home, place), moved, memory_order_release);
        place = from;
    }
    atomic_store_explicit(walk_slot(page, home, place), slot_make(entry, print, place / SLOTS), memory_order_release);
    return true;
}

/* ---- growth ---------------------------------------------------------------------------------------------------- */

static void free_retired_page(struct epoch_entry *entry)
{
    struct retired_page *retired = container_of(entry, struct retired_page, entry);
    page_pool_put(&retired->index->pool, retired->page);
    free(retired);
}

static void free_retired_directory(struct epoch_entry *entry)
{
    free(container_of(entry, struct directory, retired));
}

static void count_directories(struct index *index)
{
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    size_t bytes = directory_size(directory->depth);
    if (index->successor != NULL)
        bytes += directory_size(index->successor->depth);
    atomic_store_explicit(&index->directory_bytes, bytes, memory_order_relaxed);
}

/* Begins the directory of twice the size, of which a part is filled with each split from now on. */
static enum kvs_err successor_begin(struct index *index, const struct directory *directory)
{
    KVS_ASSERT(index->successor == NULL && directory->depth < DEPTH_MAX);
    struct directory *successor = malloc(directory_size(directory->depth + 1));
    if (successor == NULL)
        return KVS_ERR_NO_MEMORY;
    successor->depth = directory->depth + 1;
    index->successor = successor;
    index->successor_filled = 0;
    count_directories(index);
    return KVS_ERR_OK;
}

/* Copies up to `count` more entries into both halves of the successor. */
static void successor_fill(struct index *index, const struct directory *directory, uint64_t count)
{
    const uint64_t half = 1ull << directory->depth;
    const uint64_t from = index->successor_filled;
    KVS_ASSERT(from <= half && index->successor->depth == directory->depth + 1);
    const uint64_t size = count < half - from ? count : half - from;
    const void *entries = (const void *)&directory->entries[from];
    memcpy((void *)&index->successor->entries[from], entries, size * sizeof(uint64_t));
    memcpy((void *)&index->successor->entries[half + from], entries, size * sizeof(uint64_t));
    index->successor_filled = from + size;
    if (size > atomic_load_explicit(&index->directory_step_max, memory_order_relaxed))
        atomic_store_explicit(&index->directory_step_max, size, memory_order_relaxed);
}

/* The directory of twice the size takes the place of this one. Most of it, or all, is filled already. */
static enum kvs_err directory_double(struct index *index, struct directory *old)
{
    if (index->successor == NULL) {
        enum kvs_err err = successor_begin(index, old);
        if (err != KVS_ERR_OK)
            return err;
    }
    successor_fill(index, old, UINT64_MAX);
    atomic_store_explicit(&index->directory, index->successor, memory_order_release);
    index->successor = NULL;
    count_directories(index);
    epoch_defer(index->thread, &old->retired, free_retired_directory);
    return KVS_ERR_OK;
}

/*
 * A step towards the next doubling, with each split that has made pages of `depth`. The first page as deep as the
 * directory will not split before it is full, and by then most other pages have split: that makes enough steps.
 */
static void directory_prepare(struct index *index, unsigned depth)
{
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    if (index->successor == NULL && (depth < directory->depth || depth == DEPTH_MAX))
        return;
    /* Without memory now: once more with the next split that is as deep, at last when there is need for it. */
    if (index->successor == NULL && successor_begin(index, directory) != KVS_ERR_OK)
        return;
    successor_fill(index, directory, SUCCESSOR_STEP);
}

/*
 * Copies the entries of `from`, in the order of their walks, so that equal fingerprints keep their order, into to[0],
 * or into to[0] and to[1] by the lowest bit of the fingerprint, which is thereby used up. False when an entry finds no
 * place.
 */
static bool page_copy(slot_t *from, slot_t *to[2], bool split, unsigned count[2])
{
    for (unsigned home = 0; home < BUCKETS; home++) {
        for (unsigned place = (DISTANCE_MAX + 1) * SLOTS; place-- > 0;) {
            uint64_t slot = atomic_load_explicit(walk_slot(from, home, place), memory_order_relaxed);
            unsigned print = slot_print(slot);
            if (print == 0 || slot_distance(slot) != place / SLOTS)
                continue;
            if (canary_on(CANARY_INDEX_SPLIT_LOSES) && split && slot_distance(slot) == DISTANCE_MAX)
                continue;
            unsigned side = 0;
            if (split) {
                KVS_ASSERT(print_bits(print) > 0);
                side = print & 1;
                print >>= 1;
            }
            const struct index_entry entry = slot_entry(slot);
            /* From the last of the walk to the first, each in front of those like it: the order stays. */
            if (!page_insert(to[side], home, print, &entry))
                return false;
            count[side]++;
        }
    }
    return true;
}

/* Whether a rebuild of the page would make room: many of its slots hold removed entries, few live ones. */
static bool page_worn(slot_t *page)
{
    unsigned live = 0;
    unsigned removed = 0;
    for (unsigned i = 0; i < PAGE_SLOTS; i++) {
        uint64_t slot = atomic_load_explicit(&page[i], memory_order_relaxed);
        live += slot_print(slot) != 0;
        removed += slot == SLOT_REMOVED;
    }
    return live <= PAGE_SLOTS / 2 && removed >= PAGE_SLOTS / 8;
}

/* Points every directory entry of a page at `pages` instead: one page of the same depth, or two one deeper. Those that
 * the successor has already are changed there, too, in both halves. */
static void directory_publish(struct index *index, uint64_t bits, unsigned depth, slot_t *pages[2], bool split)
{
    struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    KVS_ASSERT(directory->depth >= depth + (split ? 1 : 0));
    uint64_t first = (bits >> BUCKET_BITS) & ((1ull << depth) - 1);
    for (uint64_t i = first; i < 1ull << directory->depth; i += 1ull << depth) {
        unsigned side = split ? (unsigned)(i >> depth) & 1 : 0;
        uint64_t entry = (uint64_t)(uintptr_t)pages[side] | (depth + (split ? 1 : 0));
        atomic_store_explicit(&directory->entries[i], entry, memory_order_release);
        if (index->successor == NULL || i >= index->successor_filled || canary_on(CANARY_INDEX_SUCCESSOR_STALE))
            continue;
        _Atomic uint64_t *copies = index->successor->entries;
        atomic_store_explicit(&copies[i], entry, memory_order_relaxed);
        atomic_store_explicit(&copies[i + (1ull << directory->depth)], entry, memory_order_relaxed);
    }
}

/* Makes room on the page of `bits`: by dropping removed slots if that frees enough, else by a split. */
static enum kvs_err page_grow(struct index *index, uint64_t bits)
{
    struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    uint64_t entry = atomic_load_explicit(&directory->entries[directory_slot(directory, bits)], memory_order_relaxed);
    slot_t *old = page_of(entry);
    unsigned depth = depth_of(entry);
    bool split = !page_worn(old);
    if (split && (depth == DEPTH_MAX || depth >= index->depth_min + FINGERPRINT_BITS))
        return KVS_ERR_NO_SPACE;
    if (split && depth == directory->depth) {
        enum kvs_err err = directory_double(index, directory);
        if (err != KVS_ERR_OK)
            return err;
    }

    enum kvs_err err = KVS_ERR_NO_MEMORY;
    slot_t *pages[2] = {page_pool_get(&index->pool), NULL};
    unsigned count[2] = {0, 0};
    struct retired_page *retired = malloc(sizeof *retired);
    if (split)
        pages[1] = page_pool_get(&index->pool);
    if (pages[0] == NULL || retired == NULL || (split && pages[1] == NULL))
        goto fail;
    err = KVS_ERR_NO_SPACE;
    if (!page_copy(old, pages, split, count) || (split && (count[0] == 0 || count[1] == 0)))
        goto fail;

    directory_publish(index, bits, depth, pages, split);
    *retired = (struct retired_page){.index = index, .page = old};
    epoch_defer(index->thread, &retired->entry, free_retired_page);
    atomic_store_explicit(&index->splits, atomic_load_explicit(&index->splits, memory_order_relaxed) + split,
                          memory_order_relaxed);
    if (split)
        directory_prepare(index, depth + 1);
    return KVS_ERR_OK;

fail:
    free(retired);
    for (unsigned i = 0; i < 2; i++) {
        if (pages[i] != NULL)
            page_pool_put(&index->pool, pages[i]);
    }
    return err;
}

enum kvs_err index_insert(struct index *index, uint64_t hash, const struct index_entry *entry)
{
    const uint64_t bits = bits_of(index, hash);
    /* A rebuilt page may still lack room just here and then has to split: hence more than one attempt. */
    for (unsigned attempt = 0; attempt < 4; attempt++) {
        struct index_cursor cursor;
        find(index, bits, &cursor);
        if (page_insert(cursor.page, cursor.home, cursor.window | 1u << FINGERPRINT_BITS, entry)) {
            count_entries(index, 1);
            return KVS_ERR_OK;
        }
        enum kvs_err err = page_grow(index, bits);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_NO_SPACE;
}

/* ---- filling --------------------------------------------------------------------------------------------------- */

void index_filler_init(struct index_filler *filler, struct index *index)
{
    static_assert(BUCKETS == sizeof filler->used, "one count for each bucket");
    *filler = (struct index_filler){.index = index};
}

/* Goes over to the page of `bits`. */
static void filler_turn(struct index_filler *filler, uint64_t bits)
{
    const struct directory *directory = atomic_load_explicit(&filler->index->directory, memory_order_relaxed);
    const uint64_t entry =
        atomic_load_explicit(&directory->entries[directory_slot(directory, bits)], memory_order_relaxed);
    filler->page = page_of(entry);
    filler->depth = depth_of(entry);
    filler->part = bits >> BUCKET_BITS & ((1ull << filler->depth) - 1);
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        uint8_t used = 0;
        while (used < SLOTS && atomic_load_explicit(&filler->page[bucket * SLOTS + used], memory_order_relaxed) != 0)
            used++;
        filler->used[bucket] = used;
    }
}

enum kvs_err index_fill(struct index_filler *filler, uint64_t hash, const struct index_entry *entry)
{
    const uint64_t bits = bits_of(filler->index, hash);
    if (filler->page == NULL || (bits >> BUCKET_BITS & ((1ull << filler->depth) - 1)) != filler->part)
        filler_turn(filler, bits);
    const unsigned print = window_at(bits, filler->depth) | 1u << FINGERPRINT_BITS;
    for (unsigned distance = 0; distance <= DISTANCE_MAX; distance++) {
        const unsigned bucket = (unsigned)(bits + distance) & (BUCKETS - 1);
        if (filler->used[bucket] == SLOTS)
            continue;
        slot_t *slot = &filler->page[bucket * SLOTS + filler->used[bucket]++];
        atomic_store_explicit(slot, slot_make(entry, print, distance), memory_order_release);
        count_entries(filler->index, 1);
        return KVS_ERR_OK;
    }
    filler->page = NULL; /* it will be another one */
    return index_insert(filler->index, hash, entry);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static unsigned initial_depth(const struct index_options *options)
{
    unsigned depth = 0;
    while (depth < 20 && ((uint64_t)PAGE_BYTES << (depth + 1)) <= options->bytes_initial)
        depth++;
    return depth;
}

uint64_t index_bytes_for(uint64_t keys)
{
    const uint64_t full = PAGE_SLOTS * 5 / 6; /* of keys a page holds before it splits, or nearly so */
    uint64_t bytes = PAGE_BYTES;
    while (bytes / PAGE_BYTES * full < keys)
        bytes *= 2;
    return bytes;
}

enum kvs_err index_open(struct index **out, const struct index_options *options, struct epoch_thread *thread)
{
    unsigned depth = initial_depth(options);
    struct index *index = calloc(1, sizeof *index);
    /* Twice as many entries as pages: the first split of all needs no doubling, and there was no step towards one. */
    struct directory *directory = malloc(directory_size(depth + 1));
    if (index == NULL || directory == NULL) {
        free(index);
        free(directory);
        return KVS_ERR_NO_MEMORY;
    }
    KVS_ASSERT(options->shard_count > 0);
    index->thread = thread;
    index->shard_count = options->shard_count;
    index->depth_min = depth;
    page_pool_init(&index->pool, options->bytes_max);
    directory->depth = depth + 1;
    atomic_store_explicit(&index->directory, directory, memory_order_release);
    count_directories(index);
    for (uint64_t i = 0; i < 1ull << depth; i++) {
        void *page = page_pool_get(&index->pool);
        if (page == NULL) {
            index_close(index);
            return KVS_ERR_NO_MEMORY;
        }
        uint64_t entry = (uint64_t)(uintptr_t)page | depth;
        atomic_store_explicit(&directory->entries[i], entry, memory_order_relaxed);
        atomic_store_explicit(&directory->entries[i + (1ull << depth)], entry, memory_order_relaxed);
    }
    *out = index;
    return KVS_ERR_OK;
}

void index_close(struct index *index)
{
    if (index == NULL)
        return;
    free(atomic_load_explicit(&index->directory, memory_order_relaxed));
    free(index->successor);
    page_pool_deinit(&index->pool);
    free(index);
}

/* ---- pages, for a snapshot ------------------------------------------------------------------------------------- */

static_assert((int)INDEX_PAGE_BYTES == (int)PAGE_BYTES && (int)INDEX_PAGE_ENTRIES == (int)PAGE_SLOTS, "index.h");

const void *index_page_next(const struct index *index, uint64_t *at, struct index_place *place)
{
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    while (*at < 1ull << directory->depth) {
        const uint64_t slot = (*at)++;
        const uint64_t entry = atomic_load_explicit(&directory->entries[slot], memory_order_relaxed);
        if (slot >> depth_of(entry) != 0)
            continue; /* met before */
        *place = (struct index_place){.part = (uint32_t)slot, .depth = depth_of(entry)};
        return page_of(entry);
    }
    return NULL;
}

unsigned index_depth_min(const struct index *index)
{
    return index->depth_min;
}

unsigned index_page_read(const void *page, struct index_entry entries[INDEX_PAGE_ENTRIES])
{
    const uint64_t *slots = page;
    unsigned count = 0;
    for (unsigned i = 0; i < PAGE_SLOTS; i++) {
        if (slot_print(slots[i]) != 0)
            entries[count++] = slot_entry(slots[i]);
    }
    return count;
}

/* Points the directory at the pages. False when they do not fill it, each part once. */
static bool directory_fill(struct directory *directory, const struct index_pages *pages, unsigned depth_min)
{
    uint64_t filled = 0;
    memset((void *)directory->entries, 0, sizeof(uint64_t) << directory->depth);
    for (uint64_t i = 0; i < pages->count; i++) {
        const struct index_place *place = &pages->places[i];
        if (place->depth > depth_min + FINGERPRINT_BITS || place->part >> place->depth != 0)
            return false;
        const uint64_t entry = (uint64_t)((uintptr_t)pages->memory + i * PAGE_BYTES) | place->depth;
        for (uint64_t slot = place->part; slot < 1ull << directory->depth; slot += 1ull << place->depth) {
            filled += atomic_load_explicit(&directory->entries[slot], memory_order_relaxed) == 0;
            atomic_store_explicit(&directory->entries[slot], entry, memory_order_relaxed);
        }
    }
    uint64_t parts = 0;
    for (uint64_t i = 0; i < pages->count; i++)
        parts += 1ull << (directory->depth - pages->places[i].depth);
    return filled == parts && filled == 1ull << directory->depth;
}

enum kvs_err index_open_pages(struct index **out, const struct index_options *options, struct epoch_thread *thread,
                              const struct index_pages *pages)
{
    unsigned depth = 0;
    for (uint64_t i = 0; i < pages->count; i++)
        depth = pages->places[i].depth > depth ? pages->places[i].depth : depth;
    /* No deeper than so many pages could be: a bound for the memory that a directory takes. */
    if (pages->depth_min > DEPTH_MAX || depth > DEPTH_MAX)
        return KVS_ERR_CORRUPT;
    if (pages->count * PAGE_BYTES > options->bytes_max)
        return KVS_ERR_NO_MEMORY;
    struct index *index = calloc(1, sizeof *index);
    struct directory *directory = malloc(directory_size(depth));
    enum kvs_err err = index == NULL || directory == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    if (err == KVS_ERR_OK) {
        directory->depth = depth;
        page_pool_init(&index->pool, options->bytes_max);
        err = directory_fill(directory, pages, pages->depth_min) ? KVS_ERR_OK : KVS_ERR_CORRUPT;
    }
    if (err == KVS_ERR_OK)
        err = page_pool_lend(&index->pool, pages->memory, pages->count);
    if (err != KVS_ERR_OK) {
        free(index);
        free(directory);
        return err;
    }
    index->thread = thread;
    index->shard_count = options->shard_count;
    index->depth_min = pages->depth_min;
    atomic_store_explicit(&index->entries, pages->entries, memory_order_relaxed);
    atomic_store_explicit(&index->directory, directory, memory_order_release);
    count_directories(index);
    *out = index;
    return KVS_ERR_OK;
}

void *index_pages_alloc(uint64_t count)
{
    return big_memory_alloc(align_up(count * PAGE_BYTES, PAGE_CHUNK_BYTES));
}

void index_pages_free(void *memory, uint64_t count)
{
    big_memory_free(memory, align_up(count * PAGE_BYTES, PAGE_CHUNK_BYTES));
}

void index_take_over(struct index *index)
{
    page_pool_take_over(&index->pool);
}

/* ---- stock and figures ----------------------------------------------------------------------------------------- */

bool index_wants_stock(const struct index *index)
{
    return page_pool_wants_stock(&index->pool);
}

bool index_stock(struct index *index)
{
    return page_pool_stock(&index->pool);
}

void index_allow(struct index *index, uint64_t bytes_max)
{
    page_pool_allow(&index->pool, bytes_max);
}

bool index_is_tight(const struct index *index)
{
    return page_pool_is_tight(&index->pool);
}

void index_stats(const struct index *index, struct index_stats *out)
{
    out->entries = atomic_load_explicit(&index->entries, memory_order_relaxed);
    out->splits = atomic_load_explicit(&index->splits, memory_order_relaxed);
    out->directory_step_max = atomic_load_explicit(&index->directory_step_max, memory_order_relaxed);
    out->bytes = page_pool_bytes(&index->pool) + atomic_load_explicit(&index->directory_bytes, memory_order_relaxed);
}
