/*
 * update_object.c - what can be said about a key.
 *
 * All values are strings, which have no address that would tell anything. Encodings are told by the value alone: Redis
 * says "raw" of a short one that was once appended to, and nothing here remembers that.
 */
#include "node/update_object.h"

#include "engine/log_format.h"
#include "node/command.h"
#include "node/dump_format.h"
#include "node/update_reply.h"

#include <stdio.h>

/* The longest string that Redis keeps together with its object, and the longest that may be a number of 64 bits. */
#define EMBEDDED_BYTES_MAX 44u
#define INTEGER_BYTES_MAX  20u
/* Of the index, on average: see engine/index.h. */
#define INDEX_BYTES 13u
/* Of update_debug's reply. */
#define DEBUG_BYTES_MAX 160u

void update_type(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                 struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    struct slice text = slice_text(old->found ? "+string\r\n" : "+none\r\n");
    uint8_t *reply = update_scratch_take(scratch, text.size);
    if (reply == NULL)
        return;
    memcpy(reply, text.data, text.size);
    update_reply_bytes(out, UPDATE_RESP, slice_make(reply, text.size));
}

static const char *encoding_of(struct slice value)
{
    int64_t number;
    if (value.size <= INTEGER_BYTES_MAX && command_integer(value, &number))
        return "int";
    return value.size <= EMBEDDED_BYTES_MAX ? "embstr" : "raw";
}

void update_encoding(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                     struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    out->reply = UPDATE_NULL;
    if (!old->found)
        return;
    struct slice text = slice_text(encoding_of(old->value));
    uint8_t *reply = update_scratch_take(scratch, text.size);
    if (reply == NULL)
        return;
    memcpy(reply, text.data, text.size);
    update_reply_bytes(out, UPDATE_BULK, slice_make(reply, text.size));
}

void update_debug(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                  struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    if (!old->found) {
        update_reply_error(out, "ERR no such key");
        return;
    }
    char serialized[48] = "";
    if (spec->a == 0)
        snprintf(serialized, sizeof serialized, "serializedlength:%zu ", dump_string_bytes(old->value));
    char *reply = (char *)update_scratch_take(scratch, DEBUG_BYTES_MAX);
    if (reply == NULL)
        return;
    const int size =
        snprintf(reply, DEBUG_BYTES_MAX, "+Value at:0x0 refcount:1 encoding:%s %slru:0 lru_seconds_idle:0\r\n",
                 encoding_of(old->value), serialized);
    update_reply_bytes(out, UPDATE_RESP, slice_make(reply, (size_t)size));
}

void update_figure(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    out->reply = UPDATE_NULL;
    if (old->found)
        update_reply_integer(out, spec->a);
}

void update_frequency(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                      struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    (void)scratch;
    out->reply = UPDATE_NULL;
    if (old->found)
        update_reply_error(out,
                           "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note "
                           "that when switching between policies at runtime LRU and LFU data will take some time to "
                           "adjust.");
}

void update_memory(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    out->reply = UPDATE_NULL;
    if (!old->found)
        return;
    size_t extra_bytes = old->expires_ms != 0 ? RECORD_EXPIRY_BYTES : 0;
    uint64_t record = record_bytes((size_t)spec->a + extra_bytes, (size_t)old->value_bytes);
    update_reply_integer(out, (int64_t)(record + INDEX_BYTES));
}
