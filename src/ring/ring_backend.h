/*
 * ring_backend.h - the seam inside src/ring: what ring_io.c (common) and a backend (the kernel, or the simulator) owe
 * each other. A program links exactly one backend, so the calls are direct.
 *
 * ring_io.c owns every operation's meaning: it fills in the op, hands it to ring_backend_issue, gets each raw result
 * back through ring_io_completed, and there decides: continue the rest, translate the error, or call the owner back. A
 * backend only carries out one step and reports what came of it, as the kernel would: a number of bytes, a descriptor,
 * or a negative errno.
 *
 * How a kind uses the fields of struct ring_op:
 *   kind      file        offset           single / iov           backend[0]   backend[1]   rw_flags
 *   OPEN      directory                                           path                      enum ring_open_flags
 *   READ      file        where to begin   single: whole buffer
 *   WRITE     file        where to begin   single: whole buffer                             enum ring_write_flags
 *   SYNC      file
 *   ALLOCATE  file        size
 *   RENAME    directory                                           from         to
 *   UNLINK    directory                                           path
 *   LINK      directory   the other directory                     from         to
 *   MAKE_DIR  directory                                           path
 *   ACCEPT    listener
 *   CONNECT   (socket)                                            address
 *   RECV      socket
 *   SEND      socket                       iov: what is left
 *   TIMER                 delay in ns
 *   SIGNAL    signal fd
 * backend[2] and backend[3] are the backend's own. CONNECT: the backend makes the socket and stores it in `file`.
 */
#ifndef KVS_RING_RING_BACKEND_H
#define KVS_RING_RING_BACKEND_H

#include "ring/ring.h"

enum ring_kind {
    RING_KIND_NONE,
    RING_KIND_OPEN,
    RING_KIND_READ,
    RING_KIND_WRITE,
    RING_KIND_SYNC,
    RING_KIND_ALLOCATE,
    RING_KIND_RENAME,
    RING_KIND_UNLINK,
    RING_KIND_ACCEPT,
    RING_KIND_CONNECT,
    RING_KIND_RECV,
    RING_KIND_SEND,
    RING_KIND_TIMER,
    RING_KIND_SIGNAL,
    RING_KIND_LINK,
    RING_KIND_MAKE_DIR,
    RING_KIND_COUNT
};

/* Bits of op->state. Above them: how often in a row the op was tried again without getting anywhere. */
enum ring_state {
    RING_STATE_ACTIVE = 1,
    RING_STATE_CANCEL = 2, /* its end was asked for: nothing is continued any more */
    RING_STATE_RETRY_ONE = 4,
    RING_STATE_RETRY_MASK = 0xfc,
};

/* op->rw_flags of RECV. */
#define RING_RECV_ONCE 1u

/* What one step came to. */
struct ring_result {
    int32_t value;   /* >= 0, or a negative errno */
    bool more;       /* the backend will report further results of this step (IORING_CQE_F_MORE) */
    bool has_buffer; /* buffer_id was filled */
    uint16_t buffer_id;
};

/* The part of a read or write that the next step is to carry out. */
struct ring_chunk {
    uint8_t *data;
    uint32_t size;
    uint64_t offset;
};
struct ring_chunk ring_io_chunk(const struct ring_op *op);

/* Reports a result. Returns true when the owner was called back; the op may be gone then. */
bool ring_io_completed(struct ring *ring, struct ring_op *op, struct ring_result result);

enum kvs_err ring_error_from_errno(int sys_errno);
const char *ring_kind_name(enum ring_kind kind);

/* ---- what a backend provides, besides the rest of ring.h -------------------------------------------------------- */

/* Carries out the next step of `op`. The result is reported from a later ring_turn, never from inside this call. */
void ring_backend_issue(struct ring *ring, struct ring_op *op);
/* Asks for the end of the step in flight. */
void ring_backend_cancel(struct ring *ring, struct ring_op *op);

#endif
