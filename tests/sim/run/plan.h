/*
 * plan.h - what one run of the simulator is to do: settings, and a list of steps. Made from a seed, or read from a
 * file.
 *
 * Every step carries its own seed for the choices made inside it, so that a plan with steps left out still means
 * something: the shrinker (shrink.h) lives on that. Pure: no machine, no I/O.
 *
 * As text, one line each: "plan 1", then the settings as "name value", then the steps as "kind a b c seed"; "#" begins
 * a comment. Settings that older plans do not have may be left out, and then mean what these did. Files in
 * tests/sim/seeds hold plans in this form, or a lone "seed N".
 */
#ifndef KVS_TESTS_SIM_RUN_PLAN_H
#define KVS_TESTS_SIM_RUN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_STEPS_MAX 512
#define PLAN_CLIENTS   6 /* clients of a run, each with one connection at a time */

enum plan_kind {
    PLAN_WORK,       /* client a begins b operations in style c (enum work_style), details by the seed */
    PLAN_RUN,        /* the machine makes a steps */
    PLAN_SETTLE,     /* faults off for a while: everything begun must come to its end */
    PLAN_ODDS,       /* fault kind a happens b times in a million from now on */
    PLAN_FAULTS_OFF, /* all odds to zero */
    PLAN_FAIL,       /* the bth step of ring kind a fails with errno c */
    PLAN_DISK_SIZE,  /* the disk holds a KiB more than it holds now; 0: no limit */
    PLAN_CLOSE,      /* client a's connection ends: b = 0 in order, 1 at once */
    PLAN_TIME,       /* a milliseconds go by, with the machine running or not */
    PLAN_CLOCK,      /* the wall clock steps by a milliseconds: b = 0 forth, 1 back */
    PLAN_CHECK,      /* faults off; all keys are read and counted and held against the oracle */
    PLAN_CRASH,      /* power loss in mode a (enum sim_crash_mode), then b bits rot, then a boot with c shards */
    PLAN_STOP,       /* an orderly stop (a = 1: at once), then b bits rot, then a boot with c shards */
    PLAN_BACKUP,     /* the node is asked for a backup; a = 0: files cannot be linked */
    PLAN_RESTORE, /* with nothing under way a backup is made, a as above; then a crash, and a boot on it with c shards;
                     b > 0: all keys are taken away when the backup has had its moment */
    PLAN_RELIEF,  /* faults off; the log is filled, every other key deleted, a at a time, or, with b > 0, all keys at
                     once; then writes must be taken */
    PLAN_KIND_COUNT
};

/* What a client does with its keys. */
enum work_style {
    WORK_MIXED,  /* of everything, at once */
    WORK_FILL,   /* one key after the other is written, until a write is refused */
    WORK_REMOVE, /* every other key is deleted, each by a command of its own */
    WORK_CHAINS, /* several operations on one key in one pipeline: writes, deletes, reads */
    WORK_STYLE_COUNT
};

struct plan_step {
    enum plan_kind kind;
    uint32_t a, b, c;
    uint64_t seed;
};

struct plan {
    uint64_t seed;    /* of the machine */
    uint32_t threads; /* shards of the first boot */
    uint32_t segment_kib;
    uint32_t memory_segments; /* budget, in segments a shard */
    uint32_t keys;            /* in all; few, so that they are written often */
    uint32_t value_bytes;     /* typical; some are far larger */
    uint32_t hash_bits;       /* the hash is cut down to this many; 64: whole */
    uint32_t direct_align;    /* 0: no O_DIRECT */
    uint32_t socket_bytes;    /* 0: by chance */
    uint32_t disk_segments;   /* limit of the log: so many more than its shards need at the least; 0: no limit */
    uint32_t preempt_every;   /* threads interrupt each other once in about so many steps through an index; 0: never */
    uint32_t swaps_percent;   /* of what a client does, at most so much looks at a key and changes it in one step */
    uint32_t groups_percent; /* to so much of what clients do, at most, comes as many changes of several keys at once */
    uint32_t scans_percent;  /* … and at most so much asks which keys there are */
    uint32_t flushes_permille; /* of what clients do so much takes all keys away */
    uint32_t step_count;
    struct plan_step steps[PLAN_STEPS_MAX];
};

void plan_make(struct plan *plan, uint64_t seed);
/* Writes at most `size` bytes, ended by NUL, and returns the length it wants. */
size_t plan_print(const struct plan *plan, char *out, size_t size);
/* False: *line tells which one cannot be read. "seed N" makes the plan of that seed. */
bool plan_parse(struct plan *plan, const char *text, unsigned *line);
const char *plan_kind_name(enum plan_kind kind);

#endif
