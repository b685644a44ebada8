/*
 * test_expiry_compaction.c - what compaction makes of records that expire: they hide what they hid, move with their
 * expiry, and go when nothing is left to hide.
 */
#include "expiry_fixture.h"
#include "hiding_fixture.h"

enum { BYTES = 3900 /* a record, in a batch of its own, fills a block */, PER_SEGMENT = 62 };

static void put_expiring(struct store_fixture *fixture, unsigned i)
{
    expiry_put_key(fixture, i, 2, 200, expiry_now_ms(fixture) + 20);
}

/* As test_compaction__deletes_stay_deleted, but that the keys expire: the older puts have no expiry. */
static void test_expiry__what_has_expired_hides_older_puts_through_compaction(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = hiding_create(&fixture, put_expiring);
    expiry_run_ms(&fixture, 1000);
    assert_int_equal(store_keys(&fixture), HIDING_KEYS);
    assert_int_equal(expiry_stats(&fixture).settling, 0);
    uint64_t records = expiry_stats(&fixture).records_appended;
    store_compact(&fixture, 130);
    expiry_run_ms(&fixture, 2000);
    struct compact_stats stats = store_compact_stats(&fixture);
    assert_true(stats.victims >= 4);
    assert_true(stats.expired_kept >= HIDING_HIDDEN / 2);
    assert_int_equal(expiry_stats(&fixture).records_appended, records); /* no deletes were written for it */
    hiding_check(&fixture, &options);
    store_compact(&fixture, 130);
    hiding_overwrite_all_else(&fixture);
    expiry_run_ms(&fixture, 2000);
    assert_true(store_compact_stats(&fixture).deletes_dropped >= HIDING_HIDDEN / 2);
    hiding_end(&fixture, &options);
}

/* Those that have not expired are moved, and expire at their new place; most of the space is given back unread. */
static void test_expiry__moved_records_expire_where_they_are(void **state)
{
    (void)state;
    enum { KEYS = 4 * PER_SEGMENT, SECOND = 1000, OTHERS = 2 * PER_SEGMENT };
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 2, 1);
    uint64_t late_ms = expiry_now_ms(&fixture) + 1000000;
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 10 == 0)
            expiry_put_key(&fixture, i, 1, BYTES, late_ms);
        else
            segments_put(&fixture, SECOND + i % OTHERS, 1, BYTES);
    }
    for (unsigned version = 2; version < 5; version++)
        segments_put_range(&fixture, SECOND, SECOND + OTHERS, version, BYTES);
    store_compact(&fixture, 130);
    expiry_run_ms(&fixture, 3000);
    assert_true(store_compact_stats(&fixture).records_moved >= KEYS / 20);
    for (unsigned i = 0; i < KEYS; i += 10)
        segments_expect(&fixture, i, 1, BYTES);
    assert_int_equal(expiry_stats(&fixture).expires, (KEYS + 9) / 10);
    expiry_advance_to(&fixture, late_ms);
    expiry_run_ms(&fixture, 300);
    assert_int_equal(expiry_stats(&fixture).expires, 0);
    assert_int_equal(store_keys(&fixture), OTHERS);
    segments_check_counts(&fixture, 2000);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < KEYS; i += 10)
        segments_expect_none(&fixture, i);
    assert_int_equal(store_keys(&fixture), OTHERS);
    store_stop(&fixture);
    sim_destroy();
}

/* A cache: everything expires, nothing else is there. Its segments come back by themselves, without being copied. */
static void test_expiry__segments_of_nothing_but_expired_records_come_back(void **state)
{
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    options.memory_bytes = 32 * options.segment_bytes;
    options.disk_bytes_max = 16 * options.segment_bytes;
    store_boot(&fixture, &options);
    store_compact(&fixture, 150);
    for (unsigned i = 0; i < 60 * PER_SEGMENT; i++)
        expiry_put_key(&fixture, i, 1, BYTES, expiry_now_ms(&fixture) + 30);
    expiry_run_ms(&fixture, 1000);
    assert_int_equal(store_keys(&fixture), 0);
    struct compact_stats stats = store_compact_stats(&fixture);
    assert_true(stats.victims >= 40);
    assert_true(stats.bytes_written < 20 * options.segment_bytes);
    store_stop(&fixture);
    sim_destroy();
}

