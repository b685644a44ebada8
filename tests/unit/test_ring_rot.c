/*
 * test_ring_rot.c - writes that go wrong unnoticed on the simulated machine, and what it remembers of them.
 */
#include "test_ring_fixture.h"

#include <stdio.h>

#define SIZE 16384

/* Writes new_data to its own place while one kind of fault is certain. */
static void write_wrongly(struct ring *ring, int fd, enum sim_fault_kind kind, size_t from, size_t size, unsigned flags)
{
    struct ring_op op;
    uint64_t before = sim_fault_count(kind);
    sim_odds(kind, 1000000);
    assert_int_equal(await_write(ring, &op, fd, new_data + from, size, from, flags), KVS_ERR_OK);
    sim_odds_none();
    assert_int_equal(sim_fault_count(kind), before + 1);
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

struct told {
    unsigned places;
    size_t bytes;
    char path[32];
    uint64_t offset;
    uint8_t truth[SIZE];
};

static void tell(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size)
{
    struct told *told = context;
    told->places++;
    told->bytes += size;
    snprintf(told->path, sizeof(told->path), "%s", path);
    told->offset = offset;
    memcpy(told->truth, truth, size);
    /* It is rot because something else is there. */
    uint8_t *is = malloc(size);
    assert_non_null(is);
    sim_file_read(path, offset, is, size);
    assert_memory_not_equal(is, truth, size);
    free(is);
}

static struct told ask(void)
{
    struct told told = {0};
    sim_rot_each(tell, &told);
    return told;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void test_ring_rot__lost_write_leaves_the_old_and_knows_the_new(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 1, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 4096, 1024, RING_WRITE_DURABLE);
    assert_int_equal(await_read(ring, &op, fd, found, SIZE, 0), KVS_ERR_OK);
    assert_memory_equal(found, old_data, SIZE);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
    struct told told = ask();
    assert_int_equal(told.places, 1);
    assert_string_equal(told.path, "/data/f");
    assert_int_equal(told.offset, 4096);
    assert_int_equal(told.bytes, 1024);
    assert_memory_equal(told.truth, new_data + 4096, 1024);
    sim_rot_heal();
    assert_int_equal(ask().places, 0);
    assert_memory_equal(read_back("/data/f", SIZE) + 4096, new_data + 4096, 1024);
    sim_destroy();
}

static void test_ring_rot__flipped_write_differs_in_one_bit(void **state)
{
    (void)state;
    struct ring *ring;
    int fd = boot_with_file(&ring, 2, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_FLIP, 0, SIZE, RING_WRITE_DURABLE);
    sim_crash(SIM_DROP_ALL);
    struct told told = ask();
    assert_int_equal(told.places, 1);
    assert_int_equal(told.bytes, 1);
    (void)read_back("/data/f", SIZE);
    unsigned difference = found[told.offset] ^ new_data[told.offset];
    assert_true(is_power_of_two(difference));
    assert_int_equal(told.truth[0], new_data[told.offset]);
    found[told.offset] = new_data[told.offset];
    assert_memory_equal(found, new_data, SIZE);
    sim_destroy();
}

/* The bytes are somewhere else, and both places are known. */
static void test_ring_rot__stray_write_spoils_two_places(void **state)
{
    (void)state;
    unsigned same_file = 0, other_file = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct ring *ring;
        struct ring_op op;
        int dir, lock;
        int fd = boot_with_file(&ring, seed, SIZE);
        int other = make_file(ring, "g", 0);
        assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
        assert_int_equal(ring_dir_lock(ring, dir, "lock", &lock), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
        assert_int_equal(await_write(ring, &op, other, old_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
        write_wrongly(ring, fd, SIM_FAULT_WRITE_ASTRAY, 4096, 4096, seed % 2 ? RING_WRITE_DURABLE : 0);
        assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, other), KVS_ERR_OK);
        sim_crash(SIM_DROP_ALL);
        struct told told = ask();
        assert_true(told.places == 2 && told.bytes > 2 * 4000);
        assert_memory_equal(read_back("/data/f", SIZE) + 4096, old_data + 4096, 4096);
        bool stayed = memcmp(read_back("/data/g", SIZE), old_data, SIZE) == 0;
        same_file += stayed;
        other_file += !stayed;
        assert_int_equal(sim_file_size("/data/lock"), 0);
        sim_rot_heal();
        assert_memory_equal(read_back("/data/f", SIZE), old_data, 4096);
        assert_memory_equal(found + 4096, new_data + 4096, 4096);
        assert_memory_equal(found + 8192, old_data + 8192, SIZE - 8192);
        assert_memory_equal(read_back("/data/g", SIZE), old_data, SIZE);
        sim_destroy();
    }
    assert_true(same_file > 10 && other_file > 10);
}

/* Whether an unsynced write is rotten is decided when it reaches the disk. */
static void test_ring_rot__comes_with_the_write_and_goes_with_it(void **state)
{
    (void)state;
    for (unsigned kept = 0; kept < 2; kept++) {
        struct ring *ring;
        int fd = boot_with_file(&ring, 3, SIZE);
        write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 0, 512, 0);
        sim_crash(kept ? SIM_KEEP_ALL : SIM_DROP_ALL);
        assert_int_equal(ask().places, kept);
        sim_destroy();
    }
}

