/*
 * test_keeper.c - births and deaths of segments: what the manifest is told and when, files that are used again, the
 * limit on their number, files that nobody needs, a manifest that fails, images of what is being written.
 */
#include "segments_fixture.h"

#include <errno.h>

enum {
    SEGMENT_BYTES = 256 * 1024,
    LARGE_BYTES = 48 * 1024, /* four records, each in a batch of its own, fill a segment */
    PER_SEGMENT = 4,
};

static bool made_by_a_maker(const struct keeper *keeper, const struct segment *segment)
{
    bool made = keeper->relocation_maker.segment == segment;
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        made = made || keeper->makers[i].segment == segment;
    return made;
}

/* The entry says what the segment is, state by state. */
static void check_entries(const struct store_fixture *fixture)
{
    const struct keeper *keeper = segments_keeper(fixture);
    for (uint32_t i = 0; i < atomic_load(&segments_store(fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        const struct manifest_entry *entry = manifest_find(keeper->manifest, i);
        if (segment == NULL) {
            assert_true(entry == NULL || entry->state == MANIFEST_FREE); /* the latter if its removal has failed */
            continue;
        }
        if (entry == NULL && made_by_a_maker(keeper, segment))
            continue; /* its entry comes with the next attempt */
        assert_non_null(entry);
        struct manifest_entry sealed = keeper_sealed_entry(segment);
        switch (segment_state(segment)) {
        case SEGMENT_FREE:
            assert_int_equal(entry->state, MANIFEST_FREE);
            break;
        case SEGMENT_SPARE:
        case SEGMENT_OPEN:
            assert_int_equal(entry->state, MANIFEST_LIVE);
            assert_int_equal(entry->kind, segment->kind);
            assert_int_equal(entry->uid, segment->uid);
            break;
        case SEGMENT_SEALED:
            assert_memory_equal(entry, &sealed, sizeof sealed);
            break;
        case SEGMENT_RETIRED:
            fail_msg("segment %u is on its way out for ever", i);
        }
    }
}

/* Gives up the sealed segments that nothing points into, but the newest of each log. Returns how many. */
static unsigned retire_dead(struct store_fixture *fixture)
{
    static struct relocation_figure figures[4096];
    struct relocation_space space;
    size_t count = relocation_census(fixture->background, figures, ARRAY_COUNT(figures), &space);
    unsigned retired = 0;
    for (size_t i = 0; i < count; i++) {
        if (!figures[i].victim || figures[i].dead_puts != figures[i].puts)
            continue;
        relocation_retire(fixture->background, segments_at(fixture, figures[i].number));
        retired++;
    }
    engine_background_turn(fixture->background);
    return retired;
}

/* ---- births and seals ------------------------------------------------------------------------------------------ */

/* Some steps take long, that of the manifest among them. */
static void test_keeper__a_segment_that_is_written_in_is_listed_durably(void **state)
{
    (void)state;
    enum { SEEDS = 60, KEYS = 3 * PER_SEGMENT };
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1 + (unsigned)(seed % 3));
        sim_odds(SIM_FAULT_LATE, 250000);
        store_boot(&fixture, &options);
        unsigned keys = (unsigned)sim_random(KEYS);
        segments_put_range(&fixture, 0, keys, 1, LARGE_BYTES);
        segments_put(&fixture, keys, 1, LARGE_BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        sim_odds_none();
        store_boot(&fixture, &options);
        segments_expect_range(&fixture, 0, keys + 1, 1, LARGE_BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        sim_destroy();
    }
}

static void test_keeper__sealed_segments_are_entered_with_what_they_hold(void **state)
{
    (void)state;
    enum { KEYS = 60, DELETES = 20 };
    sim_create(2);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, KEYS, 1, LARGE_BYTES);
    for (unsigned i = 0; i < DELETES; i++)
        assert_true(segments_remove(&fixture, i));
    segments_put_range(&fixture, KEYS, 2 * KEYS, 1, LARGE_BYTES);
    store_quiet();
    assert_true(segments_in_state(&fixture, SEGMENT_SEALED) >= 2 * KEYS / PER_SEGMENT - 4);
    check_entries(&fixture);
    segments_check_counts(&fixture, 2 * KEYS);
    unsigned puts = 0, deletes = 0;
    uint64_t lsn_last = 0;
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(&fixture, i);
        puts += segment->puts;
        deletes += segment->deletes;
        lsn_last = segment->last_lsn > lsn_last ? segment->last_lsn : lsn_last;
    }
    assert_int_equal(puts, 2 * KEYS);
    assert_int_equal(deletes, DELETES);
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        const struct manifest_entry *entry = manifest_find(segments_keeper(&fixture)->manifest, i);
        if (entry->state != MANIFEST_SEALED)
            continue;
        assert_true(entry->end <= SEGMENT_BYTES && entry->end > SEGMENT_BYTES / 2);
        assert_true(entry->min_lsn <= entry->last_lsn && entry->last_lsn <= lsn_last);
        assert_true(entry->record_bytes < entry->end);
    }

    /* A start reads the same from the files themselves. */
    static struct manifest_entry before[256];
    uint32_t end = atomic_load(&segments_store(&fixture)->segments.next);
    assert_true(end <= ARRAY_COUNT(before));
    for (uint32_t i = 0; i < end; i++)
        before[i] = *manifest_find(segments_keeper(&fixture)->manifest, i);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    unsigned adopted = 0;
    for (uint32_t i = 0; i < end; i++) {
        const struct manifest_entry *entry = manifest_find(segments_keeper(&fixture)->manifest, i);
        if (before[i].state != MANIFEST_SEALED)
            continue;
        assert_int_equal(entry->uid, before[i].uid);
        assert_int_equal(entry->end, before[i].end);
        if (entry->state == MANIFEST_SEALED)
            assert_memory_equal(entry, &before[i], sizeof before[i]);
        adopted += entry->state == MANIFEST_LIVE;
    }
    assert_true(adopted <= 2);
    store_quiet();
    check_entries(&fixture);
    segments_check_counts(&fixture, 2 * KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- the same file again --------------------------------------------------------------------------------------- */

static void test_keeper__files_are_used_again_under_another_uid(void **state)
{
    (void)state;
    enum { KEYS = 20, ROUNDS = 12 };
    sim_create(3);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    uint64_t uids[64] = {0};
    unsigned reused = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        segments_put_range(&fixture, 0, KEYS, round, LARGE_BYTES);
        store_quiet();
        retire_dead(&fixture);
        store_quiet();
        check_entries(&fixture);
        uint32_t end = atomic_load(&segments_store(&fixture)->segments.next);
        assert_true(end <= ARRAY_COUNT(uids));
        for (uint32_t i = 0; i < end; i++) {
            const struct segment *segment = segments_at(&fixture, i);
            if (segment == NULL || segment_state(segment) == SEGMENT_FREE || segment->uid == uids[i])
                continue;
            assert_true(segment->uid > uids[i]);
            reused += uids[i] != 0;
            uids[i] = segment->uid;
            struct segment_header header;
            char path[64];
            store_segment_path(path, i);
            sim_file_read(path, 0, &header, sizeof header);
            assert_int_equal(header.uid, segment->uid);
        }
    }
    assert_true(reused > ROUNDS);
    /* Twice what is live, and what is kept at hand. */
    assert_true(atomic_load(&segments_store(&fixture)->segments.count) < 20);
    segments_expect_range(&fixture, 0, KEYS, ROUNDS, LARGE_BYTES);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, KEYS, ROUNDS, LARGE_BYTES);
    assert_int_equal(store_keys(&fixture), KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- the limit ------------------------------------------------------------------------------------------------- */

/* As compaction asks: until there is one, or a reason why not. */
static struct segment *wish_output(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < 1000; i++) {
        struct segment *output = relocation_output(fixture->background);
        if (output != NULL)
            return output;
        if (relocation_output_error(fixture->background) != KVS_ERR_OK)
            break;
        engine_background_turn(fixture->background);
        sim_step();
    }
    assert_int_equal(relocation_output_error(fixture->background), KVS_ERR_NO_SPACE);
    relocation_output_cancel(fixture->background);
    engine_background_turn(fixture->background);
    return NULL;
}

