/*
 * survey.c - what a data directory owes to the next boot.
 *
 * Happy path: each segment file is read twice, as it is and as it should be; the batches of the second are listed, with
 * the records' keys; then damage and cover are compared.
 *
 * Failure modes: none of its own. A segment whose header is rotten counts as damaged from end to end.
 */
#include "survey.h"

#include "draw.h"
#include "sim_core.h"
#include "verdict.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "engine/manifest_internal.h"
#include "engine/recovery_scan.h"
#include "engine/run_file.h"
#include "engine/superblock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCHES_MAX 200000u

enum { SURVEY_PATH_BYTES = 256 };

struct found_batch {
    uint32_t segment, offset, bytes;
    uint32_t stream, flags;
    uint64_t epoch, first_lsn, last_lsn, durable_lsn;
    bool damaged, lost;
    bool listed; /* the manifest says that its segment reaches as far */
};

struct surveyor {
    struct survey *survey;
    const struct oracle *oracle;
    const struct fleeting *fleeting;
    const struct counters *counters;
    char path[256]; /* of the file at hand */
    uint8_t *bytes; /* as they should be */
    uint64_t size;
    uint8_t *rotten; /* one flag a byte */
    uint8_t uuid[16];
    bool superblock_read;
    uint32_t segment;
    uint32_t seed;
    bool header_rotten, batch_rotten;
    struct batch_header batch; /* being told */
    struct manifest_entry *entries;
    size_t entry_count;
    const struct manifest_entry *entry; /* of the segment at hand */
    struct found_batch *batches;
    size_t batch_count, batch_room;
};

/* ---- the truth about one file ---------------------------------------------------------------------------------- */

static void heal_bytes(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size)
{
    struct surveyor *surveyor = context;
    if (strcmp(path, surveyor->path) != 0 || offset >= surveyor->size)
        return;
    if (size > surveyor->size - offset)
        size = (size_t)(surveyor->size - offset);
    for (uint64_t at = offset; at < offset + size; at++) {
        if (surveyor->bytes[at] != truth[at - offset])
            surveyor->rotten[at] = 1;
    }
    memcpy(surveyor->bytes + offset, truth, size);
}

/* Of backups nothing is read by a boot; what they share with the store is found there. */
static bool is_of_the_store(const char *path)
{
    static const char dir[] = "/data/";
    return strncmp(path, dir, strlen(dir)) == 0 && strchr(path + strlen(dir), '/') == NULL;
}

static void load(struct surveyor *surveyor, const char *path)
{
    snprintf(surveyor->path, sizeof(surveyor->path), "%s", path);
    surveyor->size = sim_file_size(path);
    surveyor->bytes = malloc(surveyor->size + 1);
    surveyor->rotten = calloc(surveyor->size + 1, 1);
    KVS_ASSERT(surveyor->bytes != NULL && surveyor->rotten != NULL);
    sim_file_read(path, 0, surveyor->bytes, surveyor->size);
    sim_rot_each(heal_bytes, surveyor);
}

static void unload(struct surveyor *surveyor)
{
    free(surveyor->bytes);
    free(surveyor->rotten);
}

static bool rotten_within(const struct surveyor *surveyor, uint64_t begin, uint64_t end)
{
    return begin < surveyor->size &&
           memchr(surveyor->rotten + begin, 1, (end < surveyor->size ? end : surveyor->size) - begin) != NULL;
}

/* ---- the manifest ---------------------------------------------------------------------------------------------- */

/* `hidden`: by damage, so that no boot learns from it how far the segment reaches. */
static void set_entry(struct surveyor *surveyor, const struct manifest_entry *entry, bool hidden)
{
    for (size_t i = 0; i < surveyor->entry_count; i++) {
        struct manifest_entry *known = &surveyor->entries[i];
        if (known->number == entry->number) {
            const uint32_t end = known->uid == entry->uid ? known->end : 0;
            *known = *entry;
            known->end = hidden ? end : entry->end;
            return;
        }
    }
    surveyor->entries = realloc(surveyor->entries, (surveyor->entry_count + 1) * sizeof(*surveyor->entries));
    KVS_ASSERT(surveyor->entries != NULL);
    surveyor->entries[surveyor->entry_count] = *entry;
    if (hidden)
        surveyor->entries[surveyor->entry_count].end = 0;
    surveyor->entry_count++;
}

