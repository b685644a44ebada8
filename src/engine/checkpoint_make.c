/*
 * checkpoint_make.c - a merge that goes into a writer:
 *
 *   merge ──► entries, a batch at a time ──► writer ──► whole, durable ──► opened
 *
 * Happy path: every turn moves some batches; when the merge has no more, whoever has begun it tells which segments the
 * run covers by then; when the writer is done the file is opened, so that only what could be read again is relied on.
 *
 * Failure: of a source, of the writer, of the opening. The first is kept; the writer removes its file. A file of this
 * sequence that is there already (an earlier start has left it): another sequence.
 */
#include "base/assert.h"
#include "base/canary.h"
#include "base/hash.h"
#include "engine/checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH_ENTRIES = 1024, BATCHES_PER_TURN = 16 };

static enum kvs_err writer_begin(struct making *making)
{
    const struct checkpoint *checkpoint = making->checkpoint;
    struct store *store = checkpoint->store;
    making->sequence = checkpoint_sequence(making->checkpoint);
    const struct run_writer_options options = {.ring = checkpoint->ring,
                                               .dir_fd = store->base.dir_fd,
                                               .dir_name = store->base.data_dir,
                                               .store_uuid = store->base.superblock.uuid,
                                               .sequence = making->sequence,
                                               .time_ms = wall_clock_now(&store->base.clock, checkpoint->ring),
                                               .direct = store->direct,
                                               .names = &store->names};
    return run_writer_open(&making->writer, &options);
}

/* ---- copies ---------------------------------------------------------------------------------------------------- */

/* What the index says of two copies of a put; false when it points at neither. */
static bool find_live(struct making *making, const struct run_entry *first, const struct run_entry *second,
                      bool *second_live)
{
    const struct store *store = making->checkpoint->store;
    const uint64_t hash = first->order;
    struct index_cursor cursor;
    struct index_entry entry;
    bool moving = false;
    index_find(store->shards[hash_shard(hash, store->shard_count)]->index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        *second_live = entry.address == run_entry_address(second);
        if (*second_live || entry.address == run_entry_address(first))
            return true;
        const struct segment *segment =
            segment_get(&store->segments, address_segment(entry.address, store->segments.shift));
        moving = moving || (segment->kind == SEGMENT_RELOCATED && segment_state(segment) == SEGMENT_OPEN);
    }
    making->unsure = making->unsure || moving;
    return false;
}

/*
 * Two copies of one record, in segments that are both there. Once the run lists one of them and covers the segments of
 * both, the listed one has to be that which stays, or another copy must be made when its segment is given up.
 *
 * Of a put that is the one that the index points at. When it points at neither, there is a newer record, and either
 * will do; unless compaction has copied one of them again, into a segment that is not sealed: then nothing can be said
 * yet. Of a delete it is the later copy: the earlier one's segment may be about to be given up because of it.
 */
static bool second_wins(void *context, const struct run_entry *first, const struct run_entry *second)
{
    struct making *making = context;
    const unsigned shift = making->checkpoint->store->segments.shift;
    const struct segment *a = making->segment_of(making->context, address_segment(run_entry_address(first), shift));
    const struct segment *b = making->segment_of(making->context, address_segment(run_entry_address(second), shift));
    if (a == NULL || b == NULL || canary_on(CANARY_RUN_OF_EITHER_COPY))
        return a == NULL;
    struct epoch_thread *thread = &making->checkpoint->store->keeper.base.thread;
    bool second_live = false;
    epoch_begin(thread);
    const bool known = !run_entry_is_delete(first) && find_live(making, first, second, &second_live);
    epoch_end(thread);
    return known ? second_live : b->uid > a->uid;
}

/* ---- the making ------------------------------------------------------------------------------------------------ */

enum kvs_err making_begin(struct making *making, struct checkpoint *checkpoint, const struct making_options *options)
{
    KVS_ASSERT(making->state == MAKING_IDLE);
    *making = (struct making){.checkpoint = checkpoint,
                              .covers = options->covers,
                              .segment_of = options->segment_of,
                              .context = options->context};
    struct run_merge_options merge = *options->merge;
    merge.second_wins = second_wins;
    merge.context = making;
    making->entries = malloc(BATCH_ENTRIES * sizeof *making->entries);
    making->segments = malloc((options->segments_max + 1u) * sizeof *making->segments);
    enum kvs_err err = making->entries == NULL || making->segments == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    if (err == KVS_ERR_OK)
        err = run_merge_open(&making->merge, &merge);
    if (err == KVS_ERR_OK)
        err = writer_begin(making);
    if (err == KVS_ERR_OK)
        making->state = MAKING_WRITE;
    else
        making_close(making, checkpoint->ring);
    return err;
}

