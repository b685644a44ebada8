/* Replies of RESP connections: their order, their gates, and what becomes of gates that fail. */
#include "net_fixture_sim.h"

#define SEEDS 8

static void test_net__replies_keep_request_order(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        enum { COUNT = 50 };
        char expected[COUNT * 16] = "";
        for (int i = 0; i < COUNT; i++) {
            char line[32];
            /* Some answer at once, in between those that do not. */
            snprintf(line, sizeof line, "%s %02d\r\n", i % 3 == 1 ? "ECHO" : "DEFER", i);
            client_say(client, line);
            snprintf(expected + strlen(expected), 16, "$2\r\n%02d\r\n", i);
        }
        wait_until(fixture, fixture->requests == COUNT);
        size_t order[COUNT];
        for (size_t i = 0; i < fixture->held_count; i++)
            order[i] = i;
        for (size_t i = fixture->held_count - 1; i > 0; i--) {
            const size_t other = sim_random(i + 1);
            const size_t swap = order[i];
            order[i] = order[other];
            order[other] = swap;
        }
        for (size_t i = 0; i < fixture->held_count; i++) {
            fixture_fill(fixture, order[i], 0);
            if (sim_random(2) == 0)
                world_step(fixture);
        }
        client_expect(client, expected);
        client_expect_silence(client);
        fixture_stop(fixture);
    }
}

static void test_net__gate_holds_reply_back_until_released(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\nGATED b\r\nECHO c\r\nGATED d\r\n");
    client_expect(client, "$1\r\na\r\n");
    client_expect_silence(client);
    net_release(fixture->net, 1);
    client_expect(client, "$1\r\nb\r\n$1\r\nc\r\n");
    client_expect_silence(client);
    net_release(fixture->net, 2);
    client_expect(client, "$1\r\nd\r\n");
    fixture_stop(fixture);
}

static void test_net__one_release_frees_many_connections(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *clients[20];
    for (size_t i = 0; i < ARRAY_COUNT(clients); i++) {
        clients[i] = client_open(fixture);
        client_say(clients[i], "GATED x\r\n");
    }
    wait_until(fixture, fixture->requests == ARRAY_COUNT(clients));
    fixture_idle(fixture);
    net_release(fixture->net, 10);
    fixture_idle(fixture);
    size_t answered = 0;
    for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
        answered += clients[i]->in_size > 0;
    assert_int_equal(answered, 10);
    net_release(fixture->net, 20);
    for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
        client_expect(clients[i], "$1\r\nx\r\n");
    fixture_stop(fixture);
}

static void test_net__run_does_not_grow_past_its_turn(void **state)
{
    (void)state;
    /* Under a steady pipeline the gate of the first reply must not move away with every later one. */
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    for (uint64_t i = 1; i <= 100; i++) {
        client_say(client, "GATED x\r\n");
        wait_until(fixture, fixture->requests == i);
        if (i > 2)
            net_release(fixture->net, i - 2);
    }
    fixture_idle(fixture);
    assert_int_equal(client->in_size, 98 * strlen("$1\r\nx\r\n"));
    fixture_stop(fixture);
}

static void test_net__filled_slot_waits_for_its_gate(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "DEFER a\r\nDEFER b\r\n");
    wait_until(fixture, fixture->requests == 2);
    fixture_fill(fixture, 1, 0);
    fixture_fill(fixture, 0, 5);
    client_expect_silence(client);
    net_release(fixture->net, 4);
    client_expect_silence(client);
    net_release(fixture->net, 5);
    client_expect(client, "$1\r\na\r\n$1\r\nb\r\n");
    fixture_stop(fixture);
}

static void test_net__failed_gates_become_one_error_each(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        for (int i = 0; i < 1000; i++)
            client_say(client, i == 700 ? "ECHO e\r\n" : i == 800 ? "DEFER d\r\n" : "GATED x\r\n");
        wait_until(fixture, fixture->requests == 1000);
        fixture_fill(fixture, 0, 2000);
        net_release(fixture->net, 10);
        fixture_idle(fixture);
        net_fail_gates(fixture->net, "the disk is gone");
        net_release(fixture->net, 5000); /* too late */
        /* What was released in time may have shared a run with what was not. */
        size_t good = 0;
        wait_until(fixture, client->in_size > 10 * 7);
        while (client->in[good * 7] == '$')
            good++;
        assert_true(good <= 10);
        client->in_at = good * 7;
        const char *error = "-ERR the disk is gone\r\n";
        for (size_t i = good; i < 1000; i++)
            client_expect(client, i == 700 ? "$1\r\ne\r\n" : error);
        client_say(client, "GATED late\r\nECHO f\r\n");
        client_expect(client, error);
        client_expect(client, "$1\r\nf\r\n");
        client_expect_silence(client);
        fixture_stop(fixture);
    }
}

static void test_net__failed_run_may_be_longer_than_a_send(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->ring_options.buffer_bytes = 65536;
        fixture->options.requests_max = 100000;
        fixture_open(fixture);
        sim_set_socket_bytes(1 << 20);
        struct client *client = client_open(fixture);
        enum { COUNT = 60000 };
        char *requests = malloc((size_t)COUNT * 9);
        for (int i = 0; i < COUNT; i++)
            memcpy(requests + (size_t)i * 9, "GATED x\r\n", 9);
        client_send(client, requests, (size_t)COUNT * 9);
        wait_until(fixture, fixture->requests == COUNT);
        net_fail_gates(fixture->net, "gone");
        for (int i = 0; i < COUNT; i++)
            client_expect(client, "-ERR gone\r\n");
        client_say(client, "ECHO after\r\n");
        client_expect(client, "$5\r\nafter\r\n");
        free(requests);
        fixture_stop(fixture);
    }
}

