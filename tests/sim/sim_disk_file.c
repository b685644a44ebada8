/*
 * sim_disk_file.c - the content of simulated files.
 *
 * Each file has two contents: `now`, which reads see, and `durable`, which is what the platters hold; between them lies
 * the list of unsynced writes. Applying that list in order turns the second into the first. A sync applies the part of
 * it that it covers; a crash applies, drops or tears each entry, and what comes out is both contents of the next boot.
 * A durable write goes into both at once, and cuts out of older entries what it has overwritten, because no crash
 * brings that back.
 *
 * Failure modes: a failed sync marks what it was to cover as lost: it still reads back, but only a crash will tell what
 * has become of it. A full disk takes as many bytes as fit.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

void sim_bytes_resize(struct sim_bytes *bytes, size_t size)
{
    if (size > bytes->room) {
        size_t room = bytes->room * 2 > size ? bytes->room * 2 : size;
        bytes->data = realloc(bytes->data, room);
        KVS_ASSERT(bytes->data != NULL);
        bytes->room = room;
    }
    if (size > bytes->size)
        memset(bytes->data + bytes->size, 0, size - bytes->size);
    bytes->size = size;
}

void sim_bytes_put(struct sim_bytes *bytes, uint64_t offset, const uint8_t *data, size_t size)
{
    if (size == 0)
        return;
    if (offset + size > bytes->size)
        sim_bytes_resize(bytes, offset + size);
    memcpy(bytes->data + offset, data, size);
}

/* ---- files and unsynced writes ---------------------------------------------------------------------------------- */

struct sim_file *sim_file_create(void)
{
    struct sim_file *file = calloc(1, sizeof(*file));
    KVS_ASSERT(file != NULL);
    list_init(&file->unsynced);
    list_push_back(&sim->disk->files, &file->link);
    return file;
}

void sim_file_hold(struct sim_file *file)
{
    file->refs++;
}

static void unsynced_free(struct sim_unsynced *write)
{
    list_remove(&write->link);
    free(write->data);
    free(write);
}

void sim_file_release(struct sim_file *file)
{
    KVS_ASSERT(file->refs > 0);
    if (--file->refs > 0)
        return;
    for (struct list *node = file->unsynced.next, *next; node != &file->unsynced; node = next) {
        next = node->next;
        unsynced_free(container_of(node, struct sim_unsynced, link));
    }
    list_remove(&file->link);
    free(file->now.data);
    free(file->durable.data);
    free(file);
}

/* Links a copy of the bytes in after `before`. */
static void unsynced_add(struct list *before, const struct sim_unsynced *like, uint64_t offset, const uint8_t *data,
                         size_t size)
{
    struct sim_unsynced *write = malloc(sizeof(*write));
    KVS_ASSERT(write != NULL);
    *write = *like;
    write->offset = offset;
    write->size = size;
    if (size > 0)
        write->end = offset + size;
    write->data = malloc(size + 1);
    KVS_ASSERT(write->data != NULL);
    if (size > 0)
        memcpy(write->data, data, size);
    list_push_back(before->next, &write->link);
}

static void unsynced_apply(struct sim_file *file, const struct sim_unsynced *write)
{
    if (write->end > file->durable.size)
        sim_bytes_resize(&file->durable, write->end);
    sim_bytes_put(&file->durable, write->offset, write->data, write->size);
}

/* Takes [from, to) out of the unsynced writes. */
static void unsynced_cut(struct sim_file *file, uint64_t from, uint64_t to)
{
    struct list *node = file->unsynced.next;
    while (node != &file->unsynced) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        uint64_t begin = write->offset, end = write->offset + write->size;
        if (write->size == 0 || end <= from || begin >= to)
            continue;
        if (end > to)
            unsynced_add(&write->link, write, to, write->data + (to - begin), end - to);
        if (begin < from)
            unsynced_add(&write->link, write, begin, write->data, from - begin);
        unsynced_free(write);
    }
}

static void add_unsynced_write(struct sim_file *file, uint64_t offset, const uint8_t *data, size_t size)
{
    struct sim_unsynced like = {.sequence = ++sim->sequence};
    sim_bytes_put(&file->now, offset, data, size);
    unsynced_add(file->unsynced.prev, &like, offset, data, size);
}

void sim_file_sync(struct sim_file *file, uint64_t sequence, bool failing)
{
    struct list *node = file->unsynced.next;
    while (node != &file->unsynced) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        if (write->sequence > sequence || write->lost)
            continue;
        if (failing) {
            write->lost = true;
        } else {
            unsynced_apply(file, write);
            unsynced_free(write);
        }
    }
}

/* ---- crash ------------------------------------------------------------------------------------------------------ */

