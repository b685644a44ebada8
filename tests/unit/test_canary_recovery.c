/*
 * test_canary_recovery.c - recoveries that a rare order of events makes necessary: each was shown to be missing by a
 * deliberate bug (src/base/canary.h) that no other unit test had noticed.
 */
#include "store_fixture.h"

enum { SEGMENT_BYTES = 256 * 1024, SPAN_BYTES = 90000, EIO_ERRNO = 5 };

/* ---- tails ----------------------------------------------------------------------------------------------------- */

/*
 * A power loss with the last batch of a full segment and whatever follows it under way, and any part of that on the
 * disk. Nothing of it was acknowledged, so that every outcome is a torn tail and none is damage.
 */
static void test_recovery__power_loss_at_a_change_of_segments_is_never_damage(void **state)
{
    (void)state;
    uint64_t outcomes = 1;
    for (uint64_t keep = 0; keep < outcomes; keep++) {
        sim_create(3);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        store_quiet();
        store_put_large(&fixture, 12);
        uint32_t full = store_shard_zero(&fixture)->log.open->number;
        store_put_now(&fixture, "last", 1);
        store_put_now(&fixture, "next", STORE_LARGE_BYTES);
        assert_int_equal(store_shard_zero(&fixture)->log.open->number, full + 1);
        assert_in_range(sim_pending(), 1, 10);
        outcomes = 1ull << sim_pending();
        sim_crash_subset(keep);
        engine_close(fixture.engine, fixture.main_ring);

        store_boot(&fixture, &options);
        store_expect_large(&fixture, 12);
        store_stop(&fixture);
        sim_destroy();
    }
}

/*
 * Of the two batches in a new segment only the second has arrived, and the segment is then kept as a spare that nothing
 * is written to: what is left in it must not look like damage to the start after that.
 */
static void test_recovery__what_was_cut_means_nothing_to_later_starts(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_quiet();
    store_put_large(&fixture, 9);
    uint32_t fresh = store_shard_zero(&fixture)->log.open->number + 1;
    store_put_now(&fixture, "first", SPAN_BYTES);
    store_put_now(&fixture, "second", 1);
    assert_int_equal(store_shard_zero(&fixture)->log.open->number, fresh);
    assert_int_equal(store_shard_zero(&fixture)->log.count, 2);
    store_crash(&fixture, SIM_KEEP_ALL);
    char path[64];
    store_segment_path(path, fresh);
    sim_file_flip(path, (KVS_BLOCK_BYTES + 20) * 8);

    for (unsigned boot = 0; boot < 3; boot++) {
        store_boot(&fixture, &options);
        assert_int_not_equal(store_shard_zero(&fixture)->log.open->number, fresh);
        store_expect_large(&fixture, 9);
        store_expect(&fixture, "first", NULL);
        store_expect(&fixture, "second", NULL);
        store_crash(&fixture, SIM_DROP_ALL);
    }
    sim_destroy();
}

/* A write that was under way when the process was killed may be in the file and not on the disk. Once a reader has been
 * shown it, it has to stay. */
static void test_recovery__what_a_reader_has_seen_survives_the_next_power_loss(void **state)
{
    (void)state;
    unsigned seen = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        store_quiet();
        store_put_now(&fixture, "key", 100);
        store_crash(&fixture, SIM_KILL);

        store_boot(&fixture, &options);
        char *got = store_get_text(&fixture, "key");
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        if (got != NULL) {
            seen++;
            store_expect(&fixture, "key", got);
        }
        free(got);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_in_range(seen, 5, 35);
}

/* The offset of the last batch of a segment that holds records, 0 if there is none. */
static uint32_t last_batch_with_records(const char *path)
{
    uint32_t last = 0;
    for (uint32_t at = KVS_BLOCK_BYTES; at < SEGMENT_BYTES; at += KVS_BLOCK_BYTES) {
        struct batch_header batch;
        sim_file_read(path, at, &batch, sizeof batch);
        if (batch.magic == BATCH_MAGIC && batch.record_count > 0)
            last = at;
    }
    return last;
}

/* With fewer shards than before, some tails are not written on in. They too were durable, and their ends are known. */
static void test_recovery__damage_at_the_end_of_a_tail_that_nobody_writes_in_is_noticed(void **state)
{
    (void)state;
    sim_create(7);
    struct store_fixture fixture;
    struct engine_options options = store_options(2);
    store_boot(&fixture, &options);
    for (unsigned i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof key, "key:%u", i);
        assert_int_equal(store_put_text(&fixture, key, "value"), KVS_ERR_OK);
    }
    store_crash(&fixture, SIM_DROP_ALL);
    struct engine_options fewer = store_options(1);
    store_boot(&fixture, &fewer);
    assert_int_equal(store_keys(&fixture), 20);
    store_crash(&fixture, SIM_DROP_ALL);

    unsigned tails = 0;
    for (uint32_t number = 0; number < 2; number++) {
        char path[64];
        store_segment_path(path, number);
        uint32_t at = last_batch_with_records(path);
        if (at == 0)
            continue;
        tails++;
        uint64_t bit = (at + sizeof(struct batch_header) + 8) * 8;
        sim_file_flip(path, bit);
        store_expect_refused(&fixture, &fewer, "Nothing was changed");
        sim_crash(SIM_KEEP_ALL);
        sim_file_flip(path, bit);
    }
    assert_int_equal(tails, 2);
    store_boot(&fixture, &fewer);
    assert_int_equal(store_keys(&fixture), 20);
    store_stop(&fixture);
    sim_destroy();
}

