/*
 * fuzz_recovery_store.h - the data directories that fuzz_recovery damages, and what it knows of them.
 *
 * Two directories are made once, with the engine itself: one left by a crash, with nothing behind its last records, and
 * one left by an orderly stop. In both the first boot has filled more than one segment. Their logs are read back here
 * record by record, so that for every key all its versions are known, in which batch each stands, and which batches
 * prove that it had been durable.
 */
#ifndef KVS_TESTS_FUZZ_RECOVERY_STORE_H
#define KVS_TESTS_FUZZ_RECOVERY_STORE_H

#include "engine/recovery_scan.h"
#include "fuzz_fixup.h"
#include "fuzz_sim.h"
#include "store_fixture.h"

enum { DIR_FILES_MAX = 12, DIR_KEYS = 24, DIR_VERSIONS_MAX = 160, DIR_BATCHES_MAX = 256, DIR_NAME_BYTES = 32 };

struct dir_file {
    char name[DIR_NAME_BYTES];
    uint8_t *bytes;
    uint64_t size;
};

struct dir_batch {
    unsigned file;
    uint32_t offset;
    struct batch_header header;
};

/* What a key was made at one time. */
struct dir_version {
    unsigned key;
    unsigned batch; /* which of the batches */
    uint32_t offset;
    uint64_t lsn;
    bool put;
    struct slice value; /* in the file */
};

struct dir {
    struct dir_file files[DIR_FILES_MAX];
    unsigned file_count;
    struct dir_batch batches[DIR_BATCHES_MAX];
    unsigned batch_count;
    struct dir_version versions[DIR_VERSIONS_MAX];
    unsigned version_count;
    unsigned latest[DIR_KEYS]; /* index of a version */
    unsigned current_file;     /* while it is read */
    struct scan_segment segment;
};

static inline const char *dir_key(unsigned key, char text[16])
{
    snprintf(text, 16, "key:%u", key);
    return text;
}

static inline bool dir_is_segment(const char *name)
{
    return strlen(name) == 10 && strcmp(name + 6, ".seg") == 0;
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

/* Writes `from`..`to` with values of this round; every fifth key is removed instead. */
static inline void dir_write_round(struct store_fixture *fixture, unsigned round, unsigned from, unsigned to)
{
    static uint8_t value[32768];
    for (unsigned key = from; key < to; key++) {
        char text[16];
        const size_t size = (key % 3 == 2) ? 20000 + 300 * round : 20 + 7 * key;
        for (size_t i = 0; i < size; i++)
            value[i] = (uint8_t)(key * 31 + round * 7 + i / 16);
        if (round > 0 && key % 5 == round % 5)
            (void)store_remove_text(fixture, dir_key(key, text));
        else
            FUZZ_CHECK(store_put_slice(fixture, slice_text(dir_key(key, text)), slice_make(value, size)) == KVS_ERR_OK);
    }
}

static inline void dir_save_file(void *context, const char *path)
{
    struct dir *dir = context;
    FUZZ_CHECK(dir->file_count < DIR_FILES_MAX);
    struct dir_file *file = &dir->files[dir->file_count++];
    const char *name = strrchr(path, '/') + 1;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->size = sim_file_size(path);
    file->bytes = aligned_alloc(KVS_BLOCK_BYTES, align_up(file->size + 1, KVS_BLOCK_BYTES));
    FUZZ_CHECK(file->bytes != NULL);
    sim_file_read(path, 0, file->bytes, file->size);
}

static inline void dir_read_record(void *context, const struct record_header *record, uint32_t offset)
{
    struct dir *dir = context;
    FUZZ_CHECK(dir->version_count < DIR_VERSIONS_MAX);
    char text[16];
    unsigned key = 0;
    while (key < DIR_KEYS && !slice_equal(record_key(record), slice_text(dir_key(key, text))))
        key++;
    FUZZ_CHECK(key < DIR_KEYS);
    dir->versions[dir->version_count] = (struct dir_version){.key = key,
                                                             .batch = dir->batch_count - 1,
                                                             .offset = offset,
                                                             .lsn = record->lsn,
                                                             .put = record->kind == RECORD_PUT,
                                                             .value = record_value(record)};
    if (dir->versions[dir->latest[key]].key != key || record->lsn > dir->versions[dir->latest[key]].lsn)
        dir->latest[key] = dir->version_count;
    dir->version_count++;
}

static inline void dir_read_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    struct dir *dir = context;
    FUZZ_CHECK(dir->batch_count < DIR_BATCHES_MAX);
    dir->batches[dir->batch_count++] = (struct dir_batch){dir->current_file, offset, *batch};
    scan_records(&dir->segment, offset, dir_read_record, dir);
}

/* Takes the files as they lie on the disk, and reads them. */
static inline void dir_save(struct dir *dir)
{
    sim_file_each(dir_save_file, dir);
    for (unsigned i = 0; i < dir->file_count; i++) {
        const struct dir_file *file = &dir->files[i];
        if (!dir_is_segment(file->name))
            continue;
        const struct segment_header *header = (const void *)file->bytes;
        struct scan_result result;
        dir->current_file = i;
        dir->segment = (struct scan_segment){.bytes = file->bytes,
                                             .size = file->size,
                                             .seed = segment_seed(header->store_uuid, header->uid),
                                             .epoch = 9};
        scan_batches(&dir->segment, &result, dir_read_batch, dir);
        FUZZ_CHECK(!result.damaged && !result.unknown);
    }
    FUZZ_CHECK(dir->version_count >= 2 * DIR_KEYS);
}

static inline void dir_make(struct dir *crashed, struct dir *stopped)
{
    sim_create(7);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    dir_write_round(&fixture, 0, 0, DIR_KEYS);
    dir_write_round(&fixture, 1, 0, DIR_KEYS);
    store_stop(&fixture);
    options = store_options(2);
    store_boot(&fixture, &options);
    dir_write_round(&fixture, 2, DIR_KEYS / 2, DIR_KEYS);
    store_quiet();
    store_crash(&fixture, SIM_DROP_ALL);
    dir_save(crashed);
    options = store_options(1);
    store_boot(&fixture, &options);
    dir_write_round(&fixture, 3, 4, DIR_KEYS / 3);
    store_stop(&fixture);
    sim_crash(SIM_DROP_ALL);
    dir_save(stopped);
    sim_destroy();
}

#endif
