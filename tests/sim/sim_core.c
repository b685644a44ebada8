/*
 * sim_core.c - the machine itself: chance, clock, descriptors, stepping, crashing.
 *
 * Happy path: a test makes a machine, opens rings on it through ring.h, and steps it. Each step picks one ring that has
 * something to do and turns it; when none has, the clock jumps to the next event. Every choice comes from one generator
 * and is folded into the trace.
 *
 * Failure modes: misuse by the code under test (a descriptor used after its close, a buffer changed in flight) fails an
 * assertion. Nothing here depends on addresses, real time or the environment, so a seed replays exactly.
 */
#include "sim_core.h"

#include "base/assert.h"
#include "sim_disk.h"
#include "sim_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

struct sim_machine *sim;
bool sim_stepping;

/* ---- chance ---------------------------------------------------------------------------------------------------- */

void sim_note(uint64_t value)
{
    uint64_t mixed = (sim->trace ^ value) * 0x9e3779b97f4a7c15u;
    sim->trace = mixed ^ (mixed >> 29);
}

/* SplitMix64: small, and good enough to choose with. */
uint64_t sim_random(uint64_t below)
{
    KVS_ASSERT(sim != NULL && below > 0);
    uint64_t z = sim->random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    uint64_t chosen = (z ^ (z >> 31)) % below;
    sim_note(chosen);
    return chosen;
}

bool sim_chance(unsigned percent)
{
    return percent > 0 && sim_random(100) < percent;
}

uint64_t sim_between(uint64_t low, uint64_t high)
{
    KVS_ASSERT(low <= high);
    return low + sim_random(high - low + 1);
}

