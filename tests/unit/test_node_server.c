/*
 * test_node_server.c - commands about the node itself, on the simulated machine: what it costs, what may be changed,
 * who watches, who waits, and how it ends.
 */
#include "node_fixture.h"

#include "base/array.h"

static void ask(struct peer *peer, const char *expected, const char *a, const char *b, const char *c, const char *d)
{
    peer_say(peer, a, b, c, d, NULL);
    peer_expect(peer, expected);
}

/* The rest of a line of INFO, as a number behind `name`. */
static long long figure(struct peer *peer, const char *section, const char *field, const char *name)
{
    const char *line = peer_info(peer, section, field);
    if (line == NULL)
        return -1;
    const char *at = strstr(line, name);
    assert_non_null(at);
    return strtoll(at + strlen(name), NULL, 10);
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

static void test_server__commands_are_counted_by_name_and_a_reset_forgets_them(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, threads, threads);
        struct peer *peers[3] = {peer_open(&fixture), peer_open(&fixture), peer_open(&fixture)};
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
            peer_set_keys(peers[i], 10);
            for (unsigned j = 0; j < 10; j++)
                peer_expect(peers[i], "+OK\r\n");
            peer_expect_keys(peers[i], 7);
            ask(peers[i], ":0\r\n", "EXISTS", "nonesuch", NULL, NULL);
            peer_say(peers[i], "CONFIG", "GET", "port", NULL);
            (void)peer_reply(peers[i]);
            peer_say(peers[i], "INCR", "key1", NULL);
            peer_expect_prefix(peers[i], "-ERR value is not an integer");
            peer_say(peers[i], "INCR", NULL);
            peer_expect_prefix(peers[i], "-ERR wrong number");
        }
        struct peer *peer = peers[0];
        assert_int_equal(figure(peer, "commandstats", "cmdstat_set", "calls="), 30);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_get", "calls="), 21);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_exists", "calls="), 3);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_config|get", "calls="), 3);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_incr", "calls="), 3);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_incr", "rejected_calls="), 3);
        assert_int_equal(figure(peer, "errorstats", "errorstat_ERR", "count="), 6);
        assert_int_equal(figure(peer, "stats", "total_error_replies", ""), 6);
        assert_null(peer_info(peer, "commandstats", "cmdstat_append"));
        assert_non_null(peer_info(peer, "latencystats", "latency_percentiles_usec_get"));

        ask(peer, "+OK\r\n", "CONFIG", "RESETSTAT", NULL, NULL);
        assert_null(peer_info(peer, "commandstats", "cmdstat_set"));
        assert_null(peer_info(peer, "errorstats", "errorstat_ERR"));
        assert_int_equal(figure(peer, "stats", "total_error_replies", ""), 0);
        ask(peer, ":1\r\n", "EXISTS", "key1", NULL, NULL);
        assert_int_equal(figure(peer, "commandstats", "cmdstat_exists", "calls="), 1);
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
            peer_close(peers[i]);
        fixture_end(&fixture);
    }
}

static void test_server__failures_of_a_pipeline_are_its_commands_own(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 1, 1);
    struct peer *peer = peer_open(&fixture);
    for (unsigned i = 0; i < 20; i++) {
        peer_say(peer, "GET", "a", NULL);
        peer_say(peer, "SET", "a", "x", NULL);
        peer_say(peer, "INCR", "a", NULL);
    }
    for (unsigned i = 0; i < 60; i++)
        (void)peer_reply(peer);
    assert_int_equal(figure(peer, "commandstats", "cmdstat_incr", "failed_calls="), 20);
    assert_int_equal(figure(peer, "commandstats", "cmdstat_get", "failed_calls="), 0);
    assert_int_equal(figure(peer, "commandstats", "cmdstat_set", "calls="), 20);
    assert_int_equal(figure(peer, "commandstats", "cmdstat_set", "failed_calls="), 0);
    peer_close(peer);
    fixture_end(&fixture);
}

/* ---- SLOWLOG --------------------------------------------------------------------------------------------------- */

static bool shows(struct slice reply, const char *text)
{
    return memmem(reply.data, reply.size, text, strlen(text)) != NULL;
}

