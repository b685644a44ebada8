/*
 * login.h - AUTH, in whichever protocol: a password is right, wrong, or has to be derived first.
 *
 * While it is derived the connection is held: what it asks next is asked by whoever it will be then.
 *
 * Thread of the connection's shard.
 */
#ifndef KVS_NODE_LOGIN_H
#define KVS_NODE_LOGIN_H

#include "node/command.h"

enum login_kind { LOGIN_AUTH, LOGIN_HELLO, LOGIN_FRAME };

struct login_request {
    enum login_kind kind;
    struct slice user, password;
    uint8_t resp_version; /* HELLO: to begin with */
    struct slice name;    /* HELLO SETNAME; data NULL: none */
    uint8_t opcode;       /* FRAME: of the reply */
    uint64_t id;
};

/* Answers the current request, now or later. */
void login_ask(struct call *call, const struct login_request *request);
/* The end of HELLO: who asks may. */
void login_hello(struct shard *shard, struct net_conn *conn, const struct login_request *request, struct text *reply);
/* Frees what is under way, with no reply: after the connections have been freed. */
void login_abandon(struct shard *shard);

#endif
