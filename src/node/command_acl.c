/*
 * command_acl.c - ACL: users and what they may do, as clients see and change them.
 *
 * Shapes and texts are Redis's. What differs: passwords are shown as salted keys (acl_secret.h), there are no
 * selectors, and a first argument of a command cannot be allowed by itself (+select|0).
 */
#include "node/access.h"
#include "node/acl_store.h"
#include "node/crowd.h"
#include "node/node_internal.h"

#define QUOTED 128u

static int quoted(struct slice text)
{
    return (int)(text.size < QUOTED ? text.size : QUOTED);
}

static const struct acl_table *read_begin(struct call *call)
{
    return acl_read_begin(call->shard->node->acl, call->shard->id);
}

static void read_end(struct call *call)
{
    acl_read_end(call->shard->node->acl, call->shard->id);
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

static void run_whoami(struct call *call)
{
    const struct acl_user *user = acl_holder_user(&call->client->user, read_begin(call));
    if (user != NULL)
        call_bulk(call, slice_make(user->name, user->name_bytes));
    else
        call_null(call);
    read_end(call);
}

static void run_users(struct call *call)
{
    struct text text = {0};
    const struct acl_table *table = read_begin(call);
    text_array(&text, table->count);
    for (unsigned i = 0; i < table->count; i++)
        text_bulk_bytes(&text, slice_make(table->users[i]->name, table->users[i]->name_bytes));
    read_end(call);
    call_text(call, &text);
}

static void run_list(struct call *call)
{
    struct text text = {0};
    const struct acl_table *table = read_begin(call);
    text_array(&text, table->count);
    for (unsigned i = 0; i < table->count; i++) {
        struct text line = {0};
        text_printf(&line, "user %s ", table->users[i]->name);
        acl_user_describe(table->users[i], &line);
        text_bulk_bytes(&text, slice_make(line.data, line.size));
        text.failed |= line.failed;
        text_deinit(&line);
    }
    read_end(call);
    call_text(call, &text);
}

static void add_described(struct text *text, const char *name, const struct acl_user *user,
                          void (*describe)(const struct acl_user *user, struct text *out))
{
    struct text value = {0};
    describe(user, &value);
    text_bulk(text, name);
    text_bulk_bytes(text, slice_make(value.data, value.size));
    text->failed |= value.failed;
    text_deinit(&value);
}

static void add_user(struct text *text, const struct acl_user *user, int version)
{
    text_map(text, 6, version);
    text_bulk(text, "flags");
    text_set(text, 2 + user->nopass, version);
    text_bulk(text, user->on ? "on" : "off");
    if (user->nopass)
        text_bulk(text, "nopass");
    text_bulk(text, user->sanitize ? "sanitize-payload" : "skip-sanitize-payload");
    text_bulk(text, "passwords");
    text_array(text, user->password_count);
    for (unsigned i = 0; i < user->password_count; i++) {
        char key[ACL_KEY_TEXT_BYTES];
        acl_key_format(key, &user->salt, &user->passwords[i].key);
        text_bulk(text, key);
    }
    add_described(text, "commands", user, acl_user_describe_commands);
    add_described(text, "keys", user, acl_user_describe_keys);
    add_described(text, "channels", user, acl_user_describe_channels);
    text_bulk(text, "selectors");
    text_array(text, 0);
}

static void run_getuser(struct call *call)
{
    struct text text = {0};
    const struct acl_user *user = acl_find(read_begin(call), call->args[2]);
    if (user != NULL)
        add_user(&text, user, call->client->resp_version);
    else
        text_null(&text, call->client->resp_version);
    read_end(call);
    call_text(call, &text);
}

static void add_members(struct text *text, unsigned category, size_t *count)
{
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        if ((acl_categories(command, NULL) >> category & 1) != 0) {
            text_bulk(text, command->name);
            (*count)++;
        }
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            struct text name = {0};
            if ((acl_categories(command, sub) >> category & 1) == 0)
                continue;
            text_printf(&name, "%s|%s", command->name, sub->name);
            text_bulk_bytes(text, slice_make(name.data, name.size));
            text->failed |= name.failed;
            text_deinit(&name);
            (*count)++;
        }
    }
}

