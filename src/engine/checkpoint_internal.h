/*
 * checkpoint_internal.h - what the parts of the checkpoints share.
 *
 *   checkpoint.c        life, the turn, the stop
 *   checkpoint_plan.c   what is covered by what, and what is to be done about it
 *   checkpoint_cover.c  a run from the records of segments
 *   checkpoint_merge.c  a run from other runs
 *   checkpoint_make.c   what those two have in common: a merge that goes into a writer
 *
 * All of it is the background thread's. A segment may be retired, be freed, have its file removed or get a new life
 * between any two turns: what outlives a turn knows a segment by number and uid, and looks it up again.
 */
#ifndef KVS_ENGINE_CHECKPOINT_INTERNAL_H
#define KVS_ENGINE_CHECKPOINT_INTERNAL_H

#include "engine/checkpoint.h"
#include "engine/run_collect.h"
#include "engine/run_merge.h"
#include "engine/run_sort.h"
#include "engine/run_writer.h"
#include "engine/store.h"

enum {
    CHECKPOINT_MERGE_MAX = 8, /* runs of like size that are merged into one; also what one merge takes at most */
};

/* ---- a run in the making: checkpoint_make.c -------------------------------------------------------------------- */

enum making_state { MAKING_IDLE, MAKING_WRITE, MAKING_FINISH, MAKING_OPEN };

/* Fills in the segments that the run covers, by rising number, when all entries are in it; returns how many. 0: the run
 * has become useless. */
typedef uint32_t making_covers_fn(void *context, struct run_segment *out);
/* The segment of this number, if the entries that go into the merge still stand for what it holds; else NULL. */
typedef const struct segment *making_segment_fn(const void *context, uint32_t number);

struct making {
    struct checkpoint *checkpoint;
    enum making_state state;
    bool busy; /* it would go on without waiting */
    struct run_merge *merge;
    struct run_entry *entries; /* from the merge, on their way to the writer: [at, count) */
    size_t at, count;
    struct run_writer *writer;
    uint64_t sequence;
    making_covers_fn *covers;
    making_segment_fn *segment_of;
    void *context;
    struct run_segment *segments; /* that it covers, once all entries are in */
    uint32_t segment_count;
    bool merged; /* that is so */
    bool unsure; /* of which copy of a record counts */
    struct run *run;
    enum kvs_err error; /* why it was given up */
    bool merge_failed;  /* it was a source's failure */
    char failure[ENGINE_MESSAGE_BYTES];
};

struct making_options {
    const struct run_merge_options *merge; /* the context of its functions will be the making */
    uint32_t segments_max;                 /* that `covers` may fill in */
    making_covers_fn *covers;
    making_segment_fn *segment_of;
    void *context; /* of both */
};

/* NO_MEMORY: nothing was begun. */
enum kvs_err making_begin(struct making *making, struct checkpoint *checkpoint, const struct making_options *options);
/* Goes on. AGAIN: not done yet. OK: making->run is there, durably, and has been opened; the caller takes it. CANCELLED:
 * it was given up, is unsure, or covers nothing. Else what has failed (making->failure says where); nothing is left but
 * maybe the whole file making->sequence, when that could not be opened (making->merged and MAKING_OPEN). */
enum kvs_err making_turn(struct making *making);
/* To be turned until it is no longer AGAIN. A run that is whole by then is not given up. */
void making_give_up(struct making *making);
/* After making_turn's last answer, or when the ring is gone. */
void making_close(struct making *making, struct ring *ring);

/* ---- from segments: checkpoint_cover.c ------------------------------------------------------------------------- */

struct cover_item {
    uint32_t number;
    bool dropped; /* damaged, or gone: the run will not cover it */
    uint64_t uid;
};

enum cover_state { COVER_IDLE, COVER_SCAN, COVER_MAKE, COVER_ENDING };

struct cover {
    enum cover_state state;
    bool busy;
    struct cover_item *items; /* by rising number */
    uint32_t item_count, item;
    struct run_collector collector;
    size_t sorted;              /* of its entries, in chunks */
    uint32_t records;           /* of the item, so far */
    uint32_t batch, batch_end;  /* where the scan is: equal at a batch's header */
    uint32_t batch_records, at; /* records left in the batch, and where the next begins */

    /* The part of the item's file that was read, when it has no image. */
    struct ring_op io;
    bool reading;
    bool read_short; /* the latest read has failed, or has found less than it should */
    unsigned tries;  /* after damage */
    uint8_t *window;
    size_t window_capacity;
    uint32_t window_begin, wanted_end;
    uint64_t window_bytes;

    struct making making;
};

/* What one segment takes in the memory of a cover. */
uint64_t cover_bytes(const struct segment *segment);
/* Begins a run of these segments: `items` are copied, and need not be in order. */
enum kvs_err cover_begin(struct checkpoint *checkpoint, const struct cover_item *items, uint32_t count);
void cover_turn(struct checkpoint *checkpoint);
void cover_give_up(struct checkpoint *checkpoint);
void cover_close(struct checkpoint *checkpoint, struct ring *ring);

