/*
 * settings.h - the options of a node that may change while it runs: CONFIG SET.
 *
 * Numbers, each by itself: any thread reads one, without a lock. They begin as the command line says. Whoever changes
 * some says so with settings_changed, and every shard takes over what it keeps copies of in its next turn, which comes
 * soon.
 */
#ifndef KVS_NODE_SETTINGS_H
#define KVS_NODE_SETTINGS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct config;
struct net_options;
struct node;
struct shard;

enum setting {
    SETTING_TIMEOUT_S,
    SETTING_KEEPALIVE_S,
    SETTING_CLIENTS_MAX,
    SETTING_OUTPUT_BYTES_MAX, /* unsent replies of a connection beyond which it is not read from */
    SETTING_SEND_TIMEOUT_S,   /* a connection that takes none of its replies for so long is ended */
    SETTING_TURN,             /* requests of a connection in one turn of its shard's loop */
    SETTING_RELAXED,          /* what connections begin with */
    SETTING_LOG_LEVEL,        /* enum setting_log_level */
    SETTING_SLOWER_US,        /* SLOWLOG: what took at least so long is in it; negative: nothing is */
    SETTING_SLOWLOG_MAX,
    SETTING_LATENCY_TRACKING,
    SETTING_COUNT,
};

/* Redis's names for them: debug, verbose, notice, warning, nothing. */
enum setting_log_level { LOG_DEBUG, LOG_VERBOSE, LOG_NOTICE, LOG_WARNING, LOG_NOTHING };

#define SETTING_SLOWLOG_ENTRIES_MAX 4096

struct settings {
    _Atomic int64_t values[SETTING_COUNT];
    _Atomic unsigned version;
};

void settings_init(struct settings *settings, const struct config *config, const struct net_options *net);

static inline int64_t settings_get(const struct settings *settings, enum setting which)
{
    return atomic_load_explicit(&settings->values[which], memory_order_relaxed);
}

void settings_set(struct settings *settings, enum setting which, int64_t value);
/* After some have been set, on a shard's thread: all shards look. */
void settings_changed(struct shard *shard);
/* Once per turn, and when a shard is opened: takes over what has changed. */
void settings_turn(struct shard *shard);

#endif
