/*
 * node.c - the life of a node.
 *
 *   phase of the node     state every thread reaches     next
 *   LOAD                  LOADING: tells clients to wait when node_load has ended
 *   PREPARE               READY: can acknowledge writes
 *   SERVE                 SERVING                        until node_stop
 *   DRAIN, or ABORT       DRAINED: no connection left    (shards still answer each other)
 *   STOP                  STOPPED: all is durable
 *   EXIT                  its loop ends
 *
 * Only node_supervise moves the phase, when every thread has come far enough. Failures while starting lead the same way
 * down; the message stays. Connections that do not end within NODE_DRAIN_NS are dropped; at once, if the node never
 * served: they have been told nothing that anybody could miss. Threads that were never attached to an engine take the
 * steps of its stop without it.
 */
#include "node/node.h"

#include "base/assert.h"
#include "base/diag.h"
#include "node/acl_store.h"
#include "node/command.h"
#include "node/figures.h"
#include "node/node_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Bounds of one shard's operations under way, and of one connection's. */
#define OPS_MIN             2048u
#define OPS_MAX             (1024u * 1024)
#define REQUESTS_MAX        1024u
#define OUTPUT_BYTES_MIN    (64ull << 10)
#define OUTPUT_BYTES_MAX    (1ull << 20)
#define OUTPUT_KEPT_MAX     (8ull << 20)
#define SEND_TIMEOUT_S      30u
#define TURN_REQUESTS_MAX   2048u
#define BUDGET_BYTES_MIN    (4ull << 20)
#define INLINE_BYTES_MAX    65536u
#define LARGE_REQUEST_BYTES (256ull << 10)
#define CLIENTS_BYTES_MIN   (1ull << 20) /* of each shard */
#define ARGS_MIN            4096u
#define ARGS_MAX            (1024u * 1024)
#define RECV_BUFFERS_MIN    16u
#define RECV_BUFFERS_MAX    256u
#define RECV_BYTES          (4ull << 20)

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* What there is to share out. */
static uint64_t memory_shared(const struct config *config)
{
    KVS_ASSERT(config->memory_fixed_bytes < config->memory_bytes);
    return config->memory_bytes - config->memory_fixed_bytes;
}

/* Receive buffers of a shard: room for what many connections send between two turns, in a power of two. With little
 * memory there are fewer. */
static unsigned recv_buffers(uint64_t bytes)
{
    unsigned count = RECV_BUFFERS_MAX;
    while (count > RECV_BUFFERS_MIN && (uint64_t)count * SHARD_RECV_BUFFER_BYTES > bytes)
        count /= 2;
    return count;
}

/* For the connections of one shard, their input and their replies. */
static uint64_t connections_bytes(const struct node *node)
{
    const uint64_t received_bytes = (uint64_t)node->recv_buffers * SHARD_RECV_BUFFER_BYTES;
    const uint64_t usual = memory_shared(&node->config) / 16 / node->shard_count + RECV_BYTES - received_bytes;
    const uint64_t given = bounds_get(&node->config.bounds, BOUND_CLIENTS_MEMORY_BYTES, 0);
    return given != 0 ? given / node->shard_count : usual;
}

/* What is left for the engine when all else has its share (set_limits). */
static uint64_t engine_bytes(const struct config *config)
{
    const uint64_t shared = memory_shared(config);
    return shared - shared / 4 + shared / 16 - bounds_get(&config->bounds, BOUND_CLIENTS_MEMORY_BYTES, shared / 16);
}

/* Shares the memory out: half of what is not the engine's to large requests and large values under way, a quarter to
 * other requests under way, a quarter to connections, their input and their replies. These have what is set aside for
 * receiving as well, as far as receive buffers do not take it; as much as those hold may come on top of their bound.
 * With --clients-memory that quarter is what it says, and the engine has more or less. */
