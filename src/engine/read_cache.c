/*
 * read_cache.c - two rings of records, a table that finds them, a ghost that remembers who has left.
 *
 *   records   ┌────── small ring ──────┬─────────────────── main ring ─ … ─┐   entry: uid, address and uses, record
 *             └────────────────────────┴────────────────────────── … ─┘   positions in units of 16 bytes
 *   table     buckets of eight slots, 64 bytes: a tag of 28 bits and a position of 36
 *   ghost     one bucket for each of the table's: eight fingerprints of 32 bits, the youngest first
 *
 * Happy path of a look-up: two buckets may hold a place, by two halves of its hash; a slot with the right tag leads to
 * the entry, which tells for certain. Of an add: the ghost says which ring; room is made at the ring's head by working
 * off its tail; the record is copied and gets a slot in the emptier of its two buckets.
 *
 * The table grows by linear hashing, a bucket at a time, in address space that lies ready: splitting bucket s moves
 * some of its slots to a new last bucket. A slot follows the half of the hash that had brought it to s. The ghost's
 * bucket is just copied: what is then in the wrong one of the two is never asked for and is pushed out in time.
 *
 * A ring holds [tail, head), or after the head has begun anew, [tail, end) and [0, head). Its capacity counts only
 * where the head turns back, so a larger one needs nothing moved. A smaller one, when the table needs memory that the
 * main ring has in use, is set where the head turns; in the round that follows the tail is made to run a little faster,
 * so that it has left what lies behind the capacity when the head comes there (main_keep_pace). The pages behind it are
 * given back in small pieces.
 *
 * Failure modes: none but the opening. When both buckets of a place are full, an entry moves to the other of its own
 * two; should none find room there, the least used one goes. When the table may not grow for want of memory, records
 * leave early.
 */
#include "engine/read_cache.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "engine/big_memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    UNIT_BYTES = RECORD_ALIGN,
    BUCKET_SLOTS = 8,
    BUCKETS_FIRST = 64,
    /* Records for each bucket: beyond the first figure the table grows, beyond the second it holds no more. While it
     * grows at six in each, one record in some 20,000 finds no slot that could be cleared for it; at six and a half
     * it is one in 1,000. */
    BUCKET_LOAD = 6,
    BUCKET_LOAD_MAX = 7,
    SMALL_SHARE = 11,       /* the small ring is this part of the whole: about a tenth of what remains for records */
    RECORD_SHARE = 8,       /* the largest record is this part of the small ring */
    SHRINK_SHARE = 32,      /* the main ring gives up this part of the whole in a round */
    USES_MAX = 3,           /* of an entry; more are not counted */
    USES_TO_STAY = 1,       /* of an entry in the small ring, to move on to the main one */
    FETCH_AHEAD = 16,       /* entries */
    REINSERTS_MAX = 16,     /* in one add ... */
    REINSERT_BYTES = 65536, /* ... and their bytes */
    SMALL_PAGE = 4096,
    HUGE_PAGE = 2 * 1024 * 1024,
};

/* From here on huge pages are a small part of the whole. */
#define HUGE_FROM (256ull << 20)

#define POSITION_BITS 36
#define POSITION_MASK ((1ull << POSITION_BITS) - 1)

struct bucket {
    uint64_t slots[BUCKET_SLOTS]; /* 0 = empty */
};
static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

struct ghost_bucket {
    uint32_t prints[BUCKET_SLOTS]; /* 0 = empty */
};

struct entry {
    uint64_t uid;
    uint64_t address : 40;
    uint64_t uses : 2;
    uint64_t gone : 1; /* it has no slot any more */
    uint64_t : 21;
    struct record_header record;
};
static_assert(offsetof(struct entry, record) == UNIT_BYTES, "records lie at multiples of 16 bytes");

