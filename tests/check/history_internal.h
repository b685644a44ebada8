/*
 * history_internal.h - what the parts of the checker share: history.c (preparation, verdict, final values),
 * history_search.c (the sets of states), history_state.c (one state), history_why.c (the explanation).
 *
 * Preparation turns operations into items. What makes the search small:
 *
 *   - Values are unique, so a read names the write before it. A write that somebody read must have happened, even if
 * its own answer was lost, and before the first such read returned; and from that write to the last such read nothing
 *     else can have changed the key.
 *   - A write that nobody read ("blind") and a remove that told nothing can hide: directly before another change nobody
 *     can have seen them. So when any change is placed, all blind items that could stand before it become optional:
 * from then on they may count as done, or still be placed where one is needed. An open one is optional from the
 * beginning.
 *   - What changes nothing and sees what it should is placed at once.
 *   - What looks and changes in one step (a swap) comes after all reads of the value that it saw, so two that saw the
 *     same one are impossible. It hides less than a change that looks at nothing: history_state.c.
 *
 * Time is swept from one moment to the next. A state is the key's value and what has become of each item under way; an
 * item must be placed when its time ends, and only then are the states looked at that lead there.
 */
#ifndef KVS_TESTS_CHECK_HISTORY_INTERNAL_H
#define KVS_TESTS_CHECK_HISTORY_INTERNAL_H

#include "history.h"

#define HISTORY_NONE UINT32_MAX

enum item_kind {
    ITEM_SEEN_WRITE, /* a write whose value somebody read */
    ITEM_READ,       /* found a value */
    ITEM_TAKE,       /* a remove that found something */
    ITEM_ABSENT,     /* found nothing: read, exists or remove */
    ITEM_PRESENT,    /* exists: yes */
    ITEM_SWAP,       /* a change that told what it saw */
    ITEM_WRITE,      /* a write that nobody read */
    ITEM_REMOVE,     /* a remove that tells nothing */
    ITEM_NEW,        /* unanswered and never read: a write if nothing is there */
    ITEM_OVER,       /* the same if something is there. Has a say in what is there at the end only */
    ITEM_KINDS,
};

static inline bool item_kind_is_blind(enum item_kind kind)
{
    return kind >= ITEM_WRITE;
}
/* What an item that nobody has read is when somebody has. */
static inline enum item_kind item_kind_read(enum item_kind kind)
{
    return kind == ITEM_NEW || kind == ITEM_OVER ? ITEM_SWAP : kind == ITEM_WRITE ? ITEM_SEEN_WRITE : kind;
}

struct item {
    enum item_kind kind;
    bool open;              /* may not have happened. Only blind items are open */
    bool preferred;         /* was placed where another one would have done */
    uint32_t op;            /* place among the history's operations */
    uint32_t session;       /* place among the sessions; HISTORY_NONE: none */
    uint32_t value;         /* writes and reads: id of the value; a swap that removes: VALUE_ABSENT */
    uint32_t sees;          /* swaps: id of the value that was there, VALUE_ABSENT, or VALUE_SOME: any */
    uint32_t slot;          /* its bit in the states, while it is under way */
    uint32_t before, after; /* items under way of the same session */
    uint32_t followers;     /* items of the same session that come after it, in all */
    uint64_t from, until;
    uint64_t followed_from; /* when the next of its session begins */
};

/* Ids of values. Above these: a number somebody wrote or read. */
enum { VALUE_ABSENT = 0, VALUE_SOME = 1 /* any that nobody will read */, VALUE_IDS = 2 };

struct value {
    uint64_t number;
    uint32_t writer; /* item; HISTORY_NONE: nobody in this history */
    uint32_t reads;  /* those of swaps, too */
    bool initial;
    uint64_t held_until; /* when the last read of it began */
};

/* Growing arrays of a history; kept from check to check. */
struct history {
    struct history_op *ops;
    size_t op_count, op_room;
    uint64_t *initial;
    size_t initial_count, initial_room;

    struct item *items; /* by `from` */
    size_t item_count, item_room;
    uint32_t *ends; /* items by `until` */
    size_t end_count;
    uint64_t last_end;    /* of the items that are not open */
    struct value *values; /* by id */
    size_t value_count, value_room;
    uint32_t *value_table; /* number -> id: open addressing */
    size_t value_table_size;
    uint32_t *session_tails; /* last item under way of each session */
    size_t session_count;

    struct search *search;
};

/*
 * A prefix of a history, as it looked when `answers` definite answers had come: later ones count as open, what began
 * later is left out. SIZE_MAX: all of it.
 */
void history_prepare(struct history *history, size_t answers);
/* Lists the ends that come before that of the last certain item; those of open items after those of others. */
void history_list_ends(struct history *history);
/* Operation that gives the nth definite answer, counted from 1. */
uint32_t history_answer(struct history *history, size_t nth);
size_t history_answer_count(const struct history *history);
uint32_t history_value_id(const struct history *history, uint64_t number);

