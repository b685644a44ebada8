/* From bytes to requests on RESP connections: fragments, large requests, deep pipelines, what is not RESP. */
#include "net_fixture_sim.h"

#define SEEDS 6

static const char mixed_requests[] =
    "*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n"
    "ECHO inline\r\n"
    "\r\n"
    "*0\r\n"
    "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n"
    "ECHO \"a\\x41\\n\"\r\n"
    "*12\r\n$3\r\nSUM\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n"
    "$1\r\n7\r\n$1\r\n8\r\n$1\r\n9\r\n$1\r\n1\r\n$1\r\n2\r\n"
    "ECHO end\n";
static const char mixed_replies[] = "$3\r\nabc\r\n$6\r\ninline\r\n$0\r\n\r\n$3\r\naA\n\r\n";

static void expect_mixed(struct client *client)
{
    char sum[32];
    snprintf(sum, sizeof sum, ":%u\r\n", crc32c(0, "12345678912", 11));
    client_expect(client, mixed_replies);
    client_expect(client, sum);
    client_expect(client, "$3\r\nend\r\n");
}

/* Sends bytes and sees them arrive before anything else is sent. */
static void send_fragment(struct client *client, const char *bytes, size_t size)
{
    const uint64_t before = fixture_stats(client->fixture).bytes_received;
    wait_until(client->fixture, !client->sending);
    client_send(client, bytes, size);
    wait_until(client->fixture, fixture_stats(client->fixture).bytes_received == before + size);
}

static void test_net__requests_may_be_cut_anywhere(void **state)
{
    (void)state;
    const size_t size = sizeof mixed_requests - 1;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    for (size_t cut = 1; cut < size; cut++) {
        send_fragment(client, mixed_requests, cut);
        send_fragment(client, mixed_requests + cut, size - cut);
        expect_mixed(client);
    }
    for (size_t at = 0; at < size; at++)
        send_fragment(client, mixed_requests + at, 1);
    expect_mixed(client);
    for (size_t step = 2; step < 40; step++) {
        for (size_t at = 0; at < size; at += step)
            send_fragment(client, mixed_requests + at, at + step < size ? step : size - at);
        expect_mixed(client);
    }
    fixture_stop(fixture);
}

/* "SUM" of one argument of `size` bytes. */
static char *sum_request(size_t size, size_t *total, char reply[32])
{
    char *request = malloc(size + 64);
    const size_t header = (size_t)sprintf(request, "*2\r\n$3\r\nSUM\r\n$%zu\r\n", size);
    for (size_t i = 0; i < size; i++)
        request[header + i] = (char)(i * 7 + i / 256);
    memcpy(request + header + size, "\r\n", 2);
    snprintf(reply, 32, ":%u\r\n", crc32c(0, request + header, size));
    *total = header + size + 2;
    return request;
}

static void test_net__large_values_arrive_whole(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        static const size_t sizes[] = {100, 4000, 4096, 5000, 16384, 70000, 1 << 20, (4 << 20) - 1};
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        for (int round = 0; round < 2; round++) {
            for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
                size_t total = 0;
                char reply[32];
                char *request = sum_request(sizes[i], &total, reply);
                wait_until(fixture, !client->sending);
                client_send(client, request, total);
                if (round == 1) /* with something small right behind */
                    client_say(client, "ECHO x\r\n");
                client_expect(client, reply);
                if (round == 1)
                    client_expect(client, "$1\r\nx\r\n");
                free(request);
            }
        }
        fixture_stop(fixture);
    }
}

static void test_net__announced_bytes_cost_nothing_before_they_come(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "*100000\r\n$3\r\nSUM\r\n$4000000\r\nabc");
    wait_until(fixture, fixture_stats(fixture).bytes_received == 33 - 2);
    fixture_idle(fixture);
    assert_true(fixture_stats(fixture).memory_bytes < 150000);
    fixture_stop(fixture);
}

