/*
 * test_expiry_queue.c - never early, never late by more than a tick, never lost, in bounded steps: examples and a plain
 * model under random times and a clock that goes where it likes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/expiry_queue.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t TODAY_MS = 1790000000123ull;
static const uint64_t SECOND_MS = 1000;
static const uint64_t DAY_MS = 24ull * 3600 * 1000;
static const uint64_t YEAR_MS = 365ull * 24 * 3600 * 1000;
static const uint64_t PLENTY = 1ull << 32;

/* What moving items on after a jump back may touch: see the header. */
enum { TOUCHES_BACK_MAX = 1152 * 10, SLICE = 512 };

static struct expiry_queue *open_queue(uint64_t now_ms, uint64_t bytes_max)
{
    struct expiry_queue *queue;
    assert_int_equal(expiry_queue_open(&queue, now_ms, bytes_max), KVS_ERR_OK);
    return queue;
}

static enum kvs_err add(struct expiry_queue *queue, uint64_t expires_ms, uint64_t id)
{
    struct expiry_item item = {.expires_ms = expires_ms, .hash = ~id, .address = id};
    return expiry_queue_add(queue, &item);
}

/* One call, held to its bounds. `back`: the clock may have gone back since the call before. */
static size_t take_slice(struct expiry_queue *queue, uint64_t now_ms, struct expiry_item *items, size_t max, bool back)
{
    uint64_t touched = expiry_queue_touched(queue);
    uint64_t count = expiry_queue_count(queue);
    size_t taken = expiry_queue_take(queue, now_ms, items, max);
    assert_true(taken <= max);
    assert_true(expiry_queue_touched(queue) - touched <= 2 * max + (back ? TOUCHES_BACK_MAX : 0));
    assert_int_equal(expiry_queue_count(queue), count - taken);
    for (size_t i = 0; i < taken; i++) {
        assert_true(items[i].expires_ms <= now_ms);
        assert_int_equal(items[i].hash, ~items[i].address);
    }
    return taken;
}

/* All that is due: how many. */
static uint64_t take_all(struct expiry_queue *queue, uint64_t now_ms)
{
    struct expiry_item items[SLICE];
    uint64_t taken = 0;
    do
        taken += take_slice(queue, now_ms, items, SLICE, true);
    while (expiry_queue_wait_ms(queue, now_ms) == 0);
    return taken;
}

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return random_next(state) % bound;
}

static void test_expiry_queue__is_empty_at_first(void **state)
{
    (void)state;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    struct expiry_item item;
    assert_int_equal(expiry_queue_count(queue), 0);
    assert_int_equal(expiry_queue_bytes(queue), 0);
    assert_int_equal(expiry_queue_wait_ms(queue, TODAY_MS), -1);
    assert_int_equal(expiry_queue_take(queue, UINT64_MAX, &item, 1), 0);
    assert_int_equal(expiry_queue_wait_ms(queue, 0), -1);
    expiry_queue_close(queue);
    expiry_queue_close(NULL);
}

/* Who sleeps as long as he is told finds every item at most a tick late, and is not woken for nothing too often. */
static void test_expiry_queue__items_are_found_within_a_tick(void **state)
{
    (void)state;
    enum { ITEMS = 5000 };
    uint64_t seed = 1;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, TODAY_MS + random_below(&seed, YEAR_MS >> (i % 34)), i), KVS_ERR_OK);
    uint64_t now_ms = TODAY_MS;
    uint64_t calls = 0;
    uint64_t taken = 0;
    for (int64_t wait_ms = 0; wait_ms >= 0; wait_ms = expiry_queue_wait_ms(queue, now_ms)) {
        now_ms += (uint64_t)wait_ms;
        struct expiry_item items[SLICE];
        size_t n = take_slice(queue, now_ms, items, SLICE, false);
        for (size_t i = 0; i < n; i++)
            assert_true(now_ms - items[i].expires_ms < EXPIRY_TICK_MS);
        taken += n;
        calls++;
    }
    assert_int_equal(taken, ITEMS);
    assert_true(calls < ITEMS * 6ull);
    expiry_queue_close(queue);
}

