/*
 * check_salvage.c - a new store from what was found good.
 *
 * Happy path: the newest records that are puts, sorted by place, so that each segment is read once; each record is
 * checked again and put into a store that engine.h has opened in the new directory, with one shard. Every key comes
 * once, so the order in which they are written means nothing. A stop makes everything durable.
 *
 * Failure modes: what no longer proves itself when read again is left out and counted. Any error of the new store (a
 * full disk, most likely) ends it all; the new directory is then of no use.
 */
#include "engine/check_internal.h"

#include "base/assert.h"
#include "base/hash.h"
#include "engine/engine.h"

#include <inttypes.h>
#include <stdlib.h>

enum { INDEX_BYTES_PER_KEY = 40, SEGMENTS_IN_RAM = 8, WAIT_NS = 1000000, TURN_BYTES = 1024 * 1024 };

struct salvage {
    struct check *check;
    struct check_salvaged *out;
    struct ring *ring; /* the shard's */
    struct ring *background_ring;
    struct engine *engine;
    struct engine_shard *shard;
    struct engine_background *background;
    struct engine_op op;
    bool op_done;
    uint64_t gate; /* LSN that the last put waits for */
    uint64_t turn_bytes;
};

/* ---- the new store --------------------------------------------------------------------------------------------- */

static void turn(struct salvage *salvage, bool wait)
{
    unsigned events = ring_turn(salvage->background_ring, 0);
    engine_background_turn(salvage->background);
    events += ring_turn(salvage->ring, 0);
    engine_turn(salvage->shard);
    if (events == 0 && wait) {
        (void)ring_turn(salvage->ring, WAIT_NS);
        engine_turn(salvage->shard);
    }
    salvage->turn_bytes = 0;
}

static void count_name(void *context, const char *name)
{
    (void)name;
    ++*(unsigned *)context;
}

/* The directory must not hold anything: an existing store would be written into. */
static enum kvs_err check_empty(struct check *check, const char *out_dir)
{
    struct ring *ring = check->options.ring;
    int fd;
    unsigned names = 0;
    enum kvs_err err = ring_dir_open(ring, out_dir, &fd);
    if (err == KVS_ERR_OK) {
        err = ring_dir_list(ring, fd, count_name, &names);
        ring_close_fd(ring, fd);
    }
    if (err != KVS_ERR_OK)
        check_say(check, "cannot make or read directory %s: %s", out_dir, kvs_err_text(err));
    else if (names > 0)
        check_say(check, "%s is not empty: give a new directory", out_dir);
    return err == KVS_ERR_OK && names > 0 ? KVS_ERR_EXISTS : err;
}

static enum kvs_err open_rings(struct salvage *salvage)
{
    const struct ring_options options = {.entries = 64};
    char message[RING_MESSAGE_BYTES];
    enum kvs_err err = ring_open(&salvage->ring, &options, message);
    if (err == KVS_ERR_OK)
        err = ring_open(&salvage->background_ring, &options, message);
    if (err != KVS_ERR_OK)
        check_say(salvage->check, "%.400s", message);
    return err;
}

static enum kvs_err open_store(struct salvage *salvage, const char *out_dir, uint64_t keys)
{
    struct check *check = salvage->check;
    uint64_t index_bytes = keys * INDEX_BYTES_PER_KEY + 1024 * 1024;
    uint64_t image_bytes = check->superblock.segment_bytes * SEGMENTS_IN_RAM;
    /* A quarter is the index's, most of the rest the images'. */
    const struct engine_options options = {.kind = "kvs",
                                           .data_dir = out_dir,
                                           .shard_count = 1,
                                           .memory_bytes =
                                               4 * index_bytes > image_bytes ? 4 * index_bytes : image_bytes,
                                           .segment_bytes = check->superblock.segment_bytes,
                                           .relaxed_interval_ms = 100,
                                           .value_bytes_max = KVS_VALUE_BYTES_MAX};
    enum kvs_err err = engine_open(&salvage->engine, &options, check->options.ring, check->message);
    if (err == KVS_ERR_OK)
        err = engine_shard_start(salvage->engine, 0, salvage->ring, &salvage->shard);
    if (err == KVS_ERR_OK)
        err = engine_background_start(salvage->engine, salvage->background_ring, &salvage->background);
    while (err == KVS_ERR_OK && !engine_shard_ready(salvage->shard))
        turn(salvage, true);
    return err;
}

/* An orderly stop, also after a failure. */
static void close_store(struct salvage *salvage)
{
    if (salvage->background != NULL) {
        engine_shard_stop(salvage->shard);
        while (!engine_shard_stopped(salvage->shard))
            turn(salvage, true);
        engine_background_stop(salvage->background);
        while (!engine_background_stopped(salvage->background))
            turn(salvage, true);
    }
    if (salvage->background_ring != NULL)
        ring_close(salvage->background_ring);
    if (salvage->ring != NULL)
        ring_close(salvage->ring);
    if (salvage->engine != NULL)
        engine_close(salvage->engine, salvage->check->options.ring);
}

static void put_done(struct engine_op *op)
{
    container_of(op, struct salvage, op)->op_done = true;
}

