/*
 * node_fixture.h - a whole node on the simulated machine: its shards and its supervisor in turn on this thread, and
 * clients that speak to it through simulated sockets.
 */
#ifndef KVS_TESTS_NODE_FIXTURE_H
#define KVS_TESTS_NODE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/diag.h"
#include "node/node_internal.h"
#include "proto/frame.h"
#include "proto/resp.h"
#include "ring_sim.h"

#include <stdio.h>
#include <stdlib.h>

enum { NODE_SHARDS_MAX = 4, NODE_PEERS_MAX = 8, NODE_SEGMENT_BYTES = 256 * 1024, NODE_STEPS_MAX = 2000000 };

struct node_fixture {
    struct config config;
    struct ring *main_ring;
    struct node *node;
    enum node_status status;
    char message[NODE_MESSAGE_BYTES];
    struct node_fixture_shard {
        struct node_fixture *fixture;
        unsigned id;
        bool running;
    } shards[NODE_SHARDS_MAX + 1]; /* and the background */
    struct ring *peer_ring;
};

/* A client's connection. */
struct peer {
    struct ring *ring;
    int fd;
    bool connected, sending, ended;
    struct ring_op connect_op, send_op, recv_op;
    struct ring_addr addr;
    struct iovec iov;
    uint8_t *out;
    size_t out_size, out_sent;
    uint8_t *in;
    size_t in_size, in_capacity, in_read;
};

/* ---- the machine ----------------------------------------------------------------------------------------------- */

static bool fixture_machine_exists;

static inline void fixture_machine_end(void)
{
    sim_destroy();
    fixture_machine_exists = false;
}

/* Up to so many steps of the machine. */
static inline void fixture_steps(uint64_t steps)
{
    while (steps-- > 0 && sim_step()) {
    }
}

static inline void fixture_machine(uint64_t seed)
{
    if (fixture_machine_exists) /* left behind by a test that failed */
        fixture_machine_end();
    sim_create(seed);
    fixture_machine_exists = true;
}

/* ---- the node -------------------------------------------------------------------------------------------------- */

static inline void fixture_shard_body(void *context)
{
    struct node_fixture_shard *shard = context;
    struct node *node = shard->fixture->node;
    if (!shard->running) {
        ring_turn(node_thread_ring(node, shard->id), -1);
        return;
    }
    shard->running = node_thread_turn(node, shard->id, !node_thread_busy(node, shard->id));
    if (node_thread_busy(node, shard->id)) /* the time-out it gave is out of date: run it again at once */
        sim_ring_body(node_thread_ring(node, shard->id), fixture_shard_body, shard);
}

static inline void fixture_main_body(void *context)
{
    struct node_fixture *fixture = context;
    enum node_status before = fixture->status;
    ring_turn(fixture->main_ring, before == NODE_SERVING ? -1 : 5000000);
    fixture->status = node_supervise(fixture->node);
    if (fixture->status != before)
        sim_ring_body(fixture->main_ring, fixture_main_body, fixture);
}

static inline void fixture_peer_body(void *context)
{
    struct node_fixture *fixture = context;
    ring_turn(fixture->peer_ring, -1);
}

/* As far as it gets without a store. */
static inline bool fixture_answers(void *context)
{
    const struct node_fixture *fixture = context;
    return fixture->status != NODE_STARTING && fixture->status != NODE_STOPPING;
}

static inline bool fixture_started(void *context)
{
    const struct node_fixture *fixture = context;
    return fixture_answers(context) && fixture->status != NODE_LOADING;
}

static inline struct config fixture_config(unsigned threads)
{
    struct config config = {
        .address_count = 1,
        .data_dir = "/data",
        .threads = threads,
        .memory_bytes = (uint64_t)threads * 16 * NODE_SEGMENT_BYTES,
        .segment_bytes = NODE_SEGMENT_BYTES,
        .engine = "kvs",
        .relaxed_interval_ms = 100,
        .max_clients = 100,
        .protected_mode = true,
    };
    assert_int_equal(ring_addr_parse_tcp("127.0.0.1:0", &config.addresses[0]), KVS_ERR_OK);
    return config;
}

