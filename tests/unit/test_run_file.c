/*
 * test_run_file.c - the order of runs, their layout, and what the checks of headers and blocks notice.
 */
#include "run_fixture.h"

#include "base/crc32c.h"
#include "base/hash.h"

enum { HASHES = 4000 };

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
    return left < right ? -1 : left > right;
}

static void test_run_order__keeps_the_shards_of_any_number_together(void **state)
{
    (void)state;
    uint64_t *orders = calloc(HASHES, sizeof *orders);
    for (unsigned i = 0; i < HASHES; i++)
        orders[i] = run_mix(i);
    orders[0] = 0;
    orders[1] = UINT64_MAX;
    qsort(orders, HASHES, sizeof *orders, compare_numbers);
    for (unsigned shards = 1; shards <= 65535; shards += shards < 70 ? 1 : 3001) {
        unsigned before = 0;
        for (unsigned i = 0; i < HASHES; i++) {
            const unsigned shard = hash_shard(orders[i], shards);
            assert_true(shard >= before);
            before = shard;
            const struct run_range range = run_range_of_shard(shard, shards);
            assert_true(orders[i] >= range.first && orders[i] <= range.last);
        }
        assert_int_equal(run_range_of_shard(0, shards).first, 0);
        assert_int_equal(run_range_of_shard(shards - 1, shards).last, UINT64_MAX);
        for (unsigned shard = 1; shard < shards; shard++)
            assert_true(run_range_of_shard(shard - 1, shards).last + 1 == run_range_of_shard(shard, shards).first);
    }
    free(orders);
}

static void test_run_place__holds_the_largest_of_everything(void **state)
{
    (void)state;
    const uint64_t address = (1ull << 40) - 1;
    const uint64_t bytes = record_bytes((size_t)KVS_KEY_BYTES_MAX + UINT16_MAX, (size_t)KVS_RECORD_VALUE_BYTES_MAX);
    const struct run_entry entry = {.place = run_place(address, bytes, RUN_DELETE)};
    assert_int_equal(run_entry_address(&entry), address);
    assert_int_equal(run_entry_record_bytes(&entry), bytes);
    assert_true(run_entry_is_delete(&entry));
    const struct run_entry other = {.place = run_place(0, 32, 0)};
    assert_int_equal(run_entry_address(&other), 0);
    assert_int_equal(run_entry_record_bytes(&other), 32);
    assert_false(run_entry_is_delete(&other));
}

static void test_run_name__only_its_own_names_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool valid, unfinished;
        uint64_t sequence;
    } cases[] = {
        {"000000000042.run", true, false, 42},
        {"000000000042.run.new", true, true, 42},
        {"1234567890123.run", true, false, 1234567890123},
        {"18446744073709551615.run", true, false, UINT64_MAX},
        {"18446744073709551616.run", false, false, 0},
        {"0000000000042.run", false, false, 0},
        {"42.run", false, false, 0},
        {"000000000042.run.old", false, false, 0},
        {"000042.seg", false, false, 0},
        {"-00000000042.run", false, false, 0},
        {" 00000000042.run", false, false, 0},
        {"", false, false, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint64_t sequence = 0;
        bool unfinished = false;
        assert_int_equal(run_name_parse(cases[i].name, &sequence, &unfinished), cases[i].valid);
        if (!cases[i].valid)
            continue;
        assert_true(sequence == cases[i].sequence);
        assert_int_equal(unfinished, cases[i].unfinished);
    }
}

