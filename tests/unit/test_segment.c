/*
 * test_segment.c - names and numbers of segments, the life of their images, addresses and size classes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/index.h"
#include "engine/segment.h"

#include <stdlib.h>

static void test_segment__only_its_own_names_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool valid, unfinished;
        uint32_t number;
    } cases[] = {
        {"000042.seg", true, false, 42},
        {"000042.seg.new", true, true, 42},
        {"1234567.seg", true, false, 1234567},
        {"42.seg", false, false, 0},
        {"0000042.seg", false, false, 0},
        {"000042.seg.old", false, false, 0},
        {"-00042.seg", false, false, 0},
        {" 00042.seg", false, false, 0},
        {"superblock", false, false, 0},
        {"4294967296.seg", false, false, 0},
        {"", false, false, 0},
        {"99999999999999999999.seg", false, false, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t number = 0;
        bool unfinished = false;
        assert_int_equal(segment_name_parse(cases[i].name, &number, &unfinished), cases[i].valid);
        if (!cases[i].valid)
            continue;
        assert_int_equal(number, cases[i].number);
        assert_int_equal(unfinished, cases[i].unfinished);
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, number, unfinished ? ".new" : "");
        assert_string_equal(name, cases[i].name);
    }
}

static void test_segment__numbers_are_given_out_once(void **state)
{
    (void)state;
    struct segment_table table;
    assert_int_equal(segment_table_init(&table, 1 << 20), KVS_ERR_OK);
    segment_number_seen(&table, 4);
    assert_int_equal(segment_number_take(&table), 5);
    assert_int_equal(segment_number_take(&table), 6);
    segment_number_seen(&table, 2);
    assert_int_equal(segment_number_take(&table), 7);
    assert_null(segment_get(&table, 5));
    assert_null(segment_get(&table, UINT32_MAX));
    segment_table_deinit(&table);
}

static void test_segment__addresses_reach_every_place(void **state)
{
    (void)state;
    for (unsigned shift = 18; shift <= 30; shift++) {
        uint32_t segments = 1u << (INDEX_ADDRESS_BITS + 4 - shift);
        static const uint32_t offsets[] = {0, 4096, 4160};
        for (unsigned i = 0; i < ARRAY_COUNT(offsets) + 1; i++) {
            uint32_t offset = i < ARRAY_COUNT(offsets) ? offsets[i] : (1u << shift) - RECORD_ALIGN;
            uint64_t address = address_make(segments - 1, offset, shift);
            assert_true(address <= INDEX_ADDRESS_MASK);
            assert_int_equal(address_segment(address, shift), segments - 1);
            assert_int_equal(address_offset(address, shift), offset);
        }
    }
}

static void test_record__its_class_tells_enough_bytes(void **state)
{
    (void)state;
    for (uint64_t bytes = 32; bytes <= 4u * 1024 * 1024; bytes += 16 + bytes / 7 / 16 * 16) {
        unsigned class = record_class(bytes);
        assert_true(class <= INDEX_CLASS_MAX);
        if (class < INDEX_CLASS_MAX)
            assert_true(record_class_bytes(class) >= bytes);
        if (class > 0 && class < INDEX_CLASS_MAX)
            assert_true(record_class_bytes(class - 1) < bytes);
    }
    assert_int_equal(record_class(4u * 1024 * 1024), 14);
    assert_int_equal(record_class(4u * 1024 * 1024 + 16), 15);
}

/* An image goes when the pool is full, the oldest first, but only when no reader's section can still see it. */
static void test_image__is_reused_only_after_its_last_reader(void **state)
{
    (void)state;
    struct epoch epoch;
    struct epoch_thread *owner = aligned_alloc(64, align_up(sizeof *owner, 64));
    struct epoch_thread *reader = aligned_alloc(64, align_up(sizeof *reader, 64));
    memset(owner, 0, sizeof *owner);
    memset(reader, 0, sizeof *reader);
    epoch_init(&epoch);
    epoch_register(&epoch, owner);
    epoch_register(&epoch, reader);
    struct segment_table table;
    struct image_pool pool;
    assert_int_equal(segment_table_init(&table, 1 << 20), KVS_ERR_OK);
    assert_int_equal(image_pool_init(&pool, 1 << 20, 4, owner), KVS_ERR_OK);
    struct segment *segments[4];
    for (uint32_t i = 0; i < 4; i++) {
        segments[i] = segment_add(&table, segment_number_take(&table), -1);
        segment_set_state(segments[i], SEGMENT_SEALED);
        uint8_t *image = image_take(&pool);
        assert_non_null(image);
        image_attach(&pool, segments[i], image);
    }
    epoch_begin(reader);
    uint8_t *seen = segment_image(segments[0]);
    assert_non_null(seen);
    for (unsigned turn = 0; turn < 10; turn++) {
        assert_null(image_take(&pool));
        epoch_poll(owner);
    }
    assert_null(segment_image(segments[0]));
    assert_non_null(segment_image(segments[1]));
    epoch_end(reader);
    uint8_t *image = NULL;
    for (unsigned turn = 0; turn < 10 && image == NULL; turn++) {
        epoch_poll(owner);
        image = image_take(&pool);
    }
    assert_ptr_equal(image, seen);
    image_give(&pool, image);
    epoch_drain(owner);
    image_pool_deinit(&pool);
    segment_table_deinit(&table);
    free(owner);
    free(reader);
}

