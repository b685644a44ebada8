/*
 * store_values.h - large values in the engine `kvs`: puts and gets whose value is a file of its own (value_format.h),
 * the memory that gets are read into, and the end of files that nothing names any more.
 *
 *   PUT   file written, durable ──► record appended, with a descriptor for a value ──► as any other put
 *   GET   record found, as for any other get ──► memory from the pool ──► file read and verified ──► result
 *   death the index leaves a large put ──► what superseded it is durable, gets of that time have ended ──► file removed
 *
 * A death is noticed when the record is at hand: in RAM, or read by the REMOVE or the settling that drops its entry, or
 * because it expires (store_values_cold.c). Files whose death was not noticed, or came to nothing in a crash, are found
 * after the next start (value_sweep.h). What has expired is shown as gone by the time alone: its file stays until the
 * log has told that time durably, for a start whose clock was set back would show the key again.
 *
 * Threads: a shard's values are its owner's thread's. Figures and the pool are everybody's; a query belongs to the
 * background until it is in `query`, then to the owner until that is NULL again.
 */
#ifndef KVS_ENGINE_STORE_VALUES_H
#define KVS_ENGINE_STORE_VALUES_H

#include "engine/engine_internal.h"
#include "engine/index.h"
#include "engine/value_file.h"

struct store;
struct store_shard;

enum {
    VALUE_PUTS_MAX = 4,    /* of a shard being written at the same time; more wait */
    VALUE_UNLINKS_MAX = 4, /* of a shard in flight */
    VALUE_LOOKS_MAX = 8,   /* records of a shard that have expired being read at the same time */
};

/* A file that was there when the store was opened. */
struct value_found {
    struct value_name name;
    uint64_t expires_ms; /* its value counted when it was looked at, and expires then; 0: it is to be looked at */
};

/* Of the whole store. */
struct store_values {
    struct value_place place; /* dir_fd -1: there was no space to make the folder */
    uint64_t large_min;       /* values from this size on are large; UINT64_MAX: none is */
    _Atomic uint32_t counter; /* of ids given in this boot */
    _Atomic uint64_t files, bytes;
    _Atomic bool held; /* no file is removed meanwhile: a backup is under way */
    struct large_pool own_pool;
    struct large_pool *pool;
    struct large_pool reserve; /* a single piece, for a get that has waited for the pool for a while */

    /* What the start has found, for the sweep. */
    struct value_found *found;
    size_t found_count, found_capacity;
};

/* A file of an earlier boot: its key's owner is to say whether it counts, and to let it go if it does not. */
struct value_query {
    struct engine_op op; /* with the key */
    struct store_shard *shard;
    struct value_name name;
    bool submitted;
    uint64_t expires_ms; /* the answer: it counts, until then; 0: it does not, or does not expire */
};

/* Of a GET that has begun and not ended: files that die meanwhile stay. */
struct value_reader_mark {
    struct list link;
    uint64_t serial;
    bool granted; /* it has the memory for its value */
};

/* Of a shard. */
struct shard_values {
    struct list puts, puts_waiting; /* struct value_put */
    struct list puts_written;       /* likewise: the file is there, the record is not yet */
    unsigned put_count;
    struct list gets, gets_waiting; /* struct value_get; those that wait do so for memory */
    struct list marks;              /* of gets, in order */
    uint64_t serial;
    struct list dying, unlinking; /* struct value_dying */
    unsigned unlink_count;
    struct list looks; /* struct value_look: records that are being read */
    unsigned look_count;
    _Atomic uint64_t oldest_ns; /* when the first of those that wait for memory was asked for; UINT64_MAX: none waits */
    bool gets_first;            /* whose turn it is to work */
    struct large_trash trash;
    _Atomic(struct value_query *) query;
};

/* The file of a large value that is to be put. */
struct value_put {
    struct list link;
    struct value_writer writer;
    struct store_shard *shard;
    struct engine_op *op;       /* the PUT; NULL: … */
    struct engine_group *group; /* … a change of this group */
};

/* ---- opening and closing --------------------------------------------------------------------------------------- */

/* At start-up: makes the folder, lists it, and removes what was unfinished. */
enum kvs_err store_values_open(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES]);
/* Lists the files once more, into `found`: finished ones with ids below this one. The background's. */
enum kvs_err store_values_list(struct store *store, struct ring *ring, uint64_t below);
void store_values_close(struct store *store, struct ring *ring);
void shard_values_init(struct shard_values *values);
/* Frees what a crash has abandoned. */
void shard_values_deinit(struct shard_values *values, struct ring *ring);

/* While it is held no file is removed. The background's. */
void store_values_hold(struct store *store, bool held);

/* ---- the owner's thread ---------------------------------------------------------------------------------------- */

bool store_value_is_large(const struct store_shard *shard, const struct engine_request *request);

/* Begins to write the value of a PUT; store_value_written is called when it has ended. Otherwise the error is the
 * operation's. */
enum kvs_err store_value_put(struct store_shard *shard, struct engine_op *op);
/* The same for a change of a group: group->files_pending falls by one when it has ended. */
enum kvs_err store_value_put_change(struct store_shard *shard, struct engine_group *group,
                                    struct engine_change *change);
/* The PUT has ended. Unless it went well its file goes. */
void store_value_put_end(struct store_shard *shard, struct value_put *put, bool good);

/* Reads the value that the descriptor names for a GET; store_value_got is called, possibly before this returns. */
void store_value_get(struct store_shard *shard, struct engine_op *op, struct value_reader_mark *mark,
                     const struct value_descriptor *descriptor);

void store_value_mark_begin(struct store_shard *shard, struct value_reader_mark *mark);
void store_value_mark_end(struct value_reader_mark *mark);

/* The index does not point at this put any more, and what has superseded it has been appended. */
void store_value_died(struct store_shard *shard, const struct value_descriptor *descriptor, size_t key_bytes);
/* The index does not point at this put any more, for it has expired. */
void store_value_expired(struct store_shard *shard, const struct value_descriptor *descriptor, size_t key_bytes,
                         uint64_t expires_ms);

/* Likewise, but the record is on disk only, and tells the file: it is read first. False: too many such reads are under
 * way, or there is no memory, and nothing was done. */
bool store_value_expired_cold(struct store_shard *shard, const struct index_entry *entry, uint64_t expires_ms);
/* Frees those that a crash has abandoned. */
void store_value_looks_free(struct shard_values *values);

/* Once per turn. */
void store_values_turn(struct store_shard *shard);
int64_t store_values_timeout_ns(const struct store_shard *shard);
/* Nothing is in flight, and nothing waits but files for their removal: the next start finds those. */
bool store_values_idle(const struct store_shard *shard);

/* In store_wait.c: a large PUT's file is durable or has failed; a large GET has its result but for the call back. */
void store_value_written(struct store_shard *shard, struct engine_op *op, enum kvs_err error);
void store_value_got(struct store_shard *shard, struct engine_op *op, const char *damage);

#endif
