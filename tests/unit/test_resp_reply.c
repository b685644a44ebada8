/* test_resp_reply.c - the RESP encoder byte for byte, and the reply scanner: all types, cut at every byte, malformed.
 */
#include "proto/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t out[4096];

#define ASSERT_WRITES(call, expected)                    \
    do {                                                 \
        memset(out, '#', sizeof out);                    \
        const size_t written = (call);                   \
        assert_int_equal(written, sizeof(expected) - 1); \
        assert_memory_equal(out, expected, written);     \
        assert_int_equal(out[written], '#');             \
    } while (0)

static void test_resp_reply__fixed_parts_are_encoded(void **state)
{
    (void)state;
    ASSERT_WRITES(resp_write_simple(out, "OK"), "+OK\r\n");
    ASSERT_WRITES(resp_write_simple(out, ""), "+\r\n");
    ASSERT_WRITES(resp_write_error(out, "ERR no"), "-ERR no\r\n");
    ASSERT_WRITES(resp_write_error(out, "ERR a\r\nb\n"), "-ERR a  b \r\n");
    ASSERT_WRITES(resp_write_array_header(out, 0), "*0\r\n");
    ASSERT_WRITES(resp_write_array_header(out, 12), "*12\r\n");
    ASSERT_WRITES(resp_write_map_header(out, 7, 2), "*14\r\n");
    ASSERT_WRITES(resp_write_map_header(out, 7, 3), "%7\r\n");
    ASSERT_WRITES(resp_write_null(out, 2), "$-1\r\n");
    ASSERT_WRITES(resp_write_null(out, 3), "_\r\n");
    ASSERT_WRITES(resp_write_bulk_header(out, 0), "$0\r\n");
    ASSERT_WRITES(resp_write_bulk_header(out, SIZE_MAX), "$18446744073709551615\r\n");
    ASSERT_WRITES(resp_write_bulk(out, slice_text("a\r\nb")), "$4\r\na\r\nb\r\n");
    ASSERT_WRITES(resp_write_bulk(out, slice_make(NULL, 0)), "$0\r\n\r\n");
}

static void test_resp_reply__integers_are_encoded(void **state)
{
    (void)state;
    ASSERT_WRITES(resp_write_integer(out, 0), ":0\r\n");
    ASSERT_WRITES(resp_write_integer(out, -1), ":-1\r\n");
    ASSERT_WRITES(resp_write_integer(out, INT64_MAX), ":9223372036854775807\r\n");
    ASSERT_WRITES(resp_write_integer(out, INT64_MIN), ":-9223372036854775808\r\n");
    for (int64_t power = 1; power < INT64_MAX / 10; power *= 10) {
        for (int64_t value = power - 1; value <= power; value++) {
            char expected[32];
            const int size = snprintf(expected, sizeof expected, ":%lld\r\n", (long long)value);
            assert_int_equal(resp_write_integer(out, value), size);
            assert_memory_equal(out, expected, (size_t)size);
        }
    }
    assert_true(sizeof(":-9223372036854775808\r\n") <= RESP_HEADER_BYTES_MAX);
}

static void test_resp_reply__bulk_bytes_are_counted(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 9, 10, 99, 100, 999, 1000, 4000};
    static const uint8_t zeros[4000];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
        assert_int_equal(resp_bulk_bytes(sizes[i]), resp_write_bulk(out, slice_make(zeros, sizes[i])));
    assert_int_equal(resp_bulk_bytes(16777216), 11 + 16777216 + 2);
}

static void test_resp_reply__request_is_counted_and_encoded(void **state)
{
    (void)state;
    const struct slice args[] = {slice_text("SET"), slice_text(""), slice_text("value12345")};
    static const char expected[] = "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\nvalue12345\r\n";
    assert_int_equal(resp_write_request(NULL, args, 3), sizeof expected - 1);
    ASSERT_WRITES(resp_write_request(out, args, 3), "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\nvalue12345\r\n");

    struct resp_arg places[4];
    struct resp_parser parser;
    const struct resp_limits limits = {.args_max = 4, .arg_bytes_max = 100, .inline_bytes_max = 64};
    resp_parser_init(&parser, &limits, places, 4);
    assert_int_equal(resp_parse(&parser, out, sizeof expected - 1), RESP_REQUEST);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(slice_equal(resp_arg_slice(&parser, out, i), args[i]));
}

