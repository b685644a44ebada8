/*
 * sim_disk_file.c - simulated files: what reads see, what is durable, and what lies between.
 *
 * Each file has two contents: `now`, which reads see, and `durable`, which is what the platters hold; between them lies
 * the list of unsynced effects. Applying that list in order turns the second into the first. A sync applies the part of
 * it that it covers; a crash applies, drops, tears or scrambles each entry, and what comes out is both contents of the
 * next boot. A durable write goes into both at once, and cuts out of older entries what it has overwritten, because no
 * crash brings that back.
 *
 * Failure modes: a failed sync leaves orphans: they still read back, or not even that, and only a crash will tell what
 * has become of them. A write that goes wrong unnoticed is an effect like others, and leaves rot where it is applied.
 */
#include "sim_disk_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

struct sim_file *sim_file_create(void)
{
    struct sim_file *file = calloc(1, sizeof(*file));
    KVS_ASSERT(file != NULL);
    list_init(&file->unsynced);
    sim_content_init(&file->now);
    sim_content_init(&file->durable);
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
    sim_data_release(write->data);
    sim_data_release(write->truth);
    free(write);
}

static void forget_unsynced(struct sim_file *file)
{
    while (!list_empty(&file->unsynced))
        unsynced_free(container_of(file->unsynced.next, struct sim_unsynced, link));
}

void sim_file_release(struct sim_file *file)
{
    KVS_ASSERT(file->refs > 0);
    if (--file->refs > 0)
        return;
    forget_unsynced(file);
    for (unsigned i = 0; i < SIM_PAST_MAX; i++)
        sim_data_release(file->past[i]);
    list_remove(&file->link);
    sim_content_clear(&file->now);
    sim_content_clear(&file->durable);
    free(file);
}

/* ---- effects ----------------------------------------------------------------------------------------------------- */

static void apply_stray(struct sim_content *content, const struct sim_unsynced *write, uint64_t from, uint64_t to)
{
    struct sim_data *truth = sim_rot_truth(content, from, to);
    sim_content_put(content, write->data, from, to);
    sim_rot_note(content, truth, from, to);
    sim_data_release(truth);
}

void sim_unsynced_apply(struct sim_content *content, const struct sim_unsynced *write, uint64_t from, uint64_t to)
{
    switch (write->kind) {
    case SIM_WRITE:
        sim_content_put(content, write->data, from, to);
        break;
    case SIM_GROWTH:
        if (write->to > content->size)
            sim_content_resize(content, write->to);
        break;
    case SIM_FLIPPED:
        sim_content_put(content, write->data, from, to);
        sim_rot_note(content, write->truth, from, to);
        break;
    case SIM_LOST:
        if (to > content->size)
            sim_content_resize(content, to);
        sim_rot_note(content, write->truth, from, to);
        break;
    case SIM_STRAY:
        apply_stray(content, write, from, to);
        break;
    }
}

/* Links a copy in after `before`. */
static void unsynced_add(struct list *before, const struct sim_unsynced *like, uint64_t from, uint64_t to)
{
    struct sim_unsynced *write = malloc(sizeof(*write));
    KVS_ASSERT(write != NULL);
    *write = *like;
    write->from = from;
    write->to = to;
    if (write->data != NULL)
        sim_data_hold(write->data);
    if (write->truth != NULL)
        sim_data_hold(write->truth);
    list_push_back(before->next, &write->link);
}

static bool overlaps(const struct sim_unsynced *write, uint64_t from, uint64_t to)
{
    return write->kind != SIM_GROWTH && write->from < to && write->to > from;
}

/* Takes [from, to) out of the unsynced writes that are older than `until`, which may be the head of the list. */
static void unsynced_cut(struct sim_file *file, const struct list *until, uint64_t from, uint64_t to)
{
    struct list *node = file->unsynced.next;
    while (node != until) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        if (!overlaps(write, from, to))
            continue;
        if (write->to > to)
            unsynced_add(&write->link, write, to, write->to);
        if (write->from < from)
            unsynced_add(&write->link, write, write->from, from);
        unsynced_free(write);
    }
}

