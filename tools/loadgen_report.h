/*
 * loadgen_report.h - the results of a stage, in words and in JSON.
 *
 * Main thread, when the workers rest.
 */
#ifndef KVS_TOOLS_LOADGEN_REPORT_H
#define KVS_TOOLS_LOADGEN_REPORT_H

#include "loadgen_worker.h"

struct loadgen_result {
    struct loadgen_counts counts; /* of all workers together */
    double seconds;               /* from the first request sent to the last reply seen */
    double cpu_share_max;         /* of a core, by the busiest thread; 0..1 */
    bool present;                 /* the stage was run */
};

/* Adds up what the workers have counted in the stage just finished. */
void loadgen_result_collect(struct loadgen_result *result, const struct loadgen_worker *workers, uint64_t count);

/* Prints to standard output what --fill and the measured stage gave; either may be absent. */
void loadgen_report_text(const struct loadgen_options *options, const struct loadgen_result *fill,
                         const struct loadgen_result *run);
void loadgen_report_json(const struct loadgen_options *options, const struct loadgen_result *fill,
                         const struct loadgen_result *run);

/* Writes the latencies of reads and writes to a file as CSV, a line for each bucket that has any: the greatest value of
 * the bucket in ns, how many reads, how many writes. False: could not, and said why. */
bool loadgen_report_histogram(const char *path, const struct loadgen_result *result);

#endif
