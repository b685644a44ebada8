/*
 * check_map.h - the newest record of every key, for kvs-check: 40 bytes an entry. Keys are told apart by two
 * independent 64-bit hashes, so that no key has to be read again. One thread.
 */
#ifndef KVS_ENGINE_CHECK_MAP_H
#define KVS_ENGINE_CHECK_MAP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct check_key {
    uint64_t hash, check;
    uint64_t lsn;
    uint64_t address : 40; /* as in log_format.h */
    uint64_t units : 21;   /* that the record takes, RECORD_ALIGN bytes each */
    uint64_t put : 1;      /* else a delete */
    uint64_t used : 1;
    uint64_t expires_ms; /* of a put; 0 = never */
};

struct check_map {
    struct check_key *keys;
    uint64_t capacity; /* power of two */
    uint64_t count;
};

enum kvs_err check_map_init(struct check_map *map);
void check_map_deinit(struct check_map *map);

enum check_map_answer {
    CHECK_MAP_NEW,   /* the first record of its key */
    CHECK_MAP_NEWER, /* *loser is the one it has taken the place of */
    CHECK_MAP_OLDER, /* there is a newer one */
    CHECK_MAP_COPY,  /* there is one with the same LSN; that one stays */
    CHECK_MAP_FULL,  /* out of memory: nothing was done */
};
enum check_map_answer check_map_add(struct check_map *map, const struct check_key *key, struct check_key *loser);

/* True when this key's newest record is a put with this LSN. */
bool check_map_is_newest(const struct check_map *map, uint64_t hash, uint64_t check, uint64_t lsn);

/* Puts the newest records that are puts into order of their addresses at the beginning of map->keys; returns their
 * number. Nothing can be added any more. */
uint64_t check_map_sort_puts(struct check_map *map);

#endif
