/*
 * store_wait.c - operations that cannot be answered at once: their order, and what comes of them.
 *
 * Order: an operation given to the owner is queued by the hash of its key. The first of a key runs; those behind it
 * wait until it is done. A GET leaves the queue as soon as it has taken its snapshot (below): what comes later cannot
 * change its answer.
 *
 * Cold reads: a snapshot lists the addresses of the candidates that have to be compared, newest first, which
 * store_reads.c does. A GET ends at the first record that has the key; REMOVE and settling compare all of them and then
 * act on the index in one step.
 *
 * Holds: a HOLD looks for its record as a GET does, but stays on the queue. Its holder is told, and concludes, which
 * makes the operation a write that knows what the HOLD has found. If the value has expired in the meantime it ends with
 * CHANGED: what was decided is out of date.
 *
 * Large values: the value of a PUT becomes a file before the record is appended, and those who want the key wait
 * meanwhile. A GET reads the file when it has found the record. (store_values.h)
 *
 * Failure: a write that finds no room waits on the stalled list until the log has a new segment, or ends with the error
 * that keeps segments from being made.
 */
#include "engine/store_wait.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

enum op_state {
    OP_QUEUED,
    OP_RUNNING,
    OP_STALLED,
    OP_TELLING,   /* a HOLD: its holder is being told */
    OP_HELD,      /* … and has the key */
    OP_CONCLUDED, /* … and has concluded while it was being told */
};

void wait_drop_buffer(struct wait *wait)
{
    store_buffer_give(wait->shard, wait->buffer, wait->buffer_bytes);
    wait->buffer = NULL;
}

void store_op_release(struct engine_op *op)
{
    if (op->result.memory != NULL)
        large_trash_add(&store_shard_of(op->shard)->values.trash, op->result.memory);
    op->result.memory = NULL;
    struct wait *wait = op->wait;
    if (wait == NULL)
        return;
    wait_drop_buffer(wait);
    list_remove(&wait->link);
    free(wait);
    op->wait = NULL;
}

void store_wait_deinit(struct store_shard *shard)
{
    for (struct list *node; (node = list_pop_front(&shard->waits)) != NULL;) {
        struct wait *wait = container_of(node, struct wait, link);
        free(wait->buffer);
        free(wait);
    }
    store_settlings_free(shard);
    store_buffers_free(shard);
}

/* ---- the queues of keys ---------------------------------------------------------------------------------------- */

static struct list *bucket_of(struct store_shard *shard, uint64_t hash)
{
    return &shard->busy[hash % STORE_BUSY_BUCKETS];
}

/* Deliberate bugs: holds that do not keep others away. */
static bool lets_others_in(const struct engine_op *op)
{
    bool reads = op->request.action == ENGINE_HOLD && op->state == OP_RUNNING;
    return (op->state == OP_HELD && canary_on(CANARY_HOLD_ENDS_EARLY)) ||
           (reads && canary_on(CANARY_HOLD_READS_OPENLY));
}

static struct engine_op *first_of_key(const struct store_shard *shard, uint64_t hash)
{
    const struct list *bucket = &shard->busy[hash % STORE_BUSY_BUCKETS];
    for (struct list *node = bucket->next; node != bucket; node = node->next) {
        struct engine_op *op = container_of(node, struct engine_op, link);
        if (op->request.hash == hash && !lets_others_in(op))
            return op;
    }
    return NULL;
}

bool store_busy(const struct store_shard *owner, uint64_t hash)
{
    return first_of_key(owner, hash) != NULL;
}

static void serve_key(struct store_shard *shard, uint64_t hash);
static bool tell_holder(struct store_shard *shard, struct engine_op *op);

static void leave_queue(struct store_shard *owner, struct engine_op *op)
{
    KVS_ASSERT(owner->busy_count > 0);
    list_remove(&op->link);
    owner->busy_count--;
}

void wait_reading_begin(struct wait *wait)
{
    if (wait->reading)
        return;
    wait->reading = true;
    wait->generation = (uint8_t)wait->shard->generation;
    wait->shard->reading[wait->generation]++;
}

