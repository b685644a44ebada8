/*
 * fuzz_connection.c - up to three hostile connections to a whole node of two shards on the simulated machine.
 *
 * Input: a byte for the machine's chance, then a script. Each step is a byte, connection (two upper bits, modulo 3) and
 * action (four lower bits, enum action), and what the action needs. A connection is opened by its first step. The
 * node's limits are small, so that a short script reaches them.
 *
 * Properties. Every byte the node sends is RESP or frames, as the connection began; a connection that was read from all
 * the time and ended in order ends with a whole reply. When all have gone, the node has no connection, no request under
 * way, and its memory counters name nothing but its pools; and it serves a well-behaved client.
 *
 * A node lives for many inputs, because starting one takes longer than an input: all keys that an input has named are
 * removed (hash_key is wrapped at link time and sees them) and chance is seeded anew, but a finding that does not come
 * back from its own input alone may need the ones before it. KVS_FUZZ_FRESH=1 in the environment gives every input a
 * node of its own, KVS_FUZZ_STORY=1 tells the steps of a script.
 */
#include "fuzz_sim.h"
#include "net/net_internal.h"
#include "node/command.h"
#include "node_fixture.h"
#include "sim_core.h"

enum {
    HOSTILES = 3,
    INPUTS_PER_NODE = 1000,
    KEYS_MAX = 128,
    STEPS_MAX = 200000,
    OUT_BYTES_MAX = 256 * 1024,
    CLIENTS_MAX = 2
};

enum action {
    SEND = 0, /* a byte of length, bytes; so do the actions up to SEND_LAST */
    SEND_LAST = 4,
    SEND_REST, /* up to 64 KiB of what is left of the input, and the script ends */
    REPEAT,    /* a byte: the latest piece so often again */
    RUN,       /* a byte of steps */
    PAUSE,     /* reads no more */
    RESUME,
    RESET,
    FINISH,    /* sends no more */
    WAIT,      /* a byte, in units of 20 ms */
    SET_LARGE, /* a byte of key, two of length */
    FRAME,     /* a byte each of opcode, flags, id, key length; two of value length */
    HELLO,
};

struct hostile {
    struct ring *ring;
    int fd;
    bool used, connected, sending, paused, slow, finished, ended, in_order, quiet;
    struct ring_op connect_op, send_op, recv_op;
    struct iovec iov;
    uint8_t *out;
    size_t out_size, out_sent;
    size_t piece, piece_size; /* the latest, in out */
    uint8_t *in;
    size_t in_size, in_capacity;
};

static struct world {
    struct node_fixture fixture;
    unsigned inputs;
    bool exists;
    struct slice keys[KEYS_MAX]; /* named since they were last removed */
    unsigned key_count;          /* may be more than there is room for */
} world;

static struct hostile hostiles[HOSTILES];

/* ---- the node -------------------------------------------------------------------------------------------------- */

static void world_boot(void)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options main_options = {.entries = 64};
    const struct ring_options peer_options = {.buffer_count = 16, .buffer_bytes = 4096};
    struct node_fixture *fixture = &world.fixture;
    sim_create(1);
    memset(fixture, 0, sizeof *fixture);
    fixture->config = fixture_config(2);
    fixture->config.max_clients = CLIENTS_MAX;
    FUZZ_CHECK(ring_open(&fixture->main_ring, &main_options, message) == KVS_ERR_OK);
    FUZZ_CHECK(ring_open(&fixture->peer_ring, &peer_options, message) == KVS_ERR_OK);
    FUZZ_CHECK(node_create(&fixture->node, &fixture->config, fixture->main_ring, fixture->message) == KVS_ERR_OK);
    struct node *node = fixture->node;
    node->ops_max = 32;
    node->net_options.output_bytes_max = 8192;
    node->net_options.requests_max = 8;
    node->net_options.send_timeout_ms = 1000;
    node->net_options.resp =
        (struct resp_limits){.args_max = 300, .arg_bytes_max = 256 * 1024, .inline_bytes_max = 1024};
    for (unsigned i = 0; i < node_thread_count(node); i++) {
        fixture->shards[i] = (struct node_fixture_shard){.fixture = fixture, .id = i, .running = true};
        node_thread_open(node, i);
        sim_ring_body(node_thread_ring(node, i), fixture_shard_body, &fixture->shards[i]);
    }
    sim_ring_body(fixture->main_ring, fixture_main_body, fixture);
    sim_ring_body(fixture->peer_ring, fixture_peer_body, fixture);
    FUZZ_CHECK(sim_run_until(fixture_answers, fixture, NODE_STEPS_MAX));
    fixture_load(fixture);
    FUZZ_CHECK(fixture->status == NODE_SERVING);
    world.inputs = 0;
    world.exists = true;
}

