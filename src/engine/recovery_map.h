/*
 * recovery_map.h - the newest record of every key, while a store is being recovered.
 *
 * Records come in any order; of the records of one key the one with the highest LSN wins, deletes included. Keys are
 * told apart by their 64-bit hash. Two keys with the same hash are only ever alive together under records that carry
 * RECORD_COMPARE; for those the map asks its `same_key` function, which reads both records.
 *
 * 32 bytes per key, freed when recovery ends. One thread.
 */
#ifndef KVS_ENGINE_RECOVERY_MAP_H
#define KVS_ENGINE_RECOVERY_MAP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct recovery_entry {
    uint64_t hash;
    uint64_t lsn;
    uint64_t address : 40;
    unsigned class : 4;
    unsigned put : 1; /* else a delete */
    unsigned compare : 1;
    unsigned used : 1;
    uint64_t expires_ms; /* of a put; 0 = never */
};

/* Sets *same when the records at both addresses have the same key. */
typedef enum kvs_err recovery_same_key_fn(void *context, uint64_t address_a, uint64_t address_b, bool *same);

struct recovery_map {
    struct recovery_entry *entries;
    uint64_t capacity; /* power of two */
    uint64_t count;
    recovery_same_key_fn *same_key;
    void *context;
};

enum kvs_err recovery_map_init(struct recovery_map *map, recovery_same_key_fn *same_key, void *context);
void recovery_map_deinit(struct recovery_map *map);

/* Takes a record into account. Errors: NO_MEMORY, or what same_key has answered. */
enum kvs_err recovery_map_add(struct recovery_map *map, const struct recovery_entry *record);

#endif
