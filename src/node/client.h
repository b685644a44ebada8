/*
 * client.h - what the node remembers of a connection: the handler's room in every struct net_conn.
 *
 * Zeroed by net when a connection opens. Used by the thread of the connection's shard only, and there until net's
 * `closed`.
 */
#ifndef KVS_NODE_CLIENT_H
#define KVS_NODE_CLIENT_H

#include "base/limits.h"

#include <stdbool.h>
#include <stdint.h>

#define CLIENT_NAME_BYTES_MAX 128u

struct client {
    /* Operations sent to each shard that have not come back. While there are any, everything this connection asks of
     * that shard goes the same way, behind them: that keeps the order of pipelined requests. */
    uint32_t under_way[KVS_SHARDS_MAX];
    uint64_t gate_last;   /* the highest gate of a reply so far */
    uint64_t id;          /* unique in the node */
    uint8_t resp_version; /* 2 or 3 */
    bool relaxed;         /* KVS.DURABILITY */
    bool over_limit;      /* one of more than max_clients: to be told so and closed */
    uint8_t name_bytes;
    char name[CLIENT_NAME_BYTES_MAX];
};

#endif
