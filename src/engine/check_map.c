/*
 * check_map.c - open addressing with linear probing; seven eighths full at most, then it doubles.
 *
 * Failure mode: memory runs out while it grows; the entry is not taken, and what is there stays.
 */
#include "engine/check_map.h"

#include "base/assert.h"

#include <stdlib.h>

enum { CAPACITY_INITIAL = 1024 };

enum kvs_err check_map_init(struct check_map *map)
{
    *map = (struct check_map){.capacity = CAPACITY_INITIAL};
    map->keys = calloc(map->capacity, sizeof *map->keys);
    return map->keys == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void check_map_deinit(struct check_map *map)
{
    free(map->keys);
    map->keys = NULL;
}

/* The entry of this key, or the free place where it belongs. */
static struct check_key *place_of(const struct check_map *map, const struct check_key *key)
{
    uint64_t at = key->check & (map->capacity - 1);
    while (map->keys[at].used && (map->keys[at].hash != key->hash || map->keys[at].check != key->check))
        at = (at + 1) & (map->capacity - 1);
    return &map->keys[at];
}

static bool grow(struct check_map *map)
{
    struct check_map larger = {.capacity = map->capacity * 2, .count = map->count};
    larger.keys = calloc(larger.capacity, sizeof *larger.keys);
    if (larger.keys == NULL)
        return false;
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->keys[i].used)
            *place_of(&larger, &map->keys[i]) = map->keys[i];
    }
    free(map->keys);
    *map = larger;
    return true;
}

enum check_map_answer check_map_add(struct check_map *map, const struct check_key *key, struct check_key *loser)
{
    KVS_ASSERT(map->count < map->capacity);
    struct check_key *place = place_of(map, key);
    if (place->used && place->lsn >= key->lsn)
        return place->lsn == key->lsn ? CHECK_MAP_COPY : CHECK_MAP_OLDER;
    bool new = !place->used;
    if (new && (map->count + 1) * 8 > map->capacity * 7) {
        if (!grow(map))
            return CHECK_MAP_FULL;
        place = place_of(map, key);
    }
    if (!new)
        *loser = *place;
    *place = *key;
    place->used = 1;
    map->count += new;
    return new ? CHECK_MAP_NEW : CHECK_MAP_NEWER;
}

bool check_map_is_newest(const struct check_map *map, uint64_t hash, uint64_t check, uint64_t lsn)
{
    const struct check_key key = {.hash = hash, .check = check};
    const struct check_key *place = place_of(map, &key);
    return place->used && place->put && place->lsn == lsn;
}

static int by_address(const void *a, const void *b)
{
    const struct check_key *x = a;
    const struct check_key *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

uint64_t check_map_sort_puts(struct check_map *map)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->keys[i].used && map->keys[i].put)
            map->keys[count++] = map->keys[i];
    }
    KVS_ASSERT(count <= map->count);
    qsort(map->keys, count, sizeof *map->keys, by_address);
    return count;
}
