/*
 * verdict.h - how a run tells its story, and how it ends when a promise is broken.
 */
#ifndef KVS_TESTS_SIM_RUN_VERDICT_H
#define KVS_TESTS_SIM_RUN_VERDICT_H

#include <stdbool.h>

/* Whether story() prints. */
extern bool story_on;

/* One line of the story, with the simulated time, on stderr. */
void story(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "broken: …" on stderr, the state of the machine, and the end of the process with WORLD_EXIT_BROKEN. */
_Noreturn void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
