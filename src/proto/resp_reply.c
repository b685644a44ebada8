/*
 * resp_reply.c - the scanner of RESP2 and RESP3 replies, for clients.
 *
 * Happy path: the type byte says whether a line is the whole reply, or a length follows and so many bytes, or a count
 * and so many elements. Nested elements are walked with one counter of those still to come: nobody needs their
 * structure here, only where the reply ends.
 *
 *   + - : , ( # _    one line                   $ = !    a length line, the bytes, CR LF
 *   * ~ > %          a count line, elements     |        as %, but the reply itself is still to come
 *
 * Failure modes: unlike the request parser, which is as lenient as Redis, this one is strict: a reply that does not end
 * in CR LF where it should means that the two sides have lost each other, and the connection is worth nothing more.
 * Streamed strings and aggregates of RESP3 ("$?") are not RESP to it: no server sends them.
 */
#include "proto/resp.h"
#include "proto/resp_internal.h"

/* "$", a sign, 19 digits, CR, LF. */
#define NUMBER_LINE_BYTES_MAX 23u

/* One element: its line, and what it announces. */
struct element {
    uint8_t type;
    struct slice line; /* behind the type byte, without CR LF */
    struct slice bulk; /* of strings with a length */
    uint64_t children; /* elements that follow and belong to it */
    size_t size;       /* without the children */
    bool null;
};

static bool is_number_line(uint8_t type)
{
    return type == ':' || type == '$' || type == '=' || type == '!' || type == '*' || type == '~' || type == '>' ||
           type == '%' || type == '|';
}

static enum resp_status scan_line(const uint8_t *data, size_t size, struct element *element)
{
    if (size == 0)
        return RESP_MORE;
    element->type = data[0];
    if (data[0] == '\0' || strchr("+-:,(#_$=!*~>%|", data[0]) == NULL)
        return RESP_ERROR;

    const bool bounded = is_number_line(data[0]);
    const size_t window = bounded && size > NUMBER_LINE_BYTES_MAX ? NUMBER_LINE_BYTES_MAX : size;
    const uint8_t *cr = memchr(data, '\r', window);
    if (cr == NULL)
        return bounded && size >= NUMBER_LINE_BYTES_MAX ? RESP_ERROR : RESP_MORE;
    const size_t line_bytes = (size_t)(cr - data);
    if (line_bytes + 1 == size)
        return RESP_MORE;
    if (cr[1] != '\n')
        return RESP_ERROR;
    element->line = slice_make(data + 1, line_bytes - 1);
    element->size = line_bytes + 2;
    return RESP_REQUEST;
}

static enum resp_status scan_string(const uint8_t *data, size_t size, int64_t length, struct element *element)
{
    if (length == -1 && element->type == '$') {
        element->null = true;
        return RESP_REQUEST;
    }
    if (length < 0)
        return RESP_ERROR;
    const size_t there = size - element->size;
    if (there < 2 || there - 2 < (uint64_t)length)
        return RESP_MORE;
    const uint8_t *bytes = data + element->size;
    if (memcmp(bytes + length, "\r\n", 2) != 0)
        return RESP_ERROR;
    element->bulk = slice_make(bytes, (size_t)length);
    if (element->type == '=') { /* "txt:" or "mkd:" come first */
        if (length < 4)
            return RESP_ERROR;
        element->bulk = slice_make(bytes + 4, (size_t)length - 4);
    }
    element->size += (size_t)length + 2;
    return RESP_REQUEST;
}

static enum resp_status scan_element(const uint8_t *data, size_t size, struct element *element)
{
    *element = (struct element){0};
    const enum resp_status line = scan_line(data, size, element);
    if (line != RESP_REQUEST)
        return line;

    int64_t number = 0;
    if (is_number_line(element->type)) {
        struct slice text = element->line;
        if (element->type == ':' && text.size > 1 && text.data[0] == '+' && text.data[1] != '-')
            text = slice_make(text.data + 1, text.size - 1);
        if (!resp_parse_integer(text.data, text.size, &number))
            return RESP_ERROR;
    }

    switch (element->type) {
    case '$':
    case '=':
    case '!':
        return scan_string(data, size, number, element);
    case '*':
        element->null = number == -1;
        break;
    case '_':
        element->null = true;
        return element->line.size == 0 ? RESP_REQUEST : RESP_ERROR;
    case '#':
        return slice_equal(element->line, slice_text("t")) || slice_equal(element->line, slice_text("f")) ? RESP_REQUEST
                                                                                                          : RESP_ERROR;
    case '+':
    case '-':
    case ',':
    case '(':
    case ':':
        return RESP_REQUEST;
    default:
        break;
    }
    if (number < 0)
        return element->null ? RESP_REQUEST : RESP_ERROR;
    const bool pairs = element->type == '%' || element->type == '|';
    element->children = pairs ? 2 * (uint64_t)number : (uint64_t)number;
    return RESP_REQUEST;
}

/* Where an aggregate ends, whose first element is scanned: *end. */
static enum resp_status scan_aggregate(const uint8_t *data, size_t size, const struct element *first, size_t *end)
{
    uint64_t to_come = first->children + (first->type == '|' ? 1 : 0);
    size_t at = first->size;
    while (to_come > 0) {
        struct element element;
        const enum resp_status status = scan_element(data + at, size - at, &element);
        if (status != RESP_REQUEST)
            return status;
        at += element.size;
        to_come -= element.type == '|' ? 0 : 1;
        if (__builtin_add_overflow(to_come, element.children, &to_come))
            return RESP_ERROR;
    }
    *end = at;
    return RESP_REQUEST;
}

static enum resp_reply_type reply_type(const struct element *element)
{
    if (element->null)
        return RESP_REPLY_NULL;
    switch (element->type) {
    case '+':
    case ',':
    case '(':
        return RESP_REPLY_SIMPLE;
    case '-':
    case '!':
        return RESP_REPLY_ERROR;
    case ':':
    case '#':
        return RESP_REPLY_INTEGER;
    case '$':
    case '=':
        return RESP_REPLY_BULK;
    default:
        return RESP_REPLY_OTHER;
    }
}

enum resp_status resp_reply_parse(const uint8_t *data, size_t size, struct resp_reply *reply)
{
    struct element first;
    enum resp_status status = scan_element(data, size, &first);
    if (status != RESP_REQUEST)
        return status;

    *reply = (struct resp_reply){.type = reply_type(&first), .text = first.line, .size = first.size};
    switch (reply->type) {
    case RESP_REPLY_NULL:
        reply->text = slice_make(data, 0);
        break;
    case RESP_REPLY_INTEGER:
        if (first.type == '#')
            reply->integer = first.line.data[0] == 't';
        else {
            const size_t sign_bytes = first.line.data[0] == '+' ? 1 : 0;
            resp_parse_integer(first.line.data + sign_bytes, first.line.size - sign_bytes, &reply->integer);
        }
        break;
    case RESP_REPLY_OTHER:
        status = scan_aggregate(data, size, &first, &reply->size);
        reply->text = slice_make(data, reply->size);
        break;
    default:
        if (first.bulk.data != NULL)
            reply->text = first.bulk;
        break;
    }
    return status;
}