static void test_server__slowlog_shows_all_below_its_bound_but_no_passwords(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 3, 2);
    struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
    ask(peer, "+OK\r\n", "SET", "a", "before", NULL);
    ask(peer, ":0\r\n", "SLOWLOG", "LEN", NULL, NULL); /* time stands still in a turn: nothing is slow */
    ask(peer, "+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "0");
    ask(peer, "+OK\r\n", "CONFIG", "SET", "slowlog-max-len", "6");
    ask(peer, "+OK\r\n", "SLOWLOG", "RESET", NULL, NULL);
    char *large = calloc(1, 300001);
    assert_non_null(large);
    memset(large, 'x', 300000);
    ask(peer, "+OK\r\n", "CLIENT", "SETNAME", "me", NULL);
    ask(peer, "+OK\r\n", "SET", "a", large, NULL);
    free(large);
    peer_say(peer, "AUTH", "secret1", NULL);
    (void)peer_reply(peer);
    peer_say(peer, "HELLO", "3", "AUTH", "bob", "secret2", NULL);
    (void)peer_reply(peer);
    peer_say(peer, "ACL", "SETUSER", "bob", ">secret3", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "SLOWLOG", "GET", "-1", NULL);
    struct slice reply = peer_reply(peer);
    assert_true(shows(reply, "*6\r\n*6\r\n"));
    assert_true(shows(reply, "x... (299872 more bytes)\r\n") && shows(reply, "$2\r\nme\r\n"));
    assert_true(shows(reply, "(redacted)") && shows(reply, "AUTH\r\n$10\r\n(redacted)\r\n"));
    assert_true(!shows(reply, "secret") && !shows(reply, "bob") && !shows(reply, "before"));
    ask(other, "+OK\r\n", "SET", "a", "b", NULL); /* of another shard, perhaps */
    ask(peer, ":6\r\n", "SLOWLOG", "LEN", NULL, NULL);
    peer_say(peer, "SLOWLOG", "GET", "2", NULL);
    reply = peer_reply(peer);
    assert_true(shows(reply, "*2\r\n*6\r\n"));
    ask(peer, "+OK\r\n", "CONFIG", "SET", "slowlog-max-len", "0");
    ask(peer, ":0\r\n", "SLOWLOG", "LEN", NULL, NULL);
    ask(peer, "+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "-1");
    peer_close(peer);
    peer_close(other);
    fixture_end(&fixture);
}

/* ---- CONFIG SET ------------------------------------------------------------------------------------------------ */

static void test_server__config_sets_all_or_nothing(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 4, 2);
    struct peer *peer = peer_open(&fixture);
    peer_say(peer, "CONFIG", "SET", "timeout", "7", "maxclients", "0", NULL);
    peer_expect(peer,
                "-ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and "
                "1000000 inclusive\r\n");
    peer_say(peer, "CONFIG", "GET", "timeout", "port*x", NULL);
    peer_expect(peer, "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n");
    peer_say(peer, "CONFIG", "SET", "timeout", "7", "maxclients", "9", "durability", "relaxed", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "CONFIG", "GET", "timeout", "appendfsync", "time*", NULL);
    peer_expect(peer, "*4\r\n$11\r\nappendfsync\r\n$8\r\neverysec\r\n$7\r\ntimeout\r\n$1\r\n7\r\n");
    struct peer *later = peer_open(&fixture);
    ask(later, "+relaxed\r\n", "KVS.DURABILITY", NULL, NULL, NULL);
    ask(peer, "+durable\r\n", "KVS.DURABILITY", NULL, NULL, NULL);
    peer_close(later);
    peer_close(peer);
    fixture_end(&fixture);
}

static void test_server__an_idle_timeout_counts_for_connections_that_are_there(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 5, 3);
    struct peer *peers[4];
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
        peers[i] = peer_open(&fixture);
        ask(peers[i], "+PONG\r\n", "PING", NULL, NULL, NULL);
    }
    uint64_t before_ns = ring_now_ns(fixture.main_ring);
    ask(peers[0], "+OK\r\n", "CONFIG", "SET", "timeout", "3");
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
        peer_expect_end(peers[i]);
    uint64_t took_ns = ring_now_ns(fixture.main_ring) - before_ns;
    assert_true(took_ns > 2900000000 && took_ns < 4000000000);
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
        peer_close(peers[i]);
    struct peer *peer = peer_open(&fixture);
    ask(peer, "+OK\r\n", "CONFIG", "SET", "timeout", "0");
    ask(peer, ":0\r\n", "WAIT", "1", "20000", NULL); /* an idle time, and none to be ended for */
    ask(peer, "+PONG\r\n", "PING", NULL, NULL, NULL);
    peer_close(peer);
    fixture_end(&fixture);
}

