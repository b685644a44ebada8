/*
 * command_docs.c - COMMAND: the table, told to clients.
 *
 * Shapes are those of Redis 7.2. A subcommand is an entry, or has docs, like a command, under its full name
 * ("config|get"), and can be asked for by that. Where keys are and what is done with them is what users' rights are
 * held against, too (acl_keys).
 */
#include "base/assert.h"
#include "node/acl.h"
#include "node/command_syntax.h"
#include "node/glob.h"
#include "node/node_internal.h"

#include <stdio.h>

#define NAME_BYTES 96

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
    {COMMAND_NO_MULTI, "no_multi"},
    {COMMAND_BLOCKING, "blocking"},
};

static void add_flags(struct text *text, unsigned flags, int resp_version)
{
    text_set(text, (size_t)__builtin_popcount(flags & ~(unsigned)COMMAND_OWN), resp_version);
    for (size_t i = 0; i < ARRAY_COUNT(flag_names); i++) {
        if ((flags & flag_names[i].flag) != 0)
            text_simple(text, flag_names[i].name);
    }
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* A command, or one of its subcommands. */
struct named {
    const struct command *command;
    const struct subcommand *sub; /* NULL: the command */
};

static const char *full_name(const struct named *named, char room[NAME_BYTES])
{
    if (named->sub == NULL)
        return named->command->name;
    snprintf(room, NAME_BYTES, "%s|%s", named->command->name, named->sub->name);
    return room;
}

static const struct subcommand *find_sub(const struct command *command, struct slice name)
{
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
        if (command_word_is(name, sub->name))
            return sub;
    }
    return NULL;
}

/* "get", or "config|get". */
static bool find_named(struct slice name, struct named *out)
{
    const uint8_t *bar = name.size > 0 ? memchr(name.data, '|', name.size) : NULL;
    const size_t first = bar != NULL ? (size_t)(bar - name.data) : name.size;
    *out = (struct named){.command = command_find(slice_make(name.data, first))};
    if (out->command == NULL || bar == NULL)
        return out->command != NULL;
    out->sub = find_sub(out->command, slice_make(bar + 1, name.size - first - 1));
    return out->sub != NULL;
}

static unsigned count_subs(const struct command *command)
{
    unsigned count = 0;
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++)
        count++;
    return count;
}

static void text_array_of_words(struct text *text, const char *words)
{
    size_t count = words != NULL;
    for (const char *at = words; at != NULL && *at != 0; at++)
        count += *at == ' ';
    text_array(text, count);
    while (words != NULL && *words != 0) {
        const size_t size = strcspn(words, " ");
        text_bulk_bytes(text, slice_make(words, size));
        words += size + (words[size] == ' ');
    }
}

/* ---- COMMAND INFO ---------------------------------------------------------------------------------------------- */

static void add_categories(struct text *text, const struct named *named, int resp_version)
{
    const uint32_t bits = acl_categories(named->command, named->sub);
    text_set(text, (size_t)__builtin_popcount(bits), resp_version);
    for (unsigned i = 0; i < ACL_CATEGORIES; i++) {
        if ((bits >> i & 1) != 0)
            text_printf(text, "+@%s\r\n", acl_category_names[i]);
    }
}

/* Where the keys are: behind the command, or behind the subcommand. */
struct key_range {
    int first, last, step;
};

static struct key_range keys_of(const struct named *named, const struct command_syntax *syntax)
{
    const struct command *command = named->command;
    if (named->sub == NULL)
        return (struct key_range){command->first_key, command->last_key, command->key_step};
    const bool has_key = syntax != NULL && syntax->keys != NULL;
    return (struct key_range){has_key ? 2 : 0, has_key ? 2 : 0, has_key ? 1 : 0};
}

/* Of flags that differ for the first key and those behind it. */
static const char *flags_of_key(const char *flags, bool behind, char room[NAME_BYTES])
{
    const char *bar = flags != NULL ? strstr(flags, " | ") : NULL;
    if (bar == NULL)
        return flags;
    if (behind)
        return bar + 3;
    snprintf(room, NAME_BYTES, "%.*s", (int)(bar - flags), flags);
    return room;
}

