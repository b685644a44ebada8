/*
 * relocation.c - both sides of moving records: the background's, and the owners'.
 *
 * Swing: the background sorts the moves by owner and leaves each owner a slice; the owner works it off, some entries a
 * turn, and takes the slice away. An entry that does not point at the old place any more stays as it is: the record was
 * overwritten or deleted meanwhile, and its copy is dead. Operations that wait for the disk know candidates by their
 * addresses, so they are told, too.
 *
 * Retirement: the background raises store->retire_serial. A shard that sees this begins another generation of reads and
 * acknowledges when those of the earlier one have ended. A read that begins after the swing cannot meet the old place,
 * so then nobody reads from the segment, and nobody will. It also waits until all that it has appended so far is
 * durable: what has made a record dead may be a put that a crash would still take back, and then the dead record is the
 * newest. A log that has failed never acknowledges.
 */
#include "engine/relocation.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/hash.h"
#include "engine/checkpoint.h"
#include "engine/keeper.h"
#include "engine/store.h"

#include <stdlib.h>

enum { MOVES_PER_TURN = 256, DELETE_BYTES = 48 /* what a delete takes, as an estimate */ };

struct relocation_slice {
    const struct relocation_move *moves;
    size_t count, next;
};

struct relocation_work {
    struct relocation_move sorted[RELOCATION_MOVES_MAX];
    struct relocation_slice slices[KVS_SHARDS_MAX];
};

