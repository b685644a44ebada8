/*
 * check_segment.c - one segment file.
 *
 * Happy path: read it whole, compare its header, walk its batches by the rules of recovery_scan.c, take every record
 * into the table of keys, and see that padding is zeros. The role that the manifest gives the file decides what its end
 * means.
 *
 * Failure modes: blocks that the disk does not give are taken for zeros and reported; a header that is damaged is
 * replaced by what the manifest says; from the first thing that is not as it should be on, check_rescue.c takes over.
 */
#include "engine/check_internal.h"

#include "base/assert.h"
#include "base/hash.h"

#include <inttypes.h>

enum { READ_CHUNK_BYTES = 8 * 1024 * 1024 };

/* ---- padding --------------------------------------------------------------------------------------------------- */

/* Padding is written as zeros. No checksum covers it: it may have been torn by a power loss, or changed by the disk. */
static void expect_zeros(struct check *check, uint64_t from, uint64_t to)
{
    uint64_t at = from;
    while (at < to && check->bytes[at] == 0)
        at++;
    if (at == to)
        return;
    char name[CHECK_FILE_BYTES];
    check_file_name(check->current, name);
    struct check_damage *damage = check_damage(check, CHECK_HARMLESS, name, at);
    snprintf(damage->what, sizeof damage->what, "padding (offsets %" PRIu64 " to %" PRIu64 ") is not zero", from,
             to - 1);
    snprintf(damage->means, sizeof damage->means,
             "no record is concerned; a power loss during the write leaves this, or a disk that changes bytes");
}

/* ---- records --------------------------------------------------------------------------------------------------- */

void check_lose(struct check *check, const struct check_key *loser)
{
    if (!loser->put)
        return;
    struct check_file *file = check_file_find(check, address_segment(loser->address, check->shift));
    KVS_ASSERT(file != NULL && file->out.live_puts > 0);
    file->out.live_puts--;
    file->out.live_bytes -= (uint64_t)loser->units * RECORD_ALIGN;
}

static void count_key(struct check *check, const struct record_header *record, uint32_t offset, uint64_t bytes)
{
    struct check_segment *segment = &check->current->out;
    struct slice key = record_key(record);
    uint64_t seed = check->superblock.hash_seed;
    const struct check_key entry = {
        .hash = hash_key(key, seed),
        .check = hash_check(key, seed),
        .lsn = record->lsn,
        .address = address_make(segment->number, offset, check->shift) & INDEX_ADDRESS_MASK,
        .units = (bytes / RECORD_ALIGN) & ((1u << 21) - 1),
        .put = record->kind == RECORD_PUT,
        .expires_ms = record_expires_ms(record),
    };
    struct check_key loser;
    enum check_map_answer answer = check_map_add(&check->map, &entry, &loser);
    if (answer == CHECK_MAP_FULL)
        check->err = KVS_ERR_NO_MEMORY;
    if (answer == CHECK_MAP_COPY)
        check->report.copies++;
    if (answer == CHECK_MAP_NEWER)
        check_lose(check, &loser);
    if (entry.put && (answer == CHECK_MAP_NEW || answer == CHECK_MAP_NEWER)) {
        segment->live_puts++;
        segment->live_bytes += bytes;
    }
}

void check_take_record(struct check *check, const struct record_header *record, uint32_t offset)
{
    struct check_segment *segment = &check->current->out;
    uint64_t bytes = record_size(record);
    segment->puts += record->kind == RECORD_PUT;
    segment->deletes += record->kind == RECORD_DELETE;
    segment->record_bytes += bytes;
    segment->rescued += check->rescuing;
    const bool flushed = record->lsn <= check->superblock.flushed_lsn;
    if (check->options.numbers == NULL && !flushed)
        count_key(check, record, offset, bytes);
    check_note_large(check, record);
    if (check->options.each == NULL)
        return;
    const struct check_record out = {.segment = segment->number,
                                     .offset = offset,
                                     .rescued = check->rescuing,
                                     .put = record->kind == RECORD_PUT,
                                     .lsn = record->lsn,
                                     .expires_ms = record_expires_ms(record),
                                     .key = record_key(record),
                                     .large = record_is_large(record),
                                     .value = record_value(record),
                                     .value_bytes = record_is_large(record) ? record_descriptor(record).value_bytes
                                                                            : record->value_bytes};
    check->options.each(check->options.context, &out);
}

