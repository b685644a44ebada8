/*
 * ring_uring_sockets.c - the blocking calls on sockets and signals: listening, addresses, shutting down.
 *
 * Happy path: socket, options, bind, listen. TCP_NODELAY is set on the listener, because Linux hands it down to
 * accepted sockets, which saves a system call per connection.
 *
 * Failure modes: SO_REUSEPORT, which lets the rings of one process share a port, would also let a second process of the
 * same user join in unnoticed and take half of the connections. So the first listener of a process on an address is
 * preceded by a trial bind without it, which fails with ADDRESS_IN_USE if anybody else is there. A Unix socket file
 * that nobody answers on is left over from a process that died, and is replaced.
 */
#include "ring/ring_uring_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096 /* cut by the kernel to net.core.somaxconn */
#define SHARED_MAX     16

static const struct sockaddr *sockaddr_of(const struct ring_addr *addr)
{
    return (const struct sockaddr *)(const void *)&addr->storage;
}

static enum kvs_err set_option(int fd, int level, int name)
{
    int on = 1;
    return setsockopt(fd, level, name, &on, sizeof(on)) == 0 ? KVS_ERR_OK : ring_error_from_errno(errno);
}

int uring_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (family != AF_UNIX)
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY); /* without it replies are late, not wrong */
    return fd;
}

/* ---- listening on TCP ------------------------------------------------------------------------------------------ */

/* The addresses that rings of this process listen on together. */
static struct {
    pthread_mutex_t lock;
    unsigned count;
    struct ring_addr addrs[SHARED_MAX];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_shared(const struct ring_addr *addr)
{
    for (unsigned i = 0; i < shared.count; i++)
        if (shared.addrs[i].size == addr->size && memcmp(&shared.addrs[i].storage, &addr->storage, addr->size) == 0)
            return true;
    return false;
}

static enum kvs_err bind_tcp(int fd, const struct ring_addr *addr, bool share)
{
    enum kvs_err err = set_option(fd, SOL_SOCKET, SO_REUSEADDR);
    if (err == KVS_ERR_OK && share)
        err = set_option(fd, SOL_SOCKET, SO_REUSEPORT);
    if (err == KVS_ERR_OK && addr->storage.ss_family == AF_INET6)
        err = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY); /* [::] is not 0.0.0.0: who wants both says both */
    if (err == KVS_ERR_OK && bind(fd, sockaddr_of(addr), addr->size) != 0)
        err = ring_error_from_errno(errno);
    return err;
}

/* Fails when somebody else listens on the address. */
static enum kvs_err try_alone(const struct ring_addr *addr)
{
    int fd = uring_socket(addr->storage.ss_family);
    if (fd < 0)
        return ring_error_from_errno(-fd);
    enum kvs_err err = bind_tcp(fd, addr, false);
    (void)close(fd);
    return err;
}

static enum kvs_err listen_tcp(struct ring *ring, const struct ring_addr *addr, int fd)
{
    (void)pthread_mutex_lock(&shared.lock);
    enum kvs_err err = KVS_ERR_OK;
    struct ring_addr bound;
    if (!is_shared(addr) && ring_addr_port(addr) != 0)
        err = try_alone(addr);
    if (err == KVS_ERR_OK)
        err = bind_tcp(fd, addr, true);
    if (err == KVS_ERR_OK && listen(fd, LISTEN_BACKLOG) != 0)
        err = ring_error_from_errno(errno);
    if (err == KVS_ERR_OK)
        err = ring_local_addr(ring, fd, &bound);
    if (err == KVS_ERR_OK && !is_shared(&bound))
        shared.addrs[shared.count++ % SHARED_MAX] = bound;
    if (shared.count > SHARED_MAX)
        shared.count = SHARED_MAX;
    (void)pthread_mutex_unlock(&shared.lock);
    return err;
}

/* ---- listening on a Unix socket -------------------------------------------------------------------------------- */