void wait_reading_end(struct wait *wait)
{
    if (!wait->reading)
        return;
    KVS_ASSERT(wait->shard->reading[wait->generation] > 0);
    wait->reading = false;
    wait->shard->reading[wait->generation]--;
}

/* No address: of a candidate that has left the index. */
#define NOWHERE UINT64_MAX

/*
 * The addresses that an operation knows must not be taken for other records later, when segments have been used again.
 * What has its key never lies at an address that it knows of another record, and an address of its key is forgotten
 * when the entry goes. (Of other keys an old address may stay: whatever comes there is not of this key either.)
 */
void store_wait_moved(struct store_shard *owner, uint64_t hash, uint64_t from, uint64_t to)
{
    struct list *bucket = bucket_of(owner, hash);
    for (struct list *node = bucket->next; node != bucket; node = node->next) {
        const struct engine_op *op = container_of(node, struct engine_op, link);
        struct wait *wait = op->wait;
        if (op->request.hash != hash || wait == NULL || canary_on(CANARY_MOVES_NOT_TOLD))
            continue;
        for (unsigned i = 0; i < wait->count; i++) {
            bool old = wait->addresses[i] == to && !canary_on(CANARY_OLD_PLACES_KEPT);
            if (!old && wait->addresses[i] != from)
                continue;
            wait->addresses[i] = old ? NOWHERE : to;
            wait->moved = wait->moved || (wait->reading && i == wait->position);
        }
    }
}

void store_wait_gone(struct store_shard *owner, uint64_t hash, uint64_t address)
{
    if (owner->busy_count > 0 && !canary_on(CANARY_OLD_PLACES_KEPT))
        store_wait_moved(owner, hash, address, NOWHERE);
}

/* Ends an operation that has its result and is on no queue. */
static void complete(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    if (wait != NULL) {
        wait_reading_end(wait);
        store_value_mark_end(&wait->mark);
        if (wait->in_group)
            atomic_fetch_sub(&shard->held_in_group, 1);
    }
    if (op->put != NULL)
        store_value_put_end(shard, op->put, op->result.error == KVS_ERR_OK);
    op->put = NULL;
    engine_section_begin(&shard->base);
    op->done(op);
    engine_section_end(&shard->base);
}

/* Ends an operation that has its result and is on its key's queue. */
static void finish(struct store_shard *shard, struct engine_op *op)
{
    uint64_t hash = op->request.hash;
    leave_queue(shard, op);
    complete(shard, op);
    serve_key(shard, hash);
}

/* A GET that is on no queue and has found what it looked for: a large value is still to be read. What comes of its
 * segment does not matter any more. */
static void finish_get(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    if (wait == NULL || !wait->large || op->result.error != KVS_ERR_OK) {
        complete(shard, op);
        return;
    }
    wait_reading_end(wait);
    wait_drop_buffer(wait);
    store_value_get(shard, op, &wait->mark, &wait->descriptor);
}

void store_value_got(struct store_shard *shard, struct engine_op *op, const char *damage)
{
    struct engine_result *result = &op->result;
    const struct wait *wait = op->wait;
    if (result->error == KVS_ERR_OK) {
        result->found = true;
        result->value_bytes = result->value.size;
        result->large_id = wait->descriptor.id;
        result->gate = wait->gate > log_durable(&shard->log) ? wait->gate : 0;
    } else if (result->error == KVS_ERR_CORRUPT || result->error == KVS_ERR_IO) {
        store_count(&shard->counters.damaged_reads, 1);
        snprintf(shard->damage, sizeof shard->damage, "%s", damage);
        diag_error("damaged value: %s", shard->damage);
    }
    if (op->request.action != ENGINE_HOLD)
        complete(shard, op);
    else if (result->error != KVS_ERR_OK || tell_holder(shard, op))
        finish(shard, op);
}

/* ---- carrying out ---------------------------------------------------------------------------------------------- */

struct store_known wait_known(const struct wait *wait)
{
    if (wait == NULL)
        return (struct store_known){0};
    return (struct store_known){.addresses = wait->addresses,
                                .count = wait->count,
                                .compared = wait->compared,
                                .equal = wait->equal,
                                .expiring = wait->expiring,
                                .expired = wait->expired,
                                .large_count = wait->known_large_count,
                                .large = wait->known_large};
}

