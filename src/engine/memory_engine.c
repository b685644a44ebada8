/*
 * memory_engine.c - the engine `memory`: the same index over records that live in RAM only.
 *
 * Nothing survives a restart; the directory only says whose it is. It shows what durability costs, and serves as a
 * cache. An overwritten or removed record is freed by epoch, since another thread may be reading it. When the budget is
 * used up, writes are refused with NO_MEMORY until something is removed. What has expired is not there for readers, and
 * is taken out by the owner, a few hundred a turn, as a queue tells (expiry_queue.h); what finds no room in the queue
 * is taken out when its owner reads it.
 *
 * Every operation is answered at once, but on a key that is held: that waits until the key is free.
 */
#include "engine/engine_internal.h"
#include "engine/expiry_queue.h"
#include "engine/index.h"
#include "engine/left_index.h"
#include "engine/memory_slab.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>

struct memory_record {
    struct epoch_entry retired;
    struct memory_shard *shard;
    uint32_t value_bytes;
    uint16_t key_bytes;
    uint8_t expiry_bytes; /* 8: `bytes` begins with the time from which on it counts no more; 0: it does not expire */
    uint8_t bytes[];      /* expiry, key, value */
};

enum {
    EXPIRY_SHARE = 16, /* of the memory budget: that many of it are one for the queues of what expires */
    TAKE_ITEMS = 256,
    SWEEP_ITEMS = 256,
    LEFT_PAGES = 16,   /* whose records are freed in a turn, after a flush */
    SCAN_PAGES = 16,   /* that a step looks at if there is nothing on them */
    SWEEP_FROM = 4096, /* stale items: fewer are not worth it */
    TIMEOUT_MS = 3600000,
    NS_PER_MS = 1000000,
};

struct memory_shard {
    struct engine_shard base; /* first */
    struct memory_engine *engine;
    _Atomic(struct index *) index; /* another one after a flush; others look at it inside of their sections */
    struct left_index *next;       /* for the next flush */
    struct left_index *left;       /* by the latest: its records are being freed */
    struct memory_slab slab;
    struct expiry_queue *expiry;
    bool sweeping;
    _Atomic uint64_t expires, expired, unqueued, lag_ms; /* figures */
    bool stopping;
    struct list held, waiting; /* struct engine_op: holds, and operations on held keys, in order */
    bool serving;              /* those that wait are being looked at */
    _Atomic uint32_t held_in_group;
};

enum hold_state { HOLD_TELLING, HOLD_HELD, HOLD_CONCLUDED };

struct memory_engine {
    struct engine base; /* first */
    struct engine_background background;
    struct memory_shard *shards[KVS_SHARDS_MAX];
};

static struct memory_shard *shard_of(struct engine_shard *base)
{
    return container_of(base, struct memory_shard, base);
}

static uint64_t memory_record_bytes(size_t expiry_bytes, size_t key_bytes, size_t value_bytes)
{
    return offsetof(struct memory_record, bytes) + expiry_bytes + key_bytes + value_bytes;
}

static struct slice memory_key(const struct memory_record *record)
{
    return slice_make(record->bytes + record->expiry_bytes, record->key_bytes);
}

static struct slice memory_value(const struct memory_record *record)
{
    return slice_make(record->bytes + record->expiry_bytes + record->key_bytes, record->value_bytes);
}

static uint64_t memory_expires_ms(const struct memory_record *record)
{
    uint64_t expires_ms = 0;
    memcpy(&expires_ms, record->bytes, record->expiry_bytes);
    return expires_ms;
}

static void count(_Atomic uint64_t *counter, int64_t by)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + (uint64_t)by, memory_order_relaxed);
}

/* The record of a key, with *cursor on its entry; NULL when there is none. */
static struct memory_record *find(const struct memory_shard *shard, const struct engine_request *request,
                                  struct index_cursor *cursor)
{
    struct index_entry entry;
    index_find(shard->index, request->hash, cursor);
    while (index_next(cursor, &entry)) {
        struct memory_record *record = memory_slab_at(&shard->slab, entry.address);
        if (slice_equal(memory_key(record), request->key))
            return record;
    }
    return NULL;
}