struct cache_ring {
    uint8_t *memory;
    uint64_t capacity; /* where the head turns back */
    uint64_t head, tail;
    uint64_t end;     /* where the tail turns back, while `wrapped` */
    uint64_t touched; /* pages below this may be in RAM */
    uint64_t fetched; /* of entries in front of this, from the tail on, the buckets are being fetched */
    bool wrapped;     /* the head has turned back, the tail has not */
    bool filled;      /* the head has met the capacity since that was last raised */
};

struct place_hash {
    uint32_t halves[2];
    uint32_t tag;
    uint32_t print;
};

struct read_cache {
    struct bucket *table;
    struct ghost_bucket *ghost;
    uint8_t *records; /* the small ring's memory, then the main ring's */
    uint64_t buckets;
    uint64_t level_mask; /* buckets are between this + 1 and twice that */
    struct cache_ring small, main;
    unsigned reinserts_left;
    uint64_t reinsert_bytes_left;
    bool shrink_wanted;

    uint64_t buckets_max;
    uint64_t bytes_limit;
    uint64_t page_bytes;
    void *memory; /* all of it */
    size_t memory_bytes;

    /* Written by the owner, read by anybody. */
    _Atomic uint64_t bytes, bytes_max, record_count, hits, misses, added, evicted;
};

static void stat_set(_Atomic uint64_t *stat, uint64_t value)
{
    atomic_store_explicit(stat, value, memory_order_relaxed);
}

static uint64_t stat_get(const _Atomic uint64_t *stat)
{
    return atomic_load_explicit(stat, memory_order_relaxed);
}

/* One writer: no locked instruction is needed. */
static void stat_add(_Atomic uint64_t *stat, uint64_t value)
{
    stat_set(stat, stat_get(stat) + value);
}

/* ---- places and entries ---- */

static struct place_hash place_hash(uint64_t uid, uint64_t address)
{
    uint64_t x = uid * 0x9e3779b97f4a7c15ull + address;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    /* A slot or a fingerprint of an entry is never 0: that is an empty one. */
    return (struct place_hash){.halves = {(uint32_t)x, (uint32_t)(x >> 32)},
                               .tag = (uint32_t)(x * 0xd6e8feb86659fd93ull >> 37) | 1u << 27,
                               .print = (uint32_t)(x * 0xa0761d6478bd642full >> 32) | 1u};
}

static struct place_hash entry_hash(const struct entry *entry)
{
    return place_hash(entry->uid, entry->address);
}

/* Bytes that carry something: all but the padding. */
static uint64_t record_payload(const struct record_header *record)
{
    return sizeof *record + record->extra_bytes + record->key_bytes + (uint64_t)record->value_bytes;
}

/* Bytes that a record takes in a ring. */
static uint64_t entry_bytes(const struct record_header *record)
{
    return align_up(offsetof(struct entry, record) + record_payload(record), UNIT_BYTES);
}

static struct entry *ring_entry(const struct cache_ring *ring, uint64_t offset)
{
    return (struct entry *)(void *)(ring->memory + offset);
}

static struct entry *slot_entry(const struct read_cache *cache, uint64_t slot)
{
    return (struct entry *)(void *)(cache->records + (slot & POSITION_MASK) * UNIT_BYTES);
}

static uint64_t slot_make(const struct read_cache *cache, uint32_t tag, const struct entry *entry)
{
    return (uint64_t)tag << POSITION_BITS | (uint64_t)((const uint8_t *)entry - cache->records) / UNIT_BYTES;
}

/* ---- memory ---- */

static uint64_t whole_pages(const struct read_cache *cache, uint64_t bytes)
{
    return align_up(bytes, cache->page_bytes);
}

/* What table, ghost and the rest take with that many buckets. */
static uint64_t overhead_bytes(const struct read_cache *cache, uint64_t buckets)
{
    return align_up(sizeof *cache, SMALL_PAGE) + whole_pages(cache, buckets * sizeof *cache->table) +
           whole_pages(cache, buckets * sizeof *cache->ghost);
}

/* What a ring takes, or may take without asking. */
static uint64_t ring_claim(const struct read_cache *cache, const struct cache_ring *ring)
{
    uint64_t touched = whole_pages(cache, ring->touched);
    return touched > ring->capacity ? touched : ring->capacity;
}

