/*
 * test_bounds.c - the options of connections' bounds: what is taken, what is refused, and that nothing given is a
 * default.
 */
#include "base/bytes.h"
#include "node/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
    enum bound bound;
    const char *least, *most;
    uint64_t min, max;
} cases[] = {
    {BOUND_KEY_BYTES, "1", "65535", 1, 65535},
    {BOUND_BULK_BYTES, "1M", "512M", 1 << 20, 512ull << 20},
    {BOUND_ARGS, "16", "1048576", 16, 1 << 20},
    {BOUND_REQUEST_BYTES, "1024k", "1G", 1 << 20, 1 << 30},
    {BOUND_OUTPUT_BYTES, "16K", "1G", 16384, 1 << 30},
    {BOUND_SEND_TIMEOUT_S, "1", "86400", 1, 86400},
    {BOUND_CLIENTS_MEMORY_BYTES, "1M", "1T", 1 << 20, 1ull << 40},
    {BOUND_PIPELINE, "1", "65536", 1, 65536},
    {BOUND_TURN, "1", "1000000", 1, 1000000},
};

static void test_bounds__take_what_is_within(void **state)
{
    (void)state;
    char right[80] = "";
    assert_int_equal(ARRAY_COUNT(cases), BOUND_COUNT);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct bounds bounds = {0};
        assert_int_equal(bounds_get(&bounds, cases[i].bound, 42), 42);
        assert_true(bounds_set(&bounds, cases[i].bound, cases[i].least, right, sizeof right));
        assert_int_equal(bounds_get(&bounds, cases[i].bound, 42), cases[i].min);
        assert_true(bounds_set(&bounds, cases[i].bound, cases[i].most, right, sizeof right));
        assert_int_equal(bounds_get(&bounds, cases[i].bound, 42), cases[i].max);
        assert_string_equal(right, "");
    }
}

static void test_bounds__refuse_what_is_not(void **state)
{
    (void)state;
    static const char *const never[] = {"", "0", "-1", "many", "1.5", "+7", " 7", "99999999999999999999", "16777216T"};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct bounds bounds = {0};
        char over[32], under[32], right[80];
        snprintf(over, sizeof over, "%llu", (unsigned long long)cases[i].max + 1);
        snprintf(under, sizeof under, "%llu", (unsigned long long)cases[i].min - 1);
        const char *texts[ARRAY_COUNT(never) + 2] = {over, under};
        memcpy(texts + 2, never, sizeof never);
        for (size_t j = 0; j < ARRAY_COUNT(texts); j++) {
            assert_false(bounds_set(&bounds, cases[i].bound, texts[j], right, sizeof right));
            assert_int_equal(bounds_get(&bounds, cases[i].bound, 42), 42);
            assert_memory_equal(right, "expected ", 9);
        }
    }
}

static void test_bounds__numbers_have_no_units(void **state)
{
    (void)state;
    static const enum bound counts[] = {BOUND_ARGS, BOUND_SEND_TIMEOUT_S, BOUND_PIPELINE, BOUND_TURN};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        struct bounds bounds = {0};
        char right[80];
        assert_false(bounds_set(&bounds, counts[i], "1K", right, sizeof right));
        assert_true(bounds_set(&bounds, counts[i], "1024", right, sizeof right));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds__take_what_is_within),
        cmocka_unit_test(test_bounds__refuse_what_is_not),
        cmocka_unit_test(test_bounds__numbers_have_no_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