static void test_expiry_queue__takes_what_is_past_at_once(void **state)
{
    (void)state;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    assert_int_equal(add(queue, TODAY_MS - YEAR_MS, 1), KVS_ERR_OK);
    assert_int_equal(add(queue, 0, 2), KVS_ERR_OK);
    assert_int_equal(add(queue, TODAY_MS - EXPIRY_TICK_MS, 3), KVS_ERR_OK);
    assert_int_equal(expiry_queue_wait_ms(queue, TODAY_MS), 0);
    assert_int_equal(take_all(queue, TODAY_MS), 3);
    assert_int_equal(expiry_queue_wait_ms(queue, TODAY_MS), -1);
    expiry_queue_close(queue);
}

static void test_expiry_queue__reaches_to_the_end_of_time(void **state)
{
    (void)state;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    struct expiry_item item;
    assert_int_equal(add(queue, UINT64_MAX, 7), KVS_ERR_OK);
    assert_int_equal(add(queue, UINT64_MAX - 64, 6), KVS_ERR_OK);
    assert_int_equal(expiry_queue_wait_ms(queue, 0), INT64_MAX);
    assert_int_equal(take_all(queue, UINT64_MAX - 65), 0);
    assert_in_range(expiry_queue_wait_ms(queue, UINT64_MAX - 65), 1, 65);
    assert_int_equal(take_slice(queue, UINT64_MAX - 1, &item, 1, false), 1);
    assert_int_equal(item.address, 6);
    assert_int_equal(take_all(queue, UINT64_MAX - 1), 0);
    assert_int_equal(expiry_queue_wait_ms(queue, UINT64_MAX - 1), 1);
    assert_int_equal(take_slice(queue, UINT64_MAX, &item, 1, false), 1);
    assert_int_equal(item.address, 7);
    /* And back from there. */
    assert_int_equal(add(queue, UINT64_MAX, 8), KVS_ERR_OK);
    assert_int_equal(take_all(queue, TODAY_MS), 0);
    assert_int_equal(take_all(queue, UINT64_MAX), 1);
    expiry_queue_close(queue);
}

/* A slice never touches more than twice its size, neither on the day before, when the items come down the levels, nor
 * when they are due; and no slice is wasted then. */
static void test_expiry_queue__a_million_at_one_moment_come_in_slices(void **state)
{
    (void)state;
    enum { ITEMS = 1000000 };
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    uint64_t due_ms = TODAY_MS + DAY_MS;
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, due_ms, i), KVS_ERR_OK);
    assert_true(expiry_queue_bytes(queue) < ITEMS * 25ull);
    struct expiry_item *items = calloc(SLICE, sizeof *items);
    uint8_t *seen = calloc(ITEMS, 1);
    uint64_t now_ms = TODAY_MS;
    uint64_t taken = 0;
    uint64_t calls_due = 0;
    for (int64_t wait_ms = 0; wait_ms >= 0; wait_ms = expiry_queue_wait_ms(queue, now_ms)) {
        now_ms += (uint64_t)wait_ms;
        size_t n = take_slice(queue, now_ms, items, SLICE, false);
        for (size_t i = 0; i < n; i++) {
            assert_true(now_ms - due_ms < EXPIRY_TICK_MS);
            assert_int_equal(seen[items[i].address]++, 0);
        }
        taken += n;
        calls_due += now_ms >= due_ms;
    }
    assert_int_equal(taken, ITEMS);
    assert_true(calls_due <= ITEMS / SLICE + 1);
    assert_true(expiry_queue_touched(queue) <= ITEMS * 5ull);
    assert_int_equal(expiry_queue_bytes(queue), 0);
    free(seen);
    free(items);
    expiry_queue_close(queue);
}

/* Each call takes a millisecond. When a coarse bucket begins, its items must be moved before the first of them can be
 * found: nothing is later than a tick and the calls which that takes. */
