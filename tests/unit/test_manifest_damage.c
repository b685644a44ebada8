/*
 * test_manifest_damage.c - manifests that are not as they were written: torn, flipped, cut, mixed up, forged.
 */
#include "manifest_fixture.h"

#include "base/crc32c.h"

enum { CHANGES = 6, LAST = CHANGES }; /* block 0 is the snapshot, blocks 1…6 are changes */

/* A store with one change in each of a few blocks, not running. */
static void make_store(struct manifest_fixture *fixture)
{
    fixture_init(fixture, 1);
    fixture_make(fixture);
    for (uint32_t i = 0; i < CHANGES; i++)
        fixture_change_durably(fixture, i, MANIFEST_SEALED, i);
    assert_int_equal(manifest_sequence(fixture->manifest), 1 + CHANGES);
    fixture_crash(fixture, SIM_DROP_ALL);
}

/* Another one, with many entries in its snapshot. */
static uint32_t make_large_store(struct manifest_fixture *fixture)
{
    fixture_init(fixture, 1);
    fixture_open_ring(fixture);
    assert_int_equal(manifest_new(&fixture->manifest, &fixture->options), KVS_ERR_OK);
    for (uint32_t i = 0; i < 400; i++) {
        struct manifest_entry entry = fixture_entry(i, MANIFEST_SEALED, i);
        assert_int_equal(manifest_set(fixture->manifest, &entry), KVS_ERR_OK);
        fixture_note(fixture, &entry);
    }
    assert_int_equal(manifest_write(fixture->manifest, fixture->message), KVS_ERR_OK);
    fixture->durable = fixture->count;
    uint32_t blocks = fixture->manifest->file.snapshot_blocks;
    fixture_crash(fixture, SIM_DROP_ALL);
    return blocks;
}

static void get_block(uint32_t index, uint8_t block[KVS_BLOCK_BYTES])
{
    sim_file_read(MANIFEST_PATH, (uint64_t)index * KVS_BLOCK_BYTES, block, KVS_BLOCK_BYTES);
}

static void put_block(uint32_t index, const uint8_t block[KVS_BLOCK_BYTES])
{
    sim_file_overwrite(MANIFEST_PATH, (uint64_t)index * KVS_BLOCK_BYTES, block, KVS_BLOCK_BYTES);
}

/* By docs/FORMAT.md's rule. */
static void put_sealed(uint32_t index, struct manifest_block *head)
{
    uint8_t *block = (uint8_t *)head;
    head->crc = crc32c(crc32c(0, fixture_uuid, 16), block + 12, KVS_BLOCK_BYTES - 12);
    put_block(index, block);
}

static void expect_refused(struct manifest_fixture *fixture, enum kvs_err wanted, uint64_t offset)
{
    char place[40];
    uint64_t size = sim_file_size(MANIFEST_PATH);
    uint8_t *before = malloc(size), *after = malloc(size);
    sim_file_read(MANIFEST_PATH, 0, before, size);
    assert_int_equal(fixture_try_open(fixture), wanted);
    snprintf(place, sizeof place, "offset %llu", (unsigned long long)offset);
    if (strstr(fixture->message, place) == NULL)
        fail_msg("no \"%s\" in: %s", place, fixture->message);
    if (wanted == KVS_ERR_CORRUPT)
        assert_non_null(strstr(fixture->message, "kvs-check --salvage"));
    sim_crash(SIM_DROP_ALL);
    assert_int_equal(sim_file_size(MANIFEST_PATH), size);
    sim_file_read(MANIFEST_PATH, 0, after, size);
    assert_memory_equal(before, after, size);
    free(before);
    free(after);
}

static void expect_whole(struct manifest_fixture *fixture)
{
    fixture_boot(fixture);
    assert_int_equal(fixture->count, fixture->durable);
    fixture_crash(fixture, SIM_DROP_ALL);
}

/* The last change was never known to be durable. */
static void forget_last(struct manifest_fixture *fixture)
{
    fixture->durable--;
    fixture->sequence--;
}

