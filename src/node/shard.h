/*
 * shard.h - one shard of a node: a ring, its connections, its part of the store, its mailbox, and the loop that turns
 * them.
 *
 * A shard belongs to one thread, which opens, turns and closes it; a simulator may turn many on one thread. The node
 * leads all its shards through the same phases (see enum shard_phase) and reads their states; these two words are the
 * only things that pass between a shard and the node while it runs.
 */
#ifndef KVS_NODE_SHARD_H
#define KVS_NODE_SHARD_H

#include "engine/engine.h"
#include "net/net.h"
#include "node/client.h"
#include "node/derive.h"
#include "node/mailbox.h"
#include "node/meter.h"
#include "node/op.h"
#include "node/text.h"

#include <stdatomic.h>

struct node;

/* What the node wants of all its shards; only ever rises. */
enum shard_phase {
    SHARD_LOAD,    /* accept connections, and tell them to wait */
    SHARD_PREPARE, /* the engine is there: become ready to write */
    SHARD_SERVE,   /* carry out requests */
    SHARD_DRAIN,   /* let the connections end */
    SHARD_ABORT,   /* end the connections */
    SHARD_STOP,    /* make everything durable */
    SHARD_EXIT,    /* leave the loop */
};

/* Memory to receive into, for all connections of a shard together: buffers of this size. */
#define SHARD_RECV_BUFFER_BYTES (16u * 1024)

/* How far a shard has come; only ever rises. */
enum shard_state {
    SHARD_OPENING,
    SHARD_LOADING, /* ring and connections are there, the engine is not */
    SHARD_PREPARING,
    SHARD_READY, /* or could not become it: shard->message says why */
    SHARD_SERVING,
    SHARD_DRAINING,
    SHARD_DRAINED, /* no connection left; still works for other shards */
    SHARD_STOPPING,
    SHARD_STOPPED,
    SHARD_BROKEN, /* could not be opened; shard->message says why */
};

/* On the way from one state to the next, a look now and then. */
#define SHARD_TRANSITION_WAIT_NS 2000000

#define FRAME_COMMANDS 8u /* opcodes that stand for commands are lower */

#define SHARD_MESSAGE_BYTES 768
/* Keys of one MGET that can be answered without ops. */
#define SHARD_SCRATCH_RESULTS 128u

/* Numbers only the shard's thread changes; others may read them a moment late (shard_counter). */
struct shard_counters {
    uint64_t hits;
    uint64_t misses;
    uint64_t local;    /* requests for keys of this shard */
    uint64_t sent;     /* operations sent to other shards */
    uint64_t received; /* operations executed for other shards */
    uint64_t errors;   /* error replies of commands */
};

struct shard {
    unsigned id;
    unsigned count; /* shards of the node */
    struct node *node;
    struct ring *ring;
    struct net *net;
    struct large_pool large_reserve; /* net's: one large request beyond node->large */
    struct mailbox *mailbox;

    /* From SHARD_PREPARING on; NULL in a shard that stops before. */
    struct engine *store;
    struct engine_shard *engine;
    uint64_t hash_seed;
    bool serving; /* requests may be carried out; set once */

