/*
 * resp_request.c - the request parser of RESP.
 *
 *   *3\r\n  $3\r\n SET\r\n  $16\r\n key:000000000001\r\n  $5\r\n hello\r\n      an array of bulk strings
 *   SET key:000000000001 "hello"\r\n                                            the same as an inline command
 *
 * Happy path: the whole request is there. If its command has three letters, its first thirteen bytes are recognised by
 * one comparison; then every argument is a length line of one to three digits, read without a search for its end, and a
 * jump over the bytes it announces. The bytes of an argument are never looked at.
 *
 * Fragments: what is complete is kept in the parser (`size`, `argc`, `bulk_bytes`) and how far an incomplete line was
 * searched in `scanned`, so a request that trickles in is read once all the same.
 *
 * Failure modes: bytes that are not RESP give RESP_ERROR with the text that Redis 7.2 would send, and the parser
 * repeats it until resp_parser_next. Like Redis, the parser does not look at the byte after a CR, nor at the two bytes
 * after an argument. Unlike Redis, it does not stop at a NUL, and a line over the limit is refused however it was cut
 * into packets.
 */
#include "proto/resp.h"

#include "base/assert.h"
#include "proto/resp_internal.h"

#include <stdio.h>

enum phase {
    PHASE_START,  /* nothing of the request is parsed */
    PHASE_ARRAY,  /* argc_total is known */
    PHASE_INLINE, /* the inline command is a whole line of bulk_bytes bytes; its arguments are counted */
    PHASE_FAILED,
};

/* What a length line is called in messages. */
static const char too_big_count[] = "too big mbulk count string";
static const char too_big_length[] = "too big bulk count string";
static const char bad_count[] = "invalid multibulk length";
static const char bad_length[] = "invalid bulk length";
static const char too_big_inline[] = "too big inline request";

void resp_parser_init(struct resp_parser *parser, const struct resp_limits *limits, struct resp_arg *args,
                      uint32_t args_capacity)
{
    KVS_ASSERT(limits->inline_bytes_max >= 32);
    *parser = (struct resp_parser){.limits = *limits, .args = args, .args_capacity = args_capacity};
    resp_parser_next(parser);
}

void resp_parser_next(struct resp_parser *parser)
{
    parser->argc = 0;
    parser->argc_total = 0;
    parser->size = 0;
    parser->wanted = 0;
    parser->bulk_bytes = -1;
    parser->scanned = 0;
    parser->cut_bytes = 0;
    parser->phase = PHASE_START;
}

uint64_t resp_parser_awaits(const struct resp_parser *parser)
{
    return parser->phase == PHASE_ARRAY && parser->bulk_bytes > 0 ? (uint64_t)parser->bulk_bytes : 0;
}

uint64_t resp_parser_cut(struct resp_parser *parser, size_t size)
{
    const uint64_t length = resp_parser_awaits(parser);
    KVS_ASSERT(length > 0 && size >= parser->size);
    const uint64_t there = size - parser->size < length ? size - parser->size : length;
    parser->cut_bytes = length;
    parser->bulk_bytes = (int64_t)there;
    parser->wanted = parser->size + there + 2;
    return length - there;
}

static enum resp_status fail(struct resp_parser *parser, const char *text)
{
    parser->phase = PHASE_FAILED;
    snprintf(parser->error, sizeof parser->error, "%s", text);
    return RESP_ERROR;
}

static enum resp_status fail_expected_dollar(struct resp_parser *parser, uint8_t got)
{
    const bool breaks_line = got == '\r' || got == '\n' || got == '\0';
    parser->phase = PHASE_FAILED;
    snprintf(parser->error, sizeof parser->error, "expected '$', got '%c'", breaks_line ? ' ' : got);
    return RESP_ERROR;
}

static enum resp_status more(struct resp_parser *parser, uint64_t wanted)
{
    parser->wanted = wanted;
    return RESP_MORE;
}

/*
 * Finds `end` in the line that begins at parser->size. RESP_REQUEST: *line_bytes come before it, and `behind` bytes are
 * there from it on. Where the line may end, and so whether it is too long, does not depend on how much has arrived.
 */
