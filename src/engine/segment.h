/*
 * segment.h - the segments of a store: their files, their places in RAM, and the table that finds them by number.
 *
 * Threads: the table is read by all (segment_get, segment_image, inside an epoch section); a segment is added by the
 * thread that made it. The images of a segment belong to one shard's struct image_pool, and only that shard's thread
 * evicts them; a reader that has got an image inside a section may use it until the section ends.
 */
#ifndef KVS_ENGINE_SEGMENT_H
#define KVS_ENGINE_SEGMENT_H

#include "base/bytes.h"
#include "base/list.h"
#include "engine/epoch.h"
#include "engine/log_format.h"

#include <stdatomic.h>

struct segment {
    uint32_t number;
    uint32_t seed; /* of its checksums */
    uint64_t uid;
    int fd;
    _Atomic(uint8_t *) image; /* the whole segment in RAM, or NULL */
    uint32_t end;             /* offset behind its last batch. The writer's */
    uint64_t last_lsn;        /* in it, 0 = none. The writer's */

    struct list image_link; /* among the images of its pool, oldest first */
    struct image_pool *pool;
    struct epoch_entry evicted;
    uint8_t *evicted_image;
};

struct segment_table {
    _Atomic uint32_t
        name_syncs_failed; /* syncs of the directory, by any maker: each may have lost others' names, too */
    unsigned shift;        /* log2 of segment_bytes */
    uint64_t segment_bytes;
    uint32_t count_max;    /* that addresses can name */
    _Atomic uint32_t next; /* lowest number that was never given out */
    _Atomic uint32_t count;
    _Atomic(struct segment *) *slots; /* count_max; untouched parts take no RAM */
};

enum kvs_err segment_table_init(struct segment_table *table, uint64_t segment_bytes);
/* Frees table and segments; files must be closed and images freed. */
void segment_table_deinit(struct segment_table *table);

static inline struct segment *segment_get(const struct segment_table *table, uint32_t number)
{
    return number < table->count_max ? atomic_load_explicit(&table->slots[number], memory_order_acquire) : NULL;
}

/* A number for a new segment; count_max when there are no more. */
uint32_t segment_number_take(struct segment_table *table);
/* Makes sure that `number` is not given out again: a segment of that number was found on disk. */
void segment_number_seen(struct segment_table *table, uint32_t number);

/* Adds a segment with this open file. NULL: out of memory. */
struct segment *segment_add(struct segment_table *table, uint32_t number, uint64_t uid, uint32_t seed, int fd);

/* The file's name, "000042.seg"; with `suffix` ".new" of one in the making. */
#define SEGMENT_NAME_BYTES 32
void segment_name(char name[SEGMENT_NAME_BYTES], uint32_t number, const char *suffix);
/* True when `name` is a segment's; sets *number, and *unfinished for one with the suffix ".new". */
bool segment_name_parse(const char *name, uint32_t *number, bool *unfinished);

/* ---- images ---------------------------------------------------------------------------------------------------- */

/* RAM for the images of one shard's segments. Used by the shard's thread alone. */
struct image_pool {
    uint64_t segment_bytes;
    uint32_t count_max;     /* images there may be */
    _Atomic uint32_t count; /* in use, free, or waiting for their last reader */
    struct list resident;   /* segments, oldest first */
    uint8_t **free;         /* count_max places */
    uint32_t free_count;
    uint32_t evicting; /* waiting for their last reader */
    struct epoch_thread *thread;
};

enum kvs_err image_pool_init(struct image_pool *pool, uint64_t segment_bytes, uint32_t count_max,
                             struct epoch_thread *thread);
/* After the epoch was drained. Frees every image, resident ones too. */
void image_pool_deinit(struct image_pool *pool);

/*
 * Memory for one image, contents arbitrary. When the pool is full the oldest resident segment, other than `keep`, is
 * evicted, and NULL is the answer until its last reader has gone: ask again on a later turn.
 */
uint8_t *image_take(struct image_pool *pool, const struct segment *keep);
void image_give(struct image_pool *pool, uint8_t *image);
/* Makes `image`, from this pool, the segment's: as the youngest. */
void image_attach(struct image_pool *pool, struct segment *segment, uint8_t *image);

static inline uint8_t *segment_image(const struct segment *segment)
{
    return atomic_load_explicit(&segment->image, memory_order_acquire);
}

#endif
