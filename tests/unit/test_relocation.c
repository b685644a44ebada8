/*
 * test_relocation.c - records on the move: the swing of index entries while others overwrite, remove and read them, the
 * end of a segment, damage in a victim, failures in the middle. test_compaction.c has what becomes of a store in the
 * long run.
 */
#include "segments_fixture.h"

#include <errno.h>

enum {
    SEGMENT_BYTES = 256 * 1024,
    BYTES = 3900, /* a record, in a batch of its own, fills a block */
    PER_SEGMENT = 62,
    KEYS = 12 * PER_SEGMENT,
    SURVIVORS = KEYS / 2 / 3,
};

/* Two of three keys of the first half have two versions: the first segments are one third live, and on disk only. */
static unsigned version_of(unsigned i)
{
    return i < KEYS / 2 && i % 3 != 0 ? 2 : 1;
}

static bool survivor(unsigned i)
{
    return i < KEYS / 2 && i % 3 == 0;
}

static void write_half_dead(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < KEYS; i++)
        segments_put(fixture, i, 1, BYTES);
    for (unsigned i = 0; i < KEYS; i++) {
        if (version_of(i) == 2)
            segments_put(fixture, i, 2, BYTES);
    }
    store_quiet();
}

static void expect_all(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < KEYS; i++)
        segments_expect(fixture, i, version_of(i), BYTES);
}

/* The owners have been asked to swing entries, and have not begun. */
static bool swing_waits(void *context)
{
    const struct store *store = segments_store(context);
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (atomic_load(&store->shards[i]->slice) != NULL)
            return true;
    }
    return false;
}

static void compact_until_swing(struct store_fixture *fixture)
{
    store_compact(fixture, 120);
    assert_true(sim_run_until(swing_waits, fixture, 1000000));
}

/* From now on no new file is made: who writes now is known. */
static void limit_files(const struct store_fixture *fixture)
{
    segments_keeper(fixture)->files_max = atomic_load(&segments_store(fixture)->segments.count);
}

static void check_after_restart(struct store_fixture *fixture, const struct engine_options *options)
{
    store_crash(fixture, SIM_DROP_ALL);
    store_boot(fixture, options);
    expect_all(fixture);
    assert_int_equal(store_keys(fixture), KEYS);
    segments_check_counts(fixture, KEYS);
    store_stop(fixture);
}

/* ---- the swing ------------------------------------------------------------------------------------------------- */

static void test_relocation__live_records_move_and_their_segments_are_given_back(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        struct store_fixture fixture;
        struct engine_options options = segments_create(&fixture, shards, shards);
        write_half_dead(&fixture);
        segments_check_counts(&fixture, KEYS);
        unsigned in_use = segments_in_state(&fixture, SEGMENT_SEALED);
        store_compact(&fixture, 120);
        store_quiet();
        struct compact_stats stats = store_compact_stats(&fixture);
        assert_true(stats.plans > 0);
        assert_in_range(stats.victims, 2, in_use);
        assert_true(stats.records_moved >= KEYS / 12);
        assert_true(stats.bytes_written >= stats.records_moved * BYTES);
        assert_int_equal(stats.damaged_segments, 0);
        assert_false(stats.failed);
        assert_string_equal(compact_trouble(fixture.compactor), "");
        assert_true(segments_in_state(&fixture, SEGMENT_SEALED) < in_use);
        assert_int_equal(segments_in_state(&fixture, SEGMENT_RETIRED), 0);
        segments_check_counts(&fixture, KEYS);
        expect_all(&fixture);
        check_after_restart(&fixture, &options);
        sim_destroy();
    }
}

static bool all_done(const struct store_waiting *waiting, size_t count)
{
    bool done = true;
    for (size_t i = 0; i < count; i++)
        done = done && store_waiting_is_done((void *)&waiting[i]);
    return done;
}

/* One operation on each survivor of the first segments, all begun at this moment; then all come to their end. */
static struct store_waiting waiting[KEYS];
static char waiting_keys[KEYS][32];

