/*
 * test_update_bitfield.c - BITFIELD: its steps by tables, and its fields against bits set one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_bitfield.h"

#include "update_fixture.h"

#include <stdlib.h>

enum { GET = BITFIELD_GET, SET = BITFIELD_SET, ADD = BITFIELD_ADD };
enum { WRAP = BITFIELD_WRAP, SATURATE = BITFIELD_SATURATE, FAIL = BITFIELD_FAIL };

#define UNSIGNED(width) .bits = (width)
#define SIGNED(width)   .bits = (width), .is_signed = 1

/* One step, and what comes of it. */
static void check_step(struct bitfield_step step, struct update_case given)
{
    given.operand = slice_make(&step, sizeof(step));
    update_check(update_bitfield, &given, 1);
}

static void check_overflow(struct bitfield_step step, const char *before, const char *after, const char *reply)
{
    struct update_case given = {.found = true, .old = slice_make(before, 1), .reply = UPDATE_RESP};
    given.bytes = slice_text(reply);
    if (*before != *after) {
        given.change = UPDATE_PUT;
        given.value = slice_make(after, 1);
    }
    check_step(step, given);
}

static void test_update_bitfield__reads(void **state)
{
    (void)state;
    check_step((struct bitfield_step){.action = GET, UNSIGNED(4)},
               (struct update_case){HOLDS("\xa5"), WRITES("*1\r\n:10\r\n")});
    check_step((struct bitfield_step){.action = GET, SIGNED(4)},
               (struct update_case){HOLDS("\xa5"), WRITES("*1\r\n:-6\r\n")});
    check_step((struct bitfield_step){.action = GET, .bit = 4, UNSIGNED(8)},
               (struct update_case){HOLDS("\xa5"), WRITES("*1\r\n:80\r\n")}); /* zeros behind the value */
    check_step((struct bitfield_step){.action = GET, .bit = 1u << 30, UNSIGNED(63)},
               (struct update_case){HOLDS("\xa5"), WRITES("*1\r\n:0\r\n")});
    check_step((struct bitfield_step){.action = GET, SIGNED(64)}, (struct update_case){WRITES("*1\r\n:0\r\n")});
    check_step((struct bitfield_step){.action = GET, .bit = 7, SIGNED(64)},
               (struct update_case){HOLDS("\x01\0\0\0\0\0\0\0\x00"), WRITES("*1\r\n:-9223372036854775808\r\n")});
    check_step(
        (struct bitfield_step){.action = GET, .bit = 7, SIGNED(64)},
        (struct update_case){HOLDS("\0\xff\xff\xff\xff\xff\xff\xff\xff"), WRITES("*1\r\n:9223372036854775807\r\n")});
}

static void test_update_bitfield__writes(void **state)
{
    (void)state;
    check_step((struct bitfield_step){.action = SET, .number = 255, UNSIGNED(8)},
               (struct update_case){PUTS("\xff"), WRITES("*1\r\n:0\r\n")});
    check_step((struct bitfield_step){.action = SET, .bit = 4, .number = 255, UNSIGNED(8)},
               (struct update_case){HOLDS("\xa5"), .old_expires_ms = 6, PUTS("\xaf\xf0"), .put_expires_ms = 6,
                                    WRITES("*1\r\n:80\r\n")});
    check_step((struct bitfield_step){.action = SET, .number = 0xa5, UNSIGNED(8)},
               (struct update_case){HOLDS("\xa5"), WRITES("*1\r\n:165\r\n")}); /* no change */
    check_step((struct bitfield_step){.action = SET, .number = 0, UNSIGNED(8)},
               (struct update_case){PUTS("\0"), WRITES("*1\r\n:0\r\n")}); /* but a key */
    check_step((struct bitfield_step){.action = ADD, .bit = 100, .number = 1, SIGNED(5)},
               (struct update_case){PUTS("\0\0\0\0\0\0\0\0\0\0\0\0\0\x80"), WRITES("*1\r\n:1\r\n")});
    check_step((struct bitfield_step){.action = SET, .bit = 3, .number = INT64_MIN, SIGNED(64)},
               (struct update_case){PUTS("\x10\0\0\0\0\0\0\0\0"), WRITES("*1\r\n:0\r\n")});
}