/* A write whose candidates are all known. False: it waits for room now. */
static bool execute(struct store_shard *shard, struct engine_op *op)
{
    const struct wait *wait = op->wait;
    const struct store_known known = wait_known(wait);
    const struct value_descriptor *descriptor = op->put != NULL ? &op->put->writer.descriptor : NULL;
    if (op->request.action == ENGINE_EXPIRE)
        descriptor = &wait->descriptor;
    const struct store_write write = {.request = &op->request, .known = &known, .descriptor = descriptor};
    enum kvs_err err = KVS_ERR_OK;
    engine_section_begin(&shard->base);
    if ((int)op->request.action == STORE_SETTLE)
        store_settle(shard, &op->request, &known);
    else if (!op->removes && wait != NULL && engine_expired(&shard->base, wait->expires_ms) &&
             !canary_on(CANARY_HOLD_OUT_OF_DATE))
        err = KVS_ERR_CHANGED;
    else if (!op->removes)
        err = store_put(shard, &write, &op->result);
    else
        err = store_remove(shard, &write, &op->result);
    engine_section_end(&shard->base);
    if (err == KVS_ERR_AGAIN)
        err = store_no_room(shard, op->removes);
    if (err == KVS_ERR_AGAIN && shard->stopping)
        err = KVS_ERR_CANCELLED;
    if (err == KVS_ERR_AGAIN) {
        if (op->state != OP_STALLED)
            store_count(op->removes ? &shard->counters.removes_waited : &shard->counters.puts_waited, 1);
        op->state = OP_STALLED;
        list_push_back(op->removes ? &shard->stalled_removes : &shard->stalled, &op->stall_link);
        return false;
    }
    if (err != KVS_ERR_OK)
        op->result = (struct engine_result){.error = err};
    return true;
}

unsigned wait_next_unknown(struct wait *wait)
{
    while (wait->position < wait->count && (wait->compared >> wait->position & 1) != 0)
        wait->position++;
    return wait->position;
}

void wait_note_large(struct wait *wait, const struct record_header *record)
{
    wait->gate = wait->op->result.gate;
    bool large = wait->op->result.found && record_is_large(record);
    wait->large = large && !wait->op->request.head;
    if (large)
        wait->descriptor = record_descriptor(record);
}

void wait_give_resident(struct wait *wait, const struct record_header *record)
{
    struct engine_result *result = &wait->op->result;
    store_result(wait->shard, record, &wait->shard->log, &wait->op->request, result);
    if (result->gate != 0)
        log_want(&wait->shard->log, result->gate);
    wait_note_large(wait, record);
}

void wait_note_equal(struct wait *wait, unsigned position, const struct record_header *record)
{
    if ((wait->equal >> position & 1) != 0)
        return;
    wait->equal |= 1ull << position;
    if (record_is_large(record) && wait->known_large_count < STORE_KNOWN_LARGE_MAX)
        wait->known_large[wait->known_large_count++] =
            (struct store_known_large){.position = position, .descriptor = record_descriptor(record)};
    wait->expiring |= (uint64_t)(record_expires_ms(record) != 0) << position;
    wait->expired |= (uint64_t)store_expired(wait->shard, record) << position;
}

/*
 * Lists the candidates, newest first. For a GET up to the first resident record of the key; for others all of them,
 * with what a look at the resident ones tells. True when nothing has to be read: a GET then has its result.
 */
static bool snapshot(struct wait *wait)
{
    const struct engine_request *request = &wait->op->request;
    struct engine_result *result = &wait->op->result;
    bool get = request->action == ENGINE_GET;
    const struct record_header *answer = NULL;
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(wait->shard->index, request->hash, &cursor);
    while (answer == NULL && wait->count < CANDIDATES_MAX && index_next(&cursor, &entry)) {
        const struct record_header *record = store_look(wait->shard, entry.address);
        bool equal = record != NULL && record_has_key(record, request->key);
        if (get && record != NULL && !equal)
            continue;
        if (get && equal)
            answer = record;
        if (!get && record != NULL)
            wait->compared |= 1ull << wait->count;
        if (!get && equal)
            wait_note_equal(wait, wait->count, record);
        wait->addresses[wait->count] = entry.address;
        wait->classes[wait->count++] = (uint8_t)entry.class;
    }
    *result = (struct engine_result){.error = KVS_ERR_OK};
    if (!get)
        return wait_next_unknown(wait) == wait->count;
    if (answer != NULL)
        wait_give_resident(wait, answer);
    return wait->count == (answer != NULL ? 1 : 0);
}

