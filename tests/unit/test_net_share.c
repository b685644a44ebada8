/* What all connections hold together: it comes to its bound, reading stops, and goes on when there is room again. */
#include "net_fixture_sim.h"

#include "net/net_internal.h"

#define SEEDS 4

enum {
    MEMORY_MAX = 1 << 20,
    BUFFERS = 8,
    CLIENTS = 100,
    REPLIES = 20,
    REPLY_BYTES = 4000,
    VALUE_BYTES = 60000,
    BEGUN_BYTES = 15000,
};

/* Where nothing happens time leaps to the next timer: most tests have no time-outs. */
static struct fixture *open_bounded(uint64_t memory_max, uint32_t timeout_ms)
{
    struct fixture *fixture = fixture_create();
    fixture->options.memory_max = memory_max;
    fixture->options.send_timeout_ms = timeout_ms;
    fixture->options.connections_max = 200;
    fixture->ring_options.buffer_count = BUFFERS;
    fixture->ring_options.buffer_bytes = NET_BLOCK_BYTES;
    fixture_open(fixture);
    sim_set_socket_bytes(1 << 20); /* clients get rid of what they say, whoever reads it when */
    return fixture;
}

/* Nobody is stopped, and all receive buffers are in the ring. */
static void expect_ease(struct fixture *fixture)
{
    wait_until(fixture, !fixture->net->pressed);
    fixture_idle(fixture);
    assert_true(list_empty(&fixture->net->waiting) && list_empty(&fixture->net->starving));
    assert_int_equal(fixture->net->input_bytes, 0);
    assert_int_equal(fixture->net->block_bytes, 0);
    assert_int_equal(ring_buffers_free(fixture->server), BUFFERS);
}

static void expect_echo(struct client *client)
{
    client_say(client, "ECHO a\r\n");
    client_expect(client, "$1\r\na\r\n");
}

static void test_share__replies_of_all_are_bounded(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = open_bounded(MEMORY_MAX, 0);
        sim_set_socket_bytes(4096);
        struct client *clients[CLIENTS];
        char text[REPLIES * 10 + 1] = "";
        for (int i = 0; i < REPLIES; i++)
            strcat(text, "BIG 4000\r\n");
        for (size_t i = 0; i < CLIENTS; i++)
            clients[i] = client_open_silent(fixture);
        for (size_t i = 0; i < CLIENTS; i++)
            client_say(clients[i], text);
        fixture_idle(fixture);
        struct net_stats stats = fixture_stats(fixture);
        assert_true(stats.memory_bytes > MEMORY_MAX / 2);
        assert_true(fixture->requests < CLIENTS * REPLIES);
        assert_true(stats.connections_waited > 0);

        for (size_t i = 0; i < CLIENTS; i++)
            client_read(clients[i]);
        static char expected[REPLIES * (REPLY_BYTES + 9) + 1];
        for (size_t i = 0; i < REPLIES; i++) {
            char *at = expected + i * (REPLY_BYTES + 9);
            memcpy(at, "$4000\r\n", 7);
            memset(at + 7, 'b', REPLY_BYTES);
            memcpy(at + 7 + REPLY_BYTES, "\r\n", 2);
        }
        for (size_t i = 0; i < CLIENTS; i++)
            client_expect_bytes(clients[i], expected, sizeof expected - 1);
        stats = fixture_stats(fixture);
        assert_true(stats.memory_peak_bytes <= MEMORY_MAX + NET_BLOCK_BYTES);
        assert_int_equal(stats.connections_dropped, 0);
        expect_ease(fixture);
        fixture_stop(fixture);
    }
}

/* Who does not read what he asks for takes part of what is left, again and again, but never all of it. */
static void test_share__few_who_do_not_read_leave_room(void **state)
{
    (void)state;
    struct fixture *fixture = open_bounded(MEMORY_MAX, 0);
    sim_set_socket_bytes(4096);
    struct client *good = client_open(fixture);
    char text[50 * 10 + 1] = "";
    for (int i = 0; i < 50; i++)
        strcat(text, "BIG 9000\r\n");
    for (int i = 0; i < 12; i++)
        client_say(client_open_silent(fixture), text);
    fixture_idle(fixture);
    assert_true(fixture->requests < 12 * 50);
    for (int i = 0; i < 10; i++)
        expect_echo(good);
    assert_int_equal(fixture_stats(fixture).connections_dropped, 0);
    fixture_stop(fixture);
}

static const char *value_bytes(void)
{
    static char value[VALUE_BYTES + 1];
    memset(value, 'x', VALUE_BYTES);
    return value;
}

static void say_begin(struct client *client)
{
    char text[BEGUN_BYTES + 64];
    const int head = snprintf(text, sizeof text, "*2\r\n$4\r\nECHO\r\n$%d\r\n", VALUE_BYTES);
    memset(text + head, 'x', BEGUN_BYTES);
    wait_until(client->fixture, !client->sending);
    client_send(client, text, (size_t)head + BEGUN_BYTES);
}

