/*
 * ring_sim.c - ring.h on the simulated machine.
 *
 * Happy path: an operation becomes a request in flight (sim_request); ring_turn delivers some of those that are due, in
 * an order the seed chooses, but timers of one ring in the order in which they expire. Called directly, a turn that may
 * wait moves the clock to the ring's next event; under sim_step it never waits.
 *
 * Failure modes: a turn that would wait for ever can only be a test's mistake, since nothing else runs on this thread:
 * it says so and stops.
 */
#include "sim_core.h"

#include "base/assert.h"
#include "sim_disk.h"
#include "sim_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the ring itself ------------------------------------------------------------------------------------------- */

enum kvs_err ring_open(struct ring **out, const struct ring_options *options, char message[RING_MESSAGE_BYTES])
{
    KVS_ASSERT(sim != NULL && out != NULL);
    KVS_ASSERT(options->buffer_count == 0 || is_power_of_two(options->buffer_count));
    message[0] = '\0';
    struct ring *ring = calloc(1, sizeof(*ring));
    KVS_ASSERT(ring != NULL);
    ring->id = sim->rings_opened++;
    ring->wake_at = SIM_NEVER;
    ring->wait_until = sim->now_ns;
    list_init(&ring->requests);
    ring->buffer_count = options->buffer_count;
    ring->buffer_bytes = options->buffer_bytes;
    if (ring->buffer_count > 0) {
        ring->buffers = calloc(ring->buffer_count, ring->buffer_bytes);
        ring->buffer_states = calloc(ring->buffer_count, sizeof(*ring->buffer_states));
        ring->free_ids = calloc(ring->buffer_count, sizeof(*ring->free_ids));
        KVS_ASSERT(ring->buffers != NULL && ring->buffer_states != NULL && ring->free_ids != NULL);
    }
    for (unsigned id = 0; id < ring->buffer_count; id++)
        ring_buffer_release(ring, (uint16_t)id);
    snprintf(ring->description, sizeof(ring->description), "simulated ring %u", ring->id);
    list_push_back(&sim->rings, &ring->link);
    *out = ring;
    return KVS_ERR_OK;
}

void sim_ring_free(struct ring *ring)
{
    list_remove(&ring->link);
    free(ring->buffers);
    free(ring->buffer_states);
    free(ring->free_ids);
    free(ring);
}

void ring_close(struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    sim_request_abandon(ring, SIM_RANDOM);
    sim_ring_free(ring);
}

const char *ring_describe(const struct ring *ring)
{
    return ring->description;
}

void ring_backend_issue(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(ring_op_active(op));
    sim_request_add(ring, op);
}

void ring_backend_cancel(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(op->ring == ring);
    sim_request_cancel(op->backend[2]);
}

void ring_wake(struct ring *ring, struct ring *target)
{
    KVS_ASSERT(ring != NULL && target != NULL);
    uint64_t when = sim->now_ns + sim_between(0, 5000);
    if (when < target->wake_at)
        target->wake_at = when;
}

/* ---- turning --------------------------------------------------------------------------------------------------- */

static uint64_t request_when(struct ring *ring)
{
    if (ring->first_at == sim->changes)
        return ring->first_ns;
    uint64_t first = SIM_NEVER;
    for (struct list *node = ring->requests.next; node != &ring->requests; node = node->next) {
        uint64_t when = sim_request_when(container_of(node, struct sim_request, ring_link));
        if (when < first)
            first = when;
    }
    ring->first_ns = first;
    ring->first_at = sim->changes;
    return first;
}

uint64_t sim_ring_when(struct ring *ring)
{
    uint64_t when = request_when(ring);
    if (ring->wake_at < when)
        when = ring->wake_at;
    if (ring->body != NULL && ring->wait_until < when)
        when = ring->wait_until;
    return when;
}

static bool is_due(const struct sim_request *request)
{
    return sim_request_when(request) <= sim->now_ns;
}

static unsigned count_due(struct ring *ring)
{
    unsigned count = 0;
    if (request_when(ring) > sim->now_ns)
        return 0;
    for (struct list *node = ring->requests.next; node != &ring->requests; node = node->next)
        count += is_due(container_of(node, struct sim_request, ring_link));
    return count;
}

/* Timers expire in order: if one was chosen, the earliest is meant. */
static struct sim_request *earliest_timer(struct ring *ring, struct sim_request *chosen)
{
    for (struct list *node = ring->requests.next; node != &ring->requests; node = node->next) {
        struct sim_request *request = container_of(node, struct sim_request, ring_link);
        if (request->kind == RING_KIND_TIMER && request->ready_ns < chosen->ready_ns)
            chosen = request;
    }
    return chosen;
}

static struct sim_request *choose_due(struct ring *ring, unsigned count)
{
    uint64_t skip = sim_random(count);
    for (struct list *node = ring->requests.next; node != &ring->requests; node = node->next) {
        struct sim_request *request = container_of(node, struct sim_request, ring_link);
        if (is_due(request) && skip-- == 0)
            return request->kind == RING_KIND_TIMER ? earliest_timer(ring, request) : request;
    }
    KVS_ASSERT(false);
    return NULL;
}

