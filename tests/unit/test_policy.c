/*
 * test_policy.c - single decisions of compaction: need, urgency, victims. What they come to over time is in
 * test_policy_model.c.
 */
#include "policy_fixture.h"

#include <stdlib.h>
#include <time.h>

enum { S = 1000000 }; /* bytes of a segment */

/* A store with nothing but these segments; plenty of room. */
static struct policy_store store_of(const struct policy_segment *segments, size_t count)
{
    struct policy_store store = {.segment_bytes = S,
                                 .files = count + 5,
                                 .files_free = 2,
                                 .files_addable = 1000000,
                                 .open = 3,
                                 .open_min_lsn = UINT64_MAX};
    for (size_t i = 0; i < count; i++)
        store.live_bytes += segments[i].live_bytes;
    return store;
}

static struct policy_segment segment_of(uint32_t number, uint64_t live_bytes)
{
    return (struct policy_segment){.number = number,
                                   .order = number,
                                   .live_bytes = live_bytes,
                                   .puts = 1000,
                                   .dead_puts = live_bytes < S ? 1000 - live_bytes / 1000 : 0,
                                   .record_bytes_max = 1000,
                                   .min_lsn = number * 1000ull,
                                   .last_lsn = number * 1000ull + 999,
                                   .deletes_min_lsn = number * 1000ull,
                                   .deletes_last_lsn = number * 1000ull + 999};
}

static void test_policy__empty_store_has_nothing_to_do(void **state)
{
    (void)state;
    struct policy_store store = store_of(NULL, 0);
    assert_int_equal(choose(NULL, 0, &store).count, 0);
    store.files_free = store.files_addable = 0;
    assert_int_equal(policy_urgency(&store, &options_200), 100);
    assert_int_equal(choose(NULL, 0, &store).count, 0);
}

static void test_policy__no_need_no_plan(void **state)
{
    (void)state;
    struct policy_segment segments[100];
    for (uint32_t i = 0; i < 100; i++)
        segments[i] = segment_of(i, S * 6 / 10);
    struct policy_store store = store_of(segments, 100);
    assert_int_equal(policy_urgency(&store, &options_200), 0);
    assert_int_equal(choose(segments, 100, &store).count, 0);
    for (uint32_t i = 0; i < 100; i++)
        segments[i] = segment_of(i, S * 4 / 10);
    store = store_of(segments, 100);
    struct policy_plan plan = choose(segments, 100, &store);
    assert_int_equal(plan.count, 10); /* the copy of four segments */
    assert_int_equal(plan.gain, 5);
}

static void test_policy__empty_segments_come_first_and_without_need(void **state)
{
    (void)state;
    struct policy_segment segments[100];
    for (uint32_t i = 0; i < 100; i++)
        segments[i] = segment_of(i, S);
    segments[70] = segment_of(70, 0);
    segments[20] = segment_of(20, 0);
    struct policy_store store = store_of(segments, 100);
    struct policy_plan plan = choose(segments, 100, &store);
    assert_int_equal(plan.count, 2);
    assert_int_equal(plan.victims[0], 20);
    assert_int_equal(plan.victims[1], 70);
    assert_int_equal(plan.gain, 2);
    assert_int_equal(plan.copy_bytes, 0);
    assert_int_equal(plan.urgency, 1);
}

static void test_policy__deletes_that_may_be_needed_are_not_nothing(void **state)
{
    (void)state;
    struct policy_segment segments[3] = {segment_of(1, S), segment_of(2, 0), segment_of(3, S)};
    segments[1].deletes_bytes = 5000;
    struct policy_store store = store_of(segments, 3);
    assert_int_equal(choose(segments, 3, &store).count, 1);
    segments[0].dead_puts = 1; /* and these may be what was deleted */
    assert_int_equal(choose(segments, 3, &store).count, 0);
    segments[0].relocated = true;
    segments[0].begun_lsn = 2998;
    assert_int_equal(choose(segments, 3, &store).count, 0);
    segments[0].begun_lsn = 2999; /* the last of the deletes was known when it was begun */
    assert_int_equal(choose(segments, 3, &store).count, 1);
    store.open_min_lsn = 2500;
    assert_int_equal(choose(segments, 3, &store).count, 0);
    store.open_min_lsn = 3000;
    assert_int_equal(choose(segments, 3, &store).count, 1);
}

