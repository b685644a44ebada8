/*
 * test_store_hold.c - keys that are held between a look and a change: who waits meanwhile, what the change knows, and
 * what becomes of large and of expiring values.
 */
#include "expiry_fixture.h"

enum { LARGE = 3000, KEYS = 40 };

/* A hold, and what its holder makes of it. */
struct holder {
    struct engine_op op;
    bool told, over;
    enum kvs_err error; /* in the end */
    uint64_t gate;
    bool found, gave_value;
    unsigned version; /* of the value that was found */
    uint64_t large_id;
    bool at_once; /* concludes while it is told */
    enum engine_action change;
    unsigned new_version;
    size_t new_bytes;
    uint64_t new_expires_ms;
    unsigned i; /* the key */
    uint8_t *value;
    char key[32];
};

static void on_over(struct engine_op *op)
{
    struct holder *holder = container_of(op, struct holder, op);
    assert_true(holder->told && !holder->over);
    holder->over = true;
    holder->error = op->result.error;
    holder->gate = op->result.gate;
    engine_op_release(op);
    free(holder->value);
}

static void conclude(struct holder *holder)
{
    holder->value = malloc(holder->new_bytes + 1);
    struct slice value = segments_value(holder->i, holder->new_version, holder->new_bytes);
    memcpy(holder->value, value.data, value.size);
    holder->op.request.action = holder->change;
    holder->op.request.value = slice_make(holder->value, holder->new_bytes);
    holder->op.request.expires_ms = holder->new_expires_ms;
    holder->op.done = on_over;
    engine_conclude(&holder->op);
}

static void on_told(struct engine_op *op)
{
    struct holder *holder = container_of(op, struct holder, op);
    const struct engine_result *result = &op->result;
    unsigned i;
    assert_false(holder->told);
    holder->told = true;
    holder->error = result->error;
    holder->found = result->found;
    holder->large_id = result->large_id;
    holder->gave_value = result->value.size > 0;
    if (holder->gave_value) {
        char text[64] = {0};
        memcpy(text, result->value.data, result->value.size < 60 ? result->value.size : 60);
        assert_int_equal(sscanf(text, "%u.%u.", &i, &holder->version), 2);
        assert_int_equal(i, holder->i);
        assert_true(slice_equal(result->value, segments_value(i, holder->version, result->value.size)));
    }
    if (result->error != KVS_ERR_OK) {
        holder->over = true;
        engine_op_release(op);
    } else if (holder->at_once) {
        conclude(holder);
    }
}

static void hold(struct store_fixture *fixture, struct holder *holder, unsigned i)
{
    segments_key(holder->key, i);
    struct engine_request request = store_request(fixture, ENGINE_HOLD, slice_text(holder->key), slice_make(NULL, 0));
    request.head = holder->op.request.head;
    holder->i = i;
    holder->op.request = request;
    holder->op.done = on_told;
    engine_submit(fixture->nodes[store_owner(fixture, &request)].shard, &holder->op);
}

static bool is_told(void *context)
{
    return ((const struct holder *)context)->told;
}

/* … and durable. */
static bool is_over(void *context)
{
    const struct holder *holder = context;
    return holder->over && engine_durable(holder->op.shard) >= holder->gate;
}

static void turn_owner(struct store_fixture *fixture, const struct holder *holder)
{
    engine_turn(fixture->nodes[store_owner(fixture, &holder->op.request)].shard);
}

/* A hold that is concluded, `at_once` or after some time. */
static struct holder change(struct store_fixture *fixture, unsigned i, enum engine_action action, unsigned version,
                            size_t bytes, bool at_once)
{
    struct holder holder = {.at_once = at_once, .change = action, .new_version = version, .new_bytes = bytes};
    hold(fixture, &holder, i);
    turn_owner(fixture, &holder);
    assert_true(sim_run_until(is_told, &holder, 1000000));
    if (!at_once && holder.error == KVS_ERR_OK) {
        store_quiet();
        conclude(&holder);
    }
    turn_owner(fixture, &holder);
    assert_true(sim_run_until(is_over, &holder, 1000000));
    return holder;
}

