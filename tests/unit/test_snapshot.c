/*
 * test_snapshot.c - what a stop leaves of the indexes, and a start that takes it: everything is there, counted as a
 * start without it counts, expires as it would have, and can be changed.
 */
#include "snapshot_fixture.h"

enum { KEYS = 600, BYTES = 2000 };

static void make_store(struct store_fixture *fixture, struct engine_options *options, uint64_t seed, unsigned shards)
{
    sim_create(seed);
    *options = segments_scarce(shards);
    store_boot(fixture, options);
    snapshot_fill(fixture, KEYS, BYTES);
    store_stop(fixture);
}

/* The queues of what expires have room for some thousands. */
static struct engine_options roomy(unsigned shards)
{
    struct engine_options options = store_options(shards);
    options.memory_bytes = shards * 16ull * 1024 * 1024;
    return options;
}

static void boot_taken(struct store_fixture *fixture, const struct engine_options *options)
{
    assert_true(sim_file_exists(STORE_SNAPSHOT));
    store_boot(fixture, options);
    assert_true(snapshot_taken(fixture));
    assert_false(sim_file_exists(STORE_SNAPSHOT));
}

/* ---- what is there --------------------------------------------------------------------------------------------- */

static void test_snapshot__start_takes_what_a_stop_has_left(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        struct store_fixture fixture;
        struct engine_options options;
        make_store(&fixture, &options, shards, shards);
        for (unsigned round = 0; round < 3; round++) {
            boot_taken(&fixture, &options);
            struct engine_recovery recovery;
            engine_recovered(fixture.engine, &recovery);
            assert_int_equal(recovery.keys, snapshot_live(KEYS) + KEYS / 4);
            if (round != 1)
                snapshot_expect(&fixture, KEYS, BYTES);
            store_stop(&fixture);
        }
        sim_destroy();
    }
}