static void take_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct check *check = context;
    check_take_record(check, record, offset);
    uint64_t end = offset + sizeof *record + record->extra_bytes + record->key_bytes + record->value_bytes;
    expect_zeros(check, end, offset + record_size(record));
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

static void take_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct check *check = context;
    const struct scan_segment scan = {.bytes = check->bytes};
    check->current->out.batches++;
    check_add_batch(check, batch, offset);
    scan_records(&scan, offset, take_record, check);
    uint64_t end = (uint64_t)offset + batch->bytes;
    expect_zeros(check, end, align_up(end, KVS_BLOCK_BYTES));
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Block by block, what can be had. Returns how many blocks cannot, and where the first one is. */
static uint64_t read_piecewise(struct check *check, int fd, uint64_t at, uint64_t size, uint64_t *first_bad)
{
    uint64_t bad = 0;
    for (uint64_t end = at + size; at < end; at += KVS_BLOCK_BYTES) {
        uint64_t bytes;
        if (!check_read(check, fd, check->bytes + at, KVS_BLOCK_BYTES, at, &bytes) && bad++ == 0)
            *first_bad = at;
    }
    return bad;
}

static void unreadable(struct check *check, struct check_file *file, const char *name, uint64_t offset, uint64_t blocks)
{
    file->out.damaged = true;
    /* Of a covered segment a start reads the header, and the block behind it. */
    bool unseen = file->covered && offset >= 2 * KVS_BLOCK_BYTES;
    struct check_damage *damage = check_damage(check, unseen ? CHECK_UNSEEN : CHECK_REFUSED, name, offset);
    snprintf(damage->what, sizeof damage->what, "the disk does not give %" PRIu64 " blocks of 4 KiB, this is the first",
             blocks);
    snprintf(damage->means, sizeof damage->means, "they are taken for zeros; what was in them is lost");
}

bool check_load(struct check *check, struct check_file *file, bool quiet)
{
    char name[CHECK_FILE_BYTES];
    check_file_name(file, name);
    struct ring_op op;
    int fd;
    bool direct;
    if (check_open_file(check, name, &fd, &direct, &op) != KVS_ERR_OK) {
        struct check_damage *damage = quiet ? NULL : check_damage(check, CHECK_REFUSED, name, CHECK_UNKNOWN);
        if (damage != NULL) {
            snprintf(damage->what, sizeof damage->what, "cannot open it: %s", ring_op_text(&op));
            damage->records_max = CHECK_UNKNOWN;
        }
        return false;
    }
    uint64_t size = check->superblock.segment_bytes;
    uint64_t got = 0, bad = 0, first_bad = 0;
    for (uint64_t at = 0; at < size; at += READ_CHUNK_BYTES) {
        uint64_t chunk = size - at < READ_CHUNK_BYTES ? size - at : READ_CHUNK_BYTES;
        uint64_t bytes;
        if (check_read(check, fd, check->bytes + at, chunk, at, &bytes)) {
            got += bytes;
        } else {
            uint64_t first = 0;
            uint64_t more = read_piecewise(check, fd, at, chunk, &first);
            first_bad = bad == 0 ? first : first_bad;
            bad += more;
            got += chunk;
        }
        if (!quiet)
            check_progress(check, "checking", check->report.bytes_read, check->progress_total);
    }
    ring_close_fd(check->options.ring, fd);
    if (quiet)
        return true;
    if (bad > 0)
        unreadable(check, file, name, first_bad, bad);
    if (got < size) {
        file->out.damaged = true;
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, got);
        snprintf(damage->what, sizeof damage->what, "the file is cut short: %" PRIu64 " bytes of %" PRIu64, got, size);
        snprintf(damage->means, sizeof damage->means, "what stood behind is lost, if there was anything");
    }
    return true;
}

/* ---- judging --------------------------------------------------------------------------------------------------- */

