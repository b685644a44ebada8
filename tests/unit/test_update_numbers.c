/*
 * test_update_numbers.c - INCR, INCRBYFLOAT and how they read numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_numbers.h"

#include "update_fixture.h"

#define NOT_INTEGER "ERR value is not an integer or out of range"
#define NOT_FLOAT   "ERR value is not a valid float"
#define OVERFLOW    "ERR increment or decrement would overflow"

static void test_update_increment(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 1, PUTS("1"), COUNTS(1)},
        {.a = -1, PUTS("-1"), COUNTS(-1)},
        {.a = 0, PUTS("0"), COUNTS(0)},
        {.a = 1, HOLDS("10"), .old_expires_ms = 77, PUTS("11"), .put_expires_ms = 77, COUNTS(11)},
        {.a = -20, HOLDS("10"), PUTS("-10"), COUNTS(-10)},
        {.a = 1, HOLDS("9223372036854775806"), PUTS("9223372036854775807"), COUNTS(INT64_MAX)},
        {.a = 1, HOLDS("9223372036854775807"), FAILS(OVERFLOW)},
        {.a = -1, HOLDS("-9223372036854775807"), PUTS("-9223372036854775808"), COUNTS(INT64_MIN)},
        {.a = -1, HOLDS("-9223372036854775808"), FAILS(OVERFLOW)},
        {.a = INT64_MIN, HOLDS("-1"), FAILS(OVERFLOW)},
        {.a = INT64_MIN, HOLDS("0"), PUTS("-9223372036854775808"), COUNTS(INT64_MIN)},
        {.a = INT64_MIN, HOLDS("9223372036854775807"), PUTS("-1"), COUNTS(-1)},
        {.a = 1, HOLDS("-1"), PUTS("0"), COUNTS(0)},
        {.a = 1, HOLDS("9223372036854775808"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS(""), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("-"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS(" 1"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("1 "), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("+1"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("01"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("-0"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("1.0"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("1\0"), FAILS(NOT_INTEGER)},
        {.a = 1, HOLDS("8"), .value_bytes_max = 1, PUTS("9"), COUNTS(9)},
        {.a = 1,
         HOLDS("9"),
         .value_bytes_max = 1,
         FAILS("ERR string exceeds maximum allowed size (proto-max-bulk-len)")},
    };
    UPDATE_CHECK(update_increment, cases);
}

/* The increment is as long as a long double. */
static void check_float(struct update_case given, long double increment)
{
    given.operand = slice_make(&increment, sizeof(increment));
    given.value_bytes_max = 6000;
    update_check(update_increment_float, &given, 1);
}

#define GIVES(result) PUTS(result), SAYS(result)

static void test_update_increment_float(void **state)
{
    (void)state;
    check_float((struct update_case){GIVES("3.5")}, 3.5L);
    check_float((struct update_case){HOLDS("10.50"), .old_expires_ms = 5, GIVES("10.6"), .put_expires_ms = 5}, 0.1L);
    check_float((struct update_case){HOLDS("10.6"), GIVES("5.6")}, -5);
    check_float((struct update_case){HOLDS("5.0e3"), GIVES("5200")}, 200);
    check_float((struct update_case){HOLDS("0.1"), GIVES("0.3")}, 0.2L);
    check_float((struct update_case){HOLDS("1"), GIVES("0")}, -1);
    check_float((struct update_case){HOLDS("-0"), GIVES("0")}, -0.0L);
    check_float((struct update_case){HOLDS("0"), GIVES("0")}, -1e-30L);
    check_float((struct update_case){HOLDS("0x10"), GIVES("17")}, 1);
    check_float((struct update_case){HOLDS("1e20"), GIVES("100000000000000000000")}, 1);
    check_float((struct update_case){HOLDS("9223372036854775807"), GIVES("9223372036854775808")}, 1);
    check_float((struct update_case){HOLDS("3"), GIVES("3.00000000000000001")}, 1e-17L);
}

static void test_update_increment_float__refused(void **state)
{
    (void)state;
    static const char *const infinite = "ERR increment would produce NaN or Infinity";
    const long double infinity = __builtin_infl();
    check_float((struct update_case){FAILS(infinite)}, infinity);
    check_float((struct update_case){HOLDS("inf"), FAILS(infinite)}, 1);
    check_float((struct update_case){HOLDS("-inf"), FAILS(infinite)}, infinity);
    check_float((struct update_case){HOLDS("1.18973149535723176502e4932"), FAILS(infinite)}, 1e4932L);
    check_float((struct update_case){HOLDS("abc"), FAILS(NOT_FLOAT)}, 1);
    check_float((struct update_case){HOLDS(""), FAILS(NOT_FLOAT)}, 1);
    check_float((struct update_case){HOLDS("nan"), FAILS(NOT_FLOAT)}, 1);
    check_float((struct update_case){HOLDS("1\0"), FAILS(NOT_FLOAT)}, 1);
}

static void test_update_float_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_number;
    } cases[] = {
        {"1", true},        {"+1", true},   {"-.5", true},       {"5.", true},      {"1e3", true},
        {"0x1p-3", true},   {"inf", true},  {"-Infinity", true}, {"1e4000", true},  {"1e-4940", true},
        {"00012", true},    {"", false},    {" 1", false},       {"\t1", false},    {"1 ", false},
        {"1,5", false},     {"1e", false},  {"nan", false},      {"1e5000", false}, {"-1e5000", false},
        {"1e-6000", false}, {"--1", false}, {"1x", false},
    };
    long double value;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(update_float_parse(slice_text(cases[i].text), &value), cases[i].is_number);
    assert_true(update_float_parse(slice_text("-12.75"), &value) && value == -12.75L);
    assert_false(update_float_parse(slice_make("1\0", 2), &value));
    char zeros[5121];
    memset(zeros, '0', sizeof(zeros));
    assert_true(update_float_parse(slice_make(zeros, 5119), &value));
    assert_false(update_float_parse(slice_make(zeros, 5120), &value));
    assert_false(update_float_parse(slice_make(zeros, 5121), &value));
}

/* The longest number there is, and what has a digit in every place. */
static void test_update_increment_float__longest(void **state)
{
    (void)state;
    const long double most = -0x1.fffffffffffffffep+16383L;
    struct update_case given = {.operand = slice_make(&most, sizeof(most)), .value_bytes_max = 6000};
    struct update_bench bench;
    update_bench_init(&bench, 1u << 20);
    update_bench_run(&bench, update_increment_float, &given);
    assert_int_equal(bench.out.change, UPDATE_PUT);
    assert_int_equal(bench.out.value.size, 4934);
    assert_memory_equal(bench.out.value.data, "-11897314953572317650212638530309702051690633222946", 50);
    update_bench_deinit(&bench);
    given.value_bytes_max = 4933;
    update_bench_init(&bench, 1u << 20);
    update_bench_run(&bench, update_increment_float, &given);
    assert_int_equal(bench.out.reply, UPDATE_ERROR);
    assert_int_equal(bench.out.change, UPDATE_KEEP);
    update_bench_deinit(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_increment),
        cmocka_unit_test(test_update_increment_float),
        cmocka_unit_test(test_update_increment_float__refused),
        cmocka_unit_test(test_update_float_parse),
        cmocka_unit_test(test_update_increment_float__longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
