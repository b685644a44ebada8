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
#include "engine/recovery_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "base/hash.h"
#include "engine/big_memory.h"
#include "engine/blocking.h"

#include <inttypes.h>
#include <stdlib.h>

/* LSNs that are left out between two boots: more than what can have been in flight when the last one ended. So nothing
 * that reached the disk of it is ever taken for a record of a later boot, also where it was not found and cut. */
#define LSN_GAP (1ull << 28)

/* A tail is written on in when this share of it is free: half of what logs keep for deletes, which have to go on when
 * the start finds the disk full. */
enum { ADOPT_SHARE = 32 };

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

static void take_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct recovery *recovery = context;
    const struct store *store = recovery->store;
    if (recovery->err != KVS_ERR_OK || (canary_on(CANARY_TOMBSTONES_DROPPED) && record->kind == RECORD_DELETE))
        return;
    struct recovery_entry entry = {.hash = hash_key(record_key(record), store->base.superblock.hash_seed),
                                   .lsn = record->lsn,
                                   .address = address_make(recovery->current->number, offset, store->segments.shift) &
                                              INDEX_ADDRESS_MASK,
                                   .class = record_class(record_size(record)) & INDEX_CLASS_MAX,
                                   .put = record->kind == RECORD_PUT,
                                   .compare = (record->flags & RECORD_COMPARE) != 0,
                                   .expires_ms = record_expires_ms(record)};
    if (canary_on(CANARY_ORDER_BY_PLACE))
        entry.lsn = entry.address;
    if (record->lsn > recovery->lsn_max)
        recovery->lsn_max = record->lsn;
    segment_count_record(recovery->current->segment, record, 1);
    if (canary_on(CANARY_EXPIRED_RECOVERED) && entry.expires_ms != 0 &&
        entry.expires_ms <= ring_wall_ms(recovery->ring))
        return;
    recovery->err = recovery_map_add(&recovery->map, &entry);
}

/* What a batch says of the store, its records apart. */
static void take_batch(struct recovery *recovery, const struct batch_header *batch)
{
    struct segment *segment = recovery->current->segment;
    if (batch->epoch > recovery->epoch_max)
        recovery->epoch_max = batch->epoch;
    if (!recovery->manifest_claimed || (int32_t)(batch->manifest - recovery->manifest_max) > 0)
        recovery->manifest_max = batch->manifest;
    recovery->manifest_claimed = true;
    if (batch_time_ms(batch) > recovery->time_ms)
        recovery->time_ms = batch_time_ms(batch);
    segment->epoch = (uint32_t)batch->epoch;
    segment->stream = batch->stream;
    if ((batch->flags & BATCH_RELOCATED) == 0)
        recovery_add_batch(recovery, batch);
}

static void take_batch_records(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct recovery *recovery = context;
    if (found_role(recovery->current) == FOUND_STRANGER)
        return;
    take_batch(recovery, batch);
    if (canary_on(CANARY_OLD_STREAMS_IGNORED) && (batch->flags & BATCH_RELOCATED) == 0 &&
        batch->stream >= recovery->store->shard_count)
        return;
    struct scan_segment segment = {.bytes = recovery->current_bytes};
    scan_records(&segment, offset, take_record, recovery);
}

static enum kvs_err refuse(struct recovery *recovery, const struct found_segment *found, const char *why)
{
    say(recovery,
        "segment %06u of %s cannot be used: %s. Nothing was changed. Restore a backup of this file, or of the "
        "directory",
        found->number, recovery->store->base.data_dir, why);
    return KVS_ERR_CORRUPT;
}

/* It does not reach as far as the manifest says. */
static enum kvs_err refuse_short(struct recovery *recovery, const struct found_segment *found)
{
    say(recovery,
        "segment %06u of %s is damaged at offset %u: the " MANIFEST_NAME " lists it as whole up to offset %u, and its "
        "records from there on (after LSN %" PRIu64
        ") would be lost. Nothing was changed. Restore a backup of this file",
        found->number, recovery->store->base.data_dir, found->scan.end, found->entry.end, found->scan.last_lsn);
    return KVS_ERR_CORRUPT;
}

