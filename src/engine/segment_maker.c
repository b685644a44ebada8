/*
 * segment_maker.c - a chain of asynchronous steps:
 *
 *   image → open NNNNNN.seg.new → allocate → write header and zeros → sync → rename to NNNNNN.seg → sync directory →
 * ready
 *
 * The zeros are written from the image that the log will use, which thereby gets its memory page by page in the
 * background rather than in the middle of an append. Because of the rename a segment under its final name always has a
 * whole header, so that recovery can tell damage from unfinished work.
 *
 * Failure at any step (a full disk, most likely): the unfinished file is removed, the cause is kept for replies and
 * logged once, and after a second all is tried again.
 */
#include "engine/segment_maker.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

enum { CHUNK_BYTES = 256 * 1024 };
#define RETRY_NS 1000000000ull

static void step_done(struct ring_op *op);

void segment_maker_init(struct segment_maker *maker, const struct segment_maker_options *options)
{
    memset(maker, 0, sizeof *maker);
    maker->options = *options;
    maker->fd = -1;
}

static void start(struct segment_maker *maker, enum segment_maker_state state)
{
    maker->state = state;
    ring_op_init(&maker->io, step_done);
}

static void write_chunk(struct segment_maker *maker)
{
    uint64_t left = maker->options.table->segment_bytes - maker->written;
    size_t size = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
    uint8_t *chunk = maker->image + maker->written;
    memset(chunk, 0, size);
    if (maker->written == 0)
        segment_header_encode((struct segment_header *)(void *)chunk, maker->options.store_uuid, maker->number,
                              maker->uid, maker->options.table->segment_bytes, maker->options.epoch);
    start(maker, MAKER_WRITE);
    ring_file_write(maker->options.ring, &maker->io, maker->fd, chunk, size, maker->written, 0);
    maker->written += size;
}

static void retry_due(struct ring_op *op)
{
    struct segment_maker *maker = container_of(op, struct segment_maker, timer);
    maker->timer_active = false;
    if (maker->state == MAKER_FAILED && !canary_on(CANARY_FULL_DISK_FOR_GOOD))
        maker->state = MAKER_IDLE;
}

static void pause_after_failure(struct segment_maker *maker)
{
    if (maker->fd >= 0)
        ring_close_fd(maker->options.ring, maker->fd);
    maker->fd = -1;
    maker->state = MAKER_FAILED;
    if (!maker->timer_active && !maker->stopping) {
        maker->timer_active = true;
        ring_op_init(&maker->timer, retry_due);
        ring_timer(maker->options.ring, &maker->timer, RETRY_NS);
    }
}

static void fail(struct segment_maker *maker, enum kvs_err error, const char *text)
{
    if (maker->error != error || maker->failed_in != maker->state)
        diag_warn("cannot make segment %s: %s; writes will be refused when the current segment is full, trying again "
                  "every second",
                  maker->name, text);
    maker->error = error;
    maker->failed_in = maker->state;
    if (maker->image != NULL)
        image_give(maker->options.images, maker->image);
    maker->image = NULL;
    if (maker->state == MAKER_OPEN) {
        pause_after_failure(maker);
        return;
    }
    bool renamed = maker->state == MAKER_SYNC_DIR;
    start(maker, MAKER_UNDO);
    ring_file_unlink(maker->options.ring, &maker->io, maker->options.dir_fd, renamed ? maker->name : maker->new_name);
}

