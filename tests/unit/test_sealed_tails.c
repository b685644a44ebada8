/*
 * test_sealed_tails.c - an orderly stop seals what logs were writing in: the next start need not read it, and goes on
 * in it.
 */
#include "backup_fixture.h"
#include "check_fixture.h"
#include "segments_fixture.h"
#include "store_fixture.h"

#include <errno.h>

enum { BYTES = 3000, BOOTS = 12, KEYS_PER_BOOT = 5, MAKERS = 3 };

static struct store_fixture fixture;

static const struct engine_recovery *recovery(void)
{
    return &segments_store(&fixture)->base.recovery;
}

/* What a log of this boot goes on in; NULL: a new segment. */
static const struct segment *adopted(unsigned shard)
{
    return store_shard_of(fixture.nodes[shard].shard)->adopted;
}

static void test_sealed_tails__start_reads_none_of_them(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        sim_create(shards);
        struct engine_options options = store_options(shards);
        store_boot(&fixture, &options);
        segments_put_range(&fixture, 0, 30, 1, BYTES);
        store_stop(&fixture);
        for (unsigned pass = 0; pass < 2; pass++) {
            if (pass == 1)
                assert_true(store_forget_snapshot());
            store_boot(&fixture, &options);
            assert_int_equal(recovery()->records, 0);
            assert_true(recovery()->bytes <= MAKERS * 3 * KVS_BLOCK_BYTES * (uint64_t)shards);
            for (unsigned i = 0; i < shards; i++)
                assert_non_null(adopted(i));
            segments_expect_range(&fixture, 0, 30, 1, BYTES);
            store_stop(&fixture);
        }
        assert_true(store_forget_runs() > 0);
        (void)store_forget_snapshot();
        store_boot(&fixture, &options);
        assert_int_equal(recovery()->records, 30);
        segments_expect_range(&fixture, 0, 30, 1, BYTES);
        store_stop(&fixture);
        check_expect_sound(30);
        sim_destroy();
    }
}

/* As many boots as it takes to fill a segment leave no more behind than one boot that writes the same. */
static void test_sealed_tails__logs_go_on_in_them(void **state)
{
    (void)state;
    sim_create(7);
    struct engine_options options = store_options(1);
    uint32_t number = UINT32_MAX, end = 0;
    unsigned again = 0;
    for (unsigned boot = 0; boot < BOOTS; boot++) {
        store_boot(&fixture, &options);
        segments_expect_range(&fixture, 0, boot * KEYS_PER_BOOT, 1, BYTES);
        assert_true(boot == 0 || adopted(0) != NULL);
        if (adopted(0) != NULL && adopted(0)->number == number) {
            assert_true(adopted(0)->end >= end);
            again++;
        }
        segments_put_range(&fixture, boot * KEYS_PER_BOOT, (boot + 1) * KEYS_PER_BOOT, 1, BYTES);
        const struct segment *tail = store_shard_of(fixture.nodes[0].shard)->log.open;
        number = tail->number;
        end = tail->end;
        if (boot % 3 == 2)
            store_crash(&fixture, SIM_DROP_ALL);
        else
            store_stop(&fixture);
    }
    assert_true(again >= BOOTS - 4);
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, BOOTS * KEYS_PER_BOOT, 1, BYTES);
    segments_check_counts(&fixture, BOOTS * KEYS_PER_BOOT);
    assert_true(segments_in_state(&fixture, SEGMENT_SEALED) <= 2);
    store_stop(&fixture);
    check_expect_sound(BOOTS * KEYS_PER_BOOT);
    sim_destroy();
}

/* With fewer shards some stay sealed; the next boot with more goes on in these, too. */
static void test_sealed_tails__other_numbers_of_shards(void **state)
{
    (void)state;
    static const unsigned counts[] = {3, 1, 3, 2};
    sim_create(8);
    for (unsigned boot = 0; boot < ARRAY_COUNT(counts); boot++) {
        struct engine_options options = store_options(counts[boot]);
        store_boot(&fixture, &options);
        if (boot > 0) {
            assert_int_equal(recovery()->records, 0);
            for (unsigned i = 0; i < counts[boot]; i++)
                assert_non_null(adopted(i));
            assert_int_equal(segments_in_state(&fixture, SEGMENT_SEALED), 3 - counts[boot]);
        }
        segments_put_range(&fixture, boot * 12, boot * 12 + 12, 1, BYTES);
        segments_expect_range(&fixture, 0, boot * 12 + 12, 1, BYTES);
        store_stop(&fixture);
    }
    check_expect_sound(12 * ARRAY_COUNT(counts));
    sim_destroy();
}

