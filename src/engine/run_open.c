/*
 * run_open.c - a chain of asynchronous steps:
 *
 *   open NNNNNNNNNNNN.run → read header → check it, and the file's size against it → read the blocks behind the
 *   entries, some at a time → check them, take over their items → ready
 *
 * Failure at any step: the cause is kept, the file is closed by run_close. Memory for what the header announces is only
 * taken when the file is long enough to hold it.
 */
#include "engine/run_open.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

enum { TAIL_READ_BYTES = 4 * RUN_BLOCK_BYTES };

enum step { STEP_OPEN, STEP_HEADER, STEP_TAIL, STEP_READY, STEP_FAILED };

struct run_opening {
    struct ring_op io;
    struct run *run;
    struct ring *ring;
    enum step step;
    enum kvs_err error;
    uint8_t store_uuid[16];
    uint8_t *buffer; /* TAIL_READ_BYTES */
    uint64_t block;  /* the next to be read */
    uint32_t blocks; /* under way */
    struct run_segment *segments;
    uint64_t *first_orders;
    uint32_t segments_got;
    uint64_t orders_got;
    char failure[ENGINE_MESSAGE_BYTES];
};

static void step_done(struct ring_op *op);

static void fail(struct run_opening *opening, enum kvs_err error, const char *text)
{
    snprintf(opening->failure, sizeof opening->failure, "%s/%s: %s", opening->run->dir_name, opening->run->name, text);
    opening->error = error;
    opening->step = STEP_FAILED;
}

static void fail_block(struct run_opening *opening, uint64_t number, const char *text)
{
    snprintf(opening->failure, sizeof opening->failure, "%s/%s: block %llu: %s", opening->run->dir_name,
             opening->run->name, (unsigned long long)number, text);
    opening->error = KVS_ERR_CORRUPT;
    opening->step = STEP_FAILED;
}

static void ready(struct run_opening *opening)
{
    struct run *run = opening->run;
    KVS_ASSERT(opening->segments_got == run->segment_count);
    KVS_ASSERT(opening->orders_got == run->layout.entry_blocks);
    run->segments = opening->segments;
    run->first_orders = opening->first_orders;
    free(opening->buffer);
    opening->buffer = NULL;
    opening->step = STEP_READY;
}

/* Starts to read as many of the next blocks as the buffer holds. */
static void read_tail(struct run_opening *opening)
{
    struct run *run = opening->run;
    if (opening->block == run->layout.blocks) {
        ready(opening);
        return;
    }
    const uint64_t offset = run_block_extent(&run->layout, opening->block).offset;
    uint32_t bytes = 0;
    opening->blocks = 0;
    while (opening->block + opening->blocks < run->layout.blocks) {
        const struct run_extent extent = run_block_extent(&run->layout, opening->block + opening->blocks);
        if (bytes + extent.bytes > TAIL_READ_BYTES)
            break;
        bytes += extent.bytes;
        opening->blocks++;
    }
    opening->step = STEP_TAIL;
    ring_op_init(&opening->io, step_done);
    ring_file_read(opening->ring, &opening->io, run->fd, opening->buffer, bytes, offset);
}

static const char *take_segments(struct run_opening *opening, const uint8_t *bytes, uint32_t count)
{
    struct run_segment *segments = opening->segments;
    memcpy(segments + opening->segments_got, run_block_items(bytes), count * sizeof *segments);
    for (uint32_t end = opening->segments_got + count; opening->segments_got < end; opening->segments_got++) {
        const uint32_t i = opening->segments_got;
        if (i > 0 && segments[i].number <= segments[i - 1].number)
            return "its segments are not in order";
    }
    return NULL;
}

static const char *take_orders(struct run_opening *opening, const uint8_t *bytes, uint32_t count)
{
    uint64_t *orders = opening->first_orders;
    memcpy(orders + opening->orders_got, run_block_items(bytes), count * sizeof *orders);
    for (uint64_t end = opening->orders_got + count; opening->orders_got < end; opening->orders_got++) {
        const uint64_t i = opening->orders_got;
        if (i > 0 && orders[i] < orders[i - 1])
            return "its index is not in order";
    }
    return NULL;
}

static void take_tail(struct run_opening *opening)
{
    struct run *run = opening->run;
    const uint8_t *bytes = opening->buffer;
    uint64_t left = opening->io.bytes;
    for (uint32_t i = 0; i < opening->blocks; i++) {
        const struct run_extent extent = run_block_extent(&run->layout, opening->block);
        const char *wrong = left < extent.bytes
                                ? "the file ends before it"
                                : run_block_check(bytes, &extent, run->seed, run->sequence, opening->block);
        if (wrong == NULL)
            wrong = extent.kind == RUN_SEGMENTS ? take_segments(opening, bytes, extent.count)
                                                : take_orders(opening, bytes, extent.count);
        if (wrong != NULL) {
            fail_block(opening, opening->block, wrong);
            return;
        }
        bytes += extent.bytes;
        left -= extent.bytes;
        opening->block++;
    }
    read_tail(opening);
}