static void set_limits(struct node *node)
{
    const struct config *config = &node->config;
    uint64_t sixteenth = memory_shared(config) / 16;
    node->recv_buffers = recv_buffers(sixteenth / node->shard_count);
    const struct bounds *bounds = &config->bounds;
    const uint64_t memory_max = connections_bytes(node);
    const unsigned requests_max = (unsigned)bounds_get(bounds, BOUND_PIPELINE, REQUESTS_MAX);
    const uint64_t output_bytes = clamp(sixteenth / config->max_clients, OUTPUT_BYTES_MIN, OUTPUT_BYTES_MAX);
    const uint64_t args_room = clamp(memory_max / 64, ARGS_MIN, ARGS_MAX);
    const uint32_t args_max = (uint32_t)clamp(bounds_get(bounds, BOUND_ARGS, args_room), 1, args_room);
    node->key_bytes_max = (uint32_t)bounds_get(bounds, BOUND_KEY_BYTES, KVS_KEY_BYTES_MAX);
    node->budget.bytes_max = sixteenth < BUDGET_BYTES_MIN ? BUDGET_BYTES_MIN : sixteenth;
    node->large.bytes_max = memory_shared(config) / 8;
    node->ops_max = (unsigned)clamp(sixteenth / node->shard_count / sizeof(struct op), OPS_MIN, OPS_MAX);
    node->net_options = (struct net_options){
        .connections_max = config->max_clients,
        .output_bytes_max = bounds_get(bounds, BOUND_OUTPUT_BYTES, output_bytes),
        .output_kept_max = clamp(sixteenth / node->shard_count, OUTPUT_BYTES_MIN, OUTPUT_KEPT_MAX),
        .memory_max = memory_max,
        .requests_max = requests_max,
        .turn_requests_max = (unsigned)bounds_get(bounds, BOUND_TURN, TURN_REQUESTS_MAX),
        .request_bytes_max = bounds_get(bounds, BOUND_REQUEST_BYTES, 0),
        .send_timeout_ms = 1000 * (uint32_t)bounds_get(bounds, BOUND_SEND_TIMEOUT_S, SEND_TIMEOUT_S),
        .idle_timeout_s = config->idle_timeout_s,
        .keepalive_s = config->keepalive_s,
        .resp = {.args_max = args_max,
                 .arg_bytes_max = (uint32_t)bounds_get(bounds, BOUND_BULK_BYTES, KVS_VALUE_BYTES_MAX),
                 .inline_bytes_max = INLINE_BYTES_MAX},
        .large = &node->large,
        .large_bytes = clamp(config->memory_bytes / 64, 0, LARGE_REQUEST_BYTES),
        .frame = {.key_bytes_max = node->key_bytes_max}, /* the store's limit for values: take_directory */
        .hello = {.version_min = FRAME_VERSION,
                  .version_max = FRAME_VERSION,
                  .key_bytes_max = node->key_bytes_max,
                  .requests_max = requests_max,
                  .shard_count = node->shard_count},
        .conn_user_bytes = sizeof(struct client),
    };
}

