/* left_index.c - one index in the place of another. Failure: no memory for the empty one; then nothing has changed. */
#include "engine/left_index.h"

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdlib.h>

enum kvs_err left_index_make(struct left_index **out, const struct index_options *options, struct epoch_thread *thread)
{
    struct left_index *left = calloc(1, sizeof *left);
    const enum kvs_err err = left == NULL ? KVS_ERR_NO_MEMORY : index_open(&left->index, options, thread);
    *out = err == KVS_ERR_OK ? left : NULL;
    if (err != KVS_ERR_OK)
        free(left);
    return err;
}

static void no_section_sees_it(struct epoch_entry *entry)
{
    container_of(entry, struct left_index, entry)->unseen = true;
}

void left_index_change(struct left_index *left, _Atomic(struct index *) *place, struct epoch_thread *thread)
{
    left->index = atomic_exchange(place, left->index);
    epoch_defer(thread, &left->entry, no_section_sees_it);
}

bool left_index_page(struct left_index *left, struct index_entry entries[INDEX_PAGE_ENTRIES], unsigned *count)
{
    struct index_place place;
    const void *page = index_page_next(left->index, &left->at, &place);
    *count = page == NULL ? 0 : index_page_read(page, entries);
    return page != NULL;
}

void left_index_free(struct left_index *left)
{
    while (left != NULL) {
        struct left_index *next = left->next;
        index_close(left->index);
        free(left);
        left = next;
    }
}
