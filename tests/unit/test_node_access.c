/*
 * test_node_access.c - who may do what, and connections that know of each other, on a whole node with several shards.
 */
#include "node_fixture.h"

#include "node/derive.h"

#include <fcntl.h>

#define THREADS 4u
#define PEERS   8u

#define WRONGPASS "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
#define NOAUTH    "-NOAUTH Authentication required.\r\n"

struct crowd {
    struct node_fixture fixture;
    struct peer *peers[PEERS];
    char password[16];
};

/* A node and eight connections, on more than one shard. */
static void crowd_open(struct crowd *crowd, uint64_t seed, const char *password)
{
    struct config config = fixture_config(THREADS);
    fixture_machine(seed);
    snprintf(crowd->password, sizeof(crowd->password), "%s", password);
    if (*password != 0)
        config.requirepass = crowd->password;
    fixture_start(&crowd->fixture, &config);
    for (unsigned i = 0; i < PEERS; i++)
        crowd->peers[i] = peer_open(&crowd->fixture);
}

static void crowd_close(struct crowd *crowd)
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(crowd->peers[i]);
    fixture_stop(&crowd->fixture, false);
    fixture_machine_end();
}

static long peer_id(struct peer *peer)
{
    peer_say(peer, "CLIENT", "ID", NULL);
    struct slice reply = peer_reply(peer);
    char text[32] = "";
    assert_true(reply.size < sizeof text);
    memcpy(text, reply.data, reply.size);
    assert_int_equal(text[0], ':');
    return strtol(text + 1, NULL, 10);
}

/* ---- AUTH ------------------------------------------------------------------------------------------------------ */

static void test_node_access__nobody_gets_in_without_the_password(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 1, "root");
    struct peer *peer = crowd.peers[0];
    peer_say(peer, "PING", NULL);
    peer_say(peer, "GET", "k", NULL);
    peer_say(peer, "SET", "k", "v", NULL);
    peer_say(peer, "CLIENT", "LIST", NULL);
    peer_say(peer, "NOSUCH", NULL);
    peer_say(peer, "GET", NULL);
    peer_say(peer, "HELLO", "3", NULL);
    peer_say(peer, "AUTH", "wrong", NULL);
    peer_say(peer, "GET", "k", NULL);
    peer_say(peer, "AUTH", "nobody", "root", NULL);
    peer_say(peer, "GET", "k", NULL);
    peer_say(peer, "AUTH", "root", NULL);
    peer_say(peer, "GET", "k", NULL); /* behind it in the pipeline: of whoever that has made it */
    peer_say(peer, "AUTH", "default", "wrong", NULL);
    peer_say(peer, "ACL", "WHOAMI", NULL);
    peer_say(peer, "RESET", NULL);
    peer_say(peer, "GET", "k", NULL);
    for (unsigned i = 0; i < 4; i++)
        peer_expect(peer, NOAUTH);
    peer_expect_prefix(peer, "-ERR unknown command 'NOSUCH'");
    peer_expect(peer, "-ERR wrong number of arguments for 'get' command\r\n");
    peer_expect_prefix(peer, "-NOAUTH HELLO must be called with the client already authenticated");
    peer_expect(peer, WRONGPASS);
    peer_expect(peer, NOAUTH);
    peer_expect(peer, WRONGPASS);
    peer_expect(peer, NOAUTH);
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, "$-1\r\n");
    peer_expect(peer, WRONGPASS);
    peer_expect(peer, "$7\r\ndefault\r\n"); /* who has come in stays in */
    peer_expect(peer, "+RESET\r\n");
    peer_expect(peer, NOAUTH);
    crowd_close(&crowd);
}

