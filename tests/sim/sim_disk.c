/*
 * sim_disk.c - the simulated file system as a whole: system calls on names, crashing, and the test's view of it.
 *
 * Happy path: a path is resolved to a directory and a name; the change goes into the names of now at once, and into the
 * directory's list of unsynced changes. Failure modes are those of the system calls.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_disk *sim_disk_create(void)
{
    struct sim_disk *disk = calloc(1, sizeof(*disk));
    KVS_ASSERT(disk != NULL);
    list_init(&disk->files);
    list_init(&disk->dirs);
    disk->size = UINT64_MAX;
    disk->align = SIM_BLOCK_BYTES;
    sim->disk = disk;
    (void)sim_dir_create("", 0);
    return disk;
}

void sim_disk_free(struct sim_disk *disk)
{
    while (!list_empty(&disk->dirs))
        sim_dir_free(container_of(disk->dirs.next, struct sim_dir, link));
    KVS_ASSERT(list_empty(&disk->files));
    free(disk);
}

void sim_disk_crash(enum sim_crash_mode mode)
{
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next)
        sim_file_crash(container_of(node, struct sim_file, link), mode);
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next)
        sim_dir_crash(container_of(node, struct sim_dir, link), mode);
    sim->disk->keep_new = false;
}

void sim_set_disk_size(uint64_t bytes)
{
    sim->disk->size = bytes;
}

void sim_set_direct_align(uint32_t align)
{
    KVS_ASSERT(align == 0 || (is_power_of_two(align) && align >= SIM_SECTOR_BYTES && align <= SIM_BLOCK_BYTES));
    sim->disk->align = align;
}

uint32_t sim_disk_align(void)
{
    return sim->disk->align;
}

void sim_set_links(bool possible)
{
    sim->disk->no_links = !possible;
}

/* ---- system calls ----------------------------------------------------------------------------------------------- */

/* The directory of this name in `parent`; "." is the parent itself, as is "" behind the slash of the root. NULL: there
 * is none. */
static struct sim_dir *child_dir(struct sim_dir *parent, const char *name, char path[4096])
{
    if (strcmp(name, ".") == 0 || *name == '\0')
        return parent;
    int length = snprintf(path, 4096, "%s/%s", parent->path, name);
    KVS_ASSERT(length > 0 && length < 4096);
    return sim_dir_find(path, (size_t)length);
}

static int open_dir(struct sim_dir *parent, const char *name)
{
    char path[4096];
    struct sim_dir *dir = child_dir(parent, name, path);
    if (dir == NULL)
        return sim_name_find(&parent->now, name) != NULL ? -ENOTDIR : -ENOENT;
    return sim_fd_open(SIM_FD_DIR, dir, 0);
}

int sim_disk_open(int dir_fd, const char *path, unsigned open_flags)
{
    const char *name;
    struct sim_dir *dir = sim_dir_of(dir_fd, path, &name);
    if (dir == NULL)
        return -ENOENT;
    if (open_flags & RING_OPEN_DIRECTORY)
        return open_dir(dir, name);
    const struct sim_name *entry = sim_name_find(&dir->now, name);
    if (entry == NULL && !(open_flags & RING_OPEN_CREATE))
        return -ENOENT;
    if (entry != NULL && (open_flags & RING_OPEN_CREATE) && (open_flags & RING_OPEN_EXCLUSIVE))
        return -EEXIST;
    if ((open_flags & RING_OPEN_DIRECT) && sim->disk->align == 0)
        return -EINVAL;
    struct sim_file *file = entry != NULL ? entry->file : NULL;
    if (file == NULL) {
        file = sim_file_create();
        sim_name_set(&dir->now, name, file);
        sim_dir_change(dir, SIM_LINK, name, NULL, file);
    }
    sim_file_hold(file);
    return sim_fd_open(SIM_FD_FILE, file, open_flags);
}

/* An empty directory would be replaced by the renaming; nobody needs that. */
static int rename_dir(struct sim_dir *dir, struct sim_dir *target, const char *name)
{
    char path[4096];
    if (sim_name_find(&target->now, name) != NULL)
        return -ENOTDIR;
    if (child_dir(target, name, path) != NULL)
        return -ENOTEMPTY;
    sim_dir_move(dir, path);
    return 0;
}