static void test_snapshot__an_empty_store_has_one(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 1, 2);
    assert_false(snapshot_taken(&fixture));
    store_stop(&fixture);
    boot_taken(&fixture, &options);
    assert_int_equal(store_keys(&fixture), 0);
    segments_put(&fixture, 1, 1, BYTES);
    store_stop(&fixture);
    boot_taken(&fixture, &options);
    segments_expect(&fixture, 1, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

struct figures {
    struct engine_stats stats;
    struct {
        enum segment_state state;
        uint64_t uid;
        uint32_t end, puts, dead_puts, dead_units;
    } segments[1024];
};

/* Once all that the start has put off is done. */
static void take_figures(const struct store_fixture *fixture, struct figures *figures)
{
    memset(figures, 0, sizeof *figures);
    const uint32_t end = atomic_load(&segments_store(fixture)->segments.next);
    assert_true(end <= ARRAY_COUNT(figures->segments));
    for (uint32_t i = 0; i < end; i++) {
        const struct segment *segment = segments_at(fixture, i);
        if (segment == NULL || segment_state(segment) == SEGMENT_FREE)
            continue;
        figures->segments[i].state = segment_state(segment);
        figures->segments[i].uid = segment->uid;
        figures->segments[i].end = segment->end;
        figures->segments[i].puts = segment->puts;
        figures->segments[i].dead_puts = atomic_load(&segment->dead_puts);
        figures->segments[i].dead_units = atomic_load(&segment->dead_units);
    }
    engine_stats(fixture->engine, &figures->stats);
}

static void expect_same_figures(const struct figures *taken, const struct figures *filled)
{
    for (unsigned i = 0; i < ARRAY_COUNT(taken->segments); i++) {
        if (memcmp(&taken->segments[i], &filled->segments[i], sizeof taken->segments[i]) != 0)
            fail_msg("segment %u: %u of %u puts are dead, by a fill %u of %u", i, taken->segments[i].dead_puts,
                     taken->segments[i].puts, filled->segments[i].dead_puts, filled->segments[i].puts);
    }
    assert_int_equal(taken->stats.keys, filled->stats.keys);
    assert_int_equal(taken->stats.expires, filled->stats.expires);
    assert_int_equal(taken->stats.expiry_unqueued, filled->stats.expiry_unqueued);
    assert_int_equal(taken->stats.live_bytes, filled->stats.live_bytes);
    assert_int_equal(taken->stats.segments_sealed, filled->stats.segments_sealed);
    assert_int_equal(taken->stats.large_values, filled->stats.large_values);
    assert_int_equal(taken->stats.large_value_bytes, filled->stats.large_value_bytes);
}

/* A store whose segments compaction has moved about, with values in files of their own. */
static void live_a_life(struct store_fixture *fixture)
{
    store_compact(fixture, 150);
    const uint64_t expires_ms = expiry_now_ms(fixture) + SNAPSHOT_LIFE_MS;
    for (unsigned i = 0; i < 4 * KEYS; i++) {
        const unsigned key = (unsigned)sim_random(KEYS);
        switch (sim_random(6)) {
        case 0:
            (void)segments_remove(fixture, key);
            break;
        case 1:
            expiry_put_key(fixture, key, i, BYTES, expires_ms + sim_random(100000));
            break;
        default:
            segments_put(fixture, key, i, i % 97 == 0 ? 20000 : 100 + sim_random(BYTES));
            break;
        }
    }
}

static void test_snapshot__figures_are_those_of_a_fill(void **state)
{
    (void)state;
    static struct kept_files kept;
    static struct figures taken, filled;
    for (unsigned seed = 0; seed < 9; seed++) {
        sim_create(20 + seed);
        struct engine_options options = roomy(1 + seed % 3);
        options.large_bytes_min = seed % 2 == 0 ? UINT64_MAX : 16384;
        struct store_fixture fixture;
        store_boot(&fixture, &options);
        live_a_life(&fixture);
        expiry_run_ms(&fixture, 5000); /* of a record that is in two places a fill may find either */
        store_stop(&fixture);
        kept_save(&kept);

        boot_taken(&fixture, &options);
        segments_check_counts(&fixture, KEYS);
        expiry_run_ms(&fixture, 5000);
        take_figures(&fixture, &taken);
        store_crash(&fixture, SIM_DROP_ALL);

        kept_restore(&kept);
        assert_true(store_forget_snapshot());
        store_boot(&fixture, &options);
        assert_false(snapshot_taken(&fixture));
        expiry_run_ms(&fixture, 5000);
        take_figures(&fixture, &filled);
        expect_same_figures(&taken, &filled);
        assert_true(taken.stats.keys > KEYS / 2 && taken.stats.expires > 0);
        store_stop(&fixture);
        kept_free(&kept);
        sim_destroy();
    }
}

/* ---- what expires ---------------------------------------------------------------------------------------------- */

static void test_snapshot__what_is_to_expire_does(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        sim_create(40 + shards);
        struct engine_options options = roomy(shards);
        struct store_fixture fixture;
        store_boot(&fixture, &options);
        const uint64_t first_ms = expiry_now_ms(&fixture) + 100000;
        for (unsigned i = 0; i < KEYS; i++)
            expiry_put_key(&fixture, i, 1, 100, first_ms + i * 10);
        /* These expire later, or never. */
        expiry_put_key(&fixture, 0, 2, 100, first_ms + 1000000);
        segments_put(&fixture, 1, 2, 100);
        assert_true(segments_remove(&fixture, 2));
        store_stop(&fixture);

        boot_taken(&fixture, &options);
        assert_int_equal(store_keys(&fixture), KEYS - 1);
        assert_int_equal(expiry_stats(&fixture).expires, KEYS - 2);
        assert_true(expiry_now_ms(&fixture) < first_ms);
        segments_expect(&fixture, 3, 1, 100);
        expiry_run_ms(&fixture, first_ms + KEYS * 5 - expiry_now_ms(&fixture));
        segments_expect_none(&fixture, KEYS / 2 - 1);
        segments_expect(&fixture, KEYS - 1, 1, 100);
        expiry_run_ms(&fixture, KEYS * 5 + 1000);
        const struct engine_stats stats = expiry_stats(&fixture);
        assert_int_equal(stats.keys, 2);
        assert_int_equal(stats.expires, 1);
        assert_int_equal(stats.expired_keys, KEYS - 3);
        assert_in_range(stats.expiry_lag_ms, 0, 200);
        segments_expect(&fixture, 0, 2, 100);
        segments_expect(&fixture, 1, 2, 100);
        segments_expect_none(&fixture, 2);
        store_stop(&fixture);

        /* The last of them while the node is down: gone for readers from the first moment on. */
        sim_advance(2000000ull * 1000000);
        boot_taken(&fixture, &options);
        segments_expect_none(&fixture, 0);
        segments_expect(&fixture, 1, 2, 100);
        expiry_run_ms(&fixture, 1000);
        assert_int_equal(store_keys(&fixture), 1);
        assert_int_equal(expiry_stats(&fixture).expires, 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* What has found no room in its queue is counted as a key until somebody meets it, or a start finds it in the log: one
 * that goes by a snapshot would not. */
static void test_snapshot__none_is_made_of_a_queue_that_was_too_small(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 45, 1);
    const uint64_t expires_ms = expiry_now_ms(&fixture) + 100000;
    for (unsigned i = 0; i < KEYS; i++)
        expiry_put_key(&fixture, i, 1, 100, expires_ms);
    assert_true(expiry_stats(&fixture).expiry_unqueued > 0);
    store_stop(&fixture);
    assert_false(sim_file_exists(STORE_SNAPSHOT));
    options.memory_bytes *= 8;
    store_boot(&fixture, &options);
    assert_int_equal(expiry_stats(&fixture).expiry_unqueued, 0);
    assert_int_equal(expiry_stats(&fixture).expires, KEYS);
    store_stop(&fixture);

    /* There is one, and less memory: as many as have room. */
    options.memory_bytes /= 8;
    boot_taken(&fixture, &options);
    assert_true(expiry_stats(&fixture).expiry_unqueued > 0);
    expiry_run_ms(&fixture, 101000);
    assert_true(expiry_stats(&fixture).expired_keys > 0);
    for (unsigned i = 0; i < KEYS; i++)
        segments_expect_none(&fixture, i);
    store_stop(&fixture);
    assert_false(sim_file_exists(STORE_SNAPSHOT));
    sim_destroy();
}

/* What had expired stays so when the clock was put back meanwhile. */
static void test_snapshot__what_has_expired_stays_away(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 50, 1);
    expiry_put_key(&fixture, 1, 1, BYTES, expiry_now_ms(&fixture) + 1000);
    segments_put(&fixture, 2, 1, BYTES);
    expiry_run_ms(&fixture, 3000);
    segments_expect_none(&fixture, 1);
    store_stop(&fixture);
    sim_step_wall(-3600000);
    boot_taken(&fixture, &options);
    segments_expect_none(&fixture, 1);
    assert_int_equal(store_keys(&fixture), 1);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    segments_expect_none(&fixture, 1);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- going on -------------------------------------------------------------------------------------------------- */

/* Pages that came with the snapshot are written to, split and freed, while they move into memory of the store's own. */
static void test_snapshot__what_was_taken_can_be_changed(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    for (unsigned quiet = 0; quiet < 2; quiet++) {
        sim_create(60 + quiet);
        struct engine_options options = store_options(2);
        options.memory_bytes = 48 * options.segment_bytes;
        struct store_fixture fixture;
        store_boot(&fixture, &options);
        segments_put_range(&fixture, 0, MANY / 4, 1, 100);
        store_stop(&fixture);

        boot_taken(&fixture, &options);
        const struct index *index = segments_store(&fixture)->shards[0]->index;
        if (quiet == 1) {
            store_quiet();
            assert_false(index_wants_stock(index)); /* all has been taken over */
        }
        const uint64_t splits = expiry_stats(&fixture).index_splits;
        segments_put_range(&fixture, MANY / 4, MANY, 1, 100);
        assert_true(expiry_stats(&fixture).index_splits > splits + 8);
        for (unsigned i = 0; i < MANY; i += 2)
            assert_true(segments_remove(&fixture, i));
        for (unsigned i = 1; i < MANY / 4; i += 2)
            segments_put(&fixture, i, 2, 100);
        store_quiet();
        assert_false(index_wants_stock(index));
        segments_check_counts(&fixture, MANY);
        for (unsigned boot = 0; boot < 3; boot++) {
            assert_int_equal(store_keys(&fixture), MANY / 2);
            for (unsigned i = 0; i < MANY; i++) {
                if (i % 2 == 0)
                    segments_expect_none(&fixture, i);
                else
                    segments_expect(&fixture, i, i < MANY / 4 ? 2 : 1, 100);
            }
            if (boot == 0) {
                store_stop(&fixture);
                boot_taken(&fixture, &options);
            } else if (boot == 1) {
                store_crash(&fixture, SIM_DROP_ALL);
                store_boot(&fixture, &options);
                assert_false(snapshot_taken(&fixture));
            }
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_snapshot__lsns_and_boots_go_on_behind_it(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 70, 2);
    uint64_t next[2], epoch = 0;
    for (unsigned round = 0; round < 4; round++) {
        boot_taken(&fixture, &options);
        const struct store *store = segments_store(&fixture);
        for (unsigned i = 0; i < 2; i++) {
            if (round > 0)
                assert_true(store->shards[i]->log.next_lsn > next[i]);
            next[i] = store->shards[i]->log.next_lsn;
        }
        assert_true(store->base.superblock.epoch > epoch);
        epoch = store->base.superblock.epoch;
        segments_put(&fixture, 5000 + round, 1, BYTES);
        snapshot_expect_lasting(&fixture, KEYS, BYTES);
        store_stop(&fixture);
    }
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot__start_takes_what_a_stop_has_left),
        cmocka_unit_test(test_snapshot__an_empty_store_has_one),
        cmocka_unit_test(test_snapshot__figures_are_those_of_a_fill),
        cmocka_unit_test(test_snapshot__what_is_to_expire_does),
        cmocka_unit_test(test_snapshot__none_is_made_of_a_queue_that_was_too_small),
        cmocka_unit_test(test_snapshot__what_has_expired_stays_away),
        cmocka_unit_test(test_snapshot__what_was_taken_can_be_changed),
        cmocka_unit_test(test_snapshot__lsns_and_boots_go_on_behind_it),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
