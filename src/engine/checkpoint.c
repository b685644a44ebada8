/*
 * checkpoint.c - keeps the runs that a start has found open, and hands out sequences.
 */
#include "engine/checkpoint.h"

#include "engine/store.h"

#include <stdlib.h>

enum { UNCOVERED_SEGMENTS_MIN = 4 };
#define UNCOVERED_BYTES_MAX (512ull << 20)

struct checkpoint {
    uint64_t seen;
    struct run **runs;
    size_t run_count;
};

uint64_t checkpoint_uncovered_max(const struct store *store)
{
    uint64_t share = store->base.options.memory_bytes / 8;
    uint64_t least = UNCOVERED_SEGMENTS_MIN * store->segments.segment_bytes;
    uint64_t bytes = share < UNCOVERED_BYTES_MAX ? share : UNCOVERED_BYTES_MAX;
    return bytes > least ? bytes : least;
}

enum kvs_err checkpoint_open(struct checkpoint **out, struct store *store)
{
    (void)store;
    *out = calloc(1, sizeof **out);
    return *out == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void checkpoint_seen(struct checkpoint *checkpoint, uint64_t sequence)
{
    if (sequence > checkpoint->seen)
        checkpoint->seen = sequence;
}

uint64_t checkpoint_sequence(struct checkpoint *checkpoint)
{
    return ++checkpoint->seen;
}

enum kvs_err checkpoint_adopt(struct checkpoint *checkpoint, struct run *run)
{
    struct run **runs = realloc(checkpoint->runs, (checkpoint->run_count + 1) * sizeof *runs);
    if (runs == NULL)
        return KVS_ERR_NO_MEMORY;
    checkpoint->runs = runs;
    runs[checkpoint->run_count++] = run;
    return KVS_ERR_OK;
}

void checkpoint_close(struct checkpoint *checkpoint, struct ring *ring)
{
    if (checkpoint == NULL)
        return;
    for (size_t i = 0; i < checkpoint->run_count; i++)
        run_close(checkpoint->runs[i], ring);
    free(checkpoint->runs);
    free(checkpoint);
}
