/*
 * recovery.c - from the files of a data directory to index, images and open segments.
 *
 *   list the directory → read and scan every segment → check that no stream has a gap → zero the torn tails
 *   → raise epoch and LSN base in the superblock → fill the index → choose the segments to write on in
 *
 * Nothing is changed on disk before every segment was read and found sound, so a refused start leaves the evidence as
 * it was. What has been read from a tail may still have been on its way to the disk when the last run died; it is
 * synced before anybody is shown it.
 *
 * Failure modes: a segment without a valid header (segments get their final name only when complete), damage behind
 * which there is proof of acknowledged data, a gap between the segments of a stream: CORRUPT, naming segment and
 * offset. A torn tail is cut, logged and counted.
 */
#include "engine/recovery_map.h"
#include "engine/recovery_scan.h"
#include "engine/store.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "base/hash.h"
#include "engine/big_memory.h"
#include "engine/blocking.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* LSNs that one stream has written in one boot, without a gap. */
struct run {
    uint64_t epoch;
    uint32_t stream;
    uint32_t segment;
    uint64_t first_lsn, last_lsn; /* last = first - 1: none */
    uint64_t durable_lsn;         /* the highest that its batches claim */
    bool boot;                    /* it begins with a boot batch, as every stream does */
};

struct found_segment {
    uint32_t number;
    bool unfinished; /* still under its temporary name */
    struct segment *segment;
    struct scan_result scan;
    bool tail;   /* the last of its stream, or empty */
    bool marked; /* its last batch is an empty one: nothing behind it was ever acknowledged */
};

struct recovery {
    struct store *store;
    struct ring *ring;
    char *message;
    enum kvs_err err; /* the first error inside a callback */

    struct found_segment *found;
    size_t found_count, found_capacity;
    struct run *runs;
    size_t run_count, run_capacity;
    struct recovery_map map;
    uint64_t lsn_max;
    uint64_t
        epoch_max; /* seen in any header: a superblock copy that serves because the other is damaged may be older */

    uint8_t *scratch; /* the segment being scanned, when it gets no image */
    struct found_segment *current;
    const uint8_t *current_bytes;
    uint8_t *peek; /* for records that are compared on disk */
};

#define say(recovery, ...) snprintf((recovery)->message, ENGINE_MESSAGE_BYTES, __VA_ARGS__)

static enum kvs_err grow_array(void **array, size_t count, size_t *capacity, size_t element_bytes)
{
    if (count < *capacity)
        return KVS_ERR_OK;
    size_t larger = *capacity == 0 ? 64 : *capacity * 2;
    void *moved = realloc(*array, larger * element_bytes);
    if (moved == NULL)
        return KVS_ERR_NO_MEMORY;
    *array = moved;
    *capacity = larger;
    return KVS_ERR_OK;
}

/* ---- the directory --------------------------------------------------------------------------------------------- */

static void list_entry(void *context, const char *name)
{
    struct recovery *recovery = context;
    uint32_t number;
    bool unfinished;
    if (!segment_name_parse(name, &number, &unfinished))
        return;
    enum kvs_err err = grow_array((void **)&recovery->found, recovery->found_count, &recovery->found_capacity,
                                  sizeof *recovery->found);
    if (err == KVS_ERR_OK && number >= recovery->store->segments.count_max) {
        say(recovery, "%s/%s has a number beyond what the store can address: it does not belong there",
            recovery->store->base.data_dir, name);
        err = KVS_ERR_CORRUPT;
    }
    if (err != KVS_ERR_OK) {
        recovery->err = err;
        return;
    }
    recovery->found[recovery->found_count++] = (struct found_segment){.number = number, .unfinished = unfinished};
    segment_number_seen(&recovery->store->segments, number);
}

