/*
 * command_keys.c - commands on keys: GET, SET, DEL, UNLINK, EXISTS, MGET.
 *
 * They check what the protocol let through (sizes, options) and hand over to dispatch or gather, which answer.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/gather.h"
#include "node/node_internal.h"

/* True when the keys may be stored; else the request has its answer. */
static bool keys_fit(struct call *call, const struct slice *keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (keys[i].size <= KVS_KEY_BYTES_MAX)
            continue;
        call_error(call, "ERR key of %zu bytes is too long; the limit is %u", keys[i].size, KVS_KEY_BYTES_MAX);
        return false;
    }
    return true;
}

void command_get(struct call *call)
{
    if (!keys_fit(call, call->args + 1, 1))
        return;
    struct engine_request request =
        dispatch_request(call->shard, call->client, ENGINE_GET, call->args[1], slice_make(NULL, 0));
    struct reply_format format = {.kind = REPLY_VALUE, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

void command_set(struct call *call)
{
    if (call->count != 3) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (!keys_fit(call, call->args + 1, 1))
        return;
    uint32_t bytes_max = call->shard->node->value_bytes_max;
    if (call->args[2].size > bytes_max) {
        call_error(call, "ERR value of %zu bytes is too large; the limit is %u", call->args[2].size, bytes_max);
        return;
    }
    struct engine_request request =
        dispatch_request(call->shard, call->client, ENGINE_PUT, call->args[1], call->args[2]);
    struct reply_format format = {.kind = REPLY_OK, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

void command_del(struct call *call)
{
    if (keys_fit(call, call->args + 1, call->count - 1))
        gather_count(call->shard, call->conn, ENGINE_REMOVE, call->args + 1, call->count - 1);
}

void command_exists(struct call *call)
{
    if (keys_fit(call, call->args + 1, call->count - 1))
        gather_count(call->shard, call->conn, ENGINE_GET, call->args + 1, call->count - 1);
}

void command_mget(struct call *call)
{
    if (keys_fit(call, call->args + 1, call->count - 1))
        gather_values(call->shard, call->conn, call->args + 1, call->count - 1);
}
