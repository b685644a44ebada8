/*
 * reply.c - engine results to bytes, for both protocols.
 *
 * Happy path: reply_bound, room of that size, reply_write. Failure: every engine error has a text that names the shard,
 * the cause and the remedy; codes are Redis's where clients act on them (MISCONF: writes are refused, OOM: memory is
 * short).
 */
#include "node/reply.h"

#include "base/large_memory.h"
#include "proto/frame.h"
#include "proto/resp.h"

#include <stdio.h>

#define TEXT_BYTES (REPLY_ERROR_BYTES_MAX - 64)

size_t reply_bound(const struct reply_format *format, const struct engine_result *result)
{
    if (result->error != KVS_ERR_OK)
        return REPLY_ERROR_BYTES_MAX;
    size_t value_bytes = format->kind == REPLY_VALUE || format->kind == REPLY_FRAME ? result->value.size : 0;
    return RESP_HEADER_BYTES_MAX + value_bytes + 2;
}

const char *reply_error_code(enum kvs_err error)
{
    switch (error) {
    case KVS_ERR_FAILED:
    case KVS_ERR_NO_SPACE:
        return "MISCONF";
    case KVS_ERR_NO_MEMORY:
    case KVS_ERR_AGAIN:
        return "OOM";
    default:
        return "ERR";
    }
}

/* Writes are refused as no new segment can be made: mostly, but not only, for lack of space. */
static void write_refusal(char text[TEXT_BYTES], const struct reply_origin *origin)
{
    const char *cause = engine_refusal_text(origin->engine);
    const char *failure = engine_background_failure_text(origin->engine);
    if (*failure != 0)
        snprintf(text, TEXT_BYTES,
                 "MISCONF kvs-node: shard %u can get no new log segment since a storage failure: %s; reads go on. "
                 "Restart kvs-node when the storage is sound again",
                 origin->shard, failure);
    else if (*cause == 0 || strcmp(cause, kvs_err_text(KVS_ERR_NO_SPACE)) == 0)
        snprintf(text, TEXT_BYTES,
                 "MISCONF kvs-node: shard %u has no disk space left for writes; reads and deletes go on, and writing "
                 "resumes when there is space again",
                 origin->shard);
    else
        snprintf(text, TEXT_BYTES,
                 "MISCONF kvs-node: shard %u cannot make a new log segment: %s; reads and deletes go on, and it is "
                 "tried again every second",
                 origin->shard, cause);
}

void reply_error_text(char text[TEXT_BYTES], enum kvs_err error, const struct reply_origin *origin)
{
    switch (error) {
    case KVS_ERR_FAILED: {
        const char *cause = engine_failure_text(origin->engine);
        snprintf(
            text, TEXT_BYTES,
            "MISCONF kvs-node: shard %u stopped writing after a storage failure: %s; reads go on. Restart kvs-node "
            "when the storage is sound again",
            origin->shard, *cause != 0 ? cause : kvs_err_text(error));
        break;
    }
    case KVS_ERR_NO_SPACE:
        write_refusal(text, origin);
        break;
    case KVS_ERR_NO_MEMORY:
        snprintf(text, TEXT_BYTES,
                 "OOM kvs-node: shard %u has used up its memory; reads go on. Raise --memory or delete keys",
                 origin->shard);
        break;
    case KVS_ERR_AGAIN:
        snprintf(text, TEXT_BYTES, "OOM kvs-node: too many requests under way on shard %u; try again", origin->shard);
        break;
    case KVS_ERR_CORRUPT: {
        const char *place = engine_damage_text(origin->engine);
        snprintf(text, TEXT_BYTES, "ERR damaged record: %s", *place != 0 ? place : kvs_err_text(error));
        break;
    }
    case KVS_ERR_TOO_LARGE:
        snprintf(text, TEXT_BYTES, "ERR key or value too large for a segment of this store");
        break;
    default:
        snprintf(text, TEXT_BYTES, "ERR kvs-node: shard %u could not carry out the request: %s", origin->shard,
                 kvs_err_text(error));
        break;
    }
}

