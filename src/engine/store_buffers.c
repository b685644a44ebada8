/*
 * store_buffers.c - aligned buffers for cold reads: those of the usual size are kept for reuse, others come and go.
 */
#include "engine/store.h"

#include <stdlib.h>

uint8_t *store_buffer_take(struct store_shard *shard, size_t bytes)
{
    if (bytes > STORE_READ_BUFFER_BYTES)
        return aligned_alloc(KVS_BLOCK_BYTES, bytes);
    void *buffer = shard->read_buffers;
    if (buffer == NULL)
        return aligned_alloc(KVS_BLOCK_BYTES, STORE_READ_BUFFER_BYTES);
    memcpy(&shard->read_buffers, buffer, sizeof shard->read_buffers);
    shard->read_buffer_count--;
    return buffer;
}

void store_buffer_give(struct store_shard *shard, uint8_t *buffer, size_t bytes)
{
    if (buffer == NULL)
        return;
    if (bytes > STORE_READ_BUFFER_BYTES || shard->read_buffer_count >= STORE_READ_BUFFERS_KEPT) {
        free(buffer);
        return;
    }
    memcpy(buffer, &shard->read_buffers, sizeof shard->read_buffers);
    shard->read_buffers = buffer;
    shard->read_buffer_count++;
}

void store_buffers_free(struct store_shard *shard)
{
    while (shard->read_buffers != NULL) {
        void *buffer = shard->read_buffers;
        memcpy(&shard->read_buffers, buffer, sizeof shard->read_buffers);
        free(buffer);
    }
    shard->read_buffer_count = 0;
}