static void bytes_count(struct read_cache *cache)
{
    uint64_t bytes = overhead_bytes(cache, cache->buckets) + whole_pages(cache, cache->small.touched) +
                     whole_pages(cache, cache->main.touched);
    KVS_ASSERT(bytes <= stat_get(&cache->bytes_max));
    stat_set(&cache->bytes, bytes);
}

/* Gives back a piece of what lies behind the main ring's capacity, once nothing is there any more. */
static void main_release(struct read_cache *cache)
{
    struct cache_ring *ring = &cache->main;
    uint64_t used = ring->wrapped ? ring->end : ring->head;
    uint64_t keep = whole_pages(cache, used > ring->capacity ? used : ring->capacity);
    if (ring->touched <= keep)
        return;
    enum { PIECE = 256 * 1024 };
    uint64_t piece = cache->page_bytes > PIECE ? cache->page_bytes : PIECE;
    uint64_t touched = whole_pages(cache, ring->touched);
    uint64_t from = touched - keep > piece ? touched - piece : keep;
    /* It can only fail where memory is locked; then the pages stay counted, and are asked for again. */
    if (madvise(ring->memory + from, touched - from, MADV_DONTNEED) == 0)
        ring->touched = from;
}

/* ---- the table ---- */

static uint64_t bucket_of(const struct read_cache *cache, uint32_t half)
{
    uint64_t number = half & (cache->level_mask << 1 | 1);
    return number < cache->buckets ? number : number & cache->level_mask;
}

static struct bucket *bucket_at(const struct read_cache *cache, const struct place_hash *hash, unsigned choice)
{
    return &cache->table[bucket_of(cache, hash->halves[choice])];
}

/* Both buckets, and the ghost's. */
static void hash_prefetch(const struct read_cache *cache, const struct place_hash *hash)
{
    __builtin_prefetch(bucket_at(cache, hash, 0));
    __builtin_prefetch(bucket_at(cache, hash, 1));
    __builtin_prefetch(&cache->ghost[bucket_of(cache, hash->halves[0])]);
}

static uint64_t *table_find(const struct read_cache *cache, const struct place_hash *hash, uint64_t uid,
                            uint64_t address)
{
    for (unsigned choice = 0; choice < 2; choice++) {
        struct bucket *bucket = bucket_at(cache, hash, choice);
        for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
            if (bucket->slots[i] >> POSITION_BITS != hash->tag)
                continue;
            const struct entry *entry = slot_entry(cache, bucket->slots[i]);
            if (entry->uid == uid && entry->address == address)
                return &bucket->slots[i];
        }
    }
    return NULL;
}

/* The slot of an entry that is there. */
static uint64_t *table_slot(const struct read_cache *cache, const struct entry *entry)
{
    struct place_hash hash = entry_hash(entry);
    uint64_t slot = slot_make(cache, hash.tag, entry);
    uint64_t *found = NULL;
    for (unsigned choice = 0; choice < 2 && found == NULL; choice++) {
        struct bucket *bucket = bucket_at(cache, &hash, choice);
        for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
            if (bucket->slots[i] == slot)
                found = &bucket->slots[i];
        }
    }
    KVS_ASSERT(found != NULL);
    return found;
}

/* The record is not to be found any more; its bytes leave with the tail. */
static void entry_drop(struct read_cache *cache, uint64_t *slot)
{
    struct entry *entry = slot_entry(cache, *slot);
    KVS_ASSERT(!entry->gone);
    KVS_ASSERT(stat_get(&cache->record_count) > 0);
    entry->gone = 1;
    *slot = 0;
    stat_set(&cache->record_count, stat_get(&cache->record_count) - 1);
    stat_add(&cache->evicted, 1);
}

