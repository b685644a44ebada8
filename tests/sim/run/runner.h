/*
 * runner.h - carries out many plans in processes that may die, and keeps what is known of those that did.
 *
 * Each worker process takes the next number, makes its plan, runs it in a world (world.h) and adds its tally to a place
 * in memory that it shares with the caller. A worker that ends within a run - the promise broken, an assertion, a
 * sanitizer, a signal, or killed here for taking too long - is a failed run; another takes its place. Workers die with
 * their parent.
 *
 * One thread, one run at a time in a process. While it works, SIGINT and SIGTERM end it in order instead of killing it:
 * the runs under way have a moment to end, a second signal takes that from them. Only its own children are signalled.
 */
#ifndef KVS_TESTS_SIM_RUN_RUNNER_H
#define KVS_TESTS_SIM_RUN_RUNNER_H

#include "world.h"

#define RUNNER_JOBS_MAX    256
#define RUNNER_JOBS_EACH   0 /* one for each processor */
#define RUNNER_SECONDS_MAX 120.0
#define RUNNER_TEXT_MAX    16384

/* How the reason of a run that was killed for its time, and the message of one with two traces, begin. */
#define RUNNER_TOO_SLOW        "killed: took longer"
#define RUNNER_DOES_NOT_REPLAY "does not replay"

struct runner_options {
    /* Makes the plan of a number; called in the worker. */
    void (*plan_for)(const void *context, uint64_t number, struct plan *plan);
    const void *context;
    uint64_t first, last;   /* numbers, both included */
    double seconds;         /* no number is begun after this time; 0: no end */
    double run_seconds_max; /* a run that takes longer has failed; 0: no end */
    unsigned jobs;          /* workers; RUNNER_JOBS_EACH */
    unsigned failures_max;  /* ends early after as many; at least 1 */
    unsigned replay_every;  /* numbers that this divides are run twice and must leave the same trace; 0: none */
    bool foreground;        /* what a run writes goes where the caller's goes, instead of being kept */
    bool progress;          /* a line on standard error that tells how far it is */
    struct world_options world;
};

struct runner_failure {
    uint64_t number;
    char reason[128]; /* how it ended: "exited with status 3", "killed by signal 6 (Aborted)", … */
    char *text; /* what it wrote to standard error: of long texts, the beginning and the end; "" in the foreground */
};

struct runner_result {
    struct tally tally; /* of all runs that ended, failed ones as far as they came; `runs` counts numbers */
    uint64_t replayed;  /* numbers that were run twice */
    uint64_t abandoned; /* runs that were under way when it was interrupted */
    uint64_t trace;     /* of the run that ended last */
    double seconds;
    unsigned jobs;    /* that there were */
    bool interrupted; /* by a signal */
    bool cut_short;   /* by failures_max */
    unsigned failure_count;
    struct runner_failure *failures; /* by number; the result's own */
};

/* Returns what came of it, to be given to runner_free. Ends the process with a message when there is no memory or no
 * child to be had. */
struct runner_result runner_run(const struct runner_options *options);
void runner_free(struct runner_result *result);

#endif
