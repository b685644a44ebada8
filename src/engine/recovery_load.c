/*
 * recovery_load.c - reading segments, each by one of the workers.
 *
 *   covered by a run and sealed   only its header is read, and what a log might have written behind its end; what
 *                                 there is to know is in the manifest and in the run
 *   not covered                   is read and scanned as a whole; its records become a sorted array of entries
 *   covered, but not sealed       is read and scanned, for its end has to be found; its records are listed only if that
 *                                 is not where the run's knowledge ends
 *   free                          its header, and that of its first batch: a manifest that has lost its last changes
 *                                 may call a file free that a log had just taken into use
 *
 * Nothing of what is read stays in memory but the entries: images are filled in the background, after the start
 * (warmup.h).
 *
 * Failure modes: a segment without a valid header (segments get their final name only when complete), one that ends
 * before the manifest says it does, damage behind which there is proof of acknowledged data: CORRUPT, with segment and
 * offset. Nothing is changed on disk.
 */
#include "engine/recovery_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/run_collect.h"
#include "engine/run_sort.h"

#include <inttypes.h>
#include <stdlib.h>

#define worker_say(worker, ...) snprintf((worker)->message, ENGINE_MESSAGE_BYTES, __VA_ARGS__)

static const char *data_dir(const struct recovery_worker *worker)
{
    return worker->recovery->store->base.data_dir;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Behind a page cache, what is read need not be what the disk holds: a sync that failed in an earlier process has left
 * its pages looking clean. Everything else is written out, and all of it dropped, so that the disk itself is asked. */
static enum kvs_err uncache(struct recovery_worker *worker, const struct found_segment *found)
{
    struct ring_op op;
    blocking_sync(worker->ring, &op, found->segment->fd);
    enum kvs_err err = op.error != KVS_ERR_OK ? op.error : ring_file_uncache(worker->ring, found->segment->fd);
    if (err != KVS_ERR_OK)
        worker_say(worker, "cannot sync segment %06u of %s before it is read: %s", found->number, data_dir(worker),
                   op.error != KVS_ERR_OK ? ring_op_text(&op) : kvs_err_text(err));
    return err;
}

enum kvs_err recovery_cut_short(const struct recovery *recovery, const struct found_segment *found, uint64_t bytes,
                                char message[ENGINE_MESSAGE_BYTES])
{
    const struct store *store = recovery->store;
    KVS_ASSERT(bytes < store->segments.segment_bytes);
    snprintf(message, ENGINE_MESSAGE_BYTES,
             "segment %06u of %s is cut short: %" PRIu64 " bytes of %" PRIu64 "; its records cannot be trusted",
             found->number, store->base.data_dir, bytes, store->segments.segment_bytes);
    return KVS_ERR_CORRUPT;
}

enum { HEAD_BYTES = 2 * KVS_BLOCK_BYTES }; /* the header, and that of the first batch */

static enum kvs_err read_blocking(struct recovery_worker *worker, const struct found_segment *found, uint32_t bytes,
                                  uint32_t offset)
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_read(worker->ring, &op, found->segment->fd, worker->head, bytes, offset);
    ring_await(worker->ring, &op);
    if (op.error != KVS_ERR_OK) {
        worker_say(worker, "cannot read segment %06u of %s: %s", found->number, data_dir(worker), ring_op_text(&op));
        return op.error;
    }
    worker->bytes += op.bytes;
    return op.bytes < bytes ? recovery_cut_short(worker->recovery, found, offset + op.bytes, worker->message)
                            : KVS_ERR_OK;
}

/* Why the window could not show something. */
static enum kvs_err refuse_unreadable(struct recovery_worker *worker, const struct found_segment *found)
{
    const struct recovery_window *window = worker->window;
    if (recovery_window_error(window) == KVS_ERR_CORRUPT)
        return recovery_cut_short(worker->recovery, found, recovery_window_file_end(window), worker->message);
    worker_say(worker, "cannot read segment %06u of %s: %s", found->number, data_dir(worker),
               recovery_window_error_text(window));
    return recovery_window_error(window);
}

/* ---- batches and records --------------------------------------------------------------------------------------- */

