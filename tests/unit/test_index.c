/*
 * test_index.c - the index against a plain model, its order of candidates, its RAM, and its readers under change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/index.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct fixture {
    struct epoch epoch;
    struct epoch_thread *writer;
    struct index *index;
    _Atomic bool stop; /* of another thread */
};

static struct epoch_thread *thread_new(struct epoch *epoch)
{
    struct epoch_thread *thread = aligned_alloc(64, align_up(sizeof *thread, 64));
    memset(thread, 0, sizeof *thread);
    epoch_register(epoch, thread);
    return thread;
}

static void fixture_open_with(struct fixture *fixture, uint64_t bytes_max, uint64_t bytes_initial)
{
    epoch_init(&fixture->epoch);
    atomic_store(&fixture->stop, false);
    fixture->writer = thread_new(&fixture->epoch);
    struct index_options options = {.shard_count = 1, .bytes_max = bytes_max, .bytes_initial = bytes_initial};
    assert_int_equal(index_open(&fixture->index, &options, fixture->writer), KVS_ERR_OK);
}

static void fixture_open(struct fixture *fixture, uint64_t bytes_max)
{
    fixture_open_with(fixture, bytes_max, 64 * 1024);
}

static void fixture_close(struct fixture *fixture)
{
    epoch_drain(fixture->writer);
    index_close(fixture->index);
    free(fixture->writer);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static bool has(struct index *index, uint64_t hash, uint64_t address)
{
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address == address)
            return true;
    }
    return false;
}

static bool take_away(struct index *index, uint64_t hash, uint64_t address)
{
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address == address) {
            index_remove(index, &cursor);
            return true;
        }
    }
    return false;
}

static void test_index__every_entry_is_found_while_it_grows(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    enum { KEYS = 300000 };
    for (uint64_t i = 0; i < KEYS; i++) {
        struct index_entry entry = {.address = i, .class = i & 15};
        assert_int_equal(index_insert(fixture.index, mix(i), &entry), KVS_ERR_OK);
        if (i % 1024 == 0)
            epoch_poll(fixture.writer);
    }
    unsigned false_candidates = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        struct index_cursor cursor;
        struct index_entry entry;
        bool found = false;
        index_find(fixture.index, mix(i), &cursor);
        while (index_next(&cursor, &entry)) {
            if (entry.address == i) {
                assert_int_equal(entry.class, i & 15);
                found = true;
            } else {
                false_candidates++;
            }
        }
        assert_true(found);
    }
    /* A page's generations share out evenly: well below one false candidate in a hundred look-ups. */
    assert_true(false_candidates < KEYS / 100);
    struct index_stats stats;
    index_stats(fixture.index, &stats);
    assert_int_equal(stats.entries, KEYS);
    assert_true(stats.splits > 100);
    fixture_close(&fixture);
}

static void test_index__agrees_with_a_model_under_churn(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    enum { KEYS = 20000, STEPS = 400000 };
    static uint8_t present[KEYS];
    memset(present, 0, sizeof present);
    uint64_t live = 0;
    for (uint64_t step = 0; step < STEPS; step++) {
        uint64_t key = mix(step * 7 + 1) % KEYS;
        struct index_entry entry = {.address = key};
        if (present[key]) {
            assert_true(take_away(fixture.index, mix(key), key));
            live--;
        } else {
            assert_false(has(fixture.index, mix(key), key));
            assert_int_equal(index_insert(fixture.index, mix(key), &entry), KVS_ERR_OK);
            live++;
        }
        present[key] ^= 1;
        epoch_poll(fixture.writer);
    }
    for (uint64_t key = 0; key < KEYS; key++)
        assert_int_equal(has(fixture.index, mix(key), key), present[key]);
    struct index_stats stats;
    index_stats(fixture.index, &stats);
    assert_int_equal(stats.entries, live);
    /* Removed slots are reused or dropped with their page: churn does not make the index grow. */
    assert_true(stats.bytes < 24 * KEYS + 256 * 1024);
    fixture_close(&fixture);
}

/* Of the bucket six bits, of the page two. */
static uint64_t eight_bits(uint64_t i)
{
    return mix(i) & 0xc00000000000003full;
}

