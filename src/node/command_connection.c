/*
 * command_connection.c - commands about the connection itself: PING, ECHO, SELECT, QUIT, KVS.DURABILITY.
 */
#include "node/command.h"

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

bool command_database(struct call *call, struct slice text)
{
    int64_t index;
    if (!command_need_integer(call, text, &index))
        return false;
    if (index > INT32_MAX || index < INT32_MIN)
        call_error(call, "ERR value is out of range, value must between %d and %d", INT32_MIN, INT32_MAX);
    else if (index != 0)
        call_error(call, "ERR DB index is out of range");
    return index == 0;
}

void command_select(struct call *call)
{
    if (command_database(call, call->args[1]))
        call_simple(call, "OK");
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
