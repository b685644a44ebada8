/*
 * test_node.c - a whole node on the simulated machine: requests over all shards, order, durability, failures, stops.
 */
#include "node_fixture.h"

#include <errno.h>

#define KEYS  24u
#define PEERS 3u

/* ---- serving --------------------------------------------------------------------------------------------------- */

static void test_node__serves_keys_of_all_shards(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        for (unsigned i = 0; i < 50; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            peer_say(peer, "SET", key, key, NULL);
            peer_say(peer, "GET", key, NULL);
            peer_say(peer, "DEL", key, "none", key, NULL);
            peer_say(peer, "GET", key, NULL);
        }
        for (unsigned i = 0; i < 50; i++) {
            char value[32];
            snprintf(value, sizeof(value), "$%d\r\nkey%u\r\n", i < 10 ? 4 : 5, i);
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, value);
            peer_expect(peer, ":1\r\n");
            peer_expect(peer, "$-1\r\n");
        }
        struct shard_counters *counters = &fixture.node->shards[0].counters;
        for (unsigned i = 0; threads > 1 && i < threads; i++)
            assert_true(fixture.node->shards[i].counters.sent + fixture.node->shards[i].counters.received > 0);
        assert_true(threads > 1 || counters->sent == 0);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* What one peer knows of its keys: a number for each, 0 = not there. */
struct book {
    unsigned values[KEYS];
    unsigned last;
};

static void key_name(char out[16], unsigned peer, unsigned key)
{
    snprintf(out, 16, "p%u.k%u", peer, key);
}

/* Asks for something by chance, changes the book, and writes the reply that must come. */
static void ask_by_chance(struct peer *peer, unsigned number, struct book *book, char *expected, size_t size)
{
    unsigned key = (unsigned)sim_random(KEYS), other = (unsigned)sim_random(KEYS);
    char name[16], other_name[16], value[16];
    key_name(name, number, key);
    key_name(other_name, number, other);
    switch (sim_random(7)) {
    case 5: /* what was asked before counts, what comes next does not */
        peer_say(peer, "KEYS", name, NULL);
        snprintf(expected, size, book->values[key] != 0 ? "*1\r\n$%zu\r\n%s\r\n" : "*0\r\n", strlen(name), name);
        break;
    case 6:
        peer_say(peer, "SCAN", "0", "COUNT", "10000", "MATCH", name, NULL);
        snprintf(expected, size,
                 book->values[key] != 0 ? "*2\r\n$1\r\n0\r\n*1\r\n$%zu\r\n%s\r\n" : "*2\r\n$1\r\n0\r\n*0\r\n",
                 strlen(name), name);
        break;
    case 0:
    case 1:
        book->values[key] = ++book->last;
        snprintf(value, sizeof(value), "%07u", book->last);
        peer_say(peer, "SET", name, value, NULL);
        snprintf(expected, size, "+OK\r\n");
        break;
    case 2: {
        int count = (book->values[key] != 0) + (other != key && book->values[other] != 0);
        book->values[key] = book->values[other] = 0;
        peer_say(peer, "DEL", name, other_name, NULL);
        snprintf(expected, size, ":%d\r\n", count);
        break;
    }
    case 3:
        peer_say(peer, "EXISTS", name, other_name, name, NULL);
        snprintf(expected, size, ":%d\r\n", 2 * (book->values[key] != 0) + (book->values[other] != 0));
        break;
    default: {
        char shown[2][32];
        const unsigned keys[2] = {key, other};
        for (unsigned i = 0; i < 2; i++) {
            if (book->values[keys[i]] != 0)
                snprintf(shown[i], sizeof(shown[i]), "$7\r\n%07u\r\n", book->values[keys[i]]);
            else
                snprintf(shown[i], sizeof(shown[i]), "$-1\r\n");
        }
        peer_say(peer, "MGET", name, other_name, NULL);
        snprintf(expected, size, "*2\r\n%s%s", shown[0], shown[1]);
        break;
    }
    }
}