static void say_rest(struct client *client)
{
    wait_until(client->fixture, !client->sending);
    client_send(client, value_bytes(), VALUE_BYTES - BEGUN_BYTES);
    client_say(client, "\r\n");
}

static void test_share__parts_of_requests_are_bounded(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = open_bounded(MEMORY_MAX, 0);
        struct client *clients[CLIENTS];
        for (size_t i = 0; i < CLIENTS; i++) {
            clients[i] = client_open(fixture);
            say_begin(clients[i]);
        }
        wait_until(fixture, fixture->net->pressed);
        fixture_idle(fixture);
        assert_true(fixture->net->pressed);
        for (size_t i = 0; i < CLIENTS; i++)
            say_rest(clients[i]);
        for (size_t i = 0; i < CLIENTS; i++) {
            client_expect(clients[i], "$60000\r\n");
            client_expect_bytes(clients[i], value_bytes(), VALUE_BYTES);
            client_expect(clients[i], "\r\n");
        }
        const struct net_stats stats = fixture_stats(fixture);
        assert_true(stats.memory_peak_bytes <= MEMORY_MAX + BUFFERS * NET_BLOCK_BYTES);
        assert_int_equal(stats.connections_dropped, 0);
        expect_ease(fixture);
        fixture_stop(fixture);
    }
}

static void test_share__short_requests_are_served_while_long_ones_wait(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = open_bounded(MEMORY_MAX, 0);
        struct client *good = client_open(fixture);
        while (!fixture->net->pressed) {
            say_begin(client_open(fixture));
            fixture_idle(fixture);
        }
        for (int i = 0; i < 10; i++)
            expect_echo(good);
        expect_echo(client_open(fixture));
        assert_true(fixture->net->pressed);
        fixture_stop(fixture);
    }
}

/* Nothing tells beforehand how long these get. */
static void test_share__arguments_are_bounded(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = open_bounded(MEMORY_MAX, 0);
        struct client *clients[CLIENTS];
        enum { PART = 2000, PARTS = 5 };
        static char part[PART * 7 + 1];
        for (size_t i = 0; i < PART; i++)
            memcpy(part + i * 7, "$1\r\nk\r\n", 7);
        for (size_t i = 0; i < CLIENTS; i++)
            client_say(clients[i] = client_open(fixture), "*10001\r\n$3\r\nSUM\r\n");
        for (size_t p = 0; p < PARTS; p++) {
            for (size_t i = 0; i < CLIENTS; i++) {
                if (clients[i]->closed)
                    continue;
                wait_until(fixture, !clients[i]->sending || clients[i]->closed);
                client_send(clients[i], part, sizeof part - 1);
            }
        }
        size_t served = 0;
        for (size_t i = 0; i < CLIENTS; i++) {
            wait_until(fixture, clients[i]->closed || clients[i]->in_size > 0);
            served += clients[i]->in_size > 0;
        }
        assert_true(served > 0);
        assert_int_equal(served + fixture_stats(fixture).connections_dropped, CLIENTS);
        assert_true(fixture_stats(fixture).memory_peak_bytes <= MEMORY_MAX + BUFFERS * NET_BLOCK_BYTES);
        expect_ease(fixture);
        fixture_stop(fixture);
    }
}

/* Who waits does not wait for the time-out of those who do not get on. */
static void test_share__who_keeps_others_waiting_is_dropped_soon(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = open_bounded(MEMORY_MAX, 30000);
        for (size_t i = 0; i < CLIENTS; i++)
            say_begin(client_open(fixture));
        wait_until(fixture, fixture->net->pressed);
        struct client *good = client_open(fixture);
        const uint64_t begun_ns = ring_now_ns(fixture->server);
        say_begin(good);
        say_rest(good);
        wait_until(fixture, fixture_stats(fixture).connections_dropped > 0);
        const uint64_t took_ms = (ring_now_ns(fixture->server) - begun_ns) / 1000000;
        assert_true(took_ms <= 4000);
        client_expect(good, "$60000\r\n");
        wait_until(fixture, !fixture->net->pressed);
        expect_echo(client_open(fixture));
        assert_false(good->closed);
        fixture_stop(fixture);
    }
}

static void test_share__connections_count(void **state)
{
    (void)state;
    struct fixture *fixture = open_bounded(64 << 10, 0);
    const size_t most = (32 << 10) / net_conn_bytes(fixture->net);
    assert_true(most > 10 && most < 60);
    for (size_t i = 0; i < most; i++)
        expect_echo(client_open(fixture));
    struct client *last = client_open(fixture);
    client_say(last, "ECHO a\r\n");
    client_expect(last, "-ERR max number of clients reached\r\n");
    client_expect_end(last);
    fixture_stop(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share__replies_of_all_are_bounded),
        cmocka_unit_test(test_share__few_who_do_not_read_leave_room),
        cmocka_unit_test(test_share__parts_of_requests_are_bounded),
        cmocka_unit_test(test_share__short_requests_are_served_while_long_ones_wait),
        cmocka_unit_test(test_share__arguments_are_bounded),
        cmocka_unit_test(test_share__who_keeps_others_waiting_is_dropped_soon),
        cmocka_unit_test(test_share__connections_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
