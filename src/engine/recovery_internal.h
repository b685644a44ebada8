/*
 * recovery_internal.h - what the parts of recovery share: recovery.c reads the segments and begins the boot,
 * recovery_files.c finds them and knows the manifest, recovery_streams.c judges all of them together.
 */
#ifndef KVS_ENGINE_RECOVERY_INTERNAL_H
#define KVS_ENGINE_RECOVERY_INTERNAL_H

#include "engine/recovery_map.h"
#include "engine/recovery_scan.h"
#include "engine/store.h"

#include <stdio.h>

/* LSNs that one stream has written in one boot, without a gap. */
struct run {
    uint64_t epoch;
    uint32_t stream;
    uint32_t segment;
    uint64_t first_lsn, last_lsn; /* last = first - 1: none */
    uint64_t durable_lsn;         /* the highest that its batches claim */
    bool boot;                    /* it begins with a boot batch, as every stream does */
    bool sealed;                  /* its segment is */
};

/* Takes the segment's next batch into the run, if it goes on there. */
bool run_extend(struct run *run, const struct batch_header *batch, uint32_t segment);
/* A run that begins with this batch. */
struct run run_begin(const struct batch_header *batch, uint32_t segment, bool sealed);

/* A file with a segment's name, and what the manifest says of it. */
struct found_segment {
    uint32_t number;
    bool unfinished; /* still under its temporary name */
    bool known;      /* to the manifest */
    struct manifest_entry entry;
    struct segment *segment;
    struct scan_result scan;
};

/* What the file is to the store. */
enum found_role {
    FOUND_LOG,      /* may have been written to when the last run ended: its end has to be found */
    FOUND_SEALED,   /* whole */
    FOUND_FREE,     /* holds nothing that counts */
    FOUND_STRANGER, /* the manifest does not know it: it must be one that was made and never used */
};

static inline enum found_role found_role(const struct found_segment *found)
{
    if (!found->known)
        return FOUND_STRANGER;
    if (found->entry.state == MANIFEST_SEALED)
        return FOUND_SEALED;
    /* What compaction had not finished is thrown away: the records are still where they were. */
    bool in_use = found->entry.state == MANIFEST_LIVE && found->entry.kind == SEGMENT_LOG;
    return in_use ? FOUND_LOG : FOUND_FREE;
}

struct recovery {
    struct store *store;
    struct ring *ring;
    char *message;
    enum kvs_err err; /* the first error inside a callback */

    struct found_segment *found;
    size_t found_count, found_capacity;
    struct run *runs;
    size_t run_count, run_capacity;
    struct recovery_map map;
    uint64_t lsn_max;
    bool manifest_claimed; /* a batch says how far the manifest had come … */
    uint32_t manifest_max; /* … at most */
    uint64_t time_ms;      /* the latest that a batch tells */
    uint64_t
        epoch_max; /* seen in any header: a superblock copy that serves because the other is damaged may be older */

    uint8_t *scratch; /* the segment being scanned, when it gets no image */
    struct found_segment *current;
    const uint8_t *current_bytes;
    uint8_t *peek; /* for records that are compared on disk */
};

#define say(recovery, ...) snprintf((recovery)->message, ENGINE_MESSAGE_BYTES, __VA_ARGS__)

/* Adds room for one more element. */
enum kvs_err recovery_grow(void **array, size_t count, size_t *capacity, size_t element_bytes);

/* ---- recovery_files.c ------------------------------------------------------------------------------------------ */

/* Reads manifest and directory; recovery->found are then the files, the youngest last. Nothing is changed but that
 * unfinished files go. */
enum kvs_err recovery_find(struct recovery *recovery);
/* Opens the file of a segment and adds it to the table. */
enum kvs_err recovery_open_file(struct recovery *recovery, struct found_segment *found);
/* Writes the manifest as it is to be for this boot. */
enum kvs_err recovery_write_manifest(struct recovery *recovery);

/* ---- recovery_streams.c ---------------------------------------------------------------------------------------- */

/* Takes a log's batch into account. */
void recovery_add_batch(struct recovery *recovery, const struct batch_header *batch);
enum kvs_err recovery_refuse_damage(struct recovery *recovery, const struct found_segment *found);
enum kvs_err recovery_check_streams(struct recovery *recovery);
enum kvs_err recovery_check_claims(struct recovery *recovery);

#endif
