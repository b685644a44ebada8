/*
 * store_wait.h - an operation that reads, as store_wait.c, which owns it, and store_reads.c see it.
 *
 *   store_wait.c    snapshot ─┬─ all is known ──────────► act, answer
 *                             │ wait_advance                ▲ wait_finish
 *   store_reads.c             └──► read, verify, compare ───┘  until all is known
 *
 * All of it on the owner's thread.
 */
#ifndef KVS_ENGINE_STORE_WAIT_H
#define KVS_ENGINE_STORE_WAIT_H

#include "engine/store.h"

enum { CANDIDATES_MAX = 64 };

/* What an operation needs while it reads. */
struct wait {
    struct ring_op io;
    struct list link;      /* in shard->waits */
    struct list read_link; /* in shard->reads, or among the followers of one that is there */
    struct list followers; /* those who want the record that is being read */
    struct engine_op *op;
    struct store_shard *shard;
    bool queued;  /* the operation is on the owner's queue */
    bool reading; /* it counts in shard->reading[generation]: segments that it may read from stay */
    uint8_t generation;
    struct value_reader_mark mark; /* of a GET, a HOLD: files that die stay until it has the value */
    bool large;                    /* … and has found a large value that is to be read: */
    struct value_descriptor descriptor;
    uint64_t gate;
    bool in_group;       /* a HOLD that counts in shard->held_in_group */
    uint64_t expires_ms; /* of the value that a HOLD has given; 0: there was none, or it does not expire */
    bool moved;          /* the record that is being read has another place by now, or has left the index */
    unsigned tries;

    unsigned count, position;   /* of the snapshot */
    uint64_t compared;          /* bit i: whether addresses[i] has the key is known */
    uint64_t equal;             /* bit i: it has */
    uint64_t expiring, expired; /* bit i, with equal: it has an expiry, which has passed */
    uint64_t addresses[CANDIDATES_MAX];
    uint8_t classes[CANDIDATES_MAX];
    unsigned known_large_count;
    struct store_known_large known_large[STORE_KNOWN_LARGE_MAX];

    uint8_t *buffer;
    size_t buffer_bytes;
    uint32_t skip;  /* from the buffer's start to the record */
    uint64_t whole; /* bytes of the record when its class did not tell */
};

/* ---- store_wait.c ---------------------------------------------------------------------------------------------- */

void wait_drop_buffer(struct wait *wait);
/* What it knows by now; of NULL, an operation that has not read, nothing. */
struct store_known wait_known(const struct wait *wait);
/*
 * While it reads, segments stay. What a GET has listed may be read at any time until it ends. Other operations are told
 * when a record moves, so that only a read in flight counts: they may wait for room in the log, which cannot come
 * before segments are given up.
 */
void wait_reading_begin(struct wait *wait);
void wait_reading_end(struct wait *wait);
/* Moves on to the next candidate that has to be compared; wait->count when there is none. */
unsigned wait_next_unknown(struct wait *wait);
/* The candidate at `position` has the key: REMOVE and settling may have to let its value die. */
void wait_note_equal(struct wait *wait, unsigned position, const struct record_header *record);
/* A GET or a HOLD has its record: if the value lies in a file that comes next. */
void wait_note_large(struct wait *wait, const struct record_header *record);
/* A GET's or a HOLD's result from a record in RAM: gated, if it is not durable yet. */
void wait_give_resident(struct wait *wait, const struct record_header *record);
/* All that had to be compared has been, or the result is an error: ends a GET, tells a HOLD's holder, carries out a
 * write. The wait may be gone afterwards. */
void wait_finish(struct wait *wait);

/* ---- store_reads.c --------------------------------------------------------------------------------------------- */

/*
 * Compares the next candidates, inside a section: one may have an image by now, or still (the resident record that ends
 * a GET's snapshot). True when all that matters is known, or the result is an error; else a read is under way, and
 * wait_finish follows.
 */
bool wait_advance(struct wait *wait);

#endif
