/*
 * net_share.c - what all connections of a shard have together, and who waits when that is used up.
 *
 *   options.memory_max   all that net takes: connections, input, replies, and what is kept for reuse
 *     input              a quarter. At half of that, buffers get no larger than need be. Beyond it input is short
 *     replies            the rest. No request is handled beyond it while there are replies that will leave: the
 *                        connection is held, in `waiting`, in the order in which they came. One connection alone gets
 *                        an eighth of what is left, so that a few that do not read leave something to the others
 *     connections        a half; more are told that there are too many
 *
 * Happy path: nobody waits, and all of this is a comparison or two for each request.
 *
 * Input is short. Everybody's receive is cancelled, some in each turn; meanwhile receive buffers that come back are
 * withheld from the ring, so that no more arrives than these hold. Who has no input is not read from then; who has part
 * of a request is, if what is still to come has room in its buffer; else it waits in `starving`. When there is memory
 * those go first, in order; if there is none because everybody starves, one is let through. Of those without input,
 * who has said nothing yet that had to be kept is read from all the same, a few in each turn: short requests are served
 * while long ones wait. The others are when less than half of the bound is in use, as many in each turn as may be kept
 * of.
 *
 * So beyond the bound there is what was in receive buffers already, one request that is not large, and one reply. It
 * never takes input to free memory of replies: they leave, or their peer is dropped. And input gets on by itself, or
 * its peer is dropped.
 *
 * Failure modes:
 *   - Peers that do not read, or do not send the rest of a request, keep others waiting. While somebody waits they have
 *     NET_SHORT_WAIT_MS to get on, instead of the time-out.
 *   - Input has come to its bound and twice what receive buffers hold: a connection whose input has to grow even so is
 *     dropped. It takes requests of very many arguments on very many connections.
 */
#include "net/net_internal.h"

#include <stdlib.h>

void share_bound_connections(struct net *net)
{
    const uint64_t most = net->options.memory_max / 2 / net_conn_bytes(net);
    net->conns_max = net->options.connections_max;
    if (most < net->conns_max)
        net->conns_max = most == 0 ? 1 : (unsigned)most;
}

void share_bound_waits(struct net *net)
{
    net->short_ticks_max = (NET_SHORT_WAIT_MS + net->tick_ms - 1) / net->tick_ms;
    if (net->short_ticks_max > net->send_ticks_max)
        net->short_ticks_max = net->send_ticks_max;
}

bool share_init(struct net *net)
{
    if (net->options.memory_max == 0 || canary_on(CANARY_SHARED_MEMORY_UNBOUNDED))
        net->options.memory_max = UINT64_MAX;
    const uint64_t buffers = ring_buffers_free(net->ring);
    net->input_max = net->options.memory_max / 4;
    net->input_over = net->input_max + 2 * buffers * NET_BLOCK_BYTES;
    share_bound_connections(net);
    share_bound_waits(net);
    struct list *lists[] = {&net->waiting, &net->quiet, &net->quiet_later, &net->starving, &net->partial};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        list_init(lists[i]);
    net->withheld = calloc((size_t)buffers + 1, sizeof *net->withheld);
    return net->withheld != NULL;
}

void share_deinit(struct net *net)
{
    free(net->withheld);
}

bool share_is_short(const struct net *net)
{
    return net->pressed || !list_empty(&net->waiting);
}

static void enqueue(struct list *queue, struct net_conn *conn)
{
    list_remove(&conn->wait);
    list_push_back(queue, &conn->wait);
    net_count(&conn->net->stats.connections_waited, 1);
}

/* ---- replies ---------------------------------------------------------------------------------------------------- */

void share_wait(struct net_conn *conn)
{
    KVS_ASSERT(conn->hold == NET_HOLD_SHARED && conn->input.size > 0);
    enqueue(&conn->net->waiting, conn);
}

