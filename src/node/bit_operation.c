/*
 * bit_operation.c - eight bytes at a time, wherever they lie.
 */
#include "node/bit_operation.h"

#include "base/assert.h"

#define WORD_BYTES sizeof(uint64_t)

static inline uint64_t combine(enum bit_operation operation, uint64_t a, uint64_t b)
{
    if (operation == BIT_AND)
        return a & b;
    return operation == BIT_OR ? a | b : a ^ b;
}

void bit_operation_begin(enum bit_operation operation, uint8_t *out, size_t bytes, struct slice value)
{
    KVS_ASSERT(value.size <= bytes);
    if (value.size > 0)
        memcpy(out, value.data, value.size);
    memset(out + value.size, 0, bytes - value.size);
    for (size_t i = 0; operation == BIT_NOT && i < bytes; i++)
        out[i] = (uint8_t)~out[i];
}

void bit_operation_add(enum bit_operation operation, uint8_t *out, size_t bytes, struct slice value)
{
    KVS_ASSERT(value.size <= bytes && operation != BIT_NOT);
    size_t at = 0;
    for (; at + WORD_BYTES <= value.size; at += WORD_BYTES) {
        uint64_t a, b;
        memcpy(&a, out + at, WORD_BYTES);
        memcpy(&b, value.data + at, WORD_BYTES);
        a = combine(operation, a, b);
        memcpy(out + at, &a, WORD_BYTES);
    }
    for (; at < value.size; at++)
        out[at] = (uint8_t)combine(operation, out[at], value.data[at]);
    if (operation == BIT_AND)
        memset(out + at, 0, bytes - at);
}
