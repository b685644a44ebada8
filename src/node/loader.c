/*
 * loader.c - opening the store beside a supervisor that goes on supervising.
 *
 *   loader thread   its ring → workers, one for each shard but no more than CPUs → node_load → all of it is given back
 *   supervisor      loader_start … loader_tell, again and again … loader_end
 *
 * Failures. Without a ring of its own, or without a thread, the node gets the reason in place of a store. Without
 * workers the loader does all of it by itself.
 */
#include "node/loader.h"

#include "base/diag.h"
#include "node/machine.h"
#include "node/workers.h"

#include <stdatomic.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#define SECOND_NS    1000000000ull
#define FIRST_LOG_NS (2 * SECOND_NS)
#define LOG_NS       (5 * SECOND_NS)
#define NOTIFY_NS    SECOND_NS
/* What the service manager is asked to wait from each notice on. */
#define EXTEND_US 60000000

static void load(struct loader *loader)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {0};
    struct ring *ring;
    enum kvs_err err = ring_open(&ring, &options, message);
    if (err != KVS_ERR_OK) {
        node_load_refused(loader->node, err, message);
        atomic_store(&loader->ended, true);
        return;
    }
    unsigned shards = node_shard_count(loader->node), cpus = machine_cpus();
    struct workers *workers = workers_open(shards < cpus ? shards : cpus);
    node_load(loader->node, ring, workers_for_engine(workers));
    atomic_store(&loader->ended, true);
    workers_close(workers);
    ring_close(ring); /* the supervisor's wake-up leaves with it at the latest */
}

static void *run_loader(void *argument)
{
    struct loader *loader = argument;
    (void)pthread_setname_np(pthread_self(), "kvs-loader");
    load(loader);
    return NULL;
}

void loader_start(struct loader *loader, struct node *node, const struct ring *ring)
{
    *loader = (struct loader){.node = node, .begun_ns = ring_now_ns(ring)};
    loader->logged_ns = loader->begun_ns + FIRST_LOG_NS - LOG_NS;
    loader->started = pthread_create(&loader->thread, NULL, run_loader, loader) == 0;
    if (!loader->started)
        node_load_refused(node, KVS_ERR_SYSTEM, "no thread for it: raise the limits on processes and on memory");
}

void loader_tell(struct loader *loader, const struct ring *ring)
{
    uint64_t now = ring_now_ns(ring);
    struct loading loading = node_loading(loader->node, ring);
    if (loader->notified_ns == 0 || now - loader->notified_ns >= NOTIFY_NS) {
        loader->notified_ns = now;
        (void)sd_notifyf(0, "STATUS=Loading, %.0f %%\nEXTEND_TIMEOUT_USEC=%d", loading.percent, EXTEND_US);
    }
    if ((int64_t)(now - loader->logged_ns) >= (int64_t)LOG_NS) {
        loader->logged_ns = now;
        diag_info("opening the store for %.0f s: %llu of %llu bytes read, %.0f %%; clients are told to wait",
                  (double)(now - loader->begun_ns) / 1e9, (unsigned long long)loading.bytes_done,
                  (unsigned long long)loading.bytes_total, loading.percent);
    }
}

bool loader_end(struct loader *loader)
{
    if (!loader->started)
        return true;
    if (!atomic_load(&loader->ended))
        return false;
    pthread_join(loader->thread, NULL);
    loader->started = false;
    return true;
}
