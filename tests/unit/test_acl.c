/*
 * test_acl.c - rules against a table of what they make of a user; the check; the table of users; its file; its log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/access.h"
#include "node/acl_log.h"
#include "node/derive.h"
#include "ring_sim.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct ring *ring;
    struct acl *acl;
    _Atomic unsigned watch;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.entries = 64};
    sim_create(1);
    fixture.watch = 0;
    assert_int_equal(ring_open(&fixture.ring, &options, message), KVS_ERR_OK);
    assert_int_equal(acl_create(&fixture.acl, 2, fixture.ring, &fixture.watch), KVS_ERR_OK);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    acl_destroy(fixture->acl);
    ring_close(fixture->ring);
    sim_destroy();
    return 0;
}

/* Applies words, separated by blanks, to a user; NULL or what is wrong with the first that is. Passwords are derived.
 */
static const char *set_user(struct acl *acl, const char *name, const char *rules)
{
    struct acl_secrets secrets = {0};
    for (;;) {
        struct acl_change change;
        assert_int_equal(acl_change_begin(acl, &change), KVS_ERR_OK);
        struct acl_user *user = acl_change_user(acl, &change, slice_text(name));
        assert_non_null(user);
        const char *wrong = NULL;
        for (const char *at = rules; *at != 0 && wrong == NULL;) {
            size_t length = strcspn(at, " ");
            wrong = acl_rule_apply(acl_numbers(acl), user, slice_make(at, length), &secrets);
            at += length + (at[length] == ' ');
        }
        bool apply = wrong == NULL && (secrets.derived || secrets.count == 0);
        acl_change_end(acl, &change, 0, apply);
        if (apply || wrong != NULL)
            return wrong;
        derive_now(&secrets);
    }
}

static void describe(struct acl *acl, const char *name, struct text *text)
{
    const struct acl_user *user = acl_find(acl_read_begin(acl, 0), slice_text(name));
    assert_non_null(user);
    acl_user_describe(user, text);
    text_add(text, slice_make("", 1));
    acl_read_end(acl, 0);
}

static void delete_user(struct acl *acl, const char *name)
{
    struct acl_change change;
    assert_int_equal(acl_change_begin(acl, &change), KVS_ERR_OK);
    assert_true(acl_change_remove(&change, slice_text(name)));
    acl_change_end(acl, &change, 0, true);
}

static void test_acl_rules__what_they_make_of_a_new_user(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *rules, *description;
    } cases[] = {
        {"", "off sanitize-payload resetchannels -@all"},
        {"on", "on sanitize-payload resetchannels -@all"},
        {"on OFF", "off sanitize-payload resetchannels -@all"},
        {"on nopass", "on nopass sanitize-payload resetchannels -@all"},
        {"nopass resetpass", "off sanitize-payload resetchannels -@all"},
        {"skip-sanitize-payload", "off skip-sanitize-payload resetchannels -@all"},
        {"~a* ~b*", "off sanitize-payload ~a* ~b* resetchannels -@all"},
        {"%R~a* %W~b* %RW~c* %wr~d", "off sanitize-payload %R~a* %W~b* ~c* ~d resetchannels -@all"},
        {"%R~a %W~a", "off sanitize-payload ~a resetchannels -@all"},
        {"~a ~*", "off sanitize-payload ~* resetchannels -@all"},
        {"allkeys ~*", "off sanitize-payload ~* resetchannels -@all"},
        {"allkeys resetkeys ~b", "off sanitize-payload ~b resetchannels -@all"},
        {"&c", "off sanitize-payload resetchannels &c -@all"},
        {"&c allchannels", "off sanitize-payload &* -@all"},
        {"+get", "off sanitize-payload resetchannels -@all +get"},
        {"+@read -@write +get -config|set", "off sanitize-payload resetchannels -@all +@read -@write +get -config|set"},
        {"+GET +@READ", "off sanitize-payload resetchannels -@all +get +@read"},
        {"+get -get", "off sanitize-payload resetchannels -@all -get"},
        {"+get +set +get", "off sanitize-payload resetchannels -@all +set +get"},
        {"+client|id +client", "off sanitize-payload resetchannels -@all +client"},
        {"+client -client|kill", "off sanitize-payload resetchannels -@all +client -client|kill"},
        {"+client|kill +client|list -client", "off sanitize-payload resetchannels -@all -client"},
        {"+setex +set", "off sanitize-payload resetchannels -@all +setex +set"},
        {"+ttl +pttl -ttl", "off sanitize-payload resetchannels -@all +pttl -ttl"},
        {"+@all", "off sanitize-payload resetchannels +@all"},
        {"allcommands -get", "off sanitize-payload resetchannels +@all -get"},
        {"+get nocommands", "off sanitize-payload resetchannels -@all"},
        {"on nopass ~* &* +@all reset", "off sanitize-payload resetchannels -@all"},
        {"clearselectors", "off sanitize-payload resetchannels -@all"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *wrong = set_user(fixture->acl, "u", cases[i].rules);
        if (wrong != NULL)
            fail_msg("'%s': %s", cases[i].rules, wrong);
        struct text text = {0};
        describe(fixture->acl, "u", &text);
        assert_string_equal((const char *)text.data, cases[i].description);
        text_deinit(&text);
        delete_user(fixture->acl, "u");
        acl_turn(fixture->acl, 0);
    }
}

