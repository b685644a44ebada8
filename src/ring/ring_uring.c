/*
 * ring_uring.c - ring.h on Linux io_uring: submitting, waiting, completing, waking, closing.
 *
 * Happy path. Starting an operation writes a submission entry. ring_turn hands all of them to the kernel and collects
 * completions in the same io_uring_enter; then each completion goes to ring_io_completed, which calls the owner back.
 * What callbacks start waits for the next turn: a busy shard makes one system call per turn.
 *
 * With DEFER_TASKRUN completions appear only inside io_uring_enter with GETEVENTS, and the TASKRUN flag in the
 * submission ring says that some wait for that. So a turn that must not wait looks at three words of shared memory
 * (entries queued, completions there, flags) and makes no system call when all are empty.
 *
 * Failure modes:
 *   - Submission queue full: what is queued is submitted at once and the operation goes on. Kernel out of memory for
 *     requests: waited for, up to a minute, then fatal, because an operation can be neither dropped nor kept elsewhere.
 *   - Completion queue overflown: the kernel keeps the completions (NODROP) and delivers them on the next call; counted
 * and warned about once. If it had to drop some (-EBADR) the ring no longer knows what has happened: fatal.
 *   - Closing cancels what is in flight and waits for it, so that the kernel writes into nothing that was freed;
 *     descriptors that arrive meanwhile are closed.
 */
#include "ring/ring_uring_internal.h"

#include "base/assert.h"
#include "base/diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define SUBMIT_ATTEMPTS_MAX 60000 /* a millisecond apart */
#define CLOSE_PATIENCE_NS   100000000
#define NS_PER_SECOND       1000000000u

/* ---- submitting ------------------------------------------------------------------------------------------------ */

static _Noreturn void fatal(const char *what, int sys_errno)
{
    diag_error("io_uring: %s: %s", what, strerrordesc_np(sys_errno));
    abort();
}

/* Publishes the entries written so far; returns how many the kernel has not taken. */
static unsigned flush_queue(struct ring *ring)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    sq->sqe_head = sq->sqe_tail;
    __atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
    return sq->sqe_tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

static unsigned queue_flags(const struct ring *ring)
{
    return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED);
}

static bool passing(int sys_errno)
{
    return sys_errno == EINTR || sys_errno == EAGAIN || sys_errno == EBUSY || sys_errno == ETIME || sys_errno == ENOMEM;
}

/* The one system call: submits, and with `get_events` collects completions, waiting for `wait_count` of them until
 * `timeout` (NULL: for ever). Returns 0 or a passing errno. */
static int enter(struct ring *ring, unsigned wait_count, bool get_events, struct __kernel_timespec *timeout)
{
    unsigned to_submit = flush_queue(ring);
    unsigned flags = ring->enter_flags;
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)timeout};
    int rc;
    if (get_events)
        flags |= IORING_ENTER_GETEVENTS;
    if (timeout != NULL)
        rc = io_uring_enter2((unsigned)ring->enter_fd, to_submit, wait_count, flags | IORING_ENTER_EXT_ARG,
                             (sigset_t *)(void *)&arg, sizeof(arg));
    else
        rc = io_uring_enter2((unsigned)ring->enter_fd, to_submit, wait_count, flags, NULL, _NSIG / 8);
    if (rc >= 0)
        return 0;
    if (!passing(-rc))
        fatal(rc == -EBADR ? "completions were lost, state unknown" : "io_uring_enter failed", -rc);
    return -rc;
}