/* The entries as the undamaged manifest has them. What stands behind damage is as good as torn to a boot: it refuses if
 * a batch proves that it had been durable, and else goes by what stands before. */
static void read_manifest(void *context, const char *path)
{
    struct surveyor *surveyor = context;
    if (!is_of_the_store(path) || strcmp(strrchr(path, '/') + 1, MANIFEST_NAME) != 0)
        return;
    load(surveyor, path);
    uint32_t seed = crc32c(0, surveyor->uuid, sizeof(surveyor->uuid));
    uint64_t first_sequence = 0;
    for (uint64_t at = 0; at + KVS_BLOCK_BYTES <= surveyor->size; at += KVS_BLOCK_BYTES) {
        struct manifest_block head;
        memcpy(&head, surveyor->bytes + at, sizeof(head));
        if (head.magic != MANIFEST_MAGIC || head.crc != manifest_block_crc(seed, surveyor->bytes + at))
            break;
        if (at == 0)
            first_sequence = head.sequence;
        if (head.sequence != first_sequence + at / KVS_BLOCK_BYTES)
            break;
        for (uint32_t i = 0; i < head.count; i++) {
            struct manifest_entry entry;
            memcpy(&entry, surveyor->bytes + at + sizeof(head) + i * sizeof(entry), sizeof(entry));
            set_entry(surveyor, &entry, rotten_within(surveyor, 0, at + KVS_BLOCK_BYTES));
        }
    }
    surveyor->survey->may_refuse = surveyor->survey->may_refuse || rotten_within(surveyor, 0, surveyor->size);
    unload(surveyor);
}

/* What the manifest says of a segment; NULL when nothing of it counts. */
static const struct manifest_entry *entry_of(const struct surveyor *surveyor, uint32_t number)
{
    for (size_t i = 0; i < surveyor->entry_count; i++) {
        const struct manifest_entry *entry = &surveyor->entries[i];
        bool log = entry->state == MANIFEST_LIVE && entry->kind == SEGMENT_LOG;
        if (entry->number == number && (log || entry->state == MANIFEST_SEALED))
            return entry;
    }
    return NULL;
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

static struct scan_segment scan_of(const struct surveyor *surveyor)
{
    return (struct scan_segment){
        .bytes = surveyor->bytes, .size = surveyor->size, .seed = surveyor->seed, .epoch = UINT64_MAX};
}

static void look_at_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct surveyor *surveyor = context;
    uint64_t end = (uint64_t)offset + sizeof(*record) + record->extra_bytes + record->key_bytes + record->value_bytes;
    surveyor->batch_rotten = surveyor->batch_rotten || rotten_within(surveyor, offset, end);
}

/* Whether rot touches anything of it that is checked: the padding behind a record is not. */
static bool is_rotten(struct surveyor *surveyor, uint32_t offset)
{
    struct scan_segment segment = scan_of(surveyor);
    surveyor->batch_rotten = rotten_within(surveyor, offset, offset + sizeof(struct batch_header));
    scan_records(&segment, offset, look_at_record, surveyor);
    return surveyor->batch_rotten;
}

static void list_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct surveyor *surveyor = context;
    KVS_ASSERT(surveyor->batch_count < BATCHES_MAX);
    if (surveyor->batch_count == surveyor->batch_room) {
        surveyor->batch_room = surveyor->batch_room > 0 ? 2 * surveyor->batch_room : 256;
        surveyor->batches = realloc(surveyor->batches, surveyor->batch_room * sizeof(*surveyor->batches));
        KVS_ASSERT(surveyor->batches != NULL);
    }
    bool damaged = surveyor->header_rotten || is_rotten(surveyor, offset);
    surveyor->batches[surveyor->batch_count++] = (struct found_batch){
        .segment = surveyor->segment,
        .offset = offset,
        .bytes = batch->bytes,
        .stream = batch->stream,
        .flags = batch->flags,
        .epoch = batch->epoch,
        .first_lsn = batch->first_lsn,
        .last_lsn = batch->record_count > 0 ? batch->first_lsn + batch->record_count - 1 : batch->first_lsn - 1,
        .durable_lsn = batch->durable_lsn,
        .damaged = damaged,
        .listed = offset < surveyor->entry->end,
    };
    surveyor->survey->may_refuse = surveyor->survey->may_refuse || damaged;
}

