/*
 * store_expiry.c - the owner's queue of what expires.
 *
 * Happy path: a put with an expiry adds an item; when its time has come, store_expiry_turn finds the index entry with
 * its hash and address and takes it out. An item whose entry has gone, or points elsewhere, is stale and dropped. So
 * that stale items do not fill the queue, they are swept out when they are more than half of it.
 *
 * An address may be used again: its segment was given up and filled anew. So an item's address carries, above its 40
 * bits, the number of the segment's life in this boot. 23 bits of it: before they are used up by one file, it was
 * filled 8 million times. The highest bit is set when the value lies in a file: that has to go, too, and when the
 * record is on disk only it has to be read, for it names the file.
 *
 * Three entries must wait, and are tried again a little later:
 *   - of a record that is not durable yet. Were its entry gone, a reader would find nothing and no gate, and a crash
 *     could bring an older value back. With the entry, the expired record is found, and its LSN is the gate.
 *   - an unsettled one. Behind it may stand an older record of the key.
 *   - while the shard has failed: its records never become durable.
 *
 * Time that steps back, over a crash: a start goes on from the latest time that a durable batch tells. When what was
 * shown as expired has expired later than that, an empty batch is written to tell the time, at most one a second. (So a
 * key that was shown as expired within the last second before a crash may be there again after it, if the clock was
 * also set back.)
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/canary.h"

enum {
    TAKE_ITEMS = 256, /* in one go; some microseconds to a tenth of a millisecond */
    SWEEP_ITEMS = 256,
    SWEEP_FROM = 4096, /* stale items: fewer are not worth it */
    RETRY_MS = 20,
    LAG_WINDOW_MS = 60000,
    NS_PER_MS = 1000000,
    LIFE_BITS = 23,
    LISTED_AT_ONCE = 65536,
};
static_assert(INDEX_ADDRESS_BITS + LIFE_BITS == 63, "and one bit: large");
#define ITEM_LARGE (1ull << 63)
#define STAMP_NS   1000000000u
#define TIMEOUT_MS 3600000

enum kvs_err store_expiry_open(struct store_shard *shard, uint64_t bytes_max, uint64_t now_ms)
{
    return expiry_queue_open(&shard->expiry.queue, now_ms, bytes_max);
}

void store_expiry_close(struct store_shard *shard)
{
    expiry_queue_close(shard->expiry.queue);
    shard->expiry.queue = NULL;
}

/* The address as an item names it; what its segment holds now. */
static uint64_t tagged(const struct store_shard *shard, uint64_t address)
{
    const struct segment_table *table = &shard->store->segments;
    const struct segment *segment = segment_get(table, address_segment(address, table->shift));
    uint64_t life = segment == NULL ? 0 : atomic_load_explicit(&segment->lives, memory_order_relaxed);
    if (canary_on(CANARY_EXPIRY_PLACE_REUSED))
        life = 0;
    return address | (life & ((1u << LIFE_BITS) - 1)) << INDEX_ADDRESS_BITS;
}

static void add(struct store_shard *shard, uint64_t hash, uint64_t tagged_address, uint64_t expires_ms)
{
    struct expiry_item item = {.expires_ms = expires_ms, .hash = hash, .address = tagged_address};
    if (expiry_queue_add(shard->expiry.queue, &item) != KVS_ERR_OK)
        store_count(&shard->expiry.unqueued, 1);
}

void store_expiry_add(struct store_shard *shard, uint64_t hash, uint64_t address, uint64_t expires_ms, bool large)
{
    KVS_ASSERT(expires_ms != 0 && address <= INDEX_ADDRESS_MASK);
    add(shard, hash, tagged(shard, address) | (large ? ITEM_LARGE : 0), expires_ms);
}

void store_expiry_met(struct store_shard *shard, uint64_t hash, uint64_t address, bool large)
{
    if (atomic_load_explicit(&shard->expiry.unqueued, memory_order_relaxed) > 0)
        add(shard, hash, tagged(shard, address) | (large ? ITEM_LARGE : 0), 0);
}

/* The cursor stands on the entry that the item names; false when there is none. */
static bool find_entry(const struct store_shard *shard, const struct expiry_item *item, struct index_cursor *cursor,
                       struct index_entry *entry)
{
    uint64_t address = item->address & INDEX_ADDRESS_MASK;
    index_find(shard->index, item->hash, cursor);
    while (index_next(cursor, entry)) {
        if (entry->address == address)
            return tagged(shard, address) == (item->address & ~ITEM_LARGE);
    }
    return false;
}

static bool must_wait(const struct store_shard *shard, const struct index_entry *entry)
{
    if (entry->unsettled && !canary_on(CANARY_EXPIRED_UNSETTLED_DROPPED))
        return true;
    /* What is in no image is in a sealed segment, or was found by the start: durable. */
    const struct record_header *record = store_resident(shard->store, entry->address);
    return record != NULL && !store_is_durable(&shard->log, record) && !canary_on(CANARY_EXPIRED_UNDURABLE_DROPPED);
}

static void note_lag(struct store_expiry *expiry, uint64_t now_ms, uint64_t expires_ms)
{
    if (now_ms - expiry->lag_window_ms > LAG_WINDOW_MS) {
        store_set(&expiry->lag_before_ms, store_counted(&expiry->lag_ms));
        store_set(&expiry->lag_ms, 0);
        expiry->lag_window_ms = now_ms;
    }
    if (expires_ms != 0 && now_ms - expires_ms > store_counted(&expiry->lag_ms))
        store_set(&expiry->lag_ms, now_ms - expires_ms);
}

/* If the value lies in a file, that goes, too. False: not now. Of a record that is on disk only, and was there when the
 * store was opened, nobody knows: the sweep of the files that were there looks again when they have expired. */
