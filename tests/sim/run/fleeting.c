/*
 * fleeting.c - keys that expire.
 *
 * Happy path: fleeting_begin chooses what to ask and notes the time, fleeting_end holds the answer against what the key
 * may hold between that time and now, and forgets what the answer rules out.
 *
 * Failure modes: an answer that nothing explains breaks the run. An operation that was left adds to what the key may
 * hold, and the key rests until the next boot.
 */
#include "fleeting.h"

#include "draw.h"
#include "sim_core.h"
#include "verdict.h"

#include "base/assert.h"
#include "proto/resp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    POSSIBLE_MAX = 32,
    POSSIBLE_FEW = 4,  /* what has more is only asked, written and removed */
    PACE_ERROR_MS = 3, /* of a time that goes on by the monotonic clock */
    /* What was shown as expired so long before a crash stays so, though the clock was set back meanwhile: the node
     * notes the time once a second, unless it has nowhere to write it. */
    SHOWN_MS = 3000,
    SOON_MS = 4000,
    NS_PER_MS = 1000000,
};
#define NAME "fleeting:"

struct possible {
    uint32_t version; /* 0: not there */
    uint64_t expires_ms;
};

enum asked {
    ASKED_NOTHING,
    ASKED_GET,
    ASKED_EXISTS,
    ASKED_PTTL,
    ASKED_DEL, /* from here on they may change it */
    ASKED_SET,
    ASKED_SET_NEW,  /* NX */
    ASKED_SET_KEEP, /* KEEPTTL */
    ASKED_GETDEL,
    ASKED_GETEX,
    ASKED_EXPIRE,
    ASKED_PERSIST,
};

struct fleeting_key {
    struct possible possible[POSSIBLE_MAX], shown[POSSIBLE_MAX]; /* shown: as expired, lately */
    unsigned possible_count, shown_count;
    uint64_t shown_ns;
    uint32_t versions;
    enum asked asked;
    uint64_t asked_ms;       /* the node's time then, at least */
    struct possible written; /* a new value; or no version, and another expiry for what is there */
    bool resting, tainted;
    bool altered;                        /* some value has had other expiries than the one it was written with */
    uint64_t asked_moment, ended_moment; /* of the latest that was asked */
};

struct fleeting {
    unsigned keys, value_bytes;
    bool swaps;
    struct fleeting_key *states;
    /* Of the clock: where it stands, the most the node can have seen, what it has surely seen in this boot. */
    int64_t offset_ms, offset_high_ms, offset_low_ms;
    uint64_t stopped_ns; /* when the latest stop began */
    uint64_t seed;
    uint64_t moment;       /* raised when something is asked or answered */
    uint64_t flush_moment; /* the latest at which a flush began or ended */
    unsigned flushes;      /* that may be under way */
};

/* As it stands in a value, before its padding. */
struct value_head {
    uint32_t magic, key, version, size;
    uint64_t expires_ms;
};
#define VALUE_MAGIC 0x46454c46u

struct fleeting *fleeting_create(unsigned keys, unsigned value_bytes, bool swaps)
{
    struct fleeting *fleeting = calloc(1, sizeof(*fleeting));
    KVS_ASSERT(fleeting != NULL);
    *fleeting = (struct fleeting){.keys = keys,
                                  .value_bytes = value_bytes,
                                  .swaps = swaps,
                                  .states = calloc(keys, sizeof(struct fleeting_key)),
                                  .seed = 1};
    KVS_ASSERT(fleeting->states != NULL);
    for (unsigned key = 0; key < keys; key++)
        fleeting->states[key].possible_count = 1; /* not there */
    return fleeting;
}

void fleeting_free(struct fleeting *fleeting)
{
    free(fleeting->states);
    free(fleeting);
}

unsigned fleeting_keys(const struct fleeting *fleeting)
{
    return fleeting->keys;
}

