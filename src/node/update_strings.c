/*
 * update_strings.c - values as strings of bytes.
 *
 * Happy path: the new value is the operand, or put together in the scratch; an expiry that the command does not speak
 * of stays. Failures: a value that would become too long (TOO_LONG); no scratch, then the outcome stays as it is.
 */
#include "node/update_strings.h"

#include "base/assert.h"
#include "node/update_reply.h"

static void copy(uint8_t *to, struct slice from)
{
    if (from.size > 0)
        memcpy(to, from.data, from.size);
}

static bool may_set(const struct update_spec *spec, struct slice operand, const struct update_old *old)
{
    if ((spec->option & UPDATE_SET_IF_MISSING) != 0)
        return !old->found;
    if ((spec->option & UPDATE_SET_IF_FOUND) != 0)
        return old->found;
    if ((spec->option & UPDATE_SET_IF_EQUAL) == 0)
        return true;
    struct slice expected = slice_make(operand.data + spec->b, operand.size - (size_t)spec->b);
    return old->found && slice_equal(old->value, expected);
}

void update_set(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                struct update_scratch *scratch, struct update_outcome *out)
{
    (void)scratch;
    KVS_ASSERT(spec->a >= 0 && (uint64_t)spec->a <= operand.size);
    KVS_ASSERT(spec->b >= 0 && (uint64_t)spec->b <= operand.size);
    bool sets = may_set(spec, operand, old);
    if (sets) {
        bool keeps = old->found && (spec->option & UPDATE_SET_KEEP_EXPIRY) != 0;
        update_put(out, slice_make(operand.data, (size_t)spec->a), keeps ? old->expires_ms : spec->expires_ms);
    }
    if ((spec->option & UPDATE_SET_REPLY_OLD) != 0)
        out->reply = UPDATE_OLD;
    else if ((spec->option & UPDATE_SET_REPLY_INTEGER) != 0)
        update_reply_integer(out, sets);
    else
        out->reply = sets ? UPDATE_OK : UPDATE_NULL;
}

void update_remove_if_equal(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                            struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)scratch;
    bool equal = old->found && slice_equal(old->value, operand);
    out->change = equal ? UPDATE_REMOVE : UPDATE_KEEP;
    update_reply_integer(out, equal);
}

void update_getdel(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    (void)scratch;
    out->reply = UPDATE_OLD;
    out->change = old->found ? UPDATE_REMOVE : UPDATE_KEEP;
}

void update_getex(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                  struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    out->reply = UPDATE_OLD;
    if (!old->found)
        return;
    if (spec->option != UPDATE_ACCEPTED) {
        update_refuse(out, (enum update_refusal)spec->option);
    } else if (spec->a == UPDATE_GETEX_PERSIST) {
        out->change = old->expires_ms != 0 ? UPDATE_EXPIRE : UPDATE_KEEP;
    } else if (spec->a == UPDATE_GETEX_EXPIRE) {
        out->change = spec->expires_ms <= old->now_ms ? UPDATE_REMOVE : UPDATE_EXPIRE;
        out->expires_ms = spec->expires_ms;
    }
}

void update_append(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    size_t bytes = old->value.size + operand.size;
    if (bytes > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    update_reply_integer(out, (int64_t)bytes);
    if (!old->found) {
        update_put(out, operand, 0);
        return;
    }
    if (operand.size == 0)
        return;
    uint8_t *value = update_scratch_take(scratch, bytes);
    if (value == NULL)
        return;
    copy(value, old->value);
    copy(value + old->value.size, operand);
    update_put(out, slice_make(value, bytes), old->expires_ms);
}

void update_strlen(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    (void)scratch;
    update_reply_integer(out, old->found ? (int64_t)old->value_bytes : 0);
}

void update_getrange(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                     struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    int64_t begin = spec->a, end = spec->b;
    bool backwards = begin < 0 && end < 0 && begin > end;
    struct slice bytes = {0};
    if (!backwards && update_range(&begin, &end, (int64_t)old->value.size))
        bytes = slice_make(old->value.data + begin, (size_t)(end - begin + 1));
    update_reply_bytes(out, UPDATE_BULK, bytes);
}

void update_setrange(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                     struct update_scratch *scratch, struct update_outcome *out)
{
    KVS_ASSERT(spec->a >= 0);
    struct slice value = old->value;
    if (operand.size == 0) {
        update_reply_integer(out, (int64_t)value.size);
        return;
    }
    uint64_t offset = (uint64_t)spec->a, end = offset + operand.size;
    if (end > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    size_t bytes = end > value.size ? (size_t)end : value.size;
    update_reply_integer(out, (int64_t)bytes);
    uint8_t *changed = update_scratch_take(scratch, bytes);
    if (changed == NULL)
        return;
    /* Each byte is written once: what stays before, zeros if there is a gap, the new ones, what stays behind. */
    size_t before = offset < value.size ? (size_t)offset : value.size;
    copy(changed, slice_make(value.data, before));
    memset(changed + before, 0, (size_t)offset - before);
    copy(changed + offset, operand);
    if (end < value.size)
        copy(changed + end, slice_make(value.data + end, value.size - (size_t)end));
    update_put(out, slice_make(changed, bytes), old->found ? old->expires_ms : 0);
}