static void tear(struct sim_file *file, const struct sim_unsynced *write)
{
    uint64_t begin = write->offset, end = write->offset + write->size;
    while (begin < end) {
        uint64_t stop = align_down(begin, SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES;
        if (stop > end)
            stop = end;
        if (sim_chance(50))
            sim_bytes_put(&file->durable, begin, write->data + (begin - write->offset), stop - begin);
        begin = stop;
    }
}

void sim_file_crash(struct sim_file *file, enum sim_crash_mode mode)
{
    for (struct list *node = file->unsynced.next, *next; node != &file->unsynced; node = next) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        next = node->next;
        uint64_t fate = mode == SIM_RANDOM ? sim_random(3) : mode == SIM_KEEP_ALL ? 0 : 1;
        if (fate == 0)
            unsynced_apply(file, write);
        else if (fate == 2)
            tear(file, write);
        unsynced_free(write);
    }
    file->locked = false;
    sim_bytes_resize(&file->now, 0);
    sim_bytes_resize(&file->now, file->durable.size);
    if (file->durable.size > 0)
        memcpy(file->now.data, file->durable.data, file->durable.size);
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static uint64_t used(void)
{
    uint64_t total = 0;
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next) {
        const struct sim_file *file = container_of(node, struct sim_file, link);
        size_t size = file->now.size > file->durable.size ? file->now.size : file->durable.size;
        total += align_up(size, SIM_BLOCK_BYTES);
    }
    return total;
}

uint64_t sim_disk_space(void)
{
    uint64_t total = used();
    return sim->disk->size > total ? sim->disk->size - total : 0;
}

/* How far the file can reach with the space that is free. */
static uint64_t reach(const struct sim_file *file)
{
    uint64_t room = sim_disk_space();
    uint64_t begin = align_up(file->now.size, SIM_BLOCK_BYTES);
    return room < UINT64_MAX - begin ? begin + room : UINT64_MAX;
}

static struct sim_file *file_for(int fd, unsigned need)
{
    const struct sim_fd *entry = sim_fd_get(fd);
    return entry->type == SIM_FD_FILE && (entry->flags & need) ? entry->object : NULL;
}

/* A length to stop short at: aligned where the descriptor asks for it. */
static size_t shorten(int fd, size_t size)
{
    size_t unit = sim_fd_get(fd)->flags & RING_OPEN_DIRECT ? sim->disk->align : 1;
    if (size <= unit || !sim_chance(sim->short_percent))
        return size;
    return unit * (size_t)sim_between(1, (size - 1) / unit);
}

int sim_disk_read(int fd, struct ring_chunk chunk)
{
    const struct sim_file *file = file_for(fd, RING_OPEN_READ);
    if (file == NULL)
        return -EBADF;
    if (chunk.offset >= file->now.size)
        return 0;
    uint64_t left = file->now.size - chunk.offset;
    size_t size = shorten(fd, chunk.size < left ? chunk.size : (size_t)left);
    if (size > 0)
        memcpy(chunk.data, file->now.data + chunk.offset, size);
    return (int)size;
}

int sim_disk_write(int fd, struct ring_chunk chunk, const uint8_t *data, bool durable)
{
    struct sim_file *file = file_for(fd, RING_OPEN_WRITE);
    if (file == NULL)
        return -EBADF;
    uint64_t limit = reach(file);
    if (chunk.size > 0 && chunk.offset >= limit)
        return -ENOSPC;
    size_t size = chunk.offset + chunk.size > limit ? (size_t)(limit - chunk.offset) : chunk.size;
    size = shorten(fd, size);
    if (size == 0)
        return 0;
    if (!durable) {
        add_unsynced_write(file, chunk.offset, data, size);
        return (int)size;
    }
    sim->sequence++;
    sim_bytes_put(&file->now, chunk.offset, data, size);
    sim_bytes_put(&file->durable, chunk.offset, data, size);
    unsynced_cut(file, chunk.offset, chunk.offset + size);
    return (int)size;
}

void sim_disk_write_badly(int fd, struct ring_chunk chunk, const uint8_t *data)
{
    struct sim_file *file = file_for(fd, RING_OPEN_WRITE);
    uint64_t limit = file != NULL ? reach(file) : 0;
    uint64_t how = sim_random(3);
    if (how == 0)
        return;
    for (uint64_t at = 0; at < chunk.size && chunk.offset + at < limit; at += SIM_SECTOR_BYTES) {
        size_t size = chunk.size - at < SIM_SECTOR_BYTES ? (size_t)(chunk.size - at) : SIM_SECTOR_BYTES;
        if (how == 1 || sim_chance(50))
            add_unsynced_write(file, chunk.offset + at, data + at, size);
    }
}

int sim_disk_allocate(int fd, uint64_t size)
{
    struct sim_file *file = file_for(fd, RING_OPEN_WRITE);
    if (file == NULL)
        return -EBADF;
    if (size > reach(file))
        return -ENOSPC;
    if (size <= file->now.size)
        return 0;
    struct sim_unsynced like = {.sequence = ++sim->sequence, .end = size};
    sim_bytes_resize(&file->now, (size_t)size);
    unsynced_add(file->unsynced.prev, &like, 0, NULL, 0);
    return 0;
}

uint64_t sim_disk_size(int fd)
{
    const struct sim_file *file = sim_fd_object(fd, SIM_FD_FILE);
    return file != NULL ? file->now.size : 0;
}
