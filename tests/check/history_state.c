/*
 * history_state.c - one state of the search: what an item does to it, and which items may come next.
 *
 * An item may be placed when nothing hard of its session stands undone before it; blind items before it are drawn
 * along. Words used below: "ahead" are the undone items of the same session that come before; "obliged" is an item that
 * is neither done nor optional.
 *
 * Why a change makes blind items optional. Before a change that looks at nothing (a write, a blind remove) any blind
 * items can stand unseen, in any order. Before a remove that found something any blind writes can, and after it blind
 * removes; one that stands between them in its session is covered by the write behind it. An optional item that is used
 * after all takes those behind it in its session along: they must come later still, and are obliged again.
 *
 * A swap hides less. Before one that saw a certain value nothing can stand: what could has been hidden by that value's
 * writer. Before one that saw something, whatever it was, blind writes can that need no remove before them; before one
 * that saw nothing, blind removes (where nothing is they are optional anyhow). For the rest a cover may be needed: a
 * blind write, or a remove, that is placed for no other reason than that it hides the others. A write by an open swap
 * (ITEM_NEW) hides nothing.
 *
 * Why the choices suffice. A blind item is placed only where it is needed: it gives somebody under way what he saw, it
 * holds up somebody of its session, or its time is over. Until then nobody can tell whether it has been placed. Of
 * several that would do, the one that ends first is taken, if their sessions leave them free; of sessions that are
 * alike in what is left of them, any one; and of a run of blind writes of one session the first, for the others then
 * hide behind the next change.
 *
 * Failure modes: none; pure.
 */
#include "history_internal.h"

#include <string.h>

struct ahead {
    bool any, hard, obliged_write, obliged_remove;
};

static bool is_done(const struct search *search, uint64_t *state, const struct item *item)
{
    (void)search;
    return bit_get(state_done(state), item->slot);
}

static struct ahead look_ahead(const struct search *search, uint64_t *state, const struct item *item)
{
    struct ahead ahead = {0};
    for (uint32_t at = item->before; at != HISTORY_NONE;) {
        const struct item *other = &search->history->items[at];
        at = other->before;
        if (is_done(search, state, other))
            continue;
        ahead.any = true;
        if (!item_kind_is_blind(other->kind))
            ahead.hard = true;
        else if (bit_get(state_optional(search, state), other->slot))
            continue;
        else if (other->kind == ITEM_WRITE)
            ahead.obliged_write = true;
        else
            ahead.obliged_remove = true;
    }
    return ahead;
}

static void mark_done(const struct search *search, uint64_t *state, const struct item *item)
{
    bit_set(state_done(state), item->slot);
    bit_clear(state_optional(search, state), item->slot);
}

/* Once an item is placed, what stands before it in its session has happened before it, or never. */
static void close_before(const struct search *search, uint64_t *state, const struct item *item)
{
    for (uint32_t at = item->before; at != HISTORY_NONE; at = search->history->items[at].before)
        mark_done(search, state, &search->history->items[at]);
}

void state_set_value(const struct search *search, uint64_t *state, uint32_t value)
{
    uint32_t reads = value >= VALUE_IDS ? search->history->values[value].reads : 0;
    state[0] = state_head(reads == 0 && value != VALUE_ABSENT ? (uint32_t)VALUE_SOME : value, reads);
}

static uint64_t undone(const struct search *search, uint64_t *state, enum item_kind kind, size_t word)
{
    return search->masks[kind][word] & ~state_done(state)[word];
}

static bool any_undone(const struct search *search, uint64_t *state, enum item_kind kind)
{
    for (size_t word = 0; word < search->words; word++) {
        if (undone(search, state, kind, word) != 0)
            return true;
    }
    return false;
}

static bool any_obliged(const struct search *search, uint64_t *state, enum item_kind kind)
{
    for (size_t word = 0; word < search->words; word++) {
        if ((undone(search, state, kind, word) & ~state_optional(search, state)[word]) != 0)
            return true;
    }
    return false;
}