static void fail(struct making *making, enum kvs_err error, const char *text)
{
    KVS_ASSERT(error != KVS_ERR_OK);
    if (making->error != KVS_ERR_OK)
        return;
    making->error = error;
    snprintf(making->failure, sizeof making->failure, "%s", text);
    making->state = MAKING_FINISH;
    run_writer_abort(making->writer);
}

void making_give_up(struct making *making)
{
    if (making->error != KVS_ERR_OK || making->state == MAKING_IDLE || making->state == MAKING_OPEN)
        return;
    if (run_writer_state(making->writer) != KVS_ERR_OK)
        fail(making, KVS_ERR_CANCELLED, kvs_err_text(KVS_ERR_CANCELLED));
}

/* All entries are in. */
static void finish(struct making *making)
{
    if (!making->merged)
        making->segment_count = making->covers(making->context, making->segments);
    making->merged = true;
    if (making->segment_count == 0) {
        fail(making, KVS_ERR_CANCELLED, kvs_err_text(KVS_ERR_CANCELLED));
        return;
    }
    run_writer_finish(making->writer, making->segments, making->segment_count);
    making->state = MAKING_FINISH;
}

/* Gets another batch. False: there is none now. */
static bool next_batch(struct making *making)
{
    making->at = making->count = 0;
    enum kvs_err err = run_merge_next(making->merge, making->entries, BATCH_ENTRIES, &making->count);
    if (making->unsure) {
        making_give_up(making);
        return false;
    }
    if (err == KVS_ERR_OK && making->count > 0)
        return true;
    if (err == KVS_ERR_OK) {
        finish(making);
    } else if (err != KVS_ERR_AGAIN) {
        making->merge_failed = true;
        fail(making, err, kvs_err_text(err));
    }
    return false;
}

static void pump(struct making *making)
{
    for (unsigned i = 0; i < BATCHES_PER_TURN; i++) {
        if (making->at == making->count && !next_batch(making))
            return;
        making->at += run_writer_put(making->writer, making->entries + making->at, making->count - making->at);
        if (making->at < making->count)
            return;
    }
    making->busy = true;
}

/* Another file has this sequence. Nothing was put into the writer yet: it has not got its file. */
static void another_sequence(struct making *making)
{
    KVS_ASSERT(run_writer_entries(making->writer) == 0);
    run_writer_close(making->writer, making->checkpoint->ring);
    making->writer = NULL;
    enum kvs_err err = writer_begin(making);
    if (err != KVS_ERR_OK) {
        making->error = err;
        snprintf(making->failure, sizeof making->failure, "%s", kvs_err_text(err));
        making->state = MAKING_FINISH;
    } else if (making->merged) {
        finish(making);
    }
}

static void open_begin(struct making *making)
{
    const struct checkpoint *checkpoint = making->checkpoint;
    const struct store *store = checkpoint->store;
    const struct run_open_options options = {.ring = checkpoint->ring,
                                             .dir_fd = store->base.dir_fd,
                                             .dir_name = store->base.data_dir,
                                             .store_uuid = store->base.superblock.uuid,
                                             .sequence = making->sequence,
                                             .direct = store->direct};
    making->state = MAKING_OPEN;
    making->error = run_open_begin(&making->run, &options);
    if (making->error != KVS_ERR_OK)
        snprintf(making->failure, sizeof making->failure, "%s", kvs_err_text(making->error));
}

enum kvs_err making_turn(struct making *making)
{
    KVS_ASSERT(making->state != MAKING_IDLE);
    making->busy = false;
    if (making->state == MAKING_WRITE)
        pump(making);
    if (making->state != MAKING_OPEN && making->writer != NULL) {
        enum kvs_err err = run_writer_state(making->writer);
        if (err == KVS_ERR_EXISTS && making->error == KVS_ERR_OK) {
            another_sequence(making);
            return KVS_ERR_AGAIN;
        }
        if (err != KVS_ERR_OK && err != KVS_ERR_AGAIN)
            fail(making, err, run_writer_failure_text(making->writer));
        if (err == KVS_ERR_OK)
            open_begin(making);
        else
            return err == KVS_ERR_AGAIN ? KVS_ERR_AGAIN : making->error;
    }
    if (making->run == NULL)
        return making->error;
    enum kvs_err err = run_state(making->run);
    if (err != KVS_ERR_OK && err != KVS_ERR_AGAIN)
        snprintf(making->failure, sizeof making->failure, "%s", run_failure_text(making->run));
    return err;
}

void making_close(struct making *making, struct ring *ring)
{
    run_merge_close(making->merge);
    run_writer_close(making->writer, ring);
    run_close(making->run, ring);
    free(making->entries);
    free(making->segments);
    *making = (struct making){.state = MAKING_IDLE};
}
