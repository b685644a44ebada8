/*
 * dispatch.c - the ways of a request.
 *
 *   key of this shard    engine_try ─ done ──────────────────────────────► reply, gated
 *                                   └ must wait ─ op ─ engine_submit ────► slot, gated
 *   key of another       GET, nothing under way to that shard:
 *                          engine_try_get ─ done ────────────────────────► reply
 *                                         └ on disk, or not durable ─┐
 *                        anything else ── op ── mailbox ─────────────┴► owner: try or submit, wait for the gate
 *                                                                       ─► mailbox ─► slot
 *
 * Order on a connection. What is sent to one shard arrives in order, and its results take effect in order; while
 * anything is under way to a shard, reads do not overtake it through engine_try_get. What an answer from another shard
 * shows is durable, so its gate at home is 0.
 *
 * Failures. No op or no memory for one: an error that says so. A failed owner: errors instead of gates
 * (dispatch_release). A connection that has gone: net releases the slot when it is filled, and the op goes back to its
 * pool as always.
 */
#include "node/dispatch.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/hash.h"
#include "node/exec.h"
#include "node/gather.h"

static void on_local_done(struct engine_op *engine_op);
static void on_owner_done(struct engine_op *engine_op);

struct engine_request dispatch_request(const struct shard *shard, const struct client *client,
                                       enum engine_action action, struct slice key, struct slice value)
{
    return (struct engine_request){
        .action = action,
        .relaxed = client->relaxed,
        .hash = hash_key(key, shard->hash_seed),
        .key = key,
        .value = value,
    };
}

enum route dispatch_try(struct shard *shard, const struct client *client, const struct engine_request *request,
                        struct engine_result *result)
{
    unsigned owner = hash_shard(request->hash, shard->count);
    if (owner == shard->id)
        return engine_try(shard->engine, request, result) == ENGINE_DONE ? ROUTE_DONE : ROUTE_LOCAL;
    bool behind = client->under_way[owner] != 0 && !canary_on(CANARY_READ_OVERTAKES_WRITE);
    if (request->action != ENGINE_GET || behind)
        return ROUTE_OWNER;
    return engine_try_get(shard->engine, owner, request, result) == ENGINE_DONE ? ROUTE_DONE : ROUTE_OWNER;
}

void dispatch_ahead(void *context, const struct slice *keys, unsigned count)
{
    struct shard *shard = context;
    uint64_t hashes[NET_AHEAD_MAX];
    KVS_ASSERT(count <= NET_AHEAD_MAX);
    if (!shard->serving)
        return;
    for (unsigned i = 0; i < count; i++) {
        hashes[i] = hash_key(keys[i], shard->hash_seed);
        engine_prefetch(shard->engine, hash_shard(hashes[i], shard->count), hashes[i], ENGINE_PREFETCH_INDEX);
    }
    for (unsigned i = 0; i < count; i++)
        engine_prefetch(shard->engine, hash_shard(hashes[i], shard->count), hashes[i], ENGINE_PREFETCH_RECORD);
}

static void count_result(struct shard *shard, const struct engine_request *request, const struct engine_result *result)
{
    if (result->error != KVS_ERR_OK)
        shard_count_error(shard, reply_error_code(result->error));
    else if (request->action == ENGINE_GET)
        shard_count(result->found ? &shard->counters.hits : &shard->counters.misses);
}

static void count_refusal(struct shard *shard, struct slice text)
{
    shard_count(&shard->counters.errors);
    meter_error(&shard->meter, text);
}

/* `reply`: what has been written, if anything; what an update refuses is an error reply, too. */
static void count_update(struct shard *shard, const struct update_spec *spec, enum kvs_err error, bool found,
                         struct slice reply)
{
    if (error != KVS_ERR_OK)
        shard_count_error(shard, reply_error_code(error));
    else if (reply.size > 0 && reply.data[0] == '-')
        count_refusal(shard, slice_make(reply.data + 1, reply.size - 1));
    else if ((spec->flags & UPDATE_LOOKS_ONLY) != 0)
        shard_count(found ? &shard->counters.hits : &shard->counters.misses);
}

static void reply_now(struct shard *shard, struct net_conn *conn, const struct engine_result *result,
                      const struct reply_format *format)
{
    uint8_t *out = net_reply_reserve(conn, reply_bound(format, result));
    if (out == NULL)
        return;
    struct reply_origin origin = shard_origin(shard);
    size_t size = reply_write(out, format, result, &origin);
    net_reply_commit(conn, size, shard_gate(shard, net_conn_user(conn), result->gate));
}

static void on_slot_released(struct net_slot *slot)
{
    struct op *op = container_of(slot, struct op, slot);
    op_give(&op->home->pool, op);
}

