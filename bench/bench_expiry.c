/*
 * bench_expiry.c - what the expiry queue costs: bytes of RAM per item, nanoseconds per add, take and look of a sweep,
 * how often an item is touched, the longest single take.
 *
 * Usage: bench_expiry [ITEMS]   (default 1,000,000; a thousand are measured in any case)
 */
#include "bench.h"
#include "engine/expiry_queue.h"

#include <stdio.h>
#include <stdlib.h>

enum { SLICE = 512 };

static const uint64_t TODAY_MS = 1790000000123;
static const uint64_t DAY_MS = 24ull * 3600 * 1000;

static bool keep(void *context, const struct expiry_item *item)
{
    uint64_t *sum = context;
    *sum += item->hash;
    return false;
}

/* `first_ms`: from now to the first item's time; `spread_ms`: from that to the last's. The taker sleeps as told. */
static int measure(const char *name, uint64_t count, uint64_t first_ms, uint64_t spread_ms)
{
    struct expiry_queue *queue;
    if (expiry_queue_open(&queue, TODAY_MS, 64ull << 30) != KVS_ERR_OK)
        return 1;
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t hash = mix(i + 1);
        struct expiry_item item = {.expires_ms = TODAY_MS + first_ms + hash % spread_ms, .hash = hash, .address = i};
        if (expiry_queue_add(queue, &item) != KVS_ERR_OK)
            return 1;
    }
    double add_ns = (double)(now_ns() - begin) / (double)count;
    double bytes = (double)expiry_queue_bytes(queue) / (double)count;

    uint64_t sum = 0;
    begin = now_ns();
    while (!expiry_queue_sweep(queue, SLICE, keep, &sum))
        ;
    double sweep_ns = (double)(now_ns() - begin) / (double)count;

    uint64_t touched = expiry_queue_touched(queue);
    uint64_t take_ns = 0;
    uint64_t take_longest_ns = 0;
    uint64_t calls = 0;
    uint64_t clock_ms = TODAY_MS;
    uint64_t bytes_peak = 0;
    for (int64_t wait_ms = 0; wait_ms >= 0; wait_ms = expiry_queue_wait_ms(queue, clock_ms)) {
        struct expiry_item items[SLICE];
        clock_ms += (uint64_t)wait_ms;
        uint64_t before = now_ns();
        expiry_queue_take(queue, clock_ms, items, SLICE);
        uint64_t took = now_ns() - before;
        take_ns += took;
        take_longest_ns = took > take_longest_ns ? took : take_longest_ns;
        bytes_peak = expiry_queue_bytes(queue) > bytes_peak ? expiry_queue_bytes(queue) : bytes_peak;
        calls++;
    }
    touched = expiry_queue_touched(queue) - touched;
    printf("%-24s %10lu items: %6.2f B/item (peak %6.2f), add %3.0f ns, sweep %3.0f ns, take %3.0f ns, "
           "%4.2f touches, %lu calls of %.2f us (longest %3.0f us)\n",
           name, (unsigned long)count, bytes, (double)bytes_peak / (double)count, add_ns, sweep_ns,
           (double)take_ns / (double)count, (double)touched / (double)count, (unsigned long)calls,
           (double)take_ns / (double)calls / 1000, (double)take_longest_ns / 1000);
    expiry_queue_close(queue);
    return sum == 1; /* it was used */
}

int main(int argc, char **argv)
{
    uint64_t items = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t counts[] = {1000, items};
    for (int i = 0; i < 2; i++) {
        if (counts[i] == 0)
            continue;
        if (measure("within a minute", counts[i], 0, 60000) != 0 ||
            measure("within a day", counts[i], 0, DAY_MS) != 0 ||
            measure("within a year", counts[i], 0, 365 * DAY_MS) != 0 ||
            measure("at one moment in a day", counts[i], DAY_MS, 1) != 0)
            return 1;
    }
    return 0;
}
