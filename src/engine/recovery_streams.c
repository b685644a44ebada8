/*
 * recovery_streams.c - judging all segments together: is anything missing of what the last boot has written?
 *
 * Only the last boot is in question. Its start has found everything older whole, and has sealed it in the manifest or
 * adopted it. Of the last boot's streams the manifest knows how far each is sealed (its newest sealed segment is never
 * given up while it is the newest); from there on the runs of the unsealed segments must follow each other without a
 * gap, and reach as far as any batch claims that the stream was durable.
 */
#include "engine/recovery_internal.h"

#include "base/assert.h"
#include "base/canary.h"

#include <inttypes.h>
#include <stdlib.h>

static uint64_t last_lsn(const struct batch_header *batch)
{
    return batch->first_lsn + batch->record_count - 1;
}

bool run_extend(struct run *run, const struct batch_header *batch, uint32_t segment)
{
    if (run->segment != segment || run->epoch != batch->epoch || run->stream != batch->stream ||
        run->last_lsn + 1 != batch->first_lsn)
        return false;
    run->last_lsn = last_lsn(batch);
    if (batch->durable_lsn > run->durable_lsn)
        run->durable_lsn = batch->durable_lsn;
    return true;
}

struct run run_begin(const struct batch_header *batch, uint32_t segment, bool sealed)
{
    return (struct run){.epoch = batch->epoch,
                        .stream = batch->stream,
                        .segment = segment,
                        .first_lsn = batch->first_lsn,
                        .last_lsn = last_lsn(batch),
                        .durable_lsn = batch->durable_lsn,
                        .boot = (batch->flags & BATCH_BOOT) != 0,
                        .sealed = sealed};
}

void recovery_add_batch(struct recovery *recovery, const struct batch_header *batch)
{
    const struct found_segment *found = recovery->current;
    if (last_lsn(batch) > recovery->lsn_max)
        recovery->lsn_max = last_lsn(batch);
    if (recovery->run_count > 0 && run_extend(&recovery->runs[recovery->run_count - 1], batch, found->number))
        return;
    enum kvs_err err =
        recovery_grow((void **)&recovery->runs, recovery->run_count, &recovery->run_capacity, sizeof *recovery->runs);
    if (err == KVS_ERR_OK)
        recovery->runs[recovery->run_count++] = run_begin(batch, found->number, found_role(found) == FOUND_SEALED);
    else
        recovery->err = err;
}

enum kvs_err recovery_refuse_damage(struct recovery *recovery, const struct found_segment *found)
{
    const struct scan_result *scan = &found->scan;
    say(recovery,
        "segment %06u of %s is damaged at offset %u: acknowledged records after LSN %" PRIu64
        " (at least to LSN %" PRIu64
        ", proven by the batch at offset %u) would be lost. Nothing was changed. Restore a backup of this file",
        found->number, recovery->store->base.data_dir, scan->end, scan->last_lsn, scan->proof_lsn, scan->proof_offset);
    return KVS_ERR_CORRUPT;
}

static int by_stream(const void *a, const void *b)
{
    const struct run *x = a;
    const struct run *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    if (x->first_lsn != y->first_lsn)
        return x->first_lsn < y->first_lsn ? -1 : 1;
    return (x->last_lsn > y->last_lsn) - (x->last_lsn < y->last_lsn);
}

static enum kvs_err refuse_gap(struct recovery *recovery, const struct run *run, uint64_t from, uint64_t to)
{
    say(recovery,
        "records with LSN %" PRIu64 " to %" PRIu64 " of boot %" PRIu64
        ", stream %u are missing in %s (near segment %06u): "
        "a segment file was removed or its end is damaged. Nothing was changed. Restore a backup",
        from, to, run->epoch, run->stream, recovery->store->base.data_dir, run->segment);
    return KVS_ERR_CORRUPT;
}

/* The runs of one stream of the last boot, in order of LSN. */
static enum kvs_err check_stream(struct recovery *recovery, const struct run *runs, size_t count)
{
    /* A superblock copy that serves because the other one is damaged may not know where the last boot began. */
    const struct superblock *superblock = &recovery->store->base.superblock;
    uint64_t high = (runs[0].epoch == superblock->epoch ? superblock->lsn_base : runs[0].first_lsn) - 1;
    bool begun = false;
    uint64_t durable_lsn = 0;
    for (size_t i = 0; i < count; i++) {
        const struct run *run = &runs[i];
        /* Segments between two sealed ones may have been given up. */
        bool follows = run->first_lsn == high + 1 && (begun || run->boot);
        if (!run->sealed && !follows && !canary_on(CANARY_GAP_IGNORED))
            return refuse_gap(recovery, run, high + 1, run->first_lsn - 1);
        begun = true;
        high = run->last_lsn;
        durable_lsn = run->durable_lsn > durable_lsn ? run->durable_lsn : durable_lsn;
    }
    if (durable_lsn > high)
        return refuse_gap(recovery, &runs[count - 1], high + 1, durable_lsn);
    return KVS_ERR_OK;
}

enum kvs_err recovery_check_streams(struct recovery *recovery)
{
    if (recovery->run_count > 0)
        qsort(recovery->runs, recovery->run_count, sizeof *recovery->runs, by_stream);
    uint64_t last_epoch = recovery->store->base.superblock.epoch;
    if (recovery->epoch_max > last_epoch)
        last_epoch = recovery->epoch_max;
    size_t end;
    for (size_t i = 0; i < recovery->run_count; i = end) {
        const struct run *run = &recovery->runs[i];
        for (end = i + 1; end < recovery->run_count; end++) {
            if (run[end - i].epoch != run->epoch || run[end - i].stream != run->stream)
                break;
        }
        if (run->epoch != last_epoch)
            continue;
        enum kvs_err err = check_stream(recovery, run, end - i);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

/* Segments whose first batch is missing: had it been durable, by what the ones behind it claim? */
enum kvs_err recovery_check_claims(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct found_segment *found = &recovery->found[i];
        if (!found->scan.claim || found_role(found) != FOUND_LOG || canary_on(CANARY_CLAIM_IGNORED))
            continue;
        bool kept = false;
        for (size_t r = 0; r < recovery->run_count; r++) {
            const struct run *run = &recovery->runs[r];
            kept = kept || (run->epoch == found->scan.claim_epoch && run->stream == found->scan.claim_stream &&
                            run->last_lsn >= found->scan.claim_lsn);
        }
        if (!kept) {
            found->scan.proof_offset = found->scan.claim_offset;
            found->scan.proof_lsn = found->scan.claim_lsn;
            return recovery_refuse_damage(recovery, found);
        }
    }
    return KVS_ERR_OK;
}
