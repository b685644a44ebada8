/*
 * manifest.h - which segments a store consists of.
 *
 * The file `manifest` lists every segment of the store with its incarnation (uid) and its state. A segment is entered
 * before its first batch is written, and taken out before anything relies on its being gone. So recovery knows a lost
 * file from one that compaction has given up, and the end of a sealed segment from a torn one.
 *
 * The file is a log of its own. It begins with a snapshot, blocks of 4 KiB with entries; changes follow, a block for
 * each write, durable when the write completes. An entry replaces the earlier one of its number. When the file is
 * nearly full a new one with a fresh snapshot takes its place (`manifest.new`, synced, renamed, directory synced).
 *
 * Order: changes become durable in the order in which they were made. After a crash some that were not durable yet may
 * be there, but none without all that were made before it.
 *
 * Threads: manifest_open, manifest_new, manifest_set and manifest_write are for start-up, on the thread of the ring
 * they are given, and block; everything else is the background thread's. manifest_sequence may be read by any thread.
 *
 * Failure: a write or sync that fails is not repeated. The manifest has failed for good: nothing becomes durable any
 * more, so no segment is entered and none taken out; what was durable stays true. A new file that cannot be made (no
 * space, most likely) is no failure: changes go on in the old one while it has room and are queued when it has none,
 * and every second a new file is tried again.
 */
#ifndef KVS_ENGINE_MANIFEST_H
#define KVS_ENGINE_MANIFEST_H

#include "engine/engine.h"
#include "engine/log_format.h"

#include <stdatomic.h>

#define MANIFEST_MAGIC 0x46494e414d53564bull /* "KVSMANIF" */
#define MANIFEST_NAME  "manifest"

#define MANIFEST_VERSION      1u
#define MANIFEST_SEGMENTS_MAX (1u << 26) /* numbers are below: 2^44 bytes of the smallest segments */

enum manifest_state {
    MANIFEST_LIVE = 1, /* may be written in, by the log or by compaction */
    MANIFEST_SEALED,   /* will not be written in again: end, LSNs and counts are final */
    MANIFEST_FREE,     /* holds nothing any more; the file waits to be used again */
    MANIFEST_GONE,     /* the file was removed: takes the entry out of the list; never in a snapshot */
};

enum segment_kind {
    SEGMENT_LOG = 1,   /* filled by a shard's log */
    SEGMENT_RELOCATED, /* filled by compaction, with records that were elsewhere before */
};

/* One segment, as it stands in the file. */
struct manifest_entry {
    uint32_t number;
    uint8_t state; /* enum manifest_state */
    uint8_t kind;  /* enum segment_kind; 0 is allowed when it is FREE or GONE */
    uint16_t reserved;
    uint64_t uid;
    /* From here on: of a sealed segment, else 0. But `end` of a live one is where an earlier boot has found its end, if
     * one has: it reaches at least so far. */
    uint32_t end;          /* offset behind its last batch */
    uint32_t record_bytes; /* sum of its records, without batch headers and padding */
    uint64_t last_lsn;     /* of its last batch, as recovery_scan finds it */
    uint64_t min_lsn;      /* the lowest LSN of its records; UINT64_MAX when it has none */
    uint64_t begun_lsn;    /* RELOCATED: what was executed up to this LSN, in any stream, is known to its records */
    uint32_t epoch;        /* of its last batch */
    uint32_t stream;       /* of its last batch */
    uint32_t puts;         /* records of kind put */
    uint32_t deletes;      /* records of kind delete */
};
static_assert(sizeof(struct manifest_entry) == 64, "manifest entry");

/* Heads each block. The entries follow; zeros fill the block. */
struct manifest_block {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the block, begun with the CRC32C of the store's UUID */
    uint32_t version;
    uint64_t sequence;        /* of this block: that of the file's first block + index; a new file begins above all that
                                 the one before it has room for */
    uint32_t index;           /* of this block in the file, from 0 */
    uint32_t snapshot_blocks; /* how many blocks at the beginning of this file are its snapshot; at least 1 */
    uint32_t file_blocks;     /* of the whole file, which has exactly that size */
    uint32_t count;           /* entries in this block */
    uint8_t reserved[24];
};
static_assert(sizeof(struct manifest_block) == 64, "manifest block");

enum { MANIFEST_BLOCK_ENTRIES = (KVS_BLOCK_BYTES - 64) / 64, MANIFEST_FAILURE_BYTES = 256 };

struct manifest;
struct name_sync;

struct manifest_options {
    struct ring *ring; /* start-up only; manifest_attach gives the background's */
    int dir_fd;
    const char *dir_name; /* for messages; the caller's, for as long as the manifest is open */
    const uint8_t *store_uuid;
    bool direct;           /* O_DIRECT */
    bool sync_after_write; /* no durable writes: write, then fdatasync */
    bool read_only; /* manifest_open changes nothing, so what it has read need not be durable; nothing may be written */
    /* Of the directory; the caller's, for as long as the manifest is open. NULL: nobody else changes names in it. */
    struct name_sync *names;
    uint64_t first_sequence; /* of a new manifest's first file; 0: 1, as a new store's */
};

