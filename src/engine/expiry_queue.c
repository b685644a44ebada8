/*
 * expiry_queue.c - a hierarchical timing wheel over all of 64 bits.
 *
 * Time is counted in ticks of 64 ms, a number of 58 bits: ten digits of six. The cursor is a tick; everything before it
 * has been dealt with. An item lies at the level of the highest digit in which its tick differs from the cursor's, in
 * the slot that its own digit says:
 *
 *     level 9 ... | level 2: 4.4 minutes a slot | level 1: 4 s a slot | level 0: 64 ms a slot
 *
 * So the levels together reach to the end of time and need no overflow list, all items of a level are before all items
 * of the next, and the first occupied slot of the first occupied level is the next one: a jump over years looks at one
 * word per level. Items that are before the cursor already when they are added go to a bucket of their own, the past.
 *
 * Happy path: expiry_queue_take sets the cursor to the beginning of the next bucket. One of level 0 is due as a whole.
 * One of a higher level is now `pending`: its digit is the cursor's. It is emptied item by item, to the caller what is
 * due and to lower levels what is not, over as many calls as it takes, and the cursor does not move before that is
 * done.
 *
 * The clock goes back: the cursor must too, because what is added from now on may be before it. With M the highest
 * digit in which it changes, all levels below M hold only items whose digit M is that of the old cursor; their lists
 * are hooked to that slot of level M, and everything is in place again.
 *
 * Sweeps: each bucket has two lists, of two colours. A sweep looks at the items of one colour and moves those it keeps
 * to the other, which is also the colour of what is added meanwhile. Items keep their colour when they are moved to
 * another bucket, so nothing is missed or seen twice. Between sweeps all items have the same colour.
 *
 * Memory: a list is a chain of chunks, all full but the first. Thus n items need at most n / 21 chunks and one for each
 * list, wherever they move to; expiry_queue_add sees to it that the pool has so many, and is the only one to fail.
 */
#include "engine/expiry_queue.h"

#include "base/assert.h"
#include "engine/expiry_pool.h"

#include <stdlib.h>
#include <string.h>

enum {
    TICK_BITS = 6,
    DIGIT_BITS = 6,
    SLOTS = 1 << DIGIT_BITS,
    LEVELS = (64 - TICK_BITS + DIGIT_BITS - 1) / DIGIT_BITS,
    PAST = LEVELS * SLOTS, /* the bucket of what is before the cursor */
    BUCKETS = PAST + 1,
    NO_BUCKET = BUCKETS,
    COLOURS = 2,
    LISTS = COLOURS * BUCKETS,
};

static_assert(EXPIRY_TICK_MS == 1 << TICK_BITS, "ticks are cut off by a shift");

struct item_list {
    struct expiry_chunk *head; /* the only one that may not be full; NULL: no items */
    struct expiry_chunk *tail;
    uint32_t head_items;
};

struct expiry_queue {
    uint64_t cursor;                    /* a tick */
    uint64_t occupied[COLOURS][LEVELS]; /* one bit per slot */
    uint64_t counts[COLOURS];
    _Atomic uint64_t count;  /* their sum, for other threads */
    uint64_t count_max;      /* so many fit in bytes_max */
    uint64_t count_provided; /* for so many the pool has chunks */
    uint64_t touched;
    unsigned fill; /* the colour of what is added */
    bool sweeping; /* the other colour is being swept */
    struct expiry_pool pool;
    struct item_list lists[COLOURS][BUCKETS];
};

/* What one call of expiry_queue_take may still do. */
struct work {
    uint64_t now_ms;
    struct expiry_item *items;
    size_t taken;
    size_t max;
    size_t touches_left;
};

/* The chunks that `count` items need at the most, and the items that always fit into `chunks`. */
static uint64_t chunks_for(uint64_t count)
{
    return count / EXPIRY_CHUNK_ITEMS + (count < LISTS ? count : LISTS);
}

static uint64_t items_in(uint64_t chunks)
{
    /* While each item may be alone in its chunk, 21 of them need 22 chunks; later only the lists' first ones count. */
    uint64_t rest = chunks % (EXPIRY_CHUNK_ITEMS + 1);
    uint64_t items = chunks / (EXPIRY_CHUNK_ITEMS + 1) * EXPIRY_CHUNK_ITEMS + rest - (rest == EXPIRY_CHUNK_ITEMS);
    return items < LISTS ? items : (chunks - LISTS) * EXPIRY_CHUNK_ITEMS + EXPIRY_CHUNK_ITEMS - 1;
}

static uint64_t tick_of(uint64_t time_ms)
{
    return time_ms >> TICK_BITS;
}

