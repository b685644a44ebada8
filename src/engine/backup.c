/*
 * backup.c - being asked for a backup, leading it from stage to stage, and telling what has become of it.
 *
 * Happy path: a shard's thread leaves the name (backup_ask); the background's next turn begins. From there one step
 * follows the other as its operation completes: the directories (backup_place.c), the moment and the set, the runs
 * (backup_runs.c), each segment (backup_set.c, backup_copy.c), the value files, the manifest, the superblock, the name.
 * Then the outcome is published, and the next one may be asked for.
 *
 * Failure modes: see backup.h. The outcome is one block of memory that readers look at inside of their sections; it is
 * taken when the backup begins, so that the end needs none.
 */
#include "engine/backup_internal.h"

#include "base/assert.h"
#include "base/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum kvs_err backup_open(struct backup **out, struct keeper *keeper)
{
    struct backup *backup = calloc(1, sizeof *backup);
    *out = backup;
    if (backup == NULL)
        return KVS_ERR_NO_MEMORY;
    const struct engine *engine = &keeper->store->base;
    const char *place = engine->options.backup_dir;
    backup->keeper = keeper;
    backup->place = place != NULL ? place : BACKUP_PLACE_NAME;
    if (backup->place[0] == '/')
        snprintf(backup->place_text, sizeof backup->place_text, "%s", backup->place);
    else
        snprintf(backup->place_text, sizeof backup->place_text, "%.400s/%.100s", engine->data_dir, backup->place);
    snprintf(backup->partial_text, sizeof backup->partial_text, "%.500s/" BACKUP_PARTIAL_NAME, backup->place_text);
    backup->parent_fd = backup->place_fd = backup->dir_fd = backup->target_fd = -1;
    backup->values_fd = backup->source_fd = -1;
    return KVS_ERR_OK;
}

/* What only the one under way needs. */
static void release(struct backup *backup, struct ring *ring)
{
    backup_place_close(backup, ring);
    if (backup->target_fd >= 0)
        ring_close_fd(ring, backup->target_fd);
    backup->target_fd = -1;
    if (backup->manifest != NULL)
        manifest_close(backup->manifest, ring);
    backup->manifest = NULL;
    for (unsigned i = 0; i < BACKUP_COPY_SLOTS; i++) {
        free(backup->slots[i].buffer);
        backup->slots[i].buffer = NULL;
    }
    if (backup->source_fd >= 0)
        ring_close_fd(ring, backup->source_fd);
    backup->source_fd = -1;
    free(backup->names);
    backup->names = NULL;
    free(backup->runs);
    backup->runs = NULL;
    backup->run_count = backup->run_capacity = 0;
    free(backup->values);
    backup->values = NULL;
    backup->value_count = backup->value_capacity = 0;
}

void backup_close(struct backup *backup, struct ring *ring)
{
    if (backup == NULL)
        return;
    release(backup, ring);
    free(backup->ending);
    free(atomic_load(&backup->outcome));
    free(backup);
}

/* ---- being asked ----------------------------------------------------------------------------------------------- */

bool engine_backup_name_valid(const char *name)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return length > 0 && name[length] == '\0' && length < ENGINE_BACKUP_NAME_BYTES && name[0] != '.';
}

enum kvs_err backup_ask(struct backup *backup, const char *name)
{
    if (!engine_backup_name_valid(name))
        return KVS_ERR_INVALID;
    enum backup_request none = REQUEST_NONE;
    if (!atomic_compare_exchange_strong(&backup->request, &none, REQUEST_COMING))
        return KVS_ERR_AGAIN;
    memcpy(backup->name, name, strlen(name) + 1);
    atomic_store_explicit(&backup->request, REQUEST_MADE, memory_order_release);
    return KVS_ERR_OK;
}

void backup_state(const struct backup *backup, struct engine_backup_state *out)
{
    /* In this order: when none runs, what the latest has left is there. */
    bool running = atomic_load_explicit(&backup->request, memory_order_acquire) != REQUEST_NONE;
    const struct backup_outcome *outcome = atomic_load_explicit(&backup->outcome, memory_order_acquire);
    *out = outcome != NULL ? outcome->state : (struct engine_backup_state){0};
    out->running = running;
}

