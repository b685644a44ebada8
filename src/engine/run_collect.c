/*
 * run_collect.c - a record's entry is made of its key's two hashes, its LSN and its place. Memory doubles as it fills.
 */
#include "engine/run_collect.h"

#include "base/hash.h"

#include <stdlib.h>

enum { CAPACITY_FIRST = 1024 };

static enum kvs_err grow(struct run_collector *collector)
{
    size_t larger = collector->capacity == 0 ? CAPACITY_FIRST : 2 * collector->capacity;
    struct run_entry *entries = realloc(collector->entries, larger * sizeof *entries);
    if (entries == NULL)
        return KVS_ERR_NO_MEMORY;
    collector->entries = entries;
    collector->capacity = larger;
    return KVS_ERR_OK;
}

enum kvs_err run_collect(struct run_collector *collector, const struct record_header *record, uint32_t offset)
{
    if (collector->count == collector->capacity) {
        enum kvs_err err = grow(collector);
        if (err != KVS_ERR_OK)
            return err;
    }
    const struct slice key = record_key(record);
    const unsigned flags = record->kind == RECORD_DELETE ? RUN_DELETE : 0;
    collector->entries[collector->count++] = (struct run_entry){
        .order = hash_key(key, collector->hash_seed),
        .check = canary_on(CANARY_EQUAL_HASH_IS_EQUAL_KEY) ? 0 : hash_check(key, collector->hash_seed),
        .lsn = record->lsn,
        .expires_ms = record_expires_ms(record),
        .place = run_place(address_make(collector->segment, offset, collector->shift), record_size(record), flags)};
    if (record->lsn > collector->lsn_max)
        collector->lsn_max = record->lsn;
    return KVS_ERR_OK;
}

struct run_segment run_describe(const struct segment *segment)
{
    return (struct run_segment){
        .uid = segment->uid,
        .number = segment->number,
        .puts = segment->puts,
        .deletes = segment->deletes,
        .record_bytes = atomic_load_explicit(&segment->record_bytes, memory_order_relaxed),
        .end = segment->end,
        .put_units = atomic_load_explicit(&segment->put_units, memory_order_relaxed),
        .record_bytes_max = segment->record_bytes_max,
        .expiring = segment->expiring,
        .deletes_min_lsn = segment->deletes > 0 ? segment->deletes_min_lsn : 0,
        .deletes_last_lsn = segment->deletes > 0 ? segment->deletes_last_lsn : 0,
        .expiring_last_lsn = segment->expiring_last_lsn,
    };
}
