/*
 * test_store_group.c - changes of several keys, of several shards, that take effect together: over crashes, for readers
 * on all threads, and with others at work on the same keys.
 */
#include "check_fixture.h"

#include <errno.h>

enum { KEYS = 24, GROUP_MAX = 6, WORKERS = 8 };

/* One group on its way, as a node leads it: holds shard by shard, append, publish, conclude. */
struct work {
    struct store_fixture *fixture;
    unsigned home;
    unsigned count, told, published;
    unsigned next_shard;
    bool prepared, appended, over;
    uint64_t after_lsn;
    struct engine_group group;
    unsigned version;
    struct part {
        struct engine_op op;
        struct work *work;
        unsigned i, shard;
        bool asked, told, published;
        bool found;
        unsigned seen; /* the version that was there */
        char key[32];
        uint8_t value[2000];
    } parts[GROUP_MAX];
    struct engine_change changes[GROUP_MAX];
    bool blind;
};

static void on_free(struct engine_op *op)
{
    engine_op_release(op);
}

static unsigned version_of(const struct part *part, struct slice value)
{
    char text[40] = {0};
    unsigned i, version;
    memcpy(text, value.data, value.size < 39 ? value.size : 39);
    assert_int_equal(sscanf(text, "%u.%u.", &i, &version), 2);
    assert_int_equal(i, part->i);
    return version;
}

static void on_held(struct engine_op *op)
{
    struct part *part = container_of(op, struct part, op);
    assert_int_equal(op->result.error, KVS_ERR_OK);
    part->told = true;
    part->found = op->result.found;
    part->seen = op->result.found ? version_of(part, op->result.value) : 0;
    uint64_t lsn = engine_lsn(op->shard);
    part->work->told++;
    if (lsn > part->work->after_lsn)
        part->work->after_lsn = lsn;
}

static void work_begin(struct store_fixture *fixture, struct work *work, unsigned version)
{
    *work = (struct work){.fixture = fixture, .version = version, .blind = sim_random(3) == 0};
    work->home = (unsigned)sim_random(fixture->shard_count);
    unsigned want = 1 + (unsigned)sim_random(GROUP_MAX);
    bool taken[KEYS] = {false};
    for (unsigned i = 0; i < want; i++) {
        unsigned key = (unsigned)sim_random(KEYS);
        if (taken[key])
            continue;
        taken[key] = true;
        struct part *part = &work->parts[work->count++];
        part->work = work;
        part->i = key;
        segments_key(part->key, key);
        size_t bytes = 40 + sim_random(1900);
        memcpy(part->value, segments_value(key, version, bytes).data, bytes);
        part->op.request = store_request(fixture, ENGINE_HOLD, slice_text(part->key), slice_make(part->value, bytes));
        part->op.request.group = true;
        part->op.request.blind = work->blind;
        part->op.done = on_held;
        part->shard = store_owner(fixture, &part->op.request);
    }
}

/* One step, if there is one to be made; false: nothing to do now. */
static bool work_step(struct work *work)
{
    struct store_fixture *fixture = work->fixture;
    struct engine_shard *home = fixture->nodes[work->home].shard;
    unsigned asked = 0;
    for (unsigned i = 0; i < work->count; i++)
        asked += work->parts[i].asked;
    if (work->over)
        return false;
    if (asked < work->count) {
        if (work->told < asked)
            return false;
        for (unsigned i = 0; i < work->count; i++) {
            struct part *part = &work->parts[i];
            if (part->shard != work->next_shard)
                continue;
            part->asked = true;
            engine_submit(fixture->nodes[part->shard].shard, &part->op);
        }
        work->next_shard++;
        return true;
    }
    if (work->told < work->count)
        return false;
    if (!work->prepared) {
        for (unsigned i = 0; i < work->count; i++) {
            struct part *part = &work->parts[i];
            struct engine_change *change = &work->changes[i];
            change->key = slice_text(part->key);
            change->value = part->op.request.value;
            change->removes = !work->blind && work->version % 5 == 0;
        }
        enum kvs_err err = engine_group_prepare(home, &work->group, work->changes, work->count);
        if (err == KVS_ERR_AGAIN)
            return false;
        assert_int_equal(err, KVS_ERR_OK);
        work->prepared = true;
        return true;
    }
    if (!work->appended) {
        enum kvs_err err = engine_group_append(home, &work->group, work->changes, work->count, work->after_lsn);
        if (err == KVS_ERR_AGAIN)
            return false;
        assert_int_equal(err, KVS_ERR_OK);
        work->appended = true;
        engine_turn(home);
        return true;
    }
    if (engine_durable(home) < work->group.gate)
        return false;
    if (work->published < work->count) {
        struct part *part = &work->parts[work->published];
        if (engine_publish(&part->op, &work->changes[work->published], &work->group) != KVS_ERR_OK)
            return false;
        work->published++;
        return true;
    }
    for (unsigned i = 0; i < work->count; i++) {
        work->parts[i].op.done = on_free;
        engine_conclude(&work->parts[i].op);
    }
    engine_group_end(home, &work->group);
    work->over = true;
    return true;
}

