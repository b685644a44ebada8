/*
 * engine.h - the store behind one interface: what a node, an embedded program and a test may ask of any engine.
 *
 * A store is divided into shards by the hash of the key (hash_shard). Each shard has one owner: a thread with a ring,
 * which alone changes the shard's keys. Any shard's thread may read any shard's keys, lock-free.
 *
 * Two ways to ask. engine_try answers at once from RAM, or says that it cannot and has done nothing. engine_submit
 * takes a struct engine_op that stays put and calls back; it waits for disk reads, for room in the log and for earlier
 * operations on the same key. Operations on one key that reach its owner take effect in the order in which they were
 * given.
 *
 * Gates. A result carries a gate: 0, or the owner's log sequence number (LSN) that must be durable before the result
 * may be shown to anybody (promises P1 and P4): a write's own, or that of the not yet durable record (or tombstone) a
 * read has met. engine_durable tells how far the owner's log is durable. Requests marked relaxed have no gate.
 *
 * Sections. Values returned by engine_try lie in memory that may be reused when the section ends: bracket calls and the
 * use of their results with engine_section_begin and engine_section_end, and keep that short: no waiting inside.
 *
 * Failure. When a write or sync fails, the shard stops writing for good (P6): engine_failed tells, writes answer
 * FAILED, gates that are not durable by then never will be. Reads go on.
 */
#ifndef KVS_ENGINE_ENGINE_H
#define KVS_ENGINE_ENGINE_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "ring/ring.h"

struct engine;
struct engine_shard;
struct engine_background;
struct large_memory;
struct large_pool;
struct value_put;

#define ENGINE_MESSAGE_BYTES 512

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Threads that may help with opening a store. */
struct engine_workers {
    unsigned count; /* at least 1 */
    /* Calls `work` once for each worker, 0 … count - 1, side by side, each on a thread and with a ring of its own, and
     * returns when all have returned. */
    void (*run)(void *context, void (*work)(void *argument, unsigned worker, struct ring *ring), void *argument);
    void *context;
};

/* How far the opening of a store has come: its workers write it, any thread reads it. */
struct engine_progress {
    _Atomic uint64_t bytes_total; /* to be read, as known so far */
    _Atomic uint64_t bytes_done;
};

struct engine_options {
    const char *kind; /* "kvs" or "memory" */
    const char *data_dir;
    unsigned shard_count;  /* 1..KVS_SHARDS_MAX; may differ from run to run */
    uint64_t memory_bytes; /* budget of index, log images and read buffers */
    uint64_t
        segment_bytes; /* of a new store, a power of two; 0 = chosen from the budget. An existing store keeps its own */
    uint32_t relaxed_interval_ms; /* at most this long until a relaxed write is on disk */
    uint64_t disk_bytes_max;      /* of all segments and value files together; 0 = as much as the file system has */
    uint64_t value_bytes_max;     /* largest value; 0 = chosen from the budget. What the engine offers may be less:
                                     engine_value_bytes_max */
    uint64_t large_bytes_min; /* a value of so many bytes gets a file of its own; 0 = chosen from the segment size */
    struct large_pool *value_memory; /* large values that are read come in memory of this pool, which outlives the
                                        engine; NULL: one of the engine's own, of a sixth of the budget */
    const char *backup_dir;          /* where backups go, an absolute path; NULL: `backups` in the data directory */

    /* For the opening alone, and not looked at after it; NULL: the calling thread does it by itself, and tells nobody.
     */
    const struct engine_workers *workers;
    struct engine_progress *progress;
};

struct engine_recovery {
    uint64_t keys;
    uint64_t records;
    uint64_t segments;
    uint64_t bytes;     /* read */
    uint64_t cut_bytes; /* torn tails that were never acknowledged, cut off */
    uint64_t elapsed_ns;
    bool created;  /* a new, empty store */
    bool snapshot; /* the indexes were taken over as the last stop has left them */
};

/*
 * Opens the store and recovers it, blocking, on the calling thread with `ring` (any; start-up only). On failure
 * `message` names the thing, the place and the remedy: LOCKED (another process has it), MISMATCH (another engine's
 * directory), VERSION (a newer format), CORRUPT (damage below the durable watermark: segment, offset and what would be
 * lost), INVALID (options), or an error of the file system.
 */
enum kvs_err engine_open(struct engine **out, const struct engine_options *options, struct ring *ring,
                         char message[ENGINE_MESSAGE_BYTES]);

