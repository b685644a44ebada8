/*
 * test_backup_faults.c - backups when something goes wrong: a step fails, the disk is full, the power goes, the node
 * stops; requests that are refused; files that others share.
 */
#include "backup_fixture.h"
#include "base/diag.h"

#include <errno.h>

enum { CHANGES = 260 };

static struct backup_history history, copied;

static void begin(struct store_fixture *fixture, uint64_t seed, bool links)
{
    sim_create(seed);
    sim_set_links(links);
    memset(&history, 0, sizeof history);
    struct engine_options options = segments_scarce(2);
    store_boot(fixture, &options);
    for (unsigned i = 0; i < CHANGES; i++)
        backup_change(fixture, &history);
    store_quiet();
}

static bool is_whole(const char *path)
{
    char file[128];
    snprintf(file, sizeof file, "%s/superblock", path);
    return sim_file_exists(file);
}

/* The copy is what the store was. */
static void expect_copy(const char *path)
{
    struct store_fixture copy;
    copied = history;
    backup_boot(&copy, path, 1);
    backup_expect_now(&copy, &copied);
    backup_change(&copy, &copied);
    store_stop(&copy);
}

static void count_partial(void *context, const char *path)
{
    *(unsigned *)context += strstr(path, "/.partial/") != NULL;
}

static unsigned partial_files(void)
{
    unsigned count = 0;
    sim_file_each(count_partial, &count);
    return count;
}

/* ---- steps that fail ------------------------------------------------------------------------------------------- */

static uint64_t steps_of_a_backup(uint64_t seed, bool links)
{
    struct store_fixture fixture;
    begin(&fixture, seed, links);
    uint64_t before = sim_issued(RING_KIND_NONE);
    backup_make(&fixture, "one");
    uint64_t steps = sim_issued(RING_KIND_NONE) - before;
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
    return steps;
}

static void test_backup__each_step_may_fail(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EMFILE};
    unsigned failed = 0, good = 0, named = 0;
    for (unsigned links = 0; links < 2; links++) {
        uint64_t steps = steps_of_a_backup(5, links != 0);
        assert_true(steps > 20);
        for (uint64_t nth = 1; nth <= steps; nth++) {
            struct store_fixture fixture;
            begin(&fixture, 5, links != 0);
            sim_fail(RING_KIND_NONE, nth, errors[nth % ARRAY_COUNT(errors)]);
            backup_ask_for(&fixture, "one");
            struct engine_backup_state end = backup_await(&fixture);
            sim_fail_none();
            bool is_good = end.error == KVS_ERR_OK;
            assert_int_equal(strlen(end.text) == 0, is_good);
            assert_int_equal(is_good, end.good_moment_ms != 0);
            good += is_good;
            failed += !is_good;
            if (!is_good)
                assert_true(partial_files() <= 1); /* one, when its removal was the second to fail */
            if (!is_whole(BACKUP_PATH)) {
                for (unsigned i = 0; i < 5; i++)
                    backup_change(&fixture, &history);
                backup_make(&fixture, "one");
            } else if (!is_good) {
                named++; /* only that the name lasts could not be seen to */
            }
            store_stop(&fixture);
            backup_expect_sound(BACKUP_PATH);
            expect_copy(BACKUP_PATH);
            sim_destroy();
        }
    }
    assert_true(failed > 40);
    assert_int_equal(named, 2);
    print_message("%u failed, %u were good\n", failed, good);
}

/* The copies do not fit: the store goes on, and gets back what they took. */
static void test_backup__that_finds_no_space_leaves_the_store_as_it_was(void **state)
{
    (void)state;
    struct store_fixture fixture;
    begin(&fixture, 6, false);
    uint64_t used = sim_disk_used();
    sim_set_disk_size(used + 3 * fixture.options.segment_bytes);
    backup_ask_for(&fixture, "one");
    struct engine_backup_state end = backup_await(&fixture);
    assert_int_equal(end.error, KVS_ERR_NO_SPACE);
    assert_non_null(strstr(end.text, "no space"));
    assert_int_equal(partial_files(), 0);
    for (unsigned i = 0; i < 50; i++)
        backup_change(&fixture, &history);
    sim_set_disk_size(UINT64_MAX);
    backup_make(&fixture, "one");
    backup_expect_now(&fixture, &history);
    store_stop(&fixture);
    expect_copy(BACKUP_PATH);
    sim_destroy();
}

