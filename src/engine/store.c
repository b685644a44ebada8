/*
 * store.c - the engine `kvs`: opening, a shard's turn, stopping, figures.
 *
 * Opening finds out what the file system can do (O_DIRECT, durable writes), divides the memory budget, recovers, and
 * leaves each shard with the segment it goes on writing in. A shard then starts on its own thread, writes a boot batch,
 * and is ready when that is durable. Every turn: take the spare segment that the keeper offers, retry what waits for
 * room, swing index entries to where compaction has copied their records, commit, free memory.
 *
 * The memory budget: a quarter is the index's at first, a sixteenth is for what expires, the rest holds segment images,
 * at least four a shard. An index that needs more gets it from the images, up to half of the budget.
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/diag.h"
#include "engine/big_memory.h"
#include "engine/blocking.h"
#include "engine/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    INDEX_SHARE = 4,
    EXPIRY_SHARE = 16, /* of the memory budget: that many of it are one for the queues of what expires */
    READS_SHARE = 24,  /* likewise: for what is being read from disk, on top of the budget */
};

static const struct engine_interface store_interface;

static struct store *store_of(const struct engine *engine)
{
    return container_of(engine, struct store, base);
}

/* ---- what the directory offers --------------------------------------------------------------------------------- */

#define PROBE_NAME "000000.seg.new"

static enum kvs_err probe_open(struct store *store, struct ring *ring, bool direct, struct ring_op *op)
{
    blocking_init(op);
    ring_file_open(ring, op, store->base.dir_fd, PROBE_NAME,
                   RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE | (direct ? RING_OPEN_DIRECT : 0u));
    ring_await(ring, op);
    return op->error;
}

/* Tries a direct and a durable write; falls back to what works, with a warning. */
static enum kvs_err probe_directory(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct ring_op op;
    uint8_t *block = aligned_alloc(KVS_BLOCK_BYTES, KVS_BLOCK_BYTES);
    if (block == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(block, 0, KVS_BLOCK_BYTES);
    store->direct = true;
    store->sync_after_write = false;
    enum kvs_err err = probe_open(store, ring, true, &op);
    if (err == KVS_ERR_UNSUPPORTED || err == KVS_ERR_INVALID) {
        store->direct = false;
        err = probe_open(store, ring, false, &op);
    }
    struct ring_file_info info = {0};
    if (err == KVS_ERR_OK && store->direct && ring_file_info(ring, op.fd, &info) == KVS_ERR_OK &&
        info.direct_offset_align > KVS_BLOCK_BYTES) {
        ring_close_fd(ring, op.fd);
        store->direct = false;
        err = probe_open(store, ring, false, &op);
    }
    if (err != KVS_ERR_OK)
        goto out;
    int fd = op.fd;
    blocking_init(&op);
    ring_file_write(ring, &op, fd, block, KVS_BLOCK_BYTES, 0, store->direct ? RING_WRITE_DURABLE : 0);
    ring_await(ring, &op);
    ring_close_fd(ring, fd);
    err = op.error;
    store->sync_after_write = !store->direct;
    if (store->direct && (err == KVS_ERR_UNSUPPORTED || err == KVS_ERR_INVALID)) {
        store->sync_after_write = true;
        err = KVS_ERR_OK;
    }
out:
    /* A full disk does not keep the node from reading, nor from writing in the segments it has. */
    if (err == KVS_ERR_NO_SPACE)
        err = KVS_ERR_OK;
    if (err != KVS_ERR_OK)
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot write in data directory %s: %s", store->base.data_dir,
                 ring_op_text(&op));
    blocking_init(&op);
    ring_file_unlink(ring, &op, store->base.dir_fd, PROBE_NAME);
    ring_await(ring, &op);
    free(block);
    if (err == KVS_ERR_OK && store->sync_after_write)
        diag_warn("%s does not support %s: each commit is a %s write and an fdatasync, at about twice the time",
                  store->base.data_dir, store->direct ? "durable writes (RWF_DSYNC)" : "O_DIRECT",
                  store->direct ? "direct" : "buffered");
    return err;
}

/* ---- shards ---------------------------------------------------------------------------------------------------- */

