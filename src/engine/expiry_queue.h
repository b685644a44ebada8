/*
 * expiry_queue.h - which records expire, and when: one queue per shard, used by its owner alone.
 *
 * An item names a record by the hash of its key and its address. Items are not taken out when their record is
 * overwritten, deleted or moved: when their time comes the owner finds that the index does not show that address any
 * more, and drops them. So that records which are written again and again do not fill the queue with stale items,
 * expiry_queue_sweep goes through it in small steps and drops those that a filter says are stale.
 *
 * Costs: 24.4 bytes of RAM per item when there are many; a queue of few items takes up to 512 bytes for each bucket
 * that is in use, and an empty one takes 32 KB for its buckets. Adding takes constant time and never copies an item
 * twice. An item is moved to a finer level of the wheel at most nine times before it is due (four times when that is a
 * week away); all such work is done in bounded steps, see expiry_queue_take.
 * Source: G. Varghese and T. Lauck, "Hashed and hierarchical timing wheels", 1987.
 */
#ifndef KVS_ENGINE_EXPIRY_QUEUE_H
#define KVS_ENGINE_EXPIRY_QUEUE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct expiry_queue;

struct expiry_item {
    uint64_t expires_ms; /* milliseconds since 1970 */
    uint64_t hash;
    uint64_t address;
};

/* The finest wheel's: no item is found due later than this after its time. */
enum { EXPIRY_TICK_MS = 64 };

/* `now_ms`: the wall clock at the opening. `bytes_max`: of RAM for items. It is never exceeded, wherever items move;
 * for that, up to 641 KiB of it are kept free, and a small one has room for one item per 512 bytes only. */
enum kvs_err expiry_queue_open(struct expiry_queue **out, uint64_t now_ms, uint64_t bytes_max);
/* NULL is allowed. */
void expiry_queue_close(struct expiry_queue *queue);

/* Any time, in the past or as far in the future as 64 bits reach. NO_MEMORY at bytes_max or when the system has none;
 * no other function needs memory. */
enum kvs_err expiry_queue_add(struct expiry_queue *queue, const struct expiry_item *item);

/*
 * Takes up to `max` (> 0) items whose time is at or before now_ms, never before their time. Returns their number.
 *
 * Bounded: a call touches at most 2 * max items, those it takes and those it moves to a finer level. So it may return
 * fewer than `max`, even none, although more are due. expiry_queue_wait_ms tells: while it is 0, call again. Every
 * item is taken in the call that looks at it if it is due by then, so none is later than EXPIRY_TICK_MS plus the time
 * of the steps that are being made. Ticks come in order of time, except that items found due while a coarse bucket is
 * being moved come at once; the order within a tick is not defined.
 *
 * A clock that jumps, forth or back, does no harm: what is due is found, what is not is kept. A jump forth over empty
 * years costs nothing; one back joins up to 1,152 lists to others and touches up to ten items for each.
 */
size_t expiry_queue_take(struct expiry_queue *queue, uint64_t now_ms, struct expiry_item *items, size_t max);

/* Milliseconds from now_ms until expiry_queue_take has something to do, be it only items to move; 0 = now, or it has
 * not done with what is due; -1 = the queue is empty. May be earlier than the next item's time, never more than
 * EXPIRY_TICK_MS - 1 later. */
int64_t expiry_queue_wait_ms(const struct expiry_queue *queue, uint64_t now_ms);

/*
 * Looks at up to `max` (> 0) items and drops those for which `stale` says so; `stale` must not call the queue. True
 * when it has been through the whole queue since the sweep began (the next call begins another). A sweep looks exactly
 * once at each item that was there when it began, unless that is taken before, whatever is added, taken or moved
 * meanwhile; items that are added during a sweep are left to the next one, so it ends after count / max + 1 calls at
 * the latest.
 */
bool expiry_queue_sweep(struct expiry_queue *queue, size_t max,
                        bool (*stale)(void *context, const struct expiry_item *item), void *context);

/* Any thread; exact or a moment old. */
uint64_t expiry_queue_count(const struct expiry_queue *queue);
/* Of the chunks that hold items. The pool may hold on to more RAM, at most what was in use before, and gives it back in
 * blocks, one with each call of take or sweep, as far as they have become empty. */
uint64_t expiry_queue_bytes(const struct expiry_queue *queue);

/* The owner: items taken, moved or looked at by sweeps since the opening; the measure of work done. */
uint64_t expiry_queue_touched(const struct expiry_queue *queue);

#endif