static void test_policy__shadows_only_what_it_may_hold(void **state)
{
    (void)state;
    struct policy_segment segment = {.puts = 10, .dead_puts = 1, .min_lsn = 100, .last_lsn = 200, .begun_lsn = 500};
    assert_true(policy_shadows(&segment, 101));
    assert_true(policy_shadows(&segment, 150));
    assert_true(policy_shadows(&segment, 300));
    assert_false(policy_shadows(&segment, 100));
    assert_false(policy_shadows(&segment, 99));
    segment.relocated = true;
    assert_false(policy_shadows(&segment, 500));
    assert_true(policy_shadows(&segment, 501));
    segment.dead_puts = 0;
    assert_false(policy_shadows(&segment, 501));
    segment.relocated = false;
    assert_false(policy_shadows(&segment, 150));
}

static void test_policy__urgency_rises_to_the_last_file(void **state)
{
    (void)state;
    for (uint64_t files_max = 8; files_max < 100000; files_max *= 3) {
        unsigned before = 0, steps = 0;
        for (uint64_t free = files_max; free-- > 0;) {
            struct policy_store store = {.segment_bytes = S,
                                         .files = files_max - free / 2,
                                         .files_free = free - free / 2,
                                         .files_addable = free / 2,
                                         .open = 4,
                                         .live_bytes = files_max * S};
            unsigned urgency = policy_urgency(&store, &options_200);
            assert_true(urgency >= before && urgency <= 100);
            if (free > 2 + 64 || free > 2 + files_max / 16 + 2)
                assert_int_equal(urgency, 0);
            if (free <= 2)
                assert_int_equal(urgency, 100);
            else
                assert_true(urgency < 100);
            steps += urgency != before;
            before = urgency;
        }
        assert_true(steps >= 2);
    }
    unsigned before = 0;
    for (uint64_t used = 100; used < 1000; used++) {
        struct policy_store store = {
            .segment_bytes = S, .files = used + 4, .files_addable = 1000000, .open = 4, .live_bytes = 200ull * S};
        unsigned urgency = policy_urgency(&store, &options_200);
        assert_true(urgency >= before && urgency <= before + 3 && urgency < 100);
        assert_int_equal(urgency > 0, used > 377);
        before = urgency;
    }
    assert_int_equal(before, 99);
}

static void test_policy__nearly_full_store_gains_what_it_can(void **state)
{
    (void)state;
    static struct policy_segment segments[1000];
    for (uint32_t i = 0; i < 1000; i++)
        segments[i] = segment_of(i, S / 100 * 95 + (i * 37) % 1000 * 50);
    struct policy_store store = store_of(segments, 1000);
    store.files_addable = store.files_free = 0;
    struct policy_plan plan = choose(segments, 1000, &store);
    assert_int_equal(plan.urgency, 100);
    assert_int_equal(plan.gain, 1);
    assert_in_range(plan.count, 20, 24);
    for (uint32_t i = 0; i < 1000; i++)
        segments[i] = segment_of(i, 999000);
    assert_int_equal(choose(segments, 1000, &store).count, 0);
}

/* Two of more than half a segment can never share one, however much of each is dead. */
static void test_policy__large_records_are_not_shuffled(void **state)
{
    (void)state;
    struct policy_segment segments[60];
    for (uint32_t i = 0; i < 60; i++) {
        segments[i] = segment_of(i, S * 51 / 100);
        segments[i].record_bytes_max = S * 51 / 100;
    }
    struct policy_store store = store_of(segments, 60);
    store.files_free = store.files_addable = 0;
    assert_int_equal(choose(segments, 60, &store).count, 0);
    for (uint32_t i = 0; i < 60; i++)
        segments[i].record_bytes_max = S / 10;
    assert_int_not_equal(choose(segments, 60, &store).count, 0);
}

