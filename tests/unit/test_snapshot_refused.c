/*
 * test_snapshot_refused.c - snapshots that a stop does not leave, and those that a start does not take: whatever is
 * wrong, it fills the indexes as if there had been none, and removes the file.
 */
#include "snapshot_fixture.h"

#include <errno.h>

enum { KEYS = 120, BYTES = 1000 };

static struct store_fixture fixture;
static struct engine_options options;
static struct kept_files kept;
static struct snapshot_segment spare; /* a segment that holds nothing */

/* A store that was stopped in order, kept as it lies. */
static void make_store(uint64_t seed, unsigned shards)
{
    sim_create(seed);
    options = segments_scarce(shards);
    store_boot(&fixture, &options);
    snapshot_fill(&fixture, KEYS, BYTES);
    spare = (struct snapshot_segment){0};
    for (uint32_t i = 0; i < atomic_load(&segments_store(&fixture)->segments.next); i++) {
        const struct segment *segment = segments_at(&fixture, i);
        if (segment != NULL && segment->end <= KVS_BLOCK_BYTES)
            spare = (struct snapshot_segment){.uid = segment->uid, .number = i, .end = 2 * KVS_BLOCK_BYTES};
    }
    store_stop(&fixture);
    kept_save(&kept);
}

static void destroy_store(void)
{
    kept_free(&kept);
    sim_destroy();
}

/* A start goes on without it. */
static void expect_thrown_away(void)
{
    assert_true(sim_file_exists(STORE_SNAPSHOT));
    store_boot(&fixture, &options);
    assert_false(snapshot_taken(&fixture));
    assert_false(sim_file_exists(STORE_SNAPSHOT));
    snapshot_expect(&fixture, KEYS, BYTES);
    store_crash(&fixture, SIM_DROP_ALL);
    kept_restore(&kept);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void flip_all(const struct snapshot_bytes *snapshot, uint64_t from, uint64_t end, uint64_t step)
{
    for (uint64_t at = from; at < end; at += step) {
        assert_true(at < snapshot->size);
        sim_file_flip(STORE_SNAPSHOT, at * 8 + at % 8);
        expect_thrown_away();
    }
}

static void test_snapshot__one_bit_anywhere_spoils_it(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        make_store(shards, shards);
        struct snapshot_bytes snapshot = snapshot_load();
        const uint64_t tables = snapshot.layout.tables;
        const uint64_t ends[] = {tables + snapshot.layout.segments, tables + snapshot.layout.checks,
                                 tables + snapshot.layout.places, tables + snapshot.layout.items, snapshot.size};
        flip_all(&snapshot, 0, sizeof(struct snapshot_header), shards == 1 ? 1 : 8);
        flip_all(&snapshot, sizeof(struct snapshot_header), SNAPSHOT_HEADER_BYTES, 601);
        for (uint64_t page = 0; page < snapshot.header->page_count; page++) {
            const uint64_t at = SNAPSHOT_HEADER_BYTES + page * INDEX_PAGE_BYTES;
            flip_all(&snapshot, at, at + INDEX_PAGE_BYTES, 1021);
        }
        uint64_t from = tables;
        for (unsigned i = 0; i < ARRAY_COUNT(ends); i++) {
            assert_true(ends[i] > from);
            flip_all(&snapshot, from, ends[i], (ends[i] - from) / 24 + 1);
            from = ends[i];
        }
        snapshot_free(&snapshot);
        destroy_store();
    }
}