static void test_expiry_queue__is_late_by_its_own_steps_only(void **state)
{
    (void)state;
    enum { ITEMS = 200000, SPAN_MS = 64 << 18 };
    uint64_t seed = 7;
    uint64_t first_ms = (TODAY_MS / SPAN_MS + 2) * SPAN_MS;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, first_ms + random_below(&seed, SPAN_MS), i), KVS_ERR_OK);
    uint64_t now_ms = TODAY_MS;
    uint64_t taken = 0;
    uint64_t latest_ms = 0;
    for (int64_t wait_ms = 0; wait_ms >= 0; wait_ms = expiry_queue_wait_ms(queue, now_ms)) {
        now_ms += wait_ms > 0 ? (uint64_t)wait_ms : 1;
        struct expiry_item items[SLICE];
        size_t n = take_slice(queue, now_ms, items, SLICE, false);
        for (size_t i = 0; i < n; i++)
            latest_ms = now_ms - items[i].expires_ms > latest_ms ? now_ms - items[i].expires_ms : latest_ms;
        taken += n;
    }
    assert_int_equal(taken, ITEMS);
    assert_in_range(latest_ms, EXPIRY_TICK_MS, EXPIRY_TICK_MS + 5 * (ITEMS / (2 * SLICE)) / 4);
    expiry_queue_close(queue);
}

/* What is added after years without work lies as near as if it had just been opened. */
static void test_expiry_queue__an_idle_queue_keeps_up_with_the_clock(void **state)
{
    (void)state;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    uint64_t now_ms = (TODAY_MS + YEAR_MS) >> 12 << 12;
    assert_int_equal(add(queue, UINT64_MAX, 0), KVS_ERR_OK);
    assert_int_equal(take_all(queue, now_ms), 0);
    for (uint64_t i = 1; i < 4096; i++)
        assert_int_equal(add(queue, now_ms + i, i), KVS_ERR_OK);
    uint64_t touched = expiry_queue_touched(queue);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(take_all(queue, now_ms + (i + 1ull) * EXPIRY_TICK_MS), EXPIRY_TICK_MS - (i == 0));
    assert_int_equal(expiry_queue_touched(queue) - touched, 4095);
    expiry_queue_close(queue);
}

/* They lie in a coarse bucket still; a restart finds the whole of it due, and none needs to be moved first. */
static void test_expiry_queue__a_jump_of_years_costs_no_steps(void **state)
{
    (void)state;
    enum { ITEMS = 100000 };
    uint64_t seed = 2;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, TODAY_MS + YEAR_MS + random_below(&seed, YEAR_MS), i), KVS_ERR_OK);
    assert_int_equal(add(queue, TODAY_MS + 5000 * YEAR_MS, ITEMS), KVS_ERR_OK);
    assert_int_equal(take_all(queue, TODAY_MS + 4999 * YEAR_MS), ITEMS);
    assert_true(expiry_queue_touched(queue) <= ITEMS + 10);
    assert_int_equal(take_all(queue, TODAY_MS + 5001 * YEAR_MS), 1);
    assert_true(expiry_queue_touched(queue) <= ITEMS + 20);
    expiry_queue_close(queue);
}

static void test_expiry_queue__a_clock_that_goes_back_loses_nothing(void **state)
{
    (void)state;
    enum { ITEMS = 20000 };
    uint64_t seed = 3;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, TODAY_MS + 10 * YEAR_MS + random_below(&seed, YEAR_MS), i), KVS_ERR_OK);
    /* The clock is wrong by ten years for a while; then what expires in ten seconds must do so in ten seconds. */
    assert_int_equal(take_all(queue, TODAY_MS + 10 * YEAR_MS - 1), 0);
    assert_int_equal(add(queue, TODAY_MS + 10 * SECOND_MS, ITEMS), KVS_ERR_OK);
    assert_int_equal(take_all(queue, TODAY_MS), 0);
    assert_int_equal(add(queue, TODAY_MS + 9 * SECOND_MS, ITEMS), KVS_ERR_OK);
    assert_int_equal(take_all(queue, TODAY_MS + 9 * SECOND_MS - 1), 0);
    assert_int_equal(take_all(queue, TODAY_MS + 9 * SECOND_MS + EXPIRY_TICK_MS), 1);
    assert_int_equal(take_all(queue, TODAY_MS + 10 * SECOND_MS - 1), 0);
    assert_int_equal(take_all(queue, TODAY_MS + 10 * SECOND_MS + EXPIRY_TICK_MS), 1);
    assert_int_equal(take_all(queue, TODAY_MS + 11 * YEAR_MS), ITEMS);
    expiry_queue_close(queue);
}

