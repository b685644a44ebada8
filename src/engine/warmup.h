/*
 * warmup.h - fills images after a start: segments that recovery did not have to read come into RAM in the background,
 * the youngest first, as long as there are images that nobody else wants.
 *
 * Part of the background work (keeper.h): its thread, its ring; nothing here waits. A segment is shown only after all
 * of it was verified. Failure: one that cannot be read, or is damaged, stays on disk, where reads of its records will
 * say what is wrong.
 */
#ifndef KVS_ENGINE_WARMUP_H
#define KVS_ENGINE_WARMUP_H

#include "ring/ring.h"

#include <stdbool.h>
#include <stdint.h>

struct keeper;
struct segment;

struct warmup {
    struct ring_op io;
    struct segment *segment; /* being read; NULL: none */
    uint64_t uid;            /* the life of it that is being read */
    uint64_t below_uid;      /* segments from here on have had their turn */
    uint8_t *image;
    uint32_t read_bytes; /* so far */
    bool reading;        /* a read is in flight */
    bool done;           /* for good */
};

void warmup_init(struct warmup *warmup);
void warmup_turn(struct keeper *keeper, bool stopping);
/* Nothing is in flight. */
bool warmup_idle(const struct warmup *warmup);
/* True when the turn should come again at once. */
bool warmup_busy(const struct warmup *warmup);

#endif
