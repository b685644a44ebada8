/*
 * node.h - a whole node: the store, its shards, its listening sockets, and the order in which they start and stop.
 *
 * The composition root, without threads of its own: a program runs each shard on a thread and supervises from another;
 * a simulator does both on one thread, in turn.
 *
 *   node_create                                        supervisor: takes the data directory and the addresses
 *   node_thread_open, node_thread_turn…                each thread: one for each shard, and a background thread
 *   node_supervise… until NODE_LOADING                 supervisor: clients are answered from now on
 *   node_load                                          any one thread: opens and recovers the store, however long it
 *                                                      takes; a program goes on with node_supervise meanwhile
 *   node_supervise… until NODE_SERVING                 supervisor: waits for the store, then for the shards
 *   node_stop, node_supervise… until NODE_STOPPED      supervisor; node_thread_turn returns false to each thread
 *   node_thread_close                                  each thread
 *   node_destroy                                       supervisor, after the threads and node_load have ended
 *
 * All threads go through the same phases; node_supervise begins the next when every one has come far enough:
 *
 *   load      shards take connections, and tell them that the store is still being opened. There is no engine yet
 *   prepare   threads attach themselves to the engine; each shard waits for a segment to write in, which the background
 *             makes, and for its first batch. Connections are answered as before
 *   serve     shards carry out requests
 *   drain     connections end (abort: are dropped), shards go on answering each other. The background has none: it is
 *             drained from the beginning, and goes on supplying segments
 *   stop      shards make everything durable. Compaction ends what it is in the middle of and begins nothing more, then
 *             the engine's background work ends; shards that are done go on turning for its sake
 *   exit      every thread has stopped: their loops end
 */
#ifndef KVS_NODE_NODE_H
#define KVS_NODE_NODE_H

#include "engine/engine.h"
#include "node/config.h"
#include "node/loading.h"

#define NODE_MESSAGE_BYTES 1024

struct node;

enum node_status {
    NODE_STARTING,
    NODE_LOADING, /* clients are answered, but not served: node_load is due, under way, or being concluded */
    NODE_SERVING,
    NODE_STOPPING,
    NODE_STOPPED,
    NODE_BROKEN, /* could not start; stopped again. node_message says why */
};

/* How long connections may take to end before they are dropped, and a shard to make everything durable before it is
 * given up. */
#define NODE_DRAIN_NS (10ull * 1000000000)

/* Locks the data directory, reads or makes its superblock, and binds the addresses: connections wait there from now on.
 * `ring` is the supervisor's; it and `config`'s strings live as long as the node. */
enum kvs_err node_create(struct node **out, const struct config *config, struct ring *ring,
                         char message[NODE_MESSAGE_BYTES]);
/* Closes the store. After a simulated crash too. */
void node_destroy(struct node *node);

/*
 * Opens the store, blocking, on the calling thread, whose ring this is; with `workers`, if it is not NULL. Once, when
 * the status is NODE_LOADING; node_stop may be called meanwhile, but does not end it. Success and failure show in
 * node_supervise.
 */
void node_load(struct node *node, struct ring *ring, const struct engine_workers *workers);
/* In place of node_load, when there is no thread or ring to do it with. */
void node_load_refused(struct node *node, enum kvs_err err, const char *why);
/* How far it has come. Any thread, whose ring this is. */
struct loading node_loading(const struct node *node, const struct ring *ring);

unsigned node_shard_count(const struct node *node);
/* Threads to run, numbered from 0: the shards', then the background's. */
unsigned node_thread_count(const struct node *node);
/* A failure to open shows in node_supervise; node_thread_turn is then false at once, and node_thread_close does
 * nothing.
 */
void node_thread_open(struct node *node, unsigned id);
bool node_thread_turn(struct node *node, unsigned id, bool may_sleep);
/* True when the latest turn did something, so that the time-out it gave to its ring may be out of date. For simulators,
 * where the next turn comes when that time is over: they must turn such a shard again at once, and not let it sleep. */
bool node_thread_busy(const struct node *node, unsigned id);
void node_thread_close(struct node *node, unsigned id);
/* In place of node_thread_close after a simulated crash, in any state. */
void node_thread_abandon(struct node *node, unsigned id);

/* Looks how far the shards have come and takes the next step. Whenever the supervisor's ring was woken, and on
 * time-outs. */
enum node_status node_supervise(struct node *node);
/* Begins the orderly end; with `at_once` (or called so later) connections are dropped. Nothing acknowledged is lost. */
void node_stop(struct node *node, bool at_once);

/* Why it is NODE_BROKEN. */
const char *node_message(const struct node *node);
enum kvs_err node_error(const struct node *node);
/* The store. While serving, and after that until node_destroy. */
struct engine *node_engine(const struct node *node);
/* The set-up that shard 0's ring got. While serving. */
const char *node_ring_text(const struct node *node);
/* Calls `each` for every address listened on, with the real port. */
void node_addresses(const struct node *node, void (*each)(void *context, const char *address), void *context);

#endif
