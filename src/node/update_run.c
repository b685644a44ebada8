/*
 * update_run.c - look, decide, change.
 *
 *   engine_try GET ─ done ─ run ─ engine_try PUT, REMOVE, EXPIRE ─ done ──────────► reply
 *        └ must wait ──────────────────────── must wait ┐ (as if nothing had been)
 *                     engine_submit HOLD ◄──────────────┘
 *                          └ run, reply is written ─ engine_conclude ─────────────► dispatch_ended
 *
 * A reply that shows the old value is written before the change is made, while the value is there. The large ones are
 * not copied: the reply is built around them where they lie.
 *
 * Failures: no memory for the new value or the reply: OOM, and nothing has changed. What the engine refuses is answered
 * as it is for a plain SET.
 */
#include "node/update_run.h"

#include "base/assert.h"
#include "node/dispatch.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stdlib.h>

/* From here on a piece comes from the pool for large memory. */
#define LARGE_PIECE_BYTES (256u * 1024)

struct update_piece {
    struct update_piece *next;
    size_t bytes;
    uint8_t data[];
};

/* ---- scratch --------------------------------------------------------------------------------------------------- */

void update_scratch_init(struct update_scratch *scratch, struct shard *shard, void *room, size_t room_bytes)
{
    *scratch = (struct update_scratch){
        .room = room, .room_bytes = room_bytes, .budget = shard->pool.budget, .large_pool = &shard->node->large};
    list_init(&scratch->large);
}

void update_scratch_deinit(struct update_scratch *scratch, struct large_trash *trash)
{
    while (scratch->pieces != NULL) {
        struct update_piece *piece = scratch->pieces;
        scratch->pieces = piece->next;
        atomic_fetch_sub_explicit(&scratch->budget->used_bytes, piece->bytes, memory_order_relaxed);
        free(piece);
    }
    for (struct list *node; (node = list_pop_front(&scratch->large)) != NULL;)
        large_trash_add(trash, container_of(node, struct large_memory, link));
}

static uint8_t *take_large(struct update_scratch *scratch, size_t bytes)
{
    struct large_memory *memory = large_memory_take(scratch->large_pool, bytes, 0);
    if (memory == NULL)
        return NULL;
    list_push_back(&scratch->large, &memory->link);
    return memory->data;
}

static uint8_t *take_piece(struct update_scratch *scratch, size_t bytes)
{
    struct op_budget *budget = scratch->budget;
    uint64_t used = atomic_fetch_add_explicit(&budget->used_bytes, bytes, memory_order_relaxed);
    struct update_piece *piece = used + bytes > budget->bytes_max ? NULL : malloc(sizeof *piece + bytes);
    if (piece == NULL) {
        atomic_fetch_sub_explicit(&budget->used_bytes, bytes, memory_order_relaxed);
        return NULL;
    }
    piece->bytes = bytes;
    piece->next = scratch->pieces;
    scratch->pieces = piece;
    return piece->data;
}

uint8_t *update_scratch_take(struct update_scratch *scratch, size_t bytes)
{
    uint8_t *taken;
    if (bytes <= scratch->room_bytes) {
        taken = scratch->room;
        scratch->room += bytes;
        scratch->room_bytes -= bytes;
    } else if (bytes < LARGE_PIECE_BYTES) {
        taken = take_piece(scratch, bytes);
    } else {
        taken = take_large(scratch, bytes);
    }
    scratch->refused = scratch->refused || taken == NULL;
    return taken;
}

/* ---- look, decide, change -------------------------------------------------------------------------------------- */

void update_decide(const struct update_spec *spec, struct slice operand, uint64_t now_ms,
                   struct update_scratch *scratch, struct update_attempt *attempt)
{
    const struct update_old old = {.found = attempt->old.found,
                                   .value = attempt->old.value,
                                   .value_bytes = attempt->old.value_bytes,
                                   .expires_ms = attempt->old.expires_ms,
                                   .now_ms = now_ms};
    attempt->outcome = (struct update_outcome){0};
    spec->run(spec, operand, &old, scratch, &attempt->outcome);
    const struct update_outcome *outcome = &attempt->outcome;
    KVS_ASSERT(outcome->reply != UPDATE_ERROR || outcome->change == UPDATE_KEEP);
    KVS_ASSERT((spec->flags & UPDATE_LOOKS_ONLY) == 0 || outcome->change == UPDATE_KEEP);
    if (outcome->change == UPDATE_EXPIRE && !old.found)
        attempt->outcome.change = UPDATE_KEEP;
    attempt->error = scratch->refused ? KVS_ERR_AGAIN : KVS_ERR_OK;
    attempt->gate = attempt->old.gate;
}

