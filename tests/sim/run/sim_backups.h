/*
 * sim_backups.h - the backups of a run: asking the node for them, keeping an eye on those that are whole, and putting
 * one in the place of the store.
 *
 * A finished backup shares files with the store. So whatever store and copy do afterwards, not a byte of it may change.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_BACKUPS_H
#define KVS_TESTS_SIM_RUN_SIM_BACKUPS_H

#include "engine/engine.h"

#define SIM_BACKUPS_MAX 64u

struct sim_backups {
    struct sim_backup {
        char path[64];
        uint64_t hash; /* of names and bytes of its files */
    } whole[SIM_BACKUPS_MAX];
    unsigned count;
    unsigned asked;
    uint64_t ended; /* of the node that runs, as far as was looked at */
};

/* Asks for one; false when another one is under way. */
bool sim_backups_ask(struct sim_backups *backups, struct engine *engine, struct ring *ring);
/* Looks whether one has come to its end since. True: it is whole. */
bool sim_backups_look(struct sim_backups *backups, const struct engine *engine);
/* Another node runs now. */
void sim_backups_reboot(struct sim_backups *backups);
/* Breaks the run if a byte of a whole one has changed. */
void sim_backups_check(const struct sim_backups *backups);
/* The machine is down: the store goes, and the latest whole backup comes into its place, by links. */
void sim_backups_restore(const struct sim_backups *backups);

#endif