static void world_end(void)
{
    fixture_crash(&world.fixture, SIM_DROP_ALL);
    sim_destroy();
    world.exists = false;
}

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    bool seen = world.key_count > KEYS_MAX;
    for (unsigned i = 0; i < world.key_count && !seen; i++)
        seen = slice_equal(world.keys[i], key);
    if (!seen && world.key_count < KEYS_MAX)
        world.keys[world.key_count] = slice_make(fuzz_copy(key.data, key.size), key.size);
    world.key_count += !seen;
    return __real_hash_key(key, seed);
}

void __wrap_command_shutdown(struct call *call);
void __wrap_settings_set(struct settings *settings, enum setting which, int64_t value);

/* The node lives on, with the limits that it has, whatever an input asks for. */
void __wrap_command_shutdown(struct call *call)
{
    call_error(call, "ERR this node lives on");
}

void __wrap_settings_set(struct settings *settings, enum setting which, int64_t value)
{
    (void)settings;
    (void)which;
    (void)value;
}

static void forget_keys(void)
{
    for (unsigned i = 0; i < world.key_count && i < KEYS_MAX; i++)
        free((void *)(uintptr_t)world.keys[i].data);
    world.key_count = 0;
}

/* What the pools of a struct net without connections hold. */
static uint64_t pooled_bytes(const struct net *net)
{
    uint64_t bytes = sizeof *net + NET_BLOCK_BYTES + (uint64_t)net->slice_capacity * sizeof *net->slices;
    for (const struct list *node = net->free_conns.next; node != &net->free_conns; node = node->next)
        bytes += align_up(sizeof(struct net_conn) + net->options.conn_user_bytes, KVS_CACHE_LINE_BYTES);
    for (const struct list *node = net->free_runs.next; node != &net->free_runs; node = node->next)
        bytes += sizeof(struct net_run);
    bytes += net->free_block_bytes;
    for (const struct net_iovs *iovs = net->free_iovs; iovs != NULL; iovs = iovs->next)
        bytes += sizeof *iovs;
    return bytes + (uint64_t)net->free_input_count * NET_BLOCK_BYTES;
}

static bool nobody_is_there(void *context)
{
    const struct node *node = context;
    for (unsigned i = 0; i < node->shard_count; i++) {
        const struct shard *shard = &node->shards[i];
        if (shard->net->stats.connections > 0 || shard->net->refused_count > 0 || shard->pool.used > 0 ||
            !list_empty(&shard->gathers))
            return false;
    }
    return true;
}

static void check_nothing_is_left(struct node *node)
{
    FUZZ_CHECK(sim_run_until(nobody_is_there, node, STEPS_MAX));
    FUZZ_CHECK(node->clients == 0 && node->budget.used_bytes == 0);
    for (unsigned i = 0; i < node->shard_count; i++) {
        const struct shard *shard = &node->shards[i];
        FUZZ_CHECK(shard->net->stats.memory_bytes == pooled_bytes(shard->net));
        FUZZ_CHECK(!engine_failed(shard->engine));
    }
}

static void check_it_serves(void)
{
    struct peer *peer = peer_open(&world.fixture);
    peer->in_capacity = 4096;
    peer->in = malloc(peer->in_capacity);
    FUZZ_CHECK(peer->in != NULL);
    peer_say(peer, "PING", NULL);
    peer_say(peer, "SET", "well-behaved", "value", NULL);
    peer_say(peer, "GET", "well-behaved", NULL);
    peer_say(peer, "DEL", "well-behaved", NULL);
    peer_expect(peer, "+PONG\r\n");
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, "$5\r\nvalue\r\n");
    peer_expect(peer, ":1\r\n");
    peer_close(peer);
}

static void remove_keys(void)
{
    struct peer *peer = peer_open(&world.fixture);
    peer->in_capacity = 4096;
    peer->in = malloc(peer->in_capacity);
    FUZZ_CHECK(peer->in != NULL);
    for (unsigned i = 0; i < world.key_count; i++) {
        const struct slice args[] = {slice_text("DEL"), world.keys[i]};
        if (PEER_OUT_BYTES - peer->out_size < args[1].size + 100)
            break;
        peer_ask(peer, args, 2);
        peer_expect_prefix(peer, ":");
    }
    peer_close(peer);
}

