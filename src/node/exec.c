/*
 * exec.c - what handlers are answered during an EXEC.
 *
 * A key's found, value and expires_ms are what the commands so far have made of it. Those that differ from what the
 * engine has are `changed`; exec_end makes one change of all that has happened to each.
 *
 * Replies grow in one piece of the transaction's arena, which is copied to one of twice the size when it is full.
 *
 * Failure: no memory in the arena, or more replies than one command may have: the transaction fails as a whole.
 */
#include "node/exec.h"

#include "base/assert.h"
#include "node/gather.h"
#include "node/node_internal.h"
#include "proto/resp.h"

enum { REPLIES_BYTES_FIRST = 512 };

void exec_begin(struct exec *exec, struct shard *shard, struct transaction *transaction, struct update_scratch *arena)
{
    *exec = (struct exec){.shard = shard, .transaction = transaction, .arena = arena};
}

void exec_enter(struct exec *exec)
{
    KVS_ASSERT(exec->shard->exec == NULL);
    exec->shard->exec = exec;
}

void exec_leave(struct exec *exec)
{
    KVS_ASSERT(exec->shard->exec == exec);
    exec->shard->exec = NULL;
}

void exec_end(struct exec *exec)
{
    struct transaction *transaction = exec->transaction;
    KVS_ASSERT(exec->scan == NULL && exec->use == NULL);
    if (exec->refused || transaction == NULL)
        return; /* without a reply the transaction has no memory */
    transaction_reply_bytes(transaction, slice_make(exec->replies, exec->size));
    for (unsigned i = 0; i < transaction_count(transaction); i++) {
        struct transaction_key *key = transaction_key(transaction, i);
        key->change = !key->changed ? TRANSACTION_KEEP : key->found ? TRANSACTION_PUT : TRANSACTION_REMOVE;
        key->new_value = key->value;
        key->new_expires_ms = key->expires_ms;
    }
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

uint8_t *exec_reserve(struct exec *exec, size_t bytes)
{
    if (exec->refused || bytes > GATHER_REPLY_BYTES_MAX - exec->size) {
        exec->refused = true;
        return NULL;
    }
    if (exec->size + bytes <= exec->capacity)
        return exec->replies + exec->size;
    size_t capacity = 2 * (exec->size + bytes);
    capacity = capacity < REPLIES_BYTES_FIRST ? REPLIES_BYTES_FIRST : capacity;
    uint8_t *replies = update_scratch_take(exec->arena, capacity);
    if (replies == NULL) {
        exec->refused = true;
        return NULL;
    }
    if (exec->size > 0)
        memcpy(replies, exec->replies, exec->size);
    exec->replies = replies;
    exec->capacity = capacity;
    return replies + exec->size;
}

void exec_commit(struct exec *exec, size_t bytes)
{
    KVS_ASSERT(exec->size + bytes <= exec->capacity);
    exec->size += bytes;
}

static void reply_result(struct exec *exec, const struct engine_result *result, const struct reply_format *format)
{
    const struct reply_origin origin = shard_origin(exec->shard);
    uint8_t *out = exec_reserve(exec, reply_bound(format, result));
    if (out != NULL)
        exec_commit(exec, reply_write(out, format, result, &origin));
}

static void reply_integer(struct exec *exec, int64_t value)
{
    uint8_t *out = exec_reserve(exec, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        exec_commit(exec, resp_write_integer(out, value));
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void take_away(struct transaction_key *key)
{
    key->changed = key->changed || key->found;
    key->found = false;
    key->value = slice_make(NULL, 0);
    key->value_bytes = 0;
    key->expires_ms = 0;
}

static void put(struct exec *exec, struct transaction_key *key, struct slice value, uint64_t expires_ms)
{
    if (expires_ms != 0 && expires_ms <= transaction_now_ms(exec->transaction)) {
        take_away(key);
        return;
    }
    key->changed = true;
    key->found = true;
    key->value = value;
    key->value_bytes = value.size;
    key->expires_ms = expires_ms;
}

static struct engine_result result_of(const struct transaction_key *key)
{
    return (struct engine_result){
        .found = key->found, .value = key->value, .value_bytes = key->value_bytes, .expires_ms = key->expires_ms};
}

/* ---- what handlers ask for --------------------------------------------------------------------------------------- */

void exec_request(struct exec *exec, const struct engine_request *request, const struct reply_format *format)
{
    struct transaction_key *key = transaction_find(exec->transaction, request->key);
    struct engine_result result = result_of(key);
    KVS_ASSERT(request->action == ENGINE_GET || request->action == ENGINE_PUT);
    if (request->action == ENGINE_PUT)
        put(exec, key, request->value, request->expires_ms);
    reply_result(exec, &result, format);
}

void exec_update(struct exec *exec, const struct engine_request *request, const struct update_spec *spec)
{
    struct transaction_key *key = transaction_find(exec->transaction, request->key);
    struct update_attempt attempt = {.old = result_of(key)};
    const struct reply_origin origin = shard_origin(exec->shard);
    update_decide(spec, request->value, transaction_now_ms(exec->transaction), exec->arena, &attempt);
    if (attempt.error != KVS_ERR_OK) {
        exec->refused = true;
        return;
    }
    uint8_t *out = exec_reserve(exec, update_reply_bound(&attempt));
    if (out != NULL)
        exec_commit(exec, update_reply_write(out, spec, &attempt, &origin));
    const struct update_outcome *outcome = &attempt.outcome;
    if (outcome->change == UPDATE_PUT)
        put(exec, key, outcome->value, outcome->expires_ms);
    else if (outcome->change == UPDATE_EXPIRE)
        put(exec, key, key->value, outcome->expires_ms);
    else if (outcome->change == UPDATE_REMOVE)
        take_away(key);
}

void exec_count(struct exec *exec, enum engine_action action, const struct slice *keys, unsigned count)
{
    int64_t found = 0;
    for (unsigned i = 0; i < count; i++) {
        struct transaction_key *key = transaction_find(exec->transaction, keys[i]);
        found += key->found;
        if (action == ENGINE_REMOVE)
            take_away(key);
    }
    reply_integer(exec, found);
}

void exec_values(struct exec *exec, const struct slice *keys, unsigned count, int resp_version)
{
    const struct reply_format format = {.kind = REPLY_VALUE, .resp_version = (uint8_t)resp_version};
    uint8_t *out = exec_reserve(exec, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        exec_commit(exec, resp_write_array_header(out, count));
    for (unsigned i = 0; i < count; i++) {
        struct engine_result result = result_of(transaction_find(exec->transaction, keys[i]));
        reply_result(exec, &result, &format);
    }
}

void exec_transaction(struct exec *exec, const struct transaction_options *options, const struct transaction_args *args)
{
    struct slice reply;
    if (!transaction_within(exec->transaction, options, args, &reply)) {
        exec->refused = true;
        return;
    }
    /* None of these changes hangs on another one: RENAME's new value has been told before the old one goes. */
    for (unsigned i = 0; i < args->count; i++) {
        struct transaction_key *key = transaction_find(exec->transaction, args->keys[i * args->step]);
        if (key->change == TRANSACTION_PUT)
            put(exec, key, key->new_value, key->new_expires_ms);
        else if (key->change == TRANSACTION_REMOVE)
            take_away(key);
    }
    uint8_t *out = exec_reserve(exec, reply.size);
    if (out == NULL)
        return;
    memcpy(out, reply.data, reply.size);
    exec_commit(exec, reply.size);
}

/* ---- what takes longer ------------------------------------------------------------------------------------------- */

static void give_use(struct exec *exec, struct gather_use *use)
{
    static const struct reply_format format = {.kind = REPLY_VALUE};
    const struct engine_result no_memory = {.error = KVS_ERR_AGAIN};
    if (use->reply.failed) {
        shard_count_error(exec->shard, reply_error_code(KVS_ERR_AGAIN));
        reply_result(exec, &no_memory, &format);
    } else {
        uint8_t *out = exec_reserve(exec, use->reply.size);
        if (out != NULL) {
            memcpy(out, use->reply.data, use->reply.size);
            exec_commit(exec, use->reply.size);
        }
    }
    use->release(use, exec->shard);
}

void exec_use(struct exec *exec, const struct slice *keys, unsigned count, struct gather_use *use)
{
    struct slice values[GATHER_USE_KEYS_MAX];
    KVS_ASSERT(count <= GATHER_USE_KEYS_MAX && exec->use == NULL);
    for (unsigned i = 0; i < count; i++) {
        const struct transaction_key *key = transaction_find(exec->transaction, keys[i]);
        values[i] = key->found && key->value.size > 0 ? key->value : slice_make("", 0);
    }
    use->begin(use, exec->shard, values);
    if (use->reply.size > 0 || use->reply.failed) {
        give_use(exec, use);
        return;
    }
    exec->use = use;
    exec->shard->execs_ready++;
}

/* A piece of work in a turn, whoever's it is: others are to have the rest of it. */
static void work(struct exec *exec)
{
    struct shard *shard = exec->shard;
    if (shard->exec_worked)
        return;
    shard->exec_worked = true;
    if (!exec->use->work(exec->use))
        return;
    shard->execs_ready--;
    give_use(exec, exec->use);
    exec->use = NULL;
}

bool exec_go_on(struct exec *exec)
{
    if (exec->use != NULL)
        work(exec);
    if (exec->scan != NULL && scan_is_home(exec->scan))
        exec_scanned(exec);
    return exec->use == NULL && exec->scan == NULL;
}

void exec_abandon(struct exec *exec)
{
    if (exec->use != NULL)
        exec->use->release(exec->use, exec->shard);
    exec->use = NULL;
}
