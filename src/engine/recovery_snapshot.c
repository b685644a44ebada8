/*
 * recovery_snapshot.c - the indexes as the last stop has left them, instead of filling them.
 *
 *   open → header, tables → does it speak of the very segments that were found? → map the pages, shard by shard, side
 * by side: verify them, and count what they point at → indexes that own them
 *
 * The tails of logs were scanned before this, as for any start; what it spares is reading and merging of runs.
 *
 * Failure modes: one that is not there, is damaged, or does not fit (other segments, another number of shards, less
 * memory): the indexes are empty, as if there had been none. Only NO_MEMORY for small things ends the start.
 */
#include "engine/recovery_internal.h"

#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/snapshot_file.h"

#include <stdlib.h>

struct snapshot {
    struct recovery *recovery;
    int fd;
    struct snapshot_header header;
    struct snapshot_layout layout;
    uint8_t *tables;
    uint32_t *ends;              /* of segments, by number; 0: none */
    _Atomic(const char *) wrong; /* why it is of no use */
    struct shard_part {
        uint64_t first_page, first_chunk, first_item;
    } parts[KVS_SHARDS_MAX];
};

static const struct snapshot_shard *shards_of(const struct snapshot *snapshot)
{
    return (const void *)snapshot->tables;
}

/* ---- header and tables ----------------------------------------------------------------------------------------- */

static enum kvs_err read_blocking(const struct snapshot *snapshot, void *bytes, size_t size, uint64_t offset)
{
    struct ring *ring = snapshot->recovery->ring;
    struct ring_op op;
    blocking_init(&op);
    ring_file_read(ring, &op, snapshot->fd, bytes, size, offset);
    ring_await(ring, &op);
    return op.error == KVS_ERR_OK && op.bytes < size ? KVS_ERR_CORRUPT : op.error;
}

static enum kvs_err open_file(struct snapshot *snapshot)
{
    const struct recovery *recovery = snapshot->recovery;
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(recovery->ring, &op, recovery->store->base.dir_fd, SNAPSHOT_NAME, RING_OPEN_READ);
    ring_await(recovery->ring, &op);
    snapshot->fd = op.error == KVS_ERR_OK ? op.fd : -1;
    return op.error;
}

/* NULL, or what is wrong with it. */
static const char *read_header(struct snapshot *snapshot)
{
    const struct recovery *recovery = snapshot->recovery;
    struct ring_file_info info;
    if (read_blocking(snapshot, recovery->block, SNAPSHOT_HEADER_BYTES, 0) != KVS_ERR_OK ||
        ring_file_info(recovery->ring, snapshot->fd, &info) != KVS_ERR_OK)
        return "its header cannot be read";
    return snapshot_header_take(&snapshot->header, &snapshot->layout, recovery->block,
                                recovery->store->base.superblock.uuid, info.size);
}

static const char *read_tables(struct snapshot *snapshot)
{
    snapshot->tables = malloc(snapshot->layout.tables_bytes);
    if (snapshot->tables == NULL)
        return "there is no memory for its tables";
    if (read_blocking(snapshot, snapshot->tables, snapshot->layout.tables_bytes, snapshot->layout.tables) != KVS_ERR_OK)
        return "its tables cannot be read";
    const char *wrong = snapshot_tables_check(&snapshot->header, snapshot->tables);
    struct shard_part next = {0};
    for (unsigned i = 0; wrong == NULL && i < snapshot->header.shard_count; i++) {
        snapshot->parts[i] = next;
        next.first_page += shards_of(snapshot)[i].page_count;
        next.first_chunk += snapshot_chunks(shards_of(snapshot)[i].page_count);
        next.first_item += shards_of(snapshot)[i].item_count;
    }
    return wrong;
}

/* ---- does it fit? ---------------------------------------------------------------------------------------------- */

/* Where what the segment holds ends; 0: it holds nothing that counts. */
static uint32_t end_of(const struct found_segment *found)
{
    if (found->segment == NULL)
        return 0;
    const uint32_t end = found_role(found) == FOUND_SEALED ? found->entry.end
                         : found_role(found) == FOUND_LOG  ? found->scan.end
                                                           : 0;
    return end > KVS_BLOCK_BYTES ? end : 0;
}