static void blame_header(struct check *check, struct check_file *file, const char *name, const char *wrong)
{
    const struct segment_header *header = (const void *)check->bytes;
    bool never_used = file->out.role == CHECK_UNLISTED && check->manifest_good && !segment_header_whole(header);
    bool in_use = file->out.role != CHECK_FREE && file->out.role != CHECK_UNFINISHED && !never_used;
    file->out.damaged = in_use;
    struct check_damage *damage = check_damage(check, in_use ? CHECK_REFUSED : CHECK_HARMLESS, name, 0);
    snprintf(damage->what, sizeof damage->what, "%s", wrong);
    if (never_used)
        snprintf(damage->means, sizeof damage->means,
                 "the manifest does not list it: the file of a segment that was being made, or is used no more");
    else if (in_use && file->found.known)
        snprintf(damage->means, sizeof damage->means, "its records are looked for with the help of the manifest");
    else
        snprintf(damage->means, sizeof damage->means, "no record in it can be proven");
    damage->records_max = in_use && !file->found.known ? CHECK_UNKNOWN : 0;
}

/* Checks the header, and settles on the uid that checksums begin with. False: there is none. */
static bool judge_header(struct check *check, struct check_file *file, const char *name)
{
    const struct segment_header *header = (const void *)check->bytes;
    const struct found_segment *found = &file->found;
    const char *wrong =
        segment_header_check(header, check->superblock.uuid, found->number, check->superblock.segment_bytes);
    bool sound = wrong == NULL;
    bool in_use = file->out.role != CHECK_FREE && file->out.role != CHECK_UNFINISHED;
    bool entered = in_use && found->known;
    if (sound && entered && header->uid != found->entry.uid)
        wrong = "it is not the one that the manifest lists, but was written before or after it";
    if (sound && !entered)
        file->uid = header->uid;
    file->out.uid = file->uid;
    if (wrong == NULL && in_use && header->epoch > check->epoch_max)
        check->epoch_max = header->epoch;
    if (wrong != NULL)
        blame_header(check, file, name, wrong);
    if (sound && entered && header->uid > found->entry.uid) {
        /* Used again since: what the manifest says is of its earlier life, whose records do not count any more. */
        file->out.role = CHECK_UNLISTED;
        file->uid = file->out.uid = header->uid;
    }
    return sound || entered;
}

/* Why the batch at the end does not count, and where exactly. */
static uint32_t diagnose(const struct check *check, const struct check_file *file, char *what, size_t size)
{
    const struct scan_result *scan = &file->found.scan;
    uint64_t room = check->superblock.segment_bytes - scan->end;
    const struct batch_header *batch = (const void *)(check->bytes + scan->end);
    if (scan->end >= check->superblock.segment_bytes || !batch_header_valid(batch, file->seed, scan->end, room)) {
        snprintf(what, size, "the batch that should be there has no valid header");
        return scan->end;
    }
    uint32_t at = scan->end + (uint32_t)sizeof *batch;
    uint32_t end = scan->end + batch->bytes;
    while (at < end && record_check(check->bytes + at, end - at, file->seed, at) == RECORD_VALID)
        at += (uint32_t)record_size((const void *)(check->bytes + at));
    if (at < end) {
        snprintf(what, size, "the checksum of the record is wrong, or its lengths are");
        return at;
    }
    snprintf(what, size,
             "a batch that is whole does not follow the one before it: one or more are missing in front of it");
    return scan->end;
}

static void damaged(struct check *check, struct check_file *file, const char *name)
{
    const struct scan_result *scan = &file->found.scan;
    const struct manifest_entry *entry = &file->found.entry;
    bool sealed = file->out.role == CHECK_SEALED;
    char what[128];
    file->out.torn_bytes = 0;
    uint32_t offset = diagnose(check, file, what, sizeof what);
    file->out.damaged = true;
    struct check_damage *damage = check_damage(check, file->covered ? CHECK_UNSEEN : CHECK_REFUSED, name, offset);
    uint32_t to = sealed ? entry->end : (uint32_t)check->superblock.segment_bytes;
    if (sealed && scan->end >= entry->end)
        snprintf(damage->what, sizeof damage->what,
                 "its end is at offset %u with LSN %" PRIu64 ", and the manifest says offset %u with LSN %" PRIu64,
                 scan->end, scan->last_lsn, entry->end, entry->last_lsn);
    else if (sealed)
        snprintf(damage->what, sizeof damage->what, "%s; the segment is sealed, with its end at offset %u", what, to);
    else if (scan->damaged)
        snprintf(damage->what, sizeof damage->what, "%s; the batch at offset %u proves that it was durable", what,
                 scan->proof_offset);
    else
        snprintf(damage->what, sizeof damage->what, "%s; an earlier start has found the end not before offset %u", what,
                 entry->end);
    check_rescue(check, file, scan->end, to, damage);
}

