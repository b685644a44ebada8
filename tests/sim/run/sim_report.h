/*
 * sim_report.h - what came of many runs, for people or as JSON, on standard output.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_REPORT_H
#define KVS_TESTS_SIM_RUN_SIM_REPORT_H

#include "runner.h"

struct sim_report {
    const char *program; /* as it was called, for the commands that see a failure again */
    const struct runner_result *result;
    char **files; /* of --regress, by number; NULL: numbers are seeds */
    uint64_t first, last;
    bool open_end; /* there is no last: the time ended it */
};

void sim_report_text(const struct sim_report *report);
void sim_report_json(const struct sim_report *report);

#endif