static void free_record(struct epoch_entry *retired)
{
    struct memory_record *record = container_of(retired, struct memory_record, retired);
    struct memory_slab *slab = &record->shard->slab;
    uint64_t piece = (uint64_t)((uint8_t *)record - slab->range) / SLAB_UNIT;
    memory_slab_give(slab, piece, memory_record_bytes(record->expiry_bytes, record->key_bytes, record->value_bytes));
}

static void drop(struct memory_shard *shard, struct memory_record *record)
{
    count(&shard->expires, record->expiry_bytes == 0 ? 0 : -1);
    epoch_defer(&shard->base.thread, &record->retired, free_record);
}

/* The cursor stands on the record's entry. */
static void expire(struct memory_shard *shard, struct index_cursor *cursor, struct memory_record *record)
{
    index_remove(shard->index, cursor);
    count(&shard->expired, 1);
    drop(shard, record);
}

/* The record of a key, for reading. What has expired goes, if the owner reads it. */
static const struct memory_record *look_up(struct memory_shard *reader, const struct memory_shard *owner,
                                           const struct engine_request *request)
{
    struct index_cursor cursor;
    struct memory_record *record = find(owner, request, &cursor);
    if (record == NULL || !engine_expired(&reader->base, memory_expires_ms(record)))
        return record;
    if (reader == owner)
        expire(reader, &cursor, record);
    return NULL;
}

static void give_answer(const struct memory_record *record, struct engine_result *result)
{
    *result = (struct engine_result){.found = record != NULL};
    if (record == NULL)
        return;
    result->value = memory_value(record);
    result->value_bytes = result->value.size;
    result->expires_ms = memory_expires_ms(record);
}

static bool remove_key(struct memory_shard *shard, const struct engine_request *request)
{
    struct index_cursor cursor;
    if (look_up(shard, shard, request) == NULL)
        return false;
    struct memory_record *record = find(shard, request, &cursor);
    index_remove(shard->index, &cursor);
    drop(shard, record);
    engine_changed(&shard->base, request->hash, false);
    return true;
}

static enum kvs_err put(struct memory_shard *shard, const struct engine_request *request, struct engine_result *result)
{
    uint64_t piece;
    uint8_t expiry_bytes = request->expires_ms == 0 ? 0 : sizeof request->expires_ms;
    uint64_t bytes = memory_record_bytes(expiry_bytes, request->key.size, request->value.size);
    if (!memory_slab_take(&shard->slab, bytes, &piece))
        return KVS_ERR_NO_MEMORY;
    struct memory_record *record = memory_slab_at(&shard->slab, piece);
    record->shard = shard;
    record->expiry_bytes = expiry_bytes;
    memcpy(record->bytes, &request->expires_ms, expiry_bytes);
    record->key_bytes = (uint16_t)request->key.size;
    record->value_bytes = (uint32_t)request->value.size;
    if (request->key.size > 0)
        memcpy(record->bytes + expiry_bytes, request->key.data, request->key.size);
    if (request->value.size > 0)
        memcpy(record->bytes + expiry_bytes + request->key.size, request->value.data, request->value.size);

    struct index_cursor cursor;
    struct memory_record *old = find(shard, request, &cursor);
    struct index_entry entry = {.address = piece};
    result->found = old != NULL && !engine_expired(&shard->base, memory_expires_ms(old));
    if (old == NULL) {
        enum kvs_err err = index_insert(shard->index, request->hash, &entry);
        if (err != KVS_ERR_OK) {
            memory_slab_give(&shard->slab, piece, bytes);
            return err;
        }
    } else {
        index_replace(shard->index, &cursor, &entry);
        drop(shard, old);
    }
    engine_changed(&shard->base, request->hash, true);
    if (request->expires_ms == 0)
        return KVS_ERR_OK;
    struct expiry_item item = {.expires_ms = request->expires_ms, .hash = request->hash, .address = piece};
    count(&shard->expires, 1);
    count(&shard->unqueued, expiry_queue_add(shard->expiry, &item) != KVS_ERR_OK);
    return KVS_ERR_OK;
}

