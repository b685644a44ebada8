/*
 * test_runner.c - worker processes of the simulator: every number once, tallies added up, and no run that dies unseen.
 *
 * The world here does what the seed of a plan says, and notes in shared memory that it was there.
 */
#include "runner.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { NUMBERS = 1000 };

enum deed {
    PASS,
    PASS_SLOWLY,
    BREAK,
    ASSERT,
    DIE_OF_SIGNAL,
    HANG,
    END_WELL, /* too early */
    CHATTER,
    LEAVE_ANOTHER_TRACE,
    INTERRUPT_PARENT,
};

static struct board {
    unsigned visits[NUMBERS];
    pid_t pid; /* of who hangs */
} * board;

static enum deed deeds[NUMBERS];

static void sleep_ms(long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

_Noreturn static void chatter(void)
{
    for (unsigned i = 0; i < 20000; i++)
        fprintf(stderr, "line %u of many\n", i);
    exit(WORLD_EXIT_BROKEN);
}

void plan_make(struct plan *plan, uint64_t seed)
{
    *plan = (struct plan){.seed = seed};
}

uint64_t world_run(const struct plan *plan, const struct world_options *options, struct tally *tally)
{
    KVS_ASSERT(plan->seed < NUMBERS);
    const unsigned visit = __atomic_add_fetch(&board->visits[plan->seed], 1, __ATOMIC_RELAXED);
    tally->runs++; /* the runner counts by itself */
    tally->operations += plan->seed;
    tally->faults[SIM_FAULT_COUNT - 1]++;
    if (options->story)
        fprintf(stderr, "a story\n");
    switch (deeds[plan->seed]) {
    case PASS:
        break;
    case PASS_SLOWLY:
        sleep_ms(20);
        break;
    case BREAK:
        fprintf(stderr, "broken: key %llu has gone\n", (unsigned long long)plan->seed);
        exit(WORLD_EXIT_BROKEN);
    case ASSERT:
        KVS_ASSERT(plan->seed == 0);
        break;
    case DIE_OF_SIGNAL:
        raise(SIGKILL);
        break;
    case HANG:
        board->pid = getpid();
        for (;;)
            pause();
    case END_WELL:
        exit(0);
    case CHATTER:
        chatter();
    case LEAVE_ANOTHER_TRACE:
        return visit;
    case INTERRUPT_PARENT:
        kill(getppid(), SIGINT);
        break;
    }
    return 1000 + plan->seed;
}

static void plan_for(const void *context, uint64_t number, struct plan *plan)
{
    assert_ptr_equal(context, board);
    plan_make(plan, number);
}

static struct runner_options options_for(uint64_t first, uint64_t last)
{
    return (struct runner_options){
        .plan_for = plan_for,
        .context = board,
        .first = first,
        .last = last,
        .run_seconds_max = 60,
        .jobs = 3,
        .failures_max = 10,
    };
}

static int set_up(void **state)
{
    (void)state;
    memset(deeds, 0, sizeof deeds);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return board == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    const bool childless = waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD;
    munmap(board, sizeof *board);
    return childless ? 0 : -1;
}

/* The only failure, of `number`; its reason and its text hold these. */
static void assert_fails(uint64_t number, struct runner_options options, const char *reason, const char *text)
{
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 1);
    assert_true(result.failures[0].number == number);
    if (strstr(result.failures[0].reason, reason) == NULL || strstr(result.failures[0].text, text) == NULL)
        fail_msg("reason: %s, text: %s", result.failures[0].reason, result.failures[0].text);
    /* The others were run all the same, and nothing else. */
    assert_true(result.tally.runs == options.last - options.first + 1);
    runner_free(&result);
}

static void test_runner__every_number_is_run_once_and_tallies_add_up(void **state)
{
    (void)state;
    const struct runner_options options = options_for(10, 409);
    struct runner_result result = runner_run(&options);
    for (unsigned i = 0; i < NUMBERS; i++)
        assert_int_equal(board->visits[i], i >= 10 && i <= 409);
    assert_int_equal(result.failure_count, 0);
    assert_true(result.tally.runs == 400);
    assert_true(result.tally.operations == (10 + 409) * 400 / 2);
    assert_true(result.tally.faults[SIM_FAULT_COUNT - 1] == 400);
    assert_int_equal(result.jobs, 3);
    assert_false(result.interrupted || result.cut_short);
    runner_free(&result);
}

