/*
 * figures.c - sums over shards.
 *
 * Under a lock, because a reset changes what is left out. It is held for as long as summing takes: microseconds, and
 * nobody needs it to carry out a request.
 */
#include "node/figures.h"

#include "node/node_internal.h"

#include <pthread.h>
#include <stdlib.h>

struct figures_base {
    pthread_mutex_t lock;
    struct figures sums;
    unsigned error_count;
    struct meter_error errors[METER_ERRORS_MAX];
    unsigned command_count;
    struct meter_command commands[];
};

struct figures_base *figures_create(unsigned command_count)
{
    struct figures_base *base = calloc(1, sizeof(*base) + command_count * sizeof(base->commands[0]));
    if (base == NULL)
        return NULL;
    pthread_mutex_init(&base->lock, NULL);
    base->command_count = command_count;
    return base;
}

void figures_destroy(struct figures_base *base)
{
    if (base == NULL)
        return;
    pthread_mutex_destroy(&base->lock);
    free(base);
}

bool figures_has_shard(const struct shard *shard)
{
    enum shard_state state = atomic_load(&shard->state);
    return state != SHARD_OPENING && state != SHARD_BROKEN;
}

static void sum_all(const struct node *node, const struct engine_stats *engine, struct figures *out)
{
    *out = (struct figures){
        .clients_refused = atomic_load_explicit(&node->clients_refused, memory_order_relaxed),
        .expired_keys = engine->expired_keys,
    };
    for (unsigned i = 0; i < node->shard_count; i++) {
        const struct shard *shard = &node->shards[i];
        if (!figures_has_shard(shard))
            continue;
        struct net_stats net;
        net_stats(shard->net, &net);
        out->net.connections += net.connections;
        out->net.connections_accepted += net.connections_accepted;
        out->net.connections_refused += net.connections_refused;
        out->net.connections_dropped += net.connections_dropped;
        out->net.requests += net.requests;
        out->net.bytes_received += net.bytes_received;
        out->net.bytes_sent += net.bytes_sent;
        out->net.memory_bytes += net.memory_bytes;
        out->net.memory_peak_bytes += net.memory_peak_bytes;
        out->net.connections_waited += net.connections_waited;
        out->shards.hits += shard_counter(&shard->counters.hits);
        out->shards.misses += shard_counter(&shard->counters.misses);
        out->shards.sent += shard_counter(&shard->counters.sent);
        out->shards.received += shard_counter(&shard->counters.received);
        out->shards.errors += shard_counter(&shard->counters.errors);
    }
}

void figures_sum(const struct node *node, const struct engine_stats *engine, struct figures *out)
{
    struct figures_base *base = node->figures;
    pthread_mutex_lock(&base->lock);
    const struct figures *before = &base->sums;
    sum_all(node, engine, out);
    out->clients_refused -= before->clients_refused;
    out->expired_keys -= before->expired_keys;
    out->net.connections_accepted -= before->net.connections_accepted;
    out->net.connections_refused -= before->net.connections_refused;
    out->net.connections_dropped -= before->net.connections_dropped;
    out->net.connections_waited -= before->net.connections_waited;
    out->net.requests -= before->net.requests;
    out->net.bytes_received -= before->net.bytes_received;
    out->net.bytes_sent -= before->net.bytes_sent;
    out->shards.hits -= before->shards.hits;
    out->shards.misses -= before->shards.misses;
    out->shards.sent -= before->shards.sent;
    out->shards.received -= before->shards.received;
    out->shards.errors -= before->shards.errors;
    pthread_mutex_unlock(&base->lock);
}

static void sum_command(const struct node *node, unsigned number, struct meter_command *out)
{
    *out = (struct meter_command){0};
    for (unsigned i = 0; i < node->shard_count; i++)
        meter_add_command(&node->shards[i].meter, number, out);
}

void figures_command(const struct node *node, unsigned number, struct meter_command *out)
{
    struct figures_base *base = node->figures;
    pthread_mutex_lock(&base->lock);
    sum_command(node, number, out);
    meter_subtract_command(out, &base->commands[number]);
    pthread_mutex_unlock(&base->lock);
}

static void add_error(struct meter_error out[METER_ERRORS_MAX], unsigned *codes, const char *code, uint64_t count)
{
    unsigned at = 0;
    while (at < *codes && strcmp(out[at].code, code) != 0)
        at++;
    if (at == METER_ERRORS_MAX)
        return;
    if (at == *codes) {
        memcpy(out[at].code, code, METER_ERROR_BYTES);
        out[at].count = 0;
        (*codes)++;
    }
    out[at].count += count;
}

static unsigned sum_errors(const struct node *node, struct meter_error out[METER_ERRORS_MAX])
{
    unsigned codes = 0;
    for (unsigned i = 0; i < node->shard_count; i++) {
        const struct meter *meter = &node->shards[i].meter;
        const unsigned known = meter_error_codes(meter);
        for (unsigned j = 0; j < known; j++) {
            const char *code;
            const uint64_t count = meter_error_count(meter, j, &code);
            add_error(out, &codes, code, count);
        }
    }
    return codes;
}

unsigned figures_errors(const struct node *node, struct meter_error out[METER_ERRORS_MAX])
{
    struct figures_base *base = node->figures;
    pthread_mutex_lock(&base->lock);
    unsigned codes = sum_errors(node, out), left = 0;
    for (unsigned i = 0; i < base->error_count; i++)
        add_error(out, &codes, base->errors[i].code, 0 - base->errors[i].count);
    for (unsigned i = 0; i < codes; i++) {
        if (out[i].count > 0)
            out[left++] = out[i];
    }
    pthread_mutex_unlock(&base->lock);
    return left;
}

void figures_reset(struct node *node)
{
    struct figures_base *base = node->figures;
    struct engine_stats engine = {0};
    if (node_is_open(node))
        engine_stats(node->engine, &engine);
    pthread_mutex_lock(&base->lock);
    sum_all(node, &engine, &base->sums);
    for (unsigned i = 0; i < base->command_count; i++)
        sum_command(node, i, &base->commands[i]);
    base->error_count = sum_errors(node, base->errors);
    pthread_mutex_unlock(&base->lock);
}
