/*
 * world_boot.c - what may go wrong by now in a world, and how its node comes up.
 *
 * Happy path of a boot: the survey tells what it owes, the node boots, the oracle judges the boot that ended, clients
 * are made, and the circumstances begin anew.
 *
 * Failure modes: a boot that is refused gets one more chance for each reason that the plan has given it: faults are
 * turned off, the disk is made larger, rot is healed. Then it must serve.
 */
#include "world_internal.h"

#include "sim_core.h"
#include "survey.h"
#include "verdict.h"

#include "base/assert.h"
#include "base/hash.h"
#include "engine/engine.h"
#include "ring/ring_backend.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT_BUFFERS      64u
#define CLIENT_BUFFER_BYTES 4096u

/* ---- circumstances --------------------------------------------------------------------------------------------- */

bool world_any_odds(const struct world *world, enum sim_fault_kind from, enum sim_fault_kind to)
{
    for (unsigned kind = from; kind <= (unsigned)to; kind++) {
        if (world->odds[kind] > 0)
            return true;
    }
    return false;
}

void world_widen(struct world *world)
{
    struct circumstances *now = &world->circumstances;
    bool cancelled = world->odds[SIM_FAULT_CANCELLED] > 0 || world->single_fault;
    now->writes_may_fail |= cancelled || world_any_odds(world, SIM_FAULT_WRITE_ERROR, SIM_FAULT_NO_SPACE);
    now->reads_may_fail |= cancelled || world->odds[SIM_FAULT_READ_ERROR] > 0;
    now->space_may_lack |=
        world->disk_limited || world->single_fault || world_any_odds(world, SIM_FAULT_NAME_ERROR, SIM_FAULT_NO_SPACE);
    now->log_limited = world->plan->disk_segments > 0;
    now->damage_may_show |= world_any_odds(world, SIM_FAULT_READ_FLIP, SIM_FAULT_WRITE_FLIP);
    now->network_may_break |= cancelled || world_any_odds(world, SIM_FAULT_RESET, SIM_FAULT_STALL);
    if (world_any_odds(world, SIM_FAULT_READ_ERROR, SIM_FAULT_STALL) || world->single_fault || world->disk_limited)
        world->calm = false;
}

void world_set_odds(struct world *world, enum sim_fault_kind kind, unsigned per_million)
{
    world->odds[kind] = per_million;
    sim_odds(kind, per_million);
    world_widen(world);
}

void world_suspend_faults(void)
{
    sim_odds_none();
    sim_fail_none();
}

void world_resume_faults(const struct world *world)
{
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        sim_odds((enum sim_fault_kind)kind, world->odds[kind]);
}

void world_faults_off(struct world *world)
{
    memset(world->odds, 0, sizeof(world->odds));
    world_suspend_faults();
}

/* ---- clients --------------------------------------------------------------------------------------------------- */

static void client_body(void *context)
{
    struct world *world = context;
    ring_turn(world->client_ring, -1);
}

static void clients_begin(struct world *world)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.buffer_count = CLIENT_BUFFERS, .buffer_bytes = CLIENT_BUFFER_BYTES};
    KVS_ASSERT(ring_open(&world->client_ring, &options, message) == KVS_ERR_OK);
    sim_ring_spare(world->client_ring);
    sim_ring_body(world->client_ring, client_body, world);
    sim_groups_boot(world->groups, &world->host, world->client_ring);
    for (unsigned i = 0; i < PLAN_CLIENTS; i++) {
        struct client_setting setting = {
            .ring = world->client_ring,
            .oracle = world->oracle,
            .fleeting = world->fleeting,
            .counters = world->counters,
            .tally = world->tally,
            .circumstances = &world->circumstances,
            .addr = host_addr(&world->host),
            .number = i,
            .swaps_percent = world->plan->swaps_percent,
            .scans_percent = world->plan->scans_percent,
            .flushes_permille = world->plan->flushes_permille,
            .hash_seed = engine_hash_seed(world->host.node->engine),
            .cursor = &world->cursors[i],
        };
        world->clients[i] = client_create(&setting);
    }
}

void world_clients_end(struct world *world)
{
    for (unsigned i = 0; i < PLAN_CLIENTS; i++) {
        client_free(world->clients[i]);
        world->clients[i] = NULL;
    }
    sim_groups_abandon(world->groups);
    world->client_ring = NULL;
}

/* ---- booting --------------------------------------------------------------------------------------------------- */

/* What is asked of the disk during a boot may fail; bytes read then are taken for the truth, so they are left right.
 * Over rot, writes do not lie either: accept_rot could not tell old lies from new ones. */
static void suspend_lies(bool rotten)
{
    enum sim_fault_kind last = rotten ? SIM_FAULT_WRITE_FLIP : SIM_FAULT_READ_ASTRAY;
    for (unsigned kind = SIM_FAULT_READ_FLIP; kind <= (unsigned)last; kind++)
        sim_odds((enum sim_fault_kind)kind, 0);
}

