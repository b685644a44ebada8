/*
 * run_writer.c - a chain of steps, the second of which is as long as the run:
 *
 *   open *.run.new → write blocks of entries → of segments → of the index → header, when nothing is in flight → sync →
 *   rename → sync directory → done
 *
 *   window  │ block │ block │ block │ block │   filled in place, sealed, written at once; WINDOWS of them in turn
 *
 * Happy path: items are put into the open block of the open window; a full block is sealed, a full window is written,
 * and another one that has no write in flight becomes the open one. The header is written last, for it holds the
 * counts.
 *
 * Failure: of a step, or to get memory. The first is kept; when nothing is in flight any more the file is closed and
 * its name removed, the final one if it had that already. An unlink that fails leaves an unfinished file, which the
 * next start removes.
 */
#include "engine/run_writer.h"

#include "base/assert.h"
#include "ring/ring.h"

#include <stdio.h>
#include <stdlib.h>

enum { WINDOWS = 4, WINDOW_BYTES = 4 * RUN_BLOCK_BYTES };

enum step {
    STEP_OPEN,
    STEP_ENTRIES,
    STEP_TAIL,  /* segments and index */
    STEP_DRAIN, /* all is being written but the header */
    STEP_HEADER,
    STEP_SYNC,
    STEP_RENAME,
    STEP_SYNC_DIR,
    STEP_DONE,
    STEP_FAILING, /* waits for what is in flight */
    STEP_UNDO,
    STEP_FAILED,
};

struct window {
    struct ring_op op;
    struct run_writer *writer;
    bool active;
    uint8_t *bytes;
    uint32_t used; /* sealed blocks */
};

struct run_writer {
    struct run_writer_options options;
    uint8_t store_uuid[16];
    char name[RUN_NAME_BYTES], new_name[RUN_NAME_BYTES];
    enum step step;
    enum kvs_err error;
    bool renamed;
    int fd;
    uint32_t seed;
    struct ring_op io; /* of every step but the writing of windows, and but the sync of the directory: */
    struct name_change naming;

    uint8_t *memory;
    struct window windows[WINDOWS];
    unsigned current; /* the open window */
    unsigned in_flight;
    uint64_t offset; /* of the open window in the file */
    enum run_block_kind kind;
    uint32_t items;  /* in the open block */
    uint64_t blocks; /* sealed */

    uint64_t entries, deletes;
    unsigned __int128 last_key;
    uint64_t *first_orders;
    uint64_t first_orders_size;
    uint64_t first_order_count;
    struct run_segment *segments;
    uint32_t segment_count;
    uint64_t tail_taken; /* segments, then orders, that were put into blocks */
    char failure[ENGINE_MESSAGE_BYTES];
};

static void io_done(struct ring_op *op);

/* ---- failure --------------------------------------------------------------------------------------------------- */

/* Once nothing is in flight: removes the file. */
static void undo(struct run_writer *writer)
{
    if (writer->in_flight > 0)
        return;
    if (writer->fd < 0) {
        writer->step = STEP_FAILED;
        return;
    }
    ring_close_fd(writer->options.ring, writer->fd);
    writer->fd = -1;
    writer->step = STEP_UNDO;
    ring_op_init(&writer->io, io_done);
    ring_file_unlink(writer->options.ring, &writer->io, writer->options.dir_fd,
                     writer->renamed ? writer->name : writer->new_name);
}

static void fail(struct run_writer *writer, enum kvs_err error, const char *what, const char *text)
{
    KVS_ASSERT(error != KVS_ERR_OK);
    if (writer->error == KVS_ERR_OK) {
        writer->error = error;
        snprintf(writer->failure, sizeof writer->failure, "cannot %s %s/%s: %s", what, writer->options.dir_name,
                 writer->name, text);
    }
    writer->step = STEP_FAILING;
}

/* Fails between two completions. What is in flight goes on to its end and finds the error then. */
static void give_up(struct run_writer *writer, enum kvs_err error)
{
    const enum step step = writer->step;
    fail(writer, error, "write", kvs_err_text(error));
    if (step == STEP_OPEN || (step >= STEP_HEADER && step <= STEP_SYNC_DIR))
        writer->step = step;
    else
        undo(writer);
}

