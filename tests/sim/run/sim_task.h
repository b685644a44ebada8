/*
 * sim_task.h - what a client has before it, when it does not do everything at once: one pipeline after the other, each
 * when the one before is answered; then, after a pause, what was refused once more.
 *
 * Pure: the client asks what comes next, and says what was refused.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_TASK_H
#define KVS_TESTS_SIM_RUN_SIM_TASK_H

#include "plan.h"

enum { TASK_AGAIN_MAX = 64 };

enum task_action { TASK_SET, TASK_GET, TASK_DEL, TASK_SWAP };

struct task_step {
    enum task_action action;
    unsigned key;
};

struct task {
    enum work_style style;
    uint64_t random;
    unsigned left;        /* operations */
    unsigned depth;       /* of a pipeline */
    unsigned base, count; /* keys */
    unsigned next;        /* key, counted from base */
    unsigned parity;      /* of the keys that are to go */
    bool ends_when_refused;
    bool swaps;                    /* operations that look and change are among the chains; false after task_begin */
    unsigned patience;             /* how often what was refused is repeated */
    const enum task_action *chain; /* the rest of what is being done with one key */
    unsigned chain_left, chain_key;

    struct task_step again[TASK_AGAIN_MAX]; /* refused */
    unsigned again_count, repeats_left;     /* of them so many are being repeated now, the first ones */
};

/* `keys` of them from `base` on. */
void task_begin(struct task *task, enum work_style style, unsigned operations, unsigned base, unsigned keys,
                uint64_t seed);
/* No more is to come of it. */
void task_end(struct task *task);
/* True when something is left, at once or after a pause. */
bool task_busy(const struct task *task);
/* Fills in the next pipeline and returns how many operations it has; 0: none at once. */
unsigned task_pipeline(struct task *task, struct task_step *out, unsigned max);
/* When nothing is under way and task_pipeline gave nothing: how long to pause before what was refused is repeated; 0:
 * nothing is to be. */
uint64_t task_pause_ns(struct task *task);
/* The pause is over. */
void task_repeat(struct task *task);
/* An operation was refused for lack of room. */
void task_refused(struct task *task, enum task_action action, unsigned key);

#endif