/*
 * The same in two steps, for those who have something to do in between. engine_prepare takes milliseconds: it makes
 * the directory if need be, takes its lock, reads or makes its superblock. engine_load does the rest, which takes as
 * long as there is much to read, on any thread and with any ring; workers and progress are given here, and those of the
 * options do not count. It uses `prepared` up, whatever comes of it; engine_unprepare gives a directory back that is
 * not to be loaded. Errors and messages are those of engine_open. `options` and the strings in them are copied.
 */
struct engine_prepared;
enum kvs_err engine_prepare(struct engine_prepared **out, const struct engine_options *options, struct ring *ring,
                            char message[ENGINE_MESSAGE_BYTES]);
void engine_unprepare(struct engine_prepared *prepared, struct ring *ring);
/* What engine_value_bytes_max will be. */
uint64_t engine_prepared_value_bytes_max(const struct engine_prepared *prepared);
enum kvs_err engine_load(struct engine **out, struct engine_prepared *prepared, const struct engine_workers *workers,
                         struct engine_progress *progress, struct ring *ring, char message[ENGINE_MESSAGE_BYTES]);

void engine_recovered(const struct engine *engine, struct engine_recovery *out);

/* Frees everything, after every shard was stopped, was never started, or was abandoned (a simulated crash). `ring`:
 * any, of the calling thread. */
void engine_close(struct engine *engine, struct ring *ring);

/* The largest value that this store takes with a key of KVS_KEY_BYTES_MAX bytes; at most KVS_VALUE_BYTES_MAX. */
uint64_t engine_value_bytes_max(const struct engine *engine);
/* Up to here a value needs no file: a small group of such changes may do without engine_group_prepare. */
uint64_t engine_change_bytes_max(const struct engine *engine);
uint64_t engine_hash_seed(const struct engine *engine);
const char *engine_kind(const struct engine *engine);
unsigned engine_shard_count(const struct engine *engine);

/* Attaches the calling thread and its ring as the owner of shard `id`. Begins what it needs before it can write. */
enum kvs_err engine_shard_start(struct engine *engine, unsigned id, struct ring *ring, struct engine_shard **out);
/* True once the shard is ready to acknowledge writes; turn the ring and call engine_turn until then. */
bool engine_shard_ready(const struct engine_shard *shard);
/* Once per turn of the owner's loop, after all its requests: commits what waits, prepares segments, frees memory. */
void engine_turn(struct engine_shard *shard);
/* Nanoseconds until engine_turn has something to do by itself (a relaxed commit that falls due); -1 = never. */
int64_t engine_timeout_ns(const struct engine_shard *shard);
/* Begins an orderly stop: everything appended becomes durable. No requests after this. */
void engine_shard_stop(struct engine_shard *shard);
/* True when an orderly stop is complete (or the shard failed) and nothing of the shard is in flight on its ring. */
bool engine_shard_stopped(const struct engine_shard *shard);

/*
 * The engine's background work (segments are made, given up and entered in the manifest there) belongs to a thread and
 * a ring of its own: attach it, then call the turn after every ring_turn. A shard gets nothing to write in before the
 * background has started.
 */
enum kvs_err engine_background_start(struct engine *engine, struct ring *ring, struct engine_background **out);
void engine_background_turn(struct engine_background *background);
/* Nanoseconds until the turn has something to do by itself; -1 = never. */
int64_t engine_background_timeout_ns(const struct engine_background *background);
/* Ends it, together with or after the shards. It waits until every shard that was started has stopped its log
 * (engine_shard_stop, and turns until engine_shard_stopped), for what they have written is indexed last; and they must
 * go on turning until it has stopped. */
void engine_background_stop(struct engine_background *background);
bool engine_background_stopped(const struct engine_background *background);
void engine_background_section_begin(struct engine_background *background);
void engine_background_section_end(struct engine_background *background);

/* ---- backup ------------------------------------------------------------------------------------------------------ */

enum { ENGINE_BACKUP_NAME_BYTES = 65, ENGINE_BACKUP_PATH_BYTES = 512 };

/* 1 to 64 letters, digits, dots, dashes and underscores of ASCII; not a dot at first. */
bool engine_backup_name_valid(const char *name);

/*
 * Asks the background for a backup: a copy of the store as of one moment from now on, whole and durable, under this
 * name in the directory of backups. A store is opened on the copy like on any other. On any thread, with its ring. What
 * becomes of it is to be read in engine_backup_state. AGAIN: one is under way. INVALID: the name. UNSUPPORTED: the
 * engine keeps nothing.
 */
