/*
 * acl_log.c - a ring of refusals, the latest first.
 *
 * Memory is taken once, at the start, so that a refusal never fails to be noted.
 */
#include "node/acl_log.h"

#include "node/command.h"

#include <pthread.h>
#include <stdlib.h>

/* A refusal like one of so many before it, no longer ago than that, is the same one. */
#define SAME_LOOK 10u
#define SAME_MS   60000u

struct entry {
    uint64_t id, count, created_ms, updated_ms;
    const char *reason;
    size_t object_bytes, user_bytes, client_bytes;
    uint8_t object[ACL_LOG_OBJECT_BYTES];
    uint8_t user[ACL_LOG_OBJECT_BYTES];
    uint8_t client[ACL_LOG_CLIENT_BYTES];
};

struct acl_log {
    pthread_mutex_t lock;
    uint64_t next_id;
    unsigned count;
    struct entry *order[ACL_LOG_MAX]; /* the latest first; all of `entries`, those behind `count` unused */
    struct entry entries[ACL_LOG_MAX];
};

struct acl_log *acl_log_create(void)
{
    struct acl_log *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return NULL;
    pthread_mutex_init(&log->lock, NULL);
    for (unsigned i = 0; i < ACL_LOG_MAX; i++)
        log->order[i] = &log->entries[i];
    return log;
}

void acl_log_destroy(struct acl_log *log)
{
    if (log == NULL)
        return;
    pthread_mutex_destroy(&log->lock);
    free(log);
}

static size_t keep(uint8_t *to, size_t room, struct slice from)
{
    size_t size = from.size < room ? from.size : room;
    if (size > 0)
        memcpy(to, from.data, size);
    return size;
}

static struct slice shorten(struct slice text, size_t bytes_max)
{
    return slice_make(text.data, text.size < bytes_max ? text.size : bytes_max);
}

/* Moves the entry at `at` to the front. */
static struct entry *bring_forward(struct acl_log *log, unsigned at)
{
    struct entry *entry = log->order[at];
    memmove(&log->order[1], &log->order[0], at * sizeof(log->order[0]));
    log->order[0] = entry;
    return entry;
}

static struct entry *find_same(struct acl_log *log, uint64_t now_ms, const char *reason, struct slice object,
                               struct slice user)
{
    for (unsigned i = 0; i < log->count && i < SAME_LOOK; i++) {
        const struct entry *entry = log->order[i];
        if (strcmp(entry->reason, reason) == 0 && now_ms < entry->created_ms + SAME_MS &&
            slice_equal(slice_make(entry->object, entry->object_bytes), object) &&
            slice_equal(slice_make(entry->user, entry->user_bytes), user))
            return bring_forward(log, i);
    }
    return NULL;
}

void acl_log_add(struct acl_log *log, uint64_t now_ms, const char *reason, struct slice object, struct slice user,
                 struct slice client)
{
    object = shorten(object, ACL_LOG_OBJECT_BYTES);
    user = shorten(user, ACL_LOG_OBJECT_BYTES);
    pthread_mutex_lock(&log->lock);
    struct entry *entry = find_same(log, now_ms, reason, object, user);
    if (entry != NULL) {
        entry->count++;
    } else {
        log->count += log->count < ACL_LOG_MAX;
        entry = bring_forward(log, log->count - 1);
        entry->id = log->next_id++;
        entry->count = 1;
        entry->created_ms = now_ms;
        entry->reason = reason;
        entry->object_bytes = keep(entry->object, sizeof(entry->object), object);
        entry->user_bytes = keep(entry->user, sizeof(entry->user), user);
    }
    entry->updated_ms = now_ms;
    entry->client_bytes = keep(entry->client, sizeof(entry->client), client);
    pthread_mutex_unlock(&log->lock);
}

void acl_log_reset(struct acl_log *log)
{
    pthread_mutex_lock(&log->lock);
    log->count = 0;
    pthread_mutex_unlock(&log->lock);
}

static void write_entry(const struct entry *entry, uint64_t now_ms, int resp_version, struct text *out)
{
    double age_s = (double)(now_ms > entry->created_ms ? now_ms - entry->created_ms : 0) / 1000;
    text_map(out, 10, resp_version);
    text_bulk(out, "count");
    text_integer(out, (int64_t)entry->count);
    text_bulk(out, "reason");
    text_bulk(out, entry->reason);
    text_bulk(out, "context");
    text_bulk(out, "toplevel");
    text_bulk(out, "object");
    text_bulk_bytes(out, slice_make(entry->object, entry->object_bytes));
    text_bulk(out, "username");
    text_bulk_bytes(out, slice_make(entry->user, entry->user_bytes));
    text_bulk(out, "age-seconds");
    text_double(out, age_s, resp_version);
    text_bulk(out, "client-info");
    text_bulk_bytes(out, slice_make(entry->client, entry->client_bytes));
    text_bulk(out, "entry-id");
    text_integer(out, (int64_t)entry->id);
    text_bulk(out, "timestamp-created");
    text_integer(out, (int64_t)entry->created_ms);
    text_bulk(out, "timestamp-last-updated");
    text_integer(out, (int64_t)entry->updated_ms);
}

void acl_log_write(struct acl_log *log, uint64_t now_ms, size_t count, int resp_version, struct text *out)
{
    pthread_mutex_lock(&log->lock);
    if (count > log->count)
        count = log->count;
    text_array(out, count);
    for (size_t i = 0; i < count; i++)
        write_entry(log->order[i], now_ms, resp_version, out);
    pthread_mutex_unlock(&log->lock);
}
