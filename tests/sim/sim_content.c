/*
 * sim_content.c - see sim_content.h.
 *
 * Happy path: data is cut into pages once, when a write is issued; from then on putting it somewhere means sharing its
 * whole pages, and copying bytes only at its ragged ends. A shared page is never written: who changes part of one takes
 * a copy first.
 */
#include "sim_content.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

enum { SLAB_PAGES = 64 };

struct sim_page {
    union {
        unsigned refs;
        struct sim_page *next_free;
    };
    uint8_t bytes[SIM_PAGE_BYTES];
};

/* Pages that nobody holds, kept from machine to machine. */
static struct sim_page *free_pages;

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static struct sim_page *page_new(void)
{
    if (free_pages == NULL) {
        struct sim_page *slab = malloc(sizeof(*slab) * SLAB_PAGES);
        KVS_ASSERT(slab != NULL);
        for (unsigned i = 0; i < SLAB_PAGES; i++) {
            slab[i].next_free = free_pages;
            free_pages = &slab[i];
        }
    }
    struct sim_page *page = free_pages;
    free_pages = page->next_free;
    page->refs = 1;
    return page;
}

static struct sim_page *page_hold(struct sim_page *page)
{
    if (page != NULL)
        page->refs++;
    return page;
}

static void page_release(struct sim_page *page)
{
    if (page == NULL)
        return;
    KVS_ASSERT(page->refs > 0);
    if (--page->refs > 0)
        return;
    page->next_free = free_pages;
    free_pages = page;
}

