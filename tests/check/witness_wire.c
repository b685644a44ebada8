/*
 * witness_wire.c - requests to bytes and replies from bytes, in both protocols; no more of them than the witness needs.
 *
 * Failure modes: bytes that are no reply to what was asked are BROKEN, and the connection is given up.
 */
#include "witness.h"

#include "proto/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_VALUE_MAX 65536u /* what is longer is no value of ours */

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static size_t resp_write(uint8_t *out, const struct slice *arguments, size_t count)
{
    size_t at = (size_t)sprintf((char *)out, "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++) {
        at += (size_t)sprintf((char *)out + at, "$%zu\r\n", arguments[i].size);
        memcpy(out + at, arguments[i].data, arguments[i].size);
        at += arguments[i].size;
        out[at++] = '\r';
        out[at++] = '\n';
    }
    return at;
}

size_t wire_greeting(enum witness_protocol protocol, bool relaxed, uint8_t *out)
{
    if (protocol == WITNESS_RESP) {
        struct slice arguments[] = {slice_text("KVS.DURABILITY"), slice_text(relaxed ? "relaxed" : "durable")};
        return resp_write(out, arguments, ARRAY_COUNT(arguments));
    }
    struct frame_header header = {.opcode = FRAME_HELLO};
    struct frame_hello hello = {.version_min = FRAME_VERSION, .version_max = FRAME_VERSION};
    return frame_write(out, &header, slice_make(NULL, 0), slice_make(&hello, sizeof(hello)));
}

size_t wire_request(enum witness_protocol protocol, enum witness_kind kind, bool relaxed, uint64_t id, uint32_t key,
                    uint64_t number, uint8_t *out)
{
    char name[WITNESS_KEY_BYTES_MAX];
    uint8_t value[WITNESS_VALUE_MAX];
    struct slice key_bytes = slice_make(name, witness_key(key, name));
    struct slice value_bytes = slice_make(value, kind == WITNESS_WRITE ? witness_value_write(key, number, value) : 0);
    bool writes = kind == WITNESS_WRITE || kind == WITNESS_DELETE;
    if (protocol == WITNESS_BINARY) {
        struct frame_header header = {.opcode = kind == WITNESS_WRITE    ? FRAME_SET
                                                : kind == WITNESS_DELETE ? FRAME_REMOVE
                                                                         : FRAME_GET,
                                      .flags = relaxed && writes ? FRAME_RELAXED : 0,
                                      .id = id};
        return frame_write(out, &header, key_bytes, value_bytes);
    }
    const char *command = kind == WITNESS_WRITE    ? "SET"
                          : kind == WITNESS_DELETE ? "DEL"
                          : kind == WITNESS_READ   ? "GET"
                                                   : "EXISTS";
    struct slice arguments[] = {slice_text(command), key_bytes, value_bytes};
    return resp_write(out, arguments, kind == WITNESS_WRITE ? 3 : 2);
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

static struct wire_reply decode_bulk(struct slice data, size_t head_size, long length)
{
    struct wire_reply reply = {.answer = WIRE_BROKEN};
    if (length < 0) {
        reply.answer = WIRE_ABSENT;
        reply.size = head_size;
    } else if ((unsigned long)length <= WIRE_VALUE_MAX) {
        reply.size = head_size + (size_t)length + 2;
        reply.answer = data.size < reply.size ? WIRE_MORE : WIRE_VALUE;
        reply.bytes = slice_make(data.data + head_size, (size_t)length);
    }
    return reply;
}

static struct wire_reply decode_resp(struct slice data)
{
    struct wire_reply reply = {.answer = WIRE_MORE};
    const uint8_t *end = memchr(data.data, '\r', data.size);
    if (end == NULL || (size_t)(end - data.data) + 2 > data.size) {
        if (data.size > 4096)
            reply.answer = WIRE_BROKEN;
        return reply;
    }
    reply.size = (size_t)(end - data.data) + 2;
    /* The line is ended by CR, so strtol stops inside. */
    long number = strtol((const char *)data.data + 1, NULL, 10);
    switch (data.data[0]) {
    case '+':
        reply.answer = WIRE_OK;
        break;
    case ':':
        reply.answer = number > 0 ? WIRE_THERE : WIRE_ABSENT;
        break;
    case '-':
        reply.answer = WIRE_ERROR;
        reply.bytes = slice_make(data.data + 1, reply.size - 3);
        if (reply.bytes.size > 8 && memcmp(reply.bytes.data, "LOADING ", 8) == 0)
            reply.answer = WIRE_LOADING;
        break;
    case '$':
        return decode_bulk(data, reply.size, number);
    default:
        reply.answer = WIRE_BROKEN;
    }
    return reply;
}

static struct wire_reply decode_frame(struct slice data)
{
    static const struct frame_limits limits = {.key_bytes_max = 65535, .value_bytes_max = WIRE_VALUE_MAX};
    struct wire_reply reply = {.answer = WIRE_BROKEN};
    struct frame frame;
    switch (frame_parse(data.data, data.size, &limits, &frame)) {
    case FRAME_MORE:
        reply.answer = WIRE_MORE;
        return reply;
    case FRAME_INVALID:
    case FRAME_OVER:
        return reply;
    case FRAME_WHOLE:
        break;
    }
    reply.id = frame.header.id;
    reply.bytes = frame.value;
    reply.size = frame.size;
    if (frame.header.status == FRAME_NOT_FOUND)
        reply.answer = WIRE_ABSENT;
    else if (frame.header.status == FRAME_LOADING)
        reply.answer = WIRE_LOADING;
    else if (frame.header.status != FRAME_OK)
        reply.answer = WIRE_ERROR;
    else if (frame.header.opcode == FRAME_GET)
        reply.answer = WIRE_VALUE;
    else
        reply.answer = frame.header.opcode == FRAME_REMOVE ? WIRE_THERE : WIRE_OK;
    return reply;
}

struct wire_reply wire_decode(enum witness_protocol protocol, struct slice data)
{
    if (data.size == 0)
        return (struct wire_reply){.answer = WIRE_MORE};
    return protocol == WITNESS_RESP ? decode_resp(data) : decode_frame(data);
}
