/*
 * superblock.c - two copies, the older one overwritten.
 *
 * superblock_update: open → write a copy → sync → write the other one → sync.
 *
 * Failure modes: one copy torn or damaged: the other serves, with a warning. Both damaged: CORRUPT, for without the
 * hash seed and the UUID nothing else can be believed. A new store's superblock is written under another name and
 * renamed, so a crash during creation leaves an empty directory rather than half a store.
 */
#include "engine/superblock.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "base/limits.h"
#include "engine/blocking.h"
#include "engine/file_header.h"
#include "engine/log_format.h"

#include <stdio.h>
#include <stdlib.h>

#define SUPERBLOCK_NEW_NAME SUPERBLOCK_NAME ".new"

enum { COPIES = 2 };

/* What every version has: also a program that does not know a later one sees that it is whole. */
#define COMMON_BYTES offsetof(struct superblock, flushed_lsn)

static uint32_t flushed_crc(const struct superblock *superblock)
{
    return file_header_crc(superblock, offsetof(struct superblock, flushed_crc), 0);
}

bool superblock_valid(const struct superblock *superblock)
{
    return superblock->magic == SUPERBLOCK_MAGIC && superblock->crc == file_header_crc(superblock, COMMON_BYTES, 0) &&
           (superblock->version != SUPERBLOCK_VERSION_FLUSHED || superblock->flushed_crc == flushed_crc(superblock));
}

bool superblock_known(const struct superblock *superblock)
{
    return (superblock->version == SUPERBLOCK_VERSION || superblock->version == SUPERBLOCK_VERSION_FLUSHED) &&
           superblock->block_bytes == KVS_BLOCK_BYTES;
}

/* The next one, whole. */
static void seal(struct superblock *superblock)
{
    superblock->magic = SUPERBLOCK_MAGIC;
    superblock->version = superblock->flushed_lsn == 0 ? SUPERBLOCK_VERSION : SUPERBLOCK_VERSION_FLUSHED;
    superblock->block_bytes = KVS_BLOCK_BYTES;
    superblock->sequence++;
    superblock->crc = file_header_crc(superblock, COMMON_BYTES, 0);
    if (superblock->flushed_lsn == 0)
        superblock->flushed_crc = superblock->flushed_reserved = 0;
    else
        superblock->flushed_crc = flushed_crc(superblock);
    KVS_ASSERT(superblock_valid(superblock));
}

static enum kvs_err fail(char message[ENGINE_MESSAGE_BYTES], const char *what, const char *dir_name,
                         const struct ring_op *op)
{
    snprintf(message, ENGINE_MESSAGE_BYTES, "cannot %s %s/" SUPERBLOCK_NAME ": %s", what, dir_name, ring_op_text(op));
    return op->error;
}

static enum kvs_err choose_copy(const uint8_t *blocks, uint64_t bytes, const char *dir_name, struct superblock *out,
                                char message[ENGINE_MESSAGE_BYTES])
{
    bool found = false;
    for (uint64_t i = 0; i < COPIES && (i + 1) * KVS_BLOCK_BYTES <= bytes; i++) {
        struct superblock copy;
        memcpy(&copy, blocks + i * KVS_BLOCK_BYTES, sizeof copy);
        if (!superblock_valid(&copy)) {
            diag_warn("copy %u of %s/" SUPERBLOCK_NAME " is damaged; the other one serves", (unsigned)i, dir_name);
            continue;
        }
        if (!found || copy.sequence > out->sequence)
            *out = copy;
        found = true;
    }
    if (!found) {
        snprintf(message, ENGINE_MESSAGE_BYTES,
                 "both copies in %s/" SUPERBLOCK_NAME
                 " are damaged: this is not a data directory, or its disk has lost it; restore it from a backup",
                 dir_name);
        return KVS_ERR_CORRUPT;
    }
    if (!superblock_known(out)) {
        snprintf(message, ENGINE_MESSAGE_BYTES,
                 "data directory %s has format version %u, this program knows versions %u and %u: use the program that "
                 "wrote it",
                 dir_name, out->version, (unsigned)SUPERBLOCK_VERSION, (unsigned)SUPERBLOCK_VERSION_FLUSHED);
        return KVS_ERR_VERSION;
    }
    if (out->version == SUPERBLOCK_VERSION)
        out->flushed_lsn = out->flushed_crc = out->flushed_reserved = 0;
    return KVS_ERR_OK;
}

enum kvs_err superblock_read(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *out,
                             char message[ENGINE_MESSAGE_BYTES])
{
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(ring, &op, dir_fd, SUPERBLOCK_NAME, RING_OPEN_READ);
    ring_await(ring, &op);
    if (op.error != KVS_ERR_OK)
        return fail(message, "open", dir_name, &op);
    int fd = op.fd;
    uint8_t *blocks = calloc(COPIES, KVS_BLOCK_BYTES);
    enum kvs_err err = KVS_ERR_NO_MEMORY;
    if (blocks == NULL) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "out of memory");
        goto out;
    }
    blocking_init(&op);
    ring_file_read(ring, &op, fd, blocks, (size_t)COPIES * KVS_BLOCK_BYTES, 0);
    ring_await(ring, &op);
    err = op.error != KVS_ERR_OK ? fail(message, "read", dir_name, &op)
                                 : choose_copy(blocks, op.bytes, dir_name, out, message);
out:
    free(blocks);
    ring_close_fd(ring, fd);
    return err;
}

