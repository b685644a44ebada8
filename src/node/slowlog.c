/*
 * slowlog.c - a list of slow commands, the latest first.
 *
 * An entry is one piece of memory, as long as it has to be: it is made when something was slow, which is seldom, or
 * wanted for every command by whoever looks for something.
 *
 * Failures: no memory for an entry: it is left out, and its number is missing.
 */
#include "node/slowlog.h"

#include "base/list.h"
#include "node/command.h"
#include "node/redact.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct entry {
    struct list link;
    uint64_t id, time_s, took_us;
    unsigned arg_count;
    uint16_t sizes[SLOWLOG_ARGS];
    size_t address_bytes, name_bytes;
    uint8_t bytes[]; /* the arguments, the address, the name */
};

struct slowlog {
    pthread_mutex_t lock;
    struct list entries;
    size_t count;
    uint64_t next_id;
};

struct slowlog *slowlog_create(void)
{
    struct slowlog *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return NULL;
    pthread_mutex_init(&log->lock, NULL);
    list_init(&log->entries);
    return log;
}

/* With the lock. */
static void shorten(struct slowlog *log, size_t count_max)
{
    while (log->count > count_max) {
        struct entry *oldest = container_of(log->entries.prev, struct entry, link);
        list_remove(&oldest->link);
        free(oldest);
        log->count--;
    }
}

void slowlog_destroy(struct slowlog *log)
{
    if (log == NULL)
        return;
    shorten(log, 0);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* ---- what is shown of a command -------------------------------------------------------------------------------- */

static void take_text(struct slowlog_command *out, const char *text)
{
    size_t size = strlen(text);
    memcpy(out->bytes[out->count], text, size);
    out->sizes[out->count++] = (uint16_t)size;
}

static void take_arg(struct slowlog_command *out, struct slice arg)
{
    uint8_t *to = out->bytes[out->count];
    size_t size = arg.size < SLOWLOG_ARG_BYTES ? arg.size : SLOWLOG_ARG_BYTES;
    if (size > 0)
        memcpy(to, arg.data, size);
    if (arg.size > size) {
        char rest[40];
        int length = snprintf(rest, sizeof(rest), "... (%zu more bytes)", arg.size - size);
        memcpy(to + size, rest, (size_t)length);
        size += (size_t)length;
    }
    out->sizes[out->count++] = (uint16_t)size;
}

void slowlog_take(struct slowlog_command *out, const struct slice *args, unsigned count,
                  bool (*hides)(const void *context, unsigned at), const void *context)
{
    out->count = 0;
    const unsigned shown = count > SLOWLOG_ARGS ? SLOWLOG_ARGS - 1 : count;
    for (unsigned i = 0; i < shown; i++) {
        if (hides(context, i))
            take_text(out, REDACTED);
        else
            take_arg(out, args[i]);
    }
    if (shown < count) {
        char rest[48];
        snprintf(rest, sizeof(rest), "... (%u more arguments)", count - shown);
        take_text(out, rest);
    }
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

static void copy(uint8_t **to, const void *from, size_t size)
{
    if (size > 0)
        memcpy(*to, from, size);
    *to += size;
}

void slowlog_add(struct slowlog *log, const struct slowlog_command *command, uint64_t time_s, uint64_t took_us,
                 struct slice address, struct slice name, size_t count_max)
{
    size_t bytes = address.size + name.size;
    for (unsigned i = 0; i < command->count; i++)
        bytes += command->sizes[i];
    struct entry *entry = malloc(sizeof(*entry) + bytes);
    if (entry != NULL) {
        entry->time_s = time_s;
        entry->took_us = took_us;
        entry->arg_count = command->count;
        memcpy(entry->sizes, command->sizes, sizeof(entry->sizes));
        entry->address_bytes = address.size;
        entry->name_bytes = name.size;
        uint8_t *at = entry->bytes;
        for (unsigned i = 0; i < command->count; i++)
            copy(&at, command->bytes[i], command->sizes[i]);
        copy(&at, address.data, address.size);
        copy(&at, name.data, name.size);
    }
    pthread_mutex_lock(&log->lock);
    const uint64_t id = log->next_id++;
    if (entry != NULL) {
        entry->id = id;
        list_push_front(&log->entries, &entry->link);
        log->count++;
    }
    shorten(log, count_max);
    pthread_mutex_unlock(&log->lock);
}

void slowlog_trim(struct slowlog *log, size_t count_max)
{
    pthread_mutex_lock(&log->lock);
    shorten(log, count_max);
    pthread_mutex_unlock(&log->lock);
}

void slowlog_reset(struct slowlog *log)
{
    slowlog_trim(log, 0);
}

size_t slowlog_length(struct slowlog *log)
{
    pthread_mutex_lock(&log->lock);
    size_t count = log->count;
    pthread_mutex_unlock(&log->lock);
    return count;
}

static void write_entry(const struct entry *entry, struct text *out)
{
    const uint8_t *at = entry->bytes;
    text_array(out, 6);
    text_integer(out, (int64_t)entry->id);
    text_integer(out, (int64_t)entry->time_s);
    text_integer(out, (int64_t)entry->took_us);
    text_array(out, entry->arg_count);
    for (unsigned i = 0; i < entry->arg_count; i++) {
        text_bulk_bytes(out, slice_make(at, entry->sizes[i]));
        at += entry->sizes[i];
    }
    text_bulk_bytes(out, slice_make(at, entry->address_bytes));
    text_bulk_bytes(out, slice_make(at + entry->address_bytes, entry->name_bytes));
}

void slowlog_write(struct slowlog *log, size_t count, struct text *out)
{
    pthread_mutex_lock(&log->lock);
    if (count > log->count)
        count = log->count;
    text_array(out, count);
    const struct list *node = log->entries.next;
    for (size_t i = 0; i < count; i++, node = node->next)
        write_entry(container_of(node, struct entry, link), out);
    pthread_mutex_unlock(&log->lock);
}
