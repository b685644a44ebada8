/*
 * command_scan.c - SCAN, KEYS and RANDOMKEY: what they are asked, in the words of Redis. scan.h answers.
 */
#include "node/scan.h"

/* What C's strtoul takes for a number, as Redis reads a cursor with it: a sign, none, or nothing at all. */
static bool parse_cursor(struct slice text, uint64_t *cursor)
{
    size_t end = (size_t)command_printable(text, text.size), at = 0;
    const bool minus = end > 0 && text.data[0] == '-';
    at += end > 0 && (minus || text.data[0] == '+');
    *cursor = 0;
    if (at > 0 && at == end)
        return false;
    for (; at < end; at++) {
        const unsigned digit = (unsigned)text.data[at] - '0';
        if (digit > 9 || __builtin_mul_overflow(*cursor, 10u, cursor) || __builtin_add_overflow(*cursor, digit, cursor))
            return false;
    }
    if (minus)
        *cursor = 0 - *cursor;
    return true;
}

/* False: it has its answer. */
static bool pattern_fits(struct call *call, struct slice pattern)
{
    if (pattern.size <= SCAN_PATTERN_BYTES_MAX)
        return true;
    call_error(call, "ERR pattern of %zu bytes is too long; the limit is %u", pattern.size, SCAN_PATTERN_BYTES_MAX);
    return false;
}

/* A pattern that every key matches is none. */
static struct slice pattern_of(struct slice pattern)
{
    return pattern.size == 1 && pattern.data[0] == '*' ? slice_make(NULL, 0) : pattern;
}

void command_scan(struct call *call)
{
    struct scan_question question = {.kind = SCAN_PORTION, .count = 10};
    if (!parse_cursor(call->args[1], &question.cursor)) {
        call_error(call, "ERR invalid cursor");
        return;
    }
    for (unsigned i = 2; i < call->count; i += 2) {
        const struct slice option = call->args[i];
        int64_t count = 0;
        if (i + 1 < call->count && command_word_is(option, "count")) {
            if (!command_need_integer(call, call->args[i + 1], &count))
                return;
            question.count = (uint64_t)count;
            if (count < 1)
                break;
        } else if (i + 1 < call->count && command_word_is(option, "match")) {
            question.pattern = call->args[i + 1];
        } else if (i + 1 < call->count && command_word_is(option, "type")) {
            question.nothing = !command_word_is(call->args[i + 1], "string");
        } else {
            question.count = 0;
            break;
        }
    }
    if (question.count == 0 || question.count > INT64_MAX) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (!pattern_fits(call, question.pattern))
        return;
    question.pattern = pattern_of(question.pattern);
    scan_ask(call, &question);
}

void command_keys(struct call *call)
{
    if (!pattern_fits(call, call->args[1]))
        return;
    const struct scan_question question = {.kind = SCAN_ALL, .pattern = pattern_of(call->args[1])};
    scan_ask(call, &question);
}

void command_randomkey(struct call *call)
{
    const struct scan_question question = {.kind = SCAN_ANY};
    scan_ask(call, &question);
}
