/*
 * store_scan.c - steps of scans: which keys are there.
 *
 *   engine_scan ─ a portion of the index ─► records in RAM: key, and whether it is there, at once
 *                                         └► others: read, at most SCAN_READS_MAX at a time for the shard
 *                 all is known ─► of each key the newest record counts ─► shown ─► done
 *
 * What is found in the index at the moment of the call is what is shown, whatever happens while records are read: the
 * step counts as an operation that may read from disk, so that segments stay until it has ended. A key is shown by the
 * portion that its hash lies in, though more than one may have to look at its record (index_scan.c).
 *
 * Reads of scans are bounded by themselves and leave those of other operations their own. They do not enter the read
 * cache: nobody has asked for these records.
 *
 * Failure: a record that does not verify is read once more, then reported as damage (P3): the step ends with the error
 * and shows nothing. Without memory likewise.
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SCAN_PAGES = 16,            /* that a step looks at if there is nothing on them */
    SCAN_READS_MAX = 16,        /* in flight for a shard … */
    SCAN_READS_SHARE = 4,       /* … which may take this part of what other reads may */
    SCAN_CHAINS = 512,          /* of items by hash */
    SCAN_STEP_BYTES = 1u << 20, /* of records that a step looks at, roughly */
};

/* An entry and what is known of its record. */
struct scan_item {
    uint64_t address;
    uint64_t hash;
    size_t key_at; /* in step->keys */
    uint16_t key_bytes;
    uint16_t order; /* of the records of one key the lowest counts */
    uint16_t next;  /* in its chain, plus 1 */
    uint8_t class;
    bool cold;  /* its record is to be read */
    bool known; /* its key lies in the portion */
    bool there; /* the record says that the key is there */
};

struct scan_step {
    struct engine_scan *scan;
    struct store_shard *shard;
    struct list link;  /* in shard->scans */
    struct list reads; /* under way */
    unsigned generation;
    uint64_t last; /* hash of the portion */
    uint8_t *keys;
    size_t keys_bytes, keys_capacity;
    unsigned next_cold; /* items before it need no read any more, or are being read */
    unsigned count;
    struct scan_item items[];
};

struct scan_read {
    struct ring_op io;
    struct list link; /* in step->reads */
    struct scan_step *step;
    struct scan_item *item;
    uint8_t *buffer;
    size_t buffer_bytes;
    uint32_t skip;  /* from the buffer's start to the record */
    uint64_t whole; /* bytes of the record when its class did not tell */
    unsigned tries;
};

static void read_done(struct ring_op *io);

bool store_scan_idle(const struct store_shard *shard)
{
    return list_empty(&shard->scans);
}

static void step_free(struct scan_step *step)
{
    free(step->keys);
    free(step);
}

void store_scan_deinit(struct store_shard *shard)
{
    for (struct list *node; (node = list_pop_front(&shard->scans)) != NULL;) {
        struct scan_step *step = container_of(node, struct scan_step, link);
        for (struct list *under_way; (under_way = list_pop_front(&step->reads)) != NULL;) {
            struct scan_read *read = container_of(under_way, struct scan_read, link);
            free(read->buffer);
            free(read);
        }
        step_free(step);
    }
}

static void fail(struct scan_step *step, enum kvs_err error)
{
    if (step->scan->error == KVS_ERR_OK)
        step->scan->error = error;
}

/* ---- what a record tells ----------------------------------------------------------------------------------------- */

static bool keep_key(struct scan_step *step, struct scan_item *item, struct slice key)
{
    if (step->keys_capacity - step->keys_bytes < key.size) {
        const size_t capacity = 2 * step->keys_capacity + key.size + 4096;
        uint8_t *keys = realloc(step->keys, capacity);
        if (keys == NULL)
            return false;
        step->keys = keys;
        step->keys_capacity = capacity;
    }
    item->key_at = step->keys_bytes;
    item->key_bytes = (uint16_t)key.size;
    if (key.size > 0)
        memcpy(step->keys + step->keys_bytes, key.data, key.size);
    step->keys_bytes += key.size;
    return true;
}

