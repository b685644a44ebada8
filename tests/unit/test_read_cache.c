/*
 * test_read_cache.c - the read cache: what it gives back, what it may cost, and how well it chooses, against models.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/tsan.h"
#include "engine/read_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { UID = 7, MIB = 1024 * 1024 };

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static struct read_cache *cache_open(uint64_t bytes_max, uint64_t bytes_limit)
{
    struct read_cache *cache;
    assert_int_equal(read_cache_open(&cache, bytes_max, bytes_limit), KVS_ERR_OK);
    return cache;
}

static struct read_cache_stats stats_of(const struct read_cache *cache)
{
    struct read_cache_stats stats;
    read_cache_stats(cache, &stats);
    return stats;
}

static size_t record_payload(const struct record_header *record)
{
    return sizeof *record + record->extra_bytes + record->key_bytes + record->value_bytes;
}

/* A record whose every byte follows from its seed, without padding: a sanitizer sees a read behind it. */
static struct record_header *record_new(uint64_t seed, uint32_t value_bytes)
{
    struct record_header fields = {.crc = (uint32_t)seed,
                                   .value_bytes = value_bytes,
                                   .lsn = seed,
                                   .key_bytes = (uint16_t)(seed % 13),
                                   .extra_bytes = (uint16_t)(seed % 3 * 8),
                                   .kind = RECORD_PUT};
    struct record_header *record = malloc(record_payload(&fields));
    *record = fields;
    uint8_t *rest = (uint8_t *)(record + 1);
    uint64_t state = seed;
    for (size_t i = 0; i < record_payload(record) - sizeof *record; i++)
        rest[i] = (uint8_t)random_next(&state);
    return record;
}

static void add(struct read_cache *cache, uint64_t uid, uint64_t address, uint64_t seed, uint32_t value_bytes)
{
    struct record_header *record = record_new(seed, value_bytes);
    read_cache_add(cache, uid, address, record);
    free(record);
}

static void assert_record(const struct record_header *found, uint64_t seed, uint32_t value_bytes)
{
    assert_non_null(found);
    assert_int_equal((uintptr_t)found % RECORD_ALIGN, 0);
    struct record_header *record = record_new(seed, value_bytes);
    assert_memory_equal(found, record, record_payload(record));
    free(record);
}

/* ---- what it gives back ---- */

static void test_read_cache__gives_back_the_same_bytes(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(MIB, MIB);
    assert_null(read_cache_find(cache, UID, 5));
    for (uint32_t i = 0; i < 300; i++)
        add(cache, UID, i, i, i * 3);
    for (uint32_t i = 0; i < 300; i++)
        assert_record(read_cache_find(cache, UID, i), i, i * 3);
    struct read_cache_stats stats = stats_of(cache);
    assert_int_equal(stats.records, 300);
    assert_int_equal(stats.added, 300);
    assert_int_equal(stats.evicted, 0);
    assert_int_equal(stats.hits, 300);
    assert_int_equal(stats.misses, 1);
    read_cache_close(cache);
    read_cache_close(NULL);
}

static void test_read_cache__addresses_are_of_forty_bits(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(MIB, MIB);
    uint64_t last = (1ull << 40) - 1;
    add(cache, UINT64_MAX, last, 1, 100);
    add(cache, UINT64_MAX, last & UINT32_MAX, 2, 100);
    add(cache, 0, 0, 3, 100);
    assert_record(read_cache_find(cache, UINT64_MAX, last), 1, 100);
    assert_record(read_cache_find(cache, UINT64_MAX, last & UINT32_MAX), 2, 100);
    assert_record(read_cache_find(cache, 0, 0), 3, 100);
    read_cache_close(cache);
}

/* The same address in another incarnation of a segment is another place. */
static void test_read_cache__a_stale_uid_finds_nothing(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(MIB, MIB);
    add(cache, UID, 1, 10, 50);
    assert_null(read_cache_find(cache, UID + 1, 1));
    add(cache, UID + 1, 1, 11, 60);
    assert_record(read_cache_find(cache, UID, 1), 10, 50);
    assert_record(read_cache_find(cache, UID + 1, 1), 11, 60);
    read_cache_close(cache);
}