static enum resp_status find_line(struct resp_parser *parser, const uint8_t *data, size_t size, char end, size_t behind,
                                  const char *too_big, size_t *line_bytes)
{
    const size_t there = size - parser->size;
    const size_t window_max = (size_t)parser->limits.inline_bytes_max + 1;
    const size_t window = there < window_max ? there : window_max;
    const uint8_t *line = data + parser->size;

    const uint8_t *found = NULL;
    if (parser->scanned < window)
        found = memchr(line + parser->scanned, end, window - parser->scanned);
    if (found == NULL) {
        if (there >= window_max)
            return fail(parser, too_big);
        parser->scanned = there;
        return more(parser, (uint64_t)size + 1);
    }
    *line_bytes = (size_t)(found - line);
    if (there - *line_bytes < behind) {
        parser->scanned = *line_bytes;
        return more(parser, parser->size + *line_bytes + behind);
    }
    parser->scanned = 0;
    return RESP_REQUEST;
}

/* "*3\r\n" */
static enum resp_status parse_count(struct resp_parser *parser, const uint8_t *data, size_t size)
{
    size_t line_bytes = 0;
    const enum resp_status found = find_line(parser, data, size, '\r', 2, too_big_count, &line_bytes);
    if (found != RESP_REQUEST)
        return found;

    int64_t count = 0;
    if (!resp_parse_integer(data + 1, line_bytes - 1, &count) || count > (int64_t)parser->limits.args_max)
        return fail(parser, bad_count);
    parser->size = line_bytes + 2;
    if (count <= 0)
        return RESP_EMPTY;
    parser->argc_total = (uint32_t)count;
    parser->phase = PHASE_ARRAY;
    return RESP_REQUEST;
}

/* "$16\r\n", of any form: sets bulk_bytes. */
static __attribute__((noinline)) enum resp_status parse_length(struct resp_parser *parser, const uint8_t *data,
                                                               size_t size)
{
    size_t line_bytes = 0;
    const enum resp_status found = find_line(parser, data, size, '\r', 2, too_big_length, &line_bytes);
    if (found != RESP_REQUEST)
        return found;

    const uint8_t *line = data + parser->size;
    if (line[0] != '$')
        return fail_expected_dollar(parser, line[0]);
    int64_t length = 0;
    if (!resp_parse_integer(line + 1, line_bytes - 1, &length) || length < 0 ||
        length > (int64_t)parser->limits.arg_bytes_max)
        return fail(parser, bad_length);
    parser->size += line_bytes + 2;
    if (parser->size + (uint64_t)length + 2 > UINT32_MAX)
        return fail(parser, bad_length); /* offsets of arguments have 32 bits */
    parser->bulk_bytes = length;
    return RESP_REQUEST;
}

/* Enough for a '$', three digits, CR and LF. */
#define SHORT_LINE_BYTES_MAX 6u

/*
 * "$d\r\n", "$dd\r\n" or "$ddd\r\n" at `line`, which has SHORT_LINE_BYTES_MAX bytes: the bytes of the line, or 0 if it
 * is anything else. parse_length would say the same of these; this only says it sooner.
 */
static inline __attribute__((always_inline)) size_t parse_short_length(const uint8_t *line, uint32_t *length)
{
    const uint32_t first = line[1] - (uint32_t)'0';
    if (__builtin_expect(line[0] != '$' || first > 9, 0))
        return 0;
    *length = first;
    if (line[2] == '\r')
        return 4;
    const uint32_t second = line[2] - (uint32_t)'0';
    if (__builtin_expect(first == 0 || second > 9, 0))
        return 0;
    *length = first * 10 + second;
    if (line[3] == '\r')
        return 5;
    const uint32_t third = line[3] - (uint32_t)'0';
    if (__builtin_expect(third > 9 || line[4] != '\r', 0))
        return 0;
    *length = first * 100 + second * 10 + third;
    return 6;
}

/* The arguments of an array as far as they are there with short lengths; parse_argument goes on where this ends. */
static inline __attribute__((always_inline)) void parse_short_arguments(struct resp_parser *parser, const uint8_t *data,
                                                                        size_t size, size_t at)
{
    struct resp_arg *args = parser->args;
    const uint32_t argc_end = parser->argc_total < parser->args_capacity ? parser->argc_total : parser->args_capacity;
    const uint32_t arg_bytes_max = parser->limits.arg_bytes_max;
    const size_t reachable = size < UINT32_MAX ? size : UINT32_MAX;
    uint32_t argc = parser->argc;

    while (argc < argc_end && at + SHORT_LINE_BYTES_MAX <= reachable) {
        uint32_t length = 0;
        const size_t line_bytes = parse_short_length(data + at, &length);
        const size_t end = at + line_bytes + length + 2;
        if (line_bytes == 0 || end > reachable || length > arg_bytes_max)
            break;
        args[argc++] = (struct resp_arg){.offset = (uint32_t)(at + line_bytes), .size = length};
        at = end;
    }
    parser->argc = argc;
    parser->size = at;
}

