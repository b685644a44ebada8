/*
 * snapshot_writer.c - a chain of steps:
 *
 *   open indexes.snapshot → write pages, a chunk at a time → write the tables → write the header → sync → done
 *
 * There is no rename: the header comes last, and whatever a power loss leaves of the file is told by its checksums. It
 * is written through the system's cache, for the next start is to find it there.
 *
 * Failure: of a step, or an entry that may have an older one behind it. The file is closed and removed.
 */
#include "engine/snapshot_writer.h"

#include "base/assert.h"
#include "base/canary.h"
#include "engine/snapshot_file.h"
#include "engine/store.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TABLES_SHARE = 32, /* of the budget */
    GROWTH_MAX = 10,   /* doublings of an index since it was made; beyond these it had better be made anew */
};

enum step { STEP_OPEN, STEP_PAGES, STEP_TABLES, STEP_HEADER, STEP_SYNC, STEP_DONE, STEP_UNDO, STEP_FAILED };

struct snapshot_writer {
    struct store *store;
    struct ring *ring;
    struct ring_op io;
    enum step step;
    enum kvs_err error;
    int fd;
    struct snapshot_header header;
    struct snapshot_layout layout;
    uint8_t *tables;
    uint8_t *buffer; /* of a chunk of pages */

    unsigned shard;     /* whose pages are being written … */
    uint64_t at;        /* … from here on: see index_page_next */
    uint64_t pages;     /* so many of all are on their way or written */
    uint64_t chunks;    /* likewise */
    uint64_t items_max; /* of the shard whose items are being listed: there is room for so many more */
    char failure[ENGINE_MESSAGE_BYTES];
};

static void step_done(struct ring_op *op);

/* ---- what there is --------------------------------------------------------------------------------------------- */

/* Holds something, and is found by a start: one whose end is in the manifest, or on its way there, may not be. */
static bool counts(const struct store *store, const struct segment *segment)
{
    const struct retirement *retirement = &store->keeper.retirement;
    if (segment == NULL || segment->end <= KVS_BLOCK_BYTES || (segment == retirement->segment && retirement->entered))
        return false;
    const enum segment_state state = segment_state(segment);
    return state == SEGMENT_OPEN || state == SEGMENT_SEALED || state == SEGMENT_RETIRED;
}

static bool shard_possible(const struct store_shard *shard)
{
    struct index_stats stats;
    index_stats(shard->index, &stats);
    return atomic_load_explicit(&shard->wake_ring, memory_order_acquire) != NULL &&
           atomic_load_explicit(&shard->log_stopped, memory_order_acquire) && !shard->log.failed &&
           atomic_load(&shard->slice) == NULL && shard->busy_count == 0 &&
           store_counted(&shard->expiry.unqueued) == 0 &&
           stats.entries == atomic_load_explicit(&shard->keys, memory_order_relaxed);
}

bool snapshot_possible(const struct store *store)
{
    bool possible = !manifest_failed(store->keeper.manifest) && manifest_idle(store->keeper.manifest);
    for (unsigned i = 0; possible && i < store->shard_count; i++)
        possible = shard_possible(store->shards[i]);
    /* What compaction has not sealed is dropped by a start, but the index may point there. */
    const uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t i = 0; possible && i < end; i++) {
        const struct segment *segment = segment_get(&store->segments, i);
        possible = segment == NULL || segment->kind != SEGMENT_RELOCATED || segment_state(segment) != SEGMENT_OPEN;
    }
    return possible;
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static struct snapshot_shard *shard_table(const struct snapshot_writer *writer)
{
    return (struct snapshot_shard *)(void *)writer->tables;
}

/* How long the tables will be; items at most. */
static void measure(struct snapshot_writer *writer)
{
    const struct store *store = writer->store;
    struct snapshot_header *header = &writer->header;
    const uint32_t end = atomic_load(&store->segments.next);
    header->flushed_lsn = store->base.superblock.flushed_lsn;
    for (uint32_t i = 0; i < end; i++)
        header->segment_count += counts(store, segment_get(&store->segments, i));
    for (unsigned i = 0; i < store->shard_count; i++) {
        const struct store_shard *shard = store->shards[i];
        struct index_place place;
        uint64_t at = 0, pages = 0;
        while (index_page_next(shard->index, &at, &place) != NULL)
            pages++;
        header->page_count += pages;
        header->chunk_count += snapshot_chunks(pages);
        header->item_count += expiry_queue_count(shard->expiry.queue);
        if (shard->log.next_lsn - 1 > header->lsn_max)
            header->lsn_max = shard->log.next_lsn - 1;
    }
    snapshot_layout(&writer->layout, header);
}

