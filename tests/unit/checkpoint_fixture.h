/*
 * checkpoint_fixture.h - for tests of the runs of a store: what a start that trusts them would find on the disk, held
 * against what the segments say, and what the runs that are in use say of every live key.
 *
 * The rule of a start is applied anew here: an entry counts while its segment is in use and has the uid that the run
 * lists; of several runs that list a segment, the one that covers most of it, or the latest, is taken; a sealed segment
 * is covered if all of it is; and whatever is not covered is read.
 */
#ifndef KVS_TESTS_CHECKPOINT_FIXTURE_H
#define KVS_TESTS_CHECKPOINT_FIXTURE_H

#include "engine/checkpoint_internal.h"
#include "engine/recovery_scan.h"
#include "segments_fixture.h"

enum { DISK_RUNS_MAX = 256, DISK_SEGMENTS_MAX = 1024 };

struct disk_entries {
    struct run_entry *at;
    size_t count, capacity;
};

struct disk_segment {
    bool used; /* listed by the manifest, and to be read */
    bool sealed;
    uint64_t uid;
    uint32_t end;
    int run;          /* in `runs` that covers it; -1: none */
    uint32_t covered; /* up to here */
};

/* A data directory that no node uses. */
struct disk {
    struct superblock superblock;
    struct ring *ring;
    int dir_fd;
    struct manifest *manifest;
    struct run *runs[DISK_RUNS_MAX];
    unsigned run_count;
    unsigned unfinished; /* files of the suffix ".new" */
    struct disk_segment segments[DISK_SEGMENTS_MAX];
    struct disk_entries expected,
        found;        /* the newest of every key: by the segments; by the runs, and what they leave */
    uint64_t scanned; /* bytes that had to be read beside the runs */
};

static inline void disk_add(struct disk_entries *entries, const struct run_entry *entry)
{
    if (entries->count == entries->capacity) {
        entries->capacity = entries->capacity == 0 ? 1024 : 2 * entries->capacity;
        entries->at = realloc(entries->at, entries->capacity * sizeof *entries->at);
        assert_non_null(entries->at);
    }
    entries->at[entries->count++] = *entry;
}

/* Leaves the newest of each key. */
static inline void disk_newest(struct disk_entries *entries)
{
    size_t kept = 0;
    if (entries->count > 0)
        run_sort(entries->at, entries->count);
    for (size_t i = 0; i < entries->count; i++) {
        if (i + 1 == entries->count || run_entry_key(&entries->at[i]) != run_entry_key(&entries->at[i + 1]))
            entries->at[kept++] = entries->at[i];
    }
    entries->count = kept;
}

/* All entries of a run; the ring is turned. */
static inline void disk_read_run(struct ring *ring, const struct run *run, struct disk_entries *out)
{
    const struct run_reader_options options = {.run = run, .ring = ring, .range = RUN_RANGE_ALL};
    struct run_reader *reader;
    assert_int_equal(run_reader_open(&reader, &options), KVS_ERR_OK);
    for (;;) {
        struct run_span span;
        const enum kvs_err err = run_reader_next(reader, &span);
        if (err == KVS_ERR_AGAIN) {
            ring_turn(ring, -1);
            continue;
        }
        if (err != KVS_ERR_OK)
            fail_msg("%s", run_reader_failure_text(reader));
        if (span.at == span.end)
            break;
        for (; span.at < span.end; span.at++)
            disk_add(out, span.at);
    }
    run_reader_close(reader);
    assert_int_equal(out->count, run->entry_count);
}

/* ---- what there is --------------------------------------------------------------------------------------------- */

