/*
 * store_fixture.h - an engine on the simulated machine: every shard and the background with their rings, all on this
 * thread, and plain calls that wait for their result. Compaction runs when a test asks for it (store_compact).
 */
#ifndef KVS_TESTS_STORE_FIXTURE_H
#define KVS_TESTS_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/limits.h"
#include "compaction/compactor.h"
#include "engine/snapshot_file.h"
#include "engine/store.h"
#include "ring_sim.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    STORE_SHARDS_MAX = 4,
    STORE_VALUE_NOW_MAX = 128 * 1024,
    /* Of a record that fills, in a batch of its own, five blocks: a segment holds so many of them, and 12 KiB more. */
    STORE_LARGE_BYTES = 20000,
    STORE_LARGE_PER_SEGMENT = 12,
};

struct store_fixture {
    struct engine_options options;
    struct ring *main_ring;
    struct engine *engine;
    unsigned shard_count;
    struct store_node {
        struct ring *ring;
        struct engine_shard *shard;
    } nodes[STORE_SHARDS_MAX];
    struct ring *background_ring;
    struct engine_background *background;
    struct compactor *compactor; /* NULL: none */
    char message[ENGINE_MESSAGE_BYTES];
};

static inline struct engine_options store_options(unsigned shard_count)
{
    return (struct engine_options){.kind = "kvs",
                                   .data_dir = "/data",
                                   .shard_count = shard_count,
                                   .memory_bytes = (uint64_t)shard_count * 8 * 256 * 1024,
                                   .segment_bytes = 256 * 1024,
                                   .large_bytes_min = UINT64_MAX, /* all values stand in the log */
                                   .relaxed_interval_ms = 100};
}

static inline void store_turn_node(void *context)
{
    struct store_node *node = context;
    ring_turn(node->ring, engine_timeout_ns(node->shard));
    engine_turn(node->shard);
}

static inline int64_t store_background_timeout(const struct store_fixture *fixture)
{
    int64_t timeout = engine_background_timeout_ns(fixture->background);
    int64_t compact = fixture->compactor == NULL ? -1 : compact_timeout_ns(fixture->compactor);
    return ring_sooner(timeout, compact);
}

static inline void store_turn_background(void *context)
{
    struct store_fixture *fixture = context;
    int64_t timeout = store_background_timeout(fixture);
    unsigned events = ring_turn(fixture->background_ring, timeout);
    if (fixture->compactor != NULL)
        compact_turn(fixture->compactor);
    engine_background_turn(fixture->background);
    /* As in a node: one may have done what the other waits for, or the time-out that was given is out of date. */
    if (events > 0 || store_background_timeout(fixture) != timeout)
        sim_ring_body(fixture->background_ring, store_turn_background, fixture);
}

static inline bool store_all_ready(void *context)
{
    struct store_fixture *fixture = context;
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        if (!engine_shard_ready(fixture->nodes[i].shard))
            return false;
    }
    return true;
}

static inline enum kvs_err store_try_boot(struct store_fixture *fixture, const struct engine_options *options)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options ring_options = {.entries = 64};
    memset(fixture, 0, sizeof *fixture);
    fixture->options = *options;
    fixture->shard_count = options->shard_count;
    assert_int_equal(ring_open(&fixture->main_ring, &ring_options, message), KVS_ERR_OK);
    enum kvs_err err = engine_open(&fixture->engine, options, fixture->main_ring, fixture->message);
    if (err != KVS_ERR_OK) {
        ring_close(fixture->main_ring);
        return err;
    }
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        struct store_node *node = &fixture->nodes[i];
        assert_int_equal(ring_open(&node->ring, &ring_options, message), KVS_ERR_OK);
        assert_int_equal(engine_shard_start(fixture->engine, i, node->ring, &node->shard), KVS_ERR_OK);
        sim_ring_body(node->ring, store_turn_node, node);
        engine_turn(node->shard);
    }
    assert_int_equal(ring_open(&fixture->background_ring, &ring_options, message), KVS_ERR_OK);
    assert_int_equal(engine_background_start(fixture->engine, fixture->background_ring, &fixture->background),
                     KVS_ERR_OK);
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
    engine_background_turn(fixture->background);
    assert_true(sim_run_until(store_all_ready, fixture, 100000));
    return KVS_ERR_OK;
}

