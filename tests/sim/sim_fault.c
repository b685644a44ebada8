/*
 * sim_fault.c - faults: those that a test has asked for by number, and those that befall steps by chance.
 *
 * Both are decided when a step is issued. What fails becomes the step's `fault`, an errno; what merely goes wrong
 * becomes its `twist`, which is carried out where the step has its effect. A fault counts when it happens, so one of a
 * step that a crash overtakes does not. While all odds are zero no random number is drawn here.
 */
#include "sim_core.h"

#include "base/assert.h"

#include <errno.h>

#define OPS(kind) (1u << RING_KIND_##kind)

static const unsigned names_ops = OPS(OPEN) | OPS(ALLOCATE) | OPS(RENAME) | OPS(UNLINK) | OPS(LINK) | OPS(MAKE_DIR);
static const unsigned disk_ops = OPS(OPEN) | OPS(ALLOCATE) | OPS(RENAME) | OPS(UNLINK) | OPS(LINK) | OPS(MAKE_DIR) |
                                 OPS(READ) | OPS(WRITE) | OPS(SYNC);

static const char *const names[SIM_FAULT_COUNT] = {
    [SIM_FAULT_READ_ERROR] = "read-error",
    [SIM_FAULT_WRITE_ERROR] = "write-error",
    [SIM_FAULT_SYNC_ERROR] = "sync-error",
    [SIM_FAULT_NAME_ERROR] = "name-error",
    [SIM_FAULT_NO_SPACE] = "no-space",
    [SIM_FAULT_SHORT] = "short",
    [SIM_FAULT_INTERRUPTED] = "interrupted",
    [SIM_FAULT_LATE] = "late",
    [SIM_FAULT_CANCELLED] = "cancelled",
    [SIM_FAULT_ENDED] = "ended",
    [SIM_FAULT_NO_BUFFERS] = "no-buffers",
    [SIM_FAULT_READ_FLIP] = "read-flip",
    [SIM_FAULT_READ_STALE] = "read-stale",
    [SIM_FAULT_READ_ASTRAY] = "read-astray",
    [SIM_FAULT_WRITE_LOST] = "write-lost",
    [SIM_FAULT_WRITE_ASTRAY] = "write-astray",
    [SIM_FAULT_WRITE_FLIP] = "write-flip",
    [SIM_FAULT_RESET] = "reset",
    [SIM_FAULT_STALL] = "stall",
    [SIM_FAULT_MAP_ERROR] = "map-error",
};

/* ---- the test's controls ---------------------------------------------------------------------------------------- */

void sim_fail(enum ring_kind kind, uint64_t nth, int sys_errno)
{
    KVS_ASSERT(nth > 0 && sys_errno > 0);
    KVS_ASSERT(sim->fault_count < SIM_FAULTS_MAX);
    sim->faults[sim->fault_count++] = (struct sim_fault){.kind = kind, .countdown = nth, .sys_errno = sys_errno};
}

void sim_fail_none(void)
{
    sim->fault_count = 0;
}

void sim_set_short(unsigned percent)
{
    KVS_ASSERT(percent <= 100);
    sim->short_percent = percent;
}

void sim_set_interrupted(unsigned percent)
{
    KVS_ASSERT(percent <= 100);
    sim->interrupted_percent = percent;
}

void sim_odds(enum sim_fault_kind kind, unsigned per_million)
{
    KVS_ASSERT(kind < SIM_FAULT_COUNT && per_million <= 1000000);
    sim->odds[kind] = per_million;
    sim->odds_any = false;
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        sim->odds_any = sim->odds_any || sim->odds[i] > 0;
}

void sim_odds_none(void)
{
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        sim->odds[i] = 0;
    sim->odds_any = false;
}

const char *sim_fault_name(enum sim_fault_kind kind)
{
    KVS_ASSERT(kind < SIM_FAULT_COUNT);
    return names[kind];
}

uint64_t sim_fault_count(enum sim_fault_kind kind)
{
    KVS_ASSERT(kind < SIM_FAULT_COUNT);
    return sim->happened[kind];
}

void sim_ring_spare(struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    ring->spared = true;
}

/* ---- deciding --------------------------------------------------------------------------------------------------- */

void sim_fault_happened(enum sim_fault_kind kind)
{
    KVS_ASSERT(kind < SIM_FAULT_COUNT);
    sim->happened[kind]++;
}

/* A fault that was asked for by number. */
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

