/*
 * dispatch.h - from a request for a key to its answer, wherever the key's owner is.
 *
 * Thread of the shard that has the connection, inside an engine section; dispatch_deliver too.
 */
#ifndef KVS_NODE_DISPATCH_H
#define KVS_NODE_DISPATCH_H

#include "node/shard.h"

/* How a request can go on. */
enum route {
    ROUTE_DONE,  /* the result is there */
    ROUTE_LOCAL, /* engine_submit here */
    ROUTE_OWNER, /* by message to the owner */
};

struct engine_request dispatch_request(const struct shard *shard, const struct client *client,
                                       enum engine_action action, struct slice key, struct slice value);

/* net_handler.keys_ahead: fetches the memory that requests for these keys will touch. Inside a section. */
void dispatch_ahead(void *context, const struct slice *keys, unsigned count);

/* Answers the current request of `conn`, now or later. */
void dispatch_request_one(struct shard *shard, struct net_conn *conn, const struct engine_request *request,
                          const struct reply_format *format);

/* The same for an update: `request` has the key, and the operand for a value. */
void dispatch_update(struct shard *shard, struct net_conn *conn, const struct engine_request *request,
                     const struct update_spec *spec);

/* Tries to answer at once; anything but ROUTE_DONE has done nothing. */
enum route dispatch_try(struct shard *shard, const struct client *client, const struct engine_request *request,
                        struct engine_result *result);
/* Sends an op that has its request, client and format on its way; it ends in its gather or its slot. */
void dispatch_op(struct shard *shard, struct op *op, enum route route);

/* For update_run.c: the op has been executed, where it is now; its reply and its gate are there. */
void dispatch_ended(struct op *op);

/* Takes an op that another shard has sent: to be executed here, or back home with its answer. */
void dispatch_deliver(void *shard, struct mail *mail);
/* Sends home the ops whose gates have been reached, or all, with errors, once the shard has failed. Once per turn. */
void dispatch_release(struct shard *shard);

#endif
