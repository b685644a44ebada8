/*
 * net_input.c - the bytes of a connection that are received and not handled yet.
 *
 * Happy path: most requests are handled where they were received and never come here. What is left of a partial one is
 * kept in a buffer that grows as the rest really arrives. When a partial request has announced that it is large, it
 * gets memory of that size at once, straight from the system (base/large_memory.h): what is not touched yet costs
 * nothing, and nothing is ever copied to grow. The handler may keep that memory (net_request_keep).
 *
 * Failure modes:
 *   - The memory for large requests is used up: the connection is held, and goes on in its turn when others are done.
 *     Nobody holds some of that memory while waiting for more, so they do get done.
 *   - A peer that has announced a large request does not send the rest: it is dropped like one that does not read.
 *   - What was received while a connection is held has to be kept; it is bounded by the receive buffers, and not of the
 *     memory for large requests, or that could be held by those who wait for replies that need it.
 *   - The bound on memory for input is reached: net_share.c.
 *   - No memory from the system: the connection is dropped.
 */
#include "net/net_internal.h"

/* Room behind what is announced: short arguments behind a long one. */
#define SLACK_BYTES 4096u

static void give_pooled(struct net_conn *conn)
{
    struct net *net = conn->net;
    net_input_give(net, conn->input.data, conn->input.capacity);
    if (net->granted == conn)
        net->granted = NULL;
}

void input_free(struct net_conn *conn)
{
    struct net_input *input = &conn->input;
    list_remove(&conn->fill);
    if (input->large != NULL)
        large_trash_add(&conn->net->trash, input->large);
    else
        give_pooled(conn);
    *input = (struct net_input){0};
}

/* How much room to make for `need` bytes: all of the request if it is not much more than has arrived; at least twice
 * what there was, as what is held back, or an array of many arguments, grows by little at a time. */
static size_t input_target(const struct net_conn *conn, size_t need)
{
    const struct net_input *input = &conn->input;
    size_t target = need > NET_BLOCK_BYTES ? need : NET_BLOCK_BYTES;
    if (conn->wanted > target)
        target = conn->wanted < 4 * (uint64_t)target ? (size_t)conn->wanted : 4 * target;
    size_t more = input->large != NULL ? input->capacity / 4 : input->capacity;
    return target > input->capacity + more ? target : input->capacity + more;
}

/* The same when the memory for input is nearly used up: no more than what has been announced. When it is used up: no
 * more than what has arrived. */
static size_t input_target_tight(const struct net_conn *conn, size_t need)
{
    const struct net *net = conn->net;
    const size_t announced_max = 4 * (need > NET_BLOCK_BYTES ? need : (size_t)NET_BLOCK_BYTES);
    size_t target = need;
    if (net->input_bytes < net->input_max || net->granted == conn) {
        if (conn->wanted > target)
            target = conn->wanted < announced_max ? (size_t)conn->wanted : announced_max;
        target += NET_CHUNK_BYTES; /* complete_partial takes so much more than is wanted */
        if (target < conn->input.capacity + conn->input.capacity / 4)
            target = conn->input.capacity + conn->input.capacity / 4;
    }
    return align_up(target, NET_SMALL_BYTES);
}

/* What is announced; while the connection was held more than that may have come, of arguments behind it. */
static size_t large_target(const struct net_conn *conn)
{
    const size_t size = conn->input.size;
    return (conn->wanted > size ? (size_t)conn->wanted : size) + SLACK_BYTES;
}

/* Makes room for `target` bytes in large memory. `force`: whatever others have. */
static bool grow_large(struct net_conn *conn, size_t target, bool force)
{
    struct net *net = conn->net;
    struct net_input *input = &conn->input;
    struct large_memory *grown;
    KVS_ASSERT(target >= input->size);
    if (input->large != NULL) {
        grown = large_memory_grow(input->large, target, force);
        if (grown == NULL)
            return false;
    } else {
        grown = large_memory_take(net->options.large, target, force);
        if (grown == NULL)
            return false;
        if (input->size > 0)
            memcpy(grown->data, input->data + input->begin, input->size);
        give_pooled(conn);
        input->begin = 0;
        conn->fill_tick = net->tick;
        list_remove(&conn->fill);
        list_push_back(&net->filling, &conn->fill);
        net_start_tick(net);
    }
    input->large = grown;
    input->data = grown->data;
    input->capacity = target;
    return true;
}

