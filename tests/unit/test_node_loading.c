/*
 * test_node_loading.c - what a node on the simulated machine does before its store is open, and on the way there.
 */
#include "node_fixture.h"

#include "node/command.h"

/* ---- answers --------------------------------------------------------------------------------------------------- */

#define LOADING "-LOADING kvs-node is loading"

static void expect_loading(struct peer *peer)
{
    peer_expect_prefix(peer, LOADING);
}

static bool reply_is(struct slice reply, const char *text)
{
    return slice_equal(reply, slice_text(text));
}

/* Those of the subcommand, if it is one. */
static unsigned flags_of(const struct command *command, const char *word)
{
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
        if (strcmp(sub->name, word) == 0)
            return sub->flags;
    }
    return command->flags;
}

/* Asks everything that can be asked and holds it against the table: what is marked is carried out. */
static void ask_every_command(struct node_fixture *fixture, struct peer *peer, bool loading)
{
    /* All but QUIT and SHUTDOWN. */
    static const char *const arguments[][4] = {
        {"acl", "whoami"},
        {"auth", "x"},
        {"reset"},
        {"bgsave"},
        {"client", "id"},
        {"command", "count"},
        {"config", "get", "port"},
        {"dbsize"},
        {"del", "k"},
        {"echo", "x"},
        {"exists", "k"},
        {"get", "k"},
        {"hello"},
        {"info"},
        {"kvs.durability"},
        {"keys", "*"},
        {"lastsave"},
        {"exec"},
        {"multi"},
        {"discard"},
        {"unwatch"},
        {"watch", "k"},
        {"mget", "k", "k"},
        {"ping"},
        {"randomkey"},
        {"scan", "0"},
        {"select", "0"},
        {"set", "k", "v"},
        {"unlink", "k"},
        {"expiretime", "k"},
        {"pexpiretime", "k"},
        {"psetex", "k", "1", "v"},
        {"pttl", "k"},
        {"setex", "k", "1", "v"},
        {"ttl", "k"},
        {"append", "k", "v"},
        {"bitcount", "k"},
        {"bitfield", "k"},
        {"bitfield_ro", "k"},
        {"bitop", "not", "k", "l"},
        {"bitpos", "k", "1"},
        {"decr", "k"},
        {"decrby", "k", "1"},
        {"delifeq", "k", "v"},
        {"dump", "k"},
        {"expire", "k", "1"},
        {"expireat", "k", "1"},
        {"flushall"},
        {"flushdb"},
        {"getbit", "k", "1"},
        {"getdel", "k"},
        {"getex", "k"},
        {"getrange", "k", "0", "1"},
        {"getset", "k", "v"},
        {"incr", "k"},
        {"incrby", "k", "1"},
        {"incrbyfloat", "k", "1"},
        {"memory", "usage", "k"},
        {"object", "encoding", "k"},
        {"persist", "k"},
        {"pexpire", "k", "1"},
        {"pexpireat", "k", "1"},
        {"restore", "k", "0", "v"},
        {"setbit", "k", "0", "1"},
        {"setnx", "k", "v"},
        {"setrange", "k", "0", "v"},
        {"strlen", "k"},
        {"substr", "k", "0", "1"},
        {"touch", "k"},
        {"type", "k"},
        {"copy", "k", "l"},
        {"mset", "k", "v"},
        {"msetnx", "k", "v"},
        {"rename", "k", "l"},
        {"renamenx", "k", "l"},
        {"debug", "help"},
        {"kvs.stats"},
        {"latency", "latest"},
        {"lcs", "k", "k"},
        {"monitor"},
        {"move", "k", "0"},
        {"save"},
        {"slowlog", "len"},
        {"swapdb", "0", "0"},
        {"time"},
        {"wait", "0", "0"},
        {"waitaof", "0", "0", "0"},
    };
    assert_int_equal(ARRAY_COUNT(arguments) + 2, command_table_count);
    unsigned marked = 0;
    for (size_t i = 0; i < ARRAY_COUNT(arguments); i++) {
        const char *const *words = arguments[i];
        const struct command *command = command_find(slice_text(words[0]));
        assert_non_null(command);
        bool carried_out = (flags_of(command, words[1]) & COMMAND_LOADING) != 0;
        marked += carried_out;
        if (strcmp(words[0], "monitor") == 0) { /* from then on there would be more than replies */
            struct peer *other = peer_open(fixture);
            peer_say(other, words[0], NULL);
            peer_expect(other, "+OK\r\n");
            peer_close(other);
            continue;
        }
        peer_say(peer, words[0], words[1], words[2], words[3], NULL);
        struct slice reply = peer_reply(peer);
        bool told = reply.size > strlen(LOADING) && memcmp(reply.data, LOADING, strlen(LOADING)) == 0;
        if (told != (loading && !carried_out))
            fail_msg("%s: %.*s", words[0], (int)reply.size, (const char *)reply.data);
    }
    assert_int_equal(marked, 23);
}

