/*
 * value_writer.c - a value becomes a file.
 *
 *   open NAME.val.new → allocate → write, some parts in flight → sync → rename to NAME.val → sync the folder → done
 *
 * The parts are written from buffers of their own, because O_DIRECT wants them aligned and whole, and because the
 * checksums are taken on the way. Because of the rename a file under its final name is always whole.
 *
 * Failure at any step: what is in flight comes to its end, the file is removed, and the cause is told. Nothing is tried
 * again: a sync that has failed once may succeed the next time without what it was to cover.
 */
#include "engine/value_file.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

static void step_done(struct ring_op *op);
static void write_done(struct ring_op *op);

static const char *const step_names[] = {
    [VALUE_OPEN] = "making",  [VALUE_ALLOCATE] = "allocating", [VALUE_WRITE] = "writing",
    [VALUE_SYNC] = "syncing", [VALUE_RENAME] = "naming",       [VALUE_SYNC_DIR] = "syncing the name of",
};

static size_t checksums_bytes(const struct value_writer *writer)
{
    return (size_t)(writer->layout.file_bytes - writer->layout.checksums_at);
}

/* What there was of memory. */
static void free_buffers(struct value_writer *writer)
{
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX; i++) {
        free(writer->writes[i].buffer);
        writer->writes[i].buffer = NULL;
    }
    free(writer->checksums);
    writer->checksums = NULL;
}

static void end(struct value_writer *writer)
{
    if (writer->fd >= 0)
        ring_close_fd(writer->ring, writer->fd);
    writer->fd = -1;
    free_buffers(writer);
    writer->done(writer);
}

static void start(struct value_writer *writer, enum value_writer_state state)
{
    writer->state = state;
    ring_op_init(&writer->io, step_done);
}

/* Notes the first thing that went wrong. */
static void note(struct value_writer *writer, enum kvs_err error, const char *cause)
{
    if (writer->error != KVS_ERR_OK)
        return;
    bool told = error == KVS_ERR_NO_SPACE || error == KVS_ERR_NO_MEMORY || error == KVS_ERR_NO_DESCRIPTORS;
    writer->error = told ? error : KVS_ERR_IO;
    snprintf(writer->text, sizeof writer->text, "%s " VALUE_DIR_NAME "/%s failed: %s", step_names[writer->state],
             writer->names[1], cause);
}

/* Nothing is in flight any more: the file goes. */
static void undo(struct value_writer *writer)
{
    KVS_ASSERT(writer->error != KVS_ERR_OK && writer->in_flight == 0);
    if (writer->fd < 0) {
        end(writer);
        return;
    }
    bool renamed = writer->state == VALUE_SYNC_DIR;
    start(writer, VALUE_UNDO);
    ring_file_unlink(writer->ring, &writer->io, writer->place->dir_fd, writer->names[renamed]);
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

static uint8_t *take_buffer(struct value_write *write)
{
    if (write->buffer == NULL)
        write->buffer = aligned_alloc(KVS_BLOCK_BYTES, VALUE_STEP_BYTES);
    return write->buffer;
}

/* Fills the buffer with the part of the value that begins at `at`; returns its bytes in the file. */
static size_t fill_value(struct value_writer *writer, uint8_t *buffer, uint64_t at)
{
    uint64_t left = writer->value.size - at;
    size_t size = left < VALUE_STEP_BYTES ? (size_t)left : VALUE_STEP_BYTES;
    memcpy(buffer, writer->value.data + at, size);
    for (size_t i = 0; i < size; i += VALUE_CHUNK_BYTES) {
        uint32_t chunk = (uint32_t)((at + i) / VALUE_CHUNK_BYTES);
        size_t bytes = size - i < VALUE_CHUNK_BYTES ? size - i : VALUE_CHUNK_BYTES;
        writer->checksums[chunk] = value_chunk_crc(writer->seed, chunk, buffer + i, bytes);
    }
    size_t padded = (size_t)align_up(size, KVS_BLOCK_BYTES);
    memset(buffer + size, 0, padded - size);
    return padded;
}

static size_t fill_header(struct value_writer *writer, uint8_t *buffer)
{
    size_t size = (size_t)writer->layout.value_at;
    memset(buffer, 0, size);
    writer->descriptor.header_crc =
        value_header_encode(buffer, writer->place->store_uuid, writer->id, writer->key, writer->value.size);
    return size;
}

/* The header is the first part, then come those of the value, and the checksums at last. */
static void start_part(struct value_writer *writer, struct value_write *write)
{
    const struct value_layout *layout = &writer->layout;
    uint64_t at = writer->at;
    const void *bytes = write->buffer;
    size_t size;
    if (at == 0) {
        size = fill_header(writer, write->buffer);
    } else if (at < layout->checksums_at) {
        size = fill_value(writer, write->buffer, at - layout->value_at);
    } else {
        bytes = writer->checksums;
        size = checksums_bytes(writer);
    }
    writer->at += size;
    write->busy = true;
    writer->in_flight++;
    ring_op_init(&write->io, write_done);
    ring_file_write(writer->ring, &write->io, writer->fd, bytes, size, at, 0);
}

static struct value_write *free_write(struct value_writer *writer)
{
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX; i++) {
        if (!writer->writes[i].busy)
            return &writer->writes[i];
    }
    return NULL;
}