static void test_keeper__number_of_files_has_a_limit(void **state)
{
    (void)state;
    enum { FILES = 16 };
    sim_create(4);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    options.disk_bytes_max = (uint64_t)FILES * SEGMENT_BYTES;
    store_boot(&fixture, &options);
    assert_string_equal(engine_refusal_text(fixture.nodes[0].shard), "");
    unsigned keys = 0;
    enum kvs_err err;
    while ((err = segments_try_put(&fixture, keys, 1, LARGE_BYTES)) == KVS_ERR_OK)
        assert_true(++keys < FILES * PER_SEGMENT);
    assert_int_equal(err, KVS_ERR_NO_SPACE);
    assert_string_equal(engine_refusal_text(fixture.nodes[0].shard), kvs_err_text(KVS_ERR_NO_SPACE));
    struct keeper *keeper = segments_keeper(&fixture);
    assert_int_equal(keeper_deletes_reserve(keeper), 4); /* for one log */
    unsigned reserved = KEEPER_RESERVE_FILES + 4;
    assert_int_equal(keys, (FILES - reserved) * PER_SEGMENT);
    store_quiet();
    assert_int_equal(atomic_load(&segments_store(&fixture)->segments.count), FILES);

    /* What is left is for deletes and for compaction, which gives back what it takes. */
    assert_int_equal(keeper->free_count, reserved);
    struct relocation_space space;
    relocation_census(fixture.background, NULL, 0, &space);
    assert_int_equal(space.files_reserved, reserved);
    assert_int_equal(space.files_deletes, 4);
    assert_int_equal(space.files_free, 0);
    assert_int_equal(space.files_addable, 0);
    assert_int_equal(space.files_max, FILES);
    assert_true(relocation_short(fixture.background));
    for (unsigned i = 0; i < reserved; i++) {
        struct segment *output = wish_output(&fixture);
        assert_non_null(output);
        assert_int_equal(output->kind, SEGMENT_RELOCATED);
        assert_int_equal(segment_state(output), SEGMENT_OPEN);
    }
    assert_null(wish_output(&fixture));

    /* Reads and deletes go on; and when there is a segment again, writes. */
    segments_expect_range(&fixture, 0, keys, 1, LARGE_BYTES);
    for (unsigned i = 0; i < 2 * PER_SEGMENT; i++)
        assert_true(segments_remove(&fixture, i));
    assert_int_equal(segments_try_put(&fixture, keys, 1, LARGE_BYTES), KVS_ERR_NO_SPACE);
    store_quiet();
    assert_true(retire_dead(&fixture) >= 2);
    store_quiet();
    /* A new wish is not answered with the reason why the last one was refused. */
    assert_int_equal(keeper->free_count, 2);
    assert_non_null(wish_output(&fixture));
    assert_int_equal(segments_try_put(&fixture, keys, 1, LARGE_BYTES), KVS_ERR_NO_SPACE);
    uint32_t more = keeper_reserve_lacks(keeper) + 2; /* to fill up the reserve, one for the log, one more */
    keeper->files_max += more;
    engine_background_turn(fixture.background);
    store_quiet();
    assert_string_equal(engine_refusal_text(fixture.nodes[0].shard), "");
    assert_int_equal(segments_try_put(&fixture, keys, 1, LARGE_BYTES), KVS_ERR_OK);
    assert_in_range(atomic_load(&segments_store(&fixture)->segments.count), FILES + more - 1, FILES + more);
    segments_expect_range(&fixture, 2 * PER_SEGMENT, keys + 1, 1, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- files that nobody needs ----------------------------------------------------------------------------------- */

enum { TRIM_KEYS = 200, ENOUGH = 2 * (1 + KEEPER_RESERVE_FILES) };

static void leave_many_free(struct store_fixture *fixture)
{
    segments_put_range(fixture, 0, TRIM_KEYS, 1, LARGE_BYTES);
    store_quiet();
    segments_put_range(fixture, 0, TRIM_KEYS, 2, LARGE_BYTES);
    store_quiet();
    assert_true(retire_dead(fixture) >= TRIM_KEYS / PER_SEGMENT - 2);
}

static void test_keeper__surplus_files_are_removed(void **state)
{
    (void)state;
    sim_create(5);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    leave_many_free(&fixture);
    store_quiet();
    uint32_t count = atomic_load(&segments_store(&fixture)->segments.count);
    assert_in_range(segments_keeper(&fixture)->free_count, 1, ENOUGH + count / 8);
    assert_int_equal(segments_in_state(&fixture, SEGMENT_FREE), segments_keeper(&fixture)->free_count);
    check_entries(&fixture);
    unsigned files = 0;
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        char path[64];
        store_segment_path(path, i);
        assert_int_equal(sim_file_exists(path), segments_at(&fixture, i) != NULL);
        assert_int_equal(sim_file_exists(path), manifest_find(segments_keeper(&fixture)->manifest, i) != NULL);
        files += sim_file_exists(path);
    }
    assert_int_equal(files, count);
    segments_expect_range(&fixture, 0, TRIM_KEYS, 2, LARGE_BYTES);
    store_crash(&fixture, SIM_RANDOM);
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, TRIM_KEYS, 2, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

static bool trim_unlinks(void *context)
{
    return segments_keeper(context)->trim == TRIM_UNLINK;
}

/* The name is gone, but nobody knows whether it may come back: the file must not be written in again. */
static void test_keeper__a_file_that_has_lost_its_name_is_not_used_again(void **state)
{
    (void)state;
    sim_create(6);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    leave_many_free(&fixture);
    for (unsigned failures = 0; failures < 3; failures++) {
        assert_true(sim_run_until(trim_unlinks, &fixture, 100000));
        const struct segment *trimmed = segments_keeper(&fixture)->trimmed;
        sim_fail(RING_KIND_SYNC, 1, EIO);
        while (segments_keeper(&fixture)->trimmed == trimmed)
            assert_true(sim_step());
        sim_fail_none();
    }
    store_quiet();
    segments_put_range(&fixture, 0, TRIM_KEYS, 3, LARGE_BYTES);
    segments_put_range(&fixture, 0, TRIM_KEYS, 4, LARGE_BYTES);
    store_quiet();
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        char path[64];
        store_segment_path(path, i);
        const struct segment *segment = segments_at(&fixture, i);
        if (segment != NULL && segment_state(segment) != SEGMENT_FREE && !sim_file_exists(path))
            fail_msg("%s is in use and has no name", path);
    }
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, TRIM_KEYS, 4, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* A file that cannot be removed stays, and is not tried for ever without a pause. */
static void test_keeper__a_file_that_cannot_be_removed_stays_free(void **state)
{
    (void)state;
    sim_create(7);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    leave_many_free(&fixture);
    uint64_t before = sim_issued(RING_KIND_UNLINK);
    sim_odds(SIM_FAULT_NAME_ERROR, 1000000);
    segments_run_ms(&fixture, 2000);
    assert_true(sim_issued(RING_KIND_UNLINK) - before < 100);
    sim_odds_none();
    segments_run_ms(&fixture, 2000); /* what could not be made meanwhile is tried again */
    segments_put_range(&fixture, 0, TRIM_KEYS, 3, LARGE_BYTES);
    store_quiet();
    check_entries(&fixture);
    segments_expect_range(&fixture, 0, TRIM_KEYS, 3, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- a manifest that fails ------------------------------------------------------------------------------------- */

static bool manifest_has_failed(void *context)
{
    return manifest_failed(segments_keeper(context)->manifest);
}

static void test_keeper__when_the_manifest_fails_writes_are_refused_in_the_end_and_reads_go_on(void **state)
{
    (void)state;
    enum { KEYS = 30 };
    sim_create(8);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, KEYS, 1, LARGE_BYTES);
    segments_put_range(&fixture, 0, KEYS, 2, LARGE_BYTES);
    store_quiet();
    struct segment *retired = segments_at(&fixture, 0);
    assert_int_equal(atomic_load(&retired->dead_puts), retired->puts);
    relocation_retire(fixture.background, retired);
    sim_fail(RING_KIND_WRITE, 1, EIO); /* nobody else writes */
    engine_background_turn(fixture.background);
    assert_true(sim_run_until(manifest_has_failed, &fixture, 10000));
    sim_fail_none();
    assert_string_not_equal(manifest_failure_text(segments_keeper(&fixture)->manifest), "");

    /* There is still the open segment, and the spare. */
    unsigned written = 0;
    enum kvs_err err;
    while ((err = segments_try_put(&fixture, written, 3, LARGE_BYTES)) == KVS_ERR_OK)
        assert_true(++written <= 2 * PER_SEGMENT);
    assert_true(written > 0);
    assert_true(err == KVS_ERR_NO_SPACE || err == KVS_ERR_FAILED);
    assert_string_equal(engine_refusal_text(fixture.nodes[0].shard), kvs_err_text(KVS_ERR_FAILED));
    segments_run_ms(&fixture, 5000);
    assert_int_equal(segments_try_put(&fixture, written, 3, LARGE_BYTES), err);
    assert_int_equal(segment_state(retired), SEGMENT_RETIRED);
    assert_false(engine_failed(fixture.nodes[0].shard));
    segments_expect_range(&fixture, 0, written, 3, LARGE_BYTES);
    segments_expect_range(&fixture, written, KEYS, 2, LARGE_BYTES);
    assert_true(segments_remove(&fixture, KEYS - 1)); /* room for deletes is held back in the segment itself */
    store_stop(&fixture);
    assert_false(sim_file_exists(STORE_SNAPSHOT)); /* it would list what the manifest does not */

    store_boot(&fixture, &options);
    segments_expect_range(&fixture, 0, written, 3, LARGE_BYTES);
    segments_expect_range(&fixture, written, KEYS - 1, 2, LARGE_BYTES);
    segments_expect_none(&fixture, KEYS - 1);
    segments_put(&fixture, KEYS, 1, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- images ---------------------------------------------------------------------------------------------------- */

static void check_images(const struct store_fixture *fixture)
{
    const struct store *store = segments_store(fixture);
    for (uint32_t i = 0; i < atomic_load(&store->segments.next); i++) {
        const struct segment *segment = segments_at(fixture, i);
        if (segment == NULL || segment->kind != SEGMENT_LOG)
            continue;
        enum segment_state now = segment_state(segment);
        if ((now == SEGMENT_SPARE || now == SEGMENT_OPEN) && segment_image(segment) == NULL)
            fail_msg("segment %u is being written in and has lost its image", i);
    }
    const struct image_pool *images = &store->keeper.images;
    assert_true(atomic_load(&images->count) <= images->count_max);
}

static void test_keeper__image_stays_until_its_segment_is_sealed(void **state)
{
    (void)state;
    enum { KEYS = 120, TOGETHER = 12 };
    sim_create(10);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(2);
    store_boot(&fixture, &options);
    unsigned evicted = 0;
    for (unsigned first = 0; first < KEYS; first += TOGETHER) {
        static struct store_waiting puts[TOGETHER];
        static char keys[TOGETHER][32];
        static uint8_t values[TOGETHER][LARGE_BYTES];
        for (unsigned i = 0; i < TOGETHER; i++) {
            segments_key(keys[i], first + i);
            memcpy(values[i], segments_value(first + i, 1, LARGE_BYTES).data, LARGE_BYTES);
            struct engine_request request =
                store_request(&fixture, ENGINE_PUT, slice_text(keys[i]), slice_make(values[i], LARGE_BYTES));
            store_begin(&fixture, &puts[i], &request);
            engine_turn(puts[i].shard);
        }
        for (unsigned i = 0; i < TOGETHER; i++) {
            while (!store_waiting_is_done(&puts[i])) {
                assert_true(sim_step());
                check_images(&fixture);
            }
            store_finish(&puts[i]);
            assert_int_equal(puts[i].op.result.error, KVS_ERR_OK);
            free(puts[i].value);
        }
    }
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++)
        evicted += segments_at(&fixture, i) != NULL && segment_image(segments_at(&fixture, i)) == NULL;
    assert_true(evicted > 4);
    segments_expect_range(&fixture, 0, KEYS, 1, LARGE_BYTES);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeper__a_segment_that_is_written_in_is_listed_durably),
        cmocka_unit_test(test_keeper__sealed_segments_are_entered_with_what_they_hold),
        cmocka_unit_test(test_keeper__files_are_used_again_under_another_uid),
        cmocka_unit_test(test_keeper__number_of_files_has_a_limit),
        cmocka_unit_test(test_keeper__surplus_files_are_removed),
        cmocka_unit_test(test_keeper__a_file_that_has_lost_its_name_is_not_used_again),
        cmocka_unit_test(test_keeper__a_file_that_cannot_be_removed_stays_free),
        cmocka_unit_test(test_keeper__when_the_manifest_fails_writes_are_refused_in_the_end_and_reads_go_on),
        cmocka_unit_test(test_keeper__image_stays_until_its_segment_is_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
