/*
 * test_multi.c - MULTI, EXEC and WATCH on a node of several shards, with other connections at work on the same keys,
 * and over power losses. (Replies beside Redis's: tests/blackbox/test_differential.py.)
 */
#include "node_fixture.h"

static void expect_queued(struct peer *peer, unsigned count)
{
    peer_expect(peer, "+OK\r\n"); /* MULTI */
    for (unsigned i = 0; i < count; i++)
        peer_expect(peer, "+QUEUED\r\n");
}

static void test_multi__commands_see_what_those_before_have_done(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        fixture_create(&fixture, threads, threads);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "SET", "b", "old", NULL);
        peer_expect(peer, "+OK\r\n");
        peer_say(peer, "MULTI", NULL);
        peer_say(peer, "SET", "a", "1", "PXAT", "4000000000000", NULL);
        peer_say(peer, "INCR", "a", NULL);
        peer_say(peer, "INCR", "b", NULL); /* an error, and the others go on */
        peer_say(peer, "RENAME", "a", "c", NULL);
        peer_say(peer, "PEXPIRETIME", "c", NULL);
        peer_say(peer, "MSET", "c", "5", "d", "6", NULL);
        peer_say(peer, "PEXPIRETIME", "c", NULL);
        peer_say(peer, "MGET", "a", "b", "c", NULL);
        peer_say(peer, "DEL", "b", "d", "none", NULL);
        peer_say(peer, "EXISTS", "a", "b", "c", "c", NULL);
        peer_say(peer, "EXEC", NULL);
        expect_queued(peer, 10);
        peer_expect(peer, "*10\r\n+OK\r\n:2\r\n-ERR value is not an integer or out of range\r\n+OK\r\n"
                          ":4000000000000\r\n+OK\r\n:-1\r\n*3\r\n$-1\r\n$3\r\nold\r\n$1\r\n5\r\n:2\r\n:2\r\n");
        peer_say(peer, "MGET", "a", "b", "c", "d", NULL);
        peer_expect(peer, "*4\r\n$-1\r\n$-1\r\n$1\r\n5\r\n$-1\r\n");
        peer_say(peer, "DBSIZE", NULL);
        peer_expect(peer, ":1\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
}

static void test_multi__what_is_refused_ends_it(void **state)
{
    (void)state;
    struct node_fixture fixture;
    fixture_create(&fixture, 10, 2);
    struct peer *peer = peer_open(&fixture);
    static const char *const refused[][3] = {{"NOTHING"},      {"GET"},       {"CONFIG", "FOO"},
                                             {"CLIENT", "ID"}, {"AUTH", "x"}, {"BGSAVE"}};
    for (size_t i = 0; i < ARRAY_COUNT(refused); i++) {
        peer_say(peer, "MULTI", NULL);
        peer_say(peer, "SET", "a", "1", NULL);
        peer_say(peer, refused[i][0], refused[i][1], refused[i][2], NULL);
        peer_say(peer, "EXEC", NULL);
        expect_queued(peer, 1);
        peer_expect_prefix(peer, "-ERR ");
        peer_expect(peer, "-EXECABORT Transaction discarded because of previous errors.\r\n");
    }
    peer_say(peer, "EXISTS", "a", NULL);
    peer_expect(peer, ":0\r\n");
    peer_say(peer, "MULTI", NULL);
    peer_say(peer, "SET", "a", "1", NULL);
    peer_say(peer, "RESET", NULL);
    peer_say(peer, "EXEC", NULL);
    expect_queued(peer, 1);
    peer_expect(peer, "+RESET\r\n");
    peer_expect(peer, "-ERR EXEC without MULTI\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

/* Every way in which another connection may touch a key. */
static void test_multi__watched_keys_must_not_change(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        bool changes;
    } others[] = {
        {{"SET", "k", "1"}, true}, /* the same again */
        {{"GET", "k"}, false},
        {{"APPEND", "k", "x"}, true},
        {{"DEL", "k"}, true},
        {{"DEL", "other"}, false},
        {{"SET", "k", "2", "NX"}, false},
        {{"PEXPIREAT", "k", "4000000000000"}, true},
        {{"MSET", "other", "1", "k", "1"}, true},
        {{"MSETNX", "other", "1", "k", "2"}, false},
        {{"RENAME", "k", "other"}, true},
        {{"COPY", "k", "other"}, false},
        {{"SETRANGE", "k", "0", ""}, false},
    };
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        struct node_fixture fixture;
        fixture_create(&fixture, 20 + threads, threads);
        struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
        for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
            const char *const *words = others[i].words;
            peer_say(peer, "DEL", "other", NULL);
            peer_say(peer, "SET", "k", "1", NULL);
            peer_say(peer, "WATCH", "none", "k", NULL);
            peer_expect_prefix(peer, ":");
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, "+OK\r\n");
            peer_say(other, words[0], words[1], words[2], words[3], words[4], words[5], NULL);
            (void)peer_reply(other);
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "SET", "done", "1", NULL);
            peer_say(peer, "EXEC", NULL);
            expect_queued(peer, 1);
            peer_expect(peer, others[i].changes ? "*-1\r\n" : "*1\r\n+OK\r\n");
        }
        /* It has expired since. */
        peer_say(peer, "SET", "k", "1", "PX", "20", NULL);
        peer_say(peer, "WATCH", "k", NULL);
        peer_expect(peer, "+OK\r\n");
        peer_expect(peer, "+OK\r\n");
        sim_advance(30000000);
        peer_say(peer, "MULTI", NULL);
        peer_say(peer, "PING", NULL);
        peer_say(peer, "EXEC", NULL);
        expect_queued(peer, 1);
        peer_expect(peer, "*-1\r\n");
        peer_close(peer);
        peer_close(other);
        fixture_end(&fixture);
    }
}

