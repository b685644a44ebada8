/* test_crc32c.c - CRC32C against published vectors and against the definition, bit by bit. */
#include "base/crc32c.h"

#include "base/bytes.h"
#include "base/crc32c_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t size);

static bool always(void)
{
    return true;
}

static const struct {
    const char *name;
    crc_fn *compute;
    bool (*available)(void);
} ways[] = {
    {"chosen", crc32c, always},
    {"portable", crc32c_portable, always},
#ifdef __x86_64__
    {"serial", crc32c_serial, crc32c_has_serial},
    {"interleaved", crc32c_interleaved, crc32c_has_interleaved},
#endif
};

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint8_t *random_bytes(size_t size, uint64_t seed)
{
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random_next(&seed);
    return bytes;
}

static void test_crc32c__published_vectors(void **state)
{
    (void)state;
    uint8_t zeros[32], ones[32], rising[32], falling[32];
    for (unsigned i = 0; i < 32; i++) {
        zeros[i] = 0;
        ones[i] = 0xff;
        rising[i] = (uint8_t)i;
        falling[i] = (uint8_t)(31 - i);
    }
    static const uint8_t read_command[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
    };
    for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
        if (!ways[i].available())
            continue;
        crc_fn *crc = ways[i].compute;
        assert_int_equal(crc(0, "", 0), 0);
        assert_int_equal(crc(0, "123456789", 9), 0xE3069283u);
        assert_int_equal(crc(0, zeros, 32), 0x8A9136AAu); /* this and the next four: RFC 3720, B.4 */
        assert_int_equal(crc(0, ones, 32), 0x62A8AB43u);
        assert_int_equal(crc(0, rising, 32), 0x46DD794Eu);
        assert_int_equal(crc(0, falling, 32), 0x113FDB5Cu);
        assert_int_equal(crc(0, read_command, 48), 0xD9963A56u);
    }
}

static void test_crc32c__every_size_agrees_with_the_definition(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 900; size++) {
        uint8_t *bytes = random_bytes(size + 1, size + 1); /* of its own size: a read past the end is caught */
        const uint32_t expected = bit_by_bit(0x12345678u, bytes, size);
        for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
            if (ways[i].available() && ways[i].compute(0x12345678u, bytes, size) != expected)
                fail_msg("%s is wrong for %zu bytes", ways[i].name, size);
        }
        free(bytes);
    }
}

static void test_crc32c__long_inputs_around_the_block_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {959, 960, 3071, 3072, 3073, 3168, 4095, 4096, 6144, 65536, 100003};
    for (size_t s = 0; s < ARRAY_COUNT(sizes); s++) {
        for (size_t misalignment = 0; misalignment < 8; misalignment++) {
            uint8_t *bytes = random_bytes(sizes[s] + misalignment, sizes[s]);
            const uint32_t expected = bit_by_bit(0, bytes + misalignment, sizes[s]);
            for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
                if (ways[i].available() && ways[i].compute(0, bytes + misalignment, sizes[s]) != expected)
                    fail_msg("%s is wrong for %zu bytes at %zu", ways[i].name, sizes[s], misalignment);
            }
            free(bytes);
        }
    }
}

static void test_crc32c__parts_continue_one_another(void **state)
{
    (void)state;
    uint8_t *bytes = random_bytes(500, 99);
    const uint32_t whole = bit_by_bit(0, bytes, 500);
    for (size_t cut = 0; cut <= 500; cut++) {
        for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
            if (ways[i].available())
                assert_int_equal(ways[i].compute(ways[i].compute(0, bytes, cut), bytes + cut, 500 - cut), whole);
        }
    }
    free(bytes);
}

static void test_crc32c__one_flipped_bit_is_seen(void **state)
{
    (void)state;
    uint8_t *bytes = random_bytes(200, 7);
    const uint32_t whole = crc32c(0, bytes, 200);
    for (size_t bit = 0; bit < (size_t)200 * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(crc32c(0, bytes, 200), whole);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c__published_vectors),
        cmocka_unit_test(test_crc32c__every_size_agrees_with_the_definition),
        cmocka_unit_test(test_crc32c__long_inputs_around_the_block_sizes),
        cmocka_unit_test(test_crc32c__parts_continue_one_another),
        cmocka_unit_test(test_crc32c__one_flipped_bit_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