static void take_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct recovery_worker *worker = context;
    if (worker->err != KVS_ERR_OK || (canary_on(CANARY_TOMBSTONES_DROPPED) && record->kind == RECORD_DELETE))
        return;
    segment_count_record(worker->current->segment, record, 1);
    if (canary_on(CANARY_EXPIRED_RECOVERED) && record_expires_ms(record) != 0 &&
        record_expires_ms(record) <= ring_wall_ms(worker->ring))
        return;
    struct run_collector *collector = worker->collector;
    worker->err = run_collect(collector, record, offset);
    if (canary_on(CANARY_ORDER_BY_PLACE) && worker->err == KVS_ERR_OK) {
        struct run_entry *entry = &collector->entries[collector->count - 1];
        entry->lsn = run_entry_address(entry);
    }
}

/* A batch, or a run, has known the manifest to have come so far. */
static void take_claim(struct recovery_worker *worker, uint32_t manifest)
{
    if (!worker->manifest_claimed || (int32_t)(manifest - worker->manifest_max) > 0)
        worker->manifest_max = manifest;
    worker->manifest_claimed = true;
}

static void take_epoch(struct recovery_worker *worker, uint64_t epoch)
{
    if (epoch > worker->epoch_max)
        worker->epoch_max = epoch;
}

/* What a batch says of the store, its records apart. */
static void take_batch(struct recovery_worker *worker, const struct batch_header *batch, uint32_t offset)
{
    struct segment *segment = worker->current->segment;
    take_epoch(worker, batch->epoch);
    take_claim(worker, batch->manifest);
    if (batch_time_ms(batch) > worker->time_ms)
        worker->time_ms = batch_time_ms(batch);
    segment->epoch = (uint32_t)batch->epoch;
    segment->stream = batch->stream;
    if ((batch->flags & BATCH_RELOCATED) != 0)
        return;
    if (batch->record_count > 0 && batch->first_lsn < worker->min_lsn)
        worker->min_lsn = batch->first_lsn;
    uint64_t last_lsn = batch->first_lsn + batch->record_count - 1;
    if (last_lsn > worker->lsn_max)
        worker->lsn_max = last_lsn;
    enum kvs_err err = recovery_add_batch(worker->current, batch, offset);
    if (err != KVS_ERR_OK)
        worker->err = err;
}

static void take_batch_records(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct recovery_worker *worker = context;
    if (found_role(worker->current) == FOUND_STRANGER)
        return;
    take_batch(worker, batch, offset);
    if (worker->collector == NULL || (canary_on(CANARY_OLD_STREAMS_IGNORED) && (batch->flags & BATCH_RELOCATED) == 0 &&
                                      batch->stream >= worker->recovery->store->shard_count))
        return;
    scan_records(worker->scanned, offset, take_record, worker);
}

/* ---- what must not be ------------------------------------------------------------------------------------------ */

static enum kvs_err refuse(struct recovery_worker *worker, const struct found_segment *found, const char *why)
{
    worker_say(worker,
               "segment %06u of %s cannot be used: %s. Nothing was changed. Restore a backup of this file, or of the "
               "directory",
               found->number, data_dir(worker), why);
    return KVS_ERR_CORRUPT;
}

/* It does not end where the manifest says. */
static enum kvs_err refuse_end(struct recovery_worker *worker, const struct found_segment *found)
{
    if (found->scan.end > found->entry.end)
        return refuse(worker, found,
                      "it reaches beyond the end that the " MANIFEST_NAME " lists: that file has lost its latest "
                      "changes, or is older than the segment");
    worker_say(worker,
               "segment %06u of %s is damaged at offset %u: the " MANIFEST_NAME
               " lists it as whole up to offset %u, and its records from there on (after LSN %" PRIu64
               ") would be lost. Nothing was changed. Restore a backup of this file",
               found->number, data_dir(worker), found->scan.end, found->entry.end, found->scan.last_lsn);
    return KVS_ERR_CORRUPT;
}

