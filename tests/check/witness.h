/*
 * witness.h - kvs-witness: clients that contend for a few keys and write down all they ask and are told; and the judge
 * of what they wrote, who knows when the node was down.
 *
 * The record is text, one event a line, appended; moments are CLOCK_MONOTONIC in nanoseconds:
 *
 *     run R                      a run of the witness begins; R is part of its values
 *     open S T durable|relaxed   session S: a connection was there at T
 *     close S T                  it has ended
 *     ask N S K w|r|d|e V T      operation N of session S on key K: write of value V, read, delete, exists;
 *                                asked after T
 *     answer N T ok              before T: written
 *     answer N T value V         read
 *     answer N T there|absent    found, or not: read, delete, exists
 *     answer N T loading         not done: the node was still opening its store
 *     answer N T error TEXT      refused
 *     answer N T wrong TEXT      bytes that nobody wrote
 *     node-down T                written by whoever ends the node: at T it was gone, and not yet started again
 *
 * Sessions ask in the order of their lines. A value is a number: the run, the connection, a count. Its bytes follow
 * from key and number alone, and carry both, their length and a checksum.
 */
#ifndef KVS_TESTS_CHECK_WITNESS_H
#define KVS_TESTS_CHECK_WITNESS_H

#include "base/bytes.h"
#include "ring/ring_addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WITNESS_CONNECTIONS_MAX 64u
#define WITNESS_KEYS_MAX        4096u
#define WITNESS_PIPELINE_MAX    256u
#define WITNESS_VALUE_MAX       ((size_t)4096)
#define WITNESS_KEY_BYTES_MAX   ((size_t)32)
#define WITNESS_TEXT_MAX        160u

enum witness_exit { WITNESS_RIGHT = 0, WITNESS_WRONG = 1, WITNESS_USAGE = 2, WITNESS_UNDECIDED = 3 };

enum witness_protocol { WITNESS_RESP, WITNESS_BINARY };

struct witness_options {
    struct ring_addr addr;
    double seconds;
    uint32_t connections, keys, pipeline;
    uint64_t seed;
    uint64_t run; /* 1..65535 */
    bool relaxed;
    bool survey;  /* read every key once, and end */
    int protocol; /* enum witness_protocol, or -1: half of the connections each */
    int record;   /* descriptor of the record */
};

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t witness_now(void);

/* ---- values: witness_value.c; pure ------------------------------------------------------------------------------ */

size_t witness_key(uint32_t key, char out[WITNESS_KEY_BYTES_MAX]);
size_t witness_value_write(uint32_t key, uint64_t number, uint8_t out[WITNESS_VALUE_MAX]);
/* False: `text` says what is wrong with the bytes. */
bool witness_value_read(uint32_t key, struct slice bytes, uint64_t *number, char text[WITNESS_TEXT_MAX]);

/* ---- the wire: witness_wire.c; pure ------------------------------------------------------------------------------ */

enum witness_kind { WITNESS_WRITE = 'w', WITNESS_READ = 'r', WITNESS_DELETE = 'd', WITNESS_EXISTS = 'e' };

/* What a connection says before its first request. Returns bytes written; `out` has WIRE_REQUEST_MAX. */
#define WIRE_REQUEST_MAX (WITNESS_VALUE_MAX + 256)
size_t wire_greeting(enum witness_protocol protocol, bool relaxed, uint8_t *out);
/* EXISTS is there in RESP only. `number`: of the value written. */
size_t wire_request(enum witness_protocol protocol, enum witness_kind kind, bool relaxed, uint64_t id, uint32_t key,
                    uint64_t number, uint8_t *out);

enum wire_answer { WIRE_OK, WIRE_VALUE, WIRE_THERE, WIRE_ABSENT, WIRE_LOADING, WIRE_ERROR, WIRE_MORE, WIRE_BROKEN };

struct wire_reply {
    enum wire_answer answer;
    uint64_t id;        /* binary only */
    struct slice bytes; /* the value, or the error's text */
    size_t size;        /* of the reply on the wire */
};

/* Takes one reply apart. A greeting's reply is OK. */
struct wire_reply wire_decode(enum witness_protocol protocol, struct slice data);

/* ---- one connection: witness_client.c ---------------------------------------------------------------------------- */

struct witness_client {
    const struct witness_options *options;
    uint32_t number;
    const _Atomic uint64_t *until; /* asks no more from this moment on, which may be moved */
    uint64_t asked, answered, refused;
    uint32_t sessions;
    uint64_t wrong;              /* answers with wrong bytes */
    char text[WITNESS_TEXT_MAX]; /* why the latest connection ended, or what was wrong */
};

/* A thread's whole life; the argument is a struct witness_client. Reconnects until its time is over. */
void *witness_client_run(void *argument);

/* ---- the judge: witness_check.c ---------------------------------------------------------------------------------- */

/* Reads the records, judges every key, says so on standard output. */
enum witness_exit witness_check(char *const *paths, size_t count);

#endif
