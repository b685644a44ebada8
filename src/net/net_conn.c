/*
 * net_conn.c - the life of one connection.
 *
 *             accepted                      QUIT, end of the peer's data,       everything due has left
 *                │                          protocol error, drain
 *                ▼                                  │                                   │
 *              OPEN ───────────────────────────► ENDING ────────────────────────────► CLOSING ──► reaped
 *                └──────────────────────────────────┴── error, time-out, abort ──────────┘
 *
 * Happy path: a completion of recv brings a buffer; its requests are handled in place; the buffer goes back to the
 * ring. What is left of a request at its end is copied into `input`, which grows as the rest really arrives. Then
 * conn_settle looks at the connection as a whole and puts it where it belongs: into the list of those with something to
 * send, on hold, to the end.
 *
 * Held back: a connection with too much output or too many requests under way, or that has had its share of a turn, has
 * `hold` set. Nothing of it is handled; what arrives is kept, and if something arrives recv is cancelled, so that what
 * is kept is bounded by the receive buffers. When output has shrunk to half, or in the next turn, the input is handled
 * first and then recv is started again: nothing is lost and nothing overtakes.
 *
 * Held by the handler: the same, until net_conn_go_on. A request that it has postponed stays at the front of what is
 * kept, and the parser stays where it was, right behind it.
 *
 * All connections together have a bound, too: net_share.c.
 *
 * Failure modes:
 *   - No receive buffer: the connection is parked; net_flush starts recv again when buffers have come back.
 *   - The peer has gone, a send fails, no memory: CLOSING at once. Slots that are not filled yet keep the structure
 * alive.
 *   - The peer has only finished sending: what it asked for is still answered.
 *   - The descriptor is closed only when no operation is active on it: its number could otherwise become another's.
 */
#include "net/net_internal.h"

/* ---- handling what arrives -------------------------------------------------------------------------------------- */

static inline void handle_begin(struct net_conn *conn)
{
    KVS_ASSERT(!conn->handling);
    conn->handling = true;
    conn->net->handler.batch_begin(conn->net->handler.context);
}

static inline void handle_end(struct net_conn *conn)
{
    conn->net->handler.batch_end(conn->net->handler.context);
    conn->handling = false;
}

/* How many of the next `size` bytes are not worth keeping: they belong to an argument that is too long. Frames skip for
 * themselves. */
static size_t skip_bytes(struct net_conn *conn, size_t size)
{
    if (conn->skip == 0 || conn->protocol != NET_PROTOCOL_RESP)
        return 0;
    const size_t bytes = conn->skip < size ? (size_t)conn->skip : size;
    conn->skip -= bytes;
    return bytes;
}

/*
 * Completes the partial request that input holds with bytes from `data`, a little more than needed at a time. Returns
 * how many bytes of data are done with: when the request is complete, all up to its end (and of those after it whatever
 * was handled with it), and input is empty; otherwise all, or those up to where the connection came to be on hold.
 */
static size_t complete_partial(struct net_conn *conn, uint8_t *data, size_t size)
{
    struct net_input *input = &conn->input;
    size_t at = 0;
    while (at < size && conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE) {
        if (!input_enter(conn))
            break;
        const size_t have = input->size;
        size_t chunk = conn->wanted > have ? (size_t)(conn->wanted - have) : 0;
        /* A large request ends where its memory's contents do, so that it can be kept. */
        if (chunk < NET_CHUNK_BYTES && (input->large == NULL || chunk == 0))
            chunk = NET_CHUNK_BYTES;
        if (chunk > size - at)
            chunk = size - at;
        if (input->large != NULL && !input_extend(conn, chunk))
            break;
        if (!input_append(conn, data + at, chunk))
            break;
        const size_t used = conn_handle(conn, input->data + input->begin, input->size);
        at += chunk;
        at += skip_bytes(conn, size - at);
        if (used > 0) {
            /* A request is only partial if none of it can be handled without what comes. */
            KVS_ASSERT(used > have || conn->state != NET_OPEN);
            if (used > have)
                at -= have + chunk - used;
            input_free(conn);
            break;
        }
    }
    return at;
}

