/*
 * update_strings.h - what SET with conditions, GETDEL, GETEX, APPEND, GETRANGE, SETRANGE, … make of the value they
 * find. See update.h.
 */
#ifndef KVS_NODE_UPDATE_STRINGS_H
#define KVS_NODE_UPDATE_STRINGS_H

#include "node/update.h"

/*
 * SET. The operand's first spec->a bytes are the new value. With UPDATE_SET_IF_EQUAL the value to compare with begins
 * at byte spec->b of the operand and goes on to its end (what is between the two does not matter: the operand may be a
 * piece of the request).
 */
enum update_set_option {
    UPDATE_SET_IF_MISSING = 1,
    UPDATE_SET_IF_FOUND = 2,
    UPDATE_SET_IF_EQUAL = 4,
    UPDATE_SET_REPLY_OLD = 8,      /* the reply is the old value, whether it is set or not */
    UPDATE_SET_REPLY_INTEGER = 16, /* 1 or 0 instead of OK or null */
    UPDATE_SET_KEEP_EXPIRY = 32,
};
update_fn update_set;

/* The key goes if its value is the operand; 1 or 0. */
update_fn update_remove_if_equal;
update_fn update_getdel;

/* The value; and spec->expires_ms is its expiry from now on, or spec->a (enum update_getex) says what to do. option:
 * an enum update_refusal, for keys that are there. */
enum update_getex { UPDATE_GETEX_LOOK, UPDATE_GETEX_PERSIST, UPDATE_GETEX_EXPIRE };
update_fn update_getex;

update_fn update_append;   /* the operand */
update_fn update_strlen;   /* head */
update_fn update_getrange; /* bytes spec->a to spec->b, both counted; negative: from the end */
update_fn update_setrange; /* the operand, at spec->a >= 0 */

#endif
