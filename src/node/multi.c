/*
 * multi.c - from MULTI to EXEC.
 *
 * WATCH is a transaction that changes nothing: it holds the keys to learn the versions of what they hold. In EXEC a
 * watched key has another version if it was written since, or has gone, be it expired. A key that is not there, or may
 * go by itself, has a watch at its owner, too (engine.h): it may come, and be gone again by then. When watches are not
 * needed any more the struct multi travels to their owners, one after the other, which take them out, and home, where
 * it is freed.
 *
 * Failures. What is refused while it is queued makes EXEC refuse all (EXECABORT). No memory to queue: likewise. An
 * error of a command in EXEC is its reply; the others are carried out, as in Redis. No memory in EXEC: nothing is.
 */
#include "node/multi.h"

#include "base/assert.h"
#include "base/hash.h"
#include "node/access.h"
#include "node/exec.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stdlib.h>

#define QUEUED_BYTES_MAX (256u * 1024 * 1024) /* of one connection */
#define NEVER_SEEN       UINT64_MAX

struct queued {
    struct queued *next;
    const struct command *command;
    const struct subcommand *sub;
    unsigned count;
    struct slice args[];
};

struct watched {
    struct watched *next;
    struct slice key;
    uint64_t version; /* NEVER_SEEN: WATCH has failed */
    struct engine_watch watch;
};

struct multi {
    struct mail mail;
    struct list link; /* in shard->multis, while it is the client's, or travels */
    struct shard *home;
    struct net_conn *conn;
    struct client *client;
    struct update_scratch memory; /* for all of the below */
    uint64_t bytes;
    bool open; /* MULTI was said */
    bool spoilt, writes;
    bool scans;
    unsigned count, key_count;
    struct queued *first, **end;
    /* In EXEC. */
    bool begun, changed; /* a watched key */
    const struct queued *next;
    struct exec exec;
    unsigned watched_count;
    struct watched *watched;
};

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static struct multi *multi_of(struct call *call)
{
    struct multi *multi = call->client->multi;
    if (multi != NULL)
        return multi;
    multi = calloc(1, sizeof *multi);
    if (multi == NULL) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return NULL;
    }
    multi->mail.kind = MAIL_MULTI;
    multi->home = call->shard;
    multi->conn = call->conn;
    multi->client = call->client;
    multi->end = &multi->first;
    update_scratch_init(&multi->memory, call->shard, NULL, 0);
    list_push_back(&call->shard->multis, &multi->link);
    call->client->multi = multi;
    return multi;
}

/* To the next shard that has a watch, or home. The node may have gone: then nobody looks at watches any more. */
static void travel(struct shard *from, struct multi *multi)
{
    const struct watched *watched = from->ring == NULL ? NULL : multi->watched;
    while (watched != NULL && !watched->watch.linked)
        watched = watched->next;
    const unsigned to = watched == NULL ? multi->home->id : hash_shard(watched->watch.hash, from->count);
    if (to != from->id) {
        mailbox_post(from->mailbox, to, &multi->mail);
        return;
    }
    KVS_ASSERT(watched == NULL && from == multi->home);
    list_remove(&multi->link);
    update_scratch_deinit(&multi->memory, &from->pool.trash);
    free(multi);
}

static void unwatch_here(struct shard *shard, struct multi *multi)
{
    for (struct watched *watched = multi->watched; watched != NULL; watched = watched->next) {
        if (watched->watch.linked && hash_shard(watched->watch.hash, shard->count) == shard->id)
            engine_unwatch(shard->engine, &watched->watch);
    }
}

static void multi_free(struct shard *shard, struct multi *multi)
{
    exec_abandon(&multi->exec);
    list_push_back(&shard->multis, &multi->link);
    if (shard->ring != NULL)
        unwatch_here(shard, multi);
    travel(shard, multi);
}

void multi_deliver(struct shard *shard, struct mail *mail)
{
    struct multi *multi = container_of(mail, struct multi, mail);
    unwatch_here(shard, multi);
    travel(shard, multi);
}

/* It is not the client's any more. */
static struct multi *detach(struct client *client)
{
    struct multi *multi = client->multi;
    client->multi = NULL;
    client->special &= (uint8_t)~CLIENT_MULTI;
    if (multi != NULL)
        list_remove(&multi->link);
    return multi;
}

void multi_forget(struct shard *shard, struct client *client)
{
    struct multi *multi = detach(client);
    if (multi != NULL)
        multi_free(shard, multi);
}

void multi_abandon(struct shard *shard)
{
    for (struct list *node; (node = list_pop_front(&shard->multis)) != NULL;)
        multi_free(shard, container_of(node, struct multi, link));
}