static inline void store_boot(struct store_fixture *fixture, const struct engine_options *options)
{
    enum kvs_err err = store_try_boot(fixture, options);
    if (err != KVS_ERR_OK)
        print_error("%s\n", fixture->message);
    assert_int_equal(err, KVS_ERR_OK);
}

/* From now on compaction runs. */
static inline void store_compact(struct store_fixture *fixture, unsigned space_percent)
{
    struct compact_options options = {.space_percent = space_percent};
    assert_int_equal(compact_open(&fixture->compactor, fixture->background, fixture->background_ring, &options),
                     KVS_ERR_OK);
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
}

static inline bool store_all_stopped(void *context)
{
    struct store_fixture *fixture = context;
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        if (!engine_shard_stopped(fixture->nodes[i].shard))
            return false;
    }
    if (fixture->compactor != NULL && !compact_stopped(fixture->compactor))
        return false;
    engine_background_stop(fixture->background);
    engine_background_turn(fixture->background);
    /* That was no turn of its loop, which may be asleep for good. */
    if (store_background_timeout(fixture) == 0)
        sim_ring_body(fixture->background_ring, store_turn_background, fixture);
    return engine_background_stopped(fixture->background);
}

/* Asks for an orderly stop: store_all_stopped says when it has come to its end. */
static inline void store_stop_begin(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        engine_shard_stop(fixture->nodes[i].shard);
        engine_turn(fixture->nodes[i].shard);
    }
    if (fixture->compactor != NULL) {
        compact_stop(fixture->compactor);
        compact_turn(fixture->compactor);
    }
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
}

/* After a stop, as in a node: each thread closes its own ring before the store is closed. */
static inline void store_close(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < fixture->shard_count; i++)
        ring_close(fixture->nodes[i].ring);
    ring_close(fixture->background_ring);
    if (fixture->compactor != NULL)
        compact_close(fixture->compactor);
    engine_close(fixture->engine, fixture->main_ring);
    ring_close(fixture->main_ring);
}

/* An orderly stop. */
static inline void store_stop(struct store_fixture *fixture)
{
    store_stop_begin(fixture);
    assert_true(sim_run_until(store_all_stopped, fixture, 100000));
    store_close(fixture);
}

/* Power loss; memory of the dead node is freed. */
static inline void store_crash(struct store_fixture *fixture, enum sim_crash_mode mode)
{
    sim_crash(mode);
    if (fixture->compactor != NULL)
        compact_close(fixture->compactor);
    engine_close(fixture->engine, fixture->main_ring);
}

static inline struct engine_request store_request(const struct store_fixture *fixture, enum engine_action action,
                                                  struct slice key, struct slice value)
{
    return (struct engine_request){
        .action = action, .hash = hash_key(key, engine_hash_seed(fixture->engine)), .key = key, .value = value};
}

static inline unsigned store_owner(const struct store_fixture *fixture, const struct engine_request *request)
{
    return hash_shard(request->hash, fixture->shard_count);
}

/* Lets everything that is under way come to its end. */
static inline void store_quiet(void)
{
    while (sim_step())
        ;
}

/* An operation whose result is waited for. */
struct store_waiting {
    struct engine_op op;
    bool done;
    bool released;
    uint8_t *value; /* a copy */
    size_t value_bytes;
    struct engine_shard *shard;
    uint64_t gate;
};

static inline void store_waiting_take(struct store_waiting *waiting)
{
    const struct engine_result *result = &waiting->op.result;
    waiting->value_bytes = result->value.size;
    waiting->value = malloc(waiting->value_bytes + 1);
    if (waiting->value_bytes > 0)
        memcpy(waiting->value, result->value.data, waiting->value_bytes);
    waiting->gate = result->gate;
    waiting->done = true;
}

static inline void store_waiting_release(struct store_waiting *waiting)
{
    if (!waiting->released)
        engine_op_release(&waiting->op);
    waiting->released = true;
}

