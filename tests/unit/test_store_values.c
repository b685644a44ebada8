/*
 * test_store_values.c - large values in the engine: their files, from the PUT that writes one to its end, and what
 * becomes of them when something goes wrong. (Power loss at each step: test_store_exhaustive.)
 */
#include "engine/blocking.h"
#include "expiry_fixture.h"
#include "ring/ring_backend.h"

#include <errno.h>

enum { LARGE = 10000, HUGE_VALUE = 3 * 1024 * 1024, VALUE_MAX = 8 * 1024 * 1024 };

static uint8_t pattern[HUGE_VALUE];

static struct engine_options values_options(void)
{
    struct engine_options options = store_options(2);
    options.large_bytes_min = LARGE;
    options.value_bytes_max = VALUE_MAX;
    return options;
}

/* So many bytes that tell `seed` apart. */
static struct slice value_of(unsigned seed, size_t size)
{
    for (size_t i = 0; i < size; i++)
        pattern[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + seed);
    return slice_make(pattern, size);
}

static enum kvs_err put(struct store_fixture *fixture, const char *key, unsigned seed, size_t size)
{
    return store_put_slice(fixture, slice_text(key), value_of(seed, size));
}

static struct store_waiting get(struct store_fixture *fixture, const char *key, bool head)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    request.head = head;
    store_execute(fixture, &waiting, &request);
    return waiting;
}

static void expect(struct store_fixture *fixture, const char *key, unsigned seed, size_t size)
{
    struct store_waiting waiting = get(fixture, key, false);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    assert_true(waiting.op.result.found);
    assert_int_equal(waiting.value_bytes, size);
    assert_memory_equal(waiting.value, value_of(seed, size).data, size);
    free(waiting.value);
}

static enum kvs_err error_of_get(struct store_fixture *fixture, const char *key)
{
    struct store_waiting waiting = get(fixture, key, false);
    free(waiting.value);
    return waiting.op.result.error;
}

static struct engine_stats stats_of(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats;
}

/* ---- what is on the disk --------------------------------------------------------------------------------------- */

struct names {
    unsigned count;
    char last[64];
};

static void take_name(void *context, const char *name)
{
    struct names *names = context;
    names->count++;
    snprintf(names->last, sizeof names->last, "%s", name);
}

static struct names names_of(const struct store_fixture *fixture)
{
    struct names names = {0};
    int dir_fd = segments_store(fixture)->values.place.dir_fd;
    assert_int_equal(ring_dir_list(fixture->main_ring, dir_fd, take_name, &names), KVS_ERR_OK);
    return names;
}

/* Lets everything come to rest; then there are so many files, and the figures say so. */
static void expect_files(const struct store_fixture *fixture, unsigned count)
{
    store_quiet();
    assert_int_equal(names_of(fixture).count, count);
    assert_int_equal(stats_of(fixture).large_values, count);
    if (count == 0)
        assert_int_equal(stats_of(fixture).large_value_bytes, 0);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void test_values__large_ones_have_files_and_small_ones_do_not(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    store_boot(&fixture, &options);
    assert_int_equal(engine_value_bytes_max(fixture.engine), VALUE_MAX);
    static const size_t sizes[] = {0, LARGE - 1, LARGE, 65536, 65537, 524288, 524289, HUGE_VALUE};
    char key[32];
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        segments_key(key, i);
        assert_int_equal(put(&fixture, key, i, sizes[i]), KVS_ERR_OK);
    }
    expect_files(&fixture, ARRAY_COUNT(sizes) - 2);
    for (unsigned boot = 0; boot < 3; boot++) {
        for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
            segments_key(key, i);
            expect(&fixture, key, i, sizes[i]);
            struct store_waiting head = get(&fixture, key, true);
            assert_true(head.op.result.found);
            assert_int_equal(head.op.result.value_bytes, sizes[i]);
            assert_int_equal(head.value_bytes, sizes[i] < LARGE ? sizes[i] : 0);
            free(head.value);
        }
        expect_files(&fixture, ARRAY_COUNT(sizes) - 2);
        if (boot == 0)
            store_crash(&fixture, SIM_DROP_ALL);
        else
            store_stop(&fixture);
        if (boot < 2)
            store_boot(&fixture, &options);
    }
    sim_destroy();
}

