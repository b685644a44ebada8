/*
 * loadgen_workload.c - see loadgen_workload.h.
 *
 * A key is "key:", zeros, its number; short keys leave out the prefix. A value begins with 8 bytes mixed from seed and
 * number (they alone tell two keys' values apart); the rest is cut out of a pool of random bytes at a place that the
 * same mix chooses: the price is that of one memcpy, whatever the size.
 */
#include "loadgen_workload.h"

#include "base/assert.h"

#include <stdlib.h>

#define POOL_WINDOW 4096u

/* The splitmix64 generator's step and its output function (Steele, Lea, Flood 2014). */
#define RANDOM_STEP UINT64_C(0x9E3779B97F4A7C15)

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint64_t next_random(uint64_t *state)
{
    *state += RANDOM_STEP;
    return mix(*state);
}

enum kvs_err loadgen_workload_init(struct loadgen_workload *workload, const struct loadgen_options *options)
{
    *workload = (struct loadgen_workload){
        .seed = options->seed,
        .keys = options->keys,
        .all_reads = options->read_share >= 1,
        .key_bytes = (uint32_t)options->key_bytes,
        .key_digits = 1,
        .value_bytes = (uint32_t)options->value_bytes,
    };
    if (!workload->all_reads)
        workload->read_below = (uint64_t)(options->read_share * 0x1p64);
    for (uint64_t last = options->keys - 1; last >= 10; last /= 10)
        workload->key_digits++;
    size_t pool_bytes = POOL_WINDOW + (size_t)align_up(options->value_bytes, sizeof(uint64_t));
    workload->pool = malloc(pool_bytes);
    if (workload->pool == NULL)
        return KVS_ERR_NO_MEMORY;
    uint64_t state = mix(options->seed);
    for (size_t i = 0; i < pool_bytes; i += sizeof(uint64_t)) {
        uint64_t word = next_random(&state);
        memcpy(workload->pool + i, &word, sizeof(word));
    }
    return KVS_ERR_OK;
}

void loadgen_workload_deinit(struct loadgen_workload *workload)
{
    free(workload->pool);
    workload->pool = NULL;
}

enum kvs_err loadgen_source_init(struct loadgen_source *source, const struct loadgen_workload *workload,
                                 uint64_t stream)
{
    *source = (struct loadgen_source){.workload = workload, .random = mix(workload->seed + RANDOM_STEP * (stream + 1))};
    source->key = malloc(workload->key_bytes);
    source->value = malloc(workload->value_bytes + sizeof(uint64_t));
    if (source->key == NULL || source->value == NULL) {
        loadgen_source_deinit(source);
        return KVS_ERR_NO_MEMORY;
    }
    static const char prefix[] = "key:";
    memset(source->key, '0', workload->key_bytes);
    if (workload->key_bytes >= workload->key_digits + sizeof(prefix) - 1)
        memcpy(source->key, prefix, sizeof(prefix) - 1);
    return KVS_ERR_OK;
}

void loadgen_source_deinit(struct loadgen_source *source)
{
    free(source->key);
    free(source->value);
    source->key = source->value = NULL;
}

uint64_t loadgen_draw(struct loadgen_source *source, bool *read)
{
    const struct loadgen_workload *workload = source->workload;
    *read = workload->all_reads || next_random(&source->random) < workload->read_below;
    return (uint64_t)(((unsigned __int128)next_random(&source->random) * workload->keys) >> 64);
}

struct slice loadgen_key(struct loadgen_source *source, uint64_t number)
{
    const struct loadgen_workload *workload = source->workload;
    KVS_ASSERT(number < workload->keys);
    uint8_t *digit = source->key + workload->key_bytes;
    for (uint32_t i = 0; i < workload->key_digits; i++) {
        *--digit = (uint8_t)('0' + number % 10);
        number /= 10;
    }
    return slice_make(source->key, workload->key_bytes);
}

struct slice loadgen_value(struct loadgen_source *source, uint64_t number)
{
    const struct loadgen_workload *workload = source->workload;
    uint64_t stamp = mix(workload->seed ^ mix(number));
    memcpy(source->value, &stamp, sizeof(stamp));
    if (workload->value_bytes > sizeof(stamp))
        memcpy(source->value + sizeof(stamp), workload->pool + stamp % POOL_WINDOW,
               workload->value_bytes - sizeof(stamp));
    return slice_make(source->value, workload->value_bytes);
}
