/*
 * test_ring_crash.c - what survives a power loss of the simulated machine.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define SIZE   8192
#define SECTOR 512

static void test_ring_sim__unsynced_write_can_be_dropped_or_kept(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 1, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_read(ring, &op, fd, found, SIZE, 0), KVS_ERR_OK);
    assert_memory_equal(found, new_data, SIZE);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
    sim_destroy();

    fd = boot_with_file(&ring, 1, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_crash(SIM_KEEP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, SIZE);
    sim_destroy();
}

static void test_ring_sim__synced_write_survives(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct ring *ring;
        struct ring_op op;
        int fd = boot_with_file(&ring, seed, SIZE);
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
        sim_crash(seed % 2 ? SIM_RANDOM : SIM_DROP_ALL);
        assert_memory_equal(read_back("/data/f", SIZE), new_data, SIZE);
        sim_destroy();
    }
}

/* An older unsynced write under it must not come back through the crash. */
static void test_ring_sim__durable_write_survives_alone(void **state)
{
    (void)state;
    unsigned kept = 0, dropped = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct ring *ring;
        struct ring_op op;
        uint8_t junk[SIZE];
        memset(junk, 0xee, SIZE);
        int fd = boot_with_file(&ring, seed, SIZE);
        assert_int_equal(await_write(ring, &op, fd, junk, SIZE, 0, 0), KVS_ERR_OK);
        assert_int_equal(await_write(ring, &op, fd, new_data, 4096, 1024, RING_WRITE_DURABLE), KVS_ERR_OK);
        sim_crash(SIM_RANDOM);
        (void)read_back("/data/f", SIZE);
        assert_memory_equal(found + 1024, new_data, 4096);
        kept += memcmp(found, junk, 1024) == 0;
        dropped += memcmp(found, old_data, 1024) == 0;
        sim_destroy();
    }
    assert_true(kept > 10 && dropped > 10);
}

/* What became of a write of new_data over old_data, in sectors. */
struct fate {
    unsigned kept, dropped, junk;
};

static struct fate read_fate(void)
{
    static const uint8_t zeros[SECTOR];
    struct fate fate = {0};
    (void)read_back("/data/f", SIZE);
    for (size_t at = 0; at < SIZE; at += SECTOR) {
        if (memcmp(found + at, new_data + at, SECTOR) == 0)
            fate.kept++;
        else if (memcmp(found + at, old_data + at, SECTOR) == 0)
            fate.dropped++;
        else
            fate.junk++;
    }
    assert_memory_not_equal(zeros, new_data, SECTOR);
    return fate;
}

static void test_ring_sim__unsynced_write_is_kept_dropped_torn_or_scrambled(void **state)
{
    (void)state;
    enum { SECTORS = SIZE / SECTOR };
    unsigned kept = 0, dropped = 0, torn = 0, scrambled = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct ring *ring;
        struct ring_op op;
        int fd = boot_with_file(&ring, seed, SIZE);
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
        sim_crash(SIM_RANDOM);
        struct fate fate = read_fate();
        kept += fate.kept == SECTORS;
        dropped += fate.dropped == SECTORS;
        torn += fate.junk == 0 && fate.kept > 0 && fate.dropped > 0;
        scrambled += fate.junk > 0 && fate.kept > 0 && fate.dropped > 0;
        sim_destroy();
    }
    assert_true(kept > 10 && dropped > 10 && torn > 10 && scrambled > 10);
}

static void test_ring_sim__write_in_flight_may_or_may_not_arrive(void **state)
{
    (void)state;
    unsigned changed = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct ring *ring;
        struct ring_op op;
        int fd = boot_with_file(&ring, seed, SIZE);
        ring_op_init(&op, nothing_done);
        ring_file_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE);
        sim_crash(SIM_RANDOM);
        (void)read_back("/data/f", SIZE);
        changed += memcmp(found, old_data, SIZE) != 0;
        sim_destroy();
    }
    assert_in_range(changed, 10, 90);
}