/* What the scan has found, held against what the manifest says. */
static enum kvs_err judge(struct recovery_worker *worker, const struct found_segment *found)
{
    const struct scan_result *scan = &found->scan;
    if (scan->unknown) {
        worker_say(worker,
                   "segment %06u of %s has a record at offset %u of a kind that this program does not know: use the "
                   "newer program that wrote it",
                   found->number, data_dir(worker), scan->unknown_offset);
        return KVS_ERR_VERSION;
    }
    const struct manifest_entry *entry = &found->entry;
    switch (found_role(found)) {
    case FOUND_STRANGER:
        if (scan->batches == 0 && !scan->claim && !scan->damaged)
            return KVS_ERR_OK;
        return refuse(worker, found,
                      "it holds records, but the " MANIFEST_NAME " does not list it: that file is older than the "
                      "segment, or its last changes are lost");
    case FOUND_SEALED:
        if ((scan->end == entry->end && scan->last_lsn == entry->last_lsn) || canary_on(CANARY_SEALED_END_IGNORED))
            return KVS_ERR_OK;
        return refuse_end(worker, found);
    default:
        if (found_role(found) == FOUND_LOG && scan->end < entry->end && !canary_on(CANARY_SEALED_END_IGNORED))
            return refuse_end(worker, found);
        return scan->damaged && !canary_on(CANARY_DAMAGE_CUT)
                   ? recovery_refuse_damage(worker->recovery, found, worker->message)
                   : KVS_ERR_OK;
    }
}

/* Checks the header and begins the segment's life in this process. *stray: it was never part of the store. */
static enum kvs_err take_header(struct recovery_worker *worker, struct found_segment *found, const uint8_t *bytes,
                                bool *stray)
{
    const struct store *store = worker->recovery->store;
    const struct segment_header *header = (const void *)bytes;
    const char *wrong =
        segment_header_check(header, store->base.superblock.uuid, found->number, store->segments.segment_bytes);
    if (wrong == NULL && found->known && header->uid != found->entry.uid)
        wrong = "it is not the one that the " MANIFEST_NAME " lists, but was written before or after it";
    *stray = wrong != NULL && found_role(found) == FOUND_STRANGER && !segment_header_whole(header);
    if (*stray) {
        diag_warn("%s/%06u.seg has no valid header; it was never part of the store, its file will be used again",
                  store->base.data_dir, found->number);
        return KVS_ERR_OK;
    }
    if (wrong != NULL)
        return refuse(worker, found, wrong);
    take_epoch(worker, header->epoch);
    enum segment_kind kind = found->known ? (enum segment_kind)found->entry.kind : SEGMENT_LOG;
    segment_begin(found->segment, kind, header->uid, segment_seed(store->base.superblock.uuid, header->uid));
    return KVS_ERR_OK;
}

/* ---- what has to be read ---------------------------------------------------------------------------------------- */

/* Whether more has to be read than its head. */
static bool has_to_be_read(const struct found_segment *found)
{
    bool known = found_role(found) == FOUND_SEALED && found->covered != NULL;
    return found_role(found) != FOUND_FREE && !known;
}

/* ---- one segment ----------------------------------------------------------------------------------------------- */

/* The counters of a segment whose records were not walked. */
static void restore_counters(struct segment *segment, const struct run_segment *covered, uint64_t min_lsn)
{
    segment->puts = covered->puts;
    segment->deletes = covered->deletes;
    atomic_store(&segment->record_bytes, covered->record_bytes);
    atomic_store(&segment->put_units, covered->put_units);
    segment->record_bytes_max = covered->record_bytes_max;
    segment->deletes_min_lsn = covered->deletes_min_lsn;
    segment->deletes_last_lsn = covered->deletes_last_lsn;
    segment->expiring = covered->expiring;
    segment->expiring_last_lsn = covered->expiring_last_lsn;
    atomic_store(&segment->min_lsn, min_lsn);
}

/* Sorts what was collected, and keeps the newest entry of each key. */
static void keep_newest(struct found_segment *found, struct run_collector *collector)
{
    struct run_entry *entries = collector->entries;
    size_t kept = 0;
    if (collector->count > 0)
        run_sort(entries, collector->count);
    for (size_t i = 0; i < collector->count; i++) {
        bool newer = kept > 0 && run_entry_key(&entries[kept - 1]) == run_entry_key(&entries[i]);
        kept -= newer;
        entries[kept++] = entries[i];
    }
    found->entries = entries;
    found->entry_count = kept;
}

/* The segment as the window shows it. */
static struct scan_segment show(struct recovery_worker *worker, const struct found_segment *found)
{
    const struct store *store = worker->recovery->store;
    recovery_window_move(worker->window, found->segment->fd, KVS_BLOCK_BYTES);
    return (struct scan_segment){.look = recovery_window_look,
                                 .context = worker->window,
                                 .size = store->segments.segment_bytes,
                                 .seed = found->segment->seed,
                                 .epoch = store->base.superblock.epoch};
}