static unsigned bucket_empty_slots(const struct bucket *bucket, unsigned *first)
{
    unsigned count = 0;
    for (unsigned i = BUCKET_SLOTS; i-- > 0;) {
        if (bucket->slots[i] != 0)
            continue;
        count++;
        *first = i;
    }
    return count;
}

/* An empty slot where there was none: some entry of the two buckets moves to the other of its own two, or if there is
 * no room for any, the least used one goes. While the table grows, the buckets of a round that have not been divided
 * yet are fuller than the others, and every few inserts come here; otherwise hardly any does. */
static uint64_t *slot_clear(struct read_cache *cache, struct bucket *const buckets[2])
{
    uint64_t *least = NULL;
    unsigned uses = USES_MAX + 1;
    for (unsigned i = 0; i < 2 * BUCKET_SLOTS; i++)
        __builtin_prefetch(slot_entry(cache, buckets[i / BUCKET_SLOTS]->slots[i % BUCKET_SLOTS]));
    for (unsigned i = 0; i < 2 * BUCKET_SLOTS; i++) {
        uint64_t *slot = &buckets[i / BUCKET_SLOTS]->slots[i % BUCKET_SLOTS];
        const struct entry *entry = slot_entry(cache, *slot);
        struct place_hash hash = entry_hash(entry);
        unsigned first = 0;
        struct bucket *other = bucket_at(cache, &hash, bucket_at(cache, &hash, 0) == buckets[i / BUCKET_SLOTS]);
        if (bucket_empty_slots(other, &first) > 0) {
            other->slots[first] = *slot;
            *slot = 0;
            return slot;
        }
        if (entry->uses < uses) {
            least = slot;
            uses = entry->uses;
        }
    }
    entry_drop(cache, least);
    return least;
}

static void table_insert(struct read_cache *cache, const struct entry *entry)
{
    struct place_hash hash = entry_hash(entry);
    struct bucket *buckets[2];
    unsigned empty[2], first[2] = {0, 0};
    for (unsigned choice = 0; choice < 2; choice++) {
        buckets[choice] = bucket_at(cache, &hash, choice);
        empty[choice] = bucket_empty_slots(buckets[choice], &first[choice]);
    }
    unsigned choice = empty[1] > empty[0];
    uint64_t *slot = empty[choice] > 0 ? &buckets[choice]->slots[first[choice]] : slot_clear(cache, buckets);
    KVS_ASSERT(*slot == 0);
    *slot = slot_make(cache, hash.tag, entry);
    stat_add(&cache->record_count, 1);
}

/* Adds a bucket and moves to it what belongs there out of the one that it divides. */
static void table_split(struct read_cache *cache)
{
    KVS_ASSERT(cache->buckets < cache->buckets_max);
    uint64_t new_number = cache->buckets;
    uint64_t old_number = new_number & cache->level_mask;
    struct bucket *old_bucket = &cache->table[old_number];
    struct bucket *new_bucket = &cache->table[new_number];
    for (unsigned i = 0; i < BUCKET_SLOTS; i++)
        __builtin_prefetch(slot_entry(cache, old_bucket->slots[i]));
    for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
        if (old_bucket->slots[i] == 0)
            continue;
        struct place_hash hash = entry_hash(slot_entry(cache, old_bucket->slots[i]));
        uint32_t half = hash.halves[bucket_of(cache, hash.halves[0]) != old_number];
        KVS_ASSERT(bucket_of(cache, half) == old_number);
        if ((half & (cache->level_mask << 1 | 1)) == old_number)
            continue;
        new_bucket->slots[i] = old_bucket->slots[i];
        old_bucket->slots[i] = 0;
    }
    cache->ghost[new_number] = cache->ghost[old_number];
    cache->buckets++;
    if (cache->buckets == 2 * (cache->level_mask + 1))
        cache->level_mask = cache->level_mask << 1 | 1;
}

/* Whether a bucket more stays within the budget. If not, memory is asked of the main ring: at once what it has never
 * used, else some at its next turn. */
