/*
 * recovery_files.c - which files there are, and which the manifest says there should be.
 *
 * Happy path: every file under a segment's final name has an entry in the manifest, and every entry of a segment in use
 * has its file. Unfinished files go. A file without an entry is one whose making was cut off before it was entered.
 *
 * Failure modes: segment files without a manifest, entries without a file: CORRUPT. Nothing is changed then.
 */
#include "engine/recovery_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"

#include <inttypes.h>
#include <stdlib.h>

static void list_entry(void *context, const char *name)
{
    struct recovery *recovery = context;
    uint32_t number;
    bool unfinished;
    if (!segment_name_parse(name, &number, &unfinished))
        return;
    enum kvs_err err = array_grow((void **)&recovery->found, recovery->found_count, &recovery->found_capacity,
                                  sizeof *recovery->found);
    if (err == KVS_ERR_OK && number >= recovery->store->segments.count_max) {
        say(recovery, "%s/%s has a number beyond what the store can address: it does not belong there",
            recovery->store->base.data_dir, name);
        err = KVS_ERR_CORRUPT;
    }
    if (err != KVS_ERR_OK) {
        recovery->err = err;
        return;
    }
    recovery->found[recovery->found_count++] = (struct found_segment){.number = number, .unfinished = unfinished};
    segment_number_seen(&recovery->store->segments, number);
}

static void unlink_file(struct recovery *recovery, uint32_t number, const char *suffix, const char *what)
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, number, suffix);
    struct ring_op op;
    blocking_init(&op);
    ring_file_unlink(recovery->ring, &op, recovery->store->base.dir_fd, name);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK)
        diag_warn("cannot remove the %s %s/%s: %s", what, recovery->store->base.data_dir, name, ring_op_text(&op));
}

/* Removes the files of segments that were being made when the last run ended, and forgets them. */
static void remove_unfinished(struct recovery *recovery)
{
    size_t kept = 0;
    for (size_t i = 0; i < recovery->found_count; i++) {
        if (recovery->found[i].unfinished)
            unlink_file(recovery, recovery->found[i].number, ".new", "unfinished");
        else
            recovery->found[kept++] = recovery->found[i];
    }
    recovery->found_count = kept;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct found_segment *)a)->number;
    uint32_t y = ((const struct found_segment *)b)->number;
    return (x > y) - (x < y);
}

static int by_uid(const void *a, const void *b)
{
    const struct found_segment *x = a;
    const struct found_segment *y = b;
    if (x->entry.uid != y->entry.uid)
        return x->entry.uid < y->entry.uid ? -1 : 1;
    return by_number(a, b);
}

static enum kvs_err open_manifest(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct manifest_options options = {.ring = recovery->ring,
                                       .dir_fd = store->base.dir_fd,
                                       .dir_name = store->base.data_dir,
                                       .store_uuid = store->base.superblock.uuid,
                                       .direct = store->direct,
                                       .sync_after_write = store->sync_after_write,
                                       .names = &store->names};
    enum kvs_err err = manifest_open(&store->keeper.manifest, &options, recovery->message);
    if (err != KVS_ERR_NOT_FOUND)
        return err;
    if (recovery->found_count > 0) {
        say(recovery,
            "%s holds segments but no " MANIFEST_NAME ": without it nothing tells which of them count. Nothing was "
            "changed. Restore a backup of that file, or of the directory",
            store->base.data_dir);
        return KVS_ERR_CORRUPT;
    }
    return manifest_new(&store->keeper.manifest, &options);
}

static void match_entry(void *context, const struct manifest_entry *entry)
{
    struct recovery *recovery = context;
    if (entry->number < recovery->store->segments.count_max)
        segment_number_seen(&recovery->store->segments, entry->number);
    struct found_segment key = {.number = entry->number};
    struct found_segment *found = NULL;
    if (recovery->found_count > 0)
        found = bsearch(&key, recovery->found, recovery->found_count, sizeof key, by_number);
    if (found != NULL) {
        found->known = true;
        found->entry = *entry;
        return;
    }
    struct found_segment missing = {.known = true, .entry = *entry};
    if (found_role(&missing) == FOUND_FREE || recovery->err != KVS_ERR_OK || canary_on(CANARY_GAP_IGNORED))
        return;
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, entry->number, "");
    say(recovery,
        "segment file %s is missing in %s: the manifest lists it as part of the store, and its records would be lost. "
        "Nothing was changed. Restore a backup of this file",
        name, recovery->store->base.data_dir);
    recovery->err = KVS_ERR_CORRUPT;
}

