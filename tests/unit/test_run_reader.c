/*
 * test_run_reader.c - parts of runs, reads in flight, and damage: whatever the disk says, never a wrong entry.
 */
#include "run_fixture.h"

#include <errno.h>

#define PATH "/data/000000000005.run"

enum { COUNT = 25000 };

/* A machine with one run of COUNT entries on its disk, booted anew. */
static struct run_entry *make(struct run_machine *machine, uint64_t seed)
{
    struct run_entry *entries = entries_make(0, COUNT, 1);
    machine_create(machine, seed);
    run_make(machine, 5, entries, COUNT, 100);
    sim_crash(SIM_DROP_ALL);
    machine_boot(machine);
    return entries;
}

static void test_run_reader__the_parts_of_the_shards_are_the_whole(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 1);
    struct run *run = run_must_open(&machine, 5);
    for (unsigned shards = 1; shards <= 64; shards = shards * 3 - 1) {
        size_t all = 0;
        for (unsigned shard = 0; shard < shards; shard++) {
            size_t got;
            struct run_reader *reader =
                reader_make(&machine, run, run_range_of_shard(shard, shards), 1 + shard % 3, 1 + shard % 2);
            assert_int_equal(reader_expect(&machine, reader, entries + all, COUNT - all, &got), KVS_ERR_OK);
            run_reader_close(reader);
            all += got;
        }
        assert_int_equal(all, COUNT);
    }
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

static void test_run_reader__any_range_is_cut_to_its_ends(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 2);
    struct run *run = run_must_open(&machine, 5);
    for (unsigned i = 0; i < 300; i++) {
        /* From one entry's order to another's, and one more or less: also at the ends of blocks. */
        size_t from = i % 3 == 0 ? (size_t)i / 3 % 15 * RUN_BLOCK_ENTRIES : sim_random(COUNT);
        size_t to = from + sim_random(i % 2 == 0 ? 3 : COUNT - from);
        if (to >= COUNT)
            to = COUNT - 1;
        struct run_range range = {entries[from].order, entries[to].order};
        size_t first = from, end = to + 1;
        if (i % 5 == 1) {
            range.first++;
            first++;
        }
        if (i % 5 == 2) {
            range.last--;
            end--;
        }
        if (range.first > range.last)
            continue;
        size_t got;
        struct run_reader *reader = reader_make(&machine, run, range, 2, 1);
        assert_int_equal(reader_expect(&machine, reader, entries + first, end - first, &got), KVS_ERR_OK);
        assert_int_equal(got, end > first ? end - first : 0);
        run_reader_close(reader);
    }
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

/* Entries of one order that reach over the ends of blocks. */
static void test_run_reader__equal_orders_over_several_blocks_are_all_found(void **state)
{
    (void)state;
    struct run_machine machine;
    machine_create(&machine, 3);
    struct run_entry *entries = entries_make(0, COUNT, 1);
    for (size_t i = 0; i < COUNT; i++) {
        entries[i].order = i < 3000 ? 10 : i < 9000 ? 20 : 30;
        entries[i].check = i;
    }
    run_make(&machine, 5, entries, COUNT, 1);
    struct run *run = run_must_open(&machine, 5);
    static const struct {
        uint64_t first, last;
        size_t from, to;
    } cases[] = {{0, 9, 0, 0},         {0, 10, 0, 3000},     {10, 10, 0, 3000},     {11, 19, 0, 0},
                 {20, 20, 3000, 9000}, {11, 29, 3000, 9000}, {30, 30, 9000, COUNT}, {21, UINT64_MAX, 9000, COUNT},
                 {31, 40, 0, 0}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        size_t got;
        struct run_reader *reader = reader_make(&machine, run, (struct run_range){cases[i].first, cases[i].last}, 3, 2);
        assert_int_equal(reader_expect(&machine, reader, entries + cases[i].from, COUNT, &got), KVS_ERR_OK);
        assert_int_equal(got, cases[i].to - cases[i].from);
        run_reader_close(reader);
    }
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

static void test_run_reader__several_reads_are_in_flight(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 4);
    struct run *run = run_must_open(&machine, 5);
    const uint64_t before = sim_issued(RING_KIND_READ);
    struct run_reader *reader = reader_make(&machine, run, RUN_RANGE_ALL, 3, 2);
    struct run_span span;
    assert_int_equal(run_reader_next(reader, &span), KVS_ERR_AGAIN);
    ring_turn(machine.ring, 0);
    assert_int_equal(sim_issued(RING_KIND_READ) - before, 3);
    /* One more whenever one is used up. */
    for (unsigned block = 0; block < 3;) {
        const enum kvs_err err = run_reader_next(reader, &span);
        if (err == KVS_ERR_AGAIN)
            ring_turn(machine.ring, -1);
        else
            block++;
    }
    ring_turn(machine.ring, 0);
    assert_int_equal(sim_issued(RING_KIND_READ) - before, 4);
    reader_drop(&machine, reader);
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

static void test_run_reader__may_be_stopped_at_any_moment(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 5);
    struct run *run = run_must_open(&machine, 5);
    for (unsigned turns = 0; turns < 30; turns++) {
        struct run_reader *reader = reader_make(&machine, run, RUN_RANGE_ALL, 4, 1);
        for (unsigned i = 0; i < turns; i++) {
            struct run_span span;
            if (run_reader_next(reader, &span) == KVS_ERR_AGAIN)
                ring_turn(machine.ring, -1);
        }
        reader_drop(&machine, reader);
    }
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

/* Opens and reads the run. What comes is right, up to an error; OK when all came. */
static enum kvs_err read_damaged(struct run_machine *machine, const struct run_entry *entries)
{
    char message[ENGINE_MESSAGE_BYTES];
    struct run *run;
    enum kvs_err err = run_try_open(machine, 5, &run, message);
    if (err != KVS_ERR_OK) {
        assert_non_null(strstr(message, PATH ": "));
        return err;
    }
    struct run_reader *reader = reader_make(machine, run, RUN_RANGE_ALL, 2, 2);
    size_t got;
    err = reader_expect(machine, reader, entries, COUNT, &got);
    assert_true(err != KVS_ERR_OK || got == COUNT);
    assert_true(err == KVS_ERR_OK || strstr(run_reader_failure_text(reader), PATH ": block ") != NULL);
    if (err != KVS_ERR_OK) { /* and it stays so */
        struct run_span span;
        assert_int_equal(run_reader_next(reader, &span), err);
    }
    reader_drop(machine, reader);
    run_close(run, machine->ring);
    return err;
}

static void test_run_reader__one_wrong_bit_anywhere_is_damage(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 6);
    const uint64_t bits = sim_file_size(PATH) * 8;
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_OK);
    for (unsigned i = 0; i < 300; i++) {
        /* A third of them in the header and in what lies behind the entries. */
        uint64_t bit = sim_random(bits);
        if (i % 6 == 0)
            bit = sim_random(RUN_HEADER_BYTES * 8ull);
        if (i % 6 == 3)
            bit = bits - 1 - sim_random(2ull * KVS_BLOCK_BYTES * 8);
        sim_file_flip(PATH, bit);
        assert_int_equal(read_damaged(&machine, entries), KVS_ERR_CORRUPT);
        sim_file_flip(PATH, bit);
    }
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_OK);
    free(entries);
    sim_destroy();
}

