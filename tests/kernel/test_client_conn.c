/*
 * test_client_conn.c - the asynchronous connection against servers that cut, reorder, lie and die.
 */
#include "client/client_conn.h"
#include "client_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PATIENCE_NS INT64_C(10000000000)

/* What the callbacks have seen. */
struct seen {
    struct client_conn *conn;
    bool opened;
    unsigned replies;
    uint64_t tags[4096];
    enum kvs_err errors[4096];
    char last_value[64];
    size_t value_bytes; /* of all replies */
    unsigned closed;
    enum kvs_err closed_error;
    uint32_t pending_at_close;
    char message[512];
    bool close_on_reply; /* what to do in the reply callback */
};

static struct ring *ring;
static struct seen seen;

static void on_opened(void *context)
{
    ((struct seen *)context)->opened = true;
}

static void on_reply(void *context, uint64_t tag, const struct client_reply *reply)
{
    struct seen *s = context;
    s->tags[s->replies] = tag;
    s->errors[s->replies] = reply->error;
    s->replies++;
    s->value_bytes += reply->value.size;
    snprintf(s->last_value, sizeof(s->last_value), "%.*s", (int)(reply->value.size < 60 ? reply->value.size : 60),
             (const char *)reply->value.data);
    if (s->close_on_reply)
        client_conn_close(s->conn);
}

static void on_closed(void *context, enum kvs_err error, const char *message)
{
    struct seen *s = context;
    s->closed++;
    s->closed_error = error;
    s->pending_at_close = client_conn_pending(s->conn);
    snprintf(s->message, sizeof(s->message), "%s", message);
    client_conn_free(s->conn);
    s->conn = NULL;
}

static const struct client_handlers handlers = {.opened = on_opened, .reply = on_reply, .closed = on_closed};

static void open_ring(unsigned buffer_count, unsigned buffer_bytes)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 16, .buffer_count = buffer_count, .buffer_bytes = buffer_bytes};
    assert_int_equal(ring_open(&ring, &options, message), KVS_ERR_OK);
    memset(&seen, 0, sizeof(seen));
}

static void open_conn(unsigned port, enum client_protocol protocol, uint32_t requests_max)
{
    char text[64];
    struct ring_addr addr;
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    assert_int_equal(ring_addr_parse_tcp(text, &addr), KVS_ERR_OK);
    const struct client_options options = {.protocol = protocol,
                                           .requests_max = requests_max,
                                           .output_bytes_max = 64 * 1024,
                                           .reply_bytes_max = 2 * 1024 * 1024};
    assert_int_equal(client_conn_open(&seen.conn, ring, &addr, &options, &handlers, &seen), KVS_ERR_OK);
}

static void turn_until_replies(unsigned count)
{
    while (seen.replies < count && seen.closed == 0)
        assert_true(ring_turn(ring, PATIENCE_NS) > 0);
}

static void turn_until_open(void)
{
    while (!seen.opened && seen.closed == 0)
        assert_true(ring_turn(ring, PATIENCE_NS) > 0);
    assert_true(seen.opened);
}

static void turn_until_closed(void)
{
    while (seen.closed == 0)
        assert_true(ring_turn(ring, PATIENCE_NS) > 0);
}

static void send_op(enum client_op op, const char *key, uint64_t tag)
{
    const struct client_request request = {
        .op = op, .key = slice_text(key), .value = slice_text(op == CLIENT_SET ? "value" : ""), .tag = tag};
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_OK);
}

static void finish(struct test_server *server)
{
    if (seen.conn != NULL) {
        client_conn_close(seen.conn);
        turn_until_closed();
        assert_int_equal(seen.closed_error, KVS_ERR_OK);
    }
    assert_int_equal(seen.closed, 1);
    ring_close(ring); /* first: a script may still be sending to a descriptor that closes with it */
    test_server_stop(server);
}

/* ---- RESP ------------------------------------------------------------------------------------------------------ */

static const char four_replies[] = "$5\r\nh\r\nlo\r\n$-1\r\n+OK\r\n-ERR a very long reason\r\n";

static void script_byte_by_byte(int fd)
{
    for (const char *next = four_replies; *next != 0; next++) {
        script_write(fd, next, 1);
        usleep(300);
    }
    script_drain(fd);
}

static void send_four(void)
{
    send_op(CLIENT_GET, "a", 1);
    send_op(CLIENT_GET, "b", 2);
    send_op(CLIENT_SET, "c", 3);
    send_op(CLIENT_SET, "d", 4);
    client_conn_flush(seen.conn);
}

static void expect_four(void)
{
    static const enum kvs_err errors[] = {KVS_ERR_OK, KVS_ERR_NOT_FOUND, KVS_ERR_OK, KVS_ERR_REMOTE};
    assert_int_equal(seen.replies, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(seen.tags[i], i + 1);
        assert_int_equal(seen.errors[i], errors[i]);
    }
    assert_string_equal(seen.last_value, "ERR a very long reason");
}

