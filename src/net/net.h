/*
 * net.h - the connections of one shard: accept, receive, recognise the protocol, decode, reply in order, send, bound.
 *
 * One struct net belongs to one shard's thread and ring; every call and callback is on that thread. net knows no
 * engine: it hands decoded requests to a handler and takes replies.
 *
 * A connection's protocol is told by its first byte: FRAME_MAGIC begins the kvs binary protocol, anything else is RESP.
 *
 * Replies. The handler answers each request exactly once: at once, with net_reply_reserve and net_reply_commit, or
 * later, by giving a struct net_slot to net_reply_defer and calling net_slot_fill when it knows. RESP replies leave in
 * the order of their requests; frames leave as soon as they may. A reply may carry a gate, a number that must have been
 * reached by net_release before the reply may leave. Gates given to one struct net rise over time, or are 0 (none).
 *
 * Sending happens in net_flush, once per turn of the shard's loop: one gathered send per connection, at most one in
 * flight.
 *
 * Holding. The handler may hold a connection back: because the answer to a request decides what the next ones may do,
 * or because nobody is to do anything for now. net_conn_hold lets the current request be the last one handled,
 * net_request_postpone leaves it unanswered too, to come again; net_conn_go_on ends either.
 *
 * Bounds. A connection whose unsent replies or requests under way exceed their limits is not read from until they have
 * shrunk; one that does not take its replies for `send_timeout_ms` is dropped. A request over the limits is answered
 * with an error and, where the protocol demands it, the end of the connection. Large requests share a bound on memory;
 * beyond it a connection is not read from until others are done, except for one, so that somebody gets done. All
 * connections together have `memory_max` for themselves, for what they have sent and is not handled, and for replies:
 * net_share.c says what happens at it.
 */
#ifndef KVS_NET_NET_H
#define KVS_NET_NET_H

#include "base/bytes.h"
#include "base/large_memory.h"
#include "base/list.h"
#include "proto/frame.h"
#include "proto/resp.h"
#include "ring/ring.h"

struct net;
struct net_conn;

#define NET_AHEAD_MAX 16u

/* Called on the shard's thread. Arguments and frames lie in receive buffers: they are good until the call returns. */
struct net_handler {
    void *context;
    /* Around the requests of one receive completion: the place for an engine section. */
    void (*batch_begin)(void *context);
    void (*batch_end)(void *context);
    void (*resp_request)(void *context, struct net_conn *conn, const struct slice *args, unsigned count);
    /* What the next requests of a pipeline will probably ask for, in order: a chance to fetch memory for all of them
     * before the first is handled. The second argument of RESP requests, the key of frames. At most NET_AHEAD_MAX; may
     * be NULL. */
    void (*keys_ahead)(void *context, const struct slice *keys, unsigned count);
    /* Hello is answered by net itself; everything else comes here. */
    void (*frame_request)(void *context, struct net_conn *conn, const struct frame *frame);
    /* A RESP request has its answer already: it was too large. May be NULL. */
    void (*refused)(void *context, struct net_conn *conn);
    void (*opened)(void *context, struct net_conn *conn);
    /* The last call for this connection: no slot of it is pending any more. */
    void (*closed)(void *context, struct net_conn *conn);
};

