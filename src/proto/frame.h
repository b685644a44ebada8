/*
 * frame.h - the kvs binary protocol: frames, their encoder and decoder. docs/PROTOCOL.md specifies it byte by byte.
 *
 * Pure: no I/O, no allocation; any thread. A frame is a 24-byte header, then the key, then the value. Its first byte,
 * FRAME_MAGIC, cannot begin a RESP request, so a server tells the protocols apart by the first byte of a connection.
 * Requests carry an id; replies carry the id of their request and come in any order.
 */
#ifndef KVS_PROTO_FRAME_H
#define KVS_PROTO_FRAME_H

#include "base/bytes.h"

#include <assert.h>

#define FRAME_MAGIC   0xF5u
#define FRAME_VERSION 1u

enum frame_opcode {
    FRAME_HELLO = 0, /* first in each direction; value: struct frame_hello */
    FRAME_PING = 1,  /* value comes back */
    FRAME_GET = 2,
    FRAME_SET = 3,
    FRAME_REMOVE = 4,
    FRAME_STATS = 5,  /* reply value: the text of INFO; request key: an optional section */
    FRAME_BACKUP = 6, /* begins a backup; request key: its name, or empty; reply value: its name */
    FRAME_AUTH = 7,   /* request key: the user, or empty for the default one; value: the password */
};

enum frame_flags {
    FRAME_RELAXED = 1, /* request: may be acknowledged before it is durable */
    FRAME_REPLY = 128, /* this frame is a reply */
};

enum frame_status {
    FRAME_OK = 0,
    FRAME_NOT_FOUND = 1,
    FRAME_BAD_REQUEST = 2, /* malformed or unknown opcode; the value is a message. The connection is closed after it. */
    FRAME_TOO_LARGE = 3,   /* key or value beyond the limits of the server's hello */
    FRAME_NO_SPACE = 4,    /* disk or memory limit reached; reads and removes go on */
    FRAME_FAILED = 5,      /* storage has failed; the message says more */
    FRAME_CORRUPT = 6,     /* the stored record is damaged; the message names segment and offset */
    FRAME_VERSION_UNKNOWN = 7,
    FRAME_BUSY = 8,     /* too many connections or requests */
    FRAME_LOADING = 9,  /* the server is still opening its store: try again later */
    FRAME_NO_AUTH = 10, /* nobody has logged in on this connection, or with a wrong password */
    FRAME_DENIED = 11,  /* the user may not do that */
};

/* Little-endian on the wire, exactly these bytes. */
struct frame_header {
    uint8_t magic;  /* FRAME_MAGIC */
    uint8_t opcode; /* enum frame_opcode */
    uint8_t flags;  /* enum frame_flags */
    uint8_t status; /* enum frame_status; 0 in requests */
    uint16_t key_bytes;
    uint16_t reserved; /* 0 */
    uint32_t value_bytes;
    uint32_t reserved2; /* 0 */
    uint64_t id;        /* chosen by the client, comes back in the reply */
};
static_assert(sizeof(struct frame_header) == 24, "frame header is 24 bytes on the wire");

/* The value of a hello. The client says which versions it speaks, the server which one is used, and its limits. */
struct frame_hello {
    uint16_t version_min;   /* client: oldest it speaks; server: the version chosen */
    uint16_t version_max;   /* client: newest it speaks; server: the version chosen */
    uint32_t key_bytes_max; /* server's limits; 0 from the client */
    uint32_t value_bytes_max;
    uint32_t requests_max; /* requests under way on one connection; more are not read until replies left */
    uint32_t shard_count;
    uint32_t reserved;
    uint64_t hash_seed; /* 0; for clients that will route to the owner of a key themselves */
};
static_assert(sizeof(struct frame_hello) == 32, "hello is 32 bytes on the wire");

struct frame_limits {
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
};

struct frame {
    struct frame_header header;
    struct slice key, value; /* in the caller's bytes */
    size_t size;             /* of the whole frame */
};

enum frame_result {
    FRAME_WHOLE,   /* *frame is set */
    FRAME_MORE,    /* frame->size bytes from the start would be enough to get further */
    FRAME_INVALID, /* not a frame: the connection cannot go on. *frame->header is set when 24 bytes were there. */
    FRAME_OVER,    /* a valid header whose key or value is over the limits: header and size are set; the connection can
                      go on by skipping frame->size bytes */
};

/* Decodes one frame at the start of data; constant time, keeps no state. */
enum frame_result frame_parse(const uint8_t *data, size_t size, const struct frame_limits *limits, struct frame *frame);

/*
 * Writes header and key and value (either may be empty) at `out`, which has room for frame_bytes(); returns the bytes.
 * Opcode, flags, status and id are the header's; magic, sizes and zeros are filled in from key and value.
 */
size_t frame_write(uint8_t *out, const struct frame_header *header, struct slice key, struct slice value);

/* The same for a frame whose key and value are somewhere else: the header alone. */
size_t frame_write_header(uint8_t *out, const struct frame_header *header, size_t key_bytes, size_t value_bytes);

static inline size_t frame_bytes(size_t key_bytes, size_t value_bytes)
{
    return sizeof(struct frame_header) + key_bytes + value_bytes;
}

/* The name of a status for messages: "not found", "no space", … */
const char *frame_status_text(uint8_t status);

#endif
