/*
 * test_ring_turn.c - turning simulated rings: timers, wake-ups, cancelling, signals, stepping, replaying a seed.
 */
#include "test_ring_fixture.h"

#include <errno.h>
#include <signal.h>

#define MS ((int64_t)1000000)

static unsigned order[16], order_count;

struct numbered {
    struct ring_op op;
    unsigned number;
};

static void note_order(struct ring_op *op)
{
    if (op->error == KVS_ERR_OK)
        order[order_count++] = container_of(op, struct numbered, op)->number;
}

static int set_up(void **state)
{
    sim_create(7);
    order_count = 0;
    *state = open_ring(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sim_destroy();
    return 0;
}

static void test_ring_sim__timers_expire_in_order(void **state)
{
    struct ring *ring = *state;
    struct numbered timers[8];
    static const unsigned delays[8] = {50, 10, 40, 20, 80, 60, 30, 70};
    uint64_t begin = ring_now_ns(ring);
    for (unsigned i = 0; i < 8; i++) {
        timers[i].number = delays[i];
        ring_op_init(&timers[i].op, note_order);
        ring_timer(ring, &timers[i].op, delays[i] * MS);
    }
    sim_advance(35 * MS); /* three at once */
    while (order_count < 8)
        assert_true(ring_turn(ring, -1) > 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(order[i], (i + 1) * 10);
    assert_true(ring_now_ns(ring) - begin >= 80 * MS);
}

static void test_ring_sim__turn_waits_no_longer_than_it_may(void **state)
{
    struct ring *ring = *state;
    struct numbered timer = {.number = 1};
    ring_op_init(&timer.op, note_order);
    ring_timer(ring, &timer.op, 10 * MS);
    uint64_t begin = ring_now_ns(ring);
    assert_int_equal(ring_turn(ring, 0), 0);
    assert_int_equal(ring_now_ns(ring), begin);
    assert_int_equal(ring_turn(ring, 4 * MS), 0);
    assert_int_equal(ring_now_ns(ring), begin + 4 * MS);
    assert_int_equal(ring_turn(ring, 100 * MS), 1);
    assert_int_equal(ring_now_ns(ring), begin + 10 * MS);
    assert_false(ring_op_active(&timer.op));
}

static void test_ring_sim__cancelled_timer_completes_soon(void **state)
{
    struct ring *ring = *state;
    struct numbered timer = {.number = 1};
    ring_op_init(&timer.op, note_order);
    ring_timer(ring, &timer.op, 1000 * MS);
    assert_true(ring_op_active(&timer.op));
    ring_cancel(ring, &timer.op);
    uint64_t begin = ring_now_ns(ring);
    ring_await(ring, &timer.op);
    assert_int_equal(timer.op.error, KVS_ERR_CANCELLED);
    assert_true(ring_now_ns(ring) - begin < MS);
    ring_cancel(ring, &timer.op); /* too late: nothing happens */
    assert_false(ring_op_active(&timer.op));
}

static void test_ring_sim__wake_ends_a_wait_without_callback(void **state)
{
    struct ring *ring = *state;
    struct ring *other = open_ring(0);
    uint64_t begin = ring_now_ns(ring);
    ring_wake(other, ring);
    ring_wake(other, ring);
    assert_int_equal(ring_turn(ring, 1000 * MS), 0);
    assert_true(ring_now_ns(ring) - begin < MS);
    assert_int_equal(ring_turn(ring, 1000 * MS), 0); /* the two had become one */
    assert_true(ring_now_ns(ring) - begin >= 1000 * MS);
}

static void test_ring_sim__wake_during_await_is_kept(void **state)
{
    struct ring *ring = *state;
    struct numbered timer = {.number = 1};
    ring_wake(ring, ring);
    ring_op_init(&timer.op, note_order);
    ring_timer(ring, &timer.op, 10 * MS);
    ring_await(ring, &timer.op);
    uint64_t begin = ring_now_ns(ring);
    assert_int_equal(ring_turn(ring, 1000 * MS), 0);
    assert_true(ring_now_ns(ring) - begin < MS);
}

static unsigned restarts;

static void restart(struct ring_op *op)
{
    if (++restarts < 5)
        ring_timer(op->ring, op, MS);
}

static void test_ring_sim__op_may_be_started_again_from_its_callback(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    restarts = 0;
    ring_op_init(&op, restart);
    ring_timer(ring, &op, MS);
    ring_await(ring, &op);
    assert_int_equal(restarts, 5);
}

static void test_ring_sim__signals_arrive_one_by_one(void **state)
{
    struct ring *ring = *state;
    struct ring_op op;
    int fd;
    assert_int_equal(ring_signals_open(ring, &fd), KVS_ERR_OK);
    sim_signal(SIGHUP);
    sim_signal(SIGTERM);
    ring_op_init(&op, nothing_done);
    ring_signal_next(ring, &op, fd);
    ring_await(ring, &op);
    assert_int_equal(op.bytes, SIGHUP);
    ring_signal_next(ring, &op, fd);
    ring_await(ring, &op);
    assert_int_equal(op.bytes, SIGTERM);
    ring_signal_next(ring, &op, fd);
    assert_int_equal(ring_turn(ring, 10 * MS), 0);
    ring_cancel(ring, &op);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_CANCELLED);
}

/* ---- stepping -------------------------------------------------------------------------------------------------- */

/* Two shards that toss a number to and fro, each looking at its inbox when woken. */
struct shard {
    struct ring *ring;
    struct shard *other;
    unsigned inbox;
    unsigned turns;
};

static void shard_body(void *context)
{
    struct shard *shard = context;
    (void)ring_turn(shard->ring, -1);
    shard->turns++;
    if (shard->inbox > 0) {
        shard->other->inbox = shard->inbox + 1;
        shard->inbox = 0;
        ring_wake(shard->ring, shard->other->ring);
    }
}

static bool reached_hundred(void *context)
{
    const struct shard *shards = context;
    return shards[0].inbox >= 100 || shards[1].inbox >= 100;
}

static void test_ring_sim__step_runs_loop_bodies_when_woken(void **state)
{
    struct shard shards[2] = {{.ring = *state, .inbox = 1}, {.ring = open_ring(0)}};
    shards[0].other = &shards[1];
    shards[1].other = &shards[0];
    for (unsigned i = 0; i < 2; i++)
        sim_ring_body(shards[i].ring, shard_body, &shards[i]);
    assert_true(sim_run_until(reached_hundred, shards, 10000));
    assert_in_range(shards[0].turns, 50, 60);
}

static bool never(void *context)
{
    (void)context;
    return false;
}

static void test_ring_sim__step_says_when_nothing_will_happen(void **state)
{
    struct ring *ring = *state;
    struct numbered timer = {.number = 1};
    ring_op_init(&timer.op, note_order);
    ring_timer(ring, &timer.op, MS);
    assert_false(sim_run_until(never, NULL, 1000));
    assert_int_equal(order_count, 1);
    assert_false(sim_step());
}

static void poll_body(void *context)
{
    (void)ring_turn(context, 0);
}

static void test_ring_sim__polling_ring_does_not_stop_the_clock(void **state)
{
    struct ring *ring = *state;
    struct numbered timer = {.number = 1};
    ring_op_init(&timer.op, note_order);
    ring_timer(ring, &timer.op, MS);
    sim_ring_body(ring, poll_body, ring);
    for (unsigned i = 0; i < 10000 && order_count == 0; i++)
        assert_true(sim_step());
    assert_int_equal(order_count, 1);
}

/* ---- replaying ------------------------------------------------------------------------------------------------- */

static uint64_t busy_run(uint64_t seed)
{
    struct ring_op write, sync;
    uint8_t data[5000];
    sim_create(seed);
    struct ring *ring = open_ring(0);
    int fd = make_file(ring, "f", 0);
    sim_set_short(30);
    sim_set_interrupted(30);
    fill(data, sizeof(data), 9);
    for (unsigned i = 0; i < 20; i++) {
        ring_op_init(&write, nothing_done);
        ring_op_init(&sync, nothing_done);
        ring_file_write(ring, &write, fd, data, sizeof(data), (uint64_t)i * 100, 0);
        ring_file_sync(ring, &sync, fd);
        ring_await(ring, &write);
        ring_await(ring, &sync);
    }
    sim_crash(SIM_RANDOM);
    uint64_t trace = sim_trace();
    sim_destroy();
    return trace;
}

static void test_ring_sim__seed_replays_exactly(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        uint64_t first = busy_run(seed);
        assert_true(first == busy_run(seed));
        assert_true(first != busy_run(seed + 1));
    }
}