static void make_run_id(struct node *node)
{
    uint8_t bytes[20];
    ring_random(node->ring, bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(node->run_id + 2 * i, 3, "%02x", bytes[i]);
}

static void explain_store(const struct node *node, enum kvs_err err, const char *why, char message[NODE_MESSAGE_BYTES])
{
    snprintf(message, NODE_MESSAGE_BYTES, "cannot open the store in %s: %s", node->config.data_dir,
             *why != 0 ? why : kvs_err_text(err));
}

/* Whether the memory has room for what was asked of it. */
static bool check_memory(const struct config *config, char message[NODE_MESSAGE_BYTES])
{
    const uint64_t clients = bounds_get(&config->bounds, BOUND_CLIENTS_MEMORY_BYTES, 0);
    if (config->value_bytes_max > config->memory_bytes / 8) {
        snprintf(
            message, NODE_MESSAGE_BYTES,
            "--value-max %llu: a value may take an eighth of the memory at most, which is %llu bytes; give --memory "
            "%lluM or more, or a smaller --value-max",
            (unsigned long long)config->value_bytes_max, (unsigned long long)config->memory_bytes / 8,
            (unsigned long long)(config->value_bytes_max * 8 + (1 << 20) - 1) >> 20);
        return false;
    }
    if (clients != 0 && (clients > config->memory_bytes / 8 || clients / config->threads < CLIENTS_BYTES_MIN)) {
        snprintf(message, NODE_MESSAGE_BYTES,
                 "--clients-memory %llu: from 1M for each of the %u threads to an eighth of the memory, which is %llu "
                 "bytes",
                 (unsigned long long)clients, config->threads, (unsigned long long)config->memory_bytes / 8);
        return false;
    }
    return true;
}

static enum kvs_err take_directory(struct node *node, char message[NODE_MESSAGE_BYTES])
{
    const struct config *config = &node->config;
    struct engine_options options = {
        .kind = config->engine,
        .data_dir = config->data_dir,
        .shard_count = config->threads,
        .memory_bytes = engine_bytes(config),
        .segment_bytes = config->segment_bytes,
        .relaxed_interval_ms = config->relaxed_interval_ms,
        .disk_bytes_max = config->disk_bytes_max,
        .value_bytes_max = config->value_bytes_max,
        .value_memory = &node->large,
        .backup_dir = config->backup_dir,
    };
    char text[ENGINE_MESSAGE_BYTES] = "";
    if (!check_memory(config, message))
        return KVS_ERR_INVALID;
    enum kvs_err err = engine_prepare(&node->prepared, &options, node->ring, text);
    if (err != KVS_ERR_OK) {
        explain_store(node, err, text, message);
        return err;
    }
    node->value_bytes_max = (uint32_t)engine_prepared_value_bytes_max(node->prepared);
    node->net_options.arg_kept_bytes_max = node->value_bytes_max;
    node->net_options.frame.value_bytes_max = node->value_bytes_max;
    node->net_options.hello.value_bytes_max = node->value_bytes_max;
    return KVS_ERR_OK;
}

static enum kvs_err make_meter(struct node *node, struct shard *shard)
{
    const struct acl_numbers *numbers = acl_numbers(node->acl);
    for (unsigned i = 0; i < FRAME_COMMANDS; i++) {
        if (shard->frame_commands[i] != NULL)
            shard->frame_numbers[i] = acl_number(numbers, shard->frame_commands[i], NULL);
    }
    return meter_init(&shard->meter, numbers->count);
}

static enum kvs_err make_shards(struct node *node)
{
    enum kvs_err err = mailroom_create(&node->mailroom, node->shard_count);
    if (err != KVS_ERR_OK)
        return err;
    node->shards =
        aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(node->shard_count * sizeof(struct shard), KVS_CACHE_LINE_BYTES));
    if (node->shards == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(node->shards, 0, node->shard_count * sizeof(struct shard));
    for (unsigned i = 0; i < node->shard_count; i++) {
        struct shard *shard = &node->shards[i];
        shard->id = i;
        shard->count = node->shard_count;
        shard->node = node;
        struct list *lists[] = {&shard->gathers,       &shard->assembling,    &shard->crowds,
                                &shard->crowd_parts,   &shard->crowd_merges,  &shard->scans,
                                &shard->scan_queue,    &shard->scan_runs,     &shard->scan_gated,
                                &shard->scan_replies,  &shard->logins,        &shard->acl_tasks,
                                &shard->paused,        &shard->client_texts,  &shard->transactions,
                                &shard->parts_waiting, &shard->waitings,      &shard->waiting_parts,
                                &shard->monitors,      &shard->monitor_mails, &shard->multis};
        for (size_t j = 0; j < ARRAY_COUNT(lists); j++)
            list_init(lists[j]);
        derive_init(&shard->derivations);
        command_of_frames(shard->frame_commands);
        enum kvs_err meter_err = make_meter(node, shard);
        if (meter_err != KVS_ERR_OK)
            return meter_err;
        shard->mailbox = mailroom_box(node->mailroom, i);
    }
    return KVS_ERR_OK;
}

/* Who may come in; refuses addresses that others can reach while anybody may do everything. */
static enum kvs_err make_users(struct node *node, char message[NODE_MESSAGE_BYTES])
{
    static_assert(ACL_STORE_MESSAGE_BYTES <= NODE_MESSAGE_BYTES, "a message fits");
    node->acl_log = acl_log_create();
    node->slowlog = slowlog_create();
    if (node->acl_log == NULL || node->slowlog == NULL)
        return KVS_ERR_NO_MEMORY;
    enum kvs_err err = acl_create(&node->acl, node->shard_count, node->ring, &node->watch);
    if (err != KVS_ERR_OK)
        return err;
    node->figures = figures_create(acl_numbers(node->acl)->count);
    if (node->figures == NULL)
        return KVS_ERR_NO_MEMORY;
    if (!acl_store_start(node, message))
        return KVS_ERR_INVALID;
    char remote[RING_ADDR_TEXT_BYTES];
    if (!node->config.protected_mode || !config_reaches_others(&node->config, remote))
        return KVS_ERR_OK;
    bool open = acl_is_open(acl_read_begin(node->acl, 0));
    acl_read_end(node->acl, 0);
    if (!open)
        return KVS_ERR_OK;
    snprintf(
        message, NODE_MESSAGE_BYTES,
        "--addr %s: refused in protected mode: this address is reachable from other machines, and the user default "
        "of --aclfile %s needs no password. Give it one there, or listen on 127.0.0.1 or a Unix socket, or add "
        "--no-protected-mode if the network is trusted",
        remote, node->config.acl_file != NULL ? node->config.acl_file : "(none)");
    return KVS_ERR_INVALID;
}

enum kvs_err node_create(struct node **out, const struct config *config, struct ring *ring,
                         char message[NODE_MESSAGE_BYTES])
{
    KVS_ASSERT(config->threads >= 1 && config->threads <= KVS_SHARDS_MAX);
    message[0] = '\0';
    struct node *node = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof(*node), KVS_CACHE_LINE_BYTES));
    enum kvs_err err = KVS_ERR_NO_MEMORY;
    if (node == NULL)
        goto out;
    memset(node, 0, sizeof(*node));
    node->config = *config;
    node->ring = ring;
    node->shard_count = config->threads;
    node->started_ns = ring_now_ns(ring);
    node->started_wall_ms = ring_wall_ms(ring);
    node->background.node = node;
    make_run_id(node);
    set_limits(node);
    atomic_init(&node->password_set, config->requirepass != NULL && *config->requirepass != 0);
    settings_init(&node->settings, config, &node->net_options);
    err = make_users(node, message);
    if (err == KVS_ERR_OK)
        err = take_directory(node, message);
    if (err == KVS_ERR_OK)
        err = make_shards(node);
    if (err == KVS_ERR_OK) {
        err = node_listen(node);
        snprintf(message, NODE_MESSAGE_BYTES, "%s", node->message);
    }
    if (err == KVS_ERR_OK) {
        *out = node;
        return err;
    }
    node_destroy(node);
