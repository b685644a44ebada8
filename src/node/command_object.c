/*
 * command_object.c - commands that tell about a key: TYPE, OBJECT, MEMORY USAGE.
 *
 * There are no references, idle times and frequencies of values here; what Redis tells of a value that is its own, and
 * was used just now, is told of all.
 */
#include "node/update_object.h"

#include "node/command.h"

static const struct slice nothing;

static void look(struct call *call, unsigned arg, update_fn *run, uint8_t flags, int64_t number)
{
    struct update_spec spec = {.run = run, .flags = UPDATE_LOOKS_ONLY | flags, .a = number};
    command_update(call, call->args[arg], &spec, nothing);
}

void command_type(struct call *call)
{
    look(call, 1, update_type, UPDATE_HEAD, 0);
}

static void run_encoding(struct call *call)
{
    look(call, 2, update_encoding, 0, 0);
}

static void run_refcount(struct call *call)
{
    look(call, 2, update_figure, UPDATE_HEAD, 1);
}

static void run_idletime(struct call *call)
{
    look(call, 2, update_figure, UPDATE_HEAD, 0);
}

static void run_freq(struct call *call)
{
    look(call, 2, update_frequency, UPDATE_HEAD, 0);
}

const struct subcommand command_object_subcommands[] = {
    {"encoding", 3, COMMAND_READONLY, "<key>", "Return how Redis would keep the value of the key: int, embstr or raw.",
     run_encoding},
    {"freq", 3, COMMAND_READONLY, "<key>", "Not tracked here: return an error.", run_freq},
    {"idletime", 3, COMMAND_READONLY, "<key>", "Not tracked here: return 0.", run_idletime},
    {"refcount", 3, COMMAND_READONLY, "<key>", "Return 1: a value belongs to one key.", run_refcount},
    {NULL, 0, 0, NULL, NULL, NULL},
};

/* SAMPLES is for values of many parts. It is checked, and does nothing. */
static void run_usage(struct call *call)
{
    for (unsigned i = 3; i < call->count; i += 2) {
        int64_t samples;
        if (!command_word_is(call->args[i], "samples") || i + 1 == call->count) {
            call_error(call, UPDATE_TEXT_SYNTAX);
            return;
        }
        if (!command_need_integer(call, call->args[i + 1], &samples))
            return;
        if (samples < 0) {
            call_error(call, UPDATE_TEXT_SYNTAX);
            return;
        }
    }
    look(call, 2, update_memory, UPDATE_HEAD, (int64_t)call->args[2].size);
}

const struct subcommand command_memory_subcommands[] = {
    {"usage", -3, COMMAND_READONLY, "<key> [SAMPLES <count>]",
     "Return the bytes that the key takes in its record and in the index.", run_usage},
    {NULL, 0, 0, NULL, NULL, NULL},
};
