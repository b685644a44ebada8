/*
 * acl_store.h - changes of users that take time: passwords to derive, a file to read or write.
 *
 * The asking connection is held until its answer is there; nobody else waits for it.
 *
 * The file is written whole, under another name, made durable, and then renamed: a crash leaves the old one or the new
 * one. Only its owner may read it (mode 0600).
 *
 * Thread of the connection's shard; acl_store_start on the supervisor's, blocking.
 */
#ifndef KVS_NODE_ACL_STORE_H
#define KVS_NODE_ACL_STORE_H

#include "node/command.h"

#define ACL_STORE_MESSAGE_BYTES 1024

/* At the start: the users in config.acl_file, or the password in config.requirepass. False: `message` says why, naming
 * the file, the line and the remedy. */
bool acl_store_start(struct node *node, char message[ACL_STORE_MESSAGE_BYTES]);

/* Each answers the current request, now or later. */
void acl_store_set(struct call *call, struct slice name, const struct slice *rules, unsigned count);
void acl_store_load(struct call *call);
void acl_store_save(struct call *call);

/* Frees what is under way, with no reply: after the connections have been freed, and the ring closed. */
void acl_store_abandon(struct shard *shard);

#endif
