/*
 * test_array.c - arrays that grow: nothing is lost on the way, and a failure changes nothing.
 */
#include "base/array.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_array__keeps_what_it_has_while_it_grows(void **state)
{
    (void)state;
    uint32_t *numbers = NULL;
    size_t capacity = 0, moves = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        size_t before = capacity;
        assert_int_equal(array_grow((void **)&numbers, i, &capacity, sizeof *numbers), KVS_ERR_OK);
        assert_true(capacity > i);
        moves += capacity != before;
        numbers[i] = i;
    }
    assert_true(moves < 10); /* or it would take a square of the time */
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(numbers[i], i);
    free(numbers);
}

static void test_array__stays_as_it_was_without_memory(void **state)
{
    (void)state;
    char *large = malloc(1);
    assert_non_null(large);
    char *before = large;
    size_t capacity = 1;
    assert_int_equal(array_grow((void **)&large, 1, &capacity, SIZE_MAX), KVS_ERR_NO_MEMORY);
    assert_ptr_equal(large, before);
    assert_int_equal(capacity, 1);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_array__keeps_what_it_has_while_it_grows),
        cmocka_unit_test(test_array__stays_as_it_was_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
