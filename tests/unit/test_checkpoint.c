/*
 * test_checkpoint.c - the runs of a store: when they are made and of what, merges, segments that go meanwhile, copies
 * by compaction, the stop. test_checkpoint_faults.c has errors, damage and power losses.
 */
#include "checkpoint_fixture.h"

enum {
    SEGMENT_BYTES = 256 * 1024,
    BYTES = 3900, /* a record, in a batch of its own, fills a block */
    PER_SEGMENT = 62,
    UNCOVERED = 4, /* segments */
};

/* Nothing is under way. */
static void expect_rest(const struct store_fixture *fixture)
{
    const struct checkpoint *checkpoint = checkpoint_of(fixture);
    assert_int_equal(checkpoint->cover.state, COVER_IDLE);
    assert_int_equal(checkpoint->merging.state, MERGE_IDLE);
    assert_false(checkpoint->unlinking);
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

static void test_checkpoint__uncovered_bytes_follow_the_budget(void **state)
{
    (void)state;
    static const uint64_t mib = 1024 * 1024;
    static const uint64_t cases[][3] = {/* budget, segment, uncovered */
                                        {2 * mib, 256 * 1024, mib},         {64 * mib, mib, 8 * mib},
                                        {64 * mib, 4 * mib, 16 * mib},      {8192 * mib, 64 * mib, 256 * mib},
                                        {65536 * mib, 64 * mib, 256 * mib}, {65536 * mib, 128 * mib, 512 * mib}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        static struct store store;
        store.base.options.memory_bytes = cases[i][0];
        store.segments.segment_bytes = cases[i][1];
        assert_int_equal(checkpoint_uncovered_max(&store), cases[i][2]);
    }
}

static void test_checkpoint__sealed_segments_are_covered_when_there_are_many(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    unsigned key = 0;
    while (segments_in_state(&fixture, SEGMENT_SEALED) < UNCOVERED) {
        segments_put(&fixture, key, 1, BYTES);
        key++;
    }
    store_quiet();
    struct checkpoint_stats stats = checkpoint_figures(&fixture);
    assert_int_equal(stats.made, 0);
    assert_int_equal(run_files().runs, 0);
    while (segments_in_state(&fixture, SEGMENT_SEALED) == UNCOVERED) {
        segments_put(&fixture, key, 1, BYTES);
        key++;
    }
    store_quiet();
    expect_rest(&fixture);
    stats = checkpoint_figures(&fixture);
    assert_int_equal(stats.made, UNCOVERED + 1 - UNCOVERED / 2);
    assert_int_equal(stats.runs, stats.made);
    assert_int_equal(stats.failed, 0);
    assert_int_equal(stats.run_bytes, run_files().bytes);
    assert_int_equal(stats.bytes_written, stats.run_bytes);
    /* The oldest ones. */
    uint64_t covered_last = 0, uncovered_first = UINT64_MAX;
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(&fixture, i);
        if (segment_state(segment) != SEGMENT_SEALED)
            continue;
        if (segment->run != 0 && segment->uid > covered_last)
            covered_last = segment->uid;
        if (segment->run == 0 && segment->uid < uncovered_first)
            uncovered_first = segment->uid;
    }
    assert_true(covered_last < uncovered_first);
    checkpoint_check(&fixture, key);
    struct superblock superblock = disk_superblock(&fixture);
    store_crash(&fixture, SIM_DROP_ALL);
    static struct disk disk;
    disk_open(&disk, &superblock);
    assert_int_equal(disk_covered(&disk), stats.made);
    disk_close(&disk);
    sim_destroy();
}

