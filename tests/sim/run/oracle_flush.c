/*
 * oracle_flush.c - what is true of flushes, which remove all keys in one step.
 *
 * The moment of a flush. An answer that shows a value which was there before the flush began says: not yet, when I was
 * asked. An answer that shows a key gone which had surely been there, and which nothing else can have removed, says:
 * it has happened. All answers about all keys together leave a stretch of time for it (groups_unseen, groups_seen); if
 * it is empty, somebody has seen half a flush.
 *
 * Crashes. After one, in the same way: a value from before the flush says that it has not happened; a durable key gone
 * that nothing else can have removed, that it has. One of each is half a flush.
 *
 * What could be explained otherwise tells nothing: other removes and flushes that may have come in between, keys that
 * may not have been there.
 */
#include "oracle_internal.h"

#include "verdict.h"

#include "base/assert.h"

/* ---- operations ------------------------------------------------------------------------------------------------ */

uint32_t oracle_flush_begin(struct oracle *oracle, uint32_t session)
{
    uint32_t first = oracle->attempt_count, group = ++oracle->groups;
    for (unsigned key = 0; key < oracle->keys; key++) {
        uint32_t op = oracle_begin(oracle, key, HISTORY_REMOVE, 0, session);
        oracle->attempts[op].group = group;
        oracle->attempts[op].flush = true;
        oracle->states[key].grouped = oracle->states[key].flushed = true;
    }
    story("flush %u begins", group);
    return first;
}

void oracle_flush_end(struct oracle *oracle, uint32_t flush)
{
    story("flush %u is done", oracle->attempts[flush].group);
    for (unsigned key = 0; key < oracle->keys; key++)
        oracle_end(oracle, flush + key, 0, -1);
}

void oracle_flush_leave(struct oracle *oracle, uint32_t flush)
{
    story("flush %u is left without an answer", oracle->attempts[flush].group);
    for (unsigned key = 0; key < oracle->keys; key++) {
        oracle_leave(oracle, flush + key);
        /* After an error the session goes on, sees what was there, and a start may find the flush nevertheless. */
        oracle->attempts[flush + key].op.session = 0;
    }
}

uint64_t oracle_flushed_from(const struct oracle *oracle, uint32_t first)
{
    uint64_t latest = 0;
    for (uint32_t id = first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *attempt = &oracle->attempts[id];
        if (attempt->flush && !attempt->op.open && attempt->op.invoked > latest)
            latest = attempt->op.invoked;
    }
    return latest;
}

/* ---- what others can have done --------------------------------------------------------------------------------- */

/* It has an answer by which the key was there afterwards. */
static bool has_written(const struct history_op *op)
{
    return !op->open && oracle_may_have_written(op);
}

/*
 * The moment from which on the key was there, if nothing but `flush` can have removed it until `until`: the beginning
 * of an operation that had written it before `asked`. HISTORY_NEVER: it may have been gone otherwise. `starts`: what it
 * may have held before the first of its attempts.
 */
static uint64_t surely_there_from(const struct oracle *oracle, uint32_t first, const uint64_t *starts,
                                  size_t start_count, const struct attempt *flush, uint64_t asked, uint64_t until)
{
    uint64_t removed = 0, written = HISTORY_NEVER;
    bool there = start_count > 0;
    for (size_t i = 0; i < start_count; i++)
        there = there && starts[i] != 0;
    for (uint32_t id = first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *other = &oracle->attempts[id];
        if (other == flush || other->refused || other->op.invoked > until)
            continue;
        if (oracle_may_have_removed(&other->op) && other->op.returned > removed)
            removed = other->op.returned;
        if (has_written(&other->op) && other->op.returned < asked &&
            (written == HISTORY_NEVER || other->op.invoked > written))
            written = other->op.invoked;
    }
    if (written != HISTORY_NEVER && written > removed)
        return written;
    return there && removed == 0 ? 0 : HISTORY_NEVER;
}

/* The operation that wrote this version was answered before the flush began, or is of an earlier boot. */
static bool written_before(const struct oracle *oracle, uint32_t first, uint64_t version, const struct attempt *flush)
{
    for (uint32_t id = first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct history_op *op = &oracle->attempts[id].op;
        if (op->value == version && op->kind != HISTORY_READ)
            return op->returned < flush->op.invoked;
    }
    return true;
}

/* ---- readers --------------------------------------------------------------------------------------------------- */

static bool shows_gone(const struct history_op *op)
{
    if (op->open)
        return false;
    return op->kind == HISTORY_READ ? op->value == 0 : op->kind != HISTORY_WRITE && op->found == 0;
}

static void look_at_answer(struct oracle *oracle, const struct key_state *state, const struct attempt *flush,
                           const struct history_op *op)
{
    uint64_t *seen = &oracle->groups_seen[flush->group - oracle->group_begin];
    uint64_t *unseen = &oracle->groups_unseen[flush->group - oracle->group_begin];
    uint64_t value = oracle_shown_value(op);
    if (value != 0 && op->invoked > *unseen && written_before(oracle, state->first, value, flush))
        *unseen = op->invoked;
    if (!shows_gone(op) || op->returned < flush->op.invoked || op->invoked > flush->op.returned)
        return;
    uint64_t from =
        surely_there_from(oracle, state->first, state->starts, state->start_count, flush, op->invoked, op->returned);
    if (from == HISTORY_NEVER)
        return;
    if (from > *unseen)
        *unseen = from;
    if (op->returned < *seen)
        *seen = op->returned;
}

void oracle_look_at_flushes(struct oracle *oracle, unsigned key)
{
    const struct key_state *state = &oracle->states[key];
    for (uint32_t id = state->first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *flush = &oracle->attempts[id];
        if (!flush->flush)
            continue;
        for (uint32_t other = state->first; other != ORACLE_OP_NONE; other = oracle->attempts[other].next) {
            if (!oracle->attempts[other].flush)
                look_at_answer(oracle, state, flush, &oracle->attempts[other].op);
        }
    }
}

void oracle_judge_flushes(const struct oracle *oracle)
{
    uint32_t count = oracle->groups + 1 - oracle->group_begin;
    for (uint32_t i = 0; i < count; i++) {
        if (oracle->groups_unseen[i] > oracle->groups_seen[i])
            broken("P4 no take-backs: half a flush was seen: flush %u had happened by moment %llu, and had not at "
                   "moment %llu",
                   oracle->group_begin + i, (unsigned long long)oracle->groups_seen[i],
                   (unsigned long long)oracle->groups_unseen[i]);
    }
}

/* ---- crashes --------------------------------------------------------------------------------------------------- */

int oracle_flush_remains(const struct oracle *oracle, uint32_t id)
{
    const struct attempt *flush = &oracle->attempts[id];
    const struct key_state *state = &oracle->states[flush->key];
    KVS_ASSERT(flush->flush);
    if (state->tainted || state->final_count != 1)
        return -1;
    if (state->finals[0] != 0)
        return written_before(oracle, state->before, state->finals[0], flush) ? 0 : -1;
    if (oracle_is_relaxed(oracle, flush->key)) /* what was written may be lost */
        return -1;
    uint64_t from = surely_there_from(oracle, state->before, state->starts_before, state->start_before_count, flush,
                                      HISTORY_NEVER, HISTORY_NEVER);
    return from != HISTORY_NEVER ? 1 : -1;
}