static void handle_received(struct net_conn *conn, uint8_t *data, size_t size)
{
    handle_begin(conn);
    size_t at = 0;
    if (conn->input.size > 0)
        at = complete_partial(conn, data, size);
    if (at < size && conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE)
        at += conn_handle(conn, data + at, size - at);
    if (at < size && conn->state == NET_OPEN)
        (void)input_append(conn, data + at, size - at);
    input_prepare(conn);
    handle_end(conn);
}

void conn_resume(struct net_conn *conn)
{
    KVS_ASSERT(conn->state == NET_OPEN && !conn->handling);
    struct net_input *input = &conn->input;
    list_remove(&conn->wait);
    conn_enter_turn(conn);
    conn->hold = (uint8_t)conn_must_hold(conn);
    if (conn->hold == NET_HOLD_SHARED && input->large != NULL)
        conn->hold = NET_HOLD_NONE; /* what others wait for may be what it holds */
    if (conn->hold == NET_HOLD_NONE && input->size > 0) {
        handle_begin(conn);
        input_consume(conn, conn_handle(conn, input->data + input->begin, input->size));
        input_prepare(conn);
        handle_end(conn);
    }
    conn_settle(conn);
}

/* ---- holding back ----------------------------------------------------------------------------------------------- */

/* True when a connection on hold may go on: in the next turn at the latest. */
static bool may_go_on(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    if (conn->hold == NET_HOLD_TURN)
        return true;
    if (conn->hold > NET_HOLD_OVER)
        return false; /* net_feed, share_turn or the handler do it */
    return conn->output_bytes <= share_output_max(net) / 2 && conn->under_way <= net->options.requests_max / 2;
}

void conn_stop_receiving(struct net_conn *conn)
{
    if (conn->receiving && !conn->cancelled) {
        conn->cancelled = true;
        ring_cancel(conn->net->ring, &conn->recv);
    }
}

/* Data for a connection that may be on hold, or ought to be. */
static void take_data(struct net_conn *conn, uint8_t *data, size_t size)
{
    const size_t skipped = skip_bytes(conn, size);
    data += skipped;
    size -= skipped;
    if (size == 0)
        return;
    conn_enter_turn(conn);
    if (conn == conn->net->favoured)
        conn->fill_tick = conn->net->tick;
    /* One that has memory for a large request is to get on with it: others wait for that memory, and perhaps replies of
     * its own. */
    if (conn->input.large == NULL && conn->hold < NET_HOLD_OVER && conn_must_hold(conn) != NET_HOLD_NONE)
        conn->hold = (uint8_t)conn_must_hold(conn);
    if (conn->hold == NET_HOLD_NONE) {
        handle_received(conn, data, size);
        return;
    }
    if (conn->input.size == 0)
        conn->wanted = 0;
    conn_stop_receiving(conn);
    (void)input_append(conn, data, size);
}

void conn_sent(struct net_conn *conn)
{
    if (conn->state == NET_OPEN && conn->hold == NET_HOLD_OVER && conn->input.size > 0 && may_go_on(conn))
        conn_resume(conn);
    else
        conn_settle(conn);
}

/* ---- receiving -------------------------------------------------------------------------------------------------- */

void conn_receive(struct net_conn *conn)
{
    if (__builtin_expect(!conn->net->pressed, 1) || input_is_favoured(conn))
        conn_receive_now(conn);
    else if (conn->input.data == NULL)
        share_wait_quietly(conn);
    else if (share_has_room(conn))
        conn_receive_now(conn);
    else
        share_starve(conn);
}

void conn_receive_now(struct net_conn *conn)
{
    struct net *net = conn->net;
    KVS_ASSERT(!conn->receiving && !conn->eof);
    list_remove(&conn->wait);
    if (ring_buffers_free(net->ring) == 0) {
        list_push_back(&net->parked, &conn->wait);
        return;
    }
    conn->receiving = true;
    conn->cancelled = false;
    if (__builtin_expect(net->pressed || !list_empty(&net->hungry) || input_is_tight(conn), 0))
        ring_recv_once(net->ring, &conn->recv, conn->fd);
    else
        ring_recv(net->ring, &conn->recv, conn->fd);
}

static void take_buffer(struct net_conn *conn, uint8_t *data, size_t size)
{
    net_count(&conn->net->stats.bytes_received, size);
    if (conn->net->idle_ticks_max != 0)
        conn_heard(conn);
    if (conn->state == NET_OPEN)
        take_data(conn, data, size);
    else if (conn->state == NET_REFUSED)
        conn_refuse(conn, data, size);
}

