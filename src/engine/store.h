/*
 * store.h - the log-structured engine `kvs`, from inside: one struct store, one struct store_shard per thread.
 *
 * store.c opens and closes, and runs a shard's turn; store_ops.c answers from RAM; store_wait.c carries out operations
 * that have to wait for a disk read (store_reads.c), for room in the log or for an earlier operation on the key;
 * store_scan.c shows which keys there are; store_expiry.c takes out what has expired; store_flush.c takes all keys
 * away; recovery.c fills a store from its directory.
 *
 * What an index entry means. An entry points at a put, or at a delete record that is not durable yet (its reader has to
 * wait for it); once durable, the delete's entry goes. A put that has expired reads as if it were not there; its entry
 * stays until it is durable and settled, and then goes, too. Of several records of one key the index shows the newest
 * first. An entry is unsettled when an overwrite did not know whether the older entry with its fingerprint, whose
 * record is on disk, is of the same key: it went in front, was counted as an overwrite, and a read in the background
 * settles it.
 */
#ifndef KVS_ENGINE_STORE_H
#define KVS_ENGINE_STORE_H

#include "engine/engine_internal.h"
#include "engine/index.h"
#include "engine/keeper.h"
#include "engine/log.h"
#include "engine/name_sync.h"
#include "engine/read_cache.h"
#include "engine/relocation.h"
#include "engine/segment.h"
#include "engine/store_expiry.h"
#include "engine/store_flush.h"
#include "engine/store_values.h"

struct store;

enum {
    STORE_BUSY_BUCKETS = 1024,
    STORE_SETTLING_MAX = 256,       /* blind overwrites of a shard that are being settled; more of them wait */
    STORE_READ_BUFFER_BYTES = 8192, /* the size that is pooled: a record of up to 4 KiB anywhere in its blocks */
    STORE_READ_BUFFERS_KEPT = 256,
    STORE_READ_BUCKETS = 256, /* of reads under way, by address */
};

struct store_counters {
    _Atomic uint64_t reads_joined, disk_reads, disk_read_bytes, damaged_reads, blind_overwrites, settles_begun,
        settles_ended, settles_skipped, puts_waited, removes_waited;
};

struct store_shard {
    struct engine_shard base; /* first */
    struct store *store;
    unsigned id;
    struct ring *ring; /* NULL until started */
    bool started;
    bool stopping;
    bool clean_marked;
    _Atomic bool log_stopped; /* for good: what it has written, and where, is the background's to look at from now on */

    _Atomic(struct index *) index; /* another one after a flush; others look at it inside of their sections */
    _Atomic uint64_t keys;
    struct log log;
    bool stock_asked;                 /* see ask_for_stock */
    bool tight_told;                  /* the keeper knows that the index needs more than it may take */
    _Atomic uint64_t index_bytes_max; /* what it may take: the keeper's to raise (keeper.h) */
    struct segment *adopted;          /* at start-up: the segment to go on writing in, its image attached; or NULL */

    /* Between the keeper and the shard (keeper.h, relocation.h). */
    _Atomic(struct ring *) wake_ring;         /* `ring`, once started */
    _Atomic(struct segment *) offered;        /* the next segment for the log, until that opens it */
    _Atomic bool deletes_wait;                /* removes are stalled, and the log has no spare */
    _Atomic bool deletes_refused;             /* there is no segment for them, and none to be gained */
    _Atomic(struct relocation_slice *) slice; /* index entries to swing */
    _Atomic uint64_t retire_acked;            /* the latest retirement it has acknowledged */
    uint64_t retire_seen, retire_lsn;         /* the latest it has seen, and how far its log was then */
    unsigned generation;                      /* of reads from disk: the parity of retirements seen */
    unsigned reading[2];                      /* operations that may read from disk, by generation */

