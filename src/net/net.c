/*
 * net.c - listeners, time, and the turn of a shard's connections.
 *
 * Happy path: net_accept starts a multishot accept per listening socket; each completion becomes a connection.
 * Callbacks of the ring handle what arrives and leave connections in the lists of struct net; once per turn net_flush
 * starts the sends of those in `dirty`, gives receive buffers back to those in `parked`, and closes those in `reap`.
 * net_release moves connections from `gated` to `dirty`. No list is ever walked for connections that have nothing to
 * do.
 *
 * Time-outs need no clock: a coarse timer counts ticks while any send is active, and sends start in the order of the
 * list `sending`, so that the oldest is always its first. `idle` is in the order of what was heard of connections.
 *
 * Failure modes:
 *   - accept fails, as when descriptors have run out: one warning, a pause of 100 ms, and on.
 *   - A peer does not take its replies: its send is older than the time-out; it is dropped.
 *   - No receive buffer is free: only as many parked connections start again in a turn as buffers are free, first come,
 * first served; the others go on in the next turn.
 */
#include "net/net_internal.h"

#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

#define NS_PER_MS           1000000u
#define ACCEPT_WARN_EACH_NS (10000u * (uint64_t)NS_PER_MS)

/* ---- time ------------------------------------------------------------------------------------------------------- */

void conn_heard(struct net_conn *conn)
{
    conn->heard_tick = conn->net->tick;
    list_remove(&conn->idle);
    list_push_back(&conn->net->idle, &conn->idle);
}

/* Ends those that have asked nothing for too long; who waits for an answer, or is not read from, is not idle. */
static void drop_idle(struct net *net)
{
    for (;;) {
        if (net->idle_ticks_max == 0 || list_empty(&net->idle))
            return;
        struct net_conn *conn = container_of(net->idle.next, struct net_conn, idle);
        if (net->tick - conn->heard_tick <= net->idle_ticks_max)
            return;
        if (conn->state == NET_OPEN && (conn->held || !output_idle(conn) || !list_empty(&conn->wait))) {
            conn_heard(conn);
            continue;
        }
        list_remove(&conn->idle);
        conn_drop(conn);
        conn_settle(conn);
    }
}

static void drop_slow(struct net_conn *conn)
{
    net_count(&conn->net->stats.connections_dropped, 1);
    conn_drop(conn);
    conn_settle(conn);
}

static void drop_slow_readers(struct net *net, unsigned ticks_max)
{
    while (!list_empty(&net->sending)) {
        struct net_conn *conn = container_of(net->sending.next, struct net_conn, due);
        if (net->tick - conn->send_tick <= ticks_max)
            break;
        drop_slow(conn);
    }
}

/* Of those in `list`, who is read from and has part of a request: a peer that does not send the rest. */
static void drop_slow_senders(struct net *net, struct list *list, unsigned ticks_max)
{
    struct list *next;
    for (struct list *node = list->next; node != list; node = next) {
        next = node->next;
        struct net_conn *conn = container_of(node, struct net_conn, fill);
        const bool reading = conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE && list_empty(&conn->wait);
        if (reading && net->tick - conn->fill_tick > ticks_max)
            drop_slow(conn);
    }
}

static void tick_due(struct ring_op *op)
{
    struct net *net = container_of(op, struct net, tick_op);
    net->tick_active = false;
    net->tick++;
    const bool timed = net->send_ticks_max != 0;
    const bool is_short = share_is_short(net);
    if (timed)
        drop_slow_readers(net, is_short ? net->short_ticks_max : net->send_ticks_max);
    if (timed)
        drop_slow_senders(net, &net->filling, list_empty(&net->hungry) ? net->send_ticks_max : net->short_ticks_max);
    if (timed && net->pressed)
        drop_slow_senders(net, &net->partial, net->short_ticks_max);
    struct list *next;
    for (struct list *node = net->refused.next; node != &net->refused; node = next) {
        next = node->next;
        struct net_conn *conn = container_of(node, struct net_conn, all);
        if (conn->state == NET_REFUSED && net->tick - conn->send_tick > net->refused_ticks_max) {
            conn_refuse(conn, NULL, 0);
            conn_settle(conn);
        }
    }
    drop_idle(net);
    input_tick(net);
    const bool waits =
        !list_empty(&net->sending) || !list_empty(&net->filling) || !list_empty(&net->hungry) || is_short;
    if (op->error == KVS_ERR_OK && ((timed && waits) || net->refused_count > 0 || !list_empty(&net->idle)))
        net_start_tick(net);
}

