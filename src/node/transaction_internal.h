/*
 * transaction_internal.h - what a transaction consists of: for transaction.c, which leads it, and transaction_decide.c,
 * which is asked by those who decide.
 */
#ifndef KVS_NODE_TRANSACTION_INTERNAL_H
#define KVS_NODE_TRANSACTION_INTERNAL_H

#include "node/transaction.h"

#include <stdalign.h>

enum transaction_state { BEHIND, HOLDING, DECIDING, PREPARING, APPENDING, WRITING, PUBLISHING, FREEING };

/* The keys of one owner: keys[first] … keys[first + count - 1]. */
struct transaction_part {
    struct mail mail;
    struct list link; /* at its owner, while it waits there */
    struct transaction *transaction;
    unsigned owner;
    unsigned first, count;
    unsigned pending;   /* keys that have to be told or freed */
    unsigned published; /* keys that need not be looked at any more */
    bool publishing;    /* counted at its owner */
    enum transaction_state step;
    uint64_t gate;      /* of what was read */
    uint64_t after_lsn; /* of its owner */
    enum kvs_err error;
};

struct transaction {
    struct net_slot slot;
    struct list link; /* in home->transactions */
    struct shard *home;
    struct transaction_options options;
    enum transaction_state state;
    struct update_scratch *arena; /* `own`; of one within another the other's */
    struct update_scratch own;
    unsigned given; /* keys as they were given */
    unsigned count; /* different ones */
    struct transaction_key *keys;
    unsigned *places; /* of the given ones among them */
    struct slice *values;
    unsigned part_count, parts_home;
    bool sending; /* to all parts: nothing goes on before that */
    struct transaction_part *parts;
    struct engine_change *changes;
    unsigned change_count;
    struct engine_group group;
    bool appended;
    uint64_t now_ms; /* when it began to be decided */
    uint64_t after_lsn;
    enum kvs_err error;
    struct slice reply;
    bool released;
    bool kept;                     /* the request lies in the arena */
    alignas(16) uint8_t room[256]; /* the arena's first bytes */
};

/* Of the arena, zeroed; NULL: no memory. */
void *transaction_array(struct transaction *transaction, size_t count, size_t size);

#endif
