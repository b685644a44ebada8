/*
 * recovery_window.h - the bytes of a segment as they pass by: a start reads files far larger than what it keeps of
 * them, and memory that is touched for the first time costs more than reading.
 *
 * A window of some MiB moves along the file, with reads under way ahead of what is looked at. It grows when somebody
 * has to see more than that at once.
 *
 * Threads: one, that of the ring, which is turned while bytes are waited for. Blocking; start-up only.
 */
#ifndef KVS_ENGINE_RECOVERY_WINDOW_H
#define KVS_ENGINE_RECOVERY_WINDOW_H

#include "base/error.h"
#include "ring/ring.h"

#include <stdint.h>

struct recovery_window;

/* For files of `file_bytes`, a multiple of the block size. NO_MEMORY. */
enum kvs_err recovery_window_open(struct recovery_window **out, struct ring *ring, uint64_t file_bytes);
/* NULL is allowed. */
void recovery_window_close(struct recovery_window *window);

/* From here on the window is one of this file, from `offset` on, a multiple of the block size. Errors are forgotten. */
void recovery_window_move(struct recovery_window *window, int fd, uint64_t offset);

/* `size` bytes of the file at `offset`, valid until the next call; offsets never fall, below one to which the window
 * was moved. NULL: they cannot be had. For scan_segment.look, with the window as its context. */
const uint8_t *recovery_window_look(void *window, uint64_t offset, uint64_t size);

/* Why not: what reading has failed with, or CORRUPT: the file ends before. OK while all went well. */
enum kvs_err recovery_window_error(const struct recovery_window *window);
/* In words, and about the latter, how long the file is. */
const char *recovery_window_error_text(const struct recovery_window *window);
uint64_t recovery_window_file_end(const struct recovery_window *window);
/* Read since it was opened; 0 with NULL. */
uint64_t recovery_window_bytes(const struct recovery_window *window);

#endif
