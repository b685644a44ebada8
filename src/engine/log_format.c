/*
 * log_format.c - encoding and checking of segment, batch and record headers.
 *
 * Nothing read from a disk is trusted: lengths are checked against the room there is before anything is derived from
 * them, and the checksum before anything else is believed.
 */
#include "engine/log_format.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/crc32c.h"
#include "engine/file_header.h"

uint32_t segment_seed(const uint8_t store_uuid[16], uint64_t uid)
{
    return crc32c(crc32c(0, store_uuid, 16), &uid, canary_on(CANARY_CRC_WITHOUT_UID) ? 0 : sizeof uid);
}

static uint32_t segment_header_crc(const struct segment_header *header)
{
    return file_header_crc(header, sizeof *header, 0);
}

void segment_header_encode(struct segment_header *out, const uint8_t store_uuid[16], uint32_t number, uint64_t uid,
                           uint64_t segment_bytes, uint64_t epoch)
{
    *out = (struct segment_header){.magic = SEGMENT_MAGIC,
                                   .version = FORMAT_VERSION,
                                   .uid = uid,
                                   .number = number,
                                   .block_bytes = KVS_BLOCK_BYTES,
                                   .segment_bytes = segment_bytes,
                                   .epoch = epoch};
    memcpy(out->store_uuid, store_uuid, sizeof out->store_uuid);
    out->crc = segment_header_crc(out);
}

bool segment_header_whole(const struct segment_header *header)
{
    return header->magic == SEGMENT_MAGIC && header->crc == segment_header_crc(header);
}

const char *segment_header_check(const struct segment_header *header, const uint8_t store_uuid[16], uint32_t number,
                                 uint64_t segment_bytes)
{
    if (header->magic != SEGMENT_MAGIC)
        return "it does not begin with a segment header";
    if (header->crc != segment_header_crc(header))
        return "the checksum of its header is wrong";
    if (header->version != FORMAT_VERSION)
        return "it has an unknown format version";
    if (memcmp(header->store_uuid, store_uuid, sizeof header->store_uuid) != 0)
        return "it belongs to another store";
    if (header->number != number)
        return "its name does not agree with the number in its header";
    if (header->segment_bytes != segment_bytes || header->block_bytes != KVS_BLOCK_BYTES)
        return "its header names another segment or block size than the superblock";
    return NULL;
}

static uint32_t batch_header_crc(const struct batch_header *header, uint32_t seed, uint32_t offset)
{
    size_t skip = offsetof(struct batch_header, bytes);
    return crc32c(place_seed(seed, offset), (const uint8_t *)header + skip, sizeof *header - skip);
}

void batch_header_seal(struct batch_header *header, uint32_t seed, uint32_t offset)
{
    KVS_ASSERT(offset % KVS_BLOCK_BYTES == 0);
    KVS_ASSERT(header->bytes >= sizeof *header);
    header->magic = BATCH_MAGIC;
    header->crc = batch_header_crc(header, seed, offset);
}

bool batch_header_valid(const struct batch_header *header, uint32_t seed, uint32_t offset, uint64_t room)
{
    return room >= sizeof *header && header->magic == BATCH_MAGIC &&
           header->crc == batch_header_crc(header, seed, offset) && header->bytes >= sizeof *header &&
           header->bytes <= room;
}

/* The checksum covers a record from behind the checksum itself to the last byte of the value. */
static uint32_t record_crc(const struct record_header *record, uint32_t seed, uint32_t offset)
{
    size_t skip = offsetof(struct record_header, value_bytes);
    size_t size = sizeof *record - skip + record->extra_bytes + record->key_bytes + record->value_bytes;
    size -= canary_on(CANARY_CRC_WITHOUT_LAST_BYTE);
    return crc32c(place_seed(seed, offset), (const uint8_t *)record + skip, size);
}

void record_encode(uint8_t *out, uint32_t seed, uint32_t offset, const struct record_header *fields,
                   uint64_t expires_ms, struct slice key, struct slice value)
{
    KVS_ASSERT(key.size <= UINT16_MAX && value.size <= UINT32_MAX);
    KVS_ASSERT(offset % RECORD_ALIGN == 0);
    struct record_header *record = (struct record_header *)(void *)out;
    *record = *fields;
    record->key_bytes = (uint16_t)key.size;
    record->extra_bytes = expires_ms == 0 ? 0 : RECORD_EXPIRY_BYTES;
    record->value_bytes = (uint32_t)value.size;
    record->flags = (uint8_t)((record->flags & ~RECORD_EXPIRES) | (expires_ms == 0 ? 0 : RECORD_EXPIRES));
    uint8_t *at = (uint8_t *)(record + 1);
    memcpy(at, &expires_ms, record->extra_bytes);
    at += record->extra_bytes;
    if (key.size > 0)
        memcpy(at, key.data, key.size);
    at += key.size;
    if (value.size > 0)
        memcpy(at, value.data, value.size);
    at += value.size;
    memset(at, 0, (size_t)(out + record_size(record) - at));
    record->crc = record_crc(record, seed, offset);
}

/* Whether flags and extra bytes go together, and with the kind. */
static bool expiry_makes_sense(const struct record_header *record)
{
    if ((record->flags & RECORD_EXPIRES) == 0)
        return record->extra_bytes == 0;
    return record->kind == RECORD_PUT && record->extra_bytes == RECORD_EXPIRY_BYTES && record_expires_ms(record) != 0;
}

enum record_state record_check(const void *data, uint64_t room, uint32_t seed, uint32_t offset)
{
    const struct record_header *record = data;
    if (room < sizeof *record || record_size(record) > room)
        return RECORD_INVALID;
    if (record->crc != record_crc(record, seed, offset))
        return RECORD_INVALID;
    bool known =
        (record->kind == RECORD_PUT || record->kind == RECORD_DELETE) && record->type == 0 && record->codec == 0 &&
        (record->flags & ~(unsigned)(RECORD_GROUP | RECORD_EXPIRES | RECORD_LARGE)) == 0 && expiry_makes_sense(record);
    if ((record->flags & RECORD_LARGE) != 0)
        known = known && record->kind == RECORD_PUT && record->value_bytes == RECORD_DESCRIPTOR_BYTES;
    return known ? RECORD_VALID : RECORD_UNKNOWN;
}

unsigned record_class(uint64_t bytes)
{
    unsigned class = 0;
    while (class < 15 && bytes > 256ull << class)
        class ++;
    return class;
}

uint64_t record_class_bytes(unsigned class)
{
    KVS_ASSERT(class <= 15);
    return class < 15 ? 256ull << class
                      : sizeof(struct record_header) + RECORD_EXPIRY_BYTES + (uint64_t)KVS_KEY_BYTES_MAX;
}