/* A sync that was started before a write had completed does not cover it. */
static void test_ring_sim__sync_covers_only_what_came_before(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct ring *ring;
        struct ring_op sync, write;
        int fd = boot_with_file(&ring, seed, SIZE);
        ring_op_init(&sync, nothing_done);
        ring_op_init(&write, nothing_done);
        ring_file_sync(ring, &sync, fd);
        ring_file_write(ring, &write, fd, new_data, SIZE, 0, 0);
        ring_await(ring, &write);
        ring_await(ring, &sync);
        sim_crash(SIM_DROP_ALL);
        (void)read_back("/data/f", SIZE);
        lost += memcmp(found, old_data, SIZE) == 0;
        sim_destroy();
    }
    assert_int_equal(lost, 50);
}

static void test_ring_sim__no_later_sync_covers_what_a_failed_one_lost(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 3, SIZE);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    sim_fail(RING_KIND_SYNC, 1, EIO);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_IO);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), old_data, SIZE);
    sim_destroy();
}

/* What was lost to a failed sync may survive the crash all the same, but not over what was synced after it. */
static void test_ring_sim__lost_changes_do_not_come_back_over_later_ones(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int dir;
    uint8_t lost[SIZE];
    memset(lost, 0xee, SIZE);
    int fd = boot_with_file(&ring, 3, SIZE);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(await_write(ring, &op, fd, lost, SIZE, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_open(ring, &op, dir, "g", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    sim_fail(RING_KIND_SYNC, 1, EIO);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_IO);
    sim_fail(RING_KIND_SYNC, 1, EIO);
    assert_int_equal(await_sync(ring, dir), KVS_ERR_IO);
    assert_int_equal(await_write(ring, &op, fd, new_data, 4096, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_file_unlink(ring, &op, dir, "g");
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
    sim_crash(SIM_KEEP_ALL);
    assert_memory_equal(read_back("/data/f", SIZE), new_data, 4096);
    assert_memory_equal(found + 4096, lost, SIZE - 4096);
    assert_false(sim_file_exists("/data/g"));
    sim_destroy();
}

static void test_ring_sim__size_is_durable_with_the_data(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int fd = boot_with_file(&ring, 4, SIZE);
    int other = make_file(ring, "g", 0);
    ring_op_init(&op, nothing_done);
    ring_file_allocate(ring, &op, fd, (uint64_t)4 * SIZE);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(await_write(ring, &op, other, new_data, 1000, 3000, RING_WRITE_DURABLE), KVS_ERR_OK);
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(sim_file_size("/data/f"), SIZE);
    assert_int_equal(sim_file_size("/data/g"), 4000);
    uint8_t hole[3000], zeros[3000] = {0};
    sim_file_read("/data/g", 0, hole, sizeof(hole));
    assert_memory_equal(hole, zeros, sizeof(zeros));
    sim_destroy();
}

static void test_ring_sim__names_need_their_directory_synced(void **state)
{
    (void)state;
    for (unsigned synced = 0; synced < 2; synced++) {
        struct ring *ring;
        struct ring_op op;
        int dir;
        (void)boot_with_file(&ring, 5, SIZE);
        (void)make_file(ring, "a", 0);
        (void)make_file(ring, "b", 0);
        assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
        assert_int_equal(await_open(ring, &op, dir, "new", RW | RING_OPEN_CREATE), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, op.fd), KVS_ERR_OK);
        assert_int_equal(await_rename(ring, dir, "a", "c"), KVS_ERR_OK);
        assert_int_equal(await_unlink(ring, dir, "b"), KVS_ERR_OK);
        assert_int_equal(await_rename(ring, dir, "a", "d"), KVS_ERR_NOT_FOUND);
        assert_int_equal(await_unlink(ring, dir, "b"), KVS_ERR_NOT_FOUND);
        if (synced)
            assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
        sim_crash(SIM_DROP_ALL);
        assert_int_equal(sim_file_exists("/data/new"), synced);
        assert_int_equal(sim_file_exists("/data/c"), synced);
        assert_int_equal(sim_file_exists("/data/a"), !synced);
        assert_int_equal(sim_file_exists("/data/b"), !synced);
        sim_destroy();
    }
}

static void test_ring_sim__rename_replaces_whole(void **state)
{
    (void)state;
    unsigned replaced = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct ring *ring;
        struct ring_op op;
        int dir;
        (void)boot_with_file(&ring, seed, SIZE);
        assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
        assert_int_equal(await_open(ring, &op, dir, "tmp", RW | RING_OPEN_CREATE), KVS_ERR_OK);
        int fd = op.fd;
        assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
        assert_int_equal(await_rename(ring, dir, "tmp", "f"), KVS_ERR_OK);
        sim_crash(SIM_RANDOM);
        (void)read_back("/data/f", SIZE);
        bool is_new = memcmp(found, new_data, SIZE) == 0;
        assert_true(is_new || memcmp(found, old_data, SIZE) == 0);
        replaced += is_new;
        sim_destroy();
    }
    assert_in_range(replaced, 5, 45);
}

static void count_name(void *context, const char *name)
{
    assert_non_null(name);
    ++*(unsigned *)context;
}

static void test_ring_sim__next_boot_finds_files_and_no_locks(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int dir, lock, second;
    int old_fd = boot_with_file(&ring, 6, SIZE);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(ring_dir_lock(ring, dir, "lock", &lock), KVS_ERR_OK);
    assert_int_equal(ring_dir_lock(ring, dir, "lock", &second), KVS_ERR_LOCKED);
    sim_crash(SIM_KEEP_ALL);
    ring = open_ring(0);
    ring_close_fd(ring, old_fd);
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(ring_dir_lock(ring, dir, "lock", &lock), KVS_ERR_OK);
    unsigned names = 0;
    assert_int_equal(ring_dir_list(ring, dir, count_name, &names), KVS_ERR_OK);
    assert_int_equal(names, 2);
    assert_int_equal(await_open(ring, &op, dir, "f", RING_OPEN_READ), KVS_ERR_OK);
    ring_close(ring);
    sim_destroy();
}

static void test_ring_sim__damage_can_be_done_to_files(void **state)
{
    (void)state;
    struct ring *ring;
    (void)boot_with_file(&ring, 7, SIZE);
    sim_crash(SIM_DROP_ALL);
    sim_file_flip("/data/f", 8 * 100 + 3);
    (void)read_back("/data/f", SIZE);
    assert_int_equal(found[100], old_data[100] ^ 8);
    sim_file_overwrite("/data/f", 200, "xyz", 3);
    (void)read_back("/data/f", SIZE);
    assert_memory_equal(found + 200, "xyz", 3);
    sim_file_truncate("/data/f", 10);
    assert_int_equal(sim_file_size("/data/f"), 10);
    sim_file_truncate("/data/f", 30);
    static const uint8_t zeros[20];
    sim_file_read("/data/f", 0, found, 30);
    assert_memory_equal(found, old_data, 10);
    assert_memory_equal(found + 10, zeros, 20);
    sim_file_put("/other/deep/g", "hello", 5);
    assert_int_equal(sim_file_size("/other/deep/g"), 5);
    unsigned files = 0;
    sim_file_each(count_name, &files);
    assert_int_equal(files, 2);
    sim_file_remove("/data/f");
    assert_false(sim_file_exists("/data/f"));
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_sim__unsynced_write_can_be_dropped_or_kept),
        cmocka_unit_test(test_ring_sim__synced_write_survives),
        cmocka_unit_test(test_ring_sim__durable_write_survives_alone),
        cmocka_unit_test(test_ring_sim__unsynced_write_is_kept_dropped_torn_or_scrambled),
        cmocka_unit_test(test_ring_sim__write_in_flight_may_or_may_not_arrive),
        cmocka_unit_test(test_ring_sim__sync_covers_only_what_came_before),
        cmocka_unit_test(test_ring_sim__no_later_sync_covers_what_a_failed_one_lost),
        cmocka_unit_test(test_ring_sim__lost_changes_do_not_come_back_over_later_ones),
        cmocka_unit_test(test_ring_sim__size_is_durable_with_the_data),
        cmocka_unit_test(test_ring_sim__names_need_their_directory_synced),
        cmocka_unit_test(test_ring_sim__rename_replaces_whole),
        cmocka_unit_test(test_ring_sim__next_boot_finds_files_and_no_locks),
        cmocka_unit_test(test_ring_sim__damage_can_be_done_to_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