static bool load_segment(struct surveyor *surveyor, const char *path)
{
    struct segment_header header;
    unsigned number;
    int length = 0;
    const char *name = strrchr(path, '/') + 1;
    if (!is_of_the_store(path) || sscanf(name, "%u.seg%n", &number, &length) != 1 || name[length] != '\0')
        return false;
    surveyor->entry = entry_of(surveyor, number);
    if (surveyor->entry == NULL)
        return false;
    load(surveyor, path);
    bool valid = surveyor->size >= sizeof(header);
    if (valid) {
        memcpy(&header, surveyor->bytes, sizeof(header));
        valid = segment_header_check(&header, surveyor->uuid, number, surveyor->size) == NULL;
    }
    if (!valid) {
        unload(surveyor);
        return false;
    }
    surveyor->segment = number;
    surveyor->seed = segment_seed(surveyor->uuid, header.uid);
    surveyor->header_rotten = rotten_within(surveyor, 0, sizeof(header));
    surveyor->survey->may_refuse = surveyor->survey->may_refuse || surveyor->header_rotten;
    return true;
}

static void list_segment(void *context, const char *path)
{
    struct surveyor *surveyor = context;
    if (!load_segment(surveyor, path))
        return;
    struct scan_segment segment = scan_of(surveyor);
    struct scan_result result;
    scan_batches(&segment, &result, list_batch, surveyor);
    unload(surveyor);
}

/* What the copy that a boot chooses says of flushes. */
static uint64_t flushed_lsn_in(const uint8_t *bytes, uint64_t size)
{
    struct superblock copy, chosen = {0};
    for (uint64_t at = 0; at + sizeof(copy) <= size; at += KVS_BLOCK_BYTES) {
        memcpy(&copy, bytes + at, sizeof(copy));
        if (superblock_valid(&copy) && copy.sequence > chosen.sequence)
            chosen = copy;
    }
    return chosen.version == SUPERBLOCK_VERSION_FLUSHED ? chosen.flushed_lsn : 0;
}

static void look_for_lost_flush(const struct surveyor *surveyor, const char *path)
{
    uint8_t *found = malloc(surveyor->size + 1);
    KVS_ASSERT(found != NULL);
    sim_file_read(path, 0, found, surveyor->size);
    surveyor->survey->flush_lost =
        flushed_lsn_in(found, surveyor->size) < flushed_lsn_in(surveyor->bytes, surveyor->size);
    free(found);
}

static void read_superblock(void *context, const char *path)
{
    struct surveyor *surveyor = context;
    struct superblock copy;
    if (!is_of_the_store(path) || strcmp(strrchr(path, '/') + 1, SUPERBLOCK_NAME) != 0)
        return;
    load(surveyor, path);
    for (uint64_t at = 0; at + sizeof(copy) <= surveyor->size; at += KVS_BLOCK_BYTES) {
        memcpy(&copy, surveyor->bytes + at, sizeof(copy));
        if (superblock_valid(&copy)) {
            memcpy(surveyor->uuid, copy.uuid, sizeof(copy.uuid));
            surveyor->superblock_read = true;
        }
        surveyor->survey->may_refuse = surveyor->survey->may_refuse || rotten_within(surveyor, at, at + sizeof(copy));
    }
    look_for_lost_flush(surveyor, path);
    unload(surveyor);
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

static unsigned key_of(const struct surveyor *surveyor, const struct record_header *record)
{
    unsigned key;
    if (fleeting_named(surveyor->fleeting, record_key(record), &key))
        return oracle_keys(surveyor->oracle) + key;
    if (counters_named(surveyor->counters, record_key(record), &key))
        return oracle_keys(surveyor->oracle) + fleeting_keys(surveyor->fleeting) + key;
    return oracle_key_named(surveyor->oracle, record_key(record));
}

static void tell_record(void *context, const struct record_header *record, uint32_t offset)
{
    const struct surveyor *surveyor = context;
    if (oracle_is_watched(key_of(surveyor, record)))
        story("  segment %u, offset %u: %s, LSN %llu, stream %u of boot %llu", surveyor->segment, offset,
              record->kind == RECORD_PUT ? "put" : "delete", (unsigned long long)record->lsn, surveyor->batch.stream,
              (unsigned long long)surveyor->batch.epoch);
}

static void tell_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct surveyor *surveyor = context;
    struct scan_segment segment = scan_of(surveyor);
    surveyor->batch = *batch;
    scan_records(&segment, offset, tell_record, surveyor);
}

