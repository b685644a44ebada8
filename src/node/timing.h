/*
 * timing.h - around each command: its time and its place in the slow log. What a command's time is, says meter.h.
 *
 * Thread of the connection's shard.
 */
#ifndef KVS_NODE_TIMING_H
#define KVS_NODE_TIMING_H

#include "node/command.h"
#include "node/slowlog.h"

struct timing {
    uint64_t errors;
    const struct subcommand *sub;
    bool taken; /* the arguments are long, and may be gone in the end: their beginnings are in `shown` */
    struct slowlog_command shown;
};

void timing_begin(struct timing *timing, struct call *call, const struct subcommand *sub);
void timing_end(struct timing *timing, struct call *call, unsigned number);

/* GET or SET of a small value. `opcode`: FRAME_GET, FRAME_SET or FRAME_REMOVE. */
static inline void timing_run(struct shard *shard, unsigned opcode)
{
    const unsigned number = shard->frame_numbers[opcode];
    if (__builtin_expect(meter_run(&shard->meter, number), 1))
        return;
    meter_end_run(&shard->meter, ring_now_ns(shard->ring));
    (void)meter_run(&shard->meter, number);
}

#endif
