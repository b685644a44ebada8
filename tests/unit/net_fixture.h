/*
 * net_fixture.h - a struct net with a handler that does as it is told, and clients that talk to it, for its tests.
 *
 * Server and clients have a ring each and share one thread. What stands behind the rings is the including file's
 * choice: net_fixture_sim.h or net_fixture_kernel.h. Nothing happens but in world_step.
 *
 * What the handler answers to RESP (frames: PING, SET and GET as ECHO, GATED and DEFER; REMOVE as GATED after DEFER):
 *   ECHO x    x                            at once
 *   GATED x   x, behind a gate             at once; gates count up from 1
 *   DEFER x   x                            when the test calls fixture_fill
 *   BIG n     n bytes 'b'                  at once
 *   SUM x…    CRC32C of all arguments      at once
 *   KEEP x    CRC32C of x, which the handler keeps in the memory it came in, until it has answered; -1: it cannot
 *   HOARD x   the same, but it keeps it until
 *   LET       OK; it gives back all that it has kept of this connection
 *   ROOM n    OK, with room for n bytes reserved
 *   QUIT      OK, and the end
 */
#ifndef KVS_TESTS_NET_FIXTURE_H
#define KVS_TESTS_NET_FIXTURE_H

#include "base/crc32c.h"
#include "net/net.h"
#include "ring/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELD_MAX    100000
#define HOARD_MAX   64
#define CLIENTS_MAX 256

struct fixture;

/* A deferred reply. */
struct held {
    struct net_slot slot;
    uint8_t *data;
    size_t size;
    bool filled;
    unsigned released;
};

struct client {
    struct fixture *fixture;
    struct ring_op connect, recv, send;
    struct ring_addr addr;
    struct iovec iov;
    int fd;
    bool reading;
    bool sending;
    bool closed;  /* the server has ended the connection, or it broke */
    uint8_t *out; /* what is still to be sent, from out_at on */
    size_t out_at, out_size;
    uint8_t *in; /* everything received so far, from in_at on not looked at yet */
    size_t in_at, in_size, in_capacity;
};

struct fixture {
    struct ring *server, *client;
    struct net *net;
    struct net_options options;
    struct ring_options ring_options;
    struct ring_addr addr;
    int listen_fd;
    bool flushing; /* net_flush once per turn; a test may hold it back */

    uint64_t gate;
    struct held *held[HELD_MAX];
    size_t held_count;
    struct {
        const struct net_conn *conn;
        struct large_memory *memory; /* NULL: a place that is free */
    } hoard[HOARD_MAX];
    size_t requests;
    size_t requests_turn_max; /* most requests seen in one turn */
    size_t requests_turn;
    unsigned opened, ended;
    int batch_depth;
    uint8_t user_seen;

    struct client *clients[CLIENTS_MAX];
    size_t client_count;
};

/* The including file's part. */
static void world_boot(struct fixture *fixture);
/* Turns the rings a little; false: nothing will ever happen again. */
static bool world_step(struct fixture *fixture);
static void world_halt(struct fixture *fixture);

/* ---- the handler ------------------------------------------------------------------------------------------------ */

static inline void fixture_batch_begin(void *context)
{
    struct fixture *fixture = context;
    assert_int_equal(fixture->batch_depth++, 0);
}

static inline void fixture_batch_end(void *context)
{
    struct fixture *fixture = context;
    assert_int_equal(--fixture->batch_depth, 0);
}

static inline void fixture_opened(void *context, struct net_conn *conn)
{
    struct fixture *fixture = context;
    uint8_t *user = net_conn_user(conn);
    assert_int_equal(*user, 0);
    *user = 0x77;
    fixture->opened++;
}

static inline void fixture_hoard(struct fixture *fixture, const struct net_conn *conn, struct large_memory *memory)
{
    size_t i = 0;
    while (fixture->hoard[i].memory != NULL)
        assert_true(++i < HOARD_MAX);
    fixture->hoard[i].conn = conn;
    fixture->hoard[i].memory = memory;
}

