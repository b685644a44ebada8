/*
 * store_group.c - changes of several keys that take effect together.
 *
 * One batch of one log holds all of them, so a crash leaves all or nothing. The log may be another shard's than a key's
 * owner's. The order between the records of a key, LSN, still holds: the group's LSNs are above all that the owners
 * have given when the keys were held (the log jumps), and those that the owners give later are above the group's (their
 * logs jump when the change is published, before the key is free).
 *
 *   hold all ─► append, jump ─► durable ─► publish, jump ─► … ─► all published ─► free all
 *
 * Large values become files before that, written by the shard that has the log. So that all records of a group fit into
 * one batch, and need not be copied at length in one go, values of a large group become files from a smaller size on.
 *
 * Nothing is shown before it is durable, so what is shown needs no gate (RECORD_GROUP). While a shard has keys that are
 * held for a group, readers on other threads have to ask the owner, where they wait for the hold to end: so nobody sees
 * a change before all of them are published.
 *
 * What others conclude from LSNs. "Executed up to LSN x" is true of a log's records when they are appended, but not of
 * a group's: store_groups_shown bounds it.
 *
 * Failure: the log that the group stands in fails before it is durable: nothing is published, the next start decides.
 * A file cannot be written, there is no room for the records: those that there are go again, and there is no group. If
 * the log fails later the files stay, for the records may be durable: the sweep of the next start decides.
 * No memory in the index for a published change: again in the next turn; the key stays held.
 */
#include "engine/store_wait.h"

#include "base/assert.h"
#include "base/canary.h"

#include <stdlib.h>

enum {
    CHANGES_AT_ONCE = 16,
    LOG_BYTES_GOOD = 4 * 1024 * 1024, /* of a group: up to this it is better to write what is large, but not a large
                                         value, into the log; beyond that files are, … */
    FILE_BYTES_GOOD = 64 * 1024,      /* … for values from this size on … */
    FILE_BYTES_MIN = 4096,            /* … and if there is no other way from this one on */
};

/* ---- large values ---------------------------------------------------------------------------------------------- */

uint64_t store_change_bytes_max(const struct engine *base)
{
    const struct store *store = container_of(base, const struct store, base);
    uint64_t most = log_record_bytes_max(&store->segments) - KVS_KEY_BYTES_MAX - 2 * KVS_BLOCK_BYTES;
    return store->values.large_min - 1 < most ? store->values.large_min - 1 : most;
}

static struct log_entry entry_of(const struct engine_change *change)
{
    if (change->removes)
        return (struct log_entry){.kind = RECORD_DELETE, .flags = RECORD_GROUP, .key = change->key};
    struct log_entry entry = {.kind = RECORD_PUT,
                              .flags = RECORD_GROUP,
                              .expires_ms = change->expires_ms,
                              .key = change->key,
                              .value = change->value};
    if (change->put != NULL) {
        entry.flags |= RECORD_LARGE;
        entry.value = slice_make(&change->put->writer.descriptor, sizeof change->put->writer.descriptor);
    }
    return entry;
}

static bool gets_file(const struct engine_change *change, uint64_t large_min)
{
    return !change->removes && change->value.size >= large_min;
}

/* What the records take if values become files from this size on. */
static uint64_t bytes_in_log(const struct engine_change *changes, unsigned count, uint64_t large_min)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        struct log_entry entry = entry_of(&changes[i]);
        if (gets_file(&changes[i], large_min))
            entry.value.size = sizeof(struct value_descriptor);
        bytes += log_entry_bytes(&entry);
    }
    return bytes;
}

/* The size from which on the group's values become files; 0: there is none with which the records fit into the log. */
static uint64_t large_min_of(const struct store_shard *shard, const struct engine_change *changes, unsigned count)
{
    const uint64_t bytes_max = log_record_bytes_max(&shard->store->segments);
    uint64_t large_min = shard->store->values.large_min;
    uint64_t bytes = bytes_in_log(changes, count, large_min);
    while (bytes > bytes_max || (bytes > LOG_BYTES_GOOD && large_min > FILE_BYTES_GOOD)) {
        if (large_min < 2 * FILE_BYTES_MIN)
            return 0;
        large_min /= 2;
        bytes = bytes_in_log(changes, count, large_min);
    }
    return large_min;
}