static void test_acl_rules__what_is_wrong(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *rules, *wrong;
    } cases[] = {
        {"foo", "Syntax error"},
        {"%X~a", "Syntax error"},
        {"%~a", "Syntax error"},
        {"%RR~a", "Syntax error"},
        {"%R", "Syntax error"},
        {"+nocmd", "Unknown command or category name in ACL"},
        {"+", "Unknown command or category name in ACL"},
        {"+@nocat", "Unknown command or category name in ACL"},
        {"+config|nope", "Unknown command or category name in ACL"},
        {"-get|x", "Unknown command or category name in ACL"},
        {"+config|get|x", "Allowing first-arg of a subcommand is not supported"},
        {"#abc", "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"},
        {"!abc", "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"},
        {"<nope", "The password you are trying to remove from the user does not exist"},
        {"allkeys ~foo",
         "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try "
         "'resetkeys' to start with an empty list of patterns"},
        {"allchannels &foo",
         "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. "
         "Try 'resetchannels' to start with an empty list of channels"},
        {"(+get", "Selectors are not offered; give the user one set of rules"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *wrong = set_user(fixture->acl, "u", cases[i].rules);
        assert_non_null(wrong);
        assert_string_equal(wrong, cases[i].wrong);
        assert_null(acl_find(acl_read_begin(fixture->acl, 0), slice_text("u"))); /* nothing has changed */
        acl_read_end(fixture->acl, 0);
    }
}

/* ---- the check ------------------------------------------------------------------------------------------------- */

static enum access_answer check(struct acl *acl, const char *name, const char *line)
{
    struct slice args[8], key;
    unsigned count = 0;
    for (const char *at = line; *at != 0; count++) {
        size_t length = strcspn(at, " ");
        args[count] = slice_make(at, length);
        at += length + (at[length] == ' ');
    }
    const struct command *command = command_find(args[0]);
    assert_non_null(command);
    const struct subcommand *sub = NULL;
    for (const struct subcommand *s = command->subcommands; s != NULL && s->name != NULL && count > 1; s++) {
        if (command_word_is(args[1], s->name))
            sub = s;
    }
    const struct acl_user *user = acl_find(acl_read_begin(acl, 0), slice_text(name));
    enum access_answer answer = access_of_user(acl_numbers(acl), user, command, sub, args, count, &key);
    acl_read_end(acl, 0);
    return answer;
}

