/*
 * value_sweep.c - one file after the other:  open → read the header → ask the key's owner → next
 *
 *   … → all looked at → rest, if some of them expire → those that have, by now → …
 *
 * Why the owner decides, and not this thread: between a look into the index and the removal the key may be written
 * again, or a write that superseded the file may not be durable yet. The owner queues the file with those whose death
 * it has noticed itself, and they wait for both.
 *
 * Failure: whatever goes wrong with a file, it stays, and the next one follows.
 */
#include "engine/value_sweep.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "base/hash.h"
#include "engine/store.h"

#include <stdlib.h>

enum {
    ROUND_PAUSE_MS = 10000, /* from the end of a round, and from the first expiry, to the next round */
    SEEK_MAX = 4096,        /* entries of the list looked at in one turn */
    TIMEOUT_MS = 3600000,
    NS_PER_MS = 1000000,
};

/* A header with the longest key. */
#define HEADER_BYTES_MAX ((size_t)align_up(sizeof(struct value_header) + KVS_KEY_BYTES_MAX, KVS_BLOCK_BYTES))

static void step_done(struct ring_op *op);

static struct keeper *keeper_with(struct value_sweep *sweep)
{
    return container_of(sweep, struct keeper, sweep);
}

void value_sweep_init(struct value_sweep *sweep)
{
    *sweep = (struct value_sweep){.fd = -1, .soonest_ms = UINT64_MAX};
}

static void next_file(struct value_sweep *sweep)
{
    if (sweep->fd >= 0)
        ring_close_fd(keeper_with(sweep)->ring, sweep->fd);
    sweep->fd = -1;
    sweep->next++;
    sweep->state = SWEEP_NEXT;
}

static uint64_t now_ms(const struct keeper *keeper)
{
    return wall_clock_now(&keeper->store->base.clock, keeper->ring);
}

/* It counts, and expires: once more in a later round. */
static void keep(struct value_sweep *sweep, struct value_name name, uint64_t expires_ms)
{
    KVS_ASSERT(sweep->kept <= sweep->next);
    keeper_with(sweep)->store->values.found[sweep->kept++] =
        (struct value_found){.name = name, .expires_ms = expires_ms};
    if (expires_ms < sweep->soonest_ms)
        sweep->soonest_ms = expires_ms;
}

static void end_round(struct value_sweep *sweep)
{
    struct store_values *values = &keeper_with(sweep)->store->values;
    uint64_t now = now_ms(keeper_with(sweep));
    free(sweep->block);
    sweep->block = NULL;
    values->found_count = sweep->kept;
    sweep->state = sweep->kept > 0 ? SWEEP_REST : SWEEP_DONE;
    sweep->due_ms = (sweep->soonest_ms > now ? sweep->soonest_ms : now) + ROUND_PAUSE_MS;
    if (sweep->kept > 0)
        return;
    free(values->found);
    values->found = NULL;
    values->found_capacity = 0;
}

static void begin_round(struct value_sweep *sweep)
{
    sweep->next = sweep->kept = 0;
    sweep->soonest_ms = UINT64_MAX;
    sweep->state = SWEEP_NEXT;
}

/* Finds the next file to look at. False: there is none, or it takes another turn. */
static bool seek(struct value_sweep *sweep)
{
    const struct keeper *keeper = keeper_with(sweep);
    const struct store_values *values = &keeper->store->values;
    uint64_t now = now_ms(keeper);
    for (unsigned steps = 0; sweep->next < values->found_count && steps < SEEK_MAX; steps++, sweep->next++) {
        const struct value_found found = values->found[sweep->next];
        if (found.expires_ms <= now)
            return true;
        keep(sweep, found.name, found.expires_ms);
    }
    if (sweep->next == values->found_count)
        end_round(sweep);
    return false;
}

static void open_file(struct value_sweep *sweep)
{
    struct keeper *keeper = keeper_with(sweep);
    const struct store_values *values = &keeper->store->values;
    if (!seek(sweep))
        return;
    if (sweep->block == NULL)
        sweep->block = aligned_alloc(KVS_BLOCK_BYTES, HEADER_BYTES_MAX);
    if (sweep->block == NULL)
        return; /* again in another turn */
    value_name_write(sweep->name, values->found[sweep->next].name);
    sweep->state = SWEEP_OPEN;
    sweep->block_bytes = KVS_BLOCK_BYTES;
    ring_op_init(&sweep->io, step_done);
    ring_file_open(keeper->ring, &sweep->io, values->place.dir_fd, sweep->name,
                   RING_OPEN_READ | (values->place.direct ? RING_OPEN_DIRECT : 0u));
}

static void read_header(struct value_sweep *sweep)
{
    sweep->state = SWEEP_READ;
    ring_op_init(&sweep->io, step_done);
    ring_file_read(keeper_with(sweep)->ring, &sweep->io, sweep->fd, sweep->block, sweep->block_bytes, 0);
}

