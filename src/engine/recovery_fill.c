/*
 * recovery_fill.c - the newest record of every key into the indexes: for each shard a merge of its part of all runs and
 * arrays. Shards are filled side by side, each by one worker.
 *
 * Entries come in the order of hashes, which is that of the index's pages, so that filling it touches memory in order.
 * And an even share of all hashes lies together: a small part is merged first, only to see how many keys there are, so
 * that the index is made for them and need not grow.
 *
 * Failure modes: the index has no room: NO_MEMORY. A run turns out to be damaged, or cannot be read: all indexes are
 * emptied again, the run is dropped, and what it covered has to be loaded first.
 */
#include "engine/recovery_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "engine/run_merge.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    FILL_ENTRIES = 512,   /* taken at once */
    DRAIN_ENTRIES = 4096, /* after so many, pages that the index has left are freed */
    /* Of what readers take of memory: each of few runs gets a MiB, many share. */
    READER_READS = 4,
    READER_BLOCKS = 4,
    READER_BLOCKS_OF_MANY = 1,
    MANY_RUNS = 16,
    SAMPLE_SHARE = 64,       /* one in so many keys is looked at first … */
    SAMPLED_ENTRIES = 50000, /* … when there are so many at least. Fewer go in in no order: an index that has to grow
                                needs keys from everywhere */
};

struct fill {
    struct recovery_worker *worker;
    struct store_shard *shard;
    struct run_source *sources; /* those of runs first, in the order of recovery->runs */
    unsigned run_count, source_count;
    struct run_merge *merge;
    struct run_range range;
    struct index_filler filler;
    bool sampling;             /* only counts keys */
    struct run_entry *scatter; /* keeps them for later; NULL: into the index at once */
    size_t kept;
    uint64_t now_ms;
    uint64_t flushed_lsn; /* what does not count, for all keys were taken away after it */
    uint64_t keys;
};

/* ---- sources --------------------------------------------------------------------------------------------------- */

