/*
 * test_store_full_disk.c - when no segment can be made any more: what is there is read and deleted, a start is a start,
 * and writes are refused until there is room again.
 */
#include "engine/store.h"
#include "expiry_fixture.h"

enum { SEGMENT_BYTES = 256 * 1024, KEYS_MAX = 2000, SMALL_BYTES = 400, DELETES = 100 };

static void name_key(char key[32], unsigned i)
{
    snprintf(key, 32, "key:%u", i);
}

static enum kvs_err put_numbered(struct store_fixture *fixture, unsigned i)
{
    char key[32], value[SMALL_BYTES + 1];
    name_key(key, i);
    memset(value, 'a' + (int)(i % 26), SMALL_BYTES);
    value[SMALL_BYTES] = '\0';
    return store_put_text(fixture, key, value);
}

static void expect_numbered(struct store_fixture *fixture, unsigned i)
{
    char key[32], value[SMALL_BYTES + 1];
    name_key(key, i);
    memset(value, 'a' + (int)(i % 26), SMALL_BYTES);
    value[SMALL_BYTES] = '\0';
    store_expect(fixture, key, value);
}

/* The keys from `first` on are there, and those before are not. */
static void expect_from(struct store_fixture *fixture, unsigned first, unsigned end)
{
    for (unsigned i = 0; i < first; i++) {
        char key[32];
        name_key(key, i);
        store_expect(fixture, key, NULL);
    }
    for (unsigned i = first; i < end; i++)
        expect_numbered(fixture, i);
    assert_int_equal(store_keys(fixture), end - first);
}

/* Writes until that is refused. Returns how many keys there are then. */
static unsigned fill_disk(struct store_fixture *fixture)
{
    unsigned written = 0;
    enum kvs_err err;
    while ((err = put_numbered(fixture, written)) == KVS_ERR_OK)
        assert_true(++written < KEYS_MAX);
    assert_int_equal(err, KVS_ERR_NO_SPACE);
    return written;
}

static void add_size(void *context, const char *path)
{
    uint64_t *bytes = context;
    *bytes += sim_file_size(path);
}

/* Leaves no room for anything but what is there. After an orderly stop. */
static void fill_rest_of_disk(void)
{
    uint64_t bytes = 0;
    sim_file_each(add_size, &bytes);
    sim_set_disk_size(bytes);
}

/* Room again, and as much time as it takes until the store has noticed. */
static void make_room(void)
{
    sim_set_disk_size(UINT64_MAX);
    sim_advance(3000000000ull);
    for (unsigned i = 0; i < 1000; i++)
        sim_step();
}

/* A machine whose disk has room for two segments only, and both are full. Returns how many keys are there. */
static unsigned boot_full(struct store_fixture *fixture, uint64_t seed, const struct engine_options *options)
{
    sim_create(seed);
    store_boot(fixture, options);
    store_quiet();
    sim_set_disk_size(2 * SEGMENT_BYTES + 2 * KVS_BLOCK_BYTES);
    return fill_disk(fixture);
}

/* ---- starting -------------------------------------------------------------------------------------------------- */

static void test_store__starts_on_a_full_disk_and_writes_in_the_segments_it_has(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    store_quiet();
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(put_numbered(&fixture, i), KVS_ERR_OK);
    store_stop(&fixture);
    fill_rest_of_disk();
    for (unsigned boot = 0; boot < 2; boot++) {
        store_boot(&fixture, &options);
        assert_int_equal(put_numbered(&fixture, 50 + boot), KVS_ERR_OK);
        expect_from(&fixture, 0, 51 + boot);
        store_stop(&fixture);
    }
    sim_destroy();
}

/* Nothing is left to adopt, not even for the marks of an orderly stop. */
static void test_store__starts_when_both_disk_and_segments_are_full(void **state)
{
    (void)state;
    struct store_fixture fixture;
    const struct engine_options options = store_options(1);
    unsigned keys = boot_full(&fixture, 2, &options);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    expect_from(&fixture, 0, keys);
    assert_int_equal(put_numbered(&fixture, keys), KVS_ERR_NO_SPACE);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    expect_from(&fixture, 0, keys);
    make_room();
    assert_int_equal(put_numbered(&fixture, keys), KVS_ERR_OK);
    expect_from(&fixture, 0, keys + 1);
    store_stop(&fixture);
    sim_destroy();
}

