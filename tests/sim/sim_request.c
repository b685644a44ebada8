/*
 * sim_request.c - requests in flight: when each can complete, what it does, and what becomes of it otherwise.
 *
 * Happy path: added with a latency drawn from the seed; once due it has its effect on disk or network (execute) and its
 * result waits for its ring to be turned. Disk requests may have their effect some time before that, so that a crash
 * can fall between the effect and the news of it.
 *
 * Failure modes: a step may meet one of the faults of sim_fault.c, which is decided when it is issued. A cancelled
 * request that has not had its effect ends with ECANCELED; one on the disk may have it all the same.
 */
#include "sim_core.h"

#include "base/assert.h"
#include "sim_disk.h"
#include "sim_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool on_disk(enum ring_kind kind)
{
    return (kind >= RING_KIND_OPEN && kind <= RING_KIND_UNLINK) || kind == RING_KIND_LINK || kind == RING_KIND_MAKE_DIR;
}

void sim_request_tell(enum sim_event event, enum ring_kind kind)
{
    if (sim->watch != NULL && on_disk(kind))
        sim->watch(event, kind);
}

static uint64_t latency(const struct ring_op *op)
{
    if (op->kind == RING_KIND_TIMER)
        return op->offset;
    if (op->kind == RING_KIND_SYNC)
        return sim_between(50000, 500000);
    return on_disk(op->kind) ? sim_between(10000, 200000) : sim_between(1000, 20000);
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

/* Requests that have come to their end, kept from machine to machine. */
static struct list free_requests = {&free_requests, &free_requests};

static struct sim_request *request_new(void)
{
    struct list *node = list_pop_front(&free_requests);
    struct sim_request *request =
        node != NULL ? container_of(node, struct sim_request, link) : malloc(sizeof(*request));
    KVS_ASSERT(request != NULL);
    *request = (struct sim_request){.twist = SIM_FAULT_COUNT};
    list_init(&request->disk_link);
    return request;
}

void sim_request_add(struct ring *ring, struct ring_op *op)
{
    sim_request_tell(SIM_EVENT_ISSUE, op->kind);
    struct sim_request *request = request_new();
    request->ring = ring;
    request->op = op;
    request->kind = op->kind;
    request->file = op->file;
    request->sequence = ++sim->sequence;
    uint64_t wait = latency(op);
    request->ready_ns = wait < SIM_NEVER - sim->now_ns ? sim->now_ns + wait : SIM_NEVER;
    sim_fault_choose(request);
    op->backend[2] = request;
    list_push_back(&sim->requests, &request->link);
    list_push_back(&ring->requests, &request->ring_link);
    if (on_disk(op->kind))
        list_push_back(&sim->disk_requests, &request->disk_link);
    sim_ring_touch(ring);
    sim->issued[op->kind]++;
    sim->issued[RING_KIND_NONE]++;
    if ((op->kind == RING_KIND_READ || op->kind == RING_KIND_WRITE) && is_misaligned(op)) {
        request->fault = EINVAL;
        request->twist = SIM_FAULT_COUNT;
    }
    if (op->kind == RING_KIND_WRITE) {
        struct ring_chunk chunk = ring_io_chunk(op);
        request->data = sim_data_make(chunk.offset, chunk.data, chunk.size);
    }
}

void sim_request_free(struct sim_request *request)
{
    sim_ring_touch(request->ring);
    list_remove(&request->link);
    list_remove(&request->ring_link);
    list_remove(&request->disk_link);
    sim_data_release(request->data);
    list_push_back(&free_requests, &request->link);
}

void sim_request_go_on(struct sim_request *request)
{
    request->executed = false;
    request->ready_ns = sim->now_ns + sim_between(0, 10000);
    sim_fault_draw(request);
    sim_ring_touch(request->ring);
}

void sim_request_cancel(struct sim_request *request)
{
    if (request->executed)
        return;
    if (on_disk(request->kind) && sim_chance(50))
        return;
    request->executed = true;
    list_remove(&request->disk_link);
    sim_ring_touch(request->ring);
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

static uint16_t take_buffer(struct ring *ring, size_t used)
{
    KVS_ASSERT(ring->buffers_free > 0);
    uint16_t id = ring->free_ids[ring->free_head];
    ring->free_head = (ring->free_head + 1) % ring->buffer_count;
    ring->buffers_free--;
    /* What lies behind the bytes is not for the owner. */
    size_t rest = ring->buffer_bytes - used;
    memset(ring_buffer_data(ring, id) + used, 0xdb, rest < 256 ? rest : 256);
    ring->buffer_states[id] = (struct receive_buffer){.used = (uint32_t)used};
    return id;
}

/* A completion that finds no room in its queue is the last of its multishot. */
static struct ring_result end_early(const struct sim_request *request, struct ring_result result)
{
    if (request->twist == SIM_FAULT_ENDED && result.value >= 0) {
        result.more = false;
        sim_fault_happened(SIM_FAULT_ENDED);
    }
    return result;
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
        result.buffer_id = take_buffer(ring, (size_t)result.value);
    if (result.value > 0 && request->op->rw_flags != RING_RECV_ONCE)
        result.more = !sim_chance(10); /* the kernel, too, ends a multishot for reasons of its own */
    return end_early(request, result);
}

static int do_write(struct sim_request *request)
{
    const struct ring_op *op = request->op;
    KVS_ASSERT(sim_data_equal(request->data, ring_io_chunk(op).data)); /* changed in flight */
    return sim_disk_write(op->file, request->data, (op->rw_flags & RING_WRITE_DURABLE) != 0, request->twist);
}

static int do_signal(void)
{
    KVS_ASSERT(sim->signal_count > 0);
    int number = sim->signals[0];
    sim->signal_count--;
    sim->changes++;
    memmove(&sim->signals[0], &sim->signals[1], sizeof(sim->signals[0]) * sim->signal_count);
    return number;
}

static struct ring_result do_accept(const struct sim_request *request)
{
    struct ring_result result = {.value = sim_net_accept(request->op->file)};
    result.more = result.value >= 0 && !sim_chance(10);
    return end_early(request, result);
}

static int do_send(const struct sim_request *request)
{
    const struct ring_op *op = request->op;
    bool cut = request->twist == SIM_FAULT_SHORT;
    if (cut)
        sim_fault_happened(SIM_FAULT_SHORT);
    if (request->twist == SIM_FAULT_STALL && sim_net_stall(op->file, sim_between(10000000, 30000000000)))
        sim_fault_happened(SIM_FAULT_STALL);
    return sim_net_send(op->file, op->iov, op->iov_count, cut || sim_chance(sim->short_percent));
}

static int do_other(struct sim_request *request)
{
    struct ring_op *op = request->op;
    switch ((enum ring_kind)op->kind) {
    case RING_KIND_OPEN:
        return sim_disk_open(op->file, op->backend[0], op->rw_flags);
    case RING_KIND_READ:
        return sim_disk_read(op->file, ring_io_chunk(op), request->twist);
    case RING_KIND_WRITE:
        return do_write(request);
    case RING_KIND_SYNC:
        return sim_disk_sync(op->file, request->sequence, SIM_SYNC_DONE);
    case RING_KIND_ALLOCATE:
        return sim_disk_allocate(op->file, op->offset);
    case RING_KIND_RENAME:
        return sim_disk_rename(op->file, op->backend[0], op->backend[1]);
    case RING_KIND_UNLINK:
        return sim_disk_unlink(op->file, op->backend[0]);
    case RING_KIND_LINK:
        return sim_disk_link(op->file, op->backend[0], (int)op->offset, op->backend[1]);
    case RING_KIND_MAKE_DIR:
        return sim_disk_make_dir(op->file, op->backend[0]);
    case RING_KIND_CONNECT: {
        int fd = sim_net_connect(op->backend[0]);
        op->file = request->file = fd >= 0 ? fd : -1;
        return fd >= 0 ? 0 : fd;
    }
    case RING_KIND_SEND:
        return do_send(request);
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
    bool cancelled = request->twist == SIM_FAULT_CANCELLED;
    if (op->kind == RING_KIND_WRITE)
        sim_disk_write_badly(op->file, request->data);
    if (op->kind == RING_KIND_SYNC && !cancelled) {
        bool reverts = request->twist == SIM_FAULT_SYNC_ERROR && sim_chance(50);
        (void)sim_disk_sync(op->file, request->sequence, reverts ? SIM_SYNC_REVERTS : SIM_SYNC_ORPHANS);
    }
    if (request->twist != SIM_FAULT_COUNT)
        sim_fault_happened(request->twist);
    request->result = (struct ring_result){.value = -request->fault};
}

static bool is_interrupted(const struct sim_request *request)
{
    enum ring_kind kind = request->kind;
    if (kind != RING_KIND_READ && kind != RING_KIND_WRITE && kind != RING_KIND_RECV && kind != RING_KIND_SEND &&
        kind != RING_KIND_ACCEPT && kind != RING_KIND_OPEN)
        return false;
    if (request->twist != SIM_FAULT_INTERRUPTED)
        return sim_chance(sim->interrupted_percent);
    sim_fault_happened(SIM_FAULT_INTERRUPTED);
    return true;
}

void sim_request_execute(struct sim_request *request)
{
    KVS_ASSERT(!request->executed);
    request->executed = true;
    list_remove(&request->disk_link);
    sim_ring_touch(request->ring);
    request->result = (struct ring_result){0};
    if (request->twist == SIM_FAULT_RESET && sim_net_break(request->op->file, sim_chance(50)))
        sim_fault_happened(SIM_FAULT_RESET);
    if (request->fault != 0)
        fail(request);
    else if (is_interrupted(request))
        request->result.value = sim_chance(50) ? -EINTR : -EAGAIN;
    else if (request->op->kind == RING_KIND_RECV)
        request->result = do_recv(request);
    else if (request->op->kind == RING_KIND_ACCEPT)
        request->result = do_accept(request);
    else
        request->result.value = do_other(request);
    sim_request_tell(SIM_EVENT_EFFECT, request->kind);
}

/* ---- without the owner's knowledge ----------------------------------------------------------------------------- */

void sim_request_background(void)
{
    for (struct list *node = sim->disk_requests.next, *next; node != &sim->disk_requests; node = next) {
        struct sim_request *request = container_of(node, struct sim_request, disk_link);
        next = node->next;
        if (request->ready_ns <= sim->now_ns && sim_chance(30))
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
        (void)sim_disk_write(op->file, request->data, false, SIM_FAULT_COUNT);
    } else if (op->kind == RING_KIND_OPEN) {
        rc = sim_disk_open(op->file, op->backend[0], op->rw_flags);
        if (rc >= 0)
            sim_fd_close(rc);
    } else if (op->kind == RING_KIND_RENAME) {
        (void)sim_disk_rename(op->file, op->backend[0], op->backend[1]);
    } else if (op->kind == RING_KIND_UNLINK) {
        (void)sim_disk_unlink(op->file, op->backend[0]);
    } else if (op->kind == RING_KIND_LINK) {
        (void)sim_disk_link(op->file, op->backend[0], (int)op->offset, op->backend[1]);
    } else if (op->kind == RING_KIND_MAKE_DIR) {
        (void)sim_disk_make_dir(op->file, op->backend[0]);
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

static bool happens_alone(enum sim_crash_mode mode)
{
    return mode == SIM_KEEP_ALL || ((mode == SIM_RANDOM || mode == SIM_KILL) && sim_chance(50));
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
        else if (on_disk(request->kind) && happens_alone(mode))
            finish_alone(request);
        if (ring != NULL)
            request->op->state = 0;
        sim_request_free(request);
    }
}

/* ---- crashes with a chosen outcome ------------------------------------------------------------------------------ */

static bool may_change(const struct sim_request *request)
{
    return request->kind == RING_KIND_OPEN ? (request->op->rw_flags & RING_OPEN_CREATE) != 0
                                           : request->kind != RING_KIND_READ && request->kind != RING_KIND_SYNC;
}

size_t sim_request_pending(void)
{
    size_t count = 0;
    for (struct list *node = sim->disk_requests.next; node != &sim->disk_requests; node = node->next)
        count += may_change(container_of(node, struct sim_request, disk_link));
    return count;
}

void sim_request_finish(uint64_t mask)
{
    uint64_t bit = 1;
    for (struct list *node = sim->disk_requests.next; node != &sim->disk_requests; node = node->next) {
        struct sim_request *request = container_of(node, struct sim_request, disk_link);
        if (!may_change(request))
            continue;
        if (mask & bit)
            finish_alone(request);
        bit <<= 1;
    }
}

/* ---- stories ----------------------------------------------------------------------------------------------------- */

static void describe(const struct sim_request *request)
{
    fprintf(stderr, "  ring %u: %s", request->ring->id, ring_kind_name(request->kind));
    if (request->file >= 0)
        fprintf(stderr, " fd %d %s", request->file, sim_disk_name(request->file));
    if (request->kind == RING_KIND_READ || request->kind == RING_KIND_WRITE) {
        struct ring_chunk chunk = ring_io_chunk(request->op);
        fprintf(stderr, " [%llu, +%u)", (unsigned long long)chunk.offset, chunk.size);
    }
    uint64_t when = sim_request_when(request);
    if (when == SIM_NEVER)
        fprintf(stderr, ", waits");
    else
        fprintf(stderr, ", due in %.6f ms", ((double)when - (double)sim->now_ns) / 1e6);
    if (request->executed)
        fprintf(stderr, ", has had its effect (%d)", request->result.value);
    if (request->fault != 0)
        fprintf(stderr, ", fails with %s", strerrorname_np(request->fault));
    if (request->twist != SIM_FAULT_COUNT)
        fprintf(stderr, ", %s", sim_fault_name(request->twist));
    fprintf(stderr, "\n");
}

void sim_request_describe(void)
{
    fprintf(stderr, "in flight:\n");
    for (struct list *node = sim->requests.next; node != &sim->requests; node = node->next)
        describe(container_of(node, struct sim_request, link));
}
