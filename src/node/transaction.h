/*
 * transaction.h - commands that look at several keys and change them in one step: MSET, RENAME, COPY, BITOP.
 *
 *   hold the keys, shard by shard ─► decide ─► append to this shard's log ─► durable ─► publish ─► free the keys
 *                                                                                         └─► reply
 *
 * Nobody sees a part of it, and a crash leaves all of it or nothing (engine.h, "Groups"). While it lasts the connection
 * is held: its next request is looked at after the reply. Requests for the same keys wait at their owners, others do
 * not.
 *
 * Threads: a transaction belongs to its home, the shard that has the connection; its parts travel to the owners of keys
 * and back. Memory for keys, values and reply is the transaction's arena, within the budgets for requests under way;
 * one thread at a time uses it.
 */
#ifndef KVS_NODE_TRANSACTION_H
#define KVS_NODE_TRANSACTION_H

#include "node/shard.h"
#include "node/update_run.h"

struct transaction;
struct transaction_part;

/* What is to be known of a key before it is changed. */
enum transaction_need {
    TRANSACTION_BLIND,    /* nothing: it is put, whatever it holds, or left alone. Nothing is read */
    TRANSACTION_PRESENCE, /* whether it is there, its version and expiry, how long its value is */
    TRANSACTION_VALUE,
};

/* One key. What it holds, for transaction_decide_fn to read, and what shall become of it, for that to set. */
struct transaction_key {
    struct slice key;
    uint64_t hash;
    bool found;
    struct slice value;         /* if it is needed (transaction_options) */
    uint64_t value_bytes;       /* how long it is */
    uint64_t expires_ms;        /* 0 = never */
    uint64_t version;           /* see struct engine_result */
    bool changed;               /* the decider's own */
    struct engine_watch *watch; /* NULL: none is wanted */

    enum { TRANSACTION_KEEP, TRANSACTION_PUT, TRANSACTION_REMOVE } change;
    struct slice new_value; /* in an argument, an old value or the arena */
    uint64_t new_expires_ms;

    struct engine_op hold; /* private from here on */
    struct transaction_part *part;
    struct engine_change *written;
    bool held;
    enum transaction_need need;
    bool stood; /* it was found */
};

/* All keys are held: says what becomes of them, and replies (transaction_reply_…). On the home's thread, inside a
 * section. Without a reply: no memory. */
typedef void transaction_decide_fn(struct transaction *transaction);
/* What takes longer, before it: called in turn after turn until it says true. Likewise. */
typedef bool transaction_work_fn(struct transaction *transaction);

struct transaction_options {
    transaction_work_fn *work; /* NULL: nothing to do before decide */
    transaction_decide_fn *decide;
    /* NULL, or called when nothing of arguments and context is needed any more. */
    void (*freed)(struct shard *shard, const void *context);
    bool behind;                       /* keys are held when all that the connection has asked for before has been
                                          carried out: not while they are, for that may wait for a key that another one
                                          holds, which waits likewise */
    bool borrows;                      /* arguments stay until then: they are not copied */
    unsigned values_begin, values_end; /* of the keys from this one to before that one the value is needed; of the
                                          others it matters only whether they are there */
    bool blind;                        /* what the keys hold does not matter, of none of them */
    const void *context;               /* is copied … */
    size_t context_bytes;              /* … so many bytes of it; 0: it is passed on as it is */
};

/* Arguments: keys[0], keys[step], … and, unless it is NULL, as many values. No key at all only if there is work. */
struct transaction_args {
    unsigned count, step;
    const struct slice *keys, *values;
    const uint8_t *needs; /* NULL, or enum transaction_need of each key; of equal ones the highest counts */
    /* NULL, or one for each key, which is put on those that are not there, or may expire, while they are held. They are
     * for the caller to take away again, at their owners, if they are linked. */
    struct engine_watch *const *watches;
};

/* Begins one for the current request of `conn`, on these keys (also if some of them are the same). Arguments and
 * context are copied. */
void transaction_begin(struct shard *shard, struct net_conn *conn, const struct transaction_options *options,
                       const struct transaction_args *args);

/* ---- for decide ------------------------------------------------------------------------------------------------ */

/* Of the i-th key; the same for equal keys. */
struct transaction_key *transaction_key(struct transaction *transaction, unsigned i);
/* One of its keys. */
struct transaction_key *transaction_find(struct transaction *transaction, struct slice key);
/* The different ones of its keys, one behind the other. */
struct transaction_key *transaction_keys(struct transaction *transaction, unsigned *count);
/* Whether it is one of them. Once it has begun on any thread. */
bool transaction_has(const struct transaction *transaction, struct slice key);
/* The i-th value. */
struct slice transaction_value(const struct transaction *transaction, unsigned i);
unsigned transaction_count(const struct transaction *transaction); /* of keys as given */
struct shard *transaction_home(const struct transaction *transaction);
const void *transaction_context(const struct transaction *transaction);
struct update_scratch *transaction_arena(struct transaction *transaction);
/* The time of the decision, of the work before it too. */
uint64_t transaction_now_ms(const struct transaction *transaction);

void transaction_reply_integer(struct transaction *transaction, int64_t value);
void transaction_reply_ok(struct transaction *transaction);
/* A whole reply, in the arena. */
void transaction_reply_bytes(struct transaction *transaction, struct slice bytes);
/* Nothing changes then. */
void transaction_reply_error(struct transaction *transaction, const char *text);

/*
 * Decides another one within this one, on keys of it as they are now: their changes are set as for any other, and are
 * the caller's to take over. False: no memory. Not for keys that this one has changes for: it forgets those.
 */
bool transaction_within(struct transaction *outer, const struct transaction_options *options,
                        const struct transaction_args *args, struct slice *reply);

/* ---- for the shard --------------------------------------------------------------------------------------------- */

/* A part has arrived: to be worked on here, or back home. Inside a section. */
void transaction_deliver(struct shard *shard, struct mail *mail);
/* Once per turn of the loop, inside a section: goes on with what waits for the log. */
void transaction_turn(struct shard *shard);
/* Something waits for what no event will tell. */
bool transaction_waits(const struct shard *shard);
/* Frees what is under way, with no reply: after the connections have been freed. */
void transaction_abandon(struct shard *shard);

#endif
