/*
 * store_reads.c - what a waiting operation reads from the disk: its candidates, one after another, each in one piece of
 * the size its class tells, and verified: place, checksum, key.
 *
 * Those who want the same record share a read. What is being read at a time is bounded, in bytes. Reads beyond that
 * wait, and look again when their turn has come.
 *
 * Failure: a record that does not verify is read once more, then reported as damage (P3): the operation ends with
 * CORRUPT, and nothing else is taken for the answer.
 */
#include "engine/store_wait.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>

enum { LATE_READS_MAX = 64 };

static void read_done(struct ring_op *io);

/* ---- one read ---------------------------------------------------------------------------------------------------- */

static struct list *reads_of(struct store_shard *shard, uint64_t address)
{
    return &shard->reads[address % STORE_READ_BUCKETS];
}

/* Waits for a read of the same record that is under way, if there is one. */
static bool join_read(struct wait *wait)
{
    uint64_t address = wait->addresses[wait->position];
    struct list *bucket = reads_of(wait->shard, address);
    for (struct list *node = bucket->next; node != bucket && wait->whole == 0; node = node->next) {
        struct wait *other = container_of(node, struct wait, read_link);
        if (other->addresses[other->position] != address || other->moved)
            continue;
        list_push_back(&other->followers, &wait->read_link);
        store_count(&wait->shard->counters.reads_joined, 1);
        return true;
    }
    return false;
}

/*
 * The candidate at wait->position has left the index since the snapshot: its key, another one with this fingerprint,
 * was written again or removed. It does not matter any more to an operation that changes the index, and its segment may
 * be gone. (To a GET it does, whose segments stay.)
 */
static bool candidate_gone(const struct wait *wait)
{
    struct index_cursor cursor;
    struct index_entry entry;
    if (!wait->queued)
        return false;
    index_find(wait->shard->index, wait->op->request.hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address == wait->addresses[wait->position])
            return false;
    }
    return true;
}

/* True when so many bytes are being read that this read has to wait. One that is made again does not. */
static bool wait_for_turn(struct wait *wait, uint64_t bytes)
{
    struct store_shard *shard = wait->shard;
    if (shard->reads_in_flight == 0 || shard->reads_bytes + bytes <= shard->reads_bytes_max || wait->whole != 0 ||
        wait->tries > 0 || canary_on(CANARY_READS_UNBOUNDED))
        return false;
    list_push_back(&shard->reads_late, &wait->read_link);
    return true;
}

/* Reads the candidate at wait->position. False, with an error for a result, when there is no memory for it. */
static bool start_read(struct wait *wait)
{
    if (join_read(wait))
        return true;
    const struct store *store = wait->shard->store;
    uint64_t address = wait->addresses[wait->position];
    const struct segment *segment = segment_get(&store->segments, address_segment(address, store->segments.shift));
    KVS_ASSERT(segment != NULL);
    uint32_t offset = address_offset(address, store->segments.shift);
    uint64_t want = wait->whole != 0 ? wait->whole : record_class_bytes(wait->classes[wait->position]);
    uint64_t begin = align_down(offset, KVS_BLOCK_BYTES);
    uint64_t end = align_up(offset + want, KVS_BLOCK_BYTES);
    if (end > store->segments.segment_bytes)
        end = store->segments.segment_bytes;
    if (wait_for_turn(wait, end - begin))
        return true;
    wait->skip = (uint32_t)(offset - begin);
    wait->buffer_bytes = (size_t)(end - begin);
    wait->buffer = store_buffer_take(wait->shard, wait->buffer_bytes);
    if (wait->buffer == NULL) {
        wait->op->result = (struct engine_result){.error = KVS_ERR_NO_MEMORY};
        return false;
    }
    wait_reading_begin(wait);
    list_push_back(reads_of(wait->shard, address), &wait->read_link);
    wait->shard->reads_in_flight++;
    wait->shard->reads_bytes += wait->buffer_bytes;
    store_count(&wait->shard->counters.disk_reads, 1);
    store_count(&wait->shard->counters.disk_read_bytes, (int64_t)wait->buffer_bytes);
    ring_op_init(&wait->io, read_done);
    ring_file_read(wait->shard->ring, &wait->io, segment->fd, wait->buffer, wait->buffer_bytes, begin);
    return true;
}

static void read_again(struct wait *wait)
{
    wait_drop_buffer(wait);
    if (!start_read(wait))
        wait_finish(wait);
}

/* ---- what a record tells ----------------------------------------------------------------------------------------- */

