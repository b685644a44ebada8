/*
 * backup_set.c - the moment, the set of segments, and the way of each into the copy.
 *
 * The moment. Each log publishes how far it is durable, and nobody is told of a write before that. The figures of all
 * logs are read twice in a row; when both readings agree, all of them were true at once, at any moment in between. What
 * was acknowledged before is in the copy, and what was begun after is not: as if the power had failed then.
 *
 * The set is this store's list of segments at that moment. What is SEALED in it is whole; the entry has to be durable
 * before the file gets a second name, or a start after a crash might write in it. Of LIVE segments of logs the copy
 * takes the batches up to the moment; they stand in its manifest as LIVE with their end, so that a start on the copy
 * will notice if a byte of them is missing. What compaction has not finished, and what is FREE, is left out.
 *
 * That the list may be ahead of what is durable does no harm: each change of it was made when all that it relies on was
 * durable in the logs, and so is in the copy.
 *
 * Failure modes: batches of a log that cannot be found up to the moment (a read has gone wrong): the backup fails
 * rather than lack records.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"
#include "base/canary.h"

#include <inttypes.h>
#include <stdio.h>

enum { MOMENT_TRIES = 64 /* in a turn */ };
#define MOMENT_NS 10000000000ull

/* ---- the moment ------------------------------------------------------------------------------------------------ */

static bool read_durable(struct backup *backup)
{
    const struct store *store = backup_store(backup);
    bool same = true;
    for (unsigned i = 0; i < store->shard_count; i++) {
        uint64_t durable = log_written(&store->shards[i]->log);
        same = same && backup->durable[i] == durable;
        backup->durable[i] = durable;
    }
    return same;
}

static void note_entry(void *context, const struct manifest_entry *entry)
{
    struct backup *backup = context;
    const struct store *store = backup_store(backup);
    bool sealed = entry->state == MANIFEST_SEALED;
    bool tail = entry->state == MANIFEST_LIVE && entry->kind == SEGMENT_LOG;
    if ((!sealed && !tail) || backup->error != KVS_ERR_OK)
        return;
    bool of_this_boot = sealed && entry->kind == SEGMENT_LOG && entry->epoch == store->base.superblock.epoch;
    KVS_ASSERT(!of_this_boot || entry->stream < store->shard_count);
    if (of_this_boot && entry->last_lsn > backup->sealed[entry->stream])
        backup->sealed[entry->stream] = entry->last_lsn;
    backup->numbers_end = entry->number + 1;
    backup->error = manifest_set(backup->manifest, entry);
}

static enum kvs_err note_set(struct backup *backup)
{
    const struct store *store = backup_store(backup);
    const struct manifest *manifest = backup->keeper->manifest;
    struct manifest_options options = {.ring = backup->ring,
                                       .dir_fd = backup->dir_fd,
                                       .dir_name = backup->partial_text,
                                       .store_uuid = store->base.superblock.uuid,
                                       .first_sequence = manifest_sequence_end(manifest)};
    enum kvs_err err = manifest_new(&backup->manifest, &options);
    if (err != KVS_ERR_OK)
        return err;
    backup->next = backup->numbers_end = 0;
    for (unsigned i = 0; i < store->shard_count; i++) {
        backup->sealed[i] = store->base.superblock.lsn_base - 1;
        backup->covered[i] = 0;
    }
    manifest_each(manifest, note_entry, backup);
    err = backup->error;
    backup->error = KVS_ERR_OK;
    if (err == KVS_ERR_OK)
        err = backup_runs_note(backup);
    backup->ticket = manifest_latest(manifest);
    backup->moment_ms = ring_wall_ms(backup->ring);
    backup->superblock = backup_store(backup)->base.superblock;
    return err;
}

void backup_moment(struct backup *backup)
{
    bool found = false;
    for (unsigned i = 0; !found && i <= MOMENT_TRIES; i++)
        found = read_durable(backup) && i > 0;
    if (!found && ring_now_ns(backup->ring) - backup->begun_ns > MOMENT_NS) {
        backup_fail(backup, KVS_ERR_AGAIN, "found no moment between the commits of all threads; try again");
        return;
    }
    enum kvs_err err = found ? note_set(backup) : KVS_ERR_OK;
    if (err != KVS_ERR_OK)
        backup_fail(backup, err, "%s", kvs_err_text(err));
    else if (found)
        backup->stage = BACKUP_ENTER;
}