enum kvs_err relocation_open(struct keeper *keeper)
{
    keeper->work = calloc(1, sizeof *keeper->work);
    return keeper->work == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void relocation_close(struct keeper *keeper)
{
    free(keeper->work);
    keeper->work = NULL;
}

static struct store *store_behind(struct engine_background *background)
{
    return keeper_of(background)->store;
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

/* Of `put_bytes` in puts, those that the index points at. */
static uint64_t live_bytes(const struct segment *segment, uint64_t put_bytes)
{
    uint32_t units = atomic_load_explicit(&segment->put_units, memory_order_relaxed);
    uint32_t dead = atomic_load_explicit(&segment->dead_units, memory_order_relaxed);
    return units <= dead ? 0 : (uint64_t)((double)put_bytes * (double)(units - dead) / units);
}

/* An estimate; but what the puts cannot make up for is of deletes with long keys. */
static uint64_t bytes_of_deletes(const struct segment *segment, uint64_t record_bytes)
{
    uint64_t units = atomic_load_explicit(&segment->put_units, memory_order_relaxed);
    uint64_t puts_max = units * record_class_bytes(0);
    uint64_t bytes = (uint64_t)segment->deletes * DELETE_BYTES;
    if (bytes > record_bytes)
        return record_bytes;
    bool bounded = segment->record_bytes_max <= record_class_bytes(INDEX_CLASS_MAX - 1);
    return bounded && puts_max < record_bytes && record_bytes - puts_max > bytes ? record_bytes - puts_max : bytes;
}

static void figure(const struct segment *segment, bool sealed, bool victim, struct relocation_figure *out)
{
    uint32_t dead_puts = atomic_load_explicit(&segment->dead_puts, memory_order_relaxed);
    uint32_t record_bytes = atomic_load_explicit(&segment->record_bytes, memory_order_relaxed);
    /* An open segment is counted by its writer at the same time: nothing but its LSNs and its dead is looked at. */
    *out = (struct relocation_figure){.number = segment->number,
                                      .victim = victim,
                                      .relocated = segment->kind == SEGMENT_RELOCATED,
                                      .uid = segment->uid,
                                      .dead_puts = dead_puts,
                                      .min_lsn = atomic_load_explicit(&segment->min_lsn, memory_order_relaxed),
                                      .last_lsn = UINT64_MAX,
                                      .begun_lsn = segment->begun_lsn};
    if (!sealed)
        return;
    uint64_t deletes_bytes = bytes_of_deletes(segment, record_bytes);
    out->puts = segment->puts;
    out->record_bytes_max = segment->record_bytes_max;
    out->last_lsn = segment->last_lsn;
    out->deletes_min_lsn = segment->deletes_min_lsn;
    out->deletes_last_lsn = segment->deletes_last_lsn;
    out->live_bytes = live_bytes(segment, record_bytes - deletes_bytes);
    out->expiring = segment->expiring;
    out->expiring_last_lsn = segment->expiring_last_lsn;
    /* Of the dead puts as many as possible are taken for expired ones, which are kept as deletes. */
    uint64_t expired = segment->expiring < dead_puts ? segment->expiring : dead_puts;
    uint64_t dead_bytes = record_bytes - deletes_bytes - out->live_bytes;
    uint64_t expired_bytes = expired * DELETE_BYTES;
    out->deletes_bytes = deletes_bytes + (expired_bytes < dead_bytes ? expired_bytes : dead_bytes);
}

/* Without a limit it is the file system that says so, to whoever asks for more. */
static bool disk_is_full(const struct keeper *keeper)
{
    bool full = false;
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        full = full || keeper->makers[i].error == KVS_ERR_NO_SPACE;
    return full;
}

size_t relocation_census(struct engine_background *background, struct relocation_figure *out, size_t max,
                         struct relocation_space *space)
{
    struct keeper *keeper = keeper_of(background);
    const struct store *store = keeper->store;
    size_t count = 0;
    uint64_t live = 0;
    uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t number = 0; number < end; number++) {
        const struct segment *segment = segment_get(&store->segments, number);
        if (segment == NULL)
            continue;
        enum segment_state state = segment_state(segment);
        if (state != SEGMENT_OPEN && state != SEGMENT_SEALED)
            continue;
        /* One that is on the unsealed list still is not in the manifest as sealed. */
        bool victim =
            state == SEGMENT_SEALED && list_empty(&segment->keeper_link) && !store_holds_group(store, segment);
        for (unsigned i = 0; i < store->shard_count; i++)
            victim = victim && keeper->newest_sealed[i] != segment;
        struct relocation_figure one;
        figure(segment, state == SEGMENT_SEALED, victim, &one);
        live += state == SEGMENT_SEALED
                    ? one.live_bytes
                    : live_bytes(segment, atomic_load_explicit(&segment->record_bytes, memory_order_relaxed));
        if (count < max)
            out[count] = one;
        count++;
    }
    atomic_store_explicit(&keeper->figures.live_bytes, live, memory_order_relaxed);
    uint64_t reserved = keeper_reserved(keeper), lacks = keeper_reserve_lacks(keeper);
    uint64_t deletes = keeper_deletes_reserve(keeper);
    uint64_t addable = disk_is_full(keeper) ? 0 : keeper_addable(keeper);
    *space = (struct relocation_space){
        .segment_bytes = relocation_end_max(background) - KVS_BLOCK_BYTES,
        .files_reserved = reserved,
        .files_deletes = deletes < reserved ? deletes : reserved,
        .files = atomic_load_explicit(&store->segments.count, memory_order_relaxed),
        .files_max = keeper_files_max(keeper),
        .files_free = keeper->free_count - reserved,
        .files_addable = addable > lacks ? addable - lacks : 0,
        .bytes_appended = relocation_appended(background),
    };
    return count;
}

uint64_t relocation_appended(struct engine_background *background)
{
    const struct store *store = store_behind(background);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < store->shard_count; i++)
        bytes += atomic_load_explicit(&store->shards[i]->log.total_written, memory_order_relaxed);
    return bytes;
}

bool relocation_short(struct engine_background *background)
{
    const struct keeper *keeper = keeper_of(background);
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        if (keeper->makers[i].error != KVS_ERR_OK)
            return true;
    }
    return false;
}

struct segment *relocation_segment(struct engine_background *background, uint32_t number)
{
    return segment_get(&store_behind(background)->segments, number);
}

uint64_t relocation_address(struct engine_background *background, const struct segment *segment, uint32_t offset)
{
    return address_make(segment->number, offset, store_behind(background)->segments.shift);
}

uint64_t relocation_hash(struct engine_background *background, struct slice key)
{
    return hash_key(key, store_behind(background)->base.superblock.hash_seed);
}

uint32_t relocation_end_max(struct engine_background *background)
{
    return (uint32_t)log_end_max(&store_behind(background)->segments);
}

uint64_t relocation_epoch(struct engine_background *background)
{
    return store_behind(background)->base.superblock.epoch;
}

uint32_t relocation_manifest_sequence(struct engine_background *background)
{
    return (uint32_t)manifest_sequence(keeper_of(background)->manifest);
}

bool relocation_sync_after_write(struct engine_background *background)
{
    return store_behind(background)->sync_after_write;
}

