/* test_frame.c - the binary protocol's frames: exact bytes, truncation at every byte, limits, refusals. */
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct frame_limits limits = {.key_bytes_max = 100, .value_bytes_max = 1000};

static const struct frame_header set_header = {.opcode = FRAME_SET, .flags = FRAME_RELAXED, .id = 0x1122334455667788};

static const uint8_t set_bytes[] = {
    0xf5, 0x03, 0x01, 0x00, 0x03, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 'k',  'e',  'y',  'v',  'a',  'l',  'u',  'e',
};

/* Parses a copy of exactly `size` bytes, so that a read past the end is caught; slices are made relative to `data`. */
static enum frame_result parse_exact(const uint8_t *data, size_t size, struct frame *frame)
{
    uint8_t *copy = malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy + 1, data, size); /* misaligned on purpose */
    const enum frame_result result = frame_parse(copy + 1, size, &limits, frame);
    if (result == FRAME_WHOLE) {
        frame->key.data = data + (frame->key.data - (copy + 1));
        frame->value.data = data + (frame->value.data - (copy + 1));
    }
    free(copy);
    return result;
}

static void test_frame__layout_on_the_wire(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct frame_header, magic), 0);
    assert_int_equal(offsetof(struct frame_header, opcode), 1);
    assert_int_equal(offsetof(struct frame_header, flags), 2);
    assert_int_equal(offsetof(struct frame_header, status), 3);
    assert_int_equal(offsetof(struct frame_header, key_bytes), 4);
    assert_int_equal(offsetof(struct frame_header, value_bytes), 8);
    assert_int_equal(offsetof(struct frame_header, id), 16);
    assert_int_equal(offsetof(struct frame_hello, version_max), 2);
    assert_int_equal(offsetof(struct frame_hello, key_bytes_max), 4);
    assert_int_equal(offsetof(struct frame_hello, value_bytes_max), 8);
    assert_int_equal(offsetof(struct frame_hello, requests_max), 12);
    assert_int_equal(offsetof(struct frame_hello, shard_count), 16);
    assert_int_equal(offsetof(struct frame_hello, hash_seed), 24);
}

static void test_frame__write_gives_the_specified_bytes(void **state)
{
    (void)state;
    uint8_t out[64];
    memset(out, 0xaa, sizeof out);
    const size_t size = frame_write(out, &set_header, slice_text("key"), slice_text("value"));
    assert_int_equal(size, sizeof set_bytes);
    assert_int_equal(size, frame_bytes(3, 5));
    assert_memory_equal(out, set_bytes, size);
    assert_int_equal(out[size], 0xaa);
}

static void test_frame__write_fills_in_magic_sizes_and_zeros(void **state)
{
    (void)state;
    struct frame_header header = set_header;
    header.magic = 1;
    header.key_bytes = 77;
    header.value_bytes = 77;
    header.reserved = 1;
    header.reserved2 = 1;
    uint8_t out[64];
    assert_int_equal(frame_write(out, &header, slice_text("key"), slice_text("value")), sizeof set_bytes);
    assert_memory_equal(out, set_bytes, sizeof set_bytes);
}

static void test_frame__what_is_written_is_parsed(void **state)
{
    (void)state;
    static const size_t key_sizes[] = {0, 1, 99, 100}, value_sizes[] = {0, 1, 255, 256, 999, 1000};
    uint8_t out[2048], key[100], value[1000];
    memset(key, 'k', sizeof key);
    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < ARRAY_COUNT(key_sizes); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(value_sizes); j++) {
            const struct frame_header header = {
                .opcode = FRAME_STATS, .flags = FRAME_REPLY, .status = FRAME_CORRUPT, .id = UINT64_MAX - i};
            const size_t size =
                frame_write(out, &header, slice_make(key, key_sizes[i]), slice_make(value, value_sizes[j]));
            struct frame frame;
            assert_int_equal(parse_exact(out, size, &frame), FRAME_WHOLE);
            assert_int_equal(frame.size, size);
            assert_int_equal(frame.header.opcode, FRAME_STATS);
            assert_int_equal(frame.header.flags, FRAME_REPLY);
            assert_int_equal(frame.header.status, FRAME_CORRUPT);
            assert_true(frame.header.id == UINT64_MAX - i);
            assert_true(slice_equal(frame.key, slice_make(key, key_sizes[i])));
            assert_true(slice_equal(frame.value, slice_make(value, value_sizes[j])));
            assert_ptr_equal(frame.value.data, out + 24 + key_sizes[i]);
        }
    }
}

