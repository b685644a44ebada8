/*
 * compactor_internal.h - what the parts of compaction share: compactor.c copies and turns, compact_plan.c decides what
 * to copy next, which deletes to keep, and how fast.
 */
#ifndef KVS_COMPACTION_COMPACTOR_INTERNAL_H
#define KVS_COMPACTION_COMPACTOR_INTERNAL_H

#include "compaction/compactor.h"
#include "compaction/policy.h"
#include "engine/relocation.h"

#include <stdatomic.h>

enum { COMPACT_SPOILED_MAX = 64 };
#define COMPACT_POLL_NS 100000000ull /* while logs wait for space */

enum compact_state {
    COMPACT_REST,
    COMPACT_PLAN,
    COMPACT_OPEN,
    COMPACT_READ,
    COMPACT_READING,
    COMPACT_SIFT,
    COMPACT_OUTPUT,
    COMPACT_WRITING,
    COMPACT_SYNCING,
    COMPACT_SWINGING,
    COMPACT_SEAL,
    COMPACT_SEALING,
    COMPACT_FAILED,
};

/* A text that other threads may read: written once, then shown. */
struct notice {
    _Atomic bool there;
    char text[COMPACT_MESSAGE_BYTES];
};

struct compactor {
    struct engine_background *background;
    struct ring *ring;
    struct compact_options options;
    enum compact_state state;
    enum compact_state after_write; /* where to go on when the chunk is written and swung */
    bool stopping;
    bool gained;   /* segments have been given back since the latest plan */
    bool hopeless; /* logs lack space, and the latest look found nothing to gain */
    struct ring_op io;
    bool io_active;

    struct relocation_figure *figures;
    struct policy_segment *segments;
    size_t figures_capacity;
    struct policy_plan plan;
    unsigned next_victim;
    uint64_t appended;      /* by the logs, when the latest plan was made … */
    uint64_t counted;       /* … what relocation_counted said … */
    uint64_t planned_ns;    /* … and when that was */
    uint64_t paced_ns;      /* no read before */
    double rate;            /* bytes a second */
    uint64_t rate_ns;       /* when the rate was last set … */
    uint64_t rate_appended; /* … and what had been appended then */

    struct segment *victim;
    uint64_t shadow_lsn;       /* deletes with higher LSNs must be kept; as of … */
    uint64_t settled;          /* … this state of the index: see relocation_settled */
    uint64_t now_ms;           /* the store's time, or a little before it */
    uint32_t batch, batch_end; /* the batch at `batch`; batch_end = batch before its header was read */
    uint32_t at;               /* the next record */
    unsigned tries;
    uint8_t *window;
    size_t window_capacity, window_bytes;
    uint32_t window_begin, wanted_end; /* offsets in the victim */

    struct segment *output;
    uint8_t *chunk;
    size_t chunk_capacity, chunk_bytes;
    uint32_t chunk_records;
    uint64_t output_records; /* in batches before the chunk */
    struct relocation_move *moves;
    size_t move_count;
    uint64_t ticket;

    struct segment *copied[POLICY_VICTIMS_MAX]; /* victims whose live records are all in outputs */
    unsigned copied_count;
    uint32_t spoiled[COMPACT_SPOILED_MAX]; /* segments to leave alone */
    unsigned spoiled_count;

    struct {
        _Atomic uint64_t plans, victims, bytes_read, bytes_written, records_moved, deletes_kept, deletes_dropped,
            expired_kept, damaged_segments;
        _Atomic unsigned urgency;
        _Atomic bool running, failed;
    } stats;
    struct notice failure, damage;
};

static inline void compact_add(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

/* Tells the world how urgent it is, and writers whether to wait. */
void compact_set_urgency(struct compactor *compactor, unsigned urgency);
/* Writes a text that others may read, once. */
void compact_note(struct notice *notice, const char *text);

/* ---- compact_plan.c -------------------------------------------------------------------------------------------- */

/* Chooses victims into compactor->plan, and sets the urgency. */
void compact_make_plan(struct compactor *compactor);
/* Deletes of the victim with an LSN up to this one hide nothing. */
uint64_t compact_shadow_lsn(struct compactor *compactor);
/* Leaves a segment alone from now on: it is damaged, or not what it should be. */
void compact_spoil(struct compactor *compactor, const struct segment *segment, uint32_t offset, const char *why);
/* So many bytes are read now: sets the time before which no more are to be. */
void compact_pace(struct compactor *compactor, uint64_t bytes);

#endif
