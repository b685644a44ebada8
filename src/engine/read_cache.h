/*
 * read_cache.h - records that were read from disk and may be wanted again.
 *
 * One cache per shard, used by its owner alone. It keeps copies of whole records, found by the place they have on disk:
 * segment incarnation (uid) and address. A record never changes at its place, so nothing has to be invalidated: what is
 * overwritten or deleted is not asked for any more and leaves in its turn. When compaction moves a record, its owner
 * says so (read_cache_move).
 *
 * Policy: S3-FIFO (J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023). New records enter a
 * small queue; those that are asked for again there move on to the main queue, others leave and are remembered by a
 * ghost for a while, so that they enter the main queue if they come back soon. A scan of cold records passes through
 * the small queue and leaves the main one alone. Both queues are rings of bytes: a record is appended at the head, and
 * what falls off the tail is either gone or copied to the main ring's head. Until the main ring has been filled for the
 * first time, nothing that leaves the small one is lost.
 *
 * Memory: records, table and ghost together stay within bytes_max, counted in whole pages. Pages that were never used
 * take no RAM. Table and ghost grow with the number of records, 16 bytes for each, and the main ring gets what
 * they leave: next to nothing is lost to them when records are large, a tenth of the whole with records of 128 bytes,
 * a fifth with the smallest there are. Nothing is allocated after the opening: address space for bytes_limit is set
 * aside then, a third more than that.
 *
 * Time: read_cache_add works off as many bytes at the tails as it adds at the heads, and copies at most a fixed number
 * of records (and of bytes) back to the main ring's head. Growing moves nothing.
 */
#ifndef KVS_ENGINE_READ_CACHE_H
#define KVS_ENGINE_READ_CACHE_H

#include "base/error.h"
#include "engine/log_format.h"

struct read_cache;

#define READ_CACHE_BYTES_MIN (64ull << 10)  /* the least bytes_max */
#define READ_CACHE_BYTES_MAX (512ull << 30) /* a larger bytes_limit counts as this */

/* `bytes_max`: of RAM, everything included; may grow later up to bytes_limit (address space is set aside for it).
 * INVALID: bytes_max is below READ_CACHE_BYTES_MIN or above bytes_limit. NO_MEMORY. */
enum kvs_err read_cache_open(struct read_cache **out, uint64_t bytes_max, uint64_t bytes_limit);
/* NULL is allowed. */
void read_cache_close(struct read_cache *cache);

/* Asks the processor to fetch what read_cache_find and read_cache_add will look at first. Changes nothing. */
void read_cache_prefetch(const struct read_cache *cache, uint64_t uid, uint64_t address);

/*
 * The record, or NULL. Good until the next add, move or grow. Counts as a use. 16-byte aligned and followed by its
 * extra bytes, key and value, not by its padding; its checksum is that of the place it was read from, before any move.
 */
const struct record_header *read_cache_find(struct read_cache *cache, uint64_t uid, uint64_t address);

/* Enters a copy of a record that was read from disk and verified: header, extra bytes, key and value; padding is not
 * looked at. One that is larger than an eighth of the small ring (which is an eleventh of bytes_max) is not taken. The
 * record may already be there: then nothing happens. It must not lie in this cache. `address` has 40 bits. */
void read_cache_add(struct read_cache *cache, uint64_t uid, uint64_t address, const struct record_header *record);

/* The record at (uid, address) now has another place; nothing happens when it is not there. One that is already known
 * at the new place stays, and the one at the old place goes. */
void read_cache_move(struct read_cache *cache, uint64_t uid, uint64_t address, uint64_t new_uid, uint64_t new_address);

/* Lets it use more memory, at most bytes_limit in all. Less than it may use already changes nothing. */
void read_cache_grow(struct read_cache *cache, uint64_t bytes_max);

struct read_cache_stats {
    uint64_t bytes;     /* RAM in use, in whole pages */
    uint64_t bytes_max; /* RAM it may use */
    uint64_t records;
    uint64_t hits, misses;
    uint64_t added, evicted; /* records */
};
/* Any thread; each figure is exact or a moment old. */
void read_cache_stats(const struct read_cache *cache, struct read_cache_stats *out);

#endif
