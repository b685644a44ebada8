/*
 * transaction.c - leading groups of changes.
 *
 * States at home:
 *   HOLDING ──► (decide) ──► PREPARING ──► APPENDING ──► WRITING ──► PUBLISHING ──► FREEING ──► gone
 *      │            └ nothing changes ────────────────────────────────────────────────┘  ▲
 *      └ a hold has failed, no file for a large value, no room in the log ─────────────────┘
 *
 * The keys of one owner are a part, which travels as one message: they are asked for in one turn, in the order of their
 * hashes. Parts are held one after the other in the order of their owners, so that two transactions can never wait for
 * each other. Publishing and freeing go to all parts at once.
 *
 * A part goes home from holding when what it has read is durable: what is decided from it cannot be taken back. What
 * has expired by the time of the decision is not there.
 *
 * Large requests are not copied: the transaction keeps the memory that they were received in. So it does with large
 * values that were read.
 *
 * Failures. A key that cannot be read, no room in the log: the error is the reply, nothing has changed. The home's log
 * fails while the group is being written: the owners learn that LSNs are gone, nothing is published, and the reply says
 * that the shard has failed. The connection has gone: all of it happens all the same.
 */
#include "node/transaction.h"

#include "base/assert.h"
#include "base/hash.h"
#include "node/exec.h"
#include "node/node_internal.h"
#include "node/reply.h"
#include "proto/resp.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>

enum transaction_state { HOLDING, PREPARING, APPENDING, WRITING, PUBLISHING, FREEING };

enum {
    ARRAY_ALIGN = alignof(max_align_t),
    KEYS_AHEAD = 16, /* looked for at a time */
};

/* The keys of one owner: keys[first] … keys[first + count - 1]. */
struct transaction_part {
    struct mail mail;
    struct list link; /* at its owner, while it waits there */
    struct transaction *transaction;
    unsigned owner;
    unsigned first, count;
    unsigned pending;   /* keys that have to be told or freed */
    unsigned published; /* keys that need not be looked at any more */
    enum transaction_state step;
    uint64_t gate;      /* of what was read */
    uint64_t after_lsn; /* of its owner */
    enum kvs_err error;
};

struct transaction {
    struct net_slot slot;
    struct list link; /* in home->transactions */
    struct shard *home;
    struct transaction_options options;
    enum transaction_state state;
    struct update_scratch *arena; /* `own`; of one within another the other's */
    struct update_scratch own;
    unsigned given; /* keys as they were given */
    unsigned count; /* different ones */
    struct transaction_key *keys;
    unsigned *places; /* of the given ones among them */
    struct slice *values;
    unsigned part_count, parts_home;
    bool sending; /* to all parts: nothing goes on before that */
    struct transaction_part *parts;
    struct engine_change *changes;
    unsigned change_count;
    struct engine_group group;
    bool appended;
    uint64_t after_lsn;
    enum kvs_err error;
    struct slice reply;
    bool released;
    bool kept;                     /* the request lies in the arena */
    alignas(16) uint8_t room[256]; /* the arena's first bytes */
};

static void go_on(struct transaction *transaction);

/* ---- what decide uses ------------------------------------------------------------------------------------------ */

struct transaction_key *transaction_key(struct transaction *transaction, unsigned i)
{
    KVS_ASSERT(i < transaction->given);
    return &transaction->keys[transaction->places[i]];
}

struct slice transaction_value(const struct transaction *transaction, unsigned i)
{
    KVS_ASSERT(i < transaction->given && transaction->values != NULL);
    return transaction->values[i];
}

unsigned transaction_count(const struct transaction *transaction)
{
    return transaction->given;
}

struct shard *transaction_home(const struct transaction *transaction)
{
    return transaction->home;
}

const void *transaction_context(const struct transaction *transaction)
{
    return transaction->options.context;
}

struct update_scratch *transaction_arena(struct transaction *transaction)
{
    return transaction->arena;
}

uint64_t transaction_now_ms(const struct transaction *transaction)
{
    return engine_now_ms(transaction->home->engine);
}

static uint8_t *reply_room(struct transaction *transaction, size_t bytes)
{
    uint8_t *room = update_scratch_take(transaction->arena, bytes);
    transaction->reply = slice_make(room, 0);
    return room;
}

