/*
 * manifest_table.c - the entries in memory: pages of 63 neighbouring numbers, found through an array of pages.
 *
 * Numbers are given out from 0 and used again, so pages are nearly full; look-up and change take the same short time
 * whatever the number of segments. A page is also what one block of a snapshot holds, so a snapshot can be written bit
 * by bit while entries change.
 *
 * Failure modes: no memory for a page. Numbers are below MANIFEST_SEGMENTS_MAX, which bounds the array of pages.
 */
#include "engine/manifest_internal.h"

#include "base/assert.h"

#include <stdlib.h>

void manifest_table_deinit(struct manifest_table *table)
{
    for (uint32_t i = 0; i < table->page_count; i++)
        free(table->pages[i]);
    free((void *)table->pages);
    *table = (struct manifest_table){0};
}

static struct manifest_page *page_of(const struct manifest_table *table, uint32_t number)
{
    uint32_t index = number / MANIFEST_BLOCK_ENTRIES;
    return index < table->page_count ? table->pages[index] : NULL;
}

const struct manifest_entry *manifest_table_find(const struct manifest_table *table, uint32_t number)
{
    const struct manifest_page *page = page_of(table, number);
    if (page == NULL)
        return NULL;
    const struct manifest_entry *entry = &page->entries[number % MANIFEST_BLOCK_ENTRIES];
    return entry->state != 0 ? entry : NULL;
}

static enum kvs_err grow(struct manifest_table *table, uint32_t index)
{
    uint32_t larger = table->page_count == 0 ? 16 : table->page_count;
    while (larger <= index)
        larger *= 2;
    struct manifest_page **pages = realloc((void *)table->pages, larger * sizeof(struct manifest_page *));
    if (pages == NULL)
        return KVS_ERR_NO_MEMORY;
    for (uint32_t i = table->page_count; i < larger; i++)
        pages[i] = NULL;
    table->pages = pages;
    table->page_count = larger;
    return KVS_ERR_OK;
}

enum kvs_err manifest_table_reserve(struct manifest_table *table, uint32_t number)
{
    KVS_ASSERT(number < MANIFEST_SEGMENTS_MAX);
    uint32_t index = number / MANIFEST_BLOCK_ENTRIES;
    if (index >= table->page_count && grow(table, index) != KVS_ERR_OK)
        return KVS_ERR_NO_MEMORY;
    if (table->pages[index] == NULL)
        table->pages[index] = calloc(1, sizeof(struct manifest_page));
    return table->pages[index] != NULL ? KVS_ERR_OK : KVS_ERR_NO_MEMORY;
}

void manifest_table_apply(struct manifest_table *table, const struct manifest_entry *entry)
{
    KVS_ASSERT(manifest_entry_possible(entry));
    struct manifest_page *page = page_of(table, entry->number);
    KVS_ASSERT(page != NULL || entry->state == MANIFEST_GONE);
    if (page == NULL)
        return;
    struct manifest_entry *place = &page->entries[entry->number % MANIFEST_BLOCK_ENTRIES];
    page->count -= place->state != 0;
    if (entry->state == MANIFEST_GONE) {
        memset(place, 0, sizeof *place);
        return;
    }
    *place = *entry;
    page->count++;
}

uint32_t manifest_table_mark(struct manifest_table *table)
{
    uint32_t marked = 0;
    for (uint32_t i = 0; i < table->page_count; i++) {
        if (table->pages[i] == NULL)
            continue;
        table->pages[i]->in_snapshot = table->pages[i]->count > 0;
        marked += table->pages[i]->in_snapshot;
    }
    return marked;
}

const struct manifest_page *manifest_table_next_marked(struct manifest_table *table, uint32_t *at)
{
    while (*at < table->page_count) {
        struct manifest_page *page = table->pages[(*at)++];
        if (page == NULL || !page->in_snapshot)
            continue;
        page->in_snapshot = false;
        return page;
    }
    return NULL;
}