/* Overwrites, deletes, large and small values, shards; without images, too. */
static void test_checkpoint__runs_hold_the_newest_of_every_key(void **state)
{
    (void)state;
    enum { KEYS = 500, ROUNDS = 4000 };
    for (uint64_t seed = 1; seed <= 6; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = seed % 2 == 0 ? store_options(1) : segments_scarce(1 + (unsigned)(seed % 3));
        store_boot(&fixture, &options);
        for (unsigned round = 0; round < ROUNDS; round++) {
            const unsigned i = (unsigned)sim_random(KEYS);
            if (sim_random(5) == 0)
                (void)segments_remove(&fixture, i);
            else
                segments_put(&fixture, i, round, sim_random(20) == 0 ? 20000 + sim_random(60000) : sim_random(3000));
        }
        store_quiet();
        expect_rest(&fixture);
        const struct checkpoint_stats stats = checkpoint_figures(&fixture);
        assert_true(stats.made > 4 && stats.failed == 0);
        assert_true(checkpoint_uncovered(&fixture) <= UNCOVERED);
        checkpoint_check(&fixture, KEYS);
        disk_crash_and_check(&fixture, seed % 2 == 0 ? SIM_DROP_ALL : SIM_RANDOM);
    }
}

static bool reads_a_segment(void *context)
{
    return checkpoint_of(context)->cover.reading;
}

/* At most the entries of one segment, and a window. */
static void test_checkpoint__memory_is_that_of_one_segment(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 5, 1);
    unsigned seen = 0;
    for (unsigned i = 0; i < 40000; i++) {
        segments_put(&fixture, i % SEGMENTS_KEYS_MAX, i, 1);
        const struct checkpoint *checkpoint = checkpoint_of(&fixture);
        if (checkpoint->cover.state == COVER_IDLE)
            continue;
        seen++;
        assert_int_equal(checkpoint->cover.item_count, 1);
        assert_true(checkpoint->cover.collector.capacity * sizeof(struct run_entry) <= SEGMENT_BYTES);
        assert_true(checkpoint->cover.window_capacity <= 1024 * 1024);
    }
    assert_true(seen > 100);
    store_stop(&fixture);
    sim_destroy();
}

/* A run says that a segment is whole: the manifest must say so first, however old the segment is. */
static void test_checkpoint__only_what_the_manifest_has_as_sealed_is_covered(void **state)
{
    (void)state;
    sim_create(4);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    unsigned key = 0;
    while (segments_in_state(&fixture, SEGMENT_SEALED) < UNCOVERED)
        segments_put(&fixture, key++, 1, BYTES);
    store_quiet();
    struct segment *oldest = segments_at(&fixture, segments_of_key(&fixture, 0));
    assert_true(manifest_durable(segments_keeper(&fixture)->manifest, oldest->sealed_ticket));
    struct manifest_entry entry = keeper_sealed_entry(oldest);
    assert_int_equal(manifest_change(segments_keeper(&fixture)->manifest, &entry, &oldest->sealed_ticket), KVS_ERR_OK);
    oldest->sealed_ticket += 10; /* as if it were entered with one of the next changes */
    while (checkpoint_figures(&fixture).made < 2) {
        segments_put(&fixture, key++, 1, BYTES);
        assert_true(oldest->run == 0 || manifest_durable(segments_keeper(&fixture)->manifest, oldest->sealed_ticket));
        assert_true(key < 8 * PER_SEGMENT);
    }
    assert_int_equal(oldest->run, 0);
    while (oldest->run == 0) {
        segments_put(&fixture, key++, 1, BYTES);
        assert_true(key < 20 * PER_SEGMENT);
    }
    store_stop(&fixture);
    sim_destroy();
}

/* ---- merges ---------------------------------------------------------------------------------------------------- */

