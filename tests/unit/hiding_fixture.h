/*
 * hiding_fixture.h - for tests of what hides older puts, be it deletes or puts that have expired, while compaction goes
 * over it: it must stay as long as the puts do, and may go after them.
 *
 * Of the keys 0..HIDING_LIVING-1 every fifth is hidden, until there are HIDING_HIDDEN. Their puts lie among those of
 * the others, which live on, in segments that nobody rewrites. What hides them lies among keys that are overwritten, so
 * that it comes to be in victims.
 */
#ifndef KVS_TESTS_HIDING_FIXTURE_H
#define KVS_TESTS_HIDING_FIXTURE_H

#include "segments_fixture.h"

enum {
    HIDING_BYTES = 3900, /* a record, in a batch of its own, fills a block */
    HIDING_PER_SEGMENT = 62,
    HIDING_HIDDEN = 40,
    HIDING_LIVING = 6 * HIDING_PER_SEGMENT,
    HIDING_OTHERS_FIRST = 1000,
    HIDING_OTHERS_END = HIDING_OTHERS_FIRST + 6 * HIDING_PER_SEGMENT,
    HIDING_KEYS = HIDING_LIVING - HIDING_HIDDEN + HIDING_OTHERS_END - HIDING_OTHERS_FIRST, /* that are there */
};

static inline bool hiding_hides(unsigned i)
{
    return i % 5 == 0 && i / 5 < HIDING_HIDDEN;
}

/* A machine of its own and such a store. `hide` takes a key away. Returns the store's options. */
static inline struct engine_options hiding_create(struct store_fixture *fixture,
                                                  void (*hide)(struct store_fixture *fixture, unsigned i))
{
    struct engine_options options = segments_create(fixture, 1, 1);
    const unsigned first = HIDING_OTHERS_FIRST;
    segments_put_range(fixture, 0, HIDING_LIVING, 1, HIDING_BYTES);
    for (unsigned i = 0; i < HIDING_HIDDEN; i++) {
        hide(fixture, i * 5);
        segments_put_range(fixture, first + i * 8, first + i * 8 + 8, 1, HIDING_BYTES);
    }
    segments_put_range(fixture, first, HIDING_OTHERS_END, 2, HIDING_BYTES);
    segments_put_range(fixture, first, HIDING_OTHERS_END, 3, HIDING_BYTES);
    return options;
}

/* Everything is as it should be, and still so after power losses and with other numbers of shards. */
static inline void hiding_check(struct store_fixture *fixture, struct engine_options *options)
{
    for (unsigned boot = 0; boot < 3; boot++) {
        for (unsigned i = 0; i < HIDING_LIVING; i++) {
            if (hiding_hides(i))
                segments_expect_none(fixture, i);
            else
                segments_expect(fixture, i, 1, HIDING_BYTES);
        }
        segments_expect_range(fixture, HIDING_OTHERS_FIRST, HIDING_OTHERS_END, 3, HIDING_BYTES);
        assert_int_equal(store_keys(fixture), HIDING_KEYS);
        store_crash(fixture, SIM_DROP_ALL);
        *options = segments_scarce(1 + boot);
        store_boot(fixture, options);
    }
}

/* All else is overwritten, time and again: no dead put can be as old as what hides. */
static inline void hiding_overwrite_all_else(struct store_fixture *fixture)
{
    for (unsigned version = 10; version < 18; version++) {
        for (unsigned i = 0; i < HIDING_LIVING; i++) {
            if (!hiding_hides(i))
                segments_put(fixture, i, version, HIDING_BYTES);
        }
        segments_put_range(fixture, HIDING_OTHERS_FIRST, HIDING_OTHERS_END, version, HIDING_BYTES);
    }
}

/* What was hidden does not come back. */
static inline void hiding_end(struct store_fixture *fixture, const struct engine_options *options)
{
    store_crash(fixture, SIM_DROP_ALL);
    store_boot(fixture, options);
    for (unsigned i = 0; i < HIDING_HIDDEN; i++)
        segments_expect_none(fixture, i * 5);
    assert_int_equal(store_keys(fixture), HIDING_KEYS);
    store_stop(fixture);
    sim_destroy();
}

#endif
