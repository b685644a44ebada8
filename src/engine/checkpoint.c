/*
 * checkpoint.c - the life of the runs of a store, the turn, and the stop.
 *
 * Happy path of a turn: the run that is made of a segment goes on, and so does the one that is made of others; when the
 * plan is due (checkpoint_plan.c) the next are begun. Both may be under way at once: a long merge must not let segments
 * wait. Files that are of no use any more are removed, one at a time. No sync of the directory follows: one that comes
 * back after a crash is found to be useless then.
 *
 * The stop: what is under way is given up → all logs have stopped → what they have sealed is entered in the manifest →
 * runs of all that is not covered, the segments that logs were writing in included (one run, as a rule; more when
 * memory does not suffice) → runs that have become useless are removed.
 *
 * Failure: a run that cannot be made is tried again after a pause, one second at first, a minute in the end. In a stop
 * it is the end. When the manifest has failed no runs are made any more.
 */
#include "engine/checkpoint.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/checkpoint_internal.h"

#include <stdlib.h>

enum { STOP_BUDGET_SHARE = 4 /* of what may be uncovered: a stop must not take long */ };
#define PAUSE_FIRST_NS 1000000000ull
#define PAUSE_MAX_NS   60000000000ull

enum kvs_err checkpoint_open(struct checkpoint **out, struct store *store)
{
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (checkpoint == NULL)
        return KVS_ERR_NO_MEMORY;
    checkpoint->store = store;
    *out = checkpoint;
    return KVS_ERR_OK;
}

void checkpoint_close(struct checkpoint *checkpoint, struct ring *ring)
{
    if (checkpoint == NULL)
        return;
    cover_close(checkpoint, ring);
    merge_close(checkpoint, ring);
    for (size_t i = 0; i < checkpoint->run_count; i++)
        run_close(checkpoint->runs[i].run, ring);
    free(checkpoint->runs);
    free(checkpoint);
}

/* ---- the runs there are ---------------------------------------------------------------------------------------- */

void checkpoint_seen(struct checkpoint *checkpoint, uint64_t sequence)
{
    if (sequence > checkpoint->sequence)
        checkpoint->sequence = sequence;
}

uint64_t checkpoint_sequence(struct checkpoint *checkpoint)
{
    return ++checkpoint->sequence;
}

static void publish(struct checkpoint *checkpoint)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->run_count; i++)
        bytes += checkpoint->runs[i].bytes;
    atomic_store_explicit(&checkpoint->figures.runs, checkpoint->run_count, memory_order_relaxed);
    atomic_store_explicit(&checkpoint->figures.run_bytes, bytes, memory_order_relaxed);
}

enum kvs_err checkpoint_reserve(struct checkpoint *checkpoint)
{
    /* Both that are under way, and one more. */
    if (checkpoint->run_count + 3 <= checkpoint->run_capacity)
        return KVS_ERR_OK;
    const size_t larger = checkpoint->run_capacity == 0 ? 64 : 2 * checkpoint->run_capacity;
    struct held_run *runs = realloc(checkpoint->runs, larger * sizeof *runs);
    if (runs == NULL)
        return KVS_ERR_NO_MEMORY;
    checkpoint->runs = runs;
    checkpoint->run_capacity = larger;
    return KVS_ERR_OK;
}

void checkpoint_add(struct checkpoint *checkpoint, struct run *run, uint64_t sequence)
{
    KVS_ASSERT(checkpoint->run_count < checkpoint->run_capacity);
    size_t at = checkpoint->run_count++;
    for (; at > 0 && checkpoint->runs[at - 1].sequence > sequence; at--)
        checkpoint->runs[at] = checkpoint->runs[at - 1];
    checkpoint->runs[at] =
        (struct held_run){.run = run, .sequence = sequence, .bytes = run == NULL ? 0 : run->layout.file_bytes};
    publish(checkpoint);
}

enum kvs_err checkpoint_adopt(struct checkpoint *checkpoint, struct run *run)
{
    KVS_ASSERT(run_state(run) == KVS_ERR_OK);
    enum kvs_err err = checkpoint_reserve(checkpoint);
    if (err != KVS_ERR_OK)
        return err;
    checkpoint_seen(checkpoint, run->sequence);
    checkpoint_add(checkpoint, run, run->sequence);
    return KVS_ERR_OK;
}