/* ---- hostile connections --------------------------------------------------------------------------------------- */

static void hostile_push(struct hostile *hostile)
{
    if (!hostile->connected || hostile->sending || hostile->finished || hostile->out_sent == hostile->out_size)
        return;
    hostile->iov = (struct iovec){hostile->out + hostile->out_sent, hostile->out_size - hostile->out_sent};
    hostile->out_sent = hostile->out_size;
    hostile->sending = true;
    ring_send(hostile->ring, &hostile->send_op, hostile->fd, &hostile->iov, 1);
}

static void on_hostile_sent(struct ring_op *op)
{
    struct hostile *hostile = container_of(op, struct hostile, send_op);
    hostile->sending = false;
    if (op->error == KVS_ERR_OK)
        hostile_push(hostile);
}

static void hostile_receive(struct hostile *hostile)
{
    if (hostile->connected && !hostile->paused && !hostile->ended && !ring_op_active(&hostile->recv_op))
        ring_recv(hostile->ring, &hostile->recv_op, hostile->fd);
}

static void on_hostile_received(struct ring_op *op)
{
    struct hostile *hostile = container_of(op, struct hostile, recv_op);
    if ((op->flags & RING_BUFFER) != 0) {
        if (hostile->in_capacity - hostile->in_size < op->bytes) {
            hostile->in_capacity = 2 * (hostile->in_size + op->bytes);
            hostile->in = realloc(hostile->in, hostile->in_capacity);
            FUZZ_CHECK(hostile->in != NULL);
        }
        memcpy(hostile->in + hostile->in_size, ring_buffer_data(hostile->ring, op->buffer_id), op->bytes);
        hostile->in_size += op->bytes;
        ring_buffer_release(hostile->ring, op->buffer_id);
    }
    if ((op->flags & RING_MORE) != 0)
        return;
    const bool goes_on =
        op->error == KVS_ERR_NO_BUFFERS || op->error == KVS_ERR_CANCELLED || (op->error == KVS_ERR_OK && op->bytes > 0);
    hostile->ended = !goes_on;
    hostile->in_order = op->error == KVS_ERR_OK && !goes_on;
    hostile_receive(hostile);
}

static void on_hostile_connected(struct ring_op *op)
{
    struct hostile *hostile = container_of(op, struct hostile, connect_op);
    FUZZ_CHECK(op->error == KVS_ERR_OK);
    hostile->fd = op->fd;
    hostile->connected = true;
    hostile_receive(hostile);
    hostile_push(hostile);
}

static void hostile_open(struct hostile *hostile)
{
    *hostile = (struct hostile){.ring = world.fixture.peer_ring, .used = true};
    hostile->out = malloc(OUT_BYTES_MAX);
    FUZZ_CHECK(hostile->out != NULL);
    ring_op_init(&hostile->connect_op, on_hostile_connected);
    ring_op_init(&hostile->send_op, on_hostile_sent);
    ring_op_init(&hostile->recv_op, on_hostile_received);
    ring_connect(hostile->ring, &hostile->connect_op, &world.fixture.node->addresses[0]);
}

static void hostile_say(struct hostile *hostile, struct slice bytes)
{
    if (bytes.size > OUT_BYTES_MAX - hostile->out_size)
        return;
    hostile->piece = hostile->out_size;
    hostile->piece_size = bytes.size;
    if (bytes.size > 0)
        memcpy(hostile->out + hostile->out_size, bytes.data, bytes.size);
    hostile->out_size += bytes.size;
    hostile_push(hostile);
}

static bool is_connected(void *context)
{
    return ((const struct hostile *)context)->connected;
}

static bool is_idle(void *context)
{
    const struct hostile *hostile = context;
    return !ring_op_active(&hostile->recv_op) && !ring_op_active(&hostile->send_op);
}

static bool has_ended(void *context)
{
    return ((const struct hostile *)context)->ended;
}

static bool all_is_sent(void *context)
{
    const struct hostile *hostile = context;
    return hostile->ended || (!hostile->sending && hostile->out_sent == hostile->out_size);
}

