/*
 * test_ring_kill.c - the death of the process alone, and power losses with a chosen outcome, on the simulated machine.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define SIZE 8192

/* ---- kill -------------------------------------------------------------------------------------------------------- */

static void test_ring_kill__what_was_written_is_seen_and_can_still_be_lost(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 1, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_KILL);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, SIZE);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
    sim_destroy();
}

static void test_ring_kill__a_sync_of_the_next_process_covers_it(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 2, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_KILL);
    ring = open_ring(0);
    fd = make_file(ring, "f", 0);
    assert_int_equal(await_read(ring, &op, fd, found, SIZE, 0), KVS_ERR_OK);
    assert_memory_equal(found, new_data, SIZE);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, SIZE);
    sim_destroy();
}

static void test_ring_kill__names_stay_and_can_still_be_lost(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int dir, lock;
    (void)boot_with_file(&ring, 3, SIZE);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(ring_dir_lock(ring, dir, "lock", &lock), KVS_ERR_OK);
    assert_int_equal(await_open(ring, &op, dir, "new", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    assert_int_equal(await_unlink(ring, dir, "f"), KVS_ERR_OK);
    sim_crash(SIM_KILL);
    assert_true(sim_file_exists("/data/new"));
    assert_false(sim_file_exists("/data/f"));
    ring = open_ring(0);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(ring_dir_lock(ring, dir, "lock", &lock), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_false(sim_file_exists("/data/new"));
    assert_true(sim_file_exists("/data/f"));
    sim_destroy();
}

/* A durable write whose end nobody has seen may be there, but a power loss may take it. */
static void test_ring_kill__write_in_flight_happens_or_not_and_is_not_durable(void **state)
{
    (void)state;
    unsigned happened = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct ring *ring;
        struct ring_op op;
        int fd = boot_with_file(&ring, seed, SIZE);
        ring_op_init(&op, nothing_done);
        ring_file_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE);
        sim_crash(SIM_KILL);
        bool there = memcmp(read_back("/data/f", SIZE), new_data, SIZE) == 0;
        assert_true(there || memcmp(found, old_data, SIZE) == 0);
        sim_crash(SIM_DROP_ALL);
        assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
        happened += there;
        sim_destroy();
    }
    assert_in_range(happened, 20, 80);
}

/* What a test does to files between the two is done to what the next boot finds, and is durable. */
static void test_ring_kill__damage_after_it_is_durable(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    uint8_t zeros[100] = {0};
    int fd = boot_with_file(&ring, 4, SIZE);
    int other = make_file(ring, "g", 0);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_write(ring, &op, other, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_KILL);
    sim_file_overwrite("/data/f", 100, zeros, sizeof(zeros));
    sim_file_flip("/data/f", 8 * 4096);
    sim_file_truncate("/data/g", 10);
    sim_file_put("/data/h", "hello", 5);
    assert_memory_equal(read_back("/data/f", SIZE) + 100, zeros, sizeof(zeros));
    assert_memory_equal(found + 200, new_data + 200, 4096 - 200);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE) + 100, zeros, sizeof(zeros));
    assert_memory_equal(found, old_data, 100);
    assert_int_equal(found[4096], new_data[4096] ^ 1);
    assert_memory_equal(found + 4097, old_data + 4097, SIZE - 4097);
    assert_int_equal(sim_file_size("/data/g"), 10);
    assert_int_equal(sim_file_size("/data/h"), 5);
    sim_destroy();
}

/* A crash that keeps what was unsynced does not bring it back over what the test has put there. */
static void test_ring_kill__damage_after_it_is_not_overwritten(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    uint8_t zeros[100] = {0};
    int fd = boot_with_file(&ring, 6, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_KILL);
    sim_file_overwrite("/data/f", 100, zeros, sizeof(zeros));
    sim_crash(SIM_KEEP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE) + 100, zeros, sizeof(zeros));
    assert_memory_equal(found + 200, new_data + 200, SIZE - 200);
    sim_destroy();
}

/* ---- chosen outcomes ----------------------------------------------------------------------------------------------
 */