static struct wait *wait_new(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = malloc(sizeof *wait);
    op->wait = wait;
    if (wait == NULL) {
        op->result = (struct engine_result){.error = KVS_ERR_NO_MEMORY};
        return NULL;
    }
    wait->op = op;
    wait->shard = shard;
    list_init(&wait->read_link);
    list_init(&wait->followers);
    wait->queued = op->request.action == ENGINE_HOLD;
    wait->reading = false;
    wait->moved = false;
    wait->large = false;
    wait->gate = 0;
    wait->expires_ms = 0;
    wait->in_group = false;
    wait->known_large_count = 0;
    list_init(&wait->mark.link);
    if (op->request.action == ENGINE_GET)
        wait_reading_begin(wait);
    if (op->request.action == ENGINE_GET || (op->request.action == ENGINE_HOLD && !op->request.head))
        store_value_mark_begin(shard, &wait->mark);
    list_push_back(&shard->waits, &wait->link);
    wait->tries = 0;
    wait->count = wait->position = 0;
    wait->compared = wait->equal = wait->expiring = wait->expired = 0;
    wait->buffer = NULL;
    wait->buffer_bytes = 0;
    wait->whole = 0;
    return wait;
}

/* ---- holds ----------------------------------------------------------------------------------------------------- */

/* The holder has concluded. True when that is done, and the operation on the queue still. */
static bool carry_out(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    op->state = OP_RUNNING;
    wait_drop_buffer(wait);
    if (op->result.memory != NULL)
        large_trash_add(&shard->values.trash, op->result.memory);
    op->result = (struct engine_result){.error = KVS_ERR_OK};
    if (op->request.action == ENGINE_HOLD)
        return true;
    op->removes = store_removes(shard, &op->request);
    if (op->removes) {
        /* What is behind the newest has to be known, too. */
        wait->position = 0;
        return wait_advance(wait) && (op->result.error != KVS_ERR_OK || execute(shard, op));
    }
    if (!store_value_is_large(shard, &op->request))
        return execute(shard, op);
    op->result.error = store_value_put(shard, op);
    return op->result.error != KVS_ERR_OK;
}

/* The result is there. True when the holder has concluded already and that is done; the operation is on the queue. */
static bool tell_holder(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    wait->expires_ms = op->result.found ? op->result.expires_ms : 0;
    store_value_mark_end(&wait->mark); /* nobody is to wait for memory until the holder has concluded */
    if (op->request.group)
        atomic_fetch_add(&shard->held_in_group, 1);
    wait->in_group = op->request.group;
    op->state = OP_TELLING;
    engine_section_begin(&shard->base);
    op->done(op);
    bool concluded = op->state == OP_CONCLUDED;
    if (!concluded)
        op->state = OP_HELD;
    bool done = concluded && carry_out(shard, op);
    engine_section_end(&shard->base);
    return done;
}

/* All that a HOLD has to know is known, but for a large value. True when it is over, and on the queue still. */
static bool hold_found(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    if (op->result.error != KVS_ERR_OK)
        return true;
    if (!wait->large)
        return tell_holder(shard, op);
    wait->large = false;
    wait_drop_buffer(wait);
    store_value_get(shard, op, &wait->mark, &wait->descriptor);
    return false;
}

void store_conclude(struct engine_op *op)
{
    struct store_shard *shard = store_shard_of(op->shard);
    KVS_ASSERT(op->state == OP_TELLING || op->state == OP_HELD);
    if (op->state == OP_TELLING) {
        op->state = OP_CONCLUDED;
        return;
    }
    engine_section_begin(&shard->base);
    bool done = carry_out(shard, op);
    engine_section_end(&shard->base);
    if (done)
        finish(shard, op);
}

