/*
 * warmup.c - one segment at a time, in reads of one piece after the other, so that others find the disk free in
 * between; then it is verified as a start would, and becomes the oldest image.
 *
 * Meanwhile the segment may have been retired, and its file have begun another life. So what was read counts only if
 * the segment is the same afterwards.
 */
#include "engine/warmup.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/keeper.h"
#include "engine/recovery_scan.h"
#include "engine/store.h"

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

static bool is_candidate(const struct segment *segment, uint64_t below_uid)
{
    return segment != NULL && segment_state(segment) == SEGMENT_SEALED && segment->uid < below_uid &&
           image_gone(segment);
}

/* The youngest one that has no image and has not had its turn. */
static struct segment *choose(const struct keeper *keeper)
{
    const struct segment_table *table = &keeper->store->segments;
    uint32_t end = atomic_load_explicit(&table->next, memory_order_relaxed);
    struct segment *chosen = NULL;
    for (uint32_t i = 0; i < end; i++) {
        struct segment *segment = segment_get(table, i);
        if (is_candidate(segment, keeper->warmup.below_uid) && (chosen == NULL || segment->uid > chosen->uid))
            chosen = segment;
    }
    return chosen;
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
    struct segment *segment = has_room(keeper) ? choose(keeper) : NULL;
    uint8_t *image = segment == NULL ? NULL : image_take_unused(&keeper->images);
    if (image == NULL) {
        warmup->done = true;
        return;
    }
    warmup->segment = segment;
    warmup->uid = warmup->below_uid = segment->uid;
    warmup->image = image;
    warmup->read_bytes = 0;
}

static void end(struct keeper *keeper)
{
    if (keeper->warmup.image != NULL)
        image_give(&keeper->images, keeper->warmup.image);
    keeper->warmup.image = NULL;
    keeper->warmup.segment = NULL;
}

static bool is_same(const struct warmup *warmup)
{
    return segment_state(warmup->segment) == SEGMENT_SEALED && warmup->segment->uid == warmup->uid;
}

static void read_done(struct ring_op *op)
{
    struct keeper *keeper = container_of(op, struct keeper, warmup.io);
    struct warmup *warmup = &keeper->warmup;
    warmup->reading = false;
    if (op->error == KVS_ERR_OK && op->bytes > 0)
        warmup->read_bytes += (uint32_t)op->bytes;
    else
        end(keeper);
}

static void read_next(struct keeper *keeper)
{
    struct warmup *warmup = &keeper->warmup;
    uint64_t left = keeper->store->segments.segment_bytes - warmup->read_bytes;
    warmup->reading = true;
    ring_op_init(&warmup->io, read_done);
    ring_file_read(keeper->ring, &warmup->io, warmup->segment->fd, warmup->image + warmup->read_bytes,
                   left < PIECE_BYTES ? left : PIECE_BYTES, warmup->read_bytes);
}

static void no_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    (void)context;
    (void)batch;
    (void)offset;
}

static void show(struct keeper *keeper)
{
    struct warmup *warmup = &keeper->warmup;
    struct segment *segment = warmup->segment;
    const struct scan_segment scan = {.bytes = warmup->image,
                                      .size = keeper->store->segments.segment_bytes,
                                      .seed = segment->seed,
                                      .epoch = keeper->store->base.superblock.epoch};
    struct scan_result result;
    scan_batches(&scan, &result, no_batch, NULL);
    if (result.end == segment->end || canary_on(CANARY_WARMUP_UNVERIFIED)) {
        image_attach_oldest(&keeper->images, segment, warmup->image);
        warmup->image = NULL;
    } else {
        diag_error("segment %06u of %s is damaged at offset %u: its records from there on cannot be read, up to offset "
                   "%u. Check the directory with kvs-check, or restore a backup of this file",
                   segment->number, keeper->store->base.data_dir, result.end, segment->end);
    }
}

void warmup_turn(struct keeper *keeper, bool stopping)
{
    struct warmup *warmup = &keeper->warmup;
    if (warmup->reading)
        return;
    if (warmup->segment != NULL && (stopping || !is_same(warmup)))
        end(keeper);
    if (stopping)
        warmup->done = true;
    if (warmup->done)
        return;
    if (warmup->segment == NULL) {
        begin(keeper);
    } else if (warmup->read_bytes == keeper->store->segments.segment_bytes) {
        show(keeper);
        end(keeper);
    }
    if (warmup->segment != NULL)
        read_next(keeper);
}
