/*
 * update_bitfield.c - BITFIELD's steps, one after the other.
 *
 * Happy path: if a step may write, the value is copied into the scratch, with zeros up to the last bit that a step may
 * write (even if none does in the end, as in Redis). Steps read and write there; the reply is written beside it. If
 * nothing has changed, nothing is put.
 *
 * Arithmetic is done in 128 bits: no sum of a field and a number overflows there, and what the field does not hold is
 * wrapped, saturated or refused afterwards.
 *
 * Failures: the value would become too long; no scratch.
 */
#include "node/update_bitfield.h"

#include "base/assert.h"
#include "node/update_reply.h"
#include "proto/resp.h"

#define FIELD_BYTES_MAX 9u /* 64 bits that begin anywhere */

typedef __int128 wide;

static struct bitfield_step step_at(struct slice operand, size_t i)
{
    struct bitfield_step step;
    memcpy(&step, operand.data + i * sizeof(step), sizeof(step));
    return step;
}

/* ---- fields ---------------------------------------------------------------------------------------------------- */

/* How far a field's lowest bit is from the lowest of the FIELD_BYTES_MAX bytes that begin with its first. */
static unsigned shift_of(const struct bitfield_step *step)
{
    return 8 * FIELD_BYTES_MAX - (unsigned)(step->bit & 7) - step->bits;
}

static uint64_t mask_of(const struct bitfield_step *step)
{
    return UINT64_MAX >> (64 - step->bits);
}

/* The bytes around a field; those that the value does not have are zero. */
static unsigned __int128 load_around(struct slice value, const struct bitfield_step *step)
{
    unsigned __int128 bytes = 0;
    for (uint64_t i = 0, first = step->bit / 8; i < FIELD_BYTES_MAX; i++)
        bytes = bytes << 8 | (first + i < value.size ? value.data[first + i] : 0);
    return bytes;
}

static wide load_field(struct slice value, const struct bitfield_step *step)
{
    uint64_t field = (uint64_t)(load_around(value, step) >> shift_of(step)) & mask_of(step);
    bool negative = step->is_signed && field >> (step->bits - 1) != 0;
    return negative ? (wide)field - ((wide)mask_of(step) + 1) : (wide)field;
}

/* The field lies inside the value. */
static void store_field(uint8_t *value, size_t size, const struct bitfield_step *step, wide number)
{
    unsigned shift = shift_of(step);
    unsigned __int128 bytes = load_around(slice_make(value, size), step);
    bytes &= ~((unsigned __int128)mask_of(step) << shift);
    bytes |= (unsigned __int128)((uint64_t)number & mask_of(step)) << shift;
    for (uint64_t i = FIELD_BYTES_MAX, first = step->bit / 8; i-- > 0; bytes >>= 8) {
        if (first + i < size)
            value[first + i] = (uint8_t)bytes;
    }
}

/* Brings a number into the field's bounds; false: it is out of them, and that is to fail. */
static bool fit(const struct bitfield_step *step, wide *number)
{
    wide least = step->is_signed ? -((wide)1 << (step->bits - 1)) : 0;
    wide most = least + (wide)mask_of(step);
    if (*number >= least && *number <= most)
        return true;
    switch ((enum bitfield_overflow)step->overflow) {
    case BITFIELD_WRAP:
        *number = (wide)((uint64_t)*number & mask_of(step));
        if (*number > most)
            *number -= (wide)mask_of(step) + 1;
        return true;
    case BITFIELD_SATURATE:
        *number = *number < least ? least : most;
        return true;
    case BITFIELD_FAIL:
        break;
    }
    return false;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

struct bitfield_run {
    uint8_t *value; /* NULL: no step writes */
    size_t size;
    bool changed;
    uint8_t resp_version;
    uint8_t *reply;
    size_t reply_bytes;
};

static void write_step(struct bitfield_run *run, const struct bitfield_step *step)
{
    wide before = load_field(slice_make(run->value, run->size), step);
    wide after = step->number;
    if (step->action == BITFIELD_ADD)
        after += before;
    else if (!step->is_signed)
        after = (wide)(uint64_t)step->number; /* for an unsigned field a negative number is a very large one */
    uint8_t *reply = run->reply + run->reply_bytes;
    if (!fit(step, &after)) {
        run->reply_bytes += resp_write_null(reply, run->resp_version);
        return;
    }
    if (after != before) {
        store_field(run->value, run->size, step, after);
        run->changed = true;
    }
    run->reply_bytes += resp_write_integer(reply, (int64_t)(step->action == BITFIELD_SET ? before : after));
}

static void read_step(struct bitfield_run *run, struct slice old_value, const struct bitfield_step *step)
{
    struct slice value = run->value != NULL ? slice_make(run->value, run->size) : old_value;
    run->reply_bytes += resp_write_integer(run->reply + run->reply_bytes, (int64_t)load_field(value, step));
}

/* How long the value must be for the steps that write; 0: none does. */
static uint64_t bytes_written(struct slice operand, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct bitfield_step step = step_at(operand, i);
        uint64_t end = (step.bit + step.bits - 1) / 8 + 1;
        KVS_ASSERT(step.bits >= 1 && step.bits <= 64);
        if (step.action != BITFIELD_GET && end > bytes)
            bytes = end;
    }
    return bytes;
}

void update_bitfield(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                     struct update_scratch *scratch, struct update_outcome *out)
{
    size_t count = operand.size / sizeof(struct bitfield_step);
    uint64_t needed = bytes_written(operand, count);
    struct bitfield_run run = {.resp_version = spec->resp_version};
    if (needed > spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    run.reply = update_scratch_take(scratch, (count + 1) * RESP_HEADER_BYTES_MAX);
    if (run.reply == NULL)
        return;
    if (needed > 0) {
        run.size = needed > old->value.size ? (size_t)needed : old->value.size;
        run.value = update_scratch_take(scratch, run.size);
        if (run.value == NULL)
            return;
        if (old->value.size > 0)
            memcpy(run.value, old->value.data, old->value.size);
        memset(run.value + old->value.size, 0, run.size - old->value.size);
        run.changed = run.size > old->value.size;
    }
    run.reply_bytes = resp_write_array_header(run.reply, count);
    for (size_t i = 0; i < count; i++) {
        struct bitfield_step step = step_at(operand, i);
        if (step.action == BITFIELD_GET)
            read_step(&run, old->value, &step);
        else
            write_step(&run, &step);
    }
    if (run.changed)
        update_put(out, slice_make(run.value, run.size), old->found ? old->expires_ms : 0);
    update_reply_bytes(out, UPDATE_RESP, slice_make(run.reply, run.reply_bytes));
}