/* ---- the turn of a key ------------------------------------------------------------------------------------------- */

/* Begins the first operation of a key, inside a section. True when it is done already and still on the queue. */
static bool run(struct store_shard *shard, struct engine_op *op)
{
    KVS_ASSERT(op->request.action != ENGINE_EXPIRE);
    op->state = OP_RUNNING;
    op->removes = store_removes(shard, &op->request);
    if (store_value_is_large(shard, &op->request) && !op->removes) {
        enum kvs_err err = store_value_put(shard, op);
        if (err != KVS_ERR_OK)
            op->result = (struct engine_result){.error = err};
        return err != KVS_ERR_OK;
    }
    if (op->request.action == ENGINE_PUT && !op->removes)
        return execute(shard, op);
    struct wait *wait = wait_new(shard, op);
    if (wait == NULL)
        return true;
    bool get = op->request.action == ENGINE_GET;
    bool known = (op->request.action == ENGINE_HOLD && op->request.blind) || snapshot(wait);
    if (op->request.action == ENGINE_HOLD)
        return wait_advance(wait) && hold_found(shard, op);
    if (!known) {
        wait->queued = !get;
        if (get)
            leave_queue(shard, op);
        if (!wait_advance(wait))
            return false;
        if (get) {
            finish_get(shard, op);
            return false;
        }
    }
    return get || op->result.error != KVS_ERR_OK || execute(shard, op);
}

/* Runs the operations of a key, in order, until one has to wait or there are no more. */
static void serve_key(struct store_shard *shard, uint64_t hash)
{
    struct engine_op *op;
    engine_section_begin(&shard->base);
    while ((op = first_of_key(shard, hash)) != NULL && op->state == OP_QUEUED) {
        bool get = op->request.action == ENGINE_GET;
        if (run(shard, op)) {
            leave_queue(shard, op);
            finish_get(shard, op); /* as any other, if it is none */
        } else if (!get) {
            break; /* a GET that waits has left the queue */
        }
    }
    engine_section_end(&shard->base);
}

void store_submit(struct engine_shard *owner, struct engine_op *op)
{
    struct store_shard *shard = store_shard_of(owner);
    op->shard = owner;
    op->wait = NULL;
    op->put = NULL;
    op->state = OP_QUEUED;
    op->result = (struct engine_result){.error = KVS_ERR_OK};
    list_init(&op->stall_link);
    list_push_back(bucket_of(shard, op->request.hash), &op->link);
    shard->busy_count++;
    serve_key(shard, op->request.hash);
}

static void resume(struct store_shard *shard, struct list *stalled)
{
    while (!list_empty(stalled)) {
        struct engine_op *op = container_of(stalled->next, struct engine_op, stall_link);
        list_remove(&op->stall_link);
        if (!execute(shard, op)) {
            /* Still no room: it keeps its place at the head. */
            list_remove(&op->stall_link);
            op->stall_link.next = stalled->next;
            op->stall_link.prev = stalled;
            stalled->next->prev = &op->stall_link;
            stalled->next = &op->stall_link;
            return;
        }
        finish(shard, op);
    }
}

/* Removes first: they make room, and there may be some for them alone. */
void store_resume_stalled(struct store_shard *shard)
{
    resume(shard, &shard->stalled_removes);
    resume(shard, &shard->stalled);
}

void store_value_written(struct store_shard *shard, struct engine_op *op, enum kvs_err error)
{
    if (error != KVS_ERR_OK)
        op->result = (struct engine_result){.error = error};
    else if (!execute(shard, op))
        return; /* it waits for room */
    finish(shard, op);
}

void wait_finish(struct wait *wait)
{
    struct engine_op *op = wait->op;
    struct store_shard *shard = wait->shard;
    if (!wait->queued) {
        finish_get(shard, op);
        return;
    }
    if (op->request.action == ENGINE_HOLD) {
        if (hold_found(shard, op))
            finish(shard, op);
        return;
    }
    wait_drop_buffer(wait);
    if (op->result.error == KVS_ERR_OK && !execute(shard, op))
        return;
    finish(shard, op);
}
