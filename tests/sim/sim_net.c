/*
 * sim_net.c - simulated sockets.
 *
 * A connection is two sockets that point at each other. What one sends is queued at the other as chunks with the time
 * of their arrival; together they may not exceed the receiver's capacity, so senders have to wait for slow readers.
 *
 * Happy path: connect makes both sockets and puts the second into the backlog of a listener on that address; accept
 * gives it a descriptor; bytes flow; a close is seen by the peer as the end of the stream after the last byte.
 *
 * Failure modes: nobody listens: ECONNREFUSED. A socket closed with bytes unread resets its peer, which still reads
 * what has arrived and then gets ECONNRESET. Sending to a peer that has closed succeeds once, as on a real network, and
 * resets. A test's faults break connections and let streams stand still.
 */
#include "sim_net.h"

#include "base/assert.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define BACKLOG_MAX    4096u
#define EPHEMERAL_PORT 49152u

struct chunk {
    struct list link;
    uint64_t arrives_ns;
    size_t used;
    size_t size;
    uint8_t data[];
};

struct sim_socket {
    struct list link;        /* in a listener's backlog, else alone */
    struct sim_socket *peer; /* NULL: closed */
    struct list chunks;
    size_t queued;
    size_t capacity;
    uint64_t arrival_ns; /* of the latest chunk or end */
    uint64_t end_ns;     /* the stream ends here; SIM_NEVER: still open */
    uint64_t reset_ns;   /* the connection is broken from here on; SIM_NEVER: not */
    bool shut;           /* by its own side */
    struct ring_addr local;
    struct ring_addr remote;
};

struct sim_listener {
    struct list link;
    struct list backlog;
    unsigned waiting;
    struct ring_addr addr;
};

struct sim_net {
    struct list listeners;
    size_t socket_bytes;
    unsigned next_port;
};

struct sim_net *sim_net_create(void)
{
    struct sim_net *net = calloc(1, sizeof(*net));
    KVS_ASSERT(net != NULL);
    list_init(&net->listeners);
    net->next_port = EPHEMERAL_PORT;
    return net;
}

void sim_net_free(struct sim_net *net)
{
    KVS_ASSERT(list_empty(&net->listeners));
    free(net);
}

void sim_set_socket_bytes(size_t bytes)
{
    sim->net->socket_bytes = bytes;
}

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

static uint64_t later(const struct sim_socket *socket)
{
    uint64_t when = sim->now_ns + sim_between(5000, 100000);
    return when > socket->arrival_ns ? when : socket->arrival_ns;
}

static struct sim_socket *socket_create(void)
{
    struct sim_socket *socket = calloc(1, sizeof(*socket));
    KVS_ASSERT(socket != NULL);
    list_init(&socket->link);
    list_init(&socket->chunks);
    socket->capacity = sim->net->socket_bytes > 0 ? sim->net->socket_bytes : (size_t)4096 << sim_random(6);
    socket->end_ns = SIM_NEVER;
    socket->reset_ns = SIM_NEVER;
    return socket;
}

static void end_stream(struct sim_socket *socket)
{
    if (socket->end_ns == SIM_NEVER)
        socket->arrival_ns = socket->end_ns = later(socket);
}

static void socket_close(struct sim_socket *socket)
{
    struct sim_socket *peer = socket->peer;
    sim->changes++;
    if (peer != NULL) {
        if (socket->queued > 0 && peer->reset_ns == SIM_NEVER)
            peer->arrival_ns = peer->reset_ns = later(peer);
        end_stream(peer);
        peer->peer = NULL;
    }
    for (struct list *node = socket->chunks.next, *next; node != &socket->chunks; node = next) {
        next = node->next;
        free(container_of(node, struct chunk, link));
    }
    list_remove(&socket->link);
    free(socket);
}

void sim_net_close(struct sim_fd *fd)
{
    if (fd->type == SIM_FD_SOCKET) {
        socket_close(fd->object);
        return;
    }
    struct sim_listener *listener = fd->object;
    for (struct list *node = listener->backlog.next, *next; node != &listener->backlog; node = next) {
        next = node->next;
        socket_close(container_of(node, struct sim_socket, link));
    }
    list_remove(&listener->link);
    free(listener);
}

static struct sim_socket *socket_of(int fd)
{
    struct sim_socket *socket = sim_fd_object(fd, SIM_FD_SOCKET);
    KVS_ASSERT(socket != NULL);
    return socket;
}

void sim_net_shutdown(int fd)
{
    struct sim_socket *socket = socket_of(fd);
    sim->changes++;
    socket->shut = true;
    end_stream(socket);
    if (socket->peer != NULL)
        end_stream(socket->peer);
}

bool sim_net_addr(int fd, bool peer, struct ring_addr *addr)
{
    const struct sim_listener *listener = sim_fd_object(fd, SIM_FD_LISTENER);
    if (listener != NULL) {
        *addr = listener->addr;
        return !peer;
    }
    const struct sim_socket *socket = socket_of(fd);
    *addr = peer ? socket->remote : socket->local;
    return true;
}

