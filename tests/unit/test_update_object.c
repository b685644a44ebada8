/*
 * test_update_object.c - TYPE, OBJECT, MEMORY USAGE.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_object.h"

#include "update_fixture.h"

#define LETTERS_44 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr"

static void test_update_type(void **state)
{
    (void)state;
    static const struct update_case cases[] = {{HOLDS(""), WRITES("+string\r\n")}, {WRITES("+none\r\n")}};
    UPDATE_CHECK(update_type, cases);
}

static void test_update_encoding(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("0"), SAYS("int")},
        {HOLDS("-9223372036854775808"), SAYS("int")},
        {HOLDS("9223372036854775807"), SAYS("int")},
        {HOLDS("9223372036854775808"), SAYS("embstr")},
        {HOLDS("007"), SAYS("embstr")},
        {HOLDS("1.5"), SAYS("embstr")},
        {HOLDS(""), SAYS("embstr")},
        {HOLDS(LETTERS_44), SAYS("embstr")},
        {HOLDS(LETTERS_44 "s"), SAYS("raw")},
        {.reply = UPDATE_NULL},
    };
    UPDATE_CHECK(update_encoding, cases);
}

static void test_update_figure(void **state)
{
    (void)state;
    static const struct update_case cases[] = {{.a = 1, HOLDS("a"), COUNTS(1)}, {.a = 1, .reply = UPDATE_NULL}};
    UPDATE_CHECK(update_figure, cases);
}

static void test_update_frequency(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("a"),
         FAILS("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when "
               "switching between policies at runtime LRU and LFU data will take some time to adjust.")},
        {.reply = UPDATE_NULL},
    };
    UPDATE_CHECK(update_frequency, cases);
}

/* Header 24, name, expiry 8, value, to a multiple of 16; and 13 in the index. */
static void test_update_memory(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 3, HOLDS("abcde"), COUNTS(32 + 13)},
        {.a = 3, HOLDS("abcdef"), COUNTS(48 + 13)},
        {.a = 3, HOLDS("abcde"), .old_expires_ms = 5, COUNTS(48 + 13)},
        {.a = 0, HOLDS(""), COUNTS(32 + 13)},
        {.a = 3, .reply = UPDATE_NULL},
    };
    UPDATE_CHECK(update_memory, cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_type),   cmocka_unit_test(test_update_encoding),
        cmocka_unit_test(test_update_figure), cmocka_unit_test(test_update_frequency),
        cmocka_unit_test(test_update_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