static struct item *item_of(const struct search *search, size_t word, uint64_t bits)
{
    return item_at(search, (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(bits));
}

/* Is there a swap under way that saw this: VALUE_ABSENT, or VALUE_SOME? */
static bool any_swap(const struct search *search, uint64_t *state, uint32_t sees)
{
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, ITEM_SWAP, word); bits != 0; bits &= bits - 1) {
            if (item_of(search, word, bits)->sees == sees)
                return true;
        }
    }
    return false;
}

/* ---- what costs nothing ---------------------------------------------------------------------------------------- */

/*
 * Items that see what they should and change nothing. Those with optional items ahead are left to be chosen: placing
 * them takes these away.
 */
static bool settle_lookers(const struct search *search, uint64_t *state, enum item_kind kind)
{
    bool changed = false;
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, kind, word); bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            if (item->before != HISTORY_NONE && look_ahead(search, state, item).any)
                continue;
            mark_done(search, state, item);
            changed = true;
        }
    }
    return changed;
}

/* Reads of the value that is there now: nothing can change before all of them are done, so they come at once. */
static bool settle_reads(const struct search *search, uint64_t *state)
{
    bool changed = false;
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, ITEM_READ, word); bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            if (item->value != state_value(state))
                continue;
            struct ahead ahead = look_ahead(search, state, item);
            if (ahead.hard || ahead.obliged_write || ahead.obliged_remove)
                continue;
            close_before(search, state, item);
            mark_done(search, state, item);
            changed = true;
            uint32_t left = state_reads_left(state) - 1;
            if (left == 0) {
                state[0] = VALUE_SOME;
                return true;
            }
            state[0] = state_head(item->value, left);
        }
    }
    return changed;
}

/* Where there is a value that nobody will read, any one may be replaced by another such. */
static void settle_swaps(const struct search *search, uint64_t *state)
{
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, ITEM_SWAP, word); bits != 0; bits &= bits - 1) {
            struct item *item = item_of(search, word, bits);
            if (item->sees != VALUE_SOME || item->value == VALUE_ABSENT ||
                search->history->values[item->value].reads > 0)
                continue;
            if (item->before != HISTORY_NONE && look_ahead(search, state, item).any)
                continue;
            mark_done(search, state, item);
            item->preferred = true;
        }
    }
}

/* Where there is nothing, a blind remove may have been. */
static bool settle_removes(const struct search *search, uint64_t *state)
{
    bool changed = false;
    for (size_t word = 0; word < search->words; word++) {
        uint64_t bits = undone(search, state, ITEM_REMOVE, word) & ~state_optional(search, state)[word];
        for (; bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            struct ahead ahead = look_ahead(search, state, item);
            if (ahead.hard || ahead.obliged_write || ahead.obliged_remove)
                continue;
            bit_set(state_optional(search, state), item->slot);
            changed = true;
        }
    }
    return changed;
}

void state_settle(const struct search *search, uint64_t *state)
{
    bool changed = true;
    while (changed) {
        if (state_value(state) == VALUE_ABSENT) {
            changed = settle_lookers(search, state, ITEM_ABSENT);
            changed = settle_removes(search, state) || changed;
        } else {
            changed = state_reads_left(state) > 0 && settle_reads(search, state);
            changed = settle_lookers(search, state, ITEM_PRESENT) || changed;
        }
    }
    if (state_value(state) == VALUE_SOME)
        settle_swaps(search, state);
}

/* ---- placing --------------------------------------------------------------------------------------------------- */

/* Can the blind item stand unseen before the change, or, a remove beside one that takes what is there, behind it? */
static bool is_hidden_by(const struct search *search, uint64_t *state, const struct item *item,
                         const struct item *change)
{
    bool own = item->session == change->session && item->session != HISTORY_NONE;
    if (own)
        return false;
    struct ahead ahead = look_ahead(search, state, item);
    if (change->kind == ITEM_SWAP)
        return change->sees == VALUE_SOME && item->kind == ITEM_WRITE && !ahead.hard && !ahead.obliged_remove;
    return change->kind != ITEM_NEW && !ahead.hard;
}