static unsigned begin_on_survivors(struct store_fixture *fixture, enum engine_action action, unsigned max)
{
    static uint8_t values[KEYS][BYTES];
    unsigned count = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        if (!survivor(i) || count == max)
            continue;
        segments_key(waiting_keys[count], i);
        memcpy(values[count], segments_value(i, 3, BYTES).data, BYTES);
        struct engine_request request =
            store_request(fixture, action, slice_text(waiting_keys[count]), slice_make(values[count], BYTES));
        store_begin(fixture, &waiting[count++], &request);
    }
    return count;
}

static void finish_all(unsigned count, bool found)
{
    for (unsigned i = 0; i < count; i++) {
        store_finish(&waiting[i]);
        assert_int_equal(waiting[i].op.result.error, KVS_ERR_OK);
        if (waiting[i].op.result.found != found)
            fail_msg("%s was %s", waiting_keys[i], found ? "not found" : "found");
        free(waiting[i].value);
    }
    assert_true(all_done(waiting, count));
}

/* The copy of a record that was overwritten in the meantime is dead, and stays so. */
static void test_relocation__entry_that_was_overwritten_meanwhile_stays(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        struct store_fixture fixture;
        struct engine_options options = segments_create(&fixture, 10 + shards, shards);
        write_half_dead(&fixture);
        compact_until_swing(&fixture);
        finish_all(begin_on_survivors(&fixture, ENGINE_PUT, SURVIVORS), true);
        store_quiet();
        for (unsigned i = 0; i < KEYS; i++)
            segments_expect(&fixture, i, survivor(i) ? 3 : version_of(i), BYTES);
        segments_check_counts(&fixture, KEYS);
        assert_int_equal(store_compact_stats(&fixture).damaged_segments, 0);
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < KEYS; i++)
            segments_expect(&fixture, i, survivor(i) ? 3 : version_of(i), BYTES);
        segments_check_counts(&fixture, KEYS);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* It has listed the old places and waits for the disk; when it acts it must find the entries all the same. */
static void test_relocation__remove_that_waits_for_the_disk_is_told(void **state)
{
    (void)state;
    for (uint64_t seed = 20; seed < 24; seed++) {
        struct store_fixture fixture;
        struct engine_options options = segments_create(&fixture, seed, 1);
        write_half_dead(&fixture);
        compact_until_swing(&fixture);
        unsigned count = begin_on_survivors(&fixture, ENGINE_REMOVE, SURVIVORS);
        assert_int_equal(count, SURVIVORS);
        for (unsigned i = 0; i < count; i++)
            assert_false(waiting[i].done);
        finish_all(count, true);
        store_quiet();
        for (unsigned boot = 0; boot < 2; boot++) {
            for (unsigned i = 0; i < KEYS; i++) {
                if (survivor(i))
                    segments_expect_none(&fixture, i);
                else
                    segments_expect(&fixture, i, version_of(i), BYTES);
            }
            assert_int_equal(store_keys(&fixture), KEYS - count);
            segments_check_counts(&fixture, KEYS);
            if (boot == 0) {
                store_crash(&fixture, SIM_DROP_ALL);
                store_boot(&fixture, &options);
            }
        }
        store_stop(&fixture);
        sim_destroy();
    }
}

/* A blind overwrite leaves the old entry to be settled: that reads the old record, which moves meanwhile. */
static void test_relocation__settling_is_told(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 30, 1);
    write_half_dead(&fixture);
    compact_until_swing(&fixture);
    const struct store_shard *shard = segments_store(&fixture)->shards[0];
    unsigned count = begin_on_survivors(&fixture, ENGINE_PUT, STORE_SETTLING_MAX);
    assert_true(shard->settling > 0);
    assert_int_equal(atomic_load(&shard->counters.settles_skipped), 0);
    finish_all(count, true);
    store_quiet();
    assert_int_equal(shard->settling, 0);
    assert_int_equal(store_keys(&fixture), KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        uint64_t places[8];
        if (survivor(i))
            assert_int_equal(segments_places(&fixture, i, places), 1);
    }
    segments_check_counts(&fixture, KEYS);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- the end of a segment -------------------------------------------------------------------------------------- */

struct slow_read {
    struct engine_op op;
    char key[32];
    unsigned i;
    bool done;
    uint32_t segment; /* it has listed a place in */
    uint64_t uid;
};