static bool table_may_grow(struct read_cache *cache)
{
    if (cache->buckets == cache->buckets_max)
        return false;
    uint64_t more = overhead_bytes(cache, cache->buckets + 1) - overhead_bytes(cache, cache->buckets);
    if (more == 0)
        return true;
    uint64_t bytes_max = stat_get(&cache->bytes_max);
    uint64_t claimed = overhead_bytes(cache, cache->buckets) + ring_claim(cache, &cache->small);
    struct cache_ring *ring = &cache->main;
    if (claimed + ring_claim(cache, ring) + more <= bytes_max)
        return true;
    if (ring->capacity >= more + bytes_max / 2 && ring->capacity - more >= ring->touched)
        ring->capacity -= more;
    else
        cache->shrink_wanted = true;
    return claimed + ring_claim(cache, ring) + more <= bytes_max;
}

/* ---- the ghost ---- */

static void ghost_add(struct read_cache *cache, const struct place_hash *hash)
{
    struct ghost_bucket *bucket = &cache->ghost[bucket_of(cache, hash->halves[0])];
    memmove(bucket->prints + 1, bucket->prints, sizeof bucket->prints - sizeof bucket->prints[0]);
    bucket->prints[0] = hash->print;
}

/* True when it remembers the place; then it does no longer. */
static bool ghost_take(struct read_cache *cache, const struct place_hash *hash)
{
    struct ghost_bucket *bucket = &cache->ghost[bucket_of(cache, hash->halves[0])];
    for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket->prints[i] != hash->print)
            continue;
        memmove(&bucket->prints[i], &bucket->prints[i + 1], (BUCKET_SLOTS - 1 - i) * sizeof bucket->prints[0]);
        bucket->prints[BUCKET_SLOTS - 1] = 0;
        return true;
    }
    return false;
}

/* ---- the rings ---- */

static uint64_t ring_used(const struct cache_ring *ring)
{
    return ring->wrapped ? ring->end - ring->tail + ring->head : ring->head - ring->tail;
}

static bool ring_fits(const struct cache_ring *ring, uint64_t bytes)
{
    return ring->head + bytes <= ring->capacity && (!ring->wrapped || ring->head + bytes <= ring->tail);
}

static void tail_turn(struct cache_ring *ring)
{
    if (ring->wrapped && ring->tail == ring->end) {
        ring->tail = 0;
        ring->fetched = 0;
        ring->wrapped = false;
    }
}

static void head_turn(struct read_cache *cache, struct cache_ring *ring)
{
    KVS_ASSERT(!ring->wrapped);
    ring->end = ring->head;
    ring->head = 0;
    ring->wrapped = true;
    ring->filled = true;
    tail_turn(ring);
    uint64_t step = whole_pages(cache, stat_get(&cache->bytes_max) / SHRINK_SHARE);
    bool shrunk = ring->touched > ring->capacity; /* some of the last time has not been given back yet */
    if (ring == &cache->main && cache->shrink_wanted && !shrunk &&
        ring->capacity >= step + stat_get(&cache->bytes_max) / 2)
        ring->capacity -= step;
    if (ring == &cache->main)
        cache->shrink_wanted = false;
}

static void tail_advance(struct cache_ring *ring, uint64_t bytes)
{
    KVS_ASSERT(bytes <= ring_used(ring));
    ring->tail += bytes;
    tail_turn(ring);
}

/* The oldest entry. Those behind it will want their buckets soon: waiting for memory one by one is what costs here. */
static struct entry *tail_entry(const struct read_cache *cache, struct cache_ring *ring)
{
    KVS_ASSERT(ring_used(ring) > 0);
    if (ring->tail >= ring->fetched) {
        uint64_t last = ring->wrapped ? ring->end : ring->head;
        ring->fetched = ring->tail;
        for (unsigned i = 0; i < FETCH_AHEAD && ring->fetched < last; i++) {
            const struct entry *entry = ring_entry(ring, ring->fetched);
            struct place_hash hash = entry_hash(entry);
            hash_prefetch(cache, &hash);
            ring->fetched += entry_bytes(&entry->record);
        }
    }
    return ring_entry(ring, ring->tail);
}

