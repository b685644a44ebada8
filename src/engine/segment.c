/*
 * segment.c - table, names and images of segments.
 *
 * The table is one array, as long as addresses reach, mapped but untouched: 8 bytes of address space for each segment
 * that could ever be. Eviction is by age: the log writes into the youngest image, and records that are read often but
 * written long ago leave with their segment.
 */
#include "engine/segment.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/error.h"
#include "engine/big_memory.h"
#include "engine/index.h"

#include <stdio.h>
#include <stdlib.h>

static size_t slots_bytes(const struct segment_table *table)
{
    return table->count_max * sizeof *table->slots;
}

enum kvs_err segment_table_init(struct segment_table *table, uint64_t segment_bytes)
{
    KVS_ASSERT(is_power_of_two(segment_bytes));
    memset(table, 0, sizeof *table);
    table->segment_bytes = segment_bytes;
    table->shift = (unsigned)__builtin_ctzll(segment_bytes);
    table->count_max = 1u << (INDEX_ADDRESS_BITS + 4 - table->shift);
    table->slots = big_memory_alloc(slots_bytes(table));
    return table->slots == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void segment_table_deinit(struct segment_table *table)
{
    if (table->slots == NULL)
        return;
    for (uint32_t i = 0; i < atomic_load(&table->next); i++)
        free(segment_get(table, i));
    big_memory_free(table->slots, slots_bytes(table));
    table->slots = NULL;
}

uint32_t segment_number_take(struct segment_table *table)
{
    uint32_t number = atomic_load(&table->next);
    while (number < table->count_max && !atomic_compare_exchange_weak(&table->next, &number, number + 1))
        ;
    return number;
}

void segment_number_seen(struct segment_table *table, uint32_t number)
{
    KVS_ASSERT(number < table->count_max);
    if (atomic_load(&table->next) <= number)
        atomic_store(&table->next, number + 1);
}

struct segment *segment_add(struct segment_table *table, uint32_t number, int fd)
{
    KVS_ASSERT(number < table->count_max);
    KVS_ASSERT(segment_get(table, number) == NULL);
    struct segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->number = number;
    segment->fd = fd;
    segment->end = KVS_BLOCK_BYTES;
    atomic_store(&segment->min_lsn, UINT64_MAX);
    list_init(&segment->image_link);
    list_init(&segment->keeper_link);
    atomic_store_explicit(&table->slots[number], segment, memory_order_release);
    atomic_fetch_add_explicit(&table->count, 1, memory_order_relaxed);
    return segment;
}

void segment_drop(struct segment_table *table, struct segment *segment)
{
    KVS_ASSERT(segment_state(segment) == SEGMENT_FREE && image_gone(segment));
    KVS_ASSERT(segment_get(table, segment->number) == segment);
    atomic_store_explicit(&table->slots[segment->number], NULL, memory_order_release);
    atomic_fetch_sub_explicit(&table->count, 1, memory_order_relaxed);
    list_remove(&segment->keeper_link);
    free(segment);
}

void segment_begin(struct segment *segment, enum segment_kind kind, uint64_t uid, uint32_t seed)
{
    KVS_ASSERT(segment_state(segment) == SEGMENT_FREE && image_gone(segment));
    segment->kind = kind;
    atomic_store(&segment->image_from, 0);
    segment->uid = uid;
    segment->seed = seed;
    segment->end = KVS_BLOCK_BYTES;
    segment->last_lsn = 0;
    segment->epoch = segment->stream = 0;
    segment->puts = segment->deletes = 0;
    atomic_store(&segment->record_bytes, 0);
    atomic_store(&segment->put_units, 0);
    segment->record_bytes_max = 0;
    segment->deletes_min_lsn = segment->deletes_last_lsn = 0;
    segment->expiring = 0;
    segment->expiring_last_lsn = 0;
    segment->begun_lsn = 0;
    atomic_store(&segment->for_deletes, false);
    atomic_store(&segment->min_lsn, UINT64_MAX);
    atomic_store(&segment->dead_puts, 0);
    atomic_store(&segment->dead_units, 0);
    segment->run = 0;
    segment->sealed_ticket = 0;
    segment->uncoverable = false;
    atomic_fetch_add_explicit(&segment->lives, 1, memory_order_relaxed);
}

/* The writer's alone to change, so a load and a store will do. */
static void count(_Atomic uint32_t *counter, uint32_t by)
{
    uint32_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + by, memory_order_relaxed);
}

void segment_count_record(struct segment *segment, const struct record_header *record, int by)
{
    uint64_t bytes = record_size(record), lsn = record->lsn;
    count(&segment->record_bytes, (uint32_t)by * (uint32_t)bytes);
    if (record->kind == RECORD_PUT) {
        segment->puts += (uint32_t)by;
        count(&segment->put_units, (uint32_t)by * segment_units(record_class(bytes)));
        if ((record->flags & RECORD_EXPIRES) != 0) {
            segment->expiring += (uint32_t)by;
            if (lsn > segment->expiring_last_lsn)
                segment->expiring_last_lsn = lsn;
        }
    } else {
        if (segment->deletes == 0 || lsn < segment->deletes_min_lsn)
            segment->deletes_min_lsn = lsn;
        if (segment->deletes == 0 || lsn > segment->deletes_last_lsn)
            segment->deletes_last_lsn = lsn;
        segment->deletes += (uint32_t)by;
    }
    if (bytes > segment->record_bytes_max)
        segment->record_bytes_max = (uint32_t)bytes;
    if (lsn < atomic_load_explicit(&segment->min_lsn, memory_order_relaxed))
        atomic_store_explicit(&segment->min_lsn, lsn, memory_order_relaxed);
}

