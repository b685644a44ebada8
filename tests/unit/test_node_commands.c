/*
 * test_node_commands.c - what is told of commands, and LCS, on the simulated machine.
 */
#include "node_fixture.h"

#include "base/array.h"
#include "node/command_syntax.h"

/* ---- COMMAND --------------------------------------------------------------------------------------------------- */

static void test_commands__each_has_a_row_of_syntax(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        if (command_syntax_find(command, NULL) == NULL)
            fail_msg("%s has none in command_syntax.c", command->name);
        const bool has_keys = command_syntax_find(command, NULL)->keys != NULL;
        if (has_keys != (command->first_key > 0))
            fail_msg("%s: has it keys, or not?", command->name);
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            if (command_syntax_find(command, sub) == NULL)
                fail_msg("%s|%s has none in command_syntax.c", command->name, sub->name);
        }
    }
    for (unsigned i = 1; i < command_syntax_count; i++)
        assert_true(strcmp(command_syntax_table[i - 1].name, command_syntax_table[i].name) < 0);
}

/* All rows: what is not understood would end the program. */
static void test_commands__arguments_are_told_in_maps(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_syntax_count; i++) {
        for (int version = 2; version <= 3; version++) {
            struct text text = {0};
            struct resp_reply reply;
            if (command_syntax_table[i].arguments == NULL)
                continue;
            command_syntax_add_arguments(&text, command_syntax_table[i].arguments, version);
            if (resp_reply_parse(text.data, text.size, &reply) != RESP_REQUEST || reply.size != text.size)
                fail_msg("%s: not one whole reply", command_syntax_table[i].name);
            text_deinit(&text);
        }
    }
    struct text text = {0};
    command_syntax_add_arguments(&text, "key:key condition:oneof?@2.6.12( nx:token=NX xx:token=XX ) n:integer*", 2);
    static const char expected[] =
        "*3\r\n"
        "*8\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n$12\r\ndisplay_text\r\n$3\r\nkey\r\n"
        "$14\r\nkey_spec_index\r\n:0\r\n"
        "*10\r\n$4\r\nname\r\n$9\r\ncondition\r\n$4\r\ntype\r\n$5\r\noneof\r\n$5\r\nsince\r\n$6\r\n2.6.12\r\n"
        "$5\r\nflags\r\n*1\r\n+optional\r\n$9\r\narguments\r\n*2\r\n"
        "*8\r\n$4\r\nname\r\n$2\r\nnx\r\n$4\r\ntype\r\n$10\r\npure-token\r\n$12\r\ndisplay_text\r\n$2\r\nnx\r\n"
        "$5\r\ntoken\r\n$2\r\nNX\r\n"
        "*8\r\n$4\r\nname\r\n$2\r\nxx\r\n$4\r\ntype\r\n$10\r\npure-token\r\n$12\r\ndisplay_text\r\n$2\r\nxx\r\n"
        "$5\r\ntoken\r\n$2\r\nXX\r\n"
        "*8\r\n$4\r\nname\r\n$1\r\nn\r\n$4\r\ntype\r\n$7\r\ninteger\r\n$12\r\ndisplay_text\r\n$1\r\nn\r\n"
        "$5\r\nflags\r\n*1\r\n+multiple\r\n";
    assert_int_equal(text.size, strlen(expected));
    assert_memory_equal(text.data, expected, text.size);
    text_deinit(&text);
}

/* ---- LCS ------------------------------------------------------------------------------------------------------- */

enum { LONG = 1500 };

static void set(struct peer *peer, const char *key, const uint8_t *value, size_t size)
{
    peer_ask(peer, (struct slice[]){slice_text("SET"), slice_text(key), slice_make(value, size)}, 3);
    peer_expect(peer, "+OK\r\n");
}

