/*
 * client_conn.c - see client_conn.h.
 *
 *   client_conn_send ──► out[filling] ──flush──► out[1 - filling] ──send──► server
 *                                                                             │
 *   reply callback ◄── decode ◄── receive buffer of the ring ◄──multishot─────┘
 *                         └── `partial`: a reply cut by the end of a receive buffer
 *
 * Happy path: connect; over the binary protocol exchange hellos; then requests gather in one output buffer while the
 * other is being sent, and replies are decoded where the kernel put them. Only a reply that lies across two receive
 * buffers is copied together.
 *
 * Failure modes: connecting fails, a send or receive fails, the peer closes, the stream is no protocol. Each leads to
 * fail(), which keeps the first reason, shuts the socket and cancels what is in flight; when the last operation has
 * completed, finish() closes the descriptor and reports once. A callback of the user may close the connection at any
 * point; `dispatching` keeps finish() from running underneath the loop that called it.
 */
#include "client/client_conn.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum conn_state { CONN_CONNECTING, CONN_GREETING, CONN_OPEN, CONN_CLOSING, CONN_CLOSED };

#define OUTPUT_BYTES_FIRST 4096u
/* First bite taken from a receive buffer to complete a cut reply: more than most replies, cheap to copy. */
#define STITCH_BYTES 512u

struct buffer {
    uint8_t *data;
    size_t size, capacity;
};

struct client_conn {
    struct ring *ring;
    const struct client_handlers *handlers;
    void *context;
    struct client_codec codec;
    enum conn_state state;
    bool dispatching;
    int fd;
    unsigned filling; /* which of out[] takes requests; the other is being sent or empty */
    struct buffer out[2];
    struct buffer partial; /* the beginning of a reply whose rest has not come */
    struct iovec iov;
    uint64_t seen_ns;
    uint32_t output_bytes_max;
    struct ring_op connect_op, recv_op, send_op;
    struct ring_addr addr;
    enum kvs_err error; /* the first thing that went wrong; OK when closed on request */
    char message[RING_ADDR_TEXT_BYTES + 256];
};

/* ---- buffers --------------------------------------------------------------------------------------------------- */

