/*
 * check_fixture.h - the checker on the simulated machine: a check of /data that must leave every file as it was, and
 * directories that are kept in memory, to be damaged in many ways and put back.
 */
#ifndef KVS_TESTS_CHECK_FIXTURE_H
#define KVS_TESTS_CHECK_FIXTURE_H

#include "engine/check.h"
#include "engine/manifest.h"
#include "engine/superblock.h"
#include "segments_fixture.h"

enum { KEPT_FILES_MAX = 256 };

/* Files as they lay on the disk. */
struct kept_files {
    struct kept_file {
        char path[64];
        uint8_t *bytes;
        uint64_t size;
    } files[KEPT_FILES_MAX];
    unsigned count;
};

static inline void kept_take(void *context, const char *path)
{
    struct kept_files *kept = context;
    if (strncmp(path, "/data/", 6) != 0)
        return;
    assert_true(kept->count < KEPT_FILES_MAX);
    struct kept_file *file = &kept->files[kept->count++];
    snprintf(file->path, sizeof file->path, "%s", path);
    file->size = sim_file_size(path);
    file->bytes = malloc(file->size + 1);
    assert_non_null(file->bytes);
    sim_file_read(path, 0, file->bytes, file->size);
}

static inline void kept_save(struct kept_files *kept)
{
    kept->count = 0;
    sim_file_each(kept_take, kept);
}

static inline void kept_free(struct kept_files *kept)
{
    for (unsigned i = 0; i < kept->count; i++)
        free(kept->files[i].bytes);
    kept->count = 0;
}

static inline void kept_list(void *context, const char *path)
{
    struct kept_files *names = context;
    assert_true(names->count < KEPT_FILES_MAX);
    snprintf(names->files[names->count++].path, sizeof names->files[0].path, "%s", path);
}

/* The disk has these files in /data again, and no others anywhere. */
static inline void kept_restore(const struct kept_files *kept)
{
    static struct kept_files names;
    names.count = 0;
    sim_file_each(kept_list, &names);
    for (unsigned i = 0; i < names.count; i++)
        sim_file_remove(names.files[i].path);
    for (unsigned i = 0; i < kept->count; i++)
        sim_file_put(kept->files[i].path, kept->files[i].bytes, kept->files[i].size);
}

static inline void kept_expect_same(const struct kept_files *kept)
{
    static struct kept_files now;
    kept_save(&now);
    assert_int_equal(now.count, kept->count);
    for (unsigned i = 0; i < now.count; i++) {
        assert_string_equal(now.files[i].path, kept->files[i].path);
        assert_int_equal(now.files[i].size, kept->files[i].size);
        assert_memory_equal(now.files[i].bytes, kept->files[i].bytes, now.files[i].size);
    }
    kept_free(&now);
}

/* ---- a check --------------------------------------------------------------------------------------------------- */

struct check_fixture {
    struct ring *ring;
    int dir_fd;
    struct check *check; /* NULL when it could not be done */
    const struct check_report *report;
    enum kvs_err error;
    char message[CHECK_MESSAGE_BYTES];
};

/* Steps that change something, or make it durable. */
static inline uint64_t check_changes(void)
{
    static const enum ring_kind kinds[] = {RING_KIND_WRITE, RING_KIND_SYNC, RING_KIND_ALLOCATE, RING_KIND_RENAME,
                                           RING_KIND_UNLINK};
    uint64_t count = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++)
        count += sim_issued(kinds[i]);
    return count;
}

/* Checks a directory, which no engine has open; nothing may be changed. */
static inline void check_begin(struct check_fixture *fixture, const char *path, struct check_options options)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options ring_options = {.entries = 64};
    memset(fixture, 0, sizeof *fixture);
    assert_int_equal(ring_open(&fixture->ring, &ring_options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(fixture->ring, path, &fixture->dir_fd), KVS_ERR_OK);
    options.ring = fixture->ring;
    options.dir_fd = fixture->dir_fd;
    options.dir_name = path;
    static struct kept_files before;
    kept_save(&before);
    uint64_t changes = check_changes();
    fixture->error = check_run(&fixture->check, &options, fixture->message);
    assert_int_equal(check_changes(), changes);
    kept_expect_same(&before);
    kept_free(&before);
    if (fixture->error == KVS_ERR_OK)
        fixture->report = check_report(fixture->check);
}

static inline void check_end(struct check_fixture *fixture)
{
    if (fixture->check != NULL)
        check_close(fixture->check);
    ring_close_fd(fixture->ring, fixture->dir_fd);
    ring_close(fixture->ring);
}

/* Whether a start would refuse it, in the checker's opinion. */
static inline bool check_refuses(const struct check_fixture *fixture)
{
    return fixture->error != KVS_ERR_OK || fixture->report->refused;
}

static inline void check_print(const struct check_fixture *fixture)
{
    if (fixture->error != KVS_ERR_OK)
        print_error("cannot check: %s\n", fixture->message);
    for (size_t i = 0; fixture->error == KVS_ERR_OK && i < fixture->report->damage_count; i++) {
        const struct check_damage *damage = &fixture->report->damages[i];
        print_error("%s: %s at %lld: %s (%s)\n", check_severity_name(damage->severity), damage->file,
                    (long long)damage->offset, damage->what, damage->means);
    }
}

/* Is sound, with so many keys. */
static inline void check_expect_sound(uint64_t keys)
{
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    if (check_refuses(&fixture) || fixture.report->damage_count > 0)
        check_print(&fixture);
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_false(fixture.report->refused);
    assert_int_equal(fixture.report->records_lost_max, 0);
    assert_int_equal(fixture.report->keys, keys);
    check_end(&fixture);
}

#endif