enum kvs_err engine_backup_begin(struct engine *engine, const char *name, struct ring *ring);

/* Since the start. */
struct engine_backup_state {
    bool running;   /* one is asked for, or under way */
    uint64_t ended; /* how many have come to an end */
    /* The latest of them. */
    enum kvs_err error;
    char name[ENGINE_BACKUP_NAME_BYTES];
    char text[ENGINE_MESSAGE_BYTES]; /* with an error: what has gone wrong, and where */
    /* The latest good one; good_moment_ms 0: none. */
    uint64_t good_moment_ms; /* what was acknowledged by then is in it */
    uint64_t good_took_ns;
    uint64_t good_bytes;        /* of its files */
    uint64_t good_copied_bytes; /* of them those that are not shared with the store */
    char good_path[ENGINE_BACKUP_PATH_BYTES];
};

/* Any shard's thread, inside a section. */
void engine_backup_state(const struct engine *engine, struct engine_backup_state *out);

/* ---- requests -------------------------------------------------------------------------------------------------- */

enum engine_action {
    ENGINE_GET,
    ENGINE_PUT,
    ENGINE_REMOVE,
    ENGINE_EXPIRE, /* of a key whose value is a large one: that stays where it is, and expires at expires_ms from now on
                      (0: never). Other values are PUT again */
    ENGINE_HOLD,   /* engine_submit only: see engine_conclude */
};

/*
 * Expiry. A value may be put with a time from whose millisecond on the key is not there: every read knows that at
 * once, on any shard. Soon afterwards the key leaves the counts and the index by itself. The time is the engine's
 * (engine_now_ms): the wall clock, but never going back, over restarts either.
 */
struct engine_request {
    enum engine_action action;
    bool relaxed;       /* a write need not be durable when acknowledged; a read may show what is not durable */
    bool head;          /* GET, HOLD: of a large value, how long it is will do: it is not read, and `value` is empty */
    bool group;         /* HOLD: for a group, see engine_group_append */
    bool blind;         /* HOLD for a group: the value does not matter, and is not looked for */
    bool eager;         /* GET: end with AGAIN rather than wait for memory for a large value */
    uint64_t asked_ns;  /* GET, engine_submit: when it was asked for (ring_now_ns of any ring of the process): what was
                           asked for earlier has the first right to memory for a large value */
    uint64_t hash;      /* hash_key(key, engine_hash_seed) */
    struct slice key;   /* 1..KVS_KEY_BYTES_MAX bytes; an empty key is allowed too */
    struct slice value; /* PUT */
    /* PUT, EXPIRE: from this time on the key is not there; milliseconds since 1970, 0 = never. With a time that has
     * passed both are a REMOVE. */
    uint64_t expires_ms;
};

struct engine_result {
    enum kvs_err error; /* OK, NO_SPACE, NO_MEMORY, TOO_LARGE, FAILED, CORRUPT (see engine_damage_text), IO */
    bool found; /* GET: there is a value; PUT: the key was there before (a guess while its old record is on disk);
                   REMOVE, EXPIRE: the key was there */
    struct slice value;          /* GET */
    uint64_t value_bytes;        /* GET: how long the value is */
    struct large_memory *memory; /* GET of a large value, from engine_submit only: `value` lies at its beginning. Take
                                    it, and set this to NULL, or engine_op_release gives it back */
    uint64_t version;            /* GET: of the value found: another one after each write of the key; 0: none was found.
                                    (The engine `memory` does not notice that the same value was written again) */
    uint64_t large_id;           /* GET: the value is a large one: the id of its file; 0: it is not */
    uint64_t expires_ms;         /* GET: of the value found; 0 = never */
    uint64_t gate;               /* 0, or the LSN of the owner that must be durable first */
};

enum engine_answer {
    ENGINE_DONE, /* the result is there */
    ENGINE_MUST_WAIT /* nothing was done: engine_submit it */,
    ENGINE_ASK_OWNER /* engine_try_get only: it is on disk, or not durable yet; let the owner execute it */
};

/* Executes on the owner's thread, inside a section. */
enum engine_answer engine_try(struct engine_shard *owner, const struct engine_request *request,
                              struct engine_result *result);

/* Reads a key of any shard from the thread of `reader`, inside a section, if it is in RAM and durable. */
enum engine_answer engine_try_get(struct engine_shard *reader, unsigned owner_id, const struct engine_request *request,
                                  struct engine_result *result);