int sim_disk_rename(int dir_fd, const char *from, const char *to)
{
    const char *old, *name;
    char path[4096];
    struct sim_dir *dir = sim_dir_of(dir_fd, from, &old);
    struct sim_dir *target = sim_dir_of(dir_fd, to, &name);
    const struct sim_name *entry = dir != NULL ? sim_name_find(&dir->now, old) : NULL;
    struct sim_dir *moved = dir != NULL && entry == NULL && dir == target ? child_dir(dir, old, path) : NULL;
    if (moved != NULL)
        return rename_dir(moved, target, name);
    if (entry == NULL || target == NULL)
        return -ENOENT;
    if (target != dir)
        return -EXDEV; /* nobody needs it, and its crash would be a story of its own */
    struct sim_file *file = entry->file;
    sim_dir_change(dir, SIM_RENAME, name, old, file);
    sim_name_set(&dir->now, old, NULL);
    sim_name_set(&dir->now, name, file);
    return 0;
}

int sim_disk_unlink(int dir_fd, const char *path)
{
    const char *name;
    struct sim_dir *dir = sim_dir_of(dir_fd, path, &name);
    if (dir == NULL || sim_name_find(&dir->now, name) == NULL)
        return -ENOENT;
    sim_name_set(&dir->now, name, NULL);
    sim_dir_change(dir, SIM_UNLINK, name, NULL, NULL);
    return 0;
}

int sim_disk_link(int from_dir, const char *from, int to_dir, const char *to)
{
    const char *old, *name;
    const struct sim_dir *source = sim_dir_of(from_dir, from, &old);
    struct sim_dir *target = sim_dir_of(to_dir, to, &name);
    const struct sim_name *entry = source != NULL ? sim_name_find(&source->now, old) : NULL;
    if (entry == NULL || target == NULL)
        return -ENOENT;
    if (sim->disk->no_links)
        return -EXDEV;
    if (sim_name_find(&target->now, name) != NULL)
        return -EEXIST;
    struct sim_file *file = entry->file;
    sim_name_set(&target->now, name, file);
    sim_dir_change(target, SIM_LINK, name, NULL, file);
    return 0;
}

int sim_disk_make_dir(int dir_fd, const char *path)
{
    const char *name;
    char full[4096];
    struct sim_dir *parent = sim_dir_of(dir_fd, path, &name);
    if (parent == NULL)
        return -ENOENT;
    if (sim_name_find(&parent->now, name) != NULL || child_dir(parent, name, full) != NULL)
        return -EEXIST;
    (void)sim_dir_create(full, strlen(full));
    return 0;
}

uint32_t sim_disk_links(int fd)
{
    const struct sim_file *file = sim_fd_object(fd, SIM_FD_FILE);
    uint32_t links = 0;
    for (struct list *node = sim->disk->dirs.next; file != NULL && node != &sim->disk->dirs; node = node->next) {
        const struct sim_dir *dir = container_of(node, struct sim_dir, link);
        for (const struct list *item = dir->now.next; item != &dir->now; item = item->next)
            links += container_of(item, struct sim_name, link)->file == file;
    }
    return links;
}

bool sim_disk_same(int fd, int other_fd)
{
    const void *file = sim_fd_object(fd, SIM_FD_FILE), *dir = sim_fd_object(fd, SIM_FD_DIR);
    return (file != NULL && file == sim_fd_object(other_fd, SIM_FD_FILE)) ||
           (dir != NULL && dir == sim_fd_object(other_fd, SIM_FD_DIR));
}

int sim_disk_sync(int fd, uint64_t sequence, enum sim_sync_outcome outcome)
{
    struct sim_file *file = sim_fd_object(fd, SIM_FD_FILE);
    struct sim_dir *dir = sim_fd_object(fd, SIM_FD_DIR);
    if (file != NULL)
        sim_file_sync(file, sequence, outcome);
    if (dir != NULL)
        sim_dir_sync(dir, sequence, outcome != SIM_SYNC_DONE);
    return file != NULL || dir != NULL ? 0 : -EINVAL;
}

int sim_disk_dir(const char *path)
{
    char full[4096];
    snprintf(full, sizeof(full), "%s%s", path[0] == '/' ? "" : "/", path);
    size_t length = strlen(full);
    while (length > 0 && full[length - 1] == '/')
        length--;
    for (size_t i = 1; i <= length; i++) {
        if (i < length && full[i] != '/')
            continue;
        const char *name;
        full[i] = '\0';
        const struct sim_dir *parent = sim_dir_of(-1, full, &name);
        if (parent != NULL && sim_name_find(&parent->now, name) != NULL)
            return -ENOTDIR;
        if (sim_dir_find(full, i) == NULL)
            (void)sim_dir_create(full, i);
        full[i] = i < length ? '/' : '\0';
    }
    return sim_fd_open(SIM_FD_DIR, sim_dir_find(full, length), 0);
}

