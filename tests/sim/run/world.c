/*
 * world.c - carries out a plan.
 *
 * Happy path: the machine, a boot, the plan's steps one after the other, a last check, an orderly stop, one more boot
 * to see that it kept everything. Every crash and stop goes the same way: the dead node's memory is freed, bits may
 * rot, and the node boots again (world_boot.c).
 *
 * Failure modes: all of them end the process (verdict.h).
 */
#include "world_internal.h"

#include "draw.h"
#include "sim_core.h"
#include "survey.h"
#include "verdict.h"

#include "base/hash.h"
#include "engine/backup_internal.h"
#include "engine/engine.h"
#include "engine/store.h"
#include "ring/ring_backend.h"

#define CALM_AGAIN_NS  3000000000u /* space is back: writes must be taken again by then */
#define COUNTERS       3u
#define LOOKS_MAX      300u /* at one flush */
#define QUIET_NS       600000000000u
#define RELAXED_NS     200000000u /* relaxed writes are on disk by then */
#define EXPIRY_LATE_MS 400u       /* after its time a key is not counted any more */

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

/* The only state that a wrapped function can reach. */
static uint64_t hash_mask = UINT64_MAX;

/* The upper bits choose the shard: they are left alone, or all keys would be of one. */
uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    return __real_hash_key(key, seed) & hash_mask;
}

/* ---- running --------------------------------------------------------------------------------------------------- */

static void describe(const struct world *world)
{
    for (unsigned i = 0; i < PLAN_CLIENTS; i++) {
        if (world->clients[i] != NULL)
            client_describe(world->clients[i]);
    }
    sim_groups_describe(world->groups);
}

/* While the node is at a flush clients that have nothing to do look at one key after the other, for a while: nobody may
 * see half of it. */
static void look_at_flush(struct world *world)
{
    const struct node *node = world->host.node;
    if (node == NULL || world->untold || world->circumstances.leaving || !atomic_load(&node->flushing)) {
        world->looks = 0;
        return;
    }
    for (unsigned i = 0; i < PLAN_CLIENTS && world->looks < LOOKS_MAX; i++)
        world->looks += world->clients[i] != NULL && client_peek(world->clients[i]);
}

static bool step(struct world *world)
{
    world->tally->steps++;
    look_at_flush(world);
    return sim_step();
}

/* The same, unless nothing has to happen for long: keys that expire in a hundred years are no reason to go there. */
static bool step_soon(struct world *world)
{
    world->tally->steps++;
    look_at_flush(world);
    return sim_step_before(sim->now_ns + QUIET_NS);
}

static bool clients_idle(const struct world *world)
{
    for (unsigned i = 0; i < PLAN_CLIENTS; i++) {
        if (!client_idle(world->clients[i]))
            return false;
    }
    return sim_groups_idle(world->groups);
}

static void settle(struct world *world)
{
    world_suspend_faults();
    for (uint64_t i = 0; !clients_idle(world); i++) {
        if (i == LIVENESS_STEPS || !step(world)) {
            describe(world);
            broken("liveness: operations stay without an answer though nothing fails any more");
        }
    }
    world_resume_faults(world);
}

static void run_steps(struct world *world, uint64_t count)
{
    for (uint64_t i = 0; i < count && step_soon(world); i++) {
    }
}

/* ---- checking -------------------------------------------------------------------------------------------------- */

static struct engine_stats stats_of(const struct world *world)
{
    struct engine_stats stats;
    engine_stats(world->host.node->engine, &stats);
    return stats;
}

