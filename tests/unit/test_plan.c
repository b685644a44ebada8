/* test_plan.c - plans of the simulator as text: what is printed is read back as it was, and nothing else is read. */
#include "plan.h"

#include "base/bytes.h"
#include "ring_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TEXT_BYTES = 65536 };

static struct plan first, again;
static char text[TEXT_BYTES];

/* What "seed N" makes here. */
void plan_make(struct plan *plan, uint64_t seed)
{
    *plan = (struct plan){.seed = seed, .threads = 7};
}

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state ^ (*state >> 32);
}

/* Small numbers and the largest that there may be. */
static uint32_t number(uint64_t *state, uint32_t min, uint32_t max)
{
    const uint64_t choice = draw(state) % 4;
    if (choice == 0)
        return max;
    return choice == 1 ? min : min + (uint32_t)(draw(state) % ((uint64_t)max - min + 1));
}

static void make_random(struct plan *out, uint64_t state)
{
    memset(out, 0, sizeof *out); /* the gaps, too: plans are compared as bytes */
    out->seed = draw(&state);
    out->threads = number(&state, 1, 64);
    out->segment_kib = number(&state, 1, UINT32_MAX);
    out->memory_segments = number(&state, 1, UINT32_MAX);
    out->keys = number(&state, 1, UINT32_MAX);
    out->value_bytes = number(&state, 0, UINT32_MAX);
    out->hash_bits = number(&state, 1, 64);
    out->direct_align = number(&state, 0, UINT32_MAX);
    out->socket_bytes = number(&state, 0, UINT32_MAX);
    out->disk_segments = number(&state, 0, 1000000);
    out->preempt_every = number(&state, 0, 1000000);
    out->swaps_percent = number(&state, 0, 100);
    out->scans_percent = number(&state, 0, 100);
    out->groups_percent = number(&state, 0, 100);
    out->flushes_permille = number(&state, 0, 1000);
    out->step_count = number(&state, 0, PLAN_STEPS_MAX);
    for (uint32_t i = 0; i < out->step_count; i++) {
        static const uint32_t most_a[PLAN_KIND_COUNT] = {
            [PLAN_WORK] = PLAN_CLIENTS - 1,
            [PLAN_CLOSE] = PLAN_CLIENTS - 1,
            [PLAN_ODDS] = SIM_FAULT_COUNT - 1,
            [PLAN_FAIL] = RING_KIND_COUNT - 1,
            [PLAN_CRASH] = SIM_KILL,
            [PLAN_STOP] = 1,
            [PLAN_BACKUP] = 1,
            [PLAN_RESTORE] = 1,
            [PLAN_CLOCK] = 1000000000,
            [PLAN_RELIEF] = 1000,
        };
        struct plan_step *step = &out->steps[i];
        step->kind = (enum plan_kind)(draw(&state) % PLAN_KIND_COUNT);
        step->a = number(&state, 0, most_a[step->kind] != 0 ? most_a[step->kind] : UINT32_MAX);
        step->b = number(&state, 0,
                         step->kind == PLAN_ODDS                                ? 1000000
                         : step->kind == PLAN_CLOSE || step->kind == PLAN_CLOCK ? 1
                                                                                : UINT32_MAX);
        step->c = number(&state, 0, step->kind == PLAN_WORK ? WORK_STYLE_COUNT - 1 : UINT32_MAX);
        step->seed = draw(&state) % 3 == 0 ? UINT64_MAX : draw(&state);
    }
}

static void test_plan__what_is_printed_is_read_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        make_random(&first, seed);
        const size_t length = plan_print(&first, text, sizeof text);
        assert_true(length < sizeof text);
        assert_int_equal(length, strlen(text));
        unsigned line;
        memset(&again, 0xff, sizeof again);
        if (!plan_parse(&again, text, &line))
            fail_msg("plan %llu cannot be read at line %u:\n%s", (unsigned long long)seed, line, text);
        assert_memory_equal(&again, &first, sizeof first);
    }
}

static void test_plan__printing_keeps_to_the_size_and_tells_what_it_wants(void **state)
{
    (void)state;
    make_random(&first, 4);
    first.step_count = 3;
    static char whole[TEXT_BYTES];
    const size_t length = plan_print(&first, whole, sizeof whole);
    assert_int_equal(plan_print(&first, NULL, 0), length);
    for (size_t size = 1; size <= length + 1; size++) {
        memset(text, '~', sizeof text);
        assert_int_equal(plan_print(&first, text, size), length);
        assert_memory_equal(text, whole, size - 1);
        assert_int_equal(text[size - 1], '\0');
        assert_int_equal(text[size], '~');
    }
}

