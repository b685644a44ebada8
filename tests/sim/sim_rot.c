/*
 * sim_rot.c - the places of a disk that do not hold what was written to them, and the test's view of these.
 *
 * Happy path: there is none, and every function here finds an empty list. Otherwise each content has its own list, so
 * that rot in an unsynced write comes and goes with that write: it is noted in `now` when the write has its effect, and
 * in `durable` when the write becomes durable.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void rot_add(struct list *list, struct sim_data *truth, uint64_t from, uint64_t to)
{
    struct sim_rot *rot = malloc(sizeof(*rot));
    KVS_ASSERT(rot != NULL && from < to);
    *rot = (struct sim_rot){.truth = sim_data_hold(truth), .from = from, .to = to};
    list_push_back(list, &rot->link);
}

static void rot_free(struct sim_rot *rot)
{
    list_remove(&rot->link);
    sim_data_release(rot->truth);
    free(rot);
}

void sim_rot_cut(struct sim_content *content, uint64_t from, uint64_t to)
{
    struct list *node = content->rot.next;
    while (node != &content->rot) {
        struct sim_rot *rot = container_of(node, struct sim_rot, link);
        node = node->next;
        if (rot->to <= from || rot->from >= to)
            continue;
        if (rot->from < from)
            rot_add(&content->rot, rot->truth, rot->from, from);
        if (rot->to > to)
            rot_add(&content->rot, rot->truth, to, rot->to);
        rot_free(rot);
    }
}

static bool sector_differs(const struct sim_content *content, const struct sim_data *truth, uint64_t from, uint64_t to)
{
    uint8_t is[SIM_SECTOR_BYTES], should[SIM_SECTOR_BYTES];
    sim_content_read(content, from, to, is);
    sim_data_read(truth, from, to, should);
    return memcmp(is, should, (size_t)(to - from)) != 0;
}

static bool byte_differs(const struct sim_content *content, const struct sim_data *truth, uint64_t at)
{
    return sector_differs(content, truth, at, at + 1);
}

/* Without the bytes at both ends that are right by accident. */
static void note_trimmed(struct sim_content *content, struct sim_data *truth, uint64_t from, uint64_t to)
{
    while (from < to && !byte_differs(content, truth, from))
        from++;
    while (from < to && !byte_differs(content, truth, to - 1))
        to--;
    if (from < to)
        rot_add(&content->rot, truth, from, to);
}

void sim_rot_note(struct sim_content *content, struct sim_data *truth, uint64_t from, uint64_t to)
{
    sim_rot_cut(content, from, to);
    uint64_t begin = from; /* of the sectors in a row that differ */
    for (uint64_t at = from; at < to;) {
        uint64_t end = align_down(at, SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES;
        if (end > to)
            end = to;
        if (!sector_differs(content, truth, at, end)) {
            note_trimmed(content, truth, begin, at);
            begin = end;
        }
        at = end;
    }
    note_trimmed(content, truth, begin, to);
}

struct sim_data *sim_rot_truth(const struct sim_content *content, uint64_t from, uint64_t to)
{
    uint8_t *bytes = malloc((size_t)(to - from) + 1);
    KVS_ASSERT(bytes != NULL);
    sim_content_read(content, from, to, bytes);
    for (struct list *node = content->rot.next; node != &content->rot; node = node->next) {
        const struct sim_rot *rot = container_of(node, struct sim_rot, link);
        uint64_t begin = rot->from > from ? rot->from : from;
        uint64_t end = rot->to < to ? rot->to : to;
        if (begin < end)
            sim_data_read(rot->truth, begin, end, bytes + (begin - from));
    }
    struct sim_data *truth = sim_data_make(from, bytes, (size_t)(to - from));
    free(bytes);
    return truth;
}

void sim_rot_copy(struct sim_content *to, const struct sim_content *from)
{
    sim_rot_cut(to, 0, UINT64_MAX);
    for (struct list *node = from->rot.next; node != &from->rot; node = node->next) {
        const struct sim_rot *rot = container_of(node, struct sim_rot, link);
        rot_add(&to->rot, rot->truth, rot->from, rot->to);
    }
}

void sim_rot_heal_content(struct sim_content *content)
{
    while (!list_empty(&content->rot)) {
        const struct sim_rot *rot = container_of(content->rot.next, struct sim_rot, link);
        struct sim_data *truth = sim_data_hold(rot->truth);
        sim_content_put(content, truth, rot->from, rot->to); /* ends this rot */
        sim_data_release(truth);
    }
}

/* ---- the test's view -------------------------------------------------------------------------------------------- */

struct teller {
    void (*each)(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size);
    void *context;
};

static void tell_file(void *context, const char *path)
{
    const struct teller *teller = context;
    const struct sim_content *content = &sim_file_at(path)->now;
    for (struct list *node = content->rot.next, *next; node != &content->rot; node = next) {
        const struct sim_rot *rot = container_of(node, struct sim_rot, link);
        next = node->next;
        size_t size = (size_t)(rot->to - rot->from);
        uint8_t *truth = malloc(size);
        KVS_ASSERT(truth != NULL);
        sim_data_read(rot->truth, rot->from, rot->to, truth);
        teller->each(teller->context, path, rot->from, truth, size);
        free(truth);
    }
}

void sim_rot_each(void (*each)(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size),
                  void *context)
{
    struct teller teller = {.each = each, .context = context};
    sim_file_each(tell_file, &teller);
}

void sim_rot_add(const char *path, uint64_t offset, const void *data, size_t size)
{
    struct sim_file *file = sim_file_at(path);
    KVS_ASSERT(file != NULL && offset <= file->now.size && size <= file->now.size - offset);
    struct sim_data *bytes = sim_data_make(offset, data, size);
    struct sim_unsynced stray = {.kind = SIM_STRAY, .data = bytes, .from = offset, .to = offset + size};
    sim_file_settle(file, offset, offset + size);
    sim_unsynced_apply(&file->durable, &stray, offset, offset + size);
    sim_unsynced_apply(&file->now, &stray, offset, offset + size);
    sim_data_release(bytes);
}

void sim_rot_heal(void)
{
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next)
        sim_file_heal(container_of(node, struct sim_file, link));
}

void sim_rot_accept(void)
{
    for (struct list *node = sim->disk->files.next; node != &sim->disk->files; node = node->next)
        sim_file_accept(container_of(node, struct sim_file, link));
}
