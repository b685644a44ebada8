/*
 * check_rescue.c - behind damage.
 *
 * From there on nothing follows from what stands before it, and every record has to prove itself: its checksum begins
 * with a seed of store, segment and place, so neither an earlier life of the file nor bytes of a value can pass for
 * one. Records begin at multiples of 16, so each of these places is tried. Headers of batches that are valid for their
 * place are not needed for that, but they say which LSNs there were, and so which are lost.
 */
#include "engine/check_internal.h"

#include "base/assert.h"

#include <inttypes.h>

/* What may lie between two records that were found: at most so many others fit. */
enum { RECORD_BYTES_MIN = 32 };

struct rescue {
    struct check *check;
    struct check_file *file;
    uint64_t expected;              /* the log's next LSN; 0: not known yet */
    uint64_t told;                  /* the last one that a header tells of */
    uint64_t lost;                  /* LSNs that were passed over … */
    uint64_t lost_first, lost_last; /* … between these; 0: none */
    uint64_t rescued;
    uint64_t rescued_bytes;
    uint64_t epoch; /* of the last header */
    uint32_t stream;
};

/* Cheap, and wrong for nearly all bytes that are no record; the checksum decides. */
static bool plausible(const struct record_header *record)
{
    return (record->kind == RECORD_PUT || record->kind == RECORD_DELETE) && record->type == 0 && record->codec == 0 &&
           record->value_bytes <= KVS_RECORD_VALUE_BYTES_MAX;
}

/* The log had all LSNs up to `last`; those that were not found are lost. */
static void had(struct rescue *rescue, uint64_t last)
{
    if (rescue->expected == 0 || last < rescue->expected || last == UINT64_MAX)
        return;
    if (rescue->lost == 0)
        rescue->lost_first = rescue->expected;
    rescue->lost += last - rescue->expected + 1;
    rescue->lost_last = last;
    rescue->expected = last + 1;
}

static void take_header(struct rescue *rescue, const struct batch_header *batch, uint32_t offset)
{
    rescue->file->out.batches++;
    had(rescue, rescue->told);
    had(rescue, batch->prev_lsn);
    rescue->expected = batch->first_lsn;
    rescue->told = batch->first_lsn + batch->record_count - 1;
    rescue->epoch = batch->epoch;
    rescue->stream = batch->stream;
    check_add_batch(rescue->check, batch, offset);
}

static void take_record(struct rescue *rescue, const struct record_header *record, uint32_t offset)
{
    had(rescue, record->lsn - 1);
    rescue->expected = record->lsn + 1;
    check_take_record(rescue->check, record, offset);
    rescue->rescued++;
    rescue->rescued_bytes += record_size(record);
}

/* Walks all places from `from` to `to`. */
static void walk(struct rescue *rescue, uint32_t from, uint32_t to)
{
    struct check *check = rescue->check;
    const uint32_t seed = rescue->file->seed;
    KVS_ASSERT(from % RECORD_ALIGN == 0 && to <= check->superblock.segment_bytes);
    for (uint64_t at = from; at + sizeof(struct record_header) <= to;) {
        const uint8_t *bytes = check->bytes + at;
        if (at % KVS_BLOCK_BYTES == 0 && batch_header_valid((const void *)bytes, seed, (uint32_t)at, to - at)) {
            take_header(rescue, (const void *)bytes, (uint32_t)at);
            at += sizeof(struct batch_header);
            continue;
        }
        const struct record_header *record = (const void *)bytes;
        if (!plausible(record) || record_check(bytes, to - at, seed, (uint32_t)at) != RECORD_VALID) {
            at += RECORD_ALIGN;
            continue;
        }
        take_record(rescue, record, (uint32_t)at);
        at += record_size(record);
    }
    had(rescue, rescue->told);
}

/* How many records may be lost, at most. Where several boots were lost, so were the LSNs that are left out between
 * them: the room limits what could be. */
static uint64_t count_lost(const struct rescue *rescue, uint32_t from, uint32_t to)
{
    const struct manifest_entry *entry = &rescue->file->found.entry;
    uint64_t count = rescue->lost;
    if (rescue->file->out.role == CHECK_SEALED) {
        uint64_t listed = (uint64_t)entry->puts + entry->deletes;
        uint64_t found = rescue->file->found.scan.records + rescue->rescued;
        count = listed > found ? listed - found : 0;
    } else if (rescue->file->found.scan.batches == 0) {
        return CHECK_UNKNOWN; /* nothing says with which LSN the segment began */
    }
    uint64_t room = (to - from - rescue->rescued_bytes) / RECORD_BYTES_MIN;
    return count < room ? count : room;
}

static void describe(const struct rescue *rescue, struct check_damage *damage)
{
    if (!rescue->file->out.relocated && rescue->lost > 0 && damage->records_max > 0) {
        damage->epoch = rescue->epoch;
        damage->stream = rescue->stream;
        damage->lsn_first = rescue->lost_first;
        damage->lsn_last = rescue->lost_last;
    }
    if (damage->records_max == 0)
        snprintf(damage->means, sizeof damage->means,
                 "all records behind it prove themselves, %" PRIu64 ": none is lost", rescue->rescued);
    else
        snprintf(damage->means, sizeof damage->means,
                 "acknowledged records are lost; %" PRIu64 " behind the damage prove themselves", rescue->rescued);
}

void check_rescue(struct check *check, struct check_file *file, uint32_t from, uint32_t to, struct check_damage *damage)
{
    const struct scan_result *scan = &file->found.scan;
    struct rescue rescue = {.check = check, .file = file, .epoch = scan->epoch, .stream = scan->stream};
    if (scan->batches > 0) {
        rescue.expected = scan->last_lsn + 1;
        rescue.told = scan->last_lsn;
    }
    if (from < to) {
        check->rescuing = true;
        walk(&rescue, from, to);
        check->rescuing = false;
    }
    if (scan->damaged)
        had(&rescue, scan->proof_lsn);
    if (file->out.role == CHECK_SEALED)
        had(&rescue, file->found.entry.last_lsn);
    damage->records_max = from < to ? count_lost(&rescue, from, to) : 0;
    describe(&rescue, damage);
}
