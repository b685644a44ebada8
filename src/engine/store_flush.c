/*
 * store_flush.c - both sides of a flush: the owners', and the background's.
 *
 * Why one LSN is enough. Every shard's LSNs go on above the highest that any of them had given when nothing was under
 * way. So what was there before has an LSN up to it, and what comes after a higher one, whatever log it is in and
 * whoever owns its key in a later boot.
 *
 * An index that is left may still be looked at by sections that have begun before. When they have ended, and the
 * owner's epoch has freed what had left the index by itself, it is the background's.
 *
 * Failure modes: the superblock cannot be written, or not synced: nobody knows which one a start will find, so every
 * log stops writing. A crash at any point leaves all keys, or none.
 */
#include "engine/store_flush.h"

#include "base/assert.h"
#include "base/canary.h"
#include "engine/store.h"

enum { PAGES_PER_TURN = 128 };

/* ---- the owners ------------------------------------------------------------------------------------------------ */

/* Operations that change keys, and what they have left to be settled. */
static bool nothing_under_way(const struct store_shard *shard)
{
    return shard->busy_count == 0 && list_empty(&shard->stalled) && list_empty(&shard->stalled_removes) &&
           list_empty(&shard->settlings) && list_empty(&shard->groups);
}

enum kvs_err store_flush_prepare(struct engine_shard *base, uint64_t *lsn)
{
    struct store_shard *shard = store_shard_of(base);
    struct log *log = &shard->log;
    if (log->failed || shard->stopping)
        return KVS_ERR_FAILED;
    if (!nothing_under_way(shard))
        return KVS_ERR_AGAIN;
    /* Durable: an index entry of a delete waits for that, and nobody is to be shown later what a crash takes back. */
    const uint64_t latest = log->next_lsn - 1;
    log_want(log, latest);
    if (log->open != NULL && log_durable(log) < latest)
        return KVS_ERR_AGAIN;
    *lsn = log_lsn(log);
    return shard->flush.next != NULL ? KVS_ERR_OK : store_index_next(shard, &shard->flush.next);
}

void store_flush_begin(struct engine_shard *base, uint64_t lsn)
{
    const struct store_shard *shard = store_shard_of(base);
    struct store_flush *flush = &shard->store->flush;
    KVS_ASSERT(atomic_load_explicit(&flush->state, memory_order_relaxed) != FLUSH_ASKED);
    flush->lsn = lsn;
    atomic_store_explicit(&flush->state, FLUSH_ASKED, memory_order_release);
    keeper_wake(&shard->store->keeper, shard->ring);
}

enum kvs_err store_flush_state(const struct engine_shard *base, const char **text)
{
    const struct store_flush *flush = &container_of(base, struct store_shard, base)->store->flush;
    const enum store_flush_state state = atomic_load_explicit(&flush->state, memory_order_acquire);
    *text = state == FLUSH_FAILED ? flush->update.text : "";
    return state == FLUSH_ASKED ? KVS_ERR_AGAIN : state == FLUSH_DONE ? KVS_ERR_OK : KVS_ERR_FAILED;
}

static void leave_index(struct store_shard *shard)
{
    struct left_index *left = shard->flush.next;
    shard->flush.next = NULL;
    left_index_change(left, &shard->index, &shard->base.thread);
    index_allow(shard->index, atomic_load(&shard->index_bytes_max)); /* it may have been made long ago */
    left->next = shard->flush.leaving;
    shard->flush.leaving = left;
    store_set(&shard->keys, 0);
    store_set(&shard->expiry.keys, 0); /* items of its queue are stale: it sweeps them out */
}

enum kvs_err store_flush_end(struct engine_shard *base)
{
    struct store_shard *shard = store_shard_of(base);
    const struct store_flush *flush = &shard->store->flush;
    if (atomic_load_explicit(&flush->state, memory_order_acquire) == FLUSH_FAILED) {
        log_give_up(&shard->log, flush->update.text);
        return KVS_ERR_OK;
    }
    if (!canary_on(CANARY_FLUSH_WITHOUT_JUMP) && log_jump(&shard->log, flush->lsn) == KVS_ERR_AGAIN)
        return KVS_ERR_AGAIN;
    leave_index(shard);
    return KVS_ERR_OK;
}