out:
    if (message[0] == '\0')
        snprintf(message, NODE_MESSAGE_BYTES, "cannot start: %s", kvs_err_text(err));
    return err;
}

void node_destroy(struct node *node)
{
    KVS_ASSERT(atomic_load(&node->load) != LOAD_RUNNING);
    if (node->engine != NULL)
        engine_close(node->engine, node->ring);
    if (node->prepared != NULL)
        engine_unprepare(node->prepared, node->ring);
    mailroom_destroy(node->mailroom);
    acl_destroy(node->acl);
    acl_log_destroy(node->acl_log);
    slowlog_destroy(node->slowlog);
    figures_destroy(node->figures);
    for (unsigned i = 0; node->shards != NULL && i < node->shard_count; i++)
        meter_deinit(&node->shards[i].meter);
    free(node->shards);
    free(node);
}

/* ---- loading --------------------------------------------------------------------------------------------------- */

static void end_load(struct node *node, enum load_state state)
{
    atomic_store_explicit(&node->load, state, memory_order_release);
}

void node_load(struct node *node, struct ring *ring, const struct engine_workers *workers)
{
    KVS_ASSERT(node->prepared != NULL && atomic_load(&node->load) == LOAD_NOT_BEGUN);
    atomic_store_explicit(&node->load, LOAD_RUNNING, memory_order_relaxed);
    char text[ENGINE_MESSAGE_BYTES] = "";
    struct engine_prepared *prepared = node->prepared;
    node->prepared = NULL;
    node->load_error = engine_load(&node->engine, prepared, workers, &node->progress, ring, text);
    if (node->load_error != KVS_ERR_OK)
        explain_store(node, node->load_error, text, node->load_message);
    end_load(node, node->load_error == KVS_ERR_OK ? LOAD_DONE : LOAD_FAILED);
    if (ring != node->ring)
        ring_wake(ring, node->ring);
}

