/*
 * sim_options.h - what kvs-sim is asked to do, and its command line.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_OPTIONS_H
#define KVS_TESTS_SIM_RUN_SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_PROGRAM "kvs-sim"

enum sim_mode { SIM_MODE_NONE, SIM_MODE_SEED, SIM_MODE_PLAN, SIM_MODE_SEEDS, SIM_MODE_REGRESS };

struct sim_options {
    enum sim_mode mode;
    uint64_t first, last; /* seeds, both included; of SIM_MODE_SEED: the same */
    double seconds;       /* of SIM_MODE_SEEDS; 0: until the last seed */
    const char *path;     /* of a plan, or of a folder of plans */
    bool random_first;    /* `first` is to be chosen by chance */
    bool trace, shrink, print_plan, json;
    double run_seconds; /* 0: no end */
    double shrink_seconds;
    unsigned jobs; /* RUNNER_JOBS_EACH */
    unsigned failures_max;
};

enum sim_parsed { SIM_RUN, SIM_EXIT_OK, SIM_EXIT_USAGE };

/* Reads the command line; prints help or what is wrong. */
enum sim_parsed sim_options_parse(int argc, char **argv, struct sim_options *options);

#endif
