/*
 * ring_io.c - the operations of ring.h, above either backend.
 *
 * Happy path: ring_file_write and its sisters fill in the op and have the backend issue it; its result arrives in
 * ring_io_completed, which finds the op finished, translates the result and calls the owner back.
 *
 * Failure modes:
 *   - Short reads, writes and sends, EINTR and EAGAIN: the rest is issued again (the one place where that happens). No
 *     progress means end of file for a read and an error for a write. A direct read that stopped off a block boundary
 *     has met the end of the file; its continuation there is refused (EINVAL), which says the same.
 *   - A multishot accept or receive that the kernel ended although it went well is issued again unseen.
 *   - Other errors are translated and end the op. A failed write or sync is never tried again: the page cache may have
 *     marked what it lost as clean.
 *   - An op whose end was asked for is not continued.
 */
#include "ring/ring_backend.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/limits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* One step moves at most this much: below the kernel's own limit (2 GiB - 4 KiB), and a multiple of every block size.
 */
#define CHUNK_BYTES_MAX (1u << 30)

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* What has no entry of its own is KVS_ERR_SYSTEM. */
static_assert(KVS_ERR_OK == 0, "no entry");
static const enum kvs_err errors_of_errno[] = {
    [EAGAIN] = KVS_ERR_AGAIN,
    [EINTR] = KVS_ERR_AGAIN,
    [EALREADY] = KVS_ERR_AGAIN,
    [EINPROGRESS] = KVS_ERR_AGAIN,
    [EACCES] = KVS_ERR_ACCESS,
    [EPERM] = KVS_ERR_ACCESS,
    [EADDRINUSE] = KVS_ERR_ADDRESS_IN_USE,
    [EADDRNOTAVAIL] = KVS_ERR_ADDRESS_UNAVAILABLE,
    [EAFNOSUPPORT] = KVS_ERR_ADDRESS_UNAVAILABLE,
    [ECANCELED] = KVS_ERR_CANCELLED,
    [EPIPE] = KVS_ERR_CLOSED,
    [ECONNRESET] = KVS_ERR_CLOSED,
    [ECONNABORTED] = KVS_ERR_CLOSED,
    [ENOTCONN] = KVS_ERR_CLOSED,
    [ESHUTDOWN] = KVS_ERR_CLOSED,
    [ENETUNREACH] = KVS_ERR_CONNECTION,
    [ENETDOWN] = KVS_ERR_CONNECTION,
    [ENETRESET] = KVS_ERR_CONNECTION,
    [EHOSTUNREACH] = KVS_ERR_CONNECTION,
    [EHOSTDOWN] = KVS_ERR_CONNECTION,
    [ECONNREFUSED] = KVS_ERR_REFUSED,
    [EEXIST] = KVS_ERR_EXISTS,
    [ENOTEMPTY] = KVS_ERR_EXISTS,
    [EINVAL] = KVS_ERR_INVALID,
    [EISDIR] = KVS_ERR_INVALID,
    [ELOOP] = KVS_ERR_INVALID,
    [EIO] = KVS_ERR_IO,
    [ENXIO] = KVS_ERR_IO,
    [ENODEV] = KVS_ERR_IO,
    [EUCLEAN] = KVS_ERR_IO,
    [EBADMSG] = KVS_ERR_IO,
    [EMFILE] = KVS_ERR_NO_DESCRIPTORS,
    [ENFILE] = KVS_ERR_NO_DESCRIPTORS,
    [ENOMEM] = KVS_ERR_NO_MEMORY,
    [ENOBUFS] = KVS_ERR_NO_MEMORY,
    [ENOSPC] = KVS_ERR_NO_SPACE,
    [EDQUOT] = KVS_ERR_NO_SPACE,
    [ENOTDIR] = KVS_ERR_NOT_A_DIRECTORY,
    [ENOENT] = KVS_ERR_NOT_FOUND,
    [EROFS] = KVS_ERR_READ_ONLY,
    [ETIMEDOUT] = KVS_ERR_TIMEOUT,
    [EFBIG] = KVS_ERR_TOO_LARGE,
    [ENAMETOOLONG] = KVS_ERR_TOO_LARGE,
    [EMSGSIZE] = KVS_ERR_TOO_LARGE,
    [E2BIG] = KVS_ERR_TOO_LARGE,
    [EOPNOTSUPP] = KVS_ERR_UNSUPPORTED,
    [ENOSYS] = KVS_ERR_UNSUPPORTED,
};

