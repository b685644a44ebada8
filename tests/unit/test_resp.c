/* test_resp.c - the RESP request parser: whole and in pieces, at its limits, with every malformed input. */
#include "proto/resp.h"

#include "resp_outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

static const struct resp_limits wide = {.args_max = 1024 * 1024, .arg_bytes_max = 1 << 24, .inline_bytes_max = 65536};

static void assert_outcome_within(const struct resp_limits *limits, const void *input, size_t size,
                                  const char *expected)
{
    char *outcome = parse_whole(limits, input, size);
    assert_string_equal(outcome, expected);
    free(outcome);
}

/* The input is a literal, NULs and all. */
#define ASSERT_OUTCOME(input, expected) assert_outcome_within(&wide, input, sizeof(input) - 1, expected)

/* ---- inputs ----------------------------------------------------------------------------------------------------- */

#define INPUT(literal)               \
    {                                \
        literal, sizeof(literal) - 1 \
    }

#define HUNDRED "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

/* All kinds of input: for tests that hold for any. */
static const struct {
    const char *bytes;
    size_t size;
} inputs[] = {
    INPUT("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$5\r\nhello\r\n"),
    INPUT("*3\r\n$3\r\nSET\r\n$100\r\n" HUNDRED "\r\n$0\r\n\r\n"),
    INPUT("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
    INPUT("*1\r\n$4\r\nPING\r\n"),
    INPUT("*5\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$3\r\n\r\n\r\r\n"),
    INPUT("*2\r\n$3\r\nGET\r\n$1000\r\n" HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED
          "\r\n"),
    INPUT("*12\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n$1\r\n8\r\n$1\r\n9\r\n"
          "$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
    INPUT("*0\r\n"),
    INPUT("*-1\r\n"),
    INPUT("\r\n"),
    INPUT("\n"),
    INPUT(" \t \r\n"),
    INPUT("PING\r\n"),
    INPUT("SET  key\t\"a \\\"quoted\\\" \\x41\\n value\"  'it\\'s'\r\n"),
    INPUT("SET key \"unbalanced\r\n"),
    INPUT("*3\r\n$3\r\nSET\r\n+16\r\n"),
    INPUT("*3\r\n$3\r\nSET\r\n$x\r\n"),
    INPUT("*x\r\n"),
};

static void test_resp__request_split_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(inputs); i++) {
        char *whole = parse_whole(&wide, inputs[i].bytes, inputs[i].size);
        for (size_t cut = 0; cut <= inputs[i].size; cut++) {
            const size_t stops[] = {cut, inputs[i].size};
            for (uint32_t capacity = 0; capacity < 4; capacity++) {
                char *pieces = parse_in_pieces(&wide, inputs[i].bytes, stops, 2, capacity);
                assert_string_equal(pieces, whole);
                free(pieces);
            }
        }
        free(whole);
    }
}

static void test_resp__request_delivered_byte_by_byte(void **state)
{
    (void)state;
    size_t stops[2000];
    for (size_t i = 0; i < ARRAY_COUNT(stops); i++)
        stops[i] = i + 1;
    for (size_t i = 0; i < ARRAY_COUNT(inputs); i++) {
        char *whole = parse_whole(&wide, inputs[i].bytes, inputs[i].size);
        char *pieces = parse_in_pieces(&wide, inputs[i].bytes, stops, inputs[i].size, 1);
        assert_string_equal(pieces, whole);
        free(pieces);
        free(whole);
    }
}

