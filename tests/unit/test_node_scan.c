/*
 * test_node_scan.c - SCAN, KEYS and RANDOMKEY of a whole node.
 */
#include "node_fixture.h"

enum { KEYS_MAX = 4000 };

static uint8_t seen[KEYS_MAX];

/* Takes a number behind this byte off a reply. */
static uint64_t take_number(struct slice *rest, char type)
{
    uint64_t number = 0;
    assert_true(rest->size > 0 && rest->data[0] == (uint8_t)type);
    size_t at = 1;
    for (; at < rest->size && rest->data[at] != '\r'; at++) {
        assert_in_range(rest->data[at], '0', '9');
        number = number * 10 + (uint64_t)(rest->data[at] - '0');
    }
    *rest = slice_make(rest->data + at + 2, rest->size - at - 2);
    return number;
}

/* Notes the keys of an array, which are "key0", "key1", …; returns how many. */
static unsigned take_keys(struct slice *rest)
{
    const uint64_t count = take_number(rest, '*');
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t size = take_number(rest, '$');
        char text[32] = "";
        unsigned number;
        assert_true(size < sizeof text && size + 2 <= rest->size);
        memcpy(text, rest->data, size);
        assert_int_equal(sscanf(text, "key%u", &number), 1);
        assert_true(number < KEYS_MAX);
        seen[number]++;
        *rest = slice_make(rest->data + size + 2, rest->size - size - 2);
    }
    return (unsigned)count;
}

static void expect_seen(unsigned from, unsigned to, unsigned times)
{
    for (unsigned i = from; i < to; i++) {
        if (seen[i] != times)
            fail_msg("key%u was shown %u times instead of %u", i, seen[i], times);
    }
}

static void set_keys(struct peer *peer, unsigned count)
{
    peer_set_keys(peer, count);
    for (unsigned i = 0; i < count; i++)
        peer_expect(peer, "+OK\r\n");
}

/* One SCAN; returns the next cursor. */
static uint64_t scan(struct peer *peer, uint64_t cursor, const char *count)
{
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)cursor);
    peer_say(peer, "SCAN", number, "COUNT", count, NULL);
    struct slice rest = peer_reply(peer);
    assert_int_equal(take_number(&rest, '*'), 2);
    (void)take_number(&rest, '$');
    uint64_t next = 0;
    size_t at = 0;
    for (; at < rest.size && rest.data[at] != '\r'; at++)
        next = next * 10 + (uint64_t)(rest.data[at] - '0');
    rest = slice_make(rest.data + at + 2, rest.size - at - 2);
    (void)take_keys(&rest);
    assert_int_equal(rest.size, 0);
    assert_true(next == 0 || next > cursor);
    assert_true(next >> 48 == 0);
    return next;
}

