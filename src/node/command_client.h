/* command_client.h - what HELLO shares with CLIENT. */
#ifndef KVS_NODE_COMMAND_CLIENT_H
#define KVS_NODE_COMMAND_CLIENT_H

#include "node/command.h"

/* True when a connection may be called that; else the request has its answer. */
bool client_name_fits(struct call *call, struct slice name);

#endif
