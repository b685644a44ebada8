/*
 * test_store.c - the log-structured engine on a simulated disk: what is acknowledged stays, what is deleted is gone,
 * through crashes, cold records, full disks and changes of the number of shards.
 */
#include "store_fixture.h"

static void name_key(char key[32], unsigned i)
{
    snprintf(key, 32, "key:%06u", i);
}

static void name_value(char value[600], unsigned i, unsigned version, unsigned pad)
{
    int used = snprintf(value, 600, "value %u of key %u ", version, i);
    memset(value + used, 'a' + (int)(version % 26), pad);
    value[(unsigned)used + pad] = '\0';
}

static void put_numbered(struct store_fixture *fixture, unsigned i, unsigned version, unsigned pad)
{
    char key[32], value[600];
    name_key(key, i);
    name_value(value, i, version, pad);
    assert_int_equal(store_put_text(fixture, key, value), KVS_ERR_OK);
}

static void expect_numbered(struct store_fixture *fixture, unsigned i, unsigned version, unsigned pad)
{
    char key[32], value[600];
    name_key(key, i);
    name_value(value, i, version, pad);
    store_expect(fixture, key, value);
}

static void test_store__put_get_remove(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_expect(&fixture, "a", NULL);
    assert_int_equal(store_put_text(&fixture, "a", "1"), KVS_ERR_OK);
    store_expect(&fixture, "a", "1");
    assert_int_equal(store_put_text(&fixture, "a", "22"), KVS_ERR_OK);
    store_expect(&fixture, "a", "22");
    assert_int_equal(store_put_text(&fixture, "", "empty key"), KVS_ERR_OK);
    assert_int_equal(store_put_text(&fixture, "b", ""), KVS_ERR_OK);
    store_expect(&fixture, "", "empty key");
    store_expect(&fixture, "b", "");
    assert_int_equal(store_keys(&fixture), 3);
    assert_true(store_remove_text(&fixture, "a"));
    assert_false(store_remove_text(&fixture, "a"));
    store_expect(&fixture, "a", NULL);
    assert_int_equal(store_keys(&fixture), 2);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__acknowledged_writes_survive_a_crash(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1 + (unsigned)(seed % 3));
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < 40; i++)
            put_numbered(&fixture, i, 1, (unsigned)sim_random(300));
        char key[32];
        for (unsigned i = 0; i < 40; i += 4) {
            name_key(key, i);
            assert_true(store_remove_text(&fixture, key));
        }
        store_crash(&fixture, (enum sim_crash_mode)(seed % 3));
        store_boot(&fixture, &options);
        assert_int_equal(store_keys(&fixture), 30);
        for (unsigned i = 0; i < 40; i++) {
            name_key(key, i);
            char *got = store_get_text(&fixture, key);
            if (i % 4 == 0)
                assert_null(got);
            else
                assert_non_null(got);
            free(got);
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

/* Writes without waiting, then a crash in the middle: each key has its old or its new value, whole. */
static void test_store__a_crash_in_flight_leaves_old_or_new(void **state)
{
    (void)state;
    enum { KEYS = 30 };
    for (uint64_t seed = 1; seed <= 100; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(2);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i++)
            put_numbered(&fixture, i, 1, 200);
        for (unsigned i = 0; i < KEYS; i++) {
            char key[32], value[600];
            name_key(key, i);
            name_value(value, i, 2, 200);
            struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text(value));
            struct engine_shard *shard = fixture.nodes[store_owner(&fixture, &request)].shard;
            struct engine_result result;
            engine_section_begin(shard);
            assert_int_equal(engine_try(shard, &request, &result), ENGINE_DONE);
            engine_section_end(shard);
            assert_true(result.gate != 0);
            if (sim_random(4) == 0)
                sim_step();
        }
        for (uint64_t steps = sim_random(8); steps > 0; steps--)
            sim_step();
        store_crash(&fixture, SIM_RANDOM);
        store_boot(&fixture, &options);
        assert_int_equal(store_keys(&fixture), KEYS);
        for (unsigned i = 0; i < KEYS; i++) {
            char key[32], old[600], new[600];
            name_key(key, i);
            name_value(old, i, 1, 200);
            name_value(new, i, 2, 200);
            char *got = store_get_text(&fixture, key);
            assert_non_null(got);
            assert_true(strcmp(got, old) == 0 || strcmp(got, new) == 0);
            free(got);
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_store__what_is_not_durable_carries_a_gate(void **state)
{
    (void)state;
    sim_create(5);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    struct engine_request put = store_request(&fixture, ENGINE_PUT, slice_text("k"), slice_text("v"));
    struct engine_request get = store_request(&fixture, ENGINE_GET, slice_text("k"), slice_make(NULL, 0));
    unsigned owner_id = store_owner(&fixture, &put);
    struct engine_shard *owner = fixture.nodes[owner_id].shard;
    struct engine_shard *other = fixture.nodes[1 - owner_id].shard;
    struct engine_result result;
    engine_section_begin(owner);
    assert_int_equal(engine_try(owner, &put, &result), ENGINE_DONE);
    uint64_t gate = result.gate;
    assert_true(gate > engine_durable(owner));
    assert_int_equal(engine_try(owner, &get, &result), ENGINE_DONE);
    assert_int_equal(result.gate, gate);
    engine_section_end(owner);
    engine_section_begin(other);
    assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_ASK_OWNER);
    get.relaxed = true;
    assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_DONE);
    assert_true(result.found);
    engine_section_end(other);
    get.relaxed = false;
    store_expect(&fixture, "k", "v");
    engine_section_begin(other);
    assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_DONE);
    assert_int_equal(result.gate, 0);
    engine_section_end(other);

    /* The absence of a key that was just removed could be taken back by a crash, too. */
    struct engine_request remove = store_request(&fixture, ENGINE_REMOVE, slice_text("k"), slice_make(NULL, 0));
    engine_section_begin(owner);
    assert_int_equal(engine_try(owner, &remove, &result), ENGINE_DONE);
    gate = result.gate;
    assert_int_equal(engine_try(owner, &get, &result), ENGINE_DONE);
    assert_false(result.found);
    assert_int_equal(result.gate, gate);
    engine_section_end(owner);
    engine_section_begin(other);
    assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_ASK_OWNER);
    engine_section_end(other);
    store_stop(&fixture);
    sim_destroy();
}

