/*
 * index.h - the hash index: from a key's hash to the addresses of the records that may hold the key.
 *
 * One index per shard. It keeps no keys: a look-up yields candidates, entries whose fingerprint agrees, and the caller
 * compares the key in the record itself. Several entries may agree, and distinct keys with equal fingerprints live side
 * by side; among entries with one fingerprint the newest is always met first, so of several records of one key the
 * first whose key agrees is the newest.
 *
 * Threads: one writer (the owner of the shard); any thread may read, without locks, inside an epoch section. Entries
 * are single 64-bit words that change atomically. An entry never moves within its page towards a place that a reader
 * has passed: growth copies a page of 512 entries into two and publishes them, and copies 64 entries of the directory
 * towards its next doubling. That takes some microseconds and is the longest step there is.
 *
 * RAM: 8 bytes a slot. Pages fill to about 85 % before they split, so the index takes 9.4 to 18.8 bytes a key, 13 on
 * average.
 *
 * Which bits of the hash serve: 0..5 for the bucket in the page; then, from the highest on that does not tell the
 * shard (base/hash.h), the directory's, and 15 bits of fingerprint right behind them. So hashes that are near each
 * other lie on one page, and to fill an index in their order touches one page after the other.
 */
#ifndef KVS_ENGINE_INDEX_H
#define KVS_ENGINE_INDEX_H

#include "base/error.h"
#include "engine/epoch.h"

#include <stdbool.h>
#include <stdint.h>

struct index;

#define INDEX_ADDRESS_BITS 40
#define INDEX_ADDRESS_MASK ((1ull << INDEX_ADDRESS_BITS) - 1)
#define INDEX_CLASS_MAX    15u

struct index_entry {
    uint64_t address; /* any 40-bit number: where the record lies */
    unsigned class;   /* 0..15: the size class of the record */
    bool unsettled;   /* an older record of the same key may stand behind this entry */
};

struct index_options {
    unsigned shard_count;   /* of the store: hashes given to it are those of one shard */
    uint64_t bytes_max;     /* RAM it may take, at least 64 KiB */
    uint64_t bytes_initial; /* at first; may grow 32,768-fold. Rounded to a power of two of pages */
};

/* bytes_initial for so many keys: their pages are half full and more, and few of them split. */
uint64_t index_bytes_for(uint64_t keys);

/* `thread` is the writer's; what the writer retires is freed in its epoch_poll. */
enum kvs_err index_open(struct index **out, const struct index_options *options, struct epoch_thread *thread);
/* After every reader has gone and the writer's epoch was drained. */
void index_close(struct index *index);

/* A walk over the candidates for one hash. Plain data; nothing to close. Valid within the section in which it began,
 * and for the writer until its next index_insert. */
struct index_cursor {
    _Atomic uint64_t *page;
    uint32_t window;           /* the fingerprint sought */
    uint8_t home;              /* bucket where the walk begins */
    uint8_t distance;          /* buckets walked */
    uint8_t slot;              /* next slot in the bucket */
    _Atomic uint64_t *empty;   /* an empty slot of this bucket: ends the walk if it still is one when all were read */
    _Atomic uint64_t *current; /* where the latest candidate stands */
};

void index_find(const struct index *index, uint64_t hash, struct index_cursor *cursor);
/* The next candidate, newest first; false when there are no more. */
bool index_next(struct index_cursor *cursor, struct index_entry *entry);

/* Asks the processor to fetch what index_find will touch. */
void index_prefetch(const struct index *index, uint64_t hash);

/*
 * Adds an entry in front of all candidates for its hash. NO_MEMORY: bytes_max is reached; NO_SPACE: more keys than the
 * index can tell apart (some 64 with equal hashes, or 32,768-fold growth). Ends every cursor of the writer.
 */
enum kvs_err index_insert(struct index *index, uint64_t hash, const struct index_entry *entry);

/*
 * Filling an index that is empty, or was filled so: one entry for each key, in any order, but it is fast in that of the
 * hashes. Writer only; nothing else changes the index meanwhile. Errors as of index_insert; it may go on after one.
 */
