/*
 * recovery_map.c - open addressing with linear probing; entries of one hash follow each other in a probe run.
 *
 * The rule, for a record and an entry with the same hash: when the newer of the two does not carry COMPARE, its writer
 * knew that no other key with this hash was alive, so the older one is of the same key or dead, and gives way. When the
 * newer one carries COMPARE, the keys decide. Removal is never needed: an entry that gives way is overwritten by the
 * one it gives way to.
 */
#include "engine/recovery_map.h"

#include "base/assert.h"
#include "base/canary.h"

#include <stdlib.h>

enum { CAPACITY_INITIAL = 1024 };

enum kvs_err recovery_map_init(struct recovery_map *map, recovery_same_key_fn *same_key, void *context)
{
    *map = (struct recovery_map){.capacity = CAPACITY_INITIAL, .same_key = same_key, .context = context};
    map->entries = calloc(map->capacity, sizeof *map->entries);
    return map->entries == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void recovery_map_deinit(struct recovery_map *map)
{
    free(map->entries);
    map->entries = NULL;
}

static uint64_t slot_of(const struct recovery_map *map, uint64_t hash)
{
    /* The low bits choose buckets and pages in the index and are as good here. */
    return (hash ^ hash >> 32) & (map->capacity - 1);
}

static void place(struct recovery_map *map, const struct recovery_entry *entry)
{
    uint64_t at = slot_of(map, entry->hash);
    while (map->entries[at].used)
        at = (at + 1) & (map->capacity - 1);
    map->entries[at] = *entry;
    map->entries[at].used = 1;
    map->count++;
}

static enum kvs_err grow(struct recovery_map *map)
{
    struct recovery_map larger = *map;
    larger.capacity *= 2;
    larger.count = 0;
    larger.entries = calloc(larger.capacity, sizeof *larger.entries);
    if (larger.entries == NULL)
        return KVS_ERR_NO_MEMORY;
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].used)
            place(&larger, &map->entries[i]);
    }
    free(map->entries);
    *map = larger;
    return KVS_ERR_OK;
}

/* Whether `newer` takes the place of `older`, which has the same hash. */
static enum kvs_err supersedes(const struct recovery_map *map, const struct recovery_entry *newer,
                               const struct recovery_entry *older, bool *yes)
{
    *yes = true;
    return newer->compare && !canary_on(CANARY_EQUAL_HASH_IS_EQUAL_KEY)
               ? map->same_key(map->context, newer->address, older->address, yes)
               : KVS_ERR_OK;
}

/* Whether the map already holds a record that takes the place of this one. */
static enum kvs_err is_superseded(struct recovery_map *map, const struct recovery_entry *record, bool *yes)
{
    *yes = false;
    for (uint64_t at = slot_of(map, record->hash); map->entries[at].used; at = (at + 1) & (map->capacity - 1)) {
        struct recovery_entry *entry = &map->entries[at];
        if (entry->hash != record->hash || entry->lsn < record->lsn)
            continue;
        /* A record that compaction has copied: both copies are there until its old segment is given up. One may be a
         * put that has expired, and the other what it was turned into. */
        if (entry->lsn == record->lsn) {
            entry->put = entry->put && record->put;
            *yes = true;
            return KVS_ERR_OK;
        }
        enum kvs_err err = supersedes(map, entry, record, yes);
        if (err != KVS_ERR_OK || *yes)
            return err;
    }
    return KVS_ERR_OK;
}

enum kvs_err recovery_map_add(struct recovery_map *map, const struct recovery_entry *record)
{
    bool yes;
    enum kvs_err err = is_superseded(map, record, &yes);
    if (err != KVS_ERR_OK || yes)
        return err;
    bool placed = false;
    for (uint64_t at = slot_of(map, record->hash); map->entries[at].used; at = (at + 1) & (map->capacity - 1)) {
        struct recovery_entry *entry = &map->entries[at];
        if (entry->hash != record->hash || entry->lsn >= record->lsn)
            continue;
        err = supersedes(map, record, entry, &yes);
        if (err != KVS_ERR_OK)
            return err;
        if (!yes)
            continue;
        /* Of several entries that give way the first is overwritten; the others are dead and marked as deletes. So is
         * one without COMPARE when the record has it: that all older records of this hash are dead must stay known. */
        if (placed || (record->compare && !entry->compare)) {
            entry->put = 0;
            continue;
        }
        *entry = *record;
        entry->used = 1;
        placed = true;
    }
    if (placed)
        return KVS_ERR_OK;
    if ((map->count + 1) * 4 > map->capacity * 3) {
        err = grow(map);
        if (err != KVS_ERR_OK)
            return err;
    }
    place(map, record);
    return KVS_ERR_OK;
}