static void test_loading__commands_are_carried_out_or_told_to_wait(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        (void)fixture_create_loading(&fixture, threads, threads);
        assert_int_equal(fixture.status, NODE_LOADING);
        struct peer *peer = peer_open(&fixture);
        ask_every_command(&fixture, peer, true);
        /* Refusals that need no store come first, as in Redis. */
        peer_say(peer, "nonesuch", NULL);
        peer_expect_prefix(peer, "-ERR unknown command");
        peer_say(peer, "GET", NULL);
        peer_expect_prefix(peer, "-ERR wrong number of arguments");
        peer_say(peer, "CLIENT", "nonesuch", NULL);
        peer_expect_prefix(peer, "-ERR unknown subcommand");
        peer_say(peer, "CLIENT", NULL);
        peer_expect_prefix(peer, "-ERR wrong number of arguments");

        fixture_load(&fixture);
        assert_int_equal(fixture.status, NODE_SERVING);
        peer_say(peer, "EXISTS", "k", NULL); /* the SET that was told to wait has not happened */
        peer_expect(peer, ":0\r\n");
        ask_every_command(&fixture, peer, false);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_loading__frames_are_carried_out_or_told_to_wait(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create_loading(&fixture, 1, 2);
    struct peer *peer = peer_open(&fixture);
    const struct frame_hello hello = peer_say_hello(peer);
    assert_true(hello.value_bytes_max > 0 && hello.value_bytes_max == fixture.node->value_bytes_max);
    static const uint8_t waiting[] = {FRAME_PING, FRAME_GET, FRAME_SET, FRAME_REMOVE, FRAME_BACKUP};
    for (size_t i = 0; i < sizeof(waiting); i++) {
        struct frame frame = peer_ask_frame(peer, waiting[i], "key", "value");
        assert_int_equal(frame.header.status, FRAME_LOADING);
        assert_int_equal(memcmp(frame.value.data, "kvs-node is loading", 19), 0);
    }
    const struct frame frame = peer_ask_frame(peer, FRAME_STATS, "persistence", "");
    assert_int_equal(frame.header.status, FRAME_OK);
    assert_non_null(memmem(frame.value.data, frame.value.size, "loading:1\r\n", 11));

    fixture_load(&fixture);
    assert_int_equal(hello.value_bytes_max, engine_value_bytes_max(fixture.node->engine));
    assert_int_equal(peer_ask_frame(peer, FRAME_GET, "key", "").header.status, FRAME_NOT_FOUND);
    assert_int_equal(peer_ask_frame(peer, FRAME_SET, "key", "value").header.status, FRAME_OK);
    peer_close(peer);
    fixture_end(&fixture);
}

static bool has(struct slice text, const char *part)
{
    return memmem(text.data, text.size, part, strlen(part)) != NULL;
}

static void test_loading__info_tells_how_far_it_is(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create_loading(&fixture, 1, 3);
    struct peer *peer = peer_open(&fixture);
    peer_say(peer, "INFO", "everything", NULL);
    struct slice info = peer_reply(peer);
    assert_true(has(info, "\r\nloading:1\r\n") && has(info, "\r\nloading_loaded_bytes:0\r\n"));
    assert_true(has(info, "\r\nloading_loaded_perc:0.00\r\n") && has(info, "\r\nloading_eta_seconds:1\r\n"));
    assert_true(has(info, "\r\nloading_start_time:176722560") && has(info, "\r\nshard2:"));

    fixture.node->progress.bytes_total = 8000;
    fixture.node->progress.bytes_done = 2500;
    sim_advance(fixture.node->started_ns + 10000000000 - ring_now_ns(fixture.main_ring));
    peer_say(peer, "INFO", "persistence", NULL);
    info = peer_reply(peer);
    assert_true(has(info, "\r\nloading_total_bytes:8000\r\n") && has(info, "\r\nloading_loaded_bytes:2500\r\n"));
    assert_true(has(info, "\r\nloading_loaded_perc:31.25\r\n") && has(info, "\r\nloading_eta_seconds:23\r\n"));
    peer_say(peer, "GET", "key", NULL);
    peer_expect_prefix(peer, "-LOADING kvs-node is loading its data, 31 % done");

    fixture_load(&fixture);
    peer_say(peer, "INFO", "everything", NULL);
    info = peer_reply(peer);
    assert_true(has(info, "\r\nloading:0\r\n") && !has(info, "loading_"));
    peer_close(peer);
    fixture_end(&fixture);
}

/* ---- from loading to serving ----------------------------------------------------------------------------------- */

#define WRITES 400u

/* Writes before, during and after the load, on two connections: each is refused and never happens, or acknowledged. */
static void test_loading__a_write_is_refused_or_done(void **state)
{
    (void)state;
    unsigned refused = 0, done = 0;
    for (unsigned seed = 1; seed <= 40; seed++) {
        struct node_fixture fixture;
        (void)fixture_create_loading(&fixture, seed, 1 + seed % 4);
        struct peer *peers[2] = {peer_open(&fixture), peer_open(&fixture)};
        bool written[WRITES];
        for (unsigned i = 0; i < WRITES; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            peer_say(peers[i % 2], "SET", key, "1", NULL);
            if (i == WRITES / 4) {
                fixture_steps(sim_random(201));
                fixture_begin_load(&fixture);
            }
            if (i >= WRITES / 4)
                fixture_steps(sim_random(11));
        }
        for (unsigned i = 0; i < WRITES; i++) {
            struct slice reply = peer_reply(peers[i % 2]);
            written[i] = reply_is(reply, "+OK\r\n");
            assert_true(written[i] || memcmp(reply.data, LOADING, strlen(LOADING)) == 0);
            *(written[i] ? &done : &refused) += 1;
        }
        assert_true(sim_run_until(fixture_started, &fixture, NODE_STEPS_MAX));
        assert_int_equal(fixture.status, NODE_SERVING);
        for (unsigned i = 0; i < WRITES; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            peer_say(peers[0], "EXISTS", key, NULL);
            peer_expect(peers[0], written[i] ? ":1\r\n" : ":0\r\n");
        }
        peer_close(peers[0]);
        peer_close(peers[1]);
        fixture_end(&fixture);
    }
    assert_true(refused > 40 * WRITES / 8 && done > 40 * WRITES / 8);
}

/* ---- ends before it serves ------------------------------------------------------------------------------------- */

static void fill(struct node_fixture *fixture, const struct config *config)
{
    fixture_start(fixture, config);
    struct peer *peer = peer_open(fixture);
    peer_set_keys(peer, 100);
    for (unsigned i = 0; i < 100; i++)
        peer_expect(peer, "+OK\r\n");
    peer_close(peer);
    fixture_stop(fixture, false);
}

/* `served`: what was asked on the way may have been done. */
static void expect_filled(struct node_fixture *fixture, const struct config *config, bool served)
{
    fixture_start(fixture, config);
    struct peer *peer = peer_open(fixture);
    peer_expect_keys(peer, 100);
    peer_say(peer, "EXISTS", "never", NULL);
    struct slice reply = peer_reply(peer);
    assert_true(served || reply_is(reply, ":0\r\n"));
    peer_close(peer);
    fixture_stop(fixture, false);
}

/* A node on the way to serving, somewhere, with connections that ask; `loaded` tells whether its store is open. */
static void get_somewhere(struct node_fixture *fixture, const struct config *config, struct peer *peers[2],
                          bool *loaded)
{
    fixture_open(fixture, config);
    peers[0] = peer_open(fixture);
    peers[1] = peer_open(fixture); /* idle */
    assert_true(sim_run_until(peer_is_connected, peers[0], NODE_STEPS_MAX));
    assert_true(sim_run_until(peer_is_connected, peers[1], NODE_STEPS_MAX));
    for (unsigned i = 0; i < 20; i++)
        peer_say(peers[0], "SET", "never", "written", NULL);
    fixture_steps(sim_random(61));
    *loaded = sim_random(3) > 0;
    if (!*loaded)
        return;
    fixture_begin_load(fixture);
    fixture_steps(sim_random(41));
}

/* What the engine's background begins may wait for every shard: so if one has an engine, all have had it. */
static void expect_all_or_none_attached(const struct node *node)
{
    for (unsigned i = 0; i < node->shard_count; i++)
        assert_int_equal(node->shards[i].engine != NULL, node->background.engine != NULL);
}

static void test_loading__a_stop_on_the_way_to_serving_is_orderly(void **state)
{
    (void)state;
    unsigned stopped[NODE_SERVING + 1] = {0}, attached = 0;
    for (unsigned seed = 1; seed <= 150; seed++) {
        struct node_fixture fixture;
        struct config config = fixture_config(1 + seed % 4);
        struct peer *peers[2];
        bool loaded;
        fixture_machine(seed);
        fill(&fixture, &config);
        get_somewhere(&fixture, &config, peers, &loaded);
        bool serving = node_is_open(fixture.node);
        stopped[fixture.status]++;
        attached += loaded && !serving && fixture.node->shards[0].engine != NULL;
        uint64_t before_ns = ring_now_ns(fixture.main_ring);
        fixture_stop_threads(&fixture, false);
        assert_true(ring_now_ns(fixture.main_ring) - before_ns < 1000000000);
        expect_all_or_none_attached(fixture.node);
        for (unsigned i = 0; i < 2; i++) {
            peer_expect_end(peers[i]);
            peer_close(peers[i]);
        }
        fixture_free(&fixture);
        expect_filled(&fixture, &config, serving);
        fixture_machine_end();
    }
    assert_true(stopped[NODE_LOADING] > 50 && attached > 10);
}

static void test_loading__a_crash_on_the_way_to_serving_loses_nothing(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 100; seed++) {
        struct node_fixture fixture;
        struct config config = fixture_config(1 + seed % 4);
        struct peer *peers[2];
        bool loaded;
        fixture_machine(seed);
        fill(&fixture, &config);
        bool served = false;
        for (unsigned crashes = 0; crashes < 3; crashes++) {
            get_somewhere(&fixture, &config, peers, &loaded);
            served |= node_is_open(fixture.node);
            fixture_crash(&fixture, seed % 3 == 0 ? SIM_DROP_ALL : SIM_RANDOM);
            peer_free(peers[0]);
            peer_free(peers[1]);
            config = fixture_config(1 + (unsigned)sim_random(4));
        }
        expect_filled(&fixture, &config, served);
        fixture_machine_end();
    }
}

