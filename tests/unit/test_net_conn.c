/* The life of connections: limits, time-outs, buffers that run out, peers that go away, drain and abort. */
#include "net_fixture_sim.h"

#include <errno.h>

#define SEEDS 6

static void test_net__connections_over_the_limit_are_told(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.connections_max = 3;
        fixture_open(fixture);
        struct client *clients[3];
        for (size_t i = 0; i < ARRAY_COUNT(clients); i++) {
            clients[i] = client_open(fixture);
            client_say(clients[i], "ECHO a\r\n");
            client_expect(clients[i], "$1\r\na\r\n");
        }
        struct client *fourth = client_open(fixture);
        client_say(fourth, "ECHO a\r\n");
        client_expect(fourth, "-ERR max number of clients reached\r\n");
        client_expect_end(fourth);

        struct client *binary = client_open(fixture);
        const struct frame_hello hello = {.version_min = 1, .version_max = 1};
        client_send_frame(binary, FRAME_HELLO, 0, &hello, sizeof hello);
        client_expect_frame(binary, FRAME_HELLO, 0, FRAME_BUSY, "max number of clients reached");
        client_expect_end(binary);

        struct client *silent = client_open(fixture); /* is told all the same, a little later */
        client_expect(silent, "-ERR max number of clients reached\r\n");
        client_expect_end(silent);

        assert_int_equal(fixture_stats(fixture).connections, 3);
        assert_int_equal(fixture_stats(fixture).connections_refused, 3);
        assert_int_equal(fixture->opened, 3);
        client_leave(clients[1]);
        wait_until(fixture, fixture->ended == 1);
        struct client *next = client_open(fixture);
        client_say(next, "ECHO b\r\n");
        client_expect(next, "$1\r\nb\r\n");
        fixture_stop(fixture);
    }
}

static void test_net__crowd_of_refused_connections_is_bounded(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    fixture->options.connections_max = 1;
    fixture_open(fixture);
    struct client *first = client_open(fixture);
    for (int i = 0; i < 150; i++)
        client_open(fixture);
    wait_until(fixture, fixture_stats(fixture).connections_refused == 150);
    client_say(first, "ECHO a\r\n");
    client_expect(first, "$1\r\na\r\n");
    size_t told = 0;
    for (size_t i = 1; i < fixture->client_count; i++) {
        wait_until(fixture, fixture->clients[i]->closed);
        told += fixture->clients[i]->in_size > 0;
    }
    assert_true(told > 0 && told < 150); /* beyond a number the door is closed without a word */
    fixture_stop(fixture);
}

static void test_net__slow_reader_is_dropped(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.send_timeout_ms = 1000;
        fixture_open(fixture);
        sim_set_socket_bytes(4096);
        struct client *slow = client_open_silent(fixture);
        struct client *good = client_open(fixture);
        client_say(slow, "BIG 100000\r\nDEFER x\r\n");
        wait_until(fixture, fixture->requests == 2);
        const uint64_t begun_ns = ring_now_ns(fixture->server);
        while (fixture_stats(fixture).connections_dropped == 0) {
            client_say(good, "ECHO a\r\n");
            client_expect(good, "$1\r\na\r\n");
        }
        const uint64_t took_ms = (ring_now_ns(fixture->server) - begun_ns) / 1000000;
        assert_true(took_ms >= 1000 && took_ms <= 1400);
        fixture_idle(fixture);
        assert_int_equal(fixture->ended, 0); /* a slot of it is pending */
        fixture_fill(fixture, 0, 0);
        assert_int_equal(fixture->held[0]->released, 1);
        wait_until(fixture, fixture->ended == 1);
        fixture_stop(fixture);
    }
}

static void test_net__reader_who_pauses_is_not_dropped(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    fixture->options.send_timeout_ms = 1000;
    fixture_open(fixture);
    sim_set_socket_bytes(4096);
    struct client *client = client_open_silent(fixture);
    client_say(client, "BIG 10000\r\n");
    wait_until(fixture, fixture->requests == 1);
    const uint64_t begun_ns = ring_now_ns(fixture->server);
    while (ring_now_ns(fixture->server) - begun_ns < 900000000)
        sim_advance(50000000), world_step(fixture);
    client_read(client);
    wait_until(fixture, client->in_size > 10000);
    assert_int_equal(fixture_stats(fixture).connections_dropped, 0);
    fixture_stop(fixture);
}

