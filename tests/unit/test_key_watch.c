/*
 * test_key_watch.c - the tree of watches, held against a list of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine_internal.h"

#include <stdlib.h>

enum { WATCHES = 300, ROUNDS = 200000 };

/* Watches come and go, some with the same hash, and keys are put: every watch knows of its own, and of no other. */
static void test_watch__knows_of_its_own(void **state)
{
    (void)state;
    static struct engine_watch watches[WATCHES];
    static bool came[WATCHES];
    struct engine_shard shard = {0};
    unsigned linked = 0, most = 0;
    uint64_t random = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const unsigned i = (unsigned)(random >> 33) % WATCHES;
        const bool filling = round / 1000 % 2 == 0; /* it grows, and shrinks, in turns */
        const uint64_t hash = (random >> 20) % 100 * 0x9e3779b97f4a7c15u;
        if ((random >> 60) % 4 == 0) {
            const uint64_t changes = engine_changes(&shard);
            engine_changed(&shard, hash, (random >> 58) % 4 != 0);
            assert_int_equal(engine_changes(&shard), changes + 1);
            for (unsigned j = 0; j < WATCHES; j++)
                came[j] = came[j] || (watches[j].linked && watches[j].hash == hash && (random >> 58) % 4 != 0);
        } else if (!watches[i].linked && filling) {
            engine_watch(&shard, &watches[i], hash);
            came[i] = false;
            linked++;
        } else if (watches[i].linked && !filling) {
            engine_unwatch(&shard, &watches[i]);
            linked--;
        }
        most = linked > most ? linked : most;
        assert_int_equal(watches[i].came, came[i]);
        assert_true((shard.watches == NULL) == (linked == 0));
    }
    for (unsigned i = 0; i < WATCHES; i++) {
        assert_int_equal(watches[i].came, came[i]);
        if (watches[i].linked)
            engine_unwatch(&shard, &watches[i]);
    }
    assert_null(shard.watches);
    assert_true(most > WATCHES / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch__knows_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
