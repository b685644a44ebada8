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
#define SCAN_COUNT_MAX 65536u
#define SCAN_BYTES_MAX (1u << 20)

/* Answers the current request, later. */
void scan_ask(struct call *call, const struct scan_question *question);

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