static void test_snapshot__it_has_the_length_that_it_says(void **state)
{
    (void)state;
    make_store(10, 2);
    struct snapshot_bytes snapshot = snapshot_load();
    const uint64_t lengths[] = {0,
                                1,
                                SNAPSHOT_HEADER_BYTES - 1,
                                SNAPSHOT_HEADER_BYTES,
                                SNAPSHOT_HEADER_BYTES + INDEX_PAGE_BYTES,
                                snapshot.layout.tables,
                                snapshot.layout.tables + 8,
                                snapshot.size - 1,
                                snapshot.size + 1,
                                snapshot.size + INDEX_PAGE_BYTES};
    snapshot.bytes = realloc(snapshot.bytes, snapshot.size + INDEX_PAGE_BYTES);
    memset(snapshot.bytes + snapshot.size, 0, INDEX_PAGE_BYTES);
    for (unsigned i = 0; i < ARRAY_COUNT(lengths); i++) {
        sim_file_put(STORE_SNAPSHOT, snapshot.bytes, lengths[i]);
        expect_thrown_away();
    }
    snapshot_free(&snapshot);
    destroy_store();
}

static void test_snapshot__pages_that_cannot_be_mapped(void **state)
{
    (void)state;
    unsigned taken = 0, thrown_away = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        make_store(seed, 1 + (unsigned)(seed % 3));
        sim_odds(SIM_FAULT_MAP_ERROR, seed % 3 == 0 ? 1000000 : 400000);
        store_boot(&fixture, &options);
        sim_odds_none();
        const bool failed = sim_fault_count(SIM_FAULT_MAP_ERROR) > 0;
        assert_int_equal(snapshot_taken(&fixture), !failed);
        assert_false(sim_file_exists(STORE_SNAPSHOT));
        snapshot_expect(&fixture, KEYS, BYTES);
        segments_check_counts(&fixture, KEYS + KEYS / 4);
        *(failed ? &thrown_away : &taken) += 1;
        store_stop(&fixture);
        destroy_store();
    }
    assert_true(taken >= 10 && thrown_away > 25);
}

/* ---- what does not fit ----------------------------------------------------------------------------------------- */

/* Changed, with right checksums. */
static void expect_not_taken(void (*change)(struct snapshot_bytes *snapshot))
{
    struct snapshot_bytes snapshot = snapshot_load();
    change(&snapshot);
    snapshot_seal(&snapshot);
    snapshot_put(&snapshot);
    snapshot_free(&snapshot);
    expect_thrown_away();
}

static void other_store(struct snapshot_bytes *snapshot)
{
    snapshot->header->store_uuid[15] ^= 1;
}

static void other_life(struct snapshot_bytes *snapshot)
{
    snapshot->segments[1].uid++;
}

static void shorter_segment(struct snapshot_bytes *snapshot)
{
    snapshot->segments[0].end -= KVS_BLOCK_BYTES;
}

static void longer_segment(struct snapshot_bytes *snapshot)
{
    snapshot->segments[snapshot->header->segment_count - 1].end += KVS_BLOCK_BYTES;
}

static void unknown_segment(struct snapshot_bytes *snapshot)
{
    snapshot->segments[snapshot->header->segment_count - 1].number += 1000;
}

static void segments_upside_down(struct snapshot_bytes *snapshot)
{
    const struct snapshot_segment first = snapshot->segments[0];
    snapshot->segments[0] = snapshot->segments[1];
    snapshot->segments[1] = first;
}

/* Takes a segment out of the table. */
static void one_segment_less(struct snapshot_bytes *snapshot)
{
    uint8_t *from = (uint8_t *)(snapshot->segments + 1);
    memmove(snapshot->segments, from, (size_t)(snapshot->bytes + snapshot->size - from));
    snapshot->size -= sizeof(struct snapshot_segment);
    snapshot->header->segment_count--;
    snapshot_parts(snapshot);
}

/* One that there is, and that holds nothing. */
static void one_segment_more(struct snapshot_bytes *snapshot)
{
    const uint32_t count = snapshot->header->segment_count;
    uint8_t *bytes = aligned_alloc(KVS_BLOCK_BYTES, align_up(snapshot->size + sizeof spare, KVS_BLOCK_BYTES));
    assert_true(bytes != NULL && spare.uid != 0 && snapshot->segments[count - 1].number < spare.number);
    const size_t before = (size_t)((uint8_t *)(snapshot->segments + count) - snapshot->bytes);
    memcpy(bytes, snapshot->bytes, before);
    memcpy(bytes + before, &spare, sizeof spare);
    memcpy(bytes + before + sizeof spare, snapshot->bytes + before, snapshot->size - before);
    free(snapshot->bytes);
    snapshot->bytes = bytes;
    snapshot->size += sizeof spare;
    snapshot->header = (void *)bytes;
    snapshot->header->segment_count++;
    snapshot_parts(snapshot);
}

