/*
 * test_update_strings.c - SET and its conditions, GETDEL, GETEX, APPEND, GETRANGE, SETRANGE.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_strings.h"

#include "update_fixture.h"

#define TOO_LONG "ERR string exceeds maximum allowed size (proto-max-bulk-len)"

static void test_update_set__conditions(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 3, .operand = BYTES("new"), PUTS("new")},
        {.a = 0, .operand = BYTES(""), HOLDS("old"), PUTS("")},
        {.option = UPDATE_SET_IF_MISSING, .a = 3, .operand = BYTES("new"), PUTS("new")},
        {.option = UPDATE_SET_IF_MISSING, .a = 3, .operand = BYTES("new"), HOLDS(""), .reply = UPDATE_NULL},
        {.option = UPDATE_SET_IF_FOUND, .a = 3, .operand = BYTES("new"), HOLDS(""), PUTS("new")},
        {.option = UPDATE_SET_IF_FOUND, .a = 3, .operand = BYTES("new"), .reply = UPDATE_NULL},
        {.option = UPDATE_SET_REPLY_OLD, .a = 3, .operand = BYTES("new"), PUTS("new"), .reply = UPDATE_OLD},
        {.option = UPDATE_SET_REPLY_OLD | UPDATE_SET_IF_MISSING,
         .a = 3,
         .operand = BYTES("new"),
         HOLDS("old"),
         .reply = UPDATE_OLD},
        {.option = UPDATE_SET_REPLY_OLD | UPDATE_SET_IF_MISSING,
         .a = 3,
         .operand = BYTES("new"),
         PUTS("new"),
         .reply = UPDATE_OLD},
        {.option = UPDATE_SET_REPLY_INTEGER | UPDATE_SET_IF_MISSING,
         .a = 3,
         .operand = BYTES("new"),
         PUTS("new"),
         COUNTS(1)},
        {.option = UPDATE_SET_REPLY_INTEGER | UPDATE_SET_IF_MISSING,
         .a = 3,
         .operand = BYTES("new"),
         HOLDS("old"),
         COUNTS(0)},
    };
    UPDATE_CHECK(update_set, cases);
}

static void test_update_set__expiry(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 1, .operand = BYTES("n"), HOLDS("old"), .old_expires_ms = 2000000, PUTS("n")},
        {.a = 1,
         .operand = BYTES("n"),
         .expires_ms = 3000000,
         HOLDS("old"),
         .old_expires_ms = 2000000,
         PUTS("n"),
         .put_expires_ms = 3000000},
        {.option = UPDATE_SET_KEEP_EXPIRY,
         .a = 1,
         .operand = BYTES("n"),
         HOLDS("old"),
         .old_expires_ms = 2000000,
         PUTS("n"),
         .put_expires_ms = 2000000},
        {.option = UPDATE_SET_KEEP_EXPIRY, .a = 1, .operand = BYTES("n"), HOLDS("old"), PUTS("n")},
        {.option = UPDATE_SET_KEEP_EXPIRY, .a = 1, .operand = BYTES("n"), PUTS("n")},
    };
    UPDATE_CHECK(update_set, cases);
}

static void test_update_set__compares_with_what_stands_behind_the_value(void **state)
{
    (void)state;
    const uint8_t option = UPDATE_SET_IF_EQUAL;
    const struct update_case cases[] = {
        {.option = option, .a = 3, .b = 5, .operand = BYTES("new\r\nold"), HOLDS("old"), PUTS("new")},
        {.option = option, .a = 3, .b = 5, .operand = BYTES("new\r\nold"), HOLDS("ole"), .reply = UPDATE_NULL},
        {.option = option, .a = 3, .b = 5, .operand = BYTES("new\r\nold"), HOLDS("ol"), .reply = UPDATE_NULL},
        {.option = option, .a = 3, .b = 5, .operand = BYTES("new\r\nold"), HOLDS("older"), .reply = UPDATE_NULL},
        {.option = option, .a = 3, .b = 5, .operand = BYTES("new\r\nold"), .reply = UPDATE_NULL},
        {.option = option, .a = 3, .b = 3, .operand = BYTES("new"), HOLDS(""), PUTS("new")},
        {.option = option, .a = 3, .b = 3, .operand = BYTES("new"), .reply = UPDATE_NULL}, /* missing is not empty */
        {.option = option | UPDATE_SET_REPLY_OLD,
         .a = 0,
         .b = 0,
         .operand = BYTES("x"),
         HOLDS("x"),
         PUTS(""),
         .reply = UPDATE_OLD},
    };
    UPDATE_CHECK(update_set, cases);
}

