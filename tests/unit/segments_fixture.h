/*
 * segments_fixture.h - for tests of what becomes of segments: numbered keys with values that tell their key and
 * version, a look at the keeper and the table, and the count of what the index points at.
 */
#ifndef KVS_TESTS_SEGMENTS_FIXTURE_H
#define KVS_TESTS_SEGMENTS_FIXTURE_H

#include "store_fixture.h"

enum { SEGMENTS_KEYS_MAX = 4096, SEGMENTS_VALUE_MAX = 1024 * 1024 };

/* Four images a shard: what is somewhat older is on disk only. */
static inline struct engine_options segments_scarce(unsigned shard_count)
{
    struct engine_options options = store_options(shard_count);
    options.memory_bytes = (uint64_t)shard_count * 6 * options.segment_bytes;
    return options;
}

/* A machine of its own, and on it a new store that is scarce of memory. Returns the store's options. */
static inline struct engine_options segments_create(struct store_fixture *fixture, uint64_t seed, unsigned shard_count)
{
    sim_create(seed);
    struct engine_options options = segments_scarce(shard_count);
    store_boot(fixture, &options);
    return options;
}

static inline struct store *segments_store(const struct store_fixture *fixture)
{
    return store_shard_of(fixture->nodes[0].shard)->store;
}

static inline struct keeper *segments_keeper(const struct store_fixture *fixture)
{
    return keeper_of(fixture->background);
}

static inline struct segment *segments_at(const struct store_fixture *fixture, uint32_t number)
{
    return segment_get(&segments_store(fixture)->segments, number);
}

static inline unsigned segments_in_state(const struct store_fixture *fixture, enum segment_state state)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < atomic_load(&segments_store(fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        count += segment != NULL && segment_state(segment) == state;
    }
    return count;
}

/* Runs until nothing happens any more by itself, or for so long on the machine's clock. */
static inline void segments_run_ms(const struct store_fixture *fixture, uint64_t ms)
{
    uint64_t end_ns = ring_now_ns(fixture->main_ring) + ms * 1000000;
    while (ring_now_ns(fixture->main_ring) < end_ns && sim_step())
        ;
}

/* ---- keys and values ------------------------------------------------------------------------------------------- */

static inline void segments_key(char key[32], unsigned i)
{
    snprintf(key, 32, "key:%u", i);
}

/* Good until the next call. */
static inline struct slice segments_value(unsigned i, unsigned version, size_t bytes)
{
    static uint8_t value[SEGMENTS_VALUE_MAX];
    char text[64];
    int text_bytes = snprintf(text, sizeof text, "%u.%u.", i, version);
    assert_true(bytes <= sizeof value);
    /* The text again and again: each copy takes all that is there. */
    size_t filled = (size_t)text_bytes < bytes ? (size_t)text_bytes : bytes;
    memcpy(value, text, filled);
    while (filled < bytes) {
        size_t more = filled < bytes - filled ? filled : bytes - filled;
        memcpy(value + filled, value, more);
        filled += more;
    }
    return slice_make(value, bytes);
}

static inline enum kvs_err segments_try_put(struct store_fixture *fixture, unsigned i, unsigned version, size_t bytes)
{
    char key[32];
    segments_key(key, i);
    return store_put_slice(fixture, slice_text(key), segments_value(i, version, bytes));
}

static inline void segments_put(struct store_fixture *fixture, unsigned i, unsigned version, size_t bytes)
{
    assert_int_equal(segments_try_put(fixture, i, version, bytes), KVS_ERR_OK);
}

static inline bool segments_remove(struct store_fixture *fixture, unsigned i)
{
    char key[32];
    segments_key(key, i);
    return store_remove_text(fixture, key);
}

