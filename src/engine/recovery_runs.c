/*
 * recovery_runs.c - the sorted runs that a start finds, and those that it makes itself.
 *
 * A run counts for a segment that is sealed by the manifest, in the very life that the run has seen and with the same
 * counts, and for a log's tail as far as the run has seen it. Of several runs that cover a segment the latest counts,
 * for that segment. All runs list the newest record of each key among what they cover: so whatever is not listed, or
 * lies in a segment that is gone, is not the newest, or stands elsewhere.
 *
 * Failure modes: a run that cannot be opened, or is damaged anywhere, is none. What it covered is read, and its file
 * removed once the start has succeeded.
 */
#include "engine/recovery_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/checkpoint.h"
#include "engine/run_collect.h"
#include "engine/run_writer.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- files ----------------------------------------------------------------------------------------------------- */

struct listing {
    struct recovery *recovery;
    uint64_t *sequences;
    size_t count, capacity;
};

static void unlink_run(const struct recovery *recovery, uint64_t sequence, const char *suffix)
{
    const struct store *store = recovery->store;
    char name[RUN_NAME_BYTES];
    run_name(name, sequence, suffix);
    struct ring_op op;
    blocking_init(&op);
    ring_file_unlink(recovery->ring, &op, store->base.dir_fd, name);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK && op.error != KVS_ERR_NOT_FOUND)
        diag_warn("cannot remove %s/%s, which is of no use: %s", store->base.data_dir, name, ring_op_text(&op));
}

static void list_run(void *context, const char *name)
{
    struct listing *listing = context;
    struct recovery *recovery = listing->recovery;
    uint64_t sequence;
    bool unfinished;
    if (!run_name_parse(name, &sequence, &unfinished) || recovery->err != KVS_ERR_OK)
        return;
    checkpoint_seen(recovery->store->keeper.checkpoint, sequence);
    recovery->err =
        array_grow((void **)&listing->sequences, listing->count, &listing->capacity, sizeof *listing->sequences);
    /* An unfinished one is told from the others by a sequence that none can have. */
    if (recovery->err == KVS_ERR_OK)
        listing->sequences[listing->count++] = unfinished ? sequence | 1ull << 63 : sequence;
}

static int latest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* ---- coverage -------------------------------------------------------------------------------------------------- */

/* Indexes of recovery->found by number of segment; SIZE_MAX: none. */
static size_t *index_found(const struct recovery *recovery, uint32_t *count)
{
    *count = atomic_load(&recovery->store->segments.next);
    size_t *by_number = malloc((*count + 1) * sizeof *by_number);
    if (by_number == NULL)
        return NULL;
    for (uint32_t i = 0; i < *count; i++)
        by_number[i] = SIZE_MAX;
    for (size_t i = 0; i < recovery->found_count; i++)
        by_number[recovery->found[i].number] = i;
    return by_number;
}

static bool counts_for(const struct run_segment *covered, const struct found_segment *found)
{
    if (!found->known || found->segment == NULL || covered->uid != found->entry.uid)
        return canary_on(CANARY_RUN_OF_EARLIER_LIFE) && found->known && found_role(found) == FOUND_SEALED;
    if (found_role(found) == FOUND_SEALED)
        return recovery_run_counts(covered, &found->entry);
    return found_role(found) == FOUND_LOG;
}

static void cover(struct recovery *recovery, struct found_run *run, const size_t *by_number, uint32_t number_count)
{
    for (uint32_t i = 0; i < run->run->segment_count; i++) {
        const struct run_segment *covered = &run->run->segments[i];
        if (covered->number >= number_count || by_number[covered->number] == SIZE_MAX)
            continue;
        struct found_segment *found = &recovery->found[by_number[covered->number]];
        if (found->covered != NULL || !counts_for(covered, found))
            continue;
        found->covered = covered;
        found->run = run->run->sequence;
        run->counts[covered->number] = 1;
    }
}

void recovery_uncover(const struct recovery *recovery, struct found_segment *found)
{
    if (found->covered == NULL)
        return;
    for (size_t i = 0; i < recovery->run_count; i++) {
        if (recovery->runs[i].run->sequence == found->run)
            recovery->runs[i].counts[found->number] = 0;
    }
    found->covered = NULL;
    found->run = 0;
}

