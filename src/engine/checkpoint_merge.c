/*
 * checkpoint_merge.c - a run from other runs:
 *
 *   readers of the sources ──► merge, without entries of segments that are gone ──► run (checkpoint_make.c)
 *
 * Happy path: at the beginning a table of bits is made for each source, which of its segments it covers still; entries
 * of others do not count. At the end the new run covers what the sources cover by then, and those are dropped, their
 * files removed.
 *
 * A segment that goes, meanwhile or later, leaves entries in the new run. They do no harm: they do not count. That an
 * older entry of the key has lost to such a one does none either: a segment is given up only when its live records have
 * been copied, and its deletes, too, while there is anything they hide. Of two copies of one record, though, a run has
 * to list the right one: see checkpoint_make.c.
 *
 * Failure: a source that is damaged is tried once more, and then dropped, so that its segments will be read again. Any
 * other error ends the merge, and the sources stay.
 */
#include "base/assert.h"
#include "engine/checkpoint_internal.h"

#include <stdlib.h>

enum { READS = 2, READ_BLOCKS = 1 }; /* of each source: a MiB for all */

static bool counts(void *context, unsigned source, const struct run_entry *entry)
{
    const struct merging *merging = &((const struct making *)context)->checkpoint->merging;
    const struct merge_source *from = &merging->sources[source];
    const uint32_t number = address_segment(run_entry_address(entry), merging->shift);
    if (number < from->first || number > from->last)
        return false;
    const uint32_t bit = number - from->first;
    return (from->alive[bit / 8] >> bit % 8 & 1) != 0;
}

static enum kvs_err source_open(struct checkpoint *checkpoint, struct merge_source *source)
{
    const struct run *run = source->run;
    KVS_ASSERT(run->segment_count > 0);
    source->first = run->segments[0].number;
    source->last = run->segments[run->segment_count - 1].number;
    source->alive = calloc((source->last - source->first) / 8 + 1, 1);
    if (source->alive == NULL)
        return KVS_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < run->segment_count; i++) {
        const uint32_t bit = run->segments[i].number - source->first;
        if (checkpoint_covered(checkpoint, run, &run->segments[i]) != NULL)
            source->alive[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
    const struct run_reader_options options = {
        .run = run, .ring = checkpoint->ring, .range = RUN_RANGE_ALL, .reads = READS, .read_blocks = READ_BLOCKS};
    return run_reader_open(&source->reader, &options);
}

/* By number; a segment is covered by one run only. */
static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct run_segment *)a)->number;
    uint32_t y = ((const struct run_segment *)b)->number;
    return (x > y) - (x < y);
}

static uint32_t covers(void *context, struct run_segment *out)
{
    const struct merging *merging = context;
    uint32_t count = 0;
    for (unsigned i = 0; i < merging->source_count; i++) {
        const struct run *run = merging->sources[i].run;
        for (uint32_t s = 0; s < run->segment_count; s++) {
            if (checkpoint_covered(merging->checkpoint, run, &run->segments[s]) != NULL)
                out[count++] = run->segments[s];
        }
    }
    qsort(out, count, sizeof *out, by_number);
    return count;
}

static const struct segment *segment_of(const void *context, uint32_t number)
{
    const struct merging *merging = context;
    for (unsigned i = 0; i < merging->source_count; i++) {
        const struct run *run = merging->sources[i].run;
        const struct run_segment *covered = run_segment_find(run, number);
        const struct segment *segment = covered == NULL ? NULL : checkpoint_covered(merging->checkpoint, run, covered);
        if (segment != NULL)
            return segment;
    }
    return NULL;
}

static enum kvs_err begin(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    struct run_source sources[CHECKPOINT_MERGE_MAX];
    uint32_t segments = 0;
    for (unsigned i = 0; i < merging->source_count; i++) {
        const enum kvs_err err = source_open(checkpoint, &merging->sources[i]);
        if (err != KVS_ERR_OK)
            return err;
        sources[i] = (struct run_source){.reader = merging->sources[i].reader};
        segments += merging->sources[i].run->segment_count;
    }
    const struct run_merge_options merge = {
        .sources = sources, .source_count = merging->source_count, .counts = counts};
    const struct making_options options = {
        .merge = &merge, .segments_max = segments, .covers = covers, .segment_of = segment_of, .context = merging};
    return making_begin(&merging->making, checkpoint, &options);
}