static void test_node__pipelines_agree_with_a_model(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        struct node_fixture fixture;
        struct config config = fixture_config(1 + seed % 4);
        fixture_machine(seed);
        sim_set_short(10);
        sim_set_interrupted(10);
        fixture_start(&fixture, &config);
        struct peer *peers[PEERS];
        struct book books[PEERS] = {0};
        static char expected[PEERS][64][80];
        for (unsigned i = 0; i < PEERS; i++)
            peers[i] = peer_open(&fixture);
        for (unsigned round = 0; round < 6; round++) {
            unsigned depth = 1 + (unsigned)sim_random(64);
            for (unsigned i = 0; i < PEERS; i++) {
                for (unsigned j = 0; j < depth; j++)
                    ask_by_chance(peers[i], i, &books[i], expected[i][j], sizeof(expected[i][j]));
            }
            for (unsigned i = 0; i < PEERS; i++) {
                for (unsigned j = 0; j < depth; j++)
                    peer_expect(peers[i], expected[i][j]);
            }
        }
        for (unsigned i = 0; i < PEERS; i++)
            peer_close(peers[i]);
        fixture_stop(&fixture, seed % 2 == 0);
        fixture_machine_end();
    }
}

/* ---- the binary protocol --------------------------------------------------------------------------------------- */

static void test_node__speaks_frames(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        assert_int_equal(peer_say_hello(peer).shard_count, threads);
        for (unsigned i = 0; i < 20; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            assert_int_equal(peer_ask_frame(peer, FRAME_GET, key, "").header.status, FRAME_NOT_FOUND);
            assert_int_equal(peer_ask_frame(peer, FRAME_REMOVE, key, "").header.status, FRAME_NOT_FOUND);
            struct frame frame = peer_ask_frame(peer, FRAME_SET, key, "value");
            assert_int_equal(frame.header.status, FRAME_OK);
            assert_int_equal(frame.value.size, 0);
            frame = peer_ask_frame(peer, FRAME_GET, key, "");
            assert_int_equal(frame.header.status, FRAME_OK);
            assert_true(slice_equal(frame.value, slice_text("value")));
            assert_int_equal(peer_ask_frame(peer, FRAME_REMOVE, key, "").header.status, FRAME_OK);
        }
        assert_true(slice_equal(peer_ask_frame(peer, FRAME_PING, "", "hello").value, slice_text("hello")));
        struct frame frame = peer_ask_frame(peer, FRAME_STATS, "", "");
        assert_non_null(memmem(frame.value.data, frame.value.size, "keyspace_misses:20", 18));
        frame = peer_ask_frame(peer, FRAME_STATS, "keyspace", "");
        assert_true(slice_equal(frame.value, slice_text("# Keyspace\r\n")));
        assert_int_equal(peer_ask_frame(peer, 77, "", "").header.status, FRAME_BAD_REQUEST);
        peer_expect_end(peer);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* ---- durability ------------------------------------------------------------------------------------------------ */

/* Every SET that was acknowledged when the power failed is there after it, with any number of shards. */
static void test_node__acknowledged_writes_survive_a_crash(void **state)
{
    (void)state;
    size_t total = 0;
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct node_fixture fixture;
        struct config config = fixture_create(&fixture, seed, 1 + (unsigned)(seed % 4));
        struct peer *peer = peer_open(&fixture);
        peer_set_keys(peer, 200);
        fixture_steps(1 + sim_random(600));
        size_t acknowledged = peer->in_size / 5;
        total += acknowledged;
        fixture_crash(&fixture, seed % 3 == 0 ? SIM_DROP_ALL : SIM_RANDOM);
        peer_free(peer);

        config = fixture_config(1 + (unsigned)sim_random(4));
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        peer_expect_keys(peer, (unsigned)acknowledged);
        peer_close(peer);
        fixture_end(&fixture);
    }
    assert_true(total > 1000 && total < 60 * 200); /* crashes in the middle, not before or after everything */
}

/* Writes until the records before have left the RAM. */
static void push_out(struct peer *peer)
{
    static uint8_t value[4000];
    for (unsigned i = 0; i < 1200; i += 100) {
        for (unsigned j = i; j < i + 100; j++) {
            char key[16];
            snprintf(key, sizeof(key), "filler%u", j);
            peer_ask(peer, (struct slice[]){slice_text("SET"), slice_text(key), slice_make(value, sizeof(value))}, 3);
        }
        for (unsigned j = i; j < i + 100; j++)
            peer_expect(peer, "+OK\r\n");
    }
}