static void take_header(struct value_sweep *sweep, size_t bytes)
{
    const struct store *store = keeper_with(sweep)->store;
    struct value_name name = store->values.found[sweep->next].name;
    const struct value_header *header = (const void *)sweep->block;
    bool more = bytes == sweep->block_bytes && header->magic == VALUE_MAGIC &&
                sizeof *header + header->key_bytes > bytes && sweep->block_bytes < HEADER_BYTES_MAX;
    if (more) {
        sweep->block_bytes = HEADER_BYTES_MAX;
        read_header(sweep);
        return;
    }
    const char *wrong = value_header_check(sweep->block, bytes, store->base.superblock.uuid, name.id);
    if (wrong != NULL) {
        diag_warn(VALUE_DIR_NAME "/%s: %s; the file stays as it is, see kvs-check", sweep->name, wrong);
        next_file(sweep);
        return;
    }
    struct slice key = value_header_key(header);
    uint64_t hash = hash_key(key, store->base.superblock.hash_seed);
    sweep->query = (struct value_query){
        .op = {.request = {.action = ENGINE_GET, .head = true, .hash = hash, .key = key}}, .name = name};
    sweep->owner = hash_shard(hash, store->shard_count);
    sweep->state = SWEEP_ASK;
}

static void step_done(struct ring_op *op)
{
    struct value_sweep *sweep = container_of(op, struct value_sweep, io);
    if (sweep->state == SWEEP_OPEN && op->error == KVS_ERR_OK)
        sweep->fd = op->fd;
    if (op->error != KVS_ERR_OK) {
        /* It may have died, and gone, since the start. */
        if (op->error != KVS_ERR_NOT_FOUND)
            diag_warn("cannot read " VALUE_DIR_NAME "/%s: %s", sweep->name, ring_op_text(op));
        next_file(sweep);
    } else if (sweep->state == SWEEP_OPEN) {
        read_header(sweep);
    } else {
        take_header(sweep, (size_t)op->bytes);
    }
}

static void ask(struct value_sweep *sweep)
{
    const struct keeper *keeper = keeper_with(sweep);
    struct store_shard *shard = keeper->store->shards[sweep->owner];
    if (atomic_load_explicit(&shard->wake_ring, memory_order_acquire) == NULL)
        return; /* it will wake the background when it starts */
    sweep->state = SWEEP_ASKED;
    atomic_store_explicit(&shard->values.query, &sweep->query, memory_order_release);
    store_shard_wake(shard, keeper->ring);
}

void value_sweep_mark(struct keeper *keeper)
{
    struct store_values *values = &keeper->store->values;
    const uint64_t epoch = keeper->store->base.superblock.epoch;
    if (canary_on(CANARY_FLUSH_FILES_EARLY))
        keeper->sweep.again = true;
    keeper->sweep.again_below = epoch << 32 | atomic_load_explicit(&values->counter, memory_order_relaxed);
}

void value_sweep_all(struct keeper *keeper)
{
    if (!canary_on(CANARY_FLUSH_FILES_EARLY))
        keeper->sweep.again = true;
}

/* Another list of files. When it cannot be made, those that died stay until the next start finds them. */
static void list_again(struct keeper *keeper)
{
    struct value_sweep *sweep = &keeper->sweep;
    sweep->again = false;
    if (keeper->store->values.place.dir_fd < 0)
        return;
    if (store_values_list(keeper->store, keeper->ring, sweep->again_below) != KVS_ERR_OK)
        diag_warn("cannot list " VALUE_DIR_NAME ": files of large values that were flushed stay until the next start");
    begin_round(sweep);
}

void value_sweep_turn(struct keeper *keeper)
{
    struct value_sweep *sweep = &keeper->sweep;
    if (sweep->state == SWEEP_ASKED) {
        const struct store_shard *shard = keeper->store->shards[sweep->owner];
        if (atomic_load_explicit(&shard->values.query, memory_order_acquire) == NULL) {
            next_file(sweep);
            if (sweep->query.expires_ms != 0)
                keep(sweep, sweep->query.name, sweep->query.expires_ms);
        }
    }
    if (keeper->stopping)
        return;
    const bool between = sweep->state == SWEEP_NEXT || sweep->state == SWEEP_REST || sweep->state == SWEEP_DONE;
    if (sweep->again && between)
        list_again(keeper);
    if (sweep->state == SWEEP_REST && now_ms(keeper) >= sweep->due_ms)
        begin_round(sweep);
    if (sweep->state == SWEEP_NEXT)
        open_file(sweep);
    if (sweep->state == SWEEP_ASK)
        ask(sweep);
}

int64_t value_sweep_timeout_ns(const struct keeper *keeper)
{
    const struct value_sweep *sweep = &keeper->sweep;
    if (sweep->again && sweep->state == SWEEP_DONE && !keeper->stopping)
        return 0;
    if (keeper->stopping || (sweep->state != SWEEP_NEXT && sweep->state != SWEEP_REST))
        return -1;
    uint64_t now = now_ms(keeper);
    if (sweep->state == SWEEP_NEXT || now >= sweep->due_ms)
        return 0;
    uint64_t wait_ms = sweep->due_ms - now;
    return (wait_ms < TIMEOUT_MS ? (int64_t)wait_ms : TIMEOUT_MS) * NS_PER_MS;
}

bool value_sweep_idle(const struct value_sweep *sweep)
{
    return sweep->state != SWEEP_OPEN && sweep->state != SWEEP_READ && sweep->state != SWEEP_ASKED;
}

void value_sweep_deinit(struct value_sweep *sweep, struct ring *ring)
{
    if (sweep->fd >= 0)
        ring_close_fd(ring, sweep->fd);
    sweep->fd = -1;
    free(sweep->block);
    sweep->block = NULL;
}