static inline void fixture_let(struct fixture *fixture, const struct net_conn *conn)
{
    for (size_t i = 0; i < HOARD_MAX; i++) {
        if (fixture->hoard[i].conn == conn) {
            large_memory_give(fixture->hoard[i].memory);
            fixture->hoard[i].memory = NULL;
            fixture->hoard[i].conn = NULL;
        }
    }
}

static inline void fixture_closed(void *context, struct net_conn *conn)
{
    struct fixture *fixture = context;
    fixture_let(fixture, conn);
    assert_int_equal(*(uint8_t *)net_conn_user(conn), 0x77);
    fixture->ended++;
    for (size_t i = 0; i < fixture->held_count; i++) {
        if (fixture->held[i]->slot.conn == conn)
            assert_int_equal(fixture->held[i]->released, 1);
    }
}

static inline void held_released(struct net_slot *slot)
{
    struct held *held = container_of(slot, struct held, slot);
    assert_true(held->filled);
    assert_int_equal(held->released, 0);
    held->released++;
    /* Whoever still reads it now will be found out. */
    free(held->data);
    held->data = NULL;
}

static inline void fixture_count(struct fixture *fixture)
{
    assert_int_equal(fixture->batch_depth, 1);
    fixture->requests++;
    if (++fixture->requests_turn > fixture->requests_turn_max)
        fixture->requests_turn_max = fixture->requests_turn;
}

static inline void fixture_defer(struct fixture *fixture, struct net_conn *conn, uint8_t *data, size_t size)
{
    assert_true(fixture->held_count < HELD_MAX);
    struct held *held = calloc(1, sizeof *held);
    held->data = data;
    held->size = size;
    held->slot.released = held_released;
    fixture->held[fixture->held_count++] = held;
    net_reply_defer(conn, &held->slot);
    held->slot.released = held_released;
}

/* Fills a deferred reply, with a gate or 0. */
static inline void fixture_fill(struct fixture *fixture, size_t index, uint64_t gate)
{
    struct held *held = fixture->held[index];
    assert_false(held->filled);
    held->filled = true;
    net_slot_fill(&held->slot, held->data, held->size, gate);
}

static inline void fixture_request(void *context, struct net_conn *conn, const struct slice *args, unsigned count)
{
    struct fixture *fixture = context;
    fixture_count(fixture);
    const struct slice x = count > 1 ? args[1] : slice_make("", 0);
    if (slice_equal(args[0], slice_text("DEFER"))) {
        uint8_t *data = malloc(resp_bulk_bytes(x.size));
        fixture_defer(fixture, conn, data, resp_write_bulk(data, x));
        return;
    }
    const bool sized = slice_equal(args[0], slice_text("BIG")) || slice_equal(args[0], slice_text("ROOM"));
    const size_t number = sized ? strtoul((const char *)x.data, NULL, 10) : 0;
    uint8_t *out = net_reply_reserve(conn, resp_bulk_bytes(x.size) + number + RESP_HEADER_BYTES_MAX);
    assert_non_null(out);
    if (slice_equal(args[0], slice_text("ECHO"))) {
        net_reply_commit(conn, resp_write_bulk(out, x), 0);
    } else if (slice_equal(args[0], slice_text("GATED"))) {
        net_reply_commit(conn, resp_write_bulk(out, x), ++fixture->gate);
    } else if (slice_equal(args[0], slice_text("BIG"))) {
        size_t size = resp_write_bulk_header(out, number);
        memset(out + size, 'b', number);
        memcpy(out + size + number, "\r\n", 2);
        net_reply_commit(conn, size + number + 2, 0);
    } else if (slice_equal(args[0], slice_text("KEEP")) || slice_equal(args[0], slice_text("HOARD"))) {
        const bool hoards = slice_equal(args[0], slice_text("HOARD"));
        struct large_memory *kept = net_request_keep(conn);
        net_reply_commit(conn, resp_write_integer(out, kept != NULL ? (int64_t)crc32c(0, x.data, x.size) : -1), 0);
        if (hoards && kept != NULL)
            fixture_hoard(fixture, conn, kept);
        else
            large_memory_give(kept);
    } else if (slice_equal(args[0], slice_text("LET"))) {
        fixture_let(fixture, conn);
        net_reply_commit(conn, resp_write_simple(out, "OK"), 0);
    } else if (slice_equal(args[0], slice_text("SUM"))) {
        uint32_t sum = 0;
        for (unsigned i = 1; i < count; i++)
            sum = crc32c(sum, args[i].data, args[i].size);
        net_reply_commit(conn, resp_write_integer(out, sum), 0);
    } else {
        if (slice_equal(args[0], slice_text("QUIT")))
            net_conn_finish(conn);
        net_reply_commit(conn, resp_write_simple(out, "OK"), 0);
    }
}

