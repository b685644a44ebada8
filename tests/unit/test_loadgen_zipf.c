/*
 * test_loadgen_zipf.c - the numbers that zipf_draw gives are as frequent as theta says, and zipf_scatter leaves nothing
 * out.
 */
#include "loadgen_random.h"
#include "loadgen_zipf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DRAWS = 400000, RANKS_MAX = 1000 };

static uint32_t counts[RANKS_MAX + 1];

static void draw_all(const struct zipf *zipf, uint64_t seed)
{
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_draw(zipf, &seed);
        assert_in_range(rank, 1, zipf->n);
        counts[rank]++;
    }
}

/* Chi-squared against the definition, k^-theta over the sum of all; its mean is n - 1, its variance twice that. */
static void check_frequencies(double theta, uint64_t n)
{
    double sum = 0;
    for (uint64_t rank = 1; rank <= n; rank++)
        sum += pow((double)rank, -theta);
    double distance = 0, expected_rest = 0, counted_rest = 0;
    unsigned classes = 0;
    for (uint64_t rank = 1; rank <= n; rank++) {
        expected_rest += DRAWS * pow((double)rank, -theta) / sum;
        counted_rest += counts[rank];
        if (expected_rest < 20 && rank < n)
            continue; /* rare ranks are counted together */
        distance += (counted_rest - expected_rest) * (counted_rest - expected_rest) / expected_rest;
        expected_rest = counted_rest = 0;
        classes++;
    }
    double freedom = classes > 1 ? classes - 1 : 1;
    if (distance > freedom + 6 * sqrt(2 * freedom))
        fail_msg("theta %g, n %llu: chi-squared is %g with %g degrees of freedom", theta, (unsigned long long)n,
                 distance, freedom);
}

static void test_zipf__ranks_are_as_frequent_as_theta_says(void **state)
{
    (void)state;
    static const double thetas[] = {0, 0.2, 0.5, 0.99, 1, 1 + 1e-10, 1.2, 3};
    static const uint64_t sizes[] = {1, 2, 3, 10, RANKS_MAX};
    for (size_t t = 0; t < sizeof thetas / sizeof *thetas; t++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct zipf zipf;
            zipf_init(&zipf, thetas[t], sizes[s]);
            draw_all(&zipf, 1000 * t + s);
            check_frequencies(thetas[t], sizes[s]);
        }
    }
}

static void test_zipf__resized_is_as_if_made_so(void **state)
{
    (void)state;
    struct zipf grown, fresh;
    zipf_init(&grown, 0.99, 7);
    zipf_resize(&grown, RANKS_MAX);
    zipf_init(&fresh, 0.99, RANKS_MAX);
    uint64_t a = 5, b = 5;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(zipf_draw(&grown, &a), zipf_draw(&fresh, &b));
    draw_all(&grown, 3);
    check_frequencies(0.99, RANKS_MAX);
}

static void test_zipf__a_trillion_ranks(void **state)
{
    (void)state;
    struct zipf zipf;
    const uint64_t n = UINT64_C(1000000000000);
    zipf_init(&zipf, 0.99, n);
    uint64_t random = 1;
    unsigned first = 0, beyond = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_draw(&zipf, &random);
        assert_in_range(rank, 1, n);
        first += rank == 1;
        beyond += rank > n / 2;
    }
    /* The sum over all ranks is 32.4, by Euler and Maclaurin; that of the upper half 0.91. */
    assert_in_range(first, DRAWS / 32.4 * 0.95, DRAWS / 32.4 * 1.05);
    assert_in_range(beyond, DRAWS * 0.91 / 32.4 * 0.93, DRAWS * 0.91 / 32.4 * 1.07);
}

static void test_scatter__every_place_once(void **state)
{
    (void)state;
    static uint8_t seen[70000];
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 100, 1000, 1024, 1025, 65535, 65536, 65537, 70000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        memset(seen, 0, sizeof seen);
        for (uint64_t i = 0; i < sizes[s]; i++) {
            uint64_t place = zipf_scatter(i, sizes[s]);
            assert_true(place < sizes[s]);
            assert_int_equal(seen[place], 0);
            seen[place] = 1;
        }
    }
}

static void test_scatter__neighbours_part(void **state)
{
    (void)state;
    const uint64_t n = 1000000;
    unsigned near = 0;
    uint64_t before = zipf_scatter(0, n);
    for (uint64_t i = 1; i < 10000; i++) {
        uint64_t place = zipf_scatter(i, n);
        near += (place > before ? place - before : before - place) < n / 100;
        before = place;
    }
    assert_in_range(near, 100, 300); /* 2 % by chance */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zipf__ranks_are_as_frequent_as_theta_says),
        cmocka_unit_test(test_zipf__resized_is_as_if_made_so),
        cmocka_unit_test(test_zipf__a_trillion_ranks),
        cmocka_unit_test(test_scatter__every_place_once),
        cmocka_unit_test(test_scatter__neighbours_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
