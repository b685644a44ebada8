/*
 * manifest.c - the life of the manifest, and its changes.
 *
 * Happy path: manifest_change sets the entry in memory and puts the change into a queue; manifest_turn fills a block
 * from the queue and writes it behind the last one, durably; when that completes its changes are durable, and the next
 * block takes all that was queued meanwhile. Only one block is in flight: a valid one proves that all before it were
 * durable. When three quarters of the room for changes are used, a new file is made (manifest_rewrite.c) while changes
 * go on.
 *
 * The queue is one array with a ticket for each change. While a new file is made it keeps durable changes too, those
 * that the new file has to catch up with.
 *
 * Failure modes: a failed write or sync of a change ends it all: the block may or may not be there after a crash, so
 * nothing may follow it, and it is not tried again. A file without room leaves changes in the queue.
 */
#include "engine/manifest_internal.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/diag.h"
#include "engine/blocking.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- life ------------------------------------------------------------------------------------------------------ */

static struct manifest *create(const struct manifest_options *options)
{
    struct manifest *manifest = calloc(1, sizeof *manifest);
    if (manifest == NULL)
        return NULL;
    manifest->options = *options;
    manifest->ring = options->ring;
    name_sync_init(&manifest->own_names, options->dir_fd);
    if (manifest->options.names == NULL)
        manifest->options.names = &manifest->own_names;
    if (manifest->options.first_sequence == 0)
        manifest->options.first_sequence = 1;
    manifest->seed = crc32c(0, options->store_uuid, 16);
    manifest->file.fd = manifest->rewrite.file.fd = -1;
    manifest->first_ticket = 1;
    atomic_init(&manifest->sequence, 0);
    manifest->block = aligned_alloc(KVS_BLOCK_BYTES, KVS_BLOCK_BYTES);
    manifest->rewrite.chunk = aligned_alloc(KVS_BLOCK_BYTES, MANIFEST_CHUNK_BYTES);
    if (manifest->block == NULL || manifest->rewrite.chunk == NULL) {
        manifest_close(manifest, options->ring);
        return NULL;
    }
    return manifest;
}

enum kvs_err manifest_new(struct manifest **out, const struct manifest_options *options)
{
    *out = create(options);
    return *out != NULL ? KVS_ERR_OK : KVS_ERR_NO_MEMORY;
}

static void remove_unfinished(const struct manifest *manifest)
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_unlink(manifest->ring, &op, manifest->options.dir_fd, MANIFEST_NEW_NAME);
    ring_await(manifest->ring, &op);
    if (op.error != KVS_ERR_OK && op.error != KVS_ERR_NOT_FOUND)
        diag_warn("cannot remove the unfinished %s/" MANIFEST_NEW_NAME ": %s", manifest->options.dir_name,
                  ring_op_text(&op));
}

enum kvs_err manifest_open(struct manifest **out, const struct manifest_options *options,
                           char message[ENGINE_MESSAGE_BYTES])
{
    *out = NULL;
    struct manifest *manifest = create(options);
    if (manifest == NULL) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot open %s/" MANIFEST_NAME ": out of memory", options->dir_name);
        return KVS_ERR_NO_MEMORY;
    }
    enum kvs_err err = manifest_read(manifest, message);
    if (err != KVS_ERR_OK) {
        manifest_close(manifest, options->ring);
        return err;
    }
    if (!options->read_only)
        remove_unfinished(manifest);
    atomic_store(&manifest->sequence, manifest->file.first_sequence + manifest->file.next - 1);
    *out = manifest;
    return KVS_ERR_OK;
}

void manifest_close(struct manifest *manifest, struct ring *ring)
{
    if (manifest == NULL)
        return;
    if (manifest->file.fd >= 0)
        ring_close_fd(ring, manifest->file.fd);
    if (manifest->rewrite.file.fd >= 0)
        ring_close_fd(ring, manifest->rewrite.file.fd);
    manifest_table_deinit(&manifest->table);
    free(manifest->changes);
    free(manifest->block);
    free(manifest->rewrite.chunk);
    free(manifest);
}

