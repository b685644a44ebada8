/*
 * expiry_fixture.h - for tests of what expires: puts with an expiry, and a clock that is set to the millisecond.
 */
#ifndef KVS_TESTS_EXPIRY_FIXTURE_H
#define KVS_TESTS_EXPIRY_FIXTURE_H

#include "segments_fixture.h"

static inline uint64_t expiry_now_ms(const struct store_fixture *fixture)
{
    return ring_wall_ms(fixture->main_ring);
}

/* It is exactly `time_ms` now, and nothing had its turn meanwhile. */
static inline void expiry_advance_to(const struct store_fixture *fixture, uint64_t time_ms)
{
    uint64_t now_ms = expiry_now_ms(fixture);
    assert_true(time_ms >= now_ms);
    uint64_t part_ns = ring_now_ns(fixture->main_ring) % 1000000;
    if (time_ms > now_ms)
        sim_advance((time_ms - now_ms) * 1000000 - part_ns);
    assert_int_equal(expiry_now_ms(fixture), time_ms);
}

static inline void expiry_timer_done(struct ring_op *op)
{
    (void)op;
}

static inline bool expiry_timer_over(void *context)
{
    return !ring_op_active(context);
}

/* Runs for so long, and no longer: the machine's clock jumps to what comes next, be it far away. */
static inline void expiry_run_ms(const struct store_fixture *fixture, uint64_t ms)
{
    struct ring_op timer;
    ring_op_init(&timer, expiry_timer_done);
    ring_timer(fixture->main_ring, &timer, ms * 1000000);
    assert_true(sim_run_until(expiry_timer_over, &timer, 10000000));
}

/* True when the key was there before. */
static inline bool expiry_put(struct store_fixture *fixture, struct slice key, struct slice value, uint64_t expires_ms)
{
    struct store_waiting waiting;
    struct engine_request request = store_request(fixture, ENGINE_PUT, key, value);
    request.expires_ms = expires_ms;
    store_execute(fixture, &waiting, &request);
    free(waiting.value);
    assert_int_equal(waiting.op.result.error, KVS_ERR_OK);
    return waiting.op.result.found;
}

static inline bool expiry_put_text(struct store_fixture *fixture, const char *key, const char *value,
                                   uint64_t expires_ms)
{
    return expiry_put(fixture, slice_text(key), slice_text(value), expires_ms);
}

/* A numbered key of segments_fixture.h. */
static inline void expiry_put_key(struct store_fixture *fixture, unsigned i, unsigned version, size_t bytes,
                                  uint64_t expires_ms)
{
    char key[32];
    segments_key(key, i);
    (void)expiry_put(fixture, slice_text(key), segments_value(i, version, bytes), expires_ms);
}

/* What the owner answers at once: the key must not be on disk only. */
static inline struct engine_result expiry_try_get(struct store_fixture *fixture, const char *key)
{
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    struct engine_shard *owner = fixture->nodes[store_owner(fixture, &request)].shard;
    struct engine_result result = {0};
    engine_section_begin(owner);
    assert_int_equal(engine_try(owner, &request, &result), ENGINE_DONE);
    engine_section_end(owner);
    return result;
}

static inline struct engine_stats expiry_stats(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats;
}

/* Whether no record of the key is in RAM. */
static inline bool expiry_is_cold(const struct store_fixture *fixture, unsigned i)
{
    uint64_t places[8];
    unsigned count = segments_places(fixture, i, places);
    for (unsigned p = 0; p < count; p++) {
        if (store_resident(segments_store(fixture), places[p]) != NULL)
            return false;
    }
    return count > 0;
}

#endif