static void test_values__files_go_with_their_values(void **state)
{
    (void)state;
    sim_create(2);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    store_boot(&fixture, &options);
    for (unsigned version = 0; version < 5; version++) {
        assert_int_equal(put(&fixture, "replaced", version, LARGE + version), KVS_ERR_OK);
        assert_int_equal(put(&fixture, "shrunk", version, version % 2 == 0 ? HUGE_VALUE : 5), KVS_ERR_OK);
        assert_int_equal(put(&fixture, "removed", version, LARGE), KVS_ERR_OK);
        assert_true(store_remove_text(&fixture, "removed"));
    }
    expect_files(&fixture, 2);
    expect(&fixture, "replaced", 4, LARGE + 4);
    expect(&fixture, "shrunk", 4, HUGE_VALUE);
    assert_true(store_remove_text(&fixture, "replaced"));
    assert_true(store_remove_text(&fixture, "shrunk"));
    expect_files(&fixture, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* Also when the record is on disk only: a blind overwrite learns of the file when it is settled. */
static void test_values__files_of_cold_records_go_with_them(void **state)
{
    (void)state;
    enum { KEYS = 40, FILL = 300 };
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    options.large_bytes_min = LARGE;
    options.value_bytes_max = VALUE_MAX;
    store_boot(&fixture, &options);
    char key[32];
    for (unsigned i = 0; i < KEYS; i++) {
        segments_key(key, i);
        assert_int_equal(put(&fixture, key, i, LARGE + i), KVS_ERR_OK);
    }
    for (unsigned i = 0; i < FILL; i++) {
        segments_key(key, KEYS + i);
        assert_int_equal(put(&fixture, key, i, LARGE - 1), KVS_ERR_OK);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        segments_key(key, i);
        if (i % 2 == 0)
            assert_true(store_remove_text(&fixture, key));
        else
            assert_int_equal(put(&fixture, key, i, 10), KVS_ERR_OK);
    }
    assert_true(stats_of(&fixture).blind_overwrites > 0);
    expect_files(&fixture, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* What a crash leaves behind, whatever it was doing, is found after the next start: nothing but live files stay. */
static void test_values__a_sweep_finds_what_a_crash_has_left(void **state)
{
    (void)state;
    enum { ROUNDS = 60 };
    sim_create(4);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    store_boot(&fixture, &options);
    unsigned left_behind = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct store_waiting waiting[3];
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text("a"), value_of(7, 2 * LARGE));
        store_begin(&fixture, &waiting[0], &request);
        request = store_request(&fixture, ENGINE_PUT, slice_text("b"), value_of(7, 3 * LARGE));
        store_begin(&fixture, &waiting[1], &request);
        request = store_request(&fixture, ENGINE_REMOVE, slice_text("a"), slice_make(NULL, 0));
        store_begin(&fixture, &waiting[2], &request);
        for (uint64_t steps = sim_random(200); steps > 0; steps--) {
            engine_turn(fixture.nodes[steps % 2].shard);
            (void)sim_step();
        }
        for (unsigned i = 0; i < ARRAY_COUNT(waiting); i++) {
            if (waiting[i].done)
                free(waiting[i].value);
        }
        store_crash(&fixture, SIM_RANDOM);
        store_boot(&fixture, &options);
        left_behind += names_of(&fixture).count;
        store_quiet();
        unsigned live = 0;
        for (unsigned i = 0; i < 2; i++) {
            struct store_waiting there = get(&fixture, i == 0 ? "a" : "b", false);
            assert_int_equal(there.op.result.error, KVS_ERR_OK);
            live += there.op.result.found;
            free(there.value);
        }
        left_behind -= live;
        expect_files(&fixture, live);
    }
    assert_true(left_behind > 10);
    store_stop(&fixture);
    sim_destroy();
}

/* The power fails at any step after the time of a value has come, and the clock is set back: the key may be there
 * again, and then its file is. */
static void test_values__file_of_what_expires_stays_until_the_time_is_told(void **state)
{
    (void)state;
    unsigned there = 0, gone = 0;
    for (unsigned i = 0; i < 300; i++) {
        sim_create(i);
        struct store_fixture fixture;
        struct engine_options options = values_options();
        store_boot(&fixture, &options);
        uint64_t expires_ms = expiry_now_ms(&fixture) + 100000;
        (void)expiry_put(&fixture, slice_text("key"), value_of(1, LARGE), expires_ms);
        expiry_run_ms(&fixture, 50);
        expiry_advance_to(&fixture, expires_ms);
        for (unsigned step = 0; step < i / 30; step++)
            (void)sim_step();
        store_crash(&fixture, i % 2 == 0 ? SIM_RANDOM : SIM_KILL);
        sim_step_wall(-200000);
        store_boot(&fixture, &options);
        struct store_waiting waiting = get(&fixture, "key", false);
        assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
        there += waiting.op.result.found;
        gone += !waiting.op.result.found;
        free(waiting.value);
        store_quiet();
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(there > 20 && gone > 20);
}

/* ---- what is on disk only when it expires ---------------------------------------------------------------------- */

enum { COLD_KEYS = 40, COLD_FILL = 330 };

static struct engine_options cold_options(void)
{
    struct engine_options options = segments_scarce(1);
    options.large_bytes_min = LARGE;
    options.value_bytes_max = VALUE_MAX;
    return options;
}

/* Overwrites others until images of earlier segments have left. */
static void fill_up(struct store_fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        segments_key(key, COLD_KEYS + i % 50);
        assert_int_equal(put(fixture, key, i, LARGE - 1), KVS_ERR_OK);
    }
}

static unsigned count_cold(struct store_fixture *fixture)
{
    unsigned cold = 0;
    for (unsigned i = 0; i < COLD_KEYS; i++)
        cold += expiry_is_cold(fixture, i);
    return cold;
}

/* Written in this boot; found by a start, after a stop or a crash; moved by compaction. */
static void test_values__files_of_cold_records_go_when_these_expire(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        sim_create(30 + way);
        struct store_fixture fixture;
        struct engine_options options = cold_options();
        store_boot(&fixture, &options);
        uint64_t late_ms = expiry_now_ms(&fixture) + 1000000;
        for (unsigned i = 0; i < COLD_KEYS; i++) {
            char key[32];
            segments_key(key, i);
            (void)expiry_put(&fixture, slice_text(key), value_of(i, LARGE + i), late_ms + i / 8);
            fill_up(&fixture, 3);
        }
        fill_up(&fixture, COLD_FILL);
        if (way == 1)
            store_stop(&fixture);
        if (way == 2)
            store_crash(&fixture, SIM_DROP_ALL);
        if (way == 1 || way == 2)
            store_boot(&fixture, &options);
        if (way == 3) {
            store_compact(&fixture, 130);
            expiry_run_ms(&fixture, 3000);
            assert_true(store_compact_stats(&fixture).records_moved >= COLD_KEYS / 2);
        }
        expiry_run_ms(&fixture, 1000);
        assert_true(count_cold(&fixture) >= COLD_KEYS / 2);
        assert_int_equal(names_of(&fixture).count, COLD_KEYS);
        expiry_advance_to(&fixture, late_ms + COLD_KEYS);
        expiry_run_ms(&fixture, 30000);
        assert_int_equal(names_of(&fixture).count, 0);
        assert_int_equal(stats_of(&fixture).large_value_bytes, 0);
        assert_int_equal(store_keys(&fixture), 50);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* As above, for a record that is on disk only. */
static void test_values__file_of_a_cold_record_stays_until_the_time_is_told(void **state)
{
    (void)state;
    unsigned there = 0, gone = 0;
    for (unsigned i = 0; i < 60; i++) {
        sim_create(100 + i);
        struct store_fixture fixture;
        struct engine_options options = cold_options();
        store_boot(&fixture, &options);
        uint64_t expires_ms = expiry_now_ms(&fixture) + 1000000;
        char key[32];
        segments_key(key, 0);
        (void)expiry_put(&fixture, slice_text(key), value_of(1, LARGE), expires_ms);
        fill_up(&fixture, COLD_FILL);
        expiry_run_ms(&fixture, 50);
        assert_true(expiry_is_cold(&fixture, 0));
        expiry_advance_to(&fixture, expires_ms);
        for (unsigned step = 0; step < i / 5; step++)
            (void)sim_step();
        store_crash(&fixture, i % 2 == 0 ? SIM_RANDOM : SIM_KILL);
        sim_step_wall(-2000000);
        store_boot(&fixture, &options);
        struct store_waiting waiting = get(&fixture, key, false);
        assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
        there += waiting.op.result.found;
        gone += !waiting.op.result.found;
        free(waiting.value);
        store_quiet();
        assert_int_equal(names_of(&fixture).count, 0);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(there > 5 && gone > 5);
}

static void test_values__damage_is_told_with_the_file_and_never_served(void **state)
{
    (void)state;
    for (unsigned where = 0; where < 4; where++) {
        sim_create(10 + where);
        struct store_fixture fixture;
        struct engine_options options = values_options();
        store_boot(&fixture, &options);
        assert_int_equal(put(&fixture, "key", 1, HUGE_VALUE), KVS_ERR_OK);
        store_quiet();
        struct names names = names_of(&fixture);
        char path[128];
        snprintf(path, sizeof path, "/data/values/%s", names.last);
        store_stop(&fixture);
        const uint64_t places[] = {20, 4096, 4096 + HUGE_VALUE - 1, 4096 + HUGE_VALUE + 3};
        sim_rot_add(path, places[where], "\x55\x66", 2);
        store_boot(&fixture, &options);
        assert_int_equal(error_of_get(&fixture, "key"), KVS_ERR_CORRUPT);
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text("key"), slice_make(NULL, 0));
        const char *text = engine_damage_text(fixture.nodes[store_owner(&fixture, &request)].shard);
        assert_non_null(strstr(text, names.last));
        struct store_waiting head = get(&fixture, "key", true);
        assert_true(head.op.result.found && head.op.result.error == KVS_ERR_OK);
        free(head.value);
        assert_int_equal(put(&fixture, "key", 2, HUGE_VALUE), KVS_ERR_OK);
        expect(&fixture, "key", 2, HUGE_VALUE);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_values__a_missing_file_is_damage(void **state)
{
    (void)state;
    sim_create(20);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    store_boot(&fixture, &options);
    assert_int_equal(put(&fixture, "key", 1, LARGE), KVS_ERR_OK);
    store_quiet();
    struct names names = names_of(&fixture);
    store_stop(&fixture);
    char message[RING_MESSAGE_BYTES];
    struct ring *ring;
    int dir_fd;
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 8}, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, "/data/values", &dir_fd), KVS_ERR_OK);
    struct ring_op op;
    blocking_init(&op);
    ring_file_unlink(ring, &op, dir_fd, names.last);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    ring_close_fd(ring, dir_fd);
    ring_close(ring);
    store_boot(&fixture, &options);
    assert_int_equal(error_of_get(&fixture, "key"), KVS_ERR_CORRUPT);
    assert_true(store_remove_text(&fixture, "key"));
    store_stop(&fixture);
    sim_destroy();
}

/* Each step of writing a file may fail: the write is refused, the old value stays, the log goes on, no file is left. */
static void test_values__a_failed_step_refuses_the_write_alone(void **state)
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
        {RING_KIND_WRITE, ENOSPC, KVS_ERR_NO_SPACE},
        {RING_KIND_SYNC, EIO, KVS_ERR_IO},
        {RING_KIND_RENAME, EIO, KVS_ERR_IO},
        {RING_KIND_OPEN, EMFILE, KVS_ERR_NO_DESCRIPTORS},
    };
    sim_create(30);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    store_boot(&fixture, &options);
    assert_int_equal(put(&fixture, "key", 1, HUGE_VALUE), KVS_ERR_OK);
    expect_files(&fixture, 1);
    for (unsigned i = 0; i < ARRAY_COUNT(faults); i++) {
        sim_fail(faults[i].kind, 1, faults[i].sys_errno);
        assert_int_equal(put(&fixture, "key", 2, HUGE_VALUE), faults[i].error);
        sim_fail_none();
        expect(&fixture, "key", 1, HUGE_VALUE);
        expect_files(&fixture, 1);
        assert_int_equal(put(&fixture, "small", i, 10), KVS_ERR_OK);
    }
    sim_fail(RING_KIND_SYNC, 2, EIO); /* of the folder */
    assert_int_equal(put(&fixture, "key", 2, HUGE_VALUE), KVS_ERR_IO);
    sim_fail_none();
    expect_files(&fixture, 1);
    assert_int_equal(put(&fixture, "key", 3, HUGE_VALUE), KVS_ERR_OK);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    expect(&fixture, "key", 3, HUGE_VALUE);
    store_stop(&fixture);
    sim_destroy();
}