static void test_read_cache__a_second_add_changes_nothing(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(MIB, MIB);
    add(cache, UID, 1, 10, 50);
    const struct record_header *found = read_cache_find(cache, UID, 1);
    add(cache, UID, 1, 11, 60);
    assert_ptr_equal(read_cache_find(cache, UID, 1), found);
    assert_record(found, 10, 50);
    assert_int_equal(stats_of(cache).records, 1);
    assert_int_equal(stats_of(cache).added, 1);
    read_cache_close(cache);
}

static void test_read_cache__a_moved_record_is_found_at_its_new_place_only(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(MIB, MIB);
    read_cache_move(cache, UID, 1, UID, 2);
    assert_int_equal(stats_of(cache).records, 0);
    for (uint32_t i = 0; i < 300; i++)
        add(cache, UID, i, i, 40);
    for (uint32_t i = 0; i < 300; i++)
        read_cache_move(cache, UID, i, UID + 1, 5000 - i);
    for (uint32_t i = 0; i < 300; i++) {
        assert_null(read_cache_find(cache, UID, i));
        assert_record(read_cache_find(cache, UID + 1, 5000 - i), i, 40);
    }
    read_cache_move(cache, UID + 1, 5000, UID + 1, 5000);
    assert_record(read_cache_find(cache, UID + 1, 5000), 0, 40);
    /* Somebody has read it at its new place before its owner could say so. */
    add(cache, UID, 1, 5000, 70);
    read_cache_move(cache, UID + 1, 5000, UID, 1);
    assert_null(read_cache_find(cache, UID + 1, 5000));
    assert_record(read_cache_find(cache, UID, 1), 5000, 70);
    assert_int_equal(stats_of(cache).records, 300);
    read_cache_close(cache);
}

static void test_read_cache__large_records_are_refused(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(4 * MIB, 4 * MIB);
    uint32_t limit = 4 * MIB / 11 / 4096 * 4096 / 8; /* an eighth of the small ring */
    add(cache, UID, 0, 0, limit);
    assert_null(read_cache_find(cache, UID, 0));
    assert_int_equal(stats_of(cache).added, 0);
    add(cache, UID, 0, 0, limit - 16 - (uint32_t)sizeof(struct record_header));
    assert_record(read_cache_find(cache, UID, 0), 0, limit - 16 - (uint32_t)sizeof(struct record_header));
    add(cache, UID, 1, 0, limit - 15 - (uint32_t)sizeof(struct record_header));
    assert_null(read_cache_find(cache, UID, 1));
    read_cache_close(cache);
}

/* A record has sixteen slots to choose from, and others make way: hardly any is lost for want of one. */
static void test_read_cache__the_table_has_a_slot_for_nearly_all(void **state)
{
    (void)state;
    struct read_cache *cache = cache_open(64 * MIB, 64 * MIB);
    for (uint32_t i = 0; i < 200000; i++)
        add(cache, UID, i, i, 20);
    assert_true(stats_of(cache).evicted < 40);
    uint32_t found = 0;
    for (uint32_t i = 0; i < 200000; i++)
        found += read_cache_find(cache, UID, i) != NULL;
    assert_int_equal(found, stats_of(cache).records);
    for (uint32_t i = 0; i < 200000; i++)
        read_cache_move(cache, UID, i, UID + 1, i);
    assert_true(stats_of(cache).evicted < 50);
    read_cache_close(cache);
}

static void test_read_cache__wrong_sizes_are_refused(void **state)
{
    (void)state;
    struct read_cache *cache;
    assert_int_equal(read_cache_open(&cache, READ_CACHE_BYTES_MIN - 1, MIB), KVS_ERR_INVALID);
    assert_int_equal(read_cache_open(&cache, 2 * MIB, MIB), KVS_ERR_INVALID);
    cache = cache_open(READ_CACHE_BYTES_MIN, READ_CACHE_BYTES_MIN);
    for (uint32_t i = 0; i < 10000; i++)
        add(cache, UID, i, i, 20);
    assert_record(read_cache_find(cache, UID, 9999), 9999, 20);
    assert_in_range(stats_of(cache).records, 400, 1000);
    read_cache_close(cache);
}

