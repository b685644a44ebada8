/*
 * sim_disk_io.c - system calls on the content of simulated files.
 *
 * Happy path: a read copies out of the pages of now; a write becomes an effect on its file, durable at once or later.
 *
 * Failure modes: a full disk takes as many bytes as fit. A twist makes a call succeed and do something else: return
 * spoilt, stale or foreign bytes, or write nothing, too few, spoilt, or elsewhere. A twist that finds no opportunity
 * (nothing older, no other place) does not happen, and is not counted.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- space ------------------------------------------------------------------------------------------------------- */

uint64_t sim_disk_used(void)
{
    uint64_t total = 0;
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next) {
        const struct sim_file *file = container_of(node, struct sim_file, link);
        uint64_t size = file->now.size > file->durable.size ? file->now.size : file->durable.size;
        total += align_up(size, SIM_BLOCK_BYTES);
    }
    return total;
}

uint64_t sim_disk_space(void)
{
    uint64_t total = sim_disk_used();
    return sim->disk->size > total ? sim->disk->size - total : 0;
}

/* How far the file can reach with the space that is free. */
static uint64_t reach(const struct sim_file *file)
{
    if (sim->disk->size == UINT64_MAX)
        return UINT64_MAX;
    uint64_t room = align_down(sim_disk_space(), SIM_BLOCK_BYTES);
    uint64_t begin = align_up(file->now.size, SIM_BLOCK_BYTES);
    return room < UINT64_MAX - begin ? begin + room : UINT64_MAX;
}

static struct sim_file *file_for(int fd, unsigned need)
{
    const struct sim_fd *entry = sim_fd_get(fd);
    return entry->type == SIM_FD_FILE && (entry->flags & need) ? entry->object : NULL;
}

static size_t unit_of(int fd)
{
    return sim_fd_get(fd)->flags & RING_OPEN_DIRECT ? sim->disk->align : 1;
}

/* A length to stop short at: aligned where the descriptor asks for it. */
static size_t shorten(int fd, size_t size, enum sim_fault_kind twist)
{
    size_t unit = unit_of(fd);
    if (size <= unit)
        return size;
    if (twist == SIM_FAULT_SHORT)
        sim_fault_happened(twist);
    else if (!sim_chance(sim->short_percent))
        return size;
    return unit * (size_t)sim_between(1, (size - 1) / unit);
}

/* ---- other places ------------------------------------------------------------------------------------------------ */

struct place {
    struct sim_file *file;
    uint64_t offset;
};

/* The same place of another open file of the directory. Lock files are not open as files. */
static bool foreign_place(const struct sim_file *file, uint64_t offset, size_t size, struct place *out)
{
    unsigned count = 0;
    for (int i = 0; i < sim->fd_count; i++) {
        struct sim_file *other = sim->fds[i].type == SIM_FD_FILE ? sim->fds[i].object : NULL;
        if (other == NULL || other == file || other->locked || other->now.size < offset + size)
            continue;
        if (sim_dir_neighbours(file, other) && sim_random(++count) == 0)
            *out = (struct place){.file = other, .offset = offset};
    }
    return count > 0;
}

/* Another place of the same file, aligned as a device would be wrong. */
static bool other_offset(struct sim_file *file, uint64_t offset, size_t size, struct place *out)
{
    uint64_t unit = sim->disk->align != 0 ? sim->disk->align : SIM_SECTOR_BYTES;
    if (file->now.size < size + unit)
        return false;
    uint64_t slots = (file->now.size - size) / unit + 1;
    uint64_t slot = sim_random(slots);
    if (slot * unit == offset)
        slot = (slot + 1) % slots;
    *out = (struct place){.file = file, .offset = slot * unit};
    return true;
}