static void test_net__everybody_is_served_with_two_buffers(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->ring_options.buffer_count = 2;
        fixture->ring_options.buffer_bytes = 64;
        fixture_open(fixture);
        struct client *clients[30];
        char text[50 * 10 + 1] = "", expected[50 * 7 + 1] = "";
        for (int i = 0; i < 50; i++) {
            strcat(text, "ECHO x\r\n");
            strcat(expected, "$1\r\nx\r\n");
        }
        for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
            clients[i] = client_open(fixture);
        for (int round = 0; round < 3; round++) {
            for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
                client_say(clients[i], text);
            for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
                client_expect(clients[i], expected);
        }
        assert_int_equal(ring_buffers_free(fixture->server), 2);
        fixture_stop(fixture);
    }
}

static void test_net__peer_may_go_with_replies_pending(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        client_say(client, "DEFER a\r\nECHO b\r\nDEFER c\r\nGATED d\r\nDEFER e\r\n");
        wait_until(fixture, fixture->requests == 5);
        fixture_fill(fixture, 1, 0);
        client_leave(client);
        fixture_idle(fixture);
        assert_int_equal(fixture->ended, 0);
        fixture_fill(fixture, 0, 100);
        fixture_fill(fixture, 2, 0);
        net_release(fixture->net, 100);
        wait_until(fixture, fixture->ended == 1);
        for (int i = 0; i < 3; i++)
            assert_int_equal(fixture->held[i]->released, 1);
        fixture_stop(fixture);
    }
}

static void test_net__peer_may_go_at_any_moment(void **state)
{
    (void)state;
    for_each_seed(60)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.output_bytes_max = 20000;
        fixture->options.requests_max = 20;
        fixture_open(fixture);
        sim_set_short(20);
        for (int i = 0; i < 5; i++) {
            struct client *client = sim_random(2) == 0 ? client_open(fixture) : client_open_silent(fixture);
            char text[4000] = "";
            static const char *const lines[] = {"DEFER a\r\n",   "ECHO b\r\n",      "GATED c\r\n",
                                                "BIG 70000\r\n", "BIG 2000000\r\n", "SUM x y z\r\n"};
            for (int j = 0; j < 100; j++)
                strcat(text, lines[sim_random(ARRAY_COUNT(lines))]);
            client_send(client, text, strlen(text));
            for (uint64_t steps = sim_random(400); steps > 0; steps--) {
                world_step(fixture);
                const size_t pick = fixture->held_count > 0 ? sim_random(fixture->held_count) : 0;
                if (fixture->held_count > 0 && !fixture->held[pick]->filled && sim_random(3) == 0)
                    fixture_fill(fixture, pick, sim_random(2) == 0 ? 0 : fixture->gate + 1);
                if (sim_random(5) == 0)
                    net_release(fixture->net, fixture->gate);
                if (sim_random(3000) == 0)
                    net_fail_gates(fixture->net, "random failure");
            }
            if (sim_random(2) == 0)
                client_leave(client);
        }
        fixture_stop(fixture);
    }
}

static void test_net__failed_send_ends_the_connection(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\n");
    client_expect(client, "$1\r\na\r\n");
    struct client *other = client_open_silent(fixture);
    (void)other;
    wait_until(fixture, fixture->opened == 2);
    fixture_idle(fixture);
    sim_fail(RING_KIND_SEND, 2, EPIPE); /* the first is the client's */
    client_say(client, "ECHO b\r\n");
    client_expect_end(client);
    wait_until(fixture, fixture->ended == 1);
    fixture_stop(fixture);
}

static void test_net__accept_goes_on_after_running_out_of_descriptors(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    world_boot(fixture);
    struct net_handler handler = fixture_handler;
    handler.context = fixture;
    assert_int_equal(net_open(&fixture->net, fixture->server, &fixture->options, &handler), KVS_ERR_OK);
    assert_int_equal(ring_addr_parse_tcp("127.0.0.1:4000", &fixture->addr), KVS_ERR_OK);
    assert_int_equal(ring_listen(fixture->server, &fixture->addr, &fixture->listen_fd), KVS_ERR_OK);
    sim_fail(RING_KIND_ACCEPT, 1, EMFILE);
    assert_int_equal(net_accept(fixture->net, fixture->listen_fd), KVS_ERR_OK);
    const uint64_t begun_ns = ring_now_ns(fixture->server);
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\n");
    client_expect(client, "$1\r\na\r\n");
    assert_true(ring_now_ns(fixture->server) - begun_ns >= 100000000);
    fixture_stop(fixture);
}

