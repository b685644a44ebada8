/*
 * test_run_merge.c - the merge rule against a plain model: runs on disk and arrays in memory, in any mixture.
 */
#include "run_fixture.h"

#include "engine/run_merge.h"

#include <errno.h>

enum { SOURCES_MAX = 20, KEYS_MAX = 4000 };

/* Those whose LSN `gone` divides do not count. */
static bool counts(void *context, unsigned source, const struct run_entry *entry)
{
    const uint64_t *gone = context;
    (void)source;
    return entry->lsn % *gone != 0;
}

struct sources {
    struct run_machine machine;
    unsigned count;
    struct run_source given[SOURCES_MAX];
    struct run_entry *entries[SOURCES_MAX];
    size_t sizes[SOURCES_MAX];
    struct run *runs[SOURCES_MAX]; /* NULL: in memory */
};

static void sources_add(struct sources *sources, struct run_entry *entries, size_t count, bool on_disk)
{
    const unsigned i = sources->count++;
    sources->entries[i] = entries;
    sources->sizes[i] = count;
    if (on_disk) {
        run_make(&sources->machine, i, entries, count, 1);
        sources->runs[i] = run_must_open(&sources->machine, i);
    }
}

static void sources_begin(struct sources *sources, struct run_range range)
{
    for (unsigned i = 0; i < sources->count; i++) {
        sources->given[i] = (struct run_source){.entries = sources->entries[i], .count = sources->sizes[i]};
        if (sources->runs[i] != NULL)
            sources->given[i] =
                (struct run_source){.reader = reader_make(&sources->machine, sources->runs[i], range, 2, 1)};
    }
}

static void sources_end(struct sources *sources)
{
    for (unsigned i = 0; i < sources->count; i++) {
        if (sources->given[i].reader != NULL)
            reader_drop(&sources->machine, sources->given[i].reader);
        sources->given[i].reader = NULL;
    }
}

static void sources_free(struct sources *sources)
{
    for (unsigned i = 0; i < sources->count; i++) {
        run_close(sources->runs[i], sources->machine.ring);
        free(sources->entries[i]);
    }
    sim_destroy();
}

/* Merges all in batches of this size; the number of entries. `gone`: 0, or those whose LSN it divides do not count. */
static size_t merge_all(struct sources *sources, uint64_t gone, size_t batch, struct run_entry *out, size_t out_max,
                        enum kvs_err *err)
{
    const struct run_merge_options options = {.sources = sources->given,
                                              .source_count = sources->count,
                                              .context = &gone,
                                              .counts = gone > 0 ? counts : NULL};
    struct run_merge *merge;
    assert_int_equal(run_merge_open(&merge, &options), KVS_ERR_OK);
    size_t all = 0;
    for (;;) {
        size_t some;
        struct run_entry *portion = malloc(batch * sizeof *portion); /* so that a step too far is noticed */
        *err = run_merge_next(merge, portion, batch, &some);
        assert_true(some <= batch && all + some <= out_max);
        assert_true(some == 0 || *err == KVS_ERR_OK);
        if (some > 0)
            memcpy(out + all, portion, some * sizeof *portion);
        free(portion);
        all += some;
        if (*err == KVS_ERR_AGAIN)
            ring_turn(sources->machine.ring, -1);
        else if (some == 0)
            break;
    }
    if (*err != KVS_ERR_OK)
        assert_true(run_merge_failed_source(merge) < sources->count);
    run_merge_close(merge);
    return all;
}

struct model_entry {
    struct run_entry entry;
    unsigned source;
};

static int compare_model(const void *a, const void *b)
{
    const struct model_entry *left = a, *right = b;
    const unsigned __int128 left_key = run_entry_key(&left->entry), right_key = run_entry_key(&right->entry);
    if (left_key != right_key)
        return left_key < right_key ? -1 : 1;
    if (left->entry.lsn != right->entry.lsn)
        return left->entry.lsn < right->entry.lsn ? -1 : 1;
    if (left->source != right->source)
        return left->source < right->source ? -1 : 1;
    return left->entry.place < right->entry.place ? -1 : left->entry.place > right->entry.place;
}

/* All entries that count, sorted; of each key the last is the winner. */
static size_t model_merge(const struct sources *sources, uint64_t gone, struct run_entry *out)
{
    size_t all = 0, count = 0;
    for (unsigned i = 0; i < sources->count; i++)
        all += sources->sizes[i];
    struct model_entry *model = calloc(all + 1, sizeof *model);
    for (unsigned i = 0; i < sources->count; i++) {
        for (size_t j = 0; j < sources->sizes[i]; j++) {
            const struct run_entry *entry = &sources->entries[i][j];
            if (gone == 0 || entry->lsn % gone != 0)
                model[count++] = (struct model_entry){.entry = *entry, .source = i};
        }
    }
    qsort(model, count, sizeof *model, compare_model);
    size_t winners = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || run_entry_key(&model[i].entry) != run_entry_key(&model[i + 1].entry))
            out[winners++] = model[i].entry;
    }
    free(model);
    return winners;
}

