/*
 * segment_maker.c - a chain of asynchronous steps:
 *
 *   new file:  image → open NNNNNN.seg.new → allocate → write header and zeros → sync → rename to NNNNNN.seg
 *              → sync directory → enter in the manifest → ready
 *   used file: image → write header, durably → enter in the manifest → ready
 *
 * The zeros of a new file are written from the image that the log will use, which thereby gets its memory page by page
 * in the background rather than in the middle of an append. Because of the rename a segment under its final name always
 * has a whole header. What a used file still holds was written under another uid, so none of it is valid any more.
 *
 * Failure at any step (a full disk, most likely): the unfinished file is removed, the cause is kept for replies and
 * logged once, and after a second all is tried again. A file that is whole is kept for the next attempt.
 */
#include "engine/segment_maker.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/big_memory.h"

#include <stdlib.h>

enum {
    CHUNK_BYTES = 256 * 1024,
    BACK_BYTES = 4 * 1024 * 1024, /* of memory; where the system has to find it first that may take some milliseconds */
};
#define RETRY_NS 1000000000ull

static void step_done(struct ring_op *op);

enum kvs_err segment_maker_init(struct segment_maker *maker, const struct segment_maker_options *options)
{
    memset(maker, 0, sizeof *maker);
    maker->options = *options;
    maker->fd = -1;
    maker->chunk = aligned_alloc(KVS_BLOCK_BYTES, CHUNK_BYTES);
    return maker->chunk == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

static void start(struct segment_maker *maker, enum segment_maker_state state)
{
    maker->state = state;
    ring_op_init(&maker->io, step_done);
}

static void encode_header(struct segment_maker *maker, uint8_t *block)
{
    memset(block, 0, KVS_BLOCK_BYTES);
    segment_header_encode((struct segment_header *)(void *)block, maker->options.store_uuid, maker->number, maker->uid,
                          maker->options.table->segment_bytes, maker->options.epoch);
}

static void write_chunk(struct segment_maker *maker)
{
    uint64_t left = maker->options.table->segment_bytes - maker->written;
    size_t size = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
    uint8_t *chunk = maker->image == NULL ? maker->chunk : maker->image + maker->written;
    memset(chunk, 0, size);
    if (maker->written == 0)
        encode_header(maker, chunk);
    start(maker, MAKER_WRITE);
    ring_file_write(maker->options.ring, &maker->io, maker->fd, chunk, size, maker->written, 0);
    maker->written += size;
}

/* ---- failure --------------------------------------------------------------------------------------------------- */

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
    /* Without the manifest no attempt will ever succeed. */
    if (!maker->timer_active && !maker->stopping && !manifest_failed(maker->options.manifest)) {
        maker->timer_active = true;
        ring_op_init(&maker->timer, retry_due);
        ring_timer(maker->options.ring, &maker->timer, RETRY_NS);
    }
}

void segment_maker_refuse(struct segment_maker *maker, enum kvs_err error, const char *text)
{
    if (maker->error != error || maker->failed_in != maker->state)
        diag_warn("cannot make segment %s: %s; writes will be refused when the current segment is full, trying again "
                  "every second",
                  maker->name, text);
    maker->error = error;
    maker->failed_in = maker->state;
}

static void fail(struct segment_maker *maker, enum kvs_err error, const char *text)
{
    segment_maker_refuse(maker, error, text);
    if (maker->image != NULL)
        image_give(maker->options.images, maker->image);
    maker->image = NULL;
    if (maker->fd < 0) {
        pause_after_failure(maker);
        return;
    }
    bool renamed = maker->state == MAKER_SYNC_DIR;
    start(maker, MAKER_UNDO);
    ring_file_unlink(maker->options.ring, &maker->io, maker->options.dir_fd, renamed ? maker->name : maker->new_name);
}

void segment_maker_recovered(struct segment_maker *maker)
{
    if (maker->error != KVS_ERR_OK)
        diag_info("segments can be made again");
    maker->error = KVS_ERR_OK;
}

/* ---- the file is whole ----------------------------------------------------------------------------------------- */

