/*
 * transaction.c - leading groups of changes.
 *
 * States at home:
 *   (BEHIND ─►) HOLDING ──► DECIDING ──► PREPARING ──► APPENDING ──► WRITING ──► PUBLISHING ──► FREEING ──► gone
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
#include "node/transaction_internal.h"

#include "base/assert.h"
#include "base/hash.h"
#include "node/exec.h"
#include "node/node_internal.h"
#include "node/reply.h"
#include "proto/resp.h"

#include <stdlib.h>

enum { KEYS_AHEAD = 16 /* looked for at a time */ };

static void go_on(struct transaction *transaction);

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
        if (key->watch != NULL && (!key->found || key->expires_ms != 0))
            engine_watch(shard_at(part)->engine, key->watch, key->hash);
        if (result->memory != NULL) {
            list_push_back(&part->transaction->arena->large, &result->memory->link);
            key->value = slice_make(result->memory->data, result->value.size);
            result->memory = NULL;
        } else if (key->need == TRANSACTION_VALUE && result->value.size > 0) {
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
                                                    .blind = key->need == TRANSACTION_BLIND,
                                                    .head = key->need != TRANSACTION_VALUE,
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
    shard_at(part)->publishing += !part->publishing;
    part->publishing = true;
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
    shard->publishing -= part->publishing;
    part->publishing = false;
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

/* In this turn or a later one. True: what changes is to be prepared. */
static bool decide(struct transaction *transaction)
{
    if (transaction->options.work != NULL && !transaction->options.work(transaction))
        return false;
    transaction->options.decide(transaction);
    if (transaction->arena->refused || transaction->reply.size == 0)
        transaction->error = KVS_ERR_AGAIN;
    for (unsigned i = 0; transaction->error == KVS_ERR_OK && i < transaction->count; i++) {
        struct transaction_key *key = &transaction->keys[i];
        bool removes = key->change == TRANSACTION_REMOVE;
        KVS_ASSERT(!removes || key->need != TRANSACTION_BLIND);
        if (key->change == TRANSACTION_KEEP || (removes && !key->stood))
            continue;
        key->written = &transaction->changes[transaction->change_count++];
        *key->written = (struct engine_change){
            .key = key->key, .value = key->new_value, .removes = removes, .expires_ms = key->new_expires_ms};
    }
    transaction->state = PREPARING;
    if (transaction->change_count > 0)
        return true;
    set_free(transaction); /* which may be the end of it */
    return false;
}

static void begin_to_decide(struct transaction *transaction)
{
    transaction->now_ms = engine_now_ms(transaction->home->engine);
    for (unsigned i = 0; i < transaction->count; i++)
        forget_if_expired(transaction, &transaction->keys[i]);
    transaction->state = DECIDING;
    (void)decide(transaction); /* transaction_turn goes on */
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
        begin_to_decide(transaction);
    else
        set_free(transaction);
}

/* Everything that its connection has asked for before has been carried out. */
static bool is_first(const struct transaction *transaction)
{
    struct net_conn_info info;
    net_conn_info(transaction->slot.conn, &info);
    return info.pending <= 1;
}

/* Something has happened to it: a part has come back. */
static void go_on(struct transaction *transaction)
{
    if (transaction->sending || transaction->parts_home < transaction->part_count)
        return;
    switch (transaction->state) {
    case BEHIND:
        if (!is_first(transaction))
            return; /* transaction_turn */
        transaction->state = HOLDING;
        hold_next(transaction);
        break;
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
    case DECIDING:
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
    if (transaction->state == BEHIND) {
        go_on(transaction);
        return;
    }
    if (transaction->state == DECIDING && !decide(transaction))
        return;
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
        if (given[order[i]].need > key->need)
            key->need = given[order[i]].need;
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

/* Of the i-th key. */
static enum transaction_need need_of(const struct transaction_options *options, const struct transaction_args *args,
                                     unsigned i)
{
    if (args->needs != NULL)
        return (enum transaction_need)args->needs[i];
    if (options->blind)
        return TRANSACTION_BLIND;
    return i >= options->values_begin && i < options->values_end ? TRANSACTION_VALUE : TRANSACTION_PRESENCE;
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
    transaction->keys = transaction_array(transaction, count, sizeof *transaction->keys);
    transaction->places = transaction_array(transaction, count, sizeof *transaction->places);
    transaction->changes = transaction_array(transaction, count, sizeof *transaction->changes);
    transaction->parts = transaction_array(transaction, parts_max, sizeof *transaction->parts);
    transaction->values =
        args->values == NULL ? NULL : transaction_array(transaction, count, sizeof *transaction->values);
    struct transaction_key *given = transaction_array(transaction, count, sizeof *given);
    unsigned *order = transaction_array(transaction, count, sizeof *order);
    if (transaction->options.context_bytes > 0) {
        void *context = transaction_array(transaction, 1, transaction->options.context_bytes);
        if (context != NULL)
            memcpy(context, transaction->options.context, transaction->options.context_bytes);
        transaction->options.context = context;
    }
    for (unsigned i = 0; i < count && !transaction->arena->refused; i++) {
        given[i].key = copy_of(transaction, args->keys[i * args->step]);
        given[i].hash = hash_key(given[i].key, shard->hash_seed);
        given[i].need = need_of(&transaction->options, args, i);
        given[i].watch = args->watches == NULL ? NULL : args->watches[i];
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
    KVS_ASSERT(args->count > 0 || options->work != NULL);
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
    transaction->state = options->behind ? BEHIND : HOLDING;
    go_on(transaction);
}

void transaction_abandon(struct shard *shard)
{
    while (!list_empty(&shard->transactions))
        transaction_free(container_of(shard->transactions.next, struct transaction, link));
    list_init(&shard->parts_waiting);
}
