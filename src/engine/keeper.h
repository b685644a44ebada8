/*
 * keeper.h - births and deaths of segments: the background part of the engine `kvs`.
 *
 * The keeper makes segments ahead of need and offers one to each log; notes in the manifest which segments are sealed;
 * gives the files of retired ones a new life; hands memory out for images; and keeps the sorted runs (checkpoint.h). It
 * runs on the background thread with the background's ring. A log's owner meets it in two places only: `offered`, where
 * it takes the next segment, and `error`, which says why none comes.
 *
 *   making ──► offered ──► the log's: OPEN ──► SEALED ──► unsealed list: manifest ──► … ──► retired ──► free list
 *
 * A file that has a second name belongs to a backup as well (backup.h): it is not used again but given up, and removed.
 *
 * Memory. Images, read caches and indexes share it: the keeper takes images away when they are of less use than caches,
 * or when an index comes to the end of what it may take.
 *
 * Space. There may be a limit on the number of files. Two files are kept in reserve for compaction, which could not
 * free space on a full disk without space, and some for deletes (keeper_deletes_reserve). Puts get what is beyond both,
 * deletes what is beyond compaction's. What comes back fills the reserves first.
 */
#ifndef KVS_ENGINE_KEEPER_H
#define KVS_ENGINE_KEEPER_H

#include "engine/backup.h"
#include "engine/engine_internal.h"
#include "engine/manifest.h"
#include "engine/name_sync.h"
#include "engine/relocation.h"
#include "engine/segment.h"
#include "engine/segment_maker.h"
#include "engine/value_sweep.h"
#include "engine/warmup.h"

struct checkpoint;
struct store;

enum { KEEPER_IMAGES_PER_LOG = 4 /* open, spare, one being left, one on its way out */ };
enum {
    KEEPER_RESERVE_FILES = 2,
    KEEPER_RESERVE_FROM = 4 /* sealed segments: before that there is nothing to compact */
};

/* A segment on its way out; see relocation.c. */
struct retirement {
    struct segment *segment; /* NULL: none under way */
    uint64_t serial;         /* every shard has to acknowledge it */
    bool entered;            /* the manifest has been told */
    uint64_t ticket;
};

/* The removal of a file that is not needed any more. */
enum trim_state { TRIM_IDLE, TRIM_UNLINK, TRIM_SYNC_DIR };

struct keeper {
    struct engine_background base; /* first */
    struct store *store;
    _Atomic(struct ring *) ring; /* NULL until started */
    bool prepared, stopping;
    struct manifest *manifest;
    struct image_pool images;
    uint32_t images_min;   /* what logs need, however large the caches are */
    uint32_t cache_grants; /* images whose memory went to the caches */
    struct warmup warmup;
    struct value_sweep sweep;
    uint32_t uid_counter;
    struct segment_maker makers[KVS_SHARDS_MAX]; /* one for each log */
    struct segment_maker relocation_maker;
    struct list free; /* FREE segments */
    uint32_t free_count;
    struct list held;     /* those that a backup still wants */
    struct list given_up; /* those that are to be removed, for they are not the store's alone */
    struct backup *backup;
    struct list unsealed; /* segments that logs have, or that are sealed but not in the manifest as such, in order */
    uint32_t sealed_count;
    uint64_t seals, ends; /* segments that were sealed, and given up, since the start */
    /* Of each stream of this boot: it tells how far the stream is sealed, and is not given up meanwhile. */
    const struct segment *newest_sealed[KVS_SHARDS_MAX];
    uint64_t files_max; /* within the limit on disk space, if there were no value files; 0 = no limit */

    bool puts_shut; /* some logs have segments in which puts have no place */
    enum relocation_hope hope;
    uint64_t looks_in_vain; /* of compaction at a store that lacks space */
    /* Of deletes that wait: how many looks there had been when no file was found for them; UINT64_MAX = none wait. */
    uint64_t deletes_asked[KVS_SHARDS_MAX];

    bool output_wanted;   /* compaction waits for a segment */
    struct list retiring; /* RETIRED segments that wait for their turn */
    struct retirement retirement;
    struct relocation_work *work; /* of relocation.c */
    struct checkpoint *checkpoint;
    struct snapshot_writer *snapshot; /* in a stop */
    bool snapshot_ended;

    /* What others may look at, as of the keeper's latest turn, or of compaction's latest census. */
    struct {
        _Atomic uint64_t live_bytes;
        _Atomic uint32_t free_count, sealed_count;
        _Atomic bool failed; /* the manifest has, and its text for that is there and stays */
    } figures;

    enum trim_state trim;
    struct segment *trimmed;
    uint64_t trimmed_for; /* the manifest's attempt that has got a file's space last */
    char trimmed_name[SEGMENT_NAME_BYTES];
    struct ring_op trim_io;
    struct name_change trim_name;
};

static inline struct keeper *keeper_of(struct engine_background *background)
{
    return container_of(background, struct keeper, base);
}

/* At start-up: an empty keeper, and what recovery has found. */
enum kvs_err keeper_open(struct keeper *keeper, struct store *store, uint32_t images_max);
void keeper_add_free(struct keeper *keeper, struct segment *segment);
/* Its file has other names than that in the data directory, or not even that one: it must not be written in. */
bool keeper_shared(struct ring *ring, const struct segment *segment);
void keeper_watch(struct keeper *keeper, struct segment *segment);
/* The last of that, before any shard starts: they look at what makers say. */
enum kvs_err keeper_prepare(struct keeper *keeper);
/* After its thread has ended. */
void keeper_close(struct keeper *keeper, struct ring *ring);

/* While running: a segment is free now, or its file will be removed. */
void keeper_take_back(struct keeper *keeper, struct segment *segment);

void keeper_start(struct keeper *keeper, struct ring *ring);
void keeper_turn(struct keeper *keeper);
int64_t keeper_timeout_ns(const struct keeper *keeper);
/* Comes to its end when all logs have stopped, for the last run is made of what they have written. */
void keeper_stop(struct keeper *keeper);
/* In a stop, when all logs have stopped: what they were writing in is whole. */
void keeper_end_logs(struct keeper *keeper);
bool keeper_stopped(const struct keeper *keeper);

/* Wakes the background thread from a shard's, once it has started. */
void keeper_wake(const struct keeper *keeper, struct ring *from);

/* The manifest's entry for a sealed segment. */
struct manifest_entry keeper_sealed_entry(const struct segment *segment);

/* RAM that all read caches together may get in the end. */
uint64_t keeper_cache_limit(const struct keeper *keeper);
/* Free files that puts do not get, as far as they are there, and files that should be there but are not. */
uint32_t keeper_reserved(const struct keeper *keeper);
uint32_t keeper_reserve_lacks(const struct keeper *keeper);
/*
 * Of these, files for deletes. A delete that is committed alone takes a block, so that a segment of them is nearly all
 * padding, and rewriting it gives nearly all of it back. But a log holds on to two segments, the open one and its
 * newest sealed one; so two for each log, one to go on in, and one that compaction gathers the deletes in: then
 * compaction always has something to gain when a log needs the next one. Besides, deletes of small values give back
 * less than they take for a while, and take some of all segments.
 */
uint32_t keeper_deletes_reserve(const struct keeper *keeper);
/* Files that there may be beside the value files; 0 = no limit. */
uint64_t keeper_files_max(const struct keeper *keeper);
/* Files that may still be made within the limit. */
uint64_t keeper_addable(const struct keeper *keeper);

#endif