/* Whether the segments that were found are those of the snapshot, each in the same life and as long. */
static bool agrees(struct snapshot *snapshot)
{
    const struct recovery *recovery = snapshot->recovery;
    const struct snapshot_segment *segments = (const void *)(snapshot->tables + snapshot->layout.segments);
    const uint32_t numbers = atomic_load(&recovery->store->segments.next);
    uint32_t agreed = 0;
    for (uint32_t i = 0; i < snapshot->header.segment_count; i++) {
        if (segments[i].number >= numbers)
            return false;
        snapshot->ends[segments[i].number] = segments[i].end;
    }
    for (size_t i = 0; i < recovery->found_count; i++) {
        const struct found_segment *found = &recovery->found[i];
        const uint32_t end = end_of(found);
        if (end == 0)
            continue;
        if (snapshot->ends[found->number] != end && !canary_on(CANARY_SNAPSHOT_STALE))
            return false;
        agreed++;
    }
    if (canary_on(CANARY_SNAPSHOT_STALE))
        return true;
    /* Numbers are used again, lives are not. */
    for (uint32_t low = 0; low < snapshot->header.segment_count; low++) {
        const struct segment *segment = segment_get(&recovery->store->segments, segments[low].number);
        if (segment == NULL || segment->uid != segments[low].uid)
            return false;
    }
    return agreed == snapshot->header.segment_count;
}

/* ---- taking it ------------------------------------------------------------------------------------------------- */

/* Counts what the pages of a chunk point at. False: at nothing that there is. */
static bool count_chunk(const struct snapshot *snapshot, struct recovery_worker *worker, const uint8_t *pages,
                        uint64_t count, uint64_t *keys)
{
    const unsigned shift = worker->recovery->store->segments.shift;
    const uint32_t numbers = atomic_load(&worker->recovery->store->segments.next);
    struct index_entry entries[INDEX_PAGE_ENTRIES];
    for (uint64_t page = 0; page < count; page++) {
        const unsigned entry_count = index_page_read(pages + page * INDEX_PAGE_BYTES, entries);
        for (unsigned i = 0; i < entry_count; i++) {
            const uint32_t number = address_segment(entries[i].address, shift);
            if (number >= numbers || address_offset(entries[i].address, shift) >= snapshot->ends[number])
                return false;
            worker->live_puts[number]++;
            worker->live_units[number] += segment_units(entries[i].class);
        }
        *keys += entry_count;
    }
    return true;
}

static const char *take_pages(const struct snapshot *snapshot, struct recovery_worker *worker, unsigned id,
                              uint8_t *memory)
{
    const struct snapshot_shard *shard = &shards_of(snapshot)[id];
    const struct shard_part *part = &snapshot->parts[id];
    const uint64_t *checks = (const void *)(snapshot->tables + snapshot->layout.checks);
    if (ring_file_map(worker->ring, snapshot->fd, memory, shard->page_count * INDEX_PAGE_BYTES,
                      SNAPSHOT_HEADER_BYTES + part->first_page * INDEX_PAGE_BYTES) != KVS_ERR_OK)
        return "its pages cannot be read";
    uint64_t keys = 0;
    for (uint64_t page = 0; page < shard->page_count; page += SNAPSHOT_CHUNK_PAGES) {
        const uint64_t left = shard->page_count - page;
        const uint64_t count = left < SNAPSHOT_CHUNK_PAGES ? left : SNAPSHOT_CHUNK_PAGES;
        const uint8_t *pages = memory + page * INDEX_PAGE_BYTES;
        const uint64_t check = snapshot_check(pages, count * INDEX_PAGE_BYTES, snapshot->header.store_uuid);
        if (check != checks[part->first_chunk + page / SNAPSHOT_CHUNK_PAGES] && !canary_on(CANARY_SNAPSHOT_UNVERIFIED))
            return "the checksum of its pages is wrong";
        if (!count_chunk(snapshot, worker, pages, count, &keys))
            return "an entry points at nothing";
        recovery_progress(worker->recovery, count * INDEX_PAGE_BYTES);
    }
    worker->keys += keys;
    return keys == shard->entries ? NULL : "it has not as many entries as it says";
}

static const char *take_shard(const struct snapshot *snapshot, struct recovery_worker *worker, unsigned id)
{
    const struct snapshot_shard *shard = &shards_of(snapshot)[id];
    const struct index_pages pages = {
        .depth_min = shard->depth_min,
        .entries = shard->entries,
        .places = (const struct index_place *)(const void *)(snapshot->tables + snapshot->layout.places) +
                  snapshot->parts[id].first_page,
        .count = shard->page_count,
        .memory = index_pages_alloc(shard->page_count)};
    if (pages.memory == NULL)
        return "there is no memory for its pages";
    const char *wrong = take_pages(snapshot, worker, id, pages.memory);
    if (wrong == NULL && store_index_take(worker->recovery->store->shards[id], &pages) != KVS_ERR_OK)
        wrong = "its pages are not those of an index, or do not fit into the memory budget";
    if (wrong != NULL)
        index_pages_free(pages.memory, pages.count);
    return wrong;
}

