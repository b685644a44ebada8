/*
 * compactor.h - compaction at work: rewrites the live records of the segments that policy.h chooses, and gives those
 * segments back.
 *
 * It runs on the background thread of a store and on its ring, beside the engine's own background work, and never
 * blocks: call compact_turn after every ring_turn. compact_stats may be called from any thread.
 *
 * Failure: a victim with a damaged record is left as it is, and reported (promise P3: nothing damaged is copied or
 * dropped). A failed write ends compaction for good: what was copied is in use, or will be found where it was; the
 * store goes on, and fills up.
 */
#ifndef KVS_COMPACTION_COMPACTOR_H
#define KVS_COMPACTION_COMPACTOR_H

#include "engine/engine.h"

struct compactor;

#define COMPACT_MESSAGE_BYTES 256

struct compact_options {
    unsigned space_percent; /* see struct policy_options */
};

enum kvs_err compact_open(struct compactor **out, struct engine_background *background, struct ring *ring,
                          const struct compact_options *options);
/* After its ring's last turn. */
void compact_close(struct compactor *compactor);

void compact_turn(struct compactor *compactor);
/* Nanoseconds until compact_turn has something to do by itself; 0 = now; -1 = never. */
int64_t compact_timeout_ns(const struct compactor *compactor);
/* Begins no more victims; what is under way comes to an end or is left for the next start to throw away. */
void compact_stop(struct compactor *compactor);
/* Nothing is in flight. The shards must go on turning until then. */
bool compact_stopped(const struct compactor *compactor);

struct compact_stats {
    uint64_t plans;
    uint64_t victims;       /* segments given back */
    uint64_t bytes_read;    /* from victims */
    uint64_t bytes_written; /* to new segments, padding included */
    uint64_t records_moved;
    uint64_t deletes_kept, deletes_dropped;
    uint64_t expired_kept;     /* expired puts that were kept as deletes */
    uint64_t damaged_segments; /* victims left as they are */
    unsigned urgency;          /* 0 = at rest … 100 = writes wait for it */
    bool running;              /* there is a plan that it carries out */
    bool failed;               /* it has ended for good */
};
void compact_stats(const struct compactor *compactor, struct compact_stats *out);
/* What failed, where, or else which damage was met first; "" while nothing has. Any thread; the text stays. */
const char *compact_trouble(const struct compactor *compactor);

#endif