static void before_a_flush(struct snapshot_bytes *snapshot)
{
    snapshot->header->flushed_lsn++;
}

static void more_entries(struct snapshot_bytes *snapshot)
{
    snapshot->shards[0].entries++;
}

static void more_items(struct snapshot_bytes *snapshot)
{
    snapshot->shards[0].item_count++;
}

static void page_of_another_shard(struct snapshot_bytes *snapshot)
{
    snapshot->shards[0].page_count++;
}

static void page_too_deep(struct snapshot_bytes *snapshot)
{
    snapshot->places[0].depth = 28;
}

static void page_far_too_deep(struct snapshot_bytes *snapshot)
{
    snapshot->places[0].depth = 200;
}

static void page_twice(struct snapshot_bytes *snapshot)
{
    snapshot->places[0].depth++;
}

static void page_elsewhere(struct snapshot_bytes *snapshot)
{
    snapshot->places[0].part = 1u << snapshot->places[0].depth;
}

static void item_beyond_all(struct snapshot_bytes *snapshot)
{
    snapshot->items[0].address = 1ull << INDEX_ADDRESS_BITS;
}

static void item_without_time(struct snapshot_bytes *snapshot)
{
    snapshot->items[0].expires_ms = 0;
}

/* The first entry of the first page points there. */
static void point_at(struct snapshot_bytes *snapshot, uint64_t address)
{
    uint64_t *slots = (void *)(snapshot->bytes + SNAPSHOT_HEADER_BYTES);
    while (*slots >> 48 == 0)
        slots++;
    *slots = (*slots & ~INDEX_ADDRESS_MASK) | address;
}

static void entry_behind_the_end(struct snapshot_bytes *snapshot)
{
    const struct snapshot_segment *last = &snapshot->segments[snapshot->header->segment_count - 1];
    point_at(snapshot, ((uint64_t)last->number * options.segment_bytes + last->end) / 16);
}

static void entry_in_no_segment(struct snapshot_bytes *snapshot)
{
    point_at(snapshot, INDEX_ADDRESS_MASK);
}

static void test_snapshot__it_agrees_with_itself_and_with_the_segments(void **state)
{
    (void)state;
    static void (*const changes[])(struct snapshot_bytes *) = {
        other_store,      other_life,        shorter_segment,       longer_segment,       unknown_segment,
        one_segment_less, one_segment_more,  segments_upside_down,  before_a_flush,       more_entries,
        more_items,       page_too_deep,     page_far_too_deep,     page_twice,           page_elsewhere,
        item_beyond_all,  item_without_time, page_of_another_shard, entry_behind_the_end, entry_in_no_segment};
    for (unsigned shards = 1; shards <= 2; shards++) {
        make_store(20 + shards, shards);
        /* The seal alone changes nothing. */
        struct snapshot_bytes snapshot = snapshot_load();
        assert_true(snapshot.header->segment_count > 1 && snapshot.header->item_count > 0);

        snapshot_seal(&snapshot);
        snapshot_put(&snapshot);
        snapshot_free(&snapshot);
        store_boot(&fixture, &options);
        assert_true(snapshot_taken(&fixture));
        store_crash(&fixture, SIM_DROP_ALL);
        kept_restore(&kept);
        for (unsigned i = 0; i < ARRAY_COUNT(changes); i++)
            expect_not_taken(changes[i]);
        destroy_store();
    }
}

static void test_snapshot__another_number_of_shards(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        make_store(30, 2);
        options = segments_scarce(shards);
        if (shards != 2)
            expect_thrown_away();
        destroy_store();
    }
}

