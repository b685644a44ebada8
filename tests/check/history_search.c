/*
 * history_search.c - sweeps a prepared history with a set of states.
 *
 * Happy path: an item begins: it gets a slot, and every state places what costs nothing. An item ends: every state in
 * which it is not done is led on, by all choices that matter, until it is; the states that get there are the new set.
 * A state that another one covers is dropped: they differ in blind items only, and those are optional in the other.
 * Where the states become too many, the first sweeps carry on the most promising only; if one of these gets through,
 * the history is right. Only if none does are all states carried on.
 *
 * Failure modes: no state is left: impossible. More than work_max states looked at, in all sweeps together: too much.
 * No memory: the program ends, as with any failed assertion.
 */
#include "history_internal.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_MAX          12u /* sets up to this size are searched from end to end */
#define COMPARED_PER_WORK 16u /* states compared, for the work of looking at one */
#define ALL               (SIZE_MAX / 8)
#define BURDEN_MAX        512u /* heavier states are not told apart */

void *history_room(void *array, size_t *room, size_t wanted, size_t size)
{
    if (wanted <= *room)
        return array;
    size_t grown = *room > 0 ? *room : 16;
    while (grown < wanted)
        grown *= 2;
    void *moved = realloc(array, grown * size);
    KVS_ASSERT(moved != NULL);
    *room = grown;
    return moved;
}

/* ---- sets of states -------------------------------------------------------------------------------------------- */

static uint64_t *set_state(const struct search *search, const struct set *set, size_t place)
{
    return set->states + place * STATE_WORDS(search);
}

static void set_empty(struct set *set)
{
    if (set->hashed > 0)
        memset(set->table, 0xff, set->table_size * sizeof(*set->table));
    set->hashed = 0;
    set->count = 0;
}

static void set_free(struct set *set)
{
    free(set->states);
    free(set->next);
    free(set->table);
    *set = (struct set){0};
}

