/*
 * settings.c - options that may change, and how shards come to know.
 *
 * A shard compares one number in each turn of its loop. What it does about a change takes microseconds, or, when an
 * idle time-out begins, as long as it takes to line up its connections.
 */
#include "node/settings.h"

#include "base/diag.h"
#include "node/access.h"
#include "node/node_internal.h"

#include <limits.h>

static enum setting_log_level log_level_of(enum diag_level level)
{
    static const enum setting_log_level levels[] = {
        [DIAG_ERROR] = LOG_NOTHING, [DIAG_WARN] = LOG_WARNING, [DIAG_INFO] = LOG_NOTICE, [DIAG_DEBUG] = LOG_DEBUG};
    return levels[level];
}

static enum diag_level diag_level_of(int64_t level)
{
    switch ((enum setting_log_level)level) {
    case LOG_DEBUG:
        return DIAG_DEBUG;
    case LOG_WARNING:
        return DIAG_WARN;
    case LOG_NOTHING:
        return DIAG_ERROR;
    case LOG_VERBOSE:
    case LOG_NOTICE:
        break;
    }
    return DIAG_INFO;
}

void settings_init(struct settings *settings, const struct config *config, const struct net_options *net)
{
    const int64_t values[SETTING_COUNT] = {
        [SETTING_TIMEOUT_S] = config->idle_timeout_s,
        [SETTING_KEEPALIVE_S] = config->keepalive_s,
        [SETTING_CLIENTS_MAX] = config->max_clients,
        [SETTING_OUTPUT_BYTES_MAX] = (int64_t)net->output_bytes_max,
        [SETTING_SEND_TIMEOUT_S] = net->send_timeout_ms / 1000,
        [SETTING_TURN] = net->turn_requests_max,
        [SETTING_RELAXED] = config->relaxed,
        [SETTING_LOG_LEVEL] = log_level_of(config->log_level),
        [SETTING_SLOWER_US] = 10000,
        [SETTING_SLOWLOG_MAX] = 128,
        [SETTING_LATENCY_TRACKING] = true,
    };
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        atomic_store_explicit(&settings->values[i], values[i], memory_order_relaxed);
    atomic_store_explicit(&settings->version, 1, memory_order_relaxed);
}

void settings_set(struct settings *settings, enum setting which, int64_t value)
{
    atomic_store_explicit(&settings->values[which], value, memory_order_relaxed);
}

/* Runs of commands are timed as a whole; for a low bound of the slow log each has to be. */
static void set_watch(struct node *node)
{
    const int64_t slower_us = settings_get(&node->settings, SETTING_SLOWER_US);
    const bool each = slower_us >= 0 && slower_us < METER_RUN_US_MAX;
    if (each)
        atomic_fetch_or(&node->watch, ACCESS_WATCH_EACH);
    else
        atomic_fetch_and(&node->watch, ~ACCESS_WATCH_EACH);
}

void settings_changed(struct shard *shard)
{
    struct node *node = shard->node;
    set_watch(node);
    diag_set_level(diag_level_of(settings_get(&node->settings, SETTING_LOG_LEVEL)));
    atomic_fetch_add(&node->settings.version, 1);
    settings_turn(shard);
    node_wake_shards(shard);
}

void settings_turn(struct shard *shard)
{
    const struct settings *settings = &shard->node->settings;
    const unsigned version = atomic_load_explicit(&settings->version, memory_order_acquire);
    if (version == shard->settings_version)
        return;
    shard->settings_version = version;
    const int64_t slower_us = settings_get(settings, SETTING_SLOWER_US);
    shard->slower_ns = slower_us < 0 || slower_us > INT64_MAX / 1000 ? UINT64_MAX : (uint64_t)slower_us * 1000;
    shard->meter.histograms = settings_get(settings, SETTING_LATENCY_TRACKING) != 0;
    const struct net_limits limits = {
        .connections_max = (unsigned)settings_get(settings, SETTING_CLIENTS_MAX),
        .output_bytes_max = (uint64_t)settings_get(settings, SETTING_OUTPUT_BYTES_MAX),
        .turn_requests_max = (unsigned)settings_get(settings, SETTING_TURN),
        .send_timeout_ms = 1000 * (uint32_t)settings_get(settings, SETTING_SEND_TIMEOUT_S),
        .idle_timeout_s = (uint32_t)settings_get(settings, SETTING_TIMEOUT_S),
        .keepalive_s = (uint32_t)settings_get(settings, SETTING_KEEPALIVE_S),
    };
    net_set_limits(shard->net, &limits);
}
