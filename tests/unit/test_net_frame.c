/* Connections that speak the binary protocol: hello, replies out of order, gates, frames that are refused. */
#include "net_fixture_sim.h"

#define SEEDS 6

static void test_net__hello_tells_version_and_limits(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    const struct frame_hello asked = {.version_min = 1, .version_max = 9};
    client_send_frame(client, FRAME_HELLO, 42, &asked, sizeof asked);
    const struct frame frame = client_next_frame(client);
    assert_int_equal(frame.header.opcode, FRAME_HELLO);
    assert_int_equal(frame.header.status, FRAME_OK);
    assert_int_equal(frame.header.id, 42);
    struct frame_hello told;
    assert_int_equal(frame.value.size, sizeof told);
    memcpy(&told, frame.value.data, sizeof told);
    assert_int_equal(told.version_min, 1);
    assert_int_equal(told.version_max, 1);
    assert_int_equal(told.key_bytes_max, 1000);
    assert_int_equal(told.value_bytes_max, 1 << 20);
    assert_int_equal(told.requests_max, 10000);
    assert_int_equal(told.shard_count, 3);
    assert_int_equal(fixture->requests, 0);
    fixture_stop(fixture);
}

static void test_net__hello_of_another_version_is_refused(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    const struct frame_hello hello = {.version_min = 2, .version_max = 3};
    client_send_frame(client, FRAME_HELLO, 1, &hello, sizeof hello);
    client_expect_frame(client, FRAME_HELLO, 1, FRAME_VERSION_UNKNOWN,
                        "this server speaks version 1, the client 2 to 3");
    client_expect_end(client);

    client = client_open(fixture);
    const struct frame_hello old = {.version_min = 0, .version_max = 0};
    client_send_frame(client, FRAME_HELLO, 2, &old, sizeof old);
    client_expect_frame(client, FRAME_HELLO, 2, FRAME_VERSION_UNKNOWN,
                        "this server speaks version 1, the client 0 to 0");
    client_expect_end(client);
    fixture_stop(fixture);
}

static void test_net__first_frame_must_be_a_hello(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    client_send_frame(client, FRAME_GET, 5, "k", 1);
    client_expect_frame(client, FRAME_GET, 5, FRAME_BAD_REQUEST, "the first frame must be a hello");
    client_expect_end(client);
    assert_int_equal(fixture->requests, 0);

    client = client_open(fixture);
    client_send_frame(client, FRAME_HELLO, 6, "short", 5);
    client_expect_frame(client, FRAME_HELLO, 6, FRAME_BAD_REQUEST, "a hello has a value of 32 bytes, not 5");
    client_expect_end(client);

    client = client_open_frames(fixture);
    const struct frame_hello hello = {.version_min = 1, .version_max = 1};
    client_send_frame(client, FRAME_HELLO, 7, &hello, sizeof hello);
    client_expect_frame(client, FRAME_HELLO, 7, FRAME_BAD_REQUEST, "a second hello on one connection");
    client_expect_end(client);
    fixture_stop(fixture);
}

static void test_net__oversized_first_frame_is_refused(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open(fixture);
    char *value = calloc(1, 2 << 20);
    client_send_frame(client, FRAME_SET, 5, value, 2 << 20);
    client_expect_frame(client, FRAME_SET, 5, FRAME_BAD_REQUEST, "the first frame must be a hello");
    wait_until(fixture, client->closed);
    free(value);
    fixture_stop(fixture);
}

static void test_net__malformed_frame_is_named_and_ends_the_connection(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open_frames(fixture);
    struct frame_header header = {.magic = FRAME_MAGIC, .opcode = FRAME_GET, .reserved = 1, .id = 9};
    client_send_frame(client, FRAME_PING, 8, "x", 1);
    wait_until(fixture, !client->sending);
    client_send(client, &header, sizeof header);
    client_expect_frame(client, FRAME_PING, 8, FRAME_OK, "x");
    client_expect_frame(client, FRAME_GET, 9, FRAME_BAD_REQUEST, "the reserved fields of a frame header must be zero");
    client_expect_end(client);

    client = client_open_frames(fixture);
    client_say(client, "GET key\r\n");
    client_expect_frame(client, FRAME_HELLO, 0, FRAME_BAD_REQUEST, "a frame begins with byte 0xF5, not 0x47");
    client_expect_end(client);
    assert_int_equal(fixture_stats(fixture).connections_dropped, 2);
    fixture_stop(fixture);
}

