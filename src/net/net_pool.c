/*
 * net_pool.c - the memory of src/net: connections, output blocks, runs, iovecs, and the arrays that grow.
 *
 * Happy path: everything comes from a free list and goes back to it, last in first out, so that it is still in the
 * cache. What a shard once needed for its connections it keeps, but for output blocks beyond output_kept_max and
 * blocks of unusual size, which large replies need.
 *
 * Failure modes: the allocator has nothing left. Every take then returns NULL, and the connection it was for is ended.
 */
#include "net/net_internal.h"

#include <stdlib.h>

static void *allocate(struct net *net, size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory != NULL)
        net_count(&net->stats.memory_bytes, bytes);
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
        net_count(&net->stats.memory_bytes, new_bytes);
        net_uncount(&net->stats.memory_bytes, old_bytes);
    }
    return resized;
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static size_t conn_bytes(const struct net *net)
{
    return align_up(sizeof(struct net_conn) + net->options.conn_user_bytes, KVS_CACHE_LINE_BYTES);
}

struct net_conn *net_conn_take(struct net *net)
{
    struct list *node = list_pop_front(&net->free_conns);
    struct net_conn *conn = node != NULL ? container_of(node, struct net_conn, all) : NULL;
    if (conn == NULL) {
        conn = aligned_alloc(KVS_CACHE_LINE_BYTES, conn_bytes(net));
        if (conn == NULL)
            return NULL;
        net_count(&net->stats.memory_bytes, conn_bytes(net));
    }
    memset(conn, 0, conn_bytes(net));
    conn->net = net;
    return conn;
}

void net_conn_give(struct net *net, struct net_conn *conn)
{
    KVS_ASSERT(conn->block == NULL && conn->input.data == NULL && conn->iovs == NULL);
    KVS_ASSERT(!conn->receiving && !conn->sending);
    list_push_back(net->free_conns.next, &conn->all); /* before the first, which makes it the first */
}

/* ---- output blocks ---------------------------------------------------------------------------------------------- */

struct net_block *net_block_take(struct net *net, size_t bytes)
{
    const size_t usual = NET_BLOCK_BYTES - sizeof(struct net_block);
    const size_t capacity = bytes <= usual ? usual : bytes;
    struct net_block *block = net->free_blocks;
    if (block != NULL && capacity == usual) {
        net->free_blocks = block->next;
        net->free_block_count--;
    } else {
        block = allocate(net, sizeof *block + capacity);
        if (block == NULL)
            return NULL;
        block->capacity = capacity;
    }
    block->used = 0;
    block->refs = 0;
    return block;
}

void net_block_give(struct net *net, struct net_block *block)
{
    KVS_ASSERT(block->refs == 0);
    if (block->capacity != NET_BLOCK_BYTES - sizeof *block || net->free_block_count >= net->free_blocks_max) {
        release(net, block, sizeof *block + block->capacity);
        return;
    }
    block->next = net->free_blocks;
    net->free_blocks = block;
    net->free_block_count++;
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
    if (data == NULL && new_bytes == NET_BLOCK_BYTES && net->free_inputs != NULL) {
        void *input = net->free_inputs;
        memcpy(&net->free_inputs, input, sizeof net->free_inputs);
        net->free_input_count--;
        return input;
    }
    return net_resize(net, data, old_bytes, new_bytes);
}

void net_input_give(struct net *net, uint8_t *data, size_t bytes)
{
    KVS_ASSERT((data == NULL) == (bytes == 0));
    if (bytes != NET_BLOCK_BYTES || net->free_input_count >= NET_FREE_INPUTS_MAX) {
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
        release(net, container_of(node, struct net_conn, all), conn_bytes(net));
    for (struct list *node = list_pop_front(&net->free_runs); node != NULL; node = list_pop_front(&net->free_runs)) {
        struct net_run *run = container_of(node, struct net_run, entry.link);
        release(net, run, sizeof *run);
    }
    while (net->free_blocks != NULL) {
        struct net_block *block = net->free_blocks;
        net->free_blocks = block->next;
        release(net, block, sizeof *block + block->capacity);
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
