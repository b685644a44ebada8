/*
 * redact.h - arguments that nobody is to see: passwords, wherever commands are shown (SLOWLOG, MONITOR). Pure.
 */
#ifndef KVS_NODE_REDACT_H
#define KVS_NODE_REDACT_H

#include "node/command.h"

#define REDACTED "(redacted)"

/* Whether the argument at `at` is one of those. `sub`: NULL if the command has none. */
bool redact_hides(const struct command *command, const struct subcommand *sub, const struct slice *args, unsigned count,
                  unsigned at);

#endif