/* A clock that trembles around the border of coarse buckets, with a caller that does one item at a time. */
static void test_expiry_queue__a_trembling_clock_wastes_no_memory(void **state)
{
    (void)state;
    enum { ITEMS = 3000 };
    uint64_t border_ms = TODAY_MS >> 30 << 30;
    struct expiry_queue *queue = open_queue(border_ms - 1000, PLENTY);
    uint64_t id = 0;
    while (id < ITEMS) {
        struct expiry_item item;
        assert_int_equal(add(queue, border_ms + 100000 + id * 3, id), KVS_ERR_OK);
        id++;
        assert_int_equal(take_slice(queue, border_ms + 1, &item, 1, true), 0);
        assert_int_equal(take_slice(queue, border_ms - 100, &item, 1, true), 0);
        assert_true(expiry_queue_bytes(queue) <= (id / 21 + 64) * 512);
    }
    assert_int_equal(take_all(queue, border_ms + DAY_MS), ITEMS);
    assert_int_equal(expiry_queue_bytes(queue), 0);
    expiry_queue_close(queue);
}

static void test_expiry_queue__few_items_take_little_memory(void **state)
{
    (void)state;
    uint64_t seed = 4;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    for (uint64_t i = 0; i < 1000; i++) /* scattered over as many buckets as can be */
        assert_int_equal(add(queue, TODAY_MS + (random_next(&seed) >> (i % 64)) / 2, i), KVS_ERR_OK);
    assert_true(expiry_queue_bytes(queue) <= 512ull * 1024);
    take_all(queue, UINT64_MAX);
    assert_int_equal(expiry_queue_bytes(queue), 0);
    for (uint64_t i = 0; i < 1000; i++) /* the usual: within a day */
        assert_int_equal(add(queue, TODAY_MS + random_below(&seed, DAY_MS), i), KVS_ERR_OK);
    assert_true(expiry_queue_bytes(queue) <= 128ull * 1024);
    expiry_queue_close(queue);
}

static bool keep_all(void *context, const struct expiry_item *item)
{
    (void)context;
    (void)item;
    return false;
}

/* At the limit everything but adding goes on: moves down, jumps back, sweeps. And what is taken makes room again. */
static void test_expiry_queue__bytes_max_is_never_exceeded(void **state)
{
    (void)state;
    static const uint64_t limits[] = {0, 511, 512, 1024, 40ull << 10, 600ull << 10, 700ull << 10, 4ull << 20};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint64_t limit = limits[i];
        uint64_t seed = i;
        struct expiry_queue *queue = open_queue(TODAY_MS, limit);
        uint64_t added = 0;
        while (add(queue, TODAY_MS + DAY_MS + random_below(&seed, 64ull << 24), added) == KVS_ERR_OK)
            added++;
        assert_true(added <= limit * 21 / 512);
        assert_true(added >= (limit / 512 > 1300 ? (limit / 512 - 1300) * 21 : limit / 512 * 9 / 10));
        uint64_t taken = 0;
        struct expiry_item items[16];
        for (uint64_t now_ms = TODAY_MS + DAY_MS; now_ms < TODAY_MS + 2 * DAY_MS;
             now_ms += random_below(&seed, 3ull * 3600 * 1000)) {
            uint64_t at_ms = now_ms - random_below(&seed, 2) * DAY_MS;
            for (unsigned n = 0; n < 200; n++) {
                taken += take_slice(queue, at_ms, items, 16, true);
                expiry_queue_sweep(queue, 5, keep_all, NULL);
                assert_true(expiry_queue_bytes(queue) <= limit);
            }
        }
        taken += take_all(queue, TODAY_MS + YEAR_MS);
        assert_int_equal(taken, added);
        assert_int_equal(expiry_queue_bytes(queue), 0);
        assert_int_equal(add(queue, TODAY_MS, 0), added > 0 ? KVS_ERR_OK : KVS_ERR_NO_MEMORY);
        expiry_queue_close(queue);
    }
}

struct sweep_context {
    uint8_t *seen;
    uint64_t seen_count;
};