/* Shows what was said on a connection where it is not what the protocol allows. */
static void check_said(bool right, const struct hostile *hostile, size_t at)
{
    if (right)
        return;
    fprintf(stderr, "not a reply, at byte %zu of %zu, after %zu bytes sent:", at, hostile->in_size, hostile->out_size);
    for (size_t i = at; i < hostile->in_size && i < at + 64; i++)
        fprintf(stderr, " %02x", hostile->in[i]);
    fprintf(stderr, "\n");
    FUZZ_CHECK(false);
}

/* Everything the node has said on the connection. */
static void check_replies(const struct hostile *hostile)
{
    static const char refused[] = "-ERR max number of clients reached\r\n";
    bool frames = hostile->out_size > 0 && hostile->out[0] == FRAME_MAGIC;
    if (hostile->in_size == sizeof refused - 1 && memcmp(hostile->in, refused, sizeof refused - 1) == 0)
        frames = false; /* one over the limit that has said nothing is told so in RESP */
    const struct frame_limits limits = {.key_bytes_max = 0, .value_bytes_max = NODE_SEGMENT_BYTES};
    size_t at = 0;
    bool whole = true;
    while (at < hostile->in_size && whole) {
        const uint8_t *data = hostile->in + at;
        const size_t size = hostile->in_size - at;
        if (frames) {
            struct frame frame;
            const enum frame_result result = frame_parse(data, size, &limits, &frame);
            check_said(result == FRAME_WHOLE || result == FRAME_MORE, hostile, at);
            check_said(size < sizeof frame.header || (frame.header.flags & FRAME_REPLY) != 0, hostile, at);
            whole = result == FRAME_WHOLE;
            at += whole ? frame.size : 0;
        } else {
            struct resp_reply reply;
            const enum resp_status status = resp_reply_parse(data, size, &reply);
            check_said(status == RESP_REQUEST || status == RESP_MORE, hostile, at);
            whole = status == RESP_REQUEST;
            at += whole ? reply.size : 0;
        }
    }
    check_said(whole || !(hostile->quiet || (hostile->in_order && !hostile->slow)), hostile, at);
}

static void hostile_close(struct hostile *hostile, bool reset)
{
    FUZZ_CHECK(sim_run_until(is_connected, hostile, STEPS_MAX));
    if (!reset) {
        hostile->paused = false;
        hostile_receive(hostile);
        FUZZ_CHECK(sim_run_until(all_is_sent, hostile, STEPS_MAX));
        /* To the end of the connection, or until nothing will ever happen again: then all has been said. */
        hostile->quiet = !sim_run_until(has_ended, hostile, STEPS_MAX) && !hostile->finished;
        ring_shutdown(hostile->ring, hostile->fd);
        FUZZ_CHECK(sim_run_until(has_ended, hostile, STEPS_MAX));
    }
    hostile->paused = true;
    hostile->finished = true;
    if (ring_op_active(&hostile->recv_op))
        ring_cancel(hostile->ring, &hostile->recv_op);
    if (ring_op_active(&hostile->send_op))
        ring_cancel(hostile->ring, &hostile->send_op);
    FUZZ_CHECK(sim_run_until(is_idle, hostile, STEPS_MAX));
    ring_close_fd(hostile->ring, hostile->fd);
    check_replies(hostile);
    free(hostile->in);
    free(hostile->out);
    *hostile = (struct hostile){0};
}

/* ---- the script ------------------------------------------------------------------------------------------------ */

static bool never(void *context)
{
    (void)context;
    return false;
}

static void say_frame(struct hostile *hostile, struct fuzz_input *input)
{
    static const uint8_t filling[65536];
    static uint8_t bytes[65536 + 512];
    struct frame_header header = {.opcode = (uint8_t)fuzz_take(input, 1)};
    header.flags = (uint8_t)fuzz_take(input, 1);
    header.id = fuzz_take(input, 1);
    const size_t key_bytes = fuzz_take(input, 1);
    const size_t value_bytes = fuzz_take(input, 2);
    const size_t size = frame_write(bytes, &header, slice_make(filling, key_bytes), slice_make(filling, value_bytes));
    hostile_say(hostile, slice_make(bytes, size));
}

static void say_large_set(struct hostile *hostile, struct fuzz_input *input)
{
    static const uint8_t filling[65536];
    static uint8_t bytes[65536 + 512];
    const uint8_t key = (uint8_t)('a' + fuzz_take(input, 1) % 16);
    const struct slice args[] = {slice_text("SET"), slice_make(&key, 1), slice_make(filling, fuzz_take(input, 2))};
    hostile_say(hostile, slice_make(bytes, resp_write_request(bytes, args, 3)));
}