static void test_resp__whole_requests(void **state)
{
    (void)state;
    ASSERT_OUTCOME("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nbc\r\n", "request 28 [SET] [a] [bc]");
    ASSERT_OUTCOME("*2\r\n$3\r\nGET\r\n$10\r\n0123456789\r\nrest", "request 30 [GET] [0123456789]");
    ASSERT_OUTCOME("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "request 20 [ECHO] []");
    ASSERT_OUTCOME("*1\r\n$4\r\n\r\n$0\r\n", "request 14 [\\x0d\\x0a$0]");
    ASSERT_OUTCOME("*1\r\n$3\r\na\0b\r\n", "request 13 [a\\x00b]");
    ASSERT_OUTCOME("*0\r\nPING\r\n", "empty 4");
    ASSERT_OUTCOME("*-1\r\n", "empty 5");
    ASSERT_OUTCOME("*-9223372036854775808\r\n", "empty 23");
    ASSERT_OUTCOME("", "more");
    ASSERT_OUTCOME("*", "more");
    ASSERT_OUTCOME("*2\r", "more");
    ASSERT_OUTCOME("*2\n$3\n", "more"); /* only CR ends a length line */
}

static void test_resp__pipeline_of_requests(void **state)
{
    (void)state;
    struct text text = {0};
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < 14; i++) /* the well-formed inputs */
            add_bytes(&text, inputs[i].bytes, inputs[i].size);
    }
    struct resp_arg args[16];
    struct resp_parser parser;
    resp_parser_init(&parser, &wide, args, 16);
    size_t at = 0, requests = 0;
    for (; at < text.size; at += parser.size, requests++, resp_parser_next(&parser)) {
        const size_t i = requests % 14;
        char *alone = parse_whole(&wide, inputs[i].bytes, inputs[i].size);
        struct text outcome = {0};
        uint8_t *data = (uint8_t *)text.bytes + at;
        describe(&outcome, &parser, resp_parse(&parser, data, text.size - at), data);
        assert_string_equal(outcome.bytes, alone);
        free(outcome.bytes);
        free(alone);
    }
    assert_int_equal(at, text.size);
    assert_int_equal(requests, 3 * 14);
    free(text.bytes);
}

static void test_resp__bytes_after_cr_and_after_an_argument_are_not_judged(void **state)
{
    (void)state;
    ASSERT_OUTCOME("*2\rx$3\r\nGET\r\n$1\r\na\r\n", "request 20 [GET] [a]");
    ASSERT_OUTCOME("*2\r\n$3\r.GET..$1\r.a..", "request 20 [GET] [a]");
}

/* ---- inline commands -------------------------------------------------------------------------------------------- */

static void test_resp__inline_commands(void **state)
{
    (void)state;
    ASSERT_OUTCOME("PING\r\n", "request 6 [PING]");
    ASSERT_OUTCOME("PING\n", "request 5 [PING]");
    ASSERT_OUTCOME(" \tSET  key   value \r\nrest", "request 21 [SET] [key] [value]");
    ASSERT_OUTCOME("a\rb\r\n", "request 5 [a] [b]");
    ASSERT_OUTCOME("\va\fb c\r\n", "request 8 [a\\x0cb] [c]"); /* skipped between arguments, part of one within */
    ASSERT_OUTCOME("a\0b c\r\n", "request 7 [a\\x00b] [c]");
    ASSERT_OUTCOME("\r\n", "empty 2");
    ASSERT_OUTCOME("\n", "empty 1");
    ASSERT_OUTCOME("  \r\n", "empty 4");
    ASSERT_OUTCOME("$3\r\nSET\r\n", "request 4 [$3]");
    ASSERT_OUTCOME("PING", "more");
    ASSERT_OUTCOME("PING\r", "more");
}