/* A change comes: blind items that it hides become optional. */
static void hide_blind(const struct search *search, uint64_t *state, const struct item *change)
{
    for (enum item_kind kind = ITEM_WRITE; kind < ITEM_KINDS; kind++) {
        for (size_t word = 0; word < search->words; word++) {
            uint64_t bits = undone(search, state, kind, word) & ~state_optional(search, state)[word];
            for (; bits != 0; bits &= bits - 1) {
                const struct item *item = item_of(search, word, bits);
                if (is_hidden_by(search, state, item, change))
                    bit_set(state_optional(search, state), item->slot);
            }
        }
    }
    for (uint32_t at = change->after; at != HISTORY_NONE; at = search->history->items[at].after) {
        const struct item *item = &search->history->items[at];
        if (!item->open)
            bit_clear(state_optional(search, state), item->slot);
    }
}

/* A value has come that must stay until reads of it have begun: is there anything that cannot wait so long? */
static bool is_dead_end(const struct search *search, uint64_t *state)
{
    if (state_reads_left(state) == 0)
        return false;
    uint64_t held_until = search->history->values[state_value(state)].held_until;
    if (held_until <= search->now)
        return false;
    for (size_t word = 0; word < search->words; word++) {
        uint64_t bits = search->used[word] & ~state_done(state)[word] & ~state_optional(search, state)[word];
        for (; bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            bool content = item->kind == ITEM_PRESENT || (item->kind == ITEM_READ && item->value == state_value(state));
            if (!content && item->until < held_until)
                return true;
        }
    }
    return false;
}

bool state_place(const struct search *search, uint64_t *state, const struct item *item)
{
    bool changes = item->kind != ITEM_ABSENT && item->kind != ITEM_PRESENT;
    if (changes)
        hide_blind(search, state, item);
    close_before(search, state, item);
    mark_done(search, state, item);
    if (changes) {
        state_set_value(search, state, item->value);
    }
    state_settle(search, state);
    return !is_dead_end(search, state);
}

void state_let_go(const struct search *search, uint64_t *state, const struct item *item)
{
    if (!item->open)
        close_before(search, state, item);
    mark_done(search, state, item);
}

/* ---- choosing -------------------------------------------------------------------------------------------------- */

/* Is somebody of its session, who does not draw blind items along, waiting behind it? */
static bool holds_up(const struct search *search, uint64_t *state, const struct item *item)
{
    for (uint32_t at = item->after; at != HISTORY_NONE;) {
        const struct item *other = &search->history->items[at];
        at = other->after;
        bool draws = other->kind != ITEM_NEW && (item_kind_is_blind(other->kind) || other->kind == ITEM_SEEN_WRITE);
        if (!draws && !is_done(search, state, other))
            return true;
    }
    return false;
}

/*
 * An optional item that somebody behind it in its session would take away: it may be wanted before, to cover an obliged
 * one. Changes behind it that look at nothing need no mention: they cover as well as it would.
 */
static bool is_last_cover(const struct search *search, uint64_t *state, const struct item *item)
{
    for (uint32_t at = item->after; at != HISTORY_NONE;) {
        const struct item *other = &search->history->items[at];
        at = other->after;
        bool looks = other->kind == ITEM_ABSENT || other->kind == ITEM_PRESENT || other->kind == ITEM_SWAP ||
                     other->kind == ITEM_NEW;
        if (looks && !is_done(search, state, other))
            return any_obliged(search, state, ITEM_WRITE) || any_obliged(search, state, ITEM_REMOVE);
    }
    return false;
}

/* An undone item of its kind stands before it in its session, and between them nothing that must undo that one. */
static bool has_forerunner(const struct search *search, uint64_t *state, const struct item *item)
{
    for (uint32_t at = item->before; at != HISTORY_NONE;) {
        const struct item *other = &search->history->items[at];
        at = other->before;
        if (is_done(search, state, other))
            continue;
        if (other->kind == item->kind)
            return true;
        if (!other->open)
            return false;
    }
    return false;
}

