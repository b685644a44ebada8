/*
 * test_ring_sockets.c - sockets of the simulated machine: streams cut at random, buffers that run out, ends and resets.
 */
#include "test_ring_fixture.h"

#include <errno.h>

#define PORT  "127.0.0.1:4000"
#define BYTES 20000

/* One side of a connection, which collects what it receives. */
struct side {
    struct ring *ring;
    struct ring_op accept, recv, send, connect;
    int fd;
    uint8_t got[BYTES];
    size_t got_bytes;
    unsigned deliveries;
    bool keep_buffers; /* does not give them back */
    uint16_t kept[64];
    unsigned kept_count;
    bool ended;
    enum kvs_err error;
};

static struct side server, client;
static int listen_fd;

static void on_recv(struct ring_op *op)
{
    struct side *side = container_of(op, struct side, recv);
    if (op->flags & RING_BUFFER) {
        assert_in_range(op->bytes, 1, 256);
        assert_true(side->got_bytes + op->bytes <= BYTES);
        memcpy(side->got + side->got_bytes, ring_buffer_data(side->ring, op->buffer_id), op->bytes);
        side->got_bytes += op->bytes;
        side->deliveries++;
        if (side->keep_buffers)
            side->kept[side->kept_count++] = op->buffer_id;
        else
            ring_buffer_release(side->ring, op->buffer_id);
    }
    if (!(op->flags & RING_MORE)) {
        side->ended = true;
        side->error = op->error;
    }
}

static void on_accept(struct ring_op *op)
{
    struct side *side = container_of(op, struct side, accept);
    if (op->error != KVS_ERR_OK)
        return;
    side->fd = op->fd;
    ring_recv(side->ring, &side->recv, op->fd);
}

static void side_init(struct side *side, unsigned buffers)
{
    memset(side, 0, sizeof(*side));
    side->ring = open_ring(buffers);
    side->fd = -1;
    ring_op_init(&side->accept, on_accept);
    ring_op_init(&side->recv, on_recv);
    ring_op_init(&side->send, nothing_done);
    ring_op_init(&side->connect, nothing_done);
}

static bool is_accepted(void *context)
{
    (void)context;
    return server.fd >= 0;
}

/* A client connected to a server, which receives. */
static void join(unsigned buffers)
{
    struct ring_addr addr;
    side_init(&server, buffers);
    side_init(&client, buffers);
    assert_int_equal(ring_addr_parse_tcp(PORT, &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(server.ring, &addr, &listen_fd), KVS_ERR_OK);
    ring_accept(server.ring, &server.accept, listen_fd);
    ring_connect(client.ring, &client.connect, &addr);
    ring_await(client.ring, &client.connect);
    assert_int_equal(client.connect.error, KVS_ERR_OK);
    client.fd = client.connect.fd;
    assert_true(sim_run_until(is_accepted, NULL, 1000));
}

static void boot(uint64_t seed, unsigned buffers)
{
    sim_create(seed);
    join(buffers);
}

static bool server_has_all(void *context)
{
    (void)context;
    return server.got_bytes == BYTES;
}

static bool server_ended(void *context)
{
    (void)context;
    return server.ended;
}

static bool send_ended(void *context)
{
    (void)context;
    return !ring_op_active(&client.send);
}

static void start_send(const uint8_t *data, struct iovec iov[3])
{
    iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = 100};
    iov[1] = (struct iovec){.iov_base = NULL, .iov_len = 0};
    iov[2] = (struct iovec){.iov_base = (void *)(uintptr_t)(data + 100), .iov_len = BYTES - 100};
    ring_send(client.ring, &client.send, client.fd, iov, 3);
}

static void test_ring_sim__streams_are_cut_but_whole(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    fill(data, BYTES, 1);
    for (uint64_t seed = 0; seed < 30; seed++) {
        boot(seed, 4);
        sim_set_short(50);
        sim_set_interrupted(20);
        start_send(data, iov);
        assert_true(sim_run_until(server_has_all, NULL, 100000));
        assert_true(sim_run_until(send_ended, NULL, 1000));
        assert_memory_equal(server.got, data, BYTES);
        assert_int_equal(client.send.error, KVS_ERR_OK);
        assert_int_equal(client.send.bytes, BYTES);
        assert_true(server.deliveries > BYTES / 256 + 5);
        ring_close_fd(client.ring, client.fd);
        assert_true(sim_run_until(server_ended, NULL, 1000));
        assert_int_equal(server.error, KVS_ERR_OK);
        assert_int_equal(server.recv.bytes, 0);
        assert_int_equal(server.recv.flags, 0);
        assert_int_equal(ring_buffers_free(server.ring), 4);
        sim_destroy();
    }
}

