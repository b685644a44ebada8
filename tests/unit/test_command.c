/*
 * test_command.c - the command table and the search in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/command.h"

#include <ctype.h>

static void test_command__table_is_sorted_and_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        assert_true(i == 0 || strcmp(command_table[i - 1].name, command->name) < 0);
        assert_int_not_equal(command->arity, 0);
        assert_non_null(command->run);
        assert_int_equal(command->first_key != 0, command->key_step != 0);
        assert_true(command->categories[0] == '@' && *command->summary != 0 && *command->since != 0);
        assert_false((command->flags & COMMAND_WRITE) != 0 && (command->flags & COMMAND_READONLY) != 0);
        for (const char *at = command->name; *at != 0; at++)
            assert_int_equal(tolower(*at), *at);
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            assert_true(sub->arity >= 2 || sub->arity <= -2);
            assert_true(sub->run != NULL && *sub->help != 0);
        }
    }
}

static void test_command__every_name_is_found_in_any_case(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_table_count; i++) {
        char name[32];
        size_t size = strlen(command_table[i].name);
        for (unsigned round = 0; round < 3; round++) {
            for (size_t j = 0; j <= size; j++) {
                char letter = command_table[i].name[j];
                name[j] = (round == 1 || (round == 2 && j % 2 == 0)) ? (char)toupper(letter) : letter;
            }
            assert_ptr_equal(command_find(slice_make(name, size)), &command_table[i]);
        }
        assert_null(command_find(slice_make(name, size - 1)));
        assert_null(command_find(slice_make(name, size + 1))); /* with the 0 at its end */
    }
}

static void test_command__other_names_are_not_found(void **state)
{
    (void)state;
    static const char *const names[] = {
        "", "a", "ge", "gett", "zzz", "g\x05t", "\007et", "kvs.durabilit", "kvs.durability."};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_null(command_find(slice_text(names[i])));
}

static void test_command__arity(void **state)
{
    (void)state;
    assert_true(command_arity_fits(2, 2));
    assert_false(command_arity_fits(2, 1));
    assert_false(command_arity_fits(2, 3));
    assert_true(command_arity_fits(-2, 2));
    assert_true(command_arity_fits(-2, 100));
    assert_false(command_arity_fits(-2, 1));
    assert_true(command_arity_fits(-1, 1));
}

static void test_command__word_is(void **state)
{
    (void)state;
    assert_true(command_word_is(slice_text("SetName"), "setname"));
    assert_false(command_word_is(slice_text("setnam"), "setname"));
    assert_false(command_word_is(slice_text("setnames"), "setname"));
    assert_false(command_word_is(slice_make("set\0ame", 7), "set"));
    assert_true(command_word_is(slice_text(""), ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command__table_is_sorted_and_whole),
        cmocka_unit_test(test_command__every_name_is_found_in_any_case),
        cmocka_unit_test(test_command__other_names_are_not_found),
        cmocka_unit_test(test_command__arity),
        cmocka_unit_test(test_command__word_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
