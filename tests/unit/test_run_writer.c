/*
 * test_run_writer.c - runs of all sizes, and what is left of one that was not finished: by a crash, a fault, or because
 * it was given up.
 */
#include "run_fixture.h"

#include <errno.h>

static void test_run_writer__what_is_written_is_read_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        0,    1,    2,    100,   RUN_BLOCK_ENTRIES - 1,   RUN_BLOCK_ENTRIES, RUN_BLOCK_ENTRIES + 1,
        5000, 6544, 6545, 30000, 20ul * RUN_BLOCK_ENTRIES};
    static const uint32_t segments[] = {0, 1, RUN_BLOCK_SEGMENTS, 14000};
    struct run_machine machine;
    machine_create(&machine, 1);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct run_entry *entries = entries_make(0, sizes[i], 1);
        const uint32_t covered = segments[i % ARRAY_COUNT(segments)];
        run_make(&machine, i, entries, sizes[i], covered);
        run_expect(&machine, i, entries, sizes[i]);

        struct run *run = run_must_open(&machine, i);
        uint64_t deletes = 0;
        for (size_t j = 0; j < sizes[i]; j++)
            deletes += run_entry_is_delete(&entries[j]);
        assert_int_equal(run->delete_count, deletes);
        assert_int_equal(run->segment_count, covered);
        for (uint32_t j = 0; j < covered; j++) {
            const struct run_segment *segment = run_segment_find(run, 3 * j);
            assert_non_null(segment);
            assert_int_equal(segment->number, 3 * j);
            assert_true(segment->uid == run_mix(j));
            assert_int_equal(segment->puts, j);
            assert_int_equal(segment->deletes, j + 1);
            assert_int_equal(segment->record_bytes, j + 2);
            assert_null(run_segment_find(run, 3 * j + 1));
        }
        assert_null(run_segment_find(run, UINT32_MAX));
        run_close(run, machine.ring);
        free(entries);
    }
    sim_destroy();
}

static void test_run_writer__tells_how_large_the_file_becomes(void **state)
{
    (void)state;
    struct run_machine machine;
    machine_create(&machine, 2);
    struct run_entry *entries = entries_make(0, 7000, 1);
    struct run_writer *writer = writer_make(&machine, 12);
    assert_int_equal(writer_run(&machine, writer, entries, 7000, 10), KVS_ERR_OK);
    const uint64_t bytes = run_writer_bytes(writer);
    run_writer_close(writer, machine.ring);
    sim_crash(SIM_DROP_ALL);
    assert_true(sim_file_exists("/data/000000000012.run"));
    assert_false(sim_file_exists("/data/000000000012.run.new"));
    assert_int_equal(sim_file_size("/data/000000000012.run"), bytes);
    free(entries);
    sim_destroy();
}

/* Memory is bounded: a writer whose writes do not get on takes no more. */
static void test_run_writer__takes_no_more_than_its_windows_hold(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct run_machine machine;
    machine_create(&machine, 3);
    struct run_entry *entries = entries_make(0, COUNT, 1);
    struct run_writer *writer = writer_make(&machine, 1);
    assert_int_equal(run_writer_put(writer, entries, 1), 0); /* the file is not open */
    while (run_writer_put(writer, entries, 1) == 0)
        ring_turn(machine.ring, -1);
    size_t taken = 1;
    for (size_t some = 1; some > 0; taken += some)
        some = run_writer_put(writer, entries + taken, COUNT - taken);
    assert_int_equal(taken, 16 * RUN_BLOCK_ENTRIES);
    run_writer_abort(writer);
    while (run_writer_state(writer) == KVS_ERR_AGAIN)
        ring_turn(machine.ring, -1);
    run_writer_close(writer, machine.ring);
    free(entries);
    sim_destroy();
}

static void test_run_writer__does_not_take_over_an_older_file(void **state)
{
    (void)state;
    struct run_machine machine;
    machine_create(&machine, 4);
    struct run_entry *entries = entries_make(0, 10, 1);
    uint8_t old[100000] = {1};
    sim_file_put("/data/000000000001.run.new", old, sizeof old);
    struct run_writer *writer = writer_make(&machine, 1);
    assert_int_equal(writer_run(&machine, writer, entries, 10, 1), KVS_ERR_EXISTS);
    assert_non_null(strstr(run_writer_failure_text(writer), "/data/000000000001.run"));
    run_writer_close(writer, machine.ring);
    free(entries);
    sim_destroy();
}

