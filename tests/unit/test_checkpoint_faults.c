/*
 * test_checkpoint_faults.c - runs and a disk that fails: errors at every step of making them, damage in segments and in
 * runs, stops and power losses at any moment. Nothing of it may cost anything but the time of the next start. And
 * names: which a run gets, and which a start hands over.
 */
#include "checkpoint_fixture.h"

#include <errno.h>

enum {
    BYTES = 3900, /* a record, in a batch of its own, fills a block */
    PER_SEGMENT = 62,
    KEYS = 14 * PER_SEGMENT,
};

/* No run is begun until `resume`: as if there were so much memory that all this may stay uncovered. */
static void hold(struct store_fixture *fixture)
{
    segments_store(fixture)->base.options.memory_bytes = UINT64_MAX;
}

static void resume(struct store_fixture *fixture)
{
    segments_store(fixture)->base.options.memory_bytes = fixture->options.memory_bytes;
    checkpoint_begin(fixture);
}

static bool all_covered(void *context)
{
    const struct checkpoint *checkpoint = checkpoint_of(context);
    return checkpoint->cover.state == COVER_IDLE && checkpoint->merging.state == MERGE_IDLE && !checkpoint->unlinking &&
           !checkpoint->covering && !plan_due(checkpoint);
}

/* A store with more uncovered segments than may be; nothing else is under way. */
static void boot_uncovered(struct store_fixture *fixture, const struct engine_options *options)
{
    store_boot(fixture, options);
    hold(fixture);
    segments_put_range(fixture, 0, KEYS, 1, BYTES);
    store_quiet();
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* Every step of covering and merging fails once; later they succeed. With images, and without. */
static void test_checkpoint__what_has_failed_is_tried_again(void **state)
{
    (void)state;
    static const struct {
        enum ring_kind kind;
        int error;
        unsigned count; /* of steps of this kind, each of which fails in turn */
        bool counted;   /* as a failure: else it is removal that fails, or a read that is repeated */
    } cases[] = {{RING_KIND_OPEN, EMFILE, 14, true}, {RING_KIND_WRITE, EIO, 16, true},
                 {RING_KIND_WRITE, ENOSPC, 6, true}, {RING_KIND_SYNC, EIO, 10, true},
                 {RING_KIND_RENAME, EIO, 8, true},   {RING_KIND_UNLINK, EIO, 6, false},
                 {RING_KIND_READ, EIO, 16, false}};
    uint64_t pauses = 0;
    for (size_t c = 0; c < ARRAY_COUNT(cases); c++) {
        for (unsigned nth = 1; nth <= cases[c].count; nth++) {
            sim_create(nth);
            struct store_fixture fixture;
            struct engine_options options = nth % 2 == 0 ? store_options(1) : segments_scarce(1);
            boot_uncovered(&fixture, &options);
            sim_fail(cases[c].kind, nth, cases[c].error);
            const uint64_t begun_ns = ring_now_ns(fixture.main_ring);
            resume(&fixture);
            assert_true(sim_run_until(all_covered, &fixture, 100000));
            sim_fail_none();
            const struct checkpoint_stats stats = checkpoint_figures(&fixture);
            if (cases[c].counted)
                assert_int_equal(stats.failed, 1);
            else
                assert_true(stats.failed <= 1);
            pauses += ring_now_ns(fixture.main_ring) - begun_ns >= 1000000000;
            assert_true(stats.made > 8);
            assert_int_equal(checkpoint_of(&fixture)->pause_ns, 0);
            checkpoint_check(&fixture, KEYS);

            /* The store has not noticed. */
            assert_false(engine_failed(fixture.nodes[0].shard));
            segments_put(&fixture, 1, 2, BYTES);
            segments_expect(&fixture, 1, 2, BYTES);
            segments_expect(&fixture, KEYS - 1, 1, BYTES);
            disk_stop_and_check(&fixture);
        }
    }
    assert_true(pauses > 30);
}

static bool paused_thrice(void *context)
{
    return checkpoint_of(context)->pause_ns >= 4000000000;
}

/* As long as it goes on: pauses that grow, one message, no file left. */
static void test_checkpoint__pauses_grow(void **state)
{
    (void)state;
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    boot_uncovered(&fixture, &options);
    const uint64_t begun_ns = ring_now_ns(fixture.main_ring);
    sim_set_disk_size(sim_disk_used());
    resume(&fixture);
    assert_true(sim_run_until(paused_thrice, &fixture, 1000000));
    assert_true(ring_now_ns(fixture.main_ring) - begun_ns >= 3000000000);
    assert_true(ring_now_ns(fixture.main_ring) - begun_ns < 4000000000);
    assert_int_equal(checkpoint_figures(&fixture).failed, 3);
    segments_run_ms(&fixture, 600000);
    assert_int_equal(checkpoint_of(&fixture)->pause_ns, 60000000000);
    assert_in_range(checkpoint_figures(&fixture).failed, 10, 20);
    sim_set_disk_size(UINT64_MAX);
    assert_true(sim_run_until(all_covered, &fixture, 1000000));
    checkpoint_check(&fixture, KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* A failed sync of the directory may have cost others' names: they are told. */
static void test_checkpoint__failed_sync_of_the_directory_is_told(void **state)
{
    (void)state;
    sim_create(4);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    boot_uncovered(&fixture, &options);
    const uint64_t before = atomic_load(&segments_store(&fixture)->names.failures);
    sim_fail(RING_KIND_SYNC, 1, EIO); /* the file */
    resume(&fixture);
    assert_true(sim_run_until(all_covered, &fixture, 100000));
    assert_int_equal(atomic_load(&segments_store(&fixture)->names.failures), before);
    hold(&fixture);
    segments_put_range(&fixture, KEYS, 2 * KEYS, 1, BYTES);
    store_quiet();
    sim_fail(RING_KIND_SYNC, 2, EIO); /* the directory */
    resume(&fixture);
    assert_true(sim_run_until(all_covered, &fixture, 100000));
    assert_int_equal(atomic_load(&segments_store(&fixture)->names.failures), before + 1);
    assert_int_equal(checkpoint_figures(&fixture).failed, 2);
    store_stop(&fixture);
    sim_destroy();
}

/* Without a manifest nothing is made, and a stop comes to its end. */
static void test_checkpoint__none_without_a_manifest(void **state)
{
    (void)state;
    sim_create(5);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    unsigned key = 0;
    while (segments_in_state(&fixture, SEGMENT_SEALED) < 4)
        segments_put(&fixture, key++, 1, BYTES);
    struct manifest_entry entry = {.number = 900, .state = MANIFEST_GONE};
    uint64_t ticket;
    store_quiet();
    assert_int_equal(manifest_change(segments_keeper(&fixture)->manifest, &entry, &ticket), KVS_ERR_OK);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    engine_background_turn(fixture.background);
    store_quiet();
    assert_true(manifest_failed(segments_keeper(&fixture)->manifest));
    while (segments_try_put(&fixture, key, 1, BYTES) == KVS_ERR_OK)
        key++;
    store_quiet();
    assert_true(checkpoint_uncovered(&fixture) > 4);
    assert_int_equal(checkpoint_figures(&fixture).made, 0);
    store_stop(&fixture);
    assert_false(sim_file_exists("/data/000000000001.run"));
    sim_destroy();
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

/* Any byte of a segment's file that counts. It is left alone, the others are covered, and nothing is said of its
 * records. */
static void test_checkpoint__damaged_segment_is_left_uncovered(void **state)
{
    (void)state;
    enum { SEEDS = 40 };
    unsigned left = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1);
        boot_uncovered(&fixture, &options);
        struct segment *segment = segments_at(&fixture, segments_of_key(&fixture, 2 * PER_SEGMENT));
        assert_true(segment != NULL && segment_image(segment) == NULL);
        char path[64];
        store_segment_path(path, segment->number);
        /* The records end somewhat before their block does. */
        const uint64_t at = KVS_BLOCK_BYTES + sim_random((segment->end - KVS_BLOCK_BYTES) / KVS_BLOCK_BYTES) * 4096;
        sim_file_flip(path, (at + sim_random(BYTES)) * 8 + sim_random(8));
        resume(&fixture);
        assert_true(sim_run_until(all_covered, &fixture, 100000));
        assert_true(segment->uncoverable);
        assert_int_equal(segment->run, 0);
        left += segment->uncoverable;
        assert_int_equal(checkpoint_figures(&fixture).failed, 1); /* once */
        assert_true(checkpoint_figures(&fixture).made > 5);
        assert_true(checkpoint_uncovered(&fixture) <= 5);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_int_equal(left, SEEDS);
}

/* Reads that are spoiled once: read again, and covered. */
static void test_checkpoint__spoiled_read_is_repeated(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1);
        boot_uncovered(&fixture, &options);
        sim_fail(RING_KIND_READ, 1 + sim_random(2), EIO);
        resume(&fixture);
        assert_true(sim_run_until(all_covered, &fixture, 100000));
        assert_true(checkpoint_figures(&fixture).failed <= 1);
        for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++)
            assert_false(segments_at(&fixture, i)->uncoverable);
        store_crash(&fixture, SIM_DROP_ALL);
        sim_destroy();
    }
}

