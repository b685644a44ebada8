/*
 * net_look.c - what can be seen of connections from outside, and walks over all of them.
 *
 * Happy path: a walk remembers the connection that it meets next; net_walk_next moves it on. It may pause for any
 * number of turns: a connection that goes meanwhile moves the walks that would meet it next past itself.
 *
 * Failure modes: none but the system's, which may not know the address of a connection that its peer has reset.
 */
#include "net/net_internal.h"

void net_conn_info(const struct net_conn *conn, struct net_conn_info *out)
{
    const struct net_input *input = &conn->input;
    const struct net *net = conn->net;
    *out = (struct net_conn_info){
        .fd = conn->fd,
        .input_bytes = input->size,
        .input_free_bytes = input->capacity - input->begin - input->size,
        .request_bytes = conn->handling ? conn->request_bytes : 0,
        .output_bytes = conn->output_bytes,
        .pending = conn->pending,
        .output_replies = conn->under_way,
        .memory_bytes = sizeof *conn + net->options.conn_user_bytes + input->capacity + (size_t)conn->output_bytes,
        .framed = conn->protocol == NET_PROTOCOL_FRAME,
        .receiving = conn->receiving,
        .sending = conn->sending,
        .half_closed = conn->eof,
        .ending = conn->state != NET_OPEN,
        .dropped = conn->state == NET_CLOSING,
    };
}

enum kvs_err net_conn_peer(const struct net_conn *conn, struct ring_addr *addr)
{
    return ring_peer_addr(conn->net->ring, conn->fd, addr);
}

enum kvs_err net_conn_local(const struct net_conn *conn, struct ring_addr *addr)
{
    return ring_local_addr(conn->net->ring, conn->fd, addr);
}

void net_walk_begin(struct net_walk *walk, struct net *net)
{
    walk->net = net;
    walk->next = net->order.next;
    list_push_back(&net->walks, &walk->link);
}

struct net_conn *net_walk_next(struct net_walk *walk)
{
    if (walk->next == &walk->net->order)
        return NULL;
    struct net_conn *conn = container_of(walk->next, struct net_conn, order);
    walk->next = walk->next->next;
    return conn;
}

void net_walk_end(struct net_walk *walk)
{
    list_remove(&walk->link);
}

void net_walks_pass(struct net *net, const struct net_conn *conn)
{
    for (struct list *node = net->walks.next; node != &net->walks; node = node->next) {
        struct net_walk *walk = container_of(node, struct net_walk, link);
        if (walk->next == &conn->order)
            walk->next = conn->order.next;
    }
}