static inline void fixture_frame(void *context, struct net_conn *conn, const struct frame *frame)
{
    struct fixture *fixture = context;
    fixture_count(fixture);
    const struct frame_header header = {.opcode = frame->header.opcode, .flags = FRAME_REPLY, .id = frame->header.id};
    const struct slice none = slice_make(NULL, 0);
    if (header.opcode == FRAME_GET || header.opcode == FRAME_REMOVE) {
        uint8_t *data = malloc(frame_bytes(0, frame->value.size));
        fixture_defer(fixture, conn, data, frame_write(data, &header, none, frame->value));
        return;
    }
    uint8_t *out = net_reply_reserve(conn, frame_bytes(0, frame->value.size));
    assert_non_null(out);
    const size_t size = frame_write(out, &header, none, frame->value);
    net_reply_commit(conn, size, header.opcode == FRAME_SET ? ++fixture->gate : 0);
}

static const struct net_handler fixture_handler = {
    .batch_begin = fixture_batch_begin,
    .batch_end = fixture_batch_end,
    .resp_request = fixture_request,
    .frame_request = fixture_frame,
    .opened = fixture_opened,
    .closed = fixture_closed,
};

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

/* A fixture with options for the test to change before fixture_open. */
static inline struct fixture *fixture_create(void)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->options = (struct net_options){
        .connections_max = 100,
        .output_bytes_max = 1 << 20,
        .requests_max = 10000,
        .resp = {.args_max = 100000, .arg_bytes_max = 4 << 20, .inline_bytes_max = 65536},
        .frame = {.key_bytes_max = 1000, .value_bytes_max = 1 << 20},
        .hello = {.key_bytes_max = 1000, .value_bytes_max = 1 << 20, .requests_max = 10000, .shard_count = 3},
        .conn_user_bytes = 100,
    };
    fixture->ring_options = (struct ring_options){.entries = 256, .buffer_count = 64, .buffer_bytes = 4096};
    fixture->flushing = true;
    return fixture;
}

/* What a shard does in each turn of its loop. */
static inline void fixture_after_turn(struct fixture *fixture)
{
    fixture->requests_turn = 0;
    if (fixture->flushing && fixture->net != NULL)
        net_flush(fixture->net);
}

