/*
 * run_sort.h - puts the entries of a segment, as a scan or a log has met them, into the order of a run. Pure; any
 * thread. In place; takes no memory but 40 KiB of stack.
 *
 * Entries of one key come together, the newest last, so that run_merge, given the array as a source, yields the newest
 * and tells of the others.
 */
#ifndef KVS_ENGINE_RUN_SORT_H
#define KVS_ENGINE_RUN_SORT_H

#include "engine/run_file.h"

/* By order, check, LSN, place. At most UINT32_MAX entries. */
void run_sort(struct run_entry *entries, size_t count);

#endif
