/* assert.c - the last words of a process with a bug. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void kvs_assert_failed(const char *expression, const char *file, int line, const char *function)
{
    fprintf(stderr, "kvs: assertion failed at %s:%d in %s: %s\n", file, line, function, expression);
    abort();
}