static void test_net__failure_text_may_bring_its_own_code(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    net_fail_gates(fixture->net, "ERR bad\r\nblock");
    client_say(client, "GATED x\r\n");
    client_expect(client, "-ERR bad  block\r\n");
    fixture_stop(fixture);
}

static void test_net__gate_reached_before_failure_is_kept(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "GATED a\r\n");
    wait_until(fixture, fixture->requests == 1);
    fixture_idle(fixture);
    fixture->flushing = false;
    net_release(fixture->net, 1);
    net_fail_gates(fixture->net, "gone");
    fixture->flushing = true;
    client_expect(client, "$1\r\na\r\n");
    fixture_stop(fixture);
}

static void test_net__large_replies_leave_whole(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        sim_set_short(30);
        struct client *client = client_open(fixture);
        enum { BYTES = 3000000 };
        char *value = malloc(BYTES + 20);
        const size_t header = (size_t)sprintf(value, "$%d\r\n", BYTES);
        memset(value + header, 'b', BYTES);
        memcpy(value + header + BYTES, "\r\n", 2);
        client_say(client, "ECHO a\r\nBIG 3000000\r\nDEFER c\r\nBIG 3000000\r\nBIG 20000\r\n");
        wait_until(fixture, fixture->held_count == 1);
        client_expect(client, "$1\r\na\r\n");
        client_expect_bytes(client, value, header + BYTES + 2);
        client_expect_silence(client);
        fixture_fill(fixture, 0, 0);
        client_expect(client, "$1\r\nc\r\n");
        client_expect_bytes(client, value, header + BYTES + 2);
        client_expect(client, "$20000\r\n");
        client_expect_bytes(client, value + header, 20000);
        client_expect(client, "\r\n");
        free(value);
        fixture_stop(fixture);
    }
}

static void test_net__large_slot_is_released_once_after_its_last_part(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.resp.arg_bytes_max = 8 << 20;
        fixture_open(fixture);
        struct client *client = client_open(fixture);
        enum { BYTES = 5 << 20 };
        char *request = malloc(BYTES + 64);
        const size_t header = (size_t)sprintf(request, "*2\r\n$5\r\nDEFER\r\n$%d\r\n", BYTES);
        for (size_t i = 0; i < BYTES; i++)
            request[header + i] = (char)('a' + i % 23);
        memcpy(request + header + BYTES, "\r\n", 2);
        client_send(client, request, header + BYTES + 2);
        wait_until(fixture, fixture->requests == 1);
        fixture_fill(fixture, 0, 0);
        wait_until(fixture, client->in_size > (2 << 20));
        assert_int_equal(fixture->held[0]->released, 0);
        client_expect(client, "$5242880\r\n");
        client_expect_bytes(client, request + header, BYTES + 2);
        wait_until(fixture, fixture->held[0]->released == 1);
        free(request);
        fixture_stop(fixture);
    }
}

static void test_net__large_reservation_costs_only_what_is_committed(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    for (int i = 0; i < 20; i++)
        client_say(client, "ROOM 16000\r\n");
    for (int i = 0; i < 20; i++)
        client_expect(client, "+OK\r\n");
    fixture_stop(fixture);
}

static void test_net__idle_connection_holds_no_buffers(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\n");
    client_expect(client, "$1\r\na\r\n");
    fixture_idle(fixture);
    const uint64_t before = fixture_stats(fixture).memory_bytes;
    for (int i = 0; i < 50; i++) {
        struct client *other = client_open(fixture);
        client_say(other, "ECHO a\r\n");
        client_expect(other, "$1\r\na\r\n");
    }
    fixture_idle(fixture);
    const uint64_t after = fixture_stats(fixture).memory_bytes;
    assert_true(after - before < 50 * 4096); /* connections, but neither input nor output blocks */
    fixture_stop(fixture);
}

/* Replies that wait side by side need a block each; of these only as many stay as the options say. */
static void test_net__memory_of_replies_is_given_back(void **state)
{
    (void)state;
    enum { CLIENTS = 40, KEPT = 5, BLOCK = 1024 };
    struct fixture *fixture = fixture_create();
    fixture->options.output_kept_max = KEPT * BLOCK;
    fixture_open(fixture);
    struct client *clients[CLIENTS];
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = client_open(fixture);
        client_say(clients[i], "GATED x\r\n");
    }
    wait_until(fixture, fixture->requests == CLIENTS);
    fixture_idle(fixture);
    const uint64_t most = fixture_stats(fixture).memory_bytes;
    net_release(fixture->net, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        client_expect(clients[i], "$1\r\nx\r\n");
    fixture_idle(fixture);
    assert_true(fixture_stats(fixture).memory_bytes <= most - (CLIENTS - KEPT - 1) * BLOCK);
    fixture_stop(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__replies_keep_request_order),
        cmocka_unit_test(test_net__gate_holds_reply_back_until_released),
        cmocka_unit_test(test_net__one_release_frees_many_connections),
        cmocka_unit_test(test_net__run_does_not_grow_past_its_turn),
        cmocka_unit_test(test_net__filled_slot_waits_for_its_gate),
        cmocka_unit_test(test_net__failed_gates_become_one_error_each),
        cmocka_unit_test(test_net__failed_run_may_be_longer_than_a_send),
        cmocka_unit_test(test_net__failure_text_may_bring_its_own_code),
        cmocka_unit_test(test_net__gate_reached_before_failure_is_kept),
        cmocka_unit_test(test_net__large_replies_leave_whole),
        cmocka_unit_test(test_net__large_slot_is_released_once_after_its_last_part),
        cmocka_unit_test(test_net__large_reservation_costs_only_what_is_committed),
        cmocka_unit_test(test_net__idle_connection_holds_no_buffers),
        cmocka_unit_test(test_net__memory_of_replies_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