static enum engine_answer memory_try_get(struct engine_shard *reader, unsigned owner_id,
                                         const struct engine_request *request, struct engine_result *result)
{
    const struct memory_shard *owner = shard_of(reader)->engine->shards[owner_id];
    give_answer(look_up(shard_of(reader), owner, request), result);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&owner->held_in_group, memory_order_relaxed) > 0 ? ENGINE_ASK_OWNER : ENGINE_DONE;
}

static void memory_prefetch(struct engine_shard *reader, unsigned owner_id, uint64_t hash,
                            enum engine_prefetch_step step)
{
    const struct memory_shard *owner = shard_of(reader)->engine->shards[owner_id];
    if (step == ENGINE_PREFETCH_INDEX) {
        index_prefetch(owner->index, hash);
        return;
    }
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(owner->index, hash, &cursor);
    if (index_next(&cursor, &entry))
        __builtin_prefetch(memory_slab_at(&owner->slab, entry.address));
}

static void execute(struct memory_shard *shard, const struct engine_request *request, struct engine_result *result)
{
    *result = (struct engine_result){.error = KVS_ERR_OK};
    switch (request->action) {
    case ENGINE_GET:
    case ENGINE_HOLD:
        give_answer(look_up(shard, shard, request), result);
        break;
    case ENGINE_PUT:
        KVS_ASSERT(request->key.size <= KVS_KEY_BYTES_MAX && request->value.size <= UINT32_MAX);
        if (engine_expired(&shard->base, request->expires_ms))
            result->found = remove_key(shard, request);
        else
            result->error = put(shard, request, result);
        break;
    case ENGINE_REMOVE:
        result->found = remove_key(shard, request);
        break;
    case ENGINE_EXPIRE: /* there are no large values */
        break;
    }
}

/* ---- held keys ------------------------------------------------------------------------------------------------- */

static bool is_held(const struct memory_shard *shard, uint64_t hash)
{
    for (const struct list *node = shard->held.next; node != &shard->held; node = node->next) {
        if (container_of(node, const struct engine_op, link)->request.hash == hash)
            return true;
    }
    return false;
}

/* The holder has concluded. */
static void carry_out(struct memory_shard *shard, struct engine_op *op)
{
    uint64_t based_on_ms = op->result.found ? op->result.expires_ms : 0;
    bool changes = op->request.action != ENGINE_HOLD && op->request.action != ENGINE_REMOVE;
    list_remove(&op->link);
    if (op->request.group)
        atomic_fetch_sub(&shard->held_in_group, 1);
    if (op->request.action == ENGINE_HOLD)
        op->result = (struct engine_result){.error = KVS_ERR_OK};
    else if (changes && engine_expired(&shard->base, based_on_ms))
        op->result = (struct engine_result){.error = KVS_ERR_CHANGED};
    else
        execute(shard, &op->request, &op->result);
    op->done(op);
}

/* An operation whose key nobody holds. */
static void run(struct memory_shard *shard, struct engine_op *op)
{
    execute(shard, &op->request, &op->result);
    if (op->request.action != ENGINE_HOLD) {
        op->done(op);
        return;
    }
    if (op->result.found)
        op->result.version = hash_key(op->result.value, op->result.expires_ms) | 1;
    list_push_back(&shard->held, &op->link);
    if (op->request.group)
        atomic_fetch_add(&shard->held_in_group, 1);
    op->state = HOLD_TELLING;
    op->done(op);
    if (op->state == HOLD_CONCLUDED)
        carry_out(shard, op);
    else
        op->state = HOLD_HELD;
}

static struct engine_op *next_free(struct memory_shard *shard)
{
    for (struct list *node = shard->waiting.next; node != &shard->waiting; node = node->next) {
        struct engine_op *op = container_of(node, struct engine_op, link);
        if (!is_held(shard, op->request.hash))
            return op;
    }
    return NULL;
}

/* Those whose keys are free now. */
static void serve(struct memory_shard *shard)
{
    if (shard->serving)
        return; /* further up the stack */
    shard->serving = true;
    for (struct engine_op *op; (op = next_free(shard)) != NULL;) {
        list_remove(&op->link);
        run(shard, op);
    }
    shard->serving = false;
}

static enum engine_answer memory_try(struct engine_shard *base, const struct engine_request *request,
                                     struct engine_result *result)
{
    struct memory_shard *shard = shard_of(base);
    if (!list_empty(&shard->held) && is_held(shard, request->hash))
        return ENGINE_MUST_WAIT;
    execute(shard, request, result);
    return ENGINE_DONE;
}

