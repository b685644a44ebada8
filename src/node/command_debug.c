/*
 * command_debug.c - DEBUG, for test suites: only when --enable-debug-command allows it.
 *
 * SLEEP really stops the shard's thread, and all of its connections with it: that is what it is for.
 */
#include "node/command.h"
#include "node/node_internal.h"
#include "node/update_object.h"

#include <stdlib.h>

#define SLEEP_S_MAX 3600

static bool is_allowed(struct call *call)
{
    struct ring_addr peer;
    switch (call->shard->node->config.enable_debug) {
    case CONFIG_DEBUG_NO:
        return false;
    case CONFIG_DEBUG_LOCAL:
        return net_conn_peer(call->conn, &peer) == KVS_ERR_OK && ring_addr_is_local(&peer);
    case CONFIG_DEBUG_YES:
        break;
    }
    return true;
}

static void run_sleep(struct call *call)
{
    char number[32];
    const struct slice text = call->args[2];
    if (text.size < sizeof(number)) {
        memcpy(number, text.data, text.size);
        number[text.size] = 0;
        const double seconds = strtod(number, NULL);
        if (seconds > 0 && seconds <= SLEEP_S_MAX)
            ring_stall(call->shard->ring, (uint64_t)(seconds * 1e9));
    }
    call_simple(call, "OK");
}

/* As in Redis whatever stands in place of FAST is taken. */
static void run_object(struct call *call)
{
    const struct update_spec spec = {.run = update_debug,
                                     .flags = UPDATE_LOOKS_ONLY,
                                     .a = call->count == 4 && command_word_is(call->args[3], "fast")};
    char loading[COMMAND_LOADING_BYTES_MAX];
    if (call->shard->serving) {
        command_update(call, call->args[2], &spec, slice_make(NULL, 0));
        return;
    }
    command_loading_text(loading, call->shard);
    call_error(call, "%s", loading);
}

/* The text of an error that the client wants to see. */
static void run_error(struct call *call)
{
    call_error(call, "%.*s", command_printable(call->args[2], 256), (const char *)call->args[2].data);
}

static void run_help(struct call *call)
{
    static const char *const lines[] = {
        "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ERROR <string>",
        "    Return a Redis protocol error with <string> as message.",
        "OBJECT <key> [FAST]",
        "    Show how Redis would keep the value of the key; FAST: and not how long it is in a dump.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Taken, and without effect: keys that have expired are never shown, and go by themselves.",
        "SLEEP <seconds>",
        "    Stop the thread of this connection's shard for <seconds>. Decimals allowed.",
        "HELP",
        "    Prints this help.",
    };
    struct text text = {0};
    text_array(&text, ARRAY_COUNT(lines));
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        text_simple(&text, lines[i]);
    call_text(call, &text);
}

void command_debug(struct call *call)
{
    const struct slice word = call->args[1];
    if (!is_allowed(call))
        call_error(call, "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you "
                         "can run it from a local connection, otherwise you need to set this option in the "
                         "configuration file, and then restart the server.");
    else if (command_word_is(word, "help") && call->count == 2)
        run_help(call);
    else if (command_word_is(word, "sleep") && call->count == 3)
        run_sleep(call);
    else if (command_word_is(word, "object") && (call->count == 3 || call->count == 4))
        run_object(call);
    else if (command_word_is(word, "error") && call->count == 3)
        run_error(call);
    else if (command_word_is(word, "set-active-expire") && call->count == 3)
        call_simple(call, "OK");
    else
        call_error(call, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try DEBUG HELP.",
                   command_printable(word, 128), (const char *)word.data);
}