/* Commands that look at all keys, or work for some turns, see what those before have done, and nothing of those behind.
 */
static void test_multi__scans_see_what_commands_before_have_done(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 200 + threads, threads);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "MULTI", NULL);
        peer_say(peer, "RANDOMKEY", NULL); /* there is none */
        peer_say(peer, "KEYS", "*", NULL);
        peer_say(peer, "SCAN", "0", NULL);
        peer_say(peer, "SET", "first", "1", NULL);
        peer_say(peer, "RANDOMKEY", NULL);
        peer_say(peer, "SCAN", "0", NULL);
        peer_say(peer, "DEL", "first", NULL);
        peer_say(peer, "RANDOMKEY", NULL);
        peer_say(peer, "EXEC", NULL);
        expect_queued(peer, 8);
        peer_expect(peer, "*8\r\n$-1\r\n*0\r\n*2\r\n$1\r\n0\r\n*0\r\n+OK\r\n$5\r\nfirst\r\n"
                          "*2\r\n$1\r\n0\r\n*1\r\n$5\r\nfirst\r\n:1\r\n$-1\r\n");
        peer_say(peer, "MSET", "old1", "ohmytext", "old2", "2", "gone", "3", NULL);
        peer_say(peer, "MULTI", NULL);
        peer_say(peer, "KEYS", "ol*2", NULL); /* is there, though it is about to be overwritten */
        peer_say(peer, "SET", "old2", "3", NULL);
        peer_say(peer, "RENAME", "old1", "new1", NULL);
        peer_say(peer, "SET", "new3", "mynewtext", "PXAT", "4000000000000", NULL);
        peer_say(peer, "SET", "gone", "4", "PXAT", "1", NULL);
        peer_say(peer, "KEYS", "o*", NULL);
        peer_say(peer, "SCAN", "0", "COUNT", "100", "MATCH", "*w1", NULL);
        peer_say(peer, "SCAN", "0", "COUNT", "100", "MATCH", "g*", NULL);
        peer_say(peer, "SCAN", "0", "TYPE", "hash", NULL);
        peer_say(peer, "SCAN", "x", NULL); /* an error, and the others go on */
        peer_say(peer, "LCS", "new1", "new3", NULL);
        peer_say(peer, "DEL", "old2", "new1", NULL);
        peer_say(peer, "LCS", "new1", "new3", "LEN", NULL);
        peer_say(peer, "KEYS", "*", NULL);
        peer_say(peer, "RANDOMKEY", NULL);
        peer_say(peer, "WAIT", "1", "0", NULL);
        peer_say(peer, "WAITAOF", "1", "0", "0", NULL);
        peer_say(peer, "SET", "old5", "later", NULL);
        peer_say(peer, "EXEC", NULL);
        peer_expect(peer, "+OK\r\n");
        expect_queued(peer, 18);
        peer_expect(peer, "*18\r\n*1\r\n$4\r\nold2\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n*1\r\n$4\r\nold2\r\n"
                          "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nnew1\r\n*2\r\n$1\r\n0\r\n*0\r\n"
                          "*2\r\n$1\r\n0\r\n*0\r\n-ERR invalid cursor\r\n$6\r\nmytext\r\n:2\r\n:0\r\n"
                          "*1\r\n$4\r\nnew3\r\n$4\r\nnew3\r\n:0\r\n*2\r\n:1\r\n:0\r\n+OK\r\n");
        peer_say(peer, "MGET", "old5", "new3", "gone", NULL);
        peer_expect(peer, "*3\r\n$5\r\nlater\r\n$9\r\nmynewtext\r\n$-1\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* SCAN in EXEC after EXEC goes through many keys, of which the transaction has some: each is met once, if it is there
 * at the place of the SCAN. */
static void test_multi__portions_of_a_scan_add_up(void **state)
{
    (void)state;
    enum { KEYS = 300 };
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        struct node_fixture fixture;
        fixture_create(&fixture, 210 + threads, threads);
        struct peer *peer = peer_open(&fixture);
        unsigned met[KEYS] = {0}, rounds = 0;
        unsigned long long cursor = 0;
        for (unsigned i = 0; i < KEYS; i += i % 3 == 1 ? 2u : 1u) { /* of three the third is not there */
            char name[16];
            snprintf(name, sizeof name, "k%u", i);
            peer_say(peer, "SET", name, "1", NULL);
            peer_expect(peer, "+OK\r\n");
        }
        do {
            char text[24];
            snprintf(text, sizeof text, "%llu", cursor);
            peer_say(peer, "MULTI", NULL);
            for (unsigned i = 0; i < KEYS; i += 10) { /* each tenth is there when SCAN looks, and is not afterwards */
                char name[16];
                snprintf(name, sizeof name, "k%u", i);
                peer_say(peer, "SET", name, "2", NULL);
            }
            peer_say(peer, "SCAN", text, "COUNT", "30", NULL);
            for (unsigned i = 0; i < KEYS; i += 10) {
                char name[16];
                snprintf(name, sizeof name, "k%u", i);
                peer_say(peer, "DEL", name, NULL);
            }
            peer_say(peer, "EXEC", NULL);
            expect_queued(peer, 2 * KEYS / 10 + 1);
            const struct slice reply = peer_reply(peer);
            const uint8_t *at = memmem(reply.data, reply.size, "*2\r\n", 4);
            assert_non_null(at);
            char copy[8192] = {0};
            const size_t rest = (size_t)(reply.data + reply.size - at);
            memcpy(copy, at, rest < sizeof copy - 1 ? rest : sizeof copy - 1);
            assert_int_equal(sscanf(copy, "*2\r\n$%*u\r\n%llu", &cursor), 1);
            for (const char *key = copy; (key = strstr(key, "\r\nk")) != NULL; key += 3)
                met[atoi(key + 3)]++;
            rounds++;
        } while (cursor != 0);
        assert_true(rounds > 3);
        for (unsigned i = 0; i < KEYS; i++)
            assert_true(met[i] == (i % 10 == 0 || i % 3 != 2));
        peer_close(peer);
        fixture_end(&fixture);
    }
}

