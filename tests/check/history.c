/*
 * history.c - the checker's front: keeps the operations, and turns what the search finds into a verdict.
 *
 * Happy path: history_check prepares, sweeps once, and reads the final values off the states at the end. States do not
 * tell apart the values that nobody reads, so whether such a one can be the last is asked by itself: as if somebody
 * read it when all was over. Only writes that need not lie before the last beginning can be, and the sweep goes on from
 * a mark made there, so this is short.
 *
 * Failure modes: see history.h.
 */
#include "history_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINALS_SHARE 8u /* of the work allowed for the verdict is allowed for the final values */

struct history *history_create(void)
{
    struct history *history = calloc(1, sizeof(*history));
    KVS_ASSERT(history != NULL);
    history->search = search_create(history);
    return history;
}

void history_free(struct history *history)
{
    if (history == NULL)
        return;
    search_free(history->search);
    free(history->ops);
    free(history->initial);
    free(history->items);
    free(history->ends);
    free(history->values);
    free(history->value_table);
    free(history->session_tails);
    free(history);
}

void history_clear(struct history *history)
{
    history->op_count = 0;
    history->initial_count = 0;
}

void history_begin(struct history *history, const uint64_t *initial, size_t count)
{
    history->initial = history_room(history->initial, &history->initial_room, count, sizeof(*initial));
    if (count > 0)
        memcpy(history->initial, initial, count * sizeof(*initial));
    history->initial_count = count;
}

void history_add(struct history *history, const struct history_op *op)
{
    bool writes = op->kind == HISTORY_WRITE || op->kind == HISTORY_WRITE_NEW || op->kind == HISTORY_WRITE_OVER;
    KVS_ASSERT(op->invoked <= op->returned && (!writes || op->value != 0));
    KVS_ASSERT(op->kind < HISTORY_SWAP || op->seen == 0 || (op->found > 0 && op->seen != op->value));
    KVS_ASSERT(history->op_count < HISTORY_NONE / 2);
    history->ops = history_room(history->ops, &history->op_room, history->op_count + 1, sizeof(*op));
    history->ops[history->op_count++] = *op;
}

size_t history_count(const struct history *history)
{
    return history->op_count;
}

/* ---- final values ---------------------------------------------------------------------------------------------- */

/* What the latest beginnings say of the last change. */
struct latest {
    bool any;
    uint64_t moment; /* of the certain items that see or write something: the latest beginning */
    uint32_t value;  /* that it concerns, or HISTORY_NONE */
    bool other_any;
    uint64_t other_moment; /* the same among those that concern other values */
};

static struct latest find_latest(const struct history *history)
{
    struct latest latest = {.value = HISTORY_NONE};
    for (size_t i = 0; i < history->item_count; i++) {
        const struct item *item = &history->items[i]; /* in order of their beginnings */
        if (item->open || item->kind == ITEM_PRESENT)
            continue;
        uint32_t value = item->value != VALUE_ABSENT ? item->value : HISTORY_NONE;
        if (latest.any && (latest.value != value || value == HISTORY_NONE)) {
            latest.other_any = true;
            latest.other_moment = latest.moment;
        }
        latest.any = true;
        latest.moment = item->from;
        latest.value = value;
    }
    return latest;
}

struct finals {
    uint64_t *numbers;
    size_t count, max;
};

static void finals_add(struct finals *finals, uint64_t number)
{
    if (finals->count < finals->max)
        finals->numbers[finals->count] = number;
    finals->count++;
}

/* An open item that is under way at the end may still happen after everything else. */
static bool may_still_happen(const struct history *history, const struct item *item)
{
    struct search *search = history->search;
    if (!item->open || item->until < history->last_end)
        return false;
    for (size_t i = 0; i < search->current.count; i++) {
        uint64_t *state = search->current.states + i * STATE_WORDS(search);
        if (!bit_get(state_done(state), item->slot))
            return true;
    }
    return false;
}

static bool may_end_absent(const struct history *history)
{
    const struct search *search = history->search;
    for (size_t i = 0; i < search->current.count; i++) {
        if (state_value(search->current.states + i * STATE_WORDS(search)) == VALUE_ABSENT)
            return true;
    }
    for (size_t i = 0; i < history->item_count; i++) {
        if (history->items[i].kind == ITEM_REMOVE && may_still_happen(history, &history->items[i]))
            return true;
    }
    return false;
}

enum answer { ANSWER_NO, ANSWER_YES, ANSWER_ASK };

