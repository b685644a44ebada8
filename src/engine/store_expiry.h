/*
 * store_expiry.h - keys of a shard leave by themselves when their time has come.
 *
 * Readers compare a record's expiry with the time, so an expired key is not there for anybody. This is the other half:
 * a queue (expiry_queue.h) tells the owner what has expired, and it takes the entries out of the index, a few hundred a
 * turn. No delete is written: the put itself stays in the log, and hides what a delete would hide. A start does not put
 * an expired record into the index, and compaction keeps it, as a delete, for as long as it would keep a delete.
 *
 * Everything is the owner's thread's, but for the figures.
 */
#ifndef KVS_ENGINE_STORE_EXPIRY_H
#define KVS_ENGINE_STORE_EXPIRY_H

#include "engine/expiry_queue.h"
#include "engine/index.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct store_shard;

struct store_expiry {
    struct expiry_queue *queue;
    bool sweeping;
    uint64_t shown_ms;      /* the latest expiry that a reader was shown as past, or that was removed */
    uint64_t stamp_ns;      /* no stamp before (see store_expiry_turn) */
    uint64_t lag_window_ms; /* when the current minute of lags began */
    _Atomic uint64_t keys;  /* index entries of puts with an expiry */
    _Atomic uint64_t expired, unqueued, lag_ms, lag_before_ms;
};

/* `bytes_max`: of RAM for the queue. */
enum kvs_err store_expiry_open(struct store_shard *shard, uint64_t bytes_max, uint64_t now_ms);
void store_expiry_close(struct store_shard *shard);

/*
 * An entry for this put is in the index. When the queue is full it does without: the key expires for readers all the
 * same, and is taken out when it is read (store_expiry_met), when compaction has moved it, or by the next start.
 * `large`: its value is known to lie in a file, which has to go even if the record is on disk only by then.
 */
void store_expiry_add(struct store_shard *shard, uint64_t hash, uint64_t address, uint64_t expires_ms, bool large);
/* A GET of the owner has met an expired record. */
void store_expiry_met(struct store_shard *shard, uint64_t hash, uint64_t address, bool large);
/* Once per turn, outside of sections. */
void store_expiry_turn(struct store_shard *shard);
/* Before the log is stopped: what was shown as expired is to stay so. */
void store_expiry_stop(struct store_shard *shard);
/* Calls `each` for the record of every item whose entry is in the index: for the background, when the shard has stopped
 * and nothing of it changes any more. The time may be later than the record's. */
void store_expiry_each(struct store_shard *shard,
                       void (*each)(void *context, uint64_t hash, uint64_t address, uint64_t expires_ms),
                       void *context);
/* Nanoseconds until the turn has something to do by itself; -1 = never. */
int64_t store_expiry_timeout_ns(const struct store_shard *shard);

#endif