static void test_scan__every_key_of_any_number_of_shards(void **state)
{
    static const char *const counts[] = {"1", "10", "1000"};
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        set_keys(peer, 500);
        for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
            memset(seen, 0, sizeof seen);
            unsigned calls = 0;
            uint64_t cursor = 0;
            do {
                cursor = scan(peer, cursor, counts[i]);
                calls++;
            } while (cursor != 0);
            expect_seen(0, 500, 1);
            if (i == 2)
                assert_int_equal(calls, 1);
            else
                assert_in_range(calls, 500 / (i == 0 ? 1 : 10) / 3, 1200);
        }
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_scan__keys_and_patterns(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 7, 3);
    struct peer *peer = peer_open(&fixture);
    static const struct {
        const char *words[5];
        const char *reply;
    } lines[] = {
        {{"KEYS", "*"}, "*0\r\n"},
        {{"SCAN", "0"}, "*2\r\n$1\r\n0\r\n*0\r\n"},
        {{"RANDOMKEY"}, "$-1\r\n"},
        {{"SET", "key1", "v"}, "+OK\r\n"},
        {{"KEYS", "*"}, "*1\r\n$4\r\nkey1\r\n"},
        {{"KEYS", "?ey[0-4]"}, "*1\r\n$4\r\nkey1\r\n"},
        {{"KEYS", "key"}, "*0\r\n"},
        {{"KEYS", ""}, "*0\r\n"},
        {{"RANDOMKEY"}, "$4\r\nkey1\r\n"},
        {{"SCAN", ""}, "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nkey1\r\n"},
        {{"SCAN", "+0"}, "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nkey1\r\n"},
        {{"SCAN", "0", "TYPE", "STRING"}, "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nkey1\r\n"},
        {{"SCAN", "0", "TYPE", "hash"}, "*2\r\n$1\r\n0\r\n*0\r\n"},
        {{"SCAN", "0", "match", "x*"}, "*2\r\n$1\r\n0\r\n*0\r\n"},
        {{"SCAN", "281474976710656"}, "*2\r\n$1\r\n0\r\n*0\r\n"},
        {{"SCAN", "-1"}, "*2\r\n$1\r\n0\r\n*0\r\n"},
        {{"SCAN", "-"}, "-ERR invalid cursor\r\n"},
        {{"SCAN", " 0"}, "-ERR invalid cursor\r\n"},
        {{"SCAN", "0x1"}, "-ERR invalid cursor\r\n"},
        {{"SCAN", "18446744073709551616"}, "-ERR invalid cursor\r\n"},
        {{"SCAN", "0", "COUNT", "0"}, "-ERR syntax error\r\n"},
        {{"SCAN", "0", "COUNT", "-9223372036854775808"}, "-ERR syntax error\r\n"},
        {{"SCAN", "0", "COUNT", "9223372036854775807"}, "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nkey1\r\n"},
        {{"SCAN", "0", "COUNT", "x"}, "-ERR value is not an integer or out of range\r\n"},
        {{"SCAN", "0", "COUNT"}, "-ERR syntax error\r\n"},
        {{"SCAN", "0", "FOO", "1"}, "-ERR syntax error\r\n"},
        {{"SCAN"}, "-ERR wrong number of arguments for 'scan' command\r\n"},
        {{"DEL", "key1"}, ":1\r\n"},
        {{"KEYS", "*"}, "*0\r\n"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(lines); i++) {
        const char *const *words = lines[i].words;
        peer_say(peer, words[0], words[1], words[2], words[3], words[4], NULL);
        peer_expect(peer, lines[i].reply);
    }
    peer_say(peer, "HELLO", "3", NULL);
    (void)peer_reply(peer);
    peer_say(peer, "RANDOMKEY", NULL);
    peer_expect(peer, "_\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

/* A large value is written to a file before its key is there: what comes behind its SET waits for that. */
static void test_scan__sees_what_was_asked_before_and_nothing_that_comes_behind(void **state)
{
    static char value[100001];
    (void)state;
    memset(value, 'v', sizeof value - 1);
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, 20 + threads, threads);
        struct peer *peer = peer_open(&fixture);
        for (unsigned i = 0; i < 10; i++) {
            char key[16], list[64], scanned[128], bulk[32];
            snprintf(key, sizeof key, "key%u", i);
            snprintf(bulk, sizeof bulk, "$4\r\n%s\r\n", key);
            snprintf(list, sizeof list, "*1\r\n%s", bulk);
            snprintf(scanned, sizeof scanned, "*2\r\n$1\r\n0\r\n%s", list);
            peer_say(peer, "SET", key, value, NULL);
            peer_say(peer, "KEYS", "*", NULL);
            peer_say(peer, "SCAN", "0", NULL);
            peer_say(peer, "RANDOMKEY", NULL);
            peer_say(peer, "DEL", key, NULL);
            peer_say(peer, "KEYS", "*", NULL);
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, list);
            peer_expect(peer, scanned);
            peer_expect(peer, bulk);
            peer_expect(peer, ":1\r\n");
            peer_expect(peer, "*0\r\n");
        }
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* A reply of many pieces; and its size is known to the budget until it has left. */
static void test_scan__all_keys_in_one_reply(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 8, 3);
    struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
    set_keys(peer, KEYS_MAX);
    memset(seen, 0, sizeof seen);
    peer_say(peer, "KEYS", "*", NULL);
    struct slice rest = peer_reply(peer);
    assert_int_equal(take_keys(&rest), KEYS_MAX);
    assert_int_equal(rest.size, 0);
    expect_seen(0, KEYS_MAX, 1);
    peer_say(other, "PING", NULL);
    peer_expect(other, "+PONG\r\n");
    fixture_steps(1000);
    assert_int_equal(atomic_load(&fixture.node->budget.used_bytes), 0);

    /* More than there is memory for is refused, and nothing stays. */
    fixture.node->budget.bytes_max = 10000;
    peer_say(peer, "KEYS", "*", NULL);
    peer_expect_prefix(peer, "-OOM kvs-node: the requests under way leave no memory for the reply; use SCAN");
    fixture_steps(1000);
    assert_int_equal(atomic_load(&fixture.node->budget.used_bytes), 0);
    memset(seen, 0, sizeof seen);
    uint64_t cursor = 0;
    do
        cursor = scan(peer, cursor, "50");
    while (cursor != 0);
    expect_seen(0, KEYS_MAX, 1);
    peer_close(peer);
    peer_close(other);
    fixture_end(&fixture);
}

