/*
 * name_sync.c - one sync of a directory after the other, each for all who have asked before it begins.
 *
 *   waiting ──► flyer: covered ──► sync ──► done, or ended and woken ──► no flyer ──► the next, if anybody waits
 *
 * Happy path: a change is pushed on `waiting`; who finds no flyer becomes it, takes all that waits, and syncs. When
 * that has completed he tells them, gives the place up, and looks once more for those who have come meanwhile.
 *
 * Nobody is forgotten: he who asks first pushes and then looks for a flyer, the flyer first goes and then looks for who
 * waits. All of these are sequentially consistent, so that one of the two sees the other.
 *
 * Failure: it is counted, then those are told whom the sync was to cover, and those who wait. A change that began
 * before and asks later finds by the count that it may be lost. The flyer's thread goes on with the next sync, also
 * when it is for others alone.
 */
#include "engine/name_sync.h"

#include "base/assert.h"
#include "base/canary.h"

#include <stdio.h>

static void sync_done(struct ring_op *op);

void name_sync_init(struct name_sync *names, int dir_fd)
{
    *names = (struct name_sync){.dir_fd = dir_fd};
}

/* On `ring`, if nobody is at it and somebody waits. */
static void start(struct name_sync *names, struct ring *ring)
{
    while (atomic_load(&names->waiting) != NULL) {
        struct ring *none = NULL;
        if (!atomic_compare_exchange_strong(&names->flyer, &none, ring))
            return;
        names->covered = atomic_exchange(&names->waiting, NULL);
        if (names->covered != NULL) {
            ring_op_init(&names->io, sync_done);
            ring_file_sync(ring, &names->io, names->dir_fd);
            return;
        }
        atomic_store(&names->flyer, NULL); /* another flyer has been faster, and has gone again */
    }
}

/* Tells those in the list; `failed`: the sync, if it was theirs. A change is its owner's again, and may be gone, as
 * soon as it knows. */
static void tell(struct name_sync *names, struct name_change *list, struct ring *ring, const struct ring_op *failed)
{
    while (list != NULL) {
        struct name_change *change = list;
        struct ring *owner = change->ring;
        list = change->next;
        change->error = KVS_ERR_OK;
        if (failed != NULL) {
            change->error = failed->error;
            snprintf(change->text, sizeof change->text, "%s", ring_op_text(failed));
        } else if (atomic_load(&names->failures) != change->failures && !canary_on(CANARY_NAME_SYNC_NOT_TOLD)) {
            change->error = KVS_ERR_IO;
            snprintf(change->text, sizeof change->text,
                     "another sync of the directory has failed, and may have lost the name");
        }
        if (owner == ring) {
            change->done(change);
        } else {
            atomic_store_explicit(&change->ended, true, memory_order_release);
            ring_wake(ring, owner);
        }
    }
}

/* Takes what waits before it counts the failure: all of that began earlier. */
static void fail(struct name_sync *names, struct name_change *covered, struct ring *ring)
{
    struct name_change *late = NULL;
    if (!canary_on(CANARY_NAME_SYNC_NOT_TOLD))
        late = atomic_exchange(&names->waiting, NULL);
    atomic_fetch_add(&names->failures, 1);
    tell(names, covered, ring, &names->io);
    tell(names, late, ring, NULL);
}

static void sync_done(struct ring_op *op)
{
    struct name_sync *names = container_of(op, struct name_sync, io);
    struct ring *ring = atomic_load(&names->flyer);
    struct name_change *covered = names->covered;
    KVS_ASSERT(ring != NULL && covered != NULL);
    names->covered = NULL;
    if (op->error != KVS_ERR_OK && !canary_on(CANARY_NAME_SYNC_FAILURE_IGNORED))
        fail(names, covered, ring);
    else
        tell(names, covered, ring, NULL);
    if (canary_on(CANARY_NAME_SYNC_SHARED_LATE))
        tell(names, atomic_exchange(&names->waiting, NULL), ring, NULL);
    atomic_store(&names->flyer, NULL);
    start(names, ring);
}

void name_change_begin(struct name_change *change, struct name_sync *names)
{
    *change = (struct name_change){.names = names, .failures = atomic_load(&names->failures)};
}

void name_change_sync(struct name_change *change, struct ring *ring, void (*done)(struct name_change *change))
{
    struct name_sync *names = change->names;
    KVS_ASSERT(names != NULL && done != NULL && change->done == NULL);
    change->done = done;
    change->ring = ring;
    change->next = atomic_load(&names->waiting);
    while (!atomic_compare_exchange_weak(&names->waiting, &change->next, change))
        ;
    start(names, ring);
}

void name_change_collect(struct name_change *change)
{
    if (change->done == NULL || !atomic_load_explicit(&change->ended, memory_order_acquire))
        return;
    atomic_store_explicit(&change->ended, false, memory_order_relaxed);
    change->done(change);
}