uint64_t sim_trace(void)
{
    return sim->trace;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

int sim_fd_open(enum sim_fd_type type, void *object, unsigned flags)
{
    KVS_ASSERT(type != SIM_FD_CLOSED);
    int index = sim->fd_count++;
    if ((index & (index - 1)) == 0) {
        sim->fds = realloc(sim->fds, sizeof(*sim->fds) * (size_t)(index < 1 ? 1 : index * 2));
        KVS_ASSERT(sim->fds != NULL);
    }
    sim->fds[index] = (struct sim_fd){.type = type, .flags = flags, .object = object};
    return SIM_FD_FIRST + index;
}

struct sim_fd *sim_fd_get(int fd)
{
    KVS_ASSERT(fd >= SIM_FD_FIRST && fd < SIM_FD_FIRST + sim->fd_count);
    struct sim_fd *entry = &sim->fds[fd - SIM_FD_FIRST];
    KVS_ASSERT(entry->type != SIM_FD_CLOSED);
    return entry;
}

void *sim_fd_object(int fd, enum sim_fd_type type)
{
    struct sim_fd *entry = sim_fd_get(fd);
    return entry->type == type ? entry->object : NULL;
}

void sim_fd_close(int fd)
{
    struct sim_fd *entry = sim_fd_get(fd);
    switch (entry->type) {
    case SIM_FD_FILE:
    case SIM_FD_DIR:
    case SIM_FD_LOCK:
        sim_disk_close(entry);
        break;
    case SIM_FD_SOCKET:
    case SIM_FD_LISTENER:
        sim_net_close(entry);
        break;
    case SIM_FD_SIGNAL:
    case SIM_FD_CLOSED:
        break;
    }
    entry->type = SIM_FD_CLOSED;
    entry->object = NULL;
}

static void close_all(void)
{
    for (int i = 0; i < sim->fd_count; i++)
        if (sim->fds[i].type != SIM_FD_CLOSED)
            sim_fd_close(SIM_FD_FIRST + i);
    sim->fd_boot = SIM_FD_FIRST + sim->fd_count;
}

/* ---- life and death -------------------------------------------------------------------------------------------- */

void sim_create(uint64_t seed)
{
    KVS_ASSERT(sim == NULL);
    /* Small stores are made and thrown away here, thousands of them: clearing huge pages took a third of the time. */
    (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    sim = calloc(1, sizeof(*sim));
    KVS_ASSERT(sim != NULL);
    sim->random_state = seed;
    sim->now_ns = 1000000000;
    sim->fd_boot = SIM_FD_FIRST;
    sim->changes = 1;
    list_init(&sim->requests);
    list_init(&sim->disk_requests);
    list_init(&sim->rings);
    sim->disk = sim_disk_create();
    sim->net = sim_net_create();
    sim_stepping = false;
}

static void power_off(enum sim_crash_mode mode)
{
    sim_request_abandon(NULL, mode);
    close_all();
    while (!list_empty(&sim->rings))
        sim_ring_free(container_of(sim->rings.next, struct ring, link));
    sim->signal_count = 0;
    sim_stepping = false;
}

void sim_crash(enum sim_crash_mode mode)
{
    KVS_ASSERT(sim != NULL);
    power_off(mode);
    sim_disk_crash(mode);
    sim->now_ns += 1000000000;
}

unsigned sim_pending(void)
{
    return (unsigned)(sim_disk_pending() + sim_request_pending());
}

void sim_crash_subset(uint64_t keep_mask)
{
    size_t on_disk = sim_disk_pending();
    sim_disk_keep(keep_mask);
    sim_request_finish(on_disk < 64 ? keep_mask >> on_disk : 0);
    sim_crash(SIM_CHOSEN);
}

void sim_describe(void)
{
    fprintf(stderr, "machine at %.6f ms, step %llu, trace %016llx\n", (double)sim->now_ns / 1e6,
            (unsigned long long)sim->issued[RING_KIND_NONE], (unsigned long long)sim->trace);
    sim_request_describe();
    sim_disk_describe();
}

void sim_destroy(void)
{
    KVS_ASSERT(sim != NULL);
    power_off(SIM_DROP_ALL);
    sim_disk_free(sim->disk);
    sim_net_free(sim->net);
    free(sim->fds);
    free(sim);
    sim = NULL;
}

void sim_step_wall(int64_t by_ms)
{
    sim->wall_offset_ms += by_ms;
    sim_note((uint64_t)by_ms);
}

void sim_advance(uint64_t ns)
{
    sim->now_ns += ns;
}

void sim_signal(int number)
{
    KVS_ASSERT(sim->signal_count < SIM_SIGNALS_MAX);
    sim->signals[sim->signal_count++] = number;
    sim->changes++;
}

/* ---- stepping -------------------------------------------------------------------------------------------------- */

void sim_watch(void (*watch)(enum sim_event event, enum ring_kind kind))
{
    sim->watch = watch;
}

uint64_t sim_issued(enum ring_kind kind)
{
    KVS_ASSERT(kind < RING_KIND_COUNT);
    return sim->issued[kind];
}

static uint64_t earliest(void)
{
    uint64_t first = SIM_NEVER;
    for (struct list *node = sim->rings.next; node != &sim->rings; node = node->next) {
        uint64_t when = sim_ring_when(container_of(node, struct ring, link));
        if (when < first)
            first = when;
    }
    return first;
}

/* One of the rings that have something to do now. */
static struct ring *choose(void)
{
    unsigned count = 0;
    for (struct list *node = sim->rings.next; node != &sim->rings; node = node->next)
        count += sim_ring_when(container_of(node, struct ring, link)) <= sim->now_ns;
    KVS_ASSERT(count > 0);
    uint64_t skip = sim_random(count);
    for (struct list *node = sim->rings.next; node != &sim->rings; node = node->next) {
        struct ring *ring = container_of(node, struct ring, link);
        if (sim_ring_when(ring) <= sim->now_ns && skip-- == 0)
            return ring;
    }
    return NULL;
}

bool sim_step(void)
{
    return sim_step_before(SIM_NEVER - 1);
}

bool sim_step_before(uint64_t latest_ns)
{
    KVS_ASSERT(sim != NULL && !sim_stepping);
    /* Code takes time too: without this a ring that polls would keep the clock from ever reaching the next event. */
    sim->now_ns += sim_random(2000);
    uint64_t when = earliest();
    if (when > latest_ns)
        return false;
    if (when > sim->now_ns)
        sim->now_ns = when;
    struct ring *ring = choose();
    KVS_ASSERT(ring != NULL);
    sim_note(ring->id);
    sim_stepping = true;
    if (ring->body != NULL)
        ring->body(ring->body_context);
    else
        (void)sim_ring_turn_now(ring, -1);
    sim_stepping = false;
    return true;
}

bool sim_run_until(bool (*condition)(void *context), void *context, uint64_t steps_max)
{
    for (uint64_t step = 0; step < steps_max; step++) {
        if (condition(context))
            return true;
        if (!sim_step())
            return condition(context);
    }
    return condition(context);
}
