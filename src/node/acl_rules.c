/*
 * acl_rules.c - one rule of ACL SETUSER, applied to a user.
 *
 *   on off nopass resetpass reset (skip-)sanitize-payload clearselectors       words
 *   >password <password #digest !digest #pbkdf2-sha256$…                       passwords
 *   ~pattern %R~pattern %W~pattern %RW~pattern allkeys resetkeys               keys
 *   &pattern allchannels resetchannels                                         channels
 *   +command -command +command|sub -command|sub +@category -@category allcommands nocommands
 *
 * Of rules for commands two things are kept: the bits that the check looks at, and their text in order, from which an
 * older rule for the same command, or for a subcommand of it, is taken out. The text, applied from the beginning, gives
 * the same bits.
 *
 * Failures. A rule that makes no sense: the user is left as it was, and the text says why, as Redis says it. Selectors
 * are refused: nothing here could carry them out.
 */
#include "base/assert.h"
#include "node/acl.h"
#include "node/command.h"

#include <stdlib.h>

const char acl_rule_changed[] = "The user was changed at the same time, try again";

static const char syntax_error[] = "Syntax error";
static const char unknown_command[] = "Unknown command or category name in ACL";
static const char bad_digest[] =
    "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
static const char too_many[] = "Too many passwords, patterns or rules for one user";
static const char no_memory[] = "Out of memory";

bool acl_name_is_good(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        if (byte == 0 || byte == ' ' || (byte >= '\t' && byte <= '\r'))
            return false;
    }
    return true;
}

/* ---- passwords ------------------------------------------------------------------------------------------------- */

/* The key of this digest with the user's salt. NULL with *wrong NULL: not derived yet, and noted. */
static const struct acl_hash *derived(const struct acl_user *user, const struct acl_hash *digest,
                                      struct acl_secrets *secrets, const char **wrong)
{
    *wrong = NULL;
    KVS_ASSERT(secrets != NULL);
    if (!secrets->derived) {
        if (secrets->count == ACL_SECRETS_MAX)
            *wrong = "Too many passwords at once";
        else
            secrets->each[secrets->count++] = (struct acl_secret){.digest = *digest, .salt = user->salt};
        return NULL;
    }
    if (secrets->next < secrets->count) {
        const struct acl_secret *secret = &secrets->each[secrets->next++];
        if (acl_hash_equal(&secret->digest, digest) && acl_salt_equal(&secret->salt, &user->salt))
            return &secret->key;
    }
    *wrong = acl_rule_changed;
    return NULL;
}

static const char *add_key(struct acl_user *user, const struct acl_hash *key)
{
    user->nopass = false;
    for (unsigned i = 0; i < user->password_count; i++) {
        if (acl_hash_equal(&user->passwords[i].key, key))
            return NULL;
    }
    if (user->password_count == ACL_PASSWORDS_MAX)
        return too_many;
    struct acl_password *password = &user->passwords[user->password_count++];
    password->key = *key;
    atomic_store_explicit(&password->known, false, memory_order_relaxed);
    return NULL;
}

static const char *remove_key(struct acl_user *user, const struct acl_hash *key)
{
    for (unsigned i = 0; i < user->password_count; i++) {
        if (!acl_hash_equal(&user->passwords[i].key, key))
            continue;
        for (; i + 1 < user->password_count; i++)
            memcpy(&user->passwords[i], &user->passwords[i + 1], sizeof(user->passwords[0]));
        user->password_count--;
        return NULL;
    }
    return "The password you are trying to remove from the user does not exist";
}

static const char *apply_key(struct acl_user *user, const struct acl_salt *salt, const struct acl_hash *key)
{
    if (user->password_count == 0)
        user->salt = *salt;
    if (!acl_salt_equal(&user->salt, salt))
        return "The passwords of one user have one salt; begin with 'resetpass'";
    return add_key(user, key);
}

static const char *apply_password(struct acl_user *user, struct slice rule, struct acl_secrets *secrets)
{
    struct slice rest = slice_make(rule.data + 1, rule.size - 1);
    struct acl_hash digest, key;
    struct acl_salt salt;
    const char *wrong;
    uint8_t mark = rule.data[0];
    if (mark == '#' && acl_key_parse(rest, &salt, &key))
        return apply_key(user, &salt, &key);
    if (mark == '!' && acl_key_parse(rest, &salt, &key))
        return remove_key(user, &key);
    if (mark == '>' || mark == '<')
        acl_digest(rest, &digest);
    else if (!acl_hex_read(rest, digest.bytes, sizeof(digest.bytes)))
        return bad_digest;
    const struct acl_hash *found = derived(user, &digest, secrets, &wrong);
    if (found == NULL) {
        if (wrong == NULL && (mark == '>' || mark == '#') && user->password_count == 0) {
            /* So that a salt cannot be put in behind it. */
            wrong = add_key(user, &digest);
        }
        return wrong;
    }
    return mark == '>' || mark == '#' ? add_key(user, found) : remove_key(user, found);
}

/* ---- keys and channels ----------------------------------------------------------------------------------------- */