/* As the textbook has it, two rows at a time. */
static unsigned length_of(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    static unsigned rows[2][LONG + 1];
    memset(rows, 0, sizeof(rows));
    for (size_t i = 1; i <= a_size; i++) {
        const unsigned *above = rows[(i - 1) % 2];
        unsigned *row = rows[i % 2];
        for (size_t j = 1; j <= b_size; j++) {
            const unsigned skip = above[j] > row[j - 1] ? above[j] : row[j - 1];
            row[j] = a[i - 1] == b[j - 1] ? above[j - 1] + 1 : skip;
        }
    }
    return rows[a_size % 2][b_size];
}

/* Values of any two shards, long enough for many turns, while others are served. */
static void test_lcs__takes_many_turns_in_which_others_are_served(void **state)
{
    (void)state;
    static uint8_t a[LONG], b[LONG];
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        struct config config = fixture_config(threads);
        config.memory_bytes = 256u << 20;
        fixture_machine(threads);
        fixture_start(&fixture, &config);
        struct peer *peer = peer_open(&fixture), *other = peer_open(&fixture);
        for (size_t i = 0; i < LONG; i++) {
            a[i] = (uint8_t)('a' + i * i % 7);
            b[i] = (uint8_t)('a' + i * i * i % 5);
        }
        for (unsigned k = 0; k < 4; k++) {
            char key[8];
            snprintf(key, sizeof(key), "b%u", k);
            set(peer, "a", a, LONG);
            set(peer, key, b, LONG - k);
            char expected[32];
            snprintf(expected, sizeof(expected), ":%u\r\n", length_of(a, LONG, b, LONG - k));
            peer_say(peer, "LCS", "a", key, "LEN", NULL);
            peer_say(other, "PING", NULL);
            peer_expect(other, "+PONG\r\n");
            peer_expect(peer, expected);
        }
        peer_say(peer, "LCS", "a", "nonesuch", NULL);
        peer_expect(peer, "$0\r\n\r\n");
        peer_say(peer, "LCS", "nonesuch", "a", "IDX", NULL);
        peer_expect(peer, "*4\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n");
        peer_say(peer, "MGET", "nonesuch", "nonesuch", NULL); /* the way of gathered values is as it was */
        peer_expect(peer, "*2\r\n$-1\r\n$-1\r\n");
        peer_say(peer, "LCS", "a", "a", NULL); /* under way when the connection goes, and the node */
        peer_close(peer);
        peer_close(other);
        fixture_end(&fixture);
    }
}

static void test_lcs__tells_where_it_lies(void **state)
{
    (void)state;
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 9, 3);
    struct peer *peer = peer_open(&fixture);
    set(peer, "1", (const uint8_t *)"ohmytext", 8);
    set(peer, "2", (const uint8_t *)"mynewtext", 9);
    peer_say(peer, "LCS", "1", "2", NULL);
    peer_expect(peer, "$6\r\nmytext\r\n");
    peer_say(peer, "LCS", "1", "2", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN", NULL);
    peer_expect(peer,
                "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6\r\n");
    peer_say(peer, "LCS", "1", "2", "IDX", NULL);
    peer_expect(
        peer,
        "*4\r\n$7\r\nmatches\r\n*2\r\n*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n"
        ":1\r\n$3\r\nlen\r\n:6\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

/* The table would be larger than a value may be. */
static void test_lcs__of_long_values_is_refused(void **state)
{
    (void)state;
    static uint8_t value[60000];
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 10, 2);
    struct peer *peer = peer_open(&fixture);
    set(peer, "a", value, sizeof(value));
    peer_say(peer, "LCS", "a", "a", NULL);
    peer_expect(peer, "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len\r\n");
    peer_say(peer, "LCS", "a", "a", "IDX", "LEN", NULL);
    peer_expect(peer, "-ERR If you want both the length and indexes, please just use IDX.\r\n");
    peer_close(peer);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands__each_has_a_row_of_syntax),
        cmocka_unit_test(test_commands__arguments_are_told_in_maps),
        cmocka_unit_test(test_lcs__takes_many_turns_in_which_others_are_served),
        cmocka_unit_test(test_lcs__tells_where_it_lies),
        cmocka_unit_test(test_lcs__of_long_values_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
