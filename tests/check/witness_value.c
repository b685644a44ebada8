/*
 * witness_value.c - values that say what they are: a head of key, number, length and checksum, then bytes that follow
 * from key and number.
 *
 * Failure modes: any difference from what was written for that key and number is reported, the most telling one first.
 */
#include "witness.h"

#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct head {
    uint64_t number;
    uint32_t key;
    uint32_t bytes; /* of the whole value */
    uint32_t crc;   /* over the value with 0 here */
    uint32_t magic;
};

#define MAGIC 0x6e746977u

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

size_t witness_key(uint32_t key, char out[WITNESS_KEY_BYTES_MAX])
{
    return (size_t)snprintf(out, WITNESS_KEY_BYTES_MAX, "witness:%" PRIu32, key);
}

/* Most are short, some fill more than a block. */
static size_t value_bytes(uint32_t key, uint64_t number)
{
    uint64_t chance = mix(number ^ ((uint64_t)key << 32));
    uint64_t span = chance % 16 == 0 ? WITNESS_VALUE_MAX - sizeof(struct head) : 200;
    return sizeof(struct head) + (size_t)((chance >> 8) % (span + 1));
}

size_t witness_value_write(uint32_t key, uint64_t number, uint8_t out[WITNESS_VALUE_MAX])
{
    struct head head = {.number = number, .key = key, .bytes = (uint32_t)value_bytes(key, number), .magic = MAGIC};
    uint64_t filler = mix(number + key);
    for (size_t at = sizeof(head); at < head.bytes; at += sizeof(filler)) {
        filler = filler * 6364136223846793005u + 1442695040888963407u;
        size_t left = head.bytes - at;
        memcpy(out + at, &filler, left < sizeof(filler) ? left : sizeof(filler));
    }
    memcpy(out, &head, sizeof(head));
    head.crc = crc32c(0, out, head.bytes);
    memcpy(out, &head, sizeof(head));
    return head.bytes;
}

bool witness_value_read(uint32_t key, struct slice bytes, uint64_t *number, char text[WITNESS_TEXT_MAX])
{
    struct head head;
    if (bytes.size < sizeof(head)) {
        snprintf(text, WITNESS_TEXT_MAX, "key %" PRIu32 ": %zu bytes are no value of ours", key, bytes.size);
        return false;
    }
    memcpy(&head, bytes.data, sizeof(head));
    if (head.magic != MAGIC || head.key != key || head.bytes != bytes.size) {
        snprintf(text, WITNESS_TEXT_MAX,
                 "key %" PRIu32 ": a value of %zu bytes that says: key %" PRIu32 ", number %" PRIu64 ", %" PRIu32
                 " bytes",
                 key, bytes.size, head.key, head.number, head.bytes);
        return false;
    }
    uint8_t expected[WITNESS_VALUE_MAX];
    size_t size = value_bytes(key, head.number) == bytes.size ? witness_value_write(key, head.number, expected) : 0;
    if (size != bytes.size || memcmp(expected, bytes.data, size) != 0) {
        snprintf(text, WITNESS_TEXT_MAX, "key %" PRIu32 ": damaged bytes in value %" PRIu64, key, head.number);
        return false;
    }
    *number = head.number;
    return true;
}