enum kvs_err ring_error_from_errno(int sys_errno)
{
    if (sys_errno == 0)
        return KVS_ERR_OK;
    const bool known = sys_errno > 0 && (size_t)sys_errno < sizeof errors_of_errno / sizeof errors_of_errno[0] &&
                       errors_of_errno[sys_errno] != KVS_ERR_OK;
    return known ? errors_of_errno[sys_errno] : KVS_ERR_SYSTEM;
}

/* The same errno can mean something more precise for one kind of operation. */
static enum kvs_err error_of(const struct ring_op *op, int sys_errno)
{
    if (op->kind == RING_KIND_OPEN && sys_errno == EINVAL && (op->rw_flags & RING_OPEN_DIRECT))
        return KVS_ERR_UNSUPPORTED;
    if (op->kind == RING_KIND_LINK && (sys_errno == EXDEV || sys_errno == EPERM || sys_errno == EMLINK))
        return KVS_ERR_UNSUPPORTED;
    if (op->kind == RING_KIND_RECV && sys_errno == ENOBUFS)
        return KVS_ERR_NO_BUFFERS;
    if ((op->state & RING_STATE_CANCEL) && sys_errno == EINTR)
        return KVS_ERR_CANCELLED;
    return ring_error_from_errno(sys_errno);
}

const char *ring_op_text(const struct ring_op *op)
{
    static _Thread_local char text[160];
    KVS_ASSERT(op != NULL);
    const char *ours = kvs_err_text(op->error);
    const char *theirs = op->sys_errno != 0 ? strerrordesc_np(op->sys_errno) : NULL;
    if (theirs == NULL || strcasecmp(ours, theirs) == 0)
        return ours;
    snprintf(text, sizeof(text), "%s (%s)", ours, theirs);
    return text;
}

const char *ring_kind_name(enum ring_kind kind)
{
    static const char *const names[RING_KIND_COUNT] = {
        [RING_KIND_NONE] = "none",     [RING_KIND_OPEN] = "open",
        [RING_KIND_READ] = "read",     [RING_KIND_WRITE] = "write",
        [RING_KIND_SYNC] = "sync",     [RING_KIND_ALLOCATE] = "allocate",
        [RING_KIND_RENAME] = "rename", [RING_KIND_UNLINK] = "unlink",
        [RING_KIND_ACCEPT] = "accept", [RING_KIND_CONNECT] = "connect",
        [RING_KIND_RECV] = "recv",     [RING_KIND_SEND] = "send",
        [RING_KIND_LINK] = "link",     [RING_KIND_MAKE_DIR] = "make directory",
        [RING_KIND_TIMER] = "timer",   [RING_KIND_SIGNAL] = "signal",
    };
    KVS_ASSERT(kind < RING_KIND_COUNT);
    return names[kind];
}

/* ---- starting -------------------------------------------------------------------------------------------------- */

bool ring_op_active(const struct ring_op *op)
{
    return (op->state & RING_STATE_ACTIVE) != 0;
}

static inline void op_begin(struct ring *ring, struct ring_op *op, enum ring_kind kind, int file)
{
    KVS_ASSERT(op->done != NULL);
    KVS_ASSERT(!ring_op_active(op));
    op->error = KVS_ERR_OK;
    op->fd = -1;
    op->bytes = 0;
    op->buffer_id = 0;
    op->flags = 0;
    op->kind = (uint8_t)kind;
    op->state = RING_STATE_ACTIVE;
    op->rw_flags = 0;
    op->file = file;
    op->sys_errno = 0;
    op->offset = 0;
    op->transferred = 0;
    op->ring = ring;
}

void ring_timer(struct ring *ring, struct ring_op *op, uint64_t delay_ns)
{
    op_begin(ring, op, RING_KIND_TIMER, -1);
    op->offset = delay_ns;
    ring_backend_issue(ring, op);
}