void net_start_tick(struct net *net)
{
    if (net->tick_active)
        return;
    net->tick_active = true;
    ring_timer(net->ring, &net->tick_op, (uint64_t)net->tick_ms * NS_PER_MS);
}

static void again_due(struct ring_op *op)
{
    struct net *net = container_of(op, struct net, again_op);
    net->again_active = false;
    /* Those that have not finished when they have had their share queue up behind the others, for the next time. */
    struct list now;
    list_init(&now);
    while (!list_empty(&net->runnable)) {
        struct list *node = list_pop_front(&net->runnable);
        list_push_back(&now, node);
    }
    while (!list_empty(&now))
        conn_resume(container_of(now.next, struct net_conn, wait));
}

void net_run_again(struct net *net)
{
    if (net->again_active)
        return;
    net->again_active = true;
    ring_timer(net->ring, &net->again_op, 0);
}

static void feed_due(struct ring_op *op)
{
    container_of(op, struct net, feed_op)->feed_active = false; /* net_flush does the rest */
}

void net_feed_later(struct net *net)
{
    if (net->feed_active)
        return;
    net->feed_active = true;
    ring_timer(net->ring, &net->feed_op, (uint64_t)NET_FEED_MS * NS_PER_MS);
}

/* ---- listeners -------------------------------------------------------------------------------------------------- */

static void warn_accept(struct net *net, const struct ring_op *op)
{
    const uint64_t now_ns = ring_now_ns(net->ring);
    if (net->warned && now_ns - net->warned_ns < ACCEPT_WARN_EACH_NS)
        return;
    net->warned = true;
    net->warned_ns = now_ns;
    diag_warn("cannot accept connections: %s%s; trying again every %u ms", ring_op_text(op),
              op->error == KVS_ERR_NO_DESCRIPTORS ? " (raise the limit of open files: ulimit -n, LimitNOFILE=)" : "",
              NET_ACCEPT_BACKOFF_MS);
}

static void accepted(struct ring_op *op)
{
    struct net_listener *listener = container_of(op, struct net_listener, accept);
    struct net *net = listener->net;
    const bool more = (op->flags & RING_MORE) != 0;
    if (op->error == KVS_ERR_OK) {
        if (net->draining)
            ring_close_fd(net->ring, op->fd);
        else
            conn_accepted(net, op->fd);
    } else if (!net->draining && op->error != KVS_ERR_CANCELLED) {
        warn_accept(net, op);
        if (!more) {
            ring_timer(net->ring, &listener->backoff, (uint64_t)NET_ACCEPT_BACKOFF_MS * NS_PER_MS);
            return;
        }
    }
    if (!more && !net->draining)
        ring_accept(net->ring, &listener->accept, listener->fd);
}

static void backoff_due(struct ring_op *op)
{
    struct net_listener *listener = container_of(op, struct net_listener, backoff);
    if (!listener->net->draining)
        ring_accept(listener->net->ring, &listener->accept, listener->fd);
}

