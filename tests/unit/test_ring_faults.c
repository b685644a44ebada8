/*
 * test_ring_faults.c - faults by chance on the simulated machine: what each kind looks like through ring.h, that it
 * befalls only what it should, and that a seed replays them.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define SIZE   32768
#define SECTOR 512
#define ALWAYS 1000000

static enum kvs_err read_all(struct ring *ring, int fd)
{
    struct ring_op op;
    enum kvs_err err = await_read(ring, &op, fd, found, SIZE, 0);
    if (err == KVS_ERR_OK)
        assert_int_equal(op.bytes, SIZE);
    return err;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void test_ring_faults__reads_fail_and_leave_the_disk_alone(void **state)
{
    struct ring *ring = *state;
    int fd = make_old_file(ring, SIZE, 0);
    sim_odds(SIM_FAULT_READ_ERROR, ALWAYS);
    assert_int_equal(read_all(ring, fd), KVS_ERR_IO);
    assert_int_equal(sim_fault_count(SIM_FAULT_READ_ERROR), 1);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    sim_odds_none();
    assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
    assert_memory_equal(found, old_data, SIZE);
    assert_int_equal(sim_fault_count(SIM_FAULT_READ_ERROR), 1);
}

/* Nothing, some or all of it is left behind, and is not durable. */
static void writes_fail(struct ring *ring, enum sim_fault_kind kind, enum kvs_err expected)
{
    struct ring_op op;
    unsigned none = 0, all = 0, some = 0;
    int fd = make_old_file(ring, SIZE, 0);
    for (unsigned round = 0; round < 60; round++) {
        assert_int_equal(await_write(ring, &op, fd, old_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
        sim_odds(kind, ALWAYS);
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE), expected);
        sim_odds_none();
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        bool is_old = memcmp(found, old_data, SIZE) == 0, is_new = memcmp(found, new_data, SIZE) == 0;
        none += is_old;
        all += is_new;
        some += !is_old && !is_new;
    }
    assert_true(none > 5 && all > 5 && some > 5);
    assert_int_equal(sim_fault_count(kind), 60);
    sim_crash(SIM_DROP_ALL);
    sim_file_read("/data/f", 0, found, SIZE);
    assert_memory_equal(found, old_data, SIZE);
}

static void test_ring_faults__writes_fail(void **state)
{
    writes_fail(*state, SIM_FAULT_WRITE_ERROR, KVS_ERR_IO);
}

static void test_ring_faults__writes_find_no_space(void **state)
{
    writes_fail(*state, SIM_FAULT_NO_SPACE, KVS_ERR_NO_SPACE);
}

static void test_ring_faults__allocating_finds_no_space(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int fd = make_old_file(ring, SIZE, 0);
    sim_odds(SIM_FAULT_NO_SPACE, ALWAYS);
    ring_op_init(&op, nothing_done);
    ring_file_allocate(ring, &op, fd, 2 * SIZE);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_NO_SPACE);
}

/* What a failed sync was to cover reads back, or is gone at once; no later sync makes it durable. */
static void test_ring_faults__syncs_fail(void **state)
{
    (void)state;
    unsigned readable = 0, gone = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct ring_op op;
        if (seed > 0)
            sim_create(seed);
        struct ring *ring = open_ring(0);
        int fd = make_old_file(ring, SIZE, 0);
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
        assert_int_equal(await_write(ring, &op, fd, new_data, 100, SIZE, 0), KVS_ERR_OK);
        sim_odds(SIM_FAULT_SYNC_ERROR, ALWAYS);
        assert_int_equal(await_sync(ring, fd), KVS_ERR_IO);
        sim_odds_none();
        assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
        struct ring_file_info info;
        assert_int_equal(ring_file_info(ring, fd, &info), KVS_ERR_OK);
        assert_int_equal(info.size, SIZE + 100);
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        bool is_new = memcmp(found, new_data, SIZE) == 0;
        assert_true(is_new || memcmp(found, old_data, SIZE) == 0);
        readable += is_new;
        gone += !is_new;
        sim_crash(SIM_DROP_ALL);
        sim_file_read("/data/f", 0, found, SIZE);
        assert_memory_equal(found, old_data, SIZE);
        if (seed < 39)
            sim_destroy();
    }
    assert_true(readable > 8 && gone > 8);
}

static void test_ring_faults__name_operations_fail_without_effect(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int dir;
    (void)make_old_file(ring, SIZE, 0);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    sim_odds(SIM_FAULT_NAME_ERROR, ALWAYS);
    bool seen[KVS_ERR_COUNT] = {false};
    for (unsigned round = 0; round < 30; round++) {
        seen[await_open(ring, &op, dir, "new", RW | RING_OPEN_CREATE)] = true;
        ring_op_init(&op, nothing_done);
        ring_file_rename(ring, &op, dir, "f", "g");
        ring_await(ring, &op);
        assert_true(op.error == KVS_ERR_IO || op.error == KVS_ERR_NO_SPACE);
        ring_op_init(&op, nothing_done);
        ring_file_unlink(ring, &op, dir, "f");
        ring_await(ring, &op);
        assert_true(op.error == KVS_ERR_IO || op.error == KVS_ERR_NO_SPACE);
    }
    assert_false(seen[KVS_ERR_OK]);
    assert_true(seen[KVS_ERR_IO] && seen[KVS_ERR_NO_SPACE] && seen[KVS_ERR_NO_DESCRIPTORS]);
    sim_crash(SIM_KEEP_ALL);
    assert_true(sim_file_exists("/data/f"));
    assert_false(sim_file_exists("/data/new"));
    assert_false(sim_file_exists("/data/g"));
}