/* Opens a run and adds it to the list. One that cannot be opened is told of, and no error. */
static enum kvs_err open_run(struct recovery *recovery, uint64_t sequence, bool spilled)
{
    const struct store *store = recovery->store;
    enum kvs_err err =
        array_grow((void **)&recovery->runs, recovery->run_count, &recovery->run_capacity, sizeof *recovery->runs);
    if (err != KVS_ERR_OK)
        return err;
    const struct run_open_options options = {.ring = recovery->ring,
                                             .dir_fd = store->base.dir_fd,
                                             .dir_name = store->base.data_dir,
                                             .store_uuid = store->base.superblock.uuid,
                                             .sequence = sequence,
                                             .direct = store->direct};
    struct found_run found = {.spilled = spilled};
    char message[ENGINE_MESSAGE_BYTES];
    err = run_open(&found.run, &options, message);
    if (err == KVS_ERR_NO_MEMORY)
        return err;
    if (err != KVS_ERR_OK) {
        diag_warn("%s; it is thrown away, the segments it covered are read instead", message);
        unlink_run(recovery, sequence, "");
        return KVS_ERR_OK;
    }
    found.counts = calloc(atomic_load(&store->segments.next) + 1, 1);
    if (found.counts == NULL) {
        run_close(found.run, recovery->ring);
        return KVS_ERR_NO_MEMORY;
    }
    recovery->runs[recovery->run_count++] = found;
    if (found.run->time_ms > recovery->time_ms)
        recovery->time_ms = found.run->time_ms;
    return KVS_ERR_OK;
}

static enum kvs_err open_all(struct recovery *recovery, const struct listing *listing)
{
    enum kvs_err err = KVS_ERR_OK;
    for (size_t i = 0; err == KVS_ERR_OK && i < listing->count; i++) {
        uint64_t sequence = listing->sequences[i];
        if (sequence >> 63 != 0)
            unlink_run(recovery, sequence & ~(1ull << 63), ".new");
        else
            err = open_run(recovery, sequence, false);
    }
    uint32_t number_count;
    size_t *by_number = index_found(recovery, &number_count);
    if (by_number == NULL)
        return KVS_ERR_NO_MEMORY;
    for (size_t i = 0; i < recovery->run_count; i++)
        cover(recovery, &recovery->runs[i], by_number, number_count);
    free(by_number);
    return err;
}

enum kvs_err recovery_find_runs(struct recovery *recovery)
{
    const struct store *store = recovery->store;
    struct listing listing = {.recovery = recovery};
    enum kvs_err err = ring_dir_list(recovery->ring, store->base.dir_fd, list_run, &listing);
    if (err == KVS_ERR_OK)
        err = recovery->err;
    if (err == KVS_ERR_OK && listing.count > 0) {
        qsort(listing.sequences, listing.count, sizeof *listing.sequences, latest_first);
        err = open_all(recovery, &listing);
    }
    free(listing.sequences);
    recovery->spill_sequence = checkpoint_sequence(store->keeper.checkpoint);
    checkpoint_seen(store->keeper.checkpoint, recovery->spill_sequence + recovery->found_count);
    return err;
}

/* ---- bad ones -------------------------------------------------------------------------------------------------- */

/* Back to what it was before it was loaded. */
static void unload(struct recovery *recovery, struct found_segment *found)
{
    recovery_uncover(recovery, found);
    if (!found->loaded)
        return;
    found->loaded = false;
    segment_set_state(found->segment, SEGMENT_FREE);
}

static void close_one(struct recovery *recovery, struct found_run *run)
{
    run_close(run->run, recovery->ring);
    free(run->counts);
}

void recovery_drop_bad_runs(struct recovery *recovery)
{
    size_t kept = 0;
    for (size_t i = 0; i < recovery->run_count; i++) {
        struct found_run *run = &recovery->runs[i];
        if (!atomic_load(&run->bad))
            continue;
        for (size_t f = 0; f < recovery->found_count; f++) {
            struct found_segment *found = &recovery->found[f];
            if (found->run != run->run->sequence)
                continue;
            found->unspillable = run->spilled;
            unload(recovery, found);
        }
    }
    for (size_t i = 0; i < recovery->run_count; i++) {
        struct found_run *run = &recovery->runs[i];
        if (!atomic_load(&run->bad)) {
            recovery->runs[kept++] = *run;
            continue;
        }
        uint64_t sequence = run->run->sequence;
        close_one(recovery, run);
        unlink_run(recovery, sequence, "");
    }
    recovery->run_count = kept;
}

