/*
 * test_acl_secret.c - derivation of passwords against OpenSSL's own, in steps of any size; the text of keys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/acl_secret.h"

#include <openssl/evp.h>

static void test_acl_secret__digest_is_sha256(void **state)
{
    (void)state;
    struct acl_hash digest;
    char text[2 * ACL_HASH_BYTES + 1];
    acl_digest(slice_text("abc"), &digest);
    acl_hex_write(text, digest.bytes, sizeof(digest.bytes));
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    acl_digest(slice_make(NULL, 0), &digest);
    acl_hex_write(text, digest.bytes, sizeof(digest.bytes));
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void test_acl_secret__key_is_pbkdf2_whatever_the_steps(void **state)
{
    (void)state;
    static const uint32_t rounds[] = {1, 2, 3, 100, 1000, 4097};
    static const uint32_t steps[] = {1, 7, 512, 100000};
    for (size_t i = 0; i < ARRAY_COUNT(rounds); i++) {
        struct acl_hash digest, expected;
        struct acl_salt salt = {.rounds = rounds[i]};
        memset(salt.bytes, (int)(17 * i + 3), sizeof(salt.bytes));
        acl_digest(slice_make(&rounds[i], sizeof(rounds[i])), &digest);
        assert_int_equal(PKCS5_PBKDF2_HMAC((const char *)digest.bytes, sizeof(digest.bytes), salt.bytes,
                                           sizeof(salt.bytes), (int)rounds[i], EVP_sha256(), sizeof(expected.bytes),
                                           expected.bytes),
                         1);
        for (size_t j = 0; j < ARRAY_COUNT(steps); j++) {
            struct acl_derivation derivation;
            acl_derive_begin(&derivation, &digest, &salt);
            unsigned taken = 0;
            while (!acl_derive(&derivation, steps[j]))
                taken++;
            assert_true(acl_hash_equal(&derivation.sum, &expected));
            assert_int_equal(taken, rounds[i] == 1 ? 0 : (rounds[i] - 2) / steps[j]);
        }
    }
}

static void test_acl_secret__one_bit_makes_a_difference(void **state)
{
    (void)state;
    struct acl_hash a = {{0}}, b = {{0}};
    assert_true(acl_hash_equal(&a, &b));
    for (unsigned bit = 0; bit < 8 * ACL_HASH_BYTES; bit++) {
        b = a;
        b.bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_false(acl_hash_equal(&a, &b));
    }
    struct acl_salt salt = {.rounds = 1000}, other = {.rounds = 1001};
    assert_false(acl_salt_equal(&salt, &other));
    other = salt;
    other.bytes[15] = 1;
    assert_false(acl_salt_equal(&salt, &other));
}

static void test_acl_secret__text_comes_back(void **state)
{
    (void)state;
    struct acl_salt salt = {.rounds = 100000}, salt_back;
    struct acl_hash key, key_back;
    char text[ACL_KEY_TEXT_BYTES];
    memset(salt.bytes, 0xA5, sizeof(salt.bytes));
    acl_digest(slice_text("x"), &key);
    acl_key_format(text, &salt, &key);
    assert_true(acl_key_parse(slice_text(text), &salt_back, &key_back));
    assert_true(acl_salt_equal(&salt, &salt_back) && acl_hash_equal(&key, &key_back));
    assert_false(acl_key_parse(slice_make(text, strlen(text) - 1), &salt_back, &key_back));
}

#define SALT "00112233445566778899aabbccddeeff"
#define KEY  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_acl_secret__other_texts_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "pbkdf2-sha256$",
        "pbkdf2-sha256$1000",
        "pbkdf2-sha256$1000$" SALT,
        "pbkdf2-sha256$999$" SALT "$" KEY,
        "pbkdf2-sha256$10000001$" SALT "$" KEY,
        "pbkdf2-sha256$-1000$" SALT "$" KEY,
        "pbkdf2-sha256$$" SALT "$" KEY,
        "pbkdf2-sha256$1000$" SALT "0$" KEY,
        "pbkdf2-sha256$1000$" SALT "$" KEY "0",
        "pbkdf2-sha256$1000$" SALT "$" KEY "$",
        "pbkdf2-sha256$1000$0011223344556677889gaabbccddeeff$" KEY,
        "pbkdf2-sha256$1000$00112233445566778899AABBCCDDEEFF$" KEY,
        "pbkdf2-sha512$1000$" SALT "$" KEY,
    };
    struct acl_salt salt;
    struct acl_hash key;
    assert_true(acl_key_parse(slice_text("pbkdf2-sha256$1000$" SALT "$" KEY), &salt, &key));
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        assert_false(acl_key_parse(slice_text(texts[i]), &salt, &key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acl_secret__digest_is_sha256),
        cmocka_unit_test(test_acl_secret__key_is_pbkdf2_whatever_the_steps),
        cmocka_unit_test(test_acl_secret__one_bit_makes_a_difference),
        cmocka_unit_test(test_acl_secret__text_comes_back),
        cmocka_unit_test(test_acl_secret__other_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