/* What each key holds, by version: 0, or what the last group that was seen to end has given it. */
struct model {
    unsigned version[KEYS];
};

static void apply(struct model *model, const struct work *work)
{
    for (unsigned i = 0; i < work->count; i++)
        model->version[work->parts[i].i] = work->changes[i].removes ? 0 : work->version;
}

/* `bytes`, unless it is NULL: of the value. */
static unsigned value_there(struct store_fixture *fixture, unsigned i, size_t *bytes)
{
    struct part part = {.i = i};
    struct store_waiting get;
    segments_key(part.key, i);
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(part.key), slice_make(NULL, 0));
    store_execute(fixture, &get, &request);
    assert_int_equal(get.op.result.error, KVS_ERR_OK);
    unsigned version = get.op.result.found ? version_of(&part, slice_make(get.value, get.value_bytes)) : 0;
    if (bytes != NULL)
        *bytes = get.value_bytes;
    free(get.value);
    return version;
}

static unsigned version_there(struct store_fixture *fixture, unsigned i)
{
    return value_there(fixture, i, NULL);
}

/* Of each group under way at a crash: all its keys have it, or none. */
static void check_after_crash(struct store_fixture *fixture, struct model *model, const struct work *works)
{
    unsigned now[KEYS];
    for (unsigned i = 0; i < KEYS; i++)
        now[i] = version_there(fixture, i);
    for (unsigned w = 0; w < WORKERS; w++) {
        const struct work *work = &works[w];
        if (work->over || !work->appended)
            continue;
        unsigned with = 0;
        for (unsigned i = 0; i < work->count; i++)
            with += now[work->parts[i].i] == (work->changes[i].removes ? 0 : work->version);
        bool without = true;
        for (unsigned i = 0; i < work->count; i++)
            without = without && now[work->parts[i].i] == model->version[work->parts[i].i];
        if (with != work->count && !without)
            fail_msg("group %u is there in part", work->version);
        if (with == work->count)
            apply(model, work);
    }
    for (unsigned i = 0; i < KEYS; i++)
        assert_int_equal(now[i], model->version[i]);
}

static void expect_good_check(void)
{
    struct check_fixture check;
    check_begin(&check, "/data", (struct check_options){0});
    assert_false(check_refuses(&check));
    check_end(&check);
}

/* All large values have their files, and nothing else has. */
static void expect_files(struct store_fixture *fixture, uint64_t large_min)
{
    unsigned large = 0;
    struct engine_stats stats;
    for (unsigned i = 0; i < KEYS; i++) {
        size_t bytes;
        large += value_there(fixture, i, &bytes) != 0 && bytes >= large_min;
    }
    for (unsigned i = 1000; i < 1200; i++)
        (void)segments_remove(fixture, i);
    store_quiet();
    engine_stats(fixture->engine, &stats);
    assert_int_equal(stats.large_values, large);
}

