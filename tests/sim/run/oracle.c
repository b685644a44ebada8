/*
 * oracle.c - keys, values and histories.
 *
 * Happy path: a client begins an operation, gets its answer, and ends it; oracle_judge hands each key's operations to
 * the checker and keeps the values it may hold at the end as the beginning of the next boot. Operations that were left
 * without an answer take effect before the end of their boot or never.
 *
 * Failure modes: an impossible history breaks the run, with the checker's reason. A history that is too tangled to be
 * decided within WORK_MAX states does, too: it would hide something.
 */
#include "oracle_internal.h"

#include "sim_core.h"
#include "verdict.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORK_MAX           2000000u
#define RELAXED_SURELY_NS  3000000000u /* acknowledged that long ago, in calm: it is on disk */
#define VALUE_HEADER_BYTES 16u

struct oracle *oracle_create(unsigned keys, unsigned relaxed_keys, unsigned value_bytes, unsigned value_bytes_max)
{
    struct oracle *oracle = calloc(1, sizeof(*oracle));
    KVS_ASSERT(oracle != NULL && keys > 0 && relaxed_keys <= keys);
    *oracle = (struct oracle){
        .keys = keys,
        .relaxed_keys = relaxed_keys,
        .value_bytes = value_bytes,
        .value_bytes_max = value_bytes_max,
        .states = calloc(keys, sizeof(struct key_state)),
        .history = history_create(),
        .group_begin = 1,
        .group_begin_before = 1,
    };
    KVS_ASSERT(oracle->states != NULL);
    for (unsigned key = 0; key < keys; key++)
        oracle->states[key].first = oracle->states[key].last = oracle->states[key].before = ORACLE_OP_NONE;
    return oracle;
}

void oracle_free(struct oracle *oracle)
{
    for (unsigned key = 0; key < oracle->keys; key++) {
        free(oracle->states[key].starts);
        free(oracle->states[key].starts_before);
        free(oracle->states[key].finals);
    }
    history_free(oracle->history);
    free(oracle->attempts);
    free(oracle->groups_seen);
    free(oracle->groups_unseen);
    free(oracle->states);
    free(oracle);
}

unsigned oracle_keys(const struct oracle *oracle)
{
    return oracle->keys;
}

bool oracle_is_relaxed(const struct oracle *oracle, unsigned key)
{
    return key < oracle->relaxed_keys;
}

/* Most names are short; every 37th is long, one of them empty-looking bytes and all. */
size_t oracle_name(const struct oracle *oracle, unsigned key, uint8_t out[ORACLE_KEY_BYTES_MAX])
{
    KVS_ASSERT(key < oracle->keys);
    int size = snprintf((char *)out, 32, "%s%u", oracle_is_relaxed(oracle, key) ? "relaxed:" : "key:", key);
    size_t padding = key % 37 == 36 ? 100 + key * 7919u % 1500 : 0;
    memset(out + size, '\0', padding);
    return (size_t)size + padding;
}

unsigned oracle_key_named(const struct oracle *oracle, struct slice name)
{
    uint8_t expected[ORACLE_KEY_BYTES_MAX];
    char text[32] = {0};
    memcpy(text, name.data, name.size < sizeof(text) - 1 ? name.size : sizeof(text) - 1);
    const char *digits = strchr(text, ':');
    unsigned key = digits != NULL ? (unsigned)strtoul(digits + 1, NULL, 10) : UINT32_MAX;
    if (key >= oracle->keys || !slice_equal(name, slice_make(expected, oracle_name(oracle, key, expected))))
        broken("P3 no lies: a record with a key that nobody wrote: %s", text);
    return key;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

unsigned oracle_version(struct oracle *oracle, unsigned key)
{
    return ++oracle->states[key].versions;
}

size_t oracle_value_bytes(const struct oracle *oracle, unsigned key, unsigned version)
{
    uint64_t chance = mix((uint64_t)key << 32 | version);
    uint64_t span = 2 * (uint64_t)oracle->value_bytes;
    if (chance % 100 == 0)
        span = oracle->value_bytes_max;
    else if (chance % 20 == 0)
        span = 20 * (uint64_t)oracle->value_bytes;
    uint64_t size = VALUE_HEADER_BYTES + (chance >> 32) % (span + 1);
    return (size_t)(size < oracle->value_bytes_max ? size : oracle->value_bytes_max);
}

void oracle_value(const struct oracle *oracle, unsigned key, unsigned version, uint8_t *out)
{
    size_t size = oracle_value_bytes(oracle, key, version);
    uint64_t state = mix(((uint64_t)key << 32 | version) + 1);
    uint32_t header[4] = {key, version, (uint32_t)size, 0x45554c56u};
    memcpy(out, header, sizeof(header));
    for (size_t at = VALUE_HEADER_BYTES; at < size; at += sizeof(state)) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(out + at, &state, size - at < sizeof(state) ? size - at : sizeof(state));
    }
}

