/*
 * check_internal.h - what the parts of the check share.
 *
 *   check.c           the order of things, the figures
 *   check_identity.c  superblock and manifest, and what stands in for them when they are damaged
 *   check_segment.c   one segment file: read, scanned, judged
 *   check_rescue.c    what proves itself behind damage
 *   check_runs.c      the sorted runs
 *   check_snapshot.c  the snapshot of the indexes
 *   check_streams.c   all segments together
 *   check_map.c       the newest record of every key
 *   check_salvage.c   a new store from it
 */
#ifndef KVS_ENGINE_CHECK_INTERNAL_H
#define KVS_ENGINE_CHECK_INTERNAL_H

#include "engine/check.h"
#include "engine/check_map.h"
#include "engine/manifest.h"
#include "engine/recovery_internal.h"
#include "engine/superblock.h"
#include "engine/value_file.h"

/* A file under a segment's name, or an entry of the manifest without one. */
struct check_file {
    struct found_segment found; /* `segment` in it is not used */
    uint64_t uid;
    uint32_t seed; /* of its checksums; when out->read */
    bool covered;  /* by a sound run: a start does not read its records */
    struct check_segment out;
};

/* LSNs that one stream has in one segment without a gap. */
struct check_run {
    struct stretch stretch;
    bool rescued;
};

struct check {
    struct check_options options;
    struct check_report report;
    struct superblock superblock;
    bool identity; /* uuid and segment_bytes are known */
    unsigned shift;
    struct manifest *manifest;
    bool manifest_good;
    struct check_file *files; /* by number; behind the first named_count those under temporary names */
    size_t file_count, file_capacity, named_count;
    struct check_segment *segments; /* for the report */
    uint64_t uid_max;               /* that the manifest lists */
    uint64_t time_ms;               /* now, and at least the latest that a batch tells */
    uint64_t epoch_max;             /* in any header that a start reads: the superblock may be an older copy */
    struct check_run *runs;
    size_t run_count, run_capacity;
    struct check_map map;
    struct check_damage *damages;
    size_t damage_capacity;
    bool manifest_claimed;      /* batches say how far the manifest had come … */
    uint32_t manifest_max;      /* … at most */
    struct check_large *larges; /* records of large values */
    size_t large_count, large_capacity;
    int values_fd; /* of their folder; 0: not opened yet, -1: it cannot be */
    struct value_place place;
    struct large_pool pool;
    uint64_t progress_total;
    enum kvs_err err; /* the first error inside a callback */
    char *message;

    /* The file being scanned. */
    struct check_file *current;
    uint8_t *bytes; /* segment_bytes, aligned */
    bool rescuing;
};

#define check_say(check, ...) snprintf((check)->message, CHECK_MESSAGE_BYTES, __VA_ARGS__)

/* ---- check.c --------------------------------------------------------------------------------------------------- */

/* A new damage, whose texts and figures the caller completes. Never NULL: too many share the last place. */
struct check_damage *check_damage(struct check *check, enum check_severity severity, const char *file, uint64_t offset);
void check_file_name(const struct check_file *file, char name[CHECK_FILE_BYTES]);
void check_sort_files(struct check *check);
/* The file of this number; NULL when there is none. */
struct check_file *check_file_find(const struct check *check, uint32_t number);
/* Opens a file for reading, with O_DIRECT where that works; *direct tells. The cache is dropped otherwise. */
enum kvs_err check_open_file(struct check *check, const char *name, int *fd, bool *direct, struct ring_op *op);
/* True when so many bytes could be read into the aligned buffer, else the rest is zeros; *bytes: up to the file's end.
 */
bool check_read(struct check *check, int fd, uint8_t *buffer, uint64_t size, uint64_t offset, uint64_t *bytes);
void check_progress(const struct check *check, const char *step, uint64_t done, uint64_t total);

/* ---- check_identity.c ------------------------------------------------------------------------------------------ */

enum kvs_err check_superblock(struct check *check);
/* After the directory was listed. Matches files and entries, adds those that are missing. */
enum kvs_err check_manifest(struct check *check);

/* ---- check_segment.c ------------------------------------------------------------------------------------------- */

void check_scan_file(struct check *check, struct check_file *file);
/* A free file is not read. But when the manifest has lost changes, it may be one that was taken into use since: true
 * when its first batch was written after the change that made it free, by the number that batches carry. With `lost`,
 * when it is known that the manifest has, also when it was begun after all that it lists. (The first change of a new
 * file holds older ones too. In a store that is whole, such a file may be one that compaction had not finished.) */
bool check_is_newer(struct check *check, const struct check_file *file, bool lost);
/* Reads a segment into check->bytes; what cannot be read is zeros, and damage unless `quiet`. False: it cannot be
 * opened. */
bool check_load(struct check *check, struct check_file *file, bool quiet);
/* A put that was the newest record of its key counts no more. */
void check_lose(struct check *check, const struct check_key *loser);
void check_take_record(struct check *check, const struct record_header *record, uint32_t offset);

/* ---- check_rescue.c -------------------------------------------------------------------------------------------- */

/* Damage from `from` on: takes all that proves itself up to `to`, and fills in what is lost. */
void check_rescue(struct check *check, struct check_file *file, uint32_t from, uint32_t to,
                  struct check_damage *damage);

/* ---- check_values.c -------------------------------------------------------------------------------------------- */

struct check_large;
/* A good record that is large: its file will be asked for. */
void check_note_large(struct check *check, const struct record_header *record);
/* After all records are known: their files. */
void check_values(struct check *check);
void check_values_close(struct check *check);
/* The value, verified, to be given back with large_memory_give; NULL: `text` says what is wrong. */
struct large_memory *check_read_value(struct check *check, struct slice key, const struct value_descriptor *descriptor,
                                      char text[VALUE_TEXT_BYTES]);

/* ---- check_runs.c ---------------------------------------------------------------------------------------------- */

enum kvs_err check_runs(struct check *check);

/* ---- check_snapshot.c ------------------------------------------------------------------------------------------ */

/* OK: also when it is damaged, or there is none. */
enum kvs_err check_snapshot(struct check *check);

/* ---- check_streams.c ------------------------------------------------------------------------------------------- */

void check_add_batch(struct check *check, const struct batch_header *batch, uint32_t offset);
/* After all files: gaps, claims, the age of the manifest. */
void check_streams(struct check *check);
void check_manifest_age(struct check *check);
/* True when something shows that the manifest has lost changes. */
bool check_manifest_is_behind(const struct check *check);

#endif
