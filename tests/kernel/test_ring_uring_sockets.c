/*
 * test_ring_uring_sockets.c - ring.h on the real kernel: TCP and Unix sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ring/ring.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MS         ((int64_t)1000000)
#define BUFFERS    8
#define BUFFER     1024
#define CONN_COUNT 16
#define BIG        (8u << 20)

struct conn {
    struct ring_op recv, send;
    struct iovec iov;
    uint8_t *got;
    size_t got_bytes;
    int fd;
    bool ended;
    enum kvs_err error;
};

static struct ring *ring;
static char dir[64];
static struct ring_addr addr;
static int listen_fd;
static struct ring_op accept_op;
static struct conn conns[CONN_COUNT];
static unsigned conn_count;
static bool keep_buffers; /* receivers do not give them back */
static uint16_t kept[BUFFERS];
static unsigned kept_count;

static void nothing_done(struct ring_op *op)
{
    (void)op;
}

static void on_recv(struct ring_op *op)
{
    struct conn *conn = container_of(op, struct conn, recv);
    if (op->flags & RING_BUFFER) {
        memcpy(conn->got + conn->got_bytes, ring_buffer_data(ring, op->buffer_id), op->bytes);
        conn->got_bytes += op->bytes;
        if (keep_buffers)
            kept[kept_count++] = op->buffer_id;
        else
            ring_buffer_release(ring, op->buffer_id);
    }
    if (op->error == KVS_ERR_NO_BUFFERS && !keep_buffers) {
        ring_recv(ring, op, conn->fd); /* all have come back in the meantime */
    } else if (!(op->flags & RING_MORE)) {
        conn->ended = true;
        conn->error = op->error;
    }
}

static struct conn *add_conn(int fd)
{
    assert_in_range(conn_count, 0, CONN_COUNT - 1);
    struct conn *conn = &conns[conn_count++];
    *conn = (struct conn){.fd = fd, .got = malloc(BIG)};
    assert_non_null(conn->got);
    ring_op_init(&conn->recv, on_recv);
    ring_op_init(&conn->send, nothing_done);
    ring_recv(ring, &conn->recv, fd);
    return conn;
}

static void on_accept(struct ring_op *op)
{
    if (op->error == KVS_ERR_OK)
        (void)add_conn(op->fd);
}

static int set_up(void **state)
{
    (void)state;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.buffer_count = BUFFERS, .buffer_bytes = BUFFER};
    if (ring_open(&ring, &options, message) != KVS_ERR_OK)
        fail_msg("%s", message);
    snprintf(dir, sizeof(dir), "/tmp/test_ring_sockets.XXXXXX");
    assert_non_null(mkdtemp(dir));
    conn_count = kept_count = 0;
    keep_buffers = false;
    ring_op_init(&accept_op, on_accept);
    listen_fd = -1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    ring_close(ring);
    for (unsigned i = 0; i < conn_count; i++) {
        close(conns[i].fd);
        free(conns[i].got);
    }
    if (listen_fd >= 0)
        close(listen_fd);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    return 0;
}

static void turn_until(bool condition(void))
{
    uint64_t begin = ring_now_ns(ring);
    while (!condition()) {
        (void)ring_turn(ring, 100 * MS);
        assert_true(ring_now_ns(ring) - begin < 100000 * MS);
    }
}

static void listen_on(const char *tcp)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/socket", dir);
    assert_int_equal(tcp != NULL ? ring_addr_parse_tcp(tcp, &addr) : ring_addr_unix(path, &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(ring, &addr, &listen_fd), KVS_ERR_OK);
    assert_int_equal(ring_local_addr(ring, listen_fd, &addr), KVS_ERR_OK);
}

static int await_connect(enum kvs_err expected)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_connect(ring, &op, &addr);
    ring_await(ring, &op);
    assert_int_equal(op.error, expected);
    return op.fd;
}

static bool has_two_conns(void)
{
    return conn_count == 2;
}

/* A pair of connected sockets, both receiving. conns[0] is the side that `*server` is not. */
static struct conn *join(struct conn **server)
{
    ring_accept(ring, &accept_op, listen_fd);
    int fd = await_connect(KVS_ERR_OK);
    bool accepted_first = conn_count == 1;
    struct conn *client = add_conn(fd);
    turn_until(has_two_conns);
    *server = accepted_first ? &conns[0] : &conns[1];
    return client;
}

