/*
 * acl_user.c - one user: memory, comparison, description, and the check itself.
 *
 * Failures: no memory, which gives NULL and leaves nothing behind.
 */
#include "base/assert.h"
#include "node/acl.h"
#include "node/glob.h"

#include <stdlib.h>

static void patterns_free(struct acl_patterns *patterns)
{
    for (unsigned i = 0; i < patterns->count; i++)
        free(patterns->items[i].data);
    free(patterns->items);
    *patterns = (struct acl_patterns){0};
}

static bool patterns_copy(struct acl_patterns *to, const struct acl_patterns *from)
{
    *to = (struct acl_patterns){.all = from->all};
    if (from->count == 0)
        return true;
    to->items = calloc(from->count, sizeof(to->items[0]));
    if (to->items == NULL)
        return false;
    for (unsigned i = 0; i < from->count; i++) {
        struct acl_pattern *item = &to->items[i];
        *item = from->items[i];
        item->data = malloc(item->size + 1);
        if (item->data == NULL)
            return false;
        memcpy(item->data, from->items[i].data, item->size);
        to->count++;
    }
    return true;
}

static bool patterns_same(const struct acl_patterns *a, const struct acl_patterns *b)
{
    if (a->all != b->all || a->count != b->count)
        return false;
    for (unsigned i = 0; i < a->count; i++) {
        if (a->items[i].access != b->items[i].access || !slice_equal(slice_make(a->items[i].data, a->items[i].size),
                                                                     slice_make(b->items[i].data, b->items[i].size)))
            return false;
    }
    return true;
}

struct acl_user *acl_user_create(struct slice name, const struct acl_salt *salt, uint64_t uid)
{
    KVS_ASSERT(name.size <= ACL_NAME_BYTES_MAX);
    struct acl_user *user = calloc(1, sizeof(*user));
    if (user == NULL)
        return NULL;
    atomic_store_explicit(&user->refs, 1, memory_order_relaxed);
    user->uid = uid;
    if (name.size > 0)
        memcpy(user->name, name.data, name.size);
    user->name_bytes = name.size;
    user->salt = *salt;
    user->sanitize = true;
    return user;
}

struct acl_user *acl_user_copy(const struct acl_user *user)
{
    struct acl_user *copy = acl_user_create(slice_make(user->name, user->name_bytes), &user->salt, user->uid);
    if (copy == NULL)
        return NULL;
    copy->on = user->on;
    copy->nopass = user->nopass;
    copy->sanitize = user->sanitize;
    copy->password_count = user->password_count;
    for (unsigned i = 0; i < user->password_count; i++) {
        struct acl_password *to = &copy->passwords[i];
        const struct acl_password *from = &user->passwords[i];
        to->key = from->key;
        bool known = atomic_load_explicit(&from->known, memory_order_acquire);
        for (unsigned j = 0; known && j < ARRAY_COUNT(to->quick); j++)
            atomic_store_explicit(&to->quick[j], atomic_load_explicit(&from->quick[j], memory_order_relaxed),
                                  memory_order_relaxed);
        atomic_store_explicit(&to->known, known, memory_order_relaxed);
    }
    memcpy(copy->commands, user->commands, sizeof(copy->commands));
    copy->all_commands = user->all_commands;
    text_add(&copy->rules, slice_make(user->rules.data, user->rules.size));
    if (!patterns_copy(&copy->keys, &user->keys) || !patterns_copy(&copy->channels, &user->channels) ||
        copy->rules.failed) {
        acl_user_release(copy);
        return NULL;
    }
    return copy;
}

void acl_user_release(struct acl_user *user)
{
    if (atomic_fetch_sub_explicit(&user->refs, 1, memory_order_acq_rel) > 1)
        return;
    patterns_free(&user->keys);
    patterns_free(&user->channels);
    text_deinit(&user->rules);
    explicit_bzero(user->passwords, sizeof(user->passwords));
    free(user);
}

bool acl_user_same(const struct acl_user *a, const struct acl_user *b)
{
    if (a->on != b->on || a->nopass != b->nopass || a->sanitize != b->sanitize ||
        a->password_count != b->password_count || a->all_commands != b->all_commands)
        return false;
    if (!slice_equal(slice_make(a->name, a->name_bytes), slice_make(b->name, b->name_bytes)) ||
        !slice_equal(slice_make(a->rules.data, a->rules.size), slice_make(b->rules.data, b->rules.size)) ||
        memcmp(a->commands, b->commands, sizeof(a->commands)) != 0)
        return false;
    if (a->password_count > 0 && !acl_salt_equal(&a->salt, &b->salt))
        return false;
    for (unsigned i = 0; i < a->password_count; i++) {
        if (!acl_hash_equal(&a->passwords[i].key, &b->passwords[i].key))
            return false;
    }
    return patterns_same(&a->keys, &b->keys) && patterns_same(&a->channels, &b->channels);
}

/* ---- description ----------------------------------------------------------------------------------------------- */

static void describe_patterns(const struct acl_patterns *patterns, char mark, struct text *out)
{
    if (patterns->all)
        text_printf(out, "%c*", mark);
    for (unsigned i = 0; i < patterns->count; i++) {
        const struct acl_pattern *item = &patterns->items[i];
        text_printf(out, "%s%s%c", i > 0 ? " " : "",
                    item->access == ACL_READ    ? "%R"
                    : item->access == ACL_WRITE ? "%W"
                                                : "",
                    mark);
        text_add(out, slice_make(item->data, item->size));
    }
}

void acl_user_describe_keys(const struct acl_user *user, struct text *out)
{
    describe_patterns(&user->keys, '~', out);
}

void acl_user_describe_channels(const struct acl_user *user, struct text *out)
{
    describe_patterns(&user->channels, '&', out);
}

void acl_user_describe_commands(const struct acl_user *user, struct text *out)
{
    text_printf(out, "%s%s", user->all_commands ? "+@all" : "-@all", user->rules.size > 0 ? " " : "");
    text_add(out, slice_make(user->rules.data, user->rules.size));
}

void acl_user_describe(const struct acl_user *user, struct text *out)
{
    text_printf(out, "%s%s%s", user->on ? "on " : "off ", user->nopass ? "nopass " : "",
                user->sanitize ? "sanitize-payload " : "skip-sanitize-payload ");
    for (unsigned i = 0; i < user->password_count; i++) {
        char key[ACL_KEY_TEXT_BYTES];
        acl_key_format(key, &user->salt, &user->passwords[i].key);
        text_printf(out, "#%s ", key);
    }
    if (user->keys.all || user->keys.count > 0) {
        acl_user_describe_keys(user, out);
        text_printf(out, " ");
    }
    if (!user->channels.all)
        text_printf(out, "resetchannels ");
    if (user->channels.all || user->channels.count > 0) {
        acl_user_describe_channels(user, out);
        text_printf(out, " ");
    }
    acl_user_describe_commands(user, out);
}

/* ---- the check ------------------------------------------------------------------------------------------------- */

bool acl_user_may_run(const struct acl_user *user, unsigned number)
{
    KVS_ASSERT(number < ACL_COMMANDS_MAX);
    return (user->commands[number / 64] >> (number % 64) & 1) != 0;
}

bool acl_user_may_touch(const struct acl_user *user, unsigned access, struct slice key)
{
    if (user->keys.all)
        return true;
    for (unsigned i = 0; i < user->keys.count; i++) {
        const struct acl_pattern *item = &user->keys.items[i];
        if ((item->access & access) == access && glob_matches(slice_make(item->data, item->size), key))
            return true;
    }
    return false;
}
