/*
 * bytes.h - borrowed bytes, containers, alignment: the small change of every module.
 *
 * Pure and inline; any thread.
 */
#ifndef KVS_BASE_BYTES_H
#define KVS_BASE_BYTES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the disk and wire formats are little-endian");

/* Bytes that belong to somebody else. Who lends them says until when they stay. */
struct slice {
    const uint8_t *data;
    size_t size;
};

static inline struct slice slice_make(const void *data, size_t size)
{
    return (struct slice){.data = data, .size = size};
}

static inline struct slice slice_text(const char *text)
{
    return slice_make(text, strlen(text));
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* `to` is a power of two. */
static inline uint64_t align_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) & ~(to - 1);
}

static inline uint64_t align_down(uint64_t value, uint64_t to)
{
    return value & ~(to - 1);
}

static inline bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