static void test_update_bitfield__limit(void **state)
{
    (void)state;
    check_step((struct bitfield_step){.action = SET, .bit = 8, .number = 1, UNSIGNED(8)},
               (struct update_case){.value_bytes_max = 2, PUTS("\0\x01"), WRITES("*1\r\n:0\r\n")});
    check_step((struct bitfield_step){.action = SET, .bit = 9, .number = 1, UNSIGNED(8)},
               (struct update_case){.value_bytes_max = 2,
                                    FAILS("ERR string exceeds maximum allowed size (proto-max-bulk-len)")});
    check_step((struct bitfield_step){.action = GET, .bit = 9, UNSIGNED(8)},
               (struct update_case){.value_bytes_max = 2, WRITES("*1\r\n:0\r\n")});
}

static void test_update_bitfield__overflow(void **state)
{
    (void)state;
    const struct bitfield_step up = {.action = ADD, .number = 10, UNSIGNED(8)};
    const struct bitfield_step down = {.action = ADD, .number = -10, UNSIGNED(8)};
    struct bitfield_step step = up;
    check_overflow(step, "\xfa", "\x04", "*1\r\n:4\r\n");
    check_overflow(step, "\xf5", "\xff", "*1\r\n:255\r\n");
    step.overflow = SATURATE;
    check_overflow(step, "\xfa", "\xff", "*1\r\n:255\r\n");
    step.overflow = FAIL;
    check_overflow(step, "\xfa", "\xfa", "*1\r\n$-1\r\n");
    step = down;
    check_overflow(step, "\x09", "\xff", "*1\r\n:255\r\n");
    step.overflow = SATURATE;
    check_overflow(step, "\x09", "\0", "*1\r\n:0\r\n");
    step.overflow = FAIL;
    check_overflow(step, "\x09", "\x09", "*1\r\n$-1\r\n");
    check_overflow(step, "\x0a", "\0", "*1\r\n:0\r\n");

    step = (struct bitfield_step){.action = ADD, .number = 10, SIGNED(8)};
    check_overflow(step, "\x7a", "\x84", "*1\r\n:-124\r\n");
    step.overflow = SATURATE;
    check_overflow(step, "\x7a", "\x7f", "*1\r\n:127\r\n");
    step.number = -10;
    check_overflow(step, "\x84", "\x80", "*1\r\n:-128\r\n");
    step.overflow = WRAP;
    check_overflow(step, "\x84", "\x7a", "*1\r\n:122\r\n");
    step.number = INT64_MIN;
    check_overflow(step, "\x84", "\x84", "*1\r\n:-124\r\n"); /* a multiple of 256 */
}

static void test_update_bitfield__set_out_of_bounds(void **state)
{
    (void)state;
    struct bitfield_step step = {.action = SET, .number = 300, UNSIGNED(8)};
    check_overflow(step, "\x01", "\x2c", "*1\r\n:1\r\n");
    step.overflow = SATURATE;
    check_overflow(step, "\x01", "\xff", "*1\r\n:1\r\n");
    step.number = -1; /* for an unsigned field that is a large number, as in Redis */
    check_overflow(step, "\x01", "\xff", "*1\r\n:1\r\n");
    step.overflow = FAIL;
    check_overflow(step, "\x01", "\x01", "*1\r\n$-1\r\n");
    step = (struct bitfield_step){.action = SET, .number = -129, .overflow = SATURATE, SIGNED(8)};
    check_overflow(step, "\x01", "\x80", "*1\r\n:1\r\n");
    step.number = INT64_MIN;
    check_overflow(step, "\x01", "\x80", "*1\r\n:1\r\n");
    step.overflow = WRAP;
    step.number = 200;
    check_overflow(step, "\x01", "\xc8", "*1\r\n:1\r\n");
}

static void test_update_bitfield__64_bits(void **state)
{
    (void)state;
    struct bitfield_step step = {.action = ADD, .number = 1, SIGNED(64)};
    const struct update_case most = {HOLDS("\x7f\xff\xff\xff\xff\xff\xff\xff")};
    struct update_case given = most;
    given.change = UPDATE_PUT;
    given.value = slice_make("\x80\0\0\0\0\0\0\0", 8);
    given.reply = UPDATE_RESP;
    given.bytes = slice_text("*1\r\n:-9223372036854775808\r\n");
    check_step(step, given);
    step.overflow = SATURATE;
    given.change = UPDATE_KEEP;
    given.bytes = slice_text("*1\r\n:9223372036854775807\r\n");
    check_step(step, given);
    step.overflow = FAIL;
    given.bytes = slice_text("*1\r\n_\r\n");
    given.resp_version = 3;
    check_step(step, given);
}