/* One crash among DELs of several keys; returns how many were acknowledged: what they named does not come back. */
static size_t crash_among_deletes(unsigned seed, bool cold)
{
    struct node_fixture fixture;
    struct config config = fixture_config(1 + (unsigned)(seed % 4));
    char names[90][16];
    fixture_machine(seed);
    fixture_start(&fixture, &config);
    struct peer *peer = peer_open(&fixture);
    for (unsigned i = 0; i < 90; i++) {
        snprintf(names[i], sizeof(names[i]), "key%u", i);
        peer_say(peer, "SET", names[i], "1", NULL);
    }
    for (unsigned i = 0; i < 90; i++)
        peer_expect(peer, "+OK\r\n");
    for (unsigned i = 0; cold && i < config.threads; i++)
        push_out(peer);
    size_t before = peer->in_size;
    for (unsigned i = 0; i < 90; i += 3)
        peer_say(peer, "DEL", names[i], names[i + 1], names[i + 2], NULL);
    fixture_steps(1 + sim_random(cold ? 1000 : 200));
    size_t acknowledged = (peer->in_size - before) / 4;
    fixture_crash(&fixture, seed % 3 != 0 ? SIM_DROP_ALL : SIM_RANDOM);
    peer_free(peer);

    fixture_start(&fixture, &config);
    peer = peer_open(&fixture);
    for (unsigned i = 0; i < 90; i++) {
        peer_say(peer, "EXISTS", names[i], NULL);
        struct slice reply = peer_reply(peer);
        assert_true(i >= 3 * acknowledged || slice_equal(reply, slice_text(":0\r\n")));
    }
    peer_close(peer);
    fixture_end(&fixture);
    return acknowledged;
}

static void test_node__acknowledged_deletes_survive_a_crash(void **state)
{
    (void)state;
    size_t total = 0;
    for (unsigned seed = 1; seed <= 60; seed++)
        total += crash_among_deletes(seed, false);
    assert_true(total > 100 && total < 60 * 30);
}

static void test_node__deletes_that_waited_for_the_disk_survive_a_crash(void **state)
{
    (void)state;
    size_t total = 0;
    for (unsigned seed = 1; seed <= 24; seed++)
        total += crash_among_deletes(seed, true);
    assert_true(total > 40 && total < 24 * 30);
}

/* A disk that no longer takes writes: errors that say so, for keys of this shard and of others, and reads go on. */
static void test_node__a_failed_write_becomes_an_error(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 30; seed++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, seed, 1 + seed % 3);
        struct peer *peer = peer_open(&fixture);
        for (unsigned i = 0; i < 10; i++) {
            char key[16];
            snprintf(key, sizeof(key), "old%u", i);
            peer_say(peer, "SET", key, "1", NULL);
            peer_expect(peer, "+OK\r\n");
        }
        for (uint64_t nth = 1; nth <= 16; nth++) /* more than enough for every shard's next write */
            sim_fail(RING_KIND_WRITE, nth, EIO);
        for (unsigned i = 0; i < 40; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            peer_say(peer, "SET", key, "1", NULL);
        }
        for (unsigned i = 0; i < 40; i++)
            peer_expect_prefix(peer, "-MISCONF kvs-node: shard ");
        for (unsigned i = 0; i < 10; i++) {
            char key[16];
            snprintf(key, sizeof(key), "old%u", i);
            peer_say(peer, "GET", key, NULL);
            peer_expect(peer, "$1\r\n1\r\n");
            peer_say(peer, "DEL", key, "none", NULL);
            peer_expect_prefix(peer, "-MISCONF kvs-node: shard ");
        }
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* ---- starting and stopping ------------------------------------------------------------------------------------- */