/* The records are there, or never will be: the files stay, or go. */
static void end_files(struct store_shard *shard, struct engine_group *group, bool good)
{
    for (unsigned i = 0; i < group->count; i++) {
        struct value_put *put = group->changes[i].put;
        group->changes[i].put = NULL;
        if (put != NULL)
            store_value_put_end(shard, put, good);
    }
}

static enum kvs_err begin_files(struct store_shard *shard, struct engine_group *group)
{
    const uint64_t large_min = large_min_of(shard, group->changes, group->count);
    enum kvs_err err = large_min == 0 ? KVS_ERR_TOO_LARGE : KVS_ERR_OK;
    for (unsigned i = 0; err == KVS_ERR_OK && i < group->count; i++) {
        if (gets_file(&group->changes[i], large_min))
            err = store_value_put_change(shard, group, &group->changes[i]);
    }
    return err;
}

enum kvs_err store_group_prepare(struct engine_shard *base, struct engine_group *group, struct engine_change *changes,
                                 unsigned count)
{
    struct store_shard *shard = store_shard_of(base);
    if (!group->prepared) {
        group->prepared = true;
        group->changes = changes;
        group->count = count;
        group->error = begin_files(shard, group);
    }
    KVS_ASSERT(group->changes == changes && group->count == count);
    if (group->files_pending > 0)
        return KVS_ERR_AGAIN;
    for (unsigned i = 0; group->error == KVS_ERR_OK && i < count; i++)
        group->error = changes[i].put == NULL ? KVS_ERR_OK : changes[i].put->writer.error;
    if (group->error != KVS_ERR_OK)
        end_files(shard, group, false);
    return group->error;
}

/* ---- the log --------------------------------------------------------------------------------------------------- */

/* The oldest group that is appended and not ended. */
static void tell_oldest(struct store_shard *shard)
{
    uint64_t lsn = UINT64_MAX;
    if (!list_empty(&shard->groups))
        lsn = container_of(shard->groups.next, struct engine_group, link)->first_lsn;
    atomic_store(&shard->groups_lsn, lsn);
}

uint64_t store_groups_shown(const struct store *store)
{
    uint64_t lsn = UINT64_MAX;
    for (unsigned i = 0; i < store->shard_count && !canary_on(CANARY_GROUP_NOT_WAITED_FOR); i++) {
        uint64_t oldest = atomic_load(&store->shards[i]->groups_lsn);
        if (oldest <= lsn)
            lsn = oldest - 1;
    }
    return lsn;
}

bool store_holds_group(const struct store *store, const struct segment *segment)
{
    const bool of_this_boot = segment->kind == SEGMENT_LOG &&
                              segment->epoch == (uint32_t)store->base.superblock.epoch &&
                              segment->stream < store->shard_count;
    return of_this_boot && segment->last_lsn >= atomic_load(&store->shards[segment->stream]->groups_lsn) &&
           !canary_on(CANARY_GROUP_NOT_WAITED_FOR);
}

static enum kvs_err append(struct store_shard *shard, struct engine_group *group, struct engine_change *changes,
                           unsigned count, struct log_entry *entries, struct log_place *places)
{
    for (unsigned i = 0; i < count; i++)
        entries[i] = entry_of(&changes[i]);
    /* Nobody may learn that the log is durable so far before he can learn of the group. */
    group->first_lsn = shard->log.next_lsn;
    list_push_back(&shard->groups, &group->link);
    tell_oldest(shard);
    enum kvs_err err = log_append_group(&shard->log, entries, count, places);
    if (err != KVS_ERR_OK) {
        list_remove(&group->link);
        tell_oldest(shard);
        return err;
    }
    group->gate = places[count - 1].lsn;
    for (unsigned i = 0; i < count; i++) {
        changes[i].address = places[i].address;
        changes[i].bytes = places[i].bytes;
        changes[i].lsn = places[i].lsn;
    }
    return KVS_ERR_OK;
}

