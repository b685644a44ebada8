/*
 * host.c - one process's life on the simulated machine.
 *
 * Happy path: rings, shards; each ring gets a loop body that turns its shard as the real thread's loop does; the
 * machine steps until the supervisor says that clients are answered, the store is opened in one piece between two
 * steps, and the machine steps on until the node serves.
 *
 * Failure modes: a store that cannot be opened, or shards that cannot start, end the boot; whatever was opened is
 * closed in the order of a real process's end.
 */
#include "host.h"

#include "verdict.h"

#include "base/assert.h"
#include "base/diag.h"
#include "engine/store.h"
#include "node/flush.h"

#include <stdio.h>
#include <string.h>

/* ---- threads that run at the same time ------------------------------------------------------------------------- */

/* The only state that a wrapped function can reach. */
static struct {
    const struct host_shard *on_stage; /* whose turn it is; NULL: nobody's who could be interrupted */
    unsigned every;
    uint64_t countdown; /* steps until the next interruption */
} preemption;

bool __real_index_next(struct index_cursor *cursor, struct index_entry *entry);
bool __wrap_index_next(struct index_cursor *cursor, struct index_entry *entry);

static void shard_body(void *context);
static void stage_body(void *context);

/* The background takes the memory of the oldest image that it may take, as for a log that needs a segment. */
static void evict_one(struct host *host)
{
    struct image_pool *images = &container_of(host->node->engine, struct store, base)->keeper.images;
    for (struct list *node = images->resident.next; node != &images->resident; node = node->next) {
        struct segment *segment = container_of(node, struct segment, image_link);
        if (segment_state(segment) != SEGMENT_SEALED)
            continue;
        image_detach(images, segment);
        return;
    }
}

/* Some other thread of the node has a turn: most of what they share is met on walks through an index, and what a walk
 * has found may be gone at its next step. */
static void interrupt(void)
{
    const struct host_shard *self = preemption.on_stage;
    struct host *host = self->host;
    unsigned count = node_thread_count(host->node);
    unsigned id = sim_random(2) == 0 ? count - 1 : (unsigned)sim_random(count); /* the background is the last */
    struct host_shard *other = &host->shards[id];
    if (other == self || !other->running || node_thread_ring(host->node, id) == NULL)
        return;
    preemption.on_stage = NULL; /* one at a time */
    shard_body(other);
    if (id == count - 1 && other->running && sim_random(4) == 0)
        evict_one(host);
    preemption.on_stage = self;
}

bool __wrap_index_next(struct index_cursor *cursor, struct index_entry *entry)
{
    if (preemption.on_stage != NULL && preemption.every > 0 && --preemption.countdown == 0) {
        preemption.countdown = 1 + sim_random(2 * (uint64_t)preemption.every);
        interrupt();
    }
    return __real_index_next(cursor, entry);
}

/* ---- threads that take their time ------------------------------------------------------------------------------ */

#define MS 1000000u

/* Of the shards: no step of a flush before. */
static struct flush_pause {
    bool chosen;
    uint64_t until_ns;
} flush_pauses[HOST_SHARDS_MAX];

void __real_flush_turn(struct shard *shard);
void __wrap_flush_turn(struct shard *shard);

/* Between the steps of a flush on one shard and on the next there may be time for much else. */
void __wrap_flush_turn(struct shard *shard)
{
    static const uint64_t most_ms[] = {1, 5, 100};
    struct flush_pause *pause = &flush_pauses[shard->id];
    uint64_t now_ns = ring_now_ns(shard->ring);
    bool may_wait = shard->flush_part != NULL && flush_wait_ns(shard) != 0;
    if (may_wait && !pause->chosen) {
        uint64_t chance = sim_random(16);
        pause->chosen = true;
        pause->until_ns = chance < 9 ? 0 : now_ns + sim_random(most_ms[chance < 12 ? 0 : chance < 15 ? 1 : 2] * MS);
    }
    if (may_wait && now_ns < pause->until_ns)
        return;
    pause->chosen = false;
    __real_flush_turn(shard);
}

static bool look_aside(const struct host_shard *shard)
{
    const struct host *host = shard->host;
    return host->aside != NULL && shard->id < host->config.threads && host->aside(host->aside_context, shard->id);
}

static void shard_body(void *context)
{
    struct host_shard *shard = context;
    struct node *node = shard->host->node;
    struct ring *ring = node_thread_ring(node, shard->id);
    if (!shard->running) {
        ring_turn(ring, -1);
        return;
    }
    (void)look_aside(shard);
    shard->running = node_thread_turn(node, shard->id, !node_thread_busy(node, shard->id));
    bool again = shard->running && look_aside(shard);
    if (again || node_thread_busy(node, shard->id)) /* the time-out it gave is out of date: run it again at once */
        sim_ring_body(ring, stage_body, shard);
}

static void stage_body(void *context)
{
    preemption.on_stage = context;
    shard_body(context);
    preemption.on_stage = NULL;
}

static void supervisor_body(void *context)
{
    struct host *host = context;
    enum node_status before = host->status;
    ring_turn(host->ring, before == NODE_SERVING ? -1 : 5000000);
    host->status = node_supervise(host->node);
    if (host->status != before)
        sim_ring_body(host->ring, supervisor_body, host);
}

/* The least limit that a node of so many shards takes. */
static uint64_t segments_least(unsigned threads)
{
    return 3 * (uint64_t)threads + KEEPER_RESERVE_FILES + 2;
}