    /* Operations under way by hash of their key; those behind the first wait for it. */
    struct list busy[STORE_BUSY_BUCKETS];
    unsigned busy_count;
    struct list stalled;         /* puts that wait for room in the log, in order */
    struct list stalled_removes; /* the same of removes: there may be room for them sooner */
    struct list waits;           /* what operations need while they wait for the disk */
    struct list settlings;       /* background operations under way */
    unsigned settling;
    unsigned reads_in_flight;
    uint64_t reads_bytes, reads_bytes_max; /* that they read */
    struct list reads_late;                /* struct wait: reads that have to wait until fewer bytes are being read */

    /* Reads under way by address: others who want the same record wait for them. */
    struct list reads[STORE_READ_BUCKETS];
    _Atomic(struct read_cache *) cache; /* NULL while it has no memory. The owner's; others read its figures */
    uint64_t cache_bytes;
    _Atomic uint64_t cache_target; /* what the keeper lets it use */

    /* Steps of scans that read from disk, and how many of these reads fly, of how many bytes. */
    struct list scans;
    unsigned scan_reads;
    uint64_t scan_read_bytes;

    void *read_buffers; /* free ones, listed through their first word */
    unsigned read_buffer_count;

    struct shard_values values;

    /* Raised before an older entry of a key goes because a newer one is in front of it: a reader's walk may have passed
     * the place of the newer before it came and find the older gone. */
    _Atomic uint64_t settles;
    struct store_counters counters;
    struct store_expiry expiry;
    struct shard_flush flush;
    struct list groups;             /* struct engine_group: appended here, and not ended */
    unsigned groups_removing;       /* groups of deletes that wait for room in the log */
    _Atomic uint64_t groups_lsn;    /* the first LSN of the oldest; UINT64_MAX: there is none */
    _Atomic uint32_t held_in_group; /* keys of this shard that are held for groups */
    char damage[ENGINE_MESSAGE_BYTES];
};

struct store {
    struct engine base;     /* first */
    struct name_sync names; /* of the data directory. While it is open by the background alone, before by the start */
    struct segment_table segments;
    bool direct;           /* O_DIRECT works in this directory */
    bool sync_after_write; /* else a write with RWF_DSYNC is durable when complete */
    unsigned shard_count;
    struct keeper keeper;
    struct store_values values;
    struct store_flush flush;
    _Atomic uint64_t retire_serial; /* retirements begun */
    _Atomic bool space_promised;    /* compaction is at work on freeing space */
    _Atomic uint64_t settled;       /* raised when a settled overwrite has had older records counted as dead */
    struct store_shard *shards[KVS_SHARDS_MAX];
};

static inline struct store_shard *store_shard_of(struct engine_shard *shard)
{
    return container_of(shard, struct store_shard, base);
}

/* Why the keeper has no segment for this shard's log; OK when one is there or on its way. */
static inline enum kvs_err store_maker_error(const struct store_shard *shard)
{
    return atomic_load_explicit(&shard->store->keeper.makers[shard->id].error, memory_order_relaxed);
}

static inline uint64_t store_counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void store_set(_Atomic uint64_t *figure, uint64_t value)
{
    atomic_store_explicit(figure, value, memory_order_relaxed);
}

static inline void store_count(_Atomic uint64_t *counter, int64_t by)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + (uint64_t)by, memory_order_relaxed);
}

/* Wakes a shard's thread, once it has started. */
static inline void store_shard_wake(const struct store_shard *shard, struct ring *from)
{
    struct ring *ring = atomic_load_explicit(&shard->wake_ring, memory_order_acquire);
    if (ring != NULL && from != NULL)
        ring_wake(from, ring);
}

/* The same, all of them. */
static inline void store_wake_shards(const struct store *store, struct ring *from)
{
    for (unsigned i = 0; i < store->shard_count; i++)
        store_shard_wake(store->shards[i], from);
}

/* The record at `address` in RAM; NULL when it is in no image. Inside a section. */
static inline const struct record_header *store_resident(const struct store *store, uint64_t address)
{
    const struct segment *segment = segment_get(&store->segments, address_segment(address, store->segments.shift));
    if (segment == NULL)
        return NULL;
    const uint32_t offset = address_offset(address, store->segments.shift);
    return (const struct record_header *)(const void *)segment_image_at(segment, offset);
}

