/*
 * backup_copy.c - how far a log's segment belongs to the copy, and moving bytes.
 *
 * Measuring walks the headers of the segment's batches, in its file: what is durable is there, whatever the log is
 * writing behind it, and no block of it is written a second time. A batch of an earlier boot counts; one of this boot
 * counts when it was durable at the moment.
 *
 * Copying has a few chunks under way, each being read or written; behind the end it writes zeros, so that the file is
 * as long as a segment has to be, and pre-written.
 *
 * Failure modes: a header that is not the segment's, a read that ends short, a write that finds no space: the backup
 * fails. What is read is not verified: the copy has the checksums, too.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"
#include "base/canary.h"

static const char cut_short[] = "its file is cut short";

static void slot_done(struct ring_op *op);

static const struct segment *segment_of(const struct backup *backup)
{
    const struct segment *segment = segment_get(&backup_store(backup)->segments, backup->next);
    KVS_ASSERT(segment != NULL); /* it is held */
    return segment;
}

static void fail_read(struct backup *backup, enum kvs_err error, const char *why)
{
    backup_fail(backup, error == KVS_ERR_OK ? KVS_ERR_CORRUPT : error, "cannot read segment %s: %s",
                backup->segment_file, why);
}

/* ---- measuring ------------------------------------------------------------------------------------------------- */

/* Where the chunk begins that is looked at: with the next batch, the first one with the segment's header. */
static uint64_t chunk_begin(const struct backup *backup)
{
    return backup->measured == KVS_BLOCK_BYTES ? 0 : backup->measured;
}

static uint32_t chunk_bytes_at(const struct backup *backup, uint64_t offset)
{
    uint64_t left = backup_store(backup)->segments.segment_bytes - offset;
    return left < BACKUP_CHUNK_BYTES ? (uint32_t)left : BACKUP_CHUNK_BYTES;
}

static void read_headers(struct backup *backup)
{
    uint64_t from = chunk_begin(backup);
    backup_begin(backup, BACKUP_MEASURE);
    ring_file_read(backup->ring, &backup->io, segment_of(backup)->fd, backup->slots[0].buffer,
                   chunk_bytes_at(backup, from), from);
}

void backup_measure(struct backup *backup)
{
    backup->measured = KVS_BLOCK_BYTES;
    backup->last_lsn = backup->last_epoch = 0;
    read_headers(backup);
}

/* Takes the batch into account, if it goes on where the last one ended and was durable at the moment. */
static bool take_batch(struct backup *backup, const struct batch_header *batch)
{
    const struct store *store = backup_store(backup);
    uint64_t epoch = store->base.superblock.epoch;
    bool first = backup->measured == KVS_BLOCK_BYTES;
    uint64_t last_lsn = batch->first_lsn + batch->record_count - 1;
    if (batch->epoch < backup->last_epoch || batch->epoch > epoch || (!first && batch->prev_lsn != backup->last_lsn))
        return false;
    if (batch->epoch == epoch) {
        if (batch->stream >= store->shard_count)
            return false;
        if (last_lsn > backup->durable[batch->stream] && !canary_on(CANARY_BACKUP_TAIL_TOO_LONG))
            return false;
        if (batch->first_lsn > backup->sealed[batch->stream])
            backup->covered[batch->stream] += last_lsn - batch_after_lsn(batch);
    }
    backup->last_lsn = last_lsn;
    backup->last_epoch = batch->epoch;
    return true;
}

static bool header_right(struct backup *backup, const uint8_t *block)
{
    const struct store *store = backup_store(backup);
    const struct segment_header *header = (const void *)block;
    const char *wrong =
        segment_header_check(header, store->base.superblock.uuid, backup->next, store->segments.segment_bytes);
    if (wrong == NULL && header->uid != manifest_find(backup->manifest, backup->next)->uid)
        wrong = "it is not the one that the " MANIFEST_NAME " lists";
    if (wrong != NULL)
        fail_read(backup, KVS_ERR_CORRUPT, wrong);
    return wrong == NULL;
}

