/*
 * left_index.h - the index that a flush leaves, and the empty one that takes its place.
 *
 * left_index_make opens the empty one; left_index_change puts it in the other's place; when no section can see that any
 * more (`unseen`) left_index_page goes through its entries, a page at a time, on any one thread, and left_index_free
 * ends it.
 *
 * Threads: the owner's, but for what is said of left_index_page; `unseen` is set in the owner's epoch_poll.
 */
#ifndef KVS_ENGINE_LEFT_INDEX_H
#define KVS_ENGINE_LEFT_INDEX_H

#include "engine/index.h"

struct left_index {
    struct left_index *next; /* its user's */
    struct epoch_entry entry;
    struct index *index; /* the empty one until left_index_change */
    bool unseen;
    uint64_t at;
};

/* NO_MEMORY. `thread`: the owner's. */
enum kvs_err left_index_make(struct left_index **out, const struct index_options *options, struct epoch_thread *thread);
void left_index_change(struct left_index *left, _Atomic(struct index *) *place, struct epoch_thread *thread);
/* Of the next page that has been left: how many entries. False: there is none. */
bool left_index_page(struct left_index *left, struct index_entry entries[INDEX_PAGE_ENTRIES], unsigned *count);
/* Of a whole chain of them; NULL is none. When nobody sees them, and the owner's epoch has freed what they had retired.
 */
void left_index_free(struct left_index *left);

#endif
