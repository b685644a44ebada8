/*
 * test_update_expiry.c - EXPIRE with its conditions, PERSIST.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/update_expiry.h"

#include "update_fixture.h"

enum {
    NX = UPDATE_EXPIRE_IF_NONE,
    XX = UPDATE_EXPIRE_IF_ANY,
    GT = UPDATE_EXPIRE_IF_LATER,
    LT = UPDATE_EXPIRE_IF_SOONER,
    NOW = UPDATE_NOW_MS,
};

#define EXPIRES(ms) .change = UPDATE_EXPIRE, .put_expires_ms = (ms), COUNTS(1)

static void test_update_expire(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.a = NOW + 1, HOLDS("a"), EXPIRES(NOW + 1)},
        {.a = NOW + 1, HOLDS("a"), .old_expires_ms = NOW + 9, EXPIRES(NOW + 1)},
        {.a = NOW, HOLDS("a"), .change = UPDATE_REMOVE, COUNTS(1)},
        {.a = 0, HOLDS("a"), .change = UPDATE_REMOVE, COUNTS(1)},
        {.a = -1, HOLDS("a"), .change = UPDATE_REMOVE, COUNTS(1)},
        {.a = INT64_MIN, HOLDS("a"), .change = UPDATE_REMOVE, COUNTS(1)},
        {.a = INT64_MAX, HOLDS("a"), EXPIRES(INT64_MAX)},
        {.a = NOW + 1, COUNTS(0)},
        {.a = -1, COUNTS(0)},
    };
    UPDATE_CHECK(update_expire, cases);
}

static void test_update_expire__conditions(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.option = NX, .a = NOW + 5, HOLDS("a"), EXPIRES(NOW + 5)},
        {.option = NX, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 9, COUNTS(0)},
        {.option = XX, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 9, EXPIRES(NOW + 5)},
        {.option = XX, .a = NOW + 5, HOLDS("a"), COUNTS(0)},
        {.option = GT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 4, EXPIRES(NOW + 5)},
        {.option = GT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 5, COUNTS(0)},
        {.option = GT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 6, COUNTS(0)},
        {.option = GT, .a = INT64_MAX, HOLDS("a"), COUNTS(0)}, /* never is later than any time */
        {.option = LT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 6, EXPIRES(NOW + 5)},
        {.option = LT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 5, COUNTS(0)},
        {.option = LT, .a = INT64_MAX, HOLDS("a"), EXPIRES(INT64_MAX)},
        {.option = LT, .a = -5, HOLDS("a"), .old_expires_ms = NOW + 5, .change = UPDATE_REMOVE, COUNTS(1)},
        {.option = GT, .a = -5, HOLDS("a"), .old_expires_ms = NOW + 5, COUNTS(0)},
        {.option = XX | GT, .a = NOW + 5, HOLDS("a"), .old_expires_ms = NOW + 4, EXPIRES(NOW + 5)},
        {.option = XX | LT, .a = NOW + 5, HOLDS("a"), COUNTS(0)},
        {.option = LT, .a = INT64_MAX, HOLDS("a"), .old_expires_ms = UINT64_MAX, COUNTS(0)},
    };
    UPDATE_CHECK(update_expire, cases);
}

static void test_update_persist(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {HOLDS("a"), .old_expires_ms = NOW + 4, EXPIRES(0)},
        {HOLDS("a"), COUNTS(0)},
        {COUNTS(0)},
    };
    UPDATE_CHECK(update_persist, cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_expire),
        cmocka_unit_test(test_update_expire__conditions),
        cmocka_unit_test(test_update_persist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
