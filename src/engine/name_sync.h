/*
 * name_sync.h - makes changes of names in one directory durable, for all who make them.
 *
 *   name_change_begin ──► rename, unlink, … ──► name_change_sync ──► done: durable, or maybe lost
 *
 * Why not everybody by himself: a sync that fails may leave the names it was to cover marked as clean, so that a later
 * one succeeds without them, and the kernel tells it to one of those who wait. So at most one sync of a directory is in
 * flight. Whoever asks while none is has his ring do it at once; those who ask meanwhile share the next one, for what
 * they have changed may have come too late for the one in flight. A failure is everybody's who began to change a name
 * before it was known: none of them may believe in his name, whatever becomes of later syncs. Names that are changed
 * after it are new to the kernel, and the next sync is to be trusted with them.
 *
 * Threads: any, each with a ring of its own; there is no lock. `done` is called on the thread that has asked: from
 * within its ring_turn, or, if another thread's ring has done the sync, by name_change_collect, which the thread calls
 * once a turn as long as it waits, and for which it is woken. Never before name_change_sync has returned.
 *
 * Ownership: both structures are the caller's. A change that was asked for stays until `done`. A name_sync outlives the
 * changes, and a thread keeps its ring open while it is at work on it (name_sync_at_work): others may wait.
 */
#ifndef KVS_ENGINE_NAME_SYNC_H
#define KVS_ENGINE_NAME_SYNC_H

#include "ring/ring.h"

#include <stdatomic.h>

enum { NAME_CHANGE_TEXT_BYTES = 128 };

/* Of a directory. */
struct name_sync {
    int dir_fd;                            /* the caller's */
    _Atomic(struct ring *) flyer;          /* whose ring has the sync in flight; NULL: none has */
    _Atomic(struct name_change *) waiting; /* for the next one, the latest first */
    _Atomic uint64_t failures;

    /* The flyer's. */
    struct ring_op io;
    struct name_change *covered; /* by the sync in flight */
};

/* Of one name, or of several. */
struct name_change {
    /* The result, in `done`. IO also when it was another's sync that has failed. */
    enum kvs_err error;
    char text[NAME_CHANGE_TEXT_BYTES]; /* the cause */

    /* Private. */
    struct name_sync *names;
    void (*done)(struct name_change *change);
    struct ring *ring;
    struct name_change *next;
    uint64_t failures;  /* that were known when it began */
    _Atomic bool ended; /* on another thread; `done` is still to be called */
};

void name_sync_init(struct name_sync *names, int dir_fd);

/* Before the name is changed: from now on a failure counts for it. */
void name_change_begin(struct name_change *change, struct name_sync *names);
/* The name has been changed: makes it durable. `ring` is the calling thread's. */
void name_change_sync(struct name_change *change, struct ring *ring, void (*done)(struct name_change *change));
/* Calls `done` if the sync has ended on another thread. */
void name_change_collect(struct name_change *change);

/* The sync in flight is this ring's. */
static inline bool name_sync_at_work(const struct name_sync *names, const struct ring *ring)
{
    return atomic_load(&names->flyer) == ring;
}

#endif