#define SETTINGS                                                                                      \
    "seed 5\nthreads 1\nsegment_kib 256\nmemory_segments 4\nkeys 10\nvalue_bytes 100\nhash_bits 64\n" \
    "direct_align 4096\nsocket_bytes 0\ndisk_segments 0\npreempt_every 0\n" /* lines 2 to 12 after "plan 1" */

static void test_plan__comments_blanks_and_order_do_not_matter(void **state)
{
    (void)state;
    unsigned line;
    assert_true(plan_parse(&first, "plan 1\n" SETTINGS "work 1 20 0 77\ncheck 0 0 0 1\n", &line));
    assert_int_equal(first.step_count, 2);
    assert_int_equal(first.steps[0].kind, PLAN_WORK);
    assert_int_equal(first.steps[0].b, 20);
    assert_int_equal(first.steps[0].seed, 77);
    assert_true(plan_parse(&again,
                           "# found: something\n\n  plan\t1 # version\npreempt_every 0\ndisk_segments 0\nsocket_bytes "
                           "0\ndirect_align 4096\n"
                           "hash_bits 64\nvalue_bytes 100\n\t\nkeys 10\nmemory_segments 4\nsegment_kib 256\nthreads 1\n"
                           "seed 5\n work  1\t20 0   77# as it was\n#\ncheck 0 0 0 1",
                           &line));
    assert_memory_equal(&again, &first, sizeof first);
}

static void expect_refused(const char *bad, unsigned bad_line)
{
    unsigned line = 0;
    if (plan_parse(&first, bad, &line))
        fail_msg("was read:\n%s", bad);
    if (line != bad_line)
        fail_msg("line %u is told, not %u, of:\n%s", line, bad_line, bad);
}

/* Plans that are older than a setting lack it. */
static void test_plan__swaps_may_be_left_out(void **state)
{
    (void)state;
    unsigned line;
    assert_true(plan_parse(&first, "plan 1\n" SETTINGS "work 1 20 0 77\n", &line));
    assert_int_equal(first.swaps_percent, 0);
    assert_true(plan_parse(&first, "plan 1\n" SETTINGS "swaps_percent 30\nwork 1 20 0 77\n", &line));
    assert_int_equal(first.swaps_percent, 30);
    assert_int_equal(first.scans_percent, 0);
    assert_true(plan_parse(&first, "plan 1\n" SETTINGS "scans_percent 3\nwork 1 20 0 77\n", &line));
    assert_int_equal(first.scans_percent, 3);
    expect_refused("plan 1\n" SETTINGS "swaps_percent 30\nswaps_percent 30\n", 14);
    expect_refused("plan 1\n" SETTINGS "work 1 20 0 77\nswaps_percent 30\n", 14);
}

static void test_plan__lone_seed_makes_the_plan_of_the_seed(void **state)
{
    (void)state;
    unsigned line;
    assert_true(plan_parse(&first, "# a seed\nseed 18446744073709551615\n\n# that was all\n", &line));
    assert_true(first.seed == UINT64_MAX);
    assert_int_equal(first.threads, 7);
    assert_true(plan_parse(&first, "seed 3", &line));
    assert_true(first.seed == 3);
}

/* Each in the second line of a plan. */
static const char *const bad_settings[] = {
    "thread 1",   /* unknown */
    "threads 0",  /* too few */
    "threads 65", /* too many */
    "hash_bits 65",
    "hash_bits 0",
    "keys 0",
    "keys 4294967296",
    "keys 99999999999999999999999999",
    "keys 36893488147419103242", /* ten, when it wraps */
    "keys",
    "keys 1 1",
    "keys +1",
    "keys 1.5",
    "keys ten",
    "disk_segments 1000001",
    "swaps_percent 101",
    "scans_percent 101",
    "groups_percent 101",
};

