/*
 * recovery_streams.c - judging all segments together: is anything missing of what the last boot has written?
 *
 * Only the last boot is in question. Its start has found everything older whole, and has sealed it in the manifest or
 * adopted it. Of the last boot's streams the manifest knows how far each is settled: it lists a segment as sealed (the
 * newest sealed segment of a stream is never given up while it is the newest), or as adopted by a start that then
 * ended early. From there on the runs must follow each other without a gap, and reach as far as any batch claims that
 * the stream was durable.
 */
#include "engine/recovery_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/canary.h"

#include <inttypes.h>
#include <stdlib.h>

static uint64_t last_lsn(const struct batch_header *batch)
{
    return batch->first_lsn + batch->record_count - 1;
}

bool stretch_extend(struct stretch *stretch, const struct batch_header *batch, uint32_t segment)
{
    if (stretch->segment != segment || stretch->epoch != batch->epoch || stretch->stream != batch->stream ||
        stretch->last_lsn + 1 != batch->first_lsn)
        return false;
    stretch->last_lsn = last_lsn(batch);
    if (batch->durable_lsn > stretch->durable_lsn)
        stretch->durable_lsn = batch->durable_lsn;
    return true;
}

struct stretch stretch_begin(const struct batch_header *batch, uint32_t segment, bool settled)
{
    return (struct stretch){.epoch = batch->epoch,
                            .stream = batch->stream,
                            .segment = segment,
                            .first_lsn = batch->first_lsn,
                            .last_lsn = last_lsn(batch),
                            .durable_lsn = batch->durable_lsn,
                            .boot = (batch->flags & BATCH_BOOT) != 0,
                            .settled = settled};
}

enum kvs_err recovery_add_batch(struct found_segment *found, const struct batch_header *batch, uint32_t offset)
{
    if (found->stretch_count > 0 && stretch_extend(&found->stretches[found->stretch_count - 1], batch, found->number))
        return KVS_ERR_OK;
    enum kvs_err err = array_grow((void **)&found->stretches, found->stretch_count, &found->stretch_capacity,
                                  sizeof *found->stretches);
    const bool adopted = offset < found->entry.end && !canary_on(CANARY_ADOPTED_NOT_SETTLED);
    const bool settled = found_role(found) == FOUND_SEALED || adopted;
    if (err == KVS_ERR_OK)
        found->stretches[found->stretch_count++] = stretch_begin(batch, found->number, settled);
    return err;
}

enum kvs_err recovery_add_sealed(struct found_segment *found)
{
    enum kvs_err err = array_grow((void **)&found->stretches, found->stretch_count, &found->stretch_capacity,
                                  sizeof *found->stretches);
    if (err == KVS_ERR_OK)
        found->stretches[found->stretch_count++] = (struct stretch){.epoch = found->entry.epoch,
                                                                    .stream = found->entry.stream,
                                                                    .segment = found->number,
                                                                    .first_lsn = found->entry.last_lsn,
                                                                    .last_lsn = found->entry.last_lsn,
                                                                    .settled = true};
    return err;
}

enum kvs_err recovery_refuse_damage(const struct recovery *recovery, const struct found_segment *found,
                                    char message[ENGINE_MESSAGE_BYTES])
{
    const struct scan_result *scan = &found->scan;
    snprintf(message, ENGINE_MESSAGE_BYTES,
             "segment %06u of %s is damaged at offset %u: acknowledged records after LSN %" PRIu64
             " (at least to LSN %" PRIu64
             ", proven by the batch at offset %u) would be lost. Nothing was changed. Restore a backup of this file",
             found->number, recovery->store->base.data_dir, scan->end, scan->last_lsn, scan->proof_lsn,
             scan->proof_offset);
    return KVS_ERR_CORRUPT;
}

int stretch_compare(const void *a, const void *b)
{
    const struct stretch *x = a;
    const struct stretch *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    if (x->first_lsn != y->first_lsn)
        return x->first_lsn < y->first_lsn ? -1 : 1;
    return (x->last_lsn > y->last_lsn) - (x->last_lsn < y->last_lsn);
}