static void test_values__count_within_the_limit_on_disk_space(void **state)
{
    (void)state;
    sim_create(40);
    struct store_fixture fixture;
    struct engine_options options = values_options();
    options.disk_bytes_max = 16 * options.segment_bytes; /* logs and compaction need ten */
    store_boot(&fixture, &options);
    assert_int_equal(put(&fixture, "a", 1, 600 * 1024), KVS_ERR_OK);
    assert_int_equal(put(&fixture, "b", 2, 600 * 1024), KVS_ERR_OK);
    assert_int_equal(put(&fixture, "c", 3, 600 * 1024), KVS_ERR_NO_SPACE);
    assert_int_equal(put(&fixture, "small", 4, 100), KVS_ERR_OK);
    expect(&fixture, "a", 1, 600 * 1024);
    assert_true(store_remove_text(&fixture, "a"));
    expect_files(&fixture, 1);
    assert_int_equal(put(&fixture, "c", 3, 600 * 1024), KVS_ERR_OK);
    assert_int_equal(put(&fixture, "b", 5, HUGE_VALUE), KVS_ERR_NO_SPACE);
    store_stop(&fixture);
    sim_destroy();
}

/* Memory was given back outside of a turn: in a node that is followed by one. */
static void turn_all(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        engine_turn(fixture->nodes[i].shard);
        sim_ring_body(fixture->nodes[i].ring, store_turn_node, &fixture->nodes[i]);
    }
}

