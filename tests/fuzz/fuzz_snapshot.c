/*
 * fuzz_snapshot.c - checking a snapshot of indexes, and making indexes of it.
 *
 * Input: a byte of flags, how many shards (1 byte), keys (2 bytes), segments (1 byte) and items (1 byte), then patches
 * to the file that has these: where (4 bytes), how many bytes (1 byte), the bytes. Flags: 1: the header gets its right
 * checksum after that; 2: the tables do; 4: the pages do; 8: the file is cut, by the last patch's place; 16: patches go
 * to the header's fields and the tables, which are few bytes in a large file.
 *
 * Properties. An untouched file is accepted, and all keys are in the indexes that are made of it. Without new checksums
 * any change is refused. What is accepted keeps to the bounds and sums of docs/FORMAT.md, which are reckoned here anew.
 * An index that is made of pages with anything in them can be searched.
 */
#include "engine/snapshot_file.h"
#include "fuzz.h"

#include "base/crc32c.h"
#include "base/hash.h"

enum { FIX_HEADER = 1, FIX_TABLES = 2, FIX_PAGES = 4, CUT = 8, NEAR = 16 };
enum { SHARDS_MAX = 3, KEYS_MAX = 3000, BYTES_MAX = 1 << 24 };

static const uint8_t uuid[16] = "fuzz_snapshot";
static struct epoch epoch;
static struct epoch_thread *writer;

/* ---- the format, once more ------------------------------------------------------------------------------------- */

enum { PAGE = 4096, CHUNK = 512 };

struct parts {
    uint64_t shard_count, segment_count, page_count, chunk_count, item_count;
    uint64_t tables, segments, checks, places, items, end; /* offsets in the file */
};

static uint64_t number_at(const uint8_t *bytes, uint64_t offset, unsigned size)
{
    uint64_t number = 0;
    memcpy(&number, bytes + offset, size);
    return number;
}

/* False: they cannot be those of so small a file. */
static bool parts_of(const uint8_t *bytes, uint64_t size, struct parts *parts)
{
    if (size < PAGE)
        return false;
    parts->shard_count = number_at(bytes, 32, 4);
    parts->segment_count = number_at(bytes, 36, 4);
    parts->page_count = number_at(bytes, 40, 8);
    parts->chunk_count = number_at(bytes, 48, 8);
    parts->item_count = number_at(bytes, 56, 8);
    if (parts->shard_count > size || parts->segment_count > size || parts->page_count > size ||
        parts->chunk_count > size || parts->item_count > size)
        return false;
    parts->tables = PAGE + parts->page_count * PAGE;
    parts->segments = parts->tables + parts->shard_count * 48;
    parts->checks = parts->segments + parts->segment_count * 16;
    parts->places = parts->checks + parts->chunk_count * 8;
    parts->items = parts->places + parts->page_count * 8;
    parts->end = parts->items + parts->item_count * 24;
    return parts->end == size;
}

