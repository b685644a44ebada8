/*
 * net_internal.h - what the files of src/net share.
 *
 *   net.c          listeners, timers, the lists of connections, net_flush
 *   net_pool.c     memory: connections, output blocks, runs, iovecs
 *   net_share.c    the bound on that memory: who is not read from when it is reached, and goes on when
 *   net_input.c    what was received and not handled yet; memory for large requests
 *   net_conn.c     the life of one connection: receive, hold back, finish, close
 *   net_look.c     what can be seen of connections, and walks over all of them
 *   net_request.c  bytes into requests: RESP, frames, hello, refusals
 *   net_output.c   replies into bytes: blocks, runs, slots, gates, the gathered send
 *
 * One connection and what hangs on it:
 *
 *   receive buffer ──► requests ──► handler ──► net_reply_commit ──► run ─┐
 *         │ unparsed tail                  └──► net_reply_defer ───► slot ─┤
 *         ▼                                                               ▼
 *       input ──► requests …                              queue[0], queue[1] ──► in_flight ──► ring_send
 *
 * A reply that is written at once lies in an output block; neighbours in a block make one run, which is queued, gated,
 * sent and freed as a whole. Runs and slots wait in queue[0] in the order of their requests (RESP). Frames have no
 * order: queue[0] holds what may leave, queue[1] what waits for its gate, by rising gates; a slot joins when it is
 * filled. Blocks count the runs in them, so runs may leave a block in any order and memory that a send refers to never
 * moves.
 */
#ifndef KVS_NET_NET_INTERNAL_H
#define KVS_NET_NET_INTERNAL_H

#include "net/net.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/limits.h"

#define NET_BLOCK_BYTES       16384u     /* the usual output block, and the smallest input buffer while there is room */
#define NET_BLOCK_CLASSES     3u         /* sizes of output blocks that are kept for reuse */
#define NET_KEPT_BYTES        (8u << 20) /* kept when the options do not say; more goes back to the allocator */
#define NET_FREE_INPUTS_MAX   128u
#define NET_SLICES_KEPT       1024u      /* room for the arguments of a request that is not given back */
#define NET_ARGS_INLINE       8u         /* arguments of a request that need no array of their own */
#define NET_IOV_INLINE        4u         /* parts of a send that need no array of their own */
#define NET_SEND_BYTES_MAX    (1u << 20) /* of one send: it must get through within send_timeout_ms */
#define NET_TURN_REQUESTS_MAX 2048u      /* when the options do not say */
#define NET_CHUNK_BYTES       512u       /* least that is added to a partial request before it is looked at again */
#define NET_REFUSED_MAX       64u        /* connections over the limit that are told so at the same time */
#define NET_REFUSED_WAIT_MS   1000u      /* for the first byte of such a connection, which tells its protocol */
#define NET_TICK_MS_MAX       250u
#define NET_FEED_MS           1u            /* between two looks for memory for large requests */
#define NET_SMALL_BYTES       1024u         /* input buffers are multiples of it when memory is short */
#define NET_SHORT_WAIT_MS     2000u         /* for a peer that keeps others waiting for memory */
#define NET_LARGE_WAIT_MS     10000u        /* for memory for a large request, when nobody gets any */
#define NET_QUIET_TURN_MAX    256u          /* connections that are stopped in one turn */
#define NET_PROBE_TURN_MAX    16u           /* connections that are read from again in one turn, while input is short */
#define NET_OUTPUT_SHARE      8u            /* one connection's replies may take this part of what is left */
#define NET_LARGE_BYTES       (256u * 1024) /* when the options do not say */
#define NET_ACCEPT_BACKOFF_MS 100u
#define NET_FAIL_TEXT_BYTES   256u

/* ---- output ---------------------------------------------------------------------------------------------------- */