void sim_disk_list(int dir_fd, void (*each)(void *context, const char *name), void *context)
{
    const struct sim_dir *dir = sim_fd_object(dir_fd, SIM_FD_DIR);
    KVS_ASSERT(dir != NULL);
    size_t length = strlen(dir->path);
    for (struct list *node = dir->now.next; node != &dir->now; node = node->next)
        each(context, container_of(node, struct sim_name, link)->name);
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        const char *path = container_of(node, struct sim_dir, link)->path;
        if (strncmp(path, dir->path, length) == 0 && path[length] == '/' && strchr(path + length + 1, '/') == NULL)
            each(context, path + length + 1);
    }
}

int sim_disk_lock(int dir_fd, const char *name)
{
    int fd = sim_disk_open(dir_fd, name, RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE);
    if (fd < 0)
        return fd;
    struct sim_fd *entry = sim_fd_get(fd);
    struct sim_file *file = entry->object;
    if (file->locked) {
        sim_fd_close(fd);
        return -EWOULDBLOCK;
    }
    file->locked = true;
    entry->type = SIM_FD_LOCK;
    return fd;
}

void sim_disk_close(struct sim_fd *fd)
{
    struct sim_file *file = fd->type == SIM_FD_DIR ? NULL : fd->object;
    if (fd->type == SIM_FD_LOCK)
        file->locked = false;
    if (file != NULL)
        sim_file_release(file);
}

/* ---- crashes with a chosen outcome ------------------------------------------------------------------------------ */

void sim_pendings_add(struct sim_pendings *pendings, uint64_t sequence, bool *keep)
{
    if (pendings->count == pendings->room) {
        pendings->room = pendings->room * 2 + 16;
        pendings->items = realloc(pendings->items, pendings->room * sizeof(*pendings->items));
        KVS_ASSERT(pendings->items != NULL);
    }
    pendings->items[pendings->count] =
        (struct sim_pending){.sequence = sequence, .index = pendings->count, .keep = keep};
    pendings->count++;
}

static int older_first(const void *left, const void *right)
{
    const struct sim_pending *a = left, *b = right;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static void collect_pending(struct sim_pendings *pendings)
{
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next)
        sim_file_pending(container_of(node, struct sim_file, link), pendings);
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next)
        sim_dir_pending(container_of(node, struct sim_dir, link), pendings);
}

size_t sim_disk_pending(void)
{
    struct sim_pendings pendings = {0};
    collect_pending(&pendings);
    free(pendings.items);
    return pendings.count;
}

void sim_disk_keep(uint64_t mask)
{
    struct sim_pendings pendings = {0};
    collect_pending(&pendings);
    if (pendings.count > 1)
        qsort(pendings.items, pendings.count, sizeof(*pendings.items), older_first);
    for (size_t i = 0; i < pendings.count; i++)
        *pendings.items[i].keep = i < 64 && (mask >> i & 1) != 0;
    free(pendings.items);
    sim->disk->keep_new = true;
}

/* ---- the test's view -------------------------------------------------------------------------------------------- */

/*
 * After a power loss `now` and `durable` are the same. After the death of the process alone they are not: these
 * functions show what the next boot will find, and make what they change durable, together with what was unsynced
 * there.
 */

struct sim_file *sim_file_at(const char *path)
{
    const char *name;
    KVS_ASSERT(path[0] == '/');
    const struct sim_dir *dir = sim_dir_of(-1, path, &name);
    const struct sim_name *entry = dir != NULL ? sim_name_find(&dir->now, name) : NULL;
    return entry != NULL ? entry->file : NULL;
}

static struct sim_file *must_exist(const char *path)
{
    struct sim_file *file = sim_file_at(path);
    KVS_ASSERT(file != NULL);
    return file;
}

bool sim_file_exists(const char *path)
{
    return sim_file_at(path) != NULL;
}

uint64_t sim_file_size(const char *path)
{
    return must_exist(path)->now.size;
}

void sim_file_read(const char *path, uint64_t offset, void *out, size_t size)
{
    const struct sim_file *file = must_exist(path);
    KVS_ASSERT(offset <= file->now.size && size <= file->now.size - offset);
    sim_content_read(&file->now, offset, offset + size, out);
}

static void overwrite(struct sim_file *file, uint64_t offset, const void *data, size_t size)
{
    struct sim_data *bytes = sim_data_make(offset, data, size);
    sim_file_settle(file, offset, offset + size);
    sim_content_put(&file->durable, bytes, offset, offset + size);
    sim_content_put(&file->now, bytes, offset, offset + size);
    sim_data_release(bytes);
}

