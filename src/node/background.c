/*
 * background.c - the loop of the background thread.
 *
 * It has no connections, so it counts as drained from the beginning; it stops together with the shards, which go on
 * turning until it has.
 */
#include "node/background.h"

#include "base/assert.h"
#include "node/node_internal.h"

#include <stdio.h>

static void set_state(struct background *background, enum shard_state state)
{
    atomic_store_explicit(&background->state, state, memory_order_release);
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

static bool open_parts(struct background *background)
{
    struct node *node = background->node;
    struct ring_options options = {.entries = 128};
    char message[RING_MESSAGE_BYTES];
    if (ring_open(&background->ring, &options, message) != KVS_ERR_OK)
        return broken(background, "io_uring", message);
    enum kvs_err err = engine_background_start(node->engine, background->ring, &background->engine);
    if (err != KVS_ERR_OK)
        return broken(background, "engine", kvs_err_text(err));
    if (strcmp(engine_kind(node->engine), "kvs") != 0)
        return true;
    struct compact_options compact = {.space_percent = node->config.space_percent};
    err = compact_open(&background->compactor, background->engine, background->ring, &compact);
    return err == KVS_ERR_OK || broken(background, "compaction", kvs_err_text(err));
}

void background_open(struct background *background)
{
    if (open_parts(background)) {
        /* Shards that were there earlier had nobody to wake. */
        engine_background_turn(background->engine);
        set_state(background, SHARD_DRAINED);
        return;
    }
    background_close(background);
    atomic_store_explicit(&background->state, SHARD_BROKEN, memory_order_release);
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

/* False when the node's phase says that it is over. */
static bool follow_phase(struct background *background)
{
    enum shard_phase phase = node_phase(background->node);
    switch (get_state(background)) {
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
        engine_background_stop(background->engine);
        if (engine_background_stopped(background->engine))
            set_state(background, SHARD_STOPPED);
        break;
    default:
        return phase < SHARD_EXIT;
    }
    return true;
}

static int64_t wait_ns(const struct background *background)
{
    int64_t wait = engine_background_timeout_ns(background->engine);
    if (background->compactor != NULL)
        wait = shard_sooner(wait, compact_timeout_ns(background->compactor));
    return get_state(background) == SHARD_DRAINED ? wait : shard_sooner(wait, SHARD_TRANSITION_WAIT_NS);
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
    engine_background_turn(background->engine);
    bool goes_on = follow_phase(background);
    background->busy = events > 0 || get_state(background) != state || wait_ns(background) != wait;
    return goes_on;
}
