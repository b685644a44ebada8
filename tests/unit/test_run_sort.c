/*
 * test_run_sort.c - the order that run_sort leaves, whatever it was given.
 */
#include "run_fixture.h"

static int compare_entries(const void *a, const void *b)
{
    const struct run_entry *left = a, *right = b;
    if (left->order != right->order)
        return left->order < right->order ? -1 : 1;
    if (left->check != right->check)
        return left->check < right->check ? -1 : 1;
    if (left->lsn != right->lsn)
        return left->lsn < right->lsn ? -1 : 1;
    return left->place < right->place ? -1 : left->place > right->place;
}

/* Entry `i` of an array of a kind. */
static struct run_entry entry_of_kind(unsigned kind, uint64_t i)
{
    struct run_entry entry = entry_make(i, run_mix(i * 3) % 1000);
    switch (kind) {
    case 1: /* of one shard among many */
        entry.order = entry.order >> 10 | 0x123ull << 54;
        break;
    case 2: /* few keys, written over and over */
        entry.order %= 3;
        entry.check %= 2;
        break;
    case 3: /* one key */
        entry.order = entry.check = UINT64_MAX;
        break;
    case 4: /* sorted already */
        entry.order = i << 20;
        break;
    case 5: /* sorted the other way round */
        entry.order = UINT64_MAX - i;
        break;
    case 6: /* one far off, many close together */
        entry.order = i == 77 ? UINT64_MAX : entry.order % 128;
        break;
    case 7: /* bits far apart */
        entry.order &= 0x8000400000200001ull;
        break;
    default:
        break;
    }
    return entry;
}

static void test_run_sort__sorts_like_qsort(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 24, 25, 26, 31, 100, 1000, 4097, 60000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes) * 8; i++) {
        const size_t count = sizes[i / 8];
        struct run_entry *entries = calloc(count + 1, sizeof *entries);
        struct run_entry *expected = calloc(count + 1, sizeof *expected);
        for (size_t j = 0; j < count; j++)
            entries[j] = expected[j] = entry_of_kind(i % 8, j);
        qsort(expected, count, sizeof *expected, compare_entries);
        run_sort(entries, count);
        for (size_t j = 0; j < count; j++) /* of entries equal in all four, expires_ms may differ in order */
            assert_int_equal(compare_entries(&entries[j], &expected[j]), 0);
        free(entries);
        free(expected);
    }
}

/* Nothing is lost or doubled: each entry carries its own mark, wherever it goes. */
static void test_run_sort__keeps_every_entry_whole(void **state)
{
    (void)state;
    enum { COUNT = 30000 };
    struct run_entry *entries = calloc(COUNT, sizeof *entries);
    uint8_t *seen = calloc(COUNT, 1);
    for (uint64_t i = 0; i < COUNT; i++) {
        entries[i] = entry_make(i % 1000, i);
        entries[i].expires_ms = i;
    }
    run_sort(entries, COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
        const uint64_t mark = entries[i].expires_ms;
        assert_true(mark < COUNT && !seen[mark]);
        seen[mark] = 1;
        struct run_entry expected = entry_make(mark % 1000, mark);
        expected.expires_ms = mark;
        assert_memory_equal(&entries[i], &expected, sizeof expected);
    }
    free(entries);
    free(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_sort__sorts_like_qsort),
        cmocka_unit_test(test_run_sort__keeps_every_entry_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
