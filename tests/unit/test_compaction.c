/*
 * test_compaction.c - what becomes of a store that is compacted: deletes stay deleted, power losses at many points cost
 * nothing, a full disk makes writers wait and not fail as long as there is something to gain, and what compaction has
 * written is noticed when it is damaged or older than the manifest says.
 */
#include "hiding_fixture.h"

#include <errno.h>

enum {
    SEGMENT_BYTES = 256 * 1024,
    BYTES = 3900, /* a record, in a batch of its own, fills a block */
    PER_SEGMENT = 62,
};

/* ---- deletes --------------------------------------------------------------------------------------------------- */

static void remove_key(struct store_fixture *fixture, unsigned i)
{
    assert_true(segments_remove(fixture, i));
}

/* The deletes have to be kept while the dead puts are still there. When those segments are rewritten at last, the
 * deletes may go. */
static void test_compaction__deletes_stay_deleted(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = hiding_create(&fixture, remove_key);
    store_quiet();
    store_compact(&fixture, 130);
    store_quiet();
    struct compact_stats stats = store_compact_stats(&fixture);
    assert_true(stats.victims >= 4);
    assert_true(stats.deletes_kept >= HIDING_HIDDEN / 2);
    hiding_check(&fixture, &options);
    store_compact(&fixture, 130);
    hiding_overwrite_all_else(&fixture);
    store_quiet();
    assert_true(store_compact_stats(&fixture).deletes_dropped >= HIDING_HIDDEN / 2);
    hiding_end(&fixture, &options);
}

/* ---- power loss ------------------------------------------------------------------------------------------------ */

enum { MODEL_KEYS = 260 };

/* 0: not there. A key whose operation was under way may hold either. */
static unsigned known[MODEL_KEYS], maybe[MODEL_KEYS];
static size_t known_bytes[MODEL_KEYS], maybe_bytes[MODEL_KEYS];

static size_t model_bytes(unsigned i, unsigned version)
{
    return i % 7 == 0 ? 20000 + version % 5 * 3000 : 500 + (i * 37 + version * 101) % 5000;
}

/* False when the operation was still under way after `steps` steps. */
static bool model_step(struct store_fixture *fixture, unsigned version, uint64_t steps)
{
    static struct store_waiting waiting;
    static char key[32];
    static uint8_t value[64 * 1024];
    unsigned i = (unsigned)sim_random(MODEL_KEYS);
    bool remove = sim_random(4) == 0;
    size_t bytes = model_bytes(i, version);
    segments_key(key, i);
    memcpy(value, segments_value(i, version, bytes).data, bytes);
    struct engine_request request = store_request(fixture, remove ? ENGINE_REMOVE : ENGINE_PUT, slice_text(key),
                                                  slice_make(value, remove ? 0 : bytes));
    maybe[i] = remove ? 0 : version;
    maybe_bytes[i] = bytes;
    store_begin(fixture, &waiting, &request);
    engine_turn(waiting.shard);
    while (!store_waiting_is_done(&waiting)) {
        if (steps-- > 0 && sim_step())
            continue;
        if (waiting.done) {
            store_waiting_release(&waiting);
            free(waiting.value);
        }
        return false;
    }
    store_waiting_release(&waiting);
    free(waiting.value);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    if (remove)
        assert_int_equal(waiting.op.result.found, known[i] != 0);
    known[i] = maybe[i];
    known_bytes[i] = bytes;
    return true;
}

static void model_check(struct store_fixture *fixture)
{
    unsigned keys = 0;
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        char key[32];
        segments_key(key, i);
        if (maybe[i] != known[i]) {
            struct store_waiting waiting;
            struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
            store_execute(fixture, &waiting, &request);
            bool new_one = waiting.op.result.found == (maybe[i] != 0) &&
                           (maybe[i] == 0 || slice_equal(slice_make(waiting.value, waiting.value_bytes),
                                                         segments_value(i, maybe[i], maybe_bytes[i])));
            free(waiting.value);
            if (new_one) {
                known[i] = maybe[i];
                known_bytes[i] = maybe_bytes[i];
            }
            maybe[i] = known[i];
        }
        if (known[i] == 0)
            segments_expect_none(fixture, i);
        else
            segments_expect(fixture, i, known[i], known_bytes[i]);
        keys += known[i] != 0;
    }
    assert_int_equal(store_keys(fixture), keys);
}

