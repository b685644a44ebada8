/*
 * acl.h - who may do what: users, their rules, and the table of all users.
 *
 * The table is immutable. A change builds a new one, which shares the users that stay as they are, and puts it into the
 * place of the old one with one atomic store: commands that begin after that, on any shard, see it. The old table is
 * freed when no shard can be looking at it any more (ck_epoch; src/engine/epoch.h).
 *
 *   readers    acl_read_begin … acl_read_end around every look; what the table shows is good until the end. No lock
 *   writers    acl_change_begin … acl_change_end: one at a time, under a lock, for some microseconds
 *
 * As long as nobody has limited anything (one user, default, who may do everything without a password) nothing of this
 * is looked at (ACL_WATCH). Once it is, it stays so until the node ends: connections of users that are gone must not
 * become those of a user who may do everything.
 *
 * A connection remembers its user by a number that no other user ever gets (struct acl_holder). A user who is deleted
 * and made anew is another one, except for default.
 *
 * Threading: any thread that has a number below the count given to acl_create, each with its own.
 */
#ifndef KVS_NODE_ACL_H
#define KVS_NODE_ACL_H

#include "base/error.h"
#include "engine/epoch.h"
#include "node/acl_secret.h"
#include "node/text.h"

#include <stdatomic.h>

struct command;
struct subcommand;

/* Bounds: changes and checks stay short, and the table small. */
#define ACL_USERS_MAX         1000u
#define ACL_NAME_BYTES_MAX    128u
#define ACL_PASSWORDS_MAX     16u
#define ACL_PATTERNS_MAX      256u
#define ACL_PATTERN_BYTES_MAX 4096u
#define ACL_RULES_BYTES_MAX   8192u
#define ACL_COMMANDS_MAX      1024u /* commands and subcommands */

#define ACL_DEFAULT_UID 1u

enum acl_access { ACL_READ = 1, ACL_WRITE = 2 };

struct acl_pattern {
    unsigned access; /* enum acl_access: what it allows */
    size_t size;
    uint8_t *data;
};

struct acl_patterns {
    bool all;
    unsigned count;
    struct acl_pattern *items;
};

struct acl_password {
    struct acl_hash key;
    /* Once the password was given rightly: a digest of it with a secret of this process, so that the next time costs a
     * microsecond. Never leaves the process. Whoever writes it writes the same. */
    _Atomic bool known;
    _Atomic uint64_t quick[4];
};

struct acl_user {
    _Atomic unsigned refs; /* tables that it is in */
    uint64_t uid;
    char name[ACL_NAME_BYTES_MAX + 1];
    size_t name_bytes;
    bool on, nopass, sanitize;
    struct acl_salt salt;
    unsigned password_count;
    struct acl_password passwords[ACL_PASSWORDS_MAX];
    struct acl_patterns keys, channels;
    uint64_t commands[ACL_COMMANDS_MAX / 64];
    bool all_commands; /* `rules` begin with +@all, else with -@all */
    struct text rules; /* what came after that: "+get -@dangerous", not terminated */
};

struct acl_table {
    struct epoch_entry entry;
    uint64_t version; /* no other table has it */
    unsigned count;
    struct acl_user *users[]; /* by name */
};

/* The numbers of commands and subcommands in acl_user.commands. */
struct acl_numbers {
    unsigned count;
    uint16_t first[ACL_COMMANDS_MAX]; /* of a command in the table; its subcommands follow */
};

/* A connection's user. Zero: nobody yet, acl_holder_reset. */
struct acl_holder {
    uint64_t uid;
    bool authenticated;
    uint64_t version;            /* of the table that … */
    const struct acl_user *user; /* … this was found in */
};

struct acl;
struct ring;

/* The table with the user default, who may do everything. `ring`: for random numbers, this call only. ACL_WATCH is set
 * in *watch when requests have to be checked. */
#define ACL_WATCH 1u
enum kvs_err acl_create(struct acl **out, unsigned thread_count, struct ring *ring, _Atomic unsigned *watch);
/* Nobody reads or changes any more. NULL is allowed. */
void acl_destroy(struct acl *acl);
/* Frees old tables that nobody looks at any more. Now and then, on each thread. */
void acl_turn(struct acl *acl, unsigned thread);

const struct acl_numbers *acl_numbers(const struct acl *acl);

/* ---- reading --------------------------------------------------------------------------------------------------- */

const struct acl_table *acl_read_begin(struct acl *acl, unsigned thread);
void acl_read_end(struct acl *acl, unsigned thread);
/* NULL when there is none. */
const struct acl_user *acl_find(const struct acl_table *table, struct slice name);
const struct acl_user *acl_default(const struct acl_table *table);
/* True when requests need no AUTH: default may log in without a password. */
bool acl_is_open(const struct acl_table *table);

/* The user of a connection; NULL when that is gone: the connection has to end. */
const struct acl_user *acl_holder_user(struct acl_holder *holder, const struct acl_table *table);
/* What a connection begins with: user default, authenticated if that needs no password. */
void acl_holder_reset(struct acl_holder *holder, const struct acl_table *table);

/* ---- logging in ------------------------------------------------------------------------------------------------ */

enum acl_login {
    ACL_LOGIN_NO,
    ACL_LOGIN_YES,
    ACL_LOGIN_DERIVE, /* the password has to be derived with `salt` to know: acl_login_end */
};
/* Is this the password of this user? `uid` with ACL_LOGIN_YES. A user who is not there, or cannot log in, costs the
 * same derivation as a wrong password: who asks cannot tell. */
