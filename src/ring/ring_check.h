/*
 * ring_check.h - what this machine offers, for `kvs-node --check`. Blocking; not while serving.
 */
#ifndef KVS_RING_RING_CHECK_H
#define KVS_RING_RING_CHECK_H

#include "base/error.h"

#include <stdio.h>

/*
 * Prints, one fact a line, "name: value": kernel release; io_uring (set-up flags obtained by each step of the ladder,
 * features); each opcode the node needs, and whether the kernel has it; whether O_DIRECT and RWF_DSYNC work on data_dir
 * (tried with a temporary file, removed again) and its alignment; limits (open files, memlock),
 * kernel.io_uring_disabled, CPUs in the affinity mask, RAM. Ends with "verdict: …". Returns OK when the node can run
 * here.
 */
enum kvs_err ring_check(FILE *out, const char *data_dir);

#endif
