/*
 * access.h - what stands between a request and its handler, once anything does: users' rights, pauses, muted replies.
 *
 * Requests come here only when the node is watched (node->watch) or their connection is something special
 * (client->special): one predictable branch for all others.
 *
 * Thread of the connection's shard.
 */
#ifndef KVS_NODE_ACCESS_H
#define KVS_NODE_ACCESS_H

#include "node/command.h"

/* Bits of node->watch. ACL_WATCH is 1. */
#define ACCESS_WATCH_PAUSE   2u
#define ACCESS_WATCH_EACH    4u  /* each command is to be timed by itself */
#define ACCESS_WATCH_MONITOR 8u  /* somebody watches (monitor.h) */
#define ACCESS_WATCH_FLUSH   16u /* commands on keys may have to wait (flush.h) */

enum access_answer {
    ACCESS_GRANTED,
    ACCESS_GONE,       /* the connection's user is not there any more */
    ACCESS_NO_AUTH,    /* nobody has logged in */
    ACCESS_NO_COMMAND, /* the user may not run it */
    ACCESS_NO_KEY,     /* … with this key */
};

/* What the rules say; `key`: the argument with ACCESS_NO_KEY. Notes refusals in the ACL log. */
enum access_answer access_check(struct call *call, const struct subcommand *sub, struct slice *key);
/* What they say of a user, whoever asks; ACCESS_NO_COMMAND and ACCESS_NO_KEY only. */
enum access_answer access_of_user(const struct acl_numbers *numbers, const struct acl_user *user,
                                  const struct command *command, const struct subcommand *sub, const struct slice *args,
                                  unsigned count, struct slice *key);

/* All of it for a RESP request: false when the request has its answer, or is postponed. */
bool access_request(struct call *call, const struct subcommand *sub);
/* For a frame of the connection: the same, with text and status of the refusal in *status (enum frame_status) and
 * *text; postponed: *text is NULL. */
bool access_frame(struct call *call, uint8_t *status, const char **text, char room[256]);

/* Notes a login that failed. */
void access_note_login(struct shard *shard, struct net_conn *conn, const char *command, struct slice user);

/* ---- CLIENT PAUSE ---------------------------------------------------------------------------------------------- */

/* Until then nobody's requests, or nobody's writes, are carried out. Of two pauses the later end and the stricter
 * counts. */
void access_pause(struct shard *shard, uint64_t until_ns, bool all);
void access_unpause(struct node *node);
/* The current request is to be looked at again later, as if it had come then. */
void access_postpone(struct call *call);
/* Once per turn: lets those go on whose pause is over. */
void access_turn(struct shard *shard);
/* How long the shard may sleep; -1: for ever. */
int64_t access_wait_ns(const struct shard *shard);

#endif
