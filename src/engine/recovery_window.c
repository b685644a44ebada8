/*
 * recovery_window.c - pieces of a file, read into one stretch of memory.
 *
 *             base          looked at      ready           asked         base + capacity
 *   memory     │ left behind  │ to be seen   │ being read    │               │
 *
 * Happy path: the reader walks through what is ready while the pieces behind it are read. When the memory is used up
 * and most of it has been left behind, what remains is moved to the front. It is little: at most a batch, or what the
 * disk was faster by.
 *
 * Failure: a read fails, or the file ends. Nothing can be seen from there on, until the window is moved.
 */
#include "engine/recovery_window.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "engine/big_memory.h"
#include "engine/log_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES = 512 * 1024,
    PIECES = 4, /* in flight */
    CAPACITY = 4 * 1024 * 1024,
};

struct piece {
    struct ring_op op;
    uint64_t offset;
    size_t bytes;
    bool active;
};

struct recovery_window {
    struct ring *ring;
    int fd;
    uint64_t file_bytes;
    uint8_t *memory;
    uint64_t capacity;
    uint64_t base;  /* offset in the file of memory[0] */
    uint64_t asked; /* reads have been begun up to here */
    struct piece pieces[PIECES];
    unsigned oldest, in_flight;
    uint64_t bytes;
    enum kvs_err error;
    uint64_t file_end;
    char text[128];
};

static void piece_done(struct ring_op *op)
{
    container_of(op, struct piece, op)->active = false;
}

/* Begins to read ahead, as far as there is memory. */
static void read_ahead(struct recovery_window *window)
{
    uint64_t end = window->base + window->capacity;
    end = end < window->file_bytes ? end : window->file_bytes;
    bool begun = false;
    while (window->in_flight < PIECES && window->asked < end) {
        struct piece *piece = &window->pieces[(window->oldest + window->in_flight++) % PIECES];
        piece->offset = window->asked;
        piece->bytes = end - window->asked < PIECE_BYTES ? (size_t)(end - window->asked) : PIECE_BYTES;
        piece->active = begun = true;
        ring_op_init(&piece->op, piece_done);
        ring_file_read(window->ring, &piece->op, window->fd, window->memory + (window->asked - window->base),
                       piece->bytes, window->asked);
        window->asked += piece->bytes;
    }
    if (begun)
        ring_turn(window->ring, 0);
}

/* Waits for the oldest piece. */
static void take_piece(struct recovery_window *window)
{
    KVS_ASSERT(window->in_flight > 0);
    const struct piece *piece = &window->pieces[window->oldest];
    while (piece->active)
        ring_turn(window->ring, -1);
    window->oldest = (window->oldest + 1) % PIECES;
    window->in_flight--;
    window->bytes += piece->op.error == KVS_ERR_OK ? piece->op.bytes : 0;
    if (window->error != KVS_ERR_OK)
        return;
    if (piece->op.error != KVS_ERR_OK) {
        window->error = piece->op.error;
        snprintf(window->text, sizeof window->text, "%s", ring_op_text(&piece->op));
    } else if (piece->op.bytes < piece->bytes) {
        window->error = KVS_ERR_CORRUPT;
        window->file_end = piece->offset + piece->op.bytes;
        snprintf(window->text, sizeof window->text, "it ends too early");
    }
}

static void drain(struct recovery_window *window)
{
    while (window->in_flight > 0)
        take_piece(window);
}

/* Leaves behind what is before `offset`, so that there is memory for `size` bytes from there on, and more. */
static bool slide(struct recovery_window *window, uint64_t offset, uint64_t size)
{
    drain(window);
    const uint64_t base = align_down(offset, KVS_BLOCK_BYTES);
    const uint64_t kept = window->asked > base ? window->asked - base : 0;
    const uint64_t wanted = align_up(offset + size - base, PIECE_BYTES) + PIECE_BYTES;
    uint8_t *memory = window->memory;
    if (wanted > window->capacity) {
        memory = big_memory_alloc(wanted);
        if (memory == NULL)
            return false;
    }
    if (kept > 0)
        memmove(memory, window->memory + (base - window->base), kept);
    if (memory != window->memory) {
        big_memory_free(window->memory, window->capacity);
        window->memory = memory;
        window->capacity = wanted;
    }
    window->base = base;
    window->asked = base + kept;
    return true;
}

const uint8_t *recovery_window_look(void *context, uint64_t offset, uint64_t size)
{
    struct recovery_window *window = context;
    const uint64_t end = offset + size;
    KVS_ASSERT(offset >= window->base && end <= window->file_bytes);
    const uint64_t memory_end = window->base + window->capacity;
    const bool used_up = window->asked == memory_end && offset - window->base >= window->capacity / 4 * 3;
    if ((end > memory_end || (used_up && window->asked < window->file_bytes)) && !slide(window, offset, size)) {
        window->error = KVS_ERR_NO_MEMORY;
        snprintf(window->text, sizeof window->text, "%s", kvs_err_text(KVS_ERR_NO_MEMORY));
    }
    read_ahead(window);
    while (window->error == KVS_ERR_OK &&
           end > (window->in_flight > 0 ? window->pieces[window->oldest].offset : window->asked)) {
        take_piece(window);
        read_ahead(window);
    }
    return window->error == KVS_ERR_OK ? window->memory + (offset - window->base) : NULL;
}

void recovery_window_move(struct recovery_window *window, int fd, uint64_t offset)
{
    KVS_ASSERT(offset % KVS_BLOCK_BYTES == 0 && offset <= window->file_bytes);
    drain(window);
    window->fd = fd;
    window->base = window->asked = offset;
    window->error = KVS_ERR_OK;
    window->text[0] = '\0';
}

enum kvs_err recovery_window_error(const struct recovery_window *window)
{
    return window->error;
}

const char *recovery_window_error_text(const struct recovery_window *window)
{
    return window->text;
}

uint64_t recovery_window_file_end(const struct recovery_window *window)
{
    return window->file_end;
}

uint64_t recovery_window_bytes(const struct recovery_window *window)
{
    return window == NULL ? 0 : window->bytes;
}

enum kvs_err recovery_window_open(struct recovery_window **out, struct ring *ring, uint64_t file_bytes)
{
    KVS_ASSERT(file_bytes % KVS_BLOCK_BYTES == 0);
    struct recovery_window *window = calloc(1, sizeof *window);
    uint8_t *memory = big_memory_alloc(CAPACITY);
    if (window == NULL || memory == NULL) {
        free(window);
        big_memory_free(memory, CAPACITY);
        return KVS_ERR_NO_MEMORY;
    }
    window->ring = ring;
    window->file_bytes = file_bytes;
    window->memory = memory;
    window->capacity = CAPACITY;
    *out = window;
    return KVS_ERR_OK;
}

void recovery_window_close(struct recovery_window *window)
{
    if (window == NULL)
        return;
    drain(window);
    big_memory_free(window->memory, window->capacity);
    free(window);
}
