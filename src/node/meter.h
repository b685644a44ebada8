/*
 * meter.h - what commands cost: how often each was called, how long it took, how often it failed, and which errors
 * there were.
 *
 * Every shard has a meter, which only its own thread writes; any thread reads, a moment late. Nobody ever sets one
 * back: CONFIG RESETSTAT notes what the figures are, and from then on what came on top is shown (struct meter_base).
 *
 * Time. A command takes from the end of the one before it, or from the beginning of what came in together, to its own
 * end: one look at the clock for each. What it waits for afterwards (the disk, another shard, its gate) is not in it,
 * as in Redis, where it is the time that others had to wait. GET and SET of small values, which are never slow by
 * themselves, do without: neighbours of them in a pipeline form a run, which is timed as a whole and shared out evenly.
 * When somebody wants to see each (SLOWLOG below METER_RUN_US_MAX), there are no runs.
 */
#ifndef KVS_NODE_METER_H
#define KVS_NODE_METER_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdatomic.h>

/* Histogram of times: below 1024 ns, then four buckets to each power of two, up to two seconds, and longer. */
#define METER_OCTAVES 21u
#define METER_BUCKETS (1u + 4u * METER_OCTAVES)

/* Nothing in a run takes so long. */
#define METER_RUN_US_MAX 1000
/* Values beyond this are not small. */
#define METER_RUN_VALUE_BYTES 16384u

#define METER_ERRORS_MAX  64u
#define METER_ERROR_BYTES 32u

struct meter_command {
    uint64_t calls;
    uint64_t ns;
    uint64_t rejected; /* refused before it was carried out */
    uint64_t failed;   /* answered with an error */
    uint64_t times[METER_BUCKETS];
};

struct meter_error {
    char code[METER_ERROR_BYTES];
    uint64_t count;
};

struct meter {
    struct meter_command *commands; /* by the number of the command or subcommand (acl_number) */
    unsigned command_count;
    bool histograms; /* latency-tracking */

    uint64_t mark_ns;  /* up to here time belongs to somebody */
    unsigned run;      /* the command of a run … */
    uint64_t run_size; /* … and how many it is of; 0: there is none */
    uint64_t run_errors;

    _Atomic unsigned error_count;
    struct meter_error errors[METER_ERRORS_MAX];
};

enum kvs_err meter_init(struct meter *meter, unsigned command_count);
void meter_deinit(struct meter *meter);

/* ---- the shard's thread ---------------------------------------------------------------------------------------- */

/* From now on time is somebody's. */
static inline void meter_begin(struct meter *meter, uint64_t now_ns)
{
    meter->mark_ns = now_ns;
}
void meter_end_run(struct meter *meter, uint64_t now_ns);

/* One more in a run of GET or SET, which `now_ns` is not needed for. False: another run is under way, end that first.
 */
static inline bool meter_run(struct meter *meter, unsigned command)
{
    if (meter->run_size != 0 && meter->run != command)
        return false;
    meter->run = command;
    meter->run_size++;
    return true;
}

/* A command that has been carried out; returns its time in ns. */
uint64_t meter_command(struct meter *meter, unsigned command, uint64_t now_ns, bool failed);
void meter_rejected(struct meter *meter, unsigned command);
/* An error reply whose text begins with a code. */
void meter_error(struct meter *meter, struct slice text);

/* ---- any thread ------------------------------------------------------------------------------------------------ */

/* Adds what this meter says of a command. */
void meter_add_command(const struct meter *meter, unsigned command, struct meter_command *sum);
void meter_subtract_command(struct meter_command *sum, const struct meter_command *base);
/* How many codes it knows, and one of them. */
unsigned meter_error_codes(const struct meter *meter);
uint64_t meter_error_count(const struct meter *meter, unsigned at, const char **code);

/* The time below which this share of the calls stayed, in microseconds, as exact as the buckets are. */
double meter_percentile_us(const struct meter_command *command, double percent);
/* The bound of a bucket's power of two as Redis shows it, and how many calls stayed below. `octave`: 0 …
 * METER_OCTAVES - 1. */
uint64_t meter_octave_us(unsigned octave);
uint64_t meter_octave_calls(const struct meter_command *command, unsigned octave);

#endif