void store_flush_shard_turn(struct store_shard *shard)
{
    struct left_index **place = &shard->flush.leaving;
    while (*place != NULL && !(*place)->unseen)
        place = &(*place)->next;
    struct left_index *left = *place;
    if (left == NULL)
        return;
    *place = left->next;
    struct store_flush *flush = &shard->store->flush;
    left->next = atomic_load_explicit(&flush->left, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&flush->left, &left->next, left, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    keeper_wake(&shard->store->keeper, shard->ring);
}

void store_flush_shard_close(struct store_shard *shard)
{
    left_index_free(shard->flush.leaving);
    left_index_free(shard->flush.next);
    shard->flush = (struct shard_flush){0};
}

/* ---- the background: the superblock ---------------------------------------------------------------------------- */

static void turn_superblock(struct keeper *keeper)
{
    struct store *store = keeper->store;
    struct store_flush *flush = &store->flush;
    if (atomic_load_explicit(&flush->state, memory_order_acquire) != FLUSH_ASKED ||
        !superblock_update_idle(&flush->update))
        return;
    if (store->base.superblock.flushed_lsn == flush->lsn) {
        value_sweep_mark(keeper); /* now: no file of a put that is under way is there */
        atomic_store_explicit(&flush->state, FLUSH_DONE, memory_order_release);
        store_wake_shards(store, keeper->ring);
    } else if (flush->update.error != KVS_ERR_OK) {
        atomic_store_explicit(&flush->state, FLUSH_FAILED, memory_order_release);
        store_wake_shards(store, keeper->ring);
    } else {
        /* Without memory: again in another turn. */
        (void)superblock_update_begin(&flush->update, keeper->ring, store->base.dir_fd, &store->base.superblock,
                                      flush->lsn);
    }
}

/* ---- the background: indexes that were left -------------------------------------------------------------------- */

static void count_dead(const struct store *store, const struct index_entry *entries, unsigned count)
{
    for (unsigned i = 0; i < count && !canary_on(CANARY_FLUSH_UNCOUNTED); i++) {
        struct segment *segment =
            segment_get(&store->segments, address_segment(entries[i].address, store->segments.shift));
        segment_count_dead(segment, entries[i].class, 1);
    }
}

static void turn_left(struct keeper *keeper)
{
    struct store_flush *flush = &keeper->store->flush;
    if (flush->walked == NULL)
        flush->walked = atomic_exchange_explicit(&flush->left, NULL, memory_order_acquire);
    struct left_index *left = flush->walked;
    struct index_entry entries[INDEX_PAGE_ENTRIES];
    bool more = left != NULL;
    for (unsigned i = 0; i < PAGES_PER_TURN && more; i++) {
        unsigned count;
        more = left_index_page(left, entries, &count);
        count_dead(keeper->store, entries, count);
    }
    if (left == NULL || more)
        return;
    flush->walked = left->next;
    left->next = NULL;
    left_index_free(left);
    const uint64_t counted = atomic_fetch_add_explicit(&flush->counted, 1, memory_order_release) + 1;
    if (counted % keeper->store->shard_count == 0) /* each flush leaves one of every shard */
        value_sweep_all(keeper);
}

void store_flush_turn(struct keeper *keeper)
{
    turn_superblock(keeper);
    turn_left(keeper);
}

bool store_flush_busy(const struct keeper *keeper)
{
    const struct store_flush *flush = &keeper->store->flush;
    const bool asked = atomic_load_explicit(&flush->state, memory_order_relaxed) == FLUSH_ASKED;
    return flush->walked != NULL || atomic_load_explicit(&flush->left, memory_order_relaxed) != NULL ||
           (asked && superblock_update_idle(&flush->update));
}

bool store_flush_idle(const struct keeper *keeper)
{
    return superblock_update_idle(&keeper->store->flush.update);
}

void store_flush_close(struct keeper *keeper, struct ring *ring)
{
    struct store_flush *flush = &keeper->store->flush;
    superblock_update_deinit(&flush->update, ring);
    left_index_free(flush->walked);
    left_index_free(atomic_load(&flush->left));
}