/* Each behind all settings, in line 13. */
static const char *const bad_steps[] = {
    "keys 11", /* twice */
    "seed 5",  /* twice */
    "labour 1 20 0 77",
    "work 1 20 0",
    "work 1 20 0 77 1",
    "work 1 20 0 77 1 1 1",
    "work",
    "work 6 20 0 77", /* no such client */
    "work 1 20 4 77", /* no such style */
    "relief 1001 0 0 77",
    "run 4294967296 0 0 1",
    "run 1 4294967296 0 1",
    "run 1 0 4294967296 1",
    "run 1 0 0 18446744073709551616",
    "odds 99 1 0 1",      /* no such fault */
    "odds 1 1000001 0 1", /* more than always */
    "fail 99 1 5 1",      /* no such kind */
    "close 1 2 0 1",
    "close 6 1 0 1",
    "crash 4 0 1 1", /* no such mode */
    "stop 2 0 1 1",
};

/* And the line that is told. */
static const struct bad_plan {
    const char *text;
    unsigned line;
} bad_plans[] = {
    {"", 1},
    {"\n\n# nothing\n", 3},
    {"plan 2\n" SETTINGS, 1},
    {"plan 0\n" SETTINGS, 1},
    {"plan\n" SETTINGS, 1},
    {"plan 1 1\n" SETTINGS, 1},
    {"plans 1\n" SETTINGS, 1},
    {"threads 1\n", 1},
    {"seed\n", 1},
    {"seed -1\n", 1},
    {"seed 0x10\n", 1},
    {"seed 18446744073709551616\n", 1},
    {"seed 100000000000000000000\n", 1},
    {"seed 1 2\n", 1},
    {"seed 1\nseed 2\n", 2},
    {"seed 1\n\nplan 1\n", 3},
    {"seed 1\nwork 1 2 3 4\n", 2},
    {"plan 1\n", 1},
    {"plan 1\nplan 1\n" SETTINGS, 2},
    {"plan 1\nseed 1\nthreads 1\n", 3},                  /* ends too early */
    {"plan 1\nseed 1\nthreads 1\nwork 1 2 3 4\n#\n", 4}, /* steps too early */
    {"plan 1\r\n" SETTINGS, 1},
    {"plan 1\n" SETTINGS "work 1 20 0 77\nkeys 5\n", 14}, /* a setting too late */
    {"plan 1\n" SETTINGS "check 0 0 0 1\n\n# next\nchecks 0 0 0 1\ncheck 0 0 0 1\n", 16},
};

static void test_plan__bad_lines_are_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad_settings); i++) {
        snprintf(text, sizeof text, "plan 1\n%s\nseed 1\n", bad_settings[i]);
        expect_refused(text, 2);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad_steps); i++) {
        snprintf(text, sizeof text, "plan 1\n" SETTINGS "%s\n", bad_steps[i]);
        expect_refused(text, 13);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad_plans); i++)
        expect_refused(bad_plans[i].text, bad_plans[i].line);
}

static void test_plan__more_steps_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    size_t length = (size_t)snprintf(text, sizeof text, "plan 1\n" SETTINGS);
    for (unsigned i = 0; i < PLAN_STEPS_MAX; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "run 1 0 0 %u\n", i);
    unsigned line;
    assert_true(plan_parse(&first, text, &line));
    assert_int_equal(first.step_count, PLAN_STEPS_MAX);
    snprintf(text + length, sizeof text - length, "run 1 0 0 1\n");
    assert_false(plan_parse(&first, text, &line));
    assert_int_equal(line, 13 + PLAN_STEPS_MAX);
}

static void test_plan__kinds_have_names_of_their_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PLAN_KIND_COUNT; i++) {
        assert_true(strlen(plan_kind_name((enum plan_kind)i)) > 0);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(plan_kind_name((enum plan_kind)i), plan_kind_name((enum plan_kind)j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan__what_is_printed_is_read_back),
        cmocka_unit_test(test_plan__printing_keeps_to_the_size_and_tells_what_it_wants),
        cmocka_unit_test(test_plan__comments_blanks_and_order_do_not_matter),
        cmocka_unit_test(test_plan__swaps_may_be_left_out),
        cmocka_unit_test(test_plan__lone_seed_makes_the_plan_of_the_seed),
        cmocka_unit_test(test_plan__bad_lines_are_refused_and_named),
        cmocka_unit_test(test_plan__more_steps_than_there_is_room_for_are_refused),
        cmocka_unit_test(test_plan__kinds_have_names_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