static void test_loading__a_store_that_cannot_be_opened_ends_the_node(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        struct config config = fixture_config(threads);
        fixture_machine(threads);
        fill(&fixture, &config);
        config.memory_bytes = (uint64_t)threads * NODE_SEGMENT_BYTES;
        fixture_open(&fixture, &config);
        struct peer *idle = peer_open(&fixture), *peer = peer_open(&fixture);
        peer_say(peer, "GET", "key1", NULL);
        expect_loading(peer);
        peer_say(peer, "GET", "key1", NULL);
        uint64_t before_ns = ring_now_ns(fixture.main_ring);
        fixture_load(&fixture);
        assert_int_equal(fixture.status, NODE_BROKEN);
        assert_true(ring_now_ns(fixture.main_ring) - before_ns < 1000000000);
        assert_int_equal(node_error(fixture.node), KVS_ERR_INVALID);
        static const char begin[] = "cannot open the store in /data: a memory budget of ";
        assert_memory_equal(node_message(fixture.node), begin, strlen(begin));
        assert_true(sim_run_until(fixture_ended, &fixture, NODE_STEPS_MAX));
        peer_expect_end(peer);
        peer_expect_end(idle);
        peer_close(peer);
        peer_close(idle);
        fixture_free(&fixture);

        config = fixture_config(threads);
        expect_filled(&fixture, &config, false);
        fixture_machine_end();
    }
}

