/*
 * run_reader.c - a circle of reads, each of some blocks; the caller consumes the oldest, which is then used again.
 *
 *   reads     │ consumed, now the next but three │ current │ in flight │ in flight │
 *                                                  ▲ block: shown block by block
 *
 * Happy path: the index of the run tells the first and the last block of the range. Each block is checked when its turn
 * has come, in the memory that it was read into, and its entries are shown there; the first and the last are cut to the
 * range. Failure modes: a read that fails, or ends before the block does; a block that is not what its place says; a
 * block that does not continue the one before it.
 */
#include "engine/run_reader.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

enum { READS_DEFAULT = 4, READ_BLOCKS_DEFAULT = 4 };

struct read {
    struct ring_op op;
    bool active;
    uint8_t *bytes;
    uint64_t first, end; /* blocks */
};

struct run_reader {
    const struct run *run;
    struct ring *ring;
    struct run_range range;
    uint64_t block;     /* the next to be shown */
    uint64_t block_end; /* behind the last of the range */
    uint64_t read_next; /* the next to be read */
    unsigned read_blocks;
    unsigned read_count;
    unsigned current; /* in `reads`: holds `block` */
    bool stopped;
    bool any;                   /* an entry was seen */
    unsigned __int128 last_key; /* of it */
    enum kvs_err error;
    uint8_t *memory;
    struct read reads[RUN_READS_MAX];
    char failure[ENGINE_MESSAGE_BYTES];
};

static void read_done(struct ring_op *op)
{
    container_of(op, struct read, op)->active = false;
}

/* Starts to read the next blocks, if there are any. */
static void read_start(struct run_reader *reader, struct read *read)
{
    KVS_ASSERT(!read->active);
    const uint64_t left = reader->block_end - reader->read_next;
    read->first = reader->read_next;
    read->end = read->first + (left < reader->read_blocks ? left : reader->read_blocks);
    if (left == 0)
        return;
    const struct run_extent first = run_block_extent(&reader->run->layout, read->first);
    const struct run_extent last = run_block_extent(&reader->run->layout, read->end - 1);
    const uint64_t bytes = last.offset + last.bytes - first.offset;
    KVS_ASSERT(bytes <= (uint64_t)reader->read_blocks * RUN_BLOCK_BYTES);
    reader->read_next = read->end;
    read->active = true;
    ring_op_init(&read->op, read_done);
    ring_file_read(reader->ring, &read->op, reader->run->fd, read->bytes, bytes, first.offset);
}

