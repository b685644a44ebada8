/*
 * warmup.c - one segment at a time, in reads of one piece after the other, so that others find the disk free in
 * between; then it is verified as a start would, and shown: an image's beginning, or as the oldest image.
 *
 * Meanwhile the segment may be retired, and between two reads its file begin another life. So what was read counts only
 * if the segment is the same afterwards.
 */
#include "engine/warmup.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/big_memory.h"
#include "engine/keeper.h"
#include "engine/recovery_scan.h"
#include "engine/store.h"

#include <stdlib.h>

enum { PIECE_BYTES = 1024 * 1024 };

void warmup_init(struct warmup *warmup)
{
    *warmup = (struct warmup){.below_uid = UINT64_MAX};
}

bool warmup_idle(const struct warmup *warmup)
{
    return !warmup->reading;
}

bool warmup_busy(const struct warmup *warmup)
{
    return !warmup->done && !warmup->reading;
}

bool warmup_reads(const struct warmup *warmup, const struct segment *segment)
{
    return warmup->reading && warmup->number == segment->number && warmup->uid == segment->uid;
}

/* The image lacks its beginning. */
static bool is_tail(const struct segment *segment)
{
    return (segment_state(segment) == SEGMENT_OPEN || segment_state(segment) == SEGMENT_SEALED) &&
           segment_image(segment) != NULL && atomic_load_explicit(&segment->image_from, memory_order_relaxed) > 0;
}

static bool is_absent(const struct segment *segment)
{
    return segment_state(segment) == SEGMENT_SEALED && image_gone(segment);
}

/* The youngest one that has not had its turn. */
static struct segment *choose(const struct keeper *keeper)
{
    const struct warmup *warmup = &keeper->warmup;
    const struct segment_table *table = &keeper->store->segments;
    uint32_t end = atomic_load_explicit(&table->next, memory_order_relaxed);
    struct segment *chosen = NULL;
    for (uint32_t i = 0; i < end; i++) {
        struct segment *segment = segment_get(table, i);
        if (segment != NULL && (warmup->tails_done ? is_absent(segment) : is_tail(segment)) &&
            segment->uid < warmup->below_uid && (chosen == NULL || segment->uid > chosen->uid))
            chosen = segment;
    }
    return chosen;
}

/* The one in hand; NULL when it is not what it was any more. */
static struct segment *current(const struct keeper *keeper)
{
    const struct warmup *warmup = &keeper->warmup;
    struct segment *segment = segment_get(&keeper->store->segments, warmup->number);
    if (segment == NULL || segment->uid != warmup->uid)
        return NULL;
    return (warmup->image == NULL ? is_tail(segment) : is_absent(segment)) ? segment : NULL;
}

/* Images that logs may want at once are left to them. */
static bool has_room(const struct keeper *keeper)
{
    const struct image_pool *pool = &keeper->images;
    uint32_t made = atomic_load_explicit(&pool->count, memory_order_relaxed);
    return pool->count_max - made + pool->free_count > keeper->images_min;
}

static void begin(struct keeper *keeper)
{
    struct warmup *warmup = &keeper->warmup;
    const struct segment *segment = warmup->tails_done && !has_room(keeper) ? NULL : choose(keeper);
    if (segment == NULL && !warmup->tails_done) {
        warmup->tails_done = true;
        warmup->below_uid = UINT64_MAX;
        free(warmup->piece);
        warmup->piece = NULL;
        return;
    }
    if (segment == NULL) {
        warmup->done = true;
        return;
    }
    warmup->below_uid = segment->uid;
    if (warmup->tails_done)
        warmup->image = image_take_unused(&keeper->images);
    else if (warmup->piece == NULL)
        warmup->piece = aligned_alloc(KVS_BLOCK_BYTES, PIECE_BYTES);
    warmup->done = warmup->image == NULL && warmup->piece == NULL;
    warmup->busy = !warmup->done;
    warmup->number = segment->number;
    warmup->uid = segment->uid;
    warmup->read_bytes = 0;
    warmup->wanted_bytes = (uint32_t)keeper->store->segments.segment_bytes;
    if (!warmup->tails_done)
        warmup->wanted_bytes = atomic_load_explicit(&segment->image_from, memory_order_relaxed);
    warmup->backed_bytes = warmup->wanted_bytes;
}