/* Removes the files of segments that were being made when the last run ended, and forgets them. */
static void remove_unfinished(struct recovery *recovery)
{
    size_t kept = 0;
    for (size_t i = 0; i < recovery->found_count; i++) {
        if (!recovery->found[i].unfinished) {
            recovery->found[kept++] = recovery->found[i];
            continue;
        }
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, recovery->found[i].number, ".new");
        struct ring_op op;
        blocking_init(&op);
        ring_file_unlink(recovery->ring, &op, recovery->store->base.dir_fd, name);
        ring_await(recovery->ring, &op);
        if (op.error != KVS_ERR_OK)
            diag_warn("cannot remove the unfinished %s/%s: %s", recovery->store->base.data_dir, name,
                      ring_op_text(&op));
    }
    recovery->found_count = kept;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct found_segment *)a)->number;
    uint32_t y = ((const struct found_segment *)b)->number;
    return (x > y) - (x < y);
}

/* ---- one segment ----------------------------------------------------------------------------------------------- */

/* Behind a page cache, what is read need not be what the disk holds: a sync that failed in an earlier process has left
 * its pages looking clean. Everything else is written out, and all of it dropped, so that the disk itself is asked. */
static enum kvs_err uncache_segment(struct recovery *recovery, const struct found_segment *found, int fd)
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_sync(recovery->ring, &op, fd);
    ring_await(recovery->ring, &op);
    enum kvs_err err = op.error != KVS_ERR_OK ? op.error : ring_file_uncache(recovery->ring, fd);
    if (err != KVS_ERR_OK)
        say(recovery, "cannot sync segment %06u of %s before it is read: %s", found->number,
            recovery->store->base.data_dir, op.error != KVS_ERR_OK ? ring_op_text(&op) : kvs_err_text(err));
    return err;
}

static enum kvs_err read_segment(struct recovery *recovery, struct found_segment *found, int fd, uint8_t *bytes)
{
    const struct store *store = recovery->store;
    struct ring_op op;
    blocking_init(&op);
    ring_file_read(recovery->ring, &op, fd, bytes, store->segments.segment_bytes, 0);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK) {
        say(recovery, "cannot read segment %06u of %s: %s", found->number, store->base.data_dir, ring_op_text(&op));
        return op.error;
    }
    if (op.bytes < store->segments.segment_bytes) {
        say(recovery,
            "segment %06u of %s is cut short: %" PRIu64 " bytes of %" PRIu64 "; its records cannot be trusted",
            found->number, store->base.data_dir, op.bytes, store->segments.segment_bytes);
        return KVS_ERR_CORRUPT;
    }
    return KVS_ERR_OK;
}

static void take_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    (void)offset;
    struct recovery *recovery = context;
    uint64_t last_lsn = batch->first_lsn + batch->record_count - 1;
    if (last_lsn > recovery->lsn_max)
        recovery->lsn_max = last_lsn;
    if (batch->epoch > recovery->epoch_max)
        recovery->epoch_max = batch->epoch;
    recovery->current->marked = batch->record_count == 0;
    struct run *run = recovery->run_count == 0 ? NULL : &recovery->runs[recovery->run_count - 1];
    if (run != NULL && run->segment == recovery->current->number && run->epoch == batch->epoch &&
        run->stream == batch->stream && run->last_lsn + 1 == batch->first_lsn) {
        run->last_lsn = last_lsn;
        if (batch->durable_lsn > run->durable_lsn)
            run->durable_lsn = batch->durable_lsn;
        return;
    }
    enum kvs_err err =
        grow_array((void **)&recovery->runs, recovery->run_count, &recovery->run_capacity, sizeof *recovery->runs);
    if (err != KVS_ERR_OK) {
        recovery->err = err;
        return;
    }
    recovery->runs[recovery->run_count++] = (struct run){.epoch = batch->epoch,
                                                         .stream = batch->stream,
                                                         .segment = recovery->current->number,
                                                         .first_lsn = batch->first_lsn,
                                                         .last_lsn = last_lsn,
                                                         .durable_lsn = batch->durable_lsn,
                                                         .boot = (batch->flags & BATCH_BOOT) != 0};
}

