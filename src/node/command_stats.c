/*
 * command_stats.c - KVS.STATS: the figures of each shard, for programs.
 *
 * An array with a map for each shard; every value is an integer. They count from the start: CONFIG RESETSTAT does not
 * change them, so that a program that looks now and then can take differences.
 */
#include "node/command.h"
#include "node/figures.h"
#include "node/node_internal.h"

static void write_shard(const struct shard *shard, bool open, int version, struct text *out)
{
    struct net_stats net;
    net_stats(shard->net, &net);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"shard", shard->id},
        {"connections", net.connections},
        {"connections_accepted", net.connections_accepted},
        {"connections_refused", net.connections_refused},
        {"connections_dropped", net.connections_dropped},
        {"connections_waited", net.connections_waited},
        {"requests", net.requests},
        {"bytes_received", net.bytes_received},
        {"bytes_sent", net.bytes_sent},
        {"memory_bytes", net.memory_bytes},
        {"memory_peak_bytes", net.memory_peak_bytes},
        {"hits", shard_counter(&shard->counters.hits)},
        {"misses", shard_counter(&shard->counters.misses)},
        {"sent", shard_counter(&shard->counters.sent)},
        {"received", shard_counter(&shard->counters.received)},
        {"errors", shard_counter(&shard->counters.errors)},
        {"durable_lsn", open ? engine_durable(shard->engine) : 0},
        {"failed", open && engine_failed(shard->engine)},
    };
    text_map(out, ARRAY_COUNT(fields), version);
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        text_bulk(out, fields[i].name);
        text_integer(out, (int64_t)fields[i].value);
    }
}

void command_stats(struct call *call)
{
    const struct node *node = call->shard->node;
    struct text shards = {0}, text = {0};
    size_t count = 0;
    for (unsigned i = 0; i < node->shard_count; i++) {
        if (!figures_has_shard(&node->shards[i]))
            continue;
        write_shard(&node->shards[i], node_is_open(node), call->client->resp_version, &shards);
        count++;
    }
    text_array(&text, count);
    text_add(&text, slice_make(shards.data, shards.size));
    text.failed |= shards.failed;
    text_deinit(&shards);
    call_text(call, &text);
}
