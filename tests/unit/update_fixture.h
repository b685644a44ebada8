/*
 * update_fixture.h - functions of update.h held against tables: what a key holds and what is asked, what becomes of it
 * and what is replied.
 *
 * Every case is run twice: with a scratch, whose pieces are no larger than asked for, and with one that refuses.
 */
#ifndef KVS_TESTS_UPDATE_FIXTURE_H
#define KVS_TESTS_UPDATE_FIXTURE_H

#include "node/op.h"
#include "node/update_reply.h"
#include "node/update_run.h"

#include <stdio.h>

enum { UPDATE_NOW_MS = 1000000, UPDATE_VALUE_MAX = 100 };

struct update_case {
    /* What is asked. */
    uint8_t option;
    int64_t a, b;
    uint64_t expires_ms;
    uint32_t value_bytes_max; /* 0 stands for UPDATE_VALUE_MAX */
    uint8_t resp_version;     /* 0 stands for 2 */
    struct slice operand;
    /* What there is. */
    bool found;
    struct slice old;
    uint64_t old_expires_ms;
    /* What comes of it. */
    enum update_change change;
    struct slice value;
    uint64_t put_expires_ms;
    enum update_reply reply;
    int64_t integer;
    struct slice bytes;
    const char *text;
};

/* For initializers. */
#define BYTES(text)                               \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }
#define HOLDS(text)  .found = true, .old = BYTES(text)
#define PUTS(text)   .change = UPDATE_PUT, .value = BYTES(text)
#define COUNTS(n)    .reply = UPDATE_INTEGER, .integer = (n)
#define SAYS(text)   .reply = UPDATE_BULK, .bytes = BYTES(text)
#define WRITES(text) .reply = UPDATE_RESP, .bytes = BYTES(text)
#define FAILS(why)   .reply = UPDATE_ERROR, .text = (why)

struct update_bench {
    struct op_budget budget;
    struct update_scratch scratch;
    struct update_outcome out;
};

static inline void update_bench_init(struct update_bench *bench, uint64_t scratch_bytes_max)
{
    *bench = (struct update_bench){.budget = {.bytes_max = scratch_bytes_max}};
    bench->scratch.budget = &bench->budget;
    list_init(&bench->scratch.large);
}

static inline void update_bench_deinit(struct update_bench *bench)
{
    struct large_trash trash;
    large_trash_init(&trash);
    update_scratch_deinit(&bench->scratch, &trash);
    assert_int_equal(bench->budget.used_bytes, 0);
}

static inline void update_bench_run(struct update_bench *bench, update_fn *run, const struct update_case *given)
{
    struct update_spec spec = {
        .run = run,
        .option = given->option,
        .resp_version = given->resp_version != 0 ? given->resp_version : 2,
        .value_bytes_max = given->value_bytes_max != 0 ? given->value_bytes_max : UPDATE_VALUE_MAX,
        .a = given->a,
        .b = given->b,
        .expires_ms = given->expires_ms,
    };
    struct update_old old = {.found = given->found,
                             .value = given->old,
                             .value_bytes = given->old.size,
                             .expires_ms = given->old_expires_ms,
                             .now_ms = UPDATE_NOW_MS};
    bench->out = (struct update_outcome){0};
    run(&spec, given->operand, &old, &bench->scratch, &bench->out);
}

static inline void update_assert_bytes(struct slice seen, struct slice expected)
{
    assert_int_equal(seen.size, expected.size);
    if (seen.size > 0)
        assert_memory_equal(seen.data, expected.data, seen.size);
}

static inline void update_assert_outcome(const struct update_outcome *out, const struct update_case *expected)
{
    assert_int_equal(out->reply, expected->reply);
    assert_int_equal(out->change, expected->change);
    if (out->change == UPDATE_PUT)
        update_assert_bytes(out->value, expected->value);
    if (out->change == UPDATE_PUT || out->change == UPDATE_EXPIRE)
        assert_int_equal(out->expires_ms, expected->put_expires_ms);
    if (out->reply == UPDATE_INTEGER)
        assert_int_equal(out->integer, expected->integer);
    if (out->reply == UPDATE_BULK || out->reply == UPDATE_RESP)
        update_assert_bytes(out->bytes, expected->bytes);
    if (out->reply == UPDATE_ERROR)
        assert_string_equal(out->text, expected->text);
}

static inline void update_check(update_fn *run, const struct update_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct update_bench bench;
        print_message("case %zu\n", i); /* the last one is the one that fails */
        update_bench_init(&bench, 1u << 20);
        update_bench_run(&bench, run, &cases[i]);
        assert_false(bench.scratch.refused);
        update_assert_outcome(&bench.out, &cases[i]);
        bool takes = bench.scratch.pieces != NULL;
        update_bench_deinit(&bench);

        update_bench_init(&bench, 0);
        update_bench_run(&bench, run, &cases[i]);
        assert_int_equal(bench.scratch.refused, takes);
        if (!takes)
            update_assert_outcome(&bench.out, &cases[i]);
        update_bench_deinit(&bench);
    }
}

#define UPDATE_CHECK(run, cases) update_check(run, cases, ARRAY_COUNT(cases))

#endif