/* A log has gone on behind the end of a sealed segment, and the manifest that says so is lost: an older one stands in
 * its place. The segment need not be read, but what follows its end is looked at. */
static void test_sealed_tails__manifest_that_does_not_know_of_what_follows(void **state)
{
    (void)state;
    static uint8_t bytes[256 * 1024];
    for (unsigned covered = 0; covered < 2; covered++) {
        sim_create(9 + covered);
        struct engine_options options = store_options(1);
        struct kept_files kept = {0};
        store_boot(&fixture, &options);
        segments_put_range(&fixture, 0, 10, 1, BYTES);
        store_stop(&fixture);
        if (covered == 0)
            assert_true(store_forget_runs() > 0);
        kept_save(&kept);
        store_boot(&fixture, &options);
        char name[SEGMENT_NAME_BYTES], path[64];
        segment_name(name, adopted(0)->number, "");
        snprintf(path, sizeof path, "/data/%s", name);
        segments_put_range(&fixture, 10, 15, 1, BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        assert_int_equal(sim_file_size(path), sizeof bytes);
        sim_file_read(path, 0, bytes, sizeof bytes);
        kept_restore(&kept);
        sim_file_put(path, bytes, sizeof bytes);
        assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_CORRUPT);
        assert_non_null(strstr(fixture.message, "lost its latest changes"));
        struct check_fixture check;
        check_begin(&check, "/data", (struct check_options){0});
        assert_true(check.report->refused);
        check_end(&check);
        kept_free(&kept);
        sim_destroy();
    }
}

/* A backup has one of the tails, too: nothing may be written to it any more. */
static void test_sealed_tails__one_that_a_backup_shares_is_left_alone(void **state)
{
    (void)state;
    sim_create(11);
    for (unsigned boot = 0; boot < 3; boot++) {
        struct engine_options options = store_options(boot == 1 ? 1 : 2);
        store_boot(&fixture, &options);
        segments_put_range(&fixture, boot * 10, boot * 10 + 10, 1, BYTES);
        if (boot == 1)
            backup_make(&fixture, "one");
        if (boot == 2) {
            assert_non_null(adopted(0));
            assert_null(adopted(1));
        }
        segments_expect_range(&fixture, 0, boot * 10 + 10, 1, BYTES);
        store_stop(&fixture);
    }
    backup_expect_sound(BACKUP_PATH);
    check_expect_sound(30);
    sim_destroy();
}

/* A start adopts a segment that a log had left with some room, and one before it was given up; then it ends early, at
 * any write. The next one finds the adopted segment listed as one that may have been written to. */
static void test_sealed_tails__start_that_adopts_and_fails(void **state)
{
    (void)state;
    enum { KEYS = 3 * STORE_LARGE_PER_SEGMENT };
    sim_create(12);
    struct engine_options options = store_options(1);
    options.memory_bytes *= 4;
    store_boot(&fixture, &options);
    for (unsigned version = 1; version <= 2; version++)
        segments_put_range(&fixture, 0, KEYS, version, STORE_LARGE_BYTES);
    store_compact(&fixture, 100);
    segments_run_ms(&fixture, 2000);
    store_stop(&fixture);
    struct kept_files kept = {0};
    kept_save(&kept);
    options.shard_count = 4;
    unsigned fails = 0;
    for (bool failed = true; failed; fails += failed) {
        kept_restore(&kept);
        sim_fail(RING_KIND_WRITE, fails + 1, EIO);
        failed = store_try_boot(&fixture, &options) != KVS_ERR_OK;
        sim_fail_none();
        if (!failed)
            store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        segments_expect_range(&fixture, 0, KEYS, 2, STORE_LARGE_BYTES);
        store_stop(&fixture);
    }
    assert_true(fails > 3);
    kept_free(&kept);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sealed_tails__start_reads_none_of_them),
        cmocka_unit_test(test_sealed_tails__logs_go_on_in_them),
        cmocka_unit_test(test_sealed_tails__other_numbers_of_shards),
        cmocka_unit_test(test_sealed_tails__manifest_that_does_not_know_of_what_follows),
        cmocka_unit_test(test_sealed_tails__one_that_a_backup_shares_is_left_alone),
        cmocka_unit_test(test_sealed_tails__start_that_adopts_and_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
