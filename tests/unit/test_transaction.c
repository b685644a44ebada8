/*
 * test_transaction.c - commands that change several keys in one step, on a node of several shards: replies, the order
 * of a pipeline, clients that want the same keys in different orders, connections that end in the middle, power loss.
 */
#include "node_fixture.h"

static void expect_get(struct peer *peer, const char *key, const char *value)
{
    char reply[96] = "$-1\r\n";
    if (value != NULL)
        snprintf(reply, sizeof reply, "$%zu\r\n%s\r\n", strlen(value), value);
    peer_say(peer, "GET", key, NULL);
    peer_expect(peer, reply);
}

static void test_transaction__replies(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "MSET", "a", "1", "b", "2", "c", "3", "a", "4", NULL);
        peer_expect(peer, "+OK\r\n");
        expect_get(peer, "a", "4"); /* of equal keys the last counts */
        expect_get(peer, "c", "3");
        peer_say(peer, "MSETNX", "d", "5", "b", "6", NULL);
        peer_expect(peer, ":0\r\n");
        expect_get(peer, "d", NULL);
        expect_get(peer, "b", "2");
        peer_say(peer, "MSETNX", "d", "5", "e", "6", NULL);
        peer_expect(peer, ":1\r\n");
        expect_get(peer, "e", "6");
        peer_say(peer, "RENAME", "nothing", "f", NULL);
        peer_expect(peer, "-ERR no such key\r\n");
        peer_say(peer, "RENAME", "a", "f", NULL);
        peer_expect(peer, "+OK\r\n");
        expect_get(peer, "a", NULL);
        expect_get(peer, "f", "4");
        peer_say(peer, "RENAME", "f", "f", NULL);
        peer_expect(peer, "+OK\r\n");
        peer_say(peer, "RENAMENX", "f", "f", NULL);
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "RENAMENX", "f", "b", NULL);
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "RENAMENX", "f", "g", NULL);
        peer_expect(peer, ":1\r\n");
        peer_say(peer, "COPY", "g", "b", NULL);
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "COPY", "g", "b", "REPLACE", NULL);
        peer_expect(peer, ":1\r\n");
        expect_get(peer, "b", "4");
        expect_get(peer, "g", "4");
        peer_say(peer, "COPY", "nothing", "b", NULL);
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "COPY", "g", "g", NULL);
        peer_expect(peer, "-ERR source and destination objects are the same\r\n");
        peer_say(peer, "MSET", "a", "1", "b", NULL);
        peer_expect(peer, "-ERR wrong number of arguments for 'mset' command\r\n");
        peer_say(peer, "DBSIZE", NULL);
        peer_expect(peer, ":5\r\n"); /* b c d e g */
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_transaction__an_expiry_goes_along(void **state)
{
    (void)state;
    struct node_fixture fixture;
    fixture_create(&fixture, 10, 3);
    struct peer *peer = peer_open(&fixture);
    peer_say(peer, "SET", "a", "1", "PXAT", "4000000000000", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "RENAME", "a", "b", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "COPY", "b", "c", NULL);
    peer_expect(peer, ":1\r\n");
    peer_say(peer, "PEXPIRETIME", "b", NULL);
    peer_expect(peer, ":4000000000000\r\n");
    peer_say(peer, "PEXPIRETIME", "c", NULL);
    peer_expect(peer, ":4000000000000\r\n");
    peer_say(peer, "MSET", "b", "2", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "PEXPIRETIME", "b", NULL);
    peer_expect(peer, ":-1\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

static void expect_text(struct peer *peer, const char *value)
{
    char expected[96];
    snprintf(expected, sizeof expected, "$%zu\r\n%s\r\n", strlen(value), value);
    peer_expect(peer, expected);
}

/* One MSET in a pipeline, with other commands on its keys before it and behind it. */
static void ask_around_mset(struct peer *peer, const char *before, const char *value, const char *later)
{
    peer_say(peer, "SET", "k0", before, NULL);
    peer_say(peer, "GET", "k1", NULL);
    peer_say(peer, "APPEND", "k1", "+", NULL);
    peer_say(peer, "SET", "k3", before, NULL);
    peer_say(peer, "MSET", "k0", value, "k1", value, "k2", value, "k3", value, NULL);
    peer_say(peer, "MGET", "k0", "k1", "k2", "k3", NULL);
    for (unsigned i = 0; i < 4; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%u", i);
        peer_say(peer, "GET", key, NULL);
    }
    peer_say(peer, "SET", "k2", later, NULL);
    peer_say(peer, "GET", "k2", NULL);
    peer_say(peer, "RENAME", "k2", "k1", NULL);
    peer_say(peer, "GET", "k1", NULL);
}

/* What comes before on a connection, to whatever shards, is done before; what follows sees it. */
static void test_transaction__a_pipeline_keeps_its_order(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 40; seed++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 20 + seed, 1 + seed % 4);
        struct peer *peer = peer_open(&fixture);
        char last[24] = "";
        peer_say(peer, "SET", "k1", last, NULL);
        peer_expect(peer, "+OK\r\n");
        for (unsigned round = 0; round < 20; round++) {
            char value[16], before[24], later[24], several[256];
            snprintf(value, sizeof value, "%u", round);
            snprintf(before, sizeof before, "%u before", round);
            snprintf(later, sizeof later, "%u later", round);
            size_t length = strlen(value);
            snprintf(several, sizeof several, "*4\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", length,
                     value, length, value, length, value, length, value);
            ask_around_mset(peer, before, value, later);
            peer_expect(peer, "+OK\r\n");
            expect_text(peer, last);
            peer_expect_prefix(peer, ":");
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, several);
            for (unsigned i = 0; i < 4; i++)
                expect_text(peer, value);
            peer_expect(peer, "+OK\r\n");
            expect_text(peer, later);
            peer_expect(peer, "+OK\r\n");
            expect_text(peer, later);
            memcpy(last, later, sizeof last);
        }
        peer_close(peer);
        fixture_end(&fixture);
    }
}