static bool deliver(struct sim_request *request)
{
    struct ring *ring = request->ring;
    struct ring_op *op = request->op;
    if (!request->executed)
        sim_request_execute(request);
    struct ring_result result = request->result;
    enum ring_kind kind = request->kind;
    sim_note(((uint64_t)ring->id << 40) ^ ((uint64_t)op->kind << 32) ^ (uint32_t)result.value);
    sim_note(sim->now_ns);
    /* Before the callback, which may cancel or start. */
    if (result.more)
        sim_request_go_on(request);
    else
        sim_request_free(request);
    bool called_back = ring_io_completed(ring, op, result);
    sim_request_tell(SIM_EVENT_DONE, kind);
    return called_back;
}

static unsigned deliver_some(struct ring *ring, bool at_least_one)
{
    unsigned callbacks = 0;
    unsigned due = count_due(ring);
    uint64_t wanted = due == 0 ? 0 : sim_between(at_least_one ? 1 : 0, due);
    for (uint64_t i = 0; i < wanted && due > 0; i++) {
        callbacks += deliver(choose_due(ring, due));
        due = count_due(ring);
    }
    return callbacks;
}

static uint64_t deadline_of(int64_t timeout_ns)
{
    if (timeout_ns < 0 || (uint64_t)timeout_ns >= SIM_NEVER - sim->now_ns)
        return SIM_NEVER;
    return sim->now_ns + (uint64_t)timeout_ns;
}

unsigned sim_ring_turn_now(struct ring *ring, int64_t timeout_ns)
{
    sim_request_background();
    unsigned callbacks = deliver_some(ring, timeout_ns != 0);
    if (ring->wake_at <= sim->now_ns)
        ring->wake_at = SIM_NEVER;
    ring->wait_until = deadline_of(timeout_ns);
    return callbacks;
}

static _Noreturn void stuck(const struct ring *ring)
{
    fprintf(stderr, "ring_sim: ring %u would wait for ever, at %llu ns\n", ring->id, (unsigned long long)sim->now_ns);
    abort();
}

unsigned ring_turn(struct ring *ring, int64_t timeout_ns)
{
    KVS_ASSERT(sim != NULL);
    if (sim_stepping)
        return sim_ring_turn_now(ring, timeout_ns);
    uint64_t deadline = deadline_of(timeout_ns);
    for (;;) {
        bool woken = ring->wake_at <= sim->now_ns;
        unsigned callbacks = sim_ring_turn_now(ring, timeout_ns);
        if (callbacks > 0 || woken || sim->now_ns >= deadline)
            return callbacks;
        uint64_t next = request_when(ring);
        if (ring->wake_at < next)
            next = ring->wake_at;
        if (deadline < next)
            next = deadline;
        if (next == SIM_NEVER)
            stuck(ring);
        if (next > sim->now_ns)
            sim->now_ns = next;
    }
}

void ring_await(struct ring *ring, struct ring_op *op)
{
    KVS_ASSERT(op->ring == ring);
    while (ring_op_active(op)) {
        uint64_t next = request_when(ring);
        if (next == SIM_NEVER)
            stuck(ring);
        if (next > sim->now_ns)
            sim->now_ns = next;
        sim_request_background();
        (void)deliver_some(ring, true);
    }
}

void sim_ring_body(struct ring *ring, void (*body)(void *context), void *context)
{
    ring->body = body;
    ring->body_context = context;
    ring->wait_until = sim->now_ns;
}

/* ---- time and chance ------------------------------------------------------------------------------------------- */

uint64_t ring_now_ns(const struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    return sim->now_ns;
}

/* All threads are one: nobody would notice. */
void ring_stall(const struct ring *ring, uint64_t ns)
{
    KVS_ASSERT(ring != NULL);
    (void)ns;
}

uint64_t ring_wall_us(const struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    return (SIM_WALL_BEGIN_MS + (uint64_t)sim->wall_offset_ms) * 1000 + sim->now_ns / 1000;
}

uint64_t ring_wall_ms(const struct ring *ring)
{
    return ring_wall_us(ring) / 1000;
}

void ring_random(struct ring *ring, void *out, size_t size)
{
    KVS_ASSERT(ring != NULL);
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)sim_random(256);
}

/* ---- receive buffers ------------------------------------------------------------------------------------------- */

uint8_t *ring_buffer_data(struct ring *ring, uint16_t buffer_id)
{
    KVS_ASSERT(buffer_id < ring->buffer_count);
    return ring->buffers + (size_t)buffer_id * ring->buffer_bytes;
}

void ring_buffer_release(struct ring *ring, uint16_t buffer_id)
{
    KVS_ASSERT(buffer_id < ring->buffer_count);
    KVS_ASSERT(ring->buffers_free < ring->buffer_count);
    struct receive_buffer *state = &ring->buffer_states[buffer_id];
    KVS_ASSERT(!state->free);
    memset(ring_buffer_data(ring, buffer_id), 0xdb, state->used); /* who reads on is to notice */
    *state = (struct receive_buffer){.free = true};
    ring->free_ids[(ring->free_head + ring->buffers_free) % ring->buffer_count] = buffer_id;
    ring->buffers_free++;
    sim_ring_touch(ring);
}

