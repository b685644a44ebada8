/*
 * gather.c - one reply out of many answers.
 *
 * Happy path: every key can be answered at once; the reply is written into the connection's output and nothing is
 * allocated. Otherwise a struct gather takes the request's slot, and an op goes out for every key that has to wait; the
 * last one to come back makes the reply. Its gate is the highest of the parts that were executed here; parts from other
 * shards are durable.
 *
 * Failures. The first part with an error gives the reply. Too many keys for the ops that are left: an error before
 * anything was done. A reply beyond GATHER_REPLY_BYTES_MAX, or beyond the budget for requests under way: an error.
 */
#include "node/gather.h"

#include "base/assert.h"
#include "base/canary.h"
#include "node/dispatch.h"
#include "node/exec.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stdlib.h>

/* Copied at a time; a longer reply is put together over several turns. */
#define COPY_BYTES (512u * 1024)

struct gather {
    struct net_slot slot;
    struct list link; /* in shard->gathers */
    struct shard *shard;
    struct client *client;
    unsigned pending;   /* parts under way, and one while they are being sent */
    uint64_t gate;      /* highest of the parts */
    uint64_t found;     /* keys that were there */
    enum kvs_err error; /* of the first part that failed; `failed` has its text, if it was an op */
    struct op *failed;
    struct op_budget *budget;
    uint8_t *reply;
    size_t reply_capacity; /* taken from the budget; 0: `small`, or `large`, is used */
    struct large_memory *large;
    size_t reply_size;  /* of what has been put together so far */
    unsigned next_part; /* to be copied … */
    size_t next_byte;   /* … from here on */
    uint8_t small[64];
    unsigned part_count;    /* 0 when counting */
    struct gather_use *use; /* of the values; NULL: they are the reply */
    struct op *parts[];     /* values, in order */
};

static void reply_error_now(struct shard *shard, struct net_conn *conn, enum kvs_err error)
{
    uint8_t *out = net_reply_reserve(conn, REPLY_ERROR_BYTES_MAX);
    if (out == NULL)
        return;
    struct reply_origin origin = shard_origin(shard);
    struct engine_result result = {.error = error};
    struct reply_format format = {.kind = REPLY_FOUND};
    shard_count_error(shard, reply_error_code(error));
    net_reply_commit(conn, reply_write(out, &format, &result, &origin), 0);
}

static void gather_free(struct gather *gather)
{
    list_remove(&gather->link);
    if (gather->reply_capacity > 0) {
        atomic_fetch_sub_explicit(&gather->budget->used_bytes, gather->reply_capacity, memory_order_relaxed);
        free(gather->reply);
    }
    large_trash_add(&gather->shard->pool.trash, gather->large);
    if (gather->use != NULL)
        gather->use->release(gather->use, gather->shard);
    free(gather);
}

static void on_released(struct net_slot *slot)
{
    gather_free(container_of(slot, struct gather, slot));
}

void gather_abandon(struct shard *shard)
{
    struct list *lists[] = {&shard->gathers, &shard->assembling};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        while (!list_empty(lists[i]))
            gather_free(container_of(lists[i]->next, struct gather, link));
    }
}

static struct gather *gather_begin(struct shard *shard, struct net_conn *conn, unsigned part_count)
{
    struct gather *gather = calloc(1, sizeof(*gather) + part_count * sizeof(gather->parts[0]));
    if (gather == NULL)
        return NULL;
    gather->shard = shard;
    gather->client = net_conn_user(conn);
    gather->budget = shard->pool.budget;
    gather->part_count = part_count;
    gather->pending = 1;
    list_push_back(&shard->gathers, &gather->link);
    net_reply_defer(conn, &gather->slot);
    gather->slot.released = on_released;
    return gather;
}

