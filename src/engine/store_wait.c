/*
 * store_wait.c - operations that cannot be answered at once.
 *
 * Order: an operation given to the owner is queued by the hash of its key. The first of a key runs; those behind it
 * wait until it is done. A GET leaves the queue as soon as it has taken its snapshot (below): what comes later cannot
 * change its answer.
 *
 * Cold reads: a snapshot lists the addresses of the candidates that have to be compared, newest first. They are read
 * one after another, each in one piece of the size its class tells, and verified: place, checksum, key. A GET ends at
 * the first record that has the key; REMOVE and settling compare all of them and then act on the index in one step.
 *
 * What is being read at a time is bounded, in bytes. Reads beyond that wait, and look again when their turn has come.
 *
 * Large values: the value of a PUT becomes a file before the record is appended, and those who want the key wait
 * meanwhile. A GET reads the file when it has found the record. (store_values.h)
 *
 * Failure: a record that does not verify is read once more, then reported as damage (P3): the operation ends with
 * CORRUPT, and nothing else is taken for the answer. A write that finds no room waits on the stalled list until the log
 * has a new segment, or ends with the error that keeps segments from being made.
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

enum { CANDIDATES_MAX = 64, LATE_READS_MAX = 64 };

enum op_state { OP_QUEUED, OP_RUNNING, OP_STALLED };

/* What an operation needs while it reads. */
struct wait {
    struct ring_op io;
    struct list link;      /* in shard->waits */
    struct list read_link; /* in shard->reads, or among the followers of one that is there */
    struct list followers; /* those who want the record that is being read */
    struct engine_op *op;
    struct store_shard *shard;
    bool queued;  /* the operation is on the owner's queue */
    bool reading; /* it counts in shard->reading[generation]: segments that it may read from stay */
    uint8_t generation;
    struct value_reader_mark mark; /* of a GET: files that die stay until it has ended */
    bool large;                    /* … and has found a large value: */
    struct value_descriptor descriptor;
    uint64_t gate;
    bool moved; /* the record that is being read has another place by now, or has left the index */
    unsigned tries;

    unsigned count, position;   /* of the snapshot */
    uint64_t compared;          /* bit i: whether addresses[i] has the key is known */
    uint64_t equal;             /* bit i: it has */
    uint64_t expiring, expired; /* bit i, with equal: it has an expiry, which has passed */
    uint64_t addresses[CANDIDATES_MAX];
    uint8_t classes[CANDIDATES_MAX];
    unsigned known_large_count;
    struct store_known_large known_large[STORE_KNOWN_LARGE_MAX];

    uint8_t *buffer;
    size_t buffer_bytes;
    uint32_t skip;  /* from the buffer's start to the record */
    uint64_t whole; /* bytes of the record when its class did not tell */
};

static bool advance(struct wait *wait);
static void read_done(struct ring_op *io);

static void wait_drop_buffer(struct wait *wait)
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

static struct engine_op *first_of_key(const struct store_shard *shard, uint64_t hash)
{
    const struct list *bucket = &shard->busy[hash % STORE_BUSY_BUCKETS];
    for (struct list *node = bucket->next; node != bucket; node = node->next) {
        struct engine_op *op = container_of(node, struct engine_op, link);
        if (op->request.hash == hash)
            return op;
    }
    return NULL;
}

bool store_busy(const struct store_shard *owner, uint64_t hash)
{
    return first_of_key(owner, hash) != NULL;
}

static void leave_queue(struct store_shard *owner, struct engine_op *op)
{
    KVS_ASSERT(owner->busy_count > 0);
    list_remove(&op->link);
    owner->busy_count--;
}

/*
 * What a GET has listed may be read at any time until it ends. Other operations are told when a record moves, so that
 * only a read in flight counts: they may wait for room in the log, which cannot come before segments are given up.
 */
static void reading_begin(struct wait *wait)
{
    if (wait->reading)
        return;
    wait->reading = true;
    wait->generation = (uint8_t)wait->shard->generation;
    wait->shard->reading[wait->generation]++;
}

