/*
 * survey.h - reads the bytes of a data directory between two boots and tells what the next boot owes: which damage it
 * must notice, and which it cannot.
 *
 * The truth is what should be on the disk: its content with all rot healed (sim_rot_each). A batch of the truth is
 * damaged when rot touches it. It is covered when an undamaged batch proves that it had been durable: a later one of
 * its stream and boot whose durable LSN reaches it, or a boot's first batch behind it in its segment. Damage to a
 * covered batch must be noticed; without cover, the batch and what its stream wrote after it may be taken for a torn
 * tail.
 */
#ifndef KVS_TESTS_SIM_RUN_SURVEY_H
#define KVS_TESTS_SIM_RUN_SURVEY_H

#include "counters.h"
#include "fleeting.h"
#include "oracle.h"

struct survey {
    unsigned rotten_places;
    bool must_refuse;      /* a covered batch is damaged */
    bool may_refuse;       /* rot touches something that a boot reads: a header, a batch, the superblock */
    bool flush_lost;       /* the superblock does not tell any more of a flush that it should tell of */
    unsigned batches_lost; /* damaged without cover, or behind such a one */
    char place[160];       /* with must_refuse: segment and offset */
    unsigned *keys; /* whose records may be lost, fleeting ones behind ordinary ones, then counters; to be freed */
    unsigned key_count;
};

/* Between a crash or stop and the next boot. */
void survey_take(struct survey *survey, const struct oracle *oracle, const struct fleeting *fleeting,
                 const struct counters *counters);
/* Lists the records of the key that is watched, as part of the story. */
void survey_tell(const struct oracle *oracle, const struct fleeting *fleeting, const struct counters *counters);
void survey_free(struct survey *survey);
/* Removes the sorted runs. A start does not read what they cover, so it would not notice damage there: with any damage
 * about it has to do without them. */
void survey_remove_runs(void);
/* Rots `bits` bits at places of the directory that the seed chooses, in pieces of batches and headers as well as beside
 * them. */
void survey_rot(unsigned bits, uint64_t seed);

#endif