/* Opens the rings, and lets the shards get as far as they will without a store: to NODE_LOADING, or NODE_BROKEN. */
static inline void fixture_open(struct node_fixture *fixture, const struct config *config)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options main_options = {.entries = 64};
    struct ring_options peer_options = {.buffer_count = 64, .buffer_bytes = 4096};
    diag_set_level(DIAG_ERROR);
    memset(fixture, 0, sizeof(*fixture));
    fixture->config = *config;
    assert_int_equal(ring_open(&fixture->main_ring, &main_options, message), KVS_ERR_OK);
    assert_int_equal(ring_open(&fixture->peer_ring, &peer_options, message), KVS_ERR_OK);
    if (node_create(&fixture->node, config, fixture->main_ring, fixture->message) != KVS_ERR_OK)
        fail_msg("%s", fixture->message);
    for (unsigned i = 0; i < node_thread_count(fixture->node); i++) {
        fixture->shards[i] = (struct node_fixture_shard){.fixture = fixture, .id = i, .running = true};
        node_thread_open(fixture->node, i);
        sim_ring_body(node_thread_ring(fixture->node, i), fixture_shard_body, &fixture->shards[i]);
    }
    sim_ring_body(fixture->main_ring, fixture_main_body, fixture);
    sim_ring_body(fixture->peer_ring, fixture_peer_body, fixture);
    assert_true(sim_run_until(fixture_answers, fixture, NODE_STEPS_MAX));
}

/* Lets the node get on with opening the store. */
static inline void fixture_begin_load(struct node_fixture *fixture)
{
    node_load(fixture->node, fixture->main_ring, NULL);
    sim_ring_body(fixture->main_ring, fixture_main_body, fixture); /* the load has turned its ring */
}

/* Opens the store, between two steps of the machine, and lets the shards get as far as they will. */
static inline void fixture_load(struct node_fixture *fixture)
{
    if (fixture->status == NODE_LOADING)
        fixture_begin_load(fixture);
    assert_true(sim_run_until(fixture_started, fixture, NODE_STEPS_MAX));
}

static inline void fixture_boot(struct node_fixture *fixture, const struct config *config)
{
    fixture_open(fixture, config);
    fixture_load(fixture);
}

static inline void fixture_start(struct node_fixture *fixture, const struct config *config)
{
    fixture_boot(fixture, config);
    if (fixture->status != NODE_SERVING)
        fail_msg("not serving: %s", node_message(fixture->node));
}

/* A machine of its own, and on it a new node that serves. Returns the node's configuration. */
static inline struct config fixture_create(struct node_fixture *fixture, uint64_t seed, unsigned threads)
{
    const struct config config = fixture_config(threads);
    fixture_machine(seed);
    fixture_start(fixture, &config);
    return config;
}

/* Likewise, of which the store is not open yet. */
static inline struct config fixture_create_loading(struct node_fixture *fixture, uint64_t seed, unsigned threads)
{
    const struct config config = fixture_config(threads);
    fixture_machine(seed);
    fixture_open(fixture, &config);
    return config;
}

static inline bool fixture_ended(void *context)
{
    const struct node_fixture *fixture = context;
    if (fixture->status != NODE_STOPPED && fixture->status != NODE_BROKEN)
        return false;
    for (unsigned i = 0; i < node_thread_count(fixture->node); i++) {
        if (fixture->shards[i].running)
            return false;
    }
    return true;
}

static inline void fixture_free(struct node_fixture *fixture)
{
    for (unsigned i = 0; i < node_thread_count(fixture->node); i++)
        node_thread_close(fixture->node, i);
    node_destroy(fixture->node);
    fixture->node = NULL;
    ring_close(fixture->peer_ring);
    ring_close(fixture->main_ring);
}