static void test_ring_sim__crash_and_close_leave_ops_alone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        sim_create(seed);
        struct ring *ring = open_ring(0);
        int fd = make_file(ring, "f", 0);
        struct numbered *ops = calloc(10, sizeof(*ops));
        assert_non_null(ops);
        for (unsigned i = 0; i < 10; i++)
            ring_op_init(&ops[i].op, note_order);
        order_count = 0;
        for (unsigned i = 0; i < 5; i++)
            ring_file_sync(ring, &ops[i].op, fd);
        ring_timer(ring, &ops[5].op, 1);
        sim_advance(MS);
        if (seed % 2)
            ring_close(ring);
        else
            sim_crash(SIM_RANDOM);
        free(ops);
        assert_int_equal(order_count, 0);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ring_sim__timers_expire_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__turn_waits_no_longer_than_it_may, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__cancelled_timer_completes_soon, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__wake_ends_a_wait_without_callback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__wake_during_await_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__op_may_be_started_again_from_its_callback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__signals_arrive_one_by_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__step_runs_loop_bodies_when_woken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__step_says_when_nothing_will_happen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ring_sim__polling_ring_does_not_stop_the_clock, set_up, tear_down),
        cmocka_unit_test(test_ring_sim__seed_replays_exactly),
        cmocka_unit_test(test_ring_sim__crash_and_close_leave_ops_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