void node_load_refused(struct node *node, enum kvs_err err, const char *why)
{
    KVS_ASSERT(err != KVS_ERR_OK && atomic_load(&node->load) == LOAD_NOT_BEGUN);
    node->load_error = err;
    explain_store(node, err, why, node->load_message);
    end_load(node, LOAD_FAILED);
}

struct loading node_loading(const struct node *node, const struct ring *ring)
{
    return loading_look(&node->progress, ring_now_ns(ring) - node->started_ns);
}

/* ---- shards ---------------------------------------------------------------------------------------------------- */

unsigned node_shard_count(const struct node *node)
{
    return node->shard_count;
}

unsigned node_thread_count(const struct node *node)
{
    return node->shard_count + 1;
}

void node_thread_open(struct node *node, unsigned id)
{
    KVS_ASSERT(id < node_thread_count(node));
    if (id < node->shard_count)
        shard_open(&node->shards[id]);
    else
        background_open(&node->background);
}

bool node_thread_turn(struct node *node, unsigned id, bool may_sleep)
{
    if (id < node->shard_count)
        return shard_turn(&node->shards[id], may_sleep);
    return background_turn(&node->background, may_sleep);
}

bool node_thread_busy(const struct node *node, unsigned id)
{
    return id < node->shard_count ? node->shards[id].busy : node->background.busy;
}

struct ring *node_thread_ring(const struct node *node, unsigned id)
{
    return id < node->shard_count ? node->shards[id].ring : node->background.ring;
}

void node_thread_close(struct node *node, unsigned id)
{
    if (id < node->shard_count)
        shard_close(&node->shards[id]);
    else
        background_close(&node->background);
}

void node_thread_abandon(struct node *node, unsigned id)
{
    if (id < node->shard_count)
        shard_abandon(&node->shards[id]);
    else
        background_abandon(&node->background);
}

static enum shard_state state_of(const struct node *node, unsigned id)
{
    return atomic_load(id < node->shard_count ? &node->shards[id].state : &node->background.state);
}

/* True when every thread has come at least so far; a broken one counts as being at the end. */
static bool all_at(const struct node *node, enum shard_state state)
{
    for (unsigned i = 0; i < node_thread_count(node); i++) {
        if (state_of(node, i) < state)
            return false;
    }
    return true;
}

/* ---- phases ---------------------------------------------------------------------------------------------------- */

static void wake_threads(struct node *node)
{
    for (unsigned i = 0; i < node_thread_count(node); i++) {
        enum shard_state state = state_of(node, i);
        if (state >= SHARD_LOADING && state != SHARD_BROKEN)
            ring_wake(node->ring, node_thread_ring(node, i));
    }
}

static void set_phase(struct node *node, enum shard_phase phase)
{
    KVS_ASSERT(phase >= node_phase(node));
    atomic_store(&node->phase, phase);
    if (phase != SHARD_EXIT) /* that they look for by themselves; a ring about to be closed must not be woken */
        wake_threads(node);
}

static void begin_stop(struct node *node, enum shard_phase phase)
{
    node->status = NODE_STOPPING;
    node->drain_since_ns = ring_now_ns(node->ring);
    if (phase > node_phase(node))
        set_phase(node, phase);
}

static void fail_start(struct node *node, enum kvs_err err, const char *message)
{
    node->start_failed = true;
    node->error = err;
    snprintf(node->message, sizeof(node->message), "%s", message);
    begin_stop(node, SHARD_ABORT);
}

/* The first message of a thread that could not do its part; NULL when there is none. */
static const char *find_trouble(const struct node *node)
{
    for (unsigned i = 0; i < node_thread_count(node); i++) {
        const char *message = i < node->shard_count ? node->shards[i].message : node->background.message;
        if (state_of(node, i) >= SHARD_READY && message[0] != 0)
            return message;
    }
    return NULL;
}

