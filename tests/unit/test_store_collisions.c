/*
 * test_store_collisions.c - the store with a hash of eight bits (and the shard's bits): every look-up meets many keys
 * with the same fingerprint and the same hash. All of them are kept, on every path. Linked with --wrap=hash_key.
 */
#include "store_fixture.h"

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    return __real_hash_key(key, seed) & 0xe000000000000037ull;
}

enum { KEYS = 500, PAD = 480 };

static void model_key(char key[32], unsigned i)
{
    snprintf(key, 32, "key:%06u", i);
}

static void model_value(char value[600], unsigned i, unsigned version)
{
    int used = snprintf(value, 600, "%u/%u ", i, version);
    memset(value + used, 'x', PAD);
    value[used + PAD] = '\0';
}

static void check_all(struct store_fixture *fixture, const unsigned versions[KEYS])
{
    uint64_t live = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        char key[32], value[600];
        model_key(key, i);
        model_value(value, i, versions[i]);
        store_expect(fixture, key, versions[i] == 0 ? NULL : value);
        live += versions[i] != 0;
    }
    while (sim_step())
        ;
    assert_int_equal(store_keys(fixture), live);
}

static void churn(uint64_t seed, bool wait)
{
    unsigned versions[KEYS] = {0};
    sim_create(seed);
    struct engine_options options = store_options(2);
    options.memory_bytes = 2ull * 6 * 256 * 1024;
    for (unsigned boot = 0; boot < 4; boot++) {
        struct store_fixture fixture;
        options.shard_count = 1 + boot % 2;
        options.memory_bytes = (uint64_t)options.shard_count * 6 * 256 * 1024;
        store_boot(&fixture, &options);
        check_all(&fixture, versions);
        for (unsigned step = 0; step < 1500; step++) {
            unsigned i = (unsigned)sim_random(KEYS);
            char key[32], value[600];
            model_key(key, i);
            if (sim_random(4) == 0) {
                assert_int_equal(store_remove_text(&fixture, key), versions[i] != 0);
                versions[i] = 0;
            } else {
                versions[i] = boot * 10000 + step + 1;
                model_value(value, i, versions[i]);
                assert_int_equal(store_put_text(&fixture, key, value), KVS_ERR_OK);
            }
            if (wait && sim_random(16) == 0)
                while (sim_step())
                    ;
        }
        check_all(&fixture, versions);
        if (boot % 2 == 0)
            store_crash(&fixture, SIM_RANDOM);
        else
            store_stop(&fixture);
    }
    sim_destroy();
}

static void test_store__colliding_keys_are_all_kept_through_churn_and_crashes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        churn(seed, seed % 2 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__colliding_keys_are_all_kept_through_churn_and_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
