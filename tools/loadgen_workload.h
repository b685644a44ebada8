/*
 * loadgen_workload.h - which request comes next, and what its key and value are.
 *
 * A key's name and value follow from its number and the seed alone, so that any run can check what another one wrote.
 * Pure. The tables of a workload are shared by all threads and not changed after loadgen_workload_init; a
 * loadgen_source belongs to one thread.
 */
#ifndef KVS_TOOLS_LOADGEN_WORKLOAD_H
#define KVS_TOOLS_LOADGEN_WORKLOAD_H

#include "base/bytes.h"
#include "base/error.h"
#include "loadgen_options.h"

struct loadgen_workload {
    uint64_t seed;
    uint64_t keys;
    uint64_t read_below; /* a random number below it makes a read */
    bool all_reads;
    uint32_t key_bytes, key_digits;
    uint32_t value_bytes;
    uint8_t *pool; /* random bytes; values are cut out of it */
};

struct loadgen_source {
    const struct loadgen_workload *workload;
    uint64_t random;
    uint8_t *key;
    uint8_t *value;
};

/* NO_MEMORY. */
enum kvs_err loadgen_workload_init(struct loadgen_workload *workload, const struct loadgen_options *options);
void loadgen_workload_deinit(struct loadgen_workload *workload);

/* `stream` (the thread's number) keeps the random choices of the threads apart. NO_MEMORY. */
enum kvs_err loadgen_source_init(struct loadgen_source *source, const struct loadgen_workload *workload,
                                 uint64_t stream);
void loadgen_source_deinit(struct loadgen_source *source);

/* Draws the next request: the number of its key, and whether it reads. */
uint64_t loadgen_draw(struct loadgen_source *source, bool *read);

/* The name of a key; the value of a key. Good until the next call of the same function on this source. */
struct slice loadgen_key(struct loadgen_source *source, uint64_t number);
struct slice loadgen_value(struct loadgen_source *source, uint64_t number);

#endif