static void test_checkpoint__runs_of_like_size_become_one(void **state)
{
    (void)state;
    enum { KEYS = 30 * PER_SEGMENT };
    sim_create(6);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    uint64_t most = 0;
    for (unsigned key = 0; key < KEYS; key++) {
        segments_put(&fixture, key, 1, BYTES);
        const struct checkpoint_stats stats = checkpoint_figures(&fixture);
        most = stats.runs > most ? stats.runs : most;
    }
    store_quiet();
    expect_rest(&fixture);
    const struct checkpoint_stats stats = checkpoint_figures(&fixture);
    assert_true(stats.made > 26);
    assert_true(stats.runs < CHECKPOINT_MERGE_MAX);
    assert_true(most <= 2 * CHECKPOINT_MERGE_MAX);
    assert_int_equal(run_files().runs, stats.runs); /* the sources' files are gone */
    assert_int_equal(run_files().unfinished, 0);
    assert_int_equal(stats.run_bytes, run_files().bytes);
    checkpoint_check(&fixture, KEYS);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

/* Compaction gives segments back all the time: what runs hold of them goes, too. */
static void test_checkpoint__what_is_gone_leaves_the_runs(void **state)
{
    (void)state;
    enum { KEYS = 10 * PER_SEGMENT, VERSIONS = 14 };
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct store_fixture fixture;
        (void)segments_create(&fixture, seed, 1 + (unsigned)(seed % 2));
        store_compact(&fixture, 150);
        for (unsigned version = 1; version <= VERSIONS; version++) {
            segments_put_range(&fixture, 0, KEYS, version, BYTES);
            for (unsigned i = 0; i < KEYS; i += 7)
                assert_true(segments_remove(&fixture, i));
        }
        store_quiet();
        expect_rest(&fixture);
        const struct checkpoint_stats stats = checkpoint_figures(&fixture);
        assert_int_equal(stats.failed, 0);
        assert_true(stats.runs <= 2 * CHECKPOINT_MERGE_MAX);
        const struct checkpoint *checkpoint = checkpoint_of(&fixture);
        uint64_t entries = 0;
        for (size_t i = 0; i < checkpoint->run_count; i++)
            entries += checkpoint->runs[i].run->entry_count;
        assert_true(entries <= 4 * KEYS); /* of VERSIONS times as many records */
        checkpoint_check(&fixture, KEYS);
        disk_crash_and_check(&fixture, SIM_DROP_ALL);
    }
}

