/*
 * test_resp_random.c - the RESP request parser against a second one, on random inputs, whole and in pieces.
 *
 * The second parser is slow, sees whole inputs only, and was made from the description of the protocol.
 */
#include "proto/resp.h"

#include "resp_outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- the second parser ------------------------------------------------------------------------------------------ */

/* The byte at i, or -1 past the end. */
static int byte_at(const uint8_t *input, size_t size, size_t i)
{
    return i < size ? input[i] : -1;
}

static bool reference_number(const uint8_t *input, size_t begin, size_t end, long long *number)
{
    char digits[24] = {0}, again[24];
    if (end - begin == 0 || end - begin > 20)
        return false;
    memcpy(digits, input + begin, end - begin);
    *number = strtoll(digits, NULL, 10);
    snprintf(again, sizeof again, "%lld", *number); /* the only way to write it */
    return strlen(again) == end - begin && memcmp(again, digits, end - begin) == 0;
}

/* 1: the line from `begin` ends at *end; 0: more is needed; -1: too long. */
static int reference_line(const struct resp_limits *limits, const uint8_t *input, size_t size, size_t begin, int last,
                          size_t *end)
{
    for (size_t i = begin; i - begin <= limits->inline_bytes_max; i++) {
        if (byte_at(input, size, i) == -1)
            return 0;
        if (input[i] == last) {
            *end = i;
            return last == '\n' || i + 1 < size ? 1 : 0;
        }
    }
    return -1;
}

static char *reference_end(struct text *text, const char *end)
{
    free(text->bytes);
    *text = (struct text){0};
    add_text(text, end);
    return text->bytes;
}

static bool reference_space(int c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r';
}

static int reference_hex(int c)
{
    const char *digits = "0123456789abcdef";
    if (c >= 'A' && c <= 'F')
        c += 'a' - 'A';
    const char *found = c > 0 ? strchr(digits, c) : NULL;
    return found == NULL ? -1 : (int)(found - digits);
}

