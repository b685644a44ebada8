/*
 * net_pool.c - the memory of src/net: connections, output blocks, runs, iovecs, and the arrays that grow.
 *
 * Happy path: everything comes from a free list and goes back to it, last in first out, so that it is still in the
 * cache. What a shard once needed for its connections it keeps, but for output blocks beyond output_kept_max, blocks of
 * unusual size, which large replies need, and whatever comes back while more than half of memory_max is in use.
 *
 * Output blocks come in three sizes: for short replies, of which thousands of connections may each wait for one; for a
 * value of 4 KiB; and for pipelines.
 *
 * Failure modes: the allocator has nothing left. Every take then returns NULL, and the connection it was for is ended.
 */
#include "net/net_internal.h"

#include <stdlib.h>

static const size_t block_sizes[NET_BLOCK_CLASSES] = {1024, 5120, NET_BLOCK_BYTES};

static void count_memory(struct net *net, size_t bytes)
{
    net_count(&net->stats.memory_bytes, bytes);
    if (net->stats.memory_bytes > net->stats.memory_peak_bytes)
        net_count(&net->stats.memory_peak_bytes, net->stats.memory_bytes - net->stats.memory_peak_bytes);
}

static void *allocate(struct net *net, size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory != NULL)
        count_memory(net, bytes);
    return memory;
}

static void release(struct net *net, void *memory, size_t bytes)
{
    KVS_ASSERT(memory != NULL);
    net_uncount(&net->stats.memory_bytes, bytes);
    free(memory);
}