/* A ball is passed on from key to key by others, with RENAME over all shards. Whoever looks at all keys in an EXEC sees
 * one ball, neither none nor two: the state of a moment. */
static void test_multi__keys_are_of_one_moment(void **state)
{
    (void)state;
    enum { PLACES = 12, PASSES = 60, LOOKS = 60 };
    unsigned moved = 0;
    for (unsigned seed = 0; seed < 8; seed++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 220 + seed, 3);
        struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
        unsigned from = 0;
        char last[64] = {0};
        peer_say(other, "SET", "ball0", "x", NULL);
        for (unsigned i = 0; i < PASSES; i++) {
            const unsigned to = (from + 1 + (unsigned)sim_random(PLACES - 1)) % PLACES;
            char names[2][16];
            snprintf(names[0], sizeof names[0], "ball%u", from);
            snprintf(names[1], sizeof names[1], "ball%u", to);
            peer_say(other, "RENAME", names[0], names[1], NULL);
            from = to;
        }
        peer_expect(other, "+OK\r\n");
        for (unsigned look = 0; look < LOOKS; look++) {
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "INCR", "looks", NULL);
            peer_say(peer, "KEYS", "ball*", NULL);
            peer_say(peer, "EXEC", NULL);
            expect_queued(peer, 2);
            const struct slice reply = peer_reply(peer);
            char text[64] = {0}, begin[32];
            memcpy(text, reply.data, reply.size < 63 ? reply.size : 63);
            snprintf(begin, sizeof begin, "*2\r\n:%u\r\n*1\r\n$", look + 1);
            assert_memory_equal(text, begin, strlen(begin));
            moved += look > 0 && strcmp(text + strlen(begin), last) != 0;
            strcpy(last, text + strlen(begin));
        }
        peer_close(peer);
        peer_close(other);
        fixture_end(&fixture);
    }
    assert_true(moved > 50);
}