/* Entries of random keys; with `doubles` some keys more than once. */
static struct run_entry *random_entries(size_t count, uint64_t keys, bool doubles)
{
    struct run_entry *entries = calloc(count + 1, sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        entries[i] = entry_make(sim_random(keys), sim_random(50));
        entries[i].place = run_place(sim_random(1000), 32, sim_random(2) != 0 ? RUN_DELETE : 0);
        if (sim_random(4) == 0) /* another key of the same hash */
            entries[i].check ^= 1;
    }
    run_sort(entries, count);
    for (size_t i = 1; i < count && !doubles; i++) { /* made different */
        if (run_entry_key(&entries[i]) <= run_entry_key(&entries[i - 1])) {
            entries[i].order = entries[i - 1].order;
            entries[i].check = entries[i - 1].check + 1;
        }
    }
    return entries;
}

static void test_run_merge__does_as_the_model_does(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        struct sources sources = {0};
        machine_create(&sources.machine, round);
        const unsigned count = 1 + (unsigned)sim_random(round % 10 == 0 ? SOURCES_MAX : 6);
        const uint64_t keys = 1 + sim_random(round % 3 == 0 ? 20 : KEYS_MAX);
        size_t all = 0;
        for (unsigned i = 0; i < count; i++) {
            const bool on_disk = sim_random(2) == 0;
            const size_t size = sim_random(5) == 0 ? 0 : sim_random(KEYS_MAX);
            sources_add(&sources, random_entries(size, keys, !on_disk), size, on_disk);
            all += size;
        }
        const uint64_t gone = sim_random(3) == 0 ? 1 + sim_random(4) : 0;
        struct run_entry *expected = calloc(all + 1, sizeof *expected);
        struct run_entry *got = calloc(all + 1, sizeof *got);
        const size_t expected_count = model_merge(&sources, gone, expected);

        enum kvs_err err;
        sources_begin(&sources, RUN_RANGE_ALL);
        const size_t batch = round % 4 == 0 ? 1 : 1 + sim_random(700);
        const size_t got_count = merge_all(&sources, gone, batch, got, all, &err);
        assert_int_equal(err, KVS_ERR_OK);
        assert_int_equal(got_count, expected_count);
        for (size_t i = 0; i < got_count; i++) { /* twins of one source may differ in what decides nothing */
            assert_int_equal(
                compare_model(&(struct model_entry){.entry = got[i]}, &(struct model_entry){.entry = expected[i]}), 0);
        }
        sources_end(&sources);
        free(expected);
        free(got);
        sources_free(&sources);
    }
}

static void test_run_merge__of_equal_lsns_the_later_source_wins(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct sources sources = {0};
        machine_create(&sources.machine, round);
        for (unsigned i = 0; i < 5; i++) {
            struct run_entry *entries = entries_make(0, 1, 100);
            entries[0].place = run_place(i, 32, 0);
            if (round == 1 && i == 1)
                entries[0].lsn++; /* newer, though an earlier source */
            if (round == 2 && i == 4)
                entries[0].lsn--;
            sources_add(&sources, entries, 1, i % 2 == round % 2);
        }
        static const unsigned winners[] = {4, 1, 3, 4};
        struct run_entry got[5];
        enum kvs_err err;
        sources_begin(&sources, RUN_RANGE_ALL);
        assert_int_equal(merge_all(&sources, 0, 3, got, 5, &err), 1);
        assert_int_equal(run_entry_address(&got[0]), winners[round]);
        sources_end(&sources);
        sources_free(&sources);
    }
}

/* An entry that does not count neither wins nor loses. */
static void test_run_merge__what_does_not_count_is_not_there(void **state)
{
    (void)state;
    struct sources sources = {0};
    machine_create(&sources.machine, 1);
    for (unsigned i = 0; i < 3; i++)
        sources_add(&sources, entries_make(0, 1000, i < 2 ? 1 : 1001), 1000, i == 1);
    for (size_t i = 0; i < 1000; i++)
        sources.entries[2][i].lsn = 3000 + 7; /* newest, and gone */
    struct run_entry *got = calloc(1000, sizeof *got);
    enum kvs_err err;
    sources_begin(&sources, RUN_RANGE_ALL);
    assert_int_equal(merge_all(&sources, 3007, 100, got, 1000, &err), 1000);
    assert_memory_equal(got, sources.entries[0], 1000 * sizeof *got);
    sources_end(&sources);

    sources_begin(&sources, RUN_RANGE_ALL); /* nothing counts */
    assert_int_equal(merge_all(&sources, 1, 100, got, 1000, &err), 0);
    assert_int_equal(err, KVS_ERR_OK);
    sources_end(&sources);
    free(got);
    sources_free(&sources);
}

