/*
 * machine.h - the processors and the memory this process may use.
 *
 * Plain system calls and small reads of /proc and /sys, which no device delays; not on the hot path. Any thread.
 */
#ifndef KVS_NODE_MACHINE_H
#define KVS_NODE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

/* CPUs in the affinity mask; at least 1. */
unsigned machine_cpus(void);

/* The RAM this process may use: the machine's, or the limit of its control group when that is smaller. */
uint64_t machine_ram_bytes(void);

/* Resident memory of this process now; 0 when the system does not tell. */
uint64_t machine_resident_bytes(void);

/* Binds the calling thread to the `index`th CPU of the affinity mask that `machine_cpus` counts; false when refused. */
bool machine_pin_thread(unsigned index);

struct machine_cpu_time {
    double user_seconds;
    double system_seconds;
};
/* Processor time used by this process. */
struct machine_cpu_time machine_cpu_time(void);

#endif