static void run_cat(struct call *call)
{
    struct text text = {0}, members = {0};
    size_t count = 0;
    if (call->count > 3) {
        call_error(call, "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.");
        return;
    }
    if (call->count == 2) {
        text_array(&text, ACL_CATEGORIES);
        for (unsigned i = 0; i < ACL_CATEGORIES; i++)
            text_bulk(&text, acl_category_names[i]);
        call_text(call, &text);
        return;
    }
    unsigned category = acl_category_find(call->args[2]);
    if (category == ACL_CATEGORIES) {
        call_error(call, "ERR Unknown category '%.*s'", quoted(call->args[2]), (const char *)call->args[2].data);
        return;
    }
    add_members(&members, category, &count);
    text_array(&text, count);
    text_add(&text, slice_make(members.data, members.size));
    text.failed |= members.failed;
    text_deinit(&members);
    call_text(call, &text);
}

static void run_genpass(struct call *call)
{
    enum { BITS_MAX = 4096 };
    uint8_t bytes[BITS_MAX / 8];
    char text[2 * sizeof(bytes) + 1];
    int64_t bits = 256;
    if (call->count > 3) {
        call_error(call, "ERR wrong number of arguments for 'acl|genpass' command");
        return;
    }
    if (call->count == 3 && !command_integer(call->args[2], &bits)) {
        call_error(call, "ERR value is not an integer or out of range");
        return;
    }
    if (bits <= 0 || bits > BITS_MAX) {
        call_error(call,
                   "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number "
                   "up to 4096");
        return;
    }
    size_t digits = ((size_t)bits + 3) / 4;
    ring_random(call->shard->ring, bytes, sizeof(bytes));
    acl_hex_write(text, bytes, (digits + 1) / 2);
    call_bulk(call, slice_make(text, digits));
}

static void run_log(struct call *call)
{
    struct acl_log *log = call->shard->node->acl_log;
    int64_t count = 10;
    if (call->count > 3) {
        call_error(call, "ERR wrong number of arguments for 'acl|log' command");
        return;
    }
    if (call->count == 3 && command_word_is(call->args[2], "reset")) {
        acl_log_reset(log);
        call_simple(call, "OK");
        return;
    }
    if (call->count == 3 && !command_integer(call->args[2], &count)) {
        call_error(call, "ERR value is not an integer or out of range");
        return;
    }
    struct text text = {0};
    acl_log_write(log, ring_wall_ms(call->shard->ring), count > 0 ? (size_t)count : 0, call->client->resp_version,
                  &text);
    call_text(call, &text);
}

/* ---- trying ---------------------------------------------------------------------------------------------------- */

/* The subcommand that is meant, if the command has any. */
static const struct subcommand *dryrun_sub(const struct command *command, const struct slice *args, unsigned count)
{
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL && count > 1; sub++) {
        if (command_word_is(args[1], sub->name))
            return sub;
    }
    return NULL;
}

static void reply_dryrun(struct call *call, const struct acl_user *user)
{
    const struct slice *args = call->args + 3;
    unsigned count = call->count - 3;
    const struct command *command = command_find(args[0]);
    if (command == NULL) {
        call_error(call, "ERR Command '%.*s' not found", quoted(args[0]), (const char *)args[0].data);
        return;
    }
    const struct subcommand *sub = dryrun_sub(command, args, count);
    if (!command_arity_fits(sub != NULL ? sub->arity : command->arity, count)) {
        call_error(call, "ERR wrong number of arguments for '%s%s%s' command", command->name, sub != NULL ? "|" : "",
                   sub != NULL ? sub->name : "");
        return;
    }
    struct text text = {0}, reply = {0};
    struct slice key;
    switch (access_of_user(acl_numbers(call->shard->node->acl), user, command, sub, args, count, &key)) {
    case ACCESS_NO_COMMAND:
        text_printf(&text, "User %s has no permissions to run the '%s%s%s' command", user->name, command->name,
                    sub != NULL ? "|" : "", sub != NULL ? sub->name : "");
        break;
    case ACCESS_NO_KEY:
        text_printf(&text, "User %s has no permissions to access the '", user->name);
        text_add(&text, key);
        text_printf(&text, "' key");
        break;
    default:
        call_simple(call, "OK");
        return;
    }
    text_bulk_bytes(&reply, slice_make(text.data, text.size));
    reply.failed |= text.failed;
    text_deinit(&text);
    call_text(call, &reply);
}