/* Four images of 256 KiB a shard, and a megabyte or two of records: most are on disk only. */
static struct engine_options small_memory(unsigned shard_count)
{
    struct engine_options options = store_options(shard_count);
    options.memory_bytes = (uint64_t)shard_count * 6 * 256 * 1024;
    return options;
}

static bool nothing_unsettled(void *context)
{
    struct store_fixture *fixture = context;
    (void)fixture;
    return !sim_step();
}

static void test_store__cold_records_are_read_overwritten_and_removed(void **state)
{
    (void)state;
    enum { KEYS = 6000, PAD = 400 };
    sim_create(7);
    struct store_fixture fixture;
    struct engine_options options = small_memory(2);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < KEYS; i++)
        put_numbered(&fixture, i, 1, PAD);
    assert_int_equal(store_keys(&fixture), KEYS);
    for (unsigned i = 0; i < KEYS; i += 7)
        expect_numbered(&fixture, i, 1, PAD);
    struct engine_stats stats;
    engine_stats(fixture.engine, &stats);
    assert_true(stats.disk_reads > KEYS / 7 / 2);
    assert_true(stats.image_bytes <= options.memory_bytes);

    for (unsigned i = 0; i < KEYS; i += 3)
        put_numbered(&fixture, i, 2, PAD);
    sim_run_until(nothing_unsettled, &fixture, 10000);
    engine_stats(fixture.engine, &stats);
    assert_true(stats.blind_overwrites > KEYS / 10);
    assert_int_equal(stats.keys, KEYS);
    char key[32];
    unsigned removed = 0;
    for (unsigned i = 0; i < KEYS; i += 5, removed++) {
        name_key(key, i);
        assert_true(store_remove_text(&fixture, key));
    }
    name_key(key, KEYS + 1);
    assert_false(store_remove_text(&fixture, key));
    assert_int_equal(store_keys(&fixture), KEYS - removed);

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < KEYS; i++) {
            if (i % 5 == 0) {
                name_key(key, i);
                store_expect(&fixture, key, NULL);
            } else {
                expect_numbered(&fixture, i, i % 3 == 0 ? 2 : 1, PAD);
            }
        }
        if (round == 0) {
            store_crash(&fixture, SIM_DROP_ALL);
            store_boot(&fixture, &options);
            assert_int_equal(store_keys(&fixture), KEYS - removed);
        }
    }
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__number_of_shards_changes_on_the_same_data(void **state)
{
    (void)state;
    enum { KEYS = 400 };
    static const unsigned shards[] = {1, 4, 2, 1, 3};
    sim_create(11);
    unsigned versions[KEYS] = {0};
    for (unsigned boot = 0; boot < ARRAY_COUNT(shards); boot++) {
        struct store_fixture fixture;
        struct engine_options options = store_options(shards[boot]);
        store_boot(&fixture, &options);
        uint64_t live = 0;
        for (unsigned i = 0; i < KEYS; i++) {
            if (versions[i] != 0) {
                expect_numbered(&fixture, i, versions[i], 50);
                live++;
            } else {
                char key[32];
                name_key(key, i);
                store_expect(&fixture, key, NULL);
            }
        }
        assert_int_equal(store_keys(&fixture), live);
        for (unsigned i = boot; i < KEYS; i += 2) {
            char key[32];
            name_key(key, i);
            if (i % 5 == boot) {
                assert_int_equal(store_remove_text(&fixture, key), versions[i] != 0);
                versions[i] = 0;
            } else {
                versions[i] = boot + 1;
                put_numbered(&fixture, i, versions[i], 50);
            }
        }
        if (boot % 2 == 0)
            store_crash(&fixture, SIM_RANDOM);
        else
            store_stop(&fixture);
    }
    sim_destroy();
}

