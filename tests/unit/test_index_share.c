/*
 * test_index_share.c - an index that needs more than its share of memory gets it from segment images, up to a bound,
 * and all of it together stays within the budget; over a restart, too.
 */
#include "segments_fixture.h"

enum { IMAGES = 32, AT_ONCE = 256, SHARDS = 2 };

static struct store_fixture fixture;

static uint64_t index_bytes(void)
{
    struct engine_stats stats;
    engine_stats(fixture.engine, &stats);
    return stats.index_bytes;
}

static uint64_t allowed_bytes(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        sum += atomic_load(&store_shard_of(fixture.nodes[i].shard)->index_bytes_max);
    return sum;
}

/* What indexes may take and what images there may be. (The sixteenth for what expires comes on top.) */
static void expect_within_budget(void)
{
    const uint64_t budget = fixture.options.memory_bytes;
    const uint64_t images = (uint64_t)segments_keeper(&fixture)->images.count_max * fixture.options.segment_bytes;
    assert_true(allowed_bytes() + images <= budget - budget / 16);
    assert_true(atomic_load(&segments_keeper(&fixture)->images.count) <= segments_keeper(&fixture)->images.count_max);
    assert_true(segments_keeper(&fixture)->images.count_max >= segments_keeper(&fixture)->images_min);
}

/* Keys from `first` on until one finds no room in an index. Returns where. */
static unsigned fill(unsigned first)
{
    for (unsigned i = first;; i++) {
        char key[32];
        struct engine_result result;
        segments_key(key, i);
        enum engine_answer answer = store_try_now(&fixture, ENGINE_PUT, key, 4, &result);
        if (answer == ENGINE_MUST_WAIT) {
            enum kvs_err err = segments_try_put(&fixture, i, 1, 4);
            if (err == KVS_ERR_NO_MEMORY)
                return i;
            assert_int_equal(err, KVS_ERR_OK);
        } else if (result.error == KVS_ERR_NO_MEMORY) {
            return i;
        }
        for (unsigned id = 0; i % AT_ONCE == 0 && id < SHARDS; id++)
            engine_turn(fixture.nodes[id].shard);
        if (i % AT_ONCE == 0)
            store_quiet();
    }
}

static void test_index_share__grows_into_images(void **state)
{
    (void)state;
    sim_create(1);
    struct engine_options options = store_options(SHARDS);
    options.memory_bytes = (uint64_t)SHARDS * IMAGES * options.segment_bytes;
    store_boot(&fixture, &options);
    const uint64_t share = options.memory_bytes / 4;
    assert_int_equal(allowed_bytes(), share);
    expect_within_budget();
    const uint32_t images = segments_keeper(&fixture)->images.count_max;
    const unsigned keys = fill(0);
    store_quiet();
    expect_within_budget();
    assert_true(segments_keeper(&fixture)->images.count_max < images);
    assert_true(index_bytes() > share * 3 / 2);
    assert_true(allowed_bytes() <= options.memory_bytes / 2);
    assert_int_equal(store_keys(&fixture), keys);
    for (unsigned boot = 0; boot < 3; boot++) {
        if (boot == 0)
            store_stop(&fixture);
        else
            store_crash(&fixture, SIM_DROP_ALL);
        if (boot == 2)
            (void)store_forget_runs();
        store_boot(&fixture, &options);
        expect_within_budget();
        assert_true(allowed_bytes() > share);
        assert_int_equal(store_keys(&fixture), keys);
        for (unsigned i = 0; i < keys; i += 997) {
            char key[32];
            segments_key(key, i);
            char *got = store_get_text(&fixture, key);
            assert_non_null(got);
            free(got);
        }
        char other[32];
        segments_key(other, 3);
        assert_int_equal(store_put_text(&fixture, other, "again"), KVS_ERR_OK);
        store_expect(&fixture, other, "again");
    }
    store_stop(&fixture);
    sim_destroy();
}

static bool flushed(void *context)
{
    const char *text;
    (void)context;
    return engine_flush_state(fixture.nodes[0].shard, &text) != KVS_ERR_AGAIN;
}

/* Made long before, for a flush that came to nothing, the empty index may take what the other has come to. */
static void test_index_share__stays_over_a_flush(void **state)
{
    (void)state;
    sim_create(3);
    struct engine_options options = store_options(SHARDS);
    options.memory_bytes = (uint64_t)SHARDS * IMAGES * options.segment_bytes;
    store_boot(&fixture, &options);
    uint64_t lsn = 0, highest = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        assert_int_equal(engine_flush_prepare(fixture.nodes[i].shard, &lsn), KVS_ERR_OK);
    const unsigned keys = fill(0);
    for (unsigned i = 0; i < SHARDS; i++) {
        enum kvs_err err;
        while ((err = engine_flush_prepare(fixture.nodes[i].shard, &lsn)) == KVS_ERR_AGAIN) {
            engine_turn(fixture.nodes[i].shard);
            store_quiet();
        }
        assert_int_equal(err, KVS_ERR_OK);
        highest = lsn > highest ? lsn : highest;
    }
    engine_flush_begin(fixture.nodes[0].shard, highest);
    assert_true(sim_run_until(flushed, NULL, 100000));
    for (unsigned i = 0; i < SHARDS; i++)
        assert_int_equal(engine_flush_end(fixture.nodes[i].shard), KVS_ERR_OK);
    assert_true(fill(0) > keys / 10 * 9);
    expect_within_budget();
    store_stop(&fixture);
    sim_destroy();
}

/* Where images can be no fewer an index keeps to its share. */
static void test_index_share__leaves_the_images_that_logs_need(void **state)
{
    (void)state;
    sim_create(2);
    struct engine_options options = store_options(SHARDS);
    options.memory_bytes = (uint64_t)SHARDS * 6 * options.segment_bytes;
    store_boot(&fixture, &options);
    const unsigned keys = fill(0);
    store_quiet();
    assert_true(keys > 1000);
    expect_within_budget();
    assert_int_equal(segments_keeper(&fixture)->images.count_max, segments_keeper(&fixture)->images_min);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_share__grows_into_images),
        cmocka_unit_test(test_index_share__stays_over_a_flush),
        cmocka_unit_test(test_index_share__leaves_the_images_that_logs_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