/* Of forty segments all but four go: the runs that covered them are written anew, with nothing else in them. */
static void test_checkpoint__run_that_is_mostly_gone_is_written_anew(void **state)
{
    (void)state;
    enum { KEYS = 20 * PER_SEGMENT, VERSIONS = 3 };
    sim_create(8);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    for (unsigned version = 1; version <= VERSIONS; version++)
        segments_put_range(&fixture, 0, KEYS, version, BYTES);
    store_quiet();
    const struct store *store = segments_store(&fixture);
    unsigned dead = 0, covered[DISK_SEGMENTS_MAX] = {0};
    for (uint32_t i = 0; i < atomic_load(&store->segments.next); i++) {
        struct segment *segment = segments_at(&fixture, i);
        covered[i] = segment->run != 0;
        if (segment_state(segment) != SEGMENT_SEALED || atomic_load(&segment->dead_puts) != segment->puts ||
            ++dead % 10 == 0)
            continue;
        relocation_retire(fixture.background, segment);
        covered[i] = 0;
    }
    assert_true(dead >= (VERSIONS - 1) * KEYS / PER_SEGMENT - 1);
    engine_background_turn(fixture.background);
    sim_ring_body(fixture.background_ring, store_turn_background, &fixture);
    store_quiet();
    expect_rest(&fixture);
    const struct checkpoint *checkpoint = checkpoint_of(&fixture);
    for (size_t i = 0; i < checkpoint->run_count; i++) {
        const struct run *run = checkpoint->runs[i].run;
        struct disk_entries entries = {0};
        unsigned there = 0;
        for (uint32_t s = 0; s < run->segment_count; s++)
            there += covered[run->segments[s].number];
        assert_true(2 * there >= run->segment_count);
        disk_read_run(fixture.main_ring, run, &entries);
        for (size_t e = 0; e < entries.count && there == run->segment_count; e++)
            assert_true(covered[address_segment(run_entry_address(&entries.at[e]), store->segments.shift)]);
        free(entries.at);
    }
    checkpoint_check(&fixture, KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* Power losses while all of it goes on: what a start would find is right at any time. */
static void test_checkpoint__segments_come_and_go_while_runs_are_made(void **state)
{
    (void)state;
    enum { KEYS = 6 * PER_SEGMENT };
    for (uint64_t seed = 1; seed <= 40; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1 + (unsigned)(seed % 2));
        sim_odds(SIM_FAULT_LATE, seed % 3 == 0 ? 20000 : 0);
        store_boot(&fixture, &options);
        store_compact(&fixture, 130);
        const unsigned rounds = 200 + (unsigned)sim_random(2000);
        for (unsigned round = 0; round < rounds; round++) {
            const unsigned i = (unsigned)sim_random(KEYS);
            if (sim_random(6) == 0)
                (void)segments_remove(&fixture, i);
            else
                segments_put(&fixture, i, round, BYTES);
        }
        for (uint64_t steps = sim_random(300); steps > 0 && sim_step(); steps--)
            ;
        disk_crash_and_check(&fixture, seed % 2 == 0 ? SIM_RANDOM : SIM_DROP_ALL);
    }
}

static bool acknowledged_all(const struct store_fixture *fixture)
{
    const struct store *store = segments_store(fixture);
    bool all = segments_keeper(fixture)->retirement.segment != NULL;
    for (unsigned i = 0; i < store->shard_count; i++)
        all = all && atomic_load(&store->shards[i]->retire_acked) == segments_keeper(fixture)->retirement.serial;
    return all;
}

/* The segment that is being read is given up, and so is one that is merged: both get another life. */
static void test_checkpoint__segment_that_is_read_keeps_its_file(void **state)
{
    (void)state;
    enum { KEYS = 12 * PER_SEGMENT };
    unsigned met = 0;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct store_fixture fixture;
        (void)segments_create(&fixture, seed, 1);
        segments_keeper(&fixture)->files_max = 0;
        checkpoint_of(&fixture)->retry_ns = UINT64_MAX; /* not yet */
        segments_put_range(&fixture, 0, KEYS, 1, BYTES);
        segments_put_range(&fixture, 0, 6 * PER_SEGMENT, 2, BYTES); /* the first ones are dead now, and cold */
        checkpoint_of(&fixture)->retry_ns = 0;
        checkpoint_begin(&fixture);
        assert_true(sim_run_until(reads_a_segment, &fixture, 100000));
        const uint32_t number = checkpoint_of(&fixture)->cover.items[0].number;
        struct segment *segment = segments_at(&fixture, number);
        const uint64_t uid = segment->uid;
        assert_int_equal(atomic_load(&segment->dead_puts), segment->puts);
        relocation_retire(fixture.background, segment);
        engine_background_turn(fixture.background);
        while (checkpoint_of(&fixture)->cover.reading && checkpoint_of(&fixture)->cover.items[0].uid == uid) {
            assert_int_equal(segment_state(segment), SEGMENT_RETIRED);
            assert_int_equal(segment->uid, uid);
            met += acknowledged_all(&fixture);
            assert_true(sim_step());
        }
        store_quiet();
        segments_put_range(&fixture, 0, KEYS, 3, BYTES);
        store_quiet();
        expect_rest(&fixture);
        checkpoint_check(&fixture, KEYS);
        disk_crash_and_check(&fixture, SIM_DROP_ALL);
    }
    assert_true(met > 0);
}

static bool makes_a_run(void *context)
{
    return checkpoint_of(context)->cover.state == COVER_MAKE;
}

