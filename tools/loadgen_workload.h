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
#include "loadgen_zipf.h"

struct loadgen_workload {
    uint64_t seed;
    uint64_t keys;
    uint64_t keys_end; /* no key has this number or a higher one */
    enum loadgen_distribution distribution;
    double theta;
    uint64_t threads;
    uint64_t read_below; /* a random number below it makes a read */
    bool all_reads;
    uint32_t key_bytes, key_digits;
    uint32_t value_bytes;
    uint8_t *pool; /* random bytes; values are cut out of it */
};

struct loadgen_source {
    const struct loadgen_workload *workload;
    uint64_t stream;
    uint64_t random;
    struct zipf zipf;
    uint8_t *key;
    uint8_t *value;
    /* LATEST: this source's new keys, counted from 0 on. */
    uint64_t added;   /* drawn */
    uint64_t written; /* all before this one have been written */
    uint8_t *marks;   /* of those behind it: written or not; a ring */
};

/* NO_MEMORY. */
enum kvs_err loadgen_workload_init(struct loadgen_workload *workload, const struct loadgen_options *options);
void loadgen_workload_deinit(struct loadgen_workload *workload);

/* `stream` (the thread's number) keeps the random choices and the new keys of the threads apart. NO_MEMORY. */
enum kvs_err loadgen_source_init(struct loadgen_source *source, const struct loadgen_workload *workload,
                                 uint64_t stream);
void loadgen_source_deinit(struct loadgen_source *source);

/*
 * Draws the next request: the number of its key, and whether it reads.
 *
 * UNIFORM and ZIPFIAN choose among `keys` keys. LATEST writes new keys, with numbers from `keys` on, and reads the
 * newest most often: of its own new keys those that have been written, and then the first `keys`, from the last down.
 */
uint64_t loadgen_draw(struct loadgen_source *source, bool *read);

/* A write that was drawn has been answered: from now on it may be read. (A key that is not answered while a million
 * others are counts as answered.) */
void loadgen_written(struct loadgen_source *source, uint64_t number);

/* The name of a key; the value of a key. Good until the next call of the same function on this source. */
struct slice loadgen_key(struct loadgen_source *source, uint64_t number);
struct slice loadgen_value(struct loadgen_source *source, uint64_t number);

#endif