/* A key that is not there when it is watched, and not when EXEC looks, but was in between. */
static void test_multi__watched_keys_must_not_come_and_go(void **state)
{
    (void)state;
    static const struct {
        const char *come[6], *go[4];
        uint64_t after_ns;
        bool changes;
    } others[] = {
        {{"SET", "k", "1"}, {"DEL", "k"}, 0, true},
        {{"SET", "k", "1", "PX", "20"}, {"GET", "k"}, 30000000, true},
        {{"SET", "k", "1"}, {"RENAME", "k", "other"}, 0, true},
        {{"RENAME", "source", "k"}, {"GETDEL", "k"}, 0, true},
        {{"MSET", "k", "1", "other", "2"}, {"UNLINK", "k", "other"}, 0, true},
        {{"APPEND", "k", "1"}, {"EXPIRE", "k", "-1"}, 0, true},
        {{"SET", "other", "1"}, {"DEL", "other"}, 0, false},
        {{"SET", "k", "1", "XX"}, {"DEL", "k"}, 0, false},
        {{"SET", "k", "1", "PXAT", "1"}, {"DEL", "k"}, 0, false},
    };
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        struct node_fixture fixture;
        fixture_create(&fixture, 240 + threads, threads);
        struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture), *third = peer_open(&fixture);
        peer_say(third, "WATCH", "k", NULL); /* the whole time */
        peer_expect(third, "+OK\r\n");
        for (size_t i = 0; i < 4 * ARRAY_COUNT(others); i++) {
            const char *const *come = others[i % ARRAY_COUNT(others)].come, *const *go =
                                                                                others[i % ARRAY_COUNT(others)].go;
            peer_say(peer, "SET", "source", "1", NULL);
            peer_say(peer, "WATCH", "none", "k", "none", NULL);
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, "+OK\r\n");
            peer_say(other, come[0], come[1], come[2], come[3], come[4], come[5], NULL);
            (void)peer_reply(other);
            sim_advance(others[i % ARRAY_COUNT(others)].after_ns);
            peer_say(other, go[0], go[1], go[2], go[3], NULL);
            (void)peer_reply(other);
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "SET", "done", "1", NULL);
            peer_say(peer, "EXEC", NULL);
            expect_queued(peer, 1);
            peer_expect(peer, others[i % ARRAY_COUNT(others)].changes ? "*-1\r\n" : "*1\r\n+OK\r\n");
        }
        /* What is not watched any more does not matter, and nothing of it stays. */
        for (unsigned i = 0; i < 3; i++) {
            static const char *const ends[] = {"UNWATCH", "DISCARD", "RESET"};
            peer_say(peer, "WATCH", "k", NULL);
            peer_expect(peer, "+OK\r\n");
            peer_say(peer, "SET", "k", "1", NULL);
            peer_say(peer, "DEL", "k", NULL);
            peer_expect(peer, "+OK\r\n");
            peer_expect(peer, ":1\r\n");
            if (i == 1) {
                peer_say(peer, "MULTI", NULL);
                peer_expect(peer, "+OK\r\n");
            }
            peer_say(peer, ends[i], NULL);
            (void)peer_reply(peer);
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "EXISTS", "k", NULL);
            peer_say(peer, "EXEC", NULL);
            expect_queued(peer, 1);
            peer_expect(peer, "*1\r\n:0\r\n");
        }
        peer_say(third, "MULTI", NULL);
        peer_say(third, "EXEC", NULL);
        peer_expect(third, "+OK\r\n");
        peer_expect(third, "*-1\r\n");
        peer_say(third, "WATCH", "k", "l", "m", NULL); /* and goes */
        peer_expect(third, "+OK\r\n");
        peer_close(peer);
        peer_close(other);
        peer_close(third);
        fixture_end(&fixture);
    }
}

