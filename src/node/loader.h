/*
 * loader.h - the thread of a program that opens the node's store, and what operators are told meanwhile.
 *
 * The supervisor starts it when the node's status is NODE_LOADING, calls loader_tell now and then, and loader_end when
 * it needs the node to itself. The loader and its workers (workers.h) are there for the opening only.
 */
#ifndef KVS_NODE_LOADER_H
#define KVS_NODE_LOADER_H

#include "node/node.h"

#include <pthread.h>

/* How often loader_tell wants to be called at least. */
#define LOADER_TELL_NS 200000000

struct loader {
    struct node *node;
    bool started;
    _Atomic bool ended; /* the thread has nothing more to do with the node, and ends */
    pthread_t thread;
    uint64_t begun_ns, notified_ns, logged_ns;
};

/* `ring` is the supervisor's. A failure shows in node_supervise. */
void loader_start(struct loader *loader, struct node *node, const struct ring *ring);
/* Tells the service manager, every second, how far the opening is, and that it needs time; and the log, every five
 * seconds when it takes longer than two. */
void loader_tell(struct loader *loader, const struct ring *ring);
/* True when there is no thread any more, or was none. False when it is still opening the store: for that it does not
 * wait. */
bool loader_end(struct loader *loader);

#endif