static void test_run_reader__a_file_of_another_length_is_damage(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 7);
    const uint64_t size = sim_file_size(PATH);
    const uint64_t sizes[] = {0, 1, 4095, 4096, 65536, size - 4096, size - 1, size + 1, size + 4096};
    uint8_t *bytes = calloc(1, size + 4096);
    sim_file_read(PATH, 0, bytes, size);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        sim_file_put(PATH, bytes, sizes[i]);
        assert_int_equal(read_damaged(&machine, entries), KVS_ERR_CORRUPT);
    }
    sim_file_put(PATH, bytes, size);
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_OK);
    free(bytes);
    free(entries);
    sim_destroy();
}

/* Shortened after it was opened: what reads find then. */
static void test_run_reader__a_file_that_gets_shorter_is_an_error(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 8);
    struct run *run = run_must_open(&machine, 5);
    sim_file_truncate(PATH, RUN_HEADER_BYTES + 5 * RUN_BLOCK_BYTES);
    struct run_reader *reader = reader_make(&machine, run, RUN_RANGE_ALL, 2, 2);
    size_t got;
    assert_true(reader_expect(&machine, reader, entries, COUNT, &got) != KVS_ERR_OK);
    assert_true(got >= 4ul * RUN_BLOCK_ENTRIES && got <= 5ul * RUN_BLOCK_ENTRIES);
    reader_drop(&machine, reader);
    run_close(run, machine.ring);
    free(entries);
    sim_destroy();
}

static void copy_block(const char *from_path, uint64_t from, const char *to_path, uint64_t to)
{
    uint8_t *bytes = malloc(RUN_BLOCK_BYTES);
    sim_file_read(from_path, RUN_HEADER_BYTES + from * RUN_BLOCK_BYTES, bytes, RUN_BLOCK_BYTES);
    sim_file_overwrite(to_path, RUN_HEADER_BYTES + to * RUN_BLOCK_BYTES, bytes, RUN_BLOCK_BYTES);
    free(bytes);
}

static void test_run_reader__blocks_of_another_place_or_run_are_damage(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 9);
    run_make(&machine, 6, entries, COUNT, 100); /* the same entries, another sequence */
    sim_crash(SIM_DROP_ALL);
    machine_boot(&machine);
    const uint64_t size = sim_file_size(PATH);
    uint8_t *bytes = malloc(size);
    sim_file_read(PATH, 0, bytes, size);
    copy_block(PATH, 3, PATH, 4);
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_CORRUPT);
    sim_file_put(PATH, bytes, size);
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_OK);
    copy_block("/data/000000000006.run", 3, PATH, 3);
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_CORRUPT);

    assert_int_equal(sim_file_size("/data/000000000006.run"), size);
    sim_file_read("/data/000000000006.run", 0, bytes, size);
    sim_file_put(PATH, bytes, size);
    assert_int_equal(read_damaged(&machine, entries), KVS_ERR_CORRUPT);
    free(bytes);
    free(entries);
    sim_destroy();
}

