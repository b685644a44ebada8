/*
 * warmup.h - fills images after a start, which has kept nothing of what it had to read. First the beginnings of the
 * segments that logs go on writing in (segment.h: image_from), then sealed segments, the youngest first, as long as
 * there are images that nobody else wants.
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
    bool tails_done;    /* those that are being written in have had their turn */
    uint64_t below_uid; /* of this kind, segments from here on have had theirs */
    bool busy;          /* with a segment: */
    uint32_t number;
    uint64_t uid; /* the life of it that is being read */
    uint32_t read_bytes, wanted_bytes;
    uint32_t backed_bytes; /* of a tail's image: the log need not wait for memory up to here */
    uint8_t *image;        /* a sealed one's, until it is shown */
    uint8_t *piece;        /* of a tail; its image is others', too */
    bool reading;          /* a read is in flight */
    bool done;             /* for good */
};

void warmup_init(struct warmup *warmup);
void warmup_turn(struct keeper *keeper, bool stopping);
/* When nothing is in flight, or its ring is closed. */
void warmup_deinit(struct keeper *keeper);
/* Nothing is in flight. */
bool warmup_idle(const struct warmup *warmup);
/* True when the turn should come again at once. */
bool warmup_busy(const struct warmup *warmup);
/* A read of this segment's file is under way: that must stay open, and keep what is in it. */
bool warmup_reads(const struct warmup *warmup, const struct segment *segment);

#endif
