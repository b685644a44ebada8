/*
 * net_input.c - the bytes of a connection that are received and not handled yet.
 *
 * Happy path: most requests are handled where they were received and never come here. What is left of a partial one is
 * kept in a buffer that grows as the rest really arrives. When a partial request has announced that it is large, it
 * gets memory of that size at once, straight from the system (base/large_memory.h): what is not touched yet costs
 * nothing, and nothing is ever copied to grow. The handler may keep that memory (net_request_keep).
 *
 * Each argument is announced, not the request: one of many large arguments grows with each of them.
 *
 *   hungry ──► the pool, which all shards share ── no room ──► the reserve, of this shard, for one connection at a time
 *
 * Failure modes:
 *   - The memory for large requests is used up: the connection is held with what it has, and goes on in its turn, first
 *     come, first served. Those that have some may all be waiting for more. So the first of them goes on in the
 *     reserve: there it gets all that its request may take, the pool gets back what it had, and when it is done the
 *     next one does. It is favoured for as long as the reserve has memory of its requests, also after they have been
 *     handled: in a MULTI the next request must not wait for the one before it.
 *   - Nobody gets any for 10 s: who has waited that long is told so, and that is the end of its connection.
 *   - A peer that has announced a large request does not send the rest: it is dropped like one that does not read, and
 *     while others wait, after 2 s. Likewise one that leaves the reserve to a MULTI and says nothing more.
 *   - What was received while a connection is held has to be kept; how much that is the receive buffers bound. If the
 *     pool has to grow for that by more than a quarter and twice what these hold, the connection is dropped.
 *   - The bound on memory for input is reached: net_share.c.
 *   - No memory from the system: the connection is dropped.
 */
#include "net/net_internal.h"

/* Room behind what is announced: short arguments behind a long one. */
#define SLACK_BYTES 4096u

static bool reserve_is_free(const struct net *net)
{
    return atomic_load_explicit(&net->options.large_reserve->used_bytes, memory_order_relaxed) == 0;
}

bool input_is_favoured(const struct net_conn *conn)
{
    return conn->net->favoured == conn && !reserve_is_free(conn->net);
}

/* The reserve is another's as long as anything is in it. */
static bool may_use_reserve(struct net_conn *conn)
{
    if (reserve_is_free(conn->net))
        conn->net->favoured = conn;
    return conn->net->favoured == conn || canary_on(CANARY_MANY_FAVOURED);
}

/* Nobody is before it. */
static bool is_next(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    return list_empty(&net->hungry) || net->hungry.next == &conn->wait || input_is_favoured(conn);
}

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

/* Makes the large memory larger, by so much over the bound of the pool that it is of. */
static bool resize_large(struct net_conn *conn, size_t target, uint64_t over)
{
    struct net_input *input = &conn->input;
    struct large_memory *grown = large_memory_grow(input->large, target, over);
    if (grown == NULL)
        return false;
    input->large = grown;
    input->data = grown->data;
    input->capacity = target;
    return true;
}

/* What there is moves from memory of the pool for input to large memory. */
static bool enter_large(struct net_conn *conn, struct large_pool *pool, size_t target)
{
    struct net *net = conn->net;
    struct net_input *input = &conn->input;
    struct large_memory *taken = large_memory_take(pool, target, 0);
    if (taken == NULL)
        return false;
    if (input->size > 0)
        memcpy(taken->data, input->data + input->begin, input->size);
    give_pooled(conn);
    *input = (struct net_input){.large = taken, .data = taken->data, .capacity = target, .size = input->size};
    conn->fill_tick = net->tick;
    list_remove(&conn->fill);
    list_push_back(&net->filling, &conn->fill);
    net_start_tick(net);
    return true;
}

/* Makes room for `target` bytes in large memory, if it is the connection's turn and there is some. */
static bool grow_large(struct net_conn *conn, size_t target)
{
    const struct net_options *options = &conn->net->options;
    struct net_input *input = &conn->input;
    KVS_ASSERT(target >= input->size);
    if (!is_next(conn))
        return false;
    if (input->large != NULL ? resize_large(conn, target, 0) : enter_large(conn, options->large, target))
        return true;
    if (!may_use_reserve(conn))
        return false;
    if (input->large == NULL)
        return enter_large(conn, options->large_reserve, target);
    if (input->large->pool != options->large_reserve)
        large_memory_move(input->large, options->large_reserve);
    return resize_large(conn, target, LARGE_MEMORY_ANY); /* it is of one request, which is bounded */
}

/* Holds the connection until there is memory for it. */
static void hunger(struct net_conn *conn)
{
    struct net *net = conn->net;
    conn->hold = NET_HOLD_MEMORY;
    conn->fill_tick = net->tick;
    list_remove(&conn->wait);
    if (input_is_favoured(conn))
        list_push_front(&net->hungry, &conn->wait); /* the others wait for it */
    else
        list_push_back(&net->hungry, &conn->wait);
    net_count(&net->stats.connections_waited, 1);
    share_quiet(conn);
    net_feed_later(net);
    net_start_tick(net);
}

