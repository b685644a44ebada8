/*
 * counters.c - keys that are only ever added to.
 *
 * Happy path: `sure` is the greatest height that anybody was told, `most` what all additions could have made of it. An
 * answer lies between them and is noted: which addition made which height. A look with nothing beside it tells the
 * height exactly.
 *
 * Failure modes: an answer that nothing explains breaks the run.
 */
#include "counters.h"

#include "verdict.h"

#include "base/assert.h"
#include "proto/resp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME        "counter:"
#define NARROW      16u
#define WIDE        1000u
#define NUMBER_MOST 100000u

struct counter {
    unsigned token_bytes; /* 0: a number */
    uint64_t height_max;  /* no more is added from there on */
    uint32_t *told;       /* by height - 1: the addition that made it; 0: not known */
    size_t told_room;
    uint32_t numbers;    /* additions so far, ever */
    uint64_t sure, most; /* height */
    uint64_t begun;      /* additions, in all */
    unsigned under_way, lingering;
    struct {
        uint32_t session;
        uint64_t height;
    } latest[COUNTERS_CLIENTS_MAX]; /* told to each client */
};

struct counters {
    unsigned keys;
    unsigned flushes;       /* that may be under way */
    uint64_t flushes_noted; /* beginnings and ends */
    struct counter *states;
};

struct counters *counters_create(unsigned keys, unsigned value_bytes_max)
{
    static const unsigned widths[] = {0, NARROW, WIDE};
    struct counters *counters = calloc(1, sizeof(*counters));
    KVS_ASSERT(counters != NULL && keys <= COUNTERS_MAX);
    *counters = (struct counters){.keys = keys, .states = calloc(keys, sizeof(struct counter))};
    KVS_ASSERT(counters->states != NULL);
    for (unsigned key = 0; key < keys; key++) {
        struct counter *state = &counters->states[key];
        state->token_bytes = widths[key % ARRAY_COUNT(widths)];
        state->height_max = state->token_bytes > 0 ? value_bytes_max / state->token_bytes : NUMBER_MOST;
    }
    return counters;
}

void counters_free(struct counters *counters)
{
    for (unsigned key = 0; key < counters->keys; key++)
        free(counters->states[key].told);
    free(counters->states);
    free(counters);
}

unsigned counters_keys(const struct counters *counters)
{
    return counters->keys;
}

bool counters_named(const struct counters *counters, struct slice name, unsigned *key)
{
    char text[32] = {0};
    if (name.size >= sizeof(text) || name.size < strlen(NAME) || memcmp(name.data, NAME, strlen(NAME)) != 0)
        return false;
    memcpy(text, name.data, name.size);
    *key = (unsigned)strtoul(text + strlen(NAME), NULL, 10);
    return *key < counters->keys;
}

void counters_boot(struct counters *counters)
{
    counters->flushes = 0;
    for (unsigned key = 0; key < counters->keys; key++) {
        KVS_ASSERT(counters->states[key].under_way == 0);
        counters->states[key].lingering = 0;
    }
}

static void forget_heights(struct counter *state)
{
    if (state->told_room > 0)
        memset(state->told, 0, state->told_room * sizeof(*state->told));
    memset(state->latest, 0, sizeof(state->latest));
    state->sure = 0;
}

/* It may hold any of its earlier values, or none. What it holds now is built upon. */
void counters_taint(struct counters *counters, unsigned key)
{
    struct counter *state = &counters->states[key];
    forget_heights(state);
    if (counters->flushes_noted > 0) /* also those from before a flush */
        state->most = state->begun;
}

/* ---- flushes --------------------------------------------------------------------------------------------------- */

void counters_flush_begin(struct counters *counters, struct counters_flush *flush)
{
    counters->flushes++;
    counters->flushes_noted++;
    for (unsigned key = 0; key < counters->keys; key++) {
        struct counter *state = &counters->states[key];
        flush->ended[key] = state->begun - state->under_way - state->lingering;
        forget_heights(state);
    }
}

