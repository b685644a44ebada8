/*
 * fuzz_records.c - the batches and records of a segment.
 *
 * Input: a byte of flags (1: checksums are put right after the mutations), a byte that says how many mutations follow
 * the batches, then batches, each a byte of records (0..3) and a byte of deviations, with records of a byte of key
 * length, two of value length and a byte of deviations. Then mutations: place (2 bytes), kind, and bytes. What remains
 * of the input lies behind the last batch.
 *
 * Properties. Batches and records that are reported are valid when checked again, lie behind each other and within the
 * segment, and their log sequence numbers count up; nothing outside the segment is read. A segment to which nothing was
 * done is found as it was written.
 */
#include "engine/recovery_scan.h"
#include "fuzz.h"
#include "fuzz_fixup.h"

enum { SEGMENT_BYTES = 16 * KVS_BLOCK_BYTES, SEED = 0x5eed, BATCHES_MAX = 12, MUTATIONS_MAX = 12 };

/* How a batch or record differs from what the log would write. */
enum deviation {
    BATCH_IS_BOOT = 1,
    BATCH_EPOCH = 2,    /* one higher */
    BATCH_LSN = 4,      /* skips some */
    BATCH_COUNT = 8,    /* names one record more */
    BATCH_DURABLE = 16, /* all before it was durable */
    BATCH_STREAM = 32,
    RECORD_IS_DELETE = 1,
    RECORD_IS_STRANGE = 2,
    RECORD_LSN = 4,
    RECORD_COLLIDES = 8,
};

struct writer {
    uint8_t *bytes;
    uint64_t at;
    uint64_t lsn;
    uint64_t epoch;
    uint64_t batches, records;
    bool regular; /* as the log would have written it */
};

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* False when there is no room left. */
static bool write_record(struct writer *writer, struct fuzz_input *input, uint64_t *at)
{
    const size_t key_bytes = fuzz_take(input, 1);
    const size_t value_bytes = fuzz_take(input, 2) % 6000;
    const unsigned deviations = (unsigned)fuzz_take(input, 1);
    const bool removes = (deviations & RECORD_IS_DELETE) != 0;
    /* Some expire, without a deviation of its own: what has been found so far stays of use. */
    const uint64_t expires_ms = removes || key_bytes % 4 > 0 ? 0 : 1 + value_bytes;
    const uint64_t size = record_bytes(key_bytes + (expires_ms > 0 ? RECORD_EXPIRY_BYTES : 0), value_bytes);
    if (size > SEGMENT_BYTES - *at)
        return false;
    static const uint8_t filling[6000];
    struct record_header fields = {.lsn = writer->lsn++, .kind = removes ? RECORD_DELETE : RECORD_PUT};
    if ((deviations & RECORD_IS_STRANGE) != 0)
        fields.kind = (uint8_t)fuzz_take(input, 1);
    if ((deviations & RECORD_LSN) != 0)
        fields.lsn ^= fuzz_take(input, 1);
    if ((deviations & RECORD_COLLIDES) != 0)
        fields.flags = RECORD_GROUP;
    writer->regular = writer->regular && (deviations & (RECORD_IS_STRANGE | RECORD_LSN)) == 0;
    record_encode(writer->bytes + *at, SEED, (uint32_t)*at, &fields, expires_ms, slice_make(filling, key_bytes),
                  slice_make(filling, value_bytes));
    *at += size;
    return true;
}

static bool write_batch(struct writer *writer, struct fuzz_input *input)
{
    if (writer->at + KVS_BLOCK_BYTES > SEGMENT_BYTES)
        return false;
    const unsigned wanted = (unsigned)fuzz_take(input, 1) % 4;
    const unsigned deviations = (unsigned)fuzz_take(input, 1);
    const uint64_t prev = writer->lsn - 1;
    if ((deviations & BATCH_LSN) != 0 && writer->batches > 0)
        writer->lsn += fuzz_take(input, 8) & ~(1ull << 63);
    if ((deviations & BATCH_EPOCH) != 0)
        writer->epoch++;
    struct batch_header header = {
        .first_lsn = writer->lsn,
        .prev_lsn = prev,
        .durable_lsn = (deviations & BATCH_DURABLE) != 0 ? prev : 0,
        .epoch = writer->epoch,
        .stream = (deviations & BATCH_STREAM) != 0,
        .flags = (deviations & BATCH_IS_BOOT) != 0 ? BATCH_BOOT : 0,
    };
    uint64_t at = writer->at + sizeof header;
    while (header.record_count < wanted && write_record(writer, input, &at))
        header.record_count++;
    writer->records += header.record_count;
    writer->regular = writer->regular && (deviations & BATCH_COUNT) == 0;
    header.record_count += (deviations & BATCH_COUNT) != 0;
    header.bytes = (uint32_t)(at - writer->at);
    batch_header_seal(&header, SEED, (uint32_t)writer->at);
    memcpy(writer->bytes + writer->at, &header, sizeof header);
    writer->at = align_up(at, KVS_BLOCK_BYTES);
    writer->batches++;
    return true;
}