/* One argument of an inline line from *i on, into out; its size, or -1 for unbalanced quotes. */
static int reference_argument(const uint8_t *line, size_t size, size_t *i, uint8_t *out)
{
    int count = 0, quote = 0;
    for (;; (*i)++) {
        const int c = byte_at(line, size, *i), next = byte_at(line, size, *i + 1);
        if (c == -1)
            return quote == 0 ? count : -1;
        if (quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r'))
            return count;
        if (quote == 0 && (c == '"' || c == '\'')) {
            quote = c;
        } else if (quote != 0 && c == quote) {
            *i += 1;
            return next == -1 || reference_space(next) ? count : -1;
        } else if (quote == '"' && c == '\\' && next == 'x' && reference_hex(byte_at(line, size, *i + 2)) >= 0 &&
                   reference_hex(byte_at(line, size, *i + 3)) >= 0) {
            out[count++] = (uint8_t)(reference_hex(line[*i + 2]) * 16 + reference_hex(line[*i + 3]));
            *i += 3;
        } else if (quote == '"' && c == '\\' && next != -1) {
            const char *from = "nrtba", *to = "\n\r\t\b\a";
            const char *found = next > 0 ? strchr(from, next) : NULL;
            out[count++] = (uint8_t)(found != NULL ? to[found - from] : next);
            *i += 1;
        } else if (quote == '\'' && c == '\\' && next == '\'') {
            out[count++] = '\'';
            *i += 1;
        } else {
            out[count++] = (uint8_t)c;
        }
    }
}

static char *reference_inline(const struct resp_limits *limits, const uint8_t *input, size_t size)
{
    struct text text = {0};
    size_t end = 0;
    const int line = reference_line(limits, input, size, 0, '\n', &end);
    if (line != 1)
        return reference_end(&text, line == 0 ? "more" : "error too big inline request");
    const size_t line_bytes = end > 0 && input[end - 1] == '\r' ? end - 1 : end;
    uint8_t *argument = malloc(line_bytes + 1);
    uint32_t count = 0;
    add_text(&text, "request ");
    add_number(&text, end + 1);
    for (size_t i = 0;; count++) {
        while (reference_space(byte_at(input, line_bytes, i)))
            i++;
        if (i >= line_bytes)
            break;
        const int argument_bytes = reference_argument(input, line_bytes, &i, argument);
        if (argument_bytes < 0 || count == limits->args_max || (uint32_t)argument_bytes > limits->arg_bytes_max) {
            free(argument);
            return reference_end(&text, argument_bytes < 0 ? "error unbalanced quotes in request"
                                                           : "error too big inline request");
        }
        add_argument(&text, argument, (size_t)argument_bytes);
    }
    free(argument);
    if (count > 0)
        return text.bytes;
    reference_end(&text, "empty ");
    add_number(&text, end + 1);
    return text.bytes;
}

static char *reference_array(const struct resp_limits *limits, const uint8_t *input, size_t size)
{
    struct text arguments = {0}, text = {0};
    size_t end = 0;
    long long count = 0, length = 0;
    int line = reference_line(limits, input, size, 0, '\r', &end);
    if (line != 1)
        return reference_end(&text, line == 0 ? "more" : "error too big mbulk count string");
    if (!reference_number(input, 1, end, &count) || count > limits->args_max)
        return reference_end(&text, "error invalid multibulk length");
    size_t at = end + 2;
    for (long long i = 0; i < count; i++) {
        line = reference_line(limits, input, size, at, '\r', &end);
        if (line != 1)
            return reference_end(&arguments, line == 0 ? "more" : "error too big bulk count string");
        if (input[at] != '$') {
            const int got = input[at] == '\r' || input[at] == '\n' || input[at] == 0 ? ' ' : input[at];
            char error[64];
            snprintf(error, sizeof error, "error expected '$', got '%c'", got);
            return reference_end(&arguments, error);
        }
        if (!reference_number(input, at + 1, end, &length) || length < 0 || length > limits->arg_bytes_max)
            return reference_end(&arguments, "error invalid bulk length");
        at = end + 2;
        if (at + (size_t)length + 2 > size)
            return reference_end(&arguments, "more");
        add_argument(&arguments, input + at, (size_t)length);
        at += (size_t)length + 2;
    }
    add_text(&text, count > 0 ? "request " : "empty ");
    add_number(&text, at);
    if (arguments.size > 0)
        add_text(&text, arguments.bytes);
    free(arguments.bytes);
    return text.bytes;
}

static char *reference(const struct resp_limits *limits, const void *input, size_t size)
{
    if (size > 0 && *(const uint8_t *)input == '*')
        return reference_array(limits, input, size);
    return reference_inline(limits, input, size);
}

/* ---- random inputs ---------------------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % bound;
}

static const char spice[] = "*$\r\n0123456789-+ \t\"'\\xabAFn:\v\0";

static void add_random_array(struct text *text)
{
    static const uint32_t sizes[] = {0, 1, 2, 3, 3, 3, 4, 5, 9, 10, 11, 16, 64, 99, 100, 101, 999, 1000, 1001, 1100};
    const uint32_t count = random_below(7);
    char line[32];
    snprintf(line, sizeof line, "*%u\r\n", count);
    add_text(text, line);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t size = i == 0 && random_below(2) ? 3 : sizes[random_below(ARRAY_COUNT(sizes))];
        snprintf(line, sizeof line, "$%u\r\n", size);
        add_text(text, line);
        for (uint32_t j = 0; j < size; j++)
            add_bytes(text, spice + random_below(sizeof spice), 1);
        add_text(text, "\r\n");
    }
}

static void add_random_line(struct text *text)
{
    static const char *const parts[] = {"SET", "a",  " ",    "  ",    "\t",  "\"",
                                        "'",   "\\", "\\x4", "\\x41", "\\n", "\"b c\" "};
    const uint32_t count = random_below(12);
    for (uint32_t i = 0; i < count; i++)
        add_text(text, parts[random_below(ARRAY_COUNT(parts))]);
    add_text(text, random_below(2) ? "\r\n" : "\n");
}

static void mutate(struct text *text)
{
    const uint32_t at = random_below((uint32_t)text->size);
    switch (random_below(4)) {
    case 0:
        text->bytes[at] = spice[random_below(sizeof spice)];
        break;
    case 1:
        text->bytes[at] = (char)random_below(256);
        break;
    case 2:
        memmove(text->bytes + at, text->bytes + at + 1, text->size - at - 1);
        text->size--;
        break;
    default:
        add_text(text, "x");
        memmove(text->bytes + at + 1, text->bytes + at, text->size - at - 1);
        text->bytes[at] = spice[random_below(sizeof spice)];
        break;
    }
}

static void test_resp__random_inputs_agree_with_the_second_parser(void **state)
{
    (void)state;
    random_state = 20260131;
    unsigned requests = 0, errors = 0;
    for (unsigned round = 0; round < 30000; round++) {
        struct text text = {0};
        if (random_below(3))
            add_random_array(&text);
        else
            add_random_line(&text);
        for (uint32_t i = random_below(4); i > 0 && text.size > 1; i--)
            mutate(&text);
        const struct resp_limits limits = {.args_max = 2 + random_below(6),
                                           .arg_bytes_max = 2 + random_below(1200),
                                           .inline_bytes_max = 32 + random_below(40)};

        char *expected = reference(&limits, text.bytes, text.size);
        char *whole = parse_whole(&limits, text.bytes, text.size);
        size_t stops[6], at = 0;
        for (size_t i = 0; i + 1 < ARRAY_COUNT(stops); i++)
            stops[i] = at += random_below((uint32_t)(text.size - at) + 1);
        stops[ARRAY_COUNT(stops) - 1] = text.size;
        char *pieces = parse_in_pieces(&limits, text.bytes, stops, ARRAY_COUNT(stops), random_below(3));
        if (strcmp(whole, expected) != 0 || strcmp(pieces, expected) != 0)
            fail_msg("round %u: '%s', in pieces '%s', expected '%s'", round, whole, pieces, expected);
        requests += expected[0] == 'r';
        errors += expected[1] == 'r';
        free(expected);
        free(whole);
        free(pieces);
        free(text.bytes);
    }
    assert_true(requests > 5000 && errors > 5000); /* or the inputs show nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resp__random_inputs_agree_with_the_second_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
