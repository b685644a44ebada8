/*
 * histogram.c - see histogram.h.
 *
 * A value v of 2^k or more (k >= 8) is shifted right until 8 bits are left; these, 128..255, pick the bucket within the
 * power of two, and the shift picks the power:
 *
 *   bucket:   0 ... 255 | 256 ... 383 | 384 ... 511 | ...
 *   value:    0 ... 255 | 256 ... 511 | 512 ... 1023 | ...
 *   width:        1     |      2      |      4       | ...
 *
 * Nothing here can fail.
 */
#include "client/histogram.h"

#include "base/assert.h"

#include <string.h>

void histogram_init(struct histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
    histogram->min = UINT64_MAX;
}

uint64_t histogram_bucket_top(uint32_t bucket)
{
    KVS_ASSERT(bucket < HISTOGRAM_BUCKETS);
    if (bucket < 2 * HISTOGRAM_STEPS)
        return bucket;
    uint32_t shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t lead = bucket - shift * HISTOGRAM_STEPS;
    return (lead << shift) + ((UINT64_C(1) << shift) - 1);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    if (from->min < into->min)
        into->min = from->min;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    KVS_ASSERT(percent >= 0 && percent <= 100);
    if (histogram->count == 0)
        return 0;
    /* The rank of the value looked for, rounded up: p50 of three values is the second. A hair less than a whole is
     * added, so that what binary fractions add to 99.9 % of 1000 does not make it 1000. */
    uint64_t rank = (uint64_t)((double)histogram->count * (percent / 100.0) + (1 - 1e-6));
    if (rank == 0)
        rank = 1;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen < rank)
            continue;
        uint64_t top = histogram_bucket_top(i);
        return top < histogram->max ? top : histogram->max;
    }
    return histogram->max;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count > 0 ? (double)histogram->sum / (double)histogram->count : 0;
}
