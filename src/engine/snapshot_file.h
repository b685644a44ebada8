/*
 * snapshot_file.h - the indexes as an orderly stop leaves them, so that the next start need not fill them again.
 *
 * The file `indexes.snapshot` is written when all logs have stopped, used by the start that follows it, and removed by
 * that. The pages of each index lie in it as they lay in memory, so a start maps them instead of reading them.
 *
 *   indexes.snapshot   ┌────────┬──────────────────┬─ … ─┬──────────────────┬────────────────────────────────────┐
 *                      │ header │ pages of shard 0 │     │ pages of shard n │ tables: shards, segments, checks,  │
 *                      │ 4 KiB  │ 4 KiB each       │     │                  │ places of pages, what expires      │
 *                      └────────┴──────────────────┴─ … ─┴──────────────────┴────────────────────────────────────┘
 *
 * What it is worth. The newest record of every key follows from the segments alone: from which they are, in which life,
 * and where each ends. The snapshot lists just that of all segments that hold anything. It counts if a start, having
 * found the end of every segment by itself, finds the same ones, and for as many shards; and if no flush of all keys
 * came behind it, for that leaves no trace in segments. So it needs no word of its own on when it was written, and one
 * that is stale is harmless.
 *
 * Snapshots are derived data: all of it is checksummed (the header by CRC32C; tables, and pages in chunks of 2 MiB, by
 * XXH3-64 with a seed made of the store's UUID), and one that is bad or does not fit is thrown away; the indexes are
 * filled from the runs then.
 *
 * This header is the format: pure, any thread. snapshot_writer.h writes it, recovery_snapshot.c reads it. Integers are
 * little-endian.
 */
#ifndef KVS_ENGINE_SNAPSHOT_FILE_H
#define KVS_ENGINE_SNAPSHOT_FILE_H

#include "engine/index.h"
#include "engine/log_format.h"

#define SNAPSHOT_NAME    "indexes.snapshot"
#define SNAPSHOT_MAGIC   0x3130504e5353564bull /* "KVSSNP01" */
#define SNAPSHOT_VERSION 1u /* another one for any change of what pages hold, or of which bits of hashes say where */

#define SNAPSHOT_HEADER_BYTES KVS_BLOCK_BYTES
#define SNAPSHOT_CHUNK_PAGES  512u /* pages of one shard that have a check in common */
#define SNAPSHOT_CHUNK_BYTES  (SNAPSHOT_CHUNK_PAGES * INDEX_PAGE_BYTES)

/* More than any store has: an index page for every 4 KiB of 2^44 bytes of log. */
#define SNAPSHOT_PAGES_MAX    (1ull << 32)
#define SNAPSHOT_SEGMENTS_MAX (1u << 26)
#define SNAPSHOT_ITEMS_MAX    (1ull << 40)

struct snapshot_header {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the 4 KiB */
    uint32_t version;
    uint8_t store_uuid[16];
    uint32_t shard_count;
    uint32_t segment_count;
    uint64_t page_count; /* of all shards */
    uint64_t chunk_count;
    uint64_t item_count;
    uint64_t tables_check; /* of all tables together */
    uint64_t lsn_max;      /* of all records */
    uint64_t flushed_lsn;  /* the superblock's */
    uint64_t reserved[5];
};
static_assert(sizeof(struct snapshot_header) == 128, "snapshot header");

struct snapshot_shard {
    uint64_t page_count; /* at least 1 */
    uint64_t item_count;
    uint64_t entries;  /* of the index */
    uint64_t expiring; /* of those, so many expire, each of which has an item */
    uint32_t depth_min;
    uint32_t reserved[3];
};
static_assert(sizeof(struct snapshot_shard) == 48, "snapshot shard");

/* A segment that holds batches. By rising number. */
struct snapshot_segment {
    uint64_t uid;
    uint32_t number;
    uint32_t end; /* offset behind its last batch */
};
static_assert(sizeof(struct snapshot_segment) == 16, "snapshot segment");

static_assert(sizeof(struct index_place) == 8, "place of a page");

/* A record that expires. */
struct snapshot_item {
    uint64_t hash;
    uint64_t address;
    uint64_t expires_ms;
};
static_assert(sizeof(struct snapshot_item) == 24, "snapshot item");

/* Where the tables lie, in this order, as offsets from the first of them, which is at `tables` in the file. */
struct snapshot_layout {
    uint64_t tables;
    uint64_t segments, checks, places, items, tables_bytes;
    uint64_t file_bytes;
};
void snapshot_layout(struct snapshot_layout *layout, const struct snapshot_header *header);

/* Fills in magic, version and checksum. */
void snapshot_header_encode(uint8_t out[SNAPSHOT_HEADER_BYTES], const struct snapshot_header *fields);
/* NULL: it is the header of a snapshot of this store, in a file of so many bytes; else what is wrong. As soon as the
 * header itself is sound, it and the layout that follows from it are set, even if the file has another size. */
const char *snapshot_header_take(struct snapshot_header *header, struct snapshot_layout *layout,
                                 const uint8_t bytes[SNAPSHOT_HEADER_BYTES], const uint8_t store_uuid[16],
                                 uint64_t file_bytes);
/* NULL when the tables of this header are whole and agree with each other; else what is wrong. */
const char *snapshot_tables_check(const struct snapshot_header *header, const uint8_t *tables);
/* The check of a chunk of pages, or of the tables. */
uint64_t snapshot_check(const void *bytes, size_t size, const uint8_t store_uuid[16]);

static inline uint64_t snapshot_chunks(uint64_t page_count)
{
    return (page_count + SNAPSHOT_CHUNK_PAGES - 1) / SNAPSHOT_CHUNK_PAGES;
}

#endif