/* An overwrite that is not settled: compaction is told that the older record, live by the index, may be hidden. */
static void test_expiry__compaction_knows_what_an_unsettled_overwrite_hides(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 4, 1);
    segments_put_range(&fixture, 0, 10 * PER_SEGMENT, 1, BYTES);
    assert_true(expiry_is_cold(&fixture, 3));
    char key[32];
    segments_key(key, 3);
    uint64_t places[8], hash = hash_key(slice_text(key), engine_hash_seed(fixture.engine));
    assert_int_equal(segments_places(&fixture, 3, places), 1);
    struct engine_background *background = fixture.background;
    bool hidden;
    engine_background_section_begin(background);
    assert_true(relocation_live(background, hash, places[0], &hidden));
    engine_background_section_end(background);
    assert_false(hidden);

    uint64_t settled = relocation_settled(background);
    struct store_waiting waiting;
    struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text("newer"));
    request.expires_ms = expiry_now_ms(&fixture) + 100000;
    store_begin(&fixture, &waiting, &request);
    assert_true(waiting.done);
    free(waiting.value);
    engine_background_section_begin(background);
    assert_true(relocation_live(background, hash, places[0], &hidden));
    engine_background_section_end(background);
    assert_true(hidden);
    assert_int_equal(relocation_settled(background), settled);

    expiry_run_ms(&fixture, 100);
    engine_background_section_begin(background);
    assert_false(relocation_live(background, hash, places[0], &hidden));
    engine_background_section_end(background);
    assert_int_equal(relocation_settled(background), settled + 1);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- a model ----------------------------------------------------------------------------------------------------- */

enum { MODEL_KEYS = 200 };

static struct model {
    unsigned version; /* 0: not there */
    uint64_t expires_ms;
    size_t bytes;
} model[MODEL_KEYS];

static void model_write(struct store_fixture *fixture, unsigned version)
{
    unsigned i = (unsigned)sim_random(MODEL_KEYS), choice = (unsigned)sim_random(8);
    uint64_t now_ms = expiry_now_ms(fixture);
    struct model next = {.version = version, .bytes = 200 + sim_random(6000)};
    if (choice == 0) {
        (void)segments_remove(fixture, i);
        next.version = 0;
    } else {
        next.expires_ms = choice < 5 ? now_ms + 5 + sim_random(3000) : 0;
        expiry_put_key(fixture, i, version, next.bytes, next.expires_ms);
    }
    model[i] = next;
}

static void model_check(struct store_fixture *fixture)
{
    uint64_t keys = 0, expires = 0;
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        struct model *one = &model[i];
        if (one->expires_ms != 0 && one->expires_ms < expiry_now_ms(fixture) + 200)
            continue; /* it may go while it is looked at */
        if (one->version == 0)
            segments_expect_none(fixture, i);
        else
            segments_expect(fixture, i, one->version, one->bytes);
    }
    expiry_run_ms(fixture, 400);
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        struct model *one = &model[i];
        uint64_t now_ms = expiry_now_ms(fixture);
        if (one->expires_ms != 0 && one->expires_ms <= now_ms)
            *one = (struct model){0};
        if (one->version == 0)
            segments_expect_none(fixture, i);
    }
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        keys += model[i].version != 0 && (model[i].expires_ms == 0 || model[i].expires_ms > expiry_now_ms(fixture));
        expires += model[i].expires_ms > expiry_now_ms(fixture);
    }
    struct engine_stats stats = expiry_stats(fixture);
    if (stats.settling == 0) {
        /* What has expired this very moment may still be counted. */
        assert_true(stats.keys >= keys && stats.keys <= keys + 3);
        assert_true(stats.expires >= expires && stats.expires <= expires + 3);
    }
}

/* Writes, expiry, compaction, power losses, clocks that are put back: the model knows what is there. */
static void test_expiry__agrees_with_a_model_through_everything(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        sim_create(seed);
        memset(model, 0, sizeof model);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1);
        unsigned version = 0;
        for (unsigned start = 0; start < 5; start++) {
            store_boot(&fixture, &options);
            store_compact(&fixture, 130);
            for (unsigned round = 0; round < 4; round++) {
                for (unsigned i = 0; i < 300; i++)
                    model_write(&fixture, ++version);
                expiry_run_ms(&fixture, 300);
                model_check(&fixture);
            }
            if (start % 2 == 0)
                store_crash(&fixture, SIM_RANDOM);
            else
                store_stop(&fixture);
        }
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry__what_has_expired_hides_older_puts_through_compaction),
        cmocka_unit_test(test_expiry__moved_records_expire_where_they_are),
        cmocka_unit_test(test_expiry__segments_of_nothing_but_expired_records_come_back),
        cmocka_unit_test(test_expiry__compaction_knows_what_an_unsettled_overwrite_hides),
        cmocka_unit_test(test_expiry__agrees_with_a_model_through_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
