/*
 * recovery_scan.h - finding the valid batches of one segment. Pure: works on bytes in memory, or on those that it is
 * shown bit by bit.
 */
#ifndef KVS_ENGINE_RECOVERY_SCAN_H
#define KVS_ENGINE_RECOVERY_SCAN_H

#include "engine/log_format.h"

struct scan_segment {
    const uint8_t *bytes; /* the whole segment; or NULL, and instead: */
    /* Shows `size` bytes of the segment, until it is called again; offsets never fall. NULL: they cannot be had, and
     * the scan ends there (scan_result.unreadable). */
    const uint8_t *(*look)(void *context, uint64_t offset, uint64_t size);
    void *context;
    uint64_t size;
    uint32_t seed;
    uint64_t epoch; /* the latest boot's */
};

struct scan_result {
    uint32_t end;      /* offset behind the last valid batch */
    uint64_t last_lsn; /* of it; 0 when there is none */
    uint64_t epoch;    /* of it */
    uint32_t stream;   /* of it */
    uint64_t batches, records;

    /* What lies behind the end. Either it was never acknowledged (a torn tail, torn_bytes long; 0: clean), or a later
     * batch proves that what should stand at `end` had been durable. */
    uint64_t torn_bytes;
    bool damaged;
    uint32_t proof_offset; /* with damaged: where that later batch stands */
    uint64_t proof_lsn;    /* with damaged: at least up to here all was durable */

    /* Without any valid batch, but with a valid header of one: it claims that its stream was durable up to
     * claim_lsn. Whether that is more than was found of the stream only a look at all segments tells. */
    bool claim;
    uint32_t claim_stream, claim_offset;
    uint64_t claim_epoch, claim_lsn;

    bool unreadable; /* see scan_segment.look: nothing of what is said here counts */
    bool unknown;    /* a record at unknown_offset is undamaged, but of a kind that this program does not know */
    uint32_t unknown_offset;
};

/* Calls `each_batch` for every valid batch, in order, and tells where and why they end. */
typedef void scan_batch_fn(void *context, const struct batch_header *batch, uint32_t offset);
void scan_batches(const struct scan_segment *segment, struct scan_result *result, scan_batch_fn *each_batch,
                  void *context);

/* Calls `each_record` for every record of a valid batch at `offset`. */
typedef void scan_record_fn(void *context, const struct record_header *record, uint32_t offset);
void scan_records(const struct scan_segment *segment, uint32_t offset, scan_record_fn *each_record, void *context);

#endif