static void slow_read_done(struct engine_op *op)
{
    struct slow_read *read = container_of(op, struct slow_read, op);
    assert_int_equal(op->result.error, KVS_ERR_OK);
    assert_true(op->result.found);
    struct slice value = segments_value(read->i, version_of(read->i), BYTES);
    assert_true(slice_equal(op->result.value, value));
    engine_op_release(op);
    read->done = true;
}

/* Reads of the survivors that take long. */
static unsigned begin_slow_reads(struct store_fixture *fixture, struct slow_read *reads)
{
    unsigned count = 0;
    sim_odds(SIM_FAULT_LATE, 1000000);
    for (unsigned i = 0; i < KEYS; i++) {
        if (!survivor(i))
            continue;
        struct slow_read *read = &reads[count];
        *read = (struct slow_read){.i = i};
        segments_key(read->key, i);
        read->op.request = store_request(fixture, ENGINE_GET, slice_text(read->key), slice_make(NULL, 0));
        read->op.done = slow_read_done;
        read->segment = segments_of_key(fixture, i);
        read->uid = segments_at(fixture, read->segment)->uid;
        unsigned owner = store_owner(fixture, &read->op.request);
        engine_submit(fixture->nodes[owner].shard, &read->op);
        assert_false(read->done);
        count++;
    }
    for (unsigned i = 0; i < fixture->shard_count; i++)
        ring_turn(fixture->nodes[i].ring, 0); /* the reads are issued, and late */
    sim_odds_none();
    return count;
}