static void fill_segments(struct snapshot_writer *writer)
{
    const struct store *store = writer->store;
    struct snapshot_segment *out = (void *)(writer->tables + writer->layout.segments);
    const uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t i = 0; i < end; i++) {
        const struct segment *segment = segment_get(&store->segments, i);
        if (counts(store, segment))
            *out++ = (struct snapshot_segment){.uid = segment->uid, .number = segment->number, .end = segment->end};
    }
}

static void add_item(void *context, uint64_t hash, uint64_t address, uint64_t expires_ms)
{
    struct snapshot_writer *writer = context;
    if (writer->items_max == 0)
        return;
    writer->items_max--;
    struct snapshot_item *items = (void *)(writer->tables + writer->layout.items);
    items[writer->header.item_count++] =
        (struct snapshot_item){.hash = hash, .address = address, .expires_ms = expires_ms > 0 ? expires_ms : 1};
}

/* They are the last of the tables: fewer of them make these shorter. */
static void fill_items(struct snapshot_writer *writer)
{
    writer->header.item_count = 0;
    for (unsigned i = 0; i < writer->store->shard_count; i++) {
        struct store_shard *shard = writer->store->shards[i];
        struct snapshot_shard *out = &shard_table(writer)[i];
        const uint64_t before = writer->header.item_count;
        writer->items_max = expiry_queue_count(shard->expiry.queue);
        store_expiry_each(shard, add_item, writer);
        out->item_count = writer->header.item_count - before;
        out->expiring = store_counted(&shard->expiry.keys);
    }
    snapshot_layout(&writer->layout, &writer->header);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void undo(struct snapshot_writer *writer)
{
    if (writer->fd < 0) {
        writer->step = STEP_FAILED;
        return;
    }
    ring_close_fd(writer->ring, writer->fd);
    writer->fd = -1;
    writer->step = STEP_UNDO;
    ring_op_init(&writer->io, step_done);
    ring_file_unlink(writer->ring, &writer->io, writer->store->base.dir_fd, SNAPSHOT_NAME);
}

static void fail(struct snapshot_writer *writer, enum kvs_err error, const char *text)
{
    writer->error = error;
    snprintf(writer->failure, sizeof writer->failure, "cannot write %s/%s: %s", writer->store->base.data_dir,
             SNAPSHOT_NAME, text);
    undo(writer);
}

static void write_at(struct snapshot_writer *writer, const void *bytes, size_t size, uint64_t offset)
{
    ring_op_init(&writer->io, step_done);
    ring_file_write(writer->ring, &writer->io, writer->fd, bytes, size, offset, 0);
}

/* Copies a page. False: an entry of it may not be the only one of its key. */
static bool take_page(const struct snapshot_writer *writer, const void *page, unsigned position)
{
    struct index_entry entries[INDEX_PAGE_ENTRIES];
    const unsigned count = index_page_read(page, entries);
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].unsettled && !canary_on(CANARY_SNAPSHOT_UNSETTLED))
            return false;
    }
    memcpy(writer->buffer + (size_t)position * INDEX_PAGE_BYTES, page, INDEX_PAGE_BYTES);
    return true;
}

/* Copies as many of the next pages of the shard in hand as a chunk holds; with fewer, the next shard's turn has come.
 * False: an index was not fit for it. */
static bool take_chunk(struct snapshot_writer *writer, unsigned *count)
{
    const struct index *index = writer->store->shards[writer->shard]->index;
    struct index_place *places = (void *)(writer->tables + writer->layout.places);
    const void *page = NULL;
    *count = 0;
    while (*count < SNAPSHOT_CHUNK_PAGES &&
           (page = index_page_next(index, &writer->at, &places[writer->pages + *count])) != NULL) {
        if (places[writer->pages + *count].depth > index_depth_min(index) + GROWTH_MAX) {
            fail(writer, KVS_ERR_CANCELLED, "an index has outgrown its beginnings");
            return false;
        }
        if (!take_page(writer, page, (*count)++)) {
            fail(writer, KVS_ERR_CANCELLED, "an overwrite is not settled");
            return false;
        }
    }
    struct snapshot_shard *shard = &shard_table(writer)[writer->shard];
    shard->page_count += *count;
    if (*count < SNAPSHOT_CHUNK_PAGES) {
        struct index_stats stats;
        index_stats(index, &stats);
        shard->entries = stats.entries;
        shard->depth_min = index_depth_min(index);
        writer->shard++;
        writer->at = 0;
    }
    return true;
}

