/*
 * loading.c - figures of an opening under way.
 *
 * The two numbers behind them change while they are read, and the total may still grow: what comes out of them is kept
 * within its range.
 */
#include "node/loading.h"

#include <stdatomic.h>

struct loading loading_look(const struct engine_progress *progress, uint64_t elapsed_ns)
{
    struct loading loading = {
        .bytes_total = atomic_load_explicit(&progress->bytes_total, memory_order_relaxed),
        .bytes_done = atomic_load_explicit(&progress->bytes_done, memory_order_relaxed),
        .seconds_left = 1,
    };
    if (loading.bytes_done > loading.bytes_total)
        loading.bytes_done = loading.bytes_total;
    if (loading.bytes_done == 0)
        return loading;
    double done = (double)loading.bytes_done, left = (double)(loading.bytes_total - loading.bytes_done);
    loading.percent = 100 * done / (double)loading.bytes_total;
    double seconds = (double)elapsed_ns / 1e9 * left / done;
    loading.seconds_left = (uint64_t)seconds;
    loading.seconds_left += (double)loading.seconds_left < seconds;
    return loading;
}