static void finish(struct segment_maker *maker)
{
    struct segment *segment = maker->segment;
    if (maker->purpose != MAKE_FREE)
        segment_set_state(segment, SEGMENT_SPARE);
    if (maker->image != NULL)
        image_attach(maker->options.images, segment, maker->image);
    maker->image = NULL;
    maker->state = MAKER_READY;
    if (maker->purpose == MAKE_FOR_DELETES) {
        atomic_store_explicit(&segment->for_deletes, true, memory_order_relaxed);
        return;
    }
    segment_maker_recovered(maker);
}

static void enter(struct segment_maker *maker)
{
    struct segment *segment = maker->segment;
    struct manifest_entry entry = {.number = maker->number, .state = MANIFEST_FREE};
    if (maker->purpose != MAKE_FREE) {
        enum segment_kind kind = maker->purpose == MAKE_FOR_RELOCATION ? SEGMENT_RELOCATED : SEGMENT_LOG;
        segment_begin(segment, kind, maker->uid, segment_seed(maker->options.store_uuid, maker->uid));
        entry.state = MANIFEST_LIVE;
        entry.kind = (uint8_t)kind;
        entry.uid = maker->uid;
    }
    maker->state = MAKER_ENTER;
    enum kvs_err err = manifest_change(maker->options.manifest, &entry, &maker->ticket);
    if (err != KVS_ERR_OK)
        fail(maker, err, err == KVS_ERR_FAILED ? manifest_failure_text(maker->options.manifest) : kvs_err_text(err));
    else if (canary_on(CANARY_BIRTH_NOT_ENTERED))
        finish(maker);
}

