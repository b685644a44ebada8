/*
 * test_loadgen_workload.c - which keys the load generator asks for, and when.
 */
#include "loadgen_random.h"
#include "loadgen_schedule.h"
#include "loadgen_workload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND_NS UINT64_C(1000000000)

/* ---- the schedule ---------------------------------------------------------------------------------------------- */

static void test_schedule__equal_distances_from_the_beginning(void **state)
{
    (void)state;
    struct schedule schedule = {.begin_ns = 500, .rate = 1000, .stride = 1};
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(schedule_due_ns(&schedule, i), 500 + i * 1000000);
    assert_int_equal(schedule_count(&schedule, SECOND_NS), 1000);
    assert_int_equal(schedule_count(&schedule, SECOND_NS + 1), 1001);
    assert_int_equal(schedule_count(&schedule, 1), 1);
    assert_int_equal(schedule_count(&schedule, 0), 0);
}

static void test_schedule__rounding_does_not_add_up(void **state)
{
    (void)state;
    struct schedule schedule = {.begin_ns = 7, .rate = 300007, .stride = 1};
    for (uint64_t seconds = 1; seconds < 1000000; seconds = seconds * 3 + 1)
        assert_int_equal(schedule_due_ns(&schedule, 300007 * seconds), 7 + seconds * SECOND_NS);
}

