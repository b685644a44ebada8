/*
 * test_update_bits.c - SETBIT, GETBIT, BITCOUNT, BITPOS: by tables, and against going through the bits one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_bits.h"

#include "update_fixture.h"

#include <stdlib.h>

enum {
    RANGE = UPDATE_BITS_IN_RANGE,
    BITS = UPDATE_BITS_IN_RANGE | UPDATE_BITS_UNIT_BITS,
    ONE = UPDATE_BITS_SEEK_ONE,
    FROM = UPDATE_BITS_IN_RANGE | UPDATE_BITS_OPEN_ENDED,
    NO_INTEGER = UPDATE_NOT_INTEGER << UPDATE_BITS_REFUSAL_SHIFT,
    SYNTAX = UPDATE_SYNTAX << UPDATE_BITS_REFUSAL_SHIFT,
};

static void test_update_setbit(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.option = UPDATE_SETBIT_ON, .a = 7, PUTS("\x01"), COUNTS(0)},
        {.a = 7, PUTS("\0"), COUNTS(0)}, /* makes the key all the same */
        {.option = UPDATE_SETBIT_ON,
         .a = 0,
         HOLDS("\x01"),
         .old_expires_ms = 3,
         PUTS("\x81"),
         .put_expires_ms = 3,
         COUNTS(0)},
        {.a = 7, HOLDS("\x01"), PUTS("\0"), COUNTS(1)},
        {.option = UPDATE_SETBIT_ON, .a = 7, HOLDS("\x01"), COUNTS(1)}, /* it is that already */
        {.a = 6, HOLDS("\x01"), COUNTS(0)},
        {.a = 23, HOLDS("\x01"), PUTS("\x01\0\0"), COUNTS(0)}, /* grows for a zero too */
        {.option = UPDATE_SETBIT_ON, .a = 16, HOLDS(""), PUTS("\0\0\x80"), COUNTS(0)},
        {.option = UPDATE_SETBIT_ON, .a = 15, .value_bytes_max = 2, PUTS("\0\x01"), COUNTS(0)},
        {.option = UPDATE_SETBIT_ON,
         .a = 16,
         .value_bytes_max = 2,
         FAILS("ERR string exceeds maximum allowed size (proto-max-bulk-len)")},
    };
    UPDATE_CHECK(update_setbit, cases);
}

static void test_update_getbit(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 7, HOLDS("\x01"), COUNTS(1)},
        {.a = 6, HOLDS("\x01"), COUNTS(0)},
        {.a = 8, HOLDS("\x01"), COUNTS(0)},
        {.a = 0, HOLDS("\x80"), COUNTS(1)},
        {.a = INT64_MAX, HOLDS("\xff"), COUNTS(0)},
        {.a = 0, COUNTS(0)},
        {.a = 0, HOLDS(""), COUNTS(0)},
    };
    UPDATE_CHECK(update_getbit, cases);
}

static void test_update_bitcount(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("foobar"), COUNTS(26)},
        {.option = RANGE, .a = 0, .b = 0, HOLDS("foobar"), COUNTS(4)},
        {.option = RANGE, .a = 1, .b = 1, HOLDS("foobar"), COUNTS(6)},
        {.option = BITS, .a = 5, .b = 30, HOLDS("foobar"), COUNTS(17)},
        {.option = RANGE, .a = 0, .b = -1, HOLDS("foobar"), COUNTS(26)},
        {.option = RANGE, .a = -2, .b = 1000, HOLDS("foobar"), COUNTS(7)},
        {.option = BITS, .a = -1, .b = -1, HOLDS("\x01"), COUNTS(1)},
        {.option = BITS, .a = 3, .b = 2, HOLDS("\xff"), COUNTS(0)},
        {.option = RANGE, .a = -1, .b = -2, HOLDS("\xff\xff\xff"), COUNTS(0)},
        {.option = RANGE, .a = -8, .b = -9, HOLDS("\xff\xff\xff"), COUNTS(0)}, /* though both mean the first byte */
        {.option = RANGE, .a = INT64_MIN, .b = INT64_MAX, HOLDS("\xff\xff\xff"), COUNTS(24)},
        {.option = BITS, .a = INT64_MIN, .b = INT64_MAX, HOLDS("\xff\xff\xff"), COUNTS(24)},
        {.option = RANGE, .a = 3, .b = 5, HOLDS("\xff\xff\xff"), COUNTS(0)},
        {HOLDS(""), COUNTS(0)},
        {.option = RANGE, .a = 0, .b = -1, HOLDS(""), COUNTS(0)},
        {COUNTS(0)},
        {.option = NO_INTEGER, COUNTS(0)},
        {.option = NO_INTEGER, HOLDS(""), FAILS("ERR value is not an integer or out of range")},
        {.option = RANGE | SYNTAX, .a = 0, .b = 1, HOLDS(""), FAILS("ERR syntax error")},
        {.option = RANGE | SYNTAX, .a = -1, .b = -2, HOLDS("abc"), COUNTS(0)},
    };
    UPDATE_CHECK(update_bitcount, cases);
}