static void note_gate(uint64_t *highest, uint64_t gate)
{
    if (gate > *highest)
        *highest = gate;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static bool reserve_reply(struct gather *gather, uint64_t bytes)
{
    gather->reply = gather->small;
    if (bytes <= sizeof(gather->small))
        return true;
    uint64_t used = atomic_fetch_add_explicit(&gather->budget->used_bytes, bytes, memory_order_relaxed);
    bool fits = bytes <= GATHER_REPLY_BYTES_MAX && used + bytes <= gather->budget->bytes_max;
    uint8_t *memory = fits ? malloc(bytes) : NULL;
    if (memory == NULL) {
        atomic_fetch_sub_explicit(&gather->budget->used_bytes, bytes, memory_order_relaxed);
        return false;
    }
    gather->reply = memory;
    gather->reply_capacity = bytes;
    return true;
}

static size_t write_error(struct gather *gather)
{
    uint8_t text[REPLY_ERROR_BYTES_MAX];
    struct slice reply = {.data = text};
    if (gather->failed != NULL) {
        reply = slice_make(gather->failed->reply, gather->failed->reply_bytes);
    } else {
        struct reply_origin origin = shard_origin(gather->shard);
        struct engine_result result = {.error = gather->error};
        struct reply_format format = {.kind = REPLY_FOUND};
        reply.size = reply_write(text, &format, &result, &origin);
    }
    if (!reserve_reply(gather, reply.size))
        return resp_write_error(gather->small, "OOM kvs-node: no memory for the reply; try again");
    memcpy(gather->reply, reply.data, reply.size);
    return reply.size;
}

/* Room for all values; false, with an error, when there is none. */
static bool begin_values(struct gather *gather)
{
    uint64_t bytes = RESP_HEADER_BYTES_MAX;
    for (unsigned i = 0; i < gather->part_count; i++)
        bytes += gather->parts[i]->reply_bytes;
    bool fits;
    if (bytes > COPY_BYTES) {
        if (bytes <= GATHER_REPLY_BYTES_MAX)
            gather->large = large_memory_take(&gather->shard->node->large, bytes, 0);
        fits = gather->large != NULL;
        gather->reply = fits ? gather->large->data : NULL;
    } else {
        fits = reserve_reply(gather, bytes);
    }
    if (fits)
        gather->reply_size = resp_write_array_header(gather->reply, gather->part_count);
    else
        gather->error = KVS_ERR_AGAIN;
    return fits;
}

/* Copies some of the values; true when all have been. */
static bool copy_values(struct gather *gather)
{
    size_t left = COPY_BYTES;
    while (gather->next_part < gather->part_count && left > 0) {
        const struct op *part = gather->parts[gather->next_part];
        size_t size = part->reply_bytes - gather->next_byte;
        if (size > left)
            size = left;
        memcpy(gather->reply + gather->reply_size, part->reply + gather->next_byte, size);
        gather->reply_size += size;
        gather->next_byte += size;
        left -= size;
        if (gather->next_byte == part->reply_bytes) {
            gather->next_part++;
            gather->next_byte = 0;
        }
    }
    return gather->next_part == gather->part_count;
}

/* All that the reply is made of is there, and is not needed any more after this. */
static void give_reply(struct gather *gather)
{
    struct shard *shard = gather->shard;
    size_t size = gather->reply_size;
    if (gather->error != KVS_ERR_OK) {
        size = write_error(gather);
    } else if (gather->use != NULL) {
        gather->reply = gather->use->reply.data;
        size = gather->use->reply.size;
    } else if (gather->part_count == 0) {
        gather->reply = gather->small;
        size = resp_write_integer(gather->small, (int64_t)gather->found);
    }
    list_remove(&gather->link);
    list_push_back(&shard->gathers, &gather->link);
    for (unsigned i = 0; i < gather->part_count; i++) {
        if (gather->parts[i] != NULL && gather->parts[i] != gather->failed)
            op_give(&shard->pool, gather->parts[i]);
    }
    if (gather->failed != NULL)
        op_give(&shard->pool, gather->failed);
    net_slot_fill(&gather->slot, gather->reply, size, shard_gate(shard, gather->client, gather->gate));
}

static bool work_on_values(struct gather *gather)
{
    struct gather_use *use = gather->use;
    if (!use->work(use))
        return false;
    if (use->reply.failed)
        gather->error = KVS_ERR_AGAIN;
    return true;
}

void gather_turn(struct shard *shard)
{
    if (list_empty(&shard->assembling))
        return;
    struct gather *gather = container_of(shard->assembling.next, struct gather, link);
    if (gather->use != NULL ? work_on_values(gather) : copy_values(gather))
        give_reply(gather);
    else if (gather->use != NULL) { /* that may take long: the others' turn */
        list_remove(&gather->link);
        list_push_back(&shard->assembling, &gather->link);
    }
}

/* What a part's reply has between its header and its end. */
static struct slice value_of(const struct op *part)
{
    const uint8_t *end = memchr(part->reply, '\n', part->reply_bytes);
    if (part->reply[0] != '$' || part->reply[1] == '-' || end == NULL)
        return slice_make("", 0);
    const size_t header = (size_t)(end - part->reply) + 1;
    return slice_make(part->reply + header, part->reply_bytes - header - 2);
}

static void begin_use(struct gather *gather)
{
    struct slice values[GATHER_USE_KEYS_MAX];
    for (unsigned i = 0; i < gather->part_count; i++)
        values[i] = value_of(gather->parts[i]);
    gather->use->begin(gather->use, gather->shard, values);
}

static void finish(struct gather *gather)
{
    bool values = gather->error == KVS_ERR_OK && gather->part_count > 0;
    bool later;
    if (values && gather->use != NULL) {
        begin_use(gather);
        later = gather->use->reply.size == 0 && !gather->use->reply.failed;
        if (gather->use->reply.failed)
            gather->error = KVS_ERR_AGAIN;
    } else {
        later = values && begin_values(gather) && !copy_values(gather);
    }
    if (later) {
        list_remove(&gather->link);
        list_push_back(&gather->shard->assembling, &gather->link);
    } else {
        give_reply(gather);
    }
}

static void part_ended(struct gather *gather)
{
    KVS_ASSERT(gather->pending > 0);
    if (--gather->pending == 0)
        finish(gather);
}

void gather_part_done(struct op *op)
{
    struct gather *gather = op->gather;
    const struct engine_result *result = &op->engine.result;
    bool first_error = false;
    if (result->error == KVS_ERR_OK) {
        gather->found += result->found;
    } else if (gather->error == KVS_ERR_OK) {
        gather->error = result->error;
        gather->failed = op;
        first_error = true;
    }
    note_gate(&gather->gate, op->gate);
    if (gather->part_count == 0 && !first_error)
        op_give(&gather->shard->pool, op);
    part_ended(gather);
}

/* An op for one key, on its way; false when there was no memory for it. */
static bool send_part(struct gather *gather, const struct engine_request *request, const struct reply_format *format,
                      enum route route, struct op **out)
{
    struct shard *shard = gather->shard;
    struct op *op = op_take(&shard->pool);
    if (op == NULL)
        return false;
    if (!op_copy_request(op, request)) {
        op_give(&shard->pool, op);
        return false;
    }
    op->gather = gather;
    op->client = gather->client;
    op->format = *format;
    if (out != NULL)
        *out = op;
    gather->pending++;
    dispatch_op(shard, op, route);
    return true;
}

/* ---- DEL, UNLINK, EXISTS --------------------------------------------------------------------------------------- */

void gather_count(struct shard *shard, struct net_conn *conn, enum engine_action action, const struct slice *keys,
                  unsigned count)
{
    if (shard->exec != NULL) {
        exec_count(shard->exec, action, keys, count);
        return;
    }
    if (shard->count > 1 && count > op_pool_left(&shard->pool)) {
        reply_error_now(shard, conn, KVS_ERR_AGAIN);
        return;
    }
    struct client *client = net_conn_user(conn);
    struct reply_format format = {.kind = REPLY_FOUND, .resp_version = client->resp_version};
    struct gather *gather = NULL;
    enum kvs_err error = KVS_ERR_OK;
    uint64_t found = 0, gate = 0;

    for (unsigned i = 0; i < count && error == KVS_ERR_OK; i++) {
        struct engine_request request = dispatch_request(shard, client, action, keys[i], slice_make(NULL, 0));
        request.head = action == ENGINE_GET;
        struct engine_result result = {0};
        enum route route = dispatch_try(shard, client, &request, &result);
        if (route == ROUTE_DONE) {
            error = result.error;
            found += error == KVS_ERR_OK && result.found;
            note_gate(&gate, canary_on(CANARY_DEL_UNGATED) ? 0 : result.gate);
            continue;
        }
        if (gather == NULL)
            gather = gather_begin(shard, conn, 0);
        if (gather == NULL || !send_part(gather, &request, &format, route, NULL))
            error = KVS_ERR_AGAIN;
    }

    if (gather != NULL) {
        gather->found += found;
        note_gate(&gather->gate, gate);
        if (gather->error == KVS_ERR_OK)
            gather->error = error;
        part_ended(gather);
    } else if (error != KVS_ERR_OK) {
        reply_error_now(shard, conn, error);
    } else {
        uint8_t *out = net_reply_reserve(conn, RESP_HEADER_BYTES_MAX);
        if (out != NULL)
            net_reply_commit(conn, resp_write_integer(out, (int64_t)found), shard_gate(shard, client, gate));
    }
}

/* ---- MGET ------------------------------------------------------------------------------------------------------ */

/* Answers from RAM, all of it or nothing. */
static bool values_at_once(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count)
{
    struct client *client = net_conn_user(conn);
    struct reply_format format = {.kind = REPLY_VALUE, .resp_version = client->resp_version};
    uint64_t bytes = RESP_HEADER_BYTES_MAX, gate = 0, hits = 0;
    if (count > SHARD_SCRATCH_RESULTS)
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct engine_request request = dispatch_request(shard, client, ENGINE_GET, keys[i], slice_make(NULL, 0));
        struct engine_result *result = &shard->scratch[i];
        *result = (struct engine_result){0};
        if (dispatch_try(shard, client, &request, result) != ROUTE_DONE || result->error != KVS_ERR_OK)
            return false;
        bytes += reply_bound(&format, result);
        note_gate(&gate, result->gate);
        hits += result->found;
    }
    if (bytes > GATHER_REPLY_BYTES_MAX)
        return false;

    uint8_t *out = net_reply_reserve(conn, bytes);
    if (out == NULL)
        return true; /* the connection has ended */
    struct reply_origin origin = shard_origin(shard);
    size_t size = resp_write_array_header(out, count);
    for (unsigned i = 0; i < count; i++)
        size += reply_write(out + size, &format, &shard->scratch[i], &origin);
    net_reply_commit(conn, size, shard_gate(shard, client, gate));
    __atomic_store_n(&shard->counters.hits, shard->counters.hits + hits, __ATOMIC_RELAXED);
    __atomic_store_n(&shard->counters.misses, shard->counters.misses + count - hits, __ATOMIC_RELAXED);
    return true;
}