static void test_node_access__hello_logs_in_and_names(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 2, "root");
    struct peer *peer = crowd.peers[0];
    peer_say(peer, "HELLO", "3", "AUTH", "default", "wrong", "SETNAME", "me", NULL);
    peer_say(peer, "HELLO", "3", "AUTH", "default", "root", "SETNAME", "m e", NULL);
    peer_say(peer, "HELLO", "3", "AUTH", "default", "root", "SETNAME", "me", NULL);
    peer_say(peer, "CLIENT", "GETNAME", NULL);
    peer_say(peer, "GET", "none", NULL);
    peer_say(peer, "RESET", NULL);
    peer_say(peer, "AUTH", "root", NULL);
    peer_say(peer, "CLIENT", "GETNAME", NULL);
    peer_expect(peer, WRONGPASS);
    peer_expect(peer, "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
    peer_expect_prefix(peer, "%7\r\n$6\r\nserver\r\n");
    peer_expect(peer, "$2\r\nme\r\n");
    peer_expect(peer, "_\r\n");
    peer_expect(peer, "+RESET\r\n");
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, "$-1\r\n");
    crowd_close(&crowd);
}

static void test_node_access__auth_without_a_password_set(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 3, "");
    struct peer *peer = crowd.peers[0];
    peer_say(peer, "AUTH", "x", NULL);
    peer_say(peer, "AUTH", "default", "x", NULL);
    peer_say(peer, "AUTH", "a", "b", NULL);
    peer_say(peer, "AUTH", "a", "b", "c", NULL);
    peer_expect_prefix(peer, "-ERR AUTH <password> called without any password configured for the default user.");
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, WRONGPASS);
    peer_expect(peer, "-ERR syntax error\r\n");
    crowd_close(&crowd);
}

/* A client that goes away while its password is derived leaves nothing behind (the sanitizer would tell). */
static void test_node_access__a_client_that_leaves_while_it_logs_in(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 4, "root");
    for (unsigned i = 0; i < PEERS; i++)
        peer_say(crowd.peers[i], "AUTH", i % 2 == 0 ? "wrong" : "root", NULL);
    crowd_close(&crowd);

    crowd_open(&crowd, 5, "root"); /* and the node itself */
    for (unsigned i = 0; i < PEERS; i++)
        peer_say(crowd.peers[i], "AUTH", "root", NULL);
    assert_true(sim_run_until(peer_is_connected, crowd.peers[PEERS - 1], NODE_STEPS_MAX));
    fixture_crash(&crowd.fixture, SIM_RANDOM);
    for (unsigned i = 0; i < PEERS; i++)
        peer_free(crowd.peers[i]);
    fixture_machine_end();
}

/* ---- rights ---------------------------------------------------------------------------------------------------- */

static void test_node_access__rights_of_two_users(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 6, "");
    struct peer *root = crowd.peers[0];
    peer_say(root, "ACL", "SETUSER", "reader", "on", ">r", "~pub:*", "+@read", "+client|id", NULL);
    peer_say(root, "ACL", "SETUSER", "writer", "on", ">w", "~pub:*", "%R~in:*", "+@all", "-@admin", NULL);
    peer_say(root, "SET", "in:1", "x", NULL);
    peer_expect(root, "+OK\r\n");
    peer_expect(root, "+OK\r\n");
    peer_expect(root, "+OK\r\n");
    for (unsigned i = 1; i < PEERS; i++) { /* whichever shards they are on */
        struct peer *peer = crowd.peers[i];
        bool writer = i % 2 == 0;
        peer_say(peer, "AUTH", writer ? "writer" : "reader", writer ? "w" : "r", NULL);
        peer_say(peer, "SET", "pub:1", "v", NULL);
        peer_say(peer, "GET", "in:1", NULL);
        peer_say(peer, "SET", "in:1", "v", NULL);
        peer_say(peer, "MGET", "pub:1", "other", NULL);
        peer_say(peer, "CONFIG", "GET", "x", NULL);
        peer_say(peer, "CLIENT", "ID", NULL);
        peer_expect(peer, "+OK\r\n");
        peer_expect(peer, writer ? "+OK\r\n" : "-NOPERM User reader has no permissions to run the 'set' command\r\n");
        peer_expect(peer, writer ? "$1\r\nx\r\n" : "-NOPERM No permissions to access a key\r\n");
        peer_expect_prefix(peer, writer ? "-NOPERM No permissions to access a key"
                                        : "-NOPERM User reader has no permissions to run the 'set' command");
        peer_expect(peer, "-NOPERM No permissions to access a key\r\n");
        peer_expect_prefix(peer, "-NOPERM User ");
        peer_expect_prefix(peer, ":");
    }
    crowd_close(&crowd);
}

