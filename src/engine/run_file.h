/*
 * run_file.h - sorted runs: the index of sealed segments on disk, so that a start need not read their records.
 *
 * A run lists the newest record of every key among the segments it covers: for one segment a summary, for many a
 * checkpoint. Entries are sorted by the hash of their key, then by check, so that runs are merged by streaming
 * (run_merge.h), a shard's keys lie together, and an index is filled page by page. Keys are told apart by 128 bits
 * (hash and check).
 *
 * Runs are derived data: all of them is checksummed, a bad or missing run is thrown away, and the records of the
 * segments it covered are read instead.
 *
 *   NNNNNNNNNNNN.run   ┌────────┬────────────────┬────────────────┬───────────────────┐
 *                      │ header │ blocks of      │ blocks of      │ blocks of the     │
 *                      │ 4 KiB  │ entries        │ segments       │ index of entries  │
 *                      └────────┴────────────────┴────────────────┴───────────────────┘
 *   block   header of 64 bytes, items, zeros. 64 KiB; the last of each kind is as long as it must be, in units of 4 KiB
 *
 * All that has a place in the file follows from two numbers in the header, entry_count and segment_count, so a block
 * has nothing to say about its place that could be wrong. Checksums begin with a seed made of the store's UUID, the
 * run's sequence and the block's number: stale or misplaced blocks are noticed.
 *
 * Deletes are kept in runs for as long as their record stands in a covered segment: a segment outside of the run may
 * hold an older record of the key.
 *
 * This header is the format: pure, any thread. run_writer.h writes a run, run_open.h and run_reader.h read it.
 */
#ifndef KVS_ENGINE_RUN_FILE_H
#define KVS_ENGINE_RUN_FILE_H

#include "engine/log_format.h"

#define RUN_MAGIC       0x31304e555253564bull /* "KVSRUN01" */
#define RUN_BLOCK_MAGIC 0x5253564bu           /* "KVSR" */
#define RUN_VERSION     1u

#define RUN_HEADER_BYTES KVS_BLOCK_BYTES
#define RUN_BLOCK_BYTES  65536u

/* More than a store can hold: a record takes at least 32 bytes of 2^44, a segment at least 256 KiB. */
#define RUN_ENTRIES_MAX  (1ull << 40)
#define RUN_SEGMENTS_MAX (1u << 26)

/* ---- entries --------------------------------------------------------------------------------------------------- */

struct run_entry {
    uint64_t order;      /* hash_key(key) */
    uint64_t check;      /* a second hash of the key: with `order` it stands for the key */
    uint64_t lsn;        /* of the record */
    uint64_t expires_ms; /* since 1970; 0 = never */
    uint64_t place;      /* address, size and flags of the record: see run_place */
};
static_assert(sizeof(struct run_entry) == 40, "run entry");

enum run_flags {
    RUN_DELETE = 1, /* the record is a delete */
    RUN_FLAGS_KNOWN = 1,
};

enum { RUN_UNITS_SHIFT = 40, RUN_UNITS_BITS = 21, RUN_FLAGS_SHIFT = RUN_UNITS_SHIFT + RUN_UNITS_BITS };

/* Bits 0..39 address, 40..60 bytes of the record in the log in units of 16, 61..63 flags. */
static inline uint64_t run_place(uint64_t address, uint64_t record_bytes, unsigned flags)
{
    return address | record_bytes / RECORD_ALIGN << RUN_UNITS_SHIFT | (uint64_t)flags << RUN_FLAGS_SHIFT;
}

static inline uint64_t run_entry_address(const struct run_entry *entry)
{
    return entry->place & ((1ull << RUN_UNITS_SHIFT) - 1);
}

/* What the record takes in the log, alignment included. */
static inline uint64_t run_entry_record_bytes(const struct run_entry *entry)
{
    return (entry->place >> RUN_UNITS_SHIFT & ((1ull << RUN_UNITS_BITS) - 1)) * RECORD_ALIGN;
}

static inline bool run_entry_is_delete(const struct run_entry *entry)
{
    return (entry->place >> RUN_FLAGS_SHIFT & RUN_DELETE) != 0;
}

/* The orders of shard `shard` of `shard_count` (1..65535), both ends included. */
struct run_range {
    uint64_t first, last;
};
struct run_range run_range_of_shard(unsigned shard, unsigned shard_count);
#define RUN_RANGE_ALL ((struct run_range){.first = 0, .last = UINT64_MAX})

