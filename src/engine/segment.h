/*
 * segment.h - the segments of a store: their files, their places in RAM, and the table that finds them by number.
 *
 *   FREE ──► SPARE ──► OPEN ──► SEALED ──► RETIRED ──► FREE      made and given back by the keeper (keeper.h)
 *
 * Threads: the table is read by all (segment_get, segment_image, inside an epoch section). Segments are added, images
 * given and evicted by the background thread alone (at start-up, by the thread that recovers). A reader that has got an
 * image inside a section may use it until the section ends. An open segment has one writer, a shard's log or
 * compaction; what it has counted belongs to others once the segment is sealed.
 */
#ifndef KVS_ENGINE_SEGMENT_H
#define KVS_ENGINE_SEGMENT_H

#include "base/bytes.h"
#include "base/list.h"
#include "engine/epoch.h"
#include "engine/log_format.h"
#include "engine/manifest.h"

#include <stdatomic.h>

enum segment_state {
    SEGMENT_FREE,    /* holds nothing; its file may be used again */
    SEGMENT_SPARE,   /* prepared: belongs to a log, or to compaction */
    SEGMENT_OPEN,    /* being written */
    SEGMENT_SEALED,  /* whole and durable; will not change any more */
    SEGMENT_RETIRED, /* nothing points into it; free when nobody reads from it any more */
};

struct segment {
    uint32_t number;
    uint32_t seed; /* of its checksums */
    uint64_t uid;  /* of two segments the one with the lower uid was begun earlier */
    int fd;
    _Atomic(enum segment_state) state;
    enum segment_kind kind;
    _Atomic(uint8_t *) image;    /* the segment in RAM, or NULL */
    _Atomic uint32_t image_from; /* what is before this offset is not in it (yet) */

    /* The writer's, until it is sealed. */
    uint32_t end;                               /* offset behind its last batch */
    uint64_t last_lsn;                          /* of its last batch, 0 = none */
    uint32_t epoch, stream;                     /* of its last batch */
    uint32_t puts, deletes;                     /* records */
    _Atomic uint32_t record_bytes;              /* their sum; the background looks at it at any time, as at put_units */
    _Atomic uint32_t put_units;                 /* of the puts, by size class: see segment_units */
    uint32_t record_bytes_max;                  /* the largest */
    uint64_t deletes_min_lsn, deletes_last_lsn; /* of the deletes, if there are any */
    uint32_t expiring;                          /* puts with an expiry … */
    uint64_t expiring_last_lsn;                 /* … and the highest of their LSNs */
    uint64_t begun_lsn;                         /* RELOCATED: see struct manifest_entry */

    /* Of a log's segment: of the reserve for deletes, puts have no place in it. The keeper's to set before it gives the
     * segment away, and to clear at any time, when there is space again. */
    _Atomic bool for_deletes;

    /* Counted by the owners of the keys; any thread reads them. */
    _Atomic uint64_t min_lsn; /* the lowest of its records; UINT64_MAX while it has none. Set by the writer */
    _Atomic uint32_t dead_puts, dead_units; /* puts that no index entry points at any more */

    _Atomic uint32_t lives; /* incarnations of the file in this boot: tells addresses of different ones apart */

    /* The background's (checkpoint.h). */
    uint64_t run;           /* the sorted run that covers it, 0 = none */
    uint64_t sealed_ticket; /* of the manifest's entry that it is sealed */
    bool uncoverable;       /* not all of it can be read: no run will cover it */

    struct list image_link; /* among the images of the pool, oldest first */
    struct image_pool *pool;
    struct epoch_entry evicted;
    uint8_t *evicted_image;
    struct list keeper_link; /* among the segments that the keeper watches, or that are free */
};

/* What a put of a size class counts for when live and dead space are weighed: the classes double, so this is exact to a
 * factor of two for one record, and for many of like sizes as good as their bytes. */
static inline uint32_t segment_units(unsigned class)
{
    return 1u << class;
}

static inline enum segment_state segment_state(const struct segment *segment)
{
    return atomic_load_explicit(&segment->state, memory_order_acquire);
}

static inline void segment_set_state(struct segment *segment, enum segment_state state)
{
    atomic_store_explicit(&segment->state, state, memory_order_release);
}

