/*
 * net_request.c - from received bytes to requests.
 *
 * Happy path: conn_handle is given a receive buffer, finds one whole request after the other in it, hands each to the
 * handler where it lies, and says how many bytes that took. The first byte of a connection has told its protocol.
 *
 * Failure modes:
 *   - Not RESP: one error, and the end of the connection after the replies before it. A RESP request whose arguments
 * are each within the limits but together are not (request_bytes_max) is refused the same way.
 *   - Not a frame, no hello, or a hello of another version: a reply that names what is wrong, and the end.
 *   - A frame over the limits: TOO_LARGE, and its bytes are skipped as they come.
 *   - Too many requests at once, or too much output: conn->hold, and the rest of the bytes is left for later.
 */
#include "net/net_internal.h"

#include <limits.h>
#include <stdio.h>

#define ERROR_TEXT_BYTES 160

static void reply_error(struct net_conn *conn, const char *text)
{
    uint8_t *out = net_reply_reserve(conn, strlen(text) + RESP_HEADER_BYTES_MAX);
    if (out == NULL)
        return;
    conn->answered = false;
    net_reply_commit(conn, resp_write_error(out, text), 0);
}

static void reply_frame(struct net_conn *conn, const struct frame_header *request, enum frame_status status,
                        struct slice value)
{
    uint8_t *out = net_reply_reserve(conn, frame_bytes(0, value.size));
    if (out == NULL)
        return;
    const struct frame_header header = {
        .opcode = request->opcode, .flags = FRAME_REPLY, .status = (uint8_t)status, .id = request->id};
    conn->answered = false;
    net_reply_commit(conn, frame_write(out, &header, slice_make(NULL, 0), value), 0);
}

/* The peer does not keep to the protocol: replies so far still leave. */
static void give_up(struct net_conn *conn)
{
    net_count(&conn->net->stats.connections_dropped, 1);
    conn_end(conn);
}

/* One more request has been handled: may the next one be? */
static inline void count_request(struct net_conn *conn)
{
    conn->turn_requests++;
    conn->hold = (uint8_t)conn_must_hold(conn);
}

/* ---- RESP ------------------------------------------------------------------------------------------------------- */

/* Doubles the room for arguments: what a client announces costs nothing before it comes. */
static bool grow_args(struct net_conn *conn)
{
    struct resp_parser *parser = &conn->parser;
    const bool own = parser->args != conn->args;
    const size_t old_bytes = (size_t)parser->args_capacity * sizeof *parser->args;
    uint64_t capacity = 2 * (uint64_t)parser->args_capacity;
    if (share_is_out(conn))
        return false;
    if (parser->argc == 0 || capacity > parser->argc_total) /* an inline command is counted before it is split */
        capacity = parser->argc_total;
    struct resp_arg *args =
        share_resize_args(conn->net, own ? parser->args : NULL, own ? old_bytes : 0, capacity * sizeof *args);
    if (args == NULL)
        return false;
    if (!own)
        memcpy(args, conn->args, old_bytes);
    parser->args = args;
    parser->args_capacity = (uint32_t)capacity;
    return true;
}

/* Gives back an array that only an unusually long request needed. */
static void shrink_args(struct net_conn *conn)
{
    struct resp_parser *parser = &conn->parser;
    if (parser->args == conn->args)
        return;
    share_resize_args(conn->net, parser->args, (size_t)parser->args_capacity * sizeof *parser->args, 0);
    parser->args = conn->args;
    parser->args_capacity = NET_ARGS_INLINE;
}

static bool resize_slices(struct net *net, uint32_t count)
{
    const size_t old_bytes = (size_t)net->slice_capacity * sizeof *net->slices;
    struct slice *slices = net_resize(net, net->slices, old_bytes, (size_t)count * sizeof *slices);
    if (slices == NULL)
        return false;
    net->slices = slices;
    net->slice_capacity = count;
    return true;
}

/* The request had an argument that was too long to be kept. */
static void refuse_cut(struct net_conn *conn)
{
    char text[ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "ERR value of %llu bytes is too large; the limit is %u",
             (unsigned long long)conn->parser.cut_bytes, conn->net->options.arg_kept_bytes_max);
    reply_error(conn, text);
    const struct net_handler *handler = &conn->net->handler;
    if (handler->refused != NULL)
        handler->refused(handler->context, conn);
    count_request(conn);
}