/* ---- from runs: checkpoint_merge.c ----------------------------------------------------------------------------- */

/* A run that is there. */
struct held_run {
    struct run *run; /* NULL: of no use any more, its file is to be removed */
    uint64_t sequence;
    uint64_t bytes;
    uint32_t alive;   /* segments that it still covers, as of the latest review */
    unsigned damaged; /* times that its blocks did not verify */
    bool merging;     /* a source of the merge under way */
};

struct merge_source {
    struct run *run;
    struct run_reader *reader;
    uint8_t *alive; /* a bit for each segment number from `first` to `last`: its entries count */
    uint32_t first, last;
};

enum merge_state { MERGE_IDLE, MERGE_MAKE, MERGE_ENDING };

struct merging {
    enum merge_state state;
    bool busy;
    unsigned shift; /* of the store's segments */
    struct checkpoint *checkpoint;
    struct merge_source sources[CHECKPOINT_MERGE_MAX]; /* by rising sequence */
    unsigned source_count;
    enum kvs_err error; /* with ENDING: why */
    struct making making;
};

/* Begins to merge the runs that are marked as `merging`. */
enum kvs_err merge_begin(struct checkpoint *checkpoint);
void merge_turn(struct checkpoint *checkpoint);
void merge_give_up(struct checkpoint *checkpoint);
void merge_close(struct checkpoint *checkpoint, struct ring *ring);

/* ---- the whole: checkpoint.c ----------------------------------------------------------------------------------- */

enum stop_state {
    STOP_NONE,
    STOP_GIVING_UP, /* what was under way comes to its end */
    STOP_LOGS,      /* the logs have to stop */
    STOP_ENTER,     /* what they have sealed is entered in the manifest */
    STOP_COVER,
    STOP_REMOVE, /* files that are of no use any more */
    STOP_DONE,
};

struct checkpoint {
    struct store *store;
    struct ring *ring; /* NULL until started */
    uint64_t sequence; /* the latest given out, or seen */
    bool busy;         /* the turn would go on at once */

    struct held_run *runs; /* by rising sequence */
    size_t run_count, run_capacity;
    struct cover cover;
    struct merging merging;

    /* The removal of a file. */
    struct ring_op unlink_io;
    bool unlinking;
    uint64_t unlinked; /* its sequence */
    char unlinked_name[RUN_NAME_BYTES];

    /* What the latest review has found, and what the keeper had counted then. */
    bool due; /* for another one */
    bool covering;
    uint64_t uncovered;   /* bytes */
    uint32_t covered;     /* segments */
    uint64_t wait_ticket; /* of the manifest: segments were left out because it is not durable; 0 = none */
    uint64_t seals, ends;

    /* After an error. */
    uint64_t retry_ns, pause_ns; /* 0: there was none */

    enum stop_state stop;
    uint64_t stop_budget; /* segment bytes that may still be covered before it ends */
    bool stop_failed;

    struct {
        _Atomic uint64_t runs, run_bytes, made, bytes_written, failed;
    } figures;
};

/* Makes sure that a run can be added. NO_MEMORY. */
enum kvs_err checkpoint_reserve(struct checkpoint *checkpoint);
/* Takes over the run that was made; or, with NULL, a file of this sequence that is of no use. After a reserve. */
void checkpoint_add(struct checkpoint *checkpoint, struct run *run, uint64_t sequence);
struct held_run *checkpoint_find(struct checkpoint *checkpoint, uint64_t sequence);
/* The run is of no use any more: it is closed, and its file will be removed. */
void checkpoint_drop(struct checkpoint *checkpoint, struct held_run *held);
/* A run was made, or could not be made. */
void checkpoint_made(struct checkpoint *checkpoint, const struct making *making);
void checkpoint_trouble(struct checkpoint *checkpoint, const char *text);
/* The next is begun after a pause. */
void checkpoint_postpone(struct checkpoint *checkpoint);

/* The segment of this number and uid, if it is sealed or open still; else NULL. */
struct segment *checkpoint_segment(const struct checkpoint *checkpoint, uint32_t number, uint64_t uid);
/* The segment that this run covers, if it does so still; else NULL. */
struct segment *checkpoint_covered(const struct checkpoint *checkpoint, const struct run *run,
                                   const struct run_segment *segment);

/* ---- what is to be done: checkpoint_plan.c --------------------------------------------------------------------- */

/* Something has changed that may call for a run. */
bool plan_due(const struct checkpoint *checkpoint);
/* Nothing speaks against making one but the pause after an error. */
bool plan_allowed(const struct checkpoint *checkpoint);
/* Looks at all segments and runs, and begins what is to be done. */
void plan_turn(struct checkpoint *checkpoint);
/* For the stop, when all logs have stopped: begins a run of what is not covered, as much as memory allows. False: there
 * is nothing to begin, or it has failed (stop_failed). */
bool plan_rest(struct checkpoint *checkpoint);
/* Counts what each run covers, and drops those that cover nothing. */
void plan_review(struct checkpoint *checkpoint);

#endif
