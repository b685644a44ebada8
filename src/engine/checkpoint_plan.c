/*
 * checkpoint_plan.c - which runs are to be made.
 *
 * A review walks the table of segments once: what is sealed and not covered, and what each run covers still. It is due
 * when enough may have been sealed, or have gone, since the last one; so its price is spread over many segments.
 *
 *   - When more than checkpoint_uncovered_max is uncovered, the oldest segments are covered, one run for each, until it
 *     is half of that.
 *   - Runs that cover nothing any more are removed. Those that cover less than half of what they did are written anew,
 *     together.
 *   - Eight runs of like size become one. So an entry is written once for each power of eight between a segment's run
 *     and the whole: five times with ten thousand segments. And there are seven runs of each size at most.
 *
 * A run for each segment, rather than one for several at once: it takes no more memory than one segment's entries, and
 * the merges that follow are needed anyway.
 *
 * Nothing begins while a log lacks a segment: space on the disk is the logs' first.
 */
#include "base/assert.h"
#include "base/canary.h"
#include "engine/checkpoint_internal.h"

#include <stdlib.h>

enum {
    UNCOVERED_SEGMENTS_MIN = 4,
    UNCOVERED_SHARE = 8,     /* of the memory budget */
    GONE_SHARE = 8,          /* of the covered segments: so many have gone, and a review is due */
    SIZE_FACTOR = 8,         /* between runs of one class and the next */
    SIZE_FIRST = 512 * 1024, /* bytes: smaller ones are of class 0 */
    STOP_MEMORY_SHARE = 2,   /* of what may be uncovered, in bytes: for the entries of a run at a stop */
};
#define UNCOVERED_BYTES_MAX (256ull * 1024 * 1024)

uint64_t checkpoint_uncovered_max(const struct store *store)
{
    const uint64_t least = UNCOVERED_SEGMENTS_MIN * store->segments.segment_bytes;
    uint64_t most = store->base.options.memory_bytes / UNCOVERED_SHARE;
    most = most < UNCOVERED_BYTES_MAX ? most : UNCOVERED_BYTES_MAX;
    return most > least ? most : least;
}

/* ---- the review ------------------------------------------------------------------------------------------------ */

/* It is whole, the keeper has entered that in the manifest, and no run covers it, nor did one fail to. */
static bool wants_cover(const struct segment *segment)
{
    return segment_state(segment) == SEGMENT_SEALED && list_empty(&segment->keeper_link) && segment->run == 0 &&
           !segment->uncoverable;
}

static bool entered(const struct checkpoint *checkpoint, const struct segment *segment)
{
    return manifest_durable(checkpoint->store->keeper.manifest, segment->sealed_ticket) ||
           canary_on(CANARY_RUN_BEFORE_SEAL);
}

static void count_covered(struct checkpoint *checkpoint, const struct segment *segment)
{
    const enum segment_state state = segment_state(segment);
    if (segment->run == 0 || (state != SEGMENT_SEALED && state != SEGMENT_OPEN))
        return;
    struct held_run *held = checkpoint_find(checkpoint, segment->run);
    KVS_ASSERT(held != NULL && held->run != NULL);
    held->alive++;
    checkpoint->covered++;
}

/* Returns the oldest segment that wants a run. */
static const struct segment *review(struct checkpoint *checkpoint)
{
    const struct store *store = checkpoint->store;
    const struct keeper *keeper = &store->keeper;
    checkpoint->due = false;
    checkpoint->seals = keeper->seals;
    checkpoint->ends = keeper->ends;
    checkpoint->uncovered = checkpoint->wait_ticket = 0;
    checkpoint->covered = 0;
    for (size_t i = 0; i < checkpoint->run_count; i++)
        checkpoint->runs[i].alive = 0;
    const struct segment *oldest = NULL;
    const uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t number = 0; number < end; number++) {
        const struct segment *segment = segment_get(&store->segments, number);
        if (segment == NULL)
            continue;
        count_covered(checkpoint, segment);
        if (!wants_cover(segment))
            continue;
        checkpoint->uncovered += store->segments.segment_bytes;
        if (!entered(checkpoint, segment))
            checkpoint->wait_ticket = segment->sealed_ticket;
        else if (oldest == NULL || segment->uid < oldest->uid)
            oldest = segment;
    }
    return oldest;
}

static void drop_useless(struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->run_count; i++) {
        struct held_run *held = &checkpoint->runs[i];
        if (held->run != NULL && held->alive == 0 && !held->merging)
            checkpoint_drop(checkpoint, held);
    }
}

void plan_review(struct checkpoint *checkpoint)
{
    (void)review(checkpoint);
    drop_useless(checkpoint);
}

bool plan_due(const struct checkpoint *checkpoint)
{
    const struct store *store = checkpoint->store;
    const struct keeper *keeper = &store->keeper;
    if (checkpoint->due ||
        (checkpoint->wait_ticket != 0 && manifest_durable(keeper->manifest, checkpoint->wait_ticket)))
        return true;
    const uint64_t sealed = (keeper->seals - checkpoint->seals) * store->segments.segment_bytes;
    const uint64_t gone = keeper->ends - checkpoint->ends;
    return (sealed > 0 && checkpoint->uncovered + sealed > checkpoint_uncovered_max(store)) ||
           (gone > 0 && gone >= checkpoint->covered / GONE_SHARE);
}

bool plan_allowed(const struct checkpoint *checkpoint)
{
    struct keeper *keeper = &checkpoint->store->keeper;
    return !manifest_failed(keeper->manifest) && !relocation_short(&keeper->base);
}

/* ---- merges ---------------------------------------------------------------------------------------------------- */

