/*
 * test_log.c - streams that leave LSNs out, and records that are durable together or not at all.
 */
#include "check_fixture.h"

#include <errno.h>

enum { KEYS = 60, BYTES = 300 };

static struct log *log_of(const struct store_fixture *fixture, unsigned shard)
{
    return &segments_store(fixture)->shards[shard]->log;
}

static void expect_good_check(void)
{
    struct check_fixture check;
    check_begin(&check, "/data", (struct check_options){0});
    assert_false(check_refuses(&check));
    check_end(&check);
}

/* Jumps at any moment, between appends, behind them, with batches in flight. */
static void test_log__a_stream_with_jumps_is_whole(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 40; seed++) {
        sim_create(seed);
        unsigned versions[KEYS] = {0};
        uint64_t jumps = 0;
        for (unsigned boot = 0; boot < 4; boot++) {
            struct store_fixture fixture;
            struct engine_options options = store_options(1 + (seed + boot) % 3);
            store_boot(&fixture, &options);
            for (unsigned i = 0; i < KEYS; i++) {
                if (versions[i] != 0)
                    segments_expect(&fixture, i, versions[i], BYTES);
            }
            for (unsigned step = 0; step < 300; step++) {
                unsigned i = (unsigned)sim_random(KEYS);
                struct log *log = log_of(&fixture, (unsigned)sim_random(options.shard_count));
                if (sim_random(3) == 0) {
                    uint64_t to = log->next_lsn + sim_random(1000);
                    enum kvs_err err = log_jump(log, to);
                    assert_true(err == KVS_ERR_AGAIN || (err == KVS_ERR_OK && log->next_lsn > to));
                    jumps += err == KVS_ERR_OK;
                }
                segments_put(&fixture, i, ++versions[i], BYTES);
            }
            if (boot % 2 == 0)
                store_stop(&fixture);
            else
                store_crash(&fixture, sim_random(2) == 0 ? SIM_DROP_ALL : SIM_KEEP_ALL);
            expect_good_check();
        }
        assert_true(jumps > 100);
        sim_destroy();
    }
}

/* More shards than segments on a full disk: a log may have none to write in, and is told to jump all the same. */
static void test_log__jumps_before_it_has_a_segment(void **state)
{
    (void)state;
    sim_create(40);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, KEYS, 1, BYTES);
    store_stop(&fixture);
    sim_set_disk_size(sim_disk_used());
    options = store_options(4);
    store_boot(&fixture, &options);
    uint64_t to[4] = {0};
    unsigned without = 0;
    for (unsigned i = 0; i < 4; i++) {
        struct log *log = log_of(&fixture, i);
        if (log->open != NULL)
            continue;
        without++;
        to[i] = log->next_lsn + 500 + i;
        assert_int_equal(log_jump(log, to[i]), KVS_ERR_OK);
        assert_int_equal(log_jump(log, to[i] - 100), KVS_ERR_OK);
        assert_int_equal(engine_lsn(fixture.nodes[i].shard), to[i]);
    }
    assert_true(without > 0);
    sim_set_disk_size(UINT64_MAX);
    store_quiet();
    for (unsigned i = 0; i < 4; i++) {
        assert_non_null(log_of(&fixture, i)->open);
        assert_true(log_of(&fixture, i)->next_lsn > to[i]);
        assert_true(log_durable(log_of(&fixture, i)) >= to[i]);
    }
    segments_put_range(&fixture, 0, KEYS, 2, BYTES);
    for (unsigned i = 0; i < 4; i++)
        assert_true(log_durable(log_of(&fixture, i)) > to[i]);
    store_crash(&fixture, SIM_DROP_ALL);
    expect_good_check();
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, KEYS, 2, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* The batch before a jump is as much missed as any other. */
/* It writes nothing any more, but the logs of other shards write for its keys, in groups, and must go on above. */
static void test_log__tells_of_jumps_after_it_has_failed(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 41, 1);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    assert_int_equal(segments_try_put(&fixture, 0, 1, BYTES), KVS_ERR_FAILED);
    sim_fail_none();
    struct log *log = log_of(&fixture, 0);
    assert_true(log->failed);
    const uint64_t to = log_lsn(log) + 500;
    assert_int_equal(log_jump(log, to), KVS_ERR_FAILED);
    assert_int_equal(engine_lsn(fixture.nodes[0].shard), to);
    assert_int_equal(log_jump(log, to - 100), KVS_ERR_FAILED);
    assert_int_equal(engine_lsn(fixture.nodes[0].shard), to);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

