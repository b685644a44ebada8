/*
 * test_recovery_scan.c - the torn-tail rule, at every byte of a batch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/recovery_scan.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEGMENT_BYTES = 64 * 1024, SEED = 12345 };

struct builder {
    uint8_t *bytes;
    uint32_t at;
    uint64_t lsn;
    uint64_t durable;
    uint64_t prev;
    uint64_t epoch;
    uint32_t seed;
};

static void builder_open(struct builder *builder)
{
    *builder = (struct builder){.at = KVS_BLOCK_BYTES, .lsn = 1, .epoch = 1, .seed = SEED};
    builder->bytes = calloc(1, SEGMENT_BYTES);
}

/* Adds a batch of records; returns its offset. */
static uint32_t add_batch(struct builder *builder, unsigned records, size_t value_bytes)
{
    uint32_t offset = builder->at;
    struct batch_header header = {.record_count = records,
                                  .first_lsn = builder->lsn,
                                  .prev_lsn = builder->prev,
                                  .durable_lsn = builder->durable,
                                  .epoch = builder->epoch,
                                  .flags = records == 0 ? BATCH_BOOT : 0};
    uint32_t at = offset + (uint32_t)sizeof header;
    uint8_t *value = malloc(value_bytes + 1);
    for (unsigned i = 0; i < records; i++) {
        char key[32];
        int key_bytes = snprintf(key, sizeof key, "key %lu", (unsigned long)builder->lsn);
        memset(value, (int)builder->lsn, value_bytes);
        struct record_header fields = {.lsn = builder->lsn++, .kind = RECORD_PUT};
        record_encode(builder->bytes + at, builder->seed, at, &fields, 0, slice_make(key, (size_t)key_bytes),
                      slice_make(value, value_bytes));
        at += (uint32_t)record_bytes((size_t)key_bytes, value_bytes);
    }
    free(value);
    header.bytes = at - offset;
    batch_header_seal(&header, builder->seed, offset);
    memcpy(builder->bytes + offset, &header, sizeof header);
    builder->prev = builder->lsn - 1;
    builder->at = (uint32_t)align_up(at, KVS_BLOCK_BYTES);
    return offset;
}

static void count_batch(void *context, const struct batch_header *batch, uint32_t offset)
{
    (void)offset;
    uint64_t *records = context;
    *records += batch->record_count;
}

static struct scan_result scan(const struct builder *builder, uint64_t *records)
{
    struct scan_segment segment = {
        .bytes = builder->bytes, .size = SEGMENT_BYTES, .seed = builder->seed, .epoch = builder->epoch};
    struct scan_result result;
    *records = 0;
    scan_batches(&segment, &result, count_batch, records);
    return result;
}

static void test_scan__whole_batches_are_all_found(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(result.batches, 0);
    assert_int_equal(result.end, KVS_BLOCK_BYTES);
    assert_false(result.damaged);
    add_batch(&builder, 0, 0);
    add_batch(&builder, 3, 100);
    add_batch(&builder, 20, 1000);
    result = scan(&builder, &records);
    assert_int_equal(result.batches, 3);
    assert_int_equal(records, 23);
    assert_int_equal(result.last_lsn, 23);
    assert_int_equal(result.end, builder.at);
    assert_int_equal(result.torn_bytes, 0);
    free(builder.bytes);
}

/* The last batch ends at every possible byte: written up to there, zeros or old bytes behind. */
static void test_scan__torn_tail_is_cut_at_every_byte(void **state)
{
    (void)state;
    for (unsigned leftover = 0; leftover < 2; leftover++) {
        struct builder builder;
        builder_open(&builder);
        add_batch(&builder, 2, 50);
        builder.durable = builder.lsn - 1;
        uint32_t offset = add_batch(&builder, 5, 200);
        const struct batch_header *header = (const void *)(builder.bytes + offset);
        /* Without the last record's alignment, which no checksum needs to cover. */
        uint32_t size = header->bytes - (uint32_t)(record_bytes(5, 200) - sizeof(struct record_header) - 5 - 200);
        uint8_t *whole = malloc(SEGMENT_BYTES);
        memcpy(whole, builder.bytes, SEGMENT_BYTES);
        uint64_t whole_bytes = align_up(header->bytes, KVS_BLOCK_BYTES);
        uint32_t headers_whole = 0;
        for (uint32_t written = 0; written < size; written++) {
            memcpy(builder.bytes, whole, SEGMENT_BYTES);
            memset(builder.bytes + offset + written, leftover == 0 ? 0 : 0xA5, size - written);
            if (memcmp(builder.bytes, whole, SEGMENT_BYTES) == 0)
                continue; /* what was cut off had been zeros */
            uint64_t records;
            struct scan_result result = scan(&builder, &records);
            assert_int_equal(records, 2);
            assert_int_equal(result.end, offset);
            assert_int_equal(result.last_lsn, 2);
            assert_false(result.damaged);
            /* Only a header that has arrived tells how far the batch was to reach; other bytes may be as old as the
             * file. */
            bool header_whole = memcmp(builder.bytes + offset, whole + offset, sizeof *header) == 0;
            assert_int_equal(result.torn_bytes, header_whole ? whole_bytes : 0);
            headers_whole += header_whole;
        }
        assert_in_range(headers_whole, size / 2, size - 1);
        free(whole);
        free(builder.bytes);
    }
}

