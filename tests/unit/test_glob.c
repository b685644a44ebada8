/*
 * test_glob.c - patterns: a table of what Redis matches, and random ones against a slow matcher that is plainly right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/glob.h"

#include <stdlib.h>

static void test_glob__table(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "abc", true},
        {"a*", "abc", true},
        {"a*", "bac", false},
        {"*c", "abc", true},
        {"*c", "abcd", false},
        {"a*c", "ac", true},
        {"a*c", "abbc", true},
        {"a*c", "abb", false},
        {"a**c", "abbc", true},
        {"?", "a", true},
        {"?", "", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"[abc]", "b", true},
        {"[abc]", "d", false},
        {"[a-c]x", "bx", true},
        {"[c-a]x", "bx", true},
        {"[^a-c]x", "dx", true},
        {"[^a-c]x", "ax", false},
        {"[^]", "a", true},
        {"[]", "a", false},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"a\\", "a\\", true},
        {"[\\]]", "]", true},
        {"[a", "a", true},
        {"user:*:name", "user:7:name", true},
        {"user:*:name", "user:7:names", false},
        {"*a*b*c*", "xxaxxbxxcxx", true},
        {"*a*b*c*", "xxaxxcxxbxx", false},
        {"h[^e]llo", "hello", false},
        {"h[a-b]llo", "hbllo", true},
        {"a*", "A", false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        if (glob_matches(slice_text(cases[i].pattern), slice_text(cases[i].text)) != cases[i].matches)
            fail_msg("'%s' against '%s': expected %d", cases[i].pattern, cases[i].text, cases[i].matches);
    }
    assert_true(glob_matches(slice_make("a\0*", 3), slice_make("a\0bc", 4)));
}

/* Stars, question marks and letters only. */
static bool slowly(const char *pattern, size_t pattern_size, const char *text, size_t text_size)
{
    bool reached[16][16] = {{false}};
    reached[0][0] = true;
    for (size_t p = 0; p < pattern_size; p++) {
        for (size_t t = 0; t <= text_size; t++) {
            if (!reached[p][t])
                continue;
            if (pattern[p] == '*') {
                for (size_t more = t; more <= text_size; more++)
                    reached[p + 1][more] = true;
            } else if (t < text_size && (pattern[p] == '?' || pattern[p] == text[t])) {
                reached[p + 1][t + 1] = true;
            }
        }
    }
    return reached[pattern_size][text_size];
}

static void test_glob__random_patterns(void **state)
{
    (void)state;
    unsigned found = 0;
    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        char pattern[12], text[12];
        size_t pattern_size = (size_t)rand() % 9, text_size = (size_t)rand() % 9;
        for (size_t j = 0; j < pattern_size; j++)
            pattern[j] = "ab*?"[rand() % 4];
        for (size_t j = 0; j < text_size; j++)
            text[j] = "ab"[rand() % 2];
        bool expected = slowly(pattern, pattern_size, text, text_size);
        found += expected;
        if (glob_matches(slice_make(pattern, pattern_size), slice_make(text, text_size)) != expected)
            fail_msg("'%.*s' against '%.*s': expected %d", (int)pattern_size, pattern, (int)text_size, text, expected);
    }
    assert_true(found > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glob__table),
        cmocka_unit_test(test_glob__random_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