/* ---- scanner ---------------------------------------------------------------------------------------------------- */

/* Scans a copy of exactly `size` bytes, so that a read past the end is caught; `text` is made relative to `data`. */
static enum resp_status scan_exact(const void *data, size_t size, struct resp_reply *reply)
{
    uint8_t *copy = malloc(size + (size == 0));
    assert_non_null(copy);
    memcpy(copy, data, size);
    const enum resp_status status = resp_reply_parse(copy, size, reply);
    if (status == RESP_REQUEST)
        reply->text.data = (const uint8_t *)data + (reply->text.data - copy);
    free(copy);
    return status;
}

#define WHOLE (-1) /* in `text_bytes`: the text is the whole reply */

static const struct {
    const char *bytes;
    enum resp_reply_type type;
    int text_begin, text_bytes;
    int64_t integer;
} replies[] = {
    {"+OK\r\n", RESP_REPLY_SIMPLE, 1, 2, 0},
    {"+\r\n", RESP_REPLY_SIMPLE, 1, 0, 0},
    {"-ERR no\r\n", RESP_REPLY_ERROR, 1, 6, 0},
    {":0\r\n", RESP_REPLY_INTEGER, 1, 1, 0},
    {":-12\r\n", RESP_REPLY_INTEGER, 1, 3, -12},
    {":+12\r\n", RESP_REPLY_INTEGER, 1, 3, 12},
    {":9223372036854775807\r\n", RESP_REPLY_INTEGER, 1, 19, INT64_MAX},
    {":-9223372036854775808\r\n", RESP_REPLY_INTEGER, 1, 20, INT64_MIN},
    {"$5\r\nhello\r\n", RESP_REPLY_BULK, 4, 5, 0},
    {"$0\r\n\r\n", RESP_REPLY_BULK, 4, 0, 0},
    {"$12\r\na\r\nb\r\n$-1\r\n+\r\n", RESP_REPLY_BULK, 5, 12, 0},
    {"$-1\r\n", RESP_REPLY_NULL, 0, 0, 0},
    {"*-1\r\n", RESP_REPLY_NULL, 0, 0, 0},
    {"_\r\n", RESP_REPLY_NULL, 0, 0, 0},
    {"#t\r\n", RESP_REPLY_INTEGER, 1, 1, 1},
    {"#f\r\n", RESP_REPLY_INTEGER, 1, 1, 0},
    {",3.25\r\n", RESP_REPLY_SIMPLE, 1, 4, 0},
    {",inf\r\n", RESP_REPLY_SIMPLE, 1, 3, 0},
    {"(3492890328409238509324850943850943825024385\r\n", RESP_REPLY_SIMPLE, 1, 43, 0},
    {"=8\r\ntxt:text\r\n", RESP_REPLY_BULK, 8, 4, 0},
    {"!7\r\nERR bad\r\n", RESP_REPLY_ERROR, 4, 7, 0},
    {"*0\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"*3\r\n:1\r\n$2\r\nab\r\n$-1\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"*2\r\n*2\r\n:1\r\n*1\r\n+x\r\n*0\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n_\r\n#t\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"~2\r\n:1\r\n:2\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {">2\r\n+message\r\n$1\r\nx\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"|1\r\n+ttl\r\n:3600\r\n+OK\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
    {"*2\r\n|1\r\n+ttl\r\n:3600\r\n+a\r\n+b\r\n", RESP_REPLY_OTHER, 0, WHOLE, 0},
};

static void test_resp_reply__every_type_is_scanned(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(replies); i++) {
        char bytes[128];
        const int behind = snprintf(bytes, sizeof bytes, "%s+next\r\n", replies[i].bytes);
        const size_t size = strlen(replies[i].bytes);
        for (size_t given = size; given <= (size_t)behind; given++) {
            struct resp_reply reply;
            assert_int_equal(scan_exact(bytes, given, &reply), RESP_REQUEST);
            assert_int_equal(reply.size, size);
            assert_int_equal(reply.type, replies[i].type);
            assert_true(reply.integer == replies[i].integer);
            assert_ptr_equal(reply.text.data, bytes + replies[i].text_begin);
            assert_int_equal(reply.text.size, replies[i].text_bytes == WHOLE ? size : (size_t)replies[i].text_bytes);
        }
    }
}

static void test_resp_reply__truncated_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(replies); i++) {
        for (size_t size = 0; size < strlen(replies[i].bytes); size++) {
            struct resp_reply reply;
            if (scan_exact(replies[i].bytes, size, &reply) != RESP_MORE)
                fail_msg("%zu bytes of %s", size, replies[i].bytes);
        }
    }
}