void uring_submit(struct ring *ring)
{
    for (unsigned attempt = 0; flush_queue(ring) > 0; attempt++) {
        int sys_errno = enter(ring, 0, false, NULL);
        if (sys_errno == 0 || sys_errno == EINTR)
            continue;
        if (attempt == SUBMIT_ATTEMPTS_MAX)
            fatal("the kernel takes no more requests", sys_errno);
        /* Out of memory for requests, or a backlog of completions: let it work off what it has. */
        (void)enter(ring, 0, true, NULL);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

struct io_uring_sqe *uring_sqe(struct ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (__builtin_expect(sqe == NULL, 0)) {
        uring_submit(ring);
        sqe = io_uring_get_sqe(&ring->uring);
        KVS_ASSERT(sqe != NULL);
    }
    return sqe;
}

void ring_backend_cancel(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(ring_op_active(op));
    struct io_uring_sqe *sqe = uring_sqe(ring);
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = URING_TAG_IGNORE;
}

/* Closing from the queue saves the hot path a system call, and the descriptor cannot be given out again before the
 * entries queued earlier are through. */
void ring_close_fd(struct ring *ring, int fd)
{
    KVS_ASSERT(fd >= 0);
    struct io_uring_sqe *sqe = uring_sqe(ring);
    io_uring_prep_close(sqe, fd);
    sqe->user_data = ((uint64_t)(unsigned)fd << 3) | URING_TAG_CLOSED;
    ring->in_flight++;
}

/* ---- waking ---------------------------------------------------------------------------------------------------- */

/*
 * Posts a completion into the target's queue, which ends its wait whatever its set-up mode. The message leaves with the
 * next submission of `ring`: a shard that wakes others turns its own ring right afterwards.
 */
void ring_wake(struct ring *ring, struct ring *target)
{
    KVS_ASSERT(ring != NULL && target != NULL);
    const struct io_uring_sq *sq = &ring->uring.sq;
    if (ring->last_woken == target && (int)(ring->last_woken_tail - __atomic_load_n(sq->khead, __ATOMIC_RELAXED)) > 0)
        return;
    struct io_uring_sqe *sqe = uring_sqe(ring);
    if (target == ring) {
        io_uring_prep_nop(sqe);
        sqe->user_data = URING_TAG_WOKEN;
    } else {
        io_uring_prep_msg_ring(sqe, target->uring.ring_fd, 0, URING_TAG_WOKEN, 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = (uint64_t)(uintptr_t)target | URING_TAG_WAKE_FAILED;
    }
    ring->last_woken = target;
    ring->last_woken_tail = sq->sqe_tail;
}

static void wake_failed(struct ring *ring, struct ring *target, int sys_errno)
{
    /* The target's ring is gone: nobody is asleep there. Otherwise the kernel was short of memory: again. */
    if (sys_errno == EBADF || sys_errno == EBADFD || sys_errno == EOWNERDEAD || sys_errno == ECANCELED)
        return;
    if (sys_errno == EINVAL || sys_errno == EOPNOTSUPP)
        fatal("this kernel's IORING_OP_MSG_RING does not work", sys_errno);
    ring_wake(ring, target);
}

/* ---- completing ------------------------------------------------------------------------------------------------ */

static void closed_fd(struct ring *ring, int fd, int32_t value)
{
    KVS_ASSERT(ring->in_flight > 0);
    ring->in_flight--;
    KVS_ASSERT(value != -EBADF); /* closed twice, or never open */
    if (value == -ECANCELED)
        (void)close(fd);
}

/* A completion of the ring's own requests. */
static void internal_completed(struct ring *ring, uint64_t user_data, int32_t value)
{
    uint64_t rest = user_data & ~(uint64_t)URING_TAG_MASK;
    switch (user_data & URING_TAG_MASK) {
    case URING_TAG_IGNORE:
        break;
    case URING_TAG_WOKEN:
        ring->woken = true;
        break;
    case URING_TAG_WAKE_FAILED:
        wake_failed(ring, (struct ring *)(uintptr_t)rest, -value);
        break;
    case URING_TAG_CLOSED:
        closed_fd(ring, (int)(rest >> 3), value);
        break;
    default:
        KVS_ASSERT(false); /* a completion that nobody asked for */
    }
}

/* Kernel timers expire with -ETIME; a signal descriptor is polled and then read here. */
static struct ring_result refine(const struct ring_op *op, struct ring_result result)
{
    struct signalfd_siginfo info;
    if (op->kind == RING_KIND_TIMER && result.value == -ETIME) {
        result.value = 0;
    } else if (op->kind == RING_KIND_SIGNAL && result.value >= 0) {
        ssize_t got = read(op->file, &info, sizeof(info));
        result.value = got == (ssize_t)sizeof(info) ? (int32_t)info.ssi_signo : got < 0 ? -errno : -EIO;
    }
    return result;
}

/* A completion, copied off the queue. */
struct completion {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

/* Reads a completion of an operation and keeps the books. */
static struct ring_result account(struct ring *ring, const struct completion *cqe)
{
    struct ring_result result = {
        .value = cqe->res,
        .more = (cqe->flags & IORING_CQE_F_MORE) != 0,
        .has_buffer = (cqe->flags & IORING_CQE_F_BUFFER) != 0,
    };
    if (!result.more) {
        KVS_ASSERT(ring->in_flight > 0);
        ring->in_flight--;
    }
    if (result.has_buffer) {
        result.buffer_id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        KVS_ASSERT(ring->buffers_free > 0);
        ring->buffers_free--;
    }
    return result;
}

/* Takes the oldest completion off the queue. Copied out first, so that a callback may itself turn the ring. */
static struct completion pop(struct ring *ring)
{
    struct io_uring_cq *cq = &ring->uring.cq;
    const struct io_uring_cqe *entry = &cq->cqes[*cq->khead & cq->ring_mask];
    struct completion cqe = {.user_data = entry->user_data, .res = entry->res, .flags = entry->flags};
    io_uring_cq_advance(&ring->uring, 1);
    return cqe;
}

static unsigned deliver_failed(struct ring *ring)
{
    unsigned callbacks = 0;
    struct ring_op *op = ring->failed_first;
    ring->failed_first = NULL;
    ring->failed_last = &ring->failed_first;
    while (op != NULL) {
        struct ring_op *next = op->backend[3];
        struct ring_result result = {.value = -op->sys_errno};
        callbacks += ring_io_completed(ring, op, result);
        op = next;
    }
    return callbacks;
}

static unsigned deliver(struct ring *ring)
{
    unsigned callbacks = 0;
    /* Those that are there now: what callbacks cause waits its turn. */
    for (unsigned left = io_uring_cq_ready(&ring->uring); left > 0 && io_uring_cq_ready(&ring->uring) > 0; left--) {
        struct completion cqe = pop(ring);
        if (cqe.user_data & URING_TAG_MASK) {
            internal_completed(ring, cqe.user_data, cqe.res);
        } else {
            struct ring_op *op = (struct ring_op *)(uintptr_t)cqe.user_data;
            callbacks += ring_io_completed(ring, op, refine(op, account(ring, &cqe)));
        }
    }
    if (__builtin_expect(ring->failed_first != NULL, 0))
        callbacks += deliver_failed(ring);
    return callbacks;
}

/* ---- turning --------------------------------------------------------------------------------------------------- */

static struct __kernel_timespec timespec_of(uint64_t ns)
{
    return (struct __kernel_timespec){.tv_sec = (long long)(ns / NS_PER_SECOND),
                                      .tv_nsec = (long long)(ns % NS_PER_SECOND)};
}

static void note_overflow(struct ring *ring)
{
    ring->overflows++;
    if (ring->overflow_seen)
        return;
    ring->overflow_seen = true;
    diag_warn("io_uring: the completion queue overflowed (%u entries); operations go on, more slowly",
              ring->uring.cq.ring_entries);
}

/* Submits and collects; waits only if nothing is there yet. */
static void collect(struct ring *ring, bool wait, struct __kernel_timespec *timeout)
{
    unsigned flags = queue_flags(ring);
    bool pending = (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
    if (__builtin_expect(flags & IORING_SQ_CQ_OVERFLOW, 0))
        note_overflow(ring);
    if (io_uring_cq_ready(&ring->uring) > 0 || ring->failed_first != NULL || ring->woken)
        wait = false;
    if (wait)
        (void)enter(ring, 1, true, timeout);
    else if (pending || io_uring_sq_ready(&ring->uring) > 0)
        (void)enter(ring, 0, true, NULL);
}

static unsigned turn(struct ring *ring, int64_t timeout_ns)
{
    KVS_ASSERT(pthread_equal(ring->thread, pthread_self()));
    uint64_t deadline = timeout_ns > 0 ? ring_now_ns(ring) + (uint64_t)timeout_ns : 0;
    uint64_t left = timeout_ns > 0 ? (uint64_t)timeout_ns : 0;
    for (;;) {
        struct __kernel_timespec timeout = timespec_of(left);
        collect(ring, timeout_ns != 0, timeout_ns > 0 ? &timeout : NULL);
        unsigned callbacks = deliver(ring);
        if (callbacks > 0 || ring->woken || timeout_ns == 0)
            return callbacks;
        if (timeout_ns > 0) {
            uint64_t now = ring_now_ns(ring);
            if (now >= deadline)
                return 0;
            left = deadline - now;
        }
    }
}

unsigned ring_turn(struct ring *ring, int64_t timeout_ns)
{
    unsigned callbacks = turn(ring, timeout_ns);
    ring->woken = false;
    return callbacks;
}

/* A wake-up that arrives meanwhile is kept for the next ring_turn: whoever sent it wants the owner's loop to go round.
 */
void ring_await(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(op->ring == ring);
    bool woken = ring->woken;
    while (ring_op_active(op)) {
        ring->woken = false;
        (void)turn(ring, -1);
        woken |= ring->woken;
    }
    ring->woken = woken;
}

/* ---- closing --------------------------------------------------------------------------------------------------- */

/* Swallows the completions that are there, without callbacks. */
static void discard(struct ring *ring)
{
    while (io_uring_cq_ready(&ring->uring) > 0) {
        struct completion cqe = pop(ring);
        if ((cqe.user_data & URING_TAG_MASK) == URING_TAG_CLOSED)
            internal_completed(ring, cqe.user_data, cqe.res);
        if ((cqe.user_data & URING_TAG_MASK) != URING_TAG_OP)
            continue;
        struct ring_op *op = (struct ring_op *)(uintptr_t)cqe.user_data;
        if (cqe.res >= 0 && (op->kind == RING_KIND_OPEN || op->kind == RING_KIND_ACCEPT))
            (void)close(cqe.res);
        if (op->kind == RING_KIND_CONNECT)
            (void)close(op->file);
        if (!account(ring, &cqe).more)
            op->state = 0;
    }
}

static void cancel_all(struct ring *ring)
{
    struct io_uring_sqe *sqe = uring_sqe(ring);
    io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
    sqe->user_data = URING_TAG_IGNORE;
    uring_submit(ring);
}

void ring_close(struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    KVS_ASSERT(pthread_equal(ring->thread, pthread_self()));
    uring_submit(ring);
    /* A request on its way between two of the kernel's lists can be missed by the cancellation: repeat it. */
    while (ring->in_flight > 0) {
        cancel_all(ring);
        struct __kernel_timespec patience = timespec_of(CLOSE_PATIENCE_NS);
        do {
            discard(ring);
        } while (ring->in_flight > 0 && enter(ring, 1, true, &patience) != ETIME);
    }
    uring_submit(ring);
    uring_teardown(ring);
}

/* ---- time and chance ------------------------------------------------------------------------------------------- */

uint64_t ring_now_ns(const struct ring *ring)
{
    (void)ring;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void ring_stall(const struct ring *ring, uint64_t ns)
{
    (void)ring;
    struct timespec left = {.tv_sec = (time_t)(ns / NS_PER_SECOND), .tv_nsec = (long)(ns % NS_PER_SECOND)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

uint64_t ring_wall_us(const struct ring *ring)
{
    (void)ring;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t ring_wall_ms(const struct ring *ring)
{
    return ring_wall_us(ring) / 1000;
}

void ring_random(struct ring *ring, void *out, size_t size)
{
    (void)ring;
    KVS_ASSERT(out != NULL || size == 0);
    uint8_t *to = out;
    while (size > 0) {
        ssize_t got = getrandom(to, size, 0);
        if (got < 0) {
            if (errno != EINTR)
                fatal("getrandom failed", errno);
            continue;
        }
        to += got;
        size -= (size_t)got;
    }
}
