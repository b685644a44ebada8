/*
 * value_format.c - encoding and checking what value_format.h lays out.
 */
#include "engine/value_format.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "engine/file_header.h"

#include <stdio.h>

uint32_t value_seed(const uint8_t store_uuid[16], uint64_t id)
{
    return crc32c(crc32c(0, store_uuid, 16), &id, sizeof id);
}

uint32_t value_chunk_crc(uint32_t seed, uint32_t chunk, const void *bytes, size_t size)
{
    KVS_ASSERT(size <= VALUE_CHUNK_BYTES);
    return crc32c(seed ^ (chunk + 1) * 0x9E3779B1u, bytes, size);
}

/* Of header and key, which stand side by side. */
static uint32_t header_crc(const struct value_header *header, uint32_t seed)
{
    return file_header_crc(header, sizeof *header + header->key_bytes, seed);
}

uint32_t value_header_encode(uint8_t *out, const uint8_t store_uuid[16], uint64_t id, struct slice key,
                             uint64_t value_bytes)
{
    KVS_ASSERT(key.size <= KVS_KEY_BYTES_MAX);
    struct value_header *header = (struct value_header *)(void *)out;
    *header = (struct value_header){.magic = VALUE_MAGIC,
                                    .version = VALUE_VERSION,
                                    .id = id,
                                    .value_bytes = value_bytes,
                                    .key_bytes = (uint32_t)key.size,
                                    .chunk_bytes = VALUE_CHUNK_BYTES};
    memcpy(header->store_uuid, store_uuid, sizeof header->store_uuid);
    if (key.size > 0)
        memcpy(header + 1, key.data, key.size);
    header->crc = header_crc(header, value_seed(store_uuid, id));
    return header->crc;
}

const char *value_header_check(const void *bytes, size_t size, const uint8_t store_uuid[16], uint64_t id)
{
    const struct value_header *header = bytes;
    if (size < sizeof *header)
        return "the file is too short";
    if (header->magic != VALUE_MAGIC)
        return "it does not begin with a value header";
    if (header->key_bytes > KVS_KEY_BYTES_MAX || sizeof *header + header->key_bytes > size)
        return "the key in its header is too long";
    if (header->crc != header_crc(header, value_seed(store_uuid, id)))
        return "the checksum of its header is wrong, or it is another store's or another value's";
    if (header->version != VALUE_VERSION || header->chunk_bytes != VALUE_CHUNK_BYTES)
        return "it has an unknown format version";
    if (header->id != id || memcmp(header->store_uuid, store_uuid, sizeof header->store_uuid) != 0)
        return "its name does not agree with its header";
    return NULL;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

void value_name_write(char out[VALUE_NAME_BYTES], struct value_name name)
{
    snprintf(out, VALUE_NAME_BYTES, "%016llx-%08x.val%s", (unsigned long long)name.id, name.blocks,
             name.unfinished ? ".new" : "");
}

/* Exactly `digits` of them, in lower case. */
static bool parse_hex(const char **text, unsigned digits, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = (*text)[i];
        bool decimal = c >= '0' && c <= '9';
        if (!decimal && (c < 'a' || c > 'f'))
            return false;
        value = value << 4 | (unsigned)(decimal ? c - '0' : c - 'a' + 10);
    }
    *text += digits;
    *out = value;
    return true;
}

bool value_name_parse(const char *text, struct value_name *name)
{
    uint64_t blocks;
    if (!parse_hex(&text, 16, &name->id) || *text++ != '-' || !parse_hex(&text, 8, &blocks))
        return false;
    name->blocks = (uint32_t)blocks;
    name->unfinished = strcmp(text, ".val.new") == 0;
    return name->unfinished || strcmp(text, ".val") == 0;
}