static bool is_third(void *context, const struct expiry_item *item)
{
    struct sweep_context *sweep = context;
    sweep->seen[item->address]++;
    sweep->seen_count++;
    return item->address % 3 == 0;
}

static void test_expiry_queue__sweep_drops_exactly_the_stale(void **state)
{
    (void)state;
    enum { ITEMS = 30000, STEP = 100 };
    uint64_t seed = 5;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    struct sweep_context sweep = {.seen = calloc(ITEMS, 1)};
    assert_true(expiry_queue_sweep(queue, STEP, is_third, &sweep)); /* nothing to do */
    for (uint64_t i = 0; i < ITEMS; i++)
        assert_int_equal(add(queue, TODAY_MS - 50 + random_below(&seed, YEAR_MS >> (i % 34)), i), KVS_ERR_OK);
    unsigned calls = 1;
    while (!expiry_queue_sweep(queue, STEP, is_third, &sweep)) {
        assert_int_equal(sweep.seen_count, (uint64_t)calls * STEP);
        calls++;
    }
    assert_int_equal(calls, ITEMS / STEP);
    for (unsigned i = 0; i < ITEMS; i++)
        assert_int_equal(sweep.seen[i], 1);
    assert_int_equal(expiry_queue_count(queue), ITEMS / 3 * 2);
    struct expiry_item items[SLICE];
    uint64_t taken = 0;
    size_t n;
    while ((n = expiry_queue_take(queue, TODAY_MS + YEAR_MS, items, SLICE)) > 0) {
        for (size_t i = 0; i < n; i++)
            assert_true(items[i].address % 3 != 0);
        taken += n;
    }
    assert_int_equal(taken, ITEMS / 3 * 2);
    free(sweep.seen);
    expiry_queue_close(queue);
}

/* Ten are added for each one that is looked at, while the clock moves all of them from bucket to bucket. */
static void test_expiry_queue__sweep_ends_though_more_is_added(void **state)
{
    (void)state;
    enum { ITEMS = 1000, ADDED = 10 };
    uint64_t seed = 6;
    struct expiry_queue *queue = open_queue(TODAY_MS, PLENTY);
    struct sweep_context sweep = {.seen = calloc(ITEMS * (ADDED + 1ull), 1)};
    uint64_t id = 0;
    for (; id < ITEMS; id++)
        assert_int_equal(add(queue, TODAY_MS + DAY_MS + random_below(&seed, DAY_MS), id), KVS_ERR_OK);
    unsigned calls = 1;
    for (; !expiry_queue_sweep(queue, 1, is_third, &sweep); calls++) {
        assert_true(calls < ITEMS);
        for (unsigned i = 0; i < ADDED; i++, id++)
            assert_int_equal(add(queue, TODAY_MS + DAY_MS + random_below(&seed, DAY_MS), id), KVS_ERR_OK);
        struct expiry_item items[8];
        assert_int_equal(take_slice(queue, TODAY_MS + random_below(&seed, DAY_MS), items, 8, true), 0);
    }
    assert_int_equal(calls, ITEMS);
    for (unsigned i = 0; i < ITEMS * ADDED; i++)
        assert_int_equal(sweep.seen[i], i < ITEMS);
    free(sweep.seen);
    expiry_queue_close(queue);
}

enum { MODEL_MAX = 4000 };

static uint64_t seed_now;

struct model_item {
    uint64_t expires_ms;
    bool live;
    bool stale;
    bool in_sweep; /* was there when it began */
    bool seen;     /* by this sweep */
};

struct model {
    struct expiry_queue *queue;
    uint64_t seed;
    uint64_t now_ms;
    uint64_t taken_ms; /* the clock at the last call of take */
    uint64_t next_id;  /* items[id % MODEL_MAX] */
    uint64_t live;
    bool sweeping;
    struct model_item items[MODEL_MAX];
};

static uint64_t random_time(struct model *model)
{
    uint64_t *seed = &model->seed;
    switch (random_below(seed, 8)) {
    case 0:
        return model->now_ms + random_below(seed, 300);
    case 1:
        return model->now_ms + random_below(seed, 10 * SECOND_MS);
    case 2:
        return model->now_ms + random_below(seed, DAY_MS);
    case 3:
        return model->now_ms + random_below(seed, 3 * YEAR_MS);
    case 4:
        return model->now_ms - random_below(seed, 100);
    case 5:
        return random_next(seed) >> random_below(seed, 64);
    case 6:
        return UINT64_MAX - (random_next(seed) >> random_below(seed, 64));
    default:
        return (model->now_ms >> 24 << 24) + (random_below(seed, 8) << 24) - random_below(seed, 3); /* one moment */
    }
}