static void end(struct keeper *keeper)
{
    if (keeper->warmup.image != NULL)
        image_give(&keeper->images, keeper->warmup.image);
    keeper->warmup.image = NULL;
    keeper->warmup.busy = false;
}

static void read_done(struct ring_op *op)
{
    struct keeper *keeper = container_of(op, struct keeper, warmup.io);
    struct warmup *warmup = &keeper->warmup;
    warmup->reading = false;
    if (op->error != KVS_ERR_OK || op->bytes == 0) {
        end(keeper);
        return;
    }
    /* Images come and go on this thread, so this one is still the segment's; and nobody looks there yet. */
    const struct segment *segment = current(keeper);
    if (warmup->image == NULL && segment != NULL)
        memcpy(segment_image(segment) + warmup->read_bytes, warmup->piece, op->bytes);
    warmup->read_bytes += (uint32_t)op->bytes;
}

static void read_next(struct keeper *keeper, const struct segment *segment)
{
    struct warmup *warmup = &keeper->warmup;
    const uint32_t left = warmup->wanted_bytes - warmup->read_bytes;
    warmup->reading = true;
    ring_op_init(&warmup->io, read_done);
    ring_file_read(keeper->ring, &warmup->io, segment->fd,
                   warmup->image == NULL ? warmup->piece : warmup->image + warmup->read_bytes,
                   left < PIECE_BYTES ? left : PIECE_BYTES, warmup->read_bytes);
}

/* Some of what the log has not written to yet; false: all is. */
static bool back_some(struct keeper *keeper, const struct segment *segment)
{
    struct warmup *warmup = &keeper->warmup;
    const uint64_t left = keeper->store->segments.segment_bytes - warmup->backed_bytes;
    const uint32_t bytes = left < PIECE_BYTES ? (uint32_t)left : PIECE_BYTES;
    if (bytes > 0)
        big_memory_populate(segment_image(segment) + warmup->backed_bytes, bytes);
    warmup->backed_bytes += bytes;
    return bytes > 0;
}

static void no_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    (void)context;
    (void)batch;
    (void)offset;
}

static void show(struct keeper *keeper, struct segment *segment)
{
    struct warmup *warmup = &keeper->warmup;
    const struct scan_segment scan = {.bytes = warmup->image != NULL ? warmup->image : segment_image(segment),
                                      .size = warmup->wanted_bytes,
                                      .seed = segment->seed,
                                      .epoch = keeper->store->base.superblock.epoch};
    const uint32_t expected = warmup->image != NULL ? segment->end : warmup->wanted_bytes;
    struct scan_result result;
    scan_batches(&scan, &result, no_batch, NULL);
    if (result.end != expected && !canary_on(CANARY_WARMUP_UNVERIFIED)) {
        diag_error("segment %06u of %s is damaged at offset %u: its records from there on cannot be read, up to offset "
                   "%u. Check the directory with kvs-check, or restore a backup of this file",
                   segment->number, keeper->store->base.data_dir, result.end, expected);
        return;
    }
    atomic_store_explicit(&segment->image_from, 0, memory_order_release);
    if (warmup->image != NULL)
        image_attach_oldest(&keeper->images, segment, warmup->image);
    warmup->image = NULL;
}

void warmup_turn(struct keeper *keeper, bool stopping)
{
    struct warmup *warmup = &keeper->warmup;
    if (warmup->reading)
        return;
    struct segment *segment = warmup->busy ? current(keeper) : NULL;
    if (warmup->busy && (stopping || segment == NULL))
        end(keeper);
    if (stopping)
        warmup->done = true;
    if (warmup->done) {
        free(warmup->piece);
        warmup->piece = NULL;
        return;
    }
    if (!warmup->busy) {
        begin(keeper);
        segment = warmup->busy ? current(keeper) : NULL;
    } else if (!back_some(keeper, segment) && warmup->read_bytes == warmup->wanted_bytes) {
        show(keeper, segment);
        end(keeper);
    }
    if (warmup->busy && warmup->read_bytes < warmup->wanted_bytes)
        read_next(keeper, segment);
}

void warmup_deinit(struct keeper *keeper)
{
    end(keeper);
    free(keeper->warmup.piece);
    keeper->warmup.piece = NULL;
}