static void take_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct recovery *recovery = context;
    const struct store *store = recovery->store;
    if (recovery->err != KVS_ERR_OK || (canary_on(CANARY_TOMBSTONES_DROPPED) && record->kind == RECORD_DELETE))
        return;
    struct recovery_entry entry = {
        .hash = hash_key(record_key(record), store->base.superblock.hash_seed),
        .lsn = record->lsn,
        .address = address_make(recovery->current->number, offset, store->segments.shift) & INDEX_ADDRESS_MASK,
        .class = record_class(record_bytes(record->key_bytes, record->value_bytes)) & INDEX_CLASS_MAX,
        .put = record->kind == RECORD_PUT,
        .compare = (record->flags & RECORD_COMPARE) != 0};
    if (canary_on(CANARY_ORDER_BY_PLACE))
        entry.lsn = entry.address;
    recovery->err = recovery_map_add(&recovery->map, &entry);
}

static void take_batch_records(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct recovery *recovery = context;
    take_batch(recovery, batch, offset);
    if (canary_on(CANARY_OLD_STREAMS_IGNORED) && batch->stream >= recovery->store->shard_count)
        return;
    struct scan_segment segment = {.bytes = recovery->current_bytes};
    scan_records(&segment, offset, take_record, recovery);
}

static enum kvs_err refuse_damage(struct recovery *recovery, const struct found_segment *found)
{
    const struct scan_result *scan = &found->scan;
    say(recovery,
        "segment %06u of %s is damaged at offset %u: acknowledged records after LSN %" PRIu64
        " (at least to LSN %" PRIu64
        ", proven by the batch at offset %u) would be lost. Nothing was changed. Restore a backup of this file",
        found->number, recovery->store->base.data_dir, scan->end, scan->last_lsn, scan->proof_lsn, scan->proof_offset);
    return KVS_ERR_CORRUPT;
}

static enum kvs_err scan_one(struct recovery *recovery, struct found_segment *found, const uint8_t *bytes)
{
    struct store *store = recovery->store;
    const struct segment_header *header = (const void *)bytes;
    const char *wrong =
        segment_header_check(header, store->base.superblock.uuid, found->number, store->segments.segment_bytes);
    if (wrong != NULL) {
        say(recovery,
            "segment %06u of %s cannot be used: %s. Nothing was changed. Restore a backup of this file, or of the "
            "directory",
            found->number, store->base.data_dir, wrong);
        return KVS_ERR_CORRUPT;
    }
    if (header->epoch > recovery->epoch_max)
        recovery->epoch_max = header->epoch;
    found->segment->uid = header->uid;
    found->segment->seed = segment_seed(store->base.superblock.uuid, header->uid);
    struct scan_segment scan = {.bytes = bytes,
                                .size = store->segments.segment_bytes,
                                .seed = found->segment->seed,
                                .epoch = store->base.superblock.epoch};
    recovery->current = found;
    recovery->current_bytes = bytes;
    scan_batches(&scan, &found->scan, take_batch_records, recovery);
    recovery->current = NULL;
    if (recovery->err != KVS_ERR_OK)
        return recovery->err;
    if (found->scan.unknown) {
        say(recovery,
            "segment %06u of %s has a record at offset %u of a kind that this program does not know: use the newer "
            "program "
            "that wrote it",
            found->number, store->base.data_dir, found->scan.unknown_offset);
        return KVS_ERR_VERSION;
    }
    if (found->scan.damaged && !canary_on(CANARY_DAMAGE_CUT))
        return refuse_damage(recovery, found);
    found->segment->end = found->scan.end;
    found->segment->last_lsn = found->scan.last_lsn;
    store->base.recovery.records += found->scan.records;
    store->base.recovery.bytes += store->segments.segment_bytes;
    store->base.recovery.segments++;
    return KVS_ERR_OK;
}

/* Opens, reads and scans a segment; `pool` keeps its image when not NULL. */
static enum kvs_err load_segment(struct recovery *recovery, struct found_segment *found, struct image_pool *pool)
{
    struct store *store = recovery->store;
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, found->number, "");
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(recovery->ring, &op, store->base.dir_fd, name,
                   RING_OPEN_READ | RING_OPEN_WRITE | (store->direct ? RING_OPEN_DIRECT : 0u));
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK) {
        say(recovery, "cannot open %s/%s: %s", store->base.data_dir, name, ring_op_text(&op));
        return op.error;
    }
    found->segment = segment_add(&store->segments, found->number, 0, 0, op.fd);
    if (found->segment == NULL) {
        ring_close_fd(recovery->ring, op.fd);
        return KVS_ERR_NO_MEMORY;
    }
    uint8_t *bytes = pool == NULL ? recovery->scratch : image_take(pool, NULL);
    if (bytes == NULL)
        return KVS_ERR_NO_MEMORY;
    if (pool != NULL)
        image_attach(pool, found->segment, bytes);
    enum kvs_err err = KVS_ERR_OK;
    if (!store->direct)
        err = uncache_segment(recovery, found, found->segment->fd);
    if (err == KVS_ERR_OK)
        err = read_segment(recovery, found, found->segment->fd, bytes);
    return err == KVS_ERR_OK ? scan_one(recovery, found, bytes) : err;
}

