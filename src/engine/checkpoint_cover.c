/*
 * checkpoint_cover.c - a run from the records of segments:
 *
 *   records ──► entries, in chunks, each sorted when it is full ──► merge of the chunks ──► run (checkpoint_make.c)
 *
 * Happy path: the records of one segment after the other are walked, some at a time. While the segment has an image
 * they are taken from there, inside a section; it may lose it between two turns, and then its file is read, a window at
 * a time. Every batch header and record is verified either way. The memory for all entries is taken at the beginning,
 * for the segments tell how many records they hold.
 *
 * Failure modes. Damage, or a read that fails: read once more, then the segment is left uncovered for good, and the
 * operator is told; what was taken of it counts for nothing, because the run does not list the segment. A segment that
 * is given up meanwhile is left out likewise. No memory: the run is given up, and tried again later.
 */
#include "base/assert.h"
#include "base/diag.h"
#include "engine/checkpoint_internal.h"

#include <stdlib.h>

enum {
    CHUNK_ENTRIES = 32768, /* some milliseconds to sort */
    SLICE_RECORDS = 4096,
    SLICE_BYTES = 2 * 1024 * 1024,
    WINDOW_BYTES = 1024 * 1024,
};

/* What came of looking at a record, or at the header of a batch. */
enum step { STEP_ON, STEP_READ, STEP_DONE, STEP_DAMAGED };

static uint64_t records_of(const struct segment *segment)
{
    return (uint64_t)segment->puts + segment->deletes;
}

uint64_t cover_bytes(const struct segment *segment)
{
    return records_of(segment) * sizeof(struct run_entry);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct cover_item *)a)->number;
    uint32_t y = ((const struct cover_item *)b)->number;
    return (x > y) - (x < y);
}

static void item_begin(struct cover *cover)
{
    cover->records = 0;
    cover->batch = cover->batch_end = cover->at = KVS_BLOCK_BYTES;
    cover->batch_records = 0;
    cover->window_bytes = 0;
    cover->tries = 0;
    if (cover->item < cover->item_count)
        cover->collector.segment = cover->items[cover->item].number;
}

enum kvs_err cover_begin(struct checkpoint *checkpoint, const struct cover_item *items, uint32_t count)
{
    struct cover *cover = &checkpoint->cover;
    const struct store *store = checkpoint->store;
    KVS_ASSERT(cover->state == COVER_IDLE && count > 0);
    uint64_t entries = 0;
    for (uint32_t i = 0; i < count; i++)
        entries += records_of(segment_get(&store->segments, items[i].number));
    enum kvs_err err = checkpoint_reserve(checkpoint);
    if (err != KVS_ERR_OK)
        return err;
    *cover = (struct cover){.state = COVER_SCAN, .busy = true, .item_count = count};
    cover->collector = (struct run_collector){
        .hash_seed = store->base.superblock.hash_seed, .shift = store->segments.shift, .capacity = entries + 1};
    cover->items = malloc(count * sizeof *items);
    cover->collector.entries = malloc((entries + 1) * sizeof *cover->collector.entries);
    if (cover->items == NULL || cover->collector.entries == NULL) {
        cover_close(checkpoint, checkpoint->ring);
        return KVS_ERR_NO_MEMORY;
    }
    memcpy(cover->items, items, count * sizeof *items);
    qsort(cover->items, count, sizeof *items, by_number);
    item_begin(cover);
    return KVS_ERR_OK;
}

/* ---- the bytes ------------------------------------------------------------------------------------------------- */

/* The bytes [offset, offset + size) of the segment; NULL: they will be in the window after a read. */
static const void *look(struct cover *cover, const struct segment *segment, uint32_t offset, uint64_t size)
{
    const uint8_t *resident = segment_image_at(segment, offset);
    if (resident != NULL)
        return resident;
    if (offset >= cover->window_begin && offset + size <= cover->window_begin + cover->window_bytes)
        return cover->window + (offset - cover->window_begin);
    cover->window_begin = (uint32_t)align_down(offset, KVS_BLOCK_BYTES);
    cover->wanted_end = (uint32_t)align_up(offset + size, KVS_BLOCK_BYTES);
    cover->window_bytes = 0;
    return NULL;
}

