/*
 * sim_answer.c - see sim_answer.h.
 *
 * Errors are told apart by what clients act on: RESP by code and text, frames by their status.
 */
#include "sim_answer.h"

#include "verdict.h"

#include "base/limits.h"
#include "proto/frame.h"
#include "proto/resp.h"

bool answer_has_prefix(struct slice text, const char *prefix)
{
    return text.size >= strlen(prefix) && memcmp(text.data, prefix, strlen(prefix)) == 0;
}

static bool has_inside(struct slice text, const char *part)
{
    return memmem(text.data, text.size, part, strlen(part)) != NULL;
}

size_t answer_take_resp(const uint8_t *data, size_t size, unsigned client, struct answer *answer)
{
    struct resp_reply reply;
    enum resp_status status = resp_reply_parse(data, size, &reply);
    if (status == RESP_MORE)
        return 0;
    if (status != RESP_REQUEST)
        broken("client %u: the node sent what is not RESP", client);
    *answer = (struct answer){.text = reply.text, .number = reply.integer};
    switch (reply.type) {
    case RESP_REPLY_SIMPLE:
        answer->kind = ANSWER_OK;
        break;
    case RESP_REPLY_ERROR:
        answer->kind = ANSWER_ERROR;
        answer->failed = answer_has_prefix(reply.text, "MISCONF") && has_inside(reply.text, "storage failure");
        answer->full = answer_has_prefix(reply.text, "MISCONF") && !answer->failed;
        answer->busy = answer_has_prefix(reply.text, "OOM");
        answer->damaged = answer_has_prefix(reply.text, "ERR damaged");
        break;
    case RESP_REPLY_INTEGER:
        answer->kind = ANSWER_NUMBER;
        break;
    case RESP_REPLY_BULK:
        answer->kind = ANSWER_VALUE;
        break;
    case RESP_REPLY_NULL:
        answer->kind = ANSWER_MISSING;
        break;
    case RESP_REPLY_OTHER:
        answer->kind = ANSWER_OTHER;
        break;
    }
    return reply.size;
}

size_t answer_take_frame(const uint8_t *data, size_t size, unsigned client, struct answer *answer)
{
    struct frame_limits limits = {.key_bytes_max = KVS_KEY_BYTES_MAX, .value_bytes_max = KVS_VALUE_BYTES_MAX};
    struct frame frame;
    enum frame_result result = frame_parse(data, size, &limits, &frame);
    if (result == FRAME_MORE)
        return 0;
    if (result != FRAME_WHOLE || frame.header.flags != FRAME_REPLY)
        broken("client %u: the node sent what is not a frame", client);
    uint8_t status = frame.header.status, opcode = frame.header.opcode;
    *answer = (struct answer){
        .kind = ANSWER_ERROR,
        .text = frame.value,
        .failed = status == FRAME_FAILED && has_inside(frame.value, "storage failure"),
        .full = status == FRAME_NO_SPACE,
        .busy = status == FRAME_BUSY,
        .damaged = status == FRAME_CORRUPT,
        .number = status == FRAME_OK,
        .id = frame.header.id,
    };
    if (answer->full && answer_has_prefix(frame.value, "OOM")) {
        answer->full = false;
        answer->busy = true;
    }
    if (status == FRAME_OK)
        answer->kind = opcode == FRAME_GET ? ANSWER_VALUE : opcode == FRAME_REMOVE ? ANSWER_NUMBER : ANSWER_OK;
    else if (status == FRAME_NOT_FOUND)
        answer->kind = opcode == FRAME_REMOVE ? ANSWER_NUMBER : ANSWER_MISSING;
    return frame.size;
}