static void test_net__frames_overtake_deferred_and_gated_ones(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open_frames(fixture);
        client_send_frame(client, FRAME_GET, 1, "a", 1);
        client_send_frame(client, FRAME_SET, 2, "b", 1);
        client_send_frame(client, FRAME_GET, 3, "c", 1);
        client_send_frame(client, FRAME_SET, 4, "d", 1);
        client_send_frame(client, FRAME_PING, 5, "e", 1);
        client_expect_frame(client, FRAME_PING, 5, FRAME_OK, "e");
        client_expect_silence(client);
        fixture_fill(fixture, 1, 0);
        client_expect_frame(client, FRAME_GET, 3, FRAME_OK, "c");
        fixture_fill(fixture, 0, 7);
        client_expect_silence(client);
        net_release(fixture->net, 2);
        client_expect_frame(client, FRAME_SET, 2, FRAME_OK, "b");
        client_expect_frame(client, FRAME_SET, 4, FRAME_OK, "d");
        client_send_frame(client, FRAME_PING, 6, "f", 1);
        client_expect_frame(client, FRAME_PING, 6, FRAME_OK, "f");
        client_expect_silence(client);
        net_release(fixture->net, 7);
        client_expect_frame(client, FRAME_GET, 1, FRAME_OK, "a");
        fixture_stop(fixture);
    }
}

static void test_net__failed_frames_say_so_one_by_one(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open_frames(fixture);
        enum { COUNT = 300 };
        bool seen[COUNT] = {false};
        for (uint64_t i = 0; i < COUNT; i++)
            client_send_frame(client, i % 10 == 0 ? FRAME_GET : FRAME_SET, i, "value", i % 6);
        wait_until(fixture, fixture->requests == COUNT);
        for (size_t i = 0; i < COUNT / 10; i++)
            fixture_fill(fixture, i, 1000 + i);
        fixture_idle(fixture);
        net_fail_gates(fixture->net, "ERR no disk");
        for (int i = 0; i < COUNT; i++) {
            const struct frame frame = client_next_frame(client);
            assert_true(frame.header.id < COUNT && !seen[frame.header.id]);
            seen[frame.header.id] = true;
            assert_int_equal(frame.header.opcode, frame.header.id % 10 == 0 ? FRAME_GET : FRAME_SET);
            assert_int_equal(frame.header.status, FRAME_FAILED);
            assert_true(slice_equal(frame.value, slice_text("no disk")));
        }
        client_send_frame(client, FRAME_SET, 7777, "x", 1);
        client_expect_frame(client, FRAME_SET, 7777, FRAME_FAILED, "no disk");
        client_send_frame(client, FRAME_PING, 7778, "x", 1);
        client_expect_frame(client, FRAME_PING, 7778, FRAME_OK, "x");
        client_expect_silence(client);
        fixture_stop(fixture);
    }
}

/* A commit and the failure of the next become known in one turn, before anything was sent. */
static void test_net__frames_that_became_durable_stay_good_when_later_ones_fail(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open_frames(fixture);
        for (uint64_t i = 1; i <= 6; i++)
            client_send_frame(client, i % 2 == 0 ? FRAME_GET : FRAME_SET, i, "value", 5);
        wait_until(fixture, fixture->requests == 6);
        for (size_t i = 0; i < 3; i++)
            fixture_fill(fixture, i, 10 + i);
        fixture_idle(fixture);
        net_release(fixture->net, 10);
        net_fail_gates(fixture->net, "ERR no disk");
        unsigned good = 0;
        for (int i = 0; i < 6; i++) {
            const struct frame frame = client_next_frame(client);
            good += frame.header.status == FRAME_OK;
            if (frame.header.status != FRAME_OK)
                assert_int_equal(frame.header.status, FRAME_FAILED);
        }
        assert_int_equal(good, 4); /* three writes with gates 1 to 3, one read with gate 10 */
        client_expect_silence(client);
        fixture_stop(fixture);
    }
}

static void test_net__too_large_frame_is_skipped(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_start();
        struct client *client = client_open_frames(fixture);
        char *value = malloc(3 << 20);
        memset(value, 'v', 3 << 20);
        client_send_frame(client, FRAME_PING, 1, "a", 1);
        client_send_frame(client, FRAME_SET, 2, value, 3 << 20);
        client_send_frame(client, FRAME_PING, 3, "b", 1);
        client_expect_frame(client, FRAME_PING, 1, FRAME_OK, "a");
        client_expect_frame(client, FRAME_SET, 2, FRAME_TOO_LARGE, NULL);
        client_expect_frame(client, FRAME_PING, 3, FRAME_OK, "b");
        assert_int_equal(fixture->requests, 2);
        assert_true(fixture_stats(fixture).memory_bytes < 200000);
        free(value);
        fixture_stop(fixture);
    }
}