static void read_done(struct ring_op *op)
{
    struct cover *cover = container_of(op, struct cover, io);
    cover->reading = false;
    cover->window_bytes = op->error == KVS_ERR_OK ? op->bytes : 0;
    cover->read_short = cover->window_begin + cover->window_bytes < cover->wanted_end;
}

/* The window begins where look() has left it, and reaches at least as far as that wants. */
static enum kvs_err read_begin(struct checkpoint *checkpoint, const struct segment *segment)
{
    struct cover *cover = &checkpoint->cover;
    uint64_t end = cover->window_begin + (uint64_t)WINDOW_BYTES;
    end = end > segment->end ? segment->end : end;
    end = end < cover->wanted_end ? cover->wanted_end : end;
    size_t size = (size_t)(end - cover->window_begin);
    if (size > cover->window_capacity) {
        free(cover->window);
        cover->window = aligned_alloc(KVS_BLOCK_BYTES, size);
        cover->window_capacity = cover->window == NULL ? 0 : size;
        if (cover->window == NULL)
            return KVS_ERR_NO_MEMORY;
    }
    cover->reading = true;
    ring_op_init(&cover->io, read_done);
    ring_file_read(checkpoint->ring, &cover->io, segment->fd, cover->window, size, cover->window_begin);
    return KVS_ERR_OK;
}

bool checkpoint_reads(const struct checkpoint *checkpoint, const struct segment *segment)
{
    const struct cover *cover = &checkpoint->cover;
    return cover->reading && cover->items[cover->item].number == segment->number;
}

/* ---- the walk -------------------------------------------------------------------------------------------------- */

static enum step scan_header(struct cover *cover, const struct segment *segment)
{
    cover->batch = (uint32_t)align_up(cover->batch_end, KVS_BLOCK_BYTES);
    cover->batch_end = cover->batch;
    if (cover->batch_records != 0)
        return STEP_DAMAGED;
    if (cover->batch >= segment->end)
        return cover->records == records_of(segment) ? STEP_DONE : STEP_DAMAGED;
    const struct batch_header *header = look(cover, segment, cover->batch, sizeof *header);
    if (header == NULL)
        return STEP_READ;
    if (!batch_header_valid(header, segment->seed, cover->batch, segment->end - cover->batch))
        return STEP_DAMAGED;
    cover->batch_end = cover->batch + header->bytes;
    cover->batch_records = header->record_count;
    cover->at = cover->batch + (uint32_t)sizeof *header;
    return STEP_ON;
}

static enum step scan_record(struct cover *cover, const struct segment *segment)
{
    const uint64_t room = cover->batch_end - cover->at;
    const struct record_header *record = room < sizeof *record ? NULL : look(cover, segment, cover->at, sizeof *record);
    if (record == NULL)
        return room < sizeof *record ? STEP_DAMAGED : STEP_READ;
    const uint64_t bytes = record_bytes((size_t)record->extra_bytes + record->key_bytes, record->value_bytes);
    if (bytes > room || cover->batch_records == 0 || cover->records == records_of(segment))
        return STEP_DAMAGED;
    record = look(cover, segment, cover->at, bytes);
    if (record == NULL)
        return STEP_READ;
    if (record_check(record, room, segment->seed, cover->at) != RECORD_VALID)
        return STEP_DAMAGED;
    const enum kvs_err err = run_collect(&cover->collector, record, cover->at);
    KVS_ASSERT(err == KVS_ERR_OK); /* there was memory for all of them from the beginning */
    cover->at += (uint32_t)bytes;
    cover->batch_records--;
    cover->records++;
    cover->tries = 0;
    return STEP_ON;
}