static void finish(struct segment_maker *maker)
{
    struct segment_table *table = maker->options.table;
    uint32_t seed = segment_seed(maker->options.store_uuid, maker->uid);
    maker->segment = segment_add(table, maker->number, maker->uid, seed, maker->fd);
    if (maker->segment == NULL) {
        fail(maker, KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        return;
    }
    if (maker->error != KVS_ERR_OK)
        diag_info("segments can be made again");
    maker->error = KVS_ERR_OK;
    maker->numbered = false;
    maker->fd = -1;
    maker->state = MAKER_READY;
}

static void step_done(struct ring_op *op)
{
    struct segment_maker *maker = container_of(op, struct segment_maker, io);
    struct ring *ring = maker->options.ring;
    if (maker->state == MAKER_OPEN && op->error == KVS_ERR_OK)
        maker->fd = op->fd;
    if (maker->state == MAKER_UNDO) {
        pause_after_failure(maker);
        return;
    }
    _Atomic uint32_t *name_syncs_failed = &maker->options.table->name_syncs_failed;
    if (op->error != KVS_ERR_OK) {
        if (maker->state == MAKER_SYNC_DIR)
            atomic_fetch_add(name_syncs_failed, 1);
        fail(maker, op->error, ring_op_text(op));
        return;
    }
    /* A failure is told to one of those who sync the directory; the others' names may be lost all the same. */
    if (maker->state == MAKER_SYNC_DIR && atomic_load(name_syncs_failed) != maker->name_syncs_failed) {
        fail(maker, KVS_ERR_IO, "another sync of the directory has failed, and may have lost the name");
        return;
    }
    if (maker->stopping) {
        maker->state = MAKER_FAILED;
        return;
    }
    switch (maker->state) {
    case MAKER_OPEN:
        start(maker, MAKER_ALLOCATE);
        ring_file_allocate(ring, &maker->io, maker->fd, maker->options.table->segment_bytes);
        break;
    case MAKER_ALLOCATE:
        maker->written = 0;
        write_chunk(maker);
        break;
    case MAKER_WRITE:
        if (maker->written < maker->options.table->segment_bytes) {
            write_chunk(maker);
            break;
        }
        start(maker, MAKER_SYNC);
        ring_file_sync(ring, &maker->io, canary_on(CANARY_HEADER_NOT_SYNCED) ? maker->options.dir_fd : maker->fd);
        break;
    case MAKER_SYNC:
        maker->name_syncs_failed = atomic_load(name_syncs_failed);
        start(maker, MAKER_RENAME);
        ring_file_rename(ring, &maker->io, maker->options.dir_fd, maker->new_name, maker->name);
        break;
    case MAKER_RENAME:
        start(maker, MAKER_SYNC_DIR);
        ring_file_sync(ring, &maker->io, canary_on(CANARY_NAME_NOT_SYNCED) ? maker->fd : maker->options.dir_fd);
        break;
    default:
        KVS_ASSERT(maker->state == MAKER_SYNC_DIR);
        finish(maker);
        break;
    }
}

void segment_maker_turn(struct segment_maker *maker, const struct segment *keep)
{
    if (maker->stopping || (maker->state != MAKER_IDLE && maker->state != MAKER_IMAGE))
        return;
    maker->state = MAKER_IMAGE;
    maker->image = image_take(maker->options.images, keep);
    if (maker->image == NULL)
        return;
    if (!maker->numbered)
        maker->number = segment_number_take(maker->options.table);
    maker->numbered = true;
    maker->uid = maker->options.epoch << 32 | atomic_fetch_add(maker->options.uid_counter, 1);
    segment_name(maker->name, maker->number, "");
    segment_name(maker->new_name, maker->number, ".new");
    start(maker, MAKER_OPEN);
    if (maker->number >= maker->options.table->count_max) {
        fail(maker, KVS_ERR_NO_SPACE, "the store has as many segments as it can address");
        return;
    }
    ring_file_open(maker->options.ring, &maker->io, maker->options.dir_fd, maker->new_name,
                   RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE |
                       (maker->options.direct ? RING_OPEN_DIRECT : 0u));
}

bool segment_maker_take(struct segment_maker *maker, struct segment **segment, uint8_t **image)
{
    if (maker->state != MAKER_READY)
        return false;
    *segment = maker->segment;
    *image = maker->image;
    maker->segment = NULL;
    maker->image = NULL;
    maker->state = MAKER_IDLE;
    return true;
}

void segment_maker_stop(struct segment_maker *maker)
{
    maker->stopping = true;
    if (maker->timer_active)
        ring_cancel(maker->options.ring, &maker->timer);
}

bool segment_maker_idle(const struct segment_maker *maker)
{
    bool working = maker->state >= MAKER_OPEN && maker->state <= MAKER_SYNC_DIR;
    return !working && maker->state != MAKER_UNDO && !maker->timer_active;
}

void segment_maker_deinit(struct segment_maker *maker, struct ring *ring)
{
    if (maker->image != NULL)
        image_give(maker->options.images, maker->image);
    maker->image = NULL;
    if (maker->fd >= 0)
        ring_close_fd(ring, maker->fd);
    maker->fd = -1;
}
