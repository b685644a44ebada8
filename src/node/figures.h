/*
 * figures.h - the figures of all shards together, since the start or since CONFIG RESETSTAT.
 *
 * Shards never set their figures back: what they were at the reset is remembered, and left out of the sums. So a reset
 * is complete when its reply goes out. Gauges (connections, memory) are as they are.
 *
 * Any thread; figures of other shards are a moment old.
 */
#ifndef KVS_NODE_FIGURES_H
#define KVS_NODE_FIGURES_H

#include "engine/engine.h"
#include "net/net.h"
#include "node/shard.h"

struct node;
struct figures_base;

struct figures_base *figures_create(unsigned command_count); /* NULL: no memory */
void figures_destroy(struct figures_base *base);

/* The sum over all shards. */
struct figures {
    struct net_stats net;
    struct shard_counters shards;
    uint64_t clients_refused;
    uint64_t expired_keys;
};
void figures_sum(const struct node *node, const struct engine_stats *engine, struct figures *out);
void figures_reset(struct node *node);

/* One command or subcommand, by its number (acl_number). */
void figures_command(const struct node *node, unsigned number, struct meter_command *out);
/* Error replies by their codes; returns how many codes there are. */
unsigned figures_errors(const struct node *node, struct meter_error out[METER_ERRORS_MAX]);

/* The first clients may ask before all shards have been opened. */
bool figures_has_shard(const struct shard *shard);

#endif
