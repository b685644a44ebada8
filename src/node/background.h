/*
 * background.h - the background thread of a node: the engine's background work and compaction, on a ring of their own.
 *
 * It belongs to one thread, which opens, turns and closes it, as a shard does (shard.h), and follows the same phases.
 */
#ifndef KVS_NODE_BACKGROUND_H
#define KVS_NODE_BACKGROUND_H

#include "compaction/compactor.h"
#include "node/shard.h"

struct background {
    struct node *node;
    struct ring *ring;
    struct engine_background *engine; /* NULL before SHARD_PREPARE, and if it stops before that */
    struct compactor *compactor;      /* NULL with engines that have nothing to compact */
    bool busy;                        /* the latest turn did something */
    _Atomic enum shard_state state;
    char message[SHARD_MESSAGE_BYTES]; /* empty, or why the node cannot start; settled before SHARD_READY */
};

/* Opens it on the calling thread; on failure its state is SHARD_BROKEN and there is nothing to close. */
void background_open(struct background *background);
/* One turn; false when SHARD_EXIT is reached. */
bool background_turn(struct background *background, bool may_sleep);
void background_close(struct background *background);
/* Frees the memory after a simulated crash: its ring is gone. */
void background_abandon(struct background *background);

#endif
