/*
 * sim_request.c - requests in flight: when each can complete, what it does, and what becomes of it otherwise.
 *
 * Happy path: added with a latency drawn from the seed; once due it has its effect on disk or network (execute) and its
 * result waits for its ring to be turned. Disk requests may have their effect some time before that, so that a crash
 * can fall between the effect and the news of it.
 *
 * Failure modes: a fault set by the test fails the step; the seed shortens and interrupts steps as often as the test
 * allows. A cancelled request that has not had its effect ends with ECANCELED; one on the disk may have it all the
 * same.
 */
#include "sim_core.h"

#include "base/assert.h"
#include "sim_disk.h"
#include "sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool on_disk(enum ring_kind kind)
{
    return kind >= RING_KIND_OPEN && kind <= RING_KIND_UNLINK;
}

static uint64_t latency(const struct ring_op *op)
{
    if (op->kind == RING_KIND_TIMER)
        return op->offset;
    if (op->kind == RING_KIND_SYNC)
        return sim_between(50000, 500000);
    return on_disk(op->kind) ? sim_between(10000, 200000) : sim_between(1000, 20000);
}

static int take_fault(enum ring_kind kind)
{
    int sys_errno = 0;
    for (unsigned i = 0; i < sim->fault_count; i++) {
        struct sim_fault *fault = &sim->faults[i];
        if (fault->countdown == 0 || (fault->kind != RING_KIND_NONE && fault->kind != kind))
            continue;
        if (--fault->countdown == 0)
            sys_errno = fault->sys_errno;
    }
    return sys_errno;
}

/* O_DIRECT takes nothing unaligned: the kernel answers EINVAL. Where that is a mistake it is to be seen at once; where
 * a read has gone on past the end of a file, it is part of the game. */
static bool is_misaligned(const struct ring_op *op)
{
    if (!(sim_fd_get(op->file)->flags & RING_OPEN_DIRECT))
        return false;
    struct ring_chunk chunk = ring_io_chunk(op);
    bool wrong = (((uintptr_t)chunk.data | chunk.size | chunk.offset) & (sim_disk_align() - 1)) != 0;
    KVS_ASSERT(!wrong || (op->kind == RING_KIND_READ && op->transferred > 0));
    return wrong;
}

void sim_request_add(struct ring *ring, struct ring_op *op)
{
    struct sim_request *request = calloc(1, sizeof(*request));
    KVS_ASSERT(request != NULL);
    request->ring = ring;
    request->op = op;
    request->kind = op->kind;
    request->file = op->file;
    request->sequence = ++sim->sequence;
    uint64_t wait = latency(op);
    request->ready_ns = wait < SIM_NEVER - sim->now_ns ? sim->now_ns + wait : SIM_NEVER;
    request->fault = take_fault(op->kind);
    op->backend[2] = request;
    list_push_back(&sim->requests, &request->link);
    sim->issued[op->kind]++;
    sim->issued[RING_KIND_NONE]++;
    if ((op->kind == RING_KIND_READ || op->kind == RING_KIND_WRITE) && is_misaligned(op))
        request->fault = EINVAL;
    if (op->kind == RING_KIND_WRITE) {
        struct ring_chunk chunk = ring_io_chunk(op);
        request->copy = malloc(chunk.size + 1);
        KVS_ASSERT(request->copy != NULL);
        memcpy(request->copy, chunk.data, chunk.size);
    }
}

void sim_request_free(struct sim_request *request)
{
    list_remove(&request->link);
    free(request->copy);
    free(request);
}

void sim_request_cancel(struct sim_request *request)
{
    if (request->executed)
        return;
    if (on_disk(request->kind) && sim_chance(50))
        return;
    request->executed = true;
    request->result = (struct ring_result){.value = -ECANCELED};
    request->ready_ns = sim->now_ns + sim_between(0, 5000);
}

