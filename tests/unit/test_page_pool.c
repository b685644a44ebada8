/*
 * test_page_pool.c - pages that are lent to a pool, and how it takes them over while they are read and written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/big_memory.h"
#include "engine/page_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_PAGES = PAGE_CHUNK_BYTES / PAGE_BYTES };

typedef _Atomic uint64_t word_t;

struct lent {
    struct page_pool pool;
    uint8_t *memory;
    uint64_t pages;
};

/* The word says where it stands. */
static word_t *word_of(const struct lent *lent, uint64_t page)
{
    return (word_t *)(void *)(lent->memory + page * PAGE_BYTES + page % 512 * 8);
}

static void lend(struct lent *lent, uint64_t pages)
{
    lent->pages = pages;
    lent->memory = big_memory_alloc(align_up(pages * PAGE_BYTES, PAGE_CHUNK_BYTES));
    assert_non_null(lent->memory);
    for (uint64_t i = 0; i < pages; i++)
        atomic_store(word_of(lent, i), i + 1);
    page_pool_init(&lent->pool, 1ull << 30);
    assert_int_equal(page_pool_lend(&lent->pool, lent->memory, pages), KVS_ERR_OK);
    assert_int_equal(page_pool_bytes(&lent->pool), pages * PAGE_BYTES);
}

static void expect_words(const struct lent *lent)
{
    for (uint64_t i = 0; i < lent->pages; i++)
        assert_int_equal(atomic_load(word_of(lent, i)), i + 1);
}

/* As owner and background do it between them. Returns how many chunks there were. */
static unsigned take_over_all(struct page_pool *pool)
{
    unsigned count = 0;
    while (atomic_load(&pool->lent) > 0) {
        assert_true(page_pool_wants_stock(pool));
        page_pool_stock(pool);
        assert_false(page_pool_wants_stock(pool));
        page_pool_take_over(pool);
        count++;
    }
    page_pool_take_over(pool); /* there is nothing left to do */
    return count;
}

static void test_page_pool__lent_pages_are_taken_over_in_place(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, CHUNK_PAGES - 1, CHUNK_PAGES, CHUNK_PAGES + 1, 3 * CHUNK_PAGES, 1700};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct lent lent;
        lend(&lent, sizes[i]);
        expect_words(&lent);
        page_pool_take_over(&lent.pool); /* nothing in stock: not yet */
        assert_int_equal(atomic_load(&lent.pool.lent), (sizes[i] + CHUNK_PAGES - 1) / CHUNK_PAGES);
        assert_int_equal(take_over_all(&lent.pool), (sizes[i] + CHUNK_PAGES - 1) / CHUNK_PAGES);
        expect_words(&lent);
        page_pool_deinit(&lent.pool);
    }
}

/* Pages behind the last one that was lent are handed out next, then those that were given back, then others. */
static void test_page_pool__goes_on_behind_lent_pages(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        struct lent lent;
        const uint64_t pages = CHUNK_PAGES + 100;
        lend(&lent, pages);
        if (way == 1)
            take_over_all(&lent.pool);
        for (uint64_t i = pages; i < 2 * CHUNK_PAGES; i++) {
            uint8_t *page = page_pool_get(&lent.pool);
            assert_ptr_equal(page, lent.memory + i * PAGE_BYTES);
            for (unsigned at = 0; at < PAGE_BYTES; at++)
                assert_int_equal(page[at], 0);
            lent.pages++;
            atomic_store(word_of(&lent, i), i + 1);
            if (way == 2 && i == pages + 50)
                take_over_all(&lent.pool);
        }
        page_pool_put(&lent.pool, lent.memory + 7 * PAGE_BYTES);
        assert_ptr_equal(page_pool_get(&lent.pool), lent.memory + 7 * PAGE_BYTES);
        atomic_store(word_of(&lent, 7), 8);
        uint8_t *other = page_pool_get(&lent.pool);
        assert_non_null(other);
        assert_true(other < lent.memory || other >= lent.memory + 2 * PAGE_CHUNK_BYTES);
        memset(other, 0xee, PAGE_BYTES);
        take_over_all(&lent.pool);
        expect_words(&lent);
        for (unsigned at = 0; at < PAGE_BYTES; at++)
            assert_int_equal(other[at], 0xee);
        assert_int_equal(page_pool_bytes(&lent.pool), (2 * CHUNK_PAGES + 1) * PAGE_BYTES);
        page_pool_deinit(&lent.pool);
    }
}

/* ---- with others ----------------------------------------------------------------------------------------------- */

struct reader {
    const struct lent *lent;
    _Atomic bool stop;
    _Atomic uint64_t rounds;
    uint64_t wrong;
};

/* Every word only ever grows. */
static void *read_all(void *context)
{
    struct reader *reader = context;
    static uint64_t seen[4 * CHUNK_PAGES];
    while (!atomic_load(&reader->stop)) {
        for (uint64_t i = 0; i < reader->lent->pages; i++) {
            const uint64_t now = atomic_load_explicit(word_of(reader->lent, i), memory_order_acquire);
            reader->wrong += now < seen[i] || now % 10000 != i + 1;
            seen[i] = now;
        }
        atomic_fetch_add(&reader->rounds, 1);
    }
    return NULL;
}

static void test_page_pool__readers_notice_nothing(void **state)
{
    (void)state;
    struct lent lent;
    lend(&lent, 3 * CHUNK_PAGES + 33);
    struct reader reader = {.lent = &lent};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_all, &reader), 0);
    uint64_t chunks = atomic_load(&lent.pool.lent);
    for (uint64_t round = 1; chunks > 0 || round < 20; round++) {
        for (uint64_t i = round % 7; i < lent.pages; i += 7)
            atomic_fetch_add_explicit(word_of(&lent, i), 10000, memory_order_release);
        const uint64_t before = atomic_load(&reader.rounds);
        while (atomic_load(&reader.rounds) < before + 2)
            sched_yield();
        page_pool_stock(&lent.pool);
        page_pool_take_over(&lent.pool);
        chunks = atomic_load(&lent.pool.lent);
    }
    atomic_store(&reader.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reader.wrong, 0);
    page_pool_deinit(&lent.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_pool__lent_pages_are_taken_over_in_place),
        cmocka_unit_test(test_page_pool__goes_on_behind_lent_pages),
        cmocka_unit_test(test_page_pool__readers_notice_nothing),
    };
    return cmocka_run_group_tests_name("page_pool", tests, NULL, NULL);
}
