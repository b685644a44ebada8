/*
 * test_index_pages.c - the pages of an index, as a snapshot takes them, and the index that is made of them again.
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

enum { BYTES_MAX = 1 << 28 };

static struct epoch epoch;

static struct epoch_thread *thread_new(void)
{
    struct epoch_thread *thread = aligned_alloc(64, align_up(sizeof *thread, 64));
    memset(thread, 0, sizeof *thread);
    epoch_register(&epoch, thread);
    return thread;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static bool find(struct index *index, uint64_t hash, uint64_t address, struct index_entry *entry,
                 struct index_cursor *cursor)
{
    index_find(index, hash, cursor);
    while (index_next(cursor, entry)) {
        if (entry->address == address)
            return true;
    }
    return false;
}

static bool has(struct index *index, uint64_t key)
{
    struct index_cursor cursor;
    struct index_entry entry;
    if (!find(index, mix(key), key, &entry, &cursor))
        return false;
    assert_int_equal(entry.class, key % 16);
    return true;
}

static void insert(struct index *index, uint64_t key)
{
    const struct index_entry entry = {.address = key, .class = key % 16};
    assert_int_equal(index_insert(index, mix(key), &entry), KVS_ERR_OK);
}

static void take_away(struct index *index, uint64_t key)
{
    struct index_cursor cursor;
    struct index_entry entry;
    assert_true(find(index, mix(key), key, &entry, &cursor));
    index_remove(index, &cursor);
}

/* The keys 0 … keys - 1 but every fifth, after others have come and gone. */
static struct index *make_index(struct epoch_thread *writer, uint64_t keys, uint64_t bytes_initial)
{
    const struct index_options options = {.shard_count = 1, .bytes_max = BYTES_MAX, .bytes_initial = bytes_initial};
    struct index *index;
    assert_int_equal(index_open(&index, &options, writer), KVS_ERR_OK);
    for (uint64_t key = 0; key < keys; key++) {
        insert(index, key);
        if (key % 5 == 4)
            take_away(index, key - 1);
        epoch_poll(writer);
    }
    return index;
}

static bool is_there(uint64_t key)
{
    return key % 5 != 3;
}

static void expect_keys(struct index *index, uint64_t keys)
{
    uint64_t count = 0;
    for (uint64_t key = 0; key < keys; key++) {
        const bool there = is_there(key) || key - key % 5 + 4 >= keys;
        assert_int_equal(has(index, key), there);
        count += there;
    }
    struct index_stats stats;
    index_stats(index, &stats);
    assert_int_equal(stats.entries, count);
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

struct pages {
    struct index_pages pages;
    struct index_place *places;
};

static struct pages pages_of(const struct index *index)
{
    uint64_t at = 0, count = 0;
    struct index_place place;
    while (index_page_next(index, &at, &place) != NULL)
        count++;
    assert_null(index_page_next(index, &at, &place));
    struct pages taken = {.places = calloc(count + 2, sizeof place)};
    struct index_stats stats;
    index_stats(index, &stats);
    taken.pages = (struct index_pages){.depth_min = index_depth_min(index),
                                       .entries = stats.entries,
                                       .places = taken.places,
                                       .memory = index_pages_alloc(count + 2),
                                       .count = count};
    assert_non_null(taken.pages.memory);
    uint64_t entries = 0;
    at = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct index_entry of_page[INDEX_PAGE_ENTRIES];
        const void *page = index_page_next(index, &at, &taken.places[i]);
        entries += index_page_read(page, of_page);
        memcpy((uint8_t *)taken.pages.memory + i * INDEX_PAGE_BYTES, page, INDEX_PAGE_BYTES);
    }
    assert_int_equal(entries, stats.entries);
    return taken;
}

static struct index *open_pages(struct pages *taken, struct epoch_thread *writer)
{
    const struct index_options options = {.shard_count = 1, .bytes_max = BYTES_MAX};
    struct index *index;
    assert_int_equal(index_open_pages(&index, &options, writer, &taken->pages), KVS_ERR_OK);
    free(taken->places);
    taken->places = NULL;
    return index;
}

static void take_over(struct index *index)
{
    index_stock(index);
    index_take_over(index);
}

static void close_index(struct index *index, struct epoch_thread *writer)
{
    epoch_drain(writer);
    index_close(index);
    free(writer);
}

/* With every number of pages, and with more of them from time to time. */
static void test_index_pages__round_trip(void **state)
{
    (void)state;
    static const uint64_t counts[] = {0, 1, 400, 600, 5000, 30000, 150000};
    for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
        epoch_init(&epoch);
        struct epoch_thread *writer = thread_new();
        uint64_t keys = counts[i];
        struct index *index = make_index(writer, keys, i % 2 == 0 ? 4096 : 64 * 1024);
        for (unsigned round = 0; round < 3; round++) {
            struct pages taken = pages_of(index);
            epoch_drain(writer);
            index_close(index);
            index = open_pages(&taken, writer);
            expect_keys(index, keys);
            /* It grows, whatever of it is its own already. */
            for (uint64_t end = keys + keys / 2 + 5 - (keys + keys / 2) % 5; keys < end; keys++) {
                insert(index, keys);
                if (keys % 5 == 4)
                    take_away(index, keys - 1);
                epoch_poll(writer);
                if (keys % 1000 == 0 && round > 0)
                    take_over(index);
            }
            expect_keys(index, keys);
        }
        for (unsigned chunk = 0; chunk < 20; chunk++)
            take_over(index);
        expect_keys(index, keys);
        close_index(index, writer);
    }
}

/* ---- those that are none --------------------------------------------------------------------------------------- */

