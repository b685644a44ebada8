/*
 * update_bits.c - bits of values that may have half a gigabyte: counted and sought by words.
 *
 *   range in bits       begin              end
 *                         |                 |
 *   bytes        [........][........][........]
 *                 ^^^^^^^^                ^^^^ masked away: first_mask, last_mask
 *
 * A range in bytes is one in bits whose masks leave everything. Failures: the arguments are wrong and the key is there;
 * SETBIT would make the value too long; no scratch.
 */
#include "node/update_bits.h"

#include "base/assert.h"
#include "node/update_reply.h"

#define WORD_BYTES sizeof(uint64_t)

static uint8_t mask_of(int64_t bit)
{
    return (uint8_t)(0x80u >> (bit & 7));
}

static bool bit_at(struct slice value, int64_t bit)
{
    uint64_t byte = (uint64_t)bit / 8;
    return byte < value.size && (value.data[byte] & mask_of(bit)) != 0;
}

void update_setbit(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    KVS_ASSERT(spec->a >= 0);
    uint64_t byte = (uint64_t)spec->a / 8;
    bool on = (spec->option & UPDATE_SETBIT_ON) != 0, was_on = bit_at(old->value, spec->a);
    if (byte >= spec->value_bytes_max) {
        update_reply_error(out, UPDATE_TEXT_TOO_LONG);
        return;
    }
    update_reply_integer(out, was_on);
    if (byte < old->value.size && was_on == on)
        return;
    size_t bytes = byte < old->value.size ? old->value.size : (size_t)byte + 1;
    uint8_t *value = update_scratch_take(scratch, bytes);
    if (value == NULL)
        return;
    if (old->value.size > 0)
        memcpy(value, old->value.data, old->value.size);
    memset(value + old->value.size, 0, bytes - old->value.size);
    value[byte] = (uint8_t)(on ? value[byte] | mask_of(spec->a) : value[byte] & ~mask_of(spec->a));
    update_put(out, slice_make(value, bytes), old->found ? old->expires_ms : 0);
}

void update_getbit(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    update_reply_integer(out, bit_at(old->value, spec->a));
}

/* ---- ranges ---------------------------------------------------------------------------------------------------- */

struct bit_range {
    const uint8_t *bytes; /* the bytes in which the range lies */
    size_t size;          /* at least 1 */
    int64_t first_bit;    /* of them, in the value */
    uint8_t first_mask;   /* the bits of the first byte that lie in the range … */
    uint8_t last_mask;    /* … and of the last; with one byte, both count */
};

/* False: it is empty. */
static bool find_range(const struct update_spec *spec, struct slice value, struct bit_range *out)
{
    int64_t bytes = (int64_t)value.size, begin = 0, end = bytes - 1;
    *out = (struct bit_range){.first_mask = 0xff, .last_mask = 0xff};
    if ((spec->option & UPDATE_BITS_IN_RANGE) != 0) {
        bool in_bits = (spec->option & UPDATE_BITS_UNIT_BITS) != 0;
        begin = spec->a;
        end = (spec->option & UPDATE_BITS_OPEN_ENDED) != 0 ? INT64_MAX : spec->b;
        if (!update_range(&begin, &end, in_bits ? bytes * 8 : bytes))
            return false;
        if (in_bits) {
            out->first_mask = (uint8_t)(0xff >> (begin & 7));
            out->last_mask = (uint8_t)(0xff << (7 - (end & 7)));
            begin /= 8;
            end /= 8;
        }
    }
    if (begin > end)
        return false;
    out->bytes = value.data + begin;
    out->size = (size_t)(end - begin + 1);
    out->first_bit = begin * 8;
    if (out->size == 1)
        out->first_mask = out->last_mask = out->first_mask & out->last_mask;
    return true;
}

static uint64_t load_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, WORD_BYTES);
    return word;
}

