/*
 * backup_internal.h - what the parts of a backup share.
 *
 *   backup.c          being asked, being told of; from one stage to the next
 *   backup_place.c    directories: making, looking, clearing, naming
 *   backup_set.c      the moment and the set, and the way of each segment into the copy
 *   backup_copy.c     measuring a log's segment; moving its bytes
 *   backup_runs.c     which sorted runs go along, and what becomes of one that cannot
 *   backup_values.c   the value files
 *   backup_file.c     the way of one run or value file into the copy
 */
#ifndef KVS_ENGINE_BACKUP_INTERNAL_H
#define KVS_ENGINE_BACKUP_INTERNAL_H

#include "base/limits.h"
#include "engine/backup.h"
#include "engine/keeper.h"
#include "engine/name_sync.h"
#include "engine/run_file.h"
#include "engine/store.h"

#define BACKUP_PLACE_NAME   "backups"  /* in the data directory, when no other place is configured */
#define BACKUP_PARTIAL_NAME ".partial" /* no backup can have this name */

enum { BACKUP_COPY_SLOTS = 2, BACKUP_CHUNK_BYTES = 256 * 1024, BACKUP_NAMES_MAX = 256, BACKUP_FILE_NAME_BYTES = 64 };
static_assert(BACKUP_FILE_NAME_BYTES >= RUN_NAME_BYTES, "names of runs");
static_assert(BACKUP_FILE_NAME_BYTES >= VALUE_NAME_BYTES, "names of value files");

enum backup_request {
    REQUEST_NONE,
    REQUEST_COMING, /* somebody writes the name */
    REQUEST_MADE,   /* asked for, or under way */
};

/* In order. After each but the first the next one begins when `io` has completed, or when backup_turn finds it done. */
enum backup_stage {
    BACKUP_IDLE,
    BACKUP_MAKE_PLACE,
    BACKUP_OPEN_PARENT,
    BACKUP_SYNC_PARENT,
    BACKUP_OPEN_PLACE,
    BACKUP_LOOK, /* is the name taken? */
    BACKUP_MAKE_DIR,
    BACKUP_OPEN_DIR,
    BACKUP_MAKE_VALUES,
    BACKUP_OPEN_VALUES,
    BACKUP_CLEAR,
    BACKUP_MOMENT,    /* backup_turn looks for it */
    BACKUP_ENTER,     /* backup_turn waits until the manifest has it durably */
    BACKUP_LINK_FILE, /* of the runs; later, when no segment is held any more, of the value files */
    BACKUP_OPEN_FILE,
    BACKUP_CREATE_FILE,
    BACKUP_READ_FILE,
    BACKUP_WRITE_FILE,
    BACKUP_SYNC_FILE,
    BACKUP_REMOVE_RUN,
    BACKUP_LINK,
    BACKUP_MEASURE,
    BACKUP_CREATE,
    BACKUP_ALLOCATE,
    BACKUP_COPY, /* the slots are at work, `io` is not */
    BACKUP_SYNC,
    BACKUP_SYNC_VALUES,
    BACKUP_MANIFEST, /* backup_turn waits for it */
    BACKUP_OPEN_SUPERBLOCK,
    BACKUP_WRITE_SUPERBLOCK,
    BACKUP_SYNC_SUPERBLOCK,
    BACKUP_SYNC_DIR,
    BACKUP_RENAME,
    BACKUP_SYNC_PLACE,
    BACKUP_UNDO, /* removing what a failed one has made */
};

/* What others are told of; replaced as a whole. */
struct backup_outcome {
    struct epoch_entry retired; /* first */
    struct engine_backup_state state;
};

struct backup_slot {
    struct ring_op io;
    struct backup *backup;
    uint8_t *buffer;
    uint64_t offset;
    uint32_t size;
    bool writing;
};

/* It is in the copy, or not: error, and text why. NOT_FOUND: the store has no such file any more. */
typedef void backup_file_fn(struct backup *backup, enum kvs_err error, const char *text);

/* A file that never changes and is to be in the copy: a run or a value. */
struct backup_file {
    int from_fd, to_fd; /* directories */
    char name[BACKUP_FILE_NAME_BYTES];
    uint64_t bytes;
    bool made; /* where there are no links: it is there, in part maybe */
    backup_file_fn *taken;
};

struct backup_run {
    uint64_t sequence, bytes;
};

struct backup {
    struct keeper *keeper;
    _Atomic(enum backup_request) request;
    char name[ENGINE_BACKUP_NAME_BYTES];
    _Atomic(struct backup_outcome *) outcome; /* NULL: none has ended yet */

