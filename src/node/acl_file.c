/*
 * acl_file.c - users as lines of a file, and back.
 *
 *   user NAME RULE RULE …
 *
 * as ACL LIST shows them and Redis keeps them. Lines that are empty or begin with # are skipped. A user who stands
 * there begins from nothing, also default, who is otherwise allowed everything.
 *
 * Failure: the first line that is wrong ends it; the message tells its number, what is wrong and the remedy.
 */
#include "base/assert.h"
#include "node/acl.h"

#include <stdio.h>

void acl_file_write(const struct acl_table *table, struct text *out)
{
    for (unsigned i = 0; i < table->count; i++) {
        text_printf(out, "user %s ", table->users[i]->name);
        acl_user_describe(table->users[i], out);
        text_printf(out, "\n");
    }
}

/* The next word of a line, which is shortened; empty at its end. */
static struct slice next_word(struct slice *line)
{
    size_t from = 0;
    while (from < line->size && (line->data[from] == ' ' || line->data[from] == '\t' || line->data[from] == '\r'))
        from++;
    size_t to = from;
    while (to < line->size && line->data[to] != ' ' && line->data[to] != '\t' && line->data[to] != '\r')
        to++;
    struct slice word = slice_make(line->data + from, to - from);
    *line = slice_make(line->data + to, line->size - to);
    return word;
}

/* What is wrong with a line; NULL: nothing. *at is the word that it is about. */
static const char *read_line(struct acl *acl, struct acl_change *change, struct slice line, bool *default_seen,
                             struct acl_secrets *secrets, struct slice *at)
{
    *at = next_word(&line);
    if (at->size == 0 || at->data[0] == '#')
        return NULL;
    if (!slice_equal(*at, slice_text("user")))
        return "a line begins with the word user";
    *at = next_word(&line);
    if (at->size == 0)
        return "the name of the user is missing";
    if (at->size > ACL_NAME_BYTES_MAX || !acl_name_is_good(*at))
        return "a name has at most 128 bytes, without blanks and zeros";
    bool is_default = slice_equal(*at, slice_text("default"));
    if (is_default ? *default_seen : acl_find(change->table, *at) != NULL)
        return "Duplicate user found. A user can only be defined once in config files";
    *default_seen |= is_default;
    struct acl_user *user = acl_change_user(acl, change, *at);
    if (user == NULL)
        return "there are too many users, or no memory for another one";
    const char *wrong = acl_rule_apply(acl_numbers(acl), user, slice_text("reset"), NULL);
    while (wrong == NULL) {
        *at = next_word(&line);
        if (at->size == 0)
            break;
        wrong = acl_rule_apply(acl_numbers(acl), user, *at, secrets);
    }
    return wrong;
}

bool acl_file_read(struct acl *acl, struct acl_change *change, struct slice file, struct acl_secrets *secrets,
                   char message[ACL_FILE_MESSAGE_BYTES])
{
    bool default_seen = false;
    unsigned number = 0;
    secrets->next = 0;
    while (file.size > 0) {
        const uint8_t *end = memchr(file.data, '\n', file.size);
        size_t size = end != NULL ? (size_t)(end - file.data) : file.size;
        struct slice word;
        number++;
        const char *wrong = read_line(acl, change, slice_make(file.data, size), &default_seen, secrets, &word);
        if (wrong != NULL) {
            bool secret = word.size > 0 && (word.data[0] == '>' || word.data[0] == '<');
            snprintf(message, ACL_FILE_MESSAGE_BYTES, "line %u, at '%.*s': %s", number,
                     secret ? 1 : (int)(word.size < 64 ? word.size : 64), (const char *)word.data, wrong);
            return false;
        }
        size += end != NULL;
        file = slice_make(file.data + size, file.size - size);
    }
    return true;
}
