/*
 * bench_read_cache.c - what the read cache costs: nanoseconds per look-up that finds and that does not, per add while
 * it fills and when it is full, the longest single add; and its hit rate and bytes for zipfian reads.
 *
 * Usage: bench_read_cache [MIB [VALUE_BYTES]]   (default 1024 MiB, values of 96 bytes: records of 128)
 */
#include "bench.h"
#include "engine/read_cache.h"

#include <stdio.h>
#include <stdlib.h>

enum { UID = 1, LOOK_UPS = 10000000, BATCH = 16, LARGE = 64 * 1024 };

static struct record_header *record_new(uint32_t value_bytes)
{
    struct record_header *record = calloc(1, record_bytes(8, value_bytes));
    if (record == NULL)
        abort();
    *record = (struct record_header){.value_bytes = value_bytes, .key_bytes = 8, .kind = RECORD_PUT};
    return record;
}

/* Adds `count` records, the first at `from`. */
static void bench_add(struct read_cache *cache, const char *what, const struct record_header *record, uint64_t from,
                      uint64_t count)
{
    uint64_t longest_ns = 0;
    uint64_t above = 0;
    uint64_t begin = now_ns();
    uint64_t before = begin;
    for (uint64_t i = 0; i < count; i++) {
        read_cache_add(cache, UID, from + i, record);
        uint64_t after = now_ns();
        longest_ns = after - before > longest_ns ? after - before : longest_ns;
        above += after - before > 50000;
        before = after;
    }
    printf("%-34s %7.0f ns (longest %.0f us, %lu of %lu above 50 us)\n", what, (double)(before - begin) / (double)count,
           (double)longest_ns / 1000, (unsigned long)above, (unsigned long)count);
}

/* Looks up random places out of [from, from + count), `batch` of them prefetched together. */
static void bench_find(struct read_cache *cache, const char *what, uint64_t from, uint64_t count, unsigned batch)
{
    uint64_t found = 0;
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < LOOK_UPS; i += batch) {
        for (uint64_t j = i; batch > 1 && j < i + batch; j++)
            read_cache_prefetch(cache, UID, from + mix(j + 1) % count);
        for (uint64_t j = i; j < i + batch; j++)
            found += read_cache_find(cache, UID, from + mix(j + 1) % count) != NULL;
    }
    printf("%-34s %7.0f ns (%.1f %% found)\n", what, (double)(now_ns() - begin) / LOOK_UPS,
           100.0 * (double)found / LOOK_UPS);
}

/* Reads with a few hot places and many cold ones: rank r is asked for about as often as 1 / r says. */
static void bench_mixed(struct read_cache *cache, const struct record_header *record, uint64_t places)
{
    unsigned magnitudes = 0;
    while (places >> magnitudes > 1)
        magnitudes++;
    uint64_t hits = 0;
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < LOOK_UPS; i++) {
        uint64_t random = mix(i + LOOK_UPS);
        uint64_t magnitude = random % magnitudes;
        uint64_t place = 1ull << 36 | 1ull << magnitude | ((random >> 8) & ((1ull << magnitude) - 1));
        if (read_cache_find(cache, UID, place) != NULL)
            hits++;
        else
            read_cache_add(cache, UID, place, record);
    }
    printf("%-34s %7.0f ns (%.1f %% hits)\n", "find, and add if it is not there", (double)(now_ns() - begin) / LOOK_UPS,
           100.0 * (double)hits / LOOK_UPS);
}

int main(int argc, char **argv)
{
    uint64_t bytes_max = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1024) << 20;
    uint32_t value_bytes = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 96;
    struct record_header *record = record_new(value_bytes);
    struct record_header *large = record_new(LARGE);
    struct read_cache *cache;
    if (read_cache_open(&cache, bytes_max, bytes_max) != KVS_ERR_OK)
        return 1;

    uint64_t fit = bytes_max / (record_bytes(8, value_bytes) + 32);
    bench_add(cache, "add, filling", record, 0, fit);
    struct read_cache_stats stats;
    read_cache_stats(cache, &stats);
    bench_find(cache, "find, hit", 0, fit, 1);
    bench_find(cache, "find, hit, prefetched", 0, fit, BATCH);
    bench_find(cache, "find, miss", 1ull << 35, 1ull << 34, 1);
    bench_find(cache, "find, miss, prefetched", 1ull << 35, 1ull << 34, BATCH);
    bench_add(cache, "add, full, of used records", record, fit, fit);
    bench_add(cache, "add, full, a scan", record, 2 * fit, 2 * fit);
    bench_mixed(cache, record, 10 * fit);
    bench_add(cache, "add of 64 KiB among small ones", large, 5 * fit, bytes_max / LARGE / 8);
    bench_add(cache, "add of 64 KiB among such", large, 6 * fit, bytes_max / LARGE);
    read_cache_stats(cache, &stats);
    printf("%lu records added, %lu evicted, %lu MiB of %lu in use\n", (unsigned long)stats.added,
           (unsigned long)stats.evicted, (unsigned long)(stats.bytes >> 20), (unsigned long)(stats.bytes_max >> 20));
    read_cache_close(cache);
    free(large);
    free(record);
    return 0;
}
