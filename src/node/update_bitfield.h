/*
 * update_bitfield.h - BITFIELD: integers of 1 to 64 bits at any bit of a value. See update.h.
 */
#ifndef KVS_NODE_UPDATE_BITFIELD_H
#define KVS_NODE_UPDATE_BITFIELD_H

#include "node/update.h"

enum bitfield_action { BITFIELD_GET, BITFIELD_SET, BITFIELD_ADD };
enum bitfield_overflow { BITFIELD_WRAP, BITFIELD_SATURATE, BITFIELD_FAIL };

/* One step. The operand is an array of these, in any alignment. */
struct bitfield_step {
    uint64_t bit;     /* the field's first, which is its highest */
    int64_t number;   /* to set or to add */
    uint8_t action;   /* enum bitfield_action */
    uint8_t overflow; /* enum bitfield_overflow */
    uint8_t bits;     /* 1..64; 1..63 of an unsigned one */
    uint8_t is_signed;
    uint8_t zeros[4];
};
static_assert(sizeof(struct bitfield_step) == 24, "a step of BITFIELD");

/* The reply is an array with an answer to each step, in order. */
update_fn update_bitfield;

#endif