/* A run that does not verify is not merged; the second time it is thrown away, and its segments are covered anew. */
static void test_checkpoint__damaged_run_is_thrown_away(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        unsigned key = 0;
        while (checkpoint_figures(&fixture).made < 3)
            segments_put(&fixture, key++, 1, BYTES);
        store_quiet();
        const uint64_t sequence = checkpoint_of(&fixture)->runs[0].sequence;
        char path[64];
        snprintf(path, sizeof path, "/data/%012llu.run", (unsigned long long)sequence);
        sim_file_flip(path, (RUN_HEADER_BYTES + sim_random(64 + PER_SEGMENT * 40)) * 8);
        while (checkpoint_find(checkpoint_of(&fixture), sequence) != NULL) {
            assert_true(key < SEGMENTS_KEYS_MAX);
            segments_put(&fixture, key++, 1, BYTES);
            segments_run_ms(&fixture, 100);
        }
        assert_int_equal(checkpoint_figures(&fixture).failed, 2);
        assert_true(sim_run_until(all_covered, &fixture, 100000));
        assert_false(sim_file_exists(path));
        assert_true(checkpoint_uncovered(&fixture) <= 4);
        checkpoint_check(&fixture, key);
        disk_stop_and_check(&fixture);
    }
}

/* ---- the end, at any moment ------------------------------------------------------------------------------------ */

