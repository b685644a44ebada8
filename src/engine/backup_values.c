/*
 * backup_values.c - the value files in a backup: each gets a second name in the copy's own folder `values`, or is
 * copied where the file system cannot do that.
 *
 * All that have their final name are taken: those that records of the moment name are among them, because they were
 * durable before their records, and because none is removed from the beginning of a backup to its end
 * (store_values.held). What is taken in excess, the first start of the copy finds and removes.
 *
 * A value file never changes, so a second name is as good as a copy.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

static void fail(struct backup *backup, const char *what)
{
    backup_fail(backup, backup->io.error, "cannot %s " VALUE_DIR_NAME "/%s in %s: %s", what, backup->value_file,
                backup->partial_text, ring_op_text(&backup->io));
}

static void list_value(void *context, const char *text)
{
    struct backup *backup = context;
    struct value_name name;
    if (!value_name_parse(text, &name) || name.unfinished || backup->error != KVS_ERR_OK)
        return;
    if (backup->value_count == backup->value_capacity) {
        size_t capacity = backup->value_capacity == 0 ? 64 : 2 * backup->value_capacity;
        struct value_name *values = realloc(backup->values, capacity * sizeof *values);
        if (values == NULL) {
            backup->error = KVS_ERR_NO_MEMORY;
            return;
        }
        backup->values = values;
        backup->value_capacity = capacity;
    }
    backup->values[backup->value_count++] = name;
}

static void take_value(struct backup *backup)
{
    if (backup->value_next == backup->value_count) {
        backup_begin(backup, BACKUP_SYNC_VALUES);
        ring_file_sync(backup->ring, &backup->io, backup->values_fd);
        return;
    }
    value_name_write(backup->value_file, backup->values[backup->value_next]);
    backup_begin(backup, BACKUP_LINK_VALUE);
    ring_file_link(backup->ring, &backup->io, backup_store(backup)->values.place.dir_fd, backup->value_file,
                   backup->values_fd, backup->value_file);
}

void backup_values_begin(struct backup *backup)
{
    backup->value_count = backup->value_next = 0;
    enum kvs_err err = KVS_ERR_OK;
    int dir_fd = backup_store(backup)->values.place.dir_fd;
    if (dir_fd >= 0)
        err = ring_dir_list(backup->ring, dir_fd, list_value, backup);
    if (err == KVS_ERR_OK)
        err = backup->error;
    backup->error = KVS_ERR_OK;
    if (err != KVS_ERR_OK)
        backup_fail(backup, err, "cannot list the folder " VALUE_DIR_NAME ": %s", kvs_err_text(err));
    else
        take_value(backup);
}

static void value_taken(struct backup *backup)
{
    backup->other_bytes += (uint64_t)backup->values[backup->value_next].blocks * KVS_BLOCK_BYTES;
    backup->value_next++;
    take_value(backup);
}

/* ---- where there are no second names --------------------------------------------------------------------------- */

static uint64_t file_bytes(const struct backup *backup)
{
    return (uint64_t)backup->values[backup->value_next].blocks * KVS_BLOCK_BYTES;
}

static void read_some(struct backup *backup)
{
    uint64_t left = file_bytes(backup) - backup->copy_next;
    if (left == 0) {
        backup_begin(backup, BACKUP_SYNC_VALUE);
        ring_file_sync(backup->ring, &backup->io, backup->target_fd);
        return;
    }
    backup_begin(backup, BACKUP_READ_VALUE);
    ring_file_read(backup->ring, &backup->io, backup->source_fd, backup->slots[0].buffer,
                   left < BACKUP_CHUNK_BYTES ? (size_t)left : BACKUP_CHUNK_BYTES, backup->copy_next);
}

static void open_target(struct backup *backup)
{
    backup->source_fd = backup->io.fd;
    backup->copy_next = 0;
    backup_begin(backup, BACKUP_CREATE_VALUE);
    ring_file_open(backup->ring, &backup->io, backup->values_fd, backup->value_file,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE);
}

static void write_some(struct backup *backup)
{
    uint64_t at = backup->copy_next;
    size_t size = (size_t)backup->io.bytes;
    if (size == 0) {
        backup_fail(backup, KVS_ERR_CORRUPT, VALUE_DIR_NAME "/%s is shorter than its name says", backup->value_file);
        return;
    }
    backup->copy_next += size;
    backup_begin(backup, BACKUP_WRITE_VALUE);
    ring_file_write(backup->ring, &backup->io, backup->target_fd, backup->slots[0].buffer, size, at, 0);
}

static void close_value(struct backup *backup)
{
    ring_close_fd(backup->ring, backup->source_fd);
    ring_close_fd(backup->ring, backup->target_fd);
    backup->source_fd = backup->target_fd = -1;
    value_taken(backup);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void link_step(struct backup *backup)
{
    if (backup->io.error == KVS_ERR_OK) {
        value_taken(backup);
    } else if (backup->io.error == KVS_ERR_NOT_FOUND) {
        /* Its unlink was in flight when the backup began: it was not needed then. */
        backup->value_next++;
        take_value(backup);
    } else if (backup->io.error == KVS_ERR_UNSUPPORTED) {
        backup_begin(backup, BACKUP_OPEN_VALUE);
        ring_file_open(backup->ring, &backup->io, backup_store(backup)->values.place.dir_fd, backup->value_file,
                       RING_OPEN_READ);
    } else {
        fail(backup, "link");
    }
}

void backup_values_step(struct backup *backup)
{
    if (backup->stage == BACKUP_LINK_VALUE) {
        link_step(backup);
        return;
    }
    if (backup->io.error != KVS_ERR_OK) {
        fail(backup, backup->stage == BACKUP_SYNC_VALUES ? "sync" : "copy");
        return;
    }
    switch (backup->stage) {
    case BACKUP_OPEN_VALUE:
        open_target(backup);
        break;
    case BACKUP_CREATE_VALUE:
    case BACKUP_WRITE_VALUE:
        read_some(backup);
        break;
    case BACKUP_READ_VALUE:
        write_some(backup);
        break;
    case BACKUP_SYNC_VALUE:
        close_value(backup);
        break;
    default:
        KVS_ASSERT(backup->stage == BACKUP_SYNC_VALUES);
        backup_list(backup);
        break;
    }
}
