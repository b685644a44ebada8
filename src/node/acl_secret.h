/*
 * acl_secret.h - passwords: what is kept of them, and how one is compared.
 *
 * What is kept is PBKDF2-HMAC-SHA256 (RFC 8018) of the password's SHA-256, with a salt of each user's own. The SHA-256
 * in between is what Redis keeps: so rules that name a password by it (#…, !…) work here, too, and such a user can be
 * brought along. Nothing but salt, rounds and the derived key goes to a file.
 *
 * A derivation takes some 20 ms, which no shard may be without its thread: so it is done in steps, as many rounds at a
 * time as the caller can spare (derive.h).
 *
 * Pure; any thread.
 */
#ifndef KVS_NODE_ACL_SECRET_H
#define KVS_NODE_ACL_SECRET_H

#include "base/bytes.h"

#define OPENSSL_SUPPRESS_DEPRECATED  /* the plain SHA-256 calls: their state can be copied, and they allocate nothing \
                                      */
#include <openssl/sha.h>
#include <stdbool.h>

#define ACL_SALT_BYTES 16u
#define ACL_HASH_BYTES 32u
#define ACL_ROUNDS     100000u /* for new salts */
#define ACL_ROUNDS_MIN 1000u
#define ACL_ROUNDS_MAX 10000000u

/* SHA-256 of a password, or a derived key. */
struct acl_hash {
    uint8_t bytes[ACL_HASH_BYTES];
};

struct acl_salt {
    uint8_t bytes[ACL_SALT_BYTES];
    uint32_t rounds;
};

void acl_digest(struct slice password, struct acl_hash *out);
/* In a time that does not depend on where they differ. */
bool acl_hash_equal(const struct acl_hash *a, const struct acl_hash *b);
bool acl_salt_equal(const struct acl_salt *a, const struct acl_salt *b);

/* A derivation under way. */
struct acl_derivation {
    SHA256_CTX inner, outer; /* keyed with the digest */
    struct acl_hash last, sum;
    uint32_t left;
};

void acl_derive_begin(struct acl_derivation *derivation, const struct acl_hash *digest, const struct acl_salt *salt);
/* Does at most so many rounds; true when all are done: `sum` is the key. */
bool acl_derive(struct acl_derivation *derivation, uint32_t rounds);

/* "pbkdf2-sha256$ROUNDS$SALT$KEY", the latter two in hexadecimal. */
#define ACL_KEY_TEXT_BYTES 128u
void acl_key_format(char text[ACL_KEY_TEXT_BYTES], const struct acl_salt *salt, const struct acl_hash *key);
bool acl_key_parse(struct slice text, struct acl_salt *salt, struct acl_hash *key);

/* Lower-case hexadecimal, and back: exactly size * 2 digits. */
void acl_hex_write(char *out, const uint8_t *bytes, size_t size);
bool acl_hex_read(struct slice text, uint8_t *out, size_t size);

#endif
