/*
 * test_backup.c - backups: what is in the copy, that store and copy live on side by side, and what becomes of either
 * when a step fails or the power does.
 */
#include "backup_fixture.h"

#include "base/diag.h"

#include <errno.h>

static struct backup_history history, copied;

static void change_some(struct store_fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        backup_change(fixture, &history);
}

static void begin(struct store_fixture *fixture, uint64_t seed, unsigned shard_count, bool links)
{
    (void)backup_new_store(fixture, &history, seed, shard_count, links);
    store_compact(fixture, 130);
}

/* ---- what is in it --------------------------------------------------------------------------------------------- */

/* Writes go on, one acknowledged after the other, on all shards, and compaction with them: the copy has all that was
 * acknowledged before it was asked for, and nothing without what was acknowledged before that. */
static void test_backup__holds_a_state_of_the_store_between_its_beginning_and_its_end(void **state)
{
    (void)state;
    uint64_t shared = 0, victims = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct store_fixture fixture, copy;
        begin(&fixture, seed, 1 + (unsigned)(seed % 3), seed % 4 != 0);
        change_some(&fixture, 300 + (unsigned)sim_random(1200));
        unsigned first = history.count;
        backup_ask_for(&fixture, "one");
        while (backup_state_of(&fixture).running)
            change_some(&fixture, 1);
        struct engine_backup_state end = backup_state_of(&fixture);
        assert_string_equal(end.text, "");
        assert_int_equal(end.error, KVS_ERR_OK);
        assert_string_equal(end.good_path, BACKUP_PATH);
        unsigned last = history.count;
        shared += end.good_bytes - end.good_copied_bytes;
        change_some(&fixture, 200);
        struct compact_stats compact;
        compact_stats(fixture.compactor, &compact);
        victims += compact.victims;
        if (seed % 2 == 0)
            store_stop(&fixture);
        else
            store_crash(&fixture, SIM_DROP_ALL);
        backup_expect_sound(BACKUP_PATH);
        backup_boot(&copy, BACKUP_PATH, 1 + (unsigned)(seed / 2 % 3));
        copied = history;
        backup_expect_prefix(&copy, &copied, first, last);
        store_stop(&copy);
        sim_destroy();
    }
    assert_true(shared > 0);
    assert_true(victims > 20);
}

/* Both write, and both are compacted: neither may touch what the other has. */
static void test_backup__store_and_copy_live_on_side_by_side(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct store_fixture fixture, copy;
        begin(&fixture, 100 + seed, 1 + (unsigned)(seed % 2), seed % 3 != 0);
        change_some(&fixture, 900);
        backup_make(&fixture, "one");
        for (unsigned round = 0; round < 3; round++) {
            backup_boot(&copy, BACKUP_PATH, 1 + (unsigned)sim_random(2));
            store_compact(&copy, 130);
            if (round == 0) {
                copied = history;
                backup_expect_prefix(&copy, &copied, history.count, history.count);
            }
            for (unsigned i = 0; i < 700; i++) {
                backup_change(&fixture, &history);
                backup_change(&copy, &copied);
            }
            backup_expect_now(&fixture, &history);
            backup_expect_now(&copy, &copied);
            if (round == 1) { /* the other one starts anew as well, on files that are shared still */
                store_stop(&copy);
                store_stop(&fixture);
                backup_expect_sound("/data");
                struct engine_options options = segments_scarce(1 + (unsigned)sim_random(3));
                store_boot(&fixture, &options);
                store_compact(&fixture, 130);
            } else {
                store_stop(&copy);
            }
            store_quiet();
            backup_expect_sound(BACKUP_PATH);
        }
        struct compact_stats compact;
        compact_stats(fixture.compactor, &compact);
        assert_true(compact.victims > 0);
        backup_expect_now(&fixture, &history);
        store_crash(&fixture, SIM_RANDOM);
        backup_boot(&copy, BACKUP_PATH, 1);
        backup_expect_now(&copy, &copied);
        struct engine_options options = segments_scarce(2);
        store_boot(&fixture, &options);
        backup_expect_now(&fixture, &history);
        store_stop(&copy);
        store_stop(&fixture);
        backup_expect_sound("/data");
        sim_destroy();
    }
}

/* Every key in turn is overwritten while the files are copied one by one, so that those that the copy has still to come
 * to lose all that is in them: they must stay as they are until then. */
static void test_backup__what_it_has_still_to_copy_is_not_used_again(void **state)
{
    (void)state;
    unsigned held = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct store_fixture fixture, copy;
        begin(&fixture, 200 + seed, 1, false);
        unsigned done = 0;
        while (done < 3 * BACKUP_TURN_KEYS)
            done = backup_put_turns(&fixture, done);
        unsigned first = done;
        backup_ask_for(&fixture, "one");
        while (backup_state_of(&fixture).running) {
            done = backup_put_turns(&fixture, done);
            held += !list_empty(&segments_keeper(&fixture)->held);
        }
        unsigned last = done;
        assert_string_equal(backup_state_of(&fixture).text, "");
        store_stop(&fixture);
        backup_expect_sound(BACKUP_PATH);
        backup_boot(&copy, BACKUP_PATH, 1);
        backup_expect_turns(&copy, first, last);
        store_stop(&copy);
        sim_destroy();
    }
    assert_true(held > 0);
}

static void test_backup__of_an_empty_store_is_an_empty_store(void **state)
{
    (void)state;
    struct store_fixture fixture, copy;
    begin(&fixture, 1, 2, true);
    backup_make(&fixture, "one");
    store_stop(&fixture);
    backup_expect_sound(BACKUP_PATH);
    backup_boot(&copy, BACKUP_PATH, 2);
    assert_int_equal(store_keys(&copy), 0);
    assert_int_equal(store_put_text(&copy, "a", "b"), KVS_ERR_OK);
    store_stop(&copy);
    sim_destroy();
}

int main(void)
{
    diag_set_level(DIAG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup__holds_a_state_of_the_store_between_its_beginning_and_its_end),
        cmocka_unit_test(test_backup__store_and_copy_live_on_side_by_side),
        cmocka_unit_test(test_backup__what_it_has_still_to_copy_is_not_used_again),
        cmocka_unit_test(test_backup__of_an_empty_store_is_an_empty_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