static inline void fixture_open(struct fixture *fixture)
{
    world_boot(fixture);
    struct net_handler handler = fixture_handler;
    handler.context = fixture;
    assert_int_equal(net_open(&fixture->net, fixture->server, &fixture->options, &handler), KVS_ERR_OK);
    assert_int_equal(ring_addr_parse_tcp("127.0.0.1:0", &fixture->addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(fixture->server, &fixture->addr, &fixture->listen_fd), KVS_ERR_OK);
    assert_int_equal(ring_local_addr(fixture->server, fixture->listen_fd, &fixture->addr), KVS_ERR_OK);
    assert_int_equal(net_accept(fixture->net, fixture->listen_fd), KVS_ERR_OK);
}

static inline struct fixture *fixture_start(void)
{
    struct fixture *fixture = fixture_create();
    fixture_open(fixture);
    return fixture;
}

static inline struct net_stats fixture_stats(const struct fixture *fixture)
{
    struct net_stats stats;
    net_stats(fixture->net, &stats);
    return stats;
}

#define STEPS_MAX 3000000

/* Steps until the condition, which is any expression, holds. */
#define wait_until(fixture, condition)                              \
    do {                                                            \
        unsigned long steps = 0;                                    \
        while (!(condition)) {                                      \
            const bool stepped = world_step(fixture);               \
            if ((!stepped && !(condition)) || ++steps == STEPS_MAX) \
                fail_msg("never came true: %s", #condition);        \
        }                                                           \
    } while (0)

/* Lets happen what would happen anyway. */
static inline void fixture_idle(struct fixture *fixture)
{
    for (int i = 0; i < 300; i++) {
        if (!world_step(fixture))
            return;
    }
}

static inline void client_free(struct client *client)
{
    free(client->in);
    free(client->out);
    free(client);
}

/* Fills what is pending, drops all connections, and sees that everything is given back. */
static inline void fixture_stop(struct fixture *fixture)
{
    net_abort(fixture->net);
    for (size_t i = 0; i < fixture->held_count; i++) {
        if (!fixture->held[i]->filled)
            fixture_fill(fixture, i, 0);
    }
    wait_until(fixture, net_drained(fixture->net));
    assert_int_equal(fixture->opened, fixture->ended);
    for (size_t i = 0; i < fixture->held_count; i++) {
        assert_int_equal(fixture->held[i]->released, 1);
        free(fixture->held[i]);
    }
    assert_int_equal(fixture_stats(fixture).connections, 0);
    net_close(fixture->net);
    fixture->net = NULL;
    ring_close_fd(fixture->server, fixture->listen_fd);
    for (size_t i = 0; i < fixture->client_count; i++) {
        if (fixture->clients[i]->fd >= 0)
            ring_shutdown(fixture->client, fixture->clients[i]->fd);
    }
    world_halt(fixture);
    for (size_t i = 0; i < fixture->client_count; i++)
        client_free(fixture->clients[i]);
    free(fixture);
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static inline void client_received(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, recv);
    if ((op->flags & RING_MORE) == 0)
        client->reading = false;
    if (op->flags & RING_BUFFER) {
        if (client->in_size + op->bytes > client->in_capacity) {
            client->in_capacity = 2 * client->in_capacity + op->bytes;
            client->in = realloc(client->in, client->in_capacity);
        }
        memcpy(client->in + client->in_size, ring_buffer_data(client->fixture->client, op->buffer_id), op->bytes);
        client->in_size += op->bytes;
        ring_buffer_release(client->fixture->client, op->buffer_id);
    }
    if (op->error == KVS_ERR_OK ? op->bytes == 0 : op->error != KVS_ERR_NO_BUFFERS && op->error != KVS_ERR_CANCELLED)
        client->closed = true;
    else if (!client->reading && op->error != KVS_ERR_CANCELLED) {
        client->reading = true;
        ring_recv(client->fixture->client, &client->recv, client->fd);
    }
}

static inline void client_read(struct client *client)
{
    assert_false(client->reading);
    client->reading = true;
    ring_recv(client->fixture->client, &client->recv, client->fd);
}

/* Reads nothing until client_read. */
static inline void client_pause(struct client *client)
{
    ring_cancel(client->fixture->client, &client->recv);
    wait_until(client->fixture, !client->reading);
}

static inline void client_pump(struct client *client)
{
    if (client->sending || client->out_at == client->out_size || client->fd < 0 || client->closed)
        return;
    client->sending = true;
    client->iov = (struct iovec){client->out + client->out_at, client->out_size - client->out_at};
    client->out_at = client->out_size;
    ring_send(client->fixture->client, &client->send, client->fd, &client->iov, 1);
}

static inline void client_sent(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, send);
    client->sending = false;
    client_pump(client);
}

static inline void client_connected(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, connect);
    assert_int_equal(op->error, KVS_ERR_OK);
    client->fd = op->fd;
}

/* Connects, and reads nothing yet. */
static inline struct client *client_open_silent(struct fixture *fixture)
{
    struct client *client = calloc(1, sizeof *client);
    assert_true(fixture->client_count < CLIENTS_MAX);
    fixture->clients[fixture->client_count++] = client;
    client->fixture = fixture;
    client->fd = -1;
    client->addr = fixture->addr;
    ring_op_init(&client->connect, client_connected);
    ring_op_init(&client->recv, client_received);
    ring_op_init(&client->send, client_sent);
    ring_connect(fixture->client, &client->connect, &client->addr);
    wait_until(fixture, client->fd >= 0);
    return client;
}

static inline struct client *client_open(struct fixture *fixture)
{
    struct client *client = client_open_silent(fixture);
    client_read(client);
    return client;
}

