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
        segments[i] = segment_add(&table, segment_number_take(&table), i, 0, -1);
        uint8_t *image = image_take(&pool, NULL);
        assert_non_null(image);
        image_attach(&pool, segments[i], image);
    }
    epoch_begin(reader);
    uint8_t *seen = segment_image(segments[0]);
    assert_non_null(seen);
    for (unsigned turn = 0; turn < 10; turn++) {
        assert_null(image_take(&pool, segments[3]));
        epoch_poll(owner);
    }
    assert_null(segment_image(segments[0]));
    assert_non_null(segment_image(segments[1]));
    epoch_end(reader);
    uint8_t *image = NULL;
    for (unsigned turn = 0; turn < 10 && image == NULL; turn++) {
        epoch_poll(owner);
        image = image_take(&pool, segments[3]);
    }
    assert_ptr_equal(image, seen);
    image_give(&pool, image);
    epoch_drain(owner);
    image_pool_deinit(&pool);
    segment_table_deinit(&table);
    free(owner);
    free(reader);
}

/* A write may be under way from the two youngest images. */
static void test_image__the_two_youngest_stay(void **state)
{
    (void)state;
    struct epoch epoch;
    struct epoch_thread *owner = aligned_alloc(64, align_up(sizeof *owner, 64));
    memset(owner, 0, sizeof *owner);
    epoch_init(&epoch);
    epoch_register(&epoch, owner);
    struct segment_table table;
    struct image_pool pool;
    assert_int_equal(segment_table_init(&table, 1 << 20), KVS_ERR_OK);
    assert_int_equal(image_pool_init(&pool, 1 << 20, 2, owner), KVS_ERR_OK);
    for (uint32_t i = 0; i < 2; i++) {
        struct segment *segment = segment_add(&table, segment_number_take(&table), i, 0, -1);
        image_attach(&pool, segment, image_take(&pool, NULL));
    }
    for (unsigned turn = 0; turn < 10; turn++) {
        assert_null(image_take(&pool, NULL));
        epoch_poll(owner);
    }
    assert_non_null(segment_image(segment_get(&table, 0)));
    assert_non_null(segment_image(segment_get(&table, 1)));
    image_pool_deinit(&pool);
    segment_table_deinit(&table);
    free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment__only_its_own_names_are_parsed),
        cmocka_unit_test(test_segment__numbers_are_given_out_once),
        cmocka_unit_test(test_segment__addresses_reach_every_place),
        cmocka_unit_test(test_record__its_class_tells_enough_bytes),
        cmocka_unit_test(test_image__is_reused_only_after_its_last_reader),
        cmocka_unit_test(test_image__the_two_youngest_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
