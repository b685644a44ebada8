/*
 * dump_format.c - payloads of DUMP and RESTORE, byte by byte.
 *
 * Happy path: short decimals become integers, everything else stands there as it is. Failures: a payload that ends
 * early or claims what cannot be is DUMP_BAD; dump_unpack says false. Lengths are compared with what is left before
 * anything is read.
 */
#include "node/dump_format.h"

#include "base/assert.h"
#include "node/command.h"
#include "node/crc64.h"

#define TYPE_STRING         0u
#define FOOTER_BYTES        10u
#define CHECKSUM_BYTES      8u
#define INTEGER_CHARS_MAX   11u /* -2147483648; Redis does not try longer ones */
#define LENGTH_6_BITS       0u
#define LENGTH_14_BITS      1u
#define LENGTH_IN_BYTES     2u
#define LENGTH_IS_FORM      3u
#define BYTE_LENGTH_4       0x80u
#define BYTE_LENGTH_8       0x81u
#define BYTE_FORM           0xc0u /* and the form in the lower bits */
#define FORM_LZF            3u
#define LITERAL_MAX         32u
#define LENGTH_IN_NEXT_BYTE 7u
#define RUN_BYTES_MAX       264u /* that one byte can stand for: the longest run there is */

/* ---- writing --------------------------------------------------------------------------------------------------- */

static size_t write_little_endian(uint8_t *out, uint64_t number, size_t bytes)
{
    memcpy(out, &number, bytes);
    return bytes;
}

static size_t write_big_endian(uint8_t *out, uint64_t number, size_t bytes)
{
    for (size_t i = bytes; i-- > 0; number >>= 8)
        out[i] = (uint8_t)number;
    return bytes;
}

static size_t write_length(uint8_t *out, uint64_t length)
{
    if (length < 1u << 6) {
        out[0] = (uint8_t)length;
        return 1;
    }
    if (length < 1u << 14)
        return write_big_endian(out, length | 1u << 14, 2);
    bool short_one = length <= UINT32_MAX;
    out[0] = short_one ? BYTE_LENGTH_4 : BYTE_LENGTH_8;
    return 1 + write_big_endian(out + 1, length, short_one ? 4 : 8);
}

/* 0: the value is not an integer of at most 4 bytes. */
static size_t write_integer(uint8_t *out, struct slice value)
{
    int64_t number;
    if (value.size > INTEGER_CHARS_MAX || !command_integer(value, &number))
        return 0;
    if (number != (int32_t)number)
        return 0;
    unsigned form = number == (int8_t)number ? 0 : number == (int16_t)number ? 1 : 2;
    out[0] = (uint8_t)(BYTE_FORM | form);
    return 1 + write_little_endian(out + 1, (uint64_t)number, 1u << form);
}

size_t dump_write(uint8_t *out, struct slice value)
{
    size_t size = 0;
    out[size++] = TYPE_STRING;
    size_t integer_bytes = write_integer(out + size, value);
    size += integer_bytes;
    if (integer_bytes == 0) {
        size += write_length(out + size, value.size);
        if (value.size > 0)
            memcpy(out + size, value.data, value.size);
        size += value.size;
    }
    size += write_little_endian(out + size, DUMP_VERSION, FOOTER_BYTES - CHECKSUM_BYTES);
    size += write_little_endian(out + size, crc64(0, out, size), CHECKSUM_BYTES);
    KVS_ASSERT(size <= value.size + DUMP_OVERHEAD_BYTES_MAX);
    return size;
}