unsigned ring_buffers_free(const struct ring *ring)
{
    return ring->buffers_free;
}

/* ---- blocking calls -------------------------------------------------------------------------------------------- */

void ring_close_fd(struct ring *ring, int fd)
{
    KVS_ASSERT(ring != NULL);
    if (fd >= SIM_FD_FIRST && fd < sim->fd_boot)
        return;
    for (struct list *node = sim->requests.next; node != &sim->requests; node = node->next)
        KVS_ASSERT(container_of(node, struct sim_request, link)->file != fd);
    sim_fd_close(fd);
}

static enum kvs_err opened(int fd, int *out)
{
    *out = fd >= 0 ? fd : -1;
    return fd >= 0 ? KVS_ERR_OK : fd == -EWOULDBLOCK ? KVS_ERR_LOCKED : ring_error_from_errno(-fd);
}

enum kvs_err ring_dir_open(struct ring *ring, const char *path, int *dir_fd)
{
    KVS_ASSERT(ring != NULL && path != NULL);
    return opened(path[0] != '\0' ? sim_disk_dir(path) : -EINVAL, dir_fd);
}

enum kvs_err ring_dir_list(struct ring *ring, int dir_fd, void (*each)(void *context, const char *name), void *context)
{
    KVS_ASSERT(ring != NULL && each != NULL);
    sim_disk_list(dir_fd, each, context);
    return KVS_ERR_OK;
}

enum kvs_err ring_dir_lock(struct ring *ring, int dir_fd, const char *name, int *lock_fd)
{
    KVS_ASSERT(ring != NULL && name != NULL);
    return opened(sim_disk_lock(dir_fd, name), lock_fd);
}

enum kvs_err ring_file_info(struct ring *ring, int fd, struct ring_file_info *info)
{
    KVS_ASSERT(ring != NULL && info != NULL);
    *info = (struct ring_file_info){
        .size = sim_disk_size(fd),
        .links = sim_disk_links(fd),
        .direct_memory_align = sim_disk_align(),
        .direct_offset_align = sim_disk_align(),
    };
    return KVS_ERR_OK;
}

bool ring_file_same(struct ring *ring, int fd, int other_fd)
{
    KVS_ASSERT(ring != NULL);
    return sim_disk_same(fd, other_fd);
}

enum kvs_err ring_file_map(struct ring *ring, int fd, void *memory, size_t bytes, uint64_t offset)
{
    KVS_ASSERT(ring != NULL && (uintptr_t)memory % 4096 == 0 && offset % 4096 == 0);
    const int fault = sim_fault_of_map(ring);
    const size_t mapped = fault == 0 ? bytes : sim_random(bytes / 4096 + 1) * 4096;
    const struct ring_chunk chunk = {.data = memory, .size = (unsigned)mapped, .offset = offset};
    if (sim_disk_read(fd, chunk, SIM_FAULT_COUNT) != (int)mapped)
        return KVS_ERR_IO;
    return fault == 0 ? KVS_ERR_OK : ring_error_from_errno(fault);
}

enum kvs_err ring_file_uncache(struct ring *ring, int fd)
{
    KVS_ASSERT(ring != NULL);
    sim_disk_uncache(fd);
    return KVS_ERR_OK;
}

enum kvs_err ring_file_space(struct ring *ring, int fd, uint64_t *free_bytes)
{
    KVS_ASSERT(ring != NULL && sim_fd_get(fd) != NULL);
    *free_bytes = sim_disk_space();
    return KVS_ERR_OK;
}

enum kvs_err ring_listen(struct ring *ring, const struct ring_addr *addr, int *fd)
{
    KVS_ASSERT(ring != NULL && addr != NULL);
    return opened(sim_net_listen(addr), fd);
}

enum kvs_err ring_local_addr(struct ring *ring, int fd, struct ring_addr *addr)
{
    KVS_ASSERT(ring != NULL && addr != NULL);
    return sim_net_addr(fd, false, addr) ? KVS_ERR_OK : KVS_ERR_CLOSED;
}

enum kvs_err ring_peer_addr(struct ring *ring, int fd, struct ring_addr *addr)
{
    KVS_ASSERT(ring != NULL && addr != NULL);
    return sim_net_addr(fd, true, addr) ? KVS_ERR_OK : KVS_ERR_CLOSED;
}

void ring_keepalive(struct ring *ring, int fd, unsigned seconds)
{
    (void)ring; /* peers of this machine do not vanish */
    (void)fd;
    (void)seconds;
}

void ring_shutdown(struct ring *ring, int fd)
{
    KVS_ASSERT(ring != NULL);
    sim_net_shutdown(fd);
}

enum kvs_err ring_signals_open(struct ring *ring, int *signal_fd)
{
    KVS_ASSERT(ring != NULL);
    return opened(sim_fd_open(SIM_FD_SIGNAL, NULL, 0), signal_fd);
}