/* A file that is used again is full of an earlier segment's batches, which say nothing about this one. */
static void test_scan__what_an_earlier_life_has_left_means_nothing(void **state)
{
    (void)state;
    struct builder before, builder;
    builder_open(&before);
    for (unsigned i = 0; i < 8; i++)
        add_batch(&before, 3, 40);
    builder_open(&builder);
    builder.seed = SEED + 1;
    add_batch(&builder, 2, 50);
    uint32_t end = add_batch(&builder, 1, 50) + KVS_BLOCK_BYTES;
    memcpy(builder.bytes + end, before.bytes + end, SEGMENT_BYTES - end);
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(records, 3);
    assert_int_equal(result.end, end);
    assert_int_equal(result.torn_bytes, 0);
    assert_false(result.damaged);
    assert_false(result.claim);
    free(before.bytes);
    free(builder.bytes);
}

static void test_scan__any_flipped_bit_ends_the_log_there(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    add_batch(&builder, 1, 20);
    uint32_t offset = add_batch(&builder, 3, 40);
    uint32_t bits = ((const struct batch_header *)(const void *)(builder.bytes + offset))->bytes * 8;
    unsigned unnoticed = 0;
    for (uint32_t bit = 0; bit < bits; bit++) {
        uint8_t *byte = &builder.bytes[offset + bit / 8];
        *byte ^= (uint8_t)(1u << bit % 8);
        uint64_t records;
        struct scan_result result = scan(&builder, &records);
        if (records != 1) {
            /* Only padding between records is not covered by a checksum. */
            assert_int_equal(records, 4);
            unnoticed++;
        } else {
            assert_int_equal(result.end, offset);
        }
        *byte ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(unnoticed < 3 * RECORD_ALIGN * 8);
    free(builder.bytes);
}

static void test_scan__damage_below_the_watermark_is_proven(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    add_batch(&builder, 2, 50);
    uint32_t offset = add_batch(&builder, 5, 200);
    builder.durable = builder.lsn - 1;
    uint32_t proof = add_batch(&builder, 1, 10);
    builder.bytes[offset + 100] ^= 1;
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(records, 2);
    assert_true(result.damaged);
    assert_int_equal(result.end, offset);
    assert_int_equal(result.proof_offset, proof);
    assert_int_equal(result.proof_lsn, 7);
    free(builder.bytes);
}

/* Two batches were in flight: the second arrived, the first did not. Neither was acknowledged. */
static void test_scan__batch_behind_a_torn_one_proves_nothing(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    add_batch(&builder, 2, 50);
    builder.durable = 2;
    uint32_t offset = add_batch(&builder, 5, 200);
    add_batch(&builder, 1, 10);
    memset(builder.bytes + offset, 0, 512);
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(records, 2);
    assert_false(result.damaged);
    assert_int_equal(result.torn_bytes, builder.at - offset);
    free(builder.bytes);
}

static void test_scan__missing_first_batch_leaves_a_claim_of_the_one_behind_it(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    add_batch(&builder, 2, 50);
    builder.durable = 2;
    add_batch(&builder, 1, 10);
    builder.bytes[KVS_BLOCK_BYTES + 5] ^= 1;
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(records, 0);
    assert_false(result.damaged);
    assert_true(result.claim);
    assert_int_equal(result.claim_lsn, 2);
    assert_int_equal(result.claim_offset, 2 * KVS_BLOCK_BYTES);
    /* Of an earlier boot than the latest it is proof: that boot's tail was settled long ago. */
    builder.epoch = 2;
    assert_true(scan(&builder, &records).damaged);
    free(builder.bytes);
}

/* A later boot writes only behind what it has found, so its batches prove what stands before them. */
static void test_scan__batch_of_a_later_boot_is_proof(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    add_batch(&builder, 2, 50);
    uint32_t offset = add_batch(&builder, 3, 50);
    builder.epoch = 2;
    add_batch(&builder, 0, 0);
    builder.bytes[offset + 80] ^= 1;
    uint64_t records;
    assert_true(scan(&builder, &records).damaged);
    free(builder.bytes);
}

static void test_scan__batch_of_an_earlier_boot_is_no_continuation(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    builder.epoch = 2;
    add_batch(&builder, 2, 50);
    builder.epoch = 1;
    add_batch(&builder, 3, 50);
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(records, 2);
    assert_false(result.damaged);
    free(builder.bytes);
}

/* Bytes that were valid in another place, or under another segment's seed, are not taken for a batch. */
static void test_scan__batch_in_another_place_is_not_valid(void **state)
{
    (void)state;
    struct builder builder;
    builder_open(&builder);
    uint32_t first = add_batch(&builder, 2, 50);
    builder.prev = 0;
    builder.lsn = 1;
    uint32_t second = add_batch(&builder, 2, 50);
    memcpy(builder.bytes + first, builder.bytes + second, KVS_BLOCK_BYTES);
    uint64_t records;
    struct scan_result result = scan(&builder, &records);
    assert_int_equal(result.end, KVS_BLOCK_BYTES);
    assert_int_equal(records, 0);
    struct scan_segment other = {.bytes = builder.bytes, .size = SEGMENT_BYTES, .seed = SEED + 1};
    scan_batches(&other, &result, count_batch, &records);
    assert_int_equal(records, 0);
    free(builder.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan__whole_batches_are_all_found),
        cmocka_unit_test(test_scan__torn_tail_is_cut_at_every_byte),
        cmocka_unit_test(test_scan__what_an_earlier_life_has_left_means_nothing),
        cmocka_unit_test(test_scan__any_flipped_bit_ends_the_log_there),
        cmocka_unit_test(test_scan__damage_below_the_watermark_is_proven),
        cmocka_unit_test(test_scan__batch_behind_a_torn_one_proves_nothing),
        cmocka_unit_test(test_scan__missing_first_batch_leaves_a_claim_of_the_one_behind_it),
        cmocka_unit_test(test_scan__batch_of_a_later_boot_is_proof),
        cmocka_unit_test(test_scan__batch_of_an_earlier_boot_is_no_continuation),
        cmocka_unit_test(test_scan__batch_in_another_place_is_not_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