static inline bool record_has_key(const struct record_header *record, struct slice key)
{
    return slice_equal(record_key(record), key);
}

/* The index does not point at this put any more. */
static inline void store_count_dead(struct store_shard *shard, const struct index_entry *entry)
{
    const struct segment_table *table = &shard->store->segments;
    segment_count_dead(segment_get(table, address_segment(entry->address, table->shift)), entry->class, 1);
}

/* ---- store.c --------------------------------------------------------------------------------------------------- */

/* What a shard's index may take at first, and at most. */
uint64_t store_index_share(const struct store *store);
uint64_t store_index_limit(const struct store *store);

/* Segments that logs and compaction need at the least: large values leave them the space. */
uint32_t store_segments_min(const struct store *store);

/* At start-up: gives the shard an empty index, made for so many keys, in place of what it has. */
enum kvs_err store_index_reset(struct store_shard *shard, uint64_t keys);
/* The same with one that has these pages. */
enum kvs_err store_index_take(struct store_shard *shard, const struct index_pages *pages);
/* An empty one, beside the one it has. */
enum kvs_err store_index_next(struct store_shard *shard, struct left_index **out);

/* ---- store_ops.c ----------------------------------------------------------------------------------------------- */

/* Whether the record is a put that counts no more. `reader`: of this thread, inside a section. */
bool store_expired(struct store_shard *reader, const struct record_header *record);
/* Turns a record of the key, in RAM, into a result. `log`: the owner's, whose durability decides on the gate. A large
 * value is not in it: see result->large_id. */
void store_result(struct store_shard *reader, const struct record_header *record, const struct log *log,
                  const struct engine_request *request, struct engine_result *result);

const struct record_header *store_look(struct store_shard *shard, uint64_t address);

enum engine_answer store_try(struct engine_shard *owner, const struct engine_request *request,
                             struct engine_result *result);
enum engine_answer store_try_get(struct engine_shard *reader, unsigned owner_id, const struct engine_request *request,
                                 struct engine_result *result);

void store_prefetch(struct engine_shard *reader, unsigned owner_id, uint64_t hash, enum engine_prefetch_step step);

/*
 * What an operation that had to wait knows of the candidates: of each that was there when it began, whether its record
 * has the key. Those that have come since are of other keys, for operations on one key wait for each other.
 */
struct store_known {
    const uint64_t *addresses;
    unsigned count;
    uint64_t compared; /* bit i: it is known whether the record at addresses[i] has the key. (A hold that ends in a put
                          knows what comes before the key's newest record) */
    uint64_t equal;    /* bit i: it has … */
    uint64_t expiring; /* … it has an expiry … */
    uint64_t expired;  /* … which has passed */
    /* Of those that have the key and are large, as far as there is room: */
    unsigned large_count;
    const struct store_known_large {
        unsigned position; /* in addresses */
        struct value_descriptor descriptor;
    } * large;
};
enum { STORE_KNOWN_LARGE_MAX = 3 };

/* What to answer when the log has no room for a put, or a delete record: AGAIN while room will come; NO_SPACE when none
 * is in sight. */
enum kvs_err store_no_room(const struct store_shard *shard, bool removes);

/* Whether the request is to take the key away: a REMOVE, or a PUT of what has expired already. Inside a section. */
bool store_removes(struct store_shard *shard, const struct engine_request *request);
/* Of a record that the index shows; `log`: of the key's owner. A group's is shown when it is durable, in whatever log.
 */
static inline bool store_is_durable(const struct log *log, const struct record_header *record)
{
    return (record->flags & RECORD_GROUP) != 0 || record->lsn <= log_durable(log);
}

