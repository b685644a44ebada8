/*
 * timing.c - what a command has cost, once it has been carried out.
 *
 * Happy path: a look at the clock, some counters. What took too long is noted in the slow log, with the beginnings of
 * its arguments: they are still there, unless the request was so long that its memory has been given away with it; of
 * such a request they are copied before.
 */
#include "node/timing.h"

#include "base/assert.h"
#include "node/node_internal.h"
#include "node/redact.h"

#define NS_PER_US 1000u

struct hidden {
    const struct call *call;
    const struct subcommand *sub;
};

static bool hides(const void *context, unsigned at)
{
    const struct hidden *hidden = context;
    const struct call *call = hidden->call;
    return redact_hides(call->command, hidden->sub, call->args, call->count, at);
}

static void take(struct timing *timing, const struct call *call)
{
    const struct hidden hidden = {.call = call, .sub = timing->sub};
    slowlog_take(&timing->shown, call->args, call->count, hides, &hidden);
}

void timing_begin(struct timing *timing, struct call *call, const struct subcommand *sub)
{
    struct shard *shard = call->shard;
    if (shard->meter.run_size != 0)
        meter_end_run(&shard->meter, ring_now_ns(shard->ring));
    timing->errors = shard->counters.errors;
    timing->sub = sub;
    timing->taken = false;
    for (unsigned i = 1; i < call->count && i < 4 && !timing->taken; i++)
        timing->taken = call->args[i].size > METER_RUN_VALUE_BYTES;
    if (timing->taken)
        take(timing, call);
}

static __attribute__((noinline)) void note_slow(struct timing *timing, struct call *call, uint64_t ns)
{
    struct shard *shard = call->shard;
    struct node *node = shard->node;
    const int64_t count_max = settings_get(&node->settings, SETTING_SLOWLOG_MAX);
    char peer[CLIENT_ADDRESS_BYTES], local[CLIENT_ADDRESS_BYTES];
    bool is_unix, peer_unix;
    if (count_max <= 0)
        return;
    if (!timing->taken)
        take(timing, call);
    (void)client_address(call->conn, true, local, &is_unix);
    (void)client_address(call->conn, false, peer, &peer_unix);
    slowlog_add(node->slowlog, &timing->shown, ring_wall_ms(shard->ring) / 1000, ns / NS_PER_US,
                slice_text(is_unix ? local : peer), client_text(call->client, CLIENT_NAME), (size_t)count_max);
}

void timing_end(struct timing *timing, struct call *call, unsigned number)
{
    struct shard *shard = call->shard;
    const bool failed = shard->counters.errors != timing->errors;
    const uint64_t ns = meter_command(&shard->meter, number, ring_now_ns(shard->ring), failed);
    if (__builtin_expect(ns >= shard->slower_ns, 0))
        note_slow(timing, call, ns);
}