/* Makes room for `more` bytes behind what is there. */
static bool buffer_reserve(struct buffer *buffer, size_t more)
{
    if (more <= buffer->capacity - buffer->size)
        return true;
    size_t wanted = buffer->size + more;
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : OUTPUT_BYTES_FIRST;
    while (capacity < wanted)
        capacity *= 2;
    uint8_t *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

static bool buffer_append(struct buffer *buffer, const uint8_t *data, size_t size)
{
    if (!buffer_reserve(buffer, size))
        return false;
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return true;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void finish(struct client_conn *conn)
{
    if (conn->state != CONN_CLOSING || conn->dispatching)
        return;
    if (ring_op_active(&conn->connect_op) || ring_op_active(&conn->recv_op) || ring_op_active(&conn->send_op))
        return;
    if (conn->fd >= 0)
        ring_close_fd(conn->ring, conn->fd);
    conn->fd = -1;
    conn->state = CONN_CLOSED;
    conn->handlers->closed(conn->context, conn->error, conn->message);
}

static void begin_close(struct client_conn *conn, enum kvs_err error)
{
    conn->error = error;
    conn->state = CONN_CLOSING;
    if (ring_op_active(&conn->connect_op))
        ring_cancel(conn->ring, &conn->connect_op);
    if (conn->fd < 0)
        return;
    ring_shutdown(conn->ring, conn->fd);
    if (ring_op_active(&conn->recv_op))
        ring_cancel(conn->ring, &conn->recv_op);
    if (ring_op_active(&conn->send_op))
        ring_cancel(conn->ring, &conn->send_op);
}

/* Keeps the first reason and starts the end. The caller comes to finish() on its way out. */
static void __attribute__((format(printf, 3, 4)))
fail(struct client_conn *conn, enum kvs_err error, const char *format, ...)
{
    if (conn->state >= CONN_CLOSING)
        return;
    char address[RING_ADDR_TEXT_BYTES];
    int used = snprintf(conn->message, sizeof(conn->message), "%s: ", ring_addr_format(&conn->addr, address));
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(conn->message + used, sizeof(conn->message) - (size_t)used, format, arguments);
    va_end(arguments);
    begin_close(conn, error);
}

void client_conn_close(struct client_conn *conn)
{
    if (conn->state >= CONN_CLOSING)
        return;
    snprintf(conn->message, sizeof(conn->message), "closed by the caller");
    begin_close(conn, KVS_ERR_OK);
    finish(conn);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

void client_conn_flush(struct client_conn *conn)
{
    struct buffer *ready = &conn->out[conn->filling];
    if (conn->state >= CONN_CLOSING || ready->size == 0 || ring_op_active(&conn->send_op))
        return;
    conn->filling = 1 - conn->filling;
    conn->iov = (struct iovec){.iov_base = ready->data, .iov_len = ready->size};
    ring_send(conn->ring, &conn->send_op, conn->fd, &conn->iov, 1);
}

static void on_sent(struct ring_op *op)
{
    struct client_conn *conn = container_of(op, struct client_conn, send_op);
    conn->out[1 - conn->filling].size = 0;
    if (op->error != KVS_ERR_OK)
        fail(conn, op->error, "cannot send: %s", ring_op_text(op));
    client_conn_flush(conn);
    finish(conn);
}

enum kvs_err client_conn_send(struct client_conn *conn, const struct client_request *request)
{
    if (conn->state != CONN_OPEN)
        return KVS_ERR_CLOSED;
    enum kvs_err err = client_codec_check(&conn->codec, request);
    if (err != KVS_ERR_OK)
        return err;
    struct buffer *out = &conn->out[conn->filling];
    size_t bytes_max = client_codec_bytes_max(request);
    if (bytes_max > conn->output_bytes_max)
        return KVS_ERR_TOO_LARGE;
    if (bytes_max > conn->output_bytes_max - out->size)
        return KVS_ERR_AGAIN;
    if (!buffer_reserve(out, bytes_max))
        return KVS_ERR_NO_MEMORY;
    out->size += client_codec_encode(&conn->codec, request, out->data + out->size);
    return KVS_ERR_OK;
}

uint32_t client_conn_pending(const struct client_conn *conn)
{
    return conn->codec.count;
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

static void take_hello(struct client_conn *conn, const struct client_reply *reply)
{
    if (reply->error == KVS_ERR_OK) {
        conn->state = CONN_OPEN;
        conn->handlers->opened(conn->context);
        return;
    }
    fail(conn, reply->error, "the server refuses the connection: %s%s%.*s", kvs_err_text(reply->error),
         reply->value.size > 0 ? ": " : "", (int)(reply->value.size < 128 ? reply->value.size : 128),
         (const char *)reply->value.data);
}

/* Decodes one reply and hands it out. REPLY: out->size bytes were used. After BROKEN the connection is closing. */
static enum client_decode take_reply(struct client_conn *conn, const uint8_t *data, size_t size,
                                     struct client_decoded *out)
{
    bool greeting = conn->state == CONN_GREETING;
    enum client_decode result =
        greeting ? client_codec_read_hello(data, size, out) : client_codec_decode(&conn->codec, data, size, out);
    if (result == CLIENT_DECODE_BROKEN)
        fail(conn, out->error, "%s", out->text);
    if (result != CLIENT_DECODE_REPLY)
        return result;
    if (greeting) {
        take_hello(conn, &out->reply);
    } else {
        out->reply.seen_ns = conn->seen_ns;
        conn->handlers->reply(conn->context, out->tag, &out->reply);
    }
    return CLIENT_DECODE_REPLY;
}

/*
 * Completes the reply whose beginning is in `partial` with bytes from `data`; returns how many of them it used. More
 * than needed may be copied: all of the surplus came from `data`, so giving it back is a matter of counting.
 */
static size_t stitch(struct client_conn *conn, const uint8_t *data, size_t size)
{
    struct buffer *partial = &conn->partial;
    size_t used = 0;
    size_t bite = STITCH_BYTES;
    while (used < size && conn->state < CONN_CLOSING) {
        size_t take = size - used < bite ? size - used : bite;
        if (!buffer_append(partial, data + used, take)) {
            fail(conn, KVS_ERR_NO_MEMORY, "no memory for a reply of over %zu bytes", partial->size);
            return size;
        }
        used += take;
        struct client_decoded decoded;
        enum client_decode result = take_reply(conn, partial->data, partial->size, &decoded);
        if (result == CLIENT_DECODE_REPLY) {
            KVS_ASSERT(decoded.size <= partial->size && partial->size - decoded.size < used);
            used -= partial->size - decoded.size;
            partial->size = 0;
            return used;
        }
        /* Where the reply's size is known its room is taken at once, instead of by doubling. */
        if (result == CLIENT_DECODE_MORE && decoded.size > partial->size)
            (void)buffer_reserve(partial, decoded.size - partial->size);
        bite = size;
    }
    return used;
}

static void take_bytes(struct client_conn *conn, const uint8_t *data, size_t size)
{
    while (size > 0 && conn->state < CONN_CLOSING) {
        if (conn->partial.size > 0) {
            size_t used = stitch(conn, data, size);
            data += used;
            size -= used;
            continue;
        }
        struct client_decoded decoded;
        enum client_decode result = take_reply(conn, data, size, &decoded);
        if (result == CLIENT_DECODE_REPLY) {
            KVS_ASSERT(decoded.size > 0 && decoded.size <= size);
            data += decoded.size;
            size -= decoded.size;
            continue;
        }
        if (result == CLIENT_DECODE_MORE && !buffer_append(&conn->partial, data, size))
            fail(conn, KVS_ERR_NO_MEMORY, "no memory for the beginning of a reply");
        break;
    }
    /* RESP aggregates have no length to check beforehand, so what has piled up is bounded here. */
    if (conn->partial.size > (size_t)conn->codec.reply_bytes_max + 64 * 1024)
        fail(conn, KVS_ERR_TOO_LARGE, "a reply of over %u bytes", conn->codec.reply_bytes_max);
}

static void on_received(struct ring_op *op)
{
    struct client_conn *conn = container_of(op, struct client_conn, recv_op);
    conn->dispatching = true;
    if ((op->flags & RING_BUFFER) != 0) {
        if (conn->state < CONN_CLOSING) {
            conn->seen_ns = ring_now_ns(conn->ring);
            take_bytes(conn, ring_buffer_data(conn->ring, op->buffer_id), op->bytes);
        }
        ring_buffer_release(conn->ring, op->buffer_id);
    } else if (op->error == KVS_ERR_OK) {
        fail(conn, KVS_ERR_CLOSED, "the server closed the connection%s",
             conn->codec.count > 0 ? " with requests under way" : "");
    } else if (op->error != KVS_ERR_NO_BUFFERS) {
        fail(conn, op->error, "cannot receive: %s", ring_op_text(op));
    }
    conn->dispatching = false;
    /* This connection keeps no receive buffer, so after NO_BUFFERS there will be some as soon as the ring turns. */
    if (conn->state < CONN_CLOSING && (op->flags & RING_MORE) == 0)
        ring_recv(conn->ring, op, conn->fd);
    client_conn_flush(conn);
    finish(conn);
}

/* ---- the beginning --------------------------------------------------------------------------------------------- */

static void on_connected(struct ring_op *op)
{
    struct client_conn *conn = container_of(op, struct client_conn, connect_op);
    if (op->error == KVS_ERR_OK)
        conn->fd = op->fd;
    if (conn->state == CONN_CLOSING) {
        finish(conn);
        return;
    }
    if (op->error != KVS_ERR_OK) {
        bool nobody = op->error == KVS_ERR_REFUSED || op->error == KVS_ERR_NOT_FOUND;
        fail(conn, op->error, "cannot connect: %s%s", ring_op_text(op),
             nobody ? " (is the server running, and is this its address?)" : "");
        finish(conn);
        return;
    }
    ring_recv(conn->ring, &conn->recv_op, conn->fd);
    if (conn->codec.protocol == CLIENT_BINARY) {
        conn->state = CONN_GREETING;
        struct buffer *out = &conn->out[conn->filling];
        out->size += client_codec_write_hello(out->data + out->size);
    } else {
        conn->state = CONN_OPEN;
        conn->dispatching = true;
        conn->handlers->opened(conn->context);
        conn->dispatching = false;
    }
    client_conn_flush(conn);
    finish(conn);
}

enum kvs_err client_conn_open(struct client_conn **out, struct ring *ring, const struct ring_addr *addr,
                              const struct client_options *options, const struct client_handlers *handlers,
                              void *context)
{
    KVS_ASSERT(options->output_bytes_max > 0 && options->reply_bytes_max > 0);
    struct client_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL)
        return KVS_ERR_NO_MEMORY;
    conn->ring = ring;
    conn->handlers = handlers;
    conn->context = context;
    conn->fd = -1;
    conn->addr = *addr;
    conn->output_bytes_max = options->output_bytes_max;
    enum kvs_err err =
        client_codec_init(&conn->codec, options->protocol, options->requests_max, options->reply_bytes_max);
    if (err != KVS_ERR_OK || !buffer_reserve(&conn->out[0], OUTPUT_BYTES_FIRST) ||
        !buffer_reserve(&conn->out[1], OUTPUT_BYTES_FIRST)) {
        client_conn_free(conn);
        return KVS_ERR_NO_MEMORY;
    }
    ring_op_init(&conn->connect_op, on_connected);
    ring_op_init(&conn->recv_op, on_received);
    ring_op_init(&conn->send_op, on_sent);
    ring_connect(ring, &conn->connect_op, &conn->addr);
    *out = conn;
    return KVS_ERR_OK;
}

void client_conn_free(struct client_conn *conn)
{
    if (conn == NULL)
        return;
    client_codec_deinit(&conn->codec);
    free(conn->out[0].data);
    free(conn->out[1].data);
    free(conn->partial.data);
    free(conn);
}
