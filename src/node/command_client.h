/* command_client.h - what HELLO shares with CLIENT. */
#ifndef KVS_NODE_COMMAND_CLIENT_H
#define KVS_NODE_COMMAND_CLIENT_H

#include "node/command.h"

/* Sets the connection's name; on a bad one answers with the error and returns false. */
bool client_set_name(struct call *call, struct slice name);

#endif
