/*
 * run_merge.h - several sorted sources, runs on disk and arrays in memory, as one: the newest entry of every key, in
 * order.
 *
 * Among entries of one key (equal order and check) that with the highest LSN wins; of equal LSNs (a record that
 * compaction has copied, both copies listed) `second_wins` tells which; without it, that of the source given last,
 * within a source the last.
 *
 * Entries come in batches, copied, so that the caller can fetch ahead what they will touch. Nothing here waits, and
 * nothing reads but the readers given.
 *
 * Threads: one, that of the readers' ring.
 */
#ifndef KVS_ENGINE_RUN_MERGE_H
#define KVS_ENGINE_RUN_MERGE_H

#include "engine/run_reader.h"

struct run_merge;

/* A reader at its beginning, or a sorted array (run_sort); either the caller's, until the merge is closed. */
struct run_source {
    struct run_reader *reader;
    const struct run_entry *entries; /* without a reader */
    size_t count;
};

struct run_merge_options {
    const struct run_source *sources; /* copied */
    unsigned source_count;            /* at least 1 */
    void *context;                    /* for what follows; each may be NULL */
    /* Whether an entry counts at all: its segment may be gone. One that does not is as if it were not there. */
    bool (*counts)(void *context, unsigned source, const struct run_entry *entry);
    /* Of two entries of one key with equal LSNs, whether the second wins. */
    bool (*second_wins)(void *context, const struct run_entry *first, const struct run_entry *second);
};

/* NO_MEMORY. */
enum kvs_err run_merge_open(struct run_merge **out, const struct run_merge_options *options);

/*
 * The next entries, `max` (at least 1) at most. OK with some: as many as there were without waiting; turn the ring,
 * without waiting, so that the next reads get under way, and come again. OK with none: that was all. AGAIN: turn the
 * ring, waiting. Else a reader has failed: run_merge_failed_source tells which, its run_reader_failure_text why; what
 * came before was right.
 */
enum kvs_err run_merge_next(struct run_merge *merge, struct run_entry *out, size_t max, size_t *count);
unsigned run_merge_failed_source(const struct run_merge *merge);

/* At any time; the readers stay the caller's. NULL is allowed. */
void run_merge_close(struct run_merge *merge);

#endif
