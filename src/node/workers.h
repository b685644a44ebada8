/*
 * workers.h - threads that help with opening the store: struct engine_workers for a program.
 *
 * Each has a ring of its own, without receive buffers. They are started for the opening and ended after it; in between
 * they sleep unless there is work. One thread owns the whole: it opens, hands to the engine, and closes.
 */
#ifndef KVS_NODE_WORKERS_H
#define KVS_NODE_WORKERS_H

#include "engine/engine.h"

struct workers;

/* Starts `count` threads, or as many as the system grants. NULL when there is not even one: then do without. */
struct workers *workers_open(unsigned count);
/* What engine_load takes; NULL for NULL. Good until workers_close. */
const struct engine_workers *workers_for_engine(const struct workers *workers);
/* Ends the threads, which have no work, and waits for that. NULL is allowed. */
void workers_close(struct workers *workers);

#endif
