/*
 * test_canary_failure.c - what a shard says to writes after its log has failed: each kind of write, for a relaxed one
 * is acknowledged without waiting for anything. A deliberate bug (src/base/canary.h) had shown that no test asked.
 */
#include "store_fixture.h"

enum { EIO_ERRNO = 5 };

static enum kvs_err answer_now(struct store_fixture *fixture, enum engine_action action, bool relaxed, const char *key)
{
    struct engine_request request =
        store_request(fixture, action, slice_text(key), slice_text(action == ENGINE_PUT ? "after" : ""));
    request.relaxed = relaxed;
    struct engine_shard *owner = fixture->nodes[0].shard;
    struct engine_result result;
    engine_section_begin(owner);
    assert_int_equal(engine_try(owner, &request, &result), ENGINE_DONE);
    engine_section_end(owner);
    return result.error;
}

static void test_failure__every_write_is_refused_at_once_and_reads_go_on(void **state)
{
    (void)state;
    for (unsigned relaxed = 0; relaxed < 2; relaxed++) {
        sim_create(29);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        store_quiet();
        assert_int_equal(store_put_text(&fixture, "a", "before"), KVS_ERR_OK);
        sim_fail(RING_KIND_WRITE, 1, EIO_ERRNO);
        assert_int_equal(store_put_text(&fixture, "b", "lost"), KVS_ERR_FAILED);

        assert_int_equal(answer_now(&fixture, ENGINE_PUT, relaxed != 0, "c"), KVS_ERR_FAILED);
        assert_int_equal(answer_now(&fixture, ENGINE_PUT, relaxed != 0, "a"), KVS_ERR_FAILED);
        assert_int_equal(answer_now(&fixture, ENGINE_REMOVE, relaxed != 0, "a"), KVS_ERR_FAILED);
        store_expect(&fixture, "a", "before");
        store_expect(&fixture, "c", NULL);
        store_crash(&fixture, SIM_KEEP_ALL);
        store_boot(&fixture, &options);
        store_expect(&fixture, "a", "before");
        store_expect(&fixture, "c", NULL);
        store_stop(&fixture);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure__every_write_is_refused_at_once_and_reads_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