/* While a run of it is on its way to the disk a segment is given up, and its file used again. */
static void test_checkpoint__run_is_not_taken_for_that_of_another_life(void **state)
{
    (void)state;
    enum { DEAD = 8 * PER_SEGMENT };
    unsigned met = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        segments_store(&fixture)->base.options.memory_bytes = UINT64_MAX; /* no run yet */
        segments_put_range(&fixture, 0, DEAD, 1, BYTES);
        segments_put_range(&fixture, 0, DEAD, 2, BYTES);
        store_quiet();
        segments_store(&fixture)->base.options.memory_bytes = options.memory_bytes;
        checkpoint_begin(&fixture);
        assert_true(sim_run_until(makes_a_run, &fixture, 100000));
        const struct cover_item item = checkpoint_of(&fixture)->cover.items[0];
        const uint64_t made = checkpoint_figures(&fixture).made;
        sim_odds(SIM_FAULT_LATE, 1000000); /* the next step of it takes long */
        for (unsigned steps = 0; steps < 4; steps++)
            sim_step();
        sim_odds_none();
        for (unsigned i = 0; i < 8; i++) { /* one of them is used again, behind those in reserve */
            struct segment *segment = segments_at(&fixture, item.number + i);
            if (segment_state(segment) == SEGMENT_SEALED && list_empty(&segment->keeper_link))
                relocation_retire(fixture.background, segment);
        }
        engine_background_turn(fixture.background);
        unsigned key = DEAD;
        while (checkpoint_figures(&fixture).made == made && key < SEGMENTS_KEYS_MAX) {
            const struct segment *segment = segments_at(&fixture, item.number);
            met += segment != NULL && segment->uid != item.uid && segment_state(segment) == SEGMENT_OPEN;
            segments_put(&fixture, key++, 1, BYTES);
        }
        store_quiet();
        checkpoint_check(&fixture, key);
        disk_crash_and_check(&fixture, SIM_DROP_ALL);
    }
    assert_true(met > 0);
}

/* ---- copies by compaction -------------------------------------------------------------------------------------- */

/* A segment that compaction has copied in part, and then left because of damage: it stays beside the copies. Runs of
 * both are merged; what they list then are the copies, for the originals may go any time. */
static void test_checkpoint__of_two_copies_the_one_that_stays_is_listed(void **state)
{
    (void)state;
    enum { DELETED = 10, FIRST = 300, SURVIVORS = 12, OTHERS = 1000 };
    struct store_fixture fixture;
    (void)segments_create(&fixture, 9, 1);
    segments_put_range(&fixture, 0, 4 * PER_SEGMENT, 1, BYTES);
    const uint32_t number = segments_of_key(&fixture, 4 * PER_SEGMENT - 1);
    for (unsigned i = 0; i < DELETED; i++)
        assert_true(segments_remove(&fixture, i));
    unsigned keys = FIRST;
    do {
        segments_put(&fixture, keys++, 1, BYTES);
    } while (segments_of_key(&fixture, keys - 1) == number ||
             segments_of_key(&fixture, keys - 1) == segments_of_key(&fixture, FIRST + SURVIVORS));
    const uint32_t victim = segments_of_key(&fixture, FIRST + SURVIVORS);
    segments_put_range(&fixture, FIRST + SURVIVORS + 8, keys, 2, BYTES);
    segments_put_range(&fixture, OTHERS, OTHERS + 12 * PER_SEGMENT, 1, BYTES);
    for (unsigned i = OTHERS; i < OTHERS + 12 * PER_SEGMENT; i += 2)
        segments_put(&fixture, i, 2, BYTES);
    store_quiet();
    assert_true(segments_at(&fixture, victim)->run != 0);
    char path[64];
    store_segment_path(path, victim);
    sim_file_flip(path, (uint64_t)(segments_at(&fixture, victim)->end - KVS_BLOCK_BYTES + 500) * 8);
    store_compact(&fixture, 105);
    store_quiet();
    assert_int_equal(segment_state(segments_at(&fixture, victim)), SEGMENT_SEALED);
    const uint32_t copy = segments_of_key(&fixture, FIRST + SURVIVORS);
    assert_int_not_equal(copy, victim);

    /* Until one run covers both. */
    for (unsigned i = OTHERS + 12 * PER_SEGMENT; segments_at(&fixture, copy)->run == 0 ||
                                                 segments_at(&fixture, copy)->run != segments_at(&fixture, victim)->run;
         i++) {
        assert_true(i < SEGMENTS_KEYS_MAX);
        segments_put(&fixture, i, 1, BYTES);
    }
    store_quiet();
    checkpoint_check(&fixture, SEGMENTS_KEYS_MAX);
    const struct held_run *held = checkpoint_find(checkpoint_of(&fixture), segments_at(&fixture, copy)->run);
    struct disk_entries entries = {0};
    disk_read_run(fixture.main_ring, held->run, &entries);
    unsigned deletes = 0;
    for (size_t i = 0; i < entries.count; i++) {
        if (!run_entry_is_delete(&entries.at[i]))
            continue;
        const uint32_t at =
            address_segment(run_entry_address(&entries.at[i]), segments_store(&fixture)->segments.shift);
        assert_int_not_equal(at, victim);
        deletes += at == copy;
    }
    assert_int_equal(deletes, DELETED);
    free(entries.at);
    store_crash(&fixture, SIM_DROP_ALL);
    sim_destroy();
}

