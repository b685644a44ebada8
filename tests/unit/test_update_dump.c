/*
 * test_update_dump.c - DUMP and RESTORE, payloads byte by byte, and their checksum.
 *
 * The payloads that stand here in bytes were made by Redis 7.0.15.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/crc64.h"
#include "node/dump_format.h"
#include "node/update_dump.h"

#include "update_fixture.h"

#include <stdlib.h>

#define WRONG   "ERR DUMP payload version or checksum are wrong"
#define BAD     "ERR Bad data format"
#define BUSY    "BUSYKEY Target key name already exists."
#define REPLACE UPDATE_RESTORE_REPLACE

#define OF_VALUE     "\x00\x05value\x0a\x00\x81\xf6\xc1\x38\xc1\xaa\x9b\x6e"
#define OF_10        "\x00\xc0\x0a\x0a\x00\x6e\x9f\x57\x45\x0e\xae\x63\xbb"
#define OF_MINUS_129 "\x00\xc1\x7f\xff\x0a\x00\x17\x60\x82\x28\x54\x80\x84\x80"
#define OF_70000     "\x00\xc2\x70\x11\x01\x00\x0a\x00\x01\xa4\x08\xfe\x95\x30\x95\xa5"
#define OF_2147483648 \
    "\x00\x0a"        \
    "2147483648\x0a\x00\xe7\xb1\x29\xa3\x4c\x1d\x76\xee"
#define OF_NOTHING "\x00\x00\x0a\x00\x5d\x9b\x5c\x40\x0f\x7f\xa2\xda"
#define OF_40_A    "\x00\xc3\x09\x28\x01\x61\x61\xe0\x1b\x00\x01\x61\x61\x0a\x00\xcf\x09\x2f\xaa\xae\x25\x83\x1d"
#define OF_HELLO   "\x00\xc3\x0f\x22\x07Hello, h\xe0\x0f\x06\x01o!\x0a\x00\xb8\x40\xde\xd5\x22\xf8\xbb\x35"

static void test_crc64(void **state)
{
    (void)state;
    assert_int_equal(crc64(0, "", 0), 0);
    assert_int_equal(crc64(0, "123456789", 9), 0xe9c6d914c4b8d9cau);
    uint8_t bytes[100];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i + 3 * i);
    uint64_t by_one = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        by_one = crc64(by_one, bytes + i, 1);
    for (size_t cut = 0; cut <= sizeof(bytes); cut++)
        assert_int_equal(crc64(crc64(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), by_one);
}

static void test_update_restore__payloads_of_redis(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.operand = BYTES(OF_VALUE), PUTS("value")},
        {.operand = BYTES(OF_10), PUTS("10")},
        {.operand = BYTES(OF_MINUS_129), PUTS("-129")},
        {.operand = BYTES(OF_70000), PUTS("70000")},
        {.operand = BYTES(OF_2147483648), PUTS("2147483648")},
        {.operand = BYTES(OF_NOTHING), PUTS("")},
        {.operand = BYTES(OF_40_A), PUTS("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")},
        {.operand = BYTES(OF_HELLO), PUTS("Hello, hello, hello, hello, hello!")},
    };
    UPDATE_CHECK(update_restore, cases);
}

static void test_update_restore__keys_and_times(void **state)
{
    (void)state;
    static const struct update_case cases[] = {
        {.operand = BYTES(OF_VALUE), HOLDS("old"), FAILS(BUSY)},
        {.operand = BYTES("nonsense"), .a = UPDATE_NOT_INTEGER, HOLDS("old"), FAILS(BUSY)},
        {.operand = BYTES("nonsense"), .a = UPDATE_NOT_INTEGER, FAILS("ERR value is not an integer or out of range")},
        {.option = REPLACE,
         .operand = BYTES(OF_VALUE),
         .a = UPDATE_NEGATIVE_TTL,
         HOLDS("old"),
         FAILS("ERR Invalid TTL value, must be >= 0")},
        {.option = REPLACE, .operand = BYTES(OF_VALUE), HOLDS("old"), .old_expires_ms = 5, PUTS("value")},
        {.operand = BYTES(OF_VALUE),
         .expires_ms = UPDATE_NOW_MS + 1,
         PUTS("value"),
         .put_expires_ms = UPDATE_NOW_MS + 1},
        {.operand = BYTES(OF_VALUE), .expires_ms = UPDATE_NOW_MS},
        {.option = REPLACE, .operand = BYTES(OF_VALUE), .expires_ms = 1, HOLDS("old"), .change = UPDATE_REMOVE},
        {.operand = BYTES(OF_VALUE), .value_bytes_max = 5, PUTS("value")},
        {.operand = BYTES(OF_VALUE),
         .value_bytes_max = 4,
         FAILS("ERR string exceeds maximum allowed size (proto-max-bulk-len)")},
        {.operand = BYTES(OF_40_A),
         .value_bytes_max = 39,
         FAILS("ERR string exceeds maximum allowed size (proto-max-bulk-len)")},
    };
    UPDATE_CHECK(update_restore, cases);
}

/* A payload of a body; the caller frees it. */
static struct slice seal(struct slice body, unsigned version)
{
    uint8_t *payload = malloc(body.size + 10);
    memcpy(payload, body.data, body.size);
    payload[body.size] = (uint8_t)version;
    payload[body.size + 1] = (uint8_t)(version >> 8);
    uint64_t checksum = crc64(0, payload, body.size + 2);
    memcpy(payload + body.size + 2, &checksum, sizeof(checksum));
    return slice_make(payload, body.size + 10);
}

