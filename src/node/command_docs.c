/*
 * command_docs.c - COMMAND: the table, told to clients.
 *
 * Shapes are those of Redis 7: an entry is an array of ten, of which tips, key specifications and subcommands are empty
 * here.
 */
#include "node/command.h"

static const struct {
    unsigned flag;
    const char *name;
} flag_names[] = {
    {COMMAND_WRITE, "write"},
    {COMMAND_READONLY, "readonly"},
    {COMMAND_DENYOOM, "denyoom"},
    {COMMAND_ADMIN, "admin"},
    {COMMAND_NOSCRIPT, "noscript"},
    {COMMAND_LOADING, "loading"},
    {COMMAND_STALE, "stale"},
    {COMMAND_SKIP_SLOWLOG, "skip_slowlog"},
    {COMMAND_FAST, "fast"},
    {COMMAND_NO_AUTH, "no_auth"},
    {COMMAND_ALLOW_BUSY, "allow_busy"},
    {COMMAND_NO_ASYNC_LOADING, "no_async_loading"},
};

static void add_flags(struct text *text, unsigned flags, int resp_version)
{
    text_set(text, (size_t)__builtin_popcount(flags & ~(unsigned)COMMAND_NO_MULTI), resp_version);
    for (size_t i = 0; i < ARRAY_COUNT(flag_names); i++) {
        if ((flags & flag_names[i].flag) != 0)
            text_simple(text, flag_names[i].name);
    }
}

static void add_categories(struct text *text, const char *categories, int resp_version)
{
    size_t count = 1;
    for (const char *at = categories; *at != 0; at++)
        count += *at == ' ';
    text_set(text, count, resp_version);
    while (*categories != 0) {
        size_t length = strcspn(categories, " ");
        text_printf(text, "+%.*s\r\n", (int)length, categories);
        categories += length + (categories[length] == ' ');
    }
}

static void add_entry(struct text *text, const struct command *command, int resp_version)
{
    text_array(text, 10);
    text_bulk(text, command->name);
    text_integer(text, command->arity);
    add_flags(text, command->flags, resp_version);
    text_integer(text, command->first_key);
    text_integer(text, command->last_key);
    text_integer(text, command->key_step);
    add_categories(text, command->categories, resp_version);
    text_array(text, 0);
    text_array(text, 0);
    text_array(text, 0);
}

static void reply_entries(struct call *call, const struct slice *names, unsigned count)
{
    int version = call->client->resp_version;
    struct text text = {0};
    text_array(&text, count > 0 ? count : command_table_count);
    for (unsigned i = 0; count == 0 && i < command_table_count; i++)
        add_entry(&text, &command_table[i], version);
    for (unsigned i = 0; i < count; i++) {
        const struct command *command = command_find(names[i]);
        if (command != NULL)
            add_entry(&text, command, version);
        else
            text_null(&text, version);
    }
    call_text(call, &text);
}

void command_command(struct call *call)
{
    reply_entries(call, NULL, 0);
}

static void run_info(struct call *call)
{
    reply_entries(call, call->args + 2, call->count - 2);
}

static void run_count(struct call *call)
{
    call_integer(call, command_table_count);
}

static void run_list(struct call *call)
{
    struct text text = {0};
    if (call->count > 2) {
        call_error(call, "ERR syntax error");
        return;
    }
    text_set(&text, command_table_count, call->client->resp_version);
    for (unsigned i = 0; i < command_table_count; i++)
        text_bulk(&text, command_table[i].name);
    call_text(call, &text);
}

static void add_docs(struct text *text, const struct command *command, int resp_version)
{
    text_bulk(text, command->name);
    text_map(text, 3, resp_version);
    text_bulk(text, "summary");
    text_bulk(text, command->summary);
    text_bulk(text, "since");
    text_bulk(text, command->since);
    text_bulk(text, "group");
    text_bulk(text, command->group);
}

static void run_docs(struct call *call)
{
    int version = call->client->resp_version;
    struct text docs = {0};
    size_t count = 0;
    for (unsigned i = 0; call->count == 2 && i < command_table_count; i++, count++)
        add_docs(&docs, &command_table[i], version);
    for (unsigned i = 2; i < call->count; i++) {
        const struct command *command = command_find(call->args[i]);
        if (command == NULL)
            continue;
        add_docs(&docs, command, version);
        count++;
    }
    struct text text = {0};
    text_map(&text, count, version);
    text_add(&text, slice_make(docs.data, docs.size));
    text.failed |= docs.failed;
    text_deinit(&docs);
    call_text(call, &text);
}

const struct subcommand command_command_subcommands[] = {
    {"count", 2, COMMAND_LOADING, "", "Return the total number of commands in this server.", run_count},
    {"docs", -2, COMMAND_LOADING, "[<command-name> ...]", "Return documentation details about multiple commands.",
     run_docs},
    {"info", -2, COMMAND_LOADING, "[<command-name> ...]", "Return details about multiple commands.", run_info},
    {"list", -2, COMMAND_LOADING, "", "Return a list of all commands in this server.", run_list},
    {NULL, 0, 0, NULL, NULL, NULL},
};
