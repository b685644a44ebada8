/* Threads that help with opening a store, each with a ring of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/assert.h"
#include "node/workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define COUNT  3u
#define ROUNDS 200u

struct job {
    pthread_barrier_t meeting;
    unsigned calls[COUNT];
    pthread_t threads[COUNT];
    struct ring *rings[COUNT];
    _Atomic unsigned working;
};

static void on_done(struct ring_op *op)
{
    (void)op;
}

/* Uses the ring, which only its own thread may, and counts. */
static void work(void *argument, unsigned worker, struct ring *ring)
{
    struct job *job = argument;
    atomic_fetch_add(&job->working, 1);
    struct ring_op op;
    ring_op_init(&op, on_done);
    ring_timer(ring, &op, 1);
    ring_await(ring, &op);
    KVS_ASSERT(op.error == KVS_ERR_OK); /* not cmocka's: that is for the main thread */
    if (job->calls[worker]++ == 0) {
        job->threads[worker] = pthread_self();
        job->rings[worker] = ring;
    }
    KVS_ASSERT(pthread_equal(job->threads[worker], pthread_self()) && job->rings[worker] == ring);
    atomic_fetch_sub(&job->working, 1);
}

/* Would never end if they were called one after the other. */
static void meet(void *argument, unsigned worker, struct ring *ring)
{
    struct job *job = argument;
    (void)worker;
    (void)ring;
    (void)pthread_barrier_wait(&job->meeting);
}

static void test_workers__each_works_once_a_round_on_a_thread_and_ring_of_its_own(void **state)
{
    (void)state;
    struct job job = {.working = 0};
    struct workers *workers = workers_open(COUNT);
    assert_non_null(workers);
    const struct engine_workers *engine = workers_for_engine(workers);
    assert_int_equal(engine->count, COUNT);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        engine->run(engine->context, work, &job);
        assert_int_equal(job.working, 0); /* all have returned */
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(job.calls[i], round);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        assert_false(pthread_equal(job.threads[i], pthread_self()));
        for (unsigned j = 0; j < i; j++)
            assert_true(!pthread_equal(job.threads[i], job.threads[j]) && job.rings[i] != job.rings[j]);
    }
    workers_close(workers);
}

static void test_workers__work_side_by_side(void **state)
{
    (void)state;
    struct job job = {.working = 0};
    assert_int_equal(pthread_barrier_init(&job.meeting, NULL, COUNT), 0);
    struct workers *workers = workers_open(COUNT);
    assert_non_null(workers);
    const struct engine_workers *engine = workers_for_engine(workers);
    for (unsigned round = 0; round < ROUNDS; round++)
        engine->run(engine->context, meet, &job);
    workers_close(workers);
    (void)pthread_barrier_destroy(&job.meeting);
}

static void test_workers__may_end_without_having_worked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        workers_close(workers_open(1 + i % COUNT));
    workers_close(NULL);
    assert_null(workers_for_engine(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers__each_works_once_a_round_on_a_thread_and_ring_of_its_own),
        cmocka_unit_test(test_workers__work_side_by_side),
        cmocka_unit_test(test_workers__may_end_without_having_worked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