/* Looks at some records; in a section, for images. */
static enum step scan_some(struct checkpoint *checkpoint, const struct segment *segment)
{
    struct cover *cover = &checkpoint->cover;
    const uint32_t records = cover->records;
    uint32_t begin = cover->at;
    enum step step = STEP_ON;
    epoch_begin(&checkpoint->store->keeper.base.thread);
    while (step == STEP_ON && cover->records - records < SLICE_RECORDS && cover->at - begin < SLICE_BYTES &&
           cover->collector.count - cover->sorted < CHUNK_ENTRIES)
        step = cover->at == cover->batch_end || cover->batch == cover->batch_end ? scan_header(cover, segment)
                                                                                 : scan_record(cover, segment);
    epoch_end(&checkpoint->store->keeper.base.thread);
    return step;
}

/* ---- from item to item ----------------------------------------------------------------------------------------- */

static void end(struct checkpoint *checkpoint)
{
    if (checkpoint->cover.reading) {
        checkpoint->cover.state = COVER_ENDING;
        return;
    }
    cover_close(checkpoint, checkpoint->ring);
    checkpoint->due = checkpoint->busy = true;
}

static void fail(struct checkpoint *checkpoint, const char *text)
{
    checkpoint_trouble(checkpoint, text);
    end(checkpoint);
}

static uint32_t covers(void *context, struct run_segment *out)
{
    const struct checkpoint *checkpoint = context;
    const struct cover *cover = &checkpoint->cover;
    uint32_t count = 0;
    for (uint32_t i = 0; i < cover->item_count; i++) {
        const struct cover_item *item = &cover->items[i];
        const struct segment *segment = checkpoint_segment(checkpoint, item->number, item->uid);
        if (segment == NULL || item->dropped || segment->run != 0)
            continue;
        out[count++] = run_describe(segment);
    }
    return count;
}

static const struct segment *segment_of(const void *context, uint32_t number)
{
    const struct checkpoint *checkpoint = context;
    const struct cover_item key = {.number = number};
    const struct cover_item *item =
        bsearch(&key, checkpoint->cover.items, checkpoint->cover.item_count, sizeof key, by_number);
    return item == NULL || item->dropped ? NULL : checkpoint_segment(checkpoint, number, item->uid);
}

static void make(struct checkpoint *checkpoint)
{
    struct cover *cover = &checkpoint->cover;
    const size_t entries = cover->collector.count;
    const unsigned chunks = entries == 0 ? 1 : (unsigned)((entries + CHUNK_ENTRIES - 1) / CHUNK_ENTRIES);
    struct run_source *sources = calloc(chunks, sizeof *sources);
    enum kvs_err err = KVS_ERR_NO_MEMORY;
    for (unsigned i = 0; sources != NULL && i < chunks; i++) {
        const size_t at = (size_t)i * CHUNK_ENTRIES;
        sources[i] = (struct run_source){.entries = cover->collector.entries + at,
                                         .count = entries - at < CHUNK_ENTRIES ? entries - at : CHUNK_ENTRIES};
    }
    if (sources != NULL) {
        const struct run_merge_options merge = {.sources = sources, .source_count = chunks};
        const struct making_options options = {.merge = &merge,
                                               .segments_max = cover->item_count,
                                               .covers = covers,
                                               .segment_of = segment_of,
                                               .context = checkpoint};
        err = making_begin(&cover->making, checkpoint, &options);
    }
    free(sources);
    if (err != KVS_ERR_OK) {
        fail(checkpoint, kvs_err_text(err));
        return;
    }
    cover->state = COVER_MAKE;
    cover->busy = true;
}

static void sort_chunk(struct cover *cover)
{
    run_sort(cover->collector.entries + cover->sorted, cover->collector.count - cover->sorted);
    cover->sorted = cover->collector.count;
}

/* The item is finished, one way or the other. */
static void next_item(struct checkpoint *checkpoint, bool dropped)
{
    struct cover *cover = &checkpoint->cover;
    cover->items[cover->item].dropped = dropped;
    cover->item++;
    item_begin(cover);
    cover->busy = true;
    if (cover->item < cover->item_count)
        return;
    bool any = false;
    for (uint32_t i = 0; i < cover->item_count; i++)
        any = any || !cover->items[i].dropped;
    sort_chunk(cover);
    if (any)
        make(checkpoint);
    else
        end(checkpoint);
}

