/* test_error.c - every error code has a text of its own, fit to stand in a sentence; a failed assertion ends the
 * process. */
#include "base/error.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_error__every_code_has_a_text_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < KVS_ERR_COUNT; i++) {
        const char *text = kvs_err_text((enum kvs_err)i);
        assert_non_null(text);
        assert_true(islower((unsigned char)text[0]));
        assert_true(text[strlen(text) - 1] != '.');
        for (int j = 0; j < i; j++)
            assert_string_not_equal(text, kvs_err_text((enum kvs_err)j));
    }
}

static void test_error__code_zero_is_success(void **state)
{
    (void)state;
    assert_int_equal(KVS_ERR_OK, 0);
    assert_string_equal(kvs_err_text(KVS_ERR_OK), "success");
    assert_string_equal(kvs_err_text(KVS_ERR_NO_SPACE), "no space left on device");
}

static void test_error__unknown_codes_have_a_text_too(void **state)
{
    (void)state;
    assert_string_equal(kvs_err_text(KVS_ERR_COUNT), "unknown error");
    assert_string_equal(kvs_err_text((enum kvs_err)1000000), "unknown error");
    const int negative = -1;
    assert_string_equal(kvs_err_text((enum kvs_err)negative), "unknown error");
}

/* Runs KVS_ASSERT in a child; returns its wait status, its standard error in `text`. */
static int assert_in_child(bool value, char *text, size_t text_bytes_max)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        KVS_ASSERT(value == true);
        _exit(0);
    }
    close(ends[1]);
    size_t text_bytes = 0;
    for (ssize_t got = 1; got > 0 && text_bytes < text_bytes_max - 1; text_bytes += (size_t)got)
        got = read(ends[0], text + text_bytes, text_bytes_max - 1 - text_bytes);
    text[text_bytes] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_error__failed_assertion_names_itself_and_aborts(void **state)
{
    (void)state;
    char text[2048];
    const int status = assert_in_child(false, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "assertion failed"));
    assert_non_null(strstr(text, "value == true"));
    assert_non_null(strstr(text, "test_error.c:"));
    assert_non_null(strstr(text, "assert_in_child"));
}

static void test_error__assertion_that_holds_says_nothing(void **state)
{
    (void)state;
    char text[2048];
    assert_int_equal(assert_in_child(true, text, sizeof text), 0);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error__every_code_has_a_text_of_its_own),
        cmocka_unit_test(test_error__code_zero_is_success),
        cmocka_unit_test(test_error__unknown_codes_have_a_text_too),
        cmocka_unit_test(test_error__failed_assertion_names_itself_and_aborts),
        cmocka_unit_test(test_error__assertion_that_holds_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