/* A stop in the middle of anything. */
static void test_checkpoint__stop_at_any_moment(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = seed % 2 == 0 ? store_options(1) : segments_scarce(1 + (unsigned)(seed % 3));
        boot_uncovered(&fixture, &options);
        if (seed % 5 == 0)
            store_compact(&fixture, 130);
        resume(&fixture);
        for (uint64_t steps = sim_random(250); steps > 0 && sim_step(); steps--)
            ;
        struct superblock superblock = disk_superblock(&fixture);
        store_stop(&fixture);
        static struct disk disk;
        disk_open(&disk, &superblock);
        assert_int_equal(disk.scanned, 0);
        assert_int_equal(disk.unfinished, 0);
        assert_int_equal(disk.found.count, KEYS);
        disk_close(&disk);
        sim_destroy();
    }
}

/* Errors, all the time, and then a stop: it ends, and nothing that is there is wrong. */
static void test_checkpoint__stop_on_a_bad_disk(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = seed % 2 == 0 ? store_options(1) : segments_scarce(1);
        boot_uncovered(&fixture, &options);
        const unsigned odds = seed % 3 == 0 ? 400000 : 60000;
        sim_odds(SIM_FAULT_READ_ERROR, odds);
        sim_odds(SIM_FAULT_WRITE_ERROR, odds);
        sim_odds(SIM_FAULT_SYNC_ERROR, odds);
        sim_odds(SIM_FAULT_NAME_ERROR, odds);
        sim_odds(SIM_FAULT_READ_FLIP, odds);
        sim_odds(SIM_FAULT_LATE, 30000);
        resume(&fixture);
        for (uint64_t steps = sim_random(1500); steps > 0 && sim_step(); steps--)
            ;
        failed += checkpoint_figures(&fixture).failed > 0;
        struct superblock superblock = disk_superblock(&fixture);
        store_stop(&fixture);
        sim_odds_none();
        sim_crash(seed % 4 == 0 ? SIM_RANDOM : SIM_DROP_ALL);
        disk_check(&superblock);
        sim_destroy();
    }
    assert_true(failed > 30);
}