/* A write may be under way from an image until its segment is sealed, and only then does another go in its place. */
static void test_image__stays_until_its_segment_is_sealed(void **state)
{
    (void)state;
    static const enum segment_state in_use[] = {SEGMENT_SPARE, SEGMENT_OPEN, SEGMENT_OPEN};
    struct epoch epoch;
    struct epoch_thread *owner = aligned_alloc(64, align_up(sizeof *owner, 64));
    memset(owner, 0, sizeof *owner);
    epoch_init(&epoch);
    epoch_register(&epoch, owner);
    struct segment_table table;
    struct image_pool pool;
    assert_int_equal(segment_table_init(&table, 1 << 20), KVS_ERR_OK);
    assert_int_equal(image_pool_init(&pool, 1 << 20, ARRAY_COUNT(in_use), owner), KVS_ERR_OK);
    struct segment *segments[ARRAY_COUNT(in_use)];
    for (uint32_t i = 0; i < ARRAY_COUNT(in_use); i++) {
        segments[i] = segment_add(&table, segment_number_take(&table), -1);
        segment_set_state(segments[i], in_use[i]);
        image_attach(&pool, segments[i], image_take(&pool));
    }
    for (unsigned turn = 0; turn < 10; turn++) {
        assert_null(image_take(&pool));
        assert_null(image_take_unused(&pool));
        epoch_poll(owner);
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(in_use); i++)
        assert_non_null(segment_image(segments[i]));
    segment_set_state(segments[1], SEGMENT_SEALED);
    uint8_t *image = NULL;
    for (unsigned turn = 0; turn < 10 && image == NULL; turn++) {
        image = image_take(&pool);
        epoch_poll(owner);
    }
    assert_non_null(image);
    assert_null(segment_image(segments[1]));
    assert_true(image_gone(segments[1]));
    assert_non_null(segment_image(segments[0]));
    assert_non_null(segment_image(segments[2]));
    image_give(&pool, image);
    epoch_drain(owner);
    image_pool_deinit(&pool);
    segment_table_deinit(&table);
    free(owner);
}

/* A record that takes so many bytes. */
static void count_one(struct segment *segment, enum record_kind kind, uint32_t bytes, uint64_t lsn, int by)
{
    bool expires = kind == RECORD_PUT && lsn == 10;
    struct record_header record = {.kind = (uint8_t)kind,
                                   .lsn = lsn,
                                   .value_bytes = bytes - (uint32_t)sizeof record - (expires ? RECORD_EXPIRY_BYTES : 0),
                                   .flags = expires ? RECORD_EXPIRES : 0,
                                   .extra_bytes = expires ? RECORD_EXPIRY_BYTES : 0};
    segment_count_record(segment, &record, by);
}

/* What a segment has counted says nothing about the next one in its file. */
static void test_segment__another_life_begins_with_nothing(void **state)
{
    (void)state;
    struct segment_table table;
    assert_int_equal(segment_table_init(&table, 1 << 20), KVS_ERR_OK);
    struct segment *segment = segment_add(&table, segment_number_take(&table), -1);
    assert_int_equal(segment_state(segment), SEGMENT_FREE);
    segment_begin(segment, SEGMENT_LOG, 7, 8);
    count_one(segment, RECORD_PUT, 400, 12, 1);
    count_one(segment, RECORD_PUT, 80, 10, 1);
    count_one(segment, RECORD_PUT, 96, 13, 1);
    count_one(segment, RECORD_PUT, 96, 13, -1);
    count_one(segment, RECORD_DELETE, 48, 11, 1);
    count_one(segment, RECORD_DELETE, 48, 14, 1);
    segment_count_dead(segment, 1, 1);
    assert_int_equal(segment->puts, 2);
    assert_int_equal(segment->deletes, 2);
    assert_int_equal(segment->record_bytes, 400 + 80 + 48 + 48);
    assert_int_equal(segment->record_bytes_max, 400);
    assert_int_equal(segment->put_units, 3);
    assert_int_equal(atomic_load(&segment->min_lsn), 10);
    assert_int_equal(segment->deletes_min_lsn, 11);
    assert_int_equal(segment->deletes_last_lsn, 14);
    assert_int_equal(segment->expiring, 1);
    assert_int_equal(segment->expiring_last_lsn, 10);
    uint32_t lives = atomic_load(&segment->lives);
    assert_int_equal(atomic_load(&segment->dead_puts), 1);
    assert_int_equal(atomic_load(&segment->dead_units), 2);

    segment_begin(segment, SEGMENT_RELOCATED, 9, 10);
    assert_int_equal(segment->uid, 9);
    assert_int_equal(segment->seed, 10);
    assert_int_equal(segment->kind, SEGMENT_RELOCATED);
    assert_int_equal(segment->puts + segment->deletes + segment->record_bytes + segment->put_units, 0);
    assert_int_equal(segment->end, KVS_BLOCK_BYTES);
    assert_int_equal(atomic_load(&segment->min_lsn), UINT64_MAX);
    assert_int_equal(atomic_load(&segment->dead_puts) + atomic_load(&segment->dead_units), 0);
    assert_int_equal(segment->expiring, 0);
    assert_int_equal(segment->expiring_last_lsn, 0);
    assert_int_equal(atomic_load(&segment->lives), lives + 1);
    segment_table_deinit(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment__only_its_own_names_are_parsed),
        cmocka_unit_test(test_segment__numbers_are_given_out_once),
        cmocka_unit_test(test_segment__addresses_reach_every_place),
        cmocka_unit_test(test_record__its_class_tells_enough_bytes),
        cmocka_unit_test(test_image__is_reused_only_after_its_last_reader),
        cmocka_unit_test(test_image__stays_until_its_segment_is_sealed),
        cmocka_unit_test(test_segment__another_life_begins_with_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
