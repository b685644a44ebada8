/*
 * test_ring_io.c - what ring_io.c makes of short, interrupted and failed steps, on the simulated machine.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define SIZE 65536

static void test_ring__short_write_is_continued(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE), *back = aligned(SIZE);
    fill(data, SIZE, 1);
    int fd = make_file(ring, "f", 0);
    sim_set_short(100);
    assert_int_equal(await_write(ring, &op, fd, data, SIZE - 3, 5, 0), KVS_ERR_OK);
    assert_int_equal(op.bytes, SIZE - 3);
    assert_true(sim_issued(RING_KIND_WRITE) > 1);
    sim_set_short(0);
    assert_int_equal(await_read(ring, &op, fd, back, SIZE - 3, 5), KVS_ERR_OK);
    assert_memory_equal(data, back, SIZE - 3);
    free(data);
    free(back);
}

static void test_ring__short_read_is_continued(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE), *back = aligned(SIZE);
    fill(data, SIZE, 2);
    int fd = make_file(ring, "f", 0);
    assert_int_equal(await_write(ring, &op, fd, data, SIZE, 0, 0), KVS_ERR_OK);
    sim_set_short(100);
    assert_int_equal(await_read(ring, &op, fd, back, SIZE, 0), KVS_ERR_OK);
    assert_int_equal(op.bytes, SIZE);
    assert_true(sim_issued(RING_KIND_READ) > 1);
    assert_memory_equal(data, back, SIZE);
    free(data);
    free(back);
}

/* The simulated disk fails an assertion when a continuation is not aligned. */
static void test_ring__direct_continuations_stay_aligned(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE), *back = aligned(SIZE);
    fill(data, SIZE, 3);
    int fd = make_file(ring, "f", RING_OPEN_DIRECT);
    sim_set_short(80);
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(await_write(ring, &op, fd, data, SIZE, 4096, RING_WRITE_DURABLE), KVS_ERR_OK);
        assert_int_equal(await_read(ring, &op, fd, back, SIZE, 4096), KVS_ERR_OK);
        assert_memory_equal(data, back, SIZE);
    }
    assert_true(sim_issued(RING_KIND_WRITE) > 40);
    free(data);
    free(back);
}

static void test_ring__read_ends_short_only_at_the_end_of_the_file(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE), *back = aligned(SIZE);
    fill(data, SIZE, 4);
    int fd = make_file(ring, "f", 0);
    assert_int_equal(await_write(ring, &op, fd, data, 10001, 0, 0), KVS_ERR_OK);
    sim_set_short(70);
    for (unsigned round = 0; round < 50; round++) {
        assert_int_equal(await_read(ring, &op, fd, back, SIZE, 0), KVS_ERR_OK);
        assert_int_equal(op.bytes, 10001);
        assert_memory_equal(data, back, 10001);
        assert_int_equal(await_read(ring, &op, fd, back, SIZE, 10000), KVS_ERR_OK);
        assert_int_equal(op.bytes, 1);
        assert_int_equal(await_read(ring, &op, fd, back, SIZE, 20000), KVS_ERR_OK);
        assert_int_equal(op.bytes, 0);
    }
    free(data);
    free(back);
}

static void test_ring__direct_read_meets_an_odd_end_of_file(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE), *back = aligned(SIZE);
    fill(data, SIZE, 4);
    int fd = make_file(ring, "f", 0);
    assert_int_equal(await_write(ring, &op, fd, data, 10001, 0, 0), KVS_ERR_OK);
    int direct = make_file(ring, "f", RING_OPEN_DIRECT);
    sim_set_short(70);
    for (unsigned round = 0; round < 50; round++) {
        assert_int_equal(await_read(ring, &op, direct, back, SIZE, 0), KVS_ERR_OK);
        assert_int_equal(op.bytes, 10001);
        assert_memory_equal(data, back, 10001);
    }
    free(data);
    free(back);
}

static void test_ring__interruptions_are_not_seen(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t data[1000], back[1000];
    fill(data, sizeof(data), 5);
    sim_set_interrupted(60);
    int fd = make_file(ring, "f", 0);
    for (unsigned round = 0; round < 50; round++) {
        assert_int_equal(await_write(ring, &op, fd, data, sizeof(data), round, 0), KVS_ERR_OK);
        assert_int_equal(await_read(ring, &op, fd, back, sizeof(back), round), KVS_ERR_OK);
        assert_memory_equal(data, back, sizeof(data));
    }
    assert_true(sim_issued(RING_KIND_WRITE) > 60);
}

static void test_ring__endless_interruption_becomes_an_error(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t byte = 0;
    int fd = make_file(ring, "f", 0);
    sim_set_interrupted(100);
    assert_int_equal(await_write(ring, &op, fd, &byte, 1, 0, 0), KVS_ERR_AGAIN);
    assert_true(sim_issued(RING_KIND_WRITE) < 100);
}

static void test_ring__failed_write_and_sync_are_not_tried_again(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t data[100] = {0};
    int fd = make_file(ring, "f", 0);
    uint64_t syncs = sim_issued(RING_KIND_SYNC);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    sim_fail(RING_KIND_SYNC, 1, EIO);
    assert_int_equal(await_write(ring, &op, fd, data, sizeof(data), 0, 0), KVS_ERR_IO);
    assert_int_equal(sim_issued(RING_KIND_WRITE), 1);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_IO);
    assert_int_equal(sim_issued(RING_KIND_SYNC), syncs + 1);
    sim_fail(RING_KIND_SYNC, 1, EINTR);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_AGAIN);
    assert_int_equal(sim_issued(RING_KIND_SYNC), syncs + 2);
}