/* Power loss; memory of the dead node is freed. */
static inline void fixture_crash(struct node_fixture *fixture, enum sim_crash_mode mode)
{
    sim_crash(mode);
    for (unsigned i = 0; i < node_thread_count(fixture->node); i++)
        node_thread_abandon(fixture->node, i);
    node_destroy(fixture->node);
    fixture->node = NULL;
}

/* Up to the end of every thread. What is left of the node can be looked at, and is then given to fixture_free. */
static inline void fixture_stop_threads(struct node_fixture *fixture, bool at_once)
{
    node_stop(fixture->node, at_once);
    fixture->status = node_supervise(fixture->node);
    /* The supervisor slept; its body passes a time-out again from the next turn on. */
    sim_ring_body(fixture->main_ring, fixture_main_body, fixture);
    assert_true(sim_run_until(fixture_ended, fixture, NODE_STEPS_MAX));
    assert_int_equal(fixture->status, NODE_STOPPED);
}

static inline void fixture_stop(struct node_fixture *fixture, bool at_once)
{
    fixture_stop_threads(fixture, at_once);
    fixture_free(fixture);
}

/* An orderly stop, and the end of the machine. */
static inline void fixture_end(struct node_fixture *fixture)
{
    fixture_stop(fixture, false);
    fixture_machine_end();
}

/* ---- clients --------------------------------------------------------------------------------------------------- */

static inline void peer_push(struct peer *peer);

static inline void peer_sent(struct ring_op *op)
{
    struct peer *peer = container_of(op, struct peer, send_op);
    peer->sending = false;
    if (op->error == KVS_ERR_OK)
        peer_push(peer);
}

static inline void peer_push(struct peer *peer)
{
    if (!peer->connected || peer->sending || peer->out_sent == peer->out_size)
        return;
    peer->iov = (struct iovec){peer->out + peer->out_sent, peer->out_size - peer->out_sent};
    peer->out_sent = peer->out_size;
    peer->sending = true;
    ring_send(peer->ring, &peer->send_op, peer->fd, &peer->iov, 1);
}

static inline void peer_received(struct ring_op *op)
{
    struct peer *peer = container_of(op, struct peer, recv_op);
    if ((op->flags & RING_BUFFER) != 0) {
        if (peer->in_capacity - peer->in_size < op->bytes) {
            peer->in_capacity = 2 * (peer->in_size + op->bytes);
            peer->in = realloc(peer->in, peer->in_capacity);
            assert_non_null(peer->in);
        }
        memcpy(peer->in + peer->in_size, ring_buffer_data(peer->ring, op->buffer_id), op->bytes);
        peer->in_size += op->bytes;
        ring_buffer_release(peer->ring, op->buffer_id);
    }
    if ((op->flags & RING_MORE) != 0)
        return;
    if (op->error == KVS_ERR_NO_BUFFERS || (op->error == KVS_ERR_OK && op->bytes > 0))
        ring_recv(peer->ring, op, peer->fd);
    else
        peer->ended = true;
}

static inline void peer_connected(struct ring_op *op)
{
    struct peer *peer = container_of(op, struct peer, connect_op);
    assert_int_equal(op->error, KVS_ERR_OK);
    peer->fd = op->fd;
    peer->connected = true;
    ring_recv(peer->ring, &peer->recv_op, peer->fd);
    peer_push(peer);
}

static inline struct peer *peer_open(struct node_fixture *fixture)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    assert_non_null(peer);
    peer->ring = fixture->peer_ring;
    peer->addr = fixture->node->addresses[0];
    ring_op_init(&peer->connect_op, peer_connected);
    ring_op_init(&peer->send_op, peer_sent);
    ring_op_init(&peer->recv_op, peer_received);
    ring_connect(peer->ring, &peer->connect_op, &peer->addr);
    return peer;
}

