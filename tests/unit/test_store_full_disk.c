/*
 * test_store_full_disk.c - when no segment can be made any more: what is there is read and deleted, a start is a start,
 * and writes are refused until there is room again.
 */
#include "engine/store.h"
#include "store_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__starts_on_a_full_disk_and_writes_in_the_segments_it_has),
        cmocka_unit_test(test_store__starts_when_both_disk_and_segments_are_full),
        cmocka_unit_test(test_store__deletes_go_on_after_a_start_on_a_full_disk),
        cmocka_unit_test(test_store__starts_with_more_shards_than_segments_on_a_full_disk),
        cmocka_unit_test(test_store__deletes_go_on_when_the_disk_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