static void test_update_remove_if_equal(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.operand = BYTES("a"), HOLDS("a"), .change = UPDATE_REMOVE, COUNTS(1)},
        {.operand = BYTES("a"), HOLDS("b"), COUNTS(0)},
        {.operand = BYTES("a"), HOLDS("ab"), COUNTS(0)},
        {.operand = BYTES(""), HOLDS(""), .change = UPDATE_REMOVE, COUNTS(1)},
        {.operand = BYTES(""), COUNTS(0)},
    };
    UPDATE_CHECK(update_remove_if_equal, cases);
}

static void test_update_getdel(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("a"), .change = UPDATE_REMOVE, .reply = UPDATE_OLD},
        {.reply = UPDATE_OLD},
    };
    UPDATE_CHECK(update_getdel, cases);
}

static void test_update_getex(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("a"), .old_expires_ms = 2000000, .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_PERSIST,
         HOLDS("a"),
         .old_expires_ms = 2000000,
         .change = UPDATE_EXPIRE,
         .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_PERSIST, HOLDS("a"), .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_PERSIST, .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_EXPIRE,
         .expires_ms = UPDATE_NOW_MS + 1,
         HOLDS("a"),
         .change = UPDATE_EXPIRE,
         .put_expires_ms = UPDATE_NOW_MS + 1,
         .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_EXPIRE,
         .expires_ms = UPDATE_NOW_MS,
         HOLDS("a"),
         .change = UPDATE_REMOVE,
         .reply = UPDATE_OLD},
        {.a = UPDATE_GETEX_EXPIRE, .expires_ms = 5, .reply = UPDATE_OLD},
        /* A time that is none only matters if the key is there. */
        {.a = UPDATE_GETEX_EXPIRE,
         .option = UPDATE_EXPIRE_TIME,
         HOLDS("a"),
         FAILS("ERR invalid expire time in 'getex' command")},
        {.a = UPDATE_GETEX_EXPIRE,
         .option = UPDATE_NOT_INTEGER,
         HOLDS("a"),
         FAILS("ERR value is not an integer or out of range")},
        {.a = UPDATE_GETEX_EXPIRE, .option = UPDATE_NOT_INTEGER, .reply = UPDATE_OLD},
    };
    UPDATE_CHECK(update_getex, cases);
}

static void test_update_append(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.operand = BYTES("ab"), PUTS("ab"), COUNTS(2)},
        {.operand = BYTES(""), PUTS(""), COUNTS(0)},
        {.operand = BYTES("cd"), HOLDS("ab"), .old_expires_ms = 7, PUTS("abcd"), .put_expires_ms = 7, COUNTS(4)},
        {.operand = BYTES("cd"), HOLDS(""), PUTS("cd"), COUNTS(2)},
        {.operand = BYTES(""), HOLDS("ab"), COUNTS(2)},
        {.operand = BYTES("cd"), HOLDS("ab"), .value_bytes_max = 4, PUTS("abcd"), COUNTS(4)},
        {.operand = BYTES("cd"), HOLDS("ab"), .value_bytes_max = 3, FAILS(TOO_LONG)},
        {.operand = BYTES("abcd"), .value_bytes_max = 3, FAILS(TOO_LONG)},
    };
    UPDATE_CHECK(update_append, cases);
}

static void test_update_strlen(void **state)
{
    (void)state;
    static const struct update_case cases[] = {{HOLDS("abc"), COUNTS(3)}, {HOLDS(""), COUNTS(0)}, {COUNTS(0)}};
    UPDATE_CHECK(update_strlen, cases);
}