/* The first tick that is not over at now_ms: items of earlier ones are due whatever their millisecond. */
static uint64_t first_tick_after(uint64_t now_ms)
{
    return tick_of(now_ms) + ((now_ms & (EXPIRY_TICK_MS - 1)) == EXPIRY_TICK_MS - 1);
}

static unsigned digit_of(uint64_t tick, unsigned level)
{
    return (unsigned)(tick >> (level * DIGIT_BITS)) & (SLOTS - 1);
}

/* The highest digit in which two ticks differ; 0 when they are the same. */
static unsigned level_between(uint64_t a, uint64_t b)
{
    return (unsigned)(63 - __builtin_clzll((a ^ b) | 1)) / DIGIT_BITS;
}

static uint64_t occupied_at(const struct expiry_queue *queue, unsigned level)
{
    return queue->occupied[0][level] | queue->occupied[1][level];
}

static void mark(struct expiry_queue *queue, unsigned colour, unsigned bucket, bool occupied)
{
    if (bucket == PAST)
        return;
    uint64_t bit = 1ull << bucket % SLOTS;
    uint64_t *word = &queue->occupied[colour][bucket / SLOTS];
    *word = occupied ? *word | bit : *word & ~bit;
}

static void list_push(struct expiry_queue *queue, struct item_list *list, const struct expiry_item *item)
{
    if (list->head == NULL || list->head_items == EXPIRY_CHUNK_ITEMS) {
        struct expiry_chunk *chunk = expiry_pool_get(&queue->pool);
        chunk->next = list->head;
        if (list->head == NULL)
            list->tail = chunk;
        list->head = chunk;
        list->head_items = 0;
    }
    list->head->items[list->head_items++] = *item;
}

static void drop_head(struct expiry_queue *queue, struct item_list *list)
{
    struct expiry_chunk *chunk = list->head;
    list->head = chunk->next;
    list->head_items = EXPIRY_CHUNK_ITEMS;
    expiry_pool_put(&queue->pool, chunk);
    if (list->head == NULL) {
        *list = (struct item_list){0};
    } else if (list->head->next != NULL) {
        /* Chunks of a long list lie anywhere: fetch the one after this while this one is worked on. */
        for (unsigned i = 0; i < EXPIRY_CHUNK_BYTES; i += 64)
            __builtin_prefetch((const char *)list->head->next + i);
    }
}

static struct expiry_item list_pop(struct expiry_queue *queue, struct item_list *list)
{
    KVS_ASSERT(list->head != NULL && list->head_items > 0);
    struct expiry_item item = list->head->items[--list->head_items];
    if (list->head_items == 0)
        drop_head(queue, list);
    return item;
}

/* All of `from` to `to`, which keeps to it that only the first chunk may not be full. Moves at most 10 items. */
static void list_join(struct expiry_queue *queue, struct item_list *to, struct item_list *from)
{
    struct item_list more = *from;
    struct item_list less = *to;
    *from = (struct item_list){0};
    if (less.head_items > more.head_items) {
        struct item_list other = less;
        less = more;
        more = other;
    }
    while (less.head_items > 0 && more.head_items < EXPIRY_CHUNK_ITEMS) {
        more.head->items[more.head_items++] = less.head->items[--less.head_items];
        queue->touched++;
    }
    if (less.head != NULL && less.head_items == 0)
        drop_head(queue, &less);
    if (less.head != NULL && less.head_items < EXPIRY_CHUNK_ITEMS) {
        less.tail->next = more.head;
        less.tail = more.tail;
        more = less;
    } else if (less.head != NULL) {
        less.tail->next = more.head->next;
        more.head->next = less.head;
        more.tail = more.tail == more.head ? less.tail : more.tail;
    }
    *to = more;
}

/* Where an item belongs as the cursor is. */
static unsigned bucket_of(const struct expiry_queue *queue, uint64_t tick)
{
    if (tick < queue->cursor)
        return PAST;
    unsigned level = level_between(tick, queue->cursor);
    KVS_ASSERT(level < LEVELS);
    return level * SLOTS + digit_of(tick, level);
}

static void place(struct expiry_queue *queue, unsigned colour, unsigned bucket, const struct expiry_item *item)
{
    struct item_list *list = &queue->lists[colour][bucket];
    if (list->head == NULL)
        mark(queue, colour, bucket, true);
    list_push(queue, list, item);
}

static struct expiry_item take_from(struct expiry_queue *queue, unsigned colour, unsigned bucket)
{
    struct item_list *list = &queue->lists[colour][bucket];
    struct expiry_item item = list_pop(queue, list);
    if (list->head == NULL)
        mark(queue, colour, bucket, false);
    queue->touched++;
    return item;
}