static enum kvs_err put(struct salvage *salvage, const struct record_header *record, struct slice value)
{
    struct slice key = record_key(record);
    struct engine_op *op = &salvage->op;
    *op = (struct engine_op){.done = put_done};
    op->request = (struct engine_request){.action = ENGINE_PUT,
                                          .hash = hash_key(key, engine_hash_seed(salvage->engine)),
                                          .key = key,
                                          .value = value,
                                          .expires_ms = record_expires_ms(record)};
    engine_section_begin(salvage->shard);
    enum engine_answer answer = engine_try(salvage->shard, &op->request, &op->result);
    engine_section_end(salvage->shard);
    if (answer != ENGINE_DONE) {
        salvage->op_done = false;
        engine_submit(salvage->shard, op);
        while (!salvage->op_done)
            turn(salvage, true);
        engine_op_release(op);
    }
    if (op->result.error == KVS_ERR_OK && op->result.gate > salvage->gate)
        salvage->gate = op->result.gate;
    salvage->out->keys++;
    salvage->out->bytes += key.size + value.size;
    salvage->turn_bytes += record_size(record);
    if (salvage->turn_bytes >= TURN_BYTES)
        turn(salvage, false);
    return op->result.error;
}

static enum kvs_err explain(struct salvage *salvage, const char *out_dir, enum kvs_err err)
{
    const char *why =
        engine_failed(salvage->shard) ? engine_failure_text(salvage->shard) : engine_refusal_text(salvage->shard);
    check_say(salvage->check, "cannot write into %.200s: %.200s", out_dir, why[0] != '\0' ? why : kvs_err_text(err));
    return err;
}

/* ---- the old one ----------------------------------------------------------------------------------------------- */

/* A large value comes from its file. */
static enum kvs_err put_large(struct salvage *salvage, const struct record_header *record)
{
    const struct value_descriptor descriptor = record_descriptor(record);
    char text[VALUE_TEXT_BYTES];
    struct large_memory *memory = check_read_value(salvage->check, record_key(record), &descriptor, text);
    if (memory == NULL) {
        salvage->out->lost++;
        return KVS_ERR_OK;
    }
    enum kvs_err err = put(salvage, record, slice_make(memory->data, (size_t)descriptor.value_bytes));
    large_memory_give(memory);
    return err;
}

/* The record that was found at this place; NULL when it does not prove itself any more. */
static const struct record_header *find_record(const struct check *check, const struct check_file *file,
                                               const struct check_key *key)
{
    uint32_t offset = address_offset(key->address, check->shift);
    const struct record_header *record = (const void *)(check->bytes + offset);
    uint64_t room = check->superblock.segment_bytes - offset;
    bool good = record_check(record, room, file->seed, offset) == RECORD_VALID && record->lsn == key->lsn &&
                record->kind == RECORD_PUT;
    return good ? record : NULL;
}

static enum kvs_err copy_all(struct salvage *salvage, uint64_t keys)
{
    struct check *check = salvage->check;
    const struct check_file *loaded = NULL;
    enum kvs_err err = KVS_ERR_OK;
    for (uint64_t i = 0; err == KVS_ERR_OK && i < keys; i++) {
        const struct check_key *key = &check->map.keys[i];
        if (key->expires_ms != 0 && key->expires_ms <= check->time_ms)
            continue;
        uint32_t number = address_segment(key->address, check->shift);
        if (loaded == NULL || loaded->found.number != number) {
            struct check_file *file = check_file_find(check, number);
            KVS_ASSERT(file != NULL && file->out.read);
            if (!check_load(check, file, true))
                memset(check->bytes, 0, (size_t)check->superblock.segment_bytes);
            loaded = file;
            check_progress(check, "salvaging", i, keys);
        }
        const struct record_header *record = find_record(check, loaded, key);
        if (record == NULL)
            salvage->out->lost++;
        else
            err = record_is_large(record) ? put_large(salvage, record) : put(salvage, record, record_value(record));
    }
    while (err == KVS_ERR_OK && engine_durable(salvage->shard) < salvage->gate) {
        turn(salvage, true);
        err = engine_failed(salvage->shard) ? KVS_ERR_FAILED : KVS_ERR_OK;
    }
    return err;
}

enum kvs_err check_salvage(struct check *check, const char *out_dir, struct check_salvaged *salvaged,
                           char message[CHECK_MESSAGE_BYTES])
{
    static_assert((int)CHECK_MESSAGE_BYTES >= (int)ENGINE_MESSAGE_BYTES, "the engine's messages fit");
    KVS_ASSERT(check->options.numbers == NULL);
    *salvaged = (struct check_salvaged){0};
    message[0] = '\0';
    check->message = message;
    if (check->bytes == NULL) {
        check_say(check, "there is nothing to salvage from %s: %s", check->options.dir_name,
                  check->identity ? "its engine keeps nothing on disk" : "no segment has a sound header");
        return KVS_ERR_INVALID;
    }
    struct salvage salvage = {.check = check, .out = salvaged};
    uint64_t keys = check_map_sort_puts(&check->map);
    enum kvs_err err = check_empty(check, out_dir);
    if (err == KVS_ERR_OK)
        err = open_rings(&salvage);
    if (err == KVS_ERR_OK)
        err = open_store(&salvage, out_dir, keys);
    if (err == KVS_ERR_OK) {
        err = copy_all(&salvage, keys);
        if (err != KVS_ERR_OK)
            (void)explain(&salvage, out_dir, err);
    }
    close_store(&salvage);
    if (err != KVS_ERR_OK && message[0] == '\0')
        check_say(check, "cannot salvage into %s: %s", out_dir, kvs_err_text(err));
    check->message = NULL;
    return err;
}