static bool grow(struct net_conn *conn, size_t need)
{
    struct net *net = conn->net;
    struct net_input *input = &conn->input;
    /* A request of many arguments that are large together grows with each of them. It has memory that others wait for,
     * so it must not wait for theirs, nor is it to blame. */
    if (input->large != NULL)
        return grow_large(conn, input_target(conn, need), conn->hold != NET_HOLD_NONE) ||
               grow_large(conn, need + SLACK_BYTES, true);
    if (share_is_out(conn))
        return false;
    const size_t target = share_is_tight(net) ? input_target_tight(conn, need) : input_target(conn, need);
    uint8_t *grown = net_input_grow(net, input->data, input->capacity, target);
    if (grown == NULL)
        return false;
    if (input->data == NULL)
        list_push_back(&net->partial, &conn->fill);
    input->data = grown;
    input->capacity = target;
    share_note_input(net);
    return true;
}

bool input_widen(struct net_conn *conn)
{
    struct net_input *input = &conn->input;
    const size_t next = conn->wanted > input->size ? (size_t)conn->wanted : input->size;
    const size_t need = next + (conn->whole ? NET_CHUNK_BYTES : NET_BLOCK_BYTES);
    KVS_ASSERT(input->large == NULL && input->data != NULL);
    memmove(input->data, input->data + input->begin, input->size);
    input->begin = 0;
    conn->fill_tick = conn->net->tick;
    return need <= input->capacity || grow(conn, need);
}

bool input_append(struct net_conn *conn, const uint8_t *data, size_t size)
{
    struct net_input *input = &conn->input;
    const size_t need = input->size + size;
    if (input->begin > 0 && input->begin + need > input->capacity) {
        memmove(input->data, input->data + input->begin, input->size);
        input->begin = 0;
    }
    if (need > input->capacity && !grow(conn, need)) {
        net_count(&conn->net->stats.connections_dropped, 1);
        conn_drop(conn);
        return false;
    }
    KVS_ASSERT(input->data != NULL && input->begin + need <= input->capacity);
    memcpy(input->data + input->begin + input->size, data, size);
    input->size += size;
    conn->fill_tick = conn->net->tick;
    if (input->size > NET_SMALL_BYTES)
        conn->kept_in = conn->net->presses;
    return true;
}

void input_consume(struct net_conn *conn, size_t bytes)
{
    struct net_input *input = &conn->input;
    if (input->data == NULL)
        return; /* the handler has kept it */
    KVS_ASSERT(bytes <= input->size);
    input->begin += bytes;
    input->size -= bytes;
    if (input->size == 0)
        input_free(conn);
}

/* What is left of what was kept while the connection was held moves to a buffer of the pool, if it fits: nobody may
 * hold large memory while waiting for more of it. */
static bool leave_large(struct net_conn *conn)
{
    struct net *net = conn->net;
    struct net_input *input = &conn->input;
    size_t capacity = input->size > NET_BLOCK_BYTES ? input->size : NET_BLOCK_BYTES;
    if (capacity > net->options.large_bytes)
        return false;
    uint8_t *data = net_input_grow(net, NULL, 0, capacity);
    if (data == NULL)
        return false;
    memcpy(data, input->data + input->begin, input->size);
    list_remove(&conn->fill);
    list_push_back(&net->partial, &conn->fill);
    large_trash_add(&net->trash, input->large);
    *input = (struct net_input){.data = data, .capacity = capacity, .size = input->size};
    share_note_input(net);
    return true;
}

void input_prepare(struct net_conn *conn)
{
    const struct net_input *input = &conn->input;
    if (conn->state != NET_OPEN || conn->hold != NET_HOLD_NONE || input->size == 0)
        return;
    if (conn->wanted <= conn->net->options.large_bytes && input->large == NULL) {
        if (conn->net->pressed && !share_has_room(conn))
            share_starve(conn);
        return;
    }
    if (conn->wanted <= conn->net->options.large_bytes || input->begin + conn->wanted <= input->capacity)
        return;
    if (input->large != NULL && !leave_large(conn)) {
        if (!grow_large(conn, large_target(conn), true))
            conn_drop(conn);
        return;
    }
    if (grow_large(conn, large_target(conn), false))
        return;
    conn->hold = NET_HOLD_MEMORY;
    list_remove(&conn->wait);
    list_push_back(&conn->net->hungry, &conn->wait);
    conn_stop_receiving(conn);
    net_feed_later(conn->net);
}

void net_feed(struct net *net)
{
    while (!list_empty(&net->hungry)) {
        struct net_conn *conn = container_of(net->hungry.next, struct net_conn, wait);
        KVS_ASSERT(conn->hold == NET_HOLD_MEMORY);
        if (!grow_large(conn, large_target(conn), false)) {
            net_feed_later(net);
            return;
        }
        conn_resume(conn);
    }
}

struct large_memory *net_request_keep(struct net_conn *conn)
{
    struct net_input *input = &conn->input;
    KVS_ASSERT(conn->handling);
    if (input->large == NULL || conn->request_begin != input->data + input->begin || conn->request_bytes != input->size)
        return NULL;
    struct large_memory *large = input->large;
    list_remove(&conn->fill);
    *input = (struct net_input){0};
    return large;
}