static void test_resp__inline_quotes_and_escapes(void **state)
{
    (void)state;
    ASSERT_OUTCOME("a \"b c\" d\r\n", "request 11 [a] [b\\x20c] [d]");
    ASSERT_OUTCOME("a 'b c' d\r\n", "request 11 [a] [b\\x20c] [d]");
    ASSERT_OUTCOME("\"\" ''\r\n", "request 7 [] []");
    ASSERT_OUTCOME("\"\\n\\r\\t\\b\\a\\q\\\\\\\"\"\r\n", "request 20 [\\x0a\\x0d\\x09\\x08\\x07q\\x5c\"]");
    ASSERT_OUTCOME("\"\\x41\\xfF\\x4g\\x\"\r\n", "request 18 [A\\xffx4gx]");
    ASSERT_OUTCOME("'\\n\\'\\\\ '\r\n", "request 11 [\\x5cn'\\x5c\\x5c\\x20]");
    ASSERT_OUTCOME("'\\\\'\r\n", "error unbalanced quotes in request"); /* the second backslash escapes the quote */
    ASSERT_OUTCOME("ab\"cd\" e\r\n", "request 10 [abcd] [e]");
    ASSERT_OUTCOME("ab'c\"d'\r\n", "request 9 [abc\"d]");
    ASSERT_OUTCOME("a\\nb\r\n", "request 6 [a\\x5cnb]");
    ASSERT_OUTCOME("\"a\"\tb\r\n", "request 7 [a] [b]");
}

static void test_resp__inline_unbalanced_quotes(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "\"\r\n",      "'\r\n",     "a \"b\r\n", "a 'b\r\n",   "\"a\"b\r\n",   "'a'b\r\n",         "a\"b\"c d\r\n",
        "\"a\\\"\r\n", "'a\\'\r\n", "\"a\\\r\n", "\"\"\"\r\n", "'a'\"b\"\r\n", "SET k \"\\x4\r\n", "ok ok ok \"\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        assert_outcome_within(&wide, lines[i], strlen(lines[i]), "error unbalanced quotes in request");
}

/* ---- malformed and over the limits ------------------------------------------------------------------------------ */

static void test_resp__invalid_multibulk_length(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "*\r\n",
        "*a\r\n",
        "*-\r\n",
        "*-0\r\n",
        "*+1\r\n",
        "*01\r\n",
        "*00\r\n",
        "* 1\r\n",
        "*1 \r\n",
        "*1a\r\n",
        "**1\r\n",
        "*1\n\r\n",
        "*--1\r\n",
        "*-01\r\n",
        "*1048577\r\n",
        "*2147483648\r\n",
        "*9223372036854775807\r\n",
        "*9223372036854775808\r\n",
        "*-9223372036854775809\r\n",
        "*18446744073709551617\r\n",
        "*99999999999999999999999999999\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        assert_outcome_within(&wide, lines[i], strlen(lines[i]), "error invalid multibulk length");
    ASSERT_OUTCOME("*1\0\r\n", "error invalid multibulk length");
}

static void test_resp__invalid_bulk_length(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "$\r\n",
        "$a\r\n",
        "$-1\r\n",
        "$-0\r\n",
        "$+1\r\n",
        "$01\r\n",
        "$001\r\n",
        "$00\r\n",
        "$ 1\r\n",
        "$1 \r\n",
        "$1a\r\n",
        "$$1\r\n",
        "$1:\r\n",
        "$11/\r\n",
        "$111x\r\n",
        "$-9223372036854775808\r\n",
        "$9223372036854775807\r\n",
        "$9223372036854775808\r\n",
        "$18446744073709551617\r\n",
        "$4294967297\r\n",
    };
    static const char *const heads[] = {"*2\r\n", "*2\r\n$3\r\nGET\r\n", "*2\r\n$4\r\nECHO\r\n"};
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(heads); j++) {
            char input[256];
            const int size = snprintf(input, sizeof input, "%s%s" HUNDRED, heads[j], lines[i]);
            assert_outcome_within(&wide, input, (size_t)size - 100, "error invalid bulk length");
            assert_outcome_within(&wide, input, (size_t)size, "error invalid bulk length");
        }
    }
}

