/*
 * bounds.h - what one connection, and all of them together, may take: the options for it.
 *
 * Pure; set at start-up, on one thread, and constant from then on. A bound that was not given has a default, which the
 * node works out where it needs it, because most depend on --memory.
 */
#ifndef KVS_NODE_BOUNDS_H
#define KVS_NODE_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bound {
    BOUND_KEY_BYTES,            /* --key-max: of a key */
    BOUND_BULK_BYTES,           /* --bulk-max: of one argument of a RESP request, wanted or not */
    BOUND_ARGS,                 /* --args-max: arguments of a RESP request */
    BOUND_REQUEST_BYTES,        /* --request-max: of a RESP request with all its arguments */
    BOUND_OUTPUT_BYTES,         /* --output-limit: unsent replies of a connection, beyond which it is not read from */
    BOUND_SEND_TIMEOUT_S,       /* --send-timeout: a connection that takes none of its replies for so long is ended */
    BOUND_CLIENTS_MEMORY_BYTES, /* --clients-memory: of all connections, of all shards */
    BOUND_PIPELINE,             /* --pipeline-max: requests under way of a connection */
    BOUND_TURN,                 /* --turn-max: requests of a connection in one turn of its shard's loop */
    BOUND_COUNT,
};

struct bounds {
    uint64_t given[BOUND_COUNT]; /* 0: not given */
};

/* The option's name, without dashes. */
const char *bounds_name(enum bound bound);

/* Takes a value as it was given. False: `right`, of `size` bytes, says what would have been right. */
bool bounds_set(struct bounds *bounds, enum bound bound, const char *value, char *right, size_t size);

/* What was given; else `otherwise`. */
static inline uint64_t bounds_get(const struct bounds *bounds, enum bound bound, uint64_t otherwise)
{
    return bounds->given[bound] != 0 ? bounds->given[bound] : otherwise;
}

#endif
