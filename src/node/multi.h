/*
 * multi.h - MULTI, EXEC, DISCARD, WATCH, UNWATCH: what a connection has queued, and what it watches.
 *
 *   MULTI ─► commands are checked and queued ─► EXEC: a transaction on all their keys and the watched ones
 *
 * EXEC holds the keys, sees whether those that are watched have changed since, and carries the commands out on what the
 * keys hold (exec.h). Their changes become durable together; nobody sees a part.
 *
 * Thread of the shard that has the connection. Memory is within the budgets for requests under way.
 */
#ifndef KVS_NODE_MULTI_H
#define KVS_NODE_MULTI_H

#include "node/command.h"

struct multi;

/* A request of a connection that has said MULTI: queues it, unless it is one of those that are carried out at once.
 * True: it has its answer. `sub`: NULL: none. */
bool multi_takes(struct call *call, const struct subcommand *sub);
/* A request was refused before it came to that: EXEC will do nothing. */
void multi_spoil(struct client *client);
/* How many commands are queued; -1: there is no MULTI. */
int multi_count(const struct client *client);
/* EXEC would change something. */
bool multi_writes(const struct client *client);
/* Forgets all of it: RESET, the end of the connection. */
void multi_forget(struct shard *shard, struct client *client);
/* What was watched has been told to a shard that it is not any more, or is home. */
void multi_deliver(struct shard *shard, struct mail *mail);
/* The shard's connections are gone: frees what is left of them. */
void multi_abandon(struct shard *shard);

#endif
