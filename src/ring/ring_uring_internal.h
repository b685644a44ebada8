/*
 * ring_uring_internal.h - what the ring_uring_*.c files share: the ring structure, and how completions are told apart.
 */
#ifndef KVS_RING_RING_URING_INTERNAL_H
#define KVS_RING_RING_URING_INTERNAL_H

#include "ring/ring_backend.h"

#include <liburing.h>
#include <pthread.h>
#include <sys/socket.h>

/* liburing 2.3 does not know these yet. */
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17) /* kernel 6.15 */
#endif
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif

#define URING_ENTRIES_DEFAULT 512u
/* Completions per submission entry: room for all that a listening socket may have in stock (4,096), which a multishot
 * accept brings at once, and for as many others. */
#define URING_CQ_FACTOR      16u
#define URING_BUFFER_GROUP   0
#define URING_DESCRIBE_BYTES 256

/*
 * user_data of an operation is the address of its struct ring_op, which is 8-byte aligned: the low three bits tell the
 * ring's own requests apart.
 */
enum uring_tag {
    URING_TAG_OP = 0,
    URING_TAG_IGNORE = 1,      /* a cancel request: what it says, its target's own completion says better */
    URING_TAG_WOKEN = 2,       /* another thread's ring_wake arrived here */
    URING_TAG_WAKE_FAILED = 3, /* our ring_wake did not get through; above the tag: the target ring */
    URING_TAG_CLOSED = 4,      /* above the tag: the descriptor */
    URING_TAG_MASK = 7,
};

/* What a request points to and the kernel copies on submission: one for each slot of the submission queue. */
union uring_slot {
    struct msghdr message;
    struct __kernel_timespec time;
};

struct ring {
    struct io_uring uring;
    unsigned enter_flags; /* IORING_ENTER_… of every call */
    unsigned setup_flags;
    int enter_fd;
    bool woken; /* a wake-up has arrived that ring_turn has not yet returned for */
    bool overflow_seen;
    pthread_t thread;
    uint64_t in_flight; /* requests whose last completion is still to come, wake-ups and cancels not counted */
    uint64_t overflows; /* turns that found the completion queue overflown */
    union uring_slot *slots;

    /* ring_wake calls for one target since the last submission become one. */
    const struct ring *last_woken;
    unsigned last_woken_tail;

    /* Ops that failed before they reached the kernel, linked by backend[3]; their errno is in sys_errno. */
    struct ring_op *failed_first;
    struct ring_op **failed_last;

    struct io_uring_buf_ring *buffer_ring;
    uint8_t *buffers;
    size_t buffer_ring_size;
    size_t buffers_size;
    unsigned buffer_count;
    unsigned buffer_bytes;
    unsigned buffers_free;

    char description[URING_DESCRIBE_BYTES];
};

/* ---- ring_uring.c ---------------------------------------------------------------------------------------------- */

/* A free submission entry; submits what is queued to get one. */
struct io_uring_sqe *uring_sqe(struct ring *ring);
/* Hands everything queued to the kernel without waiting. */
void uring_submit(struct ring *ring);
/* The slot that belongs to a submission entry. */
static inline union uring_slot *uring_slot(struct ring *ring, const struct io_uring_sqe *sqe)
{
    return &ring->slots[sqe - ring->uring.sq.sqes];
}

/* ---- ring_uring_setup.c ---------------------------------------------------------------------------------------- */

/* One step of the set-up ladder. */
struct uring_step {
    const char *name;
    unsigned flags;
};
#define URING_STEP_COUNT 3
extern const struct uring_step uring_steps[URING_STEP_COUNT];

/* io_uring_queue_init_params with one step's flags; 0 or a negative errno. */
int uring_try_step(struct io_uring *uring, const struct uring_step *step, unsigned entries);
/* Writes why the set-up failed, and the remedy. */
void uring_explain(char message[RING_MESSAGE_BYTES], const char *what, int sys_errno);

/* An opcode the node needs. */
struct uring_opcode {
    uint8_t code;
    const char *name;
};
#define URING_OPCODE_COUNT 16
extern const struct uring_opcode uring_opcodes[URING_OPCODE_COUNT];
/* Fills `missing` with the opcodes that this kernel does not have; their number, or a negative errno. */
int uring_missing_opcodes(struct io_uring *uring, const char *missing[URING_OPCODE_COUNT]);

/* Frees everything a ring holds; nothing is in flight. */
void uring_teardown(struct ring *ring);

/* ---- ring_uring_sockets.c -------------------------------------------------------------------------------------- */

/* A TCP or Unix stream socket with TCP_NODELAY; the descriptor or a negative errno. */
int uring_socket(int family);

#endif