struct net_block {
    struct net_block *next; /* in the pool */
    size_t capacity;
    size_t used;
    unsigned refs;  /* runs in it, and the connection that appends to it */
    unsigned class; /* of its size; NET_BLOCK_CLASSES: an unusual one */
    uint8_t data[];
};

/* Replies side by side in one block. It queues among slots as one of them: `entry` with no connection. */
struct net_run {
    struct net_slot entry; /* data, size, gate (0 = may leave), filled */
    struct net_block *block;
    uint64_t turn; /* in which it was begun */
    uint32_t replies;
    uint32_t under_way; /* of the replies, those that count as requests under way: all of a gated run, none of others */
};

struct net_iovs {
    struct net_iovs *next; /* in the pool */
    struct iovec iov[RING_IOV_MAX];
};

static inline bool entry_is_run(const struct net_slot *entry)
{
    return entry->conn == NULL;
}

static inline struct net_run *entry_run(struct net_slot *entry)
{
    return container_of(entry, struct net_run, entry);
}

static inline struct net_slot *entry_first(const struct list *queue)
{
    return container_of(queue->next, struct net_slot, link);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

enum net_state {
    NET_OPEN,    /* reads and handles requests */
    NET_REFUSED, /* over the limit; its first byte will tell how to say so */
    NET_ENDING,  /* handles nothing more; closes when what is due has left */
    NET_CLOSING, /* sends nothing more; closes when no operation and no slot refers to it */
};

/* Why nothing of a connection is handled for now. */
enum net_hold {
    NET_HOLD_NONE,
    NET_HOLD_TURN,    /* it has had its share of this turn */
    NET_HOLD_OVER,    /* it has too much under way: until that has shrunk to half */
    NET_HOLD_SHARED,  /* all connections together have: until replies have left */
    NET_HOLD_MEMORY,  /* its partial request waits for memory */
    NET_HOLD_HANDLER, /* the handler wants it so */
};

enum net_protocol { NET_PROTOCOL_UNKNOWN, NET_PROTOCOL_RESP, NET_PROTOCOL_FRAME };

/* Received bytes that are not handled yet: a partial request, or, while the connection is held, any number of them. */
struct net_input {
    struct large_memory *large; /* what `data` lies in; NULL: it is of the pool */
    uint8_t *data;
    size_t capacity;
    size_t begin;
    size_t size;
};

struct net_conn {
    struct net *net;
    int fd;
    uint8_t state;    /* enum net_state */
    uint8_t protocol; /* enum net_protocol */
    uint8_t hold;     /* enum net_hold */
    bool refused;     /* the handler knows nothing of it */
    bool handling;    /* requests of it are being handled further up the stack, which will settle it */
    bool answered;    /* the current request */
    bool muted;       /* … and its reply is not sent */
    bool held;        /* by the handler */
    bool postponed;   /* the current request is to come again; RESP: the parser has it */
    bool eof;
    bool receiving; /* recv is active */
    bool cancelled; /* … and asked to end */
    bool sending;   /* send is active */
    bool hello_done;
    bool quieted; /* counted in net->quieting */
    bool wide;    /* one small block has not been enough of late */

    uint8_t request_opcode; /* of the current request, when it is a frame */
    uint64_t request_id;

    unsigned pending;      /* slots not filled */
    unsigned under_way;    /* slots not sent, and gated replies not sent */
    uint64_t output_bytes; /* memory of unsent replies: whole blocks, and the data of slots */
    struct net_block *block;
    struct list queue[2];
    struct list in_flight; /* entries of the active send */
    struct list due;       /* in net->dirty, gated, sending or reap */

    struct net_input input;
    const uint8_t *request_begin; /* of the current request: where it lies */
    size_t request_bytes;
    struct list fill;   /* in net->filling while it has large memory, in net->partial while it has other input */
    unsigned fill_tick; /* since when nothing has come, or it waits for large memory */
    uint64_t kept_in;   /* the latest of net->presses in which much input of it had to be kept */
    uint64_t wanted;    /* size of the partial request that would be enough to get further; 0 = not known */
    bool whole;         /* … and that is all of it */
    uint64_t skip;      /* bytes of a frame, or of an argument, over the limits still to be ignored */
    uint64_t turn;      /* in which turn_requests were handled */
    unsigned turn_requests;
    unsigned send_tick;
    unsigned heard_tick;
    struct list idle;  /* in net->idle, with an idle time-out */
    struct list order; /* in net->order */
    struct list wait;  /* in net->runnable, parked, quiet, quiet_later, waiting, starving or hungry */
    struct list all;   /* in net->conns, net->refused or the pool */
    uint64_t id;

    struct ring_op recv;
    struct ring_op send;
    struct iovec iov[NET_IOV_INLINE];
    struct net_iovs *iovs;
    struct resp_parser parser;
    struct resp_arg args[NET_ARGS_INLINE];

    _Alignas(16) uint8_t user[];
};

/* ---- the whole -------------------------------------------------------------------------------------------------- */

struct net_listener {
    struct net *net;
    int fd;
    struct ring_op accept;
    struct ring_op backoff;
};

struct net {
    struct ring *ring;
    struct net_options options;
    struct net_handler handler;
    uint64_t request_bytes_max; /* of one RESP request with all its arguments */

    uint64_t turn;
    uint64_t gate_reached;
    bool failing; /* gates beyond gate_reached will not be reached */
    bool draining;
    unsigned conn_count;
    unsigned refused_count;
    uint64_t next_id;

    struct list conns;
    struct list refused;
    struct list dirty;    /* may have something to send */
    struct list gated;    /* the first thing to send waits for its gate */
    struct list sending;  /* a send is active, in the order of their starts */
    struct list reap;     /* CLOSING, and nothing refers to them any more */
    struct list runnable; /* have input to handle in the next turn */
    struct list parked;   /* wait for a receive buffer */
    struct list hungry;   /* wait for memory for a large request, those that began the longest ago first */
    struct list filling;  /* have some */
    struct list idle;     /* with an idle time-out: all, those heard of the longest ago first */
    struct list order;    /* all, as they came */
    struct list walks;    /* over these, under way */

    /* The bound on memory (net_share.c). */
    struct list waiting;      /* hold is SHARED: have requests that are not handled before replies have left */
    struct list quiet;        /* have no input, and are read from one after the other while input is short */
    struct list quiet_later;  /* the same, but what they say has to be kept: not before there is room */
    struct list starving;     /* have input that would have to grow */
    struct list partial;      /* have input that is not large */
    struct net_conn *granted; /* one of them may grow whatever there is, so that somebody gets on */
    uint64_t block_bytes;     /* of replies: blocks in use */
    uint64_t input_bytes;     /* capacity of input, large memory aside, and arrays of arguments */
    uint64_t input_max;       /* beyond it input is short */
    uint64_t input_over;      /* as much as receive buffers may bring comes on top; there it ends */
    bool pressed;             /* it is */
    bool armed;               /* since then some that have no input are read from */
    uint64_t presses;         /* how often it has been */
    unsigned quiet_left;      /* connections to be looked at that may still be read from */
    unsigned quieting;        /* those whose receiving has been asked to end and has not */
    uint16_t *withheld;       /* receive buffers that are not given back before that */
    unsigned withheld_count;
    unsigned short_ticks_max;
    unsigned conns_max; /* options.connections_max, or what may have memory */

    /* Memory for large requests (net_input.c). */
    struct large_trash trash;
    struct large_pool own_pool, own_reserve; /* when the options name none */
    struct net_conn *favoured;               /* whose memory may be in the reserve; NULL: it has gone, or nobody is */
    uint64_t large_over;                     /* what has been received already may exceed the pool's bound by this */
    unsigned fed_tick;                       /* when somebody who had waited got some */
    unsigned large_ticks_max;                /* to wait while nobody gets any; 0 = any time */
    struct ring_op feed_op;
    bool feed_active;

    struct ring_op tick_op;
    struct ring_op again_op;
    bool tick_active;
    bool again_active;
    unsigned tick;
    uint32_t tick_ms;
    unsigned send_ticks_max; /* 0 = no time-out */
    unsigned refused_ticks_max;
    unsigned idle_ticks_max; /* 0 = no time-out */

    struct net_listener listeners[NET_LISTENERS_MAX];
    unsigned listener_count;
    bool warned;
    uint64_t warned_ns; /* when the last warning about accept was given */

    /* Pools. */
    struct list free_conns;
    struct net_block *free_blocks[NET_BLOCK_CLASSES];
    struct list free_runs;
    struct net_iovs *free_iovs;
    void *free_inputs; /* each begins with a pointer to the next */
    uint64_t free_block_bytes, free_blocks_max;
    unsigned free_input_count;
    uint32_t slice_capacity;

    struct slice *slices; /* the arguments of the current request */
    struct iovec gather[RING_IOV_MAX];

    /* As many whole RESP errors as fit into a block: what failed replies are sent from. */
    uint8_t *fail_errors;
    size_t fail_error_bytes; /* of one */
    size_t fail_error_count;
    char fail_text[NET_FAIL_TEXT_BYTES];

    struct net_stats stats; /* written on the shard's thread, read from any */
};

/* One thread writes and others read: atomic, but without the price of a locked instruction. */
static inline void net_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static inline void net_uncount(uint64_t *counter, uint64_t less)
{
    __atomic_store_n(counter, *counter - less, __ATOMIC_RELAXED);
}

/* ---- net.c ------------------------------------------------------------------------------------------------------ */

/* Makes ring_turn return soon, and connections in net->runnable go on. */
void net_run_again(struct net *net);
/* Connections in net->hungry are looked at again soon. */
void net_feed_later(struct net *net);
/* Starts the coarse clock that time-outs are measured by, unless it is running. */
void net_start_tick(struct net *net);

/* ---- net_pool.c ------------------------------------------------------------------------------------------------- */

/* These return NULL when there is no memory. */
struct net_conn *net_conn_take(struct net *net);
void net_conn_give(struct net *net, struct net_conn *conn);
/* Room for `bytes`; `wide`: and for as many more as usual. */
struct net_block *net_block_take(struct net *net, size_t bytes, bool wide);
void net_block_give(struct net *net, struct net_block *block);
struct net_iovs *net_iovs_take(struct net *net);
void net_iovs_give(struct net *net, struct net_iovs *iovs);
/* Sees to it that there is a run to take. */
bool net_run_add(struct net *net);
struct net_run *net_run_take(struct net *net);
void net_run_give(struct net *net, struct net_run *run);
/* Changes the size of an array, counting its memory; NULL leaves it as it was. */
void *net_resize(struct net *net, void *memory, size_t old_bytes, size_t new_bytes);
/* Sees to it that the next net_run_take succeeds. */
static inline bool net_run_prepare(struct net *net)
{
    return __builtin_expect(!list_empty(&net->free_runs), 1) || net_run_add(net);
}

/* Input buffers: those of NET_BLOCK_BYTES are kept for reuse. They count in net->input_bytes. */
uint8_t *net_input_grow(struct net *net, uint8_t *data, size_t old_bytes, size_t new_bytes);
void net_input_give(struct net *net, uint8_t *data, size_t bytes);
void net_pool_free(struct net *net);
/* What a struct net_conn takes. */
size_t net_conn_bytes(const struct net *net);

/* ---- net_share.c ------------------------------------------------------------------------------------------------ */

/* Derives the bounds from the options; false: no memory. */
bool share_init(struct net *net);
void share_deinit(struct net *net);
/* How many connections there may be, from the options and what each takes. */
void share_bound_connections(struct net *net);
/* How long those are waited for who keep others waiting, from the time-out for sends. */
void share_bound_waits(struct net *net);
/* An array of a connection's arguments changes its size: net_resize, and it counts as input. */
void *share_resize_args(struct net *net, void *args, size_t old_bytes, size_t new_bytes);
/* Input has grown: if it is short now, all that have none are stopped. */
void share_note_input(struct net *net);
/* Whether what is received next for a connection with input has room in that, as far as can be known. */
bool share_has_room(const struct net_conn *conn);
/* Holds the connection until its input may grow. */
void share_starve(struct net_conn *conn);
/* The input of this connection may not grow at all. */
bool share_is_out(const struct net_conn *conn);
/* The connection is on hold for replies of others. */
void share_wait(struct net_conn *conn);
/* The connection would be read from, but input is short. */
void share_wait_quietly(struct net_conn *conn);
/* Stops receiving; until it has ended, no receive buffer is given back, so that no more arrives than there is in them.
 */
void share_quiet(struct net_conn *conn);
/* A receive that was to end has. */
void share_quieted(struct net_conn *conn);
/* Gives a receive buffer back, at once or later. */
void share_release_buffer(struct net *net, uint16_t buffer_id);
/* Once per turn: lets those go on that can. */
void share_turn(struct net *net);
/* There are more of them by now. */
bool share_has_more(const struct net *net);
/* Somebody waits for what others hold: those are to be quick about it. */
bool share_is_short(const struct net *net);

/* What replies may take: what is meant for input they leave to it. */
static inline uint64_t share_left(const struct net *net)
{
    const uint64_t unused_input = net->input_bytes < net->input_max ? net->input_max - net->input_bytes : 0;
    const uint64_t used = net->stats.memory_bytes + unused_input;
    return used < net->options.memory_max ? net->options.memory_max - used : 0;
}

/* No request may be handled before replies have left. One at a time may always be: replies do leave, input does not. */
static inline bool share_is_full(const struct net *net)
{
    return share_left(net) == 0 && net->block_bytes > 0;
}

/* Of one connection's unsent replies. When many do not read, each may take less, and the others still get theirs. */
static inline uint64_t share_output_max(const struct net *net)
{
    const uint64_t share = share_left(net) / NET_OUTPUT_SHARE;
    return share < net->options.output_bytes_max ? share : net->options.output_bytes_max;
}

/* Input gets buffers that are no larger than it is. */
static inline bool share_is_tight(const struct net *net)
{
    return net->input_bytes > net->input_max / 2;
}

/* What nobody needs now may be kept for the next time. */
static inline bool share_may_keep(const struct net *net)
{
    return net->stats.memory_bytes <= net->options.memory_max / 2;
}

/* ---- net_conn.c ------------------------------------------------------------------------------------------------- */

/* A new connection on fd; or, when there are too many, one that is told so. */
void conn_accepted(struct net *net, int fd);
/* Decides what the connection is to do next: receive, send, wait, close. After every event. */
void conn_settle(struct net_conn *conn);
/* Handles input that was held back. */
void conn_resume(struct net_conn *conn);
/* No more requests; closes when what is due has left. */
void conn_end(struct net_conn *conn);
/* Ends the connection now; unsent replies are lost. */
void conn_drop(struct net_conn *conn);
/* The last step: closes the descriptor, tells the handler, frees. */
void conn_reap(struct net_conn *conn);
/* Starts receiving, or parks the connection when no buffer is free, or while input is short. */
void conn_receive(struct net_conn *conn);
/* … even then. */
void conn_receive_now(struct net_conn *conn);
/* Frees what a connection holds without another word to the ring or the handler. */
void conn_forget(struct net_conn *conn);
/* The active send has ended well: perhaps input that waited for it can be handled now. */
void conn_sent(struct net_conn *conn);

void conn_stop_receiving(struct net_conn *conn);
/* It has sent something: with an idle time-out. */
void conn_heard(struct net_conn *conn);

/* ---- net_look.c ------------------------------------------------------------------------------------------------- */

/* The connection is about to go: walks that would meet it next will meet the one behind it. */
void net_walks_pass(struct net *net, const struct net_conn *conn);

/* ---- net_input.c ------------------------------------------------------------------------------------------------ */

void input_free(struct net_conn *conn);
/* Makes room for what the partial request has announced; false: no memory. */
bool input_widen(struct net_conn *conn);
/* Keeps bytes for later; false: no memory, the connection is dropped. */
bool input_append(struct net_conn *conn, const uint8_t *data, size_t size);
/* So many of them have been handled. */
void input_consume(struct net_conn *conn, size_t bytes);
/* It has memory beyond the bound, and others wait for it to be done: it is read from whatever is short. */
bool input_is_favoured(const struct net_conn *conn);
/* It may have to wait for more large memory soon: so no more is to arrive at a time than one receive buffer takes. A
 * multishot receive brings half a megabyte before it can be cancelled. */
bool input_is_tight(const struct net_conn *conn);
/* Sees to it that a partial request that has announced to be large has large memory; or holds the connection until
 * there is some, and returns false. */
bool input_enter(struct net_conn *conn);
/* Makes room for so many bytes behind those of a large request that are there; or holds the connection until there is
 * memory for them, and returns false. */
bool input_extend(struct net_conn *conn, size_t more);
/* Gets memory for what a partial request has announced, or holds the connection until there is some. */
void input_prepare(struct net_conn *conn);
/* Lets those go on that wait for memory, as far as there is some. */
void net_feed(struct net *net);
/* Once per tick: ends those that wait for memory in vain, and whoever keeps it from them. */
void input_tick(struct net *net);

/* ---- net_request.c ---------------------------------------------------------------------------------------------- */

/* Handles the whole requests at the start of data and returns their bytes. conn->wanted speaks of the rest unless the
 * connection is held or not open any more. */
size_t conn_handle(struct net_conn *conn, uint8_t *data, size_t size);
/* Tells a refused connection so; `size` may be 0: it has said nothing. */
void conn_refuse(struct net_conn *conn, const uint8_t *data, size_t size);
/* There is no memory for the partial request: says so, and that is the end of the connection. */
void conn_refuse_partial(struct net_conn *conn);

/* A new turn brings a new share. */
static inline void conn_enter_turn(struct net_conn *conn)
{
    if (conn->turn != conn->net->turn) {
        conn->turn = conn->net->turn;
        conn->turn_requests = 0;
    }
}

/* Whether the next request may be handled. */
static inline enum net_hold conn_must_hold(const struct net_conn *conn)
{
    const struct net *net = conn->net;
    if (__builtin_expect(conn->held, 0))
        return NET_HOLD_HANDLER;
    bool over = conn->output_bytes > share_output_max(net) && !canary_on(CANARY_OUTPUT_UNBOUNDED);
    if (over || conn->under_way >= net->options.requests_max)
        return NET_HOLD_OVER;
    if (__builtin_expect(share_is_full(net), 0))
        return NET_HOLD_SHARED;
    return conn->turn_requests >= net->options.turn_requests_max ? NET_HOLD_TURN : NET_HOLD_NONE;
}

/* ---- net_output.c ----------------------------------------------------------------------------------------------- */

void output_init(struct net_conn *conn);
/* Nothing unsent, nothing pending. */
bool output_idle(const struct net_conn *conn);
/* Puts the connection into the list that says what its output waits for. */
void output_classify(struct net_conn *conn);
/* True when something may leave. */
bool output_may_send(const struct net_conn *conn);
/* Starts the send of what may leave. */
void output_send(struct net_conn *conn);
/* Forgets unsent replies; slots that are not filled stay pending. */
void output_drop(struct net_conn *conn);
/* Frees without callbacks. */
void output_forget(struct net_conn *conn);

#endif