static void chunk_drop(struct sim_socket *socket, struct chunk *chunk)
{
    socket->queued -= chunk->size - chunk->used;
    list_remove(&chunk->link);
    free(chunk);
}

static void break_side(struct sim_socket *socket, bool at_once)
{
    if (socket->reset_ns > sim->now_ns)
        socket->reset_ns = sim->now_ns;
    for (struct list *node = socket->chunks.next, *next; node != &socket->chunks; node = next) {
        struct chunk *chunk = container_of(node, struct chunk, link);
        next = node->next;
        if (at_once || chunk->arrives_ns > sim->now_ns)
            chunk_drop(socket, chunk);
    }
}

bool sim_net_break(int fd, bool at_once)
{
    struct sim_socket *socket = socket_of(fd);
    if (socket->shut || socket->peer == NULL || socket->reset_ns <= sim->now_ns)
        return false;
    sim->changes++;
    break_side(socket, at_once);
    break_side(socket->peer, at_once);
    return true;
}

bool sim_net_stall(int fd, uint64_t ns)
{
    const struct sim_socket *socket = socket_of(fd);
    struct sim_socket *peer = socket->peer;
    if (socket->shut || peer == NULL || peer->shut)
        return false;
    uint64_t until = sim->now_ns + ns;
    if (peer->arrival_ns < until)
        peer->arrival_ns = until;
    return true;
}

/* ---- connecting ------------------------------------------------------------------------------------------------- */

static bool same_addr(const struct ring_addr *a, const struct ring_addr *b)
{
    return a->size == b->size && memcmp(&a->storage, &b->storage, a->size) == 0;
}

/* Exact, or the same port on "any address". */
static bool answers(const struct ring_addr *listening, const struct ring_addr *wanted)
{
    if (same_addr(listening, wanted))
        return true;
    struct ring_addr any = *wanted;
    if (any.storage.ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)&any.storage)->sin_addr.s_addr = htonl(INADDR_ANY);
    else if (any.storage.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&any.storage)->sin6_addr = in6addr_any;
    else
        return false;
    return same_addr(listening, &any);
}

static void set_port(struct ring_addr *addr, unsigned port)
{
    if (addr->storage.ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)&addr->storage)->sin_port = htons((uint16_t)port);
    else if (addr->storage.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&addr->storage)->sin6_port = htons((uint16_t)port);
}

int sim_net_listen(const struct ring_addr *addr)
{
    bool tcp = addr->storage.ss_family != AF_UNIX;
    for (struct list *node = sim->net->listeners.next; !tcp && node != &sim->net->listeners; node = node->next)
        if (same_addr(&container_of(node, struct sim_listener, link)->addr, addr))
            return -EADDRINUSE;
    struct sim_listener *listener = calloc(1, sizeof(*listener));
    KVS_ASSERT(listener != NULL);
    list_init(&listener->backlog);
    listener->addr = *addr;
    if (tcp && ring_addr_port(addr) == 0)
        set_port(&listener->addr, sim->net->next_port++);
    list_push_back(&sim->net->listeners, &listener->link);
    return sim_fd_open(SIM_FD_LISTENER, listener, 0);
}

/* One of those that share the address. */
static struct sim_listener *choose_listener(const struct ring_addr *addr)
{
    struct sim_listener *chosen = NULL;
    unsigned count = 0;
    for (struct list *node = sim->net->listeners.next; node != &sim->net->listeners; node = node->next) {
        struct sim_listener *listener = container_of(node, struct sim_listener, link);
        if (answers(&listener->addr, addr) && sim_random(++count) == 0)
            chosen = listener;
    }
    return chosen;
}

int sim_net_connect(const struct ring_addr *addr)
{
    struct sim_listener *listener = choose_listener(addr);
    if (listener == NULL || listener->waiting >= BACKLOG_MAX)
        return -ECONNREFUSED;
    struct sim_socket *near = socket_create();
    struct sim_socket *far = socket_create();
    near->peer = far;
    far->peer = near;
    near->remote = far->local = *addr;
    near->local = *addr;
    set_port(&near->local, sim->net->next_port++);
    far->remote = near->local;
    far->arrival_ns = later(far);
    list_push_back(&listener->backlog, &far->link);
    listener->waiting++;
    sim->changes++;
    return sim_fd_open(SIM_FD_SOCKET, near, 0);
}

int sim_net_accept(int listen_fd)
{
    struct sim_listener *listener = sim_fd_object(listen_fd, SIM_FD_LISTENER);
    KVS_ASSERT(listener != NULL);
    struct list *node = list_pop_front(&listener->backlog);
    if (node == NULL)
        return -EAGAIN;
    listener->waiting--;
    sim->changes++;
    return sim_fd_open(SIM_FD_SOCKET, container_of(node, struct sim_socket, link), 0);
}