/* Three unsynced writes, a name, and a write in flight: pending in this order. */
static void make_five_pending(uint64_t seed)
{
    static struct ring_op in_flight;
    struct ring *ring;
    struct ring_op op;
    int dir;
    int fd = boot_with_file(&ring, seed, SIZE);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(sim_pending(), 0);
    assert_int_equal(await_write(ring, &op, fd, new_data, 1000, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_write(ring, &op, fd, new_data + 1000, 1000, 1000, 0), KVS_ERR_OK);
    assert_int_equal(await_open(ring, &op, dir, "new", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    assert_int_equal(await_write(ring, &op, fd, new_data + 2000, 1000, 2000, 0), KVS_ERR_OK);
    assert_int_equal(sim_pending(), 4);
    ring_op_init(&in_flight, nothing_done);
    ring_file_write(ring, &in_flight, fd, new_data + 3000, 1000, 3000, RING_WRITE_DURABLE);
    assert_int_equal(sim_pending(), 5);
}

static bool kept(size_t from)
{
    bool is_new = memcmp(found + from, new_data + from, 1000) == 0;
    assert_true(is_new || memcmp(found + from, old_data + from, 1000) == 0);
    return is_new;
}

static void test_ring_subset__each_bit_decides_one_change(void **state)
{
    (void)state;
    for (uint64_t mask = 0; mask < 32; mask++) {
        make_five_pending(mask);
        sim_crash_subset(mask);
        (void)read_back("/data/f", SIZE);
        uint64_t is = kept(0) | (uint64_t)kept(1000) << 1 | (uint64_t)sim_file_exists("/data/new") << 2 |
                      (uint64_t)kept(2000) << 3 | (uint64_t)kept(3000) << 4;
        assert_int_equal(is, mask);
        assert_memory_equal(found + 4000, old_data + 4000, SIZE - 4000);
        assert_int_equal(sim_pending(), 0);
        sim_destroy();
    }
}

static void test_ring_subset__what_comes_after_64_is_dropped(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 5, SIZE);
    for (unsigned i = 0; i < 70; i++)
        assert_int_equal(await_write(ring, &op, fd, new_data + i, 1, i, 0), KVS_ERR_OK);
    assert_int_equal(sim_pending(), 70);
    sim_crash_subset(UINT64_MAX);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, 64);
    assert_memory_equal(found + 64, old_data + 64, SIZE - 64);
    sim_destroy();
}

static void test_ring_subset__growth_and_names_in_flight_are_pending(void **state)
{
    (void)state;
    for (uint64_t mask = 0; mask < 8; mask++) {
        struct ring *ring;
        struct ring_op open, sync, grow, create;
        int dir;
        int fd = boot_with_file(&ring, mask, SIZE);
        assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
        (void)make_file(ring, "gone", 0);
        struct ring_op unlink;
        ring_op_init(&open, nothing_done);
        ring_op_init(&sync, nothing_done);
        ring_op_init(&grow, nothing_done);
        ring_op_init(&create, nothing_done);
        ring_op_init(&unlink, nothing_done);
        ring_file_open(ring, &open, dir, "f", RW); /* changes nothing */
        ring_file_sync(ring, &sync, fd);           /* likewise */
        ring_file_allocate(ring, &grow, fd, 3 * SIZE);
        ring_file_open(ring, &create, dir, "new", RW | RING_OPEN_CREATE);
        ring_file_unlink(ring, &unlink, dir, "gone");
        assert_int_equal(sim_pending(), 3);
        sim_crash_subset(mask);
        assert_int_equal(sim_file_size("/data/f"), mask & 1 ? 3 * SIZE : SIZE);
        assert_int_equal(sim_file_exists("/data/new"), mask >> 1 & 1);
        assert_int_equal(sim_file_exists("/data/gone"), !(mask >> 2 & 1));
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_kill__what_was_written_is_seen_and_can_still_be_lost),
        cmocka_unit_test(test_ring_kill__a_sync_of_the_next_process_covers_it),
        cmocka_unit_test(test_ring_kill__names_stay_and_can_still_be_lost),
        cmocka_unit_test(test_ring_kill__write_in_flight_happens_or_not_and_is_not_durable),
        cmocka_unit_test(test_ring_kill__damage_after_it_is_durable),
        cmocka_unit_test(test_ring_kill__damage_after_it_is_not_overwritten),
        cmocka_unit_test(test_ring_subset__each_bit_decides_one_change),
        cmocka_unit_test(test_ring_subset__what_comes_after_64_is_dropped),
        cmocka_unit_test(test_ring_subset__growth_and_names_in_flight_are_pending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