/* `collector`: for its records; NULL: what they are is known. */
static enum kvs_err scan(struct recovery_worker *worker, struct found_segment *found, struct run_collector *collector)
{
    const struct scan_segment segment = show(worker, found);
    worker->current = found;
    worker->scanned = &segment;
    worker->collector = collector;
    worker->min_lsn = UINT64_MAX;
    found->stretch_count = 0;
    scan_batches(&segment, &found->scan, take_batch_records, worker);
    worker->scanned = NULL;
    worker->collector = NULL;
    return found->scan.unreadable ? refuse_unreadable(worker, found) : worker->err;
}

/* What the records are is known as long as the segment ends where the run has seen its end. */
static bool known_whole(const struct found_segment *found)
{
    return found->scan.end == found->covered->end || canary_on(CANARY_RUN_SHORT_OF_TAIL);
}

static enum kvs_err scan_one(struct recovery_worker *worker, struct found_segment *found)
{
    const struct store *store = worker->recovery->store;
    struct run_collector collector = {
        .hash_seed = store->base.superblock.hash_seed, .segment = found->number, .shift = store->segments.shift};
    enum kvs_err err = found->covered == NULL ? KVS_ERR_OK : scan(worker, found, NULL);
    if (err == KVS_ERR_OK && found->covered != NULL && known_whole(found)) {
        restore_counters(found->segment, found->covered, worker->min_lsn);
    } else if (err == KVS_ERR_OK) {
        recovery_uncover(worker->recovery, found);
        err = scan(worker, found, &collector);
        keep_newest(found, &collector);
    }
    if (err == KVS_ERR_OK)
        err = judge(worker, found);
    if (collector.lsn_max > worker->lsn_max)
        worker->lsn_max = collector.lsn_max;
    struct segment *segment = found->segment;
    segment->end = found->scan.end;
    segment->last_lsn = found->scan.last_lsn;
    worker->records += found->scan.records;
    return err;
}

/*
 * A sealed segment of a log may have been gone on in, and the manifest have lost its last changes: a batch behind the
 * end knows of a later one then. What is there otherwise means nothing, and need not be readable.
 */
static void look_behind(struct recovery_worker *worker, const struct found_segment *found)
{
    const uint32_t end = found->entry.end;
    const uint64_t room = worker->recovery->store->segments.segment_bytes - end;
    if (!recovery_has_room(worker->recovery, end) || canary_on(CANARY_BEHIND_SEALED_UNREAD))
        return;
    const struct batch_header *batch = (const void *)worker->head;
    if (read_blocking(worker, found, KVS_BLOCK_BYTES, end) == KVS_ERR_OK &&
        batch_header_valid(batch, found->segment->seed, end, room))
        take_claim(worker, batch->manifest);
    worker->message[0] = '\0';
}

/* A sealed segment that a run covers. */
static enum kvs_err take_sealed(struct recovery_worker *worker, struct found_segment *found)
{
    struct segment *segment = found->segment;
    const struct manifest_entry *entry = &found->entry;
    restore_counters(segment, found->covered, entry->min_lsn);
    segment->end = entry->end;
    segment->last_lsn = entry->last_lsn;
    segment->epoch = entry->epoch;
    segment->stream = entry->stream;
    found->scan = (struct scan_result){
        .end = entry->end, .last_lsn = entry->last_lsn, .epoch = entry->epoch, .stream = entry->stream, .batches = 1};
    take_epoch(worker, entry->epoch);
    if (entry->kind != SEGMENT_LOG)
        return KVS_ERR_OK;
    if (entry->last_lsn > worker->lsn_max)
        worker->lsn_max = entry->last_lsn;
    look_behind(worker, found);
    found->stretch_count = 0;
    return recovery_add_sealed(found);
}

/* A file that is free by the manifest: its batches, if it has any of ours, know of a later one. */
static void take_free(struct recovery_worker *worker, const struct found_segment *found, const uint8_t *bytes)
{
    const struct store *store = worker->recovery->store;
    const struct segment_header *header = (const void *)bytes;
    const struct batch_header *batch = (const void *)(bytes + KVS_BLOCK_BYTES);
    if (segment_header_check(header, store->base.superblock.uuid, found->number, store->segments.segment_bytes) != NULL)
        return;
    uint32_t seed = segment_seed(store->base.superblock.uuid, header->uid);
    if (batch_header_valid(batch, seed, KVS_BLOCK_BYTES, store->segments.segment_bytes - KVS_BLOCK_BYTES))
        take_claim(worker, batch->manifest);
}

