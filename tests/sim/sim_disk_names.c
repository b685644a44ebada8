/*
 * sim_disk_names.c - the directories of the simulated disk.
 *
 * As with content, each directory has the names of now, the durable names, and between them the list of changes that
 * are not durable yet. A directory itself is durable once it is made (ring_dir_open syncs what it makes, and what was
 * begun under a name that a crash takes back would be gone as a whole, as if nothing had been begun); its renaming is a
 * change of names like others.
 *
 * Failure modes: a crash keeps or drops each change on its own, in any combination: a file system promises nothing
 * about their order. A rename happens as a whole or not at all.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ------------------------------------------------------------------------------------------------------ */

static void copy_name(char to[256], const char *name)
{
    size_t length = strlen(name);
    KVS_ASSERT(length > 0 && length < 256);
    memcpy(to, name, length + 1);
}

struct sim_name *sim_name_find(const struct list *names, const char *name)
{
    for (struct list *node = names->next; node != names; node = node->next) {
        struct sim_name *entry = container_of(node, struct sim_name, link);
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

void sim_name_set(struct list *names, const char *name, struct sim_file *file)
{
    struct sim_name *entry = sim_name_find(names, name);
    if (file != NULL)
        sim_file_hold(file);
    if (entry != NULL) {
        sim_file_release(entry->file);
    } else if (file != NULL) {
        entry = calloc(1, sizeof(*entry));
        KVS_ASSERT(entry != NULL);
        copy_name(entry->name, name);
        list_push_back(names, &entry->link);
    }
    if (file != NULL) {
        entry->file = file;
    } else if (entry != NULL) {
        list_remove(&entry->link);
        free(entry);
    }
}

/* ---- directories ------------------------------------------------------------------------------------------------ */

struct sim_dir *sim_dir_find(const char *path, size_t length)
{
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        struct sim_dir *dir = container_of(node, struct sim_dir, link);
        if (strlen(dir->path) == length && memcmp(dir->path, path, length) == 0)
            return dir;
    }
    return NULL;
}

struct sim_dir *sim_dir_create(const char *path, size_t length)
{
    struct sim_dir *dir = calloc(1, sizeof(*dir));
    KVS_ASSERT(dir != NULL);
    dir->path = strndup(path, length);
    KVS_ASSERT(dir->path != NULL);
    list_init(&dir->now);
    list_init(&dir->durable);
    list_init(&dir->unsynced);
    list_push_back(&sim->disk->dirs, &dir->link);
    return dir;
}

struct sim_dir *sim_dir_of(int dir_fd, const char *path, const char **name)
{
    char full[4096];
    const struct sim_dir *base = dir_fd < 0 ? NULL : sim_fd_object(dir_fd, SIM_FD_DIR); /* AT_FDCWD: the root */
    const char *slash = strrchr(path, '/');
    *name = slash != NULL ? slash + 1 : path;
    int head = slash != NULL ? (int)(slash - path) : 0;
    if (path[0] == '/' || base == NULL)
        snprintf(full, sizeof(full), "%s%.*s", path[0] == '/' || head == 0 ? "" : "/", head, path);
    else
        snprintf(full, sizeof(full), "%s%s%.*s", base->path, head > 0 ? "/" : "", head, path);
    return sim_dir_find(full, strlen(full));
}

void sim_dir_change(struct sim_dir *dir, enum sim_change_kind kind, const char *name, const char *old,
                    struct sim_file *file)
{
    struct sim_change *change = calloc(1, sizeof(*change));
    KVS_ASSERT(change != NULL);
    change->kind = kind;
    change->sequence = ++sim->sequence;
    change->keep = sim->disk->keep_new;
    change->file = file;
    if (file != NULL)
        sim_file_hold(file);
    copy_name(change->name, name);
    if (old != NULL)
        copy_name(change->old, old);
    list_push_back(&dir->unsynced, &change->link);
}

bool sim_dir_neighbours(const struct sim_file *a, const struct sim_file *b)
{
    for (const struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        const struct sim_dir *dir = container_of(node, struct sim_dir, link);
        unsigned found = 0;
        for (const struct list *item = dir->now.next; item != &dir->now; item = item->next) {
            const struct sim_file *file = container_of(item, struct sim_name, link)->file;
            found |= (file == a ? 1u : 0u) | (file == b ? 2u : 0u);
        }
        if (found == 3)
            return true;
    }
    return false;
}

static void change_free(struct sim_change *change)
{
    list_remove(&change->link);
    if (change->file != NULL)
        sim_file_release(change->file);
    free(change);
}

static void change_apply(struct sim_dir *dir, const struct sim_change *change)
{
    if (change->kind == SIM_RENAME)
        sim_name_set(&dir->durable, change->old, NULL);
    sim_name_set(&dir->durable, change->name, change->kind == SIM_UNLINK ? NULL : change->file);
}

static bool concerns(const struct sim_change *change, const char *name)
{
    return strcmp(change->name, name) == 0 || (change->kind == SIM_RENAME && strcmp(change->old, name) == 0);
}

/* Once a change is durable no crash brings back what older ones made of its names. */
static void forget_older(struct sim_dir *dir, const struct sim_change *durable)
{
    struct list *node = dir->unsynced.next;
    while (node != &durable->link) {
        struct sim_change *change = container_of(node, struct sim_change, link);
        node = node->next;
        if (concerns(change, durable->name) || (durable->kind == SIM_RENAME && concerns(change, durable->old)))
            change_free(change);
    }
}

/* ---- moving directories ----------------------------------------------------------------------------------------- */

static bool is_parent(const struct sim_dir *dir, const struct sim_dir *child)
{
    size_t length = strlen(dir->path);
    return strncmp(child->path, dir->path, length) == 0 && child->path[length] == '/' &&
           strchr(child->path + length + 1, '/') == NULL;
}

static void settle_move(struct sim_dir *dir)
{
    free(dir->moved.from);
    dir->moved.from = NULL;
}

static void sync_moves(const struct sim_dir *parent, uint64_t sequence, bool failing)
{
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        struct sim_dir *dir = container_of(node, struct sim_dir, link);
        if (dir->moved.from == NULL || dir->moved.sequence > sequence || dir->moved.orphan || !is_parent(parent, dir))
            continue;
        dir->moved.orphan = failing;
        if (!failing)
            settle_move(dir);
    }
}

