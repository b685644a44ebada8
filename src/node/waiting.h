/*
 * waiting.h - requests whose answer takes time and no work: WAIT, WAITAOF, SAVE.
 *
 * The connection is held until it has its answer, so there is one such request of it at most. Each turn of the shard's
 * loop looks after them, every millisecond or so.
 *
 * WAITAOF. When the connection's earlier requests have all been answered, what they wrote is in the logs; then every
 * shard is asked to make durable what it has, and says when that is so. A shard that has failed says that it never
 * will be.
 *
 * In an EXEC nothing waits: the answer is what has come of it already.
 *
 * Thread of the connection's shard; waiting_deliver on any.
 */
#ifndef KVS_NODE_WAITING_H
#define KVS_NODE_WAITING_H

#include "node/command.h"

/* Each answers the current request, now or later. timeout_ms 0: without an end. */

/* With 0 replicas that have acknowledged, when the time is over. */
void waiting_replicas(struct call *call, uint64_t timeout_ms);
/* With [1, 0] when the connection's writes are durable here, or [0, 0] when the time is over or a shard has failed.
 * `replicas`: some are to acknowledge, too; so it takes all the time. */
void waiting_durable(struct call *call, bool local, bool replicas, uint64_t timeout_ms);
/* With OK when the backup has been made that has just begun, of which there have been `ended` before. */
void waiting_backup(struct call *call, uint64_t ended);

void waiting_deliver(struct shard *shard, struct mail *mail);
/* Once per turn. */
void waiting_turn(struct shard *shard);
/* How long the shard may sleep; -1: for ever. */
int64_t waiting_wait_ns(const struct shard *shard);
/* Frees what waits here, after the connections have been freed. */
void waiting_abandon(struct shard *shard);

#endif