static size_t set_bucket(const struct search *search, const struct set *set, uint64_t *state)
{
    uint64_t hash = state[0] * 0x9e3779b97f4a7c15u;
    for (size_t word = 0; word < search->words; word++) {
        hash ^= state_done(state)[word] & search->hard[word];
        hash *= 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    return hash & (set->table_size - 1);
}

enum likeness { UNLIKE, ALIKE, COVERED };

/*
 * COVERED: whatever can come after `state` can come after `other`, too. ALIKE: they differ in open items only, in what
 * may still happen and need not.
 */
static enum likeness compare_states(const struct search *search, uint64_t *other, uint64_t *state)
{
    if (state[0] != other[0])
        return UNLIKE;
    uint64_t missing = 0, certain = 0;
    for (size_t word = 0; word < search->words; word++) {
        uint64_t optional = state_optional(search, other)[word];
        uint64_t differing =
            (state_done(state)[word] ^ state_done(other)[word]) | (optional ^ state_optional(search, state)[word]);
        missing |= differing & ~optional;
        certain |= differing & ~search->open[word];
    }
    return missing == 0 ? COVERED : certain == 0 ? ALIKE : UNLIKE;
}

static void set_hash(const struct search *search, struct set *set, size_t place)
{
    size_t bucket = set_bucket(search, set, set_state(search, set, place));
    set->next[place] = set->table[bucket];
    set->table[bucket] = (uint32_t)place;
    set->hashed++;
}

/* Sees to it that all states of a larger set are in its table. */
static void set_index(const struct search *search, struct set *set)
{
    if (set->count * 2 > set->table_size) {
        size_t size = set->table_size > 0 ? set->table_size * 4 : 256;
        set->table = realloc(set->table, size * sizeof(*set->table));
        KVS_ASSERT(set->table != NULL);
        set->table_size = size;
        memset(set->table, 0xff, size * sizeof(*set->table));
        set->hashed = 0;
    }
    while (set->hashed < set->count)
        set_hash(search, set, set->hashed);
}

/* Whether the set can do without the state. */
static bool set_has(struct search *search, const struct set *set, uint64_t *state)
{
    unsigned compared = 0, alike = 0;
    uint32_t place = set->hashed > 0 ? set->table[set_bucket(search, set, state)] : 0;
    uint32_t end = set->hashed > 0 ? HISTORY_NONE : (uint32_t)set->count;
    while (place != end) {
        enum likeness likeness = compare_states(search, set_state(search, set, place), state);
        if (likeness == COVERED)
            return true;
        if (likeness == ALIKE && ++alike >= search->alike_max) {
            search->thinned = true;
            return true;
        }
        if (++compared % COMPARED_PER_WORK == 0)
            search->work++;
        place = set->hashed > 0 ? set->next[place] : place + 1;
    }
    return false;
}

static void set_add(struct search *search, struct set *set, uint64_t *state)
{
    if (set->count > SCAN_MAX)
        set_index(search, set);
    if (set_has(search, set, state))
        return;
    size_t words = STATE_WORDS(search);
    if ((set->count + 1) * words > set->room) {
        set->states = history_room(set->states, &set->room, (set->count + 1) * words, sizeof(*set->states));
        set->next = realloc(set->next, set->room / words * sizeof(*set->next) + sizeof(*set->next));
        KVS_ASSERT(set->next != NULL);
    }
    memcpy(set_state(search, set, set->count), state, words * sizeof(*state));
    set->count++;
}

static void set_swap(struct set *one, struct set *other)
{
    struct set kept = *one;
    *one = *other;
    *other = kept;
}

/* ---- items under way ------------------------------------------------------------------------------------------- */

static uint32_t free_slot(const struct search *search)
{
    size_t word = 0;
    while (~search->used[word] == 0)
        word++;
    KVS_ASSERT(word < search->words);
    return (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(~search->used[word]);
}

static void link_item(struct search *search, uint32_t place, uint32_t slot)
{
    struct history *history = search->history;
    struct item *item = &history->items[place];
    item->slot = slot;
    search->slots[slot] = place;
    bit_set(search->used, slot);
    bit_set(search->masks[item->kind], slot);
    if (!item_kind_is_blind(item->kind))
        bit_set(search->hard, slot);
    if (item->open)
        bit_set(search->open, slot);
    item->before = item->after = HISTORY_NONE;
    if (item->session != HISTORY_NONE) {
        item->before = history->session_tails[item->session];
        if (item->before != HISTORY_NONE)
            history->items[item->before].after = place;
        history->session_tails[item->session] = place;
    }
}

static void unlink_item(struct search *search, struct item *item)
{
    struct history *history = search->history;
    bit_clear(search->used, item->slot);
    bit_clear(search->masks[item->kind], item->slot);
    bit_clear(search->hard, item->slot);
    bit_clear(search->open, item->slot);
    if (item->before != HISTORY_NONE)
        history->items[item->before].after = item->after;
    if (item->after != HISTORY_NONE)
        history->items[item->after].before = item->before;
    else if (item->session != HISTORY_NONE)
        history->session_tails[item->session] = item->before;
}

static void begin_item(struct search *search, uint32_t place)
{
    link_item(search, place, free_slot(search));
    const struct item *item = &search->history->items[place];
    for (size_t i = 0; i < search->current.count; i++) {
        uint64_t *state = set_state(search, &search->current, i);
        if (item->open)
            bit_set(state_optional(search, state), item->slot);
        state_settle(search, state);
    }
}

static void forget_slot(const struct search *search, uint64_t *state, uint32_t slot)
{
    bit_clear(state_done(state), slot);
    bit_clear(state_optional(search, state), slot);
}

/* Leads one state one choice further, in every way. */
static void lead_on(struct search *search, uint64_t *state, const struct item *goal)
{
    uint64_t *choices = search->scratch[1];
    uint64_t *next = search->scratch[2];
    state_choices(search, state, goal, choices);
    for (size_t word = 0; word < search->words; word++) {
        for (uint64_t bits = choices[word]; bits != 0; bits &= bits - 1) {
            memcpy(next, state, STATE_WORDS(search) * sizeof(*next));
            uint32_t slot = (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(bits);
            if (state_place(search, next, item_at(search, slot)))
                set_add(search, &search->seen, next);
        }
    }
}

/* How much a state still has to do, and, for the thrifty, has used up of what it might need later. */
static size_t burden(const struct search *search, uint64_t *state)
{
    size_t count = 0;
    for (size_t word = 0; word < search->words; word++) {
        uint64_t done = search->thrifty ? state_done(state)[word] & search->hard[word] : state_done(state)[word];
        uint64_t good = done | state_optional(search, state)[word];
        count += (size_t)__builtin_popcountll(search->used[word] & ~good);
    }
    return count;
}

/* Keeps the least burdened states of a set that is too large to be carried on. */
static void thin_out(struct search *search, struct set *set)
{
    size_t counts[BURDEN_MAX] = {0}, kept = 0, limit = 0;
    for (size_t i = 0; i < set->count; i++) {
        size_t heavy = burden(search, set_state(search, set, i));
        counts[heavy < BURDEN_MAX - 1 ? heavy : BURDEN_MAX - 1]++;
    }
    for (size_t sum = counts[0]; sum < search->carried_max && limit < BURDEN_MAX - 1; sum += counts[limit])
        limit++;
    for (size_t i = 0; i < set->count && kept < search->carried_max; i++) {
        uint64_t *state = set_state(search, set, i);
        if (burden(search, state) <= limit || limit == BURDEN_MAX - 1)
            memmove(set_state(search, set, kept++), state, STATE_WORDS(search) * sizeof(*state));
    }
    set_empty(set);
    set->count = kept;
    search->thinned = true;
}

/* Leads all states on to those in which the item is done, or will never be; forgets the item. */
static enum search_result end_item(struct search *search, struct item *item)
{
    set_empty(&search->seen);
    set_empty(&search->out);
    for (size_t i = 0; i < search->current.count; i++)
        set_add(search, &search->seen, set_state(search, &search->current, i));
    uint64_t *state = search->scratch[0];
    for (size_t i = 0; i < search->seen.count; i++) {
        if (++search->work > search->work_max)
            return SEARCH_TOO_MUCH;
        memcpy(state, set_state(search, &search->seen, i), STATE_WORDS(search) * sizeof(*state));
        bool done = bit_get(state_done(state), item->slot);
        if (!done)
            lead_on(search, state, item);
        bool optional = bit_get(state_optional(search, state), item->slot);
        if (optional)
            state_let_go(search, state, item);
        if (done || optional) {
            forget_slot(search, state, item->slot);
            /* The slot's bits are clear in every state of `out`, so comparing them does no harm. */
            set_add(search, &search->out, state);
        }
        if (search->out.count >= 4 * search->carried_max) {
            search->thinned = true;
            break;
        }
    }
    if (search->out.count == 0)
        return SEARCH_IMPOSSIBLE;
    if (search->out.count > search->carried_max)
        thin_out(search, &search->out);
    set_swap(&search->current, &search->out);
    unlink_item(search, item);
    return SEARCH_POSSIBLE;
}

/* ---- marks ----------------------------------------------------------------------------------------------------- */

static void take_mark(const struct search *search, struct mark *mark)
{
    mark->set = true;
    mark->thinned = search->thinned;
    mark->next_item = search->next_item;
    mark->next_end = search->next_end;
    mark->state_count = search->current.count;
    size_t words = search->current.count * STATE_WORDS(search);
    mark->states = history_room(mark->states, &mark->states_room, words, sizeof(*mark->states));
    memcpy(mark->states, search->current.states, words * sizeof(*mark->states));
    mark->under_way_count = 0;
    mark->under_way = history_room(mark->under_way, &mark->under_way_room, search->words * 64, sizeof(uint32_t));
    for (uint32_t slot = 0; slot < search->words * 64; slot++) {
        if (bit_get(search->used, slot))
            mark->under_way[mark->under_way_count++] = search->slots[slot];
    }
}

static int compare_places(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static void clear_items(struct search *search)
{
    size_t bytes = search->words * sizeof(uint64_t);
    for (int kind = 0; kind < ITEM_KINDS; kind++)
        memset(search->masks[kind], 0, bytes);
    memset(search->hard, 0, bytes);
    memset(search->open, 0, bytes);
    memset(search->used, 0, bytes);
    for (size_t i = 0; i < search->history->session_count; i++)
        search->history->session_tails[i] = HISTORY_NONE;
    set_empty(&search->current);
}

/* Back to a mark, with those states in which `writer` has not happened yet. */
static void go_back(struct search *search, struct mark *mark, const struct item *writer)
{
    clear_items(search);
    qsort(mark->under_way, mark->under_way_count, sizeof(*mark->under_way), compare_places);
    bool under_way = false;
    for (size_t i = 0; i < mark->under_way_count; i++) {
        const struct item *item = &search->history->items[mark->under_way[i]];
        link_item(search, mark->under_way[i], item->slot);
        under_way = under_way || item == writer;
    }
    size_t writer_place = (size_t)(writer - search->history->items);
    bool over = !under_way && writer_place < mark->next_item;
    for (size_t i = 0; i < mark->state_count && !over; i++) {
        uint64_t *state = search->scratch[0];
        memcpy(state, mark->states + i * STATE_WORDS(search), STATE_WORDS(search) * sizeof(*state));
        if (under_way && bit_get(state_done(state), writer->slot))
            continue;
        if (under_way)
            bit_clear(state_optional(search, state), writer->slot);
        set_add(search, &search->current, state);
    }
    search->next_item = mark->next_item;
    search->next_end = mark->next_end;
}

/* ---- the sweep ------------------------------------------------------------------------------------------------- */

static void go_to_beginning(struct search *search)
{
    struct history *history = search->history;
    clear_items(search);
    search->next_item = search->next_end = 0;
    uint64_t *state = search->scratch[0];
    memset(state, 0, STATE_WORDS(search) * sizeof(*state));
    if (history->initial_count == 0)
        set_add(search, &search->current, state);
    for (size_t i = 0; i < history->initial_count; i++) {
        uint64_t number = history->initial[i];
        state_set_value(search, state, number == 0 ? (uint32_t)VALUE_ABSENT : history_value_id(history, number));
        set_add(search, &search->current, state);
    }
}

static enum search_result sweep(struct search *search)
{
    const struct history *history = search->history;
    while (search->next_end < history->end_count) {
        struct item *ending = &history->items[history->ends[search->next_end]];
        bool begins =
            search->next_item < history->item_count && history->items[search->next_item].from <= ending->until;
        search->now = begins ? history->items[search->next_item].from : ending->until;
        for (int i = 0; i < 2 && search->wanted == HISTORY_NONE; i++) {
            if (!search->marks[i].set && search->marks[i].moment <= search->now)
                take_mark(search, &search->marks[i]);
        }
        if (begins) {
            begin_item(search, (uint32_t)search->next_item++);
            continue;
        }
        enum search_result result = end_item(search, ending);
        if (result != SEARCH_POSSIBLE)
            return result;
        search->next_end++;
    }
    while (search->next_item < history->item_count)
        begin_item(search, (uint32_t)search->next_item++);
    return SEARCH_POSSIBLE;
}

/* The most items that are under way at a time. */
static size_t most_at_once(const struct history *history)
{
    size_t most = 0, ended = 0;
    for (size_t begun = 1; begun <= history->item_count; begun++) {
        while (ended < history->end_count &&
               history->items[history->ends[ended]].until < history->items[begun - 1].from)
            ended++;
        if (begun - ended > most)
            most = begun - ended;
    }
    return most;
}

static void make_room(struct search *search)
{
    search->words = (most_at_once(search->history) + 63) / 64;
    if (search->words == 0)
        search->words = 1;
    if (search->words > search->mask_room) {
        search->mask_room = search->words * 2;
        size_t bytes = search->mask_room * sizeof(uint64_t);
        for (int i = 0; i < ITEM_KINDS; i++)
            KVS_ASSERT((search->masks[i] = realloc(search->masks[i], bytes)) != NULL);
        for (int i = 0; i < 3; i++)
            KVS_ASSERT((search->scratch[i] = realloc(search->scratch[i], 3 * bytes)) != NULL);
        KVS_ASSERT((search->hard = realloc(search->hard, bytes)) != NULL);
        KVS_ASSERT((search->open = realloc(search->open, bytes)) != NULL);
        KVS_ASSERT((search->used = realloc(search->used, bytes)) != NULL);
        KVS_ASSERT((search->slots = realloc(search->slots, search->mask_room * 64 * sizeof(uint32_t))) != NULL);
    }
    /* `next` has an entry for each state there is room for; states may have another size now. */
    struct set *sets[] = {&search->current, &search->seen, &search->out};
    for (size_t i = 0; i < ARRAY_COUNT(sets); i++) {
        set_empty(sets[i]);
        sets[i]->room = sets[i]->room / STATE_WORDS(search) * STATE_WORDS(search);
        sets[i]->next = realloc(sets[i]->next, (sets[i]->room / STATE_WORDS(search) + 1) * sizeof(*sets[i]->next));
        KVS_ASSERT(sets[i]->next != NULL);
    }
}

/* After everything else, the writer of the wanted value has its last chance. */
static bool ends_as_wanted(struct search *search)
{
    uint32_t place = search->history->values[search->wanted].writer;
    struct item *writer = place != HISTORY_NONE ? &search->history->items[place] : NULL;
    bool under_way = writer != NULL && bit_get(search->used, writer->slot) && item_at(search, writer->slot) == writer;
    if (under_way && end_item(search, writer) != SEARCH_POSSIBLE)
        return false;
    for (size_t i = 0; i < search->current.count; i++) {
        if (state_value(set_state(search, &search->current, i)) == search->wanted)
            return true;
    }
    return false;
}

/*
 * Sweeps from the beginning: at first with few states, chosen in one way and another; when that leads nowhere and some
 * were left out, with all. A right history has many explanations, and one is enough.
 */
static enum search_result sweep_all(struct search *search)
{
    static const struct {
        size_t carried_max;
        unsigned alike_max;
        bool thrifty;
    } attempts[] = {{128, 4, false}, {128, 16, true}, {1024, 4, false}, {1024, 64, true}, {ALL, UINT_MAX, false}};
    enum search_result result = SEARCH_IMPOSSIBLE;
    for (size_t i = 0; i < ARRAY_COUNT(attempts); i++) {
        search->thinned = false;
        search->carried_max = attempts[i].carried_max;
        search->alike_max = attempts[i].alike_max;
        search->thrifty = attempts[i].thrifty;
        for (int j = 0; j < 2 && search->wanted == HISTORY_NONE; j++)
            search->marks[j].set = false;
        go_to_beginning(search);
        result = sweep(search);
        if (result == SEARCH_POSSIBLE && search->wanted != HISTORY_NONE && !ends_as_wanted(search))
            result = search->work > search->work_max ? SEARCH_TOO_MUCH : SEARCH_IMPOSSIBLE;
        if (result != SEARCH_IMPOSSIBLE || !search->thinned)
            break;
    }
    return result;
}

enum search_result search_run(struct search *search)
{
    make_room(search);
    search->wanted = HISTORY_NONE;
    return sweep_all(search);
}

enum search_result search_run_to(struct search *search, uint32_t value, struct mark *mark)
{
    struct history *history = search->history;
    struct value *end = &history->values[value];
    struct item *writer = end->writer != HISTORY_NONE ? &history->items[end->writer] : NULL;
    struct value value_before = *end;
    struct item writer_before = {0};
    /* Somebody reads it when all is over. */
    end->reads++;
    end->held_until = HISTORY_NEVER;
    if (writer != NULL) {
        writer_before = *writer;
        writer->kind = item_kind_read(writer->kind);
        writer->open = false;
    }
    /* What a swap finds depends on what comes before it, also when nothing certain comes behind it. */
    bool late = writer != NULL && writer->kind != writer_before.kind && writer->kind == ITEM_SWAP &&
                writer->until >= history->last_end;
    if (late)
        history_list_ends(history);
    search->wanted = value;
    enum search_result result = SEARCH_IMPOSSIBLE;
    if (mark == NULL) {
        result = sweep_all(search);
    } else {
        go_back(search, mark, writer);
        search->carried_max = ALL;
        search->alike_max = UINT_MAX;
        if (search->current.count > 0)
            result = sweep(search);
        if (result == SEARCH_POSSIBLE && !ends_as_wanted(search))
            result = search->work > search->work_max ? SEARCH_TOO_MUCH : SEARCH_IMPOSSIBLE;
    }
    if (writer != NULL) {
        writer->kind = writer_before.kind;
        writer->open = writer_before.open;
    }
    if (late)
        history_list_ends(history);
    end->reads = value_before.reads;
    end->held_until = value_before.held_until;
    return result;
}

struct search *search_create(struct history *history)
{
    struct search *search = calloc(1, sizeof(*search));
    KVS_ASSERT(search != NULL);
    search->history = history;
    return search;
}

void search_free(struct search *search)
{
    set_free(&search->current);
    set_free(&search->seen);
    set_free(&search->out);
    for (int i = 0; i < ITEM_KINDS; i++)
        free(search->masks[i]);
    for (int i = 0; i < 3; i++)
        free(search->scratch[i]);
    free(search->hard);
    free(search->open);
    free(search->used);
    free(search->slots);
    for (int i = 0; i < 2; i++) {
        free(search->marks[i].states);
        free(search->marks[i].under_way);
    }
    free(search);
}