    uint64_t durable;        /* as of the latest turn */
    struct mail *gated_head; /* ops executed for other shards, waiting for their gates, in order of gates */
    struct mail *gated_tail;
    bool failed;
    bool aborted;
    bool asleep; /* mail wakes the ring */
    bool busy;   /* the latest turn did something */
    struct op_pool pool;
    struct list gathers;      /* commands with several keys under way */
    struct list assembling;   /* … whose reply is being put together, a piece in each turn */
    struct list crowds;       /* questions to all connections of the node, asked here */
    struct list crowd_parts;  /* parts of such questions to be answered here … */
    struct list crowd_merges; /* … and answers to be put together */
    struct list scans;        /* SCAN, KEYS and RANDOMKEY asked here */
    struct list scan_queue;   /* … that have not begun */
    struct list scan_runs;    /* of any home: to go on here … */
    unsigned scan_steps;      /* … and steps that the engine is at work on */
    struct list scan_gated;   /* … that wait for what they have seen here to be durable */
    struct list scan_replies; /* asked here, and to be put together */
    struct list logins;       /* waiting for their passwords to be derived */
    struct list acl_tasks;    /* changes of users under way */
    struct list paused;       /* clients whose request waits for the end of a pause */
    struct list client_texts;
    struct list multis;        /* struct multi: of connections that have said MULTI or WATCH */
    struct list transactions;  /* begun here and not over */
    struct list parts_waiting; /* struct transaction_part: of transactions of any shard, that wait for this one's log */
    unsigned publishing;       /* parts of such that readers may see here, but not elsewhere yet */
    struct list waitings;      /* requests that wait, asked here … */
    struct list waiting_parts; /* … and what of them waits for this shard's log */
    uint64_t waiting_look_ns;  /* when to look after them again */
    unsigned changes_under_way;    /* ops begun here that may change a key */
    struct flush *flush;           /* begun here, and not over; NULL: none */
    struct flush_part *flush_part; /* of a flush begun on any shard: this one's to work at */
    bool flush_pause;              /* commands on keys wait for the end of a flush */
    struct list monitors;          /* connections that watch all commands */
    struct text monitor_lines;     /* of this turn */
    struct list monitor_mails;     /* lines on their way to other shards */
    size_t monitor_mail_bytes;
    struct derive_queue derivations;
    uint64_t now_ns;                                      /* when the latest requests came */
    const struct command *frame_commands[FRAME_COMMANDS]; /* by opcode: the commands that frames stand for … */
    unsigned frame_numbers[FRAME_COMMANDS];               /* … and their numbers (acl_number) */
    struct meter meter;
    uint64_t slower_ns;        /* what takes so long is noted in the slow log */
    unsigned settings_version; /* that was taken over */
    struct shard_counters counters;
    struct exec *exec;             /* the EXEC whose commands are being carried out; NULL: none */
    unsigned execs_ready;          /* EXECs that have something to do in the next turn */
    bool exec_worked;              /* one of them has done a piece of work that takes long, in this turn */
    struct engine_result *scratch; /* SHARD_SCRATCH_RESULTS */

    _Atomic enum shard_state state;
    char message[SHARD_MESSAGE_BYTES]; /* empty, or why the node cannot start; settled before SHARD_READY */
};

/* Opens the shard on the calling thread and accepts connections; on failure its state is SHARD_BROKEN and there is
 * nothing to close. */
void shard_open(struct shard *shard);
/* One turn of the loop; waits for something to happen when it may sleep. False when the shard has reached SHARD_EXIT.
 */
bool shard_turn(struct shard *shard, bool may_sleep);
/* Frees everything, after shard_turn returned false. */
void shard_close(struct shard *shard);
/* Frees the memory of a shard whose ring is gone: after a simulated crash. */
void shard_abandon(struct shard *shard);

static inline void shard_count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static inline uint64_t shard_counter(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline struct reply_origin shard_origin(const struct shard *shard)
{
    return (struct reply_origin){.shard = shard->id, .engine = shard->engine};
}

/* An error reply, which begins with a code. */
static inline void shard_count_error(struct shard *shard, const char *text)
{
    shard_count(&shard->counters.errors);
    meter_error(&shard->meter, slice_text(text));
}

/*
 * A gate as struct net wants it: 0 when it has been reached, and never below an earlier one of the connection. (Its
 * replies leave in order anyway; frames that read a record not yet durable may wait for a write before them.)
 */
static inline uint64_t shard_gate(const struct shard *shard, struct client *client, uint64_t gate)
{
    if (gate <= shard->durable)
        return 0;
    if (gate > client->gate_last)
        client->gate_last = gate;
    return client->gate_last;
}

#endif