/* Power losses: what is there under its final name is whole and right, and the store starts. */
static void test_checkpoint__power_loss_at_any_moment(void **state)
{
    (void)state;
    unsigned unfinished = 0, runs = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = seed % 2 == 0 ? store_options(1) : segments_scarce(1);
        boot_uncovered(&fixture, &options);
        resume(&fixture);
        for (uint64_t steps = sim_random(300); steps > 0 && sim_step(); steps--)
            ;
        struct superblock superblock = disk_superblock(&fixture);
        store_crash(&fixture, seed % 3 == 0 ? SIM_KILL : SIM_RANDOM);
        static struct disk disk;
        disk_open(&disk, &superblock);
        unfinished += disk.unfinished;
        runs += disk.run_count;
        disk_close(&disk);
        if (seed % 10 == 0) {
            store_boot(&fixture, &options);
            for (unsigned i = 0; i < KEYS; i += 50)
                segments_expect(&fixture, i, 1, BYTES);
            store_crash(&fixture, SIM_DROP_ALL);
        }
        sim_destroy();
    }
    assert_true(unfinished > 10 && runs > 200);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static void test_checkpoint__sequences_are_new(void **state)
{
    (void)state;
    sim_create(12);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_file_put("/data/000000000001.run.new", "left", 4);
    sim_file_put("/data/000000000002.run.new", "left", 4);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, 8 * PER_SEGMENT, 1, BYTES);
    store_quiet();
    const struct checkpoint *checkpoint = checkpoint_of(&fixture);
    assert_true(checkpoint->run_count > 0);
    assert_true(checkpoint->runs[0].sequence > 2);
    assert_int_equal(checkpoint_figures(&fixture).failed, 0);
    checkpoint_seen(checkpoint_of(&fixture), 100);
    checkpoint_seen(checkpoint_of(&fixture), 99);
    assert_int_equal(checkpoint_sequence(checkpoint_of(&fixture)), 101);
    store_stop(&fixture);
    assert_true(sim_file_exists("/data/000000000102.run"));
    sim_destroy();
}