static bool may_resume(const struct net *net)
{
    return !list_empty(&net->waiting) && !share_is_full(net);
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

static bool is_quieting(const struct net *net)
{
    return net->quiet_left > 0 || net->quieting > 0;
}

/* Beyond this nobody is read from only to see what he has to say: half of what may come on top of the bound is left for
 * what is on its way. */
static uint64_t probe_max(const struct net *net)
{
    return net->input_max + (net->input_over - net->input_max) / 2;
}

void *share_resize_args(struct net *net, void *args, size_t old_bytes, size_t new_bytes)
{
    void *resized = net_resize(net, args, old_bytes, new_bytes);
    if (resized != NULL || new_bytes == 0)
        net->input_bytes += new_bytes - old_bytes;
    share_note_input(net);
    return resized;
}

void share_note_input(struct net *net)
{
    if (__builtin_expect(net->input_bytes < net->input_max, 1))
        return;
    const bool again = net->armed && net->input_bytes >= probe_max(net) && !is_quieting(net);
    if (net->pressed && !again)
        return;
    if (!net->pressed)
        net->presses++;
    net->pressed = true;
    net->armed = false;
    net->quiet_left = net->conn_count;
    net_start_tick(net);
}

bool share_has_room(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    const struct net_input *input = &conn->input;
    if (input->large != NULL || net->granted == conn || input->capacity - input->size >= NET_BLOCK_BYTES)
        return true;
    return conn->whole && conn->wanted <= input->capacity;
}

void share_starve(struct net_conn *conn)
{
    KVS_ASSERT(conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE && conn->input.data != NULL);
    conn->hold = NET_HOLD_MEMORY;
    enqueue(&conn->net->starving, conn);
    conn_stop_receiving(conn);
}

bool share_is_out(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    return net->input_bytes >= net->input_over && net->granted != conn;
}

void share_wait_quietly(struct net_conn *conn)
{
    KVS_ASSERT(conn->net->pressed && conn->input.data == NULL);
    struct net *net = conn->net;
    enqueue(conn->kept_in == net->presses ? &net->quiet_later : &net->quiet, conn);
}

void share_release_buffer(struct net *net, uint16_t buffer_id)
{
    if (__builtin_expect(net->quiet_left == 0 && net->quieting == 0, 1))
        ring_buffer_release(net->ring, buffer_id);
    else
        net->withheld[net->withheld_count++] = buffer_id;
}

void share_quiet(struct net_conn *conn)
{
    if (!conn->receiving || conn->cancelled)
        return;
    conn->quieted = true;
    conn->net->quieting++;
    conn_stop_receiving(conn);
}

void share_quieted(struct net_conn *conn)
{
    if (!conn->quieted)
        return;
    KVS_ASSERT(conn->net->quieting > 0);
    conn->quieted = false;
    conn->net->quieting--;
}

/* Stops everybody: some of them, and the others in the next turns. Who may be read from is told when a receive has
 * ended (conn_receive). */
static void quiet_some(struct net *net)
{
    for (unsigned count = 0; count < NET_QUIET_TURN_MAX && net->quiet_left > 0; count++) {
        struct list *node = list_pop_front(&net->conns);
        if (node == NULL) {
            net->quiet_left = 0;
            return;
        }
        net->quiet_left--;
        list_push_back(&net->conns, node);
        struct net_conn *conn = container_of(node, struct net_conn, all);
        if (conn->state == NET_OPEN && conn->input.large == NULL && !input_is_favoured(conn))
            share_quiet(conn);
    }
}

static bool may_grant(const struct net *net)
{
    return !list_empty(&net->starving) && (net->granted == NULL || net->input_bytes < net->input_max);
}

static void grant(struct net *net)
{
    struct net_conn *conn = container_of(net->starving.next, struct net_conn, wait);
    KVS_ASSERT(conn->hold == NET_HOLD_MEMORY && conn->input.data != NULL);
    if (net->input_bytes >= net->input_max)
        net->granted = conn;
    if (input_widen(conn)) {
        conn_resume(conn);
        return;
    }
    net_count(&net->stats.connections_dropped, 1);
    conn_drop(conn);
    conn_settle(conn);
}

static void arm(struct net *net, struct list *queue, uint64_t count)
{
    for (; count > 0 && !list_empty(queue); count--) {
        net->armed = true;
        conn_receive_now(container_of(queue->next, struct net_conn, wait));
    }
}

/* Whose requests have not had to be kept, because they came whole, is served even now. */
static bool may_probe(const struct net *net)
{
    return !list_empty(&net->quiet) && net->input_bytes < probe_max(net) && ring_buffers_free(net->ring) > 0;
}

static bool may_ease(const struct net *net)
{
    return list_empty(&net->starving) && net->input_bytes < net->input_max / 2;
}

/* Reads from as many again as may leave something to be kept. */
static void ease(struct net *net)
{
    arm(net, &net->quiet_later, (net->input_max - net->input_bytes) / NET_BLOCK_BYTES + 1);
    net->pressed = !list_empty(&net->quiet) || !list_empty(&net->quiet_later);
}

static bool may_release(const struct net *net)
{
    return net->withheld_count > 0 && !is_quieting(net);
}

static void turn_input(struct net *net)
{
    while (may_grant(net))
        grant(net);
    if (may_probe(net))
        arm(net, &net->quiet, NET_PROBE_TURN_MAX);
    if (may_ease(net))
        ease(net);
}

/* ---- once per turn ---------------------------------------------------------------------------------------------- */

void share_turn(struct net *net)
{
    if (net->pressed)
        quiet_some(net);
    while (may_release(net))
        ring_buffer_release(net->ring, net->withheld[--net->withheld_count]);
    if (net->pressed && !is_quieting(net))
        turn_input(net);
    while (may_resume(net))
        conn_resume(container_of(net->waiting.next, struct net_conn, wait));
}

bool share_has_more(const struct net *net)
{
    if (may_resume(net) || may_release(net))
        return true;
    if (!net->pressed)
        return false;
    if (is_quieting(net))
        return net->quiet_left > 0;
    return may_grant(net) || may_probe(net) || may_ease(net);
}
