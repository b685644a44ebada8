/*
 * large_memory.h - memory for large values and large requests: straight from the system, within a bound that threads
 * share, given back piece by piece.
 *
 * A piece of memory costs nothing but address space until it is touched, so it is taken once, at the size that was
 * announced, and never copied to grow. Giving back tens of megabytes at once would hold a thread up for milliseconds:
 * a struct large_trash takes what is done with and lets go of a little in every turn.
 *
 * A piece counts in the pool that it was taken from, or has been moved to since, until it is given back.
 *
 * Threads: a pool is everybody's. A piece belongs to whoever holds it, and may change hands between threads. A trash
 * belongs to one thread.
 */
#ifndef KVS_BASE_LARGE_MEMORY_H
#define KVS_BASE_LARGE_MEMORY_H

#include "base/bytes.h"
#include "base/list.h"

#include <stdatomic.h>

/* The holder's, too: so many bytes before the data and behind its last byte, for what goes around it on the wire. */
#define LARGE_MEMORY_ROOM 64u

struct large_pool {
    _Atomic uint64_t used_bytes;
    uint64_t bytes_max; /* of all pieces together; a single one is let through when there is no other */
};

struct large_memory {
    struct list link; /* the holder's */
    struct large_pool *pool;
    size_t mapped_bytes; /* from the struct on: what counts in the pool */
    size_t size;         /* at `data` */
    uint8_t *data;       /* aligned to 4 KiB */
};

/* By how much more than its bound a pool may be used: when it is not asked, only told. */
#define LARGE_MEMORY_ANY UINT64_MAX

/* NULL: the pool has no room for it now, even `over` bytes beyond its bound, or the system has no memory. */
struct large_memory *large_memory_take(struct large_pool *pool, size_t size, uint64_t over);

/* Makes it larger, without a copy; it may move. NULL: no room; it is as it was. */
struct large_memory *large_memory_grow(struct large_memory *memory, size_t size, uint64_t over);

/* From now on it counts in this pool, which is only told. */
void large_memory_move(struct large_memory *memory, struct large_pool *pool);

/* Gives it back at once. NULL is allowed. */
void large_memory_give(struct large_memory *memory);

struct large_trash {
    struct list pieces;
};

static inline void large_trash_init(struct large_trash *trash)
{
    list_init(&trash->pieces);
}

/* Takes the piece; a small one goes at once. NULL is allowed. */
void large_trash_add(struct large_trash *trash, struct large_memory *memory);
/* Lets go of some of it; true while there is more. */
bool large_trash_turn(struct large_trash *trash);
void large_trash_empty(struct large_trash *trash);

#endif
