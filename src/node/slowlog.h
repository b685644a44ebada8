/*
 * slowlog.h - the commands that took long: SLOWLOG.
 *
 * Bounded: as many as `slowlog-max-len` says, of each at most SLOWLOG_ARGS arguments and SLOWLOG_ARG_BYTES of each.
 * Passwords are not in it. Any thread: under a lock, held for a microsecond, or as long as it takes to write what is
 * asked for.
 */
#ifndef KVS_NODE_SLOWLOG_H
#define KVS_NODE_SLOWLOG_H

#include "node/text.h"

#define SLOWLOG_ARGS      32u
#define SLOWLOG_ARG_BYTES 128u

struct slowlog;

struct slowlog *slowlog_create(void); /* NULL: no memory */
void slowlog_destroy(struct slowlog *log);

/* A command as it will be shown. Its arguments' beginnings are copied, for they may be gone when it has ended. */
struct slowlog_command {
    unsigned count; /* arguments shown; the last may stand for those that are not */
    uint16_t sizes[SLOWLOG_ARGS];
    uint8_t bytes[SLOWLOG_ARGS][SLOWLOG_ARG_BYTES + 40]; /* and how much more there is */
};
/* `hides`: whether an argument is not to be shown. */
void slowlog_take(struct slowlog_command *out, const struct slice *args, unsigned count,
                  bool (*hides)(const void *context, unsigned at), const void *context);

/* Keeps it, unless there is no memory; those beyond count_max are forgotten, the oldest first. */
void slowlog_add(struct slowlog *log, const struct slowlog_command *command, uint64_t time_s, uint64_t took_us,
                 struct slice address, struct slice name, size_t count_max);
void slowlog_trim(struct slowlog *log, size_t count_max);
void slowlog_reset(struct slowlog *log);
size_t slowlog_length(struct slowlog *log);
/* The latest `count` as a RESP array. */
void slowlog_write(struct slowlog *log, size_t count, struct text *out);

#endif
