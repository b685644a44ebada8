/*
 * sim_groups.h - groups: changes of several keys in one step, led through the engine's interface beside the node's own
 * work, as a node leads them: all keys held, shard by shard; appended to one shard's log; when that is durable
 * published, key by key, by the owners; then freed.
 *
 * What is done to a shard is done in its turns (host.h, aside), so other threads have their turns in the midst of it. A
 * shard may take its time before it publishes, as one does that is busy: seconds, at times. Groups are of no
 * connection: they go on when those end. Their keys are ordinary durable ones, and every operation is told to the
 * oracle.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_GROUPS_H
#define KVS_TESTS_SIM_RUN_SIM_GROUPS_H

#include "host.h"
#include "oracle.h"
#include "sim_client.h"

struct sim_groups;

struct sim_groups *sim_groups_create(struct oracle *oracle, struct tally *tally,
                                     const struct circumstances *circumstances);
/* With none under way, or after sim_groups_abandon. */
void sim_groups_free(struct sim_groups *groups);

/* A node serves: `ring` is one of the clients', for the time. */
void sim_groups_boot(struct sim_groups *groups, struct host *host, struct ring *ring);
/* The node is gone: what was under way has no answer. Before its memory is freed. */
void sim_groups_abandon(struct sim_groups *groups);

/* So many more, a few at a time, details by the seed. */
void sim_groups_work(struct sim_groups *groups, unsigned count, uint64_t seed);
bool sim_groups_idle(const struct sim_groups *groups);
void sim_groups_describe(const struct sim_groups *groups);

#endif