static unsigned size_class(uint64_t bytes)
{
    unsigned size = 0;
    for (uint64_t limit = SIZE_FIRST; bytes >= limit && limit < UINT64_MAX / SIZE_FACTOR; limit *= SIZE_FACTOR)
        size++;
    return size;
}

static bool can_merge(const struct held_run *held)
{
    return held->run != NULL && held->alive > 0 && !held->merging;
}

static bool mostly_gone(const struct held_run *held)
{
    return can_merge(held) && held->alive < held->run->segment_count - held->alive;
}

/* The class of size that has enough runs for a merge, the smallest of them; false: there is none. */
static bool crowded_class(const struct checkpoint *checkpoint, unsigned *size)
{
    unsigned counts[64] = {0};
    for (size_t i = 0; i < checkpoint->run_count; i++)
        counts[size_class(checkpoint->runs[i].bytes)] += can_merge(&checkpoint->runs[i]);
    for (*size = 0; *size < ARRAY_COUNT(counts); ++*size) {
        if (counts[*size] >= CHECKPOINT_MERGE_MAX)
            return true;
    }
    return false;
}

/* Marks the runs that are to be merged; false: none are. */
static bool choose_merge(struct checkpoint *checkpoint)
{
    unsigned chosen = 0;
    for (size_t i = 0; i < checkpoint->run_count && chosen < CHECKPOINT_MERGE_MAX; i++) {
        struct held_run *held = &checkpoint->runs[i];
        held->merging = mostly_gone(held);
        chosen += held->merging;
    }
    unsigned size;
    if (chosen > 0 || !crowded_class(checkpoint, &size))
        return chosen > 0;
    for (size_t i = 0; i < checkpoint->run_count && chosen < CHECKPOINT_MERGE_MAX; i++) {
        struct held_run *held = &checkpoint->runs[i];
        held->merging = can_merge(held) && size_class(held->bytes) == size;
        chosen += held->merging;
    }
    return true;
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

static void begun(struct checkpoint *checkpoint, enum kvs_err err)
{
    if (err == KVS_ERR_OK)
        checkpoint->busy = true;
    else
        checkpoint_trouble(checkpoint, kvs_err_text(err));
}

void plan_turn(struct checkpoint *checkpoint)
{
    const uint64_t max = checkpoint_uncovered_max(checkpoint->store);
    const struct segment *oldest = review(checkpoint);
    drop_useless(checkpoint);
    if (checkpoint->uncovered > max)
        checkpoint->covering = true;
    else if (checkpoint->uncovered <= max / 2)
        checkpoint->covering = false;
    if (checkpoint->cover.state == COVER_IDLE && checkpoint->covering && oldest != NULL) {
        const struct cover_item item = {.number = oldest->number, .uid = oldest->uid};
        begun(checkpoint, cover_begin(checkpoint, &item, 1));
    }
    if (checkpoint->merging.state == MERGE_IDLE && choose_merge(checkpoint))
        begun(checkpoint, merge_begin(checkpoint));
}

/* ---- the stop -------------------------------------------------------------------------------------------------- */

struct rest {
    struct checkpoint *checkpoint;
    struct cover_item *items;
    uint32_t count, capacity;
    uint64_t memory; /* that is left for their entries */
    bool no_memory;
};

static void rest_add(struct rest *rest, const struct segment *segment)
{
    const uint64_t bytes = cover_bytes(segment);
    if (bytes > rest->memory && rest->count > 0)
        return;
    if (rest->count == rest->capacity) {
        const uint32_t larger = rest->capacity == 0 ? 64 : 2 * rest->capacity;
        struct cover_item *items = realloc(rest->items, larger * sizeof *items);
        if (items == NULL) {
            rest->no_memory = true;
            return;
        }
        rest->items = items;
        rest->capacity = larger;
    }
    rest->items[rest->count++] = (struct cover_item){.number = segment->number, .uid = segment->uid};
    rest->memory -= bytes < rest->memory ? bytes : rest->memory;
}

static bool is_tail(const struct store *store, const struct segment *segment)
{
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (store->shards[i]->log.open == segment)
            return true;
    }
    return false;
}

/* Of what was sealed before the stop, as much as its budget allows. */
static void rest_add_sealed(struct rest *rest, const struct segment *segment)
{
    const struct store *store = rest->checkpoint->store;
    const uint64_t segment_bytes = store->segments.segment_bytes;
    if (!wants_cover(segment) || !entered(rest->checkpoint, segment) || is_tail(store, segment) ||
        rest->checkpoint->stop_budget < segment_bytes)
        return;
    const uint32_t before = rest->count;
    rest_add(rest, segment);
    rest->checkpoint->stop_budget -= rest->count > before ? segment_bytes : 0;
}

/* What the logs were writing in, then what was sealed before. */
bool plan_rest(struct checkpoint *checkpoint)
{
    const struct store *store = checkpoint->store;
    struct rest rest = {.checkpoint = checkpoint, .memory = checkpoint_uncovered_max(store) / STOP_MEMORY_SHARE};
    for (unsigned i = 0; i < store->shard_count; i++) {
        const struct segment *tail = store->shards[i]->log.open;
        if (tail != NULL && wants_cover(tail) && entered(checkpoint, tail))
            rest_add(&rest, tail);
    }
    const uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t number = 0; number < end; number++) {
        const struct segment *segment = segment_get(&store->segments, number);
        if (segment != NULL)
            rest_add_sealed(&rest, segment);
    }
    enum kvs_err err = rest.no_memory ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    if (err == KVS_ERR_OK && rest.count > 0)
        err = cover_begin(checkpoint, rest.items, rest.count);
    free(rest.items);
    if (err != KVS_ERR_OK)
        checkpoint_trouble(checkpoint, kvs_err_text(err));
    else if (rest.count > 0)
        checkpoint->busy = true;
    return err == KVS_ERR_OK && rest.count > 0;
}