static void test_client_conn__replies_arrive_byte_by_byte(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_byte_by_byte);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_RESP, 8);
    turn_until_open();
    send_four();
    turn_until_replies(4);
    expect_four();
    finish(&server);
}

/* 64-byte receive buffers cut replies at every place there is, and there are too few of them. */
enum { MANY = 2000, MANY_VALUE = 37 };

static void script_many(int fd)
{
    static char bytes[MANY * (MANY_VALUE + 7) + 1];
    size_t size = 0;
    for (int i = 0; i < MANY; i++)
        size += (size_t)sprintf(bytes + size, "$%d\r\n%0*d\r\n", MANY_VALUE, MANY_VALUE, i);
    char first;
    script_check(script_read(fd, &first, 1));
    script_write(fd, bytes, size);
    script_drain(fd);
}

static void test_client_conn__replies_lie_across_buffers_and_buffers_run_out(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_many);
    open_ring(4, 64);
    open_conn(server.port, CLIENT_RESP, MANY);
    turn_until_open();
    for (uint64_t i = 0; i < MANY; i++)
        send_op(CLIENT_GET, "k", i);
    client_conn_flush(seen.conn);
    turn_until_replies(MANY);
    assert_int_equal(seen.replies, MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(seen.tags[i], i);
    assert_int_equal(seen.value_bytes, MANY * MANY_VALUE);
    assert_int_equal(atoi(seen.last_value), MANY - 1);
    finish(&server);
}

static void script_die_in_reply(int fd)
{
    char first;
    script_check(script_read(fd, &first, 1));
    script_write(fd, "+OK\r\n$100\r\nonly so m", 21);
    shutdown(fd, SHUT_WR);
    script_drain(fd);
}

static void test_client_conn__server_dies_in_the_middle_of_a_reply(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_die_in_reply);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_RESP, 8);
    turn_until_open();
    send_op(CLIENT_SET, "a", 1);
    send_op(CLIENT_GET, "a", 2);
    client_conn_flush(seen.conn);
    turn_until_closed();
    assert_int_equal(seen.replies, 1);
    assert_int_equal(seen.closed_error, KVS_ERR_CLOSED);
    assert_int_equal(seen.pending_at_close, 1);
    assert_non_null(strstr(seen.message, "127.0.0.1:"));
    finish(&server);
}

static void script_garbage(int fd)
{
    script_write(fd, "SSH-2.0-OpenSSH_9.2\r\n", 21);
    script_drain(fd);
}

static void test_client_conn__garbage_ends_the_connection(void **state)
{
    (void)state;
    static const enum client_protocol protocols[] = {CLIENT_RESP, CLIENT_BINARY};
    for (unsigned i = 0; i < 2; i++) {
        struct test_server server;
        test_server_start(&server, script_garbage);
        open_ring(8, 4096);
        open_conn(server.port, protocols[i], 8);
        turn_until_closed();
        assert_int_equal(seen.closed_error, KVS_ERR_PROTOCOL);
        finish(&server);
    }
}

static void script_endless_reply(int fd)
{
    char first;
    script_check(script_read(fd, &first, 1));
    script_write(fd, "$8000000\r\n", 10);
    static const char zeros[65536];
    while (send(fd, zeros, sizeof(zeros), MSG_NOSIGNAL) > 0) {
    }
}

static void test_client_conn__reply_beyond_the_limit_ends_the_connection(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_endless_reply);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_RESP, 8);
    turn_until_open();
    send_op(CLIENT_GET, "a", 1);
    client_conn_flush(seen.conn);
    turn_until_closed();
    assert_int_equal(seen.closed_error, KVS_ERR_TOO_LARGE);
    finish(&server);
}

/* ---- binary ---------------------------------------------------------------------------------------------------- */

static void script_reversed(int fd)
{
    struct frame_header requests[3];
    uint8_t body[256];
    script_hello(fd, FRAME_VERSION);
    for (int i = 0; i < 3; i++)
        script_check(script_read_frame(fd, &requests[i], body, sizeof(body)));
    for (int i = 2; i >= 0; i--) {
        script_reply(fd, &requests[i], FRAME_OK, "abc", (size_t)i + 1);
        usleep(1000);
    }
    script_drain(fd);
}

static void test_client_conn__binary_replies_out_of_order(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_reversed);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_BINARY, 8);
    turn_until_open();
    for (uint64_t tag = 1; tag <= 3; tag++)
        send_op(CLIENT_GET, "a", tag);
    client_conn_flush(seen.conn);
    turn_until_replies(3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(seen.tags[i], 3 - i);
    assert_string_equal(seen.last_value, "a");
    finish(&server);
}

