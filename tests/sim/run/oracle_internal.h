/*
 * oracle_internal.h - the oracle from inside: oracle.c has keys, values and histories, oracle_groups.c what is true of
 * changes of several keys in one step, oracle_flush.c what is true of those that remove all keys.
 */
#ifndef KVS_TESTS_SIM_RUN_ORACLE_INTERNAL_H
#define KVS_TESTS_SIM_RUN_ORACLE_INTERNAL_H

#include "oracle.h"

struct attempt {
    struct history_op op;
    uint64_t ended_ns; /* of the machine; 0: no answer yet */
    bool left;
    bool refused;
    uint32_t next; /* of the same key, or ORACLE_OP_NONE */
    unsigned key;
    uint32_t group;    /* it changes its key together with the others of this number; 0: alone */
    bool flush;        /* … and all keys there are */
    bool durable;      /* … which is on disk */
    bool was_there;    /* … and the key was, durably, when the group took it */
    uint64_t released; /* … the moment from which on others could change the key again */
};

struct key_state {
    uint32_t first, last; /* attempts of this boot */
    uint32_t before;      /* first attempt of the boot before, for the prefix check */
    unsigned versions;
    unsigned owner, owner_before;
    uint64_t *starts; /* what it may have held when this boot began */
    size_t start_count;
    uint64_t *starts_before;
    size_t start_before_count;
    uint64_t *finals; /* as of the latest judgement */
    size_t final_count;
    bool tainted;
    bool grouped; /* some attempt of this boot is of a group */
    bool flushed; /* … and some of a flush */
};

struct oracle {
    unsigned keys, relaxed_keys;
    unsigned value_bytes, value_bytes_max;
    struct key_state *states;
    struct attempt *attempts; /* of this boot and the one before */
    uint32_t attempt_count, attempt_room;
    uint32_t boot_begin; /* attempts below it are the boot before's */
    uint64_t moment;
    struct history *history;
    bool crashed; /* how the boot before ended */
    bool calm_before;
    uint64_t crashed_ns;
    uint32_t groups;      /* numbers given out */
    uint32_t group_begin; /* the first of this boot */
    uint32_t group_begin_before;
    uint64_t *groups_seen;   /* of this boot's, from group_begin on: when somebody knew at the latest that it had taken
                                effect; HISTORY_NEVER */
    uint64_t *groups_unseen; /* … when somebody knew that it had not yet; 0 */
};

/* Whether it may change its key, or may have. */
bool oracle_may_have_written(const struct history_op *op);
bool oracle_may_have_removed(const struct history_op *op);

/* ---- oracle_groups.c ------------------------------------------------------------------------------------------- */

/* Finds out what oracle->groups_seen says. */
void oracle_look_at_groups(struct oracle *oracle);
/* What is known of this operation of a group, by what was seen of the others. */
void oracle_tighten(const struct oracle *oracle, const struct attempt *attempt, struct history_op *op);
/* The value that its answer shows; 0: none. */
uint64_t oracle_shown_value(const struct history_op *op);

/* ---- oracle_flush.c -------------------------------------------------------------------------------------------- */

/* What answers about this key tell about flushes, added to groups_seen and groups_unseen. */
void oracle_look_at_flushes(struct oracle *oracle, unsigned key);
/* No flush may have been seen by somebody before somebody else saw that it had not happened. */
void oracle_judge_flushes(const struct oracle *oracle);
/* What the key holds after a crash tells of a flush of the boot before: 1: it has happened, 0: it has not, -1: nothing.
 */
int oracle_flush_remains(const struct oracle *oracle, uint32_t flush);
/* When the latest flush that was answered began, of the attempts from `first` on; 0: none was. Whatever was answered
 * before has been durable, and is gone. */
uint64_t oracle_flushed_from(const struct oracle *oracle, uint32_t first);

#endif
