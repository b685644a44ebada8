/*
 * test_history.c - the checker of histories on histories written by hand: right ones are explained, wrong ones are not,
 * and the wrong answer is named. test_history_random.c has many more.
 */
#include "history_fixture.h"

/* ---- histories written by hand ---------------------------------------------------------------------------------- */

/* One line each; `tag` is the place in the array, counted from 1. */
static struct history_op op_write(uint32_t session, uint64_t invoked, uint64_t returned, uint64_t value)
{
    return (struct history_op){.kind = HISTORY_WRITE,
                               .found = -1,
                               .session = session,
                               .value = value,
                               .invoked = invoked,
                               .returned = returned};
}

static struct history_op op_open_write(uint32_t session, uint64_t invoked, uint64_t deadline, uint64_t value)
{
    struct history_op op = op_write(session, invoked, deadline, value);
    op.open = true;
    return op;
}

static struct history_op op_read(uint32_t session, uint64_t invoked, uint64_t returned, uint64_t value)
{
    struct history_op op = op_write(session, invoked, returned, value);
    op.kind = HISTORY_READ;
    return op;
}

static struct history_op op_remove(uint32_t session, uint64_t invoked, uint64_t returned, int found)
{
    struct history_op op = op_write(session, invoked, returned, 0);
    op.kind = HISTORY_REMOVE;
    op.found = (int8_t)found;
    return op;
}

static struct history_op op_open_remove(uint32_t session, uint64_t invoked, uint64_t deadline)
{
    struct history_op op = op_remove(session, invoked, deadline, -1);
    op.open = true;
    return op;
}

static struct history_op op_exists(uint32_t session, uint64_t invoked, uint64_t returned, int found)
{
    struct history_op op = op_remove(session, invoked, returned, found);
    op.kind = HISTORY_EXISTS;
    return op;
}

/* Looks and changes: `found` and `seen` as in history.h. */
static struct history_op op_swap(uint32_t session, uint64_t invoked, uint64_t returned, int found, uint64_t seen,
                                 uint64_t value)
{
    struct history_op op = op_remove(session, invoked, returned, found);
    op.kind = HISTORY_SWAP;
    op.seen = seen;
    op.value = value;
    return op;
}

static struct history_op op_if(enum history_kind kind, uint32_t session, uint64_t invoked, uint64_t returned, int found,
                               uint64_t value)
{
    struct history_op op = op_swap(session, invoked, returned, found, 0, value);
    op.kind = kind;
    op.open = found < 0;
    return op;
}

