/*
 * recovery_scan.c - the torn-tail rule.
 *
 * A batch counts when its header is valid for its place, it continues the chain of the one before it (previous LSN, an
 * epoch not lower), and every record in it is valid and has the LSN its place in the batch gives it. The first place
 * where that is not so is the end of the segment's log.
 *
 * What stands behind the end decides what the end means. Batches carry the durable LSN of their moment, and a later
 * boot writes only behind what it has recovered. So a valid batch behind the end, of the same epoch with a durable LSN
 * beyond the end, or of a later epoch, proves that acknowledged records are missing: damage. Without such a proof the
 * rest is a torn tail: writes that were under way when the node died, and were never acknowledged.
 *
 * Where not even the first batch is valid, there is no end to compare with. A boot's first batch in a segment that
 * holds anything, or a batch of an earlier boot than the latest, still proves damage; of the latest boot it is a claim,
 * which the whole store has to answer.
 */
#include "engine/recovery_scan.h"

#include "base/assert.h"

static uint64_t batch_last_lsn(const struct batch_header *batch)
{
    return batch->first_lsn + batch->record_count - 1;
}

static const uint8_t *look(const struct scan_segment *segment, uint64_t offset, uint64_t size)
{
    return segment->bytes != NULL ? segment->bytes + offset : segment->look(segment->context, offset, size);
}

/* The valid header at this place. NULL: there is none, or (*unreadable) nobody can tell. */
static const struct batch_header *batch_at(const struct scan_segment *segment, uint64_t offset, bool *unreadable)
{
    const void *bytes = look(segment, offset, sizeof(struct batch_header));
    if (bytes == NULL)
        *unreadable = true;
    else if (batch_header_valid(bytes, segment->seed, (uint32_t)offset, segment->size - offset))
        return bytes;
    return NULL;
}

/* `batch`: all of it, at `offset` of the segment. */
static bool records_valid(const struct scan_segment *segment, const struct batch_header *batch, uint32_t offset,
                          struct scan_result *result)
{
    const uint8_t *bytes = (const uint8_t *)batch;
    uint64_t at = offset + sizeof *batch;
    uint64_t end = (uint64_t)offset + batch->bytes;
    uint32_t count = 0;
    while (at < end) {
        enum record_state state = record_check(bytes + (at - offset), end - at, segment->seed, (uint32_t)at);
        if (state == RECORD_UNKNOWN) {
            result->unknown = true;
            result->unknown_offset = (uint32_t)at;
        }
        const struct record_header *record = (const void *)(bytes + (at - offset));
        bool in_order = (batch->flags & BATCH_RELOCATED) != 0 || record->lsn == batch->first_lsn + count;
        if (state != RECORD_VALID || !in_order)
            return false;
        count++;
        at += record_size(record);
    }
    return at == end && count == batch->record_count;
}

static void prove(struct scan_result *result, const struct batch_header *batch, uint64_t at)
{
    if (result->damaged)
        return;
    result->damaged = true;
    result->proof_offset = (uint32_t)at;
    result->proof_lsn = batch->durable_lsn;
}

static void claim(struct scan_result *result, const struct batch_header *batch, uint64_t at)
{
    if (result->claim && batch->durable_lsn <= result->claim_lsn)
        return;
    result->claim = true;
    result->claim_stream = batch->stream;
    result->claim_epoch = batch->epoch;
    result->claim_lsn = batch->durable_lsn;
    result->claim_offset = (uint32_t)at;
}

/* A valid batch header in a segment whose first batch is not whole. The header of that batch itself, written though its
 * records did not arrive, only tells how far its stream had come before it. */
static void weigh_without_first(const struct scan_segment *segment, struct scan_result *result,
                                const struct batch_header *batch, uint64_t at)
{
    if (at > result->end && ((batch->flags & BATCH_BOOT) != 0 || batch->epoch < segment->epoch))
        prove(result, batch, at);
    else
        claim(result, batch, at);
}

/* Looks behind the end for proof of damage, and for how far a torn tail reaches: to the end of the last batch whose
 * header has arrived. What an earlier life of the file has left is not of this segment's place and age, and no batch.
 */
static void look_behind(const struct scan_segment *segment, struct scan_result *result)
{
    uint64_t torn_end = result->end;
    for (uint64_t at = result->end; at < segment->size; at += KVS_BLOCK_BYTES) {
        const struct batch_header *batch = batch_at(segment, at, &result->unreadable);
        if (result->unreadable)
            return;
        if (batch == NULL)
            continue;
        uint64_t batch_end = at + align_up(batch->bytes, KVS_BLOCK_BYTES);
        torn_end = batch_end > torn_end ? batch_end : torn_end;
        if (batch->epoch < result->epoch)
            continue;
        if (result->batches == 0)
            weigh_without_first(segment, result, batch, at);
        else if (at == result->end) /* did not arrive whole: it proves nothing */
            continue;
        else if (batch->epoch > result->epoch || batch->durable_lsn > result->last_lsn)
            prove(result, batch, at);
    }
    result->torn_bytes = torn_end - result->end;
}

void scan_batches(const struct scan_segment *segment, struct scan_result *result, scan_batch_fn *each_batch,
                  void *context)
{
    KVS_ASSERT(segment->size % KVS_BLOCK_BYTES == 0);
    *result = (struct scan_result){.end = KVS_BLOCK_BYTES};
    while (result->end < segment->size) {
        const struct batch_header *batch = batch_at(segment, result->end, &result->unreadable);
        if (batch == NULL || batch->epoch < result->epoch)
            break;
        if (result->batches > 0 && batch->prev_lsn != result->last_lsn)
            break;
        batch = (const void *)look(segment, result->end, batch->bytes);
        result->unreadable = batch == NULL;
        if (batch == NULL || !records_valid(segment, batch, result->end, result))
            break;
        const struct batch_header header = *batch; /* each_batch may look, too */
        each_batch(context, batch, result->end);
        result->batches++;
        result->records += header.record_count;
        result->last_lsn = batch_last_lsn(&header);
        result->epoch = header.epoch;
        result->stream = header.stream;
        result->end += (uint32_t)align_up(header.bytes, KVS_BLOCK_BYTES);
    }
    if (!result->unreadable)
        look_behind(segment, result);
}

void scan_records(const struct scan_segment *segment, uint32_t offset, scan_record_fn *each_record, void *context)
{
    const struct batch_header *batch = (const void *)look(segment, offset, sizeof *batch);
    const uint32_t size = batch->bytes;
    const uint8_t *bytes = look(segment, offset, size);
    for (uint32_t at = (uint32_t)sizeof *batch; at < size;) {
        const struct record_header *record = (const void *)(bytes + at);
        each_record(context, record, offset + at);
        at += (uint32_t)record_size(record);
    }
}