static void test_node_access__changes_are_seen_at_once_everywhere(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 7, "");
    struct peer *root = crowd.peers[0];
    peer_say(root, "ACL", "SETUSER", "u", "on", "nopass", "~*", "+get", "+client|id", NULL);
    peer_expect(root, "+OK\r\n");
    for (unsigned i = 1; i < PEERS; i++) {
        peer_say(crowd.peers[i], "AUTH", "u", "any", NULL);
        peer_expect(crowd.peers[i], "+OK\r\n");
    }
    for (unsigned round = 0; round < 3; round++) {
        peer_say(root, "ACL", "SETUSER", "u", round % 2 == 0 ? "-get" : "+get", NULL);
        peer_expect(root, "+OK\r\n");
        for (unsigned i = 1; i < PEERS; i++) {
            peer_say(crowd.peers[i], "GET", "k", NULL);
            peer_expect_prefix(crowd.peers[i], round % 2 == 0 ? "-NOPERM" : "$-1");
        }
    }
    /* A user who is gone takes his connections with him, also those that ask nothing. */
    peer_say(root, "ACL", "DELUSER", "u", "v", NULL);
    peer_expect(root, ":1\r\n");
    for (unsigned i = 1; i < PEERS; i++)
        peer_expect_end(crowd.peers[i]);
    peer_say(root, "ACL", "DELUSER", "default", NULL);
    peer_expect(root, "-ERR The 'default' user cannot be removed\r\n");
    crowd_close(&crowd);
}

static void test_node_access__setuser_that_is_wrong_changes_nothing(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 8, "");
    struct peer *root = crowd.peers[0];
    peer_say(root, "ACL", "SETUSER", "u", "on", ">secret", "+nope", NULL);
    peer_expect(root, "-ERR Error in ACL SETUSER modifier '+nope': Unknown command or category name in ACL\r\n");
    peer_say(root, "ACL", "SETUSER", "u", "on", "<secret", NULL); /* known to be wrong only once it is derived */
    peer_say(root, "ACL", "USERS", NULL);
    peer_expect_prefix(root, "-ERR Error in ACL SETUSER modifier '<': The password you are trying to remove");
    peer_expect(root, "*1\r\n$7\r\ndefault\r\n");
    crowd_close(&crowd);
}

/* ---- the binary protocol --------------------------------------------------------------------------------------- */