uint64_t sim_request_when(const struct sim_request *request)
{
    const struct ring_op *op = request->op;
    uint64_t when = 0;
    if (!request->executed && request->fault == 0) {
        if (op->kind == RING_KIND_RECV)
            when = !request->looked && request->ring->buffers_free == 0 ? 0 : sim_net_recv_when(op->file);
        else if (op->kind == RING_KIND_SEND)
            when = sim_net_send_when(op->file);
        else if (op->kind == RING_KIND_ACCEPT)
            when = sim_net_accept_when(op->file);
        else if (op->kind == RING_KIND_SIGNAL)
            when = sim->signal_count > 0 ? 0 : SIM_NEVER;
    }
    return when > request->ready_ns ? when : request->ready_ns;
}

/* ---- effects --------------------------------------------------------------------------------------------------- */

static uint16_t take_buffer(struct ring *ring)
{
    KVS_ASSERT(ring->buffers_free > 0);
    uint16_t id = ring->free_ids[ring->free_head];
    ring->free_head = (ring->free_head + 1) % ring->buffer_count;
    ring->buffers_free--;
    return id;
}

static struct ring_result do_recv(struct sim_request *request)
{
    struct ring *ring = request->ring;
    struct ring_result result = {.value = -ENOBUFS};
    request->looked = true;
    if (ring->buffers_free == 0)
        return result;
    uint16_t id = ring->free_ids[ring->free_head];
    result.value = sim_net_recv(request->op->file, ring_buffer_data(ring, id), ring->buffer_bytes);
    /* At the end of a stream the kernel may hand out a buffer with nothing in it. */
    result.has_buffer = result.value > 0 || (result.value == 0 && sim_chance(50));
    if (result.has_buffer)
        result.buffer_id = take_buffer(ring);
    if (result.value > 0)
        result.more = !sim_chance(10); /* the kernel, too, ends a multishot for reasons of its own */
    return result;
}

static int do_write(struct sim_request *request)
{
    const struct ring_op *op = request->op;
    struct ring_chunk chunk = ring_io_chunk(op);
    KVS_ASSERT(memcmp(request->copy, chunk.data, chunk.size) == 0); /* changed in flight */
    return sim_disk_write(op->file, chunk, request->copy, (op->rw_flags & RING_WRITE_DURABLE) != 0);
}

static int do_signal(void)
{
    KVS_ASSERT(sim->signal_count > 0);
    int number = sim->signals[0];
    sim->signal_count--;
    memmove(&sim->signals[0], &sim->signals[1], sizeof(sim->signals[0]) * sim->signal_count);
    return number;
}

static struct ring_result do_accept(const struct ring_op *op)
{
    struct ring_result result = {.value = sim_net_accept(op->file)};
    result.more = result.value >= 0 && !sim_chance(10);
    return result;
}

static int do_other(struct sim_request *request)
{
    struct ring_op *op = request->op;
    switch ((enum ring_kind)op->kind) {
    case RING_KIND_OPEN:
        return sim_disk_open(op->file, op->backend[0], op->rw_flags);
    case RING_KIND_READ:
        return sim_disk_read(op->file, ring_io_chunk(op));
    case RING_KIND_WRITE:
        return do_write(request);
    case RING_KIND_SYNC:
        return sim_disk_sync(op->file, request->sequence, false);
    case RING_KIND_ALLOCATE:
        return sim_disk_allocate(op->file, op->offset);
    case RING_KIND_RENAME:
        return sim_disk_rename(op->file, op->backend[0], op->backend[1]);
    case RING_KIND_UNLINK:
        return sim_disk_unlink(op->file, op->backend[0]);
    case RING_KIND_CONNECT: {
        int fd = sim_net_connect(op->backend[0]);
        op->file = request->file = fd >= 0 ? fd : -1;
        return fd >= 0 ? 0 : fd;
    }
    case RING_KIND_SEND:
        return sim_net_send(op->file, op->iov, op->iov_count, sim_chance(sim->short_percent));
    case RING_KIND_TIMER:
        return 0;
    case RING_KIND_SIGNAL:
        return do_signal();
    default:
        KVS_ASSERT(false);
        return 0;
    }
}