bool value_writer_has_work(const struct value_writer *writer)
{
    return writer->state == VALUE_WRITE && writer->error == KVS_ERR_OK && writer->at < writer->layout.file_bytes &&
           writer->in_flight < VALUE_TRANSFERS_MAX;
}

void value_writer_work(struct value_writer *writer)
{
    KVS_ASSERT(value_writer_has_work(writer));
    struct value_write *write = free_write(writer);
    KVS_ASSERT(write != NULL);
    if (take_buffer(write) != NULL) {
        start_part(writer, write);
    } else if (writer->in_flight == 0) { /* else it goes on with the buffers that it has */
        note(writer, KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        undo(writer);
    }
}

static void write_done(struct ring_op *op)
{
    struct value_write *write = container_of(op, struct value_write, io);
    struct value_writer *writer = write->writer;
    write->busy = false;
    KVS_ASSERT(writer->in_flight > 0);
    writer->in_flight--;
    if (op->error != KVS_ERR_OK)
        note(writer, op->error, ring_op_text(op));
    if (writer->in_flight > 0)
        return;
    if (writer->error != KVS_ERR_OK) {
        undo(writer);
    } else if (writer->at == writer->layout.file_bytes) {
        free_buffers(writer);
        start(writer, VALUE_SYNC);
        ring_file_sync(writer->ring, &writer->io,
                       canary_on(CANARY_VALUE_NOT_SYNCED) ? writer->place->dir_fd : writer->fd);
    }
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void named(struct name_change *change)
{
    struct value_writer *writer = container_of(change, struct value_writer, naming);
    KVS_ASSERT(writer->state == VALUE_SYNC_DIR && writer->error == KVS_ERR_OK);
    if (change->error == KVS_ERR_OK) {
        end(writer);
        return;
    }
    note(writer, change->error, change->text);
    undo(writer);
}

void value_writer_turn(struct value_writer *writer)
{
    if (writer->state == VALUE_SYNC_DIR)
        name_change_collect(&writer->naming);
}

static void next_step(struct value_writer *writer)
{
    struct ring *ring = writer->ring;
    const struct value_place *place = writer->place;
    switch (writer->state) {
    case VALUE_OPEN:
        start(writer, VALUE_ALLOCATE);
        ring_file_allocate(ring, &writer->io, writer->fd, writer->layout.file_bytes);
        break;
    case VALUE_ALLOCATE:
        writer->state = VALUE_WRITE; /* the rest is work */
        break;
    case VALUE_SYNC:
        name_change_begin(&writer->naming, &writer->place->names);
        start(writer, VALUE_RENAME);
        ring_file_rename(ring, &writer->io, place->dir_fd, writer->names[0], writer->names[1]);
        break;
    case VALUE_RENAME:
        writer->state = VALUE_SYNC_DIR;
        if (canary_on(CANARY_VALUE_NAME_NOT_SYNCED))
            end(writer);
        else
            name_change_sync(&writer->naming, ring, named);
        break;
    default:
        KVS_ASSERT(false);
        break;
    }
}

static void step_done(struct ring_op *op)
{
    struct value_writer *writer = container_of(op, struct value_writer, io);
    if (writer->state == VALUE_UNDO) {
        writer->left_behind = op->error != KVS_ERR_OK && op->error != KVS_ERR_NOT_FOUND;
        if (writer->left_behind)
            diag_warn("cannot remove " VALUE_DIR_NAME "/%s, whose writing has failed: %s; the next start will",
                      writer->names[1], ring_op_text(op));
        end(writer);
        return;
    }
    if (writer->state == VALUE_OPEN && op->error == KVS_ERR_OK)
        writer->fd = op->fd;
    if (op->error != KVS_ERR_OK)
        note(writer, op->error, ring_op_text(op));
    if (writer->error != KVS_ERR_OK)
        undo(writer);
    else
        next_step(writer);
}

void value_writer_begin(struct value_writer *writer)
{
    writer->layout = value_layout_of(writer->key.size, writer->value.size);
    writer->name = value_name_of(writer->id, writer->key.size, writer->value.size);
    value_name_write(writer->names[1], writer->name);
    struct value_name unfinished = writer->name;
    unfinished.unfinished = true;
    value_name_write(writer->names[0], unfinished);
    writer->seed = value_seed(writer->place->store_uuid, writer->id);
    writer->descriptor = (struct value_descriptor){.id = writer->id, .value_bytes = writer->value.size};
    writer->error = KVS_ERR_OK;
    writer->left_behind = false;
    writer->text[0] = '\0';
    writer->fd = -1;
    writer->at = 0;
    writer->in_flight = 0;
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX; i++)
        writer->writes[i] = (struct value_write){.writer = writer};
    start(writer, VALUE_OPEN);
    writer->checksums = aligned_alloc(KVS_BLOCK_BYTES, checksums_bytes(writer));
    if (writer->checksums == NULL) {
        note(writer, KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        undo(writer);
        return;
    }
    memset(writer->checksums, 0, checksums_bytes(writer));
    ring_file_open(writer->ring, &writer->io, writer->place->dir_fd, writer->names[0],
                   RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE |
                       (writer->place->direct ? RING_OPEN_DIRECT : 0u));
}

void value_writer_abandon(struct value_writer *writer, struct ring *ring)
{
    if (writer->fd >= 0)
        ring_close_fd(ring, writer->fd);
    writer->fd = -1;
    free_buffers(writer);
}
