/*
 * loadgen_random.h - the load generator's random numbers: splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable
 * pseudorandom number generators", OOPSLA 2014). A run's choices follow from its seed alone. Pure.
 */
#ifndef KVS_TOOLS_LOADGEN_RANDOM_H
#define KVS_TOOLS_LOADGEN_RANDOM_H

#include <stdint.h>

/* What the state moves by. */
#define LOADGEN_RANDOM_STEP UINT64_C(0x9E3779B97F4A7C15)

/* The generator's output function: spreads what differs in a few bits. */
static inline uint64_t loadgen_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static inline uint64_t loadgen_random(uint64_t *state)
{
    *state += LOADGEN_RANDOM_STEP;
    return loadgen_mix(*state);
}

/* 0 or more, below 1. */
static inline double loadgen_random_unit(uint64_t *state)
{
    return (double)(loadgen_random(state) >> 11) * 0x1p-53;
}

#endif
