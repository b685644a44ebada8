/*
 * update_dump.c - values as payloads, and back.
 *
 * Failures: the key is there and must not be replaced; the payload is damaged, of a later version, of another type than
 * a string; its value would be too long; no scratch.
 */
#include "node/update_dump.h"

#include "node/dump_format.h"
#include "node/update_reply.h"

#include <stdio.h>

void update_dump(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                 struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    out->reply = UPDATE_NULL;
    if (!old->found)
        return;
    uint8_t *payload = update_scratch_take(scratch, old->value.size + DUMP_OVERHEAD_BYTES_MAX);
    if (payload == NULL)
        return;
    update_reply_bytes(out, UPDATE_BULK, slice_make(payload, dump_write(payload, old->value)));
}

/* Finds the value in a payload. False: the outcome says why not, or there is no scratch. */
static bool restored(const struct update_spec *spec, struct slice payload, struct update_scratch *scratch,
                     struct slice *value, struct update_outcome *out)
{
    if (!dump_verify(payload)) {
        update_reply_error(out, "ERR DUMP payload version or checksum are wrong");
        return false;
    }
    struct dump_string string = dump_read(payload);
    size_t bytes = string.form == DUMP_INTEGER ? DUMP_DECIMAL_BYTES_MAX : (size_t)string.value_bytes;
    if (string.form != DUMP_BAD && string.form != DUMP_INTEGER && bytes > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return false;
    }
    *value = string.bytes;
    if (string.form == DUMP_PLAIN)
        return true;
    if (string.form != DUMP_BAD) {
        uint8_t *made = update_scratch_take(scratch, bytes > 0 ? bytes : 1);
        if (made == NULL)
            return false;
        if (string.form == DUMP_INTEGER) {
            *value = slice_make(made, (size_t)snprintf((char *)made, bytes, "%lld", (long long)string.integer));
            return true;
        }
        *value = slice_make(made, bytes);
        if (dump_unpack(string.bytes, made, bytes))
            return true;
    }
    update_reply_error(out, "ERR Bad data format");
    return false;
}

void update_restore(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                    struct update_scratch *scratch, struct update_outcome *out)
{
    struct slice value;
    if (old->found && (spec->option & UPDATE_RESTORE_REPLACE) == 0) {
        update_reply_error(out, "BUSYKEY Target key name already exists.");
        return;
    }
    if (spec->a != UPDATE_ACCEPTED) {
        update_refuse(out, (enum update_refusal)spec->a);
        return;
    }
    if (!restored(spec, operand, scratch, &value, out))
        return;
    if (spec->expires_ms != 0 && spec->expires_ms <= old->now_ms)
        out->change = old->found ? UPDATE_REMOVE : UPDATE_KEEP;
    else
        update_put(out, value, spec->expires_ms);
}
