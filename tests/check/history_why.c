/*
 * history_why.c - says why a history is impossible.
 *
 * Happy path: answers are taken in, one after the other in the order in which they came, until they contradict each
 * other: the answer that did it is the one to name. That more answers never make an impossible history possible allows
 * to find it by halving. Then what the key could have been at that moment, and the operations that had a say in it.
 *
 * Failure modes: a prefix that takes too long to decide counts as possible; then a later answer than the first wrong
 * one may be named, which still contradicts the rest. A text that does not fit is cut.
 */
#include "history_internal.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define AROUND_MAX 24u /* operations told of */
#define BEFORE_MAX 4u  /* of them, those that had ended before */

struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->at, text->left, format, arguments);
    va_end(arguments);
    if (length < 0 || text->left == 0)
        return;
    size_t taken = (size_t)length < text->left ? (size_t)length : text->left - 1;
    text->at += taken;
    text->left -= taken;
}

static void say_seen(struct text *text, const struct history_op *op)
{
    if (op->open || op->found < 0)
        return;
    if (op->found == 0)
        say(text, " that found nothing");
    else if (op->seen == 0)
        say(text, " that found something");
    else
        say(text, " that found value %" PRIu64, op->seen);
}

static void say_op(struct text *text, const struct history_op *op)
{
    say(text, "#%" PRIu64 " ", op->tag);
    switch (op->kind) {
    case HISTORY_WRITE:
        say(text, "WRITE of value %" PRIu64, op->value);
        break;
    case HISTORY_REMOVE:
        say(text, "REMOVE%s",
            op->open || op->found < 0 ? ""
            : op->found > 0           ? " that found it"
                                      : " that found nothing");
        break;
    case HISTORY_READ:
        if (op->value == 0)
            say(text, "READ of nothing");
        else
            say(text, "READ of value %" PRIu64, op->value);
        break;
    case HISTORY_EXISTS:
        say(text, "EXISTS: %s", op->found > 0 ? "yes" : "no");
        break;
    case HISTORY_SWAP:
        if (op->value == 0)
            say(text, "SWAP for nothing");
        else
            say(text, "SWAP for value %" PRIu64, op->value);
        say_seen(text, op);
        break;
    case HISTORY_WRITE_NEW:
    case HISTORY_WRITE_OVER:
        say(text, "WRITE of value %" PRIu64 " if %s", op->value,
            op->kind == HISTORY_WRITE_NEW ? "nothing is there" : "something is there");
        say_seen(text, op);
        break;
    case HISTORY_KINDS:
        break;
    }
    say(text, " [%" PRIu64 ", ", op->invoked);
    if (op->returned == HISTORY_NEVER)
        say(text, "never]");
    else
        say(text, "%" PRIu64 "]", op->returned);
    if (op->session != 0)
        say(text, " session %" PRIu32, op->session);
    if (op->open)
        say(text, " unanswered");
}

/* Finds the first answer with which the history is impossible, and leaves the search where it failed. */
static uint32_t find_culprit(struct history *history)
{
    size_t possible = 0, impossible = history_answer_count(history);
    while (impossible - possible > 1) {
        size_t middle = possible + (impossible - possible) / 2;
        history_prepare(history, middle);
        history->search->work = 0;
        if (search_run(history->search) == SEARCH_IMPOSSIBLE)
            impossible = middle;
        else
            possible = middle;
    }
    history_prepare(history, impossible);
    history->search->work = 0;
    (void)search_run(history->search);
    return history_answer(history, impossible);
}

/* The value that it says was there; 0: none. */
static uint64_t value_found(const struct history_op *op)
{
    return op->kind == HISTORY_READ ? op->value : op->kind >= HISTORY_SWAP && op->found > 0 ? op->seen : 0;
}

/* The value that it writes, if it has its way; 0: none. */
static uint64_t value_written(const struct history_op *op)
{
    bool writes = op->kind == HISTORY_WRITE || op->kind >= HISTORY_SWAP;
    return writes ? op->value : 0;
}

