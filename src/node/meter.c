/*
 * meter.c - counting commands.
 *
 * Happy path: meter_run adds one to a run; the end of the run, or of what came in together, reads the clock and adds
 * all of it at once. Other commands are added one by one. Counters have one writer: a store each, no locked
 * instruction.
 *
 * Failures: an error code that is one too many is not counted, but among all errors. (Codes are the node's own words:
 * there are a dozen.)
 */
#include "node/meter.h"

#include "base/assert.h"

#include <stdlib.h>

#define OCTAVE_FIRST 10u /* 1024 ns */

static void add(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static uint64_t look(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

enum kvs_err meter_init(struct meter *meter, unsigned command_count)
{
    *meter = (struct meter){.command_count = command_count, .histograms = true};
    meter->commands = calloc(command_count, sizeof(meter->commands[0]));
    return meter->commands != NULL ? KVS_ERR_OK : KVS_ERR_NO_MEMORY;
}

void meter_deinit(struct meter *meter)
{
    free(meter->commands);
    meter->commands = NULL;
}

/* ---- times ----------------------------------------------------------------------------------------------------- */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 1u << OCTAVE_FIRST)
        return 0;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    unsigned bucket = 1 + 4 * (octave - OCTAVE_FIRST) + (unsigned)(ns >> (octave - 2) & 3);
    return bucket < METER_BUCKETS ? bucket : METER_BUCKETS - 1;
}

/* The first time that is beyond it. */
static double bucket_end_ns(unsigned bucket)
{
    if (bucket == 0)
        return 1u << OCTAVE_FIRST;
    unsigned octave = (bucket - 1) / 4, quarter = (bucket - 1) % 4;
    return (double)(1ull << (octave + OCTAVE_FIRST)) * (1.25 + 0.25 * quarter);
}

double meter_percentile_us(const struct meter_command *command, double percent)
{
    uint64_t total = 0, below = 0;
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        total += command->times[i];
    for (unsigned i = 0; i < METER_BUCKETS; i++) {
        below += command->times[i];
        if (below > 0 && (double)below >= percent / 100 * (double)total)
            return bucket_end_ns(i) / 1000;
    }
    return 0;
}

/* Redis's histogram has 128 steps to each power of two and shows the last nanosecond of the bound's own step. */
uint64_t meter_octave_us(unsigned octave)
{
    uint64_t bound_ns = 1ull << (octave + OCTAVE_FIRST);
    return (bound_ns + bound_ns / 128 - 1) / 1000;
}

uint64_t meter_octave_calls(const struct meter_command *command, unsigned octave)
{
    uint64_t calls = command->times[0];
    for (unsigned i = 1; i < 1 + 4 * octave; i++)
        calls += command->times[i];
    return calls;
}

/* ---- counting -------------------------------------------------------------------------------------------------- */

static void add_calls(struct meter *meter, unsigned number, uint64_t calls, uint64_t ns, uint64_t failed)
{
    KVS_ASSERT(number < meter->command_count);
    struct meter_command *command = &meter->commands[number];
    add(&command->calls, calls);
    add(&command->ns, ns);
    if (failed > 0)
        add(&command->failed, failed);
    if (meter->histograms)
        add(&command->times[bucket_of(ns / calls)], calls);
}

/* Clocks of two shards are the same, but a simulator's may stand still. */
static uint64_t take_time(struct meter *meter, uint64_t now_ns)
{
    uint64_t ns = now_ns > meter->mark_ns ? now_ns - meter->mark_ns : 0;
    meter->mark_ns = now_ns;
    return ns;
}

void meter_end_run(struct meter *meter, uint64_t now_ns)
{
    if (meter->run_size == 0)
        return;
    add_calls(meter, meter->run, meter->run_size, take_time(meter, now_ns), meter->run_errors);
    meter->run_size = meter->run_errors = 0;
}

uint64_t meter_command(struct meter *meter, unsigned command, uint64_t now_ns, bool failed)
{
    KVS_ASSERT(meter->run_size == 0);
    uint64_t ns = take_time(meter, now_ns);
    add_calls(meter, command, 1, ns, failed);
    return ns;
}

void meter_rejected(struct meter *meter, unsigned command)
{
    KVS_ASSERT(command < meter->command_count);
    add(&meter->commands[command].rejected, 1);
}

static struct meter_error *find_error(struct meter *meter, const char *code, size_t size)
{
    unsigned count = atomic_load_explicit(&meter->error_count, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++) {
        if (strlen(meter->errors[i].code) == size && memcmp(meter->errors[i].code, code, size) == 0)
            return &meter->errors[i];
    }
    if (count == METER_ERRORS_MAX)
        return NULL;
    memcpy(meter->errors[count].code, code, size);
    atomic_store_explicit(&meter->error_count, count + 1, memory_order_release);
    return &meter->errors[count];
}

void meter_error(struct meter *meter, struct slice text)
{
    size_t size = 0;
    while (size < text.size && size < METER_ERROR_BYTES - 1 && text.data[size] > ' ')
        size++;
    struct meter_error *error = find_error(meter, (const char *)text.data, size);
    if (error != NULL)
        add(&error->count, 1);
    if (meter->run_size != 0)
        meter->run_errors++;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

void meter_add_command(const struct meter *meter, unsigned command, struct meter_command *sum)
{
    KVS_ASSERT(command < meter->command_count);
    const struct meter_command *from = &meter->commands[command];
    if (look(&from->calls) == 0 && look(&from->rejected) == 0)
        return;
    sum->calls += look(&from->calls);
    sum->ns += look(&from->ns);
    sum->rejected += look(&from->rejected);
    sum->failed += look(&from->failed);
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        sum->times[i] += look(&from->times[i]);
}

void meter_subtract_command(struct meter_command *sum, const struct meter_command *base)
{
    sum->calls -= base->calls;
    sum->ns -= base->ns;
    sum->rejected -= base->rejected;
    sum->failed -= base->failed;
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        sum->times[i] -= base->times[i];
}

unsigned meter_error_codes(const struct meter *meter)
{
    return atomic_load_explicit(&meter->error_count, memory_order_acquire);
}

uint64_t meter_error_count(const struct meter *meter, unsigned at, const char **code)
{
    KVS_ASSERT(at < METER_ERRORS_MAX);
    *code = meter->errors[at].code;
    return look(&meter->errors[at].count);
}
