/* resp_integer.c - integers in RESP text. A number that is malformed or does not fit gives false, *value untouched. */
#include "proto/resp_internal.h"

bool resp_parse_integer(const uint8_t *text, size_t size, int64_t *value)
{
    const bool negative = size > 0 && text[0] == '-';
    size_t i = negative ? 1 : 0;
    if (i == size)
        return false;
    if (text[i] == '0') {
        if (size != 1)
            return false;
        *value = 0;
        return true;
    }
    int64_t sum = 0;
    for (; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        const int digit = text[i] - '0';
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, negative ? -digit : digit, &sum))
            return false;
    }
    *value = sum;
    return true;
}
