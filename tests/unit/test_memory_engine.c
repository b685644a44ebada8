/*
 * test_memory_engine.c - the engine `memory`, and the slab it keeps its records in.
 */
#include "expiry_fixture.h"

#include "engine/memory_slab.h"

static struct engine_options memory_options(unsigned shard_count)
{
    struct engine_options options = store_options(shard_count);
    options.kind = "memory";
    options.memory_bytes = (uint64_t)shard_count * 4 * 1024 * 1024;
    return options;
}

static void test_memory__put_get_remove_without_gates(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = memory_options(2);
    store_boot(&fixture, &options);
    assert_int_equal(store_put_text(&fixture, "a", "1"), KVS_ERR_OK);
    assert_int_equal(store_put_text(&fixture, "a", "a longer value than before"), KVS_ERR_OK);
    assert_int_equal(store_put_text(&fixture, "b", ""), KVS_ERR_OK);
    store_expect(&fixture, "a", "a longer value than before");
    store_expect(&fixture, "b", "");
    assert_int_equal(store_keys(&fixture), 2);
    assert_true(store_remove_text(&fixture, "a"));
    assert_false(store_remove_text(&fixture, "a"));
    store_expect(&fixture, "a", NULL);
    assert_int_equal(store_keys(&fixture), 1);
    assert_string_equal(engine_durability_method(fixture.engine), "none");
    struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text("c"), slice_text("3"));
    struct engine_shard *owner = fixture.nodes[store_owner(&fixture, &request)].shard;
    struct engine_result result;
    engine_section_begin(owner);
    assert_int_equal(engine_try(owner, &request, &result), ENGINE_DONE);
    engine_section_end(owner);
    assert_int_equal(result.gate, 0);
    store_stop(&fixture);
    sim_destroy();
}

static void test_memory__nothing_is_there_after_a_restart(void **state)
{
    (void)state;
    sim_create(2);
    struct store_fixture fixture;
    struct engine_options options = memory_options(1);
    store_boot(&fixture, &options);
    assert_int_equal(store_put_text(&fixture, "a", "1"), KVS_ERR_OK);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    store_expect(&fixture, "a", NULL);
    assert_int_equal(store_keys(&fixture), 0);
    store_stop(&fixture);
    options.kind = "kvs";
    assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_MISMATCH);
    sim_destroy();
}

static void test_memory__other_shards_read_without_the_owner(void **state)
{
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = memory_options(2);
    store_boot(&fixture, &options);
    assert_int_equal(store_put_text(&fixture, "k", "v"), KVS_ERR_OK);
    struct engine_request get = store_request(&fixture, ENGINE_GET, slice_text("k"), slice_make(NULL, 0));
    unsigned owner_id = store_owner(&fixture, &get);
    struct engine_shard *other = fixture.nodes[1 - owner_id].shard;
    struct engine_result result;
    engine_section_begin(other);
    engine_prefetch(other, owner_id, get.hash, ENGINE_PREFETCH_INDEX);
    engine_prefetch(other, owner_id, get.hash, ENGINE_PREFETCH_RECORD);
    assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_DONE);
    assert_true(result.found && slice_equal(result.value, slice_text("v")));
    engine_section_end(other);
    store_stop(&fixture);
    sim_destroy();
}

static void test_memory__a_full_budget_refuses_and_a_remove_makes_room(void **state)
{
    (void)state;
    sim_create(4);
    struct store_fixture fixture;
    struct engine_options options = memory_options(1);
    store_boot(&fixture, &options);
    static char value[4000];
    memset(value, 'v', sizeof value - 1);
    char key[32];
    unsigned written = 0;
    enum kvs_err err = KVS_ERR_OK;
    while (written < 5000) {
        snprintf(key, sizeof key, "key %u", written);
        err = store_put_text(&fixture, key, value);
        if (err != KVS_ERR_OK)
            break;
        written++;
    }
    assert_int_equal(err, KVS_ERR_NO_MEMORY);
    assert_in_range(written, 500, 1000);
    for (unsigned i = 0; i < written; i++) {
        snprintf(key, sizeof key, "key %u", i);
        store_expect(&fixture, key, value);
    }
    assert_true(store_remove_text(&fixture, "key 7"));
    engine_turn(fixture.nodes[0].shard); /* the record is freed when no reader can see it any more */
    engine_turn(fixture.nodes[0].shard);
    engine_turn(fixture.nodes[0].shard);
    assert_int_equal(store_put_text(&fixture, "key x", value), KVS_ERR_OK);
    store_expect(&fixture, "key x", value);
    store_stop(&fixture);
    sim_destroy();
}