static void check_count(struct world *world)
{
    const struct circumstances *why = &world->circumstances;
    int64_t least = 0, most = 0;
    if (why->writes_may_fail || why->reads_may_fail || why->damage_may_show || why->space_may_lack)
        return;
    for (unsigned key = 0; key < oracle_keys(world->oracle); key++) {
        int present = oracle_present(world->oracle, key);
        least += present == 1;
        most += present != 0;
    }
    int64_t counted = client_counted(world->clients[0]), fleeting_least, fleeting_most, counters_least, counters_most;
    struct engine_stats stats = stats_of(world);
    fleeting_range(world->fleeting, stats.expiry_unqueued > 0 ? UINT64_MAX / 2 : EXPIRY_LATE_MS, &fleeting_least,
                   &fleeting_most);
    least += fleeting_least;
    most += fleeting_most;
    counters_range(world->counters, &counters_least, &counters_most);
    least += counters_least;
    most += counters_most;
    /* Groups delete by what has expired, too; where there is no memory to note that, it counts until it is met. */
    if (stats.expiry_unqueued > 0 && world->plan->groups_percent > 0)
        most = INT64_MAX;
    if (counted >= 0 && stats.settles_skipped == 0 && (counted < least || counted > most))
        broken("the node counts %lld keys; there are %lld..%lld", (long long)counted, (long long)least,
               (long long)most);
}

static uint64_t held_by_requests(const struct world *world)
{
    return atomic_load_explicit(&world->host.node->budget.used_bytes, memory_order_relaxed);
}

/* With nothing under way: what the store holds is within its share of the memory, and requests hold nothing any more,
 * once the last send to a connection that is gone has ended. */
static void check_bounds(struct world *world)
{
    const struct config *config = &world->host.config;
    struct engine_stats stats = stats_of(world);
    uint64_t share = config->memory_bytes - config->memory_bytes / 4;
    if (stats.image_bytes + stats.index_bytes + stats.expiry_bytes > share)
        broken("P8 bounded: images take %llu bytes, the index %llu and expiry %llu, of %llu",
               (unsigned long long)stats.image_bytes, (unsigned long long)stats.index_bytes,
               (unsigned long long)stats.expiry_bytes, (unsigned long long)share);
    for (uint64_t i = 0; held_by_requests(world) > 0; i++) {
        if (i == LIVENESS_STEPS || !step(world))
            broken("P8 bounded: requests that are done still hold %llu bytes",
                   (unsigned long long)held_by_requests(world));
    }
}

static void check(struct world *world)
{
    bool fresh = world->fresh;
    settle(world);
    world_suspend_faults();
    for (uint64_t i = 0; stats_of(world).settling > 0; i++) {
        if (i == LIVENESS_STEPS || !step(world))
            broken("liveness: blind overwrites stay unsettled");
    }
    /* What has expired has some time to leave the count. */
    uint64_t until = sim->now_ns + (uint64_t)EXPIRY_LATE_MS * 1000000;
    for (uint64_t i = 0; sim->now_ns < until && i < LIVENESS_STEPS && step(world); i++) {
    }
    until = sim->now_ns + (uint64_t)EXPIRY_LATE_MS * 1000000;
    client_read_all(world->clients[0]);
    settle(world);
    oracle_judge(world->oracle, ORACLE_GOES_ON, world->calm);
    if (fresh) {
        unsigned flushes;
        world->tally->groups_judged += oracle_judge_groups(world->oracle, &flushes);
        world->tally->groups_judged -= flushes;
        world->tally->flushes_judged += flushes;
        oracle_judge_prefix(world->oracle);
    }
    /* The count is of when it was asked for: large values before it may have waited for memory, and keys have expired.
     */
    if (sim->now_ns < until)
        check_count(world);
    check_bounds(world);
    world->fresh = false;
    world->tally->checks++;
    world_resume_faults(world);
}

/* ---- the steps of a plan --------------------------------------------------------------------------------------- */

static void rot(struct world *world, unsigned bits, uint64_t seed)
{
    world->rotted = world->rotted || bits > 0;
    if (bits > 0)
        survey_rot(bits, seed);
}

/* A disk that lies or rots changes more than it was asked to. */
static bool disk_is_honest(const struct world *world)
{
    return !world->rotted && sim_fault_count(SIM_FAULT_WRITE_LOST) == 0 &&
           sim_fault_count(SIM_FAULT_WRITE_ASTRAY) == 0 && sim_fault_count(SIM_FAULT_WRITE_FLIP) == 0;
}