void *history_room(void *array, size_t *room, size_t wanted, size_t size);

/* ---- one state: history_state.c -------------------------------------------------------------------------------- */

/*
 * A state is an array of words: value id and number of its reads still to come; then a bit per slot: done; then a bit
 * per slot: optional. Neither: to be done.
 */
#define STATE_WORDS(search) (1 + 2 * (search)->words)

struct set {
    uint64_t *states;
    size_t count, room;
    uint32_t *next; /* chains of states with equal hash */
    uint32_t *table;
    size_t table_size;
    size_t hashed; /* states that are in the table */
};

/* A moment in the sweep to go back to. */
struct mark {
    bool set;
    bool thinned;    /* states have been left out before */
    uint64_t moment; /* taken when everything before it has been dealt with */
    size_t next_item, next_end;
    uint64_t *states;
    size_t state_count, states_room;
    uint32_t *under_way;
    size_t under_way_count, under_way_room;
};

struct search {
    struct history *history;
    size_t words; /* 64 slots each */
    uint64_t *masks[ITEM_KINDS];
    uint64_t *hard;   /* items that are not blind */
    uint64_t *open;   /* items that are */
    uint64_t *used;   /* slots taken */
    uint32_t *slots;  /* slot -> item */
    size_t mask_room; /* words there is room for */
    struct set current, seen, out;
    uint64_t *scratch[3];
    uint64_t work, work_max;
    size_t carried_max; /* states carried on; the least promising ones above it are left out */
    unsigned alike_max; /* of states that differ in open items only */
    bool thinned;       /* some have been */
    bool thrifty;       /* most promising is what keeps most in hand, not what has least to do */
    uint64_t now;
    size_t next_item, next_end;
    struct mark marks[2];
    uint32_t wanted; /* value id that is read at the very end, or HISTORY_NONE */
};

static inline uint32_t state_value(const uint64_t *state)
{
    return (uint32_t)state[0];
}
static inline uint32_t state_reads_left(const uint64_t *state)
{
    return (uint32_t)(state[0] >> 32);
}
static inline uint64_t state_head(uint32_t value, uint32_t reads_left)
{
    return (uint64_t)reads_left << 32 | value;
}
static inline uint64_t *state_done(uint64_t *state)
{
    return state + 1;
}
static inline uint64_t *state_optional(const struct search *search, uint64_t *state)
{
    return state + 1 + search->words;
}
static inline bool bit_get(const uint64_t *bits, uint32_t bit)
{
    return bits[bit / 64] >> (bit % 64) & 1;
}
static inline void bit_set(uint64_t *bits, uint32_t bit)
{
    bits[bit / 64] |= UINT64_C(1) << (bit % 64);
}
static inline void bit_clear(uint64_t *bits, uint32_t bit)
{
    bits[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}
/* Has the item a value of its own that it writes? */
static inline bool item_writes(const struct item *item)
{
    return item->value != VALUE_ABSENT && item->kind != ITEM_READ;
}
static inline struct item *item_at(const struct search *search, uint32_t slot)
{
    return &search->history->items[search->slots[slot]];
}

/* Sets the value; one that nobody will read any more is VALUE_SOME. */
void state_set_value(const struct search *search, uint64_t *state, uint32_t value);
/* Places everything that can be placed at no cost. */
void state_settle(const struct search *search, uint64_t *state);
/* Places an item that is allowed to come now, and settles. False: the state leads nowhere. */
bool state_place(const struct search *search, uint64_t *state, const struct item *item);
/* The item's time is over: an optional one counts as done, with those before it in its session. */
void state_let_go(const struct search *search, uint64_t *state, const struct item *item);
/*
 * Slots of the items that may be placed next on the way to placing `goal`; those are enough to reach whatever matters.
 */
void state_choices(const struct search *search, uint64_t *state, const struct item *goal, uint64_t *choices);

/* ---- the sweep: history_search.c ------------------------------------------------------------------------------- */

struct search *search_create(struct history *history);
void search_free(struct search *search);

enum search_result { SEARCH_POSSIBLE, SEARCH_IMPOSSIBLE, SEARCH_TOO_MUCH };

/*
 * Sweeps a prepared history from its beginning to the last definite answer. marks[].moment are set by the caller
 * (HISTORY_NEVER: no mark). Afterwards `current` holds all states at the end, with every item under way that still may
 * happen. When IMPOSSIBLE, it holds the states before the item that could not be placed.
 */
enum search_result search_run(struct search *search);
/* Could the history end with this value? Goes on from a mark, or from the beginning if it is NULL. */
enum search_result search_run_to(struct search *search, uint32_t value, struct mark *mark);

/* ---- history_why.c --------------------------------------------------------------------------------------------- */

/* The history has been found impossible: finds the answer that made it so, and says it. */
void history_explain(struct history *history, uint64_t work_max, char *why, size_t why_size);

#endif