static uint8_t frame_status_of(enum kvs_err error)
{
    switch (error) {
    case KVS_ERR_NO_SPACE:
    case KVS_ERR_NO_MEMORY:
        return FRAME_NO_SPACE;
    case KVS_ERR_AGAIN:
        return FRAME_BUSY;
    case KVS_ERR_TOO_LARGE:
        return FRAME_TOO_LARGE;
    case KVS_ERR_CORRUPT:
        return FRAME_CORRUPT;
    case KVS_ERR_INVALID:
        return FRAME_BAD_REQUEST;
    default:
        return FRAME_FAILED;
    }
}

static size_t write_frame(uint8_t *out, const struct reply_format *format, uint8_t status, struct slice value)
{
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .opcode = format->frame_opcode,
        .flags = FRAME_REPLY,
        .status = status,
        .value_bytes = (uint32_t)value.size,
        .id = format->frame_id,
    };
    return frame_write(out, &header, slice_make(NULL, 0), value);
}

size_t reply_write_error(uint8_t *out, const struct reply_format *format, enum kvs_err error, const char *text)
{
    if (format->kind == REPLY_FRAME)
        return write_frame(out, format, frame_status_of(error), slice_text(text));
    return resp_write_error(out, text);
}

static size_t write_frame_result(uint8_t *out, const struct reply_format *format, const struct engine_result *result)
{
    bool missing = !result->found && (format->frame_opcode == FRAME_GET || format->frame_opcode == FRAME_REMOVE);
    struct slice value = format->frame_opcode == FRAME_GET && result->found ? result->value : slice_make(NULL, 0);
    return write_frame(out, format, missing ? FRAME_NOT_FOUND : FRAME_OK, value);
}

size_t reply_write_around(uint8_t *value, size_t value_bytes, const struct reply_format *format, const uint8_t **reply)
{
    static_assert(LARGE_MEMORY_ROOM >= RESP_HEADER_BYTES_MAX && LARGE_MEMORY_ROOM >= sizeof(struct frame_header),
                  "room around a large value");
    uint8_t head[LARGE_MEMORY_ROOM];
    size_t head_bytes, tail_bytes = 0;
    if (format->kind == REPLY_FRAME) {
        struct frame_header header = {
            .opcode = format->frame_opcode, .flags = FRAME_REPLY, .status = FRAME_OK, .id = format->frame_id};
        head_bytes = frame_write_header(head, &header, 0, value_bytes);
    } else {
        head_bytes = resp_write_bulk_header(head, value_bytes);
        memcpy(value + value_bytes, "\r\n", 2);
        tail_bytes = 2;
    }
    memcpy(value - head_bytes, head, head_bytes);
    *reply = value - head_bytes;
    return head_bytes + value_bytes + tail_bytes;
}

/* Seconds are rounded to the nearest, as Redis does. */
static int64_t expiry_number(enum reply_kind kind, const struct engine_result *result,
                             const struct reply_origin *origin)
{
    if (!result->found || result->expires_ms == 0)
        return result->found ? -1 : -2;
    bool in_s = kind == REPLY_TTL_S || kind == REPLY_EXPIRES_S;
    uint64_t ms = result->expires_ms;
    if (kind == REPLY_TTL_S || kind == REPLY_TTL_MS) {
        uint64_t now_ms = engine_now_ms(origin->engine);
        ms = ms > now_ms ? ms - now_ms : 0;
    }
    return (int64_t)(in_s ? (ms + 500) / 1000 : ms);
}

size_t reply_write(uint8_t *out, const struct reply_format *format, const struct engine_result *result,
                   const struct reply_origin *origin)
{
    if (result->error != KVS_ERR_OK) {
        char text[TEXT_BYTES];
        reply_error_text(text, result->error, origin);
        return reply_write_error(out, format, result->error, text);
    }
    switch ((enum reply_kind)format->kind) {
    case REPLY_VALUE:
        return result->found ? resp_write_bulk(out, result->value) : resp_write_null(out, format->resp_version);
    case REPLY_OK:
        memcpy(out, "+OK\r\n", 5);
        return 5;
    case REPLY_FOUND:
        memcpy(out, result->found ? ":1\r\n" : ":0\r\n", 4);
        return 4;
    case REPLY_TTL_S:
    case REPLY_TTL_MS:
    case REPLY_EXPIRES_S:
    case REPLY_EXPIRES_MS:
        return resp_write_integer(out, expiry_number((enum reply_kind)format->kind, result, origin));
    case REPLY_FRAME:
        break;
    }
    return write_frame_result(out, format, result);
}
