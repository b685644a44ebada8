/*
 * acl_commands.c - what rules need to know of commands: a number for each, its categories, its keys.
 *
 * Categories of commands are in the table. Those of subcommands follow from their flags, and from their command's
 * group, as in Redis. Numbers are given in the order of the table, to a command and then to its subcommands; a command
 * that is nothing without a subcommand has a number, too, which HELP uses.
 *
 * Keys are at fixed places (first_key, last_key, key_step), but for the commands in `exceptions`, which is also the
 * place for those whose keys depend on other arguments.
 */
#include "base/assert.h"
#include "node/acl.h"
#include "node/command.h"

void acl_numbers_init(struct acl_numbers *numbers)
{
    numbers->count = 0;
    for (unsigned i = 0; i < command_table_count; i++) {
        KVS_ASSERT(i < ACL_COMMANDS_MAX);
        numbers->first[i] = (uint16_t)numbers->count++;
        for (const struct subcommand *sub = command_table[i].subcommands; sub != NULL && sub->name != NULL; sub++)
            numbers->count++;
    }
    KVS_ASSERT(numbers->count <= ACL_COMMANDS_MAX);
}

unsigned acl_number(const struct acl_numbers *numbers, const struct command *command, const struct subcommand *sub)
{
    unsigned number = numbers->first[command - command_table];
    return sub == NULL ? number : number + 1 + (unsigned)(sub - command->subcommands);
}

/* ---- categories ------------------------------------------------------------------------------------------------ */

const char *const acl_category_names[ACL_CATEGORIES] = {
    "keyspace", "read",   "write",       "set",       "sortedset",  "list",        "hash",
    "string",   "bitmap", "hyperloglog", "geo",       "stream",     "pubsub",      "admin",
    "fast",     "slow",   "blocking",    "dangerous", "connection", "transaction", "scripting",
};

unsigned acl_category_find(struct slice name)
{
    unsigned i = 0;
    while (i < ACL_CATEGORIES && !command_word_is(name, acl_category_names[i]))
        i++;
    return i;
}

static uint32_t category_bit(const char *name)
{
    unsigned found = acl_category_find(slice_text(name));
    KVS_ASSERT(found < ACL_CATEGORIES);
    return 1u << found;
}

/* Of a text like "@read @fast". */
static uint32_t categories_of_text(const char *text)
{
    uint32_t bits = 0;
    while (*text != 0) {
        size_t length = strcspn(text, " ");
        KVS_ASSERT(length > 1);
        unsigned found = acl_category_find(slice_make(text + 1, length - 1));
        KVS_ASSERT(found < ACL_CATEGORIES);
        bits |= 1u << found;
        text += length + (text[length] == ' ');
    }
    return bits;
}

