/*
 * derive.c - the queue of passwords to derive: first come, first served.
 *
 * Failures: more than DERIVE_JOBS_MAX are refused when they come, so that nobody waits for long.
 */
#include "node/derive.h"

#include "base/assert.h"

void derive_init(struct derive_queue *queue)
{
    list_init(&queue->jobs);
    queue->count = 0;
    queue->latest_ns = 0;
}

bool derive_add(struct derive_queue *queue, struct derive_job *job)
{
    KVS_ASSERT(job->count > 0 && job->done != NULL);
    if (queue->count == DERIVE_JOBS_MAX)
        return false;
    job->next = 0;
    job->begun = false;
    queue->count++;
    list_push_back(&queue->jobs, &job->link);
    return true;
}

/* One slice; true when all is derived. */
static bool step(struct derive_job *job)
{
    struct acl_secret *secret = &job->secrets[job->next];
    if (!job->begun) {
        acl_derive_begin(&job->derivation, &secret->digest, &secret->salt);
        job->begun = true;
    }
    if (!acl_derive(&job->derivation, DERIVE_ROUNDS))
        return false;
    secret->key = job->derivation.sum;
    job->begun = false;
    return ++job->next == job->count;
}

void derive_turn(struct derive_queue *queue, uint64_t now_ns, bool idle)
{
    if (list_empty(&queue->jobs) || (!idle && now_ns - queue->latest_ns < DERIVE_BUSY_NS))
        return;
    queue->latest_ns = now_ns;
    struct derive_job *job = container_of(queue->jobs.next, struct derive_job, link);
    if (!step(job))
        return;
    list_remove(&job->link);
    queue->count--;
    explicit_bzero(&job->derivation, sizeof(job->derivation));
    job->done(job);
}

void derive_now(struct acl_secrets *secrets)
{
    for (unsigned i = 0; i < secrets->count; i++) {
        struct acl_derivation derivation;
        acl_derive_begin(&derivation, &secrets->each[i].digest, &secrets->each[i].salt);
        bool done = acl_derive(&derivation, UINT32_MAX);
        KVS_ASSERT(done);
        secrets->each[i].key = derivation.sum;
    }
    secrets->derived = true;
}