static bool let_value_expire(struct store_shard *shard, const struct expiry_item *item, const struct index_entry *entry)
{
    const struct record_header *record = store_look(shard, entry->address);
    if (record == NULL)
        return (item->address & ITEM_LARGE) == 0 || store_value_expired_cold(shard, entry, item->expires_ms);
    if (!record_is_large(record))
        return true;
    const struct value_descriptor descriptor = record_descriptor(record);
    store_value_expired(shard, &descriptor, record->key_bytes, item->expires_ms);
    return true;
}

static void expire(struct store_shard *shard, const struct expiry_item *item, uint64_t now_ms)
{
    struct store_expiry *expiry = &shard->expiry;
    struct index_cursor cursor;
    struct index_entry entry;
    if (!find_entry(shard, item, &cursor, &entry))
        return;
    if (must_wait(shard, &entry) || !let_value_expire(shard, item, &entry)) {
        add(shard, item->hash, item->address, now_ms + RETRY_MS);
        return;
    }
    /* It may stand behind a newer entry that a reader has not seen: see store_settle. */
    atomic_fetch_add(&shard->settles, 1);
    index_remove(shard->index, &cursor);
    store_wait_gone(shard, item->hash, entry.address);
    store_count_dead(shard, &entry);
    store_count(&shard->keys, -1);
    store_count(&expiry->keys, -1);
    store_count(&expiry->expired, 1);
    if (item->expires_ms > expiry->shown_ms)
        expiry->shown_ms = item->expires_ms;
    note_lag(expiry, now_ms, item->expires_ms);
}

static void expire_some(struct store_shard *shard, uint64_t now_ms)
{
    struct expiry_item items[TAKE_ITEMS];
    size_t count = expiry_queue_take(shard->expiry.queue, now_ms, items, TAKE_ITEMS);
    engine_section_begin(&shard->base);
    for (size_t i = 0; i < count; i++)
        index_prefetch(shard->index, items[i].hash);
    for (size_t i = 0; i < count; i++)
        expire(shard, &items[i], now_ms);
    engine_section_end(&shard->base);
}

static bool is_stale(void *context, const struct expiry_item *item)
{
    struct index_cursor cursor;
    struct index_entry entry;
    return !find_entry(context, item, &cursor, &entry);
}

static bool sweep_due(const struct store_expiry *expiry)
{
    uint64_t items = expiry_queue_count(expiry->queue);
    return items > 2 * store_counted(&expiry->keys) + SWEEP_FROM;
}

static bool stamp_wanted(const struct store_shard *shard)
{
    return shard->expiry.shown_ms > shard->log.stamped_ms && shard->log.open != NULL && !shard->log.failed;
}

void store_expiry_turn(struct store_shard *shard)
{
    struct store_expiry *expiry = &shard->expiry;
    if (stamp_wanted(shard) && ring_now_ns(shard->ring) >= expiry->stamp_ns) {
        log_stamp(&shard->log);
        expiry->stamp_ns = ring_now_ns(shard->ring) + STAMP_NS;
    }
    if (expiry_queue_count(expiry->queue) == 0)
        return;
    uint64_t now_ms = wall_clock_now(&shard->store->base.clock, shard->ring);
    if (expiry_queue_wait_ms(expiry->queue, now_ms) == 0)
        expire_some(shard, now_ms);
    if (expiry->sweeping || sweep_due(expiry)) {
        engine_section_begin(&shard->base);
        expiry->sweeping = !expiry_queue_sweep(expiry->queue, SWEEP_ITEMS, is_stale, shard);
        engine_section_end(&shard->base);
    }
}

void store_expiry_stop(struct store_shard *shard)
{
    if (stamp_wanted(shard))
        log_stamp(&shard->log);
}

struct listing {
    const struct store_shard *shard;
    bool listing; /* else the sweep that was under way is brought to its end */
    void (*each)(void *context, uint64_t hash, uint64_t address, uint64_t expires_ms);
    void *context;
};

/* None is dropped. */
static bool list_item(void *context, const struct expiry_item *item)
{
    const struct listing *listing = context;
    struct index_cursor cursor;
    struct index_entry entry;
    if (listing->listing && find_entry(listing->shard, item, &cursor, &entry))
        listing->each(listing->context, item->hash, entry.address, item->expires_ms);
    return false;
}

void store_expiry_each(struct store_shard *shard,
                       void (*each)(void *context, uint64_t hash, uint64_t address, uint64_t expires_ms), void *context)
{
    struct listing listing = {.shard = shard, .each = each, .context = context};
    for (unsigned i = 0; i < 2; i++, listing.listing = true) {
        while (!expiry_queue_sweep(shard->expiry.queue, LISTED_AT_ONCE, list_item, &listing))
            ;
    }
}

int64_t store_expiry_timeout_ns(const struct store_shard *shard)
{
    const struct store_expiry *expiry = &shard->expiry;
    if (expiry->sweeping)
        return 0;
    int64_t timeout_ns = -1;
    if (expiry_queue_count(expiry->queue) > 0) {
        uint64_t now_ms = wall_clock_now(&shard->store->base.clock, shard->ring);
        int64_t wait_ms = expiry_queue_wait_ms(expiry->queue, now_ms);
        timeout_ns = (wait_ms < TIMEOUT_MS ? wait_ms : TIMEOUT_MS) * NS_PER_MS;
    }
    if (!stamp_wanted(shard))
        return timeout_ns;
    uint64_t now_ns = ring_now_ns(shard->ring);
    int64_t stamp_ns = expiry->stamp_ns > now_ns ? (int64_t)(expiry->stamp_ns - now_ns) : 0;
    return timeout_ns < 0 || stamp_ns < timeout_ns ? stamp_ns : timeout_ns;
}