static void check_body(struct slice body, unsigned version, struct update_case expected)
{
    expected.operand = seal(body, version);
    update_check(update_restore, &expected, 1);
    free((void *)(uintptr_t)expected.operand.data);
}

#define BODY(text) slice_make(text, sizeof(text) - 1)

static void test_update_restore__lengths_and_forms(void **state)
{
    (void)state;
    check_body(BODY("\0\x40\x03"
                    "abc"),
               9, (struct update_case){PUTS("abc")});
    check_body(BODY("\0\x80\0\0\0\x03"
                    "abc"),
               9, (struct update_case){PUTS("abc")});
    check_body(BODY("\0\x81\0\0\0\0\0\0\0\x03"
                    "abc"),
               9, (struct update_case){PUTS("abc")});
    check_body(BODY("\0\x03"
                    "abcde"),
               9, (struct update_case){PUTS("abc")}); /* what is behind it does not matter */
    check_body(BODY("\0\xc0\x80"), 9, (struct update_case){PUTS("-128")});
    check_body(BODY("\0\xc1\0\x80"), 9, (struct update_case){PUTS("-32768")});
    check_body(BODY("\0\xc2\0\0\0\x80"), 9, (struct update_case){PUTS("-2147483648")});
    check_body(BODY("\0\xc3\0\0"), 9, (struct update_case){PUTS("")});
    check_body(BODY("\0\xc3\x02\x01\0a"), 9, (struct update_case){PUTS("a")});
    check_body(BODY("\0\xc3\x04\x04\0a\x20\0"), 9, (struct update_case){PUTS("aaaa")});
}

