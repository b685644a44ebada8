/*
 * test_store_cold.c - records that are on disk only: one read for all who want one, and the cache that keeps it.
 */
#include "segments_fixture.h"

#include <errno.h>

enum { KEYS = 400, BYTES = 1500 };

static struct store_shard *shard_at(const struct store_fixture *fixture, unsigned id)
{
    return segments_store(fixture)->shards[id];
}

static struct engine_stats stats_of(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats;
}

static void put_all(struct store_fixture *fixture, unsigned version)
{
    for (unsigned i = 0; i < KEYS; i++)
        segments_put(fixture, i, version, BYTES);
}

/* Far more data than memory; the first keys are cold then. */
static void boot_with_cold_keys(struct store_fixture *fixture, unsigned shards)
{
    struct engine_options options = store_options(shards);
    options.memory_bytes = shards * 8 * options.segment_bytes;
    store_boot(fixture, &options);
    for (unsigned round = 0; round < 4; round++)
        put_all(fixture, round);
    store_quiet();
}

static bool is_cold(const struct store_fixture *fixture, unsigned i)
{
    char key[32];
    segments_key(key, i);
    uint64_t hash = hash_key(slice_text(key), engine_hash_seed(fixture->engine));
    struct store_shard *shard = shard_at(fixture, hash_shard(hash, fixture->shard_count));
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(shard->index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (store_look(shard, entry.address) != NULL)
            return false;
    }
    return true;
}

static unsigned a_cold_key(const struct store_fixture *fixture)
{
    for (unsigned i = 0; i < KEYS; i++) {
        if (is_cold(fixture, i))
            return i;
    }
    fail_msg("no key is cold");
    return 0;
}

/* However many want something from the disk, what is being read keeps to its bound, and everybody is served. */
static void test_store__cold_reads_keep_to_their_memory(void **state)
{
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    boot_with_cold_keys(&fixture, 1);
    const struct store_shard *shard = shard_at(&fixture, 0);
    static struct store_waiting gets[KEYS];
    static char keys[KEYS][32];
    bool begun[KEYS] = {false};
    uint64_t most_bytes = 0;
    bool late = false;
    for (unsigned i = 0; i < KEYS; i++) {
        if (!is_cold(&fixture, i))
            continue;
        segments_key(keys[i], i);
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(keys[i]), slice_make(NULL, 0));
        store_begin(&fixture, &gets[i], &request);
        begun[i] = true;
        late = late || !list_empty(&shard->reads_late);
        most_bytes = shard->reads_bytes > most_bytes ? shard->reads_bytes : most_bytes;
    }
    assert_true(late);
    assert_true(most_bytes > shard->reads_bytes_max / 2);
    for (unsigned i = 0; i < KEYS; i++) {
        if (!begun[i])
            continue;
        store_finish(&gets[i]);
        most_bytes = shard->reads_bytes > most_bytes ? shard->reads_bytes : most_bytes;
        assert_int_equal(gets[i].op.result.error, KVS_ERR_OK);
        assert_int_equal(gets[i].value_bytes, BYTES);
        assert_true(slice_equal(slice_make(gets[i].value, BYTES), segments_value(i, 3, BYTES)));
        free(gets[i].value);
    }
    assert_true(most_bytes <= shard->reads_bytes_max);
    assert_int_equal(shard->reads_bytes, 0);
    assert_true(list_empty(&shard->reads_late));
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__readers_of_one_cold_record_share_a_read(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    boot_with_cold_keys(&fixture, 1);
    unsigned i = a_cold_key(&fixture);
    uint64_t before = stats_of(&fixture).disk_reads;
    enum { READERS = 20 };
    struct store_waiting gets[READERS];
    char key[32];
    segments_key(key, i);
    for (unsigned r = 0; r < READERS; r++) {
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
        store_begin(&fixture, &gets[r], &request);
        assert_false(gets[r].done);
    }
    for (unsigned r = 0; r < READERS; r++) {
        store_finish(&gets[r]);
        assert_int_equal(gets[r].op.result.error, KVS_ERR_OK);
        assert_int_equal(gets[r].value_bytes, BYTES);
        assert_true(slice_equal(slice_make(gets[r].value, BYTES), segments_value(i, 3, BYTES)));
        free(gets[r].value);
    }
    assert_int_equal(stats_of(&fixture).disk_reads, before + 1);
    assert_int_equal(stats_of(&fixture).reads_joined, READERS - 1);
    store_stop(&fixture);
    sim_destroy();
}

