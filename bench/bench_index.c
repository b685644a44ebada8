/*
 * bench_index.c - what the index costs: bytes of RAM per key, nanoseconds per insert and look-up, the longest single
 * insert.
 *
 * Usage: bench_index [KEYS]   (default 10,000,000)
 */
#include "bench.h"
#include "engine/index.h"

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    struct epoch epoch;
    struct epoch_thread *thread = aligned_alloc(64, align_up(sizeof *thread, 64));
    memset(thread, 0, sizeof *thread);
    epoch_init(&epoch);
    epoch_register(&epoch, thread);
    struct index *index;
    struct index_options options = {.shard_count = 1, .bytes_max = 64ull << 30, .bytes_initial = 4ull << 20};
    if (index_open(&index, &options, thread) != KVS_ERR_OK)
        return 1;

    uint64_t longest_ns = 0;
    uint64_t sampled = 1000000;
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < keys; i++) {
        uint64_t before = now_ns();
        struct index_entry entry = {.address = i};
        if (index_insert(index, mix(i), &entry) != KVS_ERR_OK)
            return 1;
        uint64_t took = now_ns() - before;
        longest_ns = took > longest_ns ? took : longest_ns;
        if (i % 64 == 0)
            epoch_poll(thread);
        if (i + 1 == sampled) {
            struct index_stats stats;
            index_stats(index, &stats);
            printf("%12lu keys  %6.2f B/key\n", (unsigned long)(i + 1), (double)stats.bytes / (double)(i + 1));
            sampled += sampled < 10000000 ? 1000000 : 10000000;
        }
    }
    double insert_ns = (double)(now_ns() - begin) / (double)keys;

    uint64_t candidates = 0;
    begin = now_ns();
    for (uint64_t i = 0; i < keys; i++) {
        struct index_cursor cursor;
        struct index_entry entry;
        index_find(index, mix(mix(i) % keys), &cursor);
        while (index_next(&cursor, &entry))
            candidates++;
    }
    double find_ns = (double)(now_ns() - begin) / (double)keys;
    struct index_stats stats;
    index_stats(index, &stats);
    printf("%lu keys: %.2f B/key, insert %.0f ns (longest %.0f us), look-up %.0f ns, %.4f candidates per look-up\n",
           (unsigned long)keys, (double)stats.bytes / (double)keys, insert_ns, (double)longest_ns / 1000, find_ns,
           (double)candidates / (double)keys);
    return 0;
}