static struct config config_of(const struct host_setting *setting)
{
    struct config config = {
        .address_count = 1,
        .data_dir = "/data",
        .threads = setting->threads,
        .segment_bytes = setting->segment_bytes,
        /* The store gets three quarters of it, and of those images get three. */
        .memory_bytes = setting->threads * setting->memory_segments * setting->segment_bytes * 64 / 33 + 65536,
        .disk_bytes_max = setting->disk_segments == 0
                              ? 0
                              : (segments_least(setting->threads) + setting->disk_segments) * setting->segment_bytes,
        .space_percent = 150,
        .engine = "kvs",
        .relaxed_interval_ms = 100,
        .max_clients = 64,
        .protected_mode = true,
        .log_level = setting->talkative ? DIAG_DEBUG : DIAG_ERROR,
    };
    KVS_ASSERT(ring_addr_parse_tcp("127.0.0.1:0", &config.addresses[0]) == KVS_ERR_OK);
    return config;
}

/* True when every shard's thread would have ended. */
static bool shards_ended(const struct host *host)
{
    for (unsigned i = 0; i < node_thread_count(host->node); i++) {
        if (host->shards[i].running && node_thread_ring(host->node, i) != NULL)
            return false;
    }
    return true;
}

bool host_stopped(const struct host *host)
{
    return (host->status == NODE_STOPPED || host->status == NODE_BROKEN) && shards_ended(host);
}

static bool open_node(struct host *host)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.entries = 64};
    KVS_ASSERT(ring_open(&host->ring, &options, message) == KVS_ERR_OK);
    host->error = node_create(&host->node, &host->config, host->ring, host->message);
    if (host->error != KVS_ERR_OK) {
        ring_close(host->ring);
        return false;
    }
    for (unsigned i = 0; i < node_thread_count(host->node); i++) {
        host->shards[i] = (struct host_shard){.host = host, .id = i};
        node_thread_open(host->node, i);
        /* One that could not be opened has no ring and never turns. */
        host->shards[i].running = node_thread_ring(host->node, i) != NULL;
        if (host->shards[i].running)
            sim_ring_body(node_thread_ring(host->node, i), stage_body, &host->shards[i]);
    }
    sim_ring_body(host->ring, supervisor_body, host);
    return true;
}

/* Steps until the node has left `status`, or has given up. */
static void leave(struct host *host, enum node_status status, uint64_t steps_max)
{
    for (uint64_t step = 0; host->status <= status && !host_stopped(host); step++) {
        if (step == steps_max || !sim_step())
            broken("liveness: the node neither serves nor gives up (status %d)", (int)host->status);
    }
}

bool host_boot(struct host *host, const struct host_setting *setting, uint64_t steps_max)
{
    *host = (struct host){.config = config_of(setting), .status = NODE_STARTING};
    diag_set_level(host->config.log_level);
    preemption.every = setting->preempt_every;
    preemption.countdown = 1 + preemption.every;
    memset(flush_pauses, 0, sizeof(flush_pauses));
    if (!open_node(host))
        return false;
    leave(host, NODE_STARTING, steps_max);
    if (host->status == NODE_LOADING) {
        node_load(host->node, host->ring, NULL);
        sim_ring_body(host->ring, supervisor_body, host); /* the load has turned its ring: it looks at once */
    }
    leave(host, NODE_LOADING, steps_max);
    if (host->status == NODE_SERVING)
        return true;
    for (uint64_t step = 0; !host_stopped(host); step++) {
        if (step == steps_max || !sim_step())
            broken("liveness: a node that cannot start does not come to its end");
    }
    snprintf(host->message, sizeof(host->message), "%s", node_message(host->node));
    host->error = node_error(host->node);
    host_free(host);
    return false;
}

void host_wake(struct host *host, unsigned shard)
{
    if (host->shards[shard].running)
        sim_ring_body(node_thread_ring(host->node, shard), stage_body, &host->shards[shard]);
}

void host_stop(struct host *host, bool at_once)
{
    node_stop(host->node, at_once);
    host->status = node_supervise(host->node);
    sim_ring_body(host->ring, supervisor_body, host); /* it slept: from now on it looks on time */
}

void host_free(struct host *host)
{
    for (unsigned i = 0; i < node_thread_count(host->node); i++)
        node_thread_close(host->node, i);
    node_destroy(host->node);
    host->node = NULL;
    ring_close(host->ring);
}

void host_abandon(struct host *host)
{
    for (unsigned i = 0; i < node_thread_count(host->node); i++)
        node_thread_abandon(host->node, i);
    node_destroy(host->node);
    host->node = NULL;
}

static uint64_t segments_of(const struct host *host, uint64_t bytes)
{
    return (bytes + host->config.segment_bytes - 1) / host->config.segment_bytes;
}

/* Records do not fill the last of a segment. */
int64_t host_segments_left(const struct host *host)
{
    struct engine_stats stats;
    engine_stats(host->node->engine, &stats);
    uint64_t most = segments_of(host, host->config.disk_bytes_max);
    uint64_t taken = segments_of(host, stats.large_value_bytes) + segments_of(host, stats.live_bytes * 6 / 5);
    return (int64_t)(most - segments_least(host->config.threads)) - (int64_t)taken;
}

bool host_reserves_whole(const struct host *host)
{
    struct engine_stats stats;
    engine_stats(host->node->engine, &stats);
    uint64_t most = segments_of(host, host->config.disk_bytes_max);
    uint64_t wanted = KEEPER_RESERVE_FILES + 2 * (uint64_t)host->config.threads + 2;
    return most + stats.segments_free >= stats.segments + segments_of(host, stats.large_value_bytes) + wanted;
}

struct ring_addr host_addr(const struct host *host)
{
    return host->node->addresses[0];
}