/* Those shards for which no segment is left serve all the same. */
/* What logs keep for deletes has to be there after a start, too. */
static void test_store__deletes_go_on_after_a_start_on_a_full_disk(void **state)
{
    (void)state;
    for (unsigned crash = 0; crash < 2; crash++) {
        sim_create(6 + crash);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        options.disk_bytes_max = 8 * SEGMENT_BYTES;
        store_boot(&fixture, &options);
        unsigned written = fill_disk(&fixture);
        store_quiet();
        if (crash)
            store_crash(&fixture, SIM_DROP_ALL);
        else
            store_stop(&fixture);
        store_boot(&fixture, &options);
        assert_int_equal(put_numbered(&fixture, written), KVS_ERR_NO_SPACE);
        assert_true(store_remove_text(&fixture, "key:0"));
        expect_from(&fixture, 1, written);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_store__starts_with_more_shards_than_segments_on_a_full_disk(void **state)
{
    (void)state;
    enum { KEYS = 20, MORE = 60 }; /* two segments: the one written in and its spare */
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_quiet();
    for (unsigned i = 0; i < KEYS; i++)
        assert_int_equal(put_numbered(&fixture, i), KVS_ERR_OK);
    store_stop(&fixture);
    fill_rest_of_disk();

    options = store_options(4);
    store_boot(&fixture, &options);
    expect_from(&fixture, 0, KEYS);
    bool written[MORE] = {false};
    unsigned refused = 0;
    for (unsigned i = 0; i < MORE; i++) {
        enum kvs_err err = put_numbered(&fixture, KEYS + i);
        assert_true(err == KVS_ERR_OK || err == KVS_ERR_NO_SPACE);
        written[i] = err == KVS_ERR_OK;
        refused += !written[i];
    }
    assert_in_range(refused, MORE / 4, MORE - MORE / 4);
    make_room();
    for (unsigned i = 0; i < MORE; i++) {
        if (!written[i])
            assert_int_equal(put_numbered(&fixture, KEYS + i), KVS_ERR_OK);
    }
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    expect_from(&fixture, 0, KEYS + MORE);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- deleting -------------------------------------------------------------------------------------------------- */

static void remove_together(struct store_fixture *fixture, unsigned first, unsigned end)
{
    struct store_waiting removals[DELETES];
    char keys[DELETES][32];
    for (unsigned i = first; i < end; i++) {
        name_key(keys[i], i);
        struct engine_request request = store_request(fixture, ENGINE_REMOVE, slice_text(keys[i]), slice_make(NULL, 0));
        store_begin(fixture, &removals[i], &request);
    }
    for (unsigned i = first; i < end; i++) {
        store_finish(&removals[i]);
        assert_int_equal(removals[i].op.result.error, KVS_ERR_OK);
        assert_true(removals[i].op.result.found);
        free(removals[i].value);
    }
}

/* Room for them is held back, and one after another, each in a block of its own, they take most of it. */
static void test_store__deletes_go_on_when_the_disk_is_full(void **state)
{
    (void)state;
    enum { ONE_BY_ONE = 3 };
    struct store_fixture fixture;
    const struct engine_options options = store_options(1);
    unsigned keys = boot_full(&fixture, 4, &options);
    for (unsigned i = 0; i < ONE_BY_ONE; i++) {
        char key[32];
        name_key(key, i);
        assert_true(store_remove_text(&fixture, key));
        assert_int_equal(put_numbered(&fixture, keys), KVS_ERR_NO_SPACE);
    }
    remove_together(&fixture, ONE_BY_ONE, DELETES);
    expect_from(&fixture, DELETES, keys);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    expect_from(&fixture, DELETES, keys);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- deleting everything, one by one --------------------------------------------------------------------------- */

enum { MANY_MAX = 65536 };

/* A full store that compaction looks after, as in a node. */
struct full_store {
    struct store_fixture fixture;
    struct engine_options options;
    size_t value_bytes;
    unsigned count; /* keys that are there */
    uint64_t expires_ms;
    unsigned order[MANY_MAX];
};

static enum kvs_err full_put(struct full_store *full, unsigned i)
{
    char key[32];
    segments_key(key, i);
    struct slice value = segments_value(i, 1, full->value_bytes);
    struct store_waiting waiting;
    struct engine_request request = store_request(&full->fixture, ENGINE_PUT, slice_text(key), value);
    request.expires_ms = full->expires_ms;
    store_execute(&full->fixture, &waiting, &request);
    free(waiting.value);
    return waiting.op.result.error;
}

/* Keys that are refused are left out; until all shards are full, so that many are refused in a row. */
static void full_fill(struct full_store *full)
{
    full->count = 0;
    unsigned refused = 0;
    for (unsigned i = 0; refused < 16 * full->options.shard_count; i++) {
        enum kvs_err err = full_put(full, i);
        assert_true(err == KVS_ERR_OK || err == KVS_ERR_NO_SPACE);
        refused = err == KVS_ERR_OK ? 0 : refused + 1;
        if (err == KVS_ERR_OK) {
            assert_true(full->count < MANY_MAX);
            full->order[full->count++] = i;
        }
    }
}

static void full_shuffle(struct full_store *full)
{
    for (unsigned i = full->count; i-- > 1;) {
        unsigned other = (unsigned)sim_random(i + 1), key = full->order[i];
        full->order[i] = full->order[other];
        full->order[other] = key;
    }
}

/* With a limit of the store's own, or because the disk has no more room. */
static void full_boot(struct full_store *full, unsigned shards, unsigned files, bool limit, size_t value_bytes)
{
    memset(full, 0, sizeof *full);
    full->options = store_options(shards);
    full->options.memory_bytes = (uint64_t)16 * files * SEGMENT_BYTES; /* deletes need not read */
    full->value_bytes = value_bytes;
    uint64_t bytes = (uint64_t)files * SEGMENT_BYTES;
    if (limit)
        full->options.disk_bytes_max = bytes;
    store_boot(&full->fixture, &full->options);
    store_compact(&full->fixture, 1000); /* only for lack of space */
    if (!limit)
        sim_set_disk_size(bytes + SEGMENT_BYTES);
}

/* Every one of them succeeds, on its own; and then there is room for as many puts, without any help. */
static void full_empty_and_fill_again(struct full_store *full)
{
    for (unsigned i = 0; i < full->count; i++) {
        char key[32];
        segments_key(key, full->order[i]);
        if (!store_remove_text(&full->fixture, key))
            fail_msg("%s was not there", key);
    }
    assert_int_equal(store_keys(&full->fixture), 0);
    unsigned before = full->count;
    segments_run_ms(&full->fixture, 3000);
    full_fill(full);
    assert_true(full->count > before / 10 * 9);
}

static void test_store__every_single_delete_succeeds_on_a_full_store(void **state)
{
    (void)state;
    static const struct {
        unsigned shards, files;
        size_t value_bytes;
        bool limit, shuffled;
    } runs[] = {
        {1, 20, 400, true, false}, {1, 20, 30, true, true},    {2, 24, 400, true, true},
        {4, 32, 400, true, true},  {1, 24, 1000, false, true}, {2, 48, 400, false, true},
    };
    static struct full_store full;
    for (unsigned run = 0; run < ARRAY_COUNT(runs); run++) {
        sim_create(20 + run);
        full_boot(&full, runs[run].shards, runs[run].files, runs[run].limit, runs[run].value_bytes);
        full_fill(&full);
        print_message("%u keys of %zu bytes\n", full.count, runs[run].value_bytes);
        /* Overwrites gain nothing, and take nothing of what is for deletes. */
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(full_put(&full, full.order[i]), KVS_ERR_NO_SPACE);
        if (runs[run].shuffled)
            full_shuffle(&full);
        full_empty_and_fill_again(&full);
        store_stop(&full.fixture);
        sim_destroy();
    }
}

/* What is left of the segments that deletes were written in is for deletes, after a start, too. */
static void test_store__every_single_delete_succeeds_after_starts_of_a_full_store(void **state)
{
    (void)state;
    enum { FILES = 20, BETWEEN = 400, BOOTS = 6 };
    static struct full_store full;
    unsigned next = MANY_MAX;
    sim_create(30);
    full_boot(&full, 1, FILES, true, SMALL_BYTES);
    full_fill(&full);
    full_shuffle(&full);
    for (unsigned boot = 0; boot < BOOTS; boot++) {
        for (unsigned i = 0; i < BETWEEN; i++) {
            char key[32];
            segments_key(key, full.order[--full.count]);
            assert_true(store_remove_text(&full.fixture, key));
        }
        if (boot % 2 == 0)
            store_stop(&full.fixture);
        else
            store_crash(&full.fixture, SIM_DROP_ALL);
        store_boot(&full.fixture, &full.options);
        store_compact(&full.fixture, 1000);
        assert_int_equal(store_keys(&full.fixture), full.count);
        for (; full_put(&full, next) == KVS_ERR_OK; next++) {
            assert_true(full.count < MANY_MAX);
            full.order[full.count++] = next;
        }
    }
    full_empty_and_fill_again(&full);
    store_stop(&full.fixture);
    sim_destroy();
}

/* Nobody deletes anything. */
static void test_store__what_expires_makes_room_on_a_full_store(void **state)
{
    (void)state;
    static struct full_store full;
    for (unsigned shards = 1; shards <= 2; shards++) {
        sim_create(40 + shards);
        full_boot(&full, shards, 24, true, 30 * shards);
        full.expires_ms = expiry_now_ms(&full.fixture) + 3600000;
        full_fill(&full);
        unsigned before = full.count;
        uint64_t expires_ms = full.expires_ms;
        full.expires_ms = 0;
        expiry_advance_to(&full.fixture, expires_ms + 1);
        expiry_run_ms(&full.fixture, 20000);
        assert_int_equal(store_keys(&full.fixture), 0);
        full_fill(&full);
        assert_true(full.count > before / 10 * 9);
        store_stop(&full.fixture);
        sim_destroy();
    }
}

/* Compaction is at work on it, or there is nothing to gain: a put is not taken and refused by turns. */
static void test_store__puts_are_not_taken_and_refused_by_turns(void **state)
{
    (void)state;
    enum { FILES = 20, ROUNDS = 4000 };
    static struct full_store full;
    sim_create(50);
    full_boot(&full, 2, FILES, true, SMALL_BYTES);
    full_fill(&full);
    full_shuffle(&full);
    unsigned turns = 0, taken = 0, next = MANY_MAX;
    bool last = false;
    for (unsigned round = 0; round < ROUNDS; round++) {
        char key[32];
        unsigned at = (unsigned)sim_random(full.count);
        segments_key(key, full.order[at]);
        assert_true(store_remove_text(&full.fixture, key));
        full.order[at] = full.order[--full.count];
        bool took = full_put(&full, next) == KVS_ERR_OK;
        if (took)
            full.order[full.count++] = next++;
        taken += took;
        turns += took != last;
        last = took;
    }
    print_message("%u puts of %u taken, %u turns\n", taken, ROUNDS, turns);
    assert_true(turns <= ROUNDS / 50);
    store_stop(&full.fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__starts_on_a_full_disk_and_writes_in_the_segments_it_has),
        cmocka_unit_test(test_store__starts_when_both_disk_and_segments_are_full),
        cmocka_unit_test(test_store__deletes_go_on_after_a_start_on_a_full_disk),
        cmocka_unit_test(test_store__starts_with_more_shards_than_segments_on_a_full_disk),
        cmocka_unit_test(test_store__deletes_go_on_when_the_disk_is_full),
        cmocka_unit_test(test_store__every_single_delete_succeeds_on_a_full_store),
        cmocka_unit_test(test_store__every_single_delete_succeeds_after_starts_of_a_full_store),
        cmocka_unit_test(test_store__what_expires_makes_room_on_a_full_store),
        cmocka_unit_test(test_store__puts_are_not_taken_and_refused_by_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
