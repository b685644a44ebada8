/*
 * segment_maker.h - makes segments ready for the log, ahead of need: a written, durable, properly named file and an
 * image.
 *
 * A segment must be pre-written before it is used: a durable write into blocks that were never written has to commit
 * the file system's journal and takes twice as long. One maker per shard, on the shard's thread and ring; it makes one
 * segment at a time.
 */
#ifndef KVS_ENGINE_SEGMENT_MAKER_H
#define KVS_ENGINE_SEGMENT_MAKER_H

#include "engine/segment.h"
#include "ring/ring.h"

struct segment_maker_options {
    struct ring *ring;
    struct segment_table *table;
    struct image_pool *images;
    int dir_fd;
    bool direct; /* O_DIRECT */
    const uint8_t *store_uuid;
    uint64_t epoch;
    _Atomic uint32_t *uid_counter; /* shared by all makers of the store */
};

enum segment_maker_state {
    MAKER_IDLE,
    MAKER_IMAGE, /* waiting for memory */
    MAKER_OPEN,
    MAKER_ALLOCATE,
    MAKER_WRITE,
    MAKER_SYNC,
    MAKER_RENAME,
    MAKER_SYNC_DIR,
    MAKER_READY,
    MAKER_UNDO,   /* removing the unfinished file */
    MAKER_FAILED, /* will try again after a pause */
};

struct segment_maker {
    struct segment_maker_options options;
    enum segment_maker_state state;
    struct ring_op io;
    bool timer_active;
    bool stopping;
    struct ring_op timer;
    bool numbered; /* number is taken and not used up: a failed attempt's serves the next */
    uint32_t number;
    uint64_t uid;
    int fd;
    uint8_t *image;
    uint64_t written;
    enum kvs_err error; /* of the latest failure; OK when the latest attempt went well */
    enum segment_maker_state failed_in;
    uint32_t name_syncs_failed; /* of the table, before the rename */
    char new_name[SEGMENT_NAME_BYTES], name[SEGMENT_NAME_BYTES];
    struct segment *segment;
};

void segment_maker_init(struct segment_maker *maker, const struct segment_maker_options *options);

/* Starts making a segment unless one is being made or ready. `keep` is the segment whose image must stay. */
void segment_maker_turn(struct segment_maker *maker, const struct segment *keep);

/* Takes the finished segment and its image (not attached yet); false when there is none. */
bool segment_maker_take(struct segment_maker *maker, struct segment **segment, uint8_t **image);

/* Stops making; what is unfinished stays on disk under its temporary name, for the next start to remove. */
void segment_maker_stop(struct segment_maker *maker);
/* True when nothing of it is in flight. */
bool segment_maker_idle(const struct segment_maker *maker);
/* Gives back what a stopped maker still holds. Its own ring may be closed by now: `ring` is the closing thread's. */
void segment_maker_deinit(struct segment_maker *maker, struct ring *ring);

#endif
