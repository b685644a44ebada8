/*
 * manifest_rewrite.c - making a new file, a chain of asynchronous steps:
 *
 *   remove what is left → open manifest.new → allocate → write snapshot and zeros → sync
 *   → hold changes back → catch up → sync → rename → sync directory → the new file counts
 *
 * All blocks are written before the file is used, so that a durable write of a change later need not commit the file
 * system's journal. Changes go on in the old file meanwhile. The snapshot is written page by page from the entries as
 * they are then; all changes since it was begun are kept, and the new file gets them, in order, as its first changes.
 * So what it says is exactly what the entries were when it caught up: an entry that changed in between is set right by
 * its change, the others were the same all the time.
 *
 * From before the catching up until the directory is synced no write of a change is started. So both files know
 * everything that is durable while a crash could leave either of them under the name. What was queued when the new file
 * caught up is durable with the switch; what is queued since goes on in the new file.
 *
 * Sequences begin above all that the old file has room for. Those of the new file are published after the switch, so a
 * batch never carries one of a file that a crash could take back.
 *
 * Failure modes:
 *   - A step up to the rename: the unfinished file is removed, changes go on in the old one, and after a second all is
 * tried again, with a new file: nothing that failed to be written or synced is ever used.
 *   - The rename: that the unfinished file could be removed under its old name shows that nothing was renamed. Else
 * nobody knows which file counts, and the manifest has failed.
 *   - The sync of the directory, this one or another's meanwhile: the same.
 *   - More changes while the file was made than fit in half of its room: once more, with more room.
 */
#include "engine/manifest_internal.h"

#include "base/assert.h"
#include "base/diag.h"

#include <stdio.h>

/* Blocks for changes that a file gets by experience: 4 GiB. */
enum { ROOM_MIN_MAX = 1 << 20 };

static void step_done(struct ring_op *op);

static const char *step_text(enum manifest_rewriting state)
{
    static const char *const texts[] = {
        [REWRITE_REMOVE] = "removing an old " MANIFEST_NEW_NAME,
        [REWRITE_OPEN] = "creating " MANIFEST_NEW_NAME,
        [REWRITE_ALLOCATE] = "reserving space",
        [REWRITE_WRITE] = "writing",
        [REWRITE_SYNC] = "syncing",
        [REWRITE_CATCH_UP] = "writing the latest changes",
        [REWRITE_SYNC_AGAIN] = "syncing the latest changes",
        [REWRITE_RENAME] = "renaming " MANIFEST_NEW_NAME,
        [REWRITE_SYNC_DIR] = "syncing the directory",
    };
    KVS_ASSERT(state < ARRAY_COUNT(texts) && texts[state] != NULL);
    return texts[state];
}

static void begin_step(struct manifest *manifest, enum manifest_rewriting state)
{
    manifest->rewrite.state = state;
    ring_op_init(&manifest->rewrite.io, step_done);
}

bool manifest_rewrite_holds(const struct manifest *manifest)
{
    const struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->state == REWRITE_UNDO)
        return rewrite->failed_in == REWRITE_RENAME;
    return rewrite->state >= REWRITE_HOLD && rewrite->state <= REWRITE_SYNC_DIR;
}

bool manifest_rewrite_wanted(const struct manifest *manifest)
{
    const struct manifest_file *file = &manifest->file;
    if (manifest->failed || manifest->rewrite.state != REWRITE_IDLE || file->fd < 0)
        return false;
    KVS_ASSERT(file->next >= file->snapshot_blocks && file->next <= file->file_blocks);
    uint64_t room = file->file_blocks - file->snapshot_blocks;
    uint64_t used = file->next - file->snapshot_blocks;
    return used * 4 >= room * 3;
}

/* ---- failure --------------------------------------------------------------------------------------------------- */

static void end_attempt(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->file.fd >= 0)
        ring_close_fd(manifest->ring, rewrite->file.fd);
    rewrite->file.fd = -1;
    rewrite->state = REWRITE_IDLE;
    rewrite->retry_ns = ring_now_ns(manifest->ring) + MANIFEST_RETRY_NS;
    manifest_set_durable(manifest, manifest->durable);
}

static void undo(struct manifest *manifest)
{
    manifest->rewrite.failed_in = manifest->rewrite.state;
    begin_step(manifest, REWRITE_UNDO);
    ring_file_unlink(manifest->ring, &manifest->rewrite.io, manifest->options.dir_fd, MANIFEST_NEW_NAME);
}

static void undone(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->failed_in == REWRITE_RENAME && rewrite->io.error != KVS_ERR_OK)
        manifest_fail(manifest, "make a new", rewrite->text);
    end_attempt(manifest);
}