/* A batch that fills its segment leaves no room behind it but the block that is kept for the mark. */
static void test_recovery__damage_to_a_batch_that_fills_its_segment_is_noticed(void **state)
{
    (void)state;
    sim_create(8);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    size_t size = options.segment_bytes - 2 * KVS_BLOCK_BYTES - sizeof(struct batch_header) - 100;
    uint8_t *value = calloc(1, size);
    /* The first segment holds a boot batch already, so that this begins the next one, and fills it. */
    assert_int_equal(store_put_slice(&fixture, slice_text("big"), slice_make(value, size)), KVS_ERR_OK);
    free(value);
    store_crash(&fixture, SIM_DROP_ALL);
    store_boot(&fixture, &options);
    store_crash(&fixture, SIM_DROP_ALL);

    unsigned damaged = 0;
    for (uint32_t number = 0; number < 4; number++) {
        char path[64];
        store_segment_path(path, number);
        uint32_t at = sim_file_exists(path) ? last_batch_with_records(path) : 0;
        if (at == 0)
            continue;
        damaged++;
        sim_file_flip(path, (at + 1000) * 8ull);
        assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_CORRUPT);
        sim_crash(SIM_KEEP_ALL);
        sim_file_flip(path, (at + 1000) * 8ull);
    }
    assert_int_equal(damaged, 1);
    store_boot(&fixture, &options);
    assert_int_equal(store_keys(&fixture), 1);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- superblock, lock, checksums ------------------------------------------------------------------------------- */

/* A superblock that could not be synced may be anything where it was written to. The other copy must serve. */
static void test_recovery__superblock_that_was_not_synced_leaves_a_copy(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        assert_int_equal(store_put_text(&fixture, "key", "value"), KVS_ERR_OK);
        store_stop(&fixture);
        unsigned nth = 0; /* tails and names are synced before it */
        do {
            assert_true(++nth < 10);
            sim_fail(RING_KIND_SYNC, nth, EIO_ERRNO);
            assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_IO);
        } while (strstr(fixture.message, "superblock") == NULL);
        sim_crash(SIM_RANDOM);

        store_boot(&fixture, &options);
        store_expect(&fixture, "key", "value");
        store_stop(&fixture);
        sim_destroy();
    }
}

static void test_recovery__directory_in_use_is_refused(void **state)
{
    (void)state;
    sim_create(11);
    struct store_fixture fixture, second;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    assert_int_equal(store_try_boot(&second, &options), KVS_ERR_LOCKED);
    assert_non_null(strstr(second.message, "/data is in use by another process"));
    assert_int_equal(store_put_text(&fixture, "key", "value"), KVS_ERR_OK);
    store_stop(&fixture);
    store_boot(&second, &options);
    store_expect(&second, "key", "value");
    store_stop(&second);
    sim_destroy();
}

/* Two segments with the same keys at the same places; the disk then gives the bytes of the older one for those of the
 * newer. What stood there is an older value with a checksum, and an LSN, that were right in the other segment. */
static void test_recovery__bytes_of_another_segment_are_not_taken_for_its_own(void **state)
{
    (void)state;
    sim_create(19);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_quiet();
    store_put_large(&fixture, 12);
    uint32_t older = store_shard_zero(&fixture)->log.open->number;
    for (unsigned i = 0; i < 2; i++)
        assert_true(store_put_now(&fixture, "large:0", STORE_LARGE_BYTES) > 0);
    store_quiet();
    store_crash(&fixture, SIM_DROP_ALL);
    static uint8_t batch[20 * 1024];
    char path[64];
    store_segment_path(path, older);
    sim_file_read(path, 2 * KVS_BLOCK_BYTES, batch, sizeof batch);
    store_segment_path(path, older + 1);
    struct segment_header header;
    sim_file_read(path, 0, &header, sizeof header);
    uint32_t at = 2 * KVS_BLOCK_BYTES;
    const struct batch_header *moved = (const void *)batch;
    assert_int_equal(moved->magic, BATCH_MAGIC);
    uint32_t seed = segment_seed(header.store_uuid, header.uid);
    assert_false(batch_header_valid(moved, seed, at, sizeof batch));
    assert_int_equal(record_check(moved + 1, sizeof batch - sizeof *moved, seed, at + (uint32_t)sizeof *moved),
                     RECORD_INVALID);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recovery__power_loss_at_a_change_of_segments_is_never_damage),
        cmocka_unit_test(test_recovery__what_was_cut_means_nothing_to_later_starts),
        cmocka_unit_test(test_recovery__what_a_reader_has_seen_survives_the_next_power_loss),
        cmocka_unit_test(test_recovery__damage_at_the_end_of_a_tail_that_nobody_writes_in_is_noticed),
        cmocka_unit_test(test_recovery__damage_to_a_batch_that_fills_its_segment_is_noticed),
        cmocka_unit_test(test_recovery__superblock_that_was_not_synced_leaves_a_copy),
        cmocka_unit_test(test_recovery__directory_in_use_is_refused),
        cmocka_unit_test(test_recovery__bytes_of_another_segment_are_not_taken_for_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