static void look_at_backups(struct world *world)
{
    world->tally->backups += sim_backups_look(&world->backups, world->host.node->engine);
}

static void check_backups(const struct world *world)
{
    if (disk_is_honest(world))
        sim_backups_check(&world->backups);
}

/* Before the node goes. */
static void note_waits(struct world *world)
{
    struct engine_stats stats = stats_of(world);
    world->tally->puts_waited += stats.puts_waited;
    world->tally->removes_waited += stats.removes_waited;
}

static void do_crash(struct world *world, const struct plan_step *what)
{
    note_waits(world);
    if (what->a == SIM_KILL)
        world->tally->kills++;
    else
        world->tally->crashes++;
    sim_crash((enum sim_crash_mode)what->a);
    world_clients_end(world);
    host_abandon(&world->host);
    check_backups(world);
    rot(world, what->b, what->seed);
    world_boot(world, what->c, ORACLE_CRASHED);
    if (what->seed % 3 > 0)
        check(world);
}

/* A node stops when what it has begun itself has ended. */
static void end_groups(struct world *world)
{
    world_suspend_faults();
    for (uint64_t i = 0; !sim_groups_idle(world->groups); i++) {
        if (i == LIVENESS_STEPS || !step(world)) {
            describe(world);
            broken("liveness: groups do not come to their end though nothing fails any more");
        }
    }
    world_resume_faults(world);
}

static void end_orderly(struct world *world, bool at_once)
{
    end_groups(world);
    world->tally->stops++;
    world->circumstances.leaving = true;
    note_waits(world);
    fleeting_stop(world->fleeting);
    host_stop(&world->host, at_once);
    for (uint64_t i = 0; !host_stopped(&world->host); i++) {
        if (i == LIVENESS_STEPS || !step(world)) {
            describe(world);
            broken("liveness: an orderly stop does not come to its end");
        }
    }
    ring_close(world->client_ring);
    world_clients_end(world);
}

static void do_stop(struct world *world, const struct plan_step *what)
{
    end_orderly(world, what->a != 0);
    enum oracle_end end = stats_of(world).failed_shards > 0 ? ORACLE_CRASHED : ORACLE_STOPPED;
    host_free(&world->host);
    if (what->seed % 2 == 0 || what->b > 0)
        sim_crash(SIM_DROP_ALL); /* after a stop, power loss takes nothing */
    check_backups(world);
    rot(world, what->b, what->seed);
    world_boot(world, what->c, end);
    if (what->seed % 3 > 0)
        check(world);
}

static bool ask_for_backup(struct world *world, bool links)
{
    sim_set_links(links);
    struct ring *ring = node_thread_ring(world->host.node, 0);
    if (!sim_backups_ask(&world->backups, world->host.node->engine, ring))
        return false;
    (void)sim_ring_turn_now(ring, 0); /* the wake-up leaves */
    return true;
}

static bool backup_runs(const struct world *world)
{
    struct engine_backup_state state;
    engine_backup_state(world->host.node->engine, &state);
    return state.running;
}

static void await_backup(struct world *world)
{
    for (uint64_t i = 0; backup_runs(world); i++) {
        if (i == LIVENESS_STEPS || !step(world))
            broken("liveness: a backup does not come to its end");
    }
    look_at_backups(world);
}

/* Takes all keys away when the backup that runs has had its moment: it is none of its business. True: it was asked for.
 * The oracles are not told. */
static bool flush_behind_backup(struct world *world)
{
    const struct store *store = container_of(world->host.node->engine, const struct store, base);
    const struct backup *backup = store->keeper.backup;
    for (uint64_t i = 0; backup_runs(world) && (backup->stage <= BACKUP_MOMENT); i++) {
        if (i == LIVENESS_STEPS || !step(world))
            broken("liveness: a backup does not come to its moment");
    }
    if (!backup_runs(world))
        return false;
    world->untold = true;
    client_flush_untold(world->clients[0]);
    settle(world);
    world->untold = false;
    world_suspend_faults();
    return true;
}