static void reading_end(struct wait *wait)
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
        reading_end(wait);
        store_value_mark_end(&wait->mark);
    }
    if (op->put != NULL)
        store_value_put_end(shard, op, op->result.error == KVS_ERR_OK);
    engine_section_begin(&shard->base);
    op->done(op);
    engine_section_end(&shard->base);
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
    reading_end(wait);
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
    complete(shard, op);
}

/* ---- carrying out ---------------------------------------------------------------------------------------------- */

/* A write whose candidates are all known. False: it waits for room now. */
static bool execute(struct store_shard *shard, struct engine_op *op)
{
    struct wait *wait = op->wait;
    struct store_known known = {0};
    if (wait != NULL)
        known = (struct store_known){.addresses = wait->addresses,
                                     .count = wait->count,
                                     .equal = wait->equal,
                                     .expiring = wait->expiring,
                                     .expired = wait->expired,
                                     .large_count = wait->known_large_count,
                                     .large = wait->known_large};
    enum kvs_err err = KVS_ERR_OK;
    engine_section_begin(&shard->base);
    if ((int)op->request.action == STORE_SETTLE)
        store_settle(shard, &op->request, &known);
    else if (!op->removes)
        err = store_put(shard, &op->request, op->put == NULL ? NULL : &op->put->writer.descriptor, &op->result);
    else
        err = store_remove(shard, &op->request, &known, &op->result);
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

/* Moves on to the next candidate that has to be compared; wait->count when there is none. */
static unsigned next_unknown(struct wait *wait)
{
    while (wait->position < wait->count && (wait->compared >> wait->position & 1) != 0)
        wait->position++;
    return wait->position;
}

/* A GET has its record: if the value lies in a file that comes next. */
static void note_large(struct wait *wait, const struct record_header *record)
{
    wait->gate = wait->op->result.gate;
    wait->large = wait->op->result.found && record_is_large(record) && !wait->op->request.head;
    if (wait->large)
        wait->descriptor = record_descriptor(record);
}

/* A GET's result from a record in RAM: gated, if it is not durable yet. */
static void give_resident(struct wait *wait, const struct record_header *record)
{
    struct engine_result *result = &wait->op->result;
    store_result(wait->shard, record, &wait->shard->log, &wait->op->request, result);
    if (result->gate != 0)
        log_want(&wait->shard->log, result->gate);
    note_large(wait, record);
}

/* The candidate at `position` has the key: REMOVE and settling may have to let its value die. */
static void note_equal(struct wait *wait, unsigned position, const struct record_header *record)
{
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
            note_equal(wait, wait->count, record);
        wait->addresses[wait->count] = entry.address;
        wait->classes[wait->count++] = (uint8_t)entry.class;
    }
    *result = (struct engine_result){.error = KVS_ERR_OK};
    if (!get)
        return next_unknown(wait) == wait->count;
    if (answer != NULL)
        give_resident(wait, answer);
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
    wait->queued = false;
    wait->reading = false;
    wait->moved = false;
    wait->large = false;
    wait->gate = 0;
    wait->known_large_count = 0;
    list_init(&wait->mark.link);
    if (op->request.action == ENGINE_GET) {
        reading_begin(wait);
        store_value_mark_begin(shard, &wait->mark);
    }
    list_push_back(&shard->waits, &wait->link);
    wait->tries = 0;
    wait->count = wait->position = 0;
    wait->compared = wait->equal = wait->expiring = wait->expired = 0;
    wait->buffer = NULL;
    wait->buffer_bytes = 0;
    wait->whole = 0;
    return wait;
}