static void test_store__restarts_use_no_new_segments(void **state)
{
    (void)state;
    sim_create(13);
    struct engine_options options = store_options(2);
    uint64_t segments = 0;
    for (unsigned boot = 0; boot < 10; boot++) {
        struct store_fixture fixture;
        store_boot(&fixture, &options);
        put_numbered(&fixture, boot, 1, 10);
        while (sim_step())
            ;
        struct engine_stats stats;
        engine_stats(fixture.engine, &stats);
        if (boot == 0)
            segments = stats.segments;
        assert_int_equal(stats.segments, segments);
        if (boot % 2 == 0)
            store_crash(&fixture, SIM_DROP_ALL);
        else
            store_stop(&fixture);
    }
    assert_int_equal(segments, 4);
    sim_destroy();
}

static void test_store__failed_write_stops_writing_and_nothing_is_acknowledged(void **state)
{
    (void)state;
    sim_create(17);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    while (sim_step())
        ;
    assert_int_equal(store_put_text(&fixture, "a", "before"), KVS_ERR_OK);
    sim_fail(RING_KIND_WRITE, 1, 5 /* EIO */);
    assert_int_equal(store_put_text(&fixture, "b", "lost"), KVS_ERR_FAILED);
    assert_true(engine_failed(fixture.nodes[0].shard));
    assert_non_null(strstr(engine_failure_text(fixture.nodes[0].shard), "segment 0000"));
    assert_int_equal(store_put_text(&fixture, "c", "refused"), KVS_ERR_FAILED);
    store_expect(&fixture, "a", "before");
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    store_expect(&fixture, "a", "before");
    store_expect(&fixture, "c", NULL);
    assert_int_equal(store_put_text(&fixture, "c", "again"), KVS_ERR_OK);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__full_disk_refuses_writes_and_recovers(void **state)
{
    (void)state;
    sim_create(19);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    while (sim_step())
        ;
    /* The open segment and the spare are there; no third one can be made. */
    sim_set_disk_size(2 * 256 * 1024 + 64 * 1024);
    unsigned written = 0;
    enum kvs_err err = KVS_ERR_OK;
    while (written < 5000) {
        char key[32], value[600];
        name_key(key, written);
        name_value(value, written, 1, 400);
        err = store_put_text(&fixture, key, value);
        if (err != KVS_ERR_OK)
            break;
        written++;
    }
    assert_int_equal(err, KVS_ERR_NO_SPACE);
    assert_in_range(written, 63, 126); /* each in a block of its own, for each waited for the one before */
    expect_numbered(&fixture, 0, 1, 400);
    expect_numbered(&fixture, written - 1, 1, 400);
    assert_int_equal(store_keys(&fixture), written);

    sim_set_disk_size(UINT64_MAX);
    sim_advance(3000000000ull);
    for (unsigned i = 0; i < 1000; i++)
        sim_step();
    put_numbered(&fixture, written, 1, 400);
    for (unsigned i = 0; i <= written; i++)
        expect_numbered(&fixture, i, 1, 400);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__damaged_cold_record_is_an_error_and_never_served(void **state)
{
    (void)state;
    enum { KEYS = 5000, PAD = 400 };
    sim_create(23);
    struct store_fixture fixture;
    struct engine_options options = small_memory(1);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < KEYS; i++)
        put_numbered(&fixture, i, 1, PAD);
    /* Everything in the first segment's body is off by one bit in each block. */
    store_damage(0, 1, 64);
    unsigned damaged = 0;
    for (unsigned i = 0; i < 300; i++) {
        char key[32], value[600];
        name_key(key, i);
        name_value(value, i, 1, PAD);
        damaged += store_is_damaged(&fixture, key, slice_text(value));
    }
    assert_true(damaged > 10);
    assert_non_null(strstr(engine_damage_text(fixture.nodes[0].shard), "segment 000000, offset "));
    store_crash(&fixture, SIM_DROP_ALL);
    (void)store_forget_runs();
    store_expect_refused(&fixture, &options, "segment 000000");
    assert_non_null(strstr(fixture.message, "offset 8192"));
    sim_destroy();
}

static void test_store__missing_segment_is_noticed(void **state)
{
    (void)state;
    sim_create(29);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 3000; i++)
        put_numbered(&fixture, i, 1, 300);
    store_stop(&fixture);
    sim_file_remove("/data/000001.seg");
    store_expect_refused(&fixture, &options, "missing");
    sim_destroy();
}