struct index_filler {
    struct index *index;
    _Atomic uint64_t *page; /* the one that was filled last; NULL: none */
    unsigned depth;
    uint64_t part;    /* of the hashes, that are its */
    uint8_t used[64]; /* slots of its buckets */
};
void index_filler_init(struct index_filler *filler, struct index *index);
enum kvs_err index_fill(struct index_filler *filler, uint64_t hash, const struct index_entry *entry);

/* ---- scanning ---------------------------------------------------------------------------------------------------- */

struct index_scan_entry {
    struct index_entry entry;
    uint16_t order; /* of two entries of one key the newer one has the lower order */
};

enum { INDEX_SCAN_ENTRIES_MAX = 512 };

/*
 * A portion of the index, in the order of hashes. `from` is the least hash to be looked at, one of this shard; *last
 * becomes the greatest, chosen so that about `wanted` (at least 1) entries lie between them, and never beyond a page.
 * Gives every entry whose key may have a hash from `from` to *last, both included, and perhaps some more: the index
 * does not know all bits of the hashes, so the key decides. Returns how many. What hashes there are between two numbers
 * does not depend on the index, so a scan can go on behind *last whatever happens to it, and in another index of the
 * same keys. Writer only.
 */
unsigned index_scan(const struct index *index, uint64_t from, unsigned wanted,
                    struct index_scan_entry out[INDEX_SCAN_ENTRIES_MAX], uint64_t *last);

/* ---- pages, for a snapshot (snapshot.h) -------------------------------------------------------------------------- */

enum { INDEX_PAGE_BYTES = 4096, INDEX_PAGE_ENTRIES = 512 };

/* Which hashes a page is for: those whose lowest `depth` bits, of those that choose the page, are `part`. */
struct index_place {
    uint32_t part;
    uint32_t depth;
};

/* The pages, one after the other, while nobody changes the index. *at is 0 at first. NULL: there are no more. */
const void *index_page_next(const struct index *index, uint64_t *at, struct index_place *place);
/* What index_open_pages has to know beside them. */
unsigned index_depth_min(const struct index *index);
/* The entries of a page, in no order; returns how many. */
unsigned index_page_read(const void *page, struct index_entry entries[INDEX_PAGE_ENTRIES]);

struct index_pages {
    unsigned depth_min;
    uint64_t entries;
    const struct index_place *places; /* of `count` pages, at least one … */
    uint64_t count;
    void *memory; /* … that lie there: see page_pool_lend */
};
/* The index that these are the pages of. It owns the memory then. CORRUPT: they are not those of an index; NO_MEMORY.
 */
enum kvs_err index_open_pages(struct index **out, const struct index_options *options, struct epoch_thread *thread,
                              const struct index_pages *pages);
/* Memory to map so many pages into, for index_open_pages; NULL: there is none. */
void *index_pages_alloc(uint64_t count);
void index_pages_free(void *memory, uint64_t count);
/* Takes a part of lent memory over, if there is stock for it (page_pool.h). Writer only; some 0.3 ms. */
void index_take_over(struct index *index);

/* ---- change in place --------------------------------------------------------------------------------------------- */

/* Replaces, or removes, the candidate that index_next gave last. Writer only. */
void index_replace(struct index *index, struct index_cursor *cursor, const struct index_entry *entry);
void index_remove(struct index *index, struct index_cursor *cursor);

/* Whether the index would grow more smoothly with more memory in stock, and putting it there: for another thread than
 * the writer, which would have to wait for the system. The latter is true when index_take_over wants it. */
bool index_wants_stock(const struct index *index);
bool index_stock(struct index *index);

/* bytes_max from now on; what it has taken stays. And whether it is about to come to that. Any thread. */
void index_allow(struct index *index, uint64_t bytes_max);
bool index_is_tight(const struct index *index);

struct index_stats {
    uint64_t entries;
    uint64_t bytes;
    uint64_t splits;
    uint64_t directory_step_max; /* most entries of the directory that were copied at once */
};
/* Any thread; a moment old. */
void index_stats(const struct index *index, struct index_stats *out);

#endif