static void say_hello(struct hostile *hostile)
{
    const struct frame_hello hello = {.version_min = FRAME_VERSION, .version_max = FRAME_VERSION};
    const struct frame_header header = {.opcode = FRAME_HELLO};
    uint8_t bytes[sizeof header + sizeof hello];
    hostile_say(hostile,
                slice_make(bytes, frame_write(bytes, &header, slice_make(NULL, 0), slice_make(&hello, sizeof hello))));
}

static void hostile_pause(struct hostile *hostile)
{
    hostile->paused = hostile->slow = true;
    if (ring_op_active(&hostile->recv_op))
        ring_cancel(hostile->ring, &hostile->recv_op);
}

static void repeat(struct hostile *hostile, unsigned times)
{
    const size_t piece = hostile->piece;
    const size_t size = hostile->piece_size;
    for (unsigned i = 0; i < times; i++)
        hostile_say(hostile, slice_make(hostile->out + piece, size));
}

static void finish(struct hostile *hostile)
{
    FUZZ_CHECK(sim_run_until(is_connected, hostile, STEPS_MAX));
    if (!hostile->sending && !hostile->finished)
        ring_shutdown(hostile->ring, hostile->fd);
    hostile->finished = hostile->finished || !hostile->sending;
}

/* Time passes in which nobody reads: the node may lose its patience with any of them. */
static void slow_down(void)
{
    for (unsigned i = 0; i < HOSTILES; i++)
        hostiles[i].slow = true;
}

static void take_step(struct hostile *hostile, unsigned action, struct fuzz_input *input)
{
    switch (action) {
    case SEND_REST:
        hostile_say(hostile, fuzz_take_slice(input, 65536));
        break;
    case REPEAT:
        repeat(hostile, (unsigned)fuzz_take(input, 1));
        break;
    case RUN:
        (void)sim_run_until(never, NULL, fuzz_take(input, 1));
        break;
    case PAUSE:
        hostile_pause(hostile);
        break;
    case RESUME:
        hostile->paused = false;
        hostile_receive(hostile);
        break;
    case RESET:
        hostile_close(hostile, true);
        break;
    case FINISH:
        finish(hostile);
        break;
    case WAIT:
        slow_down();
        sim_advance(fuzz_take(input, 1) * 20000000);
        break;
    case SET_LARGE:
        say_large_set(hostile, input);
        break;
    case FRAME:
        say_frame(hostile, input);
        break;
    case HELLO:
        say_hello(hostile);
        break;
    default:
        hostile_say(hostile, fuzz_take_slice(input, fuzz_take(input, 1)));
        break;
    }
}

/* So that what is still allocated then has leaked. */
static void at_exit(void)
{
    if (world.exists)
        world_end();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_sim_quiet();
    return atexit(at_exit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    if (!world.exists)
        world_boot();
    struct node *node = world.fixture.node;
    const uint64_t chance = fuzz_take(&input, 1);
    sim->random_state = chance + 1;
    sim_set_socket_bytes(chance % 4 == 0 ? 0 : (size_t)512 << chance % 8);
    while (input.size > 0) {
        const unsigned step = (unsigned)fuzz_take(&input, 1);
        struct hostile *hostile = &hostiles[step / 64 % HOSTILES];
        if (!hostile->used)
            hostile_open(hostile);
        if (getenv("KVS_FUZZ_STORY") != NULL)
            fprintf(stderr, "%llu ns: connection %u, action %u\n", (unsigned long long)sim->now_ns,
                    step / 64 % HOSTILES, step % 16);
        take_step(hostile, step % 16, &input);
    }
    for (unsigned i = 0; i < HOSTILES; i++) {
        if (hostiles[i].used)
            hostile_close(&hostiles[i], false);
    }
    check_nothing_is_left(node);
    check_it_serves();
    check_nothing_is_left(node);
    struct engine_stats stats;
    engine_stats(node->engine, &stats);
    if (stats.keys > 0 && world.key_count <= KEYS_MAX) {
        remove_keys();
        engine_stats(node->engine, &stats);
    }
    forget_keys();
    if (stats.keys > 0 || ++world.inputs == INPUTS_PER_NODE || getenv("KVS_FUZZ_FRESH") != NULL)
        world_end();
    return 0;
}