uint64_t sim_net_accept_when(int listen_fd)
{
    const struct sim_listener *listener = sim_fd_object(listen_fd, SIM_FD_LISTENER);
    KVS_ASSERT(listener != NULL);
    return list_empty(&listener->backlog) ? SIM_NEVER : 0;
}

/* ---- receiving -------------------------------------------------------------------------------------------------- */

uint64_t sim_net_recv_when(int fd)
{
    const struct sim_socket *socket = socket_of(fd);
    uint64_t when = socket->end_ns < socket->reset_ns ? socket->end_ns : socket->reset_ns;
    if (socket->shut)
        return 0;
    if (!list_empty(&socket->chunks)) {
        const struct chunk *first = container_of(socket->chunks.next, struct chunk, link);
        if (first->arrives_ns < when)
            when = first->arrives_ns;
    }
    return when;
}

static size_t arrived(const struct sim_socket *socket)
{
    size_t total = 0;
    for (struct list *node = socket->chunks.next; node != &socket->chunks; node = node->next) {
        const struct chunk *chunk = container_of(node, struct chunk, link);
        if (chunk->arrives_ns > sim->now_ns)
            break;
        total += chunk->size - chunk->used;
    }
    return total;
}

static void take(struct sim_socket *socket, uint8_t *out, size_t size)
{
    socket->queued -= size;
    sim->changes++;
    for (struct list *node = socket->chunks.next, *next; size > 0; node = next) {
        struct chunk *chunk = container_of(node, struct chunk, link);
        next = node->next;
        size_t part = chunk->size - chunk->used < size ? chunk->size - chunk->used : size;
        memcpy(out, chunk->data + chunk->used, part);
        out += part;
        size -= part;
        chunk->used += part;
        if (chunk->used == chunk->size) {
            list_remove(&chunk->link);
            free(chunk);
        }
    }
}

int sim_net_recv(int fd, uint8_t *out, size_t size)
{
    struct sim_socket *socket = socket_of(fd);
    size_t there = arrived(socket);
    if (there > 0) {
        if (there < size)
            size = there;
        if (sim_chance(50))
            size = (size_t)sim_between(1, size);
        take(socket, out, size);
        return (int)size;
    }
    if (socket->reset_ns <= sim->now_ns)
        return -ECONNRESET;
    return socket->shut || socket->end_ns <= sim->now_ns ? 0 : -EAGAIN;
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

uint64_t sim_net_send_when(int fd)
{
    const struct sim_socket *socket = socket_of(fd);
    const struct sim_socket *peer = socket->peer;
    if (socket->shut || peer == NULL || peer->shut || socket->reset_ns != SIM_NEVER)
        return 0;
    return peer->queued < peer->capacity ? 0 : SIM_NEVER;
}

static size_t total_of(const struct iovec *iov, unsigned iov_count)
{
    size_t total = 0;
    for (unsigned i = 0; i < iov_count; i++)
        total += iov[i].iov_len;
    return total;
}

static struct chunk *chunk_create(const struct iovec *iov, size_t size)
{
    struct chunk *chunk = malloc(sizeof(*chunk) + size);
    KVS_ASSERT(chunk != NULL);
    *chunk = (struct chunk){.size = size};
    for (size_t at = 0; at < size; iov++) {
        size_t part = iov->iov_len < size - at ? iov->iov_len : size - at;
        if (part > 0)
            memcpy(chunk->data + at, iov->iov_base, part);
        at += part;
    }
    return chunk;
}

/* The peer is gone. The first send finds that out, later ones know. */
static int send_into_void(struct sim_socket *socket, size_t total)
{
    sim->changes++;
    if (socket->shut || socket->reset_ns != SIM_NEVER || total > INT32_MAX)
        return socket->reset_ns <= sim->now_ns && !socket->shut ? -ECONNRESET : -EPIPE;
    socket->reset_ns = later(socket);
    return (int)total;
}

int sim_net_send(int fd, const struct iovec *iov, unsigned iov_count, bool cut)
{
    struct sim_socket *socket = socket_of(fd);
    struct sim_socket *peer = socket->peer;
    size_t size = total_of(iov, iov_count);
    if (socket->reset_ns <= sim->now_ns && !socket->shut)
        return -ECONNRESET;
    if (socket->shut || peer == NULL || peer->shut)
        return send_into_void(socket, size);
    size_t room = peer->capacity - peer->queued;
    if (size > room)
        size = room;
    if (cut && size > 1)
        size = (size_t)sim_between(1, size - 1);
    if (size == 0)
        return 0;
    struct chunk *chunk = chunk_create(iov, size);
    chunk->arrives_ns = peer->arrival_ns = later(peer);
    peer->queued += size;
    sim->changes++;
    list_push_back(&peer->chunks, &chunk->link);
    return (int)size;
}