static void test_compaction__power_loss_at_many_points_costs_nothing(void **state)
{
    (void)state;
    enum { BOOTS = 8, OPERATIONS = 450 };
    static const enum sim_crash_mode modes[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM, SIM_RANDOM, SIM_KILL};
    const char *seeds = getenv("KVS_COMPACTION_SEEDS");
    uint64_t last = seeds == NULL ? 24 : strtoull(seeds, NULL, 10);
    uint64_t victims = 0, moved = 0, kept = 0, dropped = 0;
    for (uint64_t seed = 1; seed <= last; seed++) {
        sim_create(seed);
        print_message("seed %llu\r", (unsigned long long)seed);
        memset(known, 0, sizeof known);
        memset(maybe, 0, sizeof maybe);
        struct store_fixture fixture;
        unsigned version = 0;
        for (unsigned boot = 0; boot < BOOTS; boot++) {
            struct engine_options options = segments_scarce(1 + (unsigned)sim_random(3));
            store_boot(&fixture, &options);
            store_compact(&fixture, 110 + (unsigned)sim_random(40));
            model_check(&fixture);
            uint64_t operations = OPERATIONS / 4 + sim_random(OPERATIONS);
            while (operations-- > 0 && model_step(&fixture, ++version, UINT64_MAX))
                ;
            (void)model_step(&fixture, ++version, sim_random(40));
            struct compact_stats stats = store_compact_stats(&fixture);
            assert_int_equal(stats.damaged_segments, 0);
            victims += stats.victims;
            moved += stats.records_moved;
            kept += stats.deletes_kept;
            dropped += stats.deletes_dropped;
            store_crash(&fixture, modes[sim_random(ARRAY_COUNT(modes))]);
        }
        struct engine_options options = segments_scarce(2);
        store_boot(&fixture, &options);
        model_check(&fixture);
        segments_check_counts(&fixture, MODEL_KEYS);
        store_stop(&fixture);
        sim_destroy();
    }
    print_message("%llu segments given back, %llu records moved, %llu deletes kept, %llu dropped\n",
                  (unsigned long long)victims, (unsigned long long)moved, (unsigned long long)kept,
                  (unsigned long long)dropped);
    assert_true(victims > last && moved > last && kept > last && dropped > last);
}

/* ---- a full disk ----------------------------------------------------------------------------------------------- */

/* What is held back for deletes is enough for so many. */
static void remove_together(struct store_fixture *fixture, unsigned first, unsigned end)
{
    static struct store_waiting removals[2 * PER_SEGMENT];
    static char names[2 * PER_SEGMENT][32];
    assert_true(end - first <= ARRAY_COUNT(removals));
    for (unsigned i = first; i < end; i++) {
        segments_key(names[i - first], i);
        struct engine_request request =
            store_request(fixture, ENGINE_REMOVE, slice_text(names[i - first]), slice_make(NULL, 0));
        store_begin(fixture, &removals[i - first], &request);
    }
    for (unsigned i = first; i < end; i++) {
        store_finish(&removals[i - first]);
        assert_int_equal(removals[i - first].op.result.error, KVS_ERR_OK);
        assert_true(removals[i - first].op.result.found);
        free(removals[i - first].value);
    }
}