static void test_node_access__frames_need_auth_too(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 9, "root");
    struct peer *peer = crowd.peers[0];
    (void)peer_say_hello(peer);
    assert_int_equal(peer_ask_frame(peer, FRAME_GET, "k", "").header.status, FRAME_NO_AUTH);
    assert_int_equal(peer_ask_frame(peer, FRAME_PING, "", "x").header.status, FRAME_NO_AUTH);
    assert_int_equal(peer_ask_frame(peer, FRAME_STATS, "", "").header.status, FRAME_NO_AUTH);
    assert_int_equal(peer_ask_frame(peer, FRAME_AUTH, "", "wrong").header.status, FRAME_NO_AUTH);
    assert_int_equal(peer_ask_frame(peer, FRAME_GET, "k", "").header.status, FRAME_NO_AUTH);
    peer_say_frame(peer, FRAME_AUTH, 1000, "default", "root", 4);
    peer_say_frame(peer, FRAME_SET, 1001, "k", "v", 1); /* in one pipeline */
    assert_int_equal(peer_next_frame(peer).header.status, FRAME_OK);
    assert_int_equal(peer_next_frame(peer).header.status, FRAME_OK);
    struct peer *root = crowd.peers[1];
    peer_say(root, "AUTH", "root", NULL);
    peer_say(root, "ACL", "SETUSER", "u", "on", ">pw", "%R~k", "+get", "+set", NULL);
    peer_expect(root, "+OK\r\n");
    peer_expect(root, "+OK\r\n");
    assert_int_equal(peer_ask_frame(peer, FRAME_AUTH, "u", "pw").header.status, FRAME_OK);
    assert_int_equal(peer_ask_frame(peer, FRAME_GET, "k", "").header.status, FRAME_OK);
    assert_int_equal(peer_ask_frame(peer, FRAME_GET, "other", "").header.status, FRAME_DENIED);
    assert_int_equal(peer_ask_frame(peer, FRAME_SET, "k", "w").header.status, FRAME_DENIED);
    assert_int_equal(peer_ask_frame(peer, FRAME_REMOVE, "k", "").header.status, FRAME_DENIED);
    crowd_close(&crowd);
}

/* ---- CLIENT LIST and KILL -------------------------------------------------------------------------------------- */

/* The numbers in a list, in the order of its lines. */
static unsigned list_ids(struct slice reply, long ids[PEERS])
{
    unsigned count = 0;
    char *text = calloc(1, reply.size + 1);
    assert_non_null(text);
    memcpy(text, reply.data, reply.size);
    for (const char *at = strstr(text, "id="); at != NULL; at = strstr(at, "\nid=")) {
        at += *at == '\n';
        assert_true(count < PEERS);
        ids[count++] = strtol(at + 3, NULL, 10);
        assert_non_null(strstr(at, " lib-ver="));
    }
    free(text);
    return count;
}

static void test_node_access__list_shows_connections_of_all_shards(void **state)
{
    (void)state;
    struct crowd crowd;
    long ids[PEERS], listed[PEERS];
    crowd_open(&crowd, 10, "");
    for (unsigned i = 0; i < PEERS; i++)
        ids[i] = peer_id(crowd.peers[i]);
    unsigned shards = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        struct net_stats stats;
        net_stats(crowd.fixture.node->shards[i].net, &stats);
        shards += stats.connections > 0;
    }
    assert_true(shards > 1); /* or this shows nothing */
    for (unsigned asker = 0; asker < PEERS; asker++) {
        peer_say(crowd.peers[asker], "CLIENT", "LIST", NULL);
        peer_say(crowd.peers[asker], "PING", NULL); /* it goes on afterwards */
        assert_int_equal(list_ids(peer_reply(crowd.peers[asker]), listed), PEERS);
        peer_expect(crowd.peers[asker], "+PONG\r\n");
        for (unsigned i = 0; i + 1 < PEERS; i++)
            assert_true(listed[i] < listed[i + 1]);
        for (unsigned i = 0; i < PEERS; i++) {
            bool found = false;
            for (unsigned j = 0; j < PEERS; j++)
                found |= listed[j] == ids[i];
            assert_true(found);
        }
    }
    char id[24];
    snprintf(id, sizeof(id), "%ld", ids[3]);
    peer_say(crowd.peers[0], "CLIENT", "LIST", "ID", id, "999", NULL);
    assert_int_equal(list_ids(peer_reply(crowd.peers[0]), listed), 1);
    assert_int_equal(listed[0], ids[3]);
    peer_say(crowd.peers[0], "CLIENT", "LIST", "TYPE", "pubsub", NULL);
    peer_expect(crowd.peers[0], "$0\r\n\r\n");
    peer_say(crowd.peers[0], "CLIENT", "LIST", "TYPE", "what", NULL);
    peer_expect(crowd.peers[0], "-ERR Unknown client type 'what'\r\n");
    crowd_close(&crowd);
}

