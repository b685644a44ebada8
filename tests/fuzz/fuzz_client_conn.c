/*
 * fuzz_client_conn.c - a client's connection, on the simulated machine, to a server that says anything at all.
 *
 * Input: a byte of flags (1: RESP, else binary; 2: the server begins with a proper hello; 4: it ends with a reset), a
 * byte for the machine's seed, a byte that says how many requests the client asks at first, and another for how many it
 * asks from inside replies; then the server's script, pieces that begin with their length: 0 lets the machine run.
 *
 * Properties. The connection reports its end exactly once, with a message unless it was asked for; before it, only
 * replies to requests that are under way, in order over RESP, and none after it was asked to close. Whatever the server
 * says, the end comes.
 */
#include "client/client_conn.h"
#include "fuzz_sim.h"
#include "proto/frame.h"

enum { OVER_RESP = 1, HELLO_FIRST = 2, RESET = 4, STEPS_MAX = 20000, ASKED_MAX = 64 };

struct session {
    struct client_conn *conn;
    bool resp, opened, closing, closed;
    unsigned asks_first, asks_later, asked, answers;
    bool answered[ASKED_MAX];
    unsigned choice;
};

struct server {
    struct ring *ring;
    int listen_fd, fd;
    bool accepted, ended;
    struct ring_op accept_op, send_op, recv_op;
    struct iovec iov;
};

/* ---- the client ------------------------------------------------------------------------------------------------ */

static void ask(struct session *session, unsigned count)
{
    for (unsigned i = 0; i < count && session->asked < ASKED_MAX; i++) {
        session->choice = session->choice * 5 + 3;
        const struct client_request request = {.op = (enum client_op)(session->choice / 16 % 5),
                                               .key = slice_text("key"),
                                               .value = slice_text("value"),
                                               .tag = session->asked};
        const enum kvs_err err = client_conn_send(session->conn, &request);
        FUZZ_CHECK(err == KVS_ERR_OK || err == KVS_ERR_AGAIN || err == KVS_ERR_CLOSED);
        if (err == KVS_ERR_OK)
            session->asked++;
    }
}

static void on_opened(void *context)
{
    struct session *session = context;
    FUZZ_CHECK(!session->opened && !session->closed);
    session->opened = true;
    ask(session, session->asks_first);
}

static void on_reply(void *context, uint64_t tag, const struct client_reply *reply)
{
    struct session *session = context;
    FUZZ_CHECK(session->opened && !session->closing && !session->closed);
    FUZZ_CHECK(tag < session->asked && !session->answered[tag]);
    FUZZ_CHECK(!session->resp || tag == session->answers);
    session->answered[tag] = true;
    session->answers++;
    uint8_t *value = fuzz_copy(reply->value.data, reply->value.size); /* all of it can be read */
    free(value);
    if (session->asks_later > 0) {
        session->asks_later--;
        ask(session, 1);
        session->closing = session->asks_later % 8 == 7;
        if (session->closing)
            client_conn_close(session->conn);
    }
}

static void on_closed(void *context, enum kvs_err error, const char *message)
{
    struct session *session = context;
    FUZZ_CHECK(!session->closed && message[0] != '\0');
    FUZZ_CHECK(error != KVS_ERR_OK || session->opened);
    session->closed = true;
    client_conn_free(session->conn);
}

