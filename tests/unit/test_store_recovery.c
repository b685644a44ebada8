/*
 * test_store_recovery.c - what a start does with a directory that is not as an orderly stop has left it: what was torn
 * by a power loss is cut, what was damaged, lost or written by a newer program is refused.
 */
#include "store_fixture.h"

#include <errno.h>

enum { SEGMENT_BYTES = 256 * 1024, SMALL_BYTES = 600 };

static void put_small(struct store_fixture *fixture, unsigned first, unsigned count)
{
    char value[SMALL_BYTES + 1];
    memset(value, 's', SMALL_BYTES);
    value[SMALL_BYTES] = '\0';
    for (unsigned i = first; i < first + count; i++) {
        char key[32];
        snprintf(key, sizeof key, "small:%u", i);
        assert_int_equal(store_put_text(fixture, key, value), KVS_ERR_OK);
    }
}

static void boot_once(const struct engine_options *options, unsigned first, unsigned count)
{
    struct store_fixture fixture;
    store_boot(&fixture, options);
    put_small(&fixture, first, count);
    store_stop(&fixture);
}

/* ---- the first batch of a segment ------------------------------------------------------------------------------ */

/* Of several blocks, the first batch may arrive with its header and without the rest: nobody was told of it. */
static void test_store__torn_first_batch_of_a_segment_is_cut(void **state)
{
    (void)state;
    unsigned cut = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        store_quiet();
        uint32_t full = store_put_large(&fixture, STORE_LARGE_PER_SEGMENT);
        uint64_t gate = store_put_now(&fixture, "torn", STORE_LARGE_BYTES);
        assert_int_equal(store_shard_zero(&fixture)->log.open->number, full + 1);
        assert_true(engine_durable(fixture.nodes[0].shard) < gate);
        store_crash(&fixture, SIM_RANDOM);

        store_boot(&fixture, &options);
        struct engine_recovery recovery;
        engine_recovered(fixture.engine, &recovery);
        cut += recovery.cut_bytes > 0;
        store_expect_large(&fixture, STORE_LARGE_PER_SEGMENT);
        char *got = store_get_text(&fixture, "torn");
        assert_true(got == NULL || strlen(got) == STORE_LARGE_BYTES);
        free(got);
        store_stop(&fixture);
        sim_destroy();
    }
    assert_true(cut > 10);
}

/*
 * Writes three batches into a fresh segment, and crashes. The first is durable, and the third says so; the second was
 * on its way when the third was written. False when the disk was too quick for that.
 */
static bool write_overlapping_batches(struct store_fixture *fixture, bool third, uint32_t *number)
{
    uint32_t full = store_put_large(fixture, STORE_LARGE_PER_SEGMENT);
    struct store_shard *shard = store_shard_zero(fixture);
    uint64_t first_gate = store_put_now(fixture, "first", STORE_LARGE_BYTES);
    uint64_t second_gate = store_put_now(fixture, "second", 1);
    *number = shard->log.open->number;
    assert_int_equal(*number, full + 1);
    while (engine_durable(&shard->base) < first_gate)
        assert_true(sim_step());
    if (engine_durable(&shard->base) >= second_gate)
        return false;
    if (third) {
        store_put_now(fixture, "third", 1);
        assert_int_equal(shard->log.count, 2);
    }
    return true;
}

/* Where the first batch of a segment can be damaged. */
enum { IN_ITS_HEADER = KVS_BLOCK_BYTES + 20, IN_ITS_RECORD = KVS_BLOCK_BYTES + 200 };

/* Runs seeds until the batches overlapped; the segment's first batch is damaged then. */
static enum kvs_err start_with_damage(struct store_fixture *fixture, uint64_t offset, bool third)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        sim_create(seed);
        struct engine_options options = store_options(1);
        uint32_t number;
        char path[64];
        store_boot(fixture, &options);
        store_quiet();
        if (write_overlapping_batches(fixture, third, &number)) {
            store_crash(fixture, SIM_KEEP_ALL);
            store_segment_path(path, number);
            sim_file_flip(path, offset * 8);
            return store_try_boot(fixture, &options);
        }
        store_stop(fixture);
        sim_destroy();
    }
    fail_msg("never were three batches under way in the right order");
    return KVS_ERR_OK;
}

