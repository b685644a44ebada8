/*
 * fuzz_fixup.h - right checksums for wrong bytes, so that a mutation gets past them to what stands behind.
 *
 * The checksums are reckoned here anew from docs/FORMAT.md's rules and not by the functions of log_format.c, so that
 * the two can disagree. What has no length that makes sense is left as it is.
 */
#ifndef KVS_TESTS_FUZZ_FIXUP_H
#define KVS_TESTS_FUZZ_FIXUP_H

#include "base/crc32c.h"
#include "engine/log_format.h"
#include "engine/superblock.h"

/* ---- the superblock -------------------------------------------------------------------------------------------- */

static inline uint32_t fixup_superblock_crc(const void *copy)
{
    return crc32c(0, (const uint8_t *)copy + 12, offsetof(struct superblock, flushed_lsn) - 12);
}

/* Of version 2, the other one. */
static inline uint32_t fixup_flushed_crc(const void *copy)
{
    return crc32c(0, (const uint8_t *)copy + 12, offsetof(struct superblock, flushed_crc) - 12);
}

/* Gives a copy its magic and checksums. */
static inline void fixup_superblock_copy(uint8_t *copy)
{
    const uint64_t magic = SUPERBLOCK_MAGIC;
    const uint32_t crc = fixup_superblock_crc(copy), flushed_crc = fixup_flushed_crc(copy);
    memcpy(copy, &magic, sizeof magic);
    memcpy(copy + 8, &crc, sizeof crc);
    memcpy(copy + offsetof(struct superblock, flushed_crc), &flushed_crc, sizeof flushed_crc);
}

static inline bool fixup_superblock_right(const struct superblock *copy)
{
    return copy->magic == SUPERBLOCK_MAGIC && copy->crc == fixup_superblock_crc(copy) &&
           (copy->version != SUPERBLOCK_VERSION_FLUSHED || copy->flushed_crc == fixup_flushed_crc(copy));
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

static inline void fixup_segment_header(uint8_t *bytes)
{
    const uint64_t magic = SEGMENT_MAGIC;
    memcpy(bytes, &magic, sizeof magic);
    const uint32_t crc = crc32c(0, bytes + 12, sizeof(struct segment_header) - 12);
    memcpy(bytes + 8, &crc, sizeof crc);
}

static inline uint32_t fixup_place_seed(uint32_t seed, uint64_t offset)
{
    return seed ^ (uint32_t)(offset / 16) * 0x9E3779B1u;
}

/* Checksums of the records of a batch, as far as they fit into it. */
static inline void fixup_records(uint8_t *segment, uint64_t at, uint64_t end, uint32_t seed)
{
    while (end - at >= sizeof(struct record_header)) {
        struct record_header record;
        memcpy(&record, segment + at, sizeof record);
        const uint64_t bytes = sizeof record + record.extra_bytes + record.key_bytes + (uint64_t)record.value_bytes;
        if (bytes > end - at)
            return;
        record.crc = crc32c(fixup_place_seed(seed, at), segment + at + 4, bytes - 4);
        memcpy(segment + at, &record.crc, sizeof record.crc);
        const uint64_t padded = align_up(bytes, RECORD_ALIGN);
        if (padded >= end - at)
            return;
        at += padded;
    }
}

/* Checksums of all that begins with a batch's magic at a multiple of 4 KiB, and of the records in it. */
static inline void fixup_batches(uint8_t *segment, uint64_t size, uint32_t seed)
{
    for (uint64_t at = KVS_BLOCK_BYTES; at + KVS_BLOCK_BYTES <= size; at += KVS_BLOCK_BYTES) {
        struct batch_header batch;
        memcpy(&batch, segment + at, sizeof batch);
        if (batch.magic != BATCH_MAGIC)
            continue;
        if (batch.bytes >= sizeof batch && batch.bytes <= size - at)
            fixup_records(segment, at + sizeof batch, at + batch.bytes, seed);
        batch.crc = crc32c(fixup_place_seed(seed, at), (const uint8_t *)&batch + 8, sizeof batch - 8);
        memcpy(segment + at, &batch, sizeof batch);
    }
}

/* The same rules for one record: true when its checksum is right and it lies in `room` bytes. */
static inline bool fixup_record_right(const uint8_t *segment, uint64_t at, uint64_t room, uint32_t seed)
{
    struct record_header record;
    if (room < sizeof record)
        return false;
    memcpy(&record, segment + at, sizeof record);
    const uint64_t bytes = sizeof record + record.extra_bytes + record.key_bytes + (uint64_t)record.value_bytes;
    return bytes <= room && record.crc == crc32c(fixup_place_seed(seed, at), segment + at + 4, bytes - 4);
}

static inline bool fixup_batch_right(const uint8_t *segment, uint64_t at, uint64_t room, uint32_t seed)
{
    struct batch_header batch;
    if (room < sizeof batch)
        return false;
    memcpy(&batch, segment + at, sizeof batch);
    return batch.magic == BATCH_MAGIC && batch.bytes >= sizeof batch && batch.bytes <= room &&
           batch.crc == crc32c(fixup_place_seed(seed, at), (const uint8_t *)&batch + 8, sizeof batch - 8);
}

#endif
