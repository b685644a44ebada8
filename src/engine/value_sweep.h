/*
 * value_sweep.h - after a start, finds the value files that nothing names any more: what a crash has left of puts that
 * were never acknowledged, and of values whose file was not removed when they died.
 *
 * For each file that the start has found: its header tells the key; the key's owner is asked whether its newest record
 * names this file, and lets the file go if not. One file at a time, in the background (keeper.h): its thread, its ring.
 * A file that counts, but expires, is looked at once more when it has: the owner may not know that its record, which is
 * on disk only, is that of a large value. A round is made some seconds after the first of them has expired.
 * Files of this boot are not looked at, but for those that were there when all keys were taken away (store_flush.h):
 * then all files are listed once more. A file whose header cannot be read, or is damaged, stays: it may be a live one,
 * and kvs-check tells.
 */
#ifndef KVS_ENGINE_VALUE_SWEEP_H
#define KVS_ENGINE_VALUE_SWEEP_H

#include "engine/store_values.h"

struct keeper;

enum value_sweep_state {
    SWEEP_NEXT, /* another file */
    SWEEP_OPEN,
    SWEEP_READ,
    SWEEP_ASK, /* until the owner has a place for the query */
    SWEEP_ASKED,
    SWEEP_REST, /* until due_ms */
    SWEEP_DONE,
};

struct value_sweep {
    enum value_sweep_state state;
    size_t next;                 /* in values.found */
    size_t kept;                 /* of those before it, for the next round: they stand at the beginning */
    bool again;                  /* … are to be listed once more … */
    uint64_t again_below;        /* … as far as their ids are below this one */
    uint64_t soonest_ms, due_ms; /* when the first of them expires; when the next round begins */
    int fd;
    uint8_t *block; /* where the header is read */
    size_t block_bytes;
    char name[VALUE_NAME_BYTES];
    struct ring_op io;
    struct value_query query;
    unsigned owner;
};

/* `fd` has to be -1 before the first turn. */
void value_sweep_init(struct value_sweep *sweep);
void value_sweep_turn(struct keeper *keeper);
/* All files that there are now are to be looked at when value_sweep_all is called: a flush takes the keys away that
 * name them, and no put is under way. */
void value_sweep_mark(struct keeper *keeper);
/* The keys are gone on all shards: before that an owner would say that a file counts. */
void value_sweep_all(struct keeper *keeper);
/* Nanoseconds until the turn has something to do by itself; -1 = never. */
int64_t value_sweep_timeout_ns(const struct keeper *keeper);
/* True when nothing of it is in flight, nor at a shard. */
bool value_sweep_idle(const struct value_sweep *sweep);
void value_sweep_deinit(struct value_sweep *sweep, struct ring *ring);

#endif
