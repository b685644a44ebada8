/*
 * sim_scan.h - clients ask which keys there are: SCAN, KEYS, RANDOMKEY.
 *
 * A position of SCAN is a part of the hashes, so a reply tells of every key whose hash lies between its cursor and the
 * next one whether it is there: that many answers to EXISTS, for the oracle's histories. A cursor is kept by its client
 * over connections, crashes and other numbers of shards.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_SCAN_H
#define KVS_TESTS_SIM_RUN_SIM_SCAN_H

#include "oracle.h"
#include "sim_answer.h"

enum scan_form { SCAN_SOME, SCAN_KEYS, SCAN_RANDOM };

struct scan_ask {
    enum scan_form form;
    uint64_t cursor, count;
    char words[2][24];   /* of the request */
    unsigned base, keys; /* it is judged for these */
    bool *shown;
    uint32_t ops[];
};

/* Asks for keys in one of the forms, from `cursor` on; tells the oracle of `keys` keys from `base` on. */
struct scan_ask *scan_ask_begin(struct oracle *oracle, unsigned base, unsigned keys, uint32_t session, uint64_t cursor,
                                uint64_t chance);
/* Words of the request; returns how many. */
enum { SCAN_ARGS_MAX = 4 };
unsigned scan_ask_arguments(struct scan_ask *ask, struct slice args[SCAN_ARGS_MAX]);
/* Takes the answer; false: it is of the wrong kind. *cursor: where to go on, with SCAN_SOME. Breaks the run when a key
 * is shown twice, or the cursor does not move on. */
bool scan_ask_end(struct oracle *oracle, struct scan_ask *ask, const struct answer *answer, uint64_t hash_seed,
                  uint64_t *cursor);
/* There will be none. */
void scan_ask_leave(struct oracle *oracle, struct scan_ask *ask);
void scan_ask_free(struct scan_ask *ask);

#endif
