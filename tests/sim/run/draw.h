/*
 * draw.h - choices of plans, clients and rot, apart from the machine's own: SplitMix64 (G. Steele, D. Lea, C. Flood,
 * "Fast Splittable Pseudorandom Number Generators", 2014). Pure; the state is the caller's.
 */
#ifndef KVS_TESTS_SIM_RUN_DRAW_H
#define KVS_TESTS_SIM_RUN_DRAW_H

#include <stdint.h>

static inline uint64_t draw_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