static void patterns_reset(struct acl_patterns *patterns, bool all)
{
    for (unsigned i = 0; i < patterns->count; i++)
        free(patterns->items[i].data);
    free(patterns->items);
    *patterns = (struct acl_patterns){.all = all};
}

static const char *patterns_add(struct acl_patterns *patterns, struct slice text, unsigned access)
{
    if (text.size > ACL_PATTERN_BYTES_MAX)
        return "The pattern is too long";
    for (unsigned i = 0; i < patterns->count; i++) {
        struct acl_pattern *item = &patterns->items[i];
        if (slice_equal(slice_make(item->data, item->size), text)) {
            item->access |= access;
            return NULL;
        }
    }
    if (patterns->count == ACL_PATTERNS_MAX)
        return too_many;
    struct acl_pattern *items = realloc(patterns->items, (patterns->count + 1) * sizeof(items[0]));
    uint8_t *data = malloc(text.size + 1);
    if (items != NULL)
        patterns->items = items;
    if (items == NULL || data == NULL) {
        free(data);
        return no_memory;
    }
    if (text.size > 0)
        memcpy(data, text.data, text.size);
    items[patterns->count++] = (struct acl_pattern){.access = access, .size = text.size, .data = data};
    return NULL;
}

static const char *apply_keys(struct acl_user *user, struct slice rule)
{
    unsigned access = ACL_READ | ACL_WRITE;
    size_t at = 1;
    if (rule.data[0] == '%') {
        access = 0;
        for (; at < rule.size && rule.data[at] != '~'; at++) {
            uint8_t letter = rule.data[at] & 0xDF;
            unsigned more = letter == 'R' ? ACL_READ : ACL_WRITE;
            if ((letter != 'R' && letter != 'W') || (access & more) != 0)
                return syntax_error;
            access |= more;
        }
        if (at == rule.size || access == 0)
            return syntax_error;
        at++;
    }
    struct slice text = slice_make(rule.data + at, rule.size - at);
    if (access == (ACL_READ | ACL_WRITE) && slice_equal(text, slice_text("*"))) {
        patterns_reset(&user->keys, true);
        return NULL;
    }
    if (user->keys.all)
        return "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any "
               "effect. "
               "Try 'resetkeys' to start with an empty list of patterns";
    if (!acl_name_is_good(text))
        return syntax_error;
    return patterns_add(&user->keys, text, access);
}

static const char *apply_channel(struct acl_user *user, struct slice rule)
{
    struct slice text = slice_make(rule.data + 1, rule.size - 1);
    if (slice_equal(text, slice_text("*"))) {
        patterns_reset(&user->channels, true);
        return NULL;
    }
    if (user->channels.all)
        return "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any "
               "effect. Try 'resetchannels' to start with an empty list of channels";
    if (!acl_name_is_good(text))
        return syntax_error;
    return patterns_add(&user->channels, text, ACL_READ | ACL_WRITE);
}

/* ---- commands -------------------------------------------------------------------------------------------------- */

static void set_bit(struct acl_user *user, unsigned number, bool allow)
{
    uint64_t bit = 1ull << (number % 64);
    if (allow)
        user->commands[number / 64] |= bit;
    else
        user->commands[number / 64] &= ~bit;
}

static void set_command(const struct acl_numbers *numbers, struct acl_user *user, const struct command *command,
                        bool allow)
{
    set_bit(user, acl_number(numbers, command, NULL), allow);
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++)
        set_bit(user, acl_number(numbers, command, sub), allow);
}

static void set_all(struct acl_user *user, bool allow)
{
    memset(user->commands, allow ? 0xFF : 0, sizeof(user->commands));
    user->all_commands = allow;
    user->rules.size = 0;
}

/* A command is in a category, or some of its subcommands are. */
static void set_category(const struct acl_numbers *numbers, struct acl_user *user, unsigned category, bool allow)
{
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        if ((acl_categories(command, NULL) >> category & 1) != 0)
            set_bit(user, acl_number(numbers, command, NULL), allow);
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            if ((acl_categories(command, sub) >> category & 1) != 0)
                set_bit(user, acl_number(numbers, command, sub), allow);
        }
    }
}

/* True when a later rule for `name` leaves nothing of this one. */
static bool rule_is_covered(struct slice rule, struct slice name)
{
    if (rule.size < name.size || memcmp(rule.data, name.data, name.size) != 0)
        return false;
    return rule.size == name.size || rule.data[name.size] == '|';
}