void sim_file_settle(struct sim_file *file, uint64_t from, uint64_t to)
{
    for (struct list *node = file->unsynced.next; node != &file->unsynced; node = node->next) {
        const struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        if (overlaps(write, from, to))
            sim_unsynced_apply(&file->durable, write, write->from > from ? write->from : from,
                               write->to < to ? write->to : to);
    }
    unsynced_cut(file, &file->unsynced, from, to);
}

/* Keeps what `write` is about to overwrite. */
static void remember(struct sim_file *file, const struct sim_unsynced *write)
{
    uint64_t to = write->to < file->now.size ? write->to : file->now.size;
    if (write->data == NULL || write->from >= to || sim_content_same(&file->now, write->data, write->from, to))
        return;
    struct sim_data **place = &file->past[file->past_count++ % SIM_PAST_MAX];
    sim_data_release(*place);
    *place = sim_content_snapshot(&file->now, write->from, to);
}

void sim_file_change(struct sim_file *file, const struct sim_unsynced *like, bool durable)
{
    struct sim_unsynced write = *like;
    write.sequence = ++sim->sequence;
    write.keep = sim->disk->keep_new;
    remember(file, &write);
    sim_unsynced_apply(&file->now, &write, write.from, write.to);
    if (!durable) {
        unsynced_add(file->unsynced.prev, &write, write.from, write.to);
        return;
    }
    /* What is not overwritten after all may count on having been there before. */
    if (write.kind == SIM_LOST || write.kind == SIM_STRAY)
        sim_file_settle(file, write.from, write.to);
    sim_unsynced_apply(&file->durable, &write, write.from, write.to);
    unsynced_cut(file, &file->unsynced, write.from, write.to);
}

/* ---- syncs ------------------------------------------------------------------------------------------------------- */

static void apply_all(struct sim_content *content, const struct sim_file *file)
{
    for (const struct list *node = file->unsynced.next; node != &file->unsynced; node = node->next) {
        const struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        sim_unsynced_apply(content, write, write->from, write->to);
    }
}

/* Its bytes are gone, but the file stays as long as it is. */
static void turn_into_growth(struct sim_unsynced *write)
{
    sim_data_release(write->data);
    sim_data_release(write->truth);
    write->data = write->truth = NULL;
    write->kind = SIM_GROWTH;
}

void sim_file_sync(struct sim_file *file, uint64_t sequence, enum sim_sync_outcome outcome)
{
    struct list *node = file->unsynced.next;
    while (node != &file->unsynced) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        if (write->sequence > sequence || write->orphan)
            continue;
        if (outcome == SIM_SYNC_DONE) {
            sim_unsynced_apply(&file->durable, write, write->from, write->to);
            /* No crash brings back what it has overwritten. */
            if (write->kind == SIM_WRITE || write->kind == SIM_FLIPPED)
                unsynced_cut(file, &write->link, write->from, write->to);
            unsynced_free(write);
            continue;
        }
        write->orphan = true;
        if (outcome == SIM_SYNC_REVERTS)
            turn_into_growth(write);
    }
    if (outcome == SIM_SYNC_REVERTS) {
        sim_content_copy(&file->now, &file->durable);
        apply_all(&file->now, file);
    }
}

void sim_file_uncache(struct sim_file *file)
{
    bool any = false;
    for (struct list *node = file->unsynced.next; node != &file->unsynced; node = node->next) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        if (write->orphan && write->kind != SIM_GROWTH) {
            turn_into_growth(write);
            any = true;
        }
    }
    if (any) {
        sim_content_copy(&file->now, &file->durable);
        apply_all(&file->now, file);
    }
}

/* ---- crash ------------------------------------------------------------------------------------------------------ */