static void test_compaction__writers_wait_while_there_is_something_to_gain(void **state)
{
    (void)state;
    /* Three logs need 18 files beside those that can be compacted: reserves of 10, an open and a newest sealed one
     * each, and two that are held back until both other logs can go on, too. What is dead in those cannot be gained. */
    enum { FILES = 26, GROUP = 2 * PER_SEGMENT, LIVE = 4 * GROUP, PUTS = 12 * LIVE, GROW_MAX = FILES * PER_SEGMENT };
    static unsigned versions[GROW_MAX];
    for (unsigned run = 0; run < 6; run++) {
        sim_create(100 + run);
        unsigned shards = 1 + run % 3;
        struct store_fixture fixture;
        struct engine_options options = store_options(shards);
        options.disk_bytes_max = (uint64_t)FILES * SEGMENT_BYTES;
        options.memory_bytes = (uint64_t)2 * FILES * SEGMENT_BYTES; /* deletes need not read */
        store_boot(&fixture, &options);
        store_compact(&fixture, 1000); /* only for lack of space */
        segments_put_range(&fixture, 0, LIVE, 1, BYTES);
        for (unsigned i = 0; i < LIVE; i++)
            versions[i] = 1;
        for (unsigned put = 0; put < PUTS; put++) {
            unsigned i = (unsigned)sim_random(LIVE);
            segments_put(&fixture, i, ++versions[i], BYTES);
        }
        struct compact_stats stats = store_compact_stats(&fixture);
        assert_true(stats.victims > PUTS / PER_SEGMENT && stats.records_moved > LIVE);
        assert_true(atomic_load(&segments_store(&fixture)->segments.count) <= FILES);
        for (unsigned i = 0; i < LIVE; i++)
            segments_expect(&fixture, i, versions[i], BYTES);

        /* Nothing but live records in the end. */
        unsigned keys = LIVE;
        enum kvs_err err;
        while ((err = segments_try_put(&fixture, keys, 1, BYTES)) == KVS_ERR_OK)
            assert_true(++keys < GROW_MAX);
        assert_int_equal(err, KVS_ERR_NO_SPACE);
        assert_true(keys > (FILES - 4 * shards - 4) * PER_SEGMENT);
        for (unsigned i = 0; i < keys; i++)
            segments_expect(&fixture, i, i < LIVE ? versions[i] : 1, BYTES);
        segments_run_ms(&fixture, 2000);
        assert_false(store_compact_stats(&fixture).failed);

        /* Deletes go on and make space: what was refused is taken again by itself. */
        for (unsigned first = 0; first < LIVE; first += GROUP) {
            remove_together(&fixture, first, first + GROUP);
            segments_run_ms(&fixture, 2000);
        }
        for (unsigned shard = 0; shard < shards; shard++)
            assert_string_equal(engine_refusal_text(fixture.nodes[shard].shard), "");
        for (unsigned round = 2; round < 5; round++)
            segments_put_range(&fixture, LIVE, keys, round, BYTES);
        for (unsigned boot = 0; boot < 2; boot++) {
            for (unsigned i = 0; i < LIVE; i++)
                segments_expect_none(&fixture, i);
            segments_expect_range(&fixture, LIVE, keys, 4, BYTES);
            assert_int_equal(store_keys(&fixture), keys - LIVE);
            if (boot == 0) {
                store_crash(&fixture, SIM_DROP_ALL);
                store_boot(&fixture, &options);
            }
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- other numbers of shards, large values --------------------------------------------------------------------- */

static void test_compaction__goes_on_after_a_restart_with_another_number_of_shards(void **state)
{
    (void)state;
    enum { LIVE = 6 * PER_SEGMENT };
    static const unsigned shards[] = {3, 1, 4, 2};
    sim_create(20);
    struct store_fixture fixture;
    unsigned version = 0;
    for (unsigned boot = 0; boot < ARRAY_COUNT(shards); boot++) {
        struct engine_options options = segments_scarce(shards[boot]);
        store_boot(&fixture, &options);
        if (version > 0)
            segments_expect_range(&fixture, 0, LIVE, version, BYTES);
        store_compact(&fixture, 120);
        segments_put_range(&fixture, 0, LIVE, ++version, BYTES);
        segments_put_range(&fixture, 0, LIVE, ++version, BYTES);
        store_quiet();
        segments_check_counts(&fixture, LIVE);
        /* What the other boots have written under other shards is given back all the same. */
        assert_true(segments_in_state(&fixture, SEGMENT_SEALED) <= 2 * LIVE / PER_SEGMENT + 4);
        assert_true(store_compact_stats(&fixture).victims > 2);
        if (boot % 2 == 0)
            store_stop(&fixture);
        else
            store_crash(&fixture, SIM_DROP_ALL);
    }
    struct engine_options options = segments_scarce(1);
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, LIVE, version, BYTES);
    assert_int_equal(store_keys(&fixture), LIVE);
    store_stop(&fixture);
    sim_destroy();
}

static void test_compaction__moves_values_of_several_100_kib(void **state)
{
    (void)state;
    enum { LIVE = 14, ROUNDS = 12, MIB = 1024 * 1024 };
    static const size_t sizes[] = {300 * 1024, 974752, 450 * 1024, 10, 700 * 1024};
    sim_create(30);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    options.segment_bytes = MIB;
    options.memory_bytes = 6 * MIB;
    store_boot(&fixture, &options);
    assert_int_equal(engine_value_bytes_max(fixture.engine), sizes[1]);
    store_compact(&fixture, 130);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < LIVE; i++) {
            if (round == 1 || (i + round) % 3 != 0)
                segments_put(&fixture, i, round, sizes[i % ARRAY_COUNT(sizes)]);
        }
    }
    store_quiet();
    struct compact_stats stats = store_compact_stats(&fixture);
    assert_true(stats.victims >= ROUNDS);
    assert_true(stats.records_moved > 0);
    assert_int_equal(stats.damaged_segments, 0);
    segments_check_counts(&fixture, LIVE);
    for (unsigned boot = 0; boot < 2; boot++) {
        for (unsigned i = 0; i < LIVE; i++)
            segments_expect(&fixture, i, (i + ROUNDS) % 3 != 0 ? ROUNDS : ROUNDS - 1, sizes[i % ARRAY_COUNT(sizes)]);
        if (boot == 0) {
            store_crash(&fixture, SIM_DROP_ALL);
            store_boot(&fixture, &options);
        }
    }
    store_stop(&fixture);
    sim_destroy();
}