static void memory_submit(struct engine_shard *owner, struct engine_op *op)
{
    struct memory_shard *shard = shard_of(owner);
    op->shard = owner;
    list_push_back(&shard->waiting, &op->link);
    engine_section_begin(owner);
    serve(shard);
    engine_section_end(owner);
}

static void memory_conclude(struct engine_op *op)
{
    struct memory_shard *shard = shard_of(op->shard);
    KVS_ASSERT(op->state == HOLD_TELLING || op->state == HOLD_HELD);
    if (op->state == HOLD_TELLING) {
        op->state = HOLD_CONCLUDED;
        return;
    }
    engine_section_begin(op->shard);
    carry_out(shard, op);
    serve(shard);
    engine_section_end(op->shard);
}

/* ---- groups ---------------------------------------------------------------------------------------------------- */

static uint64_t memory_change_bytes_max(const struct engine *base)
{
    (void)base;
    return UINT64_MAX;
}

static uint64_t memory_lsn(const struct engine_shard *base)
{
    (void)base;
    return 0;
}

static enum kvs_err memory_group_prepare(struct engine_shard *base, struct engine_group *group,
                                         struct engine_change *changes, unsigned count)
{
    (void)base;
    (void)group;
    (void)changes;
    (void)count;
    return KVS_ERR_OK;
}

/* Nothing has to be durable. Without memory for a change its key stays held until there is some. */
static enum kvs_err memory_group_append(struct engine_shard *base, struct engine_group *group,
                                        struct engine_change *changes, unsigned count, uint64_t after_lsn)
{
    (void)base;
    (void)changes;
    (void)count;
    (void)after_lsn;
    group->gate = 0;
    return KVS_ERR_OK;
}

static enum kvs_err memory_publish(struct engine_op *op, const struct engine_change *change,
                                   const struct engine_group *group)
{
    (void)group;
    if (change == NULL)
        return KVS_ERR_OK;
    struct engine_request request = op->request;
    struct engine_result result;
    request.action = change->removes ? ENGINE_REMOVE : ENGINE_PUT;
    request.value = change->value;
    request.expires_ms = change->expires_ms;
    engine_section_begin(op->shard);
    execute(shard_of(op->shard), &request, &result);
    engine_section_end(op->shard);
    return result.error == KVS_ERR_OK ? KVS_ERR_OK : KVS_ERR_AGAIN;
}

static void memory_group_end(struct engine_shard *base, struct engine_group *group)
{
    (void)base;
    (void)group;
}

static void memory_op_release(struct engine_op *op)
{
    (void)op;
}

static void memory_scan(struct engine_shard *owner, struct engine_scan *scan)
{
    const struct memory_shard *shard = shard_of(owner);
    const struct engine *engine = &shard->engine->base;
    struct index_scan_entry found[INDEX_SCAN_ENTRIES_MAX];
    engine_section_begin(owner);
    unsigned count = 0;
    for (unsigned pages = 0; pages < SCAN_PAGES && count == 0 && !scan->end; pages++) {
        const uint64_t from = scan->next;
        count = index_scan(shard->index, from, scan->wanted, found, &scan->next);
        const uint64_t last = scan->next++;
        scan->end = scan->next == 0 || hash_shard(scan->next, engine->options.shard_count) !=
                                           hash_shard(scan->from, engine->options.shard_count);
        for (unsigned i = 0; i < count; i++) {
            const struct memory_record *record = memory_slab_at(&shard->slab, found[i].entry.address);
            const uint64_t hash = hash_key(memory_key(record), engine_hash_seed(engine));
            if (hash < from || hash > last)
                continue;
            scan->looked++;
            if (!engine_expired(owner, memory_expires_ms(record)))
                scan->key(scan, memory_key(record));
        }
    }
    scan->done(scan);
    engine_section_end(owner);
}

/* ---- flushing -------------------------------------------------------------------------------------------------- */

