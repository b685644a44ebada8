/*
 * update_object.h - what can be said about a key: TYPE, OBJECT, MEMORY USAGE. None of these changes anything. See
 * update.h.
 */
#ifndef KVS_NODE_UPDATE_OBJECT_H
#define KVS_NODE_UPDATE_OBJECT_H

#include "node/update.h"

update_fn update_type; /* head */

/* How Redis would keep the value: "int", "embstr" or "raw"; null for a missing key. */
update_fn update_encoding;
/* spec->a, or null for a missing key: of figures that are the same for all keys. */
update_fn update_figure; /* head */
/* The error of OBJECT FREQ, or null for a missing key. */
update_fn update_frequency; /* head */

/* The bytes that the key takes: of its record on disk, and of its entry in the index in RAM. spec->a: of its name. Null
 * for a missing key. */
update_fn update_memory; /* head */

/* What DEBUG OBJECT says of a value; spec->a: not how long it would be in a payload of DUMP. An error for a missing
 * key.
 */
update_fn update_debug;

#endif
