/*
 * test_bit_operation.c - bits of whole values combined, held against one bit after the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "node/bit_operation.h"

enum { BYTES_MAX = 70, VALUES_MAX = 4 };

static unsigned byte_at(struct slice value, size_t i)
{
    return i < value.size ? value.data[i] : 0;
}

static unsigned expected(enum bit_operation operation, const struct slice *values, unsigned count, size_t i)
{
    unsigned byte = byte_at(values[0], i);
    if (operation == BIT_NOT)
        return ~byte & 0xff;
    for (unsigned v = 1; v < count; v++) {
        unsigned other = byte_at(values[v], i);
        byte = operation == BIT_AND ? byte & other : operation == BIT_OR ? byte | other : byte ^ other;
    }
    return byte;
}

static void test_bit_operation__every_length_and_place(void **state)
{
    (void)state;
    static uint8_t bytes[VALUES_MAX][BYTES_MAX + 8], out[BYTES_MAX + 8];
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        enum bit_operation operation = (enum bit_operation)(rand() % 4);
        unsigned count = operation == BIT_NOT ? 1 : 1 + (unsigned)rand() % VALUES_MAX;
        struct slice values[VALUES_MAX];
        size_t longest = 0;
        for (unsigned v = 0; v < count; v++) {
            for (size_t i = 0; i < sizeof bytes[v]; i++)
                bytes[v][i] = (uint8_t)rand();
            values[v] = slice_make(bytes[v] + rand() % 8, (size_t)rand() % (BYTES_MAX + 1));
            longest = values[v].size > longest ? values[v].size : longest;
        }
        out[longest] = 0xa5;
        bit_operation_begin(operation, out, longest, values[0]);
        for (unsigned v = 1; v < count; v++)
            bit_operation_add(operation, out, longest, values[v]);
        for (size_t i = 0; i < longest; i++)
            assert_int_equal(out[i], expected(operation, values, count, i));
        assert_int_equal(out[longest], 0xa5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bit_operation__every_length_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