static void add_file(struct segment_maker *maker)
{
    maker->segment = segment_add(maker->options.table, maker->number, maker->fd);
    if (maker->segment == NULL) {
        fail(maker, KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        return;
    }
    maker->fd = -1;
    maker->numbered = false;
    enter(maker);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void named(struct name_change *change)
{
    struct segment_maker *maker = container_of(change, struct segment_maker, naming);
    KVS_ASSERT(maker->state == MAKER_SYNC_DIR);
    if (change->error != KVS_ERR_OK)
        fail(maker, change->error, change->text);
    else if (maker->stopping)
        maker->state = MAKER_FAILED;
    else
        add_file(maker);
}

static void next_step(struct segment_maker *maker)
{
    struct ring *ring = maker->options.ring;
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
        name_change_begin(&maker->naming, maker->options.names);
        start(maker, MAKER_RENAME);
        ring_file_rename(ring, &maker->io, maker->options.dir_fd, maker->new_name, maker->name);
        break;
    case MAKER_RENAME:
        maker->state = MAKER_SYNC_DIR;
        if (canary_on(CANARY_NAME_NOT_SYNCED))
            add_file(maker);
        else
            name_change_sync(&maker->naming, ring, named);
        break;
    case MAKER_HEADER:
        if (maker->options.sync_after_write) {
            start(maker, MAKER_HEADER_SYNC);
            ring_file_sync(ring, &maker->io, maker->segment->fd);
            break;
        }
        enter(maker);
        break;
    default:
        KVS_ASSERT(maker->state == MAKER_HEADER_SYNC);
        enter(maker);
        break;
    }
}

static void step_done(struct ring_op *op)
{
    struct segment_maker *maker = container_of(op, struct segment_maker, io);
    if (maker->state == MAKER_OPEN && op->error == KVS_ERR_OK)
        maker->fd = op->fd;
    if (maker->state == MAKER_UNDO) {
        pause_after_failure(maker);
        return;
    }
    if (op->error != KVS_ERR_OK)
        fail(maker, op->error, ring_op_text(op));
    else if (maker->stopping)
        maker->state = MAKER_FAILED;
    else
        next_step(maker);
}

static void write_header_again(struct segment_maker *maker)
{
    uint8_t *block = maker->chunk;
    encode_header(maker, block);
    start(maker, MAKER_HEADER);
    ring_file_write(maker->options.ring, &maker->io, maker->segment->fd, block, KVS_BLOCK_BYTES, 0,
                    maker->options.sync_after_write ? 0 : RING_WRITE_DURABLE);
}

/* So that its log need not wait for memory. (Of a new file it is written from here.) */
static void back_image(struct segment_maker *maker)
{
    const uint64_t left = maker->options.table->segment_bytes - maker->written;
    const size_t bytes = left < BACK_BYTES ? (size_t)left : BACK_BYTES;
    big_memory_populate(maker->image + maker->written, bytes);
    maker->written += bytes;
    if (bytes < left)
        maker->state = MAKER_BACK;
    else
        write_header_again(maker);
}

static void use_again(struct segment_maker *maker)
{
    maker->written = 0;
    if (maker->image != NULL)
        back_image(maker);
    else
        write_header_again(maker);
}

static void begin_new(struct segment_maker *maker)
{
    start(maker, MAKER_OPEN);
    if (maker->number >= maker->options.table->count_max) {
        fail(maker, KVS_ERR_NO_SPACE, "the store has as many segments as it can address");
        return;
    }
    ring_file_open(maker->options.ring, &maker->io, maker->options.dir_fd, maker->new_name,
                   RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE |
                       (maker->options.direct ? RING_OPEN_DIRECT : 0u));
}

/* With its memory, or as one that needs none. */
static void begin_file(struct segment_maker *maker)
{
    maker->uid = maker->options.epoch << 32 | (*maker->options.uid_counter)++;
    if (maker->segment == NULL && !maker->numbered) {
        maker->number_new = segment_number_take(maker->options.table);
        maker->numbered = true;
    }
    maker->number = maker->segment != NULL ? maker->segment->number : maker->number_new;
    segment_name(maker->name, maker->number, "");
    segment_name(maker->new_name, maker->number, ".new");
    /* What the manifest says of the file may be durable though the change has failed: it must not begin another life.
     */
    if (manifest_failed(maker->options.manifest))
        fail(maker, KVS_ERR_FAILED, manifest_failure_text(maker->options.manifest));
    else if (maker->segment != NULL)
        use_again(maker);
    else
        begin_new(maker);
}

void segment_maker_begin(struct segment_maker *maker, enum maker_purpose purpose, struct segment *from)
{
    KVS_ASSERT(segment_maker_can_use_again(maker));
    KVS_ASSERT(from == NULL || maker->segment == NULL);
    maker->purpose = purpose;
    if (from != NULL)
        maker->segment = from;
    maker->state = MAKER_IMAGE;
    segment_maker_turn(maker);
}

void segment_maker_turn(struct segment_maker *maker)
{
    if (maker->stopping)
        return;
    if (maker->state == MAKER_IMAGE) {
        bool for_log = maker->purpose == MAKE_FOR_LOG || maker->purpose == MAKE_FOR_DELETES;
        if (for_log)
            maker->image = image_take(maker->options.images);
        else if (maker->purpose == MAKE_FOR_RELOCATION)
            maker->image = image_take_unused(maker->options.images);
        if (!for_log || maker->image != NULL)
            begin_file(maker);
    } else if (maker->state == MAKER_BACK) {
        back_image(maker);
    } else if (maker->state == MAKER_ENTER) {
        if (manifest_durable(maker->options.manifest, maker->ticket))
            finish(maker);
        else if (manifest_failed(maker->options.manifest))
            fail(maker, KVS_ERR_FAILED, manifest_failure_text(maker->options.manifest));
        else if (manifest_waits_for_space(maker->options.manifest))
            segment_maker_refuse(maker, KVS_ERR_NO_SPACE, "there is no space for a new " MANIFEST_NAME);
    }
}

struct segment *segment_maker_take(struct segment_maker *maker)
{
    if (maker->state != MAKER_READY)
        return NULL;
    struct segment *segment = maker->segment;
    maker->segment = NULL;
    maker->state = MAKER_IDLE;
    return segment;
}

void segment_maker_stop(struct segment_maker *maker)
{
    maker->stopping = true;
    if (maker->timer_active)
        ring_cancel(maker->options.ring, &maker->timer);
}

bool segment_maker_idle(const struct segment_maker *maker)
{
    bool working = maker->state >= MAKER_OPEN && maker->state <= MAKER_HEADER_SYNC;
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
    free(maker->chunk);
    maker->chunk = NULL;
}
