/*
 * run_reader.h - reads the entries of a part of a run, in order, with several reads in flight.
 *
 * One design for start-up and for the background: run_reader_next never waits. It gives the next entries, or says
 * AGAIN, and then the caller turns the ring (waiting) and asks again. Reads leave with a turn of the ring, so a caller
 * that gets all its entries without an AGAIN turns it in between, without waiting.
 *
 * Threads: one, that of the ring. Several readers, on several rings, may share a struct run.
 *
 * Errors: CORRUPT for damage of any kind, or what the file system said; the reader stays in this state. Every block is
 * checked before an entry of it is shown, so what was given before the error was right.
 */
#ifndef KVS_ENGINE_RUN_READER_H
#define KVS_ENGINE_RUN_READER_H

#include "engine/run_open.h"

struct run_reader;

#define RUN_READS_MAX       8u
#define RUN_READ_BLOCKS_MAX 16u

struct run_reader_options {
    const struct run *run; /* run_state OK; stays open until the reader is closed */
    struct ring *ring;
    struct run_range range;
    unsigned reads;       /* in flight; 0 = 4 */
    unsigned read_blocks; /* of 64 KiB in each; 0 = 4. The product is what the reader takes of RAM, at most */
};

/* Starts the first reads. NO_MEMORY. */
enum kvs_err run_reader_open(struct run_reader **out, const struct run_reader_options *options);

struct run_span {
    const struct run_entry *at, *end;
};

/* OK with the next entries of the range, the reader's until the next call; OK with none (at == end): there are no more.
 * AGAIN: turn the ring. Else an error. */
enum kvs_err run_reader_next(struct run_reader *reader, struct run_span *span);

/* File, block and cause. "" while nothing has failed. */
const char *run_reader_failure_text(const struct run_reader *reader);

/* Asks for the end of what is in flight; no run_reader_next after it. Turn the ring until run_reader_idle. */
void run_reader_stop(struct run_reader *reader);
bool run_reader_idle(const struct run_reader *reader);
/* When it is idle, or its ring is closed. NULL is allowed. */
void run_reader_close(struct run_reader *reader);

#endif
