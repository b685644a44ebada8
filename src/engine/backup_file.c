/*
 * backup_file.c - the way of a run or a value file into the copy: a second name or, where the file system has none to
 * give, its bytes.
 *
 *   link ──► taken
 *     └─ unsupported ─► open → create → read → write → read → … → sync ──► taken
 *
 * Such a file never changes, so a second name is as good as a copy. A name is durable when its directory is synced:
 * that is done once, for all.
 *
 * Failure modes: whatever fails is told to who has begun it, with nothing open any more; what was created is there
 * still.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"

#include <stdio.h>

static void close_both(struct backup *backup)
{
    int *fds[] = {&backup->source_fd, &backup->target_fd};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        if (*fds[i] >= 0)
            ring_close_fd(backup->ring, *fds[i]);
        *fds[i] = -1;
    }
}

static void fail(struct backup *backup, enum kvs_err error, const char *why)
{
    const struct backup_file *file = &backup->file;
    char text[ENGINE_MESSAGE_BYTES];
    snprintf(text, sizeof text, "cannot %s %s%s in %.250s: %.150s", backup->stage == BACKUP_LINK_FILE ? "link" : "copy",
             file->to_fd == backup->values_fd ? VALUE_DIR_NAME "/" : "", file->name, backup->partial_text, why);
    close_both(backup);
    /* A folder of the copy that is not found is another matter than a file of the store. */
    bool of_copy = error == KVS_ERR_NOT_FOUND && backup->stage > BACKUP_OPEN_FILE;
    file->taken(backup, of_copy ? KVS_ERR_IO : error, text);
}

static void read_some(struct backup *backup)
{
    uint64_t left = backup->file.bytes - backup->copy_next;
    if (left == 0) {
        backup_begin(backup, BACKUP_SYNC_FILE);
        ring_file_sync(backup->ring, &backup->io, backup->target_fd);
        return;
    }
    backup_begin(backup, BACKUP_READ_FILE);
    ring_file_read(backup->ring, &backup->io, backup->source_fd, backup->slots[0].buffer,
                   left < BACKUP_CHUNK_BYTES ? (size_t)left : BACKUP_CHUNK_BYTES, backup->copy_next);
}

static void create(struct backup *backup)
{
    backup->copy_next = 0;
    backup_begin(backup, BACKUP_CREATE_FILE);
    ring_file_open(backup->ring, &backup->io, backup->file.to_fd, backup->file.name,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE);
}

static void write_some(struct backup *backup)
{
    uint64_t at = backup->copy_next;
    size_t size = (size_t)backup->io.bytes;
    if (size == 0) {
        fail(backup, KVS_ERR_CORRUPT, "it is shorter than it has to be");
        return;
    }
    backup->copy_next += size;
    backup_begin(backup, BACKUP_WRITE_FILE);
    ring_file_write(backup->ring, &backup->io, backup->target_fd, backup->slots[0].buffer, size, at, 0);
}

static void taken(struct backup *backup)
{
    close_both(backup);
    backup->other_bytes += backup->file.bytes;
    backup->copied_bytes += backup->file.made ? backup->file.bytes : 0;
    backup->file.taken(backup, KVS_ERR_OK, "");
}

void backup_file_begin(struct backup *backup)
{
    struct backup_file *file = &backup->file;
    KVS_ASSERT(backup->source_fd < 0 && backup->target_fd < 0);
    file->made = false;
    backup_begin(backup, BACKUP_LINK_FILE);
    ring_file_link(backup->ring, &backup->io, file->from_fd, file->name, file->to_fd, file->name);
}

void backup_file_step(struct backup *backup)
{
    struct backup_file *file = &backup->file;
    enum kvs_err err = backup->io.error;
    if (backup->stage == BACKUP_LINK_FILE && err == KVS_ERR_UNSUPPORTED) {
        backup_begin(backup, BACKUP_OPEN_FILE);
        ring_file_open(backup->ring, &backup->io, file->from_fd, file->name, RING_OPEN_READ);
        return;
    }
    if (err != KVS_ERR_OK) {
        fail(backup, err, ring_op_text(&backup->io));
        return;
    }
    switch (backup->stage) {
    case BACKUP_OPEN_FILE:
        create(backup);
        break;
    case BACKUP_CREATE_FILE:
        file->made = true;
        read_some(backup);
        break;
    case BACKUP_WRITE_FILE:
        read_some(backup);
        break;
    case BACKUP_READ_FILE:
        write_some(backup);
        break;
    default:
        KVS_ASSERT(backup->stage == BACKUP_LINK_FILE || backup->stage == BACKUP_SYNC_FILE);
        taken(backup);
        break;
    }
}
