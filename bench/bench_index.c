/*
 * bench_index.c - what the index costs: bytes of RAM per key, on average over its growth and at worst, nanoseconds per
 * insert and look-up, and how long the steps of its growth take.
 *
 * A step is an insert that splits a page, or more than one. Memory is in stock for it, as in the node. The cost per key
 * swings with the number of keys, once per doubling: it is highest when all pages have just split. So it is sampled a
 * hundred times per doubling, from a million keys on, and its mean is over these samples.
 *
 * Times are of the processor, as this thread has used it: page faults count, what others did meanwhile does not.
 *
 * Usage: bench_index [KEYS]   (default 10,000,000)
 */
#include "bench.h"
#include "engine/index.h"

#include "base/bytes.h"
#include "client/histogram.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SAMPLED_FROM = 1000000 };
#define SAMPLE_FACTOR 1.00696 /* the hundredth root of two */

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* What the index has cost per key so far. */
struct cost {
    double sum, worst;
    uint64_t worst_keys, samples;
};

static void sample(struct cost *cost, const struct index *index, uint64_t keys)
{
    struct index_stats stats;
    index_stats(index, &stats);
    double bytes = (double)stats.bytes / (double)keys;
    cost->sum += bytes;
    cost->samples++;
    if (bytes > cost->worst) {
        cost->worst = bytes;
        cost->worst_keys = keys;
    }
}

static struct histogram plain, steps;

static int fill(struct index *index, struct epoch_thread *thread, uint64_t keys, struct cost *cost)
{
    uint64_t next_sample = SAMPLED_FROM, next_line = SAMPLED_FROM;
    struct index_stats stats;
    index_stats(index, &stats);
    uint64_t splits = stats.splits;
    uint64_t before = cpu_ns();
    for (uint64_t i = 0; i < keys; i++) {
        struct index_entry entry = {.address = i};
        if (index_insert(index, mix(i), &entry) != KVS_ERR_OK)
            return -1;
        uint64_t after = cpu_ns();
        index_stats(index, &stats);
        histogram_add(stats.splits == splits ? &plain : &steps, after - before);
        splits = stats.splits;
        if (i % 64 == 0)
            epoch_poll(thread);
        bool refill = index_wants_stock(index);
        if (refill) /* another thread's work in the node, and the system's: fresh memory is mapped and zeroed */
            index_stock(index);
        if (i + 1 >= next_sample) {
            sample(cost, index, i + 1);
            next_sample = (uint64_t)((double)next_sample * SAMPLE_FACTOR) + 1;
        }
        if (i + 1 == next_line) {
            printf("%12lu keys  %6.2f B/key\n", (unsigned long)(i + 1), (double)stats.bytes / (double)(i + 1));
            next_line += next_line < 10000000 ? 1000000 : 10000000;
        }
        before = i % 64 == 0 || refill ? cpu_ns() : after; /* with what lies between two inserts, but for these two */
    }
    sample(cost, index, keys);
    return 0;
}

static void print_times(const char *what, const struct histogram *times)
{
    printf("%-22s %11lu: mean %8.3f us, p50 %8.3f, p99 %8.3f, p99.9 %8.3f, max %8.1f\n", what,
           (unsigned long)times->count, histogram_mean(times) / 1e3, (double)histogram_percentile(times, 50) / 1e3,
           (double)histogram_percentile(times, 99) / 1e3, (double)histogram_percentile(times, 99.9) / 1e3,
           (double)times->max / 1e3);
}

int main(int argc, char **argv)
{
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    if (keys == 0)
        return 2;
    struct epoch epoch;
    struct epoch_thread *thread = aligned_alloc(64, align_up(sizeof *thread, 64));
    memset(thread, 0, sizeof *thread);
    epoch_init(&epoch);
    epoch_register(&epoch, thread);
    struct index *index;
    struct index_options options = {.shard_count = 1, .bytes_max = 64ull << 30, .bytes_initial = 4ull << 20};
    if (index_open(&index, &options, thread) != KVS_ERR_OK)
        return 1;

    histogram_init(&plain);
    histogram_init(&steps);
    struct cost cost = {0};
    if (fill(index, thread, keys, &cost) != 0)
        return 1;

    uint64_t candidates = 0;
    uint64_t begin = cpu_ns();
    for (uint64_t i = 0; i < keys; i++) {
        struct index_cursor cursor;
        struct index_entry entry;
        index_find(index, mix(mix(i) % keys), &cursor);
        while (index_next(&cursor, &entry))
            candidates++;
    }
    double find_ns = (double)(cpu_ns() - begin) / (double)keys;
    struct index_stats stats;
    index_stats(index, &stats);
    printf("\n%lu keys: %.2f B/key now, %.2f on average, %.2f at worst (at %lu keys)\n", (unsigned long)keys,
           (double)stats.bytes / (double)keys, cost.sum / (double)cost.samples, cost.worst,
           (unsigned long)cost.worst_keys);
    print_times("inserts without growth", &plain);
    print_times("steps of growth", &steps);
    printf("directory: %lu entries copied at once at most\n", (unsigned long)stats.directory_step_max);
    printf("look-ups: mean %.0f ns, %.4f candidates\n", find_ns, (double)candidates / (double)keys);
    return 0;
}