static void test_store__damage_to_the_first_batch_of_a_segment_is_proven_by_the_third(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {IN_ITS_HEADER, IN_ITS_RECORD};
    for (unsigned i = 0; i < ARRAY_COUNT(offsets); i++) {
        struct store_fixture fixture;
        assert_int_equal(start_with_damage(&fixture, offsets[i], true), KVS_ERR_CORRUPT);
        assert_non_null(strstr(fixture.message, "offset 4096"));
        sim_destroy();
    }
}

/* The second batch alone knows nothing of the first: to the next start that looks like a torn one. */
static void test_store__batch_behind_the_first_of_a_segment_does_not_prove_it(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {IN_ITS_HEADER, IN_ITS_RECORD};
    for (unsigned i = 0; i < ARRAY_COUNT(offsets); i++) {
        struct store_fixture fixture;
        assert_int_equal(start_with_damage(&fixture, offsets[i], false), KVS_ERR_OK);
        store_expect_large(&fixture, STORE_LARGE_PER_SEGMENT);
        store_expect(&fixture, "first", NULL);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- the superblock -------------------------------------------------------------------------------------------- */

/* The older copy serves; it must not make a boot take the number of the one before. */
static void test_store__damaged_superblock_copy_does_no_harm_to_later_starts(void **state)
{
    (void)state;
    for (unsigned copy = 0; copy < 2; copy++) {
        sim_create(5);
        struct engine_options options = store_options(2);
        boot_once(&options, 0, 50);
        boot_once(&options, 50, 50);
        sim_file_flip("/data/superblock", (copy * KVS_BLOCK_BYTES + 50) * 8);
        boot_once(&options, 100, 50);
        boot_once(&options, 150, 50);
        struct store_fixture fixture;
        store_boot(&fixture, &options);
        assert_int_equal(store_keys(&fixture), 200);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- missing segments ------------------------------------------------------------------------------------------ */

/* Of an earlier boot no superblock tells with which LSN it began. */
static void test_store__missing_first_segment_of_an_earlier_boot_is_noticed(void **state)
{
    (void)state;
    sim_create(13);
    struct engine_options options = store_options(1);
    boot_once(&options, 0, 200);
    boot_once(&options, 200, 10);
    assert_true(sim_file_exists("/data/000003.seg"));
    sim_file_remove("/data/000000.seg");
    struct store_fixture fixture;
    store_expect_refused(&fixture, &options, "missing");
    sim_destroy();
}

/* ---- records of a newer program -------------------------------------------------------------------------------- */

static void read_segment(uint32_t number, uint8_t *bytes)
{
    char path[64];
    store_segment_path(path, number);
    sim_file_read(path, 0, bytes, SEGMENT_BYTES);
}

/* Gives the record of `key` in segment 0 another kind, as a newer program would have written it. */
static void change_kind(const char *key, uint8_t from, uint8_t to)
{
    static uint8_t bytes[SEGMENT_BYTES];
    read_segment(0, bytes);
    const struct segment_header *header = (const void *)bytes;
    uint32_t seed = segment_seed(header->store_uuid, header->uid);
    for (uint32_t at = KVS_BLOCK_BYTES; at < SEGMENT_BYTES; at += RECORD_ALIGN) {
        struct record_header fields = *(const struct record_header *)(const void *)(bytes + at);
        struct slice key_found = slice_make(bytes + at + sizeof fields, fields.key_bytes);
        if (fields.kind != from || !slice_equal(key_found, slice_text(key)))
            continue;
        uint8_t record[128];
        assert_true(record_bytes(fields.key_bytes, fields.value_bytes) <= sizeof record);
        struct slice value = slice_make(key_found.data + key_found.size, fields.value_bytes);
        fields.kind = to;
        record_encode(record, seed, at, &fields, 0, key_found, value);
        sim_file_overwrite("/data/000000.seg", at, record, record_bytes(fields.key_bytes, fields.value_bytes));
        return;
    }
    fail_msg("no record of key %s", key);
}

/* `behind`: acknowledged records that follow. */
static void check_unknown_kind(unsigned behind)
{
    static uint8_t before[SEGMENT_BYTES], after[SEGMENT_BYTES];
    uint8_t superblock_before[2 * KVS_BLOCK_BYTES], superblock_after[2 * KVS_BLOCK_BYTES];
    sim_create(23);
    struct store_fixture fixture;
    struct engine_options options = store_options(1);
    store_boot(&fixture, &options);
    store_quiet();
    put_small(&fixture, 0, 10);
    assert_int_equal(store_put_text(&fixture, "prepared", "for two keys"), KVS_ERR_OK);
    put_small(&fixture, 10, behind);
    store_crash(&fixture, SIM_DROP_ALL);
    change_kind("prepared", RECORD_PUT, 3);
    read_segment(0, before);
    sim_file_read("/data/superblock", 0, superblock_before, sizeof superblock_before);

    assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_VERSION);
    assert_non_null(strstr(fixture.message, "segment 000000"));
    sim_crash(SIM_KEEP_ALL);
    read_segment(0, after);
    sim_file_read("/data/superblock", 0, superblock_after, sizeof superblock_after);
    assert_memory_equal(before, after, SEGMENT_BYTES);
    assert_memory_equal(superblock_before, superblock_after, sizeof superblock_before);

    /* The program that knows the kind still finds everything. */
    change_kind("prepared", 3, RECORD_PUT);
    store_boot(&fixture, &options);
    store_expect(&fixture, "prepared", "for two keys");
    assert_int_equal(store_keys(&fixture), 11 + behind);
    store_stop(&fixture);
    sim_destroy();
}

static void test_store__record_of_unknown_kind_is_refused_and_left_alone(void **state)
{
    (void)state;
    check_unknown_kind(0);
    check_unknown_kind(5);
}

/* Without O_DIRECT: after a failed sync the page cache may hold, as clean, what the disk does not. Believed after a
 * restart, it would be missing behind what is written next, when the power fails. */
static void test_store__what_a_failed_sync_left_in_the_cache_is_not_believed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        sim_create(seed);
        sim_set_direct_align(0);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        assert_int_equal(store_put_text(&fixture, "a", "durable"), KVS_ERR_OK);
        store_quiet();
        sim_fail(RING_KIND_SYNC, 1, EIO);
        assert_int_equal(store_put_text(&fixture, "b", "in doubt"), KVS_ERR_FAILED);
        store_crash(&fixture, SIM_KILL);

        store_boot(&fixture, &options);
        char *shown = store_get_text(&fixture, "b");
        assert_int_equal(store_put_text(&fixture, "c", "later"), KVS_ERR_OK);
        store_crash(&fixture, SIM_DROP_ALL);

        store_boot(&fixture, &options);
        store_expect(&fixture, "a", "durable");
        store_expect(&fixture, "b", shown);
        store_expect(&fixture, "c", "later");
        free(shown);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* A spare segment whose name was not made durable before the process died: what is acknowledged in it must not go with
 * its name. */
static void test_store__name_of_a_recovered_spare_is_made_durable(void **state)
{
    (void)state;
    for (unsigned steps = 1; steps <= 60; steps++) {
        sim_create(steps);
        struct store_fixture fixture;
        struct engine_options options = store_options(1);
        store_boot(&fixture, &options);
        for (unsigned step = 0; step < steps && sim_step(); step++) {
        }
        store_crash(&fixture, SIM_KILL);

        store_boot(&fixture, &options);
        uint32_t first = store_put_large(&fixture, STORE_LARGE_PER_SEGMENT);
        for (unsigned i = 0; store_shard_zero(&fixture)->log.open->number == first && i < STORE_LARGE_PER_SEGMENT;
             i++) {
            store_put_now(&fixture, "next", STORE_LARGE_BYTES);
            engine_turn(fixture.nodes[0].shard);
        }
        assert_int_equal(store_put_text(&fixture, "last", "acknowledged"), KVS_ERR_OK);
        store_crash(&fixture, SIM_DROP_ALL);

        store_boot(&fixture, &options);
        store_expect(&fixture, "last", "acknowledged");
        store_stop(&fixture);
        sim_destroy();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__torn_first_batch_of_a_segment_is_cut),
        cmocka_unit_test(test_store__damage_to_the_first_batch_of_a_segment_is_proven_by_the_third),
        cmocka_unit_test(test_store__batch_behind_the_first_of_a_segment_does_not_prove_it),
        cmocka_unit_test(test_store__damaged_superblock_copy_does_no_harm_to_later_starts),
        cmocka_unit_test(test_store__missing_first_segment_of_an_earlier_boot_is_noticed),
        cmocka_unit_test(test_store__record_of_unknown_kind_is_refused_and_left_alone),
        cmocka_unit_test(test_store__name_of_a_recovered_spare_is_made_durable),
        cmocka_unit_test(test_store__what_a_failed_sync_left_in_the_cache_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
