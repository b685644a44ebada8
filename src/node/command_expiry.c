/*
 * command_expiry.c - commands about the time at which a key goes: SETEX, PSETEX, TTL, PTTL, EXPIRETIME, PEXPIRETIME.
 *
 * Times are the engine's (engine_now_ms). Numbers are read as Redis reads them, and what it refuses is refused in its
 * words.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/node_internal.h"

#define MS_PER_S 1000

/* Decimal, within 64 bits, without blanks, leading zeros or "+". */
bool command_integer(struct slice text, int64_t *out)
{
    bool negative = text.size > 0 && text.data[0] == '-';
    size_t at = negative;
    if (text.size == at || (text.data[at] == '0' && text.size > 1))
        return false;
    int64_t value = 0;
    for (; at < text.size; at++) {
        int64_t digit = text.data[at] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
    }
    *out = value;
    return true;
}

bool command_expiry(struct call *call, struct slice number, bool seconds, bool relative, uint64_t *expires_ms)
{
    int64_t time;
    if (!command_integer(number, &time)) {
        call_error(call, "ERR value is not an integer or out of range");
        return false;
    }
    bool possible = time > 0 && !(seconds && __builtin_mul_overflow(time, MS_PER_S, &time));
    if (possible && relative)
        possible = !__builtin_add_overflow(time, (int64_t)engine_now_ms(call->shard->engine), &time);
    if (!possible) {
        const char *name = call->command == NULL ? "set" : call->command->name;
        call_error(call, "ERR invalid expire time in '%s' command", name);
        return false;
    }
    *expires_ms = (uint64_t)time;
    return true;
}

static void put_for(struct call *call, bool seconds)
{
    uint64_t expires_ms;
    if (command_expiry(call, call->args[2], seconds, true, &expires_ms))
        command_put(call, call->args[3], expires_ms);
}

void command_setex(struct call *call)
{
    put_for(call, true);
}

void command_psetex(struct call *call)
{
    put_for(call, false);
}

static void tell(struct call *call, enum reply_kind kind)
{
    if (!command_keys_fit(call, call->args + 1, 1))
        return;
    struct engine_request request =
        dispatch_request(call->shard, call->client, ENGINE_GET, call->args[1], slice_make(NULL, 0));
    request.head = true;
    struct reply_format format = {.kind = (uint8_t)kind, .resp_version = call->client->resp_version};
    dispatch_request_one(call->shard, call->conn, &request, &format);
}

void command_ttl(struct call *call)
{
    tell(call, REPLY_TTL_S);
}

void command_pttl(struct call *call)
{
    tell(call, REPLY_TTL_MS);
}

void command_expiretime(struct call *call)
{
    tell(call, REPLY_EXPIRES_S);
}

void command_pexpiretime(struct call *call)
{
    tell(call, REPLY_EXPIRES_MS);
}
