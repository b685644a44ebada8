/*
 * command_bits.c - commands on bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITFIELD, BITFIELD_RO.
 *
 * Offsets are refused from the byte on that no value may reach. BITCOUNT and BITPOS look at most of their arguments
 * only once they have seen that the key is there, as in Redis: what is wrong travels with the update.
 */
#include "node/command.h"
#include "node/node_internal.h"
#include "node/update_bitfield.h"
#include "node/update_bits.h"

#define TEXT_OFFSET "ERR bit offset is not an integer or out of range"

static const struct slice nothing;

/* A bit's number; as "#3", with `bits` > 0, that of the first bit of the field with this number among fields of so many
 * bits. */
static bool parse_offset(const struct call *call, struct slice text, unsigned bits, int64_t *out)
{
    bool counts_fields = bits > 0 && text.size > 0 && text.data[0] == '#';
    if (counts_fields)
        text = slice_make(text.data + 1, text.size - 1);
    if (!command_integer(text, out) || (counts_fields && __builtin_mul_overflow(*out, bits, out)))
        return false;
    return *out >= 0 && *out / 8 < call->shard->node->value_bytes_max;
}

void command_setbit(struct call *call)
{
    struct update_spec spec = {.run = update_setbit};
    int64_t on;
    if (!parse_offset(call, call->args[2], 0, &spec.a)) {
        call_error(call, TEXT_OFFSET);
    } else if (!command_integer(call->args[3], &on) || on < 0 || on > 1) {
        call_error(call, "ERR bit is not an integer or out of range");
    } else {
        spec.option = on != 0 ? UPDATE_SETBIT_ON : 0;
        command_update(call, call->args[1], &spec, nothing);
    }
}

void command_getbit(struct call *call)
{
    struct update_spec spec = {.run = update_getbit, .flags = UPDATE_LOOKS_ONLY};
    if (parse_offset(call, call->args[2], 0, &spec.a))
        command_update(call, call->args[1], &spec, nothing);
    else
        call_error(call, TEXT_OFFSET);
}

/* ---- ranges ---------------------------------------------------------------------------------------------------- */

static enum update_refusal parse_unit(struct slice text, struct update_spec *spec)
{
    if (command_word_is(text, "bit"))
        spec->option |= UPDATE_BITS_UNIT_BITS;
    else if (!command_word_is(text, "byte"))
        return UPDATE_SYNTAX;
    return UPDATE_ACCEPTED;
}

static enum update_refusal parse_bound(struct slice text, int64_t *bound)
{
    return command_integer(text, bound) ? UPDATE_ACCEPTED : UPDATE_NOT_INTEGER;
}

static void look_at_range(struct call *call, struct update_spec *spec, enum update_refusal refusal)
{
    spec->flags = UPDATE_LOOKS_ONLY;
    spec->option |= (uint8_t)(refusal << UPDATE_BITS_REFUSAL_SHIFT);
    command_update(call, call->args[1], spec, nothing);
}

void command_bitcount(struct call *call)
{
    struct update_spec spec = {.run = update_bitcount};
    enum update_refusal refusal = call->count == 2 ? UPDATE_ACCEPTED : UPDATE_SYNTAX;
    if (call->count == 4 || call->count == 5) {
        int64_t begin, end;
        refusal = parse_bound(call->args[2], &begin);
        if (refusal == UPDATE_ACCEPTED)
            refusal = parse_bound(call->args[3], &end);
        if (refusal == UPDATE_ACCEPTED) {
            spec.option = UPDATE_BITS_IN_RANGE;
            spec.a = begin;
            spec.b = end;
            refusal = call->count == 5 ? parse_unit(call->args[4], &spec) : UPDATE_ACCEPTED;
        }
    }
    look_at_range(call, &spec, refusal);
}

static enum update_refusal parse_bitpos_range(const struct call *call, struct update_spec *spec)
{
    if (call->count == 3)
        return UPDATE_ACCEPTED;
    if (call->count > 6)
        return UPDATE_SYNTAX;
    spec->option |= UPDATE_BITS_IN_RANGE;
    enum update_refusal refusal = parse_bound(call->args[3], &spec->a);
    if (refusal == UPDATE_ACCEPTED && call->count == 6)
        refusal = parse_unit(call->args[5], spec);
    if (call->count == 4)
        spec->option |= UPDATE_BITS_OPEN_ENDED;
    else if (refusal == UPDATE_ACCEPTED)
        refusal = parse_bound(call->args[4], &spec->b);
    return refusal;
}