/* However many threads there are, together they send what one would. */
static void test_schedule__threads_share_it(void **state)
{
    (void)state;
    static const uint64_t spans[] = {1, 999, 12345, SECOND_NS / 3, SECOND_NS};
    struct schedule whole = {.begin_ns = 11, .rate = 7777, .stride = 1};
    for (uint64_t threads = 1; threads <= 5; threads++) {
        for (uint64_t index = 0; index < threads; index++) {
            struct schedule part = {.begin_ns = 11, .rate = 7777, .index = index, .stride = threads};
            for (uint64_t i = 0; i < 100; i++)
                assert_int_equal(schedule_due_ns(&part, i), schedule_due_ns(&whole, i * threads + index));
        }
        for (size_t s = 0; s < sizeof spans / sizeof *spans; s++) {
            uint64_t sum = 0;
            for (uint64_t index = 0; index < threads; index++) {
                struct schedule part = {.begin_ns = 11, .rate = 7777, .index = index, .stride = threads};
                uint64_t count = schedule_count(&part, spans[s]);
                assert_true(count == 0 || schedule_due_ns(&part, count - 1) < 11 + spans[s]);
                sum += count;
            }
            assert_int_equal(sum, schedule_count(&whole, spans[s]));
        }
    }
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static struct loadgen_options options_of(enum loadgen_distribution distribution, uint64_t threads, double read_share)
{
    return (struct loadgen_options){.distribution = distribution,
                                    .theta = 0.99,
                                    .keys = 1000,
                                    .key_bytes = 16,
                                    .value_bytes = 8,
                                    .read_share = read_share,
                                    .threads = threads,
                                    .seed = 9};
}

struct fixture {
    struct loadgen_workload workload;
    struct loadgen_source sources[3];
    uint64_t threads;
};

static void set_up(struct fixture *fixture, const struct loadgen_options *options)
{
    fixture->threads = options->threads;
    assert_int_equal(loadgen_workload_init(&fixture->workload, options), KVS_ERR_OK);
    for (uint64_t i = 0; i < options->threads; i++)
        assert_int_equal(loadgen_source_init(&fixture->sources[i], &fixture->workload, i), KVS_ERR_OK);
}

static void tear_down(struct fixture *fixture)
{
    for (uint64_t i = 0; i < fixture->threads; i++)
        loadgen_source_deinit(&fixture->sources[i]);
    loadgen_workload_deinit(&fixture->workload);
}

static void test_draw__uniform_and_zipfian_reach_every_key(void **state)
{
    (void)state;
    for (enum loadgen_distribution distribution = LOADGEN_UNIFORM; distribution <= LOADGEN_ZIPFIAN; distribution++) {
        static uint32_t counts[1000];
        memset(counts, 0, sizeof counts);
        struct fixture fixture;
        struct loadgen_options options = options_of(distribution, 1, 0.25);
        set_up(&fixture, &options);
        unsigned reads = 0;
        for (int i = 0; i < 200000; i++) {
            bool read;
            uint64_t key = loadgen_draw(&fixture.sources[0], &read);
            assert_in_range(key, 0, 999);
            counts[key]++;
            reads += read;
        }
        assert_in_range(reads, 48000, 52000);
        uint32_t most = 0;
        for (size_t key = 0; key < 1000; key++) {
            assert_true(counts[key] > 0);
            most = counts[key] > most ? counts[key] : most;
        }
        if (distribution == LOADGEN_UNIFORM)
            assert_in_range(most, 200, 300);
        else
            assert_in_range(most, 200000 / 7.73 * 0.95, 200000 / 7.73 * 1.05); /* the sum of k^-0.99 up to 1000 */
        tear_down(&fixture);
    }
}

/* Every source has new keys of its own, none is left out, and what is read has been written before. */
static void test_draw__latest_reads_what_was_written(void **state)
{
    (void)state;
    enum { DRAWS = 30000, UNDER_WAY = 40 };
    static uint8_t written[1000 + DRAWS];
    memset(written, 0, sizeof written);
    memset(written, 1, 1000);
    struct fixture fixture;
    struct loadgen_options options = options_of(LOADGEN_LATEST, 3, 0.5);
    set_up(&fixture, &options);
    uint64_t under_way[3][UNDER_WAY];
    size_t counts[3] = {0};
    uint64_t random = 4, new_reads = 0, reads = 0;
    static uint8_t drawn[1000 + DRAWS];
    for (int i = 0; i < DRAWS; i++) {
        unsigned from = (unsigned)i % 3;
        struct loadgen_source *source = &fixture.sources[from];
        bool read;
        uint64_t key = loadgen_draw(source, &read);
        assert_in_range(key, 0, sizeof written - 1);
        if (read) {
            assert_int_equal(written[key], 1);
            reads++;
            new_reads += key >= 1000;
            continue;
        }
        assert_true(key >= 1000);
        assert_int_equal(drawn[key], 0);
        drawn[key] = 1;
        assert_int_equal(loadgen_key(source, key).size, 16);
        if (counts[from] < UNDER_WAY) {
            under_way[from][counts[from]++] = key;
            continue;
        }
        /* Any of those under way is answered, in no order. */
        size_t place = loadgen_random(&random) % UNDER_WAY;
        written[under_way[from][place]] = 1;
        loadgen_written(source, under_way[from][place]);
        under_way[from][place] = key;
    }
    assert_true(new_reads > reads / 2); /* the newest are read most */
    for (unsigned from = 0; from < 3; from++) {
        for (uint64_t i = 0; i < fixture.sources[from].added; i++)
            assert_int_equal(drawn[1000 + i * 3 + from], 1);
    }
    tear_down(&fixture);
}

/* A write that is never answered does not hold up the others for ever. */
static void test_draw__latest_gives_up_a_write_that_is_lost(void **state)
{
    (void)state;
    struct fixture fixture;
    struct loadgen_options options = options_of(LOADGEN_LATEST, 1, 0);
    set_up(&fixture, &options);
    struct loadgen_source *source = &fixture.sources[0];
    bool read;
    (void)loadgen_draw(source, &read);
    for (uint64_t i = 1; i < 3u << 20; i++)
        loadgen_written(source, loadgen_draw(source, &read));
    assert_int_equal(source->written, source->added);
    loadgen_written(source, 1000); /* at last */
    assert_int_equal(source->written, source->added);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule__equal_distances_from_the_beginning),
        cmocka_unit_test(test_schedule__rounding_does_not_add_up),
        cmocka_unit_test(test_schedule__threads_share_it),
        cmocka_unit_test(test_draw__uniform_and_zipfian_reach_every_key),
        cmocka_unit_test(test_draw__latest_reads_what_was_written),
        cmocka_unit_test(test_draw__latest_gives_up_a_write_that_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