/* ---- comparing keys -------------------------------------------------------------------------------------------- */

/* The key of the record at `address`, from RAM or from disk; good until the next call with the same `buffer`. */
static enum kvs_err fetch_key(struct recovery *recovery, uint64_t address, uint8_t *buffer, struct slice *key)
{
    const struct store *store = recovery->store;
    const struct record_header *record = store_resident(store, address);
    uint32_t number = address_segment(address, store->segments.shift);
    uint32_t offset = address_offset(address, store->segments.shift);
    if (record == NULL && recovery->current != NULL && recovery->current->number == number)
        record = (const void *)(recovery->current_bytes + offset);
    if (record == NULL) {
        uint64_t begin = align_down(offset, KVS_BLOCK_BYTES);
        uint64_t end = align_up(offset + record_class_bytes(INDEX_CLASS_MAX), KVS_BLOCK_BYTES);
        if (end > store->segments.segment_bytes)
            end = store->segments.segment_bytes;
        struct ring_op op;
        blocking_init(&op);
        ring_file_read(recovery->ring, &op, segment_get(&store->segments, number)->fd, buffer, end - begin, begin);
        ring_await(recovery->ring, &op);
        if (op.error != KVS_ERR_OK || op.bytes < end - begin) {
            say(recovery, "cannot read segment %06u of %s at offset %u: %s", number, store->base.data_dir, offset,
                ring_op_text(&op));
            return op.error == KVS_ERR_OK ? KVS_ERR_CORRUPT : op.error;
        }
        record = (const void *)(buffer + (offset - begin));
    }
    *key = record_key(record);
    return KVS_ERR_OK;
}

enum { PEEK_BYTES = 128 * 1024 };

static enum kvs_err same_key(void *context, uint64_t address_a, uint64_t address_b, bool *same)
{
    struct recovery *recovery = context;
    struct slice a, b;
    enum kvs_err err = fetch_key(recovery, address_a, recovery->peek, &a);
    if (err == KVS_ERR_OK)
        err = fetch_key(recovery, address_b, recovery->peek + PEEK_BYTES, &b);
    if (err == KVS_ERR_OK)
        *same = slice_equal(a, b);
    return err;
}

/* ---- all segments together ------------------------------------------------------------------------------------- */

static int by_stream(const void *a, const void *b)
{
    const struct run *x = a;
    const struct run *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    if (x->first_lsn != y->first_lsn)
        return x->first_lsn < y->first_lsn ? -1 : 1;
    return (x->last_lsn > y->last_lsn) - (x->last_lsn < y->last_lsn);
}

static void mark_tail(struct recovery *recovery, uint32_t number)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        if (recovery->found[i].number == number)
            recovery->found[i].tail = true;
    }
}

static enum kvs_err refuse_gap(struct recovery *recovery, const struct run *run, uint64_t from, uint64_t to)
{
    say(recovery,
        "records with LSN %" PRIu64 " to %" PRIu64 " of boot %" PRIu64
        ", stream %u are missing in %s (near segment %06u): "
        "a segment file was removed or its end is damaged. Nothing was changed. Restore a backup",
        from, to, run->epoch, run->stream, recovery->store->base.data_dir, run->segment);
    return KVS_ERR_CORRUPT;
}

