/*
 * test_client_kvs.c - the blocking interface: every call against a small server of one key, and every way it can fail.
 */
#include "client/kvs.h"
#include "client_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#define BIG_BYTES (1024u * 1024)

static char message[KVS_MESSAGE_BYTES];
static uint8_t body[BIG_BYTES + 65536];

/* Keeps the one value of whatever key; a relaxed write is answered NO_SPACE, so that the flag is seen to arrive. */
static void script_one_key(int fd)
{
    static uint8_t stored[BIG_BYTES];
    size_t stored_bytes = 0;
    bool there = false;
    struct frame_header request;
    script_hello(fd, FRAME_VERSION);
    while (script_read_frame(fd, &request, body, sizeof(body))) {
        bool relaxed = (request.flags & FRAME_RELAXED) != 0;
        switch ((enum frame_opcode)request.opcode) {
        case FRAME_GET:
            script_reply(fd, &request, there ? FRAME_OK : FRAME_NOT_FOUND, stored, there ? stored_bytes : 0);
            break;
        case FRAME_SET:
            if (!relaxed) {
                stored_bytes = request.value_bytes;
                memcpy(stored, body + request.key_bytes, stored_bytes);
                there = true;
            }
            script_reply(fd, &request, relaxed ? FRAME_NO_SPACE : FRAME_OK, "disk full", relaxed ? 9 : 0);
            break;
        case FRAME_REMOVE:
            script_reply(fd, &request, there ? FRAME_OK : FRAME_NOT_FOUND, "", 0);
            there = false;
            break;
        case FRAME_STATS:
            script_reply(fd, &request, FRAME_OK, body, request.key_bytes); /* the section comes back */
            break;
        default:
            script_reply(fd, &request, FRAME_OK, "", 0);
            break;
        }
    }
}

static struct kvs *connect_to(const struct test_server *server, uint32_t timeout_ms)
{
    char address[64];
    struct kvs *store;
    const struct kvs_options options = {.timeout_ms = timeout_ms};
    enum kvs_err err = kvs_connect(&store, test_server_text(server, address), &options, message);
    if (err != KVS_ERR_OK)
        fail_msg("kvs_connect: %s", message);
    return store;
}

static void expect_stored(struct kvs *store, const void *expected, size_t expected_bytes)
{
    const void *value;
    size_t value_bytes;
    assert_int_equal(kvs_get(store, "k", 1, &value, &value_bytes), KVS_ERR_OK);
    assert_int_equal(value_bytes, expected_bytes);
    if (expected_bytes > 0)
        assert_memory_equal(value, expected, expected_bytes);
}

static void test_kvs__every_call(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_one_key);
    struct kvs *store = connect_to(&server, 0);
    const void *value;
    size_t value_bytes;
    assert_int_equal(kvs_ping(store), KVS_ERR_OK);
    assert_int_equal(kvs_get(store, "k", 1, &value, &value_bytes), KVS_ERR_NOT_FOUND);
    assert_int_equal(kvs_set(store, "k", 1, "a\0b\n", 4, KVS_DURABLE), KVS_ERR_OK);
    expect_stored(store, "a\0b\n", 4);
    assert_int_equal(kvs_set(store, "k", 1, "", 0, KVS_DURABLE), KVS_ERR_OK);
    expect_stored(store, "", 0);
    assert_int_equal(kvs_set(store, "k", 1, "x", 1, KVS_RELAXED), KVS_ERR_NO_SPACE);
    assert_non_null(strstr(kvs_error_text(store), "disk full"));
    assert_int_equal(kvs_remove(store, "k", 1, KVS_DURABLE), KVS_ERR_OK);
    assert_int_equal(kvs_remove(store, "k", 1, KVS_DURABLE), KVS_ERR_NOT_FOUND);
    const char *text;
    assert_int_equal(kvs_stats(store, "server", &text), KVS_ERR_OK);
    assert_string_equal(text, "server");
    assert_string_equal(kvs_error_text(store), "success");
    kvs_disconnect(store);
    test_server_stop(&server);
}