/* A partial request waits for an argument that is too long: what there is of it has to do, the rest is ignored. */
static void cut_argument(struct net_conn *conn, size_t there)
{
    struct resp_parser *parser = &conn->parser;
    const uint32_t bytes_max = conn->net->options.arg_kept_bytes_max;
    if (bytes_max == 0 || resp_parser_awaits(parser) <= bytes_max)
        return;
    conn->skip = resp_parser_cut(parser, there);
    conn->wanted = parser->wanted;
}

static inline void handle_resp(struct net_conn *conn, const uint8_t *data)
{
    struct net *net = conn->net;
    const struct resp_parser *parser = &conn->parser;
    if (__builtin_expect(parser->argc > net->slice_capacity, 0) && !resize_slices(net, parser->argc)) {
        conn_drop(conn);
        return;
    }
    for (uint32_t i = 0; i < parser->argc; i++)
        net->slices[i] = resp_arg_slice(parser, data, i);
    if (__builtin_expect(parser->cut_bytes != 0, 0)) {
        refuse_cut(conn);
        return;
    }
    conn->request_begin = data;
    conn->request_bytes = (size_t)parser->size;
    conn->answered = false;
    conn->muted = false;
    net->handler.resp_request(net->handler.context, conn, net->slices, parser->argc);
    KVS_ASSERT(conn->answered || conn->postponed || conn->state != NET_OPEN);
    if (__builtin_expect(net->slice_capacity > NET_SLICES_KEPT, 0))
        (void)resize_slices(net, NET_SLICES_KEPT);
    count_request(conn);
}

static void refuse_resp(struct net_conn *conn, const char *reason)
{
    char text[ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "ERR Protocol error: %s", reason);
    reply_error(conn, text);
    give_up(conn);
}

/* Tells the handler the keys of the whole requests at the start of data; returns how many those are. Parsing them twice
 * costs some nanoseconds each, waiting for memory one by one a hundred. */
static unsigned scout_resp(struct net_conn *conn, uint8_t *data, size_t size)
{
    struct net *net = conn->net;
    struct resp_arg args[NET_ARGS_INLINE];
    struct resp_parser parser;
    struct slice keys[NET_AHEAD_MAX];
    unsigned requests = 0;
    unsigned count = 0;
    size_t at = 0;
    resp_parser_init(&parser, &net->options.resp, args, NET_ARGS_INLINE);
    /* An inline command is decoded in place, which must happen only once. */
    while (requests < NET_AHEAD_MAX && at < size && data[at] == '*' &&
           resp_parse(&parser, data + at, size - at) == RESP_REQUEST) {
        if (parser.argc > 1)
            keys[count++] = resp_arg_slice(&parser, data + at, 1);
        requests++;
        at += parser.size;
        resp_parser_next(&parser);
    }
    if (count > 1)
        net->handler.keys_ahead(net->handler.context, keys, count);
    return requests;
}