static void test_node_access__kill_across_shards(void **state)
{
    (void)state;
    struct crowd crowd;
    long ids[PEERS], listed[PEERS];
    char id[24];
    crowd_open(&crowd, 11, "");
    for (unsigned i = 0; i < PEERS; i++)
        ids[i] = peer_id(crowd.peers[i]);
    struct peer *root = crowd.peers[0];
    for (unsigned i = 1; i < 4; i++) {
        snprintf(id, sizeof(id), "%ld", ids[i]);
        peer_say(root, "CLIENT", "KILL", "ID", id, NULL);
        peer_expect(root, ":1\r\n");
        peer_expect_end(crowd.peers[i]);
        peer_say(root, "CLIENT", "KILL", "ID", id, NULL);
        peer_expect(root, ":0\r\n");
    }
    peer_say(root, "CLIENT", "LIST", NULL);
    assert_int_equal(list_ids(peer_reply(root), listed), PEERS - 3);
    peer_say(root, "CLIENT", "KILL", "1.2.3.4:5", NULL);
    peer_expect(root, "-ERR No such client\r\n");
    peer_say(root, "CLIENT", "KILL", "MAXAGE", "1000", NULL);
    peer_expect(root, ":0\r\n");
    peer_say(root, "CLIENT", "KILL", "USER", "nobody", NULL);
    peer_expect(root, "-ERR No such user 'nobody'\r\n");
    peer_say(root, "CLIENT", "KILL", "TYPE", "normal", NULL); /* all but the one who asks */
    peer_expect(root, ":4\r\n");
    for (unsigned i = 4; i < PEERS; i++)
        peer_expect_end(crowd.peers[i]);
    peer_say(root, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no", NULL);
    peer_say(root, "PING", NULL); /* not any more */
    peer_expect(root, ":1\r\n");
    peer_expect_end(root);
    assert_int_equal(root->in_read, root->in_size);
    crowd_close(&crowd);
}

/* ---- PAUSE ----------------------------------------------------------------------------------------------------- */

static bool never(void *context)
{
    (void)context;
    return false;
}

static void test_node_access__pause_of_writes(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 12, "");
    struct peer *root = crowd.peers[0];
    peer_say(root, "CLIENT", "PAUSE", "3600000", "WRITE", NULL);
    peer_expect(root, "+OK\r\n");
    for (unsigned i = 1; i < PEERS; i++) {
        peer_say(crowd.peers[i], "GET", "k", NULL);
        peer_say(crowd.peers[i], "SET", "k", "v", NULL);
        peer_say(crowd.peers[i], "PING", NULL); /* waits behind it */
        peer_expect(crowd.peers[i], "$-1\r\n");
    }
    (void)sim_run_until(never, NULL, 20000);
    for (unsigned i = 1; i < PEERS; i++)
        assert_false(peer_has_reply(crowd.peers[i]));
    peer_say(root, "GET", "k", NULL);
    peer_expect(root, "$-1\r\n"); /* not one of them has got through */
    peer_say(root, "CLIENT", "UNPAUSE", NULL);
    peer_expect(root, "+OK\r\n");
    for (unsigned i = 1; i < PEERS; i++) {
        peer_expect(crowd.peers[i], "+OK\r\n");
        peer_expect(crowd.peers[i], "+PONG\r\n");
    }
    crowd_close(&crowd);
}

