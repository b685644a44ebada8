/*
 * memory_engine.c - the engine `memory`: the same index over records that live in RAM only.
 *
 * Nothing survives a restart; the directory only says whose it is. It shows what durability costs, and serves as a
 * cache. An overwritten or removed record is freed by epoch, since another thread may be reading it. When the budget is
 * used up, writes are refused with NO_MEMORY until something is removed.
 *
 * Every operation is answered at once: engine_submit executes and calls back.
 */
#include "engine/engine_internal.h"
#include "engine/index.h"
#include "engine/memory_slab.h"

#include "base/assert.h"
#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>

struct memory_record {
    struct epoch_entry retired;
    struct memory_shard *shard;
    uint32_t value_bytes;
    uint16_t key_bytes;
    uint8_t bytes[];
};

struct memory_shard {
    struct engine_shard base; /* first */
    struct memory_engine *engine;
    struct index *index;
    struct memory_slab slab;
    bool stopping;
};

struct memory_engine {
    struct engine base; /* first */
    struct engine_background background;
    struct memory_shard *shards[KVS_SHARDS_MAX];
};

static struct memory_shard *shard_of(struct engine_shard *base)
{
    return container_of(base, struct memory_shard, base);
}

static uint64_t memory_record_bytes(size_t key_bytes, size_t value_bytes)
{
    return sizeof(struct memory_record) + key_bytes + value_bytes;
}

static struct slice memory_key(const struct memory_record *record)
{
    return slice_make(record->bytes, record->key_bytes);
}

static struct slice memory_value(const struct memory_record *record)
{
    return slice_make(record->bytes + record->key_bytes, record->value_bytes);
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
    memory_slab_give(slab, piece, memory_record_bytes(record->key_bytes, record->value_bytes));
}

static enum kvs_err put(struct memory_shard *shard, const struct engine_request *request, struct engine_result *result)
{
    uint64_t piece;
    if (!memory_slab_take(&shard->slab, memory_record_bytes(request->key.size, request->value.size), &piece))
        return KVS_ERR_NO_MEMORY;
    struct memory_record *record = memory_slab_at(&shard->slab, piece);
    record->shard = shard;
    record->key_bytes = (uint16_t)request->key.size;
    record->value_bytes = (uint32_t)request->value.size;
    if (request->key.size > 0)
        memcpy(record->bytes, request->key.data, request->key.size);
    if (request->value.size > 0)
        memcpy(record->bytes + request->key.size, request->value.data, request->value.size);

    struct index_cursor cursor;
    struct memory_record *old = find(shard, request, &cursor);
    struct index_entry entry = {.address = piece};
    result->found = old != NULL;
    if (old == NULL) {
        enum kvs_err err = index_insert(shard->index, request->hash, &entry);
        if (err != KVS_ERR_OK)
            memory_slab_give(&shard->slab, piece, memory_record_bytes(request->key.size, request->value.size));
        return err;
    }
    index_replace(shard->index, &cursor, &entry);
    epoch_defer(&shard->base.thread, &old->retired, free_record);
    return KVS_ERR_OK;
}

static enum engine_answer memory_try_get(struct engine_shard *reader, unsigned owner_id,
                                         const struct engine_request *request, struct engine_result *result)
{
    const struct memory_shard *owner = shard_of(reader)->engine->shards[owner_id];
    struct index_cursor cursor;
    const struct memory_record *record = find(owner, request, &cursor);
    *result = (struct engine_result){.found = record != NULL};
    if (record != NULL)
        result->value = memory_value(record);
    result->value_bytes = result->value.size;
    return ENGINE_DONE;
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

static enum engine_answer memory_try(struct engine_shard *base, const struct engine_request *request,
                                     struct engine_result *result)
{
    struct memory_shard *shard = shard_of(base);
    *result = (struct engine_result){.error = KVS_ERR_OK};
    switch (request->action) {
    case ENGINE_GET: {
        struct index_cursor cursor;
        const struct memory_record *record = find(shard, request, &cursor);
        result->found = record != NULL;
        if (record != NULL)
            result->value = memory_value(record);
        result->value_bytes = result->value.size;
        break;
    }
    case ENGINE_PUT:
        KVS_ASSERT(request->key.size <= KVS_KEY_BYTES_MAX && request->value.size <= UINT32_MAX);
        result->error = put(shard, request, result);
        break;
    case ENGINE_REMOVE: {
        struct index_cursor cursor;
        struct memory_record *record = find(shard, request, &cursor);
        result->found = record != NULL;
        if (record != NULL) {
            index_remove(shard->index, &cursor);
            epoch_defer(&base->thread, &record->retired, free_record);
        }
        break;
    }
    }
    return ENGINE_DONE;
}

static void memory_submit(struct engine_shard *owner, struct engine_op *op)
{
    op->shard = owner;
    engine_section_begin(owner);
    memory_try(owner, &op->request, &op->result);
    op->done(op);
    engine_section_end(owner);
}

static void memory_op_release(struct engine_op *op)
{
    (void)op;
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
    shard->engine = engine;
    epoch_register(&engine->base.epoch, &shard->base.thread);
    uint64_t budget = engine->base.options.memory_bytes / engine->base.options.shard_count;
    /* The records' range counts as it is used, the index as it grows; 1 : 3 suits records of some 50 bytes. */
    struct index_options options = {.bytes_max = budget / 4, .bytes_initial = budget / 1024};
    enum kvs_err err = index_open(&shard->index, &options, &shard->base.thread);
    if (err == KVS_ERR_OK)
        err = memory_slab_init(&shard->slab, align_down(budget - budget / 4, KVS_BLOCK_BYTES));
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
    (void)ring;
    *out = &container_of(base, struct memory_engine, base)->shards[id]->base;
    return KVS_ERR_OK;
}

static bool memory_shard_ready(const struct engine_shard *base)
{
    (void)base;
    return true;
}

static void memory_turn(struct engine_shard *base)
{
    epoch_poll(&base->thread);
}

static int64_t memory_timeout_ns(const struct engine_shard *base)
{
    (void)base;
    return -1;
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

static uint64_t memory_durable(const struct engine_shard *base)
{
    (void)base;
    return 0;
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
    .op_release = memory_op_release,
    .durable = memory_durable,
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