void run_writer_abort(struct run_writer *writer)
{
    if (writer->step < STEP_DONE && writer->error == KVS_ERR_OK)
        give_up(writer, KVS_ERR_CANCELLED);
}

/* ---- windows and blocks ---------------------------------------------------------------------------------------- */

static void pump(struct run_writer *writer);

static void window_done(struct ring_op *op)
{
    struct window *window = container_of(op, struct window, op);
    struct run_writer *writer = window->writer;
    KVS_ASSERT(window->active && writer->in_flight > 0);
    window->active = false;
    window->used = 0;
    writer->in_flight--;
    if (op->error != KVS_ERR_OK && writer->step != STEP_FAILING)
        fail(writer, op->error, "write", ring_op_text(op));
    pump(writer);
}

static void window_write(struct run_writer *writer)
{
    struct window *window = &writer->windows[writer->current];
    KVS_ASSERT(!window->active && window->used > 0);
    window->active = true;
    writer->in_flight++;
    ring_op_init(&window->op, window_done);
    ring_file_write(writer->options.ring, &window->op, writer->fd, window->bytes, window->used, writer->offset, 0);
    writer->offset += window->used;
    writer->current = (writer->current + 1) % WINDOWS;
}

/* The place for the next item of the open block and how many more it holds; NULL: a write must complete first. */
static uint8_t *block_room(struct run_writer *writer, uint32_t *room)
{
    struct window *window = &writer->windows[writer->current];
    if (window->active)
        return NULL;
    KVS_ASSERT(window->used + RUN_BLOCK_BYTES <= WINDOW_BYTES);
    *room = run_items_max(writer->kind) - writer->items;
    return window->bytes + window->used + sizeof(struct run_block) +
           (size_t)writer->items * run_item_bytes(writer->kind);
}

/* Seals the open block, if there is anything in it, and writes the window when no whole block fits behind it. */
static void block_end(struct run_writer *writer)
{
    if (writer->items == 0)
        return;
    struct window *window = &writer->windows[writer->current];
    run_block_seal(window->bytes + window->used, writer->kind, writer->items, writer->seed, writer->options.sequence,
                   writer->blocks);
    window->used += run_block_bytes(writer->kind, writer->items);
    writer->items = 0;
    writer->blocks++;
    if (window->used + RUN_BLOCK_BYTES > WINDOW_BYTES)
        window_write(writer);
}

static bool first_order_add(struct run_writer *writer, uint64_t order)
{
    if (writer->first_order_count == writer->first_orders_size) {
        const uint64_t size = writer->first_orders_size > 0 ? 2 * writer->first_orders_size : 1024;
        uint64_t *orders = realloc(writer->first_orders, size * sizeof *orders);
        if (orders == NULL) {
            fail(writer, KVS_ERR_NO_MEMORY, "write", kvs_err_text(KVS_ERR_NO_MEMORY));
            return false;
        }
        writer->first_orders = orders;
        writer->first_orders_size = size;
    }
    writer->first_orders[writer->first_order_count++] = order;
    return true;
}

static void entries_copy(struct run_writer *writer, uint8_t *to, const struct run_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned __int128 key = run_entry_key(&entries[i]);
        KVS_ASSERT(key > writer->last_key || writer->entries + i == 0);
        writer->last_key = key;
        writer->deletes += run_entry_is_delete(&entries[i]);
    }
    memcpy(to, entries, count * sizeof *entries);
    writer->entries += count;
    writer->items += (uint32_t)count;
}