/* Where entries with at least this order begin. */
static size_t lower_bound(const struct found_segment *found, uint64_t order)
{
    size_t low = 0;
    size_t high = found->entry_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (found->entries[middle].order < order)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum kvs_err open_reader(struct fill *fill, const struct found_run *run)
{
    const struct recovery *recovery = fill->worker->recovery;
    const unsigned blocks = recovery->run_count > MANY_RUNS ? READER_BLOCKS_OF_MANY : READER_BLOCKS;
    const struct run_reader_options options = {.run = run->run,
                                               .ring = fill->worker->ring,
                                               .range = fill->range,
                                               .reads = READER_READS,
                                               .read_blocks = blocks};
    enum kvs_err err = run_reader_open(&fill->sources[fill->source_count].reader, &options);
    if (err == KVS_ERR_OK)
        fill->source_count++;
    return err;
}

static enum kvs_err open_sources(struct fill *fill)
{
    const struct recovery *recovery = fill->worker->recovery;
    const struct run_range range = fill->range;
    fill->sources = calloc(recovery->run_count + recovery->found_count + 1, sizeof *fill->sources);
    if (fill->sources == NULL)
        return KVS_ERR_NO_MEMORY;
    enum kvs_err err = KVS_ERR_OK;
    for (size_t i = 0; err == KVS_ERR_OK && i < recovery->run_count; i++)
        err = open_reader(fill, &recovery->runs[i]);
    fill->run_count = fill->source_count;
    for (size_t i = 0; err == KVS_ERR_OK && i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        size_t first = lower_bound(found, range.first);
        size_t end = range.last == UINT64_MAX ? found->entry_count : lower_bound(found, range.last + 1);
        if (first < end)
            fill->sources[fill->source_count++] =
                (struct run_source){.entries = found->entries + first, .count = end - first};
    }
    return err;
}

/* Waits for what readers have in flight. */
static void close_sources(struct fill *fill)
{
    run_merge_close(fill->merge);
    for (unsigned i = 0; fill->sources != NULL && i < fill->source_count; i++) {
        struct run_reader *reader = fill->sources[i].reader;
        if (reader == NULL)
            continue;
        run_reader_stop(reader);
        while (!run_reader_idle(reader))
            ring_turn(fill->worker->ring, -1);
        run_reader_close(reader);
    }
    free(fill->sources);
    fill->merge = NULL;
    fill->sources = NULL;
    fill->run_count = fill->source_count = 0;
}

/* What lies in a segment that is gone, or that another run speaks for, does not count. */
static bool counts(void *context, unsigned source, const struct run_entry *entry)
{
    const struct fill *fill = context;
    if (source >= fill->run_count)
        return true;
    const struct recovery *recovery = fill->worker->recovery;
    uint32_t number = address_segment(run_entry_address(entry), recovery->store->segments.shift);
    return number < atomic_load_explicit(&recovery->store->segments.next, memory_order_relaxed) &&
           recovery->runs[source].counts[number] != 0;
}

/* Of two copies of a record one may be a put that has expired, and the other what compaction has turned it into. */
static bool second_wins(void *context, const struct run_entry *first, const struct run_entry *second)
{
    (void)context;
    return !run_entry_is_delete(first) || run_entry_is_delete(second);
}

/* ---- filling --------------------------------------------------------------------------------------------------- */

static enum kvs_err insert(struct fill *fill, const struct run_entry *from)
{
    struct store_shard *shard = fill->shard;
    struct recovery_worker *worker = fill->worker;
    unsigned class = record_class(run_entry_record_bytes(from)) & INDEX_CLASS_MAX;
    struct index_entry entry = {.address = run_entry_address(from), .class = class};
    enum kvs_err err = index_fill(&fill->filler, from->order, &entry);
    if (err == KVS_ERR_NO_MEMORY) {
        epoch_drain(&shard->base.thread); /* pages that splits have left */
        err = index_fill(&fill->filler, from->order, &entry);
    }
    if (err != KVS_ERR_OK) {
        snprintf(worker->message, ENGINE_MESSAGE_BYTES,
                 "the index of %" PRIu64 " and more keys does not fit into the memory budget: give more with --memory",
                 fill->keys);
        return err;
    }
    uint32_t number = address_segment(entry.address, shard->store->segments.shift);
    worker->live_puts[number]++;
    worker->live_units[number] += segment_units(class);
    if (from->expires_ms != 0) {
        store_count(&shard->expiry.keys, 1);
        store_expiry_add(shard, from->order, entry.address, from->expires_ms, false); /* nobody knows */
    }
    if (++fill->keys % DRAIN_ENTRIES == 0)
        epoch_drain(&shard->base.thread);
    return KVS_ERR_OK;
}

/* `settled`: they all count, and none is superseded by one of another source. */
static enum kvs_err insert_some(struct fill *fill, const struct run_entry *entries, size_t count, bool settled)
{
    struct recovery_worker *worker = fill->worker;
    for (size_t i = 0; i < count; i++) {
        if (!settled && !counts(fill, 0, &entries[i]))
            continue;
        if (entries[i].lsn > worker->lsn_max)
            worker->lsn_max = entries[i].lsn;
        if (run_entry_is_delete(&entries[i]) || entries[i].lsn <= fill->flushed_lsn)
            continue;
        /* It is dead, and hides what is older. */
        if (entries[i].expires_ms != 0 && entries[i].expires_ms <= fill->now_ms) {
            store_count(&fill->shard->expiry.expired, !fill->sampling);
            continue;
        }
        if (fill->sampling) {
            fill->keys++;
            continue;
        }
        if (fill->scatter != NULL) {
            fill->scatter[fill->kept++] = entries[i];
            continue;
        }
        enum kvs_err err = insert(fill, &entries[i]);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

/* Steps of this length lead to all of `count` places, near ones far apart: the golden section, or a little more. */
static size_t scatter_step(size_t count)
{
    size_t step = (size_t)((double)count * 0.618) + 1;
    for (;; step++) {
        size_t a = count, b = step;
        while (b != 0) {
            const size_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return step;
    }
}

static enum kvs_err insert_scattered(struct fill *fill)
{
    const size_t step = fill->kept == 0 ? 0 : scatter_step(fill->kept);
    for (size_t i = 0; i < fill->kept; i++) {
        enum kvs_err err = insert(fill, &fill->scatter[i * step % fill->kept]);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

/* AGAIN: a run was bad. */
static enum kvs_err merge_all(struct fill *fill)
{
    struct run_entry *entries = malloc(FILL_ENTRIES * sizeof *entries);
    enum kvs_err err = entries == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    while (err == KVS_ERR_OK && !atomic_load(&fill->worker->recovery->failed)) {
        size_t count;
        err = run_merge_next(fill->merge, entries, FILL_ENTRIES, &count);
        if (err == KVS_ERR_OK && count == 0)
            break;
        if (err == KVS_ERR_OK) {
            err = insert_some(fill, entries, count, true);
            ring_turn(fill->worker->ring, 0);
        } else if (err == KVS_ERR_AGAIN) {
            ring_turn(fill->worker->ring, -1);
            err = KVS_ERR_OK;
        } else {
            atomic_store(&fill->worker->recovery->runs[run_merge_failed_source(fill->merge)].bad, true);
            err = KVS_ERR_AGAIN;
        }
    }
    free(entries);
    return err;
}

/* One run is all there is, as after an orderly stop: there is nothing to merge. AGAIN: it was bad. */
static enum kvs_err take_single(struct fill *fill)
{
    struct ring *ring = fill->worker->ring;
    struct run_reader *reader = fill->sources[0].reader;
    enum kvs_err err = KVS_ERR_OK;
    while (err == KVS_ERR_OK && !atomic_load(&fill->worker->recovery->failed)) {
        struct run_span span;
        err = run_reader_next(reader, &span);
        if (err == KVS_ERR_OK && span.at == span.end)
            break;
        if (err == KVS_ERR_OK) {
            err = insert_some(fill, span.at, (size_t)(span.end - span.at), false);
            ring_turn(ring, 0);
        } else if (err == KVS_ERR_AGAIN) {
            ring_turn(ring, -1);
            err = KVS_ERR_OK;
        } else {
            atomic_store(&fill->worker->recovery->runs[0].bad, true);
            err = KVS_ERR_AGAIN;
        }
    }
    return err;
}

/* Takes in what lies in fill->range. */
static enum kvs_err take_range(struct fill *fill)
{
    enum kvs_err err = open_sources(fill);
    const struct run_merge_options options = {.sources = fill->sources,
                                              .source_count = fill->source_count,
                                              .context = fill,
                                              .counts = counts,
                                              .second_wins = second_wins};
    if (err == KVS_ERR_OK && fill->source_count == 1 && fill->run_count == 1) {
        err = take_single(fill);
    } else if (err == KVS_ERR_OK && fill->source_count > 0) {
        err = run_merge_open(&fill->merge, &options);
        if (err == KVS_ERR_OK)
            err = merge_all(fill);
    }
    close_sources(fill);
    return err;
}

static uint64_t entries_of(const struct recovery *recovery)
{
    uint64_t count = 0;
    for (size_t i = 0; i < recovery->run_count; i++)
        count += recovery->runs[i].run->entry_count;
    for (size_t i = 0; i < recovery->found_count; i++)
        count += recovery->found[i].entry_count;
    return count;
}

static enum kvs_err fill_shard(struct recovery_worker *worker, struct store_shard *shard)
{
    const struct recovery *recovery = worker->recovery;
    const struct run_range range = run_range_of_shard(shard->id, recovery->store->shard_count);
    struct fill fill = {
        .worker = worker, .shard = shard, .now_ms = wall_clock_now(&shard->store->base.clock, worker->ring)};
    fill.flushed_lsn = canary_on(CANARY_FLUSH_FORGOTTEN) ? 0 : recovery->store->base.superblock.flushed_lsn;
    enum kvs_err err = KVS_ERR_OK;
    const uint64_t entries = entries_of(recovery);
    if (entries < SAMPLED_ENTRIES) {
        fill.scatter = malloc((entries + 1) * sizeof *fill.scatter);
        err = fill.scatter == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    } else {
        fill.sampling = true;
        fill.range =
            (struct run_range){.first = range.first, .last = range.first + (range.last - range.first) / SAMPLE_SHARE};
        err = take_range(&fill);
        if (err == KVS_ERR_OK)
            err = store_index_reset(shard, fill.keys * SAMPLE_SHARE);
        fill.sampling = false;
        fill.keys = 0;
    }
    fill.range = range;
    index_filler_init(&fill.filler, shard->index);
    if (err == KVS_ERR_OK)
        err = take_range(&fill);
    if (err == KVS_ERR_OK && fill.scatter != NULL)
        err = insert_scattered(&fill);
    free(fill.scatter);
    epoch_drain(&shard->base.thread);
    store_count(&shard->keys, (int64_t)fill.keys);
    worker->keys += fill.keys;
    return err;
}

enum kvs_err recovery_live_begin(struct recovery_worker *worker)
{
    const uint32_t numbers = atomic_load(&worker->recovery->store->segments.next);
    free(worker->live_puts);
    free(worker->live_units);
    worker->live_puts = calloc(numbers + 1, sizeof *worker->live_puts);
    worker->live_units = calloc(numbers + 1, sizeof *worker->live_units);
    worker->keys = 0;
    return worker->live_puts == NULL || worker->live_units == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

static void fill_some(struct recovery_worker *worker)
{
    struct recovery *recovery = worker->recovery;
    struct store *store = recovery->store;
    if (recovery_live_begin(worker) != KVS_ERR_OK) {
        recovery_worker_fail(worker, 0, KVS_ERR_NO_MEMORY);
        return;
    }
    while (!atomic_load(&recovery->failed)) {
        size_t id = atomic_fetch_add(&recovery->next, 1);
        if (id >= store->shard_count)
            return;
        enum kvs_err err = fill_shard(worker, store->shards[id]);
        if (err != KVS_ERR_OK) {
            recovery_worker_fail(worker, id, err);
            return;
        }
    }
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

enum kvs_err recovery_empty_indexes(struct recovery *recovery)
{
    struct store *store = recovery->store;
    for (unsigned i = 0; i < store->shard_count; i++) {
        enum kvs_err err = store_index_reset(store->shards[i], 0);
        if (err != KVS_ERR_OK)
            return err;
    }
    return KVS_ERR_OK;
}

void recovery_count_live(struct recovery *recovery)
{
    const struct segment_table *table = &recovery->store->segments;
    uint32_t numbers = atomic_load(&table->next);
    for (unsigned w = 0; w < recovery->worker_count; w++) {
        const struct recovery_worker *worker = &recovery->workers[w];
        for (uint32_t i = 0; i < numbers; i++) {
            if (worker->live_puts[i] == 0)
                continue;
            struct segment *segment = segment_get(table, i);
            atomic_fetch_sub(&segment->dead_puts, worker->live_puts[i]);
            atomic_fetch_sub(&segment->dead_units, worker->live_units[i]);
        }
    }
}

enum kvs_err recovery_fill(struct recovery *recovery)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < recovery->run_count; i++)
        bytes += recovery->runs[i].run->layout.file_bytes;
    recovery_expect(recovery, bytes);
    enum kvs_err err = recovery_share(recovery, fill_some);
    if (err == KVS_ERR_OK) {
        recovery_progress(recovery, bytes);
        recovery_count_live(recovery);
    } else if (err == KVS_ERR_AGAIN) {
        recovery_drop_bad_runs(recovery);
        enum kvs_err emptied = recovery_empty_indexes(recovery);
        err = emptied == KVS_ERR_OK ? KVS_ERR_AGAIN : emptied;
    }
    return err;
}
