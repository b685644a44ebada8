/*
 * shrink.h - makes a failing plan small while it goes on failing in the same way.
 *
 * Steps are left out by halves, quarters, ... single ones (delta debugging: A. Zeller and R. Hildebrandt, "Simplifying
 * and Isolating Failure-Inducing Input", 2002), then settings and the numbers inside steps are made smaller, and all of
 * that again until nothing changes. Each candidate runs in a process of its own (runner.h). Candidates that pass, or
 * fail in another way, are dropped.
 *
 * One thread. SIGINT and SIGTERM end it early with the best so far, as does the end of its time.
 */
#ifndef KVS_TESTS_SIM_RUN_SHRINK_H
#define KVS_TESTS_SIM_RUN_SHRINK_H

#include "runner.h"

#define SHRINK_CLASS_BYTES 256

struct shrink_options {
    double seconds;         /* for all of it */
    double run_seconds_max; /* of a run, as in runner.h */
    bool progress;
};

struct shrink_report {
    bool failed;       /* the plan as it was given does fail; else nothing was done */
    bool finished;     /* nothing can be made smaller any more */
    unsigned attempts; /* runs */
    unsigned steps_before;
    char failure_class[SHRINK_CLASS_BYTES];
};

/* Makes *plan smaller in place. */
struct shrink_report shrink_plan(struct plan *plan, const struct shrink_options *options);

/*
 * What two failures of the same kind have in common: of a failed assertion or a sanitizer's finding the place, else the
 * first line of the message up to the first digit or quote. Lines that the node wrote to its log do not count.
 */
void shrink_class(const struct runner_failure *failure, char out[SHRINK_CLASS_BYTES]);

/* The line of `text` that tells most about a failure, and its length; "" when there is none. */
const char *shrink_message(const char *text, size_t *length);

#endif
