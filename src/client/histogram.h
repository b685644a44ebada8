/*
 * histogram.h - how long things took: counts in log-linear buckets, with a bounded relative error.
 *
 * Every power of two is cut into 128 equal buckets (values below 256 have one each), so that a bucket is narrower than
 * 1/128 of the values in it. histogram_percentile answers with the top of a bucket: never below the true value, and
 * above it by less than 0.79 %. Count, least, greatest and sum are exact. The whole range of uint64_t is covered: there
 * is nothing to configure and nothing falls outside.
 *
 * Pure; one thread at a time per histogram. 58 KiB, of which only the buckets that are hit stay in the processor's
 * cache.
 */
#ifndef KVS_CLIENT_HISTOGRAM_H
#define KVS_CLIENT_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS_LOG2 7u
#define HISTOGRAM_STEPS      (1u << HISTOGRAM_STEPS_LOG2)
#define HISTOGRAM_BUCKETS    ((64u - HISTOGRAM_STEPS_LOG2 + 1u) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t count;
    uint64_t sum; /* wraps beyond 2^64: 584 years of nanoseconds */
    uint64_t min; /* UINT64_MAX when empty */
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *histogram);

/* The bucket of a value, and the greatest value that falls into a bucket. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value < 2 * HISTOGRAM_STEPS)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_STEPS_LOG2;
    return shift * HISTOGRAM_STEPS + (uint32_t)(value >> shift);
}

uint64_t histogram_bucket_top(uint32_t bucket);

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->buckets[histogram_bucket(value)]++;
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->max)
        histogram->max = value;
    if (value < histogram->min)
        histogram->min = value;
}

/* Adds what `from` has counted to `into`. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/*
 * The least value that at least `percent` (0..100) of the values do not exceed, by the error above; 100 gives the exact
 * maximum. 0 when nothing has been counted.
 */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

/* Mean; 0 when nothing has been counted. */
double histogram_mean(const struct histogram *histogram);

#endif