/* ---- the stop -------------------------------------------------------------------------------------------------- */

/* Compaction has given them up, and the manifest has not heard of it: the next start finds them, too. */
static uint64_t retired_bytes(const struct store_fixture *fixture)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < atomic_load(&segments_store(fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        bytes += segment != NULL && segment_state(segment) == SEGMENT_RETIRED ? segment->end - KVS_BLOCK_BYTES : 0;
    }
    return bytes;
}

/* Returns retired_bytes in the end. */
static uint64_t stop(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < fixture->shard_count; i++) {
        engine_shard_stop(fixture->nodes[i].shard);
        engine_turn(fixture->nodes[i].shard);
    }
    if (fixture->compactor != NULL)
        compact_stop(fixture->compactor);
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
    while (fixture->compactor != NULL && !compact_stopped(fixture->compactor))
        assert_true(sim_step());
    engine_background_stop(fixture->background);
    sim_ring_body(fixture->background_ring, store_turn_background, fixture);
    for (unsigned steps = 0; !store_all_stopped(fixture); steps++) {
        assert_true(steps < 1000000);
        bool logs_stopped = true;
        for (unsigned i = 0; i < fixture->shard_count; i++)
            logs_stopped = logs_stopped && engine_shard_stopped(fixture->nodes[i].shard);
        assert_true(checkpoint_of(fixture)->stop < STOP_COVER || logs_stopped);
        sim_step();
    }
    expect_rest(fixture);
    const uint64_t retired = retired_bytes(fixture);
    store_stop(fixture);
    return retired;
}

static void relaxed_put(struct store_fixture *fixture, unsigned i, unsigned version, size_t bytes)
{
    char key[32];
    segments_key(key, i);
    struct store_waiting waiting;
    struct engine_request request =
        store_request(fixture, ENGINE_PUT, slice_text(key), segments_value(i, version, bytes));
    request.relaxed = true;
    store_begin(fixture, &waiting, &request);
    if (!waiting.done)
        store_finish(&waiting);
    free(waiting.value);
    if (i % 64 == 0)
        engine_turn(fixture->nodes[store_owner(fixture, &request)].shard);
}

static void some_work(struct store_fixture *fixture, unsigned keys, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        const unsigned i = (unsigned)sim_random(keys);
        if (sim_random(5) == 0)
            (void)segments_remove(fixture, i);
        else
            segments_put(fixture, i, round, sim_random(2 * BYTES));
    }
}

/* A start need not read a single record. */
static void test_checkpoint__stop_covers_everything(void **state)
{
    (void)state;
    enum { KEYS = 400 };
    for (uint64_t seed = 1; seed <= 24; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct superblock superblock;
        static struct disk disk;
        for (unsigned boot = 0; boot < 4; boot++) {
            struct engine_options options = store_options(1 + (unsigned)sim_random(4));
            sim_odds(SIM_FAULT_LATE, seed % 2 == 0 ? 100000 : 0);
            store_boot(&fixture, &options);
            if (seed % 3 == 0)
                store_compact(&fixture, 150);
            some_work(&fixture, KEYS, (unsigned)sim_random(boot % 2 == 0 ? 400 : 20));
            superblock = disk_superblock(&fixture);
            const uint64_t retired = stop(&fixture);
            sim_odds_none();
            disk_open(&disk, &superblock);
            assert_true(disk.run_count > 0);
            assert_int_equal(disk.unfinished, 0);
            if (disk.scanned > retired)
                fail_msg("seed %u, boot %u: %u bytes are not covered", (unsigned)seed, boot, (unsigned)disk.scanned);
            disk_close(&disk);
        }
        sim_destroy();
    }
}