static void test_manifest__torn_last_block_is_cut(void **state)
{
    (void)state;
    for (unsigned sectors = 0; sectors < 8; sectors++) {
        struct manifest_fixture fixture;
        make_store(&fixture);
        uint8_t block[KVS_BLOCK_BYTES];
        get_block(LAST, block);
        uint64_t entry_end = sizeof(struct manifest_block) + sizeof(struct manifest_entry);
        memset(block + sectors * 512, sectors % 2 == 0 ? 0 : 0xA5, sizeof block - sectors * 512);
        put_block(LAST, block);
        bool torn = sectors * 512 < entry_end || sectors % 2 != 0;
        if (torn)
            forget_last(&fixture);
        uint64_t count = fixture.count;
        fixture_boot(&fixture);
        assert_int_equal(fixture.count, count - torn);
        assert_int_equal(manifest_sequence(fixture.manifest), 1 + CHANGES - torn);
        for (uint32_t i = 0; i < 100; i++) /* over the torn block, into a new file */
            fixture_change_durably(&fixture, i, MANIFEST_LIVE, i + 50);
        fixture_crash(&fixture, SIM_DROP_ALL);
        expect_whole(&fixture);
        fixture_deinit(&fixture);
    }
}

static void test_manifest__damaged_block_before_the_last_is_refused(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    for (uint32_t index = 0; index < LAST; index++) {
        uint8_t right[KVS_BLOCK_BYTES], wrong[KVS_BLOCK_BYTES];
        get_block(index, right);
        memcpy(wrong, right, sizeof wrong);
        memset(wrong + 512, 0x5A, 512);
        put_block(index, wrong);
        expect_refused(&fixture, KVS_ERR_CORRUPT, (uint64_t)index * KVS_BLOCK_BYTES);
        memset(wrong, 0, sizeof wrong);
        put_block(index, wrong);
        expect_refused(&fixture, KVS_ERR_CORRUPT, (uint64_t)index * KVS_BLOCK_BYTES);
        put_block(index, right);
    }
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__damaged_snapshot_is_refused(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    uint32_t blocks = make_large_store(&fixture);
    assert_true(blocks > 5);
    for (uint32_t index = 0; index < blocks; index++) {
        uint64_t bit = ((uint64_t)index * KVS_BLOCK_BYTES + 3000) * 8;
        sim_file_flip(MANIFEST_PATH, bit);
        expect_refused(&fixture, KVS_ERR_CORRUPT, (uint64_t)index * KVS_BLOCK_BYTES);
        sim_file_flip(MANIFEST_PATH, bit);
    }
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    static const uint32_t blocks[] = {0, 2, LAST};
    fixture_open_ring(&fixture);
    for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
        for (uint64_t bit = 0; bit < KVS_BLOCK_BYTES * 8; bit++) {
            uint64_t at = (uint64_t)blocks[i] * KVS_BLOCK_BYTES * 8 + bit;
            sim_file_flip(MANIFEST_PATH, at);
            enum kvs_err err = manifest_open(&fixture.manifest, &fixture.options, fixture.message);
            assert_int_equal(err, blocks[i] != LAST ? KVS_ERR_CORRUPT : KVS_ERR_OK);
            if (err == KVS_ERR_OK)
                assert_int_equal(manifest_sequence(fixture.manifest), 1 + CHANGES - 1);
            manifest_close(fixture.manifest, fixture.ring);
            sim_file_flip(MANIFEST_PATH, at);
        }
    }
    fixture.manifest = NULL;
    ring_close_fd(fixture.ring, fixture.dir_fd);
    ring_close(fixture.ring);
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__file_of_another_size_is_refused(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    uint8_t *bytes = malloc(65 * KVS_BLOCK_BYTES);
    sim_file_read(MANIFEST_PATH, 0, bytes, 65 * KVS_BLOCK_BYTES);
    static const uint64_t sizes[] = {66 * KVS_BLOCK_BYTES, 64 * KVS_BLOCK_BYTES, 64 * KVS_BLOCK_BYTES + 512,
                                     KVS_BLOCK_BYTES,      KVS_BLOCK_BYTES - 1,  0};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        sim_file_truncate(MANIFEST_PATH, sizes[i]);
        expect_refused(&fixture, KVS_ERR_CORRUPT, sizes[i] / KVS_BLOCK_BYTES * KVS_BLOCK_BYTES);
        sim_file_put(MANIFEST_PATH, bytes, 65 * KVS_BLOCK_BYTES);
    }
    expect_whole(&fixture);
    free(bytes);
    fixture_deinit(&fixture);
}