/* The records' range counts as it is used, the index as it grows; 1 : 3 suits records of some 50 bytes. */
static struct index_options index_options_of(const struct memory_shard *shard)
{
    const struct engine_options *engine = &shard->engine->base.options;
    const uint64_t budget = engine->memory_bytes / engine->shard_count;
    return (struct index_options){
        .shard_count = engine->shard_count, .bytes_max = budget / 4, .bytes_initial = budget / 1024};
}

static enum kvs_err memory_flush_prepare(struct engine_shard *base, uint64_t *lsn)
{
    struct memory_shard *shard = shard_of(base);
    *lsn = 0;
    if (!list_empty(&shard->held) || !list_empty(&shard->waiting) || shard->left != NULL)
        return KVS_ERR_AGAIN;
    const struct index_options options = index_options_of(shard);
    return shard->next != NULL ? KVS_ERR_OK : left_index_make(&shard->next, &options, &base->thread);
}

/* There is nothing to be made durable. */
static void memory_flush_begin(struct engine_shard *base, uint64_t lsn)
{
    (void)base, (void)lsn;
}

static enum kvs_err memory_flush_state(const struct engine_shard *base, const char **text)
{
    (void)base;
    *text = "";
    return KVS_ERR_OK;
}

static enum kvs_err memory_flush_end(struct engine_shard *base)
{
    struct memory_shard *shard = shard_of(base);
    shard->left = shard->next;
    shard->next = NULL;
    left_index_change(shard->left, &shard->index, &base->thread);
    return KVS_ERR_OK;
}

static void drop_left(struct memory_shard *shard)
{
    struct index_entry entries[INDEX_PAGE_ENTRIES];
    bool more = true;
    for (unsigned pages = 0; pages < LEFT_PAGES && more; pages++) {
        unsigned count;
        more = left_index_page(shard->left, entries, &count);
        for (unsigned i = 0; i < count; i++)
            drop(shard, memory_slab_at(&shard->slab, entries[i].address));
    }
    if (more)
        return;
    left_index_free(shard->left);
    shard->left = NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void memory_close(struct engine *base, struct ring *ring)
{
    (void)ring;
    struct memory_engine *engine = container_of(base, struct memory_engine, base);
    for (unsigned i = 0; i < base->options.shard_count; i++) {
        struct memory_shard *shard = engine->shards[i];
        if (shard == NULL)
            continue;
        epoch_drain(&shard->base.thread);
        index_close(shard->index);
        left_index_free(shard->next);
        left_index_free(shard->left);
        expiry_queue_close(shard->expiry);
        memory_slab_deinit(&shard->slab);
    }
    for (unsigned i = 0; i < base->options.shard_count; i++)
        free(engine->shards[i]);
    free(engine);
}

static const struct engine_interface memory_interface;

static enum kvs_err shard_open(struct memory_engine *engine, unsigned id)
{
    struct memory_shard *shard = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof *shard, KVS_CACHE_LINE_BYTES));
    if (shard == NULL)
        return KVS_ERR_NO_MEMORY;
    memset(shard, 0, sizeof *shard);
    engine->shards[id] = shard;
    shard->base.interface = &memory_interface;
    shard->base.clock = &engine->base.clock;
    shard->engine = engine;
    list_init(&shard->held);
    list_init(&shard->waiting);
    epoch_register(&engine->base.epoch, &shard->base.thread);
    uint64_t budget = engine->base.options.memory_bytes / engine->base.options.shard_count;
    struct index *index = NULL;
    const struct index_options options = index_options_of(shard);
    enum kvs_err err = index_open(&index, &options, &shard->base.thread);
    shard->index = index;
    if (err == KVS_ERR_OK)
        err = memory_slab_init(&shard->slab, align_down(budget - budget / 4 - budget / EXPIRY_SHARE, KVS_BLOCK_BYTES));
    if (err == KVS_ERR_OK)
        err = expiry_queue_open(&shard->expiry, atomic_load(&engine->base.clock.last_ms), budget / EXPIRY_SHARE);
    return err;
}

