/*
 * loadgen_workload.c - see loadgen_workload.h.
 *
 * A key is "key:", zeros, its number; short keys leave out the prefix. A value begins with 8 bytes mixed from seed and
 * number (they alone tell two keys' values apart); the rest is cut out of a pool of random bytes at a place that the
 * same mix chooses: the price is that of one memcpy, whatever the size.
 */
#include "loadgen_workload.h"

#include "base/assert.h"
#include "loadgen_random.h"

#include <stdlib.h>

#define POOL_WINDOW 4096u

/* How many new keys may be under way between the oldest and the newest of them. */
#define MARKS (UINT64_C(1) << 20)

enum kvs_err loadgen_workload_init(struct loadgen_workload *workload, const struct loadgen_options *options)
{
    *workload = (struct loadgen_workload){
        .seed = options->seed,
        .keys = options->keys,
        .keys_end = options->keys,
        .distribution = options->distribution,
        .theta = options->theta,
        .threads = options->threads,
        .all_reads = options->read_share >= 1,
        .key_bytes = (uint32_t)options->key_bytes,
        .key_digits = 1,
        .value_bytes = (uint32_t)options->value_bytes,
    };
    if (!workload->all_reads)
        workload->read_below = (uint64_t)(options->read_share * 0x1p64);
    if (options->distribution == LOADGEN_LATEST)
        workload->keys_end = options->keys + LOADGEN_NEW_KEYS_MAX;
    for (uint64_t last = workload->keys_end - 1; last >= 10; last /= 10)
        workload->key_digits++;
    size_t pool_bytes = POOL_WINDOW + (size_t)align_up(options->value_bytes, sizeof(uint64_t));
    workload->pool = malloc(pool_bytes);
    if (workload->pool == NULL)
        return KVS_ERR_NO_MEMORY;
    uint64_t state = loadgen_mix(options->seed);
    for (size_t i = 0; i < pool_bytes; i += sizeof(uint64_t)) {
        uint64_t word = loadgen_random(&state);
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
    *source = (struct loadgen_source){.workload = workload,
                                      .stream = stream,
                                      .random = loadgen_mix(workload->seed + LOADGEN_RANDOM_STEP * (stream + 1))};
    zipf_init(&source->zipf, workload->theta, workload->keys);
    source->key = malloc(workload->key_bytes);
    source->value = malloc(workload->value_bytes + sizeof(uint64_t));
    bool marks = workload->distribution == LOADGEN_LATEST;
    if (marks)
        source->marks = calloc(MARKS, sizeof(*source->marks));
    if (source->key == NULL || source->value == NULL || (marks && source->marks == NULL)) {
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
    free(source->marks);
    source->key = source->value = source->marks = NULL;
}

/* ---- which key ------------------------------------------------------------------------------------------------- */

static void mark_written(struct loadgen_source *source, uint64_t added)
{
    source->marks[added % MARKS] = 1;
    for (; source->written < source->added && source->marks[source->written % MARKS] == 1; source->written++)
        source->marks[source->written % MARKS] = 0;
}

static uint64_t draw_latest(struct loadgen_source *source, bool read)
{
    const struct loadgen_workload *workload = source->workload;
    if (!read) {
        if (source->added - source->written == MARKS)
            mark_written(source, source->written);
        return workload->keys + source->added++ * workload->threads + source->stream;
    }
    if (source->zipf.n != workload->keys + source->written)
        zipf_resize(&source->zipf, workload->keys + source->written);
    uint64_t rank = zipf_draw(&source->zipf, &source->random);
    if (rank <= source->written)
        return workload->keys + (source->written - rank) * workload->threads + source->stream;
    return workload->keys - (rank - source->written);
}

uint64_t loadgen_draw(struct loadgen_source *source, bool *read)
{
    const struct loadgen_workload *workload = source->workload;
    *read = workload->all_reads || loadgen_random(&source->random) < workload->read_below;
    switch (workload->distribution) {
    case LOADGEN_ZIPFIAN:
        return zipf_scatter(zipf_draw(&source->zipf, &source->random) - 1, workload->keys);
    case LOADGEN_LATEST:
        return draw_latest(source, *read);
    case LOADGEN_UNIFORM:
        break;
    }
    return (uint64_t)(((unsigned __int128)loadgen_random(&source->random) * workload->keys) >> 64);
}

void loadgen_written(struct loadgen_source *source, uint64_t number)
{
    const struct loadgen_workload *workload = source->workload;
    if (workload->distribution != LOADGEN_LATEST || number < workload->keys)
        return;
    uint64_t added = (number - workload->keys) / workload->threads;
    KVS_ASSERT(added < source->added);
    if (added >= source->written)
        mark_written(source, added);
}

/* ---- what it holds --------------------------------------------------------------------------------------------- */

struct slice loadgen_key(struct loadgen_source *source, uint64_t number)
{
    const struct loadgen_workload *workload = source->workload;
    KVS_ASSERT(number < workload->keys_end);
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
    uint64_t stamp = loadgen_mix(workload->seed ^ loadgen_mix(number));
    memcpy(source->value, &stamp, sizeof(stamp));
    if (workload->value_bytes > sizeof(stamp))
        memcpy(source->value + sizeof(stamp), workload->pool + stamp % POOL_WINDOW,
               workload->value_bytes - sizeof(stamp));
    return slice_make(source->value, workload->value_bytes);
}