struct held_run *checkpoint_find(struct checkpoint *checkpoint, uint64_t sequence)
{
    size_t low = 0, high = checkpoint->run_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (checkpoint->runs[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < checkpoint->run_count && checkpoint->runs[low].sequence == sequence ? &checkpoint->runs[low] : NULL;
}

void checkpoint_each(const struct checkpoint *checkpoint, checkpoint_each_fn *each, void *context)
{
    for (size_t i = 0; i < checkpoint->run_count; i++) {
        if (checkpoint->runs[i].run != NULL)
            each(context, checkpoint->runs[i].run);
    }
}

void checkpoint_drop(struct checkpoint *checkpoint, struct held_run *held)
{
    run_close(held->run, checkpoint->ring);
    held->run = NULL;
}

struct segment *checkpoint_segment(const struct checkpoint *checkpoint, uint32_t number, uint64_t uid)
{
    struct segment *segment = segment_get(&checkpoint->store->segments, number);
    if (segment == NULL || (segment->uid != uid && !canary_on(CANARY_RUN_OF_ANOTHER_LIFE)))
        return NULL;
    const enum segment_state state = segment_state(segment);
    return state == SEGMENT_SEALED || state == SEGMENT_OPEN ? segment : NULL;
}

struct segment *checkpoint_covered(const struct checkpoint *checkpoint, const struct run *run,
                                   const struct run_segment *segment)
{
    struct segment *covered = checkpoint_segment(checkpoint, segment->number, segment->uid);
    return covered != NULL && covered->run == run->sequence ? covered : NULL;
}

/* ---- files that are of no use any more ------------------------------------------------------------------------- */

static void unlink_done(struct ring_op *op)
{
    struct checkpoint *checkpoint = container_of(op, struct checkpoint, unlink_io);
    checkpoint->unlinking = false;
    if (op->error != KVS_ERR_OK)
        diag_warn("cannot remove %s/%s, which is of no use any more: %s", checkpoint->store->base.data_dir,
                  checkpoint->unlinked_name, ring_op_text(op));
    struct held_run *held = checkpoint_find(checkpoint, checkpoint->unlinked);
    KVS_ASSERT(held != NULL && held->run == NULL);
    const size_t behind = checkpoint->run_count - (size_t)(held - checkpoint->runs) - 1;
    memmove(held, held + 1, behind * sizeof *held);
    checkpoint->run_count--;
    publish(checkpoint);
}

static void remove_files(struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->run_count && !checkpoint->unlinking; i++) {
        const struct held_run *held = &checkpoint->runs[i];
        if (held->run != NULL)
            continue;
        checkpoint->unlinking = true;
        checkpoint->unlinked = held->sequence;
        run_name(checkpoint->unlinked_name, held->sequence, "");
        ring_op_init(&checkpoint->unlink_io, unlink_done);
        ring_file_unlink(checkpoint->ring, &checkpoint->unlink_io, checkpoint->store->base.dir_fd,
                         checkpoint->unlinked_name);
    }
}

/* ---- success and failure --------------------------------------------------------------------------------------- */

static void add(_Atomic uint64_t *figure, uint64_t by)
{
    atomic_fetch_add_explicit(figure, by, memory_order_relaxed);
}

void checkpoint_made(struct checkpoint *checkpoint, const struct making *making)
{
    add(&checkpoint->figures.made, 1);
    add(&checkpoint->figures.bytes_written, making->run->layout.file_bytes);
    checkpoint_add(checkpoint, making->run, making->sequence);
    checkpoint->pause_ns = checkpoint->retry_ns = 0;
}

void checkpoint_trouble(struct checkpoint *checkpoint, const char *text)
{
    add(&checkpoint->figures.failed, 1);
    if (checkpoint->pause_ns == 0)
        diag_warn("cannot make a run, without which the next start takes longer: %s; it is tried again", text);
    checkpoint_postpone(checkpoint);
}

void checkpoint_postpone(struct checkpoint *checkpoint)
{
    checkpoint->stop_failed = checkpoint->stop >= STOP_COVER;
    checkpoint->pause_ns = checkpoint->pause_ns == 0                 ? PAUSE_FIRST_NS
                           : checkpoint->pause_ns > PAUSE_MAX_NS / 2 ? PAUSE_MAX_NS
                                                                     : 2 * checkpoint->pause_ns;
    checkpoint->retry_ns = ring_now_ns(checkpoint->ring) + checkpoint->pause_ns;
    checkpoint->due = true;
}

void checkpoint_stats(const struct checkpoint *checkpoint, struct checkpoint_stats *out)
{
    *out = (struct checkpoint_stats){
        .runs = atomic_load_explicit(&checkpoint->figures.runs, memory_order_relaxed),
        .run_bytes = atomic_load_explicit(&checkpoint->figures.run_bytes, memory_order_relaxed),
        .made = atomic_load_explicit(&checkpoint->figures.made, memory_order_relaxed),
        .bytes_written = atomic_load_explicit(&checkpoint->figures.bytes_written, memory_order_relaxed),
        .failed = atomic_load_explicit(&checkpoint->figures.failed, memory_order_relaxed),
    };
}

/* ---- the stop -------------------------------------------------------------------------------------------------- */

void checkpoint_stop(struct checkpoint *checkpoint)
{
    if (checkpoint->stop != STOP_NONE)
        return;
    checkpoint->stop = checkpoint->ring == NULL ? STOP_DONE : STOP_GIVING_UP;
    checkpoint->stop_budget = STOP_BUDGET_SHARE * checkpoint_uncovered_max(checkpoint->store);
    cover_give_up(checkpoint);
    merge_give_up(checkpoint);
    checkpoint->busy = true;
}

bool checkpoint_stopped(const struct checkpoint *checkpoint)
{
    return checkpoint->stop == STOP_DONE;
}

/* Shards that were never started have nothing to stop. */
static bool logs_stopped(const struct store *store)
{
    for (unsigned i = 0; i < store->shard_count; i++) {
        const struct store_shard *shard = store->shards[i];
        if (atomic_load_explicit(&shard->wake_ring, memory_order_acquire) != NULL &&
            !atomic_load_explicit(&shard->log_stopped, memory_order_acquire) && !canary_on(CANARY_RUN_BEFORE_LOGS_STOP))
            return false;
    }
    return true;
}

static enum stop_state stop_next(struct checkpoint *checkpoint)
{
    const struct manifest *manifest = checkpoint->store->keeper.manifest;
    switch (checkpoint->stop) {
    case STOP_GIVING_UP:
        if (checkpoint->cover.state != COVER_IDLE || checkpoint->merging.state != MERGE_IDLE || checkpoint->unlinking)
            return STOP_GIVING_UP;
        return STOP_LOGS;
    case STOP_LOGS:
        if (!logs_stopped(checkpoint->store))
            return STOP_LOGS;
        keeper_end_logs(&checkpoint->store->keeper);
        return STOP_ENTER;
    case STOP_ENTER:
        if (manifest_failed(manifest))
            return STOP_DONE;
        if (!manifest_idle(manifest) && !manifest_stuck(manifest))
            return STOP_ENTER;
        return STOP_COVER;
    case STOP_COVER:
        if (checkpoint->cover.state != COVER_IDLE || (!checkpoint->stop_failed && plan_rest(checkpoint)))
            return STOP_COVER;
        /* Without the last run an earlier one of the tails is better than none. */
        if (checkpoint->stop_failed)
            return STOP_DONE;
        plan_review(checkpoint);
        return STOP_REMOVE;
    case STOP_REMOVE:
        remove_files(checkpoint);
        return checkpoint->unlinking ? STOP_REMOVE : STOP_DONE;
    case STOP_NONE:
    case STOP_DONE:
        break;
    }
    return checkpoint->stop;
}

/* The keeper enters what has been sealed between two turns of this: so each state begins with a turn of its own. */
static void stop_turn(struct checkpoint *checkpoint)
{
    const enum stop_state next = stop_next(checkpoint);
    checkpoint->busy = checkpoint->busy || next != checkpoint->stop;
    checkpoint->stop = next;
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

void checkpoint_start(struct checkpoint *checkpoint, struct ring *ring)
{
    checkpoint->ring = ring;
    checkpoint->due = checkpoint->busy = true;
}

void checkpoint_turn(struct checkpoint *checkpoint)
{
    if (checkpoint->stop == STOP_DONE)
        return;
    checkpoint->busy = false;
    cover_turn(checkpoint);
    merge_turn(checkpoint);
    if (checkpoint->stop != STOP_NONE) {
        stop_turn(checkpoint);
    } else {
        if (plan_due(checkpoint) && plan_allowed(checkpoint) && ring_now_ns(checkpoint->ring) >= checkpoint->retry_ns)
            plan_turn(checkpoint);
        remove_files(checkpoint);
    }
    checkpoint->busy = checkpoint->busy || checkpoint->cover.busy || checkpoint->merging.busy;
}

int64_t checkpoint_timeout_ns(const struct checkpoint *checkpoint)
{
    if (checkpoint->ring == NULL || checkpoint->stop == STOP_DONE)
        return -1;
    if (checkpoint->busy)
        return 0;
    if (checkpoint->stop != STOP_NONE || checkpoint->retry_ns == 0 || !plan_due(checkpoint) ||
        !plan_allowed(checkpoint))
        return -1;
    const uint64_t now = ring_now_ns(checkpoint->ring);
    return checkpoint->retry_ns > now ? (int64_t)(checkpoint->retry_ns - now) : 0;
}
