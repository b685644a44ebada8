/*
 * value_reader.c - a value file becomes a value.
 *
 *   open → header and checksums → parts of the value, some in flight, straight to where they belong → each verified
 *        → done
 *
 * Failure: a part that cannot be read or does not verify is read once more; then the value is damaged. What is in
 * flight comes to its end before that is told.
 */
#include "engine/value_file.h"

#include "base/assert.h"
#include "base/canary.h"

#include <stdio.h>
#include <stdlib.h>

static void read_done(struct ring_op *op);
static void around_done(struct ring_op *op);

static void end(struct value_reader *reader)
{
    if (reader->fd >= 0)
        ring_close_fd(reader->ring, reader->fd);
    reader->fd = -1;
    free(reader->head);
    free(reader->checksums);
    reader->head = reader->checksums = NULL;
    reader->done(reader);
}

/* Notes the first thing that went wrong. */
static void note(struct value_reader *reader, enum kvs_err error, uint64_t at, const char *cause)
{
    if (reader->error != KVS_ERR_OK)
        return;
    reader->error = error;
    snprintf(reader->text, sizeof reader->text, "file " VALUE_DIR_NAME "/%s, offset %llu: %s", reader->name,
             (unsigned long long)at, cause);
}

static enum kvs_err error_of(const struct ring_op *op)
{
    if (op->error == KVS_ERR_NO_MEMORY || op->error == KVS_ERR_NO_DESCRIPTORS)
        return op->error;
    return op->error == KVS_ERR_NOT_FOUND ? KVS_ERR_CORRUPT : KVS_ERR_IO;
}

static void end_when_quiet(struct value_reader *reader)
{
    if (reader->in_flight == 0)
        end(reader);
}

/* ---- around the value ------------------------------------------------------------------------------------------ */

static size_t checksums_bytes(const struct value_reader *reader)
{
    return (size_t)(reader->layout.file_bytes - reader->layout.checksums_at);
}

static void read_around(struct value_reader *reader)
{
    reader->in_flight = 2;
    for (unsigned i = 0; i < 2; i++) {
        reader->around[i].reader = reader;
        ring_op_init(&reader->around[i].io, around_done);
    }
    ring_file_read(reader->ring, &reader->around[0].io, reader->fd, reader->head, (size_t)reader->layout.value_at, 0);
    ring_file_read(reader->ring, &reader->around[1].io, reader->fd, reader->checksums, checksums_bytes(reader),
                   reader->layout.checksums_at);
}

/* NULL when what stands around the value is good. */
static const char *check_around(const struct value_reader *reader, enum kvs_err *error)
{
    *error = KVS_ERR_CORRUPT;
    for (unsigned i = 0; i < 2; i++) {
        if (reader->around[i].io.error != KVS_ERR_OK) {
            *error = error_of(&reader->around[i].io);
            return ring_op_text(&reader->around[i].io);
        }
    }
    if (reader->around[0].io.bytes < reader->layout.value_at ||
        reader->around[1].io.bytes < 4ull * reader->layout.chunks)
        return "the file is too short";
    const char *wrong = value_header_check(reader->head, (size_t)reader->layout.value_at, reader->place->store_uuid,
                                           reader->descriptor.id);
    if (wrong != NULL)
        return wrong;
    const struct value_header *header = (const void *)reader->head;
    bool same = header->crc == reader->descriptor.header_crc && header->value_bytes == reader->descriptor.value_bytes &&
                slice_equal(value_header_key(header), reader->key);
    return same ? NULL : "it is not the file that the record names";
}

static void around_done(struct ring_op *op)
{
    struct value_reader *reader = container_of(op, struct value_around, io)->reader;
    KVS_ASSERT(reader->in_flight > 0);
    if (--reader->in_flight > 0)
        return;
    enum kvs_err error;
    const char *wrong = check_around(reader, &error);
    if (wrong == NULL) {
        reader->opened = true; /* the rest is work */
    } else if (!reader->second) {
        reader->second = true;
        read_around(reader);
    } else {
        note(reader, error, 0, wrong);
        end(reader);
    }
}

/* ---- the value ------------------------------------------------------------------------------------------------- */

static size_t part_bytes(const struct value_reader *reader, uint64_t at)
{
    uint64_t left = reader->descriptor.value_bytes - at;
    return left < VALUE_STEP_BYTES ? (size_t)left : VALUE_STEP_BYTES;
}

static void start_read(struct value_reader *reader, struct value_read *read, uint64_t at)
{
    read->reader = reader;
    read->at = at;
    read->busy = true;
    read->arrived = false;
    reader->in_flight++;
    ring_op_init(&read->io, read_done);
    ring_file_read(reader->ring, &read->io, reader->fd, reader->memory->data + at,
                   (size_t)align_up(part_bytes(reader, at), KVS_BLOCK_BYTES), reader->layout.value_at + at);
}

static void read_done(struct ring_op *op)
{
    struct value_read *read = container_of(op, struct value_read, io);
    struct value_reader *reader = read->reader;
    KVS_ASSERT(reader->in_flight > 0);
    reader->in_flight--;
    read->arrived = true;
    if (reader->error != KVS_ERR_OK)
        end_when_quiet(reader);
}