/* What deletes wait for is told to the keeper (tell_of_deletes in store.c). */
static void set_removes_wait(struct store_shard *shard, struct engine_group *group, bool waits)
{
    if (group->removes_wait == waits)
        return;
    group->removes_wait = waits;
    shard->groups_removing += waits ? 1 : -1u;
}

enum kvs_err store_group_append(struct engine_shard *base, struct engine_group *group, struct engine_change *changes,
                                unsigned count, uint64_t after_lsn)
{
    struct store_shard *shard = store_shard_of(base);
    struct log_entry entries_few[CHANGES_AT_ONCE], *entries = entries_few;
    struct log_place places_few[CHANGES_AT_ONCE], *places = places_few;
    KVS_ASSERT(count > 0);
    enum kvs_err err = canary_on(CANARY_GROUP_WITHOUT_JUMP) ? KVS_ERR_OK : log_jump(&shard->log, after_lsn);
    if (err == KVS_ERR_OK && count > CHANGES_AT_ONCE) {
        entries = malloc(count * sizeof *entries);
        places = malloc(count * sizeof *places);
        err = entries == NULL || places == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    }
    if (err == KVS_ERR_OK)
        err = append(shard, group, changes, count, entries, places);
    if (count > CHANGES_AT_ONCE) {
        free(entries == entries_few ? NULL : entries);
        free(places == places_few ? NULL : places);
    }
    bool removes = true;
    for (unsigned i = 0; i < count; i++)
        removes = removes && changes[i].removes;
    if (err == KVS_ERR_AGAIN)
        err = store_no_room(shard, removes);
    set_removes_wait(shard, group, removes && err == KVS_ERR_AGAIN);
    if (err != KVS_ERR_OK && err != KVS_ERR_AGAIN)
        end_files(shard, group, false);
    return err;
}

void store_group_end(struct engine_shard *base, struct engine_group *group)
{
    end_files(store_shard_of(base), group, true);
    list_remove(&group->link);
    tell_oldest(store_shard_of(base));
}

enum kvs_err store_publish(struct engine_op *op, const struct engine_change *change, const struct engine_group *group)
{
    struct store_shard *shard = store_shard_of(op->shard);
    struct wait *wait = op->wait;
    KVS_ASSERT(op->request.action == ENGINE_HOLD && op->request.group);
    if (!canary_on(CANARY_PUBLISHED_WITHOUT_JUMP) && log_jump(&shard->log, group->gate) == KVS_ERR_AGAIN)
        return KVS_ERR_AGAIN; /* FAILED: another log may still write for this key, and goes by log_lsn */
    if (change == NULL)
        return KVS_ERR_OK;
    const struct engine_request request = {.action = change->removes ? ENGINE_REMOVE : ENGINE_PUT,
                                           .hash = op->request.hash,
                                           .key = op->request.key,
                                           .expires_ms = change->expires_ms};
    const struct store_known known = wait_known(wait);
    const struct log_place placed = {.address = change->address, .lsn = change->lsn, .bytes = change->bytes};
    const struct value_descriptor *descriptor = change->put == NULL ? NULL : &change->put->writer.descriptor;
    const struct store_write write = {
        .request = &request, .known = &known, .descriptor = descriptor, .placed = &placed};
    struct engine_result result;
    engine_section_begin(&shard->base);
    enum kvs_err err = change->removes ? store_remove(shard, &write, &result) : store_put(shard, &write, &result);
    engine_section_end(&shard->base);
    return err == KVS_ERR_OK ? KVS_ERR_OK : KVS_ERR_AGAIN;
}
