/*
 * acl.c - the table of users: looking, logging in, changing.
 *
 * Happy path of a change: copy the table (pointers to users, each counted), copy the one user that is to change, change
 * the copy, store the new table, leave the old one to the epoch; when that is freed, users only it had are freed too.
 *
 * Failures: no memory, which leaves everything as it was.
 */
#include "node/acl.h"

#include "base/assert.h"
#include "ring/ring.h"

#include <pthread.h>
#include <stdlib.h>

struct acl {
    alignas(KVS_CACHE_LINE_BYTES) _Atomic(struct acl_table *) table;
    _Atomic unsigned *watch;
    uint8_t secret[ACL_HASH_BYTES];
    struct acl_salt nobody; /* what the password of users who are not there is derived with */
    unsigned thread_count;
    struct epoch_thread *threads;
    struct epoch epoch;
    struct acl_numbers numbers;

    pthread_mutex_t lock; /* of changes */
    uint64_t uid;         /* the latest */
    uint64_t version;     /* the latest */
};

static void table_free(struct acl_table *table)
{
    for (unsigned i = 0; i < table->count; i++)
        acl_user_release(table->users[i]);
    free(table);
}

static void table_free_entry(struct epoch_entry *entry)
{
    table_free(container_of(entry, struct acl_table, entry));
}

static struct acl_table *table_make(unsigned room)
{
    return calloc(1, sizeof(struct acl_table) + room * sizeof(struct acl_user *));
}

/* A salt of its own for every name, and every process: so a change that is made twice, first to see which passwords
 * must be derived, meets the same one. */
static void salt_for(const struct acl *acl, struct slice name, struct acl_salt *salt)
{
    struct acl_hash sum;
    uint8_t both[sizeof(acl->secret) + ACL_NAME_BYTES_MAX];
    KVS_ASSERT(name.size <= ACL_NAME_BYTES_MAX);
    memcpy(both, acl->secret, sizeof(acl->secret));
    if (name.size > 0)
        memcpy(both + sizeof(acl->secret), name.data, name.size);
    acl_digest(slice_make(both, sizeof(acl->secret) + name.size), &sum);
    memcpy(salt->bytes, sum.bytes, sizeof(salt->bytes));
    salt->rounds = ACL_ROUNDS;
}

/* May everything, and without a password. */
static struct acl_user *make_default(const struct acl_numbers *numbers, const struct acl_salt *salt)
{
    static const char *const rules[] = {"allcommands", "allkeys", "allchannels", "on", "nopass"};
    struct acl_user *user = acl_user_create(slice_text("default"), salt, ACL_DEFAULT_UID);
    for (size_t i = 0; user != NULL && i < ARRAY_COUNT(rules); i++) {
        const char *wrong = acl_rule_apply(numbers, user, slice_text(rules[i]), NULL);
        KVS_ASSERT(wrong == NULL);
    }
    return user;
}

static bool is_unlimited(const struct acl_table *table)
{
    const struct acl_user *user = acl_default(table);
    return table->count == 1 && acl_is_open(table) && user->all_commands && user->rules.size == 0 && user->keys.all;
}

enum kvs_err acl_create(struct acl **out, unsigned thread_count, struct ring *ring, _Atomic unsigned *watch)
{
    struct acl *acl = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof(*acl), KVS_CACHE_LINE_BYTES));
    if (acl == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(acl, 0, sizeof(*acl));
    acl->watch = watch;
    pthread_mutex_init(&acl->lock, NULL);
    acl_numbers_init(&acl->numbers);
    ring_random(ring, acl->secret, sizeof(acl->secret));
    ring_random(ring, acl->nobody.bytes, sizeof(acl->nobody.bytes));
    acl->nobody.rounds = ACL_ROUNDS;
    acl->uid = ACL_DEFAULT_UID;
    acl->threads = aligned_alloc(KVS_CACHE_LINE_BYTES, thread_count * sizeof(*acl->threads));
    struct acl_table *table = table_make(1);
    struct acl_salt salt;
    salt_for(acl, slice_text("default"), &salt);
    struct acl_user *user = table != NULL ? make_default(&acl->numbers, &salt) : NULL;
    if (acl->threads == NULL || user == NULL) {
        free(table);
        acl_destroy(acl);
        return KVS_ERR_NO_MEMORY;
    }
    table->users[table->count++] = user;
    table->version = ++acl->version;
    atomic_store(&acl->table, table);
    epoch_init(&acl->epoch);
    memset(acl->threads, 0, thread_count * sizeof(*acl->threads));
    for (acl->thread_count = 0; acl->thread_count < thread_count; acl->thread_count++)
        epoch_register(&acl->epoch, &acl->threads[acl->thread_count]);
    *out = acl;
    return KVS_ERR_OK;
}