/* Adds to what is sent; it may not grow while a send of it is active, so sizes are reserved at first. */
#define PEER_OUT_BYTES (1u << 20)

static inline uint8_t *peer_room(struct peer *peer, size_t size)
{
    if (peer->out == NULL) {
        peer->out = malloc(PEER_OUT_BYTES);
        assert_non_null(peer->out);
    }
    if (peer->out_sent == peer->out_size && !peer->sending)
        peer->out_sent = peer->out_size = 0;
    assert_true(PEER_OUT_BYTES - peer->out_size >= size);
    return peer->out + peer->out_size;
}

static inline void peer_ask(struct peer *peer, const struct slice *args, unsigned count)
{
    uint8_t *room = peer_room(peer, resp_write_request(NULL, args, count));
    peer->out_size += resp_write_request(room, args, count);
    peer_push(peer);
}

/* Words, ended by NULL. */
static inline void peer_say(struct peer *peer, ...)
{
    struct slice args[16];
    unsigned count = 0;
    va_list words;
    va_start(words, peer);
    for (const char *word = va_arg(words, const char *); word != NULL; word = va_arg(words, const char *)) {
        assert_true(count < 16);
        args[count++] = slice_text(word);
    }
    va_end(words);
    peer_ask(peer, args, count);
}

static inline bool peer_has_reply(void *context)
{
    const struct peer *peer = context;
    struct resp_reply reply;
    return peer->in != NULL &&
           resp_reply_parse(peer->in + peer->in_read, peer->in_size - peer->in_read, &reply) == RESP_REQUEST;
}

/* The next reply's bytes, whole; good until more is received. */
static inline struct slice peer_reply(struct peer *peer)
{
    struct resp_reply reply;
    assert_true(sim_run_until(peer_has_reply, peer, NODE_STEPS_MAX));
    assert_int_equal(resp_reply_parse(peer->in + peer->in_read, peer->in_size - peer->in_read, &reply), RESP_REQUEST);
    struct slice bytes = slice_make(peer->in + peer->in_read, reply.size);
    peer->in_read += reply.size;
    return bytes;
}

static inline void peer_expect(struct peer *peer, const char *text)
{
    struct slice reply = peer_reply(peer);
    if (!slice_equal(reply, slice_text(text)))
        fail_msg("expected %s, got %.*s", text, (int)reply.size, (const char *)reply.data);
}

static inline void peer_expect_prefix(struct peer *peer, const char *text)
{
    struct slice reply = peer_reply(peer);
    if (reply.size < strlen(text) || memcmp(reply.data, text, strlen(text)) != 0)
        fail_msg("expected %s…, got %.*s", text, (int)reply.size, (const char *)reply.data);
}

/* Asks to write "key0" and so on; the values are the keys. */
static inline void peer_set_keys(struct peer *peer, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%u", i);
        peer_say(peer, "SET", key, key, NULL);
    }
}

/* … all of which are there. */
static inline void peer_expect_keys(struct peer *peer, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[16], reply[48];
        snprintf(key, sizeof(key), "key%u", i);
        snprintf(reply, sizeof(reply), "$%zu\r\n%s\r\n", strlen(key), key);
        peer_say(peer, "GET", key, NULL);
        peer_expect(peer, reply);
    }
}

/* The value of `field` in a section of INFO; NULL when it is not there. Good until the next call. */
static inline const char *peer_info(struct peer *peer, const char *section, const char *field)
{
    static char text[16384];
    char line[64];
    peer_say(peer, "INFO", section, NULL);
    struct slice reply = peer_reply(peer);
    assert_true(reply.size < sizeof(text));
    memcpy(text, reply.data, reply.size);
    text[reply.size] = 0;
    snprintf(line, sizeof(line), "\r\n%s:", field);
    char *at = strstr(text, line);
    if (at == NULL)
        return NULL;
    at += strlen(line);
    at[strcspn(at, "\r")] = 0;
    return at;
}

