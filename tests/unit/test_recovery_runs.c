/*
 * test_recovery_runs.c - starts that go by sorted runs: what they need not read, what they do when a run is bad, stale
 * or missing, and how what they have not read comes into RAM.
 */
#include "segments_fixture.h"

#include "engine/checkpoint.h"
#include "engine/run_file.h"

#include <errno.h>

enum { KEYS = 600, BYTES = 2000 };

static void put_all(struct store_fixture *fixture, unsigned version)
{
    for (unsigned i = 0; i < KEYS; i++)
        segments_put(fixture, i, version, BYTES);
}

/* Every third key is gone, every other third has version 2. */
static void change_some(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 3 == 0)
            assert_true(segments_remove(fixture, i));
        else if (i % 3 == 1)
            segments_put(fixture, i, 2, BYTES);
    }
}

static void expect_changed(struct store_fixture *fixture)
{
    assert_int_equal(store_keys(fixture), KEYS - KEYS / 3);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 3 == 0)
            segments_expect_none(fixture, i);
        else
            segments_expect(fixture, i, i % 3 == 1 ? 2 : 1, BYTES);
    }
}

static struct engine_recovery recovery_of(const struct store_fixture *fixture)
{
    struct engine_recovery recovery;
    engine_recovered(fixture->engine, &recovery);
    return recovery;
}

static uint64_t disk_reads(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats.disk_reads;
}

/* The next start goes by runs, not by a snapshot of the indexes. */
static void stop(struct store_fixture *fixture)
{
    store_stop(fixture);
    assert_true(store_forget_snapshot());
}

/* A store that was stopped in order, with everything covered. */
static void make_store(struct store_fixture *fixture, struct engine_options *options, unsigned shards)
{
    *options = segments_scarce(shards);
    store_boot(fixture, options);
    put_all(fixture, 1);
    change_some(fixture);
    stop(fixture);
}

static void find_runs(void *context, const char *path)
{
    unsigned *count = context;
    const char *dot = strrchr(path, '.');
    *count += dot != NULL && strcmp(dot, ".run") == 0;
}

static unsigned runs_on_disk(void)
{
    unsigned count = 0;
    sim_file_each(find_runs, &count);
    return count;
}

/* ---- clean ----------------------------------------------------------------------------------------------------- */

static void test_recovery_runs__clean_start_reads_no_records(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        sim_create(100 + shards);
        struct store_fixture fixture;
        struct engine_options options;
        make_store(&fixture, &options, 2);
        assert_true(runs_on_disk() > 0);
        options = segments_scarce(shards);
        store_boot(&fixture, &options);
        struct engine_recovery recovery = recovery_of(&fixture);
        /* Two tails are scanned for their end; of all else only the head of each segment is read. */
        assert_true(recovery.segments > 6);
        assert_true(recovery.bytes < 2 * options.segment_bytes + (recovery.segments + 8) * 2 * KVS_BLOCK_BYTES);
        assert_int_equal(recovery.keys, KEYS - KEYS / 3);
        expect_changed(&fixture);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_recovery_runs__what_comes_after_a_run_counts(void **state)
{
    (void)state;
    sim_create(110);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    for (unsigned round = 3; round < 9; round++) {
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i += 7)
            segments_put(&fixture, i, round, BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i += 7)
            segments_expect(&fixture, i, round, BYTES);
        for (unsigned i = 0; i < KEYS; i += 7)
            assert_true(segments_remove(&fixture, i));
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i += 7)
            segments_expect_none(&fixture, i);
        if (round % 2 == 0)
            store_stop(&fixture);
        else
            store_crash(&fixture, SIM_DROP_ALL);
    }
    sim_destroy();
}

/* Of a tail that was covered, and then written on in. */
static void test_recovery_runs__tail_that_went_on_is_read(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 120, 1);
    segments_put(&fixture, 1, 1, BYTES);
    segments_put(&fixture, 2, 1, BYTES);
    stop(&fixture);
    assert_int_equal(runs_on_disk(), 1);
    store_boot(&fixture, &options);
    assert_int_equal(recovery_of(&fixture).keys, 2);
    segments_put(&fixture, 1, 2, BYTES);
    segments_put(&fixture, 3, 1, BYTES);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    segments_expect(&fixture, 1, 2, BYTES);
    segments_expect(&fixture, 2, 1, BYTES);
    segments_expect(&fixture, 3, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- bad ones -------------------------------------------------------------------------------------------------- */

static void flip_run(void *context, const char *path)
{
    const uint64_t *where = context;
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strcmp(dot, ".run") == 0)
        sim_file_flip(path, *where % sim_file_size(path) * 8 + 3);
}

