/*
 * test_manifest.c - entries, changes and their durability, faults, full disks. Damage is test_manifest_damage.c's,
 * crashes are test_manifest_crash.c's.
 */
#include "manifest_fixture.h"

#include <errno.h>

static void test_manifest__there_is_none(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    assert_int_equal(fixture_try_open(&fixture), KVS_ERR_NOT_FOUND);
    fixture_deinit(&fixture);
}

static void test_manifest__empty_one_is_read_back(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    assert_int_equal(manifest_bytes(fixture.manifest), 65 * KVS_BLOCK_BYTES);
    assert_int_equal(manifest_sequence(fixture.manifest), 1);
    fixture_close(&fixture);
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(sim_file_size(MANIFEST_PATH), 65 * KVS_BLOCK_BYTES);
    fixture_boot(&fixture);
    assert_null(manifest_find(fixture.manifest, 0));
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__every_field_is_read_back(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    fixture_change_durably(&fixture, 3, MANIFEST_LIVE, 1);
    fixture_change_durably(&fixture, 0, MANIFEST_LIVE, 2);
    fixture_change_durably(&fixture, 3, MANIFEST_SEALED, 3);
    fixture_change_durably(&fixture, 500, MANIFEST_SEALED, 4);
    fixture_change_durably(&fixture, 501, MANIFEST_FREE, 4);
    assert_int_equal(manifest_sequence(fixture.manifest), 6);
    fixture_crash(&fixture, SIM_DROP_ALL);
    for (unsigned boot = 0; boot < 3; boot++) {
        fixture_boot(&fixture);
        struct manifest_entry wanted = fixture_entry(3, MANIFEST_SEALED, 3);
        assert_memory_equal(manifest_find(fixture.manifest, 3), &wanted, sizeof wanted);
        assert_int_equal(manifest_find(fixture.manifest, 0)->state, MANIFEST_LIVE);
        assert_int_equal(manifest_find(fixture.manifest, 501)->state, MANIFEST_FREE);
        assert_null(manifest_find(fixture.manifest, 1));
        assert_null(manifest_find(fixture.manifest, UINT32_MAX));
        fixture_change_durably(&fixture, 7 + boot, MANIFEST_LIVE, 9);
        fixture_close(&fixture);
    }
    fixture_deinit(&fixture);
}

static void test_manifest__removed_entry_stays_away(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    fixture_change_durably(&fixture, 4, MANIFEST_SEALED, 1);
    fixture_change_durably(&fixture, 5, MANIFEST_LIVE, 1);
    fixture_change_durably(&fixture, 4, MANIFEST_GONE, 2);
    fixture_change_durably(&fixture, 5999, MANIFEST_GONE, 2); /* never was there */
    assert_null(manifest_find(fixture.manifest, 4));
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    assert_null(manifest_find(fixture.manifest, 4));
    assert_non_null(manifest_find(fixture.manifest, 5));
    fixture_change_durably(&fixture, 4, MANIFEST_LIVE, 3);
    fixture_change_durably(&fixture, 5, MANIFEST_GONE, 3);
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    assert_int_equal(manifest_find(fixture.manifest, 4)->uid, 3ull << 32 | 4);
    assert_null(manifest_find(fixture.manifest, 5));
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__entries_set_at_start_up_are_written_together(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_open_ring(&fixture);
    assert_int_equal(manifest_new(&fixture.manifest, &fixture.options), KVS_ERR_OK);
    for (uint32_t i = 0; i < 1000; i++) {
        struct manifest_entry entry = fixture_entry(i, MANIFEST_SEALED, i);
        assert_int_equal(manifest_set(fixture.manifest, &entry), KVS_ERR_OK);
        fixture_note(&fixture, &entry);
    }
    struct manifest_entry gone = fixture_entry(20, MANIFEST_GONE, 0);
    assert_int_equal(manifest_set(fixture.manifest, &gone), KVS_ERR_OK);
    fixture_note(&fixture, &gone);
    assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_OK);
    fixture.durable = fixture.count;
    fixture_crash(&fixture, SIM_DROP_ALL);

    /* And over an older file: its changes are in the new one, whose sequences are higher than all of it. */
    fixture_boot(&fixture);
    fixture_change_durably(&fixture, 20, MANIFEST_LIVE, 5);
    uint64_t sequence = manifest_sequence(fixture.manifest);
    fixture_crash(&fixture, SIM_DROP_ALL);
    assert_int_equal(fixture_try_open(&fixture), KVS_ERR_OK);
    struct manifest_entry entry = fixture_entry(21, MANIFEST_FREE, 8);
    assert_int_equal(manifest_set(fixture.manifest, &entry), KVS_ERR_OK);
    fixture_note(&fixture, &entry);
    assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_OK);
    assert_true(manifest_sequence(fixture.manifest) > sequence);
    fixture.durable = fixture.count;
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

static bool wrote(void *context)
{
    const struct manifest_fixture *fixture = context;
    return fixture->manifest->writing != WRITING_NOTHING;
}

static void test_manifest__change_is_durable_only_when_its_write_has_completed(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 2; way++) {
        struct manifest_fixture fixture;
        fixture_init(&fixture, 3);
        fixture.options.sync_after_write = way == 1;
        fixture_make(&fixture);
        uint64_t ticket;
        const struct manifest_entry entry = fixture_entry(1, MANIFEST_LIVE, 1);
        assert_int_equal(manifest_change(fixture.manifest, &entry, &ticket), KVS_ERR_OK);
        fixture_note(&fixture, &entry);
        assert_non_null(manifest_find(fixture.manifest, 1));
        assert_false(manifest_idle(fixture.manifest));
        assert_int_equal(manifest_timeout_ns(fixture.manifest), 0);
        assert_true(manifest_durable(fixture.manifest, ticket - 1));
        uint64_t sequence = manifest_sequence(fixture.manifest);
        manifest_turn(fixture.manifest);
        assert_int_equal(manifest_timeout_ns(fixture.manifest), -1);
        while (wrote(&fixture)) {
            assert_false(manifest_durable(fixture.manifest, ticket));
            assert_int_equal(manifest_sequence(fixture.manifest), sequence);
            assert_true(sim_step());
        }
        assert_true(manifest_durable(fixture.manifest, ticket));
        assert_int_equal(manifest_sequence(fixture.manifest), sequence + 1);
        assert_true(manifest_idle(fixture.manifest));
        assert_int_equal(sim_pending(), 0);
        fixture.durable = fixture.count;
        fixture_crash(&fixture, SIM_DROP_ALL);
        fixture_boot(&fixture);
        assert_non_null(manifest_find(fixture.manifest, 1));
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
}

/* What is queued while a block is in flight goes into the next one, as much as fits. */
static void test_manifest__queued_changes_share_a_block(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    fixture_change(&fixture, 0, MANIFEST_LIVE, 1);
    manifest_turn(fixture.manifest);
    for (uint32_t i = 1; i <= MANIFEST_BLOCK_ENTRIES + 1; i++)
        fixture_change(&fixture, i, MANIFEST_LIVE, 1);
    uint64_t writes = sim_issued(RING_KIND_WRITE);
    fixture_settle(&fixture);
    assert_int_equal(sim_issued(RING_KIND_WRITE) - writes, 2);
    assert_int_equal(manifest_sequence(fixture.manifest), 4);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* Through many files, with the disk honest. */
static void test_manifest__thousands_of_entries_through_many_files(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 5);
    fixture_make(&fixture);
    for (uint32_t i = 0; i < FIXTURE_NUMBERS; i++)
        fixture_change(&fixture, i, MANIFEST_LIVE, i);
    fixture_settle(&fixture);
    uint64_t grown = manifest_bytes(fixture.manifest);
    assert_true(grown >= 2 * (FIXTURE_NUMBERS / MANIFEST_BLOCK_ENTRIES) * KVS_BLOCK_BYTES);
    for (unsigned turn = 0; turn < 300; turn++) {
        for (uint64_t i = sim_random(50); i > 0; i--)
            fixture_change(&fixture, (uint32_t)sim_random(FIXTURE_NUMBERS),
                           (enum manifest_state)(1 + sim_random(MANIFEST_GONE)), turn);
        fixture_settle(&fixture);
        if (turn % 60 == 59) {
            fixture_crash(&fixture, SIM_DROP_ALL);
            fixture_boot(&fixture);
        }
    }
    /* When all is gone the file becomes small again. */
    for (uint32_t i = 0; i < FIXTURE_NUMBERS; i++)
        fixture_change(&fixture, i, MANIFEST_GONE, 0);
    for (unsigned turn = 0; turn < 400; turn++)
        fixture_change_durably(&fixture, 1, MANIFEST_LIVE, turn);
    assert_int_equal(manifest_bytes(fixture.manifest), 65 * KVS_BLOCK_BYTES);
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* Makes changes until a new file is begun. */
static void use_room(struct manifest_fixture *fixture)
{
    uint32_t version = 0;
    while (fixture->manifest->rewrite.state == REWRITE_IDLE) {
        fixture_change(fixture, version % 100, MANIFEST_LIVE, version);
        version++;
        while (fixture->durable < fixture->count && fixture->manifest->rewrite.state == REWRITE_IDLE)
            fixture_step(fixture);
    }
}

static void test_manifest__changes_go_on_while_a_new_file_is_made(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 2);
    fixture_make(&fixture);
    use_room(&fixture);
    uint64_t sequence = 0;
    unsigned before_the_end = 0;
    while (fixture.manifest->rewrite.state != REWRITE_IDLE) {
        bool held = manifest_rewrite_holds(fixture.manifest);
        uint64_t durable = fixture.durable;
        if (fixture.count - fixture.durable < 10)
            fixture_change(&fixture, (uint32_t)sim_random(200), (enum manifest_state)(1 + sim_random(4)), 77);
        fixture_step(&fixture);
        before_the_end += fixture.durable > durable && !held;
        assert_true(manifest_sequence(fixture.manifest) >= sequence);
        sequence = manifest_sequence(fixture.manifest);
    }
    assert_true(before_the_end > 3);
    fixture_settle(&fixture);
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* So many changes during the making that they do not fit into the new file: it is made once more. */
static void test_manifest__new_file_that_cannot_catch_up_is_made_larger(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 2);
    fixture_make(&fixture);
    use_room(&fixture);
    while (fixture.manifest->rewrite.state != REWRITE_SYNC)
        fixture_step(&fixture);
    for (uint32_t i = 0; i < 50 * MANIFEST_BLOCK_ENTRIES; i++)
        fixture_change(&fixture, i % 70, MANIFEST_SEALED, i);
    fixture_settle(&fixture);
    assert_int_equal(manifest_bytes(fixture.manifest) / KVS_BLOCK_BYTES, 2 + 200);
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void expect_failed(struct manifest_fixture *fixture)
{
    uint64_t writes = sim_issued(RING_KIND_WRITE), durable = fixture->durable;
    assert_true(manifest_failed(fixture->manifest));
    assert_non_null(strstr(manifest_failure_text(fixture->manifest), MANIFEST_PATH));
    const struct manifest_entry entry = fixture_entry(4000, MANIFEST_LIVE, 1);
    assert_int_equal(fixture_try_change(fixture, &entry), KVS_ERR_FAILED);
    assert_null(manifest_find(fixture->manifest, 4000));
    sim_advance(5000000000);
    manifest_turn(fixture->manifest);
    assert_true(manifest_idle(fixture->manifest));
    assert_int_equal(manifest_timeout_ns(fixture->manifest), -1);
    assert_int_equal(sim_issued(RING_KIND_WRITE), writes);
    assert_int_equal(fixture->durable, durable);
}

static void test_manifest__failed_write_or_sync_is_never_repeated(void **state)
{
    (void)state;
    static const struct {
        bool direct, sync_after_write;
        enum ring_kind kind;
    } ways[] = {
        {true, false, RING_KIND_WRITE}, {true, true, RING_KIND_WRITE},  {true, true, RING_KIND_SYNC},
        {false, true, RING_KIND_SYNC},  {false, true, RING_KIND_WRITE},
    };
    for (unsigned i = 0; i < 40 * ARRAY_COUNT(ways); i++) {
        struct manifest_fixture fixture;
        unsigned way = i % ARRAY_COUNT(ways);
        fixture_init(&fixture, i);
        fixture.options.direct = ways[way].direct;
        fixture.options.sync_after_write = ways[way].sync_after_write;
        fixture_make(&fixture);
        fixture_change_durably(&fixture, 1, MANIFEST_LIVE, 1);
        fixture_change(&fixture, 2, MANIFEST_LIVE, 1);
        sim_fail(ways[way].kind, 1, i % 2 == 0 ? EIO : ENOSPC);
        manifest_turn(fixture.manifest);
        fixture_change(&fixture, 3, MANIFEST_LIVE, 1);
        fixture_settle(&fixture);
        assert_int_equal(fixture.durable, 1);
        expect_failed(&fixture);
        if (i % 3 != 0)
            fixture_crash(&fixture, i % 3 == 1 ? SIM_RANDOM : SIM_DROP_ALL);
        else
            fixture_close(&fixture); /* the process ends, and what was not synced is still on its way */
        fixture_boot(&fixture);
        fixture_crash(&fixture, SIM_DROP_ALL); /* what was read counts as durable */
        fixture_boot(&fixture);
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
}

/* Each step of making a new file fails once; only a directory that cannot be synced is the end. */
static void test_manifest__each_step_of_a_new_file_may_fail(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EMFILE, ECANCELED};
    unsigned failed = 0, tries = 0;
    for (unsigned i = 0; i < 60; i++) {
        struct manifest_fixture fixture;
        fixture_init(&fixture, i);
        fixture_make(&fixture);
        use_room(&fixture);
        static const enum ring_kind kinds[] = {RING_KIND_OPEN,   RING_KIND_ALLOCATE, RING_KIND_WRITE, RING_KIND_SYNC,
                                               RING_KIND_RENAME, RING_KIND_UNLINK,   RING_KIND_SYNC,  RING_KIND_SYNC};
        unsigned which = i % ARRAY_COUNT(kinds);
        if (which == 7) { /* there is something to catch up with, so it is the third */
            fixture_change(&fixture, 5, MANIFEST_LIVE, 5);
            while (fixture.manifest->rewrite.state < REWRITE_WRITE)
                fixture_step(&fixture);
            fixture_change(&fixture, 5, MANIFEST_GONE, 6);
        }
        if (kinds[which] == RING_KIND_WRITE) {
            while (fixture.manifest->rewrite.state < REWRITE_ALLOCATE)
                fixture_step(&fixture);
        }
        sim_fail(kinds[which], which < 6 ? 1 : which - 4, errors[i % ARRAY_COUNT(errors)]);
        fixture_settle(&fixture);
        sim_fail_none();
        bool of_directory = fixture.manifest->rewrite.failed_in == REWRITE_SYNC_DIR;
        assert_int_equal(manifest_failed(fixture.manifest), of_directory);
        failed += of_directory;
        if (!of_directory) {
            uint64_t bytes = fixture.manifest->file.first_sequence;
            tries += fixture.manifest->rewrite.error != KVS_ERR_OK;
            if (fixture.manifest->rewrite.error != KVS_ERR_OK) {
                assert_true(manifest_timeout_ns(fixture.manifest) > 0);
                sim_advance(1000000000);
                assert_int_equal(manifest_timeout_ns(fixture.manifest), 0);
                fixture_change(&fixture, 9, MANIFEST_LIVE, 5);
                fixture_settle(&fixture);
                assert_true(fixture.manifest->file.first_sequence > bytes);
            }
            fixture_change_durably(&fixture, 9, MANIFEST_LIVE, 6);
        } else {
            expect_failed(&fixture);
            assert_int_equal(fixture.name_syncs_failed, 1);
        }
        fixture_crash(&fixture, i % 2 == 0 ? SIM_RANDOM : SIM_DROP_ALL);
        fixture_boot(&fixture);
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
    assert_true(failed > 5 && tries > 30);
}

/* A rename of which nobody knows whether it happened. */
static void test_manifest__rename_of_unknown_outcome_is_the_end(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    use_room(&fixture);
    while (fixture.manifest->rewrite.state <= REWRITE_REMOVE)
        fixture_step(&fixture);
    fixture_change(&fixture, 5, MANIFEST_LIVE, 5);
    sim_fail(RING_KIND_RENAME, 1, EIO);
    sim_fail(RING_KIND_UNLINK, 1, EIO);
    while (fixture.manifest->rewrite.state != REWRITE_UNDO)
        fixture_step(&fixture);
    fixture_change(&fixture, 6, MANIFEST_LIVE, 5);
    manifest_turn(fixture.manifest);
    assert_int_equal(fixture.manifest->writing, WRITING_NOTHING);
    fixture_settle(&fixture);
    expect_failed(&fixture);
    fixture_crash(&fixture, SIM_RANDOM);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* The write of a change fails while a new file, nearly done, waits for it. */
static void test_manifest__new_file_is_given_up_when_a_change_fails(void **state)
{
    (void)state;
    unsigned waited = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct manifest_fixture fixture;
        fixture_init(&fixture, seed);
        fixture_make(&fixture);
        use_room(&fixture);
        while (fixture.manifest->rewrite.state < REWRITE_SYNC)
            fixture_step(&fixture);
        while (!manifest_idle(fixture.manifest) && fixture.manifest->writing != WRITING_NOTHING)
            fixture_step(&fixture);
        uint64_t renames = sim_issued(RING_KIND_RENAME);
        if (fixture.manifest->rewrite.state == REWRITE_SYNC) {
            sim_fail(RING_KIND_WRITE, 1, EIO);
            fixture_change(&fixture, 5, MANIFEST_LIVE, 5);
            while (!manifest_failed(fixture.manifest)) {
                fixture_step(&fixture);
                waited += fixture.manifest->rewrite.state == REWRITE_HOLD;
            }
            uint64_t writes = sim_issued(RING_KIND_WRITE);
            fixture_settle(&fixture);
            assert_int_equal(sim_issued(RING_KIND_WRITE), writes);
            assert_int_equal(sim_issued(RING_KIND_RENAME), renames);
            expect_failed(&fixture);
        }
        fixture_crash(&fixture, SIM_RANDOM);
        fixture_boot(&fixture);
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
    assert_true(waited > 0);
}

/* Somebody else was told of a failed sync of the directory, which may have cost this name. */
static void test_manifest__failed_sync_of_another_name_is_the_end(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    use_room(&fixture);
    while (fixture.manifest->rewrite.state != REWRITE_SYNC_DIR)
        fixture_step(&fixture);
    fixture.name_syncs_failed++;
    fixture_settle(&fixture);
    expect_failed(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__full_disk_holds_changes_back_until_there_is_space(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_make(&fixture);
    fixture_change_durably(&fixture, 0, MANIFEST_LIVE, 0);
    sim_set_disk_size(sim_disk_used() + 10 * KVS_BLOCK_BYTES);
    uint32_t version = 0;
    while (fixture.manifest->file.next < fixture.manifest->file.file_blocks) {
        fixture_change_durably(&fixture, version % 50, MANIFEST_LIVE, version);
        assert_false(manifest_stuck(fixture.manifest));
        version++;
    }
    assert_int_equal(version, 63);
    assert_int_equal(fixture.manifest->rewrite.error, KVS_ERR_NO_SPACE);
    uint64_t opened = sim_issued(RING_KIND_OPEN);
    uint64_t durable = fixture.durable;
    for (uint32_t i = 0; i < 200; i++)
        fixture_change(&fixture, i, MANIFEST_SEALED, i);
    for (unsigned i = 0; i < 200; i++)
        fixture_step(&fixture);
    assert_true(sim_issued(RING_KIND_OPEN) > opened + 3);
    assert_int_equal(fixture.durable, durable);
    assert_false(manifest_failed(fixture.manifest));
    assert_false(manifest_idle(fixture.manifest));
    while (fixture.manifest->rewrite.state != REWRITE_IDLE)
        fixture_step(&fixture);
    assert_true(manifest_stuck(fixture.manifest));
    assert_false(sim_file_exists(MANIFEST_NEW_PATH));
    sim_set_disk_size(UINT64_MAX);
    fixture_settle(&fixture);
    assert_false(manifest_stuck(fixture.manifest));
    fixture_crash(&fixture, SIM_DROP_ALL);
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__first_file_on_a_full_disk_is_an_error(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture_open_ring(&fixture);
    sim_set_disk_size(10 * KVS_BLOCK_BYTES);
    assert_int_equal(manifest_new(&fixture.manifest, &fixture.options), KVS_ERR_OK);
    assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_NO_SPACE);
    assert_non_null(strstr(fixture.message, MANIFEST_PATH));
    fixture_close(&fixture);
    assert_false(sim_file_exists(MANIFEST_NEW_PATH) || sim_file_exists(MANIFEST_PATH));
    fixture_deinit(&fixture);
}

/* Each step of a start fails once: an error with a message, and nothing is lost. */
static void test_manifest__start_that_fails_changes_nothing(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    fixture_init(&fixture, 1);
    fixture.options.direct = false;
    fixture_make(&fixture);
    fixture_change_durably(&fixture, 1, MANIFEST_SEALED, 1);
    fixture_close(&fixture);
    static const struct {
        enum ring_kind kind;
        uint64_t nth;
    } steps[] = {
        {RING_KIND_OPEN, 1}, {RING_KIND_SYNC, 1}, {RING_KIND_SYNC, 2}, {RING_KIND_READ, 1}, {RING_KIND_READ, 2}};
    for (unsigned i = 0; i < ARRAY_COUNT(steps); i++) {
        sim_fail(steps[i].kind, steps[i].nth, EIO);
        assert_int_equal(fixture_try_open(&fixture), KVS_ERR_IO);
    }
    fixture_boot(&fixture);
    fixture_close(&fixture);
    fixture_deinit(&fixture);
}

/* What a failed sync of an earlier process has left in the page cache is not what the disk holds. */
static void test_manifest__what_only_the_cache_holds_is_not_believed(void **state)
{
    (void)state;
    unsigned gone = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct manifest_fixture fixture;
        fixture_init(&fixture, seed);
        fixture.options.direct = false;
        fixture.options.sync_after_write = true;
        fixture_make(&fixture);
        fixture_change_durably(&fixture, 1, MANIFEST_SEALED, 1);
        fixture_change(&fixture, 2, MANIFEST_SEALED, 1);
        sim_fail(RING_KIND_SYNC, 1, EIO);
        fixture_settle(&fixture);
        assert_true(manifest_failed(fixture.manifest));
        fixture_crash(&fixture, SIM_KILL);
        fixture_boot(&fixture);
        gone += manifest_find(fixture.manifest, 2) == NULL;
        fixture_crash(&fixture, SIM_DROP_ALL);
        fixture_boot(&fixture);
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
    assert_int_equal(gone, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__there_is_none),
        cmocka_unit_test(test_manifest__empty_one_is_read_back),
        cmocka_unit_test(test_manifest__every_field_is_read_back),
        cmocka_unit_test(test_manifest__removed_entry_stays_away),
        cmocka_unit_test(test_manifest__entries_set_at_start_up_are_written_together),
        cmocka_unit_test(test_manifest__change_is_durable_only_when_its_write_has_completed),
        cmocka_unit_test(test_manifest__queued_changes_share_a_block),
        cmocka_unit_test(test_manifest__thousands_of_entries_through_many_files),
        cmocka_unit_test(test_manifest__changes_go_on_while_a_new_file_is_made),
        cmocka_unit_test(test_manifest__new_file_that_cannot_catch_up_is_made_larger),
        cmocka_unit_test(test_manifest__failed_write_or_sync_is_never_repeated),
        cmocka_unit_test(test_manifest__each_step_of_a_new_file_may_fail),
        cmocka_unit_test(test_manifest__rename_of_unknown_outcome_is_the_end),
        cmocka_unit_test(test_manifest__new_file_is_given_up_when_a_change_fails),
        cmocka_unit_test(test_manifest__failed_sync_of_another_name_is_the_end),
        cmocka_unit_test(test_manifest__full_disk_holds_changes_back_until_there_is_space),
        cmocka_unit_test(test_manifest__first_file_on_a_full_disk_is_an_error),
        cmocka_unit_test(test_manifest__start_that_fails_changes_nothing),
        cmocka_unit_test(test_manifest__what_only_the_cache_holds_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
