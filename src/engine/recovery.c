/*
 * recovery.c - from the files of a data directory to indexes and open segments.
 *
 *   list the directory → open the runs → load what they do not cover → fill the indexes (or take
 *   them over from the last stop) → check that no stream has a
 *   gap → zero the torn tails → choose the segments to write on in → write the manifest → raise epoch and LSN base in
 *   the superblock
 *
 * Nothing is changed on disk before every segment was read as far as it has to be, and found sound, so a refused start
 * leaves the evidence as it was. (Runs may be added or removed: all that is in them is in the segments.) What has been
 * read from a tail may still have been on its way to the disk when the last run died; it is synced before anybody is
 * shown it.
 *
 * Failure modes: see the files named in recovery_internal.h. A torn tail is cut, logged and counted.
 */
#include "engine/recovery_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>

/* LSNs that are left out between two boots: more than what can have been in flight when the last one ended. So nothing
 * that reached the disk of it is ever taken for a record of a later boot, also where it was not found and cut. */
#define LSN_GAP (1ull << 28)

/* A tail is written on in when this share of it is free: half of what logs keep for deletes, which have to go on when
 * the start finds the disk full. */
enum { ADOPT_SHARE = 32 };

enum { ZEROS_BYTES = 128 * 1024 }; /* of a torn tail, written at once */

/* ---- the ends of what was being written ------------------------------------------------------------------------ */

static enum kvs_err write_blocking(struct recovery *recovery, const struct found_segment *found, const void *bytes,
                                   size_t size, uint64_t offset)
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_write(recovery->ring, &op, found->segment->fd, bytes, size, offset, 0);
    ring_await(recovery->ring, &op);
    if (op.error == KVS_ERR_OK) {
        blocking_sync(recovery->ring, &op, found->segment->fd);
    }
    if (op.error != KVS_ERR_OK)
        say(recovery, "cannot write segment %06u of %s: %s", found->number, recovery->store->base.data_dir,
            ring_op_text(&op));
    return op.error;
}

/* Zeroes what was torn, so that it can never be taken for anything again, and makes what stands before it durable. */
static enum kvs_err settle_tail(struct recovery *recovery, struct found_segment *found)
{
    struct store *store = recovery->store;
    uint64_t at = found->scan.end;
    uint64_t torn_end = at + found->scan.torn_bytes;
    if (found->scan.torn_bytes > 0) {
        diag_warn("segment %06u: cut a torn tail of %" PRIu64 " bytes at offset %u; it was never acknowledged",
                  found->number, found->scan.torn_bytes, found->scan.end);
        store->base.recovery.cut_bytes += found->scan.torn_bytes;
    }
    memset(recovery->block, 0, ZEROS_BYTES);
    while (at < torn_end && !canary_on(CANARY_TORN_TAIL_LEFT)) {
        size_t size = torn_end - at < ZEROS_BYTES ? (size_t)(torn_end - at) : ZEROS_BYTES;
        enum kvs_err err = write_blocking(recovery, found, recovery->block, size, at);
        if (err != KVS_ERR_OK)
            return err;
        at += size;
    }
    if (canary_on(CANARY_TAIL_NOT_SYNCED))
        return KVS_ERR_OK;
    struct ring_op op;
    blocking_sync(recovery->ring, &op, found->segment->fd);
    if (op.error != KVS_ERR_OK)
        say(recovery, "cannot sync segment %06u of %s: %s", found->number, store->base.data_dir, ring_op_text(&op));
    return op.error;
}

/* The last run may have died between the renaming of a segment and the sync of the directory that makes its name last.
 * Runs that this start has written need it, too. It is the only sync of the directory by then but for the manifest's,
 * before and after; one that fails ends the start. */
static enum kvs_err settle_names(struct recovery *recovery)
{
    const struct store *store = recovery->store;
    struct ring_op op;
    blocking_sync(recovery->ring, &op, store->base.dir_fd);
    if (op.error != KVS_ERR_OK)
        say(recovery, "cannot sync the names in %s: %s", store->base.data_dir, ring_op_text(&op));
    return op.error;
}

/* ---- going on writing ------------------------------------------------------------------------------------------ */

