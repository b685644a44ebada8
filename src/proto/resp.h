/*
 * resp.h - RESP2 and RESP3 (the Redis protocol): request decoder, reply encoder, reply scanner.
 *
 * Pure: no I/O, no allocation, no clock; any thread, one at a time per parser. Requests are parsed in place: arguments
 * are slices of the caller's bytes.
 */
#ifndef KVS_PROTO_RESP_H
#define KVS_PROTO_RESP_H

#include "base/bytes.h"

/* ---- requests -------------------------------------------------------------------------------------------------- */

struct resp_limits {
    uint32_t args_max;         /* of one request */
    uint32_t arg_bytes_max;    /* of one argument */
    uint32_t inline_bytes_max; /* of an inline command line, and of any length line; at least 32; Redis: 64 KiB */
};

/* An argument's place, relative to the first byte of its request. */
struct resp_arg {
    uint32_t offset;
    uint32_t size;
};

enum resp_status {
    RESP_REQUEST, /* a whole request: parser->argc, parser->args, parser->size are set */
    RESP_EMPTY,   /* an empty line or an empty array: parser->size bytes to skip, no reply (as Redis) */
    RESP_MORE,    /* not all of it is there yet; parser->wanted says how many bytes would be enough to get further */
    RESP_GROW,    /* parser->argc_total arguments are announced and args_capacity is too small: give a larger array
                     (copy the first argc entries), then parse again. Only when argc_total > args_capacity. */
    RESP_ERROR, /* not RESP: parser->error is the text after "-ERR Protocol error: "; the connection is to be closed */
};

struct resp_parser {
    struct resp_limits limits;
    struct resp_arg *args; /* the caller's */
    uint32_t args_capacity;

    uint32_t argc;       /* arguments complete so far */
    uint32_t argc_total; /* arguments announced */
    uint64_t size;       /* bytes of the request parsed so far; of all of it with RESP_REQUEST */
    uint64_t wanted;     /* with RESP_MORE: bytes from the request's start that would be enough to get further */
    char error[96];
    uint64_t cut_bytes; /* how long the argument was that resp_parser_cut has cut; 0 = none was */
    int64_t bulk_bytes; /* private: length announced for the argument being read, -1 = its length line comes next */
    uint64_t scanned;   /* private: bytes of the line that begins at `size` known to hold no end of it */
    uint8_t phase;      /* private */
};

void resp_parser_init(struct resp_parser *parser, const struct resp_limits *limits, struct resp_arg *args,
                      uint32_t args_capacity);

/*
 * Parses one request at the start of data. After RESP_MORE call again with the same bytes and more behind them (they
 * may have moved): nothing is scanned twice, whatever the fragmentation. After RESP_REQUEST or RESP_EMPTY drop
 * parser->size bytes and call resp_parser_next before the next request. Handles arrays of bulk strings and inline
 * commands (split at blanks, with Redis's quotes and escapes; an escaped argument is decoded in place, which is why
 * data is not const).
 */
enum resp_status resp_parse(struct resp_parser *parser, uint8_t *data, size_t size);

void resp_parser_next(struct resp_parser *parser);

/* After RESP_MORE: the length of the argument that is not all there yet; 0 when it waits for anything else. */
uint64_t resp_parser_awaits(const struct resp_parser *parser);
/* … and that is not wanted: what there is of it among the `size` bytes so far counts as all of it. Returns how many of
 * the bytes that come next are to be left out; the parser goes on with what is behind them. */
uint64_t resp_parser_cut(struct resp_parser *parser, size_t size);

static inline struct slice resp_arg_slice(const struct resp_parser *parser, const uint8_t *data, uint32_t index)
{
    return slice_make(data + parser->args[index].offset, parser->args[index].size);
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

#define RESP_HEADER_BYTES_MAX 32 /* enough for any of the fixed parts below */

/* Each writes at `out`, which has room, and returns the bytes written. A bulk string is its header, the bytes, "\r\n".
 */
size_t resp_write_simple(uint8_t *out, const char *text);   /* +text */
size_t resp_write_error(uint8_t *out, const char *text);    /* -text: code first, "ERR …"; CR and LF become blanks */
size_t resp_write_integer(uint8_t *out, int64_t value);     /* :value */
size_t resp_write_bulk_header(uint8_t *out, size_t size);   /* $size */
size_t resp_write_bulk(uint8_t *out, struct slice bytes);   /* header, bytes, CR LF */
size_t resp_write_array_header(uint8_t *out, size_t count); /* *count */
size_t resp_write_map_header(uint8_t *out, size_t pairs, int version); /* %pairs in RESP3, *2·pairs in RESP2 */
size_t resp_write_null(uint8_t *out, int version);                     /* _ in RESP3, $-1 in RESP2 */

/* Bytes that resp_write_bulk writes for a value of this size. */
size_t resp_bulk_bytes(size_t size);

/* ---- replies, from the client's side --------------------------------------------------------------------------- */

enum resp_reply_type {
    RESP_REPLY_SIMPLE,
    RESP_REPLY_ERROR,
    RESP_REPLY_INTEGER,
    RESP_REPLY_BULK,
    RESP_REPLY_NULL,
    RESP_REPLY_OTHER
};

struct resp_reply {
    enum resp_reply_type type; /* OTHER: an aggregate, whole in `text` with its header */
    struct slice text;         /* the payload, in the caller's bytes */
    int64_t integer;
    size_t size; /* bytes of the whole reply */
};

/* Scans one reply at the start of data: RESP_REQUEST when it is whole, RESP_MORE, or RESP_ERROR when it is not RESP. */
enum resp_status resp_reply_parse(const uint8_t *data, size_t size, struct resp_reply *reply);

/* Encodes a request as an array of bulk strings; returns its size. With out == NULL only counts. */
size_t resp_write_request(uint8_t *out, const struct slice *args, unsigned count);

#endif
