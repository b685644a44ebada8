/*
 * backup_runs.c - the sorted runs (run_file.h) in a backup, so that a start on it need not read every segment.
 *
 * Those go along that the store has at the moment and that cover a segment of the set. A power loss at that moment
 * would have left the same, so a start may believe them as it may then. A run that is made later may cover a log's
 * segment beyond what the copy has of it: so the list is made at the moment, in the same turn as the set, and never
 * again.
 *
 * Runs are taken before the segments, for the store goes on merging, and what has been merged is removed.
 *
 * Failure modes: a backup without a run, or with a damaged one, is whole; a start on it takes longer. So whatever goes
 * wrong with a run leaves it out, and what has been copied of it is removed. A run that the store has removed meanwhile
 * is left out without a word. But for want of space the backup fails, as it does with any other file, and so it does
 * when what is to be left out cannot be removed.
 */
#include "engine/backup_internal.h"

#include "base/array.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/checkpoint.h"

/* ---- at the moment --------------------------------------------------------------------------------------------- */

static bool covers_some(const struct backup *backup, const struct run *run)
{
    for (uint32_t i = 0; i < run->segment_count; i++) {
        const struct manifest_entry *entry = manifest_find(backup->manifest, run->segments[i].number);
        if (entry != NULL && entry->uid == run->segments[i].uid)
            return true;
    }
    return false;
}

static void note_run(void *context, const struct run *run)
{
    struct backup *backup = context;
    bool noted = backup->run_count > 0 && backup->runs[backup->run_count - 1].sequence >= run->sequence;
    if (noted || backup->error != KVS_ERR_OK || !covers_some(backup, run))
        return;
    backup->error = array_grow((void **)&backup->runs, backup->run_count, &backup->run_capacity, sizeof *backup->runs);
    if (backup->error != KVS_ERR_OK)
        return;
    backup->runs[backup->run_count++] = (struct backup_run){.sequence = run->sequence, .bytes = run->layout.file_bytes};
}

enum kvs_err backup_runs_note(struct backup *backup)
{
    checkpoint_each(backup->keeper->checkpoint, note_run, backup);
    enum kvs_err err = backup->error;
    backup->error = KVS_ERR_OK;
    return err;
}

/* ---- one after the other --------------------------------------------------------------------------------------- */

static void run_taken(struct backup *backup, enum kvs_err error, const char *text);

static void take_run(struct backup *backup)
{
    if (canary_on(CANARY_BACKUP_RUNS_OF_LATER))
        (void)backup_runs_note(backup);
    if (backup->run_next == backup->run_count) {
        backup_segments_begin(backup);
        return;
    }
    const struct backup_run *run = &backup->runs[backup->run_next];
    backup->file = (struct backup_file){
        .from_fd = backup_store(backup)->base.dir_fd, .to_fd = backup->dir_fd, .bytes = run->bytes, .taken = run_taken};
    run_name(backup->file.name, run->sequence, "");
    backup_file_begin(backup);
}

static void next_run(struct backup *backup)
{
    backup->run_next++;
    take_run(backup);
}

static void run_taken(struct backup *backup, enum kvs_err error, const char *text)
{
    if (error == KVS_ERR_NO_SPACE) {
        backup_fail(backup, error, "%s", text);
        return;
    }
    if (error != KVS_ERR_OK && error != KVS_ERR_NOT_FOUND)
        diag_warn("%s; the backup does without, a first start on it takes longer", text);
    if (error == KVS_ERR_OK || !backup->file.made) {
        next_run(backup);
        return;
    }
    backup_begin(backup, BACKUP_REMOVE_RUN);
    ring_file_unlink(backup->ring, &backup->io, backup->dir_fd, backup->file.name);
}

void backup_runs_begin(struct backup *backup)
{
    backup->run_next = 0;
    take_run(backup);
}

void backup_runs_step(struct backup *backup)
{
    if (backup->io.error == KVS_ERR_OK)
        next_run(backup);
    else
        backup_fail(backup, backup->io.error, "cannot remove %s in %s: %s", backup->file.name, backup->partial_text,
                    ring_op_text(&backup->io));
}