/* What was acknowledged, relaxed writes included, is on disk when the backup is asked for; so the copy owes the same as
 * the store. */
static void do_restore(struct world *world, const struct plan_step *what)
{
    settle(world);
    world_suspend_faults();
    await_backup(world);
    for (uint64_t until = sim->now_ns + RELAXED_NS; sim->now_ns < until && step(world);) {
    }
    unsigned before = world->backups.count;
    if (!ask_for_backup(world, what->a != 0))
        broken("no backup can be asked for though none is under way");
    bool flushed = what->b > 0 && flush_behind_backup(world);
    await_backup(world);
    if (flushed && (world->backups.count == before || !disk_is_honest(world)))
        client_flush_tell(world->clients[0]); /* it stays */
    world->fresh = world->fresh && !flushed;
    if (world->backups.count == before) {
        const struct circumstances *why = &world->circumstances;
        if (!why->writes_may_fail && !why->space_may_lack && !why->damage_may_show && disk_is_honest(world))
            broken("a backup fails without a reason");
        world_resume_faults(world);
        return;
    }
    if (!disk_is_honest(world)) { /* the copy may be as bad as the original, and nobody knows where */
        world_resume_faults(world);
        return;
    }
    world->tally->restores++;
    sim_crash(SIM_DROP_ALL);
    world_clients_end(world);
    host_abandon(&world->host);
    sim_backups_restore(&world->backups);
    world_resume_faults(world);
    world_boot(world, what->c, ORACLE_CRASHED);
    if (what->seed % 3 > 0)
        check(world);
}

/* Also when nothing happens any more. */
static void pass_time(struct world *world, uint64_t ns)
{
    uint64_t until = sim->now_ns + ns;
    for (uint64_t i = 0; sim->now_ns < until && i < LIVENESS_STEPS; i++) {
        if (!step(world))
            sim_advance(until - sim->now_ns);
    }
}

static void do_disk_size(struct world *world, uint32_t more_kib)
{
    if (more_kib > 0) {
        world->disk_limited = true;
        sim_set_disk_size(sim_disk_used() + (uint64_t)more_kib * 1024);
        world_widen(world);
        return;
    }
    bool was_limited = world->disk_limited;
    world->disk_limited = false;
    sim_set_disk_size(UINT64_MAX);
    if (!was_limited || world_any_odds(world, 0, SIM_FAULT_STALL) || world->single_fault)
        return;
    settle(world);
    pass_time(world, CALM_AGAIN_NS);
    world->circumstances.space_may_lack = false; /* P7: writing resumes by itself */
}

/* Time goes by; or the whole machine was stopped meanwhile, and nothing had its turn. */
static void do_time(struct world *world, const struct plan_step *what)
{
    uint64_t until = sim->now_ns + (uint64_t)what->a * 1000000;
    bool stopped = what->seed % 4 == 0;
    while (!stopped && sim->now_ns < until && step_soon(world)) {
    }
    if (sim->now_ns < until)
        sim_advance(until - sim->now_ns);
    world->calm = world->calm && !stopped;
}

/* Whether nothing but the limit on the log may have kept the node from writing in this boot. */
static bool only_limited(const struct world *world)
{
    const struct circumstances *why = &world->circumstances;
    return why->log_limited && !why->writes_may_fail && !why->reads_may_fail && !why->space_may_lack &&
           !why->damage_may_show;
}

/* Client 0 does this over a durable connection of its own. */
static void press(struct world *world, enum work_style style, unsigned count, unsigned depth, uint64_t seed)
{
    client_close(world->clients[0], false);
    settle(world);
    client_press(world->clients[0], style, count, depth, seed);
    settle(world);
}