void multi_spoil(struct client *client)
{
    if (client->multi != NULL && client->multi->open)
        client->multi->spoilt = true;
}

int multi_count(const struct client *client)
{
    return client->multi == NULL || !client->multi->open ? -1 : (int)client->multi->count;
}

bool multi_writes(const struct client *client)
{
    return client->multi != NULL && client->multi->writes;
}

/* ---- queueing ---------------------------------------------------------------------------------------------------- */

/* NULL: none, and EXEC will do nothing. */
static void *take(struct multi *multi, uint64_t bytes)
{
    void *memory = NULL;
    if (bytes <= QUEUED_BYTES_MAX - multi->bytes)
        memory = update_scratch_take(&multi->memory, bytes);
    if (memory == NULL)
        multi->spoilt = true;
    else
        multi->bytes += bytes;
    return memory;
}

/* The arguments in one piece, in order: some handlers rely on that. A large request stays in the memory that it was
 * received in. */
static struct queued *copy_request(struct multi *multi, const struct call *call)
{
    const uint64_t own_bytes = sizeof(struct queued) + call->count * sizeof(struct slice);
    uint64_t bytes = own_bytes;
    for (unsigned i = 0; i < call->count; i++)
        bytes += call->args[i].size;
    struct large_memory *large = bytes <= QUEUED_BYTES_MAX - multi->bytes ? net_request_keep(call->conn) : NULL;
    if (large != NULL) {
        list_push_back(&multi->memory.large, &large->link);
        multi->bytes += bytes - own_bytes;
        bytes = own_bytes;
    }
    struct queued *queued = take(multi, bytes);
    if (queued == NULL)
        return NULL;
    if (large != NULL) {
        memcpy(queued->args, call->args, call->count * sizeof(struct slice));
        return queued;
    }
    uint8_t *at = (uint8_t *)(queued->args + call->count);
    for (unsigned i = 0; i < call->count; i++) {
        queued->args[i] = slice_make(at, call->args[i].size);
        if (call->args[i].size > 0)
            memcpy(at, call->args[i].data, call->args[i].size);
        at += call->args[i].size;
    }
    return queued;
}

static void enqueue(struct call *call, const struct subcommand *sub)
{
    struct multi *multi = call->client->multi;
    const struct acl_key_use use = acl_keys(call->command, sub, call->args, call->count);
    unsigned keys = 0;
    for (unsigned i = use.first; use.first > 0 && i <= use.last; i += use.step, keys++) {
        if (!command_keys_fit(call, &call->args[i], 1)) {
            multi->spoilt = true;
            return;
        }
    }
    struct queued *queued = copy_request(multi, call);
    if (queued == NULL) {
        call_error(call, "OOM kvs-node: no memory to queue the command");
        return;
    }
    queued->next = NULL;
    queued->command = call->command;
    queued->sub = sub;
    queued->count = call->count;
    *multi->end = queued;
    multi->end = &queued->next;
    multi->count++;
    multi->key_count += keys;
    multi->scans = multi->scans || (call->command->flags & COMMAND_SCANS) != 0;
    multi->writes = multi->writes || ((sub != NULL ? sub->flags : call->command->flags) & COMMAND_WRITE) != 0;
    call_simple(call, "QUEUED");
}

bool multi_takes(struct call *call, const struct subcommand *sub)
{
    static command_fn *const at_once[] = {command_exec,  command_discard, command_multi,
                                          command_watch, command_quit,    command_reset};
    if ((call->client->special & CLIENT_MULTI) == 0)
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(at_once); i++) {
        if (call->command->run == at_once[i])
            return false;
    }
    if ((call->command->flags & (COMMAND_NO_MULTI | COMMAND_NOT_QUEUED)) == 0 && call->shard->serving) {
        enqueue(call, sub);
        return true;
    }
    multi_spoil(call->client);
    if (!call->shard->serving)
        return false; /* which is told by whoever carries it out */
    call_error(call, "ERR Command not allowed inside a transaction");
    return true;
}

void command_multi(struct call *call)
{
    struct multi *multi = multi_of(call);
    if (multi == NULL)
        return;
    if (multi->open) {
        call_error(call, "ERR MULTI calls can not be nested");
        return;
    }
    multi->open = true;
    call->client->special |= CLIENT_MULTI;
    call_simple(call, "OK");
}

void command_discard(struct call *call)
{
    if (multi_count(call->client) < 0) {
        call_error(call, "ERR DISCARD without MULTI");
        return;
    }
    multi_forget(call->shard, call->client);
    call_simple(call, "OK");
}

