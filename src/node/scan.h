/*
 * scan.h - commands that ask which keys there are: SCAN, KEYS, RANDOMKEY.
 *
 * A scan travels: it goes through the keys of one shard, in steps (engine_scan), then through those of the next, and
 * home with what it has found. A shard does a bounded number of steps in each turn of its loop, so nobody waits for a
 * scan of millions of keys. The asking connection is held meanwhile, and the scan begins when all that the connection
 * has asked for before has been carried out: it sees what they have done, and what follows sees the world after it.
 *
 * A position of SCAN is a hash, of which the cursor has the upper 48 bits: so it is good for ever (engine.h), and small
 * enough for clients that keep it in a floating-point number.
 *
 * Within an EXEC (exec_scan.c). The scan leaves out the transaction's keys, which are for the EXEC to add as they are
 * by then. Of the others it shows the state of one moment, unless too much changes all the time: a single step is a
 * moment of its shard. Where it took several, every shard is asked once more whether a key of it has been changed
 * since; if one has, the scan begins anew, some times, and as long as it was short. What remains then is what a scan
 * has outside of an EXEC: every key that was there all the time once, others perhaps.
 *
 * Thread of the shard that has the asking connection; scan_deliver and scan_turn on any.
 */
#ifndef KVS_NODE_SCAN_H
#define KVS_NODE_SCAN_H

#include "node/command.h"

enum scan_kind {
    SCAN_PORTION, /* SCAN: some keys, and the cursor behind them */
    SCAN_ALL,     /* KEYS */
    SCAN_ANY,     /* RANDOMKEY */
};

struct scan_question {
    enum scan_kind kind;
    uint64_t cursor;      /* SCAN_PORTION: where to go on, 0 = at the beginning */
    uint64_t count;       /* … and how many keys to look at */
    struct slice pattern; /* data NULL: any key */
    bool nothing;         /* no key is of the type that is asked for */
};

/* Longer patterns are refused: to match one takes time that grows with it. */
#define SCAN_PATTERN_BYTES_MAX 4096u
/* SCAN looks at so many keys at most, and ends with those that have filled so many bytes of its reply. */
#define SCAN_COUNT_MAX      65536u
#define SCAN_BYTES_MAX      (1u << 20)
#define SCAN_TEXT_NO_MEMORY "OOM kvs-node: the requests under way hold too much memory; try again"

/* Answers the current request, later; within an EXEC that does. */
void scan_ask(struct call *call, const struct scan_question *question);

/* ---- within an EXEC ---------------------------------------------------------------------------------------------- */

struct scan;
struct transaction;

/* NULL: no memory. The transaction's keys stay until it is home. */
struct scan *scan_begin_within(struct call *call, const struct scan_question *question,
                               const struct transaction *transaction);
/* Home, with what it has found: the rest is for home's thread to ask. */
bool scan_is_home(const struct scan *scan);
/* Of its question, and of the hashes that it has gone through: it shows the key if that is there. */
bool scan_meets(const struct scan *scan, struct slice key, uint64_t hash);
/* SCAN_ANY: the one it has found is to be told, rather than one of `others` keys that it meets. */
bool scan_prefers_own(const struct scan *scan, unsigned others);
/* Room for the reply, or for its beginning if `others` keys are to be added behind it. */
size_t scan_reply_bound(const struct scan *scan);
/* SCAN_ANY: null if it has found nothing. */
size_t scan_reply_write(const struct scan *scan, uint8_t *out, unsigned others);
/* Its reply is an error: nothing is to be added. */
bool scan_has_failed(const struct scan *scan);
enum scan_kind scan_kind(const struct scan *scan);
void scan_end(struct scan *scan);

/* ---- for the shard ----------------------------------------------------------------------------------------------- */

/* Mail of this kind has arrived. */
void scan_deliver(struct shard *shard, struct mail *mail);
/* Once per turn, after everything that gives answers. */
void scan_turn(struct shard *shard);
/* Scans of a shard that read from disk at a time: each holds what it has found. */
#define SCAN_STEPS_MAX 16u
static inline bool scan_may_step(const struct shard *shard)
{
    return shard->scan_steps < SCAN_STEPS_MAX && !list_empty(&shard->scan_runs);
}
/* The next turn has something to do by itself. */
static inline bool scan_waiting(const struct shard *shard)
{
    return scan_may_step(shard) || !list_empty(&shard->scan_replies);
}
/* Frees what was asked here, after the connections have been freed. */
void scan_abandon(struct shard *shard);

#endif
