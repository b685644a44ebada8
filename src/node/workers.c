/*
 * workers.c - a handful of threads that do one piece of work together, again and again.
 *
 *   owner    workers_run: a new round ──► wakes all ──► waits until `busy` is 0
 *   worker   waits for a round it has not done ──► work(argument, its number, its ring) ──► busy - 1
 *
 * A lock and two conditions: rounds are few, and take milliseconds at least.
 *
 * Failures. A thread or a ring that the system refuses makes the rest fewer, numbered without gaps: threads are started
 * one after the other, each when the one before it has its ring.
 */
#include "node/workers.h"

#include "base/assert.h"
#include "base/diag.h"
#include "base/limits.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum worker_state { WORKER_STARTING, WORKER_READY, WORKER_REFUSED };

struct worker {
    struct workers *all;
    pthread_t thread;
    unsigned number;
    enum worker_state state; /* under the lock */
};

struct workers {
    struct engine_workers interface;
    pthread_mutex_t lock;
    pthread_cond_t to_workers; /* a round, or the end */
    pthread_cond_t to_owner;   /* a worker has started, or all are done */

    /* Under the lock. */
    uint64_t round;
    unsigned busy;
    bool ending;
    void (*work)(void *argument, unsigned worker, struct ring *ring);
    void *argument;

    struct worker each[KVS_SHARDS_MAX];
};

static void report(struct worker *self, enum worker_state state)
{
    pthread_mutex_lock(&self->all->lock);
    self->state = state;
    pthread_cond_signal(&self->all->to_owner);
    pthread_mutex_unlock(&self->all->lock);
}

/* Takes part in every round until the end. */
static void serve_rounds(struct worker *self, struct ring *ring)
{
    struct workers *all = self->all;
    uint64_t done = 0;
    pthread_mutex_lock(&all->lock);
    for (;;) {
        while (all->round == done && !all->ending)
            pthread_cond_wait(&all->to_workers, &all->lock);
        if (all->ending)
            break;
        done = all->round;
        pthread_mutex_unlock(&all->lock);
        all->work(all->argument, self->number, ring); /* these two stay until all are done */
        pthread_mutex_lock(&all->lock);
        if (--all->busy == 0)
            pthread_cond_signal(&all->to_owner);
    }
    pthread_mutex_unlock(&all->lock);
}

static void *run_worker(void *argument)
{
    struct worker *self = argument;
    char name[16], message[RING_MESSAGE_BYTES];
    struct ring_options options = {0};
    struct ring *ring;
    snprintf(name, sizeof(name), "kvs-load-%u", self->number);
    (void)pthread_setname_np(pthread_self(), name);
    if (ring_open(&ring, &options, message) != KVS_ERR_OK) {
        diag_warn("the store is opened with %u helping threads only: %s", self->number, message);
        report(self, WORKER_REFUSED);
        return NULL;
    }
    report(self, WORKER_READY);
    serve_rounds(self, ring);
    ring_close(ring);
    return NULL;
}

/* False when there is to be no such worker. */
static bool start_worker(struct workers *all, unsigned number)
{
    struct worker *worker = &all->each[number];
    *worker = (struct worker){.all = all, .number = number, .state = WORKER_STARTING};
    if (pthread_create(&worker->thread, NULL, run_worker, worker) != 0)
        return false;
    pthread_mutex_lock(&all->lock);
    while (worker->state == WORKER_STARTING)
        pthread_cond_wait(&all->to_owner, &all->lock);
    bool ready = worker->state == WORKER_READY;
    pthread_mutex_unlock(&all->lock);
    if (!ready)
        pthread_join(worker->thread, NULL);
    return ready;
}

static void workers_run(void *context, void (*work)(void *argument, unsigned worker, struct ring *ring), void *argument)
{
    struct workers *all = context;
    pthread_mutex_lock(&all->lock);
    KVS_ASSERT(all->busy == 0 && !all->ending);
    all->work = work;
    all->argument = argument;
    all->busy = all->interface.count;
    all->round++;
    pthread_cond_broadcast(&all->to_workers);
    while (all->busy > 0)
        pthread_cond_wait(&all->to_owner, &all->lock);
    pthread_mutex_unlock(&all->lock);
}

struct workers *workers_open(unsigned count)
{
    KVS_ASSERT(count >= 1 && count <= KVS_SHARDS_MAX);
    struct workers *all = calloc(1, sizeof(*all));
    if (all == NULL)
        return NULL;
    all->interface = (struct engine_workers){.run = workers_run, .context = all};
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->to_workers, NULL);
    pthread_cond_init(&all->to_owner, NULL);
    while (all->interface.count < count && start_worker(all, all->interface.count))
        all->interface.count++;
    if (all->interface.count > 0)
        return all;
    workers_close(all);
    return NULL;
}

const struct engine_workers *workers_for_engine(const struct workers *workers)
{
    return workers == NULL ? NULL : &workers->interface;
}

void workers_close(struct workers *workers)
{
    if (workers == NULL)
        return;
    pthread_mutex_lock(&workers->lock);
    KVS_ASSERT(workers->busy == 0);
    workers->ending = true;
    pthread_cond_broadcast(&workers->to_workers);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->interface.count; i++)
        pthread_join(workers->each[i].thread, NULL);
    pthread_cond_destroy(&workers->to_owner);
    pthread_cond_destroy(&workers->to_workers);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}