/* Why the value itself is wrong, if it is. */
static void say_value(struct text *text, const struct history *history, const struct history_op *culprit)
{
    uint64_t value = value_found(culprit);
    if (value == 0)
        return;
    for (size_t i = 0; i < history->initial_count; i++) {
        if (history->initial[i] == value)
            return;
    }
    for (size_t i = 0; i < history->op_count; i++) {
        const struct history_op *op = &history->ops[i];
        if (value_written(op) != value)
            continue;
        if (op->invoked > culprit->returned) {
            say(text, "; it was read before anybody began to write it: ");
            say_op(text, op);
        }
        return;
    }
    say(text, "; nobody ever wrote that value");
}

/* What the key could be when the search came to its end. */
static void say_states(struct text *text, const struct history *history)
{
    const struct search *search = history->search;
    say(text, "\n  at %" PRIu64 " the key could be:", search->now);
    size_t told = 0;
    for (size_t i = 0; i < search->current.count && told < 8; i++) {
        uint64_t *state = search->current.states + i * STATE_WORDS(search);
        bool known = false;
        for (size_t j = 0; j < i && !known; j++)
            known = search->current.states[j * STATE_WORDS(search)] == state[0];
        if (known)
            continue;
        say(text, "%s", told++ == 0 ? " " : ", or ");
        if (state_value(state) == VALUE_ABSENT)
            say(text, "nothing");
        else if (state_value(state) == VALUE_SOME)
            say(text, "a value that is not read any more");
        else
            say(text, "value %" PRIu64 " (%" PRIu32 " reads of it to come)", history->values[state_value(state)].number,
                state_reads_left(state));
    }
}

static bool concerns(const struct history_op *op, const struct history_op *culprit)
{
    const uint64_t own[] = {value_found(culprit), value_written(culprit)};
    bool same = false;
    for (size_t i = 0; i < ARRAY_COUNT(own); i++)
        same = same || (own[i] != 0 && (value_found(op) == own[i] || value_written(op) == own[i]));
    return same || (op->returned >= culprit->invoked && op->invoked <= culprit->returned);
}

/* The operations before, beside, and of the same value. */
static void say_others(struct text *text, const struct history *history, const struct history_op *culprit)
{
    uint64_t before = 0; /* those that ended from here on are told of, too */
    uint64_t ends[BEFORE_MAX] = {0};
    for (size_t i = 0; i < history->op_count; i++) {
        uint64_t end = history->ops[i].returned;
        if (end >= culprit->invoked)
            continue;
        for (size_t j = 0; j < BEFORE_MAX; j++) {
            if (end > ends[j]) {
                uint64_t kept = ends[j];
                ends[j] = end;
                end = kept;
            }
        }
    }
    before = ends[BEFORE_MAX - 1];
    unsigned told = 0;
    for (size_t i = 0; i < history->op_count; i++) {
        const struct history_op *op = &history->ops[i];
        bool shortly = op->returned < culprit->invoked && op->returned >= before;
        if (op == culprit || !(shortly || concerns(op, culprit)))
            continue;
        if (told++ == AROUND_MAX) {
            say(text, "\n  and more");
            return;
        }
        say(text, "\n  %s ", op->returned < culprit->invoked ? "before:" : "beside:");
        say_op(text, op);
    }
}

void history_explain(struct history *history, uint64_t work_max, char *why, size_t why_size)
{
    struct text text = {.at = why, .left = why_size};
    struct search *search = history->search;
    search->work_max = work_max;
    search->marks[0].moment = search->marks[1].moment = HISTORY_NEVER;
    const struct history_op *culprit = &history->ops[find_culprit(history)];
    say_op(&text, culprit);
    say(&text, " cannot be explained");
    say_value(&text, history, culprit);
    say_states(&text, history);
    say_others(&text, history, culprit);
}
