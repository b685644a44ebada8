/*
 * test_store_scan.c - scans of a store: every key that stays is shown exactly once, whatever happens meanwhile. Linked
 * with --wrap=hash_key, so that hashes can have few bits.
 */
#include "store_fixture.h"

static uint64_t hash_mask = UINT64_MAX;

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    return __real_hash_key(key, seed) & hash_mask;
}

enum { KEYS_MAX = 40000 };

/* A scan of all shards. */
struct scanning {
    struct engine_scan engine;
    struct store_fixture *fixture;
    uint64_t position;
    bool ended, done;
    unsigned steps, shown;
    uint8_t seen[KEYS_MAX];
};

static void show(struct engine_scan *engine, struct slice key)
{
    struct scanning *scanning = container_of(engine, struct scanning, engine);
    char text[32] = "";
    unsigned number;
    assert_true(key.size < sizeof text);
    memcpy(text, key.data, key.size);
    assert_int_equal(sscanf(text, "key:%u", &number), 1);
    assert_true(number < KEYS_MAX);
    assert_int_equal(scanning->seen[number], 0);
    scanning->seen[number] = 1;
    scanning->shown++;
}

static void step_done(struct engine_scan *engine)
{
    container_of(engine, struct scanning, engine)->done = true;
}

static void scan_begin(struct scanning *scanning, struct store_fixture *fixture)
{
    memset(scanning, 0, sizeof *scanning);
    scanning->fixture = fixture;
}

static void step_begin(struct scanning *scanning, unsigned wanted)
{
    const unsigned owner = hash_shard(scanning->position, scanning->fixture->shard_count);
    scanning->engine.from = scanning->position;
    scanning->engine.wanted = wanted;
    scanning->engine.key = show;
    scanning->engine.done = step_done;
    scanning->done = false;
    scanning->steps++;
    engine_scan(scanning->fixture->nodes[owner].shard, &scanning->engine);
}

static bool step_is_done(void *context)
{
    const struct scanning *scanning = context;
    return scanning->done;
}

static void step_finish(struct scanning *scanning)
{
    const unsigned shards = scanning->fixture->shard_count;
    if (!scanning->done)
        assert_true(sim_run_until(step_is_done, scanning, 1000000));
    assert_int_equal(scanning->engine.error, KVS_ERR_OK);
    const uint64_t next = scanning->engine.next;
    assert_true(next > scanning->position || (next == 0 && scanning->engine.end));
    assert_true(scanning->engine.end ==
                (next == 0 || hash_shard(next, shards) != hash_shard(scanning->position, shards)));
    scanning->ended = scanning->engine.end && next == 0;
    scanning->position = next;
}

static void scan_step(struct scanning *scanning, unsigned wanted)
{
    step_begin(scanning, wanted);
    step_finish(scanning);
}

static void scan_rest(struct scanning *scanning, unsigned wanted)
{
    while (!scanning->ended)
        scan_step(scanning, wanted);
}

static void put(struct store_fixture *fixture, unsigned number, size_t bytes)
{
    static char value[4096];
    char key[32];
    snprintf(key, sizeof key, "key:%u", number);
    memset(value, 'v', sizeof value);
    assert_int_equal(store_put_slice(fixture, slice_text(key), slice_make(value, bytes)), KVS_ERR_OK);
}

/* Relaxed, and not waited for. */
static void put_quickly(struct store_fixture *fixture, unsigned number)
{
    char key[32];
    struct store_waiting waiting;
    snprintf(key, sizeof key, "key:%u", number);
    struct engine_request request = store_request(fixture, ENGINE_PUT, slice_text(key), slice_text("v"));
    request.relaxed = true;
    store_begin(fixture, &waiting, &request);
    store_finish(&waiting);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    free(waiting.value);
}

static void remove_number(struct store_fixture *fixture, unsigned number)
{
    char key[32];
    snprintf(key, sizeof key, "key:%u", number);
    (void)store_remove_text(fixture, key);
}

