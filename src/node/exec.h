/*
 * exec.h - carrying out the commands of an EXEC, one after the other, on keys that its transaction holds.
 *
 * The handlers are those of always. While shard->exec is set, what they would ask of the engine, of other shards or of
 * the connection comes here: it is answered from the keys as the commands before have left them, and replies are put
 * one behind the other. What takes longer, a look at all keys (exec_scan) or work on values (exec_use), lasts some
 * turns, in which others are served; the commands behind it wait, and the keys stay as they are.
 *
 * Thread of the shard that has the connection, inside a section. Memory is the transaction's.
 */
#ifndef KVS_NODE_EXEC_H
#define KVS_NODE_EXEC_H

#include "node/gather.h"
#include "node/scan.h"
#include "node/transaction.h"

struct exec {
    struct shard *shard;
    struct transaction *transaction; /* NULL: the commands have no keys */
    struct update_scratch *arena;
    uint8_t *replies;
    size_t size, capacity;
    bool refused; /* no memory, or too much: nothing is to change */
    /* What the latest command waits for; NULL. */
    struct scan *scan;
    struct gather_use *use;
};

void exec_begin(struct exec *exec, struct shard *shard, struct transaction *transaction, struct update_scratch *arena);
/* Between these shard->exec is set: within one turn. */
void exec_enter(struct exec *exec);
void exec_leave(struct exec *exec);
/* Between them: whether the latest command has its reply, so that the next one may be carried out. */
bool exec_go_on(struct exec *exec);
/* All have been carried out. The replies, and the keys' changes, are the transaction's then. */
void exec_end(struct exec *exec);
/* Instead: it will not be carried out to its end, for the node has gone. */
void exec_abandon(struct exec *exec);

/* Room for so many bytes more behind the replies; NULL: none. */
uint8_t *exec_reserve(struct exec *exec, size_t bytes);
void exec_commit(struct exec *exec, size_t bytes);

/* What has to be known of the key that an argument is, before the command is carried out (exec_needs.c). */
enum transaction_need exec_need(const struct command *command, const struct slice *args, unsigned count, unsigned arg);

/* What handlers ask for. */
void exec_request(struct exec *exec, const struct engine_request *request, const struct reply_format *format);
void exec_update(struct exec *exec, const struct engine_request *request, const struct update_spec *spec);
/* `action`: REMOVE or GET; the reply is how many were there. */
void exec_count(struct exec *exec, enum engine_action action, const struct slice *keys, unsigned count);
void exec_values(struct exec *exec, const struct slice *keys, unsigned count, int resp_version);
void exec_transaction(struct exec *exec, const struct transaction_options *options,
                      const struct transaction_args *args);
void exec_use(struct exec *exec, const struct slice *keys, unsigned count, struct gather_use *use);
void exec_scan(struct call *call, const struct scan_question *question);
/* The scan is home: its reply, with those of the transaction's keys that belong to it (exec_scan.c). */
void exec_scanned(struct exec *exec);

#endif