/*
 * Tells that a key with this hash will soon be asked for, so that memory is fetched while other work goes on: first the
 * line of the index, and, called again somewhat later, the record it points at. On any shard's thread, inside a
 * section.
 */
enum engine_prefetch_step { ENGINE_PREFETCH_INDEX, ENGINE_PREFETCH_RECORD };
void engine_prefetch(struct engine_shard *reader, unsigned owner_id, uint64_t hash, enum engine_prefetch_step step);

struct engine_op;
typedef void engine_done_fn(struct engine_op *op);

/* Key and value are the caller's and stay until `done`. */
struct engine_op {
    struct engine_request request;
    struct engine_result result;
    engine_done_fn *done; /* on the thread it was submitted on; inside a section; may be before engine_submit returns */

    /* Private to src/engine from here on. */
    struct engine_shard *shard; /* where it was submitted */
    struct list link;           /* among the operations on keys with this hash, in order */
    struct list stall_link;     /* among the operations waiting for room in the log */
    bool removes;               /* a REMOVE, or a PUT of what has expired already */
    void *wait;                 /* what it needs while it waits for the disk */
    struct value_put *put;      /* the file that its value is written to; NULL: none */
    uint8_t state;
};

/* On the owner's thread. */
void engine_submit(struct engine_shard *owner, struct engine_op *op);

/*
 * Holds. A HOLD gives what a GET does (`head` and `eager` count), and then the key is the holder's: whatever else is
 * asked of the owner for it waits. With an error in the result there is no hold, and the operation is over. Else set
 * action (PUT, REMOVE or EXPIRE; HOLD: nothing changes), value, expires_ms and `done`, and conclude: in `done`, or
 * later on the owner's thread. `done` is called once more when the change has been made, or with the error for which it
 * has not; then the key is free again. The value is good until the first `done` returns; result.memory, unless it was
 * taken, until engine_conclude.
 */
void engine_conclude(struct engine_op *op);
/*
 * Groups. Changes of several keys, of any shards, that take effect together: a crash leaves all of them or none, and
 * who has seen one of them finds none of the others undone.
 *
 *   1. HOLD each key, with `group`, at its owner. So that two groups cannot wait for each other, all take their keys in
 *      the same order: shard by shard, and all of a shard in one turn.
 *   2. On any one shard: engine_group_prepare, until it is done, then engine_group_append: all changes into its log, in
 *      one piece. `after_lsn`: the highest of what engine_lsn has said on the owners' threads when their keys were
 * held.
 *   3. When group->gate is durable on that shard: engine_publish for every change, on the thread of its key's owner.
 *   4. When all are published: engine_conclude (HOLD: nothing else changes) each key, and engine_group_end.
 *
 * If the shard fails before the gate is durable nobody knows what a start will find. Then nothing is published, but
 * engine_publish is called all the same, with no change: what is written to the key later has to be newer.
 */
struct engine_group {
    uint64_t gate;
    struct list link; /* private to src/engine, from here on. All zero at first */
    uint64_t first_lsn;
    struct engine_change *changes;
    unsigned count;
    bool prepared;
    bool removes_wait; /* there is nothing in it but deletes, and they wait for room */
    enum kvs_err error;
    unsigned files_pending; /* files of large values that are being written */
};

struct engine_change {
    struct slice key, value;
    bool removes;
    uint64_t expires_ms;
    /* Private to src/engine, zero at first. Where its record stands, and the file that its value is in. */
    uint64_t address, bytes, lsn;
    struct value_put *put;
};

/* The highest LSN of the shard so far. Its thread. */
uint64_t engine_lsn(const struct engine_shard *shard);
/*
 * Writes what does not go into a log: large values. On the thread of any shard; changes, with keys and values, and
 * group stay until engine_group_end, or until there was another error than AGAIN: that is over, and the group cannot
 * be. AGAIN: it is under way, ask in a later turn. OK: nothing is left to be written, now engine_group_append is due.
 */
enum kvs_err engine_group_prepare(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                  unsigned count);
/* On the same thread. AGAIN: nothing was done, try in a later turn. NO_SPACE, FAILED, TOO_LARGE: nothing was done, and
 * the group cannot be. */
enum kvs_err engine_group_append(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                 unsigned count, uint64_t after_lsn);
/* `op`: the hold of the change's key; `change` NULL: see above. AGAIN: nothing was done, try in a later turn: there is
 * no way back. Nothing else is returned. */