static struct conn *watched;
static size_t expected_bytes;

static bool has_bytes(void)
{
    return watched->got_bytes >= expected_bytes;
}

static bool has_ended(void)
{
    return watched->ended;
}

static bool is_sent(void)
{
    return !ring_op_active(&watched->send);
}

static void send_all(struct conn *conn, const void *data, size_t size)
{
    conn->iov = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    ring_send(ring, &conn->send, conn->fd, &conn->iov, 1);
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static void exchange(const char *tcp)
{
    struct conn *server;
    listen_on(tcp);
    struct conn *client = join(&server);
    assert_int_equal(fcntl(server->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(client->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    if (tcp != NULL) {
        assert_int_not_equal(option(server->fd, IPPROTO_TCP, TCP_NODELAY), 0);
        assert_int_not_equal(option(client->fd, IPPROTO_TCP, TCP_NODELAY), 0);
    }
    send_all(client, "ping", 4);
    watched = server;
    expected_bytes = 4;
    turn_until(has_bytes);
    assert_memory_equal(server->got, "ping", 4);
    send_all(server, "pong!", 5);
    watched = client;
    expected_bytes = 5;
    turn_until(has_bytes);
    assert_memory_equal(client->got, "pong!", 5);
    /* The receive goes on by itself. */
    watched = server;
    turn_until(is_sent);
    watched = client;
    turn_until(is_sent);
    send_all(client, "again", 5);
    watched = server;
    expected_bytes = 9;
    turn_until(has_bytes);
    assert_false(server->ended);
}

static void test_ring_uring__echo_over_tcp(void **state)
{
    (void)state;
    exchange("127.0.0.1:0");
}

static void test_ring_uring__echo_over_unix(void **state)
{
    (void)state;
    exchange(NULL);
}

static bool has_all_conns(void)
{
    return conn_count == CONN_COUNT;
}

static void test_ring_uring__one_accept_takes_many(void **state)
{
    (void)state;
    int fds[CONN_COUNT];
    listen_on("127.0.0.1:0");
    ring_accept(ring, &accept_op, listen_fd);
    for (unsigned i = 0; i < CONN_COUNT; i++)
        fds[i] = await_connect(KVS_ERR_OK);
    turn_until(has_all_conns);
    assert_true(ring_op_active(&accept_op));
    assert_int_equal(accept_op.flags & RING_MORE, RING_MORE);
    struct ring_addr peer, local;
    assert_int_equal(ring_peer_addr(ring, conns[0].fd, &peer), KVS_ERR_OK);
    assert_int_equal(ring_local_addr(ring, conns[0].fd, &local), KVS_ERR_OK);
    assert_int_equal(ring_addr_port(&local), ring_addr_port(&addr));
    assert_int_not_equal(ring_addr_port(&peer), ring_addr_port(&addr));
    ring_cancel(ring, &accept_op);
    ring_await(ring, &accept_op);
    assert_int_equal(accept_op.error, KVS_ERR_CANCELLED);
    for (unsigned i = 0; i < CONN_COUNT; i++)
        ring_close_fd(ring, fds[i]);
}

static void test_ring_uring__connect_is_refused(void **state)
{
    (void)state;
    listen_on("127.0.0.1:0");
    ring_close_fd(ring, listen_fd);
    listen_fd = -1;
    (void)ring_turn(ring, 10 * MS); /* the kernel closes when the turn is over */
    int next = dup(0);
    close(next);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(await_connect(KVS_ERR_REFUSED), -1);
    (void)ring_turn(ring, 10 * MS);
    int again = dup(0); /* not the same, had a failed connect left a descriptor behind */
    assert_int_equal(again, next);
    close(again);
}

static void test_ring_uring__rings_share_a_port_processes_do_not(void **state)
{
    (void)state;
    int second;
    listen_on("127.0.0.1:0");
    assert_int_equal(ring_listen(ring, &addr, &second), KVS_ERR_OK);
    ring_close_fd(ring, second);
    /* A listener that this process's rings know nothing of, as another node would have it. */
    int other = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct ring_addr taken;
    assert_int_equal(ring_addr_parse_tcp("127.0.0.1:0", &taken), KVS_ERR_OK);
    assert_int_equal(setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(other, (struct sockaddr *)(void *)&taken.storage, taken.size), 0);
    assert_int_equal(listen(other, 1), 0);
    assert_int_equal(ring_local_addr(ring, other, &taken), KVS_ERR_OK);
    assert_int_equal(ring_listen(ring, &taken, &second), KVS_ERR_ADDRESS_IN_USE);
    close(other);
    assert_int_equal(ring_listen(ring, &taken, &second), KVS_ERR_OK);
    ring_close_fd(ring, second);
}

static void test_ring_uring__stale_unix_socket_is_replaced(void **state)
{
    (void)state;
    int second;
    listen_on(NULL);
    assert_int_equal(ring_listen(ring, &addr, &second), KVS_ERR_ADDRESS_IN_USE);
    assert_int_equal(second, -1);
    close(listen_fd); /* the file stays behind, as after a crash */
    listen_fd = -1;
    assert_int_equal(await_connect(KVS_ERR_REFUSED), -1);
    assert_int_equal(ring_listen(ring, &addr, &listen_fd), KVS_ERR_OK);
    ring_close_fd(ring, await_connect(KVS_ERR_OK));
}

static void test_ring_uring__file_in_the_way_is_not_replaced(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof(path), "%s/file", dir);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600), second;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(ring_addr_unix(path, &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(ring, &addr, &second), KVS_ERR_ADDRESS_IN_USE);
    assert_int_equal(access(path, F_OK), 0);
}

static void test_ring_uring__address_of_another_machine_is_unavailable(void **state)
{
    (void)state;
    int fd;
    assert_int_equal(ring_addr_parse_tcp("192.0.2.1:0", &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(ring, &addr, &fd), KVS_ERR_ADDRESS_UNAVAILABLE);
}

/* ---- transferring ---------------------------------------------------------------------------------------------- */

static void test_ring_uring__large_sends_arrive_whole(void **state)
{
    (void)state;
    struct conn *server;
    static struct iovec iov[RING_IOV_MAX];
    uint8_t *data = malloc(BIG);
    assert_non_null(data);
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 8) + (i >> 16));
    listen_on("127.0.0.1:0");
    struct conn *client = join(&server);
    size_t at = 0;
    for (unsigned i = 0; i < RING_IOV_MAX; i++) {
        size_t size = i + 1 < RING_IOV_MAX ? (size_t)i * 4001 : BIG - at;
        iov[i] = (struct iovec){.iov_base = data + at, .iov_len = size};
        at += size;
    }
    ring_send(ring, &client->send, client->fd, iov, RING_IOV_MAX);
    watched = server;
    expected_bytes = BIG;
    turn_until(has_bytes);
    watched = client;
    turn_until(is_sent);
    assert_int_equal(client->send.error, KVS_ERR_OK);
    assert_int_equal(client->send.bytes, BIG);
    assert_memory_equal(server->got, data, BIG);
    free(data);
}

static bool no_buffers_left(void)
{
    return watched->ended && ring_buffers_free(ring) == 0;
}

static void test_ring_uring__buffers_run_out_and_come_back(void **state)
{
    (void)state;
    struct conn *server;
    static uint8_t data[3 * BUFFERS * BUFFER];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + (i >> 8));
    listen_on("127.0.0.1:0");
    struct conn *client = join(&server);
    keep_buffers = true;
    send_all(client, data, sizeof(data));
    watched = server;
    turn_until(no_buffers_left);
    assert_int_equal(server->error, KVS_ERR_NO_BUFFERS);
    assert_int_equal(kept_count, BUFFERS);
    /* At once again, as long as there is none. */
    server->ended = false;
    ring_recv(ring, &server->recv, server->fd);
    turn_until(has_ended);
    assert_int_equal(server->error, KVS_ERR_NO_BUFFERS);
    while (kept_count > 0)
        ring_buffer_release(ring, kept[--kept_count]);
    assert_int_equal(ring_buffers_free(ring), BUFFERS);
    keep_buffers = false;
    while (server->got_bytes < sizeof(data)) {
        if (!ring_op_active(&server->recv))
            ring_recv(ring, &server->recv, server->fd);
        (void)ring_turn(ring, 1000 * MS);
    }
    assert_memory_equal(server->got, data, sizeof(data));
    assert_int_equal(ring_buffers_free(ring), BUFFERS);
}

static void test_ring_uring__receive_is_cancelled_and_started_again(void **state)
{
    (void)state;
    struct conn *server;
    listen_on("127.0.0.1:0");
    struct conn *client = join(&server);
    ring_cancel(ring, &server->recv);
    watched = server;
    turn_until(has_ended);
    assert_int_equal(server->error, KVS_ERR_CANCELLED);
    send_all(client, "hello", 5);
    assert_true(ring_turn(ring, 100000 * MS) > 0);
    assert_int_equal(server->got_bytes, 0);
    ring_recv(ring, &server->recv, server->fd);
    expected_bytes = 5;
    turn_until(has_bytes);
}

static void test_ring_uring__blocked_send_is_cancelled(void **state)
{
    (void)state;
    struct conn *server;
    uint8_t *data = calloc(1, BIG);
    assert_non_null(data);
    listen_on(NULL);
    struct conn *client = join(&server);
    ring_cancel(ring, &server->recv);
    watched = server;
    turn_until(has_ended);
    send_all(client, data, BIG);
    (void)ring_turn(ring, 50 * MS);
    assert_true(ring_op_active(&client->send));
    ring_cancel(ring, &client->send);
    watched = client;
    turn_until(is_sent);
    assert_int_equal(client->send.error, KVS_ERR_CANCELLED);
    assert_true(client->send.bytes < BIG);
    free(data);
}

static void test_ring_uring__peer_close_ends_the_stream(void **state)
{
    (void)state;
    struct conn *server;
    listen_on("127.0.0.1:0");
    struct conn *client = join(&server);
    send_all(client, "bye", 3);
    watched = client;
    turn_until(is_sent);
    ring_shutdown(ring, client->fd);
    watched = server;
    turn_until(has_ended);
    assert_int_equal(server->error, KVS_ERR_OK);
    assert_int_equal(server->recv.bytes, 0);
    assert_int_equal(server->recv.flags, 0);
    assert_memory_equal(server->got, "bye", 3);
    assert_int_equal(ring_buffers_free(ring), BUFFERS);
    /* Sending on fails without a signal. */
    for (unsigned i = 0; i < 3; i++) {
        send_all(server, "anybody there?", 14);
        turn_until(is_sent);
    }
    assert_int_equal(server->send.error, KVS_ERR_CLOSED);
}

static void test_ring_uring__close_ends_sockets_in_flight(void **state)
{
    (void)state;
    struct conn *server;
    char message[RING_MESSAGE_BYTES];
    listen_on("127.0.0.1:0");
    struct conn *client = join(&server);
    struct ring_options options = {.buffer_count = BUFFERS, .buffer_bytes = BUFFER};
    struct ring *old = ring;
    send_all(client, "data under way", 14);
    int late = await_connect(KVS_ERR_OK);
    ring_close(old);
    assert_false(ring_op_active(&accept_op));
    assert_false(ring_op_active(&server->recv));
    assert_false(ring_op_active(&client->recv));
    close(late);
    assert_int_equal(ring_open(&ring, &options, message), KVS_ERR_OK);
}

int main(void)
{
#define RING_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RING_TEST(test_ring_uring__echo_over_tcp),
        RING_TEST(test_ring_uring__echo_over_unix),
        RING_TEST(test_ring_uring__one_accept_takes_many),
        RING_TEST(test_ring_uring__connect_is_refused),
        RING_TEST(test_ring_uring__rings_share_a_port_processes_do_not),
        RING_TEST(test_ring_uring__stale_unix_socket_is_replaced),
        RING_TEST(test_ring_uring__file_in_the_way_is_not_replaced),
        RING_TEST(test_ring_uring__address_of_another_machine_is_unavailable),
        RING_TEST(test_ring_uring__large_sends_arrive_whole),
        RING_TEST(test_ring_uring__buffers_run_out_and_come_back),
        RING_TEST(test_ring_uring__receive_is_cancelled_and_started_again),
        RING_TEST(test_ring_uring__blocked_send_is_cancelled),
        RING_TEST(test_ring_uring__peer_close_ends_the_stream),
        RING_TEST(test_ring_uring__close_ends_sockets_in_flight),
    };
    alarm(600); /* ends by itself, whatever happens */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