/* ---- a plain model, told everything ---- */

enum { MODEL_PLACES = 20000 };

struct model_place {
    bool may_be_there; /* added or moved here, and not moved away */
    uint64_t seed;
    uint32_t value_bytes;
};

static uint64_t model_seen(struct read_cache *cache, const struct model_place *places, uint64_t *record_bytes_held)
{
    uint64_t records = 0;
    *record_bytes_held = 0;
    for (uint64_t i = 0; i < MODEL_PLACES; i++) {
        const struct record_header *found = read_cache_find(cache, i % 3, i);
        if (found == NULL)
            continue;
        assert_true(places[i].may_be_there);
        assert_record(found, places[i].seed, places[i].value_bytes);
        *record_bytes_held += record_payload(found);
        records++;
    }
    return records;
}

static uint32_t random_value_bytes(uint64_t *state, unsigned phase)
{
    static const uint32_t most[] = {4000, 20, 200, 12000, 60};
    return (uint32_t)(random_next(state) % (most[phase % ARRAY_COUNT(most)] + 1));
}

static bool is_too_large(const struct read_cache *cache, const struct model_place *place)
{
    struct record_header *record = record_new(place->seed, place->value_bytes);
    uint64_t bytes = align_up(16 + record_payload(record), 16);
    free(record);
    return bytes > stats_of(cache).bytes_max / 11 / 4096 * 4096 / 8;
}

static void model_step(struct read_cache *cache, struct model_place *places, uint64_t *state, unsigned phase)
{
    uint64_t i = random_next(state) % MODEL_PLACES;
    i = random_next(state) % 2 ? i : i % (MODEL_PLACES / 20);
    const struct record_header *found = read_cache_find(cache, i % 3, i);
    if (found != NULL) {
        assert_true(places[i].may_be_there);
        assert_int_equal(found->lsn, places[i].seed);
        if (random_next(state) % 4 != 0)
            return;
        uint64_t to = random_next(state) % MODEL_PLACES;
        bool known = to == i || read_cache_find(cache, to % 3, to) != NULL;
        read_cache_move(cache, i % 3, i, to % 3, to);
        if (!known)
            places[to] = places[i];
        places[i].may_be_there = to == i;
        return;
    }
    places[i] = (struct model_place){true, random_next(state), random_value_bytes(state, phase)};
    add(cache, i % 3, i, places[i].seed, places[i].value_bytes);
    found = read_cache_find(cache, i % 3, i);
    if (is_too_large(cache, &places[i])) {
        assert_null(found);
        places[i].may_be_there = false;
    } else {
        assert_record(found, places[i].seed, places[i].value_bytes);
    }
}

/* Sizes change from phase to phase, so that table and main ring take memory from each other; now and then it grows. */
static void test_read_cache__agrees_with_a_model(void **state)
{
    (void)state;
    struct model_place *places = calloc(MODEL_PLACES, sizeof *places);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        memset(places, 0, MODEL_PLACES * sizeof *places);
        uint64_t random = seed;
        uint64_t bytes_max = (1 + seed % 3) * 256 * 1024;
        struct read_cache *cache = cache_open(bytes_max, 4 * MIB);
        for (unsigned phase = 0; phase < 12; phase++) {
            for (unsigned i = 0; i < 8000; i++) {
                model_step(cache, places, &random, phase);
                struct read_cache_stats stats = stats_of(cache);
                assert_true(stats.bytes <= bytes_max && stats.bytes_max == bytes_max);
                assert_int_equal(stats.records, stats.added - stats.evicted);
            }
            uint64_t held;
            assert_int_equal(model_seen(cache, places, &held), stats_of(cache).records);
            assert_true(held < stats_of(cache).bytes);
            if (phase % 4 == 3) {
                bytes_max += bytes_max / 2;
                read_cache_grow(cache, bytes_max);
            }
        }
        read_cache_close(cache);
    }
    free(places);
}

