/*
 * test_canary_op.c - requests under way hold no more memory than their budget allows, whatever their sizes. A
 * deliberate bug (src/base/canary.h) had shown that no unit test came near that bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limits.h"
#include "node/op.h"

enum { OPS = 64, BUDGET_BYTES = 1024 * 1024, VALUE_BYTES = 300 * 1024 };

static uint64_t used(const struct op_budget *budget)
{
    return atomic_load(&budget->used_bytes);
}

static void test_op__requests_under_way_keep_to_their_budget(void **state)
{
    (void)state;
    static uint8_t value[VALUE_BYTES];
    struct op_budget budget = {.bytes_max = BUDGET_BYTES};
    struct op_pool pool;
    op_pool_init(&pool, NULL, &budget, OPS);
    struct engine_request request = {
        .action = ENGINE_PUT, .key = slice_text("key"), .value = slice_make(value, sizeof value)};

    struct op *ops[4];
    for (unsigned i = 0; i < ARRAY_COUNT(ops); i++) {
        ops[i] = op_take(&pool);
        assert_non_null(ops[i]);
        assert_int_equal(op_copy_request(ops[i], &request), i < 3);
        assert_true(used(&budget) <= BUDGET_BYTES);
    }
    /* A small one still finds room, in the op itself. */
    request.value.size = 1;
    assert_true(op_copy_request(ops[3], &request));
    op_give(&pool, ops[0]);
    request.value.size = sizeof value;
    assert_true(op_copy_request(ops[3], &request));
    assert_true(used(&budget) <= BUDGET_BYTES);

    for (unsigned i = 1; i < ARRAY_COUNT(ops); i++)
        op_give(&pool, ops[i]);
    assert_int_equal(used(&budget), 0);
    op_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_op__requests_under_way_keep_to_their_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
