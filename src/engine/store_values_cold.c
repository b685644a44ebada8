/*
 * store_values_cold.c - the file of a large value whose record is on disk only when it expires.
 *
 * Happy path: the expiry takes the entry out of the index, and the record is read, for it names the file; then the file
 * is as good as any other whose value has expired, and waits for what those wait for (store_values.h).
 *
 * The record may be read although nothing points at it any more: the read counts in shard->reading, like that of a GET,
 * so its segment stays as it is until then.
 *
 * Failure: the record cannot be read, or is damaged. Then the file stays, as after a crash, until the sweep that
 * follows the next start.
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>

struct value_look {
    struct list link;
    struct store_shard *shard;
    struct ring_op io;
    uint64_t address, expires_ms;
    uint8_t *buffer;
    size_t buffer_bytes;
    uint32_t skip; /* from the buffer's start to the record */
    unsigned generation;
};

static struct segment *segment_of(const struct value_look *look)
{
    const struct segment_table *table = &look->shard->store->segments;
    return segment_get(table, address_segment(look->address, table->shift));
}

/* The record that was read; NULL: it is not whole, or damaged. */
static const struct record_header *record_of(const struct value_look *look)
{
    const struct record_header *record = (const void *)(look->buffer + look->skip);
    uint64_t room = look->io.bytes > look->skip ? look->io.bytes - look->skip : 0;
    uint32_t offset = address_offset(look->address, look->shard->store->segments.shift);
    if (look->io.error != KVS_ERR_OK || room < sizeof *record)
        return NULL;
    return record_check(record, room, segment_of(look)->seed, offset) == RECORD_VALID ? record : NULL;
}

static void look_done(struct ring_op *op)
{
    struct value_look *look = container_of(op, struct value_look, io);
    struct store_shard *shard = look->shard;
    const struct record_header *record = record_of(look);
    if (record != NULL && record_is_large(record)) {
        const struct value_descriptor descriptor = record_descriptor(record);
        store_value_expired(shard, &descriptor, record->key_bytes, look->expires_ms);
    }
    KVS_ASSERT(shard->reading[look->generation] > 0 && shard->values.look_count > 0);
    shard->reading[look->generation]--;
    shard->values.look_count--;
    store_buffer_give(shard, look->buffer, look->buffer_bytes);
    list_remove(&look->link);
    free(look);
}

bool store_value_expired_cold(struct store_shard *shard, const struct index_entry *entry, uint64_t expires_ms)
{
    struct shard_values *values = &shard->values;
    const struct segment_table *table = &shard->store->segments;
    if (values->look_count == VALUE_LOOKS_MAX || shard->stopping)
        return false;
    uint32_t offset = address_offset(entry->address, table->shift);
    uint64_t begin = align_down(offset, KVS_BLOCK_BYTES);
    uint64_t end = align_up(offset + record_class_bytes(entry->class), KVS_BLOCK_BYTES);
    if (end > table->segment_bytes)
        end = table->segment_bytes;
    struct value_look *look = malloc(sizeof *look);
    uint8_t *buffer = store_buffer_take(shard, (size_t)(end - begin));
    if (look == NULL || buffer == NULL) {
        store_buffer_give(shard, buffer, (size_t)(end - begin));
        free(look);
        return false;
    }
    *look = (struct value_look){.shard = shard,
                                .address = entry->address,
                                .expires_ms = expires_ms,
                                .buffer = buffer,
                                .buffer_bytes = (size_t)(end - begin),
                                .skip = (uint32_t)(offset - begin),
                                .generation = shard->generation};
    shard->reading[look->generation]++;
    values->look_count++;
    list_push_back(&values->looks, &look->link);
    store_count(&shard->counters.disk_reads, 1);
    store_count(&shard->counters.disk_read_bytes, (int64_t)look->buffer_bytes);
    ring_op_init(&look->io, look_done);
    ring_file_read(shard->ring, &look->io, segment_of(look)->fd, buffer, look->buffer_bytes, begin);
    return true;
}

void store_value_looks_free(struct shard_values *values)
{
    for (struct list *node; (node = list_pop_front(&values->looks)) != NULL;) {
        struct value_look *look = container_of(node, struct value_look, link);
        free(look->buffer);
        free(look);
    }
}
