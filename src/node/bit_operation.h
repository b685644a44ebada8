/*
 * bit_operation.h - AND, OR, XOR and NOT of whole values: BITOP. Pure; any thread.
 *
 * A value that is shorter than the others goes on with zeros.
 */
#ifndef KVS_NODE_BIT_OPERATION_H
#define KVS_NODE_BIT_OPERATION_H

#include "base/bytes.h"

enum bit_operation { BIT_AND, BIT_OR, BIT_XOR, BIT_NOT };

/* The first value; for NOT it is the only one. `out` has `bytes`, as many as the longest value. */
void bit_operation_begin(enum bit_operation operation, uint8_t *out, size_t bytes, struct slice value);
/* One more. */
void bit_operation_add(enum bit_operation operation, uint8_t *out, size_t bytes, struct slice value);

#endif