enum acl_login acl_login_begin(struct acl *acl, unsigned thread, struct slice name, const struct acl_hash *digest,
                               struct acl_salt *salt, uint64_t *uid);
bool acl_login_end(struct acl *acl, unsigned thread, struct slice name, const struct acl_hash *digest,
                   const struct acl_salt *salt, const struct acl_hash *key, uint64_t *uid);

/* ---- changing -------------------------------------------------------------------------------------------------- */

/* Users that may be changed: a copy of the table, of which nobody knows. */
struct acl_change {
    struct acl_table *table;
};

/* Waits for the change before it, if one is under way. NO_MEMORY: there is nothing to end. */
enum kvs_err acl_change_begin(struct acl *acl, struct acl_change *change);
/* A user to change, made when it is not there; NULL: no memory, or ACL_USERS_MAX. */
struct acl_user *acl_change_user(struct acl *acl, struct acl_change *change, struct slice name);
/* False when there is none. */
bool acl_change_remove(struct acl_change *change, struct slice name);
/* Removes all but default, who becomes what he is in the beginning: before a file is read. */
enum kvs_err acl_change_reset(struct acl *acl, struct acl_change *change);
/* Users that are what they were keep their numbers, so that their connections stay. */
void acl_change_keep(struct acl *acl, struct acl_change *change);
/* Makes the changes known, or forgets them. */
void acl_change_end(struct acl *acl, struct acl_change *change, unsigned thread, bool apply);

/* ---- users (acl_user.c) ---------------------------------------------------------------------------------------- */

/* Everything off, as ACL SETUSER begins; NULL: no memory. One reference. */
struct acl_user *acl_user_create(struct slice name, const struct acl_salt *salt, uint64_t uid);
struct acl_user *acl_user_copy(const struct acl_user *user);
void acl_user_release(struct acl_user *user);
/* Same name, same rights, same passwords. */
bool acl_user_same(const struct acl_user *a, const struct acl_user *b);

/* As in ACL LIST, behind "user NAME ". */
void acl_user_describe(const struct acl_user *user, struct text *out);
void acl_user_describe_commands(const struct acl_user *user, struct text *out);
void acl_user_describe_keys(const struct acl_user *user, struct text *out);
void acl_user_describe_channels(const struct acl_user *user, struct text *out);

bool acl_user_may_run(const struct acl_user *user, unsigned number);
/* Any key that `access` (0: whatever it is) is allowed to. */
bool acl_user_may_touch(const struct acl_user *user, unsigned access, struct slice key);

/* ---- rules (acl_rules.c) --------------------------------------------------------------------------------------- */

/*
 * Passwords in rules have to be derived before they can be compared or kept. So rules are applied twice: first to a
 * copy of the user that is thrown away, which lists the derivations needed; then, with the keys, for good.
 */
#define ACL_SECRETS_MAX 32u
struct acl_secret {
    struct acl_hash digest;
    struct acl_salt salt;
    struct acl_hash key;
};
struct acl_secrets {
    bool derived;
    unsigned count;
    unsigned next; /* to be used, when derived */
    struct acl_secret each[ACL_SECRETS_MAX];
};

/* What is wrong with a rule; the texts are Redis's. */
extern const char acl_rule_changed[]; /* the user has another salt by now: begin anew */
/* Applies one rule; NULL, or what is wrong. */
const char *acl_rule_apply(const struct acl_numbers *numbers, struct acl_user *user, struct slice rule,
                           struct acl_secrets *secrets);
/* True when a user may be called that. */
bool acl_name_is_good(struct slice name);

/* ---- commands (acl_commands.c) --------------------------------------------------------------------------------- */

void acl_numbers_init(struct acl_numbers *numbers);
unsigned acl_number(const struct acl_numbers *numbers, const struct command *command, const struct subcommand *sub);

#define ACL_CATEGORIES 21u
extern const char *const acl_category_names[ACL_CATEGORIES];
/* The number of a category, or ACL_CATEGORIES. */
unsigned acl_category_find(struct slice name);
/* One bit for each. */
uint32_t acl_categories(const struct command *command, const struct subcommand *sub);

struct acl_key_use {
    unsigned first, last, step; /* arguments that are keys; first = 0: none */
    unsigned access_first;      /* enum acl_access: to the first of them … */
    unsigned access;            /* … and to the others */
};
/* Which arguments of a command are keys, and what is done with them. */
struct acl_key_use acl_keys(const struct command *command, const struct subcommand *sub, const struct slice *args,
                            unsigned count);

/* ---- files (acl_file.c) ---------------------------------------------------------------------------------------- */

#define ACL_FILE_BYTES_MAX     (256u * 1024)
#define ACL_FILE_MESSAGE_BYTES 512

/* The table as a file. */
void acl_file_write(const struct acl_table *table, struct text *out);
/* Reads users into a change that was reset. False: `message` names line and remedy. With secrets that are not derived
 * it lists them, and the change is to be thrown away; with `secrets` full it says so. */
bool acl_file_read(struct acl *acl, struct acl_change *change, struct slice file, struct acl_secrets *secrets,
                   char message[ACL_FILE_MESSAGE_BYTES]);

#endif
