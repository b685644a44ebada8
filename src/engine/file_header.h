/*
 * file_header.h - how the headers in a store's files begin: eight bytes that tell of what, then a CRC32C of all bytes
 * behind it. So do the blocks of the manifest. (Batches and records have shorter ones: log_format.h.)
 *
 * Pure; any thread.
 */
#ifndef KVS_ENGINE_FILE_HEADER_H
#define KVS_ENGINE_FILE_HEADER_H

#include "base/crc32c.h"
#include "base/limits.h"

#include <string.h>

struct file_header {
    uint64_t magic;
    uint32_t crc;
    uint32_t version; /* the first that is checked */
};

/* The checksum of a header of `size` bytes, all in all; `seed` is 0, or stands for where it belongs. */
static inline uint32_t file_header_crc(const void *header, size_t size, uint32_t seed)
{
    const size_t skip = offsetof(struct file_header, version);
    return crc32c(seed, (const uint8_t *)header + skip, size - skip);
}

/* A block that begins with these fields, all but the checksum of which are set, and holds zeros behind them. */
static inline void file_header_seal(uint8_t out[KVS_BLOCK_BYTES], const void *fields, size_t size)
{
    memset(out, 0, KVS_BLOCK_BYTES);
    memcpy(out, fields, size);
    const uint32_t crc = file_header_crc(out, KVS_BLOCK_BYTES, 0);
    memcpy(out + offsetof(struct file_header, crc), &crc, sizeof crc);
}

#endif