static inline void disk_take_file(void *context, const char *path)
{
    struct disk *disk = context;
    uint64_t sequence;
    bool unfinished;
    if (strncmp(path, "/data/", 6) != 0 || !run_name_parse(path + 6, &sequence, &unfinished))
        return;
    disk->unfinished += unfinished;
    if (unfinished)
        return;
    const struct run_open_options options = {.ring = disk->ring,
                                             .dir_fd = disk->dir_fd,
                                             .dir_name = "/data",
                                             .store_uuid = disk->superblock.uuid,
                                             .sequence = sequence,
                                             .direct = true};
    char message[ENGINE_MESSAGE_BYTES];
    assert_true(disk->run_count < DISK_RUNS_MAX);
    if (run_open(&disk->runs[disk->run_count], &options, message) != KVS_ERR_OK)
        fail_msg("%s is not whole: %s", path, message);
    disk->run_count++;
}

static inline void disk_take_entry(void *context, const struct manifest_entry *entry)
{
    struct disk *disk = context;
    assert_true(entry->number < DISK_SEGMENTS_MAX);
    const bool sealed = entry->state == MANIFEST_SEALED;
    disk->segments[entry->number] = (struct disk_segment){
        .used = sealed || (entry->state == MANIFEST_LIVE && entry->kind == SEGMENT_LOG),
        .sealed = sealed,
        .uid = entry->uid,
        .end = entry->end,
        .run = -1,
    };
}

/* Which run covers what. */
static inline void disk_match(struct disk *disk)
{
    for (unsigned i = 0; i < disk->run_count; i++) {
        const struct run *run = disk->runs[i];
        for (uint32_t s = 0; s < run->segment_count; s++) {
            const struct run_segment *listed = &run->segments[s];
            struct disk_segment *segment = &disk->segments[listed->number];
            if (!segment->used || segment->uid != listed->uid || (segment->sealed && segment->end != listed->end) ||
                listed->end < segment->covered ||
                (listed->end == segment->covered && disk->runs[segment->run]->sequence > run->sequence))
                continue;
            segment->run = (int)i;
            segment->covered = listed->end;
        }
    }
}

/* ---- what it says ---------------------------------------------------------------------------------------------- */

struct disk_scan {
    struct disk *disk;
    struct scan_segment scan;
    struct run_collector collector;
    struct run_segment figures;
    uint32_t covered;
};

static inline void disk_scan_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct disk_scan *scan = context;
    struct run_segment *figures = &scan->figures;
    const uint64_t bytes = record_size(record);
    scan->collector.count = 0;
    assert_int_equal(run_collect(&scan->collector, record, offset), KVS_ERR_OK);
    disk_add(&scan->disk->expected, scan->collector.entries);
    if (offset >= scan->covered) {
        disk_add(&scan->disk->found, scan->collector.entries);
        return;
    }
    figures->record_bytes += (uint32_t)bytes;
    figures->record_bytes_max = bytes > figures->record_bytes_max ? (uint32_t)bytes : figures->record_bytes_max;
    if (record->kind == RECORD_PUT) {
        figures->puts++;
        figures->put_units += segment_units(record_class(bytes));
    } else {
        if (figures->deletes++ == 0 || record->lsn < figures->deletes_min_lsn)
            figures->deletes_min_lsn = record->lsn;
        figures->deletes_last_lsn = record->lsn > figures->deletes_last_lsn ? record->lsn : figures->deletes_last_lsn;
    }
}

static inline void disk_scan_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    (void)batch;
    struct disk_scan *scan = context;
    scan_records(&scan->scan, offset, disk_scan_record, scan);
}

static inline void disk_scan_segment(struct disk *disk, uint32_t number)
{
    struct disk_segment *segment = &disk->segments[number];
    const uint64_t size = disk->superblock.segment_bytes;
    uint8_t *bytes = aligned_alloc(KVS_BLOCK_BYTES, size);
    char path[64];
    store_segment_path(path, number);
    sim_file_read(path, 0, bytes, size);
    struct disk_scan scan = {.disk = disk, .covered = segment->covered};
    scan.scan = (struct scan_segment){
        .bytes = bytes, .size = size, .seed = segment_seed(disk->superblock.uuid, segment->uid), .epoch = UINT64_MAX};
    scan.collector = (struct run_collector){
        .hash_seed = disk->superblock.hash_seed, .segment = number, .shift = (unsigned)__builtin_ctzll(size)};
    struct scan_result result;
    scan_batches(&scan.scan, &result, disk_scan_batch, &scan);
    assert_true(!segment->sealed || result.end == segment->end);
    assert_true(segment->covered <= result.end);
    disk->scanned += result.end - (segment->covered == 0 ? KVS_BLOCK_BYTES : segment->covered);
    if (segment->run >= 0) {
        scan.figures.number = number;
        scan.figures.uid = segment->uid;
        scan.figures.end = segment->covered;
        const struct run_segment *listed = run_segment_find(disk->runs[segment->run], number);
        assert_memory_equal(listed, &scan.figures, sizeof scan.figures);
    }
    free(scan.collector.entries);
    free(bytes);
}