/* The next chunk. False: there are no more. */
static bool write_chunk(struct snapshot_writer *writer)
{
    unsigned count = 0;
    while (count == 0) { /* a shard may end with a full chunk */
        if (writer->shard == writer->store->shard_count)
            return false;
        if (!take_chunk(writer, &count))
            return true;
    }
    uint64_t *checks = (void *)(writer->tables + writer->layout.checks);
    const size_t bytes = (size_t)count * INDEX_PAGE_BYTES;
    checks[writer->chunks++] = snapshot_check(writer->buffer, bytes, writer->header.store_uuid);
    write_at(writer, writer->buffer, bytes, SNAPSHOT_HEADER_BYTES + writer->pages * INDEX_PAGE_BYTES);
    writer->pages += count;
    return true;
}

static void write_tables(struct snapshot_writer *writer)
{
    KVS_ASSERT(writer->pages == writer->header.page_count && writer->chunks == writer->header.chunk_count);
    writer->step = STEP_TABLES;
    fill_segments(writer);
    fill_items(writer);
    writer->header.tables_check =
        snapshot_check(writer->tables, writer->layout.tables_bytes, writer->header.store_uuid);
    write_at(writer, writer->tables, writer->layout.tables_bytes, writer->layout.tables);
}

static void step_done(struct ring_op *op)
{
    struct snapshot_writer *writer = container_of(op, struct snapshot_writer, io);
    if (writer->step == STEP_UNDO) {
        writer->step = STEP_FAILED;
        return;
    }
    if (op->error != KVS_ERR_OK) {
        fail(writer, op->error, ring_op_text(op));
        return;
    }
    switch (writer->step) {
    case STEP_OPEN:
        writer->fd = op->fd;
        writer->step = STEP_PAGES;
        (void)write_chunk(writer); /* every index has a page */
        break;
    case STEP_PAGES:
        if (!write_chunk(writer))
            write_tables(writer);
        break;
    case STEP_TABLES:
        writer->step = STEP_HEADER;
        snapshot_header_encode(writer->buffer, &writer->header);
        write_at(writer, writer->buffer, SNAPSHOT_HEADER_BYTES, 0);
        break;
    case STEP_HEADER:
        writer->step = STEP_SYNC;
        ring_op_init(&writer->io, step_done);
        ring_file_sync(writer->ring, &writer->io, writer->fd);
        break;
    default:
        KVS_ASSERT(writer->step == STEP_SYNC);
        writer->step = STEP_DONE;
        break;
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

enum kvs_err snapshot_writer_open(struct snapshot_writer **out, struct store *store, struct ring *ring)
{
    struct snapshot_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return KVS_ERR_NO_MEMORY;
    writer->store = store;
    writer->ring = ring;
    writer->fd = -1;
    writer->header.shard_count = store->shard_count;
    memcpy(writer->header.store_uuid, store->base.superblock.uuid, sizeof writer->header.store_uuid);
    measure(writer);
    if (writer->layout.tables_bytes <= store->base.options.memory_bytes / TABLES_SHARE) {
        writer->tables = calloc(1, writer->layout.tables_bytes);
        writer->buffer = aligned_alloc(KVS_BLOCK_BYTES, SNAPSHOT_CHUNK_BYTES);
    }
    if (writer->tables == NULL || writer->buffer == NULL) {
        snapshot_writer_close(writer, ring);
        return KVS_ERR_NO_MEMORY;
    }
    ring_op_init(&writer->io, step_done);
    ring_file_open(ring, &writer->io, store->base.dir_fd, SNAPSHOT_NAME,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE);
    *out = writer;
    return KVS_ERR_OK;
}

enum kvs_err snapshot_writer_state(const struct snapshot_writer *writer)
{
    return writer->step == STEP_DONE ? KVS_ERR_OK : writer->step == STEP_FAILED ? writer->error : KVS_ERR_AGAIN;
}

const char *snapshot_writer_failure_text(const struct snapshot_writer *writer)
{
    return writer->failure;
}

void snapshot_writer_close(struct snapshot_writer *writer, struct ring *ring)
{
    if (writer == NULL)
        return;
    if (writer->fd >= 0)
        ring_close_fd(ring, writer->fd);
    free(writer->tables);
    free(writer->buffer);
    free(writer);
}