void ring_file_open(struct ring *ring, struct ring_op *op, int dir_fd, const char *path, unsigned open_flags)
{
    KVS_ASSERT((open_flags & (RING_OPEN_READ | RING_OPEN_WRITE)) != 0);
    KVS_ASSERT(path != NULL && open_flags < 2 * RING_OPEN_PRIVATE);
    KVS_ASSERT((open_flags & RING_OPEN_DIRECTORY) == 0 || open_flags == (RING_OPEN_DIRECTORY | RING_OPEN_READ));
    op_begin(ring, op, RING_KIND_OPEN, dir_fd);
    op->rw_flags = (uint8_t)open_flags;
    op->backend[0] = (void *)(uintptr_t)path;
    ring_backend_issue(ring, op);
}

static void begin_transfer(struct ring *ring, struct ring_op *op, enum ring_kind kind, int fd, void *buffer,
                           size_t size, uint64_t offset)
{
    KVS_ASSERT(buffer != NULL || size == 0);
    KVS_ASSERT(offset <= INT64_MAX && size <= INT64_MAX - offset);
    op_begin(ring, op, kind, fd);
    op->offset = offset;
    op->single = (struct iovec){.iov_base = buffer, .iov_len = size};
}

void ring_file_read(struct ring *ring, struct ring_op *op, int fd, void *buffer, size_t size, uint64_t offset)
{
    begin_transfer(ring, op, RING_KIND_READ, fd, buffer, size, offset);
    ring_backend_issue(ring, op);
}

void ring_file_write(struct ring *ring, struct ring_op *op, int fd, const void *buffer, size_t size, uint64_t offset,
                     unsigned write_flags)
{
    KVS_ASSERT(write_flags <= RING_WRITE_DURABLE);
    begin_transfer(ring, op, RING_KIND_WRITE, fd, (void *)(uintptr_t)buffer, size, offset);
    op->rw_flags = (uint8_t)write_flags;
    ring_backend_issue(ring, op);
}

void ring_file_sync(struct ring *ring, struct ring_op *op, int fd)
{
    op_begin(ring, op, RING_KIND_SYNC, fd);
    ring_backend_issue(ring, op);
}

void ring_file_allocate(struct ring *ring, struct ring_op *op, int fd, uint64_t size)
{
    KVS_ASSERT(size > 0 && size <= INT64_MAX);
    op_begin(ring, op, RING_KIND_ALLOCATE, fd);
    op->offset = size;
    ring_backend_issue(ring, op);
}

void ring_file_rename(struct ring *ring, struct ring_op *op, int dir_fd, const char *from, const char *to)
{
    KVS_ASSERT(from != NULL && to != NULL);
    op_begin(ring, op, RING_KIND_RENAME, dir_fd);
    op->backend[0] = (void *)(uintptr_t)from;
    op->backend[1] = (void *)(uintptr_t)to;
    ring_backend_issue(ring, op);
}

void ring_file_unlink(struct ring *ring, struct ring_op *op, int dir_fd, const char *path)
{
    KVS_ASSERT(path != NULL);
    op_begin(ring, op, RING_KIND_UNLINK, dir_fd);
    op->backend[0] = (void *)(uintptr_t)path;
    ring_backend_issue(ring, op);
}

void ring_file_link(struct ring *ring, struct ring_op *op, int from_dir, const char *from, int to_dir, const char *to)
{
    KVS_ASSERT(from != NULL && to != NULL && to_dir >= 0);
    op_begin(ring, op, RING_KIND_LINK, from_dir);
    op->offset = (uint64_t)to_dir;
    op->backend[0] = (void *)(uintptr_t)from;
    op->backend[1] = (void *)(uintptr_t)to;
    ring_backend_issue(ring, op);
}

void ring_dir_make(struct ring *ring, struct ring_op *op, int dir_fd, const char *path)
{
    KVS_ASSERT(path != NULL);
    op_begin(ring, op, RING_KIND_MAKE_DIR, dir_fd);
    op->backend[0] = (void *)(uintptr_t)path;
    ring_backend_issue(ring, op);
}

void ring_accept(struct ring *ring, struct ring_op *op, int listen_fd)
{
    op_begin(ring, op, RING_KIND_ACCEPT, listen_fd);
    ring_backend_issue(ring, op);
}

