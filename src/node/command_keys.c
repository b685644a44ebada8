/*
 * command_keys.c - commands on keys: GET, DEL, UNLINK, EXISTS, TOUCH, MGET; and how others put and update.
 *
 * They check what the protocol let through (sizes) and hand over to dispatch or gather, which answer.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/gather.h"
#include "node/node_internal.h"

bool command_keys_fit(struct call *call, const struct slice *keys, unsigned count)
{
    const uint32_t bytes_max = call->shard->node->key_bytes_max;
    for (unsigned i = 0; i < count; i++) {
        if (keys[i].size <= bytes_max)
            continue;
        call_error(call, "ERR key of %zu bytes is too long; the limit is %u", keys[i].size, bytes_max);
        return false;
    }
    return true;
}

void command_get(struct call *call)
{
    if (!command_keys_fit(call, call->args + 1, 1))
        return;
    struct engine_request request =
        dispatch_request(call->shard, call->client, ENGINE_GET, call->args[1], slice_make(NULL, 0));
    struct reply_format format = {.kind = REPLY_VALUE, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

bool command_value_fits(struct call *call, struct slice value)
{
    uint32_t bytes_max = call->shard->node->value_bytes_max;
    if (value.size <= bytes_max)
        return true;
    call_error(call, "ERR value of %zu bytes is too large; the limit is %u", value.size, bytes_max);
    return false;
}

void command_put(struct call *call, struct slice value, uint64_t expires_ms)
{
    if (!command_keys_fit(call, call->args + 1, 1) || !command_value_fits(call, value))
        return;
    struct engine_request request = dispatch_request(call->shard, call->client, ENGINE_PUT, call->args[1], value);
    request.expires_ms = expires_ms;
    struct reply_format format = {.kind = REPLY_OK, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

void command_update(struct call *call, struct slice key, const struct update_spec *spec, struct slice operand)
{
    if (!command_keys_fit(call, &key, 1))
        return;
    struct update_spec whole = *spec;
    whole.resp_version = call->client->resp_version;
    whole.value_bytes_max = call->shard->node->value_bytes_max;
    struct engine_request request = dispatch_request(call->shard, call->client, ENGINE_GET, key, operand);
    dispatch_update(call->shard, call->conn, &request, &whole);
}

void command_del(struct call *call)
{
    if (command_keys_fit(call, call->args + 1, call->count - 1))
        gather_count(call->shard, call->conn, ENGINE_REMOVE, call->args + 1, call->count - 1);
}

void command_exists(struct call *call)
{
    if (command_keys_fit(call, call->args + 1, call->count - 1))
        gather_count(call->shard, call->conn, ENGINE_GET, call->args + 1, call->count - 1);
}

void command_mget(struct call *call)
{
    if (command_keys_fit(call, call->args + 1, call->count - 1))
        gather_values(call->shard, call->conn, call->args + 1, call->count - 1);
}