void segment_name(char name[SEGMENT_NAME_BYTES], uint32_t number, const char *suffix)
{
    snprintf(name, SEGMENT_NAME_BYTES, "%06u.seg%s", number, suffix);
}

bool segment_name_parse(const char *name, uint32_t *number, bool *unfinished)
{
    char *end;
    if (name[0] < '0' || name[0] > '9')
        return false;
    unsigned long value = strtoul(name, &end, 10);
    if (value > UINT32_MAX || (strcmp(end, ".seg") != 0 && strcmp(end, ".seg.new") != 0))
        return false;
    /* Only the one way of writing a number that segment_name has. */
    char canonical[SEGMENT_NAME_BYTES];
    segment_name(canonical, (uint32_t)value, end + strlen(".seg"));
    if (strcmp(canonical, name) != 0)
        return false;
    *number = (uint32_t)value;
    *unfinished = end[strlen(".seg")] != '\0';
    return true;
}

/* ---- images ---------------------------------------------------------------------------------------------------- */

enum kvs_err image_pool_init(struct image_pool *pool, uint64_t segment_bytes, uint32_t count_max,
                             struct epoch_thread *thread)
{
    memset(pool, 0, sizeof *pool);
    pool->segment_bytes = segment_bytes;
    pool->count_max = count_max;
    pool->thread = thread;
    list_init(&pool->resident);
    pool->free = calloc(count_max, sizeof *pool->free);
    return pool->free == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
}

void image_pool_deinit(struct image_pool *pool)
{
    if (pool->free == NULL)
        return;
    for (struct list *node; (node = list_pop_front(&pool->resident)) != NULL;) {
        struct segment *segment = container_of(node, struct segment, image_link);
        big_memory_free(segment_image(segment), pool->segment_bytes);
        atomic_store(&segment->image, NULL);
    }
    for (uint32_t i = 0; i < pool->free_count; i++)
        big_memory_free(pool->free[i], pool->segment_bytes);
    free(pool->free);
    pool->free = NULL;
}

static void image_evicted(struct epoch_entry *entry)
{
    struct segment *segment = container_of(entry, struct segment, evicted);
    struct image_pool *pool = segment->pool;
    KVS_ASSERT(pool->evicting > 0);
    pool->evicting--;
    image_give(pool, segment->evicted_image);
    segment->evicted_image = NULL;
}

static void evict(struct image_pool *pool, struct segment *segment)
{
    KVS_ASSERT(segment->evicted_image == NULL);
    list_remove(&segment->image_link);
    segment->evicted_image = segment_image(segment);
    segment->pool = pool;
    atomic_store_explicit(&segment->image, NULL, memory_order_release);
    pool->evicting++;
    epoch_defer(pool->thread, &segment->evicted, image_evicted);
}

uint8_t *image_take_unused(struct image_pool *pool)
{
    if (pool->free_count > 0)
        return pool->free[--pool->free_count];
    uint32_t count = atomic_load_explicit(&pool->count, memory_order_relaxed);
    if (count == pool->count_max)
        return NULL;
    uint8_t *image = big_memory_alloc(pool->segment_bytes);
    if (image != NULL)
        atomic_store_explicit(&pool->count, count + 1, memory_order_relaxed);
    return image;
}

static void evict_oldest(struct image_pool *pool)
{
    for (struct list *node = pool->resident.next; node != &pool->resident; node = node->next) {
        struct segment *segment = container_of(node, struct segment, image_link);
        /* The disk may still be written from it, or its deletes be looked for, until it is sealed. */
        if (segment_state(segment) != SEGMENT_SEALED && !canary_on(CANARY_EVICTS_WHAT_IS_WRITTEN))
            continue;
        if (canary_on(CANARY_EVICTS_WHAT_IS_WRITTEN))
            segment = container_of(pool->resident.prev, struct segment, image_link);
        evict(pool, segment);
        return;
    }
}

uint8_t *image_take(struct image_pool *pool)
{
    uint8_t *image = image_take_unused(pool);
    if (image == NULL && pool->evicting == 0) {
        evict_oldest(pool);
        pool->spills++;
    }
    return image;
}

bool image_pool_shrink(struct image_pool *pool)
{
    if (pool->free_count == 0) {
        if (pool->evicting == 0)
            evict_oldest(pool);
        return false;
    }
    big_memory_free(pool->free[--pool->free_count], pool->segment_bytes);
    atomic_fetch_sub_explicit(&pool->count, 1, memory_order_relaxed);
    pool->count_max--;
    return true;
}
bool image_pool_forgo(struct image_pool *pool)
{
    const bool there = atomic_load_explicit(&pool->count, memory_order_relaxed) < pool->count_max;
    pool->count_max -= there;
    return there;
}

void image_give(struct image_pool *pool, uint8_t *image)
{
    KVS_ASSERT(pool->free_count < pool->count_max);
    pool->free[pool->free_count++] = image;
}

void image_attach(struct image_pool *pool, struct segment *segment, uint8_t *image)
{
    KVS_ASSERT(segment_image(segment) == NULL);
    segment->pool = pool;
    list_push_back(&pool->resident, &segment->image_link);
    atomic_store_explicit(&segment->image, image, memory_order_release);
}

void image_attach_oldest(struct image_pool *pool, struct segment *segment, uint8_t *image)
{
    image_attach(pool, segment, image);
    list_remove(&segment->image_link);
    list_push_front(&pool->resident, &segment->image_link);
}

void image_detach(struct image_pool *pool, struct segment *segment)
{
    if (segment_image(segment) != NULL)
        evict(pool, segment);
}
