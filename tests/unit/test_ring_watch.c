/*
 * test_ring_watch.c - looking into the simulated machine: the watch around every step on the disk, and what is told in
 * a story.
 */
#include "test_ring_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
    unsigned count[SIM_EVENT_DONE + 1];
    enum sim_event last;
    enum ring_kind kind;
    unsigned out_of_order;
    int fail_next; /* errno */
} seen;

static void watch(enum sim_event event, enum ring_kind kind)
{
    unsigned before = event == SIM_EVENT_ISSUE ? SIM_EVENT_DONE : event - 1u;
    seen.out_of_order += seen.kind != RING_KIND_NONE && seen.last != before;
    seen.count[event]++;
    seen.last = event;
    seen.kind = kind;
    if (event == SIM_EVENT_ISSUE && seen.fail_next != 0)
        sim_fail(kind, 1, seen.fail_next);
}

static void test_ring_watch__sees_every_step_on_the_disk(void **state)
{
    (void)state;
    struct ring_op op;
    uint8_t bytes[100] = {0};
    sim_create(1);
    memset(&seen, 0, sizeof(seen));
    struct ring *ring = open_ring(0);
    sim_watch(watch);
    int fd = make_file(ring, "f", 0); /* an open and a sync */
    assert_int_equal(await_write(ring, &op, fd, bytes, sizeof(bytes), 0, 0), KVS_ERR_OK);
    assert_int_equal(await_read(ring, &op, fd, bytes, sizeof(bytes), 0), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_timer(ring, &op, 1000);
    ring_await(ring, &op);
    for (unsigned event = 0; event <= SIM_EVENT_DONE; event++)
        assert_int_equal(seen.count[event], 4);
    assert_int_equal(seen.out_of_order, 0);
    assert_int_equal(seen.kind, RING_KIND_READ);
    sim_watch(NULL);
    assert_int_equal(await_sync(ring, fd), KVS_ERR_OK);
    assert_int_equal(seen.count[SIM_EVENT_ISSUE], 4);
    sim_destroy();
}

static void test_ring_watch__can_fail_the_step_that_it_sees(void **state)
{
    (void)state;
    struct ring_op op;
    uint8_t bytes[100] = {0};
    sim_create(2);
    memset(&seen, 0, sizeof(seen));
    struct ring *ring = open_ring(0);
    int fd = make_file(ring, "f", 0);
    sim_watch(watch);
    seen.fail_next = ENOSPC;
    assert_int_equal(await_write(ring, &op, fd, bytes, sizeof(bytes), 0, 0), KVS_ERR_NO_SPACE);
    seen.fail_next = 0;
    assert_int_equal(await_write(ring, &op, fd, bytes, sizeof(bytes), 0, 0), KVS_ERR_OK);
    sim_destroy();
}

static void test_ring_sim__story_tells_of_ops_and_files(void **state)
{
    (void)state;
    static char story[4096];
    struct ring_op done, op;
    uint8_t bytes[100] = {0};
    sim_create(3);
    struct ring *ring = open_ring(0);
    int fd = make_file(ring, "f", 0);
    assert_int_equal(await_write(ring, &done, fd, bytes, sizeof(bytes), 0, 0), KVS_ERR_OK);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    ring_op_init(&op, nothing_done);
    ring_file_write(ring, &op, fd, bytes, sizeof(bytes), 4096, 0);
    int copy = dup(STDERR_FILENO), into = memfd_create("story", 0);
    assert_true(copy >= 0 && into >= 0);
    fflush(stderr);
    assert_true(dup2(into, STDERR_FILENO) >= 0);
    sim_describe();
    fflush(stderr);
    assert_true(dup2(copy, STDERR_FILENO) >= 0);
    assert_true(pread(into, story, sizeof(story) - 1, 0) > 0);
    assert_non_null(strstr(story, "write"));
    assert_non_null(strstr(story, "[4096, +100)"));
    assert_non_null(strstr(story, "EIO"));
    assert_non_null(strstr(story, "100 bytes, 0 durable, 1 unsynced"));
    close(copy);
    close(into);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_watch__sees_every_step_on_the_disk),
        cmocka_unit_test(test_ring_watch__can_fail_the_step_that_it_sees),
        cmocka_unit_test(test_ring_sim__story_tells_of_ops_and_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