/* Begins the first operation of a key, inside a section. True when it is done already and still on the queue. */
static bool run(struct store_shard *shard, struct engine_op *op)
{
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
    if (!snapshot(wait)) {
        wait->queued = !get;
        if (get)
            leave_queue(shard, op);
        if (!advance(wait))
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
        uint64_t hash = op->request.hash;
        leave_queue(shard, op);
        complete(shard, op);
        serve_key(shard, hash);
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
    uint64_t hash = op->request.hash;
    leave_queue(shard, op);
    complete(shard, op);
    serve_key(shard, hash);
}

/* ---- cold reads ------------------------------------------------------------------------------------------------ */

/* All that had to be compared has been: ends a GET, carries out a write. */
static void wait_finish(struct wait *wait)
{
    struct engine_op *op = wait->op;
    struct store_shard *shard = wait->shard;
    uint64_t hash = op->request.hash;
    if (!wait->queued) {
        finish_get(shard, op);
        return;
    }
    wait_drop_buffer(wait);
    if (op->result.error == KVS_ERR_OK && !execute(shard, op))
        return;
    leave_queue(shard, op);
    complete(shard, op);
    serve_key(shard, hash);
}

static struct list *reads_of(struct store_shard *shard, uint64_t address)
{
    return &shard->reads[address % STORE_READ_BUCKETS];
}

/* Waits for a read of the same record that is under way, if there is one. */
static bool join_read(struct wait *wait)
{
    uint64_t address = wait->addresses[wait->position];
    struct list *bucket = reads_of(wait->shard, address);
    for (struct list *node = bucket->next; node != bucket && wait->whole == 0; node = node->next) {
        struct wait *other = container_of(node, struct wait, read_link);
        if (other->addresses[other->position] != address || other->moved)
            continue;
        list_push_back(&other->followers, &wait->read_link);
        store_count(&wait->shard->counters.reads_joined, 1);
        return true;
    }
    return false;
}

/*
 * The candidate at wait->position has left the index since the snapshot: its key, another one with this fingerprint,
 * was written again or removed. It does not matter any more to an operation that changes the index, and its segment may
 * be gone. (To a GET it does, whose segments stay.)
 */
static bool candidate_gone(const struct wait *wait)
{
    struct index_cursor cursor;
    struct index_entry entry;
    if (!wait->queued)
        return false;
    index_find(wait->shard->index, wait->op->request.hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address == wait->addresses[wait->position])
            return false;
    }
    return true;
}

/* True when so many bytes are being read that this read has to wait. One that is made again does not. */
static bool wait_for_turn(struct wait *wait, uint64_t bytes)
{
    struct store_shard *shard = wait->shard;
    if (shard->reads_in_flight == 0 || shard->reads_bytes + bytes <= shard->reads_bytes_max || wait->whole != 0 ||
        wait->tries > 0 || canary_on(CANARY_READS_UNBOUNDED))
        return false;
    list_push_back(&shard->reads_late, &wait->read_link);
    return true;
}

/* Reads the candidate at wait->position. False, with an error for a result, when there is no memory for it. */
static bool start_read(struct wait *wait)
{
    if (join_read(wait))
        return true;
    const struct store *store = wait->shard->store;
    uint64_t address = wait->addresses[wait->position];
    const struct segment *segment = segment_get(&store->segments, address_segment(address, store->segments.shift));
    KVS_ASSERT(segment != NULL);
    uint32_t offset = address_offset(address, store->segments.shift);
    uint64_t want = wait->whole != 0 ? wait->whole : record_class_bytes(wait->classes[wait->position]);
    uint64_t begin = align_down(offset, KVS_BLOCK_BYTES);
    uint64_t end = align_up(offset + want, KVS_BLOCK_BYTES);
    if (end > store->segments.segment_bytes)
        end = store->segments.segment_bytes;
    if (wait_for_turn(wait, end - begin))
        return true;
    wait->skip = (uint32_t)(offset - begin);
    wait->buffer_bytes = (size_t)(end - begin);
    wait->buffer = store_buffer_take(wait->shard, wait->buffer_bytes);
    if (wait->buffer == NULL) {
        wait->op->result = (struct engine_result){.error = KVS_ERR_NO_MEMORY};
        return false;
    }
    reading_begin(wait);
    list_push_back(reads_of(wait->shard, address), &wait->read_link);
    wait->shard->reads_in_flight++;
    wait->shard->reads_bytes += wait->buffer_bytes;
    store_count(&wait->shard->counters.disk_reads, 1);
    store_count(&wait->shard->counters.disk_read_bytes, (int64_t)wait->buffer_bytes);
    ring_op_init(&wait->io, read_done);
    ring_file_read(wait->shard->ring, &wait->io, segment->fd, wait->buffer, wait->buffer_bytes, begin);
    return true;
}