static void add_key_spec(struct text *text, const struct key_range *keys, const char *flags, int resp_version)
{
    text_map(text, 3, resp_version);
    text_bulk(text, "flags");
    command_syntax_add_words(text, flags, "", resp_version);
    text_bulk(text, "begin_search");
    text_map(text, 2, resp_version);
    text_bulk(text, "type");
    text_bulk(text, "index");
    text_bulk(text, "spec");
    text_map(text, 1, resp_version);
    text_bulk(text, "index");
    text_integer(text, keys->first);
    text_bulk(text, "find_keys");
    text_map(text, 2, resp_version);
    text_bulk(text, "type");
    text_bulk(text, "range");
    text_bulk(text, "spec");
    text_map(text, 3, resp_version);
    text_bulk(text, "lastkey"); /* counted from the first, unless it is the request's last */
    text_integer(text, keys->last < 0 ? keys->last : keys->last - keys->first);
    text_bulk(text, "keystep");
    text_integer(text, keys->step);
    text_bulk(text, "limit");
    text_integer(text, 0);
}

static void add_key_specs(struct text *text, const struct key_range *keys, const char *flags, int resp_version)
{
    char room[NAME_BYTES];
    if (flags == NULL || strstr(flags, " | ") == NULL) {
        text_array(text, 1);
        add_key_spec(text, keys, flags, resp_version);
        return;
    }
    const struct key_range first = {keys->first, keys->first, keys->step};
    const struct key_range behind = {keys->first + keys->step, keys->last, keys->step};
    text_array(text, 2);
    add_key_spec(text, &first, flags_of_key(flags, false, room), resp_version);
    add_key_spec(text, &behind, flags_of_key(flags, true, room), resp_version);
}

/* All of an entry but its subcommands. */
static void add_entry_alone(struct text *text, const struct named *named, int resp_version)
{
    const struct command_syntax *syntax = command_syntax_find(named->command, named->sub);
    const struct key_range keys = keys_of(named, syntax);
    char room[NAME_BYTES];
    text_array(text, 10);
    text_bulk(text, full_name(named, room));
    text_integer(text, named->sub != NULL ? named->sub->arity : named->command->arity);
    add_flags(text, named->sub != NULL ? named->sub->flags : named->command->flags, resp_version);
    text_integer(text, keys.first);
    text_integer(text, keys.last);
    text_integer(text, keys.step);
    add_categories(text, named, resp_version);
    text_array_of_words(text, syntax != NULL ? syntax->tips : NULL);
    if (keys.first > 0)
        add_key_specs(text, &keys, syntax != NULL ? syntax->keys : NULL, resp_version);
    else
        text_array(text, 0);
}

static void add_entry(struct text *text, const struct named *named, int resp_version)
{
    add_entry_alone(text, named, resp_version);
    text_array(text, named->sub == NULL ? count_subs(named->command) : 0);
    const struct subcommand *sub = named->sub == NULL ? named->command->subcommands : NULL;
    for (; sub != NULL && sub->name != NULL; sub++) {
        const struct named below = {.command = named->command, .sub = sub};
        add_entry_alone(text, &below, resp_version);
        text_array(text, 0);
    }
}

