/*
 * backup_place.c - the directories of a backup: the place where all of them are, and the one that is being filled.
 *
 *   make the place, if need be → sync its parent → is NAME taken? → make .partial → remove what is in it → … the copy …
 *   → superblock → sync .partial → rename it to NAME → sync the place
 *
 * The superblock comes last of the files, the name last of all: a directory with its name is a whole backup, durably,
 * and one without a superblock is no data directory to anybody.
 *
 * Failure modes: a place that cannot be made or opened, a name that is taken. What has gone wrong in between is undone
 * by removing the files; .partial itself stays, empty, for the next one. When the last sync fails, the backup is whole
 * and has its name, and may lose that at a power loss: it counts as failed and is left alone.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"
#include "base/canary.h"

#include <stdio.h>
#include <string.h>

enum { SUPERBLOCK_FILE_BYTES = 2 * KVS_BLOCK_BYTES };

static void fail_step(struct backup *backup, const char *what, const char *where)
{
    bool of_names = backup->stage == BACKUP_SYNC_PARENT || backup->stage == BACKUP_SYNC_PLACE;
    backup_fail(backup, backup->io.error, "cannot %s %s%s%s: %s", what, backup->place_text, *where == 0 ? "" : "/",
                where, of_names ? backup->naming.text : ring_op_text(&backup->io));
}

/* ---- names that others may sync, too --------------------------------------------------------------------------- */

/* Before a name changes outside of the copy. Should it not be in the data directory, this does no harm. */
static void begin_name(struct backup *backup)
{
    name_change_begin(&backup->naming, &backup_store(backup)->names);
}

static void names_synced(struct name_change *change)
{
    struct backup *backup = container_of(change, struct backup, naming);
    backup->io.error = change->error;
    backup_step_done(&backup->io);
}

/* The directory may be the data directory, where syncs must not meet, and a failure concerns all. */
static void sync_names(struct backup *backup, enum backup_stage stage, int fd)
{
    backup->stage = stage;
    if (!ring_file_same(backup->ring, fd, backup_store(backup)->base.dir_fd)) {
        name_sync_init(&backup->other_names, fd);
        name_change_begin(&backup->naming, &backup->other_names);
    }
    name_change_sync(&backup->naming, backup->ring, names_synced);
}

/* ---- the place ------------------------------------------------------------------------------------------------- */

void backup_place_begin(struct backup *backup)
{
    begin_name(backup);
    backup_begin(backup, BACKUP_MAKE_PLACE);
    ring_dir_make(backup->ring, &backup->io, backup_store(backup)->base.dir_fd, backup->place);
}

static void open_place(struct backup *backup)
{
    backup_begin(backup, BACKUP_OPEN_PLACE);
    ring_file_open(backup->ring, &backup->io, backup_store(backup)->base.dir_fd, backup->place,
                   RING_OPEN_READ | RING_OPEN_DIRECTORY);
}

/* Its name has to last as well: it may be ours, or that of a process that died before it could see to it. */
static void open_parent(struct backup *backup)
{
    const char *slash = strrchr(backup->place, '/');
    int length = slash == NULL ? 0 : (int)(slash - backup->place);
    snprintf(backup->parent, sizeof backup->parent, "%s%.*s",
             length > 0      ? ""
             : slash == NULL ? "."
                             : "/",
             length, backup->place);
    backup_begin(backup, BACKUP_OPEN_PARENT);
    ring_file_open(backup->ring, &backup->io, backup_store(backup)->base.dir_fd, backup->parent,
                   RING_OPEN_READ | RING_OPEN_DIRECTORY);
}

static void sync_parent(struct backup *backup)
{
    /* The parent of a directory that somebody else has made need not be ours to read. */
    if (backup->io.error == KVS_ERR_ACCESS && !backup->place_made) {
        open_place(backup);
    } else if (backup->io.error != KVS_ERR_OK) {
        fail_step(backup, "open the directory above", "");
    } else {
        sync_names(backup, BACKUP_SYNC_PARENT, backup->parent_fd);
    }
}

/* ---- the directory that is being filled ------------------------------------------------------------------------ */

static void look(struct backup *backup)
{
    backup_begin(backup, BACKUP_LOOK);
    ring_file_open(backup->ring, &backup->io, backup->place_fd, backup->name, RING_OPEN_READ | RING_OPEN_DIRECTORY);
}