/* One argument, whatever its length and however little of it is there. */
static enum resp_status parse_argument(struct resp_parser *parser, const uint8_t *data, size_t size)
{
    if (parser->argc == parser->args_capacity)
        return RESP_GROW;
    if (parser->bulk_bytes < 0) {
        const enum resp_status length = parse_length(parser, data, size);
        if (length != RESP_REQUEST)
            return length;
    }
    const uint64_t end = parser->size + (uint64_t)parser->bulk_bytes + 2;
    if (end > size)
        return more(parser, end);
    parser->args[parser->argc++] =
        (struct resp_arg){.offset = (uint32_t)parser->size, .size = (uint32_t)parser->bulk_bytes};
    parser->size = end;
    parser->bulk_bytes = -1;
    return RESP_REQUEST;
}

static enum resp_status parse_array(struct resp_parser *parser, const uint8_t *data, size_t size)
{
    while (parser->argc < parser->argc_total) {
        const enum resp_status argument = parse_argument(parser, data, size);
        if (argument != RESP_REQUEST)
            return argument;
        parse_short_arguments(parser, data, size, parser->size);
    }
    return RESP_REQUEST;
}

/* ---- inline commands -------------------------------------------------------------------------------------------- */

/* What C's isspace says in the C locale; Redis skips these between arguments, but only some of them end one. */
static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool ends_bare_argument(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The byte that an escape between double quotes stands for; *at, behind the backslash, moves behind the escape. */
static uint8_t unescape(const uint8_t *line, size_t line_bytes, size_t *at)
{
    const uint8_t c = line[*at];
    if (c == 'x' && *at + 2 < line_bytes && hex_digit(line[*at + 1]) >= 0 && hex_digit(line[*at + 2]) >= 0) {
        const int value = hex_digit(line[*at + 1]) * 16 + hex_digit(line[*at + 2]);
        *at += 3;
        return (uint8_t)value;
    }
    *at += 1;
    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'b':
        return '\b';
    case 'a':
        return '\a';
    default:
        return c;
    }
}

/*
 * A quoted part of an argument; *at is behind the opening quote and moves behind the closing one. Decoded bytes go to
 * out[*out_bytes…] unless out is NULL. False if the quotes are unbalanced.
 */
static bool split_quoted(const uint8_t *line, size_t line_bytes, size_t *at, uint8_t quote, uint8_t *out,
                         size_t *out_bytes)
{
    while (*at < line_bytes) {
        uint8_t c = line[(*at)++];
        if (c == quote)
            return *at == line_bytes || is_space(line[*at]);
        if (c == '\\' && *at < line_bytes) {
            if (quote == '"')
                c = unescape(line, line_bytes, at);
            else if (line[*at] == '\'')
                c = line[(*at)++];
        }
        if (out != NULL)
            out[*out_bytes] = c;
        *out_bytes += 1;
    }
    return false;
}

enum split { SPLIT_ARGUMENT, SPLIT_END, SPLIT_UNBALANCED };

/*
 * The next argument of a line, from *at on. With `decode` its bytes are gathered in place, from where it begins: an
 * argument is never longer than what stands for it.
 */
static enum split split_next(uint8_t *line, size_t line_bytes, size_t *at, bool decode, struct slice *argument)
{
    while (*at < line_bytes && is_space(line[*at]))
        *at += 1;
    if (*at == line_bytes)
        return SPLIT_END;

    uint8_t *begin = line + *at;
    uint8_t *out = decode ? begin : NULL;
    size_t out_bytes = 0;
    while (*at < line_bytes && !ends_bare_argument(line[*at])) {
        const uint8_t c = line[(*at)++];
        if (c == '"' || c == '\'') {
            if (!split_quoted(line, line_bytes, at, c, out, &out_bytes))
                return SPLIT_UNBALANCED;
            break; /* a closing quote ends the argument */
        }
        if (out != NULL)
            out[out_bytes] = c;
        out_bytes++;
    }
    *argument = slice_make(begin, out_bytes);
    return SPLIT_ARGUMENT;
}

