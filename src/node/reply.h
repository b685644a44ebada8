/*
 * reply.h - what the engine answered, as the bytes of a reply.
 *
 * Pure but for reading the texts of a shard's failures. Called on the thread of the shard that executed the request,
 * which need not be the one that has the connection: the format says everything that is needed.
 */
#ifndef KVS_NODE_REPLY_H
#define KVS_NODE_REPLY_H

#include "engine/engine.h"

enum reply_kind {
    REPLY_VALUE, /* the value, or null */
    REPLY_OK,    /* +OK */
    REPLY_FOUND, /* :1 or :0 */
    /* When the key expires: in so many seconds or milliseconds, or at that time. -1: never; -2: it is not there. */
    REPLY_TTL_S,
    REPLY_TTL_MS,
    REPLY_EXPIRES_S,
    REPLY_EXPIRES_MS,
    REPLY_FRAME, /* a frame of the binary protocol */
};

struct reply_format {
    uint8_t kind; /* enum reply_kind */
    uint8_t resp_version;
    uint8_t frame_opcode;
    uint64_t frame_id;
};

/* Any error fits in this. */
#define REPLY_ERROR_BYTES_MAX 1024u

/* Who executed the request, for the texts of errors. */
struct reply_origin {
    unsigned shard;
    struct engine_shard *engine;
};

/* Room that reply_write may need. */
size_t reply_bound(const struct reply_format *format, const struct engine_result *result);
/* Writes the reply and returns its size. */
size_t reply_write(uint8_t *out, const struct reply_format *format, const struct engine_result *result,
                   const struct reply_origin *origin);

/* The same for a value that is in its place, with LARGE_MEMORY_ROOM bytes before and behind it: writes what goes around
 * it. Sets *reply to the reply's first byte and returns its size. */
size_t reply_write_around(uint8_t *value, size_t value_bytes, const struct reply_format *format, const uint8_t **reply);

/* The code that the text of an error begins with. */
const char *reply_error_code(enum kvs_err error);
/* The text of an error, code first, as RESP shows it. */
void reply_error_text(char text[REPLY_ERROR_BYTES_MAX - 64], enum kvs_err error, const struct reply_origin *origin);
/* An error with this text, in either protocol; at most REPLY_ERROR_BYTES_MAX. */
size_t reply_write_error(uint8_t *out, const struct reply_format *format, enum kvs_err error, const char *text);

#endif
