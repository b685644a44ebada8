/*
 * fuzz_run.c - opening and reading a sorted run.
 *
 * Input: a byte of flags, how many entries (2 bytes) and segments (1 byte), two orders (8 bytes each), then patches to
 * the file that has these: where (4 bytes), how many bytes (1 byte), the bytes. Flags: 1: the header gets its right
 * checksum after that; 2: every block does; 4: the file is cut, by the last patch's place; 8: patches go to the header,
 * the block headers and the items behind them, all of which are few bytes in a large file.
 *
 * Properties. An untouched file is read whole. What is shown stands in the file at its place, in a block with the right
 * checksum, and rises; it is all there is, unless the run is refused, with a message. Without new checksums any change
 * is refused. The range between the two orders shows what lies in it and nothing else.
 *
 * The layout and the checksums are reckoned here anew from docs/FORMAT.md, so that the two can disagree.
 */
#include "engine/run_reader.h"
#include "fuzz_sim.h"

#include "base/crc32c.h"

enum { FIX_HEADER = 1, FIX_BLOCKS = 2, CUT = 4, NEAR = 8, ENTRIES_MAX = 3400, SEQUENCE = 3 };

static const char path[] = "/data/000000000003.run";
static const uint8_t uuid[16] = "fuzz_run";

/* ---- the format, once more ------------------------------------------------------------------------------------- */

enum { HEADER = 4096, BLOCK = 65536, PER_ENTRIES = 1636, PER_SEGMENTS = 1023, PER_INDEX = 8184 };

struct place {
    uint64_t offset, bytes, count;
};

static uint64_t region(uint64_t items, uint64_t per_block, uint64_t item_bytes)
{
    const uint64_t rest = items % per_block;
    return items / per_block * BLOCK + (rest > 0 ? align_up(64 + rest * item_bytes, 4096) : 0);
}

static bool place_in(uint64_t *number, struct place *place, uint64_t items, uint64_t per_block, uint64_t item_bytes)
{
    const uint64_t blocks = (items + per_block - 1) / per_block;
    if (*number >= blocks) {
        *number -= blocks;
        place->offset += region(items, per_block, item_bytes);
        return false;
    }
    const uint64_t left = items - *number * per_block;
    place->count = left < per_block ? left : per_block;
    place->offset += *number * BLOCK;
    place->bytes = region(place->count, per_block, item_bytes);
    return true;
}

/* Where block `number` stands; false when there is none. */
static bool place_of(uint64_t entries, uint64_t segments, uint64_t number, struct place *place)
{
    *place = (struct place){.offset = HEADER};
    const uint64_t entry_blocks = (entries + PER_ENTRIES - 1) / PER_ENTRIES;
    return place_in(&number, place, entries, PER_ENTRIES, 40) || place_in(&number, place, segments, PER_SEGMENTS, 64) ||
           place_in(&number, place, entry_blocks, PER_INDEX, 8);
}

static uint32_t block_crc(const uint8_t *block, uint64_t bytes, uint64_t number)
{
    const uint64_t sequence = SEQUENCE;
    const uint32_t seed = crc32c(crc32c(0, uuid, 16), &sequence, 8);
    return crc32c(seed ^ (uint32_t)number * 0x9E3779B1u, block + 8, bytes - 8);
}

