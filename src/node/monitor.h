/*
 * monitor.h - connections that watch all commands: MONITOR.
 *
 * Whatever shard carries out a command writes a line about it, if anybody watches; once per turn the lines go to the
 * monitors of this shard, and by mail to shards that have some. Commands for administrators are not shown, passwords
 * neither, and of long arguments only the beginning.
 *
 * Bounds. A monitor that does not read what there is to see is ended: when its unsent lines exceed MONITOR_OUTPUT_MAX,
 * or as much is under way to its shard.
 *
 * Nobody watching: nothing of this costs anything, but a bit in node->watch.
 */
#ifndef KVS_NODE_MONITOR_H
#define KVS_NODE_MONITOR_H

#include "node/command.h"

#define MONITOR_OUTPUT_MAX (4ull << 20)
#define MONITOR_ARG_BYTES  1024u
#define MONITOR_ARGS       128u

/* Writes the line, if anybody watches. Before the command is carried out. */
void monitor_note(struct call *call, const struct subcommand *sub);
/* The connection watches no more, if it did. */
void monitor_leave(struct shard *shard, struct client *client);

void monitor_deliver(struct shard *shard, struct mail *mail);
/* Once per turn, with no request being handled: hands over the lines. */
void monitor_turn(struct shard *shard);
/* Frees what is under way, after the connections have been freed. */
void monitor_abandon(struct shard *shard);

#endif