enum kvs_err memory_engine_open(struct engine **out, const struct engine *base, struct ring *ring,
                                char message[ENGINE_MESSAGE_BYTES])
{
    struct memory_engine *engine = aligned_alloc(KVS_CACHE_LINE_BYTES, align_up(sizeof *engine, KVS_CACHE_LINE_BYTES));
    if (engine == NULL)
        return KVS_ERR_NO_MEMORY;
    engine->base = *base;
    engine->base.interface = &memory_interface;
    epoch_init(&engine->base.epoch);
    wall_clock_init(&engine->base.clock, ring);
    enum kvs_err err = KVS_ERR_OK;
    for (unsigned i = 0; err == KVS_ERR_OK && i < base->options.shard_count; i++)
        err = shard_open(engine, i);
    if (err != KVS_ERR_OK) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot reserve the memory budget of %llu MiB: %s",
                 (unsigned long long)(base->options.memory_bytes >> 20), kvs_err_text(err));
        memory_close(&engine->base, ring);
        return err;
    }
    *out = &engine->base;
    return KVS_ERR_OK;
}

static enum kvs_err memory_shard_start(struct engine *base, unsigned id, struct ring *ring, struct engine_shard **out)
{
    *out = &container_of(base, struct memory_engine, base)->shards[id]->base;
    (*out)->ring = ring;
    return KVS_ERR_OK;
}

static bool memory_shard_ready(const struct engine_shard *base)
{
    (void)base;
    return true;
}

/* ---- what expires ---------------------------------------------------------------------------------------------- */

/* The record that an item names, with *cursor on its entry; NULL when there is none any more. A piece of memory may be
 * used again, so the expiry is compared, too: a record that agrees in both is as due as the one that was meant. */
static struct memory_record *find_item(const struct memory_shard *shard, const struct expiry_item *item,
                                       struct index_cursor *cursor)
{
    struct index_entry entry;
    index_find(shard->index, item->hash, cursor);
    while (index_next(cursor, &entry)) {
        if (entry.address != item->address)
            continue;
        struct memory_record *record = memory_slab_at(&shard->slab, entry.address);
        return memory_expires_ms(record) == item->expires_ms ? record : NULL;
    }
    return NULL;
}

static bool is_stale(void *context, const struct expiry_item *item)
{
    struct index_cursor cursor;
    return find_item(context, item, &cursor) == NULL;
}

static void expire_some(struct memory_shard *shard, uint64_t now_ms)
{
    struct expiry_item items[TAKE_ITEMS];
    size_t taken = expiry_queue_take(shard->expiry, now_ms, items, TAKE_ITEMS);
    for (size_t i = 0; i < taken; i++)
        index_prefetch(shard->index, items[i].hash);
    for (size_t i = 0; i < taken; i++) {
        struct index_cursor cursor;
        struct memory_record *record = find_item(shard, &items[i], &cursor);
        if (record == NULL)
            continue;
        expire(shard, &cursor, record);
        if (now_ms - items[i].expires_ms > atomic_load_explicit(&shard->lag_ms, memory_order_relaxed))
            atomic_store_explicit(&shard->lag_ms, now_ms - items[i].expires_ms, memory_order_relaxed);
    }
}

static void memory_turn(struct engine_shard *base)
{
    struct memory_shard *shard = shard_of(base);
    epoch_poll(&base->thread);
    if (shard->left != NULL && shard->left->unseen)
        drop_left(shard);
    uint64_t items = expiry_queue_count(shard->expiry);
    if (items == 0 || shard->stopping)
        return;
    engine_section_begin(base);
    uint64_t now_ms = engine_now_ms(base);
    if (expiry_queue_wait_ms(shard->expiry, now_ms) == 0)
        expire_some(shard, now_ms);
    uint64_t expires = atomic_load_explicit(&shard->expires, memory_order_relaxed);
    if (shard->sweeping || items > 2 * expires + SWEEP_FROM)
        shard->sweeping = !expiry_queue_sweep(shard->expiry, SWEEP_ITEMS, is_stale, shard);
    engine_section_end(base);
}

static int64_t memory_timeout_ns(const struct engine_shard *base)
{
    const struct memory_shard *shard = container_of(base, struct memory_shard, base);
    if (shard->left != NULL && !shard->stopping)
        return 0;
    if (shard->stopping || expiry_queue_count(shard->expiry) == 0)
        return -1;
    if (shard->sweeping)
        return 0;
    int64_t wait_ms = expiry_queue_wait_ms(shard->expiry, wall_clock_now(base->clock, base->ring));
    return (wait_ms < TIMEOUT_MS ? wait_ms : TIMEOUT_MS) * NS_PER_MS;
}

