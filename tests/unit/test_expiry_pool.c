/*
 * test_expiry_pool.c - chunks that do not overlap, blocks that go back one by one, and enough of them kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/expiry_pool.h"

#include <string.h>

enum { BLOCKS = 5, CHUNKS = BLOCKS * EXPIRY_BLOCK_CHUNKS };

static void fill(struct expiry_pool *pool, struct expiry_chunk **chunks)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_true(expiry_pool_grow(pool));
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunks[i] = expiry_pool_get(pool);
        memset(chunks[i], (int)(i % 251), sizeof *chunks[i]);
    }
}

static void test_expiry_pool__chunks_do_not_overlap(void **state)
{
    (void)state;
    static struct expiry_chunk *chunks[CHUNKS];
    struct expiry_pool pool;
    expiry_pool_init(&pool);
    fill(&pool, chunks);
    assert_int_equal(expiry_pool_chunks(&pool), CHUNKS);
    assert_int_equal(expiry_pool_bytes(&pool), CHUNKS * EXPIRY_CHUNK_BYTES);
    for (unsigned i = 0; i < CHUNKS; i += 3)
        expiry_pool_put(&pool, chunks[i]);
    for (unsigned i = 0; i < CHUNKS; i += 3) {
        chunks[i] = expiry_pool_get(&pool);
        memset(chunks[i], (int)(i % 251), sizeof *chunks[i]);
    }
    for (unsigned i = 0; i < CHUNKS; i++) {
        uint8_t expected[sizeof *chunks[i]];
        memset(expected, (int)(i % 251), sizeof expected);
        assert_memory_equal(chunks[i], expected, sizeof expected);
    }
    expiry_pool_deinit(&pool); /* with all chunks in use: nothing leaks */
}

static void test_expiry_pool__empty_blocks_go_back_one_by_one(void **state)
{
    (void)state;
    static struct expiry_chunk *chunks[CHUNKS];
    struct expiry_pool pool;
    expiry_pool_init(&pool);
    fill(&pool, chunks);
    expiry_pool_trim(&pool, 0);
    assert_int_equal(expiry_pool_chunks(&pool), CHUNKS);
    for (unsigned i = 0; i < CHUNKS; i++)
        expiry_pool_put(&pool, chunks[i]);
    assert_int_equal(expiry_pool_bytes(&pool), 0);
    expiry_pool_trim(&pool, 0);
    assert_int_equal(expiry_pool_chunks(&pool), CHUNKS - EXPIRY_BLOCK_CHUNKS);
    for (unsigned i = 0; i < BLOCKS; i++)
        expiry_pool_trim(&pool, 2 * EXPIRY_BLOCK_CHUNKS + 1);
    assert_int_equal(expiry_pool_chunks(&pool), 3 * EXPIRY_BLOCK_CHUNKS);
    for (unsigned i = 0; i < BLOCKS; i++)
        expiry_pool_trim(&pool, 0);
    assert_int_equal(expiry_pool_chunks(&pool), EXPIRY_BLOCK_CHUNKS); /* one is kept for what comes next */
    expiry_pool_deinit(&pool);
}

/* One chunk is in use: the next come from its block until that is full, and the others stay empty. */
static void test_expiry_pool__fills_blocks_in_use_first(void **state)
{
    (void)state;
    static struct expiry_chunk *chunks[CHUNKS];
    struct expiry_pool pool;
    expiry_pool_init(&pool);
    fill(&pool, chunks);
    for (unsigned i = 1; i < CHUNKS; i++)
        expiry_pool_put(&pool, chunks[i]);
    assert_int_equal(pool.blocks_empty, BLOCKS - 1);
    for (unsigned i = 1; i < EXPIRY_BLOCK_CHUNKS; i++)
        expiry_pool_get(&pool);
    assert_int_equal(pool.blocks_empty, BLOCKS - 1);
    expiry_pool_get(&pool);
    assert_int_equal(pool.blocks_empty, BLOCKS - 2);
    expiry_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry_pool__chunks_do_not_overlap),
        cmocka_unit_test(test_expiry_pool__empty_blocks_go_back_one_by_one),
        cmocka_unit_test(test_expiry_pool__fills_blocks_in_use_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