/* Taking it has no effect on others of its session, but that those behind it, all alike and open, are still there. */
static bool is_free(const struct search *search, uint64_t *state, const struct item *item)
{
    if (item->before != HISTORY_NONE && look_ahead(search, state, item).any)
        return false;
    if (item->followers > 0 && !item->open)
        return false;
    uint32_t count = 0;
    uint64_t until = item->until;
    for (uint32_t at = item->after; at != HISTORY_NONE; count++) {
        const struct item *other = &search->history->items[at];
        at = other->after;
        if (!other->open || other->kind != item->kind || other->until < until || is_done(search, state, other))
            return false;
        until = other->until;
    }
    return count == item->followers;
}

/*
 * What is left of the item's session, seen from the item, as a number: sessions with equal numbers are alike. 0: it is
 * not known what comes, or it is not open.
 */
static uint64_t shape_of(const struct search *search, uint64_t *state, const struct item *item)
{
    const struct item *last = item;
    while (last->after != HISTORY_NONE)
        last = &search->history->items[last->after];
    if (last->followers > 0)
        return 0;
    uint64_t shape = 1;
    for (const struct item *at = last;;) {
        if (!is_done(search, state, at)) {
            if (!at->open)
                return 0;
            shape = (shape ^ at->until) * 0x9e3779b97f4a7c15u + (uint64_t)at->kind * 2 + (at == item);
            shape ^= shape >> 31;
        }
        if (at->before == HISTORY_NONE)
            return shape | 1;
        at = &search->history->items[at->before];
    }
}

#define SHAPES_MAX 32u

struct shapes {
    uint64_t shapes[SHAPES_MAX];
    struct item *items[SHAPES_MAX];
    size_t count;
};

/* An item like this one has been chosen already. */
static bool is_alike(const struct search *search, uint64_t *state, struct item *item, struct shapes *shapes)
{
    uint64_t shape = shape_of(search, state, item);
    for (size_t i = 0; i < shapes->count && shape != 0; i++) {
        if (shapes->shapes[i] == shape) {
            shapes->items[i]->preferred = true;
            return true;
        }
    }
    if (shape != 0 && shapes->count < SHAPES_MAX) {
        shapes->shapes[shapes->count] = shape;
        shapes->items[shapes->count++] = item;
    }
    return false;
}

static void choose_blind(const struct search *search, uint64_t *state, enum item_kind kind, bool needed,
                         const struct item *goal, uint64_t *choices)
{
    struct item *first = NULL; /* of the free ones, to end */
    size_t free_count = 0;
    struct shapes shapes;
    shapes.count = 0;
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, kind, word); bits != 0; bits &= bits - 1) {
            struct item *item = item_of(search, word, bits);
            bool optional = bit_get(state_optional(search, state), item->slot);
            if (optional && !needed && item != goal && item->after == HISTORY_NONE)
                continue;
            struct ahead ahead = look_ahead(search, state, item);
            if (ahead.hard || (kind == ITEM_NEW && ahead.obliged_write))
                continue;
            bool wanted = optional ? is_last_cover(search, state, item) : holds_up(search, state, item);
            if (item == goal || wanted) {
                bit_set(choices, item->slot);
            } else if (!needed || has_forerunner(search, state, item)) {
                continue;
            } else if (!is_free(search, state, item)) {
                if (!is_alike(search, state, item, &shapes))
                    bit_set(choices, item->slot);
            } else {
                free_count++;
                if (first == NULL || item->until < first->until)
                    first = item;
            }
        }
    }
    if (first != NULL)
        bit_set(choices, first->slot);
    if (free_count > 1)
        first->preferred = true;
}

static void choose_hard(const struct search *search, uint64_t *state, enum item_kind kind, uint64_t *choices)
{
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, kind, word); bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            struct ahead ahead = look_ahead(search, state, item);
            bool held_up = ahead.hard;
            if (kind != ITEM_SEEN_WRITE)
                held_up = held_up || ahead.obliged_remove;
            if (kind == ITEM_ABSENT || kind == ITEM_PRESENT)
                held_up = held_up || ahead.obliged_write;
            if (!held_up)
                bit_set(choices, item->slot);
        }
    }
}

