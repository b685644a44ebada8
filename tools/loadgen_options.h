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
    double read_share; /* 0..1 */
    double seconds;    /* of measuring; 0: none. Not used when requests > 0 */
    double warmup_seconds;
    uint64_t requests; /* to measure; 0: by time */
    uint64_t timeout_seconds;
    uint64_t seed;
    bool fill, verify, relaxed, json, quiet;
};

enum loadgen_parsed { LOADGEN_RUN, LOADGEN_EXIT_OK, LOADGEN_EXIT_USAGE };

/* Reads the command line; prints help, version or what is wrong. Main thread. */
enum loadgen_parsed loadgen_options_parse(int argc, char **argv, struct loadgen_options *options);

#endif
