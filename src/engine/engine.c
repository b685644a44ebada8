/*
 * engine.c - opening a data directory for the right engine, and passing calls on to it.
 *
 * Preparing: make the directory if need be, take its lock, read its superblock. A directory that one engine wrote is
 * refused to another; so is a directory that holds strange files and no superblock, for it is hardly meant to be a data
 * directory. A new directory gets its superblock here: engine, UUID, hash seed and segment size are settled for its
 * life. Loading is the engine's own affair.
 *
 * Failure: the directory is given back, with its lock. A new superblock stays; what it says holds for the next start.
 */
#include "engine/engine.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/limits.h"
#include "engine/engine_internal.h"
#include "engine/log_format.h"
#include "engine/segment.h"

#include <stdio.h>
#include <stdlib.h>

#define LOCK_NAME "lock"

enum { MIB = 1024 * 1024 };
#define SEGMENT_BYTES_MIN     (64ull * 1024)
#define SEGMENT_BYTES_MAX     (1024ull * MIB)
#define SEGMENT_BYTES_DEFAULT (64ull * MIB)
#define VALUE_BYTES_DEFAULT   (64ull * MIB)

static const struct {
    const char *kind;
    enum kvs_err (*open)(struct engine **, const struct engine *, struct ring *, char[ENGINE_MESSAGE_BYTES]);
} engines[] = {{"kvs", kvs_engine_open}, {"memory", memory_engine_open}};

/* A new store's segment size: as large as leaves every shard sixteen images within the budget. */
static uint64_t default_segment_bytes(const struct engine_options *options)
{
    uint64_t bytes = SEGMENT_BYTES_DEFAULT;
    while (bytes > MIB && bytes * 16 * options->shard_count > options->memory_bytes)
        bytes /= 2;
    return bytes;
}

static enum kvs_err check_options(const struct engine_options *options, char message[ENGINE_MESSAGE_BYTES])
{
    if (options->shard_count < 1 || options->shard_count > KVS_SHARDS_MAX) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "number of threads %u is not within 1..%u", options->shard_count,
                 KVS_SHARDS_MAX);
        return KVS_ERR_INVALID;
    }
    uint64_t segment = options->segment_bytes;
    if (segment != 0 && (!is_power_of_two(segment) || segment < SEGMENT_BYTES_MIN || segment > SEGMENT_BYTES_MAX)) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "segment size %llu is not a power of two from 256 KiB to 1 GiB",
                 (unsigned long long)segment);
        return KVS_ERR_INVALID;
    }
    if (options->value_bytes_max > KVS_VALUE_BYTES_MAX) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "a value limit of %llu MiB is too large; at most %u MiB can be stored",
                 (unsigned long long)(options->value_bytes_max >> 20), KVS_VALUE_BYTES_MAX >> 20);
        return KVS_ERR_INVALID;
    }
    return KVS_ERR_OK;
}

struct strangers {
    unsigned count;
    char name[128];
};

static void count_stranger(void *context, const char *name)
{
    struct strangers *strangers = context;
    uint32_t number;
    bool unfinished;
    if (strcmp(name, LOCK_NAME) == 0 || strcmp(name, SUPERBLOCK_NAME ".new") == 0 || strcmp(name, "lost+found") == 0)
        return;
    if (segment_name_parse(name, &number, &unfinished) && unfinished)
        return;
    if (strangers->count++ == 0)
        snprintf(strangers->name, sizeof strangers->name, "%s", name);
}

