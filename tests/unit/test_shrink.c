/* test_shrink.c - failing plans made small: what is needed for the failure stays, all else goes. */
#include "shrink.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a world that fails when a crash with rot is followed by enough work on enough keys ------------------------- */

enum { KEYS_NEEDED = 5, WORK_NEEDED = 7 };

static enum { BREAKS, BREAKS_OTHERWISE_WHEN_SMALL, HANGS, LEAVES_OTHER_TRACES, ASSERTS } manner;

void plan_make(struct plan *plan, uint64_t seed)
{
    *plan = (struct plan){.seed = seed};
}

static bool has_crash_then_work(const struct plan *plan)
{
    bool crashed = false;
    for (uint32_t i = 0; i < plan->step_count; i++) {
        crashed |= plan->steps[i].kind == PLAN_CRASH && plan->steps[i].b > 0;
        if (crashed && plan->steps[i].kind == PLAN_WORK && plan->steps[i].b >= WORK_NEEDED && plan->keys >= KEYS_NEEDED)
            return true;
    }
    return false;
}

uint64_t world_run(const struct plan *plan, const struct world_options *options, struct tally *tally)
{
    static uint64_t visits;
    (void)options;
    tally->steps++;
    if (!has_crash_then_work(plan)) {
        if (manner != BREAKS_OTHERWISE_WHEN_SMALL || plan->step_count > 10)
            return 1;
        fprintf(stderr, "broken: something else is wrong\n");
        exit(WORLD_EXIT_BROKEN);
    }
    switch (manner) {
    case HANGS:
        for (;;)
            pause();
    case LEAVES_OTHER_TRACES:
        return ++visits;
    case ASSERTS:
        KVS_ASSERT(plan->step_count == 0);
        break;
    default:
        fprintf(stderr, "2026-01-31T12:00:00.123Z warn %u keys\nbroken: lost key %u\n", plan->keys, plan->keys);
        exit(WORLD_EXIT_BROKEN);
    }
    return 0;
}

static void make_large(struct plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->seed = 9;
    plan->threads = 3;
    plan->segment_kib = 256;
    plan->memory_segments = 8;
    plan->keys = 500;
    plan->value_bytes = 1000;
    plan->hash_bits = 8;
    plan->direct_align = 4096;
    plan->socket_bytes = 1000;
    plan->disk_segments = 3;
    plan->preempt_every = 20;
    plan->swaps_percent = 30;
    plan->scans_percent = 3;
    plan->groups_percent = 20;
    plan->flushes_permille = 5;
    plan->step_count = 100;
    for (uint32_t i = 0; i < plan->step_count; i++)
        plan->steps[i] = (struct plan_step){.kind = PLAN_RUN, .a = 100, .seed = i};
    plan->steps[31] = (struct plan_step){.kind = PLAN_CRASH, .a = SIM_RANDOM, .b = 4, .c = 3, .seed = 31};
    plan->steps[32] = (struct plan_step){.kind = PLAN_WORK, .a = 2, .b = WORK_NEEDED - 1, .seed = 32};
    plan->steps[77] = (struct plan_step){.kind = PLAN_WORK, .a = 1, .b = 300, .seed = 77};
}

/* Nothing but steps is left to lose. */
static void make_small_numbers(struct plan *plan)
{
    plan->threads = 1;
    plan->keys = KEYS_NEEDED;
    plan->value_bytes = 1;
    plan->hash_bits = 64;
    plan->socket_bytes = 0;
    plan->disk_segments = 0;
    plan->preempt_every = 0;
    plan->swaps_percent = 0;
    plan->scans_percent = 0;
    plan->flushes_permille = 0;
    plan->steps[31].b = 1;
    plan->steps[31].c = 1;
    plan->steps[77].b = WORK_NEEDED;
}

static const struct shrink_options usual = {.seconds = 600, .run_seconds_max = 60};

static bool is_smallest(const struct plan *plan)
{
    const struct plan_step *crash = &plan->steps[0], *work = &plan->steps[1];
    return plan->step_count == 2 && crash->kind == PLAN_CRASH && crash->seed == 31 && crash->a == SIM_RANDOM &&
           work->kind == PLAN_WORK && work->seed == 77 && work->a == 1;
}

/* ---- shrinking --------------------------------------------------------------------------------------------------- */

static void test_shrink__what_is_not_needed_goes(void **state)
{
    (void)state;
    static struct plan plan;
    make_large(&plan);
    manner = BREAKS;
    const struct shrink_report report = shrink_plan(&plan, &usual);
    assert_true(report.failed && report.finished);
    assert_int_equal(report.steps_before, 100);
    assert_string_equal(report.failure_class, "broken: lost key ");
    assert_true(is_smallest(&plan));
    assert_int_equal(plan.steps[0].b, 1);
    assert_int_equal(plan.steps[0].c, 1);
    assert_in_range(plan.steps[1].b, WORK_NEEDED, 2 * WORK_NEEDED);
    assert_in_range(plan.keys, KEYS_NEEDED, 2 * KEYS_NEEDED);
    assert_int_equal(plan.threads, 1);
    assert_int_equal(plan.hash_bits, 64);
    assert_int_equal(plan.socket_bytes, 0);
    assert_int_equal(plan.disk_segments, 0);
    assert_int_equal(plan.preempt_every, 0);
    assert_int_equal(plan.swaps_percent, 0);
    assert_int_equal(plan.scans_percent, 0);
    assert_int_equal(plan.flushes_permille, 0);
    assert_int_equal(plan.value_bytes, 1);
    assert_int_equal(plan.segment_kib, 256);
    assert_true(report.attempts < 150);
}