static void test_recovery_runs__damaged_run_is_as_good_as_none(void **state)
{
    (void)state;
    /* In the header, in entries, in the list of segments. */
    static const uint64_t places[] = {
        12, 64, RUN_HEADER_BYTES + 20, RUN_HEADER_BYTES + 5000, 1ull << 20, (1ull << 20) + 77, 9999999};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        sim_create(130 + i);
        struct store_fixture fixture;
        struct engine_options options;
        make_store(&fixture, &options, 1);
        uint64_t where = places[i];
        sim_file_each(flip_run, &where);
        store_boot(&fixture, &options);
        assert_true(recovery_of(&fixture).bytes > recovery_of(&fixture).segments * options.segment_bytes / 2);
        expect_changed(&fixture);
        stop(&fixture);
        store_boot(&fixture, &options);
        assert_true(recovery_of(&fixture).bytes < 4 * options.segment_bytes);
        expect_changed(&fixture);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_recovery_runs__missing_runs_are_not_missed(void **state)
{
    (void)state;
    sim_create(140);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 2);
    assert_true(store_forget_runs() > 0);
    store_boot(&fixture, &options);
    assert_true(recovery_of(&fixture).bytes >= recovery_of(&fixture).segments * options.segment_bytes);
    expect_changed(&fixture);
    store_stop(&fixture);
    sim_destroy();
}

/* An error while a run is read is taken for damage: the start must not fail for it. */
static void test_recovery_runs__unreadable_run_does_not_keep_from_starting(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (unsigned step = 1; step <= 60; step++) {
        sim_create(150);
        struct store_fixture fixture;
        struct engine_options options;
        make_store(&fixture, &options, 1);
        sim_fail(RING_KIND_READ, step, EIO);
        if (store_try_boot(&fixture, &options) != KVS_ERR_OK) {
            refused++; /* it met the superblock, the manifest or a segment */
            sim_fail_none();
            store_boot(&fixture, &options);
        }
        sim_fail_none();
        expect_changed(&fixture);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(refused < 40);
}

/* ---- other lives ----------------------------------------------------------------------------------------------- */

/* Runs of an earlier time are put back: segments that they cover have been given up since, and their files are used
 * again. */
static void test_recovery_runs__old_runs_say_nothing_of_new_lives(void **state)
{
    (void)state;
    sim_create(160);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    char path[256] = "";
    sim_file_each(store_find_run, path);
    assert_true(path[0] != '\0');
    uint64_t size = sim_file_size(path);
    uint8_t *old = malloc(size);
    sim_file_read(path, 0, old, size);

    store_boot(&fixture, &options);
    store_compact(&fixture, 130);
    for (unsigned version = 3; version < 9; version++) {
        put_all(&fixture, version);
        segments_run_ms(&fixture, 2000);
    }
    assert_true(segments_remove(&fixture, 5));
    store_crash(&fixture, SIM_DROP_ALL);
    (void)store_forget_runs();
    sim_file_put(path, old, size);
    free(old);

    store_boot(&fixture, &options);
    assert_int_equal(store_keys(&fixture), KEYS - 1);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i != 5)
            segments_expect(&fixture, i, 8, BYTES);
    }
    segments_expect_none(&fixture, 5);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- too much for memory --------------------------------------------------------------------------------------- */

static void test_recovery_runs__what_does_not_fit_into_memory_becomes_runs(void **state)
{
    (void)state;
    enum { MANY = 40000 };
    sim_create(170);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(2);
    options.memory_bytes = 24 * options.segment_bytes;
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < MANY; i++)
        segments_put(&fixture, i, 1, 12);
    store_crash(&fixture, SIM_DROP_ALL);
    (void)store_forget_runs();
    assert_true((uint64_t)MANY * sizeof(struct run_entry) > 4 * options.segment_bytes);
    store_boot(&fixture, &options);
    assert_int_equal(recovery_of(&fixture).keys, MANY);
    assert_true(runs_on_disk() > 0);
    for (unsigned i = 0; i < MANY; i += 97)
        segments_expect(&fixture, i, 1, 12);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    assert_true(recovery_of(&fixture).bytes < recovery_of(&fixture).segments * options.segment_bytes * 3 / 4);
    assert_int_equal(recovery_of(&fixture).keys, MANY);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- damage that a start does not see -------------------------------------------------------------------------- */

/* Keys of a changed store whose records are damaged; all others are as they should be. */
static unsigned count_damaged(struct store_fixture *fixture)
{
    unsigned damaged = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        char key[32];
        segments_key(key, i);
        damaged += store_is_damaged(fixture, key,
                                    i % 3 == 0 ? slice_make(NULL, 0) : segments_value(i, i % 3 == 1 ? 2 : 1, BYTES));
    }
    return damaged;
}

static void test_recovery_runs__damage_under_a_run_is_an_error_when_it_is_read(void **state)
{
    (void)state;
    sim_create(180);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    store_damage(0, 3, 60);
    options.memory_bytes = 40 * options.segment_bytes;
    store_boot(&fixture, &options);
    store_quiet(); /* segments that come back into RAM are verified first */
    assert_true(count_damaged(&fixture) > 0);
    store_stop(&fixture);
    sim_destroy();
}