/* What fails for one fails for nobody else: each tries for itself. */
static void test_store__a_failed_read_fails_only_its_own_reader(void **state)
{
    (void)state;
    sim_create(2);
    struct store_fixture fixture;
    boot_with_cold_keys(&fixture, 1);
    unsigned i = a_cold_key(&fixture);
    char key[32];
    segments_key(key, i);
    sim_fail(RING_KIND_READ, 1, EIO);
    sim_fail(RING_KIND_READ, 2, EIO);
    struct store_waiting gets[3];
    for (unsigned r = 0; r < 3; r++) {
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
        store_begin(&fixture, &gets[r], &request);
    }
    unsigned failed = 0;
    for (unsigned r = 0; r < 3; r++) {
        store_finish(&gets[r]);
        failed += gets[r].op.result.error != KVS_ERR_OK;
        if (gets[r].op.result.error == KVS_ERR_OK)
            assert_true(slice_equal(slice_make(gets[r].value, gets[r].value_bytes), segments_value(i, 3, BYTES)));
        free(gets[r].value);
    }
    assert_true(failed <= 2);
    assert_int_equal(gets[2].op.result.error, KVS_ERR_OK);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__what_was_read_once_is_served_from_the_cache(void **state)
{
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    boot_with_cold_keys(&fixture, 1);
    assert_non_null(shard_at(&fixture, 0)->cache);
    unsigned i = a_cold_key(&fixture);
    segments_expect(&fixture, i, 3, BYTES);
    uint64_t reads = stats_of(&fixture).disk_reads;
    for (unsigned again = 0; again < 5; again++)
        segments_expect(&fixture, i, 3, BYTES);
    assert_int_equal(stats_of(&fixture).disk_reads, reads);
    assert_true(stats_of(&fixture).cache_hits >= 5);
    /* An overwrite is not hidden by what the cache holds. */
    segments_put(&fixture, i, 9, BYTES);
    segments_expect(&fixture, i, 9, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* Compaction moves records and uses segments again: a cached record follows, and none is taken for another. */
static void test_store__cached_records_stay_right_through_compaction(void **state)
{
    (void)state;
    for (uint64_t seed = 4; seed < 8; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        boot_with_cold_keys(&fixture, 2);
        store_compact(&fixture, 130);
        unsigned versions[KEYS];
        for (unsigned i = 0; i < KEYS; i++)
            versions[i] = 3;
        for (unsigned step = 0; step < 4000; step++) {
            unsigned i = (unsigned)sim_random(step % 2 == 0 ? 40 : KEYS);
            if (sim_random(3) == 0)
                segments_put(&fixture, i, ++versions[i], BYTES);
            else
                segments_expect(&fixture, i, versions[i], BYTES);
        }
        struct compact_stats compacted;
        compact_stats(fixture.compactor, &compacted);
        assert_true(compacted.victims > 10);
        assert_true(stats_of(&fixture).cache_hits > 20);
        for (unsigned i = 0; i < KEYS; i++)
            segments_expect(&fixture, i, versions[i], BYTES);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_store__images_and_caches_stay_within_the_budget(void **state)
{
    (void)state;
    sim_create(9);
    struct store_fixture fixture;
    boot_with_cold_keys(&fixture, 2);
    for (unsigned round = 4; round < 8; round++) {
        put_all(&fixture, round);
        for (unsigned i = 0; i < KEYS; i++)
            segments_expect(&fixture, i, round, BYTES);
        struct engine_stats stats = stats_of(&fixture);
        assert_true(stats.image_bytes + stats.cache_bytes + stats.index_bytes <= fixture.options.memory_bytes);
        assert_true(stats.cache_bytes > 0);
    }
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__cold_reads_keep_to_their_memory),
        cmocka_unit_test(test_store__readers_of_one_cold_record_share_a_read),
        cmocka_unit_test(test_store__a_failed_read_fails_only_its_own_reader),
        cmocka_unit_test(test_store__what_was_read_once_is_served_from_the_cache),
        cmocka_unit_test(test_store__cached_records_stay_right_through_compaction),
        cmocka_unit_test(test_store__images_and_caches_stay_within_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
