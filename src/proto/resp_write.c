/*
 * resp_write.c - the encoder of RESP: replies of a server, requests of a client.
 *
 * Happy path: every function writes at `out` and says how much; nothing is counted first, as the caller knows that a
 * fixed part fits into RESP_HEADER_BYTES_MAX.
 *
 * Failure modes: none. Texts that would break the framing of an error line are made harmless.
 */
#include "proto/resp.h"

static size_t write_crlf(uint8_t *out)
{
    out[0] = '\r';
    out[1] = '\n';
    return 2;
}

static size_t digit_count(uint64_t value)
{
    size_t count = 1;
    for (uint64_t limit = 10; count < 20 && value >= limit; limit *= 10)
        count++;
    return count;
}

static size_t write_digits(uint8_t *out, uint64_t value)
{
    const size_t count = digit_count(value);
    for (size_t i = count; i > 0; i--, value /= 10)
        out[i - 1] = (uint8_t)('0' + value % 10);
    return count;
}

/* "*3\r\n", "$16\r\n" */
static size_t write_header(uint8_t *out, char type, uint64_t number)
{
    out[0] = (uint8_t)type;
    const size_t size = 1 + write_digits(out + 1, number);
    return size + write_crlf(out + size);
}

static size_t header_bytes(uint64_t number)
{
    return 1 + digit_count(number) + 2;
}

size_t resp_write_simple(uint8_t *out, const char *text)
{
    const struct slice bytes = slice_text(text);
    out[0] = '+';
    memcpy(out + 1, bytes.data, bytes.size);
    return 1 + bytes.size + write_crlf(out + 1 + bytes.size);
}

size_t resp_write_error(uint8_t *out, const char *text)
{
    size_t size = 0;
    out[size++] = '-';
    for (; *text != '\0'; text++)
        out[size++] = *text == '\r' || *text == '\n' ? ' ' : (uint8_t)*text;
    return size + write_crlf(out + size);
}

size_t resp_write_integer(uint8_t *out, int64_t value)
{
    size_t size = 0;
    out[size++] = ':';
    if (value < 0)
        out[size++] = '-';
    size += write_digits(out + size, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    return size + write_crlf(out + size);
}

size_t resp_write_bulk_header(uint8_t *out, size_t size)
{
    return write_header(out, '$', size);
}

size_t resp_write_bulk(uint8_t *out, struct slice bytes)
{
    size_t size = resp_write_bulk_header(out, bytes.size);
    if (bytes.size > 0)
        memcpy(out + size, bytes.data, bytes.size);
    size += bytes.size;
    return size + write_crlf(out + size);
}

size_t resp_bulk_bytes(size_t size)
{
    return header_bytes(size) + size + 2;
}

size_t resp_write_array_header(uint8_t *out, size_t count)
{
    return write_header(out, '*', count);
}

size_t resp_write_map_header(uint8_t *out, size_t pairs, int version)
{
    return version >= 3 ? write_header(out, '%', pairs) : write_header(out, '*', 2 * pairs);
}

size_t resp_write_null(uint8_t *out, int version)
{
    size_t size = 0;
    if (version >= 3) {
        out[size++] = '_';
    } else {
        out[size++] = '$';
        out[size++] = '-';
        out[size++] = '1';
    }
    return size + write_crlf(out + size);
}

size_t resp_write_request(uint8_t *out, const struct slice *args, unsigned count)
{
    size_t size = out != NULL ? resp_write_array_header(out, count) : header_bytes(count);
    for (unsigned i = 0; i < count; i++)
        size += out != NULL ? resp_write_bulk(out + size, args[i]) : resp_bulk_bytes(args[i].size);
    return size;
}