static void tell_segment(void *context, const char *path)
{
    struct surveyor *surveyor = context;
    if (!load_segment(surveyor, path))
        return;
    struct scan_segment segment = scan_of(surveyor);
    struct scan_result result;
    scan_batches(&segment, &result, tell_batch, surveyor);
    unload(surveyor);
}

void survey_tell(const struct oracle *oracle, const struct fleeting *fleeting, const struct counters *counters)
{
    struct survey survey = {0};
    struct surveyor surveyor = {.survey = &survey, .oracle = oracle, .fleeting = fleeting, .counters = counters};
    story("records of the watched key on the disk:");
    sim_file_each(read_superblock, &surveyor);
    if (surveyor.superblock_read) {
        sim_file_each(read_manifest, &surveyor);
        sim_file_each(tell_segment, &surveyor);
    }
    free(surveyor.entries);
}

/* ---- judging --------------------------------------------------------------------------------------------------- */

/* An undamaged batch that proves that this one had been durable, or NULL. */
static const struct found_batch *cover_of(const struct surveyor *surveyor, const struct found_batch *batch)
{
    for (size_t i = 0; i < surveyor->batch_count; i++) {
        const struct found_batch *other = &surveyor->batches[i];
        if (other->damaged)
            continue;
        if (other->stream == batch->stream && other->epoch == batch->epoch && other->durable_lsn >= batch->last_lsn &&
            other->first_lsn > batch->last_lsn)
            return other;
        if (other->segment == batch->segment && other->offset > batch->offset && (other->flags & BATCH_BOOT) != 0)
            return other;
    }
    return NULL;
}

static void lose(struct surveyor *surveyor, const struct found_batch *from)
{
    for (size_t i = 0; i < surveyor->batch_count; i++) {
        struct found_batch *other = &surveyor->batches[i];
        bool behind = other->segment == from->segment && other->offset >= from->offset;
        bool after = other->stream == from->stream && other->first_lsn >= from->first_lsn;
        if ((behind || after) && !other->lost) {
            other->lost = true;
            surveyor->survey->batches_lost++;
        }
    }
}

static void judge_batches(struct surveyor *surveyor)
{
    struct survey *survey = surveyor->survey;
    for (size_t i = 0; i < surveyor->batch_count; i++) {
        const struct found_batch *batch = &surveyor->batches[i];
        if (!batch->damaged)
            continue;
        bool empty = batch->last_lsn < batch->first_lsn;
        const struct found_batch *cover = empty ? NULL : cover_of(surveyor, batch);
        if (batch->listed && !survey->must_refuse) {
            survey->must_refuse = true;
            snprintf(survey->place, sizeof(survey->place), "segment %u, offset %u, which the manifest lists",
                     batch->segment, batch->offset);
        }
        if (cover != NULL && !survey->must_refuse) {
            survey->must_refuse = true;
            snprintf(survey->place, sizeof(survey->place),
                     "segment %u, offset %u, LSN %llu..%llu of stream %u, proven by segment %u, offset %u",
                     batch->segment, batch->offset, (unsigned long long)batch->first_lsn,
                     (unsigned long long)batch->last_lsn, batch->stream, cover->segment, cover->offset);
        }
        lose(surveyor, batch);
    }
}

static void note_key(void *context, const struct record_header *record, uint32_t offset)
{
    struct surveyor *surveyor = context;
    struct survey *survey = surveyor->survey;
    (void)offset;
    survey->keys = realloc(survey->keys, (survey->key_count + 1) * sizeof(*survey->keys));
    KVS_ASSERT(survey->keys != NULL);
    survey->keys[survey->key_count++] = key_of(surveyor, record);
}

static void list_lost_keys(void *context, const char *path)
{
    struct surveyor *surveyor = context;
    if (!load_segment(surveyor, path))
        return;
    struct scan_segment segment = scan_of(surveyor);
    for (size_t i = 0; i < surveyor->batch_count; i++) {
        const struct found_batch *batch = &surveyor->batches[i];
        if (batch->lost && batch->segment == surveyor->segment)
            scan_records(&segment, batch->offset, note_key, surveyor);
    }
    unload(surveyor);
}

