/*
 * index_scan.c - the entries of an index in the order of their hashes.
 *
 * Hashes of one shard, times the number of shards, differ in their lower 64 bits alone: call these a hash's place. A
 * page is for a range of places that its depth and part tell, and a fingerprint goes on where these end, its lowest bit
 * first. What an old fingerprint has lost makes the range of places that an entry may have wider, so that more portions
 * than one may have to give it. Nothing here can fail.
 */
#include "engine/index_internal.h"

#include "base/assert.h"
#include "base/canary.h"

static_assert((int)INDEX_SCAN_ENTRIES_MAX == (int)PAGE_SLOTS, "a scan gives a page at most");

/* The bits that a fingerprint adds to the place that its page begins at. */
static uint64_t print_place(unsigned print, unsigned depth)
{
    uint64_t place = 0;
    for (unsigned bit = 0; bit < print_bits(print); bit++)
        place |= (uint64_t)(print >> bit & 1) << (63 - depth - bit);
    return place;
}

/* The last place of a portion that begins at `place`: the page is cut into equal parts, which hold `wanted` entries or
 * not many more, for hashes are spread evenly. */
static uint64_t portion_end(uint64_t place, uint64_t width, unsigned used, unsigned wanted)
{
    const uint64_t first = place & ~width;
    const uint64_t parts = (used + wanted - 1) / wanted;
    if (parts <= 1)
        return first | width;
    const uint64_t part = width / parts + 1;
    const uint64_t begin = (place - first) / part * part;
    return width - begin < part ? first | width : first + begin + part - 1;
}

unsigned index_scan(const struct index *index, uint64_t from, unsigned wanted,
                    struct index_scan_entry out[INDEX_SCAN_ENTRIES_MAX], uint64_t *last)
{
    const unsigned __int128 product = (unsigned __int128)from * index->shard_count;
    const uint64_t place = (uint64_t)product;
    const struct directory *directory = atomic_load_explicit(&index->directory, memory_order_relaxed);
    const uint64_t found = atomic_load_explicit(&directory->entries[directory_slot(directory, bits_of(index, from))],
                                                memory_order_relaxed);
    const unsigned depth = depth_of(found);
    slot_t *page = page_of(found);
    unsigned used = 0;
    KVS_ASSERT(wanted > 0 && depth <= DEPTH_MAX);
    for (unsigned i = 0; i < PAGE_SLOTS; i++)
        used += slot_print(atomic_load_explicit(&page[i], memory_order_relaxed)) != 0;
    const uint64_t width = UINT64_MAX >> depth;
    const uint64_t end = portion_end(place, width, used, wanted);
    *last = (uint64_t)(((product >> 64 << 64) | end) / index->shard_count);

    unsigned count = 0;
    for (unsigned i = 0; used > 0 && i < PAGE_SLOTS; i++) {
        const uint64_t slot = atomic_load_explicit(&page[i], memory_order_relaxed);
        const unsigned print = slot_print(slot);
        if (print == 0)
            continue;
        const uint64_t low = (place & ~width) | print_place(print, depth);
        const uint64_t high = canary_on(CANARY_SCAN_LEAVES_OLD_PRINTS) ? low : low | width >> print_bits(print);
        if (high < place || low > end)
            continue;
        out[count++] = (struct index_scan_entry){.entry = slot_entry(slot),
                                                 .order = (uint16_t)(slot_distance(slot) * SLOTS + i % SLOTS)};
    }
    return count;
}
