/*
 * update_bits.h - values as rows of bits: SETBIT, GETBIT, BITCOUNT, BITPOS. Bit 0 is the highest of the first byte. See
 * update.h.
 */
#ifndef KVS_NODE_UPDATE_BITS_H
#define KVS_NODE_UPDATE_BITS_H

#include "node/update.h"

/* Bit spec->a >= 0; UPDATE_SETBIT_ON: it becomes 1, else 0. Replies what it was. */
enum update_setbit_option { UPDATE_SETBIT_ON = 1 };
update_fn update_setbit;
update_fn update_getbit; /* bit spec->a */

/* A range: from spec->a to spec->b, both counted; negative: from the end of the value. */
enum update_bits_option {
    UPDATE_BITS_IN_RANGE = 1,   /* else the whole value */
    UPDATE_BITS_UNIT_BITS = 2,  /* the range is one of bits, not of bytes */
    UPDATE_BITS_SEEK_ONE = 4,   /* BITPOS: the first 1, else the first 0 */
    UPDATE_BITS_OPEN_ENDED = 8, /* BITPOS: the range has no end; behind the value there are zeros */
};
/*
 * Arguments that are not right only matter for keys that are there: the refusal (enum update_refusal) stands in the
 * option from this bit on. BITCOUNT finds nothing in a range that goes backwards before it looks at the unit.
 */
#define UPDATE_BITS_REFUSAL_SHIFT 4
update_fn update_bitcount;
update_fn update_bitpos;

#endif
