/* test_meter.c - counting and timing of commands, alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/meter.h"

#include <stdio.h>

static struct meter_command look(const struct meter *meter, unsigned number)
{
    struct meter_command sum = {0};
    meter_add_command(meter, number, &sum);
    return sum;
}

static void test_meter__a_run_is_shared_out_evenly(void **state)
{
    (void)state;
    struct meter meter;
    assert_int_equal(meter_init(&meter, 3), KVS_ERR_OK);
    meter_begin(&meter, 1000);
    for (unsigned i = 0; i < 10; i++)
        assert_true(meter_run(&meter, 1));
    assert_false(meter_run(&meter, 2));
    meter_end_run(&meter, 31000); /* 3,000 ns each */
    assert_true(meter_run(&meter, 2));
    meter_end_run(&meter, 32000);
    assert_int_equal(meter_command(&meter, 0, 40000, true), 8000);
    assert_int_equal(meter_command(&meter, 0, 39000, false), 0); /* a clock that goes back */
    struct meter_command of = look(&meter, 1);
    assert_int_equal(of.calls, 10);
    assert_int_equal(of.ns, 30000);
    assert_int_equal(meter_octave_calls(&of, 1), 0);
    assert_int_equal(meter_octave_calls(&of, 2), 10);
    assert_true(meter_percentile_us(&of, 50) >= 3 && meter_percentile_us(&of, 50) < 3.6);
    of = look(&meter, 2);
    assert_int_equal(of.calls, 1);
    assert_int_equal(of.ns, 1000);
    assert_int_equal(meter_octave_calls(&of, 0), 1);
    of = look(&meter, 0);
    assert_true(of.calls == 2 && of.failed == 1);
    meter_deinit(&meter);
}

/* What each bound of Redis's histogram is shown as. */
static void test_meter__bounds_are_shown_as_by_redis(void **state)
{
    (void)state;
    static const uint64_t us[] = {1, 2, 4, 8, 16, 33, 66, 132, 264, 528, 1056, 2113, 4227, 8454, 16908};
    for (unsigned i = 0; i < sizeof(us) / sizeof(us[0]); i++)
        assert_int_equal(meter_octave_us(i), us[i]);
}

static void test_meter__every_time_has_a_bucket(void **state)
{
    (void)state;
    struct meter meter;
    assert_int_equal(meter_init(&meter, 1), KVS_ERR_OK);
    uint64_t now_ns = 5, calls = 0;
    for (unsigned shift = 0; shift < 62; shift++) {
        for (uint64_t more = 0; more < 4; more++) {
            const uint64_t ns = (1ull << shift) + more * ((1ull << shift) / 4);
            meter_begin(&meter, now_ns);
            assert_int_equal(meter_command(&meter, 0, now_ns + ns, false), ns);
            calls++;
        }
    }
    struct meter_command of = look(&meter, 0);
    uint64_t in_buckets = 0;
    for (unsigned i = 0; i < METER_BUCKETS; i++) {
        assert_true(of.times[i] > 0);
        in_buckets += of.times[i];
    }
    assert_int_equal(in_buckets, calls);
    const struct meter_command before = of;
    meter_subtract_command(&of, &before);
    assert_int_equal(of.calls + of.ns + of.times[7], 0);
    meter_deinit(&meter);
}

static void test_meter__errors_are_counted_by_their_first_word(void **state)
{
    (void)state;
    struct meter meter;
    const char *code;
    assert_int_equal(meter_init(&meter, 1), KVS_ERR_OK);
    meter_error(&meter, slice_text("ERR no"));
    meter_error(&meter, slice_make("NOAUTH", 6)); /* no text behind it */
    meter_error(&meter, slice_text("ERR\r\n"));
    assert_int_equal(meter_error_codes(&meter), 2);
    assert_int_equal(meter_error_count(&meter, 0, &code), 2);
    assert_string_equal(code, "ERR");
    assert_int_equal(meter_error_count(&meter, 1, &code), 1);
    assert_string_equal(code, "NOAUTH");
    for (unsigned i = 0; i < 2 * METER_ERRORS_MAX; i++) {
        char text[64];
        snprintf(text, sizeof(text), "CODE%uTHATISLONGERTHANITMAYBEATALL", i);
        meter_error(&meter, slice_text(text));
    }
    assert_int_equal(meter_error_codes(&meter), METER_ERRORS_MAX);
    meter_deinit(&meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meter__a_run_is_shared_out_evenly),
        cmocka_unit_test(test_meter__bounds_are_shown_as_by_redis),
        cmocka_unit_test(test_meter__every_time_has_a_bucket),
        cmocka_unit_test(test_meter__errors_are_counted_by_their_first_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