static void make_dir(struct backup *backup)
{
    if (backup->io.error == KVS_ERR_OK || backup->io.error == KVS_ERR_NOT_A_DIRECTORY) {
        backup_fail(backup, KVS_ERR_EXISTS, "%s/%s exists already: choose another name, or remove it",
                    backup->place_text, backup->name);
    } else if (backup->io.error != KVS_ERR_NOT_FOUND) {
        fail_step(backup, "look for", backup->name);
    } else {
        backup_begin(backup, BACKUP_MAKE_DIR);
        ring_dir_make(backup->ring, &backup->io, backup->place_fd, BACKUP_PARTIAL_NAME);
    }
}

static void take_name(void *context, const char *name)
{
    struct backup *backup = context;
    if (strcmp(name, VALUE_DIR_NAME) == 0)
        return; /* a folder: it stays, what is in it goes */
    if (backup->name_count == BACKUP_NAMES_MAX || strlen(name) >= sizeof backup->names[0])
        return;
    memcpy(backup->names[backup->name_count++], name, strlen(name) + 1);
}

/* Removes one file of what is in the directory; false when there is none. */
static bool remove_one(struct backup *backup, enum backup_stage stage)
{
    int dir_fds[] = {backup->dir_fd, backup->values_fd};
    for (size_t i = 0; backup->name_count == 0 && i < ARRAY_COUNT(dir_fds); i++) {
        backup->names_fd = dir_fds[i];
        if (dir_fds[i] >= 0)
            (void)ring_dir_list(backup->ring, dir_fds[i], take_name, backup);
    }
    if (backup->name_count == 0)
        return false;
    backup_begin(backup, stage);
    ring_file_unlink(backup->ring, &backup->io, backup->names_fd, backup->names[--backup->name_count]);
    return true;
}

static void clear(struct backup *backup)
{
    if (!remove_one(backup, BACKUP_CLEAR))
        backup->stage = BACKUP_MOMENT;
}

void backup_undo(struct backup *backup)
{
    if (backup->target_fd >= 0)
        ring_close_fd(backup->ring, backup->target_fd);
    backup->target_fd = -1;
    backup->name_count = 0;
    if (backup->dir_fd < 0 || backup->renamed || !remove_one(backup, BACKUP_UNDO))
        backup_end(backup);
}

static void undo_more(struct backup *backup)
{
    /* A second error is enough: the next backup tries again. */
    if (backup->io.error != KVS_ERR_OK || !remove_one(backup, BACKUP_UNDO))
        backup_end(backup);
}

/* ---- its end --------------------------------------------------------------------------------------------------- */

void backup_finish(struct backup *backup)
{
    backup_begin(backup, BACKUP_OPEN_SUPERBLOCK);
    ring_file_open(backup->ring, &backup->io, backup->dir_fd, SUPERBLOCK_NAME,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE);
}

/* Both copies alike, as a new store's. The boot is this one: for the copy it ended at the moment. */
static void write_superblock(struct backup *backup)
{
    const struct superblock *superblock =
        canary_on(CANARY_FLUSH_IN_BACKUP) ? &backup_store(backup)->base.superblock : &backup->superblock;
    KVS_ASSERT(superblock_valid(superblock));
    uint8_t *blocks = backup->slots[0].buffer;
    memset(blocks, 0, SUPERBLOCK_FILE_BYTES);
    memcpy(blocks, superblock, sizeof *superblock);
    memcpy(blocks + KVS_BLOCK_BYTES, superblock, sizeof *superblock);
    backup->other_bytes += SUPERBLOCK_FILE_BYTES;
    backup_begin(backup, BACKUP_WRITE_SUPERBLOCK);
    ring_file_write(backup->ring, &backup->io, backup->target_fd, blocks, SUPERBLOCK_FILE_BYTES, 0, 0);
}

static void sync_step(struct backup *backup, enum backup_stage stage, int fd)
{
    backup_begin(backup, stage);
    ring_file_sync(backup->ring, &backup->io, fd);
}

static void rename_dir(struct backup *backup)
{
    begin_name(backup);
    backup_begin(backup, BACKUP_RENAME);
    ring_file_rename(backup->ring, &backup->io, backup->place_fd, BACKUP_PARTIAL_NAME, backup->name);
}