void manifest_attach(struct manifest *manifest, struct ring *ring)
{
    KVS_ASSERT(manifest_idle(manifest) && !manifest->options.read_only);
    KVS_ASSERT(manifest->file.fd >= 0);
    manifest->ring = ring;
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

const struct manifest_entry *manifest_find(const struct manifest *manifest, uint32_t number)
{
    return manifest_table_find(&manifest->table, number);
}

void manifest_each(const struct manifest *manifest, void (*each)(void *context, const struct manifest_entry *entry),
                   void *context)
{
    for (uint32_t i = 0; i < manifest->table.page_count; i++) {
        const struct manifest_page *page = manifest->table.pages[i];
        for (uint32_t j = 0; page != NULL && j < MANIFEST_BLOCK_ENTRIES; j++) {
            if (page->entries[j].state != 0)
                each(context, &page->entries[j]);
        }
    }
}

enum kvs_err manifest_set(struct manifest *manifest, const struct manifest_entry *entry)
{
    KVS_ASSERT(manifest_entry_possible(entry));
    KVS_ASSERT(manifest->last_ticket == 0);
    if (entry->state != MANIFEST_GONE && manifest_table_reserve(&manifest->table, entry->number) != KVS_ERR_OK)
        return KVS_ERR_NO_MEMORY;
    manifest_table_apply(&manifest->table, entry);
    return KVS_ERR_OK;
}

enum kvs_err manifest_write(struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES])
{
    manifest_write_begin(manifest);
    while (manifest_writing(manifest))
        ring_turn(manifest->ring, -1);
    manifest->rewrite.blocking = false;
    return manifest_written(manifest, message);
}

void manifest_write_begin(struct manifest *manifest)
{
    KVS_ASSERT(manifest_idle(manifest) && !manifest->failed);
    KVS_ASSERT(!manifest->options.read_only);
    manifest->rewrite.blocking = true;
    manifest_rewrite_start(manifest);
}

bool manifest_writing(const struct manifest *manifest)
{
    return manifest->rewrite.state != REWRITE_IDLE;
}

enum kvs_err manifest_written(const struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES])
{
    KVS_ASSERT(!manifest_writing(manifest));
    const struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->error != KVS_ERR_OK)
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot write %s/" MANIFEST_NAME ": %s", manifest->options.dir_name,
                 rewrite->text);
    return rewrite->error;
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */

static struct manifest_entry *change_at(const struct manifest *manifest, uint64_t ticket)
{
    KVS_ASSERT(ticket >= manifest->first_ticket && ticket <= manifest->last_ticket);
    return &manifest->changes[manifest->change_begin + (size_t)(ticket - manifest->first_ticket)];
}

static enum kvs_err reserve_change(struct manifest *manifest)
{
    if (manifest->change_begin + manifest->change_count < manifest->change_capacity)
        return KVS_ERR_OK;
    if (manifest->change_begin > manifest->change_count) {
        memmove(manifest->changes, manifest->changes + manifest->change_begin,
                manifest->change_count * sizeof *manifest->changes);
        manifest->change_begin = 0;
        return KVS_ERR_OK;
    }
    size_t larger = manifest->change_capacity == 0 ? 64 : manifest->change_capacity * 2;
    struct manifest_entry *changes = realloc(manifest->changes, larger * sizeof *changes);
    if (changes == NULL)
        return KVS_ERR_NO_MEMORY;
    manifest->changes = changes;
    manifest->change_capacity = larger;
    return KVS_ERR_OK;
}