static void flush(struct world *world)
{
    client_close(world->clients[0], false);
    settle(world);
    client_flush(world->clients[0]);
    settle(world);
    world_suspend_faults();
}

/* Some time after a flush, with nothing asked since: what there was counts no more, and its files are gone. */
static void check_space(const struct world *world)
{
    const struct circumstances *why = &world->circumstances;
    struct engine_stats stats = stats_of(world);
    if (why->writes_may_fail || why->reads_may_fail || why->space_may_lack || why->damage_may_show)
        return;
    if (stats.live_bytes > 0 || stats.large_values > 0)
        broken("P7 full disk: after a flush %llu bytes of records count, and there are %llu files of large values",
               (unsigned long long)stats.live_bytes, (unsigned long long)stats.large_values);
    world->tally->flushes_emptied++;
}

/*
 * P7: the log is filled, deletes make room, and writing resumes by itself. By design that is so if the limit has room
 * for the reserves, two files for each log and three more for deletes, for writing another one for each log and what
 * compaction has in hand; and if what is deleted is far larger than a delete.
 */
static void do_relief(struct world *world, const struct plan_step *what)
{
    int64_t logs = world->host.config.threads;
    world->fresh = false;
    settle(world);
    world_suspend_faults();
    bool at_once = what->b > 0;
    bool roomy = only_limited(world) && world->plan->disk_segments >= 2 * logs + 3 && world->plan->value_bytes >= 300 &&
                 world->reserved;
    unsigned keys = oracle_keys(world->oracle);
    uint64_t full = world->tally->full, deletes = world->tally->full_deletes;
    press(world, WORK_FILL, 2 * keys, 10, what->seed);
    world->tally->reliefs += roomy && world->tally->full > full;
    if (at_once)
        flush(world);
    else
        press(world, WORK_REMOVE, keys, what->a, what->seed);
    if (roomy && world->tally->full_deletes > deletes)
        broken("P7 full disk: deletes are refused");
    pass_time(world, CALM_AGAIN_NS);
    if (at_once && client_flushed(world->clients[0]))
        check_space(world);
    roomy = only_limited(world) && host_segments_left(&world->host) >= 3 * logs + 2;
    full = world->tally->full;
    press(world, WORK_FILL, 1, 1, what->seed);
    if (roomy && world->tally->full > full)
        broken("P7 full disk: writing does not resume when there is room again");
    world->tally->resumptions += roomy;
    world_resume_faults(world);
}

/* Beside a client's operations, on the same keys. */
static void begin_groups(struct world *world, const struct plan_step *what)
{
    uint64_t state = ~what->seed;
    uint64_t most = 1 + (uint64_t)what->b * world->plan->groups_percent / 100;
    if (world->plan->groups_percent > 0)
        sim_groups_work(world->groups, (unsigned)(draw_next(&state) % (most + 1)), draw_next(&state));
}

static void do_step(struct world *world, const struct plan_step *what)
{
    story("%s %u %u %u", plan_kind_name(what->kind), what->a, what->b, what->c);
    switch (what->kind) {
    case PLAN_WORK:
        world->fresh = false;
        client_work(world->clients[what->a % PLAN_CLIENTS], (enum work_style)what->c, what->b, what->seed);
        begin_groups(world, what);
        break;
    case PLAN_RUN:
        run_steps(world, what->a);
        break;
    case PLAN_SETTLE:
        settle(world);
        break;
    case PLAN_ODDS:
        if (what->a < SIM_FAULT_COUNT)
            world_set_odds(world, (enum sim_fault_kind)what->a, what->b);
        break;
    case PLAN_FAULTS_OFF:
        world_faults_off(world);
        break;
    case PLAN_FAIL:
        world->single_fault = true;
        sim_fail((enum ring_kind)what->a, what->b, (int)what->c);
        world_widen(world);
        break;
    case PLAN_DISK_SIZE:
        do_disk_size(world, what->a);
        break;
    case PLAN_CLOSE:
        client_close(world->clients[what->a % PLAN_CLIENTS], what->b != 0);
        break;
    case PLAN_TIME:
        do_time(world, what);
        break;
    case PLAN_CLOCK: {
        int64_t by_ms = what->b == 0 ? (int64_t)what->a : -(int64_t)what->a;
        sim_step_wall(by_ms);
        fleeting_clock_stepped(world->fleeting, by_ms);
        break;
    }
    case PLAN_CHECK:
        check(world);
        break;
    case PLAN_CRASH:
        do_crash(world, what);
        break;
    case PLAN_STOP:
        do_stop(world, what);
        break;
    case PLAN_BACKUP:
        ask_for_backup(world, what->a != 0);
        break;
    case PLAN_RESTORE:
        do_restore(world, what);
        break;
    case PLAN_RELIEF:
        do_relief(world, what);
        break;
    case PLAN_KIND_COUNT:
        break;
    }
    look_at_backups(world);
}

