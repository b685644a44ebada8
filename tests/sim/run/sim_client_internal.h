/*
 * sim_client_internal.h - a client from inside: sim_client.c has its connection and its work, sim_ask.c what it asks
 * and what it makes of the answers.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_CLIENT_INTERNAL_H
#define KVS_TESTS_SIM_RUN_SIM_CLIENT_INTERNAL_H

#include "sim_client.h"
#include "sim_scan.h"
#include "sim_swap.h"
#include "sim_task.h"

#include "base/list.h"

#define ASK_KEYS_MAX 8u

enum protocol { RESP_2, RESP_3, FRAMES };

enum ask_kind {
    ASK_SET,
    ASK_GET,
    ASK_DEL,
    ASK_EXISTS,
    ASK_MGET,
    ASK_COUNT,
    ASK_PING,
    ASK_SETUP,
    ASK_FLEETING,
    ASK_SWAP,
    ASK_COUNTER,
    ASK_SCAN,
    ASK_FLUSH,
    ASK_FLUSH_UNTOLD /* the oracles are not told of it */
};

/* What the oracles call a flush. */
struct ask_flush {
    uint32_t op;
    uint64_t fleeting_moment;
    struct counters_flush counters;
};

struct ask {
    struct list link;
    enum ask_kind kind;
    uint64_t id;
    unsigned key_count;
    unsigned keys[ASK_KEYS_MAX];
    uint32_t ops[ASK_KEYS_MAX];
    unsigned fleeting; /* the key, with ASK_FLEETING */
    const struct swap *swap;
    struct counter_ask counter;
    struct scan_ask *scan; /* NULL: it is none */
    struct ask_flush flush;
};

struct buffer {
    uint8_t *data;
    size_t size, room;
};

enum link_state { LINK_NONE, LINK_CONNECTING, LINK_OPEN, LINK_ENDING };

struct client {
    struct client_setting setting;
    enum link_state state;
    int fd;
    enum protocol protocol;
    bool relaxed;
    bool close_when_answered;
    bool asked_to_close; /* the end of the connection is our own wish */
    uint32_t session;
    uint64_t last_id;
    struct ring_op connect_op, send_op, recv_op;
    struct iovec iov;
    struct buffer forming, sending, in;
    size_t in_read;
    struct list asks; /* unanswered, oldest first */
    unsigned ask_count;
    uint64_t random;
    unsigned swaps_percent; /* of this work's operations */
    unsigned scans;         /* under way */
    struct task task;
    struct ring_op pause;
    int64_t counted;
    bool flushed; /* the latest flush that was asked for has been done */
};

/* ---- sim_client.c ---------------------------------------------------------------------------------------------- */

/* A number below this one. */
uint64_t client_draw(struct client *client, uint64_t below);
/* Where so many more bytes can be written, behind those there are. */
uint8_t *client_reserve(struct buffer *buffer, size_t size);
const char *client_protocol_name(enum protocol protocol);

/* ---- sim_ask.c ------------------------------------------------------------------------------------------------- */

/* How many keys the connection's class has, and the first: relaxed connections touch relaxed keys only. */
unsigned client_key_class(const struct client *client, unsigned *base);
/* A key of the connection's class. Some keys are hot. */
unsigned client_choose_key(struct client *client);

/* Each adds an operation to what is to be sent, in the connection's protocol, and tells the oracle. */
void ask_set(struct client *client, unsigned key);
void ask_get(struct client *client, unsigned key);
void ask_del(struct client *client, unsigned key);
/* Over RESP only. */
void ask_swap(struct client *client, unsigned key);
/* Of keys by chance. */
void ask_several(struct client *client, enum ask_kind kind);
bool ask_fleeting_may(const struct client *client, unsigned key);
void ask_fleeting(struct client *client, unsigned key, uint64_t chance);
/* Over durable RESP only. */
void ask_counter(struct client *client, unsigned key, uint64_t chance);
/* Over RESP only. `all`: KEYS. */
void ask_scan(struct client *client, bool all);
/* Over RESP only. */
void ask_flush(struct client *client, enum ask_kind kind);
/* Tells the oracles of one that they were not told of, and since which nothing was asked, as if it had happened now. */
void ask_flush_tell(struct client *client);
void ask_ping(struct client *client);
void ask_for_count(struct client *client);
/* The first of a connection: its protocol, its durability. */
void ask_set_up(struct client *client);

/* Judges all answers that have been received whole. */
void ask_take_replies(struct client *client);
/* No answers will come any more. */
void ask_leave_all(struct client *client);

#endif