/* Turns the machine `turns` times while the run is written; whether it was done by then. */
static bool write_until(struct run_machine *machine, struct run_writer *writer, const struct run_entry *entries,
                        size_t count, unsigned turns)
{
    const struct run_segment covered = {.number = 1};
    bool finished = false;
    for (size_t done = 0; turns > 0 && run_writer_state(writer) == KVS_ERR_AGAIN; turns--) {
        done += run_writer_put(writer, entries + done, done < count ? count - done : 0);
        if (done == count && !finished) {
            run_writer_finish(writer, &covered, 1);
            finished = true;
        }
        ring_turn(machine->ring, -1);
    }
    return run_writer_state(writer) == KVS_ERR_OK;
}

static void test_run_writer__a_crash_leaves_all_or_nothing(void **state)
{
    (void)state;
    enum { COUNT = 40000 };
    struct run_entry *entries = entries_make(0, COUNT, 1);
    unsigned there = 0, missing = 0;
    for (unsigned i = 0; i < 400; i++) {
        struct run_machine machine;
        machine_create(&machine, i);
        struct run_writer *writer = writer_make(&machine, 9);
        const bool done = write_until(&machine, writer, entries, COUNT, i / 8);
        const enum sim_crash_mode modes[] = {SIM_RANDOM, SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM};
        sim_crash(modes[i % 4]);
        run_writer_close(writer, machine.ring);
        const bool exists = sim_file_exists("/data/000000000009.run");
        assert_true(exists || !done);
        machine_boot(&machine);
        if (exists)
            run_expect(&machine, 9, entries, COUNT);
        there += exists;
        missing += !exists;
        sim_destroy();
    }
    assert_true(there > 20 && missing > 20);
    free(entries);
}

static void no_run_is_there(void *context, const char *path)
{
    (void)context;
    if (strstr(path, ".run") != NULL)
        fail_msg("%s is left", path);
}

static void test_run_writer__a_fault_leaves_nothing(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct run_entry *entries = entries_make(0, COUNT, 1);
    unsigned failures = 0;
    for (unsigned nth = 1; nth < 100; nth++) {
        struct run_machine machine;
        machine_create(&machine, nth);
        sim_fail(RING_KIND_NONE, nth, nth % 2 == 0 ? ENOSPC : EIO);
        struct run_writer *writer = writer_make(&machine, 9);
        const enum kvs_err err = writer_run(&machine, writer, entries, COUNT, 1);
        sim_fail_none();
        if (err == KVS_ERR_OK) {
            run_writer_close(writer, machine.ring);
            run_expect(&machine, 9, entries, COUNT);
            sim_destroy();
            break;
        }
        failures++;
        assert_int_equal(err, nth % 2 == 0 ? KVS_ERR_NO_SPACE : KVS_ERR_IO);
        assert_non_null(strstr(run_writer_failure_text(writer), "/data/000000000009.run: "));
        run_writer_close(writer, machine.ring);
        sim_file_each(no_run_is_there, NULL);
        sim_destroy();
    }
    assert_int_equal(failures, 1 + 4 + 4); /* open, 4 windows, header, sync, rename, sync of the directory */
    free(entries);
}

static void test_run_writer__given_up_at_any_moment_leaves_nothing(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct run_entry *entries = entries_make(0, COUNT, 1);
    bool done = false;
    for (unsigned turns = 0; !done; turns++) {
        struct run_machine machine;
        machine_create(&machine, turns);
        struct run_writer *writer = writer_make(&machine, 9);
        done = write_until(&machine, writer, entries, COUNT, turns);
        run_writer_abort(writer);
        run_writer_abort(writer);
        while (run_writer_state(writer) == KVS_ERR_AGAIN)
            ring_turn(machine.ring, -1);
        assert_int_equal(run_writer_state(writer), done ? KVS_ERR_OK : KVS_ERR_CANCELLED);
        run_writer_close(writer, machine.ring);
        if (done)
            run_expect(&machine, 9, entries, COUNT);
        else
            sim_file_each(no_run_is_there, NULL);
        sim_destroy();
        assert_true(turns < 1000);
    }
    free(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_writer__what_is_written_is_read_back),
        cmocka_unit_test(test_run_writer__tells_how_large_the_file_becomes),
        cmocka_unit_test(test_run_writer__takes_no_more_than_its_windows_hold),
        cmocka_unit_test(test_run_writer__does_not_take_over_an_older_file),
        cmocka_unit_test(test_run_writer__a_crash_leaves_all_or_nothing),
        cmocka_unit_test(test_run_writer__a_fault_leaves_nothing),
        cmocka_unit_test(test_run_writer__given_up_at_any_moment_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
