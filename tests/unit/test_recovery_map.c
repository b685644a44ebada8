/*
 * test_recovery_map.c - of all records of a key the newest wins, in whatever order they are read, even when keys share
 * their 64-bit hash: histories against a model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/recovery_map.h"

#include <stdlib.h>

enum { KEYS = 8, RECORDS_MAX = 4000 };

/* ---- histories ------------------------------------------------------------------------------------------------- */

/* What was written, oldest first: record i has LSN i + 1, and its address is i. */
struct history {
    struct recovery_entry records[RECORDS_MAX];
    unsigned keys[RECORDS_MAX]; /* of each record */
    unsigned count;
    bool live[KEYS];
    unsigned newest[KEYS]; /* record of a live key */
    unsigned keys_per_hash;
};

static enum kvs_err same_key(void *context, uint64_t address_a, uint64_t address_b, bool *same)
{
    const struct history *history = context;
    assert_true(address_a < history->count && address_b < history->count);
    *same = history->keys[address_a] == history->keys[address_b];
    return KVS_ERR_OK;
}

/* Hashes whose probe runs touch each other. */
static uint64_t hash_of(const struct history *history, unsigned key)
{
    static const uint64_t hashes[] = {7, 8, 7 + 1024, 7 + 4096, 9, 6, 7 + (1ull << 40), 5};
    return hashes[key / history->keys_per_hash];
}

static bool other_live(const struct history *history, unsigned key)
{
    for (unsigned i = 0; i < KEYS; i++) {
        if (i != key && history->live[i] && hash_of(history, i) == hash_of(history, key))
            return true;
    }
    return false;
}

/* Appends a record as a writer would: COMPARE when another key with this hash is live, and, with `cautious`, when it
 * does not know. */
static void write_record(struct history *history, unsigned key, bool put, bool cautious)
{
    unsigned i = history->count++;
    assert_true(i < RECORDS_MAX);
    history->keys[i] = key;
    history->records[i] = (struct recovery_entry){.hash = hash_of(history, key),
                                                  .lsn = i + 1,
                                                  .address = i,
                                                  .put = put,
                                                  .compare = cautious || other_live(history, key)};
    history->live[key] = put;
    history->newest[key] = i;
}

static struct history *history_new(unsigned keys_per_hash)
{
    struct history *history = calloc(1, sizeof *history);
    assert_non_null(history);
    history->keys_per_hash = keys_per_hash;
    return history;
}

static uint64_t random_state;

static unsigned random_below(unsigned below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(random_state >> 33) % below;
}

/* Only a live key is ever deleted. */
static struct history *history_random(unsigned keys, unsigned keys_per_hash, unsigned count)
{
    struct history *history = history_new(keys_per_hash);
    unsigned caution = random_below(4);
    while (history->count < count) {
        unsigned key = random_below(keys);
        bool put = !history->live[key] || random_below(3) != 0;
        write_record(history, key, put, random_below(4) < caution);
    }
    return history;
}

/* ---- checking -------------------------------------------------------------------------------------------------- */

static void print_order(const struct history *history, const unsigned *order)
{
    for (unsigned i = 0; i < history->count && i < 20; i++) {
        const struct recovery_entry *record = &history->records[order[i]];
        print_error("  LSN %u: %s key %u, hash %llu%s\n", (unsigned)record->lsn, record->put ? "put" : "delete",
                    history->keys[order[i]], (unsigned long long)record->hash, record->compare ? ", COMPARE" : "");
    }
}

/* The map's live entries are the newest records of the live keys, each once. */
static bool agrees(const struct history *history, const struct recovery_map *map)
{
    unsigned expected = 0;
    unsigned found = 0;
    for (unsigned key = 0; key < KEYS; key++)
        expected += history->live[key];
    for (uint64_t i = 0; i < map->capacity; i++) {
        const struct recovery_entry *entry = &map->entries[i];
        if (!entry->used || !entry->put)
            continue;
        unsigned key = history->keys[entry->address];
        if (!history->live[key] || history->newest[key] != entry->address)
            return false;
        found++;
    }
    return found == expected;
}

static void check_order(struct history *history, const unsigned *order)
{
    struct recovery_map map;
    assert_int_equal(recovery_map_init(&map, same_key, history), KVS_ERR_OK);
    for (unsigned i = 0; i < history->count; i++)
        assert_int_equal(recovery_map_add(&map, &history->records[order[i]]), KVS_ERR_OK);
    bool right = agrees(history, &map);
    recovery_map_deinit(&map);
    if (!right) {
        print_order(history, order);
        fail_msg("read in this order, the records leave other keys than were written");
    }
}

static void swap(unsigned *a, unsigned *b)
{
    unsigned kept = *a;
    *a = *b;
    *b = kept;
}

/* The lexically next order; false after the last. */
static bool next_order(unsigned *order, unsigned count)
{
    unsigned i = count - 1;
    while (i > 0 && order[i - 1] > order[i])
        i--;
    if (i == 0)
        return false;
    unsigned j = count - 1;
    while (order[j] < order[i - 1])
        j--;
    swap(&order[i - 1], &order[j]);
    for (unsigned end = count - 1; i < end; i++, end--)
        swap(&order[i], &order[end]);
    return true;
}

static void check_every_order(struct history *history)
{
    unsigned order[8];
    assert_true(history->count <= ARRAY_COUNT(order));
    for (unsigned i = 0; i < history->count; i++)
        order[i] = i;
    do {
        check_order(history, order);
    } while (next_order(order, history->count));
}