/* Each sees what those before it have written; a refused one does nothing, but the value has grown for it. */
static void test_update_bitfield__steps(void **state)
{
    (void)state;
    const struct bitfield_step steps[] = {
        {.action = SET, .number = 3, UNSIGNED(2)},
        {.action = GET, UNSIGNED(4)},
        {.action = ADD, .number = 1, .overflow = FAIL, UNSIGNED(2)},
        {.action = ADD, .number = 1, .overflow = WRAP, UNSIGNED(2)},
        {.action = SET, .bit = 20, .number = 2, .overflow = FAIL, UNSIGNED(1)},
    };
    const struct update_case given = {
        .operand = slice_make(steps, sizeof(steps)), PUTS("\0\0\0"), WRITES("*5\r\n:0\r\n:12\r\n$-1\r\n:0\r\n$-1\r\n")};
    update_check(update_bitfield, &given, 1);
    const struct update_case none = {HOLDS("a"), WRITES("*0\r\n")};
    update_check(update_bitfield, &none, 1);
}

/* The first piece of scratch is there, the second, larger, is not. */
static void test_update_bitfield__no_room_for_the_value(void **state)
{
    (void)state;
    const struct bitfield_step step = {.action = SET, .bit = 40000, .number = 1, UNSIGNED(8)};
    const struct update_case given = {.operand = slice_make(&step, sizeof(step)), .value_bytes_max = 10000};
    struct update_bench bench;
    update_bench_init(&bench, 1000);
    update_bench_run(&bench, update_bitfield, &given);
    assert_true(bench.scratch.refused && bench.scratch.pieces != NULL);
    assert_int_equal(bench.out.change, UPDATE_KEEP);
    update_bench_deinit(&bench);
}

/* ---- bit by bit ------------------------------------------------------------------------------------------------- */

static void naive_set(uint8_t *value, uint64_t first, unsigned bits, uint64_t number)
{
    for (unsigned i = 0; i < bits; i++) {
        uint64_t bit = first + i;
        uint8_t mask = (uint8_t)(0x80u >> bit % 8);
        bool on = (number >> (bits - 1 - i) & 1) != 0;
        value[bit / 8] = (uint8_t)(on ? value[bit / 8] | mask : value[bit / 8] & ~mask);
    }
}

static uint64_t random_64(void)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < 5; i++)
        number = number << 15 ^ (uint64_t)rand();
    return number;
}

static void test_update_bitfield__any_field_anywhere(void **state)
{
    (void)state;
    srand(11);
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t value[20], expected[20];
        for (size_t i = 0; i < sizeof(value); i++)
            value[i] = (uint8_t)rand();
        memcpy(expected, value, sizeof(value));
        bool is_signed = rand() % 2 != 0;
        unsigned bits = 1 + (unsigned)rand() % (is_signed ? 64 : 63);
        uint64_t first = (uint64_t)rand() % (8 * sizeof(value) - bits + 1);
        uint64_t number = random_64() >> (64 - bits);
        int64_t as_signed = (int64_t)(number << (64 - bits)) >> (64 - bits);
        struct bitfield_step steps[2] = {{.action = SET,
                                          .bit = first,
                                          .bits = (uint8_t)bits,
                                          .is_signed = is_signed,
                                          .number = is_signed ? as_signed : (int64_t)number}};
        steps[1] = steps[0];
        steps[1].action = GET;
        naive_set(expected, first, bits, number);
        struct update_case given = {
            .operand = slice_make(steps, sizeof(steps)), .found = true, .old = slice_make(value, sizeof(value))};
        struct update_bench bench;
        char tail[32];
        update_bench_init(&bench, 4096);
        update_bench_run(&bench, update_bitfield, &given);
        if (bench.out.change == UPDATE_PUT)
            update_assert_bytes(bench.out.value, slice_make(expected, sizeof(expected)));
        else
            assert_memory_equal(value, expected, sizeof(value));
        int size = snprintf(tail, sizeof(tail), ":%lld\r\n", (long long)steps[0].number);
        assert_true(bench.out.bytes.size > (size_t)size);
        assert_memory_equal(bench.out.bytes.data + bench.out.bytes.size - size, tail, (size_t)size);
        update_bench_deinit(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_bitfield__reads),
        cmocka_unit_test(test_update_bitfield__writes),
        cmocka_unit_test(test_update_bitfield__limit),
        cmocka_unit_test(test_update_bitfield__overflow),
        cmocka_unit_test(test_update_bitfield__set_out_of_bounds),
        cmocka_unit_test(test_update_bitfield__64_bits),
        cmocka_unit_test(test_update_bitfield__steps),
        cmocka_unit_test(test_update_bitfield__no_room_for_the_value),
        cmocka_unit_test(test_update_bitfield__any_field_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