/* An op for a key whose answer is there. */
static bool take_part(struct gather *gather, const struct engine_result *result, const struct reply_format *format,
                      struct op **out)
{
    struct shard *shard = gather->shard;
    struct op *op = op_take(&shard->pool);
    if (op == NULL)
        return false;
    struct reply_origin origin = shard_origin(shard);
    op->gather = gather;
    op->format = *format;
    op->engine.result = *result;
    op_write_reply(op, &op->engine.result, &origin);
    op->gate = result->gate;
    *out = op;
    gather->pending++;
    shard_count(result->found ? &shard->counters.hits : &shard->counters.misses);
    gather_part_done(op);
    return true;
}

static void gather_later(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count,
                         struct gather_use *use)
{
    struct client *client = net_conn_user(conn);
    struct gather *gather = count > op_pool_left(&shard->pool) ? NULL : gather_begin(shard, conn, count);
    if (gather == NULL) {
        reply_error_now(shard, conn, KVS_ERR_AGAIN);
        if (use != NULL)
            use->release(use, shard);
        return;
    }
    gather->use = use;
    struct reply_format format = {.kind = REPLY_VALUE, .resp_version = client->resp_version};
    for (unsigned i = 0; i < count && gather->error == KVS_ERR_OK; i++) {
        struct engine_request request = dispatch_request(shard, client, ENGINE_GET, keys[i], slice_make(NULL, 0));
        request.eager = true; /* the parts that are there hold memory until all are */
        struct engine_result result = {0};
        enum route route = dispatch_try(shard, client, &request, &result);
        bool sent = route == ROUTE_DONE ? take_part(gather, &result, &format, &gather->parts[i])
                                        : send_part(gather, &request, &format, route, &gather->parts[i]);
        if (!sent && gather->error == KVS_ERR_OK)
            gather->error = KVS_ERR_AGAIN;
    }
    part_ended(gather);
}

void gather_values(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count)
{
    const struct client *client = net_conn_user(conn);
    if (shard->exec != NULL)
        exec_values(shard->exec, keys, count, client->resp_version);
    else if (!values_at_once(shard, conn, keys, count))
        gather_later(shard, conn, keys, count, NULL);
}

void gather_use(struct shard *shard, struct net_conn *conn, const struct slice *keys, unsigned count,
                struct gather_use *use)
{
    KVS_ASSERT(count >= 1 && count <= GATHER_USE_KEYS_MAX);
    if (shard->exec != NULL)
        exec_use(shard->exec, keys, count, use);
    else
        gather_later(shard, conn, keys, count, use);
}