/* A read that shows something else than what is there must not make a copy that lacks records. */
static void test_backup__fails_rather_than_lack_records(void **state)
{
    (void)state;
    unsigned failed = 0, good = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct store_fixture fixture;
        begin(&fixture, 200 + seed, seed % 2 == 0);
        sim_odds(SIM_FAULT_READ_FLIP, 500000);
        sim_odds(SIM_FAULT_READ_ASTRAY, 300000);
        backup_ask_for(&fixture, "one");
        struct engine_backup_state end = backup_await(&fixture);
        sim_odds_none();
        store_stop(&fixture);
        failed += end.error != KVS_ERR_OK;
        if (end.error == KVS_ERR_OK) {
            /* What is wrong in it then is noticed. */
            struct store_fixture copy;
            struct engine_options options = segments_scarce(1);
            options.data_dir = BACKUP_PATH;
            if (store_try_boot(&copy, &options) == KVS_ERR_OK) {
                copied = history;
                backup_expect_now(&copy, &copied);
                store_stop(&copy);
                good++;
            }
        }
        sim_destroy();
    }
    assert_true(failed > 0 && good > 0);
    print_message("%u failed, %u were good\n", failed, good);
}

/* ---- power losses ---------------------------------------------------------------------------------------------- */

static void lose_power(uint64_t seed, uint64_t steps, enum sim_crash_mode mode, bool load, bool *over)
{
    struct store_fixture fixture;
    begin(&fixture, seed, seed % 2 == 0);
    unsigned first = history.count;
    backup_ask_for(&fixture, "one");
    for (uint64_t i = 0; i < steps && backup_state_of(&fixture).running; i++) {
        if (load)
            backup_change(&fixture, &history);
        else
            (void)sim_step();
    }
    *over = !backup_state_of(&fixture).running;
    bool told = *over;
    if (told)
        assert_int_equal(backup_state_of(&fixture).error, KVS_ERR_OK);
    store_crash(&fixture, mode);
    bool whole = is_whole(BACKUP_PATH);
    assert_true(whole || !told);
    struct engine_options options = segments_scarce(1);
    store_boot(&fixture, &options);
    backup_expect_now(&fixture, &history);
    if (whole) {
        struct store_fixture copy;
        backup_boot(&copy, BACKUP_PATH, 2);
        copied = history;
        backup_expect_prefix(&copy, &copied, first, history.count);
        store_stop(&copy);
    }
    backup_make(&fixture, whole ? "two" : "one");
    assert_int_equal(partial_files(), 0);
    store_stop(&fixture);
    expect_copy(whole ? "/data/backups/two" : BACKUP_PATH);
    sim_destroy();
}

static void test_backup__power_loss_at_every_step_leaves_all_or_nothing(void **state)
{
    (void)state;
    static const enum sim_crash_mode modes[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM, SIM_KILL};
    for (uint64_t seed = 10; seed < 12; seed++) {
        bool over = false;
        for (uint64_t steps = 0; !over; steps++)
            lose_power(seed, steps, modes[steps % ARRAY_COUNT(modes)], false, &over);
        over = false;
        for (uint64_t steps = 0; !over; steps += 2)
            lose_power(seed + 2, steps, modes[steps / 2 % ARRAY_COUNT(modes)], true, &over);
    }
}

/* The stop does not wait for the copy, and the next start is as good as any. */
static void test_backup__is_given_up_when_the_node_stops(void **state)
{
    (void)state;
    unsigned given_up = 0;
    for (uint64_t steps = 0; steps < 120; steps += 3) {
        struct store_fixture fixture;
        begin(&fixture, 30, steps % 2 == 0);
        backup_ask_for(&fixture, "one");
        for (uint64_t i = 0; i < steps; i++)
            (void)sim_step();
        store_stop(&fixture);
        given_up += !is_whole(BACKUP_PATH);
        struct engine_options options = segments_scarce(2);
        store_boot(&fixture, &options);
        backup_expect_now(&fixture, &history);
        if (!is_whole(BACKUP_PATH))
            backup_make(&fixture, "one");
        store_stop(&fixture);
        expect_copy(BACKUP_PATH);
        sim_destroy();
    }
    assert_true(given_up > 10);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void test_backup__refuses_names_that_lead_elsewhere(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".", "..", ".partial", "a/b", "/tmp/x", "a b", "a\n", "\xc3\xa4", "../x"};
    struct store_fixture fixture;
    begin(&fixture, 40, true);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(engine_backup_begin(fixture.engine, bad[i], fixture.nodes[0].ring), KVS_ERR_INVALID);
    char name[ENGINE_BACKUP_NAME_BYTES + 1];
    memset(name, 'n', sizeof name);
    name[ENGINE_BACKUP_NAME_BYTES] = '\0';
    assert_int_equal(engine_backup_begin(fixture.engine, name, fixture.nodes[0].ring), KVS_ERR_INVALID);
    assert_false(backup_state_of(&fixture).running);
    name[ENGINE_BACKUP_NAME_BYTES - 1] = '\0';
    backup_make(&fixture, name);
    backup_make(&fixture, "A-z_0.9..");
    store_stop(&fixture);
    sim_destroy();
}

