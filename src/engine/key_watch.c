/*
 * key_watch.c - watches: whether a key has been put since.
 *
 * A tree in the order of hashes, whose nodes are the watches themselves; those with one hash hang on the one that is in
 * the tree. Hashes are as good as random (hash.h), so it need not be balanced: with a million of them a path has some
 * fifty nodes, and no node is ever moved by more than its own removal.
 *
 *   root ─► watch ─┬─ left, right: other hashes
 *                  └─ same ◄─► same: others with its hash
 *
 * Failures: none.
 */
#include "base/assert.h"
#include "engine/engine_internal.h"

/* Where the watches with this hash hang, or would. */
static struct engine_watch **place_of(struct engine_shard *shard, uint64_t hash)
{
    struct engine_watch **place = &shard->watches;
    while (*place != NULL && (*place)->hash != hash)
        place = hash < (*place)->hash ? &(*place)->left : &(*place)->right;
    return place;
}

void engine_watch(struct engine_shard *owner, struct engine_watch *watch, uint64_t hash)
{
    struct engine_watch **place = place_of(owner, hash);
    KVS_ASSERT(!watch->linked);
    *watch = (struct engine_watch){.hash = hash, .linked = true};
    list_init(&watch->same);
    if (*place == NULL)
        *place = watch;
    else
        list_push_back(&(*place)->same, &watch->same);
}

/* Puts another one where this one is in the tree. */
static void take_over(struct engine_watch **place, struct engine_watch *watch, struct engine_watch *by)
{
    if (by != NULL) {
        by->left = watch->left;
        by->right = watch->right;
    }
    *place = by;
}

/* The next higher hash below a watch that has one, taken out. */
static struct engine_watch *take_next(struct engine_watch *watch)
{
    struct engine_watch **place = &watch->right;
    while ((*place)->left != NULL)
        place = &(*place)->left;
    struct engine_watch *next = *place;
    *place = next->right;
    return next;
}

void engine_unwatch(struct engine_shard *owner, struct engine_watch *watch)
{
    struct engine_watch **place = place_of(owner, watch->hash);
    KVS_ASSERT(watch->linked && *place != NULL);
    watch->linked = false;
    if (*place != watch) {
        list_remove(&watch->same);
    } else if (!list_empty(&watch->same)) {
        struct engine_watch *other = container_of(watch->same.next, struct engine_watch, same);
        list_remove(&watch->same);
        take_over(place, watch, other);
    } else if (watch->left == NULL || watch->right == NULL) {
        *place = watch->left != NULL ? watch->left : watch->right;
    } else {
        take_over(place, watch, take_next(watch));
    }
}

void engine_watch_put(struct engine_shard *owner, uint64_t hash)
{
    struct engine_watch *watch = *place_of(owner, hash);
    if (watch == NULL)
        return;
    watch->came = true;
    for (struct list *node = watch->same.next; node != &watch->same; node = node->next)
        container_of(node, struct engine_watch, same)->came = true;
}

uint64_t engine_changes(const struct engine_shard *owner)
{
    return owner->changes;
}