/* Right checksums everywhere, but a block that was exchanged for one with other entries: the index, the block before
 * and the block behind it all have to agree. */
static void test_run_reader__blocks_must_continue_each_other(void **state)
{
    (void)state;
    for (unsigned damage = 0; damage < 5; damage++) {
        struct run_machine machine;
        struct run_entry *entries = make(&machine, 10);
        uint8_t *bytes = malloc(RUN_BLOCK_BYTES);
        const uint64_t offset = RUN_HEADER_BYTES + 3 * RUN_BLOCK_BYTES;
        sim_file_read(PATH, offset, bytes, RUN_BLOCK_BYTES);
        struct run_entry *block = (void *)(bytes + sizeof(struct run_block));
        if (damage == 1)
            block[0].order++; /* not what the index says */
        if (damage == 2)
            block[RUN_BLOCK_ENTRIES - 1].order = entries[4ul * RUN_BLOCK_ENTRIES].order + 1; /* beyond the next block */
        if (damage == 3)
            block[0] = entries[3 * RUN_BLOCK_ENTRIES - 1]; /* the last of the block before it */
        if (damage == 4) { /* the last of this block is that which the next one begins with */
            block[RUN_BLOCK_ENTRIES - 1] = entries[4ul * RUN_BLOCK_ENTRIES];
        }
        run_block_seal(bytes, RUN_ENTRIES, RUN_BLOCK_ENTRIES, run_seed(run_uuid, 5), 5, 3);
        sim_file_overwrite(PATH, offset, bytes, RUN_BLOCK_BYTES);
        struct run *run = run_must_open(&machine, 5);
        struct run_reader *reader = reader_make(&machine, run, RUN_RANGE_ALL, 2, 2);
        enum kvs_err err;
        size_t got = 0;
        struct run_span span;
        while ((err = run_reader_next(reader, &span)) == KVS_ERR_AGAIN || span.at != span.end) {
            if (err == KVS_ERR_AGAIN)
                ring_turn(machine.ring, -1);
            got += (size_t)(span.end - span.at);
        }
        assert_int_equal(err, damage == 0 ? KVS_ERR_OK : KVS_ERR_CORRUPT);
        assert_int_equal(got, damage == 0 ? COUNT : (damage == 4 ? 4 : 3) * RUN_BLOCK_ENTRIES);
        reader_drop(&machine, reader);
        run_close(run, machine.ring);
        free(bytes);
        free(entries);
        sim_destroy();
    }
}

static void test_run_reader__a_read_that_fails_is_told(void **state)
{
    (void)state;
    struct run_machine machine;
    struct run_entry *entries = make(&machine, 11);
    unsigned failures = 0;
    for (unsigned nth = 1; nth < 40; nth++) {
        sim_fail(RING_KIND_READ, nth, EIO);
        const enum kvs_err err = read_damaged(&machine, entries);
        sim_fail_none();
        assert_true(err == KVS_ERR_OK || err == KVS_ERR_IO);
        failures += err == KVS_ERR_IO;
    }
    assert_int_equal(failures, 1 + 1 + 8); /* header, tail, 16 blocks by two */
    free(entries);
    sim_destroy();
}

static void test_run_open__without_a_file_nothing_is_found(void **state)
{
    (void)state;
    struct run_machine machine;
    machine_create(&machine, 12);
    char message[ENGINE_MESSAGE_BYTES];
    struct run *run;
    assert_int_equal(run_try_open(&machine, 5, &run, message), KVS_ERR_NOT_FOUND);
    assert_null(run);
    assert_non_null(strstr(message, PATH ": "));
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_reader__the_parts_of_the_shards_are_the_whole),
        cmocka_unit_test(test_run_reader__any_range_is_cut_to_its_ends),
        cmocka_unit_test(test_run_reader__equal_orders_over_several_blocks_are_all_found),
        cmocka_unit_test(test_run_reader__several_reads_are_in_flight),
        cmocka_unit_test(test_run_reader__may_be_stopped_at_any_moment),
        cmocka_unit_test(test_run_reader__one_wrong_bit_anywhere_is_damage),
        cmocka_unit_test(test_run_reader__a_file_of_another_length_is_damage),
        cmocka_unit_test(test_run_reader__a_file_that_gets_shorter_is_an_error),
        cmocka_unit_test(test_run_reader__blocks_of_another_place_or_run_are_damage),
        cmocka_unit_test(test_run_reader__blocks_must_continue_each_other),
        cmocka_unit_test(test_run_reader__a_read_that_fails_is_told),
        cmocka_unit_test(test_run_open__without_a_file_nothing_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
