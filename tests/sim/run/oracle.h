/*
 * oracle.h - what clients were told about every key, and whether it can be true.
 *
 * Each key has a history for each boot of the node: operations with the moments of their beginning and answer
 * (history.h). At the end of a boot, and whenever the clients are idle, the histories must be linearizable from what
 * the key may have held before; what it may hold then is where the next boot begins. So an acknowledged write that a
 * crash takes, a deleted key that comes back, a read that a crash takes back, an old value after a newer one: all of
 * them are histories that cannot be explained.
 *
 * Two kinds of keys. Durable ones are only written durably. Relaxed ones may lose acknowledged writes to a crash, but
 * only a suffix of what their shard's log took in: oracle_judge_prefix.
 *
 * Values tell their key, number and size, and every byte follows from these, so that wrong bytes show by themselves.
 */
#ifndef KVS_TESTS_SIM_RUN_ORACLE_H
#define KVS_TESTS_SIM_RUN_ORACLE_H

#include "base/bytes.h"
#include "history.h"

struct oracle;

#define ORACLE_KEY_BYTES_MAX 2048
#define ORACLE_OP_NONE       UINT32_MAX

struct oracle *oracle_create(unsigned keys, unsigned relaxed_keys, unsigned value_bytes, unsigned value_bytes_max);
void oracle_free(struct oracle *oracle);

/* Keys are numbered; those from 0 to relaxed_keys - 1 are the relaxed ones. */
unsigned oracle_keys(const struct oracle *oracle);
bool oracle_is_relaxed(const struct oracle *oracle, unsigned key);
/* Writes the key's name and returns its size. */
size_t oracle_name(const struct oracle *oracle, unsigned key, uint8_t out[ORACLE_KEY_BYTES_MAX]);
/* The number of the key with this name; breaks the run when there is none. */
unsigned oracle_key_named(const struct oracle *oracle, struct slice name);

/* Whether the story tells everything about this key: KVS_SIM_KEY holds its number. */
bool oracle_is_watched(unsigned key);

/* ---- values ---------------------------------------------------------------------------------------------------- */

/* A new version's number for a key. */
unsigned oracle_version(struct oracle *oracle, unsigned key);
size_t oracle_value_bytes(const struct oracle *oracle, unsigned key, unsigned version);
/* Writes oracle_value_bytes() bytes. */
void oracle_value(const struct oracle *oracle, unsigned key, unsigned version, uint8_t *out);
/* Which version these bytes are; breaks the run (no lies) when they are no value of this key. */
unsigned oracle_recognize(const struct oracle *oracle, unsigned key, struct slice value);

/* ---- histories ------------------------------------------------------------------------------------------------- */

/* A number for this operation, for oracle_end or oracle_leave. `version`: of a write. */
uint32_t oracle_begin(struct oracle *oracle, unsigned key, enum history_kind kind, unsigned version, uint32_t session);
/* A definite answer. `version`: of a read or of what a swap saw, 0 = not there, or not told; `found`: of a remove,
 * exists or swap. */
void oracle_end(struct oracle *oracle, uint32_t op, unsigned version, int found);
/* It was refused, and had no effect. */
void oracle_refuse(struct oracle *oracle, uint32_t op);
/* There will be no definite answer. */
void oracle_leave(struct oracle *oracle, uint32_t op);

/* ---- groups ---------------------------------------------------------------------------------------------------- */

/*
 * Operations that take effect in one step, all or none. Two things follow, beyond what is true of each of them. From
 * the moment at which somebody has seen one of them, or was told that they are done, all have happened: their
 * histories are judged as if each had ended by then. And what a crash leaves of one without an answer is all or
 * nothing: oracle_judge_groups.
 */
void oracle_group(struct oracle *oracle, const uint32_t *ops, unsigned count);
/* Of an operation of a group: the key was there when the group took it, and that is durable. */
void oracle_group_found(struct oracle *oracle, uint32_t op);
/* From now on others may change the key, though nobody knows whether the group is durable. */
void oracle_group_released(struct oracle *oracle, uint32_t op);
/* The group is durable: a crash leaves all of it. */
void oracle_group_durable(struct oracle *oracle, uint32_t op);

/* ---- flushes --------------------------------------------------------------------------------------------------- */

/*
 * A flush removes all keys, relaxed ones, too, in one step and durably. So there is one moment of its own between its
 * beginning and its answer, or the end of the boot: nobody who has seen a key gone that nothing else can have removed
 * finds another one, later, as it was before; and after a crash all keys show that it has happened, or that it has not.
 */
uint32_t oracle_flush_begin(struct oracle *oracle, uint32_t session);
void oracle_flush_end(struct oracle *oracle, uint32_t flush);
/* There will be no definite answer. */
void oracle_flush_leave(struct oracle *oracle, uint32_t flush);

/* The shard that owns a key in this boot, for oracle_judge_prefix. */
void oracle_set_owner(struct oracle *oracle, unsigned key, unsigned shard);

enum oracle_end {
    ORACLE_GOES_ON, /* the node still runs; operations may be under way */
    ORACLE_STOPPED, /* an orderly stop without failures: relaxed writes are as good as durable ones */
    ORACLE_CRASHED,
};

/* Judges every key's history of this boot so far; after an end, begins the next. `calm`: no fault has happened in this
 * boot, so relaxed writes older than their interval are on disk. */
void oracle_judge(struct oracle *oracle, enum oracle_end end, bool calm);
/* After the first full read of a boot, before oracle_judge_prefix: of groups that the boot before left without an
 * answer all changes are there or none. Returns how many it could tell about; *flushes: how many of these. */
unsigned oracle_judge_groups(struct oracle *oracle, unsigned *flushes);
/* After the first full read of a boot: relaxed keys hold a prefix of each shard's log of the boot before. */
void oracle_judge_prefix(struct oracle *oracle);
/* Damage that need not have been noticed has hit this key's latest records: it may now hold any earlier value. */
void oracle_taint(struct oracle *oracle, unsigned key);
/* With no operation under way: whether the key is there; -1 when either may be. */
int oracle_present(const struct oracle *oracle, unsigned key);

#endif
