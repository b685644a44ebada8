/*
 * manifest_read.c - the blocks of the manifest, and reading a file of them.
 *
 *   block 0 … snapshot_blocks - 1      the snapshot: all of it must be valid
 *   … end - 1                          changes, in order
 *   end … file_blocks - 1              zeros; at `end` maybe a torn block
 *
 * A block is authentic when magic and checksum are right, and valid when it also stands in its place in this file:
 * index, sequence and sizes agree with the first block. The first block behind the snapshot that is not valid is the
 * end. Blocks are written one at a time, each after the one before it was durable: an authentic block from there on,
 * with a sequence that the file has not reached, proves that the block at the end was durable once and is damaged.
 *
 * Behind a page cache, what is read need not be what the disk holds: a sync that failed in an earlier process has left
 * its pages looking clean, and what was on its way when that process died may still be on its way. So the file is
 * synced and dropped from the cache before it is read; and the directory is synced, because the name too may be one
 * that only the cache knows.
 *
 * Failure modes: every way for a file to be wrong is CORRUPT, with the offset; a block of another version is VERSION.
 * Counts are checked before they are used; nothing is allocated by what the file says but pages, for numbers in range.
 */
#include "engine/manifest_internal.h"

#include "base/assert.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/file_header.h"

#include <inttypes.h>
#include <stdio.h>

#define REMEDY "restore a backup of it, or use kvs-check --salvage"

/* So that no sum of a sequence and a number of blocks overflows. */
#define SEQUENCE_MAX (UINT64_MAX / 2)

struct reader {
    struct manifest *manifest;
    char *message;
    uint64_t size; /* bytes of the file */
    bool ended;    /* at file.next */
    bool torn;     /* and something stands there */
};

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

uint32_t manifest_block_crc(uint32_t seed, const void *block)
{
    return file_header_crc(block, KVS_BLOCK_BYTES, seed);
}

void manifest_block_seal(uint32_t seed, void *block, const struct manifest_file *file, uint32_t index, uint32_t count)
{
    KVS_ASSERT(index < file->file_blocks && count <= MANIFEST_BLOCK_ENTRIES);
    struct manifest_block *head = block;
    *head = (struct manifest_block){.magic = MANIFEST_MAGIC,
                                    .version = MANIFEST_VERSION,
                                    .sequence = file->first_sequence + index,
                                    .index = index,
                                    .snapshot_blocks = file->snapshot_blocks,
                                    .file_blocks = file->file_blocks,
                                    .count = count};
    head->crc = manifest_block_crc(seed, block);
}

bool manifest_entry_possible(const struct manifest_entry *entry)
{
    if (entry->number >= MANIFEST_SEGMENTS_MAX || entry->kind > SEGMENT_RELOCATED)
        return false;
    bool used = entry->state == MANIFEST_LIVE || entry->state == MANIFEST_SEALED;
    return used ? entry->kind != 0 : entry->state == MANIFEST_FREE || entry->state == MANIFEST_GONE;
}

static bool is_authentic(const struct manifest *manifest, const struct manifest_block *head)
{
    return head->magic == MANIFEST_MAGIC && head->crc == manifest_block_crc(manifest->seed, head);
}

static bool is_in_place(const struct manifest_file *file, const struct manifest_block *head, uint32_t index)
{
    return head->index == index && head->sequence == file->first_sequence + index &&
           head->snapshot_blocks == file->snapshot_blocks && head->file_blocks == file->file_blocks;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, KVS_BLOCK_BYTES - 1) == 0;
}

/* ---- complaints ------------------------------------------------------------------------------------------------ */

static enum kvs_err damaged(const struct reader *reader, uint64_t index, const char *what)
{
    snprintf(reader->message, ENGINE_MESSAGE_BYTES,
             "%s/" MANIFEST_NAME " is damaged at offset %" PRIu64
             ": %s. Nothing was changed. Its list of segments cannot "
             "be trusted: " REMEDY,
             reader->manifest->options.dir_name, index * KVS_BLOCK_BYTES, what);
    return KVS_ERR_CORRUPT;
}

