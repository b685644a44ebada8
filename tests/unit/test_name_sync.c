/*
 * test_name_sync.c - syncs of a directory that several threads want at the same time: who shares which, who is told of
 * a failure, and that nobody believes in a name that a crash takes back.
 *
 * A thread is a ring whose body turns it and collects, as a shard's does. Each has makers, who make one file after the
 * other, and believe in its name when they are told so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/name_sync.h"
#include "engine/value_file.h"
#include "ring_sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3, MAKERS = 6, NAMES = 8, NAME_BYTES = 32 };

struct crowd;

struct maker {
    struct name_change change;
    struct ring_op op;
    struct crowd *crowd;
    struct ring *ring;
    unsigned number, made;
    bool waits; /* for the sync */
    char name[NAME_BYTES];
    bool believed[NAMES];
    unsigned failed;
    enum kvs_err error; /* the latest result */
};

struct thread {
    struct ring *ring;
    struct crowd *crowd;
};

struct crowd {
    struct thread threads[THREADS];
    struct maker makers[MAKERS];
    struct name_sync names;
    unsigned names_each; /* by each maker, one after the other */
};

static void name_of(char name[NAME_BYTES], unsigned maker, unsigned number)
{
    snprintf(name, NAME_BYTES, "/data/%u-%u", maker, number);
}

/* ---- makers ---------------------------------------------------------------------------------------------------- */

static void begin(struct maker *maker);

static void named(struct name_change *change)
{
    struct maker *maker = container_of(change, struct maker, change);
    assert_true(maker->waits);
    maker->waits = false;
    maker->error = change->error;
    maker->believed[maker->made] = change->error == KVS_ERR_OK;
    maker->failed += change->error != KVS_ERR_OK;
    assert_int_equal(change->error != KVS_ERR_OK, change->text[0] != '\0');
    maker->made++;
    if (maker->made < maker->crowd->names_each)
        begin(maker);
}

static void ask(struct maker *maker)
{
    maker->waits = true;
    name_change_sync(&maker->change, maker->ring, named);
    assert_true(maker->waits); /* not before it has returned */
}

static void created(struct ring_op *op)
{
    struct maker *maker = container_of(op, struct maker, op);
    assert_int_equal(op->error, KVS_ERR_OK);
    ring_close_fd(maker->ring, op->fd);
    ask(maker);
}

static void created_only(struct ring_op *op)
{
    assert_int_equal(op->error, KVS_ERR_OK);
}

static void begin(struct maker *maker)
{
    name_of(maker->name, maker->number, maker->made);
    name_change_begin(&maker->change, &maker->crowd->names);
    ring_op_init(&maker->op, created);
    ring_file_open(maker->ring, &maker->op, maker->crowd->names.dir_fd, maker->name + strlen("/data/"),
                   RING_OPEN_WRITE | RING_OPEN_CREATE);
}

/* Makes the name, and does not ask yet. */
static void make(struct maker *maker)
{
    begin(maker);
    maker->op.done = created_only;
    while (ring_op_active(&maker->op))
        assert_true(sim_step());
}

/* ---- the crowd ------------------------------------------------------------------------------------------------- */

static void loop(void *context)
{
    const struct thread *thread = context;
    ring_turn(thread->ring, -1);
    for (unsigned i = 0; i < MAKERS; i++) {
        struct maker *maker = &thread->crowd->makers[i];
        if (maker->ring == thread->ring && maker->waits)
            name_change_collect(&maker->change);
    }
}

static void crowd_init(struct crowd *crowd, uint64_t seed)
{
    sim_create(seed);
    *crowd = (struct crowd){.names_each = 1};
    for (unsigned i = 0; i < THREADS; i++) {
        struct thread *thread = &crowd->threads[i];
        char message[RING_MESSAGE_BYTES];
        const struct ring_options options = {.entries = 64};
        assert_int_equal(ring_open(&thread->ring, &options, message), KVS_ERR_OK);
        thread->crowd = crowd;
        sim_ring_body(thread->ring, loop, thread);
    }
    int dir_fd;
    assert_int_equal(ring_dir_open(crowd->threads[0].ring, "/data", &dir_fd), KVS_ERR_OK);
    name_sync_init(&crowd->names, dir_fd);
    for (unsigned i = 0; i < MAKERS; i++) {
        crowd->makers[i].crowd = crowd;
        crowd->makers[i].number = i;
        crowd->makers[i].ring = crowd->threads[i % THREADS].ring;
    }
}

static bool all_made(void *context)
{
    const struct crowd *crowd = context;
    for (unsigned i = 0; i < MAKERS; i++) {
        if (crowd->makers[i].made < crowd->names_each)
            return false;
    }
    return true;
}

