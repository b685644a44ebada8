/*
 * host.h - one process's life on the simulated machine: a node with its shards and its supervisor in turn on this
 * thread, from boot to stop or crash.
 */
#ifndef KVS_TESTS_SIM_RUN_HOST_H
#define KVS_TESTS_SIM_RUN_HOST_H

#include "node/node_internal.h"
#include "ring_sim.h"

#define HOST_SHARDS_MAX 4u

struct host {
    struct config config;
    struct ring *ring; /* of the supervisor */
    struct node *node;
    enum node_status status;
    enum kvs_err error; /* of a boot that was refused */
    char message[NODE_MESSAGE_BYTES];
    struct host_shard {
        struct host *host;
        unsigned id;
        bool running;
    } shards[HOST_SHARDS_MAX + 1]; /* and the background */
    /* If it is set: done in every turn of a shard, before and after what the node does. True: something was done, and
     * the shard is to have another turn at once. */
    bool (*aside)(void *context, unsigned shard);
    void *aside_context;
};

/* What plans settle about the node. `preempt_every`: about so many steps of walks through an index from one that
 * another thread has a turn in the midst of; 0: threads take turns only as a whole. */
struct host_setting {
    unsigned threads;
    uint64_t segment_bytes;
    unsigned memory_segments; /* of the store's memory, for each shard */
    unsigned disk_segments;   /* that the store may have beyond the least it works with; 0: no limit */
    unsigned preempt_every;
    bool talkative;
};

/* True when the node serves. Otherwise nothing of it is left: error and message say why it did not start. A boot that
 * takes more than steps_max steps breaks the run. */
bool host_boot(struct host *host, const struct host_setting *setting, uint64_t steps_max);
/* Begins an orderly stop; host_stopped tells when it is complete, then host_free. */
void host_stop(struct host *host, bool at_once);
bool host_stopped(const struct host *host);
void host_free(struct host *host);
/* The shard has a turn soon. */
void host_wake(struct host *host, unsigned shard);
/* After sim_crash: frees the dead node's memory. */
void host_abandon(struct host *host);
/* Under a limit: segments that it leaves beyond the least, when files of values and live records have taken theirs. */
int64_t host_segments_left(const struct host *host);
/* Under a limit: the files that are held back for compaction and for deletes are there, or may be made. They are not
 * when the store has come under a lower limit, or from a backup. */
bool host_reserves_whole(const struct host *host);
/* The first address it listens on. */
struct ring_addr host_addr(const struct host *host);

#endif