/* Releases at once in half of the cases, as a node does; in the others store_finish does it later. */
static inline void store_waiting_done(struct engine_op *op)
{
    struct store_waiting *waiting = container_of(op, struct store_waiting, op);
    store_waiting_take(waiting);
    if (sim_random(2) == 0)
        store_waiting_release(waiting);
}

static inline bool store_waiting_is_done(void *context)
{
    const struct store_waiting *waiting = context;
    if (!waiting->done)
        return false;
    return waiting->gate == 0 || engine_durable(waiting->shard) >= waiting->gate || engine_failed(waiting->shard);
}

/* Gives a request to its owner. waiting->done tells whether it was answered at once. */
static inline void store_begin(struct store_fixture *fixture, struct store_waiting *waiting,
                               const struct engine_request *request)
{
    memset(waiting, 0, sizeof *waiting);
    waiting->shard = fixture->nodes[store_owner(fixture, request)].shard;
    waiting->op.request = *request;
    waiting->op.done = store_waiting_done;
    engine_section_begin(waiting->shard);
    enum engine_answer answer = engine_try(waiting->shard, request, &waiting->op.result);
    if (answer == ENGINE_DONE) {
        waiting->released = true;
        store_waiting_take(waiting);
    }
    engine_section_end(waiting->shard);
    if (answer == ENGINE_MUST_WAIT)
        engine_submit(waiting->shard, &waiting->op);
}

/* Waits until the result may be shown. The caller frees waiting->value. */
static inline void store_finish(struct store_waiting *waiting)
{
    engine_turn(waiting->shard);
    assert_true(sim_run_until(store_waiting_is_done, waiting, 1000000));
    store_waiting_release(waiting);
    if (waiting->gate != 0 && engine_durable(waiting->shard) < waiting->gate)
        waiting->op.result.error = KVS_ERR_FAILED;
}

static inline void store_execute(struct store_fixture *fixture, struct store_waiting *waiting,
                                 const struct engine_request *request)
{
    store_begin(fixture, waiting, request);
    store_finish(waiting);
}

static inline enum kvs_err store_put_slice(struct store_fixture *fixture, struct slice key, struct slice value)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_PUT, key, value);
    store_execute(fixture, &waiting, &request);
    free(waiting.value);
    return waiting.op.result.error;
}

static inline enum kvs_err store_put_text(struct store_fixture *fixture, const char *key, const char *value)
{
    return store_put_slice(fixture, slice_text(key), slice_text(value));
}

/* True when the key was there. */
static inline bool store_remove_text(struct store_fixture *fixture, const char *key)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_REMOVE, slice_text(key), slice_make(NULL, 0));
    store_execute(fixture, &waiting, &request);
    free(waiting.value);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    return waiting.op.result.found;
}

/* The value as text, to be freed; NULL when the key is not there. */
static inline char *store_get_text(struct store_fixture *fixture, const char *key)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    store_execute(fixture, &waiting, &request);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    if (!waiting.op.result.found) {
        free(waiting.value);
        return NULL;
    }
    waiting.value[waiting.value_bytes] = '\0';
    return (char *)waiting.value;
}

static inline void store_expect(struct store_fixture *fixture, const char *key, const char *value)
{
    char *got = store_get_text(fixture, key);
    if (value == NULL) {
        if (got != NULL)
            fail_msg("key %s is there with '%s' and should not be", key, got);
    } else {
        if (got == NULL)
            fail_msg("key %s is missing", key);
        assert_string_equal(got, value);
    }
    free(got);
}

/* ---- without waiting ------------------------------------------------------------------------------------------- */

/* What the owner says at once to a request with a value of so many 'v'. Nothing else has its turn. */
static inline enum engine_answer store_try_now(struct store_fixture *fixture, enum engine_action action,
                                               const char *key, size_t value_bytes, struct engine_result *result)
{
    static uint8_t value[STORE_VALUE_NOW_MAX];
    assert_true(value_bytes <= sizeof value);
    memset(value, 'v', value_bytes);
    struct engine_request request = store_request(fixture, action, slice_text(key), slice_make(value, value_bytes));
    struct engine_shard *owner = fixture->nodes[store_owner(fixture, &request)].shard;
    engine_section_begin(owner);
    enum engine_answer answer = engine_try(owner, &request, result);
    engine_section_end(owner);
    return answer;
}