/* Gets wait for memory, in order, and none is forgotten; one alone is always let through. */
static void test_values__reads_keep_to_the_bound_on_memory(void **state)
{
    (void)state;
    enum { GETS = 12 };
    sim_create(50);
    struct large_pool pool = {.bytes_max = 2 * HUGE_VALUE + 65536};
    struct store_fixture fixture;
    struct engine_options options = values_options();
    options.value_memory = &pool;
    store_boot(&fixture, &options);
    assert_int_equal(put(&fixture, "key", 1, HUGE_VALUE), KVS_ERR_OK);
    struct store_waiting waiting[GETS];
    struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text("key"), slice_make(NULL, 0));
    for (unsigned i = 0; i < GETS; i++)
        store_begin(&fixture, &waiting[i], &request);
    for (unsigned i = 0; i < GETS; i++) {
        assert_true(atomic_load(&pool.used_bytes) <= pool.bytes_max);
        store_finish(&waiting[i]);
        assert_int_equal(waiting[i].op.result.error, KVS_ERR_OK);
        assert_int_equal(waiting[i].value_bytes, HUGE_VALUE);
        free(waiting[i].value);
        turn_all(&fixture);
    }
    pool.bytes_max = 1000;
    expect(&fixture, "key", 1, HUGE_VALUE);
    turn_all(&fixture);
    store_quiet();
    assert_int_equal(atomic_load(&pool.used_bytes), 0);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values__large_ones_have_files_and_small_ones_do_not),
        cmocka_unit_test(test_values__files_go_with_their_values),
        cmocka_unit_test(test_values__files_of_cold_records_go_with_them),
        cmocka_unit_test(test_values__a_sweep_finds_what_a_crash_has_left),
        cmocka_unit_test(test_values__file_of_what_expires_stays_until_the_time_is_told),
        cmocka_unit_test(test_values__files_of_cold_records_go_when_these_expire),
        cmocka_unit_test(test_values__file_of_a_cold_record_stays_until_the_time_is_told),
        cmocka_unit_test(test_values__damage_is_told_with_the_file_and_never_served),
        cmocka_unit_test(test_values__a_missing_file_is_damage),
        cmocka_unit_test(test_values__a_failed_step_refuses_the_write_alone),
        cmocka_unit_test(test_values__count_within_the_limit_on_disk_space),
        cmocka_unit_test(test_values__reads_keep_to_the_bound_on_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
