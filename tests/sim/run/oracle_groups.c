/*
 * oracle_groups.c - what is true of changes of several keys in one step.
 *
 * Readers. Whoever has seen one change of a group finds all of them done. So the earliest moment at which an answer
 * shows one of them bounds the time at which every one of them has happened, and a read of another key that began
 * later and shows what was there before is a history that nothing explains. Written values are unique: what shows one
 * is known. That a key is gone shows nothing.
 *
 * Crashes. Keys of a group are nobody else's until all is over. So if a crash comes first, what the keys hold
 * afterwards tells whether the group is there: its value, or another; a key gone that was there, or there still. One of
 * each is half a group.
 *
 * Flushes are groups of all keys; what shows that one has happened, or has not, is in oracle_flush.c.
 *
 * Failure modes: a broken promise ends the run.
 */
#include "oracle_internal.h"

#include "verdict.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void oracle_group(struct oracle *oracle, const uint32_t *ops, unsigned count)
{
    uint32_t group = ++oracle->groups;
    for (unsigned i = 0; i < count; i++) {
        KVS_ASSERT(ops[i] < oracle->attempt_count && oracle->attempts[ops[i]].group == 0);
        oracle->attempts[ops[i]].group = group;
        oracle->states[oracle->attempts[ops[i]].key].grouped = true;
        if (oracle_is_watched(oracle->attempts[ops[i]].key))
            story("key %u: of group %u", oracle->attempts[ops[i]].key, group);
    }
}

void oracle_group_found(struct oracle *oracle, uint32_t op)
{
    oracle->attempts[op].was_there = true;
}

void oracle_group_released(struct oracle *oracle, uint32_t op)
{
    oracle->attempts[op].released = ++oracle->moment;
}

void oracle_group_durable(struct oracle *oracle, uint32_t op)
{
    oracle->attempts[op].durable = true;
}

/* ---- readers --------------------------------------------------------------------------------------------------- */

uint64_t oracle_shown_value(const struct history_op *op)
{
    if (op->open)
        return 0;
    return op->kind == HISTORY_READ ? op->value : op->kind >= HISTORY_SWAP ? op->seen : 0;
}

/* `writers`: for each version of the key the group that wrote it, or 0. */
static void look_at_key(struct oracle *oracle, const struct key_state *state, uint32_t *writers)
{
    for (uint32_t id = state->first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct attempt *attempt = &oracle->attempts[id];
        uint64_t *seen = attempt->group == 0 ? NULL : &oracle->groups_seen[attempt->group - oracle->group_begin];
        if (attempt->group != 0 && attempt->op.value != 0)
            writers[attempt->op.value] = attempt->group;
        if (seen != NULL && !attempt->op.open && attempt->op.returned < *seen)
            *seen = attempt->op.returned;
    }
    for (uint32_t id = state->first; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
        const struct history_op *op = &oracle->attempts[id].op;
        uint32_t group = writers[oracle_shown_value(op)];
        if (group != 0 && op->returned < oracle->groups_seen[group - oracle->group_begin])
            oracle->groups_seen[group - oracle->group_begin] = op->returned;
    }
}

void oracle_look_at_groups(struct oracle *oracle)
{
    uint32_t count = oracle->groups + 1 - oracle->group_begin;
    oracle->groups_seen = realloc(oracle->groups_seen, (count + 1) * sizeof(*oracle->groups_seen));
    oracle->groups_unseen = realloc(oracle->groups_unseen, (count + 1) * sizeof(*oracle->groups_unseen));
    KVS_ASSERT(oracle->groups_seen != NULL && oracle->groups_unseen != NULL);
    for (uint32_t i = 0; i < count; i++) {
        oracle->groups_seen[i] = HISTORY_NEVER;
        oracle->groups_unseen[i] = 0;
    }
    for (unsigned key = 0; key < oracle->keys; key++) {
        const struct key_state *state = &oracle->states[key];
        if (!state->grouped)
            continue;
        uint32_t *writers = calloc(state->versions + 1, sizeof(*writers));
        KVS_ASSERT(writers != NULL);
        look_at_key(oracle, state, writers);
        free(writers);
        if (state->flushed)
            oracle_look_at_flushes(oracle, key);
    }
    oracle_judge_flushes(oracle);
}

