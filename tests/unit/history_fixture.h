/*
 * history_fixture.h - what the tests of the checker of histories share: one checker, and a way to ask it about an array
 * of operations. For one translation unit each.
 */
#ifndef KVS_TESTS_UNIT_HISTORY_FIXTURE_H
#define KVS_TESTS_UNIT_HISTORY_FIXTURE_H

#include "history.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define OPS_MAX    6000
#define VALUES_MAX 16
#define WORK_MAX   1000000u

static struct history *history;

static int set_up(void **state)
{
    (void)state;
    history = history_create();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    history_free(history);
    return 0;
}

/* What the latest check found. */
static uint64_t finals[OPS_MAX];
static size_t final_count;
static char why[4096];

/* Finds out about the operations, which get their places, counted from 1, as tags. */
static enum history_verdict check(const struct history_op *ops, size_t count, const uint64_t *initial,
                                  size_t initial_count)
{
    history_clear(history);
    history_begin(history, initial, initial_count);
    for (size_t i = 0; i < count; i++) {
        struct history_op op = ops[i];
        op.tag = i + 1;
        history_add(history, &op);
    }
    assert_int_equal(history_count(history), count);
    return history_check(history, WORK_MAX, finals, OPS_MAX, &final_count, why, sizeof(why));
}

#endif
