/*
 * test_ring_check.c - the report of `kvs-node --check`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ring/ring_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *report;

static enum kvs_err check(const char *data_dir)
{
    size_t size;
    free(report);
    FILE *out = open_memstream(&report, &size);
    assert_non_null(out);
    enum kvs_err err = ring_check(out, data_dir);
    assert_int_equal(fclose(out), 0);
    return err;
}

static void assert_says(const char *text)
{
    if (strstr(report, text) == NULL)
        fail_msg("no \"%s\" in:\n%s", text, report);
}

static void test_ring_check__tells_what_this_machine_has(void **state)
{
    (void)state;
    char path[64] = "/tmp/test_ring_check.XXXXXX", missing[128];
    assert_non_null(mkdtemp(path));
    assert_int_equal(check(path), KVS_ERR_OK);
    static const char *const facts[] = {"kernel: ",
                                        "io_uring set-up, plain: yes\n",
                                        "io_uring features: nodrop",
                                        "operation accept: yes\n",
                                        "RWF_DSYNC: yes\n",
                                        "open files: ",
                                        "locked memory: ",
                                        "CPUs to run on: ",
                                        "verdict: runs here"};
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
        assert_says(facts[i]);
    /* It tries where the directory would be, and makes nothing. */
    snprintf(missing, sizeof(missing), "%s/not/there", path);
    assert_int_equal(check(missing), KVS_ERR_OK);
    assert_says("(tried in /tmp/test_ring_check.");
    assert_int_equal(rmdir(path), 0);
}

static void test_ring_check__says_why_not(void **state)
{
    (void)state;
    assert_int_equal(check("/proc/self/nowhere"), KVS_ERR_NOT_FOUND);
    assert_says("verdict: cannot run here: cannot write to /proc/self: ");
    assert_int_equal(check("/dev/null/x"), KVS_ERR_NOT_A_DIRECTORY);
    free(report);
    report = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_check__tells_what_this_machine_has),
        cmocka_unit_test(test_ring_check__says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
