/*
 * update_dump.h - DUMP and RESTORE. See update.h, and dump_format.h for what goes in and out.
 */
#ifndef KVS_NODE_UPDATE_DUMP_H
#define KVS_NODE_UPDATE_DUMP_H

#include "node/update.h"

update_fn update_dump;

/*
 * The operand is a payload, spec->expires_ms the key's expiry. A time that has passed: the key is not there afterwards.
 * spec->a: an enum update_refusal, which comes after BUSYKEY and before what the payload is refused for.
 */
enum update_restore_option { UPDATE_RESTORE_REPLACE = 1 };
update_fn update_restore; /* head */

#endif
