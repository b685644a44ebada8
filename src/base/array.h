/*
 * array.h - arrays that grow as they fill.
 *
 * An array is three things of its owner's: where it lies (NULL at first), how many elements it has, and for how many
 * there is room. Whoever owns it frees it. Pure but for the allocator; any thread.
 */
#ifndef KVS_BASE_ARRAY_H
#define KVS_BASE_ARRAY_H

#include "base/error.h"

#include <stddef.h>

/* Makes room for one more element; twice as much as there was, when there is none. The elements may move. `array` is a
 * pointer to the owner's pointer. KVS_ERR_NO_MEMORY: everything is as it was. */
enum kvs_err array_grow(void **array, size_t count, size_t *capacity, size_t element_bytes);

#endif