static enum kvs_err unknown_version(const struct reader *reader, const struct manifest_block *head, uint32_t index)
{
    snprintf(reader->message, ENGINE_MESSAGE_BYTES,
             "%s/" MANIFEST_NAME " has format version %u at offset %" PRIu64
             ", this program knows version %u: use the program that wrote it",
             reader->manifest->options.dir_name, head->version, (uint64_t)index * KVS_BLOCK_BYTES, MANIFEST_VERSION);
    return KVS_ERR_VERSION;
}

static enum kvs_err cannot(const struct reader *reader, const char *what, enum kvs_err err, const char *text)
{
    snprintf(reader->message, ENGINE_MESSAGE_BYTES, "cannot %s %s/" MANIFEST_NAME ": %s", what,
             reader->manifest->options.dir_name, text);
    return err;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static enum kvs_err take_first(const struct reader *reader, const struct manifest_block *head)
{
    struct manifest_file *file = &reader->manifest->file;
    if (!is_authentic(reader->manifest, head))
        return damaged(reader, 0, "the first block is not whole, or of another store");
    if (head->version != MANIFEST_VERSION)
        return unknown_version(reader, head, 0);
    if (head->index != 0 || head->sequence == 0 || head->sequence > SEQUENCE_MAX || head->snapshot_blocks == 0 ||
        head->snapshot_blocks > head->file_blocks)
        return damaged(reader, 0, "the first block has impossible numbers");
    if ((uint64_t)head->file_blocks * KVS_BLOCK_BYTES != reader->size)
        return damaged(reader, reader->size / KVS_BLOCK_BYTES, "the file has another size than its first block says");
    file->first_sequence = head->sequence;
    file->snapshot_blocks = head->snapshot_blocks;
    file->file_blocks = head->file_blocks;
    return KVS_ERR_OK;
}

static enum kvs_err take_entries(const struct reader *reader, const struct manifest_block *head, uint32_t index)
{
    if (head->count > MANIFEST_BLOCK_ENTRIES)
        return damaged(reader, index, "the block counts more entries than it can have");
    const struct manifest_entry *entries = (const void *)(head + 1);
    for (uint32_t i = 0; i < head->count; i++) {
        const struct manifest_entry *entry = &entries[i];
        bool gone = entry->state == MANIFEST_GONE;
        if (!manifest_entry_possible(entry) || (gone && index < head->snapshot_blocks))
            return damaged(reader, index, "the block has an impossible entry");
        if (!gone && manifest_table_reserve(&reader->manifest->table, entry->number) != KVS_ERR_OK)
            return cannot(reader, "read", KVS_ERR_NO_MEMORY, kvs_err_text(KVS_ERR_NO_MEMORY));
        manifest_table_apply(&reader->manifest->table, entry);
    }
    return KVS_ERR_OK;
}

/* At or behind the end: see the head of this file. */
static enum kvs_err take_rest(struct reader *reader, const struct manifest_block *head, uint32_t index)
{
    const struct manifest_file *file = &reader->manifest->file;
    if (index == file->next)
        reader->torn = !is_zero((const void *)head);
    if (!is_authentic(reader->manifest, head) || head->sequence < file->first_sequence + file->next)
        return KVS_ERR_OK;
    if (index == file->next)
        return damaged(reader, index, "the block that stands there belongs elsewhere, and was written after it");
    char what[128];
    snprintf(what, sizeof what, "the block is not whole, and the one at offset %" PRIu64 " was written after it",
             (uint64_t)index * KVS_BLOCK_BYTES);
    return damaged(reader, file->next, what);
}

static enum kvs_err take_block(struct reader *reader, const void *block, uint32_t index)
{
    struct manifest *manifest = reader->manifest;
    const struct manifest_block *head = block;
    enum kvs_err err = index == 0 ? take_first(reader, head) : KVS_ERR_OK;
    if (err != KVS_ERR_OK || reader->ended)
        return err == KVS_ERR_OK ? take_rest(reader, head, index) : err;
    KVS_ASSERT(index == manifest->file.next);
    bool authentic = is_authentic(manifest, head);
    /* One with a lower sequence means nothing here, whatever wrote it. */
    bool current = authentic && head->sequence >= manifest->file.first_sequence + index;
    if (current && head->version != MANIFEST_VERSION)
        return unknown_version(reader, head, index);
    if (current && is_in_place(&manifest->file, head, index)) {
        manifest->file.next = index + 1;
        return take_entries(reader, head, index);
    }
    if (index < manifest->file.snapshot_blocks)
        return damaged(reader, index, "the block, a part of the snapshot, is not whole");
    reader->ended = true;
    return take_rest(reader, head, index);
}

static enum kvs_err read_blocks(struct reader *reader)
{
    struct manifest *manifest = reader->manifest;
    uint64_t blocks = reader->size / KVS_BLOCK_BYTES;
    if (blocks == 0)
        return damaged(reader, 0, "the file is cut short");
    for (uint64_t at = 0; at < blocks; at += MANIFEST_CHUNK_BLOCKS) {
        uint64_t count = blocks - at < MANIFEST_CHUNK_BLOCKS ? blocks - at : MANIFEST_CHUNK_BLOCKS;
        size_t bytes = (size_t)count * KVS_BLOCK_BYTES;
        struct ring_op op;
        blocking_init(&op);
        ring_file_read(manifest->ring, &op, manifest->file.fd, manifest->rewrite.chunk, bytes, at * KVS_BLOCK_BYTES);
        ring_await(manifest->ring, &op);
        if (op.error != KVS_ERR_OK)
            return cannot(reader, "read", op.error, ring_op_text(&op));
        if (op.bytes < bytes)
            return damaged(reader, at + op.bytes / KVS_BLOCK_BYTES, "the file is cut short");
        for (uint64_t i = 0; i < count; i++) {
            enum kvs_err err = take_block(reader, manifest->rewrite.chunk + i * KVS_BLOCK_BYTES, (uint32_t)(at + i));
            if (err != KVS_ERR_OK)
                return err;
        }
    }
    return KVS_ERR_OK;
}

static enum kvs_err get_size(struct reader *reader)
{
    const struct manifest *manifest = reader->manifest;
    struct ring_file_info info;
    enum kvs_err err = ring_file_info(manifest->ring, manifest->file.fd, &info);
    if (err != KVS_ERR_OK)
        return cannot(reader, "get the size of", err, kvs_err_text(err));
    reader->size = info.size;
    return KVS_ERR_OK;
}

/* What will be read is what the disk holds, under a name that stays. */
static enum kvs_err settle(const struct reader *reader)
{
    const struct manifest *manifest = reader->manifest;
    struct ring_op op;
    blocking_init(&op);
    ring_file_sync(manifest->ring, &op, manifest->file.fd);
    ring_await(manifest->ring, &op);
    enum kvs_err err = op.error != KVS_ERR_OK ? op.error : ring_file_uncache(manifest->ring, manifest->file.fd);
    if (err != KVS_ERR_OK)
        return cannot(reader, "sync before reading", err,
                      op.error != KVS_ERR_OK ? ring_op_text(&op) : kvs_err_text(err));
    blocking_init(&op);
    ring_file_sync(manifest->ring, &op, manifest->options.dir_fd);
    ring_await(manifest->ring, &op);
    if (op.error != KVS_ERR_OK)
        return cannot(reader, "sync the directory of", op.error, ring_op_text(&op));
    return KVS_ERR_OK;
}

enum kvs_err manifest_read(struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES])
{
    struct reader reader = {.manifest = manifest, .message = message};
    bool read_only = manifest->options.read_only;
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(manifest->ring, &op, manifest->options.dir_fd, MANIFEST_NAME,
                   RING_OPEN_READ | (read_only ? 0u : RING_OPEN_WRITE) |
                       (manifest->options.direct ? RING_OPEN_DIRECT : 0u));
    ring_await(manifest->ring, &op);
    if (op.error != KVS_ERR_OK)
        return cannot(&reader, "open", op.error, ring_op_text(&op));
    manifest->file.fd = op.fd;
    enum kvs_err err = read_only ? KVS_ERR_OK : settle(&reader);
    if (err == KVS_ERR_OK)
        err = get_size(&reader);
    if (err == KVS_ERR_OK)
        err = read_blocks(&reader);
    if (err == KVS_ERR_OK && reader.torn && !read_only)
        diag_info("cut a torn block off %s/" MANIFEST_NAME " at offset %" PRIu64, manifest->options.dir_name,
                  (uint64_t)manifest->file.next * KVS_BLOCK_BYTES);
    return err;
}