static void test_manifest__block_in_another_place_is_not_its_own(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    uint8_t first[KVS_BLOCK_BYTES], second[KVS_BLOCK_BYTES], zeros[KVS_BLOCK_BYTES] = {0};
    get_block(2, first);
    get_block(4, second);
    put_block(2, second);
    put_block(4, first);
    expect_refused(&fixture, KVS_ERR_CORRUPT, 2 * KVS_BLOCK_BYTES);
    put_block(2, first);
    put_block(4, second);

    /* A durable write that landed elsewhere. */
    get_block(LAST, first);
    put_block(LAST, zeros);
    put_block(30, first);
    expect_refused(&fixture, KVS_ERR_CORRUPT, LAST * KVS_BLOCK_BYTES);
    put_block(LAST, first);
    put_block(30, zeros);

    /* The one behind it landed on it. */
    put_block(5, first);
    put_block(LAST, zeros);
    expect_refused(&fixture, KVS_ERR_CORRUPT, 5 * KVS_BLOCK_BYTES);
    get_block(4, second);
    put_block(5, second);
    put_block(LAST, first);
    expect_refused(&fixture, KVS_ERR_CORRUPT, 5 * KVS_BLOCK_BYTES);
    fixture_deinit(&fixture);
}

/* What a superseded file held at a place is not taken for what belongs there now. */
static void test_manifest__block_of_a_superseded_file_means_nothing(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    uint8_t *old = malloc(65 * KVS_BLOCK_BYTES);
    sim_file_read(MANIFEST_PATH, 0, old, 65 * KVS_BLOCK_BYTES);
    fixture_boot(&fixture);
    assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_OK);
    uint64_t sequence = manifest_sequence(fixture.manifest);
    assert_true(sequence > 65);
    fixture_crash(&fixture, SIM_DROP_ALL);
    for (uint32_t index = 1; index <= LAST; index++)
        put_block(index, old + (size_t)index * KVS_BLOCK_BYTES);
    fixture_boot(&fixture);
    assert_int_equal(manifest_sequence(fixture.manifest), sequence);
    fixture_crash(&fixture, SIM_DROP_ALL);

    /* Of two files in one the newer is not lost in silence. */
    uint8_t newer[KVS_BLOCK_BYTES];
    get_block(0, newer);
    put_block(0, old);
    put_block(10, newer);
    expect_refused(&fixture, KVS_ERR_CORRUPT, (LAST + 1) * KVS_BLOCK_BYTES);
    free(old);
    fixture_deinit(&fixture);
}

