/*
 * sim_answer.h - what the node sent to a client, taken off its bytes: one answer of either protocol at a time. Bytes
 * that are no answer break the run.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_ANSWER_H
#define KVS_TESTS_SIM_RUN_SIM_ANSWER_H

#include "base/bytes.h"

struct answer {
    enum { ANSWER_OK, ANSWER_VALUE, ANSWER_MISSING, ANSWER_NUMBER, ANSWER_ERROR, ANSWER_OTHER } kind;
    struct slice text; /* lies in the bytes it was taken from */
    int64_t number;
    bool failed, full, busy, damaged; /* with ERROR: which */
    uint64_t id;                      /* of a frame: that of its request */
};

bool answer_has_prefix(struct slice text, const char *prefix);

/* Takes the answer at the beginning of these bytes and returns its size; 0: it is not whole yet. `client`: for the
 * message of a run that breaks. */
size_t answer_take_resp(const uint8_t *data, size_t size, unsigned client, struct answer *answer);
size_t answer_take_frame(const uint8_t *data, size_t size, unsigned client, struct answer *answer);

#endif