/* What merging compares: equal for entries of one key, and rising along a run. */
static inline unsigned __int128 run_entry_key(const struct run_entry *entry)
{
    return (unsigned __int128)entry->order << 64 | entry->check;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

struct run_header {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the 4 KiB */
    uint32_t version;
    uint8_t store_uuid[16];
    uint64_t sequence; /* as in the file's name */
    uint64_t entry_count;
    uint64_t delete_count; /* how many of them are deletes */
    uint32_t segment_count;
    uint32_t block_bytes;
    uint64_t time_ms; /* the store's time when it was begun: not before that of any batch it has seen */
    uint64_t reserved[7];
};
static_assert(sizeof(struct run_header) == 128, "run header");

enum run_block_kind { RUN_ENTRIES = 1, RUN_SEGMENTS, RUN_INDEX };

struct run_block {
    uint32_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the block, with the seed of the block's place */
    uint32_t kind;
    uint32_t count; /* items */
    uint64_t sequence;
    uint64_t number;      /* of this block in the file, from 0, all kinds together */
    uint64_t first_order; /* ENTRIES: of its first entry; else 0 */
    uint64_t reserved[3];
};
static_assert(sizeof(struct run_block) == 64, "run block");

/* A covered segment. In the file by rising number. What the manifest says of sealed segments is not repeated here, but
 * for what shows that both speak of the same. */
struct run_segment {
    uint64_t uid;
    uint32_t number;
    uint32_t puts;                              /* records of kind put in it, listed or not */
    uint32_t deletes;                           /* likewise */
    uint32_t record_bytes;                      /* sum of its records, without batch headers and padding */
    uint32_t end;                               /* what is covered ends here: behind its last batch */
    uint32_t put_units;                         /* of its puts: see segment_units */
    uint32_t record_bytes_max;                  /* the largest record */
    uint32_t expiring;                          /* puts with an expiry */
    uint64_t deletes_min_lsn, deletes_last_lsn; /* of its deletes, if there are any */
    uint64_t expiring_last_lsn;                 /* the highest of its puts with an expiry */
};
static_assert(sizeof(struct run_segment) == 64, "run segment");

/* Items that fit into a whole block. An item of the index is the first_order of the entry block of that number. */
enum {
    RUN_BLOCK_ENTRIES = (RUN_BLOCK_BYTES - 64) / 40,
    RUN_BLOCK_SEGMENTS = (RUN_BLOCK_BYTES - 64) / 64,
    RUN_BLOCK_ORDERS = (RUN_BLOCK_BYTES - 64) / 8,
};

/* Where everything lies. */
struct run_layout {
    uint64_t entry_count;
    uint32_t segment_count;
    uint64_t entry_blocks, segment_blocks, index_blocks;
    uint64_t blocks;     /* all */
    uint64_t file_bytes; /* all */
};
void run_layout(struct run_layout *layout, uint64_t entry_count, uint32_t segment_count);

struct run_extent {
    uint64_t offset;
    uint32_t bytes;
    uint32_t count; /* items in it */
    enum run_block_kind kind;
};
/* The block of this number, below layout->blocks. */
struct run_extent run_block_extent(const struct run_layout *layout, uint64_t number);

/* Bytes of one item, items that fit into a whole block, bytes of a block of so many items. */
uint32_t run_item_bytes(enum run_block_kind kind);
uint32_t run_items_max(enum run_block_kind kind);
uint32_t run_block_bytes(enum run_block_kind kind, uint32_t count);

/* Seed of the checksums of a run's blocks. */
uint32_t run_seed(const uint8_t store_uuid[16], uint64_t sequence);

/* Fills in the 4 KiB of a header: magic, version, block size and checksum, and zeros behind. All else is from
 * `fields`. */
void run_header_encode(uint8_t out[RUN_HEADER_BYTES], const struct run_header *fields);
/* NULL when these 4 KiB are the header of this store's run of this sequence, else what is wrong. */
const char *run_header_check(const uint8_t bytes[RUN_HEADER_BYTES], const uint8_t store_uuid[16], uint64_t sequence);

/* Completes a block whose items are in place, behind its header: header, zeros to its end, checksum. */
void run_block_seal(uint8_t *bytes, enum run_block_kind kind, uint32_t count, uint32_t seed, uint64_t sequence,
                    uint64_t number);
/* NULL when the extent's bytes are the block of this number of the run with this seed, else what is wrong. The items
 * of a block of entries are known to rise, by order and check, and to have no unknown flags. */
const char *run_block_check(const uint8_t *bytes, const struct run_extent *extent, uint32_t seed, uint64_t sequence,
                            uint64_t number);

static inline const void *run_block_items(const uint8_t *bytes)
{
    return bytes + sizeof(struct run_block);
}

/* The file's name, "000000000042.run"; with `suffix` ".new" of one in the making. */
#define RUN_NAME_BYTES 40
void run_name(char name[RUN_NAME_BYTES], uint64_t sequence, const char *suffix);
/* True when `name` is a run's; sets *sequence, and *unfinished for one with the suffix ".new". */
bool run_name_parse(const char *name, uint64_t *sequence, bool *unfinished);

#endif