static void test_scan__random_keys_are_many(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 9, 2);
    struct peer *peer = peer_open(&fixture);
    set_keys(peer, 40);
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < 1000; i++) {
        peer_say(peer, "RANDOMKEY", NULL);
        const struct slice reply = peer_reply(peer);
        char array[64];
        const int size = snprintf(array, sizeof array, "*1\r\n%.*s", (int)reply.size, (const char *)reply.data);
        struct slice rest = slice_make(array, (size_t)size);
        assert_int_equal(take_keys(&rest), 1);
    }
    unsigned met = 0;
    for (unsigned i = 0; i < 40; i++) {
        met += seen[i] > 0;
        assert_true(seen[i] < 200);
    }
    assert_true(met > 35);
    peer_close(peer);
    fixture_end(&fixture);
}

/* Connections that go while their scans are under way, and a stop, at once or in order. */
static void test_scan__ends_with_its_connection_and_the_node(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct node_fixture fixture;
        struct peer *peers[4];
        struct config config = fixture_config(1 + seed % 4);
        fixture_machine(seed);
        fixture_start(&fixture, &config);
        for (unsigned i = 0; i < 4; i++)
            peers[i] = peer_open(&fixture);
        set_keys(peers[0], 600);
        for (unsigned i = 0; i < 4; i++) {
            for (unsigned j = 0; j < 3; j++) {
                peer_say(peers[i], "SET", "key1", "v", NULL);
                peer_say(peers[i], "KEYS", "*", NULL);
                peer_say(peers[i], "RANDOMKEY", NULL);
            }
        }
        fixture_steps(sim_random(200));
        if (seed % 3 == 0) {
            for (unsigned i = 0; i < 4; i++)
                peer_close(peers[i]);
            fixture_stop(&fixture, false);
        } else if (seed % 3 == 1) {
            fixture_stop(&fixture, true);
            for (unsigned i = 0; i < 4; i++)
                peer_free(peers[i]);
        } else {
            fixture_crash(&fixture, SIM_RANDOM);
            for (unsigned i = 0; i < 4; i++)
                peer_free(peers[i]);
        }
        fixture_machine_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan__every_key_of_any_number_of_shards),
        cmocka_unit_test(test_scan__keys_and_patterns),
        cmocka_unit_test(test_scan__sees_what_was_asked_before_and_nothing_that_comes_behind),
        cmocka_unit_test(test_scan__all_keys_in_one_reply),
        cmocka_unit_test(test_scan__random_keys_are_many),
        cmocka_unit_test(test_scan__ends_with_its_connection_and_the_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