static void test_ring_sim__buffers_run_out_and_come_back(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    fill(data, BYTES, 2);
    for (uint64_t seed = 0; seed < 20; seed++) {
        boot(seed, 4);
        server.keep_buffers = true;
        start_send(data, iov);
        unsigned dry = 0;
        while (server.got_bytes < BYTES) {
            assert_true(sim_run_until(server_ended, NULL, 100000));
            assert_int_equal(server.error, KVS_ERR_NO_BUFFERS);
            assert_int_equal(ring_buffers_free(server.ring), 0);
            assert_int_equal(server.kept_count, 4);
            while (server.kept_count > 0)
                ring_buffer_release(server.ring, server.kept[--server.kept_count]);
            server.ended = false;
            ring_recv(server.ring, &server.recv, server.fd);
            dry++;
            server.keep_buffers = server.got_bytes < BYTES / 2;
            if (!server.keep_buffers)
                assert_true(sim_run_until(server_has_all, NULL, 100000));
        }
        assert_memory_equal(server.got, data, BYTES);
        assert_true(dry >= BYTES / 2 / 1024);
        sim_destroy();
    }
}

static void test_ring_sim__receive_without_buffers_fails_at_once(void **state)
{
    (void)state;
    boot(1, 1);
    server.keep_buffers = true;
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    ring_send(client.ring, &client.send, client.fd, &iov, 1);
    bool got_it = false;
    for (unsigned i = 0; i < 1000 && !got_it; i++) {
        assert_true(sim_step());
        got_it = server.got_bytes == 1;
    }
    assert_true(got_it);
    if (!server.ended) {
        ring_cancel(server.ring, &server.recv);
        ring_await(server.ring, &server.recv);
    }
    ring_recv(server.ring, &server.recv, server.fd);
    ring_await(server.ring, &server.recv);
    assert_int_equal(server.error, KVS_ERR_NO_BUFFERS);
    sim_destroy();
}

static void test_ring_sim__send_waits_for_a_slow_reader(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    fill(data, BYTES, 3);
    sim_create(5);
    sim_set_socket_bytes(1000);
    join(4);
    ring_cancel(server.ring, &server.recv);
    ring_await(server.ring, &server.recv);
    assert_int_equal(server.error, KVS_ERR_CANCELLED);
    start_send(data, iov);
    assert_false(sim_run_until(send_ended, NULL, 1000));
    assert_int_equal(client.send.transferred, 1000);
    ring_recv(server.ring, &server.recv, server.fd);
    assert_true(sim_run_until(server_has_all, NULL, 100000));
    sim_destroy();
}

static void test_ring_sim__nobody_listens(void **state)
{
    (void)state;
    struct ring_addr addr;
    sim_create(1);
    side_init(&client, 0);
    assert_int_equal(ring_addr_parse_tcp(PORT, &addr), KVS_ERR_OK);
    ring_connect(client.ring, &client.connect, &addr);
    ring_await(client.ring, &client.connect);
    assert_int_equal(client.connect.error, KVS_ERR_REFUSED);
    assert_int_equal(client.connect.fd, -1);
    sim_destroy();
}

static void test_ring_sim__close_with_unread_bytes_resets(void **state)
{
    (void)state;
    boot(2, 4);
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "hello", .iov_len = 5};
    struct ring_op send;
    ring_op_init(&send, nothing_done);
    ring_send(server.ring, &send, server.fd, &iov, 1);
    ring_await(server.ring, &send);
    assert_int_equal(send.error, KVS_ERR_OK);
    ring_close_fd(client.ring, client.fd);
    assert_true(sim_run_until(server_ended, NULL, 1000));
    assert_int_equal(server.error, KVS_ERR_CLOSED);
    sim_destroy();
}