static void test_node_access__pause_of_all_ends_by_itself(void **state)
{
    (void)state;
    struct crowd crowd;
    static const char line[] = "set \"k k\" \"a\\x41 b\"\r\nget 'k k'\r\n"; /* decoded in place, which works once */
    crowd_open(&crowd, 13, "");
    struct peer *root = crowd.peers[0], *peer = crowd.peers[1];
    (void)peer_id(peer);
    peer_say(root, "CLIENT", "PAUSE", "1500", NULL);
    peer_expect(root, "+OK\r\n");
    uint64_t since_ns = ring_now_ns(crowd.fixture.peer_ring);
    memcpy(peer_room(peer, strlen(line)), line, strlen(line));
    peer->out_size += strlen(line);
    peer_push(peer);
    peer_expect(peer, "+OK\r\n");
    assert_true(ring_now_ns(crowd.fixture.peer_ring) - since_ns > 1400000000u);
    peer_expect(peer, "$4\r\naA b\r\n");
    crowd_close(&crowd);
}

static void test_node_access__stop_in_a_pause(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 14, "");
    peer_say(crowd.peers[0], "CLIENT", "PAUSE", "3600000", NULL);
    peer_expect(crowd.peers[0], "+OK\r\n");
    for (unsigned i = 1; i < PEERS; i++)
        peer_say(crowd.peers[i], "SET", "k", "v", NULL);
    (void)sim_run_until(never, NULL, 5000);
    fixture_stop_threads(&crowd.fixture, false);
    fixture_free(&crowd.fixture);
    for (unsigned i = 0; i < PEERS; i++)
        peer_free(crowd.peers[i]);
    fixture_machine_end();
}

/* ---- REPLY and others ------------------------------------------------------------------------------------------ */

static void test_node_access__reply_off_and_skip(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_open(&crowd, 15, "");
    struct peer *peer = crowd.peers[0];
    peer_say(peer, "CLIENT", "REPLY", "SKIP", NULL);
    peer_say(peer, "SET", "k", "1", NULL);
    peer_say(peer, "GET", "k", NULL);
    peer_say(peer, "CLIENT", "REPLY", "OFF", NULL);
    for (unsigned i = 0; i < 20; i++) { /* keys of all shards: some answers come later */
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        peer_say(peer, "SET", key, "2", NULL);
        peer_say(peer, "NOSUCH", NULL);
    }
    peer_say(peer, "CLIENT", "REPLY", "ON", NULL);
    peer_say(peer, "GET", "k19", NULL);
    peer_expect(peer, "$1\r\n1\r\n");
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, "$1\r\n2\r\n");
    peer_say(peer, "CLIENT", "REPLY", "what", NULL);
    peer_expect(peer, "-ERR syntax error\r\n");
    crowd_close(&crowd);
}

static void test_node_access__idle_connections_end(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(2);
    config.idle_timeout_s = 5;
    fixture_machine(16);
    fixture_start(&fixture, &config);
    struct peer *idle = peer_open(&fixture), *busy = peer_open(&fixture);
    uint64_t since_ns = ring_now_ns(fixture.peer_ring);
    peer_say(idle, "PING", NULL);
    peer_expect(idle, "+PONG\r\n");
    while (!idle->ended) {
        peer_say(busy, "PING", NULL);
        peer_expect(busy, "+PONG\r\n");
        (void)sim_run_until(peer_has_ended, idle, 20);
        assert_true(ring_now_ns(fixture.peer_ring) - since_ns < 60000000000u);
    }
    uint64_t after_ns = ring_now_ns(fixture.peer_ring) - since_ns;
    assert_true(after_ns >= 5000000000u && after_ns < 7000000000u);
    assert_false(busy->ended);
    peer_close(idle);
    peer_close(busy);
    fixture_stop(&fixture, false);
    fixture_machine_end();
}

static void note_done(struct derive_job *job)
{
    job->secrets->salt.rounds = 0;
}