static int64_t count_ones(const uint8_t *at, size_t size)
{
    int64_t count = 0;
    for (; size >= WORD_BYTES; at += WORD_BYTES, size -= WORD_BYTES)
        count += __builtin_popcountll(load_word(at));
    for (; size > 0; at++, size--)
        count += __builtin_popcount(*at);
    return count;
}

void update_bitcount(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                     struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    enum update_refusal refusal = (enum update_refusal)(spec->option >> UPDATE_BITS_REFUSAL_SHIFT);
    bool in_range = (spec->option & UPDATE_BITS_IN_RANGE) != 0;
    bool backwards = in_range && spec->a < 0 && spec->b < 0 && spec->a > spec->b;
    struct bit_range range;
    update_reply_integer(out, 0);
    if (!old->found || backwards)
        return;
    if (refusal != UPDATE_ACCEPTED) {
        update_refuse(out, refusal);
        return;
    }
    if (!find_range(spec, old->value, &range))
        return;
    out->integer = __builtin_popcount(range.bytes[0] & range.first_mask);
    if (range.size > 1)
        out->integer += count_ones(range.bytes + 1, range.size - 2) +
                        __builtin_popcount(range.bytes[range.size - 1] & range.last_mask);
}

/* Bits that are sought are ones in `flipped` ^ the byte or word: 0 when ones are sought, all ones when zeros are. */
static int64_t first_in_byte(unsigned byte)
{
    return __builtin_clz(byte) - (int)(8 * (sizeof(unsigned) - 1));
}

/* The first one of `bytes` ^ flipped, from bit `at` on; -1: there is none. */
static int64_t first_in_bytes(const uint8_t *bytes, size_t size, uint64_t flipped, int64_t at)
{
    for (; size >= WORD_BYTES; bytes += WORD_BYTES, size -= WORD_BYTES, at += 64) {
        uint64_t word = load_word(bytes) ^ flipped;
        if (word != 0)
            return at + __builtin_clzll(__builtin_bswap64(word));
    }
    for (; size > 0; bytes++, size--, at += 8) {
        unsigned byte = *bytes ^ (flipped & 0xff);
        if (byte != 0)
            return at + first_in_byte(byte);
    }
    return -1;
}

static int64_t first_in_range(const struct bit_range *range, bool one)
{
    uint64_t flipped = one ? 0 : UINT64_MAX;
    unsigned edge = (range->bytes[0] ^ (flipped & 0xff)) & range->first_mask;
    if (edge != 0)
        return range->first_bit + first_in_byte(edge);
    if (range->size == 1)
        return -1;
    int64_t inner = first_in_bytes(range->bytes + 1, range->size - 2, flipped, range->first_bit + 8);
    if (inner >= 0)
        return inner;
    edge = (range->bytes[range->size - 1] ^ (flipped & 0xff)) & range->last_mask;
    return edge != 0 ? range->first_bit + (int64_t)(range->size - 1) * 8 + first_in_byte(edge) : -1;
}

void update_bitpos(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    enum update_refusal refusal = (enum update_refusal)(spec->option >> UPDATE_BITS_REFUSAL_SHIFT);
    bool one = (spec->option & UPDATE_BITS_SEEK_ONE) != 0;
    unsigned bounds = spec->option & (UPDATE_BITS_IN_RANGE | UPDATE_BITS_OPEN_ENDED);
    struct bit_range range;
    if (!old->found) {
        update_reply_integer(out, one ? -1 : 0); /* zeros without end */
        return;
    }
    if (refusal != UPDATE_ACCEPTED) {
        update_refuse(out, refusal);
        return;
    }
    update_reply_integer(out, -1);
    if (!find_range(spec, old->value, &range))
        return;
    out->integer = first_in_range(&range, one);
    /* Where nobody has said where to end, the zeros behind the value count. */
    if (out->integer < 0 && !one && bounds != UPDATE_BITS_IN_RANGE)
        out->integer = (int64_t)old->value.size * 8;
}