static void read_again(struct wait *wait)
{
    wait_drop_buffer(wait);
    if (!start_read(wait))
        wait_finish(wait);
}

static void report_damage(struct wait *wait)
{
    const struct store *store = wait->shard->store;
    uint64_t address = wait->addresses[wait->position];
    store_count(&wait->shard->counters.damaged_reads, 1);
    snprintf(wait->shard->damage, sizeof wait->shard->damage, "segment %06u, offset %u: %s",
             address_segment(address, store->segments.shift), address_offset(address, store->segments.shift),
             wait->io.error != KVS_ERR_OK ? ring_op_text(&wait->io) : "the record's checksum or length is wrong");
    diag_error("damaged record: %s", wait->shard->damage);
    wait->op->result = (struct engine_result){.error = wait->io.error != KVS_ERR_OK ? KVS_ERR_IO : KVS_ERR_CORRUPT};
}

/* Takes a verified record into account. True when nothing more has to be read. */
static bool accept_record(struct wait *wait, const struct record_header *record)
{
    struct engine_op *op = wait->op;
    unsigned position = wait->position++;
    wait->compared |= 1ull << position;
    if (record_has_key(record, op->request.key) || canary_on(CANARY_COLD_KEY_IGNORED)) {
        if (op->request.action == ENGINE_GET) {
            store_result(wait->shard, record, &wait->shard->log, &op->request, &op->result);
            if (!op->result.found && record->kind == RECORD_PUT)
                store_expiry_met(wait->shard, op->request.hash, wait->addresses[position], record_is_large(record));
            if (canary_on(CANARY_COLD_EXPIRY_IGNORED) && record->kind == RECORD_PUT) {
                op->result.found = true;
                op->result.value = record_value(record);
            }
            note_large(wait, record);
            return true;
        }
        note_equal(wait, position, record);
    }
    return next_unknown(wait) == wait->count;
}

/* What was read is the record at wait->addresses[wait->position], whole and undamaged. */
static void take_record(struct wait *wait, const struct record_header *record)
{
    wait->tries = 0;
    wait->whole = 0;
    struct store_shard *shard = wait->shard; /* `wait` may be gone before the section ends */
    engine_section_begin(&shard->base);
    bool known = accept_record(wait, record);
    if (!known) {
        wait_drop_buffer(wait);
        known = advance(wait);
    }
    if (known)
        wait_finish(wait);
    engine_section_end(&shard->base);
}

/* Each of those who waited for the same record gets a copy: its operation may keep it longer. */
static void serve_followers(struct list *followers, const struct wait *leader)
{
    for (struct list *node = followers->next; node != followers; node = node->next) {
        struct wait *wait = container_of(node, struct wait, read_link);
        wait->buffer_bytes = leader->buffer_bytes;
        wait->skip = leader->skip;
        wait->buffer = store_buffer_take(wait->shard, wait->buffer_bytes);
        if (wait->buffer != NULL)
            memcpy(wait->buffer, leader->buffer, wait->buffer_bytes);
    }
}

/* With the candidates that are left. */
static void go_on(struct wait *wait)
{
    struct store_shard *shard = wait->shard; /* `wait` may be gone before the section ends */
    wait->tries = 0;
    wait->whole = 0;
    wait_drop_buffer(wait);
    engine_section_begin(&shard->base);
    if (advance(wait))
        wait_finish(wait);
    engine_section_end(&shard->base);
}

static void release_followers(struct list *followers, bool served)
{
    for (struct list *node; (node = list_pop_front(followers)) != NULL;) {
        struct wait *wait = container_of(node, struct wait, read_link);
        if (served && wait->buffer != NULL)
            take_record(wait, (const struct record_header *)(const void *)(wait->buffer + wait->skip));
        else
            go_on(wait);
    }
}

