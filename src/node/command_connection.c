/*
 * command_connection.c - commands about the connection itself: PING, ECHO, SELECT, QUIT, KVS.DURABILITY; and SWAPDB
 * and MOVE, as a Redis with one database answers them.
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

static bool is_database_number(struct slice text, int64_t *index)
{
    return command_integer(text, index) && *index <= INT32_MAX && *index >= INT32_MIN;
}

/* False: it is none, and the request has its answer. */
static bool need_database_number(struct call *call, struct slice text, int64_t *index)
{
    if (is_database_number(text, index))
        return true;
    if (command_integer(text, index))
        call_error(call, "ERR value is out of range, value must between %d and %d", INT32_MIN, INT32_MAX);
    else
        call_error(call, "ERR value is not an integer or out of range");
    return false;
}

bool command_database(struct call *call, struct slice text)
{
    int64_t index;
    if (!need_database_number(call, text, &index))
        return false;
    if (index != 0)
        call_error(call, "ERR DB index is out of range");
    return index == 0;
}

void command_select(struct call *call)
{
    if (command_database(call, call->args[1]))
        call_simple(call, "OK");
}

/* There is one database, which can be swapped with itself. */
void command_swapdb(struct call *call)
{
    int64_t first, second;
    if (!is_database_number(call->args[1], &first))
        call_error(call, "ERR invalid first DB index");
    else if (!is_database_number(call->args[2], &second))
        call_error(call, "ERR invalid second DB index");
    else if (first != 0 || second != 0)
        call_error(call, "ERR DB index is out of range");
    else
        call_simple(call, "OK");
}

/* … and there is no other one to move a key to. */
void command_move(struct call *call)
{
    if (command_database(call, call->args[2]))
        call_error(call, "ERR source and destination objects are the same");
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
        call->client->was_relaxed |= relaxed;
        call_simple(call, "OK");
    }
}