enum kvs_err net_accept(struct net *net, int listen_fd)
{
    KVS_ASSERT(!net->draining);
    if (net->listener_count == NET_LISTENERS_MAX)
        return KVS_ERR_TOO_LARGE;
    struct net_listener *listener = &net->listeners[net->listener_count++];
    listener->net = net;
    listener->fd = listen_fd;
    ring_op_init(&listener->accept, accepted);
    ring_op_init(&listener->backoff, backoff_due);
    ring_accept(net->ring, &listener->accept, listen_fd);
    return KVS_ERR_OK;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------ */

/* A frame or a RESP argument as large as allowed fits easily; a thousand of them in one request do not. */
uint64_t net_request_bytes_max(const struct net_options *options)
{
    if (options->request_bytes_max != 0)
        return options->request_bytes_max;
    const struct resp_limits *limits = &options->resp;
    const uint64_t kept = options->arg_kept_bytes_max;
    return (kept != 0 ? kept : 4 * (uint64_t)limits->arg_bytes_max) + limits->inline_bytes_max +
           16 * (uint64_t)limits->args_max + (1u << 20);
}

static unsigned idle_ticks(const struct net *net)
{
    return (unsigned)((net->options.idle_timeout_s * UINT64_C(1000) + net->tick_ms - 1) / net->tick_ms);
}

/* A send begins anywhere between two ticks: the tick that ends its first, partial one does not count. */
static unsigned send_ticks(const struct net *net)
{
    const uint32_t timeout_ms = net->options.send_timeout_ms;
    return timeout_ms == 0 ? 0 : (unsigned)((timeout_ms + net->tick_ms - 1) / net->tick_ms);
}

static void init_time(struct net *net)
{
    const uint32_t timeout_ms = net->options.send_timeout_ms;
    net->tick_ms = NET_TICK_MS_MAX;
    if (timeout_ms != 0 && timeout_ms / 4 < net->tick_ms)
        net->tick_ms = timeout_ms / 4 + 1;
    net->send_ticks_max = send_ticks(net);
    net->idle_ticks_max = idle_ticks(net);
    net->large_ticks_max = timeout_ms == 0 ? 0 : (NET_LARGE_WAIT_MS + net->tick_ms - 1) / net->tick_ms;
    net->refused_ticks_max = (NET_REFUSED_WAIT_MS + net->tick_ms - 1) / net->tick_ms;
    ring_op_init(&net->tick_op, tick_due);
    ring_op_init(&net->again_op, again_due);
    ring_op_init(&net->feed_op, feed_due);
}

enum kvs_err net_open(struct net **out, struct ring *ring, const struct net_options *options,
                      const struct net_handler *handler)
{
    KVS_ASSERT(handler->resp_request != NULL && handler->frame_request != NULL);
    KVS_ASSERT(options->connections_max > 0 && options->requests_max > 0);
    *out = NULL;
    struct net *net = calloc(1, sizeof *net);
    uint8_t *fail_errors = malloc(NET_BLOCK_BYTES);
    if (net == NULL || fail_errors == NULL) {
        free(net);
        free(fail_errors);
        return KVS_ERR_NO_MEMORY;
    }
    net->ring = ring;
    net->options = *options;
    net->free_blocks_max = options->output_kept_max != 0 ? options->output_kept_max : NET_KEPT_BYTES;
    net->handler = *handler;
    net->fail_errors = fail_errors;
    net->request_bytes_max = net_request_bytes_max(options);
    if (net->options.turn_requests_max == 0)
        net->options.turn_requests_max = NET_TURN_REQUESTS_MAX;
    net->turn = 1;
    net->next_id = 1;
    net->stats.memory_bytes = sizeof *net + NET_BLOCK_BYTES;
    struct list *lists[] = {&net->conns,  &net->refused,  &net->dirty,  &net->gated,      &net->sending,
                            &net->reap,   &net->runnable, &net->parked, &net->free_conns, &net->free_runs,
                            &net->hungry, &net->filling,  &net->idle,   &net->walks,      &net->order};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        list_init(lists[i]);
    large_trash_init(&net->trash);
    net->own_pool.bytes_max = UINT64_MAX;
    if (net->options.large == NULL)
        net->options.large = &net->own_pool;
    if (net->options.large_reserve == NULL)
        net->options.large_reserve = &net->own_reserve;
    net->options.large_reserve->bytes_max = net->request_bytes_max;
    net->large_over = net->options.large->bytes_max / 4 + 2 * (uint64_t)ring_buffers_free(ring) * NET_BLOCK_BYTES;
    if (net->options.large_bytes == 0)
        net->options.large_bytes = NET_LARGE_BYTES;
    init_time(net);
    if (!share_init(net)) {
        free(net);
        free(fail_errors);
        return KVS_ERR_NO_MEMORY;
    }
    *out = net;
    return KVS_ERR_OK;
}

/* Without an idle time-out nobody is in net->idle; with one from now on, all are. */
static void set_idle_timeout(struct net *net, uint32_t seconds)
{
    const bool had = net->idle_ticks_max != 0;
    net->options.idle_timeout_s = seconds;
    net->idle_ticks_max = idle_ticks(net);
    while (net->idle_ticks_max == 0 && !list_empty(&net->idle))
        list_remove(net->idle.next);
    if (had || net->idle_ticks_max == 0 || net->draining)
        return;
    for (struct list *node = net->conns.next; node != &net->conns; node = node->next)
        conn_heard(container_of(node, struct net_conn, all));
    if (!list_empty(&net->idle))
        net_start_tick(net);
}

void net_set_limits(struct net *net, const struct net_limits *limits)
{
    net->options.output_bytes_max = limits->output_bytes_max;
    net->options.keepalive_s = limits->keepalive_s;
    net->options.connections_max = limits->connections_max;
    net->options.turn_requests_max = limits->turn_requests_max;
    net->options.send_timeout_ms = limits->send_timeout_ms;
    net->send_ticks_max = send_ticks(net);
    share_bound_waits(net);
    share_bound_connections(net);
    if (limits->idle_timeout_s != net->options.idle_timeout_s)
        set_idle_timeout(net, limits->idle_timeout_s);
}

static void stop_accepting(struct net *net)
{
    net->draining = true;
    for (unsigned i = 0; i < net->listener_count; i++) {
        struct net_listener *listener = &net->listeners[i];
        if (ring_op_active(&listener->accept))
            ring_cancel(net->ring, &listener->accept);
        if (ring_op_active(&listener->backoff))
            ring_cancel(net->ring, &listener->backoff);
    }
}

/* Timers of a net without connections have nothing left to wait for. */
static void stop_timers(struct net *net)
{
    if (!list_empty(&net->conns) || !list_empty(&net->refused))
        return;
    if (net->tick_active)
        ring_cancel(net->ring, &net->tick_op);
    if (net->again_active)
        ring_cancel(net->ring, &net->again_op);
    if (net->feed_active)
        ring_cancel(net->ring, &net->feed_op);
}

/* Calls `end` for every connection. */
static void end_all(struct net *net, void (*end)(struct net_conn *conn))
{
    struct list *lists[] = {&net->conns, &net->refused};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        struct list *next;
        for (struct list *node = lists[i]->next; node != lists[i]; node = next) {
            next = node->next;
            struct net_conn *conn = container_of(node, struct net_conn, all);
            end(conn);
            conn_settle(conn);
        }
    }
    stop_timers(net);
}