static int compare_numbers(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* The history is right, and the key may end as `expected` says, in rising order. */
static void expect_right(const struct history_op *ops, size_t count, const uint64_t *expected, size_t expected_count)
{
    enum history_verdict verdict = check(ops, count, NULL, 0);
    if (verdict != HISTORY_LINEARIZABLE)
        fail_msg("verdict %d: %s", verdict, why);
    assert_int_equal(final_count, expected_count);
    qsort(finals, final_count, sizeof(*finals), compare_numbers);
    assert_memory_equal(finals, expected, expected_count * sizeof(*expected));
}

/* The history is wrong, and operation `culprit`, counted from 1, is named first. */
static void expect_wrong(const struct history_op *ops, size_t count, unsigned culprit, const char *words)
{
    enum history_verdict verdict = check(ops, count, NULL, 0);
    assert_int_equal(verdict, HISTORY_IMPOSSIBLE);
    char name[32];
    snprintf(name, sizeof(name), "#%u %s", culprit, words);
    if (strncmp(why, name, strlen(name)) != 0)
        fail_msg("not \"%s\" but: %s", name, why);
}

#define RIGHT(ops, ...)                                                       \
    do {                                                                      \
        static const uint64_t expected[] = {__VA_ARGS__};                     \
        expect_right(ops, ARRAY_COUNT(ops), expected, ARRAY_COUNT(expected)); \
    } while (0)
#define WRONG(ops, culprit, words) expect_wrong(ops, ARRAY_COUNT(ops), culprit, words)

static void test_history__one_after_the_other(void **state)
{
    (void)state;
    expect_right(NULL, 0, (const uint64_t[]){0}, 1);
    const struct history_op ops[] = {
        op_read(1, 1, 2, 0),     op_write(1, 3, 4, 1),    op_read(1, 5, 6, 1),     op_write(1, 7, 8, 2),
        op_read(1, 9, 10, 2),    op_exists(1, 11, 12, 1), op_remove(1, 13, 14, 1), op_remove(1, 15, 16, 0),
        op_exists(1, 17, 18, 0), op_read(1, 19, 20, 0),   op_write(1, 21, 22, 3),
    };
    RIGHT(ops, 3);
}

static void test_history__stale_read(void **state)
{
    (void)state;
    const struct history_op ops[] = {
        op_write(1, 1, 2, 1), op_write(1, 3, 4, 2), op_read(2, 5, 6, 2), op_read(3, 7, 8, 1), op_read(2, 9, 10, 2),
    };
    WRONG(ops, 4, "READ of value 1");
    /* While the second write is under way either is right, but not the older one after the newer. */
    const struct history_op under_way[] = {op_write(1, 1, 2, 1), op_write(1, 3, 10, 2), op_read(2, 4, 5, 1),
                                           op_read(2, 6, 7, 2)};
    RIGHT(under_way, 2);
    const struct history_op turned[] = {op_write(1, 1, 2, 1), op_write(1, 3, 10, 2), op_read(2, 4, 5, 2),
                                        op_read(3, 6, 7, 1)};
    WRONG(turned, 4, "READ of value 1");
}

static void test_history__lost_write(void **state)
{
    (void)state;
    const struct history_op ops[] = {op_write(1, 1, 2, 1), op_read(2, 3, 4, 0)};
    WRONG(ops, 2, "READ of nothing");
    const struct history_op gone[] = {op_write(1, 1, 2, 1), op_exists(2, 3, 4, 0)};
    WRONG(gone, 2, "EXISTS: no");
    const struct history_op not_found[] = {op_write(1, 1, 2, 1), op_remove(2, 3, 4, 0)};
    WRONG(not_found, 2, "REMOVE that found nothing");
}

static void test_history__deleted_comes_back(void **state)
{
    (void)state;
    const struct history_op read[] = {op_write(1, 1, 2, 1), op_remove(1, 3, 4, 1), op_read(2, 5, 6, 0),
                                      op_read(2, 7, 8, 1)};
    WRONG(read, 4, "READ of value 1");
    const struct history_op at_once[] = {op_write(1, 1, 2, 1), op_remove(1, 3, 4, 1), op_read(2, 5, 6, 1)};
    WRONG(at_once, 3, "READ of value 1");
    const struct history_op exists[] = {op_write(1, 1, 2, 1), op_remove(1, 3, 4, -1), op_exists(2, 5, 6, 1)};
    WRONG(exists, 3, "EXISTS: yes");
}

static void test_history__value_never_written(void **state)
{
    (void)state;
    const struct history_op ops[] = {op_write(1, 1, 2, 1), op_read(2, 3, 4, 7)};
    WRONG(ops, 2, "READ of value 7");
    assert_non_null(strstr(why, "nobody ever wrote that value"));
    const struct history_op early[] = {op_write(1, 1, 2, 1), op_read(2, 3, 4, 7), op_write(1, 5, 6, 7)};
    WRONG(early, 2, "READ of value 7");
    assert_non_null(strstr(why, "before anybody began to write it: #3"));
}

static void test_history__two_removes_find_one_write(void **state)
{
    (void)state;
    const struct history_op ops[] = {op_write(1, 1, 2, 1), op_remove(2, 3, 6, 1), op_remove(3, 4, 7, 1)};
    WRONG(ops, 3, "REMOVE that found it");
    const struct history_op one[] = {op_write(1, 1, 2, 1), op_remove(2, 3, 6, 1), op_remove(3, 4, 7, 0)};
    RIGHT(one, 0);
    /* A second write, whose answer was lost, explains it. */
    const struct history_op two[] = {op_write(1, 1, 2, 1), op_open_write(4, 1, HISTORY_NEVER, 2), op_remove(2, 3, 6, 1),
                                     op_remove(3, 4, 7, 1)};
    RIGHT(two, 0);
}

static void test_history__order_within_a_session(void **state)
{
    (void)state;
    /* Pipelined, all under way at once: the session's read must see its write. */
    const struct history_op own[] = {op_write(1, 1, 10, 1), op_read(1, 1, 10, 0)};
    WRONG(own, 2, "READ of nothing");
    const struct history_op others[] = {op_write(1, 1, 10, 1), op_read(2, 1, 10, 0)};
    RIGHT(others, 1);
    /* Session 2 sees the second write, so the first one is over. */
    const struct history_op two[] = {op_write(1, 1, 10, 1), op_write(1, 1, 10, 2), op_read(2, 2, 3, 2),
                                     op_read(2, 4, 5, 1)};
    WRONG(two, 4, "READ of value 1");
    const struct history_op none[] = {op_write(0, 1, 10, 1), op_write(0, 1, 10, 2), op_read(2, 2, 3, 2),
                                      op_read(2, 4, 5, 1)};
    RIGHT(none, 1);
    /* An answer to a later operation of the session ends the time of an open one. */
    const struct history_op overtaken[] = {op_open_write(1, 1, HISTORY_NEVER, 1), op_read(1, 2, 3, 0),
                                           op_read(2, 4, 5, 1)};
    WRONG(overtaken, 3, "READ of value 1");
}

static void test_history__open_write_after_its_deadline(void **state)
{
    (void)state;
    const struct history_op late[] = {op_open_write(1, 1, 5, 1), op_read(2, 6, 7, 0), op_read(2, 8, 9, 1)};
    WRONG(late, 3, "READ of value 1");
    const struct history_op never[] = {op_open_write(1, 1, HISTORY_NEVER, 1), op_read(2, 6, 7, 0), op_read(2, 8, 9, 1)};
    RIGHT(never, 1);
    const struct history_op in_time[] = {op_open_write(1, 1, 5, 1), op_read(2, 6, 7, 1), op_read(2, 8, 9, 1)};
    RIGHT(in_time, 1);
    /* A remove likewise. */
    const struct history_op remove[] = {op_write(1, 1, 2, 1), op_open_remove(1, 3, 5), op_read(2, 6, 7, 1),
                                        op_read(2, 8, 9, 0)};
    WRONG(remove, 4, "READ of nothing");
}

static void test_history__open_write_that_flickers(void **state)
{
    (void)state;
    const struct history_op ops[] = {op_write(1, 1, 2, 1), op_open_write(2, 3, HISTORY_NEVER, 2), op_read(3, 4, 5, 2),
                                     op_read(3, 6, 7, 1)};
    WRONG(ops, 4, "READ of value 1");
    const struct history_op again[] = {op_open_write(2, 3, HISTORY_NEVER, 2), op_read(3, 4, 5, 2),
                                       op_remove(3, 6, 7, 1), op_read(3, 8, 9, 2)};
    WRONG(again, 4, "READ of value 2");
    const struct history_op unseen[] = {op_open_write(2, 1, HISTORY_NEVER, 2), op_exists(3, 2, 3, 1),
                                        op_exists(3, 4, 5, 0)};
    WRONG(unseen, 3, "EXISTS: no");
    const struct history_op removed[] = {op_open_write(2, 1, HISTORY_NEVER, 2), op_exists(3, 2, 3, 1),
                                         op_open_remove(4, 2, HISTORY_NEVER), op_exists(3, 4, 5, 0)};
    RIGHT(removed, 0);
}

static void test_history__moments_are_closed_intervals(void **state)
{
    (void)state;
    /* What ended when another began may have been at the same time. */
    const struct history_op ops[] = {op_write(1, 1, 5, 1), op_read(2, 5, 9, 0)};
    RIGHT(ops, 1);
    const struct history_op apart[] = {op_write(1, 1, 5, 1), op_read(2, 6, 9, 0)};
    WRONG(apart, 2, "READ of nothing");
    const struct history_op open[] = {op_open_write(1, 1, 5, 1), op_read(2, 5, 5, 0), op_read(2, 5, 5, 1)};
    RIGHT(open, 1);
}

static void test_history__final_values(void **state)
{
    (void)state;
    const struct history_op both[] = {op_write(1, 1, 10, 1), op_write(2, 5, 20, 2)};
    RIGHT(both, 1, 2);
    const struct history_op crash[] = {op_write(1, 1, 2, 1), op_open_write(2, 3, 9, 2), op_open_remove(3, 4, 9)};
    RIGHT(crash, 0, 1, 2);
    const struct history_op seen[] = {op_write(1, 1, 2, 1), op_open_write(2, 3, 9, 2), op_open_remove(3, 4, 9),
                                      op_read(1, 10, 11, 2)};
    RIGHT(seen, 2);
    /* Whatever else was open, something was there at the end. */
    const struct history_op there[] = {op_write(1, 1, 2, 1), op_open_write(2, 3, 9, 2), op_open_remove(3, 4, 9),
                                       op_exists(1, 10, 11, 1)};
    RIGHT(there, 1, 2);
    const struct history_op chain[] = {op_open_write(1, 1, HISTORY_NEVER, 1), op_open_write(1, 1, HISTORY_NEVER, 2),
                                       op_open_remove(1, 1, HISTORY_NEVER), op_open_write(1, 1, HISTORY_NEVER, 3)};
    RIGHT(chain, 0, 1, 2, 3);
}

static void test_history__initial_values(void **state)
{
    (void)state;
    static const uint64_t initial[] = {0, 5, 6, 6, 7};
    const struct history_op none[] = {op_exists(1, 1, 2, 1)};
    assert_int_equal(check(none, 1, initial, 5), HISTORY_LINEARIZABLE);
    assert_int_equal(final_count, 3);
    const struct history_op read[] = {op_read(1, 1, 2, 6), op_read(1, 3, 4, 6)};
    assert_int_equal(check(read, 2, initial, 5), HISTORY_LINEARIZABLE);
    assert_int_equal(final_count, 1);
    assert_int_equal(finals[0], 6);
    const struct history_op change[] = {op_read(1, 1, 2, 6), op_read(1, 3, 4, 5)};
    assert_int_equal(check(change, 2, initial, 5), HISTORY_IMPOSSIBLE);
    assert_int_equal(strncmp(why, "#2 READ of value 5", 18), 0);
    /* Too many for the room given. */
    history_clear(history);
    history_begin(history, initial, 5);
    assert_int_equal(history_check(history, WORK_MAX, finals, 2, &final_count, why, sizeof(why)), HISTORY_LINEARIZABLE);
    assert_int_equal(final_count, 3);
    /* Who does not ask for them need not give room. */
    assert_int_equal(history_check(history, WORK_MAX, NULL, 0, NULL, NULL, 0), HISTORY_LINEARIZABLE);
}

static void test_history__one_of_many_writes_if_nothing_is_there(void **state)
{
    (void)state;
    const struct history_op one[] = {op_if(HISTORY_WRITE_NEW, 1, 1, 9, 1, 1), op_if(HISTORY_WRITE_NEW, 2, 1, 9, 0, 2),
                                     op_if(HISTORY_WRITE_NEW, 3, 1, 9, 1, 3)};
    RIGHT(one, 2);
    const struct history_op two[] = {op_if(HISTORY_WRITE_NEW, 1, 1, 9, 0, 1), op_if(HISTORY_WRITE_NEW, 2, 1, 10, 0, 2)};
    WRONG(two, 2, "WRITE of value 2 if nothing is there that found nothing");
    const struct history_op removed[] = {op_if(HISTORY_WRITE_NEW, 1, 1, 9, 0, 1), op_open_remove(3, 5, HISTORY_NEVER),
                                         op_if(HISTORY_WRITE_NEW, 2, 1, 10, 0, 2)};
    RIGHT(removed, 1, 2);
    const struct history_op none[] = {op_if(HISTORY_WRITE_NEW, 1, 1, 2, 1, 1)};
    WRONG(none, 1, "WRITE of value 1 if nothing is there that found something");
    const struct history_op refused[] = {op_write(1, 1, 2, 1), op_if(HISTORY_WRITE_NEW, 2, 3, 4, 1, 2),
                                         op_read(1, 5, 6, 2)};
    WRONG(refused, 3, "READ of value 2");
    /* Unanswered ones write if they can. */
    const struct history_op open[] = {op_if(HISTORY_WRITE_NEW, 1, 1, HISTORY_NEVER, -1, 1),
                                      op_if(HISTORY_WRITE_NEW, 2, 1, HISTORY_NEVER, -1, 2), op_exists(3, 2, 3, 1)};
    RIGHT(open, 1, 2);
    const struct history_op in_vain[] = {op_write(1, 1, 2, 1), op_if(HISTORY_WRITE_NEW, 2, 3, HISTORY_NEVER, -1, 2)};
    RIGHT(in_vain, 1);
}

static void test_history__writes_only_over_what_is_there(void **state)
{
    (void)state;
    const struct history_op over[] = {op_write(1, 1, 2, 1), op_if(HISTORY_WRITE_OVER, 2, 3, 4, 1, 2)};
    RIGHT(over, 2);
    const struct history_op nothing[] = {op_if(HISTORY_WRITE_OVER, 2, 3, 4, 1, 2)};
    WRONG(nothing, 1, "WRITE of value 2 if something is there that found something");
    const struct history_op there[] = {op_write(1, 1, 2, 1), op_if(HISTORY_WRITE_OVER, 2, 3, 4, 0, 2)};
    WRONG(there, 2, "WRITE of value 2 if something is there that found nothing");
    const struct history_op open[] = {op_if(HISTORY_WRITE_OVER, 2, 3, HISTORY_NEVER, -1, 2), op_exists(3, 4, 5, 0),
                                      op_write(1, 6, 7, 1)};
    RIGHT(open, 1, 2);
    const struct history_op in_vain[] = {op_if(HISTORY_WRITE_OVER, 2, 3, 5, -1, 2), op_write(1, 6, 7, 1)};
    RIGHT(in_vain, 1);
}

static void test_history__swaps_follow_each_other(void **state)
{
    (void)state;
    const struct history_op chain[] = {op_swap(1, 1, 9, 1, 2, 3), op_swap(2, 1, 9, 0, 0, 1), op_swap(3, 1, 9, 1, 1, 2),
                                       op_swap(4, 1, 9, 1, 3, 0)};
    RIGHT(chain, 0);
    const struct history_op twice[] = {op_write(1, 1, 2, 1), op_swap(2, 3, 8, 1, 1, 2), op_swap(3, 3, 9, 1, 1, 3)};
    WRONG(twice, 3, "SWAP for value 3 that found value 1");
    const struct history_op late[] = {op_write(1, 1, 2, 1), op_swap(2, 3, 4, 1, 1, 2), op_read(3, 5, 6, 1)};
    WRONG(late, 3, "READ of value 1");
    /* An update that is lost: what the swap put there is not seen by the one that begins afterwards. */
    const struct history_op lost[] = {op_write(1, 1, 2, 1), op_swap(2, 3, 4, 1, 1, 2), op_write(1, 3, 5, 3),
                                      op_swap(3, 6, 7, 1, 3, 4), op_swap(2, 8, 9, 1, 2, 5)};
    WRONG(lost, 5, "SWAP for value 5 that found value 2");
    const struct history_op taken[] = {op_write(1, 1, 2, 1), op_swap(2, 3, 8, 1, 1, 0), op_swap(3, 3, 9, 1, 1, 0)};
    WRONG(taken, 3, "SWAP for nothing that found value 1");
    const struct history_op never[] = {op_swap(1, 1, 2, 1, 7, 8)};
    WRONG(never, 1, "SWAP for value 8 that found value 7 [1, 2] session 1 cannot be explained; nobody ever wrote");
    /* What a swap saw tells that it was written, and when at the latest. */
    const struct history_op seen[] = {op_open_write(1, 1, HISTORY_NEVER, 1), op_swap(2, 2, 3, 1, 1, 2),
                                      op_read(3, 4, 5, 1)};
    WRONG(seen, 3, "READ of value 1");
}

static void test_history__gives_up_when_told(void **state)
{
    (void)state;
    const struct history_op ops[] = {op_write(1, 1, 2, 1), op_read(1, 3, 4, 1)};
    history_clear(history);
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
        history_add(history, &ops[i]);
    assert_int_equal(history_check(history, 1, finals, OPS_MAX, &final_count, why, sizeof(why)), HISTORY_UNDECIDED);
    assert_int_equal(history_check(history, 100, finals, OPS_MAX, &final_count, why, sizeof(why)),
                     HISTORY_LINEARIZABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history__one_after_the_other),
        cmocka_unit_test(test_history__stale_read),
        cmocka_unit_test(test_history__lost_write),
        cmocka_unit_test(test_history__deleted_comes_back),
        cmocka_unit_test(test_history__value_never_written),
        cmocka_unit_test(test_history__two_removes_find_one_write),
        cmocka_unit_test(test_history__order_within_a_session),
        cmocka_unit_test(test_history__open_write_after_its_deadline),
        cmocka_unit_test(test_history__open_write_that_flickers),
        cmocka_unit_test(test_history__moments_are_closed_intervals),
        cmocka_unit_test(test_history__final_values),
        cmocka_unit_test(test_history__initial_values),
        cmocka_unit_test(test_history__one_of_many_writes_if_nothing_is_there),
        cmocka_unit_test(test_history__writes_only_over_what_is_there),
        cmocka_unit_test(test_history__swaps_follow_each_other),
        cmocka_unit_test(test_history__gives_up_when_told),
    };
    return cmocka_run_group_tests_name("history", tests, set_up, tear_down);
}
