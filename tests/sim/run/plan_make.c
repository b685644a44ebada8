/*
 * plan_make.c - from a seed to a plan: what a run looks like.
 *
 * A run is a handful of boots. In each, clients work in bursts between which the machine makes some steps; about half
 * of the boots see faults, of one or a few families; then the node crashes or stops, maybe rots while it is down, and
 * comes back with another number of shards. Families of faults are kept apart more often than not: a run in which
 * everything fails at once reaches little.
 */
#include "plan.h"

#include "draw.h"
#include "ring/ring_backend.h"
#include "ring_sim.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>

enum { LIMITED_ONE_IN = 16 };

struct maker {
    struct plan *plan;
    uint64_t state;
    uint64_t backup_state; /* choices of their own, so that the rest of a seed's plan is the same with and without */
    uint64_t limit_state;
    uint64_t map_state;
    uint64_t swap_state;
    uint64_t group_state;
    uint64_t scan_state;
    uint64_t flush_state;
};

static uint64_t draw(struct maker *maker, uint64_t below)
{
    return draw_next(&maker->state) % below;
}

static uint32_t between(struct maker *maker, uint32_t low, uint32_t high)
{
    return low + (uint32_t)draw(maker, (uint64_t)high - low + 1);
}

static uint32_t one_of(struct maker *maker, const uint32_t *values, unsigned count)
{
    return values[draw(maker, count)];
}

static void add(struct maker *maker, enum plan_kind kind, uint32_t a, uint32_t b, uint32_t c)
{
    struct plan *plan = maker->plan;
    uint64_t seed = draw(maker, UINT64_MAX);
    if (plan->step_count < PLAN_STEPS_MAX)
        plan->steps[plan->step_count++] = (struct plan_step){.kind = kind, .a = a, .b = b, .c = c, .seed = seed};
}

