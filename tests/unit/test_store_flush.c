/*
 * test_store_flush.c - all keys go at once: over crashes at every step, other numbers of shards, failed writes of the
 * superblock and the loss of one of its copies; what they took comes back; a backup holds what it had at its moment.
 */
#include "backup_fixture.h"
#include "engine/backup_internal.h"

#include <errno.h>

enum { KEYS = 60, BYTES = 9000, STEPS_MAX = 400 };

static struct store_fixture fixture;

#define SUPERBLOCK "/data/" SUPERBLOCK_NAME

/* ---- leading the shards, as a node does ------------------------------------------------------------------------ */

static uint64_t prepared_lsn;

static bool all_prepared(void *context)
{
    (void)context;
    prepared_lsn = 0;
    for (unsigned i = 0; i < fixture.shard_count; i++) {
        uint64_t lsn;
        enum kvs_err err = engine_flush_prepare(fixture.nodes[i].shard, &lsn);
        if (err == KVS_ERR_AGAIN) {
            engine_turn(fixture.nodes[i].shard);
            return false;
        }
        assert_int_equal(err, KVS_ERR_OK);
        prepared_lsn = lsn > prepared_lsn ? lsn : prepared_lsn;
    }
    return true;
}

static enum kvs_err state(void)
{
    const char *text;
    enum kvs_err err = engine_flush_state(fixture.nodes[0].shard, &text);
    assert_int_equal(err == KVS_ERR_FAILED, text[0] != '\0');
    return err;
}

static bool written(void *context)
{
    (void)context;
    return state() != KVS_ERR_AGAIN;
}

static void end_all(void)
{
    for (unsigned i = 0; i < fixture.shard_count; i++)
        assert_int_equal(engine_flush_end(fixture.nodes[i].shard), KVS_ERR_OK);
}

static enum kvs_err flush(void)
{
    assert_true(sim_run_until(all_prepared, NULL, 100000));
    engine_flush_begin(fixture.nodes[0].shard, prepared_lsn);
    assert_true(sim_run_until(written, NULL, 100000));
    end_all();
    return state();
}

static unsigned present(unsigned first, unsigned end, unsigned version, size_t bytes)
{
    unsigned count = 0;
    for (unsigned i = first; i < end; i++) {
        char key[32];
        segments_key(key, i);
        char *got = store_get_text(&fixture, key);
        if (got != NULL) {
            count++;
            segments_expect(&fixture, i, version, bytes);
        }
        free(got);
    }
    return count;
}

