/*
 * log_format.h - the bytes of a log segment: headers, records, and the rules that tell a valid one. Pure; any thread.
 *
 *   segment file                                          batch (begins at a multiple of 4 KiB)
 *   ┌────────────────┬───────┬───────┬─ … ─┬──────────┐   ┌──────────────┬────────┬────────┬─ … ─┬─────────┐
 *   │ segment header │ batch │ batch │     │ unwritten│   │ batch header │ record │ record │     │ padding │
 *   │ 4 KiB          │       │       │     │          │   │ 64 bytes     │        │        │     │ to 4 KiB│
 *   └────────────────┴───────┴───────┴─ … ─┴──────────┘   └──────────────┴────────┴────────┴─ … ─┴─────────┘
 *
 * All integers are little-endian. docs/FORMAT.md describes every field; this header is its counterpart in code.
 *
 * Checksums are CRC32C, begun with a seed that stands for the place: the store's UUID, the segment's incarnation (uid)
 * and the offset. So bytes that were valid elsewhere, or in an earlier life of the same segment, are never taken for
 * its own.
 */
#ifndef KVS_ENGINE_LOG_FORMAT_H
#define KVS_ENGINE_LOG_FORMAT_H

#include "base/bytes.h"
#include "base/canary.h"
#include "base/limits.h"

#include <assert.h>

#define FORMAT_VERSION 1u

#define SEGMENT_MAGIC 0x313047455353564bull /* "KVSSEG01" */
#define BATCH_MAGIC   0x4253564bu           /* "KVSB" */

struct segment_header {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the struct */
    uint32_t version;
    uint8_t store_uuid[16];
    uint64_t uid; /* this incarnation of the segment; never used twice in a store */
    uint32_t number;
    uint32_t block_bytes;
    uint64_t segment_bytes;
    uint64_t epoch; /* boot in which it was prepared */
};
static_assert(sizeof(struct segment_header) == 64, "segment header");

enum batch_flags {
    BATCH_BOOT = 1,  /* empty; the first of a boot in this segment: what lies before it was durable then */
    BATCH_CLEAN = 2, /* empty; the last before an orderly stop */
    /* Written by compaction: each record has the LSN it was first written with. first_lsn and prev_lsn count records in
     * this segment, from 1. */
    BATCH_RELOCATED = 4,
    BATCH_TIME = 8, /* empty; says what time it was: see store_expiry.c */
};

struct batch_header {
    uint32_t magic;
    uint32_t crc;   /* of the bytes behind it, to the end of the struct, with the seed of the batch's place */
    uint32_t bytes; /* header and records, before padding */
    uint32_t record_count;
    uint64_t first_lsn;   /* of its first record; of the next one when it has none */
    uint64_t prev_lsn;    /* last LSN before this batch in the segment; in a fresh segment, of the stream */
    uint64_t durable_lsn; /* the stream was durable up to here when this batch was written */
    uint64_t epoch;       /* boot that wrote it */
    uint32_t stream;      /* shard that wrote it */
    uint16_t flags;
    uint16_t wall_ms;  /* of the time below, 0..999 */
    uint32_t manifest; /* the manifest's latest durable sequence when this batch was written, its lower half */
    uint32_t wall_s;   /* the store's time when it was written (wall_clock.h): seconds since 1970 */
};
static_assert(sizeof(struct batch_header) == 64, "batch header");

/* The last LSN of its stream before it. Nothing is missing in between: a stream may leave LSNs out (log_jump). */
static inline uint64_t batch_after_lsn(const struct batch_header *batch)
{
    return (batch->flags & BATCH_BOOT) != 0 ? batch->first_lsn - 1 : batch->prev_lsn;
}

static inline uint64_t batch_time_ms(const struct batch_header *batch)
{
    return (uint64_t)batch->wall_s * 1000 + batch->wall_ms;
}

static inline void batch_set_time(struct batch_header *batch, uint64_t time_ms)
{
    batch->wall_s = (uint32_t)(time_ms / 1000);
    batch->wall_ms = (uint16_t)(time_ms % 1000);
}

enum record_kind {
    RECORD_PUT = 1,
    RECORD_DELETE = 2,
    /* 3..15 are kept for later */
};

enum record_flags {
    RECORD_GROUP = 1,   /* appended with others (log_append_group): the index shows it when it is durable. Means nothing
                           to   a start */
    RECORD_EXPIRES = 2, /* a put: the extra bytes are the time from which on it counts no more, ms since 1970, not 0 */
    RECORD_LARGE = 4,   /* of a put: the value is a struct value_descriptor (value_format.h), which names the file that
                           has the real one */
};
enum { RECORD_DESCRIPTOR_BYTES = 24 };

enum { RECORD_EXPIRY_BYTES = 8 };