static void test_server__a_password_is_asked_for_from_then_on(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 6, 2);
    struct peer *peer = peer_open(&fixture), *other;
    peer_say(peer, "CONFIG", "SET", "timeout", "9", "requirepass", "hush", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_say(peer, "CONFIG", "GET", "requirepass", NULL);
    peer_expect(peer, "*2\r\n$11\r\nrequirepass\r\n$10\r\n(redacted)\r\n");
    other = peer_open(&fixture);
    ask(other, "-NOAUTH Authentication required.\r\n", "GET", "a", NULL, NULL);
    ask(other, "-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "hash", NULL, NULL);
    ask(other, "+OK\r\n", "AUTH", "hush", NULL, NULL);
    ask(peer, "+OK\r\n", "CONFIG", "SET", "requirepass", "");
    peer_close(other);
    other = peer_open(&fixture);
    ask(other, "$-1\r\n", "GET", "a", NULL, NULL);
    peer_close(other);
    peer_close(peer);
    fixture_end(&fixture);
}

/* ---- MONITOR --------------------------------------------------------------------------------------------------- */

static void expect_line(struct peer *peer, const char *command)
{
    struct slice line = peer_reply(peer);
    char end[128];
    snprintf(end, sizeof(end), "] %s\r\n", command);
    if (line.size < strlen(end) || memcmp(line.data + line.size - strlen(end), end, strlen(end)) != 0 ||
        line.data[0] != '+' || !shows(line, " [0 "))
        fail_msg("expected %s, got %.*s", command, (int)line.size, (const char *)line.data);
}

static bool is_unwatched(void *context)
{
    const struct node_fixture *fixture = context;
    return atomic_load(&fixture->node->watch) == 0;
}

static void test_server__monitors_see_the_commands_of_all_shards(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        (void)fixture_create(&fixture, 20 + threads, threads);
        struct peer *monitors[3], *peers[3];
        for (size_t i = 0; i < ARRAY_COUNT(monitors); i++) {
            monitors[i] = peer_open(&fixture);
            peers[i] = peer_open(&fixture);
            ask(monitors[i], "+OK\r\n", "MONITOR", NULL, NULL, NULL);
        }
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
            ask(peers[i], "+OK\r\n", "set", "a\n\"", "b", NULL);
            ask(peers[i], "$1\r\nb\r\n", "GET", "a\n\"", NULL, NULL);
            peer_say(peers[i], "AUTH", "me", "secret", NULL);
            (void)peer_reply(peers[i]);
            peer_say(peers[i], "CONFIG", "GET", "port", NULL);
            (void)peer_reply(peers[i]);
            peer_say(peers[i], "GET", NULL);
            (void)peer_reply(peers[i]);
            for (size_t j = 0; j < ARRAY_COUNT(monitors); j++) {
                expect_line(monitors[j], "\"set\" \"a\\n\\\"\" \"b\"");
                expect_line(monitors[j], "\"GET\" \"a\\n\\\"\"");
                expect_line(monitors[j], "\"AUTH\" \"(redacted)\" \"(redacted)\"");
            }
        }
        /* Who has had enough sees nothing more; the others do. */
        peer_say(monitors[0], "RESET", NULL);
        peer_expect(monitors[0], "+RESET\r\n");
        expect_line(monitors[1], "\"RESET\"");
        ask(peers[1], "+PONG\r\n", "PING", NULL, NULL, NULL);
        expect_line(monitors[1], "\"PING\"");
        ask(monitors[0], "$1\r\nb\r\n", "GET", "a\n\"", NULL, NULL);
        for (size_t i = 0; i < ARRAY_COUNT(monitors); i++) {
            peer_close(monitors[i]);
            peer_close(peers[i]);
        }
        assert_true(sim_run_until(is_unwatched, &fixture, NODE_STEPS_MAX));
        fixture_end(&fixture);
    }
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static void test_server__wait_takes_its_time_and_no_more(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 7, 2);
    struct peer *peer = peer_open(&fixture), *patient = peer_open(&fixture);
    uint64_t before_ns = ring_now_ns(fixture.main_ring);
    ask(peer, ":0\r\n", "WAIT", "0", "5000", NULL);
    assert_true(ring_now_ns(fixture.main_ring) - before_ns < 100000000);
    before_ns = ring_now_ns(fixture.main_ring);
    peer_say(patient, "WAIT", "1", "0", NULL); /* for ever: until the node stops */
    ask(peer, ":0\r\n", "WAIT", "2", "500", NULL);
    uint64_t took_ns = ring_now_ns(fixture.main_ring) - before_ns;
    assert_true(took_ns >= 500000000 && took_ns < 600000000);
    peer_close(peer);
    fixture_stop_threads(&fixture, false);
    peer_expect(patient, ":0\r\n");
    peer_close(patient);
    fixture_free(&fixture);
    fixture_machine_end();
}