static bool has_closed(void *context)
{
    const struct session *session = context;
    return session->closed;
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

static void on_server_received(struct ring_op *op)
{
    struct server *server = container_of(op, struct server, recv_op);
    if ((op->flags & RING_BUFFER) != 0)
        ring_buffer_release(server->ring, op->buffer_id);
    if ((op->flags & RING_MORE) != 0)
        return;
    if (op->error == KVS_ERR_NO_BUFFERS || (op->error == KVS_ERR_OK && op->bytes > 0))
        ring_recv(server->ring, op, server->fd);
    else
        server->ended = true;
}

static void on_server_sent(struct ring_op *op)
{
    (void)op;
}

static void on_accepted(struct ring_op *op)
{
    struct server *server = container_of(op, struct server, accept_op);
    if (op->error != KVS_ERR_OK)
        return;
    FUZZ_CHECK(!server->accepted);
    server->accepted = true;
    server->fd = op->fd;
    ring_recv(server->ring, &server->recv_op, server->fd);
}

static bool has_accepted(void *context)
{
    const struct server *server = context;
    return server->accepted;
}

static bool has_sent(void *context)
{
    const struct server *server = context;
    return !ring_op_active(&server->send_op);
}

static bool is_idle(void *context)
{
    const struct server *server = context;
    return !ring_op_active(&server->send_op) && !ring_op_active(&server->recv_op);
}

static void server_open(struct server *server, struct ring_addr *addr)
{
    char message[RING_MESSAGE_BYTES];
    *server = (struct server){.fd = -1};
    const struct ring_options options = {.buffer_count = 8, .buffer_bytes = 512};
    FUZZ_CHECK(ring_open(&server->ring, &options, message) == KVS_ERR_OK);
    FUZZ_CHECK(ring_addr_parse_tcp("127.0.0.1:4000", addr) == KVS_ERR_OK);
    FUZZ_CHECK(ring_listen(server->ring, addr, &server->listen_fd) == KVS_ERR_OK);
    ring_op_init(&server->accept_op, on_accepted);
    ring_op_init(&server->send_op, on_server_sent);
    ring_op_init(&server->recv_op, on_server_received);
    ring_accept(server->ring, &server->accept_op, server->listen_fd);
}

static void server_say(struct server *server, struct slice bytes)
{
    if (bytes.size == 0 || server->ended)
        return;
    uint8_t *copy = fuzz_copy(bytes.data, bytes.size);
    server->iov = (struct iovec){copy, bytes.size};
    ring_send(server->ring, &server->send_op, server->fd, &server->iov, 1);
    FUZZ_CHECK(sim_run_until(has_sent, server, STEPS_MAX));
    free(copy);
}

static void server_say_hello(struct server *server)
{
    const struct frame_hello hello = {
        .version_min = FRAME_VERSION, .version_max = FRAME_VERSION, .key_bytes_max = 1000, .value_bytes_max = 1000};
    const struct frame_header header = {.opcode = FRAME_HELLO, .flags = FRAME_REPLY};
    uint8_t bytes[sizeof header + sizeof hello];
    const size_t size = frame_write(bytes, &header, slice_make(NULL, 0), slice_make(&hello, sizeof hello));
    server_say(server, slice_make(bytes, size));
}

static void server_hang_up(struct server *server, bool reset)
{
    if (!reset)
        ring_shutdown(server->ring, server->fd);
    if (ring_op_active(&server->recv_op))
        ring_cancel(server->ring, &server->recv_op);
    FUZZ_CHECK(sim_run_until(is_idle, server, STEPS_MAX));
    ring_close_fd(server->ring, server->fd);
}

/* ---- one input ------------------------------------------------------------------------------------------------- */

FUZZ_SIM_INITIALIZE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    sim_create(fuzz_take(&input, 1));
    struct session session = {.resp = (flags & OVER_RESP) != 0, .choice = flags};
    session.asks_first = (unsigned)fuzz_take(&input, 1) % 32;
    session.asks_later = (unsigned)fuzz_take(&input, 1);
    struct server server;
    struct ring_addr addr;
    server_open(&server, &addr);

    struct ring *ring;
    char message[RING_MESSAGE_BYTES];
    const struct ring_options ring_options = {.buffer_count = 4, .buffer_bytes = 256};
    FUZZ_CHECK(ring_open(&ring, &ring_options, message) == KVS_ERR_OK);
    const struct client_options options = {.protocol = session.resp ? CLIENT_RESP : CLIENT_BINARY,
                                           .requests_max = 16,
                                           .output_bytes_max = 4096,
                                           .reply_bytes_max = 1000};
    const struct client_handlers handlers = {on_opened, on_reply, on_closed};
    FUZZ_CHECK(client_conn_open(&session.conn, ring, &addr, &options, &handlers, &session) == KVS_ERR_OK);
    FUZZ_CHECK(sim_run_until(has_accepted, &server, STEPS_MAX));
    if ((flags & HELLO_FIRST) != 0)
        server_say_hello(&server);
    while (input.size > 0) {
        const size_t piece = fuzz_take(&input, 1);
        if (piece == 0)
            (void)sim_run_until(has_closed, &session, 20);
        else
            server_say(&server, fuzz_take_slice(&input, piece));
    }
    server_hang_up(&server, (flags & RESET) != 0);
    FUZZ_CHECK(sim_run_until(has_closed, &session, STEPS_MAX));
    FUZZ_CHECK(ring_buffers_free(ring) == ring_options.buffer_count);
    sim_destroy();
    return 0;
}