void command_bitpos(struct call *call)
{
    struct update_spec spec = {.run = update_bitpos};
    int64_t bit;
    if (!command_need_integer(call, call->args[2], &bit))
        return;
    if (bit != 0 && bit != 1) {
        call_error(call, "ERR The bit argument must be 1 or 0.");
        return;
    }
    spec.option = bit != 0 ? UPDATE_BITS_SEEK_ONE : 0;
    look_at_range(call, &spec, parse_bitpos_range(call, &spec));
}

/* ---- BITFIELD -------------------------------------------------------------------------------------------------- */

/* u1 … u63, i1 … i64. */
static bool parse_field_type(struct slice text, struct bitfield_step *step)
{
    int64_t bits;
    if (text.size < 2 || (text.data[0] != 'i' && text.data[0] != 'u'))
        return false;
    step->is_signed = text.data[0] == 'i';
    if (!command_integer(slice_make(text.data + 1, text.size - 1), &bits) || bits < 1 || bits > 63 + step->is_signed)
        return false;
    step->bits = (uint8_t)bits;
    return true;
}

static const char *parse_overflow(struct slice word, uint8_t *overflow)
{
    static const char *const names[] = {
        [BITFIELD_WRAP] = "wrap", [BITFIELD_SATURATE] = "sat", [BITFIELD_FAIL] = "fail"};
    for (uint8_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (command_word_is(word, names[i])) {
            *overflow = i;
            return NULL;
        }
    }
    return "ERR Invalid OVERFLOW type specified";
}

/* Reads one step from args[*at] on, and moves *at behind it. Returns what is wrong with it; NULL: nothing. */
static const char *parse_step(const struct call *call, unsigned *at, struct bitfield_step *step)
{
    static const struct {
        const char *name;
        enum bitfield_action action;
        unsigned words;
    } actions[] = {{"get", BITFIELD_GET, 3}, {"set", BITFIELD_SET, 4}, {"incrby", BITFIELD_ADD, 4}};
    const struct slice *args = call->args + *at;
    size_t i = 0;
    int64_t offset;
    while (i < ARRAY_COUNT(actions) &&
           (!command_word_is(args[0], actions[i].name) || call->count - *at < actions[i].words))
        i++;
    if (i == ARRAY_COUNT(actions))
        return UPDATE_TEXT_SYNTAX;
    step->action = (uint8_t)actions[i].action;
    if (!parse_field_type(args[1], step))
        return "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
    if (!parse_offset(call, args[2], step->bits, &offset))
        return TEXT_OFFSET;
    step->bit = (uint64_t)offset;
    if (step->action != BITFIELD_GET && !command_integer(args[3], &step->number))
        return UPDATE_TEXT_NOT_INTEGER;
    *at += actions[i].words;
    return NULL;
}

/* Reads all steps; NULL, or what is wrong. */
static const char *parse_steps(const struct call *call, struct text *steps, bool *writes)
{
    uint8_t overflow = BITFIELD_WRAP;
    const char *wrong = NULL;
    *writes = false;
    for (unsigned at = 2; wrong == NULL && at < call->count;) {
        if (command_word_is(call->args[at], "overflow") && at + 1 < call->count) {
            wrong = parse_overflow(call->args[at + 1], &overflow);
            at += 2;
            continue;
        }
        struct bitfield_step step = {.overflow = overflow};
        wrong = parse_step(call, &at, &step);
        *writes |= step.action != BITFIELD_GET;
        text_add(steps, slice_make(&step, sizeof(step)));
    }
    return wrong;
}

static void bitfield(struct call *call, bool read_only)
{
    struct update_spec spec = {.run = update_bitfield};
    struct text steps = {0};
    bool writes;
    const char *wrong = parse_steps(call, &steps, &writes);
    if (wrong == NULL && read_only && writes)
        wrong = "ERR BITFIELD_RO only supports the GET subcommand";
    else if (wrong == NULL && steps.failed)
        wrong = "OOM kvs-node: no memory for the request";
    spec.flags = writes ? 0 : UPDATE_LOOKS_ONLY;
    if (wrong != NULL)
        call_error(call, "%s", wrong);
    else
        command_update(call, call->args[1], &spec, slice_make(steps.data, steps.size));
    text_deinit(&steps);
}

void command_bitfield(struct call *call)
{
    bitfield(call, false);
}

void command_bitfield_ro(struct call *call)
{
    bitfield(call, true);
}