static inline void segments_expect(struct store_fixture *fixture, unsigned i, unsigned version, size_t bytes)
{
    char key[32];
    segments_key(key, i);
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    store_execute(fixture, &waiting, &request);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    if (!waiting.op.result.found)
        fail_msg("%s is missing", key);
    struct slice value = segments_value(i, version, bytes);
    assert_int_equal(waiting.value_bytes, value.size);
    if (memcmp(waiting.value, value.data, value.size) != 0)
        fail_msg("%s has the value of '%.24s', not of version %u", key, (const char *)waiting.value, version);
    free(waiting.value);
}

static inline void segments_expect_none(struct store_fixture *fixture, unsigned i)
{
    char key[32];
    segments_key(key, i);
    store_expect(fixture, key, NULL);
}

/* The keys first..end-1, one after the other. */
static inline void segments_put_range(struct store_fixture *fixture, unsigned first, unsigned end, unsigned version,
                                      size_t bytes)
{
    for (unsigned i = first; i < end; i++)
        segments_put(fixture, i, version, bytes);
}

static inline void segments_expect_range(struct store_fixture *fixture, unsigned first, unsigned end, unsigned version,
                                         size_t bytes)
{
    for (unsigned i = first; i < end; i++)
        segments_expect(fixture, i, version, bytes);
}

/* Where the newest record of the key is, and how many candidates it has. */
static inline unsigned segments_places(const struct store_fixture *fixture, unsigned i, uint64_t places[8])
{
    char key[32];
    segments_key(key, i);
    uint64_t hash = hash_key(slice_text(key), engine_hash_seed(fixture->engine));
    const struct store *store = segments_store(fixture);
    struct index_cursor cursor;
    struct index_entry entry;
    unsigned count = 0;
    index_find(store->shards[hash_shard(hash, store->shard_count)]->index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        assert_true(count < 8);
        places[count++] = entry.address;
    }
    return count;
}

static inline uint32_t segments_of_key(const struct store_fixture *fixture, unsigned i)
{
    uint64_t places[8];
    assert_true(segments_places(fixture, i, places) > 0);
    return address_segment(places[0], segments_store(fixture)->segments.shift);
}

/* True when the key's newest record may be in this segment: a candidate of it is. */
static inline bool segments_may_hold(const struct store_fixture *fixture, uint32_t number, unsigned i)
{
    uint64_t places[8];
    unsigned count = segments_places(fixture, i, places);
    while (count > 0) {
        if (address_segment(places[--count], segments_store(fixture)->segments.shift) == number)
            return true;
    }
    return false;
}

/*
 * Holds what each segment has counted as dead against the index: of its puts those are dead that no entry of the keys
 * 0..keys-1 points at. When nothing is under way.
 */
static inline void segments_check_counts(const struct store_fixture *fixture, unsigned keys)
{
    const struct segment_table *table = &segments_store(fixture)->segments;
    static uint64_t seen[SEGMENTS_KEYS_MAX * 2];
    static uint32_t live[4096];
    size_t seen_count = 0;
    memset(live, 0, sizeof live);
    for (unsigned i = 0; i < keys; i++) {
        uint64_t places[8];
        unsigned count = segments_places(fixture, i, places);
        for (unsigned p = 0; p < count; p++) {
            bool known = false; /* two keys may share a fingerprint */
            for (size_t s = 0; s < seen_count && !known; s++)
                known = seen[s] == places[p];
            if (known)
                continue;
            assert_true(seen_count < SEGMENTS_KEYS_MAX * 2);
            seen[seen_count++] = places[p];
            live[address_segment(places[p], table->shift)]++;
        }
    }
    for (uint32_t i = 0; i < atomic_load(&table->next); i++) {
        const struct segment *segment = segment_get(table, i);
        if (segment == NULL)
            continue;
        enum segment_state state = segment_state(segment);
        if (state != SEGMENT_OPEN && state != SEGMENT_SEALED) {
            assert_int_equal(live[i], 0);
            continue;
        }
        /* What compaction is writing is counted before it is in place. */
        if (state == SEGMENT_SEALED || segment->kind == SEGMENT_LOG)
            assert_int_equal(segment->puts - atomic_load(&segment->dead_puts), live[i]);
    }
}

#endif
