/*
 * command_strings.c - commands on parts of values, and on values that are numbers: APPEND, STRLEN, GETRANGE, SUBSTR,
 * SETRANGE, INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.
 */
#include "node/command.h"
#include "node/update_numbers.h"
#include "node/update_strings.h"

static const struct slice nothing;

void command_append(struct call *call)
{
    struct update_spec spec = {.run = update_append};
    command_update(call, call->args[1], &spec, call->args[2]);
}

void command_strlen(struct call *call)
{
    struct update_spec spec = {.run = update_strlen, .flags = UPDATE_LOOKS_ONLY | UPDATE_HEAD};
    command_update(call, call->args[1], &spec, nothing);
}

void command_getrange(struct call *call)
{
    struct update_spec spec = {.run = update_getrange, .flags = UPDATE_LOOKS_ONLY};
    if (command_need_integer(call, call->args[2], &spec.a) && command_need_integer(call, call->args[3], &spec.b))
        command_update(call, call->args[1], &spec, nothing);
}

void command_setrange(struct call *call)
{
    struct update_spec spec = {.run = update_setrange};
    if (!command_need_integer(call, call->args[2], &spec.a))
        return;
    if (spec.a < 0)
        call_error(call, "ERR offset is out of range");
    else
        command_update(call, call->args[1], &spec, call->args[3]);
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static void increment(struct call *call, int64_t by)
{
    struct update_spec spec = {.run = update_increment, .a = by};
    command_update(call, call->args[1], &spec, nothing);
}

void command_incr(struct call *call)
{
    increment(call, 1);
}

void command_decr(struct call *call)
{
    increment(call, -1);
}

void command_incrby(struct call *call)
{
    int64_t by;
    if (command_need_integer(call, call->args[2], &by))
        increment(call, by);
}

void command_decrby(struct call *call)
{
    int64_t by;
    if (!command_need_integer(call, call->args[2], &by))
        return;
    if (by == INT64_MIN)
        call_error(call, "ERR decrement would overflow");
    else
        increment(call, -by);
}

void command_incrbyfloat(struct call *call)
{
    struct update_spec spec = {.run = update_increment_float};
    long double by;
    if (update_float_parse(call->args[2], &by))
        command_update(call, call->args[1], &spec, slice_make(&by, sizeof(by)));
    else
        call_error(call, UPDATE_TEXT_NOT_FLOAT);
}