static void memory_shard_stop(struct engine_shard *base)
{
    shard_of(base)->stopping = true;
}

static bool memory_shard_stopped(const struct engine_shard *base)
{
    return container_of(base, struct memory_shard, base)->stopping;
}

/* Nothing is done in the background. */
static enum kvs_err memory_background_start(struct engine *base, struct ring *ring, struct engine_background **out)
{
    (void)ring;
    struct memory_engine *engine = container_of(base, struct memory_engine, base);
    engine->background.interface = base->interface;
    epoch_register(&base->epoch, &engine->background.thread);
    *out = &engine->background;
    return KVS_ERR_OK;
}

static void memory_background_nothing(struct engine_background *background)
{
    (void)background;
}

static int64_t memory_background_timeout_ns(const struct engine_background *background)
{
    (void)background;
    return -1;
}

static bool memory_background_stopped(const struct engine_background *background)
{
    (void)background;
    return true;
}

static uint64_t memory_want_durable(struct engine_shard *base)
{
    (void)base;
    return 0; /* nothing ever is, and nobody waits for it */
}

static bool memory_failed(const struct engine_shard *base)
{
    (void)base;
    return false;
}

static const char *memory_no_text(const struct engine_shard *base)
{
    (void)base;
    return "";
}

static const char *memory_durability_method(const struct engine *base)
{
    (void)base;
    return "none";
}

static void memory_stats(const struct engine *base, struct engine_stats *out)
{
    const struct memory_engine *engine = container_of(base, struct memory_engine, base);
    for (unsigned i = 0; i < base->options.shard_count; i++) {
        const struct memory_shard *shard = engine->shards[i];
        struct index_stats index;
        index_stats(shard->index, &index);
        out->keys += index.entries;
        out->index_bytes += index.bytes;
        out->index_splits += index.splits;
        out->image_bytes += atomic_load_explicit(&shard->slab.bytes_used, memory_order_relaxed);
        out->expires += atomic_load_explicit(&shard->expires, memory_order_relaxed);
        out->expired_keys += atomic_load_explicit(&shard->expired, memory_order_relaxed);
        out->expiry_unqueued += atomic_load_explicit(&shard->unqueued, memory_order_relaxed);
        out->expiry_bytes += expiry_queue_bytes(shard->expiry);
        uint64_t lag_ms = atomic_load_explicit(&shard->lag_ms, memory_order_relaxed);
        out->expiry_lag_ms = lag_ms > out->expiry_lag_ms ? lag_ms : out->expiry_lag_ms;
    }
}

static const struct engine_interface memory_interface = {
    .kind = "memory",
    .durability_method = memory_durability_method,
    .close = memory_close,
    .shard_start = memory_shard_start,
    .shard_ready = memory_shard_ready,
    .turn = memory_turn,
    .timeout_ns = memory_timeout_ns,
    .shard_stop = memory_shard_stop,
    .shard_stopped = memory_shard_stopped,
    .try = memory_try,
    .try_get = memory_try_get,
    .prefetch = memory_prefetch,
    .submit = memory_submit,
    .conclude = memory_conclude,
    .op_release = memory_op_release,
    .change_bytes_max = memory_change_bytes_max,
    .lsn = memory_lsn,
    .group_prepare = memory_group_prepare,
    .group_append = memory_group_append,
    .publish = memory_publish,
    .group_end = memory_group_end,
    .scan = memory_scan,
    .flush_prepare = memory_flush_prepare,
    .flush_begin = memory_flush_begin,
    .flush_state = memory_flush_state,
    .flush_end = memory_flush_end,
    .durable = memory_lsn,
    .want_durable = memory_want_durable,
    .failed = memory_failed,
    .failure_text = memory_no_text,
    .refusal_text = memory_no_text,
    .background_failure_text = memory_no_text,
    .damage_text = memory_no_text,
    .stats = memory_stats,
    .background_start = memory_background_start,
    .background_turn = memory_background_nothing,
    .background_timeout_ns = memory_background_timeout_ns,
    .background_stop = memory_background_nothing,
    .background_stopped = memory_background_stopped,
};
