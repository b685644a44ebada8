/* node_internal.h - what a node is made of, for the files of src/node and their tests. */
#ifndef KVS_NODE_NODE_INTERNAL_H
#define KVS_NODE_NODE_INTERNAL_H

#include "node/acl_log.h"
#include "node/background.h"
#include "node/config.h"
#include "node/node.h"
#include "node/settings.h"
#include "node/shard.h"
#include "node/slowlog.h"

enum load_state { LOAD_NOT_BEGUN, LOAD_RUNNING, LOAD_DONE, LOAD_FAILED };

struct node {
    struct config config;
    struct ring *ring; /* of the thread that supervises */

    /* The store. These belong to whoever node_load runs on while `load` is LOAD_RUNNING, else to the supervisor; the
     * engine is everybody's once `open` is set. */
    struct engine_prepared *prepared; /* until it is loaded */
    struct engine *engine;            /* NULL until it is */
    enum kvs_err load_error;
    char load_message[NODE_MESSAGE_BYTES];
    _Atomic enum load_state load;
    struct engine_progress progress;
    bool attach;       /* every thread is to attach itself to the engine. Settled before the phase leaves SHARD_LOAD:
                          all do, or none */
    _Atomic bool open; /* all have. Never cleared */

    struct mailroom *mailroom;
    struct op_budget budget;
    struct large_pool large; /* memory of large requests and large values under way */
    struct shard *shards;
    struct background background;
    unsigned shard_count;
    unsigned ops_max;               /* of one shard */
    struct net_options net_options; /* of one shard */
    unsigned recv_buffers;          /* of one shard, SHARD_RECV_BUFFER_BYTES each */
    uint32_t value_bytes_max;       /* what the store takes */
    uint32_t key_bytes_max;         /* of a key */

    /* What requests have to be held against before they are carried out: ACL_WATCH, ACCESS_WATCH_…. */
    alignas(KVS_CACHE_LINE_BYTES) _Atomic unsigned watch;
    _Atomic bool pause_all;          /* else writes only */
    _Atomic uint64_t pause_until_ns; /* 0: no pause */
    _Atomic bool flushing;           /* a flush is under way */
    struct acl *acl;
    struct acl_log *acl_log;
    _Atomic bool acl_saving;
    _Atomic bool password_set; /* --requirepass, or CONFIG SET requirepass: what the user default has */
    struct settings settings;  /* begin as `config` says */
    struct slowlog *slowlog;
    struct figures_base *figures;

    _Atomic bool wake_asked; /* a shard wants all to take a turn soon … */
    _Atomic bool stop_asked; /* … or the node to stop */
    _Atomic enum shard_phase phase;
    _Atomic unsigned clients;   /* connections now, of all shards */
    _Atomic uint64_t client_id; /* the latest */
    _Atomic uint64_t clients_refused;
    _Atomic unsigned monitors;                       /* connections that watch all commands … */
    _Atomic unsigned shard_monitors[KVS_SHARDS_MAX]; /* … and on which shards they are */

    /* Listening sockets, for each shard: one of its own for each TCP address, then the shared Unix socket. */
    int listeners[KVS_SHARDS_MAX][NET_LISTENERS_MAX];
    unsigned listener_count;                       /* of each shard */
    struct ring_addr addresses[NET_LISTENERS_MAX]; /* bound: with the real port */
    bool unix_bound;

    enum node_status status;
    bool start_failed;
    enum kvs_err error; /* with start_failed */
    uint64_t started_ns;
    uint64_t started_wall_ms;
    uint64_t drain_since_ns;
    char run_id[41];
    char ring_text[256]; /* the set-up shard 0's ring got */
    char message[NODE_MESSAGE_BYTES];
};

/* Binds every configured address; on failure node->message is set and nothing stays open. */
enum kvs_err node_listen(struct node *node);
/* Closes what node_listen opened and removes the Unix socket's file. */
void node_unlisten(struct node *node);

/* The ring of one of its threads; NULL when that is not open. */
struct ring *node_thread_ring(const struct node *node, unsigned id);

/* Has the supervisor let all shards take a turn soon. */
void node_wake_shards(struct shard *shard);
/* … or begin the orderly end of the node. */
void node_ask_stop(struct shard *shard);

/*
 * Phases and states are written and read in one order that all agree on: either the supervisor sees that a thread has
 * come to a state in which it sleeps until it is woken, and wakes it for the new phase, or the thread, which looks at
 * the phase after each step, sees the phase.
 */
static inline enum shard_phase node_phase(const struct node *node)
{
    return atomic_load(&node->phase);
}

/* True when the engine may be asked by any thread. */
static inline bool node_is_open(const struct node *node)
{
    return atomic_load_explicit(&node->open, memory_order_acquire);
}

#endif