enum kvs_err engine_publish(struct engine_op *op, const struct engine_change *change, const struct engine_group *group);
/* On the thread of engine_group_append. Also of a group that has not become durable because the shard has failed. */
void engine_group_end(struct engine_shard *shard, struct engine_group *group);

/* Gives back the buffer behind op->result.value. In `done` or after it, exactly once, on the same thread. */
void engine_op_release(struct engine_op *op);

/*
 * Watches. A key's version tells what was written to it, but not that a key which is not there has been there in
 * between. A watch tells: `came` is set when a key with its hash is put, from engine_watch on and until engine_unwatch.
 * Both on the owner's thread; so is `came` set, and who holds the key may read it on any. Memory is the caller's, and
 * all zero at first. A watch that is still linked when its shard has stopped may be freed.
 */
struct engine_watch {
    bool came;
    bool linked;
    uint64_t hash;
    struct list same; /* private to src/engine, from here on */
    struct engine_watch *left, *right;
};
void engine_watch(struct engine_shard *owner, struct engine_watch *watch, uint64_t hash);
void engine_unwatch(struct engine_shard *owner, struct engine_watch *watch);
/* How often a key of the shard has been changed since the start; expiry, and what is done behind the keys, does not
 * count. Owner's thread. */
uint64_t engine_changes(const struct engine_shard *owner);

/* ---- scanning ---------------------------------------------------------------------------------------------------- */

/*
 * A look at some of a shard's keys, in the order of their hashes. Steps that follow each other, each from the `next` of
 * the one before, over all shards, meet every key that is there from the beginning of the first to the end of the last,
 * exactly once; keys that come or go meanwhile, at most once. Nothing is remembered between steps: a hash is a position
 * for ever, whatever happens to the index, over restarts, and with another number of shards.
 *
 * A step shows the keys that are there at the moment of the call; records that are on disk only are read afterwards, a
 * bounded number of them at a time. What has expired is not there. It looks at a few hundred entries at most, or at a
 * few pages of an index that has none.
 */
struct engine_scan;
typedef void engine_scan_key_fn(struct engine_scan *scan, struct slice key); /* the key is good until it returns */
typedef void engine_scan_done_fn(struct engine_scan *scan);

struct engine_scan {
    uint64_t from;   /* a hash that is the owner's */
    unsigned wanted; /* look at about so many entries, at least 1 */
    bool relaxed;    /* may show what is not durable */
    /* Both on the owner's thread, inside a section, perhaps before engine_scan returns, and without another step begun
     * in them: one call for each key, in no order, and then the end. */
    engine_scan_key_fn *key;
    engine_scan_done_fn *done;

    /* Good in `done`. */
    enum kvs_err error; /* OK, NO_MEMORY, CORRUPT (see engine_damage_text), IO: no key was shown */
    uint64_t next;      /* all hashes before it have been looked at, unless there was an error */
    bool end;           /* it is no hash of this shard, but the first of the next one's; 0: there is none */
    unsigned looked;    /* records of these hashes that were looked at, of keys that are there or not */
    uint64_t gate;      /* 0, or the LSN of the owner that must be durable before anybody is told of the step */
};

/* On the owner's thread, inside a section or not. `scan` stays until `done`. */
void engine_scan(struct engine_shard *owner, struct engine_scan *scan);

/* ---- flushing ---------------------------------------------------------------------------------------------------- */

/*
 * Takes all keys of all shards away, at one moment and durably, in a time that does not depend on how many there are.
 * One at a time in the node; its steps are for whoever leads all shards through them together:
 *
 *   1. Nobody changes a key of any shard any more, and what was begun is over.
 *   2. engine_flush_prepare on every shard's thread, until it is OK.
 *   3. engine_flush_begin, on any one of them, with the highest LSN; engine_flush_state until it is not AGAIN.
 *   4. Nobody reads either. engine_flush_end on every shard's thread, until it is OK.
 *   5. Everything may go on. If the state was OK the keys are gone.
 *
 * If the state is an error, nobody knows what a start will find. Then the shards have failed: nothing that builds on
 * keys which may be gone becomes durable.
 */
/* AGAIN: not yet, ask in a later turn. NO_MEMORY, FAILED: it cannot be done; nothing has happened, nothing is to be
 * ended. */