static void fail_step(struct manifest *manifest, enum kvs_err error, const char *text)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    bool known = rewrite->error == error && rewrite->failed_in == rewrite->state;
    snprintf(rewrite->text, sizeof rewrite->text, "%s: %s", step_text(rewrite->state), text);
    if (!known && !rewrite->blocking && rewrite->state != REWRITE_SYNC_DIR)
        diag_warn("cannot make a new %s/" MANIFEST_NAME
                  ": %s; the old one serves while it has room, trying again every "
                  "second",
                  manifest->options.dir_name, rewrite->text);
    rewrite->error = error;
    if (rewrite->state == REWRITE_SYNC_DIR) {
        manifest_fail(manifest, "make a new", rewrite->text);
        rewrite->failed_in = REWRITE_SYNC_DIR;
        end_attempt(manifest);
    } else if (rewrite->state == REWRITE_REMOVE || rewrite->state == REWRITE_OPEN) {
        rewrite->failed_in = rewrite->state;
        end_attempt(manifest);
    } else {
        undo(manifest);
    }
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

/* The moment of the snapshot: what it covers, and how large the file becomes. */
static void begin_snapshot(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    const struct manifest_file *old = &manifest->file;
    uint32_t blocks = manifest_table_mark(&manifest->table);
    if (blocks == 0)
        blocks = 1;
    uint64_t room = blocks > MANIFEST_ROOM_MIN ? blocks : MANIFEST_ROOM_MIN;
    if (room < rewrite->room_min)
        room = rewrite->room_min;
    rewrite->file.first_sequence = old->fd < 0 ? manifest->options.first_sequence : manifest_sequence_end(manifest);
    rewrite->file.snapshot_blocks = blocks;
    rewrite->file.file_blocks = (uint32_t)(blocks + room);
    rewrite->file.next = blocks;
    rewrite->written = 0;
    rewrite->page = 0;
    rewrite->snapshot_ticket = manifest->last_ticket;
    begin_step(manifest, REWRITE_ALLOCATE);
    ring_file_allocate(manifest->ring, &rewrite->io, rewrite->file.fd,
                       (uint64_t)rewrite->file.file_blocks * KVS_BLOCK_BYTES);
}

static void fill_snapshot_block(struct manifest *manifest, uint8_t *block, uint32_t index)
{
    const struct manifest_page *page = manifest_table_next_marked(&manifest->table, &manifest->rewrite.page);
    struct manifest_entry *out = (void *)(block + sizeof(struct manifest_block));
    uint32_t count = 0;
    for (uint32_t i = 0; page != NULL && i < MANIFEST_BLOCK_ENTRIES; i++) {
        if (page->entries[i].state != 0)
            out[count++] = page->entries[i];
    }
    manifest_block_seal(manifest->seed, block, &manifest->rewrite.file, index, count);
}

static void write_chunk(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    uint32_t left = rewrite->file.file_blocks - rewrite->written;
    uint32_t count = left < MANIFEST_CHUNK_BLOCKS ? left : MANIFEST_CHUNK_BLOCKS;
    size_t bytes = (size_t)count * KVS_BLOCK_BYTES;
    memset(rewrite->chunk, 0, bytes);
    for (uint32_t i = 0; i < count && rewrite->written + i < rewrite->file.snapshot_blocks; i++)
        fill_snapshot_block(manifest, rewrite->chunk + (size_t)i * KVS_BLOCK_BYTES, rewrite->written + i);
    begin_step(manifest, REWRITE_WRITE);
    ring_file_write(manifest->ring, &rewrite->io, rewrite->file.fd, rewrite->chunk, bytes,
                    (uint64_t)rewrite->written * KVS_BLOCK_BYTES, 0);
    rewrite->written += count;
}

static void rename_file(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    name_change_begin(&rewrite->naming, manifest->options.names);
    begin_step(manifest, REWRITE_RENAME);
    ring_file_rename(manifest->ring, &rewrite->io, manifest->options.dir_fd, MANIFEST_NEW_NAME, MANIFEST_NAME);
}

/* Writes changes up to the one at which they are held, as many as fit in the chunk; then goes on. */
static void catch_up(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->snapshot_ticket == rewrite->held_ticket) {
        begin_step(manifest, REWRITE_SYNC_AGAIN);
        ring_file_sync(manifest->ring, &rewrite->io, rewrite->file.fd);
        return;
    }
    uint32_t first = rewrite->file.next;
    size_t bytes = 0;
    while (rewrite->snapshot_ticket < rewrite->held_ticket && bytes < MANIFEST_CHUNK_BYTES) {
        uint64_t next = manifest_block_of_changes(manifest, rewrite->chunk + bytes, &rewrite->file, rewrite->file.next,
                                                  rewrite->snapshot_ticket + 1, rewrite->held_ticket);
        rewrite->snapshot_ticket = next - 1;
        rewrite->file.next++;
        bytes += KVS_BLOCK_BYTES;
    }
    begin_step(manifest, REWRITE_CATCH_UP);
    ring_file_write(manifest->ring, &rewrite->io, rewrite->file.fd, rewrite->chunk, bytes,
                    (uint64_t)first * KVS_BLOCK_BYTES, 0);
}

