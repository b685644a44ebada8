/*
 * superblock.h - the identity of a store: which engine wrote it, how, and which boot is the current one.
 *
 * The file `superblock` holds two copies, one block each. An update writes the copy that is older, durably, so that a
 * crash in the middle leaves the other; the valid copy with the higher sequence counts. superblock_read and
 * superblock_write block: start-up only, on the thread of `ring`.
 */
#ifndef KVS_ENGINE_SUPERBLOCK_H
#define KVS_ENGINE_SUPERBLOCK_H

#include "base/error.h"
#include "engine/engine.h"
#include "ring/ring.h"

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
    /* Not there, and 0, before version 2, which a superblock has from the first flush on: programs that know nothing of
     * it must not open the store. */
    uint64_t flushed_lsn; /* records up to this LSN count no more: all keys were taken away at once */
    uint32_t flushed_crc; /* of the bytes from `version` up to here */
    uint32_t flushed_reserved;
};
static_assert(sizeof(struct superblock) == 120, "superblock");

enum { SUPERBLOCK_VERSION = 1, SUPERBLOCK_VERSION_FLUSHED = 2 };

/* NOT_FOUND when there is none; MISMATCH, VERSION, CORRUPT with a message that says more. */
enum kvs_err superblock_read(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *out,
                             char message[ENGINE_MESSAGE_BYTES]);

/* Writes `superblock` (magic, version, checksum are filled in, sequence is raised) and makes it and its name durable.
 */
enum kvs_err superblock_write(struct ring *ring, int dir_fd, const char *dir_name, struct superblock *superblock,
                              char message[ENGINE_MESSAGE_BYTES]);

/*
 * The same without waiting, in both copies, one after the other: what it says then outlives the loss of one. Meanwhile,
 * and after it, `superblock` is only looked at by this thread, but for what never changes in it.
 */
enum superblock_update_state { UPDATE_IDLE, UPDATE_OPEN, UPDATE_WRITE, UPDATE_SYNC };

struct superblock_update {
    struct ring *ring;
    struct superblock *superblock;
    struct superblock next;
    struct ring_op io;
    enum superblock_update_state state;
    int fd;
    unsigned written;   /* copies; with one of them it is in force */
    enum kvs_err error; /* of the first copy: it may be in force after a crash, or not */
    char text[ENGINE_MESSAGE_BYTES];
    uint8_t *block;
};

/* NO_MEMORY: nothing was begun. */
enum kvs_err superblock_update_begin(struct superblock_update *update, struct ring *ring, int dir_fd,
                                     struct superblock *superblock, uint64_t flushed_lsn);
static inline bool superblock_update_idle(const struct superblock_update *update)
{
    return update->state == UPDATE_IDLE;
}
/* Of one that a crash has abandoned. */
void superblock_update_deinit(struct superblock_update *update, struct ring *ring);

/* True when these bytes are a superblock of any version, undamaged. */
bool superblock_valid(const struct superblock *superblock);
/* A version that this program knows. */
bool superblock_known(const struct superblock *superblock);

#endif