static void test_kvs__values_of_a_mebibyte(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_one_key);
    struct kvs *store = connect_to(&server, 0);
    static uint8_t value[BIG_BYTES];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(value); i++)
            value[i] = (uint8_t)(i * 31 + i / 251 + (size_t)round);
        size_t size = sizeof(value) - (size_t)round;
        assert_int_equal(kvs_set(store, "k", 1, value, size, KVS_DURABLE), KVS_ERR_OK);
        expect_stored(store, value, size);
    }
    kvs_disconnect(store);
    test_server_stop(&server);
}

static void test_kvs__too_large_is_refused_and_the_handle_stays_good(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_one_key);
    struct kvs *store = connect_to(&server, 0);
    static const uint8_t key[65536];
    assert_int_equal(kvs_set(store, key, sizeof(key), "", 0, KVS_DURABLE), KVS_ERR_TOO_LARGE);
    assert_string_equal(kvs_error_text(store), "too large");
    assert_int_equal(kvs_set(store, "k", 1, "v", 1, KVS_DURABLE), KVS_ERR_OK);
    kvs_disconnect(store);
    test_server_stop(&server);
}

/* ---- the connection ends --------------------------------------------------------------------------------------- */

static void script_silent_after_hello(int fd)
{
    script_hello(fd, FRAME_VERSION);
    script_drain(fd);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void test_kvs__silent_server_times_out(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_silent_after_hello);
    struct kvs *store = connect_to(&server, 2000); /* enough for a busy machine to connect in */
    uint64_t begin_ms = now_ms();
    assert_int_equal(kvs_set(store, "k", 1, "v", 1, KVS_DURABLE), KVS_ERR_TIMEOUT);
    uint64_t took_ms = now_ms() - begin_ms;
    assert_true(took_ms >= 2000);
    assert_non_null(strstr(kvs_error_text(store), "2000 ms"));
    assert_int_equal(kvs_ping(store), KVS_ERR_CLOSED); /* a late reply must not be taken for this one's */
    assert_non_null(strstr(kvs_error_text(store), "2000 ms"));
    kvs_disconnect(store);
    test_server_stop(&server);
}

static void test_kvs__server_that_never_says_hello_times_out(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL); /* the kernel accepts, nobody answers */
    char address[64];
    struct kvs *store;
    const struct kvs_options options = {.timeout_ms = 200};
    assert_int_equal(kvs_connect(&store, test_server_text(&server, address), &options, message), KVS_ERR_TIMEOUT);
    assert_null(store);
    assert_non_null(strstr(message, address));
    test_server_stop(&server);
}

static void script_die_in_reply(int fd)
{
    struct frame_header request;
    script_hello(fd, FRAME_VERSION);
    script_check(script_read_frame(fd, &request, body, sizeof(body)));
    struct frame_header reply = {
        .magic = FRAME_MAGIC, .opcode = request.opcode, .flags = FRAME_REPLY, .value_bytes = 100, .id = request.id};
    script_write(fd, &reply, sizeof(reply));
    script_write(fd, "only so much", 12);
}

static void test_kvs__server_dies_in_the_middle_of_a_reply(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_die_in_reply);
    struct kvs *store = connect_to(&server, 0);
    const void *value;
    size_t value_bytes;
    assert_int_equal(kvs_get(store, "k", 1, &value, &value_bytes), KVS_ERR_CLOSED);
    assert_non_null(strstr(kvs_error_text(store), "closed"));
    assert_int_equal(kvs_get(store, "k", 1, &value, &value_bytes), KVS_ERR_CLOSED);
    kvs_disconnect(store);
    test_server_stop(&server);
}