static void test_runner__there_are_no_more_workers_than_numbers(void **state)
{
    (void)state;
    struct runner_options options = options_for(7, 7);
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.jobs, 1);
    assert_true(result.trace == 1007);
    runner_free(&result);
    options = options_for(UINT64_MAX, UINT64_MAX); /* where a count would wrap round */
    assert_fails(UINT64_MAX, options, "signal 6", "assertion failed");
}

static void test_runner__deaths_are_failures_with_reason_and_text(void **state)
{
    (void)state;
    deeds[50] = BREAK;
    assert_fails(50, options_for(1, 99), "exited with status 3", "broken: key 50 has gone");
    deeds[50] = ASSERT;
    assert_fails(50, options_for(1, 99), "signal 6", "assertion failed");
    deeds[50] = DIE_OF_SIGNAL;
    assert_fails(50, options_for(1, 99), "signal 9", "");
    deeds[50] = END_WELL;
    assert_fails(50, options_for(1, 99), "exited with status 0", "");
    /* The last number: no worker is left to take over. */
    assert_fails(50, options_for(50, 50), "exited with status 0", "");
}

static void test_runner__failed_run_leaves_what_its_tally_had_come_to(void **state)
{
    (void)state;
    deeds[3] = BREAK;
    const struct runner_options options = options_for(1, 4);
    struct runner_result result = runner_run(&options);
    assert_true(result.tally.operations == 1 + 2 + 3 + 4);
    runner_free(&result);
}

static void test_runner__run_over_its_time_is_killed(void **state)
{
    (void)state;
    deeds[50] = HANG;
    struct runner_options options = options_for(1, 99);
    options.run_seconds_max = 0.3;
    struct runner_result result = runner_run(&options);
    bool killed = false;
    for (size_t i = 0; i < result.failure_count; i++) { /* on a busy machine others may have taken long */
        assert_non_null(strstr(result.failures[i].reason, "killed: took longer than 0.3 s"));
        killed |= result.failures[i].number == 50;
    }
    assert_true(killed && result.failure_count < 5);
    assert_true(result.tally.runs == 99);
    runner_free(&result);
}

static void test_runner__text_is_of_the_failed_run_alone(void **state)
{
    (void)state;
    struct runner_options options = options_for(1, 3);
    deeds[3] = BREAK;
    options.jobs = 1;
    options.world.story = true;
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 1);
    assert_string_equal(result.failures[0].text, "a story\nbroken: key 3 has gone\n");
    runner_free(&result);
}

static void test_runner__long_text_keeps_its_beginning_and_its_end(void **state)
{
    (void)state;
    deeds[5] = CHATTER;
    const struct runner_options options = options_for(5, 5);
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 1);
    const char *text = result.failures[0].text;
    assert_true(strlen(text) > RUNNER_TEXT_MAX / 2 && strlen(text) < RUNNER_TEXT_MAX + 100);
    assert_memory_equal(text, "line 0 of many\n", 15);
    assert_non_null(strstr(text, "[...]"));
    assert_string_equal(text + strlen(text) - 19, "line 19999 of many\n");
    runner_free(&result);
}

static void test_runner__other_traces_at_the_second_time_are_a_failure(void **state)
{
    (void)state;
    deeds[40] = LEAVE_ANOTHER_TRACE;
    struct runner_options options = options_for(1, 100);
    options.replay_every = 20;
    assert_fails(40, options, "status 3", RUNNER_DOES_NOT_REPLAY);
    for (unsigned i = 1; i <= 100; i++)
        assert_int_equal(board->visits[i], i % 20 == 0 ? 2 : 1);
    options.first = 41;
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 0);
    assert_true(result.replayed == 3);
    assert_true(result.tally.operations == (41 + 100) * 60 / 2); /* counted once */
    runner_free(&result);
}

static void test_runner__ends_early_after_enough_failures(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NUMBERS; i++)
        deeds[i] = i % 2 == 0 ? BREAK : PASS;
    struct runner_options options = options_for(1, NUMBERS - 1);
    options.jobs = 1;
    options.failures_max = 4;
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_true(result.failures[i].number == 2 * i + 2);
    assert_true(result.cut_short);
    assert_true(result.tally.runs == 8);
    runner_free(&result);
    options.last = 8; /* as many failures as there may be, but nothing left to cut */
    result = runner_run(&options);
    assert_int_equal(result.failure_count, 4);
    assert_false(result.cut_short);
    runner_free(&result);
}

