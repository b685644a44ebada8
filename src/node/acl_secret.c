/*
 * acl_secret.c - PBKDF2-HMAC-SHA256 in steps, on OpenSSL's SHA-256.
 *
 *   HMAC(key, text) = SHA256(key ^ 5c… | SHA256(key ^ 36… | text)): the states after the first block of both are kept,
 *   so that each HMAC of 32 bytes costs two blocks
 *   key of 32 bytes = U1 ^ U2 ^ … ^ Un,  U1 = HMAC(digest, salt | 0 0 0 1),  Ui = HMAC(digest, Ui-1)
 *
 * The whole result is one block of PBKDF2. Nothing here fails.
 */
#include "node/acl_secret.h"

#include "base/assert.h"

#include <stdio.h>

static_assert(ACL_HASH_BYTES == SHA256_DIGEST_LENGTH, "one block of PBKDF2");

void acl_digest(struct slice password, struct acl_hash *out)
{
    (void)SHA256(password.data, password.size, out->bytes);
}

static bool bytes_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

bool acl_hash_equal(const struct acl_hash *a, const struct acl_hash *b)
{
    return bytes_equal(a->bytes, b->bytes, sizeof(a->bytes));
}

bool acl_salt_equal(const struct acl_salt *a, const struct acl_salt *b)
{
    return a->rounds == b->rounds && bytes_equal(a->bytes, b->bytes, sizeof(a->bytes));
}

static void keyed(SHA256_CTX *state, const struct acl_hash *digest, uint8_t pad)
{
    uint8_t block[SHA256_CBLOCK];
    memset(block, pad, sizeof(block));
    for (size_t i = 0; i < sizeof(digest->bytes); i++)
        block[i] ^= digest->bytes[i];
    (void)SHA256_Init(state);
    (void)SHA256_Update(state, block, sizeof(block));
    explicit_bzero(block, sizeof(block));
}

/* `text` may be `out`. */
static void hmac(const struct acl_derivation *derivation, const void *text, size_t size, struct acl_hash *out)
{
    SHA256_CTX state = derivation->inner;
    (void)SHA256_Update(&state, text, size);
    (void)SHA256_Final(out->bytes, &state);
    state = derivation->outer;
    (void)SHA256_Update(&state, out->bytes, sizeof(out->bytes));
    (void)SHA256_Final(out->bytes, &state);
}

void acl_derive_begin(struct acl_derivation *derivation, const struct acl_hash *digest, const struct acl_salt *salt)
{
    KVS_ASSERT(salt->rounds >= 1);
    uint8_t first[ACL_SALT_BYTES + 4] = {0};
    keyed(&derivation->inner, digest, 0x36);
    keyed(&derivation->outer, digest, 0x5c);
    memcpy(first, salt->bytes, sizeof(salt->bytes));
    first[sizeof(first) - 1] = 1;
    hmac(derivation, first, sizeof(first), &derivation->last);
    derivation->sum = derivation->last;
    derivation->left = salt->rounds - 1;
}

bool acl_derive(struct acl_derivation *derivation, uint32_t rounds)
{
    if (rounds > derivation->left)
        rounds = derivation->left;
    derivation->left -= rounds;
    for (; rounds > 0; rounds--) {
        hmac(derivation, derivation->last.bytes, sizeof(derivation->last.bytes), &derivation->last);
        for (size_t i = 0; i < sizeof(derivation->sum.bytes); i++)
            derivation->sum.bytes[i] ^= derivation->last.bytes[i];
    }
    return derivation->left == 0;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

#define KEY_PREFIX "pbkdf2-sha256$"

void acl_hex_write(char *out, const uint8_t *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * size] = 0;
}

static int hex_digit(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool acl_hex_read(struct slice text, uint8_t *out, size_t size)
{
    if (text.size != 2 * size)
        return false;
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

void acl_key_format(char text[ACL_KEY_TEXT_BYTES], const struct acl_salt *salt, const struct acl_hash *key)
{
    char salt_text[2 * ACL_SALT_BYTES + 1], key_text[2 * ACL_HASH_BYTES + 1];
    acl_hex_write(salt_text, salt->bytes, sizeof(salt->bytes));
    acl_hex_write(key_text, key->bytes, sizeof(key->bytes));
    snprintf(text, ACL_KEY_TEXT_BYTES, KEY_PREFIX "%u$%s$%s", salt->rounds, salt_text, key_text);
}

/* The part of `rest` up to the next '$', which is skipped. */
static struct slice next_part(struct slice *rest)
{
    const uint8_t *end = rest->size > 0 ? memchr(rest->data, '$', rest->size) : NULL;
    size_t size = end != NULL ? (size_t)(end - rest->data) : rest->size;
    struct slice part = slice_make(rest->data, size);
    size_t skip = size + (end != NULL);
    *rest = slice_make(rest->data + skip, rest->size - skip);
    return part;
}

bool acl_key_parse(struct slice text, struct acl_salt *salt, struct acl_hash *key)
{
    size_t prefix = strlen(KEY_PREFIX);
    if (text.size <= prefix || memcmp(text.data, KEY_PREFIX, prefix) != 0)
        return false;
    struct slice rest = slice_make(text.data + prefix, text.size - prefix);
    struct slice rounds = next_part(&rest);
    if (rounds.size == 0 || rounds.size > 8)
        return false;
    salt->rounds = 0;
    for (size_t i = 0; i < rounds.size; i++) {
        if (rounds.data[i] < '0' || rounds.data[i] > '9')
            return false;
        salt->rounds = salt->rounds * 10 + (rounds.data[i] - '0');
    }
    if (salt->rounds < ACL_ROUNDS_MIN || salt->rounds > ACL_ROUNDS_MAX)
        return false;
    return acl_hex_read(next_part(&rest), salt->bytes, sizeof(salt->bytes)) &&
           acl_hex_read(rest, key->bytes, sizeof(key->bytes));
}
