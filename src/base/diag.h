/*
 * diag.h - the messages of a program to its operator: one line each on standard error.
 *
 * A line is written by a single write(2), so lines of several threads never mix; any thread may call. Format:
 * "2026-01-31T12:00:00.123Z level message". When standard error goes to the journal (JOURNAL_STREAM names it) the time
 * is left out and the level becomes the "<n>" prefix that systemd understands. Never called on the hot path.
 */
#ifndef KVS_BASE_DIAG_H
#define KVS_BASE_DIAG_H

#include <stdbool.h>

enum diag_level { DIAG_ERROR, DIAG_WARN, DIAG_INFO, DIAG_DEBUG };

/* Sets the least urgent level that is printed (DIAG_INFO at first). Any thread. */
void diag_set_level(enum diag_level level);

/* Parses "error", "warn", "info" or "debug"; false on any other text, *level untouched. */
bool diag_parse_level(const char *text, enum diag_level *level);

/* Prints one line, cut at 1 KiB; control characters in it are replaced by '?'. */
void diag_print(enum diag_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define diag_error(...) diag_print(DIAG_ERROR, __VA_ARGS__)
#define diag_warn(...)  diag_print(DIAG_WARN, __VA_ARGS__)
#define diag_info(...)  diag_print(DIAG_INFO, __VA_ARGS__)
#define diag_debug(...) diag_print(DIAG_DEBUG, __VA_ARGS__)

#endif
