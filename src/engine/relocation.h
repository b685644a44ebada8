/*
 * relocation.h - what the engine offers to compaction: figures of segments, whether a record is live, a segment to copy
 * into, the swing of the index to the copies, and the end of a segment that nothing points into any more.
 *
 * Everything here is the background thread's. A record is moved like this: it is read from its segment, verified, and
 * found live; copied, with the LSN it has always had, into a RELOCATED segment, durably; then its owner swings the
 * index entry, if it still points at the old place. A victim is retired when the index points at none of its records,
 * and when the segments that hold the copies are sealed in the manifest: until then a start drops those and finds the
 * records where they were.
 *
 * Retiring: every shard acknowledges, outside of any section, that none of its reads that began before the swing is
 * under way, and that all it has appended is durable; then the manifest forgets the segment, durably; then its file may
 * be used again.
 */
#ifndef KVS_ENGINE_RELOCATION_H
#define KVS_ENGINE_RELOCATION_H

#include "engine/engine.h"
#include "engine/segment.h"

struct keeper;

/* One segment that is sealed or being written. */
struct relocation_figure {
    uint32_t number;
    bool victim; /* may be given up: it is sealed, and no longer the newest of its log */
    bool relocated;
    uint64_t uid;
    uint64_t live_bytes; /* of puts that the index points at, estimated from their size classes */
    uint64_t deletes_bytes;
    uint32_t puts, dead_puts;
    uint32_t record_bytes_max;
    uint64_t min_lsn, last_lsn, begun_lsn;
    uint64_t deletes_min_lsn, deletes_last_lsn; /* if it has deletes */
    /* Puts that expire: once dead they may have to stay, as deletes. So the dead ones count in deletes_bytes. */
    uint32_t expiring;
    uint64_t expiring_last_lsn;
};

struct relocation_space {
    uint64_t segment_bytes; /* what a segment holds at most */
    uint64_t files, files_max, files_addable;
    uint64_t files_free;     /* without those in reserve */
    uint64_t files_reserved; /* those: for compaction … */
    uint64_t files_deletes;  /* … and of them, for deletes */
    uint64_t bytes_appended; /* by all logs since the start */
};

/* Fills in up to `max` figures; returns how many segments there are. Live bytes in engine_stats are the latest
 * census's.
 */
size_t relocation_census(struct engine_background *background, struct relocation_figure *out, size_t max,
                         struct relocation_space *space);

/* Bytes that all logs have written since the start. */
uint64_t relocation_appended(struct engine_background *background);
/* True when some log lacks a segment to go on in, and none can be made. */
bool relocation_short(struct engine_background *background);

/* The segment of this number, for reading its file; NULL when there is none. */
struct segment *relocation_segment(struct engine_background *background, uint32_t number);
uint64_t relocation_address(struct engine_background *background, const struct segment *segment, uint32_t offset);
uint64_t relocation_hash(struct engine_background *background, struct slice key);
/* Where records of a segment end at the latest. */
uint32_t relocation_end_max(struct engine_background *background);
uint64_t relocation_epoch(struct engine_background *background);
uint32_t relocation_manifest_sequence(struct engine_background *background);
bool relocation_sync_after_write(struct engine_background *background);

/* True when the index points at this record. *hidden: there may be a newer one of its key all the same, an overwrite
 * that is not settled. Inside a section of the background's. */
bool relocation_live(struct engine_background *background, uint64_t hash, uint64_t address, bool *hidden);
/* Rises whenever older records that overwrites have hidden have been counted as dead. */
uint64_t relocation_settled(struct engine_background *background);
/* What has an LSN up to this one, and is durable, has been executed on the index: the census that is taken after this
 * call knows of it. */
uint64_t relocation_shown(struct engine_background *background);
/* Records up to this LSN count no more, and need not be hidden. */
uint64_t relocation_flushed(struct engine_background *background);
/* Rises when the records of an index that a flush has left were all counted as dead. */
uint64_t relocation_counted(struct engine_background *background);
/* The store's time. */
uint64_t relocation_now_ms(struct engine_background *background);

/* A prepared segment to copy into; NULL until there is one: ask again on a later turn. It is OPEN then; begun_lsn is
 * set. `cancel` ends the wish. */
struct segment *relocation_output(struct engine_background *background);
void relocation_output_cancel(struct engine_background *background);
/* True when relocation_output would give one, or there is none and none on its way: it may become so in any turn of the
 * engine's background, without an event on its ring. */
bool relocation_output_settled(const struct engine_background *background);
/* Why there is none and none on its way; OK otherwise. */
enum kvs_err relocation_output_error(struct engine_background *background);

struct relocation_move {
    uint64_t hash;
    uint64_t from, to;   /* addresses */
    uint64_t expires_ms; /* as the record says */
    unsigned class;
    bool large; /* its value lies in a file */
};

enum { RELOCATION_MOVES_MAX = 32768 };

/* Asks the owners to swing these entries; relocation_swung tells when all have. One call at a time; `moves` is copied.
 */
void relocation_swing(struct engine_background *background, const struct relocation_move *moves, size_t count);
bool relocation_swung(struct engine_background *background);

/* The output is whole: enters it in the manifest as sealed. True once that is durable. */
enum kvs_err relocation_seal(struct engine_background *background, struct segment *segment, uint64_t *ticket);
bool relocation_durable(struct engine_background *background, uint64_t ticket);

/* Gives up a sealed segment. The index must not point at any of its records (dead_puts == puts). */
void relocation_retire(struct engine_background *background, struct segment *segment);
/* Segments on their way out. */
size_t relocation_retiring(struct engine_background *background);

/* Why nothing can be sealed or given up any more: the manifest has failed. "" while it has not. */
const char *relocation_failure_text(struct engine_background *background);
/* A log has failed: it acknowledges nothing, so no segment can be given up until a restart. */
bool relocation_blocked(struct engine_background *background);
/* The manifest finds no room on the disk: nothing goes on until it does. */
bool relocation_stuck(struct engine_background *background);

/* What there is to be hoped for from compaction. */
enum relocation_hope {
    RELOCATION_HOPE_NONE,  /* nothing: nobody compacts, or it has failed, or something else must be mended first */
    RELOCATION_HOPE_FADED, /* its latest look at a store that lacks space found nothing to gain; there will be others */
    RELOCATION_HOPE_PROMISED, /* it is at work on freeing space, or about to look for some */
};

/* While compaction is at work on freeing space, writes that find none wait for it rather than fail. Deletes wait
 * longer: until it has looked for space and found none. */
void relocation_promise_space(struct engine_background *background, enum relocation_hope hope);
/* It has looked, while logs lacked space, and there was nothing to gain. */
void relocation_looked_in_vain(struct engine_background *background);
/* Deletes wait for space. */
bool relocation_hurried(struct engine_background *background);

/* ---- for keeper.c and store.c ---------------------------------------------------------------------------------- */

struct store_shard;
enum kvs_err relocation_open(struct keeper *keeper);
void relocation_close(struct keeper *keeper);
void relocation_turn(struct keeper *keeper);
/* On a shard's thread, once per turn, outside of sections: swings some entries, and acknowledges a retirement. */
void relocation_shard_turn(struct store_shard *shard);
/* True when the shard's turn should come again at once. */
bool relocation_shard_busy(const struct store_shard *shard);

#endif