/* What WAITAOF has answered [1, 0] to survives a power loss, whatever connections it was written on relaxed. */
static void test_server__waitaof_waits_for_relaxed_writes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct node_fixture fixture;
        const unsigned threads = 1 + (unsigned)(seed % 3);
        struct config config = fixture_config(threads);
        config.relaxed_interval_ms = 60000;
        fixture_machine(seed);
        fixture_start(&fixture, &config);
        struct peer *peer = peer_open(&fixture);
        ask(peer, "+OK\r\n", "KVS.DURABILITY", "relaxed", NULL, NULL);
        for (unsigned i = 0; i < 20; i++) {
            char key[16];
            snprintf(key, sizeof(key), "key%u", i);
            peer_say(peer, "SET", key, key, NULL);
        }
        peer_say(peer, "WAITAOF", "1", "0", "0", NULL); /* in one pipeline, with writes on their way to other shards */
        for (unsigned i = 0; i < 20; i++)
            peer_expect(peer, "+OK\r\n");
        peer_expect(peer, "*2\r\n:1\r\n:0\r\n");
        fixture_crash(&fixture, SIM_DROP_ALL);
        peer_free(peer);
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        peer_expect_keys(peer, 20);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_server__waitaof_tells_what_it_cannot_know(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 8, 2);
    struct peer *peer = peer_open(&fixture);
    ask(peer, "*2\r\n:0\r\n:0\r\n", "WAITAOF", "0", "0", "0");
    ask(peer, "*2\r\n:1\r\n:0\r\n", "WAITAOF", "1", "1", "50"); /* the replica is missing: it takes the time */
    ask(peer, "-ERR value is out of range, must be between 0 and 1\r\n", "WAITAOF", "2", "0", "0");
    ask(peer, "-ERR value is out of range, must be positive\r\n", "WAITAOF", "1", "-1", "0");
    ask(peer, "-ERR timeout is negative\r\n", "WAITAOF", "1", "0", "-1");
    ask(peer, "-ERR timeout is not an integer or out of range\r\n", "WAITAOF", "1", "0", "x");
    peer_close(peer);
    fixture_end(&fixture);
}

static bool has_ended(void *context)
{
    const struct node_fixture *fixture = context;
    return fixture_ended(context) && fixture->status == NODE_STOPPED;
}

static void test_server__shutdown_stops_the_node_in_order(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        struct config config = fixture_create(&fixture, 30 + threads, threads);
        struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
        ask(other, "+PONG\r\n", "PING", NULL, NULL, NULL);
        ask(peer, "+OK\r\n", "SET", "a", "b", NULL);
        ask(peer, "-ERR No shutdown in progress.\r\n", "SHUTDOWN", "ABORT", NULL, NULL);
        peer_say(peer, "SHUTDOWN", "NOSAVE", NULL);
        assert_true(sim_run_until(has_ended, &fixture, NODE_STEPS_MAX));
        peer_expect_end(peer);
        peer_expect_end(other);
        assert_int_equal(peer->in_read, peer->in_size); /* it was not answered */
        peer_close(peer);
        peer_close(other);
        fixture_free(&fixture);
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        ask(peer, "$1\r\nb\r\n", "GET", "a", NULL, NULL);
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_server__save_waits_for_the_backup(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 9, 2);
    struct peer *peer = peer_open(&fixture);
    ask(peer, "+OK\r\n", "SET", "a", "b", NULL);
    peer_say(peer, "SAVE", NULL);
    peer_say(peer, "INFO", "persistence", NULL);
    peer_expect(peer, "+OK\r\n");
    struct slice reply = peer_reply(peer);
    assert_true(shows(reply, "rdb_bgsave_in_progress:0\r\n") && shows(reply, "backups_ended:1\r\n"));
    peer_close(peer);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server__commands_are_counted_by_name_and_a_reset_forgets_them),
        cmocka_unit_test(test_server__failures_of_a_pipeline_are_its_commands_own),
        cmocka_unit_test(test_server__slowlog_shows_all_below_its_bound_but_no_passwords),
        cmocka_unit_test(test_server__config_sets_all_or_nothing),
        cmocka_unit_test(test_server__an_idle_timeout_counts_for_connections_that_are_there),
        cmocka_unit_test(test_server__a_password_is_asked_for_from_then_on),
        cmocka_unit_test(test_server__monitors_see_the_commands_of_all_shards),
        cmocka_unit_test(test_server__wait_takes_its_time_and_no_more),
        cmocka_unit_test(test_server__waitaof_waits_for_relaxed_writes),
        cmocka_unit_test(test_server__waitaof_tells_what_it_cannot_know),
        cmocka_unit_test(test_server__shutdown_stops_the_node_in_order),
        cmocka_unit_test(test_server__save_waits_for_the_backup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