static inline void disk_take_run(struct disk *disk, unsigned i)
{
    struct disk_entries all = {0};
    disk_read_run(disk->ring, disk->runs[i], &all);
    for (size_t e = 0; e < all.count; e++) {
        const uint32_t number =
            address_segment(run_entry_address(&all.at[e]), (unsigned)__builtin_ctzll(disk->superblock.segment_bytes));
        if (number < DISK_SEGMENTS_MAX && disk->segments[number].run == (int)i)
            disk_add(&disk->found, &all.at[e]);
    }
    free(all.at);
}

static inline void disk_compare(const struct disk *disk)
{
    for (size_t i = 0; i < disk->expected.count && i < disk->found.count; i++) {
        const struct run_entry *expected = &disk->expected.at[i], *found = &disk->found.at[i];
        if (run_entry_key(expected) != run_entry_key(found) || expected->lsn != found->lsn ||
            run_entry_is_delete(expected) != run_entry_is_delete(found))
            fail_msg("entry %zu: by the segments order %llx, LSN %llu; by the runs order %llx, LSN %llu", i,
                     (unsigned long long)expected->order, (unsigned long long)expected->lsn,
                     (unsigned long long)found->order, (unsigned long long)found->lsn);
    }
    assert_int_equal(disk->found.count, disk->expected.count);
}

/* To be taken before a crash or a stop. */
static inline struct superblock disk_superblock(const struct store_fixture *fixture)
{
    return segments_store(fixture)->base.superblock;
}

/* After a crash or a stop of this store, and before the next boot: whatever runs there are tell what the segments do.
 */