void net_drain(struct net *net)
{
    stop_accepting(net);
    end_all(net, conn_end);
}

void net_abort(struct net *net)
{
    stop_accepting(net);
    end_all(net, conn_drop);
}

bool net_drained(const struct net *net)
{
    if (!net->draining || !list_empty(&net->conns) || !list_empty(&net->refused))
        return false;
    if (net->tick_active || net->again_active || net->feed_active)
        return false;
    for (unsigned i = 0; i < net->listener_count; i++) {
        const struct net_listener *listener = &net->listeners[i];
        if (ring_op_active(&listener->accept) || ring_op_active(&listener->backoff))
            return false;
    }
    return true;
}

void net_close(struct net *net)
{
    if (net == NULL)
        return;
    struct list *lists[] = {&net->conns, &net->refused};
    list_init(&net->walks); /* whoever walks has gone, or is about to */
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        while (!list_empty(lists[i]))
            conn_forget(container_of(lists[i]->next, struct net_conn, all));
    }
    net_resize(net, net->slices, (size_t)net->slice_capacity * sizeof *net->slices, 0);
    net_pool_free(net);
    large_trash_empty(&net->trash);
    KVS_ASSERT(net->stats.memory_bytes == sizeof *net + NET_BLOCK_BYTES); /* else something has leaked */
    KVS_ASSERT(net->input_bytes == 0 && net->block_bytes == 0);
    share_deinit(net);
    free(net->fail_errors);
    free(net);
}

