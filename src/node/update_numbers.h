/*
 * update_numbers.h - INCR and its relatives. See update.h.
 */
#ifndef KVS_NODE_UPDATE_NUMBERS_H
#define KVS_NODE_UPDATE_NUMBERS_H

#include "node/update.h"

/* Adds spec->a to the integer that the value is; a key that is missing counts as 0. */
update_fn update_increment;
/* Adds the operand, the bytes of one long double. */
update_fn update_increment_float;

/* A number as INCRBYFLOAT reads it: decimal or hexadecimal, infinite ones too. False: it is none. */
bool update_float_parse(struct slice text, long double *out);

#endif