static void test_frame__truncated_at_every_byte(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof set_bytes; size++) {
        struct frame frame;
        assert_int_equal(parse_exact(set_bytes, size, &frame), FRAME_MORE);
        assert_int_equal(frame.size, size < 24 ? 24 : sizeof set_bytes);
    }
}

static void test_frame__next_frame_is_left_alone(void **state)
{
    (void)state;
    uint8_t two[2 * sizeof set_bytes];
    memcpy(two, set_bytes, sizeof set_bytes);
    memset(two + sizeof set_bytes, 0xff, sizeof set_bytes);
    struct frame frame;
    assert_int_equal(parse_exact(two, sizeof two, &frame), FRAME_WHOLE);
    assert_int_equal(frame.size, sizeof set_bytes);
    assert_true(slice_equal(frame.value, slice_text("value")));
}

static void test_frame__wrong_first_byte_is_refused_at_once(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        uint8_t bytes[sizeof set_bytes];
        memcpy(bytes, set_bytes, sizeof bytes);
        bytes[0] = (uint8_t)first;
        struct frame frame;
        assert_int_equal(parse_exact(bytes, 1, &frame), first == 0xf5 ? FRAME_MORE : FRAME_INVALID);
        assert_int_equal(parse_exact(bytes, sizeof bytes, &frame), first == 0xf5 ? FRAME_WHOLE : FRAME_INVALID);
        assert_int_equal(frame.header.magic, first);
        assert_true(frame.header.id == set_header.id);
    }
}

static void test_frame__reserved_bytes_must_be_zero(void **state)
{
    (void)state;
    static const size_t reserved[] = {6, 7, 12, 13, 14, 15};
    for (size_t i = 0; i < ARRAY_COUNT(reserved); i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t bytes[sizeof set_bytes];
            memcpy(bytes, set_bytes, sizeof bytes);
            bytes[reserved[i]] = (uint8_t)(1u << bit);
            struct frame frame;
            assert_int_equal(parse_exact(bytes, 24, &frame), FRAME_INVALID);
            assert_true(frame.header.id == set_header.id); /* so that the refusal can name the request */
        }
    }
}

static void test_frame__limits_below_at_and_above(void **state)
{
    (void)state;
    static const struct {
        uint16_t key_bytes;
        uint32_t value_bytes;
        enum frame_result result;
    } cases[] = {
        {99, 999, FRAME_MORE},
        {100, 1000, FRAME_MORE},
        {101, 0, FRAME_OVER},
        {0, 1001, FRAME_OVER},
        {101, 1001, FRAME_OVER},
        {UINT16_MAX, 0, FRAME_OVER},
        {0, UINT32_MAX, FRAME_OVER},
        {100, 1001, FRAME_OVER},
        {101, 1000, FRAME_OVER},
        {0, 0, FRAME_WHOLE},
        {UINT16_MAX, UINT32_MAX, FRAME_OVER},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const struct frame_header header = {.magic = FRAME_MAGIC,
                                            .opcode = FRAME_SET,
                                            .key_bytes = cases[i].key_bytes,
                                            .value_bytes = cases[i].value_bytes,
                                            .id = 5};
        uint8_t bytes[24];
        memcpy(bytes, &header, sizeof bytes);
        struct frame frame;
        assert_int_equal(parse_exact(bytes, sizeof bytes, &frame), cases[i].result);
        assert_true(frame.size == 24 + (size_t)cases[i].key_bytes + cases[i].value_bytes);
        assert_true(frame.header.id == 5);
        assert_int_equal(parse_exact(bytes, 23, &frame), FRAME_MORE); /* nothing is judged before the header is there */
    }
}