/* The kinds of operation that a fault can befall. */
static unsigned victims(enum sim_fault_kind kind)
{
    switch (kind) {
    case SIM_FAULT_READ_ERROR:
    case SIM_FAULT_READ_FLIP:
    case SIM_FAULT_READ_STALE:
    case SIM_FAULT_READ_ASTRAY:
        return OPS(READ);
    case SIM_FAULT_WRITE_ERROR:
    case SIM_FAULT_WRITE_LOST:
    case SIM_FAULT_WRITE_ASTRAY:
    case SIM_FAULT_WRITE_FLIP:
        return OPS(WRITE);
    case SIM_FAULT_SYNC_ERROR:
        return OPS(SYNC);
    case SIM_FAULT_NAME_ERROR:
        return names_ops;
    case SIM_FAULT_NO_SPACE:
        return OPS(WRITE) | OPS(ALLOCATE);
    case SIM_FAULT_SHORT:
        return OPS(READ) | OPS(WRITE) | OPS(SEND);
    case SIM_FAULT_INTERRUPTED:
        return OPS(OPEN) | OPS(READ) | OPS(WRITE) | OPS(ACCEPT) | OPS(RECV) | OPS(SEND);
    case SIM_FAULT_LATE:
        return disk_ops | OPS(CONNECT) | OPS(SEND);
    case SIM_FAULT_CANCELLED:
        return UINT32_MAX;
    case SIM_FAULT_ENDED:
        return OPS(ACCEPT) | OPS(RECV);
    case SIM_FAULT_NO_BUFFERS:
        return OPS(RECV);
    case SIM_FAULT_RESET:
        return OPS(RECV) | OPS(SEND);
    case SIM_FAULT_STALL:
        return OPS(SEND);
    case SIM_FAULT_MAP_ERROR: /* see sim_fault_of_map */
    case SIM_FAULT_COUNT:
        break;
    }
    return 0;
}

static bool spares(const struct ring *ring, enum sim_fault_kind kind)
{
    return ring->spared && kind != SIM_FAULT_SHORT && kind != SIM_FAULT_LATE && kind != SIM_FAULT_RESET &&
           kind != SIM_FAULT_STALL;
}

static int name_error(enum ring_kind kind)
{
    static const int errors[] = {EIO, ENOSPC, EMFILE};
    return errors[sim_random(kind == RING_KIND_OPEN ? 3 : 2)];
}

/* The errno that the step ends with; 0: it does not fail. */
static int errno_of(enum sim_fault_kind twist, enum ring_kind kind)
{
    switch (twist) {
    case SIM_FAULT_READ_ERROR:
    case SIM_FAULT_WRITE_ERROR:
    case SIM_FAULT_SYNC_ERROR:
        return EIO;
    case SIM_FAULT_NAME_ERROR:
        return name_error(kind);
    case SIM_FAULT_NO_SPACE:
        return ENOSPC;
    case SIM_FAULT_CANCELLED:
        return ECANCELED;
    case SIM_FAULT_NO_BUFFERS:
        return ENOBUFS;
    default:
        return 0;
    }
}

static void delay(struct sim_request *request)
{
    sim_fault_happened(SIM_FAULT_LATE);
    if (request->ready_ns < SIM_NEVER / 2)
        request->ready_ns += sim_between(10000000, 3000000000);
}

void sim_fault_draw(struct sim_request *request)
{
    request->twist = SIM_FAULT_COUNT;
    if (!sim->odds_any || request->fault != 0)
        return;
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++) {
        enum sim_fault_kind kind = (enum sim_fault_kind)i;
        if (sim->odds[kind] == 0 || !(victims(kind) & (1u << request->kind)) || spares(request->ring, kind))
            continue;
        if (sim_random(1000000) >= sim->odds[kind])
            continue;
        if (kind == SIM_FAULT_LATE)
            delay(request);
        else if (request->twist == SIM_FAULT_COUNT)
            request->twist = kind;
    }
    request->fault = errno_of(request->twist, request->kind);
    /* A timer's end comes before its time. */
    if (request->kind == RING_KIND_TIMER && request->fault != 0) {
        uint64_t wait = request->ready_ns - sim->now_ns;
        request->ready_ns = sim->now_ns + sim_random((wait < 1000000000 ? wait : 1000000000) + 1);
    }
}

int sim_fault_of_map(const struct ring *ring)
{
    const unsigned odds = sim->odds[SIM_FAULT_MAP_ERROR];
    if (odds == 0 || spares(ring, SIM_FAULT_MAP_ERROR) || sim_random(1000000) >= odds)
        return 0;
    sim_fault_happened(SIM_FAULT_MAP_ERROR);
    return sim_random(2) == 0 ? ENOMEM : ENODEV;
}

void sim_fault_choose(struct sim_request *request)
{
    request->fault = take_fault(request->kind);
    sim_fault_draw(request);
}
