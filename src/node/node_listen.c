/*
 * node_listen.c - the listening sockets of a node.
 *
 * Happy path: for each TCP address one socket per shard, all on one port (the kernel spreads connections over them);
 * for the Unix socket one descriptor that all shards accept from. With port 0 the first shard's socket finds a port,
 * the others take it. An address in use is tried again for two seconds: the kernel ends the rings of a process that has
 * died, and with them its sockets, later than the process, and maybe later than its lock on the data directory.
 *
 * Failure: node->message names the address and the remedy; what was opened is closed again.
 */
#include "node/node_internal.h"

#include <fcntl.h>
#include <stdio.h>

#define RETRY_NS  10000000
#define RETRY_MAX 200u

static void on_done(struct ring_op *op)
{
    (void)op; /* ring_await looks at it */
}

static const char *remedy(enum kvs_err err)
{
    switch (err) {
    case KVS_ERR_ADDRESS_IN_USE:
        return "; another server listens there: stop it, or choose another address with --addr or --unix";
    case KVS_ERR_ADDRESS_UNAVAILABLE:
        return "; choose an address of this machine with --addr";
    case KVS_ERR_ACCESS:
        return "; ports below 1024 and other users' directories need more rights";
    case KVS_ERR_NO_DESCRIPTORS:
        return "; raise the limit on open files (ulimit -n, LimitNOFILE=)";
    default:
        return "";
    }
}

static enum kvs_err listen_patiently(struct node *node, const struct ring_addr *addr, int *fd)
{
    enum kvs_err err = ring_listen(node->ring, addr, fd);
    for (unsigned i = 0; err == KVS_ERR_ADDRESS_IN_USE && i < RETRY_MAX; i++) {
        struct ring_op op;
        ring_op_init(&op, on_done);
        ring_timer(node->ring, &op, RETRY_NS);
        ring_await(node->ring, &op);
        err = ring_listen(node->ring, addr, fd);
    }
    return err;
}

static enum kvs_err refused(struct node *node, const struct ring_addr *addr, enum kvs_err err)
{
    char text[RING_ADDR_TEXT_BYTES];
    snprintf(node->message, sizeof(node->message), "cannot listen on %s: %s%s", ring_addr_format(addr, text),
             kvs_err_text(err), remedy(err));
    return err;
}

static enum kvs_err listen_tcp(struct node *node, const struct ring_addr *wanted)
{
    unsigned at = node->listener_count;
    struct ring_addr addr = *wanted;
    for (unsigned i = 0; i < node->shard_count; i++) {
        int fd;
        enum kvs_err err = listen_patiently(node, &addr, &fd);
        if (err != KVS_ERR_OK)
            return refused(node, &addr, err);
        node->listeners[i][at] = fd;
        if (i > 0)
            continue;
        node->listener_count = at + 1;
        err = ring_local_addr(node->ring, fd, &addr);
        if (err != KVS_ERR_OK)
            return refused(node, &addr, err);
    }
    node->addresses[at] = addr;
    return KVS_ERR_OK;
}

static enum kvs_err listen_unix(struct node *node)
{
    unsigned at = node->listener_count;
    int fd;
    enum kvs_err err = listen_patiently(node, &node->config.unix_addr, &fd);
    if (err != KVS_ERR_OK)
        return refused(node, &node->config.unix_addr, err);
    node->unix_bound = true;
    for (unsigned i = 0; i < node->shard_count; i++)
        node->listeners[i][at] = fd;
    node->addresses[at] = node->config.unix_addr;
    node->listener_count = at + 1;
    return KVS_ERR_OK;
}

enum kvs_err node_listen(struct node *node)
{
    for (unsigned i = 0; i < KVS_SHARDS_MAX; i++) {
        for (unsigned j = 0; j < NET_LISTENERS_MAX; j++)
            node->listeners[i][j] = -1;
    }
    enum kvs_err err = KVS_ERR_OK;
    for (unsigned i = 0; i < node->config.address_count && err == KVS_ERR_OK; i++)
        err = listen_tcp(node, &node->config.addresses[i]);
    if (err == KVS_ERR_OK && node->config.unix_path != NULL)
        err = listen_unix(node);
    if (err != KVS_ERR_OK)
        node_unlisten(node);
    return err;
}

void node_unlisten(struct node *node)
{
    for (unsigned j = 0; j < node->listener_count; j++) {
        bool shared = node->unix_bound && j == node->listener_count - 1;
        for (unsigned i = 0; i < (shared ? 1 : node->shard_count); i++) {
            if (node->listeners[i][j] >= 0)
                ring_close_fd(node->ring, node->listeners[i][j]);
        }
    }
    node->listener_count = 0;
    if (!node->unix_bound)
        return;
    node->unix_bound = false;
    struct ring_op op;
    ring_op_init(&op, on_done);
    ring_file_unlink(node->ring, &op, AT_FDCWD, node->config.unix_path);
    ring_await(node->ring, &op); /* if it fails, a stale file stays, which the next start replaces */
}
