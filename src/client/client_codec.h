/*
 * client_codec.h - requests to bytes and bytes to replies, for either protocol, with the table of what is under way.
 *
 * Pure but for the table: no I/O, no clock; all memory is taken by client_codec_init. A codec belongs to one connection
 * and is used by one thread at a time.
 *
 * The table remembers a tag for every request whose reply has not come. RESP replies come in request order, so there it
 * is a queue; binary replies name their request, so there it is an array with a stack of free places. An id is a place
 * and a generation: a reply that was never asked for, or comes twice, is found out.
 */
#ifndef KVS_CLIENT_CLIENT_CODEC_H
#define KVS_CLIENT_CLIENT_CODEC_H

#include "base/bytes.h"
#include "base/error.h"

enum client_protocol { CLIENT_BINARY, CLIENT_RESP };

enum client_op { CLIENT_GET, CLIENT_SET, CLIENT_REMOVE, CLIENT_PING, CLIENT_STATS, CLIENT_BACKUP, CLIENT_AUTH };

struct client_request {
    enum client_op op;
    bool relaxed;       /* SET and REMOVE, binary protocol only: may be acknowledged before it is durable */
    struct slice key;   /* GET, SET, REMOVE; STATS: the section wanted, or empty for all;
                           BACKUP: its name, or empty; AUTH: the user, or empty for the default one */
    struct slice value; /* SET; AUTH: the password */
    uint64_t tag;       /* the caller's; comes back with the reply */
};

struct client_reply {
    /*
     * OK; NOT_FOUND (GET and REMOVE of a missing key); or what the server said: INVALID, TOO_LARGE, NO_SPACE, FAILED,
     * CORRUPT, VERSION, AGAIN (the server is too busy), ACCESS (no password, a wrong one, or no right to it), REMOTE
     * (any error of a RESP server).
     */
    enum kvs_err error;
    enum client_op op;
    struct slice value; /* GET: the value; STATS: the text; BACKUP: its name; with an error: the server's message. Good
                           during the callback. */
    uint64_t seen_ns;   /* ring_now_ns when the bytes that completed this reply were taken from the ring */
};

struct client_pending {
    uint64_t tag;
    uint32_t generation;
    uint8_t op;
    bool active;
};

struct client_codec {
    enum client_protocol protocol;
    uint32_t requests_max; /* a power of two */
    uint32_t reply_bytes_max;
    uint32_t count; /* requests under way */
    uint32_t head;  /* RESP: place of the oldest request, modulo requests_max */
    struct client_pending *pending;
    uint32_t *free_places; /* binary: stack of the places not in use, requests_max - count of them */
};

/* `requests_max` is rounded up to a power of two. reply_bytes_max bounds the value of one reply. NO_MEMORY. */
enum kvs_err client_codec_init(struct client_codec *codec, enum client_protocol protocol, uint32_t requests_max,
                               uint32_t reply_bytes_max);
void client_codec_deinit(struct client_codec *codec);

/*
 * OK when the request can be encoded; AGAIN when requests_max are under way; TOO_LARGE for a key or value that the
 * protocol cannot carry; UNSUPPORTED for `relaxed` over RESP.
 */
enum kvs_err client_codec_check(const struct client_codec *codec, const struct client_request *request);

/* An upper bound of what client_codec_encode will write. */
size_t client_codec_bytes_max(const struct client_request *request);

/* Writes a request that passed the check at `out`, which has client_codec_bytes_max; returns the bytes written. */
size_t client_codec_encode(struct client_codec *codec, const struct client_request *request, uint8_t *out);

enum client_decode {
    CLIENT_DECODE_REPLY, /* reply, tag and size are set; the request is no longer under way */
    CLIENT_DECODE_MORE,  /* not whole yet; `size` bytes in all would be enough to get further (0: not known) */
    CLIENT_DECODE_BROKEN /* the stream cannot go on: error and text say why */
};

struct client_decoded {
    struct client_reply reply; /* seen_ns is left alone */
    uint64_t tag;
    size_t size;
    enum kvs_err error; /* PROTOCOL, TOO_LARGE, REMOTE */
    const char *text;   /* static */
};

/* Decodes one reply at the start of data. */
enum client_decode client_codec_decode(struct client_codec *codec, const uint8_t *data, size_t size,
                                       struct client_decoded *out);

#define CLIENT_HELLO_BYTES 56 /* header and struct frame_hello */

/* The binary protocol's first frame, CLIENT_HELLO_BYTES long. */
size_t client_codec_write_hello(uint8_t *out);

/*
 * Decodes the server's answer to it: REPLY with reply.error OK, VERSION or AGAIN; MORE; or BROKEN when this is no
 * server of ours.
 */
enum client_decode client_codec_read_hello(const uint8_t *data, size_t size, struct client_decoded *out);

#endif
