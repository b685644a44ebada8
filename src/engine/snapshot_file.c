/*
 * snapshot_file.c - encoding and checking of snapshots.
 *
 * Nothing read from a disk is believed before its checksum; then every number is held against the bounds that it has,
 * so that nobody reads beyond a table or takes memory for what cannot be. Failure mode: a text that says what is wrong.
 */
#include "engine/snapshot_file.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/limits.h"
#include "engine/file_header.h"

void snapshot_layout(struct snapshot_layout *layout, const struct snapshot_header *header)
{
    layout->tables = SNAPSHOT_HEADER_BYTES + header->page_count * INDEX_PAGE_BYTES;
    layout->segments = header->shard_count * sizeof(struct snapshot_shard);
    layout->checks = layout->segments + header->segment_count * sizeof(struct snapshot_segment);
    layout->places = layout->checks + header->chunk_count * sizeof(uint64_t);
    layout->items = layout->places + header->page_count * sizeof(struct index_place);
    layout->tables_bytes = layout->items + header->item_count * sizeof(struct snapshot_item);
    layout->file_bytes = layout->tables + layout->tables_bytes;
}

uint64_t snapshot_check(const void *bytes, size_t size, const uint8_t store_uuid[16])
{
    uint64_t seed;
    memcpy(&seed, store_uuid, sizeof seed);
    return hash_key(slice_make(bytes, size), seed);
}

/* ---- header ---------------------------------------------------------------------------------------------------- */

void snapshot_header_encode(uint8_t out[SNAPSHOT_HEADER_BYTES], const struct snapshot_header *fields)
{
    struct snapshot_header header = *fields;
    header.magic = SNAPSHOT_MAGIC;
    header.version = SNAPSHOT_VERSION;
    file_header_seal(out, &header, sizeof header);
}

static const char *header_check(const uint8_t bytes[SNAPSHOT_HEADER_BYTES], const uint8_t store_uuid[16])
{
    struct snapshot_header header;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != SNAPSHOT_MAGIC)
        return "it does not begin with the header of a snapshot";
    if (header.crc != file_header_crc(bytes, SNAPSHOT_HEADER_BYTES, 0))
        return "the checksum of its header is wrong";
    if (header.version != SNAPSHOT_VERSION)
        return "it has an unknown format version";
    if (memcmp(header.store_uuid, store_uuid, sizeof header.store_uuid) != 0)
        return "it belongs to another store";
    if (header.shard_count == 0 || header.shard_count > KVS_SHARDS_MAX ||
        header.segment_count > SNAPSHOT_SEGMENTS_MAX || header.page_count > SNAPSHOT_PAGES_MAX ||
        header.chunk_count > header.page_count || header.item_count > SNAPSHOT_ITEMS_MAX)
        return "a number in its header is out of bounds";
    return NULL;
}

const char *snapshot_header_take(struct snapshot_header *header, struct snapshot_layout *layout,
                                 const uint8_t bytes[SNAPSHOT_HEADER_BYTES], const uint8_t store_uuid[16],
                                 uint64_t file_bytes)
{
    const char *wrong = header_check(bytes, store_uuid);
    if (wrong != NULL)
        return wrong;
    memcpy(header, bytes, sizeof *header);
    snapshot_layout(layout, header);
    return layout->file_bytes == file_bytes ? NULL : "its size does not agree with its header";
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static const char *shards_check(const struct snapshot_header *header, const struct snapshot_shard *shards)
{
    uint64_t pages = 0, chunks = 0, items = 0;
    for (uint32_t i = 0; i < header->shard_count; i++) {
        if (shards[i].page_count == 0 || shards[i].page_count > header->page_count - pages ||
            shards[i].item_count > header->item_count - items)
            return "its shards do not agree with its header";
        pages += shards[i].page_count;
        chunks += snapshot_chunks(shards[i].page_count);
        items += shards[i].item_count;
    }
    if (pages != header->page_count || chunks != header->chunk_count || items != header->item_count)
        return "its shards do not agree with its header";
    return NULL;
}

const char *snapshot_tables_check(const struct snapshot_header *header, const uint8_t *tables)
{
    struct snapshot_layout layout;
    snapshot_layout(&layout, header);
    if (snapshot_check(tables, layout.tables_bytes, header->store_uuid) != header->tables_check)
        return "the checksum of its tables is wrong";
    const struct snapshot_segment *segments = (const void *)(tables + layout.segments);
    for (uint32_t i = 1; i < header->segment_count; i++) {
        if (segments[i].number <= segments[i - 1].number)
            return "its segments are not in order";
    }
    const struct index_place *places = (const void *)(tables + layout.places);
    for (uint64_t i = 0; i < header->page_count; i++) {
        if (places[i].depth > 32)
            return "the place of a page is out of bounds";
    }
    const struct snapshot_item *items = (const void *)(tables + layout.items);
    for (uint64_t i = 0; i < header->item_count; i++) {
        if (items[i].address > INDEX_ADDRESS_MASK || items[i].expires_ms == 0)
            return "what is to expire is out of bounds";
    }
    return shards_check(header, (const void *)tables);
}