static enum kvs_err refuse_gap(struct recovery *recovery, const struct stretch *stretch, uint64_t from, uint64_t to)
{
    say(recovery,
        "records with LSN %" PRIu64 " to %" PRIu64 " of boot %" PRIu64
        ", stream %u are missing in %s (near segment %06u): "
        "a segment file was removed or its end is damaged. Nothing was changed. Restore a backup",
        from, to, stretch->epoch, stretch->stream, recovery->store->base.data_dir, stretch->segment);
    return KVS_ERR_CORRUPT;
}

/* The runs of one stream of the last boot, in order of LSN. */
static enum kvs_err check_stream(struct recovery *recovery, const struct stretch *stretches, size_t count)
{
    /* A superblock copy that serves because the other one is damaged may not know where the last boot began. */
    const struct superblock *superblock = &recovery->store->base.superblock;
    uint64_t high = (stretches[0].epoch == superblock->epoch ? superblock->lsn_base : stretches[0].first_lsn) - 1;
    bool begun = false;
    uint64_t durable_lsn = 0;
    for (size_t i = 0; i < count; i++) {
        const struct stretch *stretch = &stretches[i];
        /* Segments between two that are settled may have been given up. */
        bool follows = stretch->first_lsn == high + 1 && (begun || stretch->boot);
        if (!stretch->settled && !follows && !canary_on(CANARY_GAP_IGNORED))
            return refuse_gap(recovery, stretch, high + 1, stretch->first_lsn - 1);
        begun = true;
        high = stretch->last_lsn;
        durable_lsn = stretch->durable_lsn > durable_lsn ? stretch->durable_lsn : durable_lsn;
    }
    if (durable_lsn > high)
        return refuse_gap(recovery, &stretches[count - 1], high + 1, durable_lsn);
    return KVS_ERR_OK;
}

/* All stretches of all segments, in order; to be freed. NULL: no memory. */
static struct stretch *gather(const struct recovery *recovery, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < recovery->found_count; i++)
        *count += recovery->found[i].stretch_count;
    struct stretch *all = malloc((*count + 1) * sizeof *all);
    if (all == NULL)
        return NULL;
    size_t end = 0;
    for (size_t i = 0; i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        if (found->stretch_count > 0)
            memcpy(all + end, found->stretches, found->stretch_count * sizeof *all);
        end += found->stretch_count;
    }
    if (*count > 0)
        qsort(all, *count, sizeof *all, stretch_compare);
    return all;
}

enum kvs_err recovery_check_streams(struct recovery *recovery)
{
    size_t count;
    struct stretch *all = gather(recovery, &count);
    if (all == NULL)
        return KVS_ERR_NO_MEMORY;
    uint64_t last_epoch = recovery->store->base.superblock.epoch;
    if (recovery->epoch_max > last_epoch)
        last_epoch = recovery->epoch_max;
    enum kvs_err err = KVS_ERR_OK;
    size_t end;
    for (size_t i = 0; err == KVS_ERR_OK && i < count; i = end) {
        for (end = i + 1; end < count; end++) {
            if (all[end].epoch != all[i].epoch || all[end].stream != all[i].stream)
                break;
        }
        if (all[i].epoch == last_epoch)
            err = check_stream(recovery, &all[i], end - i);
    }
    free(all);
    return err;
}

/* Some segment holds the claim's stream as far as it claims. */
static bool claim_is_kept(const struct recovery *recovery, const struct scan_result *claim)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        for (size_t s = 0; s < found->stretch_count; s++) {
            const struct stretch *stretch = &found->stretches[s];
            if (stretch->epoch == claim->claim_epoch && stretch->stream == claim->claim_stream &&
                stretch->last_lsn >= claim->claim_lsn)
                return true;
        }
    }
    return false;
}

/* Segments whose first batch is missing: had it been durable, by what the ones behind it claim? */
enum kvs_err recovery_check_claims(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct found_segment *found = &recovery->found[i];
        if (!found->scan.claim || found_role(found) != FOUND_LOG || canary_on(CANARY_CLAIM_IGNORED) ||
            claim_is_kept(recovery, &found->scan))
            continue;
        found->scan.proof_offset = found->scan.claim_offset;
        found->scan.proof_lsn = found->scan.claim_lsn;
        return recovery_refuse_damage(recovery, found, recovery->message);
    }
    return KVS_ERR_OK;
}