void transaction_reply_integer(struct transaction *transaction, int64_t value)
{
    uint8_t *out = reply_room(transaction, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_integer(out, value);
}

void transaction_reply_ok(struct transaction *transaction)
{
    uint8_t *out = reply_room(transaction, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_simple(out, "OK");
}

void transaction_reply_bytes(struct transaction *transaction, struct slice bytes)
{
    transaction->reply = bytes;
}

void transaction_reply_error(struct transaction *transaction, const char *text)
{
    uint8_t *out = reply_room(transaction, REPLY_ERROR_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_error(out, text);
    for (unsigned i = 0; i < transaction->count; i++)
        transaction->keys[i].change = TRANSACTION_KEEP;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void transaction_free(struct transaction *transaction)
{
    list_remove(&transaction->link);
    if (transaction->options.freed != NULL)
        transaction->options.freed(transaction->home, transaction->options.context);
    update_scratch_deinit(transaction->arena, &transaction->home->pool.trash);
    free(transaction);
}

static bool may_go(const struct transaction *transaction)
{
    return transaction->released && transaction->state == FREEING && transaction->parts_home == transaction->part_count;
}

static void on_released(struct net_slot *slot)
{
    struct transaction *transaction = container_of(slot, struct transaction, slot);
    transaction->released = true;
    if (may_go(transaction))
        transaction_free(transaction);
}

/* What is shown is durable. */
static void answer(struct transaction *transaction)
{
    struct shard *shard = transaction->home;
    if (transaction->error == KVS_ERR_OK && (transaction->arena->refused || transaction->reply.size == 0))
        transaction->error = KVS_ERR_AGAIN;
    if (transaction->error != KVS_ERR_OK) {
        static const struct reply_format format = {.kind = REPLY_OK};
        const struct reply_origin origin = shard_origin(shard);
        const struct engine_result result = {.error = transaction->error};
        uint8_t *out = update_scratch_take(transaction->arena, REPLY_ERROR_BYTES_MAX);
        shard_count(&shard->counters.errors);
        transaction->reply = slice_text("-OOM kvs-node: no memory for the request\r\n");
        if (out != NULL)
            transaction->reply = slice_make(out, reply_write(out, &format, &result, &origin));
    }
    net_conn_go_on(transaction->slot.conn);
    net_slot_fill(&transaction->slot, transaction->reply.data, transaction->reply.size, 0);
}

/* ---- at the owner of a part's keys ------------------------------------------------------------------------------- */

static void send_home(struct shard *at, struct transaction_part *part)
{
    struct transaction *transaction = part->transaction;
    if (transaction->home == at) {
        transaction->parts_home++;
        go_on(transaction);
        return;
    }
    mailbox_post(at->mailbox, transaction->home->id, &part->mail);
}

static struct shard *shard_at(const struct transaction_part *part)
{
    return &part->transaction->home->node->shards[part->owner];
}

/* All keys of the part are held, or could not be. What was read may not be durable yet. */
static void part_held(struct transaction_part *part)
{
    struct shard *at = shard_at(part);
    part->after_lsn = engine_lsn(at->engine);
    list_push_back(&at->parts_waiting, &part->link);
}

static void on_held(struct engine_op *op)
{
    struct transaction_key *key = container_of(op, struct transaction_key, hold);
    struct transaction_part *part = key->part;
    struct engine_result *result = &op->result;
    key->held = result->error == KVS_ERR_OK;
    if (result->error != KVS_ERR_OK) {
        part->error = result->error;
        engine_op_release(op);
    } else {
        key->found = key->stood = result->found;
        key->version = result->version;
        key->expires_ms = result->expires_ms;
        key->value_bytes = result->value_bytes;
        part->gate = result->gate > part->gate ? result->gate : part->gate;
        if (result->memory != NULL) {
            list_push_back(&part->transaction->arena->large, &result->memory->link);
            key->value = slice_make(result->memory->data, result->value.size);
            result->memory = NULL;
        } else if (key->needs_value && result->value.size > 0) {
            uint8_t *copy = update_scratch_take(part->transaction->arena, result->value.size);
            if (copy != NULL)
                memcpy(copy, result->value.data, result->value.size);
            else
                part->error = KVS_ERR_AGAIN;
            key->value = slice_make(copy, copy == NULL ? 0 : result->value.size);
        }
    }
    if (--part->pending == 0)
        part_held(part);
}

/* What the next keys of a part need is on its way while the first of them is looked up. */
static void fetch_ahead(const struct shard *shard, const struct transaction_key *keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        engine_prefetch(shard->engine, shard->id, keys[i].hash, ENGINE_PREFETCH_INDEX);
    for (unsigned i = 0; i < count; i++)
        engine_prefetch(shard->engine, shard->id, keys[i].hash, ENGINE_PREFETCH_RECORD);
}

static void hold_part(struct shard *shard, struct transaction_part *part)
{
    struct transaction *transaction = part->transaction;
    const uint64_t now_ns = ring_now_ns(shard->ring);
    part->pending = part->count;
    for (unsigned i = 0; i < part->count; i++) {
        struct transaction_key *key = &transaction->keys[part->first + i];
        if (i % KEYS_AHEAD == 0)
            fetch_ahead(shard, key, part->count - i < KEYS_AHEAD ? part->count - i : KEYS_AHEAD);
        key->hold.request = (struct engine_request){.action = ENGINE_HOLD,
                                                    .group = true,
                                                    .blind = transaction->options.blind,
                                                    .head = !key->needs_value,
                                                    .asked_ns = now_ns,
                                                    .hash = key->hash,
                                                    .key = key->key};
        key->hold.done = on_held;
        engine_submit(shard->engine, &key->hold);
    }
}

/* As far as it goes now; false: again in a later turn. */
static bool publish_part(struct transaction_part *part)
{
    struct transaction *transaction = part->transaction;
    bool durable = transaction->error == KVS_ERR_OK;
    for (; part->published < part->count; part->published++) {
        struct transaction_key *key = &transaction->keys[part->first + part->published];
        if (key->written == NULL)
            continue;
        if (engine_publish(&key->hold, durable ? key->written : NULL, &transaction->group) != KVS_ERR_OK)
            return false;
    }
    return true;
}

static void on_freed(struct engine_op *op)
{
    struct transaction_key *key = container_of(op, struct transaction_key, hold);
    struct transaction_part *part = key->part;
    engine_op_release(op);
    if (--part->pending == 0)
        send_home(shard_at(part), part);
}

static void free_part(struct shard *shard, struct transaction_part *part)
{
    struct transaction *transaction = part->transaction;
    part->pending = 1;
    for (unsigned i = 0; i < part->count; i++)
        part->pending += transaction->keys[part->first + i].held;
    for (unsigned i = 0; i < part->count; i++) {
        struct transaction_key *key = &transaction->keys[part->first + i];
        if (!key->held)
            continue;
        key->hold.done = on_freed;
        engine_conclude(&key->hold);
    }
    if (--part->pending == 0)
        send_home(shard, part);
}

static void work_on(struct shard *shard, struct transaction_part *part)
{
    switch (part->step) {
    case HOLDING:
        hold_part(shard, part);
        break;
    case PUBLISHING:
        if (publish_part(part))
            send_home(shard, part);
        else
            list_push_back(&shard->parts_waiting, &part->link);
        break;
    default:
        free_part(shard, part);
        break;
    }
}

/* ---- at home ----------------------------------------------------------------------------------------------------- */

static void send_part(struct transaction *transaction, struct transaction_part *part, enum transaction_state step)
{
    struct shard *shard = transaction->home;
    part->step = step;
    transaction->parts_home--;
    if (part->owner == shard->id)
        work_on(shard, part);
    else
        mailbox_post(shard->mailbox, part->owner, &part->mail);
}

/* To all of them. One that is here may come back at once; the last act may free the transaction. */
static void send_all(struct transaction *transaction, enum transaction_state step)
{
    transaction->state = step;
    transaction->sending = true;
    for (unsigned i = 0; i < transaction->part_count; i++)
        send_part(transaction, &transaction->parts[i], step);
    transaction->sending = false;
    go_on(transaction);
}

static void set_free(struct transaction *transaction)
{
    if (transaction->appended)
        engine_group_end(transaction->home->engine, &transaction->group);
    answer(transaction);
    send_all(transaction, FREEING);
}

static void forget_if_expired(const struct transaction *transaction, struct transaction_key *key)
{
    if (key->expires_ms == 0 || key->expires_ms > transaction_now_ms(transaction))
        return;
    key->found = key->stood = false;
    key->version = 0;
    key->value = slice_make(NULL, 0);
    key->value_bytes = 0;
    key->expires_ms = 0;
}

static void decide(struct transaction *transaction)
{
    for (unsigned i = 0; i < transaction->count; i++)
        forget_if_expired(transaction, &transaction->keys[i]);
    transaction->options.decide(transaction);
    if (transaction->arena->refused || transaction->reply.size == 0)
        transaction->error = KVS_ERR_AGAIN;
    for (unsigned i = 0; transaction->error == KVS_ERR_OK && i < transaction->count; i++) {
        struct transaction_key *key = &transaction->keys[i];
        bool removes = key->change == TRANSACTION_REMOVE;
        if (key->change == TRANSACTION_KEEP || (removes && !key->stood))
            continue;
        key->written = &transaction->changes[transaction->change_count++];
        *key->written = (struct engine_change){
            .key = key->key, .value = key->new_value, .removes = removes, .expires_ms = key->new_expires_ms};
    }
    transaction->state = PREPARING;
    if (transaction->change_count == 0)
        set_free(transaction);
}

/* Large values become files. True: the log is next. */
static bool prepare_group(struct transaction *transaction)
{
    enum kvs_err err = engine_group_prepare(transaction->home->engine, &transaction->group, transaction->changes,
                                            transaction->change_count);
    if (err == KVS_ERR_AGAIN)
        return false;
    transaction->error = err;
    transaction->state = APPENDING;
    if (err != KVS_ERR_OK)
        set_free(transaction); /* which may be the end of it */
    return err == KVS_ERR_OK;
}

/* True: it is being written. *room is false when there is none in the log, for now. */
static bool append(struct transaction *transaction, bool *room)
{
    enum kvs_err err = engine_group_append(transaction->home->engine, &transaction->group, transaction->changes,
                                           transaction->change_count, transaction->after_lsn);
    *room = err != KVS_ERR_AGAIN;
    if (err == KVS_ERR_AGAIN)
        return false;
    transaction->appended = err == KVS_ERR_OK;
    transaction->error = err;
    transaction->state = WRITING;
    if (err != KVS_ERR_OK)
        set_free(transaction);
    return err == KVS_ERR_OK;
}

/* The next part to be held; none: all are. */
static void hold_next(struct transaction *transaction)
{
    for (unsigned i = 0; i < transaction->part_count; i++) {
        struct transaction_part *part = &transaction->parts[i];
        if (part->error != KVS_ERR_OK)
            transaction->error = part->error;
        if (part->after_lsn > transaction->after_lsn)
            transaction->after_lsn = part->after_lsn;
    }
    for (unsigned i = 0; transaction->error == KVS_ERR_OK && i < transaction->part_count; i++) {
        if (transaction->parts[i].pending == 0 && !transaction->keys[transaction->parts[i].first].held) {
            send_part(transaction, &transaction->parts[i], HOLDING);
            return;
        }
    }
    if (transaction->error == KVS_ERR_OK)
        decide(transaction);
    else
        set_free(transaction);
}

/* Something has happened to it: a part has come back. */
static void go_on(struct transaction *transaction)
{
    if (transaction->sending || transaction->parts_home < transaction->part_count)
        return;
    switch (transaction->state) {
    case HOLDING:
        hold_next(transaction);
        break;
    case PUBLISHING:
        set_free(transaction);
        break;
    case FREEING:
        if (may_go(transaction))
            transaction_free(transaction);
        break;
    case PREPARING:
    case APPENDING:
    case WRITING:
        break; /* transaction_turn */
    }
}

void transaction_deliver(struct shard *shard, struct mail *mail)
{
    struct transaction_part *part = container_of(mail, struct transaction_part, mail);
    if (part->transaction->home != shard) {
        work_on(shard, part);
        return;
    }
    part->transaction->parts_home++;
    go_on(part->transaction);
}

static bool part_may_leave(struct shard *shard, struct transaction_part *part)
{
    if (part->step == PUBLISHING)
        return publish_part(part);
    if (part->gate > engine_durable(shard->engine) && engine_failed(shard->engine))
        part->error = KVS_ERR_FAILED;
    return part->gate <= engine_durable(shard->engine) || part->error != KVS_ERR_OK;
}

/* Goes on as far as it can, which may end it. Those that find no room in the log are not overtaken by others, which
 * need less: *room is false behind them. */
static void go_on_writing(struct transaction *transaction, bool *room)
{
    const struct engine_shard *engine = transaction->home->engine;
    if (transaction->state == PREPARING && !prepare_group(transaction))
        return;
    if (transaction->state == APPENDING && !(*room && append(transaction, room)))
        return;
    if (transaction->state != WRITING)
        return;
    bool durable = engine_durable(engine) >= transaction->group.gate;
    if (!durable && !engine_failed(engine))
        return;
    transaction->error = durable ? KVS_ERR_OK : KVS_ERR_FAILED;
    send_all(transaction, PUBLISHING);
}

void transaction_turn(struct shard *shard)
{
    for (struct list *node = shard->parts_waiting.next, *next; node != &shard->parts_waiting; node = next) {
        next = node->next;
        struct transaction_part *part = container_of(node, struct transaction_part, link);
        if (!part_may_leave(shard, part))
            continue;
        list_remove(&part->link);
        send_home(shard, part);
    }
    bool room = true;
    for (struct list *node = shard->transactions.next, *next; node != &shard->transactions; node = next) {
        next = node->next;
        go_on_writing(container_of(node, struct transaction, link), &room);
    }
}

bool transaction_waits(const struct shard *shard)
{
    return !list_empty(&shard->parts_waiting) || !list_empty(&shard->transactions);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

static int by_hash(const void *a, const void *b, void *context)
{
    const unsigned *x = a, *y = b;
    const struct transaction_key *keys = context;
    const struct transaction_key *p = &keys[*x], *q = &keys[*y];
    if (p->hash != q->hash)
        return p->hash < q->hash ? -1 : 1;
    if (p->key.size != q->key.size)
        return p->key.size < q->key.size ? -1 : 1;
    return p->key.size == 0 ? 0 : memcmp(p->key.data, q->key.data, p->key.size);
}

static void refuse(struct shard *shard, struct net_conn *conn)
{
    static const struct reply_format format = {.kind = REPLY_OK};
    const struct reply_origin origin = shard_origin(shard);
    const struct engine_result result = {.error = KVS_ERR_AGAIN};
    uint8_t *out = net_reply_reserve(conn, REPLY_ERROR_BYTES_MAX);
    shard_count(&shard->counters.errors);
    if (out != NULL)
        net_reply_commit(conn, reply_write(out, &format, &result, &origin), 0);
}

/* Fills `keys` with the different ones of `given`, in the order of their hashes, and `places`. */
static void sort_keys(struct transaction *transaction, const struct transaction_key *given, unsigned *order)
{
    for (unsigned i = 0; i < transaction->given; i++)
        order[i] = i;
    qsort_r(order, transaction->given, sizeof *order, by_hash, (void *)(uintptr_t)given);
    for (unsigned i = 0; i < transaction->given; i++) {
        if (i == 0 || by_hash(&order[i - 1], &order[i], (void *)(uintptr_t)given) != 0)
            transaction->keys[transaction->count++] = given[order[i]];
        struct transaction_key *key = &transaction->keys[transaction->count - 1];
        const struct transaction_options *options = &transaction->options;
        if (order[i] >= options->values_begin && order[i] < options->values_end)
            key->needs_value = true;
        transaction->places[order[i]] = transaction->count - 1;
    }
}

/* The order of hashes is that of their owners. */
static void divide(struct transaction *transaction)
{
    struct transaction_part *part = NULL;
    for (unsigned i = 0; i < transaction->count; i++) {
        struct transaction_key *key = &transaction->keys[i];
        unsigned owner = hash_shard(key->hash, transaction->home->count);
        if (part == NULL || part->owner != owner) {
            KVS_ASSERT(part == NULL || part->owner < owner);
            part = &transaction->parts[transaction->part_count++];
            *part = (struct transaction_part){
                .mail.kind = MAIL_TRANSACTION, .transaction = transaction, .owner = owner, .first = i};
            list_init(&part->link);
        }
        key->part = part;
        part->count++;
    }
    transaction->parts_home = transaction->part_count;
}

/* Of a part of the request, unless that is kept. */
static struct slice copy_of(struct transaction *transaction, struct slice bytes)
{
    if (bytes.size == 0 || transaction->kept)
        return bytes;
    uint8_t *copy = update_scratch_take(transaction->arena, bytes.size);
    if (copy != NULL)
        memcpy(copy, bytes.data, bytes.size);
    return slice_make(copy, copy == NULL ? 0 : bytes.size);
}

/* Zeroed; NULL: no memory. */
static void *array_of(struct transaction *transaction, size_t count, size_t size)
{
    uint8_t *array = update_scratch_take(transaction->arena, count * size + ARRAY_ALIGN - 1);
    if (array == NULL)
        return NULL;
    array += align_up((uintptr_t)array, ARRAY_ALIGN) - (uintptr_t)array;
    return memset(array, 0, count * size);
}

struct transaction_key *transaction_find(struct transaction *transaction, struct slice key)
{
    const uint64_t hash = hash_key(key, transaction->home->hash_seed);
    unsigned low = 0, high = transaction->count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (transaction->keys[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < transaction->count && !slice_equal(transaction->keys[low].key, key))
        low++;
    KVS_ASSERT(low < transaction->count);
    return &transaction->keys[low];
}

bool transaction_within(struct transaction *outer, const struct transaction_options *options,
                        const struct transaction_args *args, struct slice *reply)
{
    struct transaction inner = {.home = outer->home,
                                .options = *options,
                                .arena = outer->arena,
                                .keys = outer->keys,
                                .count = outer->count,
                                .given = args->count};
    inner.places = array_of(&inner, args->count, sizeof *inner.places);
    inner.values = args->values == NULL ? NULL : array_of(&inner, args->count, sizeof *inner.values);
    if (inner.places == NULL || (args->values != NULL && inner.values == NULL))
        return false;
    for (unsigned i = 0; i < args->count; i++) {
        struct transaction_key *key = transaction_find(outer, args->keys[i * args->step]);
        key->change = TRANSACTION_KEEP;
        key->new_expires_ms = 0; /* another one within may have set it */
        inner.places[i] = (unsigned)(key - outer->keys);
        if (args->values != NULL)
            inner.values[i] = args->values[i * args->step];
    }
    options->decide(&inner);
    *reply = inner.reply;
    return !inner.arena->refused && inner.reply.size > 0;
}

/* All that is known of it before it begins; false: no memory. */
static bool prepare(struct transaction *transaction, const struct transaction_args *args)
{
    const struct shard *shard = transaction->home;
    const unsigned count = args->count;
    struct large_memory *large = NULL;
    if (!transaction->options.borrows)
        large = net_request_keep(transaction->slot.conn);
    transaction->kept = large != NULL || transaction->options.borrows;
    if (large != NULL)
        list_push_back(&transaction->arena->large, &large->link);
    unsigned parts_max = count < shard->count ? count : shard->count;
    transaction->given = count;
    transaction->keys = array_of(transaction, count, sizeof *transaction->keys);
    transaction->places = array_of(transaction, count, sizeof *transaction->places);
    transaction->changes = array_of(transaction, count, sizeof *transaction->changes);
    transaction->parts = array_of(transaction, parts_max, sizeof *transaction->parts);
    transaction->values = args->values == NULL ? NULL : array_of(transaction, count, sizeof *transaction->values);
    struct transaction_key *given = array_of(transaction, count, sizeof *given);
    unsigned *order = array_of(transaction, count, sizeof *order);
    if (transaction->options.context_bytes > 0) {
        void *context = array_of(transaction, 1, transaction->options.context_bytes);
        if (context != NULL)
            memcpy(context, transaction->options.context, transaction->options.context_bytes);
        transaction->options.context = context;
    }
    for (unsigned i = 0; i < count && !transaction->arena->refused; i++) {
        given[i].key = copy_of(transaction, args->keys[i * args->step]);
        given[i].hash = hash_key(given[i].key, shard->hash_seed);
        if (args->values != NULL)
            transaction->values[i] = copy_of(transaction, args->values[i * args->step]);
    }
    if (transaction->arena->refused)
        return false;
    sort_keys(transaction, given, order);
    divide(transaction);
    return true;
}

void transaction_begin(struct shard *shard, struct net_conn *conn, const struct transaction_options *options,
                       const struct transaction_args *args)
{
    if (shard->exec != NULL) {
        exec_transaction(shard->exec, options, args);
        return;
    }
    struct transaction *transaction = calloc(1, sizeof *transaction);
    KVS_ASSERT(args->count > 0);
    if (transaction == NULL) {
        if (options->freed != NULL)
            options->freed(shard, options->context);
        refuse(shard, conn);
        return;
    }
    transaction->home = shard;
    transaction->slot.conn = conn;
    transaction->options = *options;
    transaction->arena = &transaction->own;
    update_scratch_init(transaction->arena, shard, transaction->room, sizeof transaction->room);
    list_push_back(&shard->transactions, &transaction->link);
    if (!prepare(transaction, args)) {
        transaction_free(transaction);
        refuse(shard, conn);
        return;
    }
    net_conn_hold(conn);
    net_reply_defer(conn, &transaction->slot);
    transaction->slot.released = on_released;
    go_on(transaction);
}

void transaction_abandon(struct shard *shard)
{
    while (!list_empty(&shard->transactions))
        transaction_free(container_of(shard->transactions.next, struct transaction, link));
    list_init(&shard->parts_waiting);
}