static void expect_corrupt(struct pages *taken, struct epoch_thread *writer)
{
    const struct index_options options = {.shard_count = 1, .bytes_max = BYTES_MAX};
    struct index *index = NULL;
    assert_int_equal(index_open_pages(&index, &options, writer, &taken->pages), KVS_ERR_CORRUPT);
    assert_null(index);
}

static void test_index_pages__places_fill_the_directory_once(void **state)
{
    (void)state;
    epoch_init(&epoch);
    struct epoch_thread *writer = thread_new();
    struct index *index = make_index(writer, 30000, 4096);
    struct pages taken = pages_of(index);
    struct index_place *places = taken.places;
    struct index_pages *pages = &taken.pages;
    const struct index_pages right = *pages;
    for (uint64_t i = 0; i < right.count; i += 13) {
        const struct index_place place = places[i];
        places[i] = places[right.count - 1 - i]; /* one is missing, another there twice */
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part, .depth = place.depth + 1};
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part, .depth = place.depth - 1};
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part | 1u << place.depth, .depth = place.depth};
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part ^ 1u, .depth = place.depth};
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part, .depth = 28};
        expect_corrupt(&taken, writer);
        places[i] = (struct index_place){.part = place.part, .depth = UINT32_MAX};
        expect_corrupt(&taken, writer);
        places[i] = place;
    }
    pages->count = right.count - 1;
    expect_corrupt(&taken, writer);
    pages->count = right.count + 1;
    places[right.count] = places[right.count - 1];
    expect_corrupt(&taken, writer);
    *pages = right;
    pages->depth_min = 28;
    expect_corrupt(&taken, writer);
    *pages = right;

    const struct index_options little = {.shard_count = 1, .bytes_max = right.count * INDEX_PAGE_BYTES - 1};
    struct index *none = NULL;
    assert_int_equal(index_open_pages(&none, &little, writer, pages), KVS_ERR_NO_MEMORY);
    epoch_drain(writer);
    index_close(index);
    index = open_pages(&taken, writer);
    expect_keys(index, 30000);
    close_index(index, writer);
}

/* A page that is deeper than fingerprints have bits for. */
static void test_index_pages__no_page_is_deeper_than_fingerprints_allow(void **state)
{
    (void)state;
    for (unsigned depth = 15; depth <= 16; depth++) {
        epoch_init(&epoch);
        struct epoch_thread *writer = thread_new();
        struct pages taken = {.places = calloc(depth + 1, sizeof *taken.places)};
        for (unsigned i = 0; i < depth; i++)
            taken.places[i] = (struct index_place){.part = (1u << i) - 1, .depth = i + 1};
        taken.places[depth] = (struct index_place){.part = (1u << depth) - 1, .depth = depth};
        taken.pages =
            (struct index_pages){.count = depth + 1, .places = taken.places, .memory = index_pages_alloc(depth + 1)};
        if (depth == 15) {
            struct index *index = open_pages(&taken, writer);
            expect_keys(index, 0);
            close_index(index, writer);
            continue;
        }
        expect_corrupt(&taken, writer);
        index_pages_free(taken.pages.memory, taken.pages.count);
        free(taken.places);
        free(writer);
    }
}

/* ---- with others ----------------------------------------------------------------------------------------------- */

enum { READ_KEYS = 150000 };

struct reading {
    struct index *index;
    struct epoch_thread *thread; /* the reader's */
    _Atomic bool stop;
    _Atomic uint64_t looked;
    uint64_t missed;
};

/* Looks for what is never removed. */
static void *read_on(void *context)
{
    struct reading *reading = context;
    struct epoch_thread *thread = reading->thread;
    for (uint64_t i = 0; !atomic_load_explicit(&reading->stop, memory_order_relaxed); i++) {
        const uint64_t key = mix(i) % (READ_KEYS / 5) * 5;
        struct index_cursor cursor;
        struct index_entry entry;
        epoch_begin(thread);
        reading->missed += !find(reading->index, mix(key), key, &entry, &cursor);
        epoch_end(thread);
        atomic_fetch_add_explicit(&reading->looked, 1, memory_order_relaxed);
    }
    return NULL;
}

static void test_index_pages__readers_miss_nothing_while_they_are_taken_over(void **state)
{
    (void)state;
    epoch_init(&epoch);
    struct epoch_thread *writer = thread_new();
    struct index *index = make_index(writer, READ_KEYS, 4096);
    struct pages taken = pages_of(index);
    epoch_drain(writer);
    index_close(index);
    struct reading reading = {.index = open_pages(&taken, writer), .thread = thread_new()};
    index = reading.index;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
    while (atomic_load(&reading.looked) == 0)
        sched_yield();
    uint64_t keys = READ_KEYS;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 2000; i++, keys++) {
            insert(index, keys);
            if (keys % 5 == 4)
                take_away(index, keys - 1);
            epoch_poll(writer);
        }
        take_over(index);
        const uint64_t before = atomic_load(&reading.looked);
        while (atomic_load(&reading.looked) < before + 500)
            sched_yield();
    }
    atomic_store(&reading.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reading.missed, 0);
    expect_keys(index, keys);
    close_index(index, writer);
    free(reading.thread);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_pages__round_trip),
        cmocka_unit_test(test_index_pages__places_fill_the_directory_once),
        cmocka_unit_test(test_index_pages__no_page_is_deeper_than_fingerprints_allow),
        cmocka_unit_test(test_index_pages__readers_miss_nothing_while_they_are_taken_over),
    };
    return cmocka_run_group_tests_name("index_pages", tests, NULL, NULL);
}