static void test_manifest__of_another_store_is_refused(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    static const uint8_t other[16] = {9};
    fixture.options.store_uuid = other;
    expect_refused(&fixture, KVS_ERR_CORRUPT, 0);
    assert_non_null(strstr(fixture.message, "another store"));
    fixture.options.store_uuid = fixture_uuid;
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

static void test_manifest__unknown_version_is_refused_as_such(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    static const uint32_t blocks[] = {0, 3, LAST};
    for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
        uint8_t right[KVS_BLOCK_BYTES];
        union {
            struct manifest_block head;
            uint8_t bytes[KVS_BLOCK_BYTES];
        } wrong;
        get_block(blocks[i], right);
        memcpy(wrong.bytes, right, sizeof right);
        wrong.head.version = 7;
        wrong.head.snapshot_blocks = 0; /* whatever that means there */
        put_sealed(blocks[i], &wrong.head);
        expect_refused(&fixture, KVS_ERR_VERSION, (uint64_t)blocks[i] * KVS_BLOCK_BYTES);
        assert_non_null(strstr(fixture.message, "version 7"));
        put_block(blocks[i], right);
    }
    /* Behind the end, with a sequence that was reached long ago, it means nothing, now or later. */
    union {
        struct manifest_block head;
        uint8_t bytes[KVS_BLOCK_BYTES];
    } old = {.head = {.magic = MANIFEST_MAGIC, .version = 7}};
    put_sealed(LAST + 2, &old.head);
    fixture_boot(&fixture);
    fixture_change_durably(&fixture, 30, MANIFEST_LIVE, 1);
    fixture_crash(&fixture, SIM_DROP_ALL);
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

/* Numbers that no program writes; `offset` becomes where that is noticed, when it is not in this block. */
static void forge(unsigned way, struct manifest_block *head, struct manifest_entry *entry, uint64_t *offset)
{
    switch (way) {
    case 0:
        head->sequence = 0;
        break;
    case 1:
        head->sequence = UINT64_MAX;
        break;
    case 2:
        head->snapshot_blocks = 0;
        break;
    case 3:
        head->snapshot_blocks = 66;
        break;
    case 4:
        head->file_blocks = UINT32_MAX;
        *offset = 65 * KVS_BLOCK_BYTES;
        break;
    case 5:
        head->index = 1;
        break;
    case 6: /* in a snapshot nothing can be taken out */
        head->count = 1;
        *entry = (struct manifest_entry){.state = MANIFEST_GONE};
        break;
    case 7:
        head->snapshot_blocks = 8;
        *offset = KVS_BLOCK_BYTES;
        break;
    case 8:
        head->count = MANIFEST_BLOCK_ENTRIES + 1;
        break;
    case 9:
        head->count = UINT32_MAX;
        break;
    case 10:
        entry->state = 0;
        break;
    case 11:
        entry->state = MANIFEST_GONE + 1;
        break;
    case 12:
        entry->kind = 0;
        break;
    case 13:
        entry->kind = SEGMENT_RELOCATED + 1;
        break;
    case 14:
        entry->number = MANIFEST_SEGMENTS_MAX;
        break;
    case 15:
        entry->number = UINT32_MAX;
        break;
    case 16:
        head->index++;
        break;
    default:
        head->sequence++; /* not its own: damage, as there are others behind it */
        break;
    }
}

/* With right checksums. */
static void test_manifest__impossible_numbers_are_refused(void **state)
{
    (void)state;
    struct manifest_fixture fixture;
    make_store(&fixture);
    for (unsigned way = 0; way < 18; way++) {
        union {
            struct {
                struct manifest_block head;
                struct manifest_entry entry;
            };
            uint8_t bytes[KVS_BLOCK_BYTES];
        } block;
        uint32_t index = way < 8 ? 0 : 2;
        uint8_t right[KVS_BLOCK_BYTES];
        uint64_t offset = (uint64_t)index * KVS_BLOCK_BYTES;
        get_block(index, right);
        memcpy(block.bytes, right, sizeof right);
        forge(way, &block.head, &block.entry, &offset);
        put_sealed(index, &block.head);
        expect_refused(&fixture, KVS_ERR_CORRUPT, offset);
        if (way == 8 || way == 9)
            assert_non_null(strstr(fixture.message, "counts more entries"));
        put_block(index, right);
    }
    expect_whole(&fixture);
    fixture_deinit(&fixture);
}

/* Noise in any places: whatever is read is a beginning of what was written. */
static void test_manifest__random_damage_never_makes_entries(void **state)
{
    (void)state;
    unsigned refused = 0, cut = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct manifest_fixture fixture;
        make_store(&fixture);
        for (uint64_t skip = seed; skip > 0; skip--)
            (void)sim_random(2);
        for (uint64_t i = sim_random(3) + 1; i > 0; i--) {
            uint8_t junk[512];
            for (unsigned j = 0; j < sizeof junk; j++)
                junk[j] = (uint8_t)sim_random(256);
            sim_file_overwrite(MANIFEST_PATH, sim_random(12 * 8) * 512, junk, sizeof junk);
        }
        fixture.durable = 0;
        fixture.sequence = 0;
        enum kvs_err err = fixture_try_open(&fixture);
        if (err == KVS_ERR_OK) {
            fixture_check(&fixture);
            cut += fixture.count < CHANGES;
            fixture_crash(&fixture, SIM_DROP_ALL);
        } else {
            assert_int_equal(err, KVS_ERR_CORRUPT);
            refused++;
        }
        fixture_deinit(&fixture);
    }
    assert_true(refused > 100 && cut > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__torn_last_block_is_cut),
        cmocka_unit_test(test_manifest__damaged_block_before_the_last_is_refused),
        cmocka_unit_test(test_manifest__damaged_snapshot_is_refused),
        cmocka_unit_test(test_manifest__every_flipped_bit_is_noticed),
        cmocka_unit_test(test_manifest__file_of_another_size_is_refused),
        cmocka_unit_test(test_manifest__block_in_another_place_is_not_its_own),
        cmocka_unit_test(test_manifest__block_of_a_superseded_file_means_nothing),
        cmocka_unit_test(test_manifest__of_another_store_is_refused),
        cmocka_unit_test(test_manifest__unknown_version_is_refused_as_such),
        cmocka_unit_test(test_manifest__impossible_numbers_are_refused),
        cmocka_unit_test(test_manifest__random_damage_never_makes_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