static void mutate(uint8_t *bytes, struct fuzz_input *input)
{
    const uint64_t place = fuzz_take(input, 2) % SEGMENT_BYTES;
    const unsigned kind = (unsigned)fuzz_take(input, 1);
    const size_t size = 1 + kind / 4 % 16;
    const size_t room = SEGMENT_BYTES - place < size ? SEGMENT_BYTES - place : size;
    if (kind % 4 == 3) { /* a whole block from elsewhere */
        const uint64_t from = fuzz_take(input, 1) % (SEGMENT_BYTES / KVS_BLOCK_BYTES) * KVS_BLOCK_BYTES;
        memmove(bytes + align_down(place, KVS_BLOCK_BYTES), bytes + from, KVS_BLOCK_BYTES);
        return;
    }
    const struct slice with = fuzz_take_slice(input, room);
    for (size_t i = 0; i < with.size; i++)
        bytes[place + i] = kind % 4 == 0 ? with.data[i] : kind % 4 == 1 ? bytes[place + i] ^ with.data[i] : 0;
}

/* ---- checking -------------------------------------------------------------------------------------------------- */

struct seen {
    const struct scan_segment *segment;
    uint64_t end; /* behind the last batch */
    uint64_t batches, records;
    uint64_t batch_end, next_lsn, in_batch;
    bool relocated; /* its records have the LSNs they were first written with */
};

static void see_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct seen *seen = context;
    const uint8_t *bytes = seen->segment->bytes;
    FUZZ_CHECK((const uint8_t *)record == bytes + offset && offset % RECORD_ALIGN == 0);
    FUZZ_CHECK(fixup_record_right(bytes, offset, seen->batch_end - offset, SEED));
    FUZZ_CHECK(record_check(record, seen->batch_end - offset, SEED, offset) == RECORD_VALID);
    FUZZ_CHECK(record->kind == RECORD_PUT || record->kind == RECORD_DELETE);
    FUZZ_CHECK(seen->relocated || record->lsn == seen->next_lsn);
    seen->next_lsn++;
    const struct slice key = record_key(record), value = record_value(record);
    FUZZ_CHECK(fuzz_lies_in(key, bytes + offset, seen->batch_end - offset));
    FUZZ_CHECK(fuzz_lies_in(value, bytes + offset, seen->batch_end - offset));
    const uint64_t size = record_size(record);
    FUZZ_CHECK(record_class(size) == 15 || record_class_bytes(record_class(size)) >= size);
    seen->in_batch++;
}

static void see_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct seen *seen = context;
    const struct scan_segment *segment = seen->segment;
    FUZZ_CHECK((const uint8_t *)batch == segment->bytes + offset && offset == seen->end);
    FUZZ_CHECK(fixup_batch_right(segment->bytes, offset, segment->size - offset, SEED));
    FUZZ_CHECK(batch_header_valid(batch, SEED, offset, segment->size - offset));
    seen->batch_end = (uint64_t)offset + batch->bytes;
    seen->next_lsn = batch->first_lsn;
    seen->relocated = (batch->flags & BATCH_RELOCATED) != 0;
    seen->in_batch = 0;
    scan_records(segment, offset, see_record, seen);
    FUZZ_CHECK(seen->in_batch == batch->record_count);
    seen->records += batch->record_count;
    seen->batches++;
    seen->end = align_up(seen->batch_end, KVS_BLOCK_BYTES);
}

static void check_scan(const struct writer *writer, bool untouched)
{
    const struct scan_segment segment = {
        .bytes = writer->bytes, .size = SEGMENT_BYTES, .seed = SEED, .epoch = writer->epoch};
    struct seen seen = {.segment = &segment, .end = KVS_BLOCK_BYTES};
    struct scan_result result;
    scan_batches(&segment, &result, see_batch, &seen);
    FUZZ_CHECK(result.end == seen.end && result.end <= SEGMENT_BYTES);
    FUZZ_CHECK(result.batches == seen.batches && result.records == seen.records);
    FUZZ_CHECK(result.torn_bytes <= SEGMENT_BYTES - result.end);
    if (result.damaged)
        FUZZ_CHECK(result.proof_offset > result.end &&
                   fixup_batch_right(writer->bytes, result.proof_offset, SEGMENT_BYTES - result.proof_offset, SEED));
    if (result.claim)
        FUZZ_CHECK(result.batches == 0 && result.claim_offset >= result.end);
    if (result.unknown)
        FUZZ_CHECK(
            result.unknown_offset < SEGMENT_BYTES &&
            fixup_record_right(writer->bytes, result.unknown_offset, SEGMENT_BYTES - result.unknown_offset, SEED));
    if (untouched)
        FUZZ_CHECK(result.batches == writer->batches && result.records == writer->records && !result.damaged &&
                   !result.claim && !result.unknown && result.torn_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct writer writer = {.at = KVS_BLOCK_BYTES, .lsn = 1, .epoch = 1, .regular = true};
    writer.bytes = aligned_alloc(KVS_BLOCK_BYTES, SEGMENT_BYTES);
    FUZZ_CHECK(writer.bytes != NULL);
    memset(writer.bytes, 0, SEGMENT_BYTES);
    const bool fix = (fuzz_take(&input, 1) & 1) != 0;
    const unsigned counts = (unsigned)fuzz_take(&input, 1);
    for (unsigned i = 0; i < counts % 16 && i < BATCHES_MAX && write_batch(&writer, &input); i++)
        ;
    const unsigned mutations = counts / 16 % MUTATIONS_MAX;
    for (unsigned i = 0; i < mutations; i++)
        mutate(writer.bytes, &input);
    const size_t rest = input.size < SEGMENT_BYTES - writer.at ? input.size : SEGMENT_BYTES - writer.at;
    if (rest > 0)
        memcpy(writer.bytes + writer.at, input.data, rest);
    if (fix)
        fixup_batches(writer.bytes, SEGMENT_BYTES, SEED);
    check_scan(&writer, writer.regular && mutations == 0 && rest == 0);
    free(writer.bytes);
    return 0;
}