static bool stray_place(struct sim_file *file, uint64_t offset, size_t size, struct place *out)
{
    if (size == 0)
        return false;
    if (sim_chance(50))
        return foreign_place(file, offset, size, out) || other_offset(file, offset, size, out);
    return other_offset(file, offset, size, out) || foreign_place(file, offset, size, out);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool read_flip(uint8_t *out, size_t size)
{
    if (size == 0)
        return false;
    uint64_t bit = sim_random(size * 8);
    out[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    return true;
}

/* Some of the sectors as they were when `past` was overwritten. */
static bool mix_in(const struct sim_data *past, uint64_t offset, uint8_t *out, size_t size)
{
    bool differs = false;
    uint64_t end = past->to < offset + size ? past->to : offset + size;
    uint64_t at = past->from > offset ? past->from : offset;
    uint64_t all = sim_random(2);
    while (at < end) {
        uint8_t sector[SIM_SECTOR_BYTES];
        uint64_t stop = align_down(at, SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES;
        if (stop > end)
            stop = end;
        sim_data_read(past, at, stop, sector);
        bool other = memcmp(out + (at - offset), sector, (size_t)(stop - at)) != 0;
        if (other && (all || !differs || sim_chance(50))) {
            memcpy(out + (at - offset), sector, (size_t)(stop - at));
            differs = true;
        }
        at = stop;
    }
    return differs;
}

static bool read_stale(const struct sim_file *file, uint64_t offset, uint8_t *out, size_t size)
{
    const struct sim_data *chosen = NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < SIM_PAST_MAX; i++) {
        const struct sim_data *past = file->past[i];
        if (past != NULL && past->from < offset + size && past->to > offset && sim_random(++count) == 0)
            chosen = past;
    }
    return chosen != NULL && mix_in(chosen, offset, out, size);
}

static bool read_astray(struct sim_file *file, uint64_t offset, uint8_t *out, size_t size)
{
    struct place place;
    if (!stray_place(file, offset, size, &place))
        return false;
    sim_content_read(&place.file->now, place.offset, place.offset + size, out);
    return true;
}

static void spoil(struct sim_file *file, struct ring_chunk chunk, size_t size, enum sim_fault_kind twist)
{
    bool spoilt = false;
    if (twist == SIM_FAULT_READ_FLIP)
        spoilt = read_flip(chunk.data, size);
    else if (twist == SIM_FAULT_READ_STALE)
        spoilt = read_stale(file, chunk.offset, chunk.data, size);
    else if (twist == SIM_FAULT_READ_ASTRAY)
        spoilt = read_astray(file, chunk.offset, chunk.data, size);
    if (spoilt)
        sim_fault_happened(twist);
}

int sim_disk_read(int fd, struct ring_chunk chunk, enum sim_fault_kind twist)
{
    struct sim_file *file = file_for(fd, RING_OPEN_READ);
    if (file == NULL)
        return -EBADF;
    if (chunk.offset >= file->now.size)
        return 0;
    uint64_t left = file->now.size - chunk.offset;
    size_t size = shorten(fd, chunk.size < left ? chunk.size : (size_t)left, twist);
    sim_content_read(&file->now, chunk.offset, chunk.offset + size, chunk.data);
    spoil(file, chunk, size, twist);
    return (int)size;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static uint8_t *bytes_of(const struct sim_data *data, uint64_t from, uint64_t to)
{
    uint8_t *bytes = malloc((size_t)(to - from) + 1);
    KVS_ASSERT(bytes != NULL);
    sim_data_read(data, from, to, bytes);
    return bytes;
}

static bool write_flipped(struct sim_file *file, const struct sim_unsynced *meant, bool durable)
{
    uint8_t *bytes = bytes_of(meant->data, meant->from, meant->to);
    (void)read_flip(bytes, (size_t)(meant->to - meant->from));
    struct sim_unsynced flipped = *meant;
    flipped.kind = SIM_FLIPPED;
    flipped.truth = meant->data;
    flipped.data = sim_data_make(meant->from, bytes, (size_t)(meant->to - meant->from));
    sim_file_change(file, &flipped, durable);
    sim_data_release(flipped.data);
    free(bytes);
    return true;
}

static bool write_lost(struct sim_file *file, const struct sim_unsynced *meant, bool durable)
{
    struct sim_unsynced lost = *meant;
    lost.kind = SIM_LOST;
    lost.data = NULL;
    lost.truth = meant->data;
    sim_file_change(file, &lost, durable);
    return true;
}

/* First what it hits, then what it misses: where both overlap, what was meant is the truth. */
static bool write_astray(struct sim_file *file, const struct sim_unsynced *meant, bool durable)
{
    struct place place;
    size_t size = (size_t)(meant->to - meant->from);
    if (!stray_place(file, meant->from, size, &place))
        return false;
    uint8_t *bytes = bytes_of(meant->data, meant->from, meant->to);
    struct sim_unsynced stray = {.kind = SIM_STRAY, .from = place.offset, .to = place.offset + size};
    stray.data = sim_data_make(place.offset, bytes, size);
    sim_file_change(place.file, &stray, durable);
    sim_data_release(stray.data);
    free(bytes);
    return write_lost(file, meant, durable);
}

static void write_part(struct sim_file *file, struct sim_data *data, uint64_t from, uint64_t to, bool durable,
                       enum sim_fault_kind twist)
{
    struct sim_unsynced write = {.kind = SIM_WRITE, .from = from, .to = to, .data = data};
    bool twisted = false;
    if (twist == SIM_FAULT_WRITE_LOST)
        twisted = write_lost(file, &write, durable);
    else if (twist == SIM_FAULT_WRITE_ASTRAY)
        twisted = write_astray(file, &write, durable);
    else if (twist == SIM_FAULT_WRITE_FLIP)
        twisted = write_flipped(file, &write, durable);
    if (twisted)
        sim_fault_happened(twist);
    else
        sim_file_change(file, &write, durable);
}

int sim_disk_write(int fd, struct sim_data *data, bool durable, enum sim_fault_kind twist)
{
    struct sim_file *file = file_for(fd, RING_OPEN_WRITE);
    if (file == NULL)
        return -EBADF;
    uint64_t limit = reach(file);
    if (data->to > data->from && data->from >= limit)
        return -ENOSPC;
    size_t size = shorten(fd, (size_t)((data->to < limit ? data->to : limit) - data->from), twist);
    if (size > 0)
        write_part(file, data, data->from, data->from + size, durable, twist);
    return (int)size;
}

void sim_disk_write_badly(int fd, struct sim_data *data)
{
    struct sim_file *file = file_for(fd, RING_OPEN_WRITE);
    uint64_t limit = file != NULL ? reach(file) : 0;
    uint64_t how = sim_random(3);
    uint64_t end = data->to < limit ? data->to : limit;
    if (how == 0)
        return;
    if (how == 1 && data->from < end) {
        write_part(file, data, data->from, end, false, SIM_FAULT_COUNT);
        return;
    }
    for (uint64_t at = data->from; at < end; at += SIM_SECTOR_BYTES) {
        uint64_t stop = at + SIM_SECTOR_BYTES < end ? at + SIM_SECTOR_BYTES : end;
        if (sim_chance(50))
            write_part(file, data, at, stop, false, SIM_FAULT_COUNT);
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
    struct sim_unsynced growth = {.kind = SIM_GROWTH, .to = size};
    sim_file_change(file, &growth, false);
    return 0;
}

void sim_disk_uncache(int fd)
{
    struct sim_file *file = sim_fd_object(fd, SIM_FD_FILE);
    KVS_ASSERT(file != NULL);
    sim_file_uncache(file);
}

uint64_t sim_disk_size(int fd)
{
    const struct sim_file *file = sim_fd_object(fd, SIM_FD_FILE);
    return file != NULL ? file->now.size : 0;
}