static void test_node__stop_answers_what_was_asked(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        struct node_fixture fixture;
        struct config config = fixture_create(&fixture, seed, 1 + seed % 4);
        struct peer *idle = peer_open(&fixture), *peer = peer_open(&fixture);
        peer_say(peer, "PING", NULL);
        peer_expect(peer, "+PONG\r\n");
        peer_set_keys(peer, 100);
        fixture_steps(sim_random(300));
        fixture_stop_threads(&fixture, seed % 2 == 0);
        peer_expect_end(peer);
        peer_expect_end(idle);
        size_t acknowledged = (peer->in_size - 7) / 5;
        peer_close(peer);
        peer_close(idle);
        fixture_free(&fixture);

        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        peer_expect_keys(peer, (unsigned)acknowledged);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_node__an_address_in_use_ends_the_start(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(2);
    struct ring *other = NULL;
    char message[RING_MESSAGE_BYTES];
    int fd;
    fixture_machine(1);
    config.unix_path = "/run/kvs.sock";
    assert_int_equal(ring_addr_unix(config.unix_path, &config.unix_addr), KVS_ERR_OK);
    assert_int_equal(ring_open(&other, &(struct ring_options){.entries = 8}, message), KVS_ERR_OK);
    assert_int_equal(ring_listen(other, &config.unix_addr, &fd), KVS_ERR_OK);
    memset(&fixture, 0, sizeof(fixture));
    assert_int_equal(ring_open(&fixture.main_ring, &(struct ring_options){.entries = 64}, message), KVS_ERR_OK);
    assert_int_equal(node_create(&fixture.node, &config, fixture.main_ring, fixture.message), KVS_ERR_ADDRESS_IN_USE);
    assert_string_equal(
        fixture.message,
        "cannot listen on unix:/run/kvs.sock: address already in use; another server listens there: stop it, "
        "or choose another address with --addr or --unix");
    ring_close(fixture.main_ring);
    ring_close(other);
    fixture_machine_end();
}

static void test_node__one_client_too_many_is_told_so(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(2);
    config.max_clients = 2;
    fixture_machine(1);
    fixture_start(&fixture, &config);
    struct peer *peers[3];
    for (unsigned i = 0; i < 3; i++) {
        peers[i] = peer_open(&fixture);
        peer_say(peers[i], "PING", NULL);
        peer_expect(peers[i], i < 2 ? "+PONG\r\n" : "-ERR max number of clients reached\r\n");
    }
    peer_expect_end(peers[2]);
    for (unsigned i = 0; i < 3; i++)
        peer_close(peers[i]);
    fixture_end(&fixture);
}

static void test_node__bounds_reach_the_connections(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(2);
    config.memory_bytes = 32 << 20;
    config.bounds.given[BOUND_PIPELINE] = 3;
    config.bounds.given[BOUND_TURN] = 5;
    config.bounds.given[BOUND_SEND_TIMEOUT_S] = 7;
    config.bounds.given[BOUND_REQUEST_BYTES] = 3 << 20;
    config.bounds.given[BOUND_OUTPUT_BYTES] = 20000;
    config.bounds.given[BOUND_CLIENTS_MEMORY_BYTES] = 2 << 20;
    config.bounds.given[BOUND_ARGS] = 16;
    fixture_machine(1);
    fixture_start(&fixture, &config);
    const struct net_options *options = &fixture.node->net_options;
    assert_int_equal(options->requests_max, 3);
    assert_int_equal(options->hello.requests_max, 3);
    assert_int_equal(options->turn_requests_max, 5);
    assert_int_equal(options->send_timeout_ms, 7000);
    assert_int_equal(options->request_bytes_max, 3 << 20);
    assert_int_equal(options->output_bytes_max, 20000);
    assert_int_equal(options->memory_max, 1 << 20);
    assert_int_equal(options->resp.args_max, 16);
    struct peer *peer = peer_open(&fixture);
    peer_say(peer, "SET", "k", "v", NULL);
    for (unsigned i = 0; i < 20; i++)
        peer_say(peer, "GET", "k", NULL);
    peer_expect(peer, "+OK\r\n");
    for (unsigned i = 0; i < 20; i++)
        peer_expect(peer, "$1\r\nv\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node__serves_keys_of_all_shards),
        cmocka_unit_test(test_node__pipelines_agree_with_a_model),
        cmocka_unit_test(test_node__speaks_frames),
        cmocka_unit_test(test_node__acknowledged_writes_survive_a_crash),
        cmocka_unit_test(test_node__acknowledged_deletes_survive_a_crash),
        cmocka_unit_test(test_node__deletes_that_waited_for_the_disk_survive_a_crash),
        cmocka_unit_test(test_node__a_failed_write_becomes_an_error),
        cmocka_unit_test(test_node__stop_answers_what_was_asked),
        cmocka_unit_test(test_node__an_address_in_use_ends_the_start),
        cmocka_unit_test(test_node__one_client_too_many_is_told_so),
        cmocka_unit_test(test_node__bounds_reach_the_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