static bool block_right(const uint8_t *block, uint64_t bytes, uint64_t number)
{
    uint32_t crc;
    memcpy(&crc, block + 4, sizeof crc);
    return crc == block_crc(block, bytes, number);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

struct file {
    uint8_t *bytes;
    uint64_t size;
    uint64_t entries, segments; /* as the header says, or said before it was patched */
    bool changed;
};

/* As a writer makes it. Orders lie close together now and then, so that equal ones and small steps occur. */
static void file_make(struct file *file)
{
    struct run_layout layout;
    run_layout(&layout, file->entries, (uint32_t)file->segments);
    file->size = layout.file_bytes;
    file->bytes = calloc(1, file->size);
    FUZZ_CHECK(file->bytes != NULL);
    struct run_header header = {
        .sequence = SEQUENCE, .entry_count = file->entries, .segment_count = (uint32_t)file->segments};
    memcpy(header.store_uuid, uuid, 16);
    run_header_encode(file->bytes, &header);
    uint64_t state = file->entries, order = 0, segment = 0;
    uint64_t firsts[ENTRIES_MAX / PER_ENTRIES + 1];
    for (uint64_t number = 0; number < layout.blocks; number++) {
        const struct run_extent extent = run_block_extent(&layout, number);
        uint8_t *items = file->bytes + extent.offset + 64;
        for (uint32_t i = 0; i < extent.count && extent.kind == RUN_ENTRIES; i++) {
            const uint64_t chance = fuzz_next(&state);
            order += chance % 4 == 0 ? 0 : chance >> 13;
            const struct run_entry entry = {
                .order = order, .check = number * BLOCK + i, .lsn = i, .place = chance >> 2};
            memcpy(items + i * sizeof entry, &entry, sizeof entry);
            if (i == 0)
                firsts[number] = order;
        }
        for (uint32_t i = 0; i < extent.count && extent.kind == RUN_SEGMENTS; i++) {
            const struct run_segment covered = {.uid = 9, .number = (uint32_t)segment++ * 2};
            memcpy(items + i * sizeof covered, &covered, sizeof covered);
        }
        if (extent.kind == RUN_INDEX)
            memcpy(items, firsts, extent.count * sizeof firsts[0]);
        run_block_seal(file->bytes + extent.offset, extent.kind, extent.count, run_seed(uuid, SEQUENCE), SEQUENCE,
                       number);
    }
}

/* The beginning of the header or of a block, or of one in three of the items. */
static uint64_t near_place(const struct file *file, uint64_t where)
{
    struct place place;
    const uint64_t number = where >> 10 & 7;
    if (!place_of(file->entries, file->segments, number, &place))
        return where % 64;
    return place.offset + ((where & 512) != 0 ? where % 256 : 64 + (where & 511) * 128) % place.bytes;
}

static void file_patch(struct file *file, struct fuzz_input *input, unsigned flags)
{
    uint64_t where = 0;
    uint8_t *untouched = fuzz_copy(file->bytes, file->size);
    while (input->size > 0) {
        where = fuzz_take(input, 4);
        const struct slice patch = fuzz_take_slice(input, fuzz_take(input, 1));
        const uint64_t at = (flags & NEAR) != 0 ? near_place(file, where) : where % file->size;
        for (size_t i = 0; i < patch.size && at + i < file->size; i++)
            file->bytes[at + i] = patch.data[i];
    }
    file->changed = memcmp(file->bytes, untouched, file->size) != 0;
    free(untouched);
    if ((flags & FIX_HEADER) != 0) {
        const uint32_t crc = crc32c(0, file->bytes + 12, HEADER - 12);
        memcpy(file->bytes + 8, &crc, sizeof crc);
    }
    uint64_t entries, segments = 0;
    memcpy(&entries, file->bytes + 40, 8);
    memcpy(&segments, file->bytes + 56, 4);
    const bool sane = entries <= ENTRIES_MAX;
    struct place place;
    for (uint64_t i = 0; (flags & FIX_BLOCKS) != 0 && sane && place_of(entries, segments, i, &place) &&
                         place.offset + place.bytes <= file->size;
         i++) {
        const uint32_t crc = block_crc(file->bytes + place.offset, place.bytes, i);
        memcpy(file->bytes + place.offset + 4, &crc, sizeof crc);
    }
    if ((flags & CUT) != 0 && where % (file->size + 1) < file->size) {
        file->size = where % (file->size + 1);
        file->changed = true;
    }
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

/* Reads a range; how many entries came, which are put into `out` (file->entries of them at most). */
static enum kvs_err read_range(struct ring *ring, const struct run *run, struct run_range range, struct run_entry *out,
                               uint64_t *count)
{
    const struct run_reader_options options = {.run = run, .ring = ring, .range = range, .reads = 2, .read_blocks = 1};
    struct run_reader *reader;
    FUZZ_CHECK(run_reader_open(&reader, &options) == KVS_ERR_OK);
    enum kvs_err err;
    for (*count = 0;;) {
        struct run_span span;
        err = run_reader_next(reader, &span);
        if (err == KVS_ERR_AGAIN)
            ring_turn(ring, -1);
        else if (err != KVS_ERR_OK || span.at == span.end)
            break;
        const uint64_t some = (uint64_t)(span.end - span.at);
        FUZZ_CHECK(*count + some <= run->entry_count);
        if (some > 0)
            memcpy(out + *count, span.at, some * sizeof *out);
        *count += some;
    }
    FUZZ_CHECK(err == KVS_ERR_OK || err == KVS_ERR_CORRUPT);
    FUZZ_CHECK((err == KVS_ERR_OK) == (run_reader_failure_text(reader)[0] == '\0'));
    run_reader_stop(reader);
    while (!run_reader_idle(reader))
        ring_turn(ring, -1);
    run_reader_close(reader);
    return err;
}

static void check_shown(const struct file *file, const struct run *run, const struct run_entry *shown, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct place place;
        FUZZ_CHECK(place_of(run->entry_count, run->segment_count, i / PER_ENTRIES, &place));
        if (i % PER_ENTRIES == 0)
            FUZZ_CHECK(block_right(file->bytes + place.offset, place.bytes, i / PER_ENTRIES));
        FUZZ_CHECK(memcmp(&shown[i], file->bytes + place.offset + 64 + i % PER_ENTRIES * 40, 40) == 0);
        FUZZ_CHECK(i == 0 || shown[i].order > shown[i - 1].order ||
                   (shown[i].order == shown[i - 1].order && shown[i].check > shown[i - 1].check));
        FUZZ_CHECK(shown[i].place >> 62 == 0);
    }
}

static enum kvs_err check_reads(struct ring *ring, const struct file *file, const struct run *run,
                                struct run_range range)
{
    FUZZ_CHECK(run->entry_count <= ENTRIES_MAX);
    for (uint32_t i = 1; i < run->segment_count; i++)
        FUZZ_CHECK(run->segments[i].number > run->segments[i - 1].number);
    struct run_entry *all = calloc(run->entry_count + 1, sizeof *all);
    struct run_entry *part = calloc(run->entry_count + 1, sizeof *part);
    FUZZ_CHECK(all != NULL && part != NULL);
    uint64_t count, part_count;
    const enum kvs_err err = read_range(ring, run, RUN_RANGE_ALL, all, &count);
    check_shown(file, run, all, count);
    FUZZ_CHECK(err != KVS_ERR_OK || count == run->entry_count);
    const enum kvs_err part_err = read_range(ring, run, range, part, &part_count);
    if (err == KVS_ERR_OK) {
        uint64_t first = 0;
        while (first < count && all[first].order < range.first)
            first++;
        uint64_t end = first;
        while (end < count && all[end].order <= range.last)
            end++;
        FUZZ_CHECK(part_err == KVS_ERR_OK && part_count == end - first);
        FUZZ_CHECK(part_count == 0 || memcmp(part, all + first, part_count * sizeof *part) == 0);
    }
    free(all);
    free(part);
    return err;
}

FUZZ_SIM_INITIALIZE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    struct file file = {.entries = fuzz_take(&input, 2) % ENTRIES_MAX};
    file.segments = fuzz_take(&input, 1);
    struct run_range range = {.first = fuzz_take(&input, 8)};
    range.last = fuzz_take(&input, 8);
    if (range.last < range.first)
        range.last = UINT64_MAX;
    file_make(&file);
    file_patch(&file, &input, flags);

    sim_create(1);
    sim_file_put(path, file.bytes, file.size);
    struct ring *ring = fuzz_ring_open();
    int dir_fd;
    FUZZ_CHECK(ring_dir_open(ring, "/data", &dir_fd) == KVS_ERR_OK);
    char message[ENGINE_MESSAGE_BYTES] = "";
    const struct run_open_options options = {
        .ring = ring, .dir_fd = dir_fd, .dir_name = "/data", .store_uuid = uuid, .sequence = SEQUENCE, .direct = true};
    struct run *run;
    enum kvs_err err = run_open(&run, &options, message);
    FUZZ_CHECK(err == KVS_ERR_OK || err == KVS_ERR_CORRUPT);
    FUZZ_CHECK((err == KVS_ERR_OK) == (message[0] == '\0'));
    if (err == KVS_ERR_OK) {
        err = check_reads(ring, &file, run, range);
        run_close(run, ring);
    }
    FUZZ_CHECK(file.changed || err == KVS_ERR_OK);
    FUZZ_CHECK(!file.changed || (flags & (FIX_HEADER | FIX_BLOCKS)) != 0 || err == KVS_ERR_CORRUPT);
    sim_destroy();
    free(file.bytes);
    return 0;
}