/* ---- once per turn ---------------------------------------------------------------------------------------------- */

static void receive_parked(struct net *net)
{
    for (unsigned count = ring_buffers_free(net->ring); count > 0 && !list_empty(&net->parked); count--)
        conn_receive(container_of(net->parked.next, struct net_conn, wait));
    if (!list_empty(&net->parked))
        net_run_again(net);
}

void net_flush(struct net *net)
{
    net->turn++;
    share_turn(net);
    while (!list_empty(&net->dirty))
        output_send(container_of(net->dirty.next, struct net_conn, due));
    if (!list_empty(&net->parked))
        receive_parked(net);
    if (__builtin_expect(!list_empty(&net->hungry), 0) && !net->feed_active)
        net_feed(net);
    if (__builtin_expect(large_trash_turn(&net->trash), 0))
        net_run_again(net);
    while (!list_empty(&net->reap))
        conn_reap(container_of(net->reap.next, struct net_conn, due));
    if (__builtin_expect(share_has_more(net), 0))
        net_run_again(net);
    if (net->draining)
        stop_timers(net);
}

/* ---- gates ------------------------------------------------------------------------------------------------------ */

/* Looks again at every connection that waits for a gate. */
static void reconsider_gated(struct net *net)
{
    struct list *next;
    for (struct list *node = net->gated.next; node != &net->gated; node = next) {
        next = node->next;
        struct net_conn *conn = container_of(node, struct net_conn, due);
        if (output_may_send(conn)) {
            list_remove(&conn->due);
            list_push_back(&net->dirty, &conn->due);
        }
    }
}

void net_release(struct net *net, uint64_t gate)
{
    if (net->failing || gate <= net->gate_reached)
        return;
    net->gate_reached = gate;
    reconsider_gated(net);
}

void net_fail_gates(struct net *net, const char *text)
{
    if (net->failing)
        return; /* the first reason is the reason, and active sends refer to its text */
    const size_t code_bytes = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    const bool has_code = code_bytes > 0 && text[code_bytes] == ' ';
    char resp_text[NET_FAIL_TEXT_BYTES + 32];
    snprintf(net->fail_text, sizeof net->fail_text, "%s", has_code ? text + code_bytes + 1 : text);
    snprintf(resp_text, sizeof resp_text, "%.*s %s", has_code ? (int)(code_bytes < 30 ? code_bytes : 30) : 3,
             has_code ? text : "ERR", net->fail_text);

    net->fail_error_bytes = resp_write_error(net->fail_errors, resp_text);
    net->fail_error_count = NET_BLOCK_BYTES / net->fail_error_bytes;
    for (size_t i = 1; i < net->fail_error_count; i++)
        memcpy(net->fail_errors + i * net->fail_error_bytes, net->fail_errors, net->fail_error_bytes);
    net->failing = true;
    reconsider_gated(net);
}

void net_stats(const struct net *net, struct net_stats *out)
{
    const uint64_t *from = (const uint64_t *)&net->stats;
    uint64_t *to = (uint64_t *)out;
    static_assert(sizeof *out % sizeof *to == 0, "net_stats is made of counters");
    for (size_t i = 0; i < sizeof *out / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