uint32_t acl_categories(const struct command *command, const struct subcommand *sub)
{
    uint32_t own = categories_of_text(command->categories);
    if (sub == NULL)
        return own;
    uint32_t bits = own & (category_bit("keyspace") | category_bit("connection") | category_bit("pubsub") |
                           category_bit("scripting") | category_bit("stream"));
    if (strcmp(command->group, "connection") == 0)
        bits |= category_bit("connection");
    if (strcmp(command->group, "generic") == 0)
        bits |= category_bit("keyspace");
    bits |= category_bit((sub->flags & COMMAND_FAST) != 0 ? "fast" : "slow");
    if ((sub->flags & COMMAND_WRITE) != 0)
        bits |= category_bit("write");
    if ((sub->flags & COMMAND_READONLY) != 0)
        bits |= category_bit("read");
    if ((sub->flags & COMMAND_ADMIN) != 0)
        bits |= category_bit("admin") | category_bit("dangerous");
    return bits;
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

typedef void keys_fn(const struct slice *args, unsigned count, struct acl_key_use *use);

/* SET that gives the old value reads it. */
static void keys_of_set(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    for (unsigned i = 3; i < count; i++) {
        if (command_word_is(args[i], "get"))
            use->access_first |= ACL_READ;
    }
}

/* BITFIELD with nothing but GET changes nothing; where it cannot be understood it might. */
static void keys_of_bitfield(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    use->access_first = ACL_READ;
    for (unsigned i = 2; i < count;) {
        const unsigned behind = count - i - 1;
        if (behind >= 2 && command_word_is(args[i], "get")) {
            i += 3;
        } else if (behind >= 1 && command_word_is(args[i], "overflow")) {
            i += 2;
        } else {
            use->access_first |= ACL_WRITE;
            return;
        }
    }
}

/* The value of the first key is written under the second. */
static void keys_of_copy(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    (void)args;
    (void)count;
    use->access_first = ACL_READ;
}

/* … and the first one goes. */
static void keys_of_rename(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    (void)args;
    (void)count;
    use->access_first = ACL_READ | ACL_WRITE;
}

/* The first key is written, the others are read. */
static void keys_of_bitop(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    (void)args;
    (void)count;
    use->access_first = ACL_WRITE;
}

/* The key is behind the subcommand. */
static void keys_of_subcommand(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    (void)args;
    *use = (struct acl_key_use){.first = count > 2 ? 2 : 0, .last = 2, .step = 1};
}

/* DEBUG has one only for OBJECT. */
static void keys_of_debug(const struct slice *args, unsigned count, struct acl_key_use *use)
{
    if (count > 2 && command_word_is(args[1], "object"))
        keys_of_subcommand(args, count, use);
}

enum { METADATA = 0, READ_WRITE = ACL_READ | ACL_WRITE };

/* Commands that do something else with their keys than their flags tell, or have them elsewhere. */
static const struct {
    const char *name;
    unsigned access;
    keys_fn *look; /* NULL: the keys are where the table has them */
} exceptions[] = {
    {"exists", METADATA, NULL},
    {"ttl", METADATA, NULL},
    {"pttl", METADATA, NULL},
    {"expiretime", METADATA, NULL},
    {"pexpiretime", METADATA, NULL},
    {"type", METADATA, NULL},
    {"touch", METADATA, NULL},
    {"watch", METADATA, NULL},
    {"strlen", METADATA, NULL},
    {"getset", READ_WRITE, NULL},
    {"getdel", READ_WRITE, NULL},
    {"getex", READ_WRITE, NULL},
    {"incr", READ_WRITE, NULL},
    {"decr", READ_WRITE, NULL},
    {"incrby", READ_WRITE, NULL},
    {"decrby", READ_WRITE, NULL},
    {"incrbyfloat", READ_WRITE, NULL},
    {"setbit", READ_WRITE, NULL},
    {"delifeq", READ_WRITE, NULL},
    {"bitop", ACL_READ, keys_of_bitop},
    {"copy", ACL_WRITE, keys_of_copy},
    {"rename", ACL_WRITE, keys_of_rename},
    {"renamenx", ACL_WRITE, keys_of_rename},
    {"set", ACL_WRITE, keys_of_set},
    {"bitfield", READ_WRITE, keys_of_bitfield},
    {"debug", METADATA, keys_of_debug},
    {"object", 0, keys_of_subcommand},
    {"memory", 0, keys_of_subcommand},
    {"move", READ_WRITE, NULL},
};

struct acl_key_use acl_keys(const struct command *command, const struct subcommand *sub, const struct slice *args,
                            unsigned count)
{
    struct acl_key_use use = {0};
    unsigned flags = sub != NULL ? sub->flags : command->flags;
    if (command->first_key > 0 && (unsigned)command->first_key < count) {
        use.first = (unsigned)command->first_key;
        use.last = command->last_key > 0 ? (unsigned)command->last_key : count - (unsigned)-command->last_key;
        use.step = (unsigned)command->key_step;
    }
    use.access = (flags & COMMAND_WRITE) != 0 ? ACL_WRITE : ACL_READ;
    use.access_first = use.access;
    for (size_t i = 0; i < ARRAY_COUNT(exceptions); i++) {
        if (strcmp(exceptions[i].name, command->name) != 0)
            continue;
        use.access = exceptions[i].access;
        use.access_first = use.access;
        if (exceptions[i].look != NULL)
            exceptions[i].look(args, count, &use);
    }
    if (use.last >= count)
        use.last = count - 1;
    return use;
}
