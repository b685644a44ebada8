/*
 * tool_cli.h - what the command-line tools share: standard streams, addresses, numbers.
 *
 * One thread (main), before others start, unless stated otherwise.
 */
#ifndef KVS_TOOLS_TOOL_CLI_H
#define KVS_TOOLS_TOOL_CLI_H

#include <stdbool.h>
#include <stdint.h>

#define TOOL_ADDR_DEFAULT "127.0.0.1:4000"

enum { TOOL_EXIT_OK = 0, TOOL_EXIT_FAILED = 1, TOOL_EXIT_USAGE = 2 };

/*
 * First thing in main. Takes the places of standard streams that the caller has closed, so that no socket gets number 1
 * and receives what is printed, and ignores SIGPIPE: a closed pipe shows as a write error.
 */
void tool_streams_init(void);

/*
 * Last thing in main: flushes standard output. When anything could not be written it says so on standard error and
 * returns TOOL_EXIT_FAILED, else `exit_code`.
 */
int tool_streams_finish(const char *program, int exit_code);

/* Parses a decimal number of min..max, nothing before or behind it. False on anything else. */
bool tool_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* The same for a number with a fraction. */
bool tool_parse_double(const char *text, double min, double max, double *out);

#endif
