/* test_hash.c - the key hash: the values that data directories rely on, and an even spread over shards. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The sanity buffer of xxHash's own tests: its published vectors are over this. */
static void fill_sanity(uint8_t *bytes, size_t size)
{
    uint64_t generator = 2654435761u;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(generator >> 56);
        generator *= 11400714785074694797u;
    }
}

static void test_hash__published_vectors(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint64_t seed, hash;
    } vectors[] = {
        {0, 0x0, 0x2d06800538d394c2},    {0, 0x9e3779b185ebca8d, 0xa8a6b918b2f0364a},
        {1, 0x0, 0xc44bdff4074eecdb},    {1, 0x9e3779b185ebca8d, 0x032be332dd766ef8},
        {6, 0x0, 0x27b56a84cd2d7325},    {6, 0x9e3779b185ebca8d, 0x84589c116ab59ab9},
        {12, 0x0, 0xa713daf0dfbb77e7},   {12, 0x9e3779b185ebca8d, 0xe7303e1b2336de0e},
        {24, 0x0, 0xa3fe70bf9d3510eb},   {24, 0x9e3779b185ebca8d, 0x850e80fc35bdd690},
        {48, 0x0, 0x397da259ecba1f11},   {48, 0x9e3779b185ebca8d, 0xadc2cbaa44acc616},
        {80, 0x0, 0xbcdefbbb2c47c90a},   {80, 0x9e3779b185ebca8d, 0xc6dd0cb699532e73},
        {195, 0x0, 0xcd94217ee362ec3a},  {195, 0x9e3779b185ebca8d, 0xba68003d370cb3d9},
        {403, 0x0, 0xcdeb804d65c6dea4},  {403, 0x9e3779b185ebca8d, 0x6259f6ecfd6443fd},
        {512, 0x0, 0x617e49599013cb6b},  {512, 0x9e3779b185ebca8d, 0x3ce457de14c27708},
        {2048, 0x0, 0xdd59e2c3a5f038e0}, {2048, 0x9e3779b185ebca8d, 0x66f81670669ababc},
        {2240, 0x0, 0x6e73a90539cf2948}, {2240, 0x9e3779b185ebca8d, 0x757ba8487d1b5247},
        {2367, 0x0, 0xcb37aeb9e5d361ed}, {2367, 0x9e3779b185ebca8d, 0xd2db3415b942b42a},
    };
    uint8_t bytes[2367];
    fill_sanity(bytes, sizeof bytes);
    for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
        const uint64_t hash = hash_key(slice_make(bytes, vectors[i].size), vectors[i].seed);
        if (hash != vectors[i].hash)
            fail_msg("%zu bytes, seed %llx: %llx", vectors[i].size, (unsigned long long)vectors[i].seed,
                     (unsigned long long)hash);
    }
}

static void test_hash__key_is_read_to_its_end_and_no_further(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 300; size++) {
        uint8_t *key = malloc(size); /* of its own size: a read past the end is caught */
        assert_non_null(key);
        fill_sanity(key, size);
        const uint64_t before = hash_key(slice_make(key, size), 1);
        for (size_t i = 0; i < size; i++) {
            key[i] ^= 1;
            assert_true(hash_key(slice_make(key, size), 1) != before);
            key[i] ^= 1;
        }
        free(key);
    }
}

static void test_hash__seed_changes_every_key(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        char key[32];
        snprintf(key, sizeof key, "key:%u", i);
        assert_true(hash_key(slice_text(key), 1) != hash_key(slice_text(key), 2));
    }
}

static void test_hash__shards_get_even_shares(void **state)
{
    (void)state;
    enum { KEYS = 100000, SHARDS_MAX = 64 };
    for (unsigned shard_count = 1; shard_count <= SHARDS_MAX; shard_count++) {
        unsigned keys[SHARDS_MAX] = {0};
        for (unsigned i = 0; i < KEYS; i++) {
            const uint64_t hash = hash_key(slice_make(&i, sizeof i), 7);
            const unsigned shard = hash_shard(hash, shard_count);
            assert_true(shard < shard_count);
            keys[shard]++;
        }
        for (unsigned shard = 0; shard < shard_count; shard++)
            assert_in_range(keys[shard], KEYS / shard_count * 85 / 100, KEYS / shard_count * 115 / 100 + 1);
    }
}

static void test_hash__shard_is_within_bounds_at_the_ends(void **state)
{
    (void)state;
    assert_int_equal(hash_shard(0, 65535), 0);
    assert_int_equal(hash_shard(UINT64_MAX, 65535), 65534);
    assert_int_equal(hash_shard(UINT64_MAX, 1), 0);
    assert_int_equal(hash_shard(UINT64_MAX, 64), 63);
    assert_int_equal(hash_shard(UINT64_MAX >> 16, 64), 0); /* the index's bits have no say */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash__published_vectors),
        cmocka_unit_test(test_hash__key_is_read_to_its_end_and_no_further),
        cmocka_unit_test(test_hash__seed_changes_every_key),
        cmocka_unit_test(test_hash__shards_get_even_shares),
        cmocka_unit_test(test_hash__shard_is_within_bounds_at_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