/* ---- memory ---- */

static uint64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

struct fill {
    struct read_cache *cache;
    uint64_t next; /* address of the next record */
    uint64_t buffer[9000];
};

/* Adds and uses records of one size until `bytes` of them have passed; no add makes room for much more than itself.
 * Returns the bytes of records held. */
static uint64_t fill(struct fill *fill, uint32_t value_bytes, uint64_t bytes)
{
    struct record_header *record = (struct record_header *)(void *)fill->buffer;
    *record = (struct record_header){.value_bytes = value_bytes, .key_bytes = 8, .kind = RECORD_PUT};
    for (uint64_t done = 0; done < bytes; done += record_payload(record)) {
        record->lsn = fill->next;
        uint64_t evicted = stats_of(fill->cache).evicted;
        read_cache_add(fill->cache, UID, fill->next, record);
        /* Of the least records there are, four times the bytes that were added, and a few. */
        assert_true(stats_of(fill->cache).evicted - evicted <= 8 + 4 * record_payload(record) / 48);
        assert_non_null(read_cache_find(fill->cache, UID, fill->next));
        fill->next++;
    }
    return stats_of(fill->cache).records * record_payload(record);
}

/* In every state, and with every size of records, the process grows by what the cache says, and by no more than it may.
 */
static void test_read_cache__resident_memory_stays_within_its_budget(void **state)
{
    (void)state;
#ifdef KVS_UNDER_TSAN
    print_message("ThreadSanitizer keeps several bytes for each of the program's: nothing is measured\n");
    skip();
#endif
    static const uint64_t budgets[] = {20 * MIB, 256 * MIB};
    static const uint32_t sizes[] = {16000, 300, 4000};
    static struct fill filler;
    for (unsigned i = 0; i < ARRAY_COUNT(budgets); i++) {
        uint64_t max = budgets[i];
        memset(&filler, 1, sizeof filler); /* its own pages */
        uint64_t before = resident_bytes();
        filler = (struct fill){.cache = cache_open(max, 4ull << 30)};
        assert_true(resident_bytes() - before < 2 * MIB);
        assert_true(stats_of(filler.cache).bytes < max / 10);
        fill(&filler, 100, max / 4);
        assert_true(resident_bytes() - before <= max / 4 * 3 / 2 + 8 * MIB);
        for (unsigned size = 0; size < ARRAY_COUNT(sizes); size++) {
            fill(&filler, sizes[size], max + max / 2);
            uint64_t resident = resident_bytes() - before;
            struct read_cache_stats stats = stats_of(filler.cache);
            assert_true(stats.bytes <= max && stats.bytes > max / 10 * 8);
            assert_true(resident <= max + 2 * MIB);
            assert_true(resident <= stats.bytes + 2 * MIB);
        }
        read_cache_close(filler.cache);
    }
}

/* From large records to tiny ones and back, the memory goes where it is needed. */
static void test_read_cache__table_and_ring_share_what_there_is(void **state)
{
    (void)state;
    static struct fill filler;
    uint64_t max = 4 * MIB;
    filler = (struct fill){.cache = cache_open(max, max)};
    uint64_t large = fill(&filler, 8000, 3 * max);
    assert_true(large > max / 100 * 93);
    uint64_t small = fill(&filler, 96, 30 * max); /* 128 bytes, 144 with its place */
    assert_true(small * 144 / 128 > max / 100 * 83);
    read_cache_close(filler.cache);

    filler = (struct fill){.cache = cache_open(max, max)};
    small = fill(&filler, 96, 3 * max);
    assert_true(small * 144 / 128 > max / 100 * 85);
    uint64_t tiny = fill(&filler, 16, 30 * max); /* 48 bytes, 64 with its place */
    assert_true(tiny * 64 / 48 > max / 100 * 74);
    large = fill(&filler, 8000, 3 * max);
    assert_true(large > max / 100 * 70);
    read_cache_close(filler.cache);
}

