/*
 * run_fixture.h - what the tests of sorted runs share: a simulated machine with one ring and a folder, entries made of
 * numbers, and runs written and read whole.
 */
#ifndef KVS_TESTS_UNIT_RUN_FIXTURE_H
#define KVS_TESTS_UNIT_RUN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/run_reader.h"
#include "engine/run_sort.h"
#include "engine/run_writer.h"
#include "ring_sim.h"

#include <stdlib.h>

static const uint8_t run_uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

struct run_machine {
    struct ring *ring;
    int dir_fd;
    struct name_sync names;
};

static inline void machine_boot(struct run_machine *machine)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 64};
    assert_int_equal(ring_open(&machine->ring, &options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(machine->ring, "/data", &machine->dir_fd), KVS_ERR_OK);
    name_sync_init(&machine->names, machine->dir_fd);
}

static inline void machine_create(struct run_machine *machine, uint64_t seed)
{
    sim_create(seed);
    machine_boot(machine);
}

static inline uint64_t run_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* The entry of key number `key`, written with this LSN. */
static inline struct run_entry entry_make(uint64_t key, uint64_t lsn)
{
    return (struct run_entry){.order = run_mix(key),
                              .check = run_mix(~key),
                              .lsn = lsn,
                              .expires_ms = key % 3 == 0 ? lsn * 1000 : 0,
                              .place = run_place(lsn & 0xffffffffffull, 48, key % 5 == 0 ? RUN_DELETE : 0)};
}

/* Sorted entries of keys first, first + 1 … To be freed. */
static inline struct run_entry *entries_make(uint64_t first, size_t count, uint64_t lsn)
{
    struct run_entry *entries = calloc(count + 1, sizeof *entries);
    assert_non_null(entries);
    for (size_t i = 0; i < count; i++)
        entries[i] = entry_make(first + i, lsn + i);
    run_sort(entries, count);
    return entries;
}

/* ---- whole runs ------------------------------------------------------------------------------------------------ */

static inline struct run_writer *writer_make(struct run_machine *machine, uint64_t sequence)
{
    const struct run_writer_options options = {.ring = machine->ring,
                                               .dir_fd = machine->dir_fd,
                                               .dir_name = "/data",
                                               .store_uuid = run_uuid,
                                               .sequence = sequence,
                                               .direct = true,
                                               .names = &machine->names};
    struct run_writer *writer;
    assert_int_equal(run_writer_open(&writer, &options), KVS_ERR_OK);
    return writer;
}

/* Puts all entries and finishes, or stops when the writer has failed; its state. */
static inline enum kvs_err writer_run(struct run_machine *machine, struct run_writer *writer,
                                      const struct run_entry *entries, size_t count, uint32_t segments)
{
    for (size_t done = 0; done < count;) {
        /* Portions of all sizes, so that they end anywhere in a block. */
        const size_t some = count - done < 1 + done % 3001 ? count - done : 1 + done % 3001;
        const size_t taken = run_writer_put(writer, entries + done, some);
        done += taken;
        if (run_writer_state(writer) != KVS_ERR_AGAIN)
            return run_writer_state(writer);
        if (taken < some)
            ring_turn(machine->ring, -1);
    }
    struct run_segment *covered = calloc(segments + 1, sizeof *covered);
    assert_non_null(covered);
    for (uint32_t i = 0; i < segments; i++)
        covered[i] = (struct run_segment){
            .number = 3 * i, .uid = run_mix(i), .puts = i, .deletes = i + 1, .record_bytes = i + 2};
    run_writer_finish(writer, covered, segments);
    free(covered);
    while (run_writer_state(writer) == KVS_ERR_AGAIN)
        ring_turn(machine->ring, -1);
    return run_writer_state(writer);
}

static inline void run_make(struct run_machine *machine, uint64_t sequence, const struct run_entry *entries,
                            size_t count, uint32_t segments)
{
    struct run_writer *writer = writer_make(machine, sequence);
    assert_int_equal(writer_run(machine, writer, entries, count, segments), KVS_ERR_OK);
    assert_int_equal(run_writer_entries(writer), count);
    run_writer_close(writer, machine->ring);
}

static inline enum kvs_err run_try_open(struct run_machine *machine, uint64_t sequence, struct run **run,
                                        char message[ENGINE_MESSAGE_BYTES])
{
    const struct run_open_options options = {.ring = machine->ring,
                                             .dir_fd = machine->dir_fd,
                                             .dir_name = "/data",
                                             .store_uuid = run_uuid,
                                             .sequence = sequence,
                                             .direct = true};
    message[0] = '\0';
    return run_open(run, &options, message);
}

static inline struct run *run_must_open(struct run_machine *machine, uint64_t sequence)
{
    char message[ENGINE_MESSAGE_BYTES];
    struct run *run;
    if (run_try_open(machine, sequence, &run, message) != KVS_ERR_OK)
        fail_msg("%s", message);
    return run;
}

static inline struct run_reader *reader_make(struct run_machine *machine, const struct run *run, struct run_range range,
                                             unsigned reads, unsigned read_blocks)
{
    const struct run_reader_options options = {
        .run = run, .ring = machine->ring, .range = range, .reads = reads, .read_blocks = read_blocks};
    struct run_reader *reader;
    assert_int_equal(run_reader_open(&reader, &options), KVS_ERR_OK);
    return reader;
}

/* Reads on until the end or an error, and fails unless what comes is the beginning of `entries`; *got: how many. */
static inline enum kvs_err reader_expect(struct run_machine *machine, struct run_reader *reader,
                                         const struct run_entry *entries, size_t count, size_t *got)
{
    *got = 0;
    for (;;) {
        struct run_span span;
        const enum kvs_err err = run_reader_next(reader, &span);
        if (err == KVS_ERR_AGAIN) {
            ring_turn(machine->ring, -1);
            continue;
        }
        if (err != KVS_ERR_OK || span.at == span.end)
            return err;
        const size_t some = (size_t)(span.end - span.at);
        assert_true(some <= count - *got);
        assert_memory_equal(span.at, entries + *got, some * sizeof *entries);
        *got += some;
    }
}

/* Ends a reader before its end. */
static inline void reader_drop(struct run_machine *machine, struct run_reader *reader)
{
    run_reader_stop(reader);
    while (!run_reader_idle(reader))
        ring_turn(machine->ring, -1);
    run_reader_close(reader);
}

/* The run holds exactly these. */
static inline void run_expect(struct run_machine *machine, uint64_t sequence, const struct run_entry *entries,
                              size_t count)
{
    struct run *run = run_must_open(machine, sequence);
    assert_int_equal(run->entry_count, count);
    struct run_reader *reader = reader_make(machine, run, RUN_RANGE_ALL, 0, 0);
    size_t got;
    assert_int_equal(reader_expect(machine, reader, entries, count, &got), KVS_ERR_OK);
    assert_int_equal(got, count);
    reader_drop(machine, reader);
    run_close(run, machine->ring);
}

#endif