static void test_frame__every_status_has_a_text_of_its_own(void **state)
{
    (void)state;
    for (unsigned i = FRAME_OK; i <= FRAME_DENIED; i++) {
        assert_string_not_equal(frame_status_text((uint8_t)i), "unknown status");
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(frame_status_text((uint8_t)i), frame_status_text((uint8_t)j));
    }
    for (unsigned i = FRAME_DENIED + 1; i < 256; i++)
        assert_string_equal(frame_status_text((uint8_t)i), "unknown status");
    assert_string_equal(frame_status_text(FRAME_NOT_FOUND), "not found");
    assert_string_equal(frame_status_text(FRAME_NO_SPACE), "no space");
}

/* The session of docs/PROTOCOL.md, byte for byte. */
static void test_frame__session_of_the_document(void **state)
{
    (void)state;
    const struct frame_hello client = {.version_min = 1, .version_max = 1};
    const struct frame_hello server = {.version_min = 1,
                                       .version_max = 1,
                                       .key_bytes_max = 65535,
                                       .value_bytes_max = 16777216,
                                       .requests_max = 1024,
                                       .shard_count = 2};
    const struct {
        struct frame_header header;
        struct slice key, value;
        const char *hex;
    } frames[] = {
        {{.opcode = FRAME_HELLO, .id = 1},
         slice_text(""),
         slice_make(&client, sizeof client),
         "F50000000000000020000000000000000100000000000000"
         "0100010000000000000000000000000000000000000000000000000000000000"},
        {{.opcode = FRAME_HELLO, .flags = FRAME_REPLY, .id = 1},
         slice_text(""),
         slice_make(&server, sizeof server),
         "F50080000000000020000000000000000100000000000000"
         "01000100FFFF0000000000010004000002000000000000000000000000000000"},
        {{.opcode = FRAME_SET, .id = 2},
         slice_text("key"),
         slice_text("value"),
         "F503000003000000050000000000000002000000000000006B657976616C7565"},
        {{.opcode = FRAME_GET, .id = 3},
         slice_text("key"),
         slice_text(""),
         "F502000003000000000000000000000003000000000000006B6579"},
        {{.opcode = FRAME_GET, .flags = FRAME_REPLY, .status = FRAME_NOT_FOUND, .id = 4},
         slice_text(""),
         slice_text(""),
         "F50280010000000000000000000000000400000000000000"},
        {{.opcode = FRAME_GET, .flags = FRAME_REPLY, .id = 3},
         slice_text(""),
         slice_text("value"),
         "F5028000000000000500000000000000030000000000000076616C7565"},
        {{.opcode = 99, .flags = FRAME_REPLY, .status = FRAME_BAD_REQUEST, .id = 5},
         slice_text(""),
         slice_text("unknown opcode"),
         "F563800200000000"
         "0E00000000000000"
         "0500000000000000"
         "756E6B6E6F776E206F70636F6465"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(frames); i++) {
        uint8_t out[128];
        char hex[257] = "";
        const size_t size = frame_write(out, &frames[i].header, frames[i].key, frames[i].value);
        for (size_t j = 0; j < size; j++)
            snprintf(hex + 2 * j, 3, "%02X", out[j]);
        assert_string_equal(hex, frames[i].hex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame__layout_on_the_wire),
        cmocka_unit_test(test_frame__write_gives_the_specified_bytes),
        cmocka_unit_test(test_frame__write_fills_in_magic_sizes_and_zeros),
        cmocka_unit_test(test_frame__what_is_written_is_parsed),
        cmocka_unit_test(test_frame__truncated_at_every_byte),
        cmocka_unit_test(test_frame__next_frame_is_left_alone),
        cmocka_unit_test(test_frame__wrong_first_byte_is_refused_at_once),
        cmocka_unit_test(test_frame__reserved_bytes_must_be_zero),
        cmocka_unit_test(test_frame__limits_below_at_and_above),
        cmocka_unit_test(test_frame__every_status_has_a_text_of_its_own),
        cmocka_unit_test(test_frame__session_of_the_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
