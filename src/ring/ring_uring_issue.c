/*
 * ring_uring_issue.c - writes one operation into the submission queue.
 *
 * Happy path: take a free entry, fill it in from the op, user_data = the op's address. No system call, no allocation.
 * Failure modes: a connect whose socket cannot be made never reaches the kernel; it goes on the ring's list of failed
 * operations, which the next turn reports.
 */
#include "ring/ring_uring_internal.h"

#include "base/assert.h"
#include "base/canary.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

static_assert(_Alignof(struct ring_op) > URING_TAG_MASK, "the tag needs the low bits of an op's address");

static void fail(struct ring *ring, struct ring_op *op, int sys_errno)
{
    op->sys_errno = sys_errno;
    op->backend[3] = NULL;
    *ring->failed_last = op;
    ring->failed_last = (struct ring_op **)(void *)&op->backend[3];
}

static void issue_open(struct io_uring_sqe *sqe, const struct ring_op *op)
{
    unsigned wanted = op->rw_flags;
    bool both = (wanted & RING_OPEN_READ) && (wanted & RING_OPEN_WRITE);
    int flags = O_CLOEXEC | (both ? O_RDWR : (wanted & RING_OPEN_WRITE) ? O_WRONLY : O_RDONLY);
    if (wanted & RING_OPEN_CREATE)
        flags |= O_CREAT;
    if (wanted & RING_OPEN_EXCLUSIVE)
        flags |= O_EXCL;
    if (wanted & RING_OPEN_DIRECT)
        flags |= O_DIRECT;
    if (wanted & RING_OPEN_DIRECTORY)
        flags |= O_DIRECTORY;
    io_uring_prep_openat(sqe, op->file, op->backend[0], flags, wanted & RING_OPEN_PRIVATE ? 0600 : 0640);
}

/* fdatasync leaves out what a directory's names may need. The look at the inode costs nothing next to a sync. */
static void issue_sync(struct io_uring_sqe *sqe, const struct ring_op *op)
{
    struct stat status;
    bool directory = fstat(op->file, &status) == 0 && S_ISDIR(status.st_mode);
    io_uring_prep_fsync(sqe, op->file, directory ? 0 : IORING_FSYNC_DATASYNC);
}

static void issue_write(struct io_uring_sqe *sqe, const struct ring_op *op)
{
    struct ring_chunk chunk = ring_io_chunk(op);
    io_uring_prep_write(sqe, op->file, chunk.data, chunk.size, chunk.offset);
    if ((op->rw_flags & RING_WRITE_DURABLE) && !canary_on(CANARY_URING_NO_DSYNC))
        sqe->rw_flags = RWF_DSYNC;
}

static void issue_read(struct io_uring_sqe *sqe, const struct ring_op *op)
{
    struct ring_chunk chunk = ring_io_chunk(op);
    io_uring_prep_read(sqe, op->file, chunk.data, chunk.size, chunk.offset);
}

/* Into whichever buffer of the ring is next. */
static void issue_recv(struct ring *ring, struct io_uring_sqe *sqe, const struct ring_op *op)
{
    KVS_ASSERT(ring->buffer_count > 0);
    if (op->rw_flags == RING_RECV_ONCE)
        io_uring_prep_recv(sqe, op->file, NULL, 0, 0);
    else
        io_uring_prep_recv_multishot(sqe, op->file, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = URING_BUFFER_GROUP;
}

static void issue_send(struct ring *ring, struct io_uring_sqe *sqe, const struct ring_op *op)
{
    const int flags = MSG_WAITALL | MSG_NOSIGNAL;
    KVS_ASSERT(op->iov_count >= 1);
    if (op->iov_count == 1) {
        io_uring_prep_send(sqe, op->file, op->iov->iov_base, op->iov->iov_len, flags);
        return;
    }
    struct msghdr *message = &uring_slot(ring, sqe)->message;
    *message = (struct msghdr){.msg_iov = op->iov, .msg_iovlen = op->iov_count};
    io_uring_prep_sendmsg(sqe, op->file, message, (unsigned)flags);
}

static void issue_timer(struct ring *ring, struct io_uring_sqe *sqe, const struct ring_op *op)
{
    struct __kernel_timespec *time = &uring_slot(ring, sqe)->time;
    time->tv_sec = (long long)(op->offset / 1000000000u);
    time->tv_nsec = (long long)(op->offset % 1000000000u);
    io_uring_prep_timeout(sqe, time, 0, 0);
}

static void prepare(struct ring *ring, struct io_uring_sqe *sqe, const struct ring_op *op)
{
    switch ((enum ring_kind)op->kind) {
    case RING_KIND_OPEN:
        issue_open(sqe, op);
        break;
    case RING_KIND_READ:
        issue_read(sqe, op);
        break;
    case RING_KIND_WRITE:
        issue_write(sqe, op);
        break;
    case RING_KIND_SYNC:
        issue_sync(sqe, op);
        break;
    case RING_KIND_ALLOCATE:
        io_uring_prep_fallocate(sqe, op->file, 0, 0, (off_t)op->offset);
        break;
    case RING_KIND_RENAME:
        io_uring_prep_renameat(sqe, op->file, op->backend[0], op->file, op->backend[1], 0);
        break;
    case RING_KIND_UNLINK:
        io_uring_prep_unlinkat(sqe, op->file, op->backend[0], 0);
        break;
    case RING_KIND_LINK:
        io_uring_prep_linkat(sqe, op->file, op->backend[0], (int)op->offset, op->backend[1], 0);
        break;
    case RING_KIND_MAKE_DIR:
        io_uring_prep_mkdirat(sqe, op->file, op->backend[0], 0750);
        break;
    case RING_KIND_ACCEPT:
        io_uring_prep_multishot_accept(sqe, op->file, NULL, NULL, SOCK_CLOEXEC);
        break;
    case RING_KIND_CONNECT: {
        const struct ring_addr *addr = op->backend[0];
        io_uring_prep_connect(sqe, op->file, (const struct sockaddr *)(const void *)&addr->storage, addr->size);
        break;
    }
    case RING_KIND_RECV:
        issue_recv(ring, sqe, op);
        break;
    case RING_KIND_SEND:
        issue_send(ring, sqe, op);
        break;
    case RING_KIND_TIMER:
        issue_timer(ring, sqe, op);
        break;
    case RING_KIND_SIGNAL:
        io_uring_prep_poll_add(sqe, op->file, POLLIN);
        break;
    case RING_KIND_NONE:
    case RING_KIND_COUNT:
        KVS_ASSERT(false);
    }
}

void ring_backend_issue(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(ring_op_active(op) && op->ring == ring);
    if (op->kind == RING_KIND_CONNECT) {
        const struct ring_addr *addr = op->backend[0];
        op->file = uring_socket(addr->storage.ss_family);
        if (op->file < 0) {
            fail(ring, op, -op->file);
            op->file = -1;
            return;
        }
    }
    struct io_uring_sqe *sqe = uring_sqe(ring);
    prepare(ring, sqe, op);
    sqe->user_data = (uint64_t)(uintptr_t)op;
    ring->in_flight++;
}
