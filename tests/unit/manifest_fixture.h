/*
 * manifest_fixture.h - a manifest on the simulated machine, with a model of it: every change that was ever made, in
 * order, and how many of them were known to be durable.
 *
 * What a start finds must be a prefix of the changes that ends nowhere before the last durable one.
 */
#ifndef KVS_TESTS_MANIFEST_FIXTURE_H
#define KVS_TESTS_MANIFEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/manifest.h"
#include "engine/manifest_internal.h"
#include "ring_sim.h"

#include <stdio.h>
#include <stdlib.h>

#define MANIFEST_PATH     "/data/" MANIFEST_NAME
#define MANIFEST_NEW_PATH "/data/" MANIFEST_NEW_NAME

enum { FIXTURE_NUMBERS = 6000, FIXTURE_CHANGES = 20000 };

static const uint8_t fixture_uuid[16] = {7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct manifest_fixture {
    struct ring *ring;
    int dir_fd;
    struct manifest_options options;
    struct manifest *manifest;
    _Atomic uint32_t name_syncs_failed;
    uint64_t base; /* index of the change before the first ticket of this boot */
    char message[ENGINE_MESSAGE_BYTES];

    /* The model, over all boots. */
    struct manifest_entry *changes;
    uint64_t count, durable;
    uint32_t numbers;  /* of all changes: those below */
    uint64_t sequence; /* the highest that was published */
};

static inline void fixture_init(struct manifest_fixture *fixture, uint64_t seed)
{
    sim_create(seed);
    *fixture = (struct manifest_fixture){.options = {.direct = true}};
    fixture->changes = calloc(FIXTURE_CHANGES, sizeof *fixture->changes);
    assert_non_null(fixture->changes);
}

static inline void fixture_open_ring(struct manifest_fixture *fixture)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 64};
    assert_int_equal(ring_open(&fixture->ring, &options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(fixture->ring, "/data", &fixture->dir_fd), KVS_ERR_OK);
    fixture->options.ring = fixture->ring;
    fixture->options.dir_fd = fixture->dir_fd;
    fixture->options.dir_name = "/data";
    if (fixture->options.store_uuid == NULL)
        fixture->options.store_uuid = fixture_uuid;
    fixture->options.name_syncs_failed = &fixture->name_syncs_failed;
}

static inline void fixture_body(void *context)
{
    struct manifest_fixture *fixture = context;
    ring_turn(fixture->ring, manifest_timeout_ns(fixture->manifest));
    manifest_turn(fixture->manifest);
    uint64_t durable = fixture->durable;
    while (durable < fixture->count && manifest_durable(fixture->manifest, durable + 1 - fixture->base))
        durable++;
    fixture->durable = durable;
    fixture->sequence = manifest_sequence(fixture->manifest);
}

static inline void fixture_attach(struct manifest_fixture *fixture)
{
    manifest_attach(fixture->manifest, fixture->ring);
    fixture->base = fixture->count;
    assert_true(manifest_sequence(fixture->manifest) >= fixture->sequence);
    fixture->sequence = manifest_sequence(fixture->manifest);
    sim_ring_body(fixture->ring, fixture_body, fixture);
}

/* Begins a store. */
static inline void fixture_make(struct manifest_fixture *fixture)
{
    fixture_open_ring(fixture);
    assert_int_equal(manifest_new(&fixture->manifest, &fixture->options), KVS_ERR_OK);
    assert_int_equal(manifest_sequence(fixture->manifest), 0);
    assert_int_equal(manifest_write(fixture->manifest, fixture->message), KVS_ERR_OK);
    fixture_attach(fixture);
}

static inline enum kvs_err fixture_try_open(struct manifest_fixture *fixture)
{
    fixture_open_ring(fixture);
    fixture->message[0] = '\0';
    enum kvs_err err = manifest_open(&fixture->manifest, &fixture->options, fixture->message);
    assert_true((err == KVS_ERR_OK) == (fixture->manifest != NULL));
    assert_true((err == KVS_ERR_OK) == (fixture->message[0] == '\0'));
    if (err != KVS_ERR_OK) {
        assert_non_null(strstr(fixture->message, MANIFEST_PATH));
        ring_close_fd(fixture->ring, fixture->dir_fd);
        ring_close(fixture->ring);
    }
    return err;
}

struct fixture_found {
    const struct manifest *manifest;
    uint64_t count;
    int64_t previous;
};

static inline void fixture_count(void *context, const struct manifest_entry *entry)
{
    struct fixture_found *found = context;
    assert_true((int64_t)entry->number > found->previous);
    assert_ptr_equal(manifest_find(found->manifest, entry->number), entry);
    found->previous = entry->number;
    found->count++;
}

/* Entries after the first `count` changes; of a number without one the state is 0. */
static inline uint64_t fixture_model(const struct manifest_fixture *fixture, uint64_t count,
                                     struct manifest_entry *entries)
{
    uint64_t alive = 0;
    memset(entries, 0, fixture->numbers * sizeof *entries);
    for (uint64_t i = 0; i < count; i++) {
        struct manifest_entry *entry = &entries[fixture->changes[i].number];
        alive -= entry->state != 0;
        *entry = fixture->changes[i];
        if (entry->state == MANIFEST_GONE)
            memset(entry, 0, sizeof *entry);
        alive += entry->state != 0;
    }
    return alive;
}