static void count_changed(struct expiry_queue *queue)
{
    uint64_t count = queue->counts[0] + queue->counts[1];
    KVS_ASSERT(count <= queue->count_provided);
    atomic_store_explicit(&queue->count, count, memory_order_relaxed);
}

enum kvs_err expiry_queue_open(struct expiry_queue **out, uint64_t now_ms, uint64_t bytes_max)
{
    struct expiry_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return KVS_ERR_NO_MEMORY;
    expiry_pool_init(&queue->pool);
    queue->cursor = first_tick_after(now_ms);
    queue->count_max = items_in(bytes_max / EXPIRY_CHUNK_BYTES);
    *out = queue;
    return KVS_ERR_OK;
}

void expiry_queue_close(struct expiry_queue *queue)
{
    if (queue == NULL)
        return;
    expiry_pool_deinit(&queue->pool);
    free(queue);
}

static bool provide(struct expiry_queue *queue, uint64_t count)
{
    while (count > queue->count_provided) {
        if (count > queue->count_max || !expiry_pool_grow(&queue->pool))
            return false;
        uint64_t fit = items_in(expiry_pool_chunks(&queue->pool));
        queue->count_provided = fit < queue->count_max ? fit : queue->count_max;
    }
    return true;
}

enum kvs_err expiry_queue_add(struct expiry_queue *queue, const struct expiry_item *item)
{
    if (!provide(queue, queue->counts[0] + queue->counts[1] + 1))
        return KVS_ERR_NO_MEMORY;
    place(queue, queue->fill, bucket_of(queue, tick_of(item->expires_ms)), item);
    queue->counts[queue->fill]++;
    count_changed(queue);
    return KVS_ERR_OK;
}

/* Gives a block back when there is one to spare. */
static void trim(struct expiry_queue *queue)
{
    count_changed(queue);
    expiry_pool_trim(&queue->pool, chunks_for(queue->counts[0] + queue->counts[1]));
    uint64_t fit = items_in(expiry_pool_chunks(&queue->pool));
    queue->count_provided = fit < queue->count_max ? fit : queue->count_max;
}

/* The cursor to an earlier tick: see the top of the file. */
static void cursor_back(struct expiry_queue *queue, uint64_t tick)
{
    KVS_ASSERT(tick < queue->cursor);
    unsigned changed = level_between(tick, queue->cursor);
    KVS_ASSERT(changed < LEVELS);
    unsigned to = changed * SLOTS + digit_of(queue->cursor, changed);
    for (unsigned colour = 0; colour < COLOURS; colour++) {
        for (unsigned level = 0; level < changed; level++) {
            while (queue->occupied[colour][level] != 0) {
                unsigned slot = (unsigned)__builtin_ctzll(queue->occupied[colour][level]);
                unsigned from = level * SLOTS + slot;
                list_join(queue, &queue->lists[colour][to], &queue->lists[colour][from]);
                mark(queue, colour, from, false);
                mark(queue, colour, to, true);
            }
        }
    }
    queue->cursor = tick;
}

/* A bucket that must be emptied before the cursor moves: the past, or one of a higher level whose time has begun. */
static unsigned pending_bucket(const struct expiry_queue *queue)
{
    if (queue->lists[0][PAST].head != NULL || queue->lists[1][PAST].head != NULL)
        return PAST;
    for (unsigned level = 1; level < LEVELS; level++) {
        unsigned slot = digit_of(queue->cursor, level);
        if ((occupied_at(queue, level) >> slot & 1) != 0)
            return level * SLOTS + slot;
    }
    return NO_BUCKET;
}

/* The first bucket at or after the cursor, when none is pending; `begin`: its first tick. */
static unsigned next_bucket(const struct expiry_queue *queue, uint64_t *begin)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        uint64_t occupied = occupied_at(queue, level);
        if (occupied != 0) {
            unsigned slot = (unsigned)__builtin_ctzll(occupied);
            KVS_ASSERT(slot >= digit_of(queue->cursor, level));
            unsigned bits = level * DIGIT_BITS;
            *begin = ((queue->cursor >> bits & ~(uint64_t)(SLOTS - 1)) | slot) << bits;
            return level * SLOTS + slot;
        }
    }
    return NO_BUCKET;
}

/* The bucket to work on, with the cursor at its beginning; when nothing is to be done before `tick`, the cursor there.
 */
