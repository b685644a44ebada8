/*
 * wall_clock.h - the time of a store: what keys expire by.
 *
 * It is the system's wall clock, as long as that does not go back. When it does, the store's time goes on from where it
 * was at the pace of the monotonic clock, until the wall clock has caught up: what was once shown as expired stays so.
 * Over restarts wall_clock_raise keeps it, with the time that the log's batches tell.
 *
 * One for all threads of a store. A time that one thread has got is never later than what any other gets afterwards.
 */
#ifndef KVS_ENGINE_WALL_CLOCK_H
#define KVS_ENGINE_WALL_CLOCK_H

#include "ring/ring.h"

#include <stdatomic.h>
#include <stdint.h>

struct wall_clock {
    _Atomic uint64_t last_ms; /* the latest time that anybody has got */
    _Atomic int64_t pace_ms; /* from the monotonic clock to a time that is not ahead of what it has been; raised only */
};

void wall_clock_init(struct wall_clock *clock, struct ring *ring);
/* From now on it is at least this late. Start-up. */
void wall_clock_raise(struct wall_clock *clock, struct ring *ring, uint64_t time_ms);
/* Milliseconds since 1970. Any thread, with its ring. */
uint64_t wall_clock_now(struct wall_clock *clock, struct ring *ring);

#endif