static void report_damage(struct wait *wait)
{
    const struct store *store = wait->shard->store;
    uint64_t address = wait->addresses[wait->position];
    store_count(&wait->shard->counters.damaged_reads, 1);
    snprintf(wait->shard->damage, sizeof wait->shard->damage, "segment %06u, offset %u: %s",
             address_segment(address, store->segments.shift), address_offset(address, store->segments.shift),
             wait->io.error != KVS_ERR_OK ? ring_op_text(&wait->io) : "the record's checksum or length is wrong");
    diag_error("damaged record: %s", wait->shard->damage);
    wait->op->result = (struct engine_result){.error = wait->io.error != KVS_ERR_OK ? KVS_ERR_IO : KVS_ERR_CORRUPT};
}

/* A HOLD for a group has to compare all candidates, and there are some left. */
static bool compares_all(const struct wait *wait)
{
    const uint64_t all = wait->count == CANDIDATES_MAX ? UINT64_MAX : (1ull << wait->count) - 1;
    return wait->op->request.group && (~wait->compared & all) != 0;
}

/* Takes a verified record into account. True when nothing more has to be read. */
static bool accept_record(struct wait *wait, const struct record_header *record)
{
    struct engine_op *op = wait->op;
    unsigned position = wait->position++;
    const uint64_t bit = 1ull << position;
    wait->compared |= bit;
    if (record_has_key(record, op->request.key) || canary_on(CANARY_COLD_KEY_IGNORED)) {
        if (op->request.action == ENGINE_GET) {
            store_result(wait->shard, record, &wait->shard->log, &op->request, &op->result);
            if (!op->result.found && record->kind == RECORD_PUT)
                store_expiry_met(wait->shard, op->request.hash, wait->addresses[position], record_is_large(record));
            if (canary_on(CANARY_COLD_EXPIRY_IGNORED) && record->kind == RECORD_PUT) {
                op->result.found = true;
                op->result.value = record_value(record);
            }
            wait_note_large(wait, record);
            return true;
        }
        wait_note_equal(wait, position, record);
        bool newest = (wait->equal & (bit - 1)) == 0;
        if (op->request.action == ENGINE_HOLD && newest && !compares_all(wait)) {
            wait_give_resident(wait, record);
            return true;
        }
    }
    return op->request.action != ENGINE_HOLD && wait_next_unknown(wait) == wait->count;
}

/* What was read is the record at wait->addresses[wait->position], whole and undamaged. */
static void take_record(struct wait *wait, const struct record_header *record)
{
    wait->tries = 0;
    wait->whole = 0;
    struct store_shard *shard = wait->shard; /* `wait` may be gone before the section ends */
    engine_section_begin(&shard->base);
    bool known = accept_record(wait, record);
    if (!known) {
        wait_drop_buffer(wait);
        known = wait_advance(wait);
    }
    if (known)
        wait_finish(wait);
    engine_section_end(&shard->base);
}

/* Each of those who waited for the same record gets a copy: its operation may keep it longer. */
static void serve_followers(struct list *followers, const struct wait *leader)
{
    for (struct list *node = followers->next; node != followers; node = node->next) {
        struct wait *wait = container_of(node, struct wait, read_link);
        wait->buffer_bytes = leader->buffer_bytes;
        wait->skip = leader->skip;
        wait->buffer = store_buffer_take(wait->shard, wait->buffer_bytes);
        if (wait->buffer != NULL)
            memcpy(wait->buffer, leader->buffer, wait->buffer_bytes);
    }
}

/* With the candidates that are left. */
static void go_on(struct wait *wait)
{
    struct store_shard *shard = wait->shard; /* `wait` may be gone before the section ends */
    wait->tries = 0;
    wait->whole = 0;
    wait_drop_buffer(wait);
    engine_section_begin(&shard->base);
    if (wait_advance(wait))
        wait_finish(wait);
    engine_section_end(&shard->base);
}

static void release_followers(struct list *followers, bool served)
{
    for (struct list *node; (node = list_pop_front(followers)) != NULL;) {
        struct wait *wait = container_of(node, struct wait, read_link);
        if (served && wait->buffer != NULL)
            take_record(wait, (const struct record_header *)(const void *)(wait->buffer + wait->skip));
        else
            go_on(wait);
    }
}

static void remember(struct store_shard *shard, const struct segment *segment, uint64_t address,
                     const struct record_header *record)
{
    struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_relaxed);
    if (cache != NULL)
        read_cache_add(cache, segment->uid, address, record);
}

/* ---- the end of a read ------------------------------------------------------------------------------------------- */

/* Whether the read has given a whole, undamaged record. If not, something else was begun, or the operation has ended.
 */
