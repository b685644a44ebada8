/*
 * fuzz_sim.h - the simulated machine as fuzzers use it.
 */
#ifndef KVS_TESTS_FUZZ_SIM_H
#define KVS_TESTS_FUZZ_SIM_H

#include "base/diag.h"
#include "fuzz.h"
#include "ring_sim.h"

/*
 * Once, before the first input. The fixtures of the tests check with cmocka's assertions, which are to abort here, and
 * warnings of the code under test would drown everything else.
 */
static inline void fuzz_sim_quiet(void)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    diag_set_level(DIAG_ERROR);
}

/* The entry point of a fuzzer that needs nothing else before its first input. */
#define FUZZ_SIM_INITIALIZE                           \
    int LLVMFuzzerInitialize(int *argc, char ***argv) \
    {                                                 \
        (void)argc;                                   \
        (void)argv;                                   \
        fuzz_sim_quiet();                             \
        return 0;                                     \
    }

static inline struct ring *fuzz_ring_open(void)
{
    struct ring *ring;
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 64};
    FUZZ_CHECK(ring_open(&ring, &options, message) == KVS_ERR_OK);
    return ring;
}

#endif
