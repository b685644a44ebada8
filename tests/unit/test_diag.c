/* test_diag.c - what diag_print puts on standard error, caught in a pipe. */
#include "base/diag.h"

#include "base/bytes.h"

#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int stderr_before;
static int pipe_out;
static char caught[1 << 16];

static int begin(void **state)
{
    (void)state;
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    stderr_before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    pipe_out = ends[0];
    unsetenv("JOURNAL_STREAM");
    diag_set_level(DIAG_INFO);
    return 0;
}

static int end(void **state)
{
    (void)state;
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
    close(pipe_out);
    unsetenv("JOURNAL_STREAM");
    return 0;
}

/* What was printed since the test began; standard error is back where it was, so that failures are seen. */
static const char *caught_text(void)
{
    dup2(stderr_before, STDERR_FILENO); /* the last writer of the pipe is gone: reading ends */
    size_t size = 0;
    for (ssize_t got = 1; got > 0 && size < sizeof caught - 1; size += (size_t)got) {
        got = read(pipe_out, caught + size, sizeof caught - 1 - size);
        assert_true(got >= 0);
    }
    caught[size] = '\0';
    return caught;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t compiled;
    assert_int_equal(regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const int result = regexec(&compiled, text, 0, NULL, 0);
    regfree(&compiled);
    if (result != 0)
        fail_msg("'%s' does not match '%s'", text, pattern);
}

static void test_diag__line_has_time_and_level(void **state)
{
    (void)state;
    diag_error("shard %d: %s", 3, "disk gone");
    diag_warn("w");
    diag_info("i");
    assert_matches(caught_text(), "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z error "
                                  "shard 3: disk gone\n[^ ]+Z warn w\n[^ ]+Z info i\n$");
}

static void test_diag__levels_below_the_set_one_are_silent(void **state)
{
    (void)state;
    diag_debug("no");
    diag_set_level(DIAG_ERROR);
    diag_warn("no");
    diag_info("no");
    diag_error("first");
    diag_set_level(DIAG_DEBUG);
    diag_debug("second");
    assert_matches(caught_text(), "^[^ ]+Z error first\n[^ ]+Z debug second\n$");
}

static void set_journal_stream(unsigned long long inode_offset)
{
    struct stat status;
    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    char text[64];
    snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)status.st_dev, status.st_ino + inode_offset);
    setenv("JOURNAL_STREAM", text, 1);
}

static void test_diag__journal_gets_a_priority_and_no_time(void **state)
{
    (void)state;
    set_journal_stream(0);
    diag_set_level(DIAG_DEBUG);
    diag_error("e %d", 1);
    diag_warn("w");
    diag_info("i");
    diag_debug("d");
    assert_string_equal(caught_text(), "<3>e 1\n<4>w\n<6>i\n<7>d\n");
}

static void test_diag__journal_of_somebody_else_is_not_ours(void **state)
{
    (void)state;
    set_journal_stream(1);
    diag_info("i");
    setenv("JOURNAL_STREAM", "nonsense", 1);
    diag_info("j");
    assert_matches(caught_text(), "^20[^ ]+Z info i\n20[^ ]+Z info j\n$");
}

static void test_diag__control_characters_become_question_marks(void **state)
{
    (void)state;
    set_journal_stream(0);
    diag_info("a\nb\rc\td\x1b[31m\x7f \x01 \xc3\xa9");
    assert_string_equal(caught_text(), "<6>a?b?c?d?[31m? ? \xc3\xa9\n");
}

static void test_diag__empty_message_is_a_line(void **state)
{
    (void)state;
    set_journal_stream(0);
    diag_info("%s", "");
    assert_string_equal(caught_text(), "<6>\n");
}

static void test_diag__line_is_cut_at_1024_bytes(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    set_journal_stream(0);
    diag_info("%.*s", 1024 - 3 - 1, text);
    diag_info("%.*s", 1024 - 3, text);
    diag_info("%s", text);
    diag_info("next");
    const char *lines = caught_text();
    for (int i = 0; i < 3; i++, lines += 1024) {
        assert_memory_equal(lines, "<6>x", 4);
        assert_ptr_equal(strchr(lines, '\n'), lines + 1023);
    }
    assert_string_equal(lines, "<6>next\n");
}

static void test_diag__errno_survives(void **state)
{
    (void)state;
    setenv("JOURNAL_STREAM", "99999999999999999999999:1", 1); /* reading it sets errno to ERANGE */
    errno = ENOSPC;
    diag_info("%m");
    assert_int_equal(errno, ENOSPC);
    close(STDERR_FILENO);
    diag_info("lost");
    assert_int_equal(errno, ENOSPC);
    assert_matches(caught_text(), "info No space left on device\n$");
}

static void test_diag__level_names_are_parsed(void **state)
{
    (void)state;
    static const char *const names[] = {"error", "warn", "info", "debug"};
    enum diag_level level = DIAG_INFO;
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        assert_true(diag_parse_level(names[i], &level));
        assert_int_equal(level, i);
    }
    level = DIAG_WARN;
    assert_false(diag_parse_level("", &level));
    assert_false(diag_parse_level("Error", &level));
    assert_false(diag_parse_level("warning", &level));
    assert_int_equal(level, DIAG_WARN);
}

enum { THREADS = 4, LINES = 60 };

static void *print_lines(void *argument)
{
    const char letter = *(const char *)argument;
    char text[101];
    memset(text, letter, 100);
    text[100] = '\0';
    for (int i = 0; i < LINES; i++)
        diag_info("%s", text);
    return NULL;
}

static void test_diag__lines_of_several_threads_do_not_mix(void **state)
{
    (void)state;
    set_journal_stream(0);
    pthread_t threads[THREADS];
    char letters[THREADS] = {'a', 'b', 'c', 'd'};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, print_lines, &letters[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    const char *line = caught_text();
    int lines = 0;
    for (; *line != '\0'; line += 104, lines++) {
        assert_memory_equal(line, "<6>", 3);
        for (int i = 4; i < 103; i++)
            assert_int_equal(line[i], line[3]);
        assert_int_equal(line[103], '\n');
    }
    assert_int_equal(lines, THREADS * LINES);
}

#define CAUGHT(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAUGHT(test_diag__line_has_time_and_level),
        CAUGHT(test_diag__levels_below_the_set_one_are_silent),
        CAUGHT(test_diag__journal_gets_a_priority_and_no_time),
        CAUGHT(test_diag__journal_of_somebody_else_is_not_ours),
        CAUGHT(test_diag__control_characters_become_question_marks),
        CAUGHT(test_diag__empty_message_is_a_line),
        CAUGHT(test_diag__line_is_cut_at_1024_bytes),
        CAUGHT(test_diag__errno_survives),
        cmocka_unit_test(test_diag__level_names_are_parsed),
        CAUGHT(test_diag__lines_of_several_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