void manifest_rewrite_continue(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (rewrite->state != REWRITE_HOLD || manifest->writing != WRITING_NOTHING)
        return;
    if (manifest->failed) {
        undo(manifest);
        return;
    }
    rewrite->held_ticket = manifest->last_ticket;
    KVS_ASSERT(rewrite->held_ticket >= rewrite->snapshot_ticket);
    uint64_t changes = rewrite->held_ticket - rewrite->snapshot_ticket;
    uint64_t blocks = (changes + MANIFEST_BLOCK_ENTRIES - 1) / MANIFEST_BLOCK_ENTRIES;
    if (blocks > (rewrite->file.file_blocks - rewrite->file.snapshot_blocks) / 2) {
        rewrite->room_min = blocks < ROOM_MIN_MAX / 4 ? blocks * 4 : ROOM_MIN_MAX;
        end_attempt(manifest);
        manifest_rewrite_start(manifest);
    } else if (blocks == 0) {
        rename_file(manifest);
    } else {
        catch_up(manifest);
    }
}

static void finish(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (manifest->file.fd >= 0)
        ring_close_fd(manifest->ring, manifest->file.fd);
    if (rewrite->error != KVS_ERR_OK && !rewrite->blocking)
        diag_info("a new %s/" MANIFEST_NAME " could be made again", manifest->options.dir_name);
    manifest->file = rewrite->file;
    rewrite->file.fd = -1;
    rewrite->state = REWRITE_IDLE;
    rewrite->error = KVS_ERR_OK;
    rewrite->room_min = 0;
    rewrite->retry_ns = 0;
    KVS_ASSERT(manifest->writing == WRITING_NOTHING);
    manifest_set_durable(manifest, rewrite->held_ticket);
    atomic_store(&manifest->sequence, manifest->file.first_sequence + manifest->file.next - 1);
}

static void named(struct name_change *change)
{
    struct manifest *manifest = container_of(change, struct manifest, rewrite.naming);
    KVS_ASSERT(manifest->rewrite.state == REWRITE_SYNC_DIR && !manifest->failed);
    if (change->error != KVS_ERR_OK)
        fail_step(manifest, change->error, change->text);
    else
        finish(manifest);
}

/* The step in flight has gone well. */
static void next_step(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    switch (rewrite->state) {
    case REWRITE_REMOVE:
        begin_step(manifest, REWRITE_OPEN);
        ring_file_open(manifest->ring, &rewrite->io, manifest->options.dir_fd, MANIFEST_NEW_NAME,
                       RING_OPEN_READ | RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE |
                           (manifest->options.direct ? RING_OPEN_DIRECT : 0u));
        break;
    case REWRITE_OPEN:
        rewrite->file.fd = rewrite->io.fd;
        begin_snapshot(manifest);
        break;
    case REWRITE_ALLOCATE:
        write_chunk(manifest);
        break;
    case REWRITE_WRITE:
        if (rewrite->written < rewrite->file.file_blocks) {
            write_chunk(manifest);
            break;
        }
        begin_step(manifest, REWRITE_SYNC);
        ring_file_sync(manifest->ring, &rewrite->io, rewrite->file.fd);
        break;
    case REWRITE_SYNC:
        rewrite->state = REWRITE_HOLD;
        manifest_rewrite_continue(manifest);
        break;
    case REWRITE_CATCH_UP:
        catch_up(manifest);
        break;
    case REWRITE_SYNC_AGAIN:
        rename_file(manifest);
        break;
    case REWRITE_RENAME:
        rewrite->state = REWRITE_SYNC_DIR;
        name_change_sync(&rewrite->naming, manifest->ring, named);
        break;
    default:
        KVS_ASSERT(false);
        break;
    }
}

static void step_done(struct ring_op *op)
{
    struct manifest *manifest = container_of(op, struct manifest, rewrite.io);
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    KVS_ASSERT(rewrite->state != REWRITE_IDLE && rewrite->state != REWRITE_HOLD);
    if (rewrite->state == REWRITE_UNDO) {
        undone(manifest);
    } else if (op->error != KVS_ERR_OK && !(rewrite->state == REWRITE_REMOVE && op->error == KVS_ERR_NOT_FOUND)) {
        fail_step(manifest, op->error, ring_op_text(op));
    } else if (manifest->failed && rewrite->state == REWRITE_OPEN) {
        rewrite->file.fd = op->fd;
        undo(manifest);
    } else if (manifest->failed) {
        undo(manifest);
    } else {
        next_step(manifest);
    }
}

void manifest_rewrite_start(struct manifest *manifest)
{
    KVS_ASSERT(manifest->rewrite.state == REWRITE_IDLE && manifest->rewrite.file.fd < 0);
    KVS_ASSERT(!manifest->failed);
    begin_step(manifest, REWRITE_REMOVE);
    ring_file_unlink(manifest->ring, &manifest->rewrite.io, manifest->options.dir_fd, MANIFEST_NEW_NAME);
}