static void test_runner__failures_of_many_workers_are_in_order(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NUMBERS; i++)
        deeds[i] = BREAK;
    struct runner_options options = options_for(0, 199);
    options.failures_max = 1000;
    struct runner_result result = runner_run(&options);
    assert_int_equal(result.failure_count, 200);
    for (unsigned i = 0; i < 200; i++)
        assert_true(result.failures[i].number == i);
    runner_free(&result);
}

static void test_runner__no_number_is_begun_after_the_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NUMBERS; i++)
        deeds[i] = PASS_SLOWLY;
    struct runner_options options = options_for(0, NUMBERS - 1);
    struct runner_result result = {0};
    for (options.seconds = 0.3; result.tally.runs == 0 && options.seconds < 3; options.seconds *= 2) {
        runner_free(&result);
        result = runner_run(&options);
    }
    assert_true(result.tally.runs > 0 && result.tally.runs < NUMBERS / 2);
    assert_true(result.abandoned == 0);
    assert_false(result.interrupted || result.cut_short);
    runner_free(&result);
}

static void test_runner__signal_ends_it_with_what_there_is(void **state)
{
    (void)state;
    deeds[50] = INTERRUPT_PARENT;
    for (unsigned i = 51; i < NUMBERS; i++)
        deeds[i] = PASS_SLOWLY;
    const struct runner_options options = options_for(0, NUMBERS - 1);
    struct runner_result result = runner_run(&options);
    assert_true(result.interrupted);
    assert_int_equal(result.failure_count, 0);
    assert_true(result.abandoned == 0);
    assert_true(result.tally.runs > 50 && result.tally.runs < NUMBERS);
    runner_free(&result);
}

static void test_runner__after_a_signal_runs_that_do_not_end_are_abandoned(void **state)
{
    (void)state;
    deeds[1] = HANG;
    deeds[2] = INTERRUPT_PARENT;
    const struct runner_options options = options_for(1, 2);
    struct runner_result result = runner_run(&options);
    assert_true(result.interrupted);
    assert_int_equal(result.failure_count, 0);
    assert_true(result.abandoned == 1 && result.tally.runs == 1);
    runner_free(&result);
}

static void test_runner__workers_die_with_their_parent(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what the parent leaves behind becomes ours */
    deeds[1] = HANG;
    const pid_t parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        const struct runner_options options = options_for(1, 1);
        struct runner_result result = runner_run(&options);
        runner_free(&result);
        _exit(0);
    }
    for (unsigned i = 0; i < 1000 && __atomic_load_n(&board->pid, __ATOMIC_RELAXED) == 0; i++)
        sleep_ms(10);
    assert_true(board->pid > 0);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    int status = 0;
    pid_t ended = 0;
    for (unsigned i = 0; i < 1000 && ended == 0; i++) {
        ended = waitpid(board->pid, &status, WNOHANG);
        if (ended == 0)
            sleep_ms(10);
    }
    if (ended == 0)
        kill(board->pid, SIGKILL);
    assert_int_equal(ended, board->pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

#define RUNNER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNNER_TEST(test_runner__every_number_is_run_once_and_tallies_add_up),
        RUNNER_TEST(test_runner__there_are_no_more_workers_than_numbers),
        RUNNER_TEST(test_runner__deaths_are_failures_with_reason_and_text),
        RUNNER_TEST(test_runner__failed_run_leaves_what_its_tally_had_come_to),
        RUNNER_TEST(test_runner__run_over_its_time_is_killed),
        RUNNER_TEST(test_runner__text_is_of_the_failed_run_alone),
        RUNNER_TEST(test_runner__long_text_keeps_its_beginning_and_its_end),
        RUNNER_TEST(test_runner__other_traces_at_the_second_time_are_a_failure),
        RUNNER_TEST(test_runner__ends_early_after_enough_failures),
        RUNNER_TEST(test_runner__failures_of_many_workers_are_in_order),
        RUNNER_TEST(test_runner__no_number_is_begun_after_the_time),
        RUNNER_TEST(test_runner__signal_ends_it_with_what_there_is),
        RUNNER_TEST(test_runner__after_a_signal_runs_that_do_not_end_are_abandoned),
        RUNNER_TEST(test_runner__workers_die_with_their_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