/* Whether the sweep's end alone tells that the history can end with this value. */
static enum answer quick_answer(const struct history *history, const struct latest *latest, uint32_t id)
{
    const struct value *value = &history->values[id];
    bool own = latest->value == id;
    bool bounded = own ? latest->other_any : latest->any;
    if (value->writer == HISTORY_NONE)
        return value->initial && !bounded ? ANSWER_ASK : ANSWER_NO;
    const struct item *writer = &history->items[value->writer];
    bool conditional = writer->kind == ITEM_NEW || writer->kind == ITEM_OVER;
    if (may_still_happen(history, writer))
        return conditional ? ANSWER_ASK : ANSWER_YES;
    return bounded && writer->until < (own ? latest->other_moment : latest->moment) ? ANSWER_NO : ANSWER_ASK;
}

/*
 * A mark keeps states that are enough for what was known to be read; of two writes that would do as well they may have
 * used up the one that is asked for now. Then only a yes from there counts.
 */
static enum search_result run_to(struct history *history, uint32_t id, struct mark *mark)
{
    if (mark == NULL)
        return search_run_to(history->search, id, NULL);
    uint32_t writer = history->values[id].writer;
    bool exact = !mark->thinned && !history->items[writer].preferred;
    enum search_result result = search_run_to(history->search, id, mark);
    return result == SEARCH_IMPOSSIBLE && !exact ? search_run_to(history->search, id, NULL) : result;
}

static void collect_finals(struct history *history, const struct latest *latest, struct finals *finals)
{
    struct search *search = history->search;
    if (may_end_absent(history))
        finals_add(finals, 0);
    /* Going on from a mark spoils the states at the end, so what they tell is noted first. */
    uint8_t *answers = calloc(history->value_count, 1);
    KVS_ASSERT(answers != NULL);
    for (uint32_t id = VALUE_IDS; id < history->value_count; id++)
        answers[id] = (uint8_t)quick_answer(history, latest, id);
    enum search_result unread = SEARCH_TOO_MUCH; /* of initial values that nobody read: one stands for all */
    bool unread_known = false;
    search->work = 0;
    search->work_max /= FINALS_SHARE;
    for (uint32_t id = VALUE_IDS; id < history->value_count; id++) {
        const struct value *value = &history->values[id];
        if (answers[id] == ANSWER_ASK) {
            bool own = latest->value == id;
            bool bounded = own ? latest->other_any : latest->any;
            bool is_unread = value->writer == HISTORY_NONE && value->reads == 0;
            enum search_result result;
            if (!(is_unread && unread_known))
                result = run_to(history, id, bounded ? &search->marks[own] : NULL);
            else
                result = unread;
            if (is_unread) {
                unread = result;
                unread_known = true;
            }
            answers[id] = result == SEARCH_IMPOSSIBLE ? ANSWER_NO : ANSWER_YES;
        }
        if (answers[id] == ANSWER_YES)
            finals_add(finals, value->number);
    }
    free(answers);
}

/* ---- the verdict ----------------------------------------------------------------------------------------------- */

enum history_verdict history_check(struct history *history, uint64_t work_max, uint64_t *finals, size_t finals_max,
                                   size_t *final_count, char *why, size_t why_size)
{
    struct search *search = history->search;
    if (why_size > 0)
        why[0] = 0;
    history_prepare(history, SIZE_MAX);
    struct latest latest = find_latest(history);
    search->marks[0].moment = final_count != NULL && latest.any ? latest.moment : HISTORY_NEVER;
    search->marks[1].moment = final_count != NULL && latest.other_any ? latest.other_moment : HISTORY_NEVER;
    search->work_max = work_max;
    search->work = 0;
    enum search_result result = search_run(search);
    if (result == SEARCH_IMPOSSIBLE) {
        if (why_size > 0)
            history_explain(history, work_max, why, why_size);
        return HISTORY_IMPOSSIBLE;
    }
    struct finals found = {.numbers = finals, .max = finals_max};
    if (result == SEARCH_POSSIBLE && final_count != NULL)
        collect_finals(history, &latest, &found);
    if (result == SEARCH_TOO_MUCH) {
        if (why_size > 0)
            snprintf(why, why_size, "more than %llu states", (unsigned long long)work_max);
        return HISTORY_UNDECIDED;
    }
    if (final_count != NULL)
        *final_count = found.count <= finals_max ? found.count : finals_max + 1;
    return HISTORY_LINEARIZABLE;
}