static void test_net__frames_may_be_cut_anywhere(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_start();
    struct client *client = client_open_frames(fixture);
    uint8_t bytes[200];
    struct frame_header header = {.opcode = FRAME_PING, .id = 1};
    const struct slice none = slice_make(NULL, 0);
    size_t size = frame_write(bytes, &header, none, slice_text("hello"));
    header.id = 2;
    size += frame_write(bytes + size, &header, none, none);
    header.id = 3;
    size += frame_write(bytes + size, &header, none, slice_text("again"));
    for (size_t cut = 1; cut < size; cut++) {
        const uint64_t before = fixture_stats(fixture).bytes_received;
        wait_until(fixture, !client->sending);
        client_send(client, bytes, cut);
        wait_until(fixture, !client->sending && fixture_stats(fixture).bytes_received == before + cut);
        client_send(client, bytes + cut, size - cut);
        client_expect_frame(client, FRAME_PING, 1, FRAME_OK, "hello");
        client_expect_frame(client, FRAME_PING, 2, FRAME_OK, "");
        client_expect_frame(client, FRAME_PING, 3, FRAME_OK, "again");
    }
    fixture_stop(fixture);
}

static void test_net__large_frame_is_not_torn_by_others(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.frame.value_bytes_max = 8 << 20;
        fixture->options.output_bytes_max = 8 << 20;
        fixture_open(fixture);
        struct client *client = client_open_frames(fixture);
        char *value = malloc(5 << 20);
        memset(value, 'v', 5 << 20);
        client_send_frame(client, FRAME_GET, 1, value, 5 << 20);
        wait_until(fixture, fixture->requests == 1 && !client->sending);
        client_pause(client);
        /* Its first part is on its way when small ones that need no gate come. */
        fixture_fill(fixture, 0, 3);
        net_release(fixture->net, 3);
        fixture_idle(fixture);
        for (uint64_t i = 2; i < 50; i++)
            client_send_frame(client, FRAME_PING, i, "p", 1);
        wait_until(fixture, fixture->requests == 49);
        client_read(client);
        for (uint64_t i = 1; i < 50; i++) {
            const struct frame frame = client_next_frame(client);
            assert_int_equal(frame.value.size, frame.header.id == 1 ? 5 << 20 : 1);
            assert_int_equal(frame.value.data[frame.value.size - 1], frame.header.id == 1 ? 'v' : 'p');
        }
        free(value);
        fixture_stop(fixture);
    }
}

static void test_net__frames_under_way_are_bounded(void **state)
{
    (void)state;
    for_each_seed(SEEDS)
    {
        struct fixture *fixture = fixture_create();
        fixture->options.requests_max = 20;
        fixture_open(fixture);
        struct client *client = client_open_frames(fixture);
        uint8_t requests[200 * 25];
        size_t size = 0;
        for (uint64_t i = 0; i < 200; i++) {
            const struct frame_header header = {.opcode = i % 2 == 0 ? FRAME_GET : FRAME_SET, .id = i};
            size += frame_write(requests + size, &header, slice_make(NULL, 0), slice_text("x"));
        }
        client_send(client, requests, size);
        fixture_idle(fixture);
        assert_int_equal(fixture->requests, 20);
        size_t filled = 0;
        while (client->in_size < 200 * frame_bytes(0, 1) + frame_bytes(0, sizeof(struct frame_hello))) {
            net_release(fixture->net, fixture->gate);
            if (filled < fixture->held_count)
                fixture_fill(fixture, filled++, 0);
            assert_true(world_step(fixture));
        }
        assert_int_equal(fixture->requests, 200);
        fixture_stop(fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__hello_tells_version_and_limits),
        cmocka_unit_test(test_net__hello_of_another_version_is_refused),
        cmocka_unit_test(test_net__first_frame_must_be_a_hello),
        cmocka_unit_test(test_net__oversized_first_frame_is_refused),
        cmocka_unit_test(test_net__malformed_frame_is_named_and_ends_the_connection),
        cmocka_unit_test(test_net__frames_overtake_deferred_and_gated_ones),
        cmocka_unit_test(test_net__failed_frames_say_so_one_by_one),
        cmocka_unit_test(test_net__frames_that_became_durable_stay_good_when_later_ones_fail),
        cmocka_unit_test(test_net__too_large_frame_is_skipped),
        cmocka_unit_test(test_net__frames_may_be_cut_anywhere),
        cmocka_unit_test(test_net__large_frame_is_not_torn_by_others),
        cmocka_unit_test(test_net__frames_under_way_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