static void test_update_getrange(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 0, .b = 3, HOLDS("This is a string"), SAYS("This")},
        {.a = -3, .b = -1, HOLDS("This is a string"), SAYS("ing")},
        {.a = 0, .b = -1, HOLDS("This is a string"), SAYS("This is a string")},
        {.a = 10, .b = 100, HOLDS("This is a string"), SAYS("string")},
        {.a = 0, .b = 0, HOLDS("abc"), SAYS("a")},
        {.a = 2, .b = 1, HOLDS("abc"), SAYS("")},
        {.a = 3, .b = 3, HOLDS("abc"), SAYS("")},
        {.a = -100, .b = 1, HOLDS("abc"), SAYS("ab")},
        {.a = -100, .b = -50, HOLDS("abc"), SAYS("a")}, /* both are the first byte */
        {.a = -50, .b = -100, HOLDS("abc"), SAYS("")},
        {.a = -1, .b = -2, HOLDS("abc"), SAYS("")},
        {.a = INT64_MIN, .b = INT64_MAX, HOLDS("abc"), SAYS("abc")},
        {.a = INT64_MAX, .b = INT64_MIN, HOLDS("abc"), SAYS("")},
        {.a = INT64_MIN, .b = INT64_MIN, HOLDS("abc"), SAYS("a")},
        {.a = 0, .b = -1, HOLDS(""), SAYS("")},
        {.a = 0, .b = 0, HOLDS(""), SAYS("")},
        {.a = 0, .b = -1, SAYS("")},
    };
    UPDATE_CHECK(update_getrange, cases);
}

static void test_update_setrange(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = 6,
         .operand = BYTES("Redis"),
         HOLDS("Hello World"),
         .old_expires_ms = 9,
         PUTS("Hello Redis"),
         .put_expires_ms = 9,
         COUNTS(11)},
        {.a = 6, .operand = BYTES("Redis"), PUTS("\0\0\0\0\0\0Redis"), COUNTS(11)},
        {.a = 0, .operand = BYTES("J"), HOLDS("Hello"), PUTS("Jello"), COUNTS(5)},
        {.a = 3, .operand = BYTES("p me"), HOLDS("Hello"), PUTS("Help me"), COUNTS(7)},
        {.a = 5, .operand = BYTES("!"), HOLDS("Hello"), PUTS("Hello!"), COUNTS(6)},
        {.a = 7, .operand = BYTES("!"), HOLDS("Hello"), PUTS("Hello\0\0!"), COUNTS(8)},
        {.a = 2, .operand = BYTES("x"), HOLDS(""), PUTS("\0\0x"), COUNTS(3)},
        /* Nothing to write: nothing happens, wherever that would be. */
        {.a = 1000, .operand = BYTES(""), HOLDS("Hello"), COUNTS(5)},
        {.a = INT64_MAX, .operand = BYTES(""), COUNTS(0)},
        {.a = 3, .operand = BYTES("xy"), HOLDS("Hello"), .value_bytes_max = 5, PUTS("Helxy"), COUNTS(5)},
        {.a = 4, .operand = BYTES("xy"), HOLDS("Hello"), .value_bytes_max = 5, FAILS(TOO_LONG)},
        {.a = 4, .operand = BYTES("xy"), .value_bytes_max = 5, FAILS(TOO_LONG)},
        {.a = INT64_MAX, .operand = BYTES("x"), HOLDS("Hello"), FAILS(TOO_LONG)},
    };
    UPDATE_CHECK(update_setrange, cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_set__conditions),
        cmocka_unit_test(test_update_set__expiry),
        cmocka_unit_test(test_update_set__compares_with_what_stands_behind_the_value),
        cmocka_unit_test(test_update_remove_if_equal),
        cmocka_unit_test(test_update_getdel),
        cmocka_unit_test(test_update_getex),
        cmocka_unit_test(test_update_append),
        cmocka_unit_test(test_update_strlen),
        cmocka_unit_test(test_update_getrange),
        cmocka_unit_test(test_update_setrange),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