static struct engine_stats stats_of(const struct node_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->node->engine, &stats);
    return stats;
}

/* Writes until the keys c0, c1, … are on disk only. */
static void push_out(struct peer *peer, unsigned keys)
{
    char value[8192] = {0}, name[16];
    memset(value, 'v', sizeof value - 1);
    for (unsigned i = 0; i < keys; i++) {
        snprintf(name, sizeof name, "c%u", i);
        peer_say(peer, "SET", name, value, NULL);
        peer_expect(peer, "+OK\r\n");
    }
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "f%u", i);
        peer_say(peer, "SET", name, value, NULL);
        peer_expect(peer, "+OK\r\n");
    }
}

/* What is overwritten anyway is not read before: it is overwritten blindly, which shows in a figure of its own. */
static void test_multi__reads_what_it_needs(void **state)
{
    (void)state;
    static const struct {
        const char *words[2][6];
        unsigned blind, reads; /* without those that settle what was blind */
    } cases[] = {
        {{{"SET", "c0", "1"}}, 1, 0},
        {{{"SET", "c1", "1", "EX", "100"}, {"SETEX", "c2", "100", "1"}}, 2, 0},
        {{{"MSET", "c3", "1", "c4", "1"}}, 2, 0},
        {{{"SET", "c5", "1"}, {"GET", "c5"}}, 0, 1},
        {{{"SET", "c6", "1"}, {"DEL", "c6"}}, 0, 1},
        {{{"SET", "c7", "1", "NX"}}, 0, 1},
        {{{"SET", "c8", "1", "PXAT", "1"}}, 0, 1},
        {{{"SET", "c9", "1", "GET"}}, 0, 1},
        {{{"COPY", "c10", "c11", "REPLACE"}}, 0, 2},
        {{{"SET", "c12", "1"}, {"SET", "c12", "1", "EX", "0"}}, 1, 0}, /* the second is an error */
    };
    struct node_fixture fixture;
    fixture_create(&fixture, 300, 2);
    struct peer *peer = peer_open(&fixture);
    push_out(peer, 20);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const struct engine_stats before = stats_of(&fixture);
        peer_say(peer, "MULTI", NULL);
        peer_expect(peer, "+OK\r\n");
        for (unsigned j = 0; j < 2 && cases[i].words[j][0] != NULL; j++) {
            const char *const *words = cases[i].words[j];
            peer_say(peer, words[0], words[1], words[2], words[3], words[4], words[5], NULL);
            peer_expect(peer, "+QUEUED\r\n");
        }
        peer_say(peer, "EXEC", NULL);
        peer_expect_prefix(peer, "*");
        sim_advance(100000000);
        fixture_steps(2000);
        const struct engine_stats after = stats_of(&fixture);
        assert_int_equal(after.settling, 0);
        const uint64_t blind = after.blind_overwrites - before.blind_overwrites;
        assert_int_equal(blind, cases[i].blind);
        assert_int_equal(after.disk_reads - before.disk_reads, cases[i].reads + blind);
    }
    peer_say(peer, "MGET", "c0", "c4", "c5", "c6", "c8", "c9", NULL);
    peer_expect(peer, "*6\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n$-1\r\n$1\r\n1\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

/* An EXEC is at work on what takes turns. */
static bool works(const struct node_fixture *fixture, unsigned threads)
{
    bool any = false;
    for (unsigned i = 0; i < threads; i++)
        any = any || fixture->node->shards[i].execs_ready > 0;
    return any;
}

/* Whatever happens while commands take their time, nothing is left behind (the sanitizer would see it), and what was
 * watched does not matter any more. */
static void test_multi__ends_with_connections_and_node(void **state)
{
    (void)state;
    enum { VALUE_BYTES = 2000 };
    char value[VALUE_BYTES + 1];
    unsigned early = 0, at_work = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct node_fixture fixture;
        const unsigned threads = 1 + seed % 3;
        struct config config = fixture_config(threads);
        config.memory_bytes = 128u << 20; /* so that LCS may take long */
        fixture_machine(400 + seed);
        fixture_start(&fixture, &config);
        struct peer *peers[3];
        for (unsigned i = 0; i < ARRAY_COUNT(peers); i++)
            peers[i] = peer_open(&fixture);
        for (unsigned i = 0; i < VALUE_BYTES; i++)
            value[i] = (char)('a' + sim_random(20));
        value[VALUE_BYTES] = 0;
        peer_say(peers[0], "MSET", "one", value, "two", value + VALUE_BYTES / 3, NULL);
        peer_expect(peers[0], "+OK\r\n");
        for (unsigned i = 0; i < 2 * ARRAY_COUNT(peers); i++) {
            struct peer *peer = peers[i / 2];
            peer_say(peer, "WATCH", "no", "nor", "neither", NULL);
            peer_say(peer, "SET", i % 2 == 0 ? "no" : "yes", "1", "PX", "1", NULL);
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "KEYS", "*", NULL);
            peer_say(peer, "LCS", "one", "two", NULL);
            peer_say(peer, "SCAN", "0", "COUNT", "5", NULL);
            peer_say(peer, "RANDOMKEY", NULL);
            peer_say(peer, "INCR", "n", NULL);
            peer_say(peer, sim_random(3) == 0 ? "DISCARD" : "EXEC", NULL);
        }
        const bool crashes = seed % 4 == 3, stops = seed % 4 == 1;
        uint64_t steps = crashes ? 5000 : sim_random(seed % 2 == 0 ? 300 : 1000);
        while (steps-- > 0 && sim_step() && !(crashes && works(&fixture, threads)))
            ;
        unsigned replies = 0;
        while (peer_has_reply(peers[0])) {
            (void)peer_reply(peers[0]);
            replies++;
        }
        early += replies < 18;
        at_work += crashes && works(&fixture, threads);
        if (crashes)
            fixture_crash(&fixture, SIM_RANDOM);
        else if (stops)
            fixture_stop(&fixture, seed % 8 == 1);
        for (unsigned i = 0; i < ARRAY_COUNT(peers); i++) {
            if (crashes || stops)
                peer_free(peers[i]);
            else
                peer_close(peers[i]);
        }
        if (crashes || stops)
            fixture_start(&fixture, &config);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "PING", NULL);
        peer_expect(peer, "+PONG\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
    assert_true(early > 10 && at_work > 10);
}