static void received(struct ring_op *op)
{
    struct net_conn *conn = container_of(op, struct net_conn, recv);
    struct net *net = conn->net;
    KVS_ASSERT(conn->receiving);
    if ((op->flags & RING_MORE) == 0) {
        conn->receiving = false;
        share_quieted(conn);
    }
    if (op->flags & RING_BUFFER) {
        if (canary_on(CANARY_RECV_BUFFER_EARLY))
            ring_buffer_release(net->ring, op->buffer_id);
        if (op->bytes > 0)
            take_buffer(conn, ring_buffer_data(net->ring, op->buffer_id), op->bytes);
        if (!canary_on(CANARY_RECV_BUFFER_EARLY))
            share_release_buffer(net, op->buffer_id);
    }
    if (op->error == KVS_ERR_OK) {
        if (op->bytes == 0)
            conn->eof = true;
    } else if (op->error == KVS_ERR_NO_BUFFERS) {
        if ((conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE) || conn->state == NET_REFUSED) {
            list_remove(&conn->wait);
            list_push_back(&net->parked, &conn->wait);
        }
    } else if (op->error != KVS_ERR_CANCELLED) {
        conn_drop(conn);
    }
    conn_settle(conn);
}

/* ---- what next? ------------------------------------------------------------------------------------------------- */

static bool is_waiting(const struct net_conn *conn)
{
    return !list_empty(&conn->wait);
}

/* An open connection: hold, go on, or see the end of what the peer has to say. */
static void settle_input(struct net_conn *conn)
{
    struct net *net = conn->net;
    if (conn->hold != NET_HOLD_NONE && may_go_on(conn)) {
        if (conn->input.size == 0) {
            conn->hold = NET_HOLD_NONE;
        } else if (!is_waiting(conn)) {
            list_push_back(&net->runnable, &conn->wait);
            net_run_again(net);
        }
    }
    if (conn->hold == NET_HOLD_SHARED) {
        if (conn->input.size == 0)
            conn->hold = NET_HOLD_NONE;
        else if (!is_waiting(conn))
            share_wait(conn);
    }
    if (conn->hold != NET_HOLD_NONE)
        return;
    if (conn->eof)
        conn_end(conn);
    else if (!conn->receiving && !is_waiting(conn))
        conn_receive(conn);
    else if (__builtin_expect(net->pressed, 0) && conn->input.data == NULL && !input_is_favoured(conn))
        conn_stop_receiving(conn); /* it had input, or has had its turn */
}

void conn_settle(struct net_conn *conn)
{
    if (conn->handling)
        return;
    if (conn->state != NET_CLOSING && !conn->sending)
        output_classify(conn);
    if (conn->state == NET_OPEN)
        settle_input(conn);
    else if (conn->state == NET_REFUSED && conn->eof)
        conn_drop(conn);
    else if (conn->state == NET_REFUSED && !conn->receiving && !is_waiting(conn))
        conn_receive(conn);
    if (conn->state == NET_ENDING && output_idle(conn))
        conn_drop(conn);
    if (conn->state != NET_OPEN && conn->input.data != NULL)
        input_free(conn);
    if (conn->state == NET_CLOSING && !conn->receiving && !conn->sending && conn->pending == 0) {
        list_remove(&conn->due);
        list_push_back(&conn->net->reap, &conn->due);
    }
}

/* ---- beginning and end ------------------------------------------------------------------------------------------ */

void conn_accepted(struct net *net, int fd)
{
    const bool refused = net->conn_count >= net->conns_max && !canary_on(CANARY_CLIENTS_UNBOUNDED);
    struct net_conn *conn = NULL;
    if (!refused || net->refused_count < NET_REFUSED_MAX)
        conn = net_conn_take(net);
    if (refused || conn == NULL)
        net_count(&net->stats.connections_refused, 1);
    if (conn == NULL) {
        ring_close_fd(net->ring, fd);
        return;
    }
    conn->fd = fd;
    conn->id = net->next_id++;
    conn->refused = refused;
    conn->state = refused ? NET_REFUSED : NET_OPEN;
    list_init(&conn->wait);
    list_init(&conn->fill);
    list_init(&conn->idle);
    list_init(&conn->order);
    ring_op_init(&conn->recv, received);
    output_init(conn);
    resp_parser_init(&conn->parser, &net->options.resp, conn->args, NET_ARGS_INLINE);
    if (refused) {
        net->refused_count++;
        list_push_back(&net->refused, &conn->all);
        conn->send_tick = net->tick;
        net_start_tick(net);
    } else {
        net->conn_count++;
        list_push_back(&net->conns, &conn->all);
        list_push_back(&net->order, &conn->order);
        net_count(&net->stats.connections, 1);
        net_count(&net->stats.connections_accepted, 1);
        if (net->options.keepalive_s != 0)
            ring_keepalive(net->ring, fd, net->options.keepalive_s);
        if (net->idle_ticks_max != 0) {
            conn_heard(conn);
            net_start_tick(net);
        }
        net->handler.opened(net->handler.context, conn);
    }
    conn_settle(conn);
}

