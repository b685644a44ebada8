/*
 * run_collect.h - the entries of a run from the records of a segment: what a start and a checkpoint gather alike.
 *
 * One thread; the segment's bytes are in memory and known to be valid (recovery_scan.h).
 */
#ifndef KVS_ENGINE_RUN_COLLECT_H
#define KVS_ENGINE_RUN_COLLECT_H

#include "base/error.h"
#include "engine/log_format.h"
#include "engine/run_file.h"
#include "engine/segment.h"

struct run_collector {
    uint64_t hash_seed;
    uint32_t segment; /* its number */
    unsigned shift;   /* log2 of the segments' size */
    uint64_t lsn_max; /* of all records so far */
    struct run_entry *entries;
    size_t count, capacity;
};

/* The array is the collector's, and grows; free() it. The collector starts as a zeroed struct with its first fields. */

/* What a run says of this segment when it covers it up to its end. */
struct run_segment run_describe(const struct segment *segment);

/* Adds an entry for the record at `offset` of the segment. NO_MEMORY. */
enum kvs_err run_collect(struct run_collector *collector, const struct record_header *record, uint32_t offset);

#endif
