/*
 * snapshot_fixture.h - for tests of the snapshot that a stop leaves: a store with something of everything in it, and
 * snapshots that are changed and given their right checksums again.
 */
#ifndef KVS_TESTS_SNAPSHOT_FIXTURE_H
#define KVS_TESTS_SNAPSHOT_FIXTURE_H

#include "check_fixture.h"
#include "expiry_fixture.h"

/* Of SNAPSHOT_KEYS(n) keys every third is gone, every other third has version 2; behind them n / 4 expire. */
enum { SNAPSHOT_LIFE_MS = 3600000 };

static inline unsigned snapshot_live(unsigned keys)
{
    return keys - keys / 3;
}

static inline void snapshot_fill(struct store_fixture *fixture, unsigned keys, size_t bytes)
{
    assert_int_equal(keys % 3, 0);
    const uint64_t expires_ms = expiry_now_ms(fixture) + SNAPSHOT_LIFE_MS;
    segments_put_range(fixture, 0, keys, 1, bytes);
    for (unsigned i = 0; i < keys / 4; i++)
        expiry_put_key(fixture, keys + i, 1, bytes, expires_ms + i * 64);
    for (unsigned i = 0; i < keys; i++) {
        if (i % 3 == 0)
            assert_true(segments_remove(fixture, i));
        else if (i % 3 == 1)
            segments_put(fixture, i, 2, bytes);
    }
}

static inline void snapshot_expect_lasting(struct store_fixture *fixture, unsigned keys, size_t bytes)
{
    for (unsigned i = 0; i < keys; i++) {
        if (i % 3 == 0)
            segments_expect_none(fixture, i);
        else
            segments_expect(fixture, i, i % 3 == 1 ? 2 : 1, bytes);
    }
}

/* Of all indexes. */
static inline uint64_t snapshot_entries(const struct store_fixture *fixture)
{
    const struct store *store = segments_store(fixture);
    uint64_t entries = 0;
    for (unsigned i = 0; i < store->shard_count; i++) {
        struct index_stats stats;
        index_stats(store->shards[i]->index, &stats);
        entries += stats.entries;
    }
    return entries;
}

static inline void snapshot_expect(struct store_fixture *fixture, unsigned keys, size_t bytes)
{
    snapshot_expect_lasting(fixture, keys, bytes);
    for (unsigned i = 0; i < keys / 4; i++)
        segments_expect(fixture, keys + i, 1, bytes);
    assert_int_equal(store_keys(fixture), snapshot_live(keys) + keys / 4);
    assert_int_equal(snapshot_entries(fixture), snapshot_live(keys) + keys / 4);
    assert_int_equal(expiry_stats(fixture).expires, keys / 4);
}

/* The latest start of this store has taken the snapshot. */
static inline bool snapshot_taken(const struct store_fixture *fixture)
{
    struct engine_recovery recovery;
    engine_recovered(fixture->engine, &recovery);
    return recovery.snapshot;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* A snapshot in memory. */
struct snapshot_bytes {
    uint8_t *bytes;
    uint64_t size;
    struct snapshot_header *header;
    struct snapshot_layout layout;
    struct snapshot_shard *shards;
    struct snapshot_segment *segments;
    uint64_t *checks;
    struct index_place *places;
    struct snapshot_item *items;
};

/* Looks again where everything lies. */
static inline void snapshot_parts(struct snapshot_bytes *snapshot)
{
    uint8_t *bytes = snapshot->bytes;
    snapshot->header = (void *)bytes;
    snapshot_layout(&snapshot->layout, snapshot->header);
    uint8_t *tables = bytes + snapshot->layout.tables;
    snapshot->shards = (void *)tables;
    snapshot->segments = (void *)(tables + snapshot->layout.segments);
    snapshot->checks = (void *)(tables + snapshot->layout.checks);
    snapshot->places = (void *)(tables + snapshot->layout.places);
    snapshot->items = (void *)(tables + snapshot->layout.items);
}

/* That of the store that has stopped; to be freed. */
static inline struct snapshot_bytes snapshot_load(void)
{
    assert_true(sim_file_exists(STORE_SNAPSHOT));
    struct snapshot_bytes snapshot = {.size = sim_file_size(STORE_SNAPSHOT)};
    snapshot.bytes = aligned_alloc(KVS_BLOCK_BYTES, align_up(snapshot.size, KVS_BLOCK_BYTES));
    assert_non_null(snapshot.bytes);
    sim_file_read(STORE_SNAPSHOT, 0, snapshot.bytes, snapshot.size);
    snapshot_parts(&snapshot);
    assert_int_equal(snapshot.size, snapshot.layout.file_bytes);
    return snapshot;
}

/* Checksums of pages, tables and header, as far as they are where the header says. */
static inline void snapshot_seal(struct snapshot_bytes *snapshot)
{
    struct snapshot_header *header = snapshot->header;
    uint64_t page = 0, chunk = 0;
    for (uint32_t i = 0; i < header->shard_count; i++) {
        const uint64_t end = page + snapshot->shards[i].page_count;
        while (page < end && end <= header->page_count) {
            const uint64_t count = end - page < SNAPSHOT_CHUNK_PAGES ? end - page : SNAPSHOT_CHUNK_PAGES;
            snapshot->checks[chunk++] =
                snapshot_check(snapshot->bytes + SNAPSHOT_HEADER_BYTES + page * INDEX_PAGE_BYTES,
                               count * INDEX_PAGE_BYTES, header->store_uuid);
            page += count;
        }
    }
    header->tables_check =
        snapshot_check(snapshot->bytes + snapshot->layout.tables, snapshot->layout.tables_bytes, header->store_uuid);
    const struct snapshot_header fields = *header;
    snapshot_header_encode(snapshot->bytes, &fields);
}

static inline void snapshot_put(const struct snapshot_bytes *snapshot)
{
    sim_file_put(STORE_SNAPSHOT, snapshot->bytes, snapshot->size);
}

static inline void snapshot_free(struct snapshot_bytes *snapshot)
{
    free(snapshot->bytes);
}

#endif