/* Swaps that see what is there, after all who read it. */
static void choose_swaps(const struct search *search, uint64_t *state, uint64_t *choices)
{
    uint32_t value = state_value(state), left = state_reads_left(state);
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = undone(search, state, ITEM_SWAP, word); bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            bool fits = item->sees == VALUE_SOME ? value != VALUE_ABSENT && left == 0
                                                 : value == item->sees && left == (value >= VALUE_IDS);
            struct ahead ahead = look_ahead(search, state, item);
            if (fits && !ahead.hard && !ahead.obliged_write && !ahead.obliged_remove)
                bit_set(choices, item->slot);
        }
    }
}

/*
 * Removes that found something are alike. One that leaves nobody behind in its session waits for those that must come
 * earlier, as long as these have nobody before them whom they would take away.
 */
static void thin_takes(const struct search *search, uint64_t *state, uint64_t *choices)
{
    const struct item *first = NULL;
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = choices[word] & search->masks[ITEM_TAKE][word]; bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            if ((first == NULL || item->until < first->until) && !look_ahead(search, state, item).any)
                first = item;
        }
    }
    for (size_t word = 0; word < search->words && first != NULL; word++) {
        for (uint64_t bits = choices[word] & search->masks[ITEM_TAKE][word]; bits != 0; bits &= bits - 1) {
            const struct item *item = item_of(search, word, bits);
            if (item != first && item->until >= first->until && item->followed_from > first->until)
                bit_clear(choices, item->slot);
        }
    }
}

/* Is a blind write, or a remove, wanted by anybody but those whom it holds up? */
static bool is_write_needed(const struct search *search, uint64_t *state, bool there)
{
    bool over = any_swap(search, state, VALUE_SOME);
    if (there)
        return over && any_obliged(search, state, ITEM_REMOVE);
    return over || any_undone(search, state, ITEM_TAKE) || any_undone(search, state, ITEM_PRESENT);
}

static bool is_remove_needed(const struct search *search, uint64_t *state, bool there)
{
    bool anew = any_swap(search, state, VALUE_ABSENT), open = any_undone(search, state, ITEM_NEW);
    if (!there)
        return (anew || open) && any_obliged(search, state, ITEM_WRITE);
    return anew || any_undone(search, state, ITEM_ABSENT) || (open && any_obliged(search, state, ITEM_REMOVE));
}

void state_choices(const struct search *search, uint64_t *state, const struct item *goal, uint64_t *choices)
{
    memset(choices, 0, search->words * sizeof(*choices));
    bool there = state_value(state) != VALUE_ABSENT;
    choose_hard(search, state, there ? ITEM_PRESENT : ITEM_ABSENT, choices);
    choose_swaps(search, state, choices);
    if (state_reads_left(state) > 0)
        return;
    choose_hard(search, state, ITEM_SEEN_WRITE, choices);
    if (there) {
        choose_hard(search, state, ITEM_TAKE, choices);
        thin_takes(search, state, choices);
    }

    /* An optional write whose time is over changes nothing where something is and stays. */
    if (goal->kind == ITEM_WRITE && there && bit_get(state_optional(search, state), goal->slot) &&
        !any_undone(search, state, ITEM_TAKE) && !any_undone(search, state, ITEM_REMOVE) &&
        !any_undone(search, state, ITEM_SWAP) && !any_obliged(search, state, ITEM_WRITE)) {
        memset(choices, 0, search->words * sizeof(*choices));
        return;
    }
    bool write_needed = is_write_needed(search, state, there);
    choose_blind(search, state, ITEM_WRITE, write_needed, goal, choices);
    choose_blind(search, state, ITEM_REMOVE, is_remove_needed(search, state, there), goal, choices);
    if (!there)
        choose_blind(search, state, ITEM_NEW, write_needed || any_obliged(search, state, ITEM_REMOVE), goal, choices);
}