static void head_advance(struct cache_ring *ring, uint64_t bytes)
{
    ring->head += bytes;
    if (ring->head > ring->touched)
        ring->touched = ring->head;
}

/* Copies an entry to where there is room for it, and lets its slot follow. */
static void entry_copy(struct read_cache *cache, struct entry *to, const struct entry *from, uint64_t bytes,
                       unsigned uses)
{
    uint64_t *slot = table_slot(cache, from);
    uint32_t tag = (uint32_t)(*slot >> POSITION_BITS);
    memmove(to, from, bytes);
    to->uses = (uint64_t)uses & USES_MAX;
    *slot = slot_make(cache, tag, to);
}

/* Works off the oldest entry of the main ring: one that was used goes to the head again, within limits. */
static void main_drop(struct read_cache *cache)
{
    struct cache_ring *ring = &cache->main;
    struct entry *entry = tail_entry(cache, ring);
    uint64_t bytes = entry_bytes(&entry->record);
    bool stays = !entry->gone && entry->uses > 0 && cache->reinserts_left > 0 && cache->reinsert_bytes_left >= bytes;
    if (stays && !ring->wrapped && ring->head + bytes > ring->capacity)
        head_turn(cache, ring);
    if (stays && ring->head + bytes <= ring->capacity) {
        /* The head never overtakes the tail: where they overlap, the copy goes towards lower addresses. */
        entry_copy(cache, ring_entry(ring, ring->head), entry, bytes, (unsigned)entry->uses - 1);
        head_advance(ring, bytes);
        cache->reinserts_left--;
        cache->reinsert_bytes_left -= bytes;
    } else if (!entry->gone) {
        entry_drop(cache, table_slot(cache, entry));
    }
    tail_advance(ring, bytes);
}

/* While something lies behind the capacity: the tail goes ahead of the head in proportion, so that both come to their
 * turns together. */
static void main_keep_pace(struct read_cache *cache)
{
    struct cache_ring *ring = &cache->main;
    while (ring->wrapped && ring->end > ring->capacity) {
        uint64_t pace = ring->capacity / (ring->end - ring->capacity);
        if (ring->tail >= ring->head + ring->head / (pace > 0 ? pace : 1))
            return;
        main_drop(cache);
    }
}

static void main_make_room(struct read_cache *cache, uint64_t bytes)
{
    struct cache_ring *ring = &cache->main;
    KVS_ASSERT(bytes <= ring->capacity);
    main_keep_pace(cache);
    while (!ring_fits(ring, bytes)) {
        if (ring->wrapped)
            main_drop(cache);
        else
            head_turn(cache, ring);
    }
}

/* Works off the oldest entry of the small ring: one that was used, or for which the main ring has room that nothing
 * has claimed yet, goes there; another only leaves its fingerprint. */
static void small_drop(struct read_cache *cache)
{
    struct cache_ring *ring = &cache->small;
    struct entry *entry = tail_entry(cache, ring);
    uint64_t bytes = entry_bytes(&entry->record);
    if (!entry->gone) {
        bool room = !cache->main.filled && ring_fits(&cache->main, bytes);
        if (entry->uses >= USES_TO_STAY || room) {
            main_make_room(cache, bytes);
            entry_copy(cache, ring_entry(&cache->main, cache->main.head), entry, bytes, 0);
            head_advance(&cache->main, bytes);
        } else {
            struct place_hash hash = entry_hash(entry);
            ghost_add(cache, &hash);
            entry_drop(cache, table_slot(cache, entry));
        }
    }
    tail_advance(ring, bytes);
}

static void small_make_room(struct read_cache *cache, uint64_t bytes)
{
    struct cache_ring *ring = &cache->small;
    KVS_ASSERT(bytes <= ring->capacity);
    while (!ring_fits(ring, bytes)) {
        if (ring->wrapped)
            small_drop(cache);
        else
            head_turn(cache, ring);
    }
}