enum { CLIENTS = 6, ROUNDS = 30, SHARED = 5 };

static void shared_key(char key[16], unsigned i)
{
    snprintf(key, 16, "shared%u", i);
}

/* All clients write all keys, each in an order of its own: nobody waits for ever, and in the end all keys agree. */
static void test_transaction__the_same_keys_in_any_order(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 20; seed++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 100 + seed, 2 + seed % 3);
        struct peer *peers[CLIENTS];
        for (unsigned i = 0; i < CLIENTS; i++)
            peers[i] = peer_open(&fixture);
        for (unsigned round = 0; round < ROUNDS; round++) {
            for (unsigned c = 0; c < CLIENTS; c++) {
                char keys[SHARED][16], value[24];
                struct slice args[1 + 2 * SHARED] = {slice_text("MSET")};
                snprintf(value, sizeof value, "%u of %u", round, c);
                for (unsigned i = 0; i < SHARED; i++) {
                    shared_key(keys[i], (i * (1 + c % 4) + c) % SHARED);
                    args[1 + 2 * i] = slice_text(keys[i]);
                    args[2 + 2 * i] = slice_text(value);
                }
                peer_ask(peers[c], args, 1 + 2 * SHARED);
            }
        }
        for (unsigned round = 0; round < ROUNDS; round++) {
            for (unsigned c = 0; c < CLIENTS; c++)
                peer_expect(peers[c], "+OK\r\n");
        }
        char first[48] = "";
        for (unsigned i = 0; i < SHARED; i++) {
            char key[16];
            shared_key(key, i);
            peer_say(peers[0], "GET", key, NULL);
            struct slice reply = peer_reply(peers[0]);
            if (i == 0)
                snprintf(first, sizeof first, "%.*s", (int)reply.size, (const char *)reply.data);
            assert_true(slice_equal(reply, slice_text(first)));
        }
        for (unsigned c = 0; c < CLIENTS; c++)
            peer_close(peers[c]);
        fixture_end(&fixture);
    }
}

/* The value of a key; 0: there is none. */
static unsigned number_at(struct peer *peer, const char *key)
{
    unsigned number = 0;
    peer_say(peer, "GET", key, NULL);
    struct slice reply = peer_reply(peer);
    if (reply.size == 7) /* of one digit */
        number = (unsigned)(reply.data[4] - '0');
    else
        assert_true(slice_equal(reply, slice_text("$-1\r\n")));
    return number;
}