static void fail(struct sim_request *request)
{
    const struct ring_op *op = request->op;
    if (op->kind == RING_KIND_WRITE)
        sim_disk_write_badly(op->file, ring_io_chunk(op), request->copy);
    if (op->kind == RING_KIND_SYNC)
        (void)sim_disk_sync(op->file, request->sequence, true);
    request->result = (struct ring_result){.value = -request->fault};
}

static bool interruptible(const struct ring_op *op)
{
    return op->kind == RING_KIND_READ || op->kind == RING_KIND_WRITE || op->kind == RING_KIND_RECV ||
           op->kind == RING_KIND_SEND || op->kind == RING_KIND_ACCEPT || op->kind == RING_KIND_OPEN;
}

void sim_request_execute(struct sim_request *request)
{
    KVS_ASSERT(!request->executed);
    request->executed = true;
    request->result = (struct ring_result){0};
    if (request->fault != 0)
        fail(request);
    else if (interruptible(request->op) && sim_chance(sim->interrupted_percent))
        request->result.value = sim_chance(50) ? -EINTR : -EAGAIN;
    else if (request->op->kind == RING_KIND_RECV)
        request->result = do_recv(request);
    else if (request->op->kind == RING_KIND_ACCEPT)
        request->result = do_accept(request->op);
    else
        request->result.value = do_other(request);
}

/* ---- without the owner's knowledge ----------------------------------------------------------------------------- */

void sim_request_background(void)
{
    for (struct list *node = sim->requests.next; node != &sim->requests; node = node->next) {
        struct sim_request *request = container_of(node, struct sim_request, link);
        if (!request->executed && on_disk(request->kind) && request->ready_ns <= sim->now_ns && sim_chance(30))
            sim_request_execute(request);
    }
}

/* What the disk was about to do when nobody was there any more to hear of it. A write's fate is then up to the crash,
 * so it is left as an unsynced one even if it was to be durable. The op's own memory is read no more. */
static void finish_alone(struct sim_request *request)
{
    const struct ring_op *op = request->op;
    int rc = 0;
    if (op->kind == RING_KIND_WRITE) {
        (void)sim_disk_write(op->file, ring_io_chunk(op), request->copy, false);
    } else if (op->kind == RING_KIND_OPEN) {
        rc = sim_disk_open(op->file, op->backend[0], op->rw_flags);
        if (rc >= 0)
            sim_fd_close(rc);
    } else if (op->kind == RING_KIND_RENAME) {
        (void)sim_disk_rename(op->file, op->backend[0], op->backend[1]);
    } else if (op->kind == RING_KIND_UNLINK) {
        (void)sim_disk_unlink(op->file, op->backend[0]);
    } else if (op->kind == RING_KIND_ALLOCATE) {
        (void)sim_disk_allocate(op->file, op->offset);
    }
}

/* A descriptor that has been made but never handed over. */
static void close_result(const struct sim_request *request)
{
    if (request->result.value < 0)
        return;
    if (request->kind == RING_KIND_OPEN || request->kind == RING_KIND_ACCEPT)
        sim_fd_close(request->result.value);
    else if (request->kind == RING_KIND_CONNECT)
        sim_fd_close(request->file);
}

void sim_request_abandon(const struct ring *ring, enum sim_crash_mode mode)
{
    struct list *node = sim->requests.next;
    while (node != &sim->requests) {
        struct sim_request *request = container_of(node, struct sim_request, link);
        node = node->next;
        if (ring != NULL && request->ring != ring)
            continue;
        if (request->executed)
            close_result(request);
        else if (on_disk(request->kind) && (mode == SIM_KEEP_ALL || (mode == SIM_RANDOM && sim_chance(50))))
            finish_alone(request);
        if (ring != NULL)
            request->op->state = 0;
        sim_request_free(request);
    }
}