bool backup_holds(const struct backup *backup, uint32_t number)
{
    /* When the value files have their turn, `next` is behind all of them. */
    bool at_work = backup->stage >= BACKUP_ENTER && backup->stage <= BACKUP_SYNC;
    return at_work && number >= backup->next && manifest_find(backup->manifest, number) != NULL &&
           !canary_on(CANARY_BACKUP_HOLDS_NOTHING);
}

/* ---- one segment after the other ------------------------------------------------------------------------------- */

/* Every log must have been found up to the moment. */
static bool is_complete(struct backup *backup)
{
    const struct store *store = backup_store(backup);
    for (unsigned i = 0; i < store->shard_count; i++) {
        uint64_t found = backup->sealed[i] + backup->covered[i];
        if (found >= backup->durable[i])
            continue;
        backup_fail(backup, KVS_ERR_CORRUPT,
                    "the log of shard %u is durable up to LSN %" PRIu64 ", but only %" PRIu64
                    " of its LSNs behind %" PRIu64 " could be read: a read has gone wrong, or its segment is "
                    "damaged",
                    i, backup->durable[i], backup->covered[i], backup->sealed[i]);
        return false;
    }
    return true;
}

static void take_segment(struct backup *backup)
{
    while (backup->next < backup->numbers_end && manifest_find(backup->manifest, backup->next) == NULL)
        backup->next++;
    if (backup->next == backup->numbers_end) {
        if (is_complete(backup))
            backup_values_begin(backup);
        return;
    }
    const struct manifest_entry *entry = manifest_find(backup->manifest, backup->next);
    segment_name(backup->segment_file, backup->next, "");
    if (entry->state == MANIFEST_LIVE) {
        backup_measure(backup);
        return;
    }
    backup_begin(backup, BACKUP_LINK);
    ring_file_link(backup->ring, &backup->io, backup_store(backup)->base.dir_fd, backup->segment_file, backup->dir_fd,
                   backup->segment_file);
}

void backup_list(struct backup *backup)
{
    backup->stage = BACKUP_MANIFEST;
    manifest_write_begin(backup->manifest);
}

void backup_segments_begin(struct backup *backup)
{
    take_segment(backup);
}

void backup_next(struct backup *backup)
{
    backup->next++;
    take_segment(backup);
}

void backup_entered(struct backup *backup)
{
    const struct manifest *manifest = backup->keeper->manifest;
    if (manifest_durable(manifest, backup->ticket))
        backup_runs_begin(backup);
    else if (manifest_failed(manifest))
        backup_fail(backup, KVS_ERR_FAILED, "%s", manifest_failure_text(manifest));
    else if (manifest_waits_for_space(manifest))
        backup_fail(backup, KVS_ERR_NO_SPACE, "there is no space for a new " MANIFEST_NAME " of the store");
}

static void linked(struct backup *backup)
{
    enum kvs_err err = backup->io.error;
    if (err == KVS_ERR_UNSUPPORTED) {
        backup->copy_end = manifest_find(backup->manifest, backup->next)->end;
        backup_copy(backup);
    } else if (err != KVS_ERR_OK) {
        backup_fail(backup, err, "cannot link segment %s into %s: %s", backup->segment_file, backup->partial_text,
                    ring_op_text(&backup->io));
    } else {
        backup->segments++;
        backup->linked++;
        backup_next(backup);
    }
}

void backup_set_step(struct backup *backup)
{
    if (backup->stage == BACKUP_LINK)
        linked(backup);
    else
        backup_copy_step(backup);
}

void backup_listed(struct backup *backup)
{
    char message[ENGINE_MESSAGE_BYTES];
    enum kvs_err err = manifest_written(backup->manifest, message);
    backup->other_bytes += manifest_bytes(backup->manifest);
    if (err != KVS_ERR_OK)
        backup_fail(backup, err, "%s", message);
    else
        backup_finish(backup);
}