static void test_memory__keys_expire_to_the_millisecond_and_leave(void **state)
{
    (void)state;
    enum { KEYS = 1000 };
    sim_create(5);
    struct store_fixture fixture;
    struct engine_options options = memory_options(2);
    store_boot(&fixture, &options);
    uint64_t expires_ms = expiry_now_ms(&fixture) + 1000;
    for (unsigned i = 0; i < KEYS; i++)
        expiry_put_key(&fixture, i, 1, 20, i % 4 == 0 ? 0 : expires_ms + (i % 4 == 3 ? 5000 : 0));
    (void)expiry_put_text(&fixture, "twice", "1", expires_ms);
    assert_true(expiry_put_text(&fixture, "twice", "2", 0));
    assert_true(expiry_put_text(&fixture, "twice", "3", expires_ms));
    assert_int_equal(expiry_stats(&fixture).expires, KEYS / 4 * 3 + 1);
    expiry_advance_to(&fixture, expires_ms - 1);
    assert_int_equal(expiry_try_get(&fixture, "twice").expires_ms, expires_ms);
    struct engine_request get = store_request(&fixture, ENGINE_GET, slice_text("twice"), slice_make(NULL, 0));
    unsigned owner_id = store_owner(&fixture, &get);
    for (unsigned late = 0; late <= 1; late++) {
        struct engine_shard *other = fixture.nodes[1 - owner_id].shard;
        struct engine_result result;
        expiry_advance_to(&fixture, expires_ms - 1 + late);
        engine_section_begin(other);
        assert_int_equal(engine_try_get(other, owner_id, &get, &result), ENGINE_DONE);
        assert_int_equal(result.found, !late);
        engine_section_end(other);
    }
    assert_false(expiry_put_text(&fixture, "twice", "4", expires_ms)); /* a delete of nothing */
    assert_false(store_remove_text(&fixture, "key:1"));
    expiry_run_ms(&fixture, 300);
    assert_int_equal(store_keys(&fixture), KEYS / 2);
    assert_int_equal(expiry_stats(&fixture).expires, KEYS / 4);
    assert_int_equal(expiry_stats(&fixture).expired_keys, KEYS / 2 + 1);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 4 == 0 || i % 4 == 3)
            segments_expect(&fixture, i, 1, 20);
        else
            segments_expect_none(&fixture, i);
    }
    assert_true(expiry_put_text(&fixture, "key:0", "gone", 1));
    segments_expect_none(&fixture, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* Pieces do not overlap, whatever their sizes, and freed ones are used again. */
static void test_slab__pieces_keep_their_bytes(void **state)
{
    (void)state;
    enum { PIECES = 2000 };
    static struct {
        uint64_t piece, bytes;
    } taken[PIECES];
    struct memory_slab slab;
    assert_int_equal(memory_slab_init(&slab, 64u * 1024 * 1024), KVS_ERR_OK);
    uint64_t random = 1;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < PIECES; i++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            taken[i].bytes = 1 + (random >> 33) % (i % 10 == 0 ? 40000 : 700);
            assert_true(memory_slab_take(&slab, taken[i].bytes, &taken[i].piece));
            memset(memory_slab_at(&slab, taken[i].piece), (int)(i % 251), taken[i].bytes);
        }
        for (unsigned i = 0; i < PIECES; i++) {
            const uint8_t *bytes = memory_slab_at(&slab, taken[i].piece);
            for (uint64_t b = 0; b < taken[i].bytes; b++)
                assert_int_equal(bytes[b], i % 251);
        }
        for (unsigned i = 0; i < PIECES; i++)
            memory_slab_give(&slab, taken[i].piece, taken[i].bytes);
    }
    /* Three rounds of about 5 MB: used over again, give or take the sizes that chance has dealt. */
    assert_true(atomic_load(&slab.bytes_used) < 12u * 1024 * 1024);
    memory_slab_deinit(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory__put_get_remove_without_gates),
        cmocka_unit_test(test_memory__nothing_is_there_after_a_restart),
        cmocka_unit_test(test_memory__other_shards_read_without_the_owner),
        cmocka_unit_test(test_memory__a_full_budget_refuses_and_a_remove_makes_room),
        cmocka_unit_test(test_memory__keys_expire_to_the_millisecond_and_leave),
        cmocka_unit_test(test_slab__pieces_keep_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
