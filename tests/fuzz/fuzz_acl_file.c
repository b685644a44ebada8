/*
 * fuzz_acl_file.c - the file with the users: lines of rules.
 *
 * Input: the file.
 *
 * Properties. Any file is taken or refused; a refusal has a message, and names a line. What was taken is written, taken
 * again, and the same: every user with the same rights and passwords, and the file byte for byte. Default is always
 * there. Passwords in clear are in no file that is written.
 *
 * Passwords are not derived here as they are in the node, which takes long: a key is made of digest and salt in one
 * step. Reader and writer take keys as they are.
 */
#include "fuzz.h"
#include "fuzz_sim.h"

#include "node/acl.h"

static struct ring *ring;

static struct acl *create(_Atomic unsigned *watch)
{
    struct acl *acl = NULL;
    FUZZ_CHECK(acl_create(&acl, 1, ring, watch) == KVS_ERR_OK);
    return acl;
}

static void derive(struct acl_secrets *secrets)
{
    for (unsigned i = 0; i < secrets->count; i++) {
        struct acl_secret *secret = &secrets->each[i];
        secret->key = secret->digest;
        for (unsigned j = 0; j < ACL_HASH_BYTES; j++)
            secret->key.bytes[j] ^= secret->salt.bytes[j % ACL_SALT_BYTES];
    }
    secrets->derived = true;
}

/* As ACL LOAD does it: once to know what is to be derived, and once with the keys. */
static bool load(struct acl *acl, struct slice file, char message[ACL_FILE_MESSAGE_BYTES])
{
    static struct acl_secrets secrets;
    secrets.derived = false;
    secrets.count = 0;
    for (unsigned passes = 0;; passes++) {
        struct acl_change change;
        FUZZ_CHECK(passes < 2);
        FUZZ_CHECK(acl_change_begin(acl, &change) == KVS_ERR_OK);
        FUZZ_CHECK(acl_change_reset(acl, &change) == KVS_ERR_OK);
        const bool good = acl_file_read(acl, &change, file, &secrets, message);
        const bool apply = good && (secrets.derived || secrets.count == 0);
        if (apply)
            acl_change_keep(acl, &change);
        acl_change_end(acl, &change, 0, apply);
        if (apply || !good)
            return good;
        derive(&secrets);
    }
}

/* No rule of it is a password: they begin with > and <. A user may be called so. */
static void check_secrecy(struct slice file)
{
    unsigned blanks = 0; /* of the line */
    for (size_t i = 0; i + 1 < file.size; i++) {
        blanks = file.data[i] == '\n' ? 0 : blanks + (file.data[i] == ' ');
        const bool begins = file.data[i] == ' ' && blanks >= 2;
        FUZZ_CHECK(!begins || (file.data[i + 1] != '>' && file.data[i + 1] != '<'));
    }
}

static void check_same(const struct acl_table *first, const struct acl_table *second)
{
    FUZZ_CHECK(first->count == second->count && first->count >= 1);
    FUZZ_CHECK(acl_default(first) != NULL);
    for (unsigned i = 0; i < first->count; i++)
        FUZZ_CHECK(acl_user_same(first->users[i], second->users[i]));
}

static void check_taken(struct acl *acl)
{
    _Atomic unsigned watch = 0;
    struct acl *again = create(&watch);
    struct text written = {0}, rewritten = {0};
    char message[ACL_FILE_MESSAGE_BYTES] = "";
    const struct acl_table *first = acl_read_begin(acl, 0);
    acl_file_write(first, &written);
    const struct slice file = slice_make(written.data, written.size);
    check_secrecy(file);
    const bool taken = load(again, file, message);
    if (!taken)
        fprintf(stderr, "%.*s%s\n", (int)file.size, (const char *)file.data, message);
    FUZZ_CHECK(taken);
    const struct acl_table *second = acl_read_begin(again, 0);
    acl_file_write(second, &rewritten);
    check_same(first, second);
    FUZZ_CHECK(slice_equal(file, slice_make(rewritten.data, rewritten.size)));
    acl_read_end(acl, 0);
    acl_read_end(again, 0);
    text_deinit(&written);
    text_deinit(&rewritten);
    acl_destroy(again);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_sim_quiet();
    sim_create(1);
    ring = fuzz_ring_open();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _Atomic unsigned watch = 0;
    char message[ACL_FILE_MESSAGE_BYTES] = "";
    uint8_t *file = fuzz_copy(data, size);
    struct acl *acl = create(&watch);
    const bool taken = load(acl, slice_make(file, size), message);
    free(file);
    if (taken)
        check_taken(acl);
    else
        FUZZ_CHECK(strncmp(message, "line ", 5) == 0 && memchr(message, '\0', sizeof message) != NULL);
    acl_destroy(acl);
    return 0;
}