static void test_net__drain_sends_what_is_due(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        struct client *idle = client_open(fixture);
        client_say(client, "ECHO a\r\nDEFER b\r\nGATED c\r\n");
        wait_until(fixture, fixture->requests == 3 && fixture->opened == 2);
        net_drain(fixture->net);
        client_expect_end(idle);
        client_say(client, "ECHO ignored\r\n");
        client_expect(client, "$1\r\na\r\n");
        client_expect_silence(client);
        assert_false(net_drained(fixture->net));
        fixture_fill(fixture, 0, 0);
        client_expect(client, "$1\r\nb\r\n");
        client_expect_silence(client);
        assert_false(net_drained(fixture->net));
        net_release(fixture->net, 1);
        client_expect(client, "$1\r\nc\r\n");
        client_expect_end(client);
        wait_until(fixture, net_drained(fixture->net));
        assert_int_equal(fixture->requests, 3);
        fixture_stop(fixture);
    }
}

static void test_net__abort_waits_for_pending_slots_only(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        client_say(client, "GATED a\r\nDEFER b\r\nBIG 3000000\r\n");
        wait_until(fixture, fixture->requests == 3);
        net_drain(fixture->net);
        fixture_idle(fixture);
        net_abort(fixture->net);
        fixture_idle(fixture);
        assert_false(net_drained(fixture->net));
        fixture_fill(fixture, 0, 0);
        wait_until(fixture, net_drained(fixture->net));
        fixture_stop(fixture);
    }
}

static void test_net__abort_keeps_what_a_send_still_reads(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        sim_set_socket_bytes(4096);
        struct client *client = client_open_silent(fixture);
        char *request = malloc(100100);
        const size_t size = (size_t)sprintf(request, "*2\r\n$5\r\nDEFER\r\n$100000\r\n%0100000d\r\n", 0);
        client_send(client, request, size);
        wait_until(fixture, fixture->requests == 1);
        fixture_fill(fixture, 0, 0);
        fixture_idle(fixture); /* the send is stuck half-way */
        net_abort(fixture->net);
        assert_int_equal(fixture->held[0]->released, 0);
        wait_until(fixture, net_drained(fixture->net));
        assert_int_equal(fixture->held[0]->released, 1);
        free(request);
        fixture_stop(fixture);
    }
}

static void test_net__close_after_the_machine_is_gone(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "GATED a\r\nDEFER b\r\nBIG 3000000\r\n");
    wait_until(fixture, fixture->requests == 3);
    client_say(client_open(fixture), "*2\r\n$4\r\nECHO\r\n$1000000\r\nabc");
    fixture_idle(fixture);
    sim_crash(SIM_DROP_ALL);
    net_close(fixture->net);
    world_halt(fixture);
    for (size_t i = 0; i < fixture->client_count; i++)
        client_free(fixture->clients[i]);
    free(fixture->held[0]->data);
    free(fixture->held[0]);
    free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__connections_over_the_limit_are_told),
        cmocka_unit_test(test_net__crowd_of_refused_connections_is_bounded),
        cmocka_unit_test(test_net__slow_reader_is_dropped),
        cmocka_unit_test(test_net__reader_who_pauses_is_not_dropped),
        cmocka_unit_test(test_net__everybody_is_served_with_two_buffers),
        cmocka_unit_test(test_net__peer_may_go_with_replies_pending),
        cmocka_unit_test(test_net__peer_may_go_at_any_moment),
        cmocka_unit_test(test_net__failed_send_ends_the_connection),
        cmocka_unit_test(test_net__accept_goes_on_after_running_out_of_descriptors),
        cmocka_unit_test(test_net__drain_sends_what_is_due),
        cmocka_unit_test(test_net__abort_waits_for_pending_slots_only),
        cmocka_unit_test(test_net__abort_keeps_what_a_send_still_reads),
        cmocka_unit_test(test_net__close_after_the_machine_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
