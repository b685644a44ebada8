/*
 * manifest_internal.h - what the parts of the manifest share.
 *
 *   manifest.c          life, look-ups, changes and their writes
 *   manifest_table.c    the entries in memory
 *   manifest_read.c     blocks: sealing, checking, reading a file
 *   manifest_rewrite.c  making a new file
 */
#ifndef KVS_ENGINE_MANIFEST_INTERNAL_H
#define KVS_ENGINE_MANIFEST_INTERNAL_H

#include "engine/manifest.h"
#include "engine/name_sync.h"
#include "ring/ring.h"

#define MANIFEST_NEW_NAME MANIFEST_NAME ".new"

enum {
    MANIFEST_CHUNK_BLOCKS = 64, /* read or written at once */
    MANIFEST_ROOM_MIN = 64,     /* blocks for changes */
};
#define MANIFEST_RETRY_NS    1000000000ull /* after an attempt at a new file that has failed */
#define MANIFEST_CHUNK_BYTES ((size_t)MANIFEST_CHUNK_BLOCKS * KVS_BLOCK_BYTES)

/* ---- the entries in memory ------------------------------------------------------------------------------------- */

/* Entries of neighbouring numbers, as many as fill a block. A state of 0: there is none. */
struct manifest_page {
    uint32_t count;
    bool in_snapshot; /* has its block in the snapshot that is being written, which it has not got yet */
    struct manifest_entry entries[MANIFEST_BLOCK_ENTRIES];
};

/* Pages by number. They stay until the end, so that their blocks can be written while entries come and go. */
struct manifest_table {
    struct manifest_page **pages;
    uint32_t page_count;
};

void manifest_table_deinit(struct manifest_table *table);
const struct manifest_entry *manifest_table_find(const struct manifest_table *table, uint32_t number);
/* Makes room for an entry of this number: NO_MEMORY. */
enum kvs_err manifest_table_reserve(struct manifest_table *table, uint32_t number);
/* Takes an entry in or, with MANIFEST_GONE, out. There is room for it. */
void manifest_table_apply(struct manifest_table *table, const struct manifest_entry *entry);
/* Marks the pages that have entries now, and returns their number. */
uint32_t manifest_table_mark(struct manifest_table *table);
/* The next marked page from *at on, unmarked; NULL when there is none left. */
const struct manifest_page *manifest_table_next_marked(struct manifest_table *table, uint32_t *at);

/* ---- the parts ------------------------------------------------------------------------------------------------- */

/* A file and how far it is written. */
struct manifest_file {
    int fd; /* -1: there is none */
    uint64_t first_sequence;
    uint32_t snapshot_blocks;
    uint32_t file_blocks;
    uint32_t next; /* block */
};

enum manifest_writing { WRITING_NOTHING, WRITING_BLOCK, WRITING_SYNC };

enum manifest_rewriting {
    REWRITE_IDLE,
    REWRITE_REMOVE, /* what an earlier attempt has left */
    REWRITE_OPEN,
    REWRITE_ALLOCATE,
    REWRITE_WRITE,
    REWRITE_SYNC,
    REWRITE_HOLD, /* no write is started any more; waits for the one in flight */
    REWRITE_CATCH_UP,
    REWRITE_SYNC_AGAIN,
    REWRITE_RENAME,
    REWRITE_SYNC_DIR,
    REWRITE_UNDO, /* removing the unfinished file */
};

struct manifest_rewrite {
    enum manifest_rewriting state;
    enum manifest_rewriting failed_in;
    enum kvs_err error; /* of the latest failure; OK when the latest attempt went well */
    bool blocking;      /* somebody waits for it, and will say what has gone wrong */
    uint64_t retry_ns;  /* not before */
    struct ring_op io;
    struct name_change naming;
    struct manifest_file file;
    uint8_t *chunk;
    uint32_t written;         /* blocks of the file, or of what is behind the snapshot when catching up */
    uint32_t page;            /* where the search for the snapshot's next page begins */
    uint64_t snapshot_ticket; /* the snapshot may lack changes behind this one */
    uint64_t held_ticket;     /* the file has all changes up to this one, once it has caught up */
    uint64_t room_min;        /* blocks for changes, from the experience of an attempt that had too few */
    char text[MANIFEST_FAILURE_BYTES];
};

struct manifest {
    struct manifest_options options;
    struct name_sync own_names; /* when there are no others */
    struct ring *ring;
    uint32_t seed; /* of all checksums */
    struct manifest_table table;
    struct manifest_file file;
    _Atomic uint64_t sequence;

    /* Changes: those behind `durable` are queued. While a new file is made, earlier ones that it lacks are kept too. */
    struct manifest_entry *changes;
    size_t change_begin, change_count, change_capacity;
    uint64_t first_ticket; /* of changes[change_begin] */
    uint64_t last_ticket;
    uint64_t durable;

    enum manifest_writing writing;
    uint64_t writing_ticket; /* the last in the block in flight */
    struct ring_op io;
    uint8_t *block;

    struct manifest_rewrite rewrite;
    bool failed;
    char failure[MANIFEST_FAILURE_BYTES];
};

/* manifest.c */
void manifest_fail(struct manifest *manifest, const char *what, const char *text);
/* Fills a block of `file` with changes from `ticket` to `last`, as many as fit, and returns the ticket behind them. */
uint64_t manifest_block_of_changes(const struct manifest *manifest, uint8_t *block, const struct manifest_file *file,
                                   uint32_t index, uint64_t ticket, uint64_t last);
/* Everything up to `ticket` is durable; forgets changes that nobody needs any more. */
void manifest_set_durable(struct manifest *manifest, uint64_t ticket);

/* manifest_read.c */
/* Checksum of a block of this store. */
uint32_t manifest_block_crc(uint32_t seed, const void *block);
/* Heads and seals a block whose `count` entries are in place, with zeros behind them. */
void manifest_block_seal(uint32_t seed, void *block, const struct manifest_file *file, uint32_t index, uint32_t count);
bool manifest_entry_possible(const struct manifest_entry *entry);
/* Opens and reads the file into table and `file`. Blocking. */
enum kvs_err manifest_read(struct manifest *manifest, char message[ENGINE_MESSAGE_BYTES]);

/* manifest_rewrite.c */
/* True when a new file should be made now, or as soon as retry_ns allows. */
bool manifest_rewrite_wanted(const struct manifest *manifest);
void manifest_rewrite_start(struct manifest *manifest);
/* The write in flight has ended: called whenever one has. */
void manifest_rewrite_continue(struct manifest *manifest);
/* True from where no write of a change may be started. */
bool manifest_rewrite_holds(const struct manifest *manifest);

#endif