/* What the outcome asks of the engine; HOLD: nothing. A large value need not be written again for another expiry. */
static void ask_for_change(struct engine_request *request, const struct update_attempt *attempt)
{
    static const enum engine_action actions[] = {[UPDATE_KEEP] = ENGINE_HOLD,
                                                 [UPDATE_PUT] = ENGINE_PUT,
                                                 [UPDATE_REMOVE] = ENGINE_REMOVE,
                                                 [UPDATE_EXPIRE] = ENGINE_EXPIRE};
    const struct update_outcome *outcome = &attempt->outcome;
    bool again = outcome->change == UPDATE_EXPIRE && attempt->old.large_id == 0;
    request->action = again ? ENGINE_PUT : actions[outcome->change];
    request->value = again ? attempt->old.value : outcome->value;
    request->expires_ms = outcome->expires_ms;
}

struct engine_request update_look(const struct engine_request *request, const struct update_spec *spec)
{
    struct engine_request look = *request;
    look.action = ENGINE_GET;
    look.head = (spec->flags & UPDATE_HEAD) != 0;
    look.value = slice_make(NULL, 0);
    return look;
}

/* False: the engine cannot tell at once. */
static bool look_and_decide(struct shard *shard, const struct engine_request *request, const struct update_spec *spec,
                            struct update_scratch *scratch, struct update_attempt *attempt)
{
    const struct engine_request look = update_look(request, spec);
    if (engine_try(shard->engine, &look, &attempt->old) != ENGINE_DONE)
        return false;
    attempt->error = attempt->old.error;
    if (attempt->error == KVS_ERR_OK)
        update_decide(spec, request->value, engine_now_ms(shard->engine), scratch, attempt);
    return true;
}

/* False: the engine cannot change anything at once. */
static bool change(struct shard *shard, const struct engine_request *request, struct update_attempt *attempt)
{
    if (attempt->error != KVS_ERR_OK || attempt->outcome.change == UPDATE_KEEP)
        return true;
    struct engine_request asked = *request;
    struct engine_result result = {0};
    ask_for_change(&asked, attempt);
    if (engine_try(shard->engine, &asked, &result) != ENGINE_DONE)
        return false;
    attempt->error = result.error;
    if (result.gate > attempt->gate)
        attempt->gate = result.gate;
    return true;
}

