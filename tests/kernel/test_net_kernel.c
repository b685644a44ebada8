/* Connections on the real ring: what a simulated network cannot show. */
#include "net_fixture_kernel.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_net__replies_arrive_in_order(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\nDEFER b\r\nGATED c\r\nDEFER d\r\n");
    client_expect(client, "$1\r\na\r\n");
    wait_until(fixture, fixture->requests == 4);
    fixture_fill(fixture, 1, 0);
    client_expect_silence(client);
    fixture_fill(fixture, 0, 0);
    client_expect(client, "$1\r\nb\r\n");
    client_expect_silence(client);
    net_release(fixture->net, 1);
    client_expect(client, "$1\r\nc\r\n$1\r\nd\r\n");
    fixture_stop(fixture);
}

static void test_net__frames_overtake(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open_frames(fixture);
    client_send_frame(client, FRAME_GET, 1, "a", 1);
    client_send_frame(client, FRAME_SET, 2, "b", 1);
    client_send_frame(client, FRAME_PING, 3, "c", 1);
    client_expect_frame(client, FRAME_PING, 3, FRAME_OK, "c");
    net_release(fixture->net, 1);
    client_expect_frame(client, FRAME_SET, 2, FRAME_OK, "b");
    fixture_fill(fixture, 0, 0);
    client_expect_frame(client, FRAME_GET, 1, FRAME_OK, "a");
    fixture_stop(fixture);
}

static void test_net__megabytes_both_ways(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    enum { BYTES = 1 << 20 };
    char *request = malloc(BYTES + 64);
    const size_t header = (size_t)sprintf(request, "*2\r\n$5\r\nDEFER\r\n$%d\r\n", BYTES);
    for (size_t i = 0; i < BYTES; i++)
        request[header + i] = (char)('a' + i % 23);
    memcpy(request + header + BYTES, "\r\n", 2);
    for (size_t round = 0; round < 20; round++) {
        wait_until(fixture, !client->sending);
        client_send(client, request, header + BYTES + 2);
        wait_until(fixture, fixture->requests == round + 1);
        fixture_fill(fixture, round, 0);
        client_expect(client, "$1048576\r\n");
        client_expect_bytes(client, request + header, BYTES + 2);
    }
    free(request);
    fixture_stop(fixture);
}

static void test_net__deep_pipeline_of_one_who_does_not_read(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    struct fixture *fixture = fixture_create();
    fixture->options.output_bytes_max = 128 << 10;
    fixture_open(fixture);
    struct client *client = client_open_silent(fixture);
    char *requests = malloc((size_t)COUNT * 19);
    size_t size = 0;
    for (int i = 0; i < COUNT; i++)
        size += (size_t)sprintf(requests + size, "ECHO %06d\r\n", i);
    client_send(client, requests, size);
    size_t requests_before = SIZE_MAX;
    while (fixture->requests != requests_before) {
        requests_before = fixture->requests;
        fixture_idle(fixture);
    }
    assert_true(fixture->requests < COUNT);
    assert_true(fixture_stats(fixture).memory_bytes < 2 << 20);
    client_read(client);
    for (int i = 0; i < COUNT; i++) {
        char reply[32];
        snprintf(reply, sizeof reply, "$6\r\n%06d\r\n", i);
        client_expect(client, reply);
    }
    assert_true(fixture_stats(fixture).memory_bytes < 2 << 20);
    assert_true(fixture->requests_turn_max <= 2048);
    free(requests);
    fixture_stop(fixture);
}

static void test_net__slow_reader_is_dropped(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    fixture->options.send_timeout_ms = 200;
    fixture_open(fixture);
    struct client *client = client_open_silent(fixture);
    client_say(client, "BIG 50000000\r\n");
    wait_until(fixture, fixture->ended == 1);
    assert_int_equal(fixture_stats(fixture).connections_dropped, 1);
    fixture_stop(fixture);
}

static void test_net__few_buffers_serve_many(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_create();
    fixture->ring_options.buffer_count = 2;
    fixture->ring_options.buffer_bytes = 64;
    fixture_open(fixture);
    struct client *clients[50];
    for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
        clients[i] = client_open(fixture);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(clients); i++) {
            for (int j = 0; j < 40; j++)
                client_say(clients[i], "ECHO x\r\n");
        }
        for (size_t i = 0; i < ARRAY_COUNT(clients); i++) {
            for (int j = 0; j < 40; j++)
                client_expect(clients[i], "$1\r\nx\r\n");
        }
    }
    assert_int_equal(ring_buffers_free(fixture->server), 2);
    fixture_stop(fixture);
}