/* ---- what only the manifest can tell --------------------------------------------------------------------------- */

static uint32_t find_relocated(const struct store_fixture *fixture)
{
    for (uint32_t i = 0; i < atomic_load(&segments_store(fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        if (segment != NULL && segment->kind == SEGMENT_RELOCATED && segment_state(segment) == SEGMENT_SEALED)
            return i;
    }
    fail_msg("compaction has written nothing");
    return 0;
}

/* The records of its last batch were acknowledged long ago, and no later batch proves that. */
static void test_compaction__damage_at_the_end_of_a_sealed_segment_is_noticed(void **state)
{
    (void)state;
    enum { LIVE = 12 * PER_SEGMENT };
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 40, 1);
    segments_put_range(&fixture, 0, LIVE, 1, BYTES);
    for (unsigned i = 0; i < LIVE / 2; i++) {
        if (i % 3 != 0)
            segments_put(&fixture, i, 2, BYTES);
    }
    store_quiet();
    store_compact(&fixture, 120);
    store_quiet();
    uint32_t number = find_relocated(&fixture);
    uint32_t end = manifest_find(segments_keeper(&fixture)->manifest, number)->end;
    store_stop(&fixture);
    char path[64], name[32];
    store_segment_path(path, number);
    snprintf(name, sizeof name, "segment %06u", number);
    uint64_t at = end - KVS_BLOCK_BYTES + 20;
    uint8_t byte;
    sim_file_read(path, at, &byte, 1);
    byte ^= 0x10;
    sim_rot_add(path, at, &byte, 1);
    (void)store_forget_runs();
    store_expect_refused(&fixture, &options, name);
    sim_rot_heal();
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < LIVE; i++)
        segments_expect(&fixture, i, i < LIVE / 2 && i % 3 != 0 ? 2 : 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* The last change is lost: a segment that was given up is in the list again. */
static void test_compaction__manifest_that_has_lost_its_last_change_is_noticed(void **state)
{
    (void)state;
    enum { LIVE = 3 * PER_SEGMENT };
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 41, 1);
    segments_put_range(&fixture, 0, LIVE, 1, BYTES);
    segments_put_range(&fixture, 0, LIVE, 2, BYTES);
    store_quiet();
    struct segment *segment = segments_at(&fixture, 0);
    assert_int_equal(atomic_load(&segment->dead_puts), segment->puts);
    relocation_retire(fixture.background, segment);
    engine_background_turn(fixture.background);
    store_quiet();
    assert_int_equal(segment_state(segment), SEGMENT_FREE);
    segments_put(&fixture, LIVE, 1, BYTES);
    store_crash(&fixture, SIM_DROP_ALL);

    static uint8_t block[KVS_BLOCK_BYTES];
    static const uint8_t zeros[KVS_BLOCK_BYTES];
    uint64_t at = sim_file_size("/data/" MANIFEST_NAME);
    do {
        at -= KVS_BLOCK_BYTES;
        sim_file_read("/data/" MANIFEST_NAME, at, block, sizeof block);
    } while (memcmp(block, zeros, sizeof block) == 0);
    const struct manifest_entry *entry = (const void *)(block + sizeof(struct manifest_block));
    assert_int_equal(entry->state, MANIFEST_FREE);
    sim_rot_add("/data/" MANIFEST_NAME, at, zeros, sizeof zeros);
    store_expect_refused(&fixture, &options, "has lost its latest changes");
    sim_rot_heal();
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, LIVE, 2, BYTES);
    segments_expect(&fixture, LIVE, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compaction__deletes_stay_deleted),
        cmocka_unit_test(test_compaction__power_loss_at_many_points_costs_nothing),
        cmocka_unit_test(test_compaction__writers_wait_while_there_is_something_to_gain),
        cmocka_unit_test(test_compaction__goes_on_after_a_restart_with_another_number_of_shards),
        cmocka_unit_test(test_compaction__moves_values_of_several_100_kib),
        cmocka_unit_test(test_compaction__damage_at_the_end_of_a_sealed_segment_is_noticed),
        cmocka_unit_test(test_compaction__manifest_that_has_lost_its_last_change_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