static void test_update_bitpos(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("\xff\xf0\x00"), COUNTS(12)},
        {.option = ONE | FROM, .a = 0, HOLDS("\x00\xff\xf0"), COUNTS(8)},
        {.option = ONE | FROM, .a = 2, HOLDS("\x00\xff\xf0"), COUNTS(16)},
        {.option = ONE | RANGE, .a = 2, .b = -1, HOLDS("\x00\xff\xf0"), COUNTS(16)},
        {.option = ONE | BITS, .a = 7, .b = 15, HOLDS("\x00\xff\xf0"), COUNTS(8)},
        {.option = ONE | BITS, .a = 7, .b = -3, HOLDS("\x00\xff\xf0"), COUNTS(8)},
        {.option = ONE, HOLDS("\x00\x00\x00"), COUNTS(-1)},
        /* All ones: the zeros behind count, unless an end was named. */
        {HOLDS("\xff\xff\xff"), COUNTS(24)},
        {.option = FROM, .a = 1, HOLDS("\xff\xff\xff"), COUNTS(24)},
        {.option = RANGE, .a = 0, .b = -1, HOLDS("\xff\xff\xff"), COUNTS(-1)},
        {.option = BITS, .a = 3, .b = 5, HOLDS("\xff\xff\xff"), COUNTS(-1)},
        {.option = FROM, .a = 3, HOLDS("\xff\xff\xff"), COUNTS(-1)}, /* an empty range has neither */
        {.option = FROM, .a = INT64_MAX, HOLDS("\xff"), COUNTS(-1)},
        {.option = FROM, .a = INT64_MIN, HOLDS("\xff"), COUNTS(8)},
        {.option = RANGE, .a = -8, .b = -9, HOLDS("\x0f\xff"), COUNTS(0)}, /* both are the first byte */
        {HOLDS(""), COUNTS(-1)},
        {.option = ONE, HOLDS(""), COUNTS(-1)},
        {COUNTS(0)},
        {.option = ONE, COUNTS(-1)},
        {.option = SYNTAX, COUNTS(0)},
        {.option = SYNTAX, HOLDS(""), FAILS("ERR syntax error")},
        {.option = ONE | NO_INTEGER, HOLDS("a"), FAILS("ERR value is not an integer or out of range")},
    };
    UPDATE_CHECK(update_bitpos, cases);
}

/* ---- one by one ------------------------------------------------------------------------------------------------- */

static bool bit_of(struct slice value, int64_t bit)
{
    return (value.data[bit / 8] >> (7 - bit % 8) & 1) != 0;
}

/* The range in bits; false: it is empty. */
static bool naive_range(const struct update_case *given, int64_t *begin, int64_t *end)
{
    int64_t bits = (int64_t)given->old.size * 8, unit = (given->option & UPDATE_BITS_UNIT_BITS) != 0 ? 1 : 8;
    int64_t total = bits / unit;
    *begin = 0;
    *end = total - 1;
    if ((given->option & UPDATE_BITS_IN_RANGE) != 0) {
        *begin = given->a < 0 ? given->a + total : given->a;
        if ((given->option & UPDATE_BITS_OPEN_ENDED) == 0)
            *end = given->b < 0 ? given->b + total : given->b;
        *begin = *begin < 0 ? 0 : *begin;
        *end = *end < 0 ? 0 : *end;
        *end = *end >= total ? total - 1 : *end;
    }
    bool some = *begin <= *end;
    *begin *= unit;
    *end = *end * unit + unit - 1;
    return some;
}

static int64_t naive_bitcount(const struct update_case *given)
{
    int64_t begin, end, count = 0;
    if ((given->option & UPDATE_BITS_IN_RANGE) != 0 && given->a < 0 && given->b < 0 && given->a > given->b)
        return 0;
    if (!naive_range(given, &begin, &end))
        return 0;
    for (int64_t bit = begin; bit <= end; bit++)
        count += bit_of(given->old, bit);
    return count;
}

static int64_t naive_bitpos(const struct update_case *given)
{
    int64_t begin, end;
    bool one = (given->option & UPDATE_BITS_SEEK_ONE) != 0;
    if (!naive_range(given, &begin, &end))
        return -1;
    for (int64_t bit = begin; bit <= end; bit++) {
        if (bit_of(given->old, bit) == one)
            return bit;
    }
    bool ended = (given->option & RANGE) != 0 && (given->option & UPDATE_BITS_OPEN_ENDED) == 0;
    return one || ended ? -1 : (int64_t)given->old.size * 8;
}

static void test_update_bits__as_one_by_one(void **state)
{
    (void)state;
    srand(7);
    for (unsigned round = 0; round < 40000; round++) {
        size_t size = (size_t)(rand() % 40), lead = (size_t)(rand() % 8) + 1;
        uint8_t *memory = malloc(lead + size); /* any alignment, and its end is the memory's */
        memset(memory, rand() % 2 != 0 ? 0xff : 0, lead + size);
        for (unsigned flips = (unsigned)rand() % 4; size > 0 && flips > 0; flips--)
            memory[lead + (size_t)rand() % size] ^= (uint8_t)(1u << rand() % 8);
        struct update_case given = {.found = true, .old = slice_make(memory + lead, size)};
        static const uint8_t options[] = {0, RANGE, BITS, RANGE, BITS};
        given.option = options[rand() % 5];
        given.a = rand() % 700 - 350;
        given.b = rand() % 700 - 350;
        given.a = (given.option & UPDATE_BITS_UNIT_BITS) != 0 ? given.a : given.a / 8;
        given.b = (given.option & UPDATE_BITS_UNIT_BITS) != 0 ? given.b : given.b / 8;
        struct update_bench bench;
        update_bench_init(&bench, 0);
        update_bench_run(&bench, update_bitcount, &given);
        assert_int_equal(bench.out.integer, naive_bitcount(&given));
        if (given.option == RANGE && rand() % 2 != 0)
            given.option = FROM;
        given.option |= rand() % 2 != 0 ? ONE : 0;
        update_bench_run(&bench, update_bitpos, &given);
        assert_int_equal(bench.out.integer, naive_bitpos(&given));
        update_bench_deinit(&bench);
        free(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_setbit),
        cmocka_unit_test(test_update_getbit),
        cmocka_unit_test(test_update_bitcount),
        cmocka_unit_test(test_update_bitpos),
        cmocka_unit_test(test_update_bits__as_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