unsigned oracle_recognize(const struct oracle *oracle, unsigned key, struct slice value)
{
    uint32_t header[4] = {0};
    if (value.size < VALUE_HEADER_BYTES)
        broken("P3 no lies: key %u reads as %zu bytes", key, value.size);
    memcpy(header, value.data, sizeof(header));
    if (header[0] != key || header[2] != value.size || header[1] > oracle->states[key].versions || header[1] == 0)
        broken("P3 no lies: key %u reads as key %u version %u, %u bytes of %zu", key, header[0], header[1], header[2],
               value.size);
    uint8_t *expected = malloc(value.size);
    KVS_ASSERT(expected != NULL);
    bool right = oracle_value_bytes(oracle, key, header[1]) == value.size;
    if (right) {
        oracle_value(oracle, key, header[1], expected);
        right = memcmp(expected, value.data, value.size) == 0;
    }
    free(expected);
    if (!right)
        broken("P3 no lies: key %u version %u reads with wrong bytes", key, header[1]);
    return header[1];
}

bool oracle_is_watched(unsigned key)
{
    static const char *watched;
    if (story_on && watched == NULL)
        watched = getenv("KVS_SIM_KEY");
    return watched != NULL && strtoul(watched, NULL, 10) == key;
}

static void watch(const struct attempt *attempt, const char *what)
{
    static const char *const kinds[] = {"write", "remove", "read", "exists", "swap", "write if new", "write over"};
    static_assert(ARRAY_COUNT(kinds) == HISTORY_KINDS, "a name for each kind");
    if (oracle_is_watched(attempt->key))
        story("key %u: %s of value %llu, found %d (%llu), session %u: %s at moment %llu", attempt->key,
              kinds[attempt->op.kind], (unsigned long long)attempt->op.value, attempt->op.found,
              (unsigned long long)attempt->op.seen, attempt->op.session, what,
              (unsigned long long)(attempt->op.open ? attempt->op.invoked : attempt->op.returned));
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

uint32_t oracle_begin(struct oracle *oracle, unsigned key, enum history_kind kind, unsigned version, uint32_t session)
{
    KVS_ASSERT(key < oracle->keys);
    if (oracle->attempt_count == oracle->attempt_room) {
        oracle->attempt_room = oracle->attempt_room > 0 ? 2 * oracle->attempt_room : 1024;
        oracle->attempts = realloc(oracle->attempts, sizeof(*oracle->attempts) * oracle->attempt_room);
        KVS_ASSERT(oracle->attempts != NULL);
    }
    uint32_t id = oracle->attempt_count++;
    struct key_state *state = &oracle->states[key];
    oracle->attempts[id] = (struct attempt){
        .op = {.kind = kind,
               .found = -1,
               .open = true,
               .session = session,
               .value = version,
               .invoked = ++oracle->moment,
               .returned = HISTORY_NEVER,
               .tag = id},
        .next = ORACLE_OP_NONE,
        .key = key,
        .released = HISTORY_NEVER,
    };
    if (state->first == ORACLE_OP_NONE)
        state->first = id;
    else
        oracle->attempts[state->last].next = id;
    state->last = id;
    watch(&oracle->attempts[id], "begins");
    return id;
}

void oracle_end(struct oracle *oracle, uint32_t op, unsigned version, int found)
{
    struct attempt *attempt = &oracle->attempts[op];
    KVS_ASSERT(op < oracle->attempt_count && attempt->op.open && !attempt->left);
    attempt->op.open = false;
    attempt->op.returned = ++oracle->moment;
    attempt->op.found = (int8_t)found;
    if (attempt->op.kind == HISTORY_READ)
        attempt->op.value = version;
    else if (attempt->op.kind >= HISTORY_SWAP)
        attempt->op.seen = version;
    attempt->ended_ns = sim->now_ns;
    watch(attempt, "done");
}

void oracle_leave(struct oracle *oracle, uint32_t op)
{
    KVS_ASSERT(op < oracle->attempt_count && oracle->attempts[op].op.open);
    oracle->attempts[op].left = true;
    watch(&oracle->attempts[op], "left without an answer");
}

void oracle_refuse(struct oracle *oracle, uint32_t op)
{
    oracle_leave(oracle, op);
    oracle->attempts[op].refused = true;
}

void oracle_set_owner(struct oracle *oracle, unsigned key, unsigned shard)
{
    oracle->states[key].owner = shard;
}

void oracle_taint(struct oracle *oracle, unsigned key)
{
    oracle->states[key].tainted = true;
}

/* ---- judging --------------------------------------------------------------------------------------------------- */

static bool is_read(const struct attempt *attempt)
{
    return attempt->op.kind == HISTORY_READ || attempt->op.kind == HISTORY_EXISTS;
}

bool oracle_may_have_written(const struct history_op *op)
{
    bool told = !op->open && op->found >= 0;
    switch (op->kind) {
    case HISTORY_WRITE:
        return true;
    case HISTORY_SWAP:
        return op->value != 0;
    case HISTORY_WRITE_NEW:
        return !told || op->found == 0;
    case HISTORY_WRITE_OVER:
        return !told || op->found == 1;
    default:
        return false;
    }
}

bool oracle_may_have_removed(const struct history_op *op)
{
    bool removes = op->kind == HISTORY_REMOVE || (op->kind == HISTORY_SWAP && op->value == 0);
    return removes && (op->open || op->found != 0);
}

static void set_values(uint64_t **values, size_t *count, const uint64_t *from, size_t from_count)
{
    *values = realloc(*values, (from_count + 1) * sizeof(**values));
    KVS_ASSERT(*values != NULL);
    if (from_count > 0)
        memcpy(*values, from, from_count * sizeof(**values));
    *count = from_count;
}

/* Everything a key has ever been. */
static void set_anything(struct key_state *state, uint64_t **values, size_t *count)
{
    *values = realloc(*values, (state->versions + 1) * sizeof(**values));
    KVS_ASSERT(*values != NULL);
    for (unsigned version = 0; version <= state->versions; version++)
        (*values)[version] = version;
    *count = state->versions + 1;
}

static void begin_history(struct oracle *oracle, const uint64_t *starts, size_t start_count)
{
    history_clear(oracle->history);
    history_begin(oracle->history, starts, start_count);
}

/* Decides what has been put into the history; the finals are left in `finals`. */
static size_t decide(struct oracle *oracle, unsigned key, const char *promise, uint64_t *finals, size_t finals_max)
{
    char why[4096];
    size_t count = 0;
    switch (history_check(oracle->history, WORK_MAX, finals, finals_max, &count, why, sizeof(why))) {
    case HISTORY_LINEARIZABLE:
        return count;
    case HISTORY_UNDECIDED:
        broken("the history of key %u is too tangled to be decided", key);
    case HISTORY_IMPOSSIBLE:
        break;
    }
    broken("%s: key %u (shard %u, shard %u in the boot before): %s", promise, key, oracle->states[key].owner,
           oracle->states[key].owner_before, why);
}

static void judge_key(struct oracle *oracle, unsigned key, bool ends)
{
    struct key_state *state = &oracle->states[key];
    begin_history(oracle, state->starts, state->start_count);
    for (uint32_t id = state->first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *attempt = &oracle->attempts[id];
        struct history_op op = attempt->op;
        if (attempt->refused || (op.open && is_read(attempt)))
            continue;
        if (op.open && ends)
            op.returned = oracle->moment;
        oracle_tighten(oracle, attempt, &op);
        history_add(oracle->history, &op);
    }
    size_t room = state->versions + 2;
    state->finals = realloc(state->finals, room * sizeof(*state->finals));
    KVS_ASSERT(state->finals != NULL);
    state->final_count = decide(oracle, key, "P1 durable, P2 no ghosts or P4 no take-backs", state->finals, room);
    KVS_ASSERT(state->final_count <= room);
}

/* A relaxed key after a crash: what it held at the beginning, and whatever was written or removed since; but for what
 * was there before a flush. */
static void begin_relaxed(const struct oracle *oracle, struct key_state *state)
{
    uint64_t flushed = oracle_flushed_from(oracle, state->first);
    uint64_t *values = malloc((state->start_count + state->versions + 2) * sizeof(*values));
    KVS_ASSERT(values != NULL);
    size_t count = flushed == 0 ? state->start_count : 0;
    if (count > 0)
        memcpy(values, state->starts, count * sizeof(*values));
    else
        values[count++] = 0;
    bool removed = false;
    for (uint32_t id = state->first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct history_op *op = &oracle->attempts[id].op;
        if (oracle_may_have_written(op) && op->returned >= flushed)
            values[count++] = op->value;
        removed = removed || oracle_may_have_removed(op);
    }
    if (removed)
        values[count++] = 0;
    free(state->starts);
    state->starts = values;
    state->start_count = count;
}

static void begin_boot(struct oracle *oracle, unsigned key, enum oracle_end end)
{
    struct key_state *state = &oracle->states[key];
    if (oracle_is_watched(key)) {
        story("key %u: the boot is over (%d)%s; it may hold:", key, (int)end, state->tainted ? ", tainted" : "");
        for (size_t i = 0; i < state->final_count; i++)
            story("key %u:   %llu", key, (unsigned long long)state->finals[i]);
    }
    state->owner_before = state->owner;
    state->before = state->first;
    set_values(&state->starts_before, &state->start_before_count, state->starts, state->start_count);
    if (state->tainted)
        set_anything(state, &state->starts, &state->start_count);
    else if (end == ORACLE_CRASHED && oracle_is_relaxed(oracle, key))
        begin_relaxed(oracle, state);
    else
        set_values(&state->starts, &state->start_count, state->finals, state->final_count);
    state->first = state->last = ORACLE_OP_NONE;
    state->grouped = state->flushed = false;
}

/* Moves the attempts of this boot to the front; those of the boot before are forgotten. */
static void forget_attempts(struct oracle *oracle)
{
    uint32_t shift = oracle->boot_begin;
    oracle->attempt_count -= shift;
    if (shift > 0 && oracle->attempt_count > 0)
        memmove(oracle->attempts, oracle->attempts + shift, oracle->attempt_count * sizeof(*oracle->attempts));
    for (uint32_t id = 0; id < oracle->attempt_count; id++) {
        if (oracle->attempts[id].next != ORACLE_OP_NONE)
            oracle->attempts[id].next -= shift;
    }
    for (unsigned key = 0; key < oracle->keys; key++) {
        struct key_state *state = &oracle->states[key];
        if (state->first != ORACLE_OP_NONE) {
            state->first -= shift;
            state->last -= shift;
        }
    }
    oracle->boot_begin = oracle->attempt_count;
}

void oracle_judge(struct oracle *oracle, enum oracle_end end, bool calm)
{
    oracle->moment++;
    oracle_look_at_groups(oracle);
    for (unsigned key = 0; key < oracle->keys; key++)
        judge_key(oracle, key, end != ORACLE_GOES_ON);
    if (end == ORACLE_GOES_ON)
        return;
    forget_attempts(oracle);
    for (unsigned key = 0; key < oracle->keys; key++)
        begin_boot(oracle, key, end);
    oracle->group_begin_before = oracle->group_begin;
    oracle->group_begin = oracle->groups + 1;
    oracle->crashed = end == ORACLE_CRASHED;
    oracle->calm_before = calm;
    oracle->crashed_ns = sim->now_ns;
    oracle->moment++;
}

int oracle_present(const struct oracle *oracle, unsigned key)
{
    const struct key_state *state = &oracle->states[key];
    KVS_ASSERT(state->final_count > 0);
    bool there = state->finals[0] != 0;
    for (size_t i = 1; i < state->final_count; i++) {
        if ((state->finals[i] != 0) != there)
            return -1;
    }
    return there;
}

/* ---- relaxed durability ---------------------------------------------------------------------------------------- */

/* The beginning of the latest write of this key that must lie in its shard's log, as moments of the boot before. */
static uint64_t latest_survivor(const struct oracle *oracle, unsigned key)
{
    const struct key_state *state = &oracle->states[key];
    uint64_t latest = 0;
    for (uint32_t id = state->before; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *attempt = &oracle->attempts[id];
        const struct history_op *op = &attempt->op;
        bool wrote = oracle_may_have_written(op);
        bool acknowledged = !oracle_is_relaxed(oracle, key) && !op->open;
        /* A remove that found nothing may have left no record. */
        acknowledged = acknowledged && (wrote || (oracle_may_have_removed(op) && op->found == 1));
        bool found = wrote && state->final_count == 1 && op->value == state->finals[0];
        if (attempt->flush && !op->open) /* every log had been durable when it happened */
            acknowledged = true;
        else if (attempt->group != 0) /* it may stand in another log */
            continue;
        if ((acknowledged || found) && attempt->op.invoked > latest)
            latest = attempt->op.invoked;
    }
    return latest;
}

static void judge_prefix_of(struct oracle *oracle, unsigned key, uint64_t until)
{
    const struct key_state *state = &oracle->states[key];
    uint64_t end = oracle->moment;
    begin_history(oracle, state->starts_before, state->start_before_count);
    for (uint32_t id = state->before; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *attempt = &oracle->attempts[id];
        struct history_op op = attempt->op;
        bool wrote = oracle_may_have_written(&op);
        if (!(wrote || oracle_may_have_removed(&op)) || attempt->refused)
            continue;
        bool old =
            oracle->calm_before && attempt->ended_ns > 0 && attempt->ended_ns + RELAXED_SURELY_NS < oracle->crashed_ns;
        bool kept = !op.open && (op.returned < until || old || attempt->flush);
        /* What it saw may be among what is lost. */
        op.open = !kept;
        op.kind = wrote ? HISTORY_WRITE : HISTORY_REMOVE;
        op.found = -1;
        op.seen = 0;
        if (op.returned > end)
            op.returned = end;
        history_add(oracle->history, &op);
    }
    struct history_op found = {.kind = HISTORY_READ, .found = -1, .value = state->finals[0]};
    found.invoked = found.returned = end + 1;
    history_add(oracle->history, &found);
    uint64_t finals[1];
    (void)decide(oracle, key, "relaxed durability keeps a prefix", finals, 1);
}

void oracle_judge_prefix(struct oracle *oracle)
{
    bool crashed = oracle->crashed;
    oracle->crashed = false;
    uint64_t until[64] = {0};
    for (unsigned key = 0; key < oracle->keys; key++) {
        const struct key_state *state = &oracle->states[key];
        uint64_t latest = state->tainted ? 0 : latest_survivor(oracle, key);
        if (latest > until[state->owner_before])
            until[state->owner_before] = latest;
    }
    for (unsigned key = 0; key < oracle->relaxed_keys && crashed; key++) {
        const struct key_state *state = &oracle->states[key];
        if (!state->tainted && state->final_count == 1)
            judge_prefix_of(oracle, key, until[state->owner_before]);
    }
    for (unsigned key = 0; key < oracle->keys; key++)
        oracle->states[key].tainted = false;
}