static enum kvs_err create_store(struct engine *base, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct strangers strangers = {0};
    enum kvs_err err = ring_dir_list(ring, base->dir_fd, count_stranger, &strangers);
    if (err != KVS_ERR_OK) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot read directory %s: %s", base->data_dir, kvs_err_text(err));
        return err;
    }
    if (strangers.count > 0) {
        snprintf(message, ENGINE_MESSAGE_BYTES,
                 "%s is not a data directory: it has no superblock but holds %u other entries, such as '%s'; give an "
                 "empty or a new directory",
                 base->data_dir, strangers.count, strangers.name);
        return KVS_ERR_MISMATCH;
    }
    struct superblock *superblock = &base->superblock;
    memset(superblock, 0, sizeof *superblock);
    ring_random(ring, superblock->uuid, sizeof superblock->uuid);
    ring_random(ring, &superblock->hash_seed, sizeof superblock->hash_seed);
    snprintf(superblock->engine, sizeof superblock->engine, "%s", base->options.kind);
    superblock->segment_bytes =
        base->options.segment_bytes != 0 ? base->options.segment_bytes : default_segment_bytes(&base->options);
    superblock->lsn_base = 1;
    superblock->created_ms = ring_wall_ms(ring);
    base->recovery.created = true;
    return superblock_write(ring, base->dir_fd, base->data_dir, superblock, message);
}

/* Reads or makes the superblock of a locked directory. */
static enum kvs_err identify(struct engine *base, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    enum kvs_err err = superblock_read(ring, base->dir_fd, base->data_dir, &base->superblock, message);
    if (err == KVS_ERR_NOT_FOUND) {
        message[0] = '\0';
        err = create_store(base, ring, message);
    }
    if (err != KVS_ERR_OK)
        return err;
    const struct superblock *superblock = &base->superblock;
    if (strncmp(superblock->engine, base->options.kind, sizeof superblock->engine) != 0) {
        snprintf(message, ENGINE_MESSAGE_BYTES,
                 "data directory %s was written by engine '%.16s', not '%s': use that engine, or another directory",
                 base->data_dir, superblock->engine, base->options.kind);
        return KVS_ERR_MISMATCH;
    }
    uint64_t segment = superblock->segment_bytes;
    if (!is_power_of_two(segment) || segment < SEGMENT_BYTES_MIN || segment > SEGMENT_BYTES_MAX) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "the superblock of %s names an impossible segment size of %llu bytes",
                 base->data_dir, (unsigned long long)segment);
        return KVS_ERR_CORRUPT;
    }
    return KVS_ERR_OK;
}

static void release_directory(struct engine *base, struct ring *ring)
{
    if (base->lock_fd >= 0)
        ring_close_fd(ring, base->lock_fd);
    if (base->dir_fd >= 0)
        ring_close_fd(ring, base->dir_fd);
    free(base->data_dir);
}

static enum kvs_err take_directory(struct engine *base, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    enum kvs_err err = ring_dir_open(ring, base->data_dir, &base->dir_fd);
    if (err != KVS_ERR_OK) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot open or make data directory %s: %s", base->data_dir,
                 kvs_err_text(err));
        return err;
    }
    err = ring_dir_lock(ring, base->dir_fd, LOCK_NAME, &base->lock_fd);
    if (err == KVS_ERR_LOCKED && canary_on(CANARY_LOCK_IGNORED))
        err = KVS_ERR_OK;
    if (err == KVS_ERR_LOCKED)
        snprintf(message, ENGINE_MESSAGE_BYTES,
                 "data directory %s is in use by another process: stop that one, or use another directory",
                 base->data_dir);
    else if (err != KVS_ERR_OK)
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot lock data directory %s: %s", base->data_dir, kvs_err_text(err));
    return err;
}

/* A directory that is taken and known, and what has been settled for the engine that will have it. */
struct engine_prepared {
    struct engine base;
    size_t kind; /* in engines[] */
};

static enum kvs_err choose_kind(struct engine_prepared *prepared, char message[ENGINE_MESSAGE_BYTES])
{
    const char *kind = prepared->base.options.kind;
    while (prepared->kind < ARRAY_COUNT(engines) && strcmp(engines[prepared->kind].kind, kind) != 0)
        prepared->kind++;
    if (prepared->kind < ARRAY_COUNT(engines)) {
        prepared->base.options.kind = engines[prepared->kind].kind;
        return KVS_ERR_OK;
    }
    snprintf(message, ENGINE_MESSAGE_BYTES, "unknown engine '%s': there are kvs and memory", kind);
    return KVS_ERR_INVALID;
}