/* Of all shards together. */
static uint32_t images_max(const struct store *store)
{
    uint64_t budget = store->base.options.memory_bytes;
    uint64_t count = (budget - budget / INDEX_SHARE - budget / EXPIRY_SHARE) / store->segments.segment_bytes;
    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

uint64_t store_index_share(const struct store *store)
{
    return store->base.options.memory_bytes / INDEX_SHARE / store->shard_count;
}

uint64_t store_index_limit(const struct store *store)
{
    const uint64_t budget = store->base.options.memory_bytes;
    const uint64_t images = (uint64_t)KEEPER_IMAGES_PER_LOG * store->shard_count * store->segments.segment_bytes;
    const uint64_t others = images + budget / EXPIRY_SHARE;
    const uint64_t left = others < budget ? (budget - others) / store->shard_count : 0;
    const uint64_t half = budget / 2 / store->shard_count, share = store_index_share(store);
    const uint64_t most = left < half ? left : half;
    return most > share ? most : share;
}

static struct index_options index_options_of(const struct store_shard *shard)
{
    const struct store *store = shard->store;
    return (struct index_options){.shard_count = store->shard_count,
                                  .bytes_max = atomic_load_explicit(&shard->index_bytes_max, memory_order_relaxed),
                                  .bytes_initial = store->base.options.memory_bytes / store->shard_count / 1024};
}

enum kvs_err store_index_next(struct store_shard *shard, struct left_index **out)
{
    const struct index_options options = index_options_of(shard);
    return left_index_make(out, &options, &shard->base.thread);
}

/* Lets go of the shard's index, and says what another one may be. */
static struct index_options index_anew(struct store_shard *shard)
{
    if (shard->index != NULL) {
        epoch_drain(&shard->base.thread);
        index_close(shard->index);
        shard->index = NULL;
    }
    atomic_store(&shard->keys, 0);
    atomic_store(&shard->expiry.keys, 0);
    atomic_store(&shard->expiry.expired, 0);
    return index_options_of(shard);
}

enum kvs_err store_index_reset(struct store_shard *shard, uint64_t keys)
{
    struct index_options index = index_anew(shard);
    if (index.bytes_initial < index_bytes_for(keys) && index_bytes_for(keys) <= index.bytes_max)
        index.bytes_initial = index_bytes_for(keys);
    struct index *made = NULL;
    const enum kvs_err err = index_open(&made, &index, &shard->base.thread);
    shard->index = made;
    return err;
}

enum kvs_err store_index_take(struct store_shard *shard, const struct index_pages *pages)
{
    const struct index_options index = index_anew(shard);
    struct index *made = NULL;
    const enum kvs_err err = index_open_pages(&made, &index, &shard->base.thread, pages);
    shard->index = made;
    return err;
}

static enum kvs_err shard_open(struct store *store, unsigned id)
{
    struct store_shard *shard = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof *shard, KVS_CACHE_LINE_BYTES));
    if (shard == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(shard, 0, sizeof *shard);
    store->shards[id] = shard;
    shard->base.interface = &store_interface;
    shard->base.clock = &store->base.clock;
    shard->store = store;
    shard->id = id;
    for (unsigned i = 0; i < STORE_BUSY_BUCKETS; i++)
        list_init(&shard->busy[i]);
    for (unsigned i = 0; i < STORE_READ_BUCKETS; i++)
        list_init(&shard->reads[i]);
    list_init(&shard->stalled);
    list_init(&shard->reads_late);
    list_init(&shard->stalled_removes);
    list_init(&shard->waits);
    list_init(&shard->settlings);
    list_init(&shard->groups);
    atomic_store(&shard->groups_lsn, UINT64_MAX);
    list_init(&shard->scans);
    shard_values_init(&shard->values);
    epoch_register(&store->base.epoch, &shard->base.thread);
    uint64_t budget = store->base.options.memory_bytes / store->shard_count;
    shard->reads_bytes_max = budget / READS_SHARE;
    atomic_store(&shard->index_bytes_max, store_index_limit(store)); /* until the start has filled it */
    enum kvs_err err = store_index_reset(shard, 0);
    if (err == KVS_ERR_OK)
        err = store_expiry_open(shard, budget / EXPIRY_SHARE, atomic_load(&store->base.clock.last_ms));
    return err;
}