static void test_read_cache__grows_without_losing_anything(void **state)
{
    (void)state;
    static struct fill filler;
    filler = (struct fill){.cache = cache_open(2 * MIB, 16 * MIB)};
    uint64_t held = fill(&filler, 100, 8 * MIB);
    for (uint64_t max = 4 * MIB; max <= 16 * MIB; max *= 2) {
        struct read_cache_stats before = stats_of(filler.cache);
        read_cache_grow(filler.cache, max);
        assert_int_equal(stats_of(filler.cache).bytes_max, max);
        assert_int_equal(stats_of(filler.cache).records, before.records);
        uint64_t now = fill(&filler, 100, 4 * max);
        assert_true(now > held + held / 2);
        assert_true(stats_of(filler.cache).bytes <= max);
        held = now;
    }
    read_cache_grow(filler.cache, MIB);
    assert_int_equal(stats_of(filler.cache).bytes_max, 16 * MIB);
    read_cache_grow(filler.cache, 1ull << 40);
    assert_int_equal(stats_of(filler.cache).bytes_max, 16 * MIB);
    read_cache_close(filler.cache);
}

/* ---- how well it chooses ---- */

/* Least recently used, as many records as it may hold. */
struct lru {
    uint32_t *older, *newer; /* by key + 1; 0 is the end of the list */
    bool *held;
    uint32_t count, count_max;
};

static void lru_init(struct lru *lru, uint32_t keys, uint32_t count_max)
{
    *lru = (struct lru){.older = calloc(keys + 1, sizeof *lru->older),
                        .newer = calloc(keys + 1, sizeof *lru->newer),
                        .held = calloc(keys + 1, sizeof *lru->held),
                        .count_max = count_max};
}

static void lru_deinit(struct lru *lru)
{
    free(lru->older);
    free(lru->newer);
    free(lru->held);
}

static void lru_unlink(struct lru *lru, uint32_t at)
{
    lru->older[lru->newer[at]] = lru->older[at];
    lru->newer[lru->older[at]] = lru->newer[at];
    lru->held[at] = false;
    lru->count--;
}

static bool lru_use(struct lru *lru, uint32_t key)
{
    uint32_t at = key + 1;
    bool hit = lru->held[at];
    if (hit)
        lru_unlink(lru, at);
    else if (lru->count == lru->count_max)
        lru_unlink(lru, lru->newer[0]);
    lru->older[at] = lru->older[0];
    lru->newer[at] = 0;
    lru->newer[lru->older[0]] = at;
    lru->older[0] = at;
    lru->held[at] = true;
    lru->count++;
    return hit;
}

/* Sums of weights 1 / (rank + 1) ^ 0.99. */
static double *zipf_new(uint32_t keys)
{
    double *sums = calloc(keys, sizeof *sums);
    double weight = 1;
    double sum = 0;
    for (uint32_t i = 0; i < keys; i++) {
        sum += weight;
        sums[i] = sum;
        /* ((i + 1) / (i + 2)) ^ 0.99, by the binomial series. */
        double u = 1.0 / (i + 2);
        double term = 1;
        double factor = 1;
        for (int k = 1; k < 60; k++) {
            term *= (k - 1 - 0.99) / k * u;
            factor += term;
        }
        weight *= factor;
    }
    return sums;
}

static uint32_t zipf_next(const double *sums, uint32_t keys, uint64_t *state)
{
    double sought = (double)(random_next(state) >> 11) / (double)(1ull << 53) * sums[keys - 1];
    uint32_t low = 0;
    uint32_t high = keys - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sums[middle] > sought)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool cache_use(struct read_cache *cache, uint32_t key)
{
    uint64_t buffer[16] = {0};
    struct record_header *record = (struct record_header *)(void *)buffer;
    *record = (struct record_header){.value_bytes = 96, .key_bytes = 8, .lsn = key};
    const struct record_header *found = read_cache_find(cache, UID, key);
    if (found == NULL)
        read_cache_add(cache, UID, key, record);
    else
        assert_int_equal(found->lsn, key);
    return found != NULL;
}