static bool nobody_waits(void *context)
{
    const struct crowd *crowd = context;
    for (unsigned i = 0; i < MAKERS; i++) {
        if (crowd->makers[i].waits)
            return false;
    }
    return true;
}

static bool waits_not(void *context)
{
    return !((const struct maker *)context)->waits;
}

/* After a power loss: what was believed is there. Returns how many that are. */
static unsigned check_names(const struct crowd *crowd)
{
    unsigned believed = 0;
    for (unsigned i = 0; i < MAKERS; i++) {
        for (unsigned j = 0; j < NAMES; j++) {
            char path[NAME_BYTES];
            name_of(path, i, j);
            if (crowd->makers[i].believed[j])
                assert_true(sim_file_exists(path));
            believed += crowd->makers[i].believed[j];
        }
    }
    return believed;
}

/* Syncs that were issued and have not had their effect. */
static unsigned syncs_in_flight, syncs_in_flight_max;

static void watch(enum sim_event event, enum ring_kind kind)
{
    if (kind != RING_KIND_SYNC || event == SIM_EVENT_DONE)
        return;
    syncs_in_flight += event == SIM_EVENT_ISSUE ? 1u : -1u;
    if (syncs_in_flight > syncs_in_flight_max)
        syncs_in_flight_max = syncs_in_flight;
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* Six makers on three threads: never two syncs at once, far fewer than names, and all come to their end. */
static void test_names__syncs_are_shared_and_one_after_the_other(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct crowd crowd;
        crowd_init(&crowd, seed);
        crowd.names_each = NAMES;
        syncs_in_flight = syncs_in_flight_max = 0;
        sim_watch(watch);
        for (unsigned i = 0; i < MAKERS; i++)
            begin(&crowd.makers[i]);
        assert_true(sim_run_until(all_made, &crowd, 100000));
        sim_watch(NULL);
        assert_int_equal(syncs_in_flight_max, 1);
        assert_true(sim_issued(RING_KIND_SYNC) >= NAMES);
        assert_true(sim_issued(RING_KIND_SYNC) < MAKERS * NAMES * 2 / 3);
        for (unsigned i = 0; i < THREADS; i++)
            assert_false(name_sync_at_work(&crowd.names, crowd.threads[i].ring));
        sim_crash(SIM_DROP_ALL);
        assert_int_equal(check_names(&crowd), MAKERS * NAMES);
        sim_destroy();
    }
}

/* The first, second, … sync fails, or none; the power goes at any moment. */
static void test_names__what_is_believed_survives(void **state)
{
    (void)state;
    unsigned failed = 0, believed = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct crowd crowd;
        crowd_init(&crowd, seed);
        crowd.names_each = NAMES;
        for (unsigned i = 0; i < MAKERS; i++)
            begin(&crowd.makers[i]);
        if (seed % 4 != 0)
            sim_fail(RING_KIND_SYNC, 1 + sim_random(6), EIO);
        for (uint64_t steps = sim_random(200); steps > 0 && !all_made(&crowd); steps--)
            assert_true(sim_step());
        sim_crash(seed % 2 == 0 ? SIM_DROP_ALL : SIM_RANDOM);
        believed += check_names(&crowd);
        for (unsigned i = 0; i < MAKERS; i++)
            failed += crowd.makers[i].failed;
        sim_destroy();
    }
    assert_true(failed > 1000 && believed > 5000);
}

/* What is in flight may have begun before the name was there. */
static void test_names__who_comes_late_waits_for_the_next_sync(void **state)
{
    (void)state;
    struct crowd crowd;
    for (unsigned second = 1; second <= THREADS; second++) { /* on another thread, or on the same */
        crowd_init(&crowd, second);
        struct maker *first = &crowd.makers[0], *late = &crowd.makers[second];
        make(first);
        make(late);
        const uint64_t before = sim_issued(RING_KIND_SYNC);
        ask(first);
        while (sim_issued(RING_KIND_SYNC) == before)
            assert_true(sim_step());
        ask(late);
        assert_true(sim_run_until(waits_not, first, 1000));
        assert_true(late->waits);
        assert_true(name_sync_at_work(&crowd.names, first->ring)); /* whose thread goes on with it */
        assert_true(sim_run_until(waits_not, late, 1000));
        assert_int_equal(sim_issued(RING_KIND_SYNC), before + 2);
        assert_int_equal(first->error, KVS_ERR_OK);
        assert_int_equal(late->error, KVS_ERR_OK);
        sim_destroy();
    }
}

/* All who have begun before it was known, whether they wait for this sync, for the next, or have not asked yet; and
 * nobody else. */