enum engine_answer update_try(struct shard *shard, const struct engine_request *request, const struct update_spec *spec,
                              struct update_scratch *scratch, struct update_attempt *attempt)
{
    bool done = look_and_decide(shard, request, spec, scratch, attempt) && change(shard, request, attempt);
    return done ? ENGINE_DONE : ENGINE_MUST_WAIT;
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

/* The string that the reply is; false: it is none. */
static bool reply_string(const struct update_attempt *attempt, struct slice *string)
{
    const struct update_outcome *outcome = &attempt->outcome;
    bool old = outcome->reply == UPDATE_OLD && attempt->old.found;
    *string = old ? attempt->old.value : outcome->bytes;
    return old || outcome->reply == UPDATE_BULK;
}

size_t update_reply_bound(const struct update_attempt *attempt)
{
    const struct update_outcome *outcome = &attempt->outcome;
    struct slice string;
    if (attempt->error != KVS_ERR_OK || outcome->reply == UPDATE_ERROR)
        return REPLY_ERROR_BYTES_MAX;
    if (outcome->reply == UPDATE_RESP)
        return outcome->bytes.size;
    return reply_string(attempt, &string) ? resp_bulk_bytes(string.size) : RESP_HEADER_BYTES_MAX;
}

size_t update_reply_write(uint8_t *out, const struct update_spec *spec, const struct update_attempt *attempt,
                          const struct reply_origin *origin)
{
    const struct update_outcome *outcome = &attempt->outcome;
    struct slice string;
    if (attempt->error != KVS_ERR_OK) {
        const struct reply_format format = {.kind = REPLY_VALUE};
        const struct engine_result result = {.error = attempt->error};
        return reply_write(out, &format, &result, origin);
    }
    if (reply_string(attempt, &string))
        return resp_write_bulk(out, string);
    switch (outcome->reply) {
    case UPDATE_OK:
        return resp_write_simple(out, "OK");
    case UPDATE_INTEGER:
        return resp_write_integer(out, outcome->integer);
    case UPDATE_RESP:
        memcpy(out, outcome->bytes.data, outcome->bytes.size);
        return outcome->bytes.size;
    case UPDATE_ERROR:
        return resp_write_error(out, outcome->text);
    case UPDATE_NULL:
    case UPDATE_OLD:
    case UPDATE_BULK:
        break;
    }
    return resp_write_null(out, spec->resp_version);
}

/* ---- with a hold ----------------------------------------------------------------------------------------------- */

/* The reply as it will be if all goes well, into the op's scratch; around the old value where that lies, if it is a
 * large one. False: no memory. */
static bool prepare_reply(struct op *op, struct update_attempt *attempt)
{
    const struct reply_origin origin = shard_origin(op->at);
    struct large_memory *memory = op->engine.result.memory;
    struct slice string;
    if (memory != NULL && attempt->error == KVS_ERR_OK && reply_string(attempt, &string) &&
        string.data >= memory->data && string.data <= memory->data + memory->size) {
        op->engine.result.memory = NULL;
        list_push_back(&op->scratch.large, &memory->link);
        uint8_t *at = memory->data + (string.data - memory->data);
        op->reply_bytes = reply_write_around(at, string.size, &op->format, &op->reply);
        return true;
    }
    uint8_t *reply = update_scratch_take(&op->scratch, update_reply_bound(attempt));
    if (reply == NULL)
        return false;
    op->reply = reply;
    op->reply_bytes = update_reply_write(reply, &op->update, attempt, &origin);
    return true;
}

static void fail(struct op *op, enum kvs_err error)
{
    const struct reply_origin origin = shard_origin(op->at);
    op->engine.result = (struct engine_result){.error = error};
    op_write_reply(op, &op->engine.result, &origin);
}

/* A value that is to be written again has to outlive the record that it is in. */
static bool keep_old_value(struct op *op, struct update_attempt *attempt)
{
    struct slice *value = &attempt->old.value;
    if (attempt->outcome.change != UPDATE_EXPIRE || attempt->old.large_id != 0 || value->size == 0)
        return true;
    uint8_t *copy = update_scratch_take(&op->scratch, value->size);
    if (copy == NULL)
        return false;
    memcpy(copy, value->data, value->size);
    value->data = copy;
    return true;
}

void update_execute(struct shard *shard, struct op *op)
{
    struct update_attempt attempt = {0};
    const struct engine_request *request = &op->engine.request;
    op->engine.result.memory = NULL;
    if (!look_and_decide(shard, request, &op->update, &op->scratch, &attempt)) {
        update_submit(shard, op);
        return;
    }
    if (attempt.error == KVS_ERR_OK && !prepare_reply(op, &attempt))
        attempt.error = KVS_ERR_AGAIN;
    if (!change(shard, request, &attempt)) {
        update_submit(shard, op);
        return;
    }
    op->found = attempt.old.found;
    op->gate = attempt.gate;
    if (attempt.error != KVS_ERR_OK)
        fail(op, attempt.error);
    dispatch_ended(op);
}

static void on_concluded(struct engine_op *engine_op)
{
    struct op *op = container_of(engine_op, struct op, engine);
    const enum kvs_err error = op->undecided != KVS_ERR_OK ? op->undecided : engine_op->result.error;
    if (engine_op->result.gate > op->gate)
        op->gate = engine_op->result.gate;
    engine_op_release(engine_op);
    if (error == KVS_ERR_CHANGED) { /* what it has seen has expired since: from the beginning */
        engine_op->request.value = op->operand;
        update_submit(op->at, op);
        return;
    }
    if (error != KVS_ERR_OK)
        fail(op, error);
    dispatch_ended(op);
}

static void on_held(struct engine_op *engine_op)
{
    struct op *op = container_of(engine_op, struct op, engine);
    struct engine_result *result = &engine_op->result;
    if (result->error != KVS_ERR_OK) {
        const enum kvs_err error = result->error;
        engine_op_release(engine_op);
        fail(op, error);
        dispatch_ended(op);
        return;
    }
    struct update_attempt attempt = {.old = *result};
    update_decide(&op->update, op->operand, engine_now_ms(op->at->engine), &op->scratch, &attempt);
    if (attempt.error == KVS_ERR_OK && !(prepare_reply(op, &attempt) && keep_old_value(op, &attempt)))
        attempt.error = KVS_ERR_AGAIN;
    op->found = attempt.old.found;
    op->gate = attempt.gate;
    op->undecided = attempt.error;
    if (attempt.error == KVS_ERR_OK)
        ask_for_change(&engine_op->request, &attempt);
    engine_op->done = on_concluded;
    engine_conclude(engine_op);
}

void update_submit(struct shard *shard, struct op *op)
{
    update_scratch_deinit(&op->scratch, &shard->pool.trash);
    op->scratch.refused = false;
    op->operand = op->engine.request.value;
    op->undecided = KVS_ERR_OK;
    op->engine.request.action = ENGINE_HOLD;
    op->engine.request.head = (op->update.flags & UPDATE_HEAD) != 0;
    op->engine.done = on_held;
    engine_submit(shard->engine, &op->engine);
}