static void test_ring_rot__a_later_write_ends_it_there(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 4, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 0, 8192, RING_WRITE_DURABLE);
    assert_int_equal(await_write(ring, &op, fd, new_data + 1000, 2000, 1000, RING_WRITE_DURABLE), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    struct told told = ask();
    assert_int_equal(told.places, 2);
    assert_int_equal(told.bytes, 8192 - 2000);
    sim_rot_heal();
    assert_memory_equal(read_back("/data/f", SIZE), new_data, 8192);
    sim_destroy();
}

/* What a lost write should have overwritten is what is there: it was written before, so it is durable now. */
static void test_ring_rot__lost_write_over_an_unsynced_one(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 9, SIZE);
    uint8_t between[1024];
    memset(between, 0xee, sizeof(between));
    assert_int_equal(await_write(ring, &op, fd, between, sizeof(between), 0, 0), KVS_ERR_OK);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 0, 512, RING_WRITE_DURABLE);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), between, 512);
    assert_memory_equal(found + 512, old_data + 512, SIZE - 512);
    struct told told = ask();
    assert_int_equal(told.bytes, 512);
    assert_memory_equal(told.truth, new_data, 512);
    sim_destroy();
}

/* Healed before they were durable, stray bytes do not come with a later crash either. */
static void test_ring_rot__healed_stray_write_stays_away(void **state)
{
    (void)state;
    struct ring *ring;
    int fd = boot_with_file(&ring, 10, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_ASTRAY, 4096, 4096, 0);
    sim_crash(SIM_KILL);
    assert_int_equal(ask().places, 2);
    sim_rot_heal();
    sim_crash(SIM_KEEP_ALL);
    assert_int_equal(ask().places, 0);
    assert_memory_equal(read_back("/data/f", SIZE), old_data, 4096);
    assert_memory_equal(found + 4096, new_data + 4096, 4096);
    assert_memory_equal(found + 8192, old_data + 8192, SIZE - 8192);
    sim_destroy();
}

/* A write that a crash has dropped ends nothing. */
static void test_ring_rot__a_dropped_write_ends_nothing(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 5, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 0, 1024, RING_WRITE_DURABLE);
    assert_int_equal(await_write(ring, &op, fd, old_data, 1024, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(ask().bytes, 1024);
    sim_destroy();
}

static void test_ring_rot__follows_a_rename_and_dies_with_its_file(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int dir;
    int fd = boot_with_file(&ring, 6, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_LOST, 0, 512, RING_WRITE_DURABLE);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_file_rename(ring, &op, dir, "f", "g");
    ring_await(ring, &op);
    assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_string_equal(ask().path, "/data/g");
    ring = open_ring(0);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_file_unlink(ring, &op, dir, "g");
    ring_await(ring, &op);
    assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(ask().places, 0);
    sim_destroy();
}

static void test_ring_rot__can_be_added_and_healed(void **state)
{
    (void)state;
    struct ring *ring;
    (void)boot_with_file(&ring, 7, SIZE);
    sim_crash(SIM_DROP_ALL);
    sim_rot_add("/data/f", 100, new_data + 100, 50);
    assert_memory_equal(read_back("/data/f", SIZE) + 100, new_data + 100, 50);
    sim_rot_add("/data/f", 120, "0123456789", 10);
    assert_memory_equal(read_back("/data/f", SIZE) + 120, "0123456789", 10);
    struct told told = ask();
    assert_int_equal(told.bytes, 50);
    sim_rot_heal();
    assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
    sim_destroy();
}

/* The next process reads it, so the test is told of it, though a power loss would take it away. */
static void test_ring_rot__is_told_after_a_kill(void **state)
{
    (void)state;
    struct ring *ring;
    int fd = boot_with_file(&ring, 8, SIZE);
    write_wrongly(ring, fd, SIM_FAULT_WRITE_FLIP, 0, 512, 0);
    sim_crash(SIM_KILL);
    assert_int_equal(ask().bytes, 1);
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(ask().places, 0);

    ring = open_ring(0);
    write_wrongly(ring, make_file(ring, "f", 0), SIM_FAULT_WRITE_LOST, 0, 512, 0);
    sim_crash(SIM_KILL);
    sim_rot_heal();
    assert_int_equal(ask().places, 0);
    sim_crash(SIM_KEEP_ALL);
    assert_int_equal(ask().places, 0);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, 512);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_rot__lost_write_leaves_the_old_and_knows_the_new),
        cmocka_unit_test(test_ring_rot__flipped_write_differs_in_one_bit),
        cmocka_unit_test(test_ring_rot__stray_write_spoils_two_places),
        cmocka_unit_test(test_ring_rot__comes_with_the_write_and_goes_with_it),
        cmocka_unit_test(test_ring_rot__a_later_write_ends_it_there),
        cmocka_unit_test(test_ring_rot__lost_write_over_an_unsynced_one),
        cmocka_unit_test(test_ring_rot__healed_stray_write_stays_away),
        cmocka_unit_test(test_ring_rot__a_dropped_write_ends_nothing),
        cmocka_unit_test(test_ring_rot__follows_a_rename_and_dies_with_its_file),
        cmocka_unit_test(test_ring_rot__can_be_added_and_healed),
        cmocka_unit_test(test_ring_rot__is_told_after_a_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