enum fate { KEPT, DROPPED, TORN, SCRAMBLED, FATE_COUNT };

static enum fate choose_fate(const struct sim_unsynced *write, enum sim_crash_mode mode)
{
    if (mode == SIM_CHOSEN)
        return write->keep ? KEPT : DROPPED;
    if (mode != SIM_RANDOM)
        return mode == SIM_KEEP_ALL ? KEPT : DROPPED;
    enum fate fate = (enum fate)sim_random(FATE_COUNT);
    return write->kind == SIM_GROWTH && fate != KEPT ? DROPPED : fate;
}

/* Neither old nor new: noise, or zeros. */
static void put_junk(struct sim_content *content, uint64_t from, uint64_t to)
{
    uint8_t junk[SIM_SECTOR_BYTES] = {0};
    uint64_t noise = sim_random(2) == 0 ? 0 : sim_random(UINT64_MAX) | 1;
    for (size_t i = 0; noise != 0 && i < to - from; i++) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        junk[i] = (uint8_t)(noise >> 32);
    }
    struct sim_data *data = sim_data_make(from, junk, (size_t)(to - from));
    sim_content_put(content, data, from, to);
    sim_data_release(data);
}

static void apply_by_sectors(struct sim_file *file, const struct sim_unsynced *write, enum fate fate)
{
    uint64_t begin = write->from;
    while (begin < write->to) {
        uint64_t end = align_down(begin, SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES;
        if (end > write->to)
            end = write->to;
        uint64_t choice = sim_random(fate == SCRAMBLED ? 3 : 2);
        if (choice == 0)
            sim_unsynced_apply(&file->durable, write, begin, end);
        else if (choice == 2 && write->kind != SIM_STRAY && write->kind != SIM_LOST) /* it was meant for this place */
            put_junk(&file->durable, begin, end);
        begin = end;
    }
}

void sim_file_crash(struct sim_file *file, enum sim_crash_mode mode)
{
    file->locked = false;
    if (mode == SIM_KILL)
        return;
    for (const struct list *node = file->unsynced.next; node != &file->unsynced; node = node->next) {
        const struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        enum fate fate = choose_fate(write, mode);
        if (fate == KEPT)
            sim_unsynced_apply(&file->durable, write, write->from, write->to);
        else if (fate != DROPPED)
            apply_by_sectors(file, write, fate);
    }
    forget_unsynced(file);
    sim_content_copy(&file->now, &file->durable);
}

void sim_file_pending(struct sim_file *file, struct sim_pendings *pendings)
{
    for (struct list *node = file->unsynced.next; node != &file->unsynced; node = node->next) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        sim_pendings_add(pendings, write->sequence, &write->keep);
    }
}

void sim_file_heal(struct sim_file *file)
{
    struct list *node = file->unsynced.next;
    while (node != &file->unsynced) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        if (write->kind == SIM_STRAY)
            unsynced_free(write);
        else if (write->kind == SIM_LOST || write->kind == SIM_FLIPPED) {
            sim_data_release(write->data);
            write->data = write->truth;
            write->truth = NULL;
            write->kind = SIM_WRITE;
        }
    }
    sim_rot_heal_content(&file->durable);
    sim_rot_heal_content(&file->now);
}

void sim_file_accept(struct sim_file *file)
{
    struct list *node = file->unsynced.next;
    while (node != &file->unsynced) {
        struct sim_unsynced *write = container_of(node, struct sim_unsynced, link);
        node = node->next;
        if (write->kind == SIM_LOST) {
            unsynced_free(write);
        } else if (write->kind == SIM_STRAY || write->kind == SIM_FLIPPED) {
            if (write->truth != NULL)
                sim_data_release(write->truth);
            write->truth = NULL;
            write->kind = SIM_WRITE;
        }
    }
    sim_rot_cut(&file->durable, 0, UINT64_MAX);
    sim_rot_cut(&file->now, 0, UINT64_MAX);
}