static void move_clock(struct model *model)
{
    uint64_t *seed = &model->seed;
    switch (random_below(seed, 20)) {
    case 0:
        model->now_ms -= random_below(seed, 5 * SECOND_MS);
        break;
    case 1:
        model->now_ms -= random_below(seed, YEAR_MS) >> random_below(seed, 30);
        break;
    case 2:
        model->now_ms += random_below(seed, YEAR_MS) >> random_below(seed, 30);
        break;
    case 3:
        if (random_below(seed, 10) == 0)
            model->now_ms = random_next(seed) >> random_below(seed, 64);
        break;
    case 4:
        if (random_below(seed, 20) == 0)
            model->now_ms = random_below(seed, 2) - 1; /* the end or the beginning */
        break;
    case 5:
        model->now_ms = TODAY_MS;
        break;
    case 6:
        model->now_ms += DAY_MS / 7;
        break;
    default: {
        int64_t wait_ms = expiry_queue_wait_ms(model->queue, model->now_ms);
        if (wait_ms > 0 && random_below(seed, 2) == 0)
            model->now_ms += (uint64_t)wait_ms;
        else
            model->now_ms += random_below(seed, 200);
    }
    }
}

static void model_add(struct model *model)
{
    struct model_item *item = &model->items[model->next_id % MODEL_MAX];
    if (item->live) {
        model->next_id++;
        return;
    }
    *item = (struct model_item){.expires_ms = random_time(model), .live = true};
    item->stale = random_below(&model->seed, 4) == 0;
    assert_int_equal(add(model->queue, item->expires_ms, model->next_id), KVS_ERR_OK);
    model->next_id++;
    model->live++;
}

static struct model_item *model_find(struct model *model, const struct expiry_item *item)
{
    struct model_item *known = &model->items[item->address % MODEL_MAX];
    assert_true(known->live);
    assert_int_equal(known->expires_ms, item->expires_ms);
    return known;
}

static void model_take(struct model *model)
{
    struct expiry_item items[64];
    size_t max = 1 + random_below(&model->seed, 64);
    size_t n = take_slice(model->queue, model->now_ms, items, max, model->now_ms < model->taken_ms);
    model->taken_ms = model->now_ms;
    for (size_t i = 0; i < n; i++) {
        model_find(model, &items[i])->live = false;
        model->live--;
    }
}

static bool model_stale(void *context, const struct expiry_item *item)
{
    struct model *model = context;
    struct model_item *known = model_find(model, item);
    assert_true(known->in_sweep && !known->seen);
    known->seen = true;
    if (known->stale) {
        known->live = false;
        model->live--;
    }
    return known->stale;
}

static void model_sweep(struct model *model)
{
    for (size_t i = 0; i < MODEL_MAX && !model->sweeping; i++) {
        model->items[i].in_sweep = model->items[i].live;
        model->items[i].seen = false;
    }
    bool done = expiry_queue_sweep(model->queue, 1 + random_below(&model->seed, 50), model_stale, model);
    model->sweeping = !done;
    for (size_t i = 0; i < MODEL_MAX && done; i++)
        assert_true(!model->items[i].live || !model->items[i].in_sweep || model->items[i].seen);
}

