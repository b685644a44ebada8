/*
 * command_slowlog.c - SLOWLOG: what took longer than slowlog-log-slower-than. What that time is, says meter.h.
 */
#include "node/command.h"
#include "node/node_internal.h"

static void run_get(struct call *call)
{
    int64_t count = 10;
    if (call->count > 3) {
        call_error(call, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try SLOWLOG HELP.",
                   command_printable(call->args[1], 128), (const char *)call->args[1].data);
        return;
    }
    if (call->count == 3 && (!command_integer(call->args[2], &count) || count < -1)) {
        call_error(call, "ERR count should be greater than or equal to -1");
        return;
    }
    struct text text = {0};
    slowlog_write(call->shard->node->slowlog, count < 0 ? SIZE_MAX : (size_t)count, &text);
    call_text(call, &text);
}

static void run_len(struct call *call)
{
    call_integer(call, (int64_t)slowlog_length(call->shard->node->slowlog));
}

static void run_reset(struct call *call)
{
    slowlog_reset(call->shard->node->slowlog);
    call_simple(call, "OK");
}

#define FLAGS (COMMAND_ADMIN | COMMAND_LOADING | COMMAND_STALE)

const struct subcommand command_slowlog_subcommands[] = {
    {"get", -2, FLAGS, "[<count>]",
     "Return top <count> entries from the slowlog (default: 10, -1 mean all).\n"
     "Entries are made of:\n"
     "id, timestamp, time in microseconds, arguments array, client IP and port,\n"
     "client name",
     run_get},
    {"len", 2, FLAGS, "", "Return the length of the slowlog.", run_len},
    {"reset", 2, FLAGS, "", "Reset the slowlog.", run_reset},
    {NULL, 0, 0, NULL, NULL, NULL},
};