static void test_ring__full_disk_ends_a_write_with_no_space(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE);
    uint64_t space;
    fill(data, SIZE, 6);
    int fd = make_file(ring, "f", 0);
    sim_set_disk_size(8192);
    assert_int_equal(ring_file_space(ring, fd, &space), KVS_ERR_OK);
    assert_int_equal(space, 8192);
    assert_int_equal(await_write(ring, &op, fd, data, SIZE, 0, 0), KVS_ERR_NO_SPACE);
    assert_string_equal(ring_op_text(&op), "no space left on device");
    assert_int_equal(await_write(ring, &op, fd, data, 8192, 0, 0), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_file_allocate(ring, &op, fd, 8193);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_NO_SPACE);
    free(data);
}

static void test_ring__errors_are_translated(void **state)
{
    (void)state;
    static const struct {
        int sys_errno;
        enum kvs_err err;
    } cases[] = {
        {0, KVS_ERR_OK},
        {EAGAIN, KVS_ERR_AGAIN},
        {EPERM, KVS_ERR_ACCESS},
        {EADDRINUSE, KVS_ERR_ADDRESS_IN_USE},
        {EADDRNOTAVAIL, KVS_ERR_ADDRESS_UNAVAILABLE},
        {ECANCELED, KVS_ERR_CANCELLED},
        {ECONNRESET, KVS_ERR_CLOSED},
        {EPIPE, KVS_ERR_CLOSED},
        {EHOSTUNREACH, KVS_ERR_CONNECTION},
        {ECONNREFUSED, KVS_ERR_REFUSED},
        {EEXIST, KVS_ERR_EXISTS},
        {EINVAL, KVS_ERR_INVALID},
        {EIO, KVS_ERR_IO},
        {EMFILE, KVS_ERR_NO_DESCRIPTORS},
        {ENOMEM, KVS_ERR_NO_MEMORY},
        {ENOSPC, KVS_ERR_NO_SPACE},
        {EDQUOT, KVS_ERR_NO_SPACE},
        {ENOTDIR, KVS_ERR_NOT_A_DIRECTORY},
        {ENOENT, KVS_ERR_NOT_FOUND},
        {EROFS, KVS_ERR_READ_ONLY},
        {ETIMEDOUT, KVS_ERR_TIMEOUT},
        {EFBIG, KVS_ERR_TOO_LARGE},
        {EOPNOTSUPP, KVS_ERR_UNSUPPORTED},
        {EXFULL, KVS_ERR_SYSTEM},
        {EHWPOISON, KVS_ERR_SYSTEM},
        {-EIO, KVS_ERR_SYSTEM},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(ring_error_from_errno(cases[i].sys_errno), cases[i].err);
}

static void test_ring__open_errors_are_told_apart(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int dir;
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(await_open(ring, &op, dir, "f", RING_OPEN_READ), KVS_ERR_NOT_FOUND);
    assert_int_equal(op.fd, -1);
    (void)make_file(ring, "f", 0);
    assert_int_equal(await_open(ring, &op, dir, "f", RW | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE), KVS_ERR_EXISTS);
    sim_set_direct_align(0);
    assert_int_equal(await_open(ring, &op, dir, "f", RW | RING_OPEN_DIRECT), KVS_ERR_UNSUPPORTED);
    assert_string_equal(ring_op_text(&op), "not supported here (Invalid argument)");
    assert_int_equal(await_open(ring, &op, dir, "f", RW), KVS_ERR_OK);
}

static void test_ring__cancelled_op_is_not_continued(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    uint8_t *data = aligned(SIZE);
    memset(data, 0, SIZE);
    int fd = make_file(ring, "f", 0);
    sim_set_short(100);
    unsigned cancelled = 0;
    for (unsigned round = 0; round < 20; round++) {
        uint64_t before = sim_issued(RING_KIND_WRITE);
        ring_op_init(&op, nothing_done);
        ring_file_write(ring, &op, fd, data, SIZE, 0, 0);
        ring_cancel(ring, &op);
        ring_cancel(ring, &op);
        ring_await(ring, &op);
        assert_int_equal(op.error, KVS_ERR_CANCELLED);
        assert_int_equal(sim_issued(RING_KIND_WRITE), before + 1);
        cancelled += op.bytes == 0;
    }
    /* Some had moved bytes by then, and say how many. */
    assert_in_range(cancelled, 1, 19);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ring__short_write_is_continued, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__short_read_is_continued, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__direct_continuations_stay_aligned, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__read_ends_short_only_at_the_end_of_the_file, ring_set_up,
                                        ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__direct_read_meets_an_odd_end_of_file, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__interruptions_are_not_seen, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__endless_interruption_becomes_an_error, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__failed_write_and_sync_are_not_tried_again, ring_set_up,
                                        ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__full_disk_ends_a_write_with_no_space, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__errors_are_translated, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__open_errors_are_told_apart, ring_set_up, ring_tear_down),
        cmocka_unit_test_setup_teardown(test_ring__cancelled_op_is_not_continued, ring_set_up, ring_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