/* A stream's runs must follow each other without a gap and reach as far as its batches claim to have been durable. */
static enum kvs_err check_streams(struct recovery *recovery)
{
    const struct superblock *superblock = &recovery->store->base.superblock;
    if (recovery->run_count > 0)
        qsort(recovery->runs, recovery->run_count, sizeof *recovery->runs, by_stream);
    uint64_t durable_lsn = 0;
    for (size_t i = 0; i < recovery->run_count; i++) {
        const struct run *run = &recovery->runs[i];
        const struct run *previous = i == 0 ? NULL : run - 1;
        const struct run *next = i + 1 == recovery->run_count ? NULL : run + 1;
        bool first = previous == NULL || previous->epoch != run->epoch || previous->stream != run->stream;
        bool last = next == NULL || next->epoch != run->epoch || next->stream != run->stream;
        uint64_t expected = run->first_lsn;
        if (!first)
            expected = previous->last_lsn + 1;
        else if (run->epoch == superblock->epoch)
            expected = superblock->lsn_base;
        if ((run->first_lsn != expected || (first && !run->boot)) && !canary_on(CANARY_GAP_IGNORED))
            return refuse_gap(recovery, run, expected, run->first_lsn - 1);
        durable_lsn = first || run->durable_lsn > durable_lsn ? run->durable_lsn : durable_lsn;
        if (last && durable_lsn > run->last_lsn)
            return refuse_gap(recovery, run, run->last_lsn + 1, durable_lsn);
        if (last)
            mark_tail(recovery, run->segment);
    }
    return KVS_ERR_OK;
}

/* Segments whose first batch is missing: had it been durable, by what the ones behind it claim? */
static enum kvs_err check_claims(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct found_segment *found = &recovery->found[i];
        if (!found->scan.claim || canary_on(CANARY_CLAIM_IGNORED))
            continue;
        bool kept = false;
        for (size_t r = 0; r < recovery->run_count; r++) {
            const struct run *run = &recovery->runs[r];
            kept = kept || (run->epoch == found->scan.claim_epoch && run->stream == found->scan.claim_stream &&
                            run->last_lsn >= found->scan.claim_lsn);
        }
        if (!kept) {
            found->scan.proof_offset = found->scan.claim_offset;
            found->scan.proof_lsn = found->scan.claim_lsn;
            return refuse_damage(recovery, found);
        }
    }
    return KVS_ERR_OK;
}

static enum kvs_err write_blocking(struct recovery *recovery, const struct found_segment *found, const void *bytes,
                                   size_t size, uint64_t offset)
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_write(recovery->ring, &op, found->segment->fd, bytes, size, offset, 0);
    ring_await(recovery->ring, &op);
    if (op.error == KVS_ERR_OK) {
        blocking_init(&op);
        ring_file_sync(recovery->ring, &op, found->segment->fd);
        ring_await(recovery->ring, &op);
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
    memset(recovery->peek, 0, PEEK_BYTES);
    while (at < torn_end && !canary_on(CANARY_TORN_TAIL_LEFT)) {
        size_t size = torn_end - at < PEEK_BYTES ? (size_t)(torn_end - at) : PEEK_BYTES;
        enum kvs_err err = write_blocking(recovery, found, recovery->peek, size, at);
        if (err != KVS_ERR_OK)
            return err;
        uint8_t *image = segment_image(found->segment);
        if (image != NULL)
            memset(image + at, 0, size);
        at += size;
    }
    /* Also where the last batch is a mark: its write may be the one that failed. */
    if (!found->tail || canary_on(CANARY_TAIL_NOT_SYNCED))
        return KVS_ERR_OK;
    struct ring_op op;
    blocking_init(&op);
    ring_file_sync(recovery->ring, &op, found->segment->fd);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK)
        say(recovery, "cannot sync segment %06u of %s: %s", found->number, store->base.data_dir, ring_op_text(&op));
    return op.error;
}

/* The last run may have died between the renaming of a segment and the sync of the directory that makes its name last.
 */
static enum kvs_err settle_names(struct recovery *recovery)
{
    const struct store *store = recovery->store;
    struct ring_op op;
    blocking_init(&op);
    ring_file_sync(recovery->ring, &op, store->base.dir_fd);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK)
        say(recovery, "cannot sync the names in %s: %s", store->base.data_dir, ring_op_text(&op));
    return op.error;
}