static void test_ring_sim__sending_to_a_closed_peer_fails_in_the_end(void **state)
{
    (void)state;
    boot(3, 4);
    ring_close_fd(client.ring, client.fd);
    enum kvs_err err = KVS_ERR_OK;
    for (unsigned i = 0; i < 3; i++) {
        struct iovec iov = {.iov_base = (void *)(uintptr_t) "hello", .iov_len = 5};
        struct ring_op send;
        ring_op_init(&send, nothing_done);
        ring_send(server.ring, &send, server.fd, &iov, 1);
        ring_await(server.ring, &send);
        err = send.error;
    }
    assert_int_equal(err, KVS_ERR_CLOSED);
    sim_destroy();
}

static void test_ring_sim__shutdown_ends_a_receive(void **state)
{
    (void)state;
    boot(4, 4);
    ring_shutdown(server.ring, server.fd);
    assert_true(sim_run_until(server_ended, NULL, 1000));
    assert_int_equal(server.error, KVS_ERR_OK);
    ring_close_fd(server.ring, server.fd);
    sim_destroy();
}

static void test_ring_sim__addresses_are_known(void **state)
{
    (void)state;
    char text[RING_ADDR_TEXT_BYTES];
    struct ring_addr addr, peer;
    boot(5, 4);
    assert_int_equal(ring_peer_addr(client.ring, client.fd, &addr), KVS_ERR_OK);
    assert_string_equal(ring_addr_format(&addr, text), PORT);
    assert_int_equal(ring_local_addr(client.ring, client.fd, &addr), KVS_ERR_OK);
    assert_int_equal(ring_peer_addr(server.ring, server.fd, &peer), KVS_ERR_OK);
    assert_true(ring_addr_port(&addr) != 4000 && ring_addr_port(&addr) == ring_addr_port(&peer));
    int fd;
    assert_int_equal(ring_addr_parse_tcp("[::1]:0", &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(server.ring, &addr, &fd), KVS_ERR_OK);
    assert_int_equal(ring_local_addr(server.ring, fd, &addr), KVS_ERR_OK);
    assert_true(ring_addr_port(&addr) > 0);
    assert_int_equal(ring_addr_unix("/run/kvs.sock", &addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(server.ring, &addr, &fd), KVS_ERR_OK);
    assert_int_equal(ring_listen(client.ring, &addr, &fd), KVS_ERR_ADDRESS_IN_USE);
    sim_destroy();
}

static void test_ring_sim__accept_is_cancelled_or_fails(void **state)
{
    (void)state;
    boot(6, 4);
    ring_cancel(server.ring, &server.accept);
    ring_await(server.ring, &server.accept);
    assert_int_equal(server.accept.error, KVS_ERR_CANCELLED);
    sim_fail(RING_KIND_ACCEPT, 1, EMFILE);
    ring_accept(server.ring, &server.accept, listen_fd);
    ring_await(server.ring, &server.accept);
    assert_int_equal(server.accept.error, KVS_ERR_NO_DESCRIPTORS);
    ring_close_fd(server.ring, listen_fd);
    sim_destroy();
}

/* ---- faults by chance -------------------------------------------------------------------------------------------- */

/* ring_io starts an ended receive again unseen. */
static void test_ring_sim__ended_receives_are_not_seen(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    fill(data, BYTES, 4);
    boot(7, 4);
    uint64_t before = sim_issued(RING_KIND_RECV);
    sim_odds(SIM_FAULT_ENDED, 1000000);
    start_send(data, iov);
    assert_true(sim_run_until(server_has_all, NULL, 100000));
    assert_memory_equal(server.got, data, BYTES);
    assert_false(server.ended);
    /* All but the first, which was issued before the odds were set. */
    assert_in_range(sim_issued(RING_KIND_RECV) - before, server.deliveries - 1, server.deliveries);
    assert_in_range(sim_fault_count(SIM_FAULT_ENDED), server.deliveries - 1, server.deliveries);
    sim_destroy();
}

static void test_ring_sim__receive_ends_for_want_of_buffers_though_there_are_some(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    fill(data, BYTES, 5);
    boot(8, 4);
    sim_odds(SIM_FAULT_NO_BUFFERS, 300000);
    start_send(data, iov);
    unsigned ends = 0;
    while (!server_has_all(NULL)) {
        (void)sim_step();
        if (!server.ended || server_has_all(NULL))
            continue;
        assert_int_equal(server.error, KVS_ERR_NO_BUFFERS);
        assert_int_equal(ring_buffers_free(server.ring), 4);
        server.ended = false;
        ends++;
        ring_recv(server.ring, &server.recv, server.fd);
    }
    assert_memory_equal(server.got, data, BYTES);
    assert_true(ends > 5);
    sim_destroy();
}

/* Both sides meet it: after what has arrived, or at once. What was received is a piece of the truth. */
static void test_ring_sim__connections_break(void **state)
{
    (void)state;
    uint8_t data[BYTES];
    struct iovec iov[3];
    unsigned by_receiver = 0, some = 0;
    fill(data, BYTES, 6);
    for (uint64_t seed = 0; seed < 40; seed++) {
        boot(seed, 4);
        sim_ring_spare(server.ring);
        sim_ring_spare(client.ring);
        ring_recv(client.ring, &client.recv, client.fd);
        start_send(data, iov);
        uint64_t steps = sim_random(60);
        for (uint64_t i = 0; i < steps; i++)
            (void)sim_step();
        if (server_has_all(NULL) || !ring_op_active(&client.send)) {
            sim_destroy();
            continue;
        }
        sim_odds(SIM_FAULT_RESET, 1000000);
        assert_true(sim_run_until(server_ended, NULL, 10000));
        assert_true(sim_run_until(send_ended, NULL, 10000));
        ring_await(client.ring, &client.recv);
        assert_int_equal(server.error, KVS_ERR_CLOSED);
        assert_int_equal(client.send.error, KVS_ERR_CLOSED);
        assert_int_equal(client.error, KVS_ERR_CLOSED);
        assert_memory_equal(server.got, data, server.got_bytes);
        assert_int_equal(sim_fault_count(SIM_FAULT_RESET), 1);
        some += server.got_bytes > 0;
        by_receiver++;
        ring_close_fd(server.ring, server.fd);
        ring_close_fd(client.ring, client.fd);
        sim_destroy();
    }
    assert_true(by_receiver > 5 && some > 5);
}

static void test_ring_sim__streams_stand_still(void **state)
{
    (void)state;
    boot(9, 4);
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "hello", .iov_len = 5};
    sim_odds(SIM_FAULT_STALL, 1000000);
    uint64_t begin = ring_now_ns(server.ring);
    ring_send(client.ring, &client.send, client.fd, &iov, 1);
    ring_await(client.ring, &client.send);
    assert_int_equal(client.send.error, KVS_ERR_OK);
    sim_odds_none();
    for (unsigned i = 0; i < 1000 && server.got_bytes < 5; i++)
        assert_true(sim_step());
    assert_int_equal(server.got_bytes, 5);
    assert_in_range(ring_now_ns(server.ring) - begin, 10000000, 30100000000);
    assert_int_equal(sim_fault_count(SIM_FAULT_STALL), 1);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_sim__streams_are_cut_but_whole),
        cmocka_unit_test(test_ring_sim__buffers_run_out_and_come_back),
        cmocka_unit_test(test_ring_sim__receive_without_buffers_fails_at_once),
        cmocka_unit_test(test_ring_sim__send_waits_for_a_slow_reader),
        cmocka_unit_test(test_ring_sim__nobody_listens),
        cmocka_unit_test(test_ring_sim__close_with_unread_bytes_resets),
        cmocka_unit_test(test_ring_sim__sending_to_a_closed_peer_fails_in_the_end),
        cmocka_unit_test(test_ring_sim__shutdown_ends_a_receive),
        cmocka_unit_test(test_ring_sim__addresses_are_known),
        cmocka_unit_test(test_ring_sim__accept_is_cancelled_or_fails),
        cmocka_unit_test(test_ring_sim__ended_receives_are_not_seen),
        cmocka_unit_test(test_ring_sim__receive_ends_for_want_of_buffers_though_there_are_some),
        cmocka_unit_test(test_ring_sim__connections_break),
        cmocka_unit_test(test_ring_sim__streams_stand_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