static bool read_was_good(struct wait *wait, const struct segment *segment, const struct record_header *record)
{
    const struct ring_op *io = &wait->io;
    const struct store *store = wait->shard->store;
    uint64_t room = io->bytes > wait->skip ? io->bytes - wait->skip : 0;
    if (io->error == KVS_ERR_OK && room >= sizeof *record && wait->whole == 0) {
        uint64_t whole = record_size(record);
        if (whole > room && whole <= log_record_bytes_max(&store->segments)) {
            /* Of the largest class: now its size is known. */
            wait->whole = whole;
            read_again(wait);
            return false;
        }
    }
    bool unchecked = canary_on(CANARY_COLD_CHECKSUM_IGNORED) && room >= sizeof *record;
    uint32_t offset = address_offset(wait->addresses[wait->position], store->segments.shift);
    if (io->error == KVS_ERR_OK && (record_check(record, room, segment->seed, offset) == RECORD_VALID || unchecked))
        return true;
    if (candidate_gone(wait)) {
        go_on(wait);
        return false;
    }
    if (wait->tries++ > 0) {
        report_damage(wait);
        wait_finish(wait);
        return false;
    }
    wait->whole = 0;
    read_again(wait);
    return false;
}

/* Those whose turn has come. Some need no read any more: not too many of these at once, as long as others fly. */
static void start_late(struct store_shard *shard)
{
    for (unsigned tries = 0; !list_empty(&shard->reads_late); tries++) {
        bool room = shard->reads_bytes + STORE_READ_BUFFER_BYTES <= shard->reads_bytes_max && tries < LATE_READS_MAX;
        if (shard->reads_in_flight > 0 && !room)
            return;
        go_on(container_of(list_pop_front(&shard->reads_late), struct wait, read_link));
    }
}

static void read_done(struct ring_op *io)
{
    struct wait *wait = container_of(io, struct wait, io);
    struct store_shard *shard = wait->shard;
    uint64_t address = wait->addresses[wait->position];
    const struct segment_table *table = &shard->store->segments;
    const struct segment *segment = segment_get(table, address_segment(address, table->shift));
    struct list followers;
    list_init(&followers);
    for (struct list *node; (node = list_pop_front(&wait->followers)) != NULL;)
        list_push_back(&followers, node);
    list_remove(&wait->read_link);
    shard->reads_in_flight--;
    shard->reads_bytes -= wait->buffer_bytes;
    if (wait->queued)
        wait_reading_end(wait);
    const struct record_header *record = (const struct record_header *)(const void *)(wait->buffer + wait->skip);
    bool good = false;
    if (wait->moved) {
        wait->moved = false;
        go_on(wait);
    } else {
        good = read_was_good(wait, segment, record);
    }
    if (good) {
        serve_followers(&followers, wait);
        if (wait->op->request.action == ENGINE_GET || wait->op->request.action == ENGINE_HOLD)
            remember(shard, segment, address, record);
        take_record(wait, record);
    }
    release_followers(&followers, good);
    start_late(shard);
}

/* A HOLD looks for the newest record of its key, and at that itself: it may have left RAM since it was compared. */
static bool advance_hold(struct wait *wait)
{
    for (wait->position = 0; wait->position < wait->count; wait->position++) {
        const uint64_t bit = 1ull << wait->position;
        if ((wait->compared & ~wait->equal & bit) != 0)
            continue;
        if (candidate_gone(wait)) {
            wait->compared |= bit;
            wait->equal &= ~bit;
            continue;
        }
        const struct record_header *record = store_look(wait->shard, wait->addresses[wait->position]);
        if (record == NULL)
            return !start_read(wait);
        wait->compared |= bit;
        if (!record_has_key(record, wait->op->request.key))
            continue;
        wait_note_equal(wait, wait->position, record);
        wait_give_resident(wait, record);
        return true;
    }
    return true;
}

bool wait_advance(struct wait *wait)
{
    bool hold = wait->op->request.action == ENGINE_HOLD;
    wait->position = hold ? 0 : wait->position;
    if (hold && !compares_all(wait))
        return advance_hold(wait);
    bool get = wait->op->request.action == ENGINE_GET;
    while (wait_next_unknown(wait) < wait->count) {
        if (candidate_gone(wait)) {
            wait->compared |= 1ull << wait->position;
            continue;
        }
        const struct record_header *record = store_look(wait->shard, wait->addresses[wait->position]);
        if (record == NULL)
            return !start_read(wait);
        bool answers = get && record_has_key(record, wait->op->request.key);
        bool known = accept_record(wait, record);
        if (answers)
            wait_give_resident(wait, record);
        if (known)
            return true;
    }
    return hold ? advance_hold(wait) : true;
}