/* Runs that a start has found are the checkpoint's: they are merged, and removed when they cover nothing. */
static void test_checkpoint__adopted_runs_are_merged_and_removed(void **state)
{
    (void)state;
    sim_create(13);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, 8 * PER_SEGMENT, 1, BYTES);
    store_stop(&fixture);
    const unsigned before = run_files().runs;
    assert_true(before > 1);

    char message[ENGINE_MESSAGE_BYTES];
    struct ring *ring;
    const struct ring_options ring_options = {.entries = 64};
    assert_int_equal(ring_open(&ring, &ring_options, message), KVS_ERR_OK);
    struct engine *engine;
    assert_int_equal(engine_open(&engine, &options, ring, message), KVS_ERR_OK);
    struct store *store = container_of(engine, struct store, base);
    struct checkpoint *checkpoint = store->keeper.checkpoint;
    struct checkpoint_stats stats;
    checkpoint_stats(checkpoint, &stats);
    assert_int_equal(stats.runs, before);
    assert_int_equal(stats.run_bytes, run_files().bytes);

    /* Nothing is uncovered, so nothing is made, until one of them covers nothing any more. */
    checkpoint_start(checkpoint, ring);
    checkpoint_turn(checkpoint);
    assert_int_equal(checkpoint_timeout_ns(checkpoint), -1);
    assert_int_equal(ring_turn(ring, 0), 0);
    for (uint32_t i = 0; i < checkpoint->runs[0].run->segment_count; i++)
        segment_get(&store->segments, checkpoint->runs[0].run->segments[i].number)->run = 0;
    checkpoint->due = true;
    checkpoint_turn(checkpoint);
    while (checkpoint->unlinking)
        ring_turn(ring, -1);
    assert_int_equal(run_files().runs, before - 1);
    checkpoint_stats(checkpoint, &stats);
    assert_int_equal(stats.runs, before - 1);
    engine_close(engine, ring);
    ring_close(ring);
    sim_destroy();
}

/* The segment that the log goes on in is covered by the run of an earlier stop, up to where it ended then. */
enum later { LATER_STOP, LATER_STOP_FAILS, LATER_SEALED, LATER_CRASH, LATERS };

static void test_checkpoint__segment_that_is_written_on_is_covered_anew(void **state)
{
    (void)state;
    for (unsigned later = 0; later < LATERS; later++) {
        sim_create(14);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        segments_put_range(&fixture, 0, 10, 1, BYTES);
        store_stop(&fixture);
        assert_int_equal(run_files().runs, 1);

        store_boot(&fixture, &options);
        const struct segment *segment = segments_store(&fixture)->shards[0]->log.open;
        segments_put_range(&fixture, 10, 20, 1, BYTES);
        for (unsigned key = 20; later == LATER_SEALED && segment_state(segment) == SEGMENT_OPEN; key++)
            segments_put(&fixture, key, 1, BYTES);
        store_quiet();
        assert_int_equal(segment->run, 0);
        if (later == LATER_STOP_FAILS)
            sim_fail(RING_KIND_OPEN, 1, EMFILE);
        struct superblock superblock = disk_superblock(&fixture);
        if (later == LATER_CRASH)
            store_crash(&fixture, SIM_DROP_ALL);
        else
            store_stop(&fixture);
        sim_fail_none();
        const bool anew = later == LATER_STOP || later == LATER_SEALED;
        static struct disk disk;
        disk_open(&disk, &superblock);
        /* After a crash the earlier run covers its beginning, but that is not known before it is read. */
        static const unsigned covered[LATERS] = {1, 0, 2, 1};
        assert_int_equal(disk_covered(&disk), covered[later]);
        assert_int_equal(disk.scanned > 0, !anew);
        disk_close(&disk);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__what_has_failed_is_tried_again),
        cmocka_unit_test(test_checkpoint__pauses_grow),
        cmocka_unit_test(test_checkpoint__failed_sync_of_the_directory_is_told),
        cmocka_unit_test(test_checkpoint__none_without_a_manifest),
        cmocka_unit_test(test_checkpoint__damaged_segment_is_left_uncovered),
        cmocka_unit_test(test_checkpoint__spoiled_read_is_repeated),
        cmocka_unit_test(test_checkpoint__damaged_run_is_thrown_away),
        cmocka_unit_test(test_checkpoint__stop_at_any_moment),
        cmocka_unit_test(test_checkpoint__stop_on_a_bad_disk),
        cmocka_unit_test(test_checkpoint__power_loss_at_any_moment),
        cmocka_unit_test(test_checkpoint__sequences_are_new),
        cmocka_unit_test(test_checkpoint__adopted_runs_are_merged_and_removed),
        cmocka_unit_test(test_checkpoint__segment_that_is_written_on_is_covered_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