struct net_options {
    unsigned connections_max;   /* of this shard; more are told so and closed */
    uint64_t output_bytes_max;  /* unsent replies per connection beyond which it is not read from */
    uint64_t output_kept_max;   /* memory for replies that is kept for reuse; 0 = 8 MiB */
    uint64_t memory_max;        /* for all connections, their input and their replies together; 0 = no bound */
    unsigned requests_max;      /* requests under way per connection beyond which it is not read from */
    unsigned turn_requests_max; /* requests of a connection in one turn, so that others get theirs; 0 = 2,048 */
    uint64_t request_bytes_max; /* of a RESP request with all its arguments; 0 = what the limits below make sensible */
    uint32_t send_timeout_ms;   /* 0 = never */
    uint32_t idle_timeout_s;    /* a connection that asks nothing for so long is closed; 0 = never */
    uint32_t keepalive_s;       /* TCP looks for the peer of a connection that was silent for so long; 0 = never */
    struct resp_limits resp;
    /* A RESP argument longer than this is not kept, and its request answered with an error; 0: all that the limits let
     * through are. */
    uint32_t arg_kept_bytes_max;
    /* Memory for requests that are too long for receive buffers. Shared with others; NULL: as much as it takes. */
    struct large_pool *large;
    /* Of this net alone, and outliving all requests that are kept: for one connection at a time, beyond that bound, as
     * much as a request may take. NULL: one of the net's own. */
    struct large_pool *large_reserve;
    size_t large_bytes; /* partial requests beyond this get such memory; 0 = 256 KiB */
    struct frame_limits frame;
    struct frame_hello hello; /* what the server says of itself */
    size_t conn_user_bytes;   /* zeroed room for the handler in every connection: net_conn_user */
};

enum kvs_err net_open(struct net **out, struct ring *ring, const struct net_options *options,
                      const struct net_handler *handler);
/* Starts accepting on a listening socket (ring_listen), which stays the caller's. At most NET_LISTENERS_MAX. */
#define NET_LISTENERS_MAX 4
enum kvs_err net_accept(struct net *net, int listen_fd);
/* Orderly end: no more connections, no more reading; replies that are due leave, then connections close. */
void net_drain(struct net *net);
/* True after net_drain when the last connection is gone and nothing is in flight. */
bool net_drained(const struct net *net);
/* Drops every connection now; net_drained tells when that is complete. For a second signal, a crash, a stuck peer. */
void net_abort(struct net *net);
/* The bound on requests, with these options. */
uint64_t net_request_bytes_max(const struct net_options *options);
/* Frees everything; after net_drained (or with the ring closed already, in the simulator). */
void net_close(struct net *net);

/* Starts the sends that are due. Once per turn of the loop. */
void net_flush(struct net *net);
/* Replies with a gate up to `gate` may leave. */
void net_release(struct net *net, uint64_t gate);
/* Replies whose gate has not been reached never will be: each becomes an error with this text: for RESP with the code
 * it begins with ("MISCONF …"), or ERR; for frames without it, status FRAME_FAILED. The same for every gate given from
 * now on. */
void net_fail_gates(struct net *net, const char *text);

/* Those of the options that may change while it runs. They count from now on, for connections that are there too (but
 * keepalive_s: for those to come). */
struct net_limits {
    unsigned connections_max;
    uint64_t output_bytes_max;
    unsigned turn_requests_max; /* at least 1 */
    uint32_t send_timeout_ms;
    uint32_t idle_timeout_s;
    uint32_t keepalive_s;
};
void net_set_limits(struct net *net, const struct net_limits *limits);

/* ---- from inside resp_request and frame_request ---------------------------------------------------------------- */

/* Room for a reply of at most `bytes`, valid until the next call of net. NULL: no memory, and the connection is ended.
 */
uint8_t *net_reply_reserve(struct net_conn *conn, size_t bytes);
/* The reserved room's first `bytes` are the reply to the current request. */
void net_reply_commit(struct net_conn *conn, size_t bytes, uint64_t gate);

/*
 * The memory that the current request lies in, if it is a large one that nothing else lies in: the caller's from now
 * on, with the arguments or the frame in it, to be given back to a large_trash. NULL: the request must be copied.
 */
struct large_memory *net_request_keep(struct net_conn *conn);

/* Whether the reply to the current request, whenever it comes, is left unsent; false at first. */
void net_reply_mute(struct net_conn *conn, bool mute);

/* Nothing after the current request is handled before net_conn_go_on. */
void net_conn_hold(struct net_conn *conn);
/* The same, and the current request is not answered: it comes again after net_conn_go_on, first of all. */
void net_request_postpone(struct net_conn *conn);

