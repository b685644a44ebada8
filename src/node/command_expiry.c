/*
 * command_expiry.c - commands about the time at which a key goes: SETEX, PSETEX, TTL, PTTL, EXPIRETIME, PEXPIRETIME,
 * EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, PERSIST.
 *
 * Times are the engine's (engine_now_ms). Numbers are read as Redis reads them, and what it refuses is refused in its
 * words.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/node_internal.h"
#include "node/update_expiry.h"

#define MS_PER_S         1000
#define OPTION_BYTES_MAX 512u /* of an unknown one that is repeated in the error */

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

bool command_need_integer(struct call *call, struct slice text, int64_t *out)
{
    if (command_integer(text, out))
        return true;
    call_error(call, UPDATE_TEXT_NOT_INTEGER);
    return false;
}

enum update_refusal command_expiry_parse(const struct call *call, struct slice number, bool seconds, bool relative,
                                         uint64_t *expires_ms)
{
    int64_t time;
    if (!command_integer(number, &time))
        return UPDATE_NOT_INTEGER;
    if (time <= 0 || (seconds && __builtin_mul_overflow(time, MS_PER_S, &time)) ||
        (relative && __builtin_add_overflow(time, (int64_t)engine_now_ms(call->shard->engine), &time)))
        return UPDATE_EXPIRE_TIME;
    *expires_ms = (uint64_t)time;
    return UPDATE_ACCEPTED;
}

static void refuse_time(struct call *call)
{
    call_error(call, "ERR invalid expire time in '%s' command", call->command == NULL ? "set" : call->command->name);
}

bool command_expiry(struct call *call, struct slice number, bool seconds, bool relative, uint64_t *expires_ms)
{
    switch (command_expiry_parse(call, number, seconds, relative, expires_ms)) {
    case UPDATE_ACCEPTED:
        return true;
    case UPDATE_NOT_INTEGER:
        call_error(call, UPDATE_TEXT_NOT_INTEGER);
        return false;
    default:
        refuse_time(call);
        return false;
    }
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

/* ---- EXPIRE ---------------------------------------------------------------------------------------------------- */

/* What EXPIRE may say behind the time. False: the request has its answer. */
static bool expire_options(struct call *call, uint8_t *options)
{
    static const struct {
        const char *name;
        uint8_t option;
    } known[] = {{"nx", UPDATE_EXPIRE_IF_NONE},
                 {"xx", UPDATE_EXPIRE_IF_ANY},
                 {"gt", UPDATE_EXPIRE_IF_LATER},
                 {"lt", UPDATE_EXPIRE_IF_SOONER}};
    *options = 0;
    for (unsigned i = 3; i < call->count; i++) {
        size_t at = 0;
        while (at < ARRAY_COUNT(known) && !command_word_is(call->args[i], known[at].name))
            at++;
        if (at == ARRAY_COUNT(known)) {
            call_error(call, "ERR Unsupported option %.*s", command_printable(call->args[i], OPTION_BYTES_MAX),
                       (const char *)call->args[i].data);
            return false;
        }
        *options |= known[at].option;
    }
    const uint8_t both = UPDATE_EXPIRE_IF_LATER | UPDATE_EXPIRE_IF_SOONER;
    const char *wrong = NULL;
    if ((*options & UPDATE_EXPIRE_IF_NONE) != 0 && *options != UPDATE_EXPIRE_IF_NONE)
        wrong = "ERR NX and XX, GT or LT options at the same time are not compatible";
    else if ((*options & both) == both)
        wrong = "ERR GT and LT options at the same time are not compatible";
    if (wrong != NULL)
        call_error(call, "%s", wrong);
    return wrong == NULL;
}

/* Times may be negative: those have passed. */
static void expire(struct call *call, bool seconds, bool relative)
{
    struct update_spec spec = {.run = update_expire, .flags = UPDATE_HEAD};
    if (!expire_options(call, &spec.option) || !command_need_integer(call, call->args[2], &spec.a))
        return;
    if ((seconds && __builtin_mul_overflow(spec.a, MS_PER_S, &spec.a)) ||
        (relative && __builtin_add_overflow(spec.a, (int64_t)engine_now_ms(call->shard->engine), &spec.a))) {
        refuse_time(call);
        return;
    }
    command_update(call, call->args[1], &spec, slice_make(NULL, 0));
}

void command_expire(struct call *call)
{
    expire(call, true, true);
}

void command_pexpire(struct call *call)
{
    expire(call, false, true);
}

void command_expireat(struct call *call)
{
    expire(call, true, false);
}

void command_pexpireat(struct call *call)
{
    expire(call, false, false);
}

void command_persist(struct call *call)
{
    struct update_spec spec = {.run = update_persist, .flags = UPDATE_HEAD};
    command_update(call, call->args[1], &spec, slice_make(NULL, 0));
}
