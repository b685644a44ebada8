/*
 * big_memory.h - large, zeroed, 2 MiB-aligned memory straight from the system, on huge pages where allowed. Any thread.
 */
#ifndef KVS_ENGINE_BIG_MEMORY_H
#define KVS_ENGINE_BIG_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* NULL when the system has no more. Untouched pages take no RAM. */
void *big_memory_alloc(size_t bytes);
void big_memory_free(void *memory, size_t bytes);

/* Has the system back these bytes now, whatever they hold, also while others use them: the first touch of a page may
 * take milliseconds. `memory` is aligned to 4 KiB. Advice: where it cannot be done, the first touch does it. */
void big_memory_populate(void *memory, size_t bytes);

/* Puts what lies at `by` in the place of `memory`, whatever that is backed by; `by` is gone after it. Both are aligned
 * to 2 MiB. Who reads `memory` at the same time finds the old bytes or the new ones. False: nothing has changed. */
bool big_memory_replace(void *memory, void *by, size_t bytes);

#endif
