/*
 * epoch.h - epoch-based reclamation (ck_epoch), the reason why readers need no locks.
 *
 * A reader brackets its look at shared memory with epoch_begin and epoch_end. A writer that has unlinked something
 * hands it to epoch_defer; the callback that frees it runs, on the writer's thread, in an epoch_poll after every
 * section that could have seen it has ended. Sections are short: whatever waits (a disk read) must not be inside one.
 *
 * Each thread has one struct epoch_thread, registered once and never freed while any thread still uses the epoch.
 * Reference: K. Fraser, "Practical lock-freedom", 2004; Concurrency Kit, ck_epoch.
 */
#ifndef KVS_ENGINE_EPOCH_H
#define KVS_ENGINE_EPOCH_H

#include "base/canary.h"
#include "base/limits.h"
#include "base/tsan.h"

#include <ck_epoch.h>
#include <stdalign.h>

struct epoch {
    ck_epoch_t ck;
};

struct epoch_thread {
    alignas(KVS_CACHE_LINE_BYTES) ck_epoch_record_t record;
};

/* Embedded in what is freed later. */
struct epoch_entry;
typedef void epoch_free_fn(struct epoch_entry *entry);
struct epoch_entry {
    ck_epoch_entry_t ck; /* first */
    epoch_free_fn *free;
    void *epoch;
};

static inline void epoch_init(struct epoch *epoch)
{
    ck_epoch_init(&epoch->ck);
}

static inline void epoch_register(struct epoch *epoch, struct epoch_thread *thread)
{
    ck_epoch_register(&epoch->ck, &thread->record, NULL);
}

static inline void epoch_begin(struct epoch_thread *thread)
{
    ck_epoch_begin(&thread->record, NULL);
}

static inline void epoch_end(struct epoch_thread *thread)
{
    tsan_release(thread->record.global);
    ck_epoch_end(&thread->record, NULL);
}

static inline void epoch_free_entry(ck_epoch_entry_t *ck)
{
    struct epoch_entry *entry = (struct epoch_entry *)(void *)ck;
    tsan_acquire(entry->epoch);
    entry->free(entry);
}

static inline void epoch_defer(struct epoch_thread *thread, struct epoch_entry *entry, epoch_free_fn *free_entry)
{
    /* ck_epoch_call reads the current epoch, which must not happen before others can see that the entry was unlinked:
     * on x86, too, a load may overtake an earlier store. */
    ck_pr_fence_memory();
    entry->free = free_entry;
    entry->epoch = thread->record.global;
    if (canary_on(CANARY_EPOCH_IGNORED)) {
        free_entry(entry);
        return;
    }
    ck_epoch_call(&thread->record, &entry->ck, epoch_free_entry);
}

/* Frees what no section can see any more; never waits. Outside of any section of this thread. */
static inline void epoch_poll(struct epoch_thread *thread)
{
    if (thread->record.n_pending != 0)
        ck_epoch_poll(&thread->record);
}

/* Frees all that was deferred by this thread. Only when no other thread is in a section (start-up, close). */
static inline void epoch_drain(struct epoch_thread *thread)
{
    ck_epoch_barrier(&thread->record);
}

#endif