static void test_shrink__other_failures_are_not_followed(void **state)
{
    (void)state;
    static struct plan plan;
    make_large(&plan);
    manner = BREAKS_OTHERWISE_WHEN_SMALL;
    const struct shrink_report report = shrink_plan(&plan, &usual);
    assert_true(report.finished);
    assert_true(is_smallest(&plan));
}

static void test_shrink__assertions_and_hangs_and_other_traces_shrink_too(void **state)
{
    (void)state;
    static struct plan plan;
    make_large(&plan);
    manner = ASSERTS;
    assert_true(shrink_plan(&plan, &usual).finished);
    assert_true(is_smallest(&plan));

    make_large(&plan);
    manner = LEAVES_OTHER_TRACES;
    const struct shrink_report report = shrink_plan(&plan, &usual);
    assert_true(report.finished);
    assert_string_equal(report.failure_class, RUNNER_DOES_NOT_REPLAY);
    assert_true(is_smallest(&plan));

    /* Each candidate that hangs takes its time, and one that does not may take as long on a busy machine. */
    manner = HANGS;
    struct shrink_options short_runs = {.seconds = 60, .run_seconds_max = 0.1};
    bool smallest = false;
    for (; !smallest && short_runs.run_seconds_max < 4; short_runs.run_seconds_max *= 2) {
        make_large(&plan);
        make_small_numbers(&plan);
        smallest = shrink_plan(&plan, &short_runs).finished && is_smallest(&plan);
    }
    assert_true(smallest);
}

static void test_shrink__plan_that_passes_stays(void **state)
{
    (void)state;
    static struct plan plan, before;
    make_large(&plan);
    plan.steps[31].kind = PLAN_RUN;
    before = plan;
    manner = BREAKS;
    const struct shrink_report report = shrink_plan(&plan, &usual);
    assert_false(report.failed || report.finished);
    assert_int_equal(report.attempts, 1);
    assert_memory_equal(&plan, &before, sizeof plan);
}

static void test_shrink__time_ends_it_with_a_plan_that_fails(void **state)
{
    (void)state;
    static struct plan plan;
    make_large(&plan);
    manner = HANGS;
    const struct shrink_options little = {.seconds = 0.5, .run_seconds_max = 0.3};
    const struct shrink_report report = shrink_plan(&plan, &little);
    assert_true(report.failed);
    assert_false(report.finished);
    assert_true(has_crash_then_work(&plan));
}

/* ---- classes ----------------------------------------------------------------------------------------------------- */

static void test_shrink__classes_hold_what_failures_of_a_kind_share(void **state)
{
    (void)state;
    static const struct {
        const char *reason, *text, *failure_class;
    } cases[] = {
        {"exited with status 3", "broken: lost key 17 at 5 s\nmore\n", "broken: lost key "},
        {"exited with status 3", "broken: lost 'abc'\n", "broken: lost "},
        {"exited with status 3", "broken: all is lost", "broken: all is lost"},
        {"exited with status 3", "some noise\nbroken: lost\n", "broken: lost"},
        {"exited with status 3", "2026-01-31T12:00:00.123Z warn noise\nsomething new 5\n", "something new "},
        {"exited with status 3", "<4>noise for a journal\nsomething new\n", "something new"},
        {"exited with status 3", "2026-01-31T12:00:00.123Z warn noise\n", "exited with status 3"},
        {"killed by signal 11 (Segmentation fault)", "", "killed by signal 11 (Segmentation fault)"},
        {"killed by signal 6 (Aborted)", "noise\nkvs: assertion failed at a/b.c:12 in f: x == 5\n",
         "assertion failed at a/b.c:12 in f"},
        {"exited with status 1", "a/b.c:12:7: runtime error: signed overflow: 5 + 6\n", "a/b.c:12:7"},
        {"exited with status 1",
         "=====\n==77==ERROR: AddressSanitizer: heap-use-after-free on address 0x12\n    #0 0x55\n"
         "SUMMARY: AddressSanitizer: heap-use-after-free a/b.c:12:3 in f\n==77==ABORTING\n",
         "SUMMARY: AddressSanitizer: heap-use-after-free a/b.c:12:3 in f"},
        {"exited with status 23", "SUMMARY: AddressSanitizer: 77 byte(s) leaked in 1 allocation(s).\n",
         "SUMMARY: AddressSanitizer: "},
        {"exited with status 3", RUNNER_DOES_NOT_REPLAY ": the trace is 12\n", RUNNER_DOES_NOT_REPLAY},
        {RUNNER_TOO_SLOW " than 12 s", "noise\n", RUNNER_TOO_SLOW},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char reason[128], text[512], failure_class[SHRINK_CLASS_BYTES];
        struct runner_failure failure = {.text = text};
        snprintf(reason, sizeof reason, "%s", cases[i].reason);
        memcpy(failure.reason, reason, sizeof reason);
        snprintf(text, sizeof text, "%s", cases[i].text);
        shrink_class(&failure, failure_class);
        assert_string_equal(failure_class, cases[i].failure_class);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shrink__what_is_not_needed_goes),
        cmocka_unit_test(test_shrink__other_failures_are_not_followed),
        cmocka_unit_test(test_shrink__assertions_and_hangs_and_other_traces_shrink_too),
        cmocka_unit_test(test_shrink__plan_that_passes_stays),
        cmocka_unit_test(test_shrink__time_ends_it_with_a_plan_that_fails),
        cmocka_unit_test(test_shrink__classes_hold_what_failures_of_a_kind_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