static void test_update_restore__bad_bodies(void **state)
{
    (void)state;
    static const struct slice bodies[] = {
        BYTES(""),
        BYTES("\0"),
        BYTES("\1\0"),
        BYTES("\x0b\0"),
        BYTES("\0\x05"
              "abcd"),
        BYTES("\0\x40"),
        BYTES("\0\x80\0\0\0"),
        BYTES("\0\x80\xff\xff\xff\xff"
              "a"),
        BYTES("\0\x81\xff\xff\xff\xff\xff\xff\xff\xff"),
        BYTES("\0\x81\0\0\0\0\0\0\0"),
        BYTES("\0\x82\0\0\0\0"),
        BYTES("\0\xc0"),
        BYTES("\0\xc1\1"),
        BYTES("\0\xc2\1\1\1"),
        BYTES("\0\xc4\0"),
        BYTES("\0\xff"),
        /* Packed: lengths that are none, no bytes for them, runs that end early, reach back too far, or do not fit. */
        BYTES("\0\xc3"),
        BYTES("\0\xc3\x02"),
        BYTES("\0\xc3\xc0\x01\0a"),
        BYTES("\0\xc3\x02\xc0\0a"),
        BYTES("\0\xc3\x03\x01\0a"),
        BYTES("\0\xc3\x01\x01\0"),
        BYTES("\0\xc3\x02\x02\0a"),
        BYTES("\0\xc3\x03\x01\1ab"),
        BYTES("\0\xc3\x03\x04\0a\x20"),
        BYTES("\0\xc3\x04\x04\0a\x20\1"),
        BYTES("\0\xc3\x04\x03\0a\x20\0"),
        BYTES("\0\xc3\x03\x09\0a\xe0"),
        BYTES("\0\xc3\x04\x0a\0a\xe0\0"),
        BYTES("\0\xc3\x02\x03\x20\0"),
        BYTES("\0\xc3\xc2\x01\0a"),
        BYTES("\0\xc3\x02\xc1\0a"),
        /* Nothing of this size comes out of one byte: no memory is taken for it. */
        BYTES("\0\xc3\x01\x80\0\x08\0\0\0"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(bodies); i++)
        check_body(bodies[i], 11, (struct update_case){.value_bytes_max = 1u << 20, FAILS(BAD)});
    /* What it lacks would be in the footer. */
    check_body(BODY("\0\xc3\x04\x02\0a"), 0, (struct update_case){FAILS(BAD)});
}

static void test_update_restore__footer(void **state)
{
    (void)state;
    check_body(BODY("\0\x01"
                    "a"),
               0, (struct update_case){PUTS("a")});
    check_body(BODY("\0\x01"
                    "a"),
               11, (struct update_case){PUTS("a")});
    check_body(BODY("\0\x01"
                    "a"),
               12, (struct update_case){FAILS(WRONG)});
    check_body(BODY("\0\x01"
                    "a"),
               256, (struct update_case){FAILS(WRONG)});
    uint8_t payload[] = OF_VALUE;
    const size_t size = sizeof(payload) - 1;
    for (size_t at = 0; at < size; at++) {
        payload[at] ^= 0x10;
        const struct update_case given = {.operand = slice_make(payload, size), FAILS(WRONG)};
        update_check(update_restore, &given, 1);
        payload[at] ^= 0x10;
    }
    for (size_t cut = 0; cut < size; cut++) {
        const struct update_case given = {.operand = slice_make(payload, cut), FAILS(WRONG)};
        update_check(update_restore, &given, 1);
    }
}

/* Whatever is in a payload with a right checksum: it is a value within its limit, or refused. */
static void test_update_restore__random_bodies(void **state)
{
    (void)state;
    srand(5);
    for (unsigned round = 0; round < 100000; round++) {
        uint8_t body[40] = {0, 0xc3};
        size_t size = 2 + (size_t)rand() % (sizeof(body) - 2);
        for (size_t i = rand() % 4 != 0 ? 2 : 1; i < size; i++)
            body[i] = (uint8_t)(rand() % 3 != 0 ? rand() % 40 : rand());
        const struct update_case given = {.operand = seal(slice_make(body, size), 11), .value_bytes_max = 1000};
        struct update_bench bench;
        update_bench_init(&bench, 1u << 20);
        update_bench_run(&bench, update_restore, &given);
        assert_true(bench.out.change == UPDATE_KEEP || bench.out.change == UPDATE_PUT);
        assert_int_equal(bench.out.change == UPDATE_KEEP, bench.out.reply == UPDATE_ERROR);
        assert_true(bench.out.value.size <= 1000);
        update_bench_deinit(&bench);
        free((void *)(uintptr_t)given.operand.data);
    }
}

/* ---- DUMP ------------------------------------------------------------------------------------------------------- */

static void check_dump(struct slice value, struct slice body)
{
    struct update_case given = {
        .found = true, .old = value, .old_expires_ms = 5, .reply = UPDATE_BULK, .bytes = seal(body, DUMP_VERSION)};
    update_check(update_dump, &given, 1);
    struct update_case back = {
        .operand = given.bytes, .change = UPDATE_PUT, .value = value, .value_bytes_max = 1u << 20};
    struct update_bench bench;
    update_bench_init(&bench, 1u << 20);
    update_bench_run(&bench, update_restore, &back);
    update_assert_outcome(&bench.out, &back);
    update_bench_deinit(&bench);
    free((void *)(uintptr_t)given.bytes.data);
}

static void test_update_dump(void **state)
{
    (void)state;
    check_dump(BODY("value"), BODY("\0\x05value"));
    check_dump(BODY(""), BODY("\0\0"));
    check_dump(BODY("10"), BODY("\0\xc0\x0a"));
    check_dump(BODY("127"), BODY("\0\xc0\x7f"));
    check_dump(BODY("128"), BODY("\0\xc1\x80\0"));
    check_dump(BODY("-128"), BODY("\0\xc0\x80"));
    check_dump(BODY("-129"), BODY("\0\xc1\x7f\xff"));
    check_dump(BODY("32767"), BODY("\0\xc1\xff\x7f"));
    check_dump(BODY("32768"), BODY("\0\xc2\0\x80\0\0"));
    check_dump(BODY("-2147483648"), BODY("\0\xc2\0\0\0\x80"));
    check_dump(BODY("2147483648"), BODY("\0\x0a"
                                        "2147483648"));
    check_dump(BODY("007"), BODY("\0\x03"
                                 "007"));
    static const struct update_case missing = {.reply = UPDATE_NULL};
    update_check(update_dump, &missing, 1);
}

static void test_update_dump__lengths(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        struct slice head;
    } cases[] = {{63, BYTES("\0\x3f")},
                 {64, BYTES("\0\x40\x40")},
                 {16383, BYTES("\0\x7f\xff")},
                 {16384, BYTES("\0\x80\0\0\x40\0")}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint8_t *body = malloc(cases[i].head.size + cases[i].size);
        memcpy(body, cases[i].head.data, cases[i].head.size);
        memset(body + cases[i].head.size, 'x', cases[i].size);
        check_dump(slice_make(body + cases[i].head.size, cases[i].size),
                   slice_make(body, cases[i].head.size + cases[i].size));
        free(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc64),
        cmocka_unit_test(test_update_restore__payloads_of_redis),
        cmocka_unit_test(test_update_restore__keys_and_times),
        cmocka_unit_test(test_update_restore__lengths_and_forms),
        cmocka_unit_test(test_update_restore__bad_bodies),
        cmocka_unit_test(test_update_restore__footer),
        cmocka_unit_test(test_update_restore__random_bodies),
        cmocka_unit_test(test_update_dump),
        cmocka_unit_test(test_update_dump__lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