/*
 * Reads the manifest of a store. NOT_FOUND: there is none. CORRUPT, VERSION or an error of the file system come with a
 * message that names the thing, the place and the remedy. Behind the last whole block there may be a torn one, which
 * nothing relies on; a block that is not whole with a later one behind it is damage. (That the very last block was lost
 * cannot be seen here: compare manifest_sequence with what batches carry, before the first change.) What has been read
 * is durable, the name included. `manifest.new` is removed. (Not so with read_only.)
 */
enum kvs_err manifest_open(struct manifest **out, const struct manifest_options *options,
                           char message[ENGINE_MESSAGE_BYTES]);
/* A manifest without entries, nothing on disk yet: manifest_write makes it. */
enum kvs_err manifest_new(struct manifest **out, const struct manifest_options *options);
/* Frees it; `ring` is the closing thread's. Nothing of it is in flight: it is idle, or its ring has been closed. */
void manifest_close(struct manifest *manifest, struct ring *ring);

/* The entry of a segment as last changed, durable or not; NULL when there is none. Good until the next change. */
const struct manifest_entry *manifest_find(const struct manifest *manifest, uint32_t number);
/* Calls for every entry, by rising number. No changes meanwhile. */
void manifest_each(const struct manifest *manifest, void (*each)(void *context, const struct manifest_entry *entry),
                   void *context);

/* Sets the entry in memory only: start-up, before manifest_write makes it durable with all others. NO_MEMORY. */
enum kvs_err manifest_set(struct manifest *manifest, const struct manifest_entry *entry);
/* Writes a new file with a snapshot of all entries, durably; blocking, start-up. Also the way to make the first one.
 * After an error the old file stands, or after one of the directory's sync one of both; the manifest is to be closed.
 */
enum kvs_err manifest_write(struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES]);
/* The same on the ring of its options, without waiting: begins it; nothing else is asked of the manifest until it is
 * not `writing` any more. manifest_written tells then what has become of it. */
void manifest_write_begin(struct manifest *manifest);
bool manifest_writing(const struct manifest *manifest);
enum kvs_err manifest_written(const struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES]);

/* ---- running: on the background thread ------------------------------------------------------------------------- */

void manifest_attach(struct manifest *manifest, struct ring *ring);

/* Changes an entry (MANIFEST_GONE removes it) and queues the change. *ticket: durable once manifest_durable covers it;
 * tickets rise. NO_MEMORY or FAILED: nothing was changed. */
enum kvs_err manifest_change(struct manifest *manifest, const struct manifest_entry *entry, uint64_t *ticket);
bool manifest_durable(const struct manifest *manifest, uint64_t ticket);
/* The ticket of the latest change; 0: there was none. */
uint64_t manifest_latest(const struct manifest *manifest);

/* Starts the write of what is queued, one at a time; what is queued meanwhile goes together with the next. Also starts
 * the making of a new file when it is time. To be called after changes and after each ring_turn. */
void manifest_turn(struct manifest *manifest);
/* Nanoseconds until manifest_turn has something to do by itself; -1 = never. */
int64_t manifest_timeout_ns(const struct manifest *manifest);
/* Nothing is queued and nothing in flight, or it has failed and nothing is in flight. On a full disk it may wait for
 * space first: see manifest_stuck. */
bool manifest_idle(const struct manifest *manifest);

/* The latest attempt to make a new file found no space on the disk: give it some. */
bool manifest_lacks_space(const struct manifest *manifest);
/* Tells one such attempt from the next. */
uint64_t manifest_attempt(const struct manifest *manifest);
/* So much so that changes wait, for the file has no room for them. */
bool manifest_waits_for_space(const struct manifest *manifest);
/* Changes are queued, the file has no room for them, a new one could not be made, and nothing is in flight: it may be
 * closed as well, with the loss of changes that were never durable. */
bool manifest_stuck(const struct manifest *manifest);

bool manifest_failed(const struct manifest *manifest);
/* What failed, where. "" while nothing has. */
const char *manifest_failure_text(const struct manifest *manifest);

/* The sequence of the latest durable block: batches carry it, so that the loss of a later block would be noticed. */
uint64_t manifest_sequence(const struct manifest *manifest);
/* Above the sequence of every block that the file has or has room for: what another file may begin with. */
uint64_t manifest_sequence_end(const struct manifest *manifest);
/* Bytes of the file, snapshot and room for changes included. */
uint64_t manifest_bytes(const struct manifest *manifest);

#endif