static enum kvs_err fill_index(struct recovery *recovery)
{
    struct store *store = recovery->store;
    for (uint64_t i = 0; i < recovery->map.capacity; i++) {
        const struct recovery_entry *from = &recovery->map.entries[i];
        if (!from->used || !from->put)
            continue;
        struct store_shard *shard = store->shards[hash_shard(from->hash, store->shard_count)];
        struct index_entry entry = {.address = from->address, .class = from->class};
        enum kvs_err err = index_insert(shard->index, from->hash, &entry);
        if (err == KVS_ERR_NO_MEMORY) {
            epoch_drain(&shard->base.thread); /* pages that splits have left */
            err = index_insert(shard->index, from->hash, &entry);
        }
        if (err != KVS_ERR_OK) {
            say(recovery, "the index of %" PRIu64 " keys does not fit into the memory budget: give more with --memory",
                recovery->map.count);
            return err;
        }
        store_count(&shard->keys, 1);
        if (++store->base.recovery.keys % 4096 == 0)
            epoch_drain(&shard->base.thread);
    }
    return KVS_ERR_OK;
}

/* ---- going on writing ------------------------------------------------------------------------------------------ */

/* An empty batch behind a tail that nobody writes on in: from now on what stands before it is known to have been
 * durable. */
static enum kvs_err mark_end(struct recovery *recovery, struct found_segment *found)
{
    struct store *store = recovery->store;
    if (canary_on(CANARY_END_NOT_MARKED) || !found->tail || found->marked || found->scan.batches == 0 ||
        found->scan.end + KVS_BLOCK_BYTES > store->segments.segment_bytes)
        return KVS_ERR_OK;
    memset(recovery->peek, 0, KVS_BLOCK_BYTES);
    struct batch_header *header = (void *)recovery->peek;
    *header = (struct batch_header){.bytes = sizeof *header,
                                    .first_lsn = found->scan.last_lsn + 1,
                                    .prev_lsn = found->scan.last_lsn,
                                    .durable_lsn = found->scan.last_lsn,
                                    .epoch = found->scan.epoch,
                                    .stream = found->scan.stream,
                                    .flags = BATCH_CLEAN};
    batch_header_seal(header, found->segment->seed, found->scan.end);
    found->segment->end = found->scan.end + KVS_BLOCK_BYTES;
    return write_blocking(recovery, found, header, KVS_BLOCK_BYTES, found->scan.end);
}

/* Gives the segment an image in the pool of the shard that will write in it. */
static enum kvs_err adopt(struct recovery *recovery, struct store_shard *shard, struct found_segment *found)
{
    struct segment *segment = found->segment;
    uint8_t *old = segment_image(segment);
    if (old == NULL || segment->pool != &shard->images) {
        uint8_t *image = image_take(&shard->images, NULL);
        if (image == NULL)
            return KVS_ERR_NO_MEMORY;
        if (old != NULL) {
            memcpy(image, old, segment->end);
            list_remove(&segment->image_link);
            image_give(segment->pool, old);
            atomic_store(&segment->image, NULL);
        } else {
            enum kvs_err err = read_segment(recovery, found, segment->fd, image);
            if (err != KVS_ERR_OK) {
                image_give(&shard->images, image);
                return err;
            }
        }
        image_attach(&shard->images, segment, image);
    } else {
        list_remove(&segment->image_link);
        list_push_back(&shard->images.resident, &segment->image_link);
    }
    shard->adopted = segment;
    return KVS_ERR_OK;
}

/* Nothing points into an empty segment; the log gives it an image when it takes it. */
static void keep_as_spare(struct store_shard *shard, struct segment *segment)
{
    uint8_t *image = segment_image(segment);
    if (image != NULL) {
        list_remove(&segment->image_link);
        atomic_store(&segment->image, NULL);
        image_give(segment->pool, image);
    }
    shard->found_spare = segment;
}

/* Partly filled tails first, so that space is not left behind; then empty segments, first to write in, then as spares.
 */