static void test_resp__expected_dollar(void **state)
{
    (void)state;
    ASSERT_OUTCOME("*1\r\nPING\r\n", "error expected '$', got 'P'");
    ASSERT_OUTCOME("*2\r\n$3\r\nGET\r\n:1\r\n.......", "error expected '$', got ':'");
    ASSERT_OUTCOME("*1\r\n\r\n", "error expected '$', got ' '");
    ASSERT_OUTCOME("*1\r\n\n\r\n", "error expected '$', got ' '");
    ASSERT_OUTCOME("*1\r\n\0\r\n", "error expected '$', got ' '");
    ASSERT_OUTCOME("*1\r\n*1\r\n$4\r\nPING\r\n", "error expected '$', got '*'");
    ASSERT_OUTCOME("*2\r\n$3\r\nGETxx1\r\na\r\n", "error expected '$', got '1'");
    ASSERT_OUTCOME("*1\r\nPING", "more"); /* as in Redis, judged when the line is there */
}

/* A line of `line_bytes` bytes: `head`, filled up with digits, then `tail`. */
static void assert_line_outcome(const char *head, size_t line_bytes, const char *tail, const char *expected)
{
    struct text text = {0};
    const char *line = strrchr(head, '\n') != NULL ? strrchr(head, '\n') + 1 : head;
    add_text(&text, head);
    for (size_t i = strlen(line); i < line_bytes; i++)
        add_text(&text, "1");
    add_text(&text, tail);
    const struct resp_limits limits = {.args_max = 10, .arg_bytes_max = 100, .inline_bytes_max = 50};
    assert_outcome_within(&limits, text.bytes, text.size, expected);

    size_t stops[200]; /* and the same when it trickles in */
    for (size_t i = 0; i < text.size; i++)
        stops[i] = i + 1;
    char *pieces = parse_in_pieces(&limits, text.bytes, stops, text.size, 1);
    assert_string_equal(pieces, expected);
    free(pieces);
    free(text.bytes);
}

static void test_resp__lines_below_at_and_above_the_limit(void **state)
{
    (void)state;
    assert_line_outcome("*", 49, "", "more");
    assert_line_outcome("*", 50, "", "more");
    assert_line_outcome("*", 51, "", "error too big mbulk count string");
    assert_line_outcome("*", 50, "\r\n", "error invalid multibulk length");
    assert_line_outcome("*", 51, "\r\n", "error too big mbulk count string");

    assert_line_outcome("*1\r\n$", 50, "", "more");
    assert_line_outcome("*1\r\n$", 51, "", "error too big bulk count string");
    assert_line_outcome("*1\r\n$", 50, "\r\n", "error invalid bulk length");
    assert_line_outcome("*1\r\n$", 51, "\r\n", "error too big bulk count string");
    assert_line_outcome("*1\r\nx", 51, "\r\n", "error too big bulk count string");

    assert_line_outcome("a ", 50, "", "more");
    assert_line_outcome("a ", 51, "", "error too big inline request");
    assert_line_outcome("a ", 50, "\n", "request 51 [a] [111111111111111111111111111111111111111111111111]");
    assert_line_outcome("a ", 49, "\r\n", "request 51 [a] [11111111111111111111111111111111111111111111111]");
    assert_line_outcome("a ", 50, "\r\n", "error too big inline request");
    assert_line_outcome("a ", 51, "\n", "error too big inline request");
}

