/*
 * counters.h - keys that are only ever added to: the oracle of INCR and APPEND.
 *
 * Some of them are numbers, to which every INCR adds one; some are texts, to which every APPEND adds a token of its
 * own, all equally long. Either way a value has a height, which every addition raises by one and tells. Any number of
 * clients add at once, durably. What may be seen:
 *
 *   - no two additions are told the same height;
 *   - an answer is higher than every height that was told or seen before its request was made, before a crash, too: an
 *     addition that was acknowledged is not lost, and none works on an older value (P1, P4);
 *   - no value is higher than all additions made so far could have brought it (P2);
 *   - a text holds every token once, and where its APPEND was told that it is (P3);
 *   - after a flush no value is higher than what was added since could have brought it (P2).
 */
#ifndef KVS_TESTS_SIM_RUN_COUNTERS_H
#define KVS_TESTS_SIM_RUN_COUNTERS_H

#include "base/bytes.h"

#define COUNTERS_REQUEST_BYTES_MAX 4096

struct counters;

/* A request that is under way; the client keeps it. */
struct counter_ask {
    unsigned key, client;
    uint32_t session;
    uint32_t number;  /* of the addition; 0: it only looks */
    uint64_t floor;   /* what had been told or seen when it was made */
    uint64_t begun;   /* additions then */
    bool alone;       /* no other may happen then */
    uint64_t flushes; /* beginnings and ends of flushes then */
};

#define COUNTERS_MAX 8u

/* A flush that is under way; the client keeps it. */
struct counters_flush {
    uint64_t ended[COUNTERS_MAX]; /* additions to each counter that had an answer when it began */
};

/* No value becomes longer than that. */
struct counters *counters_create(unsigned keys, unsigned value_bytes_max);
void counters_free(struct counters *counters);
unsigned counters_keys(const struct counters *counters);
/* True for the name of a counter; sets *key. */
bool counters_named(const struct counters *counters, struct slice name, unsigned *key);

/* A boot has begun: what was left without an answer has happened or never will. */
void counters_boot(struct counters *counters);
/* Damage that need not have been noticed has hit this key's latest records. */
void counters_taint(struct counters *counters, unsigned key);

/* Writes a RESP request, an addition or a look as `chance` chooses (0: a look), and returns its size. `ask` has its
 * key, client (below COUNTERS_CLIENTS_MAX) and session; answers within a session come in order. */
#define COUNTERS_CLIENTS_MAX 16u
size_t counters_begin(struct counters *counters, struct counter_ask *ask, uint64_t chance,
                      uint8_t out[COUNTERS_REQUEST_BYTES_MAX]);
/* The answer to an addition; to a look: a value, or that there is none. */
void counters_added(struct counters *counters, const struct counter_ask *ask, int64_t reply);
void counters_seen(struct counters *counters, const struct counter_ask *ask, bool found, struct slice value);
/* It was refused, and had no effect. */
void counters_refuse(struct counters *counters, const struct counter_ask *ask);
/* There will be no definite answer. */
void counters_leave(struct counters *counters, const struct counter_ask *ask);

/* All are taken away at one moment, and begin anew: between the beginning of a flush and its answer, or any time in
 * this boot, if it is left without one. Meanwhile little is known of them. */
void counters_flush_begin(struct counters *counters, struct counters_flush *flush);
void counters_flush_end(struct counters *counters, const struct counters_flush *flush);

/* With nothing under way: how many of them there are. */
void counters_range(const struct counters *counters, int64_t *least, int64_t *most);

#endif