/* Inside a section. */
static void note_record(struct scan_step *step, struct scan_item *item, const struct record_header *record)
{
    struct store_shard *shard = step->shard;
    struct engine_scan *scan = step->scan;
    item->hash = hash_key(record_key(record), engine_hash_seed(&shard->store->base));
    item->known = item->hash >= scan->from && item->hash <= step->last;
    if (!item->known)
        return;
    scan->looked++;
    item->there = record->kind == RECORD_PUT && !store_expired(shard, record);
    const bool gated = !scan->relaxed && !store_is_durable(&shard->log, record) && !canary_on(CANARY_SCAN_UNGATED);
    if (gated && record->lsn > scan->gate)
        scan->gate = record->lsn;
    if (!keep_key(step, item, record_key(record)))
        fail(step, KVS_ERR_NO_MEMORY);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static struct slice item_key(const struct scan_step *step, const struct scan_item *item)
{
    return slice_make(step->keys + item->key_at, item->key_bytes);
}

/* Lets the newest record of each key count alone. */
static void drop_hidden(struct scan_step *step)
{
    uint16_t chains[SCAN_CHAINS] = {0};
    for (unsigned i = 0; i < step->count; i++) {
        struct scan_item *item = &step->items[i];
        if (!item->known)
            continue;
        uint16_t *chain = &chains[item->hash % SCAN_CHAINS];
        struct scan_item *other = NULL;
        for (unsigned at = *chain; at != 0 && other == NULL; at = step->items[at - 1].next) {
            struct scan_item *candidate = &step->items[at - 1];
            if (candidate->hash == item->hash && slice_equal(item_key(step, candidate), item_key(step, item)))
                other = candidate;
        }
        if (other != NULL && canary_on(CANARY_SCAN_SHOWS_HIDDEN))
            other->there = other->there || item->there;
        else if (other != NULL && item->order < other->order)
            *other = (struct scan_item){.hash = item->hash,
                                        .key_at = item->key_at,
                                        .key_bytes = item->key_bytes,
                                        .order = item->order,
                                        .next = other->next,
                                        .known = true,
                                        .there = item->there};
        if (other != NULL) {
            item->known = false;
        } else {
            item->next = *chain;
            *chain = (uint16_t)(i + 1);
        }
    }
}

/* Everything is known, or an error; no read is under way. */
static void step_end(struct scan_step *step)
{
    struct store_shard *shard = step->shard;
    struct engine_scan *scan = step->scan;
    KVS_ASSERT(list_empty(&step->reads));
    if (!list_empty(&step->link)) {
        list_remove(&step->link);
        KVS_ASSERT(shard->reading[step->generation] > 0);
        shard->reading[step->generation]--;
    }
    if (scan->error == KVS_ERR_OK)
        drop_hidden(step);
    engine_section_begin(&shard->base);
    for (unsigned i = 0; i < step->count && scan->error == KVS_ERR_OK; i++) {
        const struct scan_item *item = &step->items[i];
        if (item->known && item->there)
            scan->key(scan, item_key(step, item));
    }
    step_free(step);
    scan->done(scan);
    engine_section_end(&shard->base);
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

/* False: it is one too many just now. */
static bool read_fits(const struct store_shard *shard, uint64_t bytes)
{
    return shard->scan_reads == 0 || (shard->scan_reads < SCAN_READS_MAX &&
                                      shard->scan_read_bytes + bytes <= shard->reads_bytes_max / SCAN_READS_SHARE);
}

static void read_begin(struct scan_read *read)
{
    struct store_shard *shard = read->step->shard;
    const struct segment_table *table = &shard->store->segments;
    const struct segment *segment = segment_get(table, address_segment(read->item->address, table->shift));
    const uint32_t offset = address_offset(read->item->address, table->shift);
    KVS_ASSERT(segment != NULL && read->buffer != NULL);
    shard->scan_reads++;
    shard->scan_read_bytes += read->buffer_bytes;
    store_count(&shard->counters.disk_reads, 1);
    store_count(&shard->counters.disk_read_bytes, (int64_t)read->buffer_bytes);
    ring_op_init(&read->io, read_done);
    ring_file_read(shard->ring, &read->io, segment->fd, read->buffer, read->buffer_bytes,
                   align_down(offset, KVS_BLOCK_BYTES));
}

/* Room for `bytes` of a record. */
static bool read_reserve(struct scan_read *read, uint64_t bytes)
{
    struct store_shard *shard = read->step->shard;
    const struct segment_table *table = &shard->store->segments;
    const uint32_t offset = address_offset(read->item->address, table->shift);
    const uint64_t begin = align_down(offset, KVS_BLOCK_BYTES);
    uint64_t end = align_up(offset + bytes, KVS_BLOCK_BYTES);
    if (end > table->segment_bytes)
        end = table->segment_bytes;
    read->skip = (uint32_t)(offset - begin);
    read->buffer_bytes = (size_t)(end - begin);
    read->buffer = store_buffer_take(shard, read->buffer_bytes);
    return read->buffer != NULL;
}

static void read_free(struct scan_read *read)
{
    store_buffer_give(read->step->shard, read->buffer, read->buffer_bytes);
    list_remove(&read->link);
    free(read);
}

/* Begins to read what the item points at; false: not now. */
static bool item_read(struct scan_step *step, struct scan_item *item)
{
    if (!read_fits(step->shard, record_class_bytes(item->class)))
        return false;
    struct scan_read *read = calloc(1, sizeof *read);
    if (read == NULL) {
        fail(step, KVS_ERR_NO_MEMORY);
        return true;
    }
    read->step = step;
    read->item = item;
    list_push_back(&step->reads, &read->link);
    if (read_reserve(read, record_class_bytes(item->class))) {
        read_begin(read);
    } else {
        fail(step, KVS_ERR_NO_MEMORY);
        read_free(read);
    }
    return true;
}

/* Begins reads of a step while there may be more; true when it has nothing more to wait for. */
static bool step_go_on(struct scan_step *step)
{
    while (step->next_cold < step->count && step->scan->error == KVS_ERR_OK) {
        struct scan_item *item = &step->items[step->next_cold];
        if (item->cold && !item_read(step, item))
            break;
        step->next_cold++;
    }
    const bool all = step->next_cold == step->count || step->scan->error != KVS_ERR_OK;
    return all && list_empty(&step->reads);
}

/* The oldest step first. */
static void steps_go_on(struct store_shard *shard)
{
    for (struct list *node = shard->scans.next, *next; node != &shard->scans; node = next) {
        struct scan_step *step = container_of(node, struct scan_step, link);
        next = node->next;
        if (step_go_on(step))
            step_end(step);
    }
}

static void report_damage(const struct scan_read *read)
{
    struct store_shard *shard = read->step->shard;
    const struct segment_table *table = &shard->store->segments;
    store_count(&shard->counters.damaged_reads, 1);
    snprintf(shard->damage, sizeof shard->damage, "segment %06u, offset %u: %s",
             address_segment(read->item->address, table->shift), address_offset(read->item->address, table->shift),
             read->io.error != KVS_ERR_OK ? ring_op_text(&read->io) : "the record's checksum or length is wrong");
    diag_error("damaged record: %s", shard->damage);
    fail(read->step, read->io.error != KVS_ERR_OK ? KVS_ERR_IO : KVS_ERR_CORRUPT);
}

/* What was read is no whole record. True when another read of it was begun. */
static bool read_again(struct scan_read *read, uint64_t room)
{
    struct store_shard *shard = read->step->shard;
    const struct record_header *record = (const struct record_header *)(const void *)(read->buffer + read->skip);
    uint64_t bytes = record_class_bytes(read->item->class);
    bool longer = false;
    if (read->io.error == KVS_ERR_OK && room >= sizeof *record && read->whole == 0) {
        const uint64_t whole = record_size(record);
        longer = whole > room && whole <= log_record_bytes_max(&shard->store->segments);
        if (longer)
            bytes = read->whole = whole; /* of the largest class: now its size is known */
    }
    if (!longer && read->tries++ > 0) {
        report_damage(read);
        return false;
    }
    if (!longer)
        read->whole = 0;
    store_buffer_give(shard, read->buffer, read->buffer_bytes);
    read->buffer = NULL;
    if (!read_reserve(read, bytes)) {
        fail(read->step, KVS_ERR_NO_MEMORY);
        return false;
    }
    read_begin(read);
    return true;
}

static void read_done(struct ring_op *io)
{
    struct scan_read *read = container_of(io, struct scan_read, io);
    struct scan_step *step = read->step;
    struct store_shard *shard = step->shard;
    const struct segment_table *table = &shard->store->segments;
    const struct segment *segment = segment_get(table, address_segment(read->item->address, table->shift));
    const uint32_t offset = address_offset(read->item->address, table->shift);
    const struct record_header *record = (const struct record_header *)(const void *)(read->buffer + read->skip);
    const uint64_t room = io->bytes > read->skip ? io->bytes - read->skip : 0;
    shard->scan_reads--;
    shard->scan_read_bytes -= read->buffer_bytes;
    if (io->error == KVS_ERR_OK && record_check(record, room, segment->seed, offset) == RECORD_VALID) {
        engine_section_begin(&shard->base);
        note_record(step, read->item, record);
        engine_section_end(&shard->base);
    } else if (read_again(read, room)) {
        return;
    }
    read_free(read);
    steps_go_on(shard);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

/* The next entries, from scan->next on, which goes behind them; *last: of the hashes looked at. */
static unsigned collect(const struct store_shard *shard, struct engine_scan *scan,
                        struct index_scan_entry found[INDEX_SCAN_ENTRIES_MAX], uint64_t *last)
{
    unsigned count = 0;
    for (unsigned pages = 0; pages < SCAN_PAGES && count == 0 && !scan->end; pages++) {
        const uint64_t from = scan->next;
        uint64_t bytes;
        unsigned wanted = scan->wanted;
        do {
            count = index_scan(shard->index, from, wanted, found, last);
            bytes = 0;
            for (unsigned i = 0; i < count; i++)
                bytes += record_class_bytes(found[i].entry.class);
            wanted /= 2;
        } while (bytes > SCAN_STEP_BYTES && wanted > 0);
        scan->next = *last + 1;
        scan->end = scan->next == 0 || hash_shard(scan->next, shard->store->shard_count) != shard->id;
    }
    return count;
}

/* Looks at the records that are in RAM; true when these are all. */
static bool look(struct scan_step *step)
{
    struct store_shard *shard = step->shard;
    bool all = true;
    for (unsigned i = 0; i < step->count; i++)
        __builtin_prefetch(store_resident(shard->store, step->items[i].address));
    for (unsigned i = 0; i < step->count; i++) {
        struct scan_item *item = &step->items[i];
        const struct record_header *record = store_look(shard, item->address);
        if (record != NULL)
            note_record(step, item, record);
        item->cold = record == NULL && !canary_on(CANARY_SCAN_LEAVES_COLD);
        all = all && !item->cold;
    }
    return all;
}

void store_scan(struct engine_shard *owner, struct engine_scan *scan)
{
    struct store_shard *shard = store_shard_of(owner);
    struct index_scan_entry found[INDEX_SCAN_ENTRIES_MAX];
    uint64_t last = 0;
    KVS_ASSERT(scan->wanted > 0 && hash_shard(scan->from, shard->store->shard_count) == shard->id);
    engine_section_begin(owner);
    const unsigned count = collect(shard, scan, found, &last);
    struct scan_step *step = count == 0 ? NULL : calloc(1, sizeof *step + count * sizeof step->items[0]);
    if (step == NULL) {
        scan->error = count == 0 ? KVS_ERR_OK : KVS_ERR_NO_MEMORY;
        scan->done(scan);
        engine_section_end(owner);
        return;
    }
    step->scan = scan;
    step->shard = shard;
    step->last = last;
    step->count = count;
    list_init(&step->link);
    list_init(&step->reads);
    for (unsigned i = 0; i < count; i++) {
        step->items[i].address = found[i].entry.address;
        step->items[i].class = (uint8_t)found[i].entry.class;
        step->items[i].order = found[i].order;
    }
    const bool all = look(step);
    if (scan->gate != 0)
        log_want(&shard->log, scan->gate);
    if (!all) {
        step->generation = shard->generation;
        shard->reading[step->generation]++;
        list_push_back(&shard->scans, &step->link);
    }
    engine_section_end(owner);
    if (all)
        step_end(step);
    else
        steps_go_on(shard);
}
