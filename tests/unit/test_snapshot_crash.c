/*
 * test_snapshot_crash.c - a power loss, or the death of the process, at every step on the disk of a stop that writes a
 * snapshot and of a start that takes it. The process forks; the child has the accident at one step, starts again, and
 * finds what was there: nothing is lost, and nothing comes back, whatever is left of the snapshot.
 */
#include "snapshot_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

enum { KEYS = 120, BYTES = 1000, CHILD_SECONDS = 60, TAKEN = 76, ENDED_BEFORE = 77, STEPS_MAX = 400 };

static struct store_fixture fixture;
static struct engine_options options;

/* Of the child. */
static bool in_child;
static unsigned steps_left;
static enum sim_crash_mode mode;

/* The store of snapshot_fill, and what was done to it since. */
static void expect_all(void)
{
    segments_expect_none(&fixture, 1);
    segments_expect(&fixture, 3, 5, BYTES);
    segments_expect(&fixture, 2, 6, BYTES);
    for (unsigned i = 4; i < KEYS; i++) {
        if (i % 3 == 0)
            segments_expect_none(&fixture, i);
        else
            segments_expect(&fixture, i, i % 3 == 1 ? 2 : 1, BYTES);
    }
    for (unsigned i = 0; i < KEYS / 4; i++)
        segments_expect(&fixture, KEYS + i, 1, BYTES);
    assert_int_equal(store_keys(&fixture), snapshot_live(KEYS) + KEYS / 4);
    assert_int_equal(expiry_stats(&fixture).expires, KEYS / 4);
    segments_check_counts(&fixture, KEYS + KEYS / 4);
}

/* True when the first start has taken a snapshot. */
static bool check_after(void)
{
    store_boot(&fixture, &options);
    const bool taken = snapshot_taken(&fixture);
    expect_all();
    store_stop(&fixture);
    store_boot(&fixture, &options);
    assert_true(snapshot_taken(&fixture));
    expect_all();
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    expect_all();
    return taken;
}

static void crash_here(enum sim_event event, enum ring_kind kind)
{
    (void)kind;
    if (event == SIM_EVENT_ISSUE || steps_left-- > 0)
        return;
    sim_watch(NULL);
    sim_crash(mode);
    const bool taken = check_after();
    fflush(NULL);
    _exit(taken ? TAKEN : 0);
}

/* In a child, `action` is cut off at that step. Its exit status. */
static int crash_at(void (*action)(void), unsigned step)
{
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        in_child = true;
        alarm(CHILD_SECONDS);
        steps_left = step;
        sim_watch(crash_here);
        action();
        sim_watch(NULL);
        _exit(ENDED_BEFORE);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (code != 0 && code != TAKEN && code != ENDED_BEFORE)
        fail_msg("step %u, way of crashing %d", step, (int)mode);
    return code;
}

/* After some steps there is a snapshot that is good, after others there is none. */
static void crash_at_all(void (*action)(void))
{
    static const enum sim_crash_mode modes[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM, SIM_KILL};
    for (unsigned i = 0; i < ARRAY_COUNT(modes); i++) {
        mode = modes[i];
        unsigned step = 0, taken = 0;
        for (int code; (code = crash_at(action, step)) != ENDED_BEFORE; step++) {
            assert_true(step < STEPS_MAX);
            taken += code == TAKEN;
        }
        assert_true(step > 20 && taken < step);
        assert_true(taken > 0 || mode != SIM_KEEP_ALL); /* its name may be lost */
    }
}

/* A failed assertion of a child ends its test, and cmocka would go on with the next one. */
static int leave_if_child(void **state)
{
    (void)state;
    if (in_child) {
        fflush(NULL);
        _exit(1);
    }
    return 0;
}

/* A start by a snapshot, and some changes. */
static void make_store(uint64_t seed, unsigned shards)
{
    sim_create(seed);
    options = segments_scarce(shards);
    store_boot(&fixture, &options);
    snapshot_fill(&fixture, KEYS, BYTES);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    assert_true(snapshot_taken(&fixture));
    assert_true(segments_remove(&fixture, 1));
    segments_put(&fixture, 3, 5, BYTES);
    segments_put(&fixture, 2, 6, BYTES);
}

static void stop(void)
{
    store_stop_begin(&fixture);
    assert_true(sim_run_until(store_all_stopped, &fixture, 100000));
}

static void start(void)
{
    store_boot(&fixture, &options);
    assert_true(snapshot_taken(&fixture));
}

static void test_snapshot__crash_at_each_step_of_a_stop(void **state)
{
    (void)state;
    make_store(1, 2);
    crash_at_all(stop);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

static void test_snapshot__crash_at_each_step_of_a_start(void **state)
{
    (void)state;
    make_store(2, 2);
    store_stop(&fixture);
    crash_at_all(start);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_snapshot__crash_at_each_step_of_a_stop, leave_if_child),
        cmocka_unit_test_teardown(test_snapshot__crash_at_each_step_of_a_start, leave_if_child),
    };
    return cmocka_run_group_tests_name("snapshot_crash", tests, NULL, NULL);
}