/* True when there may be more behind the chunk. */
static bool walk(struct backup *backup, uint64_t chunk_from, uint64_t chunk_bytes)
{
    const struct segment *segment = segment_of(backup);
    uint64_t segment_bytes = backup_store(backup)->segments.segment_bytes;
    while (backup->measured < chunk_from + chunk_bytes) {
        const struct batch_header *batch = (const void *)(backup->slots[0].buffer + (backup->measured - chunk_from));
        if (!batch_header_valid(batch, segment->seed, (uint32_t)backup->measured, segment_bytes - backup->measured) ||
            !take_batch(backup, batch))
            return false;
        backup->measured += align_up(batch->bytes, KVS_BLOCK_BYTES);
    }
    return backup->measured < segment_bytes;
}

/* The copy lists it with the end that was found. One without a batch was never part of the store. */
static void measured(struct backup *backup)
{
    struct manifest_entry entry = *manifest_find(backup->manifest, backup->next);
    if (backup->measured < entry.end) {
        fail_read(backup, KVS_ERR_CORRUPT, "it is damaged before the end that an earlier boot has found");
        return;
    }
    bool empty = backup->measured == KVS_BLOCK_BYTES;
    entry.end = (uint32_t)backup->measured;
    if (empty)
        entry = (struct manifest_entry){.number = backup->next, .state = MANIFEST_GONE};
    enum kvs_err err = manifest_set(backup->manifest, &entry);
    KVS_ASSERT(err == KVS_ERR_OK); /* it has its place */
    if (empty) {
        backup_next(backup);
        return;
    }
    backup->copy_end = backup->measured;
    backup_copy(backup);
}

static void headers_read(struct backup *backup)
{
    uint64_t from = chunk_begin(backup);
    uint32_t bytes = chunk_bytes_at(backup, from);
    if (backup->io.error != KVS_ERR_OK || backup->io.bytes < bytes) {
        fail_read(backup, backup->io.error, backup->io.error == KVS_ERR_OK ? cut_short : ring_op_text(&backup->io));
        return;
    }
    if (from == 0 && !header_right(backup, backup->slots[0].buffer))
        return;
    if (walk(backup, from, bytes))
        read_headers(backup);
    else
        measured(backup);
}

/* ---- copying --------------------------------------------------------------------------------------------------- */

/* The directory was cleared, so that the name is free: it must not be that of a link to a segment of the store. */
static void create_target(struct backup *backup, unsigned exclusive)
{
    bool direct = backup_store(backup)->direct && !backup->target_buffered;
    backup_begin(backup, BACKUP_CREATE);
    ring_file_open(backup->ring, &backup->io, backup->dir_fd, backup->segment_file,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | exclusive | (direct ? RING_OPEN_DIRECT : 0u));
}

void backup_copy(struct backup *backup)
{
    KVS_ASSERT(backup->target_fd < 0 && backup->slots_busy == 0);
    KVS_ASSERT(backup->copy_end % KVS_BLOCK_BYTES == 0);
    backup->copy_next = 0;
    create_target(backup, RING_OPEN_EXCLUSIVE);
}

static void slot_write(struct backup_slot *slot)
{
    slot->writing = true;
    ring_op_init(&slot->io, slot_done);
    ring_file_write(slot->backup->ring, &slot->io, slot->backup->target_fd, slot->buffer, slot->size, slot->offset, 0);
}

/* Bytes of the slot's chunk that are the segment's; what is behind them is zeros. */
static uint32_t slot_data_bytes(const struct backup_slot *slot)
{
    uint64_t end = slot->backup->copy_end;
    if (end <= slot->offset)
        return 0;
    return end - slot->offset < slot->size ? (uint32_t)(end - slot->offset) : slot->size;
}