/* Takes until there is nothing more to do; then nothing that is left is due, and the wait is right. */
static void model_settle(struct model *model)
{
    uint64_t touched = expiry_queue_touched(model->queue);
    do
        model_take(model);
    while (expiry_queue_wait_ms(model->queue, model->now_ms) == 0);
    assert_true(expiry_queue_touched(model->queue) - touched <= MODEL_MAX * 11 + TOUCHES_BACK_MAX);
    int64_t wait_ms = expiry_queue_wait_ms(model->queue, model->now_ms);
    assert_int_equal(wait_ms == -1, model->live == 0);
    for (size_t i = 0; i < MODEL_MAX; i++) {
        const struct model_item *item = &model->items[i];
        if (!item->live)
            continue;
        assert_true(item->expires_ms > model->now_ms || model->now_ms - item->expires_ms < EXPIRY_TICK_MS - 1);
        if (item->expires_ms > model->now_ms && item->expires_ms - model->now_ms < INT64_MAX - EXPIRY_TICK_MS)
            assert_true(wait_ms <= (int64_t)(item->expires_ms - model->now_ms) + EXPIRY_TICK_MS - 1);
        else if (item->expires_ms <= model->now_ms)
            assert_true(wait_ms <= EXPIRY_TICK_MS - 1);
    }
}

static void model_run(uint64_t seed, unsigned steps)
{
    struct model *model = calloc(1, sizeof *model);
    model->seed = seed;
    model->now_ms = model->taken_ms = TODAY_MS;
    model->queue = open_queue(model->now_ms, PLENTY);
    uint64_t adding = 0;
    for (unsigned step = 0; step < steps; step++) {
        if (step % 100 == 0)
            adding = random_below(&model->seed, 40);
        for (uint64_t n = adding; n > 0; n--)
            model_add(model);
        if (random_below(&model->seed, 2) == 0)
            move_clock(model);
        if (random_below(&model->seed, 8) == 0)
            model_settle(model);
        else
            model_take(model);
        if (random_below(&model->seed, 3) == 0)
            model_sweep(model);
        assert_int_equal(expiry_queue_count(model->queue), model->live);
        uint64_t chunks = model->live / 21 + (model->live < 1282 ? model->live : 1282);
        assert_true(expiry_queue_bytes(model->queue) <= chunks * 512);
    }
    model->now_ms = UINT64_MAX;
    model_settle(model);
    assert_int_equal(model->live, 0);
    assert_int_equal(expiry_queue_bytes(model->queue), 0);
    expiry_queue_close(model->queue);
    free(model);
}

/* KVS_SEEDS=FROM..TO for a longer run by hand. */
static void test_expiry_queue__agrees_with_a_model(void **state)
{
    (void)state;
    const char *text = getenv("KVS_SEEDS");
    uint64_t from = 1;
    uint64_t to = 100;
    if (text != NULL) {
        char *end;
        from = strtoull(text, &end, 10);
        to = strncmp(end, "..", 2) == 0 ? strtoull(end + 2, &end, 10) : from;
        if (*end != '\0' || end == text || to < from)
            fail_msg("KVS_SEEDS must be FROM..TO, not '%s'", text);
    }
    for (seed_now = from; seed_now <= to; seed_now++)
        model_run(seed_now, 1000);
    seed_now = 0;
}

static int say_seed(void **state)
{
    (void)state;
    if (seed_now != 0)
        print_message("seed %" PRIu64 "\n", seed_now);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry_queue__is_empty_at_first),
        cmocka_unit_test(test_expiry_queue__items_are_found_within_a_tick),
        cmocka_unit_test(test_expiry_queue__takes_what_is_past_at_once),
        cmocka_unit_test(test_expiry_queue__reaches_to_the_end_of_time),
        cmocka_unit_test(test_expiry_queue__a_million_at_one_moment_come_in_slices),
        cmocka_unit_test(test_expiry_queue__is_late_by_its_own_steps_only),
        cmocka_unit_test(test_expiry_queue__an_idle_queue_keeps_up_with_the_clock),
        cmocka_unit_test(test_expiry_queue__a_jump_of_years_costs_no_steps),
        cmocka_unit_test(test_expiry_queue__a_clock_that_goes_back_loses_nothing),
        cmocka_unit_test(test_expiry_queue__a_trembling_clock_wastes_no_memory),
        cmocka_unit_test(test_expiry_queue__few_items_take_little_memory),
        cmocka_unit_test(test_expiry_queue__bytes_max_is_never_exceeded),
        cmocka_unit_test(test_expiry_queue__sweep_drops_exactly_the_stale),
        cmocka_unit_test(test_expiry_queue__sweep_ends_though_more_is_added),
        cmocka_unit_test_teardown(test_expiry_queue__agrees_with_a_model, say_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
