/*
 * command_dump.c - DUMP and RESTORE: values as payloads that Redis understands.
 *
 * What Redis keeps to evict by (IDLETIME, FREQ) is checked and not kept. The order of refusals is Redis's: options, key
 * that is there, time, payload.
 */
#include "node/command.h"
#include "node/update_dump.h"

#define FREQUENCY_MAX 255

void command_dump(struct call *call)
{
    struct update_spec spec = {.run = update_dump, .flags = UPDATE_LOOKS_ONLY};
    command_update(call, call->args[1], &spec, slice_make(NULL, 0));
}

struct restore_options {
    bool replace, absolute, has_idle, has_frequency;
};

/* IDLETIME or FREQ, and its number. False: the request has its answer. */
static bool check_use(struct call *call, struct slice number, bool frequency)
{
    int64_t value;
    if (!command_need_integer(call, number, &value))
        return false;
    if (value >= 0 && !(frequency && value > FREQUENCY_MAX))
        return true;
    call_error(call, "%s",
               frequency ? "ERR Invalid FREQ value, must be >= 0 and <= 255"
                         : "ERR Invalid IDLETIME value, must be >= 0");
    return false;
}

static bool parse_options(struct call *call, struct restore_options *options)
{
    *options = (struct restore_options){0};
    for (unsigned i = 4; i < call->count; i++) {
        bool has_next = i + 1 < call->count;
        if (command_word_is(call->args[i], "replace")) {
            options->replace = true;
        } else if (command_word_is(call->args[i], "absttl")) {
            options->absolute = true;
        } else if (command_word_is(call->args[i], "idletime") && has_next && !options->has_frequency) {
            options->has_idle = true;
            if (!check_use(call, call->args[++i], false))
                return false;
        } else if (command_word_is(call->args[i], "freq") && has_next && !options->has_idle) {
            options->has_frequency = true;
            if (!check_use(call, call->args[++i], true))
                return false;
        } else {
            call_error(call, UPDATE_TEXT_SYNTAX);
            return false;
        }
    }
    return true;
}

/* 0: never. A time beyond the last one there is counts as that. */
static enum update_refusal parse_ttl(const struct call *call, bool absolute, uint64_t *expires_ms)
{
    int64_t ttl;
    if (!command_integer(call->args[2], &ttl))
        return UPDATE_NOT_INTEGER;
    if (ttl < 0)
        return UPDATE_NEGATIVE_TTL;
    if (ttl > 0 && !absolute && __builtin_add_overflow(ttl, (int64_t)engine_now_ms(call->shard->engine), &ttl))
        ttl = INT64_MAX;
    *expires_ms = (uint64_t)ttl;
    return UPDATE_ACCEPTED;
}

void command_restore(struct call *call)
{
    struct update_spec spec = {.run = update_restore, .flags = UPDATE_HEAD};
    struct restore_options options;
    if (!parse_options(call, &options))
        return;
    spec.option = options.replace ? UPDATE_RESTORE_REPLACE : 0;
    spec.a = parse_ttl(call, options.absolute, &spec.expires_ms);
    command_update(call, call->args[1], &spec, call->args[3]);
}