size_t run_writer_put(struct run_writer *writer, const struct run_entry *entries, size_t count)
{
    size_t taken = 0;
    while (taken < count && writer->step == STEP_ENTRIES) {
        uint32_t room = 0;
        uint8_t *to = block_room(writer, &room);
        if (to == NULL || (writer->items == 0 && !first_order_add(writer, entries[taken].order)))
            break;
        const size_t some = count - taken < room ? count - taken : room;
        KVS_ASSERT(writer->entries + some <= RUN_ENTRIES_MAX);
        entries_copy(writer, to, entries + taken, some);
        taken += some;
        if (some == room)
            block_end(writer);
    }
    if (writer->step == STEP_FAILING)
        undo(writer);
    return taken;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* Puts segments, then the index, into blocks, as far as there are free windows. True when all is in. */
static bool tail_put(struct run_writer *writer)
{
    for (;;) {
        const bool segments = writer->kind == RUN_SEGMENTS;
        const uint64_t all = segments ? writer->segment_count : writer->first_order_count;
        uint32_t room = 0;
        if (writer->tail_taken == all) {
            block_end(writer);
            if (!segments)
                return true;
            writer->kind = RUN_INDEX;
            writer->tail_taken = 0;
            continue;
        }
        uint8_t *to = block_room(writer, &room);
        if (to == NULL)
            return false;
        const uint64_t left = all - writer->tail_taken;
        const uint32_t some = left < room ? (uint32_t)left : room;
        const void *from = segments ? (const void *)(writer->segments + writer->tail_taken)
                                    : (const void *)(writer->first_orders + writer->tail_taken);
        memcpy(to, from, (size_t)some * run_item_bytes(writer->kind));
        writer->items += some;
        writer->tail_taken += some;
        if (some == room)
            block_end(writer);
    }
}

static void header_write(struct run_writer *writer)
{
    struct run_header fields = {.sequence = writer->options.sequence,
                                .entry_count = writer->entries,
                                .delete_count = writer->deletes,
                                .segment_count = writer->segment_count,
                                .time_ms = writer->options.time_ms};
    memcpy(fields.store_uuid, writer->store_uuid, sizeof fields.store_uuid);
    struct run_layout layout;
    run_layout(&layout, writer->entries, writer->segment_count);
    KVS_ASSERT(layout.blocks == writer->blocks && layout.file_bytes == writer->offset);
    run_header_encode(writer->memory, &fields);
    writer->step = STEP_HEADER;
    ring_op_init(&writer->io, io_done);
    ring_file_write(writer->options.ring, &writer->io, writer->fd, writer->memory, RUN_HEADER_BYTES, 0, 0);
}

/* Goes on with what a completed write has made possible. */
static void pump(struct run_writer *writer)
{
    if (writer->step == STEP_FAILING) {
        undo(writer);
        return;
    }
    if (writer->step == STEP_TAIL && tail_put(writer)) {
        writer->step = STEP_DRAIN;
        if (writer->windows[writer->current].used > 0 && !writer->windows[writer->current].active)
            window_write(writer);
    }
    if (writer->step == STEP_DRAIN && writer->in_flight == 0)
        header_write(writer);
}

void run_writer_finish(struct run_writer *writer, const struct run_segment *segments, uint32_t segment_count)
{
    KVS_ASSERT(segment_count <= RUN_SEGMENTS_MAX && writer->segments == NULL);
    if (writer->error != KVS_ERR_OK)
        return;
    KVS_ASSERT(writer->step == STEP_ENTRIES || writer->step == STEP_OPEN);
    writer->segments = malloc((segment_count + 1u) * sizeof *segments);
    if (writer->segments == NULL) {
        give_up(writer, KVS_ERR_NO_MEMORY);
        return;
    }
    for (uint32_t i = 0; i < segment_count; i++) {
        KVS_ASSERT(i == 0 || segments[i].number > segments[i - 1].number);
        writer->segments[i] = segments[i];
    }
    writer->segment_count = segment_count;
    if (writer->step == STEP_OPEN) /* goes on when the file is open */
        return;
    block_end(writer);
    writer->kind = RUN_SEGMENTS;
    writer->step = STEP_TAIL;
    pump(writer);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static const char *step_name(enum step step)
{
    return step == STEP_OPEN       ? "make"
           : step == STEP_HEADER   ? "write"
           : step == STEP_RENAME   ? "rename"
           : step == STEP_SYNC_DIR ? "sync the directory of"
                                   : "sync";
}

static void sync_file(struct run_writer *writer)
{
    writer->step = STEP_SYNC;
    ring_op_init(&writer->io, io_done);
    ring_file_sync(writer->options.ring, &writer->io, writer->fd);
}

static void rename_file(struct run_writer *writer)
{
    const struct run_writer_options *options = &writer->options;
    if (options->names != NULL)
        name_change_begin(&writer->naming, options->names);
    writer->step = STEP_RENAME;
    ring_op_init(&writer->io, io_done);
    ring_file_rename(options->ring, &writer->io, options->dir_fd, writer->new_name, writer->name);
}

static void named(struct name_change *change)
{
    struct run_writer *writer = container_of(change, struct run_writer, naming);
    KVS_ASSERT(writer->step == STEP_SYNC_DIR);
    if (change->error != KVS_ERR_OK)
        fail(writer, change->error, step_name(STEP_SYNC_DIR), change->text);
    if (writer->error == KVS_ERR_OK) {
        writer->step = STEP_DONE;
        return;
    }
    writer->step = STEP_FAILING;
    undo(writer);
}

static void sync_name(struct run_writer *writer)
{
    writer->step = STEP_SYNC_DIR;
    if (writer->options.names != NULL)
        name_change_sync(&writer->naming, writer->options.ring, named);
    else
        writer->step = STEP_DONE;
}

static void io_done(struct ring_op *op)
{
    struct run_writer *writer = container_of(op, struct run_writer, io);
    const enum step step = writer->step;
    if (step == STEP_OPEN && op->error == KVS_ERR_OK)
        writer->fd = op->fd;
    if (step == STEP_UNDO) {
        writer->step = STEP_FAILED;
        return;
    }
    if (step == STEP_RENAME)
        writer->renamed = op->error == KVS_ERR_OK;
    if (op->error != KVS_ERR_OK)
        fail(writer, op->error, step_name(step), ring_op_text(op));
    if (writer->error != KVS_ERR_OK) {
        writer->step = STEP_FAILING;
        undo(writer);
        return;
    }
    switch (step) {
    case STEP_OPEN:
        writer->step = STEP_ENTRIES;
        if (writer->segments != NULL) { /* finished already: a run without entries */
            writer->kind = RUN_SEGMENTS;
            writer->step = STEP_TAIL;
            pump(writer);
        }
        break;
    case STEP_HEADER:
        sync_file(writer);
        break;
    case STEP_SYNC:
        rename_file(writer);
        break;
    default:
        KVS_ASSERT(step == STEP_RENAME);
        sync_name(writer);
        break;
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

enum kvs_err run_writer_open(struct run_writer **out, const struct run_writer_options *options)
{
    struct run_writer *writer = calloc(1, sizeof *writer);
    uint8_t *memory = aligned_alloc(KVS_BLOCK_BYTES, (size_t)WINDOWS * WINDOW_BYTES);
    if (writer == NULL || memory == NULL) {
        free(writer);
        free(memory);
        return KVS_ERR_NO_MEMORY;
    }
    writer->options = *options;
    memcpy(writer->store_uuid, options->store_uuid, sizeof writer->store_uuid);
    writer->options.store_uuid = writer->store_uuid;
    writer->seed = run_seed(options->store_uuid, options->sequence);
    writer->fd = -1;
    writer->offset = RUN_HEADER_BYTES;
    writer->kind = RUN_ENTRIES;
    writer->memory = memory;
    for (unsigned i = 0; i < WINDOWS; i++) {
        writer->windows[i].writer = writer;
        writer->windows[i].bytes = memory + (size_t)i * WINDOW_BYTES;
    }
    run_name(writer->name, options->sequence, "");
    run_name(writer->new_name, options->sequence, ".new");
    writer->step = STEP_OPEN;
    ring_op_init(&writer->io, io_done);
    ring_file_open(options->ring, &writer->io, options->dir_fd, writer->new_name,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE |
                       (options->direct ? RING_OPEN_DIRECT : 0u));
    *out = writer;
    return KVS_ERR_OK;
}

enum kvs_err run_writer_state(const struct run_writer *writer)
{
    return writer->step == STEP_DONE ? KVS_ERR_OK : writer->step == STEP_FAILED ? writer->error : KVS_ERR_AGAIN;
}

const char *run_writer_failure_text(const struct run_writer *writer)
{
    return writer->failure;
}

uint64_t run_writer_entries(const struct run_writer *writer)
{
    return writer->entries;
}

uint64_t run_writer_bytes(const struct run_writer *writer)
{
    struct run_layout layout;
    run_layout(&layout, writer->entries, writer->segment_count);
    return layout.file_bytes;
}

void run_writer_close(struct run_writer *writer, struct ring *ring)
{
    if (writer == NULL)
        return;
    if (writer->fd >= 0)
        ring_close_fd(ring, writer->fd);
    free(writer->memory);
    free(writer->first_orders);
    free(writer->segments);
    free(writer);
}
