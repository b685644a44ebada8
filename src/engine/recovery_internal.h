/*
 * recovery_internal.h - what the parts of recovery share.
 *
 *   recovery_files.c    which files there are, and what the manifest says of them
 *   recovery_runs.c     which of the segments sorted runs cover, so that they need not be read
 *   recovery_window.c   shows the bytes of a file as they pass by
 *   recovery_load.c     reads the others, side by side, into sorted arrays of entries
 *   recovery_snapshot.c takes over the indexes that the last stop has left, if they fit; else:
 *   recovery_fill.c     merges runs and arrays into the indexes, side by side
 *   recovery_streams.c  judges all segments together
 *   recovery_share.c    shares work out among the workers
 *   recovery.c          leads; ends the tails and begins the boot
 *
 * Threads: everything is the calling thread's, but recovery_load.c and recovery_fill.c, whose work is shared by the
 * workers (engine_options.workers). So is that of recovery_snapshot.c. A worker changes what hangs on its struct
 * recovery_worker and on the segments, or shards, that it has taken; the calling thread waits meanwhile.
 */
#ifndef KVS_ENGINE_RECOVERY_INTERNAL_H
#define KVS_ENGINE_RECOVERY_INTERNAL_H

#include "engine/recovery_scan.h"
#include "engine/recovery_window.h"
#include "engine/run_open.h"
#include "engine/store.h"

#include <stdio.h>

/* LSNs that one stream has written in one boot, without a gap. */
struct stretch {
    uint64_t epoch;
    uint32_t stream;
    uint32_t segment;
    uint64_t first_lsn, last_lsn; /* last = first - 1: none */
    uint64_t durable_lsn;         /* the highest that its batches claim */
    bool boot;                    /* it begins with a boot batch, as every stream does */
    bool settled;                 /* its segment is sealed, or an earlier start has found it there */
};

/* Takes the segment's next batch into the stretch, if it goes on there. */
bool stretch_extend(struct stretch *stretch, const struct batch_header *batch, uint32_t segment);
/* A stretch that begins with this batch. */
struct stretch stretch_begin(const struct batch_header *batch, uint32_t segment, bool settled);
/* For qsort: stream by stream, and in each by LSN. */
int stretch_compare(const void *a, const void *b);

/* A file with a segment's name, and what the manifest says of it. */
struct found_segment {
    uint32_t number;
    bool unfinished; /* still under its temporary name */
    bool known;      /* to the manifest */
    struct manifest_entry entry;
    struct segment *segment;
    struct scan_result scan;

    const struct run_segment *covered; /* by a run, of `run`; NULL: not at all */
    uint64_t run;
    bool loaded;               /* its header was read, and all else that has to be */
    bool unspillable;          /* it has been tried */
    struct run_entry *entries; /* the newest of each key, sorted; of a segment that was read and is not covered */
    size_t entry_count;
    struct stretch *stretches; /* of a segment that counts */
    size_t stretch_count, stretch_capacity;
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

/* Whether what a run says of a sealed segment is of the very life that the manifest lists. */
static inline bool recovery_run_counts(const struct run_segment *covered, const struct manifest_entry *entry)
{
    return covered->uid == entry->uid && covered->puts == entry->puts && covered->deletes == entry->deletes &&
           covered->record_bytes == entry->record_bytes && covered->end == entry->end;
}

/* An open run. */
struct found_run {
    struct run *run;
    uint8_t *counts;  /* by number of segment: its entries for that one count */
    _Atomic bool bad; /* damage was found in it */
    bool spilled;     /* this start has made it */
};

/* What one worker has found out; put together when all have ended. */
struct recovery_worker {
    struct recovery *recovery;
    struct ring *ring;
    enum kvs_err err;
    size_t err_at; /* which segment, or shard, it was about: of several errors the first one is told */
    char message[ENGINE_MESSAGE_BYTES];

    uint64_t lsn_max;
    uint64_t
        epoch_max; /* seen in any header: a superblock copy that serves because the other is damaged may be older */
    bool manifest_claimed; /* a batch says how far the manifest had come … */
    uint32_t manifest_max; /* … at most */
    uint64_t time_ms;      /* the latest that a batch tells */
    uint64_t records, segments, bytes, keys;

    /* Of the segment in hand. */
    struct found_segment *current;
    const struct scan_segment *scanned;
    struct run_collector *collector; /* NULL: its records need not be listed */
    uint64_t min_lsn;
    uint8_t *head;                  /* for the beginnings of segments … */
    struct recovery_window *window; /* … and for what is read whole */

    uint32_t *live_puts, *live_units; /* by number of segment: what indexes point at */
};

struct snapshot;

struct recovery {
    struct store *store;
    struct ring *ring;
    char *message;
    enum kvs_err err; /* the first error inside a callback */

    struct found_segment *found;
    size_t found_count, found_capacity;
    struct found_run *runs;
    size_t run_count, run_capacity;
    struct snapshot *snapshot; /* that is being taken; NULL: none */
    bool snapshot_there;       /* its file is, of use or not */
    uint64_t lsn_max, epoch_max;
    bool manifest_claimed;
    uint32_t manifest_max;
    uint64_t time_ms; /* the latest that a batch tells */

