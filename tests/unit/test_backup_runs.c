/*
 * test_backup_runs.c - the sorted runs in a backup: that a start on it reads no more than the store itself would, that
 * none of them says more than the copy holds, and what becomes of a backup when something goes wrong with one.
 */
#include "backup_fixture.h"

#include "base/diag.h"
#include "engine/backup_internal.h"
#include "engine/checkpoint.h"

#include <errno.h>

enum { CHANGES = 1500 };

static struct backup_history history, copied;

/* Stopped in order and started again: runs cover all of it but what that start has written. */
static void begin(struct store_fixture *fixture, uint64_t seed, unsigned shard_count, bool links)
{
    const struct engine_options options = backup_new_store(fixture, &history, seed, shard_count, links);
    for (unsigned i = 0; i < CHANGES; i++)
        backup_change(fixture, &history);
    store_stop(fixture);
    store_boot(fixture, &options);
    store_quiet();
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

struct runs {
    const char *directory; /* with a slash at its end */
    struct kept_file files[64];
    unsigned count;
};

static void keep_run(void *context, const char *path)
{
    struct runs *runs = context;
    const size_t length = strlen(runs->directory);
    uint64_t sequence;
    bool unfinished;
    if (strncmp(path, runs->directory, length) != 0 || !run_name_parse(path + length, &sequence, &unfinished))
        return;
    assert_false(unfinished);
    assert_true(runs->count < ARRAY_COUNT(runs->files));
    struct kept_file *file = &runs->files[runs->count++];
    snprintf(file->path, sizeof file->path, "%s", path);
    file->size = sim_file_size(path);
    file->bytes = malloc(file->size);
    assert_non_null(file->bytes);
    sim_file_read(path, 0, file->bytes, file->size);
}

static struct runs runs_in(const char *directory)
{
    struct runs runs = {.directory = directory};
    sim_file_each(keep_run, &runs);
    return runs;
}

static void runs_free(struct runs *runs)
{
    for (unsigned i = 0; i < runs->count; i++)
        free(runs->files[i].bytes);
    runs->count = 0;
}

static unsigned count_runs(const char *directory)
{
    struct runs runs = runs_in(directory);
    const unsigned count = runs.count;
    runs_free(&runs);
    return count;
}

static void add_bytes(void *context, const char *path)
{
    if (strncmp(path, BACKUP_PATH "/", sizeof BACKUP_PATH) == 0)
        *(uint64_t *)context += sim_file_size(path);
}

static uint64_t bytes_of_copy(void)
{
    uint64_t bytes = 0;
    sim_file_each(add_bytes, &bytes);
    return bytes;
}

/* All of these are there, byte by byte. */
static void expect_runs(const struct runs *runs)
{
    static uint8_t now[1024 * 1024];
    for (unsigned i = 0; i < runs->count; i++) {
        const struct kept_file *file = &runs->files[i];
        assert_true(file->size <= sizeof now);
        assert_true(sim_file_exists(file->path));
        assert_int_equal(sim_file_size(file->path), file->size);
        sim_file_read(file->path, 0, now, file->size);
        assert_memory_equal(now, file->bytes, file->size);
    }
}

static struct engine_recovery recovery_of(const struct store_fixture *fixture)
{
    struct engine_recovery recovery;
    engine_recovered(fixture->engine, &recovery);
    return recovery;
}

/* Of segments that logs are writing in: they are read as a whole. */
static uint64_t tail_records(const struct store_fixture *fixture)
{
    const struct store *store = segments_store(fixture);
    uint64_t records = 0;
    for (unsigned i = 0; i < store->shard_count; i++)
        records += store->shards[i]->log.open->puts + store->shards[i]->log.open->deletes;
    return records;
}

/* A start on the copy has what the store had, and all that the history's changes since then do to it. Returns how many
 * records it has read. */
static uint64_t try_copy(unsigned shard_count)
{
    struct store_fixture copy;
    copied = history;
    backup_boot(&copy, BACKUP_PATH, shard_count);
    const uint64_t records = recovery_of(&copy).records;
    backup_expect_now(&copy, &copied);
    for (unsigned i = 0; i < 50; i++)
        backup_change(&copy, &copied);
    store_stop(&copy);
    backup_boot(&copy, BACKUP_PATH, shard_count);
    assert_int_equal(recovery_of(&copy).records, 0);
    backup_expect_now(&copy, &copied);
    store_stop(&copy);
    return records;
}

/* ---- what they are good for ------------------------------------------------------------------------------------ */

static void test_backup_runs__start_on_a_backup_reads_the_tails_alone(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct store_fixture fixture, copy;
        begin(&fixture, 1 + i, 1 + i / 2, i % 2 == 0);
        assert_true(count_runs("/data/") > 0);
        sim_file_put(STORE_SNAPSHOT, "left", 4); /* by a start that could not remove it */
        backup_make(&fixture, "one");
        assert_false(sim_file_exists(BACKUP_PATH "/" SNAPSHOT_NAME));
        assert_int_equal(count_runs(BACKUP_PATH "/"), count_runs("/data/"));
        const struct engine_backup_state state_then = backup_state_of(&fixture);
        assert_int_equal(state_then.good_bytes, bytes_of_copy());
        if (i % 2 != 0)
            assert_int_equal(state_then.good_bytes - state_then.good_copied_bytes,
                             sim_file_size(BACKUP_PATH "/manifest") + sim_file_size(BACKUP_PATH "/superblock"));
        const uint64_t segment_bytes = fixture.options.segment_bytes, of_tails = tail_records(&fixture);
        store_stop(&fixture);
        backup_expect_sound(BACKUP_PATH);
        backup_boot(&copy, BACKUP_PATH, 1 + i % 3);
        const struct engine_recovery recovery = recovery_of(&copy);
        assert_true(recovery.segments > 8);
        assert_int_equal(recovery.records, of_tails);
        /* Of tails what is behind the run's end, then all; of the others only the head, and what follows the end. */
        assert_true(recovery.bytes < 2 * (1 + i / 2) * segment_bytes + recovery.segments * 3 * KVS_BLOCK_BYTES);
        backup_expect_now(&copy, &history);
        store_stop(&copy);
        (void)try_copy(2);
        sim_destroy();
    }
}

