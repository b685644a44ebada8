/*
 * command_client.c - CLIENT: names and numbers of connections.
 *
 * SETINFO, with which client libraries introduce themselves, is checked and forgotten.
 */
#include "node/command_client.h"

/* Printable and without blanks, so that a list of clients could be read by programs. */
static bool is_plain(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '!' || text.data[i] > '~')
            return false;
    }
    return true;
}

bool client_set_name(struct call *call, struct slice name)
{
    struct client *client = call->client;
    if (!is_plain(name)) {
        call_error(call, "ERR Client names cannot contain spaces, newlines or special characters.");
        return false;
    }
    if (name.size > CLIENT_NAME_BYTES_MAX) {
        call_error(call, "ERR client name of %zu bytes is too long; the limit is %u", name.size, CLIENT_NAME_BYTES_MAX);
        return false;
    }
    if (name.size > 0)
        memcpy(client->name, name.data, name.size);
    client->name_bytes = (uint8_t)name.size;
    return true;
}

static void run_setname(struct call *call)
{
    if (client_set_name(call, call->args[2]))
        call_simple(call, "OK");
}

static void run_getname(struct call *call)
{
    if (call->client->name_bytes == 0)
        call_null(call);
    else
        call_bulk(call, slice_make(call->client->name, call->client->name_bytes));
}

static void run_id(struct call *call)
{
    call_integer(call, (int64_t)call->client->id);
}

static void run_setinfo(struct call *call)
{
    struct slice attribute = call->args[2];
    const char *shown = command_word_is(attribute, "lib-name")  ? "lib-name"
                        : command_word_is(attribute, "lib-ver") ? "lib-ver"
                                                                : NULL;
    if (shown == NULL)
        call_error(call, "ERR Unrecognized option '%.*s'", (int)(attribute.size < 128 ? attribute.size : 128),
                   (const char *)attribute.data);
    else if (!is_plain(call->args[3]))
        call_error(call, "ERR %s cannot contain spaces, newlines or special characters.", shown);
    else
        call_simple(call, "OK");
}

const struct subcommand command_client_subcommands[] = {
    {"getname", 2, COMMAND_LOADING, "", "Return the name of the current connection.", run_getname},
    {"id", 2, COMMAND_LOADING, "", "Return the ID of the current connection.", run_id},
    {"setinfo", 4, COMMAND_LOADING, "<option> <value>", "Tell the name or the version of the client library.",
     run_setinfo},
    {"setname", 3, COMMAND_LOADING, "<name>", "Assign the name <name> to the current connection.", run_setname},
    {NULL, 0, 0, NULL, NULL, NULL},
};