/* A start: every shard merges its part of all runs. */
static void test_run_merge__parts_of_runs_make_up_the_whole(void **state)
{
    (void)state;
    enum { SHARDS = 5 };
    struct sources sources = {0};
    machine_create(&sources.machine, 1);
    size_t all = 0;
    for (unsigned i = 0; i < 6; i++) {
        const size_t size = i == 0 ? 20000 : 3000;
        sources_add(&sources, entries_make(i * 2500ull, size, 1 + i * 50000ull), size, true);
        all += size;
    }
    struct run_entry *expected = calloc(all, sizeof *expected);
    struct run_entry *got = calloc(all, sizeof *got);
    const size_t expected_count = model_merge(&sources, 0, expected);
    size_t got_count = 0;
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        enum kvs_err err;
        sources_begin(&sources, run_range_of_shard(shard, SHARDS));
        got_count += merge_all(&sources, 0, 512, got + got_count, all - got_count, &err);
        assert_int_equal(err, KVS_ERR_OK);
        sources_end(&sources);
    }
    assert_int_equal(got_count, expected_count);
    assert_memory_equal(got, expected, got_count * sizeof *got);
    assert_true(got_count < all);
    free(expected);
    free(got);
    sources_free(&sources);
}

static void test_run_merge__the_largest_key_there_can_be_is_merged(void **state)
{
    (void)state;
    struct sources sources = {0};
    machine_create(&sources.machine, 1);
    for (unsigned i = 0; i < 3; i++) {
        struct run_entry *entries = entries_make(i, 2, 10 + i);
        entries[1].order = entries[1].check = UINT64_MAX;
        entries[1].lsn = 10 + i;
        sources_add(&sources, entries, 2, i == 1);
    }
    struct run_entry got[6] = {0};
    enum kvs_err err;
    sources_begin(&sources, RUN_RANGE_ALL);
    const size_t count = merge_all(&sources, 0, 2, got, 6, &err);
    assert_true(count >= 3);
    assert_true(got[count - 1].order == UINT64_MAX);
    assert_int_equal(got[count - 1].lsn, 12);
    sources_end(&sources);
    sources_free(&sources);
}

/* What comes before the damage is right, and the source is named. */
static void test_run_merge__a_damaged_run_is_named(void **state)
{
    (void)state;
    struct sources sources = {0};
    machine_create(&sources.machine, 1);
    for (unsigned i = 0; i < 4; i++) {
        run_make(&sources.machine, i, sources.entries[i] = entries_make(i * 20000ull, 10000, 1), 10000, 1);
        sources.sizes[i] = 10000;
    }
    sources.count = 4;
    sim_crash(SIM_DROP_ALL);
    sim_file_flip("/data/000000000002.run", (RUN_HEADER_BYTES + 3 * RUN_BLOCK_BYTES + 500) * 8ull);
    machine_boot(&sources.machine);
    for (unsigned i = 0; i < 4; i++)
        sources.runs[i] = run_must_open(&sources.machine, i);
    struct run_entry *expected = calloc(40000, sizeof *expected);
    struct run_entry *got = calloc(40000, sizeof *got);
    enum kvs_err err;
    (void)model_merge(&sources, 0, expected);
    sources_begin(&sources, RUN_RANGE_ALL);
    const size_t count = merge_all(&sources, 0, 300, got, 40000, &err);
    assert_int_equal(err, KVS_ERR_CORRUPT);
    assert_true(count > 15000 && count < 25000);
    assert_memory_equal(got, expected, count * sizeof *got);
    assert_non_null(strstr(run_reader_failure_text(sources.given[2].reader), "000000000002.run: block 3: "));
    sources_end(&sources);
    free(expected);
    free(got);
    sources_free(&sources);
}

/* The making of a checkpoint: merge, and write what comes as another run. */
static void test_run_merge__its_yield_is_a_run(void **state)
{
    (void)state;
    struct sources sources = {0};
    machine_create(&sources.machine, 1);
    for (unsigned i = 0; i < 5; i++)
        sources_add(&sources, entries_make(i * 2000ull, 4000, 1 + i * 10000ull), 4000, i != 2);
    struct run_entry *got = calloc(20000, sizeof *got);
    enum kvs_err err;
    sources_begin(&sources, RUN_RANGE_ALL);
    const size_t count = merge_all(&sources, 0, 1000, got, 20000, &err);
    assert_int_equal(count, 12000);
    sources_end(&sources);
    run_make(&sources.machine, 50, got, count, 5);
    run_expect(&sources.machine, 50, got, count);
    free(got);
    sources_free(&sources);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_merge__does_as_the_model_does),
        cmocka_unit_test(test_run_merge__of_equal_lsns_the_later_source_wins),
        cmocka_unit_test(test_run_merge__what_does_not_count_is_not_there),
        cmocka_unit_test(test_run_merge__parts_of_runs_make_up_the_whole),
        cmocka_unit_test(test_run_merge__the_largest_key_there_can_be_is_merged),
        cmocka_unit_test(test_run_merge__a_damaged_run_is_named),
        cmocka_unit_test(test_run_merge__its_yield_is_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
