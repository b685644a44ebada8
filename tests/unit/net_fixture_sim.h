/*
 * net_fixture_sim.h - the world of net_fixture.h on the simulated ring: every test runs with several seeds.
 */
#ifndef KVS_TESTS_NET_FIXTURE_SIM_H
#define KVS_TESTS_NET_FIXTURE_SIM_H

#include "net_fixture.h"
#include "ring_sim.h"

static uint64_t world_seed = 1;
static bool world_exists;

static inline void world_server_body(void *context)
{
    struct fixture *fixture = context;
    ring_turn(fixture->server, -1);
    fixture_after_turn(fixture);
}

static inline void world_client_body(void *context)
{
    struct fixture *fixture = context;
    ring_turn(fixture->client, -1);
}

static void world_boot(struct fixture *fixture)
{
    char message[RING_MESSAGE_BYTES];
    if (world_exists) /* left behind by a test that failed */
        sim_destroy();
    world_exists = true;
    sim_create(world_seed);
    assert_int_equal(ring_open(&fixture->server, &fixture->ring_options, message), KVS_ERR_OK);
    const struct ring_options plenty = {.buffer_count = 256, .buffer_bytes = 16384};
    assert_int_equal(ring_open(&fixture->client, &plenty, message), KVS_ERR_OK);
    sim_ring_body(fixture->server, world_server_body, fixture);
    sim_ring_body(fixture->client, world_client_body, fixture);
}

static bool world_step(struct fixture *fixture)
{
    /* The test may have called net between two turns of the loop. */
    if (fixture->flushing && fixture->net != NULL)
        net_flush(fixture->net);
    return sim_step();
}

static void world_halt(struct fixture *fixture)
{
    (void)fixture;
    sim_destroy();
    world_exists = false;
}

/* The seeds of one test. */
#define for_each_seed(count) for (world_seed = 1; world_seed <= (count); world_seed++)

#endif