/* Many in a batch. */
static void do_together(enum engine_action action, unsigned first, unsigned end)
{
    enum { GROUP = 64 };
    static struct store_waiting waiting[GROUP];
    static char keys[GROUP][32], values[GROUP][12];
    for (; first < end; first += GROUP) {
        for (unsigned i = 0; i < GROUP; i++) {
            segments_key(keys[i], first + i);
            memcpy(values[i], segments_value(first + i, 1, sizeof values[i]).data, sizeof values[i]);
            const struct engine_request request =
                store_request(&fixture, action, slice_text(keys[i]), slice_make(values[i], sizeof values[i]));
            store_begin(&fixture, &waiting[i], &request);
        }
        for (unsigned i = 0; i < GROUP; i++) {
            store_finish(&waiting[i]);
            assert_int_equal(waiting[i].op.result.error, KVS_ERR_OK);
            free(waiting[i].value);
        }
    }
}

/* With so little memory that the pages do not fit, a start does as well or as badly as without a snapshot. */
static void test_snapshot__less_memory(void **state)
{
    (void)state;
    enum { MANY = 40000, LEFT = 9984 };
    sim_create(35);
    options = store_options(1);
    options.memory_bytes = 16 * options.segment_bytes;
    store_boot(&fixture, &options);
    do_together(ENGINE_PUT, 0, MANY);
    do_together(ENGINE_REMOVE, LEFT, MANY);
    store_stop(&fixture);
    kept_save(&kept);
    unsigned taken = 0, filled = 0;
    for (unsigned images = 16; images > 5; images--) {
        options.memory_bytes = images * options.segment_bytes;
        kept_restore(&kept);
        const enum kvs_err err = store_try_boot(&fixture, &options);
        if (err == KVS_ERR_OK) {
            taken += snapshot_taken(&fixture);
            filled += !snapshot_taken(&fixture);
            assert_int_equal(store_keys(&fixture), LEFT);
            for (unsigned i = 0; i < LEFT; i += 997)
                segments_expect(&fixture, i, 1, 12);
            store_crash(&fixture, SIM_DROP_ALL);
        } else {
            assert_int_equal(err, KVS_ERR_NO_MEMORY);
            assert_true(filled > 0);
            break;
        }
    }
    assert_true(taken > 0 && filled > 0);
    destroy_store();
}

/* ---- stale ones ------------------------------------------------------------------------------------------------ */

/* The snapshot of an earlier stop is put back, after what `live` has done to the store. */
static void expect_stale(uint64_t seed, void (*live)(void))
{
    make_store(seed, 1);
    struct snapshot_bytes old = snapshot_load();
    store_boot(&fixture, &options);
    assert_true(snapshot_taken(&fixture));
    live();
    store_crash(&fixture, SIM_DROP_ALL);
    snapshot_put(&old); /* it may be there anyhow: its removal is made durable by nobody */
    store_boot(&fixture, &options);
    assert_false(snapshot_taken(&fixture));
    snapshot_free(&old);
}

static void write_once(void)
{
    assert_true(segments_remove(&fixture, 1));
}

static void test_snapshot__stale_when_a_tail_has_grown(void **state)
{
    (void)state;
    expect_stale(40, write_once);
    segments_expect_none(&fixture, 1);
    segments_expect(&fixture, 2, 1, BYTES);
    assert_int_equal(store_keys(&fixture), snapshot_live(KEYS) + KEYS / 4 - 1);
    store_stop(&fixture);
    destroy_store();
}

/* Files are used again, for others. */
static void write_much(void)
{
    store_compact(&fixture, 130);
    for (unsigned version = 3; version < 12; version++) {
        segments_put_range(&fixture, 0, 4 * KEYS, version, BYTES);
        segments_run_ms(&fixture, 2000);
    }
    assert_true(segments_remove(&fixture, 5));
}

static void test_snapshot__stale_when_segments_have_gone(void **state)
{
    (void)state;
    expect_stale(41, write_much);
    segments_expect_none(&fixture, 5);
    segments_expect_range(&fixture, 6, 4 * KEYS, 11, BYTES);
    assert_int_equal(store_keys(&fixture), 4 * KEYS - 1);
    store_stop(&fixture);
    destroy_store();
}

