/*
 * test_name_sync_threads.c - name_sync.h on real threads and rings: nobody is forgotten, and what one thread's sync has
 * made durable the others learn of. (Failures and power losses: test_name_sync.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/blocking.h"
#include "engine/name_sync.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 4, CHANGES = 2 /* of a thread at the same time */, ROUNDS = 150 };
#define WAIT_NS 100000000000

struct crowd {
    struct name_sync names;
    pthread_barrier_t open, over; /* all rings are open; nobody needs another's any more */
};

struct worker {
    struct crowd *crowd;
    struct ring *ring;
    pthread_t thread;
    unsigned done, good;
    struct work {
        struct name_change change;
        struct worker *worker;
    } works[CHANGES];
};

static void ask(struct work *work);

static void named(struct name_change *change)
{
    struct work *work = container_of(change, struct work, change);
    struct worker *worker = work->worker;
    worker->good += change->error == KVS_ERR_OK;
    if (++worker->done + CHANGES <= ROUNDS)
        ask(work);
}

static void ask(struct work *work)
{
    struct worker *worker = work->worker;
    name_change_begin(&work->change, &worker->crowd->names);
    name_change_sync(&work->change, worker->ring, named);
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    struct crowd *crowd = worker->crowd;
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 64};
    const bool opened = ring_open(&worker->ring, &options, message) == KVS_ERR_OK;
    pthread_barrier_wait(&crowd->open);
    for (unsigned i = 0; opened && i < CHANGES; i++) {
        worker->works[i].worker = worker;
        ask(&worker->works[i]);
    }
    const uint64_t begun_ns = opened ? ring_now_ns(worker->ring) : 0;
    while (opened && (worker->done < ROUNDS || name_sync_at_work(&crowd->names, worker->ring))) {
        /* Woken for what others have done: a wake-up that is lost would show as this time-out. */
        ring_turn(worker->ring, WAIT_NS);
        if (ring_now_ns(worker->ring) - begun_ns > WAIT_NS)
            break;
        for (unsigned i = 0; i < CHANGES; i++)
            name_change_collect(&worker->works[i].change);
    }
    if (opened)
        ring_turn(worker->ring, 0); /* the last wake-ups leave */
    pthread_barrier_wait(&crowd->over);
    if (opened)
        ring_close(worker->ring);
    return NULL;
}

static void test_names__nobody_is_forgotten_among_threads(void **state)
{
    (void)state;
    struct crowd crowd;
    struct worker workers[THREADS];
    char path[] = "/tmp/test_name_sync_threads.XXXXXX", message[RING_MESSAGE_BYTES];
    struct ring *ring;
    int dir_fd;
    assert_non_null(mkdtemp(path));
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 64}, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, path, &dir_fd), KVS_ERR_OK);
    name_sync_init(&crowd.names, dir_fd);
    pthread_barrier_init(&crowd.open, NULL, THREADS);
    pthread_barrier_init(&crowd.over, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.crowd = &crowd};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].done, ROUNDS);
        assert_int_equal(workers[i].good, ROUNDS);
    }
    assert_null(atomic_load(&crowd.names.flyer));
    assert_null(atomic_load(&crowd.names.waiting));
    pthread_barrier_destroy(&crowd.open);
    pthread_barrier_destroy(&crowd.over);
    ring_close_fd(ring, dir_fd);
    ring_close(ring);
    assert_int_equal(rmdir(path), 0);
}

/* Also of the same directory by another path; not of another. */
static void test_names__same_directory_is_known(void **state)
{
    (void)state;
    char path[] = "/tmp/test_name_sync_threads.XXXXXX", message[RING_MESSAGE_BYTES];
    struct ring *ring;
    int fd, other_fd;
    struct ring_op op;
    assert_non_null(mkdtemp(path));
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 64}, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, path, &fd), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, "/tmp", &other_fd), KVS_ERR_OK);
    blocking_init(&op);
    ring_file_open(ring, &op, fd, ".", RING_OPEN_READ | RING_OPEN_DIRECTORY);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_true(ring_file_same(ring, fd, op.fd));
    assert_false(ring_file_same(ring, fd, other_fd));
    ring_close_fd(ring, op.fd);
    ring_close_fd(ring, other_fd);
    ring_close_fd(ring, fd);
    ring_close(ring);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names__nobody_is_forgotten_among_threads),
        cmocka_unit_test(test_names__same_directory_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