/* The segment that the log goes on in. */
static struct segment *tail_of(struct store_fixture *fixture)
{
    for (uint32_t number = 0; number < 100; number++) {
        struct segment *segment = segments_at(fixture, number);
        if (segment != NULL && segment_state(segment) == SEGMENT_OPEN)
            return segment;
    }
    fail_msg("no log is being written");
    return NULL;
}

/* The tail's beginning is not in RAM yet; as a rule it is before the store is ready. */
static void boot_with_half_a_tail(struct store_fixture *fixture, const struct engine_options *options)
{
    store_boot(fixture, options);
    for (unsigned i = 0; i < 200 && tail_of(fixture)->image_from == 0; i++) {
        store_stop(fixture);
        store_boot(fixture, options);
    }
    assert_true(tail_of(fixture)->image_from > 8 * KVS_BLOCK_BYTES);
}

static void test_recovery_runs__beginning_of_a_tail_is_verified_before_it_is_shown(void **state)
{
    (void)state;
    sim_create(185);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    options.memory_bytes = 40 * options.segment_bytes;
    boot_with_half_a_tail(&fixture, &options);
    const uint32_t number = tail_of(&fixture)->number;
    expect_changed(&fixture);
    store_quiet();
    assert_int_equal(tail_of(&fixture)->image_from, 0);
    const uint64_t before = disk_reads(&fixture);
    expect_changed(&fixture);
    assert_int_equal(disk_reads(&fixture), before);
    store_stop(&fixture);

    boot_with_half_a_tail(&fixture, &options);
    store_damage(number, 3, 5);
    store_quiet();
    assert_int_equal(tail_of(&fixture)->number, number);
    assert_true(tail_of(&fixture)->image_from > 8 * KVS_BLOCK_BYTES);
    const unsigned damaged = count_damaged(&fixture);
    assert_true(damaged > 0 && damaged < 20);
    put_all(&fixture, 1);
    change_some(&fixture);
    expect_changed(&fixture);
    store_stop(&fixture);
    sim_destroy();
}

static void test_recovery_runs__damaged_head_of_a_covered_segment_is_noticed(void **state)
{
    (void)state;
    sim_create(190);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    sim_file_flip("/data/000000.seg", 30 * 8);
    store_expect_refused(&fixture, &options, "segment 000000");
    sim_file_flip("/data/000000.seg", 30 * 8);
    sim_file_truncate("/data/000000.seg", options.segment_bytes - 4096);
    store_expect_refused(&fixture, &options, "cut short");
    sim_destroy();
}

/* ---- back into RAM --------------------------------------------------------------------------------------------- */

static void test_recovery_runs__what_was_not_read_comes_into_ram(void **state)
{
    (void)state;
    sim_create(200);
    struct store_fixture fixture;
    struct engine_options options;
    make_store(&fixture, &options, 1);
    options.memory_bytes = 40 * options.segment_bytes;
    store_boot(&fixture, &options);
    store_quiet();
    uint64_t before = disk_reads(&fixture);
    expect_changed(&fixture);
    assert_int_equal(disk_reads(&fixture), before);
    store_stop(&fixture);

    /* With little memory most stays on disk, and logs find images. */
    options.memory_bytes = 6 * options.segment_bytes;
    store_boot(&fixture, &options);
    store_quiet();
    expect_changed(&fixture);
    assert_true(disk_reads(&fixture) > 0);
    put_all(&fixture, 5);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recovery_runs__clean_start_reads_no_records),
        cmocka_unit_test(test_recovery_runs__what_comes_after_a_run_counts),
        cmocka_unit_test(test_recovery_runs__tail_that_went_on_is_read),
        cmocka_unit_test(test_recovery_runs__damaged_run_is_as_good_as_none),
        cmocka_unit_test(test_recovery_runs__missing_runs_are_not_missed),
        cmocka_unit_test(test_recovery_runs__unreadable_run_does_not_keep_from_starting),
        cmocka_unit_test(test_recovery_runs__old_runs_say_nothing_of_new_lives),
        cmocka_unit_test(test_recovery_runs__what_does_not_fit_into_memory_becomes_runs),
        cmocka_unit_test(test_recovery_runs__damage_under_a_run_is_an_error_when_it_is_read),
        cmocka_unit_test(test_recovery_runs__beginning_of_a_tail_is_verified_before_it_is_shown),
        cmocka_unit_test(test_recovery_runs__damaged_head_of_a_covered_segment_is_noticed),
        cmocka_unit_test(test_recovery_runs__what_was_not_read_comes_into_ram),
    };
    return cmocka_run_group_tests_name("recovery_runs", tests, NULL, NULL);
}