enum kvs_err manifest_change(struct manifest *manifest, const struct manifest_entry *entry, uint64_t *ticket)
{
    KVS_ASSERT(manifest_entry_possible(entry));
    if (manifest->failed)
        return KVS_ERR_FAILED;
    if (reserve_change(manifest) != KVS_ERR_OK ||
        (entry->state != MANIFEST_GONE && manifest_table_reserve(&manifest->table, entry->number) != KVS_ERR_OK))
        return KVS_ERR_NO_MEMORY;
    manifest->changes[manifest->change_begin + manifest->change_count++] = *entry;
    manifest_table_apply(&manifest->table, entry);
    *ticket = ++manifest->last_ticket;
    KVS_ASSERT(manifest->last_ticket == manifest->first_ticket + manifest->change_count - 1);
    return KVS_ERR_OK;
}

void manifest_set_durable(struct manifest *manifest, uint64_t ticket)
{
    KVS_ASSERT(ticket >= manifest->durable && ticket <= manifest->last_ticket);
    manifest->durable = ticket;
    const struct manifest_rewrite *rewrite = &manifest->rewrite;
    bool catching_up = rewrite->state >= REWRITE_ALLOCATE && rewrite->state <= REWRITE_SYNC_DIR;
    uint64_t needed = ticket + 1;
    if (catching_up && rewrite->snapshot_ticket < ticket)
        needed = rewrite->snapshot_ticket + 1;
    KVS_ASSERT(needed >= manifest->first_ticket);
    size_t dropped = (size_t)(needed - manifest->first_ticket);
    manifest->first_ticket = needed;
    manifest->change_count -= dropped;
    manifest->change_begin = manifest->change_count == 0 ? 0 : manifest->change_begin + dropped;
}

bool manifest_durable(const struct manifest *manifest, uint64_t ticket)
{
    return ticket <= manifest->durable;
}