size_t dump_string_bytes(struct slice value)
{
    uint8_t head[DUMP_OVERHEAD_BYTES_MAX];
    const size_t integer_bytes = write_integer(head, value);
    return integer_bytes > 0 ? integer_bytes : write_length(head, value.size) + value.size;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

bool dump_verify(struct slice payload)
{
    if (payload.size < FOOTER_BYTES)
        return false;
    const uint8_t *footer = payload.data + payload.size - FOOTER_BYTES;
    uint64_t checksum;
    memcpy(&checksum, footer + FOOTER_BYTES - CHECKSUM_BYTES, CHECKSUM_BYTES);
    return (footer[0] | footer[1] << 8) <= (int)DUMP_VERSION &&
           checksum == crc64(0, payload.data, payload.size - CHECKSUM_BYTES);
}

/* Takes bytes off the front; false: there are not so many. */
static bool take(struct slice *from, size_t bytes, const uint8_t **taken)
{
    if (from->size < bytes)
        return false;
    *taken = from->data;
    *from = slice_make(from->data + bytes, from->size - bytes);
    return true;
}

static uint64_t read_big_endian(const uint8_t *at, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | at[i];
    return number;
}

/* A length; or, with *is_form, the form of what follows. */
static bool read_length(struct slice *from, uint64_t *length, bool *is_form)
{
    const uint8_t *first, *rest;
    *is_form = false;
    if (!take(from, 1, &first))
        return false;
    *length = *first & 0x3f;
    switch (*first >> 6) {
    case LENGTH_6_BITS:
        return true;
    case LENGTH_14_BITS:
        if (!take(from, 1, &rest))
            return false;
        *length = *length << 8 | *rest;
        return true;
    case LENGTH_IS_FORM:
        *is_form = true;
        return true;
    default:
        break;
    }
    size_t bytes = *first == BYTE_LENGTH_4 ? 4 : 8;
    if ((*first != BYTE_LENGTH_4 && *first != BYTE_LENGTH_8) || !take(from, bytes, &rest))
        return false;
    *length = read_big_endian(rest, bytes);
    return true;
}

static bool read_integer(struct slice from, unsigned form, int64_t *number)
{
    const uint8_t *at;
    uint32_t bits = 0;
    if (!take(&from, 1u << form, &at))
        return false;
    memcpy(&bits, at, 1u << form);
    *number = form == 0 ? (int8_t)bits : form == 1 ? (int16_t)bits : (int32_t)bits;
    return true;
}

struct dump_string dump_read(struct slice payload)
{
    struct dump_string string = {.form = DUMP_BAD};
    KVS_ASSERT(payload.size >= FOOTER_BYTES);
    struct slice left = slice_make(payload.data, payload.size - FOOTER_BYTES);
    const uint8_t *at;
    uint64_t length, packed_bytes;
    bool is_form, nested;
    if (!take(&left, 1, &at) || *at != TYPE_STRING || !read_length(&left, &length, &is_form))
        return string;
    if (!is_form) {
        if (length > left.size)
            return string;
        string.form = DUMP_PLAIN;
        string.bytes = slice_make(left.data, (size_t)length);
        string.value_bytes = length;
    } else if (length < FORM_LZF) {
        if (read_integer(left, (unsigned)length, &string.integer))
            string.form = DUMP_INTEGER;
    } else if (length == FORM_LZF) {
        if (!read_length(&left, &packed_bytes, &nested) || nested ||
            !read_length(&left, &string.value_bytes, &nested) || nested || packed_bytes > left.size ||
            string.value_bytes / RUN_BYTES_MAX > packed_bytes)
            return string;
        string.form = DUMP_PACKED;
        string.bytes = slice_make(left.data, (size_t)packed_bytes);
    }
    return string;
}

/* A run that is there already: it may overlap what it is copied to, and then repeats itself. */
static void repeat(uint8_t *to, size_t back, size_t length)
{
    const uint8_t *from = to - back;
    for (size_t i = 0; i < length; i++)
        to[i] = from[i];
}

bool dump_unpack(struct slice packed, uint8_t *out, size_t out_bytes)
{
    size_t size = 0;
    const uint8_t *at;
    while (packed.size > 0) {
        take(&packed, 1, &at);
        size_t length = *at >> 5, back = (size_t)(*at & 0x1f) << 8;
        if (*at < LITERAL_MAX) {
            length = *at + 1u;
            if (length > out_bytes - size || !take(&packed, length, &at))
                return false;
            memcpy(out + size, at, length);
        } else {
            if (length == LENGTH_IN_NEXT_BYTE) {
                if (!take(&packed, 1, &at))
                    return false;
                length += *at;
            }
            if (!take(&packed, 1, &at))
                return false;
            back += *at + 1u;
            length += 2;
            if (length > out_bytes - size || back > size)
                return false;
            repeat(out + size, back, length);
        }
        size += length;
    }
    return size == out_bytes;
}