/* ---- its end --------------------------------------------------------------------------------------------------- */

static void outcome_free(struct epoch_entry *entry)
{
    free(container_of(entry, struct backup_outcome, retired));
}

static void publish(struct backup *backup)
{
    struct backup_outcome *outcome = backup->ending;
    struct backup_outcome *before = atomic_load_explicit(&backup->outcome, memory_order_relaxed);
    struct engine_backup_state *state = &outcome->state;
    if (before != NULL)
        *state = before->state;
    state->ended++;
    state->error = backup->error;
    memcpy(state->name, backup->name, sizeof state->name);
    snprintf(state->text, sizeof state->text, "%s", backup->text);
    if (backup->error == KVS_ERR_OK) {
        uint64_t segment_bytes = backup_store(backup)->segments.segment_bytes;
        snprintf(state->good_path, sizeof state->good_path, "%.440s/%s", backup->place_text, backup->name);
        state->good_moment_ms = backup->moment_ms;
        state->good_took_ns = ring_now_ns(backup->ring) - backup->begun_ns;
        state->good_bytes = backup->segments * segment_bytes + backup->other_bytes;
        state->good_copied_bytes = (backup->segments - backup->linked) * segment_bytes + backup->copied_bytes;
    }
    backup->ending = NULL;
    atomic_store_explicit(&backup->outcome, outcome, memory_order_release);
    if (before != NULL)
        epoch_defer(&backup->keeper->base.thread, &before->retired, outcome_free);
}

void backup_end(struct backup *backup)
{
    KVS_ASSERT(backup->slots_busy == 0 && !ring_op_active(&backup->io));
    backup->stage = BACKUP_IDLE;
    store_values_hold(backup_store(backup), false);
    release(backup, backup->ring);
    publish(backup);
    const struct engine_backup_state *state = &atomic_load(&backup->outcome)->state;
    if (state->error == KVS_ERR_OK)
        diag_info("backup %s is complete: %llu MiB, %llu MiB of it copied, in %.1f s", state->good_path,
                  (unsigned long long)(state->good_bytes >> 20), (unsigned long long)(state->good_copied_bytes >> 20),
                  (double)state->good_took_ns / 1e9);
    else
        diag_warn("backup '%s' has failed: %s", state->name, state->text);
    atomic_store_explicit(&backup->request, REQUEST_NONE, memory_order_release);
}

static void note_error(struct backup *backup, enum kvs_err error, const char *format, va_list arguments)
{
    KVS_ASSERT(error != KVS_ERR_OK && backup->error == KVS_ERR_OK);
    vsnprintf(backup->text, sizeof backup->text, format, arguments);
    backup->error = error;
}

void backup_note_error(struct backup *backup, enum kvs_err error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    note_error(backup, error, format, arguments);
    va_end(arguments);
}

void backup_fail(struct backup *backup, enum kvs_err error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    note_error(backup, error, format, arguments);
    va_end(arguments);
    backup_undo(backup);
}

/* ---- from stage to stage --------------------------------------------------------------------------------------- */

/* Whatever comes next, a descriptor that was opened has its place. */
static void keep_fd(struct backup *backup)
{
    int fd = backup->io.fd;
    if (backup->io.error != KVS_ERR_OK)
        return;
    if (backup->stage == BACKUP_OPEN_PARENT)
        backup->parent_fd = fd;
    else if (backup->stage == BACKUP_OPEN_PLACE)
        backup->place_fd = fd;
    else if (backup->stage == BACKUP_OPEN_DIR)
        backup->dir_fd = fd;
    else if (backup->stage == BACKUP_OPEN_VALUES)
        backup->values_fd = fd;
    else if (backup->stage == BACKUP_OPEN_FILE)
        backup->source_fd = fd;
    else if (backup->stage == BACKUP_CREATE || backup->stage == BACKUP_CREATE_FILE ||
             backup->stage == BACKUP_OPEN_SUPERBLOCK)
        backup->target_fd = fd;
    else if (backup->stage == BACKUP_LOOK)
        ring_close_fd(backup->ring, fd); /* that it is there is all that was asked */
}