void ring_connect(struct ring *ring, struct ring_op *op, const struct ring_addr *addr)
{
    KVS_ASSERT(addr != NULL && addr->size > 0);
    op_begin(ring, op, RING_KIND_CONNECT, -1);
    op->backend[0] = (void *)(uintptr_t)addr;
    ring_backend_issue(ring, op);
}

void ring_recv(struct ring *ring, struct ring_op *op, int fd)
{
    op_begin(ring, op, RING_KIND_RECV, fd);
    ring_backend_issue(ring, op);
}

void ring_recv_once(struct ring *ring, struct ring_op *op, int fd)
{
    op_begin(ring, op, RING_KIND_RECV, fd);
    op->rw_flags = RING_RECV_ONCE;
    ring_backend_issue(ring, op);
}

void ring_send(struct ring *ring, struct ring_op *op, int fd, struct iovec *iov, unsigned iov_count)
{
    KVS_ASSERT(iov != NULL);
    KVS_ASSERT(iov_count >= 1 && iov_count <= RING_IOV_MAX);
    op_begin(ring, op, RING_KIND_SEND, fd);
    op->iov = iov;
    op->iov_count = iov_count;
    ring_backend_issue(ring, op);
}

void ring_signal_next(struct ring *ring, struct ring_op *op, int signal_fd)
{
    op_begin(ring, op, RING_KIND_SIGNAL, signal_fd);
    ring_backend_issue(ring, op);
}

void ring_cancel(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(!ring_op_active(op) || op->ring == ring);
    if (!ring_op_active(op) || (op->state & RING_STATE_CANCEL))
        return;
    op->state |= RING_STATE_CANCEL;
    ring_backend_cancel(ring, op);
}

/* ---- completing ------------------------------------------------------------------------------------------------ */

struct ring_chunk ring_io_chunk(const struct ring_op *op)
{
    KVS_ASSERT(op->kind == RING_KIND_READ || op->kind == RING_KIND_WRITE);
    uint64_t left = op->single.iov_len - op->transferred;
    return (struct ring_chunk){
        .data = (uint8_t *)op->single.iov_base + op->transferred,
        .size = (uint32_t)(left < CHUNK_BYTES_MAX ? left : CHUNK_BYTES_MAX),
        .offset = op->offset + op->transferred,
    };
}

/* Takes `value` into account; true when the op has come to its end, with `*sys_errno` set if that is a bad one. */
static bool transfer_finished(struct ring_op *op, uint32_t value, int *sys_errno)
{
    op->transferred += value;
    KVS_ASSERT(op->transferred <= op->single.iov_len);
    if (op->transferred == op->single.iov_len)
        return true;
    if (canary_on(CANARY_SHORT_WRITE_IS_WHOLE) && op->kind == RING_KIND_WRITE && value > 0)
        return true;
    if (value == 0 && op->kind == RING_KIND_WRITE)
        *sys_errno = EIO;
    return value == 0;
}

/* See the head of the file. */
static bool ended_off_boundary(const struct ring_op *op, int sys_errno)
{
    return op->kind == RING_KIND_READ && sys_errno == EINVAL && op->transferred % KVS_BLOCK_BYTES != 0;
}

/* Takes `value` sent bytes off the front of the iovecs; true when nothing is left. */
static bool send_finished(struct ring_op *op, uint32_t value, int *sys_errno)
{
    size_t sent = value;
    op->transferred += sent;
    if (canary_on(CANARY_SHORT_SEND_IS_WHOLE))
        return true;
    while (op->iov_count > 0 && sent >= op->iov->iov_len) {
        sent -= op->iov->iov_len;
        op->iov++;
        op->iov_count--;
    }
    if (op->iov_count == 0) {
        KVS_ASSERT(sent == 0);
        return true;
    }
    op->iov->iov_base = (uint8_t *)op->iov->iov_base + sent;
    op->iov->iov_len -= sent;
    if (value == 0)
        *sys_errno = EIO;
    return value == 0;
}

/* An interruption is no answer for operations that may simply be issued again. Bounded, so that a descriptor that never
 * blocks (somebody set O_NONBLOCK) becomes an error and not a busy loop. */
