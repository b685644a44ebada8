/*
 * crowd.h - what concerns connections of all shards: CLIENT LIST, CLIENT KILL, and the end of those whose user is gone.
 *
 * Every shard looks at its own connections, a few in each turn of its loop, so that ten thousand of them stop nobody;
 * the answers come home by mail, and the last one makes the reply. The asking connection is held meanwhile: what it
 * asks next is asked of the world after this.
 *
 * A shard that is still being opened has no connections, and one that could not be opened will not answer: they are not
 * asked.
 *
 * Thread of the shard that has the asking connection; crowd_deliver and crowd_turn on any.
 */
#ifndef KVS_NODE_CROWD_H
#define KVS_NODE_CROWD_H

#include "node/command.h"

enum crowd_action {
    CROWD_LIST,      /* the reply is a list of those that match */
    CROWD_KILL,      /* … how many were ended */
    CROWD_KILL_ONE,  /* … OK, or that there was none: the old form */
    CROWD_KILL_LOST, /* crowd_end_lost's */
};

enum crowd_type { CROWD_ANY, CROWD_NORMAL, CROWD_NOBODY /* of a type that does not exist here */ };

/* What has to be true of a connection. Texts are copied by crowd_ask. */
struct crowd_filter {
    enum crowd_type type;
    struct slice addr, local_addr; /* data NULL: any */
    uint64_t user;                 /* 0: any */
    uint64_t except;               /* a connection's number that does not match; 0: none */
    uint64_t age_s_min;            /* at least so old; 0: any */
    const uint64_t *ids;           /* one of these; NULL: any */
    unsigned id_count;
};

/* Answers the current request, now or later. */
void crowd_ask(struct call *call, enum crowd_action action, const struct crowd_filter *filter);
/* Ends the connections whose user is not there any more, soon. Nobody is told. (Should there be no memory for it, each
 * ends with the next thing that it asks.) */
void crowd_end_lost(struct shard *shard);

/* Mail of this kind has arrived. */
void crowd_deliver(struct shard *shard, struct mail *mail);
/* Once per turn: looks at some connections. */
void crowd_turn(struct shard *shard);
static inline bool crowd_waiting(const struct shard *shard)
{
    return !list_empty(&shard->crowd_parts) || !list_empty(&shard->crowd_merges);
}
/* Frees what was asked here, after the connections have been freed. */
void crowd_abandon(struct shard *shard);

#endif