void acl_destroy(struct acl *acl)
{
    if (acl == NULL)
        return;
    for (unsigned i = 0; i < acl->thread_count; i++)
        epoch_drain(&acl->threads[i]);
    struct acl_table *table = atomic_load(&acl->table);
    if (table != NULL)
        table_free(table);
    pthread_mutex_destroy(&acl->lock);
    free(acl->threads);
    explicit_bzero(acl->secret, sizeof(acl->secret));
    free(acl);
}

void acl_turn(struct acl *acl, unsigned thread)
{
    epoch_poll(&acl->threads[thread]);
}

const struct acl_numbers *acl_numbers(const struct acl *acl)
{
    return &acl->numbers;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

const struct acl_table *acl_read_begin(struct acl *acl, unsigned thread)
{
    KVS_ASSERT(thread < acl->thread_count);
    epoch_begin(&acl->threads[thread]);
    return atomic_load_explicit(&acl->table, memory_order_acquire);
}

void acl_read_end(struct acl *acl, unsigned thread)
{
    epoch_end(&acl->threads[thread]);
}

static int compare_names(struct slice a, const struct acl_user *b)
{
    size_t size = a.size < b->name_bytes ? a.size : b->name_bytes;
    int order = size > 0 ? memcmp(a.data, b->name, size) : 0;
    return order != 0 ? order : (a.size > b->name_bytes) - (a.size < b->name_bytes);
}

/* Where a user of this name is, or would be. */
static unsigned place_of(const struct acl_table *table, struct slice name, bool *there)
{
    unsigned low = 0, high = table->count;
    *there = false;
    while (low < high && !*there) {
        unsigned middle = low + (high - low) / 2;
        int order = compare_names(name, table->users[middle]);
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
        if (order == 0) {
            *there = true;
            low = middle;
        }
    }
    return low;
}

const struct acl_user *acl_find(const struct acl_table *table, struct slice name)
{
    bool there;
    unsigned at = place_of(table, name, &there);
    return there ? table->users[at] : NULL;
}

const struct acl_user *acl_default(const struct acl_table *table)
{
    const struct acl_user *user = acl_find(table, slice_text("default"));
    KVS_ASSERT(user != NULL && user->uid == ACL_DEFAULT_UID);
    return user;
}

bool acl_is_open(const struct acl_table *table)
{
    const struct acl_user *user = acl_default(table);
    return user->on && user->nopass;
}

const struct acl_user *acl_holder_user(struct acl_holder *holder, const struct acl_table *table)
{
    if (holder->version == table->version)
        return holder->user;
    holder->version = table->version;
    holder->user = NULL;
    for (unsigned i = 0; i < table->count; i++) {
        if (table->users[i]->uid == holder->uid)
            holder->user = table->users[i];
    }
    return holder->user;
}

void acl_holder_reset(struct acl_holder *holder, const struct acl_table *table)
{
    *holder = (struct acl_holder){.uid = ACL_DEFAULT_UID, .authenticated = acl_is_open(table)};
}

/* ---- logging in ------------------------------------------------------------------------------------------------ */

static void quick_digest(const struct acl *acl, const struct acl_hash *digest, uint64_t quick[4])
{
    struct acl_hash sum;
    uint8_t both[sizeof(acl->secret) + sizeof(digest->bytes)];
    memcpy(both, acl->secret, sizeof(acl->secret));
    memcpy(both + sizeof(acl->secret), digest->bytes, sizeof(digest->bytes));
    acl_digest(slice_make(both, sizeof(both)), &sum);
    explicit_bzero(both, sizeof(both));
    memcpy(quick, sum.bytes, sizeof(sum.bytes));
}

static bool quick_equal(const struct acl_password *password, const uint64_t quick[4])
{
    uint64_t difference = 0;
    if (!atomic_load_explicit(&password->known, memory_order_acquire))
        return false;
    for (unsigned i = 0; i < 4; i++)
        difference |= atomic_load_explicit(&password->quick[i], memory_order_relaxed) ^ quick[i];
    return difference == 0;
}

enum acl_login acl_login_begin(struct acl *acl, unsigned thread, struct slice name, const struct acl_hash *digest,
                               struct acl_salt *salt, uint64_t *uid)
{
    enum acl_login login = ACL_LOGIN_DERIVE;
    const struct acl_user *user = acl_find(acl_read_begin(acl, thread), name);
    *salt = acl->nobody;
    if (user != NULL && user->on) {
        *uid = user->uid;
        if (user->nopass)
            login = ACL_LOGIN_YES;
        else if (user->password_count > 0)
            *salt = user->salt;
        uint64_t quick[4];
        quick_digest(acl, digest, quick);
        for (unsigned i = 0; i < user->password_count; i++) {
            if (quick_equal(&user->passwords[i], quick))
                login = ACL_LOGIN_YES;
        }
    }
    acl_read_end(acl, thread);
    return login;
}

bool acl_login_end(struct acl *acl, unsigned thread, struct slice name, const struct acl_hash *digest,
                   const struct acl_salt *salt, const struct acl_hash *key, uint64_t *uid)
{
    bool right = false;
    struct acl_user *user = (struct acl_user *)(uintptr_t)acl_find(acl_read_begin(acl, thread), name);
    bool may = user != NULL && user->on && acl_salt_equal(&user->salt, salt);
    for (unsigned i = 0; may && i < user->password_count; i++) {
        struct acl_password *password = &user->passwords[i];
        if (!acl_hash_equal(&password->key, key))
            continue;
        right = true;
        *uid = user->uid;
        uint64_t quick[4];
        quick_digest(acl, digest, quick);
        for (unsigned j = 0; j < 4; j++)
            atomic_store_explicit(&password->quick[j], quick[j], memory_order_relaxed);
        atomic_store_explicit(&password->known, true, memory_order_release);
    }
    acl_read_end(acl, thread);
    return right;
}

/* ---- changing -------------------------------------------------------------------------------------------------- */

enum kvs_err acl_change_begin(struct acl *acl, struct acl_change *change)
{
    pthread_mutex_lock(&acl->lock);
    const struct acl_table *now = atomic_load_explicit(&acl->table, memory_order_relaxed);
    change->table = table_make(ACL_USERS_MAX);
    if (change->table == NULL) {
        pthread_mutex_unlock(&acl->lock);
        return KVS_ERR_NO_MEMORY;
    }
    change->table->count = now->count;
    for (unsigned i = 0; i < now->count; i++) {
        change->table->users[i] = now->users[i];
        atomic_fetch_add_explicit(&now->users[i]->refs, 1, memory_order_relaxed);
    }
    return KVS_ERR_OK;
}

struct acl_user *acl_change_user(struct acl *acl, struct acl_change *change, struct slice name)
{
    struct acl_table *table = change->table;
    bool there;
    unsigned at = place_of(table, name, &there);
    if (there) {
        if (atomic_load_explicit(&table->users[at]->refs, memory_order_relaxed) == 1)
            return table->users[at]; /* ours alone: a copy, or new */
        struct acl_user *copy = acl_user_copy(table->users[at]);
        if (copy == NULL)
            return NULL;
        acl_user_release(table->users[at]);
        table->users[at] = copy;
        return copy;
    }
    if (table->count == ACL_USERS_MAX)
        return NULL;
    struct acl_salt salt;
    salt_for(acl, name, &salt);
    struct acl_user *user = acl_user_create(name, &salt, ++acl->uid);
    if (user == NULL)
        return NULL;
    memmove(&table->users[at + 1], &table->users[at], (table->count - at) * sizeof(table->users[0]));
    table->users[at] = user;
    table->count++;
    return user;
}

bool acl_change_remove(struct acl_change *change, struct slice name)
{
    struct acl_table *table = change->table;
    bool there;
    unsigned at = place_of(table, name, &there);
    if (!there)
        return false;
    acl_user_release(table->users[at]);
    table->count--;
    memmove(&table->users[at], &table->users[at + 1], (table->count - at) * sizeof(table->users[0]));
    return true;
}

enum kvs_err acl_change_reset(struct acl *acl, struct acl_change *change)
{
    struct acl_table *table = change->table;
    struct acl_salt salt = acl_default(table)->salt;
    struct acl_user *user = make_default(&acl->numbers, &salt);
    if (user == NULL)
        return KVS_ERR_NO_MEMORY;
    for (unsigned i = 0; i < table->count; i++)
        acl_user_release(table->users[i]);
    table->users[0] = user;
    table->count = 1;
    return KVS_ERR_OK;
}

void acl_change_keep(struct acl *acl, struct acl_change *change)
{
    const struct acl_table *now = atomic_load_explicit(&acl->table, memory_order_relaxed);
    for (unsigned i = 0; i < change->table->count; i++) {
        struct acl_user *user = change->table->users[i];
        const struct acl_user *before = acl_find(now, slice_make(user->name, user->name_bytes));
        if (before == NULL || before == user || !acl_user_same(before, user))
            continue;
        user->uid = before->uid;
        for (unsigned j = 0; j < user->password_count; j++) { /* in the same order, or they would not be the same */
            struct acl_password *to = &user->passwords[j];
            const struct acl_password *from = &before->passwords[j];
            for (unsigned k = 0; k < 4; k++)
                atomic_store_explicit(&to->quick[k], atomic_load_explicit(&from->quick[k], memory_order_relaxed),
                                      memory_order_relaxed);
            atomic_store(&to->known, atomic_load(&from->known));
        }
    }
}

void acl_change_end(struct acl *acl, struct acl_change *change, unsigned thread, bool apply)
{
    struct acl_table *table = change->table;
    change->table = NULL;
    if (!apply) {
        table_free(table);
    } else {
        struct acl_table *old = atomic_load_explicit(&acl->table, memory_order_relaxed);
        table->version = ++acl->version;
        if (!is_unlimited(table))
            atomic_fetch_or(acl->watch, ACL_WATCH);
        atomic_store(&acl->table, table);
        epoch_defer(&acl->threads[thread], &old->entry, table_free_entry);
    }
    pthread_mutex_unlock(&acl->lock);
}
