/*
 * test_wall_clock.c - a clock that does not go back, and is exact as long as the wall clock behaves.
 */
#include "store_fixture.h"

#include "engine/wall_clock.h"

static struct ring *open_ring(void)
{
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.entries = 8};
    struct ring *ring;
    assert_int_equal(ring_open(&ring, &options, message), KVS_ERR_OK);
    return ring;
}

static void test_wall_clock__is_the_wall_clock_to_the_millisecond(void **state)
{
    (void)state;
    sim_create(1);
    struct ring *ring = open_ring();
    struct wall_clock clock;
    wall_clock_init(&clock, ring);
    for (unsigned i = 0; i < 100000; i++) {
        sim_advance(sim_random(3000000));
        assert_int_equal(wall_clock_now(&clock, ring), ring_wall_ms(ring));
    }
    sim_step_wall(12345);
    assert_int_equal(wall_clock_now(&clock, ring), ring_wall_ms(ring));
    ring_close(ring);
    sim_destroy();
}

static void test_wall_clock__goes_on_at_its_pace_when_the_wall_clock_steps_back(void **state)
{
    (void)state;
    sim_create(2);
    struct ring *ring = open_ring();
    struct wall_clock clock;
    wall_clock_init(&clock, ring);
    uint64_t last_ms = wall_clock_now(&clock, ring), behind_ms = 0;
    for (unsigned i = 0; i < 1000; i++) {
        if (i % 100 == 50) {
            sim_step_wall(-1000 * (int64_t)i);
            behind_ms += 1000 * i;
        }
        sim_advance(sim_random(5000000));
        uint64_t now_ms = wall_clock_now(&clock, ring), right_ms = ring_wall_ms(ring) + behind_ms;
        assert_true(now_ms >= last_ms);
        assert_true(now_ms <= right_ms && now_ms + 3 >= right_ms);
        last_ms = now_ms;
    }
    sim_step_wall((int64_t)behind_ms); /* put right again */
    assert_int_equal(wall_clock_now(&clock, ring), ring_wall_ms(ring));
    ring_close(ring);
    sim_destroy();
}

static void test_wall_clock__is_raised_to_what_an_earlier_boot_knew(void **state)
{
    (void)state;
    sim_create(3);
    struct ring *ring = open_ring();
    struct wall_clock clock;
    wall_clock_init(&clock, ring);
    uint64_t wall_ms = ring_wall_ms(ring);
    wall_clock_raise(&clock, ring, wall_ms - 1000);
    assert_int_equal(wall_clock_now(&clock, ring), wall_ms);
    wall_clock_raise(&clock, ring, wall_ms + 5000);
    assert_int_equal(wall_clock_now(&clock, ring), wall_ms + 5000);
    sim_advance(2000ull * 1000000);
    assert_true(wall_clock_now(&clock, ring) >= wall_ms + 6997);
    sim_advance(10000ull * 1000000);
    assert_true(wall_clock_now(&clock, ring) >= wall_ms + 16997);
    ring_close(ring);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wall_clock__is_the_wall_clock_to_the_millisecond),
        cmocka_unit_test(test_wall_clock__goes_on_at_its_pace_when_the_wall_clock_steps_back),
        cmocka_unit_test(test_wall_clock__is_raised_to_what_an_earlier_boot_knew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