void oracle_tighten(const struct oracle *oracle, const struct attempt *attempt, struct history_op *op)
{
    if (attempt->group == 0)
        return;
    uint64_t seen = oracle->groups_seen[attempt->group - oracle->group_begin];
    if (seen == HISTORY_NEVER || seen < op->invoked) /* seen before it began: its own history is impossible */
        return;
    op->open = false;
    op->returned = seen < op->returned ? seen : op->returned;
}

/* ---- crashes --------------------------------------------------------------------------------------------------- */

/* What is known of a group by now. */
struct remains {
    bool tainted;
    bool flush;
    bool durable;
    unsigned with, without; /* keys that show that it is there, that it is not */
    unsigned key_with, key_without;
};

/* Whether something else may have changed the key since the group gave it back. */
static bool is_overwritten(const struct oracle *oracle, const struct attempt *attempt)
{
    uint32_t id = oracle->states[attempt->key].before;
    for (; id != ORACLE_OP_NONE && attempt->released != HISTORY_NEVER; id = oracle->attempts[id].next) {
        const struct attempt *other = &oracle->attempts[id];
        bool changes = oracle_may_have_written(&other->op) || oracle_may_have_removed(&other->op);
        if (other != attempt && changes && !other->refused &&
            (other->op.open || other->op.returned > attempt->released))
            return true;
    }
    return false;
}

static void look_at_remains(const struct oracle *oracle, uint32_t id, struct remains *remains)
{
    const struct attempt *attempt = &oracle->attempts[id];
    const struct key_state *state = &oracle->states[attempt->key];
    int happened = attempt->flush ? oracle_flush_remains(oracle, id) : -1;
    remains->flush = attempt->flush;
    if (happened >= 0) {
        remains->with += happened == 1;
        remains->without += happened == 0;
        *(happened == 1 ? &remains->key_with : &remains->key_without) = attempt->key;
    }
    if (attempt->flush)
        return;
    remains->tainted = remains->tainted || state->tainted;
    remains->durable = remains->durable || attempt->durable;
    if (state->final_count != 1)
        return;
    uint64_t value = state->finals[0];
    bool same = value == attempt->op.value;
    if (same ? attempt->op.value == 0 && (!attempt->was_there || is_overwritten(oracle, attempt))
             : is_overwritten(oracle, attempt))
        return; /* it tells nothing */
    remains->with += same;
    remains->without += !same;
    *(same ? &remains->key_with : &remains->key_without) = attempt->key;
}

unsigned oracle_judge_groups(struct oracle *oracle, unsigned *flushes)
{
    unsigned judged = 0;
    *flushes = 0;
    uint32_t begin = oracle->group_begin_before, count = oracle->group_begin - begin;
    struct remains *all = calloc(count + 1, sizeof(*all));
    KVS_ASSERT(all != NULL);
    for (unsigned key = 0; key < oracle->keys; key++) {
        uint32_t id = oracle->states[key].before;
        for (; id != ORACLE_OP_NONE; id = oracle->attempts[id].next) {
            const struct attempt *attempt = &oracle->attempts[id];
            if (attempt->group != 0 && attempt->op.open && !attempt->refused)
                look_at_remains(oracle, id, &all[attempt->group - begin]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct remains *one = &all[i];
        judged += !one->tainted && one->with + one->without > 1;
        *flushes += one->flush && one->with + one->without > 1;
        if (!one->tainted && one->with > 0 && one->without > 0)
            broken("P1 durable or P2 no ghosts: %s %u is there in part: key %u has its change, key %u has not",
                   one->flush ? "flush" : "group", begin + i, one->key_with, one->key_without);
        if (!one->tainted && one->durable && one->without > 0)
            broken("P1 durable: group %u had been durable, and key %u does not have its change", begin + i,
                   one->key_without);
    }
    free(all);
    return judged;
}
