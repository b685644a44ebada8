/*
 * update_numbers.c - values as numbers.
 *
 * Integers have 64 bits, and are written as the shortest decimal. Floating-point numbers are long doubles, written with
 * up to 17 digits behind the point, without zeros at the end and never with an exponent: what Redis replies, digit by
 * digit, on the same kind of machine.
 *
 * Failures: the value is not a number; the result would not be one of 64 bits, or not a finite one.
 */
#include "node/update_numbers.h"

#include "base/assert.h"
#include "node/command.h"
#include "node/update_reply.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Sign and digits of a 64-bit integer; snprintf's 0. */
#define INTEGER_BYTES_MAX 24u
/* Redis's limit for the text of a long double; the largest number has 4,933 digits before the point. */
#define FLOAT_BYTES_MAX 5120u

void update_increment(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                      struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    int64_t number = 0;
    if (old->found && !command_integer(old->value, &number)) {
        update_reply_error(out, UPDATE_TEXT_NOT_INTEGER);
        return;
    }
    if (__builtin_add_overflow(number, spec->a, &number)) {
        update_reply_error(out, "ERR increment or decrement would overflow");
        return;
    }
    uint8_t *text = update_scratch_take(scratch, INTEGER_BYTES_MAX);
    if (text == NULL)
        return;
    struct slice decimal =
        slice_make(text, (size_t)snprintf((char *)text, INTEGER_BYTES_MAX, "%lld", (long long)number));
    if (decimal.size > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    update_put(out, decimal, old->found ? old->expires_ms : 0);
    update_reply_integer(out, number);
}

bool update_float_parse(struct slice text, long double *out)
{
    char copy[FLOAT_BYTES_MAX];
    if (text.size == 0 || text.size >= sizeof(copy))
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    char *end;
    errno = 0;
    long double value = strtold(copy, &end);
    if (isspace((unsigned char)copy[0]) || end != copy + text.size || isnan(value))
        return false;
    /* Too large, or so small that nothing is left. */
    if (errno == ERANGE && (isinf(value) || fpclassify(value) == FP_ZERO))
        return false;
    *out = value;
    return true;
}

/* Returns how many bytes it has written: less than FLOAT_BYTES_MAX. */
static size_t write_float(char text[FLOAT_BYTES_MAX], long double value)
{
    size_t bytes = (size_t)snprintf(text, FLOAT_BYTES_MAX, "%.17Lf", value);
    while (text[bytes - 1] == '0')
        bytes--; /* there is a point before the 17 digits */
    if (text[bytes - 1] == '.')
        bytes--;
    if (bytes == 2 && text[0] == '-' && text[1] == '0') {
        text[0] = '0';
        bytes = 1;
    }
    return bytes;
}

void update_increment_float(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                            struct update_scratch *scratch, struct update_outcome *out)
{
    long double value = 0, increment;
    KVS_ASSERT(operand.size == sizeof(increment));
    memcpy(&increment, operand.data, sizeof(increment));
    if (old->found && !update_float_parse(old->value, &value)) {
        update_reply_error(out, UPDATE_TEXT_NOT_FLOAT);
        return;
    }
    value += increment;
    if (isnan(value) || isinf(value)) {
        update_reply_error(out, "ERR increment would produce NaN or Infinity");
        return;
    }
    uint8_t *text = update_scratch_take(scratch, FLOAT_BYTES_MAX);
    if (text == NULL)
        return;
    struct slice number = slice_make(text, write_float((char *)text, value));
    if (number.size > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    update_put(out, number, old->found ? old->expires_ms : 0);
    update_reply_bytes(out, UPDATE_BULK, number);
}
