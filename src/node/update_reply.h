/*
 * update_reply.h - what the functions of update.h share: their errors' texts, and how they say what comes of them.
 *
 * Pure and inline; any thread.
 */
#ifndef KVS_NODE_UPDATE_REPLY_H
#define KVS_NODE_UPDATE_REPLY_H

#include "node/update.h"

/* Redis's words: clients match on them. */
#define UPDATE_TEXT_NOT_INTEGER "ERR value is not an integer or out of range"
#define UPDATE_TEXT_NOT_FLOAT   "ERR value is not a valid float"
#define UPDATE_TEXT_SYNTAX      "ERR syntax error"
#define UPDATE_TEXT_TOO_LONG    "ERR string exceeds maximum allowed size (proto-max-bulk-len)"

/* An argument that Redis looks at only once it has seen what the key holds: what is wrong with it. */
enum update_refusal {
    UPDATE_ACCEPTED,
    UPDATE_NOT_INTEGER,
    UPDATE_SYNTAX,
    UPDATE_EXPIRE_TIME, /* of GETEX */
    UPDATE_NEGATIVE_TTL,
};

static inline void update_reply_integer(struct update_outcome *out, int64_t integer)
{
    out->reply = UPDATE_INTEGER;
    out->integer = integer;
}

static inline void update_reply_bytes(struct update_outcome *out, enum update_reply reply, struct slice bytes)
{
    out->reply = reply;
    out->bytes = bytes;
}

static inline void update_reply_error(struct update_outcome *out, const char *text)
{
    out->reply = UPDATE_ERROR;
    out->text = text;
}

static inline void update_put(struct update_outcome *out, struct slice value, uint64_t expires_ms)
{
    out->change = UPDATE_PUT;
    out->value = value;
    out->expires_ms = expires_ms;
}

static inline void update_refuse(struct update_outcome *out, enum update_refusal refusal)
{
    static const char *const texts[] = {
        [UPDATE_NOT_INTEGER] = UPDATE_TEXT_NOT_INTEGER,
        [UPDATE_SYNTAX] = UPDATE_TEXT_SYNTAX,
        [UPDATE_EXPIRE_TIME] = "ERR invalid expire time in 'getex' command",
        [UPDATE_NEGATIVE_TTL] = "ERR Invalid TTL value, must be >= 0",
    };
    update_reply_error(out, texts[refusal]);
}

/* The bytes from `begin` to `end`, both counted; negative ones from the end of `total` on. False: there are none. */
static inline bool update_range(int64_t *begin, int64_t *end, int64_t total)
{
    if (*begin < 0)
        *begin = *begin + total < 0 ? 0 : *begin + total;
    if (*end < 0)
        *end = *end + total < 0 ? 0 : *end + total;
    if (*end >= total)
        *end = total - 1;
    return *begin <= *end;
}

#endif