static void expect_seen(const struct scanning *scanning, unsigned from, unsigned to, unsigned times)
{
    for (unsigned i = from; i < to; i++) {
        if (scanning->seen[i] != times)
            fail_msg("key:%u was shown %u times instead of %u", i, scanning->seen[i], times);
    }
}

static int teardown(void **state)
{
    (void)state;
    hash_mask = UINT64_MAX;
    return 0;
}

/* Records of 2 KB, so many that most of them leave RAM. */
static void put_cold(struct store_fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(fixture, i, 2000);
}

/* ---- what stays -------------------------------------------------------------------------------------------------- */

static void test_scan__every_key_once_in_steps_of_any_size(void **state)
{
    static struct scanning scanning;
    static const unsigned sizes[] = {1, 2, 7, 100, 512, 100000};
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(3);
    store_boot(&fixture, &options);
    scan_begin(&scanning, &fixture);
    scan_rest(&scanning, 10);
    assert_int_equal(scanning.shown, 0);
    for (unsigned i = 0; i < 3000; i++)
        put_quickly(&fixture, i);
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        scan_begin(&scanning, &fixture);
        scan_rest(&scanning, sizes[i]);
        expect_seen(&scanning, 0, 3000, 1);
        assert_int_equal(scanning.shown, 3000);
        if (sizes[i] <= 100) /* about so many each */
            assert_in_range(scanning.steps, 3000 / sizes[i] / 2, 3000 / sizes[i] * 3 + 100);
    }
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__goes_on_while_the_index_grows_and_shrinks(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(2);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 1000; i++)
        put_quickly(&fixture, i);
    scan_begin(&scanning, &fixture);
    unsigned others = 1000;
    while (!scanning.ended) {
        scan_step(&scanning, 5);
        for (unsigned i = 0; i < 100 && others < 20000; i++)
            put_quickly(&fixture, others++);
    }
    expect_seen(&scanning, 0, 1000, 1);
    assert_int_equal(others, 20000);
    struct engine_stats stats;
    engine_stats(fixture.engine, &stats);
    assert_true(stats.index_splits > 20);

    scan_begin(&scanning, &fixture);
    while (!scanning.ended) {
        scan_step(&scanning, 40);
        for (unsigned i = 0; i < 100 && others > 1000; i++)
            remove_number(&fixture, --others);
    }
    expect_seen(&scanning, 0, 1000, 1);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__a_position_is_good_over_restarts_and_for_any_number_of_shards(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 3000; i++)
        put_quickly(&fixture, i);
    scan_begin(&scanning, &fixture);
    for (unsigned boot = 0; !scanning.ended; boot++) {
        for (unsigned i = 0; i < 20 && !scanning.ended; i++)
            scan_step(&scanning, 20);
        store_stop(&fixture);
        if (boot % 2 == 0)
            (void)store_forget_snapshot();
        options = store_options(1 + (boot + 1) % 3);
        store_boot(&fixture, &options);
        scanning.fixture = &fixture;
    }
    expect_seen(&scanning, 0, 3000, 1);
    assert_int_equal(scanning.shown, 3000);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__equal_hashes(void **state)
{
    static struct scanning scanning;
    static const uint64_t masks[] = {0xe000000000000037ull, 0xffull << 56, 0xff};
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(masks); i++) {
        hash_mask = masks[i];
        sim_create(4);
        struct store_fixture fixture;
        struct engine_options options = store_options(i == 2 ? 1 : 3);
        store_boot(&fixture, &options);
        for (unsigned j = 0; j < 400; j++)
            put(&fixture, j, 2000);
        for (unsigned wanted = 1; wanted < 1000; wanted *= 6) {
            scan_begin(&scanning, &fixture);
            scan_rest(&scanning, wanted);
            expect_seen(&scanning, 0, 400, 1);
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- on disk ----------------------------------------------------------------------------------------------------- */

static void test_scan__keys_whose_records_are_on_disk_only(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(5);
    struct store_fixture fixture;
    struct engine_options options = store_options(3);
    store_boot(&fixture, &options);
    put_cold(&fixture, 6000);
    struct engine_stats before, after;
    engine_stats(fixture.engine, &before);
    scan_begin(&scanning, &fixture);
    unsigned reads_max = 0;
    while (!scanning.ended) {
        step_begin(&scanning, 400);
        while (!scanning.done) {
            for (unsigned i = 0; i < 3; i++) {
                const unsigned reads = store_shard_of(fixture.nodes[i].shard)->scan_reads;
                reads_max = reads > reads_max ? reads : reads_max;
            }
            assert_true(sim_step());
        }
        step_finish(&scanning);
    }
    engine_stats(fixture.engine, &after);
    expect_seen(&scanning, 0, 6000, 1);
    assert_true(after.disk_reads - before.disk_reads > 1000);
    assert_in_range(reads_max, 2, 16);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__compaction_moves_what_it_reads(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(6);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    store_compact(&fixture, 50);
    put_cold(&fixture, 4000);
    for (unsigned round = 0; round < 3; round++) {
        scan_begin(&scanning, &fixture);
        for (unsigned step = 0; !scanning.ended; step++) {
            step_begin(&scanning, 60);
            for (unsigned i = 0; i < 12; i++)
                put(&fixture, 1 + 2 * (unsigned)sim_random(2000), 2000);
            step_finish(&scanning);
        }
        expect_seen(&scanning, 0, 4000, 1);
    }
    assert_true(store_compact_stats(&fixture).victims > 0);
    store_stop(&fixture);
    sim_destroy();
}

/* What a step shows is what was there when it was begun. */
static void test_scan__shows_the_moment_of_the_call(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(7);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    put_cold(&fixture, 3000);
    scan_begin(&scanning, &fixture);
    step_begin(&scanning, 200);
    assert_false(scanning.done);
    for (unsigned i = 0; i < 3000; i++) {
        struct engine_result result;
        char key[32];
        snprintf(key, sizeof key, "key:%u", 3000 + i);
        if (store_try_now(&fixture, ENGINE_PUT, key, 10, &result) != ENGINE_DONE)
            break;
    }
    step_finish(&scanning);
    expect_seen(&scanning, 3000, 6000, 0);
    assert_in_range(scanning.shown, 50, 500);
    store_stop(&fixture);
    sim_destroy();
}

/* A blind overwrite leaves an older entry of its key behind the newer one, which alone counts: here it has expired. */
static void test_scan__an_older_record_of_the_key_is_not_shown(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(13);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    put_cold(&fixture, 1500);
    struct engine_shard *owner = fixture.nodes[0].shard;
    for (unsigned i = 0; i < 20; i++) {
        char key[32];
        struct engine_result result;
        snprintf(key, sizeof key, "key:%u", i);
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text("v"));
        engine_section_begin(owner);
        request.expires_ms = engine_now_ms(owner) + 2;
        assert_int_equal(engine_try(owner, &request, &result), ENGINE_DONE);
        engine_section_end(owner);
        assert_int_equal(result.error, KVS_ERR_OK);
        scan_begin(&scanning, &fixture);
        scanning.position = request.hash;
        scan_step(&scanning, 1);
        assert_int_equal(scanning.seen[i], 1);
    }
    for (unsigned i = 20; i < 40; i++) {
        char key[32];
        struct engine_result result;
        snprintf(key, sizeof key, "key:%u", i);
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text("v"));
        engine_section_begin(owner);
        request.expires_ms = engine_now_ms(owner) + 2;
        assert_int_equal(engine_try(owner, &request, &result), ENGINE_DONE);
        engine_section_end(owner);
        assert_int_equal(store_shard_zero(&fixture)->settling, 1);
        sim_advance(5000000); /* nothing has its turn */
        scan_begin(&scanning, &fixture);
        scanning.position = request.hash;
        scan_step(&scanning, 1);
        assert_int_equal(scanning.seen[i], 0);
        store_quiet();
    }
    store_stop(&fixture);
    sim_destroy();
}

/* ---- what is not there ------------------------------------------------------------------------------------------- */

static void test_scan__what_has_expired_is_not_shown(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(8);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 200; i++) {
        char key[32];
        struct store_waiting waiting;
        snprintf(key, sizeof key, "key:%u", i);
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text("v"));
        struct engine_shard *owner = fixture.nodes[store_owner(&fixture, &request)].shard;
        engine_section_begin(owner);
        request.expires_ms = i % 2 == 0 ? 0 : engine_now_ms(owner) + 3600000;
        engine_section_end(owner);
        store_execute(&fixture, &waiting, &request);
        free(waiting.value);
    }
    scan_begin(&scanning, &fixture);
    scan_rest(&scanning, 10);
    assert_int_equal(scanning.shown, 200);
    sim_step_wall(3600001);
    scan_begin(&scanning, &fixture);
    scan_rest(&scanning, 10);
    assert_int_equal(scanning.shown, 100);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__what_is_not_durable_has_a_gate(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(9);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    put(&fixture, 1, 10);
    store_quiet();
    scan_begin(&scanning, &fixture);
    scan_rest(&scanning, 1000);
    assert_int_equal(scanning.engine.gate, 0);
    struct engine_result result;
    assert_int_equal(store_try_now(&fixture, ENGINE_PUT, "key:2", 10, &result), ENGINE_DONE);
    uint64_t gate = 0;
    scan_begin(&scanning, &fixture);
    while (!scanning.ended) {
        scan_step(&scanning, 1000);
        gate = scanning.engine.gate > gate ? scanning.engine.gate : gate;
    }
    assert_int_equal(gate, result.gate);
    assert_int_equal(scanning.shown, 2);
    store_quiet();

    /* Nor must the news of a delete be taken back. */
    assert_int_equal(store_try_now(&fixture, ENGINE_REMOVE, "key:1", 0, &result), ENGINE_DONE);
    gate = 0;
    scan_begin(&scanning, &fixture);
    while (!scanning.ended) {
        scan_step(&scanning, 1000);
        gate = scanning.engine.gate > gate ? scanning.engine.gate : gate;
    }
    assert_int_equal(gate, result.gate);
    assert_int_equal(scanning.shown, 1);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static void test_scan__damage_is_reported_and_can_be_passed(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(10);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    put_cold(&fixture, 3000);
    store_damage(1, 4, 12);
    unsigned damaged = 0;
    scan_begin(&scanning, &fixture);
    while (!scanning.ended) {
        const unsigned shown = scanning.shown;
        step_begin(&scanning, 5);
        if (!scanning.done)
            assert_true(sim_run_until(step_is_done, &scanning, 1000000));
        if (scanning.engine.error != KVS_ERR_OK) {
            damaged++;
            assert_int_equal(scanning.engine.error, KVS_ERR_CORRUPT);
            assert_int_equal(scanning.shown, shown);
            assert_non_null(strstr(engine_damage_text(fixture.nodes[0].shard), "segment 000001"));
            scanning.engine.error = KVS_ERR_OK;
        }
        step_finish(&scanning);
    }
    assert_in_range(damaged, 4, 16);
    assert_in_range(scanning.shown, 3000 - 16 * 15, 3000 - damaged);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__steps_under_way_end_with_a_crash(void **state)
{
    static struct scanning scanning[4];
    (void)state;
    sim_create(11);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    put_cold(&fixture, 3000);
    for (unsigned i = 0; i < 4; i++) {
        scan_begin(&scanning[i], &fixture);
        step_begin(&scanning[i], 512);
        assert_false(scanning[i].done);
    }
    for (unsigned i = 0; i < 5; i++)
        (void)sim_step();
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

/* ---- at random --------------------------------------------------------------------------------------------------- */

/* Several scans at once amid puts, removes, compaction and restarts. Keys below STABLE are only ever overwritten. */
enum { STABLE = 1200, VOLATILE = 1200, SCANS = 3 };

static void model_run(uint64_t seed)
{
    static struct scanning scans[SCANS];
    unsigned completed = 0;
    hash_mask = seed % 3 == 0 ? 0xff800000000001ffull : UINT64_MAX;
    sim_create(seed);
    struct store_fixture fixture;
    struct engine_options options = store_options(1 + (unsigned)sim_random(3));
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < STABLE; i++)
        put(&fixture, i, 20 + sim_random(2000));
    for (unsigned i = 0; i < SCANS; i++)
        scan_begin(&scans[i], &fixture);
    store_compact(&fixture, 50);
    for (unsigned round = 0; round < 400; round++) {
        struct scanning *scanning = &scans[sim_random(SCANS)];
        step_begin(scanning, 1 + (unsigned)sim_random(sim_random(2) == 0 ? 10 : 600));
        for (unsigned i = (unsigned)sim_random(12); i > 0; i--) {
            const unsigned number = (unsigned)sim_random(STABLE + VOLATILE);
            if (number >= STABLE && sim_random(2) == 0)
                remove_number(&fixture, number);
            else
                put(&fixture, number, sim_random(2000));
        }
        step_finish(scanning);
        if (scanning->ended) {
            expect_seen(scanning, 0, STABLE, 1);
            completed++;
            scan_begin(scanning, &fixture);
        }
        if (sim_random(60) == 0) {
            store_stop(&fixture);
            if (sim_random(2) == 0)
                (void)store_forget_snapshot();
            options = store_options(1 + (unsigned)sim_random(3));
            store_boot(&fixture, &options);
            store_compact(&fixture, 50);
        }
    }
    assert_true(completed > 5);
    store_stop(&fixture);
    sim_destroy();
}

static void test_scan__many_at_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1012; seed++)
        model_run(seed);
}