static void test_index__hash_of_eight_bits_keeps_all_keys(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    enum { KEYS = 1000 };
    for (uint64_t i = 0; i < KEYS; i++) {
        struct index_entry entry = {.address = i};
        assert_int_equal(index_insert(fixture.index, eight_bits(i), &entry), KVS_ERR_OK);
    }
    for (uint64_t i = 0; i < KEYS; i++)
        assert_true(has(fixture.index, eight_bits(i), i));
    for (uint64_t i = 0; i < KEYS; i += 2)
        assert_true(take_away(fixture.index, eight_bits(i), i));
    for (uint64_t i = 0; i < KEYS; i++)
        assert_int_equal(has(fixture.index, eight_bits(i), i), i % 2);
    fixture_close(&fixture);
}

static void test_index__too_many_equal_hashes_are_refused_and_nothing_is_lost(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    uint64_t inserted = 0;
    enum kvs_err err = KVS_ERR_OK;
    while (inserted < 100) {
        struct index_entry entry = {.address = inserted};
        err = index_insert(fixture.index, 42, &entry);
        if (err != KVS_ERR_OK)
            break;
        inserted++;
    }
    assert_int_equal(err, KVS_ERR_NO_SPACE);
    assert_int_equal(inserted, 64);
    for (uint64_t i = 0; i < inserted; i++)
        assert_true(has(fixture.index, 42, i));
    fixture_close(&fixture);
}

static void test_index__newest_candidate_comes_first(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    enum { GROUPS = 400, DEPTH = 5, OTHERS = 40000 };
    uint64_t address = 0;
    for (unsigned round = 0; round < DEPTH; round++) {
        for (uint64_t group = 0; group < GROUPS; group++) {
            struct index_entry entry = {.address = address++};
            assert_int_equal(index_insert(fixture.index, mix(group), &entry), KVS_ERR_OK);
        }
        /* Others fill buckets, move entries out of their home buckets and split pages in between. */
        for (uint64_t i = 0; i < OTHERS; i++) {
            struct index_entry entry = {.address = 1 << 30};
            assert_int_equal(index_insert(fixture.index, mix((round + 1) * 1000003ull + i), &entry), KVS_ERR_OK);
        }
        epoch_poll(fixture.writer);
    }
    for (uint64_t group = 0; group < GROUPS; group++) {
        struct index_cursor cursor;
        struct index_entry entry;
        uint64_t last = UINT64_MAX;
        unsigned seen = 0;
        index_find(fixture.index, mix(group), &cursor);
        while (index_next(&cursor, &entry)) {
            if (entry.address == 1 << 30)
                continue;
            if (entry.address % GROUPS != group)
                continue;
            assert_true(entry.address < last);
            last = entry.address;
            seen++;
        }
        assert_int_equal(seen, DEPTH);
    }
    fixture_close(&fixture);
}

static void test_index__replace_keeps_place_and_takes_new_content(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    struct index_entry entry = {.address = 7, .class = 3, .unsettled = true};
    assert_int_equal(index_insert(fixture.index, 99, &entry), KVS_ERR_OK);
    struct index_cursor cursor;
    index_find(fixture.index, 99, &cursor);
    assert_true(index_next(&cursor, &entry));
    assert_true(entry.unsettled);
    struct index_entry other = {.address = INDEX_ADDRESS_MASK, .class = 15};
    index_replace(fixture.index, &cursor, &other);
    index_find(fixture.index, 99, &cursor);
    assert_true(index_next(&cursor, &entry));
    assert_int_equal(entry.address, INDEX_ADDRESS_MASK);
    assert_int_equal(entry.class, 15);
    assert_false(entry.unsettled);
    assert_false(index_next(&cursor, &entry));
    fixture_close(&fixture);
}

static void test_index__stops_at_its_budget(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 256 * 1024);
    uint64_t i = 0;
    enum kvs_err err;
    do {
        struct index_entry entry = {.address = i};
        err = index_insert(fixture.index, mix(i), &entry);
        epoch_poll(fixture.writer);
    } while (err == KVS_ERR_OK && ++i < 100000);
    assert_int_equal(err, KVS_ERR_NO_MEMORY);
    assert_true(i > 256 * 1024 / 8 / 4);
    for (uint64_t k = 0; k < i; k++)
        assert_true(has(fixture.index, mix(k), k));
    struct index_stats stats;
    index_stats(fixture.index, &stats);
    assert_true(stats.bytes <= 256 * 1024 + 64 * 1024);
    fixture_close(&fixture);
}

/* The directory grows by doubling, but in steps: from its first size on, and from that of an index made for its keys.
 */
