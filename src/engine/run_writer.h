/*
 * run_writer.h - writes a run, streaming: entries go in as they come, in order, and memory stays at about 1 MiB, plus 8
 * bytes for each 64 KiB of entries and 96 for each segment.
 *
 * The file is made as NNNNNNNNNNNN.run.new, synced, renamed, and its directory synced, so that a run under its final
 * name is whole.
 *
 * Threads: one, that of the ring; nothing here waits. Whoever uses it turns the ring.
 *
 * Failure: the first error is kept (run_writer_state, run_writer_failure_text) and the unfinished file removed. A write
 * or sync is never repeated: try again with a new writer, later.
 */
#ifndef KVS_ENGINE_RUN_WRITER_H
#define KVS_ENGINE_RUN_WRITER_H

#include "engine/engine.h"
#include "engine/name_sync.h"
#include "engine/run_file.h"

struct run_writer;

struct run_writer_options {
    struct ring *ring;
    int dir_fd;
    const char *dir_name; /* for messages; the caller's, until the writer is closed */
    const uint8_t *store_uuid;
    uint64_t sequence; /* never used before in this store, or EXISTS: what is left of another run must not pass for a
                          part of this */
    uint64_t time_ms;  /* the store's (wall_clock.h) */
    bool direct;       /* O_DIRECT */
    /* Of the directory; the caller's, until the writer is closed. NULL: the caller syncs it himself later, or does
     * without: a crash before that may cost the run, no more. */
    struct name_sync *names;
};

/* Begins to make the file. NO_MEMORY; whatever else goes wrong is told by run_writer_state. */
enum kvs_err run_writer_open(struct run_writer **out, const struct run_writer_options *options);

/*
 * Takes entries, copying them, and returns how many: fewer than given, maybe none, when writes must complete first
 * (turn the ring, ask run_writer_state, go on), or when it has failed. Each entry must be above the one before it, by
 * order and check.
 */
size_t run_writer_put(struct run_writer *writer, const struct run_entry *entries, size_t count);

/* No more entries: completes the file. The covered segments, by rising number, are copied. NO_MEMORY counts as a
 * failure of the writer. */
void run_writer_finish(struct run_writer *writer, const struct run_segment *segments, uint32_t segment_count);

/* Gives up: the unfinished file is removed, the error becomes CANCELLED. No effect once it is done or has failed. */
void run_writer_abort(struct run_writer *writer);

/* AGAIN while there is something to do; OK: the run is there, durably (but see `names`); else what has failed, and
 * nothing is left. */
enum kvs_err run_writer_state(const struct run_writer *writer);
/* What failed, where. "" while nothing has. */
const char *run_writer_failure_text(const struct run_writer *writer);
/* Entries taken so far, and what the file takes when it is done. */
uint64_t run_writer_entries(const struct run_writer *writer);
uint64_t run_writer_bytes(const struct run_writer *writer);

/* When run_writer_state is not AGAIN, or its ring is closed (`ring`: any, to close the file on). NULL is allowed. */
void run_writer_close(struct run_writer *writer, struct ring *ring);

#endif