static void test_acl_check__commands_and_keys(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *rules, *line;
        enum access_answer answer;
    } cases[] = {
        {"+get ~*", "get a", ACCESS_GRANTED},
        {"+get ~*", "GET a", ACCESS_GRANTED},
        {"+get ~*", "set a b", ACCESS_NO_COMMAND},
        {"+get", "get a", ACCESS_NO_KEY},
        {"+get ~b*", "get a", ACCESS_NO_KEY},
        {"+get ~b* ~a*", "get a", ACCESS_GRANTED},
        {"+mget ~a*", "mget a1 a2 a3", ACCESS_GRANTED},
        {"+mget ~a*", "mget a1 a2 b3", ACCESS_NO_KEY},
        {"+del ~a*", "del b1 a2", ACCESS_NO_KEY},
        {"+@all %R~a", "get a", ACCESS_GRANTED},
        {"+@all %R~a", "set a b", ACCESS_NO_KEY},
        {"+@all %W~a", "set a b", ACCESS_GRANTED},
        {"+@all %W~a", "set a b GET", ACCESS_NO_KEY},
        {"+@all ~a", "set a b GET", ACCESS_GRANTED},
        {"+@all %W~a", "get a", ACCESS_NO_KEY},
        {"+@all %W~a %R~a", "set a b get", ACCESS_GRANTED},
        {"+@all %W~a", "exists a", ACCESS_GRANTED},
        {"+@all %W~a", "ttl a", ACCESS_GRANTED},
        {"+@all %W~a", "exists b", ACCESS_NO_KEY},
        {"+@all %R~a %W~b", "copy a b", ACCESS_GRANTED},
        {"+@all %R~a %W~b", "copy b a", ACCESS_NO_KEY},
        {"+@all %R~a %R~b", "copy a b", ACCESS_NO_KEY},
        {"+@all %W~a %W~b", "copy a b", ACCESS_NO_KEY},
        {"+@all ~a %W~b", "rename a b", ACCESS_GRANTED},
        {"+@all %R~a %W~b", "rename a b", ACCESS_NO_KEY},
        {"+@all %W~a %W~b", "rename a b", ACCESS_NO_KEY},
        {"+@all ~a %R~b", "rename a b", ACCESS_NO_KEY},
        {"+@all ~a %W~b", "renamenx a b", ACCESS_GRANTED},
        {"+@all %W~a %W~b", "renamenx a b", ACCESS_NO_KEY},
        {"+@all %R~a %W~b", "bitop and b a a", ACCESS_GRANTED},
        {"+@all %R~a %W~b", "bitop and a b b", ACCESS_NO_KEY},
        {"+@all %R~a %W~b", "bitop and b a b", ACCESS_NO_KEY},
        {"+@all %W~a %W~b", "mset a 1 b 2", ACCESS_GRANTED},
        {"+@all %W~a %W~b", "mset a b b a", ACCESS_GRANTED},
        {"+@all %W~a %R~b", "mset a 1 b 2", ACCESS_NO_KEY},
        {"+@all %R~a %W~b", "msetnx a 1 b 2", ACCESS_NO_KEY},
        {"+@all %W~a %W~b", "msetnx a 1 b 2", ACCESS_GRANTED},
        {"+@all", "ping", ACCESS_GRANTED},
        {"-@all", "ping", ACCESS_NO_COMMAND},
        {"-@all", "auth x", ACCESS_GRANTED},
        {"-@all", "hello", ACCESS_GRANTED},
        {"-@all", "reset", ACCESS_GRANTED},
        {"-@all", "quit", ACCESS_GRANTED},
        {"+@read ~*", "get a", ACCESS_GRANTED},
        {"+@read ~*", "set a b", ACCESS_NO_COMMAND},
        {"+@all -@write ~*", "del a", ACCESS_NO_COMMAND},
        {"+@all -@write ~*", "get a", ACCESS_GRANTED},
        {"+@all -@dangerous", "config get x", ACCESS_NO_COMMAND},
        {"+@all -@dangerous", "client kill x", ACCESS_NO_COMMAND},
        {"+@all -@dangerous", "client id", ACCESS_GRANTED},
        {"+@all -@dangerous", "acl whoami", ACCESS_GRANTED},
        {"+@all -@dangerous", "acl setuser x", ACCESS_NO_COMMAND},
        {"+@connection", "client id", ACCESS_GRANTED},
        {"+client -client|kill", "client kill x", ACCESS_NO_COMMAND},
        {"+client -client|kill", "client list", ACCESS_GRANTED},
        {"+client|id", "client list", ACCESS_NO_COMMAND},
        {"+client|id", "client id", ACCESS_GRANTED},
        {"+client|id", "client help", ACCESS_NO_COMMAND},
        {"+@all -config|set +get", "config set a b", ACCESS_NO_COMMAND},
        {"+@all -config|set +get", "config get a", ACCESS_GRANTED},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_null(set_user(fixture->acl, "u", cases[i].rules));
        if (check(fixture->acl, "u", cases[i].line) != cases[i].answer)
            fail_msg("'%s' of a user with '%s'", cases[i].line, cases[i].rules);
        delete_user(fixture->acl, "u");
    }
}