/* Of the binary protocol. */
static inline void peer_say_frame(struct peer *peer, uint8_t opcode, uint64_t id, const char *key, const void *value,
                                  size_t size)
{
    struct frame_header header = {.magic = FRAME_MAGIC,
                                  .opcode = opcode,
                                  .key_bytes = (uint16_t)strlen(key),
                                  .value_bytes = (uint32_t)size,
                                  .id = id};
    uint8_t *room = peer_room(peer, frame_bytes(strlen(key), size));
    peer->out_size += frame_write(room, &header, slice_text(key), slice_make(value, size));
    peer_push(peer);
}

static inline bool peer_has_frame(void *context)
{
    const struct peer *peer = context;
    struct frame_limits limits = {.key_bytes_max = KVS_KEY_BYTES_MAX, .value_bytes_max = KVS_VALUE_BYTES_MAX};
    struct frame frame;
    return peer->in != NULL &&
           frame_parse(peer->in + peer->in_read, peer->in_size - peer->in_read, &limits, &frame) == FRAME_WHOLE;
}

static inline struct frame peer_next_frame(struct peer *peer)
{
    struct frame_limits limits = {.key_bytes_max = KVS_KEY_BYTES_MAX, .value_bytes_max = KVS_VALUE_BYTES_MAX};
    struct frame frame;
    assert_true(sim_run_until(peer_has_frame, peer, NODE_STEPS_MAX));
    assert_int_equal(frame_parse(peer->in + peer->in_read, peer->in_size - peer->in_read, &limits, &frame),
                     FRAME_WHOLE);
    peer->in_read += frame.size;
    assert_int_equal(frame.header.flags, FRAME_REPLY);
    return frame;
}

static inline struct frame peer_ask_frame(struct peer *peer, uint8_t opcode, const char *key, const char *value)
{
    static uint64_t id = 100;
    peer_say_frame(peer, opcode, ++id, key, value, strlen(value));
    struct frame frame = peer_next_frame(peer);
    assert_int_equal(frame.header.id, id);
    assert_int_equal(frame.header.opcode, opcode);
    return frame;
}

/* Begins the binary protocol, and tells what the node said. */
static inline struct frame_hello peer_say_hello(struct peer *peer)
{
    struct frame_hello hello = {.version_min = FRAME_VERSION, .version_max = FRAME_VERSION};
    peer_say_frame(peer, FRAME_HELLO, 1, "", &hello, sizeof(hello));
    struct frame frame = peer_next_frame(peer);
    assert_int_equal(frame.header.status, FRAME_OK);
    assert_int_equal(frame.value.size, sizeof(hello));
    memcpy(&hello, frame.value.data, sizeof(hello));
    return hello;
}

static inline bool peer_has_ended(void *context)
{
    const struct peer *peer = context;
    return peer->ended;
}

static inline void peer_expect_end(struct peer *peer)
{
    assert_true(sim_run_until(peer_has_ended, peer, NODE_STEPS_MAX));
}

/* After the connection has ended, or with the machine gone. */
static inline void peer_free(struct peer *peer)
{
    free(peer->out);
    free(peer->in);
    free(peer);
}

static inline bool peer_is_idle(void *context)
{
    const struct peer *peer = context;
    return !ring_op_active(&peer->recv_op) && !ring_op_active(&peer->send_op) && !ring_op_active(&peer->connect_op);
}

static inline bool peer_is_connected(void *context)
{
    const struct peer *peer = context;
    return peer->connected;
}

static inline void peer_close(struct peer *peer)
{
    assert_true(sim_run_until(peer_is_connected, peer, NODE_STEPS_MAX));
    ring_shutdown(peer->ring, peer->fd);
    assert_true(sim_run_until(peer_is_idle, peer, NODE_STEPS_MAX));
    ring_close_fd(peer->ring, peer->fd);
    peer_free(peer);
}

#endif
