/*
 * log.h - one shard's log: appends records to the open segment's image and makes them durable in batches.
 *
 * Everything here is on the shard's thread, except log_durable. The log takes segments that are already prepared
 * (keeper.h); it always wants one spare.
 *
 * Group commit: records gather in the forming batch while an earlier one is being written; log_turn, once per turn of
 * the shard's loop, decides whether to write. Acknowledge only what log_durable covers: batches may complete out of
 * order, the durable LSN moves over the contiguous prefix.
 */
#ifndef KVS_ENGINE_LOG_H
#define KVS_ENGINE_LOG_H

#include "engine/segment.h"
#include "engine/wall_clock.h"
#include "ring/ring.h"

#include <stdatomic.h>

enum { LOG_COMMITS_MAX = 4, LOG_FAILURE_BYTES = 256 };

struct log;

/* A batch on its way to the disk. */
struct log_commit {
    struct ring_op io;
    struct log *log;
    struct segment *segment;
    uint32_t offset, bytes; /* in the segment, padding included */
    uint32_t records, deletes;
    uint64_t last_lsn;
    uint64_t reaches_lsn; /* when it is durable the log is, up to here: LSNs behind it that are left out included */
    uint64_t started_ns;
    uint64_t stamped_ms;
    bool syncing;
    bool done;
};

struct log_options {
    struct ring *ring;
    const struct segment_table *table;
    uint32_t stream;
    uint64_t epoch;
    uint64_t lsn_base;
    bool sync_after_write; /* no RWF_DSYNC with O_DIRECT here: write, then fdatasync */
    uint32_t relaxed_interval_ms;
    /* Called when a batch with delete records has become durable: its records lie in [offset, offset + bytes) of the
     * segment's image, behind the batch header. */
    void (*deletes_durable)(void *context, const struct segment *segment, uint32_t offset);
    /* Called when the segment that the log has left is whole and durable, and has become SEALED. */
    void (*segment_sealed)(void *context, struct segment *segment);
    void *context;
    const struct manifest *manifest; /* batches say how far it had come */
    struct wall_clock *clock;        /* … and what time it was */
};

struct log {
    struct log_options options;

    struct segment *open;
    uint8_t *image;
    uint32_t batch; /* where the forming batch begins */
    uint32_t tail;  /* where the next record goes; batch + 64 when there is none yet */
    uint32_t records, deletes;
    uint32_t flags; /* enum batch_flags of the forming batch: an empty one is written, too, when set */
    uint64_t next_lsn;
    uint64_t prev_lsn;   /* last one before the forming batch */
    bool wanted;         /* somebody waits for the forming batch */
    uint64_t relaxed_ns; /* when it has to be written though nobody waits; 0 = not at all */
    uint64_t stamped_ms; /* the time that the latest batch says … */
    uint64_t told_ms;    /* … and the latest durable one: a start goes on from there at the least */

    struct segment *closing; /* the one before `open`, while batches of it are in flight */
    struct segment *spare;

    struct log_commit commits[LOG_COMMITS_MAX];
    unsigned oldest, count;
    uint64_t jump_lsn; /* LSNs up to this one are to be left out when there is a segment */

    _Atomic uint64_t durable;
    _Atomic uint64_t written; /* the last LSN of the batches that are durable without a gap: less than `durable` behind
                                 a jump */
    _Atomic bool failed;      /* others read it for the figures */
    char failure[LOG_FAILURE_BYTES];

    _Atomic uint64_t total_records, total_bytes, total_batches, total_written, total_commit_ns;
};

void log_init(struct log *log, const struct log_options *options);

/* Opens the log at segment->end of a prepared segment, whose image is attached, by queueing a boot batch: when that is
 * durable (log_idle) the log is ready. */
void log_open(struct log *log, struct segment *segment);

/* Gives the log the segment, with its image, to go on in when the open one is full. */
void log_offer(struct log *log, struct segment *segment);

struct log_place {
    uint64_t address;
    uint64_t lsn;
    uint64_t bytes; /* the record's size in the log */
};

/* What is to be appended. */
struct log_entry {
    enum record_kind kind;
    unsigned flags;      /* enum record_flags, without EXPIRES */
    bool relaxed;        /* does not by itself make anybody wait for its batch */
    uint64_t expires_ms; /* of a put; 0 = never */
    struct slice key, value;
};

/*
 * Appends a record. OK: *place tells where, it can be read from the image at once, and it is durable once log_durable
 * has reached its LSN. AGAIN: no room until a spare segment comes or a commit ends. TOO_LARGE, FAILED: never.
 */
enum kvs_err log_append(struct log *log, const struct log_entry *entry, struct log_place *place);

/*
 * Appends records that become durable together, or not at all: all of them are in one batch. OK: places[i] tells of
 * entries[i]. AGAIN: as log_append, and nothing was done. TOO_LARGE: a segment cannot hold them all.
 */
enum kvs_err log_append_group(struct log *log, const struct log_entry *entries, size_t count, struct log_place *places);

/* The highest LSN so far, given or left out. */
static inline uint64_t log_lsn(const struct log *log)
{
    return log->next_lsn > log->jump_lsn ? log->next_lsn - 1 : log->jump_lsn;
}

/* Every later LSN is above this one, also if there is no segment to write in yet. AGAIN: what was appended before has
 * to be on its way first, and cannot be now. FAILED: there will be none, but log_lsn tells of this one. */
enum kvs_err log_jump(struct log *log, uint64_t lsn);

/* Takes back the record that the latest log_append has given, before anybody has seen it. */
void log_unappend(struct log *log, const struct log_place *place);

/* Somebody waits for this LSN: write it soon, relaxed or not. */
void log_want(struct log *log, uint64_t lsn);

/* A batch is to be written soon, be it an empty one: what is durable says then what time it is. */
void log_stamp(struct log *log);

/* Stops writing for good, because of something else than a write of the log's own. */
void log_give_up(struct log *log, const char *why);

/* Starts the commits that are due. */
void log_turn(struct log *log);
/* Nanoseconds until log_turn has something to do by itself; -1 = never. */
int64_t log_timeout_ns(const struct log *log);

/* Everything appended is to become durable, then a clean mark. No appends after this; done when log_idle. */
void log_stop(struct log *log);
/* Nothing forms and nothing is in flight, or the log has failed and nothing is in flight. */
bool log_idle(const struct log *log);

static inline uint64_t log_durable(const struct log *log)
{
    return atomic_load_explicit(&log->durable, memory_order_acquire);
}

static inline uint64_t log_written(const struct log *log)
{
    return atomic_load_explicit(&log->written, memory_order_acquire);
}

/* Where records of a segment end at the latest: its last block is kept for the empty batch that proves what stands
 * before it, when the log goes on elsewhere. */
static inline uint64_t log_end_max(const struct segment_table *table)
{
    return table->segment_bytes - KVS_BLOCK_BYTES;
}

/* What its record takes. */
uint64_t log_entry_bytes(const struct log_entry *entry);

/* Bytes that the largest record may take: one batch with it must fit into a segment. */
uint64_t log_record_bytes_max(const struct segment_table *table);

#endif