void conn_end(struct net_conn *conn)
{
    if (conn->state != NET_OPEN && conn->state != NET_REFUSED)
        return;
    conn->state = NET_ENDING;
    conn->hold = NET_HOLD_NONE;
    list_remove(&conn->wait);
    /* What still comes is read and ignored while replies leave: unread bytes at the close would make the kernel reset
     * the connection, and the peer might lose them. */
    if (conn->net->draining)
        conn_stop_receiving(conn);
}

void conn_drop(struct net_conn *conn)
{
    if (conn->state == NET_CLOSING)
        return;
    conn->state = NET_CLOSING;
    list_remove(&conn->wait);
    list_remove(&conn->due);
    output_drop(conn);
    ring_shutdown(conn->net->ring, conn->fd);
    if (canary_on(CANARY_FD_CLOSED_EARLY))
        ring_close_fd(conn->net->ring, conn->fd);
    conn_stop_receiving(conn);
    if (conn->sending)
        ring_cancel(conn->net->ring, &conn->send);
}

static void free_args(struct net_conn *conn)
{
    struct resp_parser *parser = &conn->parser;
    if (parser->args != conn->args)
        share_resize_args(conn->net, parser->args, (size_t)parser->args_capacity * sizeof *parser->args, 0);
    parser->args = conn->args;
}

void conn_forget(struct net_conn *conn)
{
    output_forget(conn);
    input_free(conn);
    free_args(conn);
    share_quieted(conn);
    if (conn->net->favoured == conn)
        conn->net->favoured = NULL;
    conn->receiving = false;
    conn->sending = false;
    list_remove(&conn->idle);
    net_walks_pass(conn->net, conn);
    list_remove(&conn->order);
    list_remove(&conn->all);
    net_conn_give(conn->net, conn);
}

void conn_reap(struct net_conn *conn)
{
    struct net *net = conn->net;
    KVS_ASSERT(conn->state == NET_CLOSING && conn->pending == 0);
    KVS_ASSERT(!conn->receiving && !conn->sending);
    list_remove(&conn->due);
    ring_close_fd(net->ring, conn->fd);
    if (conn->refused) {
        net->refused_count--;
    } else {
        net->conn_count--;
        net_uncount(&net->stats.connections, 1);
        net->handler.closed(net->handler.context, conn);
    }
    conn_forget(conn);
}

void net_conn_hold(struct net_conn *conn)
{
    KVS_ASSERT(conn->handling && !conn->held);
    conn->held = true;
}

void net_request_postpone(struct net_conn *conn)
{
    KVS_ASSERT(conn->handling && !conn->answered && !conn->held);
    conn->held = true;
    conn->postponed = true;
}

void net_conn_go_on(struct net_conn *conn)
{
    KVS_ASSERT(conn->held);
    conn->held = false;
    if (conn->state != NET_OPEN || conn->hold != NET_HOLD_HANDLER)
        return; /* over, or the request that holds it has not returned yet */
    conn->hold = NET_HOLD_TURN;
    conn_settle(conn);
}

void net_conn_drop(struct net_conn *conn)
{
    KVS_ASSERT(!conn->handling);
    conn_drop(conn);
    conn_settle(conn);
}

void net_conn_finish(struct net_conn *conn)
{
    conn_end(conn);
    conn_settle(conn);
}

void *net_conn_user(struct net_conn *conn)
{
    return conn->user;
}

struct net *net_conn_net(struct net_conn *conn)
{
    return conn->net;
}

uint64_t net_conn_id(const struct net_conn *conn)
{
    return conn->id;
}