/* ---- spilling -------------------------------------------------------------------------------------------------- */

/* Turns the ring until the run is there, or cannot be. */
static enum kvs_err write_run(struct recovery_worker *worker, struct run_writer *writer,
                              const struct found_segment *found)
{
    for (size_t done = 0; done < found->entry_count && run_writer_state(writer) == KVS_ERR_AGAIN;) {
        size_t taken = run_writer_put(writer, found->entries + done, found->entry_count - done);
        done += taken;
        if (taken == 0)
            ring_turn(worker->ring, -1);
    }
    if (run_writer_state(writer) == KVS_ERR_AGAIN) {
        struct run_segment segment = run_describe(found->segment);
        run_writer_finish(writer, &segment, 1);
    }
    while (run_writer_state(writer) == KVS_ERR_AGAIN)
        ring_turn(worker->ring, -1);
    return run_writer_state(writer);
}

void recovery_spill(struct recovery_worker *worker, struct found_segment *found)
{
    const struct recovery *recovery = worker->recovery;
    const struct store *store = recovery->store;
    found->unspillable = true;
    uint64_t sequence = recovery->spill_sequence + (uint64_t)(found - recovery->found);
    /* Its name is synced with all others before the start ends (settle_names in recovery.c). */
    const struct run_writer_options options = {.ring = worker->ring,
                                               .dir_fd = store->base.dir_fd,
                                               .dir_name = store->base.data_dir,
                                               .store_uuid = store->base.superblock.uuid,
                                               .sequence = sequence,
                                               .time_ms = worker->time_ms,
                                               .direct = store->direct};
    struct run_writer *writer;
    if (run_writer_open(&writer, &options) != KVS_ERR_OK)
        return;
    if (write_run(worker, writer, found) == KVS_ERR_OK) {
        free(found->entries);
        found->entries = NULL;
        found->entry_count = 0;
        found->run = sequence;
    } else {
        diag_warn("%s; the start goes on with what memory there is", run_writer_failure_text(writer));
    }
    run_writer_close(writer, worker->ring);
}

/* One that cannot be read again is as if it had not been written. */
enum kvs_err recovery_adopt_spilled(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct found_segment *found = &recovery->found[i];
        if (found->run == 0 || found->covered != NULL)
            continue;
        size_t before = recovery->run_count;
        enum kvs_err err = open_run(recovery, found->run, true);
        if (err != KVS_ERR_OK)
            return err;
        if (recovery->run_count == before) {
            found->run = 0;
            unload(recovery, found);
            continue;
        }
        struct found_run *run = &recovery->runs[before];
        found->covered = &run->run->segments[0];
        run->counts[found->number] = 1;
    }
    return KVS_ERR_OK;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static bool of_use(const struct recovery *recovery, const struct found_run *run)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        if (recovery->found[i].run == run->run->sequence)
            return true;
    }
    return false;
}

enum kvs_err recovery_keep_runs(struct recovery *recovery)
{
    struct store *store = recovery->store;
    while (recovery->run_count > 0) {
        struct found_run *run = &recovery->runs[recovery->run_count - 1];
        uint64_t sequence = run->run->sequence;
        if (of_use(recovery, run)) {
            enum kvs_err err = checkpoint_adopt(store->keeper.checkpoint, run->run);
            if (err != KVS_ERR_OK)
                return err;
            free(run->counts);
        } else {
            close_one(recovery, run);
            unlink_run(recovery, sequence, "");
        }
        recovery->run_count--;
    }
    for (size_t i = 0; i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        if (found->segment != NULL && segment_state(found->segment) == SEGMENT_SEALED)
            found->segment->run = found->run;
    }
    return KVS_ERR_OK;
}

void recovery_close_runs(struct recovery *recovery, bool remove)
{
    for (size_t i = 0; i < recovery->run_count; i++) {
        struct found_run *run = &recovery->runs[i];
        uint64_t sequence = run->run->sequence;
        bool made_here = run->spilled;
        close_one(recovery, run);
        if (remove && made_here)
            unlink_run(recovery, sequence, "");
    }
    free(recovery->runs);
    recovery->runs = NULL;
    recovery->run_count = 0;
}