/* Takes the next chunk; false when all are taken. */
static bool slot_begin(struct backup_slot *slot)
{
    struct backup *backup = slot->backup;
    slot->offset = backup->copy_next;
    slot->size = chunk_bytes_at(backup, slot->offset);
    if (slot->size == 0 || backup->error != KVS_ERR_OK || backup->stopping)
        return false;
    slot->writing = false;
    backup->copy_next += slot->size;
    backup->slots_busy++;
    uint32_t data = slot_data_bytes(slot);
    memset(slot->buffer + data, 0, slot->size - data);
    if (data == 0) {
        slot_write(slot);
        return true;
    }
    ring_op_init(&slot->io, slot_done);
    ring_file_read(backup->ring, &slot->io, segment_of(backup)->fd, slot->buffer, data, slot->offset);
    return true;
}

/* All chunks are where they belong, or nothing more is begun because of an error. */
static void slots_idle(struct backup *backup)
{
    if (backup_given_up(backup))
        return;
    if (backup->error != KVS_ERR_OK) {
        backup_undo(backup);
        return;
    }
    backup_begin(backup, BACKUP_SYNC);
    ring_file_sync(backup->ring, &backup->io, backup->target_fd);
}

static void slot_done(struct ring_op *op)
{
    struct backup_slot *slot = container_of(op, struct backup_slot, io);
    struct backup *backup = slot->backup;
    bool short_read = !slot->writing && op->error == KVS_ERR_OK && op->bytes < slot_data_bytes(slot);
    if (op->error == KVS_ERR_OK && !short_read && !slot->writing) {
        slot_write(slot);
        return;
    }
    if ((op->error != KVS_ERR_OK || short_read) && backup->error == KVS_ERR_OK)
        backup_note_error(backup, short_read ? KVS_ERR_CORRUPT : op->error, "cannot %s segment %s%s%s: %s",
                          slot->writing ? "write" : "read", backup->segment_file, slot->writing ? " in " : "",
                          slot->writing ? backup->partial_text : "", short_read ? cut_short : ring_op_text(op));
    backup->slots_busy--;
    if (!slot_begin(slot) && backup->slots_busy == 0)
        slots_idle(backup);
}

static void fill(struct backup *backup)
{
    backup->stage = BACKUP_COPY;
    for (unsigned i = 0; i < BACKUP_COPY_SLOTS; i++)
        (void)slot_begin(&backup->slots[i]);
}

static void copied(struct backup *backup)
{
    ring_close_fd(backup->ring, backup->target_fd);
    backup->target_fd = -1;
    backup->segments++;
    backup_next(backup);
}

void backup_copy_step(struct backup *backup)
{
    enum kvs_err err = backup->io.error;
    bool unsupported = err == KVS_ERR_UNSUPPORTED;
    if (backup->stage == BACKUP_MEASURE) {
        headers_read(backup);
    } else if (backup->stage == BACKUP_CREATE && unsupported && !backup->target_buffered) {
        backup->target_buffered = true;
        create_target(backup, 0); /* the attempt may have made it */
    } else if (backup->stage == BACKUP_ALLOCATE && unsupported) {
        fill(backup);
    } else if (err != KVS_ERR_OK) {
        backup_fail(backup, err, "cannot %s %s in %s: %s", backup->stage == BACKUP_SYNC ? "sync" : "make",
                    backup->segment_file, backup->partial_text, ring_op_text(&backup->io));
    } else if (backup->stage == BACKUP_CREATE) {
        backup_begin(backup, BACKUP_ALLOCATE);
        ring_file_allocate(backup->ring, &backup->io, backup->target_fd, backup_store(backup)->segments.segment_bytes);
    } else if (backup->stage == BACKUP_ALLOCATE) {
        fill(backup);
    } else {
        KVS_ASSERT(backup->stage == BACKUP_SYNC);
        copied(backup);
    }
}
