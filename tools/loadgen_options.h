/*
 * loadgen_options.h - what kvs-loadgen is asked to do, and its command line.
 */
#ifndef KVS_TOOLS_LOADGEN_OPTIONS_H
#define KVS_TOOLS_LOADGEN_OPTIONS_H

#include "client/client_codec.h"
#include "ring/ring_addr.h"

#include <stdbool.h>
#include <stdint.h>

#define LOADGEN "kvs-loadgen"

/* Which keys are asked for: see loadgen_draw. */
enum loadgen_distribution { LOADGEN_UNIFORM, LOADGEN_ZIPFIAN, LOADGEN_LATEST };

/* That a run of LATEST may add: the names of keys have room for their numbers. */
#define LOADGEN_NEW_KEYS_MAX UINT64_C(100000000000)

struct loadgen_options {
    struct ring_addr addr;
    char addr_text[RING_ADDR_TEXT_BYTES];
    enum client_protocol protocol;
    uint64_t connections; /* in all, split between the threads */
    uint64_t pipeline;    /* requests under way per connection */
    uint64_t threads;
    uint64_t keys;
    uint64_t key_bytes;
    uint64_t value_bytes;
    enum loadgen_distribution distribution;
    double theta;      /* of ZIPFIAN and LATEST; 0..10 */
    double read_share; /* 0..1 */
    uint64_t rate;     /* requests a second, on a fixed schedule: an open loop; 0: a closed loop */
    double seconds;    /* of measuring; 0: none. Not used when requests > 0 */
    double warmup_seconds;
    uint64_t requests; /* to measure; 0: by time */
    uint64_t timeout_seconds;
    uint64_t seed;
    const char *histogram_path; /* NULL: none */
    bool fill, verify, relaxed, json, quiet;
};

/* As on the command line. */
const char *loadgen_distribution_name(enum loadgen_distribution distribution);

enum loadgen_parsed { LOADGEN_RUN, LOADGEN_EXIT_OK, LOADGEN_EXIT_USAGE };

/* Reads the command line; prints help, version or what is wrong. Main thread. */
enum loadgen_parsed loadgen_options_parse(int argc, char **argv, struct loadgen_options *options);

#endif