static void run_dryrun(struct call *call)
{
    const struct acl_user *user = acl_find(read_begin(call), call->args[2]);
    if (user == NULL)
        call_error(call, "ERR User '%.*s' not found", quoted(call->args[2]), (const char *)call->args[2].data);
    else
        reply_dryrun(call, user);
    read_end(call);
}

/* ---- changing -------------------------------------------------------------------------------------------------- */

static void run_setuser(struct call *call)
{
    struct slice name = call->args[2];
    if (!acl_name_is_good(name))
        call_error(call, "ERR Usernames can't contain spaces or null characters");
    else if (name.size > ACL_NAME_BYTES_MAX)
        call_error(call, "ERR user name of %zu bytes is too long; the limit is %u", name.size, ACL_NAME_BYTES_MAX);
    else
        acl_store_set(call, name, call->args + 3, call->count - 3);
}

static void run_deluser(struct call *call)
{
    struct acl *acl = call->shard->node->acl;
    struct acl_change change;
    int64_t deleted = 0;
    for (unsigned i = 2; i < call->count; i++) {
        if (slice_equal(call->args[i], slice_text("default"))) {
            call_error(call, "ERR The 'default' user cannot be removed");
            return;
        }
    }
    if (acl_change_begin(acl, &change) != KVS_ERR_OK) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return;
    }
    for (unsigned i = 2; i < call->count; i++)
        deleted += acl_change_remove(&change, call->args[i]);
    acl_change_end(acl, &change, call->shard->id, deleted > 0);
    if (deleted > 0)
        crowd_end_lost(call->shard);
    call_integer(call, deleted);
}

/* False: answered. */
static bool has_file(struct call *call)
{
    if (call->shard->node->config.acl_file != NULL)
        return true;
    call_error(call,
               "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the "
               "ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file "
               "set) in order to store users in the Redis configuration.");
    return false;
}

static void run_load(struct call *call)
{
    if (has_file(call))
        acl_store_load(call);
}

static void run_save(struct call *call)
{
    if (has_file(call))
        acl_store_save(call);
}

#define ANYBODY (COMMAND_NOSCRIPT | COMMAND_LOADING | COMMAND_STALE)
#define ADMIN   (ANYBODY | COMMAND_ADMIN)

const struct subcommand command_acl_subcommands[] = {
    {"cat", -2, ANYBODY, "[<category>]",
     "List all commands that belong to <category>, or all command categories\nwhen no category is specified.", run_cat},
    {"deluser", -3, ADMIN, "<username> [<username> ...]", "Delete a list of users.", run_deluser},
    {"dryrun", -4, ADMIN, "<username> <command> [<arg> ...]",
     "Returns whether the user can execute the given command without executing the command.", run_dryrun},
    {"genpass", -2, ANYBODY, "[<bits>]",
     "Generate a secure 256-bit user password. The optional `bits` argument can\nbe used to specify a different size.",
     run_genpass},
    {"getuser", 3, ADMIN, "<username>", "Get the user's details.", run_getuser},
    {"list", 2, ADMIN, "", "Show users details in config file format.", run_list},
    {"load", 2, ADMIN, "", "Reload users from the ACL file.", run_load},
    {"log", -2, ADMIN, "[<count> | RESET]", "Show the ACL log entries.", run_log},
    {"save", 2, ADMIN, "", "Save the current config to the ACL file.", run_save},
    {"setuser", -3, ADMIN, "<username> <attribute> [<attribute> ...]",
     "Create or modify a user with the specified attributes.", run_setuser},
    {"users", 2, ADMIN, "", "List all the registered usernames.", run_users},
    {"whoami", 2, ANYBODY, "", "Return the current connection username.", run_whoami},
    {NULL, 0, 0, NULL, NULL, NULL},
};
