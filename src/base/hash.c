/*
 * hash.c - the hash of a key, by libxxhash.
 *
 * The library's code is compiled in rather than called: a key is hashed once per request, and for keys this short the
 * call through the linker's table costs as much as the hash. Nothing here can fail.
 */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash_key(struct slice key, uint64_t seed)
{
    return XXH3_64bits_withSeed(key.data, key.size, seed);
}

uint64_t hash_check(struct slice key, uint64_t seed)
{
    /* Any other seed gives another function of the family. */
    return XXH3_64bits_withSeed(key.data, key.size, seed ^ 0x9E3779B97F4A7C15u);
}