/* Several runs, when the entries of all do not fit into the memory that a stop may take. */
static void test_checkpoint__stop_keeps_to_its_memory(void **state)
{
    (void)state;
    enum { RECORDS = 28000 };
    sim_create(11);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < RECORDS; i++)
        relaxed_put(&fixture, i, 1, 1);
    const uint64_t made = checkpoint_figures(&fixture).made;
    struct superblock superblock = disk_superblock(&fixture);
    for (unsigned i = 0; i < fixture.shard_count; i++)
        engine_shard_stop(fixture.nodes[i].shard);
    engine_background_stop(fixture.background);
    engine_turn(fixture.nodes[0].shard);
    sim_ring_body(fixture.background_ring, store_turn_background, &fixture);
    while (!store_all_stopped(&fixture)) {
        sim_step();
        const struct cover *cover = &checkpoint_of(&fixture)->cover;
        assert_true(cover->collector.capacity * sizeof(struct run_entry) <=
                        checkpoint_uncovered_max(segments_store(&fixture)) / 2 + sizeof(struct run_entry) ||
                    cover->item_count == 1);
    }
    assert_true(checkpoint_figures(&fixture).made >= made + 2);
    store_stop(&fixture);
    static struct disk disk;
    disk_open(&disk, &superblock);
    assert_int_equal(disk.scanned, 0);
    assert_int_equal(disk.found.count, RECORDS);
    disk_close(&disk);
    sim_destroy();
}

/* A log that has failed leaves the end of its segment to the next start. */
static void test_checkpoint__stop_leaves_out_what_a_failed_log_has_written(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(2);
        store_boot(&fixture, &options);
        some_work(&fixture, 300, 500);
        store_quiet();
        sim_fail(RING_KIND_WRITE, 1, 5);
        (void)segments_try_put(&fixture, 1000, 1, BYTES);
        sim_fail_none();
        assert_true(engine_failed(fixture.nodes[0].shard) != engine_failed(fixture.nodes[1].shard));
        const unsigned failed = engine_failed(fixture.nodes[0].shard) ? 0 : 1;
        const struct store *store = segments_store(&fixture);
        const uint32_t left_out = store->shards[failed]->log.open->number;
        const uint32_t covered = store->shards[!failed]->log.open->number;
        struct superblock superblock = disk_superblock(&fixture);
        (void)stop(&fixture);
        static struct disk disk;
        disk_open(&disk, &superblock);
        assert_int_equal(disk.segments[left_out].run, -1);
        assert_true(disk.segments[covered].run >= 0);
        disk_close(&disk);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__uncovered_bytes_follow_the_budget),
        cmocka_unit_test(test_checkpoint__sealed_segments_are_covered_when_there_are_many),
        cmocka_unit_test(test_checkpoint__runs_hold_the_newest_of_every_key),
        cmocka_unit_test(test_checkpoint__memory_is_that_of_one_segment),
        cmocka_unit_test(test_checkpoint__only_what_the_manifest_has_as_sealed_is_covered),
        cmocka_unit_test(test_checkpoint__runs_of_like_size_become_one),
        cmocka_unit_test(test_checkpoint__what_is_gone_leaves_the_runs),
        cmocka_unit_test(test_checkpoint__run_that_is_mostly_gone_is_written_anew),
        cmocka_unit_test(test_checkpoint__segments_come_and_go_while_runs_are_made),
        cmocka_unit_test(test_checkpoint__segment_that_is_read_keeps_its_file),
        cmocka_unit_test(test_checkpoint__run_is_not_taken_for_that_of_another_life),
        cmocka_unit_test(test_checkpoint__of_two_copies_the_one_that_stays_is_listed),
        cmocka_unit_test(test_checkpoint__stop_covers_everything),
        cmocka_unit_test(test_checkpoint__stop_keeps_to_its_memory),
        cmocka_unit_test(test_checkpoint__stop_leaves_out_what_a_failed_log_has_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