bool relocation_live(struct engine_background *background, uint64_t hash, uint64_t address, bool *hidden)
{
    const struct store *store = store_behind(background);
    struct index_cursor cursor;
    struct index_entry entry;
    *hidden = false;
    index_find(store->shards[hash_shard(hash, store->shard_count)]->index, hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address == address)
            return true;
        *hidden = *hidden || (entry.unsettled && !canary_on(CANARY_HIDDEN_COPY_UNTOLD));
    }
    return false;
}

uint64_t relocation_settled(struct engine_background *background)
{
    return atomic_load_explicit(&store_behind(background)->settled, memory_order_acquire);
}

uint64_t relocation_shown(struct engine_background *background)
{
    return store_groups_shown(store_behind(background));
}

uint64_t relocation_flushed(struct engine_background *background)
{
    return store_behind(background)->base.superblock.flushed_lsn;
}

uint64_t relocation_counted(struct engine_background *background)
{
    return atomic_load_explicit(&store_behind(background)->flush.counted, memory_order_acquire);
}

uint64_t relocation_now_ms(struct engine_background *background)
{
    struct keeper *keeper = keeper_of(background);
    return wall_clock_now(&keeper->store->base.clock, keeper->ring);
}

/* ---- segments to copy into ------------------------------------------------------------------------------------- */

struct segment *relocation_output(struct engine_background *background)
{
    struct keeper *keeper = keeper_of(background);
    /* Why an earlier wish was refused is no answer to this one: there may be free files by now. */
    struct segment_maker *maker = &keeper->relocation_maker;
    if (!keeper->output_wanted &&
        (segment_maker_can_begin(maker) || (keeper->free_count > 0 && segment_maker_can_use_again(maker))))
        maker->error = KVS_ERR_OK;
    keeper->output_wanted = true;
    if (keeper->relocation_maker.purpose != MAKE_FOR_RELOCATION)
        return NULL;
    struct segment *segment = segment_maker_take(&keeper->relocation_maker);
    if (segment == NULL)
        return NULL;
    keeper->output_wanted = false;
    const struct store *store = keeper->store;
    segment->begun_lsn = UINT64_MAX;
    for (unsigned i = 0; i < store->shard_count; i++) {
        uint64_t durable = log_durable(&store->shards[i]->log);
        if (durable < segment->begun_lsn)
            segment->begun_lsn = durable;
    }
    /* After those: what is durable may belong to a group that is not shown yet. */
    uint64_t shown = store_groups_shown(store);
    if (shown < segment->begun_lsn)
        segment->begun_lsn = shown;
    segment_set_state(segment, SEGMENT_OPEN);
    return segment;
}

void relocation_output_cancel(struct engine_background *background)
{
    keeper_of(background)->output_wanted = false;
}

bool relocation_output_settled(const struct engine_background *background)
{
    const struct segment_maker *maker = &container_of(background, struct keeper, base)->relocation_maker;
    if (maker->state == MAKER_IDLE || maker->state == MAKER_FAILED)
        return maker->error != KVS_ERR_OK;
    return maker->state == MAKER_READY && maker->purpose == MAKE_FOR_RELOCATION;
}

enum kvs_err relocation_output_error(struct engine_background *background)
{
    const struct segment_maker *maker = &keeper_of(background)->relocation_maker;
    return maker->state == MAKER_IDLE || maker->state == MAKER_FAILED ? maker->error : KVS_ERR_OK;
}

enum kvs_err relocation_seal(struct engine_background *background, struct segment *segment, uint64_t *ticket)
{
    struct keeper *keeper = keeper_of(background);
    struct manifest_entry entry = keeper_sealed_entry(segment);
    enum kvs_err err = manifest_change(keeper->manifest, &entry, ticket);
    if (err != KVS_ERR_OK)
        return err;
    segment->sealed_ticket = *ticket;
    segment_set_state(segment, SEGMENT_SEALED);
    keeper->sealed_count++;
    keeper->seals++;
    return KVS_ERR_OK;
}

bool relocation_durable(struct engine_background *background, uint64_t ticket)
{
    return manifest_durable(keeper_of(background)->manifest, ticket);
}

/* ---- the swing: the background's side -------------------------------------------------------------------------- */