static unsigned bucket_before(struct expiry_queue *queue, uint64_t tick)
{
    unsigned bucket = pending_bucket(queue);
    if (bucket != NO_BUCKET)
        return bucket;
    uint64_t begin;
    bucket = next_bucket(queue, &begin);
    /* A bucket of a higher level may as well be begun with its first tick: its items are on their way then in time. */
    if (bucket == NO_BUCKET || begin > tick || (begin == tick && bucket < SLOTS)) {
        queue->cursor = tick;
        return NO_BUCKET;
    }
    KVS_ASSERT(begin >= queue->cursor);
    queue->cursor = begin;
    return bucket;
}

static void empty_list(struct expiry_queue *queue, unsigned colour, unsigned bucket, struct work *work)
{
    const struct item_list *list = &queue->lists[colour][bucket];
    while (list->head != NULL && work->taken < work->max && work->touches_left > 0) {
        work->touches_left--;
        struct expiry_item item = take_from(queue, colour, bucket);
        if (item.expires_ms <= work->now_ms) {
            work->items[work->taken++] = item;
            queue->counts[colour]--;
        } else {
            unsigned to = bucket_of(queue, tick_of(item.expires_ms));
            KVS_ASSERT(to < bucket); /* each move brings it nearer */
            place(queue, colour, to, &item);
        }
    }
}

size_t expiry_queue_take(struct expiry_queue *queue, uint64_t now_ms, struct expiry_item *items, size_t max)
{
    KVS_ASSERT(max > 0 && max <= SIZE_MAX / 2);
    struct work work = {.now_ms = now_ms, .items = items, .max = max, .touches_left = 2 * max};
    uint64_t tick = first_tick_after(now_ms);
    if (tick < queue->cursor)
        cursor_back(queue, tick);
    while (work.taken < max && work.touches_left > 0) {
        unsigned bucket = bucket_before(queue, tick);
        if (bucket == NO_BUCKET)
            break;
        for (unsigned colour = 0; colour < COLOURS; colour++)
            empty_list(queue, colour, bucket, &work);
    }
    KVS_ASSERT(queue->cursor <= tick);
    trim(queue);
    return work.taken;
}

int64_t expiry_queue_wait_ms(const struct expiry_queue *queue, uint64_t now_ms)
{
    if (queue->counts[0] + queue->counts[1] == 0)
        return -1;
    if (pending_bucket(queue) != NO_BUCKET)
        return 0;
    uint64_t begin;
    unsigned bucket = next_bucket(queue, &begin);
    KVS_ASSERT(bucket != NO_BUCKET);
    /* The inverse of first_tick_after: one of level 0 must be over, one of a higher level must begin. */
    uint64_t at_ms = bucket < SLOTS ? (begin << TICK_BITS) + EXPIRY_TICK_MS - 1 : (begin << TICK_BITS) - 1;
    if (at_ms <= now_ms)
        return 0;
    return at_ms - now_ms < INT64_MAX ? (int64_t)(at_ms - now_ms) : INT64_MAX;
}

static unsigned any_bucket(const struct expiry_queue *queue, unsigned colour)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        if (queue->occupied[colour][level] != 0)
            return level * SLOTS + (unsigned)__builtin_ctzll(queue->occupied[colour][level]);
    }
    KVS_ASSERT(queue->lists[colour][PAST].head != NULL);
    return PAST;
}

bool expiry_queue_sweep(struct expiry_queue *queue, size_t max,
                        bool (*stale)(void *context, const struct expiry_item *item), void *context)
{
    KVS_ASSERT(max > 0);
    if (!queue->sweeping) {
        KVS_ASSERT(queue->counts[queue->fill ^ 1] == 0);
        queue->sweeping = true;
        queue->fill ^= 1;
    }
    unsigned colour = queue->fill ^ 1;
    for (size_t i = 0; i < max && queue->counts[colour] > 0; i++) {
        unsigned bucket = any_bucket(queue, colour);
        struct expiry_item item = take_from(queue, colour, bucket);
        queue->counts[colour]--;
        if (!stale(context, &item)) {
            place(queue, queue->fill, bucket, &item);
            queue->counts[queue->fill]++;
        }
    }
    queue->sweeping = queue->counts[colour] > 0;
    trim(queue);
    return !queue->sweeping;
}

uint64_t expiry_queue_count(const struct expiry_queue *queue)
{
    return atomic_load_explicit(&queue->count, memory_order_relaxed);
}

uint64_t expiry_queue_bytes(const struct expiry_queue *queue)
{
    return expiry_pool_bytes(&queue->pool);
}

uint64_t expiry_queue_touched(const struct expiry_queue *queue)
{
    return queue->touched;
}
