/*
 * array.c - see array.h.
 */
#include "base/array.h"

#include "base/assert.h"

#include <stdlib.h>

enum { CAPACITY_FIRST = 64 };

enum kvs_err array_grow(void **array, size_t count, size_t *capacity, size_t element_bytes)
{
    KVS_ASSERT(count <= *capacity && element_bytes > 0);
    if (count < *capacity)
        return KVS_ERR_OK;
    size_t larger = *capacity == 0 ? CAPACITY_FIRST : *capacity * 2, bytes;
    if (__builtin_mul_overflow(larger, element_bytes, &bytes))
        return KVS_ERR_NO_MEMORY;
    void *moved = realloc(*array, bytes);
    if (moved == NULL)
        return KVS_ERR_NO_MEMORY;
    *array = moved;
    *capacity = larger;
    return KVS_ERR_OK;
}
