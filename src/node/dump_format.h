/*
 * dump_format.h - what DUMP replies and RESTORE takes: a value in the form of a Redis snapshot (RDB), with a version
 * and a checksum behind it.
 *
 *   ┌──────┬────────────────────────────────┬─────────┬──────────┐   type     0: a string, the only one there is here
 *   │ type │ the string, in one of its forms│ version │ checksum │   version  of the format, 16 bits, little-endian
 *   │ 1    │                                │ 2       │ 8        │   checksum crc64 of all before it, little-endian
 *   └──────┴────────────────────────────────┴─────────┴──────────┘
 *
 *   first byte of a string (or length)
 *   00llllll            a length of 6 bits; then so many bytes
 *   01llllll l          of 14 bits, high bits first
 *   10000000 llll       of 32 bits, high byte first
 *   10000001 llllllll   of 64 bits, high byte first
 *   110000ff …          f = 0, 1, 2: an integer of 1, 2, 4 bytes, little-endian, that stands for its decimal
 *   11000011 …          LZF: length packed, length unpacked (both as above), packed bytes
 *
 * Packed bytes are runs: 000lllll, then l + 1 bytes as they are; or lllooooo (with 7 for l one more byte to add to it)
 * and a byte with the lower bits of o: l + 2 bytes again that lie o + 1 back. Source: M. Lehmann, LibLZF.
 *
 * Pure; any thread. Nothing that is read here is trusted.
 */
#ifndef KVS_NODE_DUMP_FORMAT_H
#define KVS_NODE_DUMP_FORMAT_H

#include "base/bytes.h"

/* That of Redis 7.2. Payloads of later ones are refused. */
#define DUMP_VERSION 11u

#define DUMP_OVERHEAD_BYTES_MAX 20u /* what a payload has besides the value, at most */
#define DUMP_DECIMAL_BYTES_MAX  12u /* the text of an integer of 4 bytes; snprintf's 0 */

/* Writes the payload at `out`, which has room for it, and returns its size. It is not packed. */
size_t dump_write(uint8_t *out, struct slice value);

/* The bytes of the string in that payload: without type, version and checksum. */
size_t dump_string_bytes(struct slice value);

/* True when version and checksum are right. */
bool dump_verify(struct slice payload);

enum dump_form {
    DUMP_PLAIN,   /* `bytes` is the value */
    DUMP_INTEGER, /* `integer` is, as a decimal */
    DUMP_PACKED,  /* `bytes` has to be unpacked, into value_bytes bytes */
    DUMP_BAD,     /* it is not a string, or not whole */
};
struct dump_string {
    enum dump_form form;
    struct slice bytes; /* in the payload */
    int64_t integer;
    uint64_t value_bytes; /* not with DUMP_INTEGER */
};
/* Takes apart a payload that was verified. What is behind the string is not looked at. */
struct dump_string dump_read(struct slice payload);
/* Unpacks exactly out_bytes bytes; false: that is not what is in there. */
bool dump_unpack(struct slice packed, uint8_t *out, size_t out_bytes);

#endif
