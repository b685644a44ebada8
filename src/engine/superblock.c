/*
 * superblock.c - two copies, the older one overwritten.
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

bool superblock_valid(const struct superblock *superblock)
{
    return superblock->magic == SUPERBLOCK_MAGIC &&
           superblock->crc == file_header_crc(superblock, sizeof *superblock, 0);
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
    if (out->version != FORMAT_VERSION || out->block_bytes != KVS_BLOCK_BYTES) {
        snprintf(
            message, ENGINE_MESSAGE_BYTES,
            "data directory %s has format version %u, this program knows version %u: use the program that wrote it",
            dir_name, out->version, FORMAT_VERSION);
        return KVS_ERR_VERSION;
    }
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
    superblock->magic = SUPERBLOCK_MAGIC;
    superblock->version = FORMAT_VERSION;
    superblock->block_bytes = KVS_BLOCK_BYTES;
    superblock->sequence++;
    superblock->crc = file_header_crc(superblock, sizeof *superblock, 0);
    KVS_ASSERT(superblock_valid(superblock));

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