static void test_node_access__derivations_leave_room_for_requests(void **state)
{
    (void)state;
    struct derive_queue queue;
    struct acl_secret secrets[3] = {
        {.salt = {.rounds = 4 * DERIVE_ROUNDS}}, {.salt = {.rounds = 1000}}, {.salt = {.rounds = 1}}};
    struct derive_job jobs[3];
    derive_init(&queue);
    for (unsigned i = 0; i < 3; i++) {
        jobs[i] = (struct derive_job){.secrets = &secrets[i], .count = 1, .done = note_done};
        assert_true(derive_add(&queue, &jobs[i]));
    }
    uint64_t now_ns = 1000000000;
    for (unsigned i = 0; i < 100; i++) /* busy: one slice in a millisecond, however many turns */
        derive_turn(&queue, now_ns + i, false);
    assert_int_equal(jobs[0].derivation.left, 3 * DERIVE_ROUNDS - 1);
    for (unsigned i = 0; i < 3; i++)
        derive_turn(&queue, now_ns += DERIVE_BUSY_NS, false);
    assert_int_equal(secrets[0].salt.rounds, 0); /* done; the next has not begun */
    assert_int_equal(secrets[1].salt.rounds, 1000);
    for (unsigned i = 0; i < 3; i++) /* idle: as fast as it goes */
        derive_turn(&queue, now_ns, true);
    assert_false(derive_waiting(&queue));
    static struct derive_job many[DERIVE_JOBS_MAX + 1];
    for (unsigned i = 0; i <= DERIVE_JOBS_MAX; i++) {
        many[i] = (struct derive_job){.secrets = secrets, .count = 1, .done = note_done};
        assert_int_equal(derive_add(&queue, &many[i]), i < DERIVE_JOBS_MAX);
    }
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static void on_done(struct ring_op *op)
{
    (void)op;
}

static int open_file(struct ring *ring, const char *path, unsigned flags)
{
    struct ring_op op;
    ring_op_init(&op, on_done);
    ring_file_open(ring, &op, AT_FDCWD, path, flags);
    ring_await(ring, &op);
    return op.error == KVS_ERR_OK ? op.fd : -1;
}

/* Makes "/users" and a durable file of users in it. */
static void write_users(const char *text)
{
    struct ring *ring;
    struct ring_op op;
    struct ring_options options = {.entries = 64};
    char message[RING_MESSAGE_BYTES];
    int folder;
    assert_int_equal(ring_open(&ring, &options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, "/users", &folder), KVS_ERR_OK);
    int fd = open_file(ring, "/users/users.acl", RING_OPEN_WRITE | RING_OPEN_CREATE);
    assert_true(fd >= 0);
    ring_op_init(&op, on_done);
    ring_file_write(ring, &op, fd, text, strlen(text), 0, 0);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    ring_file_sync(ring, &op, fd);
    ring_await(ring, &op);
    ring_file_sync(ring, &op, folder);
    ring_await(ring, &op);
    ring_close_fd(ring, fd);
    ring_close_fd(ring, folder);
    ring_close(ring);
}

static void test_node_access__file_survives_a_restart(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(2);
    config.acl_file = "/users/users.acl";
    fixture_machine(17);
    write_users("user default on nopass ~* &* +@all\nuser old on nopass +ping\n");
    fixture_start(&fixture, &config);
    struct peer *root = peer_open(&fixture), *old = peer_open(&fixture);
    peer_say(old, "AUTH", "old", "", NULL);
    peer_expect(old, "+OK\r\n");
    peer_say(root, "ACL", "SETUSER", "new", "on", ">pw", "~n*", "+get", NULL);
    peer_say(root, "ACL", "DELUSER", "old", NULL);
    peer_say(root, "ACL", "SAVE", NULL);
    peer_say(root, "ACL", "SETUSER", "unsaved", NULL);
    peer_expect(root, "+OK\r\n");
    peer_expect(root, ":1\r\n");
    peer_expect(root, "+OK\r\n");
    peer_expect(root, "+OK\r\n");
    peer_expect_end(old);
    peer_say(root, "ACL", "LOAD", NULL);
    peer_say(root, "ACL", "USERS", NULL);
    peer_expect(root, "+OK\r\n");
    peer_expect(root, "*2\r\n$7\r\ndefault\r\n$3\r\nnew\r\n");
    peer_free(root);
    peer_free(old);
    fixture_crash(&fixture, SIM_RANDOM);

    fixture_start(&fixture, &config);
    struct peer *peer = peer_open(&fixture);
    peer_say(peer, "AUTH", "new", "pw", NULL);
    peer_say(peer, "GET", "n", NULL);
    peer_say(peer, "GET", "x", NULL);
    peer_expect(peer, "+OK\r\n");
    peer_expect(peer, "$-1\r\n");
    peer_expect(peer, "-NOPERM No permissions to access a key\r\n");
    peer_close(peer);
    fixture_stop(&fixture, false);
    fixture_machine_end();
}

/* Power fails anywhere in the middle of a save: the users are those of before or those of after it. */
static void test_node_access__a_crash_leaves_the_old_file_or_the_new(void **state)
{
    (void)state;
    unsigned old_count = 0, new_count = 0;
    for (unsigned steps = 0; steps < 400; steps += 3) {
        struct node_fixture fixture;
        struct config config = fixture_config(1);
        config.acl_file = "/users/users.acl";
        fixture_machine(steps + 100);
        write_users("user default on nopass ~* &* +@all\nuser old on nopass +ping\n");
        fixture_start(&fixture, &config);
        struct peer *root = peer_open(&fixture);
        peer_say(root, "ACL", "SETUSER", "new", "on", "nopass", "~n*", "+get", NULL);
        peer_say(root, "ACL", "DELUSER", "old", NULL);
        peer_expect(root, "+OK\r\n");
        peer_expect(root, ":1\r\n");
        peer_say(root, "ACL", "SAVE", NULL);
        bool acknowledged = sim_run_until(peer_has_reply, root, steps);
        fixture_crash(&fixture, SIM_RANDOM);
        peer_free(root);

        fixture_start(&fixture, &config);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "ACL", "USERS", NULL);
        struct slice users = peer_reply(peer);
        bool is_old = slice_equal(users, slice_text("*2\r\n$7\r\ndefault\r\n$3\r\nold\r\n"));
        bool is_new = slice_equal(users, slice_text("*2\r\n$7\r\ndefault\r\n$3\r\nnew\r\n"));
        assert_true(is_old != is_new);
        assert_true(is_new || !acknowledged);
        old_count += is_old;
        new_count += is_new;
        peer_say(peer, "ACL", "SAVE", NULL); /* whatever the crash has left */
        peer_expect(peer, "+OK\r\n");
        peer_close(peer);
        fixture_stop(&fixture, false);
        fixture_machine_end();
    }
    assert_true(old_count > 0 && new_count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node_access__nobody_gets_in_without_the_password),
        cmocka_unit_test(test_node_access__hello_logs_in_and_names),
        cmocka_unit_test(test_node_access__auth_without_a_password_set),
        cmocka_unit_test(test_node_access__a_client_that_leaves_while_it_logs_in),
        cmocka_unit_test(test_node_access__rights_of_two_users),
        cmocka_unit_test(test_node_access__changes_are_seen_at_once_everywhere),
        cmocka_unit_test(test_node_access__setuser_that_is_wrong_changes_nothing),
        cmocka_unit_test(test_node_access__frames_need_auth_too),
        cmocka_unit_test(test_node_access__list_shows_connections_of_all_shards),
        cmocka_unit_test(test_node_access__kill_across_shards),
        cmocka_unit_test(test_node_access__pause_of_writes),
        cmocka_unit_test(test_node_access__pause_of_all_ends_by_itself),
        cmocka_unit_test(test_node_access__stop_in_a_pause),
        cmocka_unit_test(test_node_access__reply_off_and_skip),
        cmocka_unit_test(test_node_access__idle_connections_end),
        cmocka_unit_test(test_node_access__derivations_leave_room_for_requests),
        cmocka_unit_test(test_node_access__file_survives_a_restart),
        cmocka_unit_test(test_node_access__a_crash_leaves_the_old_file_or_the_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