/* ---- WATCH ------------------------------------------------------------------------------------------------------- */

/* The latest ones that are watched are the transaction's keys, the last of them first. */
static void decide_watch(struct transaction *transaction)
{
    struct multi *const *multi = transaction_context(transaction);
    struct watched *watched = (*multi)->watched;
    for (unsigned i = transaction_count(transaction); i-- > 0; watched = watched->next)
        watched->version = transaction_key(transaction, i)->version;
    transaction_reply_ok(transaction);
}

void command_watch(struct call *call)
{
    if (multi_count(call->client) >= 0) {
        call_error(call, "ERR WATCH inside MULTI is not allowed");
        return;
    }
    if (!command_keys_fit(call, call->args + 1, call->count - 1))
        return;
    struct multi *multi = multi_of(call);
    struct engine_watch **watches = multi == NULL ? NULL : take(multi, call->count * sizeof *watches);
    for (unsigned i = 1; multi != NULL && i < call->count; i++) {
        const struct slice key = call->args[i];
        struct watched *watched = watches == NULL ? NULL : take(multi, sizeof *watched + key.size);
        if (watched == NULL) {
            call_error(call, "OOM kvs-node: no memory to watch so many keys");
            return;
        }
        if (key.size > 0)
            memcpy(watched + 1, key.data, key.size);
        *watched =
            (struct watched){.next = multi->watched, .key = slice_make(watched + 1, key.size), .version = NEVER_SEEN};
        multi->watched = watched;
        multi->watched_count++;
        watches[i - 1] = &watched->watch;
    }
    if (multi == NULL)
        return;
    if (!call->shard->serving) {
        call_simple(call, "OK"); /* nobody has seen them: EXEC will do nothing */
        return;
    }
    const struct transaction_options options = {
        .decide = decide_watch, .context = &multi, .context_bytes = sizeof(struct multi *)};
    const struct transaction_args args = {
        .count = call->count - 1, .keys = call->args + 1, .step = 1, .watches = watches};
    transaction_begin(call->shard, call->conn, &options, &args);
}

void command_unwatch(struct call *call)
{
    if (multi_count(call->client) < 0) /* else this is EXEC, or the queue of it */
        multi_forget(call->shard, call->client);
    call_simple(call, "OK");
}

/* ---- EXEC -------------------------------------------------------------------------------------------------------- */

/* Rights may have been taken away since it was queued. */
static bool may_still(struct call *call, const struct subcommand *sub)
{
    struct slice key;
    if ((atomic_load_explicit(&call->shard->node->watch, memory_order_relaxed) & ACL_WATCH) == 0)
        return true;
    const enum access_answer answer = access_check(call, sub, &key);
    if (answer == ACCESS_GRANTED)
        return true;
    call_error(call,
               "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This "
               "command is no longer allowed for the following reason: %s",
               answer == ACCESS_NO_KEY ? "no permission to touch the specified keys"
                                       : "no permission to execute the command or subcommand");
    return false;
}