static void test_names__failure_is_told_to_all_who_have_begun(void **state)
{
    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        struct crowd crowd;
        crowd_init(&crowd, i + 1);
        struct maker *covered = &crowd.makers[0], *late = &crowd.makers[3 + i],
                     *silent = &crowd.makers[3 + (i + 1) % 3];
        make(covered);
        make(late);
        make(silent);
        sim_fail(RING_KIND_SYNC, 1, ENOSPC);
        ask(covered);
        ask(late);
        assert_true(sim_run_until(nobody_waits, &crowd, 1000));
        assert_int_equal(covered->error, KVS_ERR_NO_SPACE);
        assert_int_equal(late->error, KVS_ERR_IO);
        assert_int_equal(sim_issued(RING_KIND_SYNC), 1);
        ask(silent);
        assert_true(sim_run_until(nobody_waits, &crowd, 1000));
        assert_int_equal(silent->error, KVS_ERR_IO);
        make(covered);
        ask(covered);
        assert_true(sim_run_until(nobody_waits, &crowd, 1000));
        assert_int_equal(covered->error, KVS_ERR_OK);
        sim_crash(SIM_DROP_ALL);
        assert_int_equal(check_names(&crowd), 1);
        sim_destroy();
    }
}

/* ---- two writers of value files -------------------------------------------------------------------------------- */

static const uint8_t uuid[16] = {1, 2, 3};

struct writing {
    struct value_writer writer;
    struct ring *ring;
    bool ended;
};

static void write_ended(struct value_writer *writer)
{
    container_of(writer, struct writing, writer)->ended = true;
}

static void write_loop(void *context)
{
    struct writing *writing = context;
    ring_turn(writing->ring, 0);
    if (writing->ended)
        return;
    value_writer_turn(&writing->writer);
    if (!writing->ended && value_writer_has_work(&writing->writer))
        value_writer_work(&writing->writer);
}

static bool both_name(void *context)
{
    const struct writing *writings = context;
    return (writings[0].ended || writings[0].writer.state == VALUE_SYNC_DIR) &&
           (writings[1].ended || writings[1].writer.state == VALUE_SYNC_DIR);
}

static bool both_ended(void *context)
{
    const struct writing *writings = context;
    return writings[0].ended && writings[1].ended;
}

/* Two threads sync the folder at once. One of them fails, and is the last to know: the other must not have believed. */
static void test_names__value_files_of_two_threads_and_one_failure(void **state)
{
    (void)state;
    static const uint8_t value[100000];
    unsigned good = 0, bad = 0;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        struct writing writings[2] = {0};
        struct value_place place = {.store_uuid = uuid};
        sim_create(seed);
        for (unsigned i = 0; i < 2; i++) {
            char message[RING_MESSAGE_BYTES];
            const struct ring_options options = {.entries = 64};
            struct writing *writing = &writings[i];
            assert_int_equal(ring_open(&writing->ring, &options, message), KVS_ERR_OK);
            if (i == 0)
                assert_int_equal(ring_dir_open(writing->ring, "/data/" VALUE_DIR_NAME, &place.dir_fd), KVS_ERR_OK);
            if (i == 0)
                name_sync_init(&place.names, place.dir_fd);
            writing->writer = (struct value_writer){.place = &place,
                                                    .ring = writing->ring,
                                                    .id = i + 1,
                                                    .key = slice_text("key"),
                                                    .value = slice_make(value, sizeof value),
                                                    .done = write_ended};
            sim_ring_body(writing->ring, write_loop, writing);
            value_writer_begin(&writing->writer);
        }
        sim_fail(RING_KIND_SYNC, 3 + sim_random(2), EIO); /* of the folder: the files' come first, mostly */
        assert_true(sim_run_until(both_name, writings, 100000));
        /* Whatever the disk has done by then, the first one's thread is late to learn of it. */
        sim_advance(1000000000);
        for (unsigned i = 0; i < 10 && !writings[1].ended; i++)
            write_loop(&writings[1]);
        assert_true(sim_run_until(both_ended, writings, 100000));
        sim_crash(SIM_DROP_ALL);
        for (unsigned i = 0; i < 2; i++) {
            char text[VALUE_NAME_BYTES], path[64];
            value_name_write(text, writings[i].writer.name);
            snprintf(path, sizeof path, "/data/" VALUE_DIR_NAME "/%s", text);
            if (writings[i].writer.error == KVS_ERR_OK)
                assert_true(sim_file_exists(path));
            good += writings[i].writer.error == KVS_ERR_OK;
            bad += writings[i].writer.error != KVS_ERR_OK;
        }
        sim_destroy();
    }
    assert_true(good > 200 && bad > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names__syncs_are_shared_and_one_after_the_other),
        cmocka_unit_test(test_names__what_is_believed_survives),
        cmocka_unit_test(test_names__who_comes_late_waits_for_the_next_sync),
        cmocka_unit_test(test_names__failure_is_told_to_all_who_have_begun),
        cmocka_unit_test(test_names__value_files_of_two_threads_and_one_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
