/*
 * info_commands.h - the sections of INFO that go through commands: commandstats, errorstats, latencystats. Any shard's
 * thread.
 */
#ifndef KVS_NODE_INFO_COMMANDS_H
#define KVS_NODE_INFO_COMMANDS_H

#include "node/command.h"

/* Calls `each` for every command and subcommand that can be called, with its full name ("config|get") and number. */
void info_each_command(const struct node *node,
                       void (*each)(void *context, const char *name, unsigned number, const struct command *command),
                       void *context);

void info_write_commandstats(const struct node *node, struct text *out);
void info_write_errorstats(const struct node *node, struct text *out);
void info_write_latencystats(const struct node *node, struct text *out);

#endif