static void close_segments(struct store *store, struct ring *ring)
{
    for (uint32_t i = 0; store->segments.slots != NULL && i < atomic_load(&store->segments.next); i++) {
        const struct segment *segment = segment_get(&store->segments, i);
        if (segment != NULL)
            ring_close_fd(ring, segment->fd);
    }
}

/* Frees what there is; works on a store that was opened half-way. The base stays the caller's. */
static void store_free(struct store *store, struct ring *ring)
{
    for (unsigned i = 0; i < store->shard_count; i++) {
        struct store_shard *shard = store->shards[i];
        if (shard == NULL)
            continue;
        epoch_drain(&shard->base.thread);
        store_scan_deinit(shard);
        store_wait_deinit(shard);
        shard_values_deinit(&shard->values, ring);
        if (shard->cache != NULL)
            read_cache_close(shard->cache);
        index_close(shard->index);
        store_flush_shard_close(shard);
        store_expiry_close(shard);
    }
    if (store->keeper.store != NULL) {
        epoch_drain(&store->keeper.base.thread);
        keeper_close(&store->keeper, ring);
    }
    close_segments(store, ring);
    store_values_close(store, ring);
    segment_table_deinit(&store->segments);
    /* Only now: an epoch record is in use as long as others may look at it. */
    for (unsigned i = 0; i < store->shard_count; i++)
        free(store->shards[i]);
    free(store);
}

static void store_close(struct engine *engine, struct ring *ring)
{
    store_free(store_of(engine), ring);
}

static enum kvs_err check_memory(const struct store *store, char message[ENGINE_MESSAGE_BYTES])
{
    if (images_max(store) >= KEEPER_IMAGES_PER_LOG * store->shard_count)
        return KVS_ERR_OK;
    uint64_t images = (uint64_t)KEEPER_IMAGES_PER_LOG * store->shard_count * store->segments.segment_bytes;
    uint64_t need = (images * 16 + 10) / 11;
    snprintf(
        message, ENGINE_MESSAGE_BYTES,
        "a memory budget of %llu MiB is too small for %u threads with segments of %llu KiB: give at least %llu MiB "
        "(--memory), fewer threads, or make the store with smaller segments",
        (unsigned long long)(store->base.options.memory_bytes >> 20), store->shard_count,
        (unsigned long long)(store->segments.segment_bytes >> 10), (unsigned long long)((need >> 20) + 1));
    return KVS_ERR_INVALID;
}

/* Each log has a segment it writes in, one that is prepared, and one that it has left and that must stay because it is
 * its newest. Compaction has a reserve, a segment to copy into and one to copy from. */
uint32_t store_segments_min(const struct store *store)
{
    return 3 * store->shard_count + KEEPER_RESERVE_FILES + 2;
}

static enum kvs_err check_disk_limit(const struct store *store, char message[ENGINE_MESSAGE_BYTES])
{
    uint64_t limit = store->base.options.disk_bytes_max;
    uint64_t segment_bytes = store->segments.segment_bytes;
    uint64_t need = store_segments_min(store) * segment_bytes;
    if (limit == 0 || limit >= need)
        return KVS_ERR_OK;
    snprintf(message, ENGINE_MESSAGE_BYTES,
             "a disk limit of %llu KiB is too small for %u threads with segments of %llu KiB: give at least %llu KiB "
             "(--disk-limit %lluK), fewer threads, or make the store with smaller segments",
             (unsigned long long)(limit >> 10), store->shard_count, (unsigned long long)(segment_bytes >> 10),
             (unsigned long long)(need >> 10), (unsigned long long)(need >> 10));
    return KVS_ERR_INVALID;
}

static void segment_sealed(void *context, struct segment *segment)
{
    (void)segment;
    const struct store_shard *shard = context;
    keeper_wake(&shard->store->keeper, shard->ring);
}