static void test_index__directory_doubles_in_small_steps(void **state)
{
    (void)state;
    enum { KEYS = 600000, STEP = 64 };
    for (unsigned made_for = 0; made_for < 2; made_for++) {
        struct fixture fixture;
        fixture_open_with(&fixture, 64 * 1024 * 1024, made_for == 0 ? 4096 : index_bytes_for(KEYS / 4));
        for (uint64_t i = 0; i < KEYS; i++) {
            struct index_entry entry = {.address = i};
            assert_int_equal(index_insert(fixture.index, mix(i), &entry), KVS_ERR_OK);
            epoch_poll(fixture.writer);
        }
        for (uint64_t i = 0; i < KEYS; i++)
            assert_true(has(fixture.index, mix(i), i));
        struct index_stats stats;
        index_stats(fixture.index, &stats);
        assert_true(stats.splits > 500); /* more pages than a step has entries */
        assert_in_range(stats.directory_step_max, 1, STEP);
        fixture_close(&fixture);
    }
}

/* Keys 0..STABLE-1 are always there; the writer moves their entries about by inserting and removing others. */
enum { STABLE = 2000, READERS = 2 };

static uint64_t nine_bits(uint64_t i)
{
    return mix(i) & 0xe00000000000003full;
}

struct reading {
    struct fixture *fixture;
    struct epoch_thread *thread;
    _Atomic bool *stop;
    uint64_t looks, misses;
};

static void *read_stable(void *argument)
{
    struct reading *reading = argument;
    uint64_t random = (uint64_t)(uintptr_t)reading;
    while (!atomic_load(reading->stop)) {
        epoch_begin(reading->thread);
        for (unsigned i = 0; i < 64; i++) {
            random = mix(random + 1);
            uint64_t key = random % STABLE;
            reading->looks++;
            reading->misses += !has(reading->fixture->index, nine_bits(key), key);
        }
        epoch_end(reading->thread);
    }
    return NULL;
}

static void test_index__readers_never_miss_an_entry_that_is_there(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    /* Few distinct hashes: walks are long, and every insert of an equal hash shifts those before it. */
    for (uint64_t key = 0; key < STABLE; key++) {
        struct index_entry entry = {.address = key};
        assert_int_equal(index_insert(fixture.index, nine_bits(key), &entry), KVS_ERR_OK);
    }
    _Atomic bool stop = false;
    struct reading readings[READERS];
    pthread_t threads[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        readings[i] = (struct reading){.fixture = &fixture, .thread = thread_new(&fixture.epoch), .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, read_stable, &readings[i]), 0);
    }
    for (uint64_t step = 0; step < 200000; step++) {
        uint64_t hash = nine_bits(step);
        struct index_entry entry = {.address = STABLE + step};
        assert_int_equal(index_insert(fixture.index, hash, &entry), KVS_ERR_OK);
        /* A few thousand of its own keep pages splitting. */
        struct index_entry other = {.address = 1 << 30};
        assert_int_equal(index_insert(fixture.index, mix(step + (1u << 20)), &other), KVS_ERR_OK);
        assert_true(take_away(fixture.index, hash, STABLE + step));
        epoch_poll(fixture.writer);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readings[i].misses, 0);
        assert_true(readings[i].looks > 0);
    }
    fixture_close(&fixture);
    for (unsigned i = 0; i < READERS; i++)
        free(readings[i].thread);
}

/* An index that is made for its keys needs no splits, or few, and hashes in their order come to one page after the
 * other: from one to the next few candidates' lines are far apart. */
/* One thread fills it, another keeps memory in stock. */
static void *stock(void *argument)
{
    const struct fixture *fixture = argument;
    while (!atomic_load(&fixture->stop)) {
        index_stock(fixture->index);
        sched_yield();
    }
    return NULL;
}

static void test_index__memory_in_stock_is_used(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, 64 << 20);
    assert_true(index_wants_stock(fixture.index));
    index_stock(fixture.index);
    assert_false(index_wants_stock(fixture.index));
    uint64_t count = 0;
    for (; count < 1000000 && !index_wants_stock(fixture.index); count++) {
        struct index_entry entry = {.address = count};
        assert_int_equal(index_insert(fixture.index, mix(count), &entry), KVS_ERR_OK);
    }
    assert_true(count > 1000 && count < 1000000);

    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stock, &fixture), 0);
    for (; count < 3000000; count++) {
        struct index_entry entry = {.address = count};
        assert_int_equal(index_insert(fixture.index, mix(count), &entry), KVS_ERR_OK);
        epoch_poll(fixture.writer);
    }
    atomic_store(&fixture.stop, true);
    pthread_join(thread, NULL);
    for (uint64_t i = 0; i < count; i += 7)
        assert_true(has(fixture.index, mix(i), i));
    fixture_close(&fixture);

    fixture_open(&fixture, 8 << 20); /* a small one sets nothing aside */
    assert_false(index_wants_stock(fixture.index));
    fixture_close(&fixture);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* In the order of hashes and in none; in none also into one that has to grow. */