/* What has its name by now is a backup like others. */
bool backup_given_up(struct backup *backup)
{
    if (!backup->stopping || backup->renamed || backup->stage == BACKUP_RENAME)
        return false;
    if (backup->error == KVS_ERR_OK) {
        backup->error = KVS_ERR_CANCELLED;
        snprintf(backup->text, sizeof backup->text, "the node stops");
    }
    backup_end(backup);
    return true;
}

void backup_step_done(struct ring_op *op)
{
    struct backup *backup = container_of(op, struct backup, io);
    enum backup_stage stage = backup->stage;
    KVS_ASSERT(stage != BACKUP_IDLE && stage != BACKUP_COPY);
    keep_fd(backup);
    if (backup_given_up(backup))
        return;
    if (stage >= BACKUP_LINK && stage <= BACKUP_ALLOCATE)
        backup_set_step(backup);
    else if (stage == BACKUP_SYNC)
        backup_copy_step(backup);
    else if (stage >= BACKUP_LINK_FILE && stage <= BACKUP_SYNC_FILE)
        backup_file_step(backup);
    else if (stage == BACKUP_REMOVE_RUN)
        backup_runs_step(backup);
    else if (stage == BACKUP_SYNC_VALUES)
        backup_values_step(backup);
    else
        backup_place_step(backup);
}

static bool take_memory(struct backup *backup)
{
    backup->ending = calloc(1, sizeof *backup->ending);
    backup->names = calloc(BACKUP_NAMES_MAX, sizeof *backup->names);
    bool all = backup->ending != NULL && backup->names != NULL;
    for (unsigned i = 0; i < BACKUP_COPY_SLOTS; i++) {
        struct backup_slot *slot = &backup->slots[i];
        slot->backup = backup;
        slot->buffer = aligned_alloc(KVS_BLOCK_BYTES, BACKUP_CHUNK_BYTES);
        all = all && slot->buffer != NULL;
    }
    return all;
}

static void begin(struct backup *backup)
{
    backup->ring = backup->keeper->ring;
    backup->error = KVS_ERR_OK;
    backup->text[0] = '\0';
    backup->begun_ns = ring_now_ns(backup->ring);
    backup->place_made = backup->renamed = backup->target_buffered = false;
    backup->name_count = 0;
    store_values_hold(backup_store(backup), true);
    backup->segments = backup->linked = backup->other_bytes = backup->copied_bytes = 0;
    if (take_memory(backup)) {
        backup_place_begin(backup);
        return;
    }
    /* Again at a later turn: to say that it has failed takes memory, too. */
    store_values_hold(backup_store(backup), false);
    free(backup->ending);
    backup->ending = NULL;
    release(backup, backup->ring);
}

void backup_turn(struct backup *backup)
{
    if (backup->stage == BACKUP_IDLE && !backup->stopping &&
        atomic_load_explicit(&backup->request, memory_order_acquire) == REQUEST_MADE)
        begin(backup);
    bool waits = backup->stage == BACKUP_MOMENT || backup->stage == BACKUP_ENTER ||
                 (backup->stage == BACKUP_MANIFEST && !manifest_writing(backup->manifest));
    if (!waits || backup_given_up(backup))
        return;
    if (backup->stage == BACKUP_MOMENT)
        backup_moment(backup);
    if (backup->stage == BACKUP_ENTER)
        backup_entered(backup);
    else if (backup->stage == BACKUP_MANIFEST)
        backup_listed(backup);
}

int64_t backup_timeout_ns(const struct backup *backup)
{
    return backup->stage == BACKUP_MOMENT ? 0 : -1;
}

void backup_stop(struct backup *backup)
{
    backup->stopping = true;
}

bool backup_stopped(const struct backup *backup)
{
    return backup->stage == BACKUP_IDLE;
}
