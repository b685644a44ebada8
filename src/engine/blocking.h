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

#endif