void relocation_swing(struct engine_background *background, const struct relocation_move *moves, size_t count)
{
    struct keeper *keeper = keeper_of(background);
    const struct store *store = keeper->store;
    struct relocation_work *work = keeper->work;
    KVS_ASSERT(count <= RELOCATION_MOVES_MAX);
    KVS_ASSERT(relocation_swung(background));
    size_t counts[KVS_SHARDS_MAX] = {0};
    for (size_t i = 0; i < count; i++)
        counts[hash_shard(moves[i].hash, store->shard_count)]++;
    size_t at = 0;
    size_t places[KVS_SHARDS_MAX];
    for (unsigned id = 0; id < store->shard_count; id++) {
        work->slices[id] = (struct relocation_slice){.moves = work->sorted + at, .count = counts[id]};
        places[id] = at;
        at += counts[id];
    }
    for (size_t i = 0; i < count; i++)
        work->sorted[places[hash_shard(moves[i].hash, store->shard_count)]++] = moves[i];
    for (unsigned id = 0; id < store->shard_count; id++) {
        if (counts[id] == 0)
            continue;
        atomic_store_explicit(&store->shards[id]->slice, &work->slices[id], memory_order_release);
        store_shard_wake(store->shards[id], keeper->ring);
    }
}

bool relocation_swung(struct engine_background *background)
{
    const struct store *store = store_behind(background);
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (atomic_load_explicit(&store->shards[i]->slice, memory_order_acquire) != NULL)
            return false;
    }
    return true;
}

/* ---- the swing: an owner's side -------------------------------------------------------------------------------- */

static struct segment *segment_at(const struct store *store, uint64_t address)
{
    return segment_get(&store->segments, address_segment(address, store->segments.shift));
}

static void swing(struct store_shard *shard, const struct relocation_move *move)
{
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(shard->index, move->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (entry.address != move->from)
            continue;
        entry.address = move->to;
        index_replace(shard->index, &cursor, &entry);
        struct segment *old = segment_at(shard->store, move->from);
        segment_count_dead(old, move->class, 1);
        struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_relaxed);
        if (cache != NULL)
            read_cache_move(cache, old->uid, move->from, segment_at(shard->store, move->to)->uid, move->to);
        store_wait_moved(shard, move->hash, move->from, move->to);
        if (move->expires_ms != 0 && !canary_on(CANARY_EXPIRY_NOT_MOVED))
            store_expiry_add(shard, move->hash, move->to, move->expires_ms, move->large);
        return;
    }
    if (canary_on(CANARY_SWING_BLIND)) {
        entry = (struct index_entry){.address = move->to, .class = move->class};
        (void)index_insert(shard->index, move->hash, &entry);
        return;
    }
    segment_count_dead(segment_at(shard->store, move->to), move->class, 1);
}

static void swing_some(struct store_shard *shard)
{
    struct relocation_slice *slice = atomic_load_explicit(&shard->slice, memory_order_acquire);
    if (slice == NULL)
        return;
    size_t end = slice->count - slice->next < MOVES_PER_TURN ? slice->count : slice->next + MOVES_PER_TURN;
    engine_section_begin(&shard->base);
    while (slice->next < end)
        swing(shard, &slice->moves[slice->next++]);
    engine_section_end(&shard->base);
    if (slice->next < slice->count)
        return;
    atomic_store_explicit(&shard->slice, NULL, memory_order_release);
    keeper_wake(&shard->store->keeper, shard->ring);
}

/* ---- retirement ------------------------------------------------------------------------------------------------ */

void relocation_retire(struct engine_background *background, struct segment *segment)
{
    struct keeper *keeper = keeper_of(background);
    KVS_ASSERT(segment_state(segment) == SEGMENT_SEALED && list_empty(&segment->keeper_link));
    KVS_ASSERT(atomic_load(&segment->dead_puts) == segment->puts);
    segment_set_state(segment, SEGMENT_RETIRED);
    image_detach(&keeper->images, segment); /* others need the memory, however long the rest takes */
    keeper->sealed_count--;
    keeper->ends++;
    list_push_back(&keeper->retiring, &segment->keeper_link);
}

size_t relocation_retiring(struct engine_background *background)
{
    struct keeper *keeper = keeper_of(background);
    size_t count = keeper->retirement.segment != NULL;
    for (struct list *node = keeper->retiring.next; node != &keeper->retiring; node = node->next)
        count++;
    return count;
}

static void retirement_begin(struct keeper *keeper, struct segment *segment)
{
    struct store *store = keeper->store;
    uint64_t serial = atomic_fetch_add(&store->retire_serial, 1) + 1;
    keeper->retirement = (struct retirement){.segment = segment, .serial = serial};
    store_wake_shards(store, keeper->ring);
}

static bool acknowledged(const struct keeper *keeper)
{
    const struct store *store = keeper->store;
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (atomic_load_explicit(&store->shards[i]->retire_acked, memory_order_acquire) < keeper->retirement.serial)
            return false;
    }
    return true;
}

