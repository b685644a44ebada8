/*
 * net_fixture_kernel.h - the world of net_fixture.h on the real ring.
 */
#ifndef KVS_TESTS_NET_FIXTURE_KERNEL_H
#define KVS_TESTS_NET_FIXTURE_KERNEL_H

#include "../unit/net_fixture.h"

static void world_boot(struct fixture *fixture)
{
    char message[RING_MESSAGE_BYTES] = "";
    if (ring_open(&fixture->server, &fixture->ring_options, message) != KVS_ERR_OK)
        fail_msg("%s", message);
    const struct ring_options plenty = {.buffer_count = 256, .buffer_bytes = 16384};
    if (ring_open(&fixture->client, &plenty, message) != KVS_ERR_OK)
        fail_msg("%s", message);
}

static bool world_step(struct fixture *fixture)
{
    fixture_after_turn(fixture);
    unsigned done = ring_turn(fixture->server, 0);
    fixture_after_turn(fixture);
    done += ring_turn(fixture->client, 0);
    if (done == 0) {
        ring_turn(fixture->server, 1000000);
        fixture_after_turn(fixture);
    }
    return true;
}

static void world_halt(struct fixture *fixture)
{
    ring_close(fixture->client);
    ring_close(fixture->server);
}

/* Chance is the kernel's here. */
#define for_each_seed(count) for (int round_ = 0; round_ < 1; round_++)

#endif