/* No failure without a message. */
static void complete_message(const struct engine *base, enum kvs_err err, char message[ENGINE_MESSAGE_BYTES])
{
    if (err != KVS_ERR_OK && message[0] == '\0')
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot open data directory %s: %s", base->data_dir, kvs_err_text(err));
}

enum kvs_err engine_prepare(struct engine_prepared **out, const struct engine_options *options, struct ring *ring,
                            char message[ENGINE_MESSAGE_BYTES])
{
    message[0] = '\0';
    enum kvs_err err = check_options(options, message);
    if (err != KVS_ERR_OK)
        return err;
    struct engine_prepared *prepared = calloc(1, sizeof *prepared);
    char *data_dir = strdup(options->data_dir);
    if (prepared == NULL || data_dir == NULL) {
        free(prepared);
        free(data_dir);
        return KVS_ERR_NO_MEMORY;
    }
    struct engine *base = &prepared->base;
    *base = (struct engine){.options = *options, .data_dir = data_dir, .dir_fd = -1, .lock_fd = -1};
    base->options.data_dir = data_dir;
    err = choose_kind(prepared, message);
    if (err == KVS_ERR_OK)
        err = take_directory(base, ring, message);
    if (err == KVS_ERR_OK)
        err = identify(base, ring, message);
    if (err != KVS_ERR_OK) {
        complete_message(base, err, message);
        engine_unprepare(prepared, ring);
        return err;
    }
    *out = prepared;
    return KVS_ERR_OK;
}

void engine_unprepare(struct engine_prepared *prepared, struct ring *ring)
{
    release_directory(&prepared->base, ring);
    free(prepared);
}

enum kvs_err engine_load(struct engine **out, struct engine_prepared *prepared, const struct engine_workers *workers,
                         struct engine_progress *progress, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct engine *base = &prepared->base;
    KVS_ASSERT(workers == NULL || workers->count >= 1);
    message[0] = '\0';
    base->options.workers = workers;
    base->options.progress = progress;
    enum kvs_err err = engines[prepared->kind].open(out, base, ring, message);
    if (err != KVS_ERR_OK) {
        complete_message(base, err, message);
        engine_unprepare(prepared, ring);
        return err;
    }
    (*out)->options.workers = NULL;
    (*out)->options.progress = NULL;
    free(prepared); /* what was in it is the engine's now */
    return KVS_ERR_OK;
}

enum kvs_err engine_open(struct engine **out, const struct engine_options *options, struct ring *ring,
                         char message[ENGINE_MESSAGE_BYTES])
{
    struct engine_prepared *prepared;
    enum kvs_err err = engine_prepare(&prepared, options, ring, message);
    if (err != KVS_ERR_OK)
        return err;
    return engine_load(out, prepared, options->workers, options->progress, ring, message);
}

void engine_close(struct engine *engine, struct ring *ring)
{
    struct engine base = *engine;
    engine->interface->close(engine, ring);
    release_directory(&base, ring);
}

void engine_recovered(const struct engine *engine, struct engine_recovery *out)
{
    *out = engine->recovery;
}

uint64_t engine_hash_seed(const struct engine *engine)
{
    return engine->superblock.hash_seed;
}

/* What the log itself can hold. */
static uint64_t record_value_bytes_max(const struct superblock *superblock)
{
    uint64_t segment_bytes = superblock->segment_bytes;
    /* In the small segments of tests the largest keys do not fit at all. */
    uint64_t key_bytes = segment_bytes / 8 < KVS_KEY_BYTES_MAX ? segment_bytes / 8 : KVS_KEY_BYTES_MAX;
    uint64_t most = segment_bytes - 2 * KVS_BLOCK_BYTES - sizeof(struct batch_header) - record_bytes(key_bytes, 0);
    return most < KVS_RECORD_VALUE_BYTES_MAX ? most : KVS_RECORD_VALUE_BYTES_MAX;
}