/* Sends as soon as what was sent before has gone; returns at once. */
static inline void client_send(struct client *client, const void *data, size_t size)
{
    assert_false(client->sending); /* what is being sent must not move */
    if (client->out_at == client->out_size)
        client->out_at = client->out_size = 0;
    client->out = realloc(client->out, client->out_size + size);
    memcpy(client->out + client->out_size, data, size);
    client->out_size += size;
    client_pump(client);
}

static inline void client_say(struct client *client, const char *text)
{
    wait_until(client->fixture, !client->sending);
    client_send(client, text, strlen(text));
}

/* Waits for exactly these bytes. */
static inline void client_expect_bytes(struct client *client, const void *data, size_t size)
{
    wait_until(client->fixture, client->in_size - client->in_at >= size || client->closed);
    const size_t there = client->in_size - client->in_at;
    if (there < size || memcmp(client->in + client->in_at, data, size) != 0)
        fail_msg("expected \"%.*s\", got \"%.*s\"", (int)(size < 200 ? size : 200), (const char *)data,
                 (int)(there < 200 ? there : 200), (const char *)client->in + client->in_at);
    client->in_at += size;
}

static inline void client_expect(struct client *client, const char *text)
{
    client_expect_bytes(client, text, strlen(text));
}

/* Nothing (more) comes, whatever happens. */
static inline void client_expect_silence(struct client *client)
{
    fixture_idle(client->fixture);
    if (client->in_size != client->in_at)
        fail_msg("expected nothing, got \"%.*s\"", (int)(client->in_size - client->in_at),
                 (const char *)client->in + client->in_at);
}

static inline void client_expect_end(struct client *client)
{
    wait_until(client->fixture, client->closed);
    assert_int_equal(client->in_size, client->in_at);
}

/* Goes away without another word. */
static inline void client_leave(struct client *client)
{
    ring_shutdown(client->fixture->client, client->fd);
    wait_until(client->fixture, !client->reading && !client->sending);
    ring_close_fd(client->fixture->client, client->fd);
    client->fd = -1;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static inline void client_send_frame(struct client *client, uint8_t opcode, uint64_t id, const void *value, size_t size)
{
    const struct frame_header header = {.opcode = opcode, .id = id};
    uint8_t *bytes = malloc(frame_bytes(0, size));
    const size_t total = frame_write(bytes, &header, slice_make(NULL, 0), slice_make(value, size));
    wait_until(client->fixture, !client->sending);
    client_send(client, bytes, total);
    free(bytes);
}

/* Waits for the next frame; its value stays in client->in. */
static inline struct frame client_next_frame(struct client *client)
{
    const struct frame_limits limits = {.key_bytes_max = 65535, .value_bytes_max = UINT32_MAX};
    struct frame frame;
    wait_until(client->fixture, client->closed || (client->in != NULL && frame_parse(client->in + client->in_at,
                                                                                     client->in_size - client->in_at,
                                                                                     &limits, &frame) != FRAME_MORE));
    assert_int_equal(frame_parse(client->in + client->in_at, client->in_size - client->in_at, &limits, &frame),
                     FRAME_WHOLE);
    assert_int_equal(frame.header.flags, FRAME_REPLY);
    client->in_at += frame.size;
    return frame;
}

static inline void client_expect_frame(struct client *client, uint8_t opcode, uint64_t id, uint8_t status,
                                       const char *value)
{
    const struct frame frame = client_next_frame(client);
    assert_int_equal(frame.header.id, id);
    assert_int_equal(frame.header.opcode, opcode);
    assert_int_equal(frame.header.status, status);
    if (value != NULL && !slice_equal(frame.value, slice_text(value)))
        fail_msg("expected \"%s\", got \"%.*s\"", value, (int)frame.value.size, (const char *)frame.value.data);
}

static inline struct client *client_open_frames(struct fixture *fixture)
{
    struct client *client = client_open(fixture);
    const struct frame_hello hello = {.version_min = 1, .version_max = 1};
    client_send_frame(client, FRAME_HELLO, 77, &hello, sizeof hello);
    client_expect_frame(client, FRAME_HELLO, 77, FRAME_OK, NULL);
    return client;
}

#endif
