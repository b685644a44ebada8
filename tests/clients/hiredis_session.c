/*
 * hiredis_session.c - a session of libhiredis, as its users use it: first one call at a time, then pipelines and
 * callbacks.
 *
 *   hiredis-session HOST PORT PASSWORD PROTOCOL
 *
 * Happy path: each part checks what it is told; in the middle "restart" on standard output asks for the node to be
 * killed and started again, and a line on standard input says that it is there (tests/blackbox/client_session.py). Ends
 * with 0.
 *
 * Failure: the first thing that is not as it should be is said on standard error, and the program ends with 1.
 *
 * The protocol is RESP2, the only one that Debian 12's libhiredis speaks.
 */
#include "base/bytes.h"

#include <errno.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

enum { LARGE_BYTES = 4 << 20, PIPELINED = 10000, CALLBACKS = 20000, KEYS = 50, TIMEOUT_S = 120 };

#define CHECK(condition)                                                                              \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            exit(1);                                                                                  \
        }                                                                                             \
    } while (0)

struct server {
    const char *host;
    int port;
    const char *password;
};

/* Every byte there is, and what begins and ends words of the protocol. */
static size_t binary_bytes(char out[300])
{
    static const char words[] = "\r\n$3\r\nGET\r\n";
    for (unsigned i = 0; i < 256; i++)
        out[i] = (char)i;
    memcpy(out + 256, words, sizeof words - 1);
    return 256 + sizeof words - 1;
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static bool is_text(const redisReply *reply, int type, const char *text)
{
    return reply != NULL && reply->type == type && (size_t)reply->len == strlen(text) &&
           memcmp(reply->str, text, strlen(text)) == 0;
}

/* Each takes the reply away from its caller, who is told whether it was right. */
static bool took_status(redisReply *reply, const char *text)
{
    const bool right = is_text(reply, REDIS_REPLY_STATUS, text);
    freeReplyObject(reply);
    return right;
}

static bool took_string(redisReply *reply, const char *text)
{
    const bool right = is_text(reply, REDIS_REPLY_STRING, text);
    freeReplyObject(reply);
    return right;
}

static bool took_error(redisReply *reply, const char *text)
{
    const bool right = is_text(reply, REDIS_REPLY_ERROR, text);
    freeReplyObject(reply);
    return right;
}

static bool took_nil(redisReply *reply)
{
    const bool right = reply != NULL && reply->type == REDIS_REPLY_NIL;
    freeReplyObject(reply);
    return right;
}

static bool took_bytes(redisReply *reply, const char *data, size_t size)
{
    const bool right = reply != NULL && reply->type == REDIS_REPLY_STRING && (size_t)reply->len == size &&
                       memcmp(reply->str, data, size) == 0;
    freeReplyObject(reply);
    return right;
}

static bool took_integer(redisReply *reply, long long low, long long high)
{
    const bool right =
        reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer >= low && reply->integer <= high;
    freeReplyObject(reply);
    return right;
}

/* ---- one call at a time ---------------------------------------------------------------------------------------- */

static redisContext *connect_to(const struct server *server)
{
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    redisContext *context = redisConnectWithTimeout(server->host, server->port, timeout);
    CHECK(context != NULL && context->err == 0);
    CHECK(redisSetTimeout(context, timeout) == REDIS_OK && redisEnableKeepAlive(context) == REDIS_OK);
    return context;
}

static void log_in(redisContext *context, const struct server *server)
{
    CHECK(took_error(redisCommand(context, "GET a"), "NOAUTH Authentication required."));
    CHECK(took_error(redisCommand(context, "AUTH %s", "wrong"),
                     "WRONGPASS invalid username-password pair or user is disabled."));
    CHECK(took_status(redisCommand(context, "AUTH %s", server->password), "OK"));
    CHECK(took_status(redisCommand(context, "CLIENT SETNAME %s", "session"), "OK"));
    CHECK(took_string(redisCommand(context, "CLIENT GETNAME"), "session"));
    CHECK(took_status(redisCommand(context, "CLIENT SETINFO lib-name %s", "hiredis"), "OK"));
    CHECK(took_status(redisCommand(context, "SELECT 0"), "OK"));
}

static void use_strings(redisContext *context)
{
    char binary[300];
    const size_t size = binary_bytes(binary);
    char *large = malloc(LARGE_BYTES);
    CHECK(large != NULL);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        large[i] = binary[i % size];
    CHECK(took_status(redisCommand(context, "SET %s %s", "text", "hello world"), "OK"));
    CHECK(took_string(redisCommand(context, "GET text"), "hello world"));
    CHECK(took_nil(redisCommand(context, "GET none")));
    CHECK(took_nil(redisCommand(context, "SET text x NX")));
    CHECK(took_status(redisCommand(context, "SET %b %b", binary, size, binary, size), "OK"));
    CHECK(took_bytes(redisCommand(context, "GET %b", binary, size), binary, size));
    CHECK(took_status(redisCommand(context, "SET large %b", large, (size_t)LARGE_BYTES), "OK"));
    CHECK(took_bytes(redisCommand(context, "GET large"), large, LARGE_BYTES));
    free(large);
    redisReply *reply = redisCommand(context, "MGET text none text");
    CHECK(reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3);
    CHECK(is_text(reply->element[0], REDIS_REPLY_STRING, "hello world"));
    CHECK(reply->element[1]->type == REDIS_REPLY_NIL);
    freeReplyObject(reply);
    CHECK(took_integer(redisCommand(context, "EXISTS text text none"), 2, 2));
    CHECK(took_integer(redisCommand(context, "DEL large none"), 1, 1));
}

static void use_numbers(redisContext *context)
{
    CHECK(took_integer(redisCommand(context, "INCRBY n %lld", 9223372036854775806LL), 9223372036854775806LL,
                       9223372036854775806LL));
    CHECK(took_integer(redisCommand(context, "INCR n"), INT64_MAX, INT64_MAX));
    CHECK(took_error(redisCommand(context, "INCR n"), "ERR increment or decrement would overflow"));
    CHECK(took_string(redisCommand(context, "INCRBYFLOAT f 10.5"), "10.5"));
    CHECK(took_integer(redisCommand(context, "APPEND log one"), 3, 3));
    CHECK(took_integer(redisCommand(context, "SETBIT bits 1000 1"), 0, 0));
    CHECK(took_integer(redisCommand(context, "BITCOUNT bits"), 1, 1));
    CHECK(took_error(redisCommand(context, "INCR text"), "ERR value is not an integer or out of range"));
    CHECK(took_error(redisCommand(context, "GET"), "ERR wrong number of arguments for 'get' command"));
    CHECK(took_integer(redisCommand(context, "EXPIRE text 1000"), 1, 1));
    CHECK(took_integer(redisCommand(context, "TTL text"), 900, 1000));
    CHECK(took_integer(redisCommand(context, "PERSIST text"), 1, 1));
}

/* Everything is sent before the first reply is read. */
static void use_pipeline(redisContext *context)
{
    for (unsigned i = 0; i < PIPELINED; i++) {
        CHECK(redisAppendCommand(context, "SET p:%u %u", i % KEYS, i) == REDIS_OK);
        CHECK(redisAppendCommand(context, "GET p:%u", i % KEYS) == REDIS_OK);
    }
    CHECK(redisAppendCommand(context, "INCR counter") == REDIS_OK);
    for (unsigned i = 0; i < PIPELINED; i++) {
        char number[24];
        void *reply;
        snprintf(number, sizeof number, "%u", i);
        CHECK(redisGetReply(context, &reply) == REDIS_OK && took_status(reply, "OK"));
        CHECK(redisGetReply(context, &reply) == REDIS_OK && took_string(reply, number));
    }
    void *last;
    CHECK(redisGetReply(context, &last) == REDIS_OK && took_integer(last, 1, 1));
}

/* Somebody else ends the connection: the next call says so, and the library's own way back leads to a new one. */
static void be_killed(redisContext *context, const struct server *server)
{
    redisContext *other = connect_to(server);
    log_in(other, server);
    redisReply *id = redisCommand(context, "CLIENT ID");
    CHECK(id != NULL && id->type == REDIS_REPLY_INTEGER);
    CHECK(took_integer(redisCommand(other, "CLIENT KILL ID %lld", id->integer), 1, 1));
    freeReplyObject(id);
    redisFree(other);
    CHECK(redisCommand(context, "GET text") == NULL && context->err != 0);
    CHECK(redisReconnect(context) == REDIS_OK);
    log_in(context, server);
}

static void outlive_a_crash(redisContext *context, const struct server *server)
{
    char line[64];
    CHECK(took_status(redisCommand(context, "SET kept yes"), "OK"));
    CHECK(took_integer(redisCommand(context, "DEL n"), 1, 1));
    puts("restart");
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    CHECK(redisCommand(context, "GET kept") == NULL && context->err != 0);
    CHECK(redisReconnect(context) == REDIS_OK);
    log_in(context, server);
    CHECK(took_string(redisCommand(context, "GET kept"), "yes"));
    CHECK(took_nil(redisCommand(context, "GET n")));
    CHECK(took_integer(redisCommand(context, "INCR counter"), 2, 2));
}

/* ---- callbacks ------------------------------------------------------------------------------------------------- */

/* What the library wants to hear of, as its event hooks have told: the loop is a poll() of our own. */
struct loop {
    bool read, write, connected, ended;
    unsigned replies;
};

static void add_read(void *data)
{
    ((struct loop *)data)->read = true;
}

static void del_read(void *data)
{
    ((struct loop *)data)->read = false;
}

static void add_write(void *data)
{
    ((struct loop *)data)->write = true;
}

static void del_write(void *data)
{
    ((struct loop *)data)->write = false;
}

static void clean_up(void *data)
{
    struct loop *loop = data;
    loop->read = loop->write = false;
}

static void on_connect(const redisAsyncContext *context, int status)
{
    CHECK(status == REDIS_OK);
    ((struct loop *)context->data)->connected = true;
}

static void on_end(const redisAsyncContext *context, int status)
{
    CHECK(status == REDIS_OK);
    ((struct loop *)context->data)->ended = true;
}

static void on_ok(redisAsyncContext *context, void *reply, void *unused)
{
    (void)context;
    (void)unused;
    CHECK(is_text(reply, REDIS_REPLY_STATUS, "OK"));
}

/* Replies come in the order of their requests: `expected` is the number that was set right before. */
static void on_value(redisAsyncContext *context, void *reply, void *expected)
{
    struct loop *loop = context->data;
    char number[24];
    snprintf(number, sizeof number, "%u", (unsigned)(uintptr_t)expected);
    CHECK(loop->replies == (unsigned)(uintptr_t)expected);
    CHECK(is_text(reply, REDIS_REPLY_STRING, number));
    if (++loop->replies == CALLBACKS)
        redisAsyncDisconnect(context);
}

static void use_callbacks(const struct server *server)
{
    struct loop loop = {0};
    redisAsyncContext *context = redisAsyncConnect(server->host, server->port);
    CHECK(context != NULL && context->err == 0);
    context->data = &loop;
    context->ev.data = &loop;
    context->ev.addRead = add_read;
    context->ev.delRead = del_read;
    context->ev.addWrite = add_write;
    context->ev.delWrite = del_write;
    context->ev.cleanup = clean_up;
    CHECK(redisAsyncSetConnectCallback(context, on_connect) == REDIS_OK);
    CHECK(redisAsyncSetDisconnectCallback(context, on_end) == REDIS_OK);
    CHECK(redisAsyncCommand(context, on_ok, NULL, "AUTH %s", server->password) == REDIS_OK);
    for (unsigned i = 0; i < CALLBACKS; i++) {
        CHECK(redisAsyncCommand(context, on_ok, NULL, "SET a:%u %u", i % KEYS, i) == REDIS_OK);
        CHECK(redisAsyncCommand(context, on_value, (void *)(uintptr_t)i, "GET a:%u", i % KEYS) == REDIS_OK);
    }
    while (!loop.ended) {
        struct pollfd ready = {.fd = context->c.fd,
                               .events = (short)((loop.read ? POLLIN : 0) | (loop.write ? POLLOUT : 0))};
        CHECK(poll(&ready, 1, TIMEOUT_S * 1000) == 1);
        if ((ready.revents & POLLOUT) != 0)
            redisAsyncHandleWrite(context);
        if (!loop.ended && (ready.revents & (POLLIN | POLLERR | POLLHUP)) != 0)
            redisAsyncHandleRead(context);
    }
    CHECK(loop.connected && loop.replies == CALLBACKS);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5 && strcmp(argv[4], "2") == 0);
    const struct server server = {.host = argv[1], .port = (int)strtol(argv[2], NULL, 10), .password = argv[3]};
    redisContext *context = connect_to(&server);
    log_in(context, &server);
    use_strings(context);
    use_numbers(context);
    use_pipeline(context);
    be_killed(context, &server);
    outlive_a_crash(context, &server);
    use_callbacks(&server);
    CHECK(took_status(redisCommand(context, "QUIT"), "OK"));
    redisFree(context);
    return 0;
}