static void test_ring_faults__any_operation_is_cancelled(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int fd = make_old_file(ring, SIZE, 0);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_odds(SIM_FAULT_CANCELLED, ALWAYS);
    assert_int_equal(read_all(ring, fd), KVS_ERR_CANCELLED);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_CANCELLED);
    uint64_t begin = ring_now_ns(ring);
    ring_op_init(&op, nothing_done);
    ring_timer(ring, &op, 3600000000000u);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_CANCELLED);
    assert_true(ring_now_ns(ring) - begin < 3600000000000u);
    assert_int_equal(sim_fault_count(SIM_FAULT_CANCELLED), 3);
    /* A sync that never ran has lost nothing. */
    sim_odds_none();
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    sim_file_read("/data/f", 0, found, SIZE);
    assert_memory_equal(found, new_data, SIZE);
}

/* ---- passing troubles -------------------------------------------------------------------------------------------- */

static void test_ring_faults__short_and_interrupted_steps_are_not_seen(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int fd = make_old_file(ring, SIZE, RING_OPEN_DIRECT);
    sim_odds(SIM_FAULT_SHORT, ALWAYS / 2);
    sim_odds(SIM_FAULT_INTERRUPTED, ALWAYS / 3);
    for (unsigned round = 0; round < 30; round++) {
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        assert_memory_equal(found, new_data, SIZE);
    }
    assert_true(sim_fault_count(SIM_FAULT_SHORT) > 20);
    assert_true(sim_fault_count(SIM_FAULT_INTERRUPTED) > 20);
}

static void test_ring_faults__late_completions_come_late(void **state)
{
    struct ring *ring = *state;
    int fd = make_old_file(ring, SIZE, 0);
    uint64_t begin = ring_now_ns(ring);
    assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
    assert_true(ring_now_ns(ring) - begin < 1000000);
    sim_odds(SIM_FAULT_LATE, ALWAYS);
    for (unsigned round = 0; round < 20; round++) {
        begin = ring_now_ns(ring);
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        assert_in_range(ring_now_ns(ring) - begin, 10000000, 3001000000);
    }
    assert_int_equal(sim_fault_count(SIM_FAULT_LATE), 20);
}

/* ---- wrong bytes ------------------------------------------------------------------------------------------------- */

/* The next read is right again. */
static void disk_is_sound(struct ring *ring, int fd, const uint8_t *data)
{
    sim_odds_none();
    assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
    assert_memory_equal(found, data, SIZE);
}

static void test_ring_faults__reads_differ_in_one_bit(void **state)
{
    struct ring *ring = *state;
    int fd = make_old_file(ring, SIZE, 0);
    sim_odds(SIM_FAULT_READ_FLIP, ALWAYS);
    assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
    unsigned bits = 0;
    for (size_t i = 0; i < SIZE; i++)
        bits += (unsigned)__builtin_popcount((unsigned)(found[i] ^ old_data[i]));
    assert_int_equal(bits, 1);
    disk_is_sound(ring, fd, old_data);
}

static void test_ring_faults__reads_see_what_was_there_before(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    unsigned whole = 0, part = 0;
    int fd = make_old_file(ring, SIZE, 0);
    sim_odds(SIM_FAULT_READ_STALE, ALWAYS);
    assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
    assert_memory_equal(found, old_data, SIZE); /* nothing older was ever there */
    assert_int_equal(sim_fault_count(SIM_FAULT_READ_STALE), 0);
    sim_odds_none();
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
    for (unsigned round = 0; round < 40; round++) {
        sim_odds(SIM_FAULT_READ_STALE, ALWAYS);
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        unsigned old = 0;
        for (size_t at = 0; at < SIZE; at += SECTOR) {
            bool is_old = memcmp(found + at, old_data + at, SECTOR) == 0;
            assert_true(is_old || memcmp(found + at, new_data + at, SECTOR) == 0);
            old += is_old;
        }
        assert_true(old > 0);
        whole += old == SIZE / SECTOR;
        part += old < SIZE / SECTOR;
    }
    assert_true(whole > 5 && part > 5);
    assert_int_equal(sim_fault_count(SIM_FAULT_READ_STALE), 40);
    disk_is_sound(ring, fd, new_data);
}