/* The directories in one go with it: they have no move of their own to be taken back. */
static void move_children(const char *from, const char *to)
{
    size_t length = strlen(from);
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        struct sim_dir *child = container_of(node, struct sim_dir, link);
        if (strncmp(child->path, from, length) != 0 || child->path[length] != '/')
            continue;
        KVS_ASSERT(child->moved.from == NULL);
        size_t size = strlen(to) + strlen(child->path + length) + 1;
        char *path = malloc(size);
        KVS_ASSERT(path != NULL);
        snprintf(path, size, "%s%s", to, child->path + length);
        free(child->path);
        child->path = path;
    }
}

void sim_dir_move(struct sim_dir *dir, const char *to)
{
    char *path = strdup(to);
    KVS_ASSERT(path != NULL);
    move_children(dir->path, to);
    KVS_ASSERT(dir->moved.from == NULL); /* once is enough for everybody */
    dir->moved.from = dir->path;
    dir->moved.sequence = ++sim->sequence;
    dir->moved.orphan = false;
    dir->moved.keep = sim->disk->keep_new;
    dir->path = path;
}

void sim_dir_sync(struct sim_dir *dir, uint64_t sequence, bool failing)
{
    sync_moves(dir, sequence, failing);
    struct list *node = dir->unsynced.next;
    while (node != &dir->unsynced) {
        struct sim_change *change = container_of(node, struct sim_change, link);
        node = node->next;
        if (change->sequence > sequence || change->orphan)
            continue;
        if (failing) {
            change->orphan = true;
        } else {
            change_apply(dir, change);
            forget_older(dir, change);
            change_free(change);
        }
    }
}

static void clear(struct list *names)
{
    for (struct list *node = names->next, *next; node != names; node = next) {
        struct sim_name *entry = container_of(node, struct sim_name, link);
        next = node->next;
        sim_file_release(entry->file);
        free(entry);
    }
    list_init(names);
}

void sim_dir_settle(struct sim_dir *dir, const char *name)
{
    struct list *node = dir->unsynced.next;
    while (node != &dir->unsynced) {
        struct sim_change *change = container_of(node, struct sim_change, link);
        node = node->next;
        if (!concerns(change, name))
            continue;
        change_apply(dir, change);
        change_free(change);
    }
}

void sim_dir_pending(struct sim_dir *dir, struct sim_pendings *pendings)
{
    for (struct list *node = dir->unsynced.next; node != &dir->unsynced; node = node->next) {
        struct sim_change *change = container_of(node, struct sim_change, link);
        sim_pendings_add(pendings, change->sequence, &change->keep);
    }
    if (dir->moved.from != NULL)
        sim_pendings_add(pendings, dir->moved.sequence, &dir->moved.keep);
}

static bool survives(bool keep, enum sim_crash_mode mode)
{
    if (mode == SIM_CHOSEN)
        return keep;
    return mode == SIM_KEEP_ALL || (mode == SIM_RANDOM && sim_chance(50));
}

void sim_dir_crash(struct sim_dir *dir, enum sim_crash_mode mode)
{
    if (mode == SIM_KILL)
        return;
    for (struct list *node = dir->unsynced.next, *next; node != &dir->unsynced; node = next) {
        struct sim_change *change = container_of(node, struct sim_change, link);
        next = node->next;
        if (survives(change->keep, mode))
            change_apply(dir, change);
        change_free(change);
    }
    if (dir->moved.from != NULL && !survives(dir->moved.keep, mode)) {
        move_children(dir->path, dir->moved.from);
        free(dir->path);
        dir->path = dir->moved.from;
        dir->moved.from = NULL;
    }
    settle_move(dir);
    clear(&dir->now);
    for (struct list *node = dir->durable.next; node != &dir->durable; node = node->next) {
        const struct sim_name *entry = container_of(node, struct sim_name, link);
        sim_name_set(&dir->now, entry->name, entry->file);
    }
}

void sim_dir_free(struct sim_dir *dir)
{
    for (struct list *node = dir->unsynced.next, *next; node != &dir->unsynced; node = next) {
        next = node->next;
        change_free(container_of(node, struct sim_change, link));
    }
    clear(&dir->now);
    clear(&dir->durable);
    list_remove(&dir->link);
    settle_move(dir);
    free(dir->path);
    free(dir);
}
