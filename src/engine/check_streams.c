/*
 * check_streams.c - all segments together, by the rules of recovery_streams.c, but to the end: is anything missing of
 * what the last boot has written, and is the manifest as new as the batches say?
 *
 * A gap whose cause has been reported, damage in a segment of the stream or a segment that is missing, is not reported
 * again.
 */
#include "engine/check_internal.h"

#include "base/array.h"
#include "base/assert.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- runs ------------------------------------------------------------------------------------------------------ */

static void add_run(struct check *check, const struct batch_header *batch, uint32_t offset)
{
    const struct check_file *file = check->current;
    const bool settled =
        file->out.role == CHECK_SEALED || (file->out.role == CHECK_LOG && offset < file->found.entry.end);
    if (check->run_count > 0 && stretch_extend(&check->runs[check->run_count - 1].stretch, batch, file->found.number))
        return;
    enum kvs_err err = array_grow((void **)&check->runs, check->run_count, &check->run_capacity, sizeof *check->runs);
    if (err == KVS_ERR_OK)
        check->runs[check->run_count++] = (struct check_run){
            .stretch = stretch_begin(batch, file->found.number, settled), .rescued = check->rescuing};
    else
        check->err = err;
}

void check_add_batch(struct check *check, const struct batch_header *batch, uint32_t offset)
{
    /* What an unlisted or rescued batch says is no part of a start's judgement, but it refuses the store in any case
     * then. */
    if (!check->manifest_claimed || (int32_t)(batch->manifest - check->manifest_max) > 0)
        check->manifest_max = batch->manifest;
    check->manifest_claimed = true;
    if (batch_time_ms(batch) > check->time_ms && check->current->out.role != CHECK_UNLISTED)
        check->time_ms = batch_time_ms(batch);
    if (check->current->out.role == CHECK_FREE)
        return;
    if (batch->epoch > check->epoch_max && check->current->out.role != CHECK_UNLISTED)
        check->epoch_max = batch->epoch;
    if ((batch->flags & BATCH_RELOCATED) == 0)
        add_run(check, batch, offset);
}

static int by_stream(const void *a, const void *b)
{
    return stretch_compare(&((const struct check_run *)a)->stretch, &((const struct check_run *)b)->stretch);
}

/* ---- gaps ------------------------------------------------------------------------------------------------------ */

/* Damage that was reported, and may be why records of the stream are missing. */
static bool is_explained(const struct check *check, uint64_t epoch, uint32_t stream)
{
    for (size_t i = 0; i < check->report.damage_count; i++) {
        const struct check_damage *damage = &check->damages[i];
        bool segment = damage->file[0] >= '0' && damage->file[0] <= '9' && damage->severity != CHECK_HARMLESS;
        if (segment && (damage->epoch == 0 || (damage->epoch == epoch && damage->stream == stream)))
            return true;
    }
    return false;
}

static void gap(struct check *check, const struct stretch *run, uint64_t from, uint64_t to)
{
    if (is_explained(check, run->epoch, run->stream))
        return;
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, run->segment, "");
    struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what,
             "near it, LSN %" PRIu64 " to %" PRIu64 " of boot %" PRIu64 ", stream %u are in no segment", from, to,
             run->epoch, run->stream);
    snprintf(damage->means, sizeof damage->means,
             "a segment was removed, or the end of one is damaged: these records were acknowledged and are lost");
    damage->epoch = run->epoch;
    damage->stream = run->stream;
    damage->lsn_first = from;
    damage->lsn_last = to;
    damage->records_max = to >= from ? to - from + 1 : CHECK_UNKNOWN;
}

