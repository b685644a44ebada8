/*
 * client.h - what the node remembers of a connection: the handler's room in every struct net_conn.
 *
 * Zeroed by net when a connection opens. Used by the thread of the connection's shard only, and there until net's
 * `closed`.
 */
#ifndef KVS_NODE_CLIENT_H
#define KVS_NODE_CLIENT_H

#include "base/limits.h"
#include "base/list.h"
#include "node/acl.h"
#include "ring/ring_addr.h"

#include <stdbool.h>
#include <stdint.h>

#define CLIENT_NAME_BYTES_MAX    128u
#define CLIENT_LIBRARY_BYTES_MAX 64u

struct net_conn;
struct shard;

/* What makes requests of this connection take the long way, before they are carried out. */
enum client_special {
    CLIENT_OVER_LIMIT = 1, /* one of more than max_clients: to be told so and closed */
    CLIENT_REPLY_OFF = 2,  /* CLIENT REPLY OFF */
    CLIENT_REPLY_SKIP = 4, /* … SKIP, and the next request is the one */
    CLIENT_MULTI = 8,      /* it has said MULTI: what it asks for is queued */
};

/* What a client calls itself. Few say all of it, so it is not kept in every connection. */
struct client_texts {
    struct list link; /* in shard->client_texts */
    uint8_t name_bytes, library_bytes, version_bytes;
    char name[CLIENT_NAME_BYTES_MAX], library[CLIENT_LIBRARY_BYTES_MAX], version[CLIENT_LIBRARY_BYTES_MAX];
};

struct client {
    /* Operations sent to each shard that have not come back. While there are any, everything this connection asks of
     * that shard goes the same way, behind them: that keeps the order of pipelined requests. */
    uint32_t under_way[KVS_SHARDS_MAX];
    uint64_t gate_last;   /* the highest gate of a reply so far */
    uint64_t id;          /* unique in the node */
    uint8_t resp_version; /* 2 or 3 */
    uint8_t special;      /* enum client_special */
    bool relaxed;         /* KVS.DURABILITY */
    bool was_relaxed;     /* … at some time */
    bool no_evict, no_touch;
    const struct command *command; /* the latest; NULL: none yet */
    const struct subcommand *sub;
    uint64_t seen_ns; /* when that came */
    uint64_t since_ns;
    struct acl_holder user;
    struct multi *multi;        /* what is queued and watched; NULL: nothing */
    struct client_texts *texts; /* NULL: it has not said anything of itself */
    struct net_conn *conn;
    struct list monitor; /* in shard->monitors: it watches all commands */
    struct list paused;  /* in shard->paused: its current request waits for the end of a pause */
};

/* For struct net_handler. */
void client_opened(struct shard *shard, struct net_conn *conn);
void client_closed(struct shard *shard, struct net_conn *conn);
/* The shard's connections are gone: frees what is left of them. */
void client_abandon_all(struct shard *shard);

enum client_text { CLIENT_NAME, CLIENT_LIBRARY, CLIENT_VERSION };
/* Empty: not said. */
struct slice client_text(const struct client *client, enum client_text which);
/* False: too long (client_text_max), or no memory. */
bool client_set_text(struct shard *shard, struct client *client, enum client_text which, struct slice text);
size_t client_text_max(enum client_text which);

/* The address of one end as CLIENT LIST shows it: "127.0.0.1:4000", "/path:0"; empty: not known. */
#define CLIENT_ADDRESS_BYTES (RING_ADDR_TEXT_BYTES + 8)
const char *client_address(const struct net_conn *conn, bool local, char text[CLIENT_ADDRESS_BYTES], bool *is_unix);
/* One line of CLIENT LIST, without its end. */
void client_list_line(struct shard *shard, struct net_conn *conn, struct text *out);

#endif
