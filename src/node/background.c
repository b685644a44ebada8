/*
 * background.c - the loop of the background thread.
 *
 * It has no connections, so it counts as drained as soon as it has attached itself to the engine, or need not any more;
 * it stops together with the shards, which go on turning until it has.
 *
 * Failure: no ring: SHARD_BROKEN. What cannot be started of the engine's part, or of compaction, is said in the
 * message, and the node stops again.
 */
#include "node/background.h"

#include "base/assert.h"
#include "node/node_internal.h"

#include <stdio.h>

static void set_state(struct background *background, enum shard_state state)
{
    atomic_store(&background->state, state);
    if (background->ring != NULL)
        ring_wake(background->ring, background->node->ring);
}

static enum shard_state get_state(const struct background *background)
{
    return atomic_load_explicit(&background->state, memory_order_relaxed);
}

static bool broken(struct background *background, const char *what, const char *why)
{
    snprintf(background->message, sizeof(background->message), "background thread: %s: %s", what, why);
    return false;
}

static bool start_engine(struct background *background)
{
    struct node *node = background->node;
    enum kvs_err err = engine_background_start(node->engine, background->ring, &background->engine);
    if (err != KVS_ERR_OK) {
        background->engine = NULL;
        return broken(background, "engine", kvs_err_text(err));
    }
    /* Shards that were there earlier had nobody to wake. */
    engine_background_turn(background->engine);
    if (strcmp(engine_kind(node->engine), "kvs") != 0)
        return true;
    struct compact_options compact = {.space_percent = node->config.space_percent};
    err = compact_open(&background->compactor, background->engine, background->ring, &compact);
    return err == KVS_ERR_OK || broken(background, "compaction", kvs_err_text(err));
}

void background_abandon(struct background *background)
{
    background->ring = NULL;
    if (background->compactor != NULL)
        compact_close(background->compactor);
    background->compactor = NULL;
    background->engine = NULL;
}

void background_close(struct background *background)
{
    if (background->ring != NULL)
        ring_close(background->ring);
    background_abandon(background);
}

/* Takes one of the steps that the node's phase asks for, if there is one to take; false at the end. */
static bool take_step(struct background *background)
{
    enum shard_phase phase = node_phase(background->node);
    switch (get_state(background)) {
    case SHARD_LOADING:
        if (phase == SHARD_LOAD)
            break;
        if (background->node->attach)
            (void)start_engine(background);
        set_state(background, SHARD_DRAINED);
        break;
    case SHARD_DRAINED:
        if (phase < SHARD_STOP)
            break;
        if (background->compactor != NULL)
            compact_stop(background->compactor);
        set_state(background, SHARD_STOPPING);
        break;
    case SHARD_STOPPING:
        if (background->compactor != NULL && !compact_stopped(background->compactor))
            break;
        if (background->engine != NULL)
            engine_background_stop(background->engine);
        if (background->engine == NULL || engine_background_stopped(background->engine))
            set_state(background, SHARD_STOPPED);
        break;
    default:
        return phase < SHARD_EXIT;
    }
    return true;
}

/* As follow_phase of a shard. */
static bool follow_phase(struct background *background)
{
    for (;;) {
        enum shard_state before = get_state(background);
        bool goes_on = take_step(background);
        if (!goes_on || get_state(background) == before)
            return goes_on;
    }
}

void background_open(struct background *background)
{
    struct ring_options options = {.entries = 128};
    char message[RING_MESSAGE_BYTES];
    if (ring_open(&background->ring, &options, message) == KVS_ERR_OK) {
        set_state(background, SHARD_LOADING);
        /* The first turn may sleep, and whoever has changed the phase by now has woken nobody. */
        (void)follow_phase(background);
        return;
    }
    (void)broken(background, "io_uring", message);
    set_state(background, SHARD_BROKEN);
}

static int64_t wait_ns(const struct background *background)
{
    int64_t wait = background->engine != NULL ? engine_background_timeout_ns(background->engine) : -1;
    if (background->compactor != NULL)
        wait = ring_sooner(wait, compact_timeout_ns(background->compactor));
    enum shard_state state = get_state(background);
    return state == SHARD_LOADING || state == SHARD_DRAINED ? wait : ring_sooner(wait, SHARD_TRANSITION_WAIT_NS);
}

bool background_turn(struct background *background, bool may_sleep)
{
    if (get_state(background) == SHARD_BROKEN)
        return false;
    enum shard_state state = get_state(background);
    int64_t wait = wait_ns(background);
    unsigned events = ring_turn(background->ring, may_sleep ? wait : 0);
    if (background->compactor != NULL)
        compact_turn(background->compactor);
    if (background->engine != NULL)
        engine_background_turn(background->engine);
    bool goes_on = follow_phase(background);
    background->busy = events > 0 || get_state(background) != state || wait_ns(background) != wait;
    return goes_on;
}
