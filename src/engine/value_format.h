/*
 * value_format.h - the bytes of a value file, which holds one large value, and of the record in the log that names it.
 * Pure; any thread.
 *
 *   values/IIIIIIIIIIIIIIII-BBBBBBBB.val
 *   ┌──────────────────────────┬──────────────────────────┬─────────────────────────────┐
 *   │ header, key, zeros       │ value, zeros             │ checksums of chunks, zeros  │
 *   └──────────────────────────┴──────────────────────────┴─────────────────────────────┘
 *   each part: as many blocks of 4 KiB as it must have. chunk: 64 KiB of the value, the last one shorter
 *
 * The record of the key is a put with the flag RECORD_LARGE, whose value is a struct value_descriptor. A value file is
 * written once, made durable under its final name before the record is appended, and never changed. Its id is used
 * once in the life of a store (boot in the upper half), so a descriptor can only mean one file. The header carries the
 * key: whether a file still counts can be asked without a list of those that do. The name carries the size (blocks in
 * all): what value files take is known from the folder alone.
 *
 * Checksums are CRC32C begun with a seed made of the store's UUID and the id; those of chunks with their number, too.
 * docs/FORMAT.md describes every field; this header is its counterpart in code.
 */
#ifndef KVS_ENGINE_VALUE_FORMAT_H
#define KVS_ENGINE_VALUE_FORMAT_H

#include "engine/log_format.h"

#define VALUE_MAGIC   0x31304c415653564bull /* "KVSVAL01" */
#define VALUE_VERSION 1u

#define VALUE_DIR_NAME    "values"
#define VALUE_CHUNK_BYTES 65536u

struct value_header {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the struct, and of the key */
    uint32_t version;
    uint8_t store_uuid[16];
    uint64_t id;
    uint64_t value_bytes;
    uint32_t key_bytes;
    uint32_t chunk_bytes; /* VALUE_CHUNK_BYTES */
    uint64_t reserved;    /* 0 */
};
static_assert(sizeof(struct value_header) == 64, "value header");

/* What the log has in place of the value. */
struct value_descriptor {
    uint64_t id;
    uint64_t value_bytes;
    uint32_t header_crc; /* value_header.crc */
    uint32_t reserved;   /* 0 */
};
static_assert(sizeof(struct value_descriptor) == RECORD_DESCRIPTOR_BYTES, "value descriptor");

/* Where everything lies in a value file. Follows from two lengths. */
struct value_layout {
    uint64_t value_at;     /* a multiple of 4 KiB, as are all of these */
    uint64_t checksums_at; /* behind the value and its zeros */
    uint64_t file_bytes;
    uint32_t chunks;
};

static inline struct value_layout value_layout_of(size_t key_bytes, uint64_t value_bytes)
{
    struct value_layout layout;
    layout.chunks = (uint32_t)((value_bytes + VALUE_CHUNK_BYTES - 1) / VALUE_CHUNK_BYTES);
    layout.value_at = align_up(sizeof(struct value_header) + key_bytes, KVS_BLOCK_BYTES);
    layout.checksums_at = layout.value_at + align_up(value_bytes, KVS_BLOCK_BYTES);
    layout.file_bytes = layout.checksums_at + align_up(4ull * layout.chunks, KVS_BLOCK_BYTES);
    return layout;
}

/* Seed of a file's checksums. */
uint32_t value_seed(const uint8_t store_uuid[16], uint64_t id);

/* Of a chunk: `size` of its bytes. */
uint32_t value_chunk_crc(uint32_t seed, uint32_t chunk, const void *bytes, size_t size);

/* Writes header and key at `out`, which has value_at zeroed bytes; returns the header's checksum. */
uint32_t value_header_encode(uint8_t *out, const uint8_t store_uuid[16], uint64_t id, struct slice key,
                             uint64_t value_bytes);
/* NULL when these `size` bytes begin with a whole header of this store and id, key included; else what is wrong. */
const char *value_header_check(const void *bytes, size_t size, const uint8_t store_uuid[16], uint64_t id);

static inline struct slice value_header_key(const struct value_header *header)
{
    return slice_make(header + 1, header->key_bytes);
}

/* True when the record's value lies in a file of its own. */
static inline bool record_is_large(const struct record_header *record)
{
    return (record->flags & RECORD_LARGE) != 0;
}

/* The descriptor in a record that is large, and whose length record_check has approved of. */
static inline struct value_descriptor record_descriptor(const struct record_header *record)
{
    struct value_descriptor descriptor;
    memcpy(&descriptor, record_value(record).data, sizeof descriptor);
    return descriptor;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

#define VALUE_NAME_BYTES 40

/* What a name says. */
struct value_name {
    uint64_t id;
    uint32_t blocks; /* of the file */
    bool unfinished; /* it has the suffix ".new" */
};

static inline struct value_name value_name_of(uint64_t id, size_t key_bytes, uint64_t value_bytes)
{
    uint64_t file_bytes = value_layout_of(key_bytes, value_bytes).file_bytes;
    return (struct value_name){.id = id, .blocks = (uint32_t)(file_bytes / KVS_BLOCK_BYTES)};
}

void value_name_write(char out[VALUE_NAME_BYTES], struct value_name name);
/* False when this is no value file's name. */
bool value_name_parse(const char *text, struct value_name *name);

#endif
