/*
 * check.h - looking at a data directory that no node uses: is every byte of it sound, what is in it, and what of it can
 * be saved?
 *
 * check_run reads everything that counts and leaves a report. The directory is not changed, not even where a start
 * would tidy up. A store is judged by the rules of a start (recovery.c): `refused` in the report says that a start
 * would refuse it. Beyond that, bytes that nothing relies on are compared with what they should be.
 *
 * Damage ends nothing: behind it, records are looked for that prove themselves by their own checksum, whose seed is of
 * store, segment and place. They count for what can be salvaged, and are told apart as `rescued`.
 *
 * Files of large values are read, too, each by itself. A start does not read them, and damage there does not make it
 * refuse.
 *
 * Memory: one segment or large value, and 46 to 91 bytes for each key that the log has a record of (while the table
 * grows, half as much again); for check_salvage also what an engine with these keys takes.
 *
 * Nobody may use the directory meanwhile: the lock is the caller's business, since taking it as a node does writes into
 * the directory.
 *
 * Threading: everything on the thread of the ring it is given, blocking.
 */
#ifndef KVS_ENGINE_CHECK_H
#define KVS_ENGINE_CHECK_H

#include "base/bytes.h"
#include "base/error.h"
#include "ring/ring.h"

struct check;

enum { CHECK_MESSAGE_BYTES = 512, CHECK_FILE_BYTES = 64, CHECK_DAMAGES_MAX = 10000 };

/* ---- what was found -------------------------------------------------------------------------------------------- */

enum check_severity {
    CHECK_REFUSED,  /* a start refuses the store because of it */
    CHECK_UNSEEN,   /* a start does not read it, for a run spares it that: reads of what lies there will fail */
    CHECK_HARMLESS, /* not what was written, but nothing needs it; a power loss at the wrong moment may leave it so */
};

#define CHECK_UNKNOWN UINT64_MAX

struct check_damage {
    enum check_severity severity;
    char file[CHECK_FILE_BYTES];
    uint64_t offset; /* in the file; CHECK_UNKNOWN: all of it, or none */
    char what[384];  /* is wrong */
    char means[256];
    /* Of the records that may be lost: these LSNs of this stream (all 0: not known) … */
    uint64_t epoch;
    uint32_t stream;
    uint64_t lsn_first, lsn_last;
    /* … and how many at most; each is a key that may have lost its newest value, or its delete. */
    uint64_t records_max;
};

enum check_role {
    CHECK_LOG,        /* in use: may have been written to when the last run ended */
    CHECK_SEALED,     /* in use: whole */
    CHECK_FREE,       /* holds nothing; waits to be used again */
    CHECK_UNFINISHED, /* compaction had not finished it: the records are still where they were */
    CHECK_UNLISTED,   /* the manifest does not know it */
    CHECK_MISSING,    /* the manifest lists it as in use, and there is no file */
    CHECK_TEMPORARY,  /* NNNNNN.seg.new: was being made */
};

struct check_segment {
    uint32_t number;
    enum check_role role;
    bool relocated; /* written by compaction */
    bool damaged;
    bool read; /* its records are among the figures */
    uint64_t uid;
    uint64_t end; /* of what is valid without a gap */
    uint64_t batches, puts, deletes;
    uint64_t record_bytes; /* puts and deletes, alignment included */
    uint64_t live_puts, live_bytes;
    uint64_t rescued;    /* of puts and deletes, those behind damage */
    uint64_t torn_bytes; /* behind the end: writes that were under way when the node died */
};

struct check_report {
    char uuid[37];
    char engine[17];
    uint64_t segment_bytes, epoch, created_ms;
    bool identity_guessed;      /* there is no good superblock: taken from the segments' headers */
    uint64_t manifest_sequence; /* 0: the manifest could not be read */

    const struct check_segment *segments; /* by number */
    size_t segment_count;
    uint64_t files, bytes_read, disk_bytes;
    uint64_t puts, deletes, record_bytes;
    uint64_t keys, live_bytes;
    uint64_t expiring_keys; /* of the keys, those that expire at some time */
    uint64_t deleted_keys;  /* whose newest record is a delete */
    uint64_t expired_keys;  /* whose newest record has expired, by the clock and the latest time in the log */
    uint64_t copies;        /* records met again with the same LSN: moved by compaction, old place not given up yet */
    uint64_t large_values, large_bytes;     /* of keys, and good: values that have files of their own */
    uint64_t large_files, large_file_bytes; /* in the folder of such files: also what is left over */
    uint64_t rescued, torn_bytes;
    uint64_t memory_bytes; /* of the table of keys */

    const struct check_damage *damages;
    size_t damage_count;       /* at most CHECK_DAMAGES_MAX are kept … */
    uint64_t damages_dropped;  /* … and so many were not */
    uint64_t records_lost_max; /* sum of records_max; CHECK_UNKNOWN when one is */
    bool refused;
    uint64_t elapsed_ns;
};

const char *check_role_name(enum check_role role);
const char *check_severity_name(enum check_severity severity);

/* ---- checking -------------------------------------------------------------------------------------------------- */

struct check_progress {
    const char *step;     /* "checking", "salvaging" */
    uint64_t done, total; /* bytes when checking, keys when salvaging */
    uint64_t keys;
};

struct check_record {
    uint32_t segment, offset;
    bool rescued;
    bool put; /* else a delete */
    uint64_t lsn;
    uint64_t expires_ms;     /* since 1970; 0 = never */
    bool large;              /* the value lies in a file of its own; `value` is what the record has in its place */
    struct slice key, value; /* good during the call */
    uint64_t value_bytes;
};

struct check_options {
    struct ring *ring;
    int dir_fd; /* of the directory; stays the caller's */
    const char *dir_name;
    /* All may be NULL. */
    void (*progress)(void *context, const struct check_progress *progress);
    void (*each)(void *context, const struct check_record *record);
    void *context;
    /* Only these segments, whatever they are to the store, for `each`: no judgement of the whole. NULL: all that count.
     */
    const uint32_t *numbers;
    size_t number_count;
};

/*
 * OK: there is a report, whatever it says. Otherwise the directory could not be checked, and `message` says why:
 * NOT_FOUND (no data directory, or no such segment), VERSION (a newer format), MISMATCH (an
 * engine that this program does not know), NO_MEMORY, or an error of the file system.
 */
enum kvs_err check_run(struct check **out, const struct check_options *options, char message[CHECK_MESSAGE_BYTES]);
const struct check_report *check_report(const struct check *check);
void check_close(struct check *check);

/* ---- salvaging ------------------------------------------------------------------------------------------------- */

struct check_salvaged {
    uint64_t keys, bytes; /* written into the new store; key and value bytes */
    uint64_t lost;        /* found good before, but not when read again */
};

/*
 * Makes a new store (engine kvs, its own UUID and hash seed, the same segment size) in `out_dir`, which is made or must
 * be empty, and puts in the newest good record of every key that has not expired, with its expiry; durable when it
 * returns. Once, after check_run without
 * `numbers`. EXISTS: it is not empty. INVALID: there is nothing to salvage from. Otherwise what the engine has
 * answered.
 */
enum kvs_err check_salvage(struct check *check, const char *out_dir, struct check_salvaged *salvaged,
                           char message[CHECK_MESSAGE_BYTES]);

#endif