/* All but its ring, which comes with its thread: others look at its figures before that. */
static void prepare_log(struct store_shard *shard)
{
    struct store *store = shard->store;
    const struct engine *engine = &store->base;
    const struct log_options options = {.table = &store->segments,
                                        .stream = shard->id,
                                        .epoch = engine->superblock.epoch,
                                        .lsn_base = engine->superblock.lsn_base,
                                        .sync_after_write = store->sync_after_write,
                                        .relaxed_interval_ms = engine->options.relaxed_interval_ms,
                                        .deletes_durable = store_deletes_durable,
                                        .segment_sealed = segment_sealed,
                                        .context = shard,
                                        .manifest = store->keeper.manifest,
                                        .clock = &store->base.clock};
    log_init(&shard->log, &options);
}

enum kvs_err kvs_engine_open(struct engine **out, const struct engine *base, struct ring *ring,
                             char message[ENGINE_MESSAGE_BYTES])
{
    /* Epoch records in it want their cache lines to themselves. */
    struct store *store = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof *store, KVS_CACHE_LINE_BYTES));
    if (store == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(store, 0, sizeof *store);
    store->base = *base;
    store->base.interface = &store_interface;
    name_sync_init(&store->names, store->base.dir_fd);
    epoch_init(&store->base.epoch);
    wall_clock_init(&store->base.clock, ring);
    unsigned shard_count = base->options.shard_count;
    store->shard_count = shard_count;
    enum kvs_err err = segment_table_init(&store->segments, base->superblock.segment_bytes);
    if (err == KVS_ERR_OK)
        err = check_memory(store, message);
    if (err == KVS_ERR_OK)
        err = check_disk_limit(store, message);
    if (err == KVS_ERR_OK)
        err = probe_directory(store, ring, message);
    if (err == KVS_ERR_OK)
        err = keeper_open(&store->keeper, store, images_max(store));
    for (unsigned i = 0; err == KVS_ERR_OK && i < shard_count; i++)
        err = shard_open(store, i);
    if (err == KVS_ERR_OK)
        err = store_values_open(store, ring, message);
    if (err == KVS_ERR_OK)
        err = store_recover(store, ring, message);
    if (err == KVS_ERR_OK)
        err = keeper_prepare(&store->keeper);
    for (unsigned i = 0; err == KVS_ERR_OK && i < shard_count; i++)
        prepare_log(store->shards[i]);
    if (err != KVS_ERR_OK) {
        store_free(store, ring);
        return err;
    }
    *out = &store->base;
    return KVS_ERR_OK;
}

static enum kvs_err store_shard_start(struct engine *engine, unsigned id, struct ring *ring, struct engine_shard **out)
{
    struct store *store = store_of(engine);
    struct store_shard *shard = store->shards[id];
    KVS_ASSERT(!shard->started);
    shard->ring = shard->base.ring = ring;
    shard->started = true;
    shard->log.options.ring = ring;
    if (shard->adopted != NULL)
        log_open(&shard->log, shard->adopted);
    atomic_store_explicit(&shard->wake_ring, ring, memory_order_release);
    keeper_wake(&store->keeper, ring);
    *out = &shard->base;
    return KVS_ERR_OK;
}

static bool store_shard_ready(const struct engine_shard *base)
{
    const struct store_shard *shard = container_of(base, struct store_shard, base);
    /* With a full disk and no segment to write in it is ready to read, and to say why it does not write. */
    if (shard->log.open == NULL)
        return store_maker_error(shard) != KVS_ERR_OK;
    return shard->log.failed || log_idle(&shard->log);
}

/* A new log takes the first segment to write in, a running one its spare. Only when that is being written in, the place
 * for an offer is free again: one spare is enough. */
static void supply_log(struct store_shard *shard)
{
    struct log *log = &shard->log;
    struct segment *segment = atomic_load_explicit(&shard->offered, memory_order_acquire);
    if (segment == NULL || log->failed)
        return;
    if (segment_state(segment) != SEGMENT_SPARE) {
        atomic_store_explicit(&shard->offered, NULL, memory_order_release);
        keeper_wake(&shard->store->keeper, shard->ring);
    } else if (log->open == NULL) {
        log_open(log, segment);
    } else if (log->spare == NULL) {
        log_offer(log, segment);
    }
}