/* How many blocks begin with an order below `order`; with `or_equal`, not above it. */
static uint64_t blocks_below(const struct run *run, uint64_t order, bool or_equal)
{
    uint64_t low = 0, high = run->layout.entry_blocks;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        const uint64_t first = run->first_orders[middle];
        if (first < order || (or_equal && first == order))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum kvs_err run_reader_open(struct run_reader **out, const struct run_reader_options *options)
{
    const struct run *run = options->run;
    KVS_ASSERT(run_state(run) == KVS_ERR_OK);
    KVS_ASSERT(options->range.first <= options->range.last);
    KVS_ASSERT(options->reads <= RUN_READS_MAX && options->read_blocks <= RUN_READ_BLOCKS_MAX);
    struct run_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return KVS_ERR_NO_MEMORY;
    reader->run = run;
    reader->ring = options->ring;
    reader->range = options->range;
    /* The range may begin in the block before the first that begins in it. */
    const uint64_t below = blocks_below(run, options->range.first, false);
    reader->block = below > 0 ? below - 1 : 0;
    reader->block_end = blocks_below(run, options->range.last, true);
    if (reader->block > reader->block_end)
        reader->block = reader->block_end;
    reader->read_next = reader->block;

    const uint64_t blocks = reader->block_end - reader->block;
    reader->read_blocks = options->read_blocks > 0 ? options->read_blocks : READ_BLOCKS_DEFAULT;
    reader->read_count = options->reads > 0 ? options->reads : READS_DEFAULT;
    if (blocks < (uint64_t)reader->read_count * reader->read_blocks)
        reader->read_count = (unsigned)((blocks + reader->read_blocks - 1) / reader->read_blocks);
    const size_t read_bytes = (size_t)reader->read_blocks * RUN_BLOCK_BYTES;
    if (reader->read_count > 0)
        reader->memory = aligned_alloc(KVS_BLOCK_BYTES, reader->read_count * read_bytes);
    if (reader->read_count > 0 && reader->memory == NULL) {
        free(reader);
        return KVS_ERR_NO_MEMORY;
    }
    for (unsigned i = 0; i < reader->read_count; i++) {
        reader->reads[i].bytes = reader->memory + i * read_bytes;
        read_start(reader, &reader->reads[i]);
    }
    *out = reader;
    return KVS_ERR_OK;
}

static enum kvs_err fail(struct run_reader *reader, enum kvs_err error, const char *text)
{
    snprintf(reader->failure, sizeof reader->failure, "%s/%s: block %llu: %s", reader->run->dir_name, reader->run->name,
             (unsigned long long)reader->block, text);
    reader->error = error;
    return error;
}

/* The first of some entries whose order is not below `order`; with `above`, the first whose order is above it. */
static const struct run_entry *entry_seek(const struct run_entry *low, const struct run_entry *high, uint64_t order,
                                          bool above)
{
    while (low < high) {
        const struct run_entry *middle = low + (high - low) / 2;
        if (middle->order < order || (above && middle->order == order))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Checks the block that is up, whose bytes have come, and shows what of it lies in the range. */
static enum kvs_err block_show(struct run_reader *reader, const struct read *read, struct run_span *span)
{
    const struct run *run = reader->run;
    const struct run_extent extent = run_block_extent(&run->layout, reader->block);
    const uint64_t offset = (reader->block - read->first) * RUN_BLOCK_BYTES;
    if (read->op.error != KVS_ERR_OK)
        return fail(reader, read->op.error, ring_op_text(&read->op));
    if (read->op.bytes < offset + extent.bytes)
        return fail(reader, KVS_ERR_CORRUPT, "the file ends before it");
    const uint8_t *bytes = read->bytes + offset;
    const char *wrong = run_block_check(bytes, &extent, run->seed, run->sequence, reader->block);
    if (wrong != NULL)
        return fail(reader, KVS_ERR_CORRUPT, wrong);
    const struct run_entry *entries = run_block_items(bytes);
    const struct run_entry *end = entries + extent.count;
    if (entries->order != run->first_orders[reader->block])
        return fail(reader, KVS_ERR_CORRUPT, "it does not agree with the index of the run");
    if (reader->any && run_entry_key(entries) <= reader->last_key)
        return fail(reader, KVS_ERR_CORRUPT, "it does not continue the block before it");
    if (reader->block + 1 < run->layout.entry_blocks && end[-1].order > run->first_orders[reader->block + 1])
        return fail(reader, KVS_ERR_CORRUPT, "it reaches into the block behind it");
    reader->any = true;
    reader->last_key = run_entry_key(end - 1);
    span->at = entries->order < reader->range.first ? entry_seek(entries, end, reader->range.first, false) : entries;
    span->end = end[-1].order > reader->range.last ? entry_seek(span->at, end, reader->range.last, true) : end;
    reader->block++;
    return KVS_ERR_OK;
}

enum kvs_err run_reader_next(struct run_reader *reader, struct run_span *span)
{
    KVS_ASSERT(!reader->stopped);
    *span = (struct run_span){NULL, NULL};
    if (reader->error != KVS_ERR_OK)
        return reader->error;
    /* Only a first or last block can have nothing in the range. */
    while (span->at == span->end && reader->block < reader->block_end) {
        struct read *read = &reader->reads[reader->current];
        if (reader->block == read->end) {
            read_start(reader, read);
            reader->current = (reader->current + 1) % reader->read_count;
            read = &reader->reads[reader->current];
        }
        KVS_ASSERT(reader->block >= read->first && reader->block < read->end);
        if (read->active)
            return KVS_ERR_AGAIN;
        const enum kvs_err err = block_show(reader, read, span);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

const char *run_reader_failure_text(const struct run_reader *reader)
{
    return reader->failure;
}

void run_reader_stop(struct run_reader *reader)
{
    reader->stopped = true;
    for (unsigned i = 0; i < reader->read_count; i++) {
        if (reader->reads[i].active)
            ring_cancel(reader->ring, &reader->reads[i].op);
    }
}

bool run_reader_idle(const struct run_reader *reader)
{
    for (unsigned i = 0; i < reader->read_count; i++) {
        if (reader->reads[i].active)
            return false;
    }
    return true;
}

void run_reader_close(struct run_reader *reader)
{
    if (reader == NULL)
        return;
    free(reader->memory);
    free(reader);
}
