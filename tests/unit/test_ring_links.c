/*
 * test_ring_links.c - second names of files, and directories that are made and renamed, on the simulated machine.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define SIZE 4096

static int boot(struct ring **ring, int *from, int *to)
{
    int fd = boot_with_file(ring, 1, SIZE);
    assert_int_equal(ring_dir_open(*ring, "/data", from), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(*ring, "/other", to), KVS_ERR_OK);
    return fd;
}

static enum kvs_err await_link(struct ring *ring, int from, const char *name, int to, const char *second)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_link(ring, &op, from, name, to, second);
    ring_await(ring, &op);
    return op.error;
}

static enum kvs_err await_make(struct ring *ring, int dir, const char *name)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_dir_make(ring, &op, dir, name);
    ring_await(ring, &op);
    return op.error;
}

static uint32_t links_of(struct ring *ring, int fd)
{
    struct ring_file_info info;
    assert_int_equal(ring_file_info(ring, fd, &info), KVS_ERR_OK);
    return info.links;
}

static void test_ring_sim__a_link_is_the_same_file(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int from, to;
    int fd = boot(&ring, &from, &to);
    assert_int_equal(links_of(ring, fd), 1);
    assert_int_equal(await_link(ring, from, "f", to, "g"), KVS_ERR_OK);
    assert_int_equal(links_of(ring, fd), 2);
    assert_int_equal(await_link(ring, from, "f", to, "g"), KVS_ERR_EXISTS);
    assert_int_equal(await_link(ring, from, "none", to, "h"), KVS_ERR_NOT_FOUND);
    assert_int_equal(await_write(ring, &op, fd, new_data, SIZE, 0, 0), KVS_ERR_OK);
    assert_memory_equal(read_back("/other/g", SIZE), new_data, SIZE);
    assert_int_equal(await_unlink(ring, from, "f"), KVS_ERR_OK);
    assert_int_equal(links_of(ring, fd), 1);
    assert_true(sim_file_exists("/other/g"));
    sim_set_links(false);
    assert_int_equal(await_link(ring, to, "g", from, "f"), KVS_ERR_UNSUPPORTED);
    sim_destroy();
}

static void test_ring_sim__a_link_lasts_when_its_directory_is_synced(void **state)
{
    (void)state;
    for (unsigned synced = 0; synced < 2; synced++) {
        struct ring *ring;
        int from, to;
        (void)boot(&ring, &from, &to);
        assert_int_equal(await_link(ring, from, "f", to, "g"), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, synced ? to : from), KVS_ERR_OK);
        sim_crash(SIM_DROP_ALL);
        assert_true(sim_file_exists("/data/f"));
        assert_int_equal(sim_file_exists("/other/g"), synced);
        sim_destroy();
    }
}

static void test_ring_sim__directories_are_made_and_opened(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_op op;
    int from, to;
    (void)boot(&ring, &from, &to);
    const unsigned flags = RING_OPEN_READ | RING_OPEN_DIRECTORY;
    assert_int_equal(await_open(ring, &op, from, "sub", flags), KVS_ERR_NOT_FOUND);
    assert_int_equal(await_open(ring, &op, from, "f", flags), KVS_ERR_NOT_A_DIRECTORY);
    assert_int_equal(await_make(ring, from, "sub"), KVS_ERR_OK);
    assert_int_equal(await_make(ring, from, "sub"), KVS_ERR_EXISTS);
    assert_int_equal(await_make(ring, from, "f"), KVS_ERR_EXISTS);
    assert_int_equal(await_make(ring, from, "none/sub"), KVS_ERR_NOT_FOUND);
    assert_int_equal(await_open(ring, &op, from, "sub", flags), KVS_ERR_OK);
    assert_int_equal(await_link(ring, from, "f", op.fd, "f"), KVS_ERR_OK);
    assert_true(sim_file_exists("/data/sub/f"));
    assert_int_equal(await_open(ring, &op, from, ".", flags), KVS_ERR_OK);
    assert_int_equal(await_link(ring, from, "f", op.fd, "here"), KVS_ERR_OK);
    assert_true(sim_file_exists("/data/here"));
    sim_destroy();
}

/* With all that is in it; what is open goes on under the new name. */
static void test_ring_sim__a_renamed_directory_lasts_when_its_parent_is_synced(void **state)
{
    (void)state;
    for (unsigned synced = 0; synced < 3; synced++) {
        struct ring *ring;
        struct ring_op op;
        int from, to;
        (void)boot(&ring, &from, &to);
        assert_int_equal(await_make(ring, from, "sub"), KVS_ERR_OK);
        assert_int_equal(await_make(ring, from, "taken"), KVS_ERR_OK);
        assert_int_equal(await_open(ring, &op, from, "sub", RING_OPEN_READ | RING_OPEN_DIRECTORY), KVS_ERR_OK);
        int sub = op.fd;
        assert_int_equal(await_link(ring, from, "f", sub, "g"), KVS_ERR_OK);
        assert_int_equal(await_sync(ring, sub), KVS_ERR_OK);
        assert_int_equal(await_rename(ring, from, "sub", "taken"), KVS_ERR_EXISTS);
        assert_int_equal(await_rename(ring, from, "sub", "new"), KVS_ERR_OK);
        assert_int_equal(await_rename(ring, from, "sub", "newer"), KVS_ERR_NOT_FOUND);
        assert_true(sim_file_exists("/data/new/g"));
        assert_int_equal(await_sync(ring, sub), KVS_ERR_OK); /* of itself: no help */
        if (synced == 2)
            sim_fail(RING_KIND_SYNC, 1, EIO);
        if (synced > 0)
            assert_int_equal(await_sync(ring, from), synced == 1 ? KVS_ERR_OK : KVS_ERR_IO);
        assert_int_equal(sim_pending(), synced == 1 ? 0 : 1);
        sim_crash(SIM_DROP_ALL);
        assert_int_equal(sim_file_exists("/data/new/g"), synced == 1);
        assert_int_equal(sim_file_exists("/data/sub/g"), synced != 1);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_sim__a_link_is_the_same_file),
        cmocka_unit_test(test_ring_sim__a_link_lasts_when_its_directory_is_synced),
        cmocka_unit_test(test_ring_sim__directories_are_made_and_opened),
        cmocka_unit_test(test_ring_sim__a_renamed_directory_lasts_when_its_parent_is_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
