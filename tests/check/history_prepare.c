/*
 * history_prepare.c - from operations to items: what each asks of the key, and how early and late it can have been.
 *
 * Happy path: items are made in the order in which operations were added, then values are looked up: a write that was
 * read becomes certain, and must lie before the first such answer. Then sessions: an item comes before the answers to
 * those behind it. At last items are put into the order of their beginnings and listed in the order of their ends.
 *
 * Failure modes: a value written twice, or written and there from the beginning, is a mistake of the caller: an
 * assertion fails. A value that was read and never written gets an id that no state ever has.
 */
#include "history_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

struct moment {
    uint64_t at;
    uint32_t place;
};

/* What preparation needs beside the items; freed at its end. */
struct sessions {
    uint32_t *numbers; /* open addressing: session + 1, or 0 */
    uint32_t *ids;
    uint64_t *latest;   /* by id: beginning of the latest item so far */
    uint64_t *earliest; /* by id: end of the earliest certain item so far, backwards */
    uint32_t *followers;
    uint64_t *followed_from;
    size_t table_size, count;
};

static size_t table_size_for(size_t count)
{
    size_t size = 64;
    while (size < 2 * count)
        size *= 2;
    return size;
}

static uint64_t mix(uint64_t number)
{
    number *= 0x9e3779b97f4a7c15u;
    return number ^ (number >> 29);
}

static void *take(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    KVS_ASSERT(memory != NULL);
    return memory;
}

/* ---- sorting --------------------------------------------------------------------------------------------------- */

static void sort_short(struct moment *moments, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct moment moment = moments[i];
        size_t at = i;
        for (; at > 0 && moments[at - 1].at > moment.at; at--)
            moments[at] = moments[at - 1];
        moments[at] = moment;
    }
}