static void test_acl_check__every_command_has_its_bit(void **state)
{
    struct fixture *fixture = *state;
    const struct acl_numbers *numbers = acl_numbers(fixture->acl);
    bool *seen = calloc(numbers->count, 1);
    assert_non_null(seen);
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        assert_true(acl_categories(command, NULL) != 0);
        assert_false(seen[acl_number(numbers, command, NULL)]);
        seen[acl_number(numbers, command, NULL)] = true;
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            assert_false(seen[acl_number(numbers, command, sub)]);
            seen[acl_number(numbers, command, sub)] = true;
        }
    }
    for (unsigned i = 0; i < numbers->count; i++)
        assert_true(seen[i]);
    free(seen);
}

/* The bits are what the text of the rules says: else what is saved would give other rights. */
static void test_acl_rules__text_gives_the_same_rights(void **state)
{
    struct fixture *fixture = *state;
    static const char *const words[] = {"+@all",       "-@all",       "+@read",      "-@read",     "+@write",
                                        "-@write",     "+get",        "-get",        "+set",       "-@fast",
                                        "+@slow",      "+client",     "-client",     "+client|id", "-client|kill",
                                        "+config|get", "-@dangerous", "+@dangerous", "-config",    "+acl|cat"};
    srand(2);
    for (unsigned i = 0; i < 2000; i++) {
        char rules[256] = "";
        for (unsigned j = 0; j < 6; j++) {
            strcat(rules, j > 0 ? " " : "");
            strcat(rules, words[(size_t)rand() % ARRAY_COUNT(words)]);
        }
        assert_null(set_user(fixture->acl, "u", rules));
        struct text text = {0};
        const struct acl_user *user = acl_find(acl_read_begin(fixture->acl, 0), slice_text("u"));
        acl_user_describe_commands(user, &text);
        text_add(&text, slice_make("", 1));
        assert_null(set_user(fixture->acl, "v", (const char *)text.data));
        const struct acl_table *table = acl_read_begin(fixture->acl, 0);
        const struct acl_user *again = acl_find(table, slice_text("v"));
        for (unsigned j = 0; j < acl_numbers(fixture->acl)->count; j++) {
            if (acl_user_may_run(user, j) != acl_user_may_run(again, j))
                fail_msg("'%s' and '%s' differ", rules, (const char *)text.data);
        }
        acl_read_end(fixture->acl, 0);
        acl_read_end(fixture->acl, 0);
        text_deinit(&text);
        delete_user(fixture->acl, "u");
        delete_user(fixture->acl, "v");
        acl_turn(fixture->acl, 0);
    }
}

/* ---- logging in ------------------------------------------------------------------------------------------------ */

/* True when the password is right; *derived: it took a derivation to know. */
static bool log_in(struct acl *acl, const char *name, const char *password, bool *derived)
{
    struct acl_secrets secrets = {.count = 1};
    struct acl_secret *secret = &secrets.each[0];
    uint64_t uid = 0;
    acl_digest(slice_text(password), &secret->digest);
    enum acl_login login = acl_login_begin(acl, 1, slice_text(name), &secret->digest, &secret->salt, &uid);
    *derived = login == ACL_LOGIN_DERIVE;
    if (!*derived)
        return login == ACL_LOGIN_YES;
    derive_now(&secrets);
    return acl_login_end(acl, 1, slice_text(name), &secret->digest, &secret->salt, &secret->key, &uid);
}