static uint64_t check_of(const uint8_t *bytes, uint64_t size)
{
    return hash_key(slice_make(bytes, size), number_at(uuid, 0, 8));
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

struct file {
    uint8_t *bytes;
    uint64_t size;
    unsigned shards;
    unsigned keys; /* of each */
    bool changed;
};

static uint64_t hash_of(uint64_t key)
{
    uint64_t state = key;
    return fuzz_next(&state);
}

static struct index *index_make(unsigned keys)
{
    const struct index_options options = {.shard_count = 1, .bytes_max = BYTES_MAX};
    struct index *index;
    FUZZ_CHECK(index_open(&index, &options, writer) == KVS_ERR_OK);
    for (uint64_t key = 0; key < keys; key++) {
        const struct index_entry entry = {.address = key, .class = key % 16};
        FUZZ_CHECK(index_insert(index, hash_of(key), &entry) == KVS_ERR_OK);
        epoch_poll(writer);
    }
    return index;
}

static void pages_fix(const struct file *file, const struct parts *parts)
{
    uint64_t page = 0, chunk = 0;
    for (uint64_t i = 0; i < parts->shard_count; i++) {
        uint64_t left = number_at(file->bytes, parts->tables + i * 48, 8);
        for (; left > 0 && left <= parts->page_count - page && chunk < parts->chunk_count; chunk++) {
            const uint64_t count = left < CHUNK ? left : CHUNK;
            const uint64_t check = check_of(file->bytes + PAGE + page * PAGE, count * PAGE);
            memcpy(file->bytes + parts->checks + chunk * 8, &check, 8);
            page += count;
            left -= count;
        }
    }
}

static void tables_fix(const struct file *file, const struct parts *parts)
{
    const uint64_t check = check_of(file->bytes + parts->tables, parts->end - parts->tables);
    memcpy(file->bytes + 64, &check, 8);
}

static void header_fix(const struct file *file)
{
    const uint32_t crc = crc32c(0, file->bytes + 12, PAGE - 12);
    memcpy(file->bytes + 8, &crc, 4);
}

/* As a stop writes it; every shard has the same index. */
static void file_make(struct file *file, uint32_t segment_count, uint64_t item_count)
{
    struct index *index = index_make(file->keys);
    struct index_stats stats;
    index_stats(index, &stats);
    uint64_t at = 0, pages = 0;
    struct index_place place;
    while (index_page_next(index, &at, &place) != NULL)
        pages++;
    const struct snapshot_header header = {.shard_count = file->shards,
                                           .segment_count = segment_count,
                                           .page_count = pages * file->shards,
                                           .chunk_count = snapshot_chunks(pages) * file->shards,
                                           .item_count = item_count};
    struct snapshot_layout layout;
    snapshot_layout(&layout, &header);
    file->size = layout.file_bytes;
    file->bytes = calloc(1, file->size);
    FUZZ_CHECK(file->bytes != NULL);
    uint8_t *tables = file->bytes + layout.tables;
    struct snapshot_shard *shards = (void *)tables;
    struct snapshot_segment *segments = (void *)(tables + layout.segments);
    struct index_place *places = (void *)(tables + layout.places);
    struct snapshot_item *items = (void *)(tables + layout.items);
    for (unsigned i = 0; i < file->shards; i++) {
        shards[i] = (struct snapshot_shard){.page_count = pages,
                                            .item_count = i == 0 ? item_count : 0,
                                            .entries = stats.entries,
                                            .depth_min = index_depth_min(index)};
        at = 0;
        for (uint64_t page = 0; page < pages; page++)
            memcpy(file->bytes + PAGE + (i * pages + page) * PAGE,
                   index_page_next(index, &at, &places[i * pages + page]), PAGE);
    }
    for (uint32_t i = 0; i < segment_count; i++)
        segments[i] = (struct snapshot_segment){.uid = i + 1, .number = i * 2, .end = 2 * PAGE};
    for (uint64_t i = 0; i < item_count; i++)
        items[i] = (struct snapshot_item){.hash = hash_of(i), .address = i, .expires_ms = i + 1};
    struct snapshot_header whole = header;
    memcpy(whole.store_uuid, uuid, sizeof uuid);
    snapshot_header_encode(file->bytes, &whole);
    struct parts parts;
    FUZZ_CHECK(parts_of(file->bytes, file->size, &parts));
    pages_fix(file, &parts);
    tables_fix(file, &parts);
    header_fix(file);
    epoch_drain(writer);
    index_close(index);
}

static void file_patch(struct file *file, struct fuzz_input *input, unsigned flags)
{
    struct parts parts;
    FUZZ_CHECK(parts_of(file->bytes, file->size, &parts));
    const uint64_t near = 128 + parts.end - parts.tables;
    uint64_t where = 0;
    uint8_t *untouched = fuzz_copy(file->bytes, file->size);
    while (input->size > 0) {
        where = fuzz_take(input, 4);
        const struct slice patch = fuzz_take_slice(input, fuzz_take(input, 1));
        uint64_t at = where % file->size;
        if ((flags & NEAR) != 0)
            at = where % near < 128 ? where % near : parts.tables + where % near - 128;
        for (size_t i = 0; i < patch.size && at + i < file->size; i++)
            file->bytes[at + i] = patch.data[i];
    }
    file->changed = memcmp(file->bytes, untouched, file->size) != 0;
    free(untouched);
    if ((flags & CUT) != 0 && where % (file->size + 1) < file->size) {
        file->size = where % (file->size + 1);
        file->changed = true;
    }
    const bool sane = parts_of(file->bytes, file->size, &parts);
    if (sane && (flags & FIX_PAGES) != 0)
        pages_fix(file, &parts);
    if (sane && (flags & FIX_TABLES) != 0)
        tables_fix(file, &parts);
    if (file->size >= PAGE && (flags & FIX_HEADER) != 0)
        header_fix(file);
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

/* Any index, whatever its pages hold, can be searched. */
static void check_use(struct index *index)
{
    struct index_cursor cursor;
    struct index_entry entry;
    for (uint64_t key = 0; key < 200; key++) {
        unsigned count = 0;
        index_find(index, hash_of(key), &cursor);
        while (index_next(&cursor, &entry)) {
            FUZZ_CHECK(entry.address <= INDEX_ADDRESS_MASK && entry.class <= INDEX_CLASS_MAX);
            FUZZ_CHECK(++count <= INDEX_PAGE_ENTRIES);
        }
    }
    uint64_t at = 0;
    struct index_place place;
    while (index_page_next(index, &at, &place) != NULL)
        FUZZ_CHECK(place.depth <= 32 && (uint64_t)place.part >> place.depth == 0);
}

/* What a start makes of one shard's pages. True: the index has all keys. */
static bool check_shard(const struct file *file, const struct parts *parts, uint64_t first, uint64_t shard)
{
    struct snapshot_shard from;
    memcpy(&from, file->bytes + parts->tables + shard * 48, sizeof from);
    struct index_pages pages = {.depth_min = from.depth_min,
                                .entries = from.entries,
                                .places = (const void *)(file->bytes + parts->places + first * 8),
                                .count = from.page_count,
                                .memory = index_pages_alloc(from.page_count)};
    FUZZ_CHECK(pages.memory != NULL);
    memcpy(pages.memory, file->bytes + PAGE + first * PAGE, from.page_count * PAGE);
    const struct index_options options = {.shard_count = 1, .bytes_max = BYTES_MAX};
    struct index *index;
    const enum kvs_err err = index_open_pages(&index, &options, writer, &pages);
    FUZZ_CHECK(err == KVS_ERR_OK || err == KVS_ERR_CORRUPT || err == KVS_ERR_NO_MEMORY);
    if (err != KVS_ERR_OK) {
        index_pages_free(pages.memory, pages.count);
        return false;
    }
    check_use(index);
    bool all = true;
    for (uint64_t key = 0; key < file->keys; key++) {
        struct index_cursor cursor;
        struct index_entry entry;
        bool found = false;
        index_find(index, hash_of(key), &cursor);
        while (!found && index_next(&cursor, &entry))
            found = entry.address == key;
        all = all && found;
    }
    epoch_drain(writer);
    index_close(index);
    return all;
}

/* The tables were accepted. */
static void check_tables(const struct file *file, const struct parts *parts)
{
    uint64_t pages = 0, chunks = 0, items = 0;
    for (uint64_t i = 0; i < parts->shard_count; i++) {
        const uint64_t count = number_at(file->bytes, parts->tables + i * 48, 8);
        FUZZ_CHECK(count > 0 && count <= parts->page_count);
        pages += count;
        chunks += (count + CHUNK - 1) / CHUNK;
        const uint64_t of_shard = number_at(file->bytes, parts->tables + i * 48 + 8, 8);
        FUZZ_CHECK(of_shard <= parts->item_count);
        items += of_shard;
    }
    FUZZ_CHECK(pages == parts->page_count && chunks == parts->chunk_count && items == parts->item_count);
    for (uint64_t i = 1; i < parts->segment_count; i++)
        FUZZ_CHECK(number_at(file->bytes, parts->segments + i * 16 + 8, 4) >
                   number_at(file->bytes, parts->segments + i * 16 - 8, 4));
    for (uint64_t i = 0; i < parts->item_count; i++) {
        FUZZ_CHECK(number_at(file->bytes, parts->items + i * 24 + 8, 8) >> 40 == 0);
        FUZZ_CHECK(number_at(file->bytes, parts->items + i * 24 + 16, 8) != 0);
    }
}

/* NULL, or why a start would not take it; the order is its. */
static const char *check_file(const struct file *file, struct parts *parts)
{
    if (file->size < PAGE)
        return "short";
    struct snapshot_header header;
    struct snapshot_layout layout = {0};
    const char *wrong = snapshot_header_take(&header, &layout, file->bytes, uuid, file->size);
    if (layout.file_bytes == 0)
        return wrong;
    FUZZ_CHECK((wrong == NULL) == parts_of(file->bytes, file->size, parts));
    if (wrong != NULL)
        return wrong;
    FUZZ_CHECK(layout.tables == parts->tables && layout.tables + layout.items == parts->items);
    uint8_t *tables = fuzz_copy(file->bytes + layout.tables, layout.tables_bytes);
    wrong = snapshot_tables_check(&header, tables);
    free(tables);
    if (wrong != NULL)
        return wrong;
    check_tables(file, parts);
    uint64_t page = 0, chunk = 0;
    for (uint64_t i = 0; i < parts->shard_count; i++) {
        uint64_t left = number_at(file->bytes, parts->tables + i * 48, 8);
        for (; left > 0; chunk++) {
            const uint64_t count = left < CHUNK ? left : CHUNK;
            if (snapshot_check(file->bytes + PAGE + page * PAGE, count * PAGE, uuid) !=
                number_at(file->bytes, parts->checks + chunk * 8, 8))
                return "pages";
            page += count;
            left -= count;
        }
    }
    return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    epoch_init(&epoch);
    writer = aligned_alloc(64, align_up(sizeof *writer, 64));
    FUZZ_CHECK(writer != NULL);
    memset(writer, 0, sizeof *writer);
    epoch_register(&epoch, writer);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    struct file file = {.shards = 1 + (unsigned)fuzz_take(&input, 1) % SHARDS_MAX};
    file.keys = (unsigned)fuzz_take(&input, 2) % KEYS_MAX;
    const uint32_t segments = (uint32_t)fuzz_take(&input, 1);
    file_make(&file, segments, fuzz_take(&input, 1));
    file_patch(&file, &input, flags);
    struct parts parts;
    const char *wrong = check_file(&file, &parts);
    FUZZ_CHECK(file.changed || wrong == NULL);
    FUZZ_CHECK(!file.changed || wrong != NULL || (flags & (FIX_HEADER | FIX_TABLES | FIX_PAGES)) != 0);
    uint64_t first = 0;
    for (uint64_t i = 0; wrong == NULL && i < parts.shard_count; i++) {
        const bool all = check_shard(&file, &parts, first, i);
        FUZZ_CHECK(file.changed || all);
        first += number_at(file.bytes, parts.tables + i * 48, 8);
    }
    free(file.bytes);
    return 0;
}
