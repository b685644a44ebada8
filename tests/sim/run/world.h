/*
 * world.h - carries out a plan: a whole node on the simulated machine, clients, faults, crashes, and the oracle that
 * judges what they see.
 *
 * One world at a time in a process. A promise that is broken ends the process: the story goes to stderr, the exit
 * status is WORLD_EXIT_BROKEN; an assertion of the code under test aborts it. So each run happens in a process that may
 * die (runner.h).
 */
#ifndef KVS_TESTS_SIM_RUN_WORLD_H
#define KVS_TESTS_SIM_RUN_WORLD_H

#include "plan.h"

#include "ring_sim.h"

#define WORLD_EXIT_BROKEN 3

/* What happened in a run, to be added up over many. */
struct tally {
    uint64_t runs;
    uint64_t operations;                             /* begun by clients */
    uint64_t acknowledged;                           /* of them, with a definite answer */
    uint64_t swaps;                                  /* of these, that looked at a key and may have changed it */
    uint64_t groups, groups_shown;                   /* changes of several keys in one step: begun, done */
    uint64_t groups_refused, groups_unanswered;      /* … not to be; appended when the node went */
    uint64_t groups_judged;                          /* of these, of which a start told whether they are there */
    uint64_t scans;                                  /* … that told which keys there are */
    uint64_t flushes, flushes_done;                  /* that take all keys away: begun, done */
    uint64_t flushes_emptied;                        /* … and nothing that takes space was left after a while */
    uint64_t flushes_judged;                         /* without an answer: a start told whether they have happened */
    uint64_t refused;                                /* answered with an error */
    uint64_t full, full_deletes;                     /* of these, for lack of space; and of those, deletes */
    uint64_t puts_waited, removes_waited;            /* operations that waited for room in the log */
    uint64_t limited;                                /* runs with a limit on the log */
    uint64_t reliefs, resumptions;                   /* how often no delete was to be refused; writing was to resume */
    uint64_t unanswered;                             /* lost with their connection or the node */
    uint64_t boots, crashes, kills, stops, refusals; /* refusals: boots refused because of damage, rightly */
    uint64_t rotten_boots;                           /* boots over damage that need not be noticed */
    uint64_t backups, restores;                      /* made whole; boots on one */
    uint64_t checks;                                 /* full comparisons of all keys with the oracle */
    uint64_t steps;                                  /* of the machine */
    uint64_t simulated_ns;
    uint64_t faults[SIM_FAULT_COUNT];
};

struct world_options {
    bool story; /* tell what happens, step by step, on stderr */
};

/* Runs it to its end; adds to *tally. Returns the machine's trace hash, equal for equal plans. */
uint64_t world_run(const struct plan *plan, const struct world_options *options, struct tally *tally);

#endif