    /* The one under way. */
    enum backup_stage stage;
    bool stopping;
    struct ring *ring;
    struct ring_op io;
    struct backup_outcome *ending; /* memory for what will be told of it */
    uint64_t begun_ns, moment_ms;
    struct superblock superblock; /* of the moment */
    enum kvs_err error;
    char text[ENGINE_MESSAGE_BYTES]; /* with `error` */

    const char *place; /* the directory of all backups, relative to the data directory if it is not absolute */
    char place_text[ENGINE_BACKUP_PATH_BYTES], partial_text[ENGINE_BACKUP_PATH_BYTES]; /* for people */
    char parent[ENGINE_BACKUP_PATH_BYTES];
    int parent_fd, place_fd, dir_fd; /* -1: not open */
    int values_fd, source_fd;
    bool place_made, renamed;
    char (*names)[256]; /* to be removed */
    unsigned name_count;
    int names_fd;                 /* where they are */
    struct name_sync other_names; /* of a directory that is not the store's */
    struct name_change naming;

    uint64_t durable[KVS_SHARDS_MAX]; /* the moment: of each log */
    uint64_t sealed[KVS_SHARDS_MAX];  /* LSN up to which sealed segments have each log of this boot */
    uint64_t covered[KVS_SHARDS_MAX]; /* records behind that found in the others */
    struct manifest *manifest;        /* of the copy */
    uint64_t ticket;                  /* of this store's manifest */
    uint32_t next, numbers_end;       /* the segment that is being taken care of, and where numbers end */
    char segment_file[SEGMENT_NAME_BYTES];
    uint64_t segments, linked; /* in the copy by now; of them, as links */
    uint64_t other_bytes;      /* manifest, superblock, runs and value files */
    uint64_t copied_bytes;     /* of runs and value files */
    struct backup_file file;   /* that is being taken */
    struct backup_run *runs;   /* to be taken */
    size_t run_count, run_capacity, run_next;
    struct value_name *values; /* to be taken */
    size_t value_count, value_capacity, value_next;

    struct backup_slot slots[BACKUP_COPY_SLOTS];
    unsigned slots_busy;
    int target_fd;
    bool target_buffered; /* O_DIRECT does not work there */
    uint64_t copy_end, copy_next;
    uint64_t measured; /* how far the segment is measured */
    uint64_t last_lsn, last_epoch;
};

static inline struct store *backup_store(const struct backup *backup)
{
    return backup->keeper->store;
}

/* backup.c */
void backup_step_done(struct ring_op *op);
static inline void backup_begin(struct backup *backup, enum backup_stage stage)
{
    backup->stage = stage;
    ring_op_init(&backup->io, backup_step_done);
}
/* Ends it with an error, whose text is printf's; nothing else of it may be in flight. */
void backup_fail(struct backup *backup, enum kvs_err error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Notes the error alone, while more of it is in flight. */
void backup_note_error(struct backup *backup, enum kvs_err error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* When the node stops: ends it, as far as it has come. */
bool backup_given_up(struct backup *backup);
/* It has come to its end, in one way or the other. */
void backup_end(struct backup *backup);

/* backup_place.c */
void backup_place_begin(struct backup *backup);
/* `io` has completed in a stage of these, or in BACKUP_UNDO. */
void backup_place_step(struct backup *backup);
/* The files of the copy are all there: the superblock, and the name. */
void backup_finish(struct backup *backup);
/* Removes what there is in the copy's directory. */
void backup_undo(struct backup *backup);
void backup_place_close(struct backup *backup, struct ring *ring);

/* backup_set.c */
void backup_moment(struct backup *backup);
void backup_entered(struct backup *backup);
void backup_set_step(struct backup *backup);
/* The runs are in the copy, or left out. */
void backup_segments_begin(struct backup *backup);
/* The segment at backup->next is in the copy. */
void backup_next(struct backup *backup);
/* The manifest of the copy is written, or could not be. */
void backup_listed(struct backup *backup);

/* All segments and value files are in the copy. */
void backup_list(struct backup *backup);

/* backup_runs.c */
/* At the moment: notes the runs of the set. NO_MEMORY. */
enum kvs_err backup_runs_note(struct backup *backup);
void backup_runs_begin(struct backup *backup);
void backup_runs_step(struct backup *backup);

/* backup_file.c */
/* Takes backup->file, all of it filled in but `made`, and then calls its `taken`. */
void backup_file_begin(struct backup *backup);
void backup_file_step(struct backup *backup);

/* backup_values.c */
void backup_values_begin(struct backup *backup);
void backup_values_step(struct backup *backup);

/* backup_copy.c */
/* Finds how far the log's segment belongs to the copy. */
void backup_measure(struct backup *backup);
/* Copies backup->copy_end bytes of the segment, and zeros up to its size. */
void backup_copy(struct backup *backup);
void backup_copy_step(struct backup *backup);

#endif