static size_t handle_resp_all(struct net_conn *conn, uint8_t *data, size_t size)
{
    struct resp_parser *parser = &conn->parser;
    uint64_t requests = 0;
    unsigned scouted = conn->net->handler.keys_ahead == NULL ? UINT_MAX : 0;
    size_t at = 0;
    while (at < size && conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE) {
        if (__builtin_expect(conn->postponed, 0)) {
            /* It lies at the start of data, and the parser has kept what it found. */
            conn->postponed = false;
            handle_resp(conn, data + at);
            if (conn->postponed)
                break;
            requests++;
            at += parser->size;
            resp_parser_next(parser);
            shrink_args(conn);
            continue;
        }
        if (scouted == 0) {
            scouted = scout_resp(conn, data + at, size - at);
            scouted += scouted == 0; /* what comes next is no whole array */
        }
        scouted--;
        const enum resp_status status = resp_parse(parser, data + at, size - at);
        if (__builtin_expect(status == RESP_REQUEST, 1)) {
            handle_resp(conn, data + at);
            if (__builtin_expect(conn->postponed, 0))
                break;
            requests++;
            at += parser->size;
            resp_parser_next(parser);
            if (__builtin_expect(parser->args != conn->args, 0))
                shrink_args(conn);
        } else if (status == RESP_EMPTY) {
            at += parser->size;
            resp_parser_next(parser);
        } else if (status == RESP_MORE) {
            conn->wanted = parser->wanted;
            conn->whole = resp_parser_awaits(parser) > 0 && parser->argc + 1 == parser->argc_total;
            cut_argument(conn, size - at);
            if (conn->wanted > conn->net->request_bytes_max && !canary_on(CANARY_REQUEST_UNBOUNDED))
                refuse_resp(conn, "request too large");
            break;
        } else if (status == RESP_GROW) {
            if (!grow_args(conn))
                conn_drop(conn);
        } else {
            refuse_resp(conn, parser->error);
        }
    }
    net_count(&conn->net->stats.requests, requests);
    return at;
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

static void refuse_frame(struct net_conn *conn, const struct frame_header *header, enum frame_status status,
                         const char *text)
{
    reply_frame(conn, header, status, slice_text(text));
    give_up(conn);
}

static void refuse_invalid(struct net_conn *conn, const struct frame *frame, uint8_t first_byte)
{
    char text[ERROR_TEXT_BYTES];
    if (first_byte != FRAME_MAGIC)
        snprintf(text, sizeof text, "a frame begins with byte 0x%02X, not 0x%02X", FRAME_MAGIC, first_byte);
    else if (frame->header.reserved != 0 || frame->header.reserved2 != 0)
        snprintf(text, sizeof text, "the reserved fields of a frame header must be zero");
    else
        snprintf(text, sizeof text, "malformed frame header");
    /* What has no magic has no id either. */
    const struct frame_header none = {0};
    refuse_frame(conn, first_byte == FRAME_MAGIC ? &frame->header : &none, FRAME_BAD_REQUEST, text);
}

/* The first frame, or a second hello. */
static void handle_hello(struct net_conn *conn, const struct frame *frame)
{
    const struct frame_header *header = &frame->header;
    char text[ERROR_TEXT_BYTES];
    if (header->opcode != FRAME_HELLO) {
        refuse_frame(conn, header, FRAME_BAD_REQUEST, "the first frame must be a hello");
        return;
    }
    if (conn->hello_done) {
        refuse_frame(conn, header, FRAME_BAD_REQUEST, "a second hello on one connection");
        return;
    }
    struct frame_hello hello;
    if (frame->value.size < sizeof hello) {
        snprintf(text, sizeof text, "a hello has a value of %zu bytes, not %zu", sizeof hello, frame->value.size);
        refuse_frame(conn, header, FRAME_BAD_REQUEST, text);
        return;
    }
    memcpy(&hello, frame->value.data, sizeof hello);
    if (hello.version_min > FRAME_VERSION || hello.version_max < FRAME_VERSION) {
        snprintf(text, sizeof text, "this server speaks version %u, the client %u to %u", FRAME_VERSION,
                 hello.version_min, hello.version_max);
        refuse_frame(conn, header, FRAME_VERSION_UNKNOWN, text);
        return;
    }
    hello = conn->net->options.hello;
    hello.version_min = FRAME_VERSION;
    hello.version_max = FRAME_VERSION;
    conn->hello_done = true;
    reply_frame(conn, header, FRAME_OK, slice_make(&hello, sizeof hello));
}

static void handle_frame(struct net_conn *conn, const struct frame *frame, const uint8_t *begin)
{
    struct net *net = conn->net;
    if (!conn->hello_done || frame->header.opcode == FRAME_HELLO) {
        handle_hello(conn, frame);
    } else {
        conn->request_begin = begin;
        conn->request_bytes = frame->size;
        conn->request_id = frame->header.id;
        conn->request_opcode = frame->header.opcode;
        conn->answered = false;
        conn->muted = false;
        conn->postponed = false;
        net->handler.frame_request(net->handler.context, conn, frame);
        KVS_ASSERT(conn->answered || conn->postponed || conn->state != NET_OPEN);
    }
    count_request(conn);
}

static void handle_too_large(struct net_conn *conn, const struct frame *frame)
{
    const struct frame_limits *limits = &conn->net->options.frame;
    char text[ERROR_TEXT_BYTES];
    if (!conn->hello_done) {
        handle_hello(conn, frame); /* refuses it, whatever it is */
        KVS_ASSERT(conn->state != NET_OPEN);
        return;
    }
    snprintf(text, sizeof text, "the limits are %u bytes for a key and %u for a value", limits->key_bytes_max,
             limits->value_bytes_max);
    reply_frame(conn, &frame->header, FRAME_TOO_LARGE, slice_text(text));
    conn->skip = frame->size;
    count_request(conn);
}

/* The same for frames. */
static unsigned scout_frames(struct net_conn *conn, const uint8_t *data, size_t size)
{
    struct net *net = conn->net;
    struct slice keys[NET_AHEAD_MAX];
    unsigned count = 0;
    size_t at = 0;
    struct frame frame;
    while (count < NET_AHEAD_MAX && at < size &&
           frame_parse(data + at, size - at, &net->options.frame, &frame) == FRAME_WHOLE) {
        keys[count++] = frame.key;
        at += frame.size;
    }
    if (count > 1)
        net->handler.keys_ahead(net->handler.context, keys, count);
    return count;
}

static size_t handle_frames_all(struct net_conn *conn, const uint8_t *data, size_t size)
{
    const struct frame_limits *limits = &conn->net->options.frame;
    uint64_t requests = 0;
    unsigned scouted = conn->net->handler.keys_ahead == NULL ? UINT_MAX : 0;
    size_t at = 0;
    while (at < size && conn->state == NET_OPEN) {
        if (conn->skip > 0) { /* even on hold: these bytes are not worth keeping */
            const size_t bytes = conn->skip < size - at ? (size_t)conn->skip : size - at;
            conn->skip -= bytes;
            at += bytes;
            continue;
        }
        if (conn->hold != NET_HOLD_NONE)
            break;
        if (scouted == 0) {
            scouted = scout_frames(conn, data + at, size - at);
            scouted += scouted == 0;
        }
        scouted--;
        struct frame frame;
        const enum frame_result result = frame_parse(data + at, size - at, limits, &frame);
        if (__builtin_expect(result == FRAME_WHOLE, 1)) {
            handle_frame(conn, &frame, data + at);
            if (__builtin_expect(conn->postponed, 0))
                break;
            requests++;
            at += frame.size;
        } else if (result == FRAME_MORE) {
            conn->wanted = frame.size;
            conn->whole = frame.size > sizeof frame.header;
            break;
        } else if (result == FRAME_OVER) {
            handle_too_large(conn, &frame);
            requests++;
        } else {
            refuse_invalid(conn, &frame, data[at]);
        }
    }
    net_count(&conn->net->stats.requests, requests);
    return at;
}

/* ---- either ----------------------------------------------------------------------------------------------------- */

size_t conn_handle(struct net_conn *conn, uint8_t *data, size_t size)
{
    KVS_ASSERT(conn->handling && size > 0);
    conn->wanted = 0;
    if (conn->protocol == NET_PROTOCOL_UNKNOWN)
        conn->protocol = data[0] == FRAME_MAGIC ? NET_PROTOCOL_FRAME : NET_PROTOCOL_RESP;
    conn_enter_turn(conn);
    if (conn->protocol == NET_PROTOCOL_FRAME)
        return handle_frames_all(conn, data, size);
    return handle_resp_all(conn, data, size);
}

void conn_refuse_partial(struct net_conn *conn)
{
    static const char text[] = "OOM kvs-node: no memory for so large a request has been free for a while; try again";
    const struct net_input *input = &conn->input;
    struct frame_header header;
    KVS_ASSERT(conn->state == NET_OPEN && input->size > 0);
    conn->muted = false;
    if (conn->protocol == NET_PROTOCOL_FRAME && input->size >= sizeof header) {
        memcpy(&header, input->data + input->begin, sizeof header);
        reply_frame(conn, &header, FRAME_BUSY, slice_text(text));
    } else {
        reply_error(conn, text);
    }
    give_up(conn);
    if (conn->state == NET_ENDING && !conn->receiving && !conn->eof)
        conn_receive_now(conn); /* and ignored, lest a reset takes the error away */
}

void conn_refuse(struct net_conn *conn, const uint8_t *data, size_t size)
{
    KVS_ASSERT(conn->state == NET_REFUSED);
    if (size > 0 && data[0] == FRAME_MAGIC) {
        struct frame_header header = {.opcode = FRAME_HELLO};
        if (size >= sizeof header)
            memcpy(&header, data, sizeof header);
        conn->protocol = NET_PROTOCOL_FRAME;
        reply_frame(conn, &header, FRAME_BUSY, slice_text("max number of clients reached"));
    } else {
        conn->protocol = NET_PROTOCOL_RESP;
        reply_error(conn, "ERR max number of clients reached");
    }
    conn_end(conn);
}