static uint64_t value_bytes_max(const struct engine *base)
{
    const struct engine_options *options = &base->options;
    uint64_t chosen = options->value_bytes_max;
    if (chosen == 0)
        chosen = options->memory_bytes / 6 < VALUE_BYTES_DEFAULT ? options->memory_bytes / 6 : VALUE_BYTES_DEFAULT;
    uint64_t whole = record_value_bytes_max(&base->superblock);
    /* The engine `memory` copies values in one piece: longer ones would hold its thread up. */
    bool files = strcmp(options->kind, "kvs") == 0 && options->large_bytes_min <= whole;
    return files || chosen < whole ? chosen : whole;
}

uint64_t engine_value_bytes_max(const struct engine *engine)
{
    return value_bytes_max(engine);
}

uint64_t engine_prepared_value_bytes_max(const struct engine_prepared *prepared)
{
    return value_bytes_max(&prepared->base);
}

const char *engine_kind(const struct engine *engine)
{
    return engine->interface->kind;
}

unsigned engine_shard_count(const struct engine *engine)
{
    return engine->options.shard_count;
}

const char *engine_durability_method(const struct engine *engine)
{
    return engine->interface->durability_method(engine);
}

void engine_stats(const struct engine *engine, struct engine_stats *out)
{
    memset(out, 0, sizeof *out);
    engine->interface->stats(engine, out);
}

enum kvs_err engine_shard_start(struct engine *engine, unsigned id, struct ring *ring, struct engine_shard **out)
{
    KVS_ASSERT(id < engine->options.shard_count);
    return engine->interface->shard_start(engine, id, ring, out);
}

bool engine_shard_ready(const struct engine_shard *shard)
{
    return shard->interface->shard_ready(shard);
}

void engine_turn(struct engine_shard *shard)
{
    shard->interface->turn(shard);
}

int64_t engine_timeout_ns(const struct engine_shard *shard)
{
    return shard->interface->timeout_ns(shard);
}

void engine_shard_stop(struct engine_shard *shard)
{
    shard->interface->shard_stop(shard);
}

bool engine_shard_stopped(const struct engine_shard *shard)
{
    return shard->interface->shard_stopped(shard);
}

enum engine_answer engine_try(struct engine_shard *owner, const struct engine_request *request,
                              struct engine_result *result)
{
    return owner->interface->try(owner, request, result);
}

enum engine_answer engine_try_get(struct engine_shard *reader, unsigned owner_id, const struct engine_request *request,
                                  struct engine_result *result)
{
    KVS_ASSERT(request->action == ENGINE_GET);
    return reader->interface->try_get(reader, owner_id, request, result);
}

void engine_prefetch(struct engine_shard *reader, unsigned owner_id, uint64_t hash, enum engine_prefetch_step step)
{
    reader->interface->prefetch(reader, owner_id, hash, step);
}

void engine_submit(struct engine_shard *owner, struct engine_op *op)
{
    owner->interface->submit(owner, op);
}

void engine_conclude(struct engine_op *op)
{
    op->shard->interface->conclude(op);
}

uint64_t engine_change_bytes_max(const struct engine *engine)
{
    uint64_t most = engine->interface->change_bytes_max(engine);
    return most < engine_value_bytes_max(engine) ? most : engine_value_bytes_max(engine);
}

uint64_t engine_lsn(const struct engine_shard *shard)
{
    return shard->interface->lsn(shard);
}

enum kvs_err engine_group_prepare(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                  unsigned count)
{
    return shard->interface->group_prepare(shard, group, changes, count);
}

