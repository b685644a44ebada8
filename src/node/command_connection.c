/*
 * command_connection.c - commands about the connection itself: PING, ECHO, HELLO, AUTH, SELECT, QUIT, KVS.DURABILITY.
 *
 * There is no password: AUTH and HELLO … AUTH answer as a Redis without one.
 */
#include "node/command.h"
#include "node/command_client.h"

#define NO_PASSWORD                                                                                       \
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your " \
    "configuration is "                                                                                   \
    "correct?"

void command_ping(struct call *call)
{
    if (call->count > 2)
        call_error(call, "ERR wrong number of arguments for 'ping' command");
    else if (call->count == 2)
        call_bulk(call, call->args[1]);
    else
        call_simple(call, "PONG");
}

void command_echo(struct call *call)
{
    call_bulk(call, call->args[1]);
}

void command_quit(struct call *call)
{
    call_simple(call, "OK");
    net_conn_finish(call->conn);
}

/* Any decimal number that fits; Redis takes no blanks, no plus and no leading zeros. */
static bool parse_integer(struct slice text, int64_t *out)
{
    size_t at = text.size > 0 && text.data[0] == '-';
    int64_t value = 0;
    if (text.size == at || text.size - at > 18)
        return false;
    if (text.data[at] == '0' && text.size > 1)
        return false;
    for (size_t i = at; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (text.data[i] - '0');
    }
    *out = at == 1 ? -value : value;
    return true;
}

void command_select(struct call *call)
{
    int64_t index;
    if (!parse_integer(call->args[1], &index) || index > INT32_MAX || index < INT32_MIN)
        call_error(call, "ERR value is not an integer or out of range");
    else if (index != 0)
        call_error(call, "ERR DB index is out of range");
    else
        call_simple(call, "OK");
}

/* Whether a Redis without passwords lets this user in: the default one, with any password. */
static bool user_is_welcome(struct slice user)
{
    return slice_equal(user, slice_text("default"));
}

void command_auth(struct call *call)
{
    if (call->count > 3)
        call_error(call, "ERR syntax error");
    else if (call->count == 2)
        call_error(call, NO_PASSWORD);
    else if (!user_is_welcome(call->args[1]))
        call_error(call, "WRONGPASS invalid username-password pair or user is disabled.");
    else
        call_simple(call, "OK");
}

static void reply_hello(struct call *call)
{
    int version = call->client->resp_version;
    struct text text = {0};
    text_map(&text, 7, version);
    text_bulk(&text, "server");
    text_bulk(&text, "redis");
    text_bulk(&text, "version");
    text_bulk(&text, COMMAND_REDIS_VERSION);
    text_bulk(&text, "proto");
    text_integer(&text, version);
    text_bulk(&text, "id");
    text_integer(&text, (int64_t)call->client->id);
    text_bulk(&text, "mode");
    text_bulk(&text, "standalone");
    text_bulk(&text, "role");
    text_bulk(&text, "master");
    text_bulk(&text, "modules");
    text_array(&text, 0);
    call_text(call, &text);
}

void command_hello(struct call *call)
{
    int64_t version = call->client->resp_version;
    struct slice name = {0};
    bool named = false;
    if (call->count >= 2) {
        if (!parse_integer(call->args[1], &version)) {
            call_error(call, "ERR Protocol version is not an integer or out of range");
            return;
        }
        if (version != 2 && version != 3) {
            call_error(call, "NOPROTO unsupported protocol version");
            return;
        }
    }
    for (unsigned i = 2; i < call->count; i++) {
        unsigned left = call->count - 1 - i;
        if (command_word_is(call->args[i], "auth") && left >= 2) {
            if (!user_is_welcome(call->args[i + 1])) {
                call_error(call, "WRONGPASS invalid username-password pair or user is disabled.");
                return;
            }
            i += 2;
        } else if (command_word_is(call->args[i], "setname") && left >= 1) {
            name = call->args[i + 1];
            named = true;
            i += 1;
        } else {
            call_error(call, "ERR Syntax error in HELLO option '%.*s'",
                       (int)(call->args[i].size < 128 ? call->args[i].size : 128), (const char *)call->args[i].data);
            return;
        }
    }
    if (named && !client_set_name(call, name))
        return;
    call->client->resp_version = (uint8_t)version;
    reply_hello(call);
}

void command_durability(struct call *call)
{
    if (call->count == 1) {
        call_simple(call, call->client->relaxed ? "relaxed" : "durable");
        return;
    }
    bool relaxed = command_word_is(call->args[1], "relaxed");
    if (call->count > 2) {
        call_error(call, "ERR wrong number of arguments for 'kvs.durability' command");
    } else if (!relaxed && !command_word_is(call->args[1], "durable")) {
        call_error(call, "ERR unknown durability class; expected durable or relaxed");
    } else {
        call->client->relaxed = relaxed;
        call_simple(call, "OK");
    }
}
