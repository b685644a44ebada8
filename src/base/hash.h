/*
 * hash.h - the hash of a key: XXH3-64 with the seed of the data directory, so that crafted keys cannot pile up.
 *
 * Who uses which bits (they must not overlap, or shards and pages would fill unevenly):
 *   bits 48..63   the shard that owns the key (hash_shard)
 *   bits  0..47   the index: bucket, page, fingerprint (engine/index.h)
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
    return (unsigned)(((hash >> 48) * shard_count) >> 16);
}

#endif