/* The runs of one stream of the last boot, in order of LSN. */
static void check_stream(struct check *check, const struct check_run *runs, size_t count)
{
    /* A superblock that is an older copy does not know where the last boot began. */
    bool known = runs[0].stretch.epoch == check->superblock.epoch && !check->report.identity_guessed;
    uint64_t high = (known ? check->superblock.lsn_base : runs[0].stretch.first_lsn) - 1;
    bool begun = false;
    uint64_t durable_lsn = 0;
    for (size_t i = 0; i < count; i++) {
        const struct stretch *run = &runs[i].stretch;
        bool follows = run->first_lsn == high + 1 && (begun || run->boot);
        if (!run->settled && !follows)
            gap(check, run, high + 1, run->first_lsn - 1);
        begun = true;
        high = run->last_lsn;
        durable_lsn = run->durable_lsn > durable_lsn ? run->durable_lsn : durable_lsn;
    }
    if (durable_lsn > high)
        gap(check, &runs[count - 1].stretch, high + 1, durable_lsn);
}

/* Segments whose first batch is missing: had it been durable, by what the ones behind it claim? */
static void check_claims(struct check *check)
{
    for (size_t i = 0; i < check->named_count; i++) {
        struct check_file *file = &check->files[i];
        const struct scan_result *scan = &file->found.scan;
        if (!scan->claim || file->out.role != CHECK_LOG || file->out.damaged)
            continue;
        bool kept = false;
        for (size_t r = 0; r < check->run_count; r++) {
            const struct stretch *run = &check->runs[r].stretch;
            kept = kept || (run->epoch == scan->claim_epoch && run->stream == scan->claim_stream &&
                            run->last_lsn >= scan->claim_lsn);
        }
        if (kept)
            continue;
        char name[CHECK_FILE_BYTES];
        check_file_name(file, name);
        file->out.damaged = true;
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, scan->end);
        snprintf(damage->what, sizeof damage->what,
                 "its first batch is not whole; the batch at offset %u says that it was durable", scan->claim_offset);
        damage->epoch = scan->claim_epoch;
        damage->stream = scan->claim_stream;
        damage->lsn_last = scan->claim_lsn;
        snprintf(damage->means, sizeof damage->means,
                 "records up to LSN %" PRIu64 " of boot %" PRIu64 ", stream %u are lost", scan->claim_lsn,
                 scan->claim_epoch, scan->claim_stream);
        damage->records_max = CHECK_UNKNOWN;
    }
}

void check_streams(struct check *check)
{
    if (check->run_count > 0)
        qsort(check->runs, check->run_count, sizeof *check->runs, by_stream);
    uint64_t last_epoch = check->superblock.epoch;
    if (check->epoch_max > last_epoch)
        last_epoch = check->epoch_max;
    size_t end;
    for (size_t i = 0; i < check->run_count; i = end) {
        const struct stretch *run = &check->runs[i].stretch;
        for (end = i + 1; end < check->run_count; end++) {
            const struct stretch *next = &check->runs[end].stretch;
            if (next->epoch != run->epoch || next->stream != run->stream)
                break;
        }
        if (run->epoch == last_epoch)
            check_stream(check, &check->runs[i], end - i);
    }
    check_claims(check);
}

/* ---- the manifest ---------------------------------------------------------------------------------------------- */

static bool is_claimed(const struct check *check)
{
    uint32_t sequence = (uint32_t)check->report.manifest_sequence;
    return check->manifest_claimed && (int32_t)(check->manifest_max - sequence) > 0;
}

bool check_manifest_is_behind(const struct check *check)
{
    bool used_again = false;
    for (size_t i = 0; i < check->named_count; i++) {
        const struct check_file *file = &check->files[i];
        used_again = used_again || (file->out.role == CHECK_UNLISTED && file->out.batches > 0);
    }
    return !check->manifest_good || used_again || is_claimed(check);
}

void check_manifest_age(struct check *check)
{
    if (!check->manifest_good || !is_claimed(check))
        return;
    struct check_damage *damage = check_damage(check, CHECK_REFUSED, MANIFEST_NAME, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what,
             "it has lost its latest changes: it ends with change %u, but change %u was durable",
             (uint32_t)check->report.manifest_sequence, check->manifest_max);
    snprintf(damage->means, sizeof damage->means,
             "it lists segments as free that were taken into use since; their records are still there");
}