static void test_index__what_was_filled_in_is_found(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    uint64_t *hashes = malloc(COUNT * sizeof *hashes);
    for (unsigned way = 0; way < 3; way++) {
        for (uint64_t i = 0; i < COUNT; i++)
            hashes[i] = mix(i) & ~(i % 16 == 0 ? 0xff00ull : 0); /* some agree in more bits than others */
        if (way == 0)
            qsort(hashes, COUNT, sizeof *hashes, by_value);
        struct fixture fixture;
        epoch_init(&fixture.epoch);
        fixture.writer = thread_new(&fixture.epoch);
        struct index_options options = {
            .shard_count = 1, .bytes_max = 64 << 20, .bytes_initial = way < 2 ? index_bytes_for(COUNT) : 64 * 1024};
        assert_int_equal(index_open(&fixture.index, &options, fixture.writer), KVS_ERR_OK);
        struct index_filler filler;
        index_filler_init(&filler, fixture.index);
        for (uint64_t i = 0; i < COUNT; i++) {
            const struct index_entry entry = {.address = i, .class = i % 16};
            assert_int_equal(index_fill(&filler, hashes[i], &entry), KVS_ERR_OK);
        }
        struct index_stats stats;
        index_stats(fixture.index, &stats);
        assert_int_equal(stats.entries, COUNT);
        assert_true(way < 2 || stats.splits > 0);
        for (uint64_t i = 0; i < COUNT; i++)
            assert_true(has(fixture.index, hashes[i], i));
        for (uint64_t i = 0; i < COUNT; i += 2)
            assert_true(take_away(fixture.index, hashes[i], i));
        for (uint64_t i = 0; i < COUNT; i += 2) {
            const struct index_entry entry = {.address = COUNT + i};
            assert_int_equal(index_insert(fixture.index, hashes[i], &entry), KVS_ERR_OK);
        }
        for (uint64_t i = 0; i < COUNT; i++)
            assert_true(has(fixture.index, hashes[i], i % 2 == 0 ? COUNT + i : i));
        fixture_close(&fixture);
    }
    free(hashes);
}

static void test_index__filled_in_the_order_of_hashes_goes_page_by_page(void **state)
{
    (void)state;
    enum { KEYS = 40000, SHARDS = 3, SHARD = 1 };
    struct fixture fixture;
    fixture_open(&fixture, 1ull << 30);
    index_close(fixture.index);
    const struct index_options options = {
        .shard_count = SHARDS, .bytes_max = 1ull << 30, .bytes_initial = index_bytes_for(KEYS)};
    assert_int_equal(index_open(&fixture.index, &options, fixture.writer), KVS_ERR_OK);
    unsigned changes = 0;
    uintptr_t before = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint64_t hash = UINT64_MAX / SHARDS * SHARD + UINT64_MAX / SHARDS / KEYS * i + 99 + (i * 7919 & 63);
        struct index_entry entry = {.address = i};
        assert_int_equal(index_insert(fixture.index, hash, &entry), KVS_ERR_OK);
        struct index_cursor cursor;
        index_find(fixture.index, hash, &cursor);
        changes += (uintptr_t)cursor.page != before;
        before = (uintptr_t)cursor.page;
    }
    struct index_stats stats;
    index_stats(fixture.index, &stats);
    assert_true(stats.splits < 8);
    assert_true(changes <= 2 * index_bytes_for(KEYS) / 4096);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index__memory_in_stock_is_used),
        cmocka_unit_test(test_index__what_was_filled_in_is_found),
        cmocka_unit_test(test_index__filled_in_the_order_of_hashes_goes_page_by_page),
        cmocka_unit_test(test_index__every_entry_is_found_while_it_grows),
        cmocka_unit_test(test_index__agrees_with_a_model_under_churn),
        cmocka_unit_test(test_index__hash_of_eight_bits_keeps_all_keys),
        cmocka_unit_test(test_index__too_many_equal_hashes_are_refused_and_nothing_is_lost),
        cmocka_unit_test(test_index__newest_candidate_comes_first),
        cmocka_unit_test(test_index__replace_keeps_place_and_takes_new_content),
        cmocka_unit_test(test_index__directory_doubles_in_small_steps),
        cmocka_unit_test(test_index__stops_at_its_budget),
        cmocka_unit_test(test_index__readers_never_miss_an_entry_that_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