/* The data begin at the beginning of their memory. */
static void flush_left(struct net_input *input)
{
    if (input->begin > 0)
        memmove(input->data, input->data + input->begin, input->size);
    input->begin = 0;
}

static bool grow(struct net_conn *conn, size_t need)
{
    struct net *net = conn->net;
    struct net_input *input = &conn->input;
    if (input->large != NULL) /* what has come while it is held: input_extend has made room for the rest */
        return resize_large(conn, need + SLACK_BYTES, net->large_over);
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
    flush_left(input);
    conn->fill_tick = conn->net->tick;
    return need <= input->capacity || grow(conn, need);
}

bool input_append(struct net_conn *conn, const uint8_t *data, size_t size)
{
    struct net_input *input = &conn->input;
    const size_t need = input->size + size;
    if (input->begin + need > input->capacity)
        flush_left(input);
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

bool input_is_tight(const struct net_conn *conn)
{
    const struct large_pool *pool = conn->net->options.large;
    return conn->input.large != NULL &&
           atomic_load_explicit(&pool->used_bytes, memory_order_relaxed) > pool->bytes_max / 2;
}

bool input_enter(struct net_conn *conn)
{
    if (conn->input.large != NULL || conn->wanted <= conn->net->options.large_bytes || conn->eof ||
        grow_large(conn, large_target(conn)))
        return true;
    hunger(conn);
    return false;
}

bool input_extend(struct net_conn *conn, size_t more)
{
    struct net_input *input = &conn->input;
    const size_t need = input->size + more;
    KVS_ASSERT(input->large != NULL && conn->hold == NET_HOLD_NONE);
    if (input->begin + need <= input->capacity)
        return true;
    if (input_is_tight(conn))
        conn_stop_receiving(conn); /* and on with less at a time */
    flush_left(input);
    if (need <= input->capacity || grow_large(conn, input_target(conn, need)) || grow_large(conn, need + SLACK_BYTES))
        return true;
    hunger(conn);
    return false;
}

/* What is left of what was kept while the connection was held moves to a buffer of the pool, if it fits: nobody should
 * hold large memory that it does not need. */
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
    struct net_input *input = &conn->input;
    if (conn->state != NET_OPEN || conn->hold != NET_HOLD_NONE || input->size == 0 || conn->eof)
        return;
    if (conn->wanted <= conn->net->options.large_bytes && input->large == NULL) {
        if (conn->net->pressed && !share_has_room(conn))
            share_starve(conn);
        return;
    }
    if (conn->wanted <= conn->net->options.large_bytes ||
        (input->large != NULL && input->begin + conn->wanted <= input->capacity))
        return;
    if (input->large != NULL && (input->begin == 0 || !leave_large(conn)))
        flush_left(input);
    if ((input->large == NULL || conn->wanted > input->capacity) && !grow_large(conn, large_target(conn)))
        hunger(conn);
}

/* It needs no more memory to get further: what it waited for has come, or nothing will come any more. What is not in
 * large memory is to get there even so, or it would have to be copied. */
static bool needs_none(const struct net_conn *conn)
{
    return conn->eof || (conn->input.large != NULL && conn->input.size >= conn->wanted);
}

void net_feed(struct net *net)
{
    while (!list_empty(&net->hungry)) {
        struct net_conn *conn = container_of(net->hungry.next, struct net_conn, wait);
        KVS_ASSERT(conn->hold == NET_HOLD_MEMORY);
        if (!needs_none(conn) && !grow_large(conn, large_target(conn))) {
            net_feed_later(net);
            return;
        }
        net->fed_tick = net->tick;
        conn->fill_tick = net->tick;
        conn_resume(conn);
    }
}

/* It has all the time left memory to what it has asked for, a MULTI, and says nothing more. */
static bool blocks_reserve(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    return conn->state == NET_OPEN && conn->hold == NET_HOLD_NONE && conn->receiving && conn->input.size == 0 &&
           output_idle(conn) && net->tick - conn->fill_tick > net->short_ticks_max && !reserve_is_free(net);
}

void input_tick(struct net *net)
{
    if (net->large_ticks_max == 0)
        return;
    if (!list_empty(&net->hungry) && net->favoured != NULL && blocks_reserve(net->favoured)) {
        struct net_conn *conn = net->favoured;
        net_count(&net->stats.connections_dropped, 1);
        conn_drop(conn);
        conn_settle(conn);
    }
    while (!list_empty(&net->hungry) && net->tick - net->fed_tick > net->large_ticks_max) {
        struct net_conn *conn = container_of(net->hungry.next, struct net_conn, wait);
        if (net->tick - conn->fill_tick <= net->large_ticks_max)
            return;
        const bool has_some = conn->input.large != NULL || input_is_favoured(conn);
        conn_refuse_partial(conn);
        conn_settle(conn);
        if (has_some)
            return; /* that may be enough for the next one */
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
