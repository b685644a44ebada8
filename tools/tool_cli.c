/*
 * tool_cli.c - see tool_cli.h.
 */
#include "tool_cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tool_streams_init(void)
{
    /* Opened the wrong way round: reading from or writing to a stream that was closed goes on failing. */
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    }
    signal(SIGPIPE, SIG_IGN);
}

int tool_streams_finish(const char *program, int exit_code)
{
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout) != 0)
        failed = true;
    if (!failed)
        return exit_code;
    fprintf(stderr, "%s: cannot write to standard output: %s\n", program,
            errno != 0 ? strerror(errno) : "an earlier write failed");
    return TOOL_EXIT_FAILED;
}

bool tool_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    /* strtoull takes blanks, signs and hexadecimal; a count has digits. */
    if (text[0] == 0 || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, NULL, 10);
    if (errno != 0 || value < min || value > max)
        return false;
    *out = value;
    return true;
}

bool tool_parse_double(const char *text, double min, double max, double *out)
{
    if (text[0] == 0 || strspn(text, "0123456789.") != strlen(text))
        return false;
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || *end != 0 || value < min || value > max)
        return false;
    *out = value;
    return true;
}
