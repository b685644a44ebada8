/*
 * resp_outcome.h - what the request parser made of an input, written down as a text.
 *
 * "request 31 [SET] [a]" or "error invalid bulk length": two of them can be compared, and a failure can be read. The
 * texts belong to the caller, who frees them.
 */
#ifndef KVS_TESTS_RESP_OUTCOME_H
#define KVS_TESTS_RESP_OUTCOME_H

#include "proto/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct text {
    char *bytes;
    size_t size;
};

static inline void add_bytes(struct text *text, const void *bytes, size_t size)
{
    text->bytes = realloc(text->bytes, text->size + size + 1);
    assert_non_null(text->bytes);
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = '\0';
}

static inline void add_text(struct text *text, const char *more)
{
    add_bytes(text, more, strlen(more));
}

static inline void add_number(struct text *text, uint64_t number)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    add_text(text, digits);
}

static inline void add_argument(struct text *text, const uint8_t *bytes, size_t size)
{
    add_text(text, " [");
    for (size_t i = 0; i < size; i++) {
        char escaped[8];
        const bool plain = bytes[i] > 0x20 && bytes[i] < 0x7f && bytes[i] != '\\' && bytes[i] != ']';
        snprintf(escaped, sizeof escaped, plain ? "%c" : "\\x%02x", bytes[i]);
        add_text(text, escaped);
    }
    add_text(text, "]");
}

static inline void describe(struct text *text, const struct resp_parser *parser, enum resp_status status,
                            const uint8_t *data)
{
    switch (status) {
    case RESP_REQUEST:
        assert_int_equal(parser->argc, parser->argc_total);
        add_text(text, "request ");
        add_number(text, parser->size);
        for (uint32_t i = 0; i < parser->argc; i++) {
            const struct slice argument = resp_arg_slice(parser, data, i);
            add_argument(text, argument.data, argument.size);
        }
        break;
    case RESP_EMPTY:
        add_text(text, "empty ");
        add_number(text, parser->size);
        break;
    case RESP_MORE:
        add_text(text, "more");
        break;
    case RESP_ERROR:
        add_text(text, "error ");
        add_text(text, parser->error);
        break;
    default:
        fail_msg("status %d", (int)status);
    }
}

/* A larger array, by one: the caller's part of RESP_GROW. */
static inline void grow(struct resp_parser *parser)
{
    assert_true(parser->argc_total > parser->args_capacity);
    assert_true(parser->argc <= parser->args_capacity);
    parser->args_capacity++;
    parser->args = realloc(parser->args, parser->args_capacity * sizeof parser->args[0]);
    assert_non_null(parser->args);
}

/*
 * Parses the first stops[0] bytes, then stops[1], …, until the parser does not want more. Each time the bytes lie in an
 * allocation of exactly their size, so that a read past their end is caught and a remembered pointer too.
 */
static inline char *parse_in_pieces(const struct resp_limits *limits, const void *input, const size_t *stops,
                                    size_t stop_count, uint32_t args_capacity)
{
    struct resp_parser parser;
    resp_parser_init(&parser, limits, malloc(args_capacity * sizeof(struct resp_arg) + 1), args_capacity);
    uint8_t *data = NULL;
    size_t size = 0;
    enum resp_status status = RESP_MORE;
    for (size_t i = 0; i < stop_count && status == RESP_MORE; i++) {
        uint8_t *moved = malloc(stops[i] + (stops[i] == 0));
        assert_non_null(moved);
        if (size > 0)
            memcpy(moved, data, size);
        memcpy(moved + size, (const uint8_t *)input + size, stops[i] - size);
        free(data);
        data = moved;
        size = stops[i];
        while ((status = resp_parse(&parser, data, size)) == RESP_GROW)
            grow(&parser);
        assert_true(parser.size <= size);
        assert_true(status != RESP_MORE || parser.wanted > size);
    }
    struct text text = {0};
    describe(&text, &parser, status, data);
    free(data);
    free(parser.args);
    return text.bytes;
}

static inline char *parse_whole(const struct resp_limits *limits, const void *input, size_t size)
{
    return parse_in_pieces(limits, input, &size, 1, 16);
}

#endif