static void shuffle(unsigned *order, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    for (unsigned i = count; i > 1; i--)
        swap(&order[i - 1], &order[random_below(i)]);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* The last record may be read first, and in the place of one that it has nothing to do with. */
static void test_recovery_map__delete_with_compare_holds_against_records_read_later(void **state)
{
    (void)state;
    struct history *history = history_new(KEYS);
    write_record(history, 0, true, false);
    write_record(history, 0, false, false);
    write_record(history, 1, true, false);
    write_record(history, 1, false, true);
    check_every_order(history);
    free(history);
}

/* That no other key was alive before the third record must not be forgotten when the fourth takes its place. */
static void test_recovery_map__put_with_compare_keeps_dead_keys_dead(void **state)
{
    (void)state;
    struct history *history = history_new(KEYS);
    write_record(history, 0, true, false);
    write_record(history, 0, false, false);
    write_record(history, 1, true, false);
    write_record(history, 1, true, true);
    check_every_order(history);
    free(history);
}

static void test_recovery_map__every_order_of_a_short_history_gives_the_same_keys(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 300; seed++) {
        random_state = seed;
        struct history *history = history_random(2 + seed % 2, KEYS, 3 + seed % 4);
        check_every_order(history);
        free(history);
    }
}

static void test_recovery_map__random_orders_of_a_long_history_give_the_same_keys(void **state)
{
    (void)state;
    static const unsigned keys_per_hash[] = {1, 2, 4, KEYS};
    unsigned *order = calloc(RECORDS_MAX, sizeof *order);
    for (unsigned seed = 1; seed <= 400; seed++) {
        random_state = seed;
        struct history *history =
            history_random(KEYS, keys_per_hash[seed % ARRAY_COUNT(keys_per_hash)], 20 + seed % 60);
        for (unsigned i = 0; i < 20; i++) {
            shuffle(order, history->count);
            check_order(history, order);
        }
        free(history);
    }
    free(order);
}

static void test_recovery_map__growth_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct recovery_map map;
    assert_int_equal(recovery_map_init(&map, same_key, NULL), KVS_ERR_OK);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned number = pass * COUNT + i;
            bool delete = pass == 1 && i % 3 == 0;
            struct recovery_entry record = {
                .hash = i * 0x9e3779b97f4a7c15ull, .lsn = number + 1, .address = number, .put = !delete};
            assert_int_equal(recovery_map_add(&map, &record), KVS_ERR_OK);
        }
    }
    uint64_t live = 0;
    for (uint64_t i = 0; i < map.capacity; i++) {
        if (!map.entries[i].used || !map.entries[i].put)
            continue;
        assert_true(map.entries[i].address >= COUNT);
        live++;
    }
    assert_int_equal(map.count, COUNT);
    assert_int_equal(live, COUNT - (COUNT + 2) / 3);
    recovery_map_deinit(&map);
}

/* A put that has expired, and the delete that compaction has made of it: whichever is met first, nothing is there. */
static void test_recovery_map__of_equal_lsns_a_delete_wins(void **state)
{
    (void)state;
    for (unsigned first = 0; first <= 1; first++) {
        struct recovery_map map;
        struct recovery_entry entries[2] = {{.hash = 7, .lsn = 5, .address = 1, .put = 1, .expires_ms = 1},
                                            {.hash = 7, .lsn = 5, .address = 2}};
        assert_int_equal(recovery_map_init(&map, NULL, NULL), KVS_ERR_OK);
        assert_int_equal(recovery_map_add(&map, &entries[first]), KVS_ERR_OK);
        assert_int_equal(recovery_map_add(&map, &entries[1 - first]), KVS_ERR_OK);
        for (uint64_t i = 0; i < map.capacity; i++)
            assert_false(map.entries[i].used && map.entries[i].put);
        recovery_map_deinit(&map);
    }
}

static enum kvs_err cannot_read(void *context, uint64_t address_a, uint64_t address_b, bool *same)
{
    (void)context, (void)address_a, (void)address_b, (void)same;
    return KVS_ERR_IO;
}

static void test_recovery_map__failure_to_compare_is_passed_on(void **state)
{
    (void)state;
    struct recovery_map map;
    struct recovery_entry first = {.hash = 7, .lsn = 1, .put = 1};
    struct recovery_entry newer = {.hash = 7, .lsn = 3, .address = 2, .put = 1, .compare = 1};
    struct recovery_entry older = {.hash = 7, .lsn = 2, .address = 1, .put = 1};
    assert_int_equal(recovery_map_init(&map, cannot_read, NULL), KVS_ERR_OK);
    assert_int_equal(recovery_map_add(&map, &first), KVS_ERR_OK);
    assert_int_equal(recovery_map_add(&map, &newer), KVS_ERR_IO);
    recovery_map_deinit(&map);
    assert_int_equal(recovery_map_init(&map, cannot_read, NULL), KVS_ERR_OK);
    assert_int_equal(recovery_map_add(&map, &newer), KVS_ERR_OK);
    assert_int_equal(recovery_map_add(&map, &older), KVS_ERR_IO);
    recovery_map_deinit(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recovery_map__delete_with_compare_holds_against_records_read_later),
        cmocka_unit_test(test_recovery_map__put_with_compare_keeps_dead_keys_dead),
        cmocka_unit_test(test_recovery_map__every_order_of_a_short_history_gives_the_same_keys),
        cmocka_unit_test(test_recovery_map__random_orders_of_a_long_history_give_the_same_keys),
        cmocka_unit_test(test_recovery_map__growth_loses_nothing),
        cmocka_unit_test(test_recovery_map__of_equal_lsns_a_delete_wins),
        cmocka_unit_test(test_recovery_map__failure_to_compare_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
