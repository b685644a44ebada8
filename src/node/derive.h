/*
 * derive.h - passwords that are being derived, on the thread of the shard whose connection waits for it.
 *
 * A derivation is a hundred thousand rounds of SHA-256, some 20 ms of a processor, which no shard may spend in one
 * piece. It is done in slices of DERIVE_ROUNDS (about 0.1 ms), one after a turn of the loop that brought nothing else
 * to do, and at most one in each millisecond of a shard that is busy. So a flood of wrong passwords costs requests a
 * tenth of their processor at most, and each of them 0.1 ms of patience; and who guesses passwords gets fewer tries the
 * busier the node is. There is no further thread, and the simulator sees the same code.
 *
 * Thread of the shard.
 */
#ifndef KVS_NODE_DERIVE_H
#define KVS_NODE_DERIVE_H

#include "base/list.h"
#include "node/acl.h"

struct shard;

#define DERIVE_ROUNDS   512u
#define DERIVE_JOBS_MAX 256u /* waiting, per shard */
#define DERIVE_BUSY_NS  1000000u

/* Secrets to derive, all of them, one after the other. Embedded in whatever waits for it. */
struct derive_job {
    struct list link;
    struct acl_secret *secrets;
    unsigned count;
    void (*done)(struct derive_job *job); /* from derive_turn; may free it, and add others */
    /* Private. */
    unsigned next;
    bool begun;
    struct acl_derivation derivation;
};

struct derive_queue {
    struct list jobs;
    unsigned count;
    uint64_t latest_ns;
};

void derive_init(struct derive_queue *queue);
/* False: too many are waiting. */
bool derive_add(struct derive_queue *queue, struct derive_job *job);
/* Once per turn of the loop; `idle`: it brought nothing. */
void derive_turn(struct derive_queue *queue, uint64_t now_ns, bool idle);
static inline bool derive_waiting(const struct derive_queue *queue)
{
    return !list_empty(&queue->jobs);
}
/* All of it at once, blocking: at the start of a node. */
void derive_now(struct acl_secrets *secrets);

#endif