static enum kvs_err choose_segments(struct recovery *recovery)
{
    struct store *store = recovery->store;
    unsigned adopted = 0;
    unsigned spares = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = recovery->found_count; i-- > 0;) {
            struct found_segment *found = &recovery->found[i];
            bool empty = found->scan.batches == 0;
            bool room = store->segments.segment_bytes - found->scan.end >= store->segments.segment_bytes / 8;
            if (empty != (pass == 1) || (!empty && !found->tail))
                continue;
            enum kvs_err err = KVS_ERR_OK;
            if (room && adopted < store->shard_count)
                err = adopt(recovery, store->shards[adopted++], found);
            else if (empty && spares < store->shard_count)
                keep_as_spare(store->shards[spares++], found->segment);
            else
                err = mark_end(recovery, found);
            if (err != KVS_ERR_OK)
                return err;
        }
    }
    return KVS_ERR_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static enum kvs_err load_all(struct recovery *recovery)
{
    struct store *store = recovery->store;
    recovery->err = ring_dir_list(recovery->ring, store->base.dir_fd, list_entry, recovery);
    if (recovery->err != KVS_ERR_OK)
        return recovery->err;
    remove_unfinished(recovery);
    if (recovery->found_count > 0)
        qsort(recovery->found, recovery->found_count, sizeof *recovery->found, by_number);
    /* The youngest segments get images; each shard keeps room for the one it writes in, a spare, and one on its way
     * out. */
    uint32_t per_shard = store->shards[0]->images.count_max - 3;
    uint64_t with_image = (uint64_t)per_shard * store->shard_count;
    for (size_t i = 0; i < recovery->found_count; i++) {
        size_t younger = recovery->found_count - 1 - i;
        struct image_pool *pool = younger < with_image ? &store->shards[younger % store->shard_count]->images : NULL;
        enum kvs_err err = load_segment(recovery, &recovery->found[i], pool);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

static enum kvs_err recover(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct superblock *superblock = &store->base.superblock;
    enum kvs_err err = load_all(recovery);
    if (err == KVS_ERR_OK)
        err = check_streams(recovery);
    if (err == KVS_ERR_OK)
        err = check_claims(recovery);
    for (size_t i = 0; err == KVS_ERR_OK && i < recovery->found_count; i++)
        err = settle_tail(recovery, &recovery->found[i]);
    if (err == KVS_ERR_OK)
        err = settle_names(recovery);
    if (err != KVS_ERR_OK)
        return err;
    superblock->epoch = (recovery->epoch_max > superblock->epoch ? recovery->epoch_max : superblock->epoch) + 1;
    superblock->epoch -= canary_on(CANARY_EPOCH_NOT_RAISED) && superblock->epoch > 1;
    if (recovery->lsn_max + 1 > superblock->lsn_base && !canary_on(CANARY_LSN_BASE_NOT_RAISED))
        superblock->lsn_base = recovery->lsn_max + 1;
    err = superblock_write(recovery->ring, store->base.dir_fd, store->base.data_dir, superblock, recovery->message);
    if (err == KVS_ERR_OK)
        err = fill_index(recovery);
    if (err == KVS_ERR_OK)
        err = choose_segments(recovery);
    return err;
}

enum kvs_err store_recover(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct recovery recovery = {.store = store, .ring = ring, .message = message};
    uint64_t started_ns = ring_now_ns(ring);
    enum kvs_err err = recovery_map_init(&recovery.map, same_key, &recovery);
    recovery.scratch = big_memory_alloc(store->segments.segment_bytes);
    recovery.peek = aligned_alloc(KVS_BLOCK_BYTES, (size_t)2 * PEEK_BYTES);
    if (recovery.scratch == NULL || recovery.peek == NULL)
        err = KVS_ERR_NO_MEMORY;
    if (err == KVS_ERR_OK)
        err = recover(&recovery);
    if (err == KVS_ERR_NO_MEMORY && message[0] == '\0')
        say(&recovery, "out of memory while recovering %s", store->base.data_dir);
    free(recovery.peek);
    big_memory_free(recovery.scratch, store->segments.segment_bytes);
    recovery_map_deinit(&recovery.map);
    free(recovery.runs);
    free(recovery.found);
    store->base.recovery.elapsed_ns = ring_now_ns(ring) - started_ns;
    return err;
}