/* Closes all, when no source reads any more. */
static void end(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    bool idle = true;
    for (unsigned i = 0; i < merging->source_count; i++) {
        struct run_reader *reader = merging->sources[i].reader;
        if (reader == NULL)
            continue;
        if (merging->state != MERGE_ENDING)
            run_reader_stop(reader);
        idle = idle && run_reader_idle(reader);
    }
    merging->state = MERGE_ENDING;
    if (!idle)
        return;
    for (size_t i = 0; i < checkpoint->run_count; i++)
        checkpoint->runs[i].merging = false;
    merge_close(checkpoint, checkpoint->ring);
    checkpoint->due = checkpoint->busy = true;
}

enum kvs_err merge_begin(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    KVS_ASSERT(merging->state == MERGE_IDLE);
    enum kvs_err err = checkpoint_reserve(checkpoint);
    if (err != KVS_ERR_OK)
        return err;
    *merging = (struct merging){
        .state = MERGE_MAKE, .busy = true, .shift = checkpoint->store->segments.shift, .checkpoint = checkpoint};
    for (size_t i = 0; i < checkpoint->run_count; i++) {
        if (checkpoint->runs[i].merging)
            merging->sources[merging->source_count++].run = checkpoint->runs[i].run;
    }
    KVS_ASSERT(merging->source_count > 0);
    err = begin(checkpoint);
    if (err != KVS_ERR_OK)
        end(checkpoint);
    return err;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* The new run takes the place of its sources. */
static void take(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    struct making *making = &merging->making;
    for (uint32_t i = 0; i < making->segment_count; i++) {
        const struct run_segment *covered = &making->segments[i];
        struct segment *segment = checkpoint_segment(checkpoint, covered->number, covered->uid);
        bool still = false;
        for (unsigned s = 0; segment != NULL && s < merging->source_count; s++)
            still = still || segment->run == merging->sources[s].run->sequence;
        if (still)
            segment->run = making->sequence;
    }
    for (unsigned i = 0; i < merging->source_count; i++) {
        struct merge_source *source = &merging->sources[i];
        run_reader_close(source->reader);
        source->reader = NULL;
        checkpoint_drop(checkpoint, checkpoint_find(checkpoint, source->run->sequence));
    }
    checkpoint_made(checkpoint, making);
    making->run = NULL;
}

/* The source's segments will be read again, if it is damaged for good. */
static void source_failed(struct checkpoint *checkpoint, const struct merge_source *source, enum kvs_err err)
{
    struct held_run *held = checkpoint_find(checkpoint, source->run->sequence);
    if (err != KVS_ERR_CORRUPT || held->damaged++ == 0)
        return;
    for (uint32_t i = 0; i < source->run->segment_count; i++) {
        struct segment *segment = checkpoint_covered(checkpoint, source->run, &source->run->segments[i]);
        if (segment != NULL)
            segment->run = 0;
    }
}

static void made(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    struct making *making = &merging->making;
    const enum kvs_err err = making_turn(making);
    merging->busy = making->busy;
    if (err == KVS_ERR_AGAIN)
        return;
    if (err == KVS_ERR_OK) {
        take(checkpoint);
    } else if (making->state == MAKING_OPEN) {
        checkpoint_add(checkpoint, NULL, making->sequence);
        checkpoint_trouble(checkpoint, making->failure);
    } else if (making->merge_failed) {
        const struct merge_source *source = &merging->sources[run_merge_failed_source(making->merge)];
        checkpoint_trouble(checkpoint, run_reader_failure_text(source->reader));
        source_failed(checkpoint, source, err);
    } else if (making->unsure) {
        checkpoint_postpone(checkpoint);
    } else if (err != KVS_ERR_CANCELLED) {
        checkpoint_trouble(checkpoint, making->failure);
    }
    end(checkpoint);
}

void merge_turn(struct checkpoint *checkpoint)
{
    struct merging *merging = &checkpoint->merging;
    merging->busy = false;
    if (merging->state == MERGE_MAKE)
        made(checkpoint);
    else if (merging->state == MERGE_ENDING)
        end(checkpoint);
}

void merge_give_up(struct checkpoint *checkpoint)
{
    if (checkpoint->merging.state == MERGE_MAKE)
        making_give_up(&checkpoint->merging.making);
}

void merge_close(struct checkpoint *checkpoint, struct ring *ring)
{
    struct merging *merging = &checkpoint->merging;
    making_close(&merging->making, ring);
    for (unsigned i = 0; i < merging->source_count; i++) {
        run_reader_close(merging->sources[i].reader);
        free(merging->sources[i].alive);
    }
    *merging = (struct merging){.state = MERGE_IDLE};
}