/* A change of one key. */
struct store_write {
    const struct engine_request *request;
    const struct store_known *known;
    const struct value_descriptor *descriptor; /* PUT of a large value: of its file, which is there; EXPIRE: of the
                                                  value that is there; else NULL */
    const struct log_place *placed;            /* its record stands in some log, and is durable; NULL: it is appended */
};
/* Carries out a PUT, an EXPIRE, or a REMOVE whose cold candidates are all known. AGAIN: no room in the log, nothing was
 * done. */
enum kvs_err store_put(struct store_shard *shard, const struct store_write *write, struct engine_result *result);
enum kvs_err store_remove(struct store_shard *shard, const struct store_write *write, struct engine_result *result);
/* Ends the uncertainty of an unsettled entry whose key is request->key. */
void store_settle(struct store_shard *shard, const struct engine_request *request, const struct store_known *known);
/* Drops the entries of delete records in a batch that has become durable (log_options.deletes_durable). */
void store_deletes_durable(void *context, const struct segment *segment, uint32_t offset);

/* ---- store_buffers.c ------------------------------------------------------------------------------------------- */

/* NULL: no memory. To be given back with the same size. */
uint8_t *store_buffer_take(struct store_shard *shard, size_t bytes);
/* `buffer` may be NULL. */
void store_buffer_give(struct store_shard *shard, uint8_t *buffer, size_t bytes);
/* Frees those that are kept. */
void store_buffers_free(struct store_shard *shard);

/* ---- store_wait.c ---------------------------------------------------------------------------------------------- */

void store_submit(struct engine_shard *owner, struct engine_op *op);
void store_conclude(struct engine_op *op);
void store_op_release(struct engine_op *op);
/* True when an operation that changes this hash's key is under way on its owner. */
bool store_busy(const struct store_shard *owner, uint64_t hash);
/* Goes on with operations that waited for room. */
void store_resume_stalled(struct store_shard *shard);
/* The record that a candidate of waiting operations stands for has another place now. */
void store_wait_moved(struct store_shard *owner, uint64_t hash, uint64_t from, uint64_t to);
/* It has left the index, though not by one of them. */
void store_wait_gone(struct store_shard *owner, uint64_t hash, uint64_t address);
/* Frees what is left of operations that a crash has abandoned, and the pooled buffers. */
void store_wait_deinit(struct store_shard *shard);

/* ---- store_group.c --------------------------------------------------------------------------------------------- */

uint64_t store_change_bytes_max(const struct engine *engine);
enum kvs_err store_group_prepare(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                 unsigned count);
enum kvs_err store_group_append(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                unsigned count, uint64_t after_lsn);
enum kvs_err store_publish(struct engine_op *op, const struct engine_change *change, const struct engine_group *group);
void store_group_end(struct engine_shard *shard, struct engine_group *group);
/* What has been appended up to this LSN, by any shard, has been shown or will never be. Any thread; to be asked for
 * before whatever is looked at with it. */
uint64_t store_groups_shown(const struct store *store);
/* Of a sealed segment: it may have records of a group that is appended and not shown. No index points at them, and yet
 * they are not dead. */
bool store_holds_group(const struct store *store, const struct segment *segment);

/* ---- store_settle.c -------------------------------------------------------------------------------------------- */

/* Beyond the actions of engine.h: ends the uncertainty that a blind overwrite has left. */
enum { STORE_SETTLE = 100 };

/* Starts a background read that settles what a blind overwrite of this key left open. */
void store_settle_later(struct store_shard *shard, struct slice key, uint64_t hash);
/* Frees those that a crash has abandoned. */
void store_settlings_free(struct store_shard *shard);

/* ---- store_scan.c ------------------------------------------------------------------------------------------------ */

void store_scan(struct engine_shard *owner, struct engine_scan *scan);
/* No step is under way. */
bool store_scan_idle(const struct store_shard *shard);
/* Frees those that a crash has abandoned. */
void store_scan_deinit(struct store_shard *shard);

/* ---- recovery.c ------------------------------------------------------------------------------------------------ */

/* Reads all segments into index, images and table; chooses the segments to go on writing in; raises epoch and lsn_base
 * in the superblock, durably. */
enum kvs_err store_recover(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES]);

#endif
