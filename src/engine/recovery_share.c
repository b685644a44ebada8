/*
 * recovery_share.c - work for many hands: every worker does the same and takes piece by piece what nobody has taken
 * yet. Without workers the calling thread is the only one.
 *
 * Of several errors the one about the first segment, or shard, is told, whoever met it first.
 */
#include "engine/recovery_internal.h"

#include "base/assert.h"

void recovery_expect(const struct recovery *recovery, uint64_t bytes)
{
    struct engine_progress *progress = recovery->store->base.options.progress;
    if (progress != NULL)
        atomic_fetch_add_explicit(&progress->bytes_total, bytes, memory_order_relaxed);
}

void recovery_progress(const struct recovery *recovery, uint64_t bytes)
{
    struct engine_progress *progress = recovery->store->base.options.progress;
    if (progress != NULL)
        atomic_fetch_add_explicit(&progress->bytes_done, bytes, memory_order_relaxed);
}

void recovery_worker_fail(struct recovery_worker *worker, size_t at, enum kvs_err err)
{
    KVS_ASSERT(err != KVS_ERR_OK);
    worker->err = err;
    worker->err_at = at;
    atomic_store(&worker->recovery->failed, true);
}

static void work(void *argument, unsigned number, struct ring *ring)
{
    struct recovery *recovery = argument;
    struct recovery_worker *worker = &recovery->workers[number];
    worker->recovery = recovery;
    worker->ring = ring;
    worker->err = KVS_ERR_OK;
    recovery->work(worker);
}

static void put_together(struct recovery *recovery, const struct recovery_worker *worker)
{
    if (worker->lsn_max > recovery->lsn_max)
        recovery->lsn_max = worker->lsn_max;
    if (worker->epoch_max > recovery->epoch_max)
        recovery->epoch_max = worker->epoch_max;
    if (worker->time_ms > recovery->time_ms)
        recovery->time_ms = worker->time_ms;
    if (worker->manifest_claimed &&
        (!recovery->manifest_claimed || (int32_t)(worker->manifest_max - recovery->manifest_max) > 0))
        recovery->manifest_max = worker->manifest_max;
    recovery->manifest_claimed = recovery->manifest_claimed || worker->manifest_claimed;
}

/* A run that was bad is no reason to give up, unless something else is. */
static bool tells_more(const struct recovery_worker *worker, const struct recovery_worker *than)
{
    if (worker->err == KVS_ERR_OK || than == NULL)
        return worker->err != KVS_ERR_OK;
    if ((worker->err == KVS_ERR_AGAIN) != (than->err == KVS_ERR_AGAIN))
        return than->err == KVS_ERR_AGAIN;
    return worker->err_at < than->err_at;
}

enum kvs_err recovery_share(struct recovery *recovery, void (*work_of_one)(struct recovery_worker *worker))
{
    const struct engine_workers *workers = recovery->store->base.options.workers;
    recovery->work = work_of_one;
    atomic_store(&recovery->next, 0);
    atomic_store(&recovery->failed, false);
    if (workers != NULL)
        workers->run(workers->context, work, recovery);
    else
        work(recovery, 0, recovery->ring);

    const struct recovery_worker *failed = NULL;
    for (unsigned i = 0; i < recovery->worker_count; i++) {
        put_together(recovery, &recovery->workers[i]);
        if (tells_more(&recovery->workers[i], failed))
            failed = &recovery->workers[i];
    }
    if (failed == NULL)
        return KVS_ERR_OK;
    if (failed->err != KVS_ERR_AGAIN)
        memcpy(recovery->message, failed->message, ENGINE_MESSAGE_BYTES);
    return failed->err;
}
