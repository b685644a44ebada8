/*
 * segment_maker.h - makes segments ready to be written: a written, durable, properly named file, entered in the
 * manifest, and an image.
 *
 * A segment must be pre-written before a log uses it: a durable write into blocks that were never written has to commit
 * the file system's journal and takes twice as long. A file that an earlier segment has left is written already, and
 * needs nothing but a new header.
 *
 * One maker for each log, and one for compaction; all of them on the background thread and its ring. A maker makes one
 * segment at a time. Only `error` is read by others.
 */
#ifndef KVS_ENGINE_SEGMENT_MAKER_H
#define KVS_ENGINE_SEGMENT_MAKER_H

#include "engine/name_sync.h"
#include "engine/segment.h"
#include "ring/ring.h"

struct segment_maker_options {
    struct ring *ring;
    struct segment_table *table;
    struct image_pool *images;
    struct manifest *manifest;
    int dir_fd;
    struct name_sync *names; /* of that directory */
    bool direct;             /* O_DIRECT */
    bool sync_after_write;   /* no durable writes: write, then fdatasync */
    const uint8_t *store_uuid;
    uint64_t epoch;
    uint32_t *uid_counter; /* shared by all makers of the store */
};

enum segment_maker_state {
    MAKER_IDLE,
    MAKER_IMAGE, /* waiting for memory */
    MAKER_BACK,  /* having the system back it, a piece in each turn */
    MAKER_OPEN,
    MAKER_ALLOCATE,
    MAKER_WRITE,
    MAKER_SYNC,
    MAKER_RENAME,
    MAKER_SYNC_DIR,
    MAKER_HEADER, /* of a file that is used again */
    MAKER_HEADER_SYNC,
    MAKER_ENTER, /* waiting for the manifest */
    MAKER_READY,
    MAKER_UNDO,   /* removing the unfinished file */
    MAKER_FAILED, /* will try again after a pause */
};

/* What a segment is made for. */
enum maker_purpose {
    MAKE_FOR_LOG,        /* with an image */
    MAKE_FOR_DELETES,    /* the same, of the reserve for deletes: `error` goes on to say why there is none for puts */
    MAKE_FOR_RELOCATION, /* with an image if there is memory that nobody uses */
    MAKE_FREE,           /* a file in reserve: a FREE segment */
};

struct segment_maker {
    struct segment_maker_options options;
    enum segment_maker_state state;
    enum maker_purpose purpose;
    struct ring_op io;
    struct name_change naming;
    bool timer_active;
    bool stopping;
    struct ring_op timer;
    uint32_t number;
    uint32_t number_new;
    bool numbered; /* number_new is taken and not used up: a failed attempt's serves the next new file */
    uint64_t uid;
    int fd;
    uint8_t *image;
    uint8_t *chunk;              /* what is written when there is no image */
    uint64_t written;            /* of the file; of the image: backed */
    uint64_t ticket;             /* of the manifest */
    _Atomic(enum kvs_err) error; /* of the latest failure; OK when the latest attempt went well */
    enum segment_maker_state failed_in;
    char new_name[SEGMENT_NAME_BYTES], name[SEGMENT_NAME_BYTES];
    struct segment *segment; /* once its file is whole; also a free one, to be used again */
};

enum kvs_err segment_maker_init(struct segment_maker *maker, const struct segment_maker_options *options);

/* Nothing is being made, nor ready, nor has to wait after a failure. */
static inline bool segment_maker_can_begin(const struct segment_maker *maker)
{
    return maker->state == MAKER_IDLE && !maker->stopping;
}
/* The same, or it waits after a failure for lack of space: that is over for who has a file to give. */
static inline bool segment_maker_can_use_again(const struct segment_maker *maker)
{
    bool waits_for_space = maker->error == KVS_ERR_NO_SPACE || maker->error == KVS_ERR_OK; /* the latter: taken back */
    return (maker->state == MAKER_IDLE || (maker->state == MAKER_FAILED && waits_for_space)) && !maker->stopping;
}
/* Nothing is being made, and nothing ready. */
static inline bool segment_maker_rests(const struct segment_maker *maker)
{
    return maker->state == MAKER_IDLE || maker->state == MAKER_FAILED;
}
/* The maker holds a file that is there already, from an attempt that failed. */
static inline bool segment_maker_has_file(const struct segment_maker *maker)
{
    return maker->segment != NULL;
}

/* Starts to make a segment, of the file of a FREE segment or, with NULL, of a new one. The maker keeps what it is given
 * until it is made into something. */
void segment_maker_begin(struct segment_maker *maker, enum maker_purpose purpose, struct segment *from);
/* Notes that there is nothing to make a segment of, and why. */
void segment_maker_refuse(struct segment_maker *maker, enum kvs_err error, const char *text);
/* Takes that back: there is something again. */
void segment_maker_recovered(struct segment_maker *maker);
/* Goes on where memory or the manifest were waited for. */
void segment_maker_turn(struct segment_maker *maker);

/* Takes the finished segment; NULL when there is none. */
struct segment *segment_maker_take(struct segment_maker *maker);

/* Stops making; what is unfinished stays on disk under its temporary name, for the next start to remove. */
void segment_maker_stop(struct segment_maker *maker);
/* True when nothing of it is in flight. */
bool segment_maker_idle(const struct segment_maker *maker);
/* Gives back what a stopped maker still holds. Its own ring may be closed by now: `ring` is the closing thread's. */
void segment_maker_deinit(struct segment_maker *maker, struct ring *ring);

#endif
