/*
 * test_group_values.c - large values in groups: the files of one that cannot be, and groups that are too large for one
 * batch. (Power losses: test_store_group.)
 */
#include "segments_fixture.h"

#include <errno.h>

struct preparing {
    struct store_fixture *fixture;
    struct engine_group group;
    struct engine_change changes[3];
    enum kvs_err error;
};

static bool is_prepared(void *context)
{
    struct preparing *preparing = context;
    struct engine_shard *shard = preparing->fixture->nodes[0].shard;
    preparing->error = engine_group_prepare(shard, &preparing->group, preparing->changes, 3);
    return preparing->error != KVS_ERR_AGAIN;
}

static enum kvs_err prepare_two_files(struct store_fixture *fixture, struct preparing *preparing, size_t bytes)
{
    static uint8_t value[400000];
    *preparing = (struct preparing){.fixture = fixture};
    preparing->changes[0] = (struct engine_change){.key = slice_text("a"), .value = slice_make(value, bytes)};
    preparing->changes[1] = (struct engine_change){.key = slice_text("b"), .value = slice_make(value, 1000)};
    preparing->changes[2] = (struct engine_change){.key = slice_text("c"), .value = slice_make(value, bytes)};
    if (!is_prepared(preparing)) {
        engine_turn(fixture->nodes[0].shard);
        assert_true(sim_run_until(is_prepared, preparing, 100000));
    }
    return preparing->error;
}

static void expect_value_files(const struct store_fixture *fixture, uint64_t count)
{
    struct engine_stats stats;
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
    engine_stats(fixture->engine, &stats);
    assert_int_equal(stats.large_values, count);
    assert_true(count > 0 || stats.large_value_bytes == 0);
}

/* One file cannot be written, or there is no room for the records: the other files go, too. */
static void test_group__files_go_if_it_cannot_be(void **state)
{
    (void)state;
    static const struct {
        enum ring_kind kind;
        int sys_errno;
        enum kvs_err error;
    } faults[] = {
        {RING_KIND_OPEN, EIO, KVS_ERR_IO},
        {RING_KIND_ALLOCATE, ENOSPC, KVS_ERR_NO_SPACE},
        {RING_KIND_WRITE, EIO, KVS_ERR_IO},
        {RING_KIND_RENAME, EIO, KVS_ERR_IO},
    };
    sim_create(600);
    struct store_fixture fixture;
    struct preparing preparing;
    struct engine_options options = store_options(1);
    options.large_bytes_min = 10000;
    options.value_bytes_max = 1024 * 1024;
    options.disk_bytes_max = 12 * options.segment_bytes;
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < ARRAY_COUNT(faults); i++) {
        for (unsigned nth = 1; nth <= 2; nth++) {
            sim_fail(faults[i].kind, nth, faults[i].sys_errno);
            assert_int_equal(prepare_two_files(&fixture, &preparing, 20000), faults[i].error);
            sim_fail_none();
            expect_value_files(&fixture, 0);
        }
    }
    assert_int_equal(prepare_two_files(&fixture, &preparing, 400000), KVS_ERR_OK);
    struct preparing second;
    assert_int_equal(prepare_two_files(&fixture, &second, 400000), KVS_ERR_NO_SPACE);
    expect_value_files(&fixture, 2);
    /* The log fails before it has the records. */
    sim_fail(RING_KIND_WRITE, 1, EIO);
    assert_int_equal(store_put_slice(&fixture, slice_text("x"), slice_text("y")), KVS_ERR_FAILED);
    sim_fail_none();
    assert_int_equal(engine_group_append(fixture.nodes[0].shard, &preparing.group, preparing.changes, 3, 0),
                     KVS_ERR_FAILED);
    expect_value_files(&fixture, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* A group that is too large for one batch, or for a short stop of everything else: its values become files from a
 * smaller size on. */
static void test_group__larger_than_a_segment(void **state)
{
    (void)state;
    enum { COUNT = 60, BYTES = 9000 };
    sim_create(601);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    options.large_bytes_min = 20000;
    store_boot(&fixture, &options);
    assert_true((uint64_t)COUNT * BYTES > 2 * options.segment_bytes);
    static uint8_t value[BYTES];
    static char keys[COUNT][32];
    static struct engine_change changes[COUNT];
    struct engine_group group = {0};
    for (unsigned i = 0; i < COUNT; i++) {
        segments_key(keys[i], i);
        changes[i] = (struct engine_change){.key = slice_text(keys[i]), .value = slice_make(value, BYTES)};
    }
    struct engine_shard *shard = fixture.nodes[0].shard;
    enum kvs_err err;
    while ((err = engine_group_prepare(shard, &group, changes, COUNT)) == KVS_ERR_AGAIN) {
        engine_turn(shard);
        (void)sim_step();
    }
    assert_int_equal(err, KVS_ERR_OK);
    expect_value_files(&fixture, COUNT);
    assert_int_equal(engine_group_append(shard, &group, changes, COUNT, 0), KVS_ERR_OK);
    engine_group_end(shard, &group);
    engine_turn(shard);
    static struct engine_change more[COUNT * 2];
    for (unsigned i = 0; i < COUNT * 2; i++)
        more[i] = (struct engine_change){.key = slice_text(keys[i / 2]), .value = slice_make(value, 4000)};
    group = (struct engine_group){0};
    assert_int_equal(engine_group_prepare(shard, &group, more, COUNT * 2), KVS_ERR_TOO_LARGE);
    store_quiet();
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    store_quiet();
    for (unsigned i = 0; i < COUNT; i++) {
        struct store_waiting get;
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(keys[i]), slice_make(NULL, 0));
        store_execute(&fixture, &get, &request);
        assert_true(get.op.result.error == KVS_ERR_OK && get.value_bytes == BYTES);
        free(get.value);
    }
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group__files_go_if_it_cannot_be),
        cmocka_unit_test(test_group__larger_than_a_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