/* By moment; equal ones stay in order. Quick where most are in order already, as histories are. */
static void sort_moments(struct moment *moments, size_t count)
{
    enum { SHORT = 8 };
    for (size_t from = 0; from < count; from += SHORT)
        sort_short(moments + from, count - from < SHORT ? count - from : SHORT);
    struct moment *copy = take(count, sizeof(*copy));
    for (size_t width = SHORT; width < count; width *= 2) {
        for (size_t from = 0; from + width < count; from += 2 * width) {
            size_t left = from, middle = from + width;
            size_t end = middle + width < count ? middle + width : count;
            if (moments[middle - 1].at <= moments[middle].at)
                continue;
            size_t right = middle;
            for (size_t to = from; to < end; to++) {
                bool take_left = left < middle && (right == end || moments[left].at <= moments[right].at);
                copy[to] = take_left ? moments[left++] : moments[right++];
            }
            memcpy(moments + from, copy + from, (end - from) * sizeof(*moments));
        }
    }
    free(copy);
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static uint32_t *value_place(const struct history *history, uint64_t number)
{
    size_t at = mix(number) & (history->value_table_size - 1);
    while (history->value_table[at] != 0 && history->values[history->value_table[at]].number != number)
        at = (at + 1) & (history->value_table_size - 1);
    return &history->value_table[at];
}

uint32_t history_value_id(const struct history *history, uint64_t number)
{
    uint32_t id = *value_place(history, number);
    KVS_ASSERT(id >= VALUE_IDS);
    return id;
}

/* The value's id, a new one if need be. */
static uint32_t know_value(struct history *history, uint64_t number)
{
    uint32_t *place = value_place(history, number);
    if (*place == 0) {
        *place = (uint32_t)history->value_count;
        history->values[history->value_count++] = (struct value){.number = number, .writer = HISTORY_NONE};
    }
    return *place;
}

static void begin_values(struct history *history)
{
    size_t most = 2 * history->op_count + history->initial_count + VALUE_IDS;
    history->values = history_room(history->values, &history->value_room, most, sizeof(*history->values));
    history->value_count = VALUE_IDS;
    memset(history->values, 0, VALUE_IDS * sizeof(*history->values));
    size_t size = table_size_for(most);
    if (size > history->value_table_size) {
        free(history->value_table);
        history->value_table = take(size, sizeof(*history->value_table));
        history->value_table_size = size;
    } else {
        memset(history->value_table, 0, history->value_table_size * sizeof(*history->value_table));
    }
    for (size_t i = 0; i < history->initial_count; i++) {
        if (history->initial[i] != 0)
            history->values[know_value(history, history->initial[i])].initial = true;
    }
}

/* Reads, those of swaps among them, tell which writes have happened, and when at the latest. */
static void match_values(struct history *history)
{
    for (size_t i = 0; i < history->item_count; i++) {
        struct item *item = &history->items[i];
        if (item_writes(item)) {
            struct value *value = &history->values[item->value];
            KVS_ASSERT(value->writer == HISTORY_NONE && !value->initial);
            value->writer = (uint32_t)i;
        }
    }
    for (size_t i = 0; i < history->item_count; i++) {
        const struct item *item = &history->items[i];
        uint32_t seen = item->kind == ITEM_READ ? item->value : item->kind == ITEM_SWAP ? item->sees : VALUE_ABSENT;
        if (seen < VALUE_IDS)
            continue;
        struct value *value = &history->values[seen];
        value->reads++;
        if (item->from > value->held_until)
            value->held_until = item->from;
        if (value->writer == HISTORY_NONE)
            continue;
        struct item *writer = &history->items[value->writer];
        writer->kind = item_kind_read(writer->kind);
        writer->open = false;
        uint64_t latest = item->until > writer->from ? item->until : writer->from;
        if (latest < writer->until)
            writer->until = latest;
    }
}

/* ---- sessions -------------------------------------------------------------------------------------------------- */

static void sessions_begin(struct sessions *sessions, size_t op_count)
{
    sessions->table_size = table_size_for(op_count);
    sessions->count = 0;
    sessions->numbers = take(sessions->table_size, sizeof(*sessions->numbers));
    sessions->ids = take(sessions->table_size, sizeof(*sessions->ids));
    sessions->latest = take(op_count, sizeof(*sessions->latest));
    sessions->earliest = take(op_count, sizeof(*sessions->earliest));
    sessions->followers = take(op_count, sizeof(*sessions->followers));
    sessions->followed_from = take(op_count, sizeof(*sessions->followed_from));
}

static void sessions_end(struct sessions *sessions)
{
    free(sessions->numbers);
    free(sessions->ids);
    free(sessions->latest);
    free(sessions->earliest);
    free(sessions->followers);
    free(sessions->followed_from);
}

static uint32_t session_id(struct sessions *sessions, uint32_t number)
{
    if (number == 0)
        return HISTORY_NONE;
    size_t at = mix(number) & (sessions->table_size - 1);
    while (sessions->numbers[at] != 0 && sessions->numbers[at] != number)
        at = (at + 1) & (sessions->table_size - 1);
    if (sessions->numbers[at] == 0) {
        sessions->numbers[at] = number;
        sessions->ids[at] = (uint32_t)sessions->count;
        sessions->earliest[sessions->count] = HISTORY_NEVER;
        sessions->followed_from[sessions->count] = HISTORY_NEVER;
        sessions->count++;
    }
    return sessions->ids[at];
}

/* What happens at all happens before the answers to those behind it in its session; what cannot is left out. */
static void tighten_sessions(struct history *history, struct sessions *sessions)
{
    for (size_t i = history->item_count; i-- > 0;) {
        struct item *item = &history->items[i];
        if (item->session != HISTORY_NONE) {
            uint64_t *earliest = &sessions->earliest[item->session];
            if (*earliest < item->until)
                item->until = *earliest > item->from ? *earliest : item->from;
            if (!item->open)
                *earliest = item->until;
            item->followers = sessions->followers[item->session]++;
            item->followed_from = sessions->followed_from[item->session];
            sessions->followed_from[item->session] = item->from;
        }
    }
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

/* A write that looked: what is known of that, and so what it is. */
static enum item_kind kind_of_swap(const struct history_op *op, bool open)
{
    bool told = !open && op->found >= 0;
    KVS_ASSERT(told || open || op->kind == HISTORY_SWAP);
    if (op->kind == HISTORY_WRITE_NEW && told && op->found > 0)
        return op->seen != 0 ? ITEM_READ : ITEM_PRESENT;
    bool removes = op->kind == HISTORY_SWAP && op->value == 0;
    if (told && op->found == 0 && (removes || op->kind == HISTORY_WRITE_OVER))
        return ITEM_ABSENT;
    if (told)
        return removes && op->seen == 0 ? ITEM_TAKE : ITEM_SWAP;
    if (op->kind == HISTORY_SWAP)
        return removes ? ITEM_REMOVE : ITEM_WRITE;
    return op->kind == HISTORY_WRITE_NEW ? ITEM_NEW : ITEM_OVER;
}

/* False: the operation says nothing. */
static bool kind_of(const struct history_op *op, bool open, enum item_kind *kind)
{
    switch (op->kind) {
    case HISTORY_WRITE:
        *kind = ITEM_WRITE;
        return true;
    case HISTORY_REMOVE:
        *kind = open || op->found < 0 ? ITEM_REMOVE : op->found > 0 ? ITEM_TAKE : ITEM_ABSENT;
        return true;
    case HISTORY_READ:
        *kind = op->value == 0 ? ITEM_ABSENT : ITEM_READ;
        return !open;
    case HISTORY_EXISTS:
        *kind = op->found == 0 ? ITEM_ABSENT : ITEM_PRESENT;
        return !open && op->found >= 0;
    case HISTORY_SWAP:
    case HISTORY_WRITE_NEW:
    case HISTORY_WRITE_OVER:
        *kind = kind_of_swap(op, open);
        return true;
    case HISTORY_KINDS:
        break;
    }
    return false;
}

/* The values that it is about. */
static void value_of(struct history *history, const struct history_op *op, struct item *item)
{
    bool looks = op->kind >= HISTORY_SWAP;
    if (item->kind == ITEM_READ && looks)
        item->value = know_value(history, op->seen);
    else if (item->kind == ITEM_READ || item->kind == ITEM_WRITE || item->kind >= ITEM_NEW ||
             (item->kind == ITEM_SWAP && op->value != 0))
        item->value = know_value(history, op->value);
    if (item->kind == ITEM_SWAP && op->found > 0)
        item->sees = op->seen != 0 ? know_value(history, op->seen) : (uint32_t)VALUE_SOME;
    else if (item->kind == ITEM_OVER)
        item->sees = VALUE_SOME;
}

/* `answered`: by operation, whether its definite answer counts; NULL: all of them do. */
static void make_items(struct history *history, struct sessions *sessions, const bool *answered, uint64_t horizon)
{
    history->items = history_room(history->items, &history->item_room, history->op_count, sizeof(*history->items));
    history->item_count = 0;
    for (size_t i = 0; i < history->op_count; i++) {
        const struct history_op *op = &history->ops[i];
        KVS_ASSERT(op->invoked <= op->returned);
        bool late = answered != NULL && !op->open && !answered[i];
        struct item item = {.op = (uint32_t)i,
                            .open = op->open || late,
                            .session = session_id(sessions, op->session),
                            .slot = 0,
                            .from = op->invoked,
                            .until = late ? HISTORY_NEVER : op->returned,
                            .followed_from = HISTORY_NEVER};
        if (item.session != HISTORY_NONE) {
            KVS_ASSERT(sessions->latest[item.session] <= item.from);
            sessions->latest[item.session] = item.from;
        }
        if (item.from > horizon || !kind_of(op, item.open, &item.kind))
            continue;
        value_of(history, op, &item);
        history->items[history->item_count++] = item;
    }
}

/* Puts items into the order of their beginnings. */
static void order_items(struct history *history, struct moment *moments)
{
    size_t count = history->item_count;
    bool ordered = true;
    for (size_t i = 1; i < count && ordered; i++)
        ordered = history->items[i - 1].from <= history->items[i].from;
    if (ordered)
        return;
    for (size_t i = 0; i < count; i++)
        moments[i] = (struct moment){.at = history->items[i].from, .place = (uint32_t)i};
    sort_moments(moments, count);
    struct item *items = take(count, sizeof(*items));
    for (size_t i = 0; i < count; i++) {
        items[i] = history->items[moments[i].place];
        if (item_writes(&items[i]))
            history->values[items[i].value].writer = (uint32_t)i;
    }
    memcpy(history->items, items, count * sizeof(*items));
    free(items);
}

void history_list_ends(struct history *history)
{
    struct moment *moments = take(history->item_count, sizeof(*moments));
    history->last_end = 0;
    for (size_t i = 0; i < history->item_count; i++) {
        if (!history->items[i].open && history->items[i].until > history->last_end)
            history->last_end = history->items[i].until;
    }
    size_t count = 0;
    for (int open = 0; open <= 1; open++) {
        for (size_t i = 0; i < history->item_count; i++) {
            const struct item *item = &history->items[i];
            if (item->open == open && (!open || item->until < history->last_end))
                moments[count++] = (struct moment){.at = item->until, .place = (uint32_t)i};
        }
    }
    sort_moments(moments, count);
    history->ends = realloc(history->ends, (count > 0 ? count : 1) * sizeof(*history->ends));
    KVS_ASSERT(history->ends != NULL);
    for (size_t i = 0; i < count; i++)
        history->ends[i] = moments[i].place;
    history->end_count = count;
    free(moments);
}

/* Operations with definite answers, in the order of these; returns how many. */
static size_t list_answers(const struct history *history, struct moment *moments)
{
    size_t count = 0;
    for (size_t i = 0; i < history->op_count; i++) {
        if (!history->ops[i].open)
            moments[count++] = (struct moment){.at = history->ops[i].returned, .place = (uint32_t)i};
    }
    sort_moments(moments, count);
    return count;
}

size_t history_answer_count(const struct history *history)
{
    size_t count = 0;
    for (size_t i = 0; i < history->op_count; i++)
        count += !history->ops[i].open;
    return count;
}

uint32_t history_answer(struct history *history, size_t nth)
{
    struct moment *moments = take(history->op_count, sizeof(*moments));
    size_t count = list_answers(history, moments);
    KVS_ASSERT(nth >= 1 && nth <= count);
    uint32_t place = moments[nth - 1].place;
    free(moments);
    return place;
}

void history_prepare(struct history *history, size_t answers)
{
    struct moment *moments = take(history->op_count, sizeof(*moments));
    bool *answered = NULL;
    uint64_t horizon = HISTORY_NEVER;
    if (answers != SIZE_MAX) {
        size_t count = list_answers(history, moments);
        KVS_ASSERT(answers >= 1 && answers <= count);
        answered = take(history->op_count, sizeof(*answered));
        for (size_t i = 0; i < answers; i++)
            answered[moments[i].place] = true;
        horizon = moments[answers - 1].at;
    }
    struct sessions sessions;
    sessions_begin(&sessions, history->op_count);
    begin_values(history);
    make_items(history, &sessions, answered, horizon);
    match_values(history);
    tighten_sessions(history, &sessions);
    order_items(history, moments);
    history_list_ends(history);
    history->session_count = sessions.count;
    history->session_tails = realloc(history->session_tails, (sessions.count + 1) * sizeof(*history->session_tails));
    KVS_ASSERT(history->session_tails != NULL);
    sessions_end(&sessions);
    free(answered);
    free(moments);
}