/* What cannot be read now may be read another time; what is damaged in the image is damaged. */
static void damaged(struct checkpoint *checkpoint, struct segment *segment)
{
    struct cover *cover = &checkpoint->cover;
    if (segment_image_at(segment, cover->batch) == NULL && cover->tries++ == 0) {
        cover->window_bytes = 0;
        cover->busy = true;
        return;
    }
    segment->uncoverable = true;
    atomic_fetch_add_explicit(&checkpoint->figures.failed, 1, memory_order_relaxed);
    diag_warn("segment %06u cannot be read at offset %u: no run will cover it. It is left as it is; kvs-check tells "
              "what it holds",
              segment->number, cover->at > cover->batch ? cover->at : cover->batch);
    next_item(checkpoint, true);
}

static void scan(struct checkpoint *checkpoint)
{
    struct cover *cover = &checkpoint->cover;
    const struct cover_item *item = &cover->items[cover->item];
    struct segment *segment = checkpoint_segment(checkpoint, item->number, item->uid);
    if (segment == NULL) {
        next_item(checkpoint, true);
        return;
    }
    const enum step step = cover->read_short ? STEP_DAMAGED : scan_some(checkpoint, segment);
    cover->read_short = false;
    if (cover->collector.count - cover->sorted == CHUNK_ENTRIES)
        sort_chunk(cover);
    cover->busy = step == STEP_ON;
    if (step == STEP_DONE)
        next_item(checkpoint, false);
    else if (step == STEP_DAMAGED)
        damaged(checkpoint, segment);
    else if (step == STEP_READ && read_begin(checkpoint, segment) != KVS_ERR_OK)
        fail(checkpoint, kvs_err_text(KVS_ERR_NO_MEMORY));
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

static void take(struct checkpoint *checkpoint)
{
    struct making *making = &checkpoint->cover.making;
    for (uint32_t i = 0; i < making->segment_count; i++) {
        const struct run_segment *covered = &making->segments[i];
        struct segment *segment = checkpoint_segment(checkpoint, covered->number, covered->uid);
        if (segment != NULL && segment->run == 0)
            segment->run = making->sequence;
    }
    checkpoint_made(checkpoint, making);
    making->run = NULL;
}

static void made(struct checkpoint *checkpoint)
{
    struct making *making = &checkpoint->cover.making;
    const enum kvs_err err = making_turn(making);
    checkpoint->cover.busy = making->busy;
    if (err == KVS_ERR_AGAIN)
        return;
    if (err == KVS_ERR_OK)
        take(checkpoint);
    else if (making->state == MAKING_OPEN)
        checkpoint_add(checkpoint, NULL, making->sequence);
    if (making->unsure)
        checkpoint_postpone(checkpoint);
    else if (err != KVS_ERR_OK && err != KVS_ERR_CANCELLED)
        checkpoint_trouble(checkpoint, making->failure);
    end(checkpoint);
}

void cover_turn(struct checkpoint *checkpoint)
{
    struct cover *cover = &checkpoint->cover;
    cover->busy = false;
    if (cover->state == COVER_SCAN && !cover->reading) {
        scan(checkpoint);
    } else if (cover->state == COVER_MAKE) {
        made(checkpoint);
    } else if (cover->state == COVER_ENDING && !cover->reading) {
        end(checkpoint);
    }
}

void cover_give_up(struct checkpoint *checkpoint)
{
    struct cover *cover = &checkpoint->cover;
    if (cover->state == COVER_MAKE) {
        making_give_up(&cover->making);
    } else if (cover->state == COVER_SCAN) {
        if (cover->reading)
            ring_cancel(checkpoint->ring, &cover->io);
        end(checkpoint);
    }
}

void cover_close(struct checkpoint *checkpoint, struct ring *ring)
{
    struct cover *cover = &checkpoint->cover;
    making_close(&cover->making, ring);
    free(cover->items);
    free(cover->collector.entries);
    free(cover->window);
    *cover = (struct cover){.state = COVER_IDLE};
}
