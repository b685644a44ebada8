/*
 * loadgen_schedule.h - when the requests of an open loop are due: at equal distances, whatever the server does.
 *
 * The schedule of a run is dealt out to the threads in turn, like cards: thread `index` of `stride` has every stride-th
 * request. Pure.
 */
#ifndef KVS_TOOLS_LOADGEN_SCHEDULE_H
#define KVS_TOOLS_LOADGEN_SCHEDULE_H

#include <stdint.h>

struct schedule {
    uint64_t begin_ns;
    uint64_t rate; /* requests a second, of all threads together; at least 1 */
    uint64_t index, stride;
};

/* When this thread's request `number` (from 0 on) is due. Rounded down for each request anew: nothing adds up. */
static inline uint64_t schedule_due_ns(const struct schedule *schedule, uint64_t number)
{
    unsigned __int128 place = (unsigned __int128)number * schedule->stride + schedule->index;
    return schedule->begin_ns + (uint64_t)(place * 1000000000u / schedule->rate);
}

/* How many of this thread's requests are due less than `span_ns` after the beginning. */
static inline uint64_t schedule_count(const struct schedule *schedule, uint64_t span_ns)
{
    uint64_t all = (uint64_t)(((unsigned __int128)span_ns * schedule->rate + 999999999u) / 1000000000u);
    return all > schedule->index ? (all - schedule->index - 1) / schedule->stride + 1 : 0;
}

#endif
