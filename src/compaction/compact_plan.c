/*
 * compact_plan.c - what to do next, and how fast.
 *
 * Deletes: one is needed as long as another segment may hold an older record of its key that an index would show if the
 * delete were gone. That is so for segments with dead puts, unless all their records are newer or they were copied
 * after the delete was executed. All of it comes down to one number for each victim: see shadow_lsn.
 *
 * Pace: reading is held to a rate that grows with the urgency of the plan and with the rate of appending, so that
 * compaction neither lags behind nor takes the disk from clients in one go.
 *
 * Failure: without memory for the figures of all segments there is no plan, and every delete is kept.
 */
#include "compaction/compactor_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

enum { PADDING_SHARE = 64 /* of a segment, for the headers and padding of chunks */ };
#define RATE_MAX        (2048.0 * 1024 * 1024)
#define RATE_MIN        (8.0 * 1024 * 1024)
#define APPENDED_FACTOR 4.0

/* ---- planning -------------------------------------------------------------------------------------------------- */

static bool is_spoiled(const struct compactor *compactor, uint32_t number)
{
    for (unsigned i = 0; i < compactor->spoiled_count; i++) {
        if (compactor->spoiled[i] == number)
            return true;
    }
    return false;
}

/* Leaves a segment alone from now on: it is damaged, or not what it should be. */
void compact_spoil(struct compactor *compactor, const struct segment *segment, uint32_t offset, const char *why)
{
    char text[COMPACT_MESSAGE_BYTES];
    snprintf(text, sizeof text, "segment %06u, offset %u: %s", segment->number, offset, why);
    diag_error("compaction leaves a segment as it is: %s", text);
    compact_note(&compactor->damage, text);
    compact_add(&compactor->stats.damaged_segments, 1);
    if (compactor->spoiled_count < COMPACT_SPOILED_MAX)
        compactor->spoiled[compactor->spoiled_count++] = segment->number;
}

/* All segments there are, into compactor->figures. 0: none, or no memory. */
static size_t take_census(struct compactor *compactor, struct relocation_space *space)
{
    for (;;) {
        size_t count = relocation_census(compactor->background, compactor->figures, compactor->figures_capacity, space);
        if (count <= compactor->figures_capacity)
            return count;
        size_t capacity = count + count / 2;
        struct relocation_figure *figures = realloc(compactor->figures, capacity * sizeof *figures);
        struct policy_segment *segments = realloc(compactor->segments, capacity * sizeof *segments);
        if (figures != NULL)
            compactor->figures = figures;
        if (segments != NULL)
            compactor->segments = segments;
        if (figures == NULL || segments == NULL)
            return 0;
        compactor->figures_capacity = capacity;
    }
}

/* Expired puts are like deletes. Which of those that expire are dead is not known, so their lowest LSN is not either.
 */
static struct policy_segment segment_of(const struct relocation_figure *figure)
{
    bool none = figure->deletes_last_lsn == 0;
    uint64_t last = figure->deletes_last_lsn;
    if (figure->expiring > 0 && figure->expiring_last_lsn > last)
        last = figure->expiring_last_lsn;
    return (struct policy_segment){
        .number = figure->number,
        .relocated = figure->relocated,
        .order = figure->uid,
        .live_bytes = figure->live_bytes,
        .deletes_bytes = figure->deletes_bytes,
        .puts = figure->puts,
        .dead_puts = figure->dead_puts,
        .record_bytes_max = figure->record_bytes_max,
        .min_lsn = figure->min_lsn,
        .last_lsn = figure->last_lsn,
        .begun_lsn = figure->begun_lsn,
        .deletes_min_lsn = none ? last : figure->deletes_min_lsn,
        .deletes_last_lsn = last,
    };
}

void compact_make_plan(struct compactor *compactor)
{
    struct relocation_space space;
    size_t count = take_census(compactor, &space);
    struct policy_store store = {.segment_bytes = space.segment_bytes - space.segment_bytes / PADDING_SHARE,
                                 .files = space.files - space.files_deletes, /* as if these were not there */
                                 .files_free = space.files_free,
                                 .files_addable = space.files_addable,
                                 .open = space.files_reserved - space.files_deletes,
                                 .open_min_lsn = UINT64_MAX};
    size_t sealed = 0;
    for (size_t i = 0; i < count; i++) {
        const struct relocation_figure *figure = &compactor->figures[i];
        store.live_bytes += figure->live_bytes;
        if (!figure->victim || is_spoiled(compactor, figure->number)) {
            store.open++;
            store.open_min_lsn = figure->min_lsn < store.open_min_lsn ? figure->min_lsn : store.open_min_lsn;
            continue;
        }
        compactor->segments[sealed++] = segment_of(figure);
    }
    struct policy_options options = {.space_percent = compactor->options.space_percent};
    policy_choose(&compactor->plan, compactor->segments, sealed, &store, &options);
    compactor->next_victim = 0;
    compactor->appended = space.bytes_appended;
    compactor->counted = relocation_counted(compactor->background);
    compactor->planned_ns = ring_now_ns(compactor->ring);
    compact_add(&compactor->stats.plans, compactor->plan.count > 0);
    compact_set_urgency(compactor, compactor->plan.count == 0 ? 0 : compactor->plan.urgency);
}

/* Deletes with an LSN up to this one hide nothing: see the file head. */
uint64_t compact_shadow_lsn(struct compactor *compactor)
{
    struct relocation_space space;
    uint64_t lsn = relocation_shown(compactor->background);
    size_t count = take_census(compactor, &space);
    if (count == 0 || canary_on(CANARY_DELETES_NEVER_KEPT))
        return canary_on(CANARY_DELETES_NEVER_KEPT) ? UINT64_MAX : 0;
    for (size_t i = 0; i < count; i++) {
        const struct relocation_figure *figure = &compactor->figures[i];
        if (figure->number == compactor->victim->number)
            continue;
        struct policy_segment segment = segment_of(figure);
        uint64_t from = policy_floor(&segment);
        lsn = from < lsn ? from : lsn;
    }
    const uint64_t flushed = relocation_flushed(compactor->background);
    return lsn > flushed ? lsn : flushed;
}

/* ---- pace ------------------------------------------------------------------------------------------------------ */

void compact_pace(struct compactor *compactor, uint64_t bytes)
{
    uint64_t now = ring_now_ns(compactor->ring);
    unsigned urgency = compactor->plan.urgency;
    if (urgency >= 100 || compactor->stopping) {
        compactor->paced_ns = now;
        return;
    }
    if (now - compactor->rate_ns > COMPACT_POLL_NS) {
        uint64_t appended = relocation_appended(compactor->background);
        double appending = (double)(appended - compactor->rate_appended) * 1e9 / (double)(now - compactor->rate_ns);
        double share = (double)urgency / 100.0;
        compactor->rate = RATE_MIN + RATE_MAX * share * share + appending * APPENDED_FACTOR * (0.25 + share);
        compactor->rate_ns = now;
        compactor->rate_appended = appended;
    }
    double rate = compactor->rate < RATE_MIN ? RATE_MIN : compactor->rate;
    uint64_t from = compactor->paced_ns > now ? compactor->paced_ns : now;
    compactor->paced_ns = from + (uint64_t)((double)bytes * 1e9 / rate);
}