/* Nothing was written since: the next start takes it, as the one that has failed would have. */
static void test_snapshot__start_that_has_failed_leaves_it(void **state)
{
    (void)state;
    make_store(42, 1);
    unsigned refused = 0;
    for (unsigned nth = 1; nth < 12; nth++) {
        sim_fail(RING_KIND_WRITE, nth, EIO);
        if (store_try_boot(&fixture, &options) != KVS_ERR_OK) {
            refused++;
            sim_fail_none();
            store_boot(&fixture, &options);
        }
        sim_fail_none();
        assert_true(snapshot_taken(&fixture));
        snapshot_expect(&fixture, KEYS, BYTES);
        store_crash(&fixture, SIM_DROP_ALL);
        kept_restore(&kept);
    }
    assert_true(refused > 1);
    destroy_store();
}

/* ---- none ------------------------------------------------------------------------------------------------------ */

static void test_snapshot__none_without_a_stop(void **state)
{
    (void)state;
    static const enum sim_crash_mode modes[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_RANDOM, SIM_KILL};
    for (unsigned i = 0; i < ARRAY_COUNT(modes); i++) {
        make_store(50 + i, 2);
        store_boot(&fixture, &options);
        store_crash(&fixture, modes[i]);
        /* The removal of the old one may not have lasted, but a boot begins with a batch. */
        store_boot(&fixture, &options);
        assert_false(snapshot_taken(&fixture));
        snapshot_expect(&fixture, KEYS, BYTES);
        store_stop(&fixture);
        destroy_store();
    }
}

static void test_snapshot__none_of_a_log_that_has_failed(void **state)
{
    (void)state;
    make_store(60, 2);
    store_boot(&fixture, &options);
    expiry_run_ms(&fixture, 1000);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    assert_int_equal(segments_try_put(&fixture, 1, 3, BYTES), KVS_ERR_FAILED);
    sim_fail_none();
    store_stop(&fixture);
    assert_false(sim_file_exists(STORE_SNAPSHOT));
    store_boot(&fixture, &options);
    segments_expect(&fixture, 2, 1, BYTES);
    segments_expect_none(&fixture, 3);
    store_stop(&fixture);
    destroy_store();
}

static struct segment *sealed_segment(void)
{
    for (uint32_t number = 0; number < 1000; number++) {
        struct segment *segment = segments_at(&fixture, number);
        if (segment != NULL && segment_state(segment) == SEGMENT_SEALED)
            return segment;
    }
    return NULL;
}

/* An entry in front of another one, perhaps of the same key, that nobody has settled: a start that fills the index does
 * it, for it compares keys. */
static void test_snapshot__none_while_an_overwrite_is_not_settled(void **state)
{
    (void)state;
    sim_create(61);
    options = segments_scarce(1);
    store_boot(&fixture, &options);
    segments_put_range(&fixture, 0, 2 * KEYS, 1, 2000);
    assert_non_null(sealed_segment());
    const struct store_shard *shard = segments_store(&fixture)->shards[0];
    struct index_cursor cursor;
    struct index_entry entry;
    char key[32];
    segments_key(key, 7);
    index_find(shard->index, hash_key(slice_text(key), engine_hash_seed(fixture.engine)), &cursor);
    assert_true(index_next(&cursor, &entry));
    entry.unsettled = true;
    index_replace(shard->index, &cursor, &entry);
    store_stop(&fixture);
    assert_false(sim_file_exists(STORE_SNAPSHOT));
    store_boot(&fixture, &options);
    assert_false(snapshot_taken(&fixture));
    segments_expect_range(&fixture, 0, 2 * KEYS, 1, 2000);
    store_stop(&fixture);
    assert_true(sim_file_exists(STORE_SNAPSHOT));
    sim_destroy();
}

/* Each step of the stop fails, one after the other, and so does the whole disk. A snapshot that there is after it is a
 * good one. */