static void make_settings(struct maker *maker)
{
    static const uint32_t hash_bits[] = {64, 64, 24, 8};
    static const uint32_t aligns[] = {4096, 4096, 512, 0};
    static const uint32_t segments[] = {64, 64, 64, 128, 256};
    static const uint32_t sockets[] = {0, 0, 1000, 65536};
    struct plan *plan = maker->plan;
    plan->threads = between(maker, 1, 3);
    plan->segment_kib = one_of(maker, segments, ARRAY_COUNT(segments));
    plan->memory_segments = between(maker, 4, 8);
    plan->keys = draw(maker, 8) == 0 ? between(maker, 200, 1000) : between(maker, 4, 100);
    plan->value_bytes = draw(maker, 3) == 0 ? between(maker, 1000, 4000) : between(maker, 20, 1000);
    plan->hash_bits = one_of(maker, hash_bits, ARRAY_COUNT(hash_bits));
    if (plan->hash_bits == 8 && draw(maker, 2) == 0) { /* so that keys collide, in RAM and on disk */
        plan->keys = between(maker, 500, 1500);
        plan->value_bytes = between(maker, 500, 4000);
    }
    plan->direct_align = one_of(maker, aligns, ARRAY_COUNT(aligns));
    plan->socket_bytes = one_of(maker, sockets, ARRAY_COUNT(sockets));
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

static void add_odds(struct maker *maker, enum sim_fault_kind kind, uint32_t most)
{
    add(maker, PLAN_ODDS, (uint32_t)kind, between(maker, most / 20 + 1, most), 0);
}

static void make_faults(struct maker *maker)
{
    static const int errnos[] = {EIO, EIO, ENOSPC, ENOMEM, EDQUOT, ECANCELED};
    static const uint32_t kinds[] = {RING_KIND_WRITE,    RING_KIND_WRITE,  RING_KIND_SYNC, RING_KIND_READ,
                                     RING_KIND_ALLOCATE, RING_KIND_RENAME, RING_KIND_OPEN, RING_KIND_UNLINK,
                                     RING_KIND_ACCEPT,   RING_KIND_RECV,   RING_KIND_SEND};
    switch (draw(maker, 11)) {
    case 0: /* slow and cut, nothing wrong */
        add_odds(maker, SIM_FAULT_SHORT, 200000);
        add_odds(maker, SIM_FAULT_INTERRUPTED, 100000);
        add_odds(maker, SIM_FAULT_LATE, 5000);
        break;
    case 1: /* the network */
        add_odds(maker, SIM_FAULT_RESET, 3000);
        add_odds(maker, SIM_FAULT_STALL, 20000);
        add_odds(maker, SIM_FAULT_ENDED, 50000);
        add_odds(maker, SIM_FAULT_NO_BUFFERS, 50000);
        break;
    case 2: /* reads */
        add_odds(maker, SIM_FAULT_READ_ERROR, 50000);
        add_odds(maker, SIM_FAULT_READ_FLIP, 50000);
        break;
    case 3:
        add_odds(maker, SIM_FAULT_READ_STALE, 100000);
        add_odds(maker, SIM_FAULT_READ_ASTRAY, 100000);
        break;
    case 4: /* writes that are known to fail */
    case 8:
        add_odds(maker, draw(maker, 2) == 0 ? SIM_FAULT_WRITE_ERROR : SIM_FAULT_SYNC_ERROR, 60000);
        break;
    case 5:
        add_odds(maker, draw(maker, 2) == 0 ? SIM_FAULT_NO_SPACE : SIM_FAULT_NAME_ERROR, 100000);
        break;
    case 6: /* writes that lie */
    case 9:
        add_odds(maker, (enum sim_fault_kind)(SIM_FAULT_WRITE_LOST + draw(maker, 3)), 100000);
        break;
    case 7:
        add(maker, PLAN_FAIL, one_of(maker, kinds, ARRAY_COUNT(kinds)), between(maker, 1, 60),
            (uint32_t)errnos[draw(maker, ARRAY_COUNT(errnos))]);
        break;
    default:
        add_odds(maker, SIM_FAULT_CANCELLED, 2000);
        break;
    }
}

/* ---- boots ----------------------------------------------------------------------------------------------------- */

static void make_work(struct maker *maker)
{
    uint32_t bursts = draw(maker, 6) == 0 ? between(maker, 4, 14) : between(maker, 1, 4);
    for (uint32_t burst = 0; burst < bursts; burst++) {
        uint32_t clients = between(maker, 1, 3);
        uint32_t most = draw(maker, 6) == 0 ? 300 : 30;
        for (uint32_t i = 0; i < clients; i++)
            add(maker, PLAN_WORK, (uint32_t)draw(maker, PLAN_CLIENTS), between(maker, 1, most), 0);
        if (draw(maker, 12) == 0)
            add(maker, PLAN_CLOSE, (uint32_t)draw(maker, PLAN_CLIENTS), (uint32_t)draw(maker, 2), 0);
        if (draw(maker, 10) == 0)
            add(maker, PLAN_TIME, between(maker, 50, 8000), 0, 0);
        if (draw(maker, 30) == 0)
            add(maker, PLAN_CLOCK, between(maker, 1, draw(maker, 2) == 0 ? 2000 : 10000000), draw(maker, 3) > 0, 0);
        if (draw(maker, 4) == 0)
            add(maker, PLAN_SETTLE, 0, 0, 0);
        else
            add(maker, PLAN_RUN, between(maker, 1, draw(maker, 2) == 0 ? 50 : 2000), 0, 0);
    }
}

static void make_end(struct maker *maker)
{
    uint32_t rot = draw(maker, 6) == 0 ? between(maker, 1, 4) : 0;
    uint32_t threads = between(maker, 1, 4);
    if (draw(maker, 4) == 0) {
        add(maker, PLAN_STOP, draw(maker, 3) == 0, rot, threads);
        return;
    }
    static const uint32_t modes[] = {SIM_RANDOM,   SIM_RANDOM, SIM_RANDOM, SIM_DROP_ALL,
                                     SIM_KEEP_ALL, SIM_KILL,   SIM_KILL};
    add(maker, PLAN_CRASH, one_of(maker, modes, ARRAY_COUNT(modes)), rot, threads);
}

static void make_backup(struct maker *maker, enum plan_kind kind, unsigned one_in)
{
    struct maker own = {.plan = maker->plan, .state = maker->backup_state};
    if (draw(&own, one_in) == 0)
        add(&own, kind, draw(&own, 3) > 0, 0, between(&own, 1, 4));
    maker->backup_state = own.state;
}

/* Files that cannot be mapped, for the next boot: it may find a snapshot of the indexes. */
static void make_map_faults(struct maker *maker)
{
    struct maker own = {.plan = maker->plan, .state = maker->map_state};
    if (draw(&own, 2) == 0)
        add_odds(&own, SIM_FAULT_MAP_ERROR, 1000000);
    maker->map_state = own.state;
}

/* Interruptions, and maybe a limit that the live data, some of it or all, fills. */
static void make_limit(struct maker *maker)
{
    struct maker own = {.plan = maker->plan, .state = maker->limit_state};
    static const uint32_t preempts[] = {0, 0, 20, 200, 2000};
    static const uint32_t bits[] = {64, 64, 12, 8};
    struct plan *plan = maker->plan;
    plan->preempt_every = one_of(&own, preempts, ARRAY_COUNT(preempts));
    if (draw(&own, LIMITED_ONE_IN) == 0) {
        plan->disk_segments = draw(&own, 3) == 0 ? between(&own, 1, 3) : between(&own, 3, 16);
        plan->segment_kib = 64;
        plan->hash_bits = one_of(&own, bits, ARRAY_COUNT(bits));
        plan->value_bytes = draw(&own, 3) == 0 ? between(&own, 20, 300) : between(&own, 300, 3000);
        uint64_t limit_kib = (3 * plan->threads + 4 + (uint64_t)plan->disk_segments) * plan->segment_kib;
        uint64_t keys = limit_kib * 1024 * between(&own, 4, 15) / 10 / (plan->value_bytes * 3 / 2 + 64);
        plan->keys = (uint32_t)(keys < 20 ? 20 : keys > 500 ? 500 : keys);
    }
    maker->limit_state = own.state;
}

static void make_swaps(struct maker *maker)
{
    static const uint32_t percents[] = {0, 10, 30, 30, 80};
    struct maker own = {.plan = maker->plan, .state = maker->swap_state};
    maker->plan->swaps_percent = one_of(&own, percents, ARRAY_COUNT(percents));
}

static void make_groups(struct maker *maker)
{
    static const uint32_t percents[] = {0, 0, 5, 20, 60};
    struct maker own = {.plan = maker->plan, .state = maker->group_state};
    maker->plan->groups_percent = one_of(&own, percents, ARRAY_COUNT(percents));
}

static void make_scans(struct maker *maker)
{
    static const uint32_t percents[] = {0, 1, 2, 4};
    struct maker own = {.plan = maker->plan, .state = maker->scan_state};
    maker->plan->scans_percent = one_of(&own, percents, ARRAY_COUNT(percents));
}

static void make_flushes(struct maker *maker)
{
    static const uint32_t permilles[] = {0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 8, 40};
    struct maker own = {.plan = maker->plan, .state = maker->flush_state};
    maker->plan->flushes_permille = one_of(&own, permilles, ARRAY_COUNT(permilles));
    maker->flush_state = own.state;
}

/* Steps of which there is a variant with a flush. */
static void make_flushing_steps(struct maker *maker)
{
    struct maker own = {.plan = maker->plan, .state = maker->flush_state};
    struct plan *plan = maker->plan;
    for (uint32_t i = 0; i < plan->step_count && plan->flushes_permille > 0; i++) {
        struct plan_step *step = &plan->steps[i];
        if (step->kind == PLAN_RELIEF || step->kind == PLAN_RESTORE)
            step->b = (uint32_t)draw(&own, 2);
    }
    if (plan->flushes_permille > 0 && draw(&own, 3) == 0) {
        add(&own, PLAN_RELIEF, 1, 1, 0);
        add(&own, PLAN_CHECK, 0, 0, 0);
    }
}

static void add_work(struct maker *maker, enum work_style style, uint32_t least, uint32_t most)
{
    add(maker, PLAN_WORK, (uint32_t)draw(maker, PLAN_CLIENTS), between(maker, least, most), style);
}

static void add_pause(struct maker *maker)
{
    if (draw(maker, 2) == 0)
        add(maker, PLAN_SETTLE, 0, 0, 0);
    else
        add(maker, PLAN_RUN, between(maker, 1, 3000), 0, 0);
}

/* Under a limit: it is filled, emptied, and filled again. */
static void make_limited_work(struct maker *maker)
{
    struct maker own = {.plan = maker->plan, .state = maker->limit_state};
    uint32_t keys = maker->plan->keys;
    for (uint64_t rounds = maker->plan->disk_segments == 0 ? 0 : 1 + draw(&own, 2); rounds > 0; rounds--) {
        add_work(&own, WORK_FILL, keys / 2, keys + keys / 2);
        add_pause(&own);
        if (draw(&own, 3) == 0)
            add_work(&own, WORK_CHAINS, 5, 100);
        if (draw(&own, 2) == 0)
            add_work(&own, WORK_FILL, keys / 4, keys);
        if (draw(&own, 3) > 0)
            add_work(&own, WORK_REMOVE, keys / 4, keys);
        if (draw(&own, 3) > 0)
            add_pause(&own);
        if (draw(&own, 2) == 0)
            add_work(&own, WORK_CHAINS, 20, 200);
        if (draw(&own, 2) == 0)
            add(&own, PLAN_CHECK, 0, 0, 0);
        if (draw(&own, 2) == 0)
            add(&own, PLAN_RELIEF, draw(&own, 2) == 0 ? 1 : 100, 0, 0);
    }
    maker->limit_state = own.state;
}

static void make_boot(struct maker *maker)
{
    bool faulty = draw(maker, 2) == 0;
    bool small_disk = draw(maker, 8) == 0;
    if (small_disk)
        add(maker, PLAN_DISK_SIZE, between(maker, 1, 2000), 0, 0);
    if (draw(maker, 3) > 0)
        make_work(maker);
    for (uint64_t families = faulty ? 1 + draw(maker, 2) : 0; families > 0; families--)
        make_faults(maker);
    make_backup(maker, PLAN_BACKUP, 3);
    make_work(maker);
    make_limited_work(maker);
    if (small_disk && draw(maker, 2) == 0)
        add(maker, PLAN_DISK_SIZE, 0, 0, 0);
    if (draw(maker, 2) == 0)
        add(maker, PLAN_CHECK, 0, 0, 0);
    if (faulty && draw(maker, 3) > 0) /* else the faults go on into the next boot */
        add(maker, PLAN_FAULTS_OFF, 0, 0, 0);
    make_backup(maker, PLAN_RESTORE, 6);
    make_backup(maker, PLAN_BACKUP, 3);
    if (draw(maker, 3) == 0)
        make_work(maker);
    make_map_faults(maker);
    make_end(maker);
}

void plan_make(struct plan *plan, uint64_t seed)
{
    struct maker maker = {.plan = plan,
                          .state = seed * 0x9e3779b97f4a7c15u + 0x1234567,
                          .backup_state = ~seed,
                          .limit_state = seed ^ 0x6c696d6974u,
                          .map_state = seed ^ 0x6d6170u,
                          .swap_state = seed ^ 0x73776170u,
                          .group_state = seed ^ 0x67726f757073u,
                          .scan_state = seed ^ 0x7363616eu,
                          .flush_state = seed ^ 0x666c757368u};
    *plan = (struct plan){.seed = seed};
    make_settings(&maker);
    make_limit(&maker);
    make_swaps(&maker);
    make_groups(&maker);
    make_scans(&maker);
    make_flushes(&maker);
    uint32_t boots = between(&maker, 1, 5);
    for (uint32_t boot = 0; boot < boots; boot++)
        make_boot(&maker);
    add(&maker, PLAN_CHECK, 0, 0, 0);
    make_flushing_steps(&maker);
}
