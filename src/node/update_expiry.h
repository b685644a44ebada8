/*
 * update_expiry.h - EXPIRE and its relatives, and PERSIST. See update.h.
 */
#ifndef KVS_NODE_UPDATE_EXPIRY_H
#define KVS_NODE_UPDATE_EXPIRY_H

#include "node/update.h"

/* When the new time counts. A key that never expires counts as one that does so at the end of all times. */
enum update_expire_option {
    UPDATE_EXPIRE_IF_NONE = 1,
    UPDATE_EXPIRE_IF_ANY = 2,
    UPDATE_EXPIRE_IF_LATER = 4,
    UPDATE_EXPIRE_IF_SOONER = 8,
};

/* The key expires at spec->a, milliseconds since 1970; at once, if that time has passed (it may be negative). Replies
 * 1, or 0 if nothing comes of it. */
update_fn update_expire; /* head */
/* The key does not expire any more; 1, or 0 if it did not. */
update_fn update_persist; /* head */

#endif