/* Goes on with the retirement under way; true when that is over. */
static bool retirement_turn(struct keeper *keeper)
{
    struct retirement *retirement = &keeper->retirement;
    if (!(acknowledged(keeper) || canary_on(CANARY_RETIRED_WHILE_READ)))
        return false;
    if (!retirement->entered) {
        struct manifest_entry entry = {.number = retirement->segment->number, .state = MANIFEST_FREE};
        retirement->entered = manifest_change(keeper->manifest, &entry, &retirement->ticket) == KVS_ERR_OK;
    }
    bool durable = retirement->entered && manifest_durable(keeper->manifest, retirement->ticket);
    if (!(durable || canary_on(CANARY_RETIRED_EARLY)) || !image_gone(retirement->segment) ||
        checkpoint_reads(keeper->checkpoint, retirement->segment) || warmup_reads(&keeper->warmup, retirement->segment))
        return false;
    segment_set_state(retirement->segment, SEGMENT_FREE);
    keeper_take_back(keeper, retirement->segment);
    retirement->segment = NULL;
    return true;
}

/* When one is over the next begins at once: nothing would wake the background for it. None begins any more when the end
 * has come: nobody would acknowledge it, and shards that have stopped may be gone. */
void relocation_turn(struct keeper *keeper)
{
    while (keeper->retirement.segment != NULL || !list_empty(&keeper->retiring)) {
        if (keeper->retirement.segment == NULL && keeper->stopping)
            return;
        if (keeper->retirement.segment == NULL)
            retirement_begin(keeper, container_of(list_pop_front(&keeper->retiring), struct segment, keeper_link));
        if (!retirement_turn(keeper))
            return;
    }
}

static void acknowledge(struct store_shard *shard)
{
    uint64_t serial = atomic_load_explicit(&shard->store->retire_serial, memory_order_acquire);
    uint64_t acked = atomic_load_explicit(&shard->retire_acked, memory_order_relaxed);
    /* A shard that stops leaves retirements to the next start: the background, which does not wait for them, may be
     * gone and must not be woken. */
    if (serial == acked || shard->stopping)
        return;
    if (shard->retire_seen != serial) {
        shard->retire_seen = serial;
        shard->generation ^= 1;
        shard->retire_lsn = shard->log.next_lsn - 1;
        log_want(&shard->log, shard->retire_lsn);
    }
    bool durable = log_durable(&shard->log) >= shard->retire_lsn || canary_on(CANARY_RETIRED_UNDURABLE);
    if (shard->reading[shard->generation ^ 1] > 0 || !durable)
        return;
    atomic_store_explicit(&shard->retire_acked, serial, memory_order_release);
    keeper_wake(&shard->store->keeper, shard->ring);
}

void relocation_shard_turn(struct store_shard *shard)
{
    swing_some(shard);
    acknowledge(shard);
}

bool relocation_shard_busy(const struct store_shard *shard)
{
    return atomic_load_explicit(&shard->slice, memory_order_relaxed) != NULL;
}

void relocation_promise_space(struct engine_background *background, enum relocation_hope hope)
{
    struct keeper *keeper = keeper_of(background);
    struct store *store = keeper->store;
    bool promised = hope == RELOCATION_HOPE_PROMISED;
    keeper->hope = hope;
    if (atomic_load_explicit(&store->space_promised, memory_order_relaxed) == promised)
        return;
    atomic_store_explicit(&store->space_promised, promised, memory_order_relaxed);
    if (!promised)
        store_wake_shards(store, keeper->ring);
}

void relocation_looked_in_vain(struct engine_background *background)
{
    keeper_of(background)->looks_in_vain++;
}

bool relocation_hurried(struct engine_background *background)
{
    const struct store *store = store_behind(background);
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (atomic_load_explicit(&store->shards[i]->deletes_wait, memory_order_relaxed))
            return true;
    }
    return false;
}

const char *relocation_failure_text(struct engine_background *background)
{
    return manifest_failure_text(keeper_of(background)->manifest);
}

bool relocation_blocked(struct engine_background *background)
{
    const struct store *store = store_behind(background);
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (atomic_load_explicit(&store->shards[i]->log.failed, memory_order_relaxed))
            return true;
    }
    return false;
}

bool relocation_stuck(struct engine_background *background)
{
    return manifest_waits_for_space(keeper_of(background)->manifest);
}
