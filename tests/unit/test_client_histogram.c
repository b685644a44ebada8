/*
 * test_client_histogram.c - the latency histogram keeps the precision that its header promises.
 */
#include "client/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* What histogram.h promises for any value. */
#define ERROR_MAX 0.0079

static struct histogram histogram, other;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void check_bucket_of(uint64_t value)
{
    uint32_t bucket = histogram_bucket(value);
    assert_true(bucket < HISTOGRAM_BUCKETS);
    uint64_t top = histogram_bucket_top(bucket);
    assert_true(top >= value);
    assert_true((double)(top - value) <= ERROR_MAX * (double)value);
    if (bucket > 0)
        assert_true(histogram_bucket_top(bucket - 1) < value);
}

static void test_histogram__every_value_is_near_the_top_of_its_bucket(void **state)
{
    (void)state;
    for (uint64_t value = 0; value < 100000; value++)
        check_bucket_of(value);
    for (unsigned bit = 8; bit < 64; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        check_bucket_of(power - 1);
        check_bucket_of(power);
        check_bucket_of(power + 1);
    }
    check_bucket_of(UINT64_MAX);
    uint64_t random = 42;
    for (int i = 0; i < 100000; i++)
        check_bucket_of(next_random(&random) >> (i % 64));
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_histogram__percentiles_agree_with_sorting(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    uint64_t random = 7;
    histogram_init(&histogram);
    for (int i = 0; i < COUNT; i++) {
        values[i] = next_random(&random) >> (40 + i % 20); /* many magnitudes */
        histogram_add(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), compare_u64);
    static const struct {
        double percent;
        size_t rank; /* of 20000, counted from 1 */
    } cases[] = {{0, 1}, {10, 2000}, {50, 10000}, {90, 18000}, {99, 19800}, {99.9, 19980}, {99.99, 19998}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t exact = values[cases[i].rank - 1];
        uint64_t answer = histogram_percentile(&histogram, cases[i].percent);
        assert_true(answer >= exact);
        assert_true((double)(answer - exact) <= ERROR_MAX * (double)exact);
    }
    assert_int_equal(histogram_percentile(&histogram, 100), values[COUNT - 1]);
    assert_int_equal(histogram.max, values[COUNT - 1]);
    assert_int_equal(histogram.min, values[0]);
}

static void test_histogram__small_numbers_are_exact(void **state)
{
    (void)state;
    histogram_init(&histogram);
    assert_int_equal(histogram_percentile(&histogram, 50), 0);
    assert_true(histogram_mean(&histogram) == 0);
    for (uint64_t value = 1; value <= 3; value++)
        histogram_add(&histogram, value * 10);
    assert_int_equal(histogram_percentile(&histogram, 50), 20);
    assert_int_equal(histogram_percentile(&histogram, 67), 30);
    assert_true(histogram_mean(&histogram) == 20);
}

static void test_histogram__merging_is_the_same_as_counting_together(void **state)
{
    (void)state;
    static struct histogram together;
    histogram_init(&histogram);
    histogram_init(&other);
    histogram_init(&together);
    uint64_t random = 3;
    for (int i = 0; i < 5000; i++) {
        uint64_t value = next_random(&random) >> (i % 60);
        histogram_add(i % 3 == 0 ? &histogram : &other, value);
        histogram_add(&together, value);
    }
    histogram_merge(&histogram, &other);
    assert_memory_equal(&histogram, &together, sizeof(together));

    /* An empty part changes nothing, not even the least value. */
    histogram_init(&other);
    histogram_merge(&histogram, &other);
    assert_memory_equal(&histogram, &together, sizeof(together));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram__every_value_is_near_the_top_of_its_bucket),
        cmocka_unit_test(test_histogram__percentiles_agree_with_sorting),
        cmocka_unit_test(test_histogram__small_numbers_are_exact),
        cmocka_unit_test(test_histogram__merging_is_the_same_as_counting_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