enum kvs_err engine_flush_prepare(struct engine_shard *shard, uint64_t *lsn);
void engine_flush_begin(struct engine_shard *shard, uint64_t lsn);
/* `text`: with an error, what has failed. */
enum kvs_err engine_flush_state(const struct engine_shard *shard, const char **text);
/* AGAIN: nothing was done, try in a later turn. OK, also with a flush that has failed. */
enum kvs_err engine_flush_end(struct engine_shard *shard);

void engine_section_begin(struct engine_shard *shard);
void engine_section_end(struct engine_shard *shard);

/* The engine's time, in milliseconds since 1970, inside a section: the clock is read at most once in each. */
uint64_t engine_now_ms(struct engine_shard *shard);

/* ---- state ----------------------------------------------------------------------------------------------------- */

/* The LSN up to which the shard's log is durable. Owner's thread; others see a value that is at most late. */
uint64_t engine_durable(const struct engine_shard *shard);
/* Asks that everything written so far become durable soon, relaxed writes too, and returns the LSN of the latest of it.
 * Owner's thread. */
uint64_t engine_want_durable(struct engine_shard *shard);
bool engine_failed(const struct engine_shard *shard);
/* What failed, where: for replies and logs. "" while nothing has. */
const char *engine_failure_text(const struct engine_shard *shard);
/* Why there is no room for writes (NO_SPACE): the system's reason for not making a new segment. "" while there is. */
const char *engine_refusal_text(const struct engine_shard *shard);
/* What has ended the background work for good, so that no segment is made or given back until a restart: the manifest
 * has failed. "" while nothing has. Any shard's thread; the text stays. */
const char *engine_background_failure_text(const struct engine_shard *shard);
/* The latest damage met by a read (segment, offset). "" when there was none. */
const char *engine_damage_text(const struct engine_shard *shard);

struct engine_stats {
    uint64_t keys;
    uint64_t index_bytes; /* RAM of the index, directory and growth slack included */
    uint64_t image_bytes; /* RAM that holds log segments */
    uint64_t cache_bytes; /* RAM of the read caches */
    uint64_t cache_records, cache_hits, cache_misses;
    uint64_t records_appended;
    uint64_t bytes_appended; /* records, before padding */
    uint64_t batches;        /* commits */
    uint64_t bytes_written;  /* to the log, padding included */
    uint64_t commit_ns;      /* sum over batches, from submission to durable */
    uint64_t disk_reads;
    uint64_t reads_joined; /* that waited for another one's read of the same record */
    uint64_t disk_read_bytes;
    uint64_t segments;          /* files, free ones included */
    uint64_t disk_bytes;        /* of all segment files */
    uint64_t large_values;      /* value files: also those that have died, until they are removed */
    uint64_t large_value_bytes; /* what they take on disk */
    uint64_t segments_free;     /* files that hold nothing */
    uint64_t segments_sealed;   /* full, and entered in the manifest */
    uint64_t live_bytes; /* of records that count, estimated; as of the latest plan of compaction, or the start: logs
                            have appended less than a segment since */
    uint64_t damaged_reads;
    uint64_t puts_waited, removes_waited; /* operations that found no room in the log at first */
    uint64_t index_splits;
    uint64_t blind_overwrites;
    uint64_t settling;        /* blind overwrites whose old record is being looked for: keys may count them twice */
    uint64_t settles_skipped; /* those that are not looked for, for lack of memory: keys counts them as overwrites until
                                 they are written again, removed or recovered */
    uint64_t expires;         /* keys with an expiry */
    uint64_t expired_keys;    /* removed since the start because their time had come, or found expired by the start */
    uint64_t expiry_bytes;    /* RAM that says when keys expire */
    uint64_t expiry_unqueued; /* keys that found no room there: they expire for readers, and leave the counts when
                                 they are read, when compaction comes to them, or after the next start */
    uint64_t expiry_lag_ms;   /* from a key's time to its removal: the longest in the last minute that had any */
    uint64_t failed_shards;
    uint64_t background_failed; /* 1: see engine_background_failure_text */
    uint64_t checkpoint_runs;   /* files with the index of sealed segments, from which a start reads it */
    uint64_t checkpoint_run_bytes;
    uint64_t checkpoint_made; /* since the start */
    uint64_t checkpoint_bytes_written;
    uint64_t checkpoint_failed; /* runs that were given up because of an error */
};

/* Sums over all shards; any thread; each figure is exact or a moment old. */
void engine_stats(const struct engine *engine, struct engine_stats *out);
/* "O_DIRECT + RWF_DSYNC", "buffered + fdatasync", "none": how the log becomes durable. */
const char *engine_durability_method(const struct engine *engine);

#endif