static void remember(struct store_shard *shard, const struct segment *segment, uint64_t address,
                     const struct record_header *record)
{
    struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_relaxed);
    if (cache != NULL)
        read_cache_add(cache, segment->uid, address, record);
}

/* Whether the read has given a whole, undamaged record. If not, something else was begun, or the operation has ended.
 */
static bool read_was_good(struct wait *wait, const struct segment *segment, const struct record_header *record)
{
    const struct ring_op *io = &wait->io;
    const struct store *store = wait->shard->store;
    uint64_t room = io->bytes > wait->skip ? io->bytes - wait->skip : 0;
    if (io->error == KVS_ERR_OK && room >= sizeof *record && wait->whole == 0) {
        uint64_t whole = record_size(record);
        if (whole > room && whole <= log_record_bytes_max(&store->segments)) {
            /* Of the largest class: now its size is known. */
            wait->whole = whole;
            read_again(wait);
            return false;
        }
    }
    bool unchecked = canary_on(CANARY_COLD_CHECKSUM_IGNORED) && room >= sizeof *record;
    uint32_t offset = address_offset(wait->addresses[wait->position], store->segments.shift);
    if (io->error == KVS_ERR_OK && (record_check(record, room, segment->seed, offset) == RECORD_VALID || unchecked))
        return true;
    if (candidate_gone(wait)) {
        go_on(wait);
        return false;
    }
    if (wait->tries++ > 0) {
        report_damage(wait);
        wait_finish(wait);
        return false;
    }
    wait->whole = 0;
    read_again(wait);
    return false;
}

/* Those whose turn has come. Some need no read any more: not too many of these at once, as long as others fly. */
static void start_late(struct store_shard *shard)
{
    for (unsigned tries = 0; !list_empty(&shard->reads_late); tries++) {
        bool room = shard->reads_bytes + STORE_READ_BUFFER_BYTES <= shard->reads_bytes_max && tries < LATE_READS_MAX;
        if (shard->reads_in_flight > 0 && !room)
            return;
        go_on(container_of(list_pop_front(&shard->reads_late), struct wait, read_link));
    }
}

static void read_done(struct ring_op *io)
{
    struct wait *wait = container_of(io, struct wait, io);
    struct store_shard *shard = wait->shard;
    uint64_t address = wait->addresses[wait->position];
    const struct segment_table *table = &shard->store->segments;
    const struct segment *segment = segment_get(table, address_segment(address, table->shift));
    struct list followers;
    list_init(&followers);
    for (struct list *node; (node = list_pop_front(&wait->followers)) != NULL;)
        list_push_back(&followers, node);
    list_remove(&wait->read_link);
    shard->reads_in_flight--;
    shard->reads_bytes -= wait->buffer_bytes;
    if (wait->queued)
        reading_end(wait);
    const struct record_header *record = (const struct record_header *)(const void *)(wait->buffer + wait->skip);
    bool good = false;
    if (wait->moved) {
        wait->moved = false;
        go_on(wait);
    } else {
        good = read_was_good(wait, segment, record);
    }
    if (good) {
        serve_followers(&followers, wait);
        if (wait->op->request.action == ENGINE_GET)
            remember(shard, segment, address, record);
        take_record(wait, record);
    }
    release_followers(&followers, good);
    start_late(shard);
}

/*
 * Compares the next candidates, inside a section: one may have an image by now, or still (the resident record that ends
 * a GET's snapshot). True when all that matters is known, or the result is an error; else a read is under way.
 */
static bool advance(struct wait *wait)
{
    bool get = wait->op->request.action == ENGINE_GET;
    while (next_unknown(wait) < wait->count) {
        if (candidate_gone(wait)) {
            wait->compared |= 1ull << wait->position;
            continue;
        }
        const struct record_header *record = store_look(wait->shard, wait->addresses[wait->position]);
        if (record == NULL)
            return !start_read(wait);
        bool answers = get && record_has_key(record, wait->op->request.key);
        bool known = accept_record(wait, record);
        if (answers)
            give_resident(wait, record);
        if (known)
            return true;
    }
    return true;
}
