/*
 * superblock.h - the identity of a store: which engine wrote it, how, and which boot is the current one.
 *
 * The file `superblock` holds two copies, one block each. An update writes the copy that is older, durably, so that a
 * crash in the middle leaves the other; the valid copy with the higher sequence counts. Blocking; start-up only, on the
 * thread of `ring`.
 */
#ifndef KVS_ENGINE_SUPERBLOCK_H
#define KVS_ENGINE_SUPERBLOCK_H

#include "base/error.h"
#include "engine/engine.h"

#include <assert.h>

#define SUPERBLOCK_MAGIC 0x313052505553564bull /* "KVSUPR01" */
#define SUPERBLOCK_NAME  "superblock"

struct superblock {
    uint64_t magic;
    uint32_t crc; /* of the bytes behind it, to the end of the struct */
    uint32_t version;
    uint8_t uuid[16];
    char engine[16]; /* zero-padded */
    uint64_t hash_seed;
    uint64_t segment_bytes;
    uint32_t block_bytes;
    uint32_t reserved;
    uint64_t sequence; /* of this copy */
    uint64_t epoch;    /* the current boot, from 1 */
    uint64_t lsn_base; /* every record of this boot has at least this LSN, every earlier one a lower */
    uint64_t created_ms;
};
static_assert(sizeof(struct superblock) == 104, "superblock");

/* NOT_FOUND when there is none; MISMATCH, VERSION, CORRUPT with a message that says more. */
enum kvs_err superblock_read(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *out,
                             char message[ENGINE_MESSAGE_BYTES]);

/* Writes `superblock` (magic, version, checksum are filled in, sequence is raised) and makes it and its name durable.
 */
enum kvs_err superblock_write(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *superblock,
                              char message[ENGINE_MESSAGE_BYTES]);

/* True when these 104 bytes are a superblock of any version, undamaged. */
bool superblock_valid(const struct superblock *superblock);

#endif
