/*
 * store_settle.c - operations of the store's own, which end the uncertainty that blind overwrites leave.
 *
 * Each goes the way of a client's: it waits for its key, reads the cold candidates, and then store_settle drops the
 * older entry. Failure: without memory, or when the shard stops, the entry stays as it is; see store_settle_later.
 */
#include "engine/store.h"

#include "base/assert.h"

#include <stdlib.h>

struct settling {
    struct engine_op op;
    struct list link; /* in shard->settlings */
    uint8_t key[];
};

void store_settlings_free(struct store_shard *shard)
{
    for (struct list *node; (node = list_pop_front(&shard->settlings)) != NULL;)
        free(container_of(node, struct settling, link));
}

static void settling_done(struct engine_op *op)
{
    struct settling *settling = container_of(op, struct settling, op);
    struct store_shard *shard = store_shard_of(op->shard);
    KVS_ASSERT(shard->settling > 0);
    shard->settling--;
    store_count(&shard->counters.settles_ended, 1);
    store_op_release(op);
    list_remove(&settling->link);
    free(settling);
}

void store_settle_later(struct store_shard *shard, struct slice key, uint64_t hash)
{
    /* What is left unsettled costs one entry in the index until the key is overwritten blindly again, removed, or
     * recovered. */
    if (shard->stopping)
        return;
    struct settling *settling = malloc(sizeof *settling + key.size);
    if (settling == NULL) {
        store_count(&shard->counters.settles_skipped, 1);
        return;
    }
    memset(&settling->op, 0, sizeof settling->op);
    if (key.size > 0)
        memcpy(settling->key, key.data, key.size);
    settling->op.done = settling_done;
    settling->op.request = (struct engine_request){
        .action = (enum engine_action)STORE_SETTLE, .hash = hash, .key = {settling->key, key.size}};
    shard->settling++;
    store_count(&shard->counters.settles_begun, 1);
    list_push_back(&shard->settlings, &settling->link);
    store_submit(&shard->base, &settling->op);
}