/* True when the file is a socket that nobody listens on. */
static bool is_stale(const struct ring_addr *addr)
{
    struct sockaddr_un un;
    struct stat status;
    memcpy(&un, &addr->storage, sizeof(un));
    if (lstat(un.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, sockaddr_of(addr), addr->size) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return refused;
}

static enum kvs_err listen_unix(const struct ring_addr *addr, int fd)
{
    int rc = bind(fd, sockaddr_of(addr), addr->size);
    if (rc != 0 && errno == EADDRINUSE) {
        if (!is_stale(addr))
            return KVS_ERR_ADDRESS_IN_USE;
        struct sockaddr_un un;
        memcpy(&un, &addr->storage, sizeof(un));
        if (unlink(un.sun_path) != 0 && errno != ENOENT)
            return ring_error_from_errno(errno);
        rc = bind(fd, sockaddr_of(addr), addr->size);
    }
    if (rc != 0 || listen(fd, LISTEN_BACKLOG) != 0)
        return ring_error_from_errno(errno);
    return KVS_ERR_OK;
}

enum kvs_err ring_listen(struct ring *ring, const struct ring_addr *addr, int *fd)
{
    KVS_ASSERT(ring != NULL && addr != NULL && fd != NULL);
    *fd = -1;
    int listener = uring_socket(addr->storage.ss_family);
    if (listener < 0)
        return ring_error_from_errno(-listener);
    uring_submit(ring); /* a close that is queued may be what the address waits for */
    enum kvs_err err =
        addr->storage.ss_family == AF_UNIX ? listen_unix(addr, listener) : listen_tcp(ring, addr, listener);
    if (err != KVS_ERR_OK)
        (void)close(listener);
    else
        *fd = listener;
    return err;
}

/* ---- addresses ------------------------------------------------------------------------------------------------- */

enum kvs_err ring_local_addr(struct ring *ring, int fd, struct ring_addr *addr)
{
    KVS_ASSERT(ring != NULL && addr != NULL);
    memset(addr, 0, sizeof(*addr));
    addr->size = sizeof(addr->storage);
    if (getsockname(fd, (struct sockaddr *)(void *)&addr->storage, &addr->size) != 0)
        return ring_error_from_errno(errno);
    return KVS_ERR_OK;
}

enum kvs_err ring_peer_addr(struct ring *ring, int fd, struct ring_addr *addr)
{
    KVS_ASSERT(ring != NULL && addr != NULL);
    memset(addr, 0, sizeof(*addr));
    addr->size = sizeof(addr->storage);
    if (getpeername(fd, (struct sockaddr *)(void *)&addr->storage, &addr->size) != 0)
        return ring_error_from_errno(errno);
    return KVS_ERR_OK;
}

/* A system call, not a queued request: the kernel would hand the latter to a worker thread. */
void ring_keepalive(struct ring *ring, int fd, unsigned seconds)
{
    (void)ring;
    const int idle = (int)seconds, between = idle / 3 > 0 ? idle / 3 : 1, probes = 3;
    /* Fails for a Unix socket, whose peer cannot vanish. */
    if (set_option(fd, SOL_SOCKET, SO_KEEPALIVE) != KVS_ERR_OK ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle)) != 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

void ring_shutdown(struct ring *ring, int fd)
{
    KVS_ASSERT(ring != NULL && fd >= 0);
    (void)shutdown(fd, SHUT_RDWR); /* fails when the peer was faster */
}

/* ---- signals --------------------------------------------------------------------------------------------------- */

enum kvs_err ring_signals_open(struct ring *ring, int *signal_fd)
{
    KVS_ASSERT(ring != NULL && signal_fd != NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (rc != 0)
        return ring_error_from_errno(rc);
    (void)signal(SIGPIPE, SIG_IGN);
    *signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *signal_fd >= 0 ? KVS_ERR_OK : ring_error_from_errno(errno);
}