static void test_net__many_arguments(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        enum { COUNT = 50000 };
        char *request = malloc(COUNT * 8 + 64);
        size_t size = (size_t)sprintf(request, "*%d\r\n$3\r\nSUM\r\n", COUNT + 1);
        uint32_t sum = 0;
        for (int i = 0; i < COUNT; i++) {
            const char byte = (char)('a' + i % 26);
            size += (size_t)sprintf(request + size, "$1\r\n%c\r\n", byte);
            sum = crc32c(sum, &byte, 1);
        }
        char reply[32];
        snprintf(reply, sizeof reply, ":%u\r\n", sum);
        client_send(client, request, size);
        client_expect(client, reply);
        client_say(client, "ECHO after\r\n");
        client_expect(client, "$5\r\nafter\r\n");
        fixture_idle(fixture);
        assert_true(fixture_stats(fixture).memory_bytes < 300000); /* the arrays were given back */
        free(request);
        fixture_stop(fixture);
    }
}

static void test_net__request_of_too_many_bytes_is_refused(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    fixture->options.resp = (struct resp_limits){.args_max = 1000, .arg_bytes_max = 100000, .inline_bytes_max = 1000};
    fixture_open(fixture);
    struct client *client = client_open(fixture);
    char *argument = malloc(100100);
    const size_t size = (size_t)sprintf(argument, "$100000\r\n%0100000d\r\n", 0);
    client_say(client, "ECHO before\r\n*1000\r\n$3\r\nSUM\r\n");
    for (int i = 0; i < 30 && !client->closed; i++) {
        wait_until(fixture, !client->sending);
        client_send(client, argument, size);
    }
    client_expect(client, "$6\r\nbefore\r\n-ERR Protocol error: request too large\r\n");
    client_expect_end(client);
    free(argument);
    fixture_stop(fixture);
}

static void test_net__pipeline_of_a_million_stays_within_bounds(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    struct fixture *fixture = fixture_create();
    fixture->options.output_bytes_max = 128 << 10;
    fixture_open(fixture);
    sim_set_socket_bytes(65536);
    struct client *client = client_open_silent(fixture);
    char *requests = malloc((size_t)COUNT * 16);
    char *replies = malloc((size_t)COUNT * 16);
    size_t size = 0, reply_size = 0;
    for (int i = 0; i < COUNT; i++) {
        size += (size_t)sprintf(requests + size, "ECHO %06d\r\n", i);
        reply_size += (size_t)sprintf(replies + reply_size, "$6\r\n%06d\r\n", i);
    }
    client_send(client, requests, size);
    /* It does not read: server and client come to a standstill. */
    uint64_t memory_max = 0;
    while (world_step(fixture)) {
        const uint64_t memory = fixture_stats(fixture).memory_bytes;
        if (memory > memory_max)
            memory_max = memory;
    }
    assert_true(client->sending);
    assert_true(fixture->requests > 1000 && fixture->requests < COUNT / 10);
    client_read(client);
    while (client->in_size < reply_size && world_step(fixture)) {
        const uint64_t memory = fixture_stats(fixture).memory_bytes;
        if (memory > memory_max)
            memory_max = memory;
    }
    client_expect_bytes(client, replies, reply_size);
    assert_int_equal(fixture->requests, COUNT);
    assert_true(memory_max < 512 << 10);
    free(requests);
    free(replies);
    fixture_stop(fixture);
}

