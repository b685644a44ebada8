/*
 * wall_clock.c - a wall clock that does not go back.
 *
 * Happy path: the wall clock says what was said last, or a later time, and how far it is ahead of the monotonic clock
 * is noted: the pace. Rounding: the pace is rounded down, so that a wall clock that runs as it should is never
 * overtaken by it.
 *
 * Failure mode: the wall clock says an earlier time than the pace does, so it has stepped back. Then the pace counts. A
 * clock that was ahead by mistake and was put right is followed again when it has caught up.
 */
#include "engine/wall_clock.h"

#include "base/canary.h"

#define NS_PER_MS 1000000

void wall_clock_init(struct wall_clock *clock, struct ring *ring)
{
    atomic_store(&clock->last_ms, 0);
    atomic_store(&clock->pace_ms, INT64_MIN / 2);
    (void)wall_clock_now(clock, ring);
}

/* It was `time_ms` at this moment of the monotonic clock, or before it. */
static void note_pace(struct wall_clock *clock, uint64_t time_ms, uint64_t mono_ns)
{
    int64_t pace_ms = (int64_t)time_ms - (int64_t)((mono_ns + NS_PER_MS - 1) / NS_PER_MS);
    int64_t known_ms = atomic_load_explicit(&clock->pace_ms, memory_order_relaxed);
    while (pace_ms > known_ms && !atomic_compare_exchange_weak(&clock->pace_ms, &known_ms, pace_ms))
        ;
}

/* Returns the later one of what was said last and this. */
static uint64_t note_time(struct wall_clock *clock, uint64_t time_ms)
{
    uint64_t last_ms = atomic_load(&clock->last_ms);
    while (time_ms > last_ms && !atomic_compare_exchange_weak(&clock->last_ms, &last_ms, time_ms))
        ;
    return time_ms > last_ms ? time_ms : last_ms;
}

void wall_clock_raise(struct wall_clock *clock, struct ring *ring, uint64_t time_ms)
{
    if (time_ms <= atomic_load(&clock->last_ms) || canary_on(CANARY_CLOCK_NOT_RAISED))
        return;
    (void)note_time(clock, time_ms);
    note_pace(clock, time_ms, ring_now_ns(ring));
}

uint64_t wall_clock_now(struct wall_clock *clock, struct ring *ring)
{
    uint64_t time_ms = ring_wall_ms(ring);
    if (time_ms == atomic_load_explicit(&clock->last_ms, memory_order_acquire) || canary_on(CANARY_CLOCK_STEPS_BACK))
        return time_ms;
    uint64_t mono_ns = ring_now_ns(ring);
    int64_t paced_ms = (int64_t)(mono_ns / NS_PER_MS) + atomic_load_explicit(&clock->pace_ms, memory_order_relaxed);
    if (paced_ms > (int64_t)time_ms)
        time_ms = (uint64_t)paced_ms;
    else
        note_pace(clock, time_ms, mono_ns);
    return note_time(clock, time_ms);
}