static struct engine_options hold_options(unsigned shards)
{
    struct engine_options options = segments_scarce(shards);
    options.large_bytes_min = LARGE;
    return options;
}

static uint64_t reads_of(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats.disk_reads;
}

/* Other keys, until what was there is on disk only. */
static void push_out(struct store_fixture *fixture)
{
    for (unsigned round = 0; round < 2; round++)
        segments_put_range(fixture, 1000, 2000, round, 2000);
    store_quiet();
}

/* ---- one after the other --------------------------------------------------------------------------------------- */

static void test_hold__gives_the_value_and_changes_it(void **state)
{
    (void)state;
    for (unsigned at_once = 0; at_once < 2; at_once++) {
        sim_create(1 + at_once);
        struct store_fixture fixture;
        struct engine_options options = hold_options(2);
        store_boot(&fixture, &options);
        struct holder holder = change(&fixture, 1, ENGINE_HOLD, 0, 0, at_once);
        assert_false(holder.found);
        assert_int_equal(store_keys(&fixture), 0);
        holder = change(&fixture, 1, ENGINE_PUT, 7, 100, at_once);
        assert_false(holder.found);
        segments_expect(&fixture, 1, 7, 100);
        holder = change(&fixture, 1, ENGINE_HOLD, 0, 0, at_once);
        assert_true(holder.found && holder.version == 7);
        segments_expect(&fixture, 1, 7, 100);
        holder = change(&fixture, 1, ENGINE_REMOVE, 0, 0, at_once);
        assert_true(holder.found && holder.version == 7);
        segments_expect_none(&fixture, 1);
        holder = change(&fixture, 1, ENGINE_REMOVE, 0, 0, at_once);
        assert_true(!holder.found && holder.error == KVS_ERR_OK);
        assert_int_equal(store_keys(&fixture), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* A change knows what the hold has read: nothing is left to be settled, and it is read once. */
static void test_hold__of_a_cold_key_reads_it_once(void **state)
{
    (void)state;
    static const enum engine_action actions[] = {ENGINE_HOLD, ENGINE_PUT, ENGINE_REMOVE};
    for (unsigned round = 0; round < 6; round++) {
        sim_create(10 + round);
        struct store_fixture fixture;
        struct engine_options options = hold_options(1);
        store_boot(&fixture, &options);
        segments_put(&fixture, 1, 3, 500);
        push_out(&fixture);
        uint64_t keys = store_keys(&fixture), reads = reads_of(&fixture);
        enum engine_action action = actions[round / 2];
        struct holder holder = change(&fixture, 1, action, 4, 600, round % 2 == 0);
        assert_true(holder.found && holder.version == 3 && holder.error == KVS_ERR_OK);
        store_quiet();
        assert_int_equal(reads_of(&fixture), reads + 1);
        assert_int_equal(store_keys(&fixture), keys - (action == ENGINE_REMOVE));
        struct engine_stats stats;
        engine_stats(fixture.engine, &stats);
        if (action == ENGINE_REMOVE)
            segments_expect_none(&fixture, 1);
        else
            segments_expect(&fixture, 1, action == ENGINE_PUT ? 4 : 3, action == ENGINE_PUT ? 600 : 500);
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_hold__others_wait_and_keep_their_order(void **state)
{
    (void)state;
    sim_create(20);
    struct store_fixture fixture;
    struct engine_options options = hold_options(1);
    store_boot(&fixture, &options);
    segments_put(&fixture, 1, 1, 100);
    struct holder first = {.change = ENGINE_PUT, .new_version = 2, .new_bytes = 100};
    struct holder second = {.change = ENGINE_PUT, .new_version = 3, .new_bytes = 100};
    hold(&fixture, &first, 1);
    assert_true(first.told && !first.over);
    hold(&fixture, &second, 1);
    struct store_waiting get, put;
    struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(first.key), slice_make(NULL, 0));
    store_begin(&fixture, &get, &request);
    request.action = ENGINE_PUT;
    request.value = segments_value(1, 4, 100);
    char copy[100];
    memcpy(copy, request.value.data, sizeof copy);
    request.value.data = (const uint8_t *)copy;
    store_begin(&fixture, &put, &request);
    segments_put(&fixture, 2, 1, 100); /* another key does not wait */
    store_quiet();
    assert_true(!second.told && !get.done && !put.done);
    segments_expect(&fixture, 2, 1, 100);
    conclude(&first);
    assert_true(first.over && second.told && second.version == 2 && !get.done);
    conclude(&second);
    assert_true(second.over && get.done && put.done);
    assert_true(slice_equal(slice_make(get.value, get.value_bytes), segments_value(1, 3, 100)));
    store_finish(&get);
    store_finish(&put);
    segments_expect(&fixture, 1, 4, 100);
    free(get.value);
    free(put.value);
    store_stop(&fixture);
    sim_destroy();
}

/* Each concludes while it is told: the next is told when that has ended, not inside. */
static void test_hold__a_long_queue_takes_no_stack(void **state)
{
    (void)state;
    enum { HOLDERS = 20000 };
    sim_create(21);
    struct store_fixture fixture;
    struct engine_options options = hold_options(1);
    store_boot(&fixture, &options);
    segments_put(&fixture, 1, 0, 100);
    struct holder first = {.change = ENGINE_HOLD};
    hold(&fixture, &first, 1);
    struct holder *holders = calloc(HOLDERS, sizeof *holders);
    for (unsigned i = 0; i < HOLDERS; i++) {
        holders[i] = (struct holder){.at_once = true, .change = i % 100 == 0 ? ENGINE_PUT : ENGINE_HOLD};
        holders[i].new_version = i;
        holders[i].new_bytes = 100;
        hold(&fixture, &holders[i], 1);
    }
    conclude(&first);
    for (unsigned i = 0; i < HOLDERS; i++) {
        turn_owner(&fixture, &first);
        assert_true(sim_run_until(is_over, &holders[i], 1000000));
        assert_int_equal(holders[i].error, KVS_ERR_OK);
        assert_int_equal(holders[i].version, i == 0 ? 0 : (i - 1) / 100 * 100);
    }
    free(holders);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- large values, expiry -------------------------------------------------------------------------------------- */

static uint64_t files_of(const struct store_fixture *fixture)
{
    struct engine_stats stats;
    engine_stats(fixture->engine, &stats);
    return stats.large_values;
}

static void test_hold__of_a_large_value(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        bool at_once = round % 2 == 0, cold = round >= 2;
        sim_create(30 + round);
        struct store_fixture fixture;
        struct engine_options options = hold_options(1);
        store_boot(&fixture, &options);
        segments_put(&fixture, 1, 1, 5000);
        if (cold)
            push_out(&fixture);
        struct holder holder = change(&fixture, 1, ENGINE_PUT, 2, 6000, at_once);
        assert_true(holder.found && holder.version == 1 && holder.large_id != 0);
        segments_expect(&fixture, 1, 2, 6000);
        holder = change(&fixture, 1, ENGINE_PUT, 3, 10, at_once);
        assert_int_equal(holder.version, 2);
        segments_expect(&fixture, 1, 3, 10);
        holder = change(&fixture, 1, ENGINE_PUT, 4, 7000, at_once);
        assert_int_equal(holder.version, 3);
        holder = change(&fixture, 1, ENGINE_REMOVE, 0, 0, at_once);
        assert_int_equal(holder.version, 4);
        segments_expect_none(&fixture, 1);
        store_quiet();
        assert_int_equal(files_of(&fixture), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* A new expiry for a large value: its file stays, and is not read. */
static void test_hold__a_large_value_gets_another_expiry_where_it_is(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        sim_create(40 + round);
        struct store_fixture fixture;
        struct engine_options options = hold_options(1);
        store_boot(&fixture, &options);
        segments_put(&fixture, 1, 1, 5000);
        if (round >= 2)
            push_out(&fixture);
        uint64_t soon_ms = expiry_now_ms(&fixture) + 100000, reads = reads_of(&fixture);
        struct holder holder = {.at_once = round % 2 == 0, .change = ENGINE_EXPIRE, .new_expires_ms = soon_ms};
        holder.op.request.head = true;
        hold(&fixture, &holder, 1);
        turn_owner(&fixture, &holder);
        assert_true(sim_run_until(is_told, &holder, 1000000));
        if (!holder.at_once)
            conclude(&holder);
        turn_owner(&fixture, &holder);
        assert_true(sim_run_until(is_over, &holder, 1000000));
        assert_true(holder.found && !holder.gave_value && holder.error == KVS_ERR_OK);
        assert_true(reads_of(&fixture) - reads <= 1);
        assert_int_equal(files_of(&fixture), 1);
        /* Its record is in RAM now: at once. */
        struct engine_result result;
        struct engine_request again =
            store_request(&fixture, ENGINE_EXPIRE, slice_text(holder.key), slice_make(NULL, 0));
        again.expires_ms = ++soon_ms;
        engine_section_begin(fixture.nodes[0].shard);
        assert_int_equal(engine_try(fixture.nodes[0].shard, &again, &result), ENGINE_DONE);
        engine_section_end(fixture.nodes[0].shard);
        assert_true(result.found && result.error == KVS_ERR_OK);
        segments_put(&fixture, 2, 1, 100); /* durable, and so is what was before it */
        for (unsigned boot = 0; boot < 2; boot++) {
            struct store_waiting get;
            struct engine_request request =
                store_request(&fixture, ENGINE_GET, slice_text(holder.key), slice_make(NULL, 0));
            store_execute(&fixture, &get, &request);
            assert_true(get.op.result.found && get.value_bytes == 5000);
            assert_int_equal(get.op.result.expires_ms, soon_ms);
            free(get.value);
            store_crash(&fixture, SIM_DROP_ALL);
            store_boot(&fixture, &options);
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

/* What was decided of a value is out of date when that has expired; a delete is not. */
static void test_hold__of_a_value_that_expires_meanwhile(void **state)
{
    (void)state;
    static const enum engine_action actions[] = {ENGINE_PUT, ENGINE_REMOVE, ENGINE_HOLD};
    for (unsigned round = 0; round < 3; round++) {
        sim_create(50 + round);
        struct store_fixture fixture;
        struct engine_options options = hold_options(1);
        store_boot(&fixture, &options);
        char key[32];
        segments_key(key, 1);
        uint64_t then_ms = expiry_now_ms(&fixture) + 50;
        expiry_put(&fixture, slice_text(key), segments_value(1, 1, 100), then_ms);
        struct holder holder = {.change = actions[round], .new_version = 2, .new_bytes = 100};
        hold(&fixture, &holder, 1);
        assert_true(holder.told && holder.found);
        expiry_run_ms(&fixture, 100 + 2000 * (round % 2));
        conclude(&holder);
        turn_owner(&fixture, &holder);
        assert_true(sim_run_until(is_over, &holder, 1000000));
        assert_int_equal(holder.error, actions[round] == ENGINE_PUT ? KVS_ERR_CHANGED : KVS_ERR_OK);
        segments_expect_none(&fixture, 1);
        assert_int_equal(store_keys(&fixture), 0);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- at random ------------------------------------------------------------------------------------------------- */

/* What a key holds when all that was asked for has been done. */
struct model {
    bool there;
    unsigned version;
    size_t bytes;
};

struct asked {
    struct holder holder;
    struct store_waiting waiting;
    bool is_hold;
    struct model before; /* what it must find */
    uint8_t *value;
};

static size_t some_bytes(void)
{
    return sim_random(4) == 0 ? LARGE + sim_random(4000) : 40 + sim_random(1500);
}

static void ask(struct store_fixture *fixture, struct asked *asked, struct model *model, unsigned version)
{
    unsigned i = (unsigned)sim_random(KEYS);
    struct model *key = &model[i];
    static const enum engine_action changes[] = {ENGINE_PUT, ENGINE_PUT, ENGINE_REMOVE, ENGINE_HOLD};
    static const enum engine_action plain[] = {ENGINE_PUT, ENGINE_REMOVE, ENGINE_GET};
    *asked = (struct asked){.is_hold = sim_random(2) == 0, .before = *key};
    enum engine_action action = asked->is_hold ? changes[sim_random(4)] : plain[sim_random(3)];
    size_t bytes = some_bytes();
    if (asked->is_hold) {
        asked->holder = (struct holder){
            .at_once = sim_random(2) == 0, .change = action, .new_version = version, .new_bytes = bytes};
        hold(fixture, &asked->holder, i);
    } else {
        segments_key(asked->holder.key, i);
        asked->holder.i = i;
        asked->value = malloc(bytes);
        memcpy(asked->value, segments_value(i, version, bytes).data, bytes);
        struct engine_request request =
            store_request(fixture, action, slice_text(asked->holder.key), slice_make(asked->value, bytes));
        store_begin(fixture, &asked->waiting, &request);
    }
    if (action == ENGINE_PUT)
        *key = (struct model){.there = true, .version = version, .bytes = bytes};
    else if (action == ENGINE_REMOVE)
        *key = (struct model){0};
}

static void check(struct store_fixture *fixture, struct asked *asked)
{
    struct holder *holder = &asked->holder;
    if (asked->is_hold) {
        turn_owner(fixture, holder);
        assert_true(sim_run_until(is_told, holder, 1000000));
        if (!holder->at_once)
            conclude(holder);
        turn_owner(fixture, holder);
        assert_true(sim_run_until(is_over, holder, 1000000));
        assert_int_equal(holder->error, KVS_ERR_OK);
        assert_int_equal(holder->found, asked->before.there);
        assert_int_equal(holder->version, asked->before.version);
        return;
    }
    store_finish(&asked->waiting);
    assert_int_equal(asked->waiting.op.result.error, KVS_ERR_OK);
    enum engine_action action = asked->waiting.op.request.action;
    if (action != ENGINE_PUT)
        assert_int_equal(asked->waiting.op.result.found, asked->before.there);
    if (action == ENGINE_GET && asked->before.there)
        assert_true(slice_equal(slice_make(asked->waiting.value, asked->waiting.value_bytes),
                                segments_value(holder->i, asked->before.version, asked->before.bytes)));
    free(asked->waiting.value);
    free(asked->value);
}

static void test_hold__many_at_random(void **state)
{
    (void)state;
    enum { SEEDS = 40, ROUNDS = 60, AT_ONCE = 24 };
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        sim_create(100 + seed);
        struct store_fixture fixture;
        struct engine_options options = hold_options(1 + seed % 3);
        struct model model[KEYS] = {{0}};
        unsigned version = 1;
        store_boot(&fixture, &options);
        store_compact(&fixture, 150);
        for (unsigned round = 0; round < ROUNDS; round++) {
            static struct asked asked[AT_ONCE];
            for (unsigned i = 0; i < AT_ONCE; i++)
                ask(&fixture, &asked[i], model, version++);
            for (unsigned i = 0; i < AT_ONCE; i++)
                check(&fixture, &asked[i]);
            if (round % 6 == 0)
                segments_put_range(&fixture, 1000, 1300, round, 2000);
            if (round % 20 == 19) {
                store_crash(&fixture, SIM_DROP_ALL);
                store_boot(&fixture, &options);
                store_compact(&fixture, 150);
            }
        }
        unsigned there = 0;
        for (unsigned i = 0; i < KEYS; i++) {
            there += model[i].there;
            if (model[i].there)
                segments_expect(&fixture, i, model[i].version, model[i].bytes);
            else
                segments_expect_none(&fixture, i);
        }
        store_quiet();
        assert_int_equal(store_keys(&fixture), there + 300);
        store_stop(&fixture);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold__gives_the_value_and_changes_it),
        cmocka_unit_test(test_hold__of_a_cold_key_reads_it_once),
        cmocka_unit_test(test_hold__others_wait_and_keep_their_order),
        cmocka_unit_test(test_hold__a_long_queue_takes_no_stack),
        cmocka_unit_test(test_hold__of_a_large_value),
        cmocka_unit_test(test_hold__a_large_value_gets_another_expiry_where_it_is),
        cmocka_unit_test(test_hold__of_a_value_that_expires_meanwhile),
        cmocka_unit_test(test_hold__many_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