enum { CLIENTS = 4, ROUNDS = 25 };

/* The number in a reply, `$1\r\n7\r\n`; 0 for null. */
static unsigned number_in(struct slice reply)
{
    char text[32] = {0};
    unsigned bytes, number = 0;
    memcpy(text, reply.data, reply.size < 31 ? reply.size : 31);
    if (text[1] != '-')
        assert_int_equal(sscanf(text, "$%u\r\n%u", &bytes, &number), 2);
    return number;
}

/* Clients raise two numbers together, with WATCH and what they have read: not one of them is lost. */
static void test_multi__check_and_set(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (unsigned seed = 0; seed < 6; seed++) {
        struct node_fixture fixture;
        fixture_create(&fixture, 40 + seed, 3);
        struct peer *peers[CLIENTS];
        unsigned done = 0;
        for (unsigned i = 0; i < CLIENTS; i++)
            peers[i] = peer_open(&fixture);
        for (unsigned round = 0; round < ROUNDS; round++) {
            unsigned seen[CLIENTS];
            for (unsigned i = 0; i < CLIENTS; i++) {
                peer_say(peers[i], "WATCH", "x", NULL);
                peer_say(peers[i], "GET", "x", NULL);
            }
            for (unsigned i = 0; i < CLIENTS; i++) {
                peer_expect(peers[i], "+OK\r\n");
                seen[i] = number_in(peer_reply(peers[i]));
            }
            for (unsigned i = 0; i < CLIENTS; i++) {
                char next[16];
                snprintf(next, sizeof next, "%u", seen[i] + 1);
                peer_say(peers[i], "MULTI", NULL);
                peer_say(peers[i], "SET", "x", next, NULL);
                peer_say(peers[i], "INCR", "y", NULL);
                peer_say(peers[i], "EXEC", NULL);
            }
            for (unsigned i = 0; i < CLIENTS; i++) {
                expect_queued(peers[i], 2);
                struct slice reply = peer_reply(peers[i]);
                bool refused = slice_equal(reply, slice_text("*-1\r\n"));
                done += !refused;
                lost += refused;
            }
        }
        peer_say(peers[0], "GET", "x", NULL);
        assert_int_equal(number_in(peer_reply(peers[0])), done);
        peer_say(peers[0], "GET", "y", NULL);
        assert_int_equal(number_in(peer_reply(peers[0])), done);
        for (unsigned i = 0; i < CLIENTS; i++)
            peer_close(peers[i]);
        fixture_end(&fixture);
    }
    assert_true(lost > 50);
}