/* Room in the table for one record more. */
static void table_make_room(struct read_cache *cache)
{
    while (stat_get(&cache->record_count) >= cache->buckets * BUCKET_LOAD && table_may_grow(cache))
        table_split(cache);
    while (stat_get(&cache->record_count) >= cache->buckets * BUCKET_LOAD_MAX) {
        if (ring_used(&cache->small) >= ring_used(&cache->main) / (SMALL_SHARE - 1))
            small_drop(cache);
        else
            main_drop(cache);
    }
}

/* ---- the contract ---- */

enum kvs_err read_cache_open(struct read_cache **out, uint64_t bytes_max, uint64_t bytes_limit)
{
    if (bytes_max < READ_CACHE_BYTES_MIN || bytes_max > bytes_limit)
        return KVS_ERR_INVALID;
    bytes_limit = bytes_limit < READ_CACHE_BYTES_MAX ? bytes_limit : READ_CACHE_BYTES_MAX;
    bytes_max = bytes_max < bytes_limit ? bytes_max : bytes_limit;
    struct read_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return KVS_ERR_NO_MEMORY;
    cache->page_bytes = bytes_max >= HUGE_FROM ? HUGE_PAGE : SMALL_PAGE;
    cache->bytes_limit = bytes_limit;
    /* As many as there can be entries of the least size. */
    uint64_t least = BUCKET_LOAD * align_up(sizeof(struct entry) + 1, UNIT_BYTES);
    cache->buckets_max = bytes_limit / least + BUCKETS_FIRST;
    cache->buckets = BUCKETS_FIRST;
    cache->level_mask = BUCKETS_FIRST - 1;

    uint64_t small_bytes = align_up(bytes_limit / SMALL_SHARE, HUGE_PAGE);
    uint64_t main_bytes = align_up(bytes_limit, HUGE_PAGE);
    uint64_t table_bytes = align_up(cache->buckets_max * sizeof *cache->table, HUGE_PAGE);
    uint64_t ghost_bytes = align_up(cache->buckets_max * sizeof *cache->ghost, HUGE_PAGE);
    KVS_ASSERT((small_bytes + main_bytes) / UNIT_BYTES <= POSITION_MASK);
    cache->memory_bytes = (size_t)(small_bytes + main_bytes + table_bytes + ghost_bytes);
    cache->memory = big_memory_alloc(cache->memory_bytes);
    if (cache->memory == NULL) {
        free(cache);
        return KVS_ERR_NO_MEMORY;
    }
    /* Advice, but one that RAM depends on: half-used huge pages would be a large part of a small cache. */
    if (cache->page_bytes == SMALL_PAGE)
        (void)madvise(cache->memory, cache->memory_bytes, MADV_NOHUGEPAGE);
    cache->records = cache->memory;
    cache->small.memory = cache->records;
    cache->main.memory = cache->records + small_bytes;
    cache->table = (struct bucket *)(void *)(cache->main.memory + main_bytes);
    cache->ghost = (struct ghost_bucket *)(void *)(cache->main.memory + main_bytes + table_bytes);
    cache->small.capacity = align_down(bytes_max / SMALL_SHARE, cache->page_bytes);
    cache->main.capacity =
        align_down(bytes_max - cache->small.capacity - overhead_bytes(cache, cache->buckets), cache->page_bytes);
    stat_set(&cache->bytes_max, bytes_max);
    bytes_count(cache);
    *out = cache;
    return KVS_ERR_OK;
}

void read_cache_close(struct read_cache *cache)
{
    if (cache == NULL)
        return;
    big_memory_free(cache->memory, cache->memory_bytes);
    free(cache);
}

void read_cache_prefetch(const struct read_cache *cache, uint64_t uid, uint64_t address)
{
    struct place_hash hash = place_hash(uid, address);
    __builtin_prefetch(bucket_at(cache, &hash, 0));
    __builtin_prefetch(bucket_at(cache, &hash, 1));
}