/* What the scan has found, held against what the manifest says. */
static enum kvs_err judge(struct recovery *recovery, struct found_segment *found)
{
    const struct scan_result *scan = &found->scan;
    if (scan->unknown) {
        say(recovery,
            "segment %06u of %s has a record at offset %u of a kind that this program does not know: use the newer "
            "program "
            "that wrote it",
            found->number, recovery->store->base.data_dir, scan->unknown_offset);
        return KVS_ERR_VERSION;
    }
    const struct manifest_entry *entry = &found->entry;
    switch (found_role(found)) {
    case FOUND_STRANGER:
        if (scan->batches == 0 && !scan->claim && !scan->damaged)
            return KVS_ERR_OK;
        return refuse(recovery, found,
                      "it holds records, but the " MANIFEST_NAME " does not list it: that file is older than the "
                      "segment, or its last changes are lost");
    case FOUND_SEALED:
        if ((scan->end == entry->end && scan->last_lsn == entry->last_lsn) || canary_on(CANARY_SEALED_END_IGNORED))
            return KVS_ERR_OK;
        return refuse_short(recovery, found);
    default:
        if (found_role(found) == FOUND_LOG && scan->end < entry->end && !canary_on(CANARY_SEALED_END_IGNORED)) {
            return refuse_short(recovery, found);
        }
        return scan->damaged && !canary_on(CANARY_DAMAGE_CUT) ? recovery_refuse_damage(recovery, found) : KVS_ERR_OK;
    }
}

static enum kvs_err scan_one(struct recovery *recovery, struct found_segment *found, const uint8_t *bytes)
{
    struct store *store = recovery->store;
    const struct segment_header *header = (const void *)bytes;
    const char *wrong =
        segment_header_check(header, store->base.superblock.uuid, found->number, store->segments.segment_bytes);
    if (wrong == NULL && found->known && header->uid != found->entry.uid)
        wrong = "it is not the one that the " MANIFEST_NAME " lists, but was written before or after it";
    if (wrong != NULL && found_role(found) == FOUND_STRANGER && !segment_header_whole(header)) {
        diag_warn("%s/%06u.seg has no valid header; it was never part of the store, its file will be used again",
                  store->base.data_dir, found->number);
        return KVS_ERR_OK;
    }
    if (wrong != NULL)
        return refuse(recovery, found, wrong);
    if (header->epoch > recovery->epoch_max)
        recovery->epoch_max = header->epoch;
    enum segment_kind kind = found->known ? (enum segment_kind)found->entry.kind : SEGMENT_LOG;
    segment_begin(found->segment, kind, header->uid, segment_seed(store->base.superblock.uuid, header->uid));
    struct scan_segment scan = {.bytes = bytes,
                                .size = store->segments.segment_bytes,
                                .seed = found->segment->seed,
                                .epoch = store->base.superblock.epoch};
    recovery->current = found;
    recovery->current_bytes = bytes;
    scan_batches(&scan, &found->scan, take_batch_records, recovery);
    recovery->current = NULL;
    enum kvs_err err = recovery->err == KVS_ERR_OK ? judge(recovery, found) : recovery->err;
    if (err != KVS_ERR_OK)
        return err;
    struct segment *segment = found->segment;
    segment->end = found->scan.end;
    segment->last_lsn = found->scan.last_lsn;
    segment->begun_lsn = found->entry.begun_lsn;
    /* Dead until the index points at them. */
    atomic_store(&segment->dead_puts, segment->puts);
    atomic_store(&segment->dead_units, segment->put_units);
    if (found_role(found) == FOUND_SEALED)
        segment_set_state(segment, SEGMENT_SEALED);
    store->base.recovery.records += found->scan.records;
    store->base.recovery.bytes += store->segments.segment_bytes;
    store->base.recovery.segments++;
    return KVS_ERR_OK;
}