static void test_snapshot__stop_with_errors(void **state)
{
    (void)state;
    static const struct {
        enum ring_kind kind;
        int error;
    } cases[] = {{RING_KIND_OPEN, EMFILE}, {RING_KIND_WRITE, EIO}, {RING_KIND_WRITE, ENOSPC}, {RING_KIND_SYNC, EIO}};
    unsigned without = 0, with = 0;
    for (unsigned c = 0; c < ARRAY_COUNT(cases); c++) {
        for (unsigned nth = 1; nth < 60; nth++) {
            make_store(70 + c, 2);
            store_boot(&fixture, &options);
            assert_true(segments_remove(&fixture, 1));
            segments_put(&fixture, 3, 2, BYTES);
            const uint64_t issued = sim_issued(cases[c].kind);
            sim_fail(cases[c].kind, nth, cases[c].error);
            store_stop_begin(&fixture);
            assert_true(sim_run_until(store_all_stopped, &fixture, 100000));
            const bool reached = sim_issued(cases[c].kind) - issued >= nth;
            const bool failed = engine_failed(fixture.nodes[0].shard) || engine_failed(fixture.nodes[1].shard) ||
                                expiry_stats(&fixture).background_failed != 0;
            sim_fail_none();
            store_close(&fixture);
            const bool there = sim_file_exists(STORE_SNAPSHOT);
            assert_false(failed && there);
            without += !there;
            with += there;
            store_boot(&fixture, &options);
            assert_int_equal(snapshot_taken(&fixture), there);
            segments_expect_none(&fixture, 1);
            segments_expect(&fixture, 3, 2, BYTES);
            segments_expect(&fixture, 2, 1, BYTES);
            assert_int_equal(store_keys(&fixture), snapshot_live(KEYS) + KEYS / 4);
            store_stop(&fixture);
            destroy_store();
            if (!reached)
                break;
            assert_true(nth < 59);
        }
    }
    assert_true(without >= 6 && with >= 4);
}

static void test_snapshot__stop_on_a_full_disk(void **state)
{
    (void)state;
    for (unsigned blocks = 0; blocks < 8; blocks++) {
        make_store(80 + blocks, 2);
        store_boot(&fixture, &options);
        expiry_run_ms(&fixture, 1000);
        sim_set_disk_size(sim_disk_used() + blocks * KVS_BLOCK_BYTES);
        store_stop(&fixture);
        const bool there = sim_file_exists(STORE_SNAPSHOT);
        assert_true(!there || blocks > 1);
        sim_set_disk_size(UINT64_MAX);
        store_boot(&fixture, &options);
        assert_int_equal(snapshot_taken(&fixture), there);
        snapshot_expect(&fixture, KEYS, BYTES);
        store_stop(&fixture);
        destroy_store();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot__one_bit_anywhere_spoils_it),
        cmocka_unit_test(test_snapshot__it_has_the_length_that_it_says),
        cmocka_unit_test(test_snapshot__pages_that_cannot_be_mapped),
        cmocka_unit_test(test_snapshot__it_agrees_with_itself_and_with_the_segments),
        cmocka_unit_test(test_snapshot__another_number_of_shards),
        cmocka_unit_test(test_snapshot__less_memory),
        cmocka_unit_test(test_snapshot__stale_when_a_tail_has_grown),
        cmocka_unit_test(test_snapshot__stale_when_segments_have_gone),
        cmocka_unit_test(test_snapshot__start_that_has_failed_leaves_it),
        cmocka_unit_test(test_snapshot__none_without_a_stop),
        cmocka_unit_test(test_snapshot__none_of_a_log_that_has_failed),
        cmocka_unit_test(test_snapshot__none_while_an_overwrite_is_not_settled),
        cmocka_unit_test(test_snapshot__stop_with_errors),
        cmocka_unit_test(test_snapshot__stop_on_a_full_disk),
    };
    return cmocka_run_group_tests_name("snapshot_refused", tests, NULL, NULL);
}