/* How many records of cache_use fit. */
static uint32_t records_that_fit(uint64_t bytes_max)
{
    struct read_cache *cache = cache_open(bytes_max, bytes_max);
    for (uint32_t i = 0; i < bytes_max / 32; i++)
        cache_use(cache, i);
    uint32_t records = (uint32_t)stats_of(cache).records;
    read_cache_close(cache);
    return records;
}

struct rates {
    double cache, lru;
};

/* Zipfian accesses to `keys`; out of a hundred, `scan_percent` go to keys that are never asked for twice. Rates are of
 * the zipfian ones, after a warm-up. */
static struct rates rates_of(uint64_t bytes_max, uint32_t keys, unsigned scan_percent, uint32_t accesses)
{
    struct read_cache *cache = cache_open(bytes_max, bytes_max);
    double *sums = zipf_new(keys);
    struct lru lru;
    lru_init(&lru, keys + accesses, records_that_fit(bytes_max));
    uint64_t random = 1;
    uint32_t scanned = 0;
    uint32_t counted = 0;
    uint32_t cache_hits = 0;
    uint32_t lru_hits = 0;
    for (uint32_t i = 0; i < accesses; i++) {
        bool scans = random_next(&random) % 100 < scan_percent;
        uint32_t key = scans ? keys + scanned++ : zipf_next(sums, keys, &random);
        bool cache_hit = cache_use(cache, key);
        bool lru_hit = lru_use(&lru, key);
        if (scans || i < accesses / 3)
            continue;
        counted++;
        cache_hits += cache_hit;
        lru_hits += lru_hit;
    }
    lru_deinit(&lru);
    free(sums);
    read_cache_close(cache);
    return (struct rates){(double)cache_hits / counted, (double)lru_hits / counted};
}

static void test_read_cache__zipfian_hit_rate_is_no_worse_than_that_of_lru(void **state)
{
    (void)state;
    uint64_t bytes_max = MIB;
    uint32_t fit = records_that_fit(bytes_max);
    for (uint32_t share = 2; share <= 50; share *= 5) {
        struct rates rates = rates_of(bytes_max, fit * share, 0, 500000);
        print_message("    cache of 1/%u of the keys: hit rate %.4f, LRU %.4f\n", share, rates.cache, rates.lru);
        assert_true(rates.cache >= rates.lru);
        assert_true(share != 10 || rates.cache > 0.7);
    }
}

/* Half of all reads are those of a scan: it takes most of an LRU's room, and hardly any of this one's. */
static void test_read_cache__a_scan_leaves_the_hot_set_alone(void **state)
{
    (void)state;
    uint64_t bytes_max = 2 * MIB;
    uint32_t keys = records_that_fit(bytes_max) * 10;
    struct rates quiet = rates_of(bytes_max, keys, 0, 500000);
    struct rates scanned = rates_of(bytes_max, keys, 50, 800000);
    print_message("    hit rate of the hot set %.4f, beside a scan %.4f; LRU %.4f, %.4f\n", quiet.cache, scanned.cache,
                  quiet.lru, scanned.lru);
    assert_true(scanned.cache > scanned.lru + 0.03);
    assert_true(scanned.cache > quiet.cache - 0.03);
}

/* A set that was used, then a scan of many times the cache's size with nothing in between: the set is still there. */
static void test_read_cache__a_long_scan_passes_through(void **state)
{
    (void)state;
    uint64_t bytes_max = 2 * MIB;
    uint32_t fit = records_that_fit(bytes_max);
    struct read_cache *cache = cache_open(bytes_max, bytes_max);
    for (uint32_t i = 0; i < fit / 2; i++) {
        cache_use(cache, i);
        cache_use(cache, i);
    }
    for (uint32_t i = 0; i < 20 * fit; i++)
        cache_use(cache, fit + i);
    uint32_t left = 0;
    for (uint32_t i = 0; i < fit / 2; i++)
        left += read_cache_find(cache, UID, i) != NULL;
    print_message("    %u of %u are left\n", left, fit / 2);
    assert_true(left > fit / 2 * 99 / 100);
    read_cache_close(cache);
}

