/*
 * outcomes_seen.h - for tests that fork at every step and try each outcome of a power loss there: what is left on the
 * disk is for the most part what was left at the step before, and need not be tried again.
 *
 * A set of hashes in memory that parent and children share; one child at a time. An outcome is all files with their
 * names, and whatever else the test adds: above all what it expects to find.
 */
#ifndef KVS_TESTS_OUTCOMES_SEEN_H
#define KVS_TESTS_OUTCOMES_SEEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "ring_sim.h"

#include <string.h>
#include <sys/mman.h>

enum { OUTCOMES_SEEN_MAX = 1 << 20 };

struct outcomes_seen {
    unsigned count;
    uint64_t hashes[OUTCOMES_SEEN_MAX]; /* 0: none */
};

/* To be given to outcomes_close. */
static inline struct outcomes_seen *outcomes_open(void)
{
    struct outcomes_seen *seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(seen != MAP_FAILED);
    return seen;
}

/* Returns how many different ones there were. */
static inline unsigned outcomes_close(struct outcomes_seen *seen)
{
    unsigned count = seen->count;
    assert_int_equal(munmap(seen, sizeof *seen), 0);
    return count;
}

static inline void outcome_add(uint64_t *outcome, const void *bytes, size_t size)
{
    *outcome = hash_key(slice_make(bytes, size), *outcome);
}

static inline void outcome_add_number(uint64_t *outcome, uint64_t number)
{
    outcome_add(outcome, &number, sizeof number);
}

static inline void outcome_add_file(void *outcome, const char *path)
{
    static uint8_t bytes[256 * 1024];
    uint64_t size = sim_file_size(path);
    outcome_add(outcome, path, strlen(path));
    outcome_add_number(outcome, size);
    for (uint64_t at = 0; at < size; at += sizeof bytes) {
        size_t part = size - at < sizeof bytes ? (size_t)(size - at) : sizeof bytes;
        sim_file_read(path, at, bytes, part);
        outcome_add(outcome, bytes, part);
    }
}

/* Between a power loss and the next boot: whether this is not the first time. */
static inline bool outcome_seen(struct outcomes_seen *seen, uint64_t outcome)
{
    sim_file_each(outcome_add_file, &outcome);
    outcome += outcome == 0;
    uint64_t at = outcome % OUTCOMES_SEEN_MAX;
    while (seen->hashes[at] != 0 && seen->hashes[at] != outcome)
        at = (at + 1) % OUTCOMES_SEEN_MAX;
    if (seen->hashes[at] == outcome)
        return true;
    assert_true(++seen->count < OUTCOMES_SEEN_MAX);
    seen->hashes[at] = outcome;
    return false;
}

#endif