/* Gives the op the request: a large one as it lies, for nobody else needs what it lies in. */
static bool take_request(struct op *op, struct net_conn *conn, const struct engine_request *request)
{
    struct large_memory *large = request->action == ENGINE_PUT ? net_request_keep(conn) : NULL;
    if (large == NULL)
        return op_copy_request(op, request);
    op_keep_request(op, request, large);
    return true;
}

/* The current request is answered later. NULL: it cannot be, and has been refused. */
static struct op *defer(struct shard *shard, struct net_conn *conn, const struct engine_request *request,
                        const struct reply_format *format)
{
    struct op *op = op_take(&shard->pool);
    if (op == NULL || !take_request(op, conn, request)) {
        if (op != NULL)
            op_give(&shard->pool, op);
        const struct engine_result result = {.error = KVS_ERR_AGAIN};
        count_result(shard, request, &result);
        reply_now(shard, conn, &result, format);
        return NULL;
    }
    op->client = net_conn_user(conn);
    op->format = *format;
    net_reply_defer(conn, &op->slot);
    op->slot.released = on_slot_released;
    return op;
}

void dispatch_request_one(struct shard *shard, struct net_conn *conn, const struct engine_request *request,
                          const struct reply_format *format)
{
    struct engine_result result = {0};
    if (__builtin_expect(shard->exec != NULL, 0)) {
        exec_request(shard->exec, request, format);
        return;
    }
    enum route route = dispatch_try(shard, net_conn_user(conn), request, &result);
    if (__builtin_expect(route == ROUTE_DONE, 1)) {
        count_result(shard, request, &result);
        reply_now(shard, conn, &result, format);
        return;
    }
    struct op *op = defer(shard, conn, request, format);
    if (op != NULL)
        dispatch_op(shard, op, route);
}

/* ---- updates --------------------------------------------------------------------------------------------------- */

static enum route try_update(struct shard *shard, const struct client *client, const struct engine_request *request,
                             const struct update_spec *spec, struct update_scratch *scratch,
                             struct update_attempt *attempt)
{
    unsigned owner = hash_shard(request->hash, shard->count);
    if (owner == shard->id)
        return update_try(shard, request, spec, scratch, attempt) == ENGINE_DONE ? ROUTE_DONE : ROUTE_LOCAL;
    if ((spec->flags & UPDATE_LOOKS_ONLY) == 0)
        return ROUTE_OWNER;
    struct engine_request look = update_look(request, spec);
    enum route route = dispatch_try(shard, client, &look, &attempt->old);
    if (route == ROUTE_DONE)
        update_decide(spec, request->value, engine_now_ms(shard->engine), scratch, attempt);
    return route;
}

void dispatch_update(struct shard *shard, struct net_conn *conn, const struct engine_request *request,
                     const struct update_spec *spec)
{
    uint8_t room[UPDATE_ROOM_BYTES];
    struct update_scratch scratch;
    struct update_attempt attempt = {0};
    struct client *client = net_conn_user(conn);
    if (__builtin_expect(shard->exec != NULL, 0)) {
        exec_update(shard->exec, request, spec);
        return;
    }
    update_scratch_init(&scratch, shard, room, sizeof room);
    enum route route = try_update(shard, client, request, spec, &scratch, &attempt);
    if (route == ROUTE_DONE) {
        const struct reply_origin origin = shard_origin(shard);
        uint8_t *out = net_reply_reserve(conn, update_reply_bound(&attempt));
        size_t size = out != NULL ? update_reply_write(out, spec, &attempt, &origin) : 0;
        count_update(shard, spec, attempt.error, attempt.old.found, slice_make(out, size));
        if (out != NULL)
            net_reply_commit(conn, size, shard_gate(shard, client, attempt.gate));
    }
    update_scratch_deinit(&scratch, &shard->pool.trash);
    if (route == ROUTE_DONE)
        return;
    const struct reply_format format = {.kind = REPLY_VALUE, .resp_version = client->resp_version};
    struct op *op = defer(shard, conn, request, &format);
    if (op == NULL)
        return;
    op->update = *spec;
    update_scratch_init(&op->scratch, shard, NULL, 0);
    dispatch_op(shard, op, route);
}

static void send_to_owner(struct shard *shard, struct op *op)
{
    KVS_ASSERT(!op->sent && op->owner != shard->id);
    op->sent = true;
    op->client->under_way[op->owner]++;
    shard_count(&shard->counters.sent);
    mailbox_post(shard->mailbox, op->owner, &op->mail);
}

static void submit(struct shard *shard, struct op *op, engine_done_fn *done)
{
    if (op->update.run != NULL) {
        update_submit(shard, op);
        return;
    }
    op->engine.done = done;
    engine_submit(shard->engine, &op->engine);
}

/* A key. */
static bool may_change(const struct op *op)
{
    return op->update.run != NULL ? (op->update.flags & UPDATE_LOOKS_ONLY) == 0
                                  : op->engine.request.action != ENGINE_GET;
}

