/*
 * hash.h - the hash of a key: XXH3-64 with the seed of the data directory, so that crafted keys cannot pile up.
 *
 * Who uses which bits. Of n shards, hash * n has the shard in its upper 64 bits (hash_shard): a shard's hashes lie
 * together. From the top of the lower 64 bits on the index of the shard takes its bits (engine/index.h), but for the
 * lowest six of the hash itself. So in the order of hashes shards lie together, and pages of an index within them.
 * Pure; any thread.
 */
#ifndef KVS_BASE_HASH_H
#define KVS_BASE_HASH_H

#include "base/bytes.h"

/* 64-bit hash of a key; `seed` is drawn once per data directory. */
uint64_t hash_key(struct slice key, uint64_t seed);

/* A second hash, independent of the first: both together stand for the key where keys are not at hand. */
uint64_t hash_check(struct slice key, uint64_t seed);

/* The shard, of `shard_count` (1..65535), that owns a key with this hash. */
static inline unsigned hash_shard(uint64_t hash, unsigned shard_count)
{
    return (unsigned)((unsigned __int128)hash * shard_count >> 64);
}

#endif