static void script_reply_twice(int fd)
{
    struct frame_header request;
    uint8_t body[256];
    script_hello(fd, FRAME_VERSION);
    script_check(script_read_frame(fd, &request, body, sizeof(body)));
    script_reply(fd, &request, FRAME_OK, "", 0);
    script_reply(fd, &request, FRAME_OK, "", 0);
    script_drain(fd);
}

static void test_client_conn__second_reply_to_a_request_ends_the_connection(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_reply_twice);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_BINARY, 8);
    turn_until_open();
    send_op(CLIENT_SET, "a", 1);
    client_conn_flush(seen.conn);
    turn_until_closed();
    assert_int_equal(seen.replies, 1);
    assert_int_equal(seen.closed_error, KVS_ERR_PROTOCOL);
    finish(&server);
}

static void script_wrong_version(int fd)
{
    script_hello(fd, FRAME_VERSION + 1);
    script_drain(fd);
}

static void script_version_refused(int fd)
{
    struct frame_header header;
    struct frame_hello hello;
    script_check(script_read_frame(fd, &header, (uint8_t *)&hello, sizeof(hello)));
    script_reply(fd, &header, FRAME_VERSION_UNKNOWN, "speaks 7 to 9", 13);
    script_drain(fd);
}

static void test_client_conn__unknown_version_is_refused(void **state)
{
    (void)state;
    void (*const scripts[])(int) = {script_wrong_version, script_version_refused};
    for (unsigned i = 0; i < 2; i++) {
        struct test_server server;
        test_server_start(&server, scripts[i]);
        open_ring(8, 4096);
        open_conn(server.port, CLIENT_BINARY, 8);
        turn_until_closed();
        assert_false(seen.opened);
        assert_int_equal(seen.closed_error, KVS_ERR_VERSION);
        if (i == 1)
            assert_non_null(strstr(seen.message, "speaks 7 to 9"));
        finish(&server);
    }
}

/* ---- either ---------------------------------------------------------------------------------------------------- */

static void test_client_conn__refused(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL);
    unsigned port = server.port;
    test_server_stop(&server);
    open_ring(8, 4096);
    open_conn(port, CLIENT_BINARY, 8);
    const struct client_request request = {.op = CLIENT_PING};
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_CLOSED);
    turn_until_closed();
    assert_false(seen.opened);
    assert_int_equal(seen.closed, 1);
    assert_int_equal(seen.closed_error, KVS_ERR_REFUSED);
    assert_non_null(strstr(seen.message, "connection refused"));
    ring_close(ring);
}

static void script_silent(int fd)
{
    script_drain(fd);
}

static void test_client_conn__requests_and_output_are_bounded(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_silent);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_RESP, 4);
    turn_until_open();
    static const char value[70000];
    struct client_request request = {.op = CLIENT_SET, .key = slice_text("a"), .value = slice_make(value, 70000)};
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_TOO_LARGE);
    request.value.size = 40000;
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_OK);
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_AGAIN); /* 64 KiB wait already */
    for (int i = 0; i < 3; i++)
        send_op(CLIENT_GET, "a", 0);
    request.value.size = 1;
    assert_int_equal(client_conn_send(seen.conn, &request), KVS_ERR_AGAIN); /* four requests are under way */
    assert_int_equal(client_conn_pending(seen.conn), 4);
    finish(&server);
    assert_int_equal(seen.pending_at_close, 4);
}

static void script_all_at_once(int fd)
{
    script_write(fd, four_replies, sizeof(four_replies) - 1);
    script_drain(fd);
}

static void test_client_conn__closing_inside_a_reply(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, script_all_at_once);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_RESP, 8);
    turn_until_open();
    seen.close_on_reply = true;
    send_four();
    turn_until_closed();
    assert_int_equal(seen.replies, 1);
    assert_int_equal(seen.closed_error, KVS_ERR_OK);
    finish(&server);
}

static void test_client_conn__closing_while_connecting(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL);
    open_ring(8, 4096);
    open_conn(server.port, CLIENT_BINARY, 8);
    finish(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_conn__replies_arrive_byte_by_byte),
        cmocka_unit_test(test_client_conn__replies_lie_across_buffers_and_buffers_run_out),
        cmocka_unit_test(test_client_conn__server_dies_in_the_middle_of_a_reply),
        cmocka_unit_test(test_client_conn__garbage_ends_the_connection),
        cmocka_unit_test(test_client_conn__reply_beyond_the_limit_ends_the_connection),
        cmocka_unit_test(test_client_conn__binary_replies_out_of_order),
        cmocka_unit_test(test_client_conn__second_reply_to_a_request_ends_the_connection),
        cmocka_unit_test(test_client_conn__unknown_version_is_refused),
        cmocka_unit_test(test_client_conn__refused),
        cmocka_unit_test(test_client_conn__requests_and_output_are_bounded),
        cmocka_unit_test(test_client_conn__closing_inside_a_reply),
        cmocka_unit_test(test_client_conn__closing_while_connecting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