static void test_net__half_closed_peer_gets_its_answers(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_say(client, "ECHO a\r\nDEFER b\r\nGATED c\r\n*1\r\n$5\r\npart");
    wait_until(fixture, !client->sending);
    shutdown(client->fd, SHUT_WR);
    client_expect(client, "$1\r\na\r\n");
    client_expect_silence(client);
    fixture_fill(fixture, 0, 0);
    net_release(fixture->net, 1);
    client_expect(client, "$1\r\nb\r\n$1\r\nc\r\n");
    client_expect_end(client);
    fixture_stop(fixture);
}

static void test_net__reset_with_slots_pending_releases_each_once(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open_silent(fixture);
    client_say(client, "DEFER a\r\nBIG 20000000\r\nDEFER b\r\nGATED c\r\nDEFER d\r\n");
    wait_until(fixture, fixture->requests == 2); /* held: too much output */
    fixture_fill(fixture, 0, 0);
    fixture_idle(fixture);
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    wait_until(fixture, !client->sending);
    close(client->fd);
    client->fd = -1;
    wait_until(fixture, fixture->ended == 1);

    struct client *other = client_open_silent(fixture);
    client_say(other, "DEFER a\r\nDEFER b\r\n");
    wait_until(fixture, fixture->held_count == 3);
    assert_int_equal(setsockopt(other->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    wait_until(fixture, !other->sending);
    close(other->fd);
    other->fd = -1;
    fixture_idle(fixture);
    assert_int_equal(fixture->ended, 1);
    fixture_fill(fixture, 2, 0);
    assert_int_equal(fixture->held[2]->released, 1);
    fixture_fill(fixture, 1, 9);
    assert_int_equal(fixture->held[1]->released, 1);
    wait_until(fixture, fixture->ended == 2);
    fixture_stop(fixture);
}

static void test_net__error_reaches_a_peer_that_went_on_sending(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    char *junk = malloc(200000);
    memset(junk, 'x', 200000);
    client_send(client, junk, 200000);
    client_expect(client, "-ERR Protocol error: too big inline request\r\n");
    wait_until(fixture, client->closed);
    free(junk);
    fixture_stop(fixture);
}

static void test_net__accept_goes_on_when_descriptors_are_back(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    /* The client takes the last descriptor there is; the server finds none for its end. */
    const int highest = dup(0);
    close(highest);
    struct rlimit low = limit;
    low.rlim_cur = (rlim_t)highest + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct client *client = client_open(fixture);
    fixture_idle(fixture);
    assert_int_equal(fixture->opened, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    client_say(client, "ECHO a\r\n");
    client_expect(client, "$1\r\na\r\n");
    fixture_stop(fixture);
}

static void test_net__drain_ends_idle_and_busy_connections(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *idle = client_open(fixture);
    struct client *busy = client_open(fixture);
    client_say(busy, "DEFER a\r\nGATED b\r\n");
    wait_until(fixture, fixture->requests == 2 && fixture->opened == 2);
    net_drain(fixture->net);
    client_expect_end(idle);
    fixture_fill(fixture, 0, 0);
    client_expect(busy, "$1\r\na\r\n");
    assert_false(net_drained(fixture->net));
    net_release(fixture->net, 1);
    client_expect(busy, "$1\r\nb\r\n");
    client_expect_end(busy);
    wait_until(fixture, net_drained(fixture->net));
    fixture_stop(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__replies_arrive_in_order),
        cmocka_unit_test(test_net__frames_overtake),
        cmocka_unit_test(test_net__megabytes_both_ways),
        cmocka_unit_test(test_net__deep_pipeline_of_one_who_does_not_read),
        cmocka_unit_test(test_net__slow_reader_is_dropped),
        cmocka_unit_test(test_net__few_buffers_serve_many),
        cmocka_unit_test(test_net__half_closed_peer_gets_its_answers),
        cmocka_unit_test(test_net__reset_with_slots_pending_releases_each_once),
        cmocka_unit_test(test_net__error_reaches_a_peer_that_went_on_sending),
        cmocka_unit_test(test_net__accept_goes_on_when_descriptors_are_back),
        cmocka_unit_test(test_net__drain_ends_idle_and_busy_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
