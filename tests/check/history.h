/*
 * history.h - decides whether what clients saw of one key can be explained: linearizability of a register, over
 * crashes.
 *
 * A history is a list of operations on one key, each with the moments between which it took effect. The checker looks
 * for an order of all operations that agrees with those moments and in which every answer is the right one. Moments are
 * closed intervals: an operation that ends at the moment at which another begins may have come after it. Written values
 * are unique: numbered from 1, each written once, and not among those that the key may have at the beginning; 0 stands
 * for "not there".
 *
 * An operation without a definite answer (its connection broke, the node died, it was refused for a reason that leaves
 * it open) may have taken effect or not; if it did, then before its `returned`, which is then the moment of the next
 * crash or stop after which it cannot happen any more, or HISTORY_NEVER.
 *
 * Pure: no I/O; one thread a struct history. That the caller keeps to the above is asserted.
 *
 * Algorithm: a sweep over time with the set of all states that the key and the operations under way can be in, where
 * operations are placed as late as possible ("just-in-time linearization", G. Lowe, "Testing for Linearizability",
 * 2017; the problem: J. Wing and C. Gong, "Testing and Verifying Concurrent Objects", 1993), with reductions for a
 * register whose values are unique: history_internal.h. When nothing is under way one state is left for each value, so
 * quiet moments cut the history by themselves. A history whose states are too many is first swept with the most
 * promising of them only, which is enough to show that it is right.
 */
#ifndef KVS_TESTS_CHECK_HISTORY_H
#define KVS_TESTS_CHECK_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_NEVER UINT64_MAX

enum history_kind {
    HISTORY_WRITE,  /* value: what was written */
    HISTORY_REMOVE, /* found: 1 it was there, 0 it was not, -1 not told (as always when it is open) */
    HISTORY_READ,   /* value: what was read; 0 = not there */
    HISTORY_EXISTS, /* found: 1 or 0 */
    /* These look and change in one step. `found` as of REMOVE; `seen`: which value it found, 0 = not told. */
    HISTORY_SWAP,       /* replaces whatever is there, or nothing, by `value`; 0: removes it */
    HISTORY_WRITE_NEW,  /* writes `value` if nothing is there. `found` may be -1 only if it is open */
    HISTORY_WRITE_OVER, /* writes `value` if something is there. The same */
    HISTORY_KINDS,
};

struct history_op {
    enum history_kind kind;
    int8_t found;
    bool open;        /* no definite answer: may have happened or not. Reads without an answer are left out */
    uint32_t session; /* operations of one session (0: of none) take effect in the order in which they were added, those
                         that happen at all; they also began in that order (`invoked` does not fall) */
    uint64_t value;
    uint64_t seen;
    uint64_t invoked; /* moments: any clock that all operations share; invoked <= returned */
    uint64_t returned;
    uint64_t tag; /* the caller's own */
};

struct history;

struct history *history_create(void);
void history_free(struct history *history);
/* Forgets all operations. */
void history_clear(struct history *history);
/* `initial`: the values the key may have at the beginning; none: it is not there. */
void history_begin(struct history *history, const uint64_t *initial, size_t count);
void history_add(struct history *history, const struct history_op *op);
size_t history_count(const struct history *history);

enum history_verdict {
    HISTORY_LINEARIZABLE,
    HISTORY_IMPOSSIBLE, /* no order explains it */
    HISTORY_UNDECIDED,  /* more than work_max states were looked at: a second and some 100 MB for a million of them */
};

/*
 * On IMPOSSIBLE, `why` (unless why_size is 0) begins with "#" and the tag of the operation whose answer contradicts all
 * that had been answered before it, and goes on with what the key could be and with the operations around.
 *
 * On LINEARIZABLE, finals (room for finals_max) are the values that the key may have at the end, in no order,
 * *final_count of them; when there are more than fit, *final_count is finals_max + 1. They are exact, but for this: a
 * write near the end about which an eighth of work_max could not tell is counted among them. final_count may be NULL:
 * then nobody asks.
 *
 * May be called again, also after adding more. Memory is kept until history_free.
 */
enum history_verdict history_check(struct history *history, uint64_t work_max, uint64_t *finals, size_t finals_max,
                                   size_t *final_count, char *why, size_t why_size);

#endif