/* NULL when every chunk of the part is good; else what is wrong, and where. */
static const char *check_part(const struct value_reader *reader, const struct value_read *read, uint64_t *place)
{
    size_t size = part_bytes(reader, read->at);
    *place = reader->layout.value_at + read->at;
    if (read->io.error != KVS_ERR_OK)
        return ring_op_text(&read->io);
    if (read->io.bytes < size)
        return "the file is too short";
    for (size_t i = 0; i < size; i += VALUE_CHUNK_BYTES) {
        uint32_t chunk = (uint32_t)((read->at + i) / VALUE_CHUNK_BYTES);
        size_t bytes = size - i < VALUE_CHUNK_BYTES ? size - i : VALUE_CHUNK_BYTES;
        uint32_t expected;
        memcpy(&expected, reader->checksums + 4ull * chunk, sizeof expected);
        *place = reader->layout.value_at + read->at + i;
        if (value_chunk_crc(reader->seed, chunk, reader->memory->data + read->at + i, bytes) != expected &&
            !canary_on(CANARY_VALUE_UNCHECKED))
            return "the checksum is wrong";
    }
    return NULL;
}

static void verify(struct value_reader *reader, struct value_read *read)
{
    uint64_t place;
    const char *wrong = check_part(reader, read, &place);
    read->arrived = false;
    if (wrong == NULL) {
        read->busy = false;
        read->again = false;
        reader->verified += part_bytes(reader, read->at);
        if (reader->verified == reader->descriptor.value_bytes)
            end(reader);
    } else if (!read->again) {
        read->again = true;
        start_read(reader, read, read->at);
    } else {
        note(reader, read->io.error != KVS_ERR_OK ? error_of(&read->io) : KVS_ERR_CORRUPT, place, wrong);
        end_when_quiet(reader);
    }
}

static bool may_read(const struct value_reader *reader)
{
    return reader->next < reader->descriptor.value_bytes;
}

bool value_reader_has_work(const struct value_reader *reader)
{
    if (!reader->opened || reader->error != KVS_ERR_OK)
        return false;
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX; i++) {
        if (reader->reads[i].arrived || (!reader->reads[i].busy && may_read(reader)))
            return true;
    }
    return false;
}

void value_reader_work(struct value_reader *reader)
{
    KVS_ASSERT(value_reader_has_work(reader));
    struct value_read *arrived = NULL;
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX; i++) {
        struct value_read *read = &reader->reads[i];
        if (!read->busy && may_read(reader)) {
            uint64_t at = reader->next;
            reader->next += part_bytes(reader, at);
            start_read(reader, read, at);
            break;
        }
    }
    for (unsigned i = 0; i < VALUE_TRANSFERS_MAX && arrived == NULL; i++) {
        if (reader->reads[i].arrived)
            arrived = &reader->reads[i];
    }
    if (arrived != NULL)
        verify(reader, arrived); /* may end it all */
}

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void opened(struct ring_op *op);

static void open_file(struct value_reader *reader)
{
    ring_op_init(&reader->io, opened);
    ring_file_open(reader->ring, &reader->io, reader->place->dir_fd, reader->name,
                   RING_OPEN_READ | (reader->place->direct ? RING_OPEN_DIRECT : 0u));
}

static void opened(struct ring_op *op)
{
    struct value_reader *reader = container_of(op, struct value_reader, io);
    if (op->error != KVS_ERR_OK && !reader->second) {
        reader->second = true;
        open_file(reader);
        return;
    }
    if (op->error != KVS_ERR_OK) {
        note(reader, error_of(op), 0, op->error == KVS_ERR_NOT_FOUND ? "it is missing" : ring_op_text(op));
        end(reader);
        return;
    }
    reader->fd = op->fd;
    reader->second = false;
    read_around(reader);
}

void value_reader_begin(struct value_reader *reader)
{
    const struct value_descriptor *descriptor = &reader->descriptor;
    reader->layout = value_layout_of(reader->key.size, descriptor->value_bytes);
    value_name_write(reader->name, value_name_of(descriptor->id, reader->key.size, descriptor->value_bytes));
    reader->seed = value_seed(reader->place->store_uuid, descriptor->id);
    reader->error = KVS_ERR_OK;
    reader->text[0] = '\0';
    reader->fd = -1;
    reader->opened = reader->second = false;
    reader->next = reader->verified = 0;
    reader->in_flight = 0;
    memset(reader->reads, 0, sizeof reader->reads);
    KVS_ASSERT(reader->memory->size >= value_reader_bytes(descriptor->value_bytes));
    reader->head = aligned_alloc(KVS_BLOCK_BYTES, (size_t)reader->layout.value_at);
    reader->checksums = aligned_alloc(KVS_BLOCK_BYTES, checksums_bytes(reader));
    if (reader->head == NULL || reader->checksums == NULL) {
        note(reader, KVS_ERR_NO_MEMORY, 0, kvs_err_text(KVS_ERR_NO_MEMORY));
        end(reader);
        return;
    }
    open_file(reader);
}

void value_reader_abandon(struct value_reader *reader, struct ring *ring)
{
    if (reader->fd >= 0)
        ring_close_fd(ring, reader->fd);
    reader->fd = -1;
    free(reader->head);
    free(reader->checksums);
    reader->head = reader->checksums = NULL;
}
