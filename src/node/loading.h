/*
 * loading.h - how far the opening of the store has come, in the figures that clients and operators are told.
 *
 * Pure: any thread.
 */
#ifndef KVS_NODE_LOADING_H
#define KVS_NODE_LOADING_H

#include "engine/engine.h"

struct loading {
    uint64_t bytes_total;  /* to be read, as known so far */
    uint64_t bytes_done;   /* at most bytes_total */
    double percent;        /* 0…100; 0 while nothing is known */
    uint64_t seconds_left; /* at the pace so far, rounded up; 1 while nothing is known, as in Redis */
};

/* `elapsed_ns`: since it began. */
struct loading loading_look(const struct engine_progress *progress, uint64_t elapsed_ns);

#endif