    struct recovery_worker *workers;
    unsigned worker_count;
    void (*work)(struct recovery_worker *worker);
    _Atomic size_t next;          /* segment, or shard, for the next worker that has nothing to do */
    _Atomic bool failed;          /* nobody need take another */
    _Atomic uint64_t entry_bytes; /* in arrays */
    uint64_t entry_bytes_max;     /* from there on arrays become runs */
    uint64_t spill_sequence;      /* of the run that found[0] would become */
    uint8_t *block;               /* for what is written to tails */
};

#define say(recovery, ...) snprintf((recovery)->message, ENGINE_MESSAGE_BYTES, __VA_ARGS__)

/* ---- recovery_share.c ------------------------------------------------------------------------------------------ */

/* So many more bytes are to be read; so many have been. The latter is for workers, too. */
void recovery_expect(const struct recovery *recovery, uint64_t bytes);
void recovery_progress(const struct recovery *recovery, uint64_t bytes);
/* Has all workers do `work`, and puts their errors together. */
enum kvs_err recovery_share(struct recovery *recovery, void (*work)(struct recovery_worker *worker));
/* Notes a worker's error, about segment or shard `at`; its message is there, or will be said by the caller. */
void recovery_worker_fail(struct recovery_worker *worker, size_t at, enum kvs_err err);

/* Whether a log may go on in a segment that ends there: so much of it is free. */
bool recovery_has_room(const struct recovery *recovery, uint32_t end);

/* ---- recovery_files.c ------------------------------------------------------------------------------------------ */

/* Reads manifest and directory; recovery->found are then the files, open, the youngest last. Nothing is changed but
 * that unfinished files go. */
enum kvs_err recovery_find(struct recovery *recovery);
/* Writes the manifest as it is to be for this boot. */
enum kvs_err recovery_write_manifest(struct recovery *recovery);

/* ---- recovery_runs.c ------------------------------------------------------------------------------------------- */

/* Opens the runs and notes which segments they cover. Runs that cannot be read are none. */
enum kvs_err recovery_find_runs(struct recovery *recovery);
/* The segment's run does not count for it: it is to be read. For the worker that has it, too. */
void recovery_uncover(const struct recovery *recovery, struct found_segment *found);
/* Lets go of runs that were found bad: what they covered is to be loaded again. */
void recovery_drop_bad_runs(struct recovery *recovery);
/* Writes the entries of a segment as a run, on the worker's ring, and lets go of them. A run that cannot be written
 * is no failure: they stay. */
void recovery_spill(struct recovery_worker *worker, struct found_segment *found);
/* What has been spilled counts as a run from now on. */
enum kvs_err recovery_adopt_spilled(struct recovery *recovery);
/* Gives the runs that are of use to the store, and removes all others. */
enum kvs_err recovery_keep_runs(struct recovery *recovery);
/* Closes all; with `remove`, those that this start has made go. */
void recovery_close_runs(struct recovery *recovery, bool remove);

/* ---- recovery_load.c ------------------------------------------------------------------------------------------- */

/* Reads what has to be read of every segment that was not loaded yet. */
enum kvs_err recovery_load(struct recovery *recovery);
/* The refusal of a segment whose file has only so many bytes. */
enum kvs_err recovery_cut_short(const struct recovery *recovery, const struct found_segment *found, uint64_t bytes,
                                char message[ENGINE_MESSAGE_BYTES]);

/* ---- recovery_fill.c ------------------------------------------------------------------------------------------- */

/* Fills the indexes. AGAIN: a run was bad and has been dropped; load, and fill again. */
enum kvs_err recovery_fill(struct recovery *recovery);
/* Zeroes what the worker counts of the entries that indexes have. NO_MEMORY. */
enum kvs_err recovery_live_begin(struct recovery_worker *worker);
/* What all workers have counted is not dead. */
void recovery_count_live(struct recovery *recovery);
enum kvs_err recovery_empty_indexes(struct recovery *recovery);

/* ---- recovery_snapshot.c --------------------------------------------------------------------------------------- */

/* After recovery_load. Not taken: there is none, or it is of no use; the indexes are empty. */
enum kvs_err recovery_take_snapshot(struct recovery *recovery, bool *taken);
/* Its time is over, whether it was taken or not. */
void recovery_remove_snapshot(const struct recovery *recovery);

/* ---- recovery_streams.c ---------------------------------------------------------------------------------------- */

/* Takes a log's batch at this offset of the segment into account. NO_MEMORY. */
enum kvs_err recovery_add_batch(struct found_segment *found, const struct batch_header *batch, uint32_t offset);
/* A sealed segment of a log that was not read: the manifest tells how far its stream came there. NO_MEMORY. */
enum kvs_err recovery_add_sealed(struct found_segment *found);
enum kvs_err recovery_refuse_damage(const struct recovery *recovery, const struct found_segment *found,
                                    char message[ENGINE_MESSAGE_BYTES]);
enum kvs_err recovery_check_streams(struct recovery *recovery);
enum kvs_err recovery_check_claims(struct recovery *recovery);

#endif