static void reply_entries(struct call *call, const struct slice *names, unsigned count)
{
    const int version = call->client->resp_version;
    struct text text = {0};
    struct named named;
    text_array(&text, count > 0 ? count : command_table_count);
    for (unsigned i = 0; count == 0 && i < command_table_count; i++) {
        named = (struct named){.command = &command_table[i]};
        add_entry(&text, &named, version);
    }
    for (unsigned i = 0; i < count; i++) {
        if (find_named(names[i], &named))
            add_entry(&text, &named, version);
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

/* ---- COMMAND LIST ---------------------------------------------------------------------------------------------- */

enum filter { FILTER_NONE, FILTER_MODULE, FILTER_CATEGORY, FILTER_PATTERN };

static bool passes(enum filter filter, struct slice word, const struct named *named)
{
    char room[NAME_BYTES];
    switch (filter) {
    case FILTER_NONE:
        return named->sub == NULL;
    case FILTER_MODULE: /* there are none */
        return false;
    case FILTER_CATEGORY: {
        const unsigned category = acl_category_find(word);
        return category < ACL_CATEGORIES && (acl_categories(named->command, named->sub) >> category & 1) != 0;
    }
    case FILTER_PATTERN:
        break;
    }
    return glob_matches_name(word, full_name(named, room));
}

static enum filter parse_filter(struct slice word)
{
    if (command_word_is(word, "module"))
        return FILTER_MODULE;
    if (command_word_is(word, "aclcat"))
        return FILTER_CATEGORY;
    return command_word_is(word, "pattern") ? FILTER_PATTERN : FILTER_NONE;
}

static void run_list(struct call *call)
{
    enum filter filter = FILTER_NONE;
    const struct slice word = call->count == 5 ? call->args[4] : slice_make("", 0);
    if (call->count == 5 && command_word_is(call->args[2], "filterby"))
        filter = parse_filter(call->args[3]);
    if (call->count > 2 && filter == FILTER_NONE) {
        call_error(call, "ERR syntax error");
        return;
    }
    struct text names = {0}, text = {0};
    size_t count = 0;
    char room[NAME_BYTES];
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct subcommand *sub = command_table[i].subcommands;
        for (struct named named = {.command = &command_table[i]};; named.sub = sub++) {
            if (passes(filter, word, &named)) {
                text_bulk(&names, full_name(&named, room));
                count++;
            }
            if (sub == NULL || sub->name == NULL)
                break;
        }
    }
    text_set(&text, count, filter == FILTER_NONE ? call->client->resp_version : 2);
    text_add(&text, slice_make(names.data, names.size));
    text.failed |= names.failed;
    text_deinit(&names);
    call_text(call, &text);
}

/* ---- COMMAND GETKEYS, GETKEYSANDFLAGS -------------------------------------------------------------------------- */

/* What is done with keys depends on the other arguments of some. */
static const char *key_flags(const struct command_syntax *syntax, unsigned access, bool behind, char room[NAME_BYTES])
{
    const char *flags = syntax != NULL && syntax->keys != NULL ? syntax->keys : "";
    if (strstr(flags, "variable_flags") == NULL)
        return flags_of_key(flags, behind, room);
    if (access == ACL_READ)
        return "RO access";
    return access == ACL_WRITE ? "OW update" : "RW access update";
}

/* The request that is asked about, and where its keys are; false: it has its answer. */
static bool find_keys(struct call *call, struct named *named, struct acl_key_use *use)
{
    const struct slice *args = call->args + 2;
    const unsigned count = call->count - 2;
    *named = (struct named){.command = command_find(args[0])};
    const bool container = named->command != NULL && named->command->subcommands != NULL && count > 1;
    const bool help = container && command_word_is(args[1], "help");
    if (container)
        named->sub = find_sub(named->command, args[1]);
    if (named->command == NULL || (container && !help && named->sub == NULL)) {
        call_error(call, "ERR Invalid command specified");
        return false;
    }
    const struct key_range keys = keys_of(named, command_syntax_find(named->command, named->sub));
    if (keys.first == 0) {
        call_error(call, "ERR The command has no key arguments");
        return false;
    }
    if (!command_arity_fits(named->sub != NULL ? named->sub->arity : named->command->arity, count)) {
        call_error(call, "ERR Invalid number of arguments specified for command");
        return false;
    }
    *use = acl_keys(named->command, named->sub, args, count);
    if (use->first > 0)
        return true;
    call_error(call, "ERR Invalid arguments specified for command");
    return false;
}

static void reply_keys(struct call *call, bool flags)
{
    const int version = call->client->resp_version;
    const struct slice *args = call->args + 2;
    struct named named;
    struct acl_key_use use;
    struct text text = {0};
    char room[NAME_BYTES];
    if (!find_keys(call, &named, &use))
        return;
    const struct command_syntax *syntax = command_syntax_find(named.command, named.sub);
    text_array(&text, (use.last - use.first) / use.step + 1);
    for (unsigned i = use.first; i <= use.last; i += use.step) {
        if (flags)
            text_array(&text, 2);
        text_bulk_bytes(&text, args[i]);
        const unsigned access = i > use.first ? use.access : use.access_first;
        if (flags)
            command_syntax_add_words(&text, key_flags(syntax, access, i > use.first, room), "", version);
    }
    call_text(call, &text);
}

static void run_getkeys(struct call *call)
{
    reply_keys(call, false);
}

static void run_getkeysandflags(struct call *call)
{
    reply_keys(call, true);
}

/* ---- COMMAND DOCS ---------------------------------------------------------------------------------------------- */

/* The first line of a subcommand's help is its summary. */
static struct slice summary_of(const struct named *named)
{
    const char *text = named->sub != NULL ? named->sub->help : named->command->summary;
    return slice_make(text, strcspn(text, "\n"));
}

/* All of it but its subcommands, for which there is room in the map. */
static void add_docs_alone(struct text *text, const struct named *named, bool subs, int resp_version)
{
    const struct command_syntax *syntax = command_syntax_find(named->command, named->sub);
    const char *complexity = syntax != NULL ? syntax->complexity : NULL;
    const char *arguments = syntax != NULL ? syntax->arguments : NULL;
    const char *since = named->sub != NULL && syntax != NULL ? syntax->since : named->command->since;
    char room[NAME_BYTES];
    text_bulk(text, full_name(named, room));
    text_map(text, 4u + (arguments != NULL) + subs, resp_version);
    text_bulk(text, "summary");
    text_bulk_bytes(text, summary_of(named));
    text_bulk(text, "since");
    text_bulk(text, since != NULL ? since : named->command->since);
    text_bulk(text, "group");
    text_bulk(text, named->command->group);
    text_bulk(text, "complexity");
    text_bulk(text, complexity != NULL ? complexity : "Depends on subcommand.");
    if (arguments != NULL) {
        text_bulk(text, "arguments");
        command_syntax_add_arguments(text, arguments, resp_version);
    }
}

static void add_docs(struct text *text, const struct named *named, int resp_version)
{
    const unsigned subs = named->sub == NULL ? count_subs(named->command) : 0;
    add_docs_alone(text, named, subs > 0, resp_version);
    if (subs == 0)
        return;
    text_bulk(text, "subcommands");
    text_map(text, subs, resp_version);
    for (unsigned i = 0; i < subs; i++) {
        const struct named below = {.command = named->command, .sub = &named->command->subcommands[i]};
        add_docs_alone(text, &below, false, resp_version);
    }
}

static void run_docs(struct call *call)
{
    const int version = call->client->resp_version;
    struct text docs = {0}, text = {0};
    struct named named;
    size_t count = 0;
    for (unsigned i = 0; call->count == 2 && i < command_table_count; i++, count++) {
        named = (struct named){.command = &command_table[i]};
        add_docs(&docs, &named, version);
    }
    for (unsigned i = 2; i < call->count; i++) {
        if (!find_named(call->args[i], &named))
            continue;
        add_docs(&docs, &named, version);
        count++;
    }
    text_map(&text, count, version);
    text_add(&text, slice_make(docs.data, docs.size));
    text.failed |= docs.failed;
    text_deinit(&docs);
    call_text(call, &text);
}

#define FLAGS (COMMAND_LOADING | COMMAND_STALE)

const struct subcommand command_command_subcommands[] = {
    {"count", 2, FLAGS, "", "Return the total number of commands in this server.", run_count},
    {"docs", -2, FLAGS, "[<command-name> ...]", "Return documentation details about multiple commands.", run_docs},
    {"getkeys", -4, FLAGS, "<full-command>", "Return the keys from a full command.", run_getkeys},
    {"getkeysandflags", -4, FLAGS, "<full-command>", "Return the keys and the access flags from a full command.",
     run_getkeysandflags},
    {"info", -2, FLAGS, "[<command-name> ...]", "Return details about multiple commands.", run_info},
    {"list", -2, FLAGS, "[FILTERBY (MODULE <module>|ACLCAT <category>|PATTERN <pattern>)]",
     "Return a list of all commands in this server.", run_list},
    {NULL, 0, 0, NULL, NULL, NULL},
};