static struct engine_stats stats(void)
{
    struct engine_stats out;
    engine_stats(fixture.engine, &out);
    return out;
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

/* Most are on disk only, some have been deleted or overwritten, and an earlier boot had another number of shards. */
static void test_flush__keys_are_gone_and_later_ones_stay(void **ignored)
{
    (void)ignored;
    for (unsigned shards = 1; shards <= 3; shards++) {
        struct engine_options options = segments_create(&fixture, shards, shards);
        segments_put_range(&fixture, 0, KEYS, 1, BYTES);
        store_stop(&fixture);
        options = segments_scarce(4 - shards);
        store_boot(&fixture, &options);
        segments_put_range(&fixture, 0, 20, 2, BYTES);
        for (unsigned i = 10; i < 15; i++)
            assert_true(segments_remove(&fixture, i));
        assert_int_equal(flush(), KVS_ERR_OK);
        assert_int_equal(store_keys(&fixture), 0);
        assert_int_equal(present(0, KEYS, 0, 0), 0);
        segments_put_range(&fixture, 5, 25, 3, 500);
        assert_false(segments_remove(&fixture, 30));
        assert_true(segments_remove(&fixture, 24));
        for (unsigned boot = 0; boot < 4; boot++) {
            assert_int_equal(present(0, 5, 0, 0), 0);
            assert_int_equal(present(5, 24, 3, 500), 19);
            assert_int_equal(present(24, KEYS, 0, 0), 0);
            assert_int_equal(store_keys(&fixture), 19);
            if (boot % 2 == 0)
                store_crash(&fixture, SIM_DROP_ALL);
            else
                store_stop(&fixture);
            check_expect_sound(19);
            if (boot == 1)
                assert_true(store_forget_snapshot() && store_forget_runs() > 0);
            options = segments_scarce(1 + boot % 3);
            store_boot(&fixture, &options);
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_flush__again_and_again(void **ignored)
{
    (void)ignored;
    struct engine_options options = segments_create(&fixture, 5, 2);
    assert_int_equal(flush(), KVS_ERR_OK); /* of a store that has had nothing */
    for (unsigned round = 1; round < 8; round++) {
        segments_put_range(&fixture, 0, 2 * round, round, 3000);
        assert_int_equal(flush(), KVS_ERR_OK);
        if (round % 3 == 0)
            assert_int_equal(flush(), KVS_ERR_OK); /* of nothing */
        assert_int_equal(present(0, 2 * round, 0, 0), 0);
        segments_put(&fixture, 7, round, 100);
        if (round % 2 == 0) {
            store_crash(&fixture, SIM_DROP_ALL);
            store_boot(&fixture, &options);
        }
        segments_expect(&fixture, 7, round, 100);
        assert_int_equal(store_keys(&fixture), 1);
    }
    store_stop(&fixture);
    check_expect_sound(1);
    sim_destroy();
}

/* ---- order ----------------------------------------------------------------------------------------------------- */

static bool held;

static void on_held(struct engine_op *op)
{
    (void)op;
    held = true;
}

static void test_flush__waits_for_what_was_begun(void **ignored)
{
    (void)ignored;
    (void)segments_create(&fixture, 6, 1);
    segments_put_range(&fixture, 0, 3, 1, 100);
    struct engine_op op = {.request = store_request(&fixture, ENGINE_HOLD, slice_text("key:1"), slice_make(NULL, 0)),
                           .done = on_held};
    engine_submit(fixture.nodes[0].shard, &op);
    store_quiet();
    assert_true(held);
    uint64_t lsn;
    assert_int_equal(engine_flush_prepare(fixture.nodes[0].shard, &lsn), KVS_ERR_AGAIN);
    op.request.action = ENGINE_PUT;
    op.request.value = slice_text("changed");
    engine_conclude(&op);
    /* It is appended, and not durable. */
    assert_int_equal(engine_flush_prepare(fixture.nodes[0].shard, &lsn), KVS_ERR_AGAIN);
    assert_int_equal(flush(), KVS_ERR_OK);
    engine_op_release(&op);
    assert_int_equal(present(0, 3, 0, 0), 0);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- crashes --------------------------------------------------------------------------------------------------- */

/* Power is lost after so many steps. Returns whether the flush had come to its end before. */
static bool crash_after(unsigned steps, enum sim_crash_mode mode, unsigned *left)
{
    struct engine_options options = segments_create(&fixture, 100 + steps, 2);
    segments_put_range(&fixture, 0, KEYS, 1, 2000);
    assert_true(sim_run_until(all_prepared, NULL, 100000));
    engine_flush_begin(fixture.nodes[0].shard, prepared_lsn);
    while (steps > 0 && state() == KVS_ERR_AGAIN && sim_step())
        steps--;
    const bool over = state() == KVS_ERR_OK;
    if (over) {
        end_all();
        segments_put(&fixture, 3, 2, 2000); /* durable at once */
    }
    store_crash(&fixture, mode);
    options.shard_count = 1 + steps % 3;
    options.memory_bytes = segments_scarce(options.shard_count).memory_bytes;
    store_boot(&fixture, &options);
    *left = over ? present(0, 3, 0, 0) + present(4, KEYS, 0, 0) : present(0, KEYS, 1, 2000);
    if (over)
        segments_expect(&fixture, 3, 2, 2000);
    store_stop(&fixture);
    check_expect_sound(*left + over);
    sim_destroy();
    return over;
}

static void test_flush__a_power_loss_leaves_all_or_none(void **ignored)
{
    (void)ignored;
    static const enum sim_crash_mode modes[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM};
    unsigned none = 0, all = 0;
    for (unsigned m = 0; m < ARRAY_COUNT(modes); m++) {
        bool over = false;
        for (unsigned steps = 0; !over; steps++) {
            unsigned left;
            assert_true(steps < STEPS_MAX);
            over = crash_after(steps, modes[m], &left);
            assert_true(left == 0 || (left == KEYS && !over));
            none += left == 0 && !over;
            all += left == KEYS;
        }
    }
    assert_true(none > 0 && all > 0);
}

/* ---- the superblock -------------------------------------------------------------------------------------------- */

static void flip_copy(unsigned copy)
{
    sim_file_flip(SUPERBLOCK, ((uint64_t)copy * KVS_BLOCK_BYTES + 60) * 8);
}

static void test_flush__either_copy_of_the_superblock_tells(void **ignored)
{
    (void)ignored;
    for (unsigned copy = 0; copy < 2; copy++) {
        struct engine_options options = segments_create(&fixture, 20 + copy, 2);
        segments_put_range(&fixture, 0, KEYS, 1, 500);
        assert_int_equal(flush(), KVS_ERR_OK);
        store_crash(&fixture, SIM_DROP_ALL);
        flip_copy(copy);
        store_boot(&fixture, &options);
        assert_int_equal(present(0, KEYS, 0, 0), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* The nth write or sync from the beginning of the flush. Returns whether it failed. */
static bool fail_step(enum ring_kind kind, unsigned nth)
{
    struct engine_options options = segments_create(&fixture, 30 + nth, 2);
    segments_put_range(&fixture, 0, KEYS, 1, 500);
    assert_true(sim_run_until(all_prepared, NULL, 100000));
    sim_fail(kind, nth, EIO);
    engine_flush_begin(fixture.nodes[1].shard, prepared_lsn);
    assert_true(sim_run_until(written, NULL, 100000));
    sim_fail_none();
    const bool failed = state() != KVS_ERR_OK;
    end_all();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(engine_failed(fixture.nodes[i].shard), failed);
        if (failed)
            assert_non_null(strstr(engine_failure_text(fixture.nodes[i].shard), SUPERBLOCK_NAME));
    }
    assert_int_equal(segments_try_put(&fixture, 0, 2, 500), failed ? KVS_ERR_FAILED : KVS_ERR_OK);
    if (failed) {
        assert_int_equal(present(1, KEYS, 1, 500), KEYS - 1);
        uint64_t lsn;
        assert_int_equal(engine_flush_prepare(fixture.nodes[0].shard, &lsn), KVS_ERR_FAILED);
    }
    store_crash(&fixture, SIM_RANDOM);
    store_boot(&fixture, &options);
    const unsigned left = present(1, KEYS, 1, 500);
    assert_true(left == 0 || (failed && left == KEYS - 1));
    store_stop(&fixture);
    sim_destroy();
    return failed;
}

/* Of the first copy. The second one's failure costs nothing. */
static void test_flush__failed_write_stops_all_shards(void **ignored)
{
    (void)ignored;
    assert_true(fail_step(RING_KIND_WRITE, 1));
    assert_false(fail_step(RING_KIND_WRITE, 2));
    assert_true(fail_step(RING_KIND_SYNC, 1));
    assert_false(fail_step(RING_KIND_SYNC, 2));
    assert_true(fail_step(RING_KIND_OPEN, 1));
}

/* ---- space ----------------------------------------------------------------------------------------------------- */

static void test_flush__space_comes_back(void **ignored)
{
    (void)ignored;
    struct engine_options options = segments_create(&fixture, 40, 2);
    store_compact(&fixture, 200);
    for (unsigned i = 0; i < 4; i++) {
        segments_put_range(&fixture, 0, 200, i, BYTES);
        for (unsigned key = i; key < 200; key += 20)
            (void)segments_remove(&fixture, key);
    }
    const uint64_t before = stats().segments - stats().segments_free;
    assert_true(stats().live_bytes > 180ull * BYTES && before > 8);
    assert_int_equal(flush(), KVS_ERR_OK);
    segments_put_range(&fixture, 0, 10, 9, 100); /* while the index that was left is walked */
    segments_run_ms(&fixture, 5000);
    assert_int_equal(store_keys(&fixture), 10);
    assert_true(stats().live_bytes < 8192);
    /* What is left: of each log what it writes in, its newest sealed one and a spare; and one to compact into. */
    const uint64_t after = stats().segments - stats().segments_free;
    if (after > 3 * 2 + 1)
        fail_msg("%u segments are in use, of %u", (unsigned)after, (unsigned)before);
    assert_int_equal(present(0, 10, 9, 100), 10);
    store_stop(&fixture);
    check_expect_sound(10);
    store_boot(&fixture, &options);
    assert_int_equal(present(0, 10, 9, 100), 10);
    store_stop(&fixture);
    sim_destroy();
}

static void test_flush__files_of_large_values_go(void **ignored)
{
    (void)ignored;
    sim_create(41);
    struct engine_options options = store_options(2);
    options.large_bytes_min = 10000;
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, 6, 1, 40000);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 4, 12, 2, 40000);
    store_quiet();
    assert_int_equal(stats().large_values, 12);
    assert_int_equal(flush(), KVS_ERR_OK);
    segments_put_range(&fixture, 10, 14, 3, 50000);
    store_quiet();
    assert_int_equal(stats().large_values, 4);
    assert_int_equal(present(0, 10, 0, 0), 0);
    assert_int_equal(present(10, 14, 3, 50000), 4);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    assert_int_equal(present(10, 14, 3, 50000), 4);
    store_stop(&fixture);
    check_expect_sound(4);
    sim_destroy();
}

static void test_flush__what_expires_leaves_no_count(void **ignored)
{
    (void)ignored;
    (void)segments_create(&fixture, 42, 2);
    for (unsigned i = 0; i < 40; i++) {
        char key[32];
        segments_key(key, i);
        struct store_waiting waiting;
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_text("v"));
        request.expires_ms = SIM_WALL_BEGIN_MS + 60000;
        store_execute(&fixture, &waiting, &request);
        free(waiting.value);
    }
    assert_int_equal(stats().expires, 40);
    assert_int_equal(flush(), KVS_ERR_OK);
    assert_int_equal(stats().expires, 0);
    segments_put(&fixture, 3, 1, 100);
    segments_run_ms(&fixture, 90000);
    assert_int_equal(stats().expired_keys, 0);
    assert_int_equal(store_keys(&fixture), 1);
    segments_expect(&fixture, 3, 1, 100);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- backups --------------------------------------------------------------------------------------------------- */

static bool backup_over(void *context)
{
    (void)context;
    struct engine_backup_state backup;
    engine_backup_state(fixture.engine, &backup);
    return backup.ended > 0;
}

/* The flush comes so many steps after the backup was asked for. Returns whether the backup holds the keys. */
static bool backup_and_flush(unsigned steps, bool *early)
{
    struct engine_options options = segments_create(&fixture, 50, 2);
    segments_put_range(&fixture, 0, KEYS, 1, BYTES);
    assert_int_equal(engine_backup_begin(fixture.engine, "one", fixture.main_ring), KVS_ERR_OK);
    while (steps > 0 && !backup_over(NULL) && sim_step())
        steps--;
    *early = !backup_over(NULL);
    const bool moment_passed = !*early || segments_keeper(&fixture)->backup->stage > BACKUP_MOMENT;
    assert_int_equal(flush(), KVS_ERR_OK);
    segments_put_range(&fixture, 0, 4, 2, BYTES);
    assert_true(sim_run_until(backup_over, NULL, 100000));
    struct engine_backup_state backup;
    engine_backup_state(fixture.engine, &backup);
    assert_int_equal(backup.error, KVS_ERR_OK);
    store_stop(&fixture);
    options.data_dir = BACKUP_PATH;
    store_boot(&fixture, &options);
    const unsigned first = present(0, 4, 1, BYTES), rest = present(4, KEYS, 1, BYTES);
    assert_true((first == 4 && rest == KEYS - 4) || (first == 0 && rest == 0 && !moment_passed));
    store_stop(&fixture);
    sim_destroy();
    return rest > 0;
}

static void test_flush__backup_holds_its_moment(void **ignored)
{
    (void)ignored;
    unsigned before = 0, after = 0;
    bool early = true;
    for (unsigned steps = 0; early; steps += 2) {
        if (backup_and_flush(steps, &early))
            before++;
        else
            after++;
    }
    assert_true(before > 3);
    assert_true(after > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flush__keys_are_gone_and_later_ones_stay),
        cmocka_unit_test(test_flush__again_and_again),
        cmocka_unit_test(test_flush__waits_for_what_was_begun),
        cmocka_unit_test(test_flush__a_power_loss_leaves_all_or_none),
        cmocka_unit_test(test_flush__either_copy_of_the_superblock_tells),
        cmocka_unit_test(test_flush__failed_write_stops_all_shards),
        cmocka_unit_test(test_flush__space_comes_back),
        cmocka_unit_test(test_flush__files_of_large_values_go),
        cmocka_unit_test(test_flush__what_expires_leaves_no_count),
        cmocka_unit_test(test_flush__backup_holds_its_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