/* By what is known of it; its head has been read. */
static enum kvs_err take_segment(struct recovery_worker *worker, struct found_segment *found)
{
    bool stray;
    enum kvs_err err = take_header(worker, found, worker->head, &stray);
    found->scan = (struct scan_result){.end = KVS_BLOCK_BYTES};
    if (err != KVS_ERR_OK || stray)
        return err;
    if (!has_to_be_read(found))
        return take_sealed(worker, found);
    if (worker->window == NULL)
        err = recovery_window_open(&worker->window, worker->ring, worker->recovery->store->segments.segment_bytes);
    return err == KVS_ERR_OK ? scan_one(worker, found) : err;
}

static enum kvs_err load_one(struct recovery_worker *worker, struct found_segment *found)
{
    const struct store *store = worker->recovery->store;
    const bool whole = has_to_be_read(found);
    if (worker->head == NULL)
        worker->head = aligned_alloc(KVS_BLOCK_BYTES, HEAD_BYTES);
    if (worker->head == NULL)
        return KVS_ERR_NO_MEMORY;
    enum kvs_err err = store->direct ? KVS_ERR_OK : uncache(worker, found);
    if (err == KVS_ERR_OK)
        err = read_blocking(worker, found, HEAD_BYTES, 0);
    if (found_role(found) == FOUND_FREE) {
        if (err == KVS_ERR_OK)
            take_free(worker, found, worker->head);
        worker->message[0] = '\0'; /* nothing in it counts, so it need not be readable either */
        return KVS_ERR_OK;
    }
    if (err == KVS_ERR_OK)
        err = take_segment(worker, found);
    if (err != KVS_ERR_OK)
        return err;
    struct segment *segment = found->segment;
    segment->begun_lsn = found->entry.begun_lsn;
    /* Dead until the index points at them. */
    atomic_store(&segment->dead_puts, segment->puts);
    atomic_store(&segment->dead_units, segment->put_units);
    if (found_role(found) == FOUND_SEALED)
        segment_set_state(segment, SEGMENT_SEALED);
    worker->segments++;
    recovery_progress(worker->recovery, whole ? store->segments.segment_bytes : HEAD_BYTES);
    return KVS_ERR_OK;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

/* Arrays that would take too much memory become runs. */
static void spill_if_many(struct recovery_worker *worker, struct found_segment *found)
{
    struct recovery *recovery = worker->recovery;
    uint64_t bytes = found->entry_count * sizeof *found->entries;
    uint64_t before = atomic_fetch_add(&recovery->entry_bytes, bytes);
    if (before + bytes <= recovery->entry_bytes_max || found_role(found) != FOUND_SEALED || found->unspillable)
        return;
    recovery_spill(worker, found);
    if (found->entries == NULL)
        atomic_fetch_sub(&recovery->entry_bytes, bytes);
}

static void load_some(struct recovery_worker *worker)
{
    struct recovery *recovery = worker->recovery;
    while (!atomic_load(&recovery->failed)) {
        size_t at = atomic_fetch_add(&recovery->next, 1);
        if (at >= recovery->found_count)
            return;
        struct found_segment *found = &recovery->found[at];
        if (found->loaded || found->segment == NULL)
            continue;
        enum kvs_err err = load_one(worker, found);
        if (err != KVS_ERR_OK) {
            recovery_worker_fail(worker, at, err);
            return;
        }
        found->loaded = true;
        if (found->entries != NULL)
            spill_if_many(worker, found);
    }
}

static void expect(struct recovery *recovery)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        if (!found->loaded && found->segment != NULL && has_to_be_read(found))
            bytes += recovery->store->segments.segment_bytes;
    }
    recovery_expect(recovery, bytes);
}

/* They may have grown to the size of a segment, and indexes are filled next. */
static void close_windows(struct recovery *recovery)
{
    for (unsigned i = 0; i < recovery->worker_count; i++) {
        struct recovery_worker *worker = &recovery->workers[i];
        worker->bytes += recovery_window_bytes(worker->window);
        recovery_window_close(worker->window);
        worker->window = NULL;
    }
}

enum kvs_err recovery_load(struct recovery *recovery)
{
    expect(recovery);
    enum kvs_err err = recovery_share(recovery, load_some);
    close_windows(recovery);
    return err == KVS_ERR_OK ? recovery_adopt_spilled(recovery) : err;
}
