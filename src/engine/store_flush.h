/*
 * store_flush.h - all keys of a store go at once.
 *
 *   prepare: nothing under way, all durable ──► superblock: flushed_lsn ──► each shard: an empty index, LSNs above it
 *
 * From then on no record with an LSN up to flushed_lsn counts, whatever is left of it: not for a start, not for
 * kvs-check, and what compaction would keep only to hide older records it drops. Nothing else is written. The indexes
 * that were left are walked in the background, so that what they pointed at is counted as dead, and freed; then
 * compaction gives the segments back. Files of large values are swept as after a start.
 *
 * Threads: the steps of engine.h are the owners'; store_flush_turn, close and counted are the background's.
 */
#ifndef KVS_ENGINE_STORE_FLUSH_H
#define KVS_ENGINE_STORE_FLUSH_H

#include "engine/engine_internal.h"
#include "engine/left_index.h"

struct keeper;
struct store_shard;

enum store_flush_state { FLUSH_NONE, FLUSH_ASKED, FLUSH_DONE, FLUSH_FAILED };

/* Of the store. */
struct store_flush {
    uint64_t lsn;
    _Atomic(enum store_flush_state) state;
    struct superblock_update update;   /* the background's, with what follows */
    _Atomic(struct left_index *) left; /* from all shards */
    struct left_index *walked;         /* taken from there */
    _Atomic uint64_t counted;          /* indexes whose records were all counted as dead */
};

/* Of a shard. */
struct shard_flush {
    struct left_index *next; /* for the next flush, with an empty index */
    struct left_index *leaving;
};

enum kvs_err store_flush_prepare(struct engine_shard *base, uint64_t *lsn);
void store_flush_begin(struct engine_shard *base, uint64_t lsn);
enum kvs_err store_flush_state(const struct engine_shard *base, const char **text);
enum kvs_err store_flush_end(struct engine_shard *base);
/* Once per turn, after the epoch was polled. */
void store_flush_shard_turn(struct store_shard *shard);
/* When the epoch was drained. */
void store_flush_shard_close(struct store_shard *shard);

void store_flush_turn(struct keeper *keeper);
/* The turn should come again at once. */
bool store_flush_busy(const struct keeper *keeper);
/* Nothing is in flight. */
bool store_flush_idle(const struct keeper *keeper);
void store_flush_close(struct keeper *keeper, struct ring *ring);

#endif