static void test_resp__arguments_below_at_and_above_the_limit(void **state)
{
    (void)state;
    const struct resp_limits three = {.args_max = 3, .arg_bytes_max = 100, .inline_bytes_max = 64};
    static const char at_count[] = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
    assert_outcome_within(&three, at_count, sizeof at_count - 1, "request 27 [SET] [a] [b]");
    assert_outcome_within(&three, "*4\r\n$3\r\nSET\r\n", 13, "error invalid multibulk length");
    assert_outcome_within(&three, "*4\r\n$4\r\nECHO\r\n", 14, "error invalid multibulk length");
    assert_outcome_within(&three, "a b c\r\n", 7, "request 7 [a] [b] [c]");
    assert_outcome_within(&three, "a b c d\r\n", 9, "error too big inline request");

    for (uint32_t limit = 2; limit < 1200; limit++) {
        const struct resp_limits limits = {.args_max = 3, .arg_bytes_max = limit, .inline_bytes_max = 64};
        for (uint32_t size = limit - 1; size <= limit + 1; size++) {
            for (int command_bytes = 1; command_bytes <= 3; command_bytes++) {
                char input[64];
                const int bytes = snprintf(input, sizeof input, "*2\r\n$%d\r\n%.*s\r\n$%u\r\n", command_bytes,
                                           command_bytes, "GET", size);
                const bool over = size > limit || (uint32_t)command_bytes > limit;
                assert_outcome_within(&limits, input, (size_t)bytes, over ? "error invalid bulk length" : "more");
            }
        }
    }
    const struct resp_limits short_argument = {.args_max = 3, .arg_bytes_max = 4, .inline_bytes_max = 64};
    assert_outcome_within(&short_argument, "abcd \"a\\x41cd\"\r\n", 16, "request 16 [abcd] [aAcd]");
    assert_outcome_within(&short_argument, "abcde\r\n", 7, "error too big inline request");
}

static void test_resp__error_is_repeated_until_the_next_request(void **state)
{
    (void)state;
    struct resp_arg args[4];
    struct resp_parser parser;
    resp_parser_init(&parser, &wide, args, 4);
    uint8_t bad[] = "*x\r\n", good[] = "PING\r\n";
    assert_int_equal(resp_parse(&parser, bad, 4), RESP_ERROR);
    assert_int_equal(resp_parse(&parser, good, 6), RESP_ERROR);
    assert_string_equal(parser.error, "invalid multibulk length");
    resp_parser_next(&parser);
    assert_int_equal(resp_parse(&parser, good, 6), RESP_REQUEST);
}

/* ---- what a caller relies on between calls ---------------------------------------------------------------------- */

static void test_resp__wanted_names_the_end_of_an_argument(void **state)
{
    (void)state;
    static const char input[] = "*2\r\n$3\r\nGET\r\n$2000\r\n";
    struct resp_arg args[4];
    for (size_t cut = 0; cut < sizeof input; cut++) {
        uint8_t data[sizeof input];
        memcpy(data, input, sizeof input);
        struct resp_parser parser;
        resp_parser_init(&parser, &wide, args, 4);
        assert_int_equal(resp_parse(&parser, data, cut), RESP_MORE);
        if (cut == sizeof input - 1)
            assert_int_equal(parser.wanted, 20 + 2000 + 2);
        else if (cut >= 8 && cut < 13)
            assert_int_equal(parser.wanted, 13);
        else
            assert_int_equal(parser.wanted, cut + 1);
    }
}

static void test_resp__a_line_is_not_searched_twice(void **state)
{
    (void)state;
    struct resp_arg args[4];
    struct resp_parser parser;
    resp_parser_init(&parser, &wide, args, 4);
    uint8_t data[] = "PING abcdefgh\r\n";
    assert_int_equal(resp_parse(&parser, data, 10), RESP_MORE);
    data[7] = '\n'; /* where it has looked already: were it to look again, the line would end here */
    assert_int_equal(resp_parse(&parser, data, 12), RESP_MORE);
    assert_int_equal(resp_parse(&parser, data, 15), RESP_REQUEST);
    assert_int_equal(parser.size, 15);
}

static void test_resp__grow_keeps_what_is_parsed(void **state)
{
    (void)state;
    struct text text = {0};
    enum { ARGS = 1000 };
    add_text(&text, "*1000\r\n");
    for (unsigned i = 0; i < ARGS; i++)
        add_text(&text, "$3\r\nabc\r\n");
    struct resp_parser parser;
    resp_parser_init(&parser, &wide, malloc(4 * sizeof(struct resp_arg)), 4);
    unsigned grown = 0;
    enum resp_status status;
    while ((status = resp_parse(&parser, (uint8_t *)text.bytes, text.size)) == RESP_GROW) {
        assert_int_equal(parser.argc_total, ARGS);
        assert_int_equal(parser.argc, parser.args_capacity);
        grow(&parser);
        grown++;
    }
    assert_int_equal(status, RESP_REQUEST);
    assert_int_equal(grown, ARGS - 4);
    for (unsigned i = 0; i < ARGS; i++) {
        assert_int_equal(parser.args[i].offset, 7 + i * 9 + 4);
        assert_int_equal(parser.args[i].size, 3);
    }
    free(parser.args);
    free(text.bytes);
}