static void take_some(struct recovery_worker *worker)
{
    struct recovery *recovery = worker->recovery;
    struct snapshot *snapshot = recovery->snapshot;
    if (recovery_live_begin(worker) != KVS_ERR_OK) {
        recovery_worker_fail(worker, 0, KVS_ERR_NO_MEMORY);
        return;
    }
    while (atomic_load(&snapshot->wrong) == NULL) {
        const size_t id = atomic_fetch_add(&recovery->next, 1);
        if (id >= recovery->store->shard_count)
            return;
        const char *wrong = take_shard(snapshot, worker, (unsigned)id);
        if (wrong != NULL)
            atomic_store(&snapshot->wrong, wrong);
    }
}

/* All of it is good. */
static void finish(const struct snapshot *snapshot)
{
    struct recovery *recovery = snapshot->recovery;
    const struct snapshot_item *items = (const void *)(snapshot->tables + snapshot->layout.items);
    for (unsigned i = 0; i < recovery->store->shard_count; i++) {
        struct store_shard *shard = recovery->store->shards[i];
        const struct snapshot_shard *from = &shards_of(snapshot)[i];
        const struct snapshot_item *item = items + snapshot->parts[i].first_item;
        store_count(&shard->keys, (int64_t)from->entries);
        store_count(&shard->expiry.keys, (int64_t)from->expiring);
        for (uint64_t n = 0; n < from->item_count && !canary_on(CANARY_SNAPSHOT_NEVER_EXPIRES); n++)
            store_expiry_add(shard, item[n].hash, item[n].address, item[n].expires_ms, false);
    }
    if (snapshot->header.lsn_max > recovery->lsn_max)
        recovery->lsn_max = snapshot->header.lsn_max;
    recovery_count_live(recovery);
}

/* Prepares what the workers need, has them take it, and puts everything back if it was no good. */
static enum kvs_err take(struct snapshot *snapshot)
{
    struct recovery *recovery = snapshot->recovery;
    recovery_expect(recovery, snapshot->header.page_count * INDEX_PAGE_BYTES);
    recovery->snapshot = snapshot;
    enum kvs_err err = recovery_share(recovery, take_some);
    recovery->snapshot = NULL;
    if (err == KVS_ERR_OK && atomic_load(&snapshot->wrong) == NULL) {
        finish(snapshot);
        return KVS_ERR_OK;
    }
    for (unsigned i = 0; i < recovery->worker_count; i++)
        recovery->workers[i].keys = 0;
    enum kvs_err emptied = recovery_empty_indexes(recovery);
    return err == KVS_ERR_OK ? emptied : err;
}

enum kvs_err recovery_take_snapshot(struct recovery *recovery, bool *taken)
{
    struct snapshot snapshot = {.recovery = recovery, .fd = -1};
    *taken = false;
    if (open_file(&snapshot) == KVS_ERR_NOT_FOUND)
        return KVS_ERR_OK;
    recovery->snapshot_there = true;
    enum kvs_err err = KVS_ERR_OK;
    const char *wrong = snapshot.fd < 0 ? "it cannot be opened" : read_header(&snapshot);
    bool fits = wrong == NULL && snapshot.header.shard_count == recovery->store->shard_count &&
                snapshot.header.flushed_lsn == recovery->store->base.superblock.flushed_lsn;
    if (fits)
        wrong = read_tables(&snapshot);
    if (fits && wrong == NULL) {
        snapshot.ends = calloc(atomic_load(&recovery->store->segments.next) + 1, sizeof *snapshot.ends);
        if (snapshot.ends == NULL)
            err = KVS_ERR_NO_MEMORY;
        else if (agrees(&snapshot)) {
            err = take(&snapshot);
            wrong = atomic_load(&snapshot.wrong);
            *taken = err == KVS_ERR_OK && wrong == NULL;
        }
    }
    if (wrong != NULL)
        diag_warn("%s/%s: %s; it is thrown away, the indexes are filled from the runs instead",
                  recovery->store->base.data_dir, SNAPSHOT_NAME, wrong);
    if (snapshot.fd >= 0)
        ring_close_fd(recovery->ring, snapshot.fd);
    free(snapshot.tables);
    free(snapshot.ends);
    return err;
}

void recovery_remove_snapshot(const struct recovery *recovery)
{
    if (!recovery->snapshot_there)
        return;
    struct ring_op op;
    blocking_init(&op);
    ring_file_unlink(recovery->ring, &op, recovery->store->base.dir_fd, SNAPSHOT_NAME);
    ring_await(recovery->ring, &op);
    if (op.error != KVS_ERR_OK && op.error != KVS_ERR_NOT_FOUND)
        diag_warn("cannot remove %s/%s, which is of no use any more: %s", recovery->store->base.data_dir, SNAPSHOT_NAME,
                  ring_op_text(&op));
}
