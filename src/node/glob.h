/*
 * glob.h - patterns as Redis has them, for keys and channels. Pure; any thread.
 *
 *   *        any bytes, or none          [abc]  one of these; [a-z] one of a range; [^…] none of these
 *   ?        any one byte                \x     x itself
 */
#ifndef KVS_NODE_GLOB_H
#define KVS_NODE_GLOB_H

#include "base/bytes.h"

#include <stdbool.h>

/* In time of at most the product of the two sizes. */
bool glob_matches(struct slice pattern, struct slice text);

/* The same for names of the node, which are in lower case, in any case: patterns of at most GLOB_NAME_BYTES. */
#define GLOB_NAME_BYTES 256u
bool glob_matches_name(struct slice pattern, const char *name);

#endif