/*
 * Finds the line's end and counts its arguments, changing nothing: it may be that the caller has to make room first.
 * The CR before the LF needs no care: it is a blank.
 */
static enum resp_status parse_inline_line(struct resp_parser *parser, uint8_t *data, size_t size)
{
    size_t line_bytes = 0;
    const enum resp_status found = find_line(parser, data, size, '\n', 1, too_big_inline, &line_bytes);
    if (found != RESP_REQUEST)
        return found;
    uint32_t argc = 0;
    size_t at = 0;
    struct slice argument;
    enum split split = split_next(data, line_bytes, &at, false, &argument);
    for (; split == SPLIT_ARGUMENT; split = split_next(data, line_bytes, &at, false, &argument)) {
        if (argc == parser->limits.args_max || argument.size > parser->limits.arg_bytes_max)
            return fail(parser, too_big_inline);
        argc++;
    }
    if (split == SPLIT_UNBALANCED)
        return fail(parser, "unbalanced quotes in request");
    parser->size = line_bytes + 1;
    if (argc == 0)
        return RESP_EMPTY;
    parser->argc_total = argc;
    parser->bulk_bytes = (int64_t)line_bytes;
    parser->phase = PHASE_INLINE;
    return RESP_REQUEST;
}

static enum resp_status parse_inline_arguments(struct resp_parser *parser, uint8_t *data)
{
    if (parser->argc_total > parser->args_capacity)
        return RESP_GROW;
    KVS_ASSERT(parser->argc == 0); /* the line is decoded once: resp_parser_next was forgotten */
    size_t at = 0;
    struct slice argument;
    while (split_next(data, (size_t)parser->bulk_bytes, &at, true, &argument) == SPLIT_ARGUMENT) {
        parser->args[parser->argc++] =
            (struct resp_arg){.offset = (uint32_t)(argument.data - data), .size = (uint32_t)argument.size};
    }
    KVS_ASSERT(parser->argc == parser->argc_total);
    return RESP_REQUEST;
}

/* ---- whole requests --------------------------------------------------------------------------------------------- */

/* Everything that is not the happy path, or not yet. */
static __attribute__((noinline)) enum resp_status parse_any(struct resp_parser *parser, uint8_t *data, size_t size)
{
    if (parser->phase == PHASE_FAILED)
        return RESP_ERROR;
    if (size == 0)
        return more(parser, 1);
    if (parser->phase == PHASE_START) {
        const enum resp_status first =
            data[0] == '*' ? parse_count(parser, data, size) : parse_inline_line(parser, data, size);
        if (first != RESP_REQUEST)
            return first;
    }
    if (parser->phase == PHASE_INLINE)
        return parse_inline_arguments(parser, data);
    return parse_array(parser, data, size);
}

/* "*n\r\n$3\r\nxxx\r\n": the beginning of a request of n < 10 arguments whose command has three letters. */
#define SHORT_HEAD_BYTES 13u

enum resp_status resp_parse(struct resp_parser *parser, uint8_t *data, size_t size)
{
    if (__builtin_expect(parser->phase != PHASE_START || size < SHORT_HEAD_BYTES, 0))
        return parse_any(parser, data, size);

    uint64_t head, pattern;
    memcpy(&head, data, sizeof head);
    memcpy(&pattern, "*\0\r\n$3\r\n", sizeof pattern);
    const uint32_t count = (uint32_t)(head >> 8 & 0xff) - '0';
    if ((head & ~(uint64_t)0xff00) != pattern || count - 1 > 8 || count > parser->limits.args_max ||
        parser->limits.arg_bytes_max < 3 || parser->args_capacity == 0)
        return parse_any(parser, data, size);

    parser->phase = PHASE_ARRAY;
    parser->argc_total = count;
    parser->args[0] = (struct resp_arg){.offset = sizeof head, .size = 3};
    parser->argc = 1;
    parse_short_arguments(parser, data, size, SHORT_HEAD_BYTES);
    return parser->argc == count ? RESP_REQUEST : parse_any(parser, data, size);
}