void counters_flush_end(struct counters *counters, const struct counters_flush *flush)
{
    KVS_ASSERT(counters->flushes > 0);
    counters->flushes--;
    counters->flushes_noted++;
    for (unsigned key = 0; key < counters->keys; key++) {
        struct counter *state = &counters->states[key];
        uint64_t since = state->begun - flush->ended[key];
        state->most = since < state->most ? since : state->most;
        forget_heights(state);
    }
}

/* What it tells may be of before a flush or of after it. */
static bool meets_flush(const struct counters *counters, const struct counter_ask *ask)
{
    return counters->flushes > 0 || counters->flushes_noted != ask->flushes;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void write_token(const struct counter *state, uint32_t number, uint8_t *out)
{
    memset(out, '.', state->token_bytes);
    char text[NARROW];
    int size = snprintf(text, sizeof(text), "%" PRIu32 ";", number);
    memcpy(out, text, (size_t)size);
}

size_t counters_begin(struct counters *counters, struct counter_ask *ask, uint64_t chance,
                      uint8_t out[COUNTERS_REQUEST_BYTES_MAX])
{
    struct counter *state = &counters->states[ask->key];
    KVS_ASSERT(ask->key < counters->keys && ask->client < COUNTERS_CLIENTS_MAX);
    ask->number = chance % 4 == 0 || state->most >= state->height_max ? 0 : ++state->numbers;
    ask->floor = state->sure;
    ask->begun = state->begun;
    ask->flushes = counters->flushes_noted;
    ask->alone = state->under_way + state->lingering == 0;
    char name[32];
    uint8_t token[WIDE];
    snprintf(name, sizeof(name), NAME "%u", ask->key);
    struct slice args[3] = {slice_text("GET"), slice_text(name), slice_make(token, state->token_bytes)};
    if (ask->number == 0)
        return resp_write_request(out, args, 2);
    state->begun++;
    state->most++;
    state->under_way++;
    args[0] = slice_text(state->token_bytes > 0 ? "APPEND" : "INCR");
    if (state->token_bytes > 0)
        write_token(state, ask->number, token);
    return resp_write_request(out, args, state->token_bytes > 0 ? 3 : 2);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static _Noreturn void unexplained(const struct counters *counters, const struct counter_ask *ask, uint64_t height,
                                  const char *what)
{
    const struct counter *state = &counters->states[ask->key];
    broken("P1 durable, P2 no ghosts or P4 no take-backs: counter %u, %s %" PRIu32 " of client %u: height %" PRIu64
           ": %s; when it was asked it was %" PRIu64 ", now it is %" PRIu64 "..%" PRIu64,
           ask->key, ask->number == 0 ? "look" : "addition", ask->number, ask->client, height, what, ask->floor,
           state->sure, state->most);
}

static uint32_t *told_at(struct counter *state, uint64_t height)
{
    if (height > state->told_room) {
        size_t room = 2 * (size_t)height;
        state->told = realloc(state->told, room * sizeof(*state->told));
        KVS_ASSERT(state->told != NULL);
        memset(state->told + state->told_room, 0, (room - state->told_room) * sizeof(*state->told));
        state->told_room = room;
    }
    return &state->told[height - 1];
}

/* Which addition brought the value to this height; two say so: one of them is lost. */
static void note_height(const struct counters *counters, const struct counter_ask *ask, uint64_t height,
                        uint32_t number)
{
    if (meets_flush(counters, ask))
        return;
    uint32_t *told = told_at(&counters->states[ask->key], height);
    if (*told != 0 && *told != number)
        unexplained(counters, ask, height, "another addition made it");
    *told = number;
}

/* `height` was told: it is within what can be, and from now on at least that much. */
static void take_height(struct counters *counters, const struct counter_ask *ask, uint64_t height)
{
    struct counter *state = &counters->states[ask->key];
    uint64_t floor = ask->floor;
    if (meets_flush(counters, ask))
        return;
    bool same = state->latest[ask->client].session == ask->session;
    if (same && state->latest[ask->client].height > floor)
        floor = state->latest[ask->client].height;
    if (height < floor + (ask->number != 0))
        unexplained(counters, ask, height, "it was higher before");
    if (height > state->most)
        unexplained(counters, ask, height, "so much was never added");
    state->latest[ask->client].session = ask->session;
    state->latest[ask->client].height = height;
    if (height > state->sure)
        state->sure = height;
}

void counters_added(struct counters *counters, const struct counter_ask *ask, int64_t reply)
{
    struct counter *state = &counters->states[ask->key];
    uint64_t unit = state->token_bytes > 0 ? state->token_bytes : 1;
    KVS_ASSERT(ask->number != 0);
    state->under_way--;
    if (reply <= 0 || (uint64_t)reply % unit != 0)
        broken("P3 no lies: counter %u: an addition was told %" PRId64, ask->key, reply);
    uint64_t height = (uint64_t)reply / unit;
    take_height(counters, ask, height);
    note_height(counters, ask, height, ask->number);
}

/* The height of a text, whose tokens are all different and stand where they were told to. */
static uint64_t height_of_text(struct counters *counters, const struct counter_ask *ask, struct slice value)
{
    const struct counter *state = &counters->states[ask->key];
    uint64_t height = value.size / state->token_bytes;
    uint8_t *seen = calloc((size_t)state->numbers + 1, 1);
    KVS_ASSERT(seen != NULL);
    uint64_t most = meets_flush(counters, ask) ? state->begun : state->most;
    bool right = value.size % state->token_bytes == 0 && height <= most;
    for (uint64_t at = 0; at < height && right; at++) {
        const uint8_t *token = value.data + at * state->token_bytes;
        uint8_t expected[WIDE];
        uint32_t number = 0;
        for (unsigned i = 0; i < NARROW && token[i] >= '0' && token[i] <= '9'; i++)
            number = number * 10 + (uint32_t)(token[i] - '0');
        right = number > 0 && number <= state->numbers && seen[number]++ == 0;
        if (!right)
            break;
        write_token(state, number, expected);
        right = memcmp(token, expected, state->token_bytes) == 0;
        note_height(counters, ask, at + 1, number);
    }
    free(seen);
    if (!right)
        broken("P3 no lies: counter %u reads as %zu bytes that are not what was appended", ask->key, value.size);
    return height;
}

static uint64_t height_of_number(const struct counter_ask *ask, struct slice value)
{
    uint64_t height = 0;
    bool right = value.size > 0 && value.size < 10;
    for (size_t i = 0; i < value.size && right; i++) {
        right = value.data[i] >= '0' && value.data[i] <= '9';
        height = height * 10 + (uint64_t)(value.data[i] - '0');
    }
    if (!right || height == 0)
        broken("P3 no lies: counter %u reads as %zu bytes that are no number of additions", ask->key, value.size);
    return height;
}

void counters_seen(struct counters *counters, const struct counter_ask *ask, bool found, struct slice value)
{
    struct counter *state = &counters->states[ask->key];
    KVS_ASSERT(ask->number == 0);
    uint64_t height = !found                   ? 0
                      : state->token_bytes > 0 ? height_of_text(counters, ask, value)
                                               : height_of_number(ask, value);
    take_height(counters, ask, height);
    if (ask->alone && state->begun == ask->begun && state->lingering == 0 && !meets_flush(counters, ask))
        state->most = height;
}

void counters_refuse(struct counters *counters, const struct counter_ask *ask)
{
    if (ask->number == 0)
        return;
    counters->states[ask->key].under_way--;
    counters->states[ask->key].most--;
}

void counters_leave(struct counters *counters, const struct counter_ask *ask)
{
    if (ask->number == 0)
        return;
    counters->states[ask->key].under_way--;
    counters->states[ask->key].lingering++;
}

void counters_range(const struct counters *counters, int64_t *least, int64_t *most)
{
    *least = *most = 0;
    for (unsigned key = 0; key < counters->keys; key++) {
        *least += counters->states[key].sure > 0;
        *most += counters->states[key].most > 0;
    }
}