/* All of an EXEC is there after a power loss, or nothing, and what was acknowledged is; MULTIs that are open and
 * connections that end in the middle leave nothing behind. */
static void test_multi__power_loss(void **state)
{
    (void)state;
    unsigned in_between = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct node_fixture fixture;
        const struct config config = fixture_create(&fixture, 100 + seed, 3);
        struct peer *peer = peer_open(&fixture), *open = peer_open(&fixture), *gone = peer_open(&fixture);
        peer_say(open, "WATCH", "a", "b", NULL);
        peer_say(open, "MULTI", NULL);
        peer_say(open, "SET", "a", "no", NULL);
        peer_say(gone, "MULTI", NULL);
        peer_say(gone, "SET", "c", "no", NULL);
        peer_close(gone);
        unsigned acknowledged = 0, asked = 0;
        for (; asked < 8; asked++) {
            peer_say(peer, "MULTI", NULL);
            peer_say(peer, "INCR", "a", NULL);
            peer_say(peer, "INCR", "b", NULL);
            peer_say(peer, asked % 2 == 0 ? "SET" : "DEL", "c", asked % 2 == 0 ? "x" : NULL, NULL);
            peer_say(peer, "EXEC", NULL);
        }
        for (uint64_t steps = 100 + sim_random(2500); steps > 0 && sim_step(); steps--)
            ;
        for (unsigned replies = 0; peer_has_reply(peer); replies++) {
            struct slice reply = peer_reply(peer);
            acknowledged += replies % 5 == 4;
            assert_true(reply.data[0] == (replies % 5 == 4 ? '*' : '+'));
        }
        fixture_crash(&fixture, sim_random(2) == 0 ? SIM_DROP_ALL : SIM_RANDOM);
        peer_free(peer);
        peer_free(open);
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        peer_say(peer, "GET", "a", NULL);
        unsigned there = number_in(peer_reply(peer));
        assert_true(there >= acknowledged && there <= asked);
        in_between += there > 0 && there < asked;
        peer_say(peer, "GET", "b", NULL);
        assert_int_equal(number_in(peer_reply(peer)), there);
        peer_say(peer, "EXISTS", "c", NULL);
        peer_expect(peer, there % 2 == 1 ? ":1\r\n" : ":0\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
    assert_true(in_between > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multi__commands_see_what_those_before_have_done),
        cmocka_unit_test(test_multi__what_is_refused_ends_it),
        cmocka_unit_test(test_multi__watched_keys_must_not_change),
        cmocka_unit_test(test_multi__scans_see_what_commands_before_have_done),
        cmocka_unit_test(test_multi__portions_of_a_scan_add_up),
        cmocka_unit_test(test_multi__keys_are_of_one_moment),
        cmocka_unit_test(test_multi__watched_keys_must_not_come_and_go),
        cmocka_unit_test(test_multi__reads_what_it_needs),
        cmocka_unit_test(test_multi__ends_with_connections_and_node),
        cmocka_unit_test(test_multi__check_and_set),
        cmocka_unit_test(test_multi__power_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
