/*
 * exec.h - carrying out the commands of an EXEC, one after the other, on keys that its transaction holds.
 *
 * The handlers are those of always. While shard->exec is set, what they would ask of the engine, of other shards or of
 * the connection comes here: it is answered from the keys as the commands before have left them, and replies are put
 * one behind the other. So they must answer at once: commands that do not have COMMAND_NOT_QUEUED.
 *
 * Thread of the shard that has the connection, inside a section. Memory is the transaction's.
 */
#ifndef KVS_NODE_EXEC_H
#define KVS_NODE_EXEC_H

#include "node/transaction.h"

struct exec {
    struct shard *shard;
    struct transaction *transaction; /* NULL: the commands have no keys */
    struct update_scratch *arena;
    uint8_t *replies;
    size_t size, capacity;
    bool refused; /* no memory, or too much: nothing is to change */
};

/* Between these shard->exec is set. */
void exec_begin(struct exec *exec, struct shard *shard, struct transaction *transaction, struct update_scratch *arena);
/* The replies, and the keys' changes, are the transaction's then. */
void exec_end(struct exec *exec);

/* Room for so many bytes more behind the replies; NULL: none. */
uint8_t *exec_reserve(struct exec *exec, size_t bytes);
void exec_commit(struct exec *exec, size_t bytes);

/* What handlers ask for. */
void exec_request(struct exec *exec, const struct engine_request *request, const struct reply_format *format);
void exec_update(struct exec *exec, const struct engine_request *request, const struct update_spec *spec);
/* `action`: REMOVE or GET; the reply is how many were there. */
void exec_count(struct exec *exec, enum engine_action action, const struct slice *keys, unsigned count);
void exec_values(struct exec *exec, const struct slice *keys, unsigned count, int resp_version);
void exec_transaction(struct exec *exec, const struct transaction_options *options,
                      const struct transaction_args *args);

#endif
