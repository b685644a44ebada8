/*
 * blocking.h - operations that somebody waits for with ring_await, at start-up and shutdown.
 */
#ifndef KVS_ENGINE_BLOCKING_H
#define KVS_ENGINE_BLOCKING_H

#include "ring/ring.h"

static inline void blocking_done(struct ring_op *op)
{
    (void)op;
}

/* Prepares an operation whose end is seen by ring_await alone. */
static inline void blocking_init(struct ring_op *op)
{
    ring_op_init(op, blocking_done);
}

/* Makes a file, or the names in a directory, durable: op->error tells. */
static inline void blocking_sync(struct ring *ring, struct ring_op *op, int fd)
{
    blocking_init(op);
    ring_file_sync(ring, op, fd);
    ring_await(ring, op);
}

#endif