static void begin_to_run(struct multi *multi, struct transaction *transaction, struct update_scratch *arena)
{
    struct exec *exec = &multi->exec;
    exec_begin(exec, multi->home, transaction, arena);
    uint8_t *out = exec_reserve(exec, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        exec_commit(exec, resp_write_array_header(out, multi->count));
    multi->next = multi->first;
}

/* As far as it goes in this turn; true: all of it is done. */
static bool run_some(struct multi *multi)
{
    struct exec *exec = &multi->exec;
    exec_enter(exec);
    while (exec_go_on(exec) && multi->next != NULL && !exec->refused) {
        const struct queued *queued = multi->next;
        multi->next = queued->next;
        struct call call = {.shard = exec->shard,
                            .conn = multi->conn,
                            .client = multi->client,
                            .command = queued->command,
                            .args = queued->args,
                            .count = queued->count};
        if (may_still(&call, queued->sub))
            command_carry_out(&call, queued->sub);
    }
    exec_leave(exec);
    return exec->scan == NULL && exec->use == NULL;
}

static bool watched_are_the_same(struct transaction *transaction, const struct multi *multi)
{
    const struct watched *watched = multi->watched;
    while (watched != NULL && !watched->watch.came &&
           watched->version == transaction_find(transaction, watched->key)->version)
        watched = watched->next;
    return watched == NULL;
}

/* A watched key has changed: null, an array's in RESP2. */
static size_t write_nothing(uint8_t *out, const struct client *client)
{
    const struct slice null = slice_text("*-1\r\n");
    if (client->resp_version >= 3)
        return resp_write_null(out, client->resp_version);
    memcpy(out, null.data, null.size);
    return null.size;
}

static void reply_nothing(struct transaction *transaction, const struct multi *multi)
{
    uint8_t *out = update_scratch_take(transaction_arena(transaction), RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        transaction_reply_bytes(transaction, slice_make(out, write_nothing(out, multi->client)));
}

static bool work_exec(struct transaction *transaction)
{
    struct multi *const *context = transaction_context(transaction);
    struct multi *multi = *context;
    if (!multi->begun) {
        multi->begun = true;
        multi->changed = !watched_are_the_same(transaction, multi);
        begin_to_run(multi, transaction, transaction_arena(transaction));
    }
    return multi->changed || run_some(multi);
}

static void decide_exec(struct transaction *transaction)
{
    struct multi *const *context = transaction_context(transaction);
    struct multi *multi = *context;
    if (multi->changed)
        reply_nothing(transaction, multi);
    else
        exec_end(&multi->exec);
}

static void exec_freed(struct shard *shard, const void *context)
{
    struct multi *const *multi = context;
    multi_free(shard, *multi);
}

/* All keys, one behind the other, and what is to be known of them. False: no memory. */
static bool gather_keys(struct multi *multi, struct transaction_args *args)
{
    const uint64_t most = (uint64_t)multi->key_count + multi->watched_count + 1;
    struct slice *keys = take(multi, most * sizeof *keys);
    uint8_t *needs = take(multi, most);
    unsigned count = 0;
    if (keys == NULL || needs == NULL)
        return false;
    for (const struct watched *watched = multi->watched; watched != NULL; watched = watched->next) {
        needs[count] = TRANSACTION_PRESENCE;
        keys[count++] = watched->key;
    }
    for (const struct queued *queued = multi->first; queued != NULL; queued = queued->next) {
        const struct acl_key_use use = acl_keys(queued->command, queued->sub, queued->args, queued->count);
        for (unsigned i = use.first; use.first > 0 && i <= use.last; i += use.step) {
            const enum transaction_need need = exec_need(queued->command, queued->args, queued->count, i);
            /* A scan tells of every key whether it is there. */
            needs[count] = (uint8_t)(need == TRANSACTION_BLIND && multi->scans ? TRANSACTION_PRESENCE : need);
            keys[count++] = queued->args[i];
        }
    }
    KVS_ASSERT(count == multi->key_count + multi->watched_count);
    *args = (struct transaction_args){.count = count, .keys = keys, .step = 1, .needs = needs};
    return true;
}

/* Nothing that it would see of any key: no transaction either. */
static void run_at_once(struct call *call, struct multi *multi)
{
    const struct exec *exec = &multi->exec;
    begin_to_run(multi, NULL, &multi->memory);
    const bool done = run_some(multi);
    KVS_ASSERT(done);
    exec_end(&multi->exec);
    uint8_t *out = exec->refused ? NULL : net_reply_reserve(call->conn, exec->size);
    if (exec->refused)
        call_error(call, "OOM kvs-node: no memory for the replies");
    if (out != NULL) {
        memcpy(out, exec->replies, exec->size);
        net_reply_commit(call->conn, exec->size, 0);
    }
    multi_free(call->shard, multi);
}

void command_exec(struct call *call)
{
    if (multi_count(call->client) < 0) {
        call_error(call, "ERR EXEC without MULTI");
        return;
    }
    struct multi *multi = detach(call->client);
    if (multi->spoilt) {
        call_error(call, "EXECABORT Transaction discarded because of previous errors.");
        multi_free(call->shard, multi);
        return;
    }
    if (multi->key_count + multi->watched_count == 0 && !multi->scans) {
        run_at_once(call, multi);
        return;
    }
    if (!call->shard->serving) {
        uint8_t *out = net_reply_reserve(call->conn, RESP_HEADER_BYTES_MAX);
        if (out != NULL)
            net_reply_commit(call->conn, write_nothing(out, call->client), 0);
        multi_free(call->shard, multi);
        return;
    }
    struct transaction_args args;
    if (!gather_keys(multi, &args)) {
        call_error(call, "OOM kvs-node: no memory for the request");
        multi_free(call->shard, multi);
        return;
    }
    const struct transaction_options options = {.work = work_exec,
                                                .decide = decide_exec,
                                                .freed = exec_freed,
                                                .behind = multi->scans,
                                                .borrows = true,
                                                .context = &multi,
                                                .context_bytes = sizeof(struct multi *)};
    transaction_begin(call->shard, call->conn, &options, &args);
}
