/*
 * exec_scan.c - SCAN, KEYS and RANDOMKEY in an EXEC.
 *
 * A scan goes through the shards as always, but leaves out the transaction's keys. Those are held, so nobody else
 * changes them meanwhile: when it is home, those that are there by then, for what the commands before have done, are
 * added to what it has found, if they are among the hashes that it went through.
 *
 * Failures: no memory for the scan, or an error that it has come home with: that is the command's reply.
 */
#include "node/exec.h"

#include "base/assert.h"
#include "node/node_internal.h"
#include "proto/resp.h"

void exec_scan(struct call *call, const struct scan_question *question)
{
    struct exec *exec = call->shard->exec;
    KVS_ASSERT(exec->scan == NULL && exec->transaction != NULL);
    exec->scan = scan_begin_within(call, question, exec->transaction);
    if (exec->scan == NULL)
        call_error(call, SCAN_TEXT_NO_MEMORY);
}

/* The first of the transaction's keys, from *at on, that belongs to the scan; NULL: there is none any more. */
static const struct transaction_key *next(const struct exec *exec, unsigned *at)
{
    unsigned count;
    const struct transaction_key *keys = transaction_keys(exec->transaction, &count);
    while (*at < count) {
        const struct transaction_key *key = &keys[(*at)++];
        if (key->found && scan_meets(exec->scan, key->key, key->hash))
            return key;
    }
    return NULL;
}

/* One of them, or what the scan has found. */
static void reply_one(struct exec *exec, unsigned others)
{
    const struct scan *scan = exec->scan;
    const struct transaction_key *key = NULL;
    uint64_t random = 0;
    unsigned at = 0;
    if (others > 0 && !scan_prefers_own(scan, others)) {
        ring_random(exec->shard->ring, &random, sizeof random);
        for (random %= others, key = next(exec, &at); random > 0; random--)
            key = next(exec, &at);
    }
    uint8_t *out = exec_reserve(exec, key != NULL ? resp_bulk_bytes(key->key.size) : scan_reply_bound(scan));
    if (out != NULL)
        exec_commit(exec, key != NULL ? resp_write_bulk(out, key->key) : scan_reply_write(scan, out, 0));
}

static void reply_all(struct exec *exec, unsigned others, size_t bytes)
{
    unsigned at = 0;
    uint8_t *out = exec_reserve(exec, scan_reply_bound(exec->scan) + bytes);
    if (out == NULL)
        return;
    size_t size = scan_reply_write(exec->scan, out, others);
    for (const struct transaction_key *key; (key = next(exec, &at)) != NULL;)
        size += resp_write_bulk(out + size, key->key);
    exec_commit(exec, size);
}

void exec_scanned(struct exec *exec)
{
    unsigned others = 0, at = 0;
    size_t bytes = 0;
    for (const struct transaction_key *key; !scan_has_failed(exec->scan) && (key = next(exec, &at)) != NULL; others++)
        bytes += resp_bulk_bytes(key->key.size);
    if (scan_has_failed(exec->scan))
        shard_count(&exec->shard->counters.errors);
    if (scan_kind(exec->scan) == SCAN_ANY)
        reply_one(exec, others);
    else
        reply_all(exec, others, bytes);
    scan_end(exec->scan);
    exec->scan = NULL;
}
