/*
 * policy_fixture.h - what the tests of the policy share: a plan is never taken without a look at what it promises.
 */
#ifndef KVS_TESTS_POLICY_FIXTURE_H
#define KVS_TESTS_POLICY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compaction/policy.h"

static const struct policy_options options_200 = {.space_percent = 200};

/* What can be said of any plan. */
static inline void plan_check(const struct policy_plan *plan, const struct policy_segment *segments, size_t count,
                              const struct policy_store *store)
{
    assert_in_range(plan->count, 0, POLICY_VICTIMS_MAX);
    assert_int_equal(plan->count == 0, plan->urgency == 0);
    assert_true(plan->urgency <= 100);
    if (plan->count == 0)
        return;
    assert_true(plan->gain > 0 || plan->purges > 0);
    assert_true(plan->gain <= plan->count);
    double copy = 0;
    uint64_t record_max = 0;
    for (unsigned i = 0; i < plan->count; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(plan->victims[i], plan->victims[j]);
        size_t at = 0;
        while (at < count && segments[at].number != plan->victims[i])
            at++;
        assert_true(at < count);
        if (segments[at].record_bytes_max > record_max)
            record_max = segments[at].record_bytes_max;
    }
    double capacity = (double)(store->segment_bytes - record_max);
    if (capacity < (double)store->segment_bytes / 2)
        capacity = (double)store->segment_bytes / 2;
    for (unsigned i = 0; i < plan->count; i++) {
        for (size_t at = 0; at < count; at++)
            if (segments[at].number == plan->victims[i])
                copy += (double)segments[at].live_bytes;
        assert_true(copy <= (i + 1) * capacity); /* each output but the first has a victim that came back before */
    }
    assert_true(copy <= (plan->count - plan->gain) * capacity);
}

static inline struct policy_plan choose(const struct policy_segment *segments, size_t count,
                                        const struct policy_store *store)
{
    struct policy_plan plan;
    policy_choose(&plan, segments, count, store, &options_200);
    plan_check(&plan, segments, count, store);
    return plan;
}

static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed * 0x2545F4914F6CDD1Dull;
}

#endif