static void unlisted(struct check *check, struct check_file *file, const char *name)
{
    const struct scan_result *scan = &file->found.scan;
    if (!check->manifest_good || file->out.damaged || (scan->batches == 0 && !scan->claim && !scan->damaged))
        return;
    file->out.damaged = true;
    struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what, "it holds records, but the manifest does not list it");
    snprintf(
        damage->means, sizeof damage->means,
        "the manifest is older than the segment, or has lost its latest changes; the records themselves are there");
}

static void judge(struct check *check, struct check_file *file, const char *name)
{
    const struct scan_result *scan = &file->found.scan;
    const struct manifest_entry *entry = &file->found.entry;
    if (scan->unknown) {
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, scan->unknown_offset);
        snprintf(damage->what, sizeof damage->what, "an undamaged record of a kind that this program does not know");
        snprintf(damage->means, sizeof damage->means, "a newer program wrote it; use that one");
    }
    switch (file->out.role) {
    case CHECK_SEALED:
        if (scan->end != entry->end || scan->last_lsn != entry->last_lsn)
            damaged(check, file, name);
        else
            file->out.torn_bytes = 0; /* nothing behind the end counts */
        return;
    case CHECK_LOG:
        if (scan->end < entry->end || scan->damaged)
            damaged(check, file, name);
        return;
    case CHECK_UNLISTED:
        unlisted(check, file, name);
        if (scan->damaged)
            damaged(check, file, name);
        return;
    default:
        return;
    }
}

void check_scan_file(struct check *check, struct check_file *file)
{
    char name[CHECK_FILE_BYTES];
    check_file_name(file, name);
    if (!check_load(check, file, false)) {
        file->out.damaged = true;
        return;
    }
    if (!judge_header(check, file, name))
        return;
    file->seed = segment_seed(check->superblock.uuid, file->uid);
    file->out.read = true;
    const struct scan_segment scan = {.bytes = check->bytes,
                                      .size = check->superblock.segment_bytes,
                                      .seed = file->seed,
                                      .epoch = check->superblock.epoch};
    check->current = file;
    expect_zeros(check, sizeof(struct segment_header), KVS_BLOCK_BYTES);
    scan_batches(&scan, &file->found.scan, take_batch, check);
    file->out.end = file->found.scan.end;
    file->out.torn_bytes = file->found.scan.torn_bytes;
    judge(check, file, name);
    check->current = NULL;
}

bool check_is_newer(struct check *check, const struct check_file *file, bool lost)
{
    char name[CHECK_FILE_BYTES];
    check_file_name(file, name);
    struct ring_op op;
    int fd;
    bool direct;
    if (check_open_file(check, name, &fd, &direct, &op) != KVS_ERR_OK)
        return false;
    enum { HEAD_BYTES = 2 * KVS_BLOCK_BYTES };
    uint64_t bytes;
    (void)check_read(check, fd, check->bytes, HEAD_BYTES, 0, &bytes);
    ring_close_fd(check->options.ring, fd);
    const struct segment_header *header = (const void *)check->bytes;
    if (segment_header_check(header, check->superblock.uuid, file->found.number, check->superblock.segment_bytes) !=
        NULL)
        return false;
    uint32_t seed = segment_seed(check->superblock.uuid, header->uid);
    const struct batch_header *batch = (const void *)(check->bytes + KVS_BLOCK_BYTES);
    uint64_t free_since = check->manifest_good ? check->report.manifest_sequence : file->found.entry.begun_lsn;
    if (!batch_header_valid(batch, seed, KVS_BLOCK_BYTES, check->superblock.segment_bytes - KVS_BLOCK_BYTES))
        return false;
    bool begun_since = lost && header->uid > check->uid_max && (batch->flags & BATCH_RELOCATED) == 0;
    return begun_since || (int32_t)(batch->manifest - (uint32_t)free_since) > 0;
}
