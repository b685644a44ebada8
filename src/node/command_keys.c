/*
 * command_keys.c - commands on keys: GET, SET, DEL, UNLINK, EXISTS, MGET.
 *
 * They check what the protocol let through (sizes, options) and hand over to dispatch or gather, which answer.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/gather.h"
#include "node/node_internal.h"

bool command_keys_fit(struct call *call, const struct slice *keys, unsigned count)
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
    if (!command_keys_fit(call, call->args + 1, 1))
        return;
    struct engine_request request =
        dispatch_request(call->shard, call->client, ENGINE_GET, call->args[1], slice_make(NULL, 0));
    struct reply_format format = {.kind = REPLY_VALUE, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

void command_put(struct call *call, struct slice value, uint64_t expires_ms)
{
    if (!command_keys_fit(call, call->args + 1, 1))
        return;
    uint32_t bytes_max = call->shard->node->value_bytes_max;
    if (value.size > bytes_max) {
        call_error(call, "ERR value of %zu bytes is too large; the limit is %u", value.size, bytes_max);
        return;
    }
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
    if (operand.size > whole.value_bytes_max) {
        call_error(call, "ERR value of %zu bytes is too large; the limit is %u", operand.size, whole.value_bytes_max);
        return;
    }
    struct engine_request request = dispatch_request(call->shard, call->client, ENGINE_GET, key, operand);
    dispatch_update(call->shard, call->conn, &request, &whole);
}

/* What a SET may say behind the value. */
struct set_option {
    const char *name;
    bool seconds, relative;
};

static const struct set_option *set_option_find(struct slice name)
{
    static const struct set_option options[] = {
        {"ex", true, true}, {"px", false, true}, {"exat", true, false}, {"pxat", false, false}};
    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        if (command_word_is(name, options[i].name))
            return &options[i];
    }
    return NULL;
}

/* As in Redis: of one option said twice the last counts; two different ones do not go together. All words are looked
 * at before a number is. */
void command_set(struct call *call)
{
    const struct set_option *option = NULL;
    uint64_t expires_ms = 0;
    for (unsigned i = 3; i < call->count; i += 2) {
        const struct set_option *next = set_option_find(call->args[i]);
        if (next == NULL || (option != NULL && next != option) || i + 1 == call->count) {
            call_error(call, "ERR syntax error");
            return;
        }
        option = next;
    }
    if (option == NULL ||
        command_expiry(call, call->args[call->count - 1], option->seconds, option->relative, &expires_ms))
        command_put(call, call->args[2], expires_ms);
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
