/*
 * test_store_expiry.c - keys that expire: to the millisecond, for every reader, over restarts, out of the counts by
 * themselves; and whatever is written to a key before or after.
 */
#include "expiry_fixture.h"

#include "base/crc32c.h"

enum { BYTES = 3000 };

static void boot_again(struct store_fixture *fixture, unsigned shards)
{
    struct engine_options options = store_options(shards);
    store_boot(fixture, &options);
}

/* A machine of its own, and on it a new store. */
static void boot(struct store_fixture *fixture, uint64_t seed, unsigned shards)
{
    sim_create(seed);
    boot_again(fixture, shards);
}

/* … of one shard, with room for a longer queue of what expires. */
static void boot_roomy(struct store_fixture *fixture, uint64_t seed)
{
    sim_create(seed);
    struct engine_options options = store_options(1);
    options.memory_bytes = 16ull * 1024 * 1024;
    store_boot(fixture, &options);
}

/* ---- the record ------------------------------------------------------------------------------------------------ */

static void test_expiry__a_record_tells_its_expiry_or_has_none(void **state)
{
    (void)state;
    _Alignas(16) uint8_t bytes[128];
    struct record_header fields = {.lsn = 5, .kind = RECORD_PUT, .flags = RECORD_GROUP | RECORD_EXPIRES};
    const struct record_header *record = (const void *)bytes;
    for (unsigned expires = 0; expires <= 1; expires++) {
        record_encode(bytes, 77, 4096, &fields, expires * 123456789u, slice_text("key"), slice_text("value"));
        assert_int_equal(record_check(bytes, sizeof bytes, 77, 4096), RECORD_VALID);
        assert_int_equal(record_expires_ms(record), expires * 123456789u);
        assert_int_equal(record->flags, RECORD_GROUP | (expires ? RECORD_EXPIRES : 0));
        assert_true(slice_equal(record_key(record), slice_text("key")));
        assert_true(slice_equal(record_value(record), slice_text("value")));
        assert_int_equal(record_size(record), expires ? 48 : 32);
        assert_int_equal(record_check(bytes, record_size(record) - 1, 77, 4096), RECORD_INVALID);
        for (unsigned bit = 32 * 8; bit < (24 + 8 * expires + 8) * 8 && bit < 40 * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(record_check(bytes, sizeof bytes, 77, 4096), RECORD_INVALID);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* A newer program may mean something by it. */
static void test_expiry__flags_and_extra_bytes_that_do_not_agree_are_not_understood(void **state)
{
    (void)state;
    static const struct {
        uint8_t kind, flags;
        uint16_t extra_bytes;
        uint64_t expires_ms;
        enum record_state state;
    } cases[] = {
        {RECORD_PUT, RECORD_EXPIRES, 8, 1, RECORD_VALID},      {RECORD_PUT, 0, 8, 1, RECORD_UNKNOWN},
        {RECORD_PUT, RECORD_EXPIRES, 0, 1, RECORD_UNKNOWN},    {RECORD_PUT, RECORD_EXPIRES, 16, 1, RECORD_UNKNOWN},
        {RECORD_DELETE, RECORD_EXPIRES, 8, 1, RECORD_UNKNOWN}, {RECORD_PUT, RECORD_EXPIRES, 8, 0, RECORD_UNKNOWN},
        {RECORD_PUT, RECORD_EXPIRES | 4, 8, 1, RECORD_UNKNOWN}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        _Alignas(16) uint8_t bytes[128] = {0};
        struct record_header *record = (struct record_header *)(void *)bytes;
        *record = (struct record_header){.lsn = 1,
                                         .kind = cases[i].kind,
                                         .flags = cases[i].flags,
                                         .extra_bytes = cases[i].extra_bytes,
                                         .key_bytes = 3};
        memcpy(bytes + sizeof *record, &cases[i].expires_ms, sizeof cases[i].expires_ms);
        size_t skip = offsetof(struct record_header, value_bytes);
        record->crc = crc32c(place_seed(1, 4096), bytes + skip, sizeof *record - skip + record->extra_bytes + 3);
        assert_int_equal(record_check(bytes, sizeof bytes, 1, 4096), cases[i].state);
    }
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void test_expiry__a_key_is_there_until_its_millisecond(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 1, 2);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 1000;
    for (unsigned i = 0; i < 8; i++) {
        char key[32];
        segments_key(key, i);
        assert_false(expiry_put_text(&fixture, key, "value", expires_ms));
    }
    for (unsigned late = 0; late <= 1; late++) {
        expiry_advance_to(&fixture, expires_ms - 1 + late);
        for (unsigned i = 0; i < 8; i++) {
            char key[32];
            segments_key(key, i);
            struct engine_result result = expiry_try_get(&fixture, key);
            assert_int_equal(result.found, !late);
            assert_int_equal(result.expires_ms, late ? 0 : expires_ms);
            struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
            unsigned owner = store_owner(&fixture, &request);
            struct engine_shard *other = fixture.nodes[1 - owner].shard;
            engine_section_begin(other);
            assert_int_equal(engine_try_get(other, owner, &request, &result), ENGINE_DONE);
            engine_section_end(other);
            assert_int_equal(result.found, !late);
        }
    }
    store_stop(&fixture);
    sim_destroy();
}

/* Fills the store so that the keys 0..keys-1, which expire then, are on disk only. */
static void make_cold(struct store_fixture *fixture, unsigned keys, uint64_t expires_ms)
{
    for (unsigned i = 0; i < keys; i++)
        expiry_put_key(fixture, i, 1, BYTES, expires_ms);
    for (unsigned i = 0; i < 600; i++)
        segments_put(fixture, 1000 + i, 1, BYTES);
    expiry_run_ms(fixture, 50);
}

static void test_expiry__cold_records_expire_to_the_millisecond(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 2, 1);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 100000;
    make_cold(&fixture, 3, expires_ms);
    assert_true(expiry_is_cold(&fixture, 0) && expiry_is_cold(&fixture, 1));
    expiry_advance_to(&fixture, expires_ms - 50);
    segments_expect(&fixture, 0, 1, BYTES);
    expiry_advance_to(&fixture, expires_ms);
    segments_expect_none(&fixture, 0); /* in the read cache by now */
    segments_expect_none(&fixture, 1);
    assert_false(segments_remove(&fixture, 2));
    expiry_run_ms(&fixture, 200);
    assert_int_equal(store_keys(&fixture), 600);
    assert_int_equal(expiry_stats(&fixture).expires, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- leaving --------------------------------------------------------------------------------------------------- */

static void test_expiry__keys_leave_the_count_by_themselves_in_small_steps(void **state)
{
    (void)state;
    enum { KEYS = 4000, STEP_MAX = 256 };
    struct store_fixture fixture;
    boot_roomy(&fixture, 3);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 60000;
    for (unsigned i = 0; i < KEYS; i++)
        expiry_put_key(&fixture, i, 1, 10, i % 2 == 0 ? expires_ms : 0);
    assert_int_equal(expiry_stats(&fixture).expires, KEYS / 2);
    assert_true(expiry_stats(&fixture).expiry_bytes > 0);
    assert_true(expiry_now_ms(&fixture) < expires_ms);
    uint64_t before = store_keys(&fixture);
    assert_int_equal(before, KEYS);
    expiry_advance_to(&fixture, expires_ms);
    while (store_keys(&fixture) > KEYS / 2) {
        assert_true(sim_step());
        assert_true(before - store_keys(&fixture) <= STEP_MAX);
        before = store_keys(&fixture);
    }
    struct engine_stats stats = expiry_stats(&fixture);
    assert_true(expiry_now_ms(&fixture) < expires_ms + 100);
    assert_int_equal(stats.expires, 0);
    assert_int_equal(stats.expired_keys, KEYS / 2);
    assert_true(stats.expiry_lag_ms < 100);
    for (unsigned i = 1; i < KEYS; i += 200)
        segments_expect(&fixture, i, 1, 10);
    segments_check_counts(&fixture, KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* Its entry tells readers what to wait for: without it they would see nothing, and no gate. */
static void test_expiry__what_is_not_durable_stays_until_it_is(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 4, 1);
    assert_int_equal(store_put_text(&fixture, "key", "older"), KVS_ERR_OK);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 5;
    struct store_waiting waiting;
    struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text("key"), slice_text("newer"));
    request.expires_ms = expires_ms;
    store_begin(&fixture, &waiting, &request);
    assert_true(waiting.done && waiting.gate != 0);
    free(waiting.value);
    expiry_advance_to(&fixture, expires_ms + 200);
    for (unsigned turn = 0; turn < 4; turn++)
        engine_turn(fixture.nodes[0].shard);
    struct engine_result result = expiry_try_get(&fixture, "key");
    assert_false(result.found);
    assert_int_equal(result.gate, waiting.gate);
    expiry_run_ms(&fixture, 500);
    assert_int_equal(expiry_try_get(&fixture, "key").gate, 0);
    assert_int_equal(store_keys(&fixture), 0);
    store_crash(&fixture, SIM_DROP_ALL);
    boot_again(&fixture, 1);
    store_expect(&fixture, "key", NULL);
    store_stop(&fixture);
    sim_destroy();
}

/* While it is not known whether an older record of the key stands behind it, the expired entry must stay in front. */
static void test_expiry__an_unsettled_entry_stays_in_front(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 5, 1);
    make_cold(&fixture, 2, 0);
    assert_true(expiry_is_cold(&fixture, 0));
    sim_odds(SIM_FAULT_READ_ERROR, 1000000);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 5;
    expiry_put_key(&fixture, 0, 2, BYTES, expires_ms); /* the read that would settle it fails */
    expiry_run_ms(&fixture, 500);
    sim_odds_none();
    uint64_t places[8];
    assert_int_equal(segments_places(&fixture, 0, places), 2);
    segments_expect_none(&fixture, 0);
    /* Written again, it can be settled. */
    expiry_put_key(&fixture, 0, 3, BYTES, expiry_now_ms(&fixture) + 5);
    assert_false(segments_remove(&fixture, 500));
    expiry_run_ms(&fixture, 500);
    segments_expect_none(&fixture, 0);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    segments_expect_none(&fixture, 0);
    segments_expect(&fixture, 1, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* A segment's file may have been filled anew since an item was made, and hold the same key at the same place. */
static void test_expiry__an_item_means_one_life_of_its_segment(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 6, 1);
    segments_put(&fixture, 7, 1, 100);
    char key[32];
    uint64_t places[8];
    segments_key(key, 7);
    assert_int_equal(segments_places(&fixture, 7, places), 1);
    struct store_shard *shard = store_shard_of(fixture.nodes[0].shard);
    uint64_t hash = hash_key(slice_text(key), engine_hash_seed(fixture.engine));
    store_expiry_add(shard, hash, places[0], expiry_now_ms(&fixture) + 1, false);
    atomic_fetch_add(&segments_at(&fixture, segments_of_key(&fixture, 7))->lives, 1);
    expiry_run_ms(&fixture, 300);
    segments_expect(&fixture, 7, 1, 100);
    assert_int_equal(store_keys(&fixture), 1);
    store_stop(&fixture);
    sim_destroy();
}

static void test_expiry__stale_items_do_not_pile_up(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot_roomy(&fixture, 7);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 3600000;
    for (unsigned round = 0; round < 12000; round++)
        expiry_put_key(&fixture, round % 3, round, 10, expires_ms + round);
    const struct store_shard *shard = store_shard_of(fixture.nodes[0].shard);
    assert_true(expiry_queue_count(shard->expiry.queue) < 6000);
    assert_int_equal(expiry_stats(&fixture).expires, 3);
    assert_int_equal(expiry_stats(&fixture).expiry_unqueued, 0);
    for (unsigned i = 0; i < 3; i++)
        segments_expect(&fixture, i, 12000 - 3 + i, 10);
    store_stop(&fixture);
    sim_destroy();
}

/* What found no room in the queue expires for readers all the same, and goes when it is read. */
static void test_expiry__a_full_queue_delays_the_count_only(void **state)
{
    (void)state;
    enum { KEYS = 3000 };
    struct store_fixture fixture;
    boot(&fixture, 8, 1);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 100000;
    for (unsigned i = 0; i < KEYS; i++)
        expiry_put_key(&fixture, i, 1, 10, expires_ms);
    struct engine_stats stats = expiry_stats(&fixture);
    assert_true(stats.expiry_unqueued > 0);
    assert_true(stats.expiry_bytes <= fixture.options.memory_bytes / 16);
    assert_int_equal(stats.expires, KEYS);
    expiry_advance_to(&fixture, expires_ms);
    expiry_run_ms(&fixture, 300);
    assert_true(store_keys(&fixture) > 0);
    for (unsigned i = 0; i < KEYS; i++) {
        segments_expect_none(&fixture, i);
        if (i % 100 == 99)
            expiry_run_ms(&fixture, 10);
    }
    expiry_run_ms(&fixture, 300);
    assert_int_equal(store_keys(&fixture), 0);
    assert_int_equal(expiry_stats(&fixture).expires, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- writing before and after ---------------------------------------------------------------------------------- */

static void test_expiry__the_latest_write_decides(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 9, 1);
    uint64_t soon_ms = expiry_now_ms(&fixture) + 1000;
    (void)expiry_put_text(&fixture, "kept", "1", soon_ms);
    assert_true(expiry_put_text(&fixture, "kept", "2", 0));
    (void)expiry_put_text(&fixture, "longer", "1", soon_ms);
    (void)expiry_put_text(&fixture, "longer", "2", soon_ms + 1000);
    (void)expiry_put_text(&fixture, "gone", "1", 0);
    (void)expiry_put_text(&fixture, "gone", "2", soon_ms);
    (void)expiry_put_text(&fixture, "removed", "1", soon_ms);
    assert_int_equal(expiry_stats(&fixture).expires, 3);
    assert_true(store_remove_text(&fixture, "removed"));
    assert_int_equal(expiry_stats(&fixture).expires, 2);
    expiry_advance_to(&fixture, soon_ms);
    assert_false(store_remove_text(&fixture, "gone"));
    store_expect(&fixture, "kept", "2");
    store_expect(&fixture, "longer", "2");
    store_expect(&fixture, "gone", NULL);
    assert_false(expiry_put_text(&fixture, "gone", "3", 0)); /* it was not there */
    expiry_run_ms(&fixture, 300);
    store_expect(&fixture, "gone", "3");
    assert_int_equal(store_keys(&fixture), 3);
    assert_int_equal(expiry_stats(&fixture).expires, 1);
    expiry_advance_to(&fixture, soon_ms + 1000);
    expiry_run_ms(&fixture, 300);
    store_expect(&fixture, "longer", NULL);
    assert_int_equal(store_keys(&fixture), 2);
    store_stop(&fixture);
    sim_destroy();
}

static void test_expiry__a_put_of_what_has_expired_is_a_delete(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 10, 1);
    assert_int_equal(store_put_text(&fixture, "key", "1"), KVS_ERR_OK);
    uint64_t records = expiry_stats(&fixture).records_appended;
    assert_true(expiry_put_text(&fixture, "key", "2", expiry_now_ms(&fixture)));
    store_expect(&fixture, "key", NULL);
    assert_int_equal(store_keys(&fixture), 0);
    assert_int_equal(expiry_stats(&fixture).records_appended, records + 1);
    assert_false(expiry_put_text(&fixture, "key", "3", 1));
    assert_int_equal(expiry_stats(&fixture).records_appended, records + 1);
    store_crash(&fixture, SIM_DROP_ALL);
    boot_again(&fixture, 1);
    store_expect(&fixture, "key", NULL);
    store_stop(&fixture);
    sim_destroy();
}

/* Blind overwrites among them: all are settled in the end, and every count is exact. */
static void test_expiry__counts_are_exact_whatever_was_cold(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 11, 1);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 100000;
    make_cold(&fixture, 40, expires_ms);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(expiry_is_cold(&fixture, i));
        if (i % 4 == 0)
            segments_put(&fixture, i, 2, BYTES);
        else if (i % 4 == 1)
            expiry_put_key(&fixture, i, 2, BYTES, expires_ms + 100000);
        else if (i % 4 == 2)
            assert_true(segments_remove(&fixture, i));
    }
    expiry_run_ms(&fixture, 1000);
    assert_int_equal(expiry_stats(&fixture).settling, 0);
    assert_int_equal(store_keys(&fixture), 600 + 30);
    assert_int_equal(expiry_stats(&fixture).expires, 20);
    segments_check_counts(&fixture, 2000);
    expiry_advance_to(&fixture, expires_ms);
    expiry_run_ms(&fixture, 1000);
    assert_int_equal(store_keys(&fixture), 600 + 20);
    assert_int_equal(expiry_stats(&fixture).expires, 10);
    segments_check_counts(&fixture, 2000);
    for (unsigned i = 0; i < 40; i++) {
        if (i % 4 < 2)
            segments_expect(&fixture, i, 2, BYTES);
        else
            segments_expect_none(&fixture, i);
    }
    store_stop(&fixture);
    sim_destroy();
}

/* ---- restarts and clocks --------------------------------------------------------------------------------------- */

/* A new store, in which a value of this key that expires so much later hides one that does not. Returns when. */
static uint64_t boot_hiding(struct store_fixture *fixture, uint64_t seed, const char *key, uint64_t ms)
{
    boot(fixture, seed, 1);
    uint64_t expires_ms = expiry_now_ms(fixture) + ms;
    (void)expiry_put_text(fixture, key, "older", 0);
    (void)expiry_put_text(fixture, key, "newer", expires_ms);
    return expires_ms;
}

static void test_expiry__restarts_before_and_after(void **state)
{
    (void)state;
    for (unsigned orderly = 0; orderly <= 1; orderly++) {
        struct store_fixture fixture;
        uint64_t expires_ms = boot_hiding(&fixture, 12, "gone", 50000);
        (void)expiry_put_text(&fixture, "kept", "value", expires_ms + 10000);
        for (unsigned late = 0; late <= 1; late++) {
            if (orderly)
                store_stop(&fixture);
            else
                store_crash(&fixture, SIM_RANDOM);
            if (late)
                sim_advance(50000ull * 1000000);
            boot_again(&fixture, 1 + late);
            store_expect(&fixture, "gone", late ? NULL : "newer");
            store_expect(&fixture, "kept", "value");
            assert_int_equal(store_keys(&fixture), late ? 1 : 2);
            assert_int_equal(expiry_stats(&fixture).expires, late ? 1 : 2);
            assert_int_equal(expiry_stats(&fixture).expired_keys, late);
            assert_int_equal(expiry_try_get(&fixture, "kept").expires_ms, expires_ms + 10000);
        }
        sim_advance(10000ull * 1000000); /* what a start has found is in the queue */
        expiry_run_ms(&fixture, 300);
        assert_int_equal(store_keys(&fixture), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_expiry__a_clock_that_steps_back_brings_nothing_back(void **state)
{
    (void)state;
    struct store_fixture fixture;
    boot(&fixture, 13, 1);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 1000;
    (void)expiry_put_text(&fixture, "key", "value", expires_ms);
    expiry_advance_to(&fixture, expires_ms);
    assert_false(expiry_try_get(&fixture, "key").found); /* its entry is still there */
    sim_step_wall(-3600000);
    assert_false(expiry_try_get(&fixture, "key").found);
    /* Time goes on meanwhile: what is put for a second is there for a second. */
    struct engine_shard *shard = fixture.nodes[0].shard;
    engine_section_begin(shard);
    uint64_t now_ms = engine_now_ms(shard);
    engine_section_end(shard);
    assert_true(now_ms >= expires_ms && now_ms < expires_ms + 10);
    (void)expiry_put_text(&fixture, "other", "value", now_ms + 1000);
    sim_advance(900ull * 1000000);
    store_expect(&fixture, "other", "value");
    sim_advance(110ull * 1000000);
    store_expect(&fixture, "other", NULL);
    store_stop(&fixture);
    sim_destroy();
}

/* The log tells what time it was, also when nothing but reads has happened since the last write. */
static void test_expiry__a_restart_does_not_turn_time_back(void **state)
{
    (void)state;
    for (unsigned orderly = 0; orderly <= 1; orderly++) {
        struct store_fixture fixture;
        expiry_advance_to(&fixture, boot_hiding(&fixture, 14, "key", 10000));
        store_expect(&fixture, "key", NULL);
        if (orderly) {
            store_stop(&fixture);
        } else {
            expiry_run_ms(&fixture, 1500);
            store_crash(&fixture, SIM_DROP_ALL);
        }
        sim_step_wall(-3600000);
        boot_again(&fixture, 1);
        store_expect(&fixture, "key", NULL);
        assert_int_equal(store_keys(&fixture), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry__a_record_tells_its_expiry_or_has_none),
        cmocka_unit_test(test_expiry__flags_and_extra_bytes_that_do_not_agree_are_not_understood),
        cmocka_unit_test(test_expiry__a_key_is_there_until_its_millisecond),
        cmocka_unit_test(test_expiry__cold_records_expire_to_the_millisecond),
        cmocka_unit_test(test_expiry__keys_leave_the_count_by_themselves_in_small_steps),
        cmocka_unit_test(test_expiry__what_is_not_durable_stays_until_it_is),
        cmocka_unit_test(test_expiry__an_unsettled_entry_stays_in_front),
        cmocka_unit_test(test_expiry__an_item_means_one_life_of_its_segment),
        cmocka_unit_test(test_expiry__stale_items_do_not_pile_up),
        cmocka_unit_test(test_expiry__a_full_queue_delays_the_count_only),
        cmocka_unit_test(test_expiry__the_latest_write_decides),
        cmocka_unit_test(test_expiry__a_put_of_what_has_expired_is_a_delete),
        cmocka_unit_test(test_expiry__counts_are_exact_whatever_was_cold),
        cmocka_unit_test(test_expiry__restarts_before_and_after),
        cmocka_unit_test(test_expiry__a_clock_that_steps_back_brings_nothing_back),
        cmocka_unit_test(test_expiry__a_restart_does_not_turn_time_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