/* Writes one copy into an open file, or both when the file is new, and makes it durable. */
static void write_copies(struct ring *ring, struct ring_op *op, int fd, const struct superblock *superblock, bool new)
{
    new = new || canary_on(CANARY_SUPERBLOCK_BOTH_COPIES);
    uint8_t blocks[COPIES * KVS_BLOCK_BYTES] = {0};
    memcpy(blocks, superblock, sizeof *superblock);
    memcpy(blocks + KVS_BLOCK_BYTES, superblock, sizeof *superblock);
    size_t size = new ? sizeof blocks : KVS_BLOCK_BYTES;
    uint64_t offset = new ? 0 : superblock->sequence % COPIES *KVS_BLOCK_BYTES;
    blocking_init(op);
    ring_file_write(ring, op, fd, blocks, size, offset, 0);
    ring_await(ring, op);
    if (op->error != KVS_ERR_OK || canary_on(CANARY_SUPERBLOCK_NOT_SYNCED))
        return;
    blocking_sync(ring, op, fd);
}

enum kvs_err superblock_write(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *superblock,
                              char message[ENGINE_MESSAGE_BYTES])
{
    bool new = superblock->sequence == 0;
    seal(superblock);
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(ring, &op, dir_fd, new ? SUPERBLOCK_NEW_NAME : SUPERBLOCK_NAME,
                   RING_OPEN_WRITE | (new ? RING_OPEN_CREATE : 0u));
    ring_await(ring, &op);
    if (op.error != KVS_ERR_OK)
        return fail(message, "open", dir_name, &op);
    int fd = op.fd;
    write_copies(ring, &op, fd, superblock, new);
    ring_close_fd(ring, fd);
    if (op.error == KVS_ERR_OK && new) {
        blocking_init(&op);
        ring_file_rename(ring, &op, dir_fd, SUPERBLOCK_NEW_NAME, SUPERBLOCK_NAME);
        ring_await(ring, &op);
    }
    if (op.error == KVS_ERR_OK && new) {
        blocking_sync(ring, &op, dir_fd);
    }
    return op.error == KVS_ERR_OK ? KVS_ERR_OK : fail(message, "write", dir_name, &op);
}

/* ---- without waiting ------------------------------------------------------------------------------------------- */

static void update_step(struct ring_op *op);

static void update_end(struct superblock_update *update)
{
    if (update->fd >= 0)
        ring_close_fd(update->ring, update->fd);
    update->fd = -1;
    free(update->block);
    update->block = NULL;
    update->state = UPDATE_IDLE;
}

static void update_failed(struct superblock_update *update, const char *what)
{
    if (update->written > 0) {
        diag_warn("cannot %s the second copy of " SUPERBLOCK_NAME ": %s; the first one serves", what,
                  ring_op_text(&update->io));
    } else {
        update->error = update->io.error;
        snprintf(update->text, sizeof update->text, "cannot %s " SUPERBLOCK_NAME ": %s", what,
                 ring_op_text(&update->io));
    }
    update_end(update);
}

static void update_write(struct superblock_update *update)
{
    seal(&update->next);
    memset(update->block, 0, KVS_BLOCK_BYTES);
    memcpy(update->block, &update->next, sizeof update->next);
    update->state = UPDATE_WRITE;
    ring_op_init(&update->io, update_step);
    ring_file_write(update->ring, &update->io, update->fd, update->block, KVS_BLOCK_BYTES,
                    update->next.sequence % COPIES * KVS_BLOCK_BYTES, 0);
}

static void update_sync(struct superblock_update *update)
{
    update->state = UPDATE_SYNC;
    ring_op_init(&update->io, update_step);
    ring_file_sync(update->ring, &update->io, update->fd);
}

/* A copy is durable. Of the superblock only what it changes is written: others look at the rest. */
static void update_synced(struct superblock_update *update)
{
    struct superblock *superblock = update->superblock;
    superblock->version = update->next.version;
    superblock->sequence = update->next.sequence;
    superblock->crc = update->next.crc;
    superblock->flushed_lsn = update->next.flushed_lsn;
    superblock->flushed_crc = update->next.flushed_crc;
    if (++update->written < COPIES)
        update_write(update);
    else
        update_end(update);
}

static void update_step(struct ring_op *op)
{
    struct superblock_update *update = container_of(op, struct superblock_update, io);
    const enum superblock_update_state state = update->state;
    if (op->error != KVS_ERR_OK) {
        update_failed(update, state == UPDATE_OPEN ? "open" : state == UPDATE_WRITE ? "write" : "sync");
        return;
    }
    if (state == UPDATE_OPEN) {
        update->fd = op->fd;
        update_write(update);
    } else if (state == UPDATE_WRITE && !canary_on(CANARY_FLUSH_NOT_SYNCED)) {
        update_sync(update);
    } else {
        update_synced(update);
    }
}

enum kvs_err superblock_update_begin(struct superblock_update *update, struct ring *ring, int dir_fd,
                                     struct superblock *superblock, uint64_t flushed_lsn)
{
    KVS_ASSERT(update->state == UPDATE_IDLE && flushed_lsn > superblock->flushed_lsn);
    uint8_t *block = aligned_alloc(KVS_BLOCK_BYTES, KVS_BLOCK_BYTES);
    if (block == NULL)
        return KVS_ERR_NO_MEMORY;
    *update = (struct superblock_update){
        .ring = ring, .superblock = superblock, .next = *superblock, .state = UPDATE_OPEN, .fd = -1, .block = block};
    update->next.flushed_lsn = flushed_lsn;
    ring_op_init(&update->io, update_step);
    ring_file_open(ring, &update->io, dir_fd, SUPERBLOCK_NAME, RING_OPEN_WRITE);
    return KVS_ERR_OK;
}

void superblock_update_deinit(struct superblock_update *update, struct ring *ring)
{
    if (update->state == UPDATE_IDLE)
        return;
    update->ring = ring;
    update_end(update);
}