static void test_store__large_values_fill_several_blocks(void **state)
{
    (void)state;
    sim_create(31);
    struct store_fixture fixture;
    struct engine_options options = small_memory(1);
    store_boot(&fixture, &options);
    size_t largest = 256 * 1024 - 2 * 4096 - 64 - 24 - 16; /* header and mark of the segment, of batch and record */
    uint8_t *value = malloc(largest + 100);
    for (size_t i = 0; i < largest + 100; i++)
        value[i] = (uint8_t)(i * 31 + i / 251);
    static const size_t sizes[] = {4000, 4096, 65536, 131072};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        char key[32];
        name_key(key, i);
        assert_int_equal(store_put_slice(&fixture, slice_text(key), slice_make(value, sizes[i])), KVS_ERR_OK);
    }
    assert_int_equal(store_put_slice(&fixture, slice_text("big"), slice_make(value, largest)), KVS_ERR_OK);
    assert_int_equal(store_put_slice(&fixture, slice_text("big"), slice_make(value, largest + 100)), KVS_ERR_TOO_LARGE);
    for (unsigned i = 0; i < 3000; i++) /* push them out of RAM */
        put_numbered(&fixture, 1000 + i, 1, 500);
    for (unsigned i = 0; i <= ARRAY_COUNT(sizes); i++) {
        char key[32] = "big";
        size_t size = largest;
        if (i < ARRAY_COUNT(sizes)) {
            name_key(key, i);
            size = sizes[i];
        }
        struct store_waiting waiting;
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
        store_execute(&fixture, &waiting, &request);
        assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
        assert_int_equal(waiting.value_bytes, size);
        assert_memory_equal(waiting.value, value, size);
        free(waiting.value);
    }
    free(value);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__works_without_direct_io(void **state)
{
    (void)state;
    sim_create(37);
    sim_set_direct_align(0);
    struct store_fixture fixture;
    struct engine_options options = small_memory(2);
    store_boot(&fixture, &options);
    assert_string_equal(engine_durability_method(fixture.engine), "buffered + fdatasync");
    for (unsigned i = 0; i < 300; i++)
        put_numbered(&fixture, i, 1, 300);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 300; i++)
        expect_numbered(&fixture, i, 1, 300);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__stops_at_any_moment_of_making_a_segment(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 60; steps++) {
        sim_create(400 + steps);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        assert_int_equal(store_put_text(&fixture, "a", "1"), KVS_ERR_OK);
        for (unsigned i = 0; i < steps; i++)
            sim_step();
        store_stop(&fixture);
        store_boot(&fixture, &options);
        store_expect(&fixture, "a", "1");
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_store__relaxed_write_is_on_disk_within_the_interval(void **state)
{
    (void)state;
    sim_create(41);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    while (sim_step())
        ;
    struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text("r"), slice_text("later"));
    request.relaxed = true;
    struct engine_result result;
    struct engine_shard *shard = fixture.nodes[0].shard;
    engine_section_begin(shard);
    assert_int_equal(engine_try(shard, &request, &result), ENGINE_DONE);
    engine_section_end(shard);
    assert_int_equal(result.gate, 0);
    engine_turn(shard);
    assert_true(engine_timeout_ns(shard) > 0);
    uint64_t began = ring_now_ns(fixture.nodes[0].ring);
    struct engine_stats stats;
    engine_stats(fixture.engine, &stats);
    uint64_t batches = stats.batches;
    for (unsigned i = 0; i < 1000 && stats.batches == batches; i++) {
        store_turn_node(&fixture.nodes[0]);
        engine_stats(fixture.engine, &stats);
    }
    assert_int_equal(stats.batches, batches + 1);
    uint64_t took_ms = (ring_now_ns(fixture.nodes[0].ring) - began) / 1000000;
    assert_in_range(took_ms, 99, 110);
    while (sim_step())
        ;
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    store_expect(&fixture, "r", "later");
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__strange_directories_are_refused(void **state)
{
    (void)state;
    sim_create(43);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    sim_file_put("/data/holiday.jpg", "x", 1);
    assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_MISMATCH);
    assert_non_null(strstr(fixture.message, "holiday.jpg"));
    sim_file_remove("/data/holiday.jpg");
    store_boot(&fixture, &options);
    assert_int_equal(store_put_text(&fixture, "a", "1"), KVS_ERR_OK);
    store_stop(&fixture);
    struct engine_options other = options;
    other.kind = "memory";
    assert_int_equal(store_try_boot(&fixture, &other), KVS_ERR_MISMATCH);
    assert_non_null(strstr(fixture.message, "'kvs'"));
    other = options;
    other.memory_bytes = 512 * 1024;
    assert_int_equal(store_try_boot(&fixture, &other), KVS_ERR_INVALID);
    assert_non_null(strstr(fixture.message, "--memory"));
    sim_file_flip("/data/superblock", 100);
    store_boot(&fixture, &options);
    store_expect(&fixture, "a", "1");
    store_stop(&fixture);
    sim_file_flip("/data/superblock", 100);
    sim_file_flip("/data/superblock", 4096 * 8 + 100);
    assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_CORRUPT);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__put_get_remove),
        cmocka_unit_test(test_store__acknowledged_writes_survive_a_crash),
        cmocka_unit_test(test_store__a_crash_in_flight_leaves_old_or_new),
        cmocka_unit_test(test_store__what_is_not_durable_carries_a_gate),
        cmocka_unit_test(test_store__cold_records_are_read_overwritten_and_removed),
        cmocka_unit_test(test_store__number_of_shards_changes_on_the_same_data),
        cmocka_unit_test(test_store__restarts_use_no_new_segments),
        cmocka_unit_test(test_store__failed_write_stops_writing_and_nothing_is_acknowledged),
        cmocka_unit_test(test_store__full_disk_refuses_writes_and_recovers),
        cmocka_unit_test(test_store__damaged_cold_record_is_an_error_and_never_served),
        cmocka_unit_test(test_store__missing_segment_is_noticed),
        cmocka_unit_test(test_store__large_values_fill_several_blocks),
        cmocka_unit_test(test_store__works_without_direct_io),
        cmocka_unit_test(test_store__stops_at_any_moment_of_making_a_segment),
        cmocka_unit_test(test_store__relaxed_write_is_on_disk_within_the_interval),
        cmocka_unit_test(test_store__strange_directories_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
