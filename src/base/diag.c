/*
 * diag.c - one line to standard error per message.
 *
 * Happy path: a line is built in one buffer on the stack, time and level first, and leaves by one write(2). Lines are
 * shorter than PIPE_BUF, so even into a pipe they do not mix.
 *
 * Failure modes: a line that is too long is cut. If standard error is closed or full, the message is lost: there is
 * nobody left to tell. errno is as it was before.
 */
#include "base/diag.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 1024u
static_assert(LINE_BYTES_MAX <= PIPE_BUF, "a line into a pipe is written in one piece");

static const struct {
    const char *name;
    int syslog_priority;
} levels[] = {
    [DIAG_ERROR] = {"error", 3},
    [DIAG_WARN] = {"warn", 4},
    [DIAG_INFO] = {"info", 6},
    [DIAG_DEBUG] = {"debug", 7},
};
#define LEVEL_COUNT (sizeof levels / sizeof levels[0])

static _Atomic enum diag_level level_max = DIAG_INFO;

void diag_set_level(enum diag_level level)
{
    atomic_store_explicit(&level_max, level, memory_order_relaxed);
}

bool diag_parse_level(const char *text, enum diag_level *level)
{
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(text, levels[i].name) == 0) {
            *level = (enum diag_level)i;
            return true;
        }
    }
    return false;
}

/* A child of a service inherits the variable even when its standard error was sent elsewhere: so it names the file. */
static bool goes_to_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           (uint64_t)status.st_dev == device && (uint64_t)status.st_ino == inode;
}

static int write_prefix(char *line, size_t capacity, enum diag_level level)
{
    if (goes_to_journal())
        return snprintf(line, capacity, "<%d>", levels[level].syslog_priority);

    struct timespec now = {0};
    struct tm utc = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    return snprintf(line, capacity, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s ", utc.tm_year + 1900, utc.tm_mon + 1,
                    utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000, levels[level].name);
}

void diag_print(enum diag_level level, const char *format, ...)
{
    if ((unsigned)level >= LEVEL_COUNT || level > level_max)
        return;
    const int errno_before = errno;

    char line[LINE_BYTES_MAX + 1]; /* vsnprintf wants room for a NUL; the newline takes its place */
    const size_t begin = (size_t)write_prefix(line, sizeof line, level);
    va_list arguments;
    va_start(arguments, format);
    errno = errno_before; /* for %m */
    const int wanted = vsnprintf(line + begin, LINE_BYTES_MAX - begin, format, arguments);
    va_end(arguments);

    const size_t end = begin + (wanted > 0 ? strlen(line + begin) : 0);
    for (size_t i = begin; i < end; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
    line[end] = '\n';
    const ssize_t written = write(STDERR_FILENO, line, end + 1);
    (void)written;
    errno = errno_before;
}