/* Groups side by side, with compaction, too little memory and other writes; power loss at any moment. */
static void churn(uint64_t seed, unsigned boots)
{
    static struct work works[WORKERS];
    struct model model = {{0}};
    unsigned version = 1;
    sim_create(seed);
    struct engine_options options = segments_scarce(1 + seed % 4);
    if (seed % 2 == 1)
        options.large_bytes_min = 1000; /* half of all values have files */
    struct store_fixture fixture;
    for (unsigned boot = 0; boot < boots; boot++) {
        store_boot(&fixture, &options);
        store_compact(&fixture, 130);
        if (boot > 0)
            check_after_crash(&fixture, &model, works);
        for (unsigned w = 0; w < WORKERS; w++)
            work_begin(&fixture, &works[w], version++);
        unsigned steps = 200 + (unsigned)sim_random(1500);
        for (unsigned step = 0; step < steps; step++) {
            struct work *work = &works[sim_random(WORKERS)];
            if (!work_step(work))
                sim_step();
            if (work->over) {
                apply(&model, work);
                work_begin(&fixture, work, version++);
            }
            if (step % 64 == 0) {
                unsigned other = 1000 + (unsigned)sim_random(200);
                segments_put(&fixture, other, version, 1500);
            }
            unsigned turned = (unsigned)sim_random(fixture.shard_count);
            engine_turn(fixture.nodes[turned].shard);
        }
        store_crash(&fixture, sim_random(2) == 0 ? SIM_DROP_ALL : SIM_RANDOM);
        if (sim_random(3) == 0)
            options.shard_count = 1 + (unsigned)sim_random(4);
        options.memory_bytes = (uint64_t)options.shard_count * 6 * options.segment_bytes;
        expect_good_check();
    }
    store_boot(&fixture, &options);
    check_after_crash(&fixture, &model, works);
    expect_files(&fixture, options.large_bytes_min);
    store_stop(&fixture);
    expect_good_check();
    sim_destroy();
}

static void test_group__all_or_nothing_over_crashes(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 60; seed++)
        churn(seed, 4);
}

/* ---- what readers see ------------------------------------------------------------------------------------------ */

static bool work_over(void *context)
{
    struct work *work = context;
    while (work_step(work))
        ;
    return work->over;
}

static void run_group(struct store_fixture *fixture, struct work *work)
{
    for (unsigned i = 0; i < fixture->shard_count; i++)
        engine_turn(fixture->nodes[i].shard);
    assert_true(sim_run_until(work_over, work, 1000000));
}

