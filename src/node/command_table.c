/*
 * command_table.c - every command the node offers, in one place.
 *
 * Sorted by name: command_find searches by halves (a unit test holds it to that). Numbers, flags and categories are
 * those of Redis 7 where Redis has the command, so that clients that ask COMMAND find what they know.
 */
#include "node/command.h"

/* A command that is nothing without a subcommand. */
static void needs_subcommand(struct call *call)
{
    call_error(call, "ERR wrong number of arguments for '%s' command", call->command->name);
}

#define ALWAYS (COMMAND_LOADING | COMMAND_STALE)

const struct command command_table[] = {
    {"auth", -2, COMMAND_NOSCRIPT | ALWAYS | COMMAND_FAST | COMMAND_NO_AUTH | COMMAND_ALLOW_BUSY, 0, 0, 0, "connection",
     "@fast @connection", "Authenticate to the server", "1.0.0", command_auth, NULL},
    {"bgsave", -1, COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_NO_ASYNC_LOADING, 0, 0, 0, "server",
     "@admin @slow @dangerous", "Asynchronously make a backup of the data", "1.0.0", command_bgsave, NULL},
    {"client", -2, 0, 0, 0, 0, "connection", "@slow", "A container for client connection commands", "2.4.0",
     needs_subcommand, command_client_subcommands},
    {"command", -1, ALWAYS, 0, 0, 0, "server", "@slow @connection", "Get array of Redis command details", "2.8.13",
     command_command, command_command_subcommands},
    {"config", -2, 0, 0, 0, 0, "server", "@slow", "A container for server configuration commands", "2.0.0",
     needs_subcommand, command_config_subcommands},
    {"copy", -3, COMMAND_WRITE | COMMAND_DENYOOM, 1, 2, 1, "generic", "@keyspace @write @slow",
     "Write the value of a key under another one", "6.2.0", command_copy, NULL},
    {"dbsize", 1, COMMAND_READONLY | COMMAND_FAST, 0, 0, 0, "server", "@keyspace @read @fast",
     "Return the number of keys in the selected database", "1.0.0", command_dbsize, NULL},
    {"del", -2, COMMAND_WRITE, 1, -1, 1, "generic", "@keyspace @write @slow", "Delete a key", "1.0.0", command_del,
     NULL},
    {"echo", 2, ALWAYS | COMMAND_FAST, 0, 0, 0, "connection", "@fast @connection", "Echo the given string", "1.0.0",
     command_echo, NULL},
    {"exists", -2, COMMAND_READONLY | COMMAND_FAST, 1, -1, 1, "generic", "@keyspace @read @fast",
     "Determine if a key exists", "1.0.0", command_exists, NULL},
    {"expiretime", 2, COMMAND_READONLY | COMMAND_FAST, 1, 1, 1, "generic", "@keyspace @read @fast",
     "Get the time at which a key expires, in seconds since 1970", "7.0.0", command_expiretime, NULL},
    {"get", 2, COMMAND_READONLY | COMMAND_FAST, 1, 1, 1, "string", "@read @string @fast", "Get the value of a key",
     "1.0.0", command_get, NULL},
    {"hello", -1, COMMAND_NOSCRIPT | ALWAYS | COMMAND_FAST | COMMAND_NO_AUTH | COMMAND_ALLOW_BUSY, 0, 0, 0,
     "connection", "@fast @connection", "Handshake with Redis", "6.0.0", command_hello, NULL},
    {"info", -1, ALWAYS, 0, 0, 0, "server", "@slow @dangerous", "Get information and statistics about the server",
     "1.0.0", command_info, NULL},
    {"kvs.durability", -1, ALWAYS | COMMAND_FAST, 0, 0, 0, "connection", "@fast @connection",
     "Tell, or choose, whether this connection's writes are on disk when they are acknowledged", "0.1.0",
     command_durability, NULL},
    {"lastsave", 1, ALWAYS | COMMAND_FAST, 0, 0, 0, "server", "@admin @fast @dangerous",
     "Get the time of the last successful backup", "1.0.0", command_lastsave, NULL},
    {"mget", -2, COMMAND_READONLY | COMMAND_FAST, 1, -1, 1, "string", "@read @string @fast",
     "Get the values of all the given keys", "1.0.0", command_mget, NULL},
    {"mset", -3, COMMAND_WRITE | COMMAND_DENYOOM, 1, -1, 2, "string", "@write @string @slow",
     "Set the values of several keys, all of them or none", "1.0.1", command_mset, NULL},
    {"msetnx", -3, COMMAND_WRITE | COMMAND_DENYOOM, 1, -1, 2, "string", "@write @string @slow",
     "Set the values of several keys if none of them exists", "1.0.1", command_msetnx, NULL},
    {"pexpiretime", 2, COMMAND_READONLY | COMMAND_FAST, 1, 1, 1, "generic", "@keyspace @read @fast",
     "Get the time at which a key expires, in milliseconds since 1970", "7.0.0", command_pexpiretime, NULL},
    {"ping", -1, COMMAND_FAST, 0, 0, 0, "connection", "@fast @connection", "Ping the server", "1.0.0", command_ping,
     NULL},
    {"psetex", 4, COMMAND_WRITE | COMMAND_DENYOOM, 1, 1, 1, "string", "@write @string @slow",
     "Set the value of a key that expires, in milliseconds", "2.6.0", command_psetex, NULL},
    {"pttl", 2, COMMAND_READONLY | COMMAND_FAST, 1, 1, 1, "generic", "@keyspace @read @fast",
     "Get the time that a key has left, in milliseconds", "2.6.0", command_pttl, NULL},
    {"quit", -1, COMMAND_NOSCRIPT | ALWAYS | COMMAND_FAST | COMMAND_NO_AUTH | COMMAND_ALLOW_BUSY, 0, 0, 0, "connection",
     "@fast @connection", "Close the connection", "1.0.0", command_quit, NULL},
    {"rename", 3, COMMAND_WRITE, 1, 2, 1, "generic", "@keyspace @write @slow", "Give a value another key", "1.0.0",
     command_rename, NULL},
    {"renamenx", 3, COMMAND_WRITE | COMMAND_FAST, 1, 2, 1, "generic", "@keyspace @write @fast",
     "Give a value another key that does not exist", "1.0.0", command_renamenx, NULL},
    {"select", 2, ALWAYS | COMMAND_FAST, 0, 0, 0, "connection", "@fast @connection",
     "Change the selected database for the current connection", "1.0.0", command_select, NULL},
    {"set", -3, COMMAND_WRITE | COMMAND_DENYOOM, 1, 1, 1, "string", "@write @string @slow",
     "Set the string value of a key", "1.0.0", command_set, NULL},
    {"setex", 4, COMMAND_WRITE | COMMAND_DENYOOM, 1, 1, 1, "string", "@write @string @slow",
     "Set the value of a key that expires, in seconds", "2.0.0", command_setex, NULL},
    {"ttl", 2, COMMAND_READONLY | COMMAND_FAST, 1, 1, 1, "generic", "@keyspace @read @fast",
     "Get the time that a key has left, in seconds", "1.0.0", command_ttl, NULL},
    {"unlink", -2, COMMAND_WRITE | COMMAND_FAST, 1, -1, 1, "generic", "@keyspace @write @fast",
     "Delete keys, as DEL does", "4.0.0", command_del, NULL},
};

const unsigned command_table_count = ARRAY_COUNT(command_table);