/* No thread for it, say. */
static void test_loading__that_cannot_be_begun_ends_the_node(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_create_loading(&fixture, 1, 2);
    node_load_refused(fixture.node, KVS_ERR_SYSTEM, "no thread for it");
    assert_true(sim_run_until(fixture_started, &fixture, NODE_STEPS_MAX));
    assert_int_equal(fixture.status, NODE_BROKEN);
    assert_int_equal(node_error(fixture.node), KVS_ERR_SYSTEM);
    assert_string_equal(node_message(fixture.node), "cannot open the store in /data: no thread for it");
    assert_true(sim_run_until(fixture_ended, &fixture, NODE_STEPS_MAX));
    fixture_free(&fixture);
    fixture_start(&fixture, &config); /* the directory was given back */
    fixture_end(&fixture);
}

static void test_loading__a_directory_in_use_is_refused_before(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(1);
    struct node *second = NULL;
    char message[NODE_MESSAGE_BYTES];
    fixture_machine(1);
    fixture_open(&fixture, &config); /* the first has locked it, though it has not opened the store */
    assert_int_equal(node_create(&second, &config, fixture.peer_ring, message), KVS_ERR_LOCKED);
    assert_non_null(strstr(message, "in use by another process"));
    fixture_load(&fixture);
    assert_int_equal(fixture.status, NODE_SERVING);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading__commands_are_carried_out_or_told_to_wait),
        cmocka_unit_test(test_loading__frames_are_carried_out_or_told_to_wait),
        cmocka_unit_test(test_loading__info_tells_how_far_it_is),
        cmocka_unit_test(test_loading__a_write_is_refused_or_done),
        cmocka_unit_test(test_loading__a_stop_on_the_way_to_serving_is_orderly),
        cmocka_unit_test(test_loading__a_crash_on_the_way_to_serving_loses_nothing),
        cmocka_unit_test(test_loading__a_store_that_cannot_be_opened_ends_the_node),
        cmocka_unit_test(test_loading__that_cannot_be_begun_ends_the_node),
        cmocka_unit_test(test_loading__a_directory_in_use_is_refused_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