/* Deletes that find no room need a segment of their reserve. */
static void tell_of_deletes(struct store_shard *shard)
{
    const bool removes = !list_empty(&shard->stalled_removes) || shard->groups_removing > 0;
    const bool wait = removes && shard->log.spare == NULL && !shard->log.failed;
    if (atomic_load_explicit(&shard->deletes_wait, memory_order_relaxed) == wait)
        return;
    atomic_store_explicit(&shard->deletes_wait, wait, memory_order_release);
    keeper_wake(&shard->store->keeper, shard->ring);
}

/* Memory that the keeper has taken from images goes to the cache. */
static void supply_cache(struct store_shard *shard)
{
    uint64_t target = atomic_load_explicit(&shard->cache_target, memory_order_relaxed);
    if (target == shard->cache_bytes || target < READ_CACHE_BYTES_MIN)
        return;
    struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_relaxed);
    if (cache != NULL) {
        read_cache_grow(cache, target);
    } else {
        uint64_t limit = keeper_cache_limit(&shard->store->keeper) / shard->store->shard_count;
        if (read_cache_open(&cache, target, limit < target ? target : limit) != KVS_ERR_OK)
            return; /* again at the next turn */
        atomic_store_explicit(&shard->cache, cache, memory_order_release);
    }
    shard->cache_bytes = target;
}

/* The index takes some of what it was lent over. When it has taken what memory was in stock for it the keeper is told,
 * once for each time. */
static void ask_for_stock(struct store_shard *shard)
{
    index_take_over(shard->index);
    const bool tight = index_is_tight(shard->index);
    if (tight && !shard->tight_told)
        keeper_wake(&shard->store->keeper, shard->ring);
    shard->tight_told = tight;
    const bool wants = index_wants_stock(shard->index);
    if (wants && !shard->stock_asked)
        keeper_wake(&shard->store->keeper, shard->ring);
    shard->stock_asked = wants;
}

static void store_turn(struct engine_shard *base)
{
    struct store_shard *shard = store_shard_of(base);
    epoch_poll(&base->thread);
    if (shard->flush.leaving != NULL)
        store_flush_shard_turn(shard);
    if (!shard->stopping)
        supply_log(shard);
    relocation_shard_turn(shard);
    supply_cache(shard);
    ask_for_stock(shard);
    store_values_turn(shard);
    if (!shard->stopping)
        store_expiry_turn(shard);
    if (!list_empty(&shard->stalled) || !list_empty(&shard->stalled_removes)) {
        store_resume_stalled(shard);
        tell_of_deletes(shard); /* first: the keeper looks at it when it has to make another spare */
        supply_log(shard);      /* the spare may have been taken into use: the next one should be on its way */
    } else {
        tell_of_deletes(shard);
    }
    if (shard->stopping && !shard->clean_marked && shard->busy_count == 0) {
        store_expiry_stop(shard);
        log_stop(&shard->log);
        shard->clean_marked = shard->log.failed || shard->log.open == NULL || shard->log.flags == BATCH_CLEAN ||
                              (log_idle(&shard->log) && shard->log.flags == 0);
    }
    log_turn(&shard->log);
    if (shard->stopping && shard->clean_marked && log_idle(&shard->log) &&
        !atomic_load_explicit(&shard->log_stopped, memory_order_relaxed)) {
        atomic_store_explicit(&shard->log_stopped, true, memory_order_release);
        keeper_wake(&shard->store->keeper, shard->ring);
    }
}

static int64_t store_timeout_ns(const struct engine_shard *base)
{
    const struct store_shard *shard = container_of(base, struct store_shard, base);
    if (relocation_shard_busy(shard))
        return 0;
    int64_t expiry_ns = shard->stopping ? -1 : store_expiry_timeout_ns(shard);
    return ring_sooner(expiry_ns, ring_sooner(log_timeout_ns(&shard->log), store_values_timeout_ns(shard)));
}

static void store_shard_stop(struct engine_shard *base)
{
    struct store_shard *shard = store_shard_of(base);
    shard->stopping = true;
}

static bool store_shard_stopped(const struct engine_shard *base)
{
    const struct store_shard *shard = container_of(base, struct store_shard, base);
    return shard->stopping && shard->clean_marked && log_idle(&shard->log) && shard->reads_in_flight == 0 &&
           store_scan_idle(shard) && store_values_idle(shard);
}