/* Opens, reads and scans a segment, keeping its image if there is to be one. */
static enum kvs_err load_segment(struct recovery *recovery, struct found_segment *found, bool with_image)
{
    struct store *store = recovery->store;
    struct image_pool *pool = &store->keeper.images;
    enum kvs_err err = recovery_open_file(recovery, found);
    if (err != KVS_ERR_OK || found->segment == NULL || found_role(found) == FOUND_FREE)
        return err;
    uint8_t *image = with_image && found_role(found) != FOUND_STRANGER ? image_take_unused(pool) : NULL;
    uint8_t *bytes = image == NULL ? recovery->scratch : image;
    if (!store->direct)
        err = uncache_segment(recovery, found, found->segment->fd);
    if (err == KVS_ERR_OK)
        err = read_segment(recovery, found, found->segment->fd, bytes);
    if (err == KVS_ERR_OK)
        err = scan_one(recovery, found, bytes);
    if (image != NULL)
        image_attach(pool, found->segment, image);
    return err;
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

/* ---- the ends of what was being written ------------------------------------------------------------------------ */

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
    if (canary_on(CANARY_TAIL_NOT_SYNCED))
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

/* The time goes on from where the last boot knew it to be. What has expired by now is dead, and hides what is older. */
static enum kvs_err fill_index(struct recovery *recovery)
{
    struct store *store = recovery->store;
    wall_clock_raise(&store->base.clock, recovery->ring, recovery->time_ms);
    uint64_t now_ms = wall_clock_now(&store->base.clock, recovery->ring);
    for (uint64_t i = 0; i < recovery->map.capacity; i++) {
        const struct recovery_entry *from = &recovery->map.entries[i];
        if (!from->used || !from->put)
            continue;
        struct store_shard *shard = store->shards[hash_shard(from->hash, store->shard_count)];
        if (from->expires_ms != 0 && from->expires_ms <= now_ms) {
            store_count(&shard->expiry.expired, 1);
            continue;
        }
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
        segment_count_dead(segment_get(&store->segments, address_segment(from->address, store->segments.shift)),
                           from->class, -1);
        store_count(&shard->keys, 1);
        if (from->expires_ms != 0) {
            store_count(&shard->expiry.keys, 1);
            store_expiry_add(shard, from->hash, from->address, from->expires_ms);
        }
        if (++store->base.recovery.keys % 4096 == 0)
            epoch_drain(&shard->base.thread);
    }
    return KVS_ERR_OK;
}

/* ---- going on writing ------------------------------------------------------------------------------------------ */

/* Gives the segment to a shard, with an image, to go on behind its end. */
static enum kvs_err adopt(struct recovery *recovery, struct store_shard *shard, struct found_segment *found)
{
    struct image_pool *pool = &recovery->store->keeper.images;
    struct segment *segment = found->segment;
    if (segment_image(segment) == NULL) {
        uint8_t *image = image_take_unused(pool);
        if (image == NULL)
            return KVS_ERR_NO_MEMORY;
        enum kvs_err err = read_segment(recovery, found, segment->fd, image);
        if (err != KVS_ERR_OK) {
            image_give(pool, image);
            return err;
        }
        image_attach(pool, segment, image);
    }
    segment_set_state(segment, SEGMENT_OPEN);
    shard->adopted = segment;
    return KVS_ERR_OK;
}

/* Nothing points into it. */
static void set_free(struct recovery *recovery, struct segment *segment)
{
    struct keeper *keeper = &recovery->store->keeper;
    image_detach(&keeper->images, segment);
    epoch_drain(&keeper->base.thread);
    segment_set_state(segment, SEGMENT_FREE);
    keeper_add_free(keeper, segment);
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
        if (found_role(found) == FOUND_SEALED) {
            keeper->sealed_count++;
        } else if (found->scan.batches == 0) {
            set_free(recovery, segment);
        } else if (adopted < store->shard_count &&
                   store->segments.segment_bytes - found->scan.end >= store->segments.segment_bytes / ADOPT_SHARE) {
            enum kvs_err err = adopt(recovery, store->shards[adopted++], found);
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

static enum kvs_err load_all(struct recovery *recovery)
{
    struct store *store = recovery->store;
    enum kvs_err err = recovery_find(recovery);
    /* The youngest segments get images; there has to be room for those that are adopted, for spares, and for one on its
     * way out. */
    uint32_t kept = 3 * store->shard_count;
    uint64_t with_image = store->keeper.images.count_max - kept;
    for (size_t i = 0; err == KVS_ERR_OK && i < recovery->found_count; i++)
        err = load_segment(recovery, &recovery->found[i], recovery->found_count - i <= with_image);
    return err;
}

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
    uint64_t above = recovery->lsn_max + 1 > superblock->lsn_base ? recovery->lsn_max + 1 : superblock->lsn_base;
    if (!store->base.recovery.created && !canary_on(CANARY_LSN_BASE_NOT_RAISED))
        superblock->lsn_base = above + LSN_GAP;
    return superblock_write(recovery->ring, store->base.dir_fd, store->base.data_dir, superblock, recovery->message);
}

static enum kvs_err recover(struct recovery *recovery)
{
    enum kvs_err err = load_all(recovery);
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
    return err == KVS_ERR_OK ? fill_index(recovery) : err;
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
