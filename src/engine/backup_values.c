/*
 * backup_values.c - the value files in a backup: each gets a second name in the copy's own folder `values`, or is
 * copied where the file system cannot do that.
 *
 * All that have their final name are taken: those that records of the moment name are among them, because they were
 * durable before their records, and because none is removed from the beginning of a backup to its end
 * (store_values.held). What is taken in excess, the first start of the copy finds and removes.
 *
 * The way of each is backup_file.c's. Whatever goes wrong with one ends the backup.
 */
#include "engine/backup_internal.h"

#include "base/array.h"

static void list_value(void *context, const char *text)
{
    struct backup *backup = context;
    struct value_name name;
    if (!value_name_parse(text, &name) || name.unfinished || backup->error != KVS_ERR_OK)
        return;
    backup->error =
        array_grow((void **)&backup->values, backup->value_count, &backup->value_capacity, sizeof *backup->values);
    if (backup->error == KVS_ERR_OK)
        backup->values[backup->value_count++] = name;
}

static void value_taken(struct backup *backup, enum kvs_err error, const char *text);

static void take_value(struct backup *backup)
{
    if (backup->value_next == backup->value_count) {
        backup_begin(backup, BACKUP_SYNC_VALUES);
        ring_file_sync(backup->ring, &backup->io, backup->values_fd);
        return;
    }
    const struct value_name name = backup->values[backup->value_next];
    backup->file = (struct backup_file){.from_fd = backup_store(backup)->values.place.dir_fd,
                                        .to_fd = backup->values_fd,
                                        .bytes = (uint64_t)name.blocks * KVS_BLOCK_BYTES,
                                        .taken = value_taken};
    value_name_write(backup->file.name, name);
    backup_file_begin(backup);
}

/* One that is not there any more was not needed: its unlink was in flight when the backup began. */
static void value_taken(struct backup *backup, enum kvs_err error, const char *text)
{
    if (error != KVS_ERR_OK && error != KVS_ERR_NOT_FOUND) {
        backup_fail(backup, error, "%s", text);
        return;
    }
    backup->value_next++;
    take_value(backup);
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

void backup_values_step(struct backup *backup)
{
    if (backup->io.error == KVS_ERR_OK)
        backup_list(backup);
    else
        backup_fail(backup, backup->io.error, "cannot sync " VALUE_DIR_NAME " in %s: %s", backup->partial_text,
                    ring_op_text(&backup->io));
}