/* Writes, and lets the owner's log have its turn. Returns the gate. */
static inline uint64_t store_put_now(struct store_fixture *fixture, const char *key, size_t value_bytes)
{
    struct engine_result result;
    assert_int_equal(store_try_now(fixture, ENGINE_PUT, key, value_bytes, &result), ENGINE_DONE);
    assert_int_equal(result.error, KVS_ERR_OK);
    engine_turn(
        fixture->nodes[hash_shard(hash_key(slice_text(key), engine_hash_seed(fixture->engine)), fixture->shard_count)]
            .shard);
    return result.gate;
}

static inline struct store_shard *store_shard_zero(const struct store_fixture *fixture)
{
    return store_shard_of(fixture->nodes[0].shard);
}

/* Durable records of STORE_LARGE_BYTES, each in a batch of its own, in the open segment of shard 0. Returns which. */
static inline uint32_t store_put_large(struct store_fixture *fixture, unsigned count)
{
    uint32_t number = store_shard_zero(fixture)->log.open->number;
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "large:%u", i);
        store_put_now(fixture, key, STORE_LARGE_BYTES);
        store_quiet();
    }
    assert_int_equal(store_shard_zero(fixture)->log.open->number, number);
    return number;
}

static inline void store_expect_large(struct store_fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "large:%u", i);
        char *got = store_get_text(fixture, key);
        assert_non_null(got);
        assert_int_equal(strlen(got), STORE_LARGE_BYTES);
        free(got);
    }
}

/* ---- of a machine that is down, or that nobody looks at -------------------------------------------------------- */

static inline void store_segment_path(char path[64], uint32_t number)
{
    snprintf(path, 64, "/data/%06u.seg", number);
}

/* A start finds damage, and says so of this. */
static inline void store_expect_refused(struct store_fixture *fixture, const struct engine_options *options,
                                        const char *what)
{
    assert_int_equal(store_try_boot(fixture, options), KVS_ERR_CORRUPT);
    if (strstr(fixture->message, what) == NULL)
        fail_msg("'%s' is not in: %s", what, fixture->message);
}

static inline void store_find_run(void *context, const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strcmp(dot, ".run") == 0)
        snprintf(context, 256, "%s", path);
}

/* The next start has to read every segment. Returns how many runs there were. */
static inline unsigned store_forget_runs(void)
{
    for (unsigned count = 0;; count++) {
        char path[256] = "";
        sim_file_each(store_find_run, path);
        if (path[0] == '\0')
            return count;
        sim_file_remove(path);
    }
}

/* One bit of each of these blocks of a segment is turned over. */
static inline void store_damage(uint32_t number, unsigned first_block, unsigned end_block)
{
    char path[64];
    store_segment_path(path, number);
    for (unsigned block = first_block; block < end_block; block++)
        sim_file_flip(path, ((uint64_t)block * KVS_BLOCK_BYTES + 200) * 8);
}

/* True: the key's record is damaged. Else it has this value, or is not there when that has no data. */
static inline bool store_is_damaged(struct store_fixture *fixture, const char *key, struct slice value)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    store_execute(fixture, &waiting, &request);
    const bool damaged = waiting.op.result.error == KVS_ERR_CORRUPT;
    if (!damaged) {
        assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
        assert_int_equal(waiting.op.result.found, value.data != NULL);
        if (value.data != NULL)
            assert_true(slice_equal(slice_make(waiting.value, waiting.value_bytes), value));
    }
    free(waiting.value);
    return damaged;
}

#define STORE_SNAPSHOT "/data/" SNAPSHOT_NAME

/* The next start has to fill the indexes, by runs and segments. True when there was a snapshot of them. */
static inline bool store_forget_snapshot(void)
{
    const bool there = sim_file_exists(STORE_SNAPSHOT);
    if (there)
        sim_file_remove(STORE_SNAPSHOT);
    return there;
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

static inline struct compact_stats store_compact_stats(const struct store_fixture *fixture)
{
    struct compact_stats stats;
    compact_stats(fixture->compactor, &stats);
    return stats;
}

static inline uint64_t store_keys(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats.keys;
}

#endif