static void test_policy__old_space_is_worth_more_than_young(void **state)
{
    (void)state;
    struct policy_segment segments[200];
    for (uint32_t i = 0; i < 200; i++)
        segments[i] = segment_of(i, i < 100 ? S / 2 : S / 100 * 47);
    struct policy_store store = store_of(segments, 200);
    store.files_free = 1;
    store.files_addable = 0;
    struct policy_plan plan = choose(segments, 200, &store);
    for (unsigned i = 0; i < plan.count; i++)
        assert_in_range(plan.victims[i], 0, 99);
    for (unsigned i = 1; i < plan.count; i++)
        assert_true(plan.victims[i - 1] < plan.victims[i]); /* neighbours in age come to lie together */
}

/* Whatever the figures, a plan keeps its promises. */
static void test_policy__random_figures_give_sound_plans(void **state)
{
    (void)state;
    uint64_t seed = 7;
    static struct policy_segment segments[400];
    unsigned plans = 0, purges = 0;
    for (unsigned turn = 0; turn < 3000; turn++) {
        size_t count = 1 + next_random(&seed) % (turn % 2 == 0 ? 12 : 400);
        uint64_t fullest = 1 + next_random(&seed) % S, largest = 1 + next_random(&seed) % (turn % 3 == 0 ? S : 5000);
        for (uint32_t i = 0; i < count; i++) {
            segments[i] = segment_of(i, next_random(&seed) % fullest);
            segments[i].record_bytes_max = largest;
            segments[i].deletes_bytes = next_random(&seed) % (S - segments[i].live_bytes);
            segments[i].relocated = next_random(&seed) % 2 == 0;
            segments[i].begun_lsn = next_random(&seed) % 400000;
            if (next_random(&seed) % 2 == 0)
                segments[i].dead_puts = 0;
        }
        struct policy_store store = store_of(segments, count);
        store.files_addable = next_random(&seed) % 50;
        struct policy_plan plan = choose(segments, count, &store);
        plans += plan.count > 0;
        purges += plan.purges > 0;
    }
    assert_true(plans > 500 && purges > 20);
}

static void test_policy__large_store_takes_little_time(void **state)
{
    (void)state;
    enum { COUNT = 100000, ROUNDS = 20 };
    struct policy_segment *segments = malloc(COUNT * sizeof *segments);
    assert_non_null(segments);
    uint64_t seed = 3;
    for (uint32_t i = 0; i < COUNT; i++) {
        segments[i] = segment_of(i, next_random(&seed) % S);
        segments[i].deletes_bytes = (S - segments[i].live_bytes) / 2;
    }
    struct policy_store store = store_of(segments, COUNT);
    store.files_addable = 0;
    struct policy_plan plan;
    clock_t begin = clock();
    for (unsigned i = 0; i < ROUNDS; i++)
        policy_choose(&plan, segments, COUNT, &store, &options_200);
    double ms = (double)(clock() - begin) * 1000 / CLOCKS_PER_SEC / ROUNDS;
    assert_int_not_equal(plan.count, 0);
    print_message("100,000 segments: %.2f ms for a choice\n", ms);
    assert_true(ms < 200); /* a quadratic one takes minutes */
    free(segments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy__empty_store_has_nothing_to_do),
        cmocka_unit_test(test_policy__no_need_no_plan),
        cmocka_unit_test(test_policy__empty_segments_come_first_and_without_need),
        cmocka_unit_test(test_policy__deletes_that_may_be_needed_are_not_nothing),
        cmocka_unit_test(test_policy__shadows_only_what_it_may_hold),
        cmocka_unit_test(test_policy__urgency_rises_to_the_last_file),
        cmocka_unit_test(test_policy__nearly_full_store_gains_what_it_can),
        cmocka_unit_test(test_policy__large_records_are_not_shuffled),
        cmocka_unit_test(test_policy__old_space_is_worth_more_than_young),
        cmocka_unit_test(test_policy__random_figures_give_sound_plans),
        cmocka_unit_test(test_policy__large_store_takes_little_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