static bool boot_once(struct world *world, unsigned threads)
{
    struct host_setting setting = {
        .threads = threads,
        .segment_bytes = (uint64_t)world->plan->segment_kib * 1024,
        .memory_segments = world->plan->memory_segments,
        .disk_segments = world->plan->disk_segments,
        .preempt_every = world->plan->preempt_every,
        .talkative = world->talkative,
    };
    world->tally->boots++;
    bool serves = host_boot(&world->host, &setting, LIVENESS_STEPS);
    if (serves)
        story("boot with %u shards: serves", threads);
    else
        story("boot with %u shards: refused: %s", threads, world->host.message);
    return serves;
}

static void taint(struct world *world, unsigned key)
{
    unsigned ordinary = oracle_keys(world->oracle), fleeting = fleeting_keys(world->fleeting);
    if (key < ordinary)
        oracle_taint(world->oracle, key);
    else if (key < ordinary + fleeting)
        fleeting_taint(world->fleeting, key - ordinary);
    else
        counters_taint(world->counters, key - ordinary - fleeting);
}

/* With a flush that a disk has lost all that was there before it is back. */
static void taint_all(struct world *world)
{
    unsigned keys = oracle_keys(world->oracle) + fleeting_keys(world->fleeting) + counters_keys(world->counters);
    for (unsigned key = 0; key < keys; key++)
        taint(world, key);
}

static void taint_lost(struct world *world, const struct survey *survey)
{
    if (survey->flush_lost)
        taint_all(world);
    for (unsigned i = 0; i < survey->key_count; i++)
        taint(world, survey->keys[i]);
}

/* Takes away one reason for a refusal; false when there is none left. */
static bool take_reason_away(struct world *world, struct survey *survey, bool *faults)
{
    if (*faults) {
        *faults = false;
        world_faults_off(world);
        world->single_fault = false;
        /* What could be lost to a torn tail may have been cut by now; and the power loss may take what proved more. */
        taint_lost(world, survey);
        sim_crash(SIM_RANDOM);
        survey_free(survey);
        survey_take(survey, world->oracle, world->fleeting, world->counters);
        return true;
    }
    if (world->disk_limited && world->host.error == KVS_ERR_NO_SPACE) {
        world->disk_limited = false;
        sim_set_disk_size(UINT64_MAX);
        return true;
    }
    if (survey->may_refuse) {
        world->tally->refusals++;
        sim_rot_heal();
        survey_free(survey);
        return true;
    }
    return false;
}

static void accept_rot(struct world *world, const struct survey *survey)
{
    if (survey->rotten_places == 0)
        return;
    if (survey->must_refuse)
        broken("P5 honest recovery: damage below the durable watermark went unnoticed: %s", survey->place);
    world->tally->rotten_boots++;
    taint_lost(world, survey);
    sim_rot_accept();
}

static void note_owners(struct world *world)
{
    uint8_t name[ORACLE_KEY_BYTES_MAX];
    for (unsigned key = 0; key < oracle_keys(world->oracle); key++) {
        struct slice text = slice_make(name, oracle_name(world->oracle, key, name));
        uint64_t hash = hash_key(text, engine_hash_seed(world->host.node->engine));
        oracle_set_owner(world->oracle, key, hash_shard(hash, world->host.config.threads));
    }
}

static void note_rotten_value(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size)
{
    struct world *world = context;
    (void)offset, (void)truth, (void)size;
    world->values_rotten = world->values_rotten || strstr(path, "/values/") != NULL;
}

static void reset_circumstances(struct world *world)
{
    /* A start does not read the files of large values: whoever asks for one finds what is wrong with it. */
    world->circumstances = (struct circumstances){.damage_may_show = world->values_rotten};
    sim_fail_none();
    world->calm = true;
    world->fresh = true;
    world_widen(world); /* a single fault may have met the boot itself, which goes on without what has failed */
    world->single_fault = false;
}

void world_boot(struct world *world, unsigned threads, enum oracle_end end)
{
    struct survey survey;
    bool calm_before = world->calm;
    const struct circumstances *why = &world->circumstances;
    bool could_write = calm_before && !why->space_may_lack && !why->log_limited && !why->writes_may_fail;
    bool faults = world_any_odds(world, 0, SIM_FAULT_STALL) || world->single_fault; /* no map is a reason to refuse */
    survey_take(&survey, world->oracle, world->fleeting, world->counters);
    if (story_on && getenv("KVS_SIM_KEY") != NULL)
        survey_tell(world->oracle, world->fleeting, world->counters);
    suspend_lies(survey.rotten_places > 0);
    sim_rot_each(note_rotten_value, world);
    /* A start that loses records shows what they had superseded. Large values of that are gone already. */
    world->values_rotten = world->values_rotten || survey.batches_lost > 0;
    for (;;) {
        if (survey.may_refuse)
            survey_remove_runs();
        if (boot_once(world, threads))
            break;
        if (!take_reason_away(world, &survey, &faults))
            broken("P5 honest recovery: the node does not start: %s", world->host.message);
    }
    accept_rot(world, &survey);
    survey_free(&survey);
    oracle_judge(world->oracle, end, calm_before);
    sim_backups_reboot(&world->backups);
    counters_boot(world->counters);
    fleeting_boot(world->fleeting, end == ORACLE_STOPPED, could_write);
    note_owners(world);
    reset_circumstances(world);
    world->reserved = world->circumstances.log_limited && host_reserves_whole(&world->host);
    world_resume_faults(world);
    clients_begin(world);
}