static void test_ring_faults__reads_go_astray(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    unsigned foreign = 0, own = 0;
    int fd = make_old_file(ring, SIZE, RING_OPEN_DIRECT);
    int other = make_file(ring, "g", 0);
    assert_int_equal(await_write(ring, &op, other, new_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
    sim_odds(SIM_FAULT_READ_ASTRAY, ALWAYS);
    for (unsigned round = 0; round < 40; round++) {
        assert_int_equal(await_read(ring, &op, fd, found, 4096, 4096), KVS_ERR_OK);
        assert_memory_not_equal(found, old_data + 4096, 4096);
        bool is_foreign = memcmp(found, new_data + 4096, 4096) == 0;
        bool is_own = false;
        for (size_t at = 0; at < SIZE; at += 4096)
            is_own = is_own || memcmp(found, old_data + at, 4096) == 0;
        assert_true(is_own || is_foreign);
        foreign += is_foreign;
        own += is_own;
    }
    assert_true(foreign > 5 && own > 5);
    disk_is_sound(ring, fd, old_data);
}

/* ---- who meets what ---------------------------------------------------------------------------------------------- */

static void test_ring_faults__spared_ring_meets_few(void **state)
{
    (void)state;
    struct ring_op op;
    struct ring *ring = open_ring(0);
    int fd = make_old_file(ring, SIZE, 0);
    sim_ring_spare(ring);
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        sim_odds((enum sim_fault_kind)kind, ALWAYS / 2);
    for (unsigned round = 0; round < 50; round++) {
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
        assert_int_equal(read_all(ring, fd), KVS_ERR_OK);
        assert_memory_equal(found, new_data, SIZE);
    }
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++) {
        bool met = sim_fault_count((enum sim_fault_kind)kind) > 0;
        assert_int_equal(met, kind == SIM_FAULT_SHORT || kind == SIM_FAULT_LATE);
    }
}

static void test_ring_faults__names_are_all_there_and_different(void **state)
{
    (void)state;
    for (unsigned a = 0; a < SIM_FAULT_COUNT; a++) {
        assert_true(strlen(sim_fault_name((enum sim_fault_kind)a)) > 3);
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(sim_fault_name((enum sim_fault_kind)a), sim_fault_name((enum sim_fault_kind)b));
    }
}

static uint64_t trace_of(uint64_t seed, unsigned odds)
{
    sim_create(seed);
    struct ring *ring = open_ring(0);
    int fd = make_file(ring, "f", RING_OPEN_DIRECT);
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        sim_odds((enum sim_fault_kind)kind, odds);
    for (unsigned round = 0; round < 100; round++) {
        struct ring_op op;
        uint64_t offset = sim_random(4) * 4096;
        (void)await_write(ring, &op, fd, round % 2 ? new_data : old_data, 8192, offset,
                          round % 3 ? RING_WRITE_DURABLE : 0);
        (void)await_sync(ring, fd);
        (void)await_read(ring, &op, fd, found, 8192, offset);
    }
    sim_crash(SIM_RANDOM);
    uint64_t trace = sim_trace();
    sim_destroy();
    return trace;
}

static void test_ring_faults__seed_replays_them(void **state)
{
    (void)state;
    sim_destroy();
    for (uint64_t seed = 0; seed < 20; seed++) {
        assert_true(trace_of(seed, 100000) == trace_of(seed, 100000));
        assert_true(trace_of(seed, 100000) != trace_of(seed, 0));
    }
    sim_create(1);
}

/* With all odds at zero a seed means what it would mean without them. */
static void test_ring_faults__no_odds_draw_no_numbers(void **state)
{
    (void)state;
    sim_destroy();
    uint64_t traces[2];
    for (unsigned i = 0; i < 2; i++) {
        struct ring_op op;
        sim_create(9);
        struct ring *ring = open_ring(0);
        int fd = make_file(ring, "f", 0);
        if (i == 1) {
            /* Befalls nothing that happens here. */
            sim_odds(SIM_FAULT_STALL, ALWAYS);
            sim_odds(SIM_FAULT_READ_FLIP, ALWAYS);
        }
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
        traces[i] = sim_trace();
        sim_destroy();
    }
    assert_true(traces[0] == traces[1]);
    sim_create(1);
}

#define FAULT_TEST(name) cmocka_unit_test_setup_teardown(test_ring_faults__##name, ring_set_up, ring_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(reads_fail_and_leave_the_disk_alone),
        FAULT_TEST(writes_fail),
        FAULT_TEST(writes_find_no_space),
        FAULT_TEST(allocating_finds_no_space),
        FAULT_TEST(syncs_fail),
        FAULT_TEST(name_operations_fail_without_effect),
        FAULT_TEST(any_operation_is_cancelled),
        FAULT_TEST(short_and_interrupted_steps_are_not_seen),
        FAULT_TEST(late_completions_come_late),
        FAULT_TEST(reads_differ_in_one_bit),
        FAULT_TEST(reads_see_what_was_there_before),
        FAULT_TEST(reads_go_astray),
        FAULT_TEST(spared_ring_meets_few),
        FAULT_TEST(names_are_all_there_and_different),
        FAULT_TEST(seed_replays_them),
        FAULT_TEST(no_odds_draw_no_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