static void test_acl_login__right_and_wrong(void **state)
{
    struct fixture *fixture = *state;
    bool derived;
    assert_null(set_user(fixture->acl, "u", "on >one >two"));
    assert_true(log_in(fixture->acl, "u", "one", &derived) && derived);
    assert_true(log_in(fixture->acl, "u", "one", &derived) && !derived); /* known by now */
    assert_true(log_in(fixture->acl, "u", "two", &derived) && derived);
    assert_true(!log_in(fixture->acl, "u", "three", &derived) && derived);
    assert_true(!log_in(fixture->acl, "u", "three", &derived) && derived); /* a wrong one is never known */
    assert_true(!log_in(fixture->acl, "nobody", "one", &derived) && derived);
    assert_null(set_user(fixture->acl, "u", "<one"));
    assert_false(log_in(fixture->acl, "u", "one", &derived));
    assert_true(log_in(fixture->acl, "u", "two", &derived) && !derived);
    assert_null(set_user(fixture->acl, "u", "off"));
    assert_true(!log_in(fixture->acl, "u", "two", &derived) && derived);
    assert_null(set_user(fixture->acl, "u", "on resetpass"));
    assert_false(log_in(fixture->acl, "u", "two", &derived));
    assert_null(set_user(fixture->acl, "u", "nopass"));
    assert_true(log_in(fixture->acl, "u", "whatever", &derived) && !derived);
    assert_null(set_user(fixture->acl, "u", ">new")); /* ends nopass */
    assert_false(log_in(fixture->acl, "u", "whatever", &derived));
    assert_true(log_in(fixture->acl, "u", "new", &derived));
}