static void test_relocation__segment_stays_until_reads_that_listed_it_have_ended(void **state)
{
    (void)state;
    static struct slow_read reads[KEYS];
    for (uint64_t seed = 40; seed < 44; seed++) {
        struct store_fixture fixture;
        (void)segments_create(&fixture, seed, 2);
        write_half_dead(&fixture);
        compact_until_swing(&fixture);
        unsigned count = begin_slow_reads(&fixture, reads);
        bool waited = false, under_way = true;
        while (under_way) {
            under_way = false;
            for (unsigned i = 0; i < count; i++) {
                if (reads[i].done)
                    continue;
                under_way = true;
                const struct segment *segment = segments_at(&fixture, reads[i].segment);
                enum segment_state now = segment_state(segment);
                waited = waited || now == SEGMENT_RETIRED;
                if ((now != SEGMENT_SEALED && now != SEGMENT_RETIRED) || segment->uid != reads[i].uid)
                    fail_msg("segment %u is used again while a read from it is in flight", reads[i].segment);
            }
            assert_true(!under_way || sim_step());
        }
        assert_true(waited);
        store_quiet();
        assert_int_equal(segments_in_state(&fixture, SEGMENT_RETIRED), 0);
        assert_true(store_compact_stats(&fixture).victims >= 2);
        expect_all(&fixture);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* From the retirement to the free list: the index points at nothing in it, and the manifest says so durably. */
static void test_relocation__retired_file_is_not_used_again_before_the_manifest_says_so(void **state)
{
    (void)state;
    for (uint64_t seed = 50; seed < 56; seed++) {
        struct store_fixture fixture;
        struct engine_options options = segments_create(&fixture, seed, 2);
        write_half_dead(&fixture);
        store_compact(&fixture, 120);
        const struct keeper *keeper = segments_keeper(&fixture);
        struct retirement last = {0};
        unsigned freed = 0;
        do {
            if (last.segment != NULL && keeper->retirement.segment != last.segment) {
                assert_true(last.entered);
                if (!manifest_durable(keeper->manifest, last.ticket))
                    fail_msg("segment %u is free before the manifest says so", last.segment->number);
                freed++;
            }
            last = keeper->retirement;
            if (last.segment != NULL) {
                assert_int_equal(segment_state(last.segment), SEGMENT_RETIRED);
                assert_int_equal(atomic_load(&last.segment->dead_puts), last.segment->puts);
            }
        } while (sim_step());
        assert_int_equal(freed, store_compact_stats(&fixture).victims);
        check_after_restart(&fixture, &options);
        sim_destroy();
    }
}

/* All of its records are overwritten, but no overwrite is durable: it must not be gone before they are. */
static void test_relocation__segment_stays_until_what_has_superseded_it_is_durable(void **state)
{
    (void)state;
    enum { MANY = 8 * PER_SEGMENT, RELAXED_BYTES = 100 };
    for (uint64_t seed = 1; seed <= 20; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1 + (unsigned)(seed % 2));
        options.relaxed_interval_ms = 60000;
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < MANY; i++)
            segments_put(&fixture, i, 1, BYTES);
        store_quiet();
        struct segment *segment = segments_at(&fixture, segments_of_key(&fixture, 0));
        assert_int_equal(segment_state(segment), SEGMENT_SEALED);
        for (unsigned i = 0; i < options.shard_count; i++)
            assert_ptr_not_equal(segments_keeper(&fixture)->newest_sealed[i], segment); /* that has to stay */
        for (unsigned i = 0; i < MANY; i++) {
            if (!segments_may_hold(&fixture, segment->number, i))
                continue;
            char key[32];
            segments_key(key, i);
            struct store_waiting put;
            struct engine_request request =
                store_request(&fixture, ENGINE_PUT, slice_text(key), segments_value(i, 2, RELAXED_BYTES));
            request.relaxed = true;
            store_begin(&fixture, &put, &request);
            assert_true(put.done);
            free(put.value);
        }
        for (unsigned i = 0; i < 10000 && atomic_load(&segment->dead_puts) < segment->puts; i++)
            sim_step(); /* what was overwritten blindly is settled */
        assert_int_equal(atomic_load(&segment->dead_puts), segment->puts);
        relocation_retire(fixture.background, segment);
        engine_background_turn(fixture.background);
        sim_odds(SIM_FAULT_LATE, 1000000); /* for the log's writes that the retirement asks for */
        for (unsigned i = 0; i < options.shard_count; i++) {
            engine_turn(fixture.nodes[i].shard);
            ring_turn(fixture.nodes[i].ring, 0);
        }
        sim_odds_none();
        while (segment_state(segment) != SEGMENT_FREE)
            assert_true(sim_step());
        store_crash(&fixture, SIM_DROP_ALL);
        store_boot(&fixture, &options);
        assert_int_equal(store_keys(&fixture), MANY);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void spoil_key(const struct store_fixture *fixture, unsigned i, char path[64])
{
    uint64_t places[8];
    assert_int_equal(segments_places(fixture, i, places), 1);
    unsigned shift = segments_store(fixture)->segments.shift;
    store_segment_path(path, address_segment(places[0], shift));
    uint64_t at = address_offset(places[0], shift) + 1000;
    uint8_t byte;
    sim_file_read(path, at, &byte, 1);
    byte ^= 4;
    sim_rot_add(path, at, &byte, 1);
}

static void test_relocation__victim_with_damage_is_left_alone_and_the_others_are_not(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 60, 1);
    write_half_dead(&fixture);
    unsigned spoiled = PER_SEGMENT / 2 / 3 * 3;
    assert_true(survivor(spoiled));
    uint32_t number = segments_of_key(&fixture, spoiled);
    char path[64], name[32];
    spoil_key(&fixture, spoiled, path);
    store_compact(&fixture, 120);
    store_quiet();
    struct compact_stats stats = store_compact_stats(&fixture);
    assert_int_equal(stats.damaged_segments, 1);
    assert_false(stats.failed);
    assert_true(stats.victims >= 1);
    snprintf(name, sizeof name, "segment %06u, offset ", number);
    assert_non_null(strstr(compact_trouble(fixture.compactor), name));
    assert_int_equal(segment_state(segments_at(&fixture, number)), SEGMENT_SEALED);
    assert_int_equal(segments_of_key(&fixture, spoiled), number);
    segments_check_counts(&fixture, KEYS);

    /* The one record is an error, all others are what they were; compaction goes on with other segments. */
    for (unsigned i = 0; i < KEYS; i++) {
        if (i != spoiled)
            segments_expect(&fixture, i, version_of(i), BYTES);
    }
    struct store_waiting get;
    char key[32];
    segments_key(key, spoiled);
    struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    store_execute(&fixture, &get, &request);
    assert_int_equal(get.op.result.error, KVS_ERR_CORRUPT);
    free(get.value);
    for (unsigned round = 3; round < 6; round++) {
        for (unsigned i = KEYS / 2; i < KEYS; i++)
            segments_put(&fixture, i, round, BYTES);
    }
    store_quiet();
    assert_true(store_compact_stats(&fixture).victims > stats.victims + 3);
    assert_int_equal(store_compact_stats(&fixture).damaged_segments, 1);
    assert_int_equal(segment_state(segments_at(&fixture, number)), SEGMENT_SEALED);
    sim_rot_heal();
    segments_expect(&fixture, spoiled, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

/* A read error that does not come back is none. */
static void test_relocation__one_failed_read_is_no_damage(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 61, 1);
    write_half_dead(&fixture);
    sim_fail(RING_KIND_READ, 1, EIO);
    store_compact(&fixture, 120);
    store_quiet();
    assert_int_equal(store_compact_stats(&fixture).damaged_segments, 0);
    assert_true(store_compact_stats(&fixture).victims >= 2);
    expect_all(&fixture);
    check_after_restart(&fixture, &options);
    sim_destroy();
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void test_relocation__failed_write_ends_compaction_and_nothing_else(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 70, 1);
    write_half_dead(&fixture);
    limit_files(&fixture);
    store_compact(&fixture, 120);
    while (segments_in_state(&fixture, SEGMENT_OPEN) < 2) /* compaction has its output */
        assert_true(sim_step());
    sim_fail(RING_KIND_WRITE, 1, EIO);
    store_quiet();
    assert_true(store_compact_stats(&fixture).failed);
    assert_string_not_equal(compact_trouble(fixture.compactor), "");
    assert_int_equal(store_compact_stats(&fixture).urgency, 0);
    segments_check_counts(&fixture, KEYS);
    expect_all(&fixture);
    segments_put(&fixture, KEYS, 1, BYTES);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    segments_expect(&fixture, KEYS, 1, BYTES);
    assert_true(segments_remove(&fixture, KEYS));
    store_quiet();
    check_after_restart(&fixture, &options);
    sim_destroy();
}

static bool manifest_has_failed(void *context)
{
    return manifest_failed(segments_keeper(context)->manifest);
}

/* Compaction can gain nothing any more: it must not keep writers waiting, nor the node from stopping. */
static void test_relocation__failed_manifest_leaves_no_writer_waiting(void **state)
{
    (void)state;
    struct store_fixture fixture;
    struct engine_options options = segments_create(&fixture, 71, 1);
    write_half_dead(&fixture);
    limit_files(&fixture);
    compact_until_swing(&fixture);
    sim_fail(RING_KIND_WRITE, 1, EIO); /* the entry of the sealed output */
    assert_true(sim_run_until(manifest_has_failed, &fixture, 100000));
    sim_fail_none();
    unsigned i = KEYS;
    enum kvs_err err;
    while ((err = segments_try_put(&fixture, i, 1, BYTES)) == KVS_ERR_OK)
        assert_true(++i < KEYS + 3 * PER_SEGMENT);
    assert_true(err == KVS_ERR_NO_SPACE || err == KVS_ERR_FAILED);
    assert_true(store_compact_stats(&fixture).failed);
    assert_int_equal(store_compact_stats(&fixture).urgency, 0);
    expect_all(&fixture);
    store_stop(&fixture);
    store_boot(&fixture, &options);
    expect_all(&fixture);
    while (i-- > KEYS)
        segments_expect(&fixture, i, 1, BYTES);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relocation__live_records_move_and_their_segments_are_given_back),
        cmocka_unit_test(test_relocation__entry_that_was_overwritten_meanwhile_stays),
        cmocka_unit_test(test_relocation__remove_that_waits_for_the_disk_is_told),
        cmocka_unit_test(test_relocation__settling_is_told),
        cmocka_unit_test(test_relocation__segment_stays_until_reads_that_listed_it_have_ended),
        cmocka_unit_test(test_relocation__retired_file_is_not_used_again_before_the_manifest_says_so),
        cmocka_unit_test(test_relocation__segment_stays_until_what_has_superseded_it_is_durable),
        cmocka_unit_test(test_relocation__victim_with_damage_is_left_alone_and_the_others_are_not),
        cmocka_unit_test(test_relocation__one_failed_read_is_no_damage),
        cmocka_unit_test(test_relocation__failed_write_ends_compaction_and_nothing_else),
        cmocka_unit_test(test_relocation__failed_manifest_leaves_no_writer_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