static void script_answer_and_leave(int fd)
{
    struct frame_header request;
    script_hello(fd, FRAME_VERSION);
    script_check(script_read_frame(fd, &request, body, sizeof(body)));
    /* MSG_MORE keeps the reply back until the end of the stream goes with it: the client sees both in one turn. */
    const struct frame_header reply = {
        .magic = FRAME_MAGIC, .opcode = request.opcode, .flags = FRAME_REPLY, .id = request.id};
    script_check(send(fd, &reply, sizeof(reply), MSG_MORE | MSG_NOSIGNAL) == sizeof(reply));
    shutdown(fd, SHUT_WR);
    script_drain(fd);
}

static void test_kvs__reply_counts_even_when_the_server_leaves_with_it(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_answer_and_leave);
    struct kvs *store = connect_to(&server, 0);
    assert_int_equal(kvs_ping(store), KVS_ERR_OK);
    assert_int_equal(kvs_ping(store), KVS_ERR_CLOSED);
    kvs_disconnect(store);
    test_server_stop(&server);
}

static void script_wrong_version(int fd)
{
    script_hello(fd, FRAME_VERSION + 1);
    script_drain(fd);
}

static void script_other_protocol(int fd)
{
    script_write(fd, "-ERR unknown command\r\n", 22);
    script_drain(fd);
}

static void script_full(int fd)
{
    struct frame_header header;
    script_check(script_read_frame(fd, &header, body, sizeof(body)));
    script_reply(fd, &header, FRAME_BUSY, "too many connections", 20);
    script_drain(fd);
}

static void test_kvs__connect_says_why_it_failed(void **state)
{
    (void)state;
    static const struct {
        void (*script)(int fd);
        enum kvs_err error;
        const char *text;
    } cases[] = {
        {script_wrong_version, KVS_ERR_VERSION, "version"},
        {script_other_protocol, KVS_ERR_PROTOCOL, "does not speak"},
        {script_full, KVS_ERR_AGAIN, "too many connections"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_server server;
        char address[64];
        struct kvs *store;
        test_server_start(&server, cases[i].script);
        assert_int_equal(kvs_connect(&store, test_server_text(&server, address), NULL, message), cases[i].error);
        assert_null(store);
        assert_non_null(strstr(message, address));
        assert_non_null(strstr(message, cases[i].text));
        test_server_stop(&server);
    }
}

static void test_kvs__connect_refused(void **state)
{
    (void)state;
    struct test_server server;
    char address[64];
    struct kvs *store;
    test_server_start(&server, NULL);
    test_server_text(&server, address);
    test_server_stop(&server);
    assert_int_equal(kvs_connect(&store, address, NULL, message), KVS_ERR_REFUSED);
    assert_non_null(strstr(message, address));
    assert_non_null(strstr(message, "is the server running"));
    assert_int_equal(kvs_connect(&store, "unix:/nonexistent/socket", NULL, message), KVS_ERR_NOT_FOUND);
    assert_non_null(strstr(message, "/nonexistent/socket"));
}

static void test_kvs__bad_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "localhost", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "1.2.3:4", "127.0.0.1:40x"};
    struct kvs *store;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(kvs_connect(&store, bad[i], NULL, message), KVS_ERR_INVALID);
        assert_null(store);
        assert_non_null(strstr(message, bad[i]));
        assert_non_null(strstr(message, "127.0.0.1:4000")); /* the remedy */
    }
    static char long_path[256] = "unix:/";
    memset(long_path + 6, 'x', 200);
    assert_int_equal(kvs_connect(&store, long_path, NULL, message), KVS_ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvs__every_call),
        cmocka_unit_test(test_kvs__values_of_a_mebibyte),
        cmocka_unit_test(test_kvs__too_large_is_refused_and_the_handle_stays_good),
        cmocka_unit_test(test_kvs__silent_server_times_out),
        cmocka_unit_test(test_kvs__server_that_never_says_hello_times_out),
        cmocka_unit_test(test_kvs__server_dies_in_the_middle_of_a_reply),
        cmocka_unit_test(test_kvs__reply_counts_even_when_the_server_leaves_with_it),
        cmocka_unit_test(test_kvs__connect_says_why_it_failed),
        cmocka_unit_test(test_kvs__connect_refused),
        cmocka_unit_test(test_kvs__bad_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
