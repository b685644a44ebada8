/* sim_swap.c - see sim_swap.h. One table; no failures. */
#include "sim_swap.h"

#define FAR_MS "7000000000000" /* no clock of the simulator comes so far */

const struct swap *swap_choose(uint64_t chance)
{
    static const struct swap swaps[] = {
        {{"SETNX"}, HISTORY_WRITE_NEW, true, SWAP_TELLS_SUCCESS},
        {{"SET", "NX"}, HISTORY_WRITE_NEW, true, SWAP_TELLS_OK},
        {{"SET", "NX", "GET"}, HISTORY_WRITE_NEW, true, SWAP_TELLS_OLD},
        {{"SET", "XX"}, HISTORY_WRITE_OVER, true, SWAP_TELLS_OK},
        {{"SET", "GET", "XX"}, HISTORY_WRITE_OVER, true, SWAP_TELLS_OLD},
        {{"SET", "GET"}, HISTORY_SWAP, true, SWAP_TELLS_OLD},
        {{"SET", "KEEPTTL", "GET"}, HISTORY_SWAP, true, SWAP_TELLS_OLD},
        {{"GETSET"}, HISTORY_SWAP, true, SWAP_TELLS_OLD},
        {{"GETSET"}, HISTORY_SWAP, true, SWAP_TELLS_OLD},
        {{"GETDEL"}, HISTORY_SWAP, false, SWAP_TELLS_OLD},
        {{"GETDEL"}, HISTORY_SWAP, false, SWAP_TELLS_OLD},
        {{"GETEX", "PERSIST"}, HISTORY_READ, false, SWAP_TELLS_OLD},
        {{"GETEX", "PXAT", FAR_MS}, HISTORY_READ, false, SWAP_TELLS_OLD},
        {{"PEXPIREAT", FAR_MS}, HISTORY_EXISTS, false, SWAP_TELLS_NUMBER},
        {{"PERSIST"}, HISTORY_EXISTS, false, SWAP_TELLS_CHANGE},
    };
    return &swaps[chance % ARRAY_COUNT(swaps)];
}

unsigned swap_arguments(const struct swap *swap, struct slice key, struct slice value, struct slice out[SWAP_ARGS_MAX])
{
    unsigned count = 0;
    out[count++] = slice_text(swap->words[0]);
    out[count++] = key;
    if (swap->writes_value)
        out[count++] = value;
    for (unsigned i = 1; i < ARRAY_COUNT(swap->words) && swap->words[i] != NULL; i++)
        out[count++] = slice_text(swap->words[i]);
    return count;
}

bool swap_answer(const struct swap *swap, const struct answer *answer, int *found)
{
    bool yes_or_no = answer->kind == ANSWER_NUMBER && (answer->number == 0 || answer->number == 1);
    int yes = answer->number == 1;
    switch (swap->answer) {
    case SWAP_TELLS_NUMBER:
        *found = yes;
        return yes_or_no;
    case SWAP_TELLS_SUCCESS:
        *found = !yes;
        return yes_or_no;
    case SWAP_TELLS_OK:
        *found = (answer->kind == ANSWER_OK) == (swap->kind == HISTORY_WRITE_OVER);
        return answer->kind == ANSWER_OK || answer->kind == ANSWER_MISSING;
    case SWAP_TELLS_OLD:
        *found = answer->kind == ANSWER_VALUE;
        return answer->kind == ANSWER_VALUE || answer->kind == ANSWER_MISSING;
    case SWAP_TELLS_CHANGE:
        *found = yes ? 1 : -1;
        return yes_or_no;
    }
    return false;
}