const struct record_header *read_cache_find(struct read_cache *cache, uint64_t uid, uint64_t address)
{
    struct place_hash hash = place_hash(uid, address);
    const uint64_t *slot = table_find(cache, &hash, uid, address);
    if (slot == NULL) {
        stat_add(&cache->misses, 1);
        return NULL;
    }
    struct entry *entry = slot_entry(cache, *slot);
    KVS_ASSERT(!entry->gone);
    if (entry->uses < USES_MAX)
        entry->uses++;
    stat_add(&cache->hits, 1);
    return &entry->record;
}

void read_cache_add(struct read_cache *cache, uint64_t uid, uint64_t address, const struct record_header *record)
{
    KVS_ASSERT(address >> 40 == 0);
    uint64_t bytes = entry_bytes(record);
    struct place_hash hash = place_hash(uid, address);
    hash_prefetch(cache, &hash);
    if (bytes > cache->small.capacity / RECORD_SHARE || table_find(cache, &hash, uid, address) != NULL)
        return;
    cache->reinserts_left = REINSERTS_MAX;
    cache->reinsert_bytes_left = REINSERT_BYTES;
    table_make_room(cache);
    struct cache_ring *ring = ghost_take(cache, &hash) ? &cache->main : &cache->small;
    if (ring == &cache->main)
        main_make_room(cache, bytes);
    else
        small_make_room(cache, bytes);
    KVS_ASSERT(ring_fits(ring, bytes));
    struct entry *entry = ring_entry(ring, ring->head);
    *entry = (struct entry){.uid = uid, .address = address & ((1ull << 40) - 1)};
    memcpy(&entry->record, record, record_payload(record));
    head_advance(ring, bytes);
    table_insert(cache, entry);
    stat_add(&cache->added, 1);
    main_release(cache);
    bytes_count(cache);
}

void read_cache_move(struct read_cache *cache, uint64_t uid, uint64_t address, uint64_t new_uid, uint64_t new_address)
{
    KVS_ASSERT(new_address >> 40 == 0);
    struct place_hash hash = place_hash(uid, address);
    uint64_t *slot = table_find(cache, &hash, uid, address);
    if (slot == NULL || (uid == new_uid && address == new_address))
        return;
    struct place_hash new_hash = place_hash(new_uid, new_address);
    if (table_find(cache, &new_hash, new_uid, new_address) != NULL) {
        entry_drop(cache, slot);
        return;
    }
    struct entry *entry = slot_entry(cache, *slot);
    KVS_ASSERT(!entry->gone);
    *slot = 0;
    stat_set(&cache->record_count, stat_get(&cache->record_count) - 1);
    entry->uid = new_uid;
    entry->address = new_address & ((1ull << 40) - 1);
    table_insert(cache, entry);
}

void read_cache_grow(struct read_cache *cache, uint64_t bytes_max)
{
    uint64_t before = stat_get(&cache->bytes_max);
    bytes_max = bytes_max < cache->bytes_limit ? bytes_max : cache->bytes_limit;
    if (bytes_max <= before)
        return;
    uint64_t small = align_down(bytes_max / SMALL_SHARE, cache->page_bytes);
    KVS_ASSERT(small >= cache->small.capacity);
    uint64_t more = bytes_max - before - (small - cache->small.capacity);
    cache->small.capacity = small;
    cache->main.capacity += align_down(more, cache->page_bytes);
    cache->main.filled = false;
    stat_set(&cache->bytes_max, bytes_max);
    bytes_count(cache);
}

void read_cache_stats(const struct read_cache *cache, struct read_cache_stats *out)
{
    *out = (struct read_cache_stats){.bytes = stat_get(&cache->bytes),
                                     .bytes_max = stat_get(&cache->bytes_max),
                                     .records = stat_get(&cache->record_count),
                                     .hits = stat_get(&cache->hits),
                                     .misses = stat_get(&cache->misses),
                                     .added = stat_get(&cache->added),
                                     .evicted = stat_get(&cache->evicted)};
}