static void take_header(struct run_opening *opening)
{
    struct run *run = opening->run;
    const char *wrong = opening->io.bytes < RUN_HEADER_BYTES
                            ? "it is too short"
                            : run_header_check(opening->buffer, opening->store_uuid, run->sequence);
    struct ring_file_info info = {0};
    if (wrong == NULL) {
        struct run_header header;
        memcpy(&header, opening->buffer, sizeof header);
        run->entry_count = header.entry_count;
        run->delete_count = header.delete_count;
        run->time_ms = header.time_ms;
        run->segment_count = header.segment_count;
        run_layout(&run->layout, header.entry_count, header.segment_count);
        if (ring_file_info(opening->ring, run->fd, &info) != KVS_ERR_OK || info.size != run->layout.file_bytes)
            wrong = "its size does not agree with its header";
    }
    if (wrong != NULL) {
        fail(opening, KVS_ERR_CORRUPT, wrong);
        return;
    }
    opening->segments = malloc((run->segment_count + 1u) * sizeof *opening->segments);
    opening->first_orders = malloc((run->layout.entry_blocks + 1) * sizeof *opening->first_orders);
    if (opening->segments == NULL || opening->first_orders == NULL) {
        fail(opening, KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        return;
    }
    opening->block = run->layout.entry_blocks;
    read_tail(opening);
}

static void step_done(struct ring_op *op)
{
    struct run_opening *opening = container_of(op, struct run_opening, io);
    if (op->error != KVS_ERR_OK) {
        fail(opening, op->error, ring_op_text(op));
        return;
    }
    switch (opening->step) {
    case STEP_OPEN:
        opening->run->fd = op->fd;
        opening->step = STEP_HEADER;
        ring_op_init(op, step_done);
        ring_file_read(opening->ring, op, opening->run->fd, opening->buffer, RUN_HEADER_BYTES, 0);
        break;
    case STEP_HEADER:
        take_header(opening);
        break;
    default:
        KVS_ASSERT(opening->step == STEP_TAIL);
        take_tail(opening);
        break;
    }
}

enum kvs_err run_open_begin(struct run **out, const struct run_open_options *options)
{
    struct run *run = calloc(1, sizeof *run);
    struct run_opening *opening = calloc(1, sizeof *opening);
    uint8_t *buffer = aligned_alloc(KVS_BLOCK_BYTES, TAIL_READ_BYTES);
    if (run == NULL || opening == NULL || buffer == NULL) {
        free(run);
        free(opening);
        free(buffer);
        return KVS_ERR_NO_MEMORY;
    }
    run->sequence = options->sequence;
    run->fd = -1;
    run->seed = run_seed(options->store_uuid, options->sequence);
    run->dir_name = options->dir_name;
    run->opening = opening;
    run_name(run->name, options->sequence, "");
    opening->run = run;
    opening->ring = options->ring;
    opening->buffer = buffer;
    opening->step = STEP_OPEN;
    memcpy(opening->store_uuid, options->store_uuid, sizeof opening->store_uuid);
    ring_op_init(&opening->io, step_done);
    ring_file_open(options->ring, &opening->io, options->dir_fd, run->name,
                   RING_OPEN_READ | (options->direct ? RING_OPEN_DIRECT : 0u));
    *out = run;
    return KVS_ERR_OK;
}

enum kvs_err run_state(const struct run *run)
{
    const struct run_opening *opening = run->opening;
    return opening->step == STEP_READY ? KVS_ERR_OK : opening->step == STEP_FAILED ? opening->error : KVS_ERR_AGAIN;
}

const char *run_failure_text(const struct run *run)
{
    return run->opening->failure;
}

enum kvs_err run_open(struct run **out, const struct run_open_options *options, char message[ENGINE_MESSAGE_BYTES])
{
    struct run *run;
    enum kvs_err err = run_open_begin(&run, options);
    *out = NULL;
    if (err != KVS_ERR_OK) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "%s", kvs_err_text(err));
        return err;
    }
    while ((err = run_state(run)) == KVS_ERR_AGAIN)
        ring_turn(options->ring, -1);
    if (err == KVS_ERR_OK) {
        *out = run;
        return KVS_ERR_OK;
    }
    snprintf(message, ENGINE_MESSAGE_BYTES, "%s", run_failure_text(run));
    run_close(run, options->ring);
    return err;
}

void run_close(struct run *run, struct ring *ring)
{
    if (run == NULL)
        return;
    if (run->fd >= 0)
        ring_close_fd(ring, run->fd);
    free(run->opening->buffer);
    free(run->opening->segments);
    free(run->opening->first_orders);
    free(run->opening);
    free(run);
}

const struct run_segment *run_segment_find(const struct run *run, uint32_t number)
{
    uint32_t low = 0, high = run->segment_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (run->segments[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < run->segment_count && run->segments[low].number == number ? &run->segments[low] : NULL;
}