/* Opens the file of a segment and adds it to the table. */
static enum kvs_err open_file(struct recovery *recovery, struct found_segment *found)
{
    struct store *store = recovery->store;
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, found->number, "");
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(recovery->ring, &op, store->base.dir_fd, name,
                   RING_OPEN_READ | RING_OPEN_WRITE | (store->direct ? RING_OPEN_DIRECT : 0u));
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK) {
        say(recovery, "cannot open %s/%s: %s", store->base.data_dir, name, ring_op_text(&op));
        return op.error;
    }
    struct ring_file_info info = {0};
    if (found_role(found) == FOUND_FREE && ring_file_info(recovery->ring, op.fd, &info) == KVS_ERR_OK &&
        info.size != store->segments.segment_bytes) {
        /* Of no use, and nothing in it counts. */
        ring_close_fd(recovery->ring, op.fd);
        unlink_file(recovery, found->number, "", "incomplete free segment");
        return KVS_ERR_OK;
    }
    found->segment = segment_add(&store->segments, found->number, op.fd);
    if (found->segment == NULL) {
        ring_close_fd(recovery->ring, op.fd);
        return KVS_ERR_NO_MEMORY;
    }
    if (ring_file_info(recovery->ring, op.fd, &info) == KVS_ERR_OK && info.size < store->segments.segment_bytes)
        return recovery_cut_short(recovery, found, info.size, recovery->message);
    return KVS_ERR_OK;
}

enum kvs_err recovery_find(struct recovery *recovery)
{
    struct store *store = recovery->store;
    recovery->err = ring_dir_list(recovery->ring, store->base.dir_fd, list_entry, recovery);
    if (recovery->err != KVS_ERR_OK)
        return recovery->err;
    remove_unfinished(recovery);
    enum kvs_err err = open_manifest(recovery);
    if (err != KVS_ERR_OK)
        return err;
    if (recovery->found_count > 0)
        qsort(recovery->found, recovery->found_count, sizeof *recovery->found, by_number);
    manifest_each(store->keeper.manifest, match_entry, recovery);
    if (recovery->found_count > 0)
        qsort(recovery->found, recovery->found_count, sizeof *recovery->found, by_uid);
    for (size_t i = 0; recovery->err == KVS_ERR_OK && i < recovery->found_count; i++)
        recovery->err = open_file(recovery, &recovery->found[i]);
    return recovery->err;
}

/* What the manifest is to say of a segment in this boot; false: nothing. */
static bool entry_of(const struct store *store, uint32_t number, struct manifest_entry *entry)
{
    const struct segment *segment = segment_get(&store->segments, number);
    /* One whose file is missing stays in the list as free: its name may come back, if a sync of the directory failed
     * when it was removed. */
    *entry = (struct manifest_entry){.number = number, .state = MANIFEST_FREE};
    if (segment != NULL && segment_state(segment) == SEGMENT_SEALED)
        *entry = keeper_sealed_entry(segment);
    else if (segment != NULL && segment_state(segment) == SEGMENT_OPEN)
        *entry = (struct manifest_entry){.number = number,
                                         .state = MANIFEST_LIVE,
                                         .kind = (uint8_t)segment->kind,
                                         .uid = segment->uid,
                                         .end = segment->end};
    return segment != NULL || manifest_find(store->keeper.manifest, number) != NULL;
}

/* Waits until the changes are durable. Each may come to be without those behind it: a start after a crash would only
 * find the same again. */
static enum kvs_err await_changes(struct recovery *recovery, struct manifest *manifest)
{
    manifest_turn(manifest);
    while (!manifest_idle(manifest) && !manifest_stuck(manifest)) {
        ring_turn(recovery->ring, manifest_timeout_ns(manifest));
        manifest_turn(manifest);
    }
    if (manifest_failed(manifest))
        say(recovery, "%s", manifest_failure_text(manifest));
    else if (manifest_stuck(manifest))
        say(recovery, "there is no space for a new " MANIFEST_NAME " in %s: free some", recovery->store->base.data_dir);
    else
        return KVS_ERR_OK;
    return manifest_failed(manifest) ? KVS_ERR_IO : KVS_ERR_NO_SPACE;
}

enum kvs_err recovery_write_manifest(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct manifest *manifest = store->keeper.manifest;
    if (manifest_bytes(manifest) == 0)
        return manifest_write(manifest, recovery->message);
    manifest_attach(manifest, recovery->ring);
    uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t number = 0; number < end; number++) {
        struct manifest_entry entry;
        const struct manifest_entry *known = manifest_find(manifest, number);
        if (!entry_of(store, number, &entry) || (known != NULL && memcmp(known, &entry, sizeof entry) == 0))
            continue;
        uint64_t ticket;
        enum kvs_err err = manifest_change(manifest, &entry, &ticket);
        if (err != KVS_ERR_OK)
            return err;
    }
    enum kvs_err err = await_changes(recovery, manifest);
    if (err != KVS_ERR_OK)
        return err;
    /* A new file, though the old one has all: its name may be one that a crash would take back, because a sync of the
     * directory failed in an earlier process. On a full disk the old one has to do. */
    err = manifest_write(manifest, recovery->message);
    return err == KVS_ERR_NO_SPACE ? KVS_ERR_OK : err;
}