static void test_resp_reply__malformed_replies_are_refused(void **state)
{
    (void)state;
    static const char *const malformed[] = {
        "x\r\n",
        "\r\n",
        "HTTP/1.1 400\r\n",
        "+a\rb\r\n",
        ":\r\n",
        ":a\r\n",
        ":1a\r\n",
        ":+\r\n",
        ":+-1\r\n",
        ":--1\r\n",
        ":9223372036854775808\r\n",
        ":-9223372036854775809\r\n",
        ":111111111111111111111111",
        "$\r\n",
        "$-2\r\n",
        "$x\r\n",
        "$?\r\n",
        "$1\rx",
        "$1\r\nab\r\n",
        "$1\r\na\rb",
        "$1\r\na\n\r",
        "$111111111111111111111111",
        "!-1\r\n",
        "=-1\r\n",
        "=3\r\nabc\r\n",
        "_x\r\n",
        "#x\r\n",
        "#\r\n",
        "#tt\r\n",
        "*-2\r\n",
        "*?\r\n",
        "*x\r\n",
        "%-1\r\n",
        "~-1\r\n",
        ">-1\r\n",
        "|-1\r\n",
        "*2\r\n:1\r\nx",
        "*1\r\n$1\r\nab\r\n",
        "*1\r\n*1\r\n:x\r\n",
        "*2\r\n%9223372036854775807\r\n%9223372036854775807\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(malformed); i++) {
        struct resp_reply reply;
        if (scan_exact(malformed[i], strlen(malformed[i]), &reply) != RESP_ERROR)
            fail_msg("not refused: %s", malformed[i]);
    }
}

static void test_resp_reply__every_first_byte_is_known_or_refused(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        const uint8_t byte = (uint8_t)first;
        const bool known = first != 0 && strchr("+-:$*_,(#!=%~>|", (int)first) != NULL;
        struct resp_reply reply;
        assert_int_equal(scan_exact(&byte, 1, &reply), known ? RESP_MORE : RESP_ERROR);
    }
}

static void test_resp_reply__deep_nesting_needs_no_stack(void **state)
{
    (void)state;
    const size_t depth = 500000;
    uint8_t *bytes = malloc((depth + 1) * 4);
    assert_non_null(bytes);
    for (size_t i = 0; i < depth; i++)
        resp_write_array_header(bytes + 4 * i, 1);
    resp_write_integer(bytes + 4 * depth, 1);
    struct resp_reply reply;
    assert_int_equal(resp_reply_parse(bytes, 4 * depth, &reply), RESP_MORE);
    assert_int_equal(resp_reply_parse(bytes, 4 * depth + 4, &reply), RESP_REQUEST);
    assert_int_equal(reply.size, 4 * depth + 4);
    free(bytes);
}

static void test_resp_reply__huge_announcements_wait_and_do_not_overflow(void **state)
{
    (void)state;
    static const char *const huge[] = {
        "$9223372036854775807\r\nabc",    "=9223372036854775807\r\n", "*9223372036854775807\r\n:1\r\n",
        "%9223372036854775807\r\n:1\r\n", "|9223372036854775807\r\n", "*1\r\n$9223372036854775806\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(huge); i++) {
        struct resp_reply reply;
        assert_int_equal(scan_exact(huge[i], strlen(huge[i]), &reply), RESP_MORE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resp_reply__fixed_parts_are_encoded),
        cmocka_unit_test(test_resp_reply__integers_are_encoded),
        cmocka_unit_test(test_resp_reply__bulk_bytes_are_counted),
        cmocka_unit_test(test_resp_reply__request_is_counted_and_encoded),
        cmocka_unit_test(test_resp_reply__every_type_is_scanned),
        cmocka_unit_test(test_resp_reply__truncated_at_every_byte),
        cmocka_unit_test(test_resp_reply__malformed_replies_are_refused),
        cmocka_unit_test(test_resp_reply__every_first_byte_is_known_or_refused),
        cmocka_unit_test(test_resp_reply__deep_nesting_needs_no_stack),
        cmocka_unit_test(test_resp_reply__huge_announcements_wait_and_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
