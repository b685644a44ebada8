/*
 * backup.h - a copy of the store, made while it serves: a data directory of its own, as a power loss at one moment
 * would have left this one.
 *
 *   DIR/backups/.partial  ── whole and durable ──►  DIR/backups/NAME
 *
 * What is sealed will not be written in again, so a backup has it by a second name of the same file (a hard link), or,
 * where there are no links, by its bytes. Of what logs are writing in it has the bytes up to the moment. The list of
 * segments is a manifest of its own; the superblock is this store's, for the seeds of all checksums are made of its
 * UUID.
 *
 * The moment: one between two commits, at which each log was durable up to a known LSN, so that whoever had been
 * acknowledged something by then finds it in the copy, whatever the shard.
 *
 * Two duties of others follow (keeper.h). A segment that a backup still wants (backup_holds) is not used again and not
 * removed. And a file that has a second name is never written in: it is given up, and a new one made.
 *
 * Threading: backup_ask, backup_state on any thread, the latter inside a section; all else is the background's, on its
 * ring, and never waits.
 *
 * Failure: a step that fails ends the backup; what it has made is removed, the store goes on. A crash leaves .partial,
 * which the next backup removes.
 */
#ifndef KVS_ENGINE_BACKUP_H
#define KVS_ENGINE_BACKUP_H

#include "engine/engine.h"

struct backup;
struct keeper;

/* At start-up, and after the background has ended. `ring` as in engine_close; NULL is allowed. */
enum kvs_err backup_open(struct backup **out, struct keeper *keeper);
void backup_close(struct backup *backup, struct ring *ring);

/* See engine_backup_begin; the background is to be woken after it. */
enum kvs_err backup_ask(struct backup *backup, const char *name);
/* See engine_backup_state. */
void backup_state(const struct backup *backup, struct engine_backup_state *out);

/* True as long as the file of this segment must stay as it is. */
bool backup_holds(const struct backup *backup, uint32_t number);

/* Once per turn of the background. */
void backup_turn(struct backup *backup);
/* 0: the turn has something to do at once; -1: nothing by itself. */
int64_t backup_timeout_ns(const struct backup *backup);
/* Gives up the one under way: what it has made stays for the next backup to remove. */
void backup_stop(struct backup *backup);
bool backup_stopped(const struct backup *backup);

#endif
