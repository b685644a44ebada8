/*
 * run_file.c - encoding and checking of runs.
 *
 * Happy path of a check: magic, checksum, then every field against what the header of the run says must stand there.
 * Nothing read from a disk is believed before its checksum, and no length in a block is used at all: the layout tells
 * them. Failure mode: a text that says what is wrong, for the message of whoever throws the run away.
 */
#include "engine/run_file.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "engine/file_header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct run_range run_range_of_shard(unsigned shard, unsigned shard_count)
{
    KVS_ASSERT(shard_count > 0 && shard_count <= UINT16_MAX);
    KVS_ASSERT(shard < shard_count);
    /* The first hash with hash * count >> 64 == shard, and the last. */
    const unsigned __int128 whole = (unsigned __int128)1 << 64;
    const unsigned __int128 first = (whole * shard + shard_count - 1) / shard_count;
    const unsigned __int128 next = (whole * (shard + 1) + shard_count - 1) / shard_count;
    return (struct run_range){.first = (uint64_t)first, .last = (uint64_t)(next - 1)};
}

/* ---- layout ---------------------------------------------------------------------------------------------------- */

uint32_t run_item_bytes(enum run_block_kind kind)
{
    return kind == RUN_ENTRIES    ? (uint32_t)sizeof(struct run_entry)
           : kind == RUN_SEGMENTS ? (uint32_t)sizeof(struct run_segment)
                                  : (uint32_t)sizeof(uint64_t);
}

uint32_t run_items_max(enum run_block_kind kind)
{
    return kind == RUN_ENTRIES ? RUN_BLOCK_ENTRIES : kind == RUN_SEGMENTS ? RUN_BLOCK_SEGMENTS : RUN_BLOCK_ORDERS;
}

uint32_t run_block_bytes(enum run_block_kind kind, uint32_t count)
{
    if (count == run_items_max(kind))
        return RUN_BLOCK_BYTES;
    return (uint32_t)align_up(sizeof(struct run_block) + (uint64_t)count * run_item_bytes(kind), KVS_BLOCK_BYTES);
}

static uint64_t blocks_for(enum run_block_kind kind, uint64_t items)
{
    return (items + run_items_max(kind) - 1) / run_items_max(kind);
}

/* Bytes of all blocks of a kind. */
static uint64_t region_bytes(enum run_block_kind kind, uint64_t items)
{
    const uint32_t rest = (uint32_t)(items % run_items_max(kind));
    return items / run_items_max(kind) * RUN_BLOCK_BYTES + (rest > 0 ? run_block_bytes(kind, rest) : 0);
}

void run_layout(struct run_layout *layout, uint64_t entry_count, uint32_t segment_count)
{
    KVS_ASSERT(entry_count <= RUN_ENTRIES_MAX);
    KVS_ASSERT(segment_count <= RUN_SEGMENTS_MAX);
    layout->entry_count = entry_count;
    layout->segment_count = segment_count;
    layout->entry_blocks = blocks_for(RUN_ENTRIES, entry_count);
    layout->segment_blocks = blocks_for(RUN_SEGMENTS, segment_count);
    layout->index_blocks = blocks_for(RUN_INDEX, layout->entry_blocks);
    layout->blocks = layout->entry_blocks + layout->segment_blocks + layout->index_blocks;
    layout->file_bytes = RUN_HEADER_BYTES + region_bytes(RUN_ENTRIES, entry_count) +
                         region_bytes(RUN_SEGMENTS, segment_count) + region_bytes(RUN_INDEX, layout->entry_blocks);
}

struct run_extent run_block_extent(const struct run_layout *layout, uint64_t number)
{
    KVS_ASSERT(number < layout->blocks);
    enum run_block_kind kind = RUN_ENTRIES;
    uint64_t offset = RUN_HEADER_BYTES;
    uint64_t items = layout->entry_count;
    if (number >= layout->entry_blocks) {
        number -= layout->entry_blocks;
        offset += region_bytes(RUN_ENTRIES, items);
        kind = RUN_SEGMENTS;
        items = layout->segment_count;
        if (number >= layout->segment_blocks) {
            number -= layout->segment_blocks;
            offset += region_bytes(RUN_SEGMENTS, items);
            kind = RUN_INDEX;
            items = layout->entry_blocks;
        }
    }
    const uint64_t left = items - number * run_items_max(kind);
    const uint32_t count = left < run_items_max(kind) ? (uint32_t)left : run_items_max(kind);
    KVS_ASSERT(count > 0);
    return (struct run_extent){.offset = offset + number * RUN_BLOCK_BYTES,
                               .bytes = run_block_bytes(kind, count),
                               .count = count,
                               .kind = kind};
}

/* ---- header ---------------------------------------------------------------------------------------------------- */

void run_header_encode(uint8_t out[RUN_HEADER_BYTES], const struct run_header *fields)
{
    KVS_ASSERT(fields->delete_count <= fields->entry_count);
    KVS_ASSERT(fields->entry_count <= RUN_ENTRIES_MAX && fields->segment_count <= RUN_SEGMENTS_MAX);
    struct run_header header = *fields;
    header.magic = RUN_MAGIC;
    header.version = RUN_VERSION;
    header.block_bytes = RUN_BLOCK_BYTES;
    file_header_seal(out, &header, sizeof header);
}