static void supervise_load(struct node *node)
{
    if (node->status == NODE_STARTING && all_at(node, SHARD_LOADING))
        node->status = NODE_LOADING;
    enum load_state load = atomic_load_explicit(&node->load, memory_order_acquire);
    if (load == LOAD_FAILED) {
        fail_start(node, node->load_error, node->load_message);
    } else if (load == LOAD_DONE && node->status == NODE_LOADING) {
        node->attach = true;
        set_phase(node, SHARD_PREPARE);
    }
}

static void supervise_start(struct node *node)
{
    const char *trouble = find_trouble(node);
    if (trouble != NULL) {
        fail_start(node, KVS_ERR_FAILED, trouble);
        return;
    }
    switch (node_phase(node)) {
    case SHARD_LOAD:
        supervise_load(node);
        break;
    case SHARD_PREPARE:
        if (!all_at(node, SHARD_READY))
            break;
        snprintf(node->ring_text, sizeof(node->ring_text), "%s", ring_describe(node->shards[0].ring));
        atomic_store_explicit(&node->open, true, memory_order_release);
        set_phase(node, SHARD_SERVE);
        break;
    default:
        if (all_at(node, SHARD_SERVING))
            node->status = NODE_SERVING;
        break;
    }
}

static void supervise_stop(struct node *node)
{
    enum shard_phase phase = node_phase(node);
    if (phase < SHARD_STOP) {
        if (all_at(node, SHARD_DRAINED)) {
            node_unlisten(node);
            set_phase(node, SHARD_STOP);
        } else if (phase < SHARD_ABORT && ring_now_ns(node->ring) - node->drain_since_ns > NODE_DRAIN_NS) {
            diag_warn("connections are still open after %llu s; dropping them", NODE_DRAIN_NS / 1000000000);
            set_phase(node, SHARD_ABORT);
        }
    } else if (phase == SHARD_STOP && all_at(node, SHARD_STOPPED)) {
        set_phase(node, SHARD_EXIT);
        node->status = node->start_failed ? NODE_BROKEN : NODE_STOPPED;
    }
}

/* What shards have asked for. */
static void supervise_requests(struct node *node)
{
    if (atomic_exchange(&node->wake_asked, false) && node_phase(node) < SHARD_STOP)
        wake_threads(node);
    if (atomic_exchange(&node->stop_asked, false) && node->status != NODE_STOPPING)
        node_stop(node, false);
}

void node_wake_shards(struct shard *shard)
{
    atomic_store(&shard->node->wake_asked, true);
    ring_wake(shard->ring, shard->node->ring);
}

void node_ask_stop(struct shard *shard)
{
    atomic_store(&shard->node->stop_asked, true);
    ring_wake(shard->ring, shard->node->ring);
}

enum node_status node_supervise(struct node *node)
{
    supervise_requests(node);
    if (node->status < NODE_SERVING)
        supervise_start(node);
    if (node->status == NODE_STOPPING)
        supervise_stop(node);
    return node->status;
}

void node_stop(struct node *node, bool at_once)
{
    if (node->status == NODE_STOPPED || node->status == NODE_BROKEN)
        return;
    /* Who waits for the store to be opened is told so by the end of the connection soon enough. */
    enum shard_phase phase = at_once || node->status < NODE_SERVING ? SHARD_ABORT : SHARD_DRAIN;
    if (node->status != NODE_STOPPING)
        begin_stop(node, phase);
    else if (phase > node_phase(node))
        set_phase(node, phase);
}

/* ---- what there is to tell ------------------------------------------------------------------------------------- */

const char *node_message(const struct node *node)
{
    return node->message;
}

enum kvs_err node_error(const struct node *node)
{
    return node->error;
}

struct engine *node_engine(const struct node *node)
{
    return node->engine;
}

const char *node_ring_text(const struct node *node)
{
    return node->ring_text;
}

void node_addresses(const struct node *node, void (*each)(void *context, const char *address), void *context)
{
    for (unsigned i = 0; i < node->listener_count; i++) {
        char text[RING_ADDR_TEXT_BYTES];
        each(context, ring_addr_format(&node->addresses[i], text));
    }
}
