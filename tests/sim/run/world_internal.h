/*
 * world_internal.h - a world from inside: world.c carries out the steps of a plan, world_boot.c has what may go wrong
 * by now and brings the node up.
 */
#ifndef KVS_TESTS_SIM_RUN_WORLD_INTERNAL_H
#define KVS_TESTS_SIM_RUN_WORLD_INTERNAL_H

#include "counters.h"
#include "fleeting.h"
#include "host.h"
#include "oracle.h"
#include "sim_backups.h"
#include "sim_client.h"
#include "sim_groups.h"
#include "world.h"

#define LIVENESS_STEPS 3000000u

struct world {
    const struct plan *plan;
    struct tally *tally;
    struct host host;
    bool talkative;
    struct oracle *oracle;
    struct fleeting *fleeting;
    struct counters *counters;
    struct sim_groups *groups;
    struct ring *client_ring;
    struct client *clients[PLAN_CLIENTS];
    struct circumstances circumstances;
    uint64_t cursors[PLAN_CLIENTS]; /* of their scans */
    struct sim_backups backups;
    unsigned looks; /* at the flush that is under way */
    bool untold;    /* the oracles are not told of it */
    bool rotted;    /* bits were made to rot: what backups share with the store rots, too */
    unsigned odds[SIM_FAULT_COUNT];
    bool single_fault; /* PLAN_FAIL has set one since the boot */
    bool disk_limited;
    bool values_rotten; /* the file of some large value does not hold what was written to it, or is gone as it may be */
    bool calm;          /* nothing out of the ordinary since the boot */
    bool reserved;      /* under a limit: the boot began with whole reserves */
    bool fresh;         /* nothing was asked since the boot */
};

/* ---- world_boot.c: circumstances ------------------------------------------------------------------------------- */

/* Whether one of these kinds of fault, both included, happens by chance now. */
bool world_any_odds(const struct world *world, enum sim_fault_kind from, enum sim_fault_kind to);
/* Adds what the odds of now can do to the circumstances. */
void world_widen(struct world *world);
void world_set_odds(struct world *world, enum sim_fault_kind kind, unsigned per_million);
/* Until world_resume_faults. */
void world_suspend_faults(void);
void world_resume_faults(const struct world *world);
void world_faults_off(struct world *world);

/* ---- world_boot.c: boots --------------------------------------------------------------------------------------- */

/* From a machine that is down to a node that serves, with the ended boot judged, and clients. */
void world_boot(struct world *world, unsigned threads, enum oracle_end end);
/* The ring is gone with the machine's power, or closed first. */
void world_clients_end(struct world *world);

#endif