bool fleeting_named(const struct fleeting *fleeting, struct slice name, unsigned *key)
{
    char text[32] = {0};
    if (name.size >= sizeof(text) || name.size < strlen(NAME) || memcmp(name.data, NAME, strlen(NAME)) != 0)
        return false;
    memcpy(text, name.data, name.size);
    *key = (unsigned)strtoul(text + strlen(NAME), NULL, 10);
    return *key < fleeting->keys;
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

/* What the clock would say, had it never stepped. */
static int64_t steady_ms(void)
{
    return (int64_t)(SIM_WALL_BEGIN_MS + sim->now_ns / NS_PER_MS);
}

/* The node's time is at least this … */
static uint64_t low_ms(const struct fleeting *fleeting)
{
    if (fleeting->offset_ms >= fleeting->offset_low_ms)
        return (uint64_t)(steady_ms() + fleeting->offset_ms);
    return (uint64_t)(steady_ms() + fleeting->offset_low_ms - PACE_ERROR_MS);
}

/* … and at most this. */
static uint64_t high_ms(const struct fleeting *fleeting)
{
    return (uint64_t)(steady_ms() + fleeting->offset_high_ms);
}

void fleeting_clock_stepped(struct fleeting *fleeting, int64_t by_ms)
{
    fleeting->offset_ms += by_ms;
    if (fleeting->offset_ms > fleeting->offset_high_ms)
        fleeting->offset_high_ms = fleeting->offset_ms;
}

/* What was shown as expired just before the crash may be back, if the clock was set back, too. */
static void bring_back(struct fleeting_key *state, bool calm)
{
    bool long_ago = calm && sim->now_ns > state->shown_ns + (uint64_t)SHOWN_MS * NS_PER_MS;
    for (unsigned i = 0; i < state->shown_count && !long_ago; i++) {
        if (state->possible_count < POSSIBLE_MAX)
            state->possible[state->possible_count++] = state->shown[i];
    }
    state->shown_count = 0;
}

void fleeting_stop(struct fleeting *fleeting)
{
    fleeting->stopped_ns = sim->now_ns;
}

/* While the clock is behind, the time that passes without a node is lost on it. */
void fleeting_boot(struct fleeting *fleeting, bool orderly, bool calm)
{
    fleeting->flushes = 0;
    bool knows = orderly && calm && fleeting->offset_low_ms > fleeting->offset_ms;
    for (unsigned key = 0; key < fleeting->keys; key++) {
        struct fleeting_key *state = &fleeting->states[key];
        KVS_ASSERT(state->asked == ASKED_NOTHING);
        state->resting = false;
        if (!(orderly && calm) && fleeting->offset_high_ms > fleeting->offset_ms)
            bring_back(state, calm);
    }
    if (knows)
        fleeting->offset_low_ms -= (int64_t)((sim->now_ns - fleeting->stopped_ns) / NS_PER_MS) + PACE_ERROR_MS;
    else
        fleeting->offset_low_ms = fleeting->offset_ms;
}

void fleeting_taint(struct fleeting *fleeting, unsigned key)
{
    fleeting->states[key].tainted = true;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

bool fleeting_idle(const struct fleeting *fleeting, unsigned key)
{
    return fleeting->states[key].asked == ASKED_NOTHING && !fleeting->states[key].resting;
}

bool fleeting_writes(const struct fleeting *fleeting, unsigned key)
{
    return fleeting->states[key].asked >= ASKED_DEL;
}

static size_t write_value(const struct fleeting *fleeting, unsigned key, const struct possible *what, uint8_t *out)
{
    uint64_t state = (uint64_t)key << 32 | what->version;
    uint64_t size = sizeof(struct value_head) + draw_next(&state) % (2 * fleeting->value_bytes + 1);
    if (draw_next(&state) % 16 == 0)
        size *= 8;
    if (size > FLEETING_REQUEST_BYTES_MAX / 2)
        size = FLEETING_REQUEST_BYTES_MAX / 2;
    struct value_head head = {VALUE_MAGIC, key, what->version, (uint32_t)size, what->expires_ms};
    memcpy(out, &head, sizeof(head));
    for (size_t at = sizeof(head); at < size; at++)
        out[at] = (uint8_t)(state >> at % 57);
    return (size_t)size;
}

/* None, or one that comes soon, seldom one that has passed. */
static uint64_t draw_expiry(struct fleeting *fleeting)
{
    if (draw_next(&fleeting->seed) % 4 == 0)
        return 0;
    return high_ms(fleeting) + draw_next(&fleeting->seed) % SOON_MS - 50;
}

static size_t begin_set(struct fleeting *fleeting, unsigned key, struct slice name, uint8_t *out)
{
    static uint8_t value[FLEETING_REQUEST_BYTES_MAX];
    struct fleeting_key *state = &fleeting->states[key];
    bool keeps = state->asked == ASKED_SET_KEEP;
    state->written = (struct possible){.version = ++state->versions};
    if (!keeps)
        state->written.expires_ms = draw_expiry(fleeting);
    char time[24];
    snprintf(time, sizeof(time), "%" PRIu64, state->written.expires_ms);
    struct slice args[6] = {slice_text("SET"), name,
                            slice_make(value, write_value(fleeting, key, &state->written, value))};
    unsigned count = 3;
    if (state->asked == ASKED_SET_NEW)
        args[count++] = slice_text("NX");
    if (keeps)
        args[count++] = slice_text("KEEPTTL");
    if (state->written.expires_ms != 0) {
        args[count++] = slice_text("PXAT");
        args[count++] = slice_text(time);
    }
    return resp_write_request(out, args, count);
}

/* What is there gets another expiry, or none. */
static size_t begin_expire(struct fleeting *fleeting, unsigned key, struct slice name, uint8_t *out)
{
    struct fleeting_key *state = &fleeting->states[key];
    state->altered = true;
    state->written = (struct possible){.expires_ms = state->asked == ASKED_PERSIST ? 0 : draw_expiry(fleeting)};
    if (state->asked == ASKED_EXPIRE && state->written.expires_ms == 0)
        state->written.expires_ms = high_ms(fleeting) + 1;
    char time[24];
    snprintf(time, sizeof(time), "%" PRIu64, state->written.expires_ms);
    if (state->asked == ASKED_GETEX) {
        bool persists = state->written.expires_ms == 0;
        struct slice args[4] = {slice_text("GETEX"), name, slice_text(persists ? "PERSIST" : "PXAT"), slice_text(time)};
        return resp_write_request(out, args, persists ? 3 : 4);
    }
    struct slice args[3] = {slice_text(state->asked == ASKED_PERSIST ? "PERSIST" : "PEXPIREAT"), name,
                            slice_text(time)};
    return resp_write_request(out, args, state->asked == ASKED_PERSIST ? 2 : 3);
}

static void watch(const struct fleeting *fleeting, unsigned key, const char *what, int64_t number)
{
    static const char *const words[] = {"nothing", "GET",     "EXISTS", "PTTL",  "DEL",       "SET",
                                        "SET NX",  "KEEPTTL", "GETDEL", "GETEX", "PEXPIREAT", "PERSIST"};
    const struct fleeting_key *state = &fleeting->states[key];
    if (story_on && getenv("KVS_SIM_FLEETING") != NULL && strtoul(getenv("KVS_SIM_FLEETING"), NULL, 10) == key)
        story("fleeting key %u: %s %s, %" PRId64 "; written: version %u, expires %" PRIu64 "; now %" PRIu64
              "..%" PRIu64,
              key, words[state->asked], what, number, state->written.version, state->written.expires_ms,
              low_ms(fleeting), high_ms(fleeting));
}

size_t fleeting_begin(struct fleeting *fleeting, unsigned key, uint64_t chance, uint8_t out[FLEETING_REQUEST_BYTES_MAX])
{
    static const struct {
        enum asked asked;
        const char *word;
    } choices[] = {{ASKED_GET, "GET"},          {ASKED_GET, "GET"},        {ASKED_SET, "SET"},
                   {ASKED_SET, "SET"},          {ASKED_SET, "SET"},        {ASKED_PTTL, "PTTL"},
                   {ASKED_DEL, "DEL"},          {ASKED_EXISTS, "EXISTS"},  {ASKED_SET_NEW, "SET"},
                   {ASKED_SET_KEEP, "SET"},     {ASKED_GETDEL, "GETDEL"},  {ASKED_GETEX, "GETEX"},
                   {ASKED_EXPIRE, "PEXPIREAT"}, {ASKED_PERSIST, "PERSIST"}};
    enum { WITHOUT_SWAPS = 8 };
    struct fleeting_key *state = &fleeting->states[key];
    KVS_ASSERT(fleeting_idle(fleeting, key));
    char text[32];
    snprintf(text, sizeof(text), NAME "%u", key);
    bool all = fleeting->swaps && state->possible_count <= POSSIBLE_FEW;
    size_t choice = chance % (all ? ARRAY_COUNT(choices) : WITHOUT_SWAPS);
    state->asked = choices[choice].asked;
    state->asked_ms = low_ms(fleeting);
    state->asked_moment = ++fleeting->moment;
    fleeting->seed ^= chance;
    watch(fleeting, key, "begins", 0);
    if (state->asked >= ASKED_SET && state->asked <= ASKED_SET_KEEP)
        return begin_set(fleeting, key, slice_text(text), out);
    if (state->asked >= ASKED_GETEX)
        return begin_expire(fleeting, key, slice_text(text), out);
    struct slice args[2] = {slice_text(choices[choice].word), slice_text(text)};
    return resp_write_request(out, args, 2);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static _Noreturn void unexplained(const struct fleeting *fleeting, unsigned key, const char *promise, const char *what)
{
    const struct fleeting_key *state = &fleeting->states[key];
    for (unsigned i = 0; i < state->possible_count; i++)
        fprintf(stderr, "fleeting key %u may hold version %u, which expires at %" PRIu64 "\n", key,
                state->possible[i].version, state->possible[i].expires_ms);
    broken("%s: fleeting key %u: %s, asked at %" PRIu64 ", answered at %" PRIu64 "..%" PRIu64, promise, key, what,
           state->asked_ms, low_ms(fleeting), high_ms(fleeting));
}

static bool may_be_there(const struct fleeting_key *state, const struct possible *what)
{
    return what->version != 0 && (what->expires_ms == 0 || what->expires_ms > state->asked_ms);
}

static bool may_be_gone(const struct fleeting *fleeting, const struct possible *what)
{
    return what->version == 0 || (what->expires_ms != 0 && what->expires_ms <= high_ms(fleeting));
}

static void set_only(struct fleeting_key *state, struct possible what)
{
    state->possible[0] = what;
    state->possible_count = 1;
    state->shown_count = 0;
    state->tainted = false;
}

/* What has expired was shown as such. False: nothing that it may hold has, or is missing in another way. */
static bool show_expired(struct fleeting *fleeting, struct fleeting_key *state)
{
    unsigned shown = state->shown_count;
    bool explained = state->tainted;
    for (unsigned i = 0; i < state->possible_count; i++) {
        const struct possible *one = &state->possible[i];
        if (!may_be_gone(fleeting, one))
            continue;
        explained = true;
        if (one->version != 0 && shown < POSSIBLE_MAX)
            state->shown[shown++] = *one;
    }
    if (shown != state->shown_count)
        state->shown_ns = sim->now_ns;
    state->shown_count = shown;
    return explained;
}

/* The same, and it holds `what` from now on. */
static bool expire_then(struct fleeting *fleeting, struct fleeting_key *state, struct possible what)
{
    bool explained = show_expired(fleeting, state);
    unsigned shown = state->shown_count;
    set_only(state, what);
    state->shown_count = shown;
    return explained;
}

static void found_missing(struct fleeting *fleeting, unsigned key, const char *what)
{
    struct fleeting_key before = fleeting->states[key];
    if (expire_then(fleeting, &fleeting->states[key], (struct possible){0}))
        return;
    fleeting->states[key] = before;
    unexplained(fleeting, key, "P1 durable", what);
}

static void found_value(struct fleeting *fleeting, unsigned key, struct slice value)
{
    static uint8_t expected[FLEETING_REQUEST_BYTES_MAX];
    struct fleeting_key *state = &fleeting->states[key];
    struct value_head head = {0};
    if (value.size >= sizeof(head))
        memcpy(&head, value.data, sizeof(head));
    struct possible what = {.version = head.version, .expires_ms = head.expires_ms};
    bool right = head.magic == VALUE_MAGIC && head.key == key && head.version > 0 && head.version <= state->versions;
    if (!right || !slice_equal(value, slice_make(expected, write_value(fleeting, key, &what, expected))))
        broken("P3 no lies: fleeting key %u reads as %zu other bytes", key, value.size);
    if (!state->altered && !may_be_there(state, &what))
        unexplained(fleeting, key, "P2 no ghosts", "an expired value was shown");
    if (state->tainted && state->altered) /* which of its expiries it has now is not known */
        return;
    unsigned known = 0, kept = 0;
    for (unsigned i = 0; i < state->possible_count; i++) {
        struct possible one = state->possible[i];
        known += one.version == what.version;
        if (one.version == what.version && may_be_there(state, &one))
            state->possible[kept++] = one;
    }
    if (known > 0 && kept == 0)
        unexplained(fleeting, key, "P2 no ghosts", "an expired value was shown");
    if (known == 0 && !state->tainted)
        unexplained(fleeting, key, "P1 durable, P2 no ghosts", "a value was shown that is not the latest");
    if (known == 0)
        state->possible[0] = what;
    state->possible_count = known == 0 ? 1 : kept;
    state->shown_count = 0;
    state->tainted = false;
}

/* What is there agrees with `fits` … */
static void found_some(struct fleeting *fleeting, unsigned key, const char *what,
                       bool (*fits)(const struct possible *one, uint64_t from_ms, uint64_t to_ms), int64_t left_ms)
{
    struct fleeting_key *state = &fleeting->states[key];
    unsigned kept = 0;
    for (unsigned i = 0; i < state->possible_count; i++) {
        struct possible one = state->possible[i];
        uint64_t left = (uint64_t)left_ms;
        if (may_be_there(state, &one) && fits(&one, state->asked_ms + left, high_ms(fleeting) + left))
            state->possible[kept++] = one;
    }
    if (kept == 0 && !state->tainted)
        unexplained(fleeting, key, "P1 durable, P2 no ghosts", what);
    if (kept > 0)
        state->possible_count = kept;
}

static bool fits_any(const struct possible *one, uint64_t from_ms, uint64_t to_ms)
{
    (void)one, (void)from_ms, (void)to_ms;
    return true;
}

static bool fits_lasting(const struct possible *one, uint64_t from_ms, uint64_t to_ms)
{
    (void)from_ms, (void)to_ms;
    return one->expires_ms == 0;
}

static bool fits_expiring(const struct possible *one, uint64_t from_ms, uint64_t to_ms)
{
    return one->expires_ms >= from_ms && one->expires_ms <= to_ms;
}

static bool fits_expiring_ever(const struct possible *one, uint64_t from_ms, uint64_t to_ms)
{
    (void)from_ms, (void)to_ms;
    return one->expires_ms != 0;
}

static void end_number(struct fleeting *fleeting, unsigned key, int64_t number)
{
    struct fleeting_key *state = &fleeting->states[key];
    bool missing = state->asked == ASKED_PTTL ? number == -2 : number == 0;
    if (missing)
        found_missing(fleeting, key, "it is not there");
    else if (state->asked != ASKED_PTTL)
        found_some(fleeting, key, "it is there", fits_any, 0);
    else if (number == -1)
        found_some(fleeting, key, "it does not expire", fits_lasting, 0);
    else
        found_some(fleeting, key, "it has another time left", fits_expiring, number);
    if (state->asked == ASKED_DEL && !missing)
        set_only(state, (struct possible){0});
}

/* It was there, and has another expiry now. */
static void change_expiry(struct fleeting_key *state)
{
    for (unsigned i = 0; i < state->possible_count; i++)
        state->possible[i].expires_ms = state->possible[i].version != 0 ? state->written.expires_ms : 0;
}

static void end_expire(struct fleeting *fleeting, unsigned key, int64_t number)
{
    struct fleeting_key *state = &fleeting->states[key];
    bool persists = state->asked == ASKED_PERSIST;
    if (number == 0 && !persists) {
        found_missing(fleeting, key, "it is not there");
        return;
    }
    bool explained = state->tainted;
    for (unsigned i = 0; i < state->possible_count && number == 0; i++) {
        const struct possible *one = &state->possible[i];
        explained = explained || one->expires_ms == 0 || may_be_gone(fleeting, one);
    }
    if (number == 0 && !explained)
        unexplained(fleeting, key, "P1 durable, P2 no ghosts", "it does not expire");
    if (number == 0)
        return;
    found_some(fleeting, key, "it had an expiry", persists ? fits_expiring_ever : fits_any, 0);
    change_expiry(state);
}

/* A new value with the expiry that there was. */
static void end_keep(struct fleeting *fleeting, unsigned key)
{
    struct fleeting_key *state = &fleeting->states[key];
    struct possible after[POSSIBLE_MAX];
    unsigned count = 0;
    (void)show_expired(fleeting, state);
    unsigned shown = state->shown_count;
    bool tainted = state->tainted, forever = false;
    for (unsigned i = 0; i < state->possible_count; i++) {
        const struct possible *one = &state->possible[i];
        forever = forever || may_be_gone(fleeting, one);
        if (may_be_there(state, one))
            after[count++] = (struct possible){.version = state->written.version, .expires_ms = one->expires_ms};
    }
    if (forever && count < POSSIBLE_MAX)
        after[count++] = (struct possible){.version = state->written.version};
    memcpy(state->possible, after, count * sizeof(*after));
    state->possible_count = count;
    state->altered = true;
    state->tainted = tainted; /* it may have any of the expiries that there ever were */
    state->shown_count = shown;
}

/* True when the answer to one of those that look and change is of the right kind. */
static bool end_swap(struct fleeting *fleeting, unsigned key, enum fleeting_answer answer, struct slice value,
                     int64_t number)
{
    struct fleeting_key *state = &fleeting->states[key];
    bool value_or_none = answer == FLEETING_VALUE || answer == FLEETING_MISSING;
    switch (state->asked) {
    case ASKED_SET_NEW:
        if (answer == FLEETING_MISSING)
            found_some(fleeting, key, "it is there", fits_any, 0);
        else
            found_missing(fleeting, key, "it is not there, a SET NX says");
        if (answer == FLEETING_OK && may_be_gone(fleeting, &state->written))
            (void)expire_then(fleeting, state, state->written);
        else if (answer == FLEETING_OK)
            set_only(state, state->written);
        return answer == FLEETING_OK || answer == FLEETING_MISSING;
    case ASKED_SET_KEEP:
        end_keep(fleeting, key);
        return answer == FLEETING_OK;
    case ASKED_GETDEL:
    case ASKED_GETEX:
        if (answer == FLEETING_MISSING)
            found_missing(fleeting, key, "it is not there");
        else
            found_value(fleeting, key, value);
        if (answer == FLEETING_VALUE && state->asked == ASKED_GETDEL)
            set_only(state, (struct possible){0});
        else if (answer == FLEETING_VALUE)
            change_expiry(state);
        return value_or_none;
    case ASKED_EXPIRE:
    case ASKED_PERSIST:
        end_expire(fleeting, key, number);
        return answer == FLEETING_NUMBER;
    default:
        return false;
    }
}

/* ---- flushes --------------------------------------------------------------------------------------------------- */

static void add_gone(struct fleeting_key *state)
{
    for (unsigned i = 0; i < state->possible_count; i++) {
        if (state->possible[i].version == 0)
            return;
    }
    KVS_ASSERT(state->possible_count < POSSIBLE_MAX);
    state->possible[state->possible_count++] = (struct possible){0};
}

uint64_t fleeting_flush_begin(struct fleeting *fleeting)
{
    fleeting->flushes++;
    fleeting->flush_moment = ++fleeting->moment;
    for (unsigned key = 0; key < fleeting->keys; key++)
        add_gone(&fleeting->states[key]);
    return fleeting->moment;
}

/* A key that was left alone since before it began is gone for certain. */
void fleeting_flush_end(struct fleeting *fleeting, uint64_t moment)
{
    KVS_ASSERT(fleeting->flushes > 0);
    fleeting->flushes--;
    fleeting->flush_moment = ++fleeting->moment;
    for (unsigned key = 0; key < fleeting->keys; key++) {
        struct fleeting_key *state = &fleeting->states[key];
        if (fleeting_idle(fleeting, key) && state->ended_moment < moment)
            set_only(state, (struct possible){0});
    }
}

/* ---- the end of what was asked --------------------------------------------------------------------------------- */

void fleeting_end(struct fleeting *fleeting, unsigned key, enum fleeting_answer answer, struct slice value,
                  int64_t number)
{
    struct fleeting_key *state = &fleeting->states[key];
    bool get = state->asked == ASKED_GET, set = state->asked == ASKED_SET;
    KVS_ASSERT(state->asked != ASKED_NOTHING);
    if (low_ms(fleeting) < state->asked_ms) /* the clock has stepped meanwhile */
        state->asked_ms = low_ms(fleeting);
    watch(fleeting, key, answer == FLEETING_MISSING ? "missing" : "answered", number);
    bool right = true;
    if (state->asked >= ASKED_SET_NEW)
        right = end_swap(fleeting, key, answer, value, number);
    else if (get && answer == FLEETING_MISSING)
        found_missing(fleeting, key, "it is not there");
    else if (get && answer == FLEETING_VALUE)
        found_value(fleeting, key, value);
    else if (set && answer == FLEETING_OK && state->written.version != 0 && may_be_gone(fleeting, &state->written))
        (void)expire_then(fleeting, state, state->written); /* it may have been as good as a DEL, which finds nothing */
    else if (set && answer == FLEETING_OK)
        set_only(state, state->written);
    else if (!get && !set && answer == FLEETING_NUMBER)
        end_number(fleeting, key, number);
    else
        right = false;
    if (!right)
        broken("fleeting key %u: an answer of the wrong kind", key);
    state->asked = ASKED_NOTHING;
    state->ended_moment = ++fleeting->moment;
    if (fleeting->flushes > 0 || fleeting->flush_moment > state->asked_moment)
        add_gone(state);
}

/* What was asked has happened or not: adds what the key may hold if it has. */
static void add_left(struct fleeting_key *state)
{
    struct possible added[2 * POSSIBLE_MAX];
    unsigned count = 0;
    bool expires = state->asked >= ASKED_GETEX;
    if (!expires)
        added[count++] =
            state->asked >= ASKED_SET && state->asked <= ASKED_SET_KEEP ? state->written : (struct possible){0};
    for (unsigned i = 0; i < state->possible_count; i++) {
        struct possible one = state->possible[i];
        if (expires && one.version != 0)
            added[count++] = (struct possible){.version = one.version, .expires_ms = state->written.expires_ms};
        if (state->asked == ASKED_SET_KEEP && one.expires_ms != 0)
            added[count++] = (struct possible){.version = state->written.version, .expires_ms = one.expires_ms};
    }
    state->altered = state->altered || state->asked == ASKED_SET_KEEP;
    KVS_ASSERT(state->possible_count + count <= POSSIBLE_MAX);
    memcpy(state->possible + state->possible_count, added, count * sizeof(*added));
    state->possible_count += count;
}

void fleeting_leave(struct fleeting *fleeting, unsigned key)
{
    struct fleeting_key *state = &fleeting->states[key];
    KVS_ASSERT(state->asked != ASKED_NOTHING);
    watch(fleeting, key, "left", 0);
    if (fleeting_writes(fleeting, key)) {
        add_left(state);
        state->resting = true;
    }
    state->asked = ASKED_NOTHING;
}

void fleeting_range(const struct fleeting *fleeting, uint64_t late_ms, int64_t *least, int64_t *most)
{
    *least = *most = 0;
    for (unsigned key = 0; key < fleeting->keys; key++) {
        const struct fleeting_key *state = &fleeting->states[key];
        bool surely = !state->tainted, perhaps = state->tainted;
        for (unsigned i = 0; i < state->possible_count; i++) {
            const struct possible *what = &state->possible[i];
            surely = surely && !may_be_gone(fleeting, what);
            perhaps = perhaps ||
                      (what->version != 0 && (what->expires_ms == 0 || what->expires_ms + late_ms > low_ms(fleeting)));
        }
        /* One that was shown as expired may still be counted a little. */
        for (unsigned i = 0; i < state->shown_count; i++)
            perhaps = perhaps || state->shown[i].expires_ms + late_ms > low_ms(fleeting);
        *least += surely;
        *most += perhaps || surely;
    }
}