/* The page in this place, to be written by its one holder. */
static struct sim_page *page_own(struct sim_page **place)
{
    struct sim_page *page = *place;
    if (page != NULL && page->refs == 1)
        return page;
    *place = page_new();
    if (page != NULL)
        memcpy((*place)->bytes, page->bytes, SIM_PAGE_BYTES);
    else
        memset((*place)->bytes, 0, SIM_PAGE_BYTES);
    page_release(page);
    return *place;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* The part of [from, to) that lies in one page. */
struct span {
    uint64_t page;
    uint64_t begin, end;
    size_t at, size; /* in the page */
};

static struct span span_of(uint64_t page, uint64_t from, uint64_t to)
{
    struct span span = {.page = page, .begin = page * SIM_PAGE_BYTES, .end = (page + 1) * SIM_PAGE_BYTES};
    if (span.begin < from)
        span.begin = from;
    if (span.end > to)
        span.end = to;
    span.at = (size_t)(span.begin % SIM_PAGE_BYTES);
    span.size = (size_t)(span.end - span.begin);
    return span;
}

/* The pages of [from, to) are first_page(from) … page_count(to) - 1. */
static uint64_t first_page(uint64_t from)
{
    return from / SIM_PAGE_BYTES;
}

static uint64_t page_count(uint64_t to)
{
    return (to + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES;
}

/* ---- data ------------------------------------------------------------------------------------------------------- */

static struct sim_data *data_new(uint64_t from, uint64_t to)
{
    KVS_ASSERT(from <= to);
    size_t count = page_count(to) > first_page(from) ? (size_t)(page_count(to) - first_page(from)) : 0;
    struct sim_data *data = calloc(1, sizeof(*data) + count * sizeof(struct sim_page *));
    KVS_ASSERT(data != NULL);
    data->refs = 1;
    data->from = from;
    data->to = to;
    return data;
}

struct sim_data *sim_data_make(uint64_t from, const uint8_t *bytes, size_t size)
{
    uint64_t to = from + size;
    struct sim_data *data = data_new(from, to);
    for (uint64_t i = first_page(from); i < page_count(to); i++) {
        struct span span = span_of(i, from, to);
        const uint8_t *part = bytes + (span.begin - from);
        if (is_zero(part, span.size))
            continue;
        struct sim_page *page = page_new();
        if (span.size < SIM_PAGE_BYTES)
            memset(page->bytes, 0, SIM_PAGE_BYTES);
        memcpy(page->bytes + span.at, part, span.size);
        data->pages[i - first_page(from)] = page;
    }
    return data;
}

struct sim_data *sim_data_hold(struct sim_data *data)
{
    data->refs++;
    return data;
}

void sim_data_release(struct sim_data *data)
{
    if (data == NULL || --data->refs > 0)
        return;
    for (uint64_t i = first_page(data->from); i < page_count(data->to); i++)
        page_release(data->pages[i - first_page(data->from)]);
    free(data);
}

static struct sim_page *data_page(const struct sim_data *data, uint64_t page)
{
    return data->pages[page - first_page(data->from)];
}

void sim_data_read(const struct sim_data *data, uint64_t from, uint64_t to, uint8_t *out)
{
    KVS_ASSERT(from >= data->from && to <= data->to && from <= to);
    for (uint64_t i = first_page(from); i < page_count(to); i++) {
        struct span span = span_of(i, from, to);
        const struct sim_page *page = data_page(data, i);
        if (page != NULL)
            memcpy(out + (span.begin - from), page->bytes + span.at, span.size);
        else
            memset(out + (span.begin - from), 0, span.size);
    }
}

bool sim_data_equal(const struct sim_data *data, const uint8_t *bytes)
{
    for (uint64_t i = first_page(data->from); i < page_count(data->to); i++) {
        struct span span = span_of(i, data->from, data->to);
        const struct sim_page *page = data_page(data, i);
        const uint8_t *part = bytes + (span.begin - data->from);
        if (page != NULL ? memcmp(part, page->bytes + span.at, span.size) != 0 : !is_zero(part, span.size))
            return false;
    }
    return true;
}

/* ---- contents --------------------------------------------------------------------------------------------------- */

void sim_content_init(struct sim_content *content)
{
    *content = (struct sim_content){0};
    list_init(&content->rot);
}

void sim_content_clear(struct sim_content *content)
{
    sim_content_resize(content, 0);
    free(content->pages);
    sim_content_init(content);
}

static void make_room(struct sim_content *content, uint64_t pages)
{
    if (pages <= content->pages_room)
        return;
    size_t room = content->pages_room * 2 > pages ? content->pages_room * 2 : (size_t)pages;
    content->pages = realloc(content->pages, room * sizeof(struct sim_page *));
    KVS_ASSERT(content->pages != NULL);
    memset(content->pages + content->pages_room, 0, (room - content->pages_room) * sizeof(struct sim_page *));
    content->pages_room = room;
}

void sim_content_resize(struct sim_content *content, uint64_t size)
{
    uint64_t before = content->size;
    make_room(content, page_count(size));
    content->size = size;
    if (size >= before)
        return;
    sim_rot_cut(content, size, before);
    for (uint64_t i = page_count(size); i < page_count(before); i++) {
        page_release(content->pages[i]);
        content->pages[i] = NULL;
    }
    size_t kept = (size_t)(size % SIM_PAGE_BYTES);
    if (kept > 0 && content->pages[first_page(size)] != NULL)
        memset(page_own(&content->pages[first_page(size)])->bytes + kept, 0, SIM_PAGE_BYTES - kept);
}

static void put_span(struct sim_page **place, struct sim_page *source, struct span span)
{
    if (*place == source)
        return;
    if (span.size == SIM_PAGE_BYTES) {
        page_release(*place);
        *place = page_hold(source);
        return;
    }
    struct sim_page *page = page_own(place);
    if (source != NULL)
        memcpy(page->bytes + span.at, source->bytes + span.at, span.size);
    else
        memset(page->bytes + span.at, 0, span.size);
}

void sim_content_put(struct sim_content *content, const struct sim_data *data, uint64_t from, uint64_t to)
{
    KVS_ASSERT(from >= data->from && to <= data->to && from <= to);
    if (from == to)
        return;
    if (to > content->size)
        sim_content_resize(content, to);
    sim_rot_cut(content, from, to);
    for (uint64_t i = first_page(from); i < page_count(to); i++)
        put_span(&content->pages[i], data_page(data, i), span_of(i, from, to));
}

void sim_content_read(const struct sim_content *content, uint64_t from, uint64_t to, uint8_t *out)
{
    for (uint64_t i = first_page(from); i < page_count(to); i++) {
        struct span span = span_of(i, from, to);
        const struct sim_page *page = i < page_count(content->size) ? content->pages[i] : NULL;
        if (page != NULL)
            memcpy(out + (span.begin - from), page->bytes + span.at, span.size);
        else
            memset(out + (span.begin - from), 0, span.size);
    }
}

struct sim_data *sim_content_snapshot(const struct sim_content *content, uint64_t from, uint64_t to)
{
    struct sim_data *data = data_new(from, to);
    for (uint64_t i = first_page(from); i < page_count(to) && i < page_count(content->size); i++)
        data->pages[i - first_page(from)] = page_hold(content->pages[i]);
    return data;
}

bool sim_content_same(const struct sim_content *content, const struct sim_data *data, uint64_t from, uint64_t to)
{
    if (to > content->size)
        return false;
    for (uint64_t i = first_page(from); i < page_count(to); i++)
        if (content->pages[i] != data_page(data, i))
            return false;
    return true;
}

void sim_content_copy(struct sim_content *to, const struct sim_content *from)
{
    sim_content_resize(to, from->size);
    for (uint64_t i = 0; i < page_count(from->size); i++) {
        if (to->pages[i] == from->pages[i])
            continue;
        page_release(to->pages[i]);
        to->pages[i] = page_hold(from->pages[i]);
    }
    sim_rot_copy(to, from);
}