/* An index entry that pointed at a put in it has gone, or (by -1) has come back. Any owner of keys. */
static inline void segment_count_dead(struct segment *segment, unsigned class, int by)
{
    atomic_fetch_add_explicit(&segment->dead_puts, (uint32_t)by, memory_order_relaxed);
    atomic_fetch_add_explicit(&segment->dead_units, (uint32_t)by * segment_units(class), memory_order_relaxed);
}

/* The writer has put this record into it, or (by -1) takes the last one, a put, out again. */
void segment_count_record(struct segment *segment, const struct record_header *record, int by);

struct segment_table {
    unsigned shift; /* log2 of segment_bytes */
    uint64_t segment_bytes;
    uint32_t count_max;               /* that addresses can name */
    _Atomic uint32_t next;            /* lowest number that was never given out */
    _Atomic uint32_t count;           /* files there are */
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

/* Adds a segment with this open file, as FREE. NULL: out of memory. */
struct segment *segment_add(struct segment_table *table, uint32_t number, int fd);
/* Takes out a FREE segment whose file is gone. When no reader can have it. */
void segment_drop(struct segment_table *table, struct segment *segment);
/* Begins another life of the file: empty, and with other checksums. */
void segment_begin(struct segment *segment, enum segment_kind kind, uint64_t uid, uint32_t seed);

/* The file's name, "000042.seg"; with `suffix` ".new" of one in the making. */
#define SEGMENT_NAME_BYTES 32
void segment_name(char name[SEGMENT_NAME_BYTES], uint32_t number, const char *suffix);
/* True when `name` is a segment's; sets *number, and *unfinished for one with the suffix ".new". */
bool segment_name_parse(const char *name, uint32_t *number, bool *unfinished);

/* ---- images ---------------------------------------------------------------------------------------------------- */

/* RAM for the images of a store. The background thread's alone. */
struct image_pool {
    uint64_t segment_bytes;
    uint32_t count_max;     /* images there may be */
    _Atomic uint32_t count; /* in use, free, or waiting for their last reader */
    struct list resident;   /* segments, oldest first */
    uint8_t **free;         /* count_max places */
    uint32_t free_count;
    uint32_t evicting; /* waiting for their last reader */
    uint64_t spills;   /* images evicted because others were wanted */
    struct epoch_thread *thread;
};

enum kvs_err image_pool_init(struct image_pool *pool, uint64_t segment_bytes, uint32_t count_max,
                             struct epoch_thread *thread);
/* After the epoch was drained. Frees every image, resident ones too. */
void image_pool_deinit(struct image_pool *pool);

/*
 * Memory for one image, contents arbitrary. When the pool is full the oldest image of a sealed segment is evicted, and
 * NULL is the answer until its last reader has gone: ask again on a later turn.
 */
uint8_t *image_take(struct image_pool *pool);
/* The same, but never at the cost of another image. */
uint8_t *image_take_unused(struct image_pool *pool);
void image_give(struct image_pool *pool, uint8_t *image);
/* Makes the pool smaller by one image, for good. False: none is unused yet, the oldest is being evicted. */
bool image_pool_shrink(struct image_pool *pool);
/* The same of one that was never taken. */
bool image_pool_forgo(struct image_pool *pool);
/* Makes `image`, from this pool, the segment's: as the youngest. */
void image_attach(struct image_pool *pool, struct segment *segment, uint8_t *image);
/* The same, as the oldest. */
void image_attach_oldest(struct image_pool *pool, struct segment *segment, uint8_t *image);
/* Takes the segment's image away, if it has one; the memory comes back when its last reader has gone. */
void image_detach(struct image_pool *pool, struct segment *segment);
/* The segment has no image and waits for none to be freed: it may begin another life. */
static inline bool image_gone(const struct segment *segment)
{
    return segment->evicted_image == NULL && atomic_load_explicit(&segment->image, memory_order_relaxed) == NULL;
}

static inline uint8_t *segment_image(const struct segment *segment)
{
    return atomic_load_explicit(&segment->image, memory_order_acquire);
}

/* What stands from `offset` on, in RAM; NULL: it is not there. Inside a section. */
static inline const uint8_t *segment_image_at(const struct segment *segment, uint32_t offset)
{
    const uint8_t *image = segment_image(segment);
    if (image == NULL || offset < atomic_load_explicit(&segment->image_from, memory_order_acquire))
        return NULL;
    return image + offset;
}

#endif