static void close_superblock(struct backup *backup)
{
    ring_close_fd(backup->ring, backup->target_fd);
    backup->target_fd = -1;
    if (canary_on(CANARY_BACKUP_NAMES_NOT_SYNCED))
        rename_dir(backup);
    else
        sync_step(backup, BACKUP_SYNC_DIR, backup->dir_fd);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

/* What could not be done, in the words of a message, and on what; NULL where an error is looked at by the step. */
static const char *step_text(enum backup_stage stage, const char **where)
{
    *where = stage >= BACKUP_MAKE_DIR && stage != BACKUP_SYNC_PLACE ? BACKUP_PARTIAL_NAME : "";
    switch (stage) {
    case BACKUP_MAKE_PLACE:
    case BACKUP_MAKE_DIR:
    case BACKUP_MAKE_VALUES:
        return "make";
    case BACKUP_SYNC_PARENT:
        return "sync the directory above";
    case BACKUP_OPEN_PLACE:
    case BACKUP_OPEN_DIR:
    case BACKUP_OPEN_VALUES:
        return "open";
    case BACKUP_CLEAR:
        return "remove what an earlier backup has left in";
    case BACKUP_OPEN_SUPERBLOCK:
    case BACKUP_WRITE_SUPERBLOCK:
    case BACKUP_SYNC_SUPERBLOCK:
        return "write the superblock in";
    case BACKUP_SYNC_DIR:
    case BACKUP_SYNC_PLACE:
        return "sync";
    case BACKUP_RENAME:
        return "rename";
    default:
        return NULL;
    }
}

static bool is_failure(const struct backup *backup)
{
    bool making =
        backup->stage == BACKUP_MAKE_PLACE || backup->stage == BACKUP_MAKE_DIR || backup->stage == BACKUP_MAKE_VALUES;
    return backup->io.error != KVS_ERR_OK && !(making && backup->io.error == KVS_ERR_EXISTS);
}

void backup_place_step(struct backup *backup)
{
    const char *where;
    const char *what = step_text(backup->stage, &where);
    if (what != NULL && is_failure(backup)) {
        fail_step(backup, what, where);
        return;
    }
    switch (backup->stage) {
    case BACKUP_MAKE_PLACE:
        backup->place_made = backup->io.error == KVS_ERR_OK;
        open_parent(backup);
        break;
    case BACKUP_OPEN_PARENT:
        sync_parent(backup);
        break;
    case BACKUP_SYNC_PARENT:
        open_place(backup);
        break;
    case BACKUP_OPEN_PLACE:
        look(backup);
        break;
    case BACKUP_LOOK:
        make_dir(backup);
        break;
    case BACKUP_MAKE_DIR:
        backup_begin(backup, BACKUP_OPEN_DIR);
        ring_file_open(backup->ring, &backup->io, backup->place_fd, BACKUP_PARTIAL_NAME,
                       RING_OPEN_READ | RING_OPEN_DIRECTORY);
        break;
    case BACKUP_OPEN_DIR:
        backup_begin(backup, BACKUP_MAKE_VALUES);
        ring_dir_make(backup->ring, &backup->io, backup->dir_fd, VALUE_DIR_NAME);
        break;
    case BACKUP_MAKE_VALUES:
        backup_begin(backup, BACKUP_OPEN_VALUES);
        ring_file_open(backup->ring, &backup->io, backup->dir_fd, VALUE_DIR_NAME, RING_OPEN_READ | RING_OPEN_DIRECTORY);
        break;
    case BACKUP_OPEN_VALUES:
    case BACKUP_CLEAR:
        clear(backup);
        break;
    case BACKUP_OPEN_SUPERBLOCK:
        write_superblock(backup);
        break;
    case BACKUP_WRITE_SUPERBLOCK:
        sync_step(backup, BACKUP_SYNC_SUPERBLOCK, backup->target_fd);
        break;
    case BACKUP_SYNC_SUPERBLOCK:
        close_superblock(backup);
        break;
    case BACKUP_SYNC_DIR:
        rename_dir(backup);
        break;
    case BACKUP_RENAME:
        backup->renamed = true;
        sync_names(backup, BACKUP_SYNC_PLACE, backup->place_fd);
        break;
    case BACKUP_SYNC_PLACE:
        backup_end(backup);
        break;
    default:
        KVS_ASSERT(backup->stage == BACKUP_UNDO);
        undo_more(backup);
        break;
    }
}

void backup_place_close(struct backup *backup, struct ring *ring)
{
    int *fds[] = {&backup->parent_fd, &backup->place_fd, &backup->dir_fd, &backup->values_fd};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        if (*fds[i] >= 0)
            ring_close_fd(ring, *fds[i]);
        *fds[i] = -1;
    }
}
