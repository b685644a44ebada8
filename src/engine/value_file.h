/*
 * value_file.h - writes one value file durably, and reads one, verified: two state machines on a ring.
 *
 * Neither waits, and neither does much at a time: completions only note what has come; copying, checksums and the start
 * of the next transfer happen in value_writer_work and value_reader_work, half a megabyte at a time, which the owner
 * calls between two turns of its ring for as long as they say that there is work. `done` is called exactly once, from
 * inside a completion, `work` or, for lack of memory, `begin`; the structure may be used again or freed from inside it.
 *
 * Threads: everything on the ring's thread. Ownership: the structures are the caller's and stay until `done`.
 */
#ifndef KVS_ENGINE_VALUE_FILE_H
#define KVS_ENGINE_VALUE_FILE_H

#include "base/large_memory.h"
#include "engine/name_sync.h"
#include "engine/value_format.h"
#include "ring/ring.h"

enum {
    VALUE_STEP_BYTES = 512 * 1024, /* of one transfer, and of one step of work; a multiple of VALUE_CHUNK_BYTES */
    VALUE_TRANSFERS_MAX = 4,       /* of one file in flight */
    VALUE_TEXT_BYTES = 256,
};

/* Where the value files of a store lie. Shared by all; it does not change, but for what `names` is at. */
struct value_place {
    int dir_fd; /* of the folder `values` */
    bool direct;
    const uint8_t *store_uuid;
    struct name_sync names; /* of the folder; for writing only */
};

/* ---- writing --------------------------------------------------------------------------------------------------- */

enum value_writer_state {
    VALUE_OPEN,
    VALUE_ALLOCATE,
    VALUE_WRITE,
    VALUE_SYNC,
    VALUE_RENAME,
    VALUE_SYNC_DIR,
    VALUE_UNDO, /* removing what there is of it */
};

struct value_writer {
    /* Set before value_writer_begin; key and value stay until `done`. */
    struct value_place *place;
    struct ring *ring;
    uint64_t id;
    struct slice key, value;
    void (*done)(struct value_writer *writer);

    /* The result. OK: the file is durable under its name, and `descriptor` names it. NO_SPACE, NO_MEMORY,
     * NO_DESCRIPTORS; IO for every other failure: `text` has the step and the cause. Nothing is left of it then, unless
     * `left_behind`. */
    enum kvs_err error;
    struct value_descriptor descriptor;
    bool left_behind; /* the file could not be removed */
    char text[VALUE_TEXT_BYTES];

    /* Private. */
    enum value_writer_state state;
    struct value_layout layout;
    struct value_name name;
    char names[2][VALUE_NAME_BYTES]; /* while it is unfinished, and then */
    uint32_t seed;
    int fd;
    uint64_t at;         /* where the next write begins */
    uint32_t *checksums; /* the last part of the file */
    unsigned in_flight;
    struct ring_op io;
    struct name_change naming;
    struct value_write {
        struct ring_op io;
        struct value_writer *writer;
        uint8_t *buffer;
        bool busy;
    } writes[VALUE_TRANSFERS_MAX];
};

void value_writer_begin(struct value_writer *writer);
/* There is something to do for value_writer_work. */
bool value_writer_has_work(const struct value_writer *writer);
void value_writer_work(struct value_writer *writer);
/* Once per turn: takes notice when the folder was synced by another thread. `done` may be called. */
void value_writer_turn(struct value_writer *writer);
/* Frees what an unfinished one holds whose ring is gone; `ring` is the closing thread's. */
void value_writer_abandon(struct value_writer *writer, struct ring *ring);

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* A part of the value in transfer. */
struct value_read {
    struct ring_op io;
    struct value_reader *reader;
    uint64_t at; /* in the value */
    bool busy;
    bool arrived; /* to be verified */
    bool again;   /* this is the second try */
};

struct value_reader {
    /* Set before value_reader_begin; `memory` has value_reader_bytes, `key` stays until `done`. */
    struct value_place *place;
    struct ring *ring;
    struct value_descriptor descriptor;
    struct slice key;
    struct large_memory *memory;
    void (*done)(struct value_reader *reader);

    /* The result. OK: the value is at memory->data, every byte of it verified. CORRUPT: the file is missing, or damaged
     * also when it is read once more; IO: it cannot be read; NO_MEMORY, NO_DESCRIPTORS. `text` has file and place. */
    enum kvs_err error;
    char text[VALUE_TEXT_BYTES];

    /* Private. */
    struct value_layout layout;
    char name[VALUE_NAME_BYTES];
    uint32_t seed;
    int fd;
    bool opened; /* the parts around the value are there and good */
    bool second; /* … are being read, or the file opened, the second time */
    uint8_t *head;
    uint8_t *checksums;
    uint64_t next;     /* of the value, to be read */
    uint64_t verified; /* bytes of it */
    unsigned in_flight;
    struct ring_op io;
    struct value_around {
        struct ring_op io;
        struct value_reader *reader;
    } around[2];
    struct value_read reads[VALUE_TRANSFERS_MAX];
};

/* What struct large_memory must offer for a value. */
static inline size_t value_reader_bytes(uint64_t value_bytes)
{
    return (size_t)align_up(value_bytes, KVS_BLOCK_BYTES);
}

void value_reader_begin(struct value_reader *reader);
bool value_reader_has_work(const struct value_reader *reader);
void value_reader_work(struct value_reader *reader);
/* As value_writer_abandon; `memory` stays the caller's. */
void value_reader_abandon(struct value_reader *reader, struct ring *ring);

#endif