/* A store that was never stopped: all but the tails, and what may be uncovered, is covered. */
static void test_backup_runs__start_on_a_backup_reads_what_a_start_after_a_crash_would(void **state)
{
    (void)state;
    for (unsigned links = 0; links < 2; links++) {
        struct store_fixture fixture, copy;
        sim_create(20);
        sim_set_links(links != 0);
        memset(&history, 0, sizeof history);
        struct engine_options options = segments_scarce(1);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < 2 * CHANGES; i++)
            backup_change(&fixture, &history);
        store_quiet();
        backup_make(&fixture, "one");
        store_crash(&fixture, SIM_DROP_ALL);
        backup_expect_sound(BACKUP_PATH);
        backup_boot(&copy, BACKUP_PATH, 1);
        const struct engine_recovery of_copy = recovery_of(&copy);
        store_stop(&copy);
        store_boot(&fixture, &options);
        assert_true(of_copy.records > 0);
        assert_int_equal(of_copy.records, recovery_of(&fixture).records);
        assert_true(of_copy.records < history.count / 2);
        backup_expect_now(&fixture, &history);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* Merges in either remove runs that both have. */
static void test_backup_runs__what_one_removes_the_other_keeps(void **state)
{
    (void)state;
    struct store_fixture fixture;
    begin(&fixture, 30, 2, true);
    const uint64_t of_tails = tail_records(&fixture);
    backup_make(&fixture, "one");
    struct runs of_copy = runs_in(BACKUP_PATH "/");
    struct runs of_store = runs_in("/data/");
    assert_true(of_copy.count > 0 && of_copy.count == of_store.count);
    struct backup_history before = history;
    store_compact(&fixture, 130);
    for (unsigned i = 0; i < 2 * CHANGES; i++)
        backup_change(&fixture, &history);
    const uint64_t of_last_tails = tail_records(&fixture);
    store_stop(&fixture);
    for (unsigned i = 0; i < of_store.count; i++)
        assert_false(sim_file_exists(of_store.files[i].path));
    expect_runs(&of_copy);
    runs_free(&of_store);
    of_store = runs_in("/data/");
    assert_true(of_store.count > 0);
    struct backup_history now = history;
    history = before;
    assert_int_equal(try_copy(2), of_tails);
    struct store_fixture copy;
    backup_boot(&copy, BACKUP_PATH, 1);
    store_compact(&copy, 130);
    for (unsigned i = 0; i < 2 * CHANGES; i++)
        backup_change(&copy, &copied);
    store_stop(&copy);
    for (unsigned i = 0; i < of_copy.count; i++)
        assert_false(sim_file_exists(of_copy.files[i].path));
    expect_runs(&of_store);
    runs_free(&of_copy);
    runs_free(&of_store);
    struct engine_options options = segments_scarce(2);
    store_boot(&fixture, &options);
    /* Compaction may have sealed an output too late for the last run. */
    assert_true(recovery_of(&fixture).records <= of_last_tails + 64);
    backup_expect_now(&fixture, &now);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- what they must not say ------------------------------------------------------------------------------------ */

static const struct backup *backup_of(const struct store_fixture *fixture)
{
    return segments_keeper(fixture)->backup;
}

static bool takes_runs(void *context)
{
    const struct backup *backup = backup_of(context);
    return backup->stage == BACKUP_LINK_FILE && backup->run_next < backup->run_count;
}

static bool reads_run(void *context)
{
    return backup_of(context)->stage == BACKUP_READ_FILE;
}

static bool has_runs(void *context)
{
    const struct backup *backup = backup_of(context);
    return backup->stage == BACKUP_IDLE || backup->run_next == backup->run_count;
}

static uint64_t checkpoint_made_by(const struct store_fixture *fixture)
{
    struct checkpoint_stats stats;
    checkpoint_stats(segments_keeper(fixture)->checkpoint, &stats);
    return stats.made;
}

/* A disk takes its time over a read of a run. Meanwhile segments that were a log's at the moment are sealed and
 * covered: of those the copy has the beginning only. */
static void test_backup_runs__none_that_was_made_after_the_moment_goes_along(void **state)
{
    (void)state;
    enum { SEEDS = 4, MADE_LATER = 12 };
    uint64_t made = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct store_fixture fixture, copy;
        sim_create(40 + seed);
        sim_set_links(false);
        struct engine_options options = segments_scarce(1);
        store_boot(&fixture, &options);
        unsigned done = 0;
        while (done < 3 * BACKUP_TURN_KEYS / 2)
            done = backup_put_turns(&fixture, done);
        store_quiet(); /* so that nothing else is late */
        const unsigned first = done;
        backup_ask_for(&fixture, "one");
        assert_true(sim_run_until(takes_runs, &fixture, 1000000));
        sim_odds(SIM_FAULT_LATE, 1000000);
        assert_true(sim_run_until(reads_run, &fixture, 1000000));
        sim_odds_none();
        const uint64_t before = checkpoint_made_by(&fixture);
        while (!has_runs(&fixture) && checkpoint_made_by(&fixture) - before < MADE_LATER)
            done = backup_put_turns(&fixture, done);
        made += checkpoint_made_by(&fixture) - before;
        (void)backup_await(&fixture);
        assert_string_equal(backup_state_of(&fixture).text, "");
        store_crash(&fixture, SIM_DROP_ALL);
        backup_expect_sound(BACKUP_PATH);
        backup_boot(&copy, BACKUP_PATH, 1);
        backup_expect_turns(&copy, first, done);
        store_stop(&copy);
        sim_destroy();
    }
    assert_int_equal(made, SEEDS * MADE_LATER);
}

/* ---- what may go wrong ----------------------------------------------------------------------------------------- */

static void test_backup_runs__missing_or_damaged_one_is_as_good_as_none(void **state)
{
    (void)state;
    enum { REMOVE, FLIP, CUT, WAYS };
    unsigned tried = 0;
    for (unsigned way = 0; way < WAYS; way++) {
        for (unsigned of = 0; of == 0 || of < tried; of++) {
            struct store_fixture fixture;
            begin(&fixture, 60, 1, false);
            const uint64_t of_tails = tail_records(&fixture);
            backup_make(&fixture, "one");
            store_stop(&fixture);
            struct runs runs = runs_in(BACKUP_PATH "/");
            assert_true(runs.count > 0);
            tried = runs.count;
            const struct kept_file *file = &runs.files[of];
            if (way == REMOVE)
                sim_file_remove(file->path);
            else if (way == FLIP)
                sim_file_flip(file->path, sim_random(file->size * 8));
            else
                sim_file_truncate(file->path, file->size - KVS_BLOCK_BYTES);
            assert_true(try_copy(1) > of_tails);
            runs_free(&runs);
            sim_destroy();
        }
    }
}

static void test_backup_runs__one_that_vanishes_meanwhile_is_left_out(void **state)
{
    (void)state;
    for (unsigned links = 0; links < 2; links++) {
        struct store_fixture fixture;
        begin(&fixture, 70, 1, links != 0);
        /* The latest is merged with others now and then. */
        for (unsigned i = 0; i < 600 || count_runs("/data/") < 2; i++) {
            backup_change(&fixture, &history);
            store_quiet();
        }
        const uint64_t of_tails = tail_records(&fixture);
        backup_ask_for(&fixture, "one");
        assert_true(sim_run_until(takes_runs, &fixture, 1000000));
        const struct backup *backup = backup_of(&fixture);
        const size_t runs = backup->run_count;
        assert_true(runs > 1);
        char name[RUN_NAME_BYTES], path[64];
        run_name(name, backup->runs[runs - 1].sequence, "");
        snprintf(path, sizeof path, "/data/%s", name);
        sim_file_remove(path);
        const struct engine_backup_state end = backup_await(&fixture);
        assert_int_equal(end.error, KVS_ERR_OK);
        assert_int_equal(count_runs(BACKUP_PATH "/"), runs - 1);
        store_crash(&fixture, SIM_DROP_ALL);
        backup_expect_sound(BACKUP_PATH);
        assert_true(try_copy(1) > of_tails);
        sim_destroy();
    }
}

/* The steps from the backup's beginning up to its first run, and up to the first behind its runs. */
static void runs_steps(bool links, uint64_t *first, uint64_t *end, unsigned *runs)
{
    struct store_fixture fixture;
    begin(&fixture, 80, 1, links);
    const uint64_t before = sim_issued(RING_KIND_NONE);
    backup_ask_for(&fixture, "one");
    assert_true(sim_run_until(takes_runs, &fixture, 1000000));
    *first = sim_issued(RING_KIND_NONE) - before;
    *runs = (unsigned)backup_of(&fixture)->run_count;
    assert_true(sim_run_until(has_runs, &fixture, 1000000));
    *end = sim_issued(RING_KIND_NONE) - before; /* the next has been issued */
    assert_int_equal(backup_await(&fixture).error, KVS_ERR_OK);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

static void test_backup_runs__error_with_one_leaves_it_out(void **state)
{
    (void)state;
    for (unsigned links = 0; links < 2; links++) {
        uint64_t first, end;
        unsigned runs;
        runs_steps(links != 0, &first, &end, &runs);
        assert_true(runs > 0 && end - first >= runs * (links != 0 ? 1u : 6u));
        for (uint64_t nth = first; nth < end; nth++) {
            struct store_fixture fixture;
            begin(&fixture, 80, 1, links != 0);
            const uint64_t of_tails = tail_records(&fixture);
            sim_fail(RING_KIND_NONE, nth, nth % 2 == 0 ? EIO : EMFILE);
            backup_ask_for(&fixture, "one");
            const struct engine_backup_state state_then = backup_await(&fixture);
            sim_fail_none();
            assert_string_equal(state_then.text, "");
            assert_int_equal(state_then.error, KVS_ERR_OK);
            assert_int_equal(count_runs(BACKUP_PATH "/"), runs - 1);
            store_stop(&fixture);
            backup_expect_sound(BACKUP_PATH);
            assert_true(try_copy(1) > of_tails);
            sim_destroy();
        }
    }
}

static void expect_nothing_left(struct store_fixture *fixture)
{
    assert_int_equal(count_runs("/data/backups/.partial/"), 0);
    assert_false(sim_file_exists(BACKUP_PATH "/superblock"));
    const uint64_t of_tails = tail_records(fixture);
    backup_make(fixture, "one");
    store_stop(fixture);
    backup_expect_sound(BACKUP_PATH);
    assert_int_equal(try_copy(1), of_tails);
    sim_destroy();
}

static void test_backup_runs__without_space_for_one_the_backup_fails(void **state)
{
    (void)state;
    for (unsigned links = 0; links < 2; links++) {
        uint64_t first, end;
        unsigned runs;
        runs_steps(links != 0, &first, &end, &runs);
        struct store_fixture fixture;
        begin(&fixture, 80, 1, links != 0);
        sim_fail(RING_KIND_NONE, links != 0 ? first : first + 4, ENOSPC); /* the link, or a write */
        backup_ask_for(&fixture, "one");
        const struct engine_backup_state state_then = backup_await(&fixture);
        assert_int_equal(state_then.error, KVS_ERR_NO_SPACE);
        assert_non_null(strstr(state_then.text, ".run in "));
        expect_nothing_left(&fixture);
    }
}

static void test_backup_runs__half_a_one_is_never_left_behind(void **state)
{
    (void)state;
    uint64_t first, end;
    unsigned runs;
    runs_steps(false, &first, &end, &runs);
    struct store_fixture fixture;
    begin(&fixture, 80, 1, false);
    sim_fail(RING_KIND_NONE, first + 4, EIO); /* a write */
    sim_fail(RING_KIND_UNLINK, 1, EIO);
    backup_ask_for(&fixture, "one");
    const struct engine_backup_state state_then = backup_await(&fixture);
    assert_int_equal(state_then.error, KVS_ERR_IO);
    assert_non_null(strstr(state_then.text, "cannot remove 0"));
    sim_fail_none();
    expect_nothing_left(&fixture);
}

int main(void)
{
    diag_set_level(DIAG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup_runs__start_on_a_backup_reads_the_tails_alone),
        cmocka_unit_test(test_backup_runs__start_on_a_backup_reads_what_a_start_after_a_crash_would),
        cmocka_unit_test(test_backup_runs__what_one_removes_the_other_keeps),
        cmocka_unit_test(test_backup_runs__none_that_was_made_after_the_moment_goes_along),
        cmocka_unit_test(test_backup_runs__missing_or_damaged_one_is_as_good_as_none),
        cmocka_unit_test(test_backup_runs__one_that_vanishes_meanwhile_is_left_out),
        cmocka_unit_test(test_backup_runs__error_with_one_leaves_it_out),
        cmocka_unit_test(test_backup_runs__without_space_for_one_the_backup_fails),
        cmocka_unit_test(test_backup_runs__half_a_one_is_never_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