/* ---- state ----------------------------------------------------------------------------------------------------- */

static uint64_t store_durable(const struct engine_shard *base)
{
    return log_durable(&container_of(base, struct store_shard, base)->log);
}

static uint64_t store_lsn(const struct engine_shard *base)
{
    return log_lsn(&container_of(base, struct store_shard, base)->log);
}

static uint64_t store_want_durable(struct engine_shard *base)
{
    struct log *log = &container_of(base, struct store_shard, base)->log;
    const uint64_t latest = log->next_lsn - 1;
    log_want(log, latest);
    return latest;
}

static bool store_failed(const struct engine_shard *base)
{
    return container_of(base, struct store_shard, base)->log.failed;
}

static const char *store_refusal_text(const struct engine_shard *base)
{
    enum kvs_err error = store_maker_error(container_of(base, struct store_shard, base));
    return error == KVS_ERR_OK ? "" : kvs_err_text(error);
}

static const char *store_background_failure_text(const struct engine_shard *base)
{
    const struct keeper *keeper = &container_of(base, struct store_shard, base)->store->keeper;
    bool failed = atomic_load_explicit(&keeper->figures.failed, memory_order_acquire);
    return failed ? manifest_failure_text(keeper->manifest) : "";
}

static const char *store_failure_text(const struct engine_shard *base)
{
    return container_of(base, struct store_shard, base)->log.failure;
}

static const char *store_damage_text(const struct engine_shard *base)
{
    return container_of(base, struct store_shard, base)->damage;
}

static const char *store_durability_method(const struct engine *engine)
{
    const struct store *store = store_of(engine);
    if (!store->direct)
        return "buffered + fdatasync";
    return store->sync_after_write ? "O_DIRECT + fdatasync" : "O_DIRECT + RWF_DSYNC";
}

static uint64_t counter(const _Atomic uint64_t *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

static void store_stats(const struct engine *engine, struct engine_stats *out)
{
    const struct store *store = store_of(engine);
    for (unsigned i = 0; i < store->shard_count; i++) {
        const struct store_shard *shard = store->shards[i];
        struct index_stats index;
        index_stats(shard->index, &index);
        out->keys += counter(&shard->keys);
        out->index_bytes += index.bytes;
        out->index_splits += index.splits;
        out->records_appended += counter(&shard->log.total_records);
        out->bytes_appended += counter(&shard->log.total_bytes);
        out->batches += counter(&shard->log.total_batches);
        out->bytes_written += counter(&shard->log.total_written);
        out->commit_ns += counter(&shard->log.total_commit_ns);
        const struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_acquire);
        struct read_cache_stats cached = {0};
        if (cache != NULL)
            read_cache_stats(cache, &cached);
        out->cache_bytes += cached.bytes;
        out->cache_records += cached.records;
        out->cache_hits += cached.hits;
        out->cache_misses += cached.misses;
        out->reads_joined += counter(&shard->counters.reads_joined);
        out->disk_reads += counter(&shard->counters.disk_reads);
        out->disk_read_bytes += counter(&shard->counters.disk_read_bytes);
        out->damaged_reads += counter(&shard->counters.damaged_reads);
        out->puts_waited += counter(&shard->counters.puts_waited);
        out->removes_waited += counter(&shard->counters.removes_waited);
        out->blind_overwrites += counter(&shard->counters.blind_overwrites);
        uint64_t settles_ended = counter(&shard->counters.settles_ended); /* first, or it may overtake */
        out->settling += counter(&shard->counters.settles_begun) - settles_ended;
        out->settles_skipped += counter(&shard->counters.settles_skipped);
        out->failed_shards += shard->log.failed;
        out->expires += counter(&shard->expiry.keys);
        out->expired_keys += counter(&shard->expiry.expired);
        out->expiry_unqueued += counter(&shard->expiry.unqueued);
        out->expiry_bytes += expiry_queue_bytes(shard->expiry.queue);
        uint64_t lag_ms = counter(&shard->expiry.lag_ms), before_ms = counter(&shard->expiry.lag_before_ms);
        lag_ms = before_ms > lag_ms ? before_ms : lag_ms;
        out->expiry_lag_ms = lag_ms > out->expiry_lag_ms ? lag_ms : out->expiry_lag_ms;
    }
    out->image_bytes =
        atomic_load_explicit(&store->keeper.images.count, memory_order_relaxed) * store->segments.segment_bytes;
    out->segments = atomic_load_explicit(&store->segments.count, memory_order_relaxed);
    out->large_values = counter(&store->values.files);
    out->large_value_bytes = counter(&store->values.bytes);
    out->disk_bytes = out->segments * store->segments.segment_bytes;
    out->segments_free = atomic_load_explicit(&store->keeper.figures.free_count, memory_order_relaxed);
    out->segments_sealed = atomic_load_explicit(&store->keeper.figures.sealed_count, memory_order_relaxed);
    out->live_bytes = counter(&store->keeper.figures.live_bytes);
    out->background_failed = atomic_load_explicit(&store->keeper.figures.failed, memory_order_relaxed);
    struct checkpoint_stats checkpoint;
    checkpoint_stats(store->keeper.checkpoint, &checkpoint);
    out->checkpoint_runs = checkpoint.runs;
    out->checkpoint_run_bytes = checkpoint.run_bytes;
    out->checkpoint_made = checkpoint.made;
    out->checkpoint_bytes_written = checkpoint.bytes_written;
    out->checkpoint_failed = checkpoint.failed;
}