/* A reply that comes later. Embedded in the handler's own structure for the request. */
struct net_slot {
    struct net_conn *conn;
    void (*released)(struct net_slot *slot); /* set before net_slot_fill: the bytes are not needed any more, and neither
                                                is the slot. Called exactly once, sent or not. */
    /* Private to src/net. */
    const uint8_t *data;
    size_t size;
    uint64_t gate;
    uint64_t id;
    uint8_t opcode;
    bool filled;
    bool muted;
    struct list link;
};

/* The current request's reply is what net_slot_fill will say. `slot` is set up by this call, but for `released`. */
void net_reply_defer(struct net_conn *conn, struct net_slot *slot);
/* Any time later. `data` stays until slot->released. The connection may have ended meanwhile: then it is released at
 * once. */
void net_slot_fill(struct net_slot *slot, const uint8_t *data, size_t size, uint64_t gate);

/* ---- connections ----------------------------------------------------------------------------------------------- */

void *net_conn_user(struct net_conn *conn);
struct net *net_conn_net(struct net_conn *conn);
uint64_t net_conn_id(const struct net_conn *conn); /* unique in this struct net */
/* Ends what net_conn_hold or net_request_postpone began: the connection's next requests come soon, though
 * not before this returns. */
void net_conn_go_on(struct net_conn *conn);
/* Ends the connection now; replies that have not left are lost. Not from inside one of its own requests. */
void net_conn_drop(struct net_conn *conn);
/* Ends the connection once the replies to all requests so far have left; what follows on it is ignored. */
void net_conn_finish(struct net_conn *conn);

/* Sends what is no reply, behind the replies to all requests so far. Not from inside one of its own requests, RESP
 * only. It counts as unsent output; who sends much looks at net_conn_info. False: it is not sent, as memory_max leaves
 * no room for it, or the connection is ending. */
bool net_conn_push(struct net_conn *conn, struct slice bytes);

/* A look at one connection. */
struct net_conn_info {
    int fd;
    size_t input_bytes;      /* received and not handled */
    size_t input_free_bytes; /* room behind them */
    size_t request_bytes;    /* of the current request */
    uint64_t output_bytes;   /* memory of replies that have not left */
    unsigned pending;        /* requests, with the current one, whose net_slot_fill has not come */
    unsigned output_replies; /* answers under way, and replies that wait for their gates */
    size_t memory_bytes;     /* all of it */
    bool framed;             /* speaks the binary protocol */
    bool receiving, sending;
    bool half_closed; /* its peer has finished sending, and what came before that is not handled yet */
    bool ending;
    bool dropped; /* it was ended at once, and is only waiting for what refers to it */
};
void net_conn_info(const struct net_conn *conn, struct net_conn_info *out);
/* The addresses of both ends. */
enum kvs_err net_conn_peer(const struct net_conn *conn, struct ring_addr *addr);
enum kvs_err net_conn_local(const struct net_conn *conn, struct ring_addr *addr);

/*
 * A walk over all connections, in the order in which they came, that may pause between any two of them while others
 * come and go: those that come meanwhile are met too. Connections that are ending are met, closed ones are not. From
 * begin to end it belongs to the net.
 */
struct net_walk {
    struct net *net;
    struct list *next;
    struct list link;
};
void net_walk_begin(struct net_walk *walk, struct net *net);
struct net_conn *net_walk_next(struct net_walk *walk); /* NULL: that was the last one */
void net_walk_end(struct net_walk *walk);

struct net_stats {
    uint64_t connections;          /* now */
    uint64_t connections_accepted; /* ever */
    uint64_t connections_refused;  /* over the limit */
    uint64_t connections_dropped;  /* slow readers, protocol errors */
    uint64_t requests;
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t memory_bytes;       /* buffers and connections, also those that are kept for reuse */
    uint64_t memory_peak_bytes;  /* the most that ever was */
    uint64_t connections_waited; /* how often one was not read from because memory_max had been reached, or because
                                    there was no memory for its large request */
};
/* On the shard's thread, or from others as numbers that are a moment old. */
void net_stats(const struct net *net, struct net_stats *out);

#endif