/* ---- a whole run ----------------------------------------------------------------------------------------------- */

/* Of the bits that are left the lowest six choose the bucket in an index, the highest the shard and the page. `apart`:
 * some are left, too, that no index looks at, so that keys are candidates for each other and their hashes differ. */
static uint64_t mask_of(unsigned bits, bool apart)
{
    if (bits >= 48)
        return UINT64_MAX;
    unsigned low = bits < 6 ? bits : 6;
    return UINT64_MAX << (60 - (bits - low)) | (apart ? 0xffull << 16 : 0) | ((1ull << low) - 1);
}

static void begin(struct world *world)
{
    const struct plan *plan = world->plan;
    sim_create(plan->seed);
    sim_set_direct_align(plan->direct_align);
    sim_set_socket_bytes(plan->socket_bytes);
    hash_mask = mask_of(plan->hash_bits, plan->seed % 2 != 0);
    unsigned relaxed = plan->keys >= 8 && plan->seed % 2 == 0 ? plan->keys / 4 : 0;
    /* As much as a node of one thread takes: most of these get files of their own. */
    unsigned value_bytes_max = plan->memory_segments * plan->segment_kib * 1024 * 2 / 9;
    world->oracle = oracle_create(plan->keys, relaxed, plan->value_bytes, value_bytes_max);
    world->fleeting = fleeting_create(4 + plan->keys / 8, plan->value_bytes, plan->swaps_percent > 0);
    world->counters = counters_create(COUNTERS, value_bytes_max);
    world->groups = sim_groups_create(world->oracle, world->tally, &world->circumstances);
    world->calm = true;
    world_boot(world, plan->threads, ORACLE_STOPPED);
}

static void end(struct world *world)
{
    world_faults_off(world);
    check(world);
    end_orderly(world, false);
    host_free(&world->host);
    sim_crash(SIM_DROP_ALL);
    world_boot(world, world->plan->threads, world->circumstances.writes_may_fail ? ORACLE_CRASHED : ORACLE_STOPPED);
    check(world);
    end_orderly(world, true);
    host_free(&world->host);
    check_backups(world);
    oracle_judge(world->oracle, ORACLE_STOPPED, true);
}

uint64_t world_run(const struct plan *plan, const struct world_options *options, struct tally *tally)
{
    struct world world = {.plan = plan, .tally = tally, .talkative = options->story};
    story_on = options->story;
    begin(&world);
    for (uint32_t i = 0; i < plan->step_count; i++)
        do_step(&world, &plan->steps[i]);
    end(&world);
    tally->runs++;
    tally->limited += plan->disk_segments > 0;
    tally->simulated_ns += sim->now_ns;
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        tally->faults[kind] += sim_fault_count((enum sim_fault_kind)kind);
    uint64_t trace = sim_trace();
    oracle_free(world.oracle);
    fleeting_free(world.fleeting);
    counters_free(world.counters);
    sim_groups_free(world.groups);
    sim_destroy();
    return trace;
}