const char *run_header_check(const uint8_t bytes[RUN_HEADER_BYTES], const uint8_t store_uuid[16], uint64_t sequence)
{
    struct run_header header;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != RUN_MAGIC)
        return "it does not begin with the header of a run";
    if (header.crc != file_header_crc(bytes, RUN_HEADER_BYTES, 0))
        return "the checksum of its header is wrong";
    if (header.version != RUN_VERSION || header.block_bytes != RUN_BLOCK_BYTES)
        return "it has an unknown format version";
    if (memcmp(header.store_uuid, store_uuid, sizeof header.store_uuid) != 0)
        return "it belongs to another store";
    if (header.sequence != sequence)
        return "its name does not agree with the sequence in its header";
    if (header.entry_count > RUN_ENTRIES_MAX || header.segment_count > RUN_SEGMENTS_MAX ||
        header.delete_count > header.entry_count)
        return "the counts in its header cannot be";
    return NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

uint32_t run_seed(const uint8_t store_uuid[16], uint64_t sequence)
{
    return crc32c(crc32c(0, store_uuid, 16), &sequence, sizeof sequence);
}

static uint32_t block_crc(const uint8_t *bytes, uint32_t size, uint32_t seed, uint64_t number)
{
    const size_t skip = offsetof(struct run_block, kind);
    return crc32c(seed ^ (uint32_t)number * 0x9E3779B1u, bytes + skip, size - skip);
}

void run_block_seal(uint8_t *bytes, enum run_block_kind kind, uint32_t count, uint32_t seed, uint64_t sequence,
                    uint64_t number)
{
    KVS_ASSERT(count > 0 && count <= run_items_max(kind));
    const uint32_t size = run_block_bytes(kind, count);
    const uint32_t used = (uint32_t)sizeof(struct run_block) + count * run_item_bytes(kind);
    KVS_ASSERT(used <= size);
    memset(bytes + used, 0, size - used);
    struct run_block block = {.magic = RUN_BLOCK_MAGIC, .kind = kind, .count = count, .sequence = sequence};
    block.number = number;
    if (kind == RUN_ENTRIES)
        memcpy(&block.first_order, bytes + sizeof block, sizeof block.first_order);
    memcpy(bytes, &block, sizeof block);
    block.crc = block_crc(bytes, size, seed, number);
    memcpy(bytes + offsetof(struct run_block, crc), &block.crc, sizeof block.crc);
}

/* Without a branch for each entry: this loop is a good part of what reading costs. */
static const char *entries_check(const struct run_entry *entries, uint32_t count)
{
    uint64_t flags = entries[0].place;
    bool rising = true;
    for (uint32_t i = 1; i < count; i++) {
        rising &= run_entry_key(&entries[i - 1]) < run_entry_key(&entries[i]);
        flags |= entries[i].place;
    }
    if (!rising)
        return "its entries are not in order";
    return (flags >> RUN_FLAGS_SHIFT & ~(uint64_t)RUN_FLAGS_KNOWN) != 0 ? "an entry has unknown flags" : NULL;
}

const char *run_block_check(const uint8_t *bytes, const struct run_extent *extent, uint32_t seed, uint64_t sequence,
                            uint64_t number)
{
    struct run_block block;
    memcpy(&block, bytes, sizeof block);
    if (block.magic != RUN_BLOCK_MAGIC)
        return "it does not begin like a block";
    if (block.crc != block_crc(bytes, extent->bytes, seed, number))
        return "its checksum is wrong";
    if (block.kind != (uint32_t)extent->kind || block.count != extent->count || block.sequence != sequence ||
        block.number != number)
        return "its header does not agree with its place";
    if (extent->kind != RUN_ENTRIES)
        return NULL;
    const struct run_entry *entries = run_block_items(bytes);
    if (entries[0].order != block.first_order)
        return "its header does not agree with its first entry";
    return entries_check(entries, block.count);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

void run_name(char name[RUN_NAME_BYTES], uint64_t sequence, const char *suffix)
{
    snprintf(name, RUN_NAME_BYTES, "%012" PRIu64 ".run%s", sequence, suffix);
}

bool run_name_parse(const char *name, uint64_t *sequence, bool *unfinished)
{
    char *end;
    if (name[0] < '0' || name[0] > '9')
        return false;
    errno = 0;
    const unsigned long long value = strtoull(name, &end, 10);
    if (errno != 0 || (strcmp(end, ".run") != 0 && strcmp(end, ".run.new") != 0))
        return false;
    /* Only the one way of writing a number that run_name has. */
    char canonical[RUN_NAME_BYTES];
    run_name(canonical, value, end + strlen(".run"));
    if (strcmp(canonical, name) != 0)
        return false;
    *sequence = value;
    *unfinished = end[strlen(".run")] != '\0';
    return true;
}