static inline bool fixture_is(const struct manifest_fixture *fixture, uint64_t count)
{
    struct manifest_entry *entries = malloc((fixture->numbers + 1) * sizeof *entries);
    assert_non_null(entries);
    uint64_t alive = fixture_model(fixture, count, entries);
    struct fixture_found found = {.manifest = fixture->manifest, .previous = -1};
    manifest_each(fixture->manifest, fixture_count, &found);
    bool same = found.count == alive;
    for (uint32_t i = 0; i < fixture->numbers && same; i++) {
        const struct manifest_entry *entry = manifest_find(fixture->manifest, i);
        same = (entry != NULL) == (entries[i].state != 0) &&
               (entry == NULL || memcmp(entry, &entries[i], sizeof *entry) == 0);
    }
    free(entries);
    return same;
}

/* Holds what was found against the model, which from then on ends where that does. */
static inline void fixture_check(struct manifest_fixture *fixture)
{
    uint64_t count = fixture->count;
    while (count > fixture->durable && !fixture_is(fixture, count))
        count--;
    if (!fixture_is(fixture, count)) {
        print_error("what was found is no prefix of the %llu changes with the %llu durable ones\n",
                    (unsigned long long)fixture->count, (unsigned long long)fixture->durable);
        fail();
    }
    fixture->count = fixture->durable = count;
    assert_true(manifest_sequence(fixture->manifest) >= fixture->sequence);
}

static inline void fixture_boot(struct manifest_fixture *fixture)
{
    enum kvs_err err = fixture_try_open(fixture);
    if (err != KVS_ERR_OK)
        print_error("%s\n", fixture->message);
    assert_int_equal(err, KVS_ERR_OK);
    assert_false(sim_file_exists(MANIFEST_NEW_PATH));
    fixture_check(fixture);
    fixture_attach(fixture);
}

static inline void fixture_close(struct manifest_fixture *fixture)
{
    manifest_close(fixture->manifest, fixture->ring);
    fixture->manifest = NULL;
    ring_close_fd(fixture->ring, fixture->dir_fd);
    ring_close(fixture->ring);
}

/* After a crash, in which the ring has gone. */
static inline void fixture_forget(struct manifest_fixture *fixture)
{
    manifest_close(fixture->manifest, fixture->ring);
    fixture->manifest = NULL;
}

static inline void fixture_crash(struct manifest_fixture *fixture, enum sim_crash_mode mode)
{
    sim_crash(mode);
    fixture_forget(fixture);
}

static inline void fixture_deinit(struct manifest_fixture *fixture)
{
    sim_destroy();
    free(fixture->changes);
}

/* An entry whose every field follows from its number and version. */
static inline struct manifest_entry fixture_entry(uint32_t number, enum manifest_state state, uint32_t version)
{
    struct manifest_entry entry = {.number = number, .state = (uint8_t)state};
    if (state == MANIFEST_GONE)
        return entry;
    entry.kind = version % 2 == 0 ? SEGMENT_LOG : SEGMENT_RELOCATED;
    entry.uid = (uint64_t)version << 32 | number;
    if (state != MANIFEST_SEALED)
        return entry;
    entry.end = number * 7 + version;
    entry.record_bytes = number * 11 + version;
    entry.last_lsn = (uint64_t)number * 13 + version;
    entry.min_lsn = number * 3ull;
    entry.begun_lsn = number * 5ull;
    entry.epoch = version;
    entry.stream = number % 64;
    entry.puts = version * 3;
    entry.deletes = version * 5;
    return entry;
}

/* A change that the manifest has been told of: the model knows it, too. */
static inline void fixture_note(struct manifest_fixture *fixture, const struct manifest_entry *entry)
{
    assert_true(entry->number < FIXTURE_NUMBERS && fixture->count < FIXTURE_CHANGES);
    fixture->changes[fixture->count++] = *entry;
    if (entry->number >= fixture->numbers)
        fixture->numbers = entry->number + 1;
}

static inline enum kvs_err fixture_try_change(struct manifest_fixture *fixture, const struct manifest_entry *entry)
{
    uint64_t ticket = 0;
    enum kvs_err err = manifest_change(fixture->manifest, entry, &ticket);
    if (err != KVS_ERR_OK)
        return err;
    fixture_note(fixture, entry);
    assert_int_equal(ticket, fixture->count - fixture->base);
    return KVS_ERR_OK;
}

static inline void fixture_change(struct manifest_fixture *fixture, uint32_t number, enum manifest_state state,
                                  uint32_t version)
{
    struct manifest_entry entry = fixture_entry(number, state, version);
    assert_int_equal(fixture_try_change(fixture, &entry), KVS_ERR_OK);
}

static inline void fixture_step(struct manifest_fixture *fixture)
{
    manifest_turn(fixture->manifest);
    assert_true(sim_step());
}

static inline bool fixture_idle(void *context)
{
    struct manifest_fixture *fixture = context;
    return manifest_idle(fixture->manifest);
}

static inline void fixture_settle(struct manifest_fixture *fixture)
{
    manifest_turn(fixture->manifest);
    assert_true(sim_run_until(fixture_idle, fixture, 1000000));
    if (!manifest_failed(fixture->manifest))
        assert_int_equal(fixture->durable, fixture->count);
}

/* One change, durable. */
static inline void fixture_change_durably(struct manifest_fixture *fixture, uint32_t number, enum manifest_state state,
                                          uint32_t version)
{
    fixture_change(fixture, number, state, version);
    fixture_settle(fixture);
}

#endif