static void test_run_layout__blocks_lie_one_behind_the_other(void **state)
{
    (void)state;
    static const uint64_t entries[] = {0,
                                       1,
                                       100,
                                       102,
                                       RUN_BLOCK_ENTRIES - 1,
                                       RUN_BLOCK_ENTRIES,
                                       RUN_BLOCK_ENTRIES + 1,
                                       20ull * RUN_BLOCK_ENTRIES,
                                       8184ull * RUN_BLOCK_ENTRIES,
                                       8184ull * RUN_BLOCK_ENTRIES + 1};
    static const uint32_t segments[] = {0, 1, 168, 170, RUN_BLOCK_SEGMENTS, RUN_BLOCK_SEGMENTS + 1};
    for (size_t i = 0; i < ARRAY_COUNT(entries) * ARRAY_COUNT(segments); i++) {
        const uint64_t entry_count = entries[i % ARRAY_COUNT(entries)];
        const uint32_t segment_count = segments[i / ARRAY_COUNT(entries)];
        struct run_layout layout;
        run_layout(&layout, entry_count, segment_count);
        uint64_t items[4] = {0};
        uint64_t end = RUN_HEADER_BYTES;
        for (uint64_t block = 0; block < layout.blocks; block++) {
            const struct run_extent extent = run_block_extent(&layout, block);
            assert_int_equal(extent.offset, end);
            assert_int_equal(extent.bytes % KVS_BLOCK_BYTES, 0);
            assert_true(extent.count > 0 && extent.bytes <= RUN_BLOCK_BYTES);
            assert_true(sizeof(struct run_block) + (size_t)extent.count * run_item_bytes(extent.kind) <= extent.bytes);
            end += extent.bytes;
            items[extent.kind] += extent.count;
        }
        assert_int_equal(end, layout.file_bytes);
        assert_int_equal(items[RUN_ENTRIES], entry_count);
        assert_int_equal(items[RUN_SEGMENTS], segment_count);
        assert_int_equal(items[RUN_INDEX], layout.entry_blocks);
    }
}

static void test_run_header__one_wrong_byte_is_noticed(void **state)
{
    (void)state;
    struct run_header fields = {.sequence = 7, .entry_count = 100, .delete_count = 3, .segment_count = 2};
    memcpy(fields.store_uuid, run_uuid, 16);
    uint8_t bytes[RUN_HEADER_BYTES];
    run_header_encode(bytes, &fields);
    assert_null(run_header_check(bytes, run_uuid, 7));
    assert_non_null(run_header_check(bytes, run_uuid, 8));
    assert_non_null(run_header_check(bytes, run_uuid, 6));
    uint8_t other_uuid[16] = {9};
    assert_non_null(run_header_check(bytes, other_uuid, 7));
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(bytes[i] ^ 1u << (i % 8));
        assert_non_null(run_header_check(bytes, run_uuid, 7));
        bytes[i] = (uint8_t)(bytes[i] ^ 1u << (i % 8));
    }
    assert_null(run_header_check(bytes, run_uuid, 7));
}

/* A header of other contents, with a right checksum. */
static const char *check_header_fields(uint32_t version, uint64_t entries, uint64_t deletes, uint32_t segments)
{
    struct run_header header = {.magic = RUN_MAGIC,
                                .version = version,
                                .sequence = 7,
                                .entry_count = entries,
                                .delete_count = deletes,
                                .segment_count = segments,
                                .block_bytes = RUN_BLOCK_BYTES};
    memcpy(header.store_uuid, run_uuid, 16);
    uint8_t bytes[RUN_HEADER_BYTES] = {0};
    memcpy(bytes, &header, sizeof header);
    header.crc = crc32c(0, bytes + 12, sizeof bytes - 12);
    memcpy(bytes, &header, sizeof header);
    return run_header_check(bytes, run_uuid, 7);
}

static void test_run_header__what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_null(check_header_fields(RUN_VERSION, RUN_ENTRIES_MAX, 5, RUN_SEGMENTS_MAX));
    assert_non_null(check_header_fields(RUN_VERSION + 1, 5, 5, 5));
    assert_non_null(check_header_fields(RUN_VERSION, RUN_ENTRIES_MAX + 1, 5, 5));
    assert_non_null(check_header_fields(RUN_VERSION, UINT64_MAX, 5, 5));
    assert_non_null(check_header_fields(RUN_VERSION, 5, 6, 5));
    assert_non_null(check_header_fields(RUN_VERSION, 5, 5, RUN_SEGMENTS_MAX + 1));
}

static uint8_t *block_make(const struct run_entry *entries, uint32_t count, uint64_t number)
{
    uint8_t *bytes = aligned_alloc(4096, RUN_BLOCK_BYTES);
    assert_non_null(bytes);
    memset(bytes, 0xee, RUN_BLOCK_BYTES);
    memcpy(bytes + sizeof(struct run_block), entries, count * sizeof *entries);
    run_block_seal(bytes, RUN_ENTRIES, count, run_seed(run_uuid, 7), 7, number);
    return bytes;
}