uint64_t manifest_latest(const struct manifest *manifest)
{
    return manifest->last_ticket;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

void manifest_fail(struct manifest *manifest, const char *what, const char *text)
{
    if (manifest->failed)
        return;
    manifest->failed = true;
    snprintf(manifest->failure, sizeof manifest->failure, "cannot %s %s/" MANIFEST_NAME ": %s", what,
             manifest->options.dir_name, text);
    if (manifest->rewrite.blocking)
        return; /* whoever waits for it will say so */
    diag_error("%s; until a restart no segment is entered there and none given up", manifest->failure);
}

uint64_t manifest_block_of_changes(const struct manifest *manifest, uint8_t *block, const struct manifest_file *file,
                                   uint32_t index, uint64_t ticket, uint64_t last)
{
    KVS_ASSERT(ticket <= last);
    uint64_t left = last - ticket + 1;
    uint32_t count = left < MANIFEST_BLOCK_ENTRIES ? (uint32_t)left : MANIFEST_BLOCK_ENTRIES;
    memset(block, 0, KVS_BLOCK_BYTES);
    memcpy(block + sizeof(struct manifest_block), change_at(manifest, ticket), count * sizeof(struct manifest_entry));
    manifest_block_seal(manifest->seed, block, file, index, count);
    return ticket + count;
}

static void write_done(struct ring_op *op)
{
    struct manifest *manifest = container_of(op, struct manifest, io);
    enum manifest_writing was = manifest->writing;
    KVS_ASSERT(was != WRITING_NOTHING);
    if (op->error == KVS_ERR_OK && was == WRITING_BLOCK && manifest->options.sync_after_write) {
        manifest->writing = WRITING_SYNC;
        ring_op_init(&manifest->io, write_done);
        ring_file_sync(manifest->ring, &manifest->io, manifest->file.fd);
        return;
    }
    manifest->writing = WRITING_NOTHING;
    if (op->error != KVS_ERR_OK) {
        manifest_fail(manifest, was == WRITING_SYNC ? "sync" : "write a change to", ring_op_text(op));
    } else {
        manifest->file.next++;
        manifest_set_durable(manifest, manifest->writing_ticket);
        atomic_store(&manifest->sequence, manifest->file.first_sequence + manifest->file.next - 1);
    }
    manifest_rewrite_continue(manifest);
}

static bool may_write(const struct manifest *manifest)
{
    return !manifest->failed && manifest->writing == WRITING_NOTHING && manifest->durable < manifest->last_ticket &&
           manifest->file.next < manifest->file.file_blocks && !manifest_rewrite_holds(manifest);
}

static void write_block(struct manifest *manifest)
{
    const struct manifest_file *file = &manifest->file;
    uint64_t next = manifest_block_of_changes(manifest, manifest->block, file, file->next, manifest->durable + 1,
                                              manifest->last_ticket);
    manifest->writing_ticket = next - 1;
    manifest->writing = WRITING_BLOCK;
    ring_op_init(&manifest->io, write_done);
    ring_file_write(manifest->ring, &manifest->io, file->fd, manifest->block, KVS_BLOCK_BYTES,
                    (uint64_t)file->next * KVS_BLOCK_BYTES,
                    manifest->options.sync_after_write ? 0 : RING_WRITE_DURABLE);
}

/* Nanoseconds until the next attempt at a new file; -1 when none is wanted. */
static int64_t rewrite_due_ns(const struct manifest *manifest)
{
    if (!manifest_rewrite_wanted(manifest))
        return -1;
    uint64_t now = ring_now_ns(manifest->ring);
    return manifest->rewrite.retry_ns > now ? (int64_t)(manifest->rewrite.retry_ns - now) : 0;
}

void manifest_turn(struct manifest *manifest)
{
    KVS_ASSERT(manifest->file.fd >= 0);
    if (may_write(manifest))
        write_block(manifest);
    if (rewrite_due_ns(manifest) == 0)
        manifest_rewrite_start(manifest);
}

int64_t manifest_timeout_ns(const struct manifest *manifest)
{
    if (may_write(manifest))
        return 0;
    /* The attempt in flight may fail while the caller sleeps, and then there is something to do a second later. */
    return manifest->rewrite.state != REWRITE_IDLE ? (int64_t)MANIFEST_RETRY_NS : rewrite_due_ns(manifest);
}

/* ---- its state ------------------------------------------------------------------------------------------------- */

static bool nothing_in_flight(const struct manifest *manifest)
{
    return manifest->writing == WRITING_NOTHING && manifest->rewrite.state == REWRITE_IDLE;
}

bool manifest_idle(const struct manifest *manifest)
{
    return nothing_in_flight(manifest) && (manifest->failed || manifest->durable == manifest->last_ticket);
}

bool manifest_lacks_space(const struct manifest *manifest)
{
    const struct manifest_file *file = &manifest->file;
    uint64_t room = file->file_blocks - file->snapshot_blocks;
    bool wanted = (file->next - file->snapshot_blocks) * 4ull >= room * 3;
    return !manifest->failed && wanted && manifest->rewrite.error == KVS_ERR_NO_SPACE;
}

uint64_t manifest_attempt(const struct manifest *manifest)
{
    return manifest->rewrite.retry_ns;
}

bool manifest_waits_for_space(const struct manifest *manifest)
{
    return !manifest->failed && manifest->durable < manifest->last_ticket &&
           manifest->file.next == manifest->file.file_blocks && manifest->rewrite.error != KVS_ERR_OK;
}

bool manifest_stuck(const struct manifest *manifest)
{
    return nothing_in_flight(manifest) && manifest_waits_for_space(manifest);
}

bool manifest_failed(const struct manifest *manifest)
{
    return manifest->failed;
}

const char *manifest_failure_text(const struct manifest *manifest)
{
    return manifest->failure;
}

uint64_t manifest_sequence(const struct manifest *manifest)
{
    return atomic_load(&manifest->sequence);
}

uint64_t manifest_sequence_end(const struct manifest *manifest)
{
    return manifest->file.first_sequence + manifest->file.file_blocks;
}

uint64_t manifest_bytes(const struct manifest *manifest)
{
    return (uint64_t)manifest->file.file_blocks * KVS_BLOCK_BYTES;
}
