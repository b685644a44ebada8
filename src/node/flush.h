/*
 * flush.h - FLUSHALL: leads all shards through a flush of the engine (engine.h) together.
 *
 *   pause: commands on keys wait, those begun end ─► prepare ─► the fact is durable ─► end ─► go on, and the answer
 *
 * Nobody sees some keys gone and others there: commands on keys wait on all shards from before the first has begun to
 * after the last has ended. That takes two writes to the disk, whatever there is in the store.
 *
 * One at a time in a node; another one waits as other commands do. It goes on if its connection goes.
 *
 * Threads: flush_begin on that of the connection's shard, the rest on each shard's.
 */
#ifndef KVS_NODE_FLUSH_H
#define KVS_NODE_FLUSH_H

#include "node/command.h"

/* Answers the current request when all is done. */
void flush_begin(struct call *call);

void flush_deliver(struct shard *shard, struct mail *mail);
/* Once per turn, outside of sections. */
void flush_turn(struct shard *shard);
/* How long the shard may sleep; -1: for ever. */
int64_t flush_wait_ns(const struct shard *shard);
/* Nothing of one that was asked for here is under way. */
bool flush_over(const struct shard *shard);
/* Frees what was begun here, after the connections have been freed. */
void flush_abandon(struct shard *shard);

#endif