static bool try_again(struct ring_op *op, int sys_errno)
{
    bool passing = sys_errno == EINTR || sys_errno == EAGAIN;
    if (op->kind == RING_KIND_ACCEPT && (sys_errno == ECONNABORTED || sys_errno == EPROTO))
        passing = true; /* that client has gone; there will be others */
    if (canary_on(CANARY_FAILED_WRITE_RETRIED) && op->kind == RING_KIND_WRITE && sys_errno == EIO)
        passing = true;
    if (!passing || op->kind == RING_KIND_SYNC || op->kind == RING_KIND_CONNECT)
        return false;
    if ((op->state & RING_STATE_RETRY_MASK) == RING_STATE_RETRY_MASK)
        return false;
    op->state = (uint8_t)(op->state + RING_STATE_RETRY_ONE);
    return true;
}

/* True when `op` has to be issued again before its owner hears of it. */
static bool must_continue(struct ring_op *op, struct ring_result result, int *sys_errno)
{
    bool cancelled = (op->state & RING_STATE_CANCEL) != 0;
    if (result.value < 0) {
        *sys_errno = -result.value;
        bool end = canary_on(CANARY_EINTR_IS_END_OF_FILE) && op->kind == RING_KIND_READ && *sys_errno == EINTR;
        if (end || ended_off_boundary(op, *sys_errno)) {
            *sys_errno = 0;
            return false;
        }
        if (cancelled || result.more)
            return false;
        return try_again(op, *sys_errno);
    }
    bool finished = true;
    if (op->kind == RING_KIND_READ || op->kind == RING_KIND_WRITE)
        finished = transfer_finished(op, (uint32_t)result.value, sys_errno);
    else if (op->kind == RING_KIND_SEND)
        finished = send_finished(op, (uint32_t)result.value, sys_errno);
    op->state &= (uint8_t)~RING_STATE_RETRY_MASK;
    if (!finished && cancelled)
        *sys_errno = ECANCELED;
    return !finished && !cancelled;
}

/* Sets the fields that a success of this kind has. */
static void set_result(struct ring_op *op, struct ring_result result)
{
    switch (op->kind) {
    case RING_KIND_OPEN:
    case RING_KIND_ACCEPT:
        op->fd = result.value;
        break;
    case RING_KIND_CONNECT:
        op->fd = op->file;
        break;
    case RING_KIND_READ:
    case RING_KIND_WRITE:
    case RING_KIND_SEND:
        op->bytes = op->transferred;
        break;
    case RING_KIND_RECV:
    case RING_KIND_SIGNAL:
        op->bytes = (uint32_t)result.value;
        break;
    default:
        break;
    }
}

static bool is_multishot(const struct ring_op *op)
{
    return op->kind == RING_KIND_ACCEPT || (op->kind == RING_KIND_RECV && op->rw_flags != RING_RECV_ONCE);
}

bool ring_io_completed(struct ring *ring, struct ring_op *op, struct ring_result result)
{
    KVS_ASSERT(ring_op_active(op));
    KVS_ASSERT(op->ring == ring);
    /* The kernel may have picked a buffer before it found that there was nothing to put in. */
    if (result.has_buffer && result.value <= 0) {
        ring_buffer_release(ring, result.buffer_id);
        result.has_buffer = false;
    }
    int sys_errno = 0;
    if (must_continue(op, result, &sys_errno)) {
        ring_backend_issue(ring, op);
        return false;
    }

    op->fd = -1;
    op->bytes = 0;
    op->buffer_id = result.buffer_id;
    op->flags = result.has_buffer ? RING_BUFFER : 0;
    op->sys_errno = sys_errno;
    op->error = error_of(op, sys_errno);
    if (sys_errno == 0) {
        set_result(op, result);
        bool ended = op->kind == RING_KIND_RECV && result.value == 0;
        if (is_multishot(op) && !result.more && !ended && !(op->state & RING_STATE_CANCEL)) {
            ring_backend_issue(ring, op);
            result.more = true;
        }
    } else {
        op->bytes = op->transferred;
        if (op->kind == RING_KIND_CONNECT && op->file >= 0)
            ring_close_fd(ring, op->file);
    }
    if (result.more)
        op->flags |= RING_MORE;
    else
        op->state = 0;
    op->done(op);
    return true;
}
