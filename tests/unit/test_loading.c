/* Figures of an opening under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/loading.h"

static void expect(uint64_t total, uint64_t done, uint64_t elapsed_ns, const struct loading *wanted)
{
    struct engine_progress progress = {.bytes_total = total, .bytes_done = done};
    struct loading found = loading_look(&progress, elapsed_ns);
    assert_int_equal(found.bytes_total, wanted->bytes_total);
    assert_int_equal(found.bytes_done, wanted->bytes_done);
    assert_true(found.percent > wanted->percent - 0.001 && found.percent < wanted->percent + 0.001);
    assert_int_equal(found.seconds_left, wanted->seconds_left);
}

#define SECOND 1000000000ull

static void test_loading__pace_so_far_tells_how_long_it_takes(void **state)
{
    (void)state;
    expect(1000, 250, 2 * SECOND, &(struct loading){1000, 250, 25, 6});
    expect(1000, 250, 2 * SECOND + 1, &(struct loading){1000, 250, 25, 7});
    expect(3, 2, SECOND, &(struct loading){3, 2, 66.6667, 1});
    expect(1000, 1000, 9 * SECOND, &(struct loading){1000, 1000, 100, 0});
    expect(UINT64_MAX, 1ull << 63, 100 * SECOND, &(struct loading){UINT64_MAX, 1ull << 63, 50, 100});
}

static void test_loading__nothing_is_divided_by_nothing(void **state)
{
    (void)state;
    expect(0, 0, 0, &(struct loading){0, 0, 0, 1});
    expect(0, 0, 100 * SECOND, &(struct loading){0, 0, 0, 1});
    expect(1000, 0, 100 * SECOND, &(struct loading){1000, 0, 0, 1});
    expect(0, 10, SECOND, &(struct loading){0, 0, 0, 1});
}

static void test_loading__no_more_is_done_than_there_is(void **state)
{
    (void)state;
    expect(100, 130, SECOND, &(struct loading){100, 100, 100, 0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading__pace_so_far_tells_how_long_it_takes),
        cmocka_unit_test(test_loading__nothing_is_divided_by_nothing),
        cmocka_unit_test(test_loading__no_more_is_done_than_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