void sim_file_overwrite(const char *path, uint64_t offset, const void *data, size_t size)
{
    overwrite(must_exist(path), offset, data, size);
}

void sim_file_flip(const char *path, uint64_t bit)
{
    uint8_t byte;
    sim_file_read(path, bit / 8, &byte, 1);
    byte ^= (uint8_t)(1u << (bit % 8));
    sim_file_overwrite(path, bit / 8, &byte, 1);
}

void sim_file_truncate(const char *path, uint64_t size)
{
    struct sim_file *file = must_exist(path);
    sim_file_sync(file, UINT64_MAX, SIM_SYNC_DONE);
    sim_file_settle(file, 0, UINT64_MAX);
    sim_content_resize(&file->durable, size);
    sim_content_resize(&file->now, size);
}

void sim_file_put(const char *path, const void *data, size_t size)
{
    const char *name;
    const char *slash = strrchr(path, '/');
    KVS_ASSERT(path[0] == '/' && slash != NULL);
    char *parent = strndup(path, (size_t)(slash - path) + 1);
    KVS_ASSERT(parent != NULL);
    sim_fd_close(sim_disk_dir(parent));
    free(parent);
    struct sim_dir *dir = sim_dir_of(-1, path, &name);
    struct sim_file *file = sim_file_create();
    sim_dir_settle(dir, name);
    sim_name_set(&dir->now, name, file);
    sim_name_set(&dir->durable, name, file);
    overwrite(file, 0, data, size);
}

void sim_file_remove(const char *path)
{
    const char *name;
    KVS_ASSERT(sim_file_exists(path));
    struct sim_dir *dir = sim_dir_of(-1, path, &name);
    sim_dir_settle(dir, name);
    sim_name_set(&dir->now, name, NULL);
    sim_name_set(&dir->durable, name, NULL);
}

void sim_file_each(void (*each)(void *context, const char *path), void *context)
{
    char path[4096];
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        const struct sim_dir *dir = container_of(node, struct sim_dir, link);
        for (struct list *item = dir->now.next, *next; item != &dir->now; item = next) {
            next = item->next;
            snprintf(path, sizeof(path), "%s/%s", dir->path, container_of(item, struct sim_name, link)->name);
            each(context, path);
        }
    }
}

/* ---- stories ----------------------------------------------------------------------------------------------------- */

const char *sim_disk_name(int fd)
{
    const struct sim_fd *entry = sim_fd_get(fd);
    if (entry->type == SIM_FD_DIR)
        return ((const struct sim_dir *)entry->object)->path;
    if (entry->type != SIM_FD_FILE && entry->type != SIM_FD_LOCK)
        return "";
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        const struct sim_dir *dir = container_of(node, struct sim_dir, link);
        for (struct list *item = dir->now.next; item != &dir->now; item = item->next) {
            const struct sim_name *name = container_of(item, struct sim_name, link);
            if (name->file == entry->object)
                return name->name;
        }
    }
    return "(unlinked)";
}

static unsigned length_of(const struct list *list)
{
    unsigned length = 0;
    for (const struct list *node = list->next; node != list; node = node->next)
        length++;
    return length;
}

static void describe_names(const struct sim_dir *dir, const struct list *names, const char *title)
{
    unsigned settled = 0;
    fprintf(stderr, "%s %s:\n", title, dir->path[0] != '\0' ? dir->path : "/");
    for (struct list *node = names->next; node != names; node = node->next) {
        const struct sim_name *name = container_of(node, struct sim_name, link);
        const struct sim_file *file = name->file;
        if (list_empty(&file->unsynced) && list_empty(&file->now.rot)) {
            settled++;
            continue;
        }
        fprintf(stderr, "  %-24s %llu bytes, %llu durable, %u unsynced writes, %u rotten places\n", name->name,
                (unsigned long long)file->now.size, (unsigned long long)file->durable.size, length_of(&file->unsynced),
                length_of(&file->now.rot));
    }
    fprintf(stderr, "  and %u files that hold what was written to them, durably\n", settled);
}

void sim_disk_describe(void)
{
    for (struct list *node = sim->disk->dirs.next; node != &sim->disk->dirs; node = node->next) {
        const struct sim_dir *dir = container_of(node, struct sim_dir, link);
        if (list_empty(&dir->now) && list_empty(&dir->durable))
            continue;
        describe_names(dir, &dir->now, "names in");
        if (!list_empty(&dir->unsynced))
            describe_names(dir, &dir->durable, "durable names in");
    }
}
