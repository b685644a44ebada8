/*
 * client_conn.h - an asynchronous, pipelined connection to a server, in either protocol.
 *
 * Requests are encoded into an output buffer and leave together; each reply comes back through a callback with the tag
 * that its request was given: in request order over RESP, in any order over the binary protocol.
 *
 * Threading: a connection belongs to the thread of its ring. All callbacks run inside ring_turn, on that thread.
 *
 * Bounds: requests under way, bytes waiting to be sent and the size of one reply are limited by client_options. Memory
 * grows up to these limits and is then reused: no allocation per request.
 */
#ifndef KVS_CLIENT_CLIENT_CONN_H
#define KVS_CLIENT_CLIENT_CONN_H

#include "client/client_codec.h"
#include "ring/ring.h"

struct client_conn;

struct client_options {
    enum client_protocol protocol;
    uint32_t requests_max;     /* under way at a time; 1..2^24 */
    uint32_t output_bytes_max; /* encoded and not yet handed to the kernel */
    uint32_t reply_bytes_max;  /* largest value taken from the server */
};

struct client_handlers {
    /* The connection is ready for requests (binary: the server's hello was understood). At most once. */
    void (*opened)(void *context);
    /*
     * One reply. reply->value is good until this returns. May send requests, which leave together once all replies that
     * arrived with this one have been handed out; may close the connection.
     */
    void (*reply)(void *context, uint64_t tag, const struct client_reply *reply);
    /*
     * The last call, exactly once, also when the connection never opened: the requests still under way will have no
     * reply. OK: client_conn_close was called; else the first thing that went wrong, `message` with the address and the
     * reason ("127.0.0.1:4000: cannot connect: connection refused"). The connection may be freed from inside; `message`
     * is part of it.
     */
    void (*closed)(void *context, enum kvs_err error, const char *message);
};

/*
 * Starts connecting. The ring must have receive buffers. `handlers` and `context` stay until `closed`. NO_MEMORY is the
 * only failure; everything else comes through `closed`.
 */
enum kvs_err client_conn_open(struct client_conn **out, struct ring *ring, const struct ring_addr *addr,
                              const struct client_options *options, const struct client_handlers *handlers,
                              void *context);

/*
 * Encodes a request; its bytes are copied. It leaves with the next flush, which the connection itself does at the end
 * of each batch of replies. AGAIN: as much is under way as the options allow, try again after a reply. CLOSED: the
 * connection is not open. TOO_LARGE, UNSUPPORTED: see client_codec_check; TOO_LARGE also when it exceeds
 * output_bytes_max. NO_MEMORY.
 */
enum kvs_err client_conn_send(struct client_conn *conn, const struct client_request *request);

/* Starts sending what has been encoded, unless a send is under way already: then it follows that one. */
void client_conn_flush(struct client_conn *conn);

/* Requests whose replies have not come. */
uint32_t client_conn_pending(const struct client_conn *conn);

/* Ends the connection without waiting for replies. `closed` follows, possibly before this returns. */
void client_conn_close(struct client_conn *conn);

/* Frees the memory. Only from inside `closed`, after it, or after ring_close of its ring. */
void client_conn_free(struct client_conn *conn);

#endif