static void test_acl_login__digests_of_redis(void **state)
{
    struct fixture *fixture = *state;
    bool derived;
    assert_null(set_user(fixture->acl, "u", "on #ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_true(log_in(fixture->acl, "u", "abc", &derived));
    assert_null(
        set_user(fixture->acl, "u", ">other !ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_false(log_in(fixture->acl, "u", "abc", &derived));
    assert_true(log_in(fixture->acl, "u", "other", &derived));
}

static void test_acl_login__same_password_once(void **state)
{
    struct fixture *fixture = *state;
    assert_null(set_user(fixture->acl, "u", "on >one >one"));
    assert_null(set_user(fixture->acl, "u", ">one"));
    const struct acl_user *user = acl_find(acl_read_begin(fixture->acl, 0), slice_text("u"));
    assert_int_equal(user->password_count, 1);
    acl_read_end(fixture->acl, 0);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void test_acl_table__watch_begins_with_the_first_limit(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(fixture->watch, 0);
    assert_null(set_user(fixture->acl, "default", "on"));
    assert_int_equal(fixture->watch, 0);
    assert_null(set_user(fixture->acl, "u", "on"));
    assert_int_equal(fixture->watch, ACL_WATCH);
    delete_user(fixture->acl, "u");
    assert_int_equal(fixture->watch, ACL_WATCH); /* connections of u may still be there */
}

static void test_acl_table__default_with_a_limit_is_watched(void **state)
{
    struct fixture *fixture = *state;
    static const char *const rules[] = {"-get", "resetkeys", "off", "resetpass", ">x"};
    for (size_t i = 0; i < ARRAY_COUNT(rules); i++) {
        atomic_store(&fixture->watch, 0);
        assert_null(set_user(fixture->acl, "default", rules[i]));
        assert_int_equal(fixture->watch, ACL_WATCH);
        assert_null(set_user(fixture->acl, "default", "reset on nopass ~* &* +@all"));
    }
}

static void test_acl_table__a_user_made_anew_is_another_one(void **state)
{
    struct fixture *fixture = *state;
    struct acl *acl = fixture->acl;
    struct acl_holder holder = {0};
    assert_null(set_user(acl, "u", "on"));
    const struct acl_table *table = acl_read_begin(acl, 0);
    holder.uid = acl_find(table, slice_text("u"))->uid;
    assert_ptr_equal(acl_holder_user(&holder, table), acl_find(table, slice_text("u")));
    acl_read_end(acl, 0);
    assert_null(set_user(acl, "u", "+get")); /* changed: still the same */
    table = acl_read_begin(acl, 0);
    assert_ptr_equal(acl_holder_user(&holder, table), acl_find(table, slice_text("u")));
    assert_string_equal(acl_holder_user(&holder, table)->name, "u");
    acl_read_end(acl, 0);
    delete_user(acl, "u");
    assert_null(set_user(acl, "u", "on"));
    assert_null(acl_holder_user(&holder, acl_read_begin(acl, 0)));
    acl_read_end(acl, 0);
}

/* What a reader looks at stays until it has looked away; then it is freed (the sanitizer would see either mistake). */
static void test_acl_table__old_ones_last_as_long_as_their_readers(void **state)
{
    struct fixture *fixture = *state;
    struct acl *acl = fixture->acl;
    assert_null(set_user(acl, "u", "on ~abc"));
    const struct acl_user *user = acl_find(acl_read_begin(acl, 1), slice_text("u"));
    delete_user(acl, "u");
    for (unsigned i = 0; i < 10; i++)
        acl_turn(acl, 0);
    assert_string_equal(user->name, "u");
    assert_true(acl_user_may_touch(user, ACL_READ, slice_text("abc")));
    acl_read_end(acl, 1);
    for (unsigned i = 0; i < 10; i++)
        acl_turn(acl, 0);
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static bool load(struct acl *acl, const char *file, char message[ACL_FILE_MESSAGE_BYTES])
{
    struct acl_secrets secrets = {0};
    for (;;) {
        struct acl_change change;
        assert_int_equal(acl_change_begin(acl, &change), KVS_ERR_OK);
        assert_int_equal(acl_change_reset(acl, &change), KVS_ERR_OK);
        bool good = acl_file_read(acl, &change, slice_text(file), &secrets, message);
        bool apply = good && (secrets.derived || secrets.count == 0);
        if (apply)
            acl_change_keep(acl, &change);
        acl_change_end(acl, &change, 0, apply);
        if (apply || !good)
            return good;
        derive_now(&secrets);
    }
}

static void test_acl_file__comes_back(void **state)
{
    struct fixture *fixture = *state;
    struct acl *acl = fixture->acl;
    char message[ACL_FILE_MESSAGE_BYTES];
    bool derived;
    assert_true(load(acl,
                     "# people\n\nuser default on >root ~* &* +@all\r\n"
                     "user bob on >one >two ~b* %R~c +@read -ttl\nuser amy off",
                     message));
    struct text first = {0}, second = {0};
    acl_file_write(acl_read_begin(acl, 0), &first);
    acl_read_end(acl, 0);
    text_add(&first, slice_make("", 1));
    assert_null(strstr((const char *)first.data, "one"));
    assert_non_null(strstr((const char *)first.data, "user bob on sanitize-payload #pbkdf2-sha256$100000$"));
    assert_true(load(acl, (const char *)first.data, message));
    acl_file_write(acl_read_begin(acl, 0), &second);
    acl_read_end(acl, 0);
    text_add(&second, slice_make("", 1));
    assert_string_equal((const char *)first.data, (const char *)second.data);
    assert_true(log_in(acl, "bob", "two", &derived));
    assert_true(log_in(acl, "default", "root", &derived));
    assert_false(log_in(acl, "bob", "root", &derived));
    text_deinit(&first);
    text_deinit(&second);
}

static void test_acl_file__who_stays_the_same_keeps_his_connections(void **state)
{
    struct fixture *fixture = *state;
    struct acl *acl = fixture->acl;
    char message[ACL_FILE_MESSAGE_BYTES];
    assert_null(set_user(acl, "a", "on nopass +get"));
    assert_null(set_user(acl, "b", "on nopass +get"));
    struct acl_holder a = {0}, b = {0};
    const struct acl_table *table = acl_read_begin(acl, 0);
    a.uid = acl_find(table, slice_text("a"))->uid;
    b.uid = acl_find(table, slice_text("b"))->uid;
    acl_read_end(acl, 0);
    assert_true(load(acl, "user a on nopass +get\nuser b on nopass +set\n", message));
    table = acl_read_begin(acl, 0);
    assert_non_null(acl_holder_user(&a, table));
    assert_null(acl_holder_user(&b, table));
    acl_read_end(acl, 0);
}

static void test_acl_file__errors_name_the_line(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *file, *message;
    } cases[] = {
        {"user a on\nuser b foo\n", "line 2, at 'foo': Syntax error"},
        {"# x\n\nusr a on\n", "line 3, at 'usr': a line begins with the word user"},
        {"user\n", "line 1, at '': the name of the user is missing"},
        {"user a on\nuser a off\n",
         "line 2, at 'a': Duplicate user found. A user can only be defined once in config files"},
        {"user default on\nuser default off\n",
         "line 2, at 'default': Duplicate user found. A user can only be defined once in config files"},
        {"user a +nope\n", "line 1, at '+nope': Unknown command or category name in ACL"},
    };
    char message[ACL_FILE_MESSAGE_BYTES];
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_false(load(fixture->acl, cases[i].file, message));
        assert_string_equal(message, cases[i].message);
        assert_int_equal(acl_read_begin(fixture->acl, 0)->count, 1);
        acl_read_end(fixture->acl, 0);
    }
}

/* ---- the log --------------------------------------------------------------------------------------------------- */

static void test_acl_log__the_same_again_counts(void **state)
{
    (void)state;
    struct acl_log *log = acl_log_create();
    struct text text = {0};
    assert_non_null(log);
    acl_log_add(log, 1000, "auth", slice_text("auth"), slice_text("u"), slice_text("id=1"));
    acl_log_add(log, 2000, "key", slice_text("k"), slice_text("u"), slice_text("id=1"));
    acl_log_add(log, 3500, "auth", slice_text("auth"), slice_text("u"), slice_text("id=2"));
    acl_log_write(log, 4000, 1, 2, &text);
    text_add(&text, slice_make("", 1));
    assert_string_equal(
        (const char *)text.data,
        "*1\r\n*20\r\n$5\r\ncount\r\n:2\r\n$6\r\nreason\r\n$4\r\nauth\r\n$7\r\ncontext\r\n$8\r\ntoplevel"
        "\r\n$6\r\nobject\r\n$4\r\nauth\r\n$8\r\nusername\r\n$1\r\nu\r\n$11\r\nage-seconds\r\n$1\r\n3\r\n"
        "$11\r\nclient-info\r\n$4\r\nid=2\r\n$8\r\nentry-id\r\n:0\r\n$17\r\ntimestamp-created\r\n:1000\r\n"
        "$22\r\ntimestamp-last-updated\r\n:3500\r\n");
    text_deinit(&text);
    acl_log_add(log, 61000, "auth", slice_text("auth"), slice_text("u"), slice_text("id=2")); /* a minute later */
    acl_log_write(log, 61000, 100, 2, &text);
    assert_memory_equal(text.data, "*3\r\n", 4);
    text_deinit(&text);
    for (unsigned i = 0; i < 2 * ACL_LOG_MAX; i++) {
        char object[16];
        snprintf(object, sizeof(object), "%u", i);
        acl_log_add(log, 70000, "key", slice_text(object), slice_text("u"), slice_text(""));
    }
    acl_log_write(log, 70000, 1000, 2, &text);
    assert_memory_equal(text.data, "*128\r\n", 6);
    text_deinit(&text);
    acl_log_reset(log);
    acl_log_write(log, 70000, 1000, 2, &text);
    assert_int_equal(text.size, 4);
    text_deinit(&text);
    acl_log_destroy(log);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acl_rules__what_they_make_of_a_new_user),
        TEST(test_acl_rules__what_is_wrong),
        TEST(test_acl_rules__text_gives_the_same_rights),
        TEST(test_acl_check__commands_and_keys),
        TEST(test_acl_check__every_command_has_its_bit),
        TEST(test_acl_login__right_and_wrong),
        TEST(test_acl_login__digests_of_redis),
        TEST(test_acl_login__same_password_once),
        TEST(test_acl_table__watch_begins_with_the_first_limit),
        TEST(test_acl_table__default_with_a_limit_is_watched),
        TEST(test_acl_table__a_user_made_anew_is_another_one),
        TEST(test_acl_table__old_ones_last_as_long_as_their_readers),
        TEST(test_acl_file__comes_back),
        TEST(test_acl_file__who_stays_the_same_keeps_his_connections),
        TEST(test_acl_file__errors_name_the_line),
        cmocka_unit_test(test_acl_log__the_same_again_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