static void test_net__requests_under_way_are_bounded(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        for (int gated = 0; gated < 2; gated++) {
            struct fixture *fixture = fixture_create();
            fixture->options.requests_max = 50;
            fixture_open(fixture);
            struct client *client = client_open(fixture);
            char text[20 * 1000] = "";
            size_t size = 0;
            for (int i = 0; i < 1000; i++)
                size += (size_t)sprintf(text + size, "%s %03d\r\n", gated ? "GATED" : "DEFER", i);
            client_send(client, text, size);
            for (int i = 0; i < 1000; i++) {
                if (gated) {
                    wait_until(fixture, fixture->gate > (uint64_t)i);
                    net_release(fixture->net, (uint64_t)i + 1);
                } else {
                    wait_until(fixture, fixture->held_count > (size_t)i);
                    fixture_fill(fixture, (size_t)i, 0);
                }
                if (i % 37 == 0)
                    fixture_idle(fixture);
                char expected[16];
                snprintf(expected, sizeof expected, "$3\r\n%03d\r\n", i);
                if (!gated)
                    client_expect(client, expected);
                assert_true(fixture->requests <= (size_t)i + 1 + 50);
            }
            if (gated)
                wait_until(fixture, client->in_size == 1000 * 9);
            fixture_stop(fixture);
        }
    }
}

static void test_net__hold_on_every_request_loses_nothing(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.requests_max = 1;
        fixture->options.output_bytes_max = 1;
        fixture_open(fixture);
        struct client *client = client_open(fixture);
        for (int i = 0; i < 20; i++) {
            client_say(client, mixed_requests);
        }
        for (int i = 0; i < 20; i++)
            expect_mixed(client);
        fixture_stop(fixture);
    }
}

static void test_net__one_connection_does_not_take_the_whole_turn(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->ring_options.buffer_bytes = 65536;
        fixture->options.turn_requests_max = world_seed % 2 == 0 ? 0 : 300;
        const size_t turn_max = world_seed % 2 == 0 ? 2048 : 300;
        fixture_open(fixture);
        sim_set_socket_bytes(1 << 20);
        struct client *client = client_open(fixture);
        enum { COUNT = 40000 };
        char *requests = malloc((size_t)COUNT * 8);
        for (int i = 0; i < COUNT; i++)
            memcpy(requests + (size_t)i * 8, "ECHO x\r\n", 8);
        client_send(client, requests, (size_t)COUNT * 8);
        wait_until(fixture, client->in_size == COUNT * strlen("$1\r\nx\r\n"));
        assert_int_equal(fixture->requests, COUNT);
        assert_true(fixture->requests_turn_max <= turn_max);
        assert_true(fixture->requests_turn_max > turn_max / 2);
        free(requests);
        fixture_stop(fixture);
    }
}

static void test_net__protocol_error_follows_earlier_replies(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        client_say(client, "DEFER a\r\nECHO b\r\n*1\r\n!3\r\nECHO ignored\r\n");
        wait_until(fixture, fixture->requests == 2);
        client_expect_silence(client);
        assert_false(client->closed);
        fixture_fill(fixture, 0, 0);
        client_expect(client, "$1\r\na\r\n$1\r\nb\r\n-ERR Protocol error: expected '$', got '!'\r\n");
        client_expect_end(client);
        assert_int_equal(fixture->requests, 2);
        assert_int_equal(fixture_stats(fixture).connections_dropped, 1);
        fixture_stop(fixture);
    }
}

static void test_net__finish_answers_and_ignores_the_rest(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open(fixture);
        client_say(client, "ECHO a\r\nQUIT\r\nECHO b\r\n");
        client_expect(client, "$1\r\na\r\n+OK\r\n");
        client_expect_end(client);
        assert_int_equal(fixture->requests, 2);
        fixture_stop(fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__requests_may_be_cut_anywhere),
        cmocka_unit_test(test_net__large_values_arrive_whole),
        cmocka_unit_test(test_net__announced_bytes_cost_nothing_before_they_come),
        cmocka_unit_test(test_net__many_arguments),
        cmocka_unit_test(test_net__request_of_too_many_bytes_is_refused),
        cmocka_unit_test(test_net__pipeline_of_a_million_stays_within_bounds),
        cmocka_unit_test(test_net__requests_under_way_are_bounded),
        cmocka_unit_test(test_net__hold_on_every_request_loses_nothing),
        cmocka_unit_test(test_net__one_connection_does_not_take_the_whole_turn),
        cmocka_unit_test(test_net__protocol_error_follows_earlier_replies),
        cmocka_unit_test(test_net__finish_answers_and_ignores_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
