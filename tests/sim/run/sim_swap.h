/*
 * sim_swap.h - commands that look at an ordinary key and may change it in one step: what is sent, and what its answer
 * tells. Also those that rewrite what is there and leave it as it is, but for its expiry, which lies in a far future.
 * Pure.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_SWAP_H
#define KVS_TESTS_SIM_RUN_SIM_SWAP_H

#include "history.h"
#include "sim_answer.h"

#define SWAP_ARGS_MAX 6u

struct swap {
    const char *words[4]; /* the command, and what stands behind the key and the value */
    enum history_kind kind;
    bool writes_value; /* one of its own */
    enum {
        SWAP_TELLS_NUMBER,  /* 1: it was there */
        SWAP_TELLS_SUCCESS, /* 1: it was written, for there was nothing */
        SWAP_TELLS_OK,      /* or nil, when the condition did not hold */
        SWAP_TELLS_OLD,     /* the value it found, or nil */
        SWAP_TELLS_CHANGE,  /* 1: there was an expiry to take away; 0 tells nothing */
    } answer;
};

const struct swap *swap_choose(uint64_t chance);
/* Fills in the request's arguments and returns how many. They point to what is given here, and to static memory. */
unsigned swap_arguments(const struct swap *swap, struct slice key, struct slice value, struct slice out[SWAP_ARGS_MAX]);
/* False: no answer of this command looks like that. *found: 1 or 0, whether something was there, -1 when it does not
 * tell; with 1 and SWAP_TELLS_OLD the answer's text is what was there. */
bool swap_answer(const struct swap *swap, const struct answer *answer, int *found);

#endif