/* Whoever finds a group's change finds no key of it unchanged afterwards: at every step, on every thread. */
static void test_group__readers_see_all_or_nothing(void **state)
{
    (void)state;
    unsigned seen_old = 0, seen_new = 0;
    for (unsigned seed = 0; seed < 40; seed++) {
        sim_create(200 + seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(3);
        static struct work work;
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i++)
            segments_put(&fixture, i, 1, 100);
        work_begin(&fixture, &work, 2);
        bool begun_to_show = false;
        for (unsigned step = 0; step < 3000 && !work.over; step++) {
            if (!work_step(&work)) {
                for (unsigned i = 0; i < fixture.shard_count; i++)
                    engine_turn(fixture.nodes[i].shard);
                sim_step();
            }
            for (unsigned i = 0; i < work.count; i++) {
                struct part *part = &work.parts[i];
                struct engine_shard *reader = fixture.nodes[sim_random(3)].shard;
                struct engine_request request =
                    store_request(&fixture, ENGINE_GET, slice_text(part->key), slice_make(NULL, 0));
                struct engine_result result;
                engine_section_begin(reader);
                enum engine_answer answer = reader == fixture.nodes[part->shard].shard
                                                ? engine_try(reader, &request, &result)
                                                : engine_try_get(reader, part->shard, &request, &result);
                if (answer == ENGINE_DONE) {
                    assert_true(result.found);
                    bool is_new = version_of(part, result.value) == 2;
                    if (begun_to_show && !is_new)
                        fail_msg("an old value after a new one of the group");
                    begun_to_show = begun_to_show || is_new;
                    seen_old += !is_new;
                    seen_new += is_new;
                }
                engine_section_end(reader);
            }
        }
        assert_true(work.over);
        for (unsigned i = 0; i < work.count; i++)
            assert_int_equal(version_there(&fixture, work.parts[i].i), 2);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(seen_old > 100 && seen_new > 0);
}

/* The group's record is in another shard's log; what its owner writes later must be newer for a start as well. */
static void test_group__later_writes_are_newer(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 30; seed++) {
        sim_create(300 + seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(2);
        static struct work work;
        store_boot(&fixture, &options);
        /* One log is far ahead of the other. */
        for (unsigned n = 0; n < 200; n++) {
            struct engine_request request = {0};
            unsigned i = 1000 + n;
            char key[32];
            segments_key(key, i);
            request = store_request(&fixture, ENGINE_PUT, slice_text(key), slice_make(NULL, 0));
            if (store_owner(&fixture, &request) == seed % 2)
                segments_put(&fixture, i, 1, 50);
        }
        for (unsigned i = 0; i < KEYS; i++)
            segments_put(&fixture, i, 1, 100);
        work_begin(&fixture, &work, 2);
        run_group(&fixture, &work);
        for (unsigned i = 0; i < work.count; i += 2)
            segments_put(&fixture, work.parts[i].i, 3, 100);
        store_quiet();
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < work.count; i++)
            assert_int_equal(version_there(&fixture, work.parts[i].i), i % 2 == 0 ? 3 : 2);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* A shard that only jumps writes nothing: all that waits for its log must go on all the same. */
static void test_group__an_idle_log_that_jumps_is_durable(void **state)
{
    (void)state;
    sim_create(400);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    static struct work work;
    store_boot(&fixture, &options);
    for (unsigned n = 0; n < 20; n++) {
        do
            work_begin(&fixture, &work, 1 + n);
        while (work.count < 4);
        run_group(&fixture, &work);
    }
    store_quiet();
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(engine_durable(fixture.nodes[i].shard), engine_lsn(fixture.nodes[i].shard));
    store_stop(&fixture);
    sim_destroy();
}

/* Puts keys from `first` on, of one shard. */
static void put_in_shard(struct store_fixture *fixture, unsigned shard, unsigned first, unsigned count,
                         unsigned version)
{
    for (unsigned i = first; count > 0; i++) {
        char key[32];
        segments_key(key, i);
        const struct engine_request request = store_request(fixture, ENGINE_PUT, slice_text(key), slice_make(NULL, 0));
        if (store_owner(fixture, &request) != shard)
            continue;
        segments_put(fixture, i, version, 1500);
        count--;
    }
}

static bool is_there(struct store_fixture *fixture, uint32_t number, uint64_t uid)
{
    const struct segment *segment = segments_at(fixture, number);
    return segment != NULL && segment->uid == uid && segment_state(segment) != SEGMENT_FREE;
}

/* Until the group is durable, and not shown. */
static void append_group(struct store_fixture *fixture, struct work *work)
{
    struct engine_shard *home = fixture->nodes[work->home].shard;
    while (!work->appended || engine_durable(home) < work->group.gate) {
        for (unsigned i = 0; i < fixture->shard_count; i++)
            engine_turn(fixture->nodes[i].shard);
        if (work->appended || !work_step(work))
            sim_step();
    }
}

/* A group that deletes keys, up to where that is durable. Their puts lie in segments in which nothing else dies, and
 * no segment in which something dies begins before the deletes. */
static void begin_deletes(struct store_fixture *fixture, struct work *work)
{
    segments_put_range(fixture, 0, KEYS, 1, 100);
    segments_put_range(fixture, 2000, 2400, 1, 1500);
    do
        work_begin(fixture, work, 5); /* removes all of them */
    while (work->blind || work->count < 3);
    append_group(fixture, work);
}

/* What a group deletes is there for all who read, until that is published: so its delete records are needed, however
 * little the segment that they stand in is worth. */
static void test_group__its_deletes_outlive_compaction(void **state)
{
    (void)state;
    unsigned given_up = 0;
    for (unsigned seed = 0; seed < 10; seed++) {
        sim_create(500 + seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(2);
        static struct work work;
        store_boot(&fixture, &options);
        store_compact(&fixture, 110);
        begin_deletes(&fixture, &work);
        const struct segment_table *table = &segments_store(&fixture)->segments;
        uint32_t number = address_segment(work.changes[0].address, table->shift);
        uint64_t uid = segments_at(&fixture, number)->uid;
        bool there = true;
        for (unsigned round = 0; round < 60 && there; round++) {
            put_in_shard(&fixture, work.home, 1000, 100, round);
            there = is_there(&fixture, number, uid);
        }
        given_up += !there;
        run_group(&fixture, &work);
        put_in_shard(&fixture, work.home, 1000, 200, 100);
        store_quiet();
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < work.count; i++)
            assert_int_equal(version_there(&fixture, work.parts[i].i), 0);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_int_equal(given_up, 0);
}

/* They are what makes room. */
static void test_group__deletes_go_on_when_the_disk_is_full(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        sim_create(800 + shards);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(shards);
        options.disk_bytes_max = (16 + 8 * shards) * options.segment_bytes;
        static struct work work;
        store_boot(&fixture, &options);
        store_compact(&fixture, 1000);
        segments_put_range(&fixture, 0, KEYS, 1, 100);
        unsigned filled = 1000;
        while (segments_try_put(&fixture, filled, 1, 1500) == KVS_ERR_OK)
            filled++;
        assert_true(filled > 1200);
        for (unsigned round = 0; round < 200; round++) {
            do
                work_begin(&fixture, &work, 5); /* removes all of them */
            while (work.blind);
            run_group(&fixture, &work);
            for (unsigned i = 0; i < work.count; i++)
                assert_int_equal(version_there(&fixture, work.parts[i].i), 0);
        }
        assert_int_equal(segments_try_put(&fixture, 1000, 2, 1500), KVS_ERR_NO_SPACE);
        store_stop(&fixture);
        sim_destroy();
    }
}

struct preparing {
    struct store_fixture *fixture;
    struct engine_group group;
    struct engine_change changes[3];
    enum kvs_err error;
};

static bool is_prepared(void *context)
{
    struct preparing *preparing = context;
    struct engine_shard *shard = preparing->fixture->nodes[0].shard;
    preparing->error = engine_group_prepare(shard, &preparing->group, preparing->changes, 3);
    return preparing->error != KVS_ERR_AGAIN;
}

static enum kvs_err prepare_two_files(struct store_fixture *fixture, struct preparing *preparing, size_t bytes)
{
    static uint8_t value[400000];
    *preparing = (struct preparing){.fixture = fixture};
    preparing->changes[0] = (struct engine_change){.key = slice_text("a"), .value = slice_make(value, bytes)};
    preparing->changes[1] = (struct engine_change){.key = slice_text("b"), .value = slice_make(value, 1000)};
    preparing->changes[2] = (struct engine_change){.key = slice_text("c"), .value = slice_make(value, bytes)};
    if (!is_prepared(preparing)) {
        engine_turn(fixture->nodes[0].shard);
        assert_true(sim_run_until(is_prepared, preparing, 100000));
    }
    return preparing->error;
}

static void expect_value_files(const struct store_fixture *fixture, uint64_t count)
{
    struct engine_stats stats;
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
    engine_stats(fixture->engine, &stats);
    assert_int_equal(stats.large_values, count);
    assert_true(count > 0 || stats.large_value_bytes == 0);
}

/* One file cannot be written, or there is no room for the records: the other files go, too. */
static void test_group__files_go_if_it_cannot_be(void **state)
{
    (void)state;
    static const struct {
        enum ring_kind kind;
        int sys_errno;
        enum kvs_err error;
    } faults[] = {
        {RING_KIND_OPEN, EIO, KVS_ERR_IO},
        {RING_KIND_ALLOCATE, ENOSPC, KVS_ERR_NO_SPACE},
        {RING_KIND_WRITE, EIO, KVS_ERR_IO},
        {RING_KIND_RENAME, EIO, KVS_ERR_IO},
    };
    sim_create(600);
    struct store_fixture fixture;
    struct preparing preparing;
    struct engine_options options = store_options(1);
    options.large_bytes_min = 10000;
    options.value_bytes_max = 1024 * 1024;
    options.disk_bytes_max = 12 * options.segment_bytes;
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < ARRAY_COUNT(faults); i++) {
        for (unsigned nth = 1; nth <= 2; nth++) {
            sim_fail(faults[i].kind, nth, faults[i].sys_errno);
            assert_int_equal(prepare_two_files(&fixture, &preparing, 20000), faults[i].error);
            sim_fail_none();
            expect_value_files(&fixture, 0);
        }
    }
    assert_int_equal(prepare_two_files(&fixture, &preparing, 400000), KVS_ERR_OK);
    struct preparing second;
    assert_int_equal(prepare_two_files(&fixture, &second, 400000), KVS_ERR_NO_SPACE);
    expect_value_files(&fixture, 2);
    /* The log fails before it has the records. */
    sim_fail(RING_KIND_WRITE, 1, EIO);
    assert_int_equal(store_put_slice(&fixture, slice_text("x"), slice_text("y")), KVS_ERR_FAILED);
    sim_fail_none();
    assert_int_equal(engine_group_append(fixture.nodes[0].shard, &preparing.group, preparing.changes, 3, 0),
                     KVS_ERR_FAILED);
    expect_value_files(&fixture, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* A group that is too large for one batch, or for a short stop of everything else: its values become files from a
 * smaller size on. */
static void test_group__larger_than_a_segment(void **state)
{
    (void)state;
    enum { COUNT = 60, BYTES = 9000 };
    sim_create(601);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    options.large_bytes_min = 20000;
    store_boot(&fixture, &options);
    assert_true((uint64_t)COUNT * BYTES > 2 * options.segment_bytes);
    static uint8_t value[BYTES];
    static char keys[COUNT][32];
    static struct engine_change changes[COUNT];
    struct engine_group group = {0};
    for (unsigned i = 0; i < COUNT; i++) {
        segments_key(keys[i], i);
        changes[i] = (struct engine_change){.key = slice_text(keys[i]), .value = slice_make(value, BYTES)};
    }
    struct engine_shard *shard = fixture.nodes[0].shard;
    enum kvs_err err;
    while ((err = engine_group_prepare(shard, &group, changes, COUNT)) == KVS_ERR_AGAIN) {
        engine_turn(shard);
        (void)sim_step();
    }
    assert_int_equal(err, KVS_ERR_OK);
    expect_value_files(&fixture, COUNT);
    assert_int_equal(engine_group_append(shard, &group, changes, COUNT, 0), KVS_ERR_OK);
    engine_group_end(shard, &group);
    engine_turn(shard);
    static struct engine_change more[COUNT * 2];
    for (unsigned i = 0; i < COUNT * 2; i++)
        more[i] = (struct engine_change){.key = slice_text(keys[i / 2]), .value = slice_make(value, 4000)};
    group = (struct engine_group){0};
    assert_int_equal(engine_group_prepare(shard, &group, more, COUNT * 2), KVS_ERR_TOO_LARGE);
    store_quiet();
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    store_quiet();
    for (unsigned i = 0; i < COUNT; i++) {
        struct store_waiting get;
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(keys[i]), slice_make(NULL, 0));
        store_execute(&fixture, &get, &request);
        assert_true(get.op.result.error == KVS_ERR_OK && get.value_bytes == BYTES);
        free(get.value);
    }
    store_stop(&fixture);
    sim_destroy();
}

/*
 * Between the moment at which a group is durable and that at which it is shown its segment fills, what stands around it
 * dies, and compaction comes to it. What lies in an old segment is copied from there into a new one as if it were to
 * stay. True: the group's segment was given up before.
 */
static bool compact_before_it_is_shown(uint64_t seed, bool removes)
{
    sim_create(seed);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    static struct work work;
    store_boot(&fixture, &options);
    store_compact(&fixture, 110);
    for (unsigned i = 0; i < KEYS; i++)
        segments_put(&fixture, i, 1, 100);
    segments_put_range(&fixture, 2000, 2100, 1, 1500);
    do
        work_begin(&fixture, &work, removes ? 5 : 6);
    while (work.blind || work.count < 3);
    append_group(&fixture, &work);
    uint32_t number = address_segment(work.changes[0].address, segments_store(&fixture)->segments.shift);
    uint64_t uid = segments_at(&fixture, number)->uid;
    for (unsigned round = 2; round < 30 && is_there(&fixture, number, uid); round++)
        segments_put_range(&fixture, 2000, 2100, round, 1500);
    bool given_up = !is_there(&fixture, number, uid);
    run_group(&fixture, &work);
    store_quiet();
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < work.count; i++)
        assert_int_equal(version_there(&fixture, work.parts[i].i), removes ? 0 : work.version);
    store_stop(&fixture);
    sim_destroy();
    return given_up;
}

/* No index points at them, and yet they are not dead. */
static void test_group__its_puts_are_not_dead_before_it_is_shown(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 10; seed++)
        assert_false(compact_before_it_is_shown(600 + seed, false));
}

/* Nothing shadows the delete records but what nobody has deleted yet. */
static void test_group__its_deletes_are_needed_before_it_is_shown(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 10; seed++)
        assert_false(compact_before_it_is_shown(700 + seed, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group__all_or_nothing_over_crashes),
        cmocka_unit_test(test_group__readers_see_all_or_nothing),
        cmocka_unit_test(test_group__later_writes_are_newer),
        cmocka_unit_test(test_group__an_idle_log_that_jumps_is_durable),
        cmocka_unit_test(test_group__its_puts_are_not_dead_before_it_is_shown),
        cmocka_unit_test(test_group__its_deletes_outlive_compaction),
        cmocka_unit_test(test_group__deletes_go_on_when_the_disk_is_full),
        cmocka_unit_test(test_group__files_go_if_it_cannot_be),
        cmocka_unit_test(test_group__larger_than_a_segment),
        cmocka_unit_test(test_group__its_deletes_are_needed_before_it_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
