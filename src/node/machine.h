/*
 * machine.h - the processors and the memory this process may use, and has used.
 */
#ifndef KVS_NODE_MACHINE_H
#define KVS_NODE_MACHINE_H

#include "ring/ring.h"

/* CPUs in the affinity mask; at least 1. Any thread. */
unsigned machine_cpus(void);

/* Binds the calling thread to the `index`th CPU of its affinity mask; false when refused. */
bool machine_pin_thread(unsigned index);

/* The RAM this process may use: the machine's, or the limit of its control group when that is smaller. Blocking, at
 * start-up, on the thread of `ring`. */
uint64_t machine_ram_bytes(struct ring *ring);

/* Allows this process as many open files as it may have: each connection is one, and the usual limit is 1,024. How many
 * that are. The main thread, once. */
uint64_t machine_raise_open_files(void);

/* Bytes of RAM that the allocator holds: given out, kept for the next time, its own; 0 when it does not tell (under a
 * sanitizer). Any thread; takes microseconds. */
uint64_t machine_heap_bytes(void);

/*
 * From now on a thread of the allocator's own gives back to the system what is free. Without it a thread's allocations
 * see to that: so what one has freed stays until it allocates again, and for ever when it has ended. False when there
 * is no such thread (under a sanitizer; or there is no memory for it): then all is as before. The main thread, once.
 */
bool machine_heap_give_back(void);

/* The most memory that was ever resident. Any thread. */
uint64_t machine_peak_resident_bytes(void);

struct machine_cpu_time {
    double user_seconds;
    double system_seconds;
};
/* Processor time used by this process. Any thread. */
struct machine_cpu_time machine_cpu_time(void);

#endif