/* The peer goes away at any moment: what it has asked for is done as a whole or not at all, be it before or after what
 * another one asks for, and then the keys are free. */
static void test_transaction__connections_that_end_in_the_middle(void **state)
{
    (void)state;
    unsigned none = 0, before = 0, after = 0;
    for (unsigned seed = 0; seed < 200; seed++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 200 + seed, 3);
        struct peer *gone = peer_open(&fixture), *stays = peer_open(&fixture);
        for (unsigned i = 0; i < 5; i++)
            peer_say(gone, "MSET", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1", NULL);
        for (uint64_t steps = sim_random(300); steps > 0 && sim_step(); steps--)
            ;
        peer_close(gone);
        peer_say(stays, "MSET", "a", "2", "c", "2", "e", "2", "f", "2", NULL);
        peer_expect(stays, "+OK\r\n");
        while (strcmp(peer_info(stays, "clients", "connected_clients"), "1") != 0)
            ;
        unsigned a = number_at(stays, "a"), b = number_at(stays, "b");
        assert_true(number_at(stays, "c") == a && number_at(stays, "e") == a && number_at(stays, "d") == b);
        assert_true(a == 2 || (a == 1 && b == 1));
        none += b == 0;
        before += b == 1 && a == 2;
        after += a == 1;
        peer_say(stays, "RENAME", "f", "a", NULL);
        peer_expect(stays, "+OK\r\n");
        expect_get(stays, "a", "2");
        expect_get(stays, "f", NULL);
        peer_close(stays);
        fixture_end(&fixture);
    }
    assert_true(none > 0 && before > 0 && after > 0);
}

/* ---- large values ---------------------------------------------------------------------------------------------- */

enum { LARGE = 100000 }; /* such values have files of their own */

static struct slice large_value(unsigned seed)
{
    static uint8_t bytes[4][LARGE];
    for (size_t i = 0; i < LARGE; i++)
        bytes[seed % 4][i] = (uint8_t)(i * 7 + (i >> 8) + seed);
    return slice_make(bytes[seed % 4], LARGE);
}

static void expect_large(struct peer *peer, const char *key, unsigned seed)
{
    peer_say(peer, "GET", key, NULL);
    struct slice reply = peer_reply(peer);
    const struct slice value = large_value(seed);
    assert_int_equal(reply.size, strlen("$100000\r\n") + LARGE + 2);
    assert_memory_equal(reply.data + strlen("$100000\r\n"), value.data, value.size);
}

/* In the end there are so many files. */
static void expect_files(struct node_fixture *fixture, struct peer *peer, const char *count)
{
    (void)fixture;
    for (unsigned i = 0; i < 100 && strcmp(peer_info(peer, "persistence", "large_values"), count) != 0; i++)
        fixture_steps(200);
    assert_string_equal(peer_info(peer, "persistence", "large_values"), count);
}