/* ---- the engine `memory` ------------------------------------------------------------------------------------------
 */

static void test_scan__of_the_memory_engine(void **state)
{
    static struct scanning scanning;
    (void)state;
    sim_create(12);
    struct store_fixture fixture;
    struct engine_options options = store_options(3);
    options.kind = "memory";
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 2000; i++)
        put_quickly(&fixture, i);
    scan_begin(&scanning, &fixture);
    unsigned others = 2000;
    while (!scanning.ended) {
        scan_step(&scanning, 7);
        for (unsigned i = 0; i < 40 && others < 12000; i++)
            put_quickly(&fixture, others++);
    }
    expect_seen(&scanning, 0, 2000, 1);
    for (unsigned i = 0; i < 1000; i++)
        remove_number(&fixture, i);
    scan_begin(&scanning, &fixture);
    scan_rest(&scanning, 1000);
    expect_seen(&scanning, 0, 1000, 0);
    expect_seen(&scanning, 1000, 12000, 1);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_scan__every_key_once_in_steps_of_any_size, teardown),
        cmocka_unit_test_teardown(test_scan__goes_on_while_the_index_grows_and_shrinks, teardown),
        cmocka_unit_test_teardown(test_scan__a_position_is_good_over_restarts_and_for_any_number_of_shards, teardown),
        cmocka_unit_test_teardown(test_scan__equal_hashes, teardown),
        cmocka_unit_test_teardown(test_scan__keys_whose_records_are_on_disk_only, teardown),
        cmocka_unit_test_teardown(test_scan__compaction_moves_what_it_reads, teardown),
        cmocka_unit_test_teardown(test_scan__shows_the_moment_of_the_call, teardown),
        cmocka_unit_test_teardown(test_scan__an_older_record_of_the_key_is_not_shown, teardown),
        cmocka_unit_test_teardown(test_scan__what_has_expired_is_not_shown, teardown),
        cmocka_unit_test_teardown(test_scan__what_is_not_durable_has_a_gate, teardown),
        cmocka_unit_test_teardown(test_scan__damage_is_reported_and_can_be_passed, teardown),
        cmocka_unit_test_teardown(test_scan__steps_under_way_end_with_a_crash, teardown),
        cmocka_unit_test_teardown(test_scan__many_at_random, teardown),
        cmocka_unit_test_teardown(test_scan__of_the_memory_engine, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