static void test_backup__one_at_a_time_and_no_name_twice(void **state)
{
    (void)state;
    struct store_fixture fixture;
    begin(&fixture, 41, true);
    backup_ask_for(&fixture, "one");
    assert_int_equal(engine_backup_begin(fixture.engine, "two", fixture.nodes[1].ring), KVS_ERR_AGAIN);
    assert_int_equal(backup_await(&fixture).error, KVS_ERR_OK);
    backup_ask_for(&fixture, "one");
    struct engine_backup_state end = backup_await(&fixture);
    assert_int_equal(end.error, KVS_ERR_EXISTS);
    assert_non_null(strstr(end.text, BACKUP_PATH " exists already"));
    assert_string_equal(end.good_path, BACKUP_PATH);
    assert_int_equal(end.ended, 2);
    sim_file_put("/data/backups/file", "x", 1);
    backup_ask_for(&fixture, "file");
    assert_int_equal(backup_await(&fixture).error, KVS_ERR_EXISTS);
    store_stop(&fixture);
    expect_copy(BACKUP_PATH);
    sim_destroy();
}

static void test_backup__goes_where_it_is_told(void **state)
{
    (void)state;
    sim_create(42);
    memset(&history, 0, sizeof history);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    options.backup_dir = "/elsewhere";
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < CHANGES; i++)
        backup_change(&fixture, &history);
    backup_make(&fixture, "one");
    assert_string_equal(backup_state_of(&fixture).good_path, "/elsewhere/one");
    store_crash(&fixture, SIM_DROP_ALL);
    expect_copy("/elsewhere/one");
    sim_destroy();
}

/* ---- files that others share ----------------------------------------------------------------------------------- */

static void nothing_done(struct ring_op *op)
{
    (void)op;
}

/* As `cp -al` would, for all files of /data. */
static void link_one(void *context, const char *path)
{
    struct ring *ring = context;
    int from, to;
    if (strncmp(path, "/data/", 6) != 0 || strstr(path, ".seg") == NULL)
        return;
    assert_int_equal(ring_dir_open(ring, "/data", &from), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, "/twin", &to), KVS_ERR_OK);
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_link(ring, &op, from, path + 6, to, path + 6);
    ring_await(ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    ring_close_fd(ring, from);
    ring_close_fd(ring, to);
}

static struct kept_files twin;

static void keep_twin(void *context, const char *path)
{
    (void)context;
    if (strncmp(path, "/twin/", 6) != 0)
        return;
    struct kept_file *file = &twin.files[twin.count++];
    snprintf(file->path, sizeof file->path, "%s", path);
    file->size = sim_file_size(path);
    file->bytes = malloc(file->size);
    assert_non_null(file->bytes);
    sim_file_read(path, 0, file->bytes, file->size);
}

/* A log goes on in a segment of an earlier boot, and files are used again: not when they have another name. */
static void test_backup__what_others_have_linked_is_never_written_in(void **state)
{
    (void)state;
    struct store_fixture fixture;
    begin(&fixture, 50, true);
    store_stop(&fixture);
    struct ring *ring;
    char message[RING_MESSAGE_BYTES];
    const struct ring_options ring_options = {.entries = 64};
    assert_int_equal(ring_open(&ring, &ring_options, message), KVS_ERR_OK);
    sim_file_each(link_one, ring);
    ring_close(ring);
    twin.count = 0;
    sim_file_each(keep_twin, NULL);
    assert_true(twin.count > 4);
    struct engine_options options = segments_scarce(2);
    for (unsigned boot = 0; boot < 2; boot++) {
        store_boot(&fixture, &options);
        store_compact(&fixture, 120);
        for (unsigned i = 0; i < 1500; i++)
            backup_change(&fixture, &history);
        backup_expect_now(&fixture, &history);
        store_stop(&fixture);
    }
    backup_expect_sound("/data");
    for (unsigned i = 0; i < twin.count; i++) {
        static uint8_t now[1024 * 1024];
        assert_true(twin.files[i].size <= sizeof now);
        sim_file_read(twin.files[i].path, 0, now, twin.files[i].size);
        assert_memory_equal(now, twin.files[i].bytes, twin.files[i].size);
    }
    kept_free(&twin);
    sim_destroy();
}

int main(void)
{
    diag_set_level(DIAG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup__each_step_may_fail),
        cmocka_unit_test(test_backup__that_finds_no_space_leaves_the_store_as_it_was),
        cmocka_unit_test(test_backup__fails_rather_than_lack_records),
        cmocka_unit_test(test_backup__power_loss_at_every_step_leaves_all_or_nothing),
        cmocka_unit_test(test_backup__is_given_up_when_the_node_stops),
        cmocka_unit_test(test_backup__refuses_names_that_lead_elsewhere),
        cmocka_unit_test(test_backup__one_at_a_time_and_no_name_twice),
        cmocka_unit_test(test_backup__goes_where_it_is_told),
        cmocka_unit_test(test_backup__what_others_have_linked_is_never_written_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