static void test_resp__grow_waits_for_bytes_not_for_announcements(void **state)
{
    (void)state;
    struct resp_arg args[4];
    struct resp_parser parser;
    resp_parser_init(&parser, &wide, args, 4);
    uint8_t data[] = "*1048576\r\n$3\r\nabc\r\n";
    assert_int_equal(resp_parse(&parser, data, 10), RESP_MORE);
    assert_int_equal(resp_parse(&parser, data, 19), RESP_MORE);
    assert_int_equal(parser.argc, 1);
}

static void test_resp__request_of_four_gigabytes_is_refused(void **state)
{
    (void)state;
    const struct resp_limits limits = {.args_max = 10, .arg_bytes_max = UINT32_MAX, .inline_bytes_max = 64};
    const size_t map_bytes = (size_t)UINT32_MAX + 4096;
    /* Never written but for the lines: the pages between them do not come into being. */
    uint8_t *data = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        skip();
    const size_t first = 4294967000;
    const int head_bytes = snprintf((char *)data, 64, "*3\r\n$3\r\nSET\r\n$%zu\r\n", first);
    const size_t second_line = (size_t)head_bytes + first + 2;
    const size_t left = UINT32_MAX - second_line - 6 - 2; /* "$ddd\r\n" before it, CR LF behind */
    assert_in_range(left, 100, 999);

    for (size_t size = left - 1; size <= left + 1; size++) {
        struct resp_arg args[4];
        struct resp_parser parser;
        resp_parser_init(&parser, &limits, args, 4);
        snprintf((char *)data + second_line, 16, "$%zu\r\n", size);
        assert_int_equal(resp_parse(&parser, data, map_bytes), size <= left ? RESP_REQUEST : RESP_ERROR);
        if (size <= left) {
            assert_true(parser.size == UINT32_MAX - (left - size));
            assert_true(parser.args[2].offset == second_line + 6);
        } else {
            assert_string_equal(parser.error, "invalid bulk length");
            assert_int_equal(parser.argc, 2);
        }
    }
    munmap(data, map_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resp__request_split_at_every_byte),
        cmocka_unit_test(test_resp__request_delivered_byte_by_byte),
        cmocka_unit_test(test_resp__whole_requests),
        cmocka_unit_test(test_resp__pipeline_of_requests),
        cmocka_unit_test(test_resp__bytes_after_cr_and_after_an_argument_are_not_judged),
        cmocka_unit_test(test_resp__inline_commands),
        cmocka_unit_test(test_resp__inline_quotes_and_escapes),
        cmocka_unit_test(test_resp__inline_unbalanced_quotes),
        cmocka_unit_test(test_resp__invalid_multibulk_length),
        cmocka_unit_test(test_resp__invalid_bulk_length),
        cmocka_unit_test(test_resp__expected_dollar),
        cmocka_unit_test(test_resp__lines_below_at_and_above_the_limit),
        cmocka_unit_test(test_resp__arguments_below_at_and_above_the_limit),
        cmocka_unit_test(test_resp__error_is_repeated_until_the_next_request),
        cmocka_unit_test(test_resp__wanted_names_the_end_of_an_argument),
        cmocka_unit_test(test_resp__a_line_is_not_searched_twice),
        cmocka_unit_test(test_resp__grow_keeps_what_is_parsed),
        cmocka_unit_test(test_resp__grow_waits_for_bytes_not_for_announcements),
        cmocka_unit_test(test_resp__request_of_four_gigabytes_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