/* Puts the rule, in lower case, behind those that it does not cover. */
static const char *note_rule(struct acl_user *user, struct slice name, bool allow)
{
    uint8_t lower[ACL_NAME_BYTES_MAX];
    KVS_ASSERT(name.size <= sizeof(lower));
    for (size_t i = 0; i < name.size; i++)
        lower[i] = name.data[i] >= 'A' && name.data[i] <= 'Z' ? (uint8_t)(name.data[i] + 32) : name.data[i];
    name.data = lower;
    struct text kept = {0};
    const struct text *rules = &user->rules;
    for (size_t at = 0; at < rules->size;) {
        const uint8_t *end = memchr(rules->data + at, ' ', rules->size - at);
        size_t size = end != NULL ? (size_t)(end - rules->data) - at : rules->size - at;
        if (!rule_is_covered(slice_make(rules->data + at + 1, size - 1), name)) {
            text_add(&kept, slice_text(kept.size > 0 ? " " : ""));
            text_add(&kept, slice_make(rules->data + at, size));
        }
        at += size + (end != NULL);
    }
    text_printf(&kept, "%s%c", kept.size > 0 ? " " : "", allow ? '+' : '-');
    text_add(&kept, name);
    if (kept.failed || kept.size > ACL_RULES_BYTES_MAX) {
        const char *wrong = kept.failed ? no_memory : too_many;
        text_deinit(&kept);
        return wrong;
    }
    text_deinit(&user->rules);
    user->rules = kept;
    return NULL;
}

static const struct subcommand *find_sub(const struct command *command, struct slice name, bool *help)
{
    *help = command->subcommands != NULL && command_word_is(name, "help");
    for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
        if (command_word_is(name, sub->name))
            return sub;
    }
    return NULL;
}

static const char *apply_command(const struct acl_numbers *numbers, struct acl_user *user, struct slice rule)
{
    bool allow = rule.data[0] == '+';
    struct slice name = slice_make(rule.data + 1, rule.size - 1);
    if (name.size == 0 || name.size > ACL_NAME_BYTES_MAX)
        return unknown_command;
    if (name.data[0] == '@') {
        struct slice category = slice_make(name.data + 1, name.size - 1);
        if (command_word_is(category, "all")) {
            set_all(user, allow);
            return NULL;
        }
        unsigned found = acl_category_find(category);
        if (found == ACL_CATEGORIES)
            return unknown_command;
        const char *wrong = note_rule(user, name, allow);
        if (wrong == NULL)
            set_category(numbers, user, found, allow);
        return wrong;
    }
    const uint8_t *bar = memchr(name.data, '|', name.size);
    size_t size = bar != NULL ? (size_t)(bar - name.data) : name.size;
    const struct command *command = command_find(slice_make(name.data, size));
    if (command == NULL)
        return unknown_command;
    const struct subcommand *sub = NULL;
    bool help = false;
    if (bar != NULL) {
        struct slice rest = slice_make(bar + 1, name.size - size - 1);
        if (allow && rest.size > 0 && memchr(rest.data, '|', rest.size) != NULL)
            return "Allowing first-arg of a subcommand is not supported";
        sub = find_sub(command, rest, &help);
        if (sub == NULL && !help)
            return unknown_command;
    }
    const char *wrong = note_rule(user, name, allow);
    if (wrong != NULL)
        return wrong;
    if (bar == NULL)
        set_command(numbers, user, command, allow);
    else
        set_bit(user, acl_number(numbers, command, sub), allow);
    return NULL;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

static void reset(struct acl_user *user)
{
    user->nopass = false;
    user->password_count = 0;
    user->on = false;
    user->sanitize = true;
    patterns_reset(&user->keys, false);
    patterns_reset(&user->channels, false);
    set_all(user, false);
}

/* False when it is not one of these. */
static bool apply_word(struct acl_user *user, struct slice rule)
{
    if (command_word_is(rule, "on") || command_word_is(rule, "off")) {
        user->on = rule.size == 2;
    } else if (command_word_is(rule, "nopass")) {
        user->nopass = true;
        user->password_count = 0;
    } else if (command_word_is(rule, "resetpass")) {
        user->nopass = false;
        user->password_count = 0;
    } else if (command_word_is(rule, "sanitize-payload") || command_word_is(rule, "skip-sanitize-payload")) {
        user->sanitize = (rule.data[1] | 0x20) == 'a';
    } else if (command_word_is(rule, "allkeys") || command_word_is(rule, "resetkeys")) {
        patterns_reset(&user->keys, rule.size == strlen("allkeys"));
    } else if (command_word_is(rule, "allchannels") || command_word_is(rule, "resetchannels")) {
        patterns_reset(&user->channels, rule.size == strlen("allchannels"));
    } else if (command_word_is(rule, "allcommands") || command_word_is(rule, "nocommands")) {
        set_all(user, (rule.data[0] | 0x20) == 'a');
    } else if (command_word_is(rule, "reset")) {
        reset(user);
    } else {
        return command_word_is(rule, "clearselectors"); /* there are none */
    }
    return true;
}

const char *acl_rule_apply(const struct acl_numbers *numbers, struct acl_user *user, struct slice rule,
                           struct acl_secrets *secrets)
{
    if (rule.size == 0)
        return NULL;
    if (apply_word(user, rule))
        return NULL;
    switch (rule.data[0]) {
    case '>':
    case '<':
    case '#':
    case '!':
        return apply_password(user, rule, secrets);
    case '~':
    case '%':
        return apply_keys(user, rule);
    case '&':
        return apply_channel(user, rule);
    case '+':
    case '-':
        return apply_command(numbers, user, rule);
    case '(':
        return "Selectors are not offered; give the user one set of rules";
    default:
        return syntax_error;
    }
}
