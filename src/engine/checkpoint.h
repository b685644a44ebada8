/*
 * checkpoint.h - keeps the sorted runs of a store (run_file.h) up to date, so that a start need not read its segments.
 *
 * A run is made of sealed segments that none covers yet, when there are many of them, and of other runs, when there are
 * many of those or what they cover has mostly gone. An orderly stop covers everything, the segments that logs were
 * writing in included: then a start reads runs alone, and the last segments to write on in them.
 *
 * Part of the background work (keeper.h): its thread, its ring; nothing here waits, and no turn takes longer than some
 * milliseconds. Memory while runs are being made: one segment's entries, which take less than the segment does, four
 * megabytes, and as much as the largest record; at a stop the entries of several segments, as much as half of
 * checkpoint_uncovered_max.
 *
 * Failure: a run that cannot be made is given up and tried again later; nothing depends on it but the time of the next
 * start.
 */
#ifndef KVS_ENGINE_CHECKPOINT_H
#define KVS_ENGINE_CHECKPOINT_H

#include "base/error.h"
#include "engine/run_open.h"

struct checkpoint;
struct segment;
struct store;

/* Segment bytes, of sealed segments together, that a start may have to read: 256 MiB, or as much as an eighth of the
 * memory budget if that is less, but some segments in any case. */
uint64_t checkpoint_uncovered_max(const struct store *store);

/* At start-up, before the store is recovered. NO_MEMORY. */
enum kvs_err checkpoint_open(struct checkpoint **out, struct store *store);

/* What recovery has found: a file of this sequence is there, whatever is in it … */
void checkpoint_seen(struct checkpoint *checkpoint, uint64_t sequence);
/* … a new one, never used before in this store … */
uint64_t checkpoint_sequence(struct checkpoint *checkpoint);
/* … and one that is open and of use: it covers the segments whose segment->run is its sequence. It is the checkpoint's
 * from now on. NO_MEMORY: it stays the caller's. */
enum kvs_err checkpoint_adopt(struct checkpoint *checkpoint, struct run *run);

/* Frees everything; after the background's last turn, or at any time when its ring is gone. NULL is allowed. */
void checkpoint_close(struct checkpoint *checkpoint, struct ring *ring);

/* The background's ring, from now on. */
void checkpoint_start(struct checkpoint *checkpoint, struct ring *ring);
void checkpoint_turn(struct checkpoint *checkpoint);
/* Nanoseconds until the turn has something to do by itself; 0 = now; -1 = never. */
int64_t checkpoint_timeout_ns(const struct checkpoint *checkpoint);
/* Begins the last one, when all logs have stopped; whatever else is under way is given up. */
void checkpoint_stop(struct checkpoint *checkpoint);
/* Nothing is in flight any more, and the last one is made, or cannot be. */
bool checkpoint_stopped(const struct checkpoint *checkpoint);
/* A read of this segment's file is in flight: the file must neither be closed nor get another life. */
bool checkpoint_reads(const struct checkpoint *checkpoint, const struct segment *segment);

struct checkpoint_stats {
    uint64_t runs;          /* files */
    uint64_t run_bytes;     /* of all */
    uint64_t made;          /* since the start */
    uint64_t bytes_written; /* for those */
    uint64_t failed;        /* that were given up because of an error */
};
/* Any thread; each figure is exact or a moment old. */
void checkpoint_stats(const struct checkpoint *checkpoint, struct checkpoint_stats *out);

#endif