static void test_run_block__one_wrong_byte_is_noticed(void **state)
{
    (void)state;
    struct run_entry *entries = entries_make(0, 150, 1);
    uint8_t *bytes = block_make(entries, 150, 5);
    const struct run_extent extent = {.bytes = 8192, .count = 150, .kind = RUN_ENTRIES};
    const uint32_t seed = run_seed(run_uuid, 7);
    assert_null(run_block_check(bytes, &extent, seed, 7, 5));
    for (size_t i = 0; i < extent.bytes; i++) {
        bytes[i] = (uint8_t)(bytes[i] ^ 1u << (i % 8));
        assert_non_null(run_block_check(bytes, &extent, seed, 7, 5));
        bytes[i] = (uint8_t)(bytes[i] ^ 1u << (i % 8));
    }
    assert_null(run_block_check(bytes, &extent, seed, 7, 5));
    free(bytes);
    free(entries);
}

static void test_run_block__is_only_valid_in_its_place(void **state)
{
    (void)state;
    struct run_entry *entries = entries_make(0, 150, 1);
    uint8_t *bytes = block_make(entries, 150, 5);
    const struct run_extent extent = {.bytes = 8192, .count = 150, .kind = RUN_ENTRIES};
    uint8_t other_uuid[16] = {0};
    const uint32_t seed = run_seed(run_uuid, 7);
    assert_string_equal(run_block_check(bytes, &extent, run_seed(other_uuid, 7), 7, 5), "its checksum is wrong");
    assert_string_equal(run_block_check(bytes, &extent, run_seed(run_uuid, 8), 8, 5), "its checksum is wrong");
    assert_string_equal(run_block_check(bytes, &extent, seed, 7, 4), "its checksum is wrong");
    assert_string_equal(run_block_check(bytes, &extent, seed, 7, 5 + (1ull << 32)),
                        "its header does not agree with its place");
    const struct run_extent more = {.bytes = 8192, .count = 151, .kind = RUN_ENTRIES};
    const struct run_extent other = {.bytes = 8192, .count = 150, .kind = RUN_SEGMENTS};
    assert_non_null(run_block_check(bytes, &more, seed, 7, 5));
    assert_non_null(run_block_check(bytes, &other, seed, 7, 5));
    free(bytes);
    free(entries);
}

/* Sealed with a right checksum, but not what a writer would have written. */
static void test_run_block__entries_must_rise_and_have_known_flags(void **state)
{
    (void)state;
    const uint32_t seed = run_seed(run_uuid, 7);
    const struct run_extent extent = {.bytes = 4096, .count = 50, .kind = RUN_ENTRIES};
    for (unsigned damage = 0; damage < 5; damage++) {
        struct run_entry *entries = entries_make(0, 50, 1);
        if (damage == 1)
            entries[49].order = entries[48].order - 1;
        if (damage == 2)
            entries[1] = entries[0];
        if (damage == 3)
            entries[30].place |= 1ull << 62;
        if (damage == 4) {
            entries[20].order = entries[19].order;
            entries[20].check = entries[19].check - 1;
        }
        uint8_t *bytes = block_make(entries, 50, 0);
        const char *wrong = run_block_check(bytes, &extent, seed, 7, 0);
        assert_true((wrong == NULL) == (damage == 0));
        free(bytes);
        free(entries);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_order__keeps_the_shards_of_any_number_together),
        cmocka_unit_test(test_run_place__holds_the_largest_of_everything),
        cmocka_unit_test(test_run_name__only_its_own_names_are_parsed),
        cmocka_unit_test(test_run_layout__blocks_lie_one_behind_the_other),
        cmocka_unit_test(test_run_header__one_wrong_byte_is_noticed),
        cmocka_unit_test(test_run_header__what_cannot_be_is_refused),
        cmocka_unit_test(test_run_block__one_wrong_byte_is_noticed),
        cmocka_unit_test(test_run_block__is_only_valid_in_its_place),
        cmocka_unit_test(test_run_block__entries_must_rise_and_have_known_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