static void test_log__damage_before_a_jump_is_noticed(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        sim_create(50 + round);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        segments_put(&fixture, 1, 1, BYTES);
        struct log *log = log_of(&fixture, 0);
        uint32_t number = log->open->number, offset = log->batch;
        segments_put(&fixture, 2, 1, BYTES);
        assert_int_equal(log_jump(log, log->next_lsn + 5000), KVS_ERR_OK);
        segments_put(&fixture, 3, 1, BYTES);
        segments_put(&fixture, 4, 1, BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        if (round == 1) {
            char path[64];
            uint8_t byte;
            store_segment_path(path, number);
            sim_file_read(path, offset + 100, &byte, 1);
            byte ^= 1;
            sim_file_overwrite(path, offset + 100, &byte, 1);
        }
        enum kvs_err err = store_try_boot(&fixture, &options);
        assert_int_equal(err, round == 1 ? KVS_ERR_CORRUPT : KVS_ERR_OK);
        if (err == KVS_ERR_OK) {
            segments_expect_range(&fixture, 1, 5, 1, BYTES);
            store_stop(&fixture);
        }
        sim_destroy();
    }
}

static uint64_t records_of(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats.records_appended;
}

/* Power loss at any moment: all of a group, or nothing of it. */
static void test_log__a_group_is_durable_as_a_whole(void **state)
{
    (void)state;
    enum { GROUP = 20, GROUPS = 30 };
    unsigned whole = 0, lost = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        sim_create(100 + seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        struct log *log = log_of(&fixture, 0);
        unsigned group = 0;
        for (; group < GROUPS; group++) {
            struct log_entry entries[GROUP];
            struct log_place places[GROUP];
            static char keys[GROUP][32];
            static uint8_t values[GROUP][8000];
            size_t bytes = 10 + sim_random(7000);
            for (unsigned i = 0; i < GROUP; i++) {
                segments_key(keys[i], 100 + i);
                memcpy(values[i], segments_value(100 + i, group + 1, bytes).data, bytes);
                entries[i] = (struct log_entry){
                    .kind = RECORD_PUT, .key = slice_text(keys[i]), .value = slice_make(values[i], bytes)};
            }
            enum kvs_err err;
            uint64_t before = records_of(&fixture);
            while ((err = log_append_group(log, entries, GROUP, places)) == KVS_ERR_AGAIN) {
                assert_int_equal(records_of(&fixture), before);
                engine_turn(fixture.nodes[0].shard);
                assert_true(sim_step());
            }
            assert_int_equal(err, KVS_ERR_OK);
            for (unsigned i = 1; i < GROUP; i++)
                assert_int_equal(places[i].lsn, places[0].lsn + i);
            engine_turn(fixture.nodes[0].shard);
            for (uint64_t steps = sim_random(30); steps > 0 && sim_step(); steps--)
                ;
        }
        store_crash(&fixture, SIM_RANDOM);
        store_boot(&fixture, &options);
        /* Nothing else was written: all keys have the same version, or none is there. */
        uint64_t keys = store_keys(&fixture);
        assert_true(keys == 0 || keys == GROUP);
        char first[32] = "";
        for (unsigned i = 0; i < GROUP && keys > 0; i++) {
            char key[32];
            segments_key(key, 100 + i);
            char *value = store_get_text(&fixture, key);
            assert_non_null(value);
            const char *version = strchr(value, '.');
            if (i == 0)
                snprintf(first, sizeof first, "%.*s", (int)strcspn(version + 1, "."), version + 1);
            assert_int_equal(strncmp(version + 1, first, strlen(first)), 0);
            free(value);
        }
        whole += keys > 0;
        lost += atoi(first) != GROUPS;
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(whole > 10 && lost > 5);
}

static void test_log__a_group_that_no_segment_holds_is_refused(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    static uint8_t value[200 * 1024];
    struct log_entry entries[2] = {
        {.kind = RECORD_PUT, .key = slice_text("a"), .value = slice_make(value, sizeof value)},
        {.kind = RECORD_PUT, .key = slice_text("b"), .value = slice_make(value, sizeof value)}};
    struct log_place places[2];
    uint64_t before = records_of(&fixture);
    assert_int_equal(log_append_group(log_of(&fixture, 0), entries, 2, places), KVS_ERR_TOO_LARGE);
    assert_int_equal(records_of(&fixture), before);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log__a_stream_with_jumps_is_whole),
        cmocka_unit_test(test_log__jumps_before_it_has_a_segment),
        cmocka_unit_test(test_log__tells_of_jumps_after_it_has_failed),
        cmocka_unit_test(test_log__damage_before_a_jump_is_noticed),
        cmocka_unit_test(test_log__a_group_is_durable_as_a_whole),
        cmocka_unit_test(test_log__a_group_that_no_segment_holds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