static void test_transaction__large_values(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        const struct config config = fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        const struct slice mset[] = {slice_text("MSET"),  slice_text("a"), large_value(1), slice_text("b"),
                                     slice_text("small"), slice_text("c"), large_value(2)};
        peer_ask(peer, mset, ARRAY_COUNT(mset));
        peer_expect(peer, "+OK\r\n");
        expect_large(peer, "a", 1);
        expect_get(peer, "b", "small");
        expect_large(peer, "c", 2);
        expect_files(&fixture, peer, "2");
        peer_say(peer, "RENAME", "a", "d", NULL);
        peer_expect(peer, "+OK\r\n");
        expect_get(peer, "a", NULL);
        expect_large(peer, "d", 1);
        peer_say(peer, "COPY", "c", "b", NULL);
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "COPY", "c", "b", "REPLACE", NULL);
        peer_expect(peer, ":1\r\n");
        expect_large(peer, "b", 2);
        expect_files(&fixture, peer, "3");
        peer_say(peer, "RENAME", "b", "c", NULL);
        peer_expect(peer, "+OK\r\n");
        const struct slice msetnx[] = {slice_text("MSETNX"), slice_text("d"), large_value(3), slice_text("e"),
                                       large_value(3)};
        peer_ask(peer, msetnx, ARRAY_COUNT(msetnx));
        peer_expect(peer, ":0\r\n");
        peer_say(peer, "DEL", "d", NULL);
        peer_expect(peer, ":1\r\n");
        peer_ask(peer, msetnx, ARRAY_COUNT(msetnx));
        peer_expect(peer, ":1\r\n");
        expect_files(&fixture, peer, "3");
        fixture_crash(&fixture, SIM_DROP_ALL);
        peer_free(peer);
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        expect_large(peer, "c", 2);
        expect_large(peer, "d", 3);
        expect_large(peer, "e", 3);
        peer_say(peer, "PEXPIRE", "e", "50", NULL);
        peer_expect(peer, ":1\r\n");
        peer_say(peer, "RENAME", "e", "f", NULL);
        peer_expect(peer, "+OK\r\n");
        peer_say(peer, "MSET", "c", "small", "d", "small", NULL);
        peer_expect(peer, "+OK\r\n");
        expect_files(&fixture, peer, "0");
        peer_say(peer, "DBSIZE", NULL);
        peer_expect(peer, ":2\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* All four keys get this number, in values of so many bytes. */
static void ask_for_four(struct peer *peer, unsigned number, size_t bytes)
{
    static char value[50000];
    memset(value, ' ', bytes);
    int digits = snprintf(value, bytes, "%u", number);
    value[digits] = ' ';
    const struct slice same = slice_make(value, bytes);
    const struct slice args[] = {
        slice_text("MSET"), slice_text("a"), same, slice_text("b"), same, slice_text("c"), same, slice_text("d"), same};
    peer_ask(peer, args, ARRAY_COUNT(args));
}

/* Acknowledged ones are there afterwards, and of the others all or nothing. */
static void test_transaction__power_loss(void **state)
{
    (void)state;
    unsigned some_acknowledged = 0, some_large = 0;
    for (unsigned seed = 0; seed < 80; seed++) {
        struct node_fixture fixture;
        const struct config config = fixture_create(&fixture, 300 + seed, 3);
        struct peer *peer = peer_open(&fixture);
        unsigned acknowledged = 0, asked = 0;
        bool large = seed % 2 == 1;
        for (; asked < (large ? 5 : 12); asked++)
            ask_for_four(peer, asked + 1, large ? 30000 + 5000 * (asked % 2) : 8);
        for (uint64_t steps = 100 + sim_random(1500); steps > 0 && sim_step(); steps--)
            ;
        while (peer_has_reply(peer)) {
            peer_expect(peer, "+OK\r\n");
            acknowledged++;
        }
        some_acknowledged += acknowledged > 0 && acknowledged < asked;
        fixture_crash(&fixture, sim_random(2) == 0 ? SIM_DROP_ALL : SIM_RANDOM);
        peer_free(peer);
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        static const char *const keys[] = {"a", "b", "c", "d"};
        static char first[64000];
        size_t first_bytes = 0;
        for (unsigned i = 0; i < 4; i++) {
            peer_say(peer, "GET", keys[i], NULL);
            struct slice reply = peer_reply(peer);
            if (i == 0) {
                memcpy(first, reply.data, reply.size);
                first_bytes = reply.size;
            }
            if (!slice_equal(reply, slice_make(first, first_bytes)))
                fail_msg("a part of one is there: %.20s and %.20s", first, (const char *)reply.data);
        }
        unsigned there = 0;
        if (first[1] != '-')
            there = (unsigned)strtoul((const char *)memchr(first, '\n', first_bytes) + 1, NULL, 10);
        assert_true(there >= acknowledged);
        peer_close(peer);
        fixture_end(&fixture);
        some_large += large && there > 0 && there < asked;
    }
    assert_true(some_acknowledged > 5 && some_large > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transaction__replies),
        cmocka_unit_test(test_transaction__an_expiry_goes_along),
        cmocka_unit_test(test_transaction__a_pipeline_keeps_its_order),
        cmocka_unit_test(test_transaction__the_same_keys_in_any_order),
        cmocka_unit_test(test_transaction__connections_that_end_in_the_middle),
        cmocka_unit_test(test_transaction__large_values),
        cmocka_unit_test(test_transaction__power_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