static inline void disk_open(struct disk *disk, const struct superblock *superblock)
{
    memset(disk, 0, sizeof *disk);
    disk->superblock = *superblock;
    char message[ENGINE_MESSAGE_BYTES];
    const struct ring_options ring_options = {.entries = 64};
    assert_int_equal(ring_open(&disk->ring, &ring_options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(disk->ring, "/data", &disk->dir_fd), KVS_ERR_OK);
    const struct manifest_options options = {.ring = disk->ring,
                                             .dir_fd = disk->dir_fd,
                                             .dir_name = "/data",
                                             .store_uuid = disk->superblock.uuid,
                                             .direct = true,
                                             .read_only = true};
    if (manifest_open(&disk->manifest, &options, message) != KVS_ERR_OK)
        fail_msg("%s", message);
    manifest_each(disk->manifest, disk_take_entry, disk);
    sim_file_each(disk_take_file, disk);
    disk_match(disk);
    for (uint32_t number = 0; number < DISK_SEGMENTS_MAX; number++) {
        if (disk->segments[number].used)
            disk_scan_segment(disk, number);
    }
    for (unsigned i = 0; i < disk->run_count; i++)
        disk_take_run(disk, i);
    disk_newest(&disk->expected);
    disk_newest(&disk->found);
    disk_compare(disk);
}

static inline unsigned disk_covered(const struct disk *disk)
{
    unsigned count = 0;
    for (uint32_t number = 0; number < DISK_SEGMENTS_MAX; number++)
        count += disk->segments[number].used && disk->segments[number].run >= 0;
    return count;
}

static inline void disk_close(struct disk *disk)
{
    for (unsigned i = 0; i < disk->run_count; i++)
        run_close(disk->runs[i], disk->ring);
    manifest_close(disk->manifest, disk->ring);
    ring_close_fd(disk->ring, disk->dir_fd);
    ring_close(disk->ring);
    free(disk->expected.at);
    free(disk->found.at);
}

static inline void disk_check(const struct superblock *superblock)
{
    static struct disk disk;
    disk_open(&disk, superblock);
    disk_close(&disk);
}

/* A power loss, or a kill; then the machine is gone. */
static inline void disk_crash_and_check(struct store_fixture *fixture, enum sim_crash_mode mode)
{
    const struct superblock superblock = disk_superblock(fixture);
    store_crash(fixture, mode);
    disk_check(&superblock);
    sim_destroy();
}

/* An orderly stop; then the machine is gone. */
static inline void disk_stop_and_check(struct store_fixture *fixture)
{
    const struct superblock superblock = disk_superblock(fixture);
    store_stop(fixture);
    disk_check(&superblock);
    sim_destroy();
}

struct run_files {
    unsigned runs, unfinished;
    uint64_t bytes;
};

static inline void run_files_count(void *context, const char *path)
{
    struct run_files *files = context;
    uint64_t sequence;
    bool unfinished;
    if (!run_name_parse(path + strlen("/data/"), &sequence, &unfinished))
        return;
    files->runs += !unfinished;
    files->unfinished += unfinished;
    files->bytes += sim_file_size(path);
}

/* What lies in the directory. */
static inline struct run_files run_files(void)
{
    struct run_files files = {0};
    sim_file_each(run_files_count, &files);
    return files;
}

/* ---- what a running store relies on ---------------------------------------------------------------------------- */

static inline struct checkpoint *checkpoint_of(const struct store_fixture *fixture)
{
    return segments_keeper(fixture)->checkpoint;
}

/* Has it look now whether there is something to do. */
static inline void checkpoint_begin(struct store_fixture *fixture)
{
    checkpoint_of(fixture)->due = true;
    engine_background_turn(fixture->background);
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
}

static inline struct checkpoint_stats checkpoint_figures(const struct store_fixture *fixture)
{
    struct checkpoint_stats stats;
    checkpoint_stats(checkpoint_of(fixture), &stats);
    return stats;
}

static inline unsigned checkpoint_uncovered(const struct store_fixture *fixture)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < atomic_load(&segments_store(fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        count += segment != NULL && segment_state(segment) == SEGMENT_SEALED && segment->run == 0;
    }
    return count;
}

/* Every record of the keys 0..keys-1 that the index points at, in a segment that a run covers, is in that run. When
 * nothing is under way. */
static inline void checkpoint_check(const struct store_fixture *fixture, unsigned keys)
{
    const struct store *store = segments_store(fixture);
    const struct checkpoint *checkpoint = checkpoint_of(fixture);
    for (size_t r = 0; r < checkpoint->run_count; r++) {
        const struct run *run = checkpoint->runs[r].run;
        struct disk_entries entries = {0};
        if (run == NULL)
            continue;
        disk_read_run(fixture->main_ring, run, &entries);
        for (unsigned i = 0; i < keys; i++) {
            uint64_t places[8];
            const unsigned count = segments_places(fixture, i, places);
            for (unsigned p = 0; p < count; p++) {
                const struct segment *segment = segments_at(fixture, address_segment(places[p], store->segments.shift));
                if (segment->run != run->sequence)
                    continue;
                const struct run_segment *listed = run_segment_find(run, segment->number);
                assert_true(listed != NULL && listed->uid == segment->uid);
                if (address_offset(places[p], store->segments.shift) >= listed->end)
                    continue;
                bool found = false;
                for (size_t e = 0; e < entries.count && !found; e++)
                    found = run_entry_address(&entries.at[e]) == places[p];
                if (!found)
                    fail_msg("run %llu does not list key %u", (unsigned long long)run->sequence, i);
            }
        }
        free(entries.at);
    }
}

#endif