static void count_place(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size)
{
    struct survey *survey = context;
    (void)truth;
    if (!is_of_the_store(path))
        return;
    survey->rotten_places++;
    story("rot in %s at %llu, %zu bytes", path, (unsigned long long)offset, size);
}

void survey_take(struct survey *survey, const struct oracle *oracle, const struct fleeting *fleeting,
                 const struct counters *counters)
{
    *survey = (struct survey){0};
    sim_rot_each(count_place, survey);
    if (survey->rotten_places == 0)
        return;
    struct surveyor surveyor = {.survey = survey, .oracle = oracle, .fleeting = fleeting, .counters = counters};
    sim_file_each(read_superblock, &surveyor);
    if (surveyor.superblock_read) {
        sim_file_each(read_manifest, &surveyor);
        sim_file_each(list_segment, &surveyor);
    }
    judge_batches(&surveyor);
    if (survey->batches_lost > 0)
        sim_file_each(list_lost_keys, &surveyor);
    free(surveyor.batches);
    free(surveyor.entries);
    story("survey: %u rotten places, %s%s, %u batches and %u records may be lost%s", survey->rotten_places,
          survey->must_refuse  ? "must refuse: "
          : survey->may_refuse ? "may refuse"
                               : "harmless",
          survey->place, survey->batches_lost, survey->key_count, survey->flush_lost ? ", a flush is" : "");
}

void survey_free(struct survey *survey)
{
    free(survey->keys);
    *survey = (struct survey){0};
}

static void find_run(void *context, const char *path)
{
    char *found = context;
    uint64_t sequence;
    bool unfinished;
    if (run_name_parse(strrchr(path, '/') + 1, &sequence, &unfinished))
        snprintf(found, SURVEY_PATH_BYTES, "%s", path);
}

void survey_remove_runs(void)
{
    for (;;) {
        char path[SURVEY_PATH_BYTES] = "";
        sim_file_each(find_run, path);
        if (path[0] == '\0')
            return;
        story("without %s", path);
        sim_file_remove(path);
    }
}

/* ---- rotting --------------------------------------------------------------------------------------------------- */

struct chosen_file {
    uint64_t seed;
    unsigned seen;
    char path[SURVEY_PATH_BYTES];
};

static void choose_file(void *context, const char *path)
{
    struct chosen_file *chosen = context;
    if (!is_of_the_store(path))
        return;
    const char *dot = strrchr(path, '.');
    bool segment = dot != NULL && (strcmp(dot, ".seg") == 0 || strcmp(dot, ".run") == 0);
    if (!segment && strstr(path, SUPERBLOCK_NAME) == NULL && strstr(path, MANIFEST_NAME) == NULL)
        return;
    if (sim_file_size(path) > 0 && draw_next(&chosen->seed) % ++chosen->seen == 0)
        snprintf(chosen->path, sizeof(chosen->path), "%s", path);
}

/* An offset that holds something: most of a segment is zeros. */
static uint64_t choose_offset(const char *path, uint64_t *seed)
{
    uint64_t size = sim_file_size(path), offset = 0;
    for (unsigned tries = 0; tries < 20; tries++) {
        uint8_t byte;
        offset = draw_next(seed) % size;
        /* The first bytes of blocks are headers: worth more than their share. */
        if (draw_next(seed) % 3 == 0)
            offset = offset / KVS_BLOCK_BYTES * KVS_BLOCK_BYTES + draw_next(seed) % 128;
        if (offset >= size)
            continue;
        sim_file_read(path, offset, &byte, 1);
        if (byte != 0)
            break;
    }
    return offset < size ? offset : size - 1;
}

void survey_rot(unsigned bits, uint64_t seed)
{
    for (unsigned i = 0; i < bits; i++) {
        struct chosen_file chosen = {.seed = draw_next(&seed)};
        uint8_t byte;
        sim_file_each(choose_file, &chosen);
        if (chosen.seen == 0)
            return;
        uint64_t offset = choose_offset(chosen.path, &seed);
        sim_file_read(chosen.path, offset, &byte, 1);
        byte = (uint8_t)(byte ^ 1u << draw_next(&seed) % 8);
        sim_rot_add(chosen.path, offset, &byte, 1);
        story("bit rot in %s at %llu", chosen.path, (unsigned long long)offset);
    }
}
