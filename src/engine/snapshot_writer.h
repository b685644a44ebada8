/*
 * snapshot_writer.h - writes the snapshot of the indexes (snapshot_file.h) at the end of an orderly stop.
 *
 * Threads: one, that of the ring, the background's; nothing here waits. All logs have stopped, so that no owner changes
 * its index or its queue of what expires any more: they are read as they lie.
 *
 * Memory: 2 MiB, and the tables of the file, at most a 32nd of the store's budget; a store in which so much expires
 * that they would take more has no snapshot.
 *
 * Failure: the first error is kept, and the file removed. The next start takes longer then, no more.
 */
#ifndef KVS_ENGINE_SNAPSHOT_WRITER_H
#define KVS_ENGINE_SNAPSHOT_WRITER_H

#include "base/error.h"
#include "ring/ring.h"

#include <stdbool.h>

struct snapshot_writer;
struct store;

/* True when the indexes are all that there is to know: nothing has failed, is under way or unsettled. */
bool snapshot_possible(const struct store *store);

/* NO_MEMORY, also when the tables would take too much. */
enum kvs_err snapshot_writer_open(struct snapshot_writer **out, struct store *store, struct ring *ring);
/* AGAIN while there is something to do; OK: it is there; CANCELLED: an index was not fit for it; else what has failed.
 */
enum kvs_err snapshot_writer_state(const struct snapshot_writer *writer);
/* What failed. "" while nothing has. */
const char *snapshot_writer_failure_text(const struct snapshot_writer *writer);
/* When its state is not AGAIN, or its ring is closed. NULL is allowed. */
void snapshot_writer_close(struct snapshot_writer *writer, struct ring *ring);

#endif