/* ---- background ------------------------------------------------------------------------------------------------ */

static enum kvs_err store_background_start(struct engine *engine, struct ring *ring, struct engine_background **out)
{
    struct store *store = store_of(engine);
    store->keeper.base.interface = &store_interface;
    *out = &store->keeper.base;
    keeper_start(&store->keeper, ring);
    return KVS_ERR_OK;
}

static void store_background_turn(struct engine_background *background)
{
    keeper_turn(keeper_of(background));
}

static int64_t store_background_timeout_ns(const struct engine_background *background)
{
    return keeper_timeout_ns(container_of(background, struct keeper, base));
}

static void store_background_stop(struct engine_background *background)
{
    keeper_stop(keeper_of(background));
}

static bool store_background_stopped(const struct engine_background *background)
{
    return keeper_stopped(container_of(background, struct keeper, base));
}

static enum kvs_err store_backup_begin(struct engine *engine, const char *name, struct ring *ring)
{
    const struct keeper *keeper = &store_of(engine)->keeper;
    enum kvs_err err = backup_ask(keeper->backup, name);
    if (err == KVS_ERR_OK)
        keeper_wake(keeper, ring);
    return err;
}

static void store_backup_state(const struct engine *engine, struct engine_backup_state *out)
{
    backup_state(store_of(engine)->keeper.backup, out);
}

static const struct engine_interface store_interface = {
    .kind = "kvs",
    .durability_method = store_durability_method,
    .close = store_close,
    .shard_start = store_shard_start,
    .shard_ready = store_shard_ready,
    .turn = store_turn,
    .timeout_ns = store_timeout_ns,
    .shard_stop = store_shard_stop,
    .shard_stopped = store_shard_stopped,
    .try = store_try,
    .try_get = store_try_get,
    .prefetch = store_prefetch,
    .submit = store_submit,
    .conclude = store_conclude,
    .op_release = store_op_release,
    .change_bytes_max = store_change_bytes_max,
    .lsn = store_lsn,
    .group_prepare = store_group_prepare,
    .group_append = store_group_append,
    .publish = store_publish,
    .group_end = store_group_end,
    .scan = store_scan,
    .flush_prepare = store_flush_prepare,
    .flush_begin = store_flush_begin,
    .flush_state = store_flush_state,
    .flush_end = store_flush_end,
    .durable = store_durable,
    .want_durable = store_want_durable,
    .failed = store_failed,
    .failure_text = store_failure_text,
    .refusal_text = store_refusal_text,
    .background_failure_text = store_background_failure_text,
    .damage_text = store_damage_text,
    .stats = store_stats,
    .background_start = store_background_start,
    .background_turn = store_background_turn,
    .background_timeout_ns = store_background_timeout_ns,
    .background_stop = store_background_stop,
    .background_stopped = store_background_stopped,
    .backup_begin = store_backup_begin,
    .backup_state = store_backup_state,
};
