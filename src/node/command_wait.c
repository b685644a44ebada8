/*
 * command_wait.c - WAIT and WAITAOF. There are no replicas: nobody ever acknowledges anything for them.
 */
#include "node/command.h"
#include "node/node_internal.h"
#include "node/waiting.h"

static bool parse_timeout(struct call *call, struct slice text, uint64_t *timeout_ms)
{
    int64_t value;
    if (!command_integer(text, &value))
        call_error(call, "ERR timeout is not an integer or out of range");
    else if (value < 0)
        call_error(call, "ERR timeout is negative");
    else
        *timeout_ms = (uint64_t)value;
    return command_integer(text, &value) && value >= 0;
}

void command_wait(struct call *call)
{
    int64_t replicas;
    uint64_t timeout_ms;
    if (!command_need_integer(call, call->args[1], &replicas) || !parse_timeout(call, call->args[2], &timeout_ms))
        return;
    if (replicas <= 0 || call->shard->exec != NULL) /* which never waits */
        call_integer(call, 0);
    else
        waiting_replicas(call, timeout_ms);
}

static void call_pair(struct call *call, int64_t first, int64_t second)
{
    struct text text = {0};
    text_array(&text, 2);
    text_integer(&text, first);
    text_integer(&text, second);
    call_text(call, &text);
}

/* What the connection has asked for before this EXEC is done, and durable, as far as home can tell. */
static bool is_durable(const struct call *call)
{
    const struct client *client = call->client;
    struct net_conn_info info;
    net_conn_info(call->conn, &info);
    return !client->was_relaxed && info.pending <= 1 && client->gate_last <= call->shard->durable;
}

/* Who asks for nothing is told of nothing, though it may be on disk. */
void command_waitaof(struct call *call)
{
    int64_t local, replicas;
    uint64_t timeout_ms;
    if (!command_need_integer(call, call->args[1], &local))
        return;
    if (local < 0 || local > 1) {
        call_error(call, "ERR value is out of range, must be between 0 and 1");
        return;
    }
    if (!command_need_integer(call, call->args[2], &replicas))
        return;
    if (replicas < 0) {
        call_error(call, "ERR value is out of range, must be positive");
        return;
    }
    if (!parse_timeout(call, call->args[3], &timeout_ms))
        return;
    const bool persistent = strcmp(engine_kind(call->shard->store), "memory") != 0;
    if (local > 0 && !persistent)
        call_error(call, "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");
    else if (local == 0 && replicas == 0)
        call_pair(call, 0, 0);
    else if (call->shard->exec != NULL)
        call_pair(call, persistent && is_durable(call), 0);
    else
        waiting_durable(call, persistent, replicas > 0, timeout_ms);
}