/* What left the small ring unused goes to the main one when it comes back soon. */
static void test_read_cache__the_ghost_remembers(void **state)
{
    (void)state;
    uint64_t bytes_max = 2 * MIB;
    uint32_t fit = records_that_fit(bytes_max);
    struct read_cache *cache = cache_open(bytes_max, bytes_max);
    for (uint32_t i = 0; i < 2 * fit; i++)
        cache_use(cache, i);
    uint32_t first = 2 * fit;
    for (uint32_t i = 0; i < fit / 4; i++)
        cache_use(cache, first + i);
    assert_null(read_cache_find(cache, UID, first));
    for (uint32_t i = 0; i < fit / 10; i++)
        cache_use(cache, first + i);
    for (uint32_t i = 0; i < fit / 2; i++)
        cache_use(cache, first + fit + i);
    uint32_t left = 0;
    for (uint32_t i = 0; i < fit / 10; i++)
        left += read_cache_find(cache, UID, first + i) != NULL;
    print_message("    %u of %u are left\n", left, fit / 10);
    assert_true(left > fit / 10 * 95 / 100);
    read_cache_close(cache);
}

/* When everything is in use nothing is found to leave at once, and an add still ends soon: few records are copied. */
static void test_read_cache__an_add_among_used_records_copies_few(void **state)
{
    (void)state;
    uint64_t bytes_max = 2 * MIB;
    uint32_t fit = records_that_fit(bytes_max);
    struct read_cache *cache = cache_open(bytes_max, bytes_max);
    const struct record_header **places = calloc(3 * fit, sizeof *places);
    for (uint32_t i = 0; i < 2 * fit; i++) {
        for (unsigned times = 0; times < 5; times++)
            cache_use(cache, i);
    }
    uint32_t moved_most = 0;
    for (uint32_t next = 2 * fit; next < 2 * fit + 30; next++) {
        for (uint32_t i = 0; i < next; i++)
            places[i] = read_cache_find(cache, UID, i);
        cache_use(cache, next);
        uint32_t moved = 0;
        for (uint32_t i = 0; i < next; i++)
            moved += places[i] != NULL && read_cache_find(cache, UID, i) != places[i];
        moved_most = moved > moved_most ? moved : moved_most;
        assert_non_null(read_cache_find(cache, UID, next));
    }
    print_message("    %u copied at most\n", moved_most);
    assert_in_range(moved_most, 10, 20);
    assert_true(stats_of(cache).records >= fit / 10 * 9);
    free(places);
    read_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_cache__gives_back_the_same_bytes),
        cmocka_unit_test(test_read_cache__addresses_are_of_forty_bits),
        cmocka_unit_test(test_read_cache__a_stale_uid_finds_nothing),
        cmocka_unit_test(test_read_cache__a_second_add_changes_nothing),
        cmocka_unit_test(test_read_cache__a_moved_record_is_found_at_its_new_place_only),
        cmocka_unit_test(test_read_cache__large_records_are_refused),
        cmocka_unit_test(test_read_cache__wrong_sizes_are_refused),
        cmocka_unit_test(test_read_cache__the_table_has_a_slot_for_nearly_all),
        cmocka_unit_test(test_read_cache__agrees_with_a_model),
        cmocka_unit_test(test_read_cache__resident_memory_stays_within_its_budget),
        cmocka_unit_test(test_read_cache__table_and_ring_share_what_there_is),
        cmocka_unit_test(test_read_cache__grows_without_losing_anything),
        cmocka_unit_test(test_read_cache__zipfian_hit_rate_is_no_worse_than_that_of_lru),
        cmocka_unit_test(test_read_cache__a_scan_leaves_the_hot_set_alone),
        cmocka_unit_test(test_read_cache__a_long_scan_passes_through),
        cmocka_unit_test(test_read_cache__the_ghost_remembers),
        cmocka_unit_test(test_read_cache__an_add_among_used_records_copies_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