void *net_resize(struct net *net, void *memory, size_t old_bytes, size_t new_bytes)
{
    KVS_ASSERT((memory == NULL) == (old_bytes == 0));
    if (new_bytes == 0) {
        if (memory != NULL)
            release(net, memory, old_bytes);
        return NULL;
    }
    void *resized = realloc(memory, new_bytes);
    if (resized != NULL) {
        net_uncount(&net->stats.memory_bytes, old_bytes);
        count_memory(net, new_bytes);
    }
    return resized;
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

size_t net_conn_bytes(const struct net *net)
{
    return align_up(sizeof(struct net_conn) + net->options.conn_user_bytes, KVS_CACHE_LINE_BYTES);
}

struct net_conn *net_conn_take(struct net *net)
{
    struct list *node = list_pop_front(&net->free_conns);
    struct net_conn *conn = node != NULL ? container_of(node, struct net_conn, all) : NULL;
    if (conn == NULL) {
        conn = aligned_alloc(KVS_CACHE_LINE_BYTES, net_conn_bytes(net));
        if (conn == NULL)
            return NULL;
        count_memory(net, net_conn_bytes(net));
    }
    memset(conn, 0, net_conn_bytes(net));
    conn->net = net;
    return conn;
}

void net_conn_give(struct net *net, struct net_conn *conn)
{
    KVS_ASSERT(conn->block == NULL && conn->input.data == NULL && conn->iovs == NULL);
    KVS_ASSERT(!conn->receiving && !conn->sending);
    KVS_ASSERT(net->granted != conn && !conn->quieted);
    if (!share_may_keep(net)) {
        release(net, conn, net_conn_bytes(net));
        return;
    }
    list_push_back(net->free_conns.next, &conn->all); /* before the first, which makes it the first */
}

/* ---- output blocks ---------------------------------------------------------------------------------------------- */

struct net_block *net_block_take(struct net *net, size_t bytes, bool wide)
{
    const size_t need = sizeof(struct net_block) + bytes;
    unsigned class = wide ? NET_BLOCK_CLASSES - 1 : 0;
    while (class < NET_BLOCK_CLASSES && block_sizes[class] < need)
        class ++;
    const size_t size = class < NET_BLOCK_CLASSES ? block_sizes[class] : need;
    struct net_block *block = class < NET_BLOCK_CLASSES ? net->free_blocks[class] : NULL;
    if (block != NULL) {
        net->free_blocks[class] = block->next;
        net->free_block_bytes -= size;
    } else {
        block = allocate(net, size);
        if (block == NULL)
            return NULL;
        block->capacity = size - sizeof *block;
        block->class = class;
    }
    block->used = 0;
    block->refs = 0;
    net->block_bytes += size;
    return block;
}

void net_block_give(struct net *net, struct net_block *block)
{
    const size_t size = sizeof *block + block->capacity;
    const unsigned class = block->class;
    KVS_ASSERT(block->refs == 0 && net->block_bytes >= size);
    net->block_bytes -= size;
    if (class == NET_BLOCK_CLASSES || net->free_block_bytes + size > net->free_blocks_max || !share_may_keep(net)) {
        release(net, block, size);
        return;
    }
    block->next = net->free_blocks[class];
    net->free_blocks[class] = block;
    net->free_block_bytes += size;
}

/* ---- runs and iovecs -------------------------------------------------------------------------------------------- */

bool net_run_add(struct net *net)
{
    struct net_run *run = allocate(net, sizeof *run);
    if (run == NULL)
        return false;
    list_push_back(&net->free_runs, &run->entry.link);
    return true;
}

struct net_run *net_run_take(struct net *net)
{
    KVS_ASSERT(!list_empty(&net->free_runs)); /* net_run_prepare was forgotten */
    return container_of(list_pop_front(&net->free_runs), struct net_run, entry.link);
}

void net_run_give(struct net *net, struct net_run *run)
{
    KVS_ASSERT(run->block == NULL);
    list_push_back(net->free_runs.next, &run->entry.link);
}

struct net_iovs *net_iovs_take(struct net *net)
{
    struct net_iovs *iovs = net->free_iovs;
    if (iovs == NULL)
        return allocate(net, sizeof *iovs);
    net->free_iovs = iovs->next;
    return iovs;
}

void net_iovs_give(struct net *net, struct net_iovs *iovs)
{
    iovs->next = net->free_iovs;
    net->free_iovs = iovs;
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

uint8_t *net_input_grow(struct net *net, uint8_t *data, size_t old_bytes, size_t new_bytes)
{
    KVS_ASSERT(new_bytes > old_bytes);
    uint8_t *grown;
    if (data == NULL && new_bytes == NET_BLOCK_BYTES && net->free_inputs != NULL) {
        grown = net->free_inputs;
        memcpy(&net->free_inputs, grown, sizeof net->free_inputs);
        net->free_input_count--;
    } else {
        grown = net_resize(net, data, old_bytes, new_bytes);
    }
    if (grown != NULL)
        net->input_bytes += new_bytes - old_bytes;
    return grown;
}

void net_input_give(struct net *net, uint8_t *data, size_t bytes)
{
    KVS_ASSERT((data == NULL) == (bytes == 0));
    KVS_ASSERT(net->input_bytes >= bytes);
    net->input_bytes -= bytes;
    if (bytes != NET_BLOCK_BYTES || net->free_input_count >= NET_FREE_INPUTS_MAX || !share_may_keep(net)) {
        net_resize(net, data, bytes, 0);
        return;
    }
    memcpy(data, &net->free_inputs, sizeof net->free_inputs);
    net->free_inputs = data;
    net->free_input_count++;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

void net_pool_free(struct net *net)
{
    for (struct list *node = list_pop_front(&net->free_conns); node != NULL; node = list_pop_front(&net->free_conns))
        release(net, container_of(node, struct net_conn, all), net_conn_bytes(net));
    for (struct list *node = list_pop_front(&net->free_runs); node != NULL; node = list_pop_front(&net->free_runs)) {
        struct net_run *run = container_of(node, struct net_run, entry.link);
        release(net, run, sizeof *run);
    }
    for (unsigned class = 0; class < NET_BLOCK_CLASSES; class ++) {
        while (net->free_blocks[class] != NULL) {
            struct net_block *block = net->free_blocks[class];
            net->free_blocks[class] = block->next;
            release(net, block, sizeof *block + block->capacity);
        }
    }
    while (net->free_iovs != NULL) {
        struct net_iovs *iovs = net->free_iovs;
        net->free_iovs = iovs->next;
        release(net, iovs, sizeof *iovs);
    }
    while (net->free_inputs != NULL) {
        void *input = net->free_inputs;
        memcpy(&net->free_inputs, input, sizeof net->free_inputs);
        release(net, input, NET_BLOCK_BYTES);
    }
}