struct record_header {
    uint32_t crc; /* of the bytes behind it: rest of the header, extra bytes, key, value; with the seed of its place */
    uint32_t value_bytes;
    uint64_t lsn;
    uint16_t key_bytes;
    uint8_t kind;
    uint8_t flags;
    uint8_t type;         /* 0 = string; others are kept for typed values */
    uint8_t codec;        /* 0 = as it is; others are kept for compression */
    uint16_t extra_bytes; /* between header and key, as the flags tell: RECORD_EXPIRY_BYTES or 0 */
};
static_assert(sizeof(struct record_header) == 24, "record header");

enum { RECORD_ALIGN = 16 };

/* Bytes a record takes in the log, alignment included. Extra bytes count as part of the key. */
static inline uint64_t record_bytes(size_t key_bytes, size_t value_bytes)
{
    return align_up(sizeof(struct record_header) + key_bytes + value_bytes, RECORD_ALIGN);
}

/* Seed of a segment's checksums. */
uint32_t segment_seed(const uint8_t store_uuid[16], uint64_t uid);

/* Seed for what begins at `offset` in a segment: differs for any two places. */
static inline uint32_t place_seed(uint32_t seed, uint32_t offset)
{
    return canary_on(CANARY_CRC_WITHOUT_OFFSET) ? seed : seed ^ (offset / RECORD_ALIGN) * 0x9E3779B1u;
}

/* Writes the 64 bytes of a segment header; the caller zeroes the rest of the block. */
void segment_header_encode(struct segment_header *out, const uint8_t store_uuid[16], uint32_t number, uint64_t uid,
                           uint64_t segment_bytes, uint64_t epoch);
/* True when these bytes are an undamaged header, of any store, number and version. */
bool segment_header_whole(const struct segment_header *header);
/* NULL when valid for this store and number, else what is wrong with it. */
const char *segment_header_check(const struct segment_header *header, const uint8_t store_uuid[16], uint32_t number,
                                 uint64_t segment_bytes);

/* Fills magic and checksum; all other fields are set. */
void batch_header_seal(struct batch_header *header, uint32_t seed, uint32_t offset);
/* True when these are the bytes of a batch header written at this place, with lengths that fit into `room` bytes. */
bool batch_header_valid(const struct batch_header *header, uint32_t seed, uint32_t offset, uint64_t room);

/* Writes a record at `out`, padding zeroed. Sets lengths, checksum and the flag EXPIRES; expires_ms 0 = never. */
void record_encode(uint8_t *out, uint32_t seed, uint32_t offset, const struct record_header *fields,
                   uint64_t expires_ms, struct slice key, struct slice value);

static inline struct slice record_key(const struct record_header *record)
{
    return slice_make((const uint8_t *)(record + 1) + record->extra_bytes, record->key_bytes);
}

static inline struct slice record_value(const struct record_header *record)
{
    return slice_make((const uint8_t *)(record + 1) + record->extra_bytes + record->key_bytes, record->value_bytes);
}

/* What the record takes in the log, alignment included. */
static inline uint64_t record_size(const struct record_header *record)
{
    return record_bytes((size_t)record->extra_bytes + record->key_bytes, record->value_bytes);
}

/* From this millisecond on it counts no more; 0 = it does not expire. Of a record that record_check has found valid. */
static inline uint64_t record_expires_ms(const struct record_header *record)
{
    uint64_t expires_ms = 0;
    if ((record->flags & RECORD_EXPIRES) != 0)
        memcpy(&expires_ms, record + 1, sizeof expires_ms);
    return expires_ms;
}

enum record_state {
    RECORD_VALID,   /* a whole, undamaged record written at this place begins there */
    RECORD_INVALID, /* none does */
    RECORD_UNKNOWN, /* one does, but its kind, flags, type or codec mean nothing to this program: a newer one wrote it
                     */
};
enum record_state record_check(const void *data, uint64_t room, uint32_t seed, uint32_t offset);

/* Size classes for the index: class c holds records of up to 256 << c bytes; 15 stands for all that are larger than 4
 * MiB. */
unsigned record_class(uint64_t bytes);
/* Bytes to read for a record of a class; for class 15 enough for its header and key. */
uint64_t record_class_bytes(unsigned class);

/* Addresses: number of the segment and offset in it, in units of 16 bytes, together 40 bits. */
static inline uint64_t address_make(uint32_t segment, uint32_t offset, unsigned segment_shift)
{
    return ((uint64_t)segment << segment_shift | offset) / RECORD_ALIGN;
}

static inline uint32_t address_segment(uint64_t address, unsigned segment_shift)
{
    return (uint32_t)(address * RECORD_ALIGN >> segment_shift);
}

static inline uint32_t address_offset(uint64_t address, unsigned segment_shift)
{
    return (uint32_t)(address * RECORD_ALIGN & ((1ull << segment_shift) - 1));
}

#endif