void dispatch_op(struct shard *shard, struct op *op, enum route route)
{
    KVS_ASSERT(route != ROUTE_DONE);
    op->owner = hash_shard(op->engine.request.hash, shard->count);
    op->engine.request.asked_ns = ring_now_ns(shard->ring);
    op->at = shard;
    op->changes = may_change(op);
    shard->changes_under_way += op->changes;
    switch (route) {
    case ROUTE_LOCAL:
        submit(shard, op, on_local_done);
        return;
    case ROUTE_OWNER:
        send_to_owner(shard, op);
        return;
    case ROUTE_DONE:
        return;
    }
}

/* ---- at home, with the answer ---------------------------------------------------------------------------------- */

static void complete(struct shard *shard, struct op *op)
{
    if (op->sent)
        op->client->under_way[op->owner]--;
    shard->changes_under_way -= op->changes;
    op_drop_request(&shard->pool, op);
    if (op->update.run != NULL)
        count_update(shard, &op->update, op->engine.result.error, op->found, slice_make(op->reply, op->reply_bytes));
    else
        count_result(shard, &op->engine.request, &op->engine.result);
    if (op->gather != NULL)
        gather_part_done(op);
    else
        net_slot_fill(&op->slot, op->reply, op->reply_bytes, shard_gate(shard, op->client, op->gate));
}

/* Turns the engine's result into the reply, and gives back what lies behind it. */
static void take_result(struct shard *shard, struct op *op)
{
    struct reply_origin origin = shard_origin(shard);
    op_write_reply(op, &op->engine.result, &origin);
    op->gate = op->engine.result.gate;
}

static void on_local_done(struct engine_op *engine_op)
{
    struct op *op = container_of(engine_op, struct op, engine);
    struct shard *shard = op->home;
    take_result(shard, op);
    engine_op_release(engine_op);
    complete(shard, op);
}

/* ---- at the owner ---------------------------------------------------------------------------------------------- */

static void fail_op(struct shard *shard, struct op *op)
{
    struct reply_origin origin = shard_origin(shard);
    op->engine.result = (struct engine_result){.error = KVS_ERR_FAILED};
    op_write_reply(op, &op->engine.result, &origin);
}

static void send_home(struct shard *shard, struct op *op)
{
    op->gate = 0;
    mailbox_post(shard->mailbox, op->home->id, &op->mail);
}

/* The reply is written; it may go home when its gate has been reached. */
static void go_home_durable(struct shard *shard, struct op *op)
{
    if (op->gate <= shard->durable || canary_on(CANARY_OWNER_ANSWERS_EARLY)) {
        send_home(shard, op);
        return;
    }
    if (shard->failed) {
        fail_op(shard, op);
        send_home(shard, op);
        return;
    }
    /* One queue in order of gates: a read that met an older record waits for the newest before it, at most a commit
     * more. */
    if (shard->gated_tail != NULL) {
        struct op *last = container_of(shard->gated_tail, struct op, mail);
        if (op->gate < last->gate)
            op->gate = last->gate;
        shard->gated_tail->next = &op->mail;
    } else {
        shard->gated_head = &op->mail;
    }
    op->mail.next = NULL;
    shard->gated_tail = &op->mail;
}

static void on_owner_done(struct engine_op *engine_op)
{
    struct op *op = container_of(engine_op, struct op, engine);
    struct shard *shard = op->at;
    take_result(shard, op);
    engine_op_release(engine_op);
    go_home_durable(shard, op);
}

static void execute_for_other(struct shard *shard, struct op *op)
{
    op->at = shard;
    shard_count(&shard->counters.received);
    if (op->update.run != NULL) {
        update_execute(shard, op);
        return;
    }
    if (engine_try(shard->engine, &op->engine.request, &op->engine.result) == ENGINE_DONE) {
        take_result(shard, op);
        go_home_durable(shard, op);
        return;
    }
    submit(shard, op, on_owner_done);
}

void dispatch_ended(struct op *op)
{
    if (op->at == op->home)
        complete(op->home, op);
    else
        go_home_durable(op->at, op);
}

void dispatch_deliver(void *context, struct mail *mail)
{
    struct shard *shard = context;
    struct op *op = container_of(mail, struct op, mail);
    if (op->home == shard)
        complete(shard, op);
    else
        execute_for_other(shard, op);
}

void dispatch_release(struct shard *shard)
{
    while (shard->gated_head != NULL) {
        struct op *op = container_of(shard->gated_head, struct op, mail);
        bool reached = op->gate <= shard->durable;
        if (!reached && !shard->failed)
            return;
        shard->gated_head = op->mail.next;
        if (shard->gated_head == NULL)
            shard->gated_tail = NULL;
        if (!reached)
            fail_op(shard, op);
        send_home(shard, op);
    }
}