enum kvs_err engine_group_append(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                 unsigned count, uint64_t after_lsn)
{
    return shard->interface->group_append(shard, group, changes, count, after_lsn);
}

enum kvs_err engine_publish(struct engine_op *op, const struct engine_change *change, const struct engine_group *group)
{
    return op->shard->interface->publish(op, change, group);
}

void engine_group_end(struct engine_shard *shard, struct engine_group *group)
{
    shard->interface->group_end(shard, group);
}

void engine_op_release(struct engine_op *op)
{
    op->shard->interface->op_release(op);
}

void engine_scan(struct engine_shard *owner, struct engine_scan *scan)
{
    scan->error = KVS_ERR_OK;
    scan->next = scan->from;
    scan->end = false;
    scan->looked = 0;
    scan->gate = 0;
    owner->interface->scan(owner, scan);
}

enum kvs_err engine_flush_prepare(struct engine_shard *shard, uint64_t *lsn)
{
    return shard->interface->flush_prepare(shard, lsn);
}

void engine_flush_begin(struct engine_shard *shard, uint64_t lsn)
{
    shard->interface->flush_begin(shard, lsn);
}

enum kvs_err engine_flush_state(const struct engine_shard *shard, const char **text)
{
    return shard->interface->flush_state(shard, text);
}

enum kvs_err engine_flush_end(struct engine_shard *shard)
{
    return shard->interface->flush_end(shard);
}

void engine_section_begin(struct engine_shard *shard)
{
    epoch_begin(&shard->thread);
    shard->now_ms = 0;
}

void engine_section_end(struct engine_shard *shard)
{
    epoch_end(&shard->thread);
}

uint64_t engine_now_ms(struct engine_shard *shard)
{
    if (shard->now_ms == 0)
        shard->now_ms = wall_clock_now(shard->clock, shard->ring);
    return shard->now_ms;
}

enum kvs_err engine_background_start(struct engine *engine, struct ring *ring, struct engine_background **out)
{
    return engine->interface->background_start(engine, ring, out);
}

void engine_background_turn(struct engine_background *background)
{
    background->interface->background_turn(background);
}

int64_t engine_background_timeout_ns(const struct engine_background *background)
{
    return background->interface->background_timeout_ns(background);
}

void engine_background_stop(struct engine_background *background)
{
    background->interface->background_stop(background);
}

bool engine_background_stopped(const struct engine_background *background)
{
    return background->interface->background_stopped(background);
}

void engine_background_section_begin(struct engine_background *background)
{
    epoch_begin(&background->thread);
}

void engine_background_section_end(struct engine_background *background)
{
    epoch_end(&background->thread);
}

enum kvs_err engine_backup_begin(struct engine *engine, const char *name, struct ring *ring)
{
    if (engine->interface->backup_begin == NULL)
        return KVS_ERR_UNSUPPORTED;
    return engine->interface->backup_begin(engine, name, ring);
}

void engine_backup_state(const struct engine *engine, struct engine_backup_state *out)
{
    *out = (struct engine_backup_state){0};
    if (engine->interface->backup_state != NULL)
        engine->interface->backup_state(engine, out);
}

uint64_t engine_durable(const struct engine_shard *shard)
{
    return shard->interface->durable(shard);
}

uint64_t engine_want_durable(struct engine_shard *shard)
{
    return shard->interface->want_durable(shard);
}

bool engine_failed(const struct engine_shard *shard)
{
    return shard->interface->failed(shard);
}

const char *engine_refusal_text(const struct engine_shard *shard)
{
    return shard->interface->refusal_text(shard);
}

const char *engine_background_failure_text(const struct engine_shard *shard)
{
    return shard->interface->background_failure_text(shard);
}

const char *engine_failure_text(const struct engine_shard *shard)
{
    return shard->interface->failure_text(shard);
}

const char *engine_damage_text(const struct engine_shard *shard)
{
    return shard->interface->damage_text(shard);
}