/* Gives the segment to a shard, to go on behind its end, with an image that holds nothing of what is before it yet. */
static enum kvs_err adopt(struct recovery *recovery, struct store_shard *shard, struct segment *segment)
{
    struct image_pool *pool = &recovery->store->keeper.images;
    uint8_t *image = image_take_unused(pool);
    if (image == NULL)
        return KVS_ERR_NO_MEMORY;
    atomic_store(&segment->image_from, canary_on(CANARY_TAIL_SHOWN_UNREAD) ? 0 : segment->end);
    image_attach(pool, segment, image);
    segment_set_state(segment, SEGMENT_OPEN);
    shard->adopted = segment;
    return KVS_ERR_OK;
}

bool recovery_has_room(const struct recovery *recovery, uint32_t end)
{
    const uint64_t segment_bytes = recovery->store->segments.segment_bytes;
    return segment_bytes - end >= segment_bytes / ADOPT_SHARE;
}

/* Also one that was sealed with the log that wrote it, at a stop or because a large record did not fit. */
static bool can_go_on(const struct recovery *recovery, const struct found_segment *found)
{
    return found->entry.kind == SEGMENT_LOG && recovery_has_room(recovery, found->scan.end) &&
           !keeper_shared(recovery->ring, found->segment);
}

/* Segments with room go on being filled, so that space is not left behind; the others are whole now, or free. */
static enum kvs_err choose_segments(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct keeper *keeper = &store->keeper;
    unsigned adopted = 0;
    for (size_t i = recovery->found_count; i-- > 0;) {
        struct found_segment *found = &recovery->found[i];
        struct segment *segment = found->segment;
        if (segment == NULL)
            continue;
        if (found_role(found) != FOUND_SEALED && found->scan.batches == 0) {
            segment_set_state(segment, SEGMENT_FREE); /* nothing points into it */
            keeper_add_free(keeper, segment);
        } else if (adopted < store->shard_count && can_go_on(recovery, found)) {
            enum kvs_err err = adopt(recovery, store->shards[adopted++], segment);
            if (err != KVS_ERR_OK)
                return err;
        } else {
            segment_set_state(segment, SEGMENT_SEALED);
            keeper->sealed_count++;
        }
    }
    for (unsigned i = 0; i < adopted; i++)
        keeper_watch(keeper, store->shards[i]->adopted);
    return KVS_ERR_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

/* Batches say how far the manifest had come when they were written. */
static enum kvs_err check_manifest(struct recovery *recovery)
{
    const struct store *store = recovery->store;
    uint32_t sequence = (uint32_t)manifest_sequence(store->keeper.manifest);
    if (!recovery->manifest_claimed || (int32_t)(recovery->manifest_max - sequence) <= 0 ||
        canary_on(CANARY_MANIFEST_AGE_IGNORED))
        return KVS_ERR_OK;
    say(recovery,
        "the " MANIFEST_NAME " of %s has lost its latest changes: it ends with change %u, but change %u was durable. "
        "Nothing was changed. Restore a backup of this file, or of the directory",
        store->base.data_dir, sequence, recovery->manifest_max);
    return KVS_ERR_CORRUPT;
}

/* Everything is sound: what was being written gets its end. */
static enum kvs_err settle(struct recovery *recovery)
{
    enum kvs_err err = KVS_ERR_OK;
    for (size_t i = 0; err == KVS_ERR_OK && i < recovery->found_count; i++) {
        struct found_segment *found = &recovery->found[i];
        if (found->segment != NULL && found_role(found) == FOUND_LOG)
            err = settle_tail(recovery, found);
    }
    if (err == KVS_ERR_OK)
        err = settle_names(recovery);
    if (err == KVS_ERR_OK)
        err = choose_segments(recovery);
    return err == KVS_ERR_OK ? recovery_write_manifest(recovery) : err;
}

static enum kvs_err begin_boot(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct superblock *superblock = &store->base.superblock;
    superblock->epoch = (recovery->epoch_max > superblock->epoch ? recovery->epoch_max : superblock->epoch) + 1;
    superblock->epoch -= canary_on(CANARY_EPOCH_NOT_RAISED) && superblock->epoch > 1;
    /* Also when nothing whole was found of the last boot: what reached the disk of it in part may be there. */
    uint64_t highest = recovery->lsn_max > superblock->flushed_lsn ? recovery->lsn_max : superblock->flushed_lsn;
    uint64_t above = highest + 1 > superblock->lsn_base ? highest + 1 : superblock->lsn_base;
    if (!store->base.recovery.created && !canary_on(CANARY_LSN_BASE_NOT_RAISED))
        superblock->lsn_base = above + LSN_GAP;
    return superblock_write(recovery->ring, store->base.dir_fd, store->base.data_dir, superblock, recovery->message);
}

/* Loads and fills, again when a run has turned out to be bad: there are fewer of them then. */
static enum kvs_err take_in(struct recovery *recovery)
{
    enum kvs_err err;
    bool *taken = &recovery->store->base.recovery.snapshot;
    do {
        err = recovery_load(recovery);
        if (err != KVS_ERR_OK)
            return err;
        /* Time goes on from where the last boot knew it to be. */
        wall_clock_raise(&recovery->store->base.clock, recovery->ring, recovery->time_ms);
        if (!recovery->snapshot_there)
            err = recovery_take_snapshot(recovery, taken);
        if (err == KVS_ERR_OK && !*taken)
            err = recovery_fill(recovery);
    } while (err == KVS_ERR_AGAIN);
    return err;
}

static enum kvs_err recover(struct recovery *recovery)
{
    enum kvs_err err = recovery_find(recovery);
    if (err == KVS_ERR_OK)
        err = recovery_find_runs(recovery);
    if (err == KVS_ERR_OK)
        err = take_in(recovery);
    if (err == KVS_ERR_OK)
        err = check_manifest(recovery);
    if (err == KVS_ERR_OK)
        err = recovery_check_streams(recovery);
    if (err == KVS_ERR_OK)
        err = recovery_check_claims(recovery);
    if (err == KVS_ERR_OK)
        err = settle(recovery);
    if (err == KVS_ERR_OK)
        err = begin_boot(recovery);
    if (err == KVS_ERR_OK)
        recovery_remove_snapshot(recovery);
    return err == KVS_ERR_OK ? recovery_keep_runs(recovery) : err;
}

static void report(struct recovery *recovery)
{
    struct engine_recovery *report = &recovery->store->base.recovery;
    for (unsigned i = 0; recovery->workers != NULL && i < recovery->worker_count; i++) {
        report->records += recovery->workers[i].records;
        report->segments += recovery->workers[i].segments;
        report->bytes += recovery->workers[i].bytes;
        report->keys += recovery->workers[i].keys;
    }
}

/* Memory, except for what is made where it is first needed. */
static enum kvs_err prepare(struct recovery *recovery)
{
    const struct engine_workers *workers = recovery->store->base.options.workers;
    recovery->worker_count = workers == NULL ? 1 : workers->count;
    KVS_ASSERT(recovery->worker_count > 0);
    recovery->workers = calloc(recovery->worker_count, sizeof *recovery->workers);
    recovery->block = aligned_alloc(KVS_BLOCK_BYTES, ZEROS_BYTES);
    recovery->entry_bytes_max = checkpoint_uncovered_max(recovery->store);
    return recovery->workers == NULL || recovery->block == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

static void forget(struct recovery *recovery)
{
    for (unsigned i = 0; recovery->workers != NULL && i < recovery->worker_count; i++) {
        struct recovery_worker *worker = &recovery->workers[i];
        free(worker->head);
        free(worker->live_puts);
        free(worker->live_units);
    }
    for (size_t i = 0; i < recovery->found_count; i++) {
        free(recovery->found[i].entries);
        free(recovery->found[i].stretches);
    }
    free(recovery->workers);
    free(recovery->block);
    free(recovery->found);
}

enum kvs_err store_recover(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct recovery recovery = {.store = store, .ring = ring, .message = message};
    uint64_t started_ns = ring_now_ns(ring);
    enum kvs_err err = prepare(&recovery);
    if (err == KVS_ERR_OK)
        err = recover(&recovery);
    if (err == KVS_ERR_NO_MEMORY && message[0] == '\0')
        say(&recovery, "out of memory while recovering %s", store->base.data_dir);
    recovery_close_runs(&recovery, err != KVS_ERR_OK);
    report(&recovery);
    forget(&recovery);
    store->base.recovery.elapsed_ns = ring_now_ns(ring) - started_ns;
    return err;
}
